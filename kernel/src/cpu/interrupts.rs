//! Interrupt entry: a stub for each vector, one common path that saves what Rust may change, and the dispatch.
//!
//! Every vector has an interrupt stack (see [`Purpose`]), so nothing is ever pushed onto the interrupted code's stack, whose
//! red zone may be in use. The common path saves all general registers and, with `fxsave64`, the vector registers: the
//! kernel is compiled for SSE, and handlers use it like everything else. Nothing uses wider registers.

use super::{descriptors::CODE, faults, flush, local, park, timer, vector, watchdog};
use crate::{console, memory::stacks::Purpose, panic};
use core::{arch::global_asm, sync::atomic::Ordering};
use x86_64::{
    PrivilegeLevel, VirtAddr,
    registers::segmentation::SegmentSelector,
    structures::idt::{Entry, InterruptDescriptorTable},
};

/// What the stubs leave on the stack, from the lowest address on.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs, reason = "the registers' names say it")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    /// The error code; 0 for vectors that have none.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

// The processor aligns the stack to 16 bytes and pushes five words; the stub adds two and fifteen: 22 words, so the stack is
// aligned again where `fxsave64` and the call need it.
global_asm!(
    ".pushsection .text.interrupts, \"ax\", @progbits",
    // Sixteen bytes for each vector.
    ".balign 16",
    "viridis_interrupt_stubs:",
    ".irp high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, a, b, c, d, e, f",
    ".irp low, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, a, b, c, d, e, f",
    ".balign 16",
    // Exceptions 8, 10 to 14, 17, 21, 29 and 30 push an error code (SDM volume 3, table 6-1; APM volume 2, table 8-1).
    ".if (0x\\high\\low >= 32) || !((0x60227d00 >> (0x\\high\\low & 31)) & 1)",
    "push 0",
    ".endif",
    "push 0x\\high\\low",
    "jmp viridis_interrupt_common",
    ".endr",
    ".endr",
    ".balign 16",
    "viridis_interrupt_common:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdi, rsp",
    "sub rsp, 512",
    "fxsave64 [rsp]",
    "cld",
    "call {handle}",
    "fxrstor64 [rsp]",
    "add rsp, 512",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rbp",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rbx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    ".popsection",
    handle = sym handle,
);

unsafe extern "C" {
    static viridis_interrupt_stubs: u8;
}

fn stub(vector: u8) -> VirtAddr {
    VirtAddr::from_ptr((&raw const viridis_interrupt_stubs).wrapping_add(usize::from(vector) * 16))
}

/// Which stack a vector's handler runs on.
fn purpose(vector: u8) -> Purpose {
    match vector {
        2 => Purpose::Nmi,
        8 => Purpose::DoubleFault,
        18 => Purpose::MachineCheck,
        1 | 3 => Purpose::Debug,
        0..32 => Purpose::Exception,
        _ => Purpose::Device,
    }
}

/// The table of all 256 vectors.
pub(super) fn table() -> InterruptDescriptorTable {
    fn set<F>(entry: &mut Entry<F>, vector: u8) {
        // SAFETY: the stub saves and restores everything and ends in `iretq`; the stack index is in range and its stack is
        // set before the table is loaded; the selector is the code segment of every core's table.
        unsafe {
            entry
                .set_handler_addr(stub(vector))
                .set_stack_index(purpose(vector) as u16 - 1)
                .set_code_selector(SegmentSelector(CODE))
                .set_privilege_level(PrivilegeLevel::Ring0);
        }
    }
    let mut table = InterruptDescriptorTable::new();
    set(&mut table.divide_error, 0);
    set(&mut table.debug, 1);
    set(&mut table.non_maskable_interrupt, 2);
    set(&mut table.breakpoint, 3);
    set(&mut table.overflow, 4);
    set(&mut table.bound_range_exceeded, 5);
    set(&mut table.invalid_opcode, 6);
    set(&mut table.device_not_available, 7);
    set(&mut table.double_fault, 8);
    set(&mut table.invalid_tss, 10);
    set(&mut table.segment_not_present, 11);
    set(&mut table.stack_segment_fault, 12);
    set(&mut table.general_protection_fault, 13);
    set(&mut table.page_fault, 14);
    set(&mut table.x87_floating_point, 16);
    set(&mut table.alignment_check, 17);
    set(&mut table.machine_check, 18);
    set(&mut table.simd_floating_point, 19);
    set(&mut table.virtualization, 20);
    set(&mut table.cp_protection_exception, 21);
    set(&mut table.hv_injection_exception, 28);
    set(&mut table.vmm_communication_exception, 29);
    set(&mut table.security_exception, 30);
    for vector in 32..=255 {
        set(&mut table[vector], vector);
    }
    table
}

/// Dispatches an interrupt. Runs with interrupts off, on the stack of the vector's purpose.
extern "sysv64" fn handle(frame: &Frame) {
    let this = local::current();
    match frame.vector as u8 {
        2 => panic::nmi(frame),
        0..32 => faults::report(frame),
        // No end-of-interrupt for spurious ones (SDM volume 3, section 11.9).
        vector::SPURIOUS => {}
        // The masked 8259s' spurious interrupts do not come through the APIC either.
        vector::LEGACY..0x30 => {
            this.counters.unexpected.fetch_add(1, Ordering::Relaxed);
        }
        other => {
            match other {
                vector::TIMER => timer::interrupt(this, frame),
                vector::WAKE => park::interrupt(this),
                vector::FLUSH => flush(this),
                vector::WATCH => watchdog::interrupt(this, frame),
                vector::COM1 | vector::COM2 | vector::CONSOLE | vector::KEYBOARD => {
                    console::input::interrupt()
                }
                vector::ERROR => {
                    let errors = this.with_apic(|apic| apic.take_errors());
                    console::log::try_warn(format_args!("local APIC error {errors:#x}"));
                }
                _ => {
                    this.counters.unexpected.fetch_add(1, Ordering::Relaxed);
                    console::log::try_warn(format_args!("unexpected interrupt {other:#x}"));
                }
            }
            this.with_apic(|apic| apic.end_of_interrupt());
        }
    }
}
