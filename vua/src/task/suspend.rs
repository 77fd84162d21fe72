//! How a wait begins and ends.
//!
//! A wait can be ended by what is waited for, by a time limit and by cancellation, and exactly one of them must make the task ready. They
//! meet in one byte of the task, `wake`:
//!
//! | value | meaning | who stores it |
//! | --- | --- | --- |
//! | `RUNNING` | it does not wait, or cannot be claimed | its core, when it runs again |
//! | `ARMING` | its state is saved; its core is putting it on lists and setting timers | its core |
//! | `WAITING` | it is suspended | its core, from `ARMING` |
//! | a [`Woken`] | its wait has ended, by this | whoever ends it, from `ARMING` or `WAITING`; the first wins |
//!
//! Whoever [claims](Gc::claim) a task that is `WAITING` makes it ready; one that is `ARMING` is run on by its own core, which finds out when it
//! wants to go on to `WAITING`. All steps are compare-and-swaps, acquire and release.
//!
//! What a wait left behind (an entry in a list, a timer) is removed by the task itself before it goes on ([`Core::end_wait`]). A timer asks the task under the timers' lock,
//! and a list gives it under the lock of its object, so whoever claims it does so before it can have gone on to another wait.

use core::sync::atomic::Ordering;

use super::{Task, WaitFor};
use crate::interp::Core;
use crate::object::Gc;
use crate::share::Want;

const RUNNING: u8 = 0;
const ARMING: u8 = 1;
const WAITING: u8 = 2;

/// What ended a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Woken {
    /// What it waited for.
    #[default]
    Event = 3,
    /// Its time limit.
    Time = 4,
    /// Cancellation.
    Cancel = 5,
}

impl Gc<Task> {
    /// Ends the task's wait, if it waits and nothing has ended that; then the caller makes it ready if this says so, or else its core does.
    #[inline]
    pub(crate) fn claim(self, by: Woken) -> bool {
        self.try_claim(by) == Claim::Suspended
    }

    /// As [`claim`](Self::claim), and tells whether the wait was ended by this call though its core goes on with it.
    pub(crate) fn try_claim(self, by: Woken) -> Claim {
        let wake = &self.fields().wake;
        let mut now = wake.load(Ordering::Acquire);
        loop {
            if now != WAITING && now != ARMING {
                return Claim::Lost;
            }
            match wake.compare_exchange_weak(now, by as u8, Ordering::SeqCst, Ordering::Acquire) {
                Ok(WAITING) => return Claim::Suspended,
                Ok(_) => return Claim::Arming,
                Err(found) => now = found,
            }
        }
    }

    /// The task begins to wait: from here on it can be claimed.
    pub(crate) fn arm(self) {
        self.fields().wake.store(ARMING, Ordering::Release);
    }

    /// The task is on all lists: it is suspended now, unless its wait has ended.
    pub(crate) fn settle(self) -> bool {
        self.fields()
            .wake
            .compare_exchange(ARMING, WAITING, Ordering::SeqCst, Ordering::Acquire)
            .is_ok()
    }

    /// Whether no wait of it lasts or has just ended.
    #[inline]
    pub(super) fn has_not_waited(self) -> bool {
        self.fields().wake.load(Ordering::Relaxed) == RUNNING
    }

    /// Whether it is suspended and nothing has ended that.
    pub(crate) fn is_suspended(self) -> bool {
        self.fields().wake.load(Ordering::Acquire) == WAITING
    }

    /// What ended the wait from which the task comes; `None` if it could not be claimed.
    fn woken(self) -> Option<Woken> {
        match self.fields().wake.swap(RUNNING, Ordering::AcqRel) {
            3 => Some(Woken::Event),
            4 => Some(Woken::Time),
            5 => Some(Woken::Cancel),
            _ => None,
        }
    }
}

/// What became of a [claim](Gc::try_claim).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The wait had ended, or there was none.
    Lost,
    /// Its core was about to suspend it, and goes on with it.
    Arming,
    /// It was suspended: the caller makes it ready.
    Suspended,
}

impl WaitFor {
    /// Whether nothing but what another task does can end it, cancellation aside.
    pub(super) fn is_for_a_task(self) -> bool {
        match self {
            WaitFor::Task(_) | WaitFor::Latch(_) | WaitFor::Module(_) | WaitFor::Finalized => true,
            WaitFor::Monitor(..) | WaitFor::Queue(..) => self.deadline().is_none(),
            _ => false,
        }
    }

    /// When it ends by itself.
    fn deadline(self) -> Option<u64> {
        match self {
            WaitFor::Time(deadline)
            | WaitFor::TaskUntil(_, deadline)
            | WaitFor::Program(_, deadline) => Some(deadline),
            WaitFor::Queue(_, _, deadline) | WaitFor::Monitor(_, Want::Signal(deadline)) => {
                deadline
            }
            _ => None,
        }
    }
}

impl Core {
    /// Suspends a task, its state saved, until what it waits for, its time limit or its cancellation wakes it. Gives it back if that is so already.
    pub(super) fn suspend(&mut self, task: Gc<Task>, until: WaitFor) -> Option<Gc<Task>> {
        let engine = self.engine;
        let fields = task.fields();
        fields.wait.set(Some(until));
        task.arm();
        if let Some(deadline) = until.deadline() {
            self.beat();
            let key = engine.scheduler().inject_at(deadline, task);
            fields.timer.set(Some(key));
        }
        let waits = match until {
            WaitFor::Task(other) | WaitFor::TaskUntil(other, _) => other.add_waiter(task),
            WaitFor::Latch(latch) => latch.add_waiter(task),
            WaitFor::Monitor(monitor, want) => monitor.enter(engine, task, want),
            WaitFor::Queue(queue, end, _) => queue.enter(task, end),
            WaitFor::Program(program, _) => program.fields().add_watcher(task),
            WaitFor::Module(load) => task.program().loads().add_waiter(load, task),
            WaitFor::Input(arrivals) => {
                engine.add_reader(task, arrivals);
                true
            }
            WaitFor::Finalized => task.program().await_finalizers(task),
            _ => true,
        };
        if !waits {
            task.try_claim(Woken::Event);
        }
        if !task.settle() {
            return Some(task);
        }
        // Who cancels sets its mark, then claims; here the task can be claimed, then the mark is looked at. From here on another core may run the task.
        if task.wants_cancellation() && task.claim(Woken::Cancel) {
            return Some(task);
        }
        None
    }

    /// A task that may have waited runs again: takes it off what it still is on. Says what ended its wait.
    pub(super) fn end_wait(&mut self, task: Gc<Task>) -> Option<(Woken, WaitFor)> {
        let woken = task.woken()?;
        let fields = task.fields();
        let wait = fields.wait.take()?;
        if let Some(key) = fields.timer.take()
            && woken != Woken::Time
        {
            self.engine.scheduler().cancel_timer(key);
        }
        if woken != Woken::Event {
            match wait {
                WaitFor::Task(other) | WaitFor::TaskUntil(other, _) => other.remove_waiter(task),
                WaitFor::Latch(latch) => latch.remove_waiter(task),
                WaitFor::Monitor(monitor, want) => monitor.leave(self.engine, task, want),
                WaitFor::Queue(queue, end, _) => queue.leave(task, end),
                WaitFor::Program(program, _) => program.fields().remove_watcher(),
                WaitFor::Module(_) => task.program().loads().remove_waiter(task),
                WaitFor::Input(_) => self.engine.remove_reader(task),
                WaitFor::Finalized => task.program().forget_finalizers(task),
                _ => {}
            }
        }
        Some((woken, wait))
    }
}
