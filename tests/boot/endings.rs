//! How a run ends: its exit status, and what it says on standard error.

use tests::{boot, machine, program, read_line, root, signal, spawn, wait};

#[test]
fn a_program_chooses_its_status() {
    for (wanted, status) in [
        ("0", 0),
        ("1", 1),
        ("7", 7),
        ("63", 63),
        ("64", 63),
        ("1000", 63),
    ] {
        let outcome = boot(&[], &program("exit"), &[wanted]);
        assert_eq!(
            outcome.status,
            Some(status),
            "os.exit({wanted}): {}",
            outcome.error
        );
    }
}

#[test]
fn a_program_that_does_not_compile() {
    let outcome = boot(&[], &program("syntax_error"), &[]);
    assert_eq!(outcome.status, Some(2), "{}", outcome.error);
    assert!(
        outcome.error.contains("syntax_error.vua:3:"),
        "{}",
        outcome.error
    );
    assert!(outcome.output.is_empty());
}

#[test]
fn an_error_in_the_main_function() {
    let outcome = boot(&[], &program("error"), &[]);
    assert_eq!(outcome.status, Some(1), "{}", outcome.error);
    assert!(
        outcome.error.contains("error.vua:2: it broke"),
        "{}",
        outcome.error
    );
    assert_eq!(outcome.output, b"before\n");
}

#[test]
fn an_error_in_a_spawned_task() {
    for how in ["joined", "forgotten"] {
        let outcome = boot(&["--smp", "2"], &program("task_error"), &[how]);
        assert_eq!(outcome.status, Some(1), "{how}: {}", outcome.error);
        assert!(
            outcome.error.contains("task_error.vua:2: it broke"),
            "{how}: {}",
            outcome.error
        );
    }
}

#[test]
fn a_program_that_is_not_there() {
    let outcome = boot(&[], &root().join("tests/programs/absent.vua"), &[]);
    assert_eq!(outcome.status, Some(2));
    assert!(
        outcome.error.contains("absent.vua: no such file"),
        "{}",
        outcome.error
    );
}

#[test]
fn an_endless_program_under_a_time_limit() {
    let outcome = boot(&["--timeout", "3"], &program("endless"), &[]);
    assert_eq!(outcome.status, Some(124), "{}", outcome.error);
}

#[test]
fn an_interrupt_cancels_the_program() {
    for cores in ["1", "4"] {
        // With so much grace, only the program's own end ends the machine.
        let mut child = spawn(&mut machine(
            &["--smp", cores, "--grace", "600"],
            &program("cancelled"),
            &[],
        ));
        assert_eq!(read_line(&mut child), "ready");
        signal(&child, "INT");
        let outcome = wait(child);
        assert_eq!(outcome.status, Some(130), "{}", outcome.error);
    }
}
