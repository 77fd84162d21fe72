//! Sweeping: after the marks are complete, every block is looked at once in the pause (how much of it is alive? what was alive before and is no longer loses its mark), and its
//! free cells are handed out later, run by run, by whatever core takes the block to fill it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::super::block::{BLOCK_BYTES, Block, Colour, DROPS, LARGE, PAYLOAD_BYTES, STRIDES};
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
    /// Bytes of marked objects.
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

/// After marking: counts what is alive, gives empty blocks back, and lists those with free cells.
///
/// # Safety
/// In the pause, all marks set; each place once.
pub(super) unsafe fn survey(
    heap: &Heap,
    pool: &Pool,
    place: usize,
    colour: Colour,
    census: &Census,
) {
    let mut live = 0;
    pool.each_at(place, &mut |block| {
        // SAFETY: the header of a block in use is initialised; nobody uses the block in the pause.
        unsafe {
            let header = block.as_ref();
            let class = header.class();
            let marked = if class == LARGE {
                usize::from(header.marks.is_marked(size_of::<Block>(), colour))
            } else {
                header.marks.keep(colour)
            };
            if header.notes.load(Ordering::Relaxed) & DROPS != 0 {
                drop_dead(heap, block, colour);
            }
            if class == LARGE {
                let bytes = header.bytes.load(Ordering::Relaxed);
                if marked != 0 {
                    live += bytes;
                    if let Some(account) = pool.opened(header.program()) {
                        account.used.fetch_add(bytes, Ordering::Relaxed);
                    }
                } else if pool.is_mapping(block) {
                    // The list of mappings is not for several cores: the collector itself takes it out.
                    let mut head = census.dead_mappings.load(Ordering::Relaxed);
                    loop {
                        header.next.store(head, Ordering::Relaxed);
                        match census.dead_mappings.compare_exchange_weak(
                            head,
                            block.as_ptr(),
                            Ordering::Release,
                            Ordering::Relaxed,
                        ) {
                            Ok(_) => break,
                            Err(found) => head = found,
                        }
                    }
                } else {
                    pool.give_blocks(block);
                }
                return;
            }
            if marked == 0 {
                pool.give_blocks(block);
                return;
            }
            let class = class as usize;
            let stride = STRIDES[class] as usize;
            let bytes = marked * stride;
            let free = PAYLOAD_BYTES / stride * stride - bytes;
            live += bytes;
            header
                .swept
                .store(size_of::<Block>() as u32, Ordering::Relaxed);
            header.free.store(free as u32, Ordering::Relaxed);
            if let Some(account) = pool.opened(header.program()) {
                account.used.fetch_add(bytes, Ordering::Relaxed);
                if free >= LEAST_FREE.max(stride) {
                    account.add_available(block, class);
                }
            }
        }
    });
    census.live.fetch_add(live, Ordering::Relaxed);
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
