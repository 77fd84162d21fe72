//! What goes in and out of the machine: the program's streams, the log, and the exit.
//!
//! | port | out | in |
//! | --- | --- | --- |
//! | COM1 | the program's standard output, nothing else | its standard input, escaped (see [`escape`]) |
//! | COM2 | the kernel's log and the program's standard error | escapes only: a cancel that need not queue behind input |
//! | COM3 | files that the program wrote, as one `ustar` archive | |
//!
//! A serial port takes and gives a byte at a time, which under an emulator costs microseconds out and a hundred in. Where there
//! is a virtio console it takes the port's place, with the same bytes, and a thousandth of the time: that at PCI device [`FILES_DEVICE`] of the
//! root bus for COM3; for COM1 that at [`PROGRAM_DEVICE`] of the root bus, or else the first other one, behind bridges too.
//!
//! Beside these, all that goes out on the first two appears on the [`screen`], and what is typed at a PC's keyboard is input
//! ([`typing`]): a machine without serial ports has no other console.

pub mod escape;
pub mod input;
pub mod log;
pub mod ring;
pub mod typing;

use crate::{
    cpu::{local, vector},
    info,
    memory::{
        PAGE, direct,
        paging::{Access, Cache},
        space,
    },
    screen, time,
};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use drivers::{
    exit::ExitDevice,
    pci,
    serial::{COM1, COM2, COM3, Serial},
    virtio::{self, COMMON_BYTES, SharedMemory},
};
use spin::Mutex;

/// The console for the program's output.
const PROGRAM_DEVICE: pci::Device = pci::Device::on_root_bus(0x10);
/// The console for written files.
const FILES_DEVICE: pci::Device = pci::Device::on_root_bus(0x12);

/// Frames shared with a console, as a power of two: 64 KiB.
const SHARED_ORDER: usize = 4;

/// How long a console may take to answer while it is started, in nanoseconds: an emulator on a busy host needs a while.
const PATIENCE: u64 = 60_000_000_000;

// SAFETY: the PC's standard ports; nothing else answers there.
pub(crate) const PROGRAM: Serial = unsafe { Serial::new(COM1) };
// SAFETY: as above.
pub(crate) const LOG: Serial = unsafe { Serial::new(COM2) };
// SAFETY: as above.
const FILES: Serial = unsafe { Serial::new(COM3) };
// SAFETY: the port that the launcher gives QEMU's exit device; unused on PCs.
const EXIT: ExitDevice = unsafe { ExitDevice::new(0xf4) };

/// Held by whoever sends program output, for one whole write. The console, if there is one.
static OUTPUT: Mutex<Option<virtio::Sender>> = Mutex::new(None);
/// The same for written files.
static ARCHIVE: Mutex<Option<virtio::Sender>> = Mutex::new(None);
/// Held by whoever sends to the log's port, for one whole line or write.
static ERRORS: Mutex<()> = Mutex::new(());

/// Bytes of program output so far.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Whether there are the first and the second serial port. An absent one takes bytes as well, a microsecond each.
static PRESENT: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

/// Sets up the serial ports.
pub(crate) fn initialise() {
    for (port, present) in [PROGRAM, LOG].into_iter().zip(&PRESENT) {
        present.store(port.initialise(), Ordering::Relaxed);
    }
    FILES.initialise();
}

/// Sends to the log's port, if there is one. The caller keeps others out.
fn send_to_log(bytes: &[u8], stalled: impl FnMut() -> bool) {
    if PRESENT[1].load(Ordering::Relaxed) {
        LOG.send(bytes, stalled);
    }
}

/// Looks for virtio consoles and uses those that there are from now on.
pub(crate) fn find_consoles() {
    let program = virtio::find(PROGRAM_DEVICE).or_else(|| {
        let mut others = pci::devices().filter(|&device| device != FILES_DEVICE);
        others.find_map(virtio::find)
    });
    if let Some((sender, receiver)) = program.and_then(|found| start_console(found, true)) {
        let program = program.map_or(PROGRAM_DEVICE, |found| found.device());
        info!(
            "virtio console at PCI {:02x}:{:02x}.{}: program output{}",
            program.bus,
            program.number,
            program.function,
            if receiver.is_some() { " and input" } else { "" }
        );
        *OUTPUT.lock() = Some(sender);
        if let Some(receiver) = receiver {
            input::receive_from(receiver);
        }
    }
    let files = virtio::find(FILES_DEVICE);
    if let Some((sender, _)) = files.and_then(|found| start_console(found, false)) {
        info!("virtio console: written files");
        *ARCHIVE.lock() = Some(sender);
    }
}

fn start_console(
    location: virtio::Location,
    receives: bool,
) -> Option<(virtio::Sender, Option<virtio::Receiver>)> {
    let device = location.device();
    let physical = space::allocate(SHARED_ORDER)?;
    let bytes = (PAGE as usize) << SHARED_ORDER;
    let mapped = NonNull::new(direct::reach::<u8>(physical))?;
    // SAFETY: the registers are the device's.
    let map = |address, bytes| unsafe {
        space::map_device(address, bytes, Access::ReadWrite, Cache::Uncacheable)
    };
    let start = time::now();
    let interrupt = device.msix_table().filter(|_| receives).and_then(|table| {
        let apic = u8::try_from(local::current().apic_id()).ok()?;
        Some((
            virtio::Interrupt {
                apic,
                vector: vector::CONSOLE,
            },
            map(table, 16).cast(),
        ))
    });
    // SAFETY: the frames are ours, and never given back, because the device knows them; this core has a handler for every vector.
    unsafe {
        mapped.write_bytes(0, bytes);
        let common = map(location.common, COMMON_BYTES);
        let notify = map(location.notify, location.notify_bytes as usize);
        virtio::start(
            &location,
            common,
            notify,
            SharedMemory {
                physical,
                mapped,
                bytes,
            },
            interrupt,
            || time::now() - start > PATIENCE,
        )
    }
}

/// Sends program output: all of `bytes`, in one piece. Waits as long as the receiver does not read.
pub fn write_output(bytes: &[u8]) {
    match &mut *OUTPUT.lock() {
        Some(sender) => {
            sender.send(bytes, || false);
        }
        None if PRESENT[0].load(Ordering::Relaxed) => {
            PROGRAM.send(bytes, || false);
        }
        None => {}
    }
    screen::print(bytes);
    WRITTEN.fetch_add(bytes.len() as u64, Ordering::Relaxed);
}

/// Sends error output, in one piece. Waits as long as the receiver does not read.
pub fn write_error(bytes: &[u8]) {
    let _guard = ERRORS.lock();
    send_to_log(bytes, || false);
    screen::print(bytes);
}

/// Sends part of the archive of written files.
pub(crate) fn write_archive(bytes: &[u8]) {
    match &mut *ARCHIVE.lock() {
        Some(sender) => sender.send(bytes, || false),
        None => FILES.send(bytes, || false),
    };
}

/// Ends the machine with `status` once the ports have sent what they hold, or it takes too long. Returns where there is no
/// exit device.
pub(crate) fn exit(status: u8) {
    drain();
    EXIT.exit(status);
}

/// Waits until the ports have sent what they hold, a bounded time.
pub(crate) fn drain() {
    for port in [PROGRAM, LOG, FILES] {
        // A character takes 87 us at 115,200 baud, 16 of them 1.4 ms; a poll takes about a microsecond. But an emulator's port waits
        // for whoever reads what it sends: ten seconds or more. Absent ports read as idle.
        for _ in 0..10_000_000 {
            if port.idle() {
                break;
            }
            core::hint::spin_loop();
        }
    }
}
