//! Programs: what tasks have in common that run for the same main function.
//!
//! An engine runs one program, number 0, and those that it starts, and those start ([`run`](crate::task::run)). Each task knows its program, and a core that runs it
//! is the program's meanwhile: it looks there for metatables and globals, and its allocations are charged to the program's account in the heap. A program is
//! an object of the heap, kept by its tasks, by the engine until it has ended, and by the cores that were its last.
//!
//! # Lives
//! Each core counts the program's tasks that were spawned and that ended on it. The program is over when its main function has ended and the two
//! sums are equal: who asks reads all counts of ended tasks and then, after a fence, all counts of spawned ones. Both only grow, and
//! an ended task was spawned before, so equal sums mean that at the moment between the two readings no task was alive, and a dead
//! program spawns none but to [run finalizers](crate::task::finalize), which come first.
//!
//! Of program 0 a core asks that finds nothing to do: what comes of it is the end of all. Of others, which may end while every core is busy, each core asks
//! when it has counted an end: of the cores that count the last ends, the one whose fence comes last sees them all.
//!
//! # Ends
//! | | program 0 | others |
//! | --- | --- | --- |
//! | all tasks have ended | the engine is closed | whoever waits for the program's end goes on |
//! | cancelled | all tasks unwind; then as above | the same |
//! | ended at once | the engine is closed | it is *closed*: a core that runs one of its tasks leaves it at its next safepoint, all that are suspended are woken, and whoever takes one ends it before it runs. No variables are closed, no finalizers run; locks are given back as at every end |

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering, fence};

use smp::platform::{Cpu, Platform};
use smp::safepoint::{CANCEL, MARKED};
use sync::CachePadded;
use sync::lock::Lock;

use super::limit::Limit;
use super::metatables::EXTRAS;
use super::{Engine, limited, status};
use crate::heap::{Header, Heap, Kind, LocalHeap, Marker, NeedMemory, Outside, flags};
use crate::interp::Core;
use crate::library::Builder;
use crate::library::module::{Load, Loads};
use crate::library::module_types::ModuleTypes;
use crate::library::tuning::Tuning;
use crate::object::{Gc, Object};
use crate::share::prelude::Prelude;
use crate::table::Table;
use crate::task::finalize::{self, Finalizing};
use crate::task::list::Register;
use crate::task::run::Watch;
use crate::task::{State, Task, Woken};
use crate::value::{Tag, Value};

/// The program that an engine begins with.
pub(crate) const FIRST: u32 = 0;

/// Tasks spawned and ended on a core, written by that core alone.
#[derive(Default)]
struct Lives {
    spawned: AtomicU64,
    ended: AtomicU64,
}

/// What a program finds defined, its own.
pub(crate) struct Library {
    pub(crate) globals: Value,
    pub(super) strings: Option<Gc<Table>>,
    /// The metatables of objects that are neither tables nor strings, by kind and extra byte.
    pub(super) objects: Vec<Option<Gc<Table>>>,
    pub(super) files: Option<Gc<Table>>,
    pub(super) arrays: Option<Gc<Table>>,
    pub(super) types: Option<Gc<Table>>,
    pub(super) prelude: Prelude,
    finalizers: Value,
}

impl Library {
    /// Defines everything.
    pub(super) fn new(
        heap: &'static Heap,
        local: &LocalHeap,
        platform: &'static dyn Platform,
    ) -> Result<Library, NeedMemory> {
        let globals = Table::new(local, 0, 64)?;
        let mut builder = Builder::new(heap, local, globals);
        crate::library::open(&mut builder, platform)?;
        crate::task::library::open(&mut builder)?;
        crate::share::open(&mut builder)?;
        let prelude = crate::share::prelude::open(&mut builder)?;
        let finalizers = builder.function("finalizers", finalize::run, &[])?;
        let mut objects = alloc::vec![None; Kind::COUNT * EXTRAS];
        for (kind, extra, metatable) in builder.object_metatables() {
            objects[*kind as usize * EXTRAS + usize::from(*extra)] = Some(*metatable);
        }
        let (arrays, types) = builder.memory_tables();
        Ok(Library {
            globals: globals.value(),
            strings: builder.string_metatable(),
            objects,
            files: builder.file_metatable(),
            arrays,
            types,
            prelude,
            finalizers,
        })
    }
}

/// See the module.
#[repr(C)]
pub struct Program {
    header: Header,
    /// Its number in the heap's accounts, and what keeps that its own.
    number: u32,
    outside: Option<Arc<Outside>>,
    /// The program that started it, or null.
    parent: *const Program,
    /// The programs that reach objects of one another, from their start on, have the same: the number of the first of them.
    circle: u32,
    pub(super) names: &'static [Value],
    pub(super) library: Library,
    lives: Box<[CachePadded<Lives>]>,
    main: AtomicPtr<Task>,
    main_ended: AtomicBool,
    /// A core has found that no task is left, and reports errors that nobody joined.
    reporting: AtomicBool,
    status: AtomicI32,
    /// It has begun and not ended: its tasks live whoever refers to them.
    alive: AtomicBool,
    /// It has been ended at once.
    closed: AtomicBool,
    /// Every task is to be cancelled.
    cancelled: AtomicBool,
    /// A deadlock was found before.
    deadlocked: AtomicBool,
    /// Tasks that were suspended and have not ended.
    register: Register,
    /// Tasks that failed, for the report at the end.
    failed: Lock<Vec<Gc<Task>>>,
    /// The task that runs finalizers, and whether it does.
    finalizer: Gc<Task>,
    finalizing: Finalizing,
    /// What `collectgarbage` was told.
    tuning: Tuning,
    /// The modules that are being loaded, and the types of structs that modules declare.
    loads: Loads,
    module_types: ModuleTypes,
    /// On how many cores it may run, if that is not all of its parent's.
    limit: Option<Arc<Limit>>,
    /// Of a program that another started: who watches it.
    watch: Lock<Watch>,
}

// SAFETY: handles are plain addresses; what is neither atomic nor under a lock is written before other cores know the program.
unsafe impl Sync for Program {}
// SAFETY: as above.
unsafe impl Send for Program {}

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for Program {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Program];
}

/// How a program is started.
pub(crate) struct Start {
    /// See [`Heap::open_program`].
    pub(crate) number: u32,
    pub(crate) outside: Option<Arc<Outside>>,
    pub(crate) parent: Option<&'static Program>,
    /// It reaches objects of its parent's.
    pub(crate) shares: bool,
    /// On how many cores it may run.
    pub(crate) cpus: Option<usize>,
}

impl Program {
    /// Where the number is, for a debugger.
    pub(super) const NUMBER: usize = core::mem::offset_of!(Program, number);

    /// A program without a main function. What it consists of is allocated for whichever program `local` allocates for.
    pub(crate) fn new(
        engine: Option<&'static Engine>,
        heap: &'static Heap,
        local: &LocalHeap,
        platform: &'static dyn Platform,
        names: &'static [Value],
        start: Start,
    ) -> Result<&'static Program, NeedMemory> {
        let object = local
            .alloc_object(Kind::Program, 0, size_of::<Program>())?
            .cast::<Program>();
        let made = Library::new(heap, local, platform).and_then(|library| {
            // SAFETY: nobody follows the address before the program is written below.
            let program = unsafe { &*object.as_ptr().cast_const() };
            let finalizer = Task::new(local, program, library.finalizers, &[], None)?;
            Ok((library, finalizer))
        });
        let (library, finalizer) = match made {
            Ok(made) => made,
            Err(need) => {
                // SAFETY: nobody else knows it.
                unsafe { local.free(object.cast(), size_of::<Program>()) };
                return Err(need);
            }
        };
        finalizer.set_state(State::Waiting);
        let above = start.parent.and_then(|parent| parent.limit.clone());
        let limit = match start.cpus {
            Some(cpus) if cpus < above.as_ref().map_or(platform.cpus(), |a| a.cpus()) => {
                Some(Arc::new(Limit::new(cpus, above)))
            }
            _ => above,
        };
        let header = Header::new(Kind::Program, 0);
        header.set_flags(flags::SHARED);
        // SAFETY: the memory is new, of that size and ours alone. The collector keeps the object as long as somebody can use the reference: see the module.
        unsafe {
            object.write(Program {
                header,
                number: start.number,
                outside: start.outside,
                parent: start.parent.map_or(core::ptr::null(), |p| p),
                circle: match start.parent {
                    Some(parent) if start.shares => parent.circle,
                    _ => start.number,
                },
                names,
                library,
                lives: (0..platform.cpus())
                    .map(|_| CachePadded::new(Lives::default()))
                    .collect(),
                main: AtomicPtr::new(null_mut()),
                main_ended: AtomicBool::new(false),
                reporting: AtomicBool::new(false),
                status: AtomicI32::new(0),
                alive: AtomicBool::new(start.number == FIRST),
                closed: AtomicBool::new(engine.is_some_and(Engine::is_closed)),
                cancelled: AtomicBool::new(false),
                deadlocked: AtomicBool::new(false),
                register: Register::new(platform.cpus()),
                failed: Lock::new(Vec::new()),
                finalizer,
                finalizing: Finalizing::new(),
                tuning: Tuning::new(),
                loads: Loads::new(),
                module_types: ModuleTypes::new(),
                limit,
                watch: Lock::new(Watch::default()),
            });
            Ok(&*object.as_ptr())
        }
    }

    /// Its handle.
    pub(crate) fn handle(&'static self) -> Gc<Program> {
        // SAFETY: programs are objects of the heap.
        unsafe { Gc::from_ptr(core::ptr::NonNull::from(self)) }
    }

    /// Its number in the heap's accounts.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn is_first(&self) -> bool {
        self.number == FIRST
    }

    /// The program that started it.
    pub(crate) fn parent(&self) -> Option<&'static Program> {
        // SAFETY: null, or a program, which the collector keeps for its child.
        unsafe { self.parent.as_ref() }
    }

    /// See the field.
    pub(crate) fn circle(&self) -> u32 {
        self.circle
    }

    /// The table of its globals.
    pub(crate) fn globals(&self) -> Value {
        self.library.globals
    }

    /// The library's functions that are written in Vua.
    pub(crate) fn prelude(&self) -> &Prelude {
        &self.library.prelude
    }

    pub(crate) fn register(&self) -> &Register {
        &self.register
    }

    /// The types of structs that modules declare.
    pub(crate) fn module_types(&self) -> &ModuleTypes {
        &self.module_types
    }

    pub(crate) fn loads(&self) -> &Loads {
        &self.loads
    }

    /// What `collectgarbage` was told.
    pub(crate) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// The task that runs finalizers.
    pub(crate) fn finalizer(&self) -> Gc<Task> {
        self.finalizer
    }

    pub(crate) fn finalizing(&self) -> &Finalizing {
        &self.finalizing
    }

    /// On how many cores it may run, if not on all.
    #[inline(always)]
    pub(crate) fn limit(&self) -> Option<&Arc<Limit>> {
        self.limit.as_ref()
    }

    pub(crate) fn watch(&self) -> &Lock<Watch> {
        &self.watch
    }

    /// Whether this is the task that runs its finalizers.
    #[inline]
    pub(crate) fn is_finalizer(&self, task: Gc<Task>) -> bool {
        self.finalizer == task
    }

    pub(crate) fn is_main(&self, task: Gc<Task>) -> bool {
        self.main.load(Ordering::Relaxed) == task.as_ptr()
    }

    /// The task of its main function.
    pub(crate) fn main(&self) -> Option<Gc<Task>> {
        let main = self.main.load(Ordering::Acquire);
        // SAFETY: null, or the main task, which the program keeps.
        core::ptr::NonNull::new(main).map(|main| unsafe { Gc::from_ptr(main) })
    }

    /// Gives it its main function, once.
    pub(crate) fn set_main(&self, main: Gc<Task>) {
        self.main.store(main.as_ptr(), Ordering::Release);
    }

    /// A core counts a task that it spawns.
    #[inline]
    pub(crate) fn count_spawn(&self, cpu: Cpu) {
        let count = &self.lives[cpu].spawned;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// A core counts a task that has ended.
    #[inline]
    pub(crate) fn count_end(&self, cpu: Cpu) {
        let count = &self.lives[cpu].ended;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// How many tasks are alive. In the collector's pause.
    pub(crate) fn alive(&self) -> u64 {
        let sum = |count: fn(&Lives) -> &AtomicU64| -> u64 {
            let counts = self.lives.iter().map(|l| count(l).load(Ordering::Acquire));
            counts.sum()
        };
        let ended = sum(|l| &l.ended);
        fence(Ordering::SeqCst);
        sum(|l| &l.spawned) - ended
    }

    /// Whether no task is alive. See the module for why equal sums prove it.
    fn is_dead(&self) -> bool {
        self.alive() == 0
    }

    /// Its exit status, once it has one.
    pub(crate) fn status(&self) -> i32 {
        self.status.load(Ordering::Acquire)
    }

    /// Sets the status that it will end with, unless it has one.
    pub(crate) fn give_status(&self, status: i32) {
        let _ = self
            .status
            .compare_exchange(0, status, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// It ends with this status, whatever it had.
    pub(super) fn close_with(&self, status: i32) {
        self.status.store(status, Ordering::Release);
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether it has begun and not ended.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Whether it has been ended at once.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn mark_cancelled(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub(crate) fn add_failed(&self, task: Gc<Task>) {
        self.failed.lock().push(task);
    }

    /// Gives up the loads that `which` says, and lets the tasks that wait for them look again.
    pub(crate) fn give_up_loads(&self, engine: &Engine, which: impl Fn(&Load) -> bool) {
        for task in self.loads.end(which) {
            task.set_state(State::Ready);
            engine.scheduler().inject(task);
        }
    }

    /// Calls `visit` with what it holds. In the collector's pause.
    fn each_root(&self, visit: &mut dyn FnMut(Value)) {
        let library = &self.library;
        visit(library.globals);
        library.prelude.roots().into_iter().for_each(&mut *visit);
        self.module_types.each_root(visit);
        visit(library.finalizers);
        let objects = library.objects.iter().copied();
        for table in objects
            .chain([
                library.strings,
                library.files,
                library.arrays,
                library.types,
            ])
            .flatten()
        {
            visit(table.value());
        }
        if let Some(main) = self.main() {
            visit(main.value());
        }
        visit(self.finalizer.value());
        if let Some(parent) = self.parent() {
            visit(parent.handle().value());
        }
        for task in self.failed.lock().iter() {
            visit(task.value());
        }
    }

    /// Its main function has ended: an error cancels its tasks, else they go on.
    pub(crate) fn main_ended(&'static self, core: &mut Core, task: Gc<Task>, state: State) {
        if state == State::Failed && !self.is_closed() {
            task.observe();
            core.engine.report(task);
            self.give_status(status::ERROR);
            core.engine.cancel_all(self);
        }
        self.main_ended.store(true, Ordering::SeqCst);
        self.end_if_done(core.engine, core.cpu);
    }

    /// A core has counted the end of a task of a program that is not the first.
    pub(crate) fn look_for_end(&'static self, engine: &Engine, cpu: Cpu) {
        fence(Ordering::SeqCst);
        self.end_if_done(engine, cpu);
    }

    /// Ends the program if no task is left and all is finalized, and says whether it has ended or another core is ending it, or whether it lives on for a finalizer. For core `cpu` itself.
    pub(crate) fn end_if_done(&'static self, engine: &Engine, cpu: Cpu) -> bool {
        if !self.main_ended.load(Ordering::SeqCst) || !self.is_dead() {
            return self.is_closed();
        }
        if !self.is_closed() && !engine.has_finalized(self, cpu, || self.is_dead()) {
            return true;
        }
        // One core reports and ends the program; another that found the same in the meantime must not end it first.
        if self.reporting.swap(true, Ordering::AcqRel) {
            return true;
        }
        let failed = core::mem::take(&mut *self.failed.lock());
        let mut status = self.status();
        for task in failed {
            if !task.is_observed() && !self.is_closed() {
                if status == 0 {
                    status = status::ERROR;
                }
                engine.report(task);
            }
        }
        if self.is_first() {
            engine.end(status);
        } else {
            self.status.store(status, Ordering::Release);
            engine.over(self);
        }
        true
    }
}

impl Engine {
    /// The programs that have begun and not ended.
    pub(crate) fn each_program(&self, mut visit: impl FnMut(&'static Program)) {
        for program in self.programs.lock().iter() {
            visit(program);
        }
    }

    /// A program begins, by core `cpu`; not if the one that started it has been ended at once.
    pub(crate) fn begin_program(&'static self, cpu: Cpu, program: &'static Program) {
        {
            let mut programs = self.programs.lock();
            if program.parent().is_some_and(Program::is_closed) {
                program.close_with(status::CANCELLED);
            }
            programs.push(program);
            program.alive.store(true, Ordering::Relaxed);
        }
        if let Some(main) = program.main() {
            program.count_spawn(cpu);
            self.scheduler.inject(main);
        }
    }

    /// A program, not the first, has ended.
    fn over(&self, program: &'static Program) {
        self.files.flush(self.platform);
        program.alive.store(false, Ordering::Relaxed);
        self.programs
            .lock()
            .retain(|other| !core::ptr::eq(*other, program));
        let waiter = program.watch.lock().end();
        if let Some(waiter) = waiter
            && waiter.claim(Woken::Event)
        {
            waiter.set_state(State::Ready);
            self.scheduler.inject(waiter);
        }
    }

    /// Ends a program at once with this status, and those that it has started, unless it has ended.
    pub(crate) fn end_program(&self, program: &'static Program, status: i32) {
        if program.is_first() {
            return self.end(status);
        }
        if program.is_closed() {
            return;
        }
        let mut closed = Vec::new();
        {
            let programs = self.programs.lock();
            program.close_with(status);
            closed.push(program);
            // Parents come before their children.
            for other in programs.iter() {
                if other.parent().is_some_and(Program::is_closed) && !other.is_closed() {
                    other.close_with(status::CANCELLED);
                    closed.push(other);
                }
            }
        }
        for program in closed {
            self.heap.forget_finalizers(program.number);
            program.register.each(|task| {
                if task.claim(Woken::Cancel) {
                    task.set_state(State::Ready);
                    self.scheduler.inject(task);
                }
            });
        }
        self.scheduler.safepoints().post_all(CANCEL | MARKED);
    }

    /// Ends a program as `os.exit` does; statuses outside 0 to 63 become 63.
    pub(crate) fn exit_program(&self, program: &'static Program, status: i64) {
        self.end_program(program, limited(status));
    }

    /// Ends a program with this status, from 0 to 63 or 63, when its tasks have closed their variables and its finalizers have run.
    pub(crate) fn shut(&self, program: &Program, status: i64) {
        program.give_status(limited(status));
        self.cancel_all(program);
    }

    /// Every task of the programs waits and nothing can wake one: says what each waits for, and cancels them all; the second time, ends the programs.
    pub(crate) fn deadlock(&self, programs: &[&'static Program]) {
        if self.is_closed() {
            return;
        }
        let mut again = false;
        for program in programs {
            again |= program.deadlocked.swap(true, Ordering::AcqRel);
        }
        if again {
            for program in programs {
                self.end_program(program, status::ERROR);
            }
            return;
        }
        let mut waits = crate::task::deadlock::Waits::default();
        for program in programs {
            program.register.each(|task| {
                // A watcher that has just found it does not wait.
                if task.is_suspended() {
                    waits.add(crate::task::deadlock::described(task));
                }
            });
        }
        let text = format!(
            "vua: deadlock: every task of the program waits, and nothing can wake one\n{waits}"
        );
        self.write_error(text.as_bytes());
        for program in programs {
            program.give_status(status::ERROR);
            self.cancel_all(program);
        }
    }
}

/// The mark hook of programs.
///
/// # Safety
/// As for every mark hook.
pub(crate) unsafe fn mark(object: core::ptr::NonNull<Header>, marker: &mut Marker<'_>) {
    // SAFETY: a live program.
    let program = unsafe { object.cast::<Program>().as_ref() };
    program.each_root(&mut |value| marker.value(value));
}

/// The drop hook of programs.
///
/// # Safety
/// As for every drop hook.
pub(crate) unsafe fn drop_owned(object: core::ptr::NonNull<Header>) {
    // SAFETY: a dead program, dropped once. Its header needs no dropping, and is as it was when this returns.
    unsafe { object.cast::<Program>().drop_in_place() }
}
