//! What `collectgarbage` was told about the collector's mode and pace, for who asks: nothing of it has an effect (see [`base`](super::base)).

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// As Lua 5.4 begins.
const PAUSE: u32 = 200;
const FACTOR: u32 = 100;

/// See the module.
pub(crate) struct Tuning {
    stopped: AtomicBool,
    generational: AtomicBool,
    pause: AtomicU32,
    factor: AtomicU32,
}

impl Tuning {
    pub(crate) const fn new() -> Tuning {
        Tuning {
            stopped: AtomicBool::new(false),
            generational: AtomicBool::new(false),
            pause: AtomicU32::new(PAUSE),
            factor: AtomicU32::new(FACTOR),
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn set_stopped(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::Relaxed);
    }

    pub(super) fn is_generational(&self) -> bool {
        self.generational.load(Ordering::Relaxed)
    }

    pub(super) fn set_generational(&self, generational: bool) {
        self.generational.store(generational, Ordering::Relaxed);
    }

    /// Gives what it was before, as [`set_factor`](Self::set_factor) does.
    pub(super) fn set_pause(&self, percent: u32) -> u32 {
        self.pause.swap(percent, Ordering::Relaxed)
    }

    pub(super) fn set_factor(&self, percent: u32) -> u32 {
        self.factor.swap(percent, Ordering::Relaxed)
    }
}
