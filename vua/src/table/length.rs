//! The length, and what the library does at the end of a sequence.
//!
//! A border is an n with `t[n] ~= nil` (or n = 0) and `t[n+1] == nil`. A search holds a key that it has seen with a value and
//! a later one that it has seen without, and narrows the gap to one. If other tasks only append and remove at the end meanwhile, the
//! length was at most n when it saw the one and at least n when it saw the other, or the other way round; as it changes by one at a
//! time it was n in between, so `#` is whole.

use core::sync::atomic::Ordering;

use super::access::Locked;
use super::{SetError, Table};
use crate::heap::LocalHeap;
use crate::object::Gc;
use crate::value::Value;

/// How far a search goes on step by step from the hint before it halves.
const NEAR: usize = 8;

impl Gc<Table> {
    /// A border of the table. The time is logarithmic; constant near the last border that was found.
    pub fn length(self) -> i64 {
        let dense = self.dense_block();
        let capacity = dense.capacity();
        let hint = self.fields().border.load(Ordering::Relaxed);
        let at = (hint as usize).min(capacity);
        // Slot i holds key i + 1. `low` keys are known to end in a value, or none; key `high` has none.
        let (mut low, mut high);
        if at == 0 && capacity > 0 {
            // The first search. A table with holes has several borders, and programs rely on the one that the reference
            // implementation finds in a table that was filled in order: it halves all that there is room for.
            if dense.get(0).is_nil() {
                return 0;
            }
            if !dense.get(capacity - 1).is_nil() {
                return self.length_beyond(hint, capacity as i64);
            }
            (low, high) = (1, capacity);
        } else if at > 0 && dense.get(at - 1).is_nil() {
            (low, high) = (0, at);
            if at > 1 && !dense.get(at - 2).is_nil() {
                low = at - 1;
            }
        } else {
            low = at;
            let near = capacity.min(low + NEAR);
            while low < near && !dense.get(low).is_nil() {
                low += 1;
            }
            if low < near {
                high = low + 1;
            } else if low == capacity || !dense.get(capacity - 1).is_nil() {
                return self.length_beyond(hint, capacity as i64);
            } else {
                high = capacity;
            }
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if dense.get(middle - 1).is_nil() {
                high = middle;
            } else {
                low = middle;
            }
        }
        self.note_border(hint, low as i64)
    }

    /// The border where the last search ended, or behind the next value, if it is one that is seen at once.
    #[inline(always)]
    pub(crate) fn border_at_hint(self) -> Option<u32> {
        let dense = self.dense_block();
        let border = self.fields().border.load(Ordering::Relaxed);
        let at = border as usize;
        if at >= dense.capacity() || (at > 0 && dense.get(at - 1).is_nil()) {
            return None;
        }
        if dense.get(at).is_nil() {
            return Some(border);
        }
        if at == 0 {
            // The first search is not for here: `length` says why.
            return None;
        }
        if at + 1 < dense.capacity() && dense.get(at + 1).is_nil() {
            self.fields().border.store(border + 1, Ordering::Relaxed);
            return Some(border + 1);
        }
        None
    }

    /// A border of a table whose dense block is full, or empty.
    fn length_beyond(self, hint: u32, capacity: i64) -> i64 {
        if !self.is_shared() && self.node_block().is_static() {
            return self.note_border(hint, capacity);
        }
        let mut low = capacity;
        if hint as i64 > capacity && !self.get_int_beyond(hint as i64).is_nil() {
            low = hint as i64;
        }
        let mut step = 1;
        let mut high = loop {
            let Some(high) = low.checked_add(step) else {
                return low;
            };
            if self.get_int_beyond(high).is_nil() {
                break high;
            }
            low = high;
            step *= 2;
        };
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.get_int_beyond(middle).is_nil() {
                high = middle;
            } else {
                low = middle;
            }
        }
        self.note_border(hint, low)
    }

    /// Makes `end` the place where the next search begins: of a table just filled up to there, whose values may have been nil, `#` then is
    /// what Lua gives.
    pub fn filled(self, end: usize) {
        self.note_border(0, end as i64);
    }

    #[inline]
    fn note_border(self, hint: u32, border: i64) -> i64 {
        // Not written if it has not changed: on a shared table that would take the cache line from the readers.
        if border != hint as i64 && border <= u32::MAX as i64 {
            self.fields().border.store(border as u32, Ordering::Relaxed);
        }
        border
    }

    /// Stores `value` after the last of the sequence, as `table.insert(t, v)` without metamethods: whole on a shared table.
    /// What [`set`](Self::set) asks of its caller holds here too.
    pub fn insert_whole(self, local: &LocalHeap, value: Value) -> Result<(), SetError> {
        if !self.is_shared() {
            let key = self.length().wrapping_add(1);
            return self.set_int(local, key, value);
        }
        let locked = Locked::new(self);
        let key = self.length().wrapping_add(1);
        self.set_int_locked(local, key, value, &locked)
    }

    /// Removes the last of the sequence and gives it, as `table.remove(t)` without metamethods: whole on a shared table.
    pub fn remove_whole(self) -> Result<Value, SetError> {
        let _locked = if self.is_shared() {
            Some(Locked::new(self))
        } else {
            None
        };
        let last = self.length();
        match self.slot_int(last)? {
            // As in Lua, an empty sequence gives and removes what is at 0.
            None => Ok(Value::NIL),
            Some(slot) => {
                let value = slot.exchange(Value::NIL);
                if last >= 1 {
                    self.note_border(last as u32, last - 1);
                }
                Ok(value)
            }
        }
    }
}
