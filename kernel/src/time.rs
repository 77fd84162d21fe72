//! Time: the time-stamp counter, scaled to nanoseconds since boot.

use core::sync::atomic::{AtomicU64, Ordering};
use drivers::tsc;

/// The counter's value at nanosecond 0.
static BASE: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds in 2^32 ticks; 0 until calibrated.
static SCALE: AtomicU64 = AtomicU64::new(0);
/// Ticks in a second.
static HERTZ: AtomicU64 = AtomicU64::new(0);
/// Seconds since 1970 at nanosecond 0.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Sets nanosecond 0 at counter value `base`.
pub(crate) fn set_base(base: u64) {
    BASE.store(base, Ordering::Relaxed);
}

/// Sets the counter's frequency.
pub(crate) fn set_frequency(hertz: u64) {
    HERTZ.store(hertz, Ordering::Relaxed);
    SCALE.store(scale(hertz), Ordering::Release);
}

/// Sets the wall clock: `seconds` since 1970, now.
pub(crate) fn set_wall_clock(seconds: u64) {
    EPOCH.store(
        seconds.saturating_sub(now() / 1_000_000_000),
        Ordering::Relaxed,
    );
}

/// Nanoseconds in 2^32 ticks of a counter with `hertz` ticks a second (at least 2).
fn scale(hertz: u64) -> u64 {
    ((1_000_000_000u128 << 32) / u128::from(hertz)) as u64
}

fn scaled(ticks: u64, scale: u64) -> u64 {
    ((u128::from(ticks) * u128::from(scale)) >> 32) as u64
}

/// Nanoseconds since boot. Never falls on a core, and agrees between cores as their counters do. Before calibration, 0.
#[inline]
pub fn now() -> u64 {
    // Without the fence the counter could be read before earlier loads, and so seem older than what they saw.
    // SAFETY: a fence has no preconditions.
    unsafe { core::arch::x86_64::_mm_lfence() };
    from_tsc(tsc::read())
}

/// A counter value as nanoseconds since boot; 0 for values before.
pub fn from_tsc(value: u64) -> u64 {
    let base = BASE.load(Ordering::Relaxed);
    // Counters of different cores may differ by a little: a difference that would be negative is 0, not huge.
    let ticks = value.wrapping_sub(base);
    let ticks = if ticks > u64::MAX / 2 { 0 } else { ticks };
    scaled(ticks, SCALE.load(Ordering::Relaxed))
}

/// Ticks of the counter as nanoseconds.
pub(crate) fn duration(ticks: u64) -> u64 {
    scaled(ticks, SCALE.load(Ordering::Relaxed))
}

/// The counter value at which [`now`] is `nanoseconds`, rounded up by less than a microsecond.
pub(crate) fn to_tsc(nanoseconds: u64) -> u64 {
    let ticks =
        u128::from(nanoseconds) * u128::from(HERTZ.load(Ordering::Relaxed)) / 1_000_000_000 + 1;
    BASE.load(Ordering::Relaxed)
        .saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX))
}

/// Whether the counter's frequency is known.
pub fn calibrated() -> bool {
    SCALE.load(Ordering::Acquire) != 0
}

/// Time since 1970-01-01T00:00:00Z; exact to a second at boot, to the counter from then on.
pub fn wall_clock() -> core::time::Duration {
    core::time::Duration::from_secs(EPOCH.load(Ordering::Relaxed))
        + core::time::Duration::from_nanos(now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_without_drift() {
        for hertz in [1_000_000_000, 2_394_454_321, 4_999_999_999, 24_000_000] {
            let scale = scale(hertz);
            let day = scaled(hertz * 86_400, scale);
            let error = day.abs_diff(86_400_000_000_000);
            // Below a part in a billion for gigahertz counters: 24 MHz counters are the worst.
            assert!(error < 100_000, "{hertz}: {error} ns a day");
        }
    }
}
