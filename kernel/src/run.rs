//! What the cores do once the machine is up.

use crate::{
    boot::command_line::{CommandLine, Fault},
    console,
    cpu::local,
    files, info, panic, selftest,
};
use core::sync::atomic::{AtomicUsize, Ordering};
use x86_64::instructions::{hlt, interrupts};

/// What every core runs, by its [`Mode`]; core 0 decides before it releases the others.
static MODE: AtomicUsize = AtomicUsize::new(Mode::Program as usize);

/// What the machine was booted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Mode {
    /// Run the program that the boot archive names.
    Program,
    /// Check the machine itself.
    SelfTest,
}

/// Decides what the machine does. By core 0, before the other cores are released.
pub(crate) fn prepare(words: &CommandLine) {
    let mode = if words.selftest {
        Mode::SelfTest
    } else {
        Mode::Program
    };
    MODE.store(mode as usize, Ordering::Release);
    FAULT_CORE.store(
        if words.fault.is_some() {
            words.fault_core
        } else {
            usize::MAX
        },
        Ordering::Release,
    );
    FAULT.store(
        words.fault.map_or(0, |fault| fault as usize),
        Ordering::Release,
    );
}

static FAULT: AtomicUsize = AtomicUsize::new(0);
static FAULT_CORE: AtomicUsize = AtomicUsize::new(usize::MAX);

const FAULTS: [Fault; 8] = [
    Fault::Null,
    Fault::TextWrite,
    Fault::NoExecute,
    Fault::Stack,
    Fault::Divide,
    Fault::Opcode,
    Fault::Panic,
    Fault::Nested,
];

/// Core 0, from bring-up to the machine's end.
pub(crate) fn boot_core(words: CommandLine) -> ! {
    let status = worker(0);
    if words.files {
        files::send();
    }
    if words.stats {
        let counters = local::all()
            .iter()
            .map(|local| (local.index(), &local.counters));
        for (index, counters) in counters {
            info!("core {index}: {counters:?}");
        }
    }
    info!("ended with status {status}");
    console::exit(status.clamp(0, 255) as u8);
    // A PC without an exit device: stay, quietly.
    loop {
        interrupts::disable();
        hlt();
    }
}

/// Every other core.
pub(crate) fn other_core(cpu: usize) -> ! {
    worker(cpu);
    // Work has ended; core 0 ends the machine. NMIs of a late panic still arrive.
    loop {
        interrupts::disable();
        hlt();
    }
}

/// What each core runs; returns on every core when the work has ended, with the machine's exit status.
fn worker(cpu: usize) -> i32 {
    if cpu == FAULT_CORE.load(Ordering::Acquire) {
        commit(FAULTS[FAULT.load(Ordering::Acquire)]);
    }
    if MODE.load(Ordering::Acquire) == Mode::SelfTest as usize {
        return selftest::run(cpu);
    }
    0
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
        Fault::Nested => panic::stop(&FaultingReport),
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
