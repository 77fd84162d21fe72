//! A platform for model checking: a core is one of loom's threads, and parks in one of loom's condition variables.

use loom::sync::{Condvar, Mutex};
use smp::platform::{Cpu, FileError, Input, Platform, Stream};
use smp::safepoint::Control;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::Duration;

/// What the clock shows, always.
pub const NOW: u64 = 10;

/// Cores that only park and wake each other.
pub struct Model {
    tokens: Vec<(Mutex<bool>, Condvar)>,
}

impl Model {
    /// A platform and controls for `cpus` cores, made within a model; nothing of them is freed.
    pub fn leak(cpus: usize) -> (&'static Model, Box<[&'static Control]>) {
        let tokens = (0..cpus)
            .map(|_| (Mutex::new(false), Condvar::new()))
            .collect();
        let controls = (0..cpus)
            .map(|_| &*Box::leak(Box::new(Control::new())))
            .collect();
        (Box::leak(Box::new(Model { tokens })), controls)
    }
}

/// Tries every interleaving with at most so many preemptions.
pub fn check(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(body);
}

/// A task.
#[allow(dead_code, reason = "not every test that includes this has tasks")]
pub fn word(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

impl Platform for Model {
    fn cpus(&self) -> usize {
        self.tokens.len()
    }

    /// A limit that is past ends the wait at once; others never come, since the clock stands.
    fn park(&self, cpu: Cpu, deadline: Option<u64>) {
        if deadline.is_some_and(|deadline| deadline <= NOW) {
            return;
        }
        let (given, changed) = &self.tokens[cpu];
        let mut given = given.lock().unwrap();
        while !*given {
            given = changed.wait(given).unwrap();
        }
        *given = false;
    }

    fn unpark(&self, cpu: Cpu) {
        let (given, changed) = &self.tokens[cpu];
        *given.lock().unwrap() = true;
        changed.notify_one();
    }

    fn now(&self) -> u64 {
        NOW
    }

    fn heartbeat(&self, _cpu: Cpu, _nanoseconds: u64) {}

    fn map(&self, _bytes: usize, _align: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn unmap(&self, _start: NonNull<u8>, _bytes: usize) {}

    fn write(&self, _stream: Stream, _bytes: &[u8]) {}

    fn read(&self, _buffer: &mut [u8]) -> Input {
        Input::End
    }

    fn read_file(&self, _name: &str, _take: &mut dyn FnMut(&[u8])) -> Result<(), FileError> {
        Err(FileError::NotFound)
    }

    fn write_file(&self, _name: &str, _bytes: &[u8]) -> Result<(), FileError> {
        Err(FileError::NoSpace)
    }

    fn remove_file(&self, _name: &str) -> Result<(), FileError> {
        Err(FileError::NotFound)
    }

    fn wall_clock(&self) -> Duration {
        Duration::ZERO
    }

    fn entropy(&self) -> u64 {
        1
    }
}
