//! A spinlock, for short sections off every hot path where a lock is the simplest thing that is right.
//!
//! The lock is `spin`'s test-and-test-and-set lock, without fairness: waiters in a queue would each wait for the one before
//! to be running, which a host that has fewer cores than there are threads does not grant. Whoever holds it must not
//! wait, must not pass a safepoint, and must not be interrupted by a handler that takes it: handlers take no locks.

#[cfg(not(loom))]
type Inner<T> = spin::mutex::SpinMutex<T>;
#[cfg(loom)]
type Inner<T> = loom::sync::Mutex<T>;

/// Gives access to the value, until dropped.
#[cfg(not(loom))]
pub type Guard<'a, T> = spin::mutex::SpinMutexGuard<'a, T>;
/// Gives access to the value, until dropped.
#[cfg(loom)]
pub type Guard<'a, T> = loom::sync::MutexGuard<'a, T>;

/// A value that one core uses at a time.
pub struct Lock<T>(Inner<T>);

impl<T> Lock<T> {
    /// An open lock around `value`.
    pub fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    /// Waits, spinning, until no other core holds the lock. Locking again on the same core never returns.
    pub fn lock(&self) -> Guard<'_, T> {
        #[cfg(not(loom))]
        return self.0.lock();
        #[cfg(loom)]
        return self.0.lock().unwrap();
    }

    /// Takes the lock if it is open. Never waits.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        #[cfg(not(loom))]
        return self.0.try_lock();
        #[cfg(loom)]
        return self.0.try_lock().ok();
    }
}
