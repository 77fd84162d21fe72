//! Objects with finalizers (`__gc`): which there are, and which are to be finalized.
//!
//! An object is *registered* when it gets a metatable with a `__gc`, in the order in which that happens, and published at that moment: the task that
//! will run its finalizer is another one. (To publish only what turns out to be dead would mean walking, in the pause, over what no bound is known of, with memory for
//! a list, and would make objects shared that a task on another core is in the middle of treating as its own.) It then has [`flags::FINALIZE`], so that it is registered once.
//!
//! When all is marked that is reachable, ephemerons included, and values have gone from weak tables, the collector moves those registered that are not marked to the *due* ones, the one
//! registered last first, and marks them with all they reach: they live until their finalizer has run, and longer if that stores them somewhere. Keys go from weak tables
//! after that: a finalizer still finds what its object is the key of. The order of these steps is Lua's (reference manual, 2.5.3 and 2.5.4).
//!
//! Both lists are roots once they must be: the due ones always, the registered ones when the program ends and [all](Finalizers::close) are to be finalized.
//! When there is no memory to make an object due it stays registered, and alive, until the next collection.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::mark::Marker;
use crate::heap::{Heap, NeedMemory, flags};
use crate::object::Gc;
use crate::table::Table;

/// See the module.
pub(in crate::heap) struct Finalizers {
    /// In the order in which they were registered.
    registered: Vec<Gc<Table>>,
    /// In the order in which they are to be finalized.
    due: VecDeque<Gc<Table>>,
    /// The program ends: whatever is registered is due, and nothing is registered any more.
    closing: bool,
}

// SAFETY: handles are plain addresses; registered tables are shared.
unsafe impl Send for Finalizers {}

impl Finalizers {
    pub(in crate::heap) const fn new() -> Finalizers {
        Finalizers {
            registered: Vec::new(),
            due: VecDeque::new(),
            closing: false,
        }
    }

    fn next(&mut self) -> Option<Gc<Table>> {
        match self.due.pop_front() {
            None if self.closing => self.registered.pop(),
            due => due,
        }
    }

    fn has_due(&self) -> bool {
        !self.due.is_empty() || self.closing && !self.registered.is_empty()
    }

    /// Marks what is to be finalized.
    pub(super) fn mark(&self, marker: &mut Marker<'_>) {
        let kept = if self.closing {
            &self.registered[..]
        } else {
            &[]
        };
        for table in self.due.iter().chain(kept) {
            // SAFETY: registered tables are objects of the heap, and live until they are taken off the lists.
            unsafe { marker.object(table.header_ptr()) };
        }
    }

    /// In the pause, all else being marked: makes those due that are not, and marks them. Whether there were any.
    pub(super) fn separate(&mut self, marker: &mut Marker<'_>) -> bool {
        if self.closing {
            return false;
        }
        // SAFETY: registered tables have not been swept: they were alive, or new, when the last collection ended.
        let is_marked = |table: &Gc<Table>, marker: &Marker<'_>| unsafe {
            marker.is_marked(table.header_ptr())
        };
        let dead = self
            .registered
            .iter()
            .filter(|table| !is_marked(table, marker))
            .count();
        if dead == 0 {
            return false;
        }
        if self.due.try_reserve(dead).is_ok() {
            let first = self.due.len();
            for table in self.registered.iter().rev() {
                if !is_marked(table, marker) {
                    self.due.push_back(*table);
                }
            }
            self.registered.retain(|table| is_marked(table, marker));
            for table in self.due.range(first..) {
                // SAFETY: as above.
                unsafe { marker.object(table.header_ptr()) };
            }
        } else {
            for table in &self.registered {
                // SAFETY: as above.
                unsafe { marker.object(table.header_ptr()) };
            }
        }
        true
    }
}

impl Heap {
    /// The table, which is published, has a finalizer from now on, unless it has one already.
    pub(crate) fn register_finalizer(&self, table: Gc<Table>) -> Result<(), NeedMemory> {
        let mut finalizers = self.finalizers.lock();
        if finalizers.closing || table.header().has(flags::FINALIZE) {
            return Ok(());
        }
        finalizers
            .registered
            .try_reserve(1)
            .map_err(|_| NeedMemory {
                bytes: 2 * size_of::<Gc<Table>>() * finalizers.registered.len(),
            })?;
        finalizers.registered.push(table);
        table.header().set_flags(flags::FINALIZE);
        Ok(())
    }

    /// Takes the next object that is to be finalized. The caller has it in a frame before its next safepoint.
    pub(crate) fn next_due(&self) -> Option<Gc<Table>> {
        let table = self.finalizers.lock().next()?;
        // Its finalizer, or whoever finds it where that stored it, may register it again.
        table.header().clear_flags(flags::FINALIZE);
        Some(table)
    }

    /// Whether objects are to be finalized.
    pub(crate) fn has_due(&self) -> bool {
        self.finalizers.lock().has_due()
    }

    /// The program ends: all objects with finalizers are to be finalized, the one registered last first. Whether there are any.
    pub(crate) fn finalize_all(&self) -> bool {
        let mut finalizers = self.finalizers.lock();
        finalizers.closing = true;
        finalizers.has_due()
    }
}
