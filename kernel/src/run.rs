//! What the cores do once the machine is up: run the program that the boot archive names, or check the machine.

use crate::{
    boot::command_line::{CommandLine, Fault},
    console::{self, input},
    cpu::{local, park, startup, timer, watchdog},
    files, info, panic,
    platform::MACHINE,
    power, selftest, time,
    unwind::Cursor,
    warn,
};
use alloc::vec::Vec;
use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
use spin::Once;
use vua::engine::{Engine, Options};
use x86_64::instructions::{hlt, interrupts};

/// The exit status of a program that does not compile, is not found, or does not fit into memory.
const NOT_RUN: i32 = 2;

/// The archive member that names the program: texts that each end in a zero byte, its path in the archive and its arguments.
const ARGUMENTS: &str = ".viridis/arguments";

/// What every core does, fixed by core 0 before it releases the others.
static WORK: Once<Work> = Once::new();

/// What the machine was booted for.
enum Work {
    /// Run a program.
    Program(&'static Engine),
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
            Work::SelfTest
        } else {
            load()
        }
    });
}

/// Makes the engine and loads the program that the boot archive names.
fn load() -> Work {
    let mut arguments = Vec::new();
    if files::read(ARGUMENTS, &mut |bytes| arguments.extend_from_slice(bytes)).is_err() {
        warn!("the boot archive names no program");
        return Work::Nothing(0);
    }
    let mut texts = arguments.split(|&byte| byte == 0);
    let path = texts
        .next()
        .and_then(|path| core::str::from_utf8(path).ok())
        .unwrap_or_default();
    // What follows the last zero byte is no text.
    let mut texts: Vec<&[u8]> = texts.collect();
    texts.pop();
    let complain = |what: fmt::Arguments<'_>| {
        // A line of its own, as the host command prints it, without the log's time.
        let _ = writeln!(Errors, "{what}");
        Work::Nothing(NOT_RUN)
    };
    let mut source = Vec::new();
    if files::read(path, &mut |bytes| source.extend_from_slice(bytes)).is_err() {
        return complain(format_args!("{path}: no such file in the boot archive"));
    }
    let Ok(engine) = Engine::new(&MACHINE, Options::default()) else {
        return complain(format_args!("{path}: not enough memory"));
    };
    ENGINE.call_once(|| engine);
    watchdog::on_watch(|cpu| ENGINE.get().is_some_and(|engine| engine.watch(cpu)));
    timer::on_heartbeat(|cpu| with_engine(|engine| engine.beat(cpu)));
    input::on_events(
        || with_engine(Engine::input_arrived),
        || with_engine(Engine::cancel),
    );
    match engine.load_program(path, &source, &texts) {
        Ok(()) => Work::Program(engine),
        Err(error) => complain(format_args!("{error}")),
    }
}

/// The engine, for interrupt handlers.
static ENGINE: Once<&'static Engine> = Once::new();

fn with_engine(act: impl FnOnce(&'static Engine)) {
    if let Some(engine) = ENGINE.get() {
        act(engine);
    }
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
        with_engine(|engine| {
            let _ = writeln!(Errors, "{}", engine.stats());
        });
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
