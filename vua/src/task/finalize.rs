//! The task that runs finalizers (`__gc`).
//!
//! A program has one, made with it, so that no memory is needed when objects are to be finalized. It is a task like others: it runs on any core, is moved aside when
//! it runs long, and its finalizers may wait, spawn and fail. But it is *active* or it *rests*, and counts among the living tasks (see [`engine`](crate::engine)) only while it is active:
//!
//! | from | to | who, under the lock | and |
//! | --- | --- | --- | --- |
//! | resting | active | a core whose collection has found objects to finalize, when the world goes on; the core that finds that no task is left | counts a spawn, queues the task |
//! | active | resting | its core, when it finds none to finalize; it is suspended by then | counts an end, wakes who waits for that |
//!
//! A collection whose objects the active task may not see is impossible: it looks for them under the lock, before it rests. `collectgarbage()` waits for it to rest, unless a
//! finalizer called it.
//!
//! *At the program's end.* A core that finds no living task looks again under the lock, the task resting: then no task is alive, and none can come to be but by this lock. It makes all
//! objects due that have finalizers, and only when there is none the program ends. While it is ending, nothing more is registered, so that comes about.
//!
//! It is not cancelled: neither with the program, whose finalizers are to run, nor by one of its finalizers. A second cancellation from outside ends the program at once.

use alloc::vec::Vec;

use smp::platform::Cpu;
use sync::lock::Lock;

use super::{State, Task, WaitFor, Woken};
use crate::engine::{Engine, Program};
use crate::interp::native::{Call, Next, Throw};
use crate::object::Gc;
use crate::race::Part;
use crate::value::Value;

/// Whether a program's finalizers are being run, and who waits for that to end.
pub(crate) struct Finalizing(Lock<Phase>);

struct Phase {
    active: bool,
    waiting: Vec<Gc<Task>>,
}

// SAFETY: handles are plain addresses; what becomes of the tasks is between their `wake` byte and who claims them.
unsafe impl Send for Phase {}

impl Finalizing {
    pub(crate) fn new() -> Finalizing {
        Finalizing(Lock::new(Phase {
            active: false,
            waiting: Vec::new(),
        }))
    }
}

impl Engine {
    /// A collection is over and the world goes on: if objects are to be finalized, their task does that.
    pub(crate) fn finalize_due(&self, cpu: Cpu) {
        self.each_program(|program| {
            if self.heap().has_due(program.number()) {
                let mut phase = program.finalizing().0.lock();
                if !phase.active {
                    self.activate(program, &mut phase, cpu);
                }
            }
        });
    }

    fn activate(&self, program: &Program, phase: &mut Phase, cpu: Cpu) {
        phase.active = true;
        program.count_spawn(cpu);
        let task = program.finalizer();
        task.set_state(State::Ready);
        self.scheduler().inject(task);
    }

    /// The finalizers' task is suspended because it found nothing to do; `false` if there is something by now.
    pub(super) fn rest_finalizer(&self, program: &'static Program, cpu: Cpu) -> bool {
        let woken = {
            let mut phase = program.finalizing().0.lock();
            if self.heap().has_due(program.number()) {
                return false;
            }
            // One that waited in a finalizer is on the list of tasks that a deadlock is made of.
            program.register().leave(program.finalizer());
            phase.active = false;
            program.count_end(cpu);
            let mut woken = core::mem::take(&mut phase.waiting);
            // Under the lock: a task whose wait was ended otherwise takes itself off before it goes on.
            woken.retain(|task| task.claim(Woken::Event));
            woken
        };
        for task in woken {
            task.set_state(State::Ready);
            self.scheduler().inject(task);
        }
        if !program.is_first() {
            program.look_for_end(self, cpu);
        }
        true
    }

    /// Whether the program, which `is_dead` says has no living task, has nothing to finalize either; if it has, that begins.
    pub(crate) fn has_finalized(
        &self,
        program: &Program,
        cpu: Cpu,
        is_dead: impl Fn() -> bool,
    ) -> bool {
        let mut phase = program.finalizing().0.lock();
        if phase.active || !is_dead() {
            return false;
        }
        if self.heap().finalize_all(program.number()) {
            self.activate(program, &mut phase, cpu);
            return false;
        }
        true
    }
}

impl Program {
    /// Puts a task on the list of those that wait until finalizers have run; `false` if they have.
    pub(super) fn await_finalizers(&self, task: Gc<Task>) -> bool {
        let mut phase = self.finalizing().0.lock();
        // Without memory for the list nobody waits: the finalizers run all the same.
        let waits = phase.active && phase.waiting.try_reserve(1).is_ok();
        if waits {
            phase.waiting.push(task);
        }
        waits
    }

    /// A task's wait for finalizers has ended otherwise.
    pub(super) fn forget_finalizers(&self, task: Gc<Task>) {
        self.finalizing()
            .0
            .lock()
            .waiting
            .retain(|waiting| *waiting != task);
    }
}

/// The finalizers' task: slot 0 holds the object, and the call is made from slot 1 on.
const OBJECT: usize = 0;
const CALL: usize = 1;

/// State: looks for the next object.
const SEARCH: u32 = 1;
/// State: a finalizer has returned.
const FINALIZED: u32 = 2;

/// What the task runs.
pub(crate) fn run(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == FINALIZED && call.failed() {
        let error = call.slot(CALL);
        warn(
            call,
            &error
                .as_str()
                .map_or_else(Vec::new, |text| text.bytes().to_vec()),
            error.as_str().is_some(),
        );
    }
    loop {
        call.advance(SEARCH);
        call.poll()?;
        let Some(object) = call.heap().heap().next_due(call.program().number()) else {
            // What it finalized last is not to live as long as it rests.
            for slot in OBJECT..CALL + 3 {
                call.set(slot, Value::NIL);
            }
            // Who waits until all finalizers have run knows what they did.
            call.core
                .race_release(call.program().finalizer().as_ptr() as usize, Part::Whole);
            return Ok(Next::Wait {
                until: WaitFor::Finalizers,
                state: SEARCH,
            });
        };
        let finalizer = call.metamethod(object.value(), "__gc");
        // What had one when it was registered may have none now.
        if finalizer.is_nil() {
            continue;
        }
        // What was done to the object before it was found dead comes before.
        call.core
            .race_watch(|races, task| races.resumed(task, true));
        call.set(OBJECT, object.value());
        call.set(CALL, finalizer);
        call.set(CALL + 2, object.value());
        return Ok(Next::Call {
            at: CALL,
            arguments: 1,
            state: FINALIZED,
            protected: true,
        });
    }
}

/// An error in a finalizer is a warning.
fn warn(call: &Call<'_>, text: &[u8], is_text: bool) {
    let text = if is_text {
        text
    } else {
        b"error object is not a string"
    };
    let message = [&b"vua: warning: error in __gc ("[..], text, b")\n"].concat();
    call.engine().write_error(&message);
}
