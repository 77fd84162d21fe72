//! A core's loop over tasks: taking one, running it until it ends or waits, and what follows.

use alloc::string::String;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use smp::safepoint::{CANCEL, HANDSHAKE, HEARTBEAT, HUNGRY, INPUT, MARKED, STOP};
use smp::scheduler::{Find, Rest};

use super::{Latch, State, Task, WaitFor, Woken};
use crate::bytecode::instructions::Op;
use crate::engine::status;
use crate::heap::{COLLECT, flags};
use crate::interp::native::Throw;
use crate::interp::throw::{Flow, Leave};
use crate::interp::{Core, Exit, Vm, enter};
use crate::object::Gc;
use crate::observe::trace::Event;
use crate::share::Want;
use crate::table::Table;
use crate::value::Value;

/// How long a task runs before others that are ready get a turn, in nanoseconds. A hundred turns a second cost nothing that can be measured, and
/// a program that waits for input or a timer does not notice them.
const TURN: u64 = 10_000_000;

/// How a core's [turn](Vm::turn) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The next turn may follow at once.
    Over,
    /// The core has fallen asleep, and rises before its next turn: when it is woken, or at that moment.
    Asleep(Option<u64>),
    /// The program has ended.
    Ended,
}

/// What the first half of a turn gave.
pub(crate) enum Took {
    /// A task to run.
    Task(Gc<Task>),
    /// None: the turn has ended.
    None(Turn),
}

impl Vm {
    /// Runs tasks until the program has ended.
    pub(crate) fn run_tasks(&mut self) {
        if self.core.observer.is_some() {
            return self.run_tasks_observed();
        }
        loop {
            match self.turn() {
                Turn::Over => {}
                Turn::Asleep(limit) => {
                    self.core.worker().park(limit);
                    self.core.worker().rise();
                }
                Turn::Ended => return,
            }
        }
    }

    /// Takes a task and runs it until it ends, waits or makes way; or falls asleep if there is none. Never waits for another core but where
    /// the world is stopped, so a driver may run the turns of several cores on one thread.
    #[inline]
    pub(crate) fn turn(&mut self) -> Turn {
        if self.core.task.is_some() {
            // A driver took the core from its task, and gives it back.
            self.core.next = self.go_on(None);
            return Turn::Over;
        }
        match self.take() {
            Took::Task(task) => {
                self.run_taken(task);
                Turn::Over
            }
            Took::None(turn) => turn,
        }
    }

    /// The first half of a turn: takes a task, or falls asleep.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Took {
        if self.control.poll.load(Ordering::Relaxed) != 0 {
            self.between_tasks();
        }
        let task = match self.core.next.take() {
            Some(task) => task,
            None => match self.core.worker().find() {
                Find::Task(task) => task,
                Find::Closed => return Took::None(Turn::Ended),
                Find::Empty => return Took::None(self.rest()),
            },
        };
        if self.core.engine.is_closed() {
            return Took::None(Turn::Ended);
        }
        Took::Task(task)
    }

    /// The second half of a turn: runs the task that was taken.
    #[inline(always)]
    pub(crate) fn run_taken(&mut self, task: Gc<Task>) {
        let program = task.program();
        if !core::ptr::eq(self.core.program, program) {
            self.core.enter_program(program);
        }
        if let Some(limit) = program.limit()
            && !limit.enter(self.core.engine, task)
        {
            return;
        }
        self.core.next = self.run_task(task);
    }

    /// There is no task for this core.
    fn rest(&mut self) -> Turn {
        let engine = self.core.engine;
        engine.flush_output();
        let program = engine.first();
        if !core::ptr::eq(self.core.program, program) {
            self.core.enter_program(program);
        }
        program.end_if_done(engine, self.core.cpu);
        let wakes = engine.input_wakes();
        let worker = self.core.worker();
        let mut rest = worker.fall_asleep(None, true);
        if rest == Rest::Quiet {
            worker.rise();
            if program.end_if_done(engine, self.core.cpu) {
                return Turn::Over;
            }
            if !engine.waits_for_input() {
                if engine.input_wakes() == wakes {
                    engine.deadlock(&[program]);
                }
                return Turn::Over;
            }
            rest = worker.fall_asleep(None, false);
        }
        if let Rest::Until(limit) = rest {
            return Turn::Asleep(limit);
        }
        worker.rise();
        Turn::Over
    }

    /// The poll word is set and no task is running.
    fn between_tasks(&mut self) {
        let safepoints = self.core.engine.scheduler().safepoints();
        let bits = safepoints.take(
            self.core.cpu,
            HUNGRY | HEARTBEAT | CANCEL | INPUT | MARKED | COLLECT,
        );
        let asked = self.control.poll.load(Ordering::Relaxed);
        if asked & HANDSHAKE != 0 {
            self.core.worker().acknowledge();
        }
        if asked & STOP != 0 {
            self.core.worker().stop_hold();
        }
        if bits & COLLECT != 0 && self.core.engine.heap().is_collection_due() {
            self.core.collect();
        }
        if bits & HEARTBEAT != 0 {
            self.core.engine.flush_output();
            self.core.beating = false;
            self.core.worker().fire_timers();
        }
        if bits & INPUT != 0 {
            self.core.engine.wake_readers();
        }
        if bits & HUNGRY != 0 {
            self.core.worker().share();
            self.core.make_way_in_time();
        }
        if bits & CANCEL != 0 {
            self.core.engine.serve_cancellation();
        }
    }

    /// A safepoint of the running task. `pc`, `base` and `n` are saved; everything alive is in frames.
    pub(crate) fn safepoint(&mut self) -> Flow {
        if self.control.poll.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.core.safepoint_asked(true)
    }

    /// Runs one task until it ends, waits or makes way; gives the task to run next, if there is one for this core.
    fn run_task(&mut self, task: Gc<Task>) -> Option<Gc<Task>> {
        let fields = task.fields();
        let core = &mut self.core;
        core.switch_to_task(task);
        core.make_way_in_time();
        if core.engine.collects_always() {
            core.engine.scheduler().safepoints().post(core.cpu, COLLECT);
        }
        if let Some(paths) = &mut core.meter.paths {
            paths.resume(task, core.meter.executed);
        }
        let is_finalizer = task.program().is_finalizer(task);
        core.race_watch(|races, task| races.resumed(task, is_finalizer));
        let mut exit = None;
        let waited = core.end_wait(task);
        let had_event = matches!(waited, Some((Woken::Event, _)));
        match waited {
            Some((Woken::Cancel, wait)) => {
                match wait {
                    // The request came before it began to unwind, and it waits again since: for the same as before.
                    _ if task.is_unwinding() => {
                        core.wait = Some(wait);
                        exit = Some(Exit::Waiting);
                    }
                    // The program is cancelled and waited for first: its watcher goes on watching.
                    WaitFor::Program(program, _) => {
                        task.begin_unwinding();
                        let program = program.fields();
                        program.give_status(status::CANCELLED);
                        core.engine.cancel_all(program);
                    }
                    // Its pieces are cancelled and waited for first: the join runs again, and goes on unwinding.
                    WaitFor::Latch(latch) if !latch.is_scope() => {
                        task.begin_unwinding();
                        latch.fields().owner_cancelled.set(true);
                        latch.cancel(core.engine);
                    }
                    // The mutex is taken again first, and a scope that is being left ends first; the native that waits goes on unwinding.
                    WaitFor::Monitor(_, Want::Signal(_)) | WaitFor::Latch(_) => {
                        task.begin_unwinding();
                        core.woken = Woken::Cancel;
                    }
                    _ => exit = core.unwind(Throw::Cancelled),
                }
            }
            Some((woken, _)) => core.woken = woken,
            None => {
                if core.cancelled_here() && fields.grows.get().is_null() {
                    exit = core.unwind(Throw::Cancelled);
                }
            }
        }
        if let Some(table) = NonNull::new(fields.grows.replace(core::ptr::null_mut())) {
            // SAFETY: the table is in the task's frame.
            let finished = finish_growth(core, unsafe { Gc::from_ptr(table) });
            exit = match finished {
                Err(leave) => core.leave(leave),
                Ok(()) if core.cancelled_here() => core.unwind(Throw::Cancelled),
                Ok(()) => None,
            };
        }
        if core.program.is_closed() {
            if had_event {
                // It may have what it waited for only when it has gone on: it is left at its next safepoint.
                core.engine.scheduler().safepoints().post(core.cpu, MARKED);
            } else {
                core.wait = None;
                exit = Some(Exit::Cancelled);
            }
        }
        self.go_on(exit)
    }

    /// Goes on with the core's task, unless it is to be left by `exit`.
    #[inline(always)]
    fn go_on(&mut self, mut exit: Option<Exit>) -> Option<Gc<Task>> {
        let exit = loop {
            let left = match exit {
                Some(exit) => exit,
                // SAFETY: what the core holds is what the task was suspended with.
                None => unsafe { enter(self) },
            };
            if left != Exit::Waiting {
                break left;
            }
            // `wait` stays in the core's state meanwhile: a root.
            match self.core.prepare_wait() {
                Ok(()) => break left,
                Err(leave) => exit = self.core.leave(leave),
            }
        };
        // The task stays the core's until it is somebody else's: until then its stack is found by the core's state.
        let core = &mut self.core;
        let task = core.task?;
        if exit == Exit::Switched {
            return None;
        }
        let mut leaves = true;
        let next = match exit {
            Exit::Waiting => {
                let until = core.wait.take().unwrap_or(WaitFor::Turn);
                core.suspend_joiners(task);
                core.save(task);
                task.set_state(State::Waiting);
                if matches!(until, WaitFor::Turn) {
                    leave_limit(core, &mut leaves);
                }
                core.wait_for(task, until)
            }
            Exit::Preempted => {
                // Without memory the iterations stay where they are, and get their turn with the task.
                _ = core.give_away();
                core.suspend_joiners(task);
                core.save(task);
                task.set_state(State::Ready);
                core.counters.preemptions += 1;
                leave_limit(core, &mut leaves);
                core.engine.scheduler().inject(task);
                None
            }
            Exit::Switched => None,
            Exit::Finished | Exit::Failed | Exit::Cancelled => {
                core.finishing = true;
                if exit != Exit::Finished {
                    core.from = core::ptr::null_mut();
                }
                let next = core.finish(task, exit);
                core.finishing = false;
                next
            }
        };
        core.task = None;
        core.error = Value::NIL;
        leave_limit(core, &mut leaves);
        next
    }
}

/// The core has left a task, or is about to queue it again: if the task's program is limited to some cores, another of its tasks may run, and is queued. That one goes ahead of
/// a task that makes way: if it came behind, the core would take the same task again and again, and all others would take turns at waiting.
#[inline(always)]
fn leave_limit(core: &Core, leaves: &mut bool) {
    if core::mem::take(leaves)
        && let Some(limit) = core.program.limit()
    {
        limit.leave(core.engine);
    }
}

/// Copies a shared table's nodes after the handshake that its growth asked for, and lets its writers go on. A safepoint; the table is reached from a frame.
pub(crate) fn finish_growth(core: &mut Core, table: Gc<Table>) -> Flow {
    let retired = loop {
        match table.grow_finish(&core.heap, &mut || core.pause()) {
            Ok(retired) => break retired,
            Err(need) => {
                if let Err(error) = core.relieve_or_fail(need) {
                    table.grow_cancel();
                    core.engine.wake_writers(table);
                    return Err(error);
                }
            }
        }
    };
    core.counters.growths += 1;
    core.engine.retire(&core.heap, retired);
    core.engine.wake_writers(table);
    Ok(())
}

impl Core {
    /// Whether the running frame's function has not run its head yet.
    pub(crate) fn is_entering(&self) -> bool {
        // SAFETY: `pc` points to an instruction.
        let word = unsafe { (*self.pc).load(Ordering::Relaxed) };
        matches!(Op::of(word), Some(Op::FUNC | Op::FUNCV | Op::NATIVE))
            || crate::interp::intrinsic::is_head(word)
    }

    /// Answers what other cores asked for. A task that may be moved aside gives way at a heartbeat.
    #[cold]
    pub(crate) fn safepoint_asked(&mut self, may_leave: bool) -> Flow {
        self.counters.polls += 1;
        let platform = self.engine.platform();
        let start = platform.now();
        let mut asked = 0;
        if self.observer.is_some() {
            self.sample_if_asked();
            let safepoints = self.engine.scheduler().safepoints();
            asked = safepoints.control(self.cpu).poll.load(Ordering::Relaxed);
        }
        let flow = self.answer(may_leave);
        let passed = platform.now().saturating_sub(start);
        self.worker().stats().safepoint_ns.add(passed);
        if asked != 0 {
            self.note(Event::Safepoint(asked), start);
        }
        flow
    }

    fn answer(&mut self, may_leave: bool) -> Flow {
        let engine = self.engine;
        let safepoints = engine.scheduler().safepoints();
        let bits = safepoints.take(self.cpu, HUNGRY | HEARTBEAT | CANCEL | INPUT | MARKED);
        self.pause();
        if bits & INPUT != 0 {
            engine.wake_readers();
        }
        if self.is_over() {
            return Err(Leave::Exit(Exit::Cancelled));
        }
        if bits & CANCEL != 0 {
            engine.serve_cancellation();
        }
        if bits & HEARTBEAT != 0 {
            // Whatever else is asked for: who beats again is told by this.
            self.beating = false;
            engine.flush_output();
            self.worker().fire_timers();
        }
        if bits & (HEARTBEAT | CANCEL | MARKED) != 0
            && let Some(task) = self.task
        {
            self.suspend_joiners(task);
        }
        self.make_way_in_time();
        if bits & (CANCEL | MARKED) != 0 && self.cancelled_here() {
            return Err(Leave::Throw(Throw::Cancelled));
        }
        let is_full = || self.program.limit().is_some_and(|limit| limit.is_full());
        if bits & HUNGRY != 0 && self.worker().share() && !is_full() {
            // Without memory for a piece, the loop goes on in one.
            if let Ok(Some(piece)) = self.split(false) {
                self.program.count_spawn(self.cpu);
                self.worker().spawn(piece);
            }
        }
        if bits & HEARTBEAT != 0 {
            if may_leave && self.makes_way() {
                // Whoever runs next starts the clock again.
                self.beat();
                return Err(Leave::Exit(Exit::Preempted));
            }
            self.beat();
        }
        Ok(())
    }

    /// Whether the running task, whose turn is over, is to be moved aside: for tasks that are queued, or for iterations of a loop on its own stack that has not gone on
    /// since the last heartbeat, for the iteration that is running may spin until another has run. A loop that goes on stays one task's,
    /// and what it uses unshared.
    fn makes_way(&mut self) -> bool {
        let limit = self.program.limit();
        if self.engine.scheduler().has_injected()
            || !self.worker().is_empty()
            || limit.is_some_and(|limit| limit.has_waiting())
        {
            self.latent = None;
            return true;
        }
        let latent = self.latent_loop();
        latent.is_some() && core::mem::replace(&mut self.latent, latent) == latent
    }

    /// A safepoint in the middle of long work on the heap: answers handshakes and stops, and leaves the rest for the next one.
    #[inline]
    pub(crate) fn pause(&self) {
        let safepoints = self.engine.scheduler().safepoints();
        let asked = safepoints.control(self.cpu).poll.load(Ordering::Relaxed);
        if asked & HANDSHAKE != 0 {
            self.worker().acknowledge();
        }
        if asked & STOP != 0 {
            self.worker().stop_hold();
        }
        if asked & COLLECT != 0 {
            self.collect_if_due();
        }
    }

    /// A safepoint within a native's step.
    pub(crate) fn poll_in_place(&mut self) -> Result<(), Throw> {
        if self
            .engine
            .scheduler()
            .safepoints()
            .control(self.cpu)
            .poll
            .load(Ordering::Relaxed)
            == 0
        {
            return Ok(());
        }
        match self.safepoint_asked(false) {
            Ok(()) => Ok(()),
            Err(Leave::Throw(throw)) => Err(throw),
            Err(Leave::Exit(_)) => Err(Throw::Cancelled),
        }
    }

    /// Asks for a heartbeat, if none is under way: from now on there is something that a long task would keep waiting.
    #[inline]
    pub(crate) fn beat(&mut self) {
        if !self.beating {
            self.beating = true;
            self.engine.platform().heartbeat(self.cpu, TURN);
        }
    }

    /// Asks for a heartbeat if there is something that a task of this core could keep waiting: queued tasks, whose spawner may run a task that never
    /// ends, and timers, which nobody looks at but heartbeats when no core sleeps. Also where a task begins: the heartbeat that was asked for
    /// with a timer or a spawn may have come between two tasks, and is over then.
    #[inline]
    fn make_way_in_time(&mut self) {
        if self.beating {
            return;
        }
        let scheduler = self.engine.scheduler();
        let limit = self.program.limit();
        if scheduler.has_injected()
            || scheduler.has_timers()
            || !self.worker().is_empty()
            || limit.is_some_and(|limit| limit.has_waiting())
        {
            self.beat();
        }
    }

    /// Makes tasks of all iterations that are left of the loops on the stack of the running task, which is about to wait or to be moved aside: what it
    /// waits for, or spins for, may be among them. So without memory for a piece a wait must not begin: that is the error.
    fn give_away(&mut self) -> Flow {
        loop {
            match self.split(true) {
                Ok(Some(piece)) => {
                    self.program.count_spawn(self.cpu);
                    self.worker().spawn(piece);
                }
                Ok(None) => return Ok(()),
                Err(need) => self.relieve_or_fail(need)?,
            }
        }
    }

    /// The running task is about to wait for what `wait` says.
    fn prepare_wait(&mut self) -> Flow {
        // These end by themselves.
        if matches!(
            self.wait,
            Some(WaitFor::Growth(_) | WaitFor::Handshake(_) | WaitFor::Passed)
        ) {
            return Ok(());
        }
        let flow = self.give_away();
        if flow.is_err()
            && let Some(WaitFor::Monitor(condition, Want::Signal(_))) = self.wait.take()
            && let Some(task) = self.task
        {
            condition.hold_on(task);
        }
        flow
    }

    /// The running task's state, to go on with later.
    pub(super) fn save(&mut self, task: Gc<Task>) {
        if let Some(paths) = &mut self.meter.paths {
            paths.suspend(task, self.meter.executed);
        }
        let fields = task.fields();
        fields.pc.set(self.pc);
        fields.base.set(self.base);
        fields.n.set(self.n);
        fields.step.set(self.step);
    }

    /// Makes a task the running one, in the state that it was saved in.
    #[inline(always)]
    pub(super) fn switch_to_task(&mut self, task: Gc<Task>) {
        let fields = task.fields();
        task.set_state(State::Running);
        self.task = Some(task);
        self.pc = fields.pc.get();
        self.base = fields.base.get();
        self.n = fields.n.get();
        self.step = fields.step.get();
        // SAFETY: null, or a list that the task owns.
        self.to_close = unsafe { fields.closing.get().as_ref() }.map_or(0, |list| list.len());
        self.stack = fields.stack.get();
        // SAFETY: the stack is that long.
        self.stack_end = unsafe { self.stack.add(fields.slots.get()) };
        self.woken = Woken::Event;
    }

    /// Arranges for a suspended task to go on; gives it back if it can at once.
    pub(super) fn wait_for(&mut self, task: Gc<Task>, until: WaitFor) -> Option<Gc<Task>> {
        let engine = self.engine;
        if matches!(until, WaitFor::Finalizers) {
            return (!engine.rest_finalizer(self.program, self.cpu)).then_some(task);
        }
        self.program.register().enter(self.cpu, task);
        match until {
            // These end soon and by themselves: nothing else ends them.
            WaitFor::Growth(table) => {
                if engine.add_writer(table, task) {
                    None
                } else {
                    Some(task)
                }
            }
            WaitFor::Handshake(table) => {
                task.fields().grows.set(table.as_ptr());
                self.worker().after_handshake(task);
                None
            }
            WaitFor::Passed => {
                self.worker().after_handshake(task);
                None
            }
            WaitFor::Turn => {
                task.set_state(State::Ready);
                engine.scheduler().inject(task);
                None
            }
            _ => self.suspend(task, until),
        }
    }

    /// Makes a task that was suspended ready on this core.
    pub(crate) fn make_ready(&mut self, task: Gc<Task>) {
        task.set_state(State::Ready);
        self.beat();
        self.worker().spawn(task);
    }

    /// A task has ended: keeps its results, wakes who waits for it. Gives one of those, to be run at once.
    fn finish(&mut self, task: Gc<Task>, exit: Exit) -> Option<Gc<Task>> {
        let engine = self.engine;
        let fields = task.fields();
        self.program.give_up_loads(engine, |load| load.task == task);
        let mut state = match exit {
            Exit::Finished => State::Done,
            Exit::Failed => State::Failed,
            _ => State::Cancelled,
        };
        if fields.locks.get() > 0 && self.release_held(task) && state == State::Done {
            state = State::Failed;
            self.error = self.engine.held_text();
        }
        // The task in whose place it ran goes on with its join.
        let mut next = task.take_joiner();
        // SAFETY: null, or the group that keeps the task.
        let latch: Option<Gc<Latch>> =
            NonNull::new(fields.latch.get()).map(|latch| unsafe { Gc::from_ptr(latch) });
        if let Some(paths) = &mut self.meter.paths {
            let piece_of = latch.filter(|latch| !latch.is_scope());
            let piece_of = piece_of.map_or(core::ptr::null_mut(), Gc::as_ptr);
            paths.ended(task, piece_of, self.meter.executed);
        }
        let scope = latch.filter(|latch| latch.is_scope());
        self.race_watch(|races, task| {
            races.ended(task, scope.map(|scope| scope.as_ptr() as usize))
        });
        self.program.register().leave(task);
        match latch {
            Some(latch) if !latch.is_scope() => {
                // A piece of a loop: its results are in the shared tables that it wrote to, its error in the latch.
                if state == State::Failed {
                    // The error was raised outside any iteration: before the body's head, for want of stack.
                    let error = self.publish_or_memory_error(self.error);
                    latch.fail(engine, Value::small(0), true, error, Some(task));
                }
                task.set_state(state);
                // SAFETY: the task has ended, and nobody joins a piece.
                unsafe { self.recycle_stack(self.stack, fields.slots.get()) };
                fields.slots.set(0);
            }
            _ => {
                self.keep_results(task, state);
                if state == State::Failed {
                    if let Some(latch) = latch {
                        let number =
                            Value::inline_integer(fields.number.get() as i64).unwrap_or(Value::NIL);
                        latch.fail(engine, number, true, fields.result.get(), Some(task));
                    }
                    self.program.add_failed(task);
                }
                task.end(state, |waiter| match next {
                    None => next = Some(waiter),
                    Some(_) => self.make_ready(waiter),
                });
            }
        }
        if let Some(latch) = latch {
            latch.remove(task, |waiter| match next {
                None => next = Some(waiter),
                Some(_) => self.make_ready(waiter),
            });
        }
        let program = self.program;
        program.count_end(self.cpu);
        if program.is_main(task) {
            program.main_ended(self, task, state);
        } else if !program.is_first() {
            program.look_for_end(engine, self.cpu);
        }
        next
    }

    fn publish_or_memory_error(&mut self, value: Value) -> Value {
        match self.publish(value) {
            Ok(()) => value,
            Err(_) => self.engine.out_of_memory(),
        }
    }

    /// Publishes a task's results and keeps them in the task.
    fn keep_results(&mut self, task: Gc<Task>, state: State) {
        let fields = task.fields();
        let (mut count, mut first) = match state {
            State::Done => (self.n, Value::NIL),
            State::Failed => (1, self.error),
            _ => (0, Value::NIL),
        };
        if state == State::Done {
            for i in 0..count {
                // SAFETY: the results are on the task's stack.
                let value = unsafe { Value::from_bits(*self.from.add(i)) };
                if self.publish(value).is_err() {
                    task.set_traceback(String::new());
                    count = 0;
                    break;
                }
                if i == 0 {
                    first = value;
                }
            }
        } else {
            first = self.publish_or_memory_error(first);
        }
        fields.result.set(first);
        fields.results.set(count as u32);
        // SAFETY: the results move down to the stack's first slots; a stack that holds none of use is given back.
        unsafe {
            if count > 1 {
                core::ptr::copy(self.from, self.stack, count);
            } else {
                self.recycle_stack(self.stack, fields.slots.get());
                fields.slots.set(0);
            }
        }
        self.stack = core::ptr::null_mut();
        self.stack_end = core::ptr::null_mut();
    }
}

/// Whether a table is being grown.
pub(crate) fn is_growing(table: Gc<Table>) -> bool {
    table.header().has(flags::GROWING)
}
