//! Finding ACPI tables (ACPI 6.5, sections 5.2.5 to 5.2.8). Nothing in them is trusted: whatever a pointer, length or checksum
//! says, only memory that [`Memory`] gives is read, and every walk ends.

use super::layout::{padded, view};
use acpi::{rsdp::Rsdp, sdt::SdtHeader};
use core::fmt;

/// Reads physical memory. The kernel's maps it; the direct loader's has it mapped; the tests' is a vector.
pub trait Memory {
    /// `length` bytes at a physical address, or `None` where there is no memory that could hold tables.
    fn bytes(&self, physical: u64, length: usize) -> Option<&[u8]>;
}

/// Bytes of a table's header.
pub(super) const HEADER: usize = size_of::<SdtHeader>();

/// Bytes of a root pointer of revision 0, and of later ones.
const POINTER: usize = 20;
const EXTENDED_POINTER: usize = size_of::<Rsdp>();

/// Longest table that is believed. DSDTs of large machines have some hundred KiB.
const LONGEST: usize = 4 << 20;

/// Most entries of a root table that are looked at; real ones have some dozens.
const MOST: usize = 512;

/// What is wrong with a table, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is nothing at that address.
    OutsideMemory(u64),
    /// Another table than the one pointed to.
    Signature(u64),
    /// A length that no table has.
    Length(u64, u32),
    /// The bytes do not add up to zero.
    Checksum(u64),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideMemory(address) => write!(out, "at {address:#x}: no memory there"),
            Self::Signature(address) => write!(out, "at {address:#x}: wrong signature"),
            Self::Length(address, length) => {
                write!(out, "at {address:#x}: a length of {length} bytes")
            }
            Self::Checksum(address) => write!(out, "at {address:#x}: wrong checksum"),
        }
    }
}

/// Where problems go: what is left out, and why.
pub type Complain<'a> = &'a mut dyn FnMut(fmt::Arguments<'_>);

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

/// The root pointer at physical address `rsdp`, if there is one with a right checksum.
pub fn root_pointer(memory: &impl Memory, rsdp: u64) -> Option<&[u8]> {
    let pointer = memory.bytes(rsdp, POINTER)?;
    (pointer.starts_with(b"RSD PTR ") && sums_to_zero(pointer)).then_some(pointer)
}

/// The table with this signature at this address, header included.
pub(super) fn table<'m>(
    memory: &'m impl Memory,
    address: u64,
    signature: &[u8; 4],
) -> Result<&'m [u8], Problem> {
    let outside = Problem::OutsideMemory(address);
    let bytes = memory.bytes(address, HEADER).ok_or(outside)?;
    if !bytes.starts_with(signature) {
        return Err(Problem::Signature(address));
    }
    let length = view::<SdtHeader>(bytes).ok_or(outside)?.length;
    if !(HEADER..=LONGEST).contains(&(length as usize)) {
        return Err(Problem::Length(address, length));
    }
    let bytes = memory.bytes(address, length as usize).ok_or(outside)?;
    if sums_to_zero(bytes) {
        Ok(bytes)
    } else {
        Err(Problem::Checksum(address))
    }
}

/// The root table: pointers to all others.
#[derive(Clone, Copy, Debug)]
pub struct Root<'m> {
    entries: &'m [u8],
    /// Bytes in an entry.
    width: usize,
}

impl<'m> Root<'m> {
    /// The root that the pointer structure at physical address `rsdp` leads to: the XSDT, or where that is damaged, the RSDT.
    pub fn find(memory: &'m impl Memory, rsdp: u64, complain: Complain<'_>) -> Option<Self> {
        let Some(bytes) = root_pointer(memory, rsdp) else {
            complain(format_args!("the root pointer at {rsdp:#x} is damaged"));
            return None;
        };
        let mut pointer: Rsdp = padded(bytes);
        if pointer.revision >= 2
            && let Some(bytes) = memory
                .bytes(rsdp, EXTENDED_POINTER)
                .filter(|bytes| sums_to_zero(bytes))
        {
            pointer = padded(bytes);
            match table(memory, pointer.xsdt_address, b"XSDT") {
                Ok(table) => {
                    return Some(Self {
                        entries: &table[HEADER..],
                        width: 8,
                    });
                }
                Err(problem) => complain(format_args!("XSDT {problem}; trying the RSDT")),
            }
        }
        match table(memory, pointer.rsdt_address.into(), b"RSDT") {
            Ok(table) => Some(Self {
                entries: &table[HEADER..],
                width: 4,
            }),
            Err(problem) => {
                complain(format_args!("RSDT {problem}"));
                None
            }
        }
    }

    /// The first sound table with this signature. Damaged ones are complained of.
    pub fn table(
        &self,
        memory: &'m impl Memory,
        signature: &[u8; 4],
        complain: Complain<'_>,
    ) -> Option<&'m [u8]> {
        for entry in self.entries.chunks_exact(self.width).take(MOST) {
            let mut address = [0; 8];
            address[..self.width].copy_from_slice(entry);
            match table(memory, u64::from_le_bytes(address), signature) {
                Ok(table) => return Some(table),
                Err(Problem::Signature(_)) => {}
                // Said once, by whoever looks for the first table.
                Err(Problem::OutsideMemory(_)) if signature != b"APIC" => {}
                Err(problem) => {
                    let name = core::str::from_utf8(signature).unwrap_or("?");
                    complain(format_args!("table {name} {problem}; it is left out"));
                }
            }
        }
        None
    }
}
