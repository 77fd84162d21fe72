//! What the collector asks of a store of a reference: that it hear of an old object before the first store into it since it last looked.
//!
//! Why that is enough, and which objects have [`flags::LOG`], says [`collect::young`](super::collect). Between the look at the header and the store lies no safepoint:
//! a collection in between sets the bit again. Whoever publishes what he stores, or makes room for it, which may pause, does so before he looks.

use core::ptr::NonNull;

use super::{Header, LocalHeap, flags};

/// To be called before a store into `object` whose header byte has [`flags::LOG`]: notes the object in the core's log
/// and clears the bit, so that the next store is fast again. Of several cores that come at once, one notes it.
///
/// Allocates from the Rust allocator at times; when that fails the next collection is a full one.
///
/// # Safety
/// `object` is a live object of the heap.
#[cold]
pub unsafe fn before_store(object: NonNull<Header>, local: &LocalHeap) {
    // SAFETY: the object lives, says the caller; flags are atomic.
    let before = unsafe { (*object.as_ptr()).clear_flags(flags::LOG) };
    if before & flags::LOG != 0 {
        local.log(object);
    }
}

/// As [`before_store`], for any object.
///
/// # Safety
/// As for `before_store`.
#[inline(always)]
pub unsafe fn on_store(object: NonNull<Header>, local: &LocalHeap) {
    // SAFETY: as the caller says.
    unsafe {
        if (*object.as_ptr()).has(flags::LOG) {
            before_store(object, local);
        }
    }
}
