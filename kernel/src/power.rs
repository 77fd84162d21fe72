//! How the machine ends: with a status through the exit device where there is one, else switched off as the ACPI tables say, or
//! started anew if the command line asks for that.

use crate::{console, info, screen, time};
use drivers::acpi::{self, Power};
use spin::Once;
use x86_64::instructions::{hlt, interrupts};

/// What the ACPI tables say.
static POWER: Once<Power> = Once::new();

/// What to do at the end instead of using the exit device (`end=WORD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Switch off.
    Off,
    /// Start anew.
    Reset,
    /// Stay, halted.
    Halt,
}

/// Notes how the machine can be switched off and reset.
pub(crate) fn set(power: Power) {
    POWER.call_once(|| power);
}

/// Ends the machine: as `wanted`, or else with `status` through the exit device, or switched off where there is none. What cannot
/// be done leaves it halted.
pub(crate) fn end(wanted: Option<End>, status: u8) -> ! {
    if wanted.is_none() {
        console::exit(status);
    }
    screen::finish();
    match wanted {
        None | Some(End::Off) => {
            info!("switching off");
            console::drain();
            if let Some(power) = POWER.get() {
                power.off();
            }
        }
        Some(End::Reset) => {
            info!("starting anew");
            console::drain();
            if let Some(power) = POWER.get() {
                power.reset();
            }
            acpi::reset_by_keyboard_controller();
        }
        Some(End::Halt) => {}
    }
    // The machine goes on for a moment, under an emulator on a busy host for seconds, and that is no failure.
    let asked = time::now();
    while wanted != Some(End::Halt) && time::now() - asked < 30_000_000_000 {
        core::hint::spin_loop();
    }
    info!("halted: it is safe to switch off");
    screen::finish();
    stay()
}

/// Halts the calling core for good. NMIs, of a panic elsewhere, are still taken.
pub(crate) fn stay() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}
