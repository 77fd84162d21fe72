//! Exceptions. None is expected, so each is reported and ends the machine; here the report is put into words.

use super::{interrupts::Frame, local};
use crate::{
    memory::{VUA, VUA_END, image, stacks},
    panic,
    symbols::Place,
    unwind::Cursor,
};
use core::{fmt, sync::atomic::Ordering};
use x86_64::registers::control::Cr2;

/// The exceptions' names (SDM volume 3, table 6-1).
fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid task state segment",
        11 => "segment not present",
        12 => "stack-segment fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point error",
        20 => "virtualization exception",
        21 => "control protection exception",
        28 => "hypervisor injection exception",
        29 => "VMM communication exception",
        30 => "security exception",
        _ => "unknown exception",
    }
}

/// Reports the exception and ends the machine.
pub(crate) fn report(frame: &Frame) -> ! {
    // Before anything else, because anything else may fault again.
    match local::current().faults.fetch_add(1, Ordering::Relaxed) {
        0 => {}
        1 => panic::nested(format_args!(
            "{} at {:#x} while a fault was being reported",
            name(frame.vector),
            frame.rip
        )),
        _ => panic::give_up(),
    }
    let address = Cr2::read_raw();
    panic::stop(&Report { frame, address }, Cursor::interrupted(frame))
}

/// What an exception's report says.
struct Report<'a> {
    frame: &'a Frame,
    /// CR2.
    address: u64,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.frame;
        write!(out, "{} at {}", name(frame.vector), Place::of(frame.rip))?;
        match frame.vector {
            14 => write!(
                out,
                ": {}",
                PageFault {
                    address: self.address,
                    error: frame.error
                }
            )?,
            8 => write!(out, "; last page fault address {:#x}", self.address)?,
            10..=13 | 17 | 21 if frame.error != 0 => {
                write!(out, ", error code {:#x}", frame.error)?
            }
            _ => {}
        }
        writeln!(out)?;
        writeln!(
            out,
            "  rip {:016x}  rsp {:016x}  rflags {:x}  cs {:x}  ss {:x}",
            frame.rip, frame.rsp, frame.rflags, frame.cs, frame.ss
        )?;
        writeln!(
            out,
            "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}",
            frame.rax, frame.rbx, frame.rcx, frame.rdx
        )?;
        writeln!(
            out,
            "  rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}",
            frame.rsi, frame.rdi, frame.rbp, frame.r8
        )?;
        writeln!(
            out,
            "  r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}",
            frame.r9, frame.r10, frame.r11, frame.r12
        )?;
        write!(
            out,
            "  r13 {:016x}  r14 {:016x}  r15 {:016x}",
            frame.r13, frame.r14, frame.r15
        )
    }
}

/// Why a page fault happened, from its address and error code (SDM volume 3, section 4.7).
struct PageFault {
    address: u64,
    error: u64,
}

impl fmt::Display for PageFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error } = *self;
        let bit = |bit: u32| error & 1 << bit != 0;
        let act = match (bit(4), bit(1)) {
            (true, _) => "execution",
            (false, true) => "write",
            (false, false) => "read",
        };
        let why = match (bit(3), bit(0)) {
            (true, _) => "reserved bits set in the page tables",
            (false, true) => "not allowed there",
            (false, false) => "nothing is mapped there",
        };
        write!(out, "{act} at {address:#x}: {why}")?;
        if let Some(place) = stacks::place(address) {
            let what = if place.guard {
                "overflow of the"
            } else {
                "in the"
            };
            return write!(
                out,
                " ({what} {} stack of slot {})",
                place.purpose.name(),
                place.slot
            );
        }
        let region = match address {
            0..=0xffff => "null page",
            VUA..VUA_END => "Vua heap region",
            _ if image::text().contains(&address) => "kernel code",
            _ if image::rodata().contains(&address) => "kernel constants",
            _ if image::image().contains(&address) => "kernel data",
            crate::memory::DIRECT..crate::memory::HEAP => "direct map",
            crate::memory::HEAP..crate::memory::STACKS => "kernel heap",
            crate::memory::DEVICES.. => "devices",
            _ => return Ok(()),
        };
        write!(out, " ({region})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn says_why_a_page_fault_happened() {
        let text = |address, error| PageFault { address, error }.to_string();
        assert_eq!(
            text(8, 0),
            "read at 0x8: nothing is mapped there (null page)"
        );
        assert_eq!(
            text(VUA + 16, 3),
            "write at 0x1000000010: not allowed there (Vua heap region)"
        );
        assert_eq!(
            text(crate::memory::HEAP, 0x11),
            "execution at 0xffffc00000000000: not allowed there (kernel heap)"
        );
        assert_eq!(
            text(crate::memory::STACKS, 2),
            "write at 0xffffd00000000000: nothing is mapped there (overflow of the work stack of slot 0)"
        );
        assert_eq!(
            text(0x8000_0000_0000, 9),
            "read at 0x800000000000: reserved bits set in the page tables"
        );
    }
}
