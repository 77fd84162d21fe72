//! PCI configuration space, through ports 0xcf8 and 0xcfc (PCI Local Bus Specification 3.0, section 3.2.2.3.2).
//!
//! Only what finds devices, on the root bus and behind bridges, and reads their registers and capabilities: firmware has numbered the buses
//! and assigned the addresses.

use core::ptr::NonNull;
use x86_64::instructions::port::Port;

/// A function of a device: one of the things with a configuration space of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The bus that it is on.
    pub bus: u8,
    /// Device number on that bus, 0 to 31.
    pub number: u8,
    /// Function of the device, 0 to 7.
    pub function: u8,
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
    /// Function 0 of a device on the root bus.
    pub const fn on_root_bus(number: u8) -> Self {
        Self {
            bus: 0,
            number,
            function: 0,
        }
    }

    fn select(self, offset: u8) {
        let place =
            u32::from(self.bus) << 8 | u32::from(self.number) << 3 | u32::from(self.function);
        let address = 1 << 31 | place << 8 | u32::from(offset & !3);
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

/// All devices that there are, bus by bus: the root bus, and those behind bridges, in the order of their numbers.
pub fn devices() -> impl Iterator<Item = Device> {
    walk(Device::read)
}

/// As [`devices`], with configuration space read by `read`.
fn walk(read: impl Fn(Device, u8) -> u32) -> impl Iterator<Item = Device> {
    // Buses that were found, and the next place to look at. A bus is looked at once, so a bridge that leads back does no harm.
    let mut found = Buses::default();
    let mut seen = Buses::default();
    found.insert(0);
    let mut place = None;
    core::iter::from_fn(move || {
        loop {
            let device = match place {
                Some(device) => device,
                None => {
                    let bus =
                        (0..=u8::MAX).find(|&bus| found.contains(bus) && !seen.contains(bus))?;
                    seen.insert(bus);
                    Device {
                        bus,
                        number: 0,
                        function: 0,
                    }
                }
            };
            let there = read(device, 0) as u16 != ABSENT;
            // Header type: bit 7 says that there are more functions, and 1 is a bridge to another PCI bus (section 6.1).
            let header = if there {
                (read(device, 0x0c) >> 16) as u8
            } else {
                0
            };
            let more = device.function > 0 || header & 0x80 != 0;
            place = if more && device.function < 7 {
                let function = device.function + 1;
                Some(Device { function, ..device })
            } else {
                (device.number < 31).then(|| Device {
                    number: device.number + 1,
                    function: 0,
                    ..device
                })
            };
            if there {
                if header & 0x7f == 1 {
                    // The secondary bus; 0 when firmware has not numbered it.
                    found.insert((read(device, 0x18) >> 8) as u8);
                }
                return Some(device);
            }
        }
    })
}

/// A set of bus numbers.
#[derive(Default)]
struct Buses([u64; 4]);

impl Buses {
    fn insert(&mut self, bus: u8) {
        self.0[usize::from(bus / 64)] |= 1 << (bus % 64);
    }

    fn contains(&self, bus: u8) -> bool {
        self.0[usize::from(bus / 64)] >> (bus % 64) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const PLAIN: u32 = 0;
    const BRIDGE: u32 = 1;
    const MANY: u32 = 0x80;

    /// Configuration space with these devices: bus, number, function, header type, and secondary bus.
    fn space(devices: &[(u8, u8, u8, u32, u32)]) -> impl Fn(Device, u8) -> u32 {
        move |asked, offset| {
            let found = devices.iter().find(|&&(bus, number, function, ..)| {
                (asked.bus, asked.number, asked.function) == (bus, number, function)
            });
            match (found, offset) {
                (None, _) => u32::MAX,
                (Some(_), 0) => 0x1234_8086,
                (Some(device), 0x0c) => device.3 << 16,
                (Some(device), 0x18) => device.4 << 8,
                _ => panic!("nothing else is read"),
            }
        }
    }

    #[track_caller]
    fn finds(devices: &[(u8, u8, u8, u32, u32)], expected: &[(u8, u8, u8)]) {
        let found: Vec<_> = walk(space(devices))
            .map(|device| (device.bus, device.number, device.function))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn looks_behind_bridges() {
        finds(&[], &[]);
        finds(
            &[
                (0, 31, 7, PLAIN, 0),
                (0, 31, 0, MANY | PLAIN, 0),
                (0, 2, 0, BRIDGE, 5),
                (5, 0, 0, BRIDGE, 6),
                (6, 3, 0, PLAIN, 0),
                // Not there: function 0 says that it is the only one.
                (6, 3, 1, PLAIN, 0),
                (9, 0, 0, PLAIN, 0),
            ],
            &[(0, 2, 0), (0, 31, 0), (0, 31, 7), (5, 0, 0), (6, 3, 0)],
        );
    }

    #[test]
    fn a_bridge_that_leads_back_ends() {
        finds(
            &[
                (0, 0, 0, BRIDGE, 255),
                (0, 1, 0, BRIDGE, 0),
                (255, 31, 0, BRIDGE, 255),
            ],
            &[(0, 0, 0), (0, 1, 0), (255, 31, 0)],
        );
    }
}
