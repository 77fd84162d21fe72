//! The transmitting half of a virtio console, over PCI (Virtual I/O Device specification 1.2: 4.1 PCI transport, 2.7 split
//! virtqueues, 5.3 console device).
//!
//! A serial port hands over a byte at each port access; this device takes a buffer of many at one. The driver has one
//! buffer and waits until the device has used it before it fills it again, so there is one descriptor, no interrupts, and
//! no state to recover.

use crate::pci::Device;
use core::{
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

/// Where a device's registers are, found in its capabilities. Addresses are physical.
#[derive(Clone, Copy, Debug)]
pub struct Location {
    device: Device,
    /// The common configuration structure.
    pub common: u64,
    /// The notification area.
    pub notify: u64,
    /// Bytes of the notification area.
    pub notify_bytes: u32,
    multiplier: u32,
}

/// Bytes of the common configuration structure that are used.
pub const COMMON_BYTES: usize = 0x38;

/// Memory that the driver shares with its device.
#[derive(Clone, Copy, Debug)]
pub struct SharedMemory {
    /// Its physical address.
    pub physical: u64,
    /// Where it is mapped.
    pub mapped: NonNull<u8>,
    /// Bytes, more than [`RINGS`].
    pub bytes: usize,
}

/// Bytes at the start of the shared memory that hold the queue; the rest is the buffer.
pub const RINGS: usize = 4096;

// Offsets in the common configuration structure (4.1.4.3).
const DEVICE_FEATURE_SELECT: usize = 0x00;
const DEVICE_FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: usize = 0x08;
const DRIVER_FEATURE: usize = 0x0c;
const DEVICE_STATUS: usize = 0x14;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_SIZE: usize = 0x18;
const QUEUE_ENABLE: usize = 0x1c;
const QUEUE_NOTIFY_OFF: usize = 0x1e;
const QUEUE_DESC: usize = 0x20;
const QUEUE_DRIVER: usize = 0x28;
const QUEUE_DEVICE: usize = 0x30;

// Device status bits (2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// Feature bit 32, in the second word of feature bits: the device follows version 1.
const VERSION_1: u32 = 1;

/// The transmit queue of port 0 (5.3.2).
const TRANSMIT: u16 = 1;

// Places in the first page of the shared memory.
const DESCRIPTORS: usize = 0;
const AVAILABLE: usize = 1024;
const USED: usize = 2048;
/// No interrupts wanted (2.7.6).
const NO_INTERRUPT: u16 = 1;

/// Looks for a virtio console at `device`.
pub fn find(device: Device) -> Option<Location> {
    // 0x1003 is the transitional device, 0x1043 the one of version 1 (4.1.2.1, 5.3.1).
    if !matches!(device.identity()?, (0x1af4, 0x1003 | 0x1043)) {
        return None;
    }
    let (mut common, mut notify) = (None, None);
    // Vendor-specific capabilities (4.1.4): type in byte 3, region in byte 4, offset in word 2, length in word 3.
    for capability in device
        .capabilities()
        .filter(|capability| capability.id == 0x09)
    {
        let at = |word: u8| device.read(capability.offset + 4 * word);
        let kind = (at(0) >> 24) as u8;
        if !matches!(kind, 1 | 2) {
            continue;
        }
        let Some(region) = device.memory_region(at(1) as u8) else {
            continue;
        };
        let address = region + u64::from(at(2));
        match kind {
            1 => common = common.or(Some(address)),
            _ => notify = notify.or(Some((address, at(3), at(4)))),
        }
    }
    let (notify, notify_bytes, multiplier) = notify?;
    Some(Location {
        device,
        common: common?,
        notify,
        notify_bytes,
        multiplier,
    })
}

/// A console to send to. Not for concurrent use.
#[derive(Debug)]
pub struct Console {
    notify: NonNull<u16>,
    shared: SharedMemory,
    /// Queue entries.
    size: u16,
    /// Buffers handed over so far.
    handed: u16,
}

// SAFETY: it owns its registers and memory, which are the same from every core.
unsafe impl Send for Console {}

impl Console {
    /// Resets and starts the device. `None` when it does not accept what this driver can do, or does not answer.
    ///
    /// # Safety
    /// `common` and `notify` are the places in `location`, mapped uncached; `shared` is as it says, zeroed, and the
    /// device's and this driver's alone from now on, for ever. Nobody else drives the device.
    pub unsafe fn start(
        location: &Location,
        common: NonNull<u8>,
        notify: NonNull<u8>,
        shared: SharedMemory,
    ) -> Option<Self> {
        if shared.bytes <= RINGS {
            return None;
        }
        // SAFETY: the caller's promise; every offset is inside the structure, and aligned to its type.
        unsafe {
            let register8 = |offset: usize| common.add(offset);
            let register16 = |offset: usize| common.add(offset).cast::<u16>();
            let register32 = |offset: usize| common.add(offset).cast::<u32>();
            let status = register8(DEVICE_STATUS);
            location.device.enable();
            // Initialisation in the order of 3.1.1.
            status.write_volatile(0);
            let mut polls = 0;
            while status.read_volatile() != 0 {
                polls += 1;
                if polls > 1_000_000 {
                    return None;
                }
            }
            status.write_volatile(ACKNOWLEDGE);
            status.write_volatile(ACKNOWLEDGE | DRIVER);
            register32(DEVICE_FEATURE_SELECT).write_volatile(1);
            if register32(DEVICE_FEATURE).read_volatile() & VERSION_1 == 0 {
                return None;
            }
            for (word, features) in [(0, 0), (1, VERSION_1)] {
                register32(DRIVER_FEATURE_SELECT).write_volatile(word);
                register32(DRIVER_FEATURE).write_volatile(features);
            }
            status.write_volatile(ACKNOWLEDGE | DRIVER | FEATURES_OK);
            if status.read_volatile() & FEATURES_OK == 0 {
                return None;
            }
            register16(QUEUE_SELECT).write_volatile(TRANSMIT);
            // A power of two, at most what the device offers, and the places above hold up to 64.
            let size = register16(QUEUE_SIZE).read_volatile().min(2);
            if size == 0 {
                return None;
            }
            register16(QUEUE_SIZE).write_volatile(size);
            // 64-bit fields are written as two words (4.1.3.1).
            for (offset, place) in [
                (QUEUE_DESC, DESCRIPTORS),
                (QUEUE_DRIVER, AVAILABLE),
                (QUEUE_DEVICE, USED),
            ] {
                let address = shared.physical + place as u64;
                register32(offset).write_volatile(address as u32);
                register32(offset + 4).write_volatile((address >> 32) as u32);
            }
            let offset = u32::from(register16(QUEUE_NOTIFY_OFF).read_volatile())
                .checked_mul(location.multiplier)?;
            if offset.checked_add(2)? > location.notify_bytes {
                return None;
            }
            shared
                .mapped
                .add(AVAILABLE)
                .cast::<u16>()
                .write_volatile(NO_INTERRUPT);
            register16(QUEUE_ENABLE).write_volatile(1);
            status.write_volatile(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
            Some(Self {
                notify: notify.add(offset as usize).cast(),
                shared,
                size,
                handed: 0,
            })
        }
    }

    /// Sends all of `bytes`. `stalled` is asked each time that the device is not done and says whether to give up: the
    /// receiver may have stopped reading. Returns how many bytes were handed over and used.
    pub fn send(&mut self, bytes: &[u8], mut stalled: impl FnMut() -> bool) -> usize {
        let mut sent = 0;
        for chunk in bytes.chunks(self.shared.bytes - RINGS) {
            // SAFETY: the memory is this driver's until the device is notified and again when it has used the buffer,
            // which is waited for before the buffer is touched again. All offsets are inside, and aligned.
            unsafe {
                // The last buffer, if an earlier call gave up.
                if !self.wait(&mut stalled) {
                    return sent;
                }
                self.shared
                    .mapped
                    .add(RINGS)
                    .copy_from_nonoverlapping(NonNull::from(chunk).cast(), chunk.len());
                let descriptor = self.shared.mapped.add(DESCRIPTORS);
                descriptor
                    .cast::<u64>()
                    .write_volatile(self.shared.physical + RINGS as u64);
                descriptor
                    .add(8)
                    .cast::<u32>()
                    .write_volatile(chunk.len() as u32);
                descriptor.add(12).cast::<u32>().write_volatile(0); // no flags: the device reads, and there is no next
                let available = self.shared.mapped.add(AVAILABLE).cast::<u16>();
                available
                    .add(2 + usize::from(self.handed % self.size))
                    .write_volatile(0);
                // The entry before the index (2.7.13.3.1), the index before the notification.
                fence(Ordering::Release);
                self.handed = self.handed.wrapping_add(1);
                available.add(1).write_volatile(self.handed);
                fence(Ordering::SeqCst);
                self.notify.write_volatile(TRANSMIT);
                if !self.wait(&mut stalled) {
                    return sent;
                }
            }
            sent += chunk.len();
        }
        sent
    }

    /// Waits until the device has used all that it was handed; false if `stalled` says to give up.
    fn wait(&mut self, stalled: &mut impl FnMut() -> bool) -> bool {
        // SAFETY: the used ring's index, in the shared memory.
        while unsafe {
            self.shared
                .mapped
                .add(USED + 2)
                .cast::<u16>()
                .read_volatile()
        } != self.handed
        {
            if stalled() {
                return false;
            }
            core::hint::spin_loop();
        }
        fence(Ordering::Acquire);
        true
    }
}
