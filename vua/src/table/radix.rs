//! The radix of a shared table: integer keys beyond the dense block, in small leaves made on first touch.
//!
//! Key `k` has index `x = k - 1 - capacity`, from 0 to 2^29 - 1. A leaf holds 32 values; an inner node has 64 children; the root's
//! level says how far it reaches. A missing child is made by one compare-and-exchange, and so is a taller root, whose child 0
//! is the former one. Nothing in it is ever replaced, so whoever has found a slot may use it as long as the table lives.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::heap::{Header, Kind, LocalHeap, NeedMemory};
use crate::object::Gc;
use crate::value::Value;

const LEAF_BITS: u32 = 5;
const INNER_BITS: u32 = 6;
const LEAF_SLOTS: usize = 1 << LEAF_BITS;
const CHILDREN: usize = 1 << INNER_BITS;
/// The highest level of a root.
const MAX_LEVEL: u32 = 4;
/// Number of keys that the radix can hold.
pub(super) const SPAN: u64 = 1 << (LEAF_BITS + MAX_LEVEL * INNER_BITS);

const _: () = assert!(SPAN == 1 << 29);

/// A node. The header's word is its level: 0 for a leaf, whose words are values; above, words are pointers to nodes of
/// the level below, or null.
#[repr(C)]
pub struct RadixNode {
    header: Header,
}

const LEAF_BYTES: usize = size_of::<RadixNode>() + LEAF_SLOTS * 8;
const INNER_BYTES: usize = size_of::<RadixNode>() + CHILDREN * 8;

/// What is at one place of a node.
pub(super) enum Part {
    Value(Value),
    Child(Option<Gc<RadixNode>>),
}

impl Gc<RadixNode> {
    #[inline(always)]
    fn level(self) -> u32 {
        self.header().word.load(Ordering::Relaxed)
    }

    /// How many indices it covers.
    #[inline(always)]
    fn span(self) -> u64 {
        1 << (LEAF_BITS + self.level() * INNER_BITS)
    }

    /// Slot `x` of a leaf; only the low bits count.
    #[inline(always)]
    fn slot<'a>(self, x: u64) -> &'a AtomicU64 {
        // SAFETY: a leaf has a slot for each value of the low bits.
        unsafe {
            &*self
                .as_ptr()
                .add(1)
                .cast::<AtomicU64>()
                .add(x as usize & (LEAF_SLOTS - 1))
        }
    }

    /// The child of an inner node on the way to `x`.
    #[inline(always)]
    fn child<'a>(self, x: u64) -> &'a AtomicPtr<RadixNode> {
        let index = (x >> (LEAF_BITS + (self.level() - 1) * INNER_BITS)) as usize & (CHILDREN - 1);
        // SAFETY: an inner node has a child for each value of these bits.
        unsafe {
            &*self
                .as_ptr()
                .add(1)
                .cast::<AtomicPtr<RadixNode>>()
                .add(index)
        }
    }

    /// Number of slots of a leaf, or of children of an inner node.
    pub(super) fn width(self) -> usize {
        if self.level() == 0 {
            LEAF_SLOTS
        } else {
            CHILDREN
        }
    }

    /// Slot or child `index`, below the width.
    pub(super) fn part(self, index: usize) -> Part {
        if self.level() == 0 {
            // SAFETY: slots hold nothing but values.
            Part::Value(unsafe {
                Value::from_bits(self.slot(index as u64).load(Ordering::Acquire))
            })
        } else {
            let below = LEAF_BITS + (self.level() - 1) * INNER_BITS;
            Part::Child(self.load_child((index as u64) << below))
        }
    }

    /// Removes the values of a leaf of which `is_dead` is true.
    pub(super) fn clear_values(self, is_dead: &mut dyn FnMut(Value) -> bool) {
        if self.level() > 0 {
            return;
        }
        for i in 0..LEAF_SLOTS {
            let slot = self.slot(i as u64);
            // SAFETY: slots hold nothing but values.
            if is_dead(unsafe { Value::from_bits(slot.load(Ordering::Relaxed)) }) {
                slot.store(Value::NIL.to_bits(), Ordering::Relaxed);
            }
        }
    }

    #[inline(always)]
    fn load_child(self, x: u64) -> Option<Gc<RadixNode>> {
        // SAFETY: null or a live node; acquire, so that it is initialised.
        NonNull::new(self.child(x).load(Ordering::Acquire))
            .map(|node| unsafe { Gc::from_ptr(node) })
    }

    fn new(local: &LocalHeap, level: u32) -> Result<Gc<RadixNode>, NeedMemory> {
        let object = if level == 0 {
            local.alloc_object(Kind::RadixNode, 0, LEAF_BYTES)?
        } else {
            local.alloc_object(Kind::RadixNode, level, INNER_BYTES)?
        };
        // SAFETY: the object is new and that long; zeroed words are null pointers, and a leaf's are made nil here.
        let node: Gc<RadixNode> = unsafe { Gc::from_ptr(object.cast()) };
        if level == 0 {
            for i in 0..LEAF_SLOTS {
                node.slot(i as u64)
                    .store(Value::NIL.to_bits(), Ordering::Relaxed);
            }
        }
        Ok(node)
    }

    /// Frees a node that lost the race to be linked.
    ///
    /// # Safety
    /// The node was never linked.
    unsafe fn free_unlinked(self, local: &LocalHeap) {
        let bytes = if self.level() == 0 {
            LEAF_BYTES
        } else {
            INNER_BYTES
        };
        // SAFETY: nobody else has ever known it.
        unsafe { local.free(self.header_ptr(), bytes) };
    }
}

/// Calls `visit` with a node and all below it: as deep as there are levels.
pub(super) fn each_node(node: Gc<RadixNode>, visit: &mut dyn FnMut(Gc<RadixNode>)) {
    visit(node);
    if node.level() > 0 {
        for i in 0..CHILDREN {
            if let Part::Child(Some(child)) = node.part(i) {
                each_node(child, visit);
            }
        }
    }
}

/// The slot of index `x`, if its leaf exists.
#[inline(always)]
pub(super) fn find<'a>(root: Option<Gc<RadixNode>>, x: u64) -> Option<&'a AtomicU64> {
    let mut node = root?;
    if x >= node.span() {
        return None;
    }
    while node.level() > 0 {
        node = node.load_child(x)?;
    }
    Some(node.slot(x))
}

/// The slot of index `x` (below [`SPAN`]); what is missing on the way is made.
pub(super) fn find_or_make<'a>(
    local: &LocalHeap,
    root: &AtomicPtr<RadixNode>,
    x: u64,
) -> Result<&'a AtomicU64, NeedMemory> {
    debug_assert!(x < SPAN);
    let mut node = loop {
        match NonNull::new(root.load(Ordering::Acquire)) {
            None => {
                let mut level = 0;
                while x >> (LEAF_BITS + level * INNER_BITS) != 0 {
                    level += 1;
                }
                link(local, root, None, Gc::new(local, level)?);
            }
            Some(node) => {
                // SAFETY: what the root points to lives.
                let node: Gc<RadixNode> = unsafe { Gc::from_ptr(node) };
                if x < node.span() {
                    break node;
                }
                let taller = Gc::new(local, node.level() + 1)?;
                taller.child(0).store(node.as_ptr(), Ordering::Relaxed);
                link(local, root, Some(node), taller);
            }
        }
    };
    while node.level() > 0 {
        node = match node.load_child(x) {
            Some(child) => child,
            None => {
                link(
                    local,
                    node.child(x),
                    None,
                    Gc::new(local, node.level() - 1)?,
                );
                continue;
            }
        };
    }
    Ok(node.slot(x))
}

/// Links a new node if the place is still as it was; else frees it. The caller looks again.
fn link(
    local: &LocalHeap,
    place: &AtomicPtr<RadixNode>,
    expected: Option<Gc<RadixNode>>,
    new: Gc<RadixNode>,
) {
    let expected = expected.map_or(null_mut(), |node| node.as_ptr());
    // Release, so that whoever follows the pointer finds the node initialised.
    if place
        .compare_exchange(expected, new.as_ptr(), Ordering::Release, Ordering::Relaxed)
        .is_err()
    {
        // SAFETY: it was not linked.
        unsafe { new.free_unlinked(local) };
    }
}

/// The first index from `x` on whose leaf exists, and its value, nil or not. `None` if there is none.
///
/// The number of steps is bounded by the fan-out and the levels.
pub(super) fn next(root: Option<Gc<RadixNode>>, x: u64) -> Option<(u64, Value)> {
    let root = root?;
    let mut x = x;
    'from_root: loop {
        if x >= root.span() {
            return None;
        }
        let mut node = root;
        while node.level() > 0 {
            let below = LEAF_BITS + (node.level() - 1) * INNER_BITS;
            match node.load_child(x) {
                Some(child) => node = child,
                None => {
                    // The first index that the next child covers.
                    x = ((x >> below) + 1) << below;
                    continue 'from_root;
                }
            }
        }
        // SAFETY: slots hold nothing but values.
        return Some((x, unsafe {
            Value::from_bits(node.slot(x).load(Ordering::Acquire))
        }));
    }
}
