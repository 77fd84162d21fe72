//! The 16550A serial port (National Semiconductor PC16550D data sheet).
//!
//! Transmitting and receiving touch different registers, so one core may send while an interrupt handler, on the same core or
//! another, receives. Two senders, or two receivers, must be kept apart by the caller.

use core::arch::asm;
use x86_64::instructions::port::Port;

/// The port address of the PC's first serial port.
pub const COM1: u16 = 0x3f8;
/// The port address of the PC's second serial port.
pub const COM2: u16 = 0x2f8;
/// The port address of the PC's third serial port.
pub const COM3: u16 = 0x3e8;

// Register offsets; the divisor latch replaces the first two while LCR bit 7 is set.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

// Line status bits.
const DATA_READY: u8 = 1 << 0;
const HOLDING_EMPTY: u8 = 1 << 5;
const TRANSMITTER_EMPTY: u8 = 1 << 6;

/// Bytes that the transmit FIFO takes at once when it is empty.
const FIFO: usize = 16;

/// One serial port.
#[derive(Clone, Copy, Debug)]
pub struct Serial {
    base: u16,
}

impl Serial {
    /// The port at `base`. Touches nothing.
    ///
    /// # Safety
    /// Nothing else than a 16550-compatible device, or nothing at all, answers at the eight I/O ports from `base` on.
    pub const unsafe fn new(base: u16) -> Self {
        Self { base }
    }

    fn read(&self, register: u16) -> u8 {
        // SAFETY: `new`'s caller vouches for the ports; no register of the device reaches memory.
        unsafe { Port::new(self.base + register).read() }
    }

    fn write(&self, register: u16, value: u8) {
        // SAFETY: as for `read`.
        unsafe { Port::new(self.base + register).write(value) }
    }

    /// Sets the port to 115,200 baud, 8 data bits, no parity, one stop bit, FIFOs on and cleared, interrupts off. Returns
    /// whether there is a device at all.
    pub fn initialise(&self) -> bool {
        self.write(SCRATCH, 0xae);
        if self.read(SCRATCH) != 0xae {
            return false;
        }
        self.write(INTERRUPT_ENABLE, 0);
        self.write(LINE_CONTROL, 0x80); // divisor latch
        self.write(DATA, 1); // 115,200 baud
        self.write(INTERRUPT_ENABLE, 0);
        self.write(LINE_CONTROL, 0x03); // 8N1
        self.write(FIFO_CONTROL, 0xc7); // on, both cleared, interrupt at 14 bytes or after a pause of 4 characters
        self.write(MODEM_CONTROL, 0x0b); // DTR, RTS, OUT2: the last connects the interrupt line
        true
    }

    /// Sends all of `bytes`. `stalled` is asked each time that the transmitter is not ready and says whether to give up:
    /// with a receiver that has stopped reading this can take for ever. Returns how many bytes were sent.
    pub fn send(&self, bytes: &[u8], mut stalled: impl FnMut() -> bool) -> usize {
        let mut sent = 0;
        for chunk in bytes.chunks(FIFO) {
            while self.read(LINE_STATUS) & HOLDING_EMPTY == 0 {
                if stalled() {
                    return sent;
                }
                core::hint::spin_loop();
            }
            // The FIFO is empty, so a chunk fits. One string instruction: under KVM it is one exit instead of sixteen.
            // SAFETY: `outsb` reads `chunk.len()` bytes of `chunk` and writes them to the data register; the direction flag
            // is clear in Rust code.
            unsafe {
                asm!(
                    "rep outsb",
                    in("dx") self.base + DATA,
                    inout("rcx") chunk.len() => _,
                    inout("rsi") chunk.as_ptr() => _,
                    options(nostack, preserves_flags, readonly),
                );
            }
            sent += chunk.len();
        }
        sent
    }

    /// Whether everything sent has left the device, its shift register included.
    pub fn idle(&self) -> bool {
        self.read(LINE_STATUS) & TRANSMITTER_EMPTY != 0
    }

    /// A received byte, if there is one. (An absent device gives none.)
    pub fn receive(&self) -> Option<u8> {
        let status = self.read(LINE_STATUS);
        (status != 0xff && status & DATA_READY != 0).then(|| self.read(DATA))
    }

    /// Whether the device interrupts when it has received something. The line stays active while unread bytes are there.
    pub fn set_receive_interrupt(&self, on: bool) {
        self.write(INTERRUPT_ENABLE, u8::from(on));
    }
}
