//! `string.pack`, `packsize` and `unpack` (reference manual, 6.4.2).

use core::fmt;

use super::access::Pace;
use super::buffer::{Buffer, long_string};
use super::string::range_start;
use crate::interp::native::{Call, Next, Throw};
use crate::value::Value;

/// The largest integer, in bytes, that a format may name.
const MAX_INTEGER: usize = 16;

/// Bytes of an integer of the language.
const WORD: usize = 8;

/// The largest alignment that the machine asks for.
const MAX_ALIGN: usize = 8;

/// The largest size that a format may add up to: a C `int`, as in Lua.
const MAX_SIZE: usize = i32::MAX as usize;

/// What an option stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Signed,
    Unsigned,
    Float,
    Double,
    /// A string of fixed length.
    Fixed,
    /// A string with its length before it.
    Counted,
    /// A string with a zero behind it.
    Terminated,
    /// One byte.
    Padding,
    /// What the next option would be aligned with.
    Alignment,
    /// Nothing: a setting or a space.
    Nothing,
}

/// What is wrong with a format.
enum Fault {
    Size(usize),
    MissingSize,
    Unknown(u8),
    /// Of the first argument.
    Argument(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Size(size) => {
                write!(f, "integral size ({size}) out of limits [1,{MAX_INTEGER}]")
            }
            Fault::MissingSize => f.write_str("missing size for format option 'c'"),
            Fault::Unknown(option) => {
                write!(f, "invalid format option '{}'", option.escape_ascii())
            }
            Fault::Argument(text) => f.write_str(text),
        }
    }
}

fn refuse(call: &Call<'_>, fault: Fault) -> Throw {
    match fault {
        Fault::Argument(text) => call.argument_error(0, text),
        other => call.message(other),
    }
}

/// One option, placed.
struct Field {
    item: Item,
    /// Bytes of the item, or of the count before a string.
    size: usize,
    /// Bytes of padding before it.
    padding: usize,
}

/// A format that is being read.
struct Format<'a> {
    rest: &'a [u8],
    little: bool,
    align: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Format<'a> {
        Format {
            rest: text,
            little: cfg!(target_endian = "little"),
            align: 1,
        }
    }

    /// A number, if there is one here.
    fn number(&mut self) -> Option<usize> {
        let mut number = None;
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            let value = number.unwrap_or(0);
            if value > (MAX_SIZE - 9) / 10 {
                break;
            }
            number = Some(value * 10 + usize::from(digit - b'0'));
            self.rest = rest;
        }
        number
    }

    fn limited(&mut self, default: usize) -> Result<usize, Fault> {
        match self.number().unwrap_or(default) {
            size @ 1..=MAX_INTEGER => Ok(size),
            size => Err(Fault::Size(size)),
        }
    }

    /// The next option and its size.
    fn option(&mut self) -> Result<(Item, usize), Fault> {
        let [option, rest @ ..] = self.rest else {
            return Ok((Item::Nothing, 0));
        };
        self.rest = rest;
        Ok(match option {
            b'b' => (Item::Signed, 1),
            b'B' => (Item::Unsigned, 1),
            b'h' => (Item::Signed, 2),
            b'H' => (Item::Unsigned, 2),
            b'i' => (Item::Signed, self.limited(4)?),
            b'I' => (Item::Unsigned, self.limited(4)?),
            b'l' | b'j' => (Item::Signed, 8),
            b'L' | b'J' | b'T' => (Item::Unsigned, 8),
            b'f' => (Item::Float, 4),
            b'd' | b'n' => (Item::Double, 8),
            b's' => (Item::Counted, self.limited(WORD)?),
            b'c' => (Item::Fixed, self.number().ok_or(Fault::MissingSize)?),
            b'z' => (Item::Terminated, 0),
            b'x' => (Item::Padding, 1),
            b'X' => (Item::Alignment, 0),
            b' ' => (Item::Nothing, 0),
            b'<' => {
                self.little = true;
                (Item::Nothing, 0)
            }
            b'>' => {
                self.little = false;
                (Item::Nothing, 0)
            }
            b'=' => {
                self.little = cfg!(target_endian = "little");
                (Item::Nothing, 0)
            }
            b'!' => {
                self.align = self.limited(MAX_ALIGN)?;
                (Item::Nothing, 0)
            }
            other => return Err(Fault::Unknown(*other)),
        })
    }

    /// The next option, after `offset` bytes; `None` at the end.
    fn next(&mut self, offset: usize) -> Result<Option<Field>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (item, size) = self.option()?;
        let mut align = size;
        if item == Item::Alignment {
            let next = if self.rest.is_empty() {
                (Item::Fixed, 0)
            } else {
                self.option()?
            };
            if next.0 == Item::Fixed || next.1 == 0 {
                return Err(Fault::Argument("invalid next option for option 'X'"));
            }
            align = next.1;
        }
        let mut padding = 0;
        if align > 1 && item != Item::Fixed {
            let align = align.min(self.align);
            if !align.is_power_of_two() {
                return Err(Fault::Argument("format asks for alignment not power of 2"));
            }
            padding = offset.wrapping_neg() & (align - 1);
        }
        Ok(Some(Field {
            item,
            size,
            padding,
        }))
    }
}

/// The bytes of an integer, sign-extended to any size.
fn integer_bytes(n: u64, negative: bool, size: usize, little: bool) -> [u8; MAX_INTEGER] {
    let mut bytes = [if negative { 0xff } else { 0 }; MAX_INTEGER];
    bytes[..WORD].copy_from_slice(&n.to_le_bytes());
    if !little {
        bytes[..size].reverse();
    }
    bytes
}

/// The integer in these bytes; `None` if it takes more than 64 bits.
fn integer_of(bytes: &[u8], signed: bool, little: bool) -> Option<i64> {
    let mut word = [0; MAX_INTEGER];
    let size = bytes.len();
    word[..size].copy_from_slice(bytes);
    if !little {
        word[..size].reverse();
    }
    let mut low = [0; WORD];
    low.copy_from_slice(&word[..WORD]);
    let low = u64::from_le_bytes(low) as i64;
    if size < WORD {
        let shift = 64 - 8 * size as u32;
        return Some(if signed { low << shift >> shift } else { low });
    }
    let fill = if signed && low < 0 { 0xff } else { 0 };
    word[WORD..size.max(WORD)]
        .iter()
        .all(|&b| b == fill)
        .then_some(low)
}

pub(super) fn pack(call: &mut Call<'_>) -> Result<Next, Throw> {
    let mut format = Format::new(call.bytes_argument(0)?.bytes());
    let mut buffer = Buffer::new();
    let mut pace = Pace::default();
    let mut i = 0;
    while let Some(field) = format
        .next(buffer.len())
        .map_err(|fault| refuse(call, fault))?
    {
        pace.step(call)?;
        buffer.fill(call, 0, field.padding)?;
        let (size, little) = (field.size, format.little);
        if !matches!(field.item, Item::Padding | Item::Alignment | Item::Nothing) {
            i += 1;
        }
        match field.item {
            Item::Signed => {
                let n = call.integer_argument(i)?;
                if size < WORD && !(-(1i64 << (8 * size - 1))..1i64 << (8 * size - 1)).contains(&n)
                {
                    return Err(call.argument_error(i, "integer overflow"));
                }
                buffer.extend(call, &integer_bytes(n as u64, n < 0, size, little)[..size])?;
            }
            Item::Unsigned => {
                let n = call.integer_argument(i)? as u64;
                if size < WORD && n >= 1 << (8 * size) {
                    return Err(call.argument_error(i, "unsigned overflow"));
                }
                buffer.extend(call, &integer_bytes(n, false, size, little)[..size])?;
            }
            Item::Float => {
                let f = call.number_argument(i)? as f32;
                buffer.extend(
                    call,
                    &integer_bytes(f.to_bits().into(), false, 4, little)[..4],
                )?;
            }
            Item::Double => {
                let f = call.number_argument(i)?;
                buffer.extend(call, &integer_bytes(f.to_bits(), false, 8, little)[..8])?;
            }
            Item::Fixed => {
                let bytes = call.bytes_argument(i)?.bytes();
                if bytes.len() > size {
                    return Err(call.argument_error(i, "string longer than given size"));
                }
                buffer.extend(call, bytes)?;
                buffer.fill(call, 0, size - bytes.len())?;
            }
            Item::Counted => {
                let bytes = call.bytes_argument(i)?.bytes();
                if size < WORD && bytes.len() >= 1 << (8 * size) {
                    return Err(call.argument_error(i, "string length does not fit in given size"));
                }
                buffer.extend(
                    call,
                    &integer_bytes(bytes.len() as u64, false, size, little)[..size],
                )?;
                buffer.extend(call, bytes)?;
            }
            Item::Terminated => {
                let bytes = call.bytes_argument(i)?.bytes();
                if memchr::memchr(0, bytes).is_some() {
                    return Err(call.argument_error(i, "string contains zeros"));
                }
                buffer.extend(call, bytes)?;
                buffer.push(call, 0)?;
            }
            Item::Padding => buffer.push(call, 0)?,
            Item::Alignment | Item::Nothing => {}
        }
    }
    let slot = call.count();
    Ok(Next::One(buffer.into_string(call, slot)?))
}

pub(super) fn packsize(call: &mut Call<'_>) -> Result<Next, Throw> {
    let mut format = Format::new(call.bytes_argument(0)?.bytes());
    let mut pace = Pace::default();
    let mut total = 0;
    while let Some(field) = format.next(total).map_err(|fault| refuse(call, fault))? {
        pace.step(call)?;
        if matches!(field.item, Item::Counted | Item::Terminated) {
            return Err(call.argument_error(0, "variable-length format"));
        }
        total += field.size + field.padding;
        if total > MAX_SIZE {
            return Err(call.argument_error(0, "format result too large"));
        }
    }
    Ok(Next::One(call.integer(total as i64)?))
}

pub(super) fn unpack(call: &mut Call<'_>) -> Result<Next, Throw> {
    let mut format = Format::new(call.bytes_argument(0)?.bytes());
    let data = call.bytes_argument(1)?.bytes();
    let mut at = range_start(call.optional_integer(2, 1)?, data.len()) - 1;
    if at > data.len() {
        return Err(call.argument_error(2, "initial position out of string"));
    }
    let first = call.count().max(3);
    let mut slot = first;
    let mut pace = Pace::default();
    while let Some(field) = format.next(at).map_err(|fault| refuse(call, fault))? {
        pace.step(call)?;
        let (size, little) = (field.size, format.little);
        if field.padding + size > data.len() - at {
            return Err(call.argument_error(1, "data string too short"));
        }
        at += field.padding;
        let bytes = &data[at..at + size];
        at += size;
        if call.room(slot + 3).is_err() {
            return Err(call.message("too many results"));
        }
        let value = match field.item {
            Item::Signed | Item::Unsigned => {
                let n = integer_of(bytes, field.item == Item::Signed, little);
                let n = n.ok_or_else(|| {
                    call.message(format_args!(
                        "{size}-byte integer does not fit into Lua Integer"
                    ))
                })?;
                call.integer(n)?
            }
            Item::Float => {
                let mut word = [0; 4];
                word.copy_from_slice(bytes);
                Value::float(f64::from(if little {
                    f32::from_le_bytes(word)
                } else {
                    f32::from_be_bytes(word)
                }))
            }
            Item::Double => {
                let mut word = [0; 8];
                word.copy_from_slice(bytes);
                Value::float(if little {
                    f64::from_le_bytes(word)
                } else {
                    f64::from_be_bytes(word)
                })
            }
            Item::Fixed => long_string(call, bytes, slot)?,
            Item::Counted => {
                let length = integer_of(bytes, false, little);
                let length = length.ok_or_else(|| {
                    call.message(format_args!(
                        "{size}-byte integer does not fit into Lua Integer"
                    ))
                })?;
                // A length beyond 2^63 is negative here, and as unsigned larger than any rest.
                let length = length as u64;
                if length > (data.len() - at) as u64 {
                    return Err(call.argument_error(1, "data string too short"));
                }
                let text = &data[at..at + length as usize];
                at += length as usize;
                long_string(call, text, slot)?
            }
            Item::Terminated => {
                let Some(length) = memchr::memchr(0, &data[at..]) else {
                    return Err(call.argument_error(1, "unfinished string for format 'z'"));
                };
                let text = &data[at..at + length];
                at += length + 1;
                long_string(call, text, slot)?
            }
            Item::Padding | Item::Alignment | Item::Nothing => continue,
        };
        call.set(slot, value);
        slot += 1;
    }
    let position = call.integer(at as i64 + 1)?;
    call.set(slot, position);
    Ok(Next::Many {
        at: first,
        count: slot + 1 - first,
    })
}
