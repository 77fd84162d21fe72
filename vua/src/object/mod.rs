//! Objects of the heap: their layouts, and the handles through which Rust code uses them.
//!
//! A [`Gc`] is a thin pointer that may be copied freely. It says that the object lives; keeping that true is the business of
//! whoever holds it: reach the object from a frame or another root before the next safepoint, or drop the handle.
//! No Rust reference to the inside of an object is kept where Vua code could write: fields are atomics, loaded and stored whole.

mod cell;
mod children;
mod function;
mod integer;
mod proto;
mod string;

#[cfg(test)]
mod tests;

use core::fmt;
use core::ptr::NonNull;

pub use cell::Cell;
pub use children::trace;
pub(crate) use children::{children, walk};
pub use function::{Closure, NATIVE_PROTO, NativeFunction};
pub use integer::BoxedInteger;
pub use proto::{CaptureDescriptor, Debug, Loaded, Proto};
pub use string::Str;
pub(crate) use string::copy;

use crate::heap::{Header, Kind};
use crate::table::Table;
use crate::value::{Tag, Value};

/// A type of object of the heap.
///
/// # Safety
/// The type is `repr(C)`, begins with a [`Header`] and is what objects of `KINDS`, and values with `TAG`, point to.
pub unsafe trait Object {
    /// The tag of references to it.
    const TAG: Tag;
    /// The kinds that its headers may have.
    const KINDS: &'static [Kind];
}

/// A handle of a live object.
#[repr(transparent)]
pub struct Gc<T>(NonNull<T>);

impl<T> Clone for Gc<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Gc<T> {}

impl<T> PartialEq for Gc<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Gc<T> {}

impl<T> fmt::Debug for Gc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<T> Gc<T> {
    /// The handle of the object at `object`.
    ///
    /// # Safety
    /// It is a live, initialised object of type `T`, as long as the handle or a copy of it is used.
    #[inline(always)]
    pub const unsafe fn from_ptr(object: NonNull<T>) -> Gc<T> {
        Gc(object)
    }

    /// Its address, as a pointer that reaches the whole object.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }

    /// As [`as_ptr`](Self::as_ptr).
    #[inline(always)]
    pub const fn as_non_null(self) -> NonNull<T> {
        self.0
    }

    /// Its header's address.
    #[inline(always)]
    pub const fn header_ptr(self) -> NonNull<Header> {
        self.0.cast()
    }

    /// Its header. All fields that can change are atomic.
    #[inline(always)]
    pub fn header<'a>(self) -> &'a Header {
        // SAFETY: every object begins with a header and lives while its handle is used.
        unsafe { self.0.cast::<Header>().as_ref() }
    }
}

impl<T: Object> Gc<T> {
    /// The value that refers to it.
    #[inline(always)]
    pub fn value(self) -> Value {
        debug_assert!(T::KINDS.contains(&self.header().kind()));
        // SAFETY: the object lives, and `T` says which tag is its own.
        unsafe { Value::reference(T::TAG, self.header_ptr()) }
    }

    /// The object that a value refers to, if it is of this type: a compare of the tag, and for tags of several kinds one of the kind.
    #[inline(always)]
    pub fn from_value(value: Value) -> Option<Gc<T>> {
        if !value.has_tag(T::TAG) {
            return None;
        }
        let object = NonNull::new(value.address())?;
        // These tags stand for one kind each.
        let alone = matches!(T::TAG, Tag::String | Tag::Table | Tag::BoxedInteger);
        // SAFETY: a value's object lives.
        if alone || T::KINDS.contains(&unsafe { (*object.as_ptr()).kind() }) {
            Some(Gc(object.cast()))
        } else {
            None
        }
    }

    /// The object that a value refers to.
    ///
    /// # Safety
    /// The value refers to an object of this type.
    #[inline(always)]
    pub unsafe fn from_value_unchecked(value: Value) -> Gc<T> {
        debug_assert!(Self::from_value(value).is_some());
        // SAFETY: a reference's address is not null.
        Gc(unsafe { NonNull::new_unchecked(value.address()) }.cast())
    }
}

impl Value {
    /// The table that it is.
    #[inline(always)]
    pub fn as_table(self) -> Option<Gc<Table>> {
        Gc::from_value(self)
    }

    /// The string that it is.
    #[inline(always)]
    pub fn as_str(self) -> Option<Gc<Str>> {
        Gc::from_value(self)
    }

    /// The closure that it is; a native function is none.
    #[inline(always)]
    pub fn as_closure(self) -> Option<Gc<Closure>> {
        Gc::from_value(self)
    }

    /// The native function that it is.
    #[inline(always)]
    pub fn as_native(self) -> Option<Gc<NativeFunction>> {
        Gc::from_value(self)
    }

    /// The cell that it is, of a value or of a raw word.
    #[inline(always)]
    pub fn as_cell(self) -> Option<Gc<Cell>> {
        Gc::from_value(self)
    }

    /// The kind of the object that it refers to, if it is a reference.
    #[inline(always)]
    pub fn object_kind(self) -> Option<Kind> {
        // SAFETY: a value's object lives.
        self.object()
            .map(|object| unsafe { (*object.as_ptr()).kind() })
    }

    /// Whether two values are equal without metamethods, as `rawequal` says: numbers by value, strings by content, all else by identity.
    ///
    /// Comparing long strings of the same length and no known hashes takes time in their length.
    #[inline]
    pub fn raw_equal(self, other: Value) -> bool {
        if self == other {
            // NaN alone differs from itself.
            return self.as_float().is_none_or(|f| !f.is_nan());
        }
        if self.has_tag(Tag::Struct) {
            return crate::memory::object::same_struct(self, other);
        }
        if self.has_tag(Tag::String) {
            return match (self.as_str(), other.as_str()) {
                (Some(a), Some(b)) => a.content_equal(b),
                _ => false,
            };
        }
        if !self.is_number() || !other.is_number() {
            return false;
        }
        match (self.as_integer(), other.as_integer()) {
            (Some(a), Some(b)) => a == b,
            (Some(i), None) => other.as_float().is_some_and(|f| float_equals_integer(f, i)),
            (None, Some(i)) => self.as_float().is_some_and(|f| float_equals_integer(f, i)),
            (None, None) => self.as_float() == other.as_float(),
        }
    }
}

fn float_equals_integer(f: f64, i: i64) -> bool {
    exact_integer(f) == Some(i)
}

/// The integer that a float equals, if there is one: of 64 bits, exactly.
#[inline]
pub fn exact_integer(f: f64) -> Option<i64> {
    // -2^63 is a double, 2^63 is the first beyond the range; NaN fails both.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&f) {
        let i = f as i64;
        if i as f64 == f {
            return Some(i);
        }
    }
    None
}
