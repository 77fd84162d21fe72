//! What each core counts, for `--stats` and the benchmarks.

use core::sync::atomic::{AtomicU64, Ordering};

/// A number that one core raises and anyone may read, at any time, without either waiting.
///
/// Raising it is a plain load, add and store, not a locked instruction: it has a single writer. It orders nothing.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Raises the counter by `amount`; only its core does so.
    #[inline(always)]
    pub fn add(&self, amount: u64) {
        let now = self.0.load(Ordering::Relaxed).wrapping_add(amount);
        self.0.store(now, Ordering::Relaxed);
    }

    /// The count; of a core that is running, a recent one.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// One core's counters.
        #[derive(Default)]
        pub struct CoreStats { $($(#[$doc])* pub $name: Counter,)* }

        impl CoreStats {
            /// Every counter with its name, in the order of the fields.
            pub fn each(&self, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($name), self.$name.get());)*
            }
        }
    };
}

counters! {
    /// Tasks that the core took from a queue to run.
    tasks
    /// Tasks that it pushed on its own deque.
    spawns
    /// Tasks that it took from another core's deque.
    steals
    /// Looks at all other cores' deques that found nothing, or lost the race for what they found.
    failed_steals
    /// Tasks that it took from the queue of those made outside, woken, or yielding.
    injected
    /// Cores that it woke to look for work.
    wake_ups
    /// Times it went to sleep.
    parks
    /// Nanoseconds that it slept.
    parked_ns
    /// Handshakes that it answered.
    handshakes
    /// Nanoseconds in the slow path of safepoints, as the engine measures them.
    safepoint_ns
}
