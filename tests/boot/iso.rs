//! The ISO image, through the official Limine. These need its binary release, in `LIMINE_DIR`, and xorriso.

use tests::{boot, host, program};

#[test]
#[ignore = "needs LIMINE_DIR"]
fn the_machine_checks_itself() {
    for cores in ["1", "4"] {
        let options = ["--iso", "--smp", cores, "--append", "selftest", "--verbose"];
        let outcome = boot(&options, &program("exit"), &["0"]);
        assert_eq!(outcome.status, Some(0), "{}", outcome.error);
        assert!(
            outcome.error.contains("started by Limine"),
            "{}",
            outcome.error
        );
        assert!(
            outcome.error.contains("selftest: passed"),
            "{}",
            outcome.error
        );
    }
}

#[test]
#[ignore = "needs LIMINE_DIR"]
fn the_iso_image_runs_the_program() {
    for cores in ["1", "4"] {
        let expected = host(1, &program("small"), &[]).success();
        assert_eq!(
            boot(&["--iso", "--smp", cores], &program("small"), &[]).success(),
            expected
        );
    }
}

#[test]
#[ignore = "needs LIMINE_DIR"]
fn the_iso_image_gives_arguments_and_status() {
    let outcome = boot(&["--iso"], &program("exit"), &["9"]);
    assert_eq!(outcome.status, Some(9), "{}", outcome.error);
}
