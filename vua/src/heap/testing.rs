//! A platform for tests: memory from the host's allocator, and nothing else.

extern crate std;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::alloc::Layout;
use std::boxed::Box;

use smp::platform::{Cpu, FileError, Input, Platform, Stream};

use super::Heap;

/// Memory up to a limit; everything else is absent.
pub(crate) struct Memory {
    left: AtomicUsize,
}

impl Memory {
    /// Four cores with at most `bytes` of memory, for as long as the test runs. Whoever parks comes back at once.
    pub(crate) fn platform(bytes: usize) -> &'static Memory {
        Box::leak(Box::new(Memory {
            left: AtomicUsize::new(bytes),
        }))
    }

    /// A heap on at most `bytes` of memory, for as long as the test runs.
    pub(crate) fn heap(bytes: usize) -> &'static Heap {
        Box::leak(Box::new(Heap::new(Memory::platform(bytes))))
    }
}

impl Platform for Memory {
    fn cpus(&self) -> usize {
        4
    }

    fn park(&self, _cpu: Cpu, _deadline: Option<u64>) {
        std::thread::yield_now();
    }

    fn unpark(&self, _cpu: Cpu) {}

    fn now(&self) -> u64 {
        0
    }

    fn heartbeat(&self, _cpu: Cpu, _nanoseconds: u64) {}

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let taken = |left: usize| left.checked_sub(bytes);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .ok()?;
        let layout = Layout::from_size_align(bytes, align).ok()?;
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
        // Only mappings of their own are given back, which are aligned to a block.
        let layout = Layout::from_size_align(bytes, super::block::BLOCK_BYTES).unwrap();
        // SAFETY: it came from `map` with this layout, says the caller.
        unsafe { std::alloc::dealloc(start.as_ptr(), layout) }
    }

    fn write(&self, _stream: Stream, _bytes: &[u8]) {}

    fn read(&self, _buffer: &mut [u8]) -> Input {
        Input::End
    }

    fn read_file(&self, _name: &str, _take: &mut dyn FnMut(&[u8])) -> Result<(), FileError> {
        Err(FileError::NotFound)
    }

    fn write_file(&self, _name: &str, _bytes: &[u8]) -> Result<(), FileError> {
        Err(FileError::ReadOnly)
    }

    fn remove_file(&self, _name: &str) -> Result<(), FileError> {
        Err(FileError::NotFound)
    }

    fn wall_clock(&self) -> Duration {
        Duration::ZERO
    }

    fn entropy(&self) -> u64 {
        0x243f_6a88_85a3_08d3
    }
}

/// Reproducible numbers: xorshift64* (Vigna, 2016).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}
