//! QEMU's `isa-debug-exit` device: a byte written to its port ends the machine.
//!
//! QEMU's process then exits with `(status << 1) | 1`, so the launcher can tell a status from QEMU's own exits. On a
//! machine without the device the write goes nowhere.

use x86_64::instructions::port::Port;

/// The exit device at an I/O port.
#[derive(Clone, Copy, Debug)]
pub struct ExitDevice {
    port: u16,
}

impl ExitDevice {
    /// The device at `port`.
    ///
    /// # Safety
    /// Nothing else than such a device answers writes to `port`.
    pub const unsafe fn new(port: u16) -> Self {
        Self { port }
    }

    /// Ends the machine with `status` (0 to 127 survive QEMU's encoding). Returns only where there is no such device.
    pub fn exit(&self, status: u8) {
        // SAFETY: `new`'s caller vouches for the port; ending the machine breaks nobody's memory.
        unsafe { Port::<u8>::new(self.port).write(status) }
    }
}
