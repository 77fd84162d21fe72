//! Stacks: one for each core's ordinary work and one for each kind of interruption, with unmapped pages below each.

use super::{
    PAGE, STACKS,
    space::{KERNEL_DATA, OutOfMemory, map_memory},
};
use core::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

/// What a stack is for. The discriminants are positions in a core's slot; those of the interrupt stacks are also the
/// indices in the task state segment's interrupt stack table, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Ordinary work.
    Work = 0,
    /// Non-maskable interrupts: one can arrive anywhere, also in the midst of any other handler.
    Nmi = 1,
    /// Double faults: the stack pointer of the code that caused one is not to be trusted.
    DoubleFault = 2,
    /// Machine checks, which like NMIs arrive anywhere.
    MachineCheck = 3,
    /// Debug exceptions and breakpoints.
    Debug = 4,
    /// All other exceptions, page faults among them: stack overflow is one.
    Exception = 5,
    /// Interrupts of devices and other cores; interrupts are off on it, so they never nest.
    Device = 6,
}

/// All purposes, in the order of their discriminants.
pub const PURPOSES: [Purpose; 7] = [
    Purpose::Work,
    Purpose::Nmi,
    Purpose::DoubleFault,
    Purpose::MachineCheck,
    Purpose::Debug,
    Purpose::Exception,
    Purpose::Device,
];

impl Purpose {
    /// What the stack is called in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Nmi => "NMI",
            Self::DoubleFault => "double fault",
            Self::MachineCheck => "machine check",
            Self::Debug => "debug",
            Self::Exception => "exception",
            Self::Device => "device interrupt",
        }
    }

    /// Bytes in the stack. The engine never recurses on a core's stack in proportion to its input, but compilers of nested
    /// expressions recurse to a fixed depth, for which they need about half of it; handlers format text at most.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Work => 512 << 10,
            _ => INTERRUPT,
        }
    }

    /// Offset of the stack's lowest byte in a slot; its guard lies below.
    const fn offset(self) -> u64 {
        match self {
            Self::Work => GUARD,
            other => GUARD + Self::Work.bytes() + (other as u64 - 1) * (GUARD + INTERRUPT) + GUARD,
        }
    }
}

const INTERRUPT: u64 = 16 << 10;
/// Unmapped bytes below each stack. Compiled code probes each page of a frame larger than one, so it cannot step over.
const GUARD: u64 = 4 * PAGE;
/// Addresses for one core.
const SLOT: u64 = 1 << 20;

const _: () = assert!(Purpose::Device.offset() + INTERRUPT + GUARD <= SLOT);

/// How many slots have stacks.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// The stacks of one core.
#[derive(Clone, Copy, Debug)]
pub struct Stacks {
    base: u64,
}

impl Stacks {
    /// Maps the stacks of slot `slot`. Slots are used in order, each once.
    pub fn new(slot: usize) -> Result<Self, OutOfMemory> {
        let base = STACKS + slot as u64 * SLOT;
        for purpose in PURPOSES {
            // SAFETY: addresses of this slot, never mapped before. On an error the slot is not used again.
            unsafe {
                map_memory(
                    base + purpose.offset(),
                    purpose.bytes(),
                    KERNEL_DATA,
                    false,
                    PAGE,
                )?
            };
        }
        MADE.store(slot + 1, Ordering::Release);
        Ok(Self { base })
    }

    /// The address at which the stack is empty; 16-byte aligned.
    pub fn top(&self, purpose: Purpose) -> u64 {
        self.base + purpose.offset() + purpose.bytes()
    }
}

/// What an address among the stacks belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The slot, which is the core's in the order in which the loader listed them.
    pub slot: usize,
    /// Which of its stacks.
    pub purpose: Purpose,
    /// In the unmapped pages below it: the stack overflowed.
    pub guard: bool,
}

/// Finds the stack that an address belongs to.
pub fn place(address: u64) -> Option<Place> {
    let offset = address
        .checked_sub(STACKS)
        .filter(|&offset| offset < super::DEVICES - STACKS)?;
    let (slot, within) = ((offset / SLOT) as usize, offset % SLOT);
    PURPOSES.into_iter().find_map(|purpose| {
        let start = purpose.offset();
        (within >= start - GUARD && within < start + purpose.bytes()).then_some(Place {
            slot,
            purpose,
            guard: within < start,
        })
    })
}

/// The part of the stack at `address` that is in use when that is the stack pointer: up to the stack's end, and all of it when
/// the address is in the guard below. `None` when no mapped stack is there.
pub fn used(address: u64) -> Option<Range<u64>> {
    let place = place(address).filter(|place| place.slot < MADE.load(Ordering::Acquire))?;
    let bottom = STACKS + place.slot as u64 * SLOT + place.purpose.offset();
    Some(address.max(bottom)..bottom + place.purpose.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_lie_apart_with_guards_between() {
        for pair in PURPOSES.windows(2) {
            assert_eq!(pair[0].offset() + pair[0].bytes() + GUARD, pair[1].offset());
        }
    }

    #[test]
    fn finds_the_stack_of_an_address() {
        let stacks = Stacks {
            base: STACKS + 3 * SLOT,
        };
        let top = stacks.top(Purpose::Work);
        let at = |address| place(address).map(|place| (place.slot, place.purpose, place.guard));
        assert_eq!(at(top - 1), Some((3, Purpose::Work, false)));
        assert_eq!(
            at(top - Purpose::Work.bytes()),
            Some((3, Purpose::Work, false))
        );
        assert_eq!(
            at(top - Purpose::Work.bytes() - 1),
            Some((3, Purpose::Work, true))
        );
        assert_eq!(
            at(stacks.top(Purpose::Device) - 8),
            Some((3, Purpose::Device, false))
        );
        assert_eq!(at(top), Some((3, Purpose::Nmi, true)));
        assert_eq!(at(stacks.base + SLOT - 1), None);
        assert_eq!(at(0), None);
        MADE.store(3, Ordering::Release);
        assert_eq!(used(top - 8), None);
        MADE.store(4, Ordering::Release);
        assert_eq!(used(top - 8), Some(top - 8..top));
        let bottom = top - Purpose::Work.bytes();
        assert_eq!(used(bottom - 1), Some(bottom..top));
    }
}
