//! Cores: how they stop for one another, wait for work, and share it.
//!
//! * [`platform`]: the one seam between the engine and what it runs on.
//! * [`safepoint`]: the word that a running core looks at, handshakes with all running cores, and stopping them.
//! * [`scheduler`]: the work-stealing scheduler, generic over what a task is; idle cores sleep, and are woken one at a time.
//! * [`timers`]: what becomes ready at a moment.
//! * [`stats`]: what each core counts.
//!
//! It may use `core`, `alloc` and `sync`; hardware only through [`platform::Platform`]. What holds everywhere in it:
//!
//! 1. **A running core is never waited for in a loop.** A handshake is asked for and looked at again later; only
//!    stopping the world waits, parked, for the cores to arrive.
//! 2. **No wake-up is lost and none storms.** A task that can be seen by all cores is either going to be looked for by a core
//!    that is awake, or one is being woken for it; and at most one core at a time is being woken to look.
//! 3. **The hot path is the owner's.** A spawn is a push, a counter and one load of a word that seldom changes. The cores that go
//!    to sleep pay for that, by asking the running ones to look once at their next safepoint.

#![no_std]

extern crate alloc;

pub mod platform;
pub mod safepoint;
pub mod scheduler;
pub mod stats;
pub mod timers;
