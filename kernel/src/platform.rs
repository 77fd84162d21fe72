//! The kernel as the engine's host.

use crate::{
    console,
    console::input,
    cpu::{local, park, timer},
    files, memory, screen, time,
};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use drivers::random;
use smp::platform::{Cpu, FileError, Input, Platform, Screen, Stream};

/// The machine. Its cores are those that came up; methods may be called once bring-up has ended.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

/// The one machine.
pub static MACHINE: Machine = Machine;

/// How many cores the engine that is made next knows of; 0: all.
static WORKING: AtomicUsize = AtomicUsize::new(0);

/// Sets how many cores the engine that is made next is to know of; `None`: all. While no engine works.
pub(crate) fn set_working(cores: Option<usize>) {
    WORKING.store(cores.unwrap_or(0), Ordering::Release);
}

impl Platform for Machine {
    fn cpus(&self) -> usize {
        match WORKING.load(Ordering::Acquire) {
            0 => local::all().len(),
            cores => cores,
        }
    }

    fn park(&self, cpu: Cpu, deadline: Option<u64>) {
        debug_assert_eq!(cpu, local::current().index(), "a core can only park itself");
        park::park(deadline);
    }

    fn unpark(&self, cpu: Cpu) {
        park::unpark(cpu);
    }

    fn now(&self) -> u64 {
        time::now()
    }

    fn heartbeat(&self, cpu: Cpu, nanoseconds: u64) {
        timer::heartbeat(cpu, nanoseconds);
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        memory::vua::map(bytes, align)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { memory::vua::unmap(start, bytes) }
    }

    fn reserve(&self, bytes: usize) -> bool {
        memory::vua::reserve(bytes)
    }

    fn unreserve(&self, bytes: usize) {
        memory::vua::unreserve(bytes);
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Output => console::write_output(bytes),
            Stream::Error => console::write_error(bytes),
        }
    }

    fn read(&self, buffer: &mut [u8]) -> Input {
        input::read(buffer)
    }

    fn read_file(&self, name: &str, take: &mut dyn FnMut(&[u8])) -> Result<(), FileError> {
        files::read(name, take)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        files::write(name, bytes)
    }

    fn remove_file(&self, name: &str) -> Result<(), FileError> {
        files::remove(name)
    }

    fn wall_clock(&self) -> Duration {
        time::wall_clock()
    }

    fn entropy(&self) -> u64 {
        if random::seed_available() {
            // SAFETY: the processor has the instruction.
            if let Some(value) = unsafe { random::rdseed() } {
                return value;
            }
        }
        if random::available() {
            // SAFETY: the processor has the instruction.
            if let Some(value) = unsafe { random::rdrand() } {
                return value;
            }
        }
        random::jitter()
    }

    fn screen(&self) -> Option<&dyn Screen> {
        screen::get().map(|screen| screen as &dyn Screen)
    }
}
