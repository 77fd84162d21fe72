//! The MADT's records (ACPI 6.5, section 5.2.12).

use super::tables::{HEADER, u32_at};

/// Something that the MADT lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A processor that is there and can be started, by its APIC identifier.
    Processor(u32),
    /// An I/O APIC: the address of its registers, and the first interrupt that it serves.
    IoApic { address: u32, base: u32 },
    /// Where an ISA interrupt arrives.
    Override { irq: u8, gsi: u32, flags: u16 },
    /// A length that no record has: the list ends here, so many bytes before the table's end.
    Damaged { left: usize },
}

/// The records of a MADT that mean something to us, in its order. Those too short for their kind are passed over.
pub(super) fn records(madt: &[u8]) -> impl Iterator<Item = Record> + '_ {
    let mut rest = madt.get(HEADER + 8..).unwrap_or_default();
    core::iter::from_fn(move || {
        while let [_, length, ..] = *rest {
            let length = usize::from(length);
            if length < 2 || length > rest.len() {
                let left = rest.len();
                rest = &[];
                return Some(Record::Damaged { left });
            }
            let (record, behind) = rest.split_at(length);
            rest = behind;
            if let Some(record) = decode(record) {
                return Some(record);
            }
        }
        None
    })
}

fn decode(record: &[u8]) -> Option<Record> {
    // Flag bit 0: enabled. Bit 1, "online capable", is for processors that may be plugged in later.
    match *record.first()? {
        0 if u32_at(record, 4)? & 1 != 0 && record[3] != 0xff => {
            Some(Record::Processor(record[3].into()))
        }
        9 if u32_at(record, 8)? & 1 != 0 && u32_at(record, 4)? != u32::MAX => {
            Some(Record::Processor(u32_at(record, 4)?))
        }
        1 => Some(Record::IoApic {
            address: u32_at(record, 4)?,
            base: u32_at(record, 8)?,
        }),
        // Bus 0 is ISA, which has sixteen.
        2 => {
            let flags = record.get(8..)?.first_chunk()?;
            (record[2] == 0 && record[3] < 16).then_some(Record::Override {
                irq: record[3],
                gsi: u32_at(record, 4)?,
                flags: u16::from_le_bytes(*flags),
            })
        }
        _ => None,
    }
}
