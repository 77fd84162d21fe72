//! Cancellation.
//!
//! To cancel a task is to set a mark in it, and to see to it that it looks: a task that waits is [claimed](Gc::claim), a core that runs it is told
//! at its next safepoint, and one that lies in a queue looks before it runs. Then it unwinds like an error that nothing
//! catches ([`Core::unwind`]): variables are closed, parallel loops that were split cancel their pieces and wait for them, and the task ends. From the moment at which it begins to
//! unwind the mark says so, and nothing interrupts it again.
//!
//! | mark | meaning |
//! | --- | --- |
//! | 0 | nothing |
//! | `REQUESTED` | to be cancelled |
//! | `REQUESTED` and `BEGUN` | it unwinds: held off |
//!
//! *No request is overlooked.* Who cancels sets the mark and then claims the task; a task that is suspended can be claimed before its core looks at the mark once more. All four
//! are sequentially consistent, so one sees the other. If the task was not claimed, every core is told, in whatever state: one that stands still at a safepoint, or compiles, may be in the
//! middle of the task. The one that runs it looks at its next safepoint, which acquires the mark; one that takes the task later looks when it does. Nobody is woken for this.
//!
//! A program is cancelled as a whole by a mark of its own that every task inherits when it looks, and by cancelling whatever is in the [register](super::list).

use core::sync::atomic::{Ordering, fence};

use smp::safepoint::{CANCEL, MARKED};

use super::{State, Task, Woken};
use crate::engine::{Engine, Program};
use crate::interp::Core;
use crate::interp::native::Throw;
use crate::object::Gc;
use crate::race::Part;

const REQUESTED: u8 = 1;
const BEGUN: u8 = 2;

impl Gc<Task> {
    /// Whether it unwinds because it was cancelled.
    pub(crate) fn is_unwinding(self) -> bool {
        self.fields().cancel.load(Ordering::Relaxed) & BEGUN != 0
    }

    /// It begins to unwind, and is not interrupted any more.
    pub(crate) fn begin_unwinding(self) {
        self.fields()
            .cancel
            .fetch_or(REQUESTED | BEGUN, Ordering::AcqRel);
    }

    /// Whether it, which can be claimed or has just begun to run, is to be cancelled, and does not unwind yet; or its program has been ended at once.
    pub(crate) fn wants_cancellation(self) -> bool {
        let mark = self.fields().cancel.load(Ordering::SeqCst);
        let program = self.program();
        program.is_closed()
            || mark & BEGUN == 0
                && (mark & REQUESTED != 0 || program.is_cancelled())
                && !program.is_finalizer(self)
    }
}

impl Engine {
    /// Cancels a task, unless it has ended or is being cancelled.
    pub(crate) fn cancel_task(&self, task: Gc<Task>) {
        if task.program().is_finalizer(task) {
            return;
        }
        let before = task.fields().cancel.fetch_or(REQUESTED, Ordering::SeqCst);
        if before != 0 || task.has_ended() {
            return;
        }
        self.notify(task);
    }

    fn notify(&self, task: Gc<Task>) {
        if task.claim(Woken::Cancel) {
            task.set_state(State::Ready);
            self.scheduler().inject(task);
            return;
        }
        fence(Ordering::SeqCst);
        self.scheduler().safepoints().post_all(MARKED);
    }

    /// Cancels every task of the program: those that were suspended at once, all others when they look.
    pub(crate) fn cancel_all(&self, program: &Program) {
        program.mark_cancelled();
        fence(Ordering::SeqCst);
        program.register().each(|task| {
            if program.is_finalizer(task) {
                return;
            }
            let before = task.fields().cancel.fetch_or(REQUESTED, Ordering::SeqCst);
            if before & BEGUN == 0 && task.claim(Woken::Cancel) {
                task.set_state(State::Ready);
                self.scheduler().inject(task);
            }
        });
        self.scheduler().safepoints().post_all(CANCEL);
    }
}

impl Core {
    /// Whether the running task is to unwind here, at a safepoint: not while it holds locks.
    pub(crate) fn cancelled_here(&self) -> bool {
        self.task
            .is_some_and(|task| task.fields().locks.get() == 0 && task.wants_cancellation())
    }

    /// The running task begins to unwind: what was done before it was cancelled comes before what it does now.
    pub(crate) fn acquire_cancellation(&self, task: Gc<Task>) {
        self.race_acquire(task.as_ptr() as usize, Part::Whole);
        let group = task.fields().latch.get();
        if !group.is_null() {
            self.race_acquire(group as usize, Part::Whole);
        }
        if self.program.is_cancelled() {
            self.race_watch(|races, task| races.acquire_all(task));
        }
    }

    /// The running task has given a lock back: what could not take effect while it held one does now.
    pub(crate) fn after_unlock(&self) -> Result<(), Throw> {
        if self.cancelled_here() {
            Err(Throw::Cancelled)
        } else {
            Ok(())
        }
    }
}
