//! What the kernel needs from the ACPI tables: interrupt controllers (MADT) and the HPET.
//!
//! The tables are read once at boot, through the `acpi` crate and a mapping function that the kernel supplies.

use acpi::{
    AcpiTables, Handler, HpetInfo, PciAddress, PhysicalMapping, RawPhysicalMapping,
    sdt::madt::{Madt, MadtEntry, Polarity, TriggerMode, parse_mps_inti_flags},
};
use core::ptr::NonNull;

use crate::apic::io::Line;

/// Makes `bytes` bytes of physical memory from the first argument on readable and returns where; the mapping stays.
pub type MapPhysical = fn(u64, usize) -> NonNull<u8>;

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

/// How many I/O APICs are noted; machines with more have the ISA interrupts on one of the first.
pub const IO_APICS: usize = 8;

/// What the tables say.
#[derive(Clone, Debug)]
pub struct Machine {
    io_apics: [Option<IoApicEntry>; IO_APICS],
    isa: [IsaInterrupt; 16],
    /// Physical address of the HPET's registers.
    pub hpet: Option<u64>,
}

/// Why the tables could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No valid root table at the address that the boot loader gave.
    NoTables,
    /// The tables list no interrupt controllers.
    NoMadt,
}

impl Machine {
    /// Reads the tables that the root pointer at physical address `rsdp` leads to.
    ///
    /// # Safety
    /// `rsdp` is what the firmware gave as the root pointer's address, and `map` keeps its contract.
    pub unsafe fn read(rsdp: u64, map: MapPhysical) -> Result<Self, Error> {
        // SAFETY: the caller's promise.
        let tables = unsafe { AcpiTables::from_rsdp(Mapper(map), rsdp as usize) }
            .map_err(|_| Error::NoTables)?;
        let madt: PhysicalMapping<_, Madt> = tables.find_table().ok_or(Error::NoMadt)?;
        let mut machine = Self {
            io_apics: [None; IO_APICS],
            isa: core::array::from_fn(|irq| IsaInterrupt {
                gsi: irq as u32,
                line: Line::ISA,
            }),
            hpet: HpetInfo::new(&tables)
                .ok()
                .map(|hpet| hpet.base_address as u64)
                .filter(|&address| address != 0),
        };
        let mut count = 0;
        for entry in madt.get().entries() {
            match entry {
                MadtEntry::IoApic(chip) if count < IO_APICS => {
                    machine.io_apics[count] = Some(IoApicEntry {
                        address: chip.io_apic_address.into(),
                        base: chip.global_system_interrupt_base,
                    });
                    count += 1;
                }
                MadtEntry::InterruptSourceOverride(source)
                    if source.bus == 0 && source.irq < 16 =>
                {
                    machine.isa[usize::from(source.irq)] = IsaInterrupt {
                        gsi: source.global_system_interrupt,
                        line: line(source.flags),
                    };
                }
                _ => {}
            }
        }
        Ok(machine)
    }

    /// The I/O APICs.
    pub fn io_apics(&self) -> impl Iterator<Item = IoApicEntry> {
        self.io_apics.iter().flatten().copied()
    }

    /// Where ISA interrupt `irq` (0 to 15) arrives.
    ///
    /// # Panics
    /// When `irq` is more than 15.
    pub fn isa_interrupt(&self, irq: u8) -> IsaInterrupt {
        self.isa[usize::from(irq)]
    }
}

/// The MADT's flags of an ISA line; what conforms to the bus is edge-triggered and active high there.
fn line(flags: u16) -> Line {
    match parse_mps_inti_flags(flags) {
        Ok((polarity, trigger)) => Line {
            level: trigger == TriggerMode::Level,
            active_low: polarity == Polarity::ActiveLow,
        },
        Err(_) => Line::ISA,
    }
}

/// The crate's way to memory. The static tables need nothing but mappings; the other services are for AML, which is not
/// compiled in.
#[derive(Clone, Copy, Debug)]
struct Mapper(MapPhysical);

/// Services for the AML interpreter, which is not part of this build.
macro_rules! only_for_aml {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(fn $name(&self, $($argument: $type),*) $(-> $result)? {
            unreachable!(concat!("the static ACPI tables need no ", stringify!($name)))
        })*
    };
}

impl Handler for Mapper {
    unsafe fn map_physical_region<T>(&self, address: usize, bytes: usize) -> RawPhysicalMapping<T> {
        let start = (self.0)(address as u64, bytes);
        // SAFETY: the mapping function gives a mapping of that many bytes that is never taken away.
        unsafe { RawPhysicalMapping::new(address, start.cast(), bytes, bytes) }
    }

    unsafe fn unmap_physical_region<T>(&self, _region: RawPhysicalMapping<T>) {
        // Mappings stay: tables are few, and are read once.
    }

    only_for_aml! {
        read_u8(_address: usize) -> u8;
        read_u16(_address: usize) -> u16;
        read_u32(_address: usize) -> u32;
        read_u64(_address: usize) -> u64;
        write_u8(_address: usize, _value: u8);
        write_u16(_address: usize, _value: u16);
        write_u32(_address: usize, _value: u32);
        write_u64(_address: usize, _value: u64);
        read_io_u8(_port: u16) -> u8;
        read_io_u16(_port: u16) -> u16;
        read_io_u32(_port: u16) -> u32;
        write_io_u8(_port: u16, _value: u8);
        write_io_u16(_port: u16, _value: u16);
        write_io_u32(_port: u16, _value: u32);
        read_pci_u8(_address: PciAddress, _offset: u16) -> u8;
        read_pci_u16(_address: PciAddress, _offset: u16) -> u16;
        read_pci_u32(_address: PciAddress, _offset: u16) -> u32;
        write_pci_u8(_address: PciAddress, _offset: u16, _value: u8);
        write_pci_u16(_address: PciAddress, _offset: u16, _value: u16);
        write_pci_u32(_address: PciAddress, _offset: u16, _value: u32);
        nanos_since_boot() -> u64;
        stall(_microseconds: u64);
        sleep(_milliseconds: u64);
    }
}
