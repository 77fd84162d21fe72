//! What the cores do once the machine is up: run the program that the boot archive names, or check the machine.

use crate::{
    boot::command_line::{CommandLine, Fault},
    console::{self, input},
    cpu::{local, park, startup, timer, watchdog},
    files, info, panic,
    platform::MACHINE,
    power, selftest,
    sweep::Sweep,
    time,
    unwind::Cursor,
    warn,
};
use alloc::{boxed::Box, string::String, vec::Vec};
use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
};
use smp::platform::Platform;
use spin::Once;
use vua::{
    engine::{Engine, Options},
    turns::{Order, machine::VirtualMachine},
};
use x86_64::instructions::{hlt, interrupts};

/// The exit status of a program that does not compile, is not found, or does not fit into memory.
const NOT_RUN: i32 = 2;

/// Decides what is random in a simulation: the same as in the host command's.
const SIMULATION_SEED: u64 = 1;

/// The archive member that names the program: texts that each end in a zero byte, its path in the archive and its arguments.
const ARGUMENTS: &str = ".viridis/arguments";

/// What every core does, fixed by core 0 before it releases the others.
static WORK: Once<Work> = Once::new();

/// What the machine was booted for.
enum Work {
    /// Run a program.
    Program(&'static Engine),
    /// Run it on virtual cores that take turns on core 0, and count instructions.
    Simulation(&'static Engine, &'static VirtualMachine),
    /// Run it many times.
    Sweep(Sweep),
    /// Check the machine itself.
    SelfTest,
    /// There is nothing to do: end with this status.
    Nothing(i32),
}

/// A fault to commit, and the core that does.
static FAULT: Once<Option<(Fault, usize)>> = Once::new();

/// Decides what the machine does. By core 0, before the other cores are released, with interrupts on.
pub(crate) fn prepare(words: &CommandLine) {
    SETTLED.store(!words.settle, Ordering::Relaxed);
    FAULT.call_once(|| {
        let fault = words.fault.map(|fault| (fault, words.fault_core));
        if words.fault.is_some() && words.fault_core >= local::all().len() {
            warn!("there is no core {} to commit a fault", words.fault_core);
            return None;
        }
        fault
    });
    WORK.call_once(|| {
        if words.selftest {
            return Work::SelfTest;
        }
        let program = match Program::find() {
            Ok(program) => program,
            Err(status) => return Work::Nothing(status),
        };
        listen();
        let counts = sweep_of(words);
        if !counts.is_empty() {
            let repeats = words.repeats.unwrap_or(1) as usize;
            return Work::Sweep(Sweep::new(program, &counts, repeats, words.stats));
        }
        if let Some(cores) = words.simulate.filter(|cores| (1..=1024).contains(cores)) {
            let cores = cores as usize;
            let machine = VirtualMachine::new(&MACHINE, cores, SIMULATION_SEED, false);
            let machine = &*Box::leak(Box::new(machine));
            return match program.load(machine) {
                Ok(engine) => {
                    // Virtual cores have heartbeats of their own.
                    set_engine(Some(Box::leak(Box::new(Current { engine, cores: 0 }))));
                    Work::Simulation(engine, machine)
                }
                Err(status) => Work::Nothing(status),
            };
        }
        match program.load(&MACHINE) {
            Ok(engine) => {
                let cores = local::all().len();
                set_engine(Some(Box::leak(Box::new(Current { engine, cores }))));
                Work::Program(engine)
            }
            Err(status) => Work::Nothing(status),
        }
    });
}

/// The numbers of cores that the command line asks for, as far as the machine has them.
fn sweep_of(words: &CommandLine) -> Vec<usize> {
    let cores = local::all().len();
    let wanted = words.sweep.iter().map(|&count| usize::from(count));
    let wanted: Vec<usize> = wanted.take_while(|&count| count > 0).collect();
    for count in wanted.iter().filter(|&&count| count > cores) {
        warn!("sweep: {count} cores are left out, there are {cores}");
    }
    wanted.into_iter().filter(|&count| count <= cores).collect()
}

/// Has the engine told of what it must hear.
fn listen() {
    watchdog::on_watch(|cpu| {
        with_engine(|current| current.of(cpu).is_some_and(|engine| engine.watch(cpu))) == Some(true)
    });
    timer::on_heartbeat(|cpu| {
        with_engine(|current| {
            if let Some(engine) = current.of(cpu) {
                engine.beat(cpu);
            }
        });
    });
    input::on_events(
        || {
            with_engine(|current| current.engine.input_arrived());
        },
        || {
            with_engine(|current| current.engine.cancel());
        },
    );
}

/// A program of the boot archive.
pub(crate) struct Program {
    path: String,
    source: Vec<u8>,
    arguments: Vec<Vec<u8>>,
}

impl Program {
    /// The program that the boot archive names; else the status to end with.
    fn find() -> Result<Self, i32> {
        let mut arguments = Vec::new();
        if files::read(ARGUMENTS, &mut |bytes| arguments.extend_from_slice(bytes)).is_err() {
            warn!("the boot archive names no program");
            return Err(0);
        }
        let mut texts = arguments.split(|&byte| byte == 0);
        let path = texts
            .next()
            .and_then(|path| core::str::from_utf8(path).ok())
            .unwrap_or_default();
        // What follows the last zero byte is no text.
        let mut texts: Vec<Vec<u8>> = texts.map(<[u8]>::to_vec).collect();
        texts.pop();
        let mut source = Vec::new();
        if files::read(path, &mut |bytes| source.extend_from_slice(bytes)).is_err() {
            return Err(complain(format_args!(
                "{path}: no such file in the boot archive"
            )));
        }
        Ok(Self {
            path: path.into(),
            source,
            arguments: texts,
        })
    }

    /// Makes an engine and loads the program; else the status to end with.
    pub(crate) fn load(&self, platform: &'static dyn Platform) -> Result<&'static Engine, i32> {
        let path = &self.path;
        let Ok(engine) = Engine::new(platform, Options::default()) else {
            return Err(complain(format_args!("{path}: not enough memory")));
        };
        let arguments: Vec<&[u8]> = self.arguments.iter().map(Vec::as_slice).collect();
        match engine.load_program(path, &self.source, &arguments) {
            Ok(()) => Ok(engine),
            Err(error) => Err(complain(format_args!("{error}"))),
        }
    }
}

/// Says why the program is not run; the status.
fn complain(what: fmt::Arguments<'_>) -> i32 {
    // A line of its own, as the host command prints it, without the log's time.
    let _ = writeln!(Errors, "{what}");
    NOT_RUN
}

/// The engine that runs, and the cores that it knows of.
pub(crate) struct Current {
    pub(crate) engine: &'static Engine,
    pub(crate) cores: usize,
}

impl Current {
    /// The engine, if it knows of that core.
    fn of(&self, cpu: usize) -> Option<&'static Engine> {
        (cpu < self.cores).then_some(self.engine)
    }
}

/// The engine, for interrupt handlers; null when there is none.
static CURRENT: AtomicPtr<Current> = AtomicPtr::new(core::ptr::null_mut());

/// Says which engine runs from now on.
pub(crate) fn set_engine(current: Option<&'static mut Current>) {
    let current = current.map_or(core::ptr::null_mut(), core::ptr::from_mut);
    CURRENT.store(current, Ordering::Release);
}

/// Does something with the engine that runs, if there is one.
pub(crate) fn with_engine<T>(act: impl FnOnce(&'static Current) -> T) -> Option<T> {
    // SAFETY: null, or what `set_engine` stored, which lives for ever and is not written any more.
    unsafe { CURRENT.load(Ordering::Acquire).as_ref() }.map(act)
}

/// Writes an engine's counters, as a line of JSON.
pub(crate) fn write_stats(engine: &Engine) {
    let _ = writeln!(Errors, "{}", engine.stats());
}

/// The error stream as a place to write text to.
struct Errors;

impl Write for Errors {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        console::write_error(text.as_bytes());
        Ok(())
    }
}

/// Core 0, from bring-up to the machine's end.
pub(crate) fn boot_core(words: CommandLine) -> ! {
    if words.settle {
        settle();
    }
    let status = worker(0);
    if words.files {
        files::send();
    }
    if words.stats {
        with_engine(|current| write_stats(current.engine));
    }
    info!("ended with status {status}");
    // The exit device has seven bits for it. The engine's own are larger: 130 for a cancelled program, which the launcher knows from 127.
    power::end(words.end, status.clamp(0, 127) as u8)
}

/// Whether the cores may begin to work: see [`settle`].
static SETTLED: AtomicBool = AtomicBool::new(true);

/// Waits until every other core waits for work, so that the end of the boot can be told, and lets them begin.
fn settle() {
    for cpu in 1..local::all().len() {
        while !(startup::has_left(cpu) && park::is_halted(cpu)) {
            park::park(Some(time::now() + 200_000));
        }
    }
    // Read when the last of them was seen, so up to a fifth of a millisecond late.
    let microseconds = time::now() / 1000;
    info!(
        "settled: all cores wait for tasks after {}.{} ms",
        microseconds / 1000,
        microseconds / 100 % 10
    );
    SETTLED.store(true, Ordering::Release);
    (1..local::all().len()).for_each(park::unpark);
}

/// Every other core.
pub(crate) fn other_core(cpu: usize) -> ! {
    worker(cpu);
    startup::retire(local::current());
    // Core 0 ends the machine.
    power::stay()
}

/// What each core runs; returns on every core when the work has ended, with the machine's exit status.
fn worker(cpu: usize) -> i32 {
    while !SETTLED.load(Ordering::Acquire) {
        park::park(None);
    }
    match FAULT.get().copied().flatten() {
        Some((fault, core)) if core == cpu || fault == Fault::Every => commit(fault),
        // The machine must not end before the fault has come. The report ends it.
        Some(_) if cpu == 0 => loop {
            park::park(None);
        },
        _ => {}
    }
    match WORK.get() {
        Some(Work::Program(engine)) => engine.work(cpu),
        Some(Work::Sweep(sweep)) => sweep.work(cpu),
        Some(Work::Simulation(engine, machine)) if cpu == 0 => {
            let report = engine.work_in_turns(machine, Order::Rounds, false);
            let _ = writeln!(Errors, "{}", report.json());
            report.status
        }
        Some(Work::Simulation(..)) => 0,
        Some(Work::SelfTest) => selftest::run(cpu),
        Some(Work::Nothing(status)) => *status,
        None => unreachable!("core 0 decides before it releases the others"),
    }
}

/// Commits a fault on purpose, so that its report can be checked. Returns only if the machine does not notice.
fn commit(fault: Fault) {
    use core::arch::asm;
    info!("committing a deliberate fault: {fault:?}");
    match fault {
        // SAFETY: nothing is mapped there: this faults and does not go on.
        Fault::Null => unsafe {
            asm!("mov {0}, [{0}]", inout(reg) 8u64 => _, options(nostack));
        },
        // SAFETY: code is not writable: this faults and does not go on.
        Fault::TextWrite => unsafe {
            asm!("mov byte ptr [{0}], 0xcc", in(reg) commit as fn(Fault) as usize, options(nostack));
        },
        Fault::NoExecute => {
            static RETURN: [u8; 1] = [0xc3];
            let mut copy = RETURN;
            // SAFETY: the stack is not executable: this faults and does not go on.
            unsafe { asm!("call {0}", in(reg) copy.as_mut_ptr()) };
        }
        Fault::Stack => {
            core::hint::black_box(descend(1));
        }
        // SAFETY: this faults and does not go on.
        Fault::Divide => unsafe {
            asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _, options(nostack));
        },
        // SAFETY: this faults and does not go on.
        Fault::Opcode => unsafe { asm!("ud2", options(nostack)) },
        Fault::Panic => panic!("asked for on the command line"),
        Fault::Nested => panic::stop(&FaultingReport, Cursor::here()),
        // SAFETY: neither the page fault nor the general protection fault that comes of it has a gate in so short a table, so
        // the processor delivers a double fault, whose gate is the last: this does not go on.
        Fault::Double => unsafe {
            interrupts::disable();
            let mut table = x86_64::instructions::tables::sidt();
            table.limit = 9 * 16 - 1;
            x86_64::instructions::tables::lidt(&table);
            asm!("mov {0}, [{0}]", inout(reg) 8u64 => _, options(nostack));
        },
        Fault::Nmi => {
            let this = local::current();
            // SAFETY: there is a handler, which reports it.
            this.with_apic(|apic| unsafe { apic.send_nmi(this.apic_id()) });
            loop {
                hlt();
            }
        }
        Fault::Stuck => {
            interrupts::disable();
            loop {
                core::hint::spin_loop();
            }
        }
        Fault::Every => {
            static READY: AtomicUsize = AtomicUsize::new(0);
            let cores = local::all().len();
            READY.fetch_add(1, Ordering::AcqRel);
            while READY.load(Ordering::Acquire) < cores {
                core::hint::spin_loop();
            }
            panic!("on all cores at once")
        }
    }
}

/// Recurses until the stack ends.
#[allow(unconditional_recursion, reason = "that is its purpose")]
fn descend(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 32]);
    descend(depth + 1) + core::hint::black_box(frame)[0]
}

/// A report that cannot be written.
struct FaultingReport;

impl core::fmt::Display for FaultingReport {
    fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        local::current().faults.fetch_add(1, Ordering::Relaxed);
        // SAFETY: this faults and does not go on.
        unsafe { core::arch::asm!("ud2", options(nostack)) };
        Ok(())
    }
}
