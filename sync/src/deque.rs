//! The work-stealing deque of Chase and Lev, one per core.
//!
//! Its owner pushes and pops at the bottom, last in first out; anyone else steals from the top, first in first out. The
//! algorithm is that of D. Chase and Y. Lev, "Dynamic circular work-stealing deque" (SPAA 2005), with the orderings that N. M.
//! Lê, A. Pop, A. Cohen and F. Zappa Nardelli proved for weak memory ("Correct and efficient work-stealing for
//! weak memory models", PPoPP 2013).
//!
//! # Protocol
//!
//! The items are those with indices from `top` up to, not including, `bottom`; the item of index `i` is in slot
//! `i mod capacity` of the ring. Indices only say how many items ever were, so they never run out (2⁶³).
//!
//! | word | written by | how |
//! | --- | --- | --- |
//! | `top` | thieves; the owner when it takes the last item | compare-and-swap, only ever to one more |
//! | `bottom` | the owner | plain store, release |
//! | `ring` | the owner, when it grows | plain store, release |
//! | slots | the owner | plain store, relaxed, before the store to `bottom` that makes the item visible |
//! | `top_seen` | the owner, alone | not shared: a value that `top` once had, read with acquire, so that a push seldom reads `top` and a pop of a deque known to be empty costs nothing |
//!
//! * **push**: slot, then `bottom` with release. The thief that acquires `bottom` sees the slot. Every store to `bottom` is a
//!   release, also those in `pop` that take it back: since C++20 a later plain store no longer carries what an earlier
//!   release store of the same thread published, so a thief that reads the later value must find the release there.
//! * **pop** against **steal**: the owner lowers `bottom`, then reads `top`; the thief reads `top`, then `bottom`; each with a full
//!   fence between the two. Of an owner and a thief that go for one item, at least one sees the other: either the
//!   owner sees `top` moved up, or the thief sees `bottom` moved down. Only when a single item is left can both see it,
//!   and then both must win the compare-and-swap of `top`. The full fence is the one expensive instruction of `pop`; `push` has
//!   none.
//! * **steal** reads the slot before its compare-and-swap. What it read counts only if the swap succeeds: then `top` did not move
//!   in between, so the slot still held the item. The owner overwrites slot `i mod capacity` only after it has read, with
//!   acquire, a `top` greater than `i`, and that was written by a swap that came after the read of the slot.
//! * **Growing**: the owner copies the items into a ring twice as large and publishes it with release. Thieves that
//!   still have the old ring read the same items there, because the owner never writes to it again. Old rings are
//!   kept until the deque is dropped; since each is half of the next, they take less memory together than the newest.
//! * `is_empty` and `len` are single looks without a fence. Who must not miss an item puts a
//!   [`full_fence`] before the look, and the pusher one after the push.
//!
//! Races considered, each a loom test: steal against pop for the last item; two thieves and the owner for two items (a
//! pop without swap relies on `top` not being read older than what any thief acted on); steal across a growth; steal with
//! a `top` so old that its slot was reused.

use alloc::boxed::Box;
use core::cell::Cell;
use core::num::NonZeroUsize;
use core::ptr;
use crossbeam_utils::CachePadded;

use crate::atomic::{AtomicIsize, AtomicPtr, AtomicUsize, Ordering, full_fence};

/// How many items a deque holds before it first grows, unless told otherwise: 2 KiB, deeper than most task trees.
pub const DEFAULT_CAPACITY: usize = 256;

/// What an attempt to steal brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steal {
    /// There was nothing.
    Empty,
    /// Another core took the item at the same moment; there may be more.
    Retry,
    /// The oldest item, now the caller's.
    Success(NonZeroUsize),
}

struct Ring {
    slots: Box<[AtomicUsize]>,
    /// The ring before this one, or null: thieves may still be reading it.
    previous: *mut Ring,
}

impl Ring {
    fn create(capacity: usize, previous: *mut Ring) -> *mut Ring {
        debug_assert!(capacity.is_power_of_two());
        let slots = (0..capacity).map(|_| AtomicUsize::new(0)).collect();
        Box::into_raw(Box::new(Ring { slots, previous }))
    }

    #[inline]
    fn slot(&self, index: isize) -> &AtomicUsize {
        let place = index as usize & (self.slots.len() - 1);
        // SAFETY: the number of slots is a power of two, and never zero, so the masked index is below it.
        unsafe { self.slots.get_unchecked(place) }
    }
}

/// A work-stealing deque of words. See the [module](self).
pub struct Deque {
    top: CachePadded<AtomicIsize>,
    owner: CachePadded<OwnerSide>,
}

/// What the owner writes, on a line of its own.
struct OwnerSide {
    bottom: AtomicIsize,
    ring: AtomicPtr<Ring>,
    /// Some earlier value of `top`; touched by the owner only.
    top_seen: Cell<isize>,
}

// SAFETY: everything but `top_seen` is atomic, and `top_seen` is used only in `push` and `pop`, whose callers promise that
// there is one of them at a time. Rings are freed only by `drop`, which has the deque for itself.
unsafe impl Sync for Deque {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Deque {}

impl Deque {
    /// An empty deque with [`DEFAULT_CAPACITY`].
    pub fn new() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }

    /// An empty deque with room for `capacity` items (rounded up to a power of two, at least 2) before it grows.
    pub fn with_capacity(capacity: usize) -> Self {
        let ring = Ring::create(capacity.max(2).next_power_of_two(), ptr::null_mut());
        Self {
            top: CachePadded::new(AtomicIsize::new(0)),
            owner: CachePadded::new(OwnerSide {
                bottom: AtomicIsize::new(0),
                ring: AtomicPtr::new(ring),
                top_seen: Cell::new(0),
            }),
        }
    }

    /// Puts `word` at the bottom. Allocates when the ring is full; otherwise two plain stores. A release: what the caller
    /// wrote before is visible to whoever pops or steals the word.
    ///
    /// # Safety
    /// Only the deque's owner calls `push` and [`pop`](Self::pop), one call at a time, each happening before the next.
    #[inline]
    pub unsafe fn push(&self, word: NonZeroUsize) {
        let bottom = self.owner.bottom.load(Ordering::Relaxed);
        // SAFETY: the pointer is always to a ring of this deque, and rings live as long as the deque.
        let mut ring = unsafe { &*self.owner.ring.load(Ordering::Relaxed) };
        if bottom - self.owner.top_seen.get() >= ring.slots.len() as isize {
            ring = self.make_room(bottom, ring);
        }
        ring.slot(bottom).store(word.get(), Ordering::Relaxed);
        self.owner.bottom.store(bottom + 1, Ordering::Release);
    }

    /// The ring to push into when `ring` seems full: itself if thieves have taken something meanwhile, else a larger one.
    #[cold]
    #[inline(never)]
    fn make_room<'a>(&'a self, bottom: isize, ring: &'a Ring) -> &'a Ring {
        let top = self.top.load(Ordering::Acquire);
        self.owner.top_seen.set(top);
        if bottom - top < ring.slots.len() as isize {
            return ring;
        }
        let old = self.owner.ring.load(Ordering::Relaxed);
        let new = Ring::create(ring.slots.len() * 2, old);
        // SAFETY: made above; nobody else has it yet, and it lives as long as the deque.
        let larger = unsafe { &*new };
        for index in top..bottom {
            let word = ring.slot(index).load(Ordering::Relaxed);
            larger.slot(index).store(word, Ordering::Relaxed);
        }
        self.owner.ring.store(new, Ordering::Release);
        larger
    }

    /// Takes the word that was pushed last, if any is left. Never allocates. One full fence, unless the deque was already seen to be
    /// empty.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    #[inline]
    pub unsafe fn pop(&self) -> Option<NonZeroUsize> {
        let bottom = self.owner.bottom.load(Ordering::Relaxed) - 1;
        if bottom < self.owner.top_seen.get() {
            return None;
        }
        // SAFETY: as in `push`.
        let ring = unsafe { &*self.owner.ring.load(Ordering::Relaxed) };
        self.owner.bottom.store(bottom, Ordering::Release);
        full_fence();
        let top = self.top.load(Ordering::Acquire);
        if top < bottom {
            return NonZeroUsize::new(ring.slot(bottom).load(Ordering::Relaxed));
        }
        let mut word = None;
        if top == bottom {
            let mine = self
                .top
                .compare_exchange(top, top + 1, Ordering::SeqCst, Ordering::Acquire)
                .is_ok();
            if mine {
                word = NonZeroUsize::new(ring.slot(bottom).load(Ordering::Relaxed));
            }
        }
        // The deque is empty, with `top` at `bottom + 1`, whoever moved it there; until the next push, `pop` need not look.
        self.owner.top_seen.set(bottom + 1);
        self.owner.bottom.store(bottom + 1, Ordering::Release);
        word
    }

    /// Takes the word that was pushed last if it is `word`: whether it was. As [`pop`](Self::pop), and without a fence if it is another.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    #[inline]
    pub unsafe fn pop_if(&self, word: NonZeroUsize) -> bool {
        let bottom = self.owner.bottom.load(Ordering::Relaxed) - 1;
        if bottom < self.owner.top_seen.get() {
            return false;
        }
        // SAFETY: as in `push`. Only the owner writes slots, so this one holds what was pushed last, even if it has been stolen since.
        let ring = unsafe { &*self.owner.ring.load(Ordering::Relaxed) };
        // SAFETY: the caller is the owner.
        ring.slot(bottom).load(Ordering::Relaxed) == word.get() && unsafe { self.pop() }.is_some()
    }

    /// Takes the oldest word. Callable by anyone, from any context; never waits and never allocates. An acquire of what its
    /// pusher wrote before.
    #[inline]
    pub fn steal(&self) -> Steal {
        let top = self.top.load(Ordering::Acquire);
        full_fence();
        let bottom = self.owner.bottom.load(Ordering::Acquire);
        if bottom - top <= 0 {
            return Steal::Empty;
        }
        // SAFETY: as in `push`. The ring is at least as new as `bottom`, so it holds the item of index `top`, if that is still
        // there.
        let ring = unsafe { &*self.owner.ring.load(Ordering::Acquire) };
        let word = ring.slot(top).load(Ordering::Relaxed);
        if self
            .top
            .compare_exchange(top, top + 1, Ordering::SeqCst, Ordering::Relaxed)
            .is_err()
        {
            return Steal::Retry;
        }
        match NonZeroUsize::new(word) {
            Some(word) => Steal::Success(word),
            None => unreachable!("a slot below bottom holds a word"),
        }
    }

    /// Whether no item was seen. See the [module](self) for what may be concluded.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items were seen.
    #[inline]
    pub fn len(&self) -> usize {
        let top = self.top.load(Ordering::Acquire);
        let bottom = self.owner.bottom.load(Ordering::Acquire);
        (bottom - top).max(0) as usize
    }
}

impl Default for Deque {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Deque {
    /// Frees the rings. Words that were left are forgotten: what they stand for is the user's to release.
    fn drop(&mut self) {
        let mut ring = self.owner.ring.load(Ordering::Relaxed);
        while !ring.is_null() {
            // SAFETY: each ring was made by `Box::into_raw`, is in the list once, and nobody else has the deque any more.
            let owned = unsafe { Box::from_raw(ring) };
            ring = owned.previous;
        }
    }
}
