//! The 8254 programmable interval timer, as a reference to calibrate faster clocks by.

use x86_64::instructions::port::Port;

/// The counter's frequency in hertz: a third of the NTSC colour clock, as on every PC.
pub const FREQUENCY: u64 = 1_193_182;

/// Counts down `ticks` (1 to 65,535) of the timer's clock on channel 2 and returns the values that `read` gave at start
/// and end, or `None` when the counter did not finish within a billion polls, as where there is no such timer.
///
/// Uses mode 0 of channel 2, whose gate and output are bits 0 and 5 of port 0x61 (Intel 8254 data sheet), the speaker off.
///
/// # Safety
/// Nothing else uses channel 2 of the timer or port 0x61 meanwhile. Interrupts should be off, or the result is coarse.
pub unsafe fn measure(ticks: u16, mut read: impl FnMut() -> u64) -> Option<(u64, u64)> {
    let mut control = Port::<u8>::new(0x61);
    let mut command = Port::<u8>::new(0x43);
    let mut channel2 = Port::<u8>::new(0x42);
    // SAFETY: the standard PC ports of the timer; the caller says that nobody else uses them.
    unsafe {
        let before = control.read();
        control.write((before & !0x03) | 0x01); // gate on, speaker off
        command.write(0xb0); // channel 2, low byte then high byte, mode 0, binary
        channel2.write(ticks as u8);
        channel2.write((ticks >> 8) as u8); // the count starts here
        let start = read();
        let mut end = None;
        for _ in 0..1_000_000_000u32 {
            if control.read() & 0x20 != 0 {
                end = Some(read());
                break;
            }
        }
        control.write(before);
        Some((start, end?))
    }
}
