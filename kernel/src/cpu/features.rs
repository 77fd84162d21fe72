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
        Cr4::update(|cr4| cr4.insert(Cr4Flags::PAGE_GLOBAL | protections()));
        Msr::new(0x277).write(PAT);
        x86_64::instructions::tlb::flush_all();
    }
}

/// What this processor offers against running or reading what is not the kernel's: SMEP, SMAP and UMIP, though there is no user
/// mode (a page that a fault in the tables made a user's would fault at once); and machine checks, which without this bit
/// shut the machine down.
fn protections() -> Cr4Flags {
    let cpuid = raw_cpuid::CpuId::new();
    let extended = cpuid.get_extended_feature_info();
    let has = |test: fn(&raw_cpuid::ExtendedFeatures) -> bool| extended.as_ref().is_some_and(test);
    let machine_checks = cpuid
        .get_feature_info()
        .is_some_and(|features| features.has_mce());
    let mut flags = Cr4Flags::empty();
    flags.set(
        Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
        has(|has| has.has_smep()),
    );
    flags.set(
        Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION,
        has(|has| has.has_smap()),
    );
    flags.set(
        Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION,
        has(|has| has.has_umip()),
    );
    flags.set(Cr4Flags::MACHINE_CHECK_EXCEPTION, machine_checks);
    flags
}

/// Checks that the calling core's protections are on: all that the processor has. Returns the first that is missing.
pub fn check_protections() -> Result<(), &'static str> {
    let checks = [
        (
            Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE),
            "no-execute",
        ),
        (
            Cr0::read().contains(Cr0Flags::WRITE_PROTECT),
            "write protection",
        ),
        (
            Cr4::read().contains(protections()),
            "SMEP, SMAP, UMIP or machine checks",
        ),
    ];
    checks
        .into_iter()
        .find(|&(on, _)| !on)
        .map_or(Ok(()), |(_, name)| Err(name))
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
