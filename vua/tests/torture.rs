//! Programs whose tasks do everything to the same objects at once: each checks what must hold in any interleaving, prints `ok` and ends. What their tasks do is drawn from a seed; on
//! how many cores, and how the heap is tortured meanwhile, is said here.
//!
//! Here they run for a moment each. `scripts/test torture` runs them with seed after seed, for `TORTURE_SECONDS`, from `TORTURE_SEED` on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 11] = [
    "cancelling",
    "cells",
    "ends",
    "exhausting",
    "freezing",
    "iteration",
    "locks",
    "maps",
    "memory",
    "metamethods",
    "tables",
];

/// The numbers of cores, and the options.
const CORES: [&str; 4] = ["1", "2", "4", "8"];
const STRESS: [&[&str]; 2] = [&["--gc-stress"], &["--fail-allocations", "50"]];

/// Whether a program ends in reasonable time under this stress. A collection at every safepoint takes long where memory is full, or stacks are deep; and a program that starts others
/// makes so many objects in one step that it hardly ever comes to its end while allocations of several cores are made to fail.
fn is_bearable(program: &str, stress: &[&str]) -> bool {
    match stress[0] {
        "--gc-stress" => !["exhausting", "metamethods"].contains(&program),
        _ => program != "ends",
    }
}

/// A run takes a second or a few; this ends one that hangs, whatever the machine is busy with.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs a program, and says what is wrong with how it ended.
fn run(program: &str, options: &[&str], scale: u32, seed: u64) -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vua"))
        .arg("run")
        .args(options)
        .arg(folder.join(program).with_extension("vua"))
        .args([scale.to_string(), seed.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the vua command starts");
    let start = Instant::now();
    let mut hung = false;
    while child
        .try_wait()
        .expect("a child can be waited for")
        .is_none()
    {
        if start.elapsed() > LIMIT {
            child.kill().expect("a child can be killed");
            hung = true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // What these programs print fits into a pipe.
    let output = child.wait_with_output().expect("a child can be waited for");
    if output.status.success() && output.stdout == b"ok\n" && output.stderr.is_empty() {
        return Ok(());
    }
    let hangs = if hung { " hangs;" } else { "" };
    Err(format!(
        "{program} {} {scale} {seed}:{hangs} {}\n{}{}",
        options.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// A program on one core and on several, on one under each kind of stress, and in interleavings that its seed decides.
fn torture(program: &str) {
    for cores in ["1", "4"] {
        run(program, &["--workers", cores], 1, 1).unwrap();
    }
    for stress in STRESS {
        if is_bearable(program, stress) {
            run(program, &[&["--workers", "1"], stress].concat(), 1, 2).unwrap();
        }
    }
    for seed in 1..=2 {
        run(program, &["--schedule-seed", &seed.to_string()], 1, seed).unwrap();
    }
}

macro_rules! tortures {
    ($($(#[$ignored:meta])? $name:ident)*) => {
        $(
            #[test]
            $(#[$ignored])?
            fn $name() {
                torture(stringify!($name));
            }
        )*

        #[test]
        fn every_program_is_run() {
            assert_eq!([$(stringify!($name)),*], PROGRAMS);
        }
    };
}

tortures!(cancelling cells #[ignore = "hangs in one of fifty runs on several cores: docs/scheduler.md"] ends exhausting freezing iteration locks maps memory metamethods tables);

#[test]
#[ignore = "runs for as long as one says: scripts/test torture"]
fn seed_after_seed() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect(name))
    };
    let seconds = Duration::from_secs(number("TORTURE_SECONDS", 600));
    let mut seed = number("TORTURE_SEED", 1);
    let start = Instant::now();
    let mut failures = Vec::new();
    while start.elapsed() < seconds {
        for program in PROGRAMS {
            for cores in CORES {
                failures.extend(run(program, &["--workers", cores], 3, seed).err());
                for stress in STRESS {
                    if !is_bearable(program, stress) {
                        continue;
                    }
                    let options = [&["--workers", cores], stress].concat();
                    failures.extend(run(program, &options, 1, seed).err());
                }
            }
            let chosen = seed.to_string();
            failures.extend(run(program, &["--schedule-seed", &chosen], 1, seed).err());
        }
        println!("seed {seed}: {} failures so far", failures.len());
        seed += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
