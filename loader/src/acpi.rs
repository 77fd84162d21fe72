//! The few things that the loader wants from ACPI: the processors and the IO APICs. The tables are read by the kernel's own code for
//! them; what is damaged is left out here without a word, which the kernel says.

pub use drivers::acpi::Memory as PhysicalMemory;
use drivers::acpi::{Record, Root, records, root_pointer};

/// Something that the MADT lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A processor that is there and can be started.
    Processor {
        /// ACPI's name for it.
        uid: u32,
        /// Its local APIC's id.
        apic_id: u32,
    },
    /// An IO APIC.
    IoApic {
        /// The physical address of its registers.
        address: u32,
    },
}

/// True if `rsdp` is the physical address of a root pointer with a right checksum.
pub fn is_root_pointer(memory: &impl PhysicalMemory, rsdp: u64) -> bool {
    root_pointer(memory, rsdp).is_some()
}

/// The root pointer in the BIOS area, where the PVH start information does not give one.
pub fn search_root_pointer(memory: &impl PhysicalMemory) -> Option<u64> {
    (0xe_0000..0x10_0000)
        .step_by(16)
        .find(|address| is_root_pointer(memory, *address))
}

/// The MADT's bytes, header included, or `None` if any pointer on the way to it or checksum is wrong.
pub fn madt(memory: &impl PhysicalMemory, rsdp: u64) -> Option<&[u8]> {
    let quiet = &mut |_: core::fmt::Arguments<'_>| {};
    Root::find(memory, rsdp, quiet)?.table(memory, b"APIC", quiet)
}

/// What a MADT lists, in its order. A record with an impossible length ends the list; one that is too short for its kind,
/// or of another kind, is passed over.
pub fn devices(madt: &[u8]) -> impl Iterator<Item = Device> + '_ {
    records(madt).filter_map(|record| match record {
        Record::Processor { uid, apic_id } => Some(Device::Processor { uid, apic_id }),
        Record::IoApic { address, .. } => Some(Device::IoApic { address }),
        Record::Override { .. } | Record::Damaged { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of an ACPI table's header.
    const HEADER: usize = 36;
    use std::{vec, vec::Vec};

    struct Memory(Vec<u8>);

    impl PhysicalMemory for Memory {
        fn bytes(&self, physical: u64, length: usize) -> Option<&[u8]> {
            let start = usize::try_from(physical).ok()?;
            self.0.get(start..start.checked_add(length)?)
        }
    }

    fn fix_sum(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        bytes[at] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    }

    fn make_table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = signature.to_vec();
        table.extend((HEADER as u32 + body.len() as u32).to_le_bytes());
        table.resize(HEADER, 0);
        table.extend(body);
        fix_sum(&mut table, 9);
        table
    }

    const RECORDS: &[&[u8]] = &[
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 4, 1, 0, 0, 0],
        &[0, 8, 2, 5, 0, 0, 0, 0],
        &[0, 8, 3, 6, 2, 0, 0, 0],
        &[0, 8, 4, 0xff, 1, 0, 0, 0],
        &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0],
        &[9, 16, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0],
        &[0, 3, 9],
        &[4, 6, 0xff, 0, 0, 1],
    ];

    fn expected() -> Vec<Device> {
        vec![
            Device::Processor { uid: 0, apic_id: 0 },
            Device::Processor { uid: 1, apic_id: 4 },
            Device::IoApic {
                address: 0xfec0_0000,
            },
            Device::Processor {
                uid: 7,
                apic_id: 0x100,
            },
        ]
    }

    fn make_madt(records: &[&[u8]]) -> Vec<u8> {
        make_table(b"APIC", &[&[0; 8], records.concat().as_slice()].concat())
    }

    /// Root pointer at 0x100, root table at 0x200, another table at 0x300, MADT at 0x400.
    fn machine(revision: u8) -> Memory {
        let mut memory = vec![0; 0x1000];
        let mut pointer = b"RSD PTR \0BOCHS ".to_vec();
        pointer.push(revision);
        pointer.extend(0x200_u32.to_le_bytes());
        fix_sum(&mut pointer, 8);
        let root = if revision >= 2 {
            pointer.extend(36_u32.to_le_bytes());
            pointer.extend(0x200_u64.to_le_bytes());
            pointer.extend([0; 4]);
            fix_sum(&mut pointer, 32);
            make_table(
                b"XSDT",
                &[0x300_u64.to_le_bytes(), 0x400_u64.to_le_bytes()].concat(),
            )
        } else {
            make_table(
                b"RSDT",
                &[0x300_u32.to_le_bytes(), 0x400_u32.to_le_bytes()].concat(),
            )
        };
        for (at, bytes) in [
            (0x100, pointer),
            (0x200, root),
            (0x300, make_table(b"HPET", &[0; 20])),
            (0x400, make_madt(RECORDS)),
        ] {
            memory[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Memory(memory)
    }

    #[test]
    fn both_kinds_of_root() {
        for revision in [0, 2] {
            let memory = machine(revision);
            assert_eq!(
                devices(madt(&memory, 0x100).unwrap()).collect::<Vec<_>>(),
                expected()
            );
        }
    }

    #[test]
    fn a_broken_xsdt_falls_back_to_nothing_but_never_lies() {
        let mut memory = machine(2);
        memory.0[0x205] ^= 1;
        assert_eq!(madt(&memory, 0x100), None);
    }

    #[test]
    fn every_checksum_counts() {
        for at in [0x101, 0x110, 0x212, 0x226, 0x403, 0x40c, 0x430] {
            let mut memory = machine(0);
            memory.0[at] ^= 0x40;
            assert_eq!(madt(&memory, 0x100), None, "{at:#x}");
        }
        assert_eq!(madt(&machine(0), 0x110), None);
        assert_eq!(madt(&machine(0), u64::MAX - 3), None);
    }

    #[test]
    fn tables_that_leave_memory() {
        let mut memory = machine(0);
        memory.0.truncate(0x440);
        assert_eq!(madt(&memory, 0x100), None);
    }

    #[test]
    fn impossible_lengths_end_the_list() {
        for length in [0, 1, 200] {
            let bad: &[u8] = &[0, length, 1, 1, 1, 0, 0, 0];
            let madt = make_madt(&[RECORDS[0], bad, RECORDS[1]]);
            assert_eq!(
                devices(&madt).collect::<Vec<_>>(),
                [Device::Processor { uid: 0, apic_id: 0 }],
                "{length}"
            );
        }
        assert_eq!(devices(&[]).count(), 0);
    }

    #[test]
    fn the_bios_area_is_searched() {
        let mut memory = Memory(vec![0; 0x10_0000]);
        assert_eq!(search_root_pointer(&memory), None);
        let small = machine(0);
        memory.0[0xf_5ad0..0xf_5ae4].copy_from_slice(&small.0[0x100..0x114]);
        assert_eq!(search_root_pointer(&memory), Some(0xf_5ad0));
    }
}
