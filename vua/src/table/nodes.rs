//! Blocks of nodes: a hash table with chained scatter (Brent's variation left out, so that keys never move).
//!
//! A key's *main position* is its hash modulo the number of nodes. If that node is taken, by whatever key, the key gets a
//! free node and is linked in right after it; so chains of different main positions may run together, and a search follows the chain
//! from its main position to the end. Free nodes are found by a cursor that goes down; when it reaches 0 the block is full.
//!
//! Readers need no lock: a node's value and hash are written before its key, and a linked node whole before the link.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::key::{Compare, Lookup};
use crate::heap::{Header, Kind, LocalHeap, NeedMemory, SLICE};
use crate::object::{Gc, Str};
use crate::value::Value;

/// One key and its value.
#[repr(C)]
pub struct Node {
    /// nil while the node is free; set once.
    key: AtomicU64,
    value: AtomicU64,
    /// The key's hash, whole.
    hash: AtomicU32,
    /// The next node of the chain, plus one; 0 at its end.
    next: AtomicU32,
}

const _: () = assert!(size_of::<Node>() == 24);

/// The fixed part of a block of nodes. [`Header::extra`] is [`ITERATED`] or 0.
#[repr(C)]
pub struct NodeBlock {
    header: Header,
    /// Number of nodes, a power of two, minus one.
    mask: AtomicU32,
    /// Nodes from this one on are taken, or were when the cursor passed. Written by whoever may insert.
    free: AtomicU32,
}

const _: () = assert!(size_of::<NodeBlock>() == 16);

/// Where an interned key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// In this node.
    At(u32),
    /// Nowhere.
    Nothing,
    /// A string of the same hash is there, perhaps of the same bytes.
    Unknown,
}

/// In [`Header::extra`]: an iteration may hold the block, so only the collector can free it.
pub(super) const ITERATED: u8 = 1;

#[repr(C)]
struct Empty {
    block: NodeBlock,
    node: Node,
}

/// The block of every table without nodes: one node that stays free. It is not an object of the heap.
static EMPTY: Empty = Empty {
    block: NodeBlock {
        header: Header::new(Kind::NodeBlock, 0),
        mask: AtomicU32::new(0),
        free: AtomicU32::new(0),
    },
    node: Node {
        key: AtomicU64::new(Value::NIL.to_bits()),
        value: AtomicU64::new(Value::NIL.to_bits()),
        hash: AtomicU32::new(0),
        next: AtomicU32::new(0),
    },
};

/// The largest number of nodes.
const MAX_NODES: usize = 1 << 30;

impl NodeBlock {
    /// The block of every table without nodes.
    #[inline(always)]
    pub(super) fn empty() -> *mut NodeBlock {
        (&raw const EMPTY).cast::<NodeBlock>().cast_mut()
    }

    /// A handle of [`empty`](Self::empty).
    #[inline(always)]
    pub(super) fn empty_handle() -> Gc<NodeBlock> {
        // SAFETY: a static is not null and lives for ever.
        unsafe { Gc::from_ptr(NonNull::new_unchecked(Self::empty())) }
    }

    /// A block of at least `count` free nodes.
    ///
    /// Passes safepoints if the block is long; it is kept alive meanwhile by [`LocalHeap::keep`] as the second object,
    /// and stays so until the caller ends that.
    pub(super) fn new(
        local: &LocalHeap,
        count: usize,
        poll: &mut dyn FnMut(),
    ) -> Result<Gc<NodeBlock>, NeedMemory> {
        Self::new_beside(local, count, None::<Gc<NodeBlock>>, poll)
    }

    /// As [`new`](Self::new), keeping another object alive as the first.
    pub(super) fn new_beside<T>(
        local: &LocalHeap,
        count: usize,
        first: Option<Gc<T>>,
        poll: &mut dyn FnMut(),
    ) -> Result<Gc<NodeBlock>, NeedMemory> {
        if count > MAX_NODES {
            return Err(NeedMemory {
                bytes: count.saturating_mul(size_of::<Node>()),
            });
        }
        let count = count.max(1).next_power_of_two();
        let object = local.alloc_object(
            Kind::NodeBlock,
            0,
            size_of::<NodeBlock>() + count * size_of::<Node>(),
        )?;
        // SAFETY: the object is new and that long, with its first 16 bytes initialised: a mask of 0. The first node is
        // written before any safepoint, and the mask when all are.
        let new: Gc<NodeBlock> = unsafe { Gc::from_ptr(object.cast()) };
        for i in 0..count {
            let node = new.node(i as u32);
            node.key.store(Value::NIL.to_bits(), Ordering::Relaxed);
            node.value.store(Value::NIL.to_bits(), Ordering::Relaxed);
            node.hash.store(0, Ordering::Relaxed);
            node.next.store(0, Ordering::Relaxed);
            if i % (SLICE / 4) == SLICE / 4 - 1 {
                local.keep(first, Some(new));
                poll();
            }
        }
        // SAFETY: the block is ours alone.
        unsafe {
            (*new.as_ptr())
                .mask
                .store(count as u32 - 1, Ordering::Relaxed);
            (*new.as_ptr()).free.store(count as u32, Ordering::Relaxed);
        }
        Ok(new)
    }
}

impl Node {
    /// The key; nil if the node is free.
    #[inline(always)]
    pub fn key(&self) -> Value {
        // SAFETY: keys are values, and a key's object lives as long as the block.
        unsafe { Value::from_bits(self.key.load(Ordering::Acquire)) }
    }

    /// The value.
    #[inline(always)]
    pub fn value(&self) -> Value {
        // SAFETY: it holds nothing but values.
        unsafe { Value::from_bits(self.value.load(Ordering::Acquire)) }
    }

    /// The word that holds the value.
    #[inline(always)]
    pub(super) fn slot(&self) -> &AtomicU64 {
        &self.value
    }

    #[inline(always)]
    pub(crate) fn set(&self, value: Value) {
        self.value.store(value.to_bits(), Ordering::Release);
    }

    #[inline(always)]
    pub(super) fn hash(&self) -> u32 {
        self.hash.load(Ordering::Relaxed)
    }
}

impl Gc<NodeBlock> {
    #[inline(always)]
    fn fields<'a>(self) -> &'a NodeBlock {
        // SAFETY: the block lives; its fields are atomics.
        unsafe { &*self.as_ptr() }
    }

    /// Number of nodes minus one.
    #[inline(always)]
    pub fn mask(self) -> u32 {
        self.fields().mask.load(Ordering::Relaxed)
    }

    /// Number of nodes, taken or free.
    #[inline(always)]
    pub fn count(self) -> usize {
        self.mask() as usize + 1
    }

    /// Node `index`.
    #[inline(always)]
    pub(super) fn node<'a>(self, index: u32) -> &'a Node {
        // SAFETY: the nodes lie behind the fixed part; every caller has masked the index or got it from a chain.
        unsafe { &*self.as_ptr().add(1).cast::<Node>().add(index as usize) }
    }

    /// Key and value of node `index`, both nil if it is free.
    #[inline(always)]
    pub(crate) fn entry(self, index: u32) -> (Value, Value) {
        let node = self.node(index);
        (node.key(), node.value())
    }

    /// Removes the value of node `index`. In the collector's pause.
    pub(crate) fn clear(self, index: u32) {
        if !self.is_static() {
            self.node(index).set(Value::NIL);
        }
    }

    /// Removes key and value of node `index`: what is left there is never found, but still a link of its chain. In the collector's pause.
    pub(crate) fn bury(self, index: u32) {
        self.clear(index);
        let nan = Value::float(f64::NAN);
        self.node(index).key.store(nan.to_bits(), Ordering::Relaxed);
    }

    /// Whether it is the one that is not of the heap.
    #[inline(always)]
    pub fn is_static(self) -> bool {
        self.as_ptr() == NodeBlock::empty()
    }

    /// Whether there is no free node.
    #[inline]
    pub(super) fn is_full(self) -> bool {
        self.fields().free.load(Ordering::Relaxed) == 0
    }

    /// The node with this key.
    #[inline(always)]
    pub(super) fn find(self, lookup: &Lookup) -> Option<u32> {
        let mut index = lookup.hash & self.mask();
        loop {
            let node = self.node(index);
            let key = node.key();
            if key.to_bits() == lookup.bits && !matches!(lookup.compare, Compare::Boxed(_)) {
                return Some(index);
            }
            if !matches!(lookup.compare, Compare::Bits)
                && node.hash() == lookup.hash
                && lookup.same_content(key)
            {
                return Some(index);
            }
            let next = node.next.load(Ordering::Acquire);
            if next == 0 {
                return None;
            }
            index = next - 1;
        }
    }

    /// The node that a hint says, whatever it holds.
    #[inline(always)]
    pub(crate) fn hinted<'a>(self, hint: u32) -> &'a Node {
        self.node(hint & self.mask())
    }

    /// The node whose key is a string of the same bytes.
    #[inline(always)]
    pub(crate) fn find_string(self, key: Gc<Str>) -> Option<u32> {
        let hash = key.hash();
        let mut index = hash & self.mask();
        loop {
            let node = self.node(index);
            let found = node.key();
            if found == key.value() {
                return Some(index);
            }
            if node.hash() == hash && found.as_str().is_some_and(|found| found.same_bytes(key)) {
                return Some(index);
            }
            match node.next.load(Ordering::Acquire) {
                0 => return None,
                next => index = next - 1,
            }
        }
    }

    /// Where a key that is an interned string is.
    ///
    /// # Safety
    /// It is a string, and its hash was asked for before.
    #[inline(always)]
    pub(crate) unsafe fn find_constant(self, key: Value) -> Found {
        // SAFETY: a string, says the caller.
        let hash = unsafe { Gc::<Str>::from_value_unchecked(key) }.known_hash();
        let mut index = hash & self.mask();
        loop {
            let node = self.node(index);
            if node.key() == key {
                return Found::At(index);
            }
            // Free, or another key, unless it is a string of the same bytes that was not interned.
            if node.hash() == hash {
                return Found::Unknown;
            }
            match node.next.load(Ordering::Acquire) {
                0 => return Found::Nothing,
                next => index = next - 1,
            }
        }
    }

    /// Adds a key that is not there; `None` if the block is full, else the node.
    ///
    /// # Safety
    /// The caller alone may insert: it owns the table or the block, or holds the table's lock.
    pub(super) unsafe fn insert(self, key: Value, hash: u32, value: Value) -> Option<u32> {
        let main = hash & self.mask();
        let head = self.node(main);
        let fill = |node: &Node, next: u32| {
            node.value.store(value.to_bits(), Ordering::Relaxed);
            node.hash.store(hash, Ordering::Relaxed);
            node.next.store(next, Ordering::Relaxed);
            node.key.store(key.to_bits(), Ordering::Release);
        };
        if head.key().is_nil() {
            if self.is_static() {
                return None;
            }
            fill(head, 0);
            return Some(main);
        }
        let mut free = self.fields().free.load(Ordering::Relaxed);
        while free > 0 {
            free -= 1;
            let node = self.node(free);
            if node.key().is_nil() {
                self.fields().free.store(free, Ordering::Relaxed);
                fill(node, head.next.load(Ordering::Relaxed));
                head.next.store(free + 1, Ordering::Release);
                return Some(free);
            }
        }
        self.fields().free.store(0, Ordering::Relaxed);
        None
    }

    /// Gives a key its main position if that is free, which says that the key is not there; else `false`.
    ///
    /// # Safety
    /// As for [`insert`](Self::insert).
    #[inline(always)]
    pub(super) unsafe fn take(self, key: Value, hash: u32, value: Value) -> bool {
        let node = self.node(hash & self.mask());
        if !node.key().is_nil() || self.is_static() {
            return false;
        }
        node.value.store(value.to_bits(), Ordering::Relaxed);
        node.hash.store(hash, Ordering::Relaxed);
        node.next.store(0, Ordering::Relaxed);
        node.key.store(key.to_bits(), Ordering::Release);
        true
    }

    /// Notes that an iteration holds the block: it is then freed by the collector only.
    #[inline]
    pub(super) fn set_iterated(self) {
        debug_assert!(!self.is_static());
        self.header().extra.store(ITERATED, Ordering::Relaxed);
    }

    pub(super) fn is_iterated(self) -> bool {
        self.header().extra.load(Ordering::Relaxed) == ITERATED
    }

    /// Gives its memory back.
    ///
    /// # Safety
    /// Nobody else knows the block.
    pub(super) unsafe fn free(self, local: &LocalHeap) {
        if !self.is_static() {
            let bytes = size_of::<NodeBlock>() + self.count() * size_of::<Node>();
            // SAFETY: it came from `alloc` with this size.
            unsafe { local.free(self.header_ptr(), bytes) };
        }
    }
}
