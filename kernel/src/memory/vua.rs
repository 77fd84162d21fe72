//! Memory for the Vua heap: zeroed, in the lower half, mapped and unmapped at run time by any core.
//!
//! No core waits for another: an address that was unmapped is quarantined (see [`ranges`](super::ranges)) until every
//! core has flushed its translation cache, which they are asked to do when enough has gathered.

use super::{
    VUA, VUA_END, heap,
    paging::{Access, Cache, LARGE, Properties},
    ranges::Ranges,
    space::{map_memory, memory_bytes, unmap_memory},
};
use crate::cpu;
use alloc::collections::BTreeMap;
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};
use spin::Mutex;

const PROPERTIES: Properties = Properties {
    access: Access::ReadWrite,
    cache: Cache::WriteBack,
    global: false,
};

struct Addresses {
    ranges: Ranges,
    /// The region has been given to `ranges`.
    ready: bool,
}

static ADDRESSES: Mutex<Addresses> = Mutex::new(Addresses {
    ranges: Ranges::new(),
    ready: false,
});

/// The current epoch: counts requests to flush. A core that loads it and then flushes has forgotten all that was unmapped
/// before that request.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// What is kept for the kernel's own heap, which the compiler works in, and for page tables when the Vua heap asks for memory.
fn kept(total: u64) -> u64 {
    (total / 16).clamp(1 << 20, 64 << 20)
}

/// Bytes that are about to be mapped.
static PENDING: AtomicU64 = AtomicU64::new(0);

/// Bytes set aside for the kernel's heap.
static RESERVED: AtomicU64 = AtomicU64::new(0);

/// Enters `bytes` into a claim; `false`, and nothing entered, unless `fits` says of the sum of both claims that there is so much.
///
/// The claim is entered before memory is looked at: of two at a time that do not both fit, neither overlooks the other.
fn claim(of: &AtomicU64, bytes: u64, fits: impl FnOnce(u64) -> bool) -> bool {
    let entered = of.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |claimed| {
        claimed.checked_add(bytes)
    });
    if entered.is_err() {
        return false;
    }
    let sum = PENDING
        .load(Ordering::SeqCst)
        .saturating_add(RESERVED.load(Ordering::SeqCst));
    let fits = fits(sum);
    if !fits {
        of.fetch_sub(bytes, Ordering::SeqCst);
    }
    fits
}

/// See [`smp::platform::Platform::reserve`]. What the kernel's heap takes of free memory while the claim lasts counts twice, so this errs on
/// the safe side.
pub fn reserve(bytes: usize) -> bool {
    claim(&RESERVED, bytes as u64, |sum| {
        usize::try_from(sum).is_ok_and(heap::has_room)
    })
}

/// See [`smp::platform::Platform::unreserve`].
pub fn unreserve(bytes: usize) {
    RESERVED.fetch_sub(bytes as u64, Ordering::SeqCst);
}

/// How many bytes of addresses may gather in quarantine before the cores are asked to flush: large enough that flushing costs
/// nothing, small enough that the page tables of unused addresses stay small beside memory.
fn patience(total: u64) -> u64 {
    (total / 2).max(32 << 20)
}

/// Maps `bytes` bytes of zeroed memory aligned to `align`; see [`smp::platform::Platform::map`].
pub fn map(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let (bytes, align) = (bytes as u64, align as u64);
    debug_assert!(bytes % (64 << 10) == 0 && align.is_power_of_two() && align >= 64 << 10);
    let fits = |sum| {
        let (free, total) = memory_bytes();
        free.saturating_sub(kept(total)) >= sum
    };
    if bytes == 0 || !claim(&PENDING, bytes, fits) {
        return None;
    }
    let mapped = map_claimed(bytes, align);
    PENDING.fetch_sub(bytes, Ordering::SeqCst);
    if let Some(start) = mapped
        && TRACKING.load(Ordering::Relaxed)
    {
        TRACKED.lock().insert(start.as_ptr().addr(), bytes as usize);
    }
    mapped
}

/// What was mapped is noted in `TRACKED`.
static TRACKING: AtomicBool = AtomicBool::new(false);
/// Bytes of each mapping, by its address.
static TRACKED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// Keeps track of what is mapped from now on, or no more.
pub(crate) fn keep_track(on: bool) {
    TRACKING.store(on, Ordering::Relaxed);
}

/// Gives back all that was mapped since [`keep_track`] and has not been given back; how many bytes that was.
///
/// # Safety
/// Nothing uses any of it any more.
pub(crate) unsafe fn unmap_tracked() -> usize {
    let tracked = core::mem::take(&mut *TRACKED.lock());
    for (&start, &bytes) in &tracked {
        if let Some(start) = NonNull::new(start as *mut u8) {
            // SAFETY: mapped, not given back, and not used any more, as the caller promises.
            unsafe { unmap(start, bytes) };
        }
    }
    tracked.values().sum()
}

fn map_claimed(bytes: u64, align: u64) -> Option<NonNull<u8>> {
    // Ranges that can hold a large page are laid out so that they do.
    let align = if bytes >= LARGE {
        align.max(LARGE)
    } else {
        align
    };
    let start = {
        let mut addresses = ADDRESSES.lock();
        if !addresses.ready {
            addresses.ready = true;
            addresses.ranges.insert(VUA, VUA_END - VUA);
        }
        if let Some(flushed) = cpu::lowest_flushed() {
            addresses.ranges.release(flushed);
        }
        addresses.ranges.take(bytes, align)?
    };
    // SAFETY: the addresses are ours now.
    if unsafe { map_memory(start, bytes, PROPERTIES, true, LARGE) }.is_err() {
        // They were mapped for a moment, so a core may have cached them.
        retire(start, bytes);
        return None;
    }
    NonNull::new(start as *mut u8)
}

/// Gives memory back.
///
/// # Safety
/// As for [`smp::platform::Platform::unmap`].
pub unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    let start = start.as_ptr().addr() as u64;
    if TRACKING.load(Ordering::Relaxed) {
        TRACKED.lock().remove(&(start as usize));
    }
    // SAFETY: the caller's promise; the addresses go into quarantine.
    unsafe { unmap_memory(start, bytes as u64) };
    retire(start, bytes as u64);
}

fn retire(start: u64, bytes: u64) {
    let mut addresses = ADDRESSES.lock();
    // What is unmapped now is forgotten by whoever flushes after the next request. The entries were cleared before this
    // lock was taken, and requests are made under it.
    let epoch = EPOCH.load(Ordering::Relaxed);
    addresses.ranges.retire(start, bytes, epoch + 1);
    // One request at a time: while a core has not flushed for the last one, another would not help.
    if addresses.ranges.quarantined() > patience(memory_bytes().1)
        && cpu::lowest_flushed() == Some(epoch)
    {
        EPOCH.store(epoch + 1, Ordering::Release);
        drop(addresses);
        cpu::request_flush();
    }
}

/// Flushes this core's translations of the lower half; returns the epoch that this was in.
pub(crate) fn flush() -> u64 {
    let epoch = EPOCH.load(Ordering::Acquire);
    // Kernel mappings are global and stay.
    x86_64::instructions::tlb::flush_all();
    epoch
}

/// How often the cores have been asked to flush.
pub fn flushes() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}
