//! The table library (reference manual, 6.6). Everything honours metamethods; tables without them take no call.

use super::Builder;
use super::access::{Compared, Fetched, Pace, STEPS, has_room};
use super::base::append;
use super::buffer::Buffer;
use crate::heap::{NeedMemory, flags};
use crate::interp::native::{Call, Next, Throw};
use crate::memory::Array;
use crate::object::Gc;
use crate::race::watch::{Touch, Watched};
use crate::table::Table;
use crate::value::{Tag, Value};

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.library(
        "table",
        &[
            ("concat", concat),
            ("insert", insert),
            ("move", move_),
            ("pack", pack),
            ("remove", remove),
            ("sort", super::sort::sort),
            ("unpack", unpack),
        ],
    )?;
    Ok(())
}

/// What of this accesses memory that tasks share.
pub(crate) const WATCHED: &[Watched] = &[
    (concat, Touch::Elements(2, 3)),
    (insert, Touch::Insert),
    (move_, Touch::Move),
    (remove, Touch::Remove),
    (super::sort::sort, Touch::Sort),
    (unpack, Touch::Elements(1, 2)),
];

/// The most results that `unpack` gives: what a stack holds.
const MAX_RESULTS: u64 = 1_000_000;

/// Refuses what is neither a table nor has these metamethods.
pub(crate) fn check(call: &Call<'_>, i: usize, metamethods: &[&str]) -> Result<(), Throw> {
    let value = call.get(i);
    if value.as_table().is_some()
        || Gc::<Array>::from_value(value).is_some()
        || (call.metatable(value).is_some()
            && metamethods
                .iter()
                .all(|name| !call.metamethod(value, name).is_nil()))
    {
        return Ok(());
    }
    Err(call.type_error(i, "table"))
}

/// The table that argument `i` is, if no metamethod can have a say in reading, writing and measuring it.
pub(super) fn plain(call: &Call<'_>, i: usize) -> Option<Gc<Table>> {
    call.get(i)
        .as_table()
        .filter(|table| !table.header().has(flags::METATABLE))
}

/// An integer that a native keeps in a slot.
pub(super) fn kept(call: &Call<'_>, slot: usize) -> i64 {
    call.slot(slot).as_integer().unwrap_or(0)
}

/// Keeps an integer in a slot.
pub(super) fn keep(call: &mut Call<'_>, slot: usize, i: i64) -> Result<(), Throw> {
    let value = call.integer(i)?;
    call.set(slot, value);
    Ok(())
}

/// The length, in state 0 or in `state` after its metamethod was called at `at`.
macro_rules! length {
    ($call:expr, $state:expr, $at:expr) => {{
        let value = if $call.state() == 0 {
            let object = $call.get(0);
            match $call.measure(object, $at, $state)? {
                Fetched::Value(value) => value,
                Fetched::Call(next) => return Ok(next),
            }
        } else {
            $call.result($at)
        };
        $call.length_of(value)?
    }};
}
pub(super) use length;

// `insert(list, [pos,] value)`: slots behind the arguments.
const INDEX: usize = 3;
const MOVING: usize = 4;
const CALLEE: usize = 5;

/// States of `insert` and `remove`.
const MEASURED: u32 = 1;
const FETCHING: u32 = 2;
const FETCHED: u32 = 3;
const ASSIGNING: u32 = 4;
const ASSIGNED: u32 = 5;
const LAST: u32 = 6;
const ENDED: u32 = 7;
const REMOVED: u32 = 8;

pub(crate) fn insert(call: &mut Call<'_>) -> Result<Next, Throw> {
    let count = call.count();
    if call.state() == 0 {
        check(call, 0, &["__index", "__newindex", "__len"])?;
        if count == 2
            && let Some(table) = plain(call, 0)
        {
            call.append(table, call.get(1))?;
            return Ok(Next::Nothing);
        }
    }
    if call.state() <= MEASURED {
        let end = length!(call, MEASURED, CALLEE).wrapping_add(1);
        match count {
            2 => {
                let (value, position) = (call.get(1), call.integer(end)?);
                call.set(1, position);
                call.set(2, value);
            }
            3 => {
                let position = call.integer_argument(1)?;
                if (position as u64).wrapping_sub(1) >= end as u64 {
                    return Err(call.argument_error(1, "position out of bounds"));
                }
                keep(call, 1, position)?;
            }
            _ => return Err(call.message("wrong number of arguments to 'insert'")),
        }
        keep(call, INDEX, end)?;
        call.advance(FETCHING);
    }
    if call.state() < LAST
        && let Some(next) = shift(call, -1, kept(call, 1))?
    {
        return Ok(next);
    }
    if call.state() == LAST {
        let (object, key, value) = (call.slot(0), call.slot(1), call.slot(2));
        if let Some(next) = call.assign(object, key, value, CALLEE, ENDED)? {
            return Ok(next);
        }
    }
    Ok(Next::Nothing)
}

/// Moves elements by one place: from index `INDEX` on, each gets the value of its neighbour on the side that `by` says, 1 or -1, until
/// the index is `end` or beyond. Then the state is `LAST`; before, there may be a call to make.
fn shift(call: &mut Call<'_>, by: i64, end: i64) -> Result<Option<Next>, Throw> {
    let object = call.slot(0);
    let mut i = kept(call, INDEX);
    let mut state = call.state();
    let mut pace = Pace::default();
    loop {
        match state {
            FETCHING if if by > 0 { i >= end } else { i <= end } => {
                call.advance(LAST);
                return Ok(None);
            }
            FETCHING => {
                let moved = if by > 0 {
                    move_plain(object, object, i + 1, i, end - i, 0)
                } else {
                    move_plain(object, object, end, end + 1, end - i, 0)
                };
                if moved > 0 {
                    i += by * moved;
                    keep(call, INDEX, i)?;
                    call.poll()?;
                    continue;
                }
                let key = call.integer(i + by)?;
                match call.fetch(object, key, CALLEE, FETCHED)? {
                    Fetched::Value(value) => call.set(MOVING, value),
                    Fetched::Call(next) => return Ok(Some(next)),
                }
                state = ASSIGNING;
                call.advance(ASSIGNING);
            }
            FETCHED => {
                call.set(MOVING, call.result(CALLEE));
                state = ASSIGNING;
                call.advance(ASSIGNING);
            }
            ASSIGNING => {
                let (key, value) = (call.integer(i)?, call.slot(MOVING));
                if let Some(next) = call.assign(object, key, value, CALLEE, ASSIGNED)? {
                    return Ok(Some(next));
                }
                state = ASSIGNED;
            }
            // `ASSIGNED`
            _ => {
                i += by;
                keep(call, INDEX, i)?;
                call.advance(FETCHING);
                state = FETCHING;
                pace.step(call)?;
            }
        }
    }
}

pub(crate) fn remove(call: &mut Call<'_>) -> Result<Next, Throw> {
    // Slots: 1 the length, 2 the result, INDEX the position, MOVING a value.
    if call.state() == 0 {
        check(call, 0, &["__index", "__newindex", "__len"])?;
        if call.count() == 1
            && let Some(table) = plain(call, 0)
        {
            call.before_store(table)?;
            return match table.remove_whole() {
                Ok(value) => Ok(Next::One(value)),
                Err(error) => Err(call.store_error(table, error)),
            };
        }
        call.settle(2);
    }
    if call.state() <= MEASURED {
        let size = length!(call, MEASURED, CALLEE);
        let given = call.slot(1);
        let position = if given.is_nil() {
            size
        } else {
            call.integer_argument(1)?
        };
        // Valid are 1 to one more than the length, and the length itself even if it is 0.
        if position != size && (position as u64).wrapping_sub(1) > size as u64 {
            return Err(call.argument_error(0, "position out of bounds"));
        }
        keep(call, 1, size)?;
        keep(call, INDEX, position)?;
        call.set(2, Value::NIL);
        let (object, key) = (call.slot(0), call.slot(INDEX));
        match call.fetch(object, key, CALLEE, ENDED)? {
            Fetched::Value(value) => call.set(2, value),
            Fetched::Call(next) => return Ok(next),
        }
        call.advance(FETCHING);
    } else if call.state() == ENDED {
        // The element to remove came from a metamethod.
        call.set(2, call.result(CALLEE));
        call.advance(FETCHING);
    }
    if call.state() < LAST
        && let Some(next) = shift(call, 1, kept(call, 1))?
    {
        return Ok(next);
    }
    if call.state() == LAST {
        let (object, key) = (call.slot(0), call.slot(INDEX));
        if let Some(next) = call.assign(object, key, Value::NIL, CALLEE, REMOVED)? {
            return Ok(next);
        }
    }
    Ok(Next::One(call.slot(2)))
}

/// `move(a1, f, e, t [, a2])`: slots 0 to 4 are the arguments, converted.
fn move_(call: &mut Call<'_>) -> Result<Next, Throw> {
    const STEP: usize = 5;
    const MOVING: usize = 6;
    const CALLEE: usize = 7;
    if call.state() == 0 {
        call.settle(5);
        let (first, end, to) = (
            call.integer_argument(1)?,
            call.integer_argument(2)?,
            call.integer_argument(3)?,
        );
        let target = if call.get(4).is_nil() { 0 } else { 4 };
        check(call, 0, &["__index"])?;
        check(call, target, &["__newindex"])?;
        let object = call.get(target);
        if end < first {
            return Ok(Next::One(object));
        }
        if first <= 0 && end >= i64::MAX.wrapping_add(first) {
            return Err(call.argument_error(2, "too many elements to move"));
        }
        let count = end - first + 1;
        if to > i64::MAX - count + 1 {
            return Err(call.argument_error(3, "destination wrap around"));
        }
        // Downwards only where the ranges overlap and the elements move up within one table.
        let upwards = to > end || to <= first || !call.get(0).raw_equal(object);
        call.set(4, object);
        keep(call, 1, first)?;
        keep(call, 2, if upwards { count } else { -count })?;
        keep(call, 3, to)?;
        keep(call, STEP, 0)?;
        call.advance(FETCHING);
    }
    let (from, object) = (call.slot(0), call.slot(4));
    let (first, to) = (kept(call, 1), kept(call, 3));
    let count = kept(call, 2);
    let mut done = kept(call, STEP);
    let mut state = call.state();
    let mut pace = Pace::default();
    loop {
        let i = if count > 0 { done } else { -count - 1 - done };
        match state {
            FETCHING if done == count.abs() => return Ok(Next::One(object)),
            FETCHING => {
                let moved = move_plain(from, object, first, to, count, done);
                if moved > 0 {
                    done += moved;
                    keep(call, STEP, done)?;
                    // A batch counts for as many steps as elements were moved; the next one begins with a full pace.
                    call.poll()?;
                    continue;
                }
                let key = call.integer(first + i)?;
                match call.fetch(from, key, CALLEE, FETCHED)? {
                    Fetched::Value(value) => call.set(MOVING, value),
                    Fetched::Call(next) => return Ok(next),
                }
                state = ASSIGNING;
                call.advance(ASSIGNING);
            }
            FETCHED => {
                call.set(MOVING, call.result(CALLEE));
                state = ASSIGNING;
                call.advance(ASSIGNING);
            }
            ASSIGNING => {
                let (key, value) = (call.integer(to + i)?, call.slot(MOVING));
                if let Some(next) = call.assign(object, key, value, CALLEE, ASSIGNED)? {
                    return Ok(next);
                }
                state = ASSIGNED;
            }
            _ => {
                done += 1;
                keep(call, STEP, done)?;
                call.advance(FETCHING);
                state = FETCHING;
                pace.step(call)?;
            }
        }
    }
}

/// Moves elements between two tables without metatables, as long as all that has to be done for each is to copy a word, and at most as many as
/// may be between two safepoints: `count` of them, upwards or, if that is negative, downwards, without the first `done`. How many were moved.
fn move_plain(from: Value, object: Value, first: i64, to: i64, count: i64, done: i64) -> i64 {
    let (Some(source), Some(target)) = (from.as_table(), object.as_table()) else {
        return 0;
    };
    // What has no flag is nobody else's, not frozen, and not to be logged.
    if source.header().has(flags::METATABLE) || target.header().flags() != 0 {
        return 0;
    }
    let end = count.abs().min(done.saturating_add(STEPS as i64));
    let mut at = done;
    while at < end {
        let i = if count > 0 { at } else { -count - 1 - at };
        if !target.set_dense(to + i, source.get_int(first + i)) {
            break;
        }
        at += 1;
    }
    at - done
}

/// `concat(list [, sep [, i [, j]]])`. A list with an `__index` is first copied, in states from [`FETCHING`] on, to a plain table in slot `COPY`.
fn concat(call: &mut Call<'_>) -> Result<Next, Throw> {
    const COPY: usize = 4;
    const NEXT: usize = 5;
    const CALLEE: usize = 6;
    if call.state() <= MEASURED {
        if call.state() == 0 {
            check(call, 0, &["__index", "__len"])?;
            call.settle(4);
        }
        let size = length!(call, MEASURED, CALLEE);
        if !call.slot(1).is_nil() {
            call.bytes_argument(1)?;
        }
        let first = if call.slot(2).is_nil() {
            1
        } else {
            call.integer_argument(2)?
        };
        let last = if call.slot(3).is_nil() {
            size
        } else {
            call.integer_argument(3)?
        };
        keep(call, 2, first)?;
        keep(call, 3, last)?;
        if plain(call, 0).is_some() {
            call.set(COPY, call.slot(0));
            call.advance(ENDED);
        } else {
            let copy = call.new_table(0, 0)?;
            call.set(COPY, copy.value());
            keep(call, NEXT, first)?;
            call.advance(FETCHING);
        }
    }
    let (first, last) = (kept(call, 2), kept(call, 3));
    let Some(list) = call.slot(COPY).as_table() else {
        return Ok(Next::Nothing);
    };
    let mut pace = Pace::default();
    if call.state() != ENDED {
        let mut i = kept(call, NEXT);
        let mut fetched = (call.state() == FETCHED).then(|| call.result(CALLEE));
        while i <= last {
            let key = call.integer(i)?;
            let value = match fetched.take() {
                Some(value) => value,
                None => {
                    let object = call.slot(0);
                    match call.fetch(object, key, CALLEE, FETCHED)? {
                        Fetched::Value(value) => value,
                        Fetched::Call(next) => return Ok(next),
                    }
                }
            };
            call.store(list, key, value)?;
            if i == last {
                break;
            }
            i += 1;
            keep(call, NEXT, i)?;
            call.advance(FETCHING);
            pace.step(call)?;
        }
        call.advance(ENDED);
    }
    let separator = call.slot(1).as_str().map_or(&b""[..], |s| s.bytes());
    let mut buffer = Buffer::new();
    let mut i = first;
    while i <= last {
        let value = list.get_int(i);
        if value.as_str().is_none() && !value.is_number() {
            return Err(call.message(format_args!(
                "invalid value ({}) at index {i} in table for 'concat'",
                call.type_name(value)
            )));
        }
        // In the frame, for others may change the list while a long string is copied.
        call.set(CALLEE, value);
        append(call, &mut buffer, value)?;
        if i == last {
            break;
        }
        buffer.extend(call, separator)?;
        i += 1;
        pace.step(call)?;
    }
    Ok(Next::One(buffer.into_string(call, CALLEE)?))
}

fn pack(call: &mut Call<'_>) -> Result<Next, Throw> {
    let count = call.count();
    let table = call.new_table(count.min(1024), 1)?;
    call.room(count + 1)?;
    call.set(count, table.value());
    let mut pace = Pace::default();
    for i in 0..count {
        call.store(table, Value::small(i as i32 + 1), call.slot(i))?;
        pace.step(call)?;
    }
    table.filled(count);
    let size = call.integer(count as i64)?;
    call.set_field(table, "n", size)?;
    Ok(Next::One(table.value()))
}

fn unpack(call: &mut Call<'_>) -> Result<Next, Throw> {
    const NEXT: usize = 3;
    const FIRST: usize = 4;
    if call.state() <= MEASURED {
        call.settle(3);
        let first = if call.slot(1).is_nil() {
            1
        } else {
            call.integer_argument(1)?
        };
        let last = if call.slot(2).is_nil() {
            length!(call, MEASURED, FIRST)
        } else {
            call.integer_argument(2)?
        };
        if first > last {
            return Ok(Next::Nothing);
        }
        let count = last.wrapping_sub(first) as u64;
        if count >= MAX_RESULTS || !has_room(call, FIRST + count as usize + 8)? {
            return Err(call.message("too many results to unpack"));
        }
        keep(call, 1, first)?;
        keep(call, 2, last)?;
        keep(call, NEXT, first)?;
        call.advance(FETCHING);
    }
    let object = call.slot(0);
    let (first, last) = (kept(call, 1), kept(call, 2));
    let mut i = kept(call, NEXT);
    let callee = FIRST + last.wrapping_sub(first) as usize + 1;
    call.room(callee + 8)?;
    let mut fetched = (call.state() == FETCHED).then(|| call.result(callee));
    let mut pace = Pace::default();
    loop {
        let value = match fetched.take() {
            Some(value) => value,
            None => {
                let key = call.integer(i)?;
                keep(call, NEXT, i)?;
                match call.fetch(object, key, callee, FETCHED)? {
                    Fetched::Value(value) => value,
                    Fetched::Call(next) => return Ok(next),
                }
            }
        };
        call.set(FIRST + i.wrapping_sub(first) as usize, value);
        if i == last {
            return Ok(Next::Many {
                at: FIRST,
                count: callee - FIRST,
            });
        }
        i += 1;
        pace.step(call)?;
    }
}

/// Whether a value can be called by `sort`.
pub(super) fn is_function(value: Value) -> bool {
    value.has_tag(Tag::Function)
}

/// `a < b`, by a function if there is one.
pub(super) fn compare(
    call: &mut Call<'_>,
    function: Value,
    a: Value,
    b: Value,
    at: usize,
    state: u32,
) -> Result<Compared, Throw> {
    if function.is_nil() {
        call.less(a, b, at, state)
    } else {
        Ok(Compared::Call(call.prepare(at, function, &[a, b], state)))
    }
}
