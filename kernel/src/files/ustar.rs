//! Archives in the `ustar` format (POSIX.1-1988, IEEE 1003.1, "ustar Interchange Format"): writing, and reading in place.
//!
//! The reader trusts nothing: it gives every member that is whole, up to the first damage, which it then names.

use core::fmt;

/// Why a member cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The name does not fit: at most 100 bytes, or up to 155 more before a `/`.
    Name,
    /// The file is 8 GiB or larger.
    Size,
}

/// Bytes in a block.
pub const BLOCK: usize = 512;

fn octal(field: &mut [u8], value: u64) {
    // The last byte stays NUL.
    let digits = field.len() - 1;
    for (index, byte) in field[..digits].iter_mut().enumerate() {
        *byte = b'0' + (value >> (3 * (digits - 1 - index)) & 7) as u8;
    }
}

/// Splits a name into what goes into the prefix field and the name field.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((&[], name));
    }
    let slash = (name.len() - 101..name.len().min(156)).find(|&at| name[at] == b'/')?;
    (slash + 1 < name.len()).then(|| (&name[..slash], &name[slash + 1..]))
}

/// The header block of a regular file of `size` bytes, modified at `time` (seconds since 1970).
pub fn header(name: &str, size: u64, time: u64) -> Result<[u8; BLOCK], Error> {
    let mut block = [0; BLOCK];
    let (prefix, rest) = split(name.as_bytes())
        .filter(|(_, rest)| !rest.is_empty())
        .ok_or(Error::Name)?;
    if size >= 1 << 33 {
        return Err(Error::Size);
    }
    block[..rest.len()].copy_from_slice(rest);
    octal(&mut block[100..108], 0o644);
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], time);
    block[148..156].fill(b' ');
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[345..345 + prefix.len()].copy_from_slice(prefix);
    let sum = block.iter().map(|&byte| u64::from(byte)).sum();
    // Six digits, NUL, blank.
    octal(&mut block[148..155], sum);
    block[155] = b' ';
    Ok(block)
}

/// Writes one regular file: header, content, padding.
pub fn member(
    name: &str,
    content: &[u8],
    time: u64,
    write: &mut impl FnMut(&[u8]),
) -> Result<(), Error> {
    let header = header(name, content.len() as u64, time)?;
    write(&header);
    write(content);
    let padding = content.len().next_multiple_of(BLOCK) - content.len();
    write(&[0; BLOCK][..padding]);
    Ok(())
}

/// Writes the archive's end: two zero blocks.
pub fn end(write: &mut impl FnMut(&[u8])) {
    write(&[0; 2 * BLOCK]);
}

/// A regular file in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The prefix field, which stands before the name with a slash between; mostly empty.
    pub prefix: &'a [u8],
    /// The name field.
    pub name: &'a [u8],
    /// The content.
    pub content: &'a [u8],
}

/// Where and why an archive cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Offset of the header block.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at byte {}", self.what, self.at)
    }
}

/// Calls `visit` with each regular file, in order. On an error, those before the damage have been visited.
pub fn read<'a>(bytes: &'a [u8], mut visit: impl FnMut(Member<'a>)) -> Result<(), Damage> {
    let mut at = 0;
    loop {
        let damage = |what| Err(Damage { at, what });
        let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) else {
            return damage("the archive ends without its two zero blocks");
        };
        if block.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        // The field itself counts as blanks.
        let field: u64 = block[148..156].iter().map(|&byte| u64::from(byte)).sum();
        if number(&block[148..156]) != Some(sum - field + 8 * u64::from(b' ')) {
            return damage("a header with a wrong checksum");
        }
        let size = number(&block[124..136]).and_then(|size| usize::try_from(size).ok());
        let Some(size) = size else {
            return damage("a header with a size that is no number");
        };
        let start = at + BLOCK;
        let end = start.checked_add(size).filter(|&end| end <= bytes.len());
        let Some(end) = end else {
            return damage("a file that is longer than the archive");
        };
        // The magic is `ustar`, with a NUL here and a blank in GNU's old variant, which has no prefix.
        let prefix = if block[257..263] == *b"ustar\0" {
            text(&block[345..500])
        } else {
            &[]
        };
        // NUL: a regular file in archives older than the format. Folders, links and the like are passed over.
        if matches!(block[156], b'0' | 0) {
            visit(Member {
                prefix,
                name: text(&bytes[at..at + 100]),
                content: &bytes[start..end],
            });
        }
        at = end.next_multiple_of(BLOCK);
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A field of octal digits between blanks and NULs.
fn number(field: &[u8]) -> Option<u64> {
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = char::from(digit).to_digit(8)?;
        value.checked_mul(8)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::String, vec::Vec};

    /// Three files, written with the writer above.
    fn archive() -> Vec<u8> {
        let long = String::from("p/").repeat(60) + "name";
        let mut archive = Vec::new();
        let mut write = |bytes: &[u8]| archive.extend_from_slice(bytes);
        for (name, content) in [("one", &b"1"[..]), (&long, &[2; 700]), ("three", b"")] {
            member(name, content, 0, &mut write).unwrap();
        }
        end(&mut write);
        archive
    }

    fn names(bytes: &[u8]) -> (Vec<String>, Result<(), Damage>) {
        let mut names = Vec::new();
        let result = read(bytes, |member| {
            let both = [member.prefix, b"/", member.name].concat();
            names.push(
                String::from_utf8_lossy(&both)
                    .trim_start_matches('/')
                    .into(),
            );
        });
        (names, result)
    }

    #[test]
    fn reads_what_was_written() {
        let (found, result) = names(&archive());
        assert_eq!(result, Ok(()));
        let long = String::from("p/").repeat(60) + "name";
        assert_eq!(found, ["one", &long, "three"]);
        let mut contents = Vec::new();
        read(&archive(), |member| contents.push(member.content.len())).unwrap();
        assert_eq!(contents, [1, 700, 0]);
    }

    #[test]
    fn what_is_whole_is_read_up_to_the_damage() {
        let whole = archive();
        for length in 0..whole.len() {
            let (found, result) = names(&whole[..length]);
            // The zero block at the end is enough of an end.
            assert_eq!(result.is_ok(), length >= whole.len() - BLOCK, "{length}");
            assert!(found.len() <= 3);
        }
        let mut damaged = whole.clone();
        damaged[1024 + 130] = b'9';
        let (found, result) = names(&damaged);
        assert_eq!(found, ["one"]);
        let text = std::format!("{}", result.unwrap_err());
        assert_eq!(text, "a header with a wrong checksum at byte 1024");
    }

    #[test]
    fn hostile_sizes_end_the_archive() {
        for size in [
            "77777777777\0",
            "00000010000\0",
            "-0000000001\0",
            "\u{80}aaaaaaaaa\0",
        ] {
            let mut block = header("victim", 1, 0).unwrap();
            block[124..136].copy_from_slice(&size.as_bytes()[..12]);
            fix_checksum(&mut block);
            let bytes = [&block[..], &[0; 2048]].concat();
            let (found, result) = names(&bytes);
            assert!(found.is_empty() && result.is_err(), "{size:?}");
        }
    }

    fn fix_checksum(block: &mut [u8]) {
        block[148..156].fill(b' ');
        let sum = block[..BLOCK].iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut block[148..155], sum);
    }

    #[test]
    fn random_damage_does_no_harm() {
        let mut random = 0x1234_5678_9abc_def1u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let whole = archive();
        for _ in 0..5_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + next() % 4 {
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
            }
            if next() % 2 == 0 {
                for at in [0, 1024] {
                    fix_checksum(&mut bytes[at..]);
                }
            }
            bytes.truncate(next() as usize % (bytes.len() + 1));
            let total: usize = {
                let mut total = 0;
                let _ = read(&bytes, |member| total += member.content.len());
                total
            };
            assert!(total <= bytes.len());
        }
    }
    use tar_no_std::TarArchiveRef;

    #[test]
    fn an_independent_reader_finds_what_was_written() {
        let long = String::from("a/").repeat(60) + &"n".repeat(90);
        let files: [(&str, &[u8]); 4] = [
            ("plain.txt", b"hello"),
            ("empty", b""),
            ("dir/exact", &[7; 512]),
            (&long, &[9; 1000]),
        ];
        let mut archive = Vec::new();
        let mut write = |bytes: &[u8]| archive.extend_from_slice(bytes);
        for (name, content) in files {
            member(name, content, 1_700_000_000, &mut write).unwrap();
        }
        end(&mut write);
        assert_eq!(archive.len() % BLOCK, 0);
        let found = TarArchiveRef::new(&archive).unwrap();
        let entries: Vec<_> = found.entries().collect();
        assert_eq!(entries.len(), files.len());
        for (entry, (name, content)) in entries.iter().zip(files) {
            assert_eq!(entry.filename().as_str().unwrap(), name);
            assert_eq!(entry.data(), content);
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(header(&"n".repeat(101), 0, 0), Err(Error::Name));
        assert_eq!(header("", 0, 0), Err(Error::Name));
        assert_eq!(header("name/", 0, 0).map(|_| ()), Ok(()));
        assert_eq!(header("n", 1 << 33, 0), Err(Error::Size));
        let edge = "p".repeat(155) + "/" + &"n".repeat(100);
        assert!(header(&edge, 0, 0).is_ok());
        assert_eq!(
            header(&("p".repeat(156) + "/" + &"n".repeat(100)), 0, 0),
            Err(Error::Name)
        );
    }
}
