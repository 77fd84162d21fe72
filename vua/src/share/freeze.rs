//! `freeze`: makes a table, an array or a struct, and those that it reaches through keys, values and `ref`s, immutable for good.
//!
//! Freezing is a mark in each object's header, which every store looks at. Of slices, views and references to structs it is the object that owns the memory that is
//! marked: a store through any of them looks at that one too, so what others see of the memory never changes either. An object of one task is frozen
//! when it is marked. In a shared one a core may be between its look
//! at the header and its store; so when all that was found is marked, the task waits for a handshake, after which no such store is under way, and looks
//! through all of it again: whatever was stored meanwhile is found now. If that finds objects that are not marked, it is done once more, until nothing is
//! new. Then everything reached is marked, and none of it has changed since it was last looked through.
//!
//! *Done* is a mark of its own, which all that was found gets at the end: that an object is frozen does not say that what it refers to is, for another task may be
//! in the middle of freezing it, or may have been cancelled there. So whatever is frozen and not done is looked through again, by each task that comes to it.
//!
//! A growth that had begun goes on, since it does not change what a table holds; it is waited for before the table is looked through, and none begins in a
//! frozen table.

use core::ptr::NonNull;

use crate::heap::{Header, NeedMemory, Visit, flags};
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::memory::{Array, Struct, object};
use crate::object::Gc;
use crate::table;
use crate::task::WaitFor;
use crate::value::{Tag, Value};

// Slots behind the argument: the objects found, in order, and for each the negative of its address as a key; how many, which is looked through, and from where on.
const FOUND: usize = 1;
const COUNT: usize = 2;
const AT: usize = 3;
const FROM: usize = 4;
/// How many there were when the last handshake began; -1 in the first pass.
const BEFORE: usize = 5;

const SCAN: u32 = 1;
const FINISH: u32 = 2;

/// How many objects are marked as done between two polls.
const FINISHED_AT_ONCE: i64 = 4095;

/// How many references of an array or struct are looked at between two polls.
const SLICE: usize = 2048;

/// The object to mark so that what `value` refers to is frozen; `None` if it is nothing that can be.
fn owner(value: Value) -> Option<Value> {
    if value.as_table().is_some() {
        return Some(value);
    }
    let root = match (
        Gc::<Array>::from_value(value),
        Gc::<Struct>::from_value(value),
    ) {
        (Some(array), _) => array.root(),
        (_, Some(it)) => it.root(),
        _ => return None,
    };
    // SAFETY: a root is an array or a struct, and lives as long as what refers to its memory.
    Some(unsafe { Value::reference(Tag::Struct, root) })
}

/// The header of a table, array or struct. The value lies in the native's frame, is reached from there, and lives.
fn header<'a>(object: Value) -> Option<&'a Header> {
    // SAFETY: as above.
    object.object().map(|header| unsafe { &*header.as_ptr() })
}

fn is_marked(object: Value, flag: u8) -> bool {
    header(object).is_some_and(|header| header.has(flag))
}

/// `freeze(t)`: gives `t`.
fn freeze(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == 0 {
        let object =
            owner(call.get(0)).ok_or_else(|| call.type_error(0, "table, array or struct"))?;
        let found = call.new_table(0, 0)?;
        call.set(FOUND, found.value());
        for (slot, value) in [(COUNT, 0), (AT, 1), (FROM, 1), (BEFORE, -1)] {
            call.set(slot, Value::small(value));
        }
        if is_marked(object, flags::DEEP) {
            return Ok(Next::One(call.slot(0)));
        }
        add(call, object)?;
        call.advance(SCAN);
    }
    loop {
        let Some(found) = call.slot(FOUND).as_table() else {
            return Ok(Next::Nothing);
        };
        let (count, at) = (number(call, COUNT), number(call, AT));
        if call.state() == FINISH {
            let to = count.min(at + FINISHED_AT_ONCE);
            for header in (at..=to).filter_map(|i| header(found.get_int(i))) {
                header.set_flags(flags::DEEP);
            }
            if to == count {
                return Ok(Next::One(call.slot(0)));
            }
            keep(call, AT, to + 1)?;
            call.poll()?;
            continue;
        }
        if at > count {
            let shared = (1..=count).any(|i| is_marked(found.get_int(i), flags::SHARED));
            if !shared || number(call, BEFORE) == count {
                // Whoever reads it from now on finds what will never change.
                call.core.race_watch(|races, _| {
                    for object in (1..=count).filter_map(|i| found.get_int(i).object()) {
                        races.forget(object.as_ptr() as usize);
                    }
                });
                keep(call, AT, 1)?;
                call.advance(FINISH);
                continue;
            }
            keep(call, BEFORE, count)?;
            keep(call, AT, 1)?;
            return Ok(Next::Wait {
                until: WaitFor::Passed,
                state: SCAN,
            });
        }
        look_through(call, found.get_int(at))?;
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

/// The key under which an object that was found is known.
fn key(object: Value) -> Option<Value> {
    Value::inline_integer(-(object.object()?.as_ptr() as i64))
}

/// Marks an object and notes it among those found.
fn add(call: &mut Call<'_>, object: Value) -> Result<(), Throw> {
    let count = number(call, COUNT) + 1;
    let place = call.integer(count)?;
    if let (Some(list), Some(key)) = (call.slot(FOUND).as_table(), key(object)) {
        // The list is this task's own, so the stores wait for nobody. The first is made again if there is no memory for the second.
        call.store(list, place, object)?;
        call.store(list, key, place)?;
    }
    call.set(COUNT, place);
    if let Some(header) = header(object) {
        header.set_flags(flags::FROZEN);
    }
    Ok(())
}

/// Visits what an object refers to from a position on, as [`table::children`] does.
fn children(object: Value, from: usize, visit: &mut impl FnMut(Value) -> Visit) -> Option<usize> {
    if let Some(table) = object.as_table() {
        return table::children(table, from, visit);
    }
    let header: NonNull<Header> = object.object()?;
    let mut seen = 0;
    // SAFETY: the object lives, and is an array or a struct. Others that still store into it do so as one, and memory that they release stays
    // until the next safepoint.
    unsafe {
        object::children(header, from, &mut |value| {
            seen += 1;
            match visit(value) {
                Visit::On if seen >= SLICE => Visit::StopAfter,
                next => next,
            }
        })
    }
}

/// Adds the objects to which one refers and which are not marked.
fn look_through(call: &mut Call<'_>, object: Value) -> Result<(), Throw> {
    loop {
        if let Some(table) = object.as_table()
            && table.header().has(flags::GROWING)
        {
            return Err(Throw::Wait(WaitFor::Growth(table)));
        }
        let mut next = None;
        let from = number(call, FROM) as usize;
        let list = call.slot(FOUND).as_table();
        let is_found = |child| {
            let known = list.zip(key(child)).map(|(list, key)| list.get(key));
            known.is_some_and(|place| !place.is_nil())
        };
        // Position 0 is the metatable, or the type, which stays as it is.
        let rest = children(object, from, &mut |value| match owner(value) {
            Some(child)
                if !is_marked(child, flags::FROZEN)
                    || !is_marked(child, flags::DEEP) && !is_found(child) =>
            {
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
