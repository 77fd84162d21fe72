//! Memory outside the heap that counts as a program's: what the compiler takes from Rust's allocator, and keeps for names and lines.
//!
//! That allocator cannot refuse, and the kernel's ends the machine when it has no more. So the compiler asks first, piece by piece, for what it is about
//! to take: the program's limit must allow it, and the platform set it aside. It asks for more than it will take.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{LocalHeap, NeedMemory};

/// What a program has outside the heap, its children's share included.
///
/// Whoever holds one keeps the program's number from being given to another program.
#[derive(Debug)]
pub struct Outside {
    bytes: AtomicUsize,
    parent: Option<Arc<Outside>>,
}

impl Outside {
    /// Nothing yet, of a program whose parent has `parent`.
    pub(super) fn new(parent: Option<Arc<Outside>>) -> Outside {
        Outside {
            bytes: AtomicUsize::new(0),
            parent,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn each(&self, change: impl Fn(&AtomicUsize)) {
        let mut at = Some(self);
        while let Some(outside) = at {
            change(&outside.bytes);
            at = outside.parent.as_deref();
        }
    }
}

/// Bytes charged to a program, and to those that started it, until this is dropped. Takes no lock then, so a sweep may drop it.
#[derive(Debug)]
pub struct Charge {
    outside: Arc<Outside>,
    bytes: usize,
}

impl Charge {
    /// Adds `bytes` to what the program has.
    pub(super) fn new(outside: Arc<Outside>, bytes: usize) -> Charge {
        outside.each(|counter| _ = counter.fetch_add(bytes, Ordering::Relaxed));
        Charge { outside, bytes }
    }

    /// Gives back all but `bytes`.
    fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.outside
            .each(|counter| _ = counter.fetch_sub(less, Ordering::Relaxed));
        self.bytes -= less;
    }

    /// Makes one of two on the same account.
    fn join(&mut self, mut other: Charge) {
        debug_assert!(Arc::ptr_eq(&self.outside, &other.outside));
        self.bytes += core::mem::take(&mut other.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.outside
            .each(|counter| _ = counter.fetch_sub(self.bytes, Ordering::Relaxed));
    }
}

/// What a computation outside the heap may take, growing as it asks. All is given back when it is dropped.
pub(crate) struct Budget<'h> {
    local: &'h LocalHeap,
    charge: Option<Charge>,
    reserved: usize,
    refused: Option<NeedMemory>,
}

impl<'h> Budget<'h> {
    /// Nothing yet, for the program that runs on this core.
    pub(crate) fn new(local: &'h LocalHeap) -> Budget<'h> {
        Budget {
            local,
            charge: None,
            reserved: 0,
            refused: None,
        }
    }

    /// Asks for `bytes` more. Once it has been refused it stays so.
    pub(crate) fn ask(&mut self, bytes: usize) -> bool {
        if self.refused.is_none() {
            match self.take(bytes) {
                Some(()) => return true,
                None => self.refused = Some(NeedMemory { bytes }),
            }
        }
        false
    }

    fn take(&mut self, bytes: usize) -> Option<()> {
        let heap = self.local.heap();
        let charge = heap.charge_outside(self.local.program(), bytes)?;
        if !heap.platform().reserve(bytes) {
            return None;
        }
        self.reserved += bytes;
        match &mut self.charge {
            Some(all) => all.join(charge),
            None => self.charge = Some(charge),
        }
        Some(())
    }

    /// What was refused, if anything was.
    pub(crate) fn refused(&self) -> Option<NeedMemory> {
        self.refused
    }

    /// The computation is over, and `bytes` of what it took stay in use as long as the charge.
    pub(crate) fn keep(mut self, bytes: usize) -> Option<Charge> {
        let mut charge = self.charge.take()?;
        charge.shrink(bytes);
        Some(charge)
    }
}

impl Drop for Budget<'_> {
    fn drop(&mut self) {
        if self.reserved > 0 {
            self.local.heap().platform().unreserve(self.reserved);
        }
    }
}
