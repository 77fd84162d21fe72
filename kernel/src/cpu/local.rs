//! What each core has of its own, reached through the GS segment.

use super::{descriptors::Descriptors, timer::Timers, watchdog::Watched};
use crate::panic::Position;
use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
use drivers::apic::local::LocalApic;
use x86_64::{VirtAddr, instructions::interrupts, registers::model_specific::GsBase};

/// Where a core stands between the loader and its work. Only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Not seen yet.
    Absent = 0,
    /// Runs on its own tables and stacks.
    Online = 1,
    /// Did not come up in time, and must halt if it ever does.
    Abandoned = 2,
    /// Released by the boot core.
    Working = 3,
    /// Halted with interrupts off, because the work has ended.
    Retired = 4,
}

/// A core's data. Fields that others read or write are atomic; the rest is the core's own.
#[repr(C)]
pub struct Local {
    /// This structure's address: what GS-relative code loads.
    this: AtomicPtr<Local>,
    /// Top of the work stack, read by the assembly that starts the core.
    pub(super) stack: AtomicU64,
    /// The core's index as the engine counts; dense once bring-up has ended.
    index: AtomicUsize,
    /// The loader's position for it, and its stacks' slot.
    slot: usize,
    /// Its APIC identifier.
    apic_id: AtomicU32,
    pub(super) stage: AtomicU32,
    /// How many faults are being reported: tested first by every fault, so that a nested one cannot recur for ever.
    pub(crate) faults: AtomicU32,
    /// Where it was when a panic stopped it.
    pub(crate) stopped: Position,
    /// What it knows of the watchdog's questions.
    pub(super) watched: Watched,
    /// Wake token and halt state; see `park`.
    pub(super) token: AtomicU32,
    /// The epoch in which it last flushed its translations.
    pub(super) flushed: AtomicU64,
    /// Counters for logs and tests.
    pub counters: Counters,
    pub(super) timers: Timers,
    pub(super) descriptors: UnsafeCell<Descriptors>,
    apic: UnsafeCell<Option<LocalApic>>,
}

/// Events of a core since boot; written by that core except where noted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Wake-up interrupts that this core sent.
    pub wakes_sent: AtomicU64,
    /// Times that this core halted.
    pub halts: AtomicU64,
    /// Timer interrupts.
    pub ticks: AtomicU64,
    /// Wake-up interrupts taken.
    pub wakes_taken: AtomicU64,
    /// Interrupts that no handler expects.
    pub unexpected: AtomicU64,
}

impl Counters {
    const fn new() -> Self {
        Self {
            wakes_sent: AtomicU64::new(0),
            halts: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            wakes_taken: AtomicU64::new(0),
            unexpected: AtomicU64::new(0),
        }
    }
}

// SAFETY: the cells are touched by the owning core alone (`with_apic` and bring-up); the local APIC is only ever used on the
// core that enabled it.
unsafe impl Sync for Local {}
// SAFETY: built by core 0 for another core before that runs; its cells are empty then.
unsafe impl Send for Local {}

impl Local {
    /// Data for the core in `slot`.
    pub(crate) const fn new(slot: usize, apic_id: u32) -> Self {
        Self {
            this: AtomicPtr::new(core::ptr::null_mut()),
            stack: AtomicU64::new(0),
            index: AtomicUsize::new(slot),
            slot,
            apic_id: AtomicU32::new(apic_id),
            stage: AtomicU32::new(Stage::Absent as u32),
            faults: AtomicU32::new(0),
            stopped: Position::new(),
            watched: Watched::new(),
            token: AtomicU32::new(0),
            flushed: AtomicU64::new(0),
            counters: Counters::new(),
            timers: Timers::new(),
            descriptors: UnsafeCell::new(Descriptors::new()),
            apic: UnsafeCell::new(None),
        }
    }

    /// The core's index.
    pub fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }

    pub(super) fn set_index(&self, index: usize) {
        self.index.store(index, Ordering::Relaxed);
    }

    /// The core's place in the loader's list.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The core's APIC identifier.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Corrects the APIC identifier, once the core's own APIC tells it.
    pub(crate) fn set_apic_id(&self, id: u32) {
        self.apic_id.store(id, Ordering::Relaxed);
    }

    /// Makes this the calling core's data.
    ///
    /// # Safety
    /// Interrupts are off, and no other core uses this.
    pub(crate) unsafe fn install(&'static self) {
        self.this
            .store(core::ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
        GsBase::write(VirtAddr::from_ptr(self));
    }

    /// Gives the core its local APIC.
    ///
    /// # Safety
    /// Called by the core itself, outside [`with_apic`](Self::with_apic).
    pub(crate) unsafe fn set_apic(&self, apic: LocalApic) {
        // SAFETY: the caller's promise.
        unsafe { *self.apic.get() = Some(apic) }
    }

    /// Uses the local APIC, with interrupts off.
    ///
    /// # Panics
    /// When this is not the calling core's data, or its APIC is not on yet.
    pub fn with_apic<T>(&self, act: impl FnOnce(&mut LocalApic) -> T) -> T {
        self.try_with_apic(act).expect("no local APIC yet")
    }

    /// As [`with_apic`](Self::with_apic), for the panic path: `None` before the APIC is on.
    pub(crate) fn try_with_apic<T>(&self, act: impl FnOnce(&mut LocalApic) -> T) -> Option<T> {
        interrupts::without_interrupts(|| {
            assert!(core::ptr::eq(self, current()), "another core's local APIC");
            // SAFETY: this core alone gets here, and with interrupts off only once at a time. (The panic path may have
            // interrupted an earlier use, which then never goes on.)
            unsafe { (*self.apic.get()).as_mut() }.map(act)
        })
    }

    /// Whether the core takes interrupts.
    pub fn online(&self) -> bool {
        let stage = self.stage.load(Ordering::Acquire);
        [Stage::Online, Stage::Working]
            .into_iter()
            .any(|up| up as u32 == stage)
    }
}

/// The data of the core that the machine booted on: static, because it is needed before there is memory.
pub(crate) static BOOT: Local = Local::new(0, 0);

/// The calling core's data.
///
/// Must not be called before the core has [`install`](Local::install)ed it, which is the first thing that it does.
pub fn current() -> &'static Local {
    let this: *const Local;
    // SAFETY: GS holds the address of a `Local`, whose first field is that address.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly, pure));
        &*this
    }
}

/// Cores as the engine counts, once bring-up has ended.
static ALL: spin::Once<&'static [&'static Local]> = spin::Once::new();

/// All cores that came up, in order of their indices; empty while bring-up goes on.
pub fn all() -> &'static [&'static Local] {
    ALL.get().copied().unwrap_or(&[])
}

/// Fixes which cores there are.
pub(super) fn set_all(cores: &'static [&'static Local]) {
    ALL.call_once(|| cores);
}
