//! The basic functions (Lua 5.4 manual, 6.1).

use alloc::format;
use alloc::vec::Vec;

use smp::platform::Stream;

use super::Builder;
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::interp::text_of;
use crate::number;
use crate::object::Gc;
use crate::table::Table;
use crate::value::{Tag, Value};

/// Defines the functions.
pub(crate) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("assert", assert)?;
    builder.global("collectgarbage", collectgarbage)?;
    builder.global("error", error)?;
    builder.global("getmetatable", getmetatable)?;
    builder.global("ipairs", ipairs)?;
    builder.global("next", next)?;
    builder.global("pairs", pairs)?;
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
    builder.global("type", type_)?;
    let globals = builder.globals();
    builder.set(globals, "_G", globals.value())?;
    let version = builder.string("Lua 5.4")?;
    builder.set(globals, "_VERSION", version)
}

/// `assert(v, …)`.
fn assert(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.any_argument(0)?.is_truthy() {
        return Ok(Next::Many { at: 0, count: call.count() });
    }
    if call.count() > 1 { Err(Throw::Value(call.get(1))) } else { Err(Throw::Message("assertion failed!".into())) }
}

/// `collectgarbage(option)`: what a program may ask of the one heap for all.
fn collectgarbage(call: &mut Call<'_>) -> Result<Next, Throw> {
    let option = if call.get(0).is_nil() { None } else { Some(call.bytes_argument(0)?) };
    match option.map_or(&b"collect"[..], Gc::bytes) {
        b"count" => {
            let bytes = call.engine().heap().program_bytes(call.heap().program());
            Ok(Next::One(Value::float(bytes as f64 / 1024.0)))
        }
        b"collect" | b"stop" | b"restart" | b"step" | b"incremental" | b"generational" | b"setpause" | b"setstepmul" => Ok(Next::One(Value::small(0))),
        b"isrunning" => Ok(Next::One(Value::TRUE)),
        other => {
            let text = format!("invalid option '{}'", other.escape_ascii());
            Err(call.argument_error(0, text))
        }
    }
}

/// `error(message [, level])`.
fn error(call: &mut Call<'_>) -> Result<Next, Throw> {
    let level = call.optional_integer(1, 1)?;
    let value = call.get(0);
    if let Some(text) = value.as_str()
        && level > 0
    {
        let mut message = call.position(level as usize).into_bytes();
        message.extend_from_slice(text.bytes());
        return Err(Throw::Value(call.string(&message)?));
    }
    Err(Throw::Value(value))
}

/// `getmetatable(v)`.
fn getmetatable(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.any_argument(0)?;
    let Some(metatable) = call.metatable(value) else { return Ok(Next::One(Value::NIL)) };
    let protected = call.metamethod(value, "__metatable");
    Ok(Next::One(if protected.is_nil() { metatable.value() } else { protected }))
}

/// The iterator of `ipairs`; respects `__index`.
fn ipairs_step(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == 1 {
        // The `__index` function has answered, in slot 3.
        let value = if call.results() > 0 { call.slot(3) } else { Value::NIL };
        if value.is_nil() {
            return Ok(Next::One(Value::NIL));
        }
        let index = call.slot(2);
        call.set(4, value);
        call.set(3, index);
        return Ok(Next::Many { at: 3, count: 2 });
    }
    let index = call.integer_argument(1)?.wrapping_add(1);
    let key = call.integer(index)?;
    let mut object = call.get(0);
    for _ in 0..100 {
        if let Some(table) = object.as_table() {
            let value = table.get_int(index);
            if !value.is_nil() {
                call.set(2, key);
                call.set(3, value);
                return Ok(Next::Many { at: 2, count: 2 });
            }
        }
        let handler = call.metamethod(object, "__index");
        if handler.is_nil() {
            if object.as_table().is_none() {
                return Err(call.message(format_args!("attempt to index a {} value (field '?')", call.type_name(object))));
            }
            return Ok(Next::One(Value::NIL));
        }
        if handler.has_tag(Tag::Function) {
            call.set(2, key);
            call.set(3, handler);
            call.set(5, object);
            call.set(6, key);
            return Ok(Next::Call { at: 3, arguments: 2, state: 1, protected: false });
        }
        object = handler;
    }
    Err(call.message("'__index' chain too long; possibly a loop"))
}

/// `ipairs(t)`.
fn ipairs(call: &mut Call<'_>) -> Result<Next, Throw> {
    let object = call.any_argument(0)?;
    let step = crate::object::NativeFunction::new(call.heap(), ipairs_step as *const (), "for iterator", &[])?.value();
    call.set(1, step);
    call.set(2, object);
    call.set(3, Value::small(0));
    Ok(Next::Many { at: 1, count: 3 })
}

/// `next(t [, key])`.
pub(crate) fn next(call: &mut Call<'_>) -> Result<Next, Throw> {
    let table = call.table_argument(0)?;
    let key = call.get(1);
    match table.next(call.heap(), key, &mut || ()) {
        Ok(None) => Ok(Next::One(Value::NIL)),
        Ok(Some((key, value))) => {
            call.set(2, key);
            call.set(3, value);
            Ok(Next::Many { at: 2, count: 2 })
        }
        Err(_) => Err(call.message("invalid key to 'next'")),
    }
}

/// `pairs(t)`.
fn pairs(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == 1 {
        // `__pairs` has answered: its first three results.
        for i in call.results()..3 {
            call.set(1 + i, Value::NIL);
        }
        return Ok(Next::Many { at: 1, count: 3 });
    }
    let object = call.any_argument(0)?;
    let handler = call.metamethod(object, "__pairs");
    if !handler.is_nil() {
        call.set(1, handler);
        call.set(3, object);
        return Ok(Next::Call { at: 1, arguments: 1, state: 1, protected: false });
    }
    call.table_argument(0)?;
    let next = call.engine().next_function();
    call.set(1, next);
    call.set(2, object);
    call.set(3, Value::NIL);
    Ok(Next::Many { at: 1, count: 3 })
}

/// `pcall(f, …)`.
fn pcall(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == 0 {
        let function = call.any_argument(0)?;
        let count = call.count();
        call.room(count + 3)?;
        // The function, a slot for the link, and the arguments behind them.
        for i in (1..count).rev() {
            let argument = call.slot(i);
            call.set(i + 2, argument);
        }
        call.set(1, function);
        return Ok(Next::Call { at: 1, arguments: count - 1, state: 1, protected: true });
    }
    call.set(0, Value::boolean(!call.failed()));
    Ok(Next::Many { at: 0, count: call.results() + 1 })
}

/// `print(…)`: comes out whole.
fn print(call: &mut Call<'_>) -> Result<Next, Throw> {
    // State: how many arguments are texts already, one more than that when a `__tostring` has answered behind them.
    let count = call.count();
    let mut done = call.state() as usize;
    if done > 0 {
        let answer = if call.results() > 0 { call.slot(count) } else { Value::NIL };
        if answer.as_str().is_none() {
            return Err(call.message("'__tostring' must return a string"));
        }
        call.set(done - 1, answer);
    }
    while done < count {
        let value = call.slot(done);
        done += 1;
        if value.as_str().is_none() && !value.is_number() {
            let handler = call.metamethod(value, "__tostring");
            if !handler.is_nil() {
                call.room(count + 3)?;
                call.set(count, handler);
                call.set(count + 2, value);
                return Ok(Next::Call { at: count, arguments: 1, state: done as u32, protected: false });
            }
        }
    }
    let mut line = Vec::new();
    for i in 0..count {
        if i > 0 {
            line.push(b'\t');
        }
        append_text(call, call.slot(i), &mut line);
    }
    line.push(b'\n');
    call.platform().write(Stream::Output, &line);
    Ok(Next::Nothing)
}

/// The text of a value without metamethods.
pub(crate) fn append_text(call: &Call<'_>, value: Value, to: &mut Vec<u8>) {
    if let Some(string) = value.as_str() {
        to.extend_from_slice(string.bytes());
    } else if let Some(n) = value.as_number() {
        to.extend_from_slice(text_of(n).as_bytes());
    } else if value.is_nil() {
        to.extend_from_slice(b"nil");
    } else if let Some(b) = value.as_boolean() {
        to.extend_from_slice(if b { b"true" } else { b"false" });
    } else {
        let kind = if value.as_native().is_some() { "function: builtin" } else { call.type_name(value) };
        to.extend_from_slice(format!("{kind}: {:#016x}", value.address() as usize).as_bytes());
    }
}

/// `rawequal(a, b)`.
fn rawequal(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(Next::One(Value::boolean(call.any_argument(0)?.raw_equal(call.any_argument(1)?))))
}

/// `rawget(t, k)`.
fn rawget(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(Next::One(call.table_argument(0)?.get(call.any_argument(1)?)))
}

/// `rawlen(v)`.
fn rawlen(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.get(0);
    let length = match (value.as_table(), value.as_str()) {
        (Some(table), _) => table.length(),
        (_, Some(string)) => string.len() as i64,
        _ => return Err(call.argument_error(0, "table or string expected")),
    };
    Ok(Next::One(call.integer(length)?))
}

/// `rawset(t, k, v)`.
fn rawset(call: &mut Call<'_>) -> Result<Next, Throw> {
    let table = call.table_argument(0)?;
    let (key, value) = (call.any_argument(1)?, call.any_argument(2)?);
    call.store(table, key, value)?;
    Ok(Next::One(table.value()))
}

/// `select(n, …)`, `select("#", …)`.
fn select(call: &mut Call<'_>) -> Result<Next, Throw> {
    let extra = call.count().saturating_sub(1) as i64;
    if call.get(0).as_str().is_some_and(|s| s.bytes() == b"#") {
        return Ok(Next::One(call.integer(extra)?));
    }
    let n = call.integer_argument(0)?;
    let from = if n < 0 { extra + n + 1 } else { n };
    if from < 1 {
        return Err(call.argument_error(0, "index out of range"));
    }
    let from = from.min(extra + 1);
    Ok(Next::Many { at: from as usize, count: (extra + 1 - from) as usize })
}

/// `setmetatable(t, metatable)`.
fn setmetatable(call: &mut Call<'_>) -> Result<Next, Throw> {
    let table = call.table_argument(0)?;
    let metatable: Option<Gc<Table>> = match call.get(1) {
        m if m.is_nil() && call.count() > 1 => None,
        m => match m.as_table() {
            Some(m) => Some(m),
            None => return Err(call.type_error(1, "nil or table")),
        },
    };
    if !call.metamethod(table.value(), "__metatable").is_nil() {
        return Err(call.message("cannot change a protected metatable"));
    }
    if table.header().has(crate::heap::flags::FROZEN) {
        return Err(call.message("attempt to modify a frozen table"));
    }
    if table.is_shared()
        && let Some(metatable) = metatable
    {
        call.publish(metatable.value())?;
    }
    table.set_metatable(metatable);
    Ok(Next::One(table.value()))
}

/// `tonumber(v [, base])`.
fn tonumber(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.get(1).is_nil() {
        let value = call.any_argument(0)?;
        if value.is_number() {
            return Ok(Next::One(value));
        }
        let Some(string) = value.as_str() else { return Ok(Next::One(Value::NIL)) };
        return Ok(Next::One(match number::parse(string.bytes()) {
            None => Value::NIL,
            Some(number::Number::Integer(i)) => call.integer(i)?,
            Some(number::Number::Float(f)) => Value::float(f),
        }));
    }
    let base = call.integer_argument(1)?;
    let Some(string) = call.get(0).as_str() else { return Err(call.type_error(0, "string")) };
    if !(2..=36).contains(&base) {
        return Err(call.argument_error(1, "base out of range"));
    }
    Ok(Next::One(match in_base(string.bytes(), base as u32) {
        Some(i) => call.integer(i)?,
        None => Value::NIL,
    }))
}

fn in_base(text: &[u8], base: u32) -> Option<i64> {
    let text = text.trim_ascii();
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut sum = 0i64;
    for digit in digits {
        sum = sum.wrapping_mul(base as i64).wrapping_add((*digit as char).to_digit(base)? as i64);
    }
    Some(if negative { sum.wrapping_neg() } else { sum })
}

/// `tostring(v)`.
fn tostring(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == 1 {
        let answer = if call.results() > 0 { call.slot(1) } else { Value::NIL };
        return if answer.as_str().is_some() { Ok(Next::One(answer)) } else { Err(call.message("'__tostring' must return a string")) };
    }
    let value = call.any_argument(0)?;
    if value.as_str().is_some() {
        return Ok(Next::One(value));
    }
    let handler = call.metamethod(value, "__tostring");
    if !handler.is_nil() {
        call.set(1, handler);
        call.set(3, value);
        return Ok(Next::Call { at: 1, arguments: 1, state: 1, protected: false });
    }
    let mut text = Vec::new();
    append_text(call, value, &mut text);
    Ok(Next::One(call.string(&text)?))
}

/// `type(v)`.
fn type_(call: &mut Call<'_>) -> Result<Next, Throw> {
    let name = call.plain_type_name(call.any_argument(0)?);
    Ok(Next::One(call.engine().type_name_string(name)))
}
