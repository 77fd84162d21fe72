//! The engine: a program, and those that it starts, on all cores of a platform.
//!
//! ```text
//! let engine = Engine::new(platform, Options::default())?;
//! engine.load_program("a.vua", source, &arguments)?;
//! // on every core:
//! let status = engine.work(cpu);
//! ```
//!
//! What belongs to one program is in [`program`], with how it ends. When the first program has ended, the scheduler is closed, upon which every core's
//! [`Engine::work`] returns.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use smp::platform::{Cpu, Platform, Stream};
use smp::safepoint::{CANCEL, Control, Epoch, INPUT};
use smp::scheduler::Scheduler;
use sync::lock::Lock;

use crate::bytecode::{CaptureKind, binary};
use crate::compile::Diagnostic;
use crate::heap::{Budget, Heap, LocalHeap, NeedMemory};
use crate::interp::native::NativeFn;
use crate::interp::{Core, Vm};
use crate::library::module_types::{ProgramFiles, Unbound};
use crate::object::{Cell, Closure, Gc, Loaded, NativeFunction, Proto, Str};
use crate::observe::{Observe, Observer};
use crate::output::{Appended, Output};
use crate::table::{Retired, Table};
use crate::task::{State, Task, Woken};
use crate::value::Value;

mod debugger;
pub(crate) mod limit;
mod metatables;
pub(crate) mod program;

use metatables::METAMETHODS;
pub use metatables::Metamethod;
pub use program::Program;
use program::{FIRST, Start};

/// Exit statuses that the engine itself gives.
pub mod status {
    /// An uncaught error, or a deadlock.
    pub const ERROR: i32 = 1;
    /// The program was cancelled from outside.
    pub const CANCELLED: i32 = 130;
    /// The program's time was up.
    pub const LATE: i32 = 124;
    /// The largest status that a program can give.
    pub const LARGEST: i32 = 63;
}

/// How an engine is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seeds the order in which cores look at each other for work; 0 takes the platform's entropy.
    pub seed: u64,
    /// Collects at every safepoint: for tests.
    pub gc_stress: bool,
    /// One allocation in about so many fails, and is made again after a collection: for tests. 0: none.
    pub failing_allocations: usize,
    /// The most bytes of memory that the program may have.
    pub memory: Option<usize>,
    /// What its cores note for reports.
    pub observe: Observe,
}

/// Why a program was not loaded.
pub enum LoadError {
    /// It does not compile.
    Compile(Vec<Diagnostic>),
    /// It is compiled already, and damaged; or the verifier refused it.
    Verify(String),
    /// There is not enough memory for it.
    Memory,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Compile(diagnostics) => {
                for (i, diagnostic) in diagnostics.iter().enumerate() {
                    if i > 0 {
                        writeln!(f)?;
                    }
                    write!(f, "{diagnostic}")?;
                }
                Ok(())
            }
            LoadError::Verify(text) => write!(f, "vua: bytecode refused: {text}"),
            LoadError::Memory => f.write_str("not enough memory to load the program"),
        }
    }
}

impl fmt::Debug for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<NeedMemory> for LoadError {
    fn from(_: NeedMemory) -> LoadError {
        LoadError::Memory
    }
}

/// A status as the program may give it.
fn limited(status: i64) -> i32 {
    if (0..=status::LARGEST as i64).contains(&status) {
        status as i32
    } else {
        status::LARGEST
    }
}

/// A core's machine, used by the core's own loop and by nobody else once that runs.
struct Machine(UnsafeCell<Vm>);

// SAFETY: each is used by one core: `Engine::work` refuses a second one (the scheduler's worker is taken), and `Engine` itself uses the first before any core works.
unsafe impl Sync for Machine {}

/// See the module.
pub struct Engine {
    platform: &'static dyn Platform,
    heap: &'static Heap,
    gc_stress: bool,
    failing_allocations: usize,
    scheduler: Scheduler<Gc<Task>>,
    machines: Box<[&'static Machine]>,
    /// Metamethods' names, interned.
    names: &'static [Value],
    out_of_memory: Value,
    handler_error: Value,
    /// The program that it began with, and all that have begun and not ended, those that started others before these.
    first: &'static Program,
    programs: Lock<Vec<&'static Program>>,
    files: crate::library::io::Files,
    output: Output,
    closed: AtomicBool,
    /// When the first core began to work, and when the first program ended, in the platform's time; 0 before.
    began: AtomicU64,
    ended: AtomicU64,
    /// Tasks that wait for a shared table's growth.
    writers: Lock<Vec<(Gc<Table>, Gc<Task>)>>,
    /// Tasks that wait for input.
    readers: Lock<Vec<Gc<Task>>>,
    /// Cancellation was asked for from outside, and no core has seen to it.
    cancel_asked: AtomicBool,
    /// What `join` raises when the task was cancelled.
    cancelled_text: Value,
    /// The error of a task that ended while it held a lock.
    held_text: Value,
    /// How often input has arrived.
    arrivals: AtomicU64,
    /// How often tasks that waited for input were woken.
    input_wakes: AtomicU64,
    /// Blocks that shared tables no longer use, until a handshake has passed.
    retired: Lock<Vec<(Epoch, Retired)>>,
}

// SAFETY: handles of objects are plain addresses; what they lead to is shared by the rules of each kind.
unsafe impl Sync for Engine {}
// SAFETY: as above.
unsafe impl Send for Engine {}

impl Engine {
    /// An engine for all cores of the platform. It and its heap live for good.
    pub fn new(
        platform: &'static dyn Platform,
        options: Options,
    ) -> Result<&'static Engine, NeedMemory> {
        let heap: &'static Heap = Box::leak(Box::new(Heap::new(platform)));
        crate::interp::roots::set_hooks(heap);
        heap.set_trace_hook(crate::heap::Kind::Other, crate::share::trace);
        let local = LocalHeap::new(heap, 0);
        let mut names = Vec::new();
        for name in METAMETHODS {
            names.push(heap.intern(&local, name.as_bytes())?.value());
        }
        heap.set_mode_name(names[Metamethod::Mode as usize]);
        let out_of_memory = heap.intern(&local, b"not enough memory")?.value();
        let handler_error = heap.intern(&local, b"error in error handling")?.value();
        let held_text = heap
            .intern(&local, b"the task ended while it held a lock")?
            .value();
        let cancelled_text = heap.intern(&local, b"cancelled")?.value();
        let names: &'static [Value] = names.leak();
        let start = Start {
            number: FIRST,
            outside: None,
            parent: None,
            shares: false,
            cpus: None,
        };
        let first = Program::new(None, heap, &local, platform, names, start)?;

        // The engine and the cores' machines refer to each other: the engine's place comes first.
        let place: &'static mut core::mem::MaybeUninit<Engine> =
            Box::leak(Box::new(core::mem::MaybeUninit::uninit()));
        // SAFETY: nothing reads through this reference before the engine is written below.
        let engine: &'static Engine = unsafe { &*place.as_ptr() };
        let index_name = names[Metamethod::Index as usize];
        let mut local = Some(local);
        let machines: Box<[&'static Machine]> = (0..platform.cpus())
            .map(|cpu| {
                let local = local.take().unwrap_or_else(|| LocalHeap::new(heap, cpu));
                let mut vm = Vm::new(Core::new(cpu, engine, first, local), index_name);
                vm.core.observer = Observer::new(options.observe);
                &*Box::leak(Box::new(Machine(UnsafeCell::new(vm))))
            })
            .collect();
        // SAFETY: other cores use a machine's control only, which is all atomics; the address is stable.
        let controls: Box<[&'static Control]> = machines
            .iter()
            .map(|machine| unsafe { &(*machine.0.get()).control })
            .collect();
        for (machine, control) in machines.iter().zip(&controls) {
            // SAFETY: no core works yet.
            unsafe { (*machine.0.get()).core.heap.set_control(control) };
        }
        let seed = if options.seed == 0 {
            platform.entropy()
        } else {
            options.seed
        };
        let mut scheduler = Scheduler::new(platform, controls, seed);
        scheduler.safepoints_mut().set_helper(engine);
        heap.set_limit(0, options.memory)?;
        place.write(Engine {
            platform,
            heap,
            gc_stress: options.gc_stress,
            failing_allocations: options.failing_allocations,
            scheduler,
            machines,
            names,
            out_of_memory,
            handler_error,
            first,
            programs: Lock::new(alloc::vec![first]),
            files: crate::library::io::Files::new(),
            output: Output::new(),
            closed: AtomicBool::new(false),
            began: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            writers: Lock::new(Vec::new()),
            readers: Lock::new(Vec::new()),
            cancel_asked: AtomicBool::new(false),
            cancelled_text,
            held_text,
            arrivals: AtomicU64::new(0),
            input_wakes: AtomicU64::new(0),
            retired: Lock::new(Vec::new()),
        });
        debugger::show(&engine.machines);
        Ok(engine)
    }

    /// Defines a global function before any core works.
    ///
    /// # Errors
    /// There is not enough memory for it.
    pub fn define(&'static self, name: &'static str, function: NativeFn) -> Result<(), LoadError> {
        // SAFETY: no core works yet.
        let core = unsafe { &mut (*self.machines[0].0.get()).core };
        let native = NativeFunction::new(&core.heap, function as *const (), name, &[])?;
        if let Some(globals) = self.globals().as_table() {
            let name = self.heap.intern(&core.heap, name.as_bytes())?.value();
            globals
                .set(&core.heap, name, native.value())
                .map_err(|_| LoadError::Memory)?;
        }
        Ok(())
    }

    /// Compiles and loads the program that [`work`](Self::work) will run. To be called once, before any core works.
    pub fn load_program(
        &'static self,
        path: &str,
        source: &[u8],
        arguments: &[&[u8]],
    ) -> Result<(), LoadError> {
        let source = crate::compile::without_first_comment(source);
        // SAFETY: no core works yet.
        let core = unsafe { &mut (*self.machines[0].0.get()).core };
        let mut budget = Budget::new(&core.heap);
        let more = &mut |bytes| budget.ask(bytes);
        let files = &ProgramFiles {
            platform: self.platform,
            types: self.first.module_types(),
        };
        let (function, modules) = if source.starts_with(&binary::SIGNATURE) {
            if !more(binary::memory_to_decode(source)) {
                return Err(LoadError::Memory);
            }
            let function = binary::decode(source)
                .map_err(|text| LoadError::Verify(format!("{path}: {text}")))?;
            let modules = crate::compile::modules::of_compiled(&function.structs, files, more);
            (Ok(function), modules)
        } else {
            crate::compile::compile_within(source, path, files, more)
        };
        if budget.refused().is_some() {
            return Err(LoadError::Memory);
        }
        let function = function.map_err(LoadError::Compile)?;
        crate::bytecode::verify(&function).map_err(|e| LoadError::Verify(format!("{e}")))?;
        let bound = match self
            .first
            .module_types()
            .bind(&core.heap, &function, &modules, None)
        {
            Ok(bound) => bound,
            Err(Unbound::Differs(text)) => {
                return Err(LoadError::Verify(format!("{path}: {text}")));
            }
            Err(Unbound::Memory(_)) => return Err(LoadError::Memory),
        };
        let charge = budget.keep(function.footprint());
        let function = Arc::new(Loaded::new(function, charge));
        let closure = self.closure(&core.heap, &function, self.globals(), &bound.types)?;
        self.first.module_types().keep(bound);
        let mut values = Vec::new();
        let list = Table::new(&core.heap, arguments.len(), 2)?;
        list.set_int(
            &core.heap,
            0,
            Str::new(&core.heap, path.as_bytes())?.value(),
        )
        .map_err(|_| LoadError::Memory)?;
        for (i, argument) in arguments.iter().enumerate() {
            let value = Str::new(&core.heap, argument)?.value();
            list.set_int(&core.heap, i as i64 + 1, value)
                .map_err(|_| LoadError::Memory)?;
            values.push(value);
        }
        if let Some(globals) = self.globals().as_table() {
            let name = self.heap.intern(&core.heap, b"arg")?.value();
            globals
                .set(&core.heap, name, list.value())
                .map_err(|_| LoadError::Memory)?;
        }
        // The main task's function and arguments are reached by it alone: nothing is published yet.
        let main = Task::new(&core.heap, self.first, closure.value(), &values, None)?;
        self.first.set_main(main);
        self.first.count_spawn(0);
        self.scheduler.inject(main);
        self.heap
            .fail_allocations(self.failing_allocations, self.failing_allocations);
        Ok(())
    }

    /// A closure of a function that is loaded by itself. Its first capture, which a main chunk calls `_ENV`, is `environment`; others, which a
    /// dumped function may have, are nil or zero. `types` are those of its structs that are made already.
    pub(crate) fn closure(
        &self,
        local: &LocalHeap,
        function: &Arc<crate::object::Loaded>,
        environment: Value,
        types: &[Option<Value>],
    ) -> Result<Gc<Closure>, NeedMemory> {
        let proto = Proto::load(local, self.heap, function, types)?;
        let closure = Closure::new(local, proto, function.captures.len())?;
        for (i, capture) in function.captures.iter().enumerate() {
            let value = if i == 0 { environment } else { Value::NIL };
            // SAFETY: there is such a capture, of this kind; nobody else knows the closure yet.
            unsafe {
                match capture.kind {
                    CaptureKind::Value => closure.set_capture(i, value),
                    CaptureKind::Cell => {
                        closure.set_capture(i, Cell::new(local, value)?.value());
                    }
                    CaptureKind::Raw => closure.set_raw_capture(i, 0),
                    CaptureKind::RawCell => {
                        closure.set_capture(i, Cell::new_raw(local, 0)?.value());
                    }
                }
            }
        }
        Ok(closure)
    }

    /// The calling core's loop: runs tasks until the program has ended, and returns its status. To be called once on each core.
    ///
    /// # Panics
    /// If another core works as `cpu`.
    pub fn work(&'static self, cpu: Cpu) -> i32 {
        let worker = self.scheduler.worker(cpu);
        self.begin();
        // SAFETY: the worker is taken, so this core alone uses the machine.
        let vm = unsafe { &mut *self.machines[cpu].0.get() };
        vm.core.set_worker(worker);
        vm.run_tasks();
        vm.core.drop_worker();
        if cpu == 0 {
            self.flush();
        }
        self.status()
    }

    /// A core begins to work: the program's time starts with the first.
    pub(crate) fn begin(&self) {
        let now = self.platform.now();
        let _ = self
            .began
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// When that was, in the platform's time.
    pub(crate) fn began(&self) -> u64 {
        self.began.load(Ordering::Relaxed)
    }

    /// Writes out what the program has printed and what its files hold, at its end.
    pub(crate) fn flush(&self) {
        self.output
            .finish(&|bytes| self.platform.write(Stream::Output, bytes));
        self.files.flush(self.platform);
    }

    /// Prints a piece, which stays in one piece.
    pub(crate) fn print(&self, piece: &[u8]) -> Appended {
        self.output
            .append(&|bytes| self.platform.write(Stream::Output, bytes), piece)
    }

    /// Whether each piece that is printed is to be written at once.
    pub(crate) fn print_at_once(&self, immediate: bool) {
        self.output.set_immediate(immediate);
        self.flush_output();
    }

    /// Writes out what the program has printed, unless another core is doing that.
    #[inline]
    pub(crate) fn flush_output(&self) {
        self.output
            .flush(&|bytes| self.platform.write(Stream::Output, bytes));
    }

    /// Whether a core is writing out what the program has printed.
    pub(crate) fn is_printing(&self) -> bool {
        self.output.is_writing()
    }

    /// Writes to standard error, after what was printed before.
    pub(crate) fn write_error(&self, bytes: &[u8]) {
        self.flush_output();
        self.platform.write(Stream::Error, bytes);
    }

    /// The first program's exit status, once it has ended.
    pub(crate) fn status(&self) -> i32 {
        self.first.status()
    }

    /// A core's machine, for whoever runs that core.
    pub(crate) fn machine(&self, cpu: Cpu) -> *mut Vm {
        self.machines[cpu].0.get()
    }

    /// Cancels every task of the program, whose status is then 130; the second time, ends it at once. Lock-free; callable from interrupt handlers.
    pub fn cancel(&self) {
        if self.cancel_asked.swap(true, Ordering::AcqRel) {
            return self.end(status::CANCELLED);
        }
        self.scheduler.safepoints().post_all(CANCEL);
    }

    /// A core has found [`CANCEL`]: it cancels the first program, and so all, if that was asked for.
    pub(crate) fn serve_cancellation(&self) {
        if self.cancel_asked.load(Ordering::Acquire) && !self.first.is_cancelled() {
            self.first.give_status(status::CANCELLED);
            self.cancel_all(self.first);
        }
    }

    /// The error of a task that ended while it held a lock.
    pub(crate) fn held_text(&self) -> Value {
        self.held_text
    }

    /// The error that stands for cancellation.
    pub(crate) fn cancelled_text(&self) -> Value {
        self.cancelled_text
    }

    /// The heartbeat of a core: to be called when what [`Platform::heartbeat`] asked for is due. Lock-free; callable from interrupt handlers.
    pub fn beat(&self, cpu: Cpu) {
        self.scheduler
            .safepoints()
            .post(cpu, smp::safepoint::HEARTBEAT);
    }

    /// Asks core `cpu` for a safepoint, for a watchdog. Returns whether the core runs and has not passed the one that was asked for
    /// last. Lock-free; callable from interrupt handlers of that core.
    pub fn watch(&self, cpu: Cpu) -> bool {
        let safepoints = self.scheduler.safepoints();
        if !safepoints.is_running(cpu) {
            return false;
        }
        let posted = safepoints.control(cpu).poll.load(Ordering::Relaxed);
        safepoints.post(cpu, smp::safepoint::HEARTBEAT);
        posted & smp::safepoint::HEARTBEAT != 0
    }

    /// Tells that input has arrived or ended. Lock-free; callable from interrupt handlers.
    pub fn input_arrived(&self) {
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        self.scheduler.safepoints().post(0, INPUT);
    }

    /// Ends the program at once with this status, unless it has ended.
    pub(crate) fn end(&self, status: i32) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.ended.store(self.platform.now(), Ordering::Relaxed);
            self.first.close_with(status);
            self.scheduler.safepoints().post_all(CANCEL);
            self.scheduler.close();
        }
    }

    /// What every core counted, as one line of JSON.
    pub fn stats(&self) -> String {
        let mut text = String::from("{\"cores\":[");
        for cpu in 0..self.scheduler.cpus() {
            if cpu > 0 {
                text.push(',');
            }
            text.push_str(&format!("{{\"cpu\":{cpu}"));
            self.scheduler
                .stats(cpu)
                .each(|name, count| text.push_str(&format!(",\"{name}\":{count}")));
            // SAFETY: the core has stopped working, or only counts: a torn reading is a stale number.
            let counters =
                unsafe { (&raw const (*self.machines[cpu].0.get()).core.counters).read() };
            text.push_str(&format!(
                ",\"splits\":{},\"polls\":{},\"growths\":{},\"preemptions\":{}}}",
                counters.splits, counters.polls, counters.growths, counters.preemptions
            ));
        }
        let elapsed = self
            .ended
            .load(Ordering::Relaxed)
            .saturating_sub(self.began.load(Ordering::Relaxed));
        text.push_str(&format!(
            "],\"elapsed_ns\":{elapsed},\"heap_bytes\":{},\"collector\":{}}}",
            self.heap.mapped_bytes(),
            self.heap.statistics().json()
        ));
        text
    }

    /// What it runs on.
    pub fn platform(&self) -> &'static dyn Platform {
        self.platform
    }

    /// The common part of the heap.
    pub fn heap(&self) -> &'static Heap {
        self.heap
    }

    /// Whether every safepoint collects.
    pub(crate) fn collects_always(&self) -> bool {
        self.gc_stress
    }

    /// A core's state: its own, or the collector's in the pause.
    pub(crate) fn core_at(&self, cpu: Cpu) -> *const Core {
        // SAFETY: the machine lives as long as the engine; no reference is made.
        unsafe { &raw const (*self.machines[cpu].0.get()).core }
    }

    /// Calls `visit` with every value that the engine itself holds. In the collector's pause.
    pub(crate) fn each_root(&self, visit: &mut dyn FnMut(Value)) {
        for value in self.names {
            visit(*value);
        }
        for value in [
            self.out_of_memory,
            self.handler_error,
            self.cancelled_text,
            self.held_text,
        ] {
            visit(value);
        }
        self.each_program(|program| visit(program.handle().value()));
        for (table, task) in self.writers.lock().iter() {
            visit(table.value());
            visit(task.value());
        }
        for task in self.readers.lock().iter() {
            visit(task.value());
        }
    }

    /// In the collector's pause every core has passed a safepoint, so nobody reads retired blocks but iterations, which keep theirs alive: they need not be
    /// released one by one any more.
    pub(crate) fn forget_retired(&self) {
        self.retired.lock().clear();
    }

    /// The first program's globals.
    pub fn globals(&self) -> Value {
        self.first.globals()
    }

    /// The program that it began with.
    pub(crate) fn first(&self) -> &'static Program {
        self.first
    }

    /// The names of metamethods.
    pub(crate) fn names(&self) -> &'static [Value] {
        self.names
    }

    pub(crate) fn scheduler(&self) -> &Scheduler<Gc<Task>> {
        &self.scheduler
    }

    /// The files that the program has opened.
    pub(crate) fn files(&self) -> &crate::library::io::Files {
        &self.files
    }

    pub(crate) fn out_of_memory(&self) -> Value {
        self.out_of_memory
    }

    /// The error of message handlers that fail in one another for too long.
    pub(crate) fn handler_error(&self) -> Value {
        self.handler_error
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Writes a task's error and traceback.
    pub(crate) fn report(&self, task: Gc<Task>) {
        let error = task.fields().result.get();
        let text = crate::task::library::error_text(task.program(), error);
        let mut message = Vec::from(&b"vua: "[..]);
        message.extend_from_slice(&text);
        message.push(b'\n');
        if let Some(traceback) = task.traceback() {
            message.extend_from_slice(traceback.as_bytes());
            message.push(b'\n');
        }
        self.write_error(&message);
    }

    /// Queues a suspended task until a table has grown; `false` if it has.
    pub(crate) fn add_writer(&self, table: Gc<Table>, task: Gc<Task>) -> bool {
        let mut writers = self.writers.lock();
        // The mark is cleared before the list is looked at, so who sees it here is found there.
        if !crate::task::wait::is_growing(table) {
            return false;
        }
        writers.push((table, task));
        true
    }

    /// Wakes the tasks that waited for a table's growth.
    pub(crate) fn wake_writers(&self, table: Gc<Table>) {
        let mut woken = Vec::new();
        self.writers.lock().retain(|(waits_for, task)| {
            if *waits_for == table {
                woken.push(*task);
            }
            *waits_for != table
        });
        for task in woken {
            task.set_state(State::Ready);
            self.scheduler.inject(task);
        }
    }

    /// How often input has arrived. A task that finds none waits for this number to change.
    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::SeqCst)
    }

    /// Lists a task that found no input after `arrivals`.
    ///
    /// Input that arrives is counted, then the list is gone through: whoever lists itself too late for that finds another count.
    pub(crate) fn add_reader(&self, task: Gc<Task>, arrivals: u64) {
        self.readers.lock().push(task);
        fence(Ordering::SeqCst);
        if self.arrivals() != arrivals {
            self.wake_readers();
        }
    }

    /// A task's wait for input has ended otherwise.
    pub(crate) fn remove_reader(&self, task: Gc<Task>) {
        self.readers.lock().retain(|reader| *reader != task);
    }

    pub(crate) fn waits_for_input(&self) -> bool {
        !self.readers.lock().is_empty()
    }

    /// How often [`wake_readers`](Self::wake_readers) was called. The count rises before a task leaves the list, and only a core that
    /// is not idle calls it: equal counts before and after a look at idle cores and list mean that no task was on its way from one to the other.
    pub(crate) fn input_wakes(&self) -> u64 {
        self.input_wakes.load(Ordering::SeqCst)
    }

    /// Makes the tasks that wait for input look again.
    pub(crate) fn wake_readers(&self) {
        self.input_wakes.fetch_add(1, Ordering::SeqCst);
        let mut readers = self.readers.lock();
        // Under the lock: a task whose wait was ended otherwise takes itself off before it goes on.
        for task in readers.drain(..) {
            if task.claim(Woken::Event) {
                task.set_state(State::Ready);
                self.scheduler.inject(task);
            }
        }
    }

    /// Keeps a block that readers may still look at until every core has passed a safepoint, and frees those for which that is so.
    pub(crate) fn retire(&self, local: &LocalHeap, block: Retired) {
        let epoch = self.scheduler.safepoints().request();
        let mut ready = Vec::new();
        {
            let mut retired = self.retired.lock();
            let mut i = 0;
            while i < retired.len() {
                if self.scheduler.safepoints().is_complete(retired[i].0) {
                    ready.push(retired.swap_remove(i).1);
                } else {
                    i += 1;
                }
            }
            retired.push((epoch, block));
        }
        for block in ready {
            // SAFETY: every core has passed a safepoint since the table stopped using the block.
            unsafe { block.release(local) };
        }
    }
}
