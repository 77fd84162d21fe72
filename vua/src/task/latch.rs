//! Groups of tasks that are waited for together: the pieces of a `parallel for` that was split, or the tasks of a scope.
//!
//! Everything here changes under the lock byte in the latch's header. `pending` counts the tasks that have not ended; a task that waits
//! for them is suspended before it enters `waiters`, and whoever brings the count to zero empties that list. A loop has one task that waits; of a scope, which programs may
//! hand around, there may be several. `pending` is also read without the lock, acquire, and stored with release: what the tasks wrote is visible to who sees zero.
//!
//! The error that is kept is that of the earliest iteration, or of the task spawned earliest, that failed. The first failure cancels the others.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::list::{List, Peers, WaitList};
use super::{SpinLocked, Task, Woken};
use crate::engine::Engine;
use crate::heap::{Header, Kind, LocalHeap, NeedMemory, flags};
use crate::object::{Gc, Object};
use crate::value::{Tag, Value};

/// In [`Header::extra`]: the latch is a scope's.
pub(super) const SCOPE: u8 = 1;

/// See the module.
#[repr(C)]
pub struct Latch {
    header: Header,
    pending: AtomicUsize,
    waiters: WaitList,
    members: List<Peers>,
    /// How many tasks it has had.
    made: Cell<u64>,
    failed: AtomicBool,
    observed: AtomicBool,
    /// The task that waits is itself being cancelled, and goes on unwinding when all have ended.
    pub(crate) owner_cancelled: Cell<bool>,
    /// The index of the failed iteration, and its error.
    index: Cell<Value>,
    error: Cell<Value>,
}

// SAFETY: the cells are used under the lock, or when no task is left.
unsafe impl Sync for Latch {}

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for Latch {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Latch];
}

impl Latch {
    /// A latch without tasks.
    pub(crate) fn new(local: &LocalHeap) -> Result<Gc<Latch>, NeedMemory> {
        let object = local
            .alloc_object(Kind::Latch, 0, size_of::<Latch>())?
            .cast::<Latch>();
        // SAFETY: the object is new and ours alone; zero is valid for what is not written.
        unsafe {
            let latch = object.as_ptr();
            (*latch).header.set_flags(flags::SHARED);
            (*latch).index.set(Value::NIL);
            (*latch).error.set(Value::NIL);
            Ok(Gc::from_ptr(object))
        }
    }

    /// A latch that is a scope.
    pub(crate) fn new_scope(local: &LocalHeap) -> Result<Gc<Latch>, NeedMemory> {
        let latch = Latch::new(local)?;
        latch.header().extra.store(SCOPE, Ordering::Relaxed);
        Ok(latch)
    }
}

/// Whether iteration `x` comes before `y` in a loop that counts up (or down).
fn earlier(x: Value, y: Value, up: bool) -> bool {
    let less = |x: Value, y: Value| match (x.as_integer(), y.as_integer()) {
        (Some(x), Some(y)) => x < y,
        _ => x.as_float() < y.as_float(),
    };
    if up { less(x, y) } else { less(y, x) }
}

impl Gc<Latch> {
    #[inline(always)]
    pub(crate) fn fields<'a>(self) -> &'a Latch {
        // SAFETY: the latch lives as long as its handle is used.
        unsafe { &*self.as_ptr() }
    }

    /// Whether a piece has failed, so that the others should stop.
    #[inline(always)]
    pub(crate) fn has_failed(self) -> bool {
        self.fields().failed.load(Ordering::Relaxed)
    }

    /// A scope has been waited for: it has raised the error of one of its tasks, and those of the others need no report.
    pub(crate) fn observe(self) {
        self.fields().observed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_observed(self) -> bool {
        self.fields().observed.load(Ordering::Relaxed)
    }

    /// Whether it is a scope.
    pub(crate) fn is_scope(self) -> bool {
        self.header().extra.load(Ordering::Relaxed) == SCOPE
    }

    /// Adds a task that has not run yet.
    pub(crate) fn add(self, task: Gc<Task>) {
        let locked = SpinLocked::new(self.header());
        let latch = self.fields();
        task.fields().latch.set(self.as_ptr());
        task.fields().number.set(latch.made.get());
        latch.made.set(latch.made.get() + 1);
        latch.members.push(task, &locked);
        latch
            .pending
            .store(latch.pending.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// A task of the group has ended. If it was the last, calls `wake` with each task that waited for the group, and whose wait this has ended.
    pub(crate) fn remove(self, task: Gc<Task>, mut wake: impl FnMut(Gc<Task>)) {
        let locked = SpinLocked::new(self.header());
        let latch = self.fields();
        latch.members.remove(task, &locked);
        let left = latch.pending.load(Ordering::Relaxed) - 1;
        latch.pending.store(left, Ordering::Release);
        while left == 0
            && let Some(waiter) = latch.waiters.pop(&locked)
        {
            if waiter.claim(Woken::Event) {
                wake(waiter);
            }
        }
    }

    /// A task that begins to wait for all of the group; `false` if there is none left.
    pub(crate) fn add_waiter(self, task: Gc<Task>) -> bool {
        let locked = SpinLocked::new(self.header());
        if self.is_done() {
            return false;
        }
        self.fields().waiters.push(task, &locked);
        true
    }

    /// A task that waited does so no more.
    pub(crate) fn remove_waiter(self, task: Gc<Task>) {
        let locked = SpinLocked::new(self.header());
        self.fields().waiters.remove(task, &locked);
    }

    /// Whether all tasks have ended.
    pub(crate) fn is_done(self) -> bool {
        self.fields().pending.load(Ordering::Acquire) == 0
    }

    /// Records that the iteration, or task, with this index failed with this error, which is published; indices count up or down. The first failure cancels
    /// all tasks of the group but `but`.
    pub(crate) fn fail(
        self,
        engine: &Engine,
        index: Value,
        up: bool,
        error: Value,
        but: Option<Gc<Task>>,
    ) {
        let locked = SpinLocked::new(self.header());
        let latch = self.fields();
        if latch.index.get().is_nil() || earlier(index, latch.index.get(), up) {
            latch.index.set(index);
            latch.error.set(error);
        }
        if !latch.failed.swap(true, Ordering::Relaxed) {
            self.cancel_members(engine, but, &locked);
        }
    }

    /// Calls `visit` with what it refers to; tasks that wait for it live in any case. In the collector's pause.
    pub(crate) fn each_value(self, mut visit: impl FnMut(Value)) {
        let latch = self.fields();
        visit(latch.index.get());
        visit(latch.error.get());
    }

    /// Cancels all tasks of the group; those of a loop begin no further iteration.
    pub(crate) fn cancel(self, engine: &Engine) {
        let locked = SpinLocked::new(self.header());
        self.fields().failed.store(true, Ordering::Relaxed);
        self.cancel_members(engine, None, &locked);
    }

    fn cancel_members(self, engine: &Engine, but: Option<Gc<Task>>, locked: &SpinLocked<'_>) {
        self.fields().members.each(locked, |task| {
            if Some(task) != but {
                engine.cancel_task(task);
            }
        });
    }

    /// The error to raise, when all tasks have ended; nil if they were cancelled without one. `None` if none failed.
    pub(crate) fn error(self) -> Option<Value> {
        if self.has_failed() {
            Some(self.fields().error.get())
        } else {
            None
        }
    }
}
