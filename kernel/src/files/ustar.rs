//! Writing an archive in the `ustar` format (POSIX.1-1988, IEEE 1003.1, "ustar Interchange Format").

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::String, vec::Vec};
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
