//! The latch of a `parallel for` that was split.
//!
//! `pending` counts the pieces that have not ended, and one for the task that runs the loop. That task gives its own count up only when it is
//! suspended and `waiter` names it; whoever brings the count to zero wakes it, and if that is the task itself it goes on at
//! once. Decrements are acquire and release, so what the pieces wrote is visible behind the loop.
//!
//! The error that is kept is that of the earliest iteration that failed, under the latch's lock byte (in its header). `failed` tells the other pieces to stop.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::Task;
use crate::heap::{Header, Kind, LocalHeap, NeedMemory, flags};
use crate::object::{Gc, Object};
use crate::value::{Tag, Value};

/// See the module.
#[repr(C)]
pub struct Latch {
    header: Header,
    pub(crate) pending: AtomicUsize,
    pub(crate) waiter: AtomicPtr<Task>,
    failed: AtomicBool,
    /// Under the lock: the index of the failed iteration, and its error.
    index: Cell<Value>,
    error: Cell<Value>,
}

// SAFETY: the cells are used under the lock, or when no piece is left.
unsafe impl Sync for Latch {}

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for Latch {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Latch];
}

impl Latch {
    /// A latch with one count, the loop's own.
    pub(crate) fn new(local: &LocalHeap) -> Result<Gc<Latch>, NeedMemory> {
        let object = local
            .alloc_object(Kind::Latch, 0, size_of::<Latch>())?
            .cast::<Latch>();
        // SAFETY: the object is new and ours alone; zero is valid for what is not written.
        unsafe {
            let latch = object.as_ptr();
            (*latch).header.set_flags(flags::SHARED);
            (*latch).pending.store(1, Ordering::Relaxed);
            (*latch).index.set(Value::NIL);
            (*latch).error.set(Value::NIL);
            Ok(Gc::from_ptr(object))
        }
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

    /// Records that the iteration with this index failed with this error, which is published; the loop counts up or down.
    pub(crate) fn fail(self, index: Value, up: bool, error: Value) {
        let latch = self.fields();
        while latch
            .header
            .lock
            .compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            core::hint::spin_loop();
        }
        if latch.index.get().is_nil() || earlier(index, latch.index.get(), up) {
            latch.index.set(index);
            latch.error.set(error);
        }
        latch.failed.store(true, Ordering::Relaxed);
        latch.header.lock.store(0, Ordering::Release);
    }

    /// The error to raise, when all pieces have ended.
    pub(crate) fn error(self) -> Option<Value> {
        if self.has_failed() {
            Some(self.fields().error.get())
        } else {
            None
        }
    }

    /// The loop's own count, as long as its task has not given it up: 1, and 0 after that.
    pub(crate) fn own_count(self) -> usize {
        self.fields().waiter.load(Ordering::Relaxed).is_null() as usize
    }

    /// One piece less; whether it was the last.
    pub(crate) fn count_down(self) -> bool {
        self.fields().pending.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
