//! The MADT's records (ACPI 6.5, section 5.2.12).

use super::layout::view;
use acpi::sdt::madt::{
    EntryHeader, InterruptSourceOverrideEntry, IoApicEntry, LocalApicEntry, LocalX2ApicEntry, Madt,
};

/// Something that the MADT lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A processor that is there and can be started.
    Processor {
        /// ACPI's name for it.
        uid: u32,
        /// Its local APIC's identifier.
        apic_id: u32,
    },
    /// An I/O APIC.
    IoApic {
        /// Physical address of its registers.
        address: u32,
        /// The first global system interrupt that it serves.
        base: u32,
    },
    /// Where an ISA interrupt arrives.
    Override {
        /// The ISA interrupt, 0 to 15.
        irq: u8,
        /// The global system interrupt.
        gsi: u32,
        /// How its line signals (table 5.26).
        flags: u16,
    },
    /// A length that no record has: the list ends here.
    Damaged {
        /// So many bytes before the table's end.
        left: usize,
    },
}

/// The records of a MADT that mean something to us, in its order. Those too short for their kind are passed over.
///
/// The crate has an iterator as well, which believes every length: one of zero makes it go on for ever, and one that is too short
/// for its kind, at the end of the table, has it read beyond. So the records' layouts are the crate's, and the way from one to
/// the next is ours.
pub fn records(madt: &[u8]) -> impl Iterator<Item = Record> + '_ {
    let mut rest = madt.get(size_of::<Madt>()..).unwrap_or_default();
    core::iter::from_fn(move || {
        while let Some(header) = view::<EntryHeader>(rest) {
            let length = usize::from(header.length);
            if length < size_of::<EntryHeader>() || length > rest.len() {
                let left = rest.len();
                rest = &[];
                return Some(Record::Damaged { left });
            }
            let (record, behind) = rest.split_at(length);
            rest = behind;
            if let Some(record) = decode(header.entry_type, record) {
                return Some(record);
            }
        }
        None
    })
}

/// Processor flag: enabled. The next, "online capable", is for processors that may be plugged in later.
const ENABLED: u32 = 1;

fn decode(kind: u8, record: &[u8]) -> Option<Record> {
    match kind {
        0 => {
            let entry: &LocalApicEntry = view(record)?;
            (entry.flags & ENABLED != 0 && entry.apic_id != u8::MAX).then_some(Record::Processor {
                uid: entry.processor_id.into(),
                apic_id: entry.apic_id.into(),
            })
        }
        9 => {
            let entry: &LocalX2ApicEntry = view(record)?;
            (entry.flags & ENABLED != 0 && entry.x2apic_id != u32::MAX).then_some(
                Record::Processor {
                    uid: entry.processor_uid,
                    apic_id: entry.x2apic_id,
                },
            )
        }
        1 => {
            let entry: &IoApicEntry = view(record)?;
            Some(Record::IoApic {
                address: entry.io_apic_address,
                base: entry.global_system_interrupt_base,
            })
        }
        // Bus 0 is ISA, which has sixteen.
        2 => {
            let entry: &InterruptSourceOverrideEntry = view(record)?;
            (entry.bus == 0 && entry.irq < 16).then_some(Record::Override {
                irq: entry.irq,
                gsi: entry.global_system_interrupt,
                flags: entry.flags,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use acpi::sdt::madt::MadtEntry;
    use core::pin::Pin;
    use std::vec::Vec;

    /// A MADT with this record at its end, and as much again behind the table.
    fn table(record: &[u8]) -> Vec<u8> {
        let length = size_of::<Madt>() + record.len();
        let mut bytes = b"APIC".to_vec();
        bytes.extend((length as u32).to_le_bytes());
        bytes.resize(size_of::<Madt>(), 0);
        bytes.extend(record);
        bytes.resize(2 * length, 0);
        bytes
    }

    fn crates(bytes: &[u8]) -> impl Iterator<Item = MadtEntry<'_>> {
        let madt: &Madt = view(bytes).unwrap();
        // SAFETY: it is not moved.
        unsafe { Pin::new_unchecked(madt) }.entries()
    }

    /// Why [`records`] is not the crate's iterator. When this fails, the crate has been mended.
    #[test]
    fn the_crates_own_iterator_believes_every_length() {
        let endless = table(&[0, 0, 1, 1, 1, 0, 0, 0]);
        assert_eq!(crates(&endless).take(1000).count(), 1000);
        let end = size_of::<Madt>() + 8;
        assert!(records(&endless[..end]).eq([Record::Damaged { left: 8 }]));

        let short = table(&[9, 2]);
        let end = size_of::<Madt>() + 2;
        let Some(MadtEntry::LocalX2Apic(entry)) = crates(&short).next() else {
            panic!("a record of that kind");
        };
        let read = core::ptr::from_ref(entry).addr() + size_of_val(entry) - short.as_ptr().addr();
        assert!(read > end, "{read} bytes of a table of {end}");
        assert_eq!(records(&short[..end]).count(), 0);
    }
}
