//! Bring-up of the other cores.
//!
//! 1. The kernel's first act sends each core from the loader's polling loop to the *halt stub*: it loads a small descriptor
//!    table pair, says in its `extra` word that it halts, and halts with interrupts off. Its page tables and stack are still the
//!    loader's.
//! 2. When the boot core is ready, it writes the address of the core's [`Local`] into that word and, if the core said that it
//!    halts, sends it an NMI, which is all that a halted core with interrupts off reacts to. A core that has not come so far
//!    finds the address instead and goes on without a halt. All cores start at once.
//! 3. Each core turns to the kernel's page tables and its own stack, leaves the NMI (with `iretq`, or it would never take
//!    another), sets itself up, and arrives.
//! 4. The boot core waits for all, until none has arrived for a while. Who has not arrived then is named, must halt if it ever does, and the loader's memory is
//!    not reclaimed: it might still be in it. Those that arrived get their final, dense indices and are released.
//!
//! The `extra` word of the protocol's core structure: 0, then [`HALTING`] by the core or the address by the boot core.

use super::{
    descriptors, features,
    local::{self, BOOT, Local, Stage},
    park, vector, watchdog,
};
use crate::{
    boot::{
        entry,
        requests::{self, BootInformation},
    },
    info,
    memory::{
        paging::{Access, Cache},
        space,
        stacks::{Purpose, Stacks},
    },
    time, warn,
};
use alloc::{boxed::Box, vec::Vec};
use core::{
    arch::global_asm,
    cell::UnsafeCell,
    mem::offset_of,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
use drivers::{
    apic::local::{LocalApic, Vectors, xapic_page},
    tsc,
};
use limine::mp::Cpu;
use x86_64::instructions::{hlt, interrupts};

/// In `extra`: the core halts in the stub.
const HALTING: u64 = 1;

// rbx: the core's structure, in the loader's direct map.
global_asm!(
    ".pushsection .text.startup, \"ax\", @progbits",
    "viridis_halt_stub:",
    "cli",
    "cld",
    "mov rbx, rdi",
    "lgdt [rip + {gdt}]",
    "push {code}",
    "lea rax, [rip + 2f]",
    "push rax",
    "retfq",
    "2:",
    "mov eax, {data}",
    "mov ss, eax",
    "lidt [rip + {idt}]",
    "xor eax, eax",
    "mov ecx, {halting}",
    "lock cmpxchg [rbx + {extra}], rcx",
    "jne 4f",
    "3:",
    "hlt",
    "jmp 3b",
    // The NMI. If it is not the boot core's, back to the halt.
    ".balign 16",
    "viridis_halt_nmi:",
    "mov rax, [rbx + {extra}]",
    "cmp rax, {halting}",
    "jne 4f",
    "iretq",
    "4:",
    "mov rdi, rax",
    "mov rax, cr0",
    "and eax, ~{cr0_clear}",
    "or eax, {cr0_set}",
    "mov cr0, rax",
    "mov rax, cr4",
    "or eax, {cr4_set}",
    "mov cr4, rax",
    // The kernel's tables have no-execute bits, which fault as reserved ones until this is on.
    "mov ecx, {efer}",
    "rdmsr",
    "or eax, {nxe}",
    "wrmsr",
    "mov rax, [rip + {root}]",
    "mov cr3, rax",
    "mov rsp, [rdi + {stack}]",
    "fninit",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "mov rax, rsp",
    "push {data}",
    "push rax",
    "push 2",
    "push {code}",
    "lea rax, [rip + 5f]",
    "push rax",
    "iretq",
    "5:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {other}",
    "ud2",
    ".popsection",
    gdt = sym STUB_GDT,
    idt = sym STUB_IDT,
    code = const descriptors::CODE,
    data = const descriptors::DATA,
    halting = const HALTING,
    extra = const offset_of!(Cpu, extra),
    cr0_clear = const features::CR0_CLEAR,
    cr0_set = const features::CR0_SET,
    cr4_set = const features::CR4_SET,
    efer = const features::EFER,
    nxe = const features::EFER_NXE,
    root = sym space::ROOT,
    stack = const offset_of!(Local, stack),
    other = sym entry::other,
);

unsafe extern "C" {
    fn viridis_halt_stub(cpu: &Cpu) -> !;
    static viridis_halt_nmi: u8;
}

/// What `lgdt` and `lidt` take.
#[repr(C, packed(2))]
struct TablePointer {
    limit: u16,
    base: *const u64,
}

// SAFETY: only the processor reads it.
unsafe impl Sync for TablePointer {}

/// Null, 64-bit code, data: the same selectors as in every core's own table.
static STUB_SEGMENTS: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
static STUB_GDT: TablePointer = TablePointer {
    limit: 3 * 8 - 1,
    base: &raw const STUB_SEGMENTS as *const u64,
};

/// Three gates of two words, of which only the NMI's is present.
struct StubGates(UnsafeCell<[u64; 6]>);

// SAFETY: written by the boot core before any other core loads it.
unsafe impl Sync for StubGates {}

static STUB_GATES: StubGates = StubGates(UnsafeCell::new([0; 6]));
static STUB_IDT: TablePointer = TablePointer {
    limit: 6 * 8 - 1,
    base: &raw const STUB_GATES as *const u64,
};

/// Sends a core from the loader's loop to the halt stub. Before the boot core leaves the loader's page tables.
pub(crate) fn send_to_halt(core: &Cpu) {
    let handler = (&raw const viridis_halt_nmi).addr() as u64;
    // An interrupt gate (SDM volume 3, figure 6-8): present, type 14.
    let low = handler & 0xffff
        | u64::from(descriptors::CODE) << 16
        | 0x8e00 << 32
        | (handler >> 16 & 0xffff) << 48;
    // SAFETY: the same words each time; a core reads them only after its address was written, below.
    unsafe {
        let gates = STUB_GATES.0.get().cast::<u64>();
        gates.add(4).write(low);
        gates.add(5).write(handler >> 32);
    }
    core.goto_address.write(viridis_halt_stub);
}

/// Sets up the boot core's data, descriptor tables and (static) interrupt stacks, so that faults are reported from here on.
///
/// # Safety
/// Called once, by the boot core, with interrupts off.
pub(crate) unsafe fn initialise_boot_core() {
    // SAFETY: the caller's promise; nobody else uses the boot core's cells.
    unsafe {
        BOOT.install();
        let descriptors = &mut *BOOT.descriptors.get();
        descriptors::set_early_stacks(descriptors);
        descriptors.load();
        // `load` reset nothing of GS, but selectors were reloaded: the base stays.
        descriptors::load_interrupts();
    }
    BOOT.stage.store(Stage::Online as u32, Ordering::Release);
}

/// Moves the boot core's interrupt stacks to guarded ones.
///
/// # Safety
/// Called by the boot core with interrupts off.
pub(crate) unsafe fn set_boot_stacks(stacks: &Stacks) {
    // SAFETY: no interrupt is being handled, and nobody else uses the cell.
    unsafe { (*BOOT.descriptors.get()).set_stacks(stacks) };
}

/// The local APIC's page in xAPIC mode, mapped once for all cores: it is at the same address on each.
static PAGE: spin::Once<Option<Registers>> = spin::Once::new();

#[derive(Clone, Copy)]
struct Registers(NonNull<u8>);

// SAFETY: the mapping leads each core to its own registers.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

/// Whether cores use x2APIC mode. After [`enable_apic`].
pub(crate) fn uses_x2apic() -> bool {
    matches!(PAGE.get(), Some(None))
}

/// Switches the calling core's local APIC on.
///
/// # Safety
/// Called once by each core, with interrupts off and the kernel's interrupt table loaded.
pub(crate) unsafe fn enable_apic(this: &Local) {
    let page = PAGE.call_once(|| {
        xapic_page().map(|address| {
            // SAFETY: each core's own local APIC registers.
            Registers(unsafe {
                space::map_device(address, 4096, Access::ReadWrite, Cache::Uncacheable)
            })
        })
    });
    let vectors = Vectors {
        timer: vector::TIMER,
        error: vector::ERROR,
        spurious: vector::SPURIOUS,
    };
    // SAFETY: the caller's promise; the page is mapped for good.
    unsafe {
        let apic = LocalApic::enable(page.map(|page| page.0), vectors);
        this.set_apic_id(apic.id());
        this.set_apic(apic);
    }
}

/// How long no core may have come up before the rest are given up, in nanoseconds. They need a few milliseconds of their own.
const PATIENCE: u64 = 10_000_000_000;

/// The same for virtual cores: on a host with fewer processors than the guest has cores they wait for each other, and for
/// whatever else that host does.
const VIRTUAL_PATIENCE: u64 = 60_000_000_000;

/// Cores that have arrived.
static ARRIVED: AtomicU32 = AtomicU32::new(0);

/// Starts all other cores and waits for them. Returns whether all that the loader listed came up.
/// Where there is no memory for the stacks of all, the rest stay halted.
///
/// # Safety
/// Called once, by the boot core, while the loader's memory is intact.
pub(crate) unsafe fn start_others(boot: &BootInformation) -> bool {
    let start = time::now();
    let mut locals: Vec<&'static Local> = alloc::vec![&BOOT];
    let mut cores = Vec::new();
    let mut complete = true;
    // SAFETY: the caller's promise.
    for cpu in unsafe { requests::cores(boot) } {
        // SAFETY: the protocol's structure, which only its atomic fields change.
        let cpu = unsafe { cpu.as_ref() };
        if cpu.lapic_id == boot.boot_apic_id {
            continue;
        }
        let slot = locals.len();
        // Half of memory is left to programs: many cores without memory for them would be of no use.
        let (free, total) = space::memory_bytes();
        let stacks = (free > total / 2).then(|| Stacks::new(slot));
        let Some(Ok(stacks)) = stacks else {
            warn!(
                "no memory for the stacks of {} cores: they stay halted",
                boot.cores.0 - slot
            );
            complete = false;
            break;
        };
        let local = Box::leak(Box::new(Local::new(slot, cpu.lapic_id)));
        local
            .stack
            .store(stacks.top(Purpose::Work), Ordering::Relaxed);
        // The core does not run yet.
        local.descriptors.get_mut().set_stacks(&stacks);
        let local: &'static Local = local;
        locals.push(local);
        cores.push((cpu, local));
    }
    for &(cpu, local) in &cores {
        let address = core::ptr::from_ref(local).addr() as u64;
        if cpu.extra.swap(address, Ordering::AcqRel) == HALTING {
            // SAFETY: the core is in the stub, whose table has a handler for NMIs.
            BOOT.with_apic(|apic| unsafe { apic.send_nmi(local.apic_id()) });
        }
    }
    let expected = cores.len() as u32;
    let patience = if features::virtual_machine() {
        VIRTUAL_PATIENCE
    } else {
        PATIENCE
    };
    let (mut arrived, mut last) = (0, start);
    while arrived < expected {
        let now = time::now();
        let count = ARRIVED.load(Ordering::Acquire);
        if count > arrived {
            (arrived, last) = (count, now);
        } else if now.saturating_sub(last) >= patience {
            break;
        }
        LATEST.fetch_max(tsc::read(), Ordering::AcqRel);
        core::hint::spin_loop();
    }
    let behind = BEHIND.load(Ordering::Relaxed);
    if behind > 0 {
        warn!(
            "the cores' time-stamp counters disagree by {} ns or more: times may run backwards between cores",
            time::duration(behind)
        );
    }
    let mut all = Vec::with_capacity(locals.len());
    for local in locals {
        let absent = local.stage.compare_exchange(
            Stage::Absent as u32,
            Stage::Abandoned as u32,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        match absent {
            Ok(_) => warn!(
                "core with APIC identifier {} did not come up",
                local.apic_id()
            ),
            Err(_) => {
                local.set_index(all.len());
                all.push(local);
            }
        }
    }
    complete &= all.len() == cores.len() + 1;
    info!(
        "cores: {} of {} up in {} us",
        all.len(),
        boot.cores.0,
        (time::now() - start) / 1000
    );
    local::set_all(Vec::leak(all));
    complete
}

/// Sets up the calling core's data, descriptor tables and local APIC.
///
/// # Safety
/// Called once by each core but the boot core, with interrupts off; `this` is its own.
pub(crate) unsafe fn initialise_other(this: &'static Local) {
    // SAFETY: the caller's promise.
    unsafe {
        this.install();
        (*this.descriptors.get()).load();
        descriptors::load_interrupts();
        enable_apic(this);
    }
}

/// The latest reading of any core's time-stamp counter, while cores come up.
static LATEST: AtomicU64 = AtomicU64::new(0);
/// The most ticks that a core's counter was found behind another's.
static BEHIND: AtomicU64 = AtomicU64::new(0);

/// Compares the calling core's time-stamp counter with the others': how far it is behind what one of them has read already.
/// The boot core reads all the time meanwhile, so a difference of more than a few hundred ticks shows.
fn compare_clocks() {
    for _ in 0..8 {
        let latest = LATEST.load(Ordering::Acquire);
        // SAFETY: a fence has no preconditions. Without it the counter could be read before the word.
        unsafe { core::arch::x86_64::_mm_lfence() };
        let own = tsc::read();
        LATEST.fetch_max(own, Ordering::AcqRel);
        BEHIND.fetch_max(latest.saturating_sub(own), Ordering::Relaxed);
    }
}

/// Counts the calling core as up; halts it for ever if it is too late.
pub(crate) fn arrive(this: &Local) {
    compare_clocks();
    let late = this.stage.compare_exchange(
        Stage::Absent as u32,
        Stage::Online as u32,
        Ordering::AcqRel,
        Ordering::Acquire,
    );
    if late.is_err() {
        loop {
            interrupts::disable();
            hlt();
        }
    }
    ARRIVED.fetch_add(1, Ordering::AcqRel);
}

static RELEASED: AtomicBool = AtomicBool::new(false);

/// Lets the cores that arrived go on.
pub(crate) fn release_others() {
    RELEASED.store(true, Ordering::Release);
    for index in 1..local::all().len() {
        park::unpark(index);
    }
    watchdog::start();
}

/// Parks until the boot core releases all cores.
pub(crate) fn wait_for_release(this: &Local) {
    while !RELEASED.load(Ordering::Acquire) {
        park::park(None);
    }
    this.stage.store(Stage::Working as u32, Ordering::Release);
}

/// The calling core has nothing to do any more, and will halt with interrupts off.
pub(crate) fn retire(this: &Local) {
    this.stage.store(Stage::Retired as u32, Ordering::Release);
}

/// Whether core `cpu` has gone on after its release.
pub(crate) fn has_left(cpu: usize) -> bool {
    local::all()[cpu].stage.load(Ordering::Acquire) == Stage::Working as u32
}
