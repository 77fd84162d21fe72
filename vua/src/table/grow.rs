//! Growth.
//!
//! A table of one task is grown by that task, in place if it is small, else by [`Gc::grow`] in slices. A shared table is
//! grown by one of its tasks while readers go on and writers wait: see `docs/tables.md` for the protocol.

use core::sync::atomic::Ordering;

use super::access::Locked;
use super::dense::{DenseBlock, MAX_CAPACITY};
use super::key::{Key, Lookup};
use super::{INTEGER_NODES, NodeBlock, Table};
use crate::heap::{LocalHeap, NeedMemory, SLICE, flags};
use crate::object::Gc;
use crate::value::Value;

/// What [`Gc::grow_begin`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowthStart {
    /// The caller grows the table: it waits for a handshake and calls [`Gc::grow_finish`].
    Started,
    /// Another task does: the caller waits for it and starts its instruction again.
    Already,
    /// There is room by now: the caller starts its instruction again.
    Room,
}

/// A block of nodes that a table no longer uses. Cores that have not passed a safepoint since may still read it.
#[must_use]
pub struct Retired(Gc<NodeBlock>);

impl Retired {
    /// Frees the block, unless an iteration holds it: then the collector will.
    ///
    /// # Safety
    /// Every core has passed a safepoint since the block was retired.
    pub unsafe fn release(self, local: &LocalHeap) {
        if !self.0.is_iterated() {
            // SAFETY: whoever had read the pointer before it was replaced has passed a safepoint, past which only iterations keep a
            // block, and those had noted it by then.
            unsafe { self.0.free(local) };
        }
    }
}

/// Tables of at most this many words are grown without a safepoint: what is copied and made then is about 16 KiB.
const AT_ONCE: usize = SLICE / 2;

/// How many nodes to make for `live` keys and one more: a quarter of room, so that a table that loses and gains keys in turn
/// is not copied each time.
fn nodes_for(live: usize) -> usize {
    (live + live / 4 + 1).max(4)
}

/// Integer keys counted by magnitude: `counts[b]` of those from 2^(b-1) + 1 to 2^b.
struct Census {
    counts: [u32; 31],
}

impl Census {
    fn add(&mut self, key: i64) {
        if (1..=MAX_CAPACITY as i64).contains(&key) {
            let bin = if key == 1 {
                0
            } else {
                (key as u64 - 1).ilog2() as usize + 1
            };
            self.counts[bin] += 1;
        }
    }

    /// The largest n, a power of two, such that more than half of 1 to n are keys; 0 if there is none.
    /// As Lua's `computesizes` (ltable.c, 5.4).
    fn dense(&self) -> usize {
        let (mut best, mut keys) = (0, 0);
        for (bin, count) in self.counts.iter().enumerate() {
            keys += *count as usize;
            if keys > (1usize << bin) / 2 {
                best = 1 << bin;
            }
        }
        best
    }
}

/// Calls `poll` once for every [`SLICE`] of steps.
struct Pace<'a> {
    left: usize,
    poll: &'a mut dyn FnMut(),
}

impl<'a> Pace<'a> {
    fn new(poll: &'a mut dyn FnMut()) -> Self {
        Pace { left: SLICE, poll }
    }

    #[inline(always)]
    fn step(&mut self, cost: usize) {
        if self.left <= cost {
            self.left = SLICE;
            (self.poll)();
        } else {
            self.left -= cost;
        }
    }
}

impl Gc<Table> {
    /// Makes room for `key` in a table of one task, passing safepoints; the table is in a root meanwhile. Sizes follow
    /// from the keys that are there: the dense part is the largest that is more than half full.
    pub fn grow(
        self,
        local: &LocalHeap,
        key: Value,
        poll: &mut dyn FnMut(),
    ) -> Result<(), NeedMemory> {
        let done = match self.capacity_to_append(key, poll) {
            Some(capacity) => self.resize_dense(local, capacity, poll),
            None => self.rehash(local, key, poll),
        };
        local.keep(None::<Gc<Table>>, None::<Gc<Table>>);
        done
    }

    /// Makes room for `dense` keys from 1 on in a table of one task that has fewer, passing safepoints.
    pub fn reserve_dense(
        self,
        local: &LocalHeap,
        dense: usize,
        poll: &mut dyn FnMut(),
    ) -> Result<(), NeedMemory> {
        debug_assert!(!self.is_shared());
        if dense <= self.dense_block().capacity() {
            return Ok(());
        }
        let done = self.resize_dense(local, dense, poll);
        local.keep(None::<Gc<Table>>, None::<Gc<Table>>);
        done
    }

    /// [`grow`](Self::grow) without safepoints if the table is small enough for that; `Ok(false)` if it is not.
    pub(super) fn grow_at_once(self, local: &LocalHeap, key: Value) -> Result<bool, NeedMemory> {
        if self.dense_block().capacity() + 3 * self.node_block().count() > AT_ONCE {
            return Ok(false);
        }
        // The blocks are the table's by now: kept beside it they would keep the entries of a weak table.
        self.grow(local, key, &mut || ())?;
        Ok(true)
    }

    /// Doubles the dense block so that the key after its capacity fits, if it is at least half full and small enough to
    /// do it without a safepoint. `false` leaves the key to the nodes, whose growth counts again.
    pub(super) fn grow_to_append(self, local: &LocalHeap) -> Result<bool, NeedMemory> {
        let dense = self.dense_block();
        let capacity = dense.capacity();
        if capacity > AT_ONCE || (capacity > 0 && dense.get(capacity - 1).is_nil()) {
            return Ok(false);
        }
        if self.has_integer_nodes() && 3 * self.node_block().count() > AT_ONCE {
            return Ok(false);
        }
        let live = (0..capacity).filter(|&i| !dense.get(i).is_nil()).count();
        if live < capacity.div_ceil(2) {
            return Ok(false);
        }
        self.reserve_dense(local, (capacity * 2).max(4), &mut || ())?;
        Ok(true)
    }

    /// What the dense block of a table to which `key` is appended is to have room for: twice as much, if it is at least half full. No census of
    /// keys is needed then.
    fn capacity_to_append(self, key: Value, poll: &mut dyn FnMut()) -> Option<usize> {
        let dense = self.dense_block();
        let capacity = dense.capacity();
        if key.as_integer() != Some(capacity as i64 + 1)
            || capacity == 0
            || capacity > MAX_CAPACITY / 2
            || dense.get(capacity - 1).is_nil()
        {
            return None;
        }
        let mut live = 0;
        for start in (0..capacity).step_by(SLICE) {
            let end = capacity.min(start + SLICE);
            live += (start..end).filter(|&i| !dense.get(i).is_nil()).count();
            poll();
        }
        (live >= capacity.div_ceil(2)).then_some(capacity * 2)
    }

    /// Moves to a dense block of at least `capacity`, which is more than now, and takes what fits it out of the nodes.
    fn resize_dense(
        self,
        local: &LocalHeap,
        capacity: usize,
        poll: &mut dyn FnMut(),
    ) -> Result<(), NeedMemory> {
        let old = self.dense_block();
        let new = DenseBlock::new(local, capacity, poll)?;
        local.keep(Some(new), None::<Gc<NodeBlock>>);
        for start in (0..old.capacity()).step_by(SLICE) {
            for i in start..old.capacity().min(start + SLICE) {
                new.set(i, old.get(i));
            }
            poll();
        }
        let mut pace = Pace::new(poll);
        let nodes = self.node_block();
        if self.has_integer_nodes() {
            for i in 0..nodes.count() {
                let node = nodes.node(i as u32);
                if let Some(key) = node.key().as_integer()
                    && (key as u64).wrapping_sub(1) < new.capacity() as u64
                    && !node.value().is_nil()
                {
                    new.set(key as usize - 1, node.value());
                }
                pace.step(3);
            }
            // Only now that all are in the new block, which is kept alive.
            for i in 0..nodes.count() {
                let node = nodes.node(i as u32);
                if node
                    .key()
                    .as_integer()
                    .is_some_and(|key| (key as u64).wrapping_sub(1) < new.capacity() as u64)
                {
                    node.set(Value::NIL);
                }
                pace.step(3);
            }
        }
        self.fields().dense.store(new.as_ptr(), Ordering::Release);
        // SAFETY: the table is its task's alone, so nobody else knows the block.
        unsafe { old.free(local) };
        Ok(())
    }

    fn rehash(
        self,
        local: &LocalHeap,
        key: Value,
        poll: &mut dyn FnMut(),
    ) -> Result<(), NeedMemory> {
        debug_assert!(!self.is_shared());
        let mut pace = Pace::new(poll);
        let dense = self.dense_block();
        let nodes = self.node_block();
        let mut census = Census { counts: [0; 31] };
        for i in 0..dense.capacity() {
            if !dense.get(i).is_nil() {
                census.add(i as i64 + 1);
            }
            pace.step(1);
        }
        for i in 0..nodes.count() {
            let node = nodes.node(i as u32);
            if !node.value().is_nil()
                && let Some(i) = node.key().as_integer()
            {
                census.add(i);
            }
            pace.step(3);
        }
        let key = match Key::of(key) {
            Key::Integer(i) => Some(i),
            _ => None,
        };
        if let Some(i) = key {
            census.add(i);
        }
        let size = census.dense();
        // It is replaced when it is too small, or at least twice too large; then its values go to the nodes.
        let new_dense = if size == 0 {
            DenseBlock::empty_handle()
        } else if size <= dense.capacity() && size * 2 > dense.capacity() {
            dense
        } else {
            DenseBlock::new(local, size, pace.poll)?
        };
        let kept = Some(new_dense).filter(|block| !block.is_static());
        local.keep(kept, None::<Gc<NodeBlock>>);
        // The block may have more room than was asked for.
        let capacity = new_dense.capacity() as u64;
        let fits = |key: i64| (key as u64).wrapping_sub(1) < capacity;
        let mut count = 0;
        for i in 0..nodes.count() {
            let node = nodes.node(i as u32);
            if !node.value().is_nil() && !node.key().as_integer().is_some_and(fits) {
                count += 1;
            }
            pace.step(3);
        }
        for i in capacity as usize..dense.capacity() {
            count += usize::from(!dense.get(i).is_nil());
            pace.step(1);
        }
        let new_nodes = if count == 0 && key.is_some_and(fits) {
            Ok(NodeBlock::empty_handle())
        } else {
            NodeBlock::new_beside(local, nodes_for(count), kept, pace.poll)
        };
        let new_nodes = match new_nodes {
            Ok(block) => block,
            Err(need) => {
                if new_dense != dense {
                    // SAFETY: the block is not the table's yet.
                    unsafe { new_dense.free(local) };
                }
                return Err(need);
            }
        };
        local.keep(kept, Some(new_nodes).filter(|block| !block.is_static()));
        let mut integer_nodes = 0;
        let mut insert = |key: Value, hash: u32, value: Value| {
            if key.as_integer().is_some_and(|i| i >= 1) {
                integer_nodes = INTEGER_NODES;
            }
            // SAFETY: the block is not the table's yet, so it is ours.
            let inserted = unsafe { new_nodes.insert(key, hash, value) };
            debug_assert!(inserted.is_some());
        };
        for i in 0..nodes.count() {
            let node = nodes.node(i as u32);
            let (key, value) = (node.key(), node.value());
            if !value.is_nil() {
                match key.as_integer() {
                    Some(i) if fits(i) => new_dense.set(i as usize - 1, value),
                    _ => insert(key, node.hash(), value),
                }
            }
            pace.step(6);
        }
        if new_dense != dense {
            for i in 0..dense.capacity() {
                let value = dense.get(i);
                if !value.is_nil() {
                    if (i as u64) < capacity {
                        new_dense.set(i, value);
                    } else {
                        let key = i as i64 + 1;
                        // At most 2^30, so it needs no box.
                        insert(Value::small(key as i32), Lookup::integer(key).hash, value);
                    }
                }
                pace.step(2);
            }
        }
        self.fields().state.store(integer_nodes, Ordering::Relaxed);
        self.fields()
            .dense
            .store(new_dense.as_ptr(), Ordering::Release);
        self.fields()
            .nodes
            .store(new_nodes.as_ptr(), Ordering::Release);
        // SAFETY: the table is its task's alone, so nobody else knows its former blocks, except an iteration that
        // noted it in the block of nodes.
        unsafe {
            if new_dense != dense {
                dense.free(local);
            }
            Retired(nodes).release(local);
        }
        Ok(())
    }

    /// Begins the growth of a shared table's nodes after [`SetError::Grow`](super::SetError::Grow). If it says `Started`, the
    /// caller waits until every running core has passed a safepoint and then calls [`grow_finish`](Self::grow_finish), or
    /// [`grow_cancel`](Self::grow_cancel) to give up; writers find the mark and wait.
    pub fn grow_begin(self) -> GrowthStart {
        debug_assert!(self.is_shared());
        let _locked = Locked::new(self);
        if self.header().has(flags::GROWING) {
            GrowthStart::Already
        } else if !self.node_block().is_full() || self.header().has(flags::FROZEN) {
            // A frozen table's writers find that out when they try again.
            GrowthStart::Room
        } else {
            self.header().set_flags(flags::GROWING);
            GrowthStart::Started
        }
    }

    /// Copies a shared table's nodes to a larger block, gives that to the table and lets writers go on. The caller wakes them.
    /// The former block is to be released after another handshake.
    ///
    /// After an error the table still grows: the caller collects and calls again, or cancels.
    pub fn grow_finish(
        self,
        local: &LocalHeap,
        poll: &mut dyn FnMut(),
    ) -> Result<Retired, NeedMemory> {
        debug_assert!(self.is_shared() && self.header().has(flags::GROWING));
        let done = self.copy_nodes(local, poll);
        local.keep(None::<Gc<Table>>, None::<Gc<Table>>);
        done
    }

    fn copy_nodes(self, local: &LocalHeap, poll: &mut dyn FnMut()) -> Result<Retired, NeedMemory> {
        let mut pace = Pace::new(poll);
        let old = self.node_block();
        let mut live = 0;
        for i in 0..old.count() {
            live += usize::from(!old.node(i as u32).value().is_nil());
            pace.step(3);
        }
        let new = NodeBlock::new(local, nodes_for(live), pace.poll)?;
        local.keep(None::<Gc<Table>>, Some(new));
        for i in 0..old.count() {
            let node = old.node(i as u32);
            let value = node.value();
            if !value.is_nil() {
                // SAFETY: the block is not the table's yet, so it is ours.
                let inserted = unsafe { new.insert(node.key(), node.hash(), value) };
                debug_assert!(inserted.is_some());
            }
            pace.step(6);
        }
        // Release: a reader that finds the new block finds it filled. Then the mark goes: a writer that no longer
        // finds it finds the new block, for both are read and written in the same order.
        self.fields().nodes.store(new.as_ptr(), Ordering::Release);
        self.header().clear_flags(flags::GROWING);
        Ok(Retired(old))
    }

    /// Gives up a growth that [`grow_begin`](Self::grow_begin) started. The caller wakes the writers that wait.
    pub fn grow_cancel(self) {
        self.header().clear_flags(flags::GROWING);
    }

    /// The dense block of a shared table, one that can have a radix: an empty table is given a block of its own.
    pub(super) fn dense_with_radix(self, local: &LocalHeap) -> Result<Gc<DenseBlock>, NeedMemory> {
        let dense = self.dense_block();
        if !dense.is_static() {
            return Ok(dense);
        }
        let new = DenseBlock::new(local, 0, &mut || ())?;
        // Release, so that who finds the block finds it initialised; the boundary between dense and radix stays at 0.
        let exchanged = self.fields().dense.compare_exchange(
            DenseBlock::empty(),
            new.as_ptr(),
            Ordering::Release,
            Ordering::Acquire,
        );
        if exchanged.is_err() {
            // SAFETY: the block was not given to the table.
            unsafe { new.free(local) };
        }
        Ok(self.dense_block())
    }
}
