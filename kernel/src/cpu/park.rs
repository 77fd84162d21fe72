//! Parking: a core without work halts until another wakes it, a timer fires, or a device interrupts.
//!
//! Each core has a token word with three states:
//!
//! - `EMPTY`: running, nobody has woken it since its last return from `park`;
//! - `TOKEN`: somebody has; the next `park` returns at once;
//! - `HALTED`: in `park`, in or about to enter the halt.
//!
//! Only the core itself moves to `HALTED` and `EMPTY`; anybody moves to `TOKEN`. The waker sends an interrupt exactly when it
//! replaced `HALTED`: in the other states the core is going to look at the word before it halts.
//!
//! Races: the core goes from `EMPTY` to `HALTED` with interrupts off and halts with `sti; hlt`, which the processor does not
//! interrupt in between (the shadow of `sti`, SDM volume 2). A waker that sees `EMPTY` comes before that step, which then fails
//! on its token. One that sees `HALTED` comes after, and its interrupt is held until the `hlt`, which it ends. Between
//! two halts the core looks at the word again with interrupts off, so that no token is slept over.
//!
//! Memory order: the waker's swap releases, the core's swap acquires.

use super::{
    features,
    local::{self, Local},
    timer, vector, watchdog,
};
use crate::time;
use core::{
    arch::asm,
    sync::atomic::{AtomicBool, Ordering},
};
use x86_64::instructions::interrupts;

const EMPTY: u32 = 0;
const TOKEN: u32 = 1;
const HALTED: u32 = 2;

/// Halt by `mwait` on the token word, which a waker's store ends without any interrupt.
static MWAIT: AtomicBool = AtomicBool::new(false);

/// Chooses how cores halt: `mwait` on real machines that have it. Hypervisors leave guests without it or make it a pause.
pub(crate) fn choose() -> bool {
    let mwait = features::has_mwait() && !features::virtual_machine();
    MWAIT.store(mwait, Ordering::Relaxed);
    mwait
}

/// Halts the calling core; see [`smp::platform::Platform::park`].
///
/// # Panics
/// When interrupts are off: nothing could wake the core.
pub fn park(deadline: Option<u64>) {
    let this = local::current();
    if this.token.swap(EMPTY, Ordering::Acquire) == TOKEN {
        return;
    }
    if deadline.is_some_and(|deadline| time::now() >= deadline) {
        return;
    }
    assert!(
        interrupts::are_enabled(),
        "park with interrupts off would never end"
    );
    interrupts::disable();
    if this
        .token
        .compare_exchange(EMPTY, HALTED, Ordering::Acquire, Ordering::Acquire)
        .is_ok()
    {
        this.counters.halts.fetch_add(1, Ordering::Relaxed);
        loop {
            if let Some(deadline) = deadline {
                if time::now() >= deadline {
                    break;
                }
                timer::arm(this, deadline);
            }
            halt(this);
            if this.token.load(Ordering::Acquire) != HALTED {
                break;
            }
        }
    }
    this.token.swap(EMPTY, Ordering::Acquire);
    watchdog::core_runs();
    interrupts::enable();
}

/// Waits for an interrupt, or with `mwait` for a store to the token word. Called and left with interrupts off; they are taken
/// in between.
fn halt(this: &Local) {
    debug_assert!(!interrupts::are_enabled());
    if MWAIT.load(Ordering::Relaxed) {
        // SAFETY: the processor has the instructions. The word is watched before it is looked at, so that no store is missed.
        unsafe {
            asm!("monitor", in("rax") this.token.as_ptr(), in("ecx") 0, in("edx") 0, options(nostack));
            if this.token.load(Ordering::Acquire) == HALTED {
                asm!("sti", "mwait", "cli", in("eax") 0, in("ecx") 0, options(nostack));
            }
        }
    } else {
        // SAFETY: an interrupt handler for every vector is in place, on stacks of their own.
        unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
    }
}

/// Wakes the core with index `cpu`; see [`smp::platform::Platform::unpark`].
///
/// # Panics
/// When there is no such core.
pub fn unpark(cpu: usize) {
    let target = local::all()[cpu];
    if target.token.swap(TOKEN, Ordering::Release) == HALTED && !MWAIT.load(Ordering::Relaxed) {
        // With interrupts off, so that this is the same core all the way: on its own core the halt is over already.
        interrupts::without_interrupts(|| {
            let this = local::current();
            if !core::ptr::eq(this, target) {
                this.counters.wakes_sent.fetch_add(1, Ordering::Relaxed);
                // SAFETY: a core that has parked takes interrupts and has the handler.
                this.with_apic(|apic| unsafe { apic.send_ipi(target.apic_id(), vector::WAKE) });
            }
        });
    }
}

/// Whether core `cpu` is halted, or about to.
pub(crate) fn is_halted(cpu: usize) -> bool {
    local::all()[cpu].token.load(Ordering::Acquire) == HALTED
}

/// The wake-up interrupt: that it came has ended the halt.
pub(super) fn interrupt(this: &Local) {
    this.counters.wakes_taken.fetch_add(1, Ordering::Relaxed);
}
