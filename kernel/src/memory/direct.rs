//! The direct map: where physical memory is reachable. The loader's at first, then the kernel's own.

use core::sync::atomic::{AtomicU64, Ordering};

static OFFSET: AtomicU64 = AtomicU64::new(0);

/// What to add to a physical address to reach it.
pub fn offset() -> u64 {
    OFFSET.load(Ordering::Relaxed)
}

/// Changes the offset. Called before the first use, and once more when the kernel switches to its own page tables.
pub(crate) fn set_offset(offset: u64) {
    OFFSET.store(offset, Ordering::Relaxed);
}

/// Where physical address `address` is reachable, if the direct map covers it.
pub fn reach<T>(address: u64) -> *mut T {
    address.wrapping_add(offset()) as *mut T
}
