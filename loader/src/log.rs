//! Messages on COM2, where the kernel's log goes as well.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use x86_64::instructions::port::Port;

const COM2: u16 = 0x2f8;

/// How often the transmitter is asked before a byte is given up: a port that is not there must not stop the boot.
const PATIENCE: u32 = 100_000;

static QUIET: AtomicBool = AtomicBool::new(false);

struct Com2;

impl Write for Com2 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn write(register: u16, value: u8) {
    // SAFETY: COM2's ports, which belong to the loader while it runs and have no effect on memory.
    unsafe { Port::new(COM2 + register).write(value) }
}

fn read(register: u16) -> u8 {
    // SAFETY: as in `write`.
    unsafe { Port::new(COM2 + register).read() }
}

fn send(byte: u8) {
    const LINE_STATUS: u16 = 5;
    const TRANSMITTER_EMPTY: u8 = 1 << 5;
    if (0..PATIENCE).any(|_| read(LINE_STATUS) & TRANSMITTER_EMPTY != 0) {
        write(0, byte);
    }
}

/// Sets COM2 to 115200 baud, 8 bits, no parity, one stop bit, FIFOs on, no interrupts (16550 data sheet).
pub fn initialize() {
    for (register, value) in [
        (1, 0),
        (3, 0x80),
        (0, 1),
        (1, 0),
        (3, 3),
        (2, 0x07),
        (4, 0x03),
    ] {
        write(register, value);
    }
}

/// Keeps [`info`] silent from now on.
pub fn be_quiet() {
    QUIET.store(true, Relaxed);
}

/// Writes a line.
pub fn line(message: fmt::Arguments<'_>) {
    // Writing to COM2 cannot fail, and there is nowhere to report it.
    let _ = Com2.write_fmt(format_args!("loader: {message}\n"));
}

/// Writes a line that tells what goes well.
pub fn info(message: fmt::Arguments<'_>) {
    if !QUIET.load(Relaxed) {
        line(message);
    }
}
