//! The collector: stops the world, marks what is reachable with all cores, and leaves the rest to be swept.
//!
//! | file | what |
//! | --- | --- |
//! | this one | when a collection is due, its phases, who takes part |
//! | [`mark`] | marking |
//! | [`finalize`] | objects with finalizers |
//! | [`weak`] | weak tables |
//! | [`sweep`] | what becomes of blocks after it |
//!
//! # When
//! Cores count what they take to fill: blocks, free cells of blocks, large objects. When that comes to as much as the last
//! collection found alive, and at least [`FLOOR`], the core that notices sets [`COLLECT`] in its own poll word, and collects at its next safepoint. An
//! allocation that fails collects too.
//!
//! # Phases
//! The core that collects has stopped the world (see [`smp::safepoint`]) and opens the *crew*. Cores that wait for the end of the stop, woken for this, join it
//! and help; others simply do not come. In each phase the crew shares out places by a counter of that phase:
//!
//! | phase | work |
//! | --- | --- |
//! | [`MARK`] | each core's roots, common roots, tasks in each chunk; then marking until nothing is left |
//! | [`SURVEY`] | each chunk of the pool: counting, clearing of former marks, freeing of empty blocks, listing of those with free cells |
//! | [`END`] | the crew is closed |
//!
//! `crew` is [`OPEN`] and the number of helpers. A helper enters by a compare-and-swap while `OPEN` is set, and leaves after it has seen [`END`]; the collector
//! closes, and waits until the number is 0, before the world goes on. So nobody touches the heap on the collector's behalf outside the pause. A phase's counters are
//! reset while no crew is there. The collector goes to the next phase when all places of the last are *done*, not only taken.

mod finalize;
mod mark;
mod statistics;
pub(super) mod sweep;
mod weak;

#[cfg(test)]
mod tests;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use smp::platform::Platform;
use smp::safepoint::ENGINE;

pub(super) use finalize::Finalizers;
pub use mark::{MarkHook, Marker};
pub use statistics::{Histogram, Statistics};

use super::block::{Block, Colour, TASKS};
use super::pool::Pool;
use super::{Header, Heap, Kind, LocalHeap};
use mark::Shared;
use sweep::Census;
use sync::lock::Lock;

/// Poll bit: collect at the next safepoint.
pub const COLLECT: u32 = ENGINE;

/// So much is allocated at least between two collections: what the second-level caches of common processors hold, so that a program with little alive
/// stays in them; a collection of nothing costs some tens of microseconds, a hundredth of what filling this takes.
const FLOOR: usize = 4 << 20;

/// With less than this alive, waking others costs more than they help.
const HELP_FROM: usize = 1 << 20;

/// How often in a row an allocation that is made to fail makes later ones of the same place succeed: two thousand times the usual number is enough for
/// what the longest step makes.
const MOST_RELENTING: u32 = 12;

const CLOSED: usize = 0;
const MARK: usize = 1;
const SURVEY: usize = 2;
const END: usize = 3;

/// In `crew`: helpers may enter.
const OPEN: usize = 1 << 63;

/// What the collector asks of the engine. All but [`cpus`](Self::cpus) are called in the pause.
pub trait Mutators: Sync {
    /// How many cores there are.
    fn cpus(&self) -> usize;

    /// A core's part of the heap.
    ///
    /// # Safety
    /// In the pause, or by the core itself.
    unsafe fn local(&self, cpu: usize) -> &LocalHeap;

    /// The world is stopped and nothing has been done yet: to drop what refers to the heap without keeping it alive, and would not survive.
    ///
    /// # Safety
    /// In the pause.
    unsafe fn stopped(&self);

    /// Tells the marker what a core holds, the stack of the task that it runs included.
    ///
    /// # Safety
    /// In the pause.
    unsafe fn core_roots(&self, cpu: usize, marker: &mut Marker<'_>);

    /// Tells the marker what the engine itself holds.
    ///
    /// # Safety
    /// In the pause.
    unsafe fn common_roots(&self, marker: &mut Marker<'_>);

    /// All that lives is marked: to forget what is known of dead objects elsewhere. `lives` says of an object that there was when the collection began whether it does.
    ///
    /// # Safety
    /// In the pause.
    unsafe fn marked(&self, lives: &dyn Fn(NonNull<Header>) -> bool) {
        let _ = lives;
    }

    /// Whether a task has not ended, so that it lives whoever refers to it.
    ///
    /// # Safety
    /// In the pause; the object is a task.
    unsafe fn is_live_task(&self, task: NonNull<Header>) -> bool;
}

/// The collector's part of the [`Heap`].
pub(super) struct Collector {
    /// Bytes taken since the last collection, and how many are allowed.
    since: AtomicUsize,
    budget: AtomicUsize,
    /// For tests: allocations fail when this, a counter, comes to 0; see [`Heap::fail_allocations`].
    failing: AtomicUsize,
    fail_every: AtomicUsize,
    random: AtomicUsize,
    /// Where the last one that was made to fail was, and how many times in a row.
    failed_at: AtomicUsize,
    failed_times: AtomicU32,

    crew: AtomicUsize,
    phase: AtomicUsize,
    taken: [AtomicUsize; END],
    /// Places of the survey that are done.
    surveyed: AtomicUsize,
    /// The mark that objects get in this collection, or got in the last one.
    colour: AtomicBool,
    /// Valid while the crew is open.
    pool: AtomicPtr<Pool>,
    census: Census,
    shared: Shared,
    /// How many collections there have been.
    cycles: AtomicU32,
    statistics: Lock<Statistics>,
}

impl Collector {
    pub(super) fn new(cpus: usize) -> Collector {
        Collector {
            since: AtomicUsize::new(0),
            budget: AtomicUsize::new(FLOOR),
            failing: AtomicUsize::new(0),
            fail_every: AtomicUsize::new(0),
            random: AtomicUsize::new(1),
            failed_at: AtomicUsize::new(0),
            failed_times: AtomicU32::new(0),
            crew: AtomicUsize::new(0),
            phase: AtomicUsize::new(CLOSED),
            taken: [const { AtomicUsize::new(0) }; END],
            surveyed: AtomicUsize::new(0),
            colour: AtomicBool::new(false),
            pool: AtomicPtr::new(core::ptr::null_mut()),
            census: Census::new(),
            shared: Shared::new(cpus),
            cycles: AtomicU32::new(0),
            statistics: Lock::new(Statistics::new(cpus)),
        }
    }

    /// Counts bytes that a core took to fill; whether a collection is due.
    #[inline]
    pub(super) fn count(&self, bytes: usize) -> bool {
        let since = self.since.fetch_add(bytes, Ordering::Relaxed) + bytes;
        since >= self.budget.load(Ordering::Relaxed)
    }

    /// Whether allocations are being made to fail.
    #[inline(always)]
    pub(super) fn is_failing(&self) -> bool {
        self.fail_every.load(Ordering::Relaxed) != 0
    }

    /// Whether this allocation is to fail.
    #[inline(always)]
    pub(super) fn fails(&self) -> bool {
        self.is_failing() && self.next_fails()
    }

    #[cold]
    fn next_fails(&self) -> bool {
        if self.failing.fetch_sub(1, Ordering::Relaxed) != 1 {
            return false;
        }
        // A linear congruential generator (Knuth, MMIX): any sequence will do that does not fall in step with the program.
        let random = self
            .random
            .load(Ordering::Relaxed)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random.store(random, Ordering::Relaxed);
        let every = self.fail_every.load(Ordering::Relaxed).max(1);
        self.failing
            .store(2 + (random >> 33) % (2 * every), Ordering::Relaxed);
        true
    }

    /// Takes a place of the phase, if one is left of `count`.
    fn take(&self, phase: usize, count: usize) -> Option<usize> {
        let place = self.taken[phase].fetch_add(1, Ordering::AcqRel);
        (place < count).then_some(place)
    }

    /// The mark that objects get in the collection that is going on.
    fn colour(&self) -> Colour {
        if self.colour.load(Ordering::Relaxed) {
            Colour::FIRST
        } else {
            Colour::FIRST.next()
        }
    }

    /// Enters the crew, if it is open.
    fn enter(&self) -> bool {
        let mut crew = self.crew.load(Ordering::Acquire);
        while crew & OPEN != 0 {
            match self.crew.compare_exchange_weak(
                crew,
                crew + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(found) => crew = found,
            }
        }
        false
    }
}

/// Waits a little, longer each time, but no core that others wait for.
fn relax(rounds: u32) {
    for _ in 0..1 << rounds.min(6) {
        core::hint::spin_loop();
    }
}

impl Heap {
    /// The work of the survey, whoever does it.
    ///
    /// # Safety
    /// In the pause, in the crew, all marks set.
    unsafe fn survey(&self, pool: &Pool) {
        let collector = &self.collector;
        while let Some(place) = collector.take(SURVEY, pool.places()) {
            // SAFETY: in the pause; each place is taken once.
            unsafe { sweep::survey(self, pool, place, collector.colour(), &collector.census) };
            collector.surveyed.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Tells the marker the roots that are left.
    ///
    /// # Safety
    /// In the pause, in the crew, the marker having [begun](Marker::begin).
    unsafe fn mark_roots(&self, mutators: &dyn Mutators, pool: &Pool, marker: &mut Marker<'_>) {
        let cpus = mutators.cpus();
        while let Some(place) = self.collector.take(MARK, cpus + 1 + pool.places()) {
            // SAFETY: in the pause.
            unsafe {
                if place < cpus {
                    mutators
                        .local(place)
                        .roots(&mut |object| marker.object(object));
                    mutators.core_roots(place, marker);
                } else if place == cpus {
                    mutators.common_roots(marker);
                    self.finalizers.lock().mark(marker);
                } else {
                    pool.each_at(place - cpus - 1, &mut |block| {
                        if block.as_ref().notes.load(Ordering::Relaxed) & TASKS == 0 {
                            return;
                        }
                        Block::objects(block, &mut |object| {
                            if object.as_ref().kind() == Kind::Task
                                && sweep::is_object(block, object.addr().get())
                                && mutators.is_live_task(object)
                            {
                                marker.object(object);
                            }
                        });
                    });
                }
            }
        }
    }

    /// Helps with the collection that is going on, if there is one; returns when there is nothing to help with. For cores that wait
    /// for the end of a stop.
    pub fn help(&self, mutators: &dyn Mutators, cpu: usize) {
        let collector = &self.collector;
        if !collector.enter() {
            return;
        }
        // SAFETY: in the crew, so the pause lasts and the collector keeps the pool locked and in place.
        unsafe {
            let pool = &*collector.pool.load(Ordering::Acquire);
            let mut past = CLOSED;
            let mut rounds = 0;
            loop {
                let phase = collector.phase.load(Ordering::Acquire);
                if phase == past {
                    relax(rounds);
                    rounds += 1;
                    continue;
                }
                past = phase;
                rounds = 0;
                match phase {
                    SURVEY => self.survey(pool),
                    MARK => {
                        let mut marker =
                            Marker::new(self, pool, &collector.shared, collector.colour());
                        marker.begin();
                        self.mark_roots(mutators, pool, &mut marker);
                        marker.run(
                            &mut || collector.phase.load(Ordering::Acquire) != MARK,
                            &mut relax,
                        );
                        collector.statistics.lock().add_traced(cpu, marker.traced);
                    }
                    _ => break,
                }
            }
        }
        collector.crew.fetch_sub(1, Ordering::AcqRel);
    }

    /// Collects: marks what is reachable, frees the rest. `cpu` is the core that stopped the world, `asked` when it began to, in the platform's time.
    ///
    /// What has to wait until the others run again is in the result: the caller [finishes](Finish::finish) it after it resumed them.
    ///
    /// # Safety
    /// The world is stopped, and stays so until this returns.
    pub unsafe fn collect(
        &'static self,
        mutators: &dyn Mutators,
        cpu: usize,
        asked: u64,
    ) -> Finish {
        let collector = &self.collector;
        let platform = self.platform;
        let stopped = platform.now();
        // SAFETY: in the pause.
        unsafe {
            mutators.stopped();
            for cpu in 0..mutators.cpus() {
                mutators.local(cpu).abandon();
            }
        }
        let mut guard = self.pool.lock();
        for account in guard.accounts() {
            account.used.store(0, Ordering::Relaxed);
            for list in &account.available {
                list.store(core::ptr::null_mut(), Ordering::Relaxed);
            }
        }
        for phase in 0..END {
            collector.taken[phase].store(0, Ordering::Relaxed);
        }
        collector.surveyed.store(0, Ordering::Relaxed);
        collector.colour.fetch_not(Ordering::Relaxed);
        let before = collector.census.live.swap(0, Ordering::Relaxed);
        collector.phase.store(CLOSED, Ordering::Relaxed);
        collector.pool.store(&mut *guard, Ordering::Release);
        // SAFETY: the guard keeps the pool locked; from here to the closing of the crew it is only read, but for its atomics.
        let pool = unsafe { &*collector.pool.load(Ordering::Relaxed) };
        collector.crew.fetch_or(OPEN, Ordering::AcqRel);
        if before >= HELP_FROM {
            for other in 0..mutators.cpus() {
                if other != cpu {
                    platform.unpark(other);
                }
            }
        }
        // SAFETY: in the pause, by the collector.
        unsafe {
            let mut marker = Marker::new(self, pool, &collector.shared, collector.colour());
            marker.begin();
            collector.phase.store(MARK, Ordering::Release);
            self.mark_roots(mutators, pool, &mut marker);
            marker.finish(&mut relax);
            marker.finish_ephemerons(&mut relax);
            marker.clear_weak_values();
            marker.begin();
            if self.finalizers.lock().separate(&mut marker) {
                marker.finish(&mut relax);
                marker.finish_ephemerons(&mut relax);
            } else {
                marker.rest();
            }
            marker.finish_weak();
            collector.statistics.lock().add_traced(cpu, marker.traced);
            self.interned
                .lock()
                .retain(&mut |object| marker.is_marked(object));
            mutators.marked(&|object| marker.is_marked(object));
            drop(marker);
            collector.phase.store(SURVEY, Ordering::Release);
            self.survey(pool);
        }
        let mut rounds = 0;
        while collector.surveyed.load(Ordering::Acquire) < pool.places() {
            relax(rounds);
            rounds += 1;
        }
        collector.phase.store(END, Ordering::Release);
        collector.crew.fetch_and(!OPEN, Ordering::AcqRel);
        let mut rounds = 0;
        while collector.crew.load(Ordering::Acquire) != 0 {
            relax(rounds);
            rounds += 1;
        }
        guard.reset_hint();
        let mut dead = Finish {
            heap: self,
            mappings: core::ptr::null_mut(),
        };
        let mut list = collector
            .census
            .dead_mappings
            .swap(core::ptr::null_mut(), Ordering::Acquire);
        while let Some(block) = NonNull::new(list) {
            // SAFETY: the block is a dead mapping, which nobody can reach.
            unsafe {
                list = block.as_ref().next.load(Ordering::Relaxed);
                guard.forget_mapping(block);
                block.as_ref().next.store(dead.mappings, Ordering::Relaxed);
            }
            dead.mappings = block.as_ptr();
        }
        drop(guard);
        let live = collector.census.live.load(Ordering::Relaxed);
        let taken = collector.since.swap(0, Ordering::Relaxed);
        collector.budget.store(live.max(FLOOR), Ordering::Relaxed);
        collector.cycles.fetch_add(1, Ordering::Release);
        collector.statistics.lock().add_collection(
            stopped - asked,
            platform.now() - stopped,
            live,
            taken,
        );
        collector.shared.trim(mutators.cpus().max(16));
        dead
    }

    /// How many collections there have been.
    pub fn collections(&self) -> u32 {
        self.collector.cycles.load(Ordering::Acquire)
    }

    /// How many bytes cores have taken to fill since the last one.
    pub(crate) fn taken_since(&self) -> usize {
        self.collector.since.load(Ordering::Relaxed)
    }

    /// How many bytes cores have taken to fill, ever.
    pub fn allocated_bytes(&self) -> usize {
        let before = self.collector.statistics.lock().allocated();
        before + self.taken_since()
    }

    /// Whether a collection is due.
    pub fn is_collection_due(&self) -> bool {
        self.collector.count(0)
    }

    /// Figures about the collections so far.
    pub fn statistics(&self) -> Statistics {
        self.collector.statistics.lock().clone()
    }

    /// For tests: lets allocation number `first` fail, and after it one in `every` on the average, at random. An allocation that fails is made again
    /// after a collection, so a program must do the same as ever. `every` 0: none fail.
    pub fn fail_allocations(&self, first: usize, every: usize) {
        self.collector
            .failing
            .store(first.max(1), Ordering::Relaxed);
        self.collector.fail_every.store(every, Ordering::Relaxed);
    }

    /// For tests: an allocation at `place` was [made to fail](Self::fail_allocations). What makes many objects in one step begins with the first of them
    /// again, and would hardly ever come to its end: so each time in a row that the same place fails, twice as many allocations succeed before the next fails.
    pub(crate) fn relent(&self, place: usize) {
        let collector = &self.collector;
        let again = collector.failed_at.swap(place, Ordering::Relaxed) == place;
        // And from the beginning, so that a long loop goes on failing.
        let times = if again {
            (collector.failed_times.load(Ordering::Relaxed) + 1) % MOST_RELENTING
        } else {
            0
        };
        collector.failed_times.store(times, Ordering::Relaxed);
        if times == 0 {
            return;
        }
        let more = collector.fail_every.load(Ordering::Relaxed) << times;
        collector.failing.fetch_add(more, Ordering::Relaxed);
    }
}

/// What is left to do of a collection when the world goes on.
#[must_use]
pub struct Finish {
    heap: &'static Heap,
    mappings: *mut Block,
}

impl Finish {
    /// Gives the memory of dead large objects back to the platform.
    pub fn finish(self) {
        let platform: &dyn Platform = self.heap.platform;
        let mut list = self.mappings;
        while let Some(block) = NonNull::new(list) {
            // SAFETY: the mapping is on this list alone, and unused.
            unsafe {
                list = block.as_ref().next.load(Ordering::Relaxed);
                let bytes = block.as_ref().bytes.load(Ordering::Relaxed);
                platform.unmap(block.cast(), bytes);
            }
        }
    }
}
