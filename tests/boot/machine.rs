//! The machine under the programs: what the kernel checks about itself, and what it reports when it fails.

use tests::{Outcome, boot, program};

fn checks_itself(options: &[&str]) {
    let options = [options, &["--append", "selftest", "--verbose"]].concat();
    let outcome = boot(&options, &program("exit"), &["0"]);
    assert_eq!(outcome.status, Some(0), "{}", outcome.error);
    assert!(
        outcome.error.contains("selftest: passed"),
        "{}",
        outcome.error
    );
}

#[test]
fn it_checks_itself_on_1_core() {
    checks_itself(&["--smp", "1"]);
}

#[test]
fn it_checks_itself_on_2_cores() {
    checks_itself(&["--smp", "2"]);
}

#[test]
fn it_checks_itself_on_8_cores() {
    checks_itself(&["--smp", "8"]);
}

#[test]
fn it_checks_itself_on_64_cores() {
    checks_itself(&["--smp", "64"]);
}

#[test]
fn it_checks_itself_in_little_and_in_much_memory() {
    checks_itself(&["--smp", "2", "--mem", "64M"]);
    // More than fits below the hole at 4 GiB.
    checks_itself(&["--smp", "2", "--mem", "5G"]);
}

/// Without the exit device, a machine ends as its firmware's tables say, and QEMU with it.
#[test]
fn it_switches_itself_off_and_starts_anew() {
    for (how, says) in [("off", "switching off"), ("reset", "starting anew")] {
        let words = format!("end={how}");
        let outcome = boot(&["--verbose", "--append", &words], &program("exit"), &["0"]);
        let log = &outcome.error;
        assert!(log.contains(says), "{log}");
        assert!(
            log.contains("without an exit status (QEMU: exit status: 0)"),
            "{log}"
        );
        assert!(!log.contains("it is safe to switch off"), "{log}");
    }
}

/// Commits a fault on this core of four while a program runs on all. The watchdog's limit is shorter than usual, and still longer
/// than a busy host keeps a virtual core from running.
fn fault(name: &str, core: usize) -> Outcome {
    let words = format!("fault={name} fault-core={core} watchdog=10");
    let outcome = boot(
        &["--smp", "4", "--append", &words],
        &program("endless"),
        &[],
    );
    assert_eq!(
        outcome.status,
        Some(101),
        "{name} on core {core}: {}",
        outcome.error
    );
    assert!(outcome.output.is_empty());
    outcome
}

/// The numbers in a line such as `cores 0-1, 3:`.
fn cores_of(line: &str) -> Option<Vec<usize>> {
    let list = line
        .strip_prefix("core ")
        .or_else(|| line.strip_prefix("cores "))?
        .strip_suffix(':')?;
    let mut cores = Vec::new();
    for part in list.split(", ") {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cores)
}

/// Checks a report: one panic, on this core, that says `what`; the way to it, which leads through `through`; and where every
/// other core was, by a function's name.
fn check_report(report: &str, core: usize, what: &str, through: &str) {
    let mut lines = report
        .lines()
        .skip_while(|line| !line.contains("KERNEL PANIC"));
    let heading = lines.next().unwrap_or_default();
    assert!(
        heading.contains(&format!("KERNEL PANIC on core {core}")) && heading.contains(what),
        "{what}: {report}"
    );
    assert_eq!(report.matches("KERNEL PANIC").count(), 1, "{report}");
    let lines: Vec<&str> = lines.collect();
    let others = lines.iter().position(|line| cores_of(line).is_some());
    let (own, others) = lines.split_at(others.unwrap_or(lines.len()));
    let named = |line: &&str| line.starts_with("    0x") && line.contains("+0x");
    let shown = own.iter().filter(|line| named(line));
    assert!(
        shown.into_iter().any(|line| line.contains(through)),
        "no backtrace through {through}: {report}"
    );
    let mut stopped = Vec::new();
    for (at, line) in others.iter().enumerate() {
        let Some(cores) = cores_of(line) else {
            continue;
        };
        let way = others[at + 1..]
            .iter()
            .take_while(|line| line.starts_with(' '));
        assert!(way.into_iter().any(named), "no position of {line} {report}");
        stopped.extend(cores);
    }
    stopped.sort();
    let expected: Vec<usize> = (0..4).filter(|&other| other != core).collect();
    assert_eq!(stopped, expected, "{report}");
}

/// Commits a fault on the first core and on another.
fn is_reported(name: &str, what: &str) {
    for core in [0, 3] {
        check_report(&fault(name, core).error, core, what, "kernel::run::commit");
    }
}

#[test]
fn a_null_pointer() {
    is_reported("null", "read at 0x8: nothing is mapped there (null page)");
}

#[test]
fn a_write_to_the_kernels_code() {
    is_reported("text-write", "not allowed there (kernel code)");
}

#[test]
fn data_that_is_executed() {
    is_reported("nx", "not allowed there (in the work stack of slot");
}

#[test]
fn a_stack_overflow() {
    for core in [0, 3] {
        let report = fault("stack", core).error;
        check_report(
            &report,
            core,
            "overflow of the work stack",
            "kernel::run::descend",
        );
    }
}

#[test]
fn a_division_by_zero() {
    is_reported("divide", "divide error");
}

#[test]
fn an_undefined_instruction() {
    is_reported("opcode", "invalid opcode");
}

#[test]
fn a_double_fault() {
    is_reported("double", "double fault");
}

#[test]
fn a_non_maskable_interrupt() {
    is_reported("nmi", "non-maskable interrupt");
}

#[test]
fn a_panic() {
    is_reported("panic", "panic at kernel/src/run.rs");
}

#[test]
fn a_core_that_takes_no_interrupts() {
    // The first core looks after the others, and the second after the first.
    for (core, watcher) in [(2, 0), (0, 1)] {
        let report = fault("stuck", core).error;
        let what = format!("watchdog: core {core} has taken no interrupt for 10 s");
        check_report(&report, watcher, &what, "+0x");
        let stuck = report
            .lines()
            .skip_while(|line| *line != format!("core {core}:"));
        assert!(
            stuck
                .skip(1)
                .take_while(|line| line.starts_with(' '))
                .any(|line| line.contains("kernel::run::commit")),
            "{report}"
        );
    }
}

#[test]
fn a_panic_on_all_cores_at_once() {
    let report = fault("every", 0).error;
    let first = (0..4).find(|core| report.contains(&format!("KERNEL PANIC on core {core} ")));
    let first = first.unwrap_or_else(|| panic!("no report: {report}"));
    check_report(
        &report,
        first,
        "on all cores at once",
        "kernel::run::commit",
    );
}

#[test]
fn a_fault_while_a_fault_is_reported() {
    for core in [0, 3] {
        let report = fault("nested", core).error;
        assert!(
            report.contains("KERNEL PANIC, nested: invalid opcode")
                || report.matches("KERNEL PANIC").count() <= 1,
            "{report}"
        );
    }
}
