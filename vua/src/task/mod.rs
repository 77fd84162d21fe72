//! Tasks: running functions, each with a stack of its own on the heap.
//!
//! | file | what |
//! | --- | --- |
//! | this one | the task object, its states, who may write what |
//! | [`suspend`] | how a wait begins and ends, and what may end it |
//! | [`direct`] | joins that run at once what they wait for |
//! | [`list`] | lists of suspended tasks, and the register of those that ever were |
//! | [`cancel`] | cancellation |
//! | [`finalize`] | the task that runs finalizers |
//! | [`latch`] | groups of tasks that are waited for together: the pieces of a `parallel for`, the tasks of a scope |
//! | [`coroutine`] | further stacks of a task, and how it goes from one to another |
//! | [`deadlock`] | what all tasks wait for, when nothing can wake one |
//! | [`wait`] | a core's loop: taking a task, running it, what follows |
//! | [`run`] | programs that programs start |
//! | [`library`], [`join`], [`scope`] | `spawn`, `task`, the methods of tasks and scopes, `cpu` as programs see them |
//!
//! # Who may write what
//! The fields of a task that are not atomic belong to the core that runs the task, or to the lists that it is in ([`list`]). A task goes from one
//! core to another through the scheduler's queues, whose hand-over is release to acquire.
//!
//! # Joining
//! Tasks that wait for a task's end are on a list under its lock byte. Who joins suspends itself first, its state saved, and then takes the lock: either the task has
//! ended, upon which it goes on at once and sees the results, or it is on the list that the end empties under the same lock.

pub(crate) mod cancel;
pub(crate) mod coroutine;
pub(crate) mod deadlock;
pub(crate) mod direct;
pub(crate) mod finalize;
pub(crate) mod join;
pub(crate) mod latch;
pub mod library;
pub(crate) mod list;
pub(crate) mod run;
pub(crate) mod scope;
pub(crate) mod suspend;
pub(crate) mod wait;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use crate::engine::Program;
use crate::heap::{Header, Kind, LocalHeap, NeedMemory, flags};
use crate::interp::core_state::Step;
use crate::interp::frame::{Link, SLACK};
use crate::object::{Gc, Object};
use crate::share::{End, HeldList, Monitor, Queue, Want};
use crate::table::Table;
use crate::value::{Tag, Value};
pub use coroutine::Coroutine;
pub use latch::Latch;
pub(crate) use list::{Links, SpinLocked, WaitList};
use smp::timers::TimerKey;
pub(crate) use suspend::Woken;

/// What a task waits for.
#[derive(Clone, Copy, Debug)]
pub enum WaitFor {
    /// The end of a task.
    Task(Gc<Task>),
    /// The end of a task, or a moment of the platform's time.
    TaskUntil(Gc<Task>, u64),
    /// The end of a program, or a moment of the platform's time.
    Program(Gc<Program>, u64),
    /// The end of all pieces of a parallel loop, or of all tasks of a scope.
    Latch(Gc<Latch>),
    /// What it wants of a mutex, read-write lock, semaphore, condition or barrier.
    Monitor(Gc<Monitor>, Want),
    /// A value in a queue, or room in it, or a moment.
    Queue(Gc<Queue>, End, Option<u64>),
    /// The end of a shared table's growth.
    Growth(Gc<Table>),
    /// A handshake, after which this task finishes the growth of the table that it began.
    Handshake(Gc<Table>),
    /// The end of a module's loading by another task: [`Loads`](crate::library::module::Loads) knows it by this number.
    Module(u64),
    /// A handshake: that every core has passed a safepoint.
    Passed,
    /// Standard input, of which there was none after this many arrivals.
    Input(u64),
    /// That all finalizers have run that were due.
    Finalized,
    /// Objects to finalize: the task that does that.
    Finalizers,
    /// A moment of the platform's time, in nanoseconds.
    Time(u64),
    /// Nothing: others go first.
    Turn,
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// In a queue.
    Ready = 0,
    /// On a core.
    Running = 1,
    /// Suspended.
    Waiting = 2,
    /// Ended; its results are there.
    Done = 3,
    /// Ended by an error.
    Failed = 4,
    /// Ended by cancellation.
    Cancelled = 5,
}

/// Slots of a new task's stack, one granule less than a power of two with the block's header: 128 words hold [`SLACK`] and some frames.
pub(crate) const INITIAL_SLOTS: usize = 127;

/// A task.
#[repr(C)]
pub struct Task {
    header: Header,
    /// A [`State`].
    state: AtomicU8,
    /// Whether somebody has asked for its results.
    observed: AtomicBool,
    /// Whether it is suspended, and what ended that: see [`suspend`].
    wake: AtomicU8,
    /// See [`cancel`].
    cancel: AtomicU8,
    /// The program that it belongs to.
    program: Cell<*const Program>,
    /// Results in the stack's first slots, or one in `result`.
    pub(crate) results: Cell<u32>,
    /// The tasks that wait for its end, under the lock.
    waiters: WaitList,
    /// Its neighbours in the list that it waits in.
    links: Links,
    /// Its neighbours among the tasks of its group.
    peers: Links,
    /// Its neighbours in the register of tasks that were suspended, and the core whose list that is.
    register: Links,
    home: Cell<u32>,
    /// The locks that it holds: how many.
    pub(crate) locks: Cell<u32>,
    /// Which: owned, or null.
    pub(crate) held: Cell<*mut HeldList>,
    /// What it waits for.
    pub(crate) wait: Cell<Option<WaitFor>>,
    /// What it wants of the monitor on whose list it is; used under the monitor's lock, and so also by who takes it off while its core ends its wait.
    pub(crate) wants: Cell<Want>,
    /// The timer that ends its wait.
    pub(crate) timer: Cell<Option<TimerKey>>,
    /// First slot of its stack.
    pub(crate) stack: Cell<*mut u64>,
    /// Number of slots.
    pub(crate) slots: Cell<usize>,
    /// While it is suspended: its instruction, register 0, number of arguments.
    pub(crate) pc: Cell<*const AtomicU32>,
    pub(crate) base: Cell<*mut u64>,
    pub(crate) n: Cell<usize>,
    /// While it is suspended in a native, what the native goes on with.
    pub(crate) step: Cell<Step>,
    /// The first result, or the error.
    pub(crate) result: Cell<Value>,
    /// The traceback of the error, owned; or null.
    pub(crate) traceback: Cell<*mut String>,
    /// The failed task whose error a join raised here last, and that error.
    pub(crate) cause: Cell<(Value, Value)>,
    /// The task whose join it runs in the place of, or null, and how many there are behind one another: see [`direct`].
    joiner: Cell<*mut Task>,
    joiners: Cell<u32>,
    /// Whether a parallel loop has ever begun on its stack.
    loops: Cell<bool>,
    /// The table whose growth it finishes when it runs again, or null.
    pub(crate) grows: Cell<*mut Table>,
    /// The group that it belongs to, or null, and its number there.
    pub(crate) latch: Cell<*mut Latch>,
    pub(crate) number: Cell<u64>,
    /// Where it was spawned, for tracebacks: function, and instruction after the call.
    pub(crate) spawned_at: Cell<(Value, *const AtomicU32)>,
    /// Stack slots of variables to be closed, innermost last: owned, or null.
    pub(crate) closing: Cell<*mut Vec<usize>>,
    /// The coroutine that it is in, or null in its main one. The collector follows it: it holds the stack of whoever resumed it.
    pub(crate) coroutine: Cell<*mut Coroutine>,
    /// What stands for its main coroutine, once somebody asked; or null. The collector follows it.
    pub(crate) main: Cell<*mut Coroutine>,
    /// State of its random numbers; all zero until first used.
    pub(crate) random: Cell<[u64; 4]>,
}

// SAFETY: fields that are not atomic belong to the core that runs the task; queues hand it over.
unsafe impl Sync for Task {}

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for Task {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Task];
}

impl Task {
    /// Where the state is, for a debugger.
    pub(crate) const STATE: usize = core::mem::offset_of!(Task, state);

    /// A new task that will call `function` with `arguments`, which are published already. `spare` is a stack of [`INITIAL_SLOTS`] that suffices for them. The task is shared from the start.
    pub(crate) fn new(
        local: &LocalHeap,
        program: &'static Program,
        function: Value,
        arguments: &[Value],
        spare: Option<*mut u64>,
    ) -> Result<Gc<Task>, NeedMemory> {
        let object = local
            .alloc_object(Kind::Task, 0, size_of::<Task>())?
            .cast::<Task>();
        let slots = if spare.is_some() {
            INITIAL_SLOTS
        } else {
            INITIAL_SLOTS.max(arguments.len() + 2 + SLACK)
        };
        let stack = match spare.map_or_else(|| new_stack(local, slots), Ok) {
            Ok(stack) => stack,
            Err(need) => {
                // SAFETY: nobody else knows it.
                unsafe { local.free(object.cast(), size_of::<Task>()) };
                return Err(need);
            }
        };
        // SAFETY: the memory is new, of that size and ours alone, and zero where nothing is written: valid for the atomics and cells left out.
        unsafe {
            let task = object.as_ptr();
            (*task).header.set_flags(flags::SHARED);
            (*task).program.set(program);
            (*task).stack.set(stack);
            (*task).slots.set(slots);
            (*task).result.set(Value::NIL);
            (*task).cause.set((Value::NIL, Value::NIL));
            (*task).home.set(list::NOWHERE);
            (*task).wait.set(None);
            (*task).wants.set(Want::Hold);
            (*task).timer.set(None);
            (*task).spawned_at.set((Value::NIL, core::ptr::null()));
            *stack = function.to_bits();
            *stack.add(1) = Link::Bottom.encode();
            for (i, argument) in arguments.iter().enumerate() {
                *stack.add(2 + i) = argument.to_bits();
            }
            (*task).base.set(stack.add(2));
            (*task).n.set(arguments.len());
            let closure: *const crate::object::Closure = function.address().cast();
            (*task).pc.set((*closure).entry);
            Ok(Gc::from_ptr(object))
        }
    }
}

/// Memory for a stack: `slots` words behind a header.
pub(crate) fn new_stack(local: &LocalHeap, slots: usize) -> Result<*mut u64, NeedMemory> {
    let object = local.alloc_object(Kind::Stack, slots as u32, (slots + 1) * 8)?;
    // SAFETY: the words follow the header.
    Ok(unsafe { object.as_ptr().cast::<u64>().add(1) })
}

/// Gives a stack back.
///
/// # Safety
/// It came from [`new_stack`] with this `slots`, and nobody uses it any more.
pub(crate) unsafe fn free_stack(local: &LocalHeap, stack: *mut u64, slots: usize) {
    // SAFETY: its header lies before the words.
    unsafe {
        local.free(
            NonNull::new_unchecked(stack.sub(1).cast::<Header>()),
            (slots + 1) * 8,
        )
    }
}

impl Gc<Task> {
    /// Its fields.
    #[inline(always)]
    pub(crate) fn fields<'a>(self) -> &'a Task {
        // SAFETY: the task lives as long as its handle is used.
        unsafe { &*self.as_ptr() }
    }

    /// The program that it belongs to.
    #[inline(always)]
    pub(crate) fn program(self) -> &'static Program {
        // SAFETY: set when the task was made; the collector keeps the program for the task.
        unsafe { &*self.fields().program.get() }
    }

    /// What it is doing.
    pub fn state(self) -> State {
        match self.fields().state.load(Ordering::Acquire) {
            0 => State::Ready,
            1 => State::Running,
            2 => State::Waiting,
            3 => State::Done,
            4 => State::Failed,
            _ => State::Cancelled,
        }
    }

    pub(crate) fn set_state(self, state: State) {
        self.fields().state.store(state as u8, Ordering::Release);
    }

    /// Whether it has ended, so that its results may be read.
    #[inline]
    pub(crate) fn has_ended(self) -> bool {
        self.fields().state.load(Ordering::Acquire) >= State::Done as u8
    }

    /// Puts a task that begins to wait on the list of those that wait for this one; `false` if this one has ended.
    pub(crate) fn add_waiter(self, waiter: Gc<Task>) -> bool {
        let locked = SpinLocked::new(self.header());
        if self.has_ended() {
            return false;
        }
        self.fields().waiters.push(waiter, &locked);
        true
    }

    /// Takes a task off that list, if it is there.
    pub(crate) fn remove_waiter(self, waiter: Gc<Task>) {
        let locked = SpinLocked::new(self.header());
        self.fields().waiters.remove(waiter, &locked);
    }

    /// Marks it as ended, its results written, and calls `wake` for each task that waited for it, and whose wait this has ended.
    pub(crate) fn end(self, state: State, mut wake: impl FnMut(Gc<Task>)) {
        let locked = SpinLocked::new(self.header());
        self.set_state(state);
        while let Some(waiter) = self.fields().waiters.pop(&locked) {
            if waiter.claim(Woken::Event) {
                wake(waiter);
            }
        }
    }

    /// Notes that a parallel loop begins on its stack.
    pub(crate) fn note_loop(self) {
        self.fields().loops.set(true);
    }

    /// Whether a parallel loop has ever begun on its stack.
    pub(crate) fn has_had_loop(self) -> bool {
        self.fields().loops.get()
    }

    /// Notes that somebody has asked for its results, so that its error need not be reported at the program's end.
    pub(crate) fn observe(self) {
        self.fields().observed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_observed(self) -> bool {
        // SAFETY: null, or the group that keeps the task.
        let group: Option<Gc<Latch>> =
            NonNull::new(self.fields().latch.get()).map(|latch| unsafe { Gc::from_ptr(latch) });
        self.fields().observed.load(Ordering::Relaxed)
            || group.is_some_and(|group| group.is_observed())
    }

    /// Its traceback, if it failed.
    pub(crate) fn traceback<'a>(self) -> Option<&'a str> {
        // SAFETY: null, or a box that the task owns.
        unsafe { self.fields().traceback.get().as_ref() }.map(String::as_str)
    }

    /// Frees what it owns outside the heap.
    ///
    /// # Safety
    /// The task is dead, and this is done once.
    pub(crate) unsafe fn drop_owned(self) {
        let fields = self.fields();
        // SAFETY: null, or made by `Box::into_raw` and the task's alone.
        unsafe {
            let traceback = fields.traceback.get();
            if !traceback.is_null() {
                drop(Box::from_raw(traceback));
            }
            let closing = fields.closing.get();
            if !closing.is_null() {
                drop(Box::from_raw(closing));
            }
            let held = fields.held.get();
            if !held.is_null() {
                drop(Box::from_raw(held));
            }
        }
    }

    pub(crate) fn set_traceback(self, text: String) {
        self.fields().traceback.set(Box::into_raw(Box::new(text)));
    }
}

// SAFETY: what a task's handle leads to is used by the core that took it from a queue, and its atomics by anyone.
unsafe impl Send for Gc<Task> {}

// A task's handle is its address, which is never null; the task lives while it is in a queue.
impl smp::scheduler::Handle for Gc<Task> {
    fn into_raw(self) -> NonZeroUsize {
        self.as_non_null().cast::<u8>().expose_provenance()
    }

    unsafe fn from_raw(raw: NonZeroUsize) -> Self {
        // SAFETY: it came from `into_raw`.
        unsafe { Gc::from_ptr(NonNull::with_exposed_provenance(raw)) }
    }

    fn is_due(&self) -> bool {
        self.claim(Woken::Time)
    }
}
