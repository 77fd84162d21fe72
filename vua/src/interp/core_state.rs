//! What a core has: the state of the task that it runs, its part of the heap, its place in the engine.

use alloc::boxed::Box;
use core::sync::atomic::AtomicU32;

use smp::platform::Cpu;
use smp::safepoint::Control;
use smp::scheduler::Worker;

use super::dispatch::{Exit, HANDLERS, Handler};
use super::frame::SLACK;
use super::metered::Meter;
use super::roots::Relief;
use crate::engine::{Engine, Program};
use crate::heap::LocalHeap;
use crate::object::Gc;
use crate::observe::Observer;
use crate::task::{INITIAL_SLOTS, Task, WaitFor, Woken, free_stack};
use crate::value::Value;

/// A core as the handlers see it: their table, the word that other cores write, and the rest.
///
/// Other cores hold references to `control` alone, so a `&mut` to `core` is this core's only.
#[repr(C)]
pub(crate) struct Vm {
    /// The handlers, by opcode.
    pub dispatch: [Handler; 256],
    /// `__index`, as a value.
    pub index_name: Value,
    /// What other cores tell this one: looked at in every safepoint.
    pub control: Control,
    /// What only this core uses.
    pub core: Core,
}

impl Vm {
    pub(crate) fn new(core: Core, index_name: Value) -> Vm {
        Vm {
            dispatch: HANDLERS,
            index_name,
            control: Control::new(),
            core,
        }
    }
}

/// The state of a core and of the task that it runs.
pub(crate) struct Core {
    /// The next instruction, whenever Rust code other than a handler runs.
    pub pc: *const AtomicU32,
    /// Register 0 of the running frame, likewise.
    pub base: *mut u64,
    /// At a function's head, the number of arguments; after [`Exit::Finished`], the number of results.
    pub n: usize,
    /// The number of values that an open call or `VARG` left.
    pub open: usize,
    /// One past the last slot of the task's stack.
    pub stack_end: *mut u64,
    /// The first slot of the task's stack.
    pub stack: *mut u64,
    /// After [`Exit::Finished`], where the results are.
    pub from: *mut u64,
    /// Why a native's first step leaves the interpreter.
    pub left: Exit,
    /// What the next run of a native's step begins with, when it is not its first.
    pub step: Step,
    /// While a native's step runs: how many slots of its frame are in use; else [`NO_STEP`].
    pub slots: usize,
    /// The task has ended and its results are being kept.
    pub finishing: bool,
    /// The last collection for want of memory.
    pub relieved: Relief,
    /// The core's part of the heap.
    pub heap: LocalHeap,
    /// The running task.
    pub task: Option<Gc<Task>>,
    /// The task to run next, before any from the queues.
    pub next: Option<Gc<Task>>,
    /// After [`Exit::Waiting`], what for.
    pub wait: Option<WaitFor>,
    /// What ended the running task's last wait.
    pub woken: Woken,
    /// After [`Exit::Failed`], the error.
    pub error: Value,
    /// Which core this is.
    pub cpu: Cpu,
    /// The engine that it works for.
    pub engine: &'static Engine,
    /// The program whose task it runs, or ran last.
    pub program: &'static Program,
    /// How many variables of the running task are to be closed.
    pub to_close: usize,
    /// What it has done.
    pub counters: Counters,
    /// Its instructions, if it counts them.
    pub meter: Meter,
    /// What it notes, if it is observed.
    pub observer: Option<Box<Observer>>,
    /// Whether a heartbeat was asked for and has not come.
    pub beating: bool,
    /// The loop that [`latent_loop`](Self::latent_loop) found at the last heartbeat.
    pub latent: Option<(usize, u64)>,
    /// The core's place in the scheduler, while it works.
    worker: Option<Worker<'static, Gc<Task>>>,
    /// Stacks of [`INITIAL_SLOTS`](crate::task::INITIAL_SLOTS) whose tasks have ended: the next tasks get them warm.
    spare_stacks: [*mut u64; SPARE_STACKS],
    spare_count: usize,
}

/// How many stacks a core keeps for its next tasks: as deep as trees of tasks commonly are.
const SPARE_STACKS: usize = 64;

/// [`Core::slots`] while no native's step runs.
pub(crate) const NO_STEP: usize = usize::MAX;

/// What a native's later step is run with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    /// The native's number of arguments.
    pub count: usize,
    /// Its state.
    pub state: u32,
    /// Number of results of its call.
    pub results: usize,
    /// Whether the call failed.
    pub failed: bool,
    /// How many slots of its frame are in use.
    pub slots: usize,
}

/// What a core has done, for `--stats`. Only the core itself writes; others read after it has stopped or at a safepoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Parallel loops that were split.
    pub splits: u64,
    /// Safepoints at which there was something to do.
    pub polls: u64,
    /// Growths of shared tables that this core completed.
    pub growths: u64,
    /// Tasks moved aside because they ran long.
    pub preemptions: u64,
}

impl Core {
    pub(crate) fn new(
        cpu: Cpu,
        engine: &'static Engine,
        program: &'static Program,
        heap: LocalHeap,
    ) -> Core {
        Core {
            pc: core::ptr::null(),
            base: core::ptr::null_mut(),
            n: 0,
            open: 0,
            stack_end: core::ptr::null_mut(),
            stack: core::ptr::null_mut(),
            from: core::ptr::null_mut(),
            left: Exit::Finished,
            step: Step::default(),
            slots: NO_STEP,
            finishing: false,
            relieved: Relief::default(),
            heap,
            task: None,
            next: None,
            wait: None,
            woken: Woken::Event,
            error: Value::NIL,
            cpu,
            engine,
            program,
            to_close: 0,
            counters: Counters::default(),
            meter: Meter::default(),
            observer: None,
            beating: false,
            latent: None,
            worker: None,
            spare_stacks: [core::ptr::null_mut(); SPARE_STACKS],
            spare_count: 0,
        }
    }

    /// The core's place in the scheduler.
    ///
    /// # Panics
    /// If the core does not work.
    #[inline(always)]
    pub(crate) fn worker(&self) -> &Worker<'static, Gc<Task>> {
        match &self.worker {
            Some(worker) => worker,
            None => panic!(
                "core {} runs a task without working for the scheduler",
                self.cpu
            ),
        }
    }

    pub(crate) fn set_worker(&mut self, worker: Worker<'static, Gc<Task>>) {
        self.worker = Some(worker);
    }

    pub(crate) fn drop_worker(&mut self) {
        self.worker = None;
    }

    /// A stack for a task with so many arguments, if one is at hand that suffices.
    #[inline]
    pub(crate) fn spare_stack(&mut self, arguments: usize) -> Option<*mut u64> {
        if self.spare_count == 0 || arguments + 2 + SLACK > INITIAL_SLOTS {
            return None;
        }
        self.spare_count -= 1;
        Some(self.spare_stacks[self.spare_count])
    }

    /// Takes back the stack of a task that has ended.
    ///
    /// # Safety
    /// It came from [`new_stack`](crate::task::new_stack) with this `slots`, and nobody uses it any more.
    #[inline]
    pub(crate) unsafe fn recycle_stack(&mut self, stack: *mut u64, slots: usize) {
        if slots == INITIAL_SLOTS && self.spare_count < SPARE_STACKS {
            self.spare_stacks[self.spare_count] = stack;
            self.spare_count += 1;
        } else {
            // SAFETY: as the caller says.
            unsafe { free_stack(&self.heap, stack, slots) }
        }
    }

    /// The core turns to another program: what it allocates is charged to that from now on.
    #[cold]
    pub(crate) fn enter_program(&mut self, program: &'static Program) {
        for &stack in &self.spare_stacks[..core::mem::take(&mut self.spare_count)] {
            // SAFETY: spare stacks are of this size, and nobody uses them.
            unsafe { free_stack(&self.heap, stack, INITIAL_SLOTS) };
        }
        // Without memory to put the former program's blocks aside, that is charged once more.
        _ = self.heap.set_program(program.number());
        self.program = program;
    }

    /// Whether the running task is to be left at once: its program has been ended.
    pub(crate) fn is_over(&self) -> bool {
        self.program.is_closed() || self.engine.is_closed()
    }

    /// The stacks that the core keeps for its next tasks.
    pub(crate) fn spare_stacks(&self) -> &[*mut u64] {
        &self.spare_stacks[..self.spare_count]
    }

    /// Leaves the interpreter, or catches the error: `None` means to go on from what the core says.
    pub(crate) fn leave(&mut self, leave: super::throw::Leave) -> Option<Exit> {
        match leave {
            super::throw::Leave::Exit(exit) => Some(exit),
            super::throw::Leave::Throw(throw) => self.unwind(throw),
        }
    }
}
