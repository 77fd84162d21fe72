//! The processor's random number generator.

use core::arch::x86_64::{_rdrand64_step, _rdseed64_step, _rdtsc};

/// Whether this processor has `RDSEED`.
pub fn seed_available() -> bool {
    raw_cpuid::CpuId::new()
        .get_extended_feature_info()
        .is_some_and(|features| features.has_rdseed())
}

/// 64 bits from `RDSEED`, the source of entropy itself, or `None` when a hundred tries gave none: it may be exhausted by others
/// (Intel SDM volume 1, section 7.3.17.2, which asks for a pause between tries).
///
/// # Safety
/// [`seed_available`] is true.
#[target_feature(enable = "rdseed")]
pub unsafe fn rdseed() -> Option<u64> {
    let mut value = 0;
    for _ in 0..100 {
        if _rdseed64_step(&mut value) == 1 {
            return Some(value);
        }
        core::hint::spin_loop();
    }
    None
}

/// Whether this processor has `RDRAND`.
pub fn available() -> bool {
    raw_cpuid::CpuId::new()
        .get_feature_info()
        .is_some_and(|features| features.has_rdrand())
}

/// 64 bits from `RDRAND`, or `None` when ten tries gave none (Intel SDM volume 1, section 7.3.17.1: after ten failures in
/// a row the generator is broken).
///
/// # Safety
/// [`available`] is true.
#[target_feature(enable = "rdrand")]
pub unsafe fn rdrand() -> Option<u64> {
    let mut value = 0;
    for _ in 0..10 {
        if _rdrand64_step(&mut value) == 1 {
            return Some(value);
        }
    }
    None
}

/// 64 bits from the time-stamp counter's jitter, for machines without `RDRAND`: unpredictable enough to seed hashes, not
/// for secrets.
pub fn jitter() -> u64 {
    let mut state = 0u64;
    for _ in 0..64 {
        // SAFETY: every processor that runs 64-bit code has the counter, and CR4.TSD is never set.
        let now = unsafe { _rdtsc() };
        // The finaliser of SplitMix64 (Steele, Lea, Flood 2014), which spreads the few bits that differ over the word.
        state = state
            .rotate_left(5)
            .wrapping_add(now)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    state
}
