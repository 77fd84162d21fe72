//! The time-stamp counter: how fast it runs.

use crate::{hpet::Hpet, pit};
use core::arch::x86_64::_rdtsc;
use raw_cpuid::CpuId;

/// What a frequency was learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 0x15 or 0x40000010: exact.
    Cpuid,
    /// Measured against the HPET.
    Hpet,
    /// Measured against the 8254.
    Pit,
}

/// The counter, now. Neither waits for earlier instructions nor holds back later ones.
#[inline]
pub fn read() -> u64 {
    // SAFETY: every processor that runs 64-bit code has the counter, and CR4.TSD is never set.
    unsafe { _rdtsc() }
}

/// Whether the counter runs at one rate in all power states (CPUID 0x80000007, EDX bit 8).
pub fn invariant() -> bool {
    CpuId::new()
        .get_advanced_power_mgmt_info()
        .is_some_and(|info| info.has_invariant_tsc())
}

/// Finds the counter's frequency in hertz: from CPUID where it says, else against `hpet`, else against the 8254. `None`
/// when nothing answers. Takes up to 60 ms.
///
/// # Safety
/// As for [`pit::measure`].
pub unsafe fn frequency(hpet: Option<&Hpet>) -> Option<(u64, Source)> {
    if let Some(hertz) = from_cpuid() {
        return Some((hertz, Source::Cpuid));
    }
    if let Some(hertz) = hpet.and_then(from_hpet) {
        return Some((hertz, Source::Hpet));
    }
    // 50 ms: an error of a microsecond in the polling is then 20 parts in a million.
    let ticks = (pit::FREQUENCY / 20) as u16;
    // SAFETY: the caller's promise.
    let (start, end) = unsafe { pit::measure(ticks, read)? };
    let hertz = (u128::from(end - start) * u128::from(pit::FREQUENCY) / u128::from(ticks)) as u64;
    (hertz > 0).then_some((hertz, Source::Pit))
}

fn from_cpuid() -> Option<u64> {
    let cpuid = CpuId::new();
    if let Some(hertz) = cpuid
        .get_tsc_info()
        .and_then(|info| info.tsc_frequency())
        .filter(|&hertz| hertz > 0)
    {
        return Some(hertz);
    }
    // Leaf 0x40000010 gives the counter's kilohertz under VMware, KVM (with `vmware-cpuid-freq`) and others.
    let hypervisor = cpuid.get_hypervisor_info()?;
    let kilohertz = hypervisor.tsc_frequency()?;
    (kilohertz > 0).then(|| u64::from(kilohertz) * 1000)
}

/// One reading of both clocks, the HPET's placed in the middle of two readings of the TSC; of several tries the one
/// that was interrupted least.
fn pair(hpet: &Hpet) -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..8 {
        let before = read();
        let counter = hpet.counter();
        let after = read();
        let gap = after.wrapping_sub(before);
        if gap < best.0 {
            best = (gap, before.wrapping_add(gap / 2), counter);
        }
    }
    (best.1, best.2)
}

fn from_hpet(hpet: &Hpet) -> Option<u64> {
    /// 10 ms in femtoseconds: readings are within a microsecond, so the error is below 100 parts in a million.
    const SPAN: u64 = 10_000_000_000_000;
    let wanted = SPAN / hpet.period_femtoseconds();
    let (tsc_start, hpet_start) = pair(hpet);
    let mut polls = 0u64;
    while hpet.ticks_between(hpet_start, hpet.counter()) < wanted {
        polls += 1;
        // A counter that stands still must not hang the boot; a poll takes more than 10 ns.
        if polls > 100_000_000 {
            return None;
        }
    }
    let (tsc_end, hpet_end) = pair(hpet);
    let femtoseconds = u128::from(hpet.ticks_between(hpet_start, hpet_end))
        * u128::from(hpet.period_femtoseconds());
    let ticks = u128::from(tsc_end.checked_sub(tsc_start)?);
    let hertz = (ticks * 1_000_000_000_000_000).checked_div(femtoseconds)? as u64;
    (hertz > 0).then_some(hertz)
}
