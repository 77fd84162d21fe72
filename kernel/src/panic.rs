//! The end of a machine that cannot go on: one core reports why, all others stop, and QEMU exits with status 101.
//!
//! This path takes no locks and allocates nothing. The first core to get here owns it; it stops the others by NMI and waits a
//! short time for them, so that the report is not mixed with their output. Then it reports why, and waits a long time for those
//! that have still not stopped before it reports where the others were: under an emulator on a busy host, a core may not run
//! for seconds. A fault within the report is reported in a line, and one within that only ends the machine: it can neither recur
//! nor hang.
//!
//! A core that is stopped tells its [`Position`]. It may be panicking itself, and the NMI may come in the middle of its own
//! telling: whoever tells never returns to what it interrupted, so the last to tell may write over what another had begun.

use crate::{
    console,
    cpu::{
        faults,
        interrupts::Frame,
        local::{self, Local},
    },
    time,
    unwind::{Backtrace, Cursor},
};
use core::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
};
use x86_64::instructions::{hlt, interrupts};

/// The exit status of a panic.
pub const STATUS: u8 = 101;

/// The core that reports; null while none does. Set once.
static OWNER: AtomicPtr<Local> = AtomicPtr::new(null_mut());

/// How long to wait for the other cores to stop before the report begins, in nanoseconds. They need microseconds of their own.
const BEFORE_REPORT: u64 = 1_000_000_000;

/// How long to wait for them, from the start, before those that have not stopped are called stuck, in nanoseconds. The machine ends
/// anyway, so there is no hurry: on an oversubscribed host a virtual core may not run for seconds.
const BEFORE_POSITIONS: u64 = 30_000_000_000;

/// How long after an NMI another is sent to a core that has not stopped, in nanoseconds.
const ONCE_MORE: u64 = 1_000_000_000;

/// Where a core was when it stopped: told by the core itself, read by the one that reports.
pub(crate) struct Position {
    told: AtomicBool,
    from: UnsafeCell<MaybeUninit<Cursor>>,
}

// SAFETY: only the core that a position belongs to writes to it, before `told` is set, and never after (see `halt_at`); others
// read it after that.
unsafe impl Sync for Position {}

impl Position {
    /// Of a core that has not stopped.
    pub(crate) const fn new() -> Self {
        Self {
            told: AtomicBool::new(false),
            from: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    fn get(&self) -> Option<&Cursor> {
        self.told.load(Ordering::Acquire).then(|| {
            // SAFETY: told, so written, and not written any more.
            unsafe { (*self.from.get()).assume_init_ref() }
        })
    }
}

/// Reports a Rust panic. Called by the binary's panic handler.
pub fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    interrupts::disable();
    let depth = local::current().faults.fetch_add(1, Ordering::Relaxed);
    match depth {
        0 => stop(&Message(info), Cursor::here()),
        1 => nested(format_args!("{}", Message(info))),
        _ => give_up(),
    }
}

/// What a Rust panic's report says.
struct Message<'a>(&'a core::panic::PanicInfo<'a>);

impl fmt::Display for Message<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.location() {
            Some(place) => write!(
                out,
                "panic at {}:{}:{}: {}",
                place.file(),
                place.line(),
                place.column(),
                self.0.message()
            ),
            None => write!(out, "panic: {}", self.0.message()),
        }
    }
}

/// Stops all cores, reports `what` with a backtrace `from` where it happened and the other cores' positions, and ends the machine.
/// The caller has counted itself in its core's `faults`.
pub(crate) fn stop(what: &dyn fmt::Display, from: Cursor) -> ! {
    interrupts::disable();
    let this = local::current();
    let mine = core::ptr::from_ref(this).cast_mut();
    if OWNER
        .compare_exchange(null_mut(), mine, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        // Another core is reporting. It shows this one's position, where one sees that it was panicking as well.
        halt_at(this, from);
    }
    let start = time::now();
    let mut asked = None;
    wait_for_others(start, BEFORE_REPORT, &mut asked);
    console::log::forced(format_args!(
        "\nKERNEL PANIC on core {} (APIC {}): {what}{}",
        this.index(),
        this.apic_id(),
        Backtrace { from, most: 24 },
    ));
    wait_for_others(start, BEFORE_POSITIONS, &mut asked);
    report_others();
    give_up()
}

/// Reports a fault in a line, on a core that was reporting one already, and ends the machine.
pub(crate) fn nested(what: fmt::Arguments<'_>) -> ! {
    if another_reports() {
        halt();
    }
    console::log::forced(format_args!("\nKERNEL PANIC, nested: {what}"));
    give_up()
}

/// Ends the machine with [`STATUS`]; leaves that to the core that reports, if that is another. Where there is no exit device, halts.
pub(crate) fn give_up() -> ! {
    if !another_reports() {
        console::exit(STATUS);
    }
    halt()
}

fn another_reports() -> bool {
    let owner: *const Local = OWNER.load(Ordering::Acquire);
    !owner.is_null() && !core::ptr::eq(owner, local::current())
}

fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// Tells that the calling core, whose data `this` is, was at `from`, and halts it.
fn halt_at(this: &Local, from: Cursor) -> ! {
    let position = &this.stopped;
    if !position.told.load(Ordering::Relaxed) {
        // SAFETY: this core alone writes here. If this is an NMI's handler that has interrupted this very write, that is never gone on
        // with, because this does not return; and as `told` is not set, nobody reads.
        unsafe { (*position.from.get()).write(from) };
        position.told.store(true, Ordering::Release);
    }
    halt()
}

/// All cores but this.
fn others() -> impl Iterator<Item = &'static Local> + Clone {
    let this = local::current();
    let all = local::all().iter().copied();
    all.filter(move |local| !core::ptr::eq(*local, this))
}

/// Sends every other core an NMI, and another now and then to those that go on, and waits until they have stopped, or until `limit`
/// nanoseconds have passed since `start`. `asked` is when the last NMIs were sent.
fn wait_for_others(start: u64, limit: u64, asked: &mut Option<u64>) {
    let this = local::current();
    let running = || others().filter(|other| other.stopped.get().is_none());
    while running().next().is_some() {
        let now = time::now();
        if now.saturating_sub(start) >= limit {
            return;
        }
        if asked.is_none_or(|last| now.saturating_sub(last) >= ONCE_MORE) {
            *asked = Some(now);
            for other in running() {
                this.try_with_apic(|apic| {
                    // SAFETY: a core that is online has a handler for NMIs, on a stack of its own.
                    unsafe { apic.send_nmi(other.apic_id()) }
                });
            }
        }
        core::hint::spin_loop();
    }
}

/// Says where each of the other cores was: those at one place together, with the way to it.
fn report_others() {
    for other in others() {
        let Some(&from) = other.stopped.get() else {
            console::log::forced(format_args!("core {} did not stop", other.index()));
            continue;
        };
        let is_here = |core: &&Local| {
            let there = core.stopped.get();
            there.is_some_and(|there| there.address() == from.address())
        };
        let mut here = others().filter(is_here);
        if here
            .next()
            .is_some_and(|first| first.index() < other.index())
        {
            continue;
        }
        let here = Together(others().filter(is_here).map(Local::index));
        console::log::forced(format_args!("{here}:{}", Backtrace { from, most: 8 }));
    }
}

/// Numbers in ascending order, with neighbours joined: `cores 1-3, 7`.
struct Together<I>(I);

impl<I: Iterator<Item = usize> + Clone> fmt::Display for Together<I> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.0.clone().peekable();
        let mut lead = "core ";
        let mut many = self.0.clone().skip(1);
        if many.next().is_some() {
            lead = "cores ";
        }
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(out, "{lead}{first}")?;
            if last > first {
                write!(out, "-{last}")?;
            }
            lead = ", ";
        }
        Ok(())
    }
}

/// A non-maskable interrupt: stops this core when another is reporting, else is reported itself. Returns on the core that reports.
pub(crate) fn nmi(frame: &Frame) {
    if another_reports() {
        halt_at(local::current(), Cursor::interrupted(frame));
    }
    if OWNER.load(Ordering::Acquire).is_null() {
        // The chipset reports memory and bus errors this way.
        faults::report(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn joins_neighbours() {
        let text = |numbers: &[usize]| Together(numbers.iter().copied()).to_string();
        assert_eq!(text(&[4]), "core 4");
        assert_eq!(text(&[1, 2, 3, 7]), "cores 1-3, 7");
        assert_eq!(text(&[0, 2]), "cores 0, 2");
    }
}
