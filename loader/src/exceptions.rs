//! A table of exception handlers that say what happened and stop, so that a fault is a message and never a triple fault.
//!
//! The table lies in the direct map and stays loaded at the kernel's entry, where the protocol leaves the IDT undefined:
//! until the kernel loads its own, its faults are reported too.

use crate::machine;
use core::cell::UnsafeCell;
use x86_64::{
    VirtAddr, instructions::tables::lidt, registers::control::Cr2,
    structures::DescriptorTablePointer,
};

/// What `start.s` leaves on the stack: the vector it pushed, the error code, then the processor's own part.
#[repr(C)]
struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
}

/// The vector of the local APIC's timer, whose interrupt does nothing but end a HLT.
pub const TIMER: u8 = 32;

/// The 64-bit interrupt gates of the 32 exceptions and the timer (Intel SDM vol. 3, 6.14.1).
#[repr(C, align(16))]
struct Table(UnsafeCell<[[u64; 2]; GATES]>);

const GATES: usize = TIMER as usize + 1;

// SAFETY: written once by `initialize`, before another core runs; read only by processors after that.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; GATES]));

unsafe extern "C" {
    static exception_entries: u8;
    static timer_entry: u8;
}

/// Fills the table and loads it on this core, the boot processor.
pub fn initialize() {
    const CODE: u64 = 0x28;
    const INTERRUPT_GATE: u64 = 0x8e00;
    for vector in 0..GATES {
        let handler = match vector as u8 {
            TIMER => &raw const timer_entry as u64,
            _ => &raw const exception_entries as u64 + 16 * vector as u64,
        };
        let low =
            handler & 0xffff | CODE << 16 | INTERRUPT_GATE << 32 | (handler & 0xffff_0000) << 32;
        // SAFETY: nobody else uses the table yet.
        unsafe { (*TABLE.0.get())[vector] = [low, handler >> 32] };
    }
    load();
}

/// Loads the table on this core.
pub fn load() {
    let pointer = DescriptorTablePointer {
        limit: size_of::<Table>() as u16 - 1,
        base: VirtAddr::from_ptr(TABLE.0.get()),
    };
    // SAFETY: the table is static, filled, and its handlers can run on any stack.
    unsafe { lidt(&pointer) }
}

/// Called by `start.s` with the frame of an exception.
#[unsafe(no_mangle)]
extern "sysv64" fn report_exception(frame: &Frame) -> ! {
    let Frame {
        vector,
        error,
        rip,
        cs,
        rflags,
        rsp,
    } = frame;
    machine::stop(format_args!(
        "exception {vector} before the kernel's own IDT: error {error:#x} rip {rip:#x} cs {cs:#x} rflags {rflags:#x} \
         rsp {rsp:#x} cr2 {:#x}",
        Cr2::read_raw()
    ))
}
