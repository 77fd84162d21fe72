//! The kernel's symbols, in a form that a kernel in trouble can use: a module that the loader passes it, beside the boot archive.
//!
//! A panicking kernel can neither allocate nor parse DWARF. So what its report needs is taken out of its ELF file here: which
//! function is at an address, and which line. All numbers are little-endian, 32 bits; addresses count from the image's base,
//! `0xffffffff80000000`; a string is the offset of its length and bytes among the strings. Read by `kernel/src/symbols.rs`.
//!
//! | part | what |
//! | --- | --- |
//! | header | the bytes `VIRSYM1\0`, then how many functions, rows, files, and bytes of strings there are |
//! | functions | start, length, name; by start |
//! | rows | start, file (its number), line (0: none); by start; a row ends where the next begins |
//! | files | name |
//! | strings | length and UTF-8 bytes of each |

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use crate::say;
use addr2line::Context;
use addr2line::gimli::{self, EndianSlice, RunTimeEndian};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

/// Where the kernel's image begins.
const BASE: u64 = 0xffff_ffff_8000_0000;
const MAGIC: &[u8; 8] = b"VIRSYM1\0";

/// The module for the kernel at `kernel`, remembered beside it for as long as it does not change. `None`, with a message, when it
/// cannot be made: the kernel boots without.
pub fn of(kernel: &Path) -> Option<Vec<u8>> {
    made(kernel).unwrap_or_else(|error| {
        say(&format!(
            "no names of functions in reports of faults: {error}"
        ));
        None
    })
}

fn made(kernel: &Path) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    let remembered = PathBuf::from(format!("{}.symbols", kernel.display()));
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let fresh = time(&remembered).zip(time(kernel));
    if fresh.is_some_and(|(symbols, kernel)| symbols > kernel)
        && let Ok(bytes) = fs::read(&remembered)
        && bytes.starts_with(MAGIC)
    {
        return Ok(Some(bytes));
    }
    let file =
        fs::read(kernel).map_err(|error| format!("cannot read {}: {error}", kernel.display()))?;
    // What is no ELF file at all has no symbols to miss.
    if !file.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let bytes = extract(&file).map_err(|error| format!("{}: {error}", kernel.display()))?;
    // In one step, because another run may read it now. Not fatal: the next run makes it again.
    let folder = kernel.parent().unwrap_or(Path::new("."));
    if let Ok(new) = tempfile::NamedTempFile::new_in(folder)
        && fs::write(new.path(), &bytes).is_ok()
    {
        let _ = new.persist(&remembered);
    }
    Ok(Some(bytes))
}

/// The strings, each once.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    known: HashMap<String, u32>,
}

impl Strings {
    fn put(&mut self, text: String) -> u32 {
        let next = self.bytes.len() as u32;
        *self.known.entry(text).or_insert_with_key(|text| {
            self.bytes.extend((text.len() as u32).to_le_bytes());
            self.bytes.extend(text.as_bytes());
            next
        })
    }
}

/// Takes the functions and lines out of an ELF file.
fn extract(file: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let elf = object::File::parse(file)?;
    let mut strings = Strings::default();
    let offset = |address: u64| u32::try_from(address.checked_sub(BASE)?).ok();

    let mut functions: Vec<[u32; 3]> = elf
        .symbols()
        // Assembly's labels have no kind.
        .filter(|symbol| matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown))
        .filter(|symbol| {
            let section = symbol.section_index();
            let section = section.and_then(|index| elf.section_by_index(index).ok());
            section.is_some_and(|section| section.kind() == SectionKind::Text)
        })
        .filter_map(|symbol| {
            let start = offset(symbol.address())?;
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            // Without the hash at the end: it tells a person nothing.
            let name = format!("{:#}", rustc_demangle::demangle(name));
            Some([start, symbol.size() as u32, strings.put(name)])
        })
        .collect();
    functions.sort_unstable_by_key(|&[start, length, _]| (start, std::cmp::Reverse(length)));
    functions.dedup_by_key(|&mut [start, ..]| start);

    let load = |section: gimli::SectionId| -> Result<Cow<'_, [u8]>, object::Error> {
        match elf.section_by_name(section.name()) {
            Some(section) => section.uncompressed_data(),
            None => Ok(Cow::Borrowed(&[])),
        }
    };
    let sections = gimli::DwarfSections::load(load)?;
    let dwarf = sections.borrow(|data| EndianSlice::new(data, RunTimeEndian::Little));
    let context = Context::from_dwarf(dwarf)?;
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut files: Vec<u32> = Vec::new();
    let mut rows: Vec<[u32; 3]> = Vec::new();
    for (start, length, location) in context.find_location_range(BASE, u64::MAX)? {
        let Some(from) = offset(start) else { continue };
        let name = location.file.map_or("?", short).to_owned();
        let number = *numbers.entry(name).or_insert_with_key(|name| {
            files.push(strings.put(name.clone()));
            files.len() as u32 - 1
        });
        rows.push([from, number, location.line.unwrap_or(0)]);
        // Ends here, unless the next row begins at the same address, which then counts.
        rows.push([from.saturating_add(length as u32), number, 0]);
    }
    // Of those at one address, the one with a line comes last and stays.
    rows.sort_by_key(|&[start, _, line]| (start, line));
    let mut kept: Vec<[u32; 3]> = Vec::new();
    for row in rows {
        match kept.last_mut() {
            Some(last) if last[0] == row[0] => *last = row,
            Some(last) if last[1..] == row[1..] => {}
            _ => kept.push(row),
        }
    }

    let mut bytes = MAGIC.to_vec();
    let counts = [
        functions.len(),
        kept.len(),
        files.len(),
        strings.bytes.len(),
    ];
    let numbers = counts.iter().map(|&count| count as u32);
    let numbers = numbers.chain(functions.into_iter().flatten());
    let numbers = numbers.chain(kept.into_iter().flatten()).chain(files);
    bytes.extend(numbers.flat_map(u32::to_le_bytes));
    bytes.extend(strings.bytes);
    Ok(bytes)
}

/// A source file's path from its package on: the rest depends on where it was built.
fn short(path: &str) -> &str {
    let marks = [("/library/", 1), ("/registry/src/", "/registry/src/".len())];
    for (mark, skip) in marks {
        if let Some(at) = path.rfind(mark) {
            let rest = &path[at + skip..];
            // Behind the registry's own name.
            return match mark {
                "/registry/src/" => rest.split_once('/').map_or(rest, |(_, rest)| rest),
                _ => rest,
            };
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.and_then(Path::to_str).unwrap_or_default();
    path.strip_prefix(root)
        .map_or(path, |rest| rest.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_short() {
        assert_eq!(
            short("/rustc/1234/library/core/src/fmt/mod.rs"),
            "library/core/src/fmt/mod.rs"
        );
        assert_eq!(
            short("/home/x/.cargo/registry/src/index.crates.io-99/spin-0.12.0/src/once.rs"),
            "spin-0.12.0/src/once.rs"
        );
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(
            short(root.join("kernel/src/run.rs").to_str().unwrap()),
            "kernel/src/run.rs"
        );
        assert_eq!(short("src/lib.rs"), "src/lib.rs");
    }

    /// This test's own executable is an ELF file with symbols and lines, though not at the kernel's addresses.
    #[test]
    fn a_program_elsewhere_has_no_symbols_in_the_kernels_range() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let bytes = extract(&own).unwrap();
        assert_eq!(&bytes[..8], MAGIC);
        assert_eq!(&bytes[8..16], &[0; 8]);
        assert!(extract(b"no ELF").is_err());
    }
}
