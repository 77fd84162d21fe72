//! Data races: pairs of accesses of one place, one of them a write, that nothing orders (`docs/races.md`).
//!
//! | file | what |
//! | --- | --- |
//! | this one | what orders a program's accesses |
//! | [`clock`] | vector clocks |
//! | [`shadow`] | who has accessed a place |
//! | [`report`] | tracebacks, and how a race is told |
//! | [`watch`] | which places natives access |
//!
//! The method is FastTrack's (C. Flanagan, S. N. Freund, "FastTrack: Efficient and Precise Dynamic Race Detection", PLDI 2009): each access is noted with its *strand*, a stretch of
//! the program whose accesses are in one order, and that strand's time; a later access of the place is ordered behind it if its own strand's clock has come to that time.
//! What makes something known to others is followed through all that the language orders memory by.
//!
//! A program that is watched runs with its cores [in turns](crate::turns) on one thread, so nothing here needs a lock; and which core does what, and when, makes no
//! difference to what is ordered. Cores have a table of handlers of their own ([`racing`](crate::interp::racing)), so those that are not watched pay nothing.
//!
//! # Strands
//! A task is a strand. Each iteration of a parallel loop is one too, which begins with what was known where the loop begins, though a thousand of them may have run in one piece: a loop whose
//! iterations race is told however it was cut. The loop's end knows all of them. That is not written into a clock, where it would be an entry for each iteration, but into the
//! loop: what an iteration did is known where the end of its loop is ([`Races::is_before`]).
//!
//! # One strand
//! Where all others have been waited for, everything so far comes before everything later. Then all is forgotten, and nothing noted until there are two again.

mod clock;
pub(crate) mod report;
mod shadow;
pub(crate) mod watch;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

pub(crate) use shadow::{Keys, Slot};

use crate::number::Number;
use clock::{Known, Strand, Time};
use report::Traces;
use shadow::{Access, Shadow};

/// What is used to make something known to others: an object, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// Those that read while others do.
    Readers,
    /// One of its keys.
    Of(Slot),
}

/// The tasks of one loop's iterations, or one task.
struct Group {
    /// The number of the task, or of that with the loop.
    task: u32,
    /// Since when, by the strand that goes on after the loop, all of it is known.
    joined: Option<(Strand, Time)>,
    /// What iterations that have ended had come to know.
    learned: Known,
}

/// Where a strand belongs.
struct Origin {
    group: u32,
    /// Which iteration it is.
    index: Option<Number>,
}

/// What a strand knows, and where it is.
#[derive(Clone)]
struct Clock {
    strand: Strand,
    time: Time,
    known: Known,
}

/// A loop of which a task runs iterations.
struct Loop {
    /// The coroutine that it is in, and where in its stack the body's frame begins.
    coroutine: usize,
    frame: usize,
    group: u32,
    start: Known,
    /// What goes on after the loop; none in a piece that was split off.
    outer: Option<Clock>,
}

/// A task that has not ended.
struct Running {
    number: u32,
    clock: Clock,
    /// Innermost last.
    loops: Vec<Loop>,
    /// The loop that it is a piece of, and what was known where that begins.
    piece: Option<(u32, Known)>,
}

/// A task that has ended.
struct Ended {
    known: Known,
    is_joined: bool,
}

/// What is known of an object that orders accesses.
#[derive(Default)]
struct Sync {
    known: Known,
    /// Of a queue: what was known by who pushed each value that is in it, and who popped those whose places are free.
    pushed: VecDeque<Known>,
    popped: VecDeque<Known>,
    /// Of a queue: places that nobody has used yet.
    unused: Option<usize>,
    /// Of a scope: tasks that have ended and were not waited for.
    ended: usize,
    /// Of a barrier: what those know that have arrived.
    arriving: Known,
}

/// A race: what an access met that is not ordered with it.
pub(crate) struct Met {
    pub(crate) wrote: bool,
    pub(crate) trace: u32,
    /// Who accessed it first, and who does now.
    pub(crate) first: Who,
    pub(crate) second: Who,
}

/// Who accessed something: a task, or one iteration of its loop.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub(crate) task: u32,
    pub(crate) index: Option<Number>,
}

/// See the module.
pub(crate) struct Races {
    /// What natives access, by address.
    natives: Vec<(usize, watch::Touch)>,
    state: RefCell<State>,
    pub(crate) traces: RefCell<Traces>,
    /// Whether there is more than one strand.
    concurrent: Cell<bool>,
}

#[derive(Default)]
struct State {
    now: Time,
    groups: Vec<Group>,
    origins: Vec<Origin>,
    tasks: BTreeMap<usize, Running>,
    ended: BTreeMap<usize, Ended>,
    syncs: BTreeMap<(usize, Part), Sync>,
    shadow: Shadow,
    /// How many tasks there have been.
    numbered: u32,
    /// Tasks that were spawned and not waited for.
    apart: usize,
    /// Loops that have not ended.
    open: usize,
    /// Tasks that have not ended.
    living: usize,
    /// The moment of the last collection: whatever was done before it comes before all finalizers of what it found dead.
    collected: Time,
}

impl State {
    fn tick(&mut self) -> Time {
        self.now += 1;
        self.now
    }

    fn group(&mut self, task: u32) -> u32 {
        self.groups.push(Group {
            task,
            joined: None,
            learned: Known::default(),
        });
        self.groups.len() as u32 - 1
    }

    fn clock(&mut self, group: u32, index: Option<Number>, known: Known) -> Clock {
        self.origins.push(Origin { group, index });
        Clock {
            strand: self.origins.len() as Strand - 1,
            time: self.tick(),
            known,
        }
    }

    fn add_task(&mut self, task: usize, known: Known) {
        self.numbered += 1;
        let group = self.group(self.numbered);
        let running = Running {
            number: self.numbered,
            clock: self.clock(group, None, known),
            loops: Vec::new(),
            piece: None,
        };
        self.living += 1;
        self.tasks.insert(task, running);
        // Who joins the task that was at this address before does so by a handle, which keeps that alive: there is none.
        self.ended.remove(&task);
    }

    /// What the task has done so far, for others to know: what it does from now on is something else.
    fn release(&mut self, task: usize) -> Known {
        let time = self.tick();
        let Some(running) = self.tasks.get_mut(&task) else {
            return Known::default();
        };
        let mut known = running.clock.known.clone();
        known.tree.raise(running.clock.strand, running.clock.time);
        running.clock.time = time;
        known
    }

    fn acquire(&mut self, task: usize, known: &Known) {
        if let Some(running) = self.tasks.get_mut(&task) {
            running.clock.known.join(known);
        }
    }

    /// Whether what a strand did at a moment is known: as part of what is, or because the loop that it is an iteration of has ended where that is known.
    fn is_before(&self, clock: &Clock, mut strand: Strand, mut time: Time) -> bool {
        loop {
            if time <= clock.known.horizon
                || strand == clock.strand
                || clock.known.tree.get(strand) >= time
            {
                return true;
            }
            let group = self.origins[strand as usize].group;
            match self.groups[group as usize].joined {
                Some(end) => (strand, time) = end,
                None => return false,
            }
        }
    }

    fn who(&self, strand: Strand) -> Who {
        let origin = &self.origins[strand as usize];
        Who {
            task: self.groups[origin.group as usize].task,
            index: origin.index,
        }
    }

    /// What the strand that is running had come to know goes to the end of its loop.
    fn end_iteration(&mut self, task: usize) {
        let Some(running) = self.tasks.get(&task) else {
            return;
        };
        if let Some(innermost) = running.loops.last()
            && !running.clock.known.is_same(&innermost.start)
        {
            self.groups[innermost.group as usize]
                .learned
                .join(&running.clock.known);
        }
    }

    /// The innermost loop of a task, of which all iterations have ended or will never begin, ends.
    fn end_loop(&mut self, task: usize) {
        self.end_iteration(task);
        let time = self.tick();
        let Some(running) = self.tasks.get_mut(&task) else {
            return;
        };
        let Some(ended) = running.loops.pop() else {
            return;
        };
        let Some(mut outer) = ended.outer else { return };
        let group = &mut self.groups[ended.group as usize];
        outer.time = time;
        outer.known.join(&group.learned);
        group.learned = Known::default();
        group.joined = Some((outer.strand, time));
        running.clock = outer;
        self.open -= 1;
    }

    /// Forgets everything, if the task is the only one.
    fn settle(&mut self, task: usize) -> bool {
        if self.apart != 0 || self.open != 0 {
            return true;
        }
        self.shadow.clear();
        self.groups.clear();
        self.origins.clear();
        self.ended.clear();
        self.syncs.retain(|_, sync| {
            for known in sync.pushed.iter_mut().chain(&mut sync.popped) {
                *known = Known::default();
            }
            sync.known = Known::default();
            sync.unused.is_some()
        });
        let Some(number) = self.tasks.get(&task).map(|running| running.number) else {
            return false;
        };
        let group = self.group(number);
        let known = Known {
            horizon: self.tick(),
            ..Known::default()
        };
        let clock = self.clock(group, None, known);
        if let Some(running) = self.tasks.get_mut(&task) {
            running.clock = clock;
        }
        false
    }
}

impl Races {
    pub(crate) fn new() -> Races {
        Races {
            natives: watch::all(),
            state: RefCell::default(),
            traces: RefCell::default(),
            concurrent: Cell::new(false),
        }
    }

    /// What a native accesses.
    pub(crate) fn touch(&self, native: usize) -> Option<watch::Touch> {
        let found = self
            .natives
            .binary_search_by_key(&native, |(address, _)| *address);
        found.ok().map(|i| self.natives[i].1)
    }

    /// Whether accesses are to be noted.
    #[inline]
    pub(crate) fn is_concurrent(&self) -> bool {
        self.concurrent.get()
    }

    fn settle(&self, task: usize) {
        let concurrent = self.state.borrow_mut().settle(task);
        self.concurrent.set(concurrent);
    }

    /// A core goes on with a task.
    pub(crate) fn resumed(&self, task: usize, is_finalizer: bool) {
        let mut state = self.state.borrow_mut();
        if !state.tasks.contains_key(&task) {
            state.add_task(task, Known::default());
            if is_finalizer {
                state.apart += 1;
                state.living -= 1;
                self.concurrent.set(true);
            }
        }
        if is_finalizer {
            if state.living == 0 {
                // Nothing is left that could race: the program ends, and all is finalized.
                state.collected = state.tick();
            }
            let collected = state.collected;
            if let Some(running) = state.tasks.get_mut(&task) {
                running.clock.known.horizon = collected;
            }
        }
    }

    /// A task has made another, which begins with what it knows.
    pub(crate) fn spawned(&self, by: usize, task: usize) {
        let mut state = self.state.borrow_mut();
        let known = state.release(by);
        state.add_task(task, known);
        state.apart += 1;
        self.concurrent.set(true);
    }

    /// A task has ended, in a scope if there is one.
    pub(crate) fn ended(&self, task: usize, scope: Option<usize>) {
        let mut state = self.state.borrow_mut();
        while state
            .tasks
            .get(&task)
            .is_some_and(|running| !running.loops.is_empty())
        {
            state.end_loop(task);
        }
        let known = state.release(task);
        let Some(running) = state.tasks.remove(&task) else {
            return;
        };
        if let Some((group, _)) = running.piece {
            state.groups[group as usize]
                .learned
                .join(&running.clock.known);
            return;
        }
        state.living = state.living.saturating_sub(1);
        if let Some(scope) = scope {
            let sync = state.syncs.entry((scope, Part::Whole)).or_default();
            sync.known.join(&known);
            sync.ended += 1;
        }
        let is_joined = scope.is_some();
        state.ended.insert(task, Ended { known, is_joined });
    }

    /// A task has seen that another has ended.
    pub(crate) fn joined(&self, by: usize, task: usize) {
        let mut state = self.state.borrow_mut();
        let State { ended, tasks, .. } = &mut *state;
        let (Some(ended), Some(running)) = (ended.get_mut(&task), tasks.get_mut(&by)) else {
            return;
        };
        running.clock.known.join(&ended.known);
        if !core::mem::replace(&mut ended.is_joined, true) {
            state.apart -= 1;
            drop(state);
            self.settle(by);
        }
    }

    /// A task has waited for all tasks of a scope.
    pub(crate) fn left_scope(&self, by: usize, scope: usize) {
        let mut state = self.state.borrow_mut();
        let Some(sync) = state.syncs.get_mut(&(scope, Part::Whole)) else {
            return;
        };
        let (known, ended) = (sync.known.clone(), core::mem::take(&mut sync.ended));
        state.acquire(by, &known);
        state.apart -= ended;
        drop(state);
        self.settle(by);
    }

    /// The body of a parallel loop is called in a frame; the index of its first iteration.
    pub(crate) fn loop_begins(
        &self,
        task: usize,
        (coroutine, frame): (usize, usize),
        is_piece: bool,
        index: Option<Number>,
    ) {
        let mut state = self.state.borrow_mut();
        // The call may be made again, when the stack has grown.
        while let Some(running) = state.tasks.get_mut(&task)
            && let Some(again) = running
                .loops
                .pop_if(|l| l.coroutine == coroutine && l.frame >= frame)
        {
            if let Some(outer) = again.outer {
                running.clock = outer;
                state.open -= 1;
            }
        }
        let known = state.release(task);
        let Some(running) = state.tasks.get(&task) else {
            return;
        };
        let (number, outer) = (running.number, running.clock.clone());
        let piece = running.piece.clone().filter(|_| is_piece);
        let (group, start, outer) = match piece {
            Some((group, start)) => (group, start, None),
            None => {
                state.open += 1;
                (state.group(number), known, Some(outer))
            }
        };
        let clock = state.clock(group, index, start.clone());
        if let Some(running) = state.tasks.get_mut(&task) {
            running.clock = clock;
            running.loops.push(Loop {
                coroutine,
                frame,
                group,
                start,
                outer,
            });
        }
        self.concurrent.set(true);
    }

    /// A loop was split: `piece` runs some of its iterations.
    pub(crate) fn split(&self, task: usize, (coroutine, frame): (usize, usize), piece: usize) {
        let mut state = self.state.borrow_mut();
        let Some(running) = state.tasks.get(&task) else {
            return;
        };
        let Some(of) = running
            .loops
            .iter()
            .find(|l| (l.coroutine, l.frame) == (coroutine, frame))
        else {
            return;
        };
        let (group, start, number) = (of.group, of.start.clone(), running.number);
        let running = Running {
            number,
            clock: state.clock(group, None, start.clone()),
            loops: Vec::new(),
            piece: Some((group, start)),
        };
        state.tasks.insert(piece, running);
        state.ended.remove(&piece);
    }

    /// An iteration of the loop whose body runs in this frame has ended; the index of the next, if there is one.
    pub(crate) fn iteration_ended(
        &self,
        task: usize,
        (coroutine, frame): (usize, usize),
        next: Option<Number>,
    ) {
        let mut state = self.state.borrow_mut();
        state.end_iteration(task);
        let Some(running) = state.tasks.get(&task) else {
            return;
        };
        let Some(innermost) = running.loops.last() else {
            return;
        };
        if (innermost.coroutine, innermost.frame) != (coroutine, frame) || next.is_none() {
            return;
        }
        let (group, start) = (innermost.group, innermost.start.clone());
        let clock = state.clock(group, next, start);
        if let Some(running) = state.tasks.get_mut(&task) {
            running.clock = clock;
        }
    }

    /// The function in this frame goes on after a loop that it has called, or an error has come to it: loops in frames above it have ended.
    pub(crate) fn loops_ended(&self, task: usize, (coroutine, frame): (usize, usize)) {
        let mut state = self.state.borrow_mut();
        let Some(running) = state.tasks.get(&task) else {
            return;
        };
        let Some(outermost) = running
            .loops
            .iter()
            .position(|l| l.coroutine == coroutine && l.frame > frame)
        else {
            return;
        };
        for _ in outermost..running.loops.len() {
            state.end_loop(task);
        }
        drop(state);
        self.settle(task);
    }

    /// What a task has done is known to who acquires it from the same object.
    pub(crate) fn release(&self, task: usize, object: usize, part: Part) {
        if self.is_concurrent() {
            let mut state = self.state.borrow_mut();
            let known = state.release(task);
            let sync = state.syncs.entry((object, part)).or_default();
            sync.known.join(&known);
        }
    }

    /// A task knows what was released to the object.
    pub(crate) fn acquire(&self, task: usize, object: usize, part: Part) {
        if self.is_concurrent() {
            let mut state = self.state.borrow_mut();
            let State { syncs, tasks, .. } = &mut *state;
            if let (Some(sync), Some(running)) = (syncs.get(&(object, part)), tasks.get_mut(&task))
            {
                running.clock.known.join(&sync.known);
            }
        }
    }

    /// A task that is cancelled with the whole program comes after all that was done.
    pub(crate) fn acquire_all(&self, task: usize) {
        let mut state = self.state.borrow_mut();
        let now = state.tick();
        if let Some(running) = state.tasks.get_mut(&task) {
            running.clock.known.horizon = now;
        }
    }

    /// A value was pushed into a queue with so many places: who pops it knows what who pushed it knew, and who pushes into a place that was in use knows what who popped knew.
    pub(crate) fn pushed(&self, task: usize, queue: usize, capacity: usize) {
        let mut state = self.state.borrow_mut();
        let known = state.release(task);
        let sync = state.syncs.entry((queue, Part::Whole)).or_default();
        sync.pushed.push_back(known);
        let unused = sync.unused.get_or_insert(capacity);
        if *unused > 0 {
            *unused -= 1;
        } else if let Some(popped) = sync.popped.pop_front() {
            state.acquire(task, &popped);
        }
    }

    /// A value was popped.
    pub(crate) fn popped(&self, task: usize, queue: usize) {
        let mut state = self.state.borrow_mut();
        let known = state.release(task);
        let sync = state.syncs.entry((queue, Part::Whole)).or_default();
        sync.popped.push_back(known);
        if let Some(pushed) = sync.pushed.pop_front() {
            state.acquire(task, &pushed);
        }
    }

    /// A task has come to a barrier; whether it is the last that it waits for.
    pub(crate) fn arrived(&self, task: usize, barrier: usize, last: bool) {
        let mut state = self.state.borrow_mut();
        let known = state.release(task);
        let sync = state.syncs.entry((barrier, Part::Whole)).or_default();
        sync.arriving.join(&known);
        if last {
            sync.known = core::mem::take(&mut sync.arriving);
        }
    }

    /// Notes an access; what it met, unless it is known already. `trace` gives the number of its traceback.
    pub(crate) fn access(
        &self,
        task: usize,
        place: (usize, Slot),
        writes: bool,
        trace: impl FnOnce() -> u32,
    ) -> Option<Met> {
        let (strand, time) = self.epoch(task)?;
        if self
            .state
            .borrow()
            .shadow
            .is_known(place, strand, time, writes)
        {
            return None;
        }
        self.note(task, trace, |shadow, access, before| {
            shadow.access(place, access, writes, before)
        })
    }

    /// Notes an access of a table's keys.
    pub(crate) fn keys(
        &self,
        task: usize,
        object: usize,
        keys: Keys,
        trace: impl FnOnce() -> u32,
    ) -> Option<Met> {
        self.epoch(task)?;
        self.note(task, trace, |shadow, access, before| {
            shadow.keys(object, access, keys, before)
        })
    }

    /// The running strand and its time, a new one since the last collection.
    fn epoch(&self, task: usize) -> Option<(Strand, Time)> {
        let mut state = self.state.borrow_mut();
        let collected = state.collected;
        if state.tasks.get(&task)?.clock.time <= collected {
            let time = state.tick();
            state.tasks.get_mut(&task)?.clock.time = time;
        }
        let clock = &state.tasks.get(&task)?.clock;
        Some((clock.strand, clock.time))
    }

    fn note(
        &self,
        task: usize,
        trace: impl FnOnce() -> u32,
        note: impl FnOnce(&mut Shadow, Access, &dyn Fn(&Access) -> bool) -> shadow::Conflict,
    ) -> Option<Met> {
        let trace = trace();
        let mut state = self.state.borrow_mut();
        let mut shadow = core::mem::take(&mut state.shadow);
        let clock = &state.tasks.get(&task)?.clock;
        let access = Access {
            strand: clock.strand,
            trace,
            time: clock.time,
        };
        let met = note(&mut shadow, access, &|known| {
            state.is_before(clock, known.strand, known.time)
        });
        let met = met.map(|(first, wrote)| Met {
            wrote,
            trace: first.trace,
            first: state.who(first.strand),
            second: state.who(access.strand),
        });
        state.shadow = shadow;
        met
    }

    /// The place that a key of a table names.
    pub(crate) fn slot(&self, key: crate::value::Value) -> Option<Slot> {
        self.state.borrow_mut().shadow.slot(key)
    }

    /// What a slot is called, as in `field 'x'`.
    pub(crate) fn slot_name(&self, slot: Slot) -> alloc::string::String {
        report::slot_name(slot, |number| {
            self.state.borrow().shadow.name(number).into()
        })
    }

    /// An object does not change any more: nothing that is done from now on races with what was done to it.
    pub(crate) fn forget(&self, object: usize) {
        self.state.borrow_mut().shadow.forget(object);
    }

    /// A collection has found what is dead.
    pub(crate) fn collected(&self, lives: &dyn Fn(usize) -> bool) {
        let mut state = self.state.borrow_mut();
        state.collected = state.tick();
        state.shadow.retain(lives);
        state.syncs.retain(|(object, part), _| {
            lives(*object)
                && match part {
                    Part::Of(Slot::Object(key) | Slot::Struct(key, _)) => lives(*key),
                    _ => true,
                }
        });
        state.ended.retain(|task, _| lives(*task));
        self.traces.borrow_mut().forget_addresses();
    }
}
