//! What the kernel needs from the ACPI tables: processors and interrupt controllers (MADT), the HPET, and how to end the
//! machine (FADT).
//!
//! The tables are read once at boot, and nothing in them is trusted: a damaged one is complained of and left out, with what it
//! would have told. The layouts of tables and records are those of the crate `acpi`; the way to them is ours, because the crate believes
//! pointers and lengths and looks at no checksum (see [`records`]).

mod layout;
mod madt;
mod power;
mod tables;

use crate::apic::io::Line;
use acpi::sdt::{
    fadt::Fadt,
    hpet::HpetTable,
    madt::{Polarity, TriggerMode, parse_mps_inti_flags},
};
use layout::{padded, view};
pub use madt::{Record, records};
pub use power::{Power, reset_by_keyboard_controller};
pub use tables::{Complain, Memory, Problem, Root, root_pointer};

/// An I/O APIC as the MADT lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicEntry {
    /// Physical address of its page.
    pub address: u64,
    /// The global system interrupt of its first line.
    pub base: u32,
}

/// Where one of the sixteen ISA interrupts arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsaInterrupt {
    /// The global system interrupt.
    pub gsi: u32,
    /// How its line signals.
    pub line: Line,
}

/// What the tables say.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'m> {
    madt: Option<&'m [u8]>,
    isa: [IsaInterrupt; 16],
    /// Physical address of the HPET's registers.
    pub hpet: Option<u64>,
    /// How to end the machine.
    pub power: Option<Power>,
    /// Whether there may be a keyboard controller at the PC's ports: the FADT says so, or is too old to say.
    pub keyboard_controller: bool,
}

impl<'m> Machine<'m> {
    /// Reads the tables that the root pointer at physical address `rsdp` leads to; `None` when there are none. What is
    /// damaged is left out and complained of.
    pub fn read(rsdp: u64, memory: &'m impl Memory, complain: Complain<'_>) -> Option<Self> {
        let root = Root::find(memory, rsdp, complain)?;
        let fadt: Option<Fadt> = root.table(memory, b"FACP", complain).map(padded);
        let mut machine = Self {
            madt: root.table(memory, b"APIC", complain),
            isa: core::array::from_fn(|irq| IsaInterrupt {
                gsi: irq as u32,
                line: Line::ISA,
            }),
            hpet: root
                .table(memory, b"HPET", complain)
                .and_then(view::<HpetTable>)
                .map(|table| table.base_address)
                // Address space 0 is memory.
                .filter(|base| base.address_space == 0 && base.address != 0)
                .map(|base| base.address),
            power: fadt.map(|fadt| Power::read(memory, fadt, complain)),
            keyboard_controller: fadt.is_none_or(|fadt| {
                // The flags came with ACPI 2.0, whose table is the third revision.
                let (revision, flags) = (fadt.header.revision, fadt.iapc_boot_arch);
                revision < 3 || flags.motherboard_implements_8042()
            }),
        };
        if machine.madt.is_none() {
            complain(format_args!(
                "no MADT: no list of processors and interrupts"
            ));
        }
        for record in machine.madt.into_iter().flat_map(records) {
            match record {
                Record::Override { irq, gsi, flags } => {
                    machine.isa[usize::from(irq)] = IsaInterrupt {
                        gsi,
                        line: line(flags),
                    };
                }
                Record::Damaged { left } => complain(format_args!(
                    "MADT: a record of impossible length; the last {left} bytes are left out"
                )),
                Record::IoApic { .. } | Record::Processor { .. } => {}
            }
        }
        Some(machine)
    }

    /// The APIC identifiers of the processors that can be started.
    pub fn processors(&self) -> impl Iterator<Item = u32> {
        let records = self.madt.into_iter().flat_map(records);
        records.filter_map(|record| match record {
            Record::Processor { apic_id, .. } => Some(apic_id),
            _ => None,
        })
    }

    /// The I/O APICs.
    pub fn io_apics(&self) -> impl Iterator<Item = IoApicEntry> {
        let records = self.madt.into_iter().flat_map(records);
        records.filter_map(|record| match record {
            Record::IoApic { address, base } => Some(IoApicEntry {
                address: address.into(),
                base,
            }),
            _ => None,
        })
    }

    /// Where ISA interrupt `irq` (0 to 15) arrives.
    ///
    /// # Panics
    /// When `irq` is more than 15.
    pub fn isa_interrupt(&self, irq: u8) -> IsaInterrupt {
        self.isa[usize::from(irq)]
    }
}

/// The MADT's flags of an ISA line. What conforms to the bus, or to nothing known, is edge-triggered and active high there.
fn line(flags: u16) -> Line {
    match parse_mps_inti_flags(flags) {
        Ok((polarity, trigger)) => Line {
            level: matches!(trigger, TriggerMode::Level),
            active_low: matches!(polarity, Polarity::ActiveLow),
        },
        Err(_) => Line::ISA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String, vec, vec::Vec};

    struct Bytes(Vec<u8>);

    impl Memory for Bytes {
        fn bytes(&self, physical: u64, length: usize) -> Option<&[u8]> {
            let start = usize::try_from(physical).ok()?;
            self.0.get(start..start.checked_add(length)?)
        }
    }

    fn fix_sum(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        bytes[at] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
    }

    fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = signature.to_vec();
        table.extend((tables::HEADER as u32 + body.len() as u32).to_le_bytes());
        table.resize(tables::HEADER, 0);
        table.extend(body);
        fix_sum(&mut table, 9);
        table
    }

    const RECORDS: &[&[u8]] = &[
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 4, 1, 0, 0, 0],
        &[0, 8, 2, 5, 0, 0, 0, 0],
        &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 13, 0],
        &[9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0],
        &[0, 3, 9],
        &[4, 6, 0xff, 0, 0, 1],
    ];

    /// Root pointer at 0x100, root table at 0x200, MADT at 0x300, HPET at 0x400, FADT at 0x500, DSDT at 0x700.
    fn firmware(records: &[&[u8]]) -> Vec<u8> {
        let mut memory = vec![0; 0x800];
        let mut pointer = b"RSD PTR \0BOCHS \0".to_vec();
        pointer.extend(0x200u32.to_le_bytes());
        fix_sum(&mut pointer, 8);
        let pointers = [0x300u32, 0x400, 0x500].map(u32::to_le_bytes).concat();
        let mut hpet = vec![0; 20];
        hpet[8..16].copy_from_slice(&0xfed0_0000u64.to_le_bytes());
        let mut fadt = vec![0; 208];
        let mut put =
            |at: usize, bytes: &[u8]| fadt[at - 36..][..bytes.len()].copy_from_slice(bytes);
        put(40, &0x700u32.to_le_bytes());
        put(48, &0xb2u32.to_le_bytes());
        put(52, &[2]);
        put(64, &0x604u32.to_le_bytes());
        put(112, &(1u32 << 10).to_le_bytes());
        put(116, &[1]);
        put(120, &0xcf9u64.to_le_bytes());
        put(128, &[15]);
        let madt = [&[0; 8], records.concat().as_slice()].concat();
        for (at, bytes) in [
            (0x100, pointer),
            (0x200, table(b"RSDT", &pointers)),
            (0x300, table(b"APIC", &madt)),
            (0x400, table(b"HPET", &hpet)),
            (0x500, table(b"FACP", &fadt)),
            (
                0x700,
                table(b"DSDT", b"\x08_S5_\x12\x06\x04\x0a\x05\x00\x00\x00"),
            ),
        ] {
            memory[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        memory
    }

    /// What the tables say, and what there was to complain of.
    fn read(memory: Vec<u8>) -> (Option<Machine<'static>>, Vec<String>) {
        let mut complaints = Vec::new();
        let memory: &'static Bytes = std::boxed::Box::leak(std::boxed::Box::new(Bytes(memory)));
        let machine = Machine::read(0x100, memory, &mut |text| {
            complaints.push(format!("{text}"));
        });
        (machine, complaints)
    }

    #[test]
    fn sound_tables() {
        let (machine, complaints) = read(firmware(RECORDS));
        let machine = machine.unwrap();
        assert_eq!(complaints, [""; 0]);
        assert!(machine.processors().eq([0, 4, 0x100]));
        assert!(machine.io_apics().eq([IoApicEntry {
            address: 0xfec0_0000,
            base: 0
        }]));
        assert_eq!(machine.isa_interrupt(0).gsi, 2);
        let level = Line {
            level: true,
            active_low: false,
        };
        assert_eq!(machine.isa_interrupt(9).line, level);
        assert_eq!(machine.isa_interrupt(4).line, Line::ISA);
        assert_eq!(machine.hpet, Some(0xfed0_0000));
        assert!(machine.power.is_some());
    }

    #[test]
    fn damaged_tables_are_named_and_left_out() {
        let damaged = |at: usize| {
            let mut memory = firmware(RECORDS);
            memory[at] ^= 0x40;
            read(memory)
        };
        let (machine, complaints) = damaged(0x110);
        assert!(machine.is_none());
        assert_eq!(complaints, ["the root pointer at 0x100 is damaged"]);
        let (machine, complaints) = damaged(0x220);
        assert!(machine.is_none());
        assert_eq!(complaints, ["RSDT at 0x200: wrong checksum"]);
        let (machine, complaints) = damaged(0x330);
        assert_eq!(machine.unwrap().processors().count(), 0);
        assert_eq!(complaints.len(), 2);
        assert_eq!(
            complaints[0],
            "table APIC at 0x300: wrong checksum; it is left out"
        );
        let (machine, complaints) = damaged(0x430);
        assert_eq!(machine.unwrap().hpet, None);
        assert_eq!(
            complaints,
            ["table HPET at 0x400: wrong checksum; it is left out"]
        );
        let (machine, complaints) = damaged(0x710);
        assert!(!machine.unwrap().power.unwrap().can_switch_off());
        assert_eq!(
            complaints,
            ["DSDT at 0x700: wrong checksum; no way to switch off"]
        );
    }

    #[test]
    fn impossible_lengths_end_the_list() {
        for length in [0, 1, 200] {
            let bad: &[u8] = &[0, length, 1, 1, 1, 0, 0, 0];
            let (machine, complaints) = read(firmware(&[RECORDS[0], bad, RECORDS[1]]));
            assert!(machine.unwrap().processors().eq([0]), "{length}");
            assert_eq!(
                complaints,
                ["MADT: a record of impossible length; the last 16 bytes are left out"]
            );
        }
    }

    #[test]
    fn a_root_that_leads_to_itself_or_nowhere_ends() {
        let mut memory = firmware(RECORDS);
        for (index, address) in [0x200u32, u32::MAX, 0x300].into_iter().enumerate() {
            memory[0x224 + index * 4..][..4].copy_from_slice(&address.to_le_bytes());
        }
        fix_sum(&mut memory[0x200..0x230], 9);
        let (machine, complaints) = read(memory);
        assert_eq!(machine.unwrap().processors().count(), 3);
        assert_eq!(
            complaints,
            ["table APIC at 0xffffffff: no memory there; it is left out"]
        );
    }

    /// Random damage, with the checksums put right as often as not, never does more than change what is read.
    #[test]
    fn random_damage_does_no_harm() {
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let whole = firmware(RECORDS);
        for _ in 0..20_000 {
            let mut memory = whole.clone();
            for _ in 0..1 + next() % 6 {
                let at = 0x100 + next() as usize % 0x700;
                memory[at] = match next() % 4 {
                    0 => 0,
                    1 => 0xff,
                    _ => next() as u8,
                };
            }
            if next() % 2 == 0 {
                fix_sum(&mut memory[0x100..0x114], 8);
                for at in [0x200, 0x300, 0x400, 0x500, 0x700] {
                    let length = u32::from_le_bytes(*memory[at + 4..].first_chunk().unwrap());
                    let end = at.saturating_add(length as usize).min(memory.len());
                    if end > at + 9 {
                        fix_sum(&mut memory[at..end], 9);
                    }
                }
            }
            let memory = Bytes(memory);
            let machine = Machine::read(0x100, &memory, &mut |text| {
                let _ = format!("{text}");
            });
            if let Some(machine) = machine {
                let _ = (machine.processors().count(), machine.io_apics().count());
            }
        }
    }
}
