//! The kernel heap: Talc behind a spin lock, in a region of addresses that grows by fresh memory and never shrinks.

use super::{
    HEAP, STACKS,
    paging::LARGE,
    space::{KERNEL_DATA, map_memory, memory_bytes},
};
use core::{alloc::Layout, ptr::NonNull};
use talc::{TalcLock, base::Talc, base::binning::Binning, source::Source};

/// The allocator's type, for `#[global_allocator]`. Not for use in interrupt handlers.
pub type Heap = TalcLock<spin::Mutex<()>, Region>;

/// A heap without memory; it takes some when it is first used.
pub const fn new() -> Heap {
    TalcLock::new(Region {
        end: None,
        mapped: HEAP,
    })
}

/// Where the heap's memory comes from.
#[derive(Debug)]
pub struct Region {
    /// Where Talc's part ends.
    end: Option<NonNull<u8>>,
    /// Where the mapped part ends.
    mapped: u64,
}

/// The heap grows by this at least: what a boot needs, without mapping page by page.
const STEP: u64 = 256 << 10;
/// Machines with this much memory grow the heap in large pages instead.
const PLENTY: u64 = 512 << 20;

// SAFETY: `acquire` uses frames and page tables, which never allocate from the heap.
unsafe impl Source for Region {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for Talc's own structures and for alignment on top of what is asked for.
        const OVERHEAD: usize = 16 << 10;
        let needed = layout
            .size()
            .checked_add(layout.align())
            .and_then(|bytes| bytes.checked_add(OVERHEAD))
            .ok_or(())? as u64;
        let start = talc.source.mapped;
        let step = if memory_bytes().1 >= PLENTY {
            LARGE
        } else {
            STEP
        };
        let grow = |step| Some(start.checked_add(needed)?.checked_next_multiple_of(step)? - start);
        let bytes = grow(step).ok_or(())?;
        // Mapping fails without enough frames as well, but would take those that there are for a moment, in which others go without.
        if bytes > STACKS - start || memory_bytes().0 < bytes {
            return Err(());
        }
        // SAFETY: the addresses are the heap's own, never mapped before.
        unsafe { map_memory(start, bytes, KERNEL_DATA, false, LARGE) }.map_err(|_| ())?;
        let end = start + bytes;
        talc.source.mapped = end;
        // SAFETY: fresh memory that nobody else uses, directly behind the heap's end if it has one.
        talc.source.end = unsafe {
            match talc.source.end {
                None => talc.claim(start as *mut u8, bytes as usize),
                Some(old) => Some(talc.extend(old, end as *mut u8)),
            }
        };
        if talc.source.end.is_some() {
            Ok(())
        } else {
            Err(())
        }
    }
}

/// What [`has_room`] leaves to others.
const MARGIN: usize = 256 << 10;

/// Whether about `bytes` more can be allocated: from fresh frames, or else in one piece from what the heap has.
pub fn has_room(bytes: usize) -> bool {
    let Some(bytes) = bytes.checked_add(MARGIN) else {
        return false;
    };
    if memory_bytes().0 >= bytes as u64 {
        return true;
    }
    let Ok(layout) = Layout::from_size_align(bytes, 16) else {
        return false;
    };
    // SAFETY: the layout is not empty, and what was allocated is given back with the same one.
    unsafe {
        // Unless the pointer goes somewhere, the compiler leaves the pair out, and supposes that it would have succeeded.
        let piece = core::hint::black_box(alloc::alloc::alloc(layout));
        if !piece.is_null() {
            alloc::alloc::dealloc(piece, layout);
        }
        !piece.is_null()
    }
}

// SAFETY: the pointer is to the heap's own region, which is the same on every core.
unsafe impl Send for Region {}
