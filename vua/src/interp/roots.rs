//! Collections, from the interpreter's side: what a core and a task hold, when a core collects, and how an instruction starts again
//! after an allocation failed.
//!
//! # What a stack holds
//! A stack is looked at from its first slot to its *live top*, which its innermost frame tells; everything below belongs to some
//! frame. Slots hold values, links, raw registers, and what was left there by calls that have returned, so a word counts as a reference only
//! if an object really begins where it points to ([`Marker::words`]). Objects do not move, so that is enough: a raw number that looks like a
//! reference keeps an object alive, and does no harm.
//!
//! # Starting again
//! An instruction's slow path that gets no memory has had no effect: the core collects, and the instruction runs again. If it gets
//! none then either, and the core has got no block in between, that is the error `not enough memory`. A native's step runs again from its start, or from where it has
//! [advanced](super::native::Call::advance) to. What cannot start again, since it has had effects, collects in place: [`Core::relieve_or_fail`].

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use smp::platform::Cpu;
use smp::safepoint::Helper;

use super::call::is_resumed;
use super::core_state::{Core, NO_STEP, Step};
use super::dispatch::Exit;
use super::native::Throw;
use super::throw::{Flow, Leave};
use crate::bytecode::instructions::Op;
use crate::engine::Engine;
use crate::heap::{COLLECT, Header, Heap, Kind, LocalHeap, Marker, Mutators, NeedMemory};
use crate::object::{Gc, Proto};
use crate::observe::trace::Event;
use crate::task::{Latch, State, Task, WaitFor, coroutine};
use crate::value::{Tag, Value};

/// So few blocks taken between two collections for the same place are no progress,
const FEW: u64 = 4;
/// if there are so many such collections in a row.
const PATIENCE: u32 = 16;

/// The last collection for want of memory.
#[derive(Clone, Copy, Default)]
pub(crate) struct Relief {
    /// For which instruction, in which frame.
    pc: usize,
    frame: usize,
    /// How much the core had taken by then.
    taken: u64,
    /// Which of all collections it was.
    cycle: u32,
    /// How many there were there in a row.
    times: u32,
}

/// Where an instruction began.
#[derive(Clone, Copy)]
pub(super) struct Began {
    pc: *const AtomicU32,
    /// Its frame, from the stack's first slot: the stack may have moved.
    frame: usize,
    n: usize,
}

impl Core {
    /// Where the instruction whose slow path begins stands.
    #[inline(always)]
    pub(super) fn began(&self) -> Began {
        Began {
            pc: self.pc,
            frame: (self.base as usize).wrapping_sub(self.stack as usize) / 8,
            n: self.n,
        }
    }

    /// Collects for an instruction that got no memory, and prepares to run it again; or raises the error.
    #[cold]
    pub(super) fn begin_again(&mut self, began: Began, need: NeedMemory) -> Option<Exit> {
        // SAFETY: the frame is the running task's, and the slow path began behind its instruction.
        unsafe {
            self.pc = began.pc.sub(1);
            self.base = self.stack.add(began.frame);
            self.n = began.n;
            if self.relieve(need) {
                return None;
            }
            self.pc = began.pc;
        }
        self.leave(Leave::Throw(Throw::Value(self.engine.out_of_memory())))
    }

    /// Collects for want of memory; `false` if that does not help. Everything alive is in frames.
    ///
    /// It does not help if there is no room for a large object then either; if the same place asks again and nobody has got a block since; or if that happens
    /// over and over with hardly a block for this core in between: then what little is free is used up by what comes before, or by other cores. An allocation that was
    /// made to fail says nothing about how much there is.
    fn relieve(&mut self, need: NeedMemory) -> bool {
        let heap = self.engine.heap();
        let frame = (self.base as usize).wrapping_sub(self.stack as usize);
        if self.heap.was_made_to_fail() {
            heap.relent(self.pc as usize ^ frame);
            self.collect();
            return true;
        }
        let (pc, taken) = (self.pc as usize, self.heap.taken());
        let last = self.relieved;
        let mut times = 0;
        if (last.pc, last.frame) == (pc, frame) {
            let since = taken.wrapping_sub(last.taken);
            if since == 0 && last.cycle == heap.collections() && heap.taken_since() == 0 {
                self.relieved = Relief::default();
                return false;
            }
            times = if since <= FEW { last.times + 1 } else { 0 };
        }
        self.collect();
        if times >= PATIENCE || !self.heap.has_room(need.bytes) {
            self.relieved = Relief::default();
            return false;
        }
        self.relieved = Relief {
            pc,
            frame,
            taken: self.heap.taken(),
            cycle: heap.collections(),
            times,
        };
        true
    }

    /// Collects for want of memory, in place, or gives the error. Everything alive is in frames.
    #[cold]
    pub(crate) fn relieve_or_fail(&mut self, need: NeedMemory) -> Flow {
        if self.relieve(need) {
            Ok(())
        } else {
            Err(Leave::Throw(Throw::Value(self.engine.out_of_memory())))
        }
    }

    /// Collects, or waits for the collection that another core begins at the same moment. When it returns, one has begun after the call. A safepoint: everything
    /// alive is in frames or other roots.
    ///
    /// Whoever stops the world first may do so for something else ([a look for a deadlock](crate::task::run)): then it is this core's turn after that.
    #[cold]
    pub(crate) fn collect(&self) {
        let engine = self.engine;
        let safepoints = engine.scheduler().safepoints();
        let asked = engine.platform().now();
        // This core runs, so no collection is going on.
        let before = engine.heap().collections();
        loop {
            if safepoints.stop_begin(self.cpu) {
                safepoints.stop_wait(self.cpu);
                // SAFETY: the world is stopped.
                let finish = unsafe { engine.heap().collect(engine, self.cpu, asked) };
                safepoints.resume(self.cpu);
                finish.finish();
                engine.finalize_due(self.cpu);
                break;
            }
            self.worker().stop_hold();
            if engine.heap().collections() != before {
                break;
            }
        }
        if self.observer.is_some() {
            self.note(Event::Collection, asked);
        }
    }

    /// At the end of a `while` or `repeat`, or at a `goto` backward: what earlier expressions left in registers that no variable is in becomes nil, so that it does not
    /// live as long as the loop runs. At a call nothing is left there but what lies above the callee's frame.
    ///
    /// Which registers these are, the names of the variables tell, if they are known. Names may be wrong, in bytecode that was made by hand: then the program sees nil where it expected
    /// its value, and no more, since tables, functions and strings are asked for what they are at every use; where they are not, the verifier does not let a loop's end intervene.
    #[cold]
    pub(super) fn forget_temporaries(&self) {
        // SAFETY: the running frame's function, and its registers. Raw ones are left alone, and so is what may be a cell.
        unsafe {
            let Some(closure) = Value::from_bits(*self.base.sub(2)).as_closure() else {
                return;
            };
            let proto = closure.proto();
            let Some(debug) = proto.debug() else { return };
            let at = self.pc.offset_from(proto.code) as usize;
            let raw = proto.raw_start as usize + proto.raw_count as usize;
            let first = debug
                .locals
                .iter()
                .filter(|local| local.start as usize <= at && at < local.end as usize)
                .map(|local| local.register as usize + 1)
                .fold(raw.max(proto.parameters as usize), usize::max);
            for register in first..proto.registers as usize {
                let slot = self.base.add(register);
                let value = Value::from_bits(*slot);
                if [Tag::Table, Tag::Function, Tag::String, Tag::Struct]
                    .iter()
                    .any(|tag| value.has_tag(*tag))
                {
                    *slot = Value::NIL.to_bits();
                }
            }
        }
    }

    /// [`COLLECT`] is set in the poll word.
    #[cold]
    pub(crate) fn collect_if_due(&self) {
        let engine = self.engine;
        let safepoints = engine.scheduler().safepoints();
        safepoints.take(self.cpu, COLLECT);
        if engine.collects_always() {
            self.collect();
            safepoints.post(self.cpu, COLLECT);
        } else if engine.heap().is_collection_due() {
            self.collect();
        }
    }
}

/// The end of what is in use of a stack whose innermost frame is at `base`, stopped at `pc`; for a native's frame, `slots` of it are. At a function's
/// head there are `n` arguments. `open` is the number of open results, if there are any.
///
/// # Safety
/// The stack is that of a task that is suspended or at a safepoint.
unsafe fn live_top(
    pc: *const AtomicU32,
    base: *mut u64,
    n: usize,
    slots: usize,
    open: usize,
) -> *mut u64 {
    // SAFETY: the slot two below a base holds the frame's function; an instruction stands before `pc`, which is not a head.
    unsafe {
        let Some(closure) = Value::from_bits(*base.sub(2)).as_closure() else {
            return base.add(slots);
        };
        if pc == closure.proto().code {
            return base.add(n);
        }
        let registers = base.add(closure.proto().registers as usize);
        // The instruction that is being executed, or the next, may be about open results.
        let is_open = |pc: *const AtomicU32| {
            matches!(
                Op::of((*pc).load(Ordering::Relaxed)),
                Some(Op::CALLM | Op::TCALLM | Op::TLISTM | Op::RETM | Op::VARG | Op::CLOSE)
            )
        };
        if is_open(pc.sub(1)) || is_open(pc) {
            registers.add(open)
        } else {
            registers
        }
    }
}

/// As [`live_top`], for a stack whose task or coroutine does not run.
///
/// # Safety
/// As for `live_top`.
pub(crate) unsafe fn suspended_top(
    pc: *const AtomicU32,
    base: *mut u64,
    n: usize,
    step: Step,
) -> *mut u64 {
    // SAFETY: as the caller says. Natives that wait are at a head of their own, which takes the step.
    unsafe {
        let slots = if is_resumed(pc) { step.slots } else { n };
        live_top(pc, base, n, slots, 0)
    }
}

/// Tells the marker what a stack holds below `top`.
///
/// # Safety
/// In the pause; the stack has `slots` slots.
pub(crate) unsafe fn mark_stack(
    stack: *mut u64,
    slots: usize,
    top: *mut u64,
    marker: &mut Marker<'_>,
) {
    let used = (top as usize).saturating_sub(stack as usize) / 8;
    // SAFETY: the stack is an object of the heap whose words follow its header, all of them initialised.
    unsafe {
        if let Some(header) = NonNull::new(stack.sub(1).cast::<Header>()) {
            marker.keep(header);
        }
        marker.words(stack, used.min(slots));
    }
}

/// The [`MarkHook`](crate::heap::MarkHook) of tasks.
///
/// # Safety
/// As for every mark hook.
unsafe fn mark_task(object: NonNull<Header>, marker: &mut Marker<'_>) {
    // SAFETY: a live task; in the pause nobody changes it.
    unsafe {
        let task: Gc<Task> = Gc::from_ptr(object.cast());
        let fields = task.fields();
        marker.object(task.program().handle().header_ptr());
        marker.value(fields.result.get());
        marker.value(fields.spawned_at.get().0);
        marker.value(fields.cause.get().0);
        marker.value(fields.cause.get().1);
        mark_wait(fields.wait.get(), marker);
        // SAFETY: null, or a list that the task owns.
        if let Some(held) = fields.held.get().as_ref() {
            for held in held {
                marker.value(held.value());
            }
        }
        if let Some(latch) = NonNull::new(fields.latch.get()) {
            marker.object(latch.cast());
        }
        if let Some(table) = NonNull::new(fields.grows.get()) {
            marker.object(table.cast());
        }
        for coroutine in [fields.coroutine.get(), fields.main.get()] {
            if let Some(coroutine) = NonNull::new(coroutine) {
                marker.object(coroutine.cast());
            }
        }
        let (stack, slots) = (fields.stack.get(), fields.slots.get());
        if slots == 0 {
            return;
        }
        match task.state() {
            State::Ready | State::Waiting => {
                let (pc, base) = (fields.pc.get(), fields.base.get());
                let top = suspended_top(pc, base, fields.n.get(), fields.step.get());
                mark_stack(stack, slots, top, marker);
            }
            // The core that runs it knows how far its stack is in use.
            State::Running => {}
            State::Done | State::Failed | State::Cancelled => {
                let results = fields.results.get() as usize;
                mark_stack(stack, slots, stack.add(results), marker);
            }
        }
    }
}

/// Tells the marker what is waited for.
///
/// # Safety
/// In the pause.
unsafe fn mark_wait(wait: Option<WaitFor>, marker: &mut Marker<'_>) {
    // SAFETY: what a task waits for lives.
    unsafe {
        match wait {
            Some(WaitFor::Task(task) | WaitFor::TaskUntil(task, _)) => {
                marker.object(task.header_ptr());
            }
            Some(WaitFor::Latch(latch)) => marker.object(latch.header_ptr()),
            Some(WaitFor::Program(program, _)) => marker.object(program.header_ptr()),
            Some(WaitFor::Growth(table) | WaitFor::Handshake(table)) => {
                marker.object(table.header_ptr());
            }
            Some(WaitFor::Monitor(monitor, _)) => marker.object(monitor.header_ptr()),
            Some(WaitFor::Queue(queue, _, _)) => marker.object(queue.header_ptr()),
            Some(
                WaitFor::Module(_)
                | WaitFor::Input(_)
                | WaitFor::Finalized
                | WaitFor::Finalizers
                | WaitFor::Time(_)
                | WaitFor::Passed
                | WaitFor::Turn,
            )
            | None => {}
        }
    }
}

/// The mark hook of latches.
///
/// # Safety
/// As for every mark hook.
unsafe fn mark_latch(object: NonNull<Header>, marker: &mut Marker<'_>) {
    // SAFETY: a live latch.
    let latch: Gc<Latch> = unsafe { Gc::from_ptr(object.cast()) };
    latch.each_value(|value| marker.value(value));
}

/// The drop hook of prototypes.
///
/// # Safety
/// As for every drop hook.
unsafe fn drop_proto(object: NonNull<Header>) {
    // SAFETY: a dead prototype, dropped once.
    unsafe { Gc::<Proto>::from_ptr(object.cast()).drop_debug() }
}

/// The drop hook of tasks.
///
/// # Safety
/// As for every drop hook.
unsafe fn drop_task(object: NonNull<Header>) {
    // SAFETY: a dead task, dropped once.
    unsafe { Gc::<Task>::from_ptr(object.cast()).drop_owned() }
}

/// Tells the heap about the kinds that the engine defines.
pub(crate) fn set_hooks(heap: &Heap) {
    heap.set_mark_hook(Kind::Task, mark_task);
    heap.set_mark_hook(Kind::Latch, mark_latch);
    heap.set_mark_hook(Kind::Coroutine, coroutine::mark);
    heap.set_drop_hook(Kind::Coroutine, coroutine::drop_owned);
    heap.set_mark_hook(Kind::Program, crate::engine::program::mark);
    heap.set_drop_hook(Kind::Program, crate::engine::program::drop_owned);
    heap.set_drop_hook(Kind::Proto, drop_proto);
    heap.set_drop_hook(Kind::Task, drop_task);
}

impl Helper for Engine {
    fn help(&self, cpu: Cpu) {
        self.heap().help(self, cpu);
    }
}

impl Mutators for Engine {
    fn cpus(&self) -> usize {
        self.scheduler().cpus()
    }

    unsafe fn local(&self, cpu: usize) -> &LocalHeap {
        // SAFETY: a core's part of the heap is looked at in the pause, when the core itself does not use it.
        unsafe { &(*self.core_at(cpu)).heap }
    }

    unsafe fn stopped(&self) {
        self.forget_retired();
    }

    unsafe fn marked(&self, lives: &dyn Fn(NonNull<Header>) -> bool) {
        self.files()
            .forget(&|handle| NonNull::new(handle as *mut Header).is_some_and(lives));
        // SAFETY: in the pause; all cores have the same or none.
        if let Some(races) = unsafe { (*self.core_at(0)).meter.races } {
            races.collected(&|object| NonNull::new(object as *mut Header).is_some_and(lives));
        }
    }

    unsafe fn core_roots(&self, cpu: usize, marker: &mut Marker<'_>) {
        // SAFETY: in the pause the core does not change, and has written back what it holds: it is in a call, or outside.
        unsafe {
            let core = &*self.core_at(cpu);
            marker.value(core.error);
            marker.object(core.program.handle().header_ptr());
            for &stack in core.spare_stacks() {
                if let Some(header) = NonNull::new(stack.sub(1).cast::<Header>()) {
                    marker.keep(header);
                }
            }
            mark_wait(core.wait, marker);
            let Some(task) = core.task else { return };
            marker.object(task.header_ptr());
            if core.stack.is_null() {
                return;
            }
            let slots = (core.stack_end as usize - core.stack as usize) / 8;
            let top = if core.finishing {
                if core.from.is_null() {
                    core.stack
                } else {
                    core.from.add(core.n)
                }
            } else {
                let slots = if core.slots != NO_STEP {
                    core.slots
                } else if is_resumed(core.pc) {
                    core.step.slots
                } else {
                    core.n
                };
                live_top(core.pc, core.base, core.n, slots, core.open)
            };
            mark_stack(core.stack, slots, top, marker);
        }
    }

    unsafe fn common_roots(&self, marker: &mut Marker<'_>) {
        self.each_root(&mut |value| marker.value(value));
    }

    unsafe fn is_live_task(&self, task: NonNull<Header>) -> bool {
        // SAFETY: a task, says the caller.
        let task: Gc<Task> = unsafe { Gc::from_ptr(task.cast()) };
        matches!(task.state(), State::Ready | State::Running | State::Waiting)
            && task.program().is_alive()
    }
}

#[cfg(test)]
#[path = "roots_tests.rs"]
mod tests;
