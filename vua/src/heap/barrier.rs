//! What the collector asks of a store: that it may see an object before the object's first change since it last looked.

use core::ptr::NonNull;

use super::{Header, LocalHeap, flags};

/// To be called before a store into `object` whose header byte has [`flags::LOG`]: notes the object in the core's log
/// and clears the bit, so that the next store is fast again. Of several cores that come at once, one notes it.
///
/// Allocates from the Rust allocator at times; when that fails the collector is told to look at everything again.
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
