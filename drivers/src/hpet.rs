//! The high precision event timer's main counter, as a reference to calibrate faster clocks by.
//!
//! Follows the IA-PC HPET specification 1.0a, section 2.3.

use core::ptr::NonNull;

/// The registers of one timer block.
#[derive(Debug)]
pub struct Hpet {
    registers: NonNull<u64>,
    /// Length of one tick in femtoseconds.
    period: u64,
    wide: bool,
}

// Offsets in bytes.
const CAPABILITIES: usize = 0x000;
const CONFIGURATION: usize = 0x010;
const COUNTER: usize = 0x0f0;

impl Hpet {
    /// Takes over the block at `registers` and lets its main counter run. `None` when the capability register is not
    /// one that the specification allows (a period of 0 or more than 100 ns), as where there is no such timer.
    ///
    /// # Safety
    /// `registers` is a block's 1 KiB of registers, mapped uncached for as long as the value lives, used by nobody else.
    pub unsafe fn new(registers: NonNull<u8>) -> Option<Self> {
        let registers = registers.cast::<u64>();
        // SAFETY: the caller's promise about `registers`.
        let capabilities = unsafe { registers.byte_add(CAPABILITIES).read_volatile() };
        let period = capabilities >> 32;
        if period == 0 || period > 0x05f5_e100 {
            return None;
        }
        let hpet = Self {
            registers,
            period,
            wide: capabilities & (1 << 13) != 0,
        };
        // SAFETY: as above; bit 0 lets the main counter run and touches no timer's interrupt.
        unsafe {
            let configuration = registers.byte_add(CONFIGURATION);
            configuration.write_volatile(configuration.read_volatile() | 1);
        }
        Some(hpet)
    }

    /// Length of one tick, in femtoseconds.
    pub fn period_femtoseconds(&self) -> u64 {
        self.period
    }

    /// The main counter.
    pub fn counter(&self) -> u64 {
        // SAFETY: `new`'s caller vouches for the registers. A 32-bit counter reads as zero above.
        unsafe { self.registers.byte_add(COUNTER).read_volatile() }
    }

    /// Ticks from `start` to `end`, two readings of [`counter`](Self::counter) less than one wrap of a 32-bit counter
    /// (about 5 minutes at 14 MHz) apart.
    pub fn ticks_between(&self, start: u64, end: u64) -> u64 {
        let ticks = end.wrapping_sub(start);
        if self.wide {
            ticks
        } else {
            ticks & 0xffff_ffff
        }
    }
}
