//! The I/O APIC, which turns device lines into interrupts of a core (Intel 82093AA data sheet).

use core::ptr::NonNull;
use x2apic::ioapic::{IrqFlags, IrqMode, RedirectionTableEntry};

/// How a line signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Level-triggered, else by edges.
    pub level: bool,
    /// Active low, else high.
    pub active_low: bool,
}

impl Line {
    /// As ISA devices signal.
    pub const ISA: Self = Self {
        level: false,
        active_low: false,
    };
}

/// One I/O APIC, which serves the global system interrupts from its base on.
#[derive(Debug)]
pub struct IoApic {
    device: x2apic::ioapic::IoApic,
    base: u32,
    lines: u32,
}

impl IoApic {
    /// Takes over the I/O APIC whose first line is global system interrupt `base`, and masks all its lines.
    ///
    /// # Safety
    /// `registers` is its page, mapped uncached for as long as the value lives and used by nobody else.
    pub unsafe fn new(registers: NonNull<u8>, base: u32) -> Self {
        // SAFETY: the caller's promise; masking lines is harmless.
        unsafe {
            let mut device = x2apic::ioapic::IoApic::new(registers.as_ptr().addr() as u64);
            let last = device.max_table_entry();
            for line in 0..=last {
                device.disable_irq(line);
            }
            Self {
                device,
                base,
                lines: u32::from(last) + 1,
            }
        }
    }

    /// Whether global system interrupt `gsi` is one of this chip's lines.
    pub fn serves(&self, gsi: u32) -> bool {
        gsi >= self.base && gsi - self.base < self.lines
    }

    /// Sends global system interrupt `gsi` as `vector` to the core with APIC identifier `apic` (at most 255: the chip
    /// has eight bits for it), and unmasks it.
    ///
    /// # Panics
    /// When the line is not this chip's.
    ///
    /// # Safety
    /// That core has a handler for `vector`.
    pub unsafe fn route(&mut self, gsi: u32, line: Line, vector: u8, apic: u8) {
        assert!(
            self.serves(gsi),
            "global system interrupt {gsi} is another chip's"
        );
        let mut entry = RedirectionTableEntry::default();
        entry.set_mode(IrqMode::Fixed);
        entry.set_vector(vector);
        entry.set_dest(apic);
        let mut flags = IrqFlags::empty();
        flags.set(IrqFlags::LEVEL_TRIGGERED, line.level);
        flags.set(IrqFlags::LOW_ACTIVE, line.active_low);
        entry.set_flags(flags);
        // The entry is written low word first, so the line is masked until the destination is in place.
        // SAFETY: the caller's promise.
        unsafe {
            let index = (gsi - self.base) as u8;
            self.device.disable_irq(index);
            self.device.set_table_entry(index, entry);
            self.device.enable_irq(index);
        }
    }
}
