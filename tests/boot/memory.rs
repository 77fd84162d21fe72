//! Memory that ends: an error of the program, which it can catch, and never one of the kernel.

use tests::{boot, host, program};

/// A program that takes all memory in this `way`, twice, on small machines.
fn is_caught(way: &str) {
    for memory in ["48M", "64M"] {
        let outcome = boot(
            &["--smp", "2", "--mem", memory],
            &program("exhausting"),
            &[way],
        );
        assert_eq!(
            outcome.status,
            Some(0),
            "{way} in {memory}: {}{}",
            String::from_utf8_lossy(&outcome.output),
            outcome.error
        );
        assert_eq!(outcome.output, b"round 1\nround 2\n", "{way} in {memory}");
    }
}

macro_rules! is_caught {
    ($($way:ident)*) => { $(
        #[test]
        fn $way() {
            is_caught(stringify!($way));
        }
    )* };
}

is_caught!(
    tables array strings doubled substituted coroutines functions source cores
);

/// Tasks whose own error nobody looks at: they may find no memory either, which is reported at the program's end.
#[test]
fn tasks() {
    for memory in ["48M", "64M"] {
        let machine = ["--smp", "2", "--mem", memory];
        let outcome = boot(&machine, &program("exhausting"), &["tasks"]);
        let reported = outcome.error.contains("not enough memory");
        assert!(
            outcome.status == Some(0) || (outcome.status == Some(1) && reported),
            "{memory}: {:?} {}",
            outcome.status,
            outcome.error
        );
        assert_eq!(outcome.output, b"round 1\nround 2\n", "{memory}");
    }
}

#[test]
fn an_error_that_nobody_catches() {
    for memory in ["48M", "512M"] {
        let outcome = boot(&["--smp", "2", "--mem", memory], &program("exhausted"), &[]);
        assert_eq!(outcome.status, Some(1), "{memory}: {}", outcome.error);
        assert!(
            outcome.error.contains("not enough memory"),
            "{memory}: {}",
            outcome.error
        );
    }
}

#[test]
fn memory_let_go_of_is_used_again() {
    let expected = host(1, &program("churn"), &["96"]).success();
    for memory in ["48M", "64M"] {
        let machine = ["--smp", "2", "--mem", memory];
        let printed = boot(&machine, &program("churn"), &["96"]).success();
        assert_eq!(
            String::from_utf8_lossy(&printed),
            String::from_utf8_lossy(&expected),
            "{memory}"
        );
    }
}
