//! A machine of virtual cores, for an engine whose cores take turns on one thread.
//!
//! Nothing that a program can observe depends on the machine beneath: time passes with instructions, "unpredictable" bits come from the
//! seed, reading waits for input, and memory comes from wherever the platform beneath puts it, which for repeatable addresses must be
//! the same place each time.

use alloc::boxed::Box;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use core::time::Duration;

use smp::platform::{Cpu, FileError, Input, Platform, Screen, Stream};

use crate::engine::Engine;

/// No time at all.
pub(super) const NEVER: u64 = u64::MAX;
/// How long a look at input that has not arrived waits before the next, in nanoseconds.
const INPUT_WAIT: u64 = 1_000_000;
/// What the wall clock shows when a program starts: 2024-01-01T00:00:00Z, in seconds since 1970.
const EPOCH: u64 = 1_704_067_200;

struct VirtualCore {
    /// Somebody has unparked it since it fell asleep.
    token: AtomicBool,
    /// When its heartbeat is due.
    beat: AtomicU64,
    /// It was put outside while another core stopped the world.
    aside: AtomicBool,
}

/// See the module. All fields are atomics only because a platform must be shareable: one thread uses it, and Ctrl-C's may unpark.
pub struct VirtualMachine {
    under: &'static dyn Platform,
    cores: Box<[VirtualCore]>,
    now: AtomicU64,
    random: AtomicU64,
    /// Heartbeats come at random moments before they are due.
    jitter: bool,
    engine: AtomicPtr<Engine>,
}

impl VirtualMachine {
    /// A machine of `cpus` cores whose files, streams and memory are `under`'s. `jitter` makes heartbeats come early, at moments that `seed` decides.
    pub fn new(
        under: &'static dyn Platform,
        cpus: usize,
        seed: u64,
        jitter: bool,
    ) -> VirtualMachine {
        let core = |_| VirtualCore {
            token: AtomicBool::new(false),
            beat: AtomicU64::new(NEVER),
            aside: AtomicBool::new(false),
        };
        VirtualMachine {
            under,
            cores: (0..cpus).map(core).collect(),
            now: AtomicU64::new(0),
            random: AtomicU64::new(seed),
            jitter,
            engine: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Says whose cores take turns.
    pub(super) fn attach(&self, engine: &'static Engine) {
        self.engine
            .store((engine as *const Engine).cast_mut(), Ordering::Release);
    }

    /// The next of the seed's numbers, by splitmix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
    pub(super) fn random(&self) -> u64 {
        let state = self
            .random
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One of the numbers below `limit`.
    pub(super) fn below(&self, limit: u64) -> u64 {
        ((u128::from(self.random()) * u128::from(limit)) >> 64) as u64
    }

    pub(super) fn set_now(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
    }

    /// Whether somebody has unparked the core since the last call.
    pub(super) fn take_token(&self, cpu: Cpu) -> bool {
        self.cores[cpu].token.swap(false, Ordering::Acquire)
    }

    pub(super) fn has_token(&self, cpu: Cpu) -> bool {
        self.cores[cpu].token.load(Ordering::Relaxed)
    }

    /// When the core's heartbeat is due.
    pub(super) fn beat_at(&self, cpu: Cpu) -> u64 {
        self.cores[cpu].beat.load(Ordering::Relaxed)
    }

    pub(super) fn clear_beat(&self, cpu: Cpu) {
        self.cores[cpu].beat.store(NEVER, Ordering::Relaxed);
    }

    /// Whether the core is outside for another's sake, and now runs again.
    pub(super) fn take_aside(&self, cpu: Cpu) -> bool {
        self.cores[cpu].aside.swap(false, Ordering::Relaxed)
    }

    /// Waits in real time for something to happen outside: a signal.
    pub(super) fn wait(&self) {
        self.under
            .park(0, Some(self.under.now().saturating_add(INPUT_WAIT)));
    }
}

impl Platform for VirtualMachine {
    fn cpus(&self) -> usize {
        self.cores.len()
    }

    /// Called in a core's turn only while the world is stopped: sleep is the driver's. No other core can come to its safepoint before the turn ends; but each
    /// stands between two instructions, all that it needs in its task's frames, and so may as well count as outside until it runs again.
    fn park(&self, cpu: Cpu, _: Option<u64>) {
        // SAFETY: null, or an engine, which lives for good.
        let Some(engine) = (unsafe { self.engine.load(Ordering::Acquire).as_ref() }) else {
            return;
        };
        let safepoints = engine.scheduler().safepoints();
        for other in 0..self.cpus() {
            if other != cpu && safepoints.is_running(other) {
                self.cores[other].aside.store(true, Ordering::Relaxed);
                safepoints.enter_outside(other);
            }
        }
    }

    fn unpark(&self, cpu: Cpu) {
        self.cores[cpu].token.store(true, Ordering::Release);
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn heartbeat(&self, cpu: Cpu, nanoseconds: u64) {
        let wait = if self.jitter {
            // A turn in a hundredth of the time, so that short programs see them too.
            1 + self.below(nanoseconds / 64)
        } else {
            nanoseconds
        };
        self.cores[cpu].beat.store(
            self.now().saturating_add(wait).min(NEVER - 1),
            Ordering::Relaxed,
        );
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        self.under.map(bytes, align)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: as the caller promises.
        unsafe { self.under.unmap(start, bytes) }
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        self.under.write(stream, bytes);
    }

    /// Waits: whether input arrives before or after something else must not matter.
    fn read(&self, buffer: &mut [u8]) -> Input {
        loop {
            match self.under.read(buffer) {
                Input::Pending => {
                    // SAFETY: null, or an engine, which lives for good.
                    let engine = unsafe { self.engine.load(Ordering::Acquire).as_ref() };
                    if engine.is_some_and(Engine::is_closed) {
                        return Input::End;
                    }
                    self.wait();
                }
                other => return other,
            }
        }
    }

    fn read_file(&self, name: &str, take: &mut dyn FnMut(&[u8])) -> Result<(), FileError> {
        self.under.read_file(name, take)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        self.under.write_file(name, bytes)
    }

    fn remove_file(&self, name: &str) -> Result<(), FileError> {
        self.under.remove_file(name)
    }

    fn wall_clock(&self) -> Duration {
        Duration::from_secs(EPOCH) + Duration::from_nanos(self.now())
    }

    fn entropy(&self) -> u64 {
        self.random()
    }

    fn screen(&self) -> Option<&dyn Screen> {
        self.under.screen()
    }
}
