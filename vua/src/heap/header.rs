//! The eight bytes that every object of the heap begins with.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::block::{DROPS, TASKS};

/// What an object is. Zero is a cell of a block that holds none, since memory is handed out zeroed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// No object: free memory in a block.
    Free = 0,
    /// An integer that does not fit a value: [`crate::object::BoxedInteger`].
    BoxedInteger,
    /// A string: [`crate::object::Str`].
    String,
    /// A table: [`crate::table::Table`].
    Table,
    /// The dense part of a table.
    DenseBlock,
    /// The hashed part of a table.
    NodeBlock,
    /// A leaf or inner node of the radix of a shared table.
    RadixNode,
    /// A function of Vua with its captures: [`crate::object::Closure`].
    Closure,
    /// A native function: [`crate::object::NativeFunction`].
    Native,
    /// A captured variable that holds a value: [`crate::object::Cell`].
    Cell,
    /// A captured variable that holds a raw word.
    RawCell,
    /// A loaded function without captures: [`crate::object::Proto`].
    Proto,
    /// A struct.
    Struct,
    /// An array of structs or numbers.
    Array,
    /// The type of structs.
    StructType,
    /// The memory that an array owns.
    Storage,
    /// A task.
    Task,
    /// A coroutine.
    Coroutine,
    /// The stack of a task or coroutine.
    Stack,
    /// What the pieces of a parallel loop count down.
    Latch,
    /// A file handle; the header's word is its number.
    File,
    /// A program: [`crate::engine::Program`].
    Program,
    /// Any other object of the engine or its libraries, told apart by [`Header::extra`]: mutex, queue, …
    Other,
}

impl Kind {
    /// Number of kinds.
    pub const COUNT: usize = Kind::Other as usize + 1;

    /// Whether objects of this kind own something outside the heap, so that the collector calls their
    /// [drop hook](super::Heap::set_drop_hook) before it frees them.
    #[inline(always)]
    pub const fn has_drop(self) -> bool {
        matches!(
            self,
            Kind::Proto | Kind::Task | Kind::Coroutine | Kind::File | Kind::Program | Kind::Other
        )
    }

    /// What is noted of a block that holds such an object.
    #[inline(always)]
    pub(super) const fn notes(self) -> u32 {
        let drops = if self.has_drop() { DROPS } else { 0 };
        let tasks = if matches!(self, Kind::Task) { TASKS } else { 0 };
        drops | tasks
    }

    /// Whether objects of this kind never change and reach only such objects, so that publication has nothing to do.
    #[inline(always)]
    pub const fn is_immutable(self) -> bool {
        matches!(self, Kind::BoxedInteger | Kind::String | Kind::Proto)
    }
}

/// Bits of [`Header::flags`], "the header byte". A store may take its fast path when all of them are clear.
pub mod flags {
    /// The table has a metatable.
    pub const METATABLE: u8 = 1;
    /// The object is immutable for good.
    pub const FROZEN: u8 = 2;
    /// The object can be reached from more than one task.
    pub const SHARED: u8 = 4;
    /// The collector wants to see the object before the next store into it.
    pub const LOG: u8 = 8;
    /// The hashed part of the shared table is being replaced: whoever would write to it must wait.
    pub const GROWING: u8 = 16;
    /// The table has a finalizer that has not been called. It is shared.
    pub const FINALIZE: u8 = 32;
    /// The object is frozen, and so is all that `freeze` reaches from it.
    pub const DEEP: u8 = 64;
}

/// The first eight bytes of every object.
///
/// `kind` never changes while the object lives. `flags` of an object that is not shared are written by the task that
/// owns it and by the collector in its pause, so a plain load and store do; those of a shared object change by
/// read-modify-write alone.
#[repr(C, align(8))]
pub struct Header {
    kind: Kind,
    /// See [`flags`].
    pub flags: AtomicU8,
    /// The one-byte lock of a table: 0 free, 1 held. Whoever holds it passes no safepoint.
    pub lock: AtomicU8,
    /// Of a table: the metamethods known to be absent ([`crate::object::Gc::metamethod`]); of other kinds, theirs.
    pub extra: AtomicU8,
    /// Depends on the kind: a string's hash, a dense block's capacity, a closure's number of captures.
    pub word: AtomicU32,
}

const _: () = assert!(size_of::<Header>() == 8);

impl Header {
    /// A header with all bits clear.
    #[inline(always)]
    pub const fn new(kind: Kind, word: u32) -> Header {
        Header {
            kind,
            flags: AtomicU8::new(0),
            lock: AtomicU8::new(0),
            extra: AtomicU8::new(0),
            word: AtomicU32::new(word),
        }
    }

    /// What the object is.
    #[inline(always)]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The header byte.
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.flags.load(Ordering::Relaxed)
    }

    /// The header byte; what was written before a bit changed is visible to who sees the change.
    #[inline(always)]
    pub fn flags_acquire(&self) -> u8 {
        self.flags.load(Ordering::Acquire)
    }

    /// Whether any of these bits of the header byte is set.
    #[inline(always)]
    pub fn has(&self, bits: u8) -> bool {
        self.flags() & bits != 0
    }

    /// Sets bits of the header byte of an object that others may be changing.
    #[inline]
    pub fn set_flags(&self, bits: u8) -> u8 {
        self.flags.fetch_or(bits, Ordering::AcqRel)
    }

    /// Clears bits of the header byte of an object that others may be changing.
    #[inline]
    pub fn clear_flags(&self, bits: u8) -> u8 {
        self.flags.fetch_and(!bits, Ordering::AcqRel)
    }
}
