//! Iteration.
//!
//! The order is: dense block, radix, nodes. An iteration goes through the nodes of *one* block, the one that the table had when it began,
//! even if the table has grown since; values come from the table as it is. Keys in a block never
//! move or go, so each key that stays in the table throughout is given once, whatever others insert meanwhile.

use super::key::{Key, Lookup};
use super::{NodeBlock, Table, radix};
use crate::heap::{Kind, LocalHeap, SLICE};
use crate::object::{Gc, Object};
use crate::value::{Tag, Value};

// SAFETY: laid out as the trait demands; no other type has this kind. The static block is never made a value.
unsafe impl Object for NodeBlock {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::NodeBlock];
}

/// What a step of an iteration found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A key whose value is not nil, and where to go on.
    Entry {
        /// Where to go on.
        cursor: u64,
        /// The key.
        key: Value,
        /// Its value.
        value: Value,
    },
    /// Nothing yet after 2048 slots: to go on from here after a safepoint.
    Pause(u64),
    /// There are no more.
    End,
}

/// The key given to `next` is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

/// Cursors below are indices of integer keys; from here on, of nodes.
const NODES: u64 = 1 << 32;

impl Gc<Table> {
    /// Begins an iteration: gives the value to hand to [`next_at`](Self::next_at) with the cursor 0. It is the
    /// table's block of nodes, or nil, and must be in a root at every safepoint as long as the iteration may go on; a program
    /// never sees it.
    #[inline]
    pub fn begin_iteration(self) -> Value {
        let nodes = self.node_block();
        if nodes.is_static() {
            return Value::NIL;
        }
        nodes.set_iterated();
        nodes.value()
    }

    /// The first entry at `cursor` or after. `snapshot` is what [`begin_iteration`](Self::begin_iteration) gave for this table. Looks at
    /// 2048 slots at most.
    #[inline]
    pub fn next_at(self, snapshot: Value, cursor: u64) -> Next {
        let dense = self.dense_block();
        if cursor < dense.capacity() as u64 {
            let value = dense.get(cursor as usize);
            if !value.is_nil() {
                return Next::Entry {
                    cursor: cursor + 1,
                    key: Value::small(cursor as i32 + 1),
                    value,
                };
            }
        }
        self.step(Gc::from_value(snapshot), cursor)
    }

    fn step(self, snapshot: Option<Gc<NodeBlock>>, cursor: u64) -> Next {
        let mut cursor = cursor;
        let mut left = SLICE;
        if cursor < NODES {
            let dense = self.dense_block();
            let capacity = dense.capacity() as u64;
            while cursor < capacity {
                if left == 0 {
                    return Next::Pause(cursor);
                }
                left -= 1;
                let value = dense.get(cursor as usize);
                cursor += 1;
                if !value.is_nil() {
                    return Next::Entry {
                        cursor,
                        key: Value::small(cursor as i32),
                        value,
                    };
                }
            }
            if self.is_shared() {
                while let Some((x, value)) = radix::next(dense.radix_edge(), cursor - capacity) {
                    cursor = capacity + x;
                    if left == 0 {
                        return Next::Pause(cursor);
                    }
                    left -= 1;
                    cursor += 1;
                    if !value.is_nil() {
                        return Next::Entry {
                            cursor,
                            key: Value::small(cursor as i32),
                            value,
                        };
                    }
                }
            }
            cursor = NODES;
        }
        let Some(block) = snapshot else {
            return Next::End;
        };
        let current = self.node_block() == block;
        let count = block.count() as u64;
        while cursor - NODES < count {
            if left == 0 {
                return Next::Pause(cursor);
            }
            left -= 1;
            let node = block.node((cursor - NODES) as u32);
            cursor += 1;
            let key = node.key();
            if key.is_nil() {
                continue;
            }
            let value = if current { node.value() } else { self.get(key) };
            if !value.is_nil() {
                return Next::Entry { cursor, key, value };
            }
        }
        Next::End
    }

    /// Where an iteration that gave `key` last goes on; from nil, at the beginning.
    pub fn cursor_after(self, snapshot: Value, key: Value) -> Result<u64, InvalidKey> {
        self.after(Gc::from_value(snapshot), key)
    }

    fn after(self, nodes: Option<Gc<NodeBlock>>, key: Value) -> Result<u64, InvalidKey> {
        let lookup = match Key::of(key) {
            Key::Nil => return Ok(0),
            Key::Nan => return Err(InvalidKey),
            Key::Other(lookup) => lookup,
            Key::Integer(i) => {
                if i >= 1 && i as u64 <= self.dense_block().capacity() as u64 {
                    return Ok(i as u64);
                }
                Lookup::integer(i)
            }
        };
        if let Some(index) = nodes.and_then(|nodes| nodes.find(&lookup)) {
            return Ok(NODES + index as u64 + 1);
        }
        if let Key::Integer(i) = Key::of(key)
            && self.is_shared()
            && i >= 1
        {
            let dense = self.dense_block();
            let x = i as u64 - 1 - dense.capacity() as u64;
            if x < radix::SPAN && radix::find(dense.radix_edge(), x).is_some() {
                return Ok(i as u64);
            }
        }
        Err(InvalidKey)
    }

    /// The entry after `key`, as Lua's `next`; from nil, the first. The key may have been removed, but not so long ago that
    /// the table has grown since. Over a shared table that grows, keys may be given again or left out:
    /// [`next_in`](Self::next_in) is for that.
    ///
    /// Passes safepoints while it finds nothing; the table and the key are in roots.
    pub fn next(
        self,
        local: &LocalHeap,
        key: Value,
        poll: &mut dyn FnMut(),
    ) -> Result<Option<(Value, Value)>, InvalidKey> {
        let nodes = Some(self.node_block()).filter(|block| !block.is_static());
        let cursor = self.after(nodes, key)?;
        Ok(self.walk(local, nodes, cursor, poll))
    }

    /// The entry after `key` in the iteration that [`begin_iteration`](Self::begin_iteration) began for this table with `snapshot`, which
    /// is in a root. `key` is one that the iteration gave, or nil for the first. Over a table that others change meanwhile, and that grows, each key
    /// that stays is given exactly once.
    ///
    /// Passes safepoints while it finds nothing; the table and the key are in roots.
    #[inline]
    pub fn next_in(
        self,
        local: &LocalHeap,
        snapshot: Value,
        key: Value,
        poll: &mut dyn FnMut(),
    ) -> Result<Option<(Value, Value)>, InvalidKey> {
        let nodes = Gc::from_value(snapshot);
        let cursor = self.after(nodes, key)?;
        Ok(self.walk(local, nodes, cursor, poll))
    }

    /// As [`next_in`](Self::next_in), without passing a safepoint: nil and nil at the end; `None` if the key is not found or the search is long.
    #[inline]
    pub(crate) fn entry_after(
        self,
        nodes: Option<Gc<NodeBlock>>,
        key: Value,
    ) -> Option<(Value, Value)> {
        let cursor = self.after(nodes, key).ok()?;
        match self.step(nodes, cursor) {
            Next::Entry { key, value, .. } => Some((key, value)),
            Next::End => Some((Value::NIL, Value::NIL)),
            Next::Pause(_) => None,
        }
    }

    fn walk(
        self,
        local: &LocalHeap,
        nodes: Option<Gc<NodeBlock>>,
        from: u64,
        poll: &mut dyn FnMut(),
    ) -> Option<(Value, Value)> {
        let mut cursor = from;
        loop {
            match self.step(nodes, cursor) {
                Next::Entry { key, value, .. } => return Some((key, value)),
                Next::End => return None,
                Next::Pause(at) => {
                    cursor = at;
                    if let Some(nodes) = nodes {
                        nodes.set_iterated();
                    }
                    local.keep(nodes, None::<Gc<Table>>);
                    poll();
                    local.keep(None::<Gc<Table>>, None::<Gc<Table>>);
                }
            }
        }
    }
}
