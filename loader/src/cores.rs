//! The other cores: found in the MADT, started all at once, and parked until the kernel says where to go.
//!
//! Starting is done twice (Intel SDM vol. 3, 9.4.4). The first INIT and start-up IPI make each core say that it is there
//! and halt, so that nobody polls while stragglers come: on a host with fewer CPUs than the machine has cores, those that
//! poll would take the time that the others need to arrive. The second, sent when everything else is done, brings them to
//! where they poll `goto_address`: for a moment without a break, then from a timer's interrupt to the next, again lest
//! hundreds of them keep the one core waiting that is about to tell them where to go.
//!
//! What each [`Core`] record goes through: `ABSENT` until the core itself makes it `PRESENT`, or until the boot processor's
//! patience ends and it makes it `GIVEN_UP`; both by compare-and-swap, so that one of them wins and the two agree. A core
//! that finds itself given up halts for good.

use crate::{
    exceptions,
    machine::{Countdown, stop},
    memory::{self, Memory},
    mtrr,
};
use core::{
    arch::x86_64::__cpuid,
    ptr::null_mut,
    sync::atomic::{
        AtomicPtr, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};
use loader::{
    acpi::Device,
    memory_map::Error,
    protocol::{ABSENT, Core, GIVEN_UP, HHDM, MpInfo, PRESENT},
};
use x86_64::{
    PhysAddr,
    instructions::{hlt, interrupts},
    registers::{
        control::{Cr3, Cr3Flags},
        model_specific::Msr,
    },
    structures::paging::PhysFrame,
};

/// The records of all cores, for `start.s`: a core finds its own by its APIC id. Null until they are complete.
#[unsafe(no_mangle)]
static CORE_TABLE: AtomicPtr<Core> = AtomicPtr::new(null_mut());

/// How many records there are.
#[unsafe(no_mangle)]
static CORE_COUNT: AtomicU64 = AtomicU64::new(0);

/// The kernel's top-level page table once cores are to be parked; 0 while they are only counted.
static KERNEL_TABLES: AtomicU64 = AtomicU64::new(0);

/// 1 if every core is to use its local APIC in x2APIC mode.
static X2APIC: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
}

unsafe extern "sysv64" {
    /// Goes to `entry` on the stack that ends at `stack_end`, with `argument` as the only register that is not 0.
    fn enter(entry: u64, stack_end: u64, argument: u64) -> !;
}

/// The most cores that are listed; more than any machine that QEMU makes.
const CAPACITY: usize = 4096;

/// How long no core may have answered before the rest are given up: in steps of [`STEP`], 10 seconds.
const PATIENCE: u32 = 200;

/// The same for virtual cores, which a busy host can keep from running for long: a minute.
const VIRTUAL_PATIENCE: u32 = 1200;

/// Microseconds.
const STEP: u32 = 50_000;

mod apic {
    //! The local APIC, in either of its modes (Intel SDM vol. 3, 11.4, 11.6 and 11.12).

    use super::*;

    const BASE: u32 = 0x1b;
    const BASE_ENABLED: u64 = 1 << 11;
    const BASE_X2APIC: u64 = 1 << 10;
    const SPURIOUS: u32 = 0xf0;
    const COMMAND_LOW: u32 = 0x300;
    const COMMAND_HIGH: u32 = 0x310;
    const PENDING: u32 = 1 << 12;
    const END_OF_INTERRUPT: u32 = 0xb0;
    const TIMER: u32 = 0x320;
    const TIMER_INITIAL: u32 = 0x380;
    const TIMER_DIVIDE: u32 = 0x3e0;
    const MASKED: u32 = 1 << 16;

    /// INIT and start-up, level asserted; the start-up IPI's vector is added.
    pub const INIT: u32 = 0x4500;
    pub const STARTUP: u32 = 0x4600;
    const ALL_BUT_SELF: u32 = 3 << 18;

    fn base() -> u64 {
        // SAFETY: every x86-64 processor has IA32_APIC_BASE.
        unsafe { Msr::new(BASE).read() }
    }

    pub fn is_x2apic() -> bool {
        base() & BASE_X2APIC != 0
    }

    pub fn has_x2apic() -> bool {
        __cpuid(1).ecx & (1 << 21) != 0
    }

    /// Switches this core's APIC on, and into x2APIC mode if asked.
    pub fn enable(x2apic: bool) {
        let wanted = base() | BASE_ENABLED;
        // SAFETY: the APIC's base address stays; from "off" the way to x2APIC mode leads over xAPIC mode.
        unsafe {
            Msr::new(BASE).write(wanted);
            if x2apic {
                Msr::new(BASE).write(wanted | BASE_X2APIC);
            }
        }
        const SOFTWARE_ENABLED: u32 = 1 << 8;
        let spurious = read(SPURIOUS);
        if spurious & SOFTWARE_ENABLED == 0 {
            write(SPURIOUS, spurious | SOFTWARE_ENABLED | 0xff);
        }
    }

    fn register(offset: u32) -> *mut u32 {
        memory::pointer((base() & 0xf_ffff_f000) + u64::from(offset))
    }

    fn read(offset: u32) -> u32 {
        if is_x2apic() {
            // SAFETY: in x2APIC mode the register is this MSR.
            return unsafe { Msr::new(0x800 + offset / 16).read() as u32 };
        }
        // SAFETY: in xAPIC mode the register is here, mapped by the early tables, uncached by the firmware's MTRRs.
        unsafe { register(offset).read_volatile() }
    }

    fn write(offset: u32, value: u32) {
        if is_x2apic() {
            // SAFETY: as in `read`.
            unsafe { Msr::new(0x800 + offset / 16).write(u64::from(value)) };
        } else {
            // SAFETY: as in `read`.
            unsafe { register(offset).write_volatile(value) };
        }
    }

    /// Halts this core for `ticks` of its timer. Interrupts are off before and after, and the timer is as after INIT.
    pub fn sleep(ticks: u32) {
        const DIVIDE_BY_ONE: u32 = 0xb;
        write(TIMER_DIVIDE, DIVIDE_BY_ONE);
        // One shot: once HLT has ended, none is under way that could hit the kernel.
        write(TIMER, u32::from(exceptions::TIMER));
        write(TIMER_INITIAL, ticks);
        interrupts::enable_and_hlt();
        interrupts::disable();
        write(END_OF_INTERRUPT, 0);
        write(TIMER, MASKED);
        write(TIMER_DIVIDE, 0);
    }

    /// Sends an IPI to the core with this id, or to all others, and waits until it has left.
    pub fn send(command: u32, to: Option<u32>) {
        let low = command | if to.is_none() { ALL_BUT_SELF } else { 0 };
        let to = to.unwrap_or(0);
        if is_x2apic() {
            // SAFETY: the command register; INIT and start-up reach only cores that the loader may start.
            unsafe { Msr::new(0x830).write(u64::from(to) << 32 | u64::from(low)) };
            return;
        }
        write(COMMAND_HIGH, to << 24);
        write(COMMAND_LOW, low);
        while read(COMMAND_LOW) & PENDING != 0 {
            core::hint::spin_loop();
        }
    }
}

/// Whether no hypervisor says in CPUID that it is there.
fn is_hardware() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    __cpuid(1).ecx & HYPERVISOR == 0
}

/// This core's APIC id, as `start.s` finds it: the x2APIC id where there is one.
fn own_id() -> u32 {
    if __cpuid(0).eax >= 0xb {
        let topology = __cpuid(0xb);
        if topology.ebx != 0 {
            return topology.edx;
        }
    }
    __cpuid(1).ebx >> 24
}

/// The machine's cores.
pub struct Cores {
    records: &'static mut [Core],
    own_id: u32,
    startup_vector: u32,
    all_answered: bool,
}

impl Cores {
    /// Lists the boot processor and every processor of the MADT that can be started, each with a stack of `stack` bytes.
    pub fn list(
        memory: &mut Memory,
        madt: &[u8],
        x2apic: bool,
        stack: u64,
    ) -> Result<Cores, Error> {
        let own_id = own_id();
        let x2apic = apic::is_x2apic() || (x2apic && apic::has_x2apic());
        X2APIC.store(u64::from(x2apic), Relaxed);
        apic::enable(x2apic);

        let devices = || loader::acpi::devices(madt);
        let processors = || {
            devices().filter_map(|device| match device {
                // In xAPIC mode an IPI cannot name an id above 0xfe.
                Device::Processor { uid, apic_id } => {
                    (x2apic || apic_id < 0xff).then_some((uid, apic_id))
                }
                Device::IoApic { .. } => None,
            })
        };
        let room = (processors().count() + 1).min(CAPACITY);
        let records = memory.place_all(room, |_| Core {
            info: MpInfo {
                processor_id: 0,
                lapic_id: own_id,
                reserved: 0,
                goto_address: AtomicU64::new(0),
                extra_argument: AtomicU64::new(0),
            },
            stack_end: 0,
            state: ABSENT.into(),
            unused: 0,
        })?;
        // The boot processor comes first, wherever the MADT has it, or if it has it nowhere. A core that is listed twice,
        // once by each kind of record, is one core.
        records[0].state = PRESENT.into();
        let mut count = 1;
        for (uid, apic_id) in processors() {
            if apic_id == own_id {
                records[0].info.processor_id = uid;
            } else if count < room
                && records[..count]
                    .iter()
                    .all(|record| record.info.lapic_id != apic_id)
            {
                records[count].info.processor_id = uid;
                records[count].info.lapic_id = apic_id;
                count += 1;
            }
        }
        let records = &mut records[..count];
        let stack = stack.next_multiple_of(loader::PAGE);
        for record in &mut records[1..] {
            let pages = memory.pages(
                stack,
                loader::PAGE,
                loader::memory_map::Kind::LoaderReclaimable,
            )?;
            record.stack_end = pages.as_ptr_range().end as u64;
        }
        let startup_vector = if count > 1 {
            place_trampoline(memory)?
        } else {
            0
        };
        Ok(Cores {
            records,
            own_id,
            startup_vector,
            all_answered: true,
        })
    }

    /// True if every core is in x2APIC mode.
    pub fn x2apic(&self) -> bool {
        X2APIC.load(Relaxed) != 0
    }

    /// The boot processor's APIC id.
    pub fn own_id(&self) -> u32 {
        self.own_id
    }

    /// The cores that answered, the boot processor first.
    pub fn present(&self) -> impl Iterator<Item = &Core> {
        self.records
            .iter()
            .filter(|record| record.state.load(Acquire) == PRESENT)
    }

    /// The cores that did not.
    pub fn missing(&self) -> impl Iterator<Item = &Core> {
        self.records
            .iter()
            .filter(|record| record.state.load(Acquire) == GIVEN_UP)
    }

    /// Starts all other cores at once and waits until each has answered, or until none has for a while.
    pub fn count(&mut self) {
        if self.records.len() == 1 {
            return;
        }
        mtrr::save();
        CORE_COUNT.store(self.records.len() as u64, Relaxed);
        CORE_TABLE.store(self.records.as_mut_ptr(), Release);
        self.start(None);
        let answered = || self.present().count();
        let mut last = answered();
        let mut idle_steps = 0;
        let patience = if is_hardware() {
            PATIENCE
        } else {
            VIRTUAL_PATIENCE
        };
        while last < self.records.len() && idle_steps < patience {
            let step = Countdown::start(STEP);
            while answered() < self.records.len() && !step.is_over() {
                core::hint::spin_loop();
            }
            let now = answered();
            if now == last {
                // Hardware may lose the first start-up IPI; a core that has had one ignores the second.
                if idle_steps == 0 {
                    apic::send(apic::STARTUP | self.startup_vector, None);
                }
                idle_steps += 1;
            } else {
                idle_steps = 0;
            }
            last = now;
        }
        for record in &self.records[1..] {
            if record
                .state
                .compare_exchange(ABSENT, GIVEN_UP, AcqRel, Acquire)
                .is_ok()
            {
                self.all_answered = false;
                // Back to waiting for a start-up IPI, which will not come: it must not wake up in the kernel's memory.
                apic::send(apic::INIT, Some(record.info.lapic_id));
            }
        }
    }

    /// Starts the cores that answered again, now to poll for the kernel's word under its page tables.
    pub fn park(&self, tables: u64) {
        if self.records.len() == 1 {
            return;
        }
        KERNEL_TABLES.store(tables, Release);
        if self.all_answered {
            self.start(None);
            return;
        }
        for record in self
            .present()
            .filter(|record| record.info.lapic_id != self.own_id)
        {
            self.start(Some(record.info.lapic_id));
        }
    }

    /// INIT, then start-up twice, to one core or to all others. The SDM's wait of 10 ms between the two is for hardware;
    /// a hypervisor, which says so in CPUID, needs none.
    fn start(&self, to: Option<u32>) {
        let is_hardware = is_hardware();
        apic::send(apic::INIT, to);
        if is_hardware {
            Countdown::wait(10_000);
        }
        apic::send(apic::STARTUP | self.startup_vector, to);
        if is_hardware {
            Countdown::wait(200);
            apic::send(apic::STARTUP | self.startup_vector, to);
        }
    }
}

/// Copies the real-mode code below 1 MiB and gives its start-up vector.
fn place_trampoline(memory: &mut Memory) -> Result<u32, Error> {
    let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
    // SAFETY: both symbols bound one section of the loader's image.
    let code = unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) };
    let page = memory.real_mode_page()?;
    page[..code.len()].copy_from_slice(code);
    Ok((memory::physical(page.as_ptr()) >> 12) as u32)
}

/// Entered from `start.s` on every other core, on the stack of its record: once to be counted, once to be parked.
#[unsafe(no_mangle)]
extern "sysv64" fn core_main(core: &'static Core) -> ! {
    exceptions::load();
    // Both times: QEMU's INIT resets the MTRRs and the PAT, which a processor's leaves alone.
    apic::enable(X2APIC.load(Relaxed) != 0);
    mtrr::adopt();
    mtrr::set_pat();
    let tables = KERNEL_TABLES.load(Acquire);
    if tables == 0 {
        // Whether the boot processor still waits or not: this core halts, until it is started again or for good.
        let _ = core
            .state
            .compare_exchange(ABSENT, PRESENT, AcqRel, Acquire);
        halt();
    }
    if core.state.load(Acquire) != PRESENT {
        halt();
    }
    let entry = word(&core.info);
    load_tables(tables);
    // SAFETY: the kernel gave this address; the record and the stack are this core's own and lie in the direct map, which
    // the tables just loaded have.
    unsafe { enter(entry, core.stack_end, &raw const core.info as u64) }
}

/// Waits until the kernel says where this core is to go.
///
/// The pauses double from one to the next, so that a core is late by no more than the time it has waited, and never by
/// more than the longest of them.
fn word(info: &MpInfo) -> u64 {
    /// Polls before the first pause; some ten microseconds.
    const EAGER: u32 = 200;
    /// Ticks of the timer, which has 1 GHz in QEMU: half a millisecond, 32 milliseconds.
    const SHORTEST: u32 = 500_000;
    const LONGEST: u32 = 32_000_000;
    let given = || Some(info.goto_address.load(Acquire)).filter(|address| *address != 0);
    let eager = (0..EAGER).find_map(|_| {
        core::hint::spin_loop();
        given()
    });
    let mut pause = SHORTEST;
    eager.unwrap_or_else(|| {
        loop {
            if let Some(address) = given() {
                return address;
            }
            apic::sleep(pause);
            pause = (2 * pause).min(LONGEST);
        }
    })
}

fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// Enters the kernel on the boot processor, under its page tables.
///
/// # Safety
/// The tables map the image with its entry point and the direct map with the stack, and no reference into memory that the
/// kernel may take is used by the loader any more.
pub unsafe fn enter_kernel(tables: u64, entry: u64, stack_end: u64) -> ! {
    load_tables(tables);
    // SAFETY: the caller's promise.
    unsafe { enter(entry, stack_end, 0) }
}

/// Goes over to the kernel's page tables.
fn load_tables(root: u64) {
    let Ok(frame) = PhysFrame::from_start_address(PhysAddr::new(root)) else {
        stop(format_args!(
            "the page table at {root:#x} is not on a page boundary"
        ))
    };
    const { assert!(HHDM == 0xffff_8000_0000_0000) };
    // SAFETY: these tables map the direct map, where this code, its stack and its data are, as the early ones do.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) }
}
