//! The first instructions of each core, and the boot core's way from the loader's world into the kernel's own.

use super::{command_line::CommandLine, phases::Phases, requests};
use crate::{
    console,
    cpu::{self, features, local, park, startup, timer, watchdog},
    files, info,
    memory::{
        self,
        map::{Kind, MemoryMap, Region},
        paging::{Access, Cache},
        space,
        stacks::{Purpose, Stacks},
    },
    power, run, screen, symbols, time, warn,
};
use alloc::vec::Vec;
use core::{arch::global_asm, cell::UnsafeCell, ops::Range, ptr::NonNull};
use drivers::{
    acpi::{Machine, Memory},
    apic::io::IoApic,
    hpet::Hpet,
    keyboard::{Keyboard, Problem},
    pic, rtc, tsc,
};
use requests::BootInformation;

// SSE first: every line of Rust may use it. (Limine leaves CR0 and CR4 with nothing but paging, protection and PAE certain.)
global_asm!(
    ".globl viridis_start",
    "viridis_start:",
    "cli",
    "cld",
    "mov rax, cr0",
    "and eax, ~{cr0_clear}",
    "or eax, {cr0_set}",
    "mov cr0, rax",
    "mov rax, cr4",
    "or eax, {cr4_set}",
    "mov cr4, rax",
    // The default of both: all exceptions masked, round to nearest.
    "fninit",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "pop rax",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {first}",
    "ud2",
    cr0_clear = const features::CR0_CLEAR,
    cr0_set = const features::CR0_SET,
    cr4_set = const features::CR4_SET,
    first = sym first,
);

// Changes to the kernel's page tables and stack: nothing of the loader's is used from there on.
global_asm!(
    "viridis_change_tables:", // (root: rdi, stack: rsi, next: rdx)
    "mov cr3, rdi",
    "mov rsp, rsi",
    "xor ebp, ebp",
    "call rdx",
    "ud2",
);

unsafe extern "C" {
    /// Loads CR3 with `root`, sets the stack pointer to `stack` and calls `next`.
    fn viridis_change_tables(root: u64, stack: u64, next: extern "sysv64" fn() -> !) -> !;
}

/// What the boot core learns before it changes stacks, kept for after.
struct Kept {
    boot: BootInformation,
    map: MemoryMap,
    phases: Phases,
    stacks: Option<Stacks>,
}

struct Keep(UnsafeCell<Kept>);

// SAFETY: the boot core alone uses it, before and after the change of stacks.
unsafe impl Sync for Keep {}

static KEEP: Keep = Keep(UnsafeCell::new(Kept {
    boot: BootInformation::new(),
    map: MemoryMap::new(),
    phases: Phases::new(0),
    stacks: None,
}));

/// The boot core, on the loader's stack and page tables.
extern "sysv64" fn first() -> ! {
    let start = tsc::read();
    time::set_base(start);
    // The other cores poll in the loader; send them to halt before anything else.
    for core in requests::other_cores() {
        startup::send_to_halt(core);
    }
    // SAFETY: this core, once, interrupts off, on the static stacks that the tables get.
    unsafe { startup::initialise_boot_core() };
    console::initialise();
    // SAFETY: nobody else runs; `second` uses it after this function has ended.
    let kept = unsafe { &mut *KEEP.0.get() };
    let Kept {
        boot,
        map,
        phases,
        stacks,
    } = kept;
    // SAFETY: the loader's tables are in use.
    unsafe { requests::read(boot, map) };
    let words = CommandLine::parse(boot.command_line());
    if words.quiet {
        console::log::set_quiet();
    }
    // The loader's start, if it told, is where the boot's time begins.
    let begin = words
        .loader_tsc
        .filter(|&begin| begin < start)
        .unwrap_or(start);
    time::set_base(begin);
    *phases = Phases::new(begin);
    phases.end_at("loader", start);
    memory::direct::set_offset(boot.direct_map);
    phases.end("entry");
    // SAFETY: once, with the loader's direct map, from its own answers.
    let made = unsafe {
        space::make_frames(map);
        space::make_tables(map, boot.image);
        Stacks::new(0).expect("no memory for stacks")
    };
    let root = space::space().root();
    let top = made.top(Purpose::Work);
    *stacks = Some(made);
    phases.end("memory");
    // SAFETY: the tables map the image where it is, and the stack.
    unsafe { viridis_change_tables(root, top, second) }
}

/// The boot core, on its own stack and page tables.
extern "sysv64" fn second() -> ! {
    // SAFETY: the kernel's tables are in use, and no other core runs.
    unsafe { space::adopt() };
    // SAFETY: `first` has ended.
    let kept = unsafe { &mut *KEEP.0.get() };
    let Kept {
        boot,
        map,
        phases,
        stacks,
    } = kept;
    let stacks = stacks.as_ref().expect("made before the change of stacks");
    // SAFETY: interrupts are off.
    unsafe {
        features::initialise();
        startup::set_boot_stacks(stacks);
    }
    if let Some(range) = boot.symbols.clone() {
        // SAFETY: the loader's own answer.
        symbols::initialise(unsafe { module(range) });
    }
    screen::initialise(boot.screen);
    let words = CommandLine::parse(boot.command_line());
    let memory = Firmware(map);
    let machine = boot
        .root_pointer
        .and_then(|root| Machine::read(root, &memory, &mut |text| warn!("ACPI: {text}")));
    if let Some(power) = machine.and_then(|machine| machine.power) {
        power::set(power);
    }
    let hpet = machine
        .as_ref()
        .and_then(|machine| machine.hpet)
        .and_then(|address| {
            // SAFETY: the registers that the tables name, driven only here.
            unsafe {
                Hpet::new(space::map_device(
                    address,
                    1024,
                    Access::ReadWrite,
                    Cache::Uncacheable,
                ))
            }
        });
    // SAFETY: nobody uses the 8254; interrupts are off.
    let frequency = unsafe { tsc::frequency(hpet.as_ref()) };
    let (hertz, source) = frequency.expect("no clock to calibrate the time-stamp counter by");
    time::set_frequency(hertz);
    // SAFETY: interrupts are off, and nobody uses the controllers.
    unsafe { pic::disable(cpu::vector::LEGACY) };
    // SAFETY: the boot core, once, interrupts off.
    unsafe { startup::enable_apic(local::current()) };
    let counts = timer::calibrate(local::current());
    let mwait = park::choose();
    if let Some(seconds) = boot.date.filter(|&seconds| seconds > 0).or_else(rtc::read) {
        time::set_wall_clock(seconds);
    }
    phases.end("clocks");
    info!(
        "viridis {}, started by {}, revision {}",
        env!("CARGO_PKG_VERSION"),
        boot.loader(),
        boot.revision
    );
    // Under QEMU the counter is 0 at power-on, so this says what firmware and loader took, whoever they are.
    let entered = time::duration(phases.entered()) / 1000;
    info!(
        "entered at {}.{} ms of the counter",
        entered / 1000,
        entered / 100 % 10
    );
    if !boot.command_line().is_empty() {
        info!("command line: {}", boot.command_line());
    }
    let (free, total) = space::memory_bytes();
    info!(
        "memory: {} MiB free of {} MiB usable",
        free >> 20,
        total >> 20
    );
    info!(
        "clocks: time-stamp counter {}.{:03} MHz from {source:?}{}; local timer {}; {}; idle by {}",
        hertz / 1_000_000,
        hertz / 1000 % 1000,
        if tsc::invariant() { ", invariant" } else { "" },
        counts.map_or("by deadline", |_| "counts"),
        if startup::uses_x2apic() {
            "x2APIC"
        } else {
            "xAPIC"
        },
        if mwait { "mwait" } else { "hlt" },
    );
    match &machine {
        Some(machine) => {
            let keyboard = machine.keyboard_controller && find_keyboard();
            route_input(machine, keyboard);
        }
        None => warn!("no ACPI tables: no input interrupts"),
    }
    console::find_consoles();
    screen::describe();
    // SAFETY: the loader's own answer.
    files::archive::open(boot.archive.clone().map(|range| unsafe { module(range) }));
    phases.end("devices");

    if let Some(machine) = &machine {
        // SAFETY: the loader's memory is still there.
        unsafe { compare_cores(machine, boot) };
    }
    // SAFETY: the loader's memory is still there, and this is done once.
    let all_up = unsafe { startup::start_others(boot) };
    phases.end("cores");
    if all_up {
        // SAFETY: every core that the loader started is on the kernel's tables and stacks, and its answers were copied.
        let bytes = unsafe { space::reclaim(map, Kind::LoaderReclaimable) };
        info!("memory: {} KiB of the loader's reclaimed", bytes >> 10);
    }
    // SAFETY: the tables were read above, and what refers to them is used no more.
    let bytes = unsafe { space::reclaim(map, Kind::AcpiTables) };
    if bytes > 0 {
        info!("memory: {} KiB of ACPI tables reclaimed", bytes >> 10);
    }
    phases.end("reclaim");
    phases.log();
    if let Some(seconds) = words.watchdog {
        watchdog::set_limit(seconds);
    }
    x86_64::instructions::interrupts::enable();
    run::prepare(&words);
    console::input::start();
    startup::release_others();
    screen::start();
    run::boot_core(words)
}

/// A module's bytes.
///
/// # Safety
/// The range is that of a module. It stays where the loader put it: its memory is never given to the allocator, and nobody
/// writes it.
unsafe fn module(range: Range<u64>) -> &'static [u8] {
    let bytes = (range.end - range.start) as usize;
    // SAFETY: the caller's promise; the direct map covers modules.
    unsafe { core::slice::from_raw_parts(memory::direct::reach::<u8>(range.start), bytes) }
}

/// Memory in which the firmware's tables may lie: what the memory map lists, or below 1 MiB. Elsewhere may be devices, whose
/// registers a read changes, or nothing, or addresses that the processor does not have.
struct Firmware<'a>(&'a MemoryMap);

impl Memory for Firmware<'_> {
    fn bytes(&self, physical: u64, length: usize) -> Option<&[u8]> {
        let end = physical.checked_add(length as u64)?;
        let listed = |region: &Region| {
            region.kind != Kind::Framebuffer && region.start <= physical && end <= region.end
        };
        if end > 1 << 20 && !self.0.regions().iter().any(listed) {
            return None;
        }
        let start = space::map_table(physical, length);
        // SAFETY: just mapped, for good; firmware does not change its tables while the machine runs.
        Some(unsafe { core::slice::from_raw_parts(start.as_ptr(), length) })
    }
}

/// Compares the processors that the firmware lists with those that the loader does.
///
/// # Safety
/// As for [`requests::cores`].
unsafe fn compare_cores(machine: &Machine, boot: &BootInformation) {
    let mut listed: Vec<u32> = machine.processors().collect();
    // SAFETY: the caller's promise.
    let cores = unsafe { requests::cores(boot) };
    // SAFETY: the protocol's structures, in the loader's memory.
    let ids = cores.map(|core| unsafe { core.as_ref() }.lapic_id);
    let mut given: Vec<u32> = ids.collect();
    listed.sort_unstable();
    listed.dedup();
    given.sort_unstable();
    let missing = |of: &[u32], from: &[u32]| {
        let missing = of.iter().filter(|id| from.binary_search(id).is_err());
        missing.copied().collect::<Vec<_>>()
    };
    for id in missing(&listed, &given) {
        warn!("the MADT lists a core with APIC identifier {id}, which the loader did not start");
    }
    for id in missing(&given, &listed) {
        warn!("the loader started a core with APIC identifier {id}, which the MADT does not list");
    }
}

/// How long the keyboard controller may take to be set up, in nanoseconds: what Linux allows for one command.
const KEYBOARD_PATIENCE: u64 = 500_000_000;

/// Sets the keyboard up, if there is one.
fn find_keyboard() -> bool {
    let start = time::now();
    // SAFETY: the PC's standard ports; this core, once.
    let found = unsafe { Keyboard::start(&mut || time::now() - start > KEYBOARD_PATIENCE) };
    match found {
        Ok(keyboard) => {
            info!("keyboard: at the PC's controller");
            console::input::type_at(keyboard);
            return true;
        }
        Err(Problem::Absent) => info!("no keyboard controller"),
        Err(Problem::Silent(what)) => {
            warn!("the keyboard controller did not {what} in time: no keyboard")
        }
    }
    false
}

/// Lets the interrupts of the serial ports and the keyboard come to this core.
fn route_input(machine: &Machine, keyboard: bool) {
    let Ok(apic) = u8::try_from(local::current().apic_id()) else {
        warn!("the boot core's APIC identifier does not fit the I/O APIC: no input interrupts");
        return;
    };
    let mut wanted = [
        (4, cpu::vector::COM1, false),
        (3, cpu::vector::COM2, false),
        (1, cpu::vector::KEYBOARD, !keyboard),
    ];
    for entry in machine.io_apics() {
        // SAFETY: the registers that the tables name, driven only here.
        let mut chip = unsafe {
            IoApic::new(
                space::map_device(entry.address, 0x20, Access::ReadWrite, Cache::Uncacheable),
                entry.base,
            )
        };
        for (irq, vector, routed) in &mut wanted {
            let interrupt = machine.isa_interrupt(*irq);
            if !*routed && chip.serves(interrupt.gsi) {
                // SAFETY: every vector has a handler.
                unsafe { chip.route(interrupt.gsi, interrupt.line, *vector, apic) };
                *routed = true;
            }
        }
    }
    if wanted.iter().any(|&(_, _, routed)| !routed) {
        warn!("no I/O APIC serves the serial ports and the keyboard: no input interrupts");
    }
}

/// Another core, on the kernel's page tables and its own stack.
pub(crate) extern "sysv64" fn other(this: NonNull<local::Local>) -> ! {
    // SAFETY: the boot core gave this structure, which lives for ever, to this core alone; interrupts are off.
    let this = unsafe { this.as_ref() };
    // SAFETY: as above.
    unsafe {
        startup::initialise_other(this);
        features::initialise();
    }
    startup::arrive(this);
    x86_64::instructions::interrupts::enable();
    startup::wait_for_release(this);
    run::other_core(this.index())
}
