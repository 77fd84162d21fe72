//! An unbounded first-in, first-out queue of words, for any number of producers and consumers in any context.
//!
//! It takes spawns from outside, wake-ups from interrupt handlers, and tasks that yield. It is the queue of M. M. Michael and M.
//! L. Scott, "Simple, fast, and practical non-blocking and blocking concurrent queue algorithms" (PODC 1996), with their
//! counted pointers, over nodes that are recycled and not returned to the allocator before the queue is dropped. In the steady
//! state it never allocates, and at no point does an operation wait for another: an interrupt handler
//! may push while the code that it interrupted is halfway through a push of its own.
//!
//! # Protocol
//!
//! Nodes are numbered from 1; number 0 means none. A link is one 64-bit word: a node's number in the low 28 bits and, above
//! it, a count that every change of that link raises. A compare-and-swap therefore fails if the link changed and changed back
//! since it was read (the count comes around after 2³⁶ changes of one link, an hour or more of nothing else).
//!
//! | word | holds | changed by |
//! | --- | --- | --- |
//! | `head` | the dummy node; the node after it holds the oldest word | consumers, compare-and-swap from the dummy to the node after it |
//! | `tail` | the last node, or one that was last a moment ago | anyone, compare-and-swap to the node after it |
//! | `node.next` | the node after this one; in a free node, the next free one | whoever links, compare-and-swap from none; the node's only holder, plain store |
//! | `node.word` | the queued word | the node's only holder, before it links the node |
//! | `free` | the first free node (a stack, R. K. Treiber 1986) | anyone, compare-and-swap |
//! | `chunks` | blocks of nodes, each twice as large as the one before | anyone who found no free node, compare-and-swap from null |
//!
//! * **push** takes a free node, which makes it the node's only holder, writes the word, sets `next` to none, and links the node
//!   behind the last one by a swap (release) of that node's `next`. This is the moment at which the word is queued. Then it moves
//!   `tail` along; whoever finds `tail` behind does that too, so nobody depends on the pusher finishing.
//! * **pop** reads `head`, `tail` and the dummy's `next` with acquire, in this order, and `head` once more to know that they belong
//!   together. `tail` read after `head` is never behind it: who moved `head` to this node had seen `tail` at it or after
//!   it, and wrote `head` with release. It reads the word *before* its swap of `head`: afterwards the node is the new dummy, may
//!   be dequeued, and its word overwritten. A word that was read too late is thrown away, because then the swap fails.
//! * The old dummy is freed only by the consumer whose swap took it out, and then `tail` is past it; so a free node is in
//!   neither chain, and no operation that still knows its number can change anything through it: counts differ.
//! * `is_empty` looks at `head` and at that node's `next`, and again at `head`. After a full fence it does not miss a push that was
//!   followed by a full fence earlier: it sees `head` and links at least as new as the pusher did, and a `next` that was set
//!   to none for a later use of the node is stored with release, so that who reads it sees that `head` has moved on.
//!
//! Races considered, each a loom test: push against push; push against pop on an empty queue; two pops for one word;
//! recycling of a node while a slow pop still holds its number; two pushes that both find no free node.

use alloc::boxed::Box;
use core::num::NonZeroUsize;
use core::ptr;
use crossbeam_utils::CachePadded;

use crate::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, spin_loop};

const NUMBER_BITS: u32 = 28;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

/// Nodes in the first chunk. Under the model checker as few as can be, so that chunks run out within a test.
const FIRST_CHUNK: usize = if cfg!(loom) { 2 } else { 64 };
/// Chunks until node numbers run out.
const CHUNKS: usize = if cfg!(loom) {
    4
} else {
    (NUMBER_BITS - FIRST_CHUNK.trailing_zeros()) as usize
};

/// A counted link: see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Link(u64);

impl Link {
    const NONE: Link = Link(0);

    fn node(self) -> usize {
        (self.0 & NUMBER_MASK) as usize
    }

    /// The link that follows `self` in the same place, to `node`.
    fn then(self, node: usize) -> Link {
        let count = (self.0 >> NUMBER_BITS).wrapping_add(1);
        Link(count << NUMBER_BITS | node as u64)
    }
}

struct Node {
    word: AtomicUsize,
    next: AtomicU64,
}

/// The queue has no free node, and was asked not to allocate. Holds the word back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub NonZeroUsize);

/// An unbounded queue of words. See the [module](self).
pub struct Injector {
    head: CachePadded<AtomicU64>,
    tail: CachePadded<AtomicU64>,
    free: CachePadded<AtomicU64>,
    chunks: [AtomicPtr<Node>; CHUNKS],
}

/// The chunk of node `number`, and the place in it.
fn place(number: usize) -> (usize, usize) {
    debug_assert_ne!(number, 0);
    let position = number - 1 + FIRST_CHUNK;
    let chunk = (position.ilog2() - FIRST_CHUNK.ilog2()) as usize;
    (chunk, position - (FIRST_CHUNK << chunk))
}

/// The number of the first node of `chunk`.
fn first_number(chunk: usize) -> usize {
    (FIRST_CHUNK << chunk) - FIRST_CHUNK + 1
}

impl Injector {
    /// An empty queue. Allocates its first 64 nodes.
    pub fn new() -> Self {
        let queue = Self {
            head: CachePadded::new(AtomicU64::new(Link::NONE.0)),
            tail: CachePadded::new(AtomicU64::new(Link::NONE.0)),
            free: CachePadded::new(AtomicU64::new(Link::NONE.0)),
            chunks: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        };
        let dummy = queue.grow();
        queue
            .head
            .store(Link::NONE.then(dummy).0, Ordering::Relaxed);
        queue
            .tail
            .store(Link::NONE.then(dummy).0, Ordering::Relaxed);
        queue
    }

    fn node(&self, number: usize) -> &Node {
        let (chunk, offset) = place(number);
        let start = self.chunks[chunk].load(Ordering::Acquire);
        debug_assert!(!start.is_null());
        // SAFETY: a number is handed out only after its chunk, which has `FIRST_CHUNK << chunk` nodes, was stored in
        // `chunks`, and reaches others through releasing stores after that; chunks live as long as the queue.
        unsafe { &*start.add(offset) }
    }

    /// Queues `word`. Allocates only when more words are queued than ever before. A release: what the caller wrote before is
    /// visible to who pops the word. Never waits.
    ///
    /// # Panics
    /// If 2²⁸ words are queued.
    pub fn push(&self, word: NonZeroUsize) {
        let number = self.take_free().unwrap_or_else(|| self.grow());
        self.link(number, word);
    }

    /// Queues `word` unless that would allocate, which an interrupt handler may not.
    pub fn try_push(&self, word: NonZeroUsize) -> Result<(), Full> {
        let number = self.take_free().ok_or(Full(word))?;
        self.link(number, word);
        Ok(())
    }

    /// Makes sure that there were `count` free nodes at some moment during the call.
    ///
    /// # Panics
    /// If node numbers run out.
    pub fn reserve(&self, count: usize) {
        let mut taken = Link::NONE;
        let mut last = None;
        for _ in 0..count {
            let number = self.take_free().unwrap_or_else(|| self.grow());
            let node = self.node(number);
            let next = Link(node.next.load(Ordering::Relaxed)).then(taken.node());
            node.next.store(next.0, Ordering::Release);
            last = last.or(Some(number));
            taken = taken.then(number);
        }
        if let Some(last) = last {
            self.give_free(taken.node(), last);
        }
    }

    fn link(&self, number: usize, word: NonZeroUsize) {
        let node = self.node(number);
        node.word.store(word.get(), Ordering::Relaxed);
        let next = Link(node.next.load(Ordering::Relaxed)).then(0);
        node.next.store(next.0, Ordering::Release);
        loop {
            let tail = Link(self.tail.load(Ordering::Acquire));
            let last = self.node(tail.node());
            let next = Link(last.next.load(Ordering::Acquire));
            if self.tail.load(Ordering::Acquire) != tail.0 {
                spin_loop();
                continue;
            }
            if next.node() != 0 {
                self.advance(tail, next);
            } else if last
                .next
                .compare_exchange(
                    next.0,
                    next.then(number).0,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
            {
                self.advance(tail, Link::NONE.then(number));
                return;
            }
        }
    }

    /// Moves `tail` to the node of `next`, unless somebody did.
    fn advance(&self, tail: Link, next: Link) {
        let moved = tail.then(next.node());
        let _ = self
            .tail
            .compare_exchange(tail.0, moved.0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes the oldest word. Callable from any context; never waits and never allocates. An acquire.
    pub fn pop(&self) -> Option<NonZeroUsize> {
        loop {
            let head = Link(self.head.load(Ordering::Acquire));
            let tail = Link(self.tail.load(Ordering::Acquire));
            let next = Link(self.node(head.node()).next.load(Ordering::Acquire));
            if self.head.load(Ordering::Acquire) != head.0 {
                spin_loop();
                continue;
            }
            if next.node() == 0 {
                return None;
            }
            if head.node() == tail.node() {
                self.advance(tail, next);
                continue;
            }
            let word = self.node(next.node()).word.load(Ordering::Relaxed);
            if self
                .head
                .compare_exchange(
                    head.0,
                    head.then(next.node()).0,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
            {
                self.give_free(head.node(), head.node());
                return NonZeroUsize::new(word);
            }
        }
    }

    /// Whether no word was seen. See the [module](self) for what may be concluded.
    pub fn is_empty(&self) -> bool {
        loop {
            let head = Link(self.head.load(Ordering::Acquire));
            let next = Link(self.node(head.node()).next.load(Ordering::Acquire));
            if self.head.load(Ordering::Acquire) == head.0 {
                return next.node() == 0;
            }
            spin_loop();
        }
    }

    fn take_free(&self) -> Option<usize> {
        loop {
            let free = Link(self.free.load(Ordering::Acquire));
            if free.node() == 0 {
                return None;
            }
            // A node that another core took meanwhile has any `next`; the swap then fails.
            let next = Link(self.node(free.node()).next.load(Ordering::Acquire));
            if self
                .free
                .compare_exchange(
                    free.0,
                    free.then(next.node()).0,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
            {
                return Some(free.node());
            }
            spin_loop();
        }
    }

    /// Puts the chain of nodes from `first` to `last`, which only the caller holds, on the stack of free ones.
    fn give_free(&self, first: usize, last: usize) {
        let node = self.node(last);
        loop {
            let free = Link(self.free.load(Ordering::Acquire));
            let next = Link(node.next.load(Ordering::Relaxed)).then(free.node());
            node.next.store(next.0, Ordering::Release);
            if self
                .free
                .compare_exchange(
                    free.0,
                    free.then(first).0,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
            {
                return;
            }
            spin_loop();
        }
    }

    /// Adds a chunk and returns one of its nodes; or a free node, if another core made one meanwhile.
    #[cold]
    fn grow(&self) -> usize {
        loop {
            let chunk = self
                .chunks
                .iter()
                .position(|chunk| chunk.load(Ordering::Acquire).is_null())
                .expect("fewer than 2^28 words are queued");
            let count = FIRST_CHUNK << chunk;
            let first = first_number(chunk);
            // The second node to the last, in a chain; the first is for the caller.
            let nodes: Box<[Node]> = (0..count)
                .map(|offset| Node {
                    word: AtomicUsize::new(0),
                    next: AtomicU64::new(if 0 < offset && offset + 1 < count {
                        Link::NONE.then(first + offset + 1).0
                    } else {
                        Link::NONE.0
                    }),
                })
                .collect();
            let start = Box::into_raw(nodes).cast::<Node>();
            if self.chunks[chunk]
                .compare_exchange(ptr::null_mut(), start, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                self.give_free(first + 1, first + count - 1);
                return first;
            }
            // SAFETY: made by `Box::into_raw` above with this length, and shown to nobody.
            drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(start, count)) });
            if let Some(number) = self.take_free() {
                return number;
            }
        }
    }
}

impl Default for Injector {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Injector {
    /// Frees the nodes. Words that were left are forgotten: what they stand for is the user's to release.
    fn drop(&mut self) {
        for (index, chunk) in self.chunks.iter().enumerate() {
            let start = chunk.load(Ordering::Relaxed);
            if !start.is_null() {
                let count = FIRST_CHUNK << index;
                // SAFETY: made by `Box::into_raw` in `grow` with this length; nobody else has the queue any more.
                drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(start, count)) });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_places_agree() {
        for chunk in 0..CHUNKS {
            assert_eq!(place(first_number(chunk)), (chunk, 0));
            assert_eq!(
                place(first_number(chunk) + (FIRST_CHUNK << chunk) - 1),
                (chunk, (FIRST_CHUNK << chunk) - 1)
            );
        }
        assert!(first_number(CHUNKS) as u64 <= NUMBER_MASK + 1);
    }

    #[test]
    fn a_link_counts_its_changes_and_comes_around() {
        let link = Link(!NUMBER_MASK).then(5);
        assert_eq!((link.node(), link.0 >> NUMBER_BITS), (5, 0));
        assert!(Link::NONE.then(7).then(7) != Link::NONE.then(7));
    }
}
