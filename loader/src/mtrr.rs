//! Memory types: the PAT that the protocol prescribes, and the boot processor's MTRRs on every core (Intel SDM vol. 3,
//! 12.11 and 12.12).

use core::cell::UnsafeCell;
use x86_64::{
    instructions::tlb,
    registers::{
        control::{Cr0, Cr0Flags},
        model_specific::Msr,
    },
};

const PAT: u32 = 0x277;
/// Entries 0 to 5: write-back, write-through, UC-, uncached, write-protected, write-combining. 6 and 7 are unspecified.
const PROTOCOL_PAT: u64 = 0x0000_0105_0007_0406;

const CAPABILITIES: u32 = 0xfe;
const DEFAULT_TYPE: u32 = 0x2ff;
const ENABLED: u64 = 1 << 11;
const FIXED: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];
const FIRST_VARIABLE: u32 = 0x200;
/// The most variable ranges that are copied; processors have about ten.
const VARIABLE_CAPACITY: usize = 32;

const REGISTERS: usize = FIXED.len() + 2 * VARIABLE_CAPACITY + 1;

/// Bits of CPUID leaf 1, EDX.
const HAS_MTRR: u32 = 1 << 12;
const HAS_PAT: u32 = 1 << 16;

fn features() -> u32 {
    core::arch::x86_64::__cpuid(1).edx
}

fn get(register: u32) -> u64 {
    // SAFETY: CPUID says that the processor has the MTRRs and the PAT wherever this is called for them.
    unsafe { Msr::new(register).read() }
}

fn set(register: u32, value: u64) {
    // SAFETY: as in `get`; the values are the protocol's PAT, or another core's MTRRs.
    unsafe { Msr::new(register).write(value) }
}

/// Gives the PAT the protocol's layout on this core. No page uses another entry than 0 yet.
pub fn set_pat() {
    if features() & HAS_PAT != 0 {
        set(PAT, PROTOCOL_PAT);
    }
}

struct Saved(UnsafeCell<[(u32, u64); REGISTERS]>);

// SAFETY: written by `save` before another core runs, only read after that.
unsafe impl Sync for Saved {}

/// The boot processor's registers; number 0 where there is none. The default type, with the bit that enables the MTRRs,
/// is the last.
static SAVED: Saved = Saved(UnsafeCell::new([(0, 0); REGISTERS]));

/// Notes the boot processor's MTRRs, before the other cores start.
pub fn save() {
    if features() & HAS_MTRR == 0 {
        return;
    }
    let capabilities = get(CAPABILITIES);
    let variable = ((capabilities & 0xff) as usize).min(VARIABLE_CAPACITY);
    let fixed = if capabilities & (1 << 8) != 0 {
        FIXED.as_slice()
    } else {
        &[]
    };
    let pairs = (FIRST_VARIABLE..).take(2 * variable);
    // SAFETY: only the boot processor runs.
    let saved = unsafe { &mut *SAVED.0.get() };
    for (slot, register) in saved.iter_mut().zip(fixed.iter().copied().chain(pairs)) {
        *slot = (register, get(register));
    }
    saved[REGISTERS - 1] = (DEFAULT_TYPE, get(DEFAULT_TYPE));
}

/// Gives this core the boot processor's MTRRs, where they differ: with caches off and flushed, as the SDM's 12.11.8 says.
pub fn adopt() {
    // SAFETY: `save` is done.
    let saved = unsafe { &*SAVED.0.get() };
    let registers = || saved.iter().filter(|(register, _)| *register != 0);
    if registers().all(|(register, value)| get(*register) == *value) {
        return;
    }
    let cr0 = Cr0::read();
    let uncached = (cr0 | Cr0Flags::CACHE_DISABLE) - Cr0Flags::NOT_WRITE_THROUGH;
    // SAFETY: caching is off while memory types change, nothing is mapped differently, and interrupts are off.
    unsafe {
        Cr0::write(uncached);
        core::arch::asm!("wbinvd", options(nostack, preserves_flags));
    }
    tlb::flush_all();
    set(DEFAULT_TYPE, get(DEFAULT_TYPE) & !ENABLED);
    for (register, value) in registers() {
        set(*register, *value);
    }
    tlb::flush_all();
    // SAFETY: the memory types are now the boot processor's; caching comes back as it was.
    unsafe {
        core::arch::asm!("wbinvd", options(nostack, preserves_flags));
        Cr0::write(cr0);
    }
}
