//! One port of a virtio console over PCI (Virtual I/O Device specification 1.2: 4.1 PCI transport, 2.7 split virtqueues,
//! 5.3 console device).
//!
//! A device that offers several ports is used through port 1, a generic one; one that does not, through its only port, the
//! console. (QEMU drops what the receiver behind a console does not take at once, but holds a generic port back.)
//!
//! A serial port hands over a byte at each port access; this device takes and gives buffers of many. The sender has one
//! buffer and waits until the device has used it before it fills it again, so it needs one descriptor, no interrupts, and
//! has no state to recover. The receiver offers a few buffers and is told of used ones by a message-signalled interrupt.

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

impl Location {
    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }
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
    /// Bytes, more than [`OVERHEAD`].
    pub bytes: usize,
}

impl SharedMemory {
    fn at(self, offset: usize) -> Self {
        // SAFETY: callers stay inside.
        let mapped = unsafe { self.mapped.add(offset) };
        Self {
            physical: self.physical + offset as u64,
            mapped,
            bytes: self.bytes - offset,
        }
    }
}

/// Bytes of one queue's parts.
const RINGS: usize = 4096;
/// Bytes of a receive buffer.
const RECEIVE_BUFFER: usize = 4096;
/// How many there are.
const RECEIVE_BUFFERS: u16 = 4;
/// Bytes of the shared memory that are not for sending: three queues and the receive buffers.
pub const OVERHEAD: usize = 3 * RINGS + RECEIVE_BUFFERS as usize * RECEIVE_BUFFER;

// Offsets in the common configuration structure (4.1.4.3).
const DEVICE_FEATURE_SELECT: usize = 0x00;
const DEVICE_FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: usize = 0x08;
const DRIVER_FEATURE: usize = 0x0c;
const DEVICE_STATUS: usize = 0x14;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_SIZE: usize = 0x18;
const QUEUE_MSIX_VECTOR: usize = 0x1a;
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

/// Feature bit 1, in the first word: several ports (5.3.3).
const MULTIPORT: u32 = 1 << 1;

/// The numbers of a port's queues (5.3.2).
#[derive(Clone, Copy)]
struct Numbers {
    receive: u16,
    transmit: u16,
}

/// The queues of the only port of a device without [`MULTIPORT`].
const PORT_0: Numbers = Numbers {
    receive: 0,
    transmit: 1,
};
/// The queues of the generic port of a device with it.
const PORT_1: Numbers = Numbers {
    receive: 4,
    transmit: 5,
};
/// The driver's control messages, with [`MULTIPORT`].
const CONTROL: u16 = 3;

// Control messages (5.3.6.2).
const DEVICE_READY: u16 = 0;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;

// Places of a queue's parts; each holds up to 64 entries.
const DESCRIPTORS: usize = 0;
const AVAILABLE: usize = 1024;
const USED: usize = 2048;
/// A control message, in the control queue's memory.
const MESSAGE: usize = 3072;
/// Flag of the available ring: no interrupts wanted (2.7.6).
const NO_INTERRUPT: u16 = 1;
/// Flag of a descriptor: the device writes (2.7.5).
const DEVICE_WRITES: u32 = 2;

/// A message-signalled interrupt: which core, and as which vector.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt {
    /// The core's APIC identifier; there are eight bits for it.
    pub apic: u8,
    /// The vector.
    pub vector: u8,
}

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

/// A split virtqueue that the device knows.
#[derive(Debug)]
struct Queue {
    number: u16,
    notify: NonNull<u16>,
    memory: SharedMemory,
    size: u16,
    /// Buffers made available so far.
    available: u16,
    /// Used buffers taken back so far.
    used: u16,
}

impl Queue {
    /// Sets a queue up with at most `size` entries, in zeroed memory.
    ///
    /// # Safety
    /// As for [`start`], between the device's acceptance of features and its start.
    unsafe fn new(
        location: &Location,
        common: NonNull<u8>,
        notify: NonNull<u8>,
        memory: SharedMemory,
        number: u16,
        size: u16,
        interrupt: bool,
    ) -> Option<Self> {
        // SAFETY: the caller's promise; every offset is inside the structure, and aligned to its type.
        unsafe {
            let register16 = |offset: usize| common.add(offset).cast::<u16>();
            let register32 = |offset: usize| common.add(offset).cast::<u32>();
            register16(QUEUE_SELECT).write_volatile(number);
            // Both powers of two.
            let size = register16(QUEUE_SIZE).read_volatile().min(size);
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
                let address = memory.physical + place as u64;
                register32(offset).write_volatile(address as u32);
                register32(offset + 4).write_volatile((address >> 32) as u32);
            }
            if interrupt {
                // Entry 0 of the device's table; it reads back when the device has taken it.
                register16(QUEUE_MSIX_VECTOR).write_volatile(0);
                if register16(QUEUE_MSIX_VECTOR).read_volatile() != 0 {
                    return None;
                }
            } else {
                memory
                    .mapped
                    .add(AVAILABLE)
                    .cast::<u16>()
                    .write_volatile(NO_INTERRUPT);
            }
            let offset = u32::from(register16(QUEUE_NOTIFY_OFF).read_volatile())
                .checked_mul(location.multiplier)?;
            if offset.checked_add(2)? > location.notify_bytes {
                return None;
            }
            register16(QUEUE_ENABLE).write_volatile(1);
            let notify = notify.add(offset as usize).cast();
            Some(Self {
                number,
                notify,
                memory,
                size,
                available: 0,
                used: 0,
            })
        }
    }

    /// Makes a buffer available, as the descriptor with this index.
    ///
    /// # Safety
    /// The buffer is shared memory that nobody touches until it comes back from [`take`](Self::take); the descriptor is not
    /// in use.
    unsafe fn offer(&mut self, descriptor: u16, physical: u64, bytes: u32, flags: u32) {
        // SAFETY: `descriptor` is less than the size, so all places are inside the queue's memory; while the descriptor is not
        // in use, the device does not read it.
        unsafe {
            let entry = self
                .memory
                .mapped
                .add(DESCRIPTORS + usize::from(descriptor) * 16);
            entry.cast::<u64>().write_volatile(physical);
            entry.add(8).cast::<u32>().write_volatile(bytes);
            entry.add(12).cast::<u32>().write_volatile(flags);
            let ring = self.memory.mapped.add(AVAILABLE).cast::<u16>();
            ring.add(2 + usize::from(self.available % self.size))
                .write_volatile(descriptor);
            // The entry before the index (2.7.13.3.1).
            fence(Ordering::Release);
            self.available = self.available.wrapping_add(1);
            ring.add(1).write_volatile(self.available);
        }
    }

    /// Tells the device that buffers are available.
    fn notify(&mut self) {
        // The index before the notification (2.7.13.4).
        fence(Ordering::SeqCst);
        // SAFETY: the queue's place in the notification area.
        unsafe { self.notify.write_volatile(self.number) };
    }

    /// Takes a used buffer back: its descriptor's index and the bytes that the device wrote.
    fn take(&mut self) -> Option<(u16, u32)> {
        // SAFETY: inside the queue's memory, which only the device writes here.
        unsafe {
            let ring = self.memory.mapped.add(USED);
            if ring.add(2).cast::<u16>().read_volatile() == self.used {
                return None;
            }
            fence(Ordering::Acquire);
            let entry = ring
                .add(4 + usize::from(self.used % self.size) * 8)
                .cast::<u32>();
            self.used = self.used.wrapping_add(1);
            Some((entry.read_volatile() as u16, entry.add(1).read_volatile()))
        }
    }

    /// Sends a control message and waits until the device has taken it; `None` if `stalled` says to give up.
    fn tell(
        &mut self,
        port: u32,
        event: u16,
        value: u16,
        stalled: &mut impl FnMut() -> bool,
    ) -> Option<()> {
        // SAFETY: the message is in this queue's memory, and the last one was taken.
        unsafe {
            let message = self.memory.mapped.add(MESSAGE);
            message.cast::<u32>().write_volatile(port);
            message.add(4).cast::<u16>().write_volatile(event);
            message.add(6).cast::<u16>().write_volatile(value);
            self.offer(0, self.memory.physical + MESSAGE as u64, 8, 0);
        }
        self.notify();
        // Handled at once, or by another thread of the emulator.
        while self.take().is_none() {
            if stalled() {
                return None;
            }
            core::hint::spin_loop();
        }
        Some(())
    }

    /// Buffers that the device has.
    fn in_flight(&self) -> u16 {
        self.available.wrapping_sub(self.used)
    }
}

/// Resets and starts the device. `None` when it does not accept what this driver can do, or does not answer: `stalled` is asked each
/// time that it has not yet, and says whether to give up. There is a receiver when an interrupt is given for it, and the device can send one.
///
/// # Safety
/// `common` and `notify` are the places in `location`, and `table` that of the device's interrupt table, mapped uncached;
/// `shared` is as it says, zeroed, and the device's and this driver's alone from now on, for ever. Nobody else drives the device. The
/// core named in the interrupt has a handler for it.
pub unsafe fn start(
    location: &Location,
    common: NonNull<u8>,
    notify: NonNull<u8>,
    shared: SharedMemory,
    interrupt: Option<(Interrupt, NonNull<u32>)>,
    mut stalled: impl FnMut() -> bool,
) -> Option<(Sender, Option<Receiver>)> {
    if shared.bytes <= OVERHEAD {
        return None;
    }
    // SAFETY: the caller's promise; every offset is inside the structure, and aligned to its type.
    unsafe {
        let register32 = |offset: usize| common.add(offset).cast::<u32>();
        let status = common.add(DEVICE_STATUS);
        location.device.enable();
        // Initialisation in the order of 3.1.1.
        status.write_volatile(0);
        while status.read_volatile() != 0 {
            if stalled() {
                return None;
            }
        }
        status.write_volatile(ACKNOWLEDGE);
        status.write_volatile(ACKNOWLEDGE | DRIVER);
        register32(DEVICE_FEATURE_SELECT).write_volatile(1);
        if register32(DEVICE_FEATURE).read_volatile() & VERSION_1 == 0 {
            return None;
        }
        register32(DEVICE_FEATURE_SELECT).write_volatile(0);
        let multiport = register32(DEVICE_FEATURE).read_volatile() & MULTIPORT;
        for (word, features) in [(0, multiport), (1, VERSION_1)] {
            register32(DRIVER_FEATURE_SELECT).write_volatile(word);
            register32(DRIVER_FEATURE).write_volatile(features);
        }
        status.write_volatile(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if status.read_volatile() & FEATURES_OK == 0 {
            return None;
        }
        let numbers = if multiport == 0 { PORT_0 } else { PORT_1 };
        let queue = |place: usize, number, size, interrupt| {
            Queue::new(
                location,
                common,
                notify,
                shared.at(place * RINGS),
                number,
                size,
                interrupt,
            )
        };
        let transmit = queue(0, numbers.transmit, 1, false)?;
        let mut receive = None;
        if let Some((interrupt, table)) = interrupt {
            location
                .device
                .enable_msix(table, interrupt.apic, interrupt.vector);
            receive = queue(1, numbers.receive, RECEIVE_BUFFERS, true);
        }
        let control = if multiport == 0 {
            None
        } else {
            Some(queue(2, CONTROL, 1, false)?)
        };
        status.write_volatile(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        if let Some(mut control) = control {
            for (port, event, value) in
                [(0, DEVICE_READY, 1), (1, PORT_READY, 1), (1, PORT_OPEN, 1)]
            {
                control.tell(port, event, value, &mut stalled)?;
            }
        }
        let receiver = receive.map(|queue| {
            let buffers = shared.at(3 * RINGS);
            let mut receiver = Receiver {
                queue,
                buffers,
                current: None,
            };
            for descriptor in 0..receiver.queue.size {
                receiver.give_back(descriptor);
            }
            receiver.queue.notify();
            receiver
        });
        Some((
            Sender {
                queue: transmit,
                buffer: shared.at(OVERHEAD),
            },
            receiver,
        ))
    }
}

/// The sending half. Not for concurrent use.
#[derive(Debug)]
pub struct Sender {
    queue: Queue,
    buffer: SharedMemory,
}

// SAFETY: it owns its registers and memory, which are the same from every core.
unsafe impl Send for Sender {}

impl Sender {
    /// Sends all of `bytes`. `stalled` is asked each time that the device is not done and says whether to give up: the
    /// receiver may have stopped reading. Returns how many bytes the device has taken.
    pub fn send(&mut self, bytes: &[u8], mut stalled: impl FnMut() -> bool) -> usize {
        let mut sent = 0;
        for chunk in bytes.chunks(self.buffer.bytes) {
            // The last buffer, if an earlier call gave up.
            if !self.wait(&mut stalled) {
                return sent;
            }
            // SAFETY: the device has given the buffer and the one descriptor back; the chunk fits.
            unsafe {
                self.buffer
                    .mapped
                    .copy_from_nonoverlapping(NonNull::from(chunk).cast(), chunk.len());
                self.queue
                    .offer(0, self.buffer.physical, chunk.len() as u32, 0);
            }
            self.queue.notify();
            if !self.wait(&mut stalled) {
                return sent;
            }
            sent += chunk.len();
        }
        sent
    }

    /// Waits until the device has used all that it was handed; false if `stalled` says to give up.
    fn wait(&mut self, stalled: &mut impl FnMut() -> bool) -> bool {
        while self.queue.in_flight() > 0 {
            if self.queue.take().is_none() {
                if stalled() {
                    return false;
                }
                core::hint::spin_loop();
            }
        }
        true
    }
}

/// The receiving half. Not for concurrent use.
#[derive(Debug)]
pub struct Receiver {
    queue: Queue,
    buffers: SharedMemory,
    /// The buffer being read: its descriptor, how far it was read, and how far it is filled.
    current: Option<(u16, usize, usize)>,
}

// SAFETY: as for the sender.
unsafe impl Send for Receiver {}

impl Receiver {
    fn give_back(&mut self, descriptor: u16) {
        let offset = usize::from(descriptor) * RECEIVE_BUFFER;
        let physical = self.buffers.physical + offset as u64;
        // SAFETY: each descriptor has its buffer, and comes back before it is offered again.
        unsafe {
            self.queue
                .offer(descriptor, physical, RECEIVE_BUFFER as u32, DEVICE_WRITES)
        };
    }

    /// A received byte, if there is one. When there is none, the device interrupts as soon as there is.
    pub fn receive(&mut self) -> Option<u8> {
        loop {
            match self.current {
                Some((descriptor, at, end)) if at < end => {
                    self.current = Some((descriptor, at + 1, end));
                    let offset = usize::from(descriptor) * RECEIVE_BUFFER + at;
                    // SAFETY: inside the descriptor's buffer, which the device has filled so far and given back.
                    return Some(unsafe { self.buffers.mapped.add(offset).read_volatile() });
                }
                Some((descriptor, ..)) => {
                    self.current = None;
                    self.give_back(descriptor);
                    self.queue.notify();
                }
                None => {
                    let (descriptor, bytes) = self.queue.take()?;
                    // A device that breaks its contract must not lead outside.
                    let descriptor = descriptor % self.queue.size;
                    self.current = Some((descriptor, 0, (bytes as usize).min(RECEIVE_BUFFER)));
                }
            }
        }
    }
}
