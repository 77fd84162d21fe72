//! A bounded queue of bytes between one interrupt handler, which puts, and one reader at a time, which takes.
//!
//! Two counters that only grow: `put` is written by the producer alone, `taken` by the consumer alone; their difference is
//! the fill. The producer writes a byte and then releases `put`; the consumer acquires `put` before it reads, and releases
//! `taken` after, which the producer acquires before it overwrites (Lamport, "Specifying Concurrent Program Modules",
//! 1983, section 5).

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The queue; `N` is a power of two.
#[derive(Debug)]
pub struct Ring<const N: usize> {
    bytes: UnsafeCell<[u8; N]>,
    put: AtomicUsize,
    taken: AtomicUsize,
}

// SAFETY: each byte is accessed by one side at a time, as the counters say; the sides keep to one caller each (the
// contracts of `put` and `take`).
unsafe impl<const N: usize> Sync for Ring<N> {}

impl<const N: usize> Ring<N> {
    const POWER_OF_TWO: () = assert!(N.is_power_of_two());

    /// An empty queue.
    pub const fn new() -> Self {
        #[allow(clippy::let_unit_value, reason = "evaluates the assertion")]
        let () = Self::POWER_OF_TWO;
        Self {
            bytes: UnsafeCell::new([0; N]),
            put: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        }
    }

    /// How many bytes can be put before the queue is full.
    pub fn space(&self) -> usize {
        N - self
            .put
            .load(Ordering::Relaxed)
            .wrapping_sub(self.taken.load(Ordering::Acquire))
    }

    /// Puts a byte; false when the queue is full.
    ///
    /// # Safety
    /// Only one core at a time is in this method.
    pub unsafe fn put(&self, byte: u8) -> bool {
        if self.space() == 0 {
            return false;
        }
        let put = self.put.load(Ordering::Relaxed);
        // SAFETY: the slot is free, so the consumer does not touch it; the caller says that no other producer does.
        unsafe { self.bytes.get().cast::<u8>().add(put % N).write(byte) };
        self.put.store(put.wrapping_add(1), Ordering::Release);
        true
    }

    /// Moves bytes to the start of `buffer`; how many.
    ///
    /// # Safety
    /// Only one core at a time is in this method.
    pub unsafe fn take(&self, buffer: &mut [u8]) -> usize {
        let taken = self.taken.load(Ordering::Relaxed);
        let count = self
            .put
            .load(Ordering::Acquire)
            .wrapping_sub(taken)
            .min(buffer.len());
        for (index, slot) in buffer[..count].iter_mut().enumerate() {
            // SAFETY: the slot holds a byte that was put, which the producer does not touch until it is taken; the caller
            // says that no other consumer is here.
            *slot = unsafe {
                self.bytes
                    .get()
                    .cast::<u8>()
                    .add(taken.wrapping_add(index) % N)
                    .read()
            };
        }
        self.taken
            .store(taken.wrapping_add(count), Ordering::Release);
        count
    }
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn is_bounded_and_in_order() {
        let ring = Ring::<4>::new();
        let mut buffer = [0; 3];
        // SAFETY: one thread.
        unsafe {
            assert_eq!(ring.take(&mut buffer), 0);
            for byte in 1..=4 {
                assert!(ring.put(byte));
            }
            assert!(!ring.put(5));
            assert_eq!(ring.take(&mut buffer), 3);
            assert_eq!(buffer, [1, 2, 3]);
            assert_eq!(ring.space(), 3);
            assert!(ring.put(6));
            assert_eq!(ring.take(&mut buffer), 2);
            assert_eq!(buffer[..2], [4, 6]);
        }
    }

    #[test]
    fn passes_bytes_between_threads() {
        static RING: Ring<16> = Ring::new();
        const COUNT: u32 = if cfg!(miri) { 500 } else { 200_000 };
        let producer = thread::spawn(|| {
            for index in 0..COUNT {
                // SAFETY: the one producer.
                while !unsafe { RING.put(index as u8) } {
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0u32;
        let mut buffer = [0; 7];
        while expected < COUNT {
            // SAFETY: the one consumer.
            let count = unsafe { RING.take(&mut buffer) };
            for &byte in &buffer[..count] {
                assert_eq!(byte, expected as u8);
                expected += 1;
            }
            if count == 0 {
                thread::yield_now();
            }
        }
        producer.join().unwrap();
    }
}
