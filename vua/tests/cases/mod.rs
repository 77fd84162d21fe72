//! Programs with the output that they must have: how the tests of the language run them, compare and report.
//!
//! Every case runs through the `vua` command with one worker and with four. The report has the form of the standard test
//! harness, whose usual arguments are understood: names to select by, `--exact`, `--list`, `--quiet`, `--test-threads=N`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// A program, and what must come out of it.
pub struct Case {
    /// What it is called in reports.
    pub name: String,
    /// The program's file name, under which messages speak of it.
    pub file: String,
    /// Its source.
    pub source: String,
    /// Where modules and data lie that it finds beside itself.
    pub beside: Option<PathBuf>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its standard input.
    pub input: String,
    /// Its standard output, to the byte.
    pub output: String,
    /// Its standard error. A line `…` stands for any number of lines.
    pub error: String,
    /// Its exit status.
    pub status: i32,
}

/// How many threads stand for cores.
const WORKERS: [usize; 2] = [1, 4];
/// A case takes milliseconds; this ends one that hangs, whatever the machine is busy with.
const LIMIT: Duration = Duration::from_secs(120);
/// How many cases run at a time, unless told otherwise.
const THREADS: usize = 2;

/// What a run gave.
struct Outcome {
    output: Vec<u8>,
    error: Vec<u8>,
    /// `None` when it was killed: by a signal, or by us at the limit.
    status: Option<i32>,
    hung: bool,
}

fn run(case: &Case, workers: usize) -> Outcome {
    // A folder of its own, since programs write files.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{}-{workers}", case.name.replace('/', "-")));
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder can be made");
    if let Some(beside) = &case.beside {
        copy(beside, &folder).expect("what lies beside the program can be copied");
    }
    fs::write(folder.join(&case.file), &case.source).expect("the program can be copied");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vua"))
        .args(["run", "--workers", &workers.to_string()])
        // So that all cases can be run under `--gc-stress` and the like.
        .args(
            std::env::var("VUA_OPTIONS")
                .iter()
                .flat_map(|o| o.split_whitespace()),
        )
        .arg(&case.file)
        .args(&case.arguments)
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the vua command starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = child.stdout.take().expect("a pipe");
    let mut error = child.stderr.take().expect("a pipe");
    thread::scope(|scope| {
        // A program need not read its input: then the pipe breaks.
        scope.spawn(move || _ = input.write_all(case.input.as_bytes()));
        let output = scope.spawn(move || read_all(&mut output));
        let error = scope.spawn(move || read_all(&mut error));
        let (status, hung) = wait(&mut child);
        Outcome {
            output: output.join().unwrap(),
            error: error.join().unwrap(),
            status,
            hung,
        }
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("a pipe can be read");
    bytes
}

fn wait(child: &mut Child) -> (Option<i32>, bool) {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return (status.code(), false);
        }
        if start.elapsed() > LIMIT {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
            return (None, true);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// What is wrong with `case` on so many workers; `None` when all is right.
fn failure(case: &Case, workers: usize) -> Option<String> {
    let outcome = run(case, workers);
    let mut report = String::new();
    if outcome.hung {
        _ = writeln!(report, "still running after {} seconds", LIMIT.as_secs());
    } else if outcome.status != Some(case.status) {
        let status = outcome
            .status
            .map_or("none (killed by a signal)".into(), |status| {
                status.to_string()
            });
        _ = writeln!(report, "exit status {status}, expected {}", case.status);
    }
    if outcome.output != case.output.as_bytes() {
        let found = String::from_utf8_lossy(&outcome.output);
        _ = writeln!(
            report,
            "standard output (- expected, + found):\n{}",
            difference(&case.output, &found)
        );
    }
    let found = String::from_utf8_lossy(&outcome.error);
    let expected: Vec<&str> = case.error.lines().collect();
    if !matches(&expected, &found.lines().collect::<Vec<_>>()) {
        _ = writeln!(
            report,
            "standard error (- expected, + found):\n{}",
            difference(&case.error, &found)
        );
    }
    (!report.is_empty()).then_some(report)
}

/// Whether the lines agree, where an expected `…` agrees with any number of them.
fn matches(expected: &[&str], found: &[&str]) -> bool {
    match expected.split_first() {
        None => found.is_empty(),
        Some((&"…", rest)) => (0..=found.len()).any(|skipped| matches(rest, &found[skipped..])),
        Some((first, rest)) => found
            .split_first()
            .is_some_and(|(line, others)| line == first && matches(rest, others)),
    }
}

/// The lines of both texts, marked with which they are in, common ones once (longest common subsequence).
fn difference(expected: &str, found: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (
        expected.split_inclusive('\n').collect(),
        found.split_inclusive('\n').collect(),
    );
    // length[i][j]: of the longest common subsequence of a[i..] and b[j..].
    let mut length = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            length[i][j] = if a[i] == b[j] {
                length[i + 1][j + 1] + 1
            } else {
                length[i + 1][j].max(length[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut text = String::new();
    let mut line = |mark: char, line: &str| {
        let end = if line.ends_with('\n') {
            ""
        } else {
            "(no end of line)\n"
        };
        _ = write!(text, "{mark} {line}{end}");
    };
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            line(' ', a[i]);
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && length[i + 1][j] >= length[i][j + 1] {
            line('-', a[i]);
            i += 1;
        } else {
            line('+', b[j]);
            j += 1;
        }
    }
    text
}

/// What the standard harness's arguments ask for.
struct Selection {
    names: Vec<String>,
    exact: bool,
    list: bool,
    quiet: bool,
    threads: usize,
}

impl Selection {
    fn from_arguments() -> Selection {
        let mut selection = Selection {
            names: Vec::new(),
            exact: false,
            list: false,
            quiet: false,
            threads: THREADS,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let (option, value) = match argument.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (&*argument, None),
            };
            match option {
                "--exact" => selection.exact = true,
                "--list" => selection.list = true,
                "--quiet" | "-q" => selection.quiet = true,
                "--test-threads" => {
                    let value = value.or_else(|| arguments.next()).unwrap_or_default();
                    selection.threads = value.parse().expect("--test-threads takes a number");
                }
                // Takes a value, which is not a name.
                "--format" | "--color" | "--skip" | "-Z" if value.is_none() => _ = arguments.next(),
                _ if option.starts_with('-') => {}
                _ => selection.names.push(argument),
            }
        }
        selection
    }

    fn takes(&self, name: &str) -> bool {
        let fits = |wanted: &String| {
            if self.exact {
                name == wanted
            } else {
                name.contains(&**wanted)
            }
        };
        self.names.is_empty() || self.names.iter().any(fits)
    }
}

/// Runs the cases that the command line selects and reports on them.
pub fn test(cases: Vec<Case>) -> ExitCode {
    assert!(!cases.is_empty(), "there are no cases");
    let selection = Selection::from_arguments();
    let all = cases.len() * WORKERS.len();
    let mut waiting = VecDeque::new();
    for case in &cases {
        for workers in WORKERS {
            let name = format!("{} on {workers}", case.name);
            if selection.takes(&name) {
                waiting.push_back((name, case, workers));
            }
        }
    }
    if selection.list {
        for (name, ..) in &waiting {
            println!("{name}: test");
        }
        println!("\n{} tests, 0 benchmarks", waiting.len());
        return ExitCode::SUCCESS;
    }

    let start = Instant::now();
    let selected = waiting.len();
    println!("\nrunning {selected} tests");
    let waiting = Mutex::new(waiting);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..selection.threads.max(1) {
            scope.spawn(|| {
                loop {
                    // In a statement of its own, so that the lock is free while the case runs.
                    let next = waiting.lock().unwrap().pop_front();
                    let Some((name, case, workers)) = next else {
                        break;
                    };
                    let failure = failure(case, workers);
                    if !selection.quiet || failure.is_some() {
                        println!(
                            "test {name} ... {}",
                            if failure.is_some() { "FAILED" } else { "ok" }
                        );
                    }
                    failures
                        .lock()
                        .unwrap()
                        .extend(failure.map(|report| (name, report)));
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    for (name, report) in &failures {
        println!("\n---- {name} ----\n{report}");
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        selected - failures.len(),
        failures.len(),
        all - selected,
        start.elapsed().as_secs_f64(),
    );
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
