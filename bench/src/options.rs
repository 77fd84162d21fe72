//! The command line of `scripts/bench`.

use std::ffi::OsString;
use std::num::NonZero;
use std::thread;

use lexopt::prelude::*;

/// What `--help` prints.
pub const USAGE: &str = "\
Runs the benchmark programs and reports: a table, and under target/bench/ a JSON file and an HTML page.

usage: scripts/bench [OPTION…] [NAME…]
       NAME is a program of programs/bench/ without its ending, or 'sequential' or 'parallel'. Without names: all.

  --smp LIST       cores: worker threads on the host, and a boot of the kernel with each (default: 1 to this host's)
  --one-boot       boot the kernel once for each program, with the most of those cores, and let it use more and
                   more of them, instead of a boot with each number of cores
  --repeats N      how often each is timed (default: 5); medians count
  --simulate LIST  simulated cores for the parallel programs (default: 1,2,4,8,16,32,64); 'none' for none
  --where LIST     of host, kernel (default: host,kernel)
  --peers          the sequential programs on lua5.4, luajit and luajit -joff too, alternating with ours
  --quick          small sizes, which show only that everything works
  --out DIR        where to put the results (default: target/bench)

Ctrl-C ends after the run at hand is stopped, and what was measured is reported.";

/// What the person asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub smp: Vec<usize>,
    pub repeats: usize,
    pub one_boot: bool,
    pub simulate: Vec<usize>,
    pub host: bool,
    pub kernel: bool,
    pub peers: bool,
    pub quick: bool,
    pub out: Option<OsString>,
    pub names: Vec<String>,
}

/// The cores of this host.
pub fn host_cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Reads the command line, without the command's own name. `None`: help is asked for. The error is one line for the person.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    host_cores: usize,
) -> Result<Option<Options>, String> {
    let mut options = Options {
        smp: (1..=host_cores).collect(),
        repeats: 5,
        one_boot: false,
        simulate: vec![1, 2, 4, 8, 16, 32, 64],
        host: true,
        kernel: true,
        peers: false,
        quick: false,
        out: None,
        names: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let value = |parser: &mut lexopt::Parser| -> Result<String, String> {
            let value = parser.value().map_err(|error| error.to_string())?;
            Ok(value.to_string_lossy().into_owned())
        };
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("smp") => options.smp = counts("--smp", &value(&mut parser)?)?,
            Long("repeats") => {
                options.repeats = one("--repeats", &value(&mut parser)?)?;
            }
            Long("simulate") => {
                let list = value(&mut parser)?;
                options.simulate = if list == "none" {
                    Vec::new()
                } else {
                    counts("--simulate", &list)?
                };
            }
            Long("where") => {
                let list = value(&mut parser)?;
                (options.host, options.kernel) = (false, false);
                for place in list.split(',') {
                    match place {
                        "host" => options.host = true,
                        "kernel" => options.kernel = true,
                        _ => return Err(format!("--where takes host and kernel, not '{place}'")),
                    }
                }
            }
            Long("one-boot") => options.one_boot = true,
            Long("peers") => options.peers = true,
            Long("quick") => options.quick = true,
            Long("out") => {
                options.out = Some(parser.value().map_err(|error| error.to_string())?);
            }
            Value(name) => options.names.push(name.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Some(options))
}

fn one(option: &str, text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=1024).contains(n))
        .ok_or_else(|| format!("{option} takes numbers from 1 to 1024, not '{text}'"))
}

/// A list of numbers and ranges, as in `1,2,4-8`; in order, each once.
fn counts(option: &str, list: &str) -> Result<Vec<usize>, String> {
    let mut found = Vec::new();
    for item in list.split(',') {
        match item.split_once('-') {
            Some((first, last)) => found.extend(one(option, first)?..=one(option, last)?),
            None => found.push(one(option, item)?),
        }
    }
    if found.is_empty() {
        return Err(format!("{option} {list}: there is no number in that range"));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Option<Options>, String> {
        parse(line.split_whitespace().map(OsString::from), 2)
    }

    #[test]
    fn lists_are_sorted_and_may_hold_ranges() {
        let options = words("--smp 8,1-3,2 --simulate none --where kernel fib nbody")
            .unwrap()
            .unwrap();
        assert_eq!(options.smp, [1, 2, 3, 8]);
        assert!(options.simulate.is_empty() && options.kernel && !options.host);
        assert_eq!(options.names, ["fib", "nbody"]);
        assert_eq!(words("").unwrap().unwrap().smp, [1, 2]);
        assert_eq!(words("--peers --help").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("--smp 0", "'0'"),
            ("--smp 1,x", "'x'"),
            ("--smp 4-2", "4-2"),
            ("--where moon", "'moon'"),
            ("--repeats", "--repeats"),
            ("--fast", "--fast"),
        ] {
            assert!(words(line).unwrap_err().contains(named), "{line}");
        }
    }
}
