//! Which natives access memory that tasks share, and how. A native is watched where it is called; one that is not among these accesses nothing of the kind, or only what it has just made.

use alloc::vec::Vec;

use crate::interp::native::NativeFn;

/// What a native does with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// `rawget(t, k)`.
    Get,
    /// `rawset(t, k, v)`.
    Set,
    /// `rawlen(t)`.
    Length,
    /// `next(t, k)`.
    Next,
    /// The iterator of `ipairs`.
    NextIndex,
    /// `getmetatable(t)`.
    GetMetatable,
    /// `setmetatable(t, m)`.
    SetMetatable,
    /// `table.insert`.
    Insert,
    /// `table.remove`.
    Remove,
    /// Reads elements from argument `.0` to argument `.1`, by default all.
    Elements(usize, usize),
    /// `table.sort(t)`.
    Sort,
    /// `table.move(a, f, e, t, b)`.
    Move,
    /// `a:fill(v, i, j)`.
    Fill,
    /// `atomic.load(t, k)`.
    AtomicLoad,
    /// An atomic operation that stores.
    AtomicStore,
    /// `atomic.cas(t, k, old, new)`.
    AtomicCas,
    /// `d:get(k)` of a map.
    MapGet,
    /// A change of a map's element.
    MapSet,
    /// A step through a map.
    MapStep,
}

/// A native and what it does.
pub(crate) type Watched = (NativeFn, Touch);

/// All of them, by address.
pub(crate) fn all() -> Vec<(usize, Touch)> {
    let lists: [&[Watched]; 5] = [
        crate::library::base::WATCHED,
        crate::library::table::WATCHED,
        crate::library::memory::WATCHED,
        crate::share::ATOMICS,
        crate::share::MAPS,
    ];
    let mut all: Vec<(usize, Touch)> = lists
        .into_iter()
        .flatten()
        .map(|(function, touch)| (*function as *const () as usize, *touch))
        .collect();
    all.sort_by_key(|(address, _)| *address);
    all
}
