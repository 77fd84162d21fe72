//! Blocks: 64 KiB, aligned to their size, each filled with objects of one size class or with (the start of) one large object.
//!
//! The block's header lies in front, so an object's address leads to it by clearing sixteen bits; that holds for large
//! objects too, whose run of blocks has a header in the first one only and whose object begins right behind it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{Header, Kind};

/// Bytes in a block, and its alignment.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Objects are aligned to this, and their sizes rounded up to it.
pub const GRANULE: usize = 16;
/// Bytes of a block that hold objects.
pub const PAYLOAD_BYTES: usize = BLOCK_BYTES - size_of::<Block>();
/// Number of size classes.
pub const CLASSES: usize = 70;
/// Size class of a block that begins a large object.
pub const LARGE: u32 = u32::MAX;
/// The largest object that shares a block with others.
pub const MAX_SMALL: usize = STRIDES[CLASSES - 1] as usize;

/// The object size of each class: every granule up to 512 bytes; then eight steps to each doubling up to 8 KiB, so that
/// at most an eighth is lost; above, what divides a block into 7 to 2 cells.
pub const STRIDES: [u32; CLASSES] = {
    let mut strides = [0; CLASSES];
    let mut i = 0;
    while i < 32 {
        strides[i] = ((i + 1) * GRANULE) as u32;
        i += 1;
    }
    while i < 64 {
        let doubling = (i - 32) / 8;
        let step = (i - 32) % 8 + 1;
        strides[i] = ((512 << doubling) + (64 << doubling) * step) as u32;
        i += 1;
    }
    while i < CLASSES {
        strides[i] = (PAYLOAD_BYTES / (71 - i) / GRANULE * GRANULE) as u32;
        i += 1;
    }
    strides
};

const _: () =
    assert!(STRIDES[31] == 512 && STRIDES[39] == 1024 && STRIDES[63] == 8192 && STRIDES[64] > 8192);
const _: () =
    assert!(MAX_SMALL * 2 <= PAYLOAD_BYTES && MAX_SMALL * 2 + 2 * GRANULE > PAYLOAD_BYTES);
const _: () = assert!(size_of::<Block>().is_multiple_of(GRANULE));

/// The class of objects of `bytes` (1 to [`MAX_SMALL`]).
#[inline(always)]
pub const fn class_of(bytes: usize) -> usize {
    if bytes <= 512 {
        bytes.div_ceil(GRANULE) - 1
    } else if bytes <= 8192 {
        let doubling = (bytes - 1).ilog2() as usize - 9;
        32 + doubling * 8 + ((bytes - 1 - (512 << doubling)) >> (6 + doubling))
    } else {
        let mut class = 64;
        while (STRIDES[class] as usize) < bytes {
            class += 1;
        }
        class
    }
}

/// How many bytes an object that asks for `bytes` really has, itself included: containers fill what they get.
pub const fn usable(bytes: usize) -> usize {
    if bytes <= MAX_SMALL {
        STRIDES[class_of(bytes)] as usize
    } else {
        let header = size_of::<Block>();
        (bytes + header).next_multiple_of(BLOCK_BYTES) - header
    }
}

/// What lies in front of a block's objects.
///
/// Written by the core that takes the block, under the pool's lock or before anyone else can know the block, and by the
/// collector in its pause.
#[repr(C, align(64))]
pub struct Block {
    /// Size class, or [`LARGE`].
    pub(super) class: AtomicU32,
    /// The program it is charged to.
    pub(super) program: AtomicU32,
    /// Bytes of the run of blocks that starts here; [`BLOCK_BYTES`] unless a large object does.
    pub(super) bytes: AtomicUsize,
    /// The core that allocates in it.
    pub(super) cpu: AtomicU32,
    /// 1 if it is a mapping of its own, else 0.
    pub(super) mapping: AtomicU32,
    /// The next block in whatever list it is in.
    pub(super) next: AtomicPtr<Block>,
    /// How far, in bytes from the block's start, its cells have been handed out or swept since the last collection. A cell
    /// before that holds an object unless its kind is [`Kind::Free`]; one behind it holds an object only if it is marked.
    pub(super) swept: AtomicU32,
    /// [`DROPS`], [`TASKS`], [`RESCAN`].
    pub(super) notes: AtomicU32,
    /// Bytes of its cells that the last collection found free.
    pub(super) free: AtomicU32,
    spare: AtomicU32,
    spares: [AtomicU64; 2],
    /// Whether the object that begins at a granule was alive when the last collection ended, or is marked in this one.
    pub(super) marks: Marks,
}

const _: () = assert!(size_of::<Block>() == 64 + 4096);

/// In [`Block::notes`]: it has held objects that own something outside the heap.
pub(super) const DROPS: u32 = 1;
/// In [`Block::notes`]: it has held tasks.
pub(super) const TASKS: u32 = 2;
/// In [`Block::notes`]: a marked object in it was not traced, for want of room on the mark stack.
pub(super) const RESCAN: u32 = 4;

/// The mark of no object, or of a dead one.
const NONE: u8 = 0;

/// The two marks of live objects, which change places with every collection: in one, objects that it has come to bear the new mark, those that were
/// alive when the last one ended and that it has not come to the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour(u8);

impl Colour {
    /// That of the first collection.
    pub(super) const FIRST: Colour = Colour(1);

    /// That of the next collection.
    pub(super) fn next(self) -> Colour {
        Colour(3 - self.0)
    }
}

/// A byte for each granule of a block, by its distance from the block's start: the mark of the object that begins there.
///
/// Bytes and not bits, so that markers set them by plain stores: a locked instruction for each object makes a marker wait for memory that it would
/// otherwise fetch ahead, and two of them then mark no faster than one. Two that come to an object at the same time may both find it without mark, and both look into it.
pub(super) struct Marks([AtomicU8; BLOCK_BYTES / GRANULE]);

impl Marks {
    #[inline(always)]
    fn place(&self, offset: usize) -> &AtomicU8 {
        debug_assert!(offset < BLOCK_BYTES);
        &self.0[offset / GRANULE % (BLOCK_BYTES / GRANULE)]
    }

    /// Whether the cell at `offset` from the block's start holds an object that was alive when the last collection ended, or that this one has come to.
    #[inline(always)]
    pub(super) fn is_alive(&self, offset: usize) -> bool {
        self.place(offset).load(Ordering::Acquire) != NONE
    }

    /// Whether this collection has come to the object.
    #[inline(always)]
    pub(super) fn is_marked(&self, offset: usize, colour: Colour) -> bool {
        self.place(offset).load(Ordering::Relaxed) == colour.0
    }

    /// Marks the object; whether it was not marked. Of several cores that mark it at once, more than one may be told so.
    #[inline(always)]
    pub(super) fn mark(&self, offset: usize, colour: Colour) -> bool {
        let mark = self.place(offset);
        let is_new = mark.load(Ordering::Relaxed) != colour.0;
        if is_new {
            mark.store(colour.0, Ordering::Relaxed);
        }
        is_new
    }

    /// The object is dead. A release: who finds no mark finds the cell as it was left.
    #[inline(always)]
    pub(super) fn clear(&self, offset: usize) {
        let mark = self.place(offset);
        if mark.load(Ordering::Relaxed) != NONE {
            mark.store(NONE, Ordering::Release);
        }
    }

    /// Clears all marks but those of this collection, and counts these.
    ///
    /// # Safety
    /// Nobody else looks at the marks meanwhile.
    pub(super) unsafe fn keep(&self, colour: Colour) -> usize {
        // SAFETY: atomics may be written through a shared reference, and nobody else uses them, says the caller.
        let marks = unsafe {
            &mut *self
                .0
                .as_ptr()
                .cast_mut()
                .cast::<[u8; BLOCK_BYTES / GRANULE]>()
        };
        let mut count = 0;
        // The count of a part fits a byte, so that the compiler takes sixteen marks at a time.
        for part in marks.chunks_exact_mut(128) {
            let mut marked = 0;
            for mark in part {
                let is_marked = u8::from(*mark == colour.0);
                *mark &= 0u8.wrapping_sub(is_marked);
                marked += is_marked;
            }
            count += usize::from(marked);
        }
        count
    }
}

impl Block {
    /// The block in which an object begins.
    ///
    /// # Safety
    /// `object` is an object of the heap, not one of the static ones.
    #[inline(always)]
    pub unsafe fn of(object: NonNull<Header>) -> NonNull<Block> {
        object.cast::<Block>().map_addr(|a| {
            // Never zero: no block is mapped at address 0.
            core::num::NonZero::new(a.get() & !(BLOCK_BYTES - 1)).unwrap_or(a)
        })
    }

    /// Size class, or [`LARGE`].
    pub fn class(&self) -> u32 {
        self.class.load(Ordering::Relaxed)
    }

    /// The program that the block is charged to.
    pub fn program(&self) -> u32 {
        self.program.load(Ordering::Relaxed)
    }

    /// How far behind a block's start the byte is that holds the mark of the object at `offset`.
    #[inline(always)]
    pub(super) const fn mark_place(offset: usize) -> usize {
        core::mem::offset_of!(Block, marks) + offset / GRANULE
    }

    /// How far an object begins behind its block's start.
    #[inline(always)]
    pub(super) fn offset(object: NonNull<Header>) -> usize {
        object.addr().get() & (BLOCK_BYTES - 1)
    }

    /// Whether all its cells have been handed out or swept since the last collection.
    #[inline]
    pub(super) fn is_swept(&self) -> bool {
        self.swept.load(Ordering::Acquire) as usize == BLOCK_BYTES
    }

    /// Adds to the notes.
    #[inline(always)]
    pub(super) fn note(&self, bits: u32) {
        if self.notes.load(Ordering::Relaxed) & bits != bits {
            self.notes.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// Where the first object of a block is.
    pub(super) fn payload(block: NonNull<Block>) -> NonNull<u8> {
        // SAFETY: a block is longer than its header.
        unsafe { block.add(1).cast() }
    }

    /// Calls `visit` with every object in the block; between collections also with dead ones that have not been swept.
    ///
    /// # Safety
    /// `block` is in use, and nobody allocates in it meanwhile: in the collector's pause, or by the core that owns it.
    pub unsafe fn objects(block: NonNull<Block>, visit: &mut dyn FnMut(NonNull<Header>)) {
        // SAFETY: the header of a block in use is initialised.
        let class = unsafe { block.as_ref() }.class();
        let first = Self::payload(block);
        let (stride, count) = if class == LARGE {
            (0, 1)
        } else {
            let stride = STRIDES[class as usize] as usize;
            (stride, PAYLOAD_BYTES / stride)
        };
        for i in 0..count {
            // SAFETY: cell `i` lies in the block; its first byte is a valid `Kind`, `Free` where there is no object.
            unsafe {
                let cell = first.add(i * stride).cast::<Header>();
                if (*cell.as_ptr()).kind() != Kind::Free {
                    visit(cell);
                }
            }
        }
    }
}
