//! What tasks share beyond tables.
//!
//! | file | what |
//! | --- | --- |
//! | [`atomic`] | read-modify-writes on fields |
//! | [`freeze`] | tables that never change again |
//! | [`monitor`] | mutexes, read-write locks, semaphores, conditions, barriers |
//! | [`queue`] | bounded queues |
//! | [`map`] | hash maps |
//! | [`pieces`] | the pieces of a reduction |
//! | [`prelude`] | what is written in Vua |
//!
//! Objects of the last three are shared from the start, so that publication has nothing to do with them, and what is stored in them is published before.

mod atomic;
mod freeze;
mod map;
mod monitor;
mod pieces;
mod place;
pub(crate) mod prelude;
mod queue;

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

pub(crate) use atomic::WATCHED as ATOMICS;
pub use map::Map;
pub(crate) use map::{WATCHED as MAPS, walked};
pub(crate) use monitor::{HeldList, description};
pub use monitor::{Monitor, Want};
pub use queue::{End, Queue};

use crate::heap::{Header, Kind, NeedMemory, Visit, barrier, flags};
use crate::interp::native::Call;
use crate::library::Builder;
use crate::object::{Gc, walk};
use crate::value::Value;

/// [`Header::extra`] of a queue; those of monitors come before.
const QUEUE: u8 = 6;
/// Of a map.
const MAP: u8 = 7;
/// Of an iteration over a map.
const WALK: u8 = 8;

/// Which object of this module a value is: its extra byte, or 0.
fn sort_of(value: Value) -> u8 {
    match (value.object_kind(), value.object()) {
        (Some(Kind::Other), Some(object)) => {
            // SAFETY: a value's object lives.
            let header = unsafe { object.as_ref() };
            header.extra.load(Ordering::Relaxed)
        }
        _ => 0,
    }
}

/// What the collector asks of a store into an object.
fn before_store(call: &Call<'_>, object: NonNull<Header>) {
    // SAFETY: the object lives: it is in the frame.
    unsafe {
        if object.as_ref().has(flags::LOG) {
            barrier::before_store(object, call.heap());
        }
    }
}

/// What an object of this module refers to.
///
/// # Safety
/// As for [`TraceHook`](crate::heap::TraceHook).
pub(crate) unsafe fn trace(
    object: NonNull<Header>,
    from: usize,
    visit: &mut dyn FnMut(Value) -> Visit,
) -> Option<usize> {
    let mut visit = |value| visit(value);
    // SAFETY: the object lives; each cast follows its extra byte.
    unsafe {
        match object.as_ref().extra.load(Ordering::Relaxed) {
            QUEUE => {
                let queue: Gc<Queue> = Gc::from_ptr(object.cast());
                walk(from, queue.capacity(), &mut visit, |i| queue.kept(i))
            }
            MAP => {
                let map: Gc<Map> = Gc::from_ptr(object.cast());
                walk(from, map::SHARDS, &mut visit, |i| map.referred(i))
            }
            WALK => {
                let iteration: Gc<map::Walk> = Gc::from_ptr(object.cast());
                walk(from, 2, &mut visit, |i| iteration.referred(i))
            }
            _ => walk(from, 1, &mut visit, |_| {
                monitor::referred(Gc::from_ptr(object.cast()))
            }),
        }
    }
}

/// Defines the libraries.
pub(crate) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    atomic::open(builder)?;
    freeze::open(builder)?;
    monitor::open(builder)?;
    queue::open(builder)?;
    map::open(builder)
}
