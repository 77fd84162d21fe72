//! How long each phase of the boot took, from time-stamp counter readings, logged when the frequency is known.

use crate::{console::log, time};
use core::fmt;
use drivers::tsc;

const PHASES: usize = 16;

/// The readings so far.
#[derive(Debug)]
pub(super) struct Phases {
    ends: [(&'static str, u64); PHASES],
    count: usize,
    start: u64,
}

impl Phases {
    /// Begins at counter value `start`.
    pub(super) const fn new(start: u64) -> Self {
        Self {
            ends: [("", 0); PHASES],
            count: 0,
            start,
        }
    }

    /// The phase that ends now was `name`.
    pub(super) fn end(&mut self, name: &'static str) {
        self.end_at(name, tsc::read());
    }

    /// The phase that ended at counter value `at` was `name`.
    pub(super) fn end_at(&mut self, name: &'static str, at: u64) {
        if let Some(slot) = self.ends.get_mut(self.count) {
            *slot = (name, at);
            self.count += 1;
        }
    }

    /// The counter when the first phase, the loader's, had ended.
    pub(super) fn entered(&self) -> u64 {
        self.ends[0].1
    }

    /// Logs a line with all phases, in milliseconds.
    pub(super) fn log(&self) {
        log::info(format_args!("boot: {self}"));
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.start;
        let one = |out: &mut fmt::Formatter<'_>, name, ticks: u64| {
            let microseconds = time::duration(ticks) / 1000;
            write!(
                out,
                "{name} {}.{} ms",
                microseconds / 1000,
                microseconds / 100 % 10
            )
        };
        for &(name, end) in &self.ends[..self.count] {
            one(out, name, end.saturating_sub(last))?;
            out.write_str(", ")?;
            last = end;
        }
        one(out, "in all", last.saturating_sub(self.start))
    }
}
