//! The kernel of Viridis: it brings a PC with any number of cores to the point where each runs the engine's loop, and is
//! the [`smp::platform::Platform`] that the engine runs on. See `README.md` for the boot sequence, the memory layout and the interrupt
//! stacks.
//!
//! This is a library so that what is pure logic is tested on the host; the binary beside it (`main.rs`) adds the entry
//! point, the panic handler, the allocator and the C memory functions.
//!
//! May use: `drivers`, `smp`, `vua`, and library crates.
//!
//! Invariants that hold everywhere:
//! - no page is both writable and executable, and none below 64 KiB is mapped;
//! - every interrupt and exception arrives on a stack of its own (code from the prebuilt `core` uses the red zone, so nothing may
//!   be pushed onto the interrupted stack); device interrupts never nest;
//! - interrupt handlers take no locks but by `try_lock`, allocate nothing, and never wait;
//! - locks are taken in the order: address ranges, kernel heap, page tables, frames. Consoles' locks are last;
//! - no core ever waits for another, but at bring-up and in the panic path, both with a bound.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
pub mod console;
pub mod cpu;
pub mod files;
pub mod memory;
pub mod panic;
pub mod platform;
pub mod power;
pub mod run;
pub mod screen;
pub mod selftest;
mod sweep;
mod symbols;
pub mod time;
mod unwind;
