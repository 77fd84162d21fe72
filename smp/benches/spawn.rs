//! What a spawn costs: nanoseconds for each spawn and pop of a task that nobody steals, with all cores busy.
//!
//! `cargo bench -p smp`. Prints; judges nothing.

#[path = "../tests/threads/mod.rs"]
mod threads;

use smp::safepoint::Control;
use smp::scheduler::Scheduler;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Instant;
use threads::Threads;

const OPERATIONS: u32 = 20_000_000;

fn measure(name: &str, mut body: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..OPERATIONS / 16 {
                body();
            }
            start.elapsed()
        })
        .min()
        .unwrap();
    let each = best.as_secs_f64() * 1e9 / f64::from(OPERATIONS);
    println!("{name:<40} {each:6.2} ns");
}

fn main() {
    let cpus = 2;
    let controls = (0..cpus)
        .map(|_| &*Box::leak(Box::new(Control::new())))
        .collect();
    let scheduler = Scheduler::<NonZeroUsize>::new(Threads::leak(cpus), controls, 1);
    let worker = scheduler.worker(0);
    let task = NonZeroUsize::MIN;
    measure("spawn, pop", || {
        for _ in 0..16 {
            worker.spawn(black_box(task));
            black_box(worker.pop());
        }
    });
    measure("16 spawns, 16 pops", || {
        for _ in 0..16 {
            worker.spawn(black_box(task));
        }
        for _ in 0..16 {
            black_box(worker.pop());
        }
    });
    measure("spawn, find", || {
        for _ in 0..16 {
            worker.spawn(black_box(task));
            black_box(worker.find());
        }
    });
    measure("inject, find", || {
        for _ in 0..16 {
            scheduler.inject(black_box(task));
            black_box(worker.find());
        }
    });
}
