//! What goes in and out of the machine: the program's streams, the log, and the exit.
//!
//! | port | out | in |
//! | --- | --- | --- |
//! | COM1 | the program's standard output, nothing else | its standard input, escaped (see [`escape`]) |
//! | COM2 | the kernel's log and the program's standard error | escapes only: a cancel that need not queue behind input |
//! | COM3 | files that the program wrote, as one `ustar` archive | |

pub mod escape;
pub mod input;
pub mod log;
pub mod ring;

use core::sync::atomic::{AtomicU64, Ordering};
use drivers::{
    exit::ExitDevice,
    serial::{COM1, COM2, COM3, Serial},
};
use spin::Mutex;

// SAFETY: the PC's standard ports; nothing else answers there.
pub(crate) const PROGRAM: Serial = unsafe { Serial::new(COM1) };
// SAFETY: as above.
pub(crate) const LOG: Serial = unsafe { Serial::new(COM2) };
// SAFETY: as above.
const FILES: Serial = unsafe { Serial::new(COM3) };
// SAFETY: the port that the launcher gives QEMU's exit device; unused on PCs.
const EXIT: ExitDevice = unsafe { ExitDevice::new(0xf4) };

/// Held by whoever sends program output, for one whole write.
static OUTPUT: Mutex<()> = Mutex::new(());
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

/// Sends program output: all of `bytes`, in one piece. Waits as long as the receiver does not read.
pub fn write_output(bytes: &[u8]) {
    let _guard = OUTPUT.lock();
    PROGRAM.send(bytes, || false);
    WRITTEN.fetch_add(bytes.len() as u64, Ordering::Relaxed);
}

/// Sends error output, in one piece. Waits as long as the receiver does not read.
pub fn write_error(bytes: &[u8]) {
    let _guard = ERRORS.lock();
    LOG.send(bytes, || false);
}

/// Sends part of the archive of written files. By one core at a time.
pub(crate) fn write_archive(bytes: &[u8]) {
    FILES.send(bytes, || false);
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
