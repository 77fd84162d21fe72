//! What was measured, as it stands in the JSON file.

use serde::Serialize;
use serde_json::Value;

use crate::statistics::Timing;

/// Everything of one run of the benchmarks.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    pub machine: Machine,
    pub repeats: usize,
    /// Sizes that show only that everything works.
    pub quick: bool,
    /// Ctrl-C came before the end.
    pub interrupted: bool,
    /// What was left out, and why.
    pub notes: Vec<String>,
    pub parallel: Vec<Parallel>,
    pub sequential: Vec<Sequential>,
}

/// Where it was measured.
#[derive(Debug, Default, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub system: String,
    pub revision: String,
    /// Seconds since 1970.
    pub time: u64,
}

/// A parallel program.
#[derive(Debug, Default, Serialize)]
pub struct Parallel {
    pub name: String,
    pub host: Vec<Row>,
    pub kernel: Vec<Row>,
    /// Reports of simulated runs, by the number of cores.
    pub simulated: Vec<Value>,
}

/// One program on one number of cores.
#[derive(Debug, Serialize)]
pub struct Row {
    pub cores: usize,
    /// More cores than the host has: the wall clock says nothing of scaling.
    pub oversubscribed: bool,
    pub timing: Timing,
    /// Against one core of the same kind.
    pub speedup: Option<f64>,
    pub efficiency: Option<f64>,
    /// Speed-up as a share of what as many independent runs on one core each reached in between.
    pub share: Option<f64>,
    /// Counters of each core, of the last run.
    pub counters: Vec<Value>,
}

/// A sequential program.
#[derive(Debug, Serialize)]
pub struct Sequential {
    pub name: String,
    /// The whole process, one worker.
    pub host: Option<Timing>,
    /// Within the kernel, one core.
    pub kernel: Option<Timing>,
    pub peers: Vec<Peer>,
}

/// The same program on another implementation, in the same alternating run.
#[derive(Debug, Serialize)]
pub struct Peer {
    pub name: String,
    pub timing: Timing,
    /// Our median over the peer's.
    pub ratio: Option<f64>,
}

impl Parallel {
    /// A figure of the simulated run on so many cores.
    pub fn simulated(&self, cores: usize, figure: &str) -> Option<f64> {
        self.simulated
            .iter()
            .find(|report| report["cores"].as_u64() == Some(cores as u64))?[figure]
            .as_f64()
    }

    /// A figure that does not depend on the number of cores, from the first simulated run.
    pub fn figure(&self, figure: &str) -> Option<f64> {
        self.simulated.first()?[figure].as_f64()
    }

    /// Fills in what compares with one core.
    pub fn compare(&mut self) {
        for rows in [&mut self.host, &mut self.kernel] {
            let one = rows
                .iter()
                .find(|row| row.cores == 1)
                .map(|row| row.timing.median);
            for row in rows.iter_mut() {
                row.speedup = one.map(|one| one / row.timing.median);
                row.efficiency = row.speedup.map(|speedup| speedup / row.cores as f64);
            }
        }
    }
}
