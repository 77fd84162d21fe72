//! The end of a machine that cannot go on: one core reports why, all others stop, and QEMU exits with status 101.
//!
//! This path takes no locks and allocates nothing. The first core to get here owns it; it stops the others by NMI and waits a
//! bounded time for them, so that the report is not mixed with their output. A fault within it is reported in a line, and
//! one within that only ends the machine: it can neither recur nor hang.

use crate::{
    console,
    cpu::{interrupts::Frame, local},
    memory::{image, stacks},
    time,
};
use core::{
    fmt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
use x86_64::instructions::{hlt, interrupts};

/// The exit status of a panic.
pub const STATUS: u8 = 101;

static OWNED: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicUsize = AtomicUsize::new(0);

/// How long to wait for the other cores to stop: on an oversubscribed host a virtual core may not run for a while.
const PATIENCE_NANOSECONDS: u64 = 500_000_000;

/// The words of a stack that look like return addresses into the kernel, from the innermost on. Without frame pointers or
/// unwind tables that is what there is; some may be left over from calls that have returned.
pub(crate) struct Callers {
    /// The stack pointer.
    pub(crate) stack: u64,
}

impl Callers {
    /// Most return addresses that are shown.
    const SHOWN: usize = 16;
}

impl fmt::Display for Callers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only a stack that is mapped is read: a report must not fault.
        let Some(used) = stacks::used(self.stack) else {
            return Ok(());
        };
        let text = image::text();
        let words = (used.start.next_multiple_of(8)..used.end).step_by(8);
        // SAFETY: mapped for good, and aligned.
        let words = words.map(|address| unsafe { (address as *const u64).read_volatile() });
        let callers = words.filter(|word| text.contains(word)).take(Self::SHOWN);
        for (shown, word) in callers.enumerate() {
            out.write_str(if shown % 4 == 0 {
                "\n  called from"
            } else {
                ""
            })?;
            write!(out, " {word:016x}")?;
        }
        Ok(())
    }
}

/// Reports a Rust panic. Called by the binary's panic handler.
pub fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    interrupts::disable();
    let depth = local::current().faults.fetch_add(1, Ordering::Relaxed);
    match depth {
        0 => stop(&Message(info)),
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
            )?,
            None => write!(out, "panic: {}", self.0.message())?,
        }
        let stack: u64;
        // SAFETY: reads the stack pointer.
        unsafe {
            core::arch::asm!("mov {}, rsp", out(reg) stack, options(nostack, nomem, preserves_flags))
        };
        Callers { stack }.fmt(out)
    }
}

/// Stops all cores, reports `what` and ends the machine. The caller has counted itself in its core's `faults`.
pub(crate) fn stop(what: &dyn fmt::Display) -> ! {
    interrupts::disable();
    if OWNED.swap(true, Ordering::AcqRel) {
        // Another core is reporting; its NMI would stop this one in any case.
        halt();
    }
    let stopped = stop_others();
    let this = local::current();
    console::log::forced(format_args!(
        "\nKERNEL PANIC on core {} (APIC {}): {what}",
        this.index(),
        this.apic_id()
    ));
    match stopped {
        Ok(0) => {}
        Ok(count) => console::log::forced(format_args!("{count} other cores stopped")),
        Err((count, wanted)) => {
            console::log::forced(format_args!("{count} of {wanted} other cores stopped"))
        }
    }
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

/// Sends every other core an NMI and waits until they have stopped, or too long. How many did, of how many if not all.
fn stop_others() -> Result<usize, (usize, usize)> {
    let this = local::current();
    let others = local::all()
        .iter()
        .filter(|local| !core::ptr::eq(**local, this) && local.online());
    let mut wanted = 0;
    for other in others {
        let sent = this.try_with_apic(|apic| {
            // SAFETY: a core that is online has a handler for NMIs, on a stack of its own.
            unsafe { apic.send_nmi(other.apic_id()) }
        });
        wanted += usize::from(sent.is_some());
    }
    let start = time::now();
    loop {
        let count = STOPPED.load(Ordering::Acquire);
        if count >= wanted {
            return Ok(count);
        }
        if time::now().saturating_sub(start) > PATIENCE_NANOSECONDS {
            return Err((count, wanted));
        }
        core::hint::spin_loop();
    }
}

/// A non-maskable interrupt: stops this core when another is reporting, else is reported itself.
pub(crate) fn nmi(frame: &Frame) {
    if OWNED.load(Ordering::Acquire) {
        STOPPED.fetch_add(1, Ordering::AcqRel);
        halt();
    }
    local::current().faults.fetch_add(1, Ordering::Relaxed);
    // The chipset reports memory and bus errors this way.
    stop(&format_args!("non-maskable interrupt at {:#x}", frame.rip))
}
