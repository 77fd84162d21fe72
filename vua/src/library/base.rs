//! The basic functions (reference manual, 6.1).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Builder;
use super::access::Fetched;
use super::buffer::Buffer;
use crate::heap::{NeedMemory, flags};
use crate::interp::native::{Call, Next, Throw};
use crate::memory::{Array, Struct};
use crate::number::{self, Number};
use crate::object::Gc;
use crate::race::Part;
use crate::race::watch::{Touch, Watched};
use crate::task::WaitFor;
use crate::value::{Tag, Value};

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("assert", assert)?;
    builder.global("collectgarbage", collectgarbage)?;
    builder.global("error", error)?;
    builder.global("getmetatable", getmetatable)?;
    builder.global("pcall", pcall)?;
    builder.global("print", print)?;
    builder.global("rawequal", rawequal)?;
    builder.global("rawget", rawget)?;
    builder.global("rawlen", rawlen)?;
    builder.global("rawset", rawset)?;
    builder.global("select", select)?;
    builder.global("setmetatable", setmetatable)?;
    builder.global("tonumber", tonumber)?;
    builder.global("tostring", tostring)?;
    builder.global("type", type_of)?;
    builder.global("warn", warn)?;
    builder.global("xpcall", xpcall)?;
    let following = builder.function("next", next, &[])?;
    builder.global_value("next", following)?;
    let indices = builder.function("for iterator", next_index, &[])?;
    let fields = builder.function("for iterator", super::memory::next_field, &[])?;
    let iterators = [following, indices, fields];
    builder.global_value("pairs", builder.function("pairs", pairs, &iterators)?)?;
    builder.global_value("ipairs", builder.function("ipairs", ipairs, &[indices])?)?;
    builder.global_value("_G", builder.globals().value())?;
    builder.global_value("_VERSION", builder.string("Lua 5.4")?)
}

/// What of this accesses memory that tasks share.
pub(crate) const WATCHED: &[Watched] = &[
    (next, Touch::Next),
    (next_index, Touch::NextIndex),
    (rawget, Touch::Get),
    (rawset, Touch::Set),
    (rawlen, Touch::Length),
    (getmetatable, Touch::GetMetatable),
    (setmetatable, Touch::SetMetatable),
];

/// What `tostring` gives for a value, short of its bytes for a string: text to append.
pub(crate) enum Shown {
    /// The string that it is.
    String(Value),
    /// A short text.
    Short(number::Text),
    /// Something else.
    Text(String),
    /// `__tostring` is to be called: [`shown_result`] takes its result.
    Call(Next),
}

/// `tostring(value)`.
pub(crate) fn show(
    call: &mut Call<'_>,
    value: Value,
    at: usize,
    state: u32,
) -> Result<Shown, Throw> {
    if value.as_str().is_some() {
        return Ok(Shown::String(value));
    }
    if let Some(n) = value.as_number() {
        return Ok(Shown::Short(number_text(n)));
    }
    let handler = call.metamethod(value, "__tostring");
    if !handler.is_nil() {
        return Ok(Shown::Call(call.prepare(at, handler, &[value], state)));
    }
    Ok(Shown::Text(match value.as_boolean() {
        Some(true) => "true".into(),
        Some(false) => "false".into(),
        None if value.is_nil() => "nil".into(),
        None => {
            let name = call.metamethod(value, "__name");
            let name = name
                .as_str()
                .map(|name| String::from_utf8_lossy(name.bytes()));
            let address = value.address() as usize;
            match name {
                Some(name) => format!("{name}: 0x{address:012x}"),
                None => format!("{}: 0x{address:012x}", call.plain_type_name(value)),
            }
        }
    }))
}

/// What `__tostring` gave, which must be a string.
pub(crate) fn shown_result(call: &mut Call<'_>, at: usize) -> Result<Value, Throw> {
    let value = call.result(at);
    if value.as_str().is_some() {
        return Ok(value);
    }
    match value.as_number() {
        Some(n) => call.string(number_text(n).as_bytes()),
        None => Err(call.message("'__tostring' must return a string")),
    }
}

/// A number as `tostring` writes it.
pub(crate) fn number_text(n: Number) -> number::Text {
    match n {
        Number::Integer(i) => number::integer_text(i),
        Number::Float(f) => number::float_text(f),
    }
}

fn tostring(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() != 0 {
        return Ok(Next::One(shown_result(call, call.count())?));
    }
    let value = call.any_argument(0)?;
    Ok(match show(call, value, call.count(), 1)? {
        Shown::String(value) => Next::One(value),
        Shown::Short(text) => Next::One(call.string(text.as_bytes())?),
        Shown::Text(text) => Next::One(call.string(text.as_bytes())?),
        Shown::Call(next) => next,
    })
}

/// Replaces arguments that have a `__tostring` by what it gives, from argument `from` on; `Some` is the call to make, in state 1.
///
/// Slot `count` holds, in later steps, the argument that a call is about.
pub(crate) fn convert_arguments(call: &mut Call<'_>, from: usize) -> Result<Option<Next>, Throw> {
    let count = call.count();
    let mut i = from;
    if call.state() != 0 {
        i = call.slot(count).as_integer().unwrap_or(0) as usize;
        let text = shown_result(call, count + 1)?;
        call.set(i, text);
        i += 1;
    }
    while i < count {
        let value = call.slot(i);
        if !value.is_number() && value.as_str().is_none() {
            match show(call, value, count + 1, 1)? {
                Shown::Call(next) => {
                    let index = call.integer(i as i64)?;
                    call.set(count, index);
                    return Ok(Some(next));
                }
                Shown::Text(text) => {
                    let text = call.string(text.as_bytes())?;
                    call.set(i, text);
                }
                Shown::String(_) | Shown::Short(_) => {}
            }
        }
        i += 1;
    }
    Ok(None)
}

/// Appends a string or number.
pub(crate) fn append(call: &mut Call<'_>, buffer: &mut Buffer, value: Value) -> Result<(), Throw> {
    if let Some(string) = value.as_str() {
        return buffer.extend(call, string.bytes());
    }
    match value.as_number() {
        Some(n) => buffer.extend(call, number_text(n).as_bytes()),
        None => Ok(()),
    }
}

/// The whole line in one write, so that lines of different tasks do not mix.
fn print(call: &mut Call<'_>) -> Result<Next, Throw> {
    if let Some(next) = convert_arguments(call, 0)? {
        return Ok(next);
    }
    let mut buffer = Buffer::new();
    for i in 0..call.count() {
        if i > 0 {
            buffer.push(call, b'\t')?;
        }
        let value = call.slot(i);
        append(call, &mut buffer, value)?;
    }
    buffer.push(call, b'\n')?;
    let line = buffer.into_bytes(call)?;
    call.print(&line)?;
    Ok(Next::Nothing)
}

/// Warnings are always on: what starts with `@` are control messages, of which there are none here.
fn warn(call: &mut Call<'_>) -> Result<Next, Throw> {
    let mut text: Vec<u8> = Vec::from(&b"vua: warning: "[..]);
    call.bytes_argument(0)?;
    for i in 1..call.count() {
        call.bytes_argument(i)?;
    }
    let mut buffer = Buffer::new();
    for i in 0..call.count() {
        let value = call.slot(i);
        append(call, &mut buffer, value)?;
    }
    let message = buffer.into_bytes(call)?;
    if call.count() == 1 && message.first() == Some(&b'@') {
        return Ok(Next::Nothing);
    }
    text.try_reserve(message.len() + 1)
        .map_err(|_| NeedMemory {
            bytes: message.len(),
        })?;
    text.extend_from_slice(&message);
    text.push(b'\n');
    call.engine().write_error(&text);
    Ok(Next::Nothing)
}

fn type_of(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.any_argument(0)?;
    let name = call.plain_type_name(value);
    Ok(Next::One(call.string(name.as_bytes())?))
}

fn assert(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.get(0).is_truthy() {
        return Ok(Next::Many {
            at: 0,
            count: call.count(),
        });
    }
    call.any_argument(0)?;
    if call.count() > 1 {
        return raise(call, call.get(1), 1);
    }
    Err(call.message("assertion failed!"))
}

fn error(call: &mut Call<'_>) -> Result<Next, Throw> {
    let level = call.optional_integer(1, 1)?;
    raise(call, call.get(0), level)
}

/// The longest text that `error` and `assert` give a position.
const LONGEST_WITH_POSITION: usize = 8 << 10;

/// Raises an error. A text gets the position of the function `level` levels out in front.
fn raise(call: &mut Call<'_>, value: Value, level: i64) -> Result<Next, Throw> {
    let Some(message) = value.as_str() else {
        return Err(Throw::Value(value));
    };
    // A text that was given so many positions that they are no help any more, as in a recursion of `assert(pcall(f))`, gets no other.
    if level <= 0 || message.len() > LONGEST_WITH_POSITION {
        return Err(Throw::Value(value));
    }
    let position = call.position(usize::try_from(level).unwrap_or(usize::MAX).min(1 << 20));
    if position.is_empty() {
        return Err(Throw::Value(value));
    }
    let mut buffer = Buffer::new();
    buffer.extend(call, position.as_bytes())?;
    buffer.extend(call, message.bytes())?;
    let text = buffer.into_string(call, call.count())?;
    Err(Throw::Value(text))
}

/// Moves the arguments from `from` on two slots up, so that there is a link between the function before them and them.
fn open_frame(call: &mut Call<'_>, from: usize) -> Result<(), Throw> {
    call.room(call.count() + 4)?;
    for i in (from..call.count()).rev() {
        let value = call.slot(i);
        call.set(i + 2, value);
    }
    Ok(())
}

fn pcall(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() != 0 {
        call.set(0, Value::boolean(!call.failed()));
        return Ok(Next::Many {
            at: 0,
            count: 1 + call.results(),
        });
    }
    let function = call.any_argument(0)?;
    open_frame(call, 1)?;
    call.set(1, function);
    Ok(Next::Call {
        at: 1,
        arguments: call.count() - 1,
        state: 1,
        protected: true,
    })
}

/// Slot 0 keeps the message handler. Who raises an error in the protected call calls it at once, above the stack that the error was raised on:
/// see [`Core::unwind`](crate::interp::Core).
pub(crate) fn xpcall(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() != 0 {
        call.set(1, Value::boolean(!call.failed()));
        return Ok(Next::Many {
            at: 1,
            count: 1 + call.results(),
        });
    }
    let function = call.get(0);
    let handler = call.get(1);
    if !handler.has_tag(Tag::Function) {
        return Err(call.type_error(1, "function"));
    }
    open_frame(call, 2)?;
    call.set(0, handler);
    call.set(1, Value::TRUE);
    call.set(2, function);
    Ok(Next::Call {
        at: 2,
        arguments: call.count() - 2,
        state: 1,
        protected: true,
    })
}

pub(crate) fn select(call: &mut Call<'_>) -> Result<Next, Throw> {
    let count = call.count();
    if call
        .get(0)
        .as_str()
        .is_some_and(|s| s.bytes().first() == Some(&b'#'))
    {
        return Ok(Next::One(call.integer(count as i64 - 1)?));
    }
    let n = call.integer_argument(0)?;
    let first = if n < 0 {
        n.saturating_add(count as i64)
    } else {
        n.min(count as i64)
    };
    if first < 1 {
        return Err(call.argument_error(0, "index out of range"));
    }
    Ok(Next::Many {
        at: first as usize,
        count: count - first as usize,
    })
}

fn rawequal(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (a, b) = (call.any_argument(0)?, call.any_argument(1)?);
    Ok(Next::One(Value::boolean(a.raw_equal(b))))
}

fn rawlen(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.get(0);
    let length = match (value.as_table(), value.as_str()) {
        (Some(table), _) => table.length(),
        (_, Some(string)) => string.len() as i64,
        _ if Gc::<Array>::from_value(value).is_some() => {
            Gc::<Array>::from_value(value).map_or(0, |array| array.length() as i64)
        }
        _ => return Err(call.type_error(0, "table or string")),
    };
    Ok(Next::One(call.integer(length)?))
}

fn rawget(call: &mut Call<'_>) -> Result<Next, Throw> {
    let table = call.table_argument(0)?;
    Ok(Next::One(table.get(call.any_argument(1)?)))
}

fn rawset(call: &mut Call<'_>) -> Result<Next, Throw> {
    let table = call.table_argument(0)?;
    let (key, value) = (call.any_argument(1)?, call.any_argument(2)?);
    call.store(table, key, value)?;
    Ok(Next::One(table.value()))
}

fn getmetatable(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.any_argument(0)?;
    let Some(table) = call.metatable(value) else {
        return Ok(Next::One(Value::NIL));
    };
    let guard = call.metamethod(value, "__metatable");
    Ok(Next::One(if guard.is_nil() {
        table.value()
    } else {
        guard
    }))
}

fn setmetatable(call: &mut Call<'_>) -> Result<Next, Throw> {
    let table = call.table_argument(0)?;
    let metatable = call.get(1);
    if !(metatable.is_nil() && call.count() > 1) && metatable.as_table().is_none() {
        return Err(call.type_error(1, "nil or table"));
    }
    if !call.metamethod(table.value(), "__metatable").is_nil() {
        return Err(call.message("cannot change a protected metatable"));
    }
    let finalized = metatable
        .as_table()
        .is_some_and(|metatable| call.is_finalizing(metatable));
    if finalized {
        call.publish(table.value())?;
        call.core.publish_common()?;
    }
    if table.header().has(flags::SHARED) {
        call.publish(metatable)?;
    }
    call.before_store(table)?;
    if finalized {
        let local = call.heap();
        local.heap().register_finalizer(local.program(), table)?;
    }
    table.set_metatable(metatable.as_table());
    Ok(Next::One(table.value()))
}

/// `next`. A `for` loop over it is run by the interpreter without a call.
pub(crate) fn next(call: &mut Call<'_>) -> Result<Next, Throw> {
    let table = call.table_argument(0)?;
    let key = call.get(1);
    match table.next(call.heap(), key, &mut || call.core.pause()) {
        Ok(Some((key, value))) => {
            call.set(0, key);
            call.set(1, value);
            Ok(Next::Many { at: 0, count: 2 })
        }
        Ok(None) => Ok(Next::One(Value::NIL)),
        Err(_) => Err(call.message("invalid key to 'next'")),
    }
}

fn pairs(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() != 0 {
        let at = call.count();
        for i in call.results()..3 {
            call.set(at + i, Value::NIL);
        }
        return Ok(Next::Many { at, count: 3 });
    }
    let value = call.any_argument(0)?;
    let handler = call.metamethod(value, "__pairs");
    if !handler.is_nil() {
        let at = call.count();
        return Ok(call.prepare(at, handler, &[value], 1));
    }
    let (iterator, first) = if Gc::<Array>::from_value(value).is_some() {
        (1, Value::small(0))
    } else if Gc::<Struct>::from_value(value).is_some() {
        (2, Value::NIL)
    } else {
        // As in Lua, what is no table is the error of the iterator.
        (0, Value::NIL)
    };
    let following = call.capture(iterator);
    call.set(0, following);
    call.set(1, value);
    call.set(2, first);
    Ok(Next::Many { at: 0, count: 3 })
}

fn ipairs(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.any_argument(0)?;
    let indices = call.capture(0);
    call.set(0, indices);
    call.set(1, value);
    call.set(2, Value::small(0));
    Ok(Next::Many { at: 0, count: 3 })
}

/// The iterator of `ipairs`.
pub(crate) fn next_index(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = if call.state() == 0 {
        let i = call.integer_argument(1)?.wrapping_add(1);
        let object = call.get(0);
        if Gc::<Array>::from_value(object).is_some_and(|array| i > array.length() as i64) {
            return Ok(Next::One(Value::NIL));
        }
        let key = call.integer(i)?;
        call.set(1, key);
        match call.fetch(object, key, 2, 1)? {
            Fetched::Value(value) => value,
            Fetched::Call(next) => return Ok(next),
        }
    } else {
        call.result(2)
    };
    if value.is_nil() {
        return Ok(Next::One(Value::NIL));
    }
    call.set(2, value);
    Ok(Next::Many { at: 1, count: 2 })
}

fn tonumber(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.get(1).is_nil() {
        let value = call.any_argument(0)?;
        if value.is_number() {
            return Ok(Next::One(value));
        }
        return Ok(Next::One(match call.number_of(value) {
            Some(Number::Integer(i)) => call.integer(i)?,
            Some(Number::Float(f)) => Value::float(f),
            None => Value::NIL,
        }));
    }
    let base = call.integer_argument(1)?;
    let Some(text) = call.get(0).as_str() else {
        return Err(call.type_error(0, "string"));
    };
    if !(2..=36).contains(&base) {
        return Err(call.argument_error(1, "base out of range"));
    }
    Ok(Next::One(match in_base(text.bytes(), base as u32) {
        Some(i) => call.integer(i)?,
        None => Value::NIL,
    }))
}

/// An integer written in a base from 2 to 36; it wraps around.
fn in_base(text: &[u8], base: u32) -> Option<i64> {
    let start = text.iter().position(|&b| !number::is_space(b))?;
    let end = text.iter().rposition(|&b| !number::is_space(b))? + 1;
    let mut digits = &text[start..end];
    let negative = digits.first() == Some(&b'-');
    if negative || digits.first() == Some(&b'+') {
        digits = &digits[1..];
    }
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for &digit in digits {
        let digit = (digit as char).to_digit(base)?;
        value = value
            .wrapping_mul(i64::from(base))
            .wrapping_add(i64::from(digit));
    }
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// State of `collectgarbage` that waits for finalizers, and then gives this.
const COLLECTED: u32 = 1;
const STEPPED: u32 = 2;

/// Modes, pauses and factors are remembered for who asks, and stopping too: one heap serves all programs, and when and how it is collected is not a program's to say.
fn collectgarbage(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() != 0 {
        call.core
            .race_acquire(call.program().finalizer().as_ptr() as usize, Part::Whole);
    }
    match call.state() {
        COLLECTED => return Ok(Next::One(Value::small(0))),
        STEPPED => return Ok(Next::One(Value::TRUE)),
        _ => {}
    }
    let option = if call.get(0).is_nil() {
        None
    } else {
        Some(call.bytes_argument(0)?)
    };
    let value = match option.map_or(&b"collect"[..], |option| option.bytes()) {
        b"count" => Value::float(super::collector::used(call) as f64 / 1024.0),
        // A step is a whole collection.
        which @ (b"collect" | b"step") => {
            let state = if which == b"step" { STEPPED } else { COLLECTED };
            // A finalizer can't wait for itself. Lua gives nil, too.
            if call.is_finalizer() {
                return Ok(Next::One(Value::NIL));
            }
            call.collect();
            call.engine().files().close_dead(call.platform());
            return Ok(Next::Wait {
                until: WaitFor::Finalized,
                state,
            });
        }
        which @ (b"stop" | b"restart") => {
            call.program().tuning().set_stopped(which == b"stop");
            Value::small(0)
        }
        b"isrunning" => Value::boolean(!call.program().tuning().is_stopped()),
        which @ (b"incremental" | b"generational") => {
            // Parameters that follow are numbers.
            for i in 1..call.count() {
                call.optional_integer(i, 0)?;
            }
            let before: &[u8] = if call.program().tuning().is_generational() {
                b"generational"
            } else {
                b"incremental"
            };
            let before = call.string(before)?;
            call.program()
                .tuning()
                .set_generational(which == b"generational");
            before
        }
        which @ (b"setpause" | b"setstepmul") => {
            let percent = call.optional_integer(1, 0)?;
            let percent = percent.clamp(0, i64::from(u32::MAX)) as u32;
            let before = if which == b"setpause" {
                call.program().tuning().set_pause(percent)
            } else {
                call.program().tuning().set_factor(percent)
            };
            call.integer(i64::from(before))?
        }
        other => {
            let text = String::from_utf8_lossy(other).into_owned();
            return Err(call.argument_error(0, format_args!("invalid option '{text}'")));
        }
    };
    Ok(Next::One(value))
}
