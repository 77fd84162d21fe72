//! Lists of suspended tasks, linked through the tasks themselves, and the register of all tasks that ever were suspended.
//!
//! A task waits in one list at a time, so it has one pair of links for that. The list is guarded by the lock byte of the object that
//! it belongs to: a task's joiners by the task's, a mutex's waiters by the mutex's. Whoever ends a wait from the object's side takes the task off the
//! list under the lock and [claims](Gc::claim) it; a task whose wait was ended otherwise (its time was up, it was cancelled) takes itself off, under
//! the same lock, before it goes on. So who finds a task on a list finds it in *this* wait, though perhaps one that has ended otherwise a moment ago.
//!
//! The register exists because nothing else need lead to a suspended task: what it waits for may be reachable from it alone. It has a list for each
//! core; a task enters that of the core on which it is suspended first, and leaves it when it ends. Tasks that are never suspended do not pay for it.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering;

use sync::CachePadded;
use sync::lock::Lock;

use super::Task;
use crate::heap::Header;
use crate::object::Gc;

/// The neighbours of a task in a list, null at its ends.
#[repr(C)]
pub(crate) struct Links {
    next: Cell<*mut Task>,
    previous: Cell<*mut Task>,
}

/// The lock byte of an object, held. Held for a bounded time and past no safepoint.
pub(crate) struct SpinLocked<'a>(&'a Header, PhantomData<*mut ()>);

impl<'a> SpinLocked<'a> {
    #[inline]
    pub(crate) fn new(header: &'a Header) -> SpinLocked<'a> {
        while header
            .lock
            .compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while header.lock.load(Ordering::Relaxed) != 0 {
                core::hint::spin_loop();
            }
        }
        SpinLocked(header, PhantomData)
    }
}

impl Drop for SpinLocked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.lock.store(0, Ordering::Release);
    }
}

/// Which links of a task a list uses.
pub(crate) trait Through {
    fn links(task: &Task) -> &Links;
}

/// The links of the list that a task waits in.
pub(crate) struct Waiting;
/// The links among the tasks of a group.
pub(crate) struct Peers;
/// The links of the register.
struct Registered;

impl Through for Waiting {
    fn links(task: &Task) -> &Links {
        &task.links
    }
}

impl Through for Peers {
    fn links(task: &Task) -> &Links {
        &task.peers
    }
}

impl Through for Registered {
    fn links(task: &Task) -> &Links {
        &task.register
    }
}

/// A list of tasks, first in first out. All zero is an empty one. Used under the lock of the object that it is part of, of which the callers show
/// that they hold it.
#[repr(C)]
pub(crate) struct List<T: Through> {
    first: Cell<*mut Task>,
    last: Cell<*mut Task>,
    through: PhantomData<T>,
}

/// Tasks that wait.
pub(crate) type WaitList = List<Waiting>;

impl<T: Through> List<T> {
    const fn new() -> Self {
        List {
            first: Cell::new(null_mut()),
            last: Cell::new(null_mut()),
            through: PhantomData,
        }
    }

    /// The first task.
    pub(crate) fn first(&self) -> Option<Gc<Task>> {
        // SAFETY: what is on a list is a live task: the register keeps those that wait, their group those that belong to it.
        NonNull::new(self.first.get()).map(|task| unsafe { Gc::from_ptr(task) })
    }

    /// Adds a task at the end.
    pub(crate) fn push(&self, task: Gc<Task>, _locked: &SpinLocked<'_>) {
        self.link(task);
    }

    fn link(&self, task: Gc<Task>) {
        let links = T::links(task.fields());
        let last = self.last.get();
        links.previous.set(last);
        links.next.set(null_mut());
        match NonNull::new(last) {
            // SAFETY: as in `first`.
            Some(last) => T::links(unsafe { last.as_ref() }).next.set(task.as_ptr()),
            None => self.first.set(task.as_ptr()),
        }
        self.last.set(task.as_ptr());
    }

    /// Takes the first task off.
    pub(crate) fn pop(&self, locked: &SpinLocked<'_>) -> Option<Gc<Task>> {
        let task = self.first()?;
        self.remove(task, locked);
        Some(task)
    }

    /// Takes a task off, if it is on the list, and says whether it was; it is on no other through the same links.
    pub(crate) fn remove(&self, task: Gc<Task>, _locked: &SpinLocked<'_>) -> bool {
        self.unlink(task)
    }

    fn unlink(&self, task: Gc<Task>) -> bool {
        let links = T::links(task.fields());
        let (previous, next) = (links.previous.get(), links.next.get());
        if previous.is_null() && self.first.get() != task.as_ptr() {
            return false;
        }
        match NonNull::new(previous) {
            // SAFETY: as in `first`.
            Some(previous) => T::links(unsafe { previous.as_ref() }).next.set(next),
            None => self.first.set(next),
        }
        match NonNull::new(next) {
            // SAFETY: as in `first`.
            Some(next) => T::links(unsafe { next.as_ref() }).previous.set(previous),
            None => self.last.set(previous),
        }
        links.previous.set(null_mut());
        links.next.set(null_mut());
        true
    }

    /// Takes off the tasks for which `takes` holds, which is asked from the first to the last.
    pub(crate) fn take(&self, locked: &SpinLocked<'_>, mut takes: impl FnMut(Gc<Task>) -> bool) {
        let mut at = self.first.get();
        while let Some(task) = NonNull::new(at) {
            // SAFETY: as in `first`.
            let task: Gc<Task> = unsafe { Gc::from_ptr(task) };
            at = T::links(task.fields()).next.get();
            if takes(task) {
                self.remove(task, locked);
            }
        }
    }

    /// Calls `visit` with each task, in order. It takes none off.
    pub(crate) fn each(&self, _locked: &SpinLocked<'_>, visit: impl FnMut(Gc<Task>)) {
        self.walk(visit);
    }

    fn walk(&self, mut visit: impl FnMut(Gc<Task>)) {
        let mut at = self.first.get();
        while let Some(task) = NonNull::new(at) {
            // SAFETY: as in `first`.
            let task: Gc<Task> = unsafe { Gc::from_ptr(task) };
            at = T::links(task.fields()).next.get();
            visit(task);
        }
    }
}

/// What [`Task::home`] is before a task is suspended for the first time.
pub(super) const NOWHERE: u32 = u32::MAX;

struct Shard(List<Registered>);

// SAFETY: a shard is used under its lock.
unsafe impl Send for Shard {}

/// See the module.
pub(crate) struct Register(alloc::boxed::Box<[CachePadded<Lock<Shard>>]>);

impl Register {
    /// An empty register for so many cores.
    pub(crate) fn new(cpus: usize) -> Register {
        Register(
            (0..cpus)
                .map(|_| CachePadded::new(Lock::new(Shard(List::new()))))
                .collect(),
        )
    }

    /// Enters a task that core `cpu` suspends, unless it is entered.
    #[inline]
    pub(crate) fn enter(&self, cpu: usize, task: Gc<Task>) {
        if task.fields().home.get() == NOWHERE {
            task.fields().home.set(cpu as u32);
            self.0[cpu].lock().0.link(task);
        }
    }

    /// Removes a task that has ended.
    #[inline]
    pub(crate) fn leave(&self, task: Gc<Task>) {
        let home = task.fields().home.get();
        if home != NOWHERE {
            self.0[home as usize].lock().0.unlink(task);
            task.fields().home.set(NOWHERE);
        }
    }

    /// Calls `visit` with each task that was suspended and has not ended, under the lock of its list.
    pub(crate) fn each(&self, mut visit: impl FnMut(Gc<Task>)) {
        for shard in &self.0 {
            shard.lock().0.walk(&mut visit);
        }
    }
}
