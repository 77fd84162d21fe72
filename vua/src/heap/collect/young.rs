//! Young collections: those that look only at what is new.
//!
//! # Generations without moving
//! An object that a collection has come to keeps its mark, and is *old* from then on; one made since has none, and is *young*. A young collection lets the marks stay as they are
//! (a full one [exchanges](super::super::block::Colour) them): what bears the mark is alive without being looked into. It marks from the roots and from the old objects that
//! were stored into since the last collection, and surveys only the blocks that were filled since. In all others nothing has died, as far as it knows: old objects that nobody
//! refers to any more stay until the next full collection.
//!
//! # What it starts from
//! It must come to every young object that can be reached. A path from a root to one has a last object that is old, or none; so these are looked into, whether they bear the mark or not:
//!
//! | what | how it is found |
//! | --- | --- |
//! | roots of cores, of the heap and of the engine | as in every collection |
//! | tasks that have not ended, with their stacks; programs | in the blocks that have held some: each core has a list of those that began to hold some, which the collector takes over |
//! | old objects that references were stored into | each core's log |
//!
//! # The log
//! An object in which references are stored after it was made gets [`flags::LOG`](super::super::flags::LOG) whenever a marker has looked into it. Whoever is about to store a reference into an object with that bit
//! clears it, and if it was he who cleared it, puts the object on his core's log ([`barrier`](super::super::barrier)). The fast paths of stores find the header byte not to be what they
//! want, and so cost nothing more than they did.
//!
//! * *Every store is seen.* Between the look at the header byte and the store lies no safepoint, so no collection. If the bit was set, the object is on a log when the store is made; if it was clear,
//!   then either the object is young, and will be looked into if it is come to, or it is on a log, since only those who put it there clear the bit. Nobody takes it off but a
//!   collection, which looks into all of it, and sets the bit again.
//! * *Cores that store into the same object at once* clear the bit by a read-modify-write: one of them puts the object on its log, before its next safepoint. Others that find the bit clear store at once; both stores
//!   are made when the world has stopped, which acquires what every core did.
//! * *A store is one of a reference.* Numbers stored by instructions for typed memory need no note, and arrays and structs that hold no references do not get the bit.
//! * *The object that is noted is the one that owns the memory*: the table for its blocks, whichever of them a store goes to, the root for a view. So a table that is on a log is looked into with all its blocks.
//! * What is done to closures, prototypes, struct types and boxes is done before anyone else knows them, without a safepoint in between.
//! * *Stacks* are not noted: those of tasks that have not ended are looked into always. A task is noted when it ends, since its results then lie where no collection looks any more for its being alive. A coroutine
//!   holds a stack at rest, and is noted when it is given another or values for it; so are the coroutines between a parallel loop that is split and the running frame.
//! * Without memory for a log or a list the next collection is a full one.
//!
//! # Blocks
//! A core has a list of the blocks that it has taken since the last collection, fresh ones, those with free cells, and large objects; others get no new objects: a cell that is freed in one of
//! them is left to the sweeper. A block on the list may have been given back since, and taken again: one that is not in use any more, or has been looked at, is passed over.
//!
//! # When
//! A collection that is [due](super) is a young one unless what is alive has come to twice as much as after the last full one, or 4 MiB more. Allocations that fail, and `collectgarbage()`, want a full one.
//! A young collection that more than three quarters of what is new survive has marked what the next full one marks again, for little: after it the next one is that full one, when what is alive may have doubled.
//! Where young collections cost much for what is allocated between two, because the log holds large tables, or there are many tasks, the next one comes later.

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::block::{Block, TASKS, TOUCHED};
use super::super::pool::Pool;
use super::super::{Heap, Kind};
use super::{FLOOR, Marker, Mutators, sweep};

/// How much a collection is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Full,
    /// What is new, unless it is time to look at everything.
    Due,
    /// What is new.
    Young,
    /// For tests: as often as possible only what is new, with a [verification](super).
    Verified,
}

/// Of so many collections with [`Extent::Verified`] one is full.
const FULL_EVERY: u32 = 8;

/// Blocks that are surveyed as one place.
const BATCH: usize = 4;

/// About how many bytes of new objects a marker looks at for each word that it counts: a table of two is 80 bytes and 18 words.
const BYTES_PER_WORD: u64 = 4;

/// Young collections are to look at no more than one word of old objects and of roots for so many bytes that were taken since the last: so they cost less than half of
/// what marking as much would.
const BYTES_PER_OLD_WORD: u64 = 10;

/// When so much has survived a young collection, the next one comes after half of [`FLOOR`], so that it does not take longer than a millisecond though everything survives.
const SURVIVORS: usize = FLOOR / 4;

/// What the collector knows of generations.
pub(super) struct Generations {
    /// Whether the collection that goes on is young.
    young: AtomicBool,
    /// With so much alive a full one is due.
    full_at: AtomicUsize,
    /// So much may be allocated until the next one.
    budget: AtomicUsize,
    /// What is made survives: the next collection is a full one.
    growing: AtomicBool,
    /// What markers looked at in this one: see [`Marker::work`].
    work: AtomicUsize,
    blocks: UnsafeCell<Blocks>,
}

// SAFETY: `blocks` is written by the collector in its pause while no crew is there, and read by the crew.
unsafe impl Sync for Generations {}
// SAFETY: blocks are plain addresses.
unsafe impl Send for Generations {}

struct Blocks {
    /// Those that cores took since the last collection.
    touched: Vec<NonNull<Block>>,
    /// Those with tasks or programs, by address.
    tasks: Vec<NonNull<Block>>,
    /// Some of these are missing.
    tasks_lost: bool,
}

impl Generations {
    pub(super) const fn new() -> Generations {
        Generations {
            young: AtomicBool::new(false),
            full_at: AtomicUsize::new(0),
            budget: AtomicUsize::new(FLOOR),
            growing: AtomicBool::new(false),
            work: AtomicUsize::new(0),
            blocks: UnsafeCell::new(Blocks {
                touched: Vec::new(),
                tasks: Vec::new(),
                tasks_lost: false,
            }),
        }
    }

    /// Whether the collection that goes on is young.
    pub(super) fn is_young(&self) -> bool {
        self.young.load(Ordering::Relaxed)
    }

    /// # Safety
    /// In the pause, in the crew.
    unsafe fn blocks(&self) -> &Blocks {
        // SAFETY: not written meanwhile.
        unsafe { &*self.blocks.get() }
    }

    /// Adds what a marker looked at.
    pub(super) fn add_work(&self, work: u64) {
        self.work.fetch_add(work as usize, Ordering::Relaxed);
    }

    /// A collection has ended after which so much is alive, `before` it had been so much; gives how much may be allocated until the next one, `taken` being what was until this one.
    pub(super) fn ended(&self, before: usize, live: usize, taken: usize) -> usize {
        let work = self.work.swap(0, Ordering::Relaxed) as u64;
        let mut budget = self.budget.load(Ordering::Relaxed);
        let survived = live.saturating_sub(before);
        // What is not survivors' is that of old objects and roots.
        let old = work.saturating_sub(survived as u64 / BYTES_PER_WORD);
        if !self.is_young() {
            self.full_at
                .store((2 * live).max(live + FLOOR), Ordering::Relaxed);
        } else if old * BYTES_PER_OLD_WORD > taken as u64 {
            budget = (2 * budget).min(live / 4).max(FLOOR);
        } else if old * BYTES_PER_OLD_WORD * 4 < taken as u64 {
            budget = (budget / 2).max(FLOOR);
        }
        self.budget.store(budget, Ordering::Relaxed);
        let growing = self.is_young() && survived > taken / 4 * 3;
        self.growing.store(growing, Ordering::Relaxed);
        if growing {
            let full_at = self.full_at.load(Ordering::Relaxed);
            full_at.saturating_sub(live).max(FLOOR)
        } else if self.is_young() && budget == FLOOR && survived > SURVIVORS {
            FLOOR / 2
        } else {
            budget
        }
    }
}

impl Heap {
    /// Decides how much the collection that begins looks at, and takes over what cores have noted. Whether it is young.
    ///
    /// # Safety
    /// In the pause, by the collector, while no crew is there; cores have [given up](super::super::LocalHeap) what they hold.
    pub(super) unsafe fn begin_cycle(
        &self,
        mutators: &dyn Mutators,
        pool: &Pool,
        extent: Extent,
    ) -> bool {
        let generations = &self.collector.generations;
        let live = self.collector.census.live.load(Ordering::Relaxed);
        let cycle = self.collector.cycles.load(Ordering::Relaxed);
        let mut young = match extent {
            Extent::Full => false,
            Extent::Due => {
                live < generations.full_at.load(Ordering::Relaxed)
                    && !generations.growing.load(Ordering::Relaxed)
            }
            Extent::Young => true,
            Extent::Verified => !cycle.is_multiple_of(FULL_EVERY),
        };
        // SAFETY: in the pause nobody else uses these lists, says the caller.
        unsafe {
            let blocks = &mut *generations.blocks.get();
            blocks.touched.clear();
            let mut has_new = false;
            for cpu in 0..mutators.cpus() {
                let noted = mutators.local(cpu).noted();
                if noted.overflowed.replace(false)
                    || blocks.touched.try_reserve(noted.touched.len()).is_err()
                {
                    young = false;
                } else {
                    blocks.touched.extend_from_slice(noted.touched);
                }
                noted.touched.clear();
                blocks.tasks_lost |= noted.task_blocks_lost
                    || blocks.tasks.try_reserve(noted.task_blocks.len()).is_err();
                if !blocks.tasks_lost {
                    has_new |= !noted.task_blocks.is_empty();
                    blocks.tasks.extend_from_slice(noted.task_blocks);
                }
                noted.task_blocks.clear();
            }
            if has_new {
                blocks.tasks.sort_unstable();
                blocks.tasks.dedup();
            }
            blocks.tasks.retain(|&block| {
                pool.block_at(block.addr().get()) == Some(block)
                    && block.as_ref().notes.load(Ordering::Relaxed) & TASKS != 0
            });
            if !young {
                for cpu in 0..mutators.cpus() {
                    mutators.local(cpu).noted().log.clear();
                }
            }
        }
        generations.young.store(young, Ordering::Relaxed);
        young
    }

    /// In how many places the roots lie: each core's, the common ones, and blocks with tasks and programs.
    ///
    /// # Safety
    /// In the pause, in the crew.
    pub(super) unsafe fn root_places(&self, mutators: &dyn Mutators, pool: &Pool) -> usize {
        // SAFETY: as the caller says.
        let blocks = unsafe { self.collector.generations.blocks() };
        let tasks = if blocks.tasks_lost {
            pool.places()
        } else {
            blocks.tasks.len()
        };
        mutators.cpus() + 1 + tasks
    }

    /// Tells the marker the roots of one place, each once in a collection.
    ///
    /// # Safety
    /// In the pause, in the crew, the marker having [begun](Marker::begin).
    pub(super) unsafe fn mark_root(
        &self,
        mutators: &dyn Mutators,
        pool: &Pool,
        marker: &mut Marker<'_>,
        place: usize,
    ) {
        let cpus = mutators.cpus();
        // SAFETY: in the pause; places are taken once, so a core's log is used by one marker.
        unsafe {
            if place < cpus {
                let local = mutators.local(place);
                local.roots(&mut |object| marker.object(object));
                mutators.core_roots(place, marker);
                if marker.is_young() {
                    let log = local.noted().log;
                    for object in log.drain(..) {
                        marker.again(object);
                    }
                    log.shrink_to(LOG_KEPT);
                }
            } else if place == cpus {
                mutators.common_roots(marker);
                self.finalizers.lock().mark(marker);
            } else {
                let blocks = self.collector.generations.blocks();
                if blocks.tasks_lost {
                    pool.each_at(place - cpus - 1, &mut |block| {
                        if block.as_ref().notes.load(Ordering::Relaxed) & TASKS != 0 {
                            mark_tasks(mutators, block, marker);
                        }
                    });
                } else {
                    mark_tasks(mutators, blocks.tasks[place - cpus - 1], marker);
                }
            }
        }
    }

    /// Number of places of the survey.
    ///
    /// # Safety
    /// In the pause, in the crew.
    pub(super) unsafe fn survey_places(&self, pool: &Pool) -> usize {
        let generations = &self.collector.generations;
        if generations.is_young() {
            // SAFETY: as the caller says.
            unsafe { generations.blocks() }
                .touched
                .len()
                .div_ceil(BATCH)
        } else {
            pool.places()
        }
    }

    /// Calls `visit` with the blocks of one place of the survey.
    ///
    /// # Safety
    /// In the pause, in the crew; each place once.
    pub(super) unsafe fn each_surveyed(
        &self,
        pool: &Pool,
        place: usize,
        visit: &mut dyn FnMut(NonNull<Block>),
    ) {
        let generations = &self.collector.generations;
        if !generations.is_young() {
            return pool.each_at(place, visit);
        }
        // SAFETY: as the caller says; blocks in use have headers.
        unsafe {
            let touched = &generations.blocks().touched;
            let end = touched.len().min((place + 1) * BATCH);
            for &block in &touched[place * BATCH..end] {
                if pool.block_at(block.addr().get()) == Some(block)
                    && block.as_ref().notes.fetch_and(!TOUCHED, Ordering::Relaxed) & TOUCHED != 0
                {
                    visit(block);
                }
            }
        }
    }
}

/// A core's log keeps room for so many.
const LOG_KEPT: usize = 4096;

/// Marks the tasks in a block that live whoever refers to them; in a young collection looks into the old ones too, and into programs.
///
/// # Safety
/// In the pause.
unsafe fn mark_tasks(mutators: &dyn Mutators, block: NonNull<Block>, marker: &mut Marker<'_>) {
    // SAFETY: in the pause nobody allocates in the block.
    unsafe {
        Block::objects(block, &mut |object| {
            let kind = object.as_ref().kind();
            if !matches!(kind, Kind::Task | Kind::Program)
                || !sweep::is_object(block, object.addr().get())
            {
                return;
            }
            let is_root = kind == Kind::Task && mutators.is_live_task(object);
            if marker.is_young() && marker.is_marked(object) {
                if kind == Kind::Program || is_root || !mutators.has_ended(object) {
                    marker.again(object);
                }
            } else if is_root {
                marker.object(object);
            }
        });
    }
}
