//! Weak tables: which of their entries keep what alive, and what becomes of the rest.
//!
//! A table is weak if its metatable's `__mode` is a string with `k` or `v` in it (reference manual, 2.5.4). A marker that comes to one marks its
//! blocks, but does not look into what is weak, and puts it on a list. When nothing is left to be marked, entries of tables with weak keys are looked at
//! in rounds (*ephemerons*: the value lives if the key does), until a round marks nothing. Then entries of dead objects are removed. Strings and numbers count as values, and are never
//! removed for their own sake.
//!
//! A removed entry keeps its node, as ever; but the node's key, if it is dead, is replaced by a NaN, which is no table's key, since keys of later objects at the same
//! address, and the collector itself, must not come upon it.
//!
//! Without memory for the list a table is taken for a strong one.

use alloc::vec::Vec;

use super::mark::Marker;
use crate::object::Gc;
use crate::table::Table;
use crate::value::{Tag, Value};

/// What of a table is weak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weakness {
    /// The values.
    Values,
    /// The keys.
    Keys,
    /// Both.
    Both,
}

/// What a metatable says, `name` being the string `__mode`.
pub(super) fn weakness(metatable: Gc<Table>, name: Value) -> Option<Weakness> {
    let mode = metatable.get(name).as_str()?;
    let has = |letter| mode.bytes().contains(&letter);
    match (has(b'k'), has(b'v')) {
        (true, true) => Some(Weakness::Both),
        (true, false) => Some(Weakness::Keys),
        (false, true) => Some(Weakness::Values),
        (false, false) => None,
    }
}

/// Weak tables that marking came to.
pub(super) type WeakTables = Vec<(Gc<Table>, Weakness)>;

impl Marker<'_> {
    /// Whether a value is one that weak tables keep: no reference, or one to an object that is marked. Strings and numbers are, and are marked here.
    fn lives(&mut self, value: Value) -> bool {
        let Some(object) = value.object() else {
            return true;
        };
        if value.has_tag(Tag::String) || value.has_tag(Tag::BoxedInteger) {
            self.value(value);
            return true;
        }
        // SAFETY: a value's object, which has not been swept.
        unsafe { self.is_marked(object) }
    }

    /// Marks what a weak table keeps alive whatever else does.
    pub(super) fn mark_weak(&mut self, table: Gc<Table>, weakness: Weakness) {
        let dense = table.dense_block();
        let nodes = table.node_block();
        // SAFETY: a live table in the pause; its blocks are objects of the heap unless they are the static ones.
        unsafe {
            if weakness == Weakness::Keys {
                // Integers are not objects, so what they lead to is not weak.
                if !dense.is_static() {
                    self.object(dense.header_ptr());
                }
            } else {
                if !dense.is_static() {
                    self.keep(dense.header_ptr());
                }
                dense.each_radix_node(&mut |node| {
                    self.keep(node);
                });
            }
            if !nodes.is_static() {
                self.keep(nodes.header_ptr());
            }
        }
        if weakness == Weakness::Values {
            for i in 0..nodes.count() {
                let (key, _) = nodes.entry(i as u32);
                self.value(key);
            }
        }
    }

    /// Marks the values whose keys live; whether there were any that were not marked.
    pub(super) fn mark_ephemerons(&mut self, table: Gc<Table>) -> bool {
        let nodes = table.node_block();
        let mut any = false;
        for i in 0..nodes.count() {
            let (key, value) = nodes.entry(i as u32);
            if !value.is_nil() && self.lives(key) && !self.lives(value) {
                self.value(value);
                any = true;
            }
        }
        any
    }

    /// Removes the entries whose values are dead.
    pub(super) fn clear_values(&mut self, table: Gc<Table>) {
        let nodes = table.node_block();
        for i in 0..nodes.count() {
            let (_, value) = nodes.entry(i as u32);
            if !self.lives(value) {
                nodes.clear(i as u32);
            }
        }
        table
            .dense_block()
            .clear_values(&mut |value| !self.lives(value));
    }

    /// Removes the entries of dead objects.
    pub(super) fn clear_weak(&mut self, table: Gc<Table>, weakness: Weakness) {
        let nodes = table.node_block();
        for i in 0..nodes.count() {
            let (key, value) = nodes.entry(i as u32);
            // The key of an entry that is there lives if it is a string; of one that went it need not.
            let lives = if value.is_nil() {
                // SAFETY: a key's object, which has not been swept.
                key.object()
                    .is_none_or(|object| unsafe { self.is_marked(object) })
            } else {
                self.lives(key)
            };
            if weakness != Weakness::Values && !lives {
                nodes.bury(i as u32);
            }
        }
        if weakness != Weakness::Keys {
            self.clear_values(table);
        }
    }
}
