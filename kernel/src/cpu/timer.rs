//! The local timer of a core: one shot, for whichever comes first of its heartbeat, its deadline in `park`, its turn as a
//! watchdog, and on core 0 the screen's next frame.
//!
//! The timer is only ever moved forward: setting an earlier deadline programs it, a later one waits until it fires and is then
//! programmed. So it may fire once for nothing, and never ticks on its own.

use super::{
    interrupts::Frame,
    local::{self, Local},
    vector, watchdog,
};
use crate::{screen, time};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use drivers::apic::local::{LocalApic, Timer};
use x86_64::instructions::interrupts;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A core's deadlines, in [`time::now`]'s nanoseconds.
#[derive(Debug)]
pub(super) struct Timers {
    /// When the heartbeat is due. Written by any core.
    heartbeat: AtomicU64,
    /// When the core wants to be woken. Its own.
    wake: AtomicU64,
    /// When it is to look after other cores. Written by any core.
    watch: AtomicU64,
    /// When it is to paint. Written by any core; core 0's.
    paint: AtomicU64,
    /// What the hardware is programmed for. Its own.
    programmed: AtomicU64,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self {
            heartbeat: AtomicU64::new(NEVER),
            wake: AtomicU64::new(NEVER),
            watch: AtomicU64::new(NEVER),
            paint: AtomicU64::new(NEVER),
            programmed: AtomicU64::new(NEVER),
        }
    }
}

/// Ticks of the local APIC's timer in a second, when it counts.
static COUNTS: AtomicU64 = AtomicU64::new(0);

/// What to call when a heartbeat is due: a `fn(usize)`, given the core's index.
static POLL: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets what to call on a core, in its timer interrupt, when its heartbeat is due.
pub fn on_heartbeat(poll: fn(usize)) {
    POLL.store(poll as *mut (), Ordering::Release);
}

/// Measures the local APIC's timer against the time-stamp counter, if it counts: 5 ms. Returns its ticks in a second.
pub(crate) fn calibrate(this: &Local) -> Option<u64> {
    this.with_apic(|apic| {
        if apic.timer() == Timer::TscDeadline {
            return None;
        }
        // The count with the time in the middle of its reading; of several tries the one interrupted least.
        let read = |apic: &mut LocalApic| {
            let tries = (0..8).map(|_| {
                let before = time::now();
                let count = apic.count_left();
                let gap = time::now() - before;
                (gap, before + gap / 2, count)
            });
            let (_, time, count) = tries.min().unwrap_or_default();
            (time, count)
        };
        apic.set_count(u32::MAX);
        let (start, first) = read(apic);
        while time::now() - start < 5_000_000 {
            core::hint::spin_loop();
        }
        let (end, last) = read(apic);
        apic.stop_timer();
        let counts = u128::from(first - last) * 1_000_000_000 / u128::from(end - start);
        // A timer that stands still would make every deadline immediate, never late.
        let counts = (counts as u64).max(1);
        COUNTS.store(counts, Ordering::Relaxed);
        Some(counts)
    })
}

/// Asks for a heartbeat of core `cpu` after `nanoseconds`, instead of any asked for earlier.
///
/// # Panics
/// When there is no such core.
pub fn heartbeat(cpu: usize, nanoseconds: u64) {
    set(local::all()[cpu], |timers| &timers.heartbeat, nanoseconds);
}

/// Asks core `target` to look after other cores after `nanoseconds`.
pub(super) fn watch(target: &Local, nanoseconds: u64) {
    set(target, |timers| &timers.watch, nanoseconds);
}

/// Asks core 0 to paint the screen after `nanoseconds`. Once cores are released.
pub(crate) fn paint(nanoseconds: u64) {
    set(local::all()[0], |timers| &timers.paint, nanoseconds);
}

/// Sets one of a core's deadlines to a time from now, and has the core's timer programmed for it.
fn set(target: &Local, which: fn(&Timers) -> &AtomicU64, nanoseconds: u64) {
    let due = time::now().saturating_add(nanoseconds).min(NEVER - 1);
    interrupts::without_interrupts(|| {
        let this = local::current();
        which(&target.timers).store(due, Ordering::Release);
        if core::ptr::eq(this, target) {
            program(this);
        } else {
            // The core programs its own timer, in the handler.
            // SAFETY: every core that takes interrupts has the handler.
            this.with_apic(|apic| unsafe { apic.send_ipi(target.apic_id(), vector::TIMER) });
        }
    });
}

/// Lets the core be interrupted at `deadline`. Interrupts are off.
pub(super) fn arm(this: &Local, deadline: u64) {
    this.timers.wake.store(deadline, Ordering::Relaxed);
    program(this);
}

/// Programs the timer for the next deadline, if that is earlier than what it is programmed for. Interrupts are off.
fn program(this: &Local) {
    let timers = &this.timers;
    let next = timers
        .heartbeat
        .load(Ordering::Acquire)
        .min(timers.wake.load(Ordering::Relaxed))
        .min(timers.watch.load(Ordering::Acquire))
        .min(timers.paint.load(Ordering::Acquire));
    if next >= timers.programmed.load(Ordering::Relaxed) {
        return;
    }
    timers.programmed.store(next, Ordering::Relaxed);
    this.with_apic(|apic| match apic.timer() {
        Timer::TscDeadline => apic.set_deadline(time::to_tsc(next)),
        Timer::Count => {
            let left = u128::from(next.saturating_sub(time::now()));
            // Rounded up, so that the timer does not fire before the deadline and once more for the rest.
            let ticks = (left * u128::from(COUNTS.load(Ordering::Relaxed))).div_ceil(1_000_000_000);
            apic.set_count(ticks.clamp(1, u128::from(u32::MAX)) as u32);
        }
    });
}

/// The timer interrupt, or another core's request to look at the deadlines that it set.
pub(super) fn interrupt(this: &Local, frame: &Frame) {
    let timers = &this.timers;
    this.counters.ticks.fetch_add(1, Ordering::Relaxed);
    timers.programmed.store(NEVER, Ordering::Relaxed);
    let now = time::now();
    if timers.wake.load(Ordering::Relaxed) <= now {
        timers.wake.store(NEVER, Ordering::Relaxed);
    }
    if is_due(&timers.heartbeat, now) {
        let poll = POLL.load(Ordering::Acquire);
        if !poll.is_null() {
            // SAFETY: only `on_heartbeat` stores here, and only such functions.
            let poll = unsafe { core::mem::transmute::<*mut (), fn(usize)>(poll) };
            poll(this.index());
        }
    }
    if is_due(&timers.watch, now) {
        watchdog::check(this, frame);
    }
    if is_due(&timers.paint, now)
        && let Some(pause) = screen::frame()
    {
        timers.paint.store(time::now() + pause, Ordering::Release);
    }
    program(this);
}

/// Whether a deadline has come, unless another core has asked anew in this moment. Then it is none any more.
fn is_due(deadline: &AtomicU64, now: u64) -> bool {
    let due = deadline.load(Ordering::Acquire);
    due <= now
        && deadline
            .compare_exchange(due, NEVER, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
}
