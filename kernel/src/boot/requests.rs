//! The Limine boot protocol: what the kernel asks of the loader, and the answers, copied out of the loader's memory.
//!
//! The kernel requests base revision 2 and takes what any revision gives. It relies on the loader's mappings only for its own
//! image, memory that the map calls usable, and the answers themselves.

use crate::memory::map::{Kind, MemoryMap};
use core::{ffi::CStr, ops::Range, ptr::NonNull};
use drivers::framebuffer::Format;
use limine::{
    BaseRevision,
    framebuffer::MemoryModel,
    memory_map::EntryType,
    mp::{Cpu, RequestFlags},
    request::{
        BootloaderInfoRequest, DateAtBootRequest, ExecutableAddressRequest,
        ExecutableCmdlineRequest, ExecutableFileRequest, FramebufferRequest, HhdmRequest,
        MemoryMapRequest, ModuleRequest, MpRequest, RequestsEndMarker, RequestsStartMarker,
        RsdpRequest,
    },
};

#[used]
#[unsafe(link_section = ".requests_start")]
static START: RequestsStartMarker = RequestsStartMarker::new();
#[used]
#[unsafe(link_section = ".requests_end")]
static END: RequestsEndMarker = RequestsEndMarker::new();

macro_rules! requests {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        $(#[used]
        #[unsafe(link_section = ".requests")]
        static $name: $type = $value;)*
    };
}

requests! {
    REVISION: BaseRevision = BaseRevision::with_revision(2);
    LOADER: BootloaderInfoRequest = BootloaderInfoRequest::new();
    DIRECT_MAP: HhdmRequest = HhdmRequest::new();
    MEMORY: MemoryMapRequest = MemoryMapRequest::new();
    ADDRESS: ExecutableAddressRequest = ExecutableAddressRequest::new();
    COMMAND_LINE: ExecutableCmdlineRequest = ExecutableCmdlineRequest::new();
    FILE: ExecutableFileRequest = ExecutableFileRequest::new();
    MODULES: ModuleRequest = ModuleRequest::new();
    CORES: MpRequest = MpRequest::new().with_flags(RequestFlags::X2APIC);
    ROOT_POINTER: RsdpRequest = RsdpRequest::new();
    FRAMEBUFFER: FramebufferRequest = FramebufferRequest::new();
    DATE: DateAtBootRequest = DateAtBootRequest::new();
}

/// A framebuffer as the loader describes it.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Physical address.
    pub address: u64,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Layout of a pixel.
    pub format: Format,
}

/// Bytes of the command line that are kept.
pub const COMMAND_LINE_BYTES: usize = 2048;

/// What the loader said. Addresses are physical.
#[derive(Debug)]
pub struct BootInformation {
    /// The loader's direct map: what it adds to physical addresses.
    pub direct_map: u64,
    /// Base revision in effect.
    pub revision: u64,
    /// Where the kernel's image lies.
    pub image: u64,
    /// The ACPI root pointer.
    pub root_pointer: Option<u64>,
    /// The boot archive.
    pub archive: Option<Range<u64>>,
    /// The kernel's symbols.
    pub symbols: Option<Range<u64>>,
    /// The framebuffer.
    pub screen: Option<Screen>,
    /// Seconds since 1970 when the loader ran.
    pub date: Option<u64>,
    /// How many cores the loader lists, and where the list of addresses of their structures is (physical).
    pub cores: (usize, u64),
    /// The boot core's APIC identifier.
    pub boot_apic_id: u32,
    command_line: ([u8; COMMAND_LINE_BYTES], usize),
    loader: ([u8; 64], usize),
}

/// Copies as much of `text` as fits, and returns its length there.
fn copy(text: &[u8], to: &mut [u8]) -> usize {
    let length = text.len().min(to.len());
    to[..length].copy_from_slice(&text[..length]);
    length
}

/// The part of copied text that is valid UTF-8.
fn text(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

impl BootInformation {
    pub(super) const fn new() -> Self {
        Self {
            direct_map: 0,
            revision: 0,
            image: 0,
            root_pointer: None,
            archive: None,
            symbols: None,
            screen: None,
            date: None,
            cores: (1, 0),
            boot_apic_id: 0,
            command_line: ([0; COMMAND_LINE_BYTES], 0),
            loader: ([0; 64], 0),
        }
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> &str {
        text(&self.command_line.0[..self.command_line.1])
    }

    /// The loader's name and version.
    pub fn loader(&self) -> &str {
        text(&self.loader.0[..self.loader.1])
    }
}

/// The cores' structures other than the boot core's, in the loader's list.
pub(super) fn other_cores() -> impl Iterator<Item = &'static Cpu> {
    let response = CORES.get_response();
    response.into_iter().flat_map(|response| {
        let boot = response.bsp_lapic_id();
        response
            .cpus()
            .iter()
            .copied()
            .filter(move |cpu| cpu.lapic_id != boot)
    })
}

/// Reads the answers: what is needed later, and the memory map, both empty before. (In place, because the loader's stack may
/// be no larger than 64 KiB.)
///
/// # Panics
/// When the loader left out what no kernel can do without.
///
/// # Safety
/// Called once, on the boot core, while the loader's page tables are in use.
pub(super) unsafe fn read(boot: &mut BootInformation, map: &mut MemoryMap) {
    let offset = DIRECT_MAP
        .get_response()
        .expect("the loader gave no direct map")
        .offset();
    boot.direct_map = offset;
    // Loaders before revision 3 leave the field alone, and take the request's revision if they know it, else 0.
    boot.revision = REVISION
        .loaded_revision()
        .unwrap_or(if REVISION.is_supported() { 2 } else { 0 });
    let physical = |address: u64| address.checked_sub(offset);

    if let Some(answer) = LOADER.get_response() {
        let name = copy(answer.name().as_bytes(), &mut boot.loader.0);
        let blank = copy(b" ", &mut boot.loader.0[name..]);
        let version = copy(
            answer.version().as_bytes(),
            &mut boot.loader.0[name + blank..],
        );
        boot.loader.1 = name + blank + version;
    }
    // Releases before 9 know the command line only as the string of the kernel's file.
    let words = COMMAND_LINE.get_response().map(|answer| answer.cmdline());
    let words = words.or_else(|| FILE.get_response().map(|answer| answer.file().string()));
    boot.command_line.1 = copy(
        words.map(CStr::to_bytes).unwrap_or_default(),
        &mut boot.command_line.0,
    );

    boot.image = {
        let answer = ADDRESS
            .get_response()
            .expect("the loader gave no address of the kernel");
        // The image is linked at one address, and not relocatable.
        assert_eq!(
            answer.virtual_base(),
            crate::memory::image::image().start,
            "the loader moved the kernel"
        );
        answer.physical_base()
    };
    // Physical in revision 3, else in the direct map: the value tells, because no memory is that far up.
    boot.root_pointer = ROOT_POINTER
        .get_response()
        .map(|answer| answer.address() as u64);
    boot.root_pointer = boot
        .root_pointer
        .map(|address| physical(address).unwrap_or(address));
    for module in MODULES
        .get_response()
        .into_iter()
        .flat_map(|answer| answer.modules())
    {
        let Some(start) = physical(module.addr().addr() as u64) else {
            continue;
        };
        // The first of each kind counts.
        let place = if module.path().to_bytes().ends_with(b".symbols") {
            &mut boot.symbols
        } else {
            &mut boot.archive
        };
        place.get_or_insert(start..start.saturating_add(module.size()));
    }
    boot.screen = FRAMEBUFFER.get_response().and_then(|answer| {
        let screen = answer
            .framebuffers()
            .find(|screen| screen.memory_model() == MemoryModel::RGB)?;
        let eight_bits = [
            screen.red_mask_size(),
            screen.green_mask_size(),
            screen.blue_mask_size(),
        ] == [8, 8, 8];
        eight_bits.then_some(Screen {
            address: physical(screen.addr().addr() as u64)?,
            width: screen.width() as usize,
            height: screen.height() as usize,
            pitch: screen.pitch() as usize,
            format: Format {
                bits_per_pixel: screen.bpp(),
                red: screen.red_mask_shift(),
                green: screen.green_mask_shift(),
                blue: screen.blue_mask_shift(),
            },
        })
    });
    boot.date = DATE
        .get_response()
        .map(|answer| answer.timestamp().as_secs());
    if let Some(answer) = CORES.get_response() {
        let cores = answer.cpus();
        boot.cores = (
            cores.len(),
            physical(cores.as_ptr().addr() as u64).expect("the list of cores is in the direct map"),
        );
        boot.boot_apic_id = answer.bsp_lapic_id();
    }

    for entry in MEMORY
        .get_response()
        .expect("the loader gave no memory map")
        .entries()
    {
        let kind = match entry.entry_type {
            EntryType::USABLE => Kind::Usable,
            EntryType::BOOTLOADER_RECLAIMABLE => Kind::LoaderReclaimable,
            EntryType::EXECUTABLE_AND_MODULES => Kind::KernelAndModules,
            EntryType::ACPI_RECLAIMABLE => Kind::AcpiTables,
            EntryType::ACPI_NVS => Kind::AcpiStorage,
            EntryType::FRAMEBUFFER => Kind::Framebuffer,
            _ => Kind::Reserved,
        };
        map.add(entry.base, entry.length, kind);
    }
}

/// The structures of all cores in the loader's list, reached through the kernel's own direct map.
///
/// # Safety
/// The kernel's page tables are in use, and the loader's memory has not been reclaimed.
pub(crate) unsafe fn cores(boot: &BootInformation) -> impl Iterator<Item = NonNull<Cpu>> + '_ {
    let (count, list) = boot.cores;
    let here = move |address: u64| crate::memory::direct::reach::<u8>(address);
    (0..if list == 0 { 0 } else { count }).filter_map(move |index| {
        // SAFETY: the list has that many entries, in loader memory, which the direct map covers.
        let entry = unsafe { here(list).cast::<u64>().add(index).read() };
        NonNull::new(here(entry.checked_sub(boot.direct_map)?).cast())
    })
}
