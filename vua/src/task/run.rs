//! `run`: programs that programs start.
//!
//! The file is loaded and the program made in the task that calls `run`, so what is wrong with either is that call's error. What it returns is a task of the *starting* program, the
//! program's watcher: it begins the program, waits for its end, holds it to its time, and has its status and its main function's results as its own. So the starting program lives
//! as long as those that it started, and cancelling the watcher, or everything, cancels them: a watcher that is cancelled while it waits cancels its program and waits on.
//!
//! | the program | by | and then |
//! | --- | --- | --- |
//! | is cancelled, status 124 | its time is up | |
//! | is cancelled, status 130 | its watcher is | |
//! | is cancelled, status 1 | its watcher finds a deadlock | [`Circle`] |
//! | is ended at once | `os.exit`; a second after its time was up; a second deadlock; the end at once of the program that started it | [`Program`] |
//!
//! # Deadlocks
//! A program that shares nothing with others can be told that its tasks will wait for ever while other programs run on. Its watcher looks now and then, the world
//! being stopped: then a task is either suspended, or somewhere among those that are ready, and nobody is on the way from one to the other. Programs that were given objects
//! of the starting program's may be woken by it, and are looked at together with it: they are a [`Circle`]. The looks come after 10 ms, 20, 40 and so on up to a second, so a
//! deadlock is found when it is about half as old as its program, and at most a second old.

use alloc::string::String;
use alloc::vec::Vec;

use super::{State, Task, WaitFor};
use crate::engine::program::{Program, Start};
use crate::engine::status;
use crate::heap::{NeedMemory, flags};
use crate::interp::Core;
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::library::load::load_program;
use crate::object::{Gc, NativeFunction, Str};
use crate::table::Table;
use crate::value::Value;

/// How long a program may take to close its variables when its time is up, in nanoseconds.
const GRACE: u64 = 1_000_000_000;
/// When a watcher looks for a deadlock first, and how much later at most the next time.
const FIRST_LOOK: u64 = 10_000_000;
const LAST_LOOK: u64 = 1_000_000_000;

/// What a program's watcher knows of it.
#[derive(Default)]
pub(crate) struct Watch {
    /// The watcher, while it waits.
    waiter: Option<Gc<Task>>,
    /// The program has ended.
    ended: bool,
    /// How long it may run, and from its beginning on the moment when its time is up; in nanoseconds.
    time: Option<u64>,
    deadline: Option<u64>,
    /// Its time is up.
    late: bool,
    /// When to look for a deadlock next, and how long after that.
    look: u64,
    pause: u64,
}

// SAFETY: handles are plain addresses; what becomes of the watcher is between its `wake` byte and who claims it.
unsafe impl Send for Watch {}

impl Watch {
    /// The program has ended: who waits for that.
    pub(crate) fn end(&mut self) -> Option<Gc<Task>> {
        self.ended = true;
        self.waiter.take()
    }
}

impl Program {
    /// The watcher begins to wait; `false` if the program has ended.
    pub(super) fn add_watcher(&self, task: Gc<Task>) -> bool {
        let mut watch = self.watch().lock();
        if !watch.ended {
            watch.waiter = Some(task);
        }
        !watch.ended
    }

    /// The watcher's wait has ended otherwise.
    pub(super) fn remove_watcher(&self) {
        self.watch().lock().waiter = None;
    }
}

/// Defines the function.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("run", run)
}

/// What the second argument says.
#[derive(Clone, Copy, Default)]
struct Limits {
    memory: Option<usize>,
    cpus: Option<usize>,
    time: Option<u64>,
}

fn limits(call: &mut Call<'_>, options: Gc<Table>) -> Result<Limits, Throw> {
    let mut field = |name: &str| -> Result<Value, Throw> {
        let name = call.string(name.as_bytes())?;
        Ok(options.get(name))
    };
    let (memory, cpus, time) = (field("memory")?, field("cpus")?, field("time")?);
    let whole = |value: Value, least: i64| -> Option<usize> {
        let number = value.as_number()?.to_integer()?;
        usize::try_from(number).ok().filter(|_| number >= least)
    };
    let mut limits = Limits::default();
    if !memory.is_nil() {
        limits.memory = Some(
            whole(memory, 0)
                .ok_or_else(|| call.argument_error(1, "'memory' is not a number of bytes"))?,
        );
    }
    if !cpus.is_nil() {
        limits.cpus = Some(
            whole(cpus, 1)
                .ok_or_else(|| call.argument_error(1, "'cpus' is not a number of cores"))?,
        );
    }
    if !time.is_nil() {
        let seconds = time.as_number().map(crate::number::Number::to_float);
        let seconds = seconds
            .filter(|seconds| *seconds >= 0.0)
            .ok_or_else(|| call.argument_error(1, "'time' is not a number of seconds"))?;
        limits.time = Some(super::library::nanoseconds(seconds));
    }
    Ok(limits)
}

/// Slots of `run`: the path, the table, the arguments behind it.
const FIRST: usize = 2;

/// `run(path, {args…, memory = bytes, cpus = n, time = seconds})`.
fn run(call: &mut Call<'_>) -> Result<Next, Throw> {
    let path = call.bytes_argument(0)?;
    let Some(path) = path.to_utf8().map(String::from) else {
        return Err(call.argument_error(0, "invalid file name"));
    };
    call.settle(2);
    let (mut limits_given, mut count) = (Limits::default(), 0);
    let mut shares = false;
    if let Some(options) = call.slot(1).as_table() {
        limits_given = limits(call, options)?;
        count = usize::try_from(options.length()).unwrap_or(0);
        call.room(FIRST + count + 4)?;
        for i in 0..count {
            let argument = options.get_int(i as i64 + 1);
            call.set(FIRST + i, argument);
        }
        for i in FIRST..FIRST + count {
            // A safepoint: what is published lies in the frame.
            call.publish(call.slot(i))?;
            let argument = call.slot(i);
            shares |= argument.object().is_some()
                && argument.as_str().is_none()
                && argument.as_integer().is_none();
        }
    } else if !call.slot(1).is_nil() {
        return Err(call.type_error(1, "table"));
    } else {
        call.room(FIRST + 4)?;
    }
    call.core.publish_common()?;
    let (number, outside) = call
        .heap()
        .heap()
        .open_program(call.core.program.number(), limits_given.memory)?;
    let start = Start {
        number,
        outside: Some(outside),
        parent: Some(call.core.program),
        shares,
        cpus: limits_given.cpus,
    };
    let parent = call.heap().program();
    // From here on no safepoint is passed until the program is in the watcher's frame. What is made is charged to it.
    call.heap().set_program(number)?;
    let made = make(call, start, &path, count);
    // Its own program's place is there: it was put aside above.
    let back = call.heap().set_program(parent);
    debug_assert!(back.is_ok());
    let program = match made? {
        Ok(program) => program,
        Err(text) => return Err(Throw::Message(text)),
    };
    program.watch().lock().time = limits_given.time;
    let watcher = NativeFunction::new(call.heap(), watch as *const (), "run", &[])?;
    watcher.header().set_flags(flags::SHARED);
    super::library::start_task(call, watcher.value(), &[program.handle().value()], None)
}

/// Loads the file and makes the program; or says why there is none.
fn make(
    call: &mut Call<'_>,
    start: Start,
    path: &str,
    count: usize,
) -> Result<Result<&'static Program, String>, Throw> {
    let engine = call.engine();
    let program = Program::new(
        Some(engine),
        engine.heap(),
        call.heap(),
        engine.platform(),
        engine.names(),
        start,
    )?;
    // Structs of modules are the new program's while it is loaded.
    let parent = core::mem::replace(&mut call.core.program, program);
    let loaded = load_program(call, path, program.globals(), FIRST + count);
    call.core.program = parent;
    let closure = match loaded? {
        Ok(closure) => closure,
        Err(text) => return Ok(Err(text)),
    };
    let list = Table::new(call.heap(), count, 2)?;
    let name = Str::new(call.heap(), path.as_bytes())?.value();
    let mut arguments = Vec::new();
    let need = NeedMemory { bytes: 8 * count };
    arguments.try_reserve_exact(count).map_err(|_| need)?;
    for i in 0..count {
        arguments.push(call.slot(FIRST + i));
    }
    // Nobody else knows these tables, and the list has room.
    let no_room = |_| NeedMemory { bytes: 64 };
    list.set_int(call.heap(), 0, name).map_err(no_room)?;
    for (i, argument) in arguments.iter().enumerate() {
        if !argument.is_nil() {
            list.set_int(call.heap(), i as i64 + 1, *argument)
                .map_err(no_room)?;
        }
    }
    if let Some(globals) = program.globals().as_table() {
        let name = engine.heap().intern(call.heap(), b"arg")?.value();
        globals
            .set(call.heap(), name, list.value())
            .map_err(no_room)?;
    }
    // As of the first program: the main function and what it reaches are reached by its task alone, and the arguments are published.
    let main = Task::new(call.heap(), program, closure, &arguments, None)?;
    program.set_main(main);
    Ok(Ok(program))
}

/// What a watcher runs; its argument is the program.
fn watch(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (Some(program), Some(task)) = (Gc::<Program>::from_value(call.slot(0)), call.core.task)
    else {
        return Ok(Next::Nothing);
    };
    let program = program.fields();
    let engine = call.engine();
    if call.state() == 0 {
        // As if it held a lock: from here on cancellation takes effect where it waits, which cancels the program.
        task.fields().locks.set(1);
        let now = call.platform().now();
        {
            let mut watch = program.watch().lock();
            watch.deadline = watch.time.map(|time| now.saturating_add(time));
            watch.look = now.saturating_add(FIRST_LOOK);
            watch.pause = FIRST_LOOK;
        }
        call.advance(1);
        if let Some(main) = program.main() {
            call.core
                .race_watch(|races, by| races.spawned(by, main.as_ptr() as usize));
        }
        engine.begin_program(call.cpu(), program);
    }
    let now = call.platform().now();
    let (ended, late, looks, next) = {
        let mut watch = program.watch().lock();
        let late = !watch.ended && watch.deadline.is_some_and(|deadline| deadline <= now);
        let was_late = watch.late;
        if late {
            watch.late = true;
            watch.deadline = (!was_late).then(|| now.saturating_add(GRACE));
        }
        let looks = watch.look <= now;
        if looks {
            watch.pause = (2 * watch.pause).min(LAST_LOOK);
            watch.look = now.saturating_add(watch.pause);
        }
        let next = watch.deadline.map_or(watch.look, |d| d.min(watch.look));
        (watch.ended, late.then_some(was_late), looks, next)
    };
    if ended {
        task.fields().locks.set(0);
        // What the program's tasks did comes before what is done after its end.
        call.core.race_watch(|races, task| races.acquire_all(task));
        if task.is_unwinding() {
            return Err(Throw::Cancelled);
        }
        return results(call, program);
    }
    match late {
        Some(false) => {
            program.give_status(status::LATE);
            engine.cancel_all(program);
        }
        Some(true) => engine.end_program(program, status::LATE),
        None if looks => call.core.find_deadlock(program),
        None => {}
    }
    Ok(Next::Wait {
        until: WaitFor::Program(program.handle(), next),
        state: 1,
    })
}

/// The status of a program that has ended, and the results of its main function.
fn results(call: &mut Call<'_>, program: &'static Program) -> Result<Next, Throw> {
    call.set(1, Value::small(program.status()));
    let main = program.main().filter(|main| main.state() == State::Done);
    let Some(main) = main else {
        return Ok(Next::Many { at: 1, count: 1 });
    };
    let next = super::join::results(call, main, 1)?;
    Ok(match next {
        Next::Many { count, .. } => Next::Many {
            at: 1,
            count: count + 1,
        },
        other => other,
    })
}

/// Programs that reach objects of one another, and whether they are all that could wake their tasks.
#[derive(Default)]
struct Circle {
    programs: Vec<&'static Program>,
    /// There was no room for all of them.
    is_partial: bool,
    alive: u64,
    waiting: u64,
}

impl Circle {
    /// Counts the tasks of a program of the circle. In the pause.
    fn add(&mut self, program: &'static Program) {
        if self.programs.len() == self.programs.capacity() {
            self.is_partial = true;
            return;
        }
        self.programs.push(program);
        self.alive += program.alive();
        program.register().each(|task| {
            self.waiting +=
                u64::from(task.is_suspended() && waits_for_its_like(task, program.circle()));
        });
    }
}

/// Whether only a task of this circle can wake a suspended task.
fn waits_for_its_like(task: Gc<Task>, circle: u32) -> bool {
    match task.fields().wait.get() {
        Some(WaitFor::Program(program, _)) => program.fields().circle() == circle,
        Some(wait) => wait.is_for_a_task(),
        None => false,
    }
}

impl Core {
    /// Looks whether all tasks of the program's circle wait for one another; then that is reported, and they are cancelled. A safepoint.
    fn find_deadlock(&mut self, program: &'static Program) {
        let engine = self.engine;
        let safepoints = engine.scheduler().safepoints();
        let mut circle = Circle::default();
        // Memory for it is taken before the world is stopped, and programs that begin meanwhile are found missing.
        let mut count = 8;
        engine.each_program(|_| count += 1);
        if circle.programs.try_reserve(count).is_err() {
            return;
        }
        if !safepoints.stop_begin(self.cpu) {
            self.worker().stop_hold();
            return;
        }
        safepoints.stop_wait(self.cpu);
        engine.each_program(|other| {
            if other.circle() == program.circle() {
                circle.add(other);
            }
        });
        // This task, which runs, would wait.
        let watcher = program.parent().map(Program::circle) == Some(program.circle());
        // If the program has ended by now, its watcher goes on.
        let stuck = program.is_alive()
            && !circle.is_partial
            && circle.alive > 0
            && circle.waiting + u64::from(watcher) == circle.alive;
        safepoints.resume(self.cpu);
        if stuck {
            engine.deadlock(&circle.programs);
        }
    }
}

impl Gc<Program> {
    pub(super) fn fields(self) -> &'static Program {
        // SAFETY: the program lives as long as its handle is used.
        unsafe { &*self.as_ptr() }
    }
}
