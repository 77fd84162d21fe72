//! `freeze`: makes a table, and the tables that it reaches through keys and values, immutable for good.
//!
//! Freezing is a mark in each table's header, which every store looks at. A table of one task is frozen when it is marked. In a shared one a core may be between its look
//! at the header and its store; so when all that was found is marked, the task waits for a handshake, after which no such store is under way, and looks
//! through all of it again: whatever was stored meanwhile is found now. If that finds tables that are not marked, it is done once more, until nothing is
//! new. Then everything reached is marked, and none of it has changed since it was last looked through.
//!
//! A growth that had begun goes on, since it does not change what a table holds; it is waited for before the table is looked through, and none begins in a
//! frozen table.

use crate::heap::{NeedMemory, Visit, flags};
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::object::Gc;
use crate::table::{self, Table};
use crate::task::WaitFor;
use crate::value::Value;

// Slots behind the argument: the tables found, how many, which is looked through, and from where on.
const FOUND: usize = 1;
const COUNT: usize = 2;
const AT: usize = 3;
const FROM: usize = 4;
/// How many there were when the last handshake began; -1 in the first pass.
const BEFORE: usize = 5;

const SCAN: u32 = 1;

/// `freeze(t)`: gives `t`.
fn freeze(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == 0 {
        let table = call
            .get(0)
            .as_table()
            .ok_or_else(|| call.type_error(0, "table"))?;
        let found = call.new_table(0, 0)?;
        call.set(FOUND, found.value());
        for (slot, value) in [(COUNT, 0), (AT, 1), (FROM, 1), (BEFORE, -1)] {
            call.set(slot, Value::small(value));
        }
        if table.header().has(flags::FROZEN) {
            return Ok(Next::One(table.value()));
        }
        add(call, table)?;
        call.advance(SCAN);
    }
    loop {
        let Some(found) = call.slot(FOUND).as_table() else {
            return Ok(Next::Nothing);
        };
        let (count, at) = (number(call, COUNT), number(call, AT));
        if at > count {
            let shared = (1..=count).any(|i| {
                found
                    .get_int(i)
                    .as_table()
                    .is_some_and(|table| table.is_shared())
            });
            if !shared || number(call, BEFORE) == count {
                return Ok(Next::One(call.slot(0)));
            }
            keep(call, BEFORE, count)?;
            keep(call, AT, 1)?;
            return Ok(Next::Wait {
                until: WaitFor::Passed,
                state: SCAN,
            });
        }
        if let Some(table) = found.get_int(at).as_table() {
            look_through(call, table)?;
        }
        keep(call, FROM, 1)?;
        keep(call, AT, at + 1)?;
    }
}

fn number(call: &Call<'_>, slot: usize) -> i64 {
    call.slot(slot).as_integer().unwrap_or(0)
}

fn keep(call: &mut Call<'_>, slot: usize, number: i64) -> Result<(), Throw> {
    let value = call.integer(number)?;
    call.set(slot, value);
    Ok(())
}

/// Marks a table and notes it among those found.
fn add(call: &mut Call<'_>, table: Gc<Table>) -> Result<(), Throw> {
    let count = number(call, COUNT) + 1;
    let (key, list) = (call.integer(count)?, call.slot(FOUND));
    if let Some(list) = list.as_table() {
        // The list is this task's own, so the store waits for nobody.
        call.store(list, key, table.value())?;
    }
    call.set(COUNT, key);
    table.header().set_flags(flags::FROZEN);
    Ok(())
}

/// Adds the tables to which a table refers and which are not marked.
fn look_through(call: &mut Call<'_>, table: Gc<Table>) -> Result<(), Throw> {
    loop {
        if table.header().has(flags::GROWING) {
            return Err(Throw::Wait(WaitFor::Growth(table)));
        }
        let mut next = None;
        let from = number(call, FROM) as usize;
        // Position 0 is the metatable, which stays as it is.
        let rest = table::children(table, from, &mut |value| match value.as_table() {
            Some(child) if !child.header().has(flags::FROZEN) => {
                next = Some(child);
                Visit::StopAfter
            }
            _ => Visit::On,
        });
        if let Some(child) = next {
            add(call, child)?;
        }
        match rest {
            Some(position) => keep(call, FROM, position as i64)?,
            None => return Ok(()),
        }
        if next.is_none() {
            call.poll()?;
        }
    }
}

/// Defines the function.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("freeze", freeze)
}
