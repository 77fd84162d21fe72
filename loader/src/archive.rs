//! The boot image: a ustar archive (POSIX.1-2017, pax, "ustar Interchange Format") whose member `kernel` is the kernel's
//! ELF file; every other file in it is a module, in the archive's order.

use core::fmt;
use tar_no_std::{CorruptDataError, TarArchiveRef};

/// The member that is the kernel.
pub const KERNEL: &str = "kernel";

/// The longest path of a member in bytes, with the `/` that the protocol puts first.
pub const PATH_CAPACITY: usize = 257;

/// What may be wrong with a boot image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not an archive, or a damaged one.
    Corrupt(CorruptDataError),
    /// No member is called `kernel`.
    NoKernel,
    /// A member's name is not UTF-8.
    BadName,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Corrupt(reason) => {
                write!(f, "the boot image is not a sound ustar archive: {reason}")
            }
            Error::NoKernel => write!(f, "the boot image has no member '{KERNEL}'"),
            Error::BadName => write!(f, "a member of the boot image has a name that is not UTF-8"),
        }
    }
}

/// A member's path as the kernel gets it: with a leading slash and a terminating zero.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    bytes: [u8; PATH_CAPACITY + 1],
    length: usize,
}

impl Path {
    fn new(name: &str) -> Path {
        let name = name
            .strip_prefix("./")
            .unwrap_or(name)
            .trim_start_matches('/');
        let mut path = Path {
            bytes: [0; PATH_CAPACITY + 1],
            length: name.len().min(PATH_CAPACITY - 1) + 1,
        };
        path.bytes[0] = b'/';
        path.bytes[1..path.length].copy_from_slice(&name.as_bytes()[..path.length - 1]);
        path
    }

    /// The path with its terminating zero.
    pub fn with_zero(&self) -> &[u8] {
        &self.bytes[..=self.length]
    }

    /// The path without its leading slash.
    pub fn relative(&self) -> &[u8] {
        &self.bytes[1..self.length]
    }
}

/// A file in the boot image.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Where it is, from the archive's root.
    pub path: Path,
    /// What is in it.
    pub data: &'a [u8],
}

/// A sound boot image.
#[derive(Clone, Debug)]
pub struct BootImage<'a> {
    archive: TarArchiveRef<'a>,
    kernel: Member<'a>,
}

impl<'a> BootImage<'a> {
    /// Reads the archive, checks every header in it and finds the kernel.
    pub fn new(bytes: &'a [u8]) -> Result<BootImage<'a>, Error> {
        let archive = TarArchiveRef::new(bytes).map_err(Error::Corrupt)?;
        if archive
            .entries()
            .any(|entry| entry.filename().as_str().is_err())
        {
            return Err(Error::BadName);
        }
        let kernel = members(&archive)
            .find(|member| member.path.relative() == KERNEL.as_bytes())
            .ok_or(Error::NoKernel)?;
        Ok(BootImage { archive, kernel })
    }

    /// The kernel's file.
    pub fn kernel(&self) -> Member<'a> {
        self.kernel
    }

    /// The files beside the kernel, in the archive's order.
    pub fn modules(&self) -> impl Iterator<Item = Member<'a>> {
        members(&self.archive).filter(|member| member.path.relative() != KERNEL.as_bytes())
    }
}

fn members<'a>(archive: &TarArchiveRef<'a>) -> impl Iterator<Item = Member<'a>> + use<'a> {
    archive.entries().map(|entry| Member {
        path: Path::new(entry.filename().as_str().unwrap_or_default()),
        data: entry.data(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, vec, vec::Vec};

    /// A ustar archive of regular files.
    pub fn ustar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, data) in files {
            let mut header = vec![0_u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..108].copy_from_slice(b"0000644\0");
            header[108..116].copy_from_slice(b"0000000\0");
            header[116..124].copy_from_slice(b"0000000\0");
            header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
            header[136..148].copy_from_slice(b"00000000000\0");
            header[148..156].fill(b' ');
            header[156] = b'0';
            header[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            archive.extend(header);
            archive.extend(*data);
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    #[test]
    fn kernel_and_modules() {
        let bytes = ustar(&[("kernel", b"ELF"), ("boot.tar", &[7; 600]), ("empty", b"")]);
        let image = BootImage::new(&bytes).unwrap();
        assert_eq!(image.kernel().data, b"ELF");
        assert_eq!(image.kernel().path.with_zero(), b"/kernel\0");
        let modules: Vec<_> = image.modules().collect();
        assert_eq!(modules.len(), 2);
        assert_eq!(modules[0].path.with_zero(), b"/boot.tar\0");
        assert_eq!(modules[0].data, [7; 600]);
        assert_eq!(modules[1].data, b"");
    }

    #[test]
    fn leading_dots_and_slashes_are_dropped() {
        let bytes = ustar(&[("./kernel", b"ELF"), ("/x", b"1")]);
        let image = BootImage::new(&bytes).unwrap();
        assert_eq!(image.kernel().data, b"ELF");
        assert_eq!(image.modules().next().unwrap().path.with_zero(), b"/x\0");
    }

    #[test]
    fn no_kernel() {
        assert_eq!(
            BootImage::new(&ustar(&[("kern", b"ELF")])).err(),
            Some(Error::NoKernel)
        );
    }

    #[test]
    fn damage_is_found() {
        assert!(matches!(BootImage::new(&[]), Err(Error::Corrupt(_))));
        assert!(matches!(
            BootImage::new(&[0x55; 2048]),
            Err(Error::Corrupt(_))
        ));
        let whole = ustar(&[("kernel", &[1; 3000]), ("boot.tar", &[2; 3000])]);
        for length in (0..whole.len()).step_by(512) {
            assert!(
                matches!(BootImage::new(&whole[..length]), Err(Error::Corrupt(_))),
                "{length}"
            );
        }
        for position in [0, 124, 130, 148] {
            let mut broken = whole.clone();
            broken[position] ^= 0x11;
            assert!(BootImage::new(&broken).is_err(), "{position}");
        }
    }
}
