//! The heap: one for all programs, filled by each core on its own, never moved.
//!
//! - [`Heap`] is the common part: the pool of blocks, the accounts of the programs, the interned constants.
//! - [`LocalHeap`] is a core's: allocation is an addition and a compare, without lock or atomic instruction.
//! - [`barrier`] and [`LocalHeap::publish`] are what stores must do before they store.
//! - [`collect`] frees what nobody can reach. A new kind of object tells it by a [mark hook](Heap::set_mark_hook), or a [trace hook](Heap::set_trace_hook), what it
//!   refers to, and by a [drop hook](Heap::set_drop_hook) what it owns outside the heap.
//!
//! # Invariants
//! - An object stays where it is until it is freed; the address of every object is below 2^47.
//! - Memory of small objects is handed out zeroed, so a cell without an object reads as [`Kind::Free`].
//! - Memory is taken back by the collector, or by [`LocalHeap::free`] where one owner can prove that nobody else knows it.
//! - No allocation panics or waits: what cannot be had is the error [`NeedMemory`], upon which an instruction that has
//!   had no effect yet collects at a safepoint and starts again.

pub mod barrier;
pub mod block;
pub mod collect;
mod header;
mod intern;
mod local;
mod outside;
mod pool;
mod publish;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use smp::platform::Platform;

pub use block::Block;
pub use collect::{COLLECT, MarkHook, Marker, Mutators};
pub use header::{Header, Kind, flags};
pub use local::LocalHeap;
pub(crate) use outside::Budget;
pub use outside::{Charge, Outside};
pub(crate) use publish::SLICE;
pub(crate) use publish::is_public;
pub use publish::{TraceHook, Visit};

use crate::value::Value;
use collect::{Collector, Finalizers};
use intern::Interned;
use pool::Pool;
use sync::lock::Lock;

/// Memory that an operation needs and did not get: the program is at its limit, or the machine has no more.
///
/// The operation has had no effect. After a collection it may succeed; if not, it is the error `not enough memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedMemory {
    /// About how many bytes were asked for.
    pub bytes: usize,
}

/// What all cores share of the heap. There is one for each engine, and it lives as long as the process or machine.
pub struct Heap {
    platform: &'static dyn Platform,
    pool: Lock<Pool>,
    interned: Lock<Interned>,
    /// Names of functions of the library, which live for good: programs come and go, and all have the same.
    names: Lock<Vec<&'static str>>,
    collector: Collector,
    finalizers: Lock<Finalizers>,
    /// Trace hooks by kind, as addresses of functions; null where there is none.
    hooks: [AtomicPtr<()>; Kind::COUNT],
    /// The string `__mode`, or nil.
    mode_name: AtomicU64,
    /// Mark hooks likewise.
    mark_hooks: [AtomicPtr<()>; Kind::COUNT],
    /// Drop hooks likewise.
    drop_hooks: [AtomicPtr<()>; Kind::COUNT],
}

/// Lets go of what an object owns outside the heap. The object is dead; it may refer to others that are. Called in the pause, by any core: it neither waits nor uses the heap.
pub type DropHook = unsafe fn(object: NonNull<Header>);

/// The seed of string hashes. One for the process, so that a string's hash needs no heap at hand; zero until the first heap is made.
static SEED: AtomicU64 = AtomicU64::new(0);

/// The seed of string hashes.
#[inline(always)]
pub(crate) fn seed() -> u64 {
    SEED.load(Ordering::Relaxed)
}

impl Heap {
    /// An empty heap on this platform. Takes the hash seed from [`Platform::entropy`] unless an earlier heap did.
    pub fn new(platform: &'static dyn Platform) -> Heap {
        // Whoever lost the race hashes with the winner's seed.
        let _ = SEED.compare_exchange(
            0,
            platform.entropy() | 1,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        Heap {
            platform,
            pool: Lock::new(Pool::new()),
            interned: Lock::new(Interned::new()),
            names: Lock::new(Vec::new()),
            collector: Collector::new(platform.cpus()),
            finalizers: Lock::new(Finalizers::new()),
            hooks: [const { AtomicPtr::new(core::ptr::null_mut()) }; Kind::COUNT],
            mode_name: AtomicU64::new(Value::NIL.to_bits()),
            mark_hooks: [const { AtomicPtr::new(core::ptr::null_mut()) }; Kind::COUNT],
            drop_hooks: [const { AtomicPtr::new(core::ptr::null_mut()) }; Kind::COUNT],
        }
    }

    /// What the heap runs on.
    pub fn platform(&self) -> &'static dyn Platform {
        self.platform
    }

    /// Says how to find what objects of `kind` refer to. Kinds that the heap knows itself need no hook, and objects of
    /// a kind without one refer to nothing. To be called before the first such object is made.
    pub fn set_trace_hook(&self, kind: Kind, hook: TraceHook) {
        self.hooks[kind as usize].store(hook as *mut (), Ordering::Release);
    }

    pub(crate) fn trace_hook(&self, kind: Kind) -> Option<TraceHook> {
        let hook = self.hooks[kind as usize].load(Ordering::Acquire);
        if hook.is_null() {
            return None;
        }
        // SAFETY: only `set_trace_hook` stores here, and what it stores was a `TraceHook`.
        Some(unsafe { core::mem::transmute::<*mut (), TraceHook>(hook) })
    }

    /// Says under which key, an interned string that lives for good, a metatable says what is weak.
    pub fn set_mode_name(&self, name: Value) {
        self.mode_name.store(name.to_bits(), Ordering::Relaxed);
    }

    fn mode_name(&self) -> Value {
        // SAFETY: nil, or the value that `set_mode_name` was given.
        unsafe { Value::from_bits(self.mode_name.load(Ordering::Relaxed)) }
    }

    /// Says how the collector finds what objects of `kind` refer to, where a [trace hook](Self::set_trace_hook) will not do: stacks, weak references. To be
    /// called before the first such object is made.
    pub fn set_mark_hook(&self, kind: Kind, hook: MarkHook) {
        self.mark_hooks[kind as usize].store(hook as *mut (), Ordering::Release);
    }

    fn mark_hook(&self, kind: Kind) -> Option<MarkHook> {
        let hook = self.mark_hooks[kind as usize].load(Ordering::Relaxed);
        if hook.is_null() {
            return None;
        }
        // SAFETY: only `set_mark_hook` stores here, and what it stores was a `MarkHook`.
        Some(unsafe { core::mem::transmute::<*mut (), MarkHook>(hook) })
    }

    /// Says what becomes of dead objects of `kind`, one that [has](Kind::has_drop) something to let go of. To be called before the first such object is made.
    pub fn set_drop_hook(&self, kind: Kind, hook: DropHook) {
        debug_assert!(kind.has_drop());
        self.drop_hooks[kind as usize].store(hook as *mut (), Ordering::Release);
    }

    fn drop_hook(&self, kind: Kind) -> Option<DropHook> {
        let hook = self.drop_hooks[kind as usize].load(Ordering::Relaxed);
        if hook.is_null() {
            return None;
        }
        // SAFETY: only `set_drop_hook` stores here, and what it stores was a `DropHook`.
        Some(unsafe { core::mem::transmute::<*mut (), DropHook>(hook) })
    }

    /// A run of blocks for a program: see [`Pool::take`].
    fn take(&self, program: u32, bytes: usize) -> Option<(NonNull<Block>, bool)> {
        let mut pool = self.pool.lock();
        let taken = pool.take(self.platform, program, bytes)?;
        if let Some(account) = pool.opened(program) {
            account.used.fetch_add(bytes, Ordering::Relaxed);
        }
        Some(taken)
    }

    /// A block of the class with free cells, and how many bytes those are.
    fn take_available(&self, program: u32, class: usize) -> Option<(NonNull<Block>, usize)> {
        let mut pool = self.pool.lock();
        let block = pool.take_available(program, class)?;
        // SAFETY: the header of a block in use is initialised.
        let free = unsafe { block.as_ref() }.free.load(Ordering::Relaxed) as usize;
        if let Some(account) = pool.opened(program) {
            account.used.fetch_add(free, Ordering::Relaxed);
        }
        Some((block, free))
    }

    /// Takes a run of blocks back.
    ///
    /// # Safety
    /// As for [`Pool::give`].
    unsafe fn give(&self, block: NonNull<Block>) {
        let mut pool = self.pool.lock();
        // SAFETY: as the caller says.
        unsafe {
            let (program, bytes) = (
                block.as_ref().program(),
                block.as_ref().bytes.load(Ordering::Relaxed),
            );
            if let Some(account) = pool.opened(program) {
                // A block that a collection counted for less has been given back by it, not here.
                let used = account.used.load(Ordering::Relaxed);
                account
                    .used
                    .store(used.saturating_sub(bytes), Ordering::Relaxed);
            }
            pool.give(self.platform, block);
        }
    }

    /// Bytes of a program's objects, dead ones since the last collection included.
    pub fn used_bytes(&self, program: u32) -> usize {
        self.pool
            .lock()
            .opened(program)
            .map_or(0, |account| account.used.load(Ordering::Relaxed))
    }

    /// The program gets no block that would bring it above `bytes`; `None` is no limit. What it has already stays.
    /// Program 0 is the system's own. Fails when there is no memory for the account.
    pub fn set_limit(&self, program: u32, bytes: Option<usize>) -> Result<(), NeedMemory> {
        match self.pool.lock().account(program) {
            Some(account) => {
                account.limit = bytes.unwrap_or(usize::MAX);
                Ok(())
            }
            None => Err(NeedMemory { bytes: 64 }),
        }
    }

    /// The most bytes that a program, and those that started it, may have; `None` if there is no limit.
    pub fn limit(&self, program: u32) -> Option<usize> {
        let pool = self.pool.lock();
        let limit = pool.chain(program).map(|account| account.limit).min()?;
        (limit != usize::MAX).then_some(limit)
    }

    /// Opens the account of a program that program `parent` starts: its number, which is its as long as somebody holds the second result. It and what it starts get
    /// no block that would bring them above `limit` together, or their parents above theirs.
    pub fn open_program(
        &self,
        parent: u32,
        limit: Option<usize>,
    ) -> Result<(u32, Arc<Outside>), NeedMemory> {
        let opened = self.pool.lock().open(parent, limit.unwrap_or(usize::MAX));
        let (program, outside) = opened.ok_or(NeedMemory { bytes: 64 })?;
        self.finalizers.lock().open(program)?;
        Ok((program, outside))
    }

    /// Charges a program for `bytes` outside the heap; `None` if its limit does not allow it.
    fn charge_outside(&self, program: u32, bytes: usize) -> Option<Charge> {
        self.pool.lock().charge_outside(program, bytes)
    }

    /// Bytes outside the heap that are charged to a program and to those that it started.
    pub fn outside_bytes(&self, program: u32) -> usize {
        self.pool
            .lock()
            .opened(program)
            .map_or(0, |account| account.outside.bytes())
    }

    /// Bytes of the blocks charged to a program and to those that it started, free parts of them included.
    pub fn program_bytes(&self, program: u32) -> usize {
        self.pool
            .lock()
            .account(program)
            .map_or(0, |account| account.bytes.load(Ordering::Relaxed))
    }

    /// Bytes that the heap has got from the platform.
    pub fn mapped_bytes(&self) -> usize {
        self.pool.lock().mapped()
    }

    /// Calls `visit` with every block in use; a run of several only with its first.
    ///
    /// # Safety
    /// In the collector's pause: no core takes or gives blocks meanwhile.
    pub unsafe fn blocks(&self, visit: &mut dyn FnMut(NonNull<Block>)) {
        self.pool.lock().each(visit);
    }

    /// A name that lives for good: name `place` of those that every library defines, in the same order.
    pub(crate) fn lasting(&self, place: usize, prefix: &str, name: &str) -> &'static str {
        let mut names = self.names.lock();
        if let Some(known) = names.get(place)
            && known.strip_prefix(prefix) == Some(name)
        {
            return known;
        }
        let full: &'static str = alloc::format!("{prefix}{name}").leak();
        if place == names.len() {
            names.push(full);
        }
        full
    }

    /// Calls `visit` with every interned string.
    pub fn interned(&self, visit: &mut dyn FnMut(Value)) {
        self.interned.lock().each(visit);
    }
}
