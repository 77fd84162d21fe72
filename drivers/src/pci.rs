//! PCI configuration space, through ports 0xcf8 and 0xcfc (PCI Local Bus Specification 3.0, section 3.2.2.3.2).
//!
//! Only what finds a device on the root bus and reads its registers and capabilities: firmware has assigned the addresses.

use core::ptr::NonNull;
use x86_64::instructions::port::Port;

/// A device on the root bus, function 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Device number, 0 to 31.
    pub number: u8,
}

/// Vendor identifier of an absent device.
const ABSENT: u16 = 0xffff;

/// A capability's place in configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is.
    pub id: u8,
    /// Its offset.
    pub offset: u8,
}

impl Device {
    fn select(self, offset: u8) {
        let address = 1 << 31 | u32::from(self.number) << 11 | u32::from(offset & !3);
        // SAFETY: the standard PC port; selecting a register changes nothing.
        unsafe { Port::<u32>::new(0xcf8).write(address) }
    }

    /// The register at `offset` (a multiple of 4). Not for concurrent use with any other access: two ports make one access.
    pub fn read(self, offset: u8) -> u32 {
        self.select(offset);
        // SAFETY: configuration reads have no effect on memory.
        unsafe { Port::<u32>::new(0xcfc).read() }
    }

    /// Writes the register at `offset`.
    ///
    /// # Safety
    /// What the device does with it keeps memory sound: devices that may master the bus write to memory.
    pub unsafe fn write(self, offset: u8, value: u32) {
        self.select(offset);
        // SAFETY: the caller's promise.
        unsafe { Port::<u32>::new(0xcfc).write(value) }
    }

    /// Vendor and device identifier, or `None` when there is no such device.
    pub fn identity(self) -> Option<(u16, u16)> {
        let both = self.read(0);
        let (vendor, device) = (both as u16, (both >> 16) as u16);
        (vendor != ABSENT).then_some((vendor, device))
    }

    /// Lets the device answer memory accesses and access memory itself, its interrupt line off.
    ///
    /// # Safety
    /// The device has been told of no memory that it must not access.
    pub unsafe fn enable(self) {
        let command = self.read(4) & 0xffff;
        // SAFETY: the caller's promise. Bits: memory space, bus master, interrupt disable. The upper half is cleared by
        // writing ones, so zeros leave it alone.
        unsafe { self.write(4, command | 1 << 1 | 1 << 2 | 1 << 10) }
    }

    /// The physical address of memory region `bar` (0 to 5), or `None` when it is a port region or has no address.
    pub fn memory_region(self, bar: u8) -> Option<u64> {
        if bar > 5 {
            return None;
        }
        let offset = 0x10 + bar * 4;
        let low = self.read(offset);
        if low & 1 != 0 {
            return None;
        }
        let wide = low >> 1 & 3 == 2;
        let high = if wide && bar < 5 {
            self.read(offset + 4)
        } else {
            0
        };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        (address != 0).then_some(address)
    }

    /// The device's capabilities, in order.
    pub fn capabilities(self) -> impl Iterator<Item = Capability> {
        let listed = self.read(4) >> 16 & 1 << 4 != 0;
        let mut next = if listed {
            self.read(0x34) as u8 & !3
        } else {
            0
        };
        // The list cannot be longer than the space that it lies in.
        let mut left = 48;
        core::iter::from_fn(move || {
            if next < 0x40 || left == 0 {
                return None;
            }
            left -= 1;
            let header = self.read(next);
            let found = Capability {
                id: header as u8,
                offset: next,
            };
            next = (header >> 8) as u8 & !3;
            Some(found)
        })
    }

    /// The physical address of the device's table of message-signalled interrupts (MSI-X), if it has one (PCI 3.0,
    /// section 6.8.2).
    pub fn msix_table(self) -> Option<u64> {
        let capability = self
            .capabilities()
            .find(|capability| capability.id == MSIX)?;
        let place = self.read(capability.offset + 4);
        Some(self.memory_region(place as u8 & 7)? + u64::from(place & !7))
    }

    /// Lets entry 0 of the table interrupt the core with identifier `apic` as `vector`, and switches such interrupts on;
    /// all other entries stay masked. Does nothing for a device without them.
    ///
    /// # Safety
    /// `table` is the mapping of [`msix_table`](Self::msix_table), and the core has a handler for the vector.
    pub unsafe fn enable_msix(self, table: NonNull<u32>, apic: u8, vector: u8) {
        let Some(capability) = self.capabilities().find(|capability| capability.id == MSIX) else {
            return;
        };
        // SAFETY: the caller's promise; an entry is four words.
        unsafe {
            // SDM volume 3, section 11.11: the address names the core, the data the vector: fixed, by edges.
            table.write_volatile(0xfee0_0000 | u32::from(apic) << 12);
            table.add(1).write_volatile(0);
            table.add(2).write_volatile(vector.into());
            table.add(3).write_volatile(0);
            let header = self.read(capability.offset);
            // Enable, and no mask over all.
            self.write(capability.offset, (header | 1 << 31) & !(1 << 30));
        }
    }
}

/// Capability identifier of MSI-X.
const MSIX: u8 = 0x11;
