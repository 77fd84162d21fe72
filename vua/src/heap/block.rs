//! Blocks: 64 KiB, aligned to their size, each filled with objects of one size class or with (the start of) one large object.
//!
//! The block's header lies in front, so an object's address leads to it by clearing sixteen bits; that holds for large
//! objects too, whose run of blocks has a header in the first one only and whose object begins right behind it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

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
    /// One bit for each granule, by its distance from the block's start: whether the object that begins there is marked.
    pub(super) marks: Bits,
    /// During a collection: the marks of the one before.
    pub(super) alive: Bits,
}

const _: () = assert!(size_of::<Block>() == 64 + 2 * 512);

/// In [`Block::notes`]: it has held objects that own something outside the heap.
pub(super) const DROPS: u32 = 1;
/// In [`Block::notes`]: it has held tasks.
pub(super) const TASKS: u32 = 2;
/// In [`Block::notes`]: a marked object in it was not traced, for want of room on the mark stack.
pub(super) const RESCAN: u32 = 4;

/// A bit for each granule of a block.
pub(super) struct Bits([AtomicU64; BLOCK_BYTES / GRANULE / 64]);

impl Bits {
    #[inline(always)]
    fn place(&self, offset: usize) -> (&AtomicU64, u64) {
        let granule = offset / GRANULE;
        debug_assert!(granule < BLOCK_BYTES / GRANULE);
        (
            &self.0[granule / 64 % (BLOCK_BYTES / GRANULE / 64)],
            1 << (granule % 64),
        )
    }

    /// The bit of the cell at `offset` from the block's start.
    #[inline(always)]
    pub(super) fn get(&self, offset: usize) -> bool {
        let (word, bit) = self.place(offset);
        word.load(Ordering::Acquire) & bit != 0
    }

    /// Sets a bit; whether it was clear. Of several cores that set it at once, one is told so.
    #[inline(always)]
    pub(super) fn set(&self, offset: usize) -> bool {
        let (word, bit) = self.place(offset);
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// As [`set`](Self::set), where no other core sets or clears bits.
    #[inline(always)]
    pub(super) fn set_alone(&self, offset: usize) -> bool {
        let (word, bit) = self.place(offset);
        let before = word.load(Ordering::Relaxed);
        if before & bit != 0 {
            return false;
        }
        word.store(before | bit, Ordering::Relaxed);
        true
    }

    /// Clears a bit. A release: who finds it clear finds the cell as it was left.
    #[inline(always)]
    pub(super) fn clear(&self, offset: usize) {
        let (word, bit) = self.place(offset);
        if word.load(Ordering::Relaxed) & bit != 0 {
            word.fetch_and(!bit, Ordering::Release);
        }
    }

    /// How many are set.
    pub(super) fn count(&self) -> usize {
        self.0
            .iter()
            .map(|word| word.load(Ordering::Relaxed).count_ones() as usize)
            .sum()
    }

    pub(super) fn clear_all(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn copy(&self, from: &Bits) {
        for (to, from) in self.0.iter().zip(&from.0) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
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
        core::mem::offset_of!(Block, marks) + offset / GRANULE / 8
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
