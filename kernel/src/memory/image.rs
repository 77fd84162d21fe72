//! Where the kernel's own segments are, as the linker script lays them out.

use core::ops::Range;

#[cfg(not(test))]
unsafe extern "C" {
    static image_start: u8;
    static text_start: u8;
    static text_end: u8;
    static rodata_start: u8;
    static rodata_end: u8;
    static unwind_start: u8;
    static unwind_end: u8;
    static data_start: u8;
    static data_end: u8;
    static image_end: u8;
}

/// The addresses between two symbols of the linker script.
#[cfg(not(test))]
macro_rules! segment {
    ($start:ident, $end:ident) => {
        // Only the symbols' addresses are taken.
        (&raw const $start).addr() as u64..(&raw const $end).addr() as u64
    };
}

/// The host's tests are not linked by the script: no address is in any segment.
#[cfg(test)]
macro_rules! segment {
    ($start:ident, $end:ident) => {
        0xffff_ffff_8000_0000..0xffff_ffff_8000_0000
    };
}

/// Code.
pub fn text() -> Range<u64> {
    segment!(text_start, text_end)
}

/// Constants.
pub fn rodata() -> Range<u64> {
    segment!(rodata_start, rodata_end)
}

/// The unwind tables (`.eh_frame`), among the constants.
pub fn unwind_tables() -> Range<u64> {
    segment!(unwind_start, unwind_end)
}

/// Variables.
pub fn data() -> Range<u64> {
    segment!(data_start, data_end)
}

/// The whole image.
pub fn image() -> Range<u64> {
    segment!(image_start, image_end)
}
