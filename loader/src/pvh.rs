//! What QEMU hands over: `hvm_start_info` (Xen, xen/include/public/arch-x86/hvm/start_info.h).

use crate::memory::Firmware;
use core::fmt;
use loader::{
    acpi::PhysicalMemory,
    memory_map::{Kind, Region},
};

const MAGIC: u32 = 0x336e_c578;

/// The longest command line that is passed on, in bytes.
const COMMAND_LINE_CAPACITY: usize = 64 << 10;

/// The most entries that are believed of the memory map.
const MAP_CAPACITY: u32 = 1024;

/// What may be missing in the start information.
#[derive(Clone, Copy, Debug)]
pub enum Error {
    /// All of it.
    StartInfo,
    /// The memory map, as in version 0.
    MemoryMap,
    /// The boot image: no `-initrd` was given.
    BootImage,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::StartInfo => {
                "no PVH start information: start the loader with qemu-system-x86_64 -kernel"
            }
            Error::MemoryMap => "the PVH start information has no memory map",
            Error::BootImage => "no boot image: give one with -initrd",
        })
    }
}

/// What the start information says.
pub struct StartInfo {
    map: &'static [u8],
    /// Physical address and length of the boot image.
    pub boot_image: Option<(u64, u64)>,
    /// The words given with `-append`.
    pub command_line: &'static [u8],
    /// The physical address of ACPI's root pointer, or 0.
    pub rsdp: u64,
}

const MEMORY: &Firmware = &Firmware;

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

impl StartInfo {
    /// Reads the structure at a physical address. What it points to stays where it is: in firmware's memory and in RAM
    /// that the loader does not write.
    pub fn read(physical: u64) -> Result<StartInfo, Error> {
        let info = MEMORY.bytes(physical, 56).ok_or(Error::StartInfo)?;
        let half = |offset| u32_at(info, offset).unwrap_or_default();
        let word = |offset| u64_at(info, offset).unwrap_or_default();
        if half(0) != MAGIC {
            return Err(Error::StartInfo);
        }
        let (version, modules, entries) = (half(4), half(12), half(48));
        let map = (version >= 1 && (1..=MAP_CAPACITY).contains(&entries))
            .then(|| MEMORY.bytes(word(40), 24 * entries as usize))
            .flatten()
            .ok_or(Error::MemoryMap)?;
        let module = (modules > 0).then(|| MEMORY.bytes(word(16), 32)).flatten();
        Ok(StartInfo {
            map,
            boot_image: module.and_then(|module| Some((u64_at(module, 0)?, u64_at(module, 8)?))),
            command_line: string(word(24)),
            rsdp: word(32),
        })
    }

    /// The memory map, in the order given. Kinds are e820's: 1 RAM, 3 ACPI tables, 4 ACPI NVS, 5 bad, all else reserved.
    pub fn memory_map(&self) -> impl Iterator<Item = Region> {
        self.map.chunks_exact(24).filter_map(|entry| {
            let (base, length) = (u64_at(entry, 0)?, u64_at(entry, 8)?);
            let kind = match u32_at(entry, 16)? {
                1 => Kind::Usable,
                3 => Kind::AcpiReclaimable,
                4 => Kind::AcpiNvs,
                5 => Kind::Bad,
                _ => Kind::Reserved,
            };
            Some(Region {
                base,
                end: base.saturating_add(length),
                kind,
            })
        })
    }

    /// The boot image's bytes.
    pub fn boot_image_bytes(&self) -> Result<&'static [u8], Error> {
        let (base, length) = self.boot_image.ok_or(Error::BootImage)?;
        MEMORY
            .bytes(base, length as usize)
            .filter(|bytes| !bytes.is_empty())
            .ok_or(Error::BootImage)
    }
}

fn string(physical: u64) -> &'static [u8] {
    (1..=COMMAND_LINE_CAPACITY)
        .map_while(|length| MEMORY.bytes(physical, length))
        .find(|bytes| bytes.ends_with(&[0]))
        .map(|bytes| &bytes[..bytes.len() - 1])
        .unwrap_or_default()
}
