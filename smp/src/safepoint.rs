//! Safepoints: the word that a running core looks at, handshakes with the cores that run, and stopping them all.
//!
//! # States of a core
//!
//! | state | meaning | who leaves it |
//! | --- | --- | --- |
//! | *running* | it may hold references into shared memory, and passes a safepoint soon | itself |
//! | *outside* | it holds none: halted, in a compiler, in a driver, or not started | itself, unless the world is stopped |
//! | *stopped* | it is at a safepoint and stays there until the world is resumed | itself, when the world is resumed |
//!
//! A core begins outside. `status` is written by its own core only. A *critical section* is a stretch of running between two
//! safepoints.
//!
//! # The poll word
//!
//! A running core loads its [`Control::poll`] at every safepoint, relaxed, and goes on if it is zero. Anyone may set bits in it, with a
//! releasing read-modify-write; its core clears what it is about to deal with, with an acquiring one *followed by a full
//! fence*. Who sets a bit that he finds set already, skips it, *after a full fence* of his own: then either the core's clearing
//! comes later, and what it looks at next it sees as the setter left it, or the setter sees the bit clear. The requests below therefore
//! cost a store to a core's line once, however many are pending.
//!
//! # Handshakes
//!
//! `epoch` counts requests. [`Safepoints::request`] raises it and sets [`HANDSHAKE`] in every core's poll word; a core answers at a safepoint, in
//! [`Safepoints::acknowledge`]: it clears the bit, reads `epoch` and stores it to its `seen` (release). A request is complete when every core has
//! `seen` it, or is outside or stopped. Nobody waits: who asked does something else and looks again. One answer serves every request
//! made before it.
//!
//! * *A core that answers sees what was written before the request.* It read `epoch` at least as new as the request's, with acquire; raises of `epoch` are
//!   read-modify-writes with release, so reading a later one synchronizes with every earlier.
//! * *After completion, every critical section that had begun before the request has ended, and all that it wrote is visible.* The looker
//!   acquires `seen`, or a `status` of outside, which its core released when the section ended.
//! * *A core that comes back from outside cannot be overlooked.* It stores `status` = running, then a full fence, then reads `epoch`; the looker raised
//!   `epoch`, or was told by who raised it, then a full fence, then reads `status`. If the looker still read outside, the core reads the
//!   raised `epoch`, and so sees everything that was written before the request, as if it had answered.
//!
//! # Stopping the world
//!
//! `stopper` is 0, or 1 + the number of the core that stops the others, or `DRAINING`. [`Safepoints::stop_begin`] is won by one core, by a swap from 0; it sets [`STOP`] in
//! the others' poll words and parks in [`Safepoints::stop_wait`] until each is outside or stopped. A core that finds the bit calls
//! [`Safepoints::stop_hold`], and so does a core that lost the race to stop: it stores *stopped*, unparks the stopper, and parks. [`Safepoints::resume`] clears the bits,
//! then stores `DRAINING`, then unparks the cores that wait.
//!
//! `held` counts the cores that a stop keeps from running. While `stopper` is `DRAINING` they run again, each leaving `held`; whoever sees it empty swaps `DRAINING` for 0,
//! and only then can the next stop begin. Without this, a core that stops the world again and again, soon after each stop, would keep the others from running for good: they wake later than it
//! stops.
//!
//! * *Nobody runs while the world is stopped.* Who goes back to running, from stopped or from outside, stores `status`, then a full fence, then reads
//!   `stopper`; if that names a core it takes its step back, and tells the stopper. The stopper swaps `stopper`, then a full fence, then reads each
//!   `status`. One sees the other.
//! * *No wake-up is lost.* The stopper reads all `status` again after every return of `park`; each arrival unparks it after its
//!   store. A core that waits for the end of a stop, or of draining, says so in its `waits`, fences, reads `stopper`, and parks, and so again after every return of
//!   `park`; who ends either stores `stopper`, fences, and unparks those whose `waits` is set. A token that was meant for something else only makes one more round.
//! * *Draining ends.* A core in `held` waits for nothing but its turn to run. The last to leave swaps after its decrement and a fence, `resume` after its store and a fence: one of
//!   them finds both `DRAINING` and nobody held. One that enters `held` just then sees that the world is not stopped, and leaves at once.
//! * *Who waits helps.* A core that waits for the end of a stop calls the [`Helper`] each time it is woken. It counts as outside or stopped meanwhile, so
//!   what it may touch, and until when, is between the helper and the stopper: the stopper resumes only when no helper is at work any more.
//! * A core that stops the world, and finds it stopped already, must hold like any other: two cores that each waited for the other would
//!   never arrive.

use alloc::boxed::Box;
use sync::CachePadded;
use sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, full_fence};

use crate::platform::{Cpu, Platform};

/// Poll bit: answer a handshake ([`Safepoints::acknowledge`], or better `Worker::acknowledge`).
pub const HANDSHAKE: u32 = 1 << 0;
/// Poll bit: the world is being stopped ([`Safepoints::stop_hold`]).
pub const STOP: u32 = 1 << 1;
/// Poll bit: another core looks for work in vain (`Worker::share`, then split latent parallelism).
pub const HUNGRY: u32 = 1 << 2;
/// Poll bit: the engine's heartbeat.
pub const HEARTBEAT: u32 = 1 << 3;
/// Poll bit: something is to be cancelled.
pub const CANCEL: u32 = 1 << 4;
/// Poll bit: input has arrived.
pub const INPUT: u32 = 1 << 5;
/// Poll bit: a sample of what the core runs is wanted.
pub const SAMPLE: u32 = 1 << 6;
/// Poll bit: a task has been marked. Whoever is in the middle of running one looks at its mark, when he runs again.
pub const MARKED: u32 = 1 << 7;
/// The lowest of the poll bits that are the engine's to define; all above it are, too.
pub const ENGINE: u32 = 1 << 16;

/// Poll bits that concern a core only while it runs: they do not keep it from sleeping, and need not wake it.
pub const RUNNING_ONLY: u32 = HANDSHAKE | STOP | HUNGRY | HEARTBEAT | SAMPLE | MARKED;

const OUTSIDE: u32 = 0;
const RUNNING: u32 = 1;
const STOPPED: u32 = 2;

/// In `stopper`: the last stop is over, and cores that it held have not run since.
const DRAINING: usize = usize::MAX;

/// One core's part of the protocol, on a cache line of its own (two, as crossbeam's `CachePadded`: x86 prefetches lines in
/// pairs). The engine embeds it in its per-core structure and loads [`poll`](Self::poll), at offset 0, at every safepoint.
#[repr(C, align(128))]
pub struct Control {
    /// Not zero: take the slow path. Set by anyone, cleared by its core. See the [module](self).
    pub poll: AtomicU32,
    status: AtomicU32,
    seen: AtomicU64,
    /// Whether the core waits, or is about to, for `stopper` to change.
    waits: AtomicBool,
}

#[cfg(not(loom))]
const _: () = {
    assert!(core::mem::offset_of!(Control, poll) == 0);
    assert!(size_of::<Control>() == 128);
};

impl Control {
    /// Where the status is, for a debugger.
    #[cfg(not(loom))]
    pub const STATUS: usize = core::mem::offset_of!(Control, status);

    /// The control of a core that has not started: outside.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            poll: AtomicU32::new(0),
            status: AtomicU32::new(OUTSIDE),
            seen: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        }
    }

    /// The control of a core that has not started: outside.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            poll: AtomicU32::new(0),
            status: AtomicU32::new(OUTSIDE),
            seen: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        }
    }

    /// The safepoint's load: whether there is anything to do.
    #[inline(always)]
    pub fn is_wanted(&self) -> bool {
        self.poll.load(Ordering::Relaxed) != 0
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

/// A request for a handshake. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

/// What cores do while they wait for the end of a stop.
pub trait Helper: Sync {
    /// Called by core `cpu`, which is stopped or outside and counts as such, each time it is woken while the world is stopped or being stopped. To return when
    /// there is nothing to help with, and before the stop ends.
    fn help(&self, cpu: Cpu);
}

/// The protocol between all cores of one engine. See the [module](self).
///
/// Methods that take the calling core's number must be called by that core; calling them for another core cannot corrupt the
/// protocol's own memory, but voids what it promises.
pub struct Safepoints {
    platform: &'static dyn Platform,
    controls: Box<[&'static Control]>,
    epoch: CachePadded<AtomicU64>,
    stopper: CachePadded<AtomicUsize>,
    held: CachePadded<AtomicUsize>,
    helper: Option<&'static dyn Helper>,
}

impl Safepoints {
    /// The protocol over one control for each core, in the order of their numbers.
    pub fn new(platform: &'static dyn Platform, controls: Box<[&'static Control]>) -> Self {
        Self {
            platform,
            controls,
            epoch: CachePadded::new(AtomicU64::new(0)),
            stopper: CachePadded::new(AtomicUsize::new(0)),
            held: CachePadded::new(AtomicUsize::new(0)),
            helper: None,
        }
    }

    /// Cores that wait for the end of a stop call this. Who stops the world wakes them by [`Platform::unpark`].
    pub fn set_helper(&mut self, helper: &'static dyn Helper) {
        self.helper = Some(helper);
    }

    /// How many cores there are.
    pub fn cpus(&self) -> usize {
        self.controls.len()
    }

    /// Core `cpu`'s control.
    #[inline]
    pub fn control(&self, cpu: Cpu) -> &'static Control {
        self.controls[cpu]
    }

    /// Sets `bits` in core `cpu`'s poll word, and wakes the core if it is outside and the bits concern it there too.
    /// Lock-free, and callable from interrupt handlers. A release.
    pub fn post(&self, cpu: Cpu, bits: u32) {
        full_fence();
        let control = self.controls[cpu];
        set(control, bits);
        if bits & !RUNNING_ONLY != 0 {
            // The core stores `status`, fences, and looks at its poll word before it parks.
            full_fence();
            if control.status.load(Ordering::Relaxed) == OUTSIDE {
                self.platform.unpark(cpu);
            }
        }
    }

    /// [`post`](Self::post) to every core.
    pub fn post_all(&self, bits: u32) {
        for cpu in 0..self.cpus() {
            self.post(cpu, bits);
        }
    }

    /// Clears those of `bits` that are set in the calling core's poll word and returns them: first thing in a safepoint's slow
    /// path, before looking at what they stand for. [`HANDSHAKE`] and [`STOP`] are not for this: [`acknowledge`](Self::acknowledge)
    /// and [`resume`](Self::resume) clear them.
    pub fn take(&self, cpu: Cpu, bits: u32) -> u32 {
        debug_assert_eq!(bits & (HANDSHAKE | STOP), 0);
        let before = self.controls[cpu].poll.fetch_and(!bits, Ordering::AcqRel);
        full_fence();
        before & bits
    }

    /// The calling core holds no references from here on, until [`leave_outside`](Self::leave_outside). Ends its critical section (release), with a full
    /// fence. Handshakes and stops count it as passed; who stops the world is told.
    pub fn enter_outside(&self, cpu: Cpu) {
        let control = self.controls[cpu];
        control.status.store(OUTSIDE, Ordering::Release);
        full_fence();
        self.tell_stopper();
    }

    /// The calling core runs again. It has then answered every handshake requested before. **Waits, parked, while the
    /// world is stopped.** A full fence.
    pub fn leave_outside(&self, cpu: Cpu) {
        let control = self.controls[cpu];
        self.run_again(cpu, OUTSIDE, false);
        self.answer(control);
    }

    /// Whether the core was outside when its status was last visible here.
    pub fn is_outside(&self, cpu: Cpu) -> bool {
        self.controls[cpu].status.load(Ordering::Acquire) == OUTSIDE
    }

    /// Whether the core was running when its status was last visible here.
    pub fn is_running(&self, cpu: Cpu) -> bool {
        self.controls[cpu].status.load(Ordering::Acquire) == RUNNING
    }

    /// Asks every core to pass a safepoint. Any context may ask; a running core that asks must itself
    /// [`acknowledge`](Self::acknowledge), now or at its next safepoint. A release. Does not wait.
    pub fn request(&self) -> Epoch {
        let epoch = Epoch(self.epoch.fetch_add(1, Ordering::AcqRel) + 1);
        full_fence();
        for control in &self.controls {
            set(control, HANDSHAKE);
        }
        epoch
    }

    /// The calling core is at a safepoint: answers every handshake requested so far. An acquire of what was written before
    /// those requests, a release of what the core did, and a full fence.
    pub fn acknowledge(&self, cpu: Cpu) {
        let control = self.controls[cpu];
        control.poll.fetch_and(!HANDSHAKE, Ordering::AcqRel);
        full_fence();
        self.answer(control);
    }

    fn answer(&self, control: &Control) {
        let epoch = self.epoch.load(Ordering::Acquire);
        control.seen.store(epoch, Ordering::Release);
        full_fence();
    }

    /// Whether every core has passed a safepoint since `epoch` was requested, or has been outside since. If so, an acquire of what
    /// every core did before. Once it was true it is again, but for the moment in which a core is just coming back from outside.
    /// A full fence. Does not wait.
    pub fn is_complete(&self, epoch: Epoch) -> bool {
        full_fence();
        self.controls.iter().all(|control| {
            control.seen.load(Ordering::Acquire) >= epoch.0
                || control.status.load(Ordering::Acquire) != RUNNING
                // It may have come back, and answered, between the two looks.
                || control.seen.load(Ordering::Acquire) >= epoch.0
        })
    }

    /// The calling, running core begins to stop the others; **waits, parked**, until every core that the last stop held runs again. False: another core is
    /// stopping them; the caller must [`stop_hold`](Self::stop_hold), and may then find that there is nothing left to stop for.
    #[must_use]
    pub fn stop_begin(&self, cpu: Cpu) -> bool {
        loop {
            let found =
                self.stopper
                    .compare_exchange(0, cpu + 1, Ordering::AcqRel, Ordering::Acquire);
            full_fence();
            match found {
                Ok(_) => break,
                Err(DRAINING) => self.wait_while_draining(cpu),
                Err(_) => return false,
            }
        }
        for (other, control) in self.controls.iter().enumerate() {
            if other != cpu {
                set(control, STOP);
            }
        }
        true
    }

    fn wait_while_draining(&self, cpu: Cpu) {
        let waits = &self.controls[cpu].waits;
        waits.store(true, Ordering::Relaxed);
        full_fence();
        while self.stopper.load(Ordering::Acquire) == DRAINING {
            self.platform.park(cpu, None);
        }
        waits.store(false, Ordering::Relaxed);
    }

    /// Whether a core is stopping the others, or has stopped them.
    fn is_stopping(&self) -> bool {
        is_core(self.stopper.load(Ordering::Acquire))
    }

    /// Whether every core but `cpu`, which began the stop, is stopped or outside. Then an acquire of all they did, and it
    /// stays so until [`resume`](Self::resume). A full fence.
    pub fn all_stopped(&self, cpu: Cpu) -> bool {
        full_fence();
        self.controls.iter().enumerate().all(|(other, control)| {
            other == cpu || control.status.load(Ordering::Acquire) != RUNNING
        })
    }

    /// Waits, parked, until [`all_stopped`](Self::all_stopped).
    pub fn stop_wait(&self, cpu: Cpu) {
        while !self.all_stopped(cpu) {
            self.platform.park(cpu, None);
        }
    }

    /// The calling core, running, is at a safepoint: it counts as stopped, and waits, parked, until the world is resumed. Then it runs
    /// again, has answered every handshake, and sees what the stopper wrote. Returns at once if the world is not being stopped.
    pub fn stop_hold(&self, cpu: Cpu) {
        self.stop_arrive(cpu);
        self.stop_leave(cpu);
    }

    /// The first half of [`stop_hold`](Self::stop_hold), for cores that help the stopper meanwhile: the calling core counts as stopped. A release
    /// and a full fence.
    pub fn stop_arrive(&self, cpu: Cpu) {
        let control = self.controls[cpu];
        self.enter_held(control);
        control.status.store(STOPPED, Ordering::Release);
        full_fence();
        self.tell_stopper();
    }

    /// The second half of [`stop_hold`](Self::stop_hold): waits, parked, until the world is resumed, and runs again.
    pub fn stop_leave(&self, cpu: Cpu) {
        let control = self.controls[cpu];
        self.run_again(cpu, STOPPED, true);
        self.answer(control);
    }

    /// The core that began the stop lets the others run. A release.
    pub fn resume(&self, cpu: Cpu) {
        for (other, control) in self.controls.iter().enumerate() {
            if other != cpu {
                control.poll.fetch_and(!STOP, Ordering::AcqRel);
            }
        }
        self.stopper.store(DRAINING, Ordering::Release);
        full_fence();
        if self.held.load(Ordering::Relaxed) != 0 || !self.end_draining() {
            self.unpark_waiting();
        }
    }

    /// Nobody is held: the next stop may begin, if this is the end of one. Says whether it was, upon which those that wait were unparked.
    fn end_draining(&self) -> bool {
        let ended = self
            .stopper
            .compare_exchange(DRAINING, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if ended {
            full_fence();
            self.unpark_waiting();
        }
        ended
    }

    /// Wakes the cores that wait for `stopper` to change. The caller has fenced since it changed it.
    fn unpark_waiting(&self) {
        for (cpu, control) in self.controls.iter().enumerate() {
            if control.waits.load(Ordering::Relaxed) {
                self.platform.unpark(cpu);
            }
        }
    }

    fn tell_stopper(&self) {
        let stopper = self.stopper.load(Ordering::Relaxed);
        if is_core(stopper) {
            self.platform.unpark(stopper - 1);
        }
    }

    /// The core is held by a stop, from here on until it runs again. The caller fences, and then looks at `stopper`.
    fn enter_held(&self, control: &Control) {
        self.held.fetch_add(1, Ordering::AcqRel);
        control.waits.store(true, Ordering::Relaxed);
    }

    /// From `state`, outside or stopped, to running, as soon as the world is not stopped.
    fn run_again(&self, cpu: Cpu, state: u32, mut held: bool) {
        let control = self.controls[cpu];
        loop {
            // A look before the store, so that a stopped world does not see a core flicker at each wake-up.
            if !self.is_stopping() {
                control.status.store(RUNNING, Ordering::Release);
                full_fence();
                if !self.is_stopping() {
                    break;
                }
                control.status.store(state, Ordering::Release);
                full_fence();
                self.tell_stopper();
            }
            if !held {
                held = true;
                self.enter_held(control);
                full_fence();
                // Once more: the stop may have ended before anybody could see that this core waits.
                continue;
            }
            if let Some(helper) = self.helper {
                helper.help(cpu);
            }
            self.platform.park(cpu, None);
        }
        if held {
            control.waits.store(false, Ordering::Relaxed);
            if self.held.fetch_sub(1, Ordering::AcqRel) == 1 {
                full_fence();
                self.end_draining();
            }
        }
    }
}

/// Whether `stopper` names a core.
fn is_core(stopper: usize) -> bool {
    stopper != 0 && stopper != DRAINING
}

/// Sets `bits` unless they are set. The caller has fenced since it wrote what the bits announce.
pub(crate) fn set(control: &Control, bits: u32) {
    if control.poll.load(Ordering::Relaxed) & bits != bits {
        control.poll.fetch_or(bits, Ordering::AcqRel);
    }
}
