//! The direct loader: from the PVH entry that QEMU's `-kernel` uses to a kernel that speaks the Limine boot protocol.
//!
//! This binary owns the machine until the kernel does. It runs at its address in the higher-half direct map, on tables
//! that `start.s` made, with interrupts off, and uses one core until it starts the others. Everything that only computes
//! is in the library; here are the hardware, the memory and the order of events, which `boot.rs` tells.
//!
//! Invariants:
//! - memory is taken from the memory map before it is written;
//! - nothing returns: the kernel is entered, or a message goes to COM2 and the machine stops with status 101.

#![no_std]
#![no_main]

mod boot;
mod cores;
mod display;
mod exceptions;
mod log;
mod machine;
mod memory;
mod mtrr;
mod pvh;
mod responses;
mod runtime;

core::arch::global_asm!(include_str!("start.s"));
core::arch::global_asm!(include_str!("trampoline.s"), options(att_syntax));

/// Entered from `start.s` once, on the boot processor, in 64-bit mode on the boot stack.
///
/// `start_info`: the physical address of PVH's start information. `tsc`: the time-stamp counter at the first instruction.
#[unsafe(no_mangle)]
extern "sysv64" fn loader_main(start_info: u64, tsc: u64) -> ! {
    log::initialize();
    exceptions::initialize();
    match boot::boot(start_info, tsc) {
        Ok(never) => match never {},
        Err(error) => machine::stop(format_args!("{error}")),
    }
}
