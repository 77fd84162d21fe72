//! Publication: marking an object, and all that it reaches, as shared before another task can reach it.
//!
//! It goes depth first with a work list of its own, so that neither depth nor width of what is published touches the
//! machine stack, and stops for a safepoint every 2048 slots (16 KiB). The list is the core's and survives an error:
//! an object is marked and listed in one step, or neither, so that whatever is marked is either done or listed, and the next
//! publication on that core begins with what is left.

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::{Header, LocalHeap, NeedMemory, flags};
use crate::object::children;
use crate::value::Value;

/// Slots between two safepoints: 16 KiB.
pub(crate) const SLICE: usize = 2048;

/// What a visitor of an object's slots wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The next slot.
    On,
    /// To stop, and to go on with the next slot later.
    StopAfter,
    /// To stop, and to see this slot again later.
    StopBefore,
}

/// Visits what an object refers to, from position `from` (0 at first): at most about 2048 slots, fewer if the visitor stops.
/// Gives the position to go on from, or `None` when all have been seen.
///
/// It is called for an object that nobody changes meanwhile: its task owns it, or the collector is in its pause.
pub type TraceHook = unsafe fn(
    object: NonNull<Header>,
    from: usize,
    visit: &mut dyn FnMut(Value) -> Visit,
) -> Option<usize>;

#[derive(Clone, Copy)]
struct Entry {
    object: NonNull<Header>,
    position: usize,
}

const SEGMENT: usize = 1024;

type Segment = Vec<Entry>;

/// A stack in segments, so that it grows without copying what it holds.
pub(super) struct WorkList(UnsafeCell<Vec<Segment>>);

impl WorkList {
    pub(super) const fn new() -> WorkList {
        WorkList(UnsafeCell::new(Vec::new()))
    }

    /// Runs `f` on the segments. `f` calls nothing that could come back here.
    fn with<R>(&self, f: impl FnOnce(&mut Vec<Segment>) -> R) -> R {
        // SAFETY: the list is the core's own, and closures given here do not call back.
        f(unsafe { &mut *self.0.get() })
    }

    pub(super) fn push(&self, object: NonNull<Header>) -> Result<(), NeedMemory> {
        self.with(|segments| {
            if segments.last().is_none_or(|s| s.len() == SEGMENT) {
                let need = NeedMemory {
                    bytes: SEGMENT * size_of::<Entry>(),
                };
                let mut segment = Segment::new();
                segment.try_reserve_exact(SEGMENT).map_err(|_| need)?;
                segments.try_reserve(1).map_err(|_| need)?;
                segments.push(segment);
            }
            if let Some(segment) = segments.last_mut() {
                segment.push(Entry {
                    object,
                    position: 0,
                });
            }
            Ok(())
        })
    }

    fn top(&self) -> Option<Entry> {
        self.with(|segments| segments.last().and_then(|s| s.last().copied()))
    }

    #[cfg(test)]
    pub(super) fn top_object(&self) -> Option<NonNull<Header>> {
        self.top().map(|entry| entry.object)
    }

    /// Sets the position of the entry that is `below` the top.
    fn set_position(&self, below: usize, position: usize) {
        self.with(|segments| {
            let mut below = below;
            for segment in segments.iter_mut().rev() {
                if below < segment.len() {
                    let at = segment.len() - 1 - below;
                    segment[at].position = position;
                    return;
                }
                below -= segment.len();
            }
        });
    }

    /// Removes the entry that is `below` the top, 0 or 1, keeping the order of the others.
    pub(super) fn remove(&self, below: usize) {
        self.with(|segments| {
            let top = segments.last_mut().and_then(|s| s.pop());
            if segments.last().is_some_and(|s| s.is_empty()) {
                segments.pop();
            }
            if below == 1
                && let (Some(top), Some(segment)) = (top, segments.last_mut())
            {
                // The top takes the place of the one under it.
                if let Some(under) = segment.last_mut() {
                    *under = top;
                }
            }
        });
    }

    pub(super) fn each(&self, visit: &mut dyn FnMut(NonNull<Header>)) {
        self.with(|segments| {
            for entry in segments.iter().flat_map(|s| s.iter()) {
                visit(entry.object);
            }
        });
    }
}

impl LocalHeap {
    /// Marks as shared what `value` refers to and everything reachable from it, so that it may be stored where another
    /// task can reach it. Calls `poll` at least every 16 KiB of slots; a collection may happen in it, but nothing else
    /// that changes the objects. Until it returns, no other task may reach `value`.
    ///
    /// After an error the same call is made again once there is memory; what was marked by then is not lost.
    #[inline]
    pub fn publish(&self, value: Value, poll: &mut dyn FnMut()) -> Result<(), NeedMemory> {
        match value.object() {
            // SAFETY: a value's object lives.
            Some(object) if needs_publication(unsafe { object.as_ref() }) => {
                self.publish_object(object, poll)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn publish_object(
        &self,
        object: NonNull<Header>,
        poll: &mut dyn FnMut(),
    ) -> Result<(), NeedMemory> {
        // What an earlier attempt left is done before anything of this one: it is marked, so nobody else would look at it.
        let mut budget = SLICE;
        self.drain(&mut budget, poll)?;
        self.mark(object)?;
        self.drain(&mut budget, poll)
    }

    /// Marks an object and lists it, or neither.
    fn mark(&self, object: NonNull<Header>) -> Result<(), NeedMemory> {
        self.work.push(object)?;
        // SAFETY: it lives. It is not shared yet, so nobody else changes its header byte: no read-modify-write is needed.
        let flags = unsafe { &(*object.as_ptr()).flags };
        flags.store(
            flags.load(Ordering::Relaxed) | flags::SHARED,
            Ordering::Relaxed,
        );
        Ok(())
    }

    fn drain(&self, budget: &mut usize, poll: &mut dyn FnMut()) -> Result<(), NeedMemory> {
        while let Some(Entry { object, position }) = self.work.top() {
            let mut failed = None;
            let mut pushed = 0;
            let mut visited = 0;
            let mut visit = |value: Value| {
                visited += 1;
                let Some(child) = value.object() else {
                    return Visit::On;
                };
                // SAFETY: what a live object refers to lives.
                if !needs_publication(unsafe { child.as_ref() }) {
                    return Visit::On;
                }
                match self.mark(child) {
                    Ok(()) => {
                        pushed = 1;
                        Visit::StopAfter
                    }
                    Err(need) => {
                        failed = Some(need);
                        Visit::StopBefore
                    }
                }
            };
            // SAFETY: the object lives, for the list is a root; it is not reachable from other tasks yet, and no collection runs before `poll`.
            let next = unsafe { children(self.heap(), object, position, &mut visit) };
            match next {
                Some(next) => self.work.set_position(pushed, next),
                None => self.work.remove(pushed),
            }
            if let Some(need) = failed {
                return Err(need);
            }
            // An object costs a few slots' worth of work even if it has none.
            let cost = visited + 8;
            if cost >= *budget {
                *budget = SLICE;
                poll();
            } else {
                *budget -= cost;
            }
        }
        Ok(())
    }
}

/// Whether a value can be stored where another task reaches it as it is.
#[inline(always)]
pub(crate) fn is_public(value: Value) -> bool {
    // SAFETY: a value's object lives.
    value
        .object()
        .is_none_or(|object| unsafe { !needs_publication(object.as_ref()) })
}

/// Whether an object is neither shared nor of a kind that needs no sharing.
#[inline(always)]
fn needs_publication(object: &Header) -> bool {
    !object.kind().is_immutable() && !object.has(flags::SHARED)
}
