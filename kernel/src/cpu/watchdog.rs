//! The watchdog: finds cores that no longer take interrupts, and cores that run Vua code and pass no safepoint. Both are bugs of
//! the kernel or the engine, which nothing else would show but a machine that stands still.
//!
//! Core 0 watches all others, core 1 watches core 0: the *watchers*. Once in a [`PERIOD`] a watcher looks at each of its cores that is not
//! halted. If the core has answered the last question, it is asked the next, by an interrupt, whose handler answers. If it has not, a
//! miss is counted; when the misses add up to the limit, the machine ends with a report, in which the core's position, taken by
//! NMI, is the point. Looks are counted, not time, so that a machine whose host sleeps for an hour comes back unharmed.
//!
//! The handler itself does the second check, because it knows what it interrupted: it asks its core for a safepoint, and when that has
//! still not been passed after as many questions as the limit has periods, it logs a warning with a backtrace, once for each such stay.
//!
//! **No tick while nothing needs one.** A watcher whose cores are all halted stops: `ARMED` goes to false, and then it looks at
//! them once more. A core that leaves a halt first stops being halted, then sets `ARMED` and, if it was false, sets the watcher's
//! timer. So either the watcher's second look finds the core running, or the core finds the watcher stopped.

use super::{
    features,
    interrupts::Frame,
    local::{self, Local},
    park, timer, vector,
};
use crate::{
    console::log,
    panic,
    unwind::{Backtrace, Cursor},
};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// Nanoseconds between two looks.
const PERIOD: u64 = 1_000_000_000;

/// How many periods a core may miss unless the command line says otherwise: ten seconds.
const PATIENCE: u32 = 10;

/// The same for a virtual core, which waits for its turn on a busy host: a minute.
const VIRTUAL_PATIENCE: u32 = 60;

/// In [`LIMIT`]: not chosen yet.
const DEFAULT: u32 = u32::MAX;

/// Cores that watch.
const WATCHERS: usize = 2;

/// The limit in periods; 0: nobody watches.
static LIMIT: AtomicU32 = AtomicU32::new(DEFAULT);

/// Whether each watcher's timer is set.
static ARMED: [AtomicBool; WATCHERS] = [const { AtomicBool::new(false) }; WATCHERS];

/// Asks the engine for a safepoint of a core: a `fn(usize) -> bool`, see [`on_watch`].
static SAFEPOINT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// What a core and its watcher know of each other.
#[derive(Debug)]
pub(super) struct Watched {
    /// Questions asked, by the watcher.
    asked: AtomicU32,
    /// The last question answered, by the core.
    answered: AtomicU32,
    /// Looks in a row that found the last question unanswered. The watcher's.
    misses: AtomicU32,
    /// Questions in a row that found no safepoint passed. The core's.
    stays: AtomicU32,
}

impl Watched {
    pub(super) const fn new() -> Self {
        Self {
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            misses: AtomicU32::new(0),
            stays: AtomicU32::new(0),
        }
    }
}

/// Sets the limit in seconds, 0 for none. Before the cores are released.
pub(crate) fn set_limit(seconds: u32) {
    LIMIT.store(seconds, Ordering::Relaxed);
}

/// Sets how the engine is asked for a safepoint of a core. `ask` returns whether the core runs Vua code and has not passed the
/// one asked for last; else it asks for the next. It is called in an interrupt handler of that core.
pub fn on_watch(ask: fn(usize) -> bool) {
    SAFEPOINT.store(ask as *mut (), Ordering::Release);
}

/// Begins to watch: all cores run now. Once, when the cores are released.
pub(super) fn start() {
    let cores = local::all();
    match LIMIT.load(Ordering::Relaxed) {
        0 => return,
        DEFAULT if features::virtual_machine() => LIMIT.store(VIRTUAL_PATIENCE, Ordering::Relaxed),
        DEFAULT => LIMIT.store(PATIENCE, Ordering::Relaxed),
        _ => {}
    }
    for watcher in cores.iter().take(WATCHERS) {
        if !ARMED[watcher.index()].swap(true, Ordering::SeqCst) {
            timer::watch(watcher, PERIOD);
        }
    }
}

/// Which watcher looks after a core: with one core, it looks after itself.
fn watcher(index: usize, cores: usize) -> usize {
    usize::from(index == 0 && cores > 1)
}

/// The calling core, with interrupts off, has left a halt.
pub(super) fn core_runs() {
    let cores = local::all();
    if LIMIT.load(Ordering::Relaxed) == 0 || cores.is_empty() {
        return;
    }
    let watcher = watcher(local::current().index(), cores.len());
    if !ARMED[watcher].load(Ordering::SeqCst) && !ARMED[watcher].swap(true, Ordering::SeqCst) {
        timer::watch(cores[watcher], PERIOD);
    }
}

/// A watcher's look at its cores, in its timer interrupt.
pub(super) fn check(this: &Local, frame: &Frame) {
    let cores = local::all();
    let own = this.index();
    let mine = || {
        let watched = cores
            .iter()
            .filter(|core| watcher(core.index(), cores.len()) == own);
        watched.filter(|core| core.online() && !park::is_halted(core.index()))
    };
    for core in mine() {
        let watched = &core.watched;
        if core::ptr::eq(*core, this) {
            safepoint(this, frame);
            continue;
        }
        let asked = watched.asked.load(Ordering::Relaxed);
        if watched.answered.load(Ordering::Acquire) == asked {
            watched.misses.store(0, Ordering::Relaxed);
            watched
                .asked
                .store(asked.wrapping_add(1), Ordering::Release);
            // SAFETY: every core that takes interrupts has the handler.
            this.with_apic(|apic| unsafe { apic.send_ipi(core.apic_id(), vector::WATCH) });
            continue;
        }
        let misses = watched.misses.fetch_add(1, Ordering::Relaxed) + 1;
        if misses >= LIMIT.load(Ordering::Relaxed) {
            this.faults.fetch_add(1, Ordering::Relaxed);
            panic::stop(
                &format_args!(
                    "watchdog: core {} has taken no interrupt for {misses} s",
                    core.index()
                ),
                Cursor::interrupted(frame),
            );
        }
    }
    if mine().next().is_some() {
        timer::watch(this, PERIOD);
        return;
    }
    ARMED[own].store(false, Ordering::SeqCst);
    if mine().next().is_some() && !ARMED[own].swap(true, Ordering::SeqCst) {
        timer::watch(this, PERIOD);
    }
}

/// The watcher's question.
pub(super) fn interrupt(this: &Local, frame: &Frame) {
    let asked = this.watched.asked.load(Ordering::Acquire);
    this.watched.answered.store(asked, Ordering::Release);
    safepoint(this, frame);
}

/// Asks for a safepoint, and warns of a stay that is too long.
fn safepoint(this: &Local, frame: &Frame) {
    let ask = SAFEPOINT.load(Ordering::Acquire);
    if ask.is_null() {
        return;
    }
    // SAFETY: only `on_watch` stores here, and only such functions.
    let ask = unsafe { core::mem::transmute::<*mut (), fn(usize) -> bool>(ask) };
    let stays = &this.watched.stays;
    if !ask(this.index()) {
        stays.store(0, Ordering::Relaxed);
        return;
    }
    let count = stays.fetch_add(1, Ordering::Relaxed) + 1;
    if count == LIMIT.load(Ordering::Relaxed) {
        let from = Cursor::interrupted(frame);
        log::try_warn(format_args!(
            "watchdog: core {} has passed no safepoint for {count} s:{}",
            this.index(),
            Backtrace { from, most: 16 }
        ));
    }
}
