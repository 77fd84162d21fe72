//! Memory: the kernel's address space, its frames, its heap, and the region that the Vua heap lives in.
//!
//! | addresses | what | pages | access |
//! | --- | --- | --- | --- |
//! | `0` to `0xffff` | never mapped | | |
//! | [`VUA`] (64 GiB) to 112 TiB | Vua heap memory | 2 MiB, 4 KiB | read, write |
//! | [`DIRECT`] + physical address | direct map of memory (not of the kernel's image) | 1 GiB to 4 KiB | read, write |
//! | [`HEAP`] | kernel heap, grows upwards | 2 MiB, 4 KiB | read, write |
//! | [`STACKS`] | stacks, an unmapped guard below each | 4 KiB | read, write |
//! | [`DEVICES`] | device registers, tables outside the direct map, framebuffer | | read, write; uncached or write-combining |
//! | `0xffffffff80000000` | the kernel's image | 4 KiB | text: read, execute; constants: read; data: read, write |
//!
//! Everything above the lower half is mapped global and, stacks of dead cores included, never unmapped.

pub mod direct;
pub mod frames;
pub mod functions;
pub mod heap;
pub mod image;
pub mod map;
pub mod paging;
pub mod ranges;
pub mod space;
pub mod stacks;
pub mod vua;

/// Bytes in a page, and in a frame.
pub const PAGE: u64 = 4096;

/// Where the Vua heap's region begins.
pub const VUA: u64 = 0x0000_0010_0000_0000;
/// Where it ends.
pub const VUA_END: u64 = 0x0000_7000_0000_0000;
/// The direct map's start: physical address 0.
pub const DIRECT: u64 = 0xffff_8000_0000_0000;
/// The kernel heap's start; also the limit of the direct map, 64 TiB.
pub const HEAP: u64 = 0xffff_c000_0000_0000;
/// Where the stacks are.
pub const STACKS: u64 = 0xffff_d000_0000_0000;
/// Where devices are mapped.
pub const DEVICES: u64 = 0xffff_e000_0000_0000;
