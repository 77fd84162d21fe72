//! How a program runs on more and more of the cores in one boot, and on cores that take turns: in instructions, as on the host.

use std::process::Command;

use tests::{boot, built, program, root, run};

#[test]
fn each_run_has_its_cores_and_its_memory() {
    // Six runs in less memory than five take.
    let options = ["--smp", "4", "--mem", "320M", "--stats"];
    let words = ["--append", "sweep=1,2,4,9 repeats=2"];
    let outcome = boot(&[&options[..], &words].concat(), &program("counted"), &[]);
    let log = &outcome.error;
    assert!(
        log.contains("sweep: 9 cores are left out, there are 4"),
        "{log}"
    );
    let reports = log.lines().filter(|line| line.starts_with("{\"cores\":["));
    let cores: Vec<usize> = reports
        .map(|line| line.matches("\"cpu\":").count())
        .collect();
    assert_eq!(cores, [1, 2, 4, 1, 2, 4], "{log}");
    let printed = String::from_utf8(outcome.success()).unwrap();
    let expected = [1, 2, 4, 1, 2, 4].map(|cores| format!("{cores}\t45000150000\t62914560\n"));
    assert_eq!(printed, expected.concat());
}

#[test]
fn a_run_that_fails_is_the_last() {
    let outcome = boot(
        &["--smp", "2", "--append", "sweep=1,2 repeats=3"],
        &program("exit"),
        &["7"],
    );
    assert_eq!(outcome.status, Some(7), "{}", outcome.error);
    let outcome = boot(
        &["--smp", "2", "--append", "sweep=2,1"],
        &program("syntax_error"),
        &[],
    );
    assert_eq!(outcome.status, Some(2), "{}", outcome.error);
    assert_eq!(outcome.error.matches("syntax_error.vua:3:").count(), 1);
}

#[test]
fn the_kernel_retires_the_hosts_instructions() {
    for (name, argument) in [("fib", "18"), ("queens", "6")] {
        let file = root()
            .join("programs/bench/parallel")
            .join(name)
            .with_extension("vua");
        let mut host = Command::new(built("vua"));
        host.args(["run", "--simulate", "1"])
            .arg(&file)
            .arg(argument);
        let host = run(&mut host, b"");
        let options = ["--smp", "2", "--append", "simulate=1"];
        let kernel = boot(&options, &file, &[argument]);
        // Time, rounds, work, spans, and what the core executed.
        let report = |log: &str| {
            let line = log.lines().find(|line| line.starts_with("{\"cores\":"));
            line.map(str::to_owned)
                .unwrap_or_else(|| panic!("no report: {log}"))
        };
        assert_eq!(report(&host.error), report(&kernel.error), "{name}");
        assert_eq!(host.success(), kernel.success());
    }
}
