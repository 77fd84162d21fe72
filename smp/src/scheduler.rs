//! The work-stealing scheduler: which core runs which task next, and how cores that have none sleep.
//!
//! A task is whatever fits a word ([`Handle`]). Each core has a [`Worker`] with a deque of its own: it pushes and pops at the bottom, others
//! steal from the top. What comes from elsewhere (spawns from outside, wake-ups from interrupt handlers, tasks that yield) goes
//! into one queue, the injector, first in first out. A core without work *searches*: the injector, the core that it stole
//! from last, then all others from a random one on. When that fails it *sleeps*.
//!
//! # Sleeping and waking
//!
//! The difficult part is that a task must not lie in a queue while every core that could run it sleeps, that waking must not cost the cores that
//! work, and that a hundred cores are not woken for one task. The protocol is in the tradition of Go's and Tokio's schedulers (at most
//! one core is being woken, and it wakes the next) and of Rayon's sleep module (announce, look again, sleep).
//!
//! ## States of a core
//!
//! | state | meaning | counted in |
//! | --- | --- | --- |
//! | *busy* | runs a task, or the engine's own code | nothing |
//! | *searching* | looks for a task; or has been chosen to, and is waking up | `searching` |
//! | *asleep* | has announced that it sleeps, and not yet left; parked, outside for safepoints | `asleep`, and its bit in `sleepers` until it is chosen or leaves by itself |
//!
//! ## What is shared
//!
//! | word | holds | written by |
//! | --- | --- | --- |
//! | `counts` | how many cores are `asleep`, how many are `searching`, and how often one *rose* from its sleep | each core for itself; who chooses a sleeper adds it to `searching` |
//! | `sleepers` | a bit for each core that may be chosen | set by its core; cleared by its core, or by who chooses it: whoever clears it has it |
//! | `keeper` | 1 + the core whose sleep ends at the earliest timer, or 0 | that core |
//!
//! ## The steps
//!
//! *Sleep* (core S): (S0) go outside, with a full fence, and queue the tasks whose handshake that completes; (S1) set the own bit in `sleepers`; (S2) in one
//! step leave `searching` and enter `asleep`; (S3) a full fence, then set [`HUNGRY`] in the poll word of every running core, and a full fence; (S5) look at every queue,
//! at the own poll word and at `closed`; (S6) if there was nothing, park; (S7) run again; clear the own bit; in one step leave `asleep`, count the rise, and, if
//! the bit was still there, enter `searching`; else who cleared it has counted S already.
//!
//! *Wake* (anyone, after a full fence): if nobody is asleep or somebody is searching, nothing. Otherwise (W1) swap `searching` from 0 to 1, which
//! only one core can do; (W2) take a bit from `sleepers` and unpark its core. If there is no bit to take (all sleepers are on their
//! way out), (W3) take the 1 back, a full fence, and start again if there are both a sleeper and work.
//!
//! *Spawn* (core P): (P1) push, without a fence; (P2) read `counts`, relaxed; if somebody is asleep, a full fence, and *wake*. *Inject*: push, a full fence,
//! *wake*.
//!
//! *A search succeeds* (core X): (X1) leave `searching`; if X was the last, and some are asleep: (X2) a full fence; (X3) if any queue has work, or there are timers
//! without a keeper, *wake*; otherwise set `HUNGRY` for itself and for the core it stole from, so that the two split what they run.
//!
//! *A running core finds `HUNGRY`* ([`Worker::share`]): it has cleared the bit, with a full fence; if its deque is not empty, *wake*. Otherwise it tells its caller
//! to split, and the push of what was split is a spawn.
//!
//! ## Why no wake-up is lost
//!
//! * **Push against sleep, when P sees nobody asleep (P2).** P has no fence, so its push may become visible after S5 although P2 came before S2.
//!   Then S has set `HUNGRY` (S3), or found it set. If P clears it after the push, it comes to *share* with the push in its deque, and wakes. If P had cleared it before the
//!   push, it fenced then, so P2 sees S2. P reaches a safepoint soon, because it runs; and if it goes outside instead,
//!   [`Worker::enter_outside`] fences and looks as *share* does. A core that S found outside (S3) fences when it comes back, so its later P2 sees S2.
//! * **Push against sleep, when P sees somebody asleep.** P fences between push and *wake*, S between S1, S2 and S5: either S5 sees the push, or *wake*
//!   sees S asleep.
//! * **Wake finds somebody searching and does nothing.** That core X leaves `searching` later. If it goes to sleep, S2 comes after what P read, so S5 sees the
//!   push. If it found a task (X1), it fences and looks at all queues (X3), and sees the push; if it was not the last, the
//!   same holds for the one that remains.
//! * **Wake finds somebody *choosing* and does nothing,** and the chooser finds no bit (W3). After its fence it looks again, like X3. If there
//!   is no sleeper then, every core is awake, and comes to S5 after that.
//! * **The chosen core is late.** It was counted in `searching` when it was chosen, and stays so until it has searched.
//! * **A core that wakes by itself** (deadline, spurious token) clears its bit (S7). If it was chosen at the same moment, the bit is gone; it searches in
//!   both cases, and the surplus token makes its next park return early.
//!
//! ## Timers
//!
//! One sleeper keeps them: after S5 it swaps `keeper` from 0, fences, and parks no longer than the earliest deadline. Others park until they are chosen. Who adds a
//! timer that is now the earliest fences and reads `keeper`: it unparks that core, which computes its deadline anew, or, if there is none, *wakes*: the
//! core that is woken becomes the keeper when it sleeps again. A keeper that finds a task has left `keeper` before, and at X3 sees timers without a keeper.
//! While no core sleeps there is no keeper: searches look at the clock, and so should the engine's heartbeat ([`Worker::fire_timers`]). Every core that begins a task while there
//! are timers ([`Scheduler::has_timers`]) must have one, and so must a core that adds a timer: the last keeper may have left its sleep for a task that never ends.
//!
//! ## Waiting for a handshake
//!
//! [`Worker::after_handshake`] puts a task aside until every core has passed a safepoint. Whoever answers a handshake or goes outside looks, after the
//! full fence that it has there, whether tasks wait, and injects those whose handshake is complete; who puts a task aside fences and looks too. Of
//! two cores that answer last at the same moment, the one whose fence is later sees both answers. A core that comes back from outside, or from a stop,
//! answers, and so looks as well: while it comes back it seems not to have passed, and whoever answered last at that moment found the handshake incomplete.
//!
//! ## Quiet: nothing can happen any more
//!
//! A program whose tasks all wait for each other is told so when the machine is *quiet* ([`Rest::Quiet`]): every core is asleep, and there is no queued task, no
//! timer, no handshake that a task waits for, nothing in a poll word that a sleeping core would see to. No one of these looks is worth anything if a core rises between two of
//! them: it may have taken the only timer, and run a task that has not queued anything yet. So the core that looks, itself counted asleep, reads `counts` before and after
//! all other looks, and the machine is quiet only if both show every core asleep, none searching, and the same number of rises. Whatever makes a task ready is done by a
//! core that is not asleep, hence before the first reading, where the looks see it (each is an acquire of what the doer released, and the doer's entering `asleep` is released to
//! the first reading); or after a rise that is counted before its core does anything else. In particular nobody queues tasks while counted asleep: what a core's going outside
//! completes is queued in S0. What remains are devices: their interrupts set poll bits, or count what they did, and the engine asks again.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use core::marker::PhantomData;
use core::num::NonZeroUsize;
use core::sync::atomic::AtomicBool as PlainBool;
use sync::CachePadded;
use sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, full_fence, spin_loop};
use sync::bit_set::BitSet;
use sync::deque::{Deque, Steal};
use sync::injector::Injector;
use sync::lock::Lock;

use crate::platform::{Cpu, Platform};
use crate::safepoint::{Control, Epoch, HUNGRY, RUNNING_ONLY, Safepoints, set};
use crate::stats::CoreStats;
use crate::timers::{TimerKey, Timers};

/// One core in `counts`' field `asleep`.
const ASLEEP: u64 = 1;
/// One core in `counts`' field `searching`.
const SEARCHING: u64 = 1 << 16;
/// One rise in `counts`' field `rises`, which wraps.
const RISE: u64 = 1 << 32;
/// The most cores that `counts` has room for.
const MAX_CPUS: usize = 0xfffe;

/// After this many tasks a core looks at the injector before its own deque, so that a core that always has work of its own
/// does not starve it. Go and Tokio use 61: a prime, so that it does not fall in step with a program's own periods.
const INJECTOR_INTERVAL: u32 = 61;

/// How often a search goes round all cores before it gives up. Between rounds it pauses, longer each time, up to a few microseconds in all: the
/// time in which a core that was just told that another is hungry reaches a safepoint, and less than what parking and waking cost.
const ROUNDS: u32 = if cfg!(loom) { 1 } else { 4 };
/// Pauses before the second round; each of about 40 to 140 cycles on x86 (Intel Optimization Reference Manual, PAUSE).
const FIRST_PAUSE: u32 = 8;

/// A task, as far as the scheduler knows: something that a word stands for.
pub trait Handle: Send + Sized {
    /// Gives the handle up for a word.
    fn into_raw(self) -> NonZeroUsize;

    /// The handle that `word` stands for.
    ///
    /// # Safety
    /// `word` came from [`into_raw`](Self::into_raw) of this type, and is turned back once.
    unsafe fn from_raw(word: NonZeroUsize) -> Self;

    /// Whether a handle that waited for a time is to be queued now that it has come; false if it was woken otherwise, upon which the timer's word is
    /// forgotten. Decides between a time limit and whatever else ends a wait. Called under the timers' lock: short, and without effect on the scheduler.
    fn is_due(&self) -> bool {
        true
    }
}

impl Handle for NonZeroUsize {
    fn into_raw(self) -> NonZeroUsize {
        self
    }

    unsafe fn from_raw(word: NonZeroUsize) -> Self {
        word
    }
}

impl<T: Send> Handle for Box<T> {
    fn into_raw(self) -> NonZeroUsize {
        let address = Box::into_raw(self).expose_provenance();
        NonZeroUsize::new(address).expect("a box is never at address 0")
    }

    unsafe fn from_raw(word: NonZeroUsize) -> Self {
        let pointer = core::ptr::with_exposed_provenance_mut(word.get());
        // SAFETY: the caller promises that it is a box's, turned back once.
        unsafe { Box::from_raw(pointer) }
    }
}

/// What [`Worker::find`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Find<T> {
    /// The task to run next.
    Task(T),
    /// Nothing anywhere; the core is still counted as searching, and must soon search again or [`Worker::idle`].
    Empty,
    /// The scheduler was closed.
    Closed,
}

/// What a core that [falls asleep](Worker::fall_asleep) is to do before it rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Rest {
    /// [`Worker::park`], until this moment if there is one.
    Until(Option<u64>),
    /// Nothing: there is work, or something else for the core to do.
    Awake,
    /// Nothing: only a device could make a task appear.
    Quiet,
}

/// What only one core writes, and others look at.
struct Core {
    deque: Deque,
    stats: CoreStats,
    /// Whether there is a [`Worker`] for it.
    taken: PlainBool,
}

/// A scheduler for the tasks of one engine. See the [module](self).
pub struct Scheduler<T: Handle> {
    platform: &'static dyn Platform,
    safepoints: Safepoints,
    cores: Box<[CachePadded<Core>]>,
    injector: Injector,
    timers: Timers,
    counts: CachePadded<AtomicU64>,
    sleepers: BitSet,
    keeper: CachePadded<AtomicUsize>,
    closed: AtomicBool,
    /// Tasks that wait for handshakes, and their number for those who only want to know whether there are any.
    waiting: Lock<Vec<(Epoch, NonZeroUsize)>>,
    waiting_count: AtomicUsize,
    seed: u64,
    tasks: PhantomData<fn(T) -> T>,
}

fn asleep(counts: u64) -> u64 {
    counts & (SEARCHING - 1)
}

fn searching(counts: u64) -> u64 {
    (counts & (RISE - 1)) / SEARCHING
}

impl<T: Handle> Scheduler<T> {
    /// A scheduler over one control for each core, in the order of their numbers. `seed` decides in which order cores look at each
    /// other; nothing else is random.
    ///
    /// # Panics
    /// If there is no control, or more than 65,534.
    pub fn new(
        platform: &'static dyn Platform,
        controls: Box<[&'static Control]>,
        seed: u64,
    ) -> Self {
        let cpus = controls.len();
        assert!((1..=MAX_CPUS).contains(&cpus), "{cpus} cores");
        let core = |_| {
            CachePadded::new(Core {
                deque: if cfg!(loom) {
                    Deque::with_capacity(4)
                } else {
                    Deque::new()
                },
                stats: CoreStats::default(),
                taken: PlainBool::new(false),
            })
        };
        Self {
            platform,
            safepoints: Safepoints::new(platform, controls),
            cores: (0..cpus).map(core).collect(),
            injector: Injector::new(),
            timers: Timers::new(),
            counts: CachePadded::new(AtomicU64::new(0)),
            sleepers: BitSet::new(cpus),
            keeper: CachePadded::new(AtomicUsize::new(0)),
            closed: AtomicBool::new(false),
            waiting: Lock::new(Vec::new()),
            waiting_count: AtomicUsize::new(0),
            seed,
            tasks: PhantomData,
        }
    }

    /// How many cores there are.
    pub fn cpus(&self) -> usize {
        self.cores.len()
    }

    /// The safepoints of the same cores.
    pub fn safepoints(&self) -> &Safepoints {
        &self.safepoints
    }

    /// The safepoints, to be set up before any core works.
    pub fn safepoints_mut(&mut self) -> &mut Safepoints {
        &mut self.safepoints
    }

    /// Core `cpu`'s counters.
    pub fn stats(&self, cpu: Cpu) -> &CoreStats {
        &self.cores[cpu].stats
    }

    /// Makes the calling thread of execution core `cpu`, which is running from here on, until the worker is dropped. Waits, parked, while the world is
    /// stopped.
    ///
    /// # Panics
    /// If core `cpu` has a worker already.
    pub fn worker(&self, cpu: Cpu) -> Worker<'_, T> {
        let core = &self.cores[cpu];
        let taken = core.taken.swap(true, Ordering::Acquire);
        assert!(!taken, "core {cpu} has a worker already");
        self.safepoints.leave_outside(cpu);
        self.release_waiting();
        Worker {
            scheduler: self,
            core,
            cpu,
            searching: Cell::new(false),
            keeps: Cell::new(false),
            tick: Cell::new(0),
            // Odd, and different for each core: xorshift must not start from 0.
            random: Cell::new(
                (self.seed ^ (cpu as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            ),
            last_victim: Cell::new(cpu),
        }
    }

    /// Queues a task, first in first out, from any context; wakes a core for it if all are asleep or busy. Never waits. Allocates only when more
    /// tasks are queued than ever before, so it is not for interrupt handlers. A release.
    pub fn inject(&self, task: T) {
        self.injector.push(task.into_raw());
        full_fence();
        self.wake(None);
        self.announce_injected();
    }

    /// Where no core is asleep, a running one is told by [`HUNGRY`] that a task is queued: it may run a task that never ends, and is then to give
    /// way at a heartbeat, which it has no reason to ask for otherwise.
    fn announce_injected(&self) {
        if asleep(self.counts.load(Ordering::Relaxed)) == 0 {
            let runs = (0..self.cpus()).find(|&cpu| !self.safepoints.is_outside(cpu));
            set(self.safepoints.control(runs.unwrap_or(0)), HUNGRY);
        }
    }

    /// Whether tasks are queued that no core has taken yet: a core that runs a task for long should give way.
    pub fn has_injected(&self) -> bool {
        !self.injector.is_empty()
    }

    /// Whether anything waits for a time. While no core sleeps, heartbeats have to look at the clock for it ([`Worker::fire_timers`]).
    pub fn has_timers(&self) -> bool {
        self.timers.earliest().is_some()
    }

    /// Queues `task` when `deadline` (in the platform's nanoseconds) has come; soon after it, when a core next looks at the clock. Takes a lock: not for
    /// interrupt handlers.
    pub fn inject_at(&self, deadline: u64, task: T) -> TimerKey {
        let (key, first) = self.timers.add(deadline, task.into_raw());
        if first {
            full_fence();
            match self.keeper.load(Ordering::Relaxed).checked_sub(1) {
                Some(cpu) => self.platform.unpark(cpu),
                None => self.wake(None),
            }
        }
        key
    }

    /// Takes back a task of [`inject_at`](Self::inject_at) before its time; `None` if that had come, and the task was queued or
    /// [did not care](Handle::is_due). When it returns, nobody is about to ask the task. Takes a lock.
    pub fn cancel_timer(&self, key: TimerKey) -> Option<T> {
        let word = self.timers.cancel(key)?;
        // SAFETY: the timers had the word from `into_raw`, and gave it to nobody else.
        Some(unsafe { T::from_raw(word) })
    }

    /// Whether a core looks for work or sleeps: latent parallelism is worth splitting. One relaxed load of a word that changes only when cores
    /// run out of work; never wrong for long.
    #[inline]
    pub fn is_hungry(&self) -> bool {
        self.counts.load(Ordering::Relaxed) & (RISE - 1) != 0
    }

    /// Makes every worker's [`find`](Worker::find) say [`Find::Closed`] from now on, and wakes all that sleep. Tasks still queued are dropped with the
    /// scheduler. Lock-free.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        full_fence();
        for cpu in 0..self.cpus() {
            self.platform.unpark(cpu);
        }
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether any queue was seen to hold a task. Who must not miss one has fenced.
    fn has_work(&self) -> bool {
        !self.injector.is_empty() || self.cores.iter().any(|core| !core.deque.is_empty())
    }

    /// Chooses a sleeper to search, if there is one and nobody searches. The caller has fenced since it made work visible.
    fn wake(&self, stats: Option<&CoreStats>) {
        loop {
            let counts = self.counts.load(Ordering::Relaxed);
            if asleep(counts) == 0 || searching(counts) != 0 {
                return;
            }
            let chosen = counts + SEARCHING;
            if self
                .counts
                .compare_exchange(counts, chosen, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            if let Some(cpu) = self.sleepers.take(0) {
                self.platform.unpark(cpu);
                if let Some(stats) = stats {
                    stats.wake_ups.add(1);
                }
                return;
            }
            self.counts.fetch_sub(SEARCHING, Ordering::AcqRel);
            full_fence();
            if self.sleepers.is_empty() || !self.has_work() {
                return;
            }
        }
    }

    /// Injects the tasks whose handshake is complete. The caller has fenced since it answered.
    fn release_waiting(&self) {
        if self.waiting_count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        let before = waiting.len();
        waiting.retain(|&(epoch, word)| {
            let complete = self.safepoints.is_complete(epoch);
            if complete {
                // Queued before the count says that nobody waits: in between a task would be nowhere.
                self.injector.push(word);
            }
            !complete
        });
        let released = before - waiting.len();
        self.waiting_count.store(waiting.len(), Ordering::Release);
        drop(waiting);
        if released > 0 {
            full_fence();
            self.wake(None);
        }
    }
}

impl<T: Handle> Drop for Scheduler<T> {
    /// Drops the tasks that are left.
    fn drop(&mut self) {
        let mut left = Vec::new();
        left.extend(core::iter::from_fn(|| self.injector.pop()));
        left.extend(core::iter::from_fn(|| {
            self.timers.take_ready(u64::MAX, |_| true)
        }));
        left.extend(self.waiting.lock().drain(..).map(|(_, word)| word));
        for core in &self.cores {
            // SAFETY: workers borrow the scheduler, so there are none any more.
            left.extend(core::iter::from_fn(|| unsafe { core.deque.pop() }));
        }
        for word in left {
            // SAFETY: it came from `into_raw`, and was taken out of its queue just now.
            drop(unsafe { T::from_raw(word) });
        }
    }
}

/// A core's place in the [`Scheduler`]: what that core alone may do. The core is running until the worker is dropped, except within
/// [`idle`](Self::idle) and between [`enter_outside`](Self::enter_outside) and [`leave_outside`](Self::leave_outside).
///
/// It can go to another thread, but not be used by two.
pub struct Worker<'s, T: Handle> {
    scheduler: &'s Scheduler<T>,
    core: &'s Core,
    cpu: Cpu,
    /// Whether this core is counted in `searching`.
    searching: Cell<bool>,
    /// Whether this core, asleep, keeps the timers.
    keeps: Cell<bool>,
    tick: Cell<u32>,
    random: Cell<u64>,
    /// The core that the last steal came from.
    last_victim: Cell<Cpu>,
}

impl<'s, T: Handle> Worker<'s, T> {
    /// The core's number.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// The scheduler that it belongs to.
    pub fn scheduler(&self) -> &'s Scheduler<T> {
        self.scheduler
    }

    /// The core's counters.
    pub fn stats(&self) -> &'s CoreStats {
        &self.core.stats
    }

    /// Makes `task` the next that [`pop`](Self::pop) gives, unless another core steals it; wakes a core for it if some are asleep and none is
    /// searching. Two stores, a count and a load when all cores are busy. A release. The caller passes a safepoint soon, as every running core
    /// does, or the wake-up may be late by as much.
    #[inline]
    pub fn spawn(&self, task: T) {
        // SAFETY: there is one worker for a core, and it is used by one thread at a time.
        unsafe { self.core.deque.push(task.into_raw()) };
        self.core.stats.spawns.add(1);
        if asleep(self.scheduler.counts.load(Ordering::Relaxed)) != 0 {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        full_fence();
        self.scheduler.wake(Some(&self.core.stats));
    }

    /// The task spawned last on this core, unless it was stolen.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        // SAFETY: as in `spawn`.
        let word = unsafe { self.core.deque.pop() }?;
        self.core.stats.tasks.add(1);
        // SAFETY: it came from `into_raw` in `spawn`, and is taken out once.
        Some(unsafe { T::from_raw(word) })
    }

    /// Takes `task` if it is the one spawned last on this core and was not stolen: whether it was taken.
    #[inline]
    pub fn pop_if(&self, task: T) -> bool
    where
        T: Copy,
    {
        // SAFETY: as in `spawn`.
        let taken = unsafe { self.core.deque.pop_if(task.into_raw()) };
        if taken {
            self.core.stats.tasks.add(1);
        }
        taken
    }

    /// Whether this core's own deque holds nothing. Exact, but for what others steal meanwhile.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.core.deque.is_empty()
    }

    /// The task to run next: from the own deque, from the injector, or stolen. Looks around for a few microseconds at most. After [`Find::Empty`] the
    /// core still counts as searching, so that nobody is woken in its place: it must search again or [`idle`](Self::idle) soon.
    pub fn find(&self) -> Find<T> {
        if self.scheduler.is_closed() {
            return Find::Closed;
        }
        let tick = self.tick.get().wrapping_add(1);
        self.tick.set(tick);
        let interval = tick.is_multiple_of(INJECTOR_INTERVAL);
        if interval {
            self.fire_timers();
        }
        let word = interval
            .then(|| self.pop_injector())
            .flatten()
            // SAFETY: as in `spawn`.
            .or_else(|| unsafe { self.core.deque.pop() })
            .or_else(|| {
                self.fire_timers();
                self.search()
            });
        let Some(word) = word else {
            return Find::Empty;
        };
        if self.searching.get() {
            self.stop_searching();
        }
        self.core.stats.tasks.add(1);
        // SAFETY: only words from `into_raw` are in the queues, and each comes out once.
        Find::Task(unsafe { T::from_raw(word) })
    }

    fn pop_injector(&self) -> Option<NonZeroUsize> {
        let word = self.scheduler.injector.pop()?;
        self.core.stats.injected.add(1);
        Some(word)
    }

    /// Queues the tasks whose deadline is past. Searches do it; the engine does it at its heartbeat, when cores may be busy for long. One
    /// load when there are no timers.
    pub fn fire_timers(&self) {
        let timers = &self.scheduler.timers;
        if timers.earliest().is_none() {
            return;
        }
        let now = self.scheduler.platform.now();
        let due = |word| {
            // SAFETY: the word came from `into_raw`; the handle goes back, and nothing else is made of it meanwhile.
            let task = core::mem::ManuallyDrop::new(unsafe { T::from_raw(word) });
            task.is_due()
        };
        while let Some(word) = timers.take_ready(now, due) {
            self.scheduler.injector.push(word);
            self.wake();
        }
    }

    fn search(&self) -> Option<NonZeroUsize> {
        let scheduler = self.scheduler;
        if !self.searching.replace(true) {
            scheduler.counts.fetch_add(SEARCHING, Ordering::AcqRel);
        }
        for round in 0..ROUNDS {
            if round > 0 {
                if scheduler.cpus() == 1 {
                    break;
                }
                for _ in 0..FIRST_PAUSE << round {
                    spin_loop();
                }
            }
            if let Some(word) = self.pop_injector().or_else(|| self.steal()) {
                return Some(word);
            }
            if round == 0 {
                full_fence();
                self.announce_hunger();
            }
        }
        None
    }

    /// Tells the running cores that one looks for work in vain. The caller has fenced.
    fn announce_hunger(&self) {
        let safepoints = &self.scheduler.safepoints;
        for other in 0..safepoints.cpus() {
            if other != self.cpu && safepoints.is_running(other) {
                set(safepoints.control(other), HUNGRY);
            }
        }
    }

    /// Tries the core stolen from last, then every other one, from a random one on.
    fn steal(&self) -> Option<NonZeroUsize> {
        let cpus = self.scheduler.cpus();
        let start = self.random_below(cpus);
        let all = (start..cpus).chain(0..start);
        for victim in core::iter::once(self.last_victim.get()).chain(all) {
            let deque = &self.scheduler.cores[victim].deque;
            if victim == self.cpu || deque.is_empty() {
                continue;
            }
            if let Steal::Success(word) = deque.steal() {
                self.core.stats.steals.add(1);
                self.last_victim.set(victim);
                return Some(word);
            }
        }
        self.core.stats.failed_steals.add(1);
        None
    }

    /// A number below `limit`, by xorshift64 (G. Marsaglia, "Xorshift RNGs", 2003) and a multiplication (D. Lemire, 2019).
    fn random_below(&self, limit: usize) -> usize {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (((x >> 32) * limit as u64) >> 32) as usize
    }

    /// The search has found something: wakes the next core if there is more.
    fn stop_searching(&self) {
        let scheduler = self.scheduler;
        self.searching.set(false);
        let before = scheduler.counts.fetch_sub(SEARCHING, Ordering::AcqRel);
        if searching(before) != 1 || asleep(before) == 0 {
            return;
        }
        full_fence();
        let unkept =
            scheduler.timers.earliest().is_some() && scheduler.keeper.load(Ordering::Relaxed) == 0;
        if unkept || scheduler.has_work() {
            scheduler.wake(Some(&self.core.stats));
        } else {
            for cpu in [self.cpu, self.last_victim.get()] {
                set(scheduler.safepoints.control(cpu), HUNGRY);
            }
        }
    }

    /// To be called at a safepoint, after [`HUNGRY`] was [taken](Safepoints::take): gives away what is in the deque, by waking a core for it. Says whether the
    /// core should split latent parallelism instead, and [`spawn`](Self::spawn) it.
    pub fn share(&self) -> bool {
        if self.is_empty() {
            return self.scheduler.is_hungry();
        }
        self.wake();
        false
    }

    /// The calling core has nothing to do: sleeps, outside, until a task appears that nobody else is looking for, `deadline` (in the platform's nanoseconds) is
    /// past, a poll bit that is not [`RUNNING_ONLY`] is set, or the scheduler is closed. May return early for no reason. Then the core is
    /// searching, and must [`find`](Self::find) or sleep again soon. Holds no references meanwhile; waits on return while the world is stopped.
    ///
    /// The caller takes such poll bits before, or this returns at once.
    pub fn idle(&self, deadline: Option<u64>) {
        self.sleep(deadline, false);
    }

    /// As [`idle`](Self::idle), but does not sleep and returns true if nothing is left that could make a task appear except devices: every core
    /// is asleep but this one, all queues are empty, and there are neither timers nor tasks that wait for a handshake. If several cores go to sleep at the same time,
    /// at least the last is told.
    #[must_use]
    pub fn idle_unless_quiet(&self, deadline: Option<u64>) -> bool {
        self.sleep(deadline, true)
    }

    fn sleep(&self, deadline: Option<u64>, unless_quiet: bool) -> bool {
        let rest = self.fall_asleep(deadline, unless_quiet);
        if let Rest::Until(limit) = rest {
            self.park(limit);
        }
        self.rise();
        rest == Rest::Quiet
    }

    /// The first half of [`idle`](Self::idle), or of [`idle_unless_quiet`](Self::idle_unless_quiet) if `unless_quiet`: announces that the core sleeps, and looks
    /// whether it may. Whatever it says, [`rise`](Self::rise) must follow, and nothing else of this core's in between but what the result asks
    /// for. In two halves because a driver that runs several cores on one thread does other cores' work between them.
    pub fn fall_asleep(&self, deadline: Option<u64>, unless_quiet: bool) -> Rest {
        let scheduler = self.scheduler;
        scheduler.safepoints.enter_outside(self.cpu);
        scheduler.release_waiting();
        scheduler.sleepers.insert(self.cpu);
        let searching = if self.searching.replace(false) {
            SEARCHING
        } else {
            0
        };
        scheduler
            .counts
            .fetch_add(ASLEEP.wrapping_sub(searching), Ordering::AcqRel);
        full_fence();
        self.announce_hunger();
        full_fence();

        let control = scheduler.safepoints.control(self.cpu);
        let wanted = control.poll.load(Ordering::Acquire) & !RUNNING_ONLY != 0;
        if wanted || scheduler.is_closed() || scheduler.has_work() {
            return Rest::Awake;
        }
        if unless_quiet && self.all_is_quiet() {
            return Rest::Quiet;
        }
        // Until the deadline, or until the earliest timer if no other core keeps the timers.
        let keeps = scheduler
            .keeper
            .compare_exchange(0, self.cpu + 1, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        self.keeps.set(keeps);
        full_fence();
        let timer = scheduler.timers.earliest().filter(|_| keeps);
        Rest::Until([deadline, timer].into_iter().flatten().min())
    }

    /// What [`Rest::Until`] asks for: parks until the limit, or until the core is woken. May return early for no reason.
    pub fn park(&self, limit: Option<u64>) {
        let platform = self.scheduler.platform;
        let start = platform.now();
        if limit.is_none_or(|limit| start < limit) {
            platform.park(self.cpu, limit);
            self.core.stats.parks.add(1);
            let end = platform.now();
            self.core.stats.parked_ns.add(end.saturating_sub(start));
        }
    }

    /// The second half of [`idle`](Self::idle): the core runs, and is searching. Waits, parked, while the world is stopped.
    pub fn rise(&self) {
        let scheduler = self.scheduler;
        if self.keeps.replace(false) {
            scheduler.keeper.store(0, Ordering::Release);
            full_fence();
        }
        scheduler.safepoints.leave_outside(self.cpu);
        let change = if scheduler.sleepers.remove(self.cpu) {
            SEARCHING.wrapping_sub(ASLEEP)
        } else {
            0_u64.wrapping_sub(ASLEEP)
        };
        scheduler
            .counts
            .fetch_add(change.wrapping_add(RISE), Ordering::AcqRel);
        self.searching.set(true);
        full_fence();
        scheduler.release_waiting();
    }

    /// Whether only a device can make a task appear. The caller has announced its own sleep, fenced, and seen no work. See the [module](self).
    fn all_is_quiet(&self) -> bool {
        let scheduler = self.scheduler;
        let safepoints = &scheduler.safepoints;
        let counts = scheduler.counts.load(Ordering::Acquire);
        if counts & (RISE - 1) != ASLEEP * scheduler.cpus() as u64 {
            return false;
        }
        let nothing = (0..safepoints.cpus()).all(|cpu| {
            let poll = safepoints.control(cpu).poll.load(Ordering::Acquire);
            safepoints.is_outside(cpu) && poll & !RUNNING_ONLY == 0
        }) && scheduler.timers.earliest().is_none()
            && scheduler.waiting_count.load(Ordering::Acquire) == 0
            && !scheduler.has_work();
        full_fence();
        nothing && scheduler.counts.load(Ordering::Acquire) == counts
    }

    /// The core is at a safepoint and holds nothing derived: answers all handshakes requested so far, and queues the tasks that only waited for this.
    pub fn acknowledge(&self) {
        self.scheduler.safepoints.acknowledge(self.cpu);
        self.core.stats.handshakes.add(1);
        self.scheduler.release_waiting();
    }

    /// Puts `task` aside until every core has passed a safepoint from now on, or was outside; then it is queued. For a task that must not go on before
    /// nobody can be in the middle of what it ends. The calling core answers at its next safepoint like any other.
    pub fn after_handshake(&self, task: T) {
        let scheduler = self.scheduler;
        let word = task.into_raw();
        let epoch = scheduler.safepoints.request();
        {
            let mut waiting = scheduler.waiting.lock();
            waiting.push((epoch, word));
            scheduler
                .waiting_count
                .store(waiting.len(), Ordering::Release);
        }
        full_fence();
        scheduler.release_waiting();
    }

    /// The core holds no references until [`leave_outside`](Self::leave_outside): it compiles, or drives a device. Gives away what is in its deque, as far as cores are asleep.
    pub fn enter_outside(&self) {
        self.scheduler.safepoints.enter_outside(self.cpu);
        if !self.is_empty() {
            self.scheduler.wake(Some(&self.core.stats));
        }
        self.scheduler.release_waiting();
    }

    /// The core runs again. Waits, parked, while the world is stopped.
    pub fn leave_outside(&self) {
        self.scheduler.safepoints.leave_outside(self.cpu);
        self.scheduler.release_waiting();
    }

    /// The core is at a safepoint, and the world is being stopped: waits, parked, until it is resumed. Answers all handshakes, and queues the tasks that only
    /// waited for this.
    pub fn stop_hold(&self) {
        self.scheduler.safepoints.stop_hold(self.cpu);
        self.scheduler.release_waiting();
    }
}

impl<T: Handle> Drop for Worker<'_, T> {
    /// The core is outside from here on. What is in its deque can still be stolen.
    fn drop(&mut self) {
        if self.searching.get() {
            self.stop_searching();
        }
        self.enter_outside();
        self.core.taken.store(false, Ordering::Release);
    }
}
