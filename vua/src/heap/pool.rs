//! The common pool: chunks of 1 MiB got from the platform, cut into blocks, and the account of each program.
//!
//! Cores come here once for each block that they fill, or for a large object; one lock protects it all. Neighbouring
//! free blocks are found together because a chunk's are bits of one word. In the collector's pause the collector holds the lock, and its helpers use
//! what is atomic here.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU16, AtomicUsize, Ordering};

use smp::platform::Platform;

use super::block::{BLOCK_BYTES, Block, CLASSES, LARGE};
use super::outside::{Charge, Outside};

/// Bytes in a chunk, and its alignment.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_BLOCKS: usize = CHUNK_BYTES / BLOCK_BYTES;
/// The pool asks the platform for this much at first, and for an eighth of what it has later, up to the second figure.
const FIRST_MAPPING: usize = CHUNK_BYTES;
const MAX_MAPPING: usize = 64 << 20;

struct Chunk {
    start: NonNull<u8>,
    /// One bit for each block: it is free.
    free: AtomicU16,
    /// One bit for each block: a run of blocks in use begins there.
    starts: AtomicU16,
    /// One bit for each block: it has been used, so its bytes are not zero.
    used: u16,
}

const _: () = assert!(CHUNK_BLOCKS == 16);

impl Chunk {
    fn number(&self) -> usize {
        self.start.addr().get() / CHUNK_BYTES
    }

    /// Marks a run of blocks in it as free.
    fn give(&self, address: usize, bytes: usize) {
        let at = address % CHUNK_BYTES / BLOCK_BYTES;
        let run = ((1u32 << (bytes / BLOCK_BYTES)) - 1) << at;
        self.starts.fetch_and(!(1 << at), Ordering::Relaxed);
        self.free.fetch_or(run as u16, Ordering::Relaxed);
    }
}

/// What a program's memory comes to.
pub(super) struct Account {
    /// Bytes of the blocks charged to it and to the programs that it started.
    pub(super) bytes: AtomicUsize,
    /// Likewise bytes outside the heap: see [`Charge`].
    pub(super) outside: Arc<Outside>,
    /// The program that started it.
    parent: Option<u32>,
    /// It gets no block that would bring both together above this.
    pub(super) limit: usize,
    /// Bytes of the objects that the last collection found alive, and of what cores have taken to fill since.
    pub(super) used: AtomicUsize,
    /// Blocks with free cells that the last collection left, by class; linked by [`Block::next`].
    pub(super) available: Box<[AtomicPtr<Block>]>,
}

impl Account {
    fn new() -> Option<Account> {
        let mut available = Vec::new();
        available.try_reserve_exact(CLASSES).ok()?;
        available.resize_with(CLASSES, || AtomicPtr::new(null_mut()));
        Some(Account {
            bytes: AtomicUsize::new(0),
            outside: Arc::new(Outside::new(None)),
            parent: None,
            limit: usize::MAX,
            used: AtomicUsize::new(0),
            available: available.into_boxed_slice(),
        })
    }

    /// Whether so much more keeps within the limit. Under the pool's lock, so that nothing is added at the same time.
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes
            .load(Ordering::Relaxed)
            .checked_add(self.outside.bytes())
            .and_then(|sum| sum.checked_add(bytes))
            .is_some_and(|sum| sum <= self.limit)
    }

    /// Adds a block to those with free cells. In the pause, or under the pool's lock.
    pub(super) fn add_available(&self, block: NonNull<Block>, class: usize) {
        let list = &self.available[class];
        let mut head = list.load(Ordering::Relaxed);
        loop {
            // SAFETY: the block is in use, and on no other list.
            unsafe { block.as_ref() }
                .next
                .store(head, Ordering::Relaxed);
            match list.compare_exchange_weak(
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

pub(super) struct Pool {
    /// By address.
    chunks: Vec<Chunk>,
    /// No chunk before this one has a free block.
    hint: usize,
    /// Mappings of their own, for objects of a chunk's size and more, by address.
    mappings: Vec<NonNull<Block>>,
    accounts: Vec<Account>,
    mapped: usize,
}

// SAFETY: the pointers are to memory that the pool owns.
unsafe impl Send for Pool {}
// SAFETY: what is not atomic changes under the pool's lock, or by the collector in its pause, only.
unsafe impl Sync for Pool {}

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
        while index >= self.accounts.len() {
            self.accounts.try_reserve(1).ok()?;
            self.accounts.push(Account::new()?);
        }
        self.accounts.get_mut(index)
    }

    /// The account of a program that has blocks.
    pub(super) fn opened(&self, program: u32) -> Option<&Account> {
        self.accounts.get(program as usize)
    }

    /// All accounts, by program.
    pub(super) fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    pub(super) fn mapped(&self) -> usize {
        self.mapped
    }

    /// Opens an account for a program that `parent` starts: its number, and what keeps that from being given to another. The number is one that no program has and nothing is charged to.
    pub(super) fn open(&mut self, parent: u32, limit: usize) -> Option<(u32, Arc<Outside>)> {
        let above = self.account(parent)?.outside.clone();
        let unused = self.accounts.iter().skip(1).position(|account| {
            Arc::strong_count(&account.outside) == 1 && account.bytes.load(Ordering::Relaxed) == 0
        });
        let number = match unused {
            Some(place) => place as u32 + 1,
            None => (self.accounts.len() as u32).max(1),
        };
        let account = self.account(number)?;
        account.outside = Arc::new(Outside::new(Some(above)));
        account.parent = Some(parent);
        account.limit = limit;
        Some((number, account.outside.clone()))
    }

    /// The account of a program, of that which started it, and so on.
    pub(super) fn chain(&self, program: u32) -> impl Iterator<Item = &Account> {
        core::iter::successors(self.opened(program), |account| self.opened(account.parent?))
    }

    /// Charges a program, and those that started it, for `bytes` if their limits allow.
    pub(super) fn charge(&mut self, program: u32, bytes: usize) -> bool {
        if self.account(program).is_none() || !self.has_room(program, bytes) {
            return false;
        }
        for account in self.chain(program) {
            account.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        true
    }

    fn has_room(&self, program: u32, bytes: usize) -> bool {
        self.chain(program).all(|account| account.has_room(bytes))
    }

    /// Charges a program for `bytes` outside the heap if its limit allows.
    pub(super) fn charge_outside(&mut self, program: u32, bytes: usize) -> Option<Charge> {
        let outside = self.account(program)?.outside.clone();
        self.has_room(program, bytes)
            .then(|| Charge::new(outside, bytes))
    }

    pub(super) fn discharge(&self, program: u32, bytes: usize) {
        for account in self.chain(program) {
            account.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// A block of the class with free cells, charged to the program already.
    pub(super) fn take_available(&mut self, program: u32, class: usize) -> Option<NonNull<Block>> {
        let list = self.accounts.get_mut(program as usize)?.available[class].get_mut();
        let block = NonNull::new(*list)?;
        // SAFETY: blocks on the list are in use.
        *list = unsafe { block.as_ref() }.next.load(Ordering::Relaxed);
        Some(block)
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
            header.swept.store(BLOCK_BYTES as u32, Ordering::Relaxed);
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
                let free = *chunk.free.get_mut();
                if free != 0 && first_with_any.is_none() {
                    first_with_any = Some(i);
                }
                // Bit b of `starts`: blocks b to b + count - 1 are free.
                let mut starts = free;
                for _ in 1..count {
                    starts &= starts >> 1;
                }
                if starts != 0 {
                    let at = starts.trailing_zeros() as usize;
                    let run = ((((1u32 << count) - 1) << at) & 0xffff) as u16;
                    let zeroed = chunk.used & run == 0;
                    *chunk.free.get_mut() &= !run;
                    *chunk.starts.get_mut() |= 1 << at;
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
                let number = start.addr().get() / CHUNK_BYTES;
                let at = self.chunks.partition_point(|c| c.number() < number);
                let new = (0..bytes / CHUNK_BYTES).map(|i| Chunk {
                    // SAFETY: chunk `i` lies in the mapping.
                    start: unsafe { start.add(i * CHUNK_BYTES) },
                    free: AtomicU16::new(0xffff),
                    starts: AtomicU16::new(0),
                    used: 0,
                });
                self.chunks.splice(at..at, new);
                self.hint = self.hint.min(at);
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
        let at = self.mappings.partition_point(|m| m.addr() < start.addr());
        self.mappings.insert(at, start.cast());
        self.mapped += bytes;
        Some((start, true, 1))
    }

    /// Takes a run of blocks back.
    ///
    /// # Safety
    /// `block` came from [`take`](Self::take), and nothing uses it any more.
    pub(super) unsafe fn give(&mut self, platform: &dyn Platform, block: NonNull<Block>) {
        // SAFETY: as the caller says.
        unsafe {
            if self.is_mapping(block) {
                let bytes = self.forget_mapping(block);
                platform.unmap(block.cast(), bytes);
            } else {
                let number = block.addr().get() / CHUNK_BYTES;
                let at = self.chunks.partition_point(|c| c.number() < number);
                self.hint = self.hint.min(at);
                self.give_blocks(block);
            }
        }
    }

    /// Whether a run in use has a mapping of its own.
    ///
    /// # Safety
    /// `block` begins a run in use.
    pub(super) unsafe fn is_mapping(&self, block: NonNull<Block>) -> bool {
        // SAFETY: the header of a block in use is initialised.
        unsafe { block.as_ref() }.mapping.load(Ordering::Relaxed) != 0
    }

    /// Takes a mapping of its own out of the accounts and lists, and gives its size. The caller unmaps it.
    ///
    /// # Safety
    /// As for [`give`](Self::give), and it [is a mapping](Self::is_mapping).
    pub(super) unsafe fn forget_mapping(&mut self, block: NonNull<Block>) -> usize {
        // SAFETY: the header of a block in use is initialised.
        let (program, bytes) = unsafe { size_of_run(block) };
        self.discharge(program, bytes);
        if let Ok(index) = self
            .mappings
            .binary_search_by_key(&block.addr(), |m| m.addr())
        {
            self.mappings.remove(index);
        }
        self.mapped -= bytes;
        bytes
    }

    /// Takes back a run of blocks within a chunk. For several cores at once in the pause; the caller resets the [hint](Self::reset_hint) at its end.
    ///
    /// # Safety
    /// As for [`give`](Self::give), and it is no [mapping](Self::is_mapping).
    pub(super) unsafe fn give_blocks(&self, block: NonNull<Block>) {
        // SAFETY: the header of a block in use is initialised.
        let (program, bytes) = unsafe { size_of_run(block) };
        self.discharge(program, bytes);
        if let Some(chunk) = self.chunk_of(block.addr().get()) {
            chunk.give(block.addr().get(), bytes);
        }
    }

    /// After blocks were given: they are looked for again.
    pub(super) fn reset_hint(&mut self) {
        self.hint = 0;
    }

    fn chunk_of(&self, address: usize) -> Option<&Chunk> {
        let number = address / CHUNK_BYTES;
        let at = self
            .chunks
            .binary_search_by_key(&number, Chunk::number)
            .ok()?;
        self.chunks.get(at)
    }

    /// The block, in use, in which an object at `address` would begin, if there is one.
    pub(super) fn block_at(&self, address: usize) -> Option<NonNull<Block>> {
        let start = address & !(BLOCK_BYTES - 1);
        if let Some(chunk) = self.chunk_of(address) {
            let at = address % CHUNK_BYTES / BLOCK_BYTES;
            let begins = chunk.starts.load(Ordering::Relaxed) & 1 << at != 0;
            // SAFETY: block `at` lies in the chunk.
            return begins.then(|| unsafe { chunk.start.add(at * BLOCK_BYTES).cast() });
        }
        let at = self
            .mappings
            .binary_search_by_key(&start, |m| m.addr().get())
            .ok()?;
        self.mappings.get(at).copied()
    }

    /// Number of places for [`each_at`](Self::each_at).
    pub(super) fn places(&self) -> usize {
        self.chunks.len() + self.mappings.len()
    }

    /// Calls `visit` with the header of every run of blocks in use in the chunk, or mapping, of number `place`.
    pub(super) fn each_at(&self, place: usize, visit: &mut dyn FnMut(NonNull<Block>)) {
        match self.chunks.get(place) {
            Some(chunk) => {
                let mut starts = chunk.starts.load(Ordering::Relaxed);
                while starts != 0 {
                    let at = starts.trailing_zeros() as usize;
                    starts &= starts - 1;
                    // SAFETY: block `at` lies in the chunk and begins a run in use, whose header is initialised.
                    visit(unsafe { chunk.start.add(at * BLOCK_BYTES).cast::<Block>() });
                }
            }
            None => {
                if let Some(&block) = self.mappings.get(place - self.chunks.len()) {
                    visit(block);
                }
            }
        }
    }

    /// Calls `visit` with the header of every run of blocks in use.
    pub(super) fn each(&self, visit: &mut dyn FnMut(NonNull<Block>)) {
        for place in 0..self.places() {
            self.each_at(place, visit);
        }
    }
}

/// Whom a run of blocks is charged to, and its bytes.
///
/// # Safety
/// `block` begins a run in use.
unsafe fn size_of_run(block: NonNull<Block>) -> (u32, usize) {
    // SAFETY: the header of a block in use is initialised.
    let header = unsafe { block.as_ref() };
    (header.program(), header.bytes.load(Ordering::Relaxed))
}
