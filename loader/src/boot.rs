//! The order of events, from what QEMU handed over to the kernel's first instruction.

use crate::{
    cores::{self, Cores},
    display::{self, Display},
    log, machine,
    memory::{self, Firmware, Memory},
    mtrr, pvh,
    responses::{Answers, MemoryMapAnswer, text},
};
use core::{arch::x86_64::__cpuid, convert::Infallible, fmt};
use loader::{
    PAGE, acpi, align_down, align_up, archive, command_line, executable,
    executable::Executable,
    memory_map::{self, Kind, MemoryMap},
    paging::{self, Access, AddressSpace},
    protocol::{Feature, File, HHDM},
    requests::{self, Requests},
};

/// Why there is no kernel running.
pub enum Error {
    /// The start information.
    Start(pvh::Error),
    /// The boot image.
    Archive(archive::Error),
    /// The kernel's file.
    Executable(executable::Error),
    /// The kernel's requests.
    Requests(requests::Error),
    /// Memory.
    Memory(memory_map::Error),
    /// Page tables.
    Paging(paging::Error),
    /// The kernel accepts no paging mode but five levels.
    FiveLevels,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Start(error) => error.fmt(f),
            Error::Archive(error) => error.fmt(f),
            Error::Executable(error) => error.fmt(f),
            Error::Requests(error) => error.fmt(f),
            Error::Memory(error) => error.fmt(f),
            Error::Paging(error) => error.fmt(f),
            Error::FiveLevels => f.write_str(
                "the kernel demands five-level paging, which this loader does not set up",
            ),
        }
    }
}

macro_rules! from {
    ($($variant:ident: $module:ident),*) => {$(
        impl From<$module::Error> for Error {
            fn from(error: $module::Error) -> Error {
                Error::$variant(error)
            }
        }
    )*};
}

from!(Start: pvh, Archive: archive, Executable: executable, Requests: requests, Memory: memory_map, Paging: paging);

/// The smallest stack that the protocol allows, in bytes.
const STACK: u64 = 64 << 10;

const MIB: u64 = 1 << 20;

/// Boots the kernel.
pub fn boot(start_info: u64, tsc: u64) -> Result<Infallible, Error> {
    machine::mask_pic();
    mtrr::set_pat();
    let info = pvh::StartInfo::read(start_info)?;
    if command_line::has(info.command_line, "quiet") {
        log::be_quiet();
    }
    let mut memory = Memory::new(info.memory_map())?;
    let line = command_line_with_tsc(&mut memory, info.command_line, tsc)?;

    let bytes = info.boot_image_bytes()?;
    let (boot_image, boot_image_length) = (memory::physical(bytes.as_ptr()), bytes.len() as u64);
    memory
        .map()
        .claim(boot_image, boot_image_length, Kind::LoaderReclaimable)?;
    let archive = archive::BootImage::new(bytes)?;

    let kernel = Executable::parse(archive.kernel().data)?;
    let image = memory.pages(kernel.length(), 2 * MIB, Kind::ExecutableAndModules)?;
    kernel.load(image)?;
    let physical_base = memory::physical(image.as_ptr());
    // SAFETY: any eight bytes are a word, and the image begins on a page boundary, so that nothing is cut off.
    let (_, words, _) = unsafe { image.align_to_mut::<u64>() };
    let backed = kernel.file_backed().div_ceil(8) as usize;
    let words = &mut words[..backed];
    let requests = Requests::scan(words)?;
    requests.answer_base_revision(words);
    let mut answers = Answers {
        requests,
        image: words,
    };
    let member = |answers: &Answers<'_>, feature, index| {
        answers.requests.member(answers.image, feature, index)
    };

    let paging_revision = answers
        .requests
        .revision(answers.image, Feature::PagingMode);
    if paging_revision.is_some_and(|revision| revision >= 1)
        && member(&answers, Feature::PagingMode, 2) != Some(0)
    {
        return Err(Error::FiveLevels);
    }
    let stack = member(&answers, Feature::StackSize, 0)
        .unwrap_or(0)
        .max(STACK);
    let entry = member(&answers, Feature::EntryPoint, 0).unwrap_or(kernel.entry());

    answers.constants(&mut memory)?;
    answers.command_line(&mut memory, line)?;
    answers.executable_address(&mut memory, physical_base, kernel.base())?;
    answer_files(&mut answers, &mut memory, &archive, line)?;
    if let Some(time) = answers
        .requests
        .has(Feature::DateAtBoot)
        .then(machine::unix_time)
        .flatten()
    {
        answers.date(&mut memory, time)?;
    }

    let rsdp = Some(info.rsdp)
        .filter(|rsdp| acpi::is_root_pointer(&Firmware, *rsdp))
        .or_else(|| acpi::search_root_pointer(&Firmware));
    if let Some(rsdp) = rsdp {
        answers.rsdp(&mut memory, rsdp)?;
    }
    let madt = rsdp
        .and_then(|rsdp| acpi::madt(&Firmware, rsdp))
        .unwrap_or_default();
    acpi::devices(madt).for_each(machine::mask_io_apic);

    let display = answers
        .requests
        .has(Feature::Framebuffer)
        .then(display::find)
        .flatten();
    if let Some(display) = &display {
        answers.framebuffer(&mut memory, display)?;
        memory
            .map()
            .add_device(display.base, display.length(), Kind::Framebuffer)?;
    }

    let mp_flags = member(&answers, Feature::Mp, 0);
    let mut cores = match mp_flags {
        Some(flags) => Some(Cores::list(&mut memory, madt, flags & 1 != 0, stack)?),
        None => None,
    };
    let stack_end = memory
        .pages(stack, PAGE, Kind::LoaderReclaimable)?
        .as_ptr_range()
        .end as u64;
    let tables = page_tables(
        &mut memory,
        &kernel,
        physical_base,
        display.as_ref(),
        answers.requests.base_revision,
    )?;

    if let Some(cores) = &mut cores {
        cores.count();
        for missing in cores.missing() {
            log::line(format_args!(
                "core with APIC id {} does not answer: left out",
                missing.info.lapic_id
            ));
        }
        answers.cores(&mut memory, cores)?;
    }
    let map_answer = MemoryMapAnswer::new(&mut memory)?;
    // Everything in it that is still needed has been copied.
    memory
        .map()
        .release(boot_image, boot_image_length, Kind::LoaderReclaimable)?;
    map_answer.fill(memory.map(), &mut answers);

    log::info(format_args!(
        "{} cores, {} MiB usable, kernel of {} KiB at {physical_base:#x}, base revision {}",
        cores.as_ref().map_or(1, |cores| cores.present().count()),
        memory.map().usable() / MIB,
        kernel.length() / 1024,
        answers.requests.base_revision,
    ));

    if let Some(cores) = &cores {
        cores.park(tables);
    }
    // SAFETY: the tables map the image with its entry point and the direct map with the stack, and everything that is
    // still used afterwards is in the kernel's hands.
    unsafe { cores::enter_kernel(tables, entry, align_down(stack_end, 16)) }
}

fn command_line_with_tsc(
    memory: &mut Memory,
    words: &[u8],
    tsc: u64,
) -> Result<u64, memory_map::Error> {
    let target = memory.place_all(words.len() + command_line::EXTRA, |_| 0)?;
    command_line::build(words, tsc, target);
    Ok(target.as_ptr() as u64)
}

/// Copies the kernel's file, if it is asked for, and the modules to pages of their own.
fn answer_files(
    answers: &mut Answers<'_>,
    memory: &mut Memory,
    archive: &archive::BootImage<'_>,
    line: u64,
) -> Result<(), Error> {
    if answers.requests.has(Feature::ExecutableFile) {
        let file = copy(memory, &archive.kernel(), line)?;
        answers.executable_file(memory, file)?;
    }
    if answers.requests.has(Feature::Module) {
        let none = text(memory, b"")?;
        let files = memory.place_all(archive.modules().count(), |_| 0)?;
        for (slot, member) in files.iter_mut().zip(archive.modules()) {
            let file = copy(memory, &member, none)?;
            *slot = &raw const *memory.place(file)? as u64;
        }
        answers.modules(memory, files)?;
    }
    Ok(())
}

fn copy(
    memory: &mut Memory,
    member: &archive::Member<'_>,
    command_line: u64,
) -> Result<File, memory_map::Error> {
    let pages = memory.pages(member.data.len() as u64, PAGE, Kind::ExecutableAndModules)?;
    pages.copy_from_slice(member.data);
    Ok(File {
        revision: 0,
        address: pages.as_ptr() as u64,
        size: member.data.len() as u64,
        path: text(memory, member.path.with_zero())?,
        command_line,
        media_type: 0,
        unused: [0; 5],
        uuids: [[0; 4]; 3],
    })
}

/// The kernel's page tables: its image with its segments' rights, the direct map, and in base revision 0 the identity map
/// (protocol, "Entry memory layout" and "Caching"). Gives the top-level table's physical address.
fn page_tables(
    memory: &mut Memory,
    kernel: &Executable<'_>,
    physical_base: u64,
    display: Option<&Display>,
    base_revision: u64,
) -> Result<u64, paging::Error> {
    let extended = __cpuid(0x8000_0001).edx;
    let (no_execute, gigabyte_pages) = (extended & (1 << 20) != 0, extended & (1 << 26) != 0);
    let map = memory.map().clone();
    let mut space = AddressSpace::new(memory, no_execute, gigabyte_pages)?;
    for run in kernel.runs() {
        let physical = run.base - kernel.base() + physical_base;
        space.map(run.base, physical, run.end - run.base, run.access, 2 * MIB)?;
    }
    let offsets: &[u64] = if base_revision == 0 {
        &[HHDM, 0]
    } else {
        &[HHDM]
    };
    for offset in offsets {
        direct_map(&mut space, &map, display, base_revision, *offset)?;
    }
    Ok(space.root())
}

fn direct_map(
    space: &mut AddressSpace<&mut Memory>,
    map: &MemoryMap,
    display: Option<&Display>,
    base_revision: u64,
    offset: u64,
) -> Result<(), paging::Error> {
    const LOW: u64 = 1 << 32;
    // What is mapped stays as it is, so the exceptions come first.
    if let Some(display) = display {
        let access = Access {
            write_combining: true,
            ..Access::ALL
        };
        space.map(
            offset + display.base,
            display.base,
            display.length(),
            access,
            2 * MIB,
        )?;
    }
    let mut add = |base: u64, end: u64| -> Result<(), paging::Error> {
        // Memory types change within the first 2 MiB and between devices below 4 GiB, and a large page should have one.
        for (from, to, largest) in [
            (0, 2 * MIB, PAGE),
            (2 * MIB, LOW, 2 * MIB),
            (LOW, u64::MAX, 1 << 30),
        ] {
            let (from, to) = (base.max(from), end.min(to));
            if from < to {
                space.map(offset + from, from, to - from, Access::ALL, largest)?;
            }
        }
        Ok(())
    };
    if base_revision < 3 {
        // The identity map leaves the first page out, so that null pointers fault.
        add(if offset == 0 { PAGE } else { 0 }, LOW)?;
    }
    for region in map.regions() {
        let wanted = match base_revision {
            0 => true,
            1 | 2 => !matches!(region.kind, Kind::Reserved | Kind::Bad),
            _ => region.kind.is_ours(),
        };
        // Physical addresses have at most 52 bits; the direct map has room for 46.
        let end = align_up(region.end, PAGE).unwrap_or(u64::MAX).min(1 << 46);
        let base = align_down(region.base, PAGE).max(if offset == 0 { PAGE } else { 0 });
        if wanted && base < end {
            add(base, end)?;
        }
    }
    Ok(())
}
