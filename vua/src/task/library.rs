//! What programs see of tasks: `spawn`, the methods of a task, `task`, `atomic`, `cpu`.

use alloc::vec::Vec;

use super::{State, Task, WaitFor};
use crate::engine::Engine;
use crate::heap::{Kind, NeedMemory};
use crate::interp::frame::Frame;
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::object::{Gc, Str};
use crate::table::{SetError, Table};
use crate::value::Value;

/// Seconds that a wait may last, as nanoseconds; longer ones are cut to about 292 years.
fn nanoseconds(seconds: f64) -> u64 {
    // The cast saturates, and takes NaN for 0.
    (seconds * 1e9) as u64
}

/// Defines the library.
pub(crate) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("spawn", spawn)?;
    builder.library(
        "task",
        &[("self", this), ("yield", give_way), ("sleep", sleep)],
    )?;
    builder.library(
        "atomic",
        &[
            ("add", atomic_add),
            ("load", atomic_load),
            ("store", atomic_store),
            ("exchange", atomic_exchange),
            ("cas", atomic_cas),
        ],
    )?;
    builder.library("cpu", &[("id", cpu_id), ("count", cpu_count)])?;
    let methods = builder.table("", &[("join", join), ("pjoin", pjoin), ("status", status)])?;
    builder.set_task_methods(methods)
}

/// The metatable of values that are no tables and no strings.
pub(crate) fn metatable(engine: &Engine, value: Value) -> Option<Gc<Table>> {
    if value.object_kind() == Some(Kind::Task) {
        engine.task_metatable()
    } else {
        None
    }
}

/// The text of an error value, for people.
pub(crate) fn error_text(engine: &Engine, error: Value) -> Vec<u8> {
    if let Some(string) = error.as_str() {
        return string.bytes().to_vec();
    }
    match error.as_number() {
        Some(n) => crate::interp::text_of(n).as_bytes().to_vec(),
        None => {
            alloc::format!("(error object is a {} value)", engine.type_name(error)).into_bytes()
        }
    }
}

fn task_argument(call: &Call<'_>) -> Result<Gc<Task>, Throw> {
    Gc::from_value(call.get(0)).ok_or_else(|| call.type_error(0, "task"))
}

/// `spawn(f, …)`: starts `f(…)` as a task.
fn spawn(call: &mut Call<'_>) -> Result<Next, Throw> {
    let function = call.get(0);
    if !function.has_tag(crate::value::Tag::Function) {
        return Err(call.type_error(0, "function"));
    }
    for i in 0..call.count() {
        call.publish(call.get(i))?;
    }
    let core = &mut *call.core;
    // SAFETY: the arguments lie in the native's frame; the function is the first.
    let arguments =
        unsafe { core::slice::from_raw_parts(core.base.cast::<Value>().add(1), call.count - 1) };
    let spare = core.spare_stack(arguments.len());
    let task = Task::new(&core.heap, function, arguments, spare)?;
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
    if let Some(paths) = &mut core.meter.paths {
        paths.spawned(task, core.meter.executed);
    }
    core.engine.count_spawn(core.cpu);
    core.beat();
    core.worker().spawn(task);
    Ok(Next::One(task.value()))
}

/// `t:join([seconds])`: the results of `t`, or its error.
fn join(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    if !task.has_ended() {
        return Ok(Next::Wait {
            until: WaitFor::Task(task),
            state: 1,
        });
    }
    saw_end(call, task);
    match task.state() {
        State::Done => results(call, task, 0),
        State::Failed => Err(Throw::Value(joined_error(call, task)?)),
        _ => Err(Throw::Message("cancelled".into())),
    }
}

/// The caller sees that a task has ended, and how.
fn saw_end(call: &mut Call<'_>, task: Gc<Task>) {
    task.observe();
    let meter = &mut call.core.meter;
    if let Some(paths) = &mut meter.paths {
        paths.joined(task, meter.executed);
    }
}

/// `t:pjoin()`: true and the results of `t`, or false and its error.
fn pjoin(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    if !task.has_ended() {
        return Ok(Next::Wait {
            until: WaitFor::Task(task),
            state: 1,
        });
    }
    saw_end(call, task);
    match task.state() {
        State::Done => {
            let next = results(call, task, 1)?;
            call.set(1, Value::TRUE);
            Ok(match next {
                Next::Many { count, .. } => Next::Many {
                    at: 1,
                    count: count + 1,
                },
                other => other,
            })
        }
        state => {
            let error = if state == State::Failed {
                task.fields().result.get()
            } else {
                call.string(b"cancelled")?
            };
            call.set(1, Value::FALSE);
            call.set(2, error);
            Ok(Next::Many { at: 1, count: 2 })
        }
    }
}

/// The error that `join` raises: a string gets the task's traceback behind it, any other value stays as it is.
fn joined_error(call: &mut Call<'_>, task: Gc<Task>) -> Result<Value, Throw> {
    Ok(match task.fields().result.get().as_str() {
        Some(text) => Str::new(call.heap(), text.bytes())?.value(),
        None => task.fields().result.get(),
    })
}

/// Copies an ended task's results to slots 1 + `offset` and on.
fn results(call: &mut Call<'_>, task: Gc<Task>, offset: usize) -> Result<Next, Throw> {
    let fields = task.fields();
    let count = fields.results.get() as usize;
    if count <= 1 {
        if offset == 0 {
            return Ok(if count == 0 {
                Next::Nothing
            } else {
                Next::One(fields.result.get())
            });
        }
        call.set(1 + offset, fields.result.get());
        return Ok(Next::Many {
            at: 1 + offset,
            count,
        });
    }
    call.room(count + offset + 2)?;
    for i in 0..count {
        // SAFETY: an ended task's results stay in the first slots of its stack.
        call.set(1 + offset + i, unsafe {
            Value::from_bits(*fields.stack.get().add(i))
        });
    }
    Ok(Next::Many {
        at: 1 + offset,
        count,
    })
}

/// `t:status()`.
fn status(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    let text: &[u8] = match task.state() {
        State::Ready => b"ready",
        State::Running => b"running",
        State::Waiting => b"waiting",
        State::Done => b"done",
        State::Failed => b"failed",
        State::Cancelled => b"cancelled",
    };
    Ok(Next::One(call.string(text)?))
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

/// `cpu.count()`.
fn cpu_count(call: &mut Call<'_>) -> Result<Next, Throw> {
    let count = call.platform().cpus() as i64;
    Ok(Next::One(call.integer(count)?))
}

/// The slot of `table[key]`, which is made if `insert` says so.
fn slot<'a>(call: &mut Call<'_>, insert: bool) -> Result<crate::table::SlotRef<'a>, Throw> {
    let table = call.table_argument(0)?;
    let key = call.any_argument(1)?;
    loop {
        let found = if insert {
            table.slot_or_insert(call.heap(), key).map(Some)
        } else {
            table.slot(key)
        };
        match found {
            Ok(Some(slot)) if insert || !slot.load().is_nil() => return Ok(slot),
            Ok(_) => return Err(call.argument_error(1, "the table has no such key")),
            Err(SetError::Grow) => {
                let core = &mut *call.core;
                if !table.is_shared() {
                    table.grow(&core.heap, key, &mut || core.pause())?;
                } else {
                    match core.grow_shared(table) {
                        Ok(None) => {}
                        Ok(Some(until)) => return Err(Throw::Wait(until)),
                        Err(crate::interp::throw::Leave::Throw(throw)) => return Err(throw),
                        Err(crate::interp::throw::Leave::Exit(_)) => return Err(Throw::Cancelled),
                    }
                }
            }
            Err(SetError::Growing) => return Err(Throw::Wait(WaitFor::Growth(table))),
            Err(SetError::NeedMemory(need)) => return Err(need.into()),
            Err(SetError::NilKey) => return Err(call.argument_error(1, "table index is nil")),
            Err(SetError::NanKey) => return Err(call.argument_error(1, "table index is NaN")),
            Err(SetError::Frozen) => return Err(call.argument_error(0, "the table is frozen")),
        }
    }
}

/// Prepares to store argument `i` into the table that is the first one.
fn publish_for_table(call: &mut Call<'_>, i: usize) -> Result<Value, Throw> {
    let value = call.any_argument(i)?;
    if call.table_argument(0)?.is_shared() {
        call.publish(value)?;
        call.publish(call.get(1))?;
    }
    Ok(value)
}

/// `atomic.add(t, k, n)`: adds to a number and returns what it was.
fn atomic_add(call: &mut Call<'_>) -> Result<Next, Throw> {
    let amount = call.any_number_argument(2)?;
    let slot = slot(call, false)?;
    let mut old = slot.load();
    loop {
        use crate::number::Number;
        let Some(now) = old.as_number() else {
            return Err(call.argument_error(
                1,
                alloc::format!("number expected in the table, got {}", call.type_name(old)),
            ));
        };
        let sum = match (now, amount) {
            (Number::Integer(x), Number::Integer(y)) => call.integer(x.wrapping_add(y))?,
            (x, y) => Value::float(x.to_float() + y.to_float()),
        };
        match slot.compare_exchange(old, sum) {
            Ok(()) => return Ok(Next::One(old)),
            Err(found) => old = found,
        }
    }
}

/// `atomic.load(t, k)`.
fn atomic_load(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(Next::One(slot(call, false)?.load()))
}

/// `atomic.store(t, k, v)`.
fn atomic_store(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = publish_for_table(call, 2)?;
    slot(call, true)?.store(value);
    Ok(Next::Nothing)
}

/// `atomic.exchange(t, k, v)`: returns what was there.
fn atomic_exchange(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = publish_for_table(call, 2)?;
    Ok(Next::One(slot(call, true)?.exchange(value)))
}

/// `atomic.cas(t, k, old, new)`: whether `old` was there and `new` is now.
fn atomic_cas(call: &mut Call<'_>) -> Result<Next, Throw> {
    let expected = call.any_argument(2)?;
    let value = publish_for_table(call, 3)?;
    let slot = slot(call, expected.is_nil())?;
    let mut found = slot.load();
    loop {
        if !found.raw_equal(expected) {
            return Ok(Next::One(Value::FALSE));
        }
        match slot.compare_exchange(found, value) {
            Ok(()) => return Ok(Next::One(Value::TRUE)),
            Err(other) => found = other,
        }
    }
}
