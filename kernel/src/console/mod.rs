//! What goes in and out of the machine: the program's streams, the log, and the exit.
//!
//! | port | out | in |
//! | --- | --- | --- |
//! | COM1 | the program's standard output, nothing else | its standard input, escaped (see [`escape`]) |
//! | COM2 | the kernel's log and the program's standard error | escapes only: a cancel that need not queue behind input |
//! | COM3 | files that the program wrote, as one `ustar` archive | |
//!
//! A serial port takes a byte at a time, which under an emulator costs microseconds each. Where there is a virtio console at
//! PCI device [`PROGRAM_DEVICE`] (for COM1) or [`FILES_DEVICE`] (for COM3) of the root bus, what would go out of the port goes
//! there instead, and takes a thousandth of the time. Input stays with COM1.

pub mod escape;
pub mod input;
pub mod log;
pub mod ring;

use crate::{
    info,
    memory::{
        PAGE, direct,
        paging::{Access, Cache},
        space,
    },
};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use drivers::{
    exit::ExitDevice,
    pci,
    serial::{COM1, COM2, COM3, Serial},
    virtio::{self, COMMON_BYTES, SharedMemory},
};
use spin::Mutex;

/// PCI device number of the console for the program's output.
pub const PROGRAM_DEVICE: u8 = 0x10;
/// PCI device number of the console for written files.
pub const FILES_DEVICE: u8 = 0x12;

/// Frames shared with a console, as a power of two: 64 KiB, of which all but the first page is the buffer.
const SHARED_ORDER: usize = 4;

// SAFETY: the PC's standard ports; nothing else answers there.
pub(crate) const PROGRAM: Serial = unsafe { Serial::new(COM1) };
// SAFETY: as above.
pub(crate) const LOG: Serial = unsafe { Serial::new(COM2) };
// SAFETY: as above.
const FILES: Serial = unsafe { Serial::new(COM3) };
// SAFETY: the port that the launcher gives QEMU's exit device; unused on PCs.
const EXIT: ExitDevice = unsafe { ExitDevice::new(0xf4) };

/// Held by whoever sends program output, for one whole write. The console, if there is one.
static OUTPUT: Mutex<Option<virtio::Console>> = Mutex::new(None);
/// The same for written files.
static ARCHIVE: Mutex<Option<virtio::Console>> = Mutex::new(None);
/// Held by whoever sends to the log's port, for one whole line or write.
static ERRORS: Mutex<()> = Mutex::new(());

/// Bytes of program output so far.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Sets up the serial ports.
pub(crate) fn initialise() {
    for port in [LOG, PROGRAM, FILES] {
        port.initialise();
    }
}

/// Looks for virtio consoles and uses those that there are from now on.
pub(crate) fn find_consoles() {
    for (number, place, what) in [
        (PROGRAM_DEVICE, &OUTPUT, "program output"),
        (FILES_DEVICE, &ARCHIVE, "written files"),
    ] {
        if let Some(console) = start_console(pci::Device { number }) {
            info!("virtio console {number:#x} takes {what}");
            *place.lock() = Some(console);
        }
    }
}

fn start_console(device: pci::Device) -> Option<virtio::Console> {
    let location = virtio::find(device)?;
    let physical = space::allocate(SHARED_ORDER)?;
    let bytes = (PAGE as usize) << SHARED_ORDER;
    let mapped = NonNull::new(direct::reach::<u8>(physical))?;
    // SAFETY: the frames are ours; they are never given back, because the device knows them. The registers are the device's.
    unsafe {
        mapped.write_bytes(0, bytes);
        let map = |address, bytes| {
            space::map_device(address, bytes, Access::ReadWrite, Cache::Uncacheable)
        };
        let common = map(location.common, COMMON_BYTES);
        let notify = map(location.notify, location.notify_bytes as usize);
        virtio::Console::start(
            &location,
            common,
            notify,
            SharedMemory {
                physical,
                mapped,
                bytes,
            },
        )
    }
}

/// Sends program output: all of `bytes`, in one piece. Waits as long as the receiver does not read.
pub fn write_output(bytes: &[u8]) {
    match &mut *OUTPUT.lock() {
        Some(console) => console.send(bytes, || false),
        None => PROGRAM.send(bytes, || false),
    };
    WRITTEN.fetch_add(bytes.len() as u64, Ordering::Relaxed);
}

/// Sends error output, in one piece. Waits as long as the receiver does not read.
pub fn write_error(bytes: &[u8]) {
    let _guard = ERRORS.lock();
    LOG.send(bytes, || false);
}

/// Sends part of the archive of written files.
pub(crate) fn write_archive(bytes: &[u8]) {
    match &mut *ARCHIVE.lock() {
        Some(console) => console.send(bytes, || false),
        None => FILES.send(bytes, || false),
    };
}

/// Ends the machine with `status` once the ports have sent what they hold, or it takes too long. Returns where there is no
/// exit device.
pub(crate) fn exit(status: u8) {
    for port in [PROGRAM, LOG, FILES] {
        // A character takes 87 us at 115,200 baud, 16 of them 1.4 ms; a poll takes about a microsecond. Absent ports
        // read as idle.
        for _ in 0..10_000 {
            if port.idle() {
                break;
            }
            core::hint::spin_loop();
        }
    }
    EXIT.exit(status);
}
