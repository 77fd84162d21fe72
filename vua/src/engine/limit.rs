//! On how many cores a program's tasks may run at once, and which of them wait for that.
//!
//! A core that has taken a task of a limited program asks before it runs it. If the program runs on as many cores as it may, the task is put on a list, and the core
//! looks for another; a core that has left a task of the program queues the first on the list again, as ready as it was. So no core waits, and
//! tasks of the program take turns: the list and the queue are both first in, first out, and a task that others wait behind is moved aside at a heartbeat, and queued behind the one
//! that gets its place.
//!
//! A task is on the list only while as many run as may, under the same lock: who leaves sees it. A limit within a limit is asked first; if the outer one refuses, the task
//! waits there, and the inner place is given back.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use smp::safepoint::MARKED;
use sync::lock::Lock;

use super::Engine;
use crate::object::Gc;
use crate::task::Task;

/// See the module.
pub(crate) struct Limit {
    cpus: usize,
    above: Option<Arc<Limit>>,
    places: Lock<Places>,
}

struct Places {
    running: usize,
    waiting: VecDeque<Gc<Task>>,
}

impl Limit {
    /// At most so many cores, of those that `above` allows.
    pub(super) fn new(cpus: usize, above: Option<Arc<Limit>>) -> Limit {
        Limit {
            cpus,
            above,
            places: Lock::new(Places {
                running: 0,
                waiting: VecDeque::new(),
            }),
        }
    }

    /// How many cores.
    pub(crate) fn cpus(&self) -> usize {
        self.cpus
    }

    /// Whether a task more could not run now.
    pub(crate) fn is_full(&self) -> bool {
        self.places.lock().running >= self.cpus || self.above.as_ref().is_some_and(|a| a.is_full())
    }

    /// Whether tasks wait for others to make way.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.places.lock().waiting.is_empty()
            || self.above.as_ref().is_some_and(|a| a.has_waiting())
    }

    /// Whether the task may run; else it is on a list, and no longer the caller's.
    pub(crate) fn enter(&self, engine: &Engine, task: Gc<Task>) -> bool {
        {
            let mut places = self.places.lock();
            // Without memory for the list, it runs.
            if places.running >= self.cpus && places.waiting.try_reserve(1).is_ok() {
                places.waiting.push_back(task);
                let first = places.waiting.len() == 1;
                drop(places);
                if first {
                    // Whoever runs makes way in time.
                    engine.scheduler().safepoints().post_all(MARKED);
                }
                return false;
            }
            places.running += 1;
        }
        if let Some(above) = &self.above
            && !above.enter(engine, task)
        {
            self.give_back(engine);
            return false;
        }
        true
    }

    /// A task that was let in has left its core.
    pub(crate) fn leave(&self, engine: &Engine) {
        self.give_back(engine);
        if let Some(above) = &self.above {
            above.leave(engine);
        }
    }

    fn give_back(&self, engine: &Engine) {
        let next = {
            let mut places = self.places.lock();
            places.running -= 1;
            places.waiting.pop_front()
        };
        if let Some(task) = next {
            engine.scheduler().inject(task);
        }
    }
}
