//! The operating system library (reference manual, 6.9), as far as there is one: no `execute`; `getenv` finds nothing. Times are UTC.

mod calendar;

use alloc::string::String;

use super::Builder;
use super::access::Pace;
use super::buffer::Buffer;
use super::io::Failure;
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::number::Number;
use crate::value::Value;
use calendar::Date;
use smp::platform::{FileError, Platform};

/// Defines the library.
pub(super) fn open(
    builder: &mut Builder<'_>,
    platform: &'static dyn Platform,
) -> Result<(), NeedMemory> {
    let library = builder.library(
        "os",
        &[
            ("date", date),
            ("difftime", difftime),
            ("exit", exit),
            ("getenv", getenv),
            ("remove", remove),
            ("rename", rename),
            ("setlocale", setlocale),
            ("time", time),
            ("tmpname", tmpname),
        ],
    )?;
    let started = builder.integer(platform.now() as i64)?;
    builder.define(library, "os.", "clock", clock, &[started])
}

/// Seconds since the program began: the time that passed, for the time that the cores spent would add them up.
fn clock(call: &mut Call<'_>) -> Result<Next, Throw> {
    let started = call.capture(0).as_integer().unwrap_or(0) as u64;
    Ok(Next::One(Value::float(
        call.platform().now().saturating_sub(started) as f64 / 1e9,
    )))
}

fn difftime(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (later, earlier) = (call.integer_argument(0)?, call.integer_argument(1)?);
    Ok(Next::One(Value::float(
        (i128::from(later) - i128::from(earlier)) as f64,
    )))
}

fn exit(call: &mut Call<'_>) -> Result<Next, Throw> {
    let status = match call.get(0).as_boolean() {
        Some(success) => i64::from(!success),
        None => call.optional_integer(0, 0)?,
    };
    if call.get(1).is_truthy() {
        call.engine().shut(call.program(), status);
    } else {
        call.engine().exit_program(call.program(), status);
    }
    Err(Throw::Cancelled)
}

fn getenv(call: &mut Call<'_>) -> Result<Next, Throw> {
    call.bytes_argument(0)?;
    Ok(Next::One(Value::NIL))
}

/// The only locale is C's.
fn setlocale(call: &mut Call<'_>) -> Result<Next, Throw> {
    let categories = ["all", "collate", "ctype", "monetary", "numeric", "time"];
    call.option_argument(1, Some(0), &categories)?;
    if !call.get(0).is_nil() && !matches!(call.bytes_argument(0)?.bytes(), b"" | b"C" | b"POSIX") {
        return Ok(Next::One(Value::NIL));
    }
    Ok(Next::One(call.string(b"C")?))
}

fn file_name(call: &mut Call<'_>, i: usize) -> Result<String, Throw> {
    let name = call.bytes_argument(i)?;
    name.to_utf8()
        .map(String::from)
        .ok_or_else(|| call.argument_error(i, "invalid file name"))
}

fn outcome(call: &mut Call<'_>, name: &str, done: Result<(), FileError>) -> Result<Next, Throw> {
    let Failure(text, number) = match done {
        Ok(()) => return Ok(Next::One(Value::TRUE)),
        Err(error) => error.into(),
    };
    let text = call.string(alloc::format!("{name}: {text}").as_bytes())?;
    call.set(0, Value::NIL);
    call.set(1, text);
    call.set(2, Value::small(number));
    Ok(Next::Many { at: 0, count: 3 })
}

fn remove(call: &mut Call<'_>) -> Result<Next, Throw> {
    let name = file_name(call, 0)?;
    call.engine().files().close_dead(call.platform());
    let done = call.platform().remove_file(&name);
    outcome(call, &name, done)
}

/// By way of a copy: the platform has no operation of its own.
fn rename(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (from, to) = (file_name(call, 0)?, file_name(call, 1)?);
    let platform = call.platform();
    call.engine().files().close_dead(platform);
    let mut written = Ok(());
    let read = platform.read_file(&from, &mut |bytes| {
        written = platform.write_file(&to, bytes)
    });
    let done = read.and(written).and_then(|()| platform.remove_file(&from));
    outcome(call, &from, done)
}

/// `os.tmpname()`: a name that no file has.
fn tmpname(call: &mut Call<'_>) -> Result<Next, Throw> {
    loop {
        let name = alloc::format!("lua_{:012x}", call.platform().entropy() >> 16);
        if call.platform().read_file(&name, &mut |_| ()) == Err(FileError::NotFound) {
            return Ok(Next::One(call.string(name.as_bytes())?));
        }
        call.poll()?;
    }
}

/// The present moment, in whole seconds.
fn now(call: &Call<'_>) -> i64 {
    call.platform().wall_clock().as_secs() as i64
}

/// A field of a date's table; `default` if it is absent, or else an error.
fn field(call: &mut Call<'_>, name: &str, default: Option<i64>, delta: i64) -> Result<i64, Throw> {
    let table = call.table_argument(0)?;
    let key = call.string(name.as_bytes())?;
    let value = table.get(key);
    let Some(n) = call.number_of(value).and_then(Number::to_integer) else {
        if !value.is_nil() {
            return Err(call.message(format_args!("field '{name}' is not an integer")));
        }
        return default
            .ok_or_else(|| call.message(format_args!("field '{name}' missing in date table")));
    };
    // What is kept is a C `int` after `delta` is taken away.
    if i32::try_from(n.saturating_sub(delta)).is_err() {
        return Err(call.message(format_args!("field '{name}' is out-of-bound")));
    }
    Ok(n)
}

/// Sets all fields of a date's table.
fn set_fields(
    call: &mut Call<'_>,
    table: crate::object::Gc<crate::table::Table>,
    date: &Date,
) -> Result<(), Throw> {
    for (name, value) in [
        ("year", date.year),
        ("month", date.month),
        ("day", date.day),
        ("hour", date.hour),
        ("min", date.minute),
        ("sec", date.second),
        ("yday", date.yearday + 1),
        ("wday", date.weekday + 1),
    ] {
        let value = call.integer(value)?;
        call.set_field(table, name, value)?;
    }
    call.set_field(table, "isdst", Value::FALSE)
}

const OUT_OF_RANGE: &str = "time result cannot be represented in this installation";

fn time(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.get(0).is_nil() {
        return Ok(Next::One(call.integer(now(call))?));
    }
    let table = call.table_argument(0)?;
    let year = field(call, "year", None, 1900)?;
    let month = field(call, "month", None, 1)?;
    let day = field(call, "day", None, 0)?;
    let hour = field(call, "hour", Some(12), 0)?;
    let minute = field(call, "min", Some(0), 0)?;
    let second = field(call, "sec", Some(0), 0)?;
    let seconds = Date::seconds(year, month, day, hour, minute, second);
    let date = Date::from_seconds(seconds).ok_or_else(|| call.message(OUT_OF_RANGE))?;
    set_fields(call, table, &date)?;
    Ok(Next::One(call.integer(seconds)?))
}

fn date(call: &mut Call<'_>) -> Result<Next, Throw> {
    let format = if call.get(0).is_nil() {
        &b"%c"[..]
    } else {
        call.bytes_argument(0)?.bytes()
    };
    let seconds = if call.get(1).is_nil() {
        now(call)
    } else {
        call.integer_argument(1)?
    };
    let format = format.strip_prefix(b"!").unwrap_or(format);
    let date = Date::from_seconds(seconds)
        .ok_or_else(|| call.message("date result cannot be represented in this installation"))?;
    if format == b"*t" {
        let table = call.new_table(0, 16)?;
        let slot = call.count();
        call.set(slot, table.value());
        set_fields(call, table, &date)?;
        return Ok(Next::One(table.value()));
    }
    let mut buffer = Buffer::new();
    let mut pace = Pace::default();
    let mut rest = format;
    while !rest.is_empty() {
        pace.step(call)?;
        let literal = memchr::memchr(b'%', rest).unwrap_or(rest.len());
        buffer.extend(call, &rest[..literal])?;
        rest = &rest[literal..];
        if rest.is_empty() {
            break;
        }
        let specifier = &rest[1..];
        let length = if matches!(specifier.first(), Some(b'E' | b'O')) {
            2
        } else {
            1
        };
        let Some(text) = specifier
            .get(..length)
            .and_then(|letters| date.format(letters))
        else {
            return Err(call.argument_error(
                0,
                format_args!(
                    "invalid conversion specifier '%{}'",
                    specifier.escape_ascii()
                ),
            ));
        };
        buffer.extend(call, text.as_bytes())?;
        rest = &specifier[length..];
    }
    let slot = call.count();
    Ok(Next::One(buffer.into_string(call, slot)?))
}
