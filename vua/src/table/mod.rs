//! Tables.
//!
//! A table is 40 bytes that point to storage in blocks of fixed size: a *dense* block for the keys 1 to its capacity, and a
//! block of *nodes* for all others. A table that is shared between tasks has a *radix* too, for integer keys
//! that its dense block does not reach.
//!
//! | file | what |
//! | --- | --- |
//! | [`key`] | how a value is looked up: normalisation, hash, comparison |
//! | [`dense`], [`nodes`], [`radix`] | the three kinds of storage |
//! | [`access`] | get and set, and where a key belongs |
//! | [`grow`] | larger blocks, for tables of one task and for shared ones |
//! | [`iterate`] | `next`, `pairs` |
//! | [`length`] | `#`, insertion and removal at the end |
//!
//! The rules that make shared tables work, and the races considered, are in `docs/tables.md`.
//!
//! # Invariants
//! - Where a key is stored is a function of the key, the dense block's capacity and whether the table is shared; the one exception,
//!   integers that were among the nodes when the table was shared, is marked by [`INTEGER_NODES`].
//! - In a block of nodes a key never moves and never goes; only its value becomes nil.
//! - The dense block of a shared table is never replaced, except an empty one by another empty one to hang a radix on.
//! - Every word that a racing core may read is an atomic, and holds a whole value or a valid pointer at any time.

mod access;
pub mod dense;
mod grow;
mod iterate;
mod key;
mod length;
pub mod nodes;
mod radix;

#[cfg(test)]
mod concurrent_tests;
#[cfg(test)]
mod radix_tests;
#[cfg(test)]
mod tests;

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

pub use access::SlotRef;
pub use dense::DenseBlock;
pub use grow::{GrowthStart, Retired};
pub use iterate::{InvalidKey, Next};
pub(crate) use nodes::Found;
pub use nodes::{Node, NodeBlock};
pub(crate) use radix::RadixNode;

use crate::heap::{Header, Kind, LocalHeap, NeedMemory, SLICE, Visit, flags};
use crate::object::{Gc, Object, walk};
use crate::value::{Tag, Value};

/// Bit of [`Table::state`]: some node may have a key that is an integer of at least 1.
pub(crate) const INTEGER_NODES: u32 = 1;

/// A table.
#[repr(C)]
pub struct Table {
    /// [`Header::extra`] caches which metamethods are absent from this table when it is a metatable; the word, where `__index` was last found.
    pub(crate) header: Header,
    /// The metatable, or null; to be looked at only if [`flags::METATABLE`] is set.
    pub(crate) metatable: AtomicPtr<Table>,
    /// Never null.
    pub(crate) dense: AtomicPtr<DenseBlock>,
    /// Never null.
    pub(crate) nodes: AtomicPtr<NodeBlock>,
    /// Where the last search for a border ended: a hint.
    pub(crate) border: AtomicU32,
    /// [`INTEGER_NODES`].
    pub(crate) state: AtomicU32,
}

const _: () = assert!(size_of::<Table>() == 40);

// SAFETY: laid out as the trait demands; the tag is its alone.
unsafe impl Object for Table {
    const TAG: Tag = Tag::Table;
    const KINDS: &'static [Kind] = &[Kind::Table];
}

/// The hash by which a key is looked up: equal keys have equal ones.
pub(crate) fn hash_of(value: Value) -> u32 {
    match key::Key::of(value) {
        key::Key::Integer(i) => key::Lookup::integer(i).hash,
        key::Key::Other(lookup) => lookup.hash,
        key::Key::Nil | key::Key::Nan => 0,
    }
}

/// Why a store into a table could not be made. It has had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetError {
    /// A collection is needed.
    NeedMemory(NeedMemory),
    /// The key is nil.
    NilKey,
    /// The key is a NaN.
    NanKey,
    /// The table is frozen.
    Frozen,
    /// There is no room. If the table is shared, the caller grows it by [`Gc::grow_begin`] and [`Gc::grow_finish`]; if not, by
    /// [`Gc::grow`]. Then it starts again.
    Grow,
    /// Another task is growing the table: to be tried again when it has finished.
    Growing,
}

impl From<NeedMemory> for SetError {
    fn from(need: NeedMemory) -> SetError {
        SetError::NeedMemory(need)
    }
}

impl Table {
    /// A new empty table with room for `dense` keys from 1 on and `nodes` others.
    ///
    /// At most 2048 dense slots and 512 nodes are made, which needs no safepoint; a table that is to have more grows as it is filled.
    #[inline]
    pub fn new(local: &LocalHeap, dense: usize, nodes: usize) -> Result<Gc<Table>, NeedMemory> {
        let object = local
            .alloc_object(Kind::Table, 0, size_of::<Table>())?
            .cast::<Table>();
        // SAFETY: the object is new, of that size and ours alone; its memory is zeroed, which is valid for the other fields.
        let table = unsafe {
            let fields = object.as_ptr();
            (*fields)
                .dense
                .store(DenseBlock::empty(), Ordering::Relaxed);
            (*fields).nodes.store(NodeBlock::empty(), Ordering::Relaxed);
            Gc::from_ptr(object)
        };
        if dense | nodes != 0
            && let Err(need) = table.presize(local, dense.min(SLICE), nodes.min(SLICE / 4))
        {
            // SAFETY: nobody else knows the table.
            unsafe { local.free(object.cast(), size_of::<Table>()) };
            return Err(need);
        }
        Ok(table)
    }
}

impl Gc<Table> {
    #[inline(always)]
    pub(crate) fn fields<'a>(self) -> &'a Table {
        // SAFETY: the table lives; all its fields are atomics or never change.
        unsafe { &*self.as_ptr() }
    }

    #[inline(always)]
    pub(crate) fn has_integer_nodes(self) -> bool {
        self.fields().state.load(Ordering::Relaxed) & INTEGER_NODES != 0
    }

    fn presize(self, local: &LocalHeap, dense: usize, nodes: usize) -> Result<(), NeedMemory> {
        if dense != 0 {
            let block = DenseBlock::new(local, dense, &mut || ())?;
            self.fields().dense.store(block.as_ptr(), Ordering::Relaxed);
        }
        if nodes != 0 {
            match NodeBlock::new(local, nodes, &mut || ()) {
                Ok(block) => self.fields().nodes.store(block.as_ptr(), Ordering::Relaxed),
                Err(need) => {
                    // SAFETY: the table is new, so nobody else knows its block.
                    unsafe { self.dense_block().free(local) };
                    return Err(need);
                }
            }
        }
        Ok(())
    }

    /// The block of keys 1 to its capacity.
    #[inline(always)]
    pub fn dense_block(self) -> Gc<DenseBlock> {
        // SAFETY: never null; acquire, so that the block is initialised; it lives as long as the table points to it and,
        // after that, until this core has passed a safepoint.
        unsafe {
            Gc::from_ptr(NonNull::new_unchecked(
                self.fields().dense.load(Ordering::Acquire),
            ))
        }
    }

    /// The block of nodes.
    #[inline(always)]
    pub fn node_block(self) -> Gc<NodeBlock> {
        // SAFETY: as for `dense_block`.
        unsafe {
            Gc::from_ptr(NonNull::new_unchecked(
                self.fields().nodes.load(Ordering::Acquire),
            ))
        }
    }

    /// Whether other tasks may reach it.
    #[inline(always)]
    pub fn is_shared(self) -> bool {
        self.header().has(flags::SHARED)
    }

    /// The metatable: one compare if there is none.
    #[inline(always)]
    pub fn metatable(self) -> Option<Gc<Table>> {
        if self.header().flags() & flags::METATABLE == 0 {
            return None;
        }
        // SAFETY: null or a live table; acquire, so that it is initialised.
        NonNull::new(self.fields().metatable.load(Ordering::Acquire))
            .map(|m| unsafe { Gc::from_ptr(m) })
    }

    /// Sets or removes the metatable. The caller has seen to `__metatable`, [`flags::FROZEN`] and [`flags::LOG`], and if the
    /// table is shared it has published the metatable.
    pub fn set_metatable(self, metatable: Option<Gc<Table>>) {
        self.fields().metatable.store(
            metatable.map_or(null_mut(), |m| m.as_ptr()),
            Ordering::Release,
        );
        // A racing reader that sees the bit without the table takes it for having none.
        if metatable.is_some() {
            self.header().set_flags(flags::METATABLE);
        } else {
            self.header().clear_flags(flags::METATABLE);
        }
    }

    /// What this table, a metatable, has under `name`, which is the metamethod of number `event` (0 to 7): nil if
    /// nothing. That there is nothing is remembered in one bit of the header, so the next call is one load.
    #[inline(always)]
    pub fn metamethod(self, event: u8, name: Value) -> Value {
        if self.header().extra.load(Ordering::Relaxed) & (1 << event) != 0 {
            return Value::NIL;
        }
        let node = self
            .node_block()
            .hinted(self.header().word.load(Ordering::Relaxed));
        if node.key() == name {
            node.value()
        } else {
            self.find_metamethod(event, name)
        }
    }

    /// What this table, a metatable, has under `name`, which is `__index`, if it is where the last search found it; else nil.
    #[inline(always)]
    pub(crate) fn index_hinted(self, name: Value) -> Value {
        let node = self
            .node_block()
            .hinted(self.header().word.load(Ordering::Relaxed));
        if node.key() == name {
            node.value()
        } else {
            Value::NIL
        }
    }

    #[inline(never)]
    fn find_metamethod(self, event: u8, name: Value) -> Value {
        let Some(name) = name.as_str() else {
            return Value::NIL;
        };
        if let Some(node) = self.node_block().find(&key::Lookup::string(name)) {
            // Event 0, `__index`, is asked for with every method that is called.
            if event == 0 {
                self.header().word.store(node, Ordering::Relaxed);
            }
            // A key whose value is nil is not remembered as absent: storing to it again takes the fast path, which does not
            // clear the bit. Only insertion does.
            return self.node_block().node(node).value();
        }
        self.header().extra.fetch_or(1 << event, Ordering::SeqCst);
        // Who inserts writes the key and then clears the bits, with a fence between; here the bit is set and then the key is
        // looked for. So either the key is found now or the bit is cleared later.
        core::sync::atomic::fence(Ordering::SeqCst);
        if let Some(node) = self.node_block().find(&key::Lookup::string(name)) {
            self.header()
                .extra
                .fetch_and(!(1 << event), Ordering::SeqCst);
            return self.node_block().node(node).value();
        }
        Value::NIL
    }

    /// To be called after a string key has been inserted.
    #[inline(always)]
    pub(crate) fn forget_absent_metamethods(self) {
        if self.is_shared() {
            core::sync::atomic::fence(Ordering::SeqCst);
        }
        if self.header().extra.load(Ordering::Relaxed) != 0 {
            self.header().extra.store(0, Ordering::SeqCst);
        }
    }
}

/// Visits a table's metatable, dense block, nodes and radix: see [`crate::object::children`].
///
/// Positions: 0 the metatable; then the dense slots; then two for each node; then the radix.
pub(crate) fn children(
    table: Gc<Table>,
    from: usize,
    visit: &mut impl FnMut(Value) -> Visit,
) -> Option<usize> {
    let dense = table.dense_block();
    let nodes = table.node_block();
    let capacity = dense.capacity();
    let nodes_from = 1 + capacity;
    let radix_from = nodes_from + 2 * nodes.count();
    let mut at = from;
    let end = from + SLICE;
    while at < radix_from && at < end {
        let value = if at == 0 {
            table.metatable().map_or(Value::NIL, |m| m.value())
        } else if at < nodes_from {
            dense.get(at - 1)
        } else {
            let node = nodes.node((at - nodes_from) as u32 / 2);
            // A key whose value is nil keeps nothing alive by itself, but stays until the block goes, so what it refers to must live.
            if (at - nodes_from).is_multiple_of(2) {
                node.key()
            } else {
                node.value()
            }
        };
        match visit(value) {
            Visit::On => at += 1,
            Visit::StopAfter => return Some(at + 1),
            Visit::StopBefore => return Some(at),
        }
    }
    if at < radix_from {
        return Some(at);
    }
    let root = dense.radix_edge();
    let mut x = (at - radix_from) as u64;
    while at < end {
        let (found, value) = radix::next(root, x)?;
        match visit(value) {
            Visit::On => {}
            Visit::StopAfter => return Some(radix_from + found as usize + 1),
            Visit::StopBefore => return Some(radix_from + found as usize),
        }
        x = found + 1;
        at += 1;
    }
    Some(radix_from + x as usize)
}

/// Visits what a table, or one of its blocks, refers to itself: as values, blocks included. For the collector, to which each block is an
/// object of its own.
pub(crate) fn trace(
    object: NonNull<Header>,
    from: usize,
    visit: &mut impl FnMut(Value) -> Visit,
) -> Option<usize> {
    /// A block as a value, nil if it is static.
    fn block<T>(block: Gc<T>, is_static: bool) -> Value {
        if is_static {
            return Value::NIL;
        }
        // SAFETY: a live object of the heap, of a kind for which the tag of other objects stands.
        unsafe { Value::reference(Tag::Object, block.header_ptr()) }
    }
    // SAFETY: the object lives, as the caller of `trace` for objects says; each cast follows its kind.
    unsafe {
        match object.as_ref().kind() {
            Kind::Table => {
                let table: Gc<Table> = Gc::from_ptr(object.cast());
                walk(from, 3, visit, |i| match i {
                    0 => table.metatable().map_or(Value::NIL, |m| m.value()),
                    1 => block(table.dense_block(), table.dense_block().is_static()),
                    _ => block(table.node_block(), table.node_block().is_static()),
                })
            }
            Kind::DenseBlock => {
                let dense: Gc<DenseBlock> = Gc::from_ptr(object.cast());
                walk(from, 1 + dense.capacity(), visit, |i| match i {
                    0 => dense.radix().map_or(Value::NIL, |root| block(root, false)),
                    _ => dense.get(i - 1),
                })
            }
            Kind::NodeBlock => {
                let nodes: Gc<NodeBlock> = Gc::from_ptr(object.cast());
                walk(from, 2 * nodes.count(), visit, |i| {
                    let node = nodes.node(i as u32 / 2);
                    if i % 2 == 0 { node.key() } else { node.value() }
                })
            }
            Kind::RadixNode => {
                let node: Gc<radix::RadixNode> = Gc::from_ptr(object.cast());
                walk(from, node.width(), visit, |i| match node.part(i) {
                    radix::Part::Value(value) => value,
                    radix::Part::Child(child) => {
                        child.map_or(Value::NIL, |child| block(child, false))
                    }
                })
            }
            _ => None,
        }
    }
}
