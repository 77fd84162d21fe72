//! What programs see of tasks: `spawn`, `task`, `cpu`. The methods of a task are in [`join`](super::join), scopes in [`scope`](super::scope).

use alloc::vec::Vec;

use super::{Latch, Task, WaitFor};
use crate::engine::Program;
use crate::heap::{NeedMemory, is_public};
use crate::interp::frame::Frame;
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::object::Gc;
use crate::value::Value;

/// Seconds that a wait may last, as nanoseconds; longer ones are cut to about 292 years.
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    // The cast saturates, and takes NaN for 0.
    (seconds * 1e9) as u64
}

/// Defines the library.
pub(crate) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("spawn", spawn)?;
    builder.library(
        "task",
        &[
            ("self", this),
            ("yield", give_way),
            ("sleep", sleep),
            ("scope", super::scope::scope),
        ],
    )?;
    builder.library("cpu", &[("id", cpu_id), ("count", cpu_count)])?;
    super::join::open(builder)?;
    super::scope::open(builder)?;
    super::run::open(builder)
}

/// The text of an error value, for people.
pub(crate) fn error_text(program: &Program, error: Value) -> Vec<u8> {
    if let Some(string) = error.as_str() {
        return string.bytes().to_vec();
    }
    match error.as_number() {
        Some(n) => crate::interp::text_of(n).as_bytes().to_vec(),
        None => {
            alloc::format!("(error object is a {} value)", program.type_name(error)).into_bytes()
        }
    }
}

/// `spawn(f, …)`: starts `f(…)` as a task.
fn spawn(call: &mut Call<'_>) -> Result<Next, Throw> {
    start(call, 0, None)
}

/// Starts the function in argument `at` with the arguments behind it as a task, of a group if there is one.
pub(super) fn start(
    call: &mut Call<'_>,
    at: usize,
    group: Option<Gc<Latch>>,
) -> Result<Next, Throw> {
    if !call.get(at).has_tag(crate::value::Tag::Function) {
        return Err(call.type_error(at, "function"));
    }
    for i in at..call.count() {
        let value = call.get(i);
        if !is_public(value) {
            call.publish(value)?;
        }
    }
    call.core.publish_common()?;
    let function = call.get(at);
    let count = call.count - at - 1;
    // SAFETY: the arguments lie in the native's frame, behind the function.
    let arguments =
        unsafe { core::slice::from_raw_parts(call.core.base.cast::<Value>().add(at + 1), count) };
    start_task(call, function, arguments, group)
}

/// Starts a function with arguments, all published, as a task, of a group if there is one. Passes no safepoint.
#[inline]
pub(super) fn start_task(
    call: &mut Call<'_>,
    function: Value,
    arguments: &[Value],
    group: Option<Gc<Latch>>,
) -> Result<Next, Throw> {
    let core = &mut *call.core;
    let spare = core.spare_stack(arguments.len());
    let task = Task::new(&core.heap, core.program, function, arguments, spare)?;
    let frame = Frame {
        base: core.base,
        pc: core::ptr::null(),
    };
    // SAFETY: the native's frame is on the running task's stack.
    if let Some(caller) = unsafe { frame.caller() } {
        // SAFETY: as above.
        task.fields()
            .spawned_at
            .set((unsafe { Value::from_bits(*caller.base.sub(2)) }, caller.pc));
    }
    if let Some(group) = group {
        group.add(task);
        // It may have failed while the arguments were published, and cancelled those that it had.
        if group.has_failed() {
            core.engine.cancel_task(task);
        }
    }
    if let Some(paths) = &mut core.meter.paths {
        paths.spawned(task, core.meter.executed);
    }
    core.race_watch(|races, by| races.spawned(by, task.as_ptr() as usize));
    core.program.count_spawn(core.cpu);
    core.beat();
    core.worker().spawn(task);
    Ok(Next::One(task.value()))
}

/// `task.self()`.
fn this(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(call
        .core
        .task
        .map_or(Next::Nothing, |task| Next::One(task.value())))
}

/// `task.yield()`.
fn give_way(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(if call.state() == 0 {
        Next::Wait {
            until: WaitFor::Turn,
            state: 1,
        }
    } else {
        Next::Nothing
    })
}

/// `task.sleep(seconds)`.
fn sleep(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() != 0 {
        return Ok(Next::Nothing);
    }
    let seconds = call.number_argument(0)?;
    let deadline = call.platform().now().saturating_add(nanoseconds(seconds));
    Ok(Next::Wait {
        until: WaitFor::Time(deadline),
        state: 1,
    })
}

/// `cpu.id()`: the number of the core that runs this, from 1.
fn cpu_id(call: &mut Call<'_>) -> Result<Next, Throw> {
    let id = call.cpu() as i64 + 1;
    Ok(Next::One(call.integer(id)?))
}

/// `cpu.count()`: on how many cores the program may run.
fn cpu_count(call: &mut Call<'_>) -> Result<Next, Throw> {
    let all = call.platform().cpus();
    let count = call.program().limit().map_or(all, |limit| limit.cpus()) as i64;
    Ok(Next::One(call.integer(count)?))
}
