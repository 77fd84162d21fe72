//! Cores: their data, descriptor tables, interrupts and faults, parking and waking, timers, and bring-up.

pub mod descriptors;
pub mod faults;
pub mod features;
pub mod interrupts;
pub mod local;
pub mod park;
pub mod startup;
pub mod timer;
pub mod watchdog;

use crate::memory;
use core::sync::atomic::Ordering;
use local::Local;

/// Interrupt vectors. The 8259 controllers' sixteen lie below, masked.
pub mod vector {
    /// Where the masked 8259 controllers' spurious interrupts would arrive.
    pub const LEGACY: u8 = 0x20;
    /// The first serial port.
    pub const COM1: u8 = 0x40;
    /// The second serial port.
    pub const COM2: u8 = 0x41;
    /// A virtio console has received something; also sent to core 0 by whoever made room for held-back input.
    pub const CONSOLE: u8 = 0x42;
    /// The keyboard controller.
    pub const KEYBOARD: u8 = 0x43;
    /// The local timer; also sent by a core that sets another's heartbeat.
    pub const TIMER: u8 = 0xe0;
    /// Ends a halt: the core looks at its token.
    pub const WAKE: u8 = 0xe1;
    /// Asks for a flush of the translation cache.
    pub const FLUSH: u8 = 0xe2;
    /// Asks whether the core still takes interrupts.
    pub const WATCH: u8 = 0xe3;
    /// Local APIC errors.
    pub const ERROR: u8 = 0xfe;
    /// Spurious interrupts.
    pub const SPURIOUS: u8 = 0xff;
}

/// The highest epoch that every core has flushed its translations in; `None` before the cores are counted.
pub(crate) fn lowest_flushed() -> Option<u64> {
    local::all()
        .iter()
        .map(|local| local.flushed.load(Ordering::Acquire))
        .min()
}

/// Flushes this core and asks all others to. Waits for none.
pub(crate) fn request_flush() {
    x86_64::instructions::interrupts::without_interrupts(|| {
        let this = local::current();
        flush(this);
        if local::all().len() > 1 {
            // SAFETY: every core that takes interrupts has the handler.
            this.with_apic(|apic| unsafe { apic.send_ipi_to_others(vector::FLUSH) });
        }
    });
}

pub(crate) fn flush(this: &Local) {
    let epoch = memory::vua::flush();
    this.flushed.store(epoch, Ordering::Release);
}
