//! The UTF-8 library (reference manual, 6.5). Without `lax`, code points are at most 10FFFF and no surrogates; with it, up to 7FFFFFFF in up to six bytes.

use super::Builder;
use super::access::Pace;
use super::buffer::Buffer;
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::value::Value;

/// The largest code point that is encoded.
const MAX_LAX: u32 = 0x7fff_ffff;

/// The most results that `codepoint` gives.
const MAX_RESULTS: usize = 1_000_000;

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    let library = builder.library(
        "utf8",
        &[
            ("char", char),
            ("codepoint", codepoint),
            ("len", len),
            ("offset", offset),
        ],
    )?;
    builder.set(
        library,
        "charpattern",
        builder.bytes(b"[\0-\x7F\xC2-\xFD][\x80-\xBF]*")?,
    )?;
    let strict = builder.function("for iterator", |call| following(call, true), &[])?;
    let lax = builder.function("for iterator", |call| following(call, false), &[])?;
    builder.define(library, "utf8.", "codes", codes, &[strict, lax])
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// The code point at the start of `text` and its length in bytes; `None` if it is not well formed.
fn decode(text: &[u8], strict: bool) -> Option<(u32, usize)> {
    let first = *text.first()?;
    if first < 0x80 {
        return Some((u32::from(first), 1));
    }
    let length = first.leading_ones() as usize;
    if !(2..=6).contains(&length) {
        return None;
    }
    let mut code = u32::from(first) & (0x7f >> length);
    for &byte in text.get(1..length)? {
        if !is_continuation(byte) {
            return None;
        }
        code = code << 6 | u32::from(byte & 0x3f);
    }
    // The smallest code point that takes so many bytes.
    let least = [0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000][length - 2];
    if code < least || (strict && char::from_u32(code).is_none()) {
        return None;
    }
    Some((code, length))
}

/// The bytes of a code point of at most 31 bits.
fn encode(code: u32, bytes: &mut [u8; 6]) -> &[u8] {
    if code < 0x80 {
        bytes[0] = code as u8;
        return &bytes[..1];
    }
    let length = match code {
        0..0x800 => 2,
        0x800..0x1_0000 => 3,
        0x1_0000..0x20_0000 => 4,
        0x20_0000..0x400_0000 => 5,
        _ => 6,
    };
    for (i, byte) in bytes[..length].iter_mut().enumerate().skip(1) {
        *byte = 0x80 | (code >> (6 * (length - 1 - i)) & 0x3f) as u8;
    }
    bytes[0] = (0xff00u32 >> length) as u8 | (code >> (6 * (length - 1))) as u8;
    &bytes[..length]
}

/// A position as programs give it, counted from the end if it is negative; 0 if that is before the start.
fn relative(position: i64, length: usize) -> i64 {
    if position >= 0 {
        position
    } else if position.unsigned_abs() > length as u64 {
        0
    } else {
        length as i64 + position + 1
    }
}

fn char(call: &mut Call<'_>) -> Result<Next, Throw> {
    let mut buffer = Buffer::new();
    let mut pace = Pace::default();
    for i in 0..call.count() {
        pace.step(call)?;
        let code = call.integer_argument(i)?;
        let code = u32::try_from(code).ok().filter(|code| *code <= MAX_LAX);
        let code = code.ok_or_else(|| call.argument_error(i, "value out of range"))?;
        let mut bytes = [0; 6];
        buffer.extend(call, encode(code, &mut bytes))?;
    }
    let slot = call.count();
    Ok(Next::One(buffer.into_string(call, slot)?))
}

fn codepoint(call: &mut Call<'_>) -> Result<Next, Throw> {
    let text = call.bytes_argument(0)?.bytes();
    let start = relative(call.optional_integer(1, 1)?, text.len());
    let end = relative(call.optional_integer(2, start)?, text.len());
    let strict = !call.get(3).is_truthy();
    if start < 1 {
        return Err(call.argument_error(1, "out of bounds"));
    }
    if end > text.len() as i64 {
        return Err(call.argument_error(2, "out of bounds"));
    }
    if start > end {
        return Ok(Next::Nothing);
    }
    let first = call.count().max(4);
    let most = (end - start + 1) as usize;
    if most >= MAX_RESULTS || call.room(first + most).is_err() {
        return Err(call.message("string slice too long"));
    }
    let mut at = start as usize - 1;
    let mut slot = first;
    let mut pace = Pace::default();
    while at < end as usize {
        pace.step(call)?;
        let (code, length) =
            decode(&text[at..], strict).ok_or_else(|| call.message("invalid UTF-8 code"))?;
        let code = call.integer(i64::from(code))?;
        call.set(slot, code);
        slot += 1;
        at += length;
    }
    Ok(Next::Many {
        at: first,
        count: slot - first,
    })
}

fn len(call: &mut Call<'_>) -> Result<Next, Throw> {
    let text = call.bytes_argument(0)?.bytes();
    let start = relative(call.optional_integer(1, 1)?, text.len());
    let end = relative(call.optional_integer(2, -1)?, text.len());
    let strict = !call.get(3).is_truthy();
    if start < 1 || start - 1 > text.len() as i64 {
        return Err(call.argument_error(1, "initial position out of bounds"));
    }
    if end > text.len() as i64 {
        return Err(call.argument_error(2, "final position out of bounds"));
    }
    let mut at = start - 1;
    let mut count = 0;
    let mut pace = Pace::default();
    while at < end {
        pace.step(call)?;
        let Some((_, length)) = decode(&text[at as usize..], strict) else {
            let position = call.integer(at + 1)?;
            call.set(0, Value::NIL);
            call.set(1, position);
            return Ok(Next::Many { at: 0, count: 2 });
        };
        at += length as i64;
        count += 1;
    }
    Ok(Next::One(call.integer(count)?))
}

fn offset(call: &mut Call<'_>) -> Result<Next, Throw> {
    let text = call.bytes_argument(0)?.bytes();
    let mut n = call.integer_argument(1)?;
    let default = if n >= 0 { 1 } else { text.len() as i64 + 1 };
    let position = relative(call.optional_integer(2, default)?, text.len());
    if position < 1 || position - 1 > text.len() as i64 {
        return Err(call.argument_error(2, "position out of bounds"));
    }
    let mut at = position as usize - 1;
    let continues = |at: usize| text.get(at).is_some_and(|b| is_continuation(*b));
    let mut pace = Pace::default();
    if n == 0 {
        while at > 0 && continues(at) {
            at -= 1;
            pace.step(call)?;
        }
    } else {
        if continues(at) {
            return Err(call.message("initial position is a continuation byte"));
        }
        if n < 0 {
            while n < 0 && at > 0 {
                at -= 1;
                if !continues(at) || at == 0 {
                    n += 1;
                }
                pace.step(call)?;
            }
        } else {
            n -= 1;
            while n > 0 && at < text.len() {
                at += 1;
                if !continues(at) {
                    n -= 1;
                }
                pace.step(call)?;
            }
        }
    }
    Ok(Next::One(if n == 0 {
        call.integer(at as i64 + 1)?
    } else {
        Value::NIL
    }))
}

fn codes(call: &mut Call<'_>) -> Result<Next, Throw> {
    let text = call.bytes_argument(0)?;
    if text.bytes().first().is_some_and(|b| is_continuation(*b)) {
        return Err(call.argument_error(0, "invalid UTF-8 code"));
    }
    let iterator = call.capture(usize::from(call.get(1).is_truthy()));
    call.set(0, iterator);
    call.set(1, text.value());
    call.set(2, Value::small(0));
    Ok(Next::Many { at: 0, count: 3 })
}

/// The iterator of `codes`.
fn following(call: &mut Call<'_>, strict: bool) -> Result<Next, Throw> {
    let text = call.bytes_argument(0)?.bytes();
    // The position of the last code point, from 1, is the offset behind its first byte.
    let mut at = call
        .get(1)
        .as_integer()
        .and_then(|at| usize::try_from(at).ok())
        .unwrap_or(usize::MAX);
    let mut pace = Pace::default();
    while text.get(at).is_some_and(|b| is_continuation(*b)) {
        at += 1;
        pace.step(call)?;
    }
    if at >= text.len() {
        return Ok(Next::One(Value::NIL));
    }
    let (code, _) = decode(&text[at..], strict)
        .filter(|(_, length)| !text.get(at + length).is_some_and(|b| is_continuation(*b)))
        .ok_or_else(|| call.message("invalid UTF-8 code"))?;
    let (position, code) = (call.integer(at as i64 + 1)?, call.integer(i64::from(code))?);
    call.set(0, position);
    call.set(1, code);
    Ok(Next::Many { at: 0, count: 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        for code in [
            0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x1_0000, 0x10_ffff,
        ] {
            let mut bytes = [0; 6];
            let bytes = encode(code, &mut bytes);
            assert_eq!(decode(bytes, true), Some((code, bytes.len())));
            assert_eq!(
                core::str::from_utf8(bytes)
                    .ok()
                    .and_then(|s| s.chars().next())
                    .map(u32::from),
                Some(code)
            );
        }
        for code in [
            0xd800, 0xdfff, 0x11_0000, 0x1f_ffff, 0x20_0000, 0x3ff_ffff, 0x400_0000, MAX_LAX,
        ] {
            let mut bytes = [0; 6];
            let bytes = encode(code, &mut bytes);
            assert_eq!(decode(bytes, true), None);
            assert_eq!(decode(bytes, false), Some((code, bytes.len())));
        }
    }

    #[test]
    fn what_is_not_well_formed_does_not_decode() {
        for bytes in [
            &b""[..],
            b"\x80",
            b"\xc3",
            b"\xc3(",
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf0\x80\x80\x80",
            b"\xff",
            b"\xfe\x80\x80\x80\x80\x80\x80",
        ] {
            assert_eq!(decode(bytes, false), None, "{bytes:?}");
        }
    }
}
