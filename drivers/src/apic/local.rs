//! The local APIC of the calling core, in xAPIC or x2APIC mode (Intel SDM volume 3, chapter "APIC").
//!
//! Built on the `x2apic` crate, with these corrections to it:
//! - in xAPIC mode its identifiers and destinations are raw register contents; here they are APIC identifiers in both modes;
//! - it picks x2APIC mode whenever CPUID offers it, whatever the boot loader chose. [`LocalApic::enable`] makes that true for
//!   the calling core; every core has to be enabled this way, because modes must not be mixed;
//! - its `enable` unmasks both local pins with vector 0 and starts a periodic timer; here the pins end up masked (LINT1:
//!   NMI) and the timer silent.

use core::{hint::spin_loop, ptr::NonNull};
use x2apic::lapic::{IpiAllShorthand, LocalApicBuilder, TimerDivide, TimerMode, xapic_base};
use x86_64::{
    instructions::interrupts,
    registers::model_specific::{ApicBase, ApicBaseFlags, Msr},
};

/// Which vectors the local APIC's own interrupts use.
#[derive(Clone, Copy, Debug)]
pub struct Vectors {
    /// The timer's.
    pub timer: u8,
    /// The error interrupt's.
    pub error: u8,
    /// The spurious interrupt's; the low four bits should be set (they are hardwired on old processors).
    pub spurious: u8,
}

/// How the timer is programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// `IA32_TSC_DEADLINE`: fires when the time-stamp counter reaches a value.
    TscDeadline,
    /// A count down, at the frequency that calibration found.
    Count,
}

/// The calling core's local APIC. Neither `Send` nor `Sync`: the registers are those of whichever core executes the access.
#[derive(Debug)]
pub struct LocalApic {
    device: x2apic::lapic::LocalApic,
    /// The registers' mapping, in xAPIC mode.
    registers: Option<NonNull<u32>>,
    timer: Timer,
}

const TSC_DEADLINE_MSR: u32 = 0x6e0;
/// LVT LINT0 and LINT1, as an offset into the xAPIC page; the x2APIC register is `0x800 + offset / 16`.
const LINT0: u32 = 0x350;
const LINT1: u32 = 0x360;
/// LVT entry: masked.
const MASKED: u32 = 1 << 16;
/// LVT entry: NMI delivery.
const NMI: u32 = 0b100 << 8;

/// The physical address of the local APIC's page in xAPIC mode, or `None` when this processor offers x2APIC, which
/// [`LocalApic::enable`] then uses.
pub fn xapic_page() -> Option<u64> {
    let x2apic = raw_cpuid::CpuId::new()
        .get_feature_info()
        .is_some_and(|features| features.has_x2apic());
    // SAFETY: every processor that runs 64-bit code has IA32_APIC_BASE.
    (!x2apic).then(|| unsafe { xapic_base() })
}

impl LocalApic {
    /// Switches the calling core's local APIC on, timer and local pins silent, ready to take interrupts of every priority.
    ///
    /// `registers` is the mapping of [`xapic_page`], or `None` where that is `None`. Which way the timer works is the same
    /// on every core of a machine.
    ///
    /// # Panics
    /// When `registers` is missing though the processor needs it.
    ///
    /// # Safety
    /// Interrupts are off. `registers`, if given, is that page mapped uncached for as long as the value lives. The interrupt
    /// descriptor table has handlers for `vectors`. No other value for this core is in use.
    pub unsafe fn enable(registers: Option<NonNull<u8>>, vectors: Vectors) -> Self {
        let mut builder = LocalApicBuilder::new();
        builder
            .timer_vector(vectors.timer.into())
            .error_vector(vectors.error.into())
            .spurious_vector(vectors.spurious.into())
            .timer_mode(TimerMode::OneShot)
            .timer_divide(TimerDivide::Div1)
            .timer_initial(0);
        if let Some(registers) = registers {
            builder.set_xapic_base(registers.as_ptr().addr() as u64);
        }
        let mut device = builder
            .build()
            .expect("the local APIC needs its page mapped");
        // SAFETY: the caller's promises; writing back the address that is there, with the global enable bit, which the
        // crate leaves alone.
        unsafe {
            let (frame, flags) = ApicBase::read();
            if !flags.contains(ApicBaseFlags::LAPIC_ENABLE) {
                ApicBase::write(frame, flags | ApicBaseFlags::LAPIC_ENABLE);
            }
            device.enable();
            device.disable_timer();
        }
        let deadline = raw_cpuid::CpuId::new()
            .get_feature_info()
            .is_some_and(|features| features.has_tsc_deadline());
        let timer = if deadline {
            Timer::TscDeadline
        } else {
            Timer::Count
        };
        let mut apic = Self {
            device,
            registers: registers.map(NonNull::cast),
            timer,
        };
        apic.write_pin(LINT0, MASKED);
        apic.write_pin(LINT1, NMI);
        if deadline {
            // SAFETY: this core's own timer, silent so far.
            unsafe { apic.device.set_timer_mode(TimerMode::TscDeadline) };
            // The SDM asks for a fence between the memory-mapped mode change and the first write of the deadline.
            core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        }
        // SAFETY: the timer is stopped: no count, no deadline.
        unsafe { apic.device.enable_timer() };
        apic
    }

    fn write_pin(&mut self, offset: u32, value: u32) {
        // SAFETY: a local vector table entry of this core; masked, or an NMI as PCs wire LINT1.
        unsafe {
            match self.registers {
                Some(registers) => registers.byte_add(offset as usize).write_volatile(value),
                None => Msr::new(0x800 + offset / 16).write(value.into()),
            }
        }
    }

    /// Whether this is x2APIC mode.
    pub fn is_x2apic(&self) -> bool {
        self.registers.is_none()
    }

    /// The core's APIC identifier.
    pub fn id(&self) -> u32 {
        // SAFETY: reads this core's register.
        let raw = unsafe { self.device.id() };
        if self.is_x2apic() { raw } else { raw >> 24 }
    }

    /// Tells the APIC that the interrupt being handled is done.
    pub fn end_of_interrupt(&mut self) {
        // SAFETY: at worst a lower-priority interrupt is delivered early.
        unsafe { self.device.end_of_interrupt() }
    }

    /// A destination as the crate takes it.
    fn destination(&self, apic: u32) -> u32 {
        if self.is_x2apic() { apic } else { apic << 24 }
    }

    /// Does `send` with interrupts off (the xAPIC's command register is two words) once the last command has left, with
    /// everything that was stored before visible to the receiver.
    fn command(&mut self, send: impl FnOnce(&mut x2apic::lapic::LocalApic)) {
        interrupts::without_interrupts(|| {
            if self.is_x2apic() {
                // Writes to x2APIC registers are not serialising (SDM volume 3, section 11.12.3).
                // SAFETY: fences have no preconditions.
                unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
            } else {
                // A command leaves within microseconds; the bound only keeps a broken machine from hanging.
                for _ in 0..1_000_000 {
                    // SAFETY: reads this core's register.
                    if !unsafe { self.device.get_ipi_delivery_status() } {
                        break;
                    }
                    spin_loop();
                }
            }
            send(&mut self.device);
        });
    }

    /// Interrupts the core with identifier `apic` with `vector`.
    ///
    /// # Safety
    /// That core, if it takes interrupts, has a handler for `vector`.
    pub unsafe fn send_ipi(&mut self, apic: u32, vector: u8) {
        let destination = self.destination(apic);
        // SAFETY: the caller's promise.
        self.command(|device| unsafe { device.send_ipi(vector, destination) });
    }

    /// Interrupts every core but this with `vector`.
    ///
    /// # Safety
    /// As for [`send_ipi`](Self::send_ipi), for every core.
    pub unsafe fn send_ipi_to_others(&mut self, vector: u8) {
        // SAFETY: the caller's promise.
        self.command(|device| unsafe {
            device.send_ipi_all(vector, IpiAllShorthand::AllExcludingSelf)
        });
    }

    /// Sends a non-maskable interrupt to the core with identifier `apic`.
    ///
    /// # Safety
    /// That core is ready for one.
    pub unsafe fn send_nmi(&mut self, apic: u32) {
        let destination = self.destination(apic);
        // SAFETY: the caller's promise.
        self.command(|device| unsafe { device.send_nmi(destination) });
    }

    /// How the timer is programmed.
    pub fn timer(&self) -> Timer {
        self.timer
    }

    /// Lets the timer interrupt once when the time-stamp counter reaches `deadline` (at once, if it has). For
    /// [`Timer::TscDeadline`] only.
    pub fn set_deadline(&mut self, deadline: u64) {
        debug_assert_eq!(self.timer, Timer::TscDeadline);
        // Zero would disarm.
        // SAFETY: this core's timer; its vector has a handler.
        unsafe { Msr::new(TSC_DEADLINE_MSR).write(deadline.max(1)) }
    }

    /// Lets the timer interrupt once after `count` ticks of its clock (0 stops it). For [`Timer::Count`] only.
    pub fn set_count(&mut self, count: u32) {
        debug_assert_eq!(self.timer, Timer::Count);
        // SAFETY: this core's timer; its vector has a handler.
        unsafe { self.device.set_timer_initial(count) }
    }

    /// Ticks left. For [`Timer::Count`] only.
    pub fn count_left(&self) -> u32 {
        // SAFETY: reads this core's register.
        unsafe { self.device.timer_current() }
    }

    /// Silences the timer.
    pub fn stop_timer(&mut self) {
        match self.timer {
            // SAFETY: zero disarms (SDM volume 3, section 11.5.4.1).
            Timer::TscDeadline => unsafe { Msr::new(TSC_DEADLINE_MSR).write(0) },
            Timer::Count => self.set_count(0),
        }
    }

    /// The error flags since the last call, as the error status register has them.
    pub fn take_errors(&mut self) -> u8 {
        // SAFETY: reads this core's register.
        unsafe { self.device.error_flags().bits() }
    }
}
