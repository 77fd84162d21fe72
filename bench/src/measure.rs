//! Measuring one program: on the host, in the kernel, on simulated cores, on peers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::child::{Failure, Finished, Runner};
use crate::options::{Options, host_cores};
use crate::program::Program;
use crate::progress::Progress;
use crate::results::{Parallel, Peer, Row, Sequential};
use crate::statistics::Timing;

/// No run takes this long; it ends one that hangs.
const LIMIT: Duration = Duration::from_secs(600);
/// Boots of one program on one number of cores are repeated no more often than this: they take long.
const MOST_BOOTS: usize = 3;

/// Another implementation of Lua.
pub struct Implementation {
    pub name: &'static str,
    pub command: &'static str,
    pub arguments: &'static [&'static str],
}

/// Those that plain Lua programs are compared with.
pub const PEERS: [Implementation; 3] = [
    Implementation {
        name: "lua5.4",
        command: "lua5.4",
        arguments: &[],
    },
    Implementation {
        name: "luajit",
        command: "luajit",
        arguments: &[],
    },
    Implementation {
        name: "luajit -joff",
        command: "luajit",
        arguments: &["-joff"],
    },
];

/// What measuring needs.
pub struct Bench<'a> {
    pub runner: &'a Runner,
    pub options: &'a Options,
    pub progress: &'a Progress,
    /// The folder that `vua` and `launch` were built into.
    pub binaries: PathBuf,
    pub peers: Vec<&'static Implementation>,
    pub notes: Vec<String>,
}

/// Timings of several things.
struct Series(Vec<Vec<f64>>);

impl Bench<'_> {
    fn arguments(&self, program: &Program) -> Vec<String> {
        if self.options.quick {
            program.small.0.clone()
        } else {
            Vec::new()
        }
    }

    fn vua(&self, program: &Program, options: &[String]) -> Command {
        let mut command = Command::new(self.binaries.join("vua"));
        command
            .arg("run")
            .args(options)
            .arg(&program.file)
            .args(self.arguments(program));
        command
    }

    fn workers(&self, program: &Program, workers: usize) -> Command {
        let options = ["--workers".into(), workers.to_string(), "--stats".into()];
        self.vua(program, &options)
    }

    /// Runs the commands together; each must end with status 0, and print what the program prints at this size, if that is known.
    fn run(
        &self,
        commands: Vec<Command>,
        expected: Option<&str>,
    ) -> Result<Vec<Finished>, Failure> {
        let finished = self.runner.run(commands, LIMIT)?;
        for one in &finished {
            if !one.status.success() {
                let first = one.error.lines().find(|line| !line.trim().is_empty());
                return Err(Failure::Because(format!(
                    "{}: {}",
                    one.status,
                    first.unwrap_or("nothing on standard error")
                )));
            }
            if let Some(expected) = expected
                && one.output.trim_end() != expected
            {
                return Err(Failure::Because(format!(
                    "printed '{}', not '{expected}'",
                    one.output.trim_end()
                )));
            }
        }
        Ok(finished)
    }

    /// Notes why something is missing. Interruption is passed on.
    fn note(&mut self, what: &str, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Interrupted => Err(Failure::Interrupted),
            Failure::Because(reason) => {
                let note = format!("{what}: {reason}");
                self.progress.say(&note);
                self.notes.push(note);
                Ok(())
            }
        }
    }

    /// Measures a parallel program, as far as it goes.
    pub fn parallel(&mut self, program: &Program, into: &mut Parallel) -> Result<(), Failure> {
        if self.options.host {
            self.host_rows(program, &mut into.host)?;
        }
        for &cores in &self.options.simulate {
            self.progress
                .step(&format!("{}: {cores} simulated cores", program.name));
            match self.simulate(program, cores) {
                Ok(report) => into.simulated.push(report),
                Err(failure) => self.note(
                    &format!("{} on {cores} simulated cores", program.name),
                    failure,
                )?,
            }
        }
        if self.options.kernel && self.options.one_boot {
            self.swept_rows(program, &mut into.kernel)?;
        } else if self.options.kernel {
            self.kernel_rows(program, &mut into.kernel)?;
        }
        into.compare();
        Ok(())
    }

    /// Rows for each number of workers. In between, as many independent programs with one worker each, which share the machine but nothing else.
    fn host_rows(&mut self, program: &Program, rows: &mut Vec<Row>) -> Result<(), Failure> {
        let host = host_cores();
        let mut counts: Vec<Count> = self.options.smp.iter().copied().map(Count::new).collect();
        // All runs of a program must agree, whatever they run on.
        let mut output = self.options.quick.then(|| program.small.1.clone());
        let mut outcome = Ok(());
        'rounds: for round in 0..self.options.repeats {
            let mut i = 0;
            while i < counts.len() {
                let workers = counts[i].cores;
                self.progress.step(&format!(
                    "{}: host, {workers} workers, {} of {}",
                    program.name,
                    round + 1,
                    self.options.repeats
                ));
                match self.host_round(program, workers, workers <= host, &mut output) {
                    Ok((seconds, counters, together)) => {
                        counts[i].seconds.push(seconds);
                        counts[i].counters = counters;
                        counts[i].together.extend(together);
                        i += 1;
                    }
                    Err(failure) => {
                        let what = format!("{} on {workers} workers", program.name);
                        outcome = self.note(&what, failure);
                        if outcome.is_err() {
                            break 'rounds;
                        }
                        // Such as more workers than there may be: others may still work.
                        counts.remove(i);
                    }
                }
            }
        }
        rows.extend(counts.into_iter().filter_map(|count| count.row(host)));
        outcome
    }

    /// One run with so many workers: its seconds, its cores' counters, and, if `compare`, the seconds of as many independent runs.
    #[allow(clippy::type_complexity, reason = "three results of one call site")]
    fn host_round(
        &self,
        program: &Program,
        workers: usize,
        compare: bool,
        output: &mut Option<String>,
    ) -> Result<(f64, Vec<Value>, Option<f64>), Failure> {
        let mut measure = |commands| -> Result<(f64, Vec<Value>), Failure> {
            let finished = self.run(commands, output.as_deref())?;
            let (mut longest, mut counters) = (0f64, Vec::new());
            for one in finished {
                output.get_or_insert_with(|| one.output.trim_end().to_owned());
                let stats = last_report(&one.error)?;
                longest = longest.max(elapsed(&stats)?);
                counters = stats["cores"].as_array().cloned().unwrap_or_default();
            }
            Ok((longest, counters))
        };
        let (seconds, counters) = measure(vec![self.workers(program, workers)])?;
        let together = if workers > 1 && compare {
            let copies = (0..workers).map(|_| self.workers(program, 1)).collect();
            Some(measure(copies)?.0)
        } else {
            None
        };
        Ok((seconds, counters, together))
    }

    fn simulate(&self, program: &Program, cores: usize) -> Result<Value, Failure> {
        let options = ["--simulate".into(), cores.to_string()];
        let finished = self.run(vec![self.vua(program, &options)], None)?;
        last_report(&finished[0].error)
    }

    fn launch(&self, program: &Program, cores: usize, words: &[String]) -> Command {
        let mut command = Command::new(self.binaries.join("launch"));
        command
            .args(["run", "--smp", &cores.to_string(), "--stats", "--timeout"])
            .arg((LIMIT.as_secs() - 10).to_string())
            .args(words)
            .arg(&program.file)
            .args(if self.options.quick {
                &program.small.0
            } else {
                &program.emulated
            });
        command
    }

    /// Boots the kernel for the program; what it took within, and each core's counters.
    fn boot(&self, program: &Program, cores: usize) -> Result<(f64, Vec<Value>), Failure> {
        let expected = self.options.quick.then_some(&*program.small.1);
        let finished = self.run(vec![self.launch(program, cores, &[])], expected)?;
        let stats = last_report(&finished[0].error)?;
        let counters = stats["cores"].as_array().cloned().unwrap_or_default();
        Ok((elapsed(&stats)?, counters))
    }

    /// Rows from one boot, in which the kernel runs the program on each number of cores, and all that again and again.
    fn swept_rows(&mut self, program: &Program, rows: &mut Vec<Row>) -> Result<(), Failure> {
        let most = self.options.smp.iter().copied().max().unwrap_or(1);
        self.progress.step(&format!(
            "{}: kernel, one boot with {most} cores, {} runs",
            program.name,
            self.options.smp.len() * self.options.repeats
        ));
        match self.sweep(program, most) {
            Ok(counts) => {
                let host = host_cores();
                let rows_of = counts.into_iter().filter_map(|count| count.row(host));
                // The machine has all its cores throughout, but those that do not work sleep.
                rows.extend(rows_of);
                Ok(())
            }
            Err(failure) => {
                let what = format!("{} in one boot on {most} cores", program.name);
                self.note(&what, failure)
            }
        }
    }

    fn sweep(&self, program: &Program, most: usize) -> Result<Vec<Count>, Failure> {
        let list: Vec<String> = self.options.smp.iter().map(usize::to_string).collect();
        let words = format!("sweep={} repeats={}", list.join(","), self.options.repeats);
        let command = self.launch(program, most, &["--append".into(), words]);
        let finished = self.run(vec![command], None)?;
        let reports = reports(&finished[0].error);
        let runs = self.options.smp.len() * self.options.repeats;
        if reports.len() != runs {
            let there = reports.len();
            return Err(Failure::Because(format!("{there} of {runs} runs reported")));
        }
        let expected = self.options.quick.then_some(&*program.small.1);
        same_each_time(&finished[0].output, runs, expected)?;
        let mut counts: Vec<Count> = self.options.smp.iter().copied().map(Count::new).collect();
        for stats in reports {
            let counters = stats["cores"].as_array().cloned().unwrap_or_default();
            let count = counts
                .iter_mut()
                .find(|count| count.cores == counters.len());
            let count = count.ok_or_else(|| {
                Failure::Because(format!("a run on {} cores, unasked", counters.len()))
            })?;
            count.seconds.push(elapsed(&stats)?);
            count.counters = counters;
        }
        Ok(counts)
    }

    fn kernel_rows(&mut self, program: &Program, rows: &mut Vec<Row>) -> Result<(), Failure> {
        let host = host_cores();
        let mut counts: Vec<Count> = self.options.smp.iter().copied().map(Count::new).collect();
        let repeats = self.options.repeats.min(MOST_BOOTS);
        let mut outcome = Ok(());
        'rounds: for round in 0..repeats {
            let mut i = 0;
            while i < counts.len() {
                let cores = counts[i].cores;
                self.progress.step(&format!(
                    "{}: kernel, {cores} cores, {} of {repeats}",
                    program.name,
                    round + 1,
                ));
                match self.boot(program, cores) {
                    Ok((seconds, counters)) => {
                        counts[i].seconds.push(seconds);
                        counts[i].counters = counters;
                        i += 1;
                    }
                    Err(failure) => {
                        let what = format!("{} in the kernel on {cores} cores", program.name);
                        outcome = self.note(&what, failure);
                        if outcome.is_err() {
                            break 'rounds;
                        }
                        // Such as more cores than QEMU has: others may still work.
                        counts.remove(i);
                    }
                }
            }
        }
        rows.extend(counts.into_iter().filter_map(|count| count.row(host)));
        outcome
    }

    /// Measures a sequential program, alternating with the peers.
    pub fn sequential(&mut self, program: &Program, into: &mut Sequential) -> Result<(), Failure> {
        let expected = self.options.quick.then(|| program.small.1.clone());
        if self.options.host {
            let mut peers = if program.plain {
                self.peers.clone()
            } else {
                Vec::new()
            };
            let mut ours = Vec::new();
            let mut theirs = Series::new(peers.len());
            let mut interrupted = false;
            'rounds: for round in 0..self.options.repeats {
                self.progress.step(&format!(
                    "{}: host, {} of {}",
                    program.name,
                    round + 1,
                    self.options.repeats
                ));
                match self.run(vec![self.workers(program, 1)], expected.as_deref()) {
                    Ok(finished) => ours.push(finished[0].seconds),
                    Err(Failure::Interrupted) => {
                        interrupted = true;
                        break 'rounds;
                    }
                    Err(failure) => {
                        self.note(&program.name, failure)?;
                        break 'rounds;
                    }
                }
                let mut i = 0;
                while i < peers.len() {
                    let mut command = Command::new(peers[i].command);
                    command
                        .args(peers[i].arguments)
                        .arg(&program.file)
                        .args(self.arguments(program));
                    match self.run(vec![command], expected.as_deref()) {
                        Ok(finished) => {
                            theirs.0[i].push(finished[0].seconds);
                            i += 1;
                        }
                        Err(Failure::Interrupted) => {
                            interrupted = true;
                            break 'rounds;
                        }
                        Err(failure) => {
                            self.note(&format!("{} on {}", program.name, peers[i].name), failure)?;
                            peers.remove(i);
                            theirs.0.remove(i);
                        }
                    }
                }
            }
            into.host = Timing::of(ours);
            for (peer, all) in peers.iter().zip(theirs.0) {
                if let Some(timing) = Timing::of(all) {
                    let ratio = into.host.as_ref().map(|ours| ours.median / timing.median);
                    into.peers.push(Peer {
                        name: peer.name.into(),
                        timing,
                        ratio,
                    });
                }
            }
            if interrupted {
                return Err(Failure::Interrupted);
            }
        }
        if self.options.kernel {
            self.progress.step(&format!("{}: kernel", program.name));
            match self.boot(program, 1) {
                Ok((seconds, _)) => into.kernel = Timing::of(vec![seconds]),
                Err(failure) => self.note(&format!("{} in the kernel", program.name), failure)?,
            }
        }
        Ok(())
    }
}

impl Series {
    fn new(count: usize) -> Series {
        Series(vec![Vec::new(); count])
    }
}

/// What was measured on one number of cores so far.
struct Count {
    cores: usize,
    seconds: Vec<f64>,
    /// Of the longest of as many independent runs with one worker.
    together: Vec<f64>,
    counters: Vec<Value>,
}

impl Count {
    fn new(cores: usize) -> Count {
        Count {
            cores,
            seconds: Vec::new(),
            together: Vec::new(),
            counters: Vec::new(),
        }
    }

    fn row(self, host: usize) -> Option<Row> {
        let timing = Timing::of(self.seconds)?;
        // As many runs as cores did that many times the work in that time.
        let share = Timing::of(self.together)
            .map(|together| together.median / (self.cores as f64 * timing.median));
        Some(Row {
            cores: self.cores,
            oversubscribed: self.cores > host,
            timing,
            speedup: None,
            efficiency: None,
            share,
            counters: self.counters,
        })
    }
}

/// Whether `output` is the same text `runs` times, and what is expected each time, if that is known.
fn same_each_time(output: &str, runs: usize, expected: Option<&str>) -> Result<(), Failure> {
    let length = output.len() / runs;
    let first = output.get(..length).unwrap_or_default();
    if first.repeat(runs) != output {
        return Err(Failure::Because("its runs printed different things".into()));
    }
    match expected {
        Some(expected) if first.trim_end() != expected => Err(Failure::Because(format!(
            "printed '{}', not '{expected}'",
            first.trim_end()
        ))),
        _ => Ok(()),
    }
}

/// Each JSON object that a program of ours wrote on a line of its own.
fn reports(error: &str) -> Vec<Value> {
    let lines = error.lines();
    lines
        .filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok())
        .filter(Value::is_object)
        .collect()
}

/// The JSON that a program of ours wrote last.
fn last_report(error: &str) -> Result<Value, Failure> {
    reports(error)
        .pop()
        .ok_or_else(|| Failure::Because("wrote no statistics".into()))
}

fn elapsed(stats: &Value) -> Result<f64, Failure> {
    stats["elapsed_ns"]
        .as_f64()
        .map(|nanoseconds| nanoseconds / 1e9)
        .ok_or_else(|| Failure::Because("its statistics do not say how long it took".into()))
}

/// The peers that are installed; the others are noted.
pub fn installed_peers(notes: &mut Vec<String>) -> Vec<&'static Implementation> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |command: &str| std::env::split_paths(&paths).any(|folder| is_file(&folder.join(command)));
    PEERS
        .iter()
        .filter(|peer| {
            let there = is_there(peer.command);
            if !there {
                notes.push(format!("{} is not installed: left out", peer.name));
            }
            there
        })
        .collect()
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}
