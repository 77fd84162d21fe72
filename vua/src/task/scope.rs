//! Scopes: groups of tasks that end with a block.
//!
//! `local s <close> = task.scope()` begins one, `s:spawn(f, …)` adds a task. Leaving the block waits for all its tasks; if the block is left by an error,
//! or cancelled, or one of the tasks fails, the tasks are cancelled first. The error of the task that was spawned earliest, of those that failed, is
//! raised where the block ends.

use super::latch::SCOPE;
use super::library::start;
use super::{Latch, WaitFor, Woken};
use crate::heap::{Kind, NeedMemory};
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::object::Gc;
use crate::race::Part;
use crate::value::Value;

/// State of what waits for a scope.
const WAITING: u32 = 1;
/// State of a scope's end whose task was cancelled meanwhile.
const UNWINDING: u32 = 2;

/// Defines the methods.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    let methods = builder.table(
        "",
        &[
            ("spawn", spawn),
            ("join", join),
            ("cancel", cancel),
            ("failed", failed),
        ],
    )?;
    let metatable = builder.set_methods(Kind::Latch, SCOPE, "scope", methods)?;
    builder.define(metatable, "", "__close", close, &[])
}

/// `task.scope()`.
pub(super) fn scope(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(Next::One(Latch::new_scope(call.heap())?.value()))
}

fn scope_argument(call: &Call<'_>) -> Result<Gc<Latch>, Throw> {
    Gc::from_value(call.get(0))
        .filter(|latch: &Gc<Latch>| latch.is_scope())
        .ok_or_else(|| call.type_error(0, "scope"))
}

/// `s:spawn(f, …)`.
fn spawn(call: &mut Call<'_>) -> Result<Next, Throw> {
    let scope = scope_argument(call)?;
    if scope.has_failed() {
        return Err(call.message("the scope has been cancelled"));
    }
    start(call, 1, Some(scope))
}

/// Adds a task as `s:spawn` does, unless the scope has failed or was cancelled, which may come at any moment: then false. What ended the scope is told by who leaves it.
pub(crate) fn spawn_unless_failed(call: &mut Call<'_>) -> Result<Next, Throw> {
    let scope = scope_argument(call)?;
    if scope.has_failed() {
        return Ok(Next::One(Value::FALSE));
    }
    start(call, 1, Some(scope))
}

/// `s:join()`: waits for all tasks of the scope, and raises the error of the earliest that failed.
fn join(call: &mut Call<'_>) -> Result<Next, Throw> {
    let scope = scope_argument(call)?;
    finish(call, scope)
}

/// The running task has seen that all tasks of a scope have ended.
fn note_end(call: &Call<'_>, scope: Gc<Latch>) {
    call.core
        .race_watch(|races, by| races.left_scope(by, scope.as_ptr() as usize));
}

/// The running task was cancelled while it waited for the scope, and goes on with the native that waits.
fn was_cancelled(call: &Call<'_>) -> bool {
    call.state() == WAITING && call.core.woken == Woken::Cancel
}

fn finish(call: &Call<'_>, scope: Gc<Latch>) -> Result<Next, Throw> {
    if was_cancelled(call) {
        return Err(Throw::Cancelled);
    }
    if !scope.is_done() {
        return Ok(Next::Wait {
            until: WaitFor::Latch(scope),
            state: WAITING,
        });
    }
    scope.observe();
    note_end(call, scope);
    match scope.error() {
        Some(error) if !error.is_nil() => Err(Throw::Value(error)),
        _ => Ok(Next::Nothing),
    }
}

/// `s:cancel()`: cancels all tasks of the scope.
fn cancel(call: &mut Call<'_>) -> Result<Next, Throw> {
    let scope = scope_argument(call)?;
    call.core.race_release(scope.as_ptr() as usize, Part::Whole);
    scope.cancel(call.engine());
    Ok(Next::Nothing)
}

/// `s:failed()`: whether a task of the scope has failed, or the scope was cancelled.
fn failed(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(Next::One(Value::boolean(
        scope_argument(call)?.has_failed(),
    )))
}

/// The end of the block; the second argument is the error by which it is left.
///
/// If the task is cancelled while it waits here, so are those of the scope, and it goes on unwinding when they have ended: nothing would close the scope again.
fn close(call: &mut Call<'_>) -> Result<Next, Throw> {
    let scope = scope_argument(call)?;
    let cancelled = was_cancelled(call);
    if cancelled {
        call.core.race_release(scope.as_ptr() as usize, Part::Whole);
        scope.cancel(call.engine());
    }
    if cancelled || call.state() == UNWINDING {
        if !scope.is_done() {
            return Ok(Next::Wait {
                until: WaitFor::Latch(scope),
                state: UNWINDING,
            });
        }
        scope.observe();
        note_end(call, scope);
        return Err(Throw::Cancelled);
    }
    if call.state() == 0 {
        if call.get(1).is_nil() {
            call.set(1, Value::NIL);
        } else {
            call.core.race_release(scope.as_ptr() as usize, Part::Whole);
            scope.cancel(call.engine());
        }
    }
    if call.slot(1).is_nil() {
        return finish(call, scope);
    }
    if !scope.is_done() {
        return Ok(Next::Wait {
            until: WaitFor::Latch(scope),
            state: WAITING,
        });
    }
    // The error that left the block goes on; those of its tasks were its consequence, or came too late.
    scope.observe();
    note_end(call, scope);
    Ok(Next::Nothing)
}
