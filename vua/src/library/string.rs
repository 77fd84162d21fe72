//! The string library (reference manual, 6.4), without patterns ([`matching`](super::matching)) and binary data ([`pack`](super::pack)).

use alloc::format;

use super::Builder;
use super::access::{BYTES, Pace, has_room};
use super::base::{Shown, append, show, shown_result};
use super::buffer::{Buffer, MAX_STRING, fill_at, long_string, unfilled};
use super::format::{self, Directive};
use super::{load, matching, pack};
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::number::{self, Flags, Number};
use crate::value::{Tag, Value};

/// Strings up to this length have one identity in Lua, and `%p` shows them as if they had here.
const SHORT: usize = 40;

/// A number of 47 bits, nearly always different for different texts: FNV-1a.
fn identity(text: &[u8]) -> u64 {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash >> 17
}

/// Defines the library, and the metatable of strings.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    let methods = builder.library(
        "string",
        &[
            ("byte", byte),
            ("char", char),
            ("dump", load::dump),
            ("find", matching::find),
            ("format", format),
            ("gmatch", matching::gmatch),
            ("gsub", super::gsub::gsub),
            ("len", len),
            ("lower", lower),
            ("match", matching::match_),
            ("pack", pack::pack),
            ("packsize", pack::packsize),
            ("rep", rep),
            ("reverse", reverse),
            ("sub", sub),
            ("unpack", pack::unpack),
            ("upper", upper),
        ],
    )?;
    builder.set_string_methods(methods)
}

/// A position as programs give it, where a range begins: from 1 on, perhaps beyond the end.
pub(crate) fn range_start(position: i64, length: usize) -> usize {
    match position {
        1.. => position as usize,
        0 => 1,
        _ if position < -(length as i64) => 1,
        _ => (length as i64 + position + 1) as usize,
    }
}

/// A position as programs give it, where a range ends: from 0 to the length.
pub(crate) fn range_end(position: i64, length: usize) -> usize {
    let length = length as i64;
    match position {
        _ if position > length => length as usize,
        0.. => position as usize,
        _ if position < -length => 0,
        _ => (length + position + 1) as usize,
    }
}

fn len(call: &mut Call<'_>) -> Result<Next, Throw> {
    let length = call.bytes_argument(0)?.len();
    Ok(Next::One(call.integer(length as i64)?))
}

pub(crate) fn sub(call: &mut Call<'_>) -> Result<Next, Throw> {
    let string = call.bytes_argument(0)?;
    let start = range_start(call.integer_argument(1)?, string.len());
    let end = range_end(call.optional_integer(2, -1)?, string.len());
    if start > end {
        return Ok(Next::One(call.string(b"")?));
    }
    if start == 1 && end == string.len() {
        return Ok(Next::One(string.value()));
    }
    let slot = call.count().max(3);
    Ok(Next::One(long_string(
        call,
        &string.bytes()[start - 1..end],
        slot,
    )?))
}

/// A string of the same length, made part by part.
fn map(call: &mut Call<'_>, part: impl Fn(&[u8], usize, &mut [u8])) -> Result<Next, Throw> {
    let string = call.bytes_argument(0)?;
    let slot = call.count().max(1);
    let bytes = string.bytes();
    let made = unfilled(call, bytes.len(), slot)?;
    let mut piece = [0; 1024];
    let mut at = 0;
    let mut pace = Pace::default();
    while at < bytes.len() {
        let length = piece.len().min(bytes.len() - at);
        part(bytes, at, &mut piece[..length]);
        fill_at(made, at, &piece[..length]);
        at += length;
        pace.bytes(call, length)?;
    }
    Ok(Next::One(made.value()))
}

fn lower(call: &mut Call<'_>) -> Result<Next, Throw> {
    map(call, |from, at, to| {
        to.copy_from_slice(&from[at..at + to.len()]);
        to.make_ascii_lowercase();
    })
}

fn upper(call: &mut Call<'_>) -> Result<Next, Throw> {
    map(call, |from, at, to| {
        to.copy_from_slice(&from[at..at + to.len()]);
        to.make_ascii_uppercase();
    })
}

fn reverse(call: &mut Call<'_>) -> Result<Next, Throw> {
    map(call, |from, at, to| {
        let end = from.len() - at;
        to.copy_from_slice(&from[end - to.len()..end]);
        to.reverse();
    })
}

fn rep(call: &mut Call<'_>) -> Result<Next, Throw> {
    let string = call.bytes_argument(0)?;
    let count = call.integer_argument(1)?;
    let separator = if call.get(2).is_nil() {
        None
    } else {
        Some(call.bytes_argument(2)?)
    };
    let separator = separator.map_or(&b""[..], |s| s.bytes());
    if count <= 0 {
        return Ok(Next::One(call.string(b"")?));
    }
    let bytes = string.bytes();
    let unit = bytes.len() + separator.len();
    if unit > 0 && count as usize > MAX_STRING / unit {
        return Err(call.message("resulting string too large"));
    }
    let total = unit * count as usize - separator.len();
    if total == 0 {
        return Ok(Next::One(call.string(b"")?));
    }
    let slot = call.count().max(3);
    let made = unfilled(call, total, slot)?;
    let mut pace = Pace::default();
    let mut at = 0;
    // One unit, then copies of what is there already.
    for part in [bytes, separator] {
        for part in part.chunks(BYTES) {
            let part = &part[..part.len().min(total - at)];
            fill_at(made, at, part);
            at += part.len();
            pace.bytes(call, part.len())?;
        }
    }
    while at < total {
        // The text repeats itself after any whole number of units.
        let period = at.min(BYTES.max(unit)) / unit * unit;
        let length = period.min(BYTES).min(total - at);
        fill_at(made, at, &made.bytes()[at - period..][..length]);
        at += length;
        pace.bytes(call, length)?;
    }
    Ok(Next::One(made.value()))
}

pub(crate) fn byte(call: &mut Call<'_>) -> Result<Next, Throw> {
    let string = call.bytes_argument(0)?;
    let first = call.optional_integer(1, 1)?;
    let start = range_start(first, string.len());
    let end = range_end(call.optional_integer(2, first)?, string.len());
    if start > end {
        return Ok(Next::Nothing);
    }
    if start == end {
        return Ok(Next::One(Value::small(i32::from(
            string.bytes()[start - 1],
        ))));
    }
    let count = end - start + 1;
    let at = call.count();
    if count >= 1_000_000 || !has_room(call, at + count)? {
        return Err(call.message("string slice too long"));
    }
    let mut pace = Pace::default();
    for (i, byte) in string.bytes()[start - 1..end].iter().enumerate() {
        call.set(at + i, Value::small(i32::from(*byte)));
        pace.step(call)?;
    }
    Ok(Next::Many { at, count })
}

fn char(call: &mut Call<'_>) -> Result<Next, Throw> {
    let mut buffer = Buffer::new();
    for i in 0..call.count() {
        let byte = u8::try_from(call.integer_argument(i)?)
            .map_err(|_| call.argument_error(i, "value out of range"))?;
        buffer.push(call, byte)?;
    }
    let slot = call.count();
    Ok(Next::One(buffer.into_string(call, slot)?))
}

/// Slots `count` and up hold, when a `__tostring` has been called for `%s`, the index of the argument that it was for.
/// That argument is then replaced by its text and the work begins again.
fn format(call: &mut Call<'_>) -> Result<Next, Throw> {
    let count = call.count();
    if call.state() != 0 {
        let index = call.slot(count).as_integer().unwrap_or(0) as usize;
        let text = shown_result(call, count + 1)?;
        call.set(index, text);
    }
    let template = call.bytes_argument(0)?.bytes();
    let mut buffer = Buffer::new();
    let mut at = 0;
    let mut argument = 0;
    let mut pace = Pace::default();
    while at < template.len() {
        pace.step(call)?;
        let rest = &template[at..];
        let literal = memchr::memchr(b'%', rest).unwrap_or(rest.len());
        if literal > 0 {
            buffer.extend(call, &rest[..literal])?;
            at += literal;
            continue;
        }
        if rest.get(1) == Some(&b'%') {
            buffer.push(call, b'%')?;
            at += 2;
            continue;
        }
        argument += 1;
        if argument >= count {
            return Err(call.argument_error(argument, "no value"));
        }
        let directive = Directive::at(rest).map_err(|e| call.message(e))?;
        at += directive.text.len();
        if let Some(next) = convert(call, &mut buffer, directive, argument)? {
            return Ok(next);
        }
    }
    Ok(Next::One(buffer.into_string(call, count)?))
}

/// Appends one argument; `Some` is a call to make first.
fn convert(
    call: &mut Call<'_>,
    buffer: &mut Buffer,
    directive: Directive<'_>,
    i: usize,
) -> Result<Option<Next>, Throw> {
    let flags = |call: &Call<'_>, allowed, precision| {
        directive
            .flags(allowed, precision)
            .map_err(|e| call.message(e))
    };
    match directive.conversion {
        conversion @ (b'd' | b'i' | b'u' | b'o' | b'x' | b'X') => {
            let n = call.integer_argument(i)?;
            let allowed = match conversion {
                b'd' | b'i' => format::INTEGER_FLAGS,
                b'u' => format::UNSIGNED_FLAGS,
                _ => format::HEXADECIMAL_FLAGS,
            };
            let flags = flags(call, allowed, true)?;
            if conversion == b'd' && directive.is_bare() {
                buffer.extend(call, number::integer_text(n).as_bytes())?;
            } else {
                buffer.write(call, |out| {
                    number::append_integer(out, n, conversion, &flags)
                })?;
            }
        }
        conversion @ (b'a' | b'A' | b'e' | b'E' | b'f' | b'g' | b'G') => {
            let f = call.number_argument(i)?;
            let flags = flags(call, format::FLOAT_FLAGS, true)?;
            buffer.write(call, |out| number::append_float(out, f, conversion, &flags))?;
        }
        b'c' => {
            let byte = call.integer_argument(i)? as u8;
            let flags = flags(call, format::TEXT_FLAGS, false)?;
            padded(call, buffer, &[byte], &flags)?;
        }
        b'p' => {
            let value = call.get(i);
            let flags = flags(call, format::TEXT_FLAGS, false)?;
            let has_address = value.is_reference() && !value.has_tag(Tag::BoxedInteger);
            let text = if let Some(text) = value.as_str()
                && text.len() <= SHORT
            {
                // Equal short strings are the same to a program, wherever they lie.
                format!("0x{:012x}", identity(text.bytes()))
            } else if has_address {
                format!("0x{:012x}", value.address() as usize)
            } else {
                "(null)".into()
            };
            padded(call, buffer, text.as_bytes(), &flags)?;
        }
        b'q' => {
            if !directive.is_bare() {
                return Err(call.message("specifier '%q' cannot have modifiers"));
            }
            quote(call, buffer, i)?;
        }
        b's' => {
            let value = call.get(i);
            let short;
            let text = match show(call, value, call.count() + 1, 1)? {
                Shown::Call(next) => {
                    let index = call.integer(i as i64)?;
                    call.set(call.count(), index);
                    return Ok(Some(next));
                }
                Shown::String(value) => value.as_str().map_or(&b""[..], |s| s.bytes()),
                Shown::Short(text) => {
                    short = text;
                    short.as_bytes()
                }
                Shown::Text(text) => {
                    let value = call.string(text.as_bytes())?;
                    call.set(i, value);
                    value.as_str().map_or(&b""[..], |s| s.bytes())
                }
            };
            if directive.is_bare() {
                buffer.extend(call, text)?;
                return Ok(None);
            }
            if text.contains(&0) {
                return Err(call.argument_error(i, "string contains zeros"));
            }
            let flags = flags(call, format::TEXT_FLAGS, true)?;
            let shown = flags.precision.map_or(text.len(), |p| p.min(text.len()));
            padded(call, buffer, &text[..shown], &flags)?;
        }
        _ => return Err(call.message(directive.unknown())),
    }
    Ok(None)
}

fn padded(
    call: &mut Call<'_>,
    buffer: &mut Buffer,
    text: &[u8],
    flags: &Flags,
) -> Result<(), Throw> {
    let fill = flags.width.saturating_sub(text.len());
    if !flags.left {
        buffer.fill(call, b' ', fill)?;
    }
    buffer.extend(call, text)?;
    if flags.left {
        buffer.fill(call, b' ', fill)?;
    }
    Ok(())
}

/// Appends an argument as a literal that the compiler reads as the same value.
fn quote(call: &mut Call<'_>, buffer: &mut Buffer, i: usize) -> Result<(), Throw> {
    let value = call.get(i);
    if let Some(string) = value.as_str() {
        let bytes = string.bytes();
        let mut pace = Pace::default();
        buffer.push(call, b'"')?;
        for (at, &byte) in bytes.iter().enumerate() {
            pace.step(call)?;
            match byte {
                b'"' | b'\\' | b'\n' => buffer.extend(call, &[b'\\', byte])?,
                _ if byte.is_ascii_control() => {
                    let digit_follows = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
                    let text = if digit_follows {
                        format!("\\{byte:03}")
                    } else {
                        format!("\\{byte}")
                    };
                    buffer.extend(call, text.as_bytes())?;
                }
                _ => buffer.push(call, byte)?,
            }
        }
        return buffer.push(call, b'"');
    }
    match value.as_number() {
        // Its decimal form would be read as the negation of a float.
        Some(Number::Integer(i64::MIN)) => buffer.extend(call, b"0x8000000000000000"),
        Some(Number::Integer(_)) => append(call, buffer, value),
        Some(Number::Float(f)) if f.is_nan() => buffer.extend(call, b"(0/0)"),
        Some(Number::Float(f64::INFINITY)) => buffer.extend(call, b"1e9999"),
        Some(Number::Float(f64::NEG_INFINITY)) => buffer.extend(call, b"-1e9999"),
        Some(Number::Float(f)) => buffer.write(call, |out| {
            number::append_float(out, f, b'a', &Flags::default())
        }),
        None => match value.as_boolean() {
            Some(true) => buffer.extend(call, b"true"),
            Some(false) => buffer.extend(call, b"false"),
            None if value.is_nil() => buffer.extend(call, b"nil"),
            None => Err(call.argument_error(i, "value has no literal form")),
        },
    }
}
