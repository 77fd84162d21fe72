//! Physical memory: a buddy allocator over the machine's free frames.
//!
//! Blocks are 2^order frames of 4 KiB, aligned to their size, from one frame to 2 MiB (one large page). A byte for each frame says
//! whether a free block starts there and of which order; free blocks of one order are linked through their own first
//! bytes, so the allocator needs no other memory. Allocating and freeing take time proportional to the orders passed,
//! never to the memory's size. Freeing joins buddies again (Knuth, TAOCP volume 1, section 2.5, "buddy system").
//!
//! Memory that was never used is not touched, and so not in these lists: it waits in ranges, of which a block is cut off when
//! the lists have none. Under a hypervisor a first touch costs the host a page, often one of 2 MiB; a boot that linked all free
//! blocks would take the whole of the guest's memory from the host, and seconds.
//!
//! The allocator reaches a frame through a direct map: physical address plus an offset, which changes once, when the kernel
//! leaves the loader's page tables for its own.

use super::PAGE;

/// The largest block: 2^9 frames, 2 MiB.
pub const MAX_ORDER: usize = 9;

/// State byte of a frame at which no free block starts.
const NOT_FREE: u8 = 0xff;
/// End of a list.
const NONE: u64 = u64::MAX;

/// How many untouched ranges are remembered; what is added beyond is linked at once.
const FRESH: usize = 128;

/// What the first bytes of a free block hold: physical addresses of the neighbours in its list.
#[repr(C)]
struct Links {
    next: u64,
    previous: u64,
}

/// The allocator.
#[derive(Debug)]
pub struct Frames {
    /// Added to a physical address to reach it.
    offset: u64,
    /// Physical address of the state bytes, one a frame from physical address 0.
    states: u64,
    /// Number of state bytes.
    frames: u64,
    heads: [u64; MAX_ORDER + 1],
    /// Free memory that was never touched: start and end, the first `fresh_ranges` of them.
    fresh: [(u64, u64); FRESH],
    fresh_ranges: usize,
    free: u64,
    total: u64,
}

/// Bytes in a block of `order`.
const fn bytes(order: usize) -> u64 {
    PAGE << order
}

/// Cuts the largest block off the start of a range that is aligned there and fits.
fn cut(range: &mut (u64, u64)) -> Option<(u64, usize)> {
    let (start, end) = *range;
    let largest = ((start / PAGE).trailing_zeros() as usize).min(MAX_ORDER);
    let order = (0..=largest)
        .rev()
        .find(|&order| start < end && bytes(order) <= end - start)?;
    range.0 += bytes(order);
    Some((start, order))
}

impl Frames {
    /// Bytes of state that memory up to physical address `end` needs.
    pub const fn state_bytes(end: u64) -> u64 {
        end.div_ceil(PAGE)
    }

    /// An allocator with nothing free yet, for memory up to physical address `end`.
    ///
    /// # Safety
    /// [`state_bytes`](Self::state_bytes)`(end)` bytes from physical address `states` on are the allocator's alone, and are
    /// readable and writable at `states + offset` (wrapping).
    pub unsafe fn new(offset: u64, states: u64, end: u64) -> Self {
        let frames = Self::state_bytes(end);
        let this = Self {
            offset,
            states,
            frames,
            heads: [NONE; MAX_ORDER + 1],
            fresh: [(0, 0); FRESH],
            fresh_ranges: 0,
            free: 0,
            total: 0,
        };
        // SAFETY: the caller's promise.
        unsafe { core::ptr::write_bytes(this.state(0), NOT_FREE, frames as usize) };
        this
    }

    /// Changes the offset of the direct map.
    ///
    /// # Safety
    /// State bytes and every frame given to the allocator are readable and writable at the new offset.
    pub unsafe fn move_direct_map(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Gives the frames from `start` to `end` (multiples of 4 KiB) to the allocator.
    ///
    /// # Panics
    /// When they lie beyond what the allocator was made for.
    ///
    /// # Safety
    /// Nobody else uses this memory, it has not been given before, and it is readable and writable through the direct map.
    pub unsafe fn add(&mut self, start: u64, end: u64) {
        assert!(
            start.is_multiple_of(PAGE)
                && end.is_multiple_of(PAGE)
                && end.div_ceil(PAGE) <= self.frames,
            "frames outside the map"
        );
        if start >= end {
            return;
        }
        self.total += end - start;
        if let Some(range) = self.fresh.get_mut(self.fresh_ranges) {
            *range = (start, end);
            self.fresh_ranges += 1;
            self.free += end - start;
            return;
        }
        let mut rest = (start, end);
        while let Some((block, order)) = cut(&mut rest) {
            // SAFETY: the caller's promise.
            unsafe { self.free(block, order) };
        }
    }

    /// Moves a block of untouched memory to the lists; false when there is none left.
    fn refill(&mut self) -> bool {
        while self.fresh_ranges > 0 {
            // The first range first, so that memory is used from below.
            if let Some((block, order)) = cut(&mut self.fresh[0]) {
                // It is counted as free already.
                self.free -= bytes(order);
                // SAFETY: memory that `add`'s caller gave, not in the lists so far.
                unsafe { self.free(block, order) };
                return true;
            }
            self.fresh_ranges -= 1;
            self.fresh.copy_within(1..=self.fresh_ranges, 0);
        }
        false
    }

    /// Bytes free.
    pub fn free_bytes(&self) -> u64 {
        self.free
    }

    /// Bytes ever given to the allocator.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Takes a block of 2^`order` frames (at most [`MAX_ORDER`]), aligned to its size; its content is arbitrary. `None`
    /// when there is no such block, though smaller ones may be free.
    pub fn allocate(&mut self, order: usize) -> Option<u64> {
        let found = loop {
            match (order..=MAX_ORDER).find(|&larger| self.heads[larger] != NONE) {
                Some(found) => break found,
                None if self.refill() => {}
                None => return None,
            }
        };
        let block = self.heads[found];
        self.unlink(block, found);
        // Split, keeping the lower half and freeing the upper one each time.
        for smaller in (order..found).rev() {
            self.link(block + bytes(smaller), smaller);
        }
        self.free -= bytes(order);
        Some(block)
    }

    /// Gives a block back.
    ///
    /// # Panics
    /// When a free block starts there already: a double free, or memory that is not the allocator's.
    ///
    /// # Safety
    /// The block was allocated with this order (or is made of such blocks, whole), and nobody uses it any more.
    pub unsafe fn free(&mut self, block: u64, order: usize) {
        debug_assert!(order <= MAX_ORDER && block.is_multiple_of(bytes(order)));
        self.free += bytes(order);
        let (mut block, mut order) = (block, order);
        assert!(
            self.state_of(block) == NOT_FREE,
            "frame {block:#x} freed twice"
        );
        while order < MAX_ORDER {
            let buddy = block ^ bytes(order);
            if self.state_of(buddy) != order as u8 {
                break;
            }
            self.unlink(buddy, order);
            block = block.min(buddy);
            order += 1;
        }
        self.link(block, order);
    }

    fn state(&self, frame: u64) -> *mut u8 {
        self.states.wrapping_add(self.offset).wrapping_add(frame) as *mut u8
    }

    /// The state of the frame at a physical address; outside the map nothing is free.
    fn state_of(&self, block: u64) -> u8 {
        let frame = block / PAGE;
        if frame >= self.frames {
            return NOT_FREE;
        }
        // SAFETY: `new`'s caller vouches for the state bytes, and the index is inside.
        unsafe { self.state(frame).read() }
    }

    fn set_state(&mut self, block: u64, state: u8) {
        let frame = block / PAGE;
        assert!(frame < self.frames, "frame {block:#x} is outside the map");
        // SAFETY: as for `state_of`.
        unsafe { self.state(frame).write(state) }
    }

    fn links(&self, block: u64) -> *mut Links {
        block.wrapping_add(self.offset) as *mut Links
    }

    fn link(&mut self, block: u64, order: usize) {
        let next = self.heads[order];
        // SAFETY: free blocks are the allocator's, and reachable through the direct map.
        unsafe {
            self.links(block).write(Links {
                next,
                previous: NONE,
            });
            if next != NONE {
                (*self.links(next)).previous = block;
            }
        }
        self.heads[order] = block;
        self.set_state(block, order as u8);
    }

    fn unlink(&mut self, block: u64, order: usize) {
        // SAFETY: as for `link`.
        unsafe {
            let Links { next, previous } = self.links(block).read();
            if previous == NONE {
                self.heads[order] = next;
            } else {
                (*self.links(previous)).next = next;
            }
            if next != NONE {
                (*self.links(next)).previous = previous;
            }
        }
        self.set_state(block, NOT_FREE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        alloc::{Layout, alloc_zeroed, dealloc},
        vec::Vec,
    };

    /// Pretended physical memory: `bytes` from address 0, its states in the last pages.
    struct Machine {
        memory: *mut u8,
        layout: Layout,
        frames: Frames,
        end: u64,
    }

    impl Machine {
        fn new(bytes: u64) -> Self {
            let layout = Layout::from_size_align(bytes as usize, PAGE as usize).unwrap();
            // SAFETY: the layout is not empty.
            let memory = unsafe { alloc_zeroed(layout) };
            let states = bytes - Frames::state_bytes(bytes).next_multiple_of(PAGE);
            // SAFETY: memory and states belong to this machine.
            let mut frames = unsafe { Frames::new(memory as u64, states, bytes) };
            // SAFETY: as above; page 0 stays out, as in the kernel.
            unsafe { frames.add(PAGE, states) };
            Self {
                memory,
                layout,
                frames,
                end: states,
            }
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.memory, self.layout) }
        }
    }

    #[test]
    fn splits_and_joins_back() {
        let mut machine = Machine::new(16 << 20);
        let before = machine.frames.free_bytes();
        assert_eq!(before, machine.end - PAGE);
        let mut taken = Vec::new();
        while let Some(block) = machine.frames.allocate(0) {
            taken.push(block);
        }
        assert_eq!(taken.len() as u64, before / PAGE);
        assert_eq!(machine.frames.free_bytes(), 0);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(
            taken.len() as u64,
            before / PAGE,
            "a frame was given out twice"
        );
        for block in taken.into_iter().rev() {
            // SAFETY: allocated above.
            unsafe { machine.frames.free(block, 0) };
        }
        assert_eq!(machine.frames.free_bytes(), before);
        // Everything has joined again: all whole 2 MiB blocks but the first (page 0 is out) are there.
        let large = core::iter::from_fn(|| machine.frames.allocate(MAX_ORDER)).count() as u64;
        assert_eq!(large, machine.end / bytes(MAX_ORDER) - 1);
    }

    #[test]
    fn blocks_are_aligned_and_disjoint_whatever_the_order_of_events() {
        let mut machine = Machine::new(8 << 20);
        let before = machine.frames.free_bytes();
        let mut random = 0x2545_f491_4f6c_dd1du64;
        let mut held: Vec<(u64, usize)> = Vec::new();
        for _ in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let order = (random >> 8) as usize % 6;
            if random & 1 == 0 {
                if let Some(block) = machine.frames.allocate(order) {
                    assert_eq!(block % bytes(order), 0);
                    let end = block + bytes(order);
                    assert!(block >= PAGE && end <= machine.end);
                    assert!(
                        held.iter()
                            .all(|&(other, size)| end <= other || other + bytes(size) <= block)
                    );
                    held.push((block, order));
                }
            } else if !held.is_empty() {
                let (block, order) = held.swap_remove((random >> 16) as usize % held.len());
                // SAFETY: allocated above.
                unsafe { machine.frames.free(block, order) };
            }
            let sum: u64 = held.iter().map(|&(_, order)| bytes(order)).sum();
            assert_eq!(machine.frames.free_bytes(), before - sum);
        }
    }

    #[test]
    fn a_large_block_may_come_back_in_parts() {
        let mut machine = Machine::new(8 << 20);
        let before = machine.frames.free_bytes();
        let block = machine.frames.allocate(MAX_ORDER).unwrap();
        for frame in 0..512 {
            // SAFETY: parts of the block allocated above.
            unsafe { machine.frames.free(block + frame * PAGE, 0) };
        }
        assert_eq!(machine.frames.free_bytes(), before);
        assert_eq!(machine.frames.allocate(MAX_ORDER), Some(block));
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn notices_a_double_free() {
        let mut machine = Machine::new(4 << 20);
        let block = machine.frames.allocate(0).unwrap();
        // Its buddy stays allocated, so that the block stands alone in its list.
        let _buddy = machine.frames.allocate(0).unwrap();
        // SAFETY: the second call breaks the contract on purpose; the allocator panics before it does anything.
        unsafe {
            machine.frames.free(block, 0);
            machine.frames.free(block, 0);
        }
    }
}
