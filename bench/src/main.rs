//! What stands behind `scripts/bench`: runs the benchmark programs on the host, in the kernel, on simulated cores and on other
//! implementations of Lua, and reports.
//!
//! | module | what |
//! | --- | --- |
//! | [`options`] | the command line |
//! | [`program`] | the programs and what their first lines say |
//! | [`child`] | children: output, time, an end when it is time |
//! | [`measure`] | what is run how often, in which order |
//! | [`statistics`], [`results`] | medians; what the JSON file holds |
//! | [`table`], [`html`], [`plot`] | what people read |
//!
//! Two rules hold everywhere. What is compared is measured in alternation, so that a disturbance of the machine meets both. And whatever goes
//! wrong, a peer that is missing, a machine that QEMU cannot make, Ctrl-C, is said, and what was measured is kept.

mod child;
mod html;
mod measure;
mod options;
mod plot;
mod program;
mod progress;
mod results;
mod statistics;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use child::{Failure, Runner};
use measure::Bench;
use options::Options;
use progress::Progress;
use results::{Machine, Parallel, Results, Sequential};

/// The exit status after Ctrl-C, as of a shell's child.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1), options::host_cores()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("bench: {message}\nTry 'scripts/bench --help'.");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(INTERRUPTED),
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::from(2)
        }
    }
}

/// Measures and reports; says whether it was interrupted.
fn run(options: &Options) -> Result<bool, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let programs = program::all(&source.join("programs/bench"))?;
    let programs = program::choose(programs, &options.names)?;
    let executable = std::env::current_exe().map_err(|error| error.to_string())?;
    let binaries = executable.parent().unwrap_or(Path::new(".")).to_path_buf();
    let out = match &options.out {
        Some(out) => PathBuf::from(out),
        None => binaries.parent().unwrap_or(&binaries).join("bench"),
    };
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;

    let runner = Runner::new().map_err(|error| error.to_string())?;
    let progress = Progress::new();
    let mut bench = Bench {
        runner: &runner,
        options,
        progress: &progress,
        binaries,
        peers: Vec::new(),
        notes: Vec::new(),
    };
    if options.peers {
        bench.peers = measure::installed_peers(&mut bench.notes);
    }
    let mut results = Results {
        machine: describe(source),
        repeats: options.repeats,
        quick: options.quick,
        ..Results::default()
    };
    for note in &bench.notes {
        progress.say(note);
    }
    let count = programs.len();
    for (i, program) in programs.iter().enumerate() {
        progress.say(&format!("{} of {count}: {}", i + 1, program.name));
        let outcome = if program.parallel {
            let mut into = Parallel {
                name: program.name.clone(),
                ..Parallel::default()
            };
            let outcome = bench.parallel(program, &mut into);
            into.compare();
            results.parallel.push(into);
            outcome
        } else {
            let mut into = Sequential {
                name: program.name.clone(),
                host: None,
                kernel: None,
                peers: Vec::new(),
            };
            let outcome = bench.sequential(program, &mut into);
            results.sequential.push(into);
            outcome
        };
        results.notes.clone_from(&bench.notes);
        results.interrupted = matches!(outcome, Err(Failure::Interrupted));
        // After every program, so that nothing is lost whatever comes.
        write(&out, &results)?;
        if results.interrupted {
            progress.say(&format!(
                "interrupted at {}: this is what there is",
                program.name
            ));
            break;
        }
    }
    print!("{}", table::render(&results));
    progress.say(&format!(
        "{} and {}",
        out.join("results.json").display(),
        out.join("report.html").display()
    ));
    Ok(results.interrupted)
}

fn write(out: &Path, results: &Results) -> Result<(), String> {
    let json = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    for (name, text) in [
        ("results.json", json),
        ("report.html", html::render(results)),
    ] {
        let file = out.join(name);
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// The machine that this runs on.
fn describe(source: &Path) -> Machine {
    let first_line = |command: &mut Command| {
        let output = command.output().ok().filter(|o| o.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().map(str::to_owned)
    };
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let unknown = || "unknown".to_owned();
    Machine {
        processor: processor.unwrap_or_else(unknown),
        cores: options::host_cores(),
        system: first_line(Command::new("uname").arg("-srm")).unwrap_or_else(unknown),
        revision: first_line(
            Command::new("git")
                .arg("-C")
                .arg(source)
                .args(["describe", "--always", "--dirty"]),
        )
        .unwrap_or_else(unknown),
        time: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |passed| passed.as_secs()),
    }
}
