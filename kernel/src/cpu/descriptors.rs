//! Segment and task state descriptors of a core, and the interrupt descriptor table that all share.

use super::interrupts;
use crate::memory::stacks::{PURPOSES, Purpose, Stacks};
use core::cell::UnsafeCell;
use spin::Once;
use x86_64::{
    VirtAddr,
    instructions::{
        segmentation::{CS, DS, ES, FS, SS, Segment},
        tables::load_tss,
    },
    registers::segmentation::SegmentSelector,
    structures::{
        gdt::{Descriptor, GlobalDescriptorTable},
        idt::InterruptDescriptorTable,
        tss::TaskStateSegment,
    },
};

/// Selector of the kernel's code segment, in every core's table.
pub(super) const CODE: u16 = 1 << 3;
/// Selector of the kernel's data segment.
pub(super) const DATA: u16 = 2 << 3;

/// One core's segment descriptors and task state.
#[derive(Debug)]
pub struct Descriptors {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

impl Descriptors {
    pub(super) const fn new() -> Self {
        Self {
            gdt: GlobalDescriptorTable::new(),
            tss: TaskStateSegment::new(),
        }
    }

    /// Points the interrupt stacks at `stacks`. Takes effect with the next interrupt.
    pub(super) fn set_stacks(&mut self, stacks: &Stacks) {
        for purpose in PURPOSES
            .into_iter()
            .filter(|&purpose| purpose != Purpose::Work)
        {
            self.tss.interrupt_stack_table[purpose as usize - 1] =
                VirtAddr::new(stacks.top(purpose));
        }
    }

    /// Fills the tables and loads them on the calling core.
    ///
    /// # Safety
    /// Interrupts are off; the interrupt stacks have been set; the value is not moved or dropped any more.
    pub(super) unsafe fn load(&'static mut self) {
        let code = self.gdt.append(Descriptor::kernel_code_segment());
        let data = self.gdt.append(Descriptor::kernel_data_segment());
        debug_assert!(code.0 == CODE && data.0 == DATA);
        // SAFETY: the table and the state live for ever; selectors are those just made.
        unsafe {
            let task = self
                .gdt
                .append(Descriptor::tss_segment_unchecked(&raw const self.tss));
            self.gdt.load_unsafe();
            CS::set_reg(code);
            SS::set_reg(data);
            DS::set_reg(data);
            ES::set_reg(data);
            // GS is left alone: loading a selector would clear its base, which is the core's data.
            FS::set_reg(SegmentSelector::NULL);
            load_tss(task);
        }
    }
}

static TABLE: Once<InterruptDescriptorTable> = Once::new();

/// Loads the interrupt descriptor table on the calling core.
///
/// # Safety
/// Interrupts are off, and the core's task state segment names an interrupt stack for each purpose.
pub(super) unsafe fn load_interrupts() {
    TABLE.call_once(interrupts::table).load();
}

/// Interrupt stacks of the boot core until there is memory for guarded ones: one area for each purpose.
#[repr(align(16))]
struct EarlyStacks(UnsafeCell<[[u8; 16 << 10]; 6]>);

// SAFETY: only the processor writes to them, as stacks of the boot core.
unsafe impl Sync for EarlyStacks {}

static EARLY: EarlyStacks = EarlyStacks(UnsafeCell::new([[0; 16 << 10]; 6]));

/// Points the boot core's interrupt stacks at static memory.
pub(super) fn set_early_stacks(descriptors: &mut Descriptors) {
    let stacks: *const [u8; 16 << 10] = EARLY.0.get().cast();
    for index in 0..6 {
        descriptors.tss.interrupt_stack_table[index] =
            VirtAddr::from_ptr(stacks.wrapping_add(index + 1));
    }
}
