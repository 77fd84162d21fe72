//! Dense blocks: the values of keys 1 to a capacity, in order.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::radix::{Edge, RadixNode};
use crate::heap::{Header, Kind, LocalHeap, NeedMemory, SLICE, block};
use crate::object::Gc;
use crate::value::Value;

/// A block of values. The header's word is its capacity, which never changes once a table has it.
#[repr(C)]
pub struct DenseBlock {
    header: Header,
    /// Of a shared table: what holds the integer keys beyond the capacity; null if there are none.
    pub(super) radix: Edge,
}

const _: () = assert!(size_of::<DenseBlock>() == 16);

/// More than any program can fill: 8 GiB of values.
pub(crate) const MAX_CAPACITY: usize = 1 << 30;

/// The block of every table without dense keys. It has no room and no radix, and is not an object of the heap.
static EMPTY: DenseBlock = DenseBlock {
    header: Header::new(Kind::DenseBlock, 0),
    radix: Edge::new(),
};

impl DenseBlock {
    /// The block of every table without dense keys.
    #[inline(always)]
    pub(super) fn empty() -> *mut DenseBlock {
        (&raw const EMPTY).cast_mut()
    }

    /// A handle of [`empty`](Self::empty).
    #[inline(always)]
    pub(super) fn empty_handle() -> Gc<DenseBlock> {
        // SAFETY: a static is not null and lives for ever.
        unsafe { Gc::from_ptr(NonNull::new_unchecked(Self::empty())) }
    }

    /// A block with room for at least `capacity` values, all nil: as many as fit the memory that the heap gives anyway.
    ///
    /// Passes safepoints if the block is long; it is kept alive meanwhile by [`LocalHeap::keep`] as the first object,
    /// and stays so until the caller ends that.
    pub(super) fn new(
        local: &LocalHeap,
        capacity: usize,
        poll: &mut dyn FnMut(),
    ) -> Result<Gc<DenseBlock>, NeedMemory> {
        if capacity > MAX_CAPACITY {
            return Err(NeedMemory {
                bytes: capacity.saturating_mul(8),
            });
        }
        let bytes = block::usable(size_of::<DenseBlock>() + capacity * size_of::<Value>());
        let capacity = (bytes - size_of::<DenseBlock>()) / size_of::<Value>();
        let object = local.alloc_object(Kind::DenseBlock, 0, bytes)?;
        // SAFETY: the object is new and that long, with its first 16 bytes initialised. Its capacity is raised as
        // it is filled, so that a collector that looks at it in `poll` sees values only.
        let new: Gc<DenseBlock> = unsafe { Gc::from_ptr(object.cast()) };
        let mut filled = 0;
        loop {
            let end = capacity.min(filled + SLICE);
            for i in filled..end {
                new.slot(i).store(Value::NIL.to_bits(), Ordering::Relaxed);
            }
            new.header().word.store(end as u32, Ordering::Relaxed);
            filled = end;
            if filled == capacity {
                return Ok(new);
            }
            local.keep(Some(new), None::<Gc<DenseBlock>>);
            poll();
        }
    }
}

impl Gc<DenseBlock> {
    /// It holds the keys from 1 to this.
    #[inline(always)]
    pub fn capacity(self) -> usize {
        self.header().word.load(Ordering::Relaxed) as usize
    }

    /// As [`capacity`](Self::capacity).
    #[inline(always)]
    pub(crate) fn length(self) -> u32 {
        self.header().word.load(Ordering::Relaxed)
    }

    /// The slot of key `index + 1`.
    #[inline(always)]
    pub(super) fn slot<'a>(self, index: usize) -> &'a AtomicU64 {
        // SAFETY: the slots lie behind the fixed part; every caller has compared `index` with the capacity or fills a new block.
        unsafe { &*self.as_ptr().add(1).cast::<AtomicU64>().add(index) }
    }

    /// The value of key `index + 1`, below the capacity.
    #[inline(always)]
    pub(crate) fn get(self, index: usize) -> Value {
        debug_assert!(index < self.capacity());
        // SAFETY: slots hold nothing but values.
        unsafe { Value::from_bits(self.slot(index).load(Ordering::Acquire)) }
    }

    /// Whether at least half of the last 1024 keys have values.
    pub(super) fn ends_filled(self) -> bool {
        const LAST: usize = 1024;
        let capacity = self.capacity();
        capacity >= LAST / 2
            && (capacity.saturating_sub(LAST)..capacity)
                .filter(|&i| !self.get(i).is_nil())
                .count()
                >= LAST / 2
    }

    /// Sets the value of key `index + 1`, below the capacity.
    #[inline(always)]
    pub(crate) fn set(self, index: usize, value: Value) {
        debug_assert!(index < self.capacity());
        self.slot(index).store(value.to_bits(), Ordering::Release);
    }

    #[inline(always)]
    pub(super) fn radix_edge<'a>(self) -> &'a Edge {
        // SAFETY: the block lives.
        unsafe { &(*self.as_ptr()).radix }
    }

    #[inline(always)]
    pub(crate) fn radix(self) -> Option<Gc<RadixNode>> {
        self.radix_edge().node()
    }

    /// Calls `visit` with every node of the radix. In the collector's pause.
    pub(crate) fn each_radix_node(self, visit: &mut dyn FnMut(NonNull<Header>)) {
        if let Some(root) = self.radix() {
            super::radix::each_node(root, &mut |node| visit(node.header_ptr()));
        }
    }

    /// Removes the values, those in the radix included, of which `is_dead` is true. In the collector's pause.
    pub(crate) fn clear_values(self, is_dead: &mut dyn FnMut(Value) -> bool) {
        for i in 0..self.capacity() {
            if is_dead(self.get(i)) {
                self.set(i, Value::NIL);
            }
        }
        if let Some(root) = self.radix() {
            super::radix::each_node(root, &mut |node| node.clear_values(is_dead));
        }
    }

    /// Whether it is the one that is not of the heap.
    #[inline(always)]
    pub fn is_static(self) -> bool {
        self.as_ptr() == DenseBlock::empty()
    }

    /// Gives its memory back.
    ///
    /// # Safety
    /// Nobody else knows the block.
    pub(super) unsafe fn free(self, local: &LocalHeap) {
        if !self.is_static() {
            let bytes = size_of::<DenseBlock>() + self.capacity() * size_of::<Value>();
            // SAFETY: it came from `alloc` with this size, for the capacity fills what was given.
            unsafe { local.free(self.header_ptr(), bytes) };
        }
    }
}
