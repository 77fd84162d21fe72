//! The same program many times in one boot, on more and more of the cores: how it scales, without the differences between boots.
//!
//! `sweep=1,2,4 repeats=3` on the command line runs it on one core, on two, on four, and all that three times. Each run has an engine of its own,
//! which knows of so many cores; the others sleep. The log has each run's counters (`stats`).
//!
//! # Protocol
//! Core 0 makes a run's engine, publishes it in `CURRENT` and then its number in `STEP`, and wakes the cores that take part. They work, count
//! themselves in `LEFT` and look at `STEP` again, in which they sleep. Core 0 waits until all have left before it takes the run's memory back.
//! An engine itself is never freed, so an interrupt handler that has found it in `CURRENT` may go on using its atomics.

use crate::{
    cpu::park,
    info, memory,
    platform::{self, MACHINE},
    run::{self, Program},
    time,
};
use alloc::{boxed::Box, vec::Vec};
use core::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The runs of a sweep: how many cores each has.
pub(crate) struct Sweep {
    pub(crate) program: Program,
    pub(crate) runs: Vec<usize>,
    pub(crate) stats: bool,
}

/// The number of the run that has been prepared last, from 1 on.
static STEP: AtomicUsize = AtomicUsize::new(0);
/// In `STEP`: there are no more runs.
const OVER: usize = usize::MAX;
/// How many cores other than 0 have left the run.
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// How long core 0 sleeps at a time, in nanoseconds, until the others have left.
const LOOK: u64 = 1_000_000;

impl Sweep {
    /// The runs for these counts, `repeats` times: in alternation, so that what disturbs the machine for a while meets all.
    pub(crate) fn new(program: Program, counts: &[usize], repeats: usize, stats: bool) -> Self {
        let runs = (0..repeats.max(1)).flat_map(|_| counts.iter().copied());
        Self {
            program,
            runs: runs.collect(),
            stats,
        }
    }

    /// What core `cpu` does: its part in all runs. The status, on core 0.
    pub(crate) fn work(&self, cpu: usize) -> i32 {
        if cpu > 0 {
            self.follow(cpu);
            return 0;
        }
        let mut status = 0;
        for (index, &cores) in self.runs.iter().enumerate() {
            match self.run(index, cores) {
                Ok(0) => {}
                Ok(other) => status = other,
                Err(Failed(other)) => status = other,
            }
            if status != 0 {
                break;
            }
        }
        STEP.store(OVER, Ordering::Release);
        platform::set_working(None);
        (1..crate::cpu::local::all().len()).for_each(park::unpark);
        status
    }

    fn run(&self, index: usize, cores: usize) -> Result<i32, Failed> {
        platform::set_working(Some(cores));
        memory::vua::keep_track(true);
        let engine = self.program.load(&MACHINE).map_err(Failed)?;
        run::set_engine(Some(Box::leak(Box::new(run::Current { engine, cores }))));
        LEFT.store(0, Ordering::Relaxed);
        STEP.store(index + 1, Ordering::Release);
        (1..cores).for_each(park::unpark);
        let status = engine.work(0);
        while LEFT.load(Ordering::Acquire) < cores - 1 {
            park::park(Some(time::now() + LOOK));
        }
        if self.stats {
            run::write_stats(engine);
        }
        run::set_engine(None);
        // SAFETY: the engine's heap alone is mapped there, and no core works any more. Handlers that still know the engine use its atomics,
        // which are in the kernel's heap.
        let bytes = unsafe { memory::vua::unmap_tracked() };
        info!(
            "run {} of {}: {cores} cores, status {status}, {} KiB given back",
            index + 1,
            self.runs.len(),
            bytes >> 10
        );
        Ok(status)
    }

    fn follow(&self, cpu: usize) {
        let mut seen = 0;
        loop {
            match STEP.load(Ordering::Acquire) {
                OVER => return,
                step if step == seen => park::park(None),
                step => {
                    seen = step;
                    if cpu < self.runs[step - 1] {
                        run::with_engine(|current| current.engine.work(cpu));
                        LEFT.fetch_add(1, Ordering::AcqRel);
                        park::unpark(0);
                    }
                }
            }
        }
    }
}

/// The program could not be loaded; the status.
struct Failed(i32);

impl fmt::Debug for Sweep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sweep").field("runs", &self.runs).finish()
    }
}
