//! The lock-free structures that the engine uses, and nothing that knows what they are used for.
//!
//! * [`deque`]: the work-stealing deque of Chase and Lev, one per core.
//! * [`injector`]: an unbounded first-in, first-out queue that any context may use, interrupt handlers included.
//! * [`bit_set`]: a set of small numbers, changed by single atomic instructions.
//! * [`ring`]: a bounded queue for any number of producers and consumers.
//! * [`lock`]: a spinlock, for the few places where a lock is the simplest thing that is right.
//! * [`atomic`]: the atomics that all of them are written with, which a model checker can replace.
//!
//! It may use `core`, `alloc`, `crossbeam-utils` and `spin`. What holds everywhere in it:
//!
//! 1. **No policy.** A structure says what it does, never when to do it: parking, fairness and wake-ups are the scheduler's.
//! 2. **Every atomic comes from [`atomic`]**, and every pair of operations of a structure is model-checked against each
//!    other in `tests/loom_*.rs`. The protocol stands in prose at the top of each module: who may write what, which
//!    ordering each access needs and why, and the races considered.
//! 3. **Nothing waits for another core** outside [`lock`] (and, for a few instructions, [`ring`]): a core that is stopped in the middle of an operation, by an
//!    interrupt or by the host's scheduler, never keeps another from finishing its own.

#![no_std]

extern crate alloc;

pub mod atomic;
pub mod bit_set;
pub mod deque;
pub mod injector;
pub mod lock;
pub mod ring;

pub use crossbeam_utils::CachePadded;
