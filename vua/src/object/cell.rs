//! Cells: captured variables that are assigned after their capture.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Gc, Object};
use crate::heap::{Header, Kind, LocalHeap, NeedMemory};
use crate::value::{Tag, Value};

/// A captured variable. Of kind [`Kind::Cell`] it holds a value, of kind [`Kind::RawCell`] a raw word.
#[repr(C)]
pub struct Cell {
    header: Header,
    word: AtomicU64,
}

const _: () = assert!(size_of::<Cell>() == 16);

// SAFETY: laid out as the trait demands; no other type has these kinds.
unsafe impl Object for Cell {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Cell, Kind::RawCell];
}

impl Cell {
    fn make(local: &LocalHeap, kind: Kind, word: u64) -> Result<Gc<Cell>, NeedMemory> {
        let object = local
            .alloc_object(kind, 0, size_of::<Cell>())?
            .cast::<Cell>();
        // SAFETY: the object is new, of that size and ours alone.
        unsafe {
            (*object.as_ptr()).word.store(word, Ordering::Relaxed);
            Ok(Gc::from_ptr(object))
        }
    }

    /// A new cell that holds a value.
    #[inline]
    pub fn new(local: &LocalHeap, value: Value) -> Result<Gc<Cell>, NeedMemory> {
        Self::make(local, Kind::Cell, value.to_bits())
    }

    /// A new cell that holds a raw word.
    #[inline]
    pub fn new_raw(local: &LocalHeap, word: u64) -> Result<Gc<Cell>, NeedMemory> {
        Self::make(local, Kind::RawCell, word)
    }
}

impl Gc<Cell> {
    #[inline(always)]
    fn word<'a>(self) -> &'a AtomicU64 {
        // SAFETY: the cell lives; only its word is borrowed.
        unsafe { &(*self.as_ptr()).word }
    }

    /// The value in a cell of kind [`Kind::Cell`].
    #[inline(always)]
    pub fn get(self) -> Value {
        debug_assert_eq!(self.header().kind(), Kind::Cell);
        // SAFETY: such a cell holds nothing but values.
        unsafe { Value::from_bits(self.word().load(Ordering::Acquire)) }
    }

    /// Stores a value in a cell of kind [`Kind::Cell`]. The caller has looked at the header byte: what is stored in a shared
    /// cell was published before, and a cell to be logged is logged.
    #[inline(always)]
    pub fn set(self, value: Value) {
        debug_assert_eq!(self.header().kind(), Kind::Cell);
        self.word().store(value.to_bits(), Ordering::Release);
    }

    /// The raw word in a cell of kind [`Kind::RawCell`].
    #[inline(always)]
    pub fn get_raw(self) -> u64 {
        debug_assert_eq!(self.header().kind(), Kind::RawCell);
        self.word().load(Ordering::Relaxed)
    }

    /// Stores a raw word in a cell of kind [`Kind::RawCell`]. Nothing is to be done before.
    #[inline(always)]
    pub fn set_raw(self, word: u64) {
        debug_assert_eq!(self.header().kind(), Kind::RawCell);
        self.word().store(word, Ordering::Relaxed);
    }
}
