//! The methods of a task.

use super::library::nanoseconds;
use super::{State, Task, WaitFor};
use crate::heap::{Kind, NeedMemory};
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::object::{Gc, Str};
use crate::race::Part;
use crate::value::Value;

/// Defines the methods.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    let methods = builder.table(
        "",
        &[
            ("join", join),
            ("pjoin", pjoin),
            ("cancel", cancel),
            ("status", status),
        ],
    )?;
    builder.set_methods(Kind::Task, 0, "task", methods)?;
    Ok(())
}

/// How much a wait may take at most: the second argument, as a moment kept in its place from the first step on. `None` without it.
pub(crate) fn deadline(call: &mut Call<'_>, argument: usize) -> Result<Option<u64>, Throw> {
    if call.state() == 0 {
        if call.get(argument).is_nil() {
            call.set(argument, Value::NIL);
            return Ok(None);
        }
        let seconds = call.number_argument(argument)?;
        if seconds.is_nan() {
            return Err(call.argument_error(argument, "not a number of seconds"));
        }
        let moment = call.platform().now().saturating_add(nanoseconds(seconds));
        let kept = call.integer(moment.min(i64::MAX as u64) as i64)?;
        call.set(argument, kept);
    }
    Ok(call.slot(argument).as_integer().map(|moment| moment as u64))
}

pub(super) fn task_argument(call: &Call<'_>) -> Result<Gc<Task>, Throw> {
    Gc::from_value(call.get(0)).ok_or_else(|| call.type_error(0, "task"))
}

/// The running task has seen that another has ended.
fn note_end(call: &Call<'_>, task: Gc<Task>) {
    call.core
        .race_watch(|races, by| races.joined(by, task.as_ptr() as usize));
}

/// What a wait for a task's end gave.
enum Ended {
    Wait(Next),
    Yes,
    TimedOut,
}

fn wait(call: &mut Call<'_>, task: Gc<Task>) -> Result<Ended, Throw> {
    let deadline = deadline(call, 1)?;
    if task.has_ended() {
        task.observe();
        let meter = &mut call.core.meter;
        if let Some(paths) = &mut meter.paths {
            paths.joined(task, meter.executed);
        }
        note_end(call, task);
        return Ok(Ended::Yes);
    }
    if Some(task) == call.core.task {
        return Err(call.message("a task cannot wait for its own end"));
    }
    let until = match deadline {
        None => WaitFor::Task(task),
        Some(moment) if moment <= call.platform().now() => return Ok(Ended::TimedOut),
        Some(moment) => WaitFor::TaskUntil(task, moment),
    };
    Ok(Ended::Wait(Next::Wait { until, state: 1 }))
}

/// `t:join([seconds])`: the results of `t`, or its error.
fn join(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    if call.state() == 0 && call.count() == 1 && call.core.takes_to_join(task) {
        return Ok(Next::RunInPlace { task, state: 1 });
    }
    match wait(call, task)? {
        Ended::Wait(next) => return Ok(next),
        Ended::TimedOut => return Err(call.message("timed out")),
        Ended::Yes => {}
    }
    match task.state() {
        State::Done => results(call, task, 0),
        State::Failed => Err(Throw::Value(joined_error(call, task)?)),
        _ => Err(Throw::Value(call.engine().cancelled_text())),
    }
}

/// `t:pjoin([seconds])`: true and the results of `t`, or false and its error.
fn pjoin(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    let error = match wait(call, task)? {
        Ended::Wait(next) => return Ok(next),
        Ended::TimedOut => call.string(b"timed out")?,
        Ended::Yes => match task.state() {
            State::Done => {
                let next = results(call, task, 1)?;
                call.set(1, Value::TRUE);
                return Ok(match next {
                    Next::Many { count, .. } => Next::Many {
                        at: 1,
                        count: count + 1,
                    },
                    other => other,
                });
            }
            State::Failed => task.fields().result.get(),
            _ => call.engine().cancelled_text(),
        },
    };
    call.set(1, Value::FALSE);
    call.set(2, error);
    Ok(Next::Many { at: 1, count: 2 })
}

/// The error that `join` raises. A string is copied, so that it can be told from all others: if nothing catches it, the report goes on with the task's traceback.
fn joined_error(call: &mut Call<'_>, task: Gc<Task>) -> Result<Value, Throw> {
    let error = match task.fields().result.get().as_str() {
        Some(text) => Str::new(call.heap(), text.bytes())?.value(),
        None => task.fields().result.get(),
    };
    if let Some(this) = call.core.task {
        this.fields().cause.set((task.value(), error));
    }
    Ok(error)
}

/// Copies an ended task's results to slots 1 + `offset` and on.
pub(super) fn results(call: &mut Call<'_>, task: Gc<Task>, offset: usize) -> Result<Next, Throw> {
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

/// Waits for the end of a task without asking for its results.
pub(crate) fn wait_quietly(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    if task.has_ended() {
        note_end(call, task);
        return Ok(Next::Nothing);
    }
    Ok(Next::Wait {
        until: WaitFor::Task(task),
        state: 1,
    })
}

/// Whether a task has ended.
pub(crate) fn has_ended(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    if task.has_ended() {
        note_end(call, task);
    }
    Ok(Next::One(Value::boolean(task.has_ended())))
}

/// `t:cancel()`.
fn cancel(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    call.core.race_release(task.as_ptr() as usize, Part::Whole);
    call.engine().cancel_task(task);
    // A task that cancels itself ends here, unless it holds a lock or is being cancelled already.
    if Some(task) == call.core.task && call.core.cancelled_here() {
        return Err(Throw::Cancelled);
    }
    Ok(Next::Nothing)
}

/// `t:status()`.
fn status(call: &mut Call<'_>) -> Result<Next, Throw> {
    let task = task_argument(call)?;
    if task.has_ended() {
        note_end(call, task);
    }
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
