//! The coroutine library (reference manual, 6.2). How one stack gives way to another is in [`crate::task::coroutine`].

use super::Builder;
use super::buffer::Buffer;
use super::table::is_function;
use crate::heap::{NeedMemory, barrier, flags};
use crate::interp::native::{Call, Next, Throw};
use crate::object::Gc;
use crate::task::Coroutine;
use crate::task::coroutine::{Outcome, Status};
use crate::value::Value;

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.library(
        "coroutine",
        &[
            ("close", close),
            ("create", create),
            ("isyieldable", is_yieldable),
            ("resume", resume),
            ("running", running),
            ("status", status),
            ("wrap", wrap),
            ("yield", give_back),
        ],
    )?;
    Ok(())
}

fn coroutine_argument(call: &Call<'_>, i: usize) -> Result<Gc<Coroutine>, Throw> {
    Gc::from_value(call.get(i)).ok_or_else(|| call.type_error(i, "thread"))
}

/// What a coroutine is doing, as this task sees it.
fn status_of(call: &Call<'_>, coroutine: Gc<Coroutine>) -> Status {
    let status = coroutine.status();
    if !matches!(status, Status::Running | Status::Normal) {
        return status;
    }
    let this = call.core.task.map_or(core::ptr::null_mut(), Gc::as_ptr);
    if coroutine.task() != this {
        // In whatever part it plays there, it runs.
        return Status::Running;
    }
    // A main coroutine is not told when it is no longer the one that runs.
    match call.core.coroutine() {
        Some(current) if current != coroutine => Status::Normal,
        None | Some(_) => Status::Running,
    }
}

fn create(call: &mut Call<'_>) -> Result<Next, Throw> {
    let function = call.get(0);
    if !is_function(function) {
        return Err(call.type_error(0, "function"));
    }
    Ok(Next::One(Coroutine::create(call.core, function)?.value()))
}

/// `coroutine.wrap(f)`: a function that resumes its capture.
fn wrap(call: &mut Call<'_>) -> Result<Next, Throw> {
    let function = call.get(0);
    if !is_function(function) {
        return Err(call.type_error(0, "function"));
    }
    let coroutine = Coroutine::create(call.core, function)?;
    Ok(Next::One(call.native(
        "wrap",
        resume_wrapped,
        &[coroutine.value()],
    )?))
}

/// Takes a coroutine and gives it the arguments from `first` on. An error leaves it as it was; `Err(Ok)` is a refusal.
fn begin(
    call: &mut Call<'_>,
    coroutine: Gc<Coroutine>,
    first: usize,
) -> Result<Result<(), &'static str>, Throw> {
    if !call.core.may_nest() {
        return Ok(Err("C stack overflow"));
    }
    if !coroutine.take(Status::Suspended) {
        return Ok(Err(match coroutine.status() {
            Status::Dead => "cannot resume dead coroutine",
            _ => "cannot resume non-suspended coroutine",
        }));
    }
    let count = call.count().saturating_sub(first);
    let mut prepare = || {
        if coroutine.header().has(flags::SHARED) {
            for i in 0..count {
                call.publish(call.slot(first + i))?;
            }
        }
        coroutine.reserve(call.core, count)
    };
    if let Err(throw) = prepare() {
        coroutine.put_back(Status::Suspended);
        return Err(throw);
    }
    before_change(call, coroutine);
    coroutine.hand_over(count, |i| call.slot(first + i));
    Ok(Ok(()))
}

/// What the collector asks before a coroutine's stack changes.
fn before_change(call: &Call<'_>, coroutine: Gc<Coroutine>) {
    if coroutine.header().has(flags::LOG) {
        // SAFETY: the coroutine lives: it is in the frame.
        unsafe { barrier::before_store(coroutine.header_ptr(), &call.core.heap) };
    }
}

/// Copies what a coroutine gave, to slots `at..`, and releases it.
fn end(call: &mut Call<'_>, coroutine: Gc<Coroutine>, at: usize) -> Result<usize, Throw> {
    let count = if coroutine.outcome() == Outcome::Failed {
        1
    } else {
        coroutine.count()
    };
    call.room(at + count)?;
    coroutine.publish_stack(call.core)?;
    if coroutine.outcome() == Outcome::Failed {
        call.set(at, coroutine.error());
    } else {
        for i in 0..count {
            call.set(at + i, coroutine.given(i));
        }
    }
    coroutine.release(call.core);
    Ok(count)
}

/// `coroutine.resume(co, …)`.
fn resume(call: &mut Call<'_>) -> Result<Next, Throw> {
    let coroutine = coroutine_argument(call, 0)?;
    if call.state() == 0 {
        return match begin(call, coroutine, 1)? {
            Ok(()) => Ok(Next::Resume {
                coroutine,
                state: 1,
            }),
            Err(message) => {
                let message = call.string(message.as_bytes())?;
                call.set(0, Value::FALSE);
                call.set(1, message);
                Ok(Next::Many { at: 0, count: 2 })
            }
        };
    }
    let count = end(call, coroutine, 1)?;
    let fine = coroutine.outcome() != Outcome::Failed;
    call.set(0, Value::boolean(fine));
    Ok(Next::Many {
        at: 0,
        count: count + 1,
    })
}

// States of a wrapped coroutine's function: it has given control back; its variables have been closed after an error.
const BACK: u32 = 1;
const CLOSED: u32 = 2;

/// What `coroutine.wrap` gives.
fn resume_wrapped(call: &mut Call<'_>) -> Result<Next, Throw> {
    let Some(coroutine) = Gc::<Coroutine>::from_value(call.capture(0)) else {
        return Ok(Next::Nothing);
    };
    match call.state() {
        0 => match begin(call, coroutine, 0)? {
            Ok(()) => Ok(Next::Resume {
                coroutine,
                state: BACK,
            }),
            Err(message) => Err(call.message(message)),
        },
        BACK if coroutine.outcome() == Outcome::Failed && coroutine.has_closing() => {
            Ok(Next::Shut {
                coroutine,
                state: CLOSED,
            })
        }
        _ => {
            let count = end(call, coroutine, 0)?;
            if coroutine.outcome() != Outcome::Failed {
                return Ok(Next::Many { at: 0, count });
            }
            let error = call.slot(0);
            Err(Throw::Value(with_position(call, error)?))
        }
    }
}

/// An error that passes on through a wrapped coroutine: a text gets the position of the caller in front.
fn with_position(call: &mut Call<'_>, error: Value) -> Result<Value, Throw> {
    let Some(message) = error.as_str() else {
        return Ok(error);
    };
    let position = call.position(1);
    let mut buffer = Buffer::new();
    buffer.extend(call, position.as_bytes())?;
    buffer.extend(call, message.bytes())?;
    buffer.into_string(call, 1)
}

/// `coroutine.yield(…)`.
fn give_back(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() != 0 {
        return Ok(Next::Many {
            at: 0,
            count: call.results(),
        });
    }
    let Some(coroutine) = call.core.coroutine() else {
        return Err(call.message("attempt to yield from outside a coroutine"));
    };
    if coroutine.is_closing() {
        return Err(call.message("attempt to yield across a C-call boundary"));
    }
    if call.core.is_in_parallel_loop() {
        return Err(call.message("attempt to yield out of a parallel loop"));
    }
    Ok(Next::Yield { state: 1 })
}

/// `coroutine.close(co)`.
fn close(call: &mut Call<'_>) -> Result<Next, Throw> {
    let coroutine = coroutine_argument(call, 0)?;
    if call.state() == 0 {
        if !call.core.may_nest() {
            return Err(call.message("C stack overflow"));
        }
        let taken = [Status::Suspended, Status::Dead]
            .into_iter()
            .any(|status| coroutine.take(status));
        if !taken {
            let status = match status_of(call, coroutine) {
                Status::Normal => "normal",
                _ => "running",
            };
            return Err(call.message(format_args!("cannot close a {status} coroutine")));
        }
        before_change(call, coroutine);
        if coroutine.has_closing() {
            return Ok(Next::Shut {
                coroutine,
                state: 1,
            });
        }
        if coroutine.outcome() != Outcome::Failed {
            coroutine.clear_error();
        }
    }
    call.advance(1);
    let failed = coroutine.outcome() == Outcome::Failed;
    let error = coroutine.error();
    if failed {
        if coroutine.header().has(flags::SHARED) {
            call.publish(error)?;
        }
        coroutine.clear_error();
    }
    coroutine.drop_stack(call.core);
    coroutine.release(call.core);
    call.set(0, Value::boolean(!failed));
    call.set(1, error);
    Ok(Next::Many {
        at: 0,
        count: if failed { 2 } else { 1 },
    })
}

fn status(call: &mut Call<'_>) -> Result<Next, Throw> {
    let coroutine = coroutine_argument(call, 0)?;
    let text: &[u8] = match status_of(call, coroutine) {
        Status::Suspended => b"suspended",
        Status::Running => b"running",
        Status::Normal => b"normal",
        Status::Dead => b"dead",
    };
    Ok(Next::One(call.string(text)?))
}

/// `coroutine.running()`: the running coroutine, and whether it is its task's main one.
fn running(call: &mut Call<'_>) -> Result<Next, Throw> {
    let current = call.core.coroutine();
    let value = match current {
        Some(coroutine) => coroutine.value(),
        None => call
            .core
            .main_coroutine()?
            .map_or(Value::NIL, |main| main.value()),
    };
    call.set(0, value);
    call.set(1, Value::boolean(current.is_none()));
    Ok(Next::Many { at: 0, count: 2 })
}

/// `coroutine.isyieldable([co])`: any coroutine but a main one can yield, unless it is being closed.
fn is_yieldable(call: &mut Call<'_>) -> Result<Next, Throw> {
    let coroutine = if call.count() > 0 && Gc::<Coroutine>::from_value(call.get(0)).is_some() {
        Some(coroutine_argument(call, 0)?)
    } else {
        call.core.coroutine()
    };
    let yieldable =
        coroutine.is_some_and(|coroutine| !coroutine.is_main() && !coroutine.is_closing());
    Ok(Next::One(Value::boolean(yieldable)))
}
