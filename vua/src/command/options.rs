//! The command line of `vua`.

use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use lexopt::prelude::*;

use crate::reports::Reports;

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
        /// Whether threads stand for the cores, or virtual ones take turns.
        cores: Cores,
        /// Whether data races are looked for.
        race: bool,
        /// What everything random follows from; `None`: the system's entropy.
        random_seed: Option<u64>,
        /// Whether every safepoint collects.
        gc_stress: bool,
        /// About one allocation in so many is to fail at first; 0 for none.
        failing_allocations: usize,
        /// The most memory that the program may have, in bytes, if that was said.
        memory: Option<usize>,
        /// What else to write about the run.
        reports: Reports,
    },
    /// `check FILE`: compile, run nothing.
    Check(PathBuf),
    /// `dis FILE`: print the bytecode.
    Disassemble(PathBuf),
    /// `build FILE -o OUT.vbc`: compile into a file.
    Build {
        /// The program.
        file: PathBuf,
        /// Where its bytecode goes.
        output: PathBuf,
        /// Whether names and lines are left out.
        strip: bool,
    },
    /// Nothing: a prompt, or the program that standard input holds.
    Prompt,
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// What stands for the cores.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Cores {
    /// A thread each.
    Threads,
    /// One thread, which runs them in a random order that the seed decides.
    Seeded(u64),
    /// One thread, which simulates them round by round, and measures.
    Simulated,
}

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: vua run [OPTION…] FILE [ARG…]   runs a program
       vua check FILE                  compiles it and reports its errors
       vua dis FILE                    prints its bytecode
       vua build [--strip] FILE -o OUT.vbc
                                       compiles it into a file, which runs as the program does
       vua                             a prompt; if nobody sits before it, runs the program that
                                       standard input holds

  --workers N        how many threads stand for cores (default: one for each CPU)
  --memory SIZE      the most memory that the program may have: bytes, or with K, M or G (default: three
                     quarters of what the machine, or the control group that this runs in, has)
  --stats            counters of each core, as JSON on standard error, when the program has ended
  --profile NAME     samples every core a thousand times a second: how often which calls were seen goes to
                     NAME.folded, a line for each stack, and as a flame graph to NAME.svg
  --trace FILE       writes what each core did when, for https://ui.perfetto.dev or chrome://tracing
  --schedule-seed S  runs all cores (default: 4) on one thread, interleaved at random as the number S
                     decides: the same every time, times, printed addresses and the order of keys included
  --race             finds data races: pairs of accesses of one table slot, variable or field, one of them a
                     write, that nothing orders; each is told on standard error with both tracebacks.
                     Runs on one thread as --schedule-seed does, which may stand beside it
  --simulate P       runs P cores on one thread, each in turn for a thousand instructions; at the end,
                     as JSON on standard error: how long the program would take, its work and its span

To test the engine itself:
  --gc-stress            collects at every safepoint
  --random-seed S        hashes of strings, addresses and first random numbers follow from the number S
  --fail-allocations N   one allocation in about N fails at first, and is made again after a collection

Exit status: the program's own (larger than 63: 63); 1 for an uncaught error, or for a data race where it would be 0;
2 for a program that does not compile or is not found; 130 after Ctrl-C.
";

/// As many as a core's index has room for in the engine's sets of cores.
const MOST_WORKERS: usize = 256;
/// How many cores `--schedule-seed` has if nothing is said: not as many as the machine, so that a seed means the same everywhere.
const SEEDED_CORES: usize = 4;

/// The interleaving in which races are looked for if nothing is said.
const RACE_SEED: u64 = 1;

/// Reads the command line, without the command's own name. The error is one line for the person.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut arguments = arguments.into_iter().peekable();
    let bare = arguments.peek().is_none();
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut workers = None;
    let mut stats = false;
    let mut reports = Reports::default();
    let mut seed = None;
    let mut simulated = None;
    let mut race = false;
    let mut random_seed = None;
    let mut gc_stress = false;
    let mut failing_allocations = 0;
    let mut memory = None;
    let mut command = None;
    let mut file = None;
    let mut rest = Vec::new();
    let mut output = None;
    let mut strip = false;
    while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
        match argument {
            Long("help") | Short('h') => return Ok(Request::Help),
            Long("version") | Short('V') => return Ok(Request::Version),
            Long(option @ ("workers" | "simulate")) => {
                let option = format!("--{option}");
                let count = parse_count(&option, &parser.value().map_err(|e| e.to_string())?)?;
                *(if option == "--workers" {
                    &mut workers
                } else {
                    &mut simulated
                }) = Some(count);
            }
            Long("schedule-seed") => {
                seed = Some(parse_seed(
                    "--schedule-seed",
                    &parser.value().map_err(|e| e.to_string())?,
                )?)
            }
            Long("random-seed") => {
                random_seed = Some(parse_seed(
                    "--random-seed",
                    &parser.value().map_err(|e| e.to_string())?,
                )?)
            }
            Long("race") => race = true,
            Long("stats") => stats = true,
            Long("gc-stress") => gc_stress = true,
            Long("fail-allocations") => {
                let value = parser.value().map_err(|e| e.to_string())?;
                failing_allocations = value
                    .to_str()
                    .and_then(|digits| digits.parse().ok())
                    .ok_or_else(|| {
                        format!(
                            "--fail-allocations takes a number, not '{}'",
                            value.to_string_lossy()
                        )
                    })?;
            }
            Long("memory") => {
                memory = Some(parse_size(&parser.value().map_err(|e| e.to_string())?)?);
            }
            Long("strip") => strip = true,
            Short('o') | Long("output") => {
                output = Some(PathBuf::from(parser.value().map_err(|e| e.to_string())?))
            }
            Long("profile") => {
                reports.profile = Some(PathBuf::from(parser.value().map_err(|e| e.to_string())?))
            }
            Long("trace") => {
                reports.trace = Some(PathBuf::from(parser.value().map_err(|e| e.to_string())?))
            }
            Value(name) if command.is_none() => command = Some(name),
            Value(name) => {
                if let Some(first) = file.replace(PathBuf::from(&name)) {
                    file = Some(first);
                    rest.push(name);
                }
                if command.as_deref() == Some(OsStr::new("build")) {
                    continue;
                }
                // Whatever follows the program is the program's, options included.
                rest = parser.raw_args().map_err(|e| e.to_string())?.collect();
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    let Some(command) = command else {
        return if bare {
            Ok(Request::Prompt)
        } else {
            Err("say what to do: run, check, dis or build".into())
        };
    };
    let command = command.to_string_lossy().into_owned();
    if !matches!(&*command, "run" | "check" | "dis" | "build") {
        return Err(format!(
            "unknown command '{command}': there are run, check, dis and build"
        ));
    }
    if command != "build" && (output.is_some() || strip) {
        return Err(format!("-o and --strip are for 'build', not '{command}'"));
    }
    let Some(file) = file else {
        return Err(format!("'{command}' needs the name of a file"));
    };
    if command == "run" {
        if race && workers.is_some() {
            return Err(
                "--race finds races however many cores there are: leave --workers out".into(),
            );
        }
        if race && simulated.is_some() {
            return Err("--race and --simulate exclude each other".into());
        }
        if race && seed.is_none() {
            seed = Some(RACE_SEED);
        }
        let (cores, workers) = match (seed, simulated) {
            (None, None) => (
                Cores::Threads,
                workers.unwrap_or_else(|| {
                    thread::available_parallelism()
                        .map_or(1, NonZero::get)
                        .min(MOST_WORKERS)
                }),
            ),
            (Some(seed), None) => (Cores::Seeded(seed), workers.unwrap_or(SEEDED_CORES)),
            (None, Some(count)) if workers.is_none() => (Cores::Simulated, count),
            (None, Some(_)) => {
                return Err("--simulate says how many cores there are: leave --workers out".into());
            }
            (Some(_), Some(_)) => {
                return Err("--schedule-seed and --simulate exclude each other".into());
            }
        };
        if cores != Cores::Threads && reports != Reports::default() {
            return Err(
                "--profile and --trace measure real time, which virtual cores have not".into(),
            );
        }
        return Ok(Request::Run {
            file,
            arguments: rest,
            workers,
            stats,
            cores,
            race,
            random_seed,
            gc_stress,
            failing_allocations,
            memory,
            reports,
        });
    }
    if let Some(extra) = rest.first() {
        return Err(format!(
            "'{command}' takes one file; what is '{}'?",
            extra.to_string_lossy()
        ));
    }
    if workers.is_some()
        || stats
        || seed.is_some()
        || simulated.is_some()
        || race
        || random_seed.is_some()
        || gc_stress
        || failing_allocations != 0
        || memory.is_some()
        || reports != Reports::default()
    {
        return Err(format!("options are for 'run', not for '{command}'"));
    }
    if command == "build" {
        return match output {
            Some(output) => Ok(Request::Build {
                file,
                output,
                strip,
            }),
            None => Err("'build' needs the name of its output: -o FILE".into()),
        };
    }
    Ok(if command == "check" {
        Request::Check(file)
    } else {
        Request::Disassemble(file)
    })
}

fn parse_seed(option: &str, text: &OsString) -> Result<u64, String> {
    text.to_str()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| {
            format!(
                "{option} takes a number from 0 to 2^64 - 1, not '{}'",
                text.to_string_lossy()
            )
        })
}

fn parse_count(option: &str, text: &OsString) -> Result<usize, String> {
    text.to_str()
        .and_then(|digits| digits.parse().ok())
        .filter(|n| (1..=MOST_WORKERS).contains(n))
        .ok_or_else(|| {
            format!(
                "{option} takes a number from 1 to {MOST_WORKERS}, not '{}'",
                text.to_string_lossy()
            )
        })
}

/// Bytes, or KiB, MiB, GiB.
fn parse_size(text: &OsString) -> Result<usize, String> {
    let whole = text.to_str().unwrap_or("");
    let (digits, shift) = match whole.as_bytes().last() {
        Some(b'K' | b'k') => (&whole[..whole.len() - 1], 10),
        Some(b'M' | b'm') => (&whole[..whole.len() - 1], 20),
        Some(b'G' | b'g') => (&whole[..whole.len() - 1], 30),
        _ => (whole, 0),
    };
    digits
        .parse()
        .ok()
        .and_then(|n: usize| n.checked_mul(1 << shift))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| {
            format!(
                "--memory takes a size as 64M, not '{}'",
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
            cores: Cores::Threads,
            race: false,
            random_seed: None,
            gc_stress: false,
            failing_allocations: 0,
            memory: None,
            reports: Reports {
                profile: None,
                trace: Some("t.json".into()),
            },
        };
        assert_eq!(
            words("run --stats --trace t.json --workers 3 a.vua --workers 9 -x -- b"),
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
    fn virtual_cores_have_their_own_number() {
        for (line, expected) in [
            (
                "run --schedule-seed 18446744073709551615 a.vua",
                (Cores::Seeded(u64::MAX), 4),
            ),
            (
                "run --schedule-seed=7 --workers 9 a.vua",
                (Cores::Seeded(7), 9),
            ),
            ("run --simulate 64 a.vua", (Cores::Simulated, 64)),
            ("run --race a.vua", (Cores::Seeded(RACE_SEED), 4)),
            ("run --schedule-seed 9 --race a.vua", (Cores::Seeded(9), 4)),
        ] {
            let Ok(Request::Run { cores, workers, .. }) = words(line) else {
                panic!("not understood: {line}");
            };
            assert_eq!((cores, workers), expected);
        }
        for (line, named) in [
            ("run --schedule-seed x a.vua", "'x'"),
            ("run --schedule-seed -1 a.vua", "--schedule-seed"),
            ("run --random-seed -1 a.vua", "--random-seed"),
            ("check --random-seed 1 a.vua", "'check'"),
            ("run --simulate 0 a.vua", "--simulate"),
            ("run --simulate 4 --workers 2 a.vua", "--workers"),
            ("run --simulate 4 --schedule-seed 2 a.vua", "exclude"),
            ("run --simulate 4 --trace t a.vua", "--trace"),
            ("check --simulate 4 a.vua", "'check'"),
            ("run --race --workers 2 a.vua", "leave --workers out"),
            ("run --race --simulate 2 a.vua", "--simulate exclude"),
            ("run --race --profile p a.vua", "--profile"),
            ("check --race a.vua", "'check'"),
        ] {
            assert!(words(line).unwrap_err().contains(named), "{line}");
        }
    }

    #[test]
    fn check_and_dis_take_one_file() {
        assert_eq!(words("check a.vua"), Ok(Request::Check("a.vua".into())));
        assert_eq!(words("dis a.vua"), Ok(Request::Disassemble("a.vua".into())));
        assert!(words("check a.vua b.vua").unwrap_err().contains("b.vua"));
        assert!(
            words("check --stats a.vua")
                .unwrap_err()
                .contains("for 'run'")
        );
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert_eq!(words(""), Ok(Request::Prompt));
        assert!(words("--stats").unwrap_err().contains("run"));
        assert!(words("make a.vua").unwrap_err().contains("'make'"));
        assert!(words("build a.vua").unwrap_err().contains("-o"));
        assert!(
            words("build a.vua b.vua -o c.vbc")
                .unwrap_err()
                .contains("one file")
        );
        assert!(words("check a.vua -o b").is_err());
        assert!(words("-o b check a.vua").unwrap_err().contains("build"));
        assert_eq!(
            words("build a.vua -o b.vbc --strip"),
            Ok(Request::Build {
                file: "a.vua".into(),
                output: "b.vbc".into(),
                strip: true
            })
        );
        assert!(words("run").unwrap_err().contains("needs"));
        assert!(words("run --fast a.vua").unwrap_err().contains("--fast"));
        for (text, bytes) in [
            ("77", 77),
            ("3K", 3 << 10),
            ("64M", 64 << 20),
            ("2g", 2 << 30),
        ] {
            let Ok(Request::Run { memory, .. }) = words(&format!("run --memory {text} a.vua"))
            else {
                panic!("{text} is not understood");
            };
            assert_eq!(memory, Some(bytes));
        }
        for bad in ["0", "-1", "M", "1T", "99999999999G"] {
            let error = words(&format!("run --memory={bad} a.vua")).unwrap_err();
            assert!(error.contains("--memory"), "{bad}");
        }
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
