//! A program prints the same on any number of cores, in the machine and on the host.

use std::path::Path;
use std::sync::OnceLock;

use tests::{boot, host, program, shipped};

/// What `program` prints on the host with one worker, and, asserted to be the same, with more.
fn on_the_host(program: &Path, arguments: &[&str]) -> Vec<u8> {
    let expected = host(1, program, arguments).success();
    assert!(!expected.is_empty());
    for workers in [2, 4] {
        assert!(
            host(workers, program, arguments).success() == expected,
            "with {workers} workers"
        );
    }
    expected
}

macro_rules! prints_the_same {
    ($name:ident, $program:expr, $arguments:expr) => {
        mod $name {
            use super::*;

            static EXPECTED: OnceLock<Vec<u8>> = OnceLock::new();

            fn compare(cores: &str) {
                let expected = EXPECTED.get_or_init(|| on_the_host(&$program, &$arguments));
                let printed = boot(&["--smp", cores], &$program, &$arguments).success();
                assert!(
                    printed == *expected,
                    "expected:\n{}\nprinted:\n{}",
                    String::from_utf8_lossy(expected),
                    String::from_utf8_lossy(&printed)
                );
            }

            #[test]
            fn on_1_core() {
                compare("1");
            }

            #[test]
            fn on_2_cores() {
                compare("2");
            }

            #[test]
            fn on_4_cores() {
                compare("4");
            }

            #[test]
            fn on_8_cores() {
                compare("8");
            }

            #[test]
            fn on_16_cores() {
                compare("16");
            }

            #[test]
            fn on_64_cores() {
                compare("64");
            }
        }
    };
}

prints_the_same!(mandelbrot, shipped("mandelbrot"), ["96", "60"]);
prints_the_same!(nqueens, shipped("nqueens"), ["8"]);
prints_the_same!(wordcount, shipped("wordcount"), ["data/logbook.txt", "20"]);
prints_the_same!(hello, shipped("hello"), ["Ada", "Barbara", "Grace"]);
prints_the_same!(fib, shipped("fib"), ["13"]);

#[test]
fn a_program_gets_its_arguments_and_data() {
    let arguments = ["one", "two words", "", "ü"];
    let printed = boot(&[], &program("folder"), &arguments).success();
    assert_eq!(
        String::from_utf8_lossy(&printed),
        "4:one|two words||ü\ndata of the program's folder\n1.5\ttrue\n"
    );
}

#[test]
fn a_program_starts_others_within_limits() {
    let printed = boot(&["--smp", "4"], &program("starts"), &[]).success();
    assert_eq!(
        String::from_utf8_lossy(&printed),
        "caught\tnot enough memory\n0\t10000\n7\n124\n0\t1\n100000000\n"
    );
}

#[test]
fn a_small_machine_suffices() {
    let expected = host(1, &program("small"), &[]).success();
    assert_eq!(
        boot(&["--mem", "64M", "--smp", "4"], &program("small"), &[]).success(),
        expected
    );
}
