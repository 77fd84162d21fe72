//! The kernel's symbols: which function is at an address, and which line of the source.
//!
//! The launcher takes them out of the kernel's ELF file (`launch/src/symbols.rs`, which describes the format) and the loader
//! passes them as a module. They are for reports of faults: nothing here allocates, waits or trusts the module, and without
//! one reports have addresses only.

use crate::memory::image;
use core::{fmt, ops::Range};
use spin::Once;

const MAGIC: &[u8; 8] = b"VIRSYM1\0";
/// Magic and four counts.
const HEADER: usize = 24;

/// The tables of a module.
#[derive(Clone, Copy, Debug)]
struct Symbols<'a> {
    functions: &'a [[u8; 12]],
    rows: &'a [[u8; 12]],
    files: &'a [[u8; 4]],
    strings: &'a [u8],
}

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Symbol<'a> {
    name: &'a str,
    /// Bytes from the function's start.
    offset: u32,
    /// File and line.
    line: Option<(&'a str, u32)>,
}

fn number(bytes: &[u8], index: usize) -> u32 {
    let word = bytes.get(index * 4..).and_then(|rest| rest.first_chunk());
    word.copied().map_or(0, u32::from_le_bytes)
}

/// The last entry of a table in order of its first numbers that begins at or before `offset`.
fn last_before(table: &[[u8; 12]], offset: u32) -> Option<&[u8; 12]> {
    let behind = table.partition_point(|entry| number(entry, 0) <= offset);
    table.get(behind.checked_sub(1)?)
}

impl<'a> Symbols<'a> {
    /// The tables, or `None` when the module is not one of symbols or its parts do not fit in.
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.get(HEADER..)?;
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let mut take = |index: usize, size: usize| {
            let length = (number(bytes, index + 2) as usize).checked_mul(size)?;
            let (part, behind) = rest.split_at_checked(length)?;
            rest = behind;
            Some(part)
        };
        let (functions, rows) = (take(0, 12)?, take(1, 12)?);
        let (files, strings) = (take(2, 4)?, take(3, 1)?);
        Some(Self {
            functions: functions.as_chunks().0,
            rows: rows.as_chunks().0,
            files: files.as_chunks().0,
            strings,
        })
    }

    fn string(&self, at: u32) -> &'a str {
        let bytes = self.strings.get(at as usize..).and_then(|rest| {
            let (length, text) = rest.split_first_chunk::<4>()?;
            text.get(..u32::from_le_bytes(*length) as usize)
        });
        bytes
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or("?")
    }

    /// What is `offset` bytes behind the image's base.
    fn find(&self, offset: u32) -> Option<Symbol<'a>> {
        let function = last_before(self.functions, offset)?;
        let (start, length) = (number(function, 0), number(function, 1));
        // Assembly's functions have no length.
        if length != 0 && offset - start >= length {
            return None;
        }
        let row = last_before(self.rows, offset).filter(|row| number(*row, 2) != 0);
        let line = row.and_then(|row| {
            let file = self.files.get(number(row, 1) as usize)?;
            Some((self.string(number(file, 0)), number(row, 2)))
        });
        Some(Symbol {
            name: self.string(number(function, 2)),
            offset: offset - start,
            line,
        })
    }
}

static SYMBOLS: Once<Symbols<'static>> = Once::new();

/// Uses a module's symbols from now on. Returns whether they are any.
pub(crate) fn initialise(module: &'static [u8]) -> bool {
    let symbols = Symbols::new(module);
    if let Some(symbols) = symbols {
        SYMBOLS.call_once(|| symbols);
    }
    symbols.is_some()
}

/// An address of the kernel's code in words: `address function+offset (file:line)`, or as much of it as is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    address: u64,
    /// What is looked up: a return address belongs to the call before it.
    looked_up: u64,
}

impl Place {
    /// Where an instruction is.
    pub(crate) fn of(address: u64) -> Self {
        Self {
            address,
            looked_up: address,
        }
    }

    /// Where a call returns to.
    pub(crate) fn behind_call(address: u64) -> Self {
        Self {
            address,
            looked_up: address.wrapping_sub(1),
        }
    }

    fn symbol(&self) -> Option<Symbol<'static>> {
        let Range { start, end } = image::text();
        if !(start..end).contains(&self.looked_up) {
            return None;
        }
        let offset = u32::try_from(self.looked_up - image::image().start).ok()?;
        SYMBOLS.get()?.find(offset)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#x}", self.address)?;
        let Some(symbol) = self.symbol() else {
            return Ok(());
        };
        let offset = u64::from(symbol.offset) + (self.address - self.looked_up);
        write!(out, " {}+{offset:#x}", symbol.name)?;
        match symbol.line {
            Some((file, line)) => write!(out, " ({file}:{line})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Two functions and a stub, with three rows.
    fn module() -> Vec<u8> {
        let mut strings = Vec::new();
        let mut put = |text: &str| {
            let at = strings.len() as u32;
            strings.extend((text.len() as u32).to_le_bytes());
            strings.extend(text.as_bytes());
            at
        };
        let names = ["first", "second", "stub"].map(&mut put);
        let file = put("a.rs");
        let mut bytes = MAGIC.to_vec();
        let numbers = [3, 3, 1, strings.len() as u32]
            .into_iter()
            .chain([0x10, 8, names[0], 0x20, 16, names[1], 0x40, 0, names[2]])
            .chain([0x10, 0, 3, 0x24, 0, 7, 0x28, 0, 0])
            .chain([file]);
        bytes.extend(numbers.flat_map(u32::to_le_bytes));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn finds_functions_and_lines() {
        let module = module();
        let symbols = Symbols::new(&module).unwrap();
        let find = |offset| {
            symbols
                .find(offset)
                .map(|symbol| (symbol.name, symbol.offset, symbol.line))
        };
        assert_eq!(find(0), None);
        assert_eq!(find(0x10), Some(("first", 0, Some(("a.rs", 3)))));
        assert_eq!(find(0x17), Some(("first", 7, Some(("a.rs", 3)))));
        assert_eq!(find(0x18), None);
        assert_eq!(find(0x25), Some(("second", 5, Some(("a.rs", 7)))));
        assert_eq!(find(0x28), Some(("second", 8, None)));
        assert_eq!(find(0x4000), Some(("stub", 0x3fc0, None)));
    }

    #[test]
    fn a_damaged_module_does_no_harm() {
        let whole = module();
        for length in 0..whole.len() {
            assert!(Symbols::new(&whole[..length]).is_none(), "{length}");
        }
        let mut random = 0x2545_f491_4f6c_dd1du64;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = random as usize % bytes.len();
                bytes[at] = (random >> 32) as u8;
            }
            if let Some(symbols) = Symbols::new(&bytes) {
                for offset in (0..0x60).chain([u32::MAX]) {
                    let _ = symbols.find(offset);
                }
            }
        }
    }
}
