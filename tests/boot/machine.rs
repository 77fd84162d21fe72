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

/// Commits a fault while a program runs on all cores, on the first core and on another.
fn fault(name: &str) -> [Outcome; 2] {
    ["0", "3"].map(|core| {
        let words = format!("fault={name} fault-core={core}");
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
    })
}

fn is_reported(name: &str, what: &str) {
    for (outcome, core) in fault(name).into_iter().zip([0, 3]) {
        let heading = format!("KERNEL PANIC on core {core}");
        let line = outcome.error.lines().find(|line| line.contains(&heading));
        assert!(
            line.is_some_and(|line| line.contains(what)),
            "{name}: {}",
            outcome.error
        );
    }
}

#[test]
fn a_null_pointer() {
    is_reported("null", "page fault");
}

#[test]
fn a_write_to_the_kernels_code() {
    is_reported("text-write", "page fault");
}

#[test]
fn data_that_is_executed() {
    is_reported("nx", "page fault");
}

#[test]
fn a_stack_overflow() {
    is_reported("stack", "overflow of the work stack");
}

#[test]
fn a_division_by_zero() {
    is_reported("divide", "divide");
}

#[test]
fn an_undefined_instruction() {
    is_reported("opcode", "opcode");
}

#[test]
fn a_panic() {
    is_reported("panic", "panic at");
}

#[test]
fn a_fault_while_a_fault_is_reported() {
    fault("nested");
}
