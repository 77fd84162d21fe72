//! A platform of threads, for tests: a core is a thread, parking is `std::thread`'s in all but name.

use smp::platform::{Cpu, FileError, Input, Platform, Stream};
use std::ptr::NonNull;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

struct Token {
    given: Mutex<bool>,
    changed: Condvar,
}

/// Threads for cores. Only what the scheduler needs does anything.
pub struct Threads {
    start: Instant,
    tokens: Vec<Token>,
}

impl Threads {
    /// A platform of `cpus` cores, which lives to the end of the process.
    pub fn leak(cpus: usize) -> &'static Self {
        let tokens = (0..cpus)
            .map(|_| Token {
                given: Mutex::new(false),
                changed: Condvar::new(),
            })
            .collect();
        Box::leak(Box::new(Self {
            start: Instant::now(),
            tokens,
        }))
    }
}

impl Platform for Threads {
    fn cpus(&self) -> usize {
        self.tokens.len()
    }

    fn park(&self, cpu: Cpu, deadline: Option<u64>) {
        let token = &self.tokens[cpu];
        let mut given = token.given.lock().unwrap();
        while !*given {
            match deadline {
                None => given = token.changed.wait(given).unwrap(),
                Some(deadline) => {
                    let now = self.now();
                    if now >= deadline {
                        break;
                    }
                    let left = Duration::from_nanos(deadline - now);
                    given = token.changed.wait_timeout(given, left).unwrap().0;
                }
            }
        }
        *given = false;
    }

    fn unpark(&self, cpu: Cpu) {
        *self.tokens[cpu].given.lock().unwrap() = true;
        self.tokens[cpu].changed.notify_one();
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
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
