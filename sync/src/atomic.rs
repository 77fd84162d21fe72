//! The atomics that this project's lock-free code is written with.
//!
//! A normal build gets `core::sync::atomic`; under `--cfg loom` the same names are loom's, whose scheduler tries every
//! interleaving and every value that the memory model lets a load return.
//!
//! Loom takes a sequentially consistent *access* for an acquiring and releasing one, but models sequentially
//! consistent *fences* in full. So the store-then-load protocols here ("I announce, then I look; you do the same; at
//! least one of us sees the other") are written with [`full_fence`] between the two, which is also what Lê et al. (PPoPP
//! 2013) do for the deque.

#[cfg(not(loom))]
pub use core::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(loom)]
pub use loom::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(not(loom))]
pub use core::hint::spin_loop;
#[cfg(loom)]
pub use loom::thread::yield_now as spin_loop;

/// A sequentially consistent fence: what was stored before it is visible to every core whose own fence comes later, and
/// loads after it are not answered from before it.
///
/// On x86-64 this is a locked read-modify-write of the top of the stack: `fence(SeqCst)` compiles to `mfence`, which
/// also waits for stores to write-combining memory and takes about twice as long (Intel, *Optimization Reference
/// Manual*, and the same choice in the Linux kernel's `smp_mb`). A locked instruction orders all accesses to ordinary
/// memory (Intel SDM volume 3, 11.2.3).
#[inline(always)]
pub fn full_fence() {
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    // SAFETY: adding nothing to the word at the stack pointer changes no memory; the compiler is told that memory is read
    // and written (no `nomem`), so that it moves no access across, and that the flags change.
    unsafe {
        core::arch::asm!("lock or dword ptr [rsp], 0", options(nostack))
    };
    #[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
    fence(Ordering::SeqCst);
}
