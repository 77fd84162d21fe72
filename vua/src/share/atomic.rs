//! `atomic`: read-modify-writes on fields of tables, in one order that all tasks agree on. Those on arrays and structs are in [`place`](super::place).
//!
//! Metamethods are not asked. A key among the nodes of a table that is growing makes the step wait like any store.

use alloc::format;

use core::sync::atomic::{Ordering, fence};

use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::interp::throw::Leave;
use crate::library::Builder;
use crate::number::Number;
use crate::object::Gc;
use crate::race::watch::{Touch, Watched};
use crate::table::{SetError, SlotRef, Table};
use crate::task::WaitFor;
use crate::value::Value;

use super::place;

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.library(
        "atomic",
        &[
            ("add", add),
            ("band", band),
            ("bor", bor),
            ("bxor", bxor),
            ("cas", cas),
            ("exchange", exchange),
            ("load", load),
            ("max", max),
            ("min", min),
            ("store", store),
        ],
    )?;
    Ok(())
}

/// What of this accesses memory that tasks share.
pub(crate) const WATCHED: &[Watched] = &[
    (add, Touch::AtomicStore),
    (band, Touch::AtomicStore),
    (bor, Touch::AtomicStore),
    (bxor, Touch::AtomicStore),
    (cas, Touch::AtomicCas),
    (exchange, Touch::AtomicStore),
    (load, Touch::AtomicLoad),
    (max, Touch::AtomicStore),
    (min, Touch::AtomicStore),
    (store, Touch::AtomicStore),
];

/// The slot of the field that the first two arguments name, for a change; made if `insert` says so.
fn slot<'a>(call: &mut Call<'_>, insert: bool) -> Result<SlotRef<'a>, Throw> {
    let table = call.table_argument(0)?;
    let key = call.any_argument(1)?;
    slot_in(call, table, key, insert)
}

/// The slot of `table[key]`, for a change; made if `insert` says so. Argument 1 of the native is the key.
pub(super) fn slot_in<'a>(
    call: &mut Call<'_>,
    table: Gc<Table>,
    key: Value,
    insert: bool,
) -> Result<SlotRef<'a>, Throw> {
    loop {
        call.before_store(table)?;
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
                        Err(Leave::Throw(throw)) => return Err(throw),
                        Err(Leave::Exit(_)) => return Err(Throw::Cancelled),
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

/// Replaces the number in a slot by what `change` makes of it, and gives the old one. `change` may be called again.
fn modify(
    call: &mut Call<'_>,
    what: &str,
    change: impl Fn(&mut Call<'_>, Value) -> Result<Option<Value>, Throw>,
) -> Result<Next, Throw> {
    let slot = slot(call, false)?;
    let mut old = slot.load();
    loop {
        let Some(new) = change(call, old)? else {
            return Err(call.argument_error(
                1,
                format!("{what} expected in the table, got {}", call.type_name(old)),
            ));
        };
        match slot.compare_exchange(old, new) {
            Ok(()) => return Ok(Next::One(old)),
            Err(found) => old = found,
        }
    }
}

/// The sum of two numbers, as `+` gives it.
pub(super) fn sum(call: &mut Call<'_>, x: Number, y: Number) -> Result<Value, Throw> {
    match (x, y) {
        (Number::Integer(x), Number::Integer(y)) => call.integer(x.wrapping_add(y)),
        (x, y) => Ok(Value::float(x.to_float() + y.to_float())),
    }
}

/// `atomic.add(t, k, n)`: adds to a number.
fn add(call: &mut Call<'_>) -> Result<Next, Throw> {
    if place::is_memory(call) {
        return place::add(call);
    }
    let amount = call.any_number_argument(2)?;
    modify(call, "number", |call, old| match old.as_number() {
        Some(now) => sum(call, now, amount).map(Some),
        None => Ok(None),
    })
}

/// The smaller or larger of the number in the slot and the argument.
fn extreme(call: &mut Call<'_>, replaces: fn(Number, Number) -> bool) -> Result<Next, Throw> {
    if place::is_memory(call) {
        return place::extreme(call, replaces);
    }
    let amount = call.any_number_argument(2)?;
    // A string that is written as a number counts as that number; what is stored is the number.
    let value = match amount {
        Number::Integer(i) => call.integer(i)?,
        Number::Float(f) => Value::float(f),
    };
    modify(call, "number", |_, old| {
        Ok(old
            .as_number()
            .map(|now| if replaces(amount, now) { value } else { old }))
    })
}

/// `atomic.min(t, k, n)`.
fn min(call: &mut Call<'_>) -> Result<Next, Throw> {
    extreme(call, crate::number::less_than)
}

/// `atomic.max(t, k, n)`.
fn max(call: &mut Call<'_>) -> Result<Next, Throw> {
    extreme(call, |new, now| crate::number::less_than(now, new))
}

fn bitwise(call: &mut Call<'_>, operation: fn(i64, i64) -> i64) -> Result<Next, Throw> {
    if place::is_memory(call) {
        return place::bitwise(call, operation);
    }
    let operand = call.integer_argument(2)?;
    modify(call, "integer", |call, old| {
        match old.as_number().and_then(Number::to_integer) {
            Some(now) => call.integer(operation(now, operand)).map(Some),
            None => Ok(None),
        }
    })
}

/// `atomic.band(t, k, n)`.
fn band(call: &mut Call<'_>) -> Result<Next, Throw> {
    bitwise(call, |x, y| x & y)
}

/// `atomic.bor(t, k, n)`.
fn bor(call: &mut Call<'_>) -> Result<Next, Throw> {
    bitwise(call, |x, y| x | y)
}

/// `atomic.bxor(t, k, n)`.
fn bxor(call: &mut Call<'_>) -> Result<Next, Throw> {
    bitwise(call, |x, y| x ^ y)
}

/// `atomic.load(t, k)`.
fn load(call: &mut Call<'_>) -> Result<Next, Throw> {
    if place::is_memory(call) {
        return place::load(call);
    }
    let table = call.table_argument(0)?;
    let key = call.any_argument(1)?;
    // A read, so it waits for no growth; in the one order of all atomics by the fence, as each change is by itself.
    fence(Ordering::SeqCst);
    let value = table.get(key);
    if value.is_nil() {
        return Err(call.argument_error(1, "the table has no such key"));
    }
    Ok(Next::One(value))
}

/// `atomic.store(t, k, v)`.
fn store(call: &mut Call<'_>) -> Result<Next, Throw> {
    if place::is_memory(call) {
        return place::store(call);
    }
    let value = publish_for_table(call, 2)?;
    slot(call, true)?.store(value);
    Ok(Next::Nothing)
}

/// `atomic.exchange(t, k, v)`: returns what was there.
fn exchange(call: &mut Call<'_>) -> Result<Next, Throw> {
    if place::is_memory(call) {
        return place::exchange(call);
    }
    let value = publish_for_table(call, 2)?;
    Ok(Next::One(slot(call, true)?.exchange(value)))
}

/// `atomic.cas(t, k, old, new)`: whether `old` was there and `new` is now.
fn cas(call: &mut Call<'_>) -> Result<Next, Throw> {
    if place::is_memory(call) {
        return place::cas(call);
    }
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
