//! Sweeping: after the marks are complete, every block, of a young collection every one that was filled since the last, is looked at once in the pause (how much of it is alive? what was alive before and is no longer loses its mark), and its
//! free cells are handed out later, run by run, by whatever core takes the block to fill it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::super::block::{
    BLOCK_BYTES, Block, Colour, DROPS, LARGE, PAYLOAD_BYTES, STRIDES, TOUCHED,
};
use super::super::pool::Pool;
use super::super::{Header, Heap, Kind};

/// Blocks with less than this share of free cells are not worth a visit.
const LEAST_FREE: usize = PAYLOAD_BYTES / 64;

/// Where the cells of a block of this stride end, from its start.
const fn end_of(stride: usize) -> usize {
    size_of::<Block>() + PAYLOAD_BYTES / stride * stride
}

/// The next run of free cells in a block, zeroed, and where it ends; `None` when the block is used up.
///
/// # Safety
/// The block is this core's to fill, and its cells have this stride.
pub(in crate::heap) unsafe fn next_run(
    block: NonNull<Block>,
    stride: usize,
) -> Option<(NonNull<u8>, *mut u8)> {
    // SAFETY: the header of a block in use is initialised.
    let header = unsafe { block.as_ref() };
    let end = end_of(stride);
    let mut at = header.swept.load(Ordering::Relaxed) as usize;
    while at < end && header.marks.is_alive(at) {
        at += stride;
    }
    if at >= end {
        header.swept.store(BLOCK_BYTES as u32, Ordering::Release);
        return None;
    }
    let first = at;
    while at < end && !header.marks.is_alive(at) {
        at += stride;
    }
    // SAFETY: unmarked cells behind `swept` hold nothing that anybody can reach, and lie in the block.
    unsafe {
        let start = block.cast::<u8>().add(first);
        start.write_bytes(0, at - first);
        let swept = if at >= end { BLOCK_BYTES } else { at };
        header.swept.store(swept as u32, Ordering::Release);
        Some((start, start.as_ptr().add(at - first)))
    }
}

/// Gives back all but the first cell of the run that [`next_run`] gave: the next call finds the rest again.
///
/// # Safety
/// As for [`next_run`]; only the first cell has been used.
pub(in crate::heap) unsafe fn sweep_again(
    block: NonNull<Block>,
    first: NonNull<u8>,
    stride: usize,
) {
    let next = Block::offset(first.cast()) + stride;
    let swept = if next >= end_of(stride) {
        BLOCK_BYTES
    } else {
        next
    };
    // SAFETY: the header of a block in use is initialised.
    unsafe { block.as_ref() }
        .swept
        .store(swept as u32, Ordering::Release);
}

/// What the look at all blocks came to.
pub(super) struct Census {
    /// Bytes of the objects that were alive when a collection last looked at their blocks.
    pub(super) live: AtomicUsize,
    /// Dead mappings of their own, linked by [`Block::next`].
    pub(super) dead_mappings: AtomicPtr<Block>,
}

impl Census {
    pub(super) const fn new() -> Census {
        Census {
            live: AtomicUsize::new(0),
            dead_mappings: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Adds a dead mapping: the list of mappings is not for several cores, so the collector itself takes it out.
    ///
    /// # Safety
    /// Nobody can reach it.
    unsafe fn add_dead_mapping(&self, block: NonNull<Block>) {
        let mut head = self.dead_mappings.load(Ordering::Relaxed);
        loop {
            // SAFETY: the header of a block in use is initialised.
            unsafe { block.as_ref() }
                .next
                .store(head, Ordering::Relaxed);
            match self.dead_mappings.compare_exchange_weak(
                head,
                block.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }
}

/// Whether an object may begin at `address` in the block: something that looks like a reference is one.
///
/// # Safety
/// In the pause; the block is in use, and `address` lies in it.
pub(super) unsafe fn is_object(block: NonNull<Block>, address: usize) -> bool {
    // SAFETY: the header of a block in use is initialised.
    let header = unsafe { block.as_ref() };
    let offset = address & (BLOCK_BYTES - 1);
    if offset < size_of::<Block>() {
        return false;
    }
    let inside = offset - size_of::<Block>();
    if header.class() == LARGE {
        if inside != 0 {
            return false;
        }
    } else {
        let stride = STRIDES[header.class() as usize] as usize;
        if !inside.is_multiple_of(stride) || offset >= end_of(stride) {
            return false;
        }
        if offset >= header.swept.load(Ordering::Relaxed) as usize && !header.marks.is_alive(offset)
        {
            return false;
        }
    }
    // SAFETY: a cell of the block; its first byte is a kind.
    unsafe { (*block.as_ptr().cast::<u8>().add(offset).cast::<Header>()).kind() != Kind::Free }
}

/// After marking: counts what is alive in a block, gives it back if nothing is, and lists it if it has free cells. Of a collection that is `young` the block is
/// one that was [touched](super::super::block::TOUCHED), and the sums are those of the last one; else they began at 0.
///
/// # Safety
/// In the pause, all marks set; each block once.
pub(super) unsafe fn survey(
    heap: &Heap,
    pool: &Pool,
    block: NonNull<Block>,
    colour: Colour,
    young: bool,
    census: &Census,
) {
    // SAFETY: the header of a block in use is initialised; nobody uses the block in the pause.
    unsafe {
        let header = block.as_ref();
        let class = header.class();
        let marked = if class == LARGE {
            usize::from(header.marks.is_marked(size_of::<Block>(), colour))
        } else if young {
            header.marks.count(colour)
        } else {
            header.marks.keep(colour)
        };
        header.notes.fetch_and(!TOUCHED, Ordering::Relaxed);
        if header.notes.load(Ordering::Relaxed) & DROPS != 0 {
            drop_dead(heap, block, colour);
        }
        let stride = if class == LARGE {
            header.bytes.load(Ordering::Relaxed)
        } else {
            STRIDES[class as usize] as usize
        };
        let live = marked * stride;
        let account = pool.opened(header.program());
        let mut before = header.live.load(Ordering::Relaxed);
        let mut counted = header.counted.load(Ordering::Relaxed);
        if !young {
            (before, counted) = (0, 0);
        }
        census
            .live
            .fetch_add(live.wrapping_sub(before), Ordering::Relaxed);
        if let Some(account) = account {
            account
                .used
                .fetch_add(live.wrapping_sub(counted), Ordering::Relaxed);
        }
        if marked == 0 {
            if pool.is_mapping(block) {
                census.add_dead_mapping(block);
            } else {
                pool.give_blocks(block);
            }
            return;
        }
        header.live.store(live, Ordering::Relaxed);
        header.counted.store(live, Ordering::Relaxed);
        if class == LARGE {
            return;
        }
        let class = class as usize;
        let free = PAYLOAD_BYTES / stride * stride - live;
        header
            .swept
            .store(size_of::<Block>() as u32, Ordering::Relaxed);
        header.free.store(free as u32, Ordering::Relaxed);
        if let Some(account) = account
            && free >= LEAST_FREE.max(stride)
        {
            account.add_available(block, class);
        }
    }
}

/// Lets go of what dead objects in the block own outside the heap.
///
/// # Safety
/// As for [`survey`].
unsafe fn drop_dead(heap: &Heap, block: NonNull<Block>, colour: Colour) {
    // SAFETY: the block is in use and nobody allocates in it. An unmarked object is dead; its kind becomes `Free`, so this happens once.
    unsafe {
        Block::objects(block, &mut |object| {
            let kind = object.as_ref().kind();
            let marks = &block.as_ref().marks;
            if kind.has_drop() && !marks.is_marked(Block::offset(object), colour) {
                if let Some(hook) = heap.drop_hook(kind) {
                    hook(object);
                }
                object.write(Header::new(Kind::Free, 0));
            }
        });
    }
}
