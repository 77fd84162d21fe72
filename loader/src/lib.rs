//! The parts of the direct loader that are plain computation: reading what the machine and the kernel say, and
//! deciding what to do about it. The binary (`main.rs`) owns the hardware and the memory.
//!
//! The loader takes a machine that QEMU started with `-kernel loader -initrd archive` and enters the kernel in that
//! archive as the Limine boot protocol prescribes. See `README.md` for the sequence.
//!
//! May use: `elf`, `tar-no-std`, `x86_64`. No allocator: every structure has a fixed capacity, or is laid out in memory
//! that the binary took from the machine's memory map.
//!
//! Invariants that hold in every module here:
//! - nothing is trusted: a length, address or checksum that comes from a file, firmware or the command line is checked
//!   before it is used, and what is wrong becomes an error that says what was wrong;
//! - no hardware is touched, so that all of it is tested on the host; only `protocol` says what lies in memory.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod archive;
pub mod calendar;
pub mod command_line;
pub mod executable;
pub mod memory_map;
pub mod paging;
pub mod protocol;
pub mod requests;

/// Bytes in a page, the unit in which memory is given out and mapped.
pub const PAGE: u64 = 4096;

/// Rounds `value` down to a multiple of `unit`, a power of two.
pub const fn align_down(value: u64, unit: u64) -> u64 {
    value & !(unit - 1)
}

/// Rounds `value` up to a multiple of `unit`, a power of two; `None` where that does not fit into 64 bits.
pub const fn align_up(value: u64, unit: u64) -> Option<u64> {
    match value.checked_add(unit - 1) {
        Some(sum) => Some(align_down(sum, unit)),
        None => None,
    }
}
