//! The common pool: chunks of 1 MiB got from the platform, cut into blocks, and the account of each program.
//!
//! Cores come here once for each 64 KiB that they fill, or for a large object; one lock protects it all. Neighbouring
//! free blocks are found together because a chunk's are bits of one word.

use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use smp::platform::Platform;

use super::block::{BLOCK_BYTES, Block, LARGE};

/// Bytes in a chunk, and its alignment.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_BLOCKS: usize = CHUNK_BYTES / BLOCK_BYTES;
/// The pool asks the platform for this much at first, and for an eighth of what it has later, up to the second figure.
const FIRST_MAPPING: usize = CHUNK_BYTES;
const MAX_MAPPING: usize = 64 << 20;

struct Chunk {
    start: NonNull<u8>,
    /// One bit for each block: it is free.
    free: u16,
    /// One bit for each block: it has been used, so its bytes are not zero.
    used: u16,
}

const _: () = assert!(CHUNK_BLOCKS == 16);

/// What a program's memory comes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// Bytes of the blocks charged to it.
    pub(super) bytes: usize,
    /// It gets no block that would bring it above this.
    pub(super) limit: usize,
}

pub(super) struct Pool {
    chunks: Vec<Chunk>,
    /// No chunk before this one has a free block.
    hint: usize,
    /// Mappings of their own, for objects of a chunk's size and more.
    mappings: Vec<NonNull<Block>>,
    accounts: Vec<Account>,
    mapped: usize,
}

// SAFETY: the pointers are to memory that the pool owns.
unsafe impl Send for Pool {}

impl Pool {
    pub(super) const fn new() -> Pool {
        Pool {
            chunks: Vec::new(),
            hint: 0,
            mappings: Vec::new(),
            accounts: Vec::new(),
            mapped: 0,
        }
    }

    /// The account of a program; one without limit is opened where there is none yet.
    pub(super) fn account(&mut self, program: u32) -> Option<&mut Account> {
        let index = program as usize;
        if index >= self.accounts.len() {
            self.accounts
                .try_reserve(index + 1 - self.accounts.len())
                .ok()?;
            self.accounts.resize(
                index + 1,
                Account {
                    bytes: 0,
                    limit: usize::MAX,
                },
            );
        }
        self.accounts.get_mut(index)
    }

    pub(super) fn mapped(&self) -> usize {
        self.mapped
    }

    /// Moves the charge for `bytes` from one program to another if the other's limit allows.
    pub(super) fn charge(&mut self, program: u32, bytes: usize) -> bool {
        let Some(account) = self.account(program) else {
            return false;
        };
        match account.bytes.checked_add(bytes) {
            Some(sum) if sum <= account.limit => {
                account.bytes = sum;
                true
            }
            _ => false,
        }
    }

    fn discharge(&mut self, program: u32, bytes: usize) {
        if let Some(account) = self.account(program) {
            account.bytes -= bytes;
        }
    }

    /// A run of blocks of at least `bytes` in all, charged to `program`, its header written except for the class.
    /// The second result says whether the rest of the run is zero.
    pub(super) fn take(
        &mut self,
        platform: &dyn Platform,
        program: u32,
        bytes: usize,
    ) -> Option<(NonNull<Block>, bool)> {
        let bytes = bytes.checked_next_multiple_of(BLOCK_BYTES)?;
        if !self.charge(program, bytes) {
            return None;
        }
        let taken = if bytes < CHUNK_BYTES {
            self.take_blocks(platform, bytes / BLOCK_BYTES)
        } else {
            self.map_own(platform, bytes)
        };
        let Some((start, zeroed, mapping)) = taken else {
            self.discharge(program, bytes);
            return None;
        };
        let block = start.cast::<Block>();
        // SAFETY: the run was free, so it is the pool's alone; it is aligned and longer than the header, whose
        // all-zero bit pattern is valid.
        unsafe {
            block.write_bytes(0, 1);
            let header = block.as_ref();
            header.class.store(LARGE, Ordering::Relaxed);
            header.program.store(program, Ordering::Relaxed);
            header.bytes.store(bytes, Ordering::Relaxed);
            header.mapping.store(mapping, Ordering::Relaxed);
        }
        Some((block, zeroed))
    }

    fn take_blocks(
        &mut self,
        platform: &dyn Platform,
        count: usize,
    ) -> Option<(NonNull<u8>, bool, u32)> {
        loop {
            let mut first_with_any = None;
            for (i, chunk) in self.chunks.iter_mut().enumerate().skip(self.hint) {
                if chunk.free != 0 && first_with_any.is_none() {
                    first_with_any = Some(i);
                }
                // Bit b of `starts`: blocks b to b + count - 1 are free.
                let mut starts = chunk.free;
                for _ in 1..count {
                    starts &= starts >> 1;
                }
                if starts != 0 {
                    let at = starts.trailing_zeros() as usize;
                    let run = ((((1u32 << count) - 1) << at) & 0xffff) as u16;
                    let zeroed = chunk.used & run == 0;
                    chunk.free &= !run;
                    chunk.used |= run;
                    // SAFETY: block `at` lies in the chunk.
                    let start = unsafe { chunk.start.add(at * BLOCK_BYTES) };
                    self.hint = first_with_any.unwrap_or(i);
                    return Some((start, zeroed, 0));
                }
            }
            self.hint = first_with_any.unwrap_or(self.chunks.len());
            self.map_chunks(platform)?;
        }
    }

    fn map_chunks(&mut self, platform: &dyn Platform) -> Option<()> {
        let mut bytes = (self.mapped / 8)
            .next_multiple_of(CHUNK_BYTES)
            .clamp(FIRST_MAPPING, MAX_MAPPING);
        loop {
            self.chunks.try_reserve(bytes / CHUNK_BYTES).ok()?;
            if let Some(start) = platform.map(bytes, CHUNK_BYTES) {
                for i in 0..bytes / CHUNK_BYTES {
                    // SAFETY: chunk `i` lies in the mapping.
                    let start = unsafe { start.add(i * CHUNK_BYTES) };
                    self.chunks.push(Chunk {
                        start,
                        free: 0xffff,
                        used: 0,
                    });
                }
                self.mapped += bytes;
                return Some(());
            }
            if bytes == CHUNK_BYTES {
                return None;
            }
            bytes = (bytes / 2).next_multiple_of(CHUNK_BYTES);
        }
    }

    fn map_own(
        &mut self,
        platform: &dyn Platform,
        bytes: usize,
    ) -> Option<(NonNull<u8>, bool, u32)> {
        self.mappings.try_reserve(1).ok()?;
        let start = platform.map(bytes, BLOCK_BYTES)?;
        self.mappings.push(start.cast());
        self.mapped += bytes;
        Some((start, true, self.mappings.len() as u32))
    }

    /// Takes a run of blocks back.
    ///
    /// # Safety
    /// `block` came from [`take`](Self::take), and nothing uses it any more.
    pub(super) unsafe fn give(&mut self, platform: &dyn Platform, block: NonNull<Block>) {
        // SAFETY: the header of a block in use is initialised.
        let (program, bytes, mapping) = unsafe {
            let header = block.as_ref();
            (
                header.program(),
                header.bytes.load(Ordering::Relaxed),
                header.mapping.load(Ordering::Relaxed),
            )
        };
        self.discharge(program, bytes);
        if mapping != 0 {
            let index = mapping as usize - 1;
            self.mappings.swap_remove(index);
            if let Some(moved) = self.mappings.get(index) {
                // SAFETY: every block in the list is in use.
                unsafe { moved.as_ref() }
                    .mapping
                    .store(mapping, Ordering::Relaxed);
            }
            self.mapped -= bytes;
            // SAFETY: the mapping is whole and, says the caller, unused.
            unsafe { platform.unmap(block.cast(), bytes) };
            return;
        }
        let address = block.addr().get();
        let chunk_start = address & !(CHUNK_BYTES - 1);
        // A class of its own tells whoever walks the chunk that the block is free.
        // SAFETY: the block is still the caller's.
        unsafe { block.as_ref() }
            .class
            .store(LARGE, Ordering::Relaxed);
        if let Some(i) = self
            .chunks
            .iter()
            .position(|c| c.start.addr().get() == chunk_start)
        {
            let run =
                ((1u32 << (bytes / BLOCK_BYTES)) - 1) << ((address - chunk_start) / BLOCK_BYTES);
            self.chunks[i].free |= run as u16;
            self.hint = self.hint.min(i);
        }
    }

    /// Calls `visit` with the header of every run of blocks in use.
    pub(super) fn each(&self, visit: &mut dyn FnMut(NonNull<Block>)) {
        for chunk in &self.chunks {
            let mut at = 0;
            while at < CHUNK_BLOCKS {
                if chunk.free & (1 << at) != 0 {
                    at += 1;
                    continue;
                }
                // SAFETY: block `at` lies in the chunk and begins a run in use, whose header is initialised.
                let (block, bytes) = unsafe {
                    let block = chunk.start.add(at * BLOCK_BYTES).cast::<Block>();
                    (block, block.as_ref().bytes.load(Ordering::Relaxed))
                };
                visit(block);
                at += bytes / BLOCK_BYTES;
            }
        }
        for &block in &self.mappings {
            visit(block);
        }
    }
}
