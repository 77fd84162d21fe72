//! Work and span: how parallel a program is, whatever it runs on.
//!
//! *Work* is the number of instructions of all tasks. *Span* is that of the longest path of instructions of which each must wait for the one
//! before: with any number of cores a program takes no less, and work divided by span, its *parallelism*, bounds every speed-up. *Burdened span*
//! charges [`BURDEN`] wherever the path goes through what another core would have to take over, as Cilkview does (Y. He, C. E. Leiserson,
//! W. M. Leiserson, "The Cilkview Scalability Analyzer", SPAA 2010): parallelism that is too fine shows as a burdened span above the span.
//!
//! # How paths are followed
//! Each task carries the length of the longest path to its next instruction. A spawned task begins with its spawner's; who joins
//! takes the greater of its own and the other's at its end. All iterations of a `parallel for` begin with the path of the loop's beginning,
//! whichever task runs them and however the loop was split, and the loop ends with the longest of theirs. So the figures do not depend
//! on the schedule. What does depend on it, who waited for whom at a lock or a queue, is not counted, as in Cilkview.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::object::Gc;
use crate::task::{Latch, Task};
use crate::value::Value;

/// What moving work to another core costs, in instructions: about what a steal and the wake-up before it take on Linux, five to ten microseconds.
pub const BURDEN: u64 = 3000;

/// Lengths of the longest paths to one point: in instructions, and with burdens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// Instructions.
    pub span: u64,
    /// Instructions and burdens.
    pub burdened: u64,
}

impl Length {
    fn max(self, other: Length) -> Length {
        Length {
            span: self.span.max(other.span),
            burdened: self.burdened.max(other.burdened),
        }
    }

    fn plus(self, burden: u64) -> Length {
        Length {
            burdened: self.burdened + burden,
            ..self
        }
    }
}

/// A parallel loop of which a task runs iterations.
#[derive(Clone, Copy, Debug)]
struct Loop {
    /// Where its body's frame begins, in slots from the stack's first.
    frame: usize,
    /// The path to the beginning of each iteration.
    start: Length,
    /// The longest path to the end of one.
    longest: Length,
}

/// What is known of a task that does not run.
#[derive(Debug, Default)]
struct Known {
    path: Length,
    loops: Vec<Loop>,
}

/// What all cores of one engine share: paths of the tasks that do not run, and of loops that were split. One thread uses it.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    tasks: BTreeMap<usize, Known>,
    latches: BTreeMap<usize, Length>,
    longest: Length,
}

impl Spans {
    /// The longest path to the end of any task that has ended.
    pub(crate) fn longest(&self) -> Length {
        self.longest
    }
}

/// The paths to the next instruction of the task that a core runs.
pub(crate) struct Paths {
    shared: &'static RefCell<Spans>,
    /// The path's length when the core had executed `since`.
    length: Length,
    since: u64,
    /// Innermost last.
    loops: Vec<Loop>,
}

fn key(task: Gc<Task>) -> usize {
    task.as_ptr() as usize
}

impl Paths {
    pub(crate) fn new(shared: &'static RefCell<Spans>) -> Paths {
        Paths {
            shared,
            length: Length::default(),
            since: 0,
            loops: Vec::new(),
        }
    }

    fn now(&mut self, executed: u64) -> Length {
        let passed = executed - self.since;
        self.since = executed;
        self.length.span += passed;
        self.length.burdened += passed;
        self.length
    }

    fn restart(&mut self, length: Length, executed: u64) {
        self.length = length;
        self.since = executed;
    }

    /// The core begins to run a task, or goes on with it.
    pub(crate) fn resume(&mut self, task: Gc<Task>, executed: u64) {
        let known = self
            .shared
            .borrow_mut()
            .tasks
            .remove(&key(task))
            .unwrap_or_default();
        self.loops = known.loops;
        self.restart(known.path, executed);
    }

    /// The core leaves a task that will go on.
    pub(crate) fn suspend(&mut self, task: Gc<Task>, executed: u64) {
        let path = self.now(executed);
        let loops = core::mem::take(&mut self.loops);
        self.shared
            .borrow_mut()
            .tasks
            .insert(key(task), Known { path, loops });
    }

    /// The core's task has made another, which begins here.
    pub(crate) fn spawned(&mut self, task: Gc<Task>, executed: u64) {
        let path = self.now(executed).plus(BURDEN);
        self.begin(task, path);
    }

    /// The loop whose body's frame begins at `frame` was split: `piece` runs some of its iterations.
    pub(crate) fn split(&mut self, piece: Gc<Task>, frame: usize, executed: u64) {
        let path = match self.loops.iter().find(|l| l.frame == frame) {
            Some(found) => found.start,
            None => self.now(executed),
        };
        self.begin(piece, path);
    }

    fn begin(&self, task: Gc<Task>, path: Length) {
        let known = Known {
            path,
            loops: Vec::new(),
        };
        self.shared.borrow_mut().tasks.insert(key(task), known);
    }

    /// The core's task has ended; `latch` is that of the loop that it was a piece of, or null.
    pub(crate) fn ended(&mut self, task: Gc<Task>, latch: *mut Latch, executed: u64) {
        let mut path = self.now(executed);
        for left in self.loops.drain(..) {
            path = path.max(left.longest);
        }
        let mut shared = self.shared.borrow_mut();
        shared.longest = shared.longest.max(path);
        if latch.is_null() {
            let known = Known {
                path,
                loops: Vec::new(),
            };
            shared.tasks.insert(key(task), known);
        } else {
            let longest = shared.latches.entry(latch as usize).or_default();
            *longest = longest.max(path);
        }
    }

    /// The core's task has come to see the end of another.
    pub(crate) fn joined(&mut self, other: Gc<Task>, executed: u64) {
        let mine = self.now(executed);
        let shared = self.shared.borrow();
        if let Some(known) = shared.tasks.get(&key(other)) {
            self.length = mine.max(known.path);
        }
    }

    /// A loop's body is called, for so many iterations.
    pub(crate) fn loop_begins(&mut self, frame: usize, executed: u64, iterations: u64) {
        // Frames above, and this one if the call is made again, are gone.
        self.loops.retain(|l| l.frame < frame);
        let depth = 64 - iterations.saturating_sub(1).leading_zeros() as u64;
        let start = self.now(executed).plus(depth * BURDEN);
        self.loops.push(Loop {
            frame,
            start,
            longest: start,
        });
        self.restart(start, executed);
    }

    /// An iteration of the loop whose body's frame begins at `frame` has ended.
    pub(crate) fn iteration_ended(&mut self, frame: usize, executed: u64) {
        let path = self.now(executed);
        self.loops.retain(|l| l.frame <= frame);
        if let Some(innermost) = self.loops.last_mut() {
            innermost.longest = innermost.longest.max(path);
            let start = innermost.start;
            self.restart(start, executed);
        }
    }

    /// The function whose frame begins at `frame` goes on after a loop whose pieces counted down `latch`, if that is one.
    pub(crate) fn loop_ended(&mut self, frame: usize, executed: u64, latch: Value) {
        let mut path = self.now(executed);
        while let Some(innermost) = self.loops.pop_if(|l| l.frame > frame) {
            path = path.max(innermost.longest);
        }
        // Pieces that end later enter it again, and this instruction is run again after them.
        if let Some(latch) = Gc::<Latch>::from_value(latch) {
            let latch = latch.as_ptr() as usize;
            let longest = self.shared.borrow_mut().latches.remove(&latch);
            path = path.max(longest.unwrap_or_default());
        }
        self.restart(path, executed);
    }
}
