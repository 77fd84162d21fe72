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
//! Both lists are roots once they must be: the due ones always, the registered ones when the program ends and all are to be finalized.
//! When there is no memory to make an object due it stays registered, and alive, until the next collection.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::mark::Marker;
use crate::heap::{Heap, NeedMemory, flags};
use crate::object::Gc;
use crate::table::Table;

/// Those of all programs, by their numbers.
pub(in crate::heap) struct Finalizers(Vec<Queue>);

/// Those of one program: the one that registered them.
#[derive(Default)]
struct Queue {
    /// In the order in which they were registered.
    registered: Vec<Gc<Table>>,
    /// In the order in which they are to be finalized.
    due: VecDeque<Gc<Table>>,
    /// The program ends: whatever is registered is due, and nothing is registered any more.
    closing: bool,
}

// SAFETY: handles are plain addresses; registered tables are shared.
unsafe impl Send for Finalizers {}

impl Queue {
    fn next(&mut self) -> Option<Gc<Table>> {
        match self.due.pop_front() {
            None if self.closing => self.registered.pop(),
            due => due,
        }
    }

    fn has_due(&self) -> bool {
        !self.due.is_empty() || self.closing && !self.registered.is_empty()
    }

    fn mark(&self, marker: &mut Marker<'_>) {
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

    fn separate(&mut self, marker: &mut Marker<'_>) -> bool {
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
            for table in self.registered.iter().rev() {
                if !is_marked(table, marker) {
                    self.due.push_back(*table);
                }
            }
            self.registered.retain(|table| is_marked(table, marker));
        }
        true
    }

    /// Marks what [`separate`](Self::separate) found dead: by now it is due, or, for want of memory, still registered.
    fn mark_separated(&self, marker: &mut Marker<'_>) {
        for table in self.due.iter().chain(&self.registered) {
            // SAFETY: as above.
            unsafe { marker.object(table.header_ptr()) };
        }
    }
}

impl Finalizers {
    pub(in crate::heap) const fn new() -> Finalizers {
        Finalizers(Vec::new())
    }

    /// Program `number` begins, with nothing registered.
    pub(in crate::heap) fn open(&mut self, number: u32) -> Result<(), NeedMemory> {
        let queue = self.of(number)?;
        debug_assert!(queue.registered.is_empty() && queue.due.is_empty());
        *queue = Queue::default();
        Ok(())
    }

    fn of(&mut self, program: u32) -> Result<&mut Queue, NeedMemory> {
        let number = program as usize;
        if number >= self.0.len() {
            let more = number + 1 - self.0.len();
            self.0.try_reserve(more).map_err(|_| NeedMemory {
                bytes: more * size_of::<Queue>(),
            })?;
            self.0.resize_with(number + 1, Queue::default);
        }
        Ok(&mut self.0[number])
    }

    /// Marks what is to be finalized.
    pub(super) fn mark(&self, marker: &mut Marker<'_>) {
        for queue in &self.0 {
            queue.mark(marker);
        }
    }

    /// In the pause, all else being marked: makes those due that are not, and marks them. Whether there were any. All are looked at before any is marked: what
    /// one program's object refers to may be another's.
    pub(super) fn separate(&mut self, marker: &mut Marker<'_>) -> bool {
        let mut any = false;
        for queue in &mut self.0 {
            any |= queue.separate(marker);
        }
        if any {
            for queue in &self.0 {
                queue.mark_separated(marker);
            }
        }
        any
    }
}

impl Heap {
    /// The table, which is published, has a finalizer from now on, unless it has one already: the program's task of finalizers will run it.
    pub(crate) fn register_finalizer(
        &self,
        program: u32,
        table: Gc<Table>,
    ) -> Result<(), NeedMemory> {
        let mut finalizers = self.finalizers.lock();
        let queue = finalizers.of(program)?;
        if queue.closing || table.header().has(flags::FINALIZE) {
            return Ok(());
        }
        queue.registered.try_reserve(1).map_err(|_| NeedMemory {
            bytes: 2 * size_of::<Gc<Table>>() * queue.registered.len(),
        })?;
        queue.registered.push(table);
        table.header().set_flags(flags::FINALIZE);
        Ok(())
    }

    /// Takes the next object that the program is to finalize. The caller has it in a frame before its next safepoint.
    pub(crate) fn next_due(&self, program: u32) -> Option<Gc<Table>> {
        let mut finalizers = self.finalizers.lock();
        let table = finalizers.0.get_mut(program as usize)?.next()?;
        // Its finalizer, or whoever finds it where that stored it, may register it again.
        table.header().clear_flags(flags::FINALIZE);
        Some(table)
    }

    /// Whether the program is to finalize objects.
    pub(crate) fn has_due(&self, program: u32) -> bool {
        let finalizers = self.finalizers.lock();
        let queue = finalizers.0.get(program as usize);
        queue.is_some_and(Queue::has_due)
    }

    /// The program ends: all its objects with finalizers are to be finalized, the one registered last first. Whether there are any.
    pub(crate) fn finalize_all(&self, program: u32) -> bool {
        // Without memory for its list it has none.
        self.finalizers.lock().of(program).is_ok_and(|queue| {
            queue.closing = true;
            queue.has_due()
        })
    }

    /// The program is ended at once, without finalizers.
    pub(crate) fn forget_finalizers(&self, program: u32) {
        if let Ok(queue) = self.finalizers.lock().of(program) {
            for table in queue.registered.drain(..).chain(queue.due.drain(..)) {
                table.header().clear_flags(flags::FINALIZE);
            }
            queue.closing = true;
        }
    }
}
