//! Compiled functions as bytes: `.vbc` files, and what `string.dump` gives.
//!
//! ```text
//! 1b 'V' 'u' 'a'   a byte that no source text begins with, and three that say what follows
//! version          one byte; another version is refused, whatever is in it
//! hash             eight bytes, little-endian: FNV-1a of everything behind them
//! function         as written by `Writer::function`, those declared in it inside
//! ```
//!
//! Numbers are unsigned LEB128, signed ones in zigzag form; texts and lists have their length in front. Code is what the compiler made: no
//! instruction has rewritten itself there. The hash finds damage, not malice: what reading accepts goes to the verifier before it is run.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::memory::{Field, Member, Origin, Scalar, Shape};

use super::function::{Capture, CaptureKind, CaptureSource, Constant, Function, LocalName};

/// What every binary chunk begins with.
pub const SIGNATURE: [u8; 4] = *b"\x1bVua";
/// Changes with the instructions and with the format.
pub const VERSION: u8 = 5;
/// Signature, version and hash.
const HEADER: usize = 13;
/// Functions are nested no deeper than this, so that reading them needs little of the machine's stack.
const MAX_DEPTH: usize = 250;

/// A field's member from here on is an embedded struct; below, a scalar.
const STRUCTS: u64 = 64;

/// Where a struct is declared.
const HERE: u64 = 0;
const MODULE: u64 = 1;
const EMBEDDED: u64 = 2;

/// Writes a function. Without names and lines if `strip` says so: messages of it then say `?`.
pub fn encode(function: &Function, strip: bool) -> Vec<u8> {
    encode_in(function, function, strip)
}

/// As [`encode`], for a function that `chunk` is or declares: with the structs of the chunk.
pub fn encode_in(chunk: &Function, function: &Function, strip: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(encoded_length(chunk, function, strip));
    bytes.extend_from_slice(&SIGNATURE);
    bytes.push(VERSION);
    bytes.extend_from_slice(&[0; 8]);
    write(&mut bytes, chunk, function, strip);
    let hash = hash(&bytes[HEADER..]);
    bytes[HEADER - 8..HEADER].copy_from_slice(&hash.to_le_bytes());
    bytes
}

/// How many bytes [`encode_in`] gives: it takes memory for these once, and for nothing else.
pub fn encoded_length(chunk: &Function, function: &Function, strip: bool) -> usize {
    let mut length = Length(HEADER);
    write(&mut length, chunk, function, strip);
    length.0
}

fn write<S: Sink>(sink: &mut S, chunk: &Function, function: &Function, strip: bool) {
    let mut writer = Writer {
        bytes: sink,
        strip,
        structs: &chunk.structs,
    };
    writer.function(function, None);
}

/// How many bytes of memory [`decode`] takes at most, and the verification of what it gives.
pub fn memory_to_decode(bytes: &[u8]) -> usize {
    (16 << 10) + bytes.len().saturating_mul(96)
}

/// Reads a function that [`encode`] wrote. It is not verified yet.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Function, String> {
    let signature = bytes.len().min(SIGNATURE.len());
    if bytes[..signature] != SIGNATURE[..signature] {
        return Err("not a compiled Vua chunk".into());
    }
    if bytes.len() < HEADER {
        return Err("truncated or damaged chunk".into());
    }
    if bytes[4] != VERSION {
        return Err(alloc::format!(
            "compiled for version {} of the bytecode, not {VERSION}",
            bytes[4]
        ));
    }
    let (header, payload) = bytes.split_at(HEADER);
    if header[HEADER - 8..] != hash(payload).to_le_bytes() {
        return Err("truncated or damaged chunk".into());
    }
    let mut reader = Reader { bytes: payload };
    match reader.function(None, 0) {
        Some(function) if reader.bytes.is_empty() => Ok(function),
        _ => Err("malformed chunk".into()),
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Where encoded bytes go.
trait Sink {
    fn add(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn add(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Only counts them.
struct Length(usize);

impl Sink for Length {
    fn add(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

struct Writer<'a, S> {
    bytes: &'a mut S,
    strip: bool,
    structs: &'a [Shape],
}

impl<S: Sink> Writer<'_, S> {
    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes.add(&[n as u8 | 0x80]);
            n >>= 7;
        }
        self.bytes.add(&[n as u8]);
    }

    fn signed(&mut self, n: i64) {
        self.number((n << 1 ^ n >> 63) as u64);
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes.add(text);
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        for item in items {
            write(self, item);
        }
    }

    /// `outer` is the source of the function around it, which is not written again.
    fn function(&mut self, function: &Function, outer: Option<&Arc<str>>) {
        // Without `..`, so that a new field is not forgotten here.
        let Function {
            source,
            name,
            line,
            last_line,
            code,
            lines,
            constants,
            children,
            captures,
            parameters,
            variadic,
            registers,
            raw_start,
            raw_count,
            parallel_body,
            locals,
            structs: _,
        } = function;
        let structs = if outer.is_none() { self.structs } else { &[] };
        if self.strip {
            self.number(1);
        } else if outer == Some(source) {
            self.number(0);
        } else {
            self.number(2);
            self.text(source.as_bytes());
        }
        match name {
            Some(name) if !self.strip => {
                self.number(1);
                self.text(name.as_bytes());
            }
            _ => self.number(0),
        }
        self.number(u64::from(*line));
        self.number(u64::from(*last_line));
        self.bytes.add(&[
            *parameters,
            u8::from(*variadic) | u8::from(*parallel_body) << 1,
            *registers,
            *raw_start,
            *raw_count,
        ]);
        self.number(code.len() as u64);
        for word in code {
            self.bytes.add(&word.to_le_bytes());
        }
        // Each line as its distance from the one before.
        let mut before = i64::from(*line);
        let lines: &[u32] = if self.strip { &[] } else { lines };
        self.list(lines, |writer, line| {
            writer.signed(i64::from(*line) - before);
            before = i64::from(*line);
        });
        self.list(constants, |writer, constant| match constant {
            Constant::Nil => writer.number(0),
            Constant::Boolean(b) => writer.number(1 + u64::from(*b)),
            Constant::Integer(i) => {
                writer.number(3);
                writer.signed(*i);
            }
            Constant::Float(f) => {
                writer.number(4);
                writer.bytes.add(&f.to_bits().to_le_bytes());
            }
            Constant::String(s) => {
                writer.number(5);
                writer.text(s);
            }
            Constant::Struct(index) => {
                writer.number(6);
                writer.number(u64::from(*index));
            }
        });
        self.list(captures, |writer, capture| {
            match capture.source {
                CaptureSource::Register(register) => {
                    writer.number(0);
                    writer.number(u64::from(register));
                }
                CaptureSource::Capture(index) => {
                    writer.number(1);
                    writer.number(u64::from(index));
                }
                CaptureSource::Itself => writer.number(2),
            }
            writer.number(match capture.kind {
                CaptureKind::Value => 0,
                CaptureKind::Cell => 1,
                CaptureKind::Raw => 2,
                CaptureKind::RawCell => 3,
            });
            let name: &str = if writer.strip { "" } else { &capture.name };
            writer.text(name.as_bytes());
        });
        let locals: &[LocalName] = if self.strip { &[] } else { locals };
        self.list(locals, |writer, local| {
            writer.text(local.name.as_bytes());
            writer.number(u64::from(local.register));
            writer.number(u64::from(local.start));
            writer.number(u64::from(local.end));
        });
        self.list(structs, |writer, shape| {
            writer.text(shape.name.as_bytes());
            let origin = match &shape.origin {
                Origin::Here => HERE,
                Origin::Module(_) => MODULE,
                Origin::Embedded => EMBEDDED,
            };
            let bits = u64::from(shape.packed) | u64::from(shape.outermost) << 1;
            writer.number(bits | origin << 2);
            if let Origin::Module(module) = &shape.origin {
                writer.text(module.as_bytes());
            }
            writer.list(&shape.fields, |writer, field| {
                writer.text(field.name.as_bytes());
                match field.member {
                    Member::Scalar(scalar) => writer.number(scalar as u64),
                    Member::Struct(index) => writer.number(STRUCTS + u64::from(index)),
                }
                writer.number(field.count.map_or(0, |count| u64::from(count) + 1));
            });
        });
        self.list(children, |writer, child| {
            writer.function(child, Some(source))
        });
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            n |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let n = self.number()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    /// A number of items, each of which takes a byte at least: so no list is longer than what is left to read.
    fn count(&mut self) -> Option<usize> {
        self.small::<usize>()
            .filter(|count| *count <= self.bytes.len())
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let count = self.count()?;
        self.take(count)
    }

    fn name(&mut self) -> Option<Arc<str>> {
        core::str::from_utf8(self.text()?).ok().map(Arc::from)
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        let mut items = Vec::new();
        items.try_reserve_exact(count).ok()?;
        for _ in 0..count {
            items.push(read(self)?);
        }
        Some(items)
    }

    fn function(&mut self, outer: Option<&Arc<str>>, depth: usize) -> Option<Function> {
        if depth > MAX_DEPTH {
            return None;
        }
        let source = match self.number()? {
            0 => outer?.clone(),
            1 => outer.cloned().unwrap_or_else(|| Arc::from("?")),
            2 => self.name()?,
            _ => return None,
        };
        let name = match self.number()? {
            0 => None,
            1 => Some(self.name()?),
            _ => return None,
        };
        let line = self.small()?;
        let last_line = self.small()?;
        let &[parameters, bits, registers, raw_start, raw_count] = self.take(5)? else {
            return None;
        };
        if bits > 3 {
            return None;
        }
        let words = self.small::<usize>()?;
        let code = self
            .take(words.checked_mul(4)?)?
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let mut before = i64::from(line);
        let lines = self.list(|reader| {
            before = before.checked_add(reader.signed()?)?;
            u32::try_from(before).ok()
        })?;
        let constants = self.list(|reader| {
            Some(match reader.number()? {
                0 => Constant::Nil,
                1 => Constant::Boolean(false),
                2 => Constant::Boolean(true),
                3 => Constant::Integer(reader.signed()?),
                4 => {
                    let bits = <[u8; 8]>::try_from(reader.take(8)?).ok()?;
                    Constant::Float(f64::from_bits(u64::from_le_bytes(bits)))
                }
                5 => Constant::String(Box::from(reader.text()?)),
                6 => Constant::Struct(reader.small()?),
                _ => return None,
            })
        })?;
        let captures = self.list(|reader| {
            let source = match reader.number()? {
                0 => CaptureSource::Register(reader.small()?),
                1 => CaptureSource::Capture(reader.small()?),
                2 => CaptureSource::Itself,
                _ => return None,
            };
            let kind = match reader.number()? {
                0 => CaptureKind::Value,
                1 => CaptureKind::Cell,
                2 => CaptureKind::Raw,
                3 => CaptureKind::RawCell,
                _ => return None,
            };
            let name = reader.name()?;
            Some(Capture { name, source, kind })
        })?;
        let locals = self.list(|reader| {
            Some(LocalName {
                name: reader.name()?,
                register: reader.small()?,
                start: reader.small()?,
                end: reader.small()?,
            })
        })?;
        let structs = self.list(|reader| {
            let name = reader.name()?;
            let bits = reader.number()?;
            let origin = match bits >> 2 {
                HERE => Origin::Here,
                MODULE => Origin::Module(reader.name()?),
                EMBEDDED => Origin::Embedded,
                _ => return None,
            };
            let fields = reader.list(|reader| {
                let name = reader.name()?;
                let member = match reader.number()? {
                    code if code >= STRUCTS => Member::Struct((code - STRUCTS).try_into().ok()?),
                    code => Member::Scalar(Scalar::from_code(code as u8)?),
                };
                let count = match reader.number()? {
                    0 => None,
                    n => Some(u32::try_from(n - 1).ok()?),
                };
                Some(Field {
                    name,
                    member,
                    count,
                })
            })?;
            Some(Shape {
                name,
                packed: bits & 1 != 0,
                fields,
                outermost: bits & 2 != 0,
                origin,
            })
        })?;
        let children = self.list(|reader| reader.function(Some(&source), depth + 1))?;
        Some(Function {
            source,
            name,
            line,
            last_line,
            code,
            lines,
            constants,
            children,
            captures,
            parameters,
            variadic: bits & 1 != 0,
            registers,
            raw_start,
            raw_count,
            parallel_body: bits & 2 != 0,
            locals,
            structs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn compiled() -> Function {
        let source = b"local a, b = 1, ...\n\
            local t = { 1.5, -7, 1 << 60, 'text', nil, true, false }\n\
            local function f(x, y, ...) b = x local function g() return f, b, y end return g, select('#', ...) end\n\
            for i = 1, 10 do t[i] = f(i) end\n\
            parallel for i = 1, 3 do print(i) end\n\
            return function() return a, t, _ENV end";
        crate::compile::compile(source, "a/b.vua").unwrap()
    }

    #[test]
    fn a_function_survives() {
        let function = compiled();
        let bytes = encode(&function, false);
        let read = decode(&bytes).unwrap();
        assert_eq!(format!("{read:?}"), format!("{function:?}"));
        crate::bytecode::verify(&read).unwrap();
    }

    #[test]
    fn a_stripped_one_runs_as_well_and_knows_no_names() {
        let function = compiled();
        let bytes = encode(&function, true);
        assert!(bytes.len() < encode(&function, false).len());
        let read = decode(&bytes).unwrap();
        assert_eq!(read.code, function.code);
        assert_eq!(&*read.source, "?");
        assert!(read.lines.is_empty() && read.locals.is_empty());
        crate::bytecode::verify(&read).unwrap();
    }

    #[test]
    fn what_is_cut_or_changed_is_refused() {
        let bytes = encode(&compiled(), false);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(decode(&changed).is_err(), "{at}");
        }
        let mut newer = bytes.clone();
        newer[4] = VERSION + 1;
        assert!(decode(&newer).unwrap_err().contains("version"));
    }

    #[test]
    fn functions_nested_too_deeply_are_refused() {
        let mut function = compiled();
        for _ in 0..MAX_DEPTH + 1 {
            let mut outer = compiled();
            outer.children = Vec::from([function]);
            function = outer;
        }
        assert!(decode(&encode(&function, false)).is_err());
    }
}
