//! Joins that run at once what they wait for.
//!
//! A task that joins the one which lies at the bottom of its core's own deque, the last that it spawned of those that nobody has stolen, would be suspended, and its core
//! would find just that one next. So the core takes it and runs it in the joiner's place, without leaving the interpreter. The joiner is *set aside*: its state is saved, but it is on no
//! list and cannot be claimed. Only the task that runs in its place knows of it ([`Task::joiner`]), and when that returns, its result goes to where the joiner's call of `join` wanted
//! it. So a tree of tasks whose branches nobody steals is run as it would be if it were one of calls, but for the objects that stand for the tasks.
//!
//! # What a task that was set aside misses
//! It cannot be cancelled, and who looks for a deadlock does not see it. So it is set aside only as long as the task in its place is running: before that is suspended or moved aside,
//! and at every heartbeat and whenever somebody is cancelled, the joiner, and the one that it runs in the place of, and so on, are
//! [made to wait](Core::suspend_joiners) as they would have been. Each at most once, and no more than [`MOST`] of them are behind one another.
//!
//! *No cancellation is overlooked*: who cancels sets the mark and then tries to claim the task, in vain if that is set aside; then every core is told, and
//! the one that runs the task in its place makes the joiner wait at its next safepoint, where that looks for its mark once it can be claimed, as in every wait.
//!
//! # Who may touch what
//! `joiner` and `joiners` belong to the core that runs the task. What the joiner has saved goes with it: it is changed only after it has been made to wait and claimed, or by the core that the
//! task ends on.
//!
//! Work and span, data races and what an observer notes are measured by tasks that begin and wait, so where somebody looks at those, and in coroutines, joins are never direct. Nor are they on top
//! of a parallel loop with iterations left: those are given away before a task waits, which needs the stack that they are on.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use super::{State, Task, WaitFor};
use crate::bytecode::instructions::{a, c};
use crate::heap::{COLLECT, is_public};
use crate::interp::Core;
use crate::interp::core_state::Step;
use crate::interp::frame::Link;
use crate::object::Gc;
use crate::value::Value;

/// So many tasks may be set aside behind one another: what must be done at one safepoint.
const MOST: u32 = 256;

impl Gc<Task> {
    /// The joiner in whose place it runs, which is the caller's to go on with or to make wait.
    pub(super) fn take_joiner(self) -> Option<Gc<Task>> {
        self.fields().joiners.set(0);
        let joiner = self.fields().joiner.replace(null_mut());
        // SAFETY: a task that was set aside lives: it has not ended.
        NonNull::new(joiner).map(|joiner| unsafe { Gc::from_ptr(joiner) })
    }
}

impl Core {
    /// Whether the running task, which is about to wait for `task`, may run it in its place; then it has been taken from the deque.
    #[inline]
    pub(crate) fn takes_to_join(&mut self, task: Gc<Task>) -> bool {
        let Some(this) = self.task else {
            return false;
        };
        let (fields, joined) = (this.fields(), task.fields());
        // Ready, and not after a wait: what is left to do for it is nothing but to go on.
        joined.state.load(Ordering::Relaxed) == State::Ready as u8
            && task.has_not_waited()
            && joined.cancel.load(Ordering::Relaxed) == 0
            && core::ptr::eq(joined.program.get(), self.program)
            && fields.joiners.get() < MOST
            && fields.coroutine.get().is_null()
            && self.observer.is_none()
            && self.meter.paths.is_none()
            && self.meter.races.is_none()
            && !self.has_latent_loop_below()
            && self.worker().pop_if(task)
    }

    /// Sets the running task aside, its native's next step being `step`, and begins to run in its place `task`, which was taken.
    #[inline]
    pub(crate) fn run_in_place(&mut self, task: Gc<Task>, step: Step) {
        self.step = step;
        self.resume_native(self.base);
        if let Some(joiner) = self.task {
            self.save(joiner);
            joiner.set_state(State::Waiting);
            task.fields().joiner.set(joiner.as_ptr());
            task.fields().joiners.set(joiner.fields().joiners.get() + 1);
        }
        self.switch_to_task(task);
        if self.engine.collects_always() {
            let safepoints = self.engine.scheduler().safepoints();
            safepoints.post(self.cpu, COLLECT);
        }
    }

    /// Ends the running task, whose function returns `count` values at `from`, and goes on with the joiner in whose place it runs: the instruction to go on with and its register 0. Nothing has been done if it gives
    /// `None`: there is no joiner, or there is more to do than this does.
    ///
    /// # Safety
    /// The values are on the task's stack, and the frame is its first.
    #[inline]
    pub(crate) unsafe fn return_to_joiner(
        &mut self,
        from: *const u64,
        count: usize,
    ) -> Option<(*const AtomicU32, *mut u64)> {
        let task = self.task?;
        let fields = task.fields();
        // SAFETY: a task that was set aside lives: it has not ended.
        let joiner: Gc<Task> = unsafe { Gc::from_ptr(NonNull::new(fields.joiner.get())?) };
        let value = if count == 0 {
            Value::NIL
        } else {
            // SAFETY: as the caller says.
            unsafe { Value::from_bits(*from) }
        };
        let to = joiner.fields().base.get();
        // SAFETY: the joiner is suspended in `join`, whose frame is at its base.
        let Link::Vua(after) = Link::decode(unsafe { *to.sub(1) }) else {
            return None;
        };
        if count > 1
            || !is_public(value)
            || fields.locks.get() != 0
            || !fields.latch.get().is_null()
            || !fields.coroutine.get().is_null()
            || !self.program.loads().is_empty()
            || joiner.wants_cancellation()
            || self.program.is_main(task)
        {
            return None;
        }
        fields.result.set(value);
        fields.results.set(count as u32);
        fields.joiner.set(null_mut());
        // SAFETY: the task's stack, of which nothing is used any more.
        unsafe { self.recycle_stack(self.stack, fields.slots.get()) };
        fields.slots.set(0);
        task.observe();
        self.program.register().leave(task);
        task.end(State::Done, |waiter| self.make_ready(waiter));
        self.program.count_end(self.cpu);
        self.switch_to_task(joiner);
        // SAFETY: the joiner's frames: `after` follows the call of `join`, whose results go to where its function was.
        unsafe {
            let call = (*after.sub(1)).load(Ordering::Relaxed);
            let to = to.sub(2);
            *to = value.to_bits();
            match c(call) {
                0 => self.open = count,
                wanted => {
                    for i in count.max(1)..wanted - 1 {
                        *to.add(i) = Value::NIL.to_bits();
                    }
                }
            }
            Some((after, to.sub(a(call))))
        }
    }

    /// Makes the joiner in whose place `task` runs wait for its end, and the one in whose place that runs, and so on.
    #[inline]
    pub(super) fn suspend_joiners(&mut self, task: Gc<Task>) {
        if !task.fields().joiner.get().is_null() {
            self.suspend_all(task);
        }
    }

    #[cold]
    fn suspend_all(&mut self, task: Gc<Task>) {
        let mut joined = task;
        let mut joiner = joined.take_joiner();
        while let Some(it) = joiner {
            // Once it can be claimed another core may run it: in whose place it runs is looked at before.
            joiner = it.take_joiner();
            if let Some(it) = self.wait_for(it, WaitFor::Task(joined)) {
                self.make_ready(it);
            }
            joined = it;
        }
    }
}
