//! A spin lock for the heap's common structures, taken only on slow paths and for a bounded time.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// Data behind a lock. Never taken in an interrupt handler, and no safepoint is passed while it is held.
pub(super) struct Lock<T> {
    held: AtomicBool,
    data: UnsafeCell<T>,
}

// SAFETY: `with` gives the data to one core at a time, with acquire and release around it.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub(super) const fn new(data: T) -> Self {
        Lock {
            held: AtomicBool::new(false),
            data: UnsafeCell::new(data),
        }
    }

    /// Runs `work` alone.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        while self
            .held
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while self.held.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
        struct Release<'a>(&'a AtomicBool);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        let _release = Release(&self.held);
        // SAFETY: the lock is held until `_release` is dropped.
        work(unsafe { &mut *self.data.get() })
    }
}
