//! The framebuffer of QEMU's `-vga std`: the Bochs display adapter, found on PCI, set through its DISPI registers
//! (QEMU, docs/specs/standard-vga.rst).

use crate::memory::{self, REACH};
use drivers::pci;
use loader::PAGE;
use x86_64::instructions::port::Port;

/// A framebuffer of 32-bit pixels, already on.
#[derive(Clone, Copy, Debug)]
pub struct Display {
    /// The physical address of the first pixel, on a page boundary.
    pub base: u64,
    /// Pixels in a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
}

impl Display {
    /// Bytes from row to row.
    pub fn pitch(&self) -> u64 {
        self.width * 4
    }

    /// Bytes, rounded up to whole pages.
    pub fn length(&self) -> u64 {
        (self.pitch() * self.height).next_multiple_of(PAGE)
    }
}

const WIDTH: u16 = 1024;
const HEIGHT: u16 = 768;

/// Vendor and device identifier.
const BOCHS_DISPLAY: (u16, u16) = (0x1234, 0x1111);

fn dispi_set(index: u16, value: u16) {
    // SAFETY: the adapter has been found, and these are its ports.
    unsafe {
        Port::new(0x1ce).write(index);
        Port::new(0x1cf).write(value);
    }
}

fn dispi_get(index: u16) -> u16 {
    // SAFETY: as in `dispi_set`.
    unsafe {
        Port::new(0x1ce).write(index);
        Port::new(0x1cf).read()
    }
}

/// Finds the adapter and sets 1024 by 768 pixels; `None` where there is none, or where its memory lies beyond 4 GiB.
pub fn find() -> Option<Display> {
    let device = pci::devices().find(|device| device.identity() == Some(BOCHS_DISPLAY))?;
    let base = device.memory_region(0)?;
    let display = Display {
        base,
        width: u64::from(WIDTH),
        height: u64::from(HEIGHT),
    };
    if base % PAGE != 0
        || base.checked_add(display.length())? > REACH
        || dispi_get(0) & 0xfff0 != 0xb0c0
    {
        return None;
    }
    const ENABLE: u16 = 4;
    const ON_LINEAR: u16 = 0x41;
    for (index, value) in [
        (ENABLE, 0),
        (1, WIDTH),
        (2, HEIGHT),
        (3, 32),
        (6, WIDTH),
        (8, 0),
        (9, 0),
        (ENABLE, ON_LINEAR),
    ] {
        dispi_set(index, value);
    }
    if dispi_get(1) != WIDTH
        || dispi_get(2) != HEIGHT
        || dispi_get(3) != 32
        || dispi_get(6) != WIDTH
    {
        return None;
    }
    // SAFETY: the adapter's own memory, which BAR 0 gives and the early tables map; nobody else draws.
    unsafe { memory::pointer::<u8>(base).write_bytes(0, display.length() as usize) };
    Some(display)
}
