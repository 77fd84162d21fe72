//! The command line of `vua`.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use lexopt::prelude::*;

/// What the person asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// `run FILE [ARG…]`.
    Run {
        /// The program.
        file: PathBuf,
        /// Its arguments, which are byte strings as its other strings are.
        arguments: Vec<OsString>,
        /// How many cores, that is, threads.
        workers: usize,
        /// Whether to print the cores' counters at the end.
        stats: bool,
    },
    /// `check FILE`: compile, run nothing.
    Check(PathBuf),
    /// `dis FILE`: print the bytecode.
    Disassemble(PathBuf),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: vua run [--workers N] [--stats] FILE [ARG…]   runs a program
       vua check FILE                                compiles it and reports its errors
       vua dis FILE                                  prints its bytecode

  --workers N   how many threads stand for cores (default: one for each CPU)
  --stats       counters of each core, as JSON on standard error, when the program has ended

Exit status: the program's own (larger than 63: 63); 1 for an uncaught error;
2 for a program that does not compile or is not found; 130 after Ctrl-C.
";

/// As many as a core's index has room for in the engine's sets of cores.
const MOST_WORKERS: usize = 256;

/// Reads the command line, without the command's own name. The error is one line for the person.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut workers = None;
    let mut stats = false;
    let mut command = None;
    let mut file = None;
    let mut rest = Vec::new();
    while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
        match argument {
            Long("help") | Short('h') => return Ok(Request::Help),
            Long("version") | Short('V') => return Ok(Request::Version),
            Long("workers") => {
                workers = Some(parse_workers(&parser.value().map_err(|e| e.to_string())?)?)
            }
            Long("stats") => stats = true,
            Value(name) if command.is_none() => command = Some(name),
            Value(name) => {
                file = Some(PathBuf::from(name));
                // Whatever follows the program is the program's, options included.
                rest = parser.raw_args().map_err(|e| e.to_string())?.collect();
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    let Some(command) = command else {
        return Err("say what to do: run, check or dis".into());
    };
    let command = command.to_string_lossy().into_owned();
    if !matches!(&*command, "run" | "check" | "dis") {
        return Err(format!(
            "unknown command '{command}': there are run, check and dis"
        ));
    }
    let Some(file) = file else {
        return Err(format!("'{command}' needs the name of a file"));
    };
    if command == "run" {
        let workers = workers.unwrap_or_else(|| {
            thread::available_parallelism()
                .map_or(1, NonZero::get)
                .min(MOST_WORKERS)
        });
        return Ok(Request::Run {
            file,
            arguments: rest,
            workers,
            stats,
        });
    }
    if let Some(extra) = rest.first() {
        return Err(format!(
            "'{command}' takes one file; what is '{}'?",
            extra.to_string_lossy()
        ));
    }
    if workers.is_some() || stats {
        return Err(format!(
            "--workers and --stats are for 'run', not '{command}'"
        ));
    }
    Ok(if command == "check" {
        Request::Check(file)
    } else {
        Request::Disassemble(file)
    })
}

fn parse_workers(text: &OsString) -> Result<usize, String> {
    text.to_str()
        .and_then(|digits| digits.parse().ok())
        .filter(|n| (1..=MOST_WORKERS).contains(n))
        .ok_or_else(|| {
            format!(
                "--workers takes a number from 1 to {MOST_WORKERS}, not '{}'",
                text.to_string_lossy()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Request, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn run_hands_everything_after_the_file_to_the_program() {
        let expected = Request::Run {
            file: "a.vua".into(),
            arguments: ["--workers", "9", "-x", "--", "b"]
                .map(OsString::from)
                .to_vec(),
            workers: 3,
            stats: true,
        };
        assert_eq!(
            words("run --stats --workers 3 a.vua --workers 9 -x -- b"),
            Ok(expected)
        );
    }

    #[test]
    fn options_may_stand_before_the_command() {
        let Ok(Request::Run {
            workers: 2,
            stats: false,
            ..
        }) = words("--workers=2 run a.vua")
        else {
            panic!("not understood");
        };
    }

    #[test]
    fn check_and_dis_take_one_file() {
        assert_eq!(words("check a.vua"), Ok(Request::Check("a.vua".into())));
        assert_eq!(words("dis a.vua"), Ok(Request::Disassemble("a.vua".into())));
        assert!(words("check a.vua b.vua").unwrap_err().contains("b.vua"));
        assert!(
            words("check --stats a.vua")
                .unwrap_err()
                .contains("--stats")
        );
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert!(words("").unwrap_err().contains("run"));
        assert!(words("build a.vua").unwrap_err().contains("'build'"));
        assert!(words("run").unwrap_err().contains("needs"));
        assert!(
            words("run --gc-stress a.vua")
                .unwrap_err()
                .contains("--gc-stress")
        );
        for bad in ["0", "-1", "257", "x"] {
            assert!(
                words(&format!("run --workers={bad} a.vua"))
                    .unwrap_err()
                    .contains("--workers"),
                "{bad}"
            );
        }
    }
}
