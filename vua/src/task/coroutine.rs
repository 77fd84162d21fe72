//! Coroutines: further stacks of a task, of which one runs at a time.
//!
//! # Switching
//! A running task uses one stack, which its own fields name ([`Task::stack`](super::Task)). A coroutine has the same fields for the stack
//! that is *not* in use: its own while it is suspended, and while it runs that of whoever resumed it. So
//! resuming and yielding are both one exchange of these fields, and everything else (waiting, preemption, growth of the stack, the
//! list of variables to be closed) knows only the stack in use: a task that waits inside a coroutine suspends with it.
//!
//! # Who may use it
//! | status | who |
//! | --- | --- |
//! | `Suspended`, `Dead` | nobody; the stack does not change |
//! | `Running`, `Normal` | the task that resumed it |
//!
//! A resume takes a suspended coroutine by a compare-and-swap (acquire); so of two tasks that resume it at once one does. It is released
//! (release) by the same task's `resume`, not by the yield: only when the yielded values have been copied from its stack. A coroutine that other tasks can reach is
//! released with all that its stack reaches published; while a task has it, no other looks at the stack.
//!
//! # Ends
//! A coroutine whose function returned keeps no stack. One that ended by an error keeps it, for tracebacks and until its variables are closed.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{INITIAL_SLOTS, Task, free_stack, new_stack};
use crate::heap::{Header, Kind, LocalHeap, Marker, NeedMemory, Visit, flags};
use crate::interp::core_state::{Core, Step};
use crate::interp::frame::{Continuation, Frame, Link, SLACK};
use crate::interp::native::Throw;
use crate::interp::roots::{mark_stack, suspended_top};
use crate::interp::throw::{Flow, Leave};
use crate::object::{Gc, Object};
use crate::race::Part;
use crate::value::{Tag, Value};

/// How deep coroutines may resume coroutines: about as in Lua, where the machine stack sets the limit. Here it bounds what a runaway uses.
const MAX_DEPTH: u32 = 200;

/// What a coroutine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// It has not begun, or has yielded.
    Suspended = 0,
    /// A task runs it.
    Running = 1,
    /// It has resumed another one.
    Normal = 2,
    /// It has ended.
    Dead = 3,
}

/// How a coroutine gave control back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It yielded: `count` values lie at its `base`.
    Yielded,
    /// Its function returned: `count` values lie at its `base`.
    Returned,
    /// An error ended it: [`Coroutine::error`].
    Failed,
}

/// A coroutine, or the stand-in of a task's main one, which has no stack of its own.
#[repr(C)]
pub struct Coroutine {
    header: Header,
    /// A [`Status`].
    status: AtomicU8,
    /// The task that has it.
    task: AtomicPtr<Task>,
    /// The stack that is not in use, as in a [`Task`]; null where there is none.
    stack: Cell<*mut u64>,
    slots: Cell<usize>,
    pc: Cell<*const AtomicU32>,
    base: Cell<*mut u64>,
    n: Cell<usize>,
    step: Cell<Step>,
    closing: Cell<*mut Vec<usize>>,
    /// While it runs: the coroutine that resumed it; null if that is its task's main one.
    resumer: Cell<*mut Coroutine>,
    /// How deep it is in coroutines that resumed coroutines.
    depth: Cell<u32>,
    /// Whether its function has begun.
    begun: Cell<bool>,
    /// Whether `coroutine.close` is closing its variables.
    closes: Cell<bool>,
    /// Whether it ever ran a parallel loop, out of whose body it must not yield.
    loops: Cell<bool>,
    outcome: Cell<Outcome>,
    /// How many values it gave with its outcome.
    count: Cell<usize>,
    /// The error that ended it.
    error: Cell<Value>,
}

// SAFETY: fields that are not atomic belong to the task that has the coroutine; its status hands it over.
unsafe impl Sync for Coroutine {}

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for Coroutine {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Coroutine];
}

impl Coroutine {
    fn new(local: &LocalHeap, status: Status) -> Result<Gc<Coroutine>, NeedMemory> {
        let object = local
            .alloc_object(Kind::Coroutine, 0, size_of::<Coroutine>())?
            .cast::<Coroutine>();
        // SAFETY: the memory is new, of that size and ours alone, and zero where nothing is written: valid for the atomics and cells left out.
        unsafe {
            let coroutine = object.as_ptr();
            (*coroutine).status.store(status as u8, Ordering::Relaxed);
            (*coroutine).outcome.set(Outcome::Yielded);
            (*coroutine).error.set(Value::NIL);
            Ok(Gc::from_ptr(object))
        }
    }

    /// A suspended coroutine that will call `function`.
    pub(crate) fn create(core: &mut Core, function: Value) -> Result<Gc<Coroutine>, NeedMemory> {
        let coroutine = Self::new(&core.heap, Status::Suspended)?;
        let stack = match core.spare_stack(0) {
            Some(stack) => stack,
            None => new_stack(&core.heap, INITIAL_SLOTS)?,
        };
        let fields = coroutine.fields();
        fields.stack.set(stack);
        fields.slots.set(INITIAL_SLOTS);
        // SAFETY: the stack is that long, and ours; a function of either kind begins as a closure does.
        unsafe {
            *stack = function.to_bits();
            *stack.add(1) = Link::Bottom.encode();
            fields.base.set(stack.add(2));
            let closure: *const crate::object::Closure = function.address().cast();
            fields.pc.set((*closure).entry);
        }
        Ok(coroutine)
    }
}

impl Gc<Coroutine> {
    #[inline(always)]
    fn fields<'a>(self) -> &'a Coroutine {
        // SAFETY: the coroutine lives as long as its handle is used.
        unsafe { &*self.as_ptr() }
    }

    /// What it is doing.
    pub(crate) fn status(self) -> Status {
        match self.fields().status.load(Ordering::Acquire) {
            0 => Status::Suspended,
            1 => Status::Running,
            2 => Status::Normal,
            _ => Status::Dead,
        }
    }

    fn set_status(self, status: Status) {
        self.fields().status.store(status as u8, Ordering::Release);
    }

    /// Takes it for this task, if it is `from`; nobody else has it then.
    pub(crate) fn take(self, from: Status) -> bool {
        self.fields()
            .status
            .compare_exchange(
                from as u8,
                Status::Running as u8,
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Gives it back without having run it.
    pub(crate) fn put_back(self, status: Status) {
        self.set_status(status);
    }

    /// The task that has it, if one has.
    pub(crate) fn task(self) -> *mut Task {
        self.fields().task.load(Ordering::Relaxed)
    }

    /// How it last gave control back.
    pub(crate) fn outcome(self) -> Outcome {
        self.fields().outcome.get()
    }

    /// How many values it gave.
    pub(crate) fn count(self) -> usize {
        self.fields().count.get()
    }

    /// Value `i` of those.
    pub(crate) fn given(self, i: usize) -> Value {
        // SAFETY: it is at rest, taken by this task, and gave more than `i` values.
        unsafe { Value::from_bits(*self.fields().base.get().add(i)) }
    }

    /// The error that ended it.
    pub(crate) fn error(self) -> Value {
        self.fields().error.get()
    }

    /// Forgets the error, which `close` has reported.
    pub(crate) fn clear_error(self) {
        self.fields().outcome.set(Outcome::Returned);
        self.fields().error.set(Value::NIL);
    }

    /// Whether variables of a coroutine at rest are to be closed.
    pub(crate) fn has_closing(self) -> bool {
        // SAFETY: null, or a list that the coroutine owns.
        unsafe { self.fields().closing.get().as_ref() }.is_some_and(|list| !list.is_empty())
    }

    /// Whether it is being closed: its `__close` metamethods cannot yield.
    pub(crate) fn is_closing(self) -> bool {
        self.fields().closes.get()
    }

    /// Whether it only stands for a task's main coroutine.
    pub(crate) fn is_main(self) -> bool {
        let task = NonNull::new(self.task());
        // SAFETY: a coroutine's task lives as long as it has it.
        task.is_some_and(|task| unsafe { task.as_ref() }.main.get() == self.as_ptr())
    }

    /// The innermost frame of a coroutine at rest; `None` if it has not begun or has no stack.
    pub(crate) fn innermost(self) -> Option<Frame> {
        let fields = self.fields();
        (fields.begun.get() && !fields.stack.get().is_null()).then(|| Frame {
            base: fields.base.get(),
            pc: fields.pc.get(),
        })
    }

    /// While it runs: the frame of the native that resumed it, and the coroutine that that belongs to.
    pub(crate) fn resumed_from(self) -> (Frame, Option<Gc<Coroutine>>) {
        let fields = self.fields();
        let frame = Frame {
            base: fields.base.get(),
            pc: core::ptr::null(),
        };
        // SAFETY: the coroutine that resumed a running one is referred to from it.
        let resumer = NonNull::new(fields.resumer.get()).map(|c| unsafe { Gc::from_ptr(c) });
        (frame, resumer)
    }

    /// While it runs: the first slot of the stack of whoever resumed it.
    pub(crate) fn resumers_stack(self) -> *mut u64 {
        self.fields().stack.get()
    }

    /// Makes room for `count` arguments of a coroutine at rest, which this task has taken.
    pub(crate) fn reserve(self, core: &mut Core, count: usize) -> Result<(), Throw> {
        let fields = self.fields();
        let (stack, size) = (fields.stack.get(), fields.slots.get());
        // SAFETY: both point into the coroutine's stack.
        let base = unsafe { fields.base.get().offset_from(stack) } as usize;
        let needed = base + count + SLACK;
        if needed <= size {
            return Ok(());
        }
        if needed > crate::interp::frame::MAX_SLOTS {
            return Err(Throw::Message("too many arguments to resume".into()));
        }
        let new_size = needed.max(size * 2);
        let new = new_stack(&core.heap, new_size)?;
        // SAFETY: the new stack is larger; the old one is used by nobody else.
        unsafe {
            core::ptr::copy_nonoverlapping(stack, new, size);
            free_stack(&core.heap, stack, size);
            fields.base.set(new.add(base));
        }
        fields.stack.set(new);
        fields.slots.set(new_size);
        Ok(())
    }

    /// Gives a coroutine at rest its arguments, or the results of its yield, for which [`reserve`](Self::reserve) made room.
    pub(crate) fn hand_over(self, count: usize, get: impl Fn(usize) -> Value) {
        let fields = self.fields();
        for i in 0..count {
            // SAFETY: there is room above its base.
            unsafe { *fields.base.get().add(i) = get(i).to_bits() };
        }
        if fields.begun.replace(true) {
            let step = fields.step.get();
            fields.step.set(Step {
                results: count,
                failed: false,
                slots: step.slots.max(count),
                ..step
            });
        } else {
            fields.n.set(count);
        }
    }

    /// Publishes what a coroutine at rest, of which other tasks know, refers to: before it is released.
    pub(crate) fn publish_stack(self, core: &mut Core) -> Result<(), NeedMemory> {
        if !self.header().has(flags::SHARED) {
            return Ok(());
        }
        core.publish(self.error())?;
        let mut from = 0;
        loop {
            let mut found = Value::NIL;
            // SAFETY: the coroutine is at rest, and nobody else looks at its stack.
            let next = unsafe {
                visit_stack(self.fields(), from, &mut |value| {
                    found = value;
                    Visit::StopAfter
                })
            };
            core.publish(found)?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Lets others have it, its values having been copied: suspended after a yield, else dead.
    pub(crate) fn release(self, core: &mut Core) {
        core.race_release(self.as_ptr() as usize, Part::Whole);
        let fields = self.fields();
        let status = match fields.outcome.get() {
            Outcome::Yielded => Status::Suspended,
            Outcome::Returned => {
                self.drop_stack(core);
                Status::Dead
            }
            Outcome::Failed => Status::Dead,
        };
        fields.task.store(core::ptr::null_mut(), Ordering::Relaxed);
        self.set_status(status);
    }

    /// Gives the stack of a coroutine that has ended back.
    pub(crate) fn drop_stack(self, core: &mut Core) {
        let fields = self.fields();
        let stack = fields.stack.replace(core::ptr::null_mut());
        if !stack.is_null() {
            // SAFETY: nobody uses it any more.
            unsafe { core.recycle_stack(stack, fields.slots.get()) };
        }
        let closing = fields.closing.replace(core::ptr::null_mut());
        if !closing.is_null() {
            // SAFETY: the list is the coroutine's own.
            drop(unsafe { Box::from_raw(closing) });
        }
    }
}

impl Core {
    /// The coroutine that the running task is in; `None` in its main one.
    #[inline]
    pub(crate) fn coroutine(&self) -> Option<Gc<Coroutine>> {
        let current = self.task?.fields().coroutine.get();
        // SAFETY: null, or a coroutine that the task has.
        NonNull::new(current).map(|c| unsafe { Gc::from_ptr(c) })
    }

    /// The object that stands for the running task's main coroutine.
    pub(crate) fn main_coroutine(&mut self) -> Result<Option<Gc<Coroutine>>, NeedMemory> {
        let Some(task) = self.task else {
            return Ok(None);
        };
        let fields = task.fields();
        if let Some(main) = NonNull::new(fields.main.get()) {
            // SAFETY: the task refers to it.
            return Ok(Some(unsafe { Gc::from_ptr(main) }));
        }
        let main = Coroutine::new(&self.heap, Status::Running)?;
        // The task is shared, and refers to it.
        main.header().set_flags(flags::SHARED);
        main.fields().task.store(task.as_ptr(), Ordering::Relaxed);
        fields.main.set(main.as_ptr());
        Ok(Some(main))
    }

    /// Whether one more coroutine may be resumed inside those that run.
    pub(crate) fn may_nest(&self) -> bool {
        self.coroutine()
            .is_none_or(|current| current.fields().depth.get() < MAX_DEPTH)
    }

    /// Notes that the running coroutine has run a parallel loop.
    pub(crate) fn note_parallel_loop(&self) {
        if let Some(current) = self.coroutine() {
            current.fields().loops.set(true);
        }
    }

    /// Whether the running coroutine is in the body of a parallel loop that began in it.
    pub(crate) fn is_in_parallel_loop(&self) -> bool {
        if !self.coroutine().is_some_and(|c| c.fields().loops.get()) {
            return false;
        }
        let mut walk = Some(Frame {
            base: self.base,
            pc: self.pc,
        });
        while let Some(frame) = walk {
            if self
                .frame_proto(frame)
                .is_some_and(|proto| proto.parallel_body)
            {
                return true;
            }
            // SAFETY: the stack is the running task's.
            walk = unsafe { frame.caller() };
        }
        false
    }

    /// Exchanges the stack in use, whose state the core has saved in itself, for the one in `coroutine`.
    fn exchange(&mut self, task: Gc<Task>, coroutine: Gc<Coroutine>) {
        let (own, other) = (task.fields(), coroutine.fields());
        own.stack.swap(&other.stack);
        own.slots.swap(&other.slots);
        own.closing.swap(&other.closing);
        self.pc = other.pc.replace(self.pc);
        self.base = other.base.replace(self.base);
        self.n = other.n.replace(self.n);
        self.step = other.step.replace(self.step);
        self.stack = own.stack.get();
        // SAFETY: the stack is that long. The list is null, or the task's own.
        unsafe {
            self.stack_end = self.stack.wrapping_add(own.slots.get());
            self.to_close = own.closing.get().as_ref().map_or(0, |list| list.len());
        }
    }

    /// Goes on in a coroutine that this task has taken, from the native in the frame at `base`, which goes on with `step` when the coroutine
    /// gives control back.
    pub(crate) fn switch_to(&mut self, coroutine: Gc<Coroutine>, step: Step) -> Flow {
        let Some(task) = self.task else {
            return Ok(());
        };
        self.race_acquire(coroutine.as_ptr() as usize, Part::Whole);
        let outer = self.coroutine();
        let fields = coroutine.fields();
        fields.resumer.set(task.fields().coroutine.get());
        fields
            .depth
            .set(outer.map_or(0, |outer| outer.fields().depth.get()) + 1);
        fields.task.store(task.as_ptr(), Ordering::Relaxed);
        if let Some(outer) = outer {
            outer.set_status(Status::Normal);
        }
        self.step = step;
        self.resume_native(self.base);
        self.exchange(task, coroutine);
        task.fields().coroutine.set(coroutine.as_ptr());
        Ok(())
    }

    /// As [`switch_to`](Self::switch_to), to close the coroutine's variables.
    pub(crate) fn switch_to_close(&mut self, coroutine: Gc<Coroutine>, step: Step) -> Flow {
        coroutine.fields().closes.set(true);
        self.switch_to(coroutine, step)?;
        Err(Leave::Throw(Throw::Shut))
    }

    /// The running coroutine gives control back to who resumed it, its state and values on its stack.
    fn switch_back(&mut self, coroutine: Gc<Coroutine>, outcome: Outcome, count: usize) {
        let Some(task) = self.task else { return };
        let fields = coroutine.fields();
        fields.outcome.set(outcome);
        fields.count.set(count);
        self.exchange(task, coroutine);
        let resumer = fields.resumer.replace(core::ptr::null_mut());
        task.fields().coroutine.set(resumer);
        if let Some(outer) = self.coroutine() {
            outer.set_status(Status::Running);
        }
    }

    /// The native in the frame at `base` yields its `count` arguments, and goes on with `step` when its coroutine is resumed.
    pub(crate) fn switch_from(&mut self, step: Step) -> Flow {
        let count = step.count;
        if let Some(coroutine) = self.coroutine() {
            self.step = step;
            self.resume_native(self.base);
            self.switch_back(coroutine, Outcome::Yielded, count);
        }
        Ok(())
    }

    /// The first function on the stack in use has returned: if that is a coroutine's, its resumer goes on. `false` if it is the task's.
    pub(crate) fn return_from_coroutine(&mut self, from: *mut u64, count: usize) -> bool {
        let Some(coroutine) = self.coroutine() else {
            return false;
        };
        self.base = from;
        self.switch_back(coroutine, Outcome::Returned, count);
        true
    }

    /// An error that nothing in the running coroutine catches ends it, and its resumer goes on.
    pub(crate) fn fail_coroutine(&mut self, coroutine: Gc<Coroutine>, error: Value) {
        coroutine.fields().error.set(error);
        self.switch_back(coroutine, Outcome::Failed, 0);
    }

    /// The task ends inside a coroutine, which ends with it.
    pub(crate) fn abandon_coroutine(&mut self, coroutine: Gc<Coroutine>) {
        self.switch_back(coroutine, Outcome::Returned, 0);
        coroutine.drop_stack(self);
        coroutine.set_status(Status::Dead);
    }

    /// Whether an error in the running coroutine, which is being closed, is one of its `__close` metamethods' and not caught within that:
    /// no such metamethod's frame is left between `frame` and the coroutine's first.
    pub(crate) fn is_past_closing(&self, frame: Frame) -> bool {
        let mut walk = Some(frame);
        while let Some(frame) = walk {
            // SAFETY: the stack is the running task's.
            unsafe {
                if matches!(
                    frame.link(),
                    Link::Metamethod {
                        then: Continuation::Shut,
                        ..
                    }
                ) {
                    return false;
                }
                walk = frame.caller();
            }
        }
        true
    }

    /// One of the `__close` metamethods of a coroutine that is being closed raised an error, which takes the place of any before.
    pub(crate) fn note_closing_error(&mut self, coroutine: Gc<Coroutine>, error: Value) {
        coroutine.fields().error.set(error);
        coroutine.fields().outcome.set(Outcome::Failed);
    }

    /// All variables of the running coroutine have been closed.
    pub(crate) fn end_closing(&mut self, coroutine: Gc<Coroutine>) {
        let outcome = match coroutine.fields().outcome.get() {
            Outcome::Failed => Outcome::Failed,
            _ => Outcome::Returned,
        };
        coroutine.fields().closes.set(false);
        self.base = self.stack;
        self.switch_back(coroutine, outcome, 0);
    }
}

/// Visits the values on the stack that a coroutine holds, from position `from` on, as a [`TraceHook`](crate::heap::TraceHook) does.
/// A position is the number of slots seen, counted from the top.
///
/// # Safety
/// The coroutine lives, and what it holds is a stack at rest.
unsafe fn visit_stack(
    fields: &Coroutine,
    from: usize,
    visit: &mut dyn FnMut(Value) -> Visit,
) -> Option<usize> {
    let stack = fields.stack.get();
    if stack.is_null() {
        return None;
    }
    // SAFETY: links lead from frame to frame of the stack; what is looked at in each are the registers and arguments that hold values.
    unsafe {
        let slot = |at: *mut u64| at.offset_from(stack) as usize;
        let end = fields.slots.get();
        let mut result = None;
        let mut stopped = false;
        // Slots from `high` down to `low`, both counted from the stack's first.
        let mut range = |low: usize, high: usize, raw: core::ops::Range<usize>| {
            let mut i = high.min(end - from.min(end));
            while !stopped && i > low {
                i -= 1;
                if raw.contains(&i) {
                    continue;
                }
                match visit(Value::from_bits(*stack.add(i))) {
                    Visit::On => {}
                    Visit::StopAfter => {
                        stopped = true;
                        result = (i > 0).then_some(end - i);
                    }
                    Visit::StopBefore => {
                        stopped = true;
                        result = Some(end - i - 1);
                    }
                }
            }
            stopped
        };
        let mut base = fields.base.get();
        if fields.outcome.get() == Outcome::Returned {
            // Only its results are left.
            let at = slot(base);
            range(at, at + fields.count.get(), 0..0);
            return result;
        }
        // An error leaves its innermost frame in any state; what is still needed of the stack, besides the functions, is below the last
        // variable to be closed.
        let ceiling = match fields.outcome.get() {
            Outcome::Failed => fields
                .closing
                .get()
                .as_ref()
                .and_then(|list| list.last())
                .map_or(0, |last| last + 1),
            _ => end,
        };
        let mut top = match fields.outcome.get() {
            Outcome::Failed => end,
            _ if fields.begun.get() => slot(base) + fields.step.get().count,
            _ => slot(base) + fields.n.get(),
        };
        loop {
            let at = slot(base);
            let function = Value::from_bits(*base.sub(2));
            let (mut high, mut raw) = (top, 0..0);
            if let Some(closure) = function.as_closure() {
                let proto = closure.proto();
                if !matches!(Link::decode(*base.sub(1)), Link::Variadic { .. }) && proto.variadic {
                    // The extra arguments below a variadic function's frame.
                } else if fields.begun.get() {
                    high = top.min(at + proto.registers as usize).max(at);
                    let first = at + proto.raw_start as usize;
                    raw = first..first + proto.raw_count as usize;
                }
            }
            if range(at, high.min(ceiling), raw) || range(at - 2, at - 1, 0..0) {
                return result;
            }
            top = at - 2;
            let frame = Frame {
                base,
                pc: core::ptr::null(),
            };
            match frame.link() {
                Link::Variadic { distance } => base = base.sub(distance),
                Link::Metamethod { then, distance, .. } => {
                    // Below the frame: where its caller goes on, and perhaps an error or a number.
                    top = at - 3;
                    if matches!(then, Continuation::Unwind) && range(at - 4, at - 3, 0..0) {
                        return result;
                    }
                    base = base.sub(distance);
                }
                _ => match frame.caller() {
                    Some(caller) => base = caller.base,
                    None => return None,
                },
            }
        }
    }
}

/// What a coroutine refers to, for publication: of one that a task has, its stack is published when it is released.
///
/// # Safety
/// As for [`TraceHook`](crate::heap::TraceHook).
pub(crate) unsafe fn children(
    coroutine: Gc<Coroutine>,
    from: usize,
    visit: &mut dyn FnMut(Value) -> Visit,
) -> Option<usize> {
    match coroutine.status() {
        Status::Running | Status::Normal => None,
        // SAFETY: it is at rest, and nobody changes it meanwhile.
        Status::Suspended | Status::Dead => unsafe { trace(coroutine, from, visit) },
    }
}

/// What a coroutine refers to: position 0 is its error, then its resumer, its stack as an object and what lies on the stack that it holds.
///
/// # Safety
/// As for [`TraceHook`](crate::heap::TraceHook).
pub(crate) unsafe fn trace(
    coroutine: Gc<Coroutine>,
    from: usize,
    visit: &mut dyn FnMut(Value) -> Visit,
) -> Option<usize> {
    const FIRST: usize = 3;
    let fields = coroutine.fields();
    // SAFETY: what a live coroutine refers to lives.
    let reference = |object: *mut Header| match NonNull::new(object) {
        // SAFETY: as above.
        Some(object) => unsafe { Value::reference(Tag::Object, object) },
        None => Value::NIL,
    };
    for position in from..FIRST {
        let value = match position {
            0 => fields.error.get(),
            1 => reference(fields.resumer.get().cast()),
            _ => {
                let stack = fields.stack.get();
                if stack.is_null() {
                    Value::NIL
                } else {
                    // A stack's header lies before its words.
                    reference(stack.wrapping_sub(1).cast())
                }
            }
        };
        match visit(value) {
            Visit::On => {}
            Visit::StopAfter => return Some(position + 1),
            Visit::StopBefore => return Some(position),
        }
    }
    // SAFETY: says the caller.
    unsafe { visit_stack(fields, from.saturating_sub(FIRST), visit) }.map(|next| next + FIRST)
}

/// The mark hook of coroutines.
///
/// # Safety
/// As for every [`MarkHook`](crate::heap::MarkHook).
pub(crate) unsafe fn mark(object: NonNull<Header>, marker: &mut Marker<'_>) {
    // SAFETY: a live coroutine; in the pause nobody changes it. The stack that it holds is at rest.
    unsafe {
        let coroutine: Gc<Coroutine> = Gc::from_ptr(object.cast());
        let fields = coroutine.fields();
        marker.value(fields.error.get());
        if let Some(resumer) = NonNull::new(fields.resumer.get()) {
            marker.object(resumer.cast());
        }
        if let Some(task) = NonNull::new(fields.task.load(Ordering::Relaxed)) {
            marker.object(task.cast());
        }
        let (stack, base) = (fields.stack.get(), fields.base.get());
        if stack.is_null() {
            return;
        }
        let is_held = matches!(coroutine.status(), Status::Running | Status::Normal);
        let top = match fields.outcome.get() {
            Outcome::Returned if !is_held => base.add(fields.count.get()),
            // The functions, and variables still to be closed.
            Outcome::Failed if !is_held => {
                let closing = fields.closing.get().as_ref();
                let last = closing.and_then(|list| list.last());
                base.max(last.map_or(base, |last| stack.add(last + 1)))
            }
            _ => suspended_top(fields.pc.get(), base, fields.n.get(), fields.step.get()),
        };
        mark_stack(stack, fields.slots.get(), top, marker);
    }
}

/// The drop hook of coroutines.
///
/// # Safety
/// As for every drop hook.
pub(crate) unsafe fn drop_owned(object: NonNull<Header>) {
    // SAFETY: a dead coroutine, dropped once; null, or a list that it owns.
    unsafe {
        let closing = (*object.as_ptr().cast::<Coroutine>()).closing.get();
        if !closing.is_null() {
            drop(Box::from_raw(closing));
        }
    }
}
