//! The end of a machine that cannot go on: one core reports why, all others stop, and QEMU exits with status 101.
//!
//! This path takes no locks and allocates nothing. The first core to get here owns it; it stops the others by NMI and waits a
//! bounded time for them, so that the report is not mixed with their output. A fault within it is reported in a line, and
//! one within that only ends the machine: it can neither recur nor hang.

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
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};
use x86_64::instructions::{hlt, interrupts};

/// The exit status of a panic.
pub const STATUS: u8 = 101;

static OWNED: AtomicBool = AtomicBool::new(false);

/// How long to wait for the other cores to stop: on an oversubscribed host a virtual core may not run for a while.
const PATIENCE_NANOSECONDS: u64 = 500_000_000;

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
    if OWNED.swap(true, Ordering::AcqRel) {
        // Another core is reporting. It shows this one's position, where one sees that it was panicking as well.
        this.stopped.call_once(|| from);
        halt();
    }
    stop_others();
    console::log::forced(format_args!(
        "\nKERNEL PANIC on core {} (APIC {}): {what}{}",
        this.index(),
        this.apic_id(),
        Backtrace { from, most: 24 },
    ));
    report_others();
    give_up()
}

/// Reports a fault in a line, on a core that was reporting one already, and ends the machine.
pub(crate) fn nested(what: fmt::Arguments<'_>) -> ! {
    console::log::forced(format_args!("\nKERNEL PANIC, nested: {what}"));
    give_up()
}

/// Ends the machine with [`STATUS`]. Where there is no exit device, halts.
pub(crate) fn give_up() -> ! {
    console::exit(STATUS);
    halt()
}

fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// All cores but this.
fn others() -> impl Iterator<Item = &'static Local> + Clone {
    let this = local::current();
    let all = local::all().iter().copied();
    all.filter(move |local| !core::ptr::eq(*local, this))
}

/// Sends every other core an NMI and waits until they have stopped, or too long.
fn stop_others() {
    let this = local::current();
    for other in others() {
        this.try_with_apic(|apic| {
            // SAFETY: a core that is online has a handler for NMIs, on a stack of its own.
            unsafe { apic.send_nmi(other.apic_id()) }
        });
    }
    let start = time::now();
    while !others().all(|other| other.stopped.is_completed())
        && time::now().saturating_sub(start) < PATIENCE_NANOSECONDS
    {
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

/// A non-maskable interrupt: stops this core when another is reporting, else is reported itself.
pub(crate) fn nmi(frame: &Frame) {
    let this = local::current();
    if OWNED.load(Ordering::Acquire) {
        this.stopped.call_once(|| Cursor::interrupted(frame));
        halt();
    }
    // The chipset reports memory and bus errors this way.
    faults::report(frame)
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
