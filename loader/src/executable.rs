//! The kernel's ELF64 file: checked, measured, laid out in memory, relocated (System V ABI, gABI chapters 4 and 5 and the
//! AMD64 supplement; Limine protocol, "Entry memory layout").

use crate::{PAGE, align_down, align_up, paging::Access};
use core::fmt;
use elf::{
    ElfBytes, ParseError, abi,
    endian::LittleEndian,
    file::Class,
    parse::{ParseAt, ParsingTable},
    relocation::Rela,
    segment::ProgramHeader,
};

/// The lowest virtual address at which the protocol allows a kernel.
pub const LOWEST: u64 = 0xffff_ffff_8000_0000;

/// The most program headers that load something.
const SEGMENT_CAPACITY: usize = 32;

/// Relative relocations packed as a bitmap; not in the `elf` crate.
const DT_RELR: i64 = 36;

/// What may be wrong with a kernel.
#[derive(Debug)]
pub enum Error {
    /// Not an ELF file, or a damaged one.
    Malformed(ParseError),
    /// An ELF file, but not a 64-bit x86 executable.
    WrongMachine,
    /// Nothing in it is to be loaded.
    Empty,
    /// A segment contradicts itself, the file, or another segment. Its virtual address.
    BadSegment(u64),
    /// A segment below [`LOWEST`].
    TooLow(u64),
    /// More loaded segments than there is room for.
    TooManySegments,
    /// The entry point lies in no executable segment.
    BadEntry(u64),
    /// A relocation that is not relative, or that lies outside the image.
    BadRelocation,
}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Error {
        Error::Malformed(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Malformed(reason) => write!(f, "the kernel is not a sound ELF file: {reason}"),
            Error::WrongMachine => write!(f, "the kernel is not an x86-64 ELF64 executable"),
            Error::Empty => write!(f, "the kernel has no segment to load"),
            Error::BadSegment(at) => write!(f, "the kernel's segment at {at:#x} is unsound"),
            Error::TooLow(at) => {
                write!(f, "the kernel's segment at {at:#x} lies below {LOWEST:#x}")
            }
            Error::TooManySegments => write!(
                f,
                "the kernel has more than {SEGMENT_CAPACITY} segments to load"
            ),
            Error::BadEntry(at) => write!(
                f,
                "the kernel's entry point {at:#x} is in no executable segment"
            ),
            Error::BadRelocation => write!(
                f,
                "the kernel needs relocations other than relative ones in its image"
            ),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Segment<'a> {
    /// Where it goes, slide included.
    base: u64,
    /// One past its last byte in memory.
    end: u64,
    access: Access,
    data: &'a [u8],
}

/// A range of the image's pages that share their access rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First virtual address, a multiple of a page.
    pub base: u64,
    /// One past the last, a multiple of a page.
    pub end: u64,
    /// What the kernel's tables allow there.
    pub access: Access,
}

/// A kernel that can be loaded.
#[derive(Debug)]
pub struct Executable<'a> {
    segments: [Segment<'a>; SEGMENT_CAPACITY],
    count: usize,
    base: u64,
    end: u64,
    slide: u64,
    entry: u64,
    dynamic: Option<(u64, u64)>,
}

impl<'a> Executable<'a> {
    /// Reads and checks the headers. A position-independent kernel linked below [`LOWEST`] is slid up by it.
    pub fn parse(file: &'a [u8]) -> Result<Executable<'a>, Error> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
        let header = &elf.ehdr;
        let relocatable = header.e_type == abi::ET_DYN;
        if header.class != Class::ELF64
            || header.e_machine != abi::EM_X86_64
            || !(relocatable || header.e_type == abi::ET_EXEC)
        {
            return Err(Error::WrongMachine);
        }
        let headers = elf.segments().ok_or(Error::Empty)?;
        let loads = || {
            headers
                .iter()
                .filter(|header| header.p_type == abi::PT_LOAD && header.p_memsz > 0)
        };
        let lowest = loads()
            .map(|header| header.p_vaddr)
            .min()
            .ok_or(Error::Empty)?;
        let slide = if relocatable && lowest < LOWEST {
            LOWEST
        } else {
            0
        };

        const NOTHING: Segment<'static> = Segment {
            base: 0,
            end: 0,
            access: Access {
                write: false,
                execute: false,
                write_combining: false,
            },
            data: &[],
        };
        let mut executable = Executable {
            segments: [NOTHING; SEGMENT_CAPACITY],
            count: 0,
            base: 0,
            end: 0,
            slide,
            entry: header.e_entry.wrapping_add(slide),
            dynamic: None,
        };
        for header in loads() {
            let segment = segment(&elf, &header, slide)?;
            *executable
                .segments
                .get_mut(executable.count)
                .ok_or(Error::TooManySegments)? = segment;
            executable.count += 1;
        }
        executable.segments[..executable.count].sort_unstable_by_key(|segment| segment.base);
        let segments = executable.segments();
        for pair in segments.windows(2) {
            if pair[1].base < pair[0].end {
                return Err(Error::BadSegment(pair[1].base));
            }
        }
        let entry = executable.entry;
        if !segments
            .iter()
            .any(|segment| segment.access.execute && (segment.base..segment.end).contains(&entry))
        {
            return Err(Error::BadEntry(entry));
        }
        let base = align_down(segments[0].base, PAGE);
        let last = segments[segments.len() - 1];
        executable.end = align_up(last.end, PAGE).ok_or(Error::BadSegment(last.base))?;
        executable.base = base;
        if relocatable {
            executable.dynamic = headers
                .iter()
                .find(|header| header.p_type == abi::PT_DYNAMIC)
                .map(|header| (header.p_vaddr, header.p_memsz));
        }
        Ok(executable)
    }

    fn segments(&self) -> &[Segment<'a>] {
        &self.segments[..self.count]
    }

    /// First virtual address of the image, a multiple of a page.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes from the first page to the end of the last.
    pub fn length(&self) -> u64 {
        self.end - self.base
    }

    /// Where the ELF header says to begin.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// How many bytes at the image's beginning can differ from zero because they came from the file.
    pub fn file_backed(&self) -> u64 {
        self.segments()
            .iter()
            .map(|segment| segment.base + segment.data.len() as u64 - self.base)
            .max()
            .unwrap_or(0)
    }

    /// Writes the image into `image`, which stands for the virtual range from [`Executable::base`] on and is
    /// [`Executable::length`] bytes long: the file's bytes, zeroes everywhere else, relative relocations applied.
    pub fn load(&self, image: &mut [u8]) -> Result<(), Error> {
        let mut done = 0;
        for segment in self.segments() {
            let offset = (segment.base - self.base) as usize;
            image[done..offset].fill(0);
            done = offset + segment.data.len();
            image[offset..done].copy_from_slice(segment.data);
        }
        image[done..].fill(0);
        self.relocate(image)
    }

    fn relocate(&self, image: &mut [u8]) -> Result<(), Error> {
        let Some((dynamic, length)) = self.dynamic else {
            return Ok(());
        };
        let (mut table, mut bytes) = (0, 0);
        let entries = self.part(image, dynamic, length)?;
        for entry in
            ParsingTable::<_, elf::dynamic::Dyn>::new(LittleEndian, Class::ELF64, entries).iter()
        {
            match entry.d_tag {
                abi::DT_NULL => break,
                abi::DT_RELA => table = entry.d_ptr(),
                abi::DT_RELASZ => bytes = entry.d_val(),
                abi::DT_REL | abi::DT_JMPREL | DT_RELR => return Err(Error::BadRelocation),
                _ => {}
            }
        }
        let size = Rela::size_for(Class::ELF64) as u64;
        for index in 0..bytes / size {
            let record = self.part(image, table.wrapping_add(index * size), size)?;
            let relocation = Rela::parse_at(LittleEndian, Class::ELF64, &mut 0, record)?;
            match relocation.r_type {
                abi::R_X86_64_NONE => {}
                abi::R_X86_64_RELATIVE => {
                    let value = self.slide.wrapping_add(relocation.r_addend as u64);
                    let at = self.offset(relocation.r_offset, 8)?;
                    image[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
                _ => return Err(Error::BadRelocation),
            }
        }
        Ok(())
    }

    /// Where in the image `length` bytes at a virtual address of the file lie.
    fn offset(&self, address: u64, length: u64) -> Result<usize, Error> {
        let offset = address.wrapping_add(self.slide).wrapping_sub(self.base);
        let end = offset.checked_add(length).ok_or(Error::BadRelocation)?;
        if end <= self.length() {
            Ok(offset as usize)
        } else {
            Err(Error::BadRelocation)
        }
    }

    fn part<'i>(&self, image: &'i [u8], address: u64, length: u64) -> Result<&'i [u8], Error> {
        let offset = self.offset(address, length)?;
        Ok(&image[offset..offset + length as usize])
    }

    /// The image's pages in order, as runs of equal rights. A page that two segments share has the rights of both; a page
    /// of no segment is in no run.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut page = self.base;
        core::iter::from_fn(move || {
            while page < self.end && self.access_of_page(page).is_none() {
                page += PAGE;
            }
            let access = (page < self.end)
                .then(|| self.access_of_page(page))
                .flatten()?;
            let base = page;
            while page < self.end && self.access_of_page(page) == Some(access) {
                page += PAGE;
            }
            Some(Run {
                base,
                end: page,
                access,
            })
        })
    }

    fn access_of_page(&self, page: u64) -> Option<Access> {
        self.segments()
            .iter()
            .filter(|segment| segment.base < page + PAGE && page < segment.end)
            .map(|segment| segment.access)
            .reduce(|one, other| Access {
                write: one.write || other.write,
                execute: one.execute || other.execute,
                write_combining: false,
            })
    }
}

fn segment<'a>(
    elf: &ElfBytes<'a, LittleEndian>,
    header: &ProgramHeader,
    slide: u64,
) -> Result<Segment<'a>, Error> {
    let unsound = Error::BadSegment(header.p_vaddr);
    let Some(base) = header.p_vaddr.checked_add(slide) else {
        return Err(unsound);
    };
    if base < LOWEST {
        return Err(Error::TooLow(base));
    }
    // The last page of the address space stays free, so that no end ever wraps around.
    let end = base
        .checked_add(header.p_memsz)
        .filter(|end| *end <= u64::MAX - PAGE);
    let (Some(end), true) = (end, header.p_filesz <= header.p_memsz) else {
        return Err(unsound);
    };
    Ok(Segment {
        base,
        end,
        access: Access {
            write: header.p_flags & abi::PF_W != 0,
            execute: header.p_flags & abi::PF_X != 0,
            write_combining: false,
        },
        data: elf.segment_data(header)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    struct Header {
        kind: u32,
        flags: u32,
        address: u64,
        data: Vec<u8>,
        memory: u64,
    }

    fn load(flags: u32, address: u64, data: &[u8], memory: u64) -> Header {
        Header {
            kind: abi::PT_LOAD,
            flags,
            address,
            data: data.to_vec(),
            memory,
        }
    }

    fn elf(kind: u16, entry: u64, headers: &[Header]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(kind.to_le_bytes());
        file.extend(abi::EM_X86_64.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(entry.to_le_bytes());
        file.extend(64_u64.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        for half in [64, 56, headers.len() as u16, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut offset = 64 + 56 * headers.len() as u64;
        for header in headers {
            file.extend(header.kind.to_le_bytes());
            file.extend(header.flags.to_le_bytes());
            for word in [
                offset,
                header.address,
                header.address,
                header.data.len() as u64,
                header.memory,
                0x1000,
            ] {
                file.extend(word.to_le_bytes());
            }
            offset += header.data.len() as u64;
        }
        for header in headers {
            file.extend(&header.data);
        }
        file
    }

    const R: u32 = abi::PF_R;
    const RX: u32 = abi::PF_R | abi::PF_X;
    const RW: u32 = abi::PF_R | abi::PF_W;

    fn typical() -> Vec<u8> {
        elf(
            abi::ET_EXEC,
            LOWEST + 0x10,
            &[
                load(RX, LOWEST, &[0x90; 0x1800], 0x1800),
                load(R, LOWEST + 0x3000, &[1; 0x10], 0x10),
                load(RW, LOWEST + 0x3800, &[2; 0x20], 0x4000),
            ],
        )
    }

    #[test]
    fn layout_and_contents() {
        let file = typical();
        let kernel = Executable::parse(&file).unwrap();
        assert_eq!(
            (kernel.base(), kernel.length(), kernel.entry()),
            (LOWEST, 0x8000, LOWEST + 0x10)
        );
        assert_eq!(kernel.file_backed(), 0x3820);
        let mut image = vec![0xee; 0x8000];
        kernel.load(&mut image).unwrap();
        assert_eq!(image[..0x1800], [0x90; 0x1800]);
        assert!(image[0x1800..0x3000].iter().all(|byte| *byte == 0));
        assert_eq!(image[0x3000..0x3010], [1; 16]);
        assert_eq!(image[0x3800..0x3820], [2; 32]);
        assert!(image[0x3820..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn rights_of_runs() {
        let file = typical();
        let kernel = Executable::parse(&file).unwrap();
        let access = |write, execute| Access {
            write,
            execute,
            write_combining: false,
        };
        assert_eq!(
            kernel.runs().collect::<Vec<_>>(),
            [
                Run {
                    base: LOWEST,
                    end: LOWEST + 0x2000,
                    access: access(false, true)
                },
                Run {
                    base: LOWEST + 0x3000,
                    end: LOWEST + 0x8000,
                    access: access(true, false)
                },
            ]
        );
    }

    #[test]
    fn position_independent_kernels_are_slid_and_relocated() {
        let mut data = Vec::new();
        for word in [
            abi::DT_RELA as u64,
            0x1040,
            abi::DT_RELASZ as u64,
            24,
            abi::DT_NULL as u64,
            0,
            0,
            0,
        ] {
            data.extend(word.to_le_bytes());
        }
        for word in [0x1058, u64::from(abi::R_X86_64_RELATIVE), 0x20] {
            data.extend(word.to_le_bytes());
        }
        let dynamic = Header {
            kind: abi::PT_DYNAMIC,
            flags: RW,
            address: 0x1000,
            data: vec![],
            memory: 0x40,
        };
        let headers = [
            load(RX, 0, &[0x90; 16], 16),
            load(RW, 0x1000, &data, 0x100),
            dynamic,
        ];
        let file = elf(abi::ET_DYN, 4, &headers);
        let kernel = Executable::parse(&file).unwrap();
        assert_eq!((kernel.base(), kernel.entry()), (LOWEST, LOWEST + 4));
        let mut image = vec![0; kernel.length() as usize];
        kernel.load(&mut image).unwrap();
        assert_eq!(image[0x1058..0x1060], (LOWEST + 0x20).to_le_bytes());

        for (position, value) in [(0x48, 6_u8), (0x41, 0x90), (0x09, 0xff), (0x18, 0xff)] {
            let mut headers = elf(abi::ET_DYN, 4, &headers);
            let start = headers.len() - data.len();
            headers[start + position] = value;
            headers[start + 0x1a] = if position == 0x18 { 1 } else { 0 };
            let kernel = Executable::parse(&headers).unwrap();
            assert!(kernel.load(&mut image).is_err(), "{position:#x}");
        }
    }

    #[test]
    fn refusals() {
        let text = || load(RX, LOWEST, &[0x90; 16], 16);
        let refused = |headers: &[Header]| {
            Executable::parse(&elf(abi::ET_EXEC, LOWEST, headers)).unwrap_err()
        };
        assert!(matches!(refused(&[]), Error::Empty));
        assert!(matches!(
            refused(&[load(RX, 0x100000, &[0x90; 16], 16)]),
            Error::TooLow(0x100000)
        ));
        assert!(matches!(
            refused(&[text(), load(RW, LOWEST + 8, &[], 16)]),
            Error::BadSegment(_)
        ));
        assert!(matches!(
            refused(&[text(), load(RW, LOWEST + 0x1000, &[0; 8], 4)]),
            Error::BadSegment(_)
        ));
        assert!(matches!(
            refused(&[text(), load(RW, u64::MAX - 8, &[], 0x1000)]),
            Error::BadSegment(_)
        ));
        assert!(matches!(
            refused(&[load(RW, LOWEST, &[0; 8], 8)]),
            Error::BadEntry(LOWEST)
        ));
        let many: Vec<_> = (0..40)
            .map(|index| load(RX, LOWEST + index * 0x1000, &[0x90], 1))
            .collect();
        assert!(matches!(refused(&many), Error::TooManySegments));

        let mut arm = typical();
        arm[18] = 183;
        assert!(matches!(Executable::parse(&arm), Err(Error::WrongMachine)));
        assert!(matches!(
            Executable::parse(b"#!/bin/sh\n"),
            Err(Error::Malformed(_))
        ));
    }

    #[test]
    fn truncated_anywhere_is_an_error() {
        let file = typical();
        for length in 0..file.len() {
            assert!(Executable::parse(&file[..length]).is_err(), "{length}");
        }
    }
}
