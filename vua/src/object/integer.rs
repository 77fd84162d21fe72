//! Integers that do not fit the 48 bits of a value.

use core::ptr::NonNull;

use super::Object;
use crate::heap::{Header, Kind};
use crate::value::Tag;

/// An integer that does not fit a value. Never changes. Made by [`crate::heap::LocalHeap::integer`].
#[repr(C)]
pub struct BoxedInteger {
    header: Header,
    integer: i64,
}

const _: () = assert!(size_of::<BoxedInteger>() == 16);

// SAFETY: laid out as the trait demands; the tag is its alone.
unsafe impl Object for BoxedInteger {
    const TAG: Tag = Tag::BoxedInteger;
    const KINDS: &'static [Kind] = &[Kind::BoxedInteger];
}

impl BoxedInteger {
    /// The integer in the box.
    ///
    /// # Safety
    /// `object` is a live boxed integer.
    #[inline(always)]
    pub unsafe fn get(object: *mut Header) -> i64 {
        // SAFETY: it lives, says the caller, and never changes.
        unsafe { (*object.cast::<BoxedInteger>()).integer }
    }

    /// Fills a new box.
    ///
    /// # Safety
    /// `object` is a boxed integer under construction, known to nobody else.
    pub(crate) unsafe fn set(object: NonNull<Header>, integer: i64) {
        // SAFETY: it is ours alone, says the caller.
        unsafe { (*object.as_ptr().cast::<BoxedInteger>()).integer = integer }
    }
}
