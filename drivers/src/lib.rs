//! Drivers for the hardware that Viridis uses, on PCs and under QEMU.
//!
//! A driver here knows one device and nothing of the kernel: it is told where the registers are (a port, or the virtual
//! address of a mapping that the caller made) and offers operations on them. It allocates nothing, takes no locks, keeps no
//! global state and never waits without a bound, so it can be used from the first instruction of the kernel to its panic
//! path. Who may use a device at once, and whether interrupts are off meanwhile, is the caller's business; each
//! type says what it needs.
//!
//! May use: `x86_64`, `x2apic`, `raw-cpuid`.
//!
//! Invariants that hold everywhere in this crate:
//! - a constructor is `unsafe` when the caller vouches for an address; after that, methods are safe unless they can break
//!   memory safety (an interrupt sent to a core that is not ready for it, say);
//! - every wait for hardware ends, with a result that says when the hardware did not answer.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod apic;
pub mod exit;
pub mod framebuffer;
pub mod hpet;
pub mod keyboard;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod random;
pub mod rtc;
pub mod serial;
pub mod tsc;
pub mod virtio;
