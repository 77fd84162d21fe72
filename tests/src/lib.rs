//! What the tests that boot the kernel share: starting the machine through the launcher, and the same programs on the
//! host.
//!
//! The tests use what `scripts/run` uses: the release builds of the kernel, the loader, the launcher and the `vua`
//! command, which `scripts/test boot` makes before. They run under TCG, which every host has. No test depends on how
//! fast the machine is: [`HANG_LIMIT`] only ends one that hangs.

pub mod gdb;
pub mod screen;
mod socket;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Seconds after which a machine is taken to hang. The slowest boot takes a hundredth of this on two idle cores; a host may
/// be several times slower, and busy.
pub const HANG_LIMIT: &str = "900";

/// What a program left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status; `None`: killed by a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub output: Vec<u8>,
    /// Standard error.
    pub error: String,
}

impl Outcome {
    /// Asserts that the program ended well, and gives what it printed.
    ///
    /// # Panics
    /// If its status is not 0; the message holds what it wrote to standard error.
    pub fn success(self) -> Vec<u8> {
        assert_eq!(self.status, Some(0), "{}", self.error);
        self.output
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package lies in the repository")
        .to_owned()
}

/// A program of this package's folder `programs`, by its name without the ending.
pub fn program(name: &str) -> PathBuf {
    root()
        .join("tests/programs")
        .join(name)
        .with_extension("vua")
}

/// A shipped program, by its name without the ending.
pub fn shipped(name: &str) -> PathBuf {
    root().join("programs").join(name).with_extension("vua")
}

/// An executable of the release build.
///
/// # Panics
/// If it was not built.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // target/PROFILE/deps/TEST
    let target = test
        .ancestors()
        .nth(3)
        .expect("tests lie in the target folder");
    let path = target.join("release").join(name);
    assert!(
        path.is_file(),
        "{} is not built: run these tests with scripts/test boot",
        path.display()
    );
    path
}

/// The launcher with these options, a program and its arguments, to be started.
pub fn machine(options: &[&str], program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(built("launch"));
    command
        .args(["run", "--accel", "tcg", "--timeout", HANG_LIMIT])
        .args(options)
        .arg(program)
        .args(arguments);
    command
}

/// Boots a machine that runs `program` with nothing to read, and waits for its end.
pub fn boot(options: &[&str], program: &Path, arguments: &[&str]) -> Outcome {
    run(&mut machine(options, program, arguments), b"")
}

/// The same program on the host, with this many workers. What it writes goes nowhere.
///
/// # Panics
/// If it cannot be started.
pub fn host(workers: usize, program: &Path, arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    host_in(folder.path(), workers, program, arguments)
}

/// The same program on the host, with this many workers, in `folder`.
///
/// # Panics
/// If it cannot be started.
pub fn host_in(folder: &Path, workers: usize, program: &Path, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(built("vua"));
    command
        .args(["run", "--workers", &workers.to_string()])
        .arg(program)
        .args(arguments);
    run(command.current_dir(folder), b"")
}

/// Starts a command with pipes at its standard streams.
///
/// # Panics
/// If it cannot be started.
pub fn spawn(command: &mut Command) -> Child {
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    pipes
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command to its end with `input` at its standard input, which then ends.
pub fn run(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = spawn(command);
    let mut pipe = child.stdin.take().expect("standard input is piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program need not read all of its input.
        let _ = pipe.write_all(&input);
    });
    let outcome = wait(child);
    let _ = writer.join();
    outcome
}

/// Waits for the end of a command that was started with [`spawn`].
pub fn wait(child: Child) -> Outcome {
    let output = child.wait_with_output().expect("a child can be waited for");
    Outcome {
        status: output.status.code(),
        output: output.stdout,
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Reads a line of a running program's output, without its end. Blocks until there is one; stops at the output's end.
pub fn read_line(child: &mut Child) -> String {
    let output = child.stdout.as_mut().expect("standard output is piped");
    let (mut line, mut byte) = (Vec::new(), [0]);
    while output.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).into_owned()
}

/// Sends a signal, by its name without `SIG`.
///
/// # Panics
/// If that fails.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -s {name}"
    );
}
