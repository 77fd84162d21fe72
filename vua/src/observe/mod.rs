//! Seeing what a program does while it runs: samples of its stacks, and what each core did when.
//!
//! | file | what |
//! | --- | --- |
//! | this one | when something is noted |
//! | [`profile`] | samples of stacks, folded |
//! | [`trace`] | tasks, sleeps, safepoints and what else takes time, as a trace file |
//!
//! A core that is not observed pays nothing: it runs the plain loop over its tasks, and the places where an observed core notes something are slow paths. An
//! observed one has a loop of its own around the same turns. What is noted stays with the core until the program has ended.

pub mod profile;
pub mod trace;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::cell::RefCell;

use smp::safepoint::SAMPLE;

use crate::engine::Engine;
use crate::interp::frame::Frame;
use crate::interp::{Core, Vm};
use crate::object::Gc;
use crate::task::Task;
use crate::task::wait::{Took, Turn};
use crate::value::Value;
use profile::Profile;
use trace::{Event, Trace};

/// What is to be observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observe {
    /// Stacks, whenever [`Engine::sample`] is called.
    pub profile: bool,
    /// What each core does.
    pub trace: bool,
}

/// What a core has noted.
pub(crate) struct Observer {
    profile: Option<Profile>,
    trace: Option<RefCell<Trace>>,
}

impl Observer {
    pub(crate) fn new(what: Observe) -> Option<Box<Observer>> {
        if what == Observe::default() {
            return None;
        }
        Some(Box::new(Observer {
            profile: what.profile.then(Profile::default),
            trace: what.trace.then(RefCell::default),
        }))
    }
}

/// What a function is called in reports: its name and where it begins.
fn function_name(function: Value) -> String {
    if let Some(native) = function.as_native() {
        return native.name().into();
    }
    let Some(debug) = function.as_closure().and_then(|c| c.proto().debug()) else {
        return "?".into();
    };
    match &debug.name {
        Some(name) => format!("{name} {}:{}", debug.source, debug.line),
        None if debug.line == 0 => format!("main chunk {}", debug.source),
        None => format!("{}:{}", debug.source, debug.line),
    }
}

impl Core {
    /// A safepoint at which there is something to do, before it is done: takes a sample if one is asked for.
    #[cold]
    pub(crate) fn sample_if_asked(&mut self) {
        let safepoints = self.engine.scheduler().safepoints();
        if safepoints.take(self.cpu, SAMPLE) == 0 {
            return;
        }
        let frame = Frame {
            base: self.base,
            pc: self.pc,
        };
        if let Some(observer) = &mut self.observer
            && let Some(profile) = &mut observer.profile
        {
            // SAFETY: the stack is the running task's, which is at a safepoint.
            unsafe { profile.sample(frame) };
        }
    }

    /// Notes what took from `start` until now, if events are noted.
    #[cold]
    pub(crate) fn note(&self, event: Event, start: u64) {
        if let Some(observer) = &self.observer
            && let Some(trace) = &observer.trace
        {
            trace
                .borrow_mut()
                .note(event, start, self.engine.platform().now());
        }
    }
}

impl Vm {
    /// As [`run_tasks`](Vm::run_tasks), for a core that is observed.
    pub(crate) fn run_tasks_observed(&mut self) {
        let platform = self.core.engine.platform();
        let safepoints = self.core.engine.scheduler().safepoints();
        loop {
            // A sample of a core that runs no task is no sample.
            safepoints.take(self.core.cpu, SAMPLE);
            let stats = self.core.worker().stats();
            let (steals, injected) = (stats.steals.get(), stats.injected.get());
            let start = platform.now();
            match self.take() {
                Took::Task(task) => {
                    let origin = if stats.steals.get() != steals {
                        "stolen"
                    } else if stats.injected.get() != injected {
                        "from the queue"
                    } else {
                        "own"
                    };
                    self.core.note(Event::Search, start);
                    let event = Event::Run {
                        function: first_function(task),
                        task: task.as_ptr() as usize,
                        origin,
                    };
                    let start = platform.now();
                    self.run_taken(task);
                    self.core.note(event, start);
                }
                Took::None(Turn::Over) => {}
                Took::None(Turn::Asleep(limit)) => {
                    self.core.worker().park(limit);
                    self.core.worker().rise();
                    self.core.note(Event::Sleep, start);
                }
                Took::None(Turn::Ended) => return,
            }
        }
    }
}

/// The name of the function that a suspended task's stack begins with.
fn first_function(task: Gc<Task>) -> String {
    // SAFETY: a suspended task's stack begins with the function that it runs.
    function_name(unsafe { Value::from_bits(*task.fields().stack.get()) })
}

impl Engine {
    /// Asks each core that runs a task for a sample of its stack, at its next safepoint. Lock-free; callable from interrupt handlers.
    pub fn sample(&self) {
        let safepoints = self.scheduler().safepoints();
        for cpu in 0..safepoints.cpus() {
            safepoints.post(cpu, SAMPLE);
        }
    }

    /// All samples as folded stacks, a line for each: names from the outermost function on, separated by semicolons, a space, and how often it was seen.
    /// Once every core has returned from [`work`](Engine::work).
    pub fn folded_stacks(&self) -> String {
        let mut all = Profile::default();
        for cpu in 0..self.platform().cpus() {
            // SAFETY: no core works any more, says the caller.
            let core = unsafe { &(*self.machine(cpu)).core };
            if let Some(profile) = core.observer.as_ref().and_then(|o| o.profile.as_ref()) {
                all.merge(profile);
            }
        }
        all.folded()
    }

    /// Writes what all cores did, in the trace event format that Chrome and Perfetto read. Once every core has returned from [`work`](Engine::work).
    pub fn write_trace(&self, write: &mut dyn FnMut(&str)) {
        write("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
        write(
            "{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"process_name\",\"args\":{\"name\":\"vua\"}}",
        );
        for cpu in 0..self.platform().cpus() {
            write(&format!(
                ",\n{{\"ph\":\"M\",\"pid\":1,\"tid\":{cpu},\"name\":\"thread_name\",\"args\":{{\"name\":\"core {cpu}\"}}}}"
            ));
            // SAFETY: no core works any more, says the caller.
            let core = unsafe { &(*self.machine(cpu)).core };
            if let Some(trace) = core.observer.as_ref().and_then(|o| o.trace.as_ref()) {
                trace.borrow().write(cpu, self.began(), write);
            }
        }
        write("\n]}\n");
    }
}
