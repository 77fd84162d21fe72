//! Control registers that Rust code depends on.

use crate::memory::paging::PAT;
use x86_64::registers::{
    control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags},
    model_specific::Msr,
};

/// CR0: set machine check reporting of the FPU natively, WP; clear emulation and task switched.
pub(crate) const CR0_SET: u64 = 1 << 1 | 1 << 5 | 1 << 16;
/// CR0: EM and TS make SSE instructions fault.
pub(crate) const CR0_CLEAR: u64 = 1 << 2 | 1 << 3;
/// CR4: OSFXSR and OSXMMEXCPT.
pub(crate) const CR4_SET: u64 = 1 << 9 | 1 << 10;
/// The MSR with NXE.
pub(crate) const EFER: u32 = 0xc000_0080;
/// No-execute pages.
pub(crate) const EFER_NXE: u32 = 1 << 11;

/// Sets the calling core's control registers and page attribute table as the kernel's page tables need them. SSE is on
/// already: the entry code does that before any Rust.
///
/// # Safety
/// Interrupts are off, and the loader's or the kernel's page tables are in use. After this, mappings with caching types
/// other than write-back must be those of the kernel's tables.
pub(crate) unsafe fn initialise() {
    // SAFETY: the caller's promise. Write protection and no-execute only take rights away that the loader's tables do not
    // give either; global pages exist in the kernel's tables only.
    unsafe {
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE));
        Cr0::update(|cr0| cr0.insert(Cr0Flags::WRITE_PROTECT));
        Cr4::update(|cr4| cr4.insert(Cr4Flags::PAGE_GLOBAL));
        Msr::new(0x277).write(PAT);
        x86_64::instructions::tlb::flush_all();
    }
}

/// Whether this machine is a virtual one (CPUID 1, ECX bit 31).
pub fn virtual_machine() -> bool {
    raw_cpuid::CpuId::new()
        .get_feature_info()
        .is_some_and(|features| features.has_hypervisor())
}

/// Whether `MONITOR` and `MWAIT` are there.
pub fn has_mwait() -> bool {
    raw_cpuid::CpuId::new()
        .get_feature_info()
        .is_some_and(|features| features.has_monitor_mwait())
}
