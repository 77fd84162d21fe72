//! The same program on every kind of machine: through the direct loader and through the official Limine, on BIOS and UEFI,
//! with one core and with 255, with an old and a new processor, with little and with much memory. A row for each, with the
//! time of each phase of its boot.
//!
//! `cargo test` runs a few rows; `BOOT_MATRIX=all`, which `scripts/test boot-matrix` sets, runs all. Rows with the official
//! Limine need its binary release, in `LIMINE_DIR`, and xorriso; those with UEFI need OVMF. This has no test harness, because it
//! prints more than that can: the phases of each boot, and why a row is skipped on the machine at hand. Otherwise it prints
//! the same. An argument keeps the rows whose names contain it.

use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use tests::{boot, host, shipped};

/// What starts the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The direct loader.
    Direct,
    /// The official Limine, from a disc on a BIOS machine.
    Bios,
    /// The same on a UEFI machine.
    Uefi,
    /// The same from a USB stick.
    UefiUsb,
}

/// One machine.
#[derive(Clone, Copy, Debug)]
struct Row {
    start: Start,
    cores: usize,
    processor: &'static str,
    memory: &'static str,
}

const fn row(start: Start, cores: usize, processor: &'static str, memory: &'static str) -> Row {
    Row {
        start,
        cores,
        processor,
        memory,
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = match self.start {
            Start::Direct => "direct loader",
            Start::Bios => "Limine, BIOS",
            Start::Uefi => "Limine, UEFI",
            Start::UefiUsb => "Limine, UEFI, USB",
        };
        let Self {
            cores,
            processor,
            memory,
            ..
        } = self;
        write!(out, "{start}, {cores} cores, {processor}, {memory}")
    }
}

/// The rows of the ordinary test run: each value of each column once or more.
const FEW: [Row; 6] = [
    row(Start::Direct, 1, "qemu64", "48M"),
    row(Start::Direct, 3, "max", "8G"),
    row(Start::Direct, 64, "qemu64", "512M"),
    row(Start::Direct, 255, "max", "512M"),
    row(Start::Bios, 2, "qemu64", "512M"),
    row(Start::Uefi, 2, "max", "512M"),
];

/// All rows.
fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for start in [Start::Direct, Start::Bios, Start::Uefi] {
        for cores in [1, 2, 3, 64, 255] {
            for processor in ["qemu64", "max"] {
                for memory in ["48M", "512M", "8G"] {
                    rows.push(row(start, cores, processor, memory));
                }
            }
        }
    }
    rows.push(row(Start::Direct, 2, "max", "64G"));
    rows.push(row(Start::Direct, 288, "max", "1G"));
    rows.push(row(Start::UefiUsb, 2, "max", "512M"));
    rows
}

/// The emulator's major version.
fn qemu_version() -> Option<u32> {
    let qemu = std::env::var_os("VIRIDIS_QEMU").unwrap_or_else(|| "qemu-system-x86_64".into());
    let output = Command::new(qemu).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split("version ").nth(1)?;
    version.split('.').next()?.parse().ok()
}

/// Why a row cannot be run here, if it cannot.
fn skipped(row: &Row) -> Option<String> {
    if row.start != Start::Direct && std::env::var_os("LIMINE_DIR").is_none_or(|dir| dir.is_empty())
    {
        return Some("needs LIMINE_DIR".into());
    }
    let uefi = matches!(row.start, Start::Uefi | Start::UefiUsb);
    if uefi && row.memory == "48M" {
        return Some("OVMF leaves Limine too little of 48 MiB".into());
    }
    let version = qemu_version()?;
    if row.cores > 255 && version < 9 {
        return Some(format!(
            "QEMU {version} emulates no x2APIC: 288 cores need 9 or later"
        ));
    }
    None
}

/// Runs a row; gives what its log says of the boot's phases.
fn run(row: &Row, program: &Path, expected: &[u8]) -> Result<String, String> {
    let cores = row.cores.to_string();
    let mut options = vec!["--smp", &cores, "--cpu", row.processor, "--mem", row.memory];
    options.extend(["--verbose", "--append", "settle"]);
    options.extend(match row.start {
        Start::Direct => &[][..],
        Start::Bios => &["--iso"],
        Start::Uefi => &["--iso", "--firmware", "uefi"],
        Start::UefiUsb => &["--iso", "--firmware", "uefi", "--usb"],
    });
    let outcome = boot(&options, program, &[]);
    let log = &outcome.error;
    if outcome.status != Some(0) || outcome.output != expected {
        return Err(format!(
            "status {:?}, output {:?}\n{log}",
            outcome.status,
            String::from_utf8_lossy(&outcome.output)
        ));
    }
    // A machine with too little memory for the stacks of all its cores says so, and goes on with fewer.
    let all_up = log.contains(&format!("cores: {0} of {0} up", row.cores));
    if !all_up && !log.contains("no memory for the stacks of") {
        return Err(format!("not all cores came up\n{log}"));
    }
    if (row.start == Start::Direct) != log.contains("started by Viridis direct loader") {
        return Err(format!("not started as it should be\n{log}"));
    }
    let line = |mark: &str| {
        let line = log.lines().find_map(|line| line.split_once(mark));
        line.map(|(_, text)| text.to_owned())
            .ok_or_else(|| format!("the log has no line with {mark:?}\n{log}"))
    };
    Ok(format!("{}; {}", line("boot: ")?, line("settled: ")?))
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let whole = std::env::var("BOOT_MATRIX").is_ok_and(|value| value == "all");
    let mut rows = if whole { all() } else { FEW.to_vec() };
    rows.retain(|row| {
        let name = row.to_string();
        wanted.is_empty() || wanted.iter().any(|word| name.contains(word))
    });
    let program = shipped("nqueens");
    let expected = host(2, &program, &[]).success();
    println!("\nrunning {} tests", rows.len());
    let (mut passed, mut failures, mut ignored) = (0, Vec::new(), 0);
    let start = Instant::now();
    for row in &rows {
        if let Some(reason) = skipped(row) {
            println!("test {row} ... ignored, {reason}");
            ignored += 1;
            continue;
        }
        let begin = Instant::now();
        match run(row, &program, &expected) {
            Ok(phases) => {
                passed += 1;
                let seconds = begin.elapsed().as_secs_f32();
                println!("test {row} ... ok, in {seconds:.1} s: {phases}");
            }
            Err(error) => {
                println!("test {row} ... FAILED");
                failures.push(format!("---- {row} ----\n{error}\n"));
            }
        }
    }
    for failure in &failures {
        println!("\n{failure}");
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {ignored} ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        failures.len(),
        start.elapsed().as_secs_f32()
    );
    ExitCode::from(u8::from(!failures.is_empty()))
}
