//! All cores of an engine on one thread, in turns: to replay one interleaving exactly, and to simulate more cores than there are.
//!
//! | file | what |
//! | --- | --- |
//! | this one | who runs next, and for how long |
//! | [`machine`] | the platform of the virtual cores: time, sleep, chance |
//! | [`spans`] | work and span |
//!
//! The engine, the scheduler and the collector are those that run on real cores; only the loop around a core's turns is another. Each virtual core counts its
//! instructions ([`metered`](crate::interp::metered)) and is taken from its task before the instruction at which its time is up, which any instruction may be.
//! Then another core runs. A core that falls asleep rises when another wakes it, as in life.
//!
//! # What is left out
//! What one instruction, or one step of a native function, does is never interrupted; caches, memory and their contention do not exist; natives count
//! as one instruction for each step, however long.

pub mod machine;
pub mod spans;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use smp::platform::{Cpu, Platform};

use crate::engine::Engine;
use crate::interp::metered::METERED;
use crate::interp::racing::RACING;
use crate::race::Races;
use crate::task::wait::Turn;
use machine::{NEVER, VirtualMachine};
use spans::{Length, Paths, Spans};

/// How many nanoseconds of virtual time an instruction takes: about what the interpreter needs on a machine of today.
const NANOSECONDS: u64 = 2;
/// What the scheduler's work in one turn counts as, in instructions: a turn may run none, and must take time. About 50 ns.
const TURN: u64 = 25;
/// What waking up counts as, in instructions: two microseconds, an inter-processor interrupt or a futex and the search that follows.
const WAKE: u64 = 1000;
/// Instructions that a core runs in one round of a simulation.
pub const QUANTUM: u64 = 1000;

/// In what order the cores run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A random one of those that have something to do, for a random number of instructions, as the machine's seed decides.
    Random,
    /// Round after round, each core in turn for [`QUANTUM`] instructions.
    Rounds,
}

/// What a simulation measured, in instructions.
#[derive(Clone, Debug)]
pub struct Report {
    /// Virtual cores.
    pub cpus: usize,
    /// How long the program took: the sum over the rounds of the longest turn in each.
    pub time: u64,
    /// Rounds.
    pub rounds: u64,
    /// All instructions.
    pub work: u64,
    /// The longest path, without and with burdens.
    pub span: Length,
    /// Of each core: instructions executed.
    pub executed: Vec<u64>,
    /// The program's exit status.
    pub status: i32,
    /// How many data races were told.
    pub races: usize,
}

impl Report {
    /// As one line of JSON.
    pub fn json(&self) -> String {
        let ratio = |over: u64| self.work as f64 / over.max(1) as f64;
        format!(
            "{{\"cores\":{},\"time\":{},\"work\":{},\"span\":{},\"burdened_span\":{},\"parallelism\":{:.3},\"burdened_parallelism\":{:.3},\"speedup\":{:.3},\"efficiency\":{:.4},\"quantum\":{QUANTUM},\"rounds\":{},\"executed\":{:?}}}",
            self.cpus,
            self.time,
            self.work,
            self.span.span,
            self.span.burdened,
            ratio(self.span.span),
            ratio(self.span.burdened),
            ratio(self.time),
            ratio(self.time) / self.cpus as f64,
            self.rounds,
            self.executed,
        )
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Awake,
    Asleep(Option<u64>),
    Ended,
}

struct Driver {
    engine: &'static Engine,
    machine: &'static VirtualMachine,
    states: Vec<State>,
    ended: usize,
}

impl Engine {
    /// Runs all cores on the calling thread, in place of [`work`](Engine::work) on each, and measures. `machine` is the engine's platform. With `watch`, data
    /// races are told on standard error as they are found.
    ///
    /// # Panics
    /// If a core works already.
    pub fn work_in_turns(
        &'static self,
        machine: &'static VirtualMachine,
        order: Order,
        watch: bool,
    ) -> Report {
        let cpus = machine.cpus();
        machine.attach(self);
        self.begin();
        let spans: &'static RefCell<Spans> = Box::leak(Box::default());
        let races: Option<&'static Races> = watch.then(|| &*Box::leak(Box::new(Races::new())));
        for cpu in 0..cpus {
            let worker = self.scheduler().worker(cpu);
            // SAFETY: the worker is taken, so only this thread uses the machine, and there is no other reference to it.
            let vm = unsafe { &mut *self.machine(cpu) };
            vm.dispatch = if watch { RACING } else { METERED };
            vm.core.meter.races = races;
            if order == Order::Rounds {
                vm.core.meter.paths = Some(Paths::new(spans));
            }
            vm.core.set_worker(worker);
        }
        let mut driver = Driver {
            engine: self,
            machine,
            states: alloc::vec![State::Awake; cpus],
            ended: 0,
        };
        let (time, rounds) = match order {
            Order::Random => driver.at_random(),
            Order::Rounds => driver.in_rounds(),
        };
        let mut executed = Vec::with_capacity(cpus);
        for cpu in 0..cpus {
            // SAFETY: as above.
            let core = unsafe { &mut (*self.machine(cpu)).core };
            executed.push(core.meter.executed);
            core.drop_worker();
        }
        self.flush();
        Report {
            cpus,
            time,
            rounds,
            work: executed.iter().sum(),
            span: spans.borrow().longest(),
            executed,
            status: self.status(),
            races: races.map_or(0, |races| races.traces.borrow().count()),
        }
    }
}

impl Driver {
    /// Whether the core has something to do at `now`.
    fn may_run(&self, cpu: Cpu, now: u64) -> bool {
        match self.states[cpu] {
            State::Awake => true,
            State::Asleep(limit) => {
                self.machine.has_token(cpu) || limit.is_some_and(|limit| limit <= now)
            }
            State::Ended => false,
        }
    }

    /// Lets the core run for about so many instructions; how many it was, with what its scheduling counts as.
    fn run(&mut self, cpu: Cpu, fuel: u64) -> u64 {
        // SAFETY: one thread runs all cores, one at a time, and this is the only reference to this one's machine.
        let vm = unsafe { &mut *self.engine.machine(cpu) };
        if self.machine.take_aside(cpu) {
            vm.core.worker().leave_outside();
        }
        let mut overhead = 0;
        if let State::Asleep(_) = self.states[cpu] {
            self.machine.take_token(cpu);
            vm.core.worker().rise();
            self.states[cpu] = State::Awake;
            overhead += WAKE;
        }
        let start = vm.core.meter.executed;
        loop {
            let used = vm.core.meter.executed - start + overhead;
            if used >= fuel {
                return used;
            }
            vm.core.meter.stop = start + (fuel - overhead);
            match vm.turn() {
                Turn::Over => overhead += TURN,
                Turn::Asleep(limit) => {
                    let stats = vm.core.worker().stats();
                    stats.parks.add(1);
                    self.states[cpu] = State::Asleep(limit);
                    return vm.core.meter.executed - start + overhead + TURN;
                }
                Turn::Ended => {
                    self.states[cpu] = State::Ended;
                    self.ended += 1;
                    return vm.core.meter.executed - start + overhead;
                }
            }
        }
    }

    /// Time has come to `now`.
    fn advance(&self, now: u64) {
        self.machine.set_now(now);
        for cpu in 0..self.states.len() {
            if self.machine.beat_at(cpu) <= now {
                self.machine.clear_beat(cpu);
                self.engine.beat(cpu);
            }
        }
    }

    /// All cores sleep: the time at which one rises. Without any, waits for something from outside.
    fn next_rise(&self, now: u64) -> u64 {
        let limits = self.states.iter().filter_map(|state| match state {
            State::Asleep(limit) => *limit,
            _ => None,
        });
        match limits.min() {
            Some(limit) => limit.max(now),
            None => {
                self.machine.wait();
                now
            }
        }
    }

    fn at_random(&mut self) -> (u64, u64) {
        let (mut time, mut rounds) = (0, 0);
        let mut ready = Vec::with_capacity(self.states.len());
        while self.ended < self.states.len() {
            let now = self.machine.now();
            ready.clear();
            ready.extend((0..self.states.len()).filter(|&cpu| self.may_run(cpu, now)));
            if ready.is_empty() {
                self.advance(self.next_rise(now));
                continue;
            }
            let cpu = ready[self.machine.below(ready.len() as u64) as usize];
            // Mostly a few instructions, so that cores meet in the middle of short sequences; sometimes many, so that one gets far ahead.
            let fuel = match self.machine.below(8) {
                0..=3 => 1 + self.machine.below(12),
                4..=6 => 1 + self.machine.below(400),
                _ => 1 + self.machine.below(20_000),
            };
            let used = self.run(cpu, fuel);
            time += used;
            rounds += 1;
            self.advance(now + used * NANOSECONDS);
        }
        (time, rounds)
    }

    fn in_rounds(&mut self) -> (u64, u64) {
        let (mut time, mut rounds) = (0, 0);
        while self.ended < self.states.len() {
            let now = self.machine.now();
            let mut longest = 0;
            for cpu in 0..self.states.len() {
                if self.may_run(cpu, now) {
                    longest = self.run(cpu, QUANTUM).max(longest);
                }
            }
            rounds += 1;
            time += longest;
            let mut then = now + longest * NANOSECONDS;
            if longest == 0 && self.ended < self.states.len() {
                then = self.next_rise(now);
                time += (then - now) / NANOSECONDS;
            }
            self.advance(then.min(NEVER - 1));
        }
        (time, rounds)
    }
}
