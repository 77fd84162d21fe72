//! A bounded queue of words for any number of producers and consumers, first in first out, over memory that the caller provides.
//!
//! It is Vyukov's bounded queue ("Bounded MPMC queue", 1024cores.net, 2010) with stamps that count laps, as crossbeam's `ArrayQueue` has them, so
//! that any capacity from 1 on will do; and with a mark that closes it.
//!
//! # Protocol
//!
//! `tail` and `head` number the pushes and pops that were begun; a number's slot is the number modulo the capacity, its *lap* the
//! quotient. A slot's stamp is 2·lap when it is free for the push of that lap, and 2·lap + 1 when it holds what that push put there.
//!
//! | step | access | ordering, and why |
//! | --- | --- | --- |
//! | push finds the slot free | stamp load | acquire: the pop that freed it has read the word |
//! | push takes the number | `tail` compare-exchange | sequentially consistent: against `head` in [`push`](Ring::push)'s look for room, and against [`close`](Ring::close) |
//! | push stores the word | word store | relaxed: published by the stamp |
//! | push completes | stamp store | release |
//! | pop finds the slot full | stamp load | acquire: the word is there |
//! | pop takes the number | `head` compare-exchange | sequentially consistent, likewise |
//! | pop frees the slot | stamp store, after the word was read | release |
//! | close | `tail` fetch-or of the top bit | sequentially consistent: a push that comes later fails its compare-exchange |
//!
//! *A push that succeeded is never lost to a closing.* The mark is in `tail`: a push either took its number before, and then `tail` differs from `head` until
//! that number has been popped, or fails.
//!
//! *Full and empty are told truly.* A stamp that is not the one wanted may belong to an operation under way. `push` says "full" only when `head`, read after the stamp, is a whole
//! capacity behind; `pop` says "empty" only when `tail` equals its number. Otherwise the other side is between its two steps, and the caller looks again: these
//! steps have no loop and no safepoint between them, so this ends as a spinlock's wait does, and is the one exception to the rule that nothing here waits.

use crate::atomic::{AtomicU64, AtomicUsize, Ordering, full_fence, spin_loop};

/// In `tail`: no push succeeds any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// One place of a ring.
#[repr(C)]
pub struct Slot {
    stamp: AtomicUsize,
    word: AtomicU64,
}

impl Slot {
    /// A free place that holds `word`, which nobody will be given.
    pub fn new(word: u64) -> Slot {
        Slot {
            stamp: AtomicUsize::new(0),
            word: AtomicU64::new(word),
        }
    }

    /// What it holds, or held last. For collectors, with everybody else stopped.
    pub fn word(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }
}

/// Why a word was not pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room.
    Full,
    /// The ring is closed.
    Closed,
}

/// What a pop found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped {
    /// The oldest word.
    Word(u64),
    /// Nothing.
    Empty,
    /// Nothing, and there will be nothing: the ring is closed.
    Closed,
}

/// The two ends of a queue whose places are elsewhere. Producers and consumers are on lines of their own; the padding is plain, for memory that is
/// aligned to less than a line.
#[repr(C)]
pub struct Ring {
    tail: AtomicUsize,
    _between: [u64; 15],
    head: AtomicUsize,
    _behind: [u64; 15],
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

impl Ring {
    /// The ends of an empty ring.
    pub fn new() -> Ring {
        Ring {
            tail: AtomicUsize::new(0),
            _between: [0; 15],
            head: AtomicUsize::new(0),
            _behind: [0; 15],
        }
    }

    /// Puts `word` behind all others. `slots` are the ring's, at least one, always the same.
    pub fn push(&self, slots: &[Slot], word: u64) -> Result<(), Refused> {
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            if tail & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let slot = &slots[tail % slots.len()];
            let free = tail / slots.len() * 2;
            if slot.stamp.load(Ordering::Acquire) == free {
                match self.tail.compare_exchange_weak(
                    tail,
                    tail + 1,
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        slot.word.store(word, Ordering::Relaxed);
                        slot.stamp.store(free + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(found) => tail = found,
                }
                continue;
            }
            full_fence();
            let head = self.head.load(Ordering::Relaxed);
            let now = self.tail.load(Ordering::Relaxed);
            if now == tail && head + slots.len() == tail {
                return Err(Refused::Full);
            }
            if now == tail {
                // A pop has taken the slot's former number, and is about to free it.
                spin_loop();
            }
            tail = now;
        }
    }

    /// Takes the oldest word, and leaves `empty` in its place. `slots` as for [`push`](Self::push).
    pub fn pop(&self, slots: &[Slot], empty: u64) -> Popped {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let slot = &slots[head % slots.len()];
            let full = head / slots.len() * 2 + 1;
            if slot.stamp.load(Ordering::Acquire) == full {
                match self.head.compare_exchange_weak(
                    head,
                    head + 1,
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        let word = slot.word.load(Ordering::Relaxed);
                        slot.word.store(empty, Ordering::Relaxed);
                        slot.stamp.store(full + 1, Ordering::Release);
                        return Popped::Word(word);
                    }
                    Err(found) => head = found,
                }
                continue;
            }
            full_fence();
            let tail = self.tail.load(Ordering::Relaxed);
            let now = self.head.load(Ordering::Relaxed);
            if now == head && tail & !CLOSED == head {
                return if tail & CLOSED != 0 {
                    Popped::Closed
                } else {
                    Popped::Empty
                };
            }
            if now == head {
                // A push has taken the number, and is about to fill the slot.
                spin_loop();
            }
            head = now;
        }
    }

    /// Refuses all pushes from now on. Says whether it was open.
    pub fn close(&self) -> bool {
        self.tail.fetch_or(CLOSED, Ordering::SeqCst) & CLOSED == 0
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.tail.load(Ordering::Acquire) & CLOSED != 0
    }

    /// How many words it held at some moment during the call, or about so many while others push and pop.
    pub fn len(&self) -> usize {
        let tail = self.tail.load(Ordering::SeqCst) & !CLOSED;
        tail.saturating_sub(self.head.load(Ordering::SeqCst))
    }

    /// Whether there was nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
