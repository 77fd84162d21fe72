//! The kernel's one address space and its frames: the locks around page tables and allocator, and the operations that
//! need both.

use super::{
    DEVICES, DIRECT, PAGE, VUA, direct,
    frames::{Frames, MAX_ORDER},
    image,
    map::{Kind, MemoryMap},
    paging::{Access, AddressSpace, Cache, HUGE, LARGE, NoTable, Properties, Tables},
};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};
use spin::{Mutex, Once};

static FRAMES: Mutex<Option<Frames>> = Mutex::new(None);
static SPACE: Once<AddressSpace> = Once::new();
/// Held while the tables are edited; the next free address among devices.
static EDIT: Mutex<u64> = Mutex::new(DEVICES);
/// CR3 of every core, for the assembly that starts them.
pub(crate) static ROOT: AtomicU64 = AtomicU64::new(0);

/// Mappings of memory that the kernel keeps for good.
pub(crate) const KERNEL_DATA: Properties = Properties {
    access: Access::ReadWrite,
    cache: Cache::WriteBack,
    global: true,
};

fn with_frames<T>(act: impl FnOnce(&mut Frames) -> T) -> T {
    act(FRAMES
        .lock()
        .as_mut()
        .expect("no frames before the memory map was read"))
}

/// Bytes of memory free now, and in all.
pub fn memory_bytes() -> (u64, u64) {
    with_frames(|frames| (frames.free_bytes(), frames.total_bytes()))
}

/// Takes 2^`order` frames.
pub fn allocate(order: usize) -> Option<u64> {
    with_frames(|frames| frames.allocate(order))
}

/// Gives frames back.
///
/// # Safety
/// As for [`Frames::free`].
pub unsafe fn free(block: u64, order: usize) {
    // SAFETY: the caller's promise.
    with_frames(|frames| unsafe { frames.free(block, order) });
}

/// Takes frames for tables.
struct KernelTables;

impl Tables for KernelTables {
    fn table(&mut self) -> Option<u64> {
        let frame = allocate(0)?;
        // SAFETY: the frame is ours, and the direct map reaches it.
        unsafe { direct::reach::<u8>(frame).write_bytes(0, PAGE as usize) };
        Some(frame)
    }

    fn offset(&self) -> u64 {
        direct::offset()
    }
}

/// Makes the frame allocator from the memory map, its state bytes in the first usable range that holds them.
///
/// # Panics
/// When memory is too small or its map too long.
///
/// # Safety
/// Called once, while `direct::offset` is the loader's direct map; `map` is the loader's.
pub(crate) unsafe fn make_frames(map: &MemoryMap) {
    assert!(
        map.dropped() == 0,
        "the memory map has {} regions too many",
        map.dropped()
    );
    let end = map.end_of(|kind| {
        matches!(
            kind,
            Kind::Usable | Kind::LoaderReclaimable | Kind::AcpiTables
        )
    });
    assert!(end <= super::HEAP - DIRECT, "more than 64 TiB of memory");
    let needed = Frames::state_bytes(end).next_multiple_of(PAGE);
    let mut states = None;
    map.free_ranges(Kind::Usable, |start, stop| {
        if states.is_none() && stop - start >= needed {
            states = Some(start);
        }
    });
    let states = states.expect("no memory for the frame allocator");
    // SAFETY: the range is free memory, taken out below; the loader's direct map covers usable memory in every revision.
    let mut frames = unsafe { Frames::new(direct::offset(), states, end) };
    map.free_ranges(Kind::Usable, |start, stop| {
        let start = if start == states {
            start + needed
        } else {
            start
        };
        // SAFETY: usable memory belongs to nobody else, and each range is visited once.
        unsafe { frames.add(start, stop) };
    });
    *FRAMES.lock() = Some(frames);
}

/// Builds the kernel's page tables: direct map and image.
///
/// # Panics
/// When there is no memory for them.
///
/// # Safety
/// Called once, after [`make_frames`]; `physical` is where the image lies in memory.
pub(crate) unsafe fn make_tables(map: &MemoryMap, physical: u64) {
    let mut tables = KernelTables;
    let space = AddressSpace::new(&mut tables).expect("no memory for page tables");
    let largest = if has_huge_pages() { HUGE } else { LARGE };
    let image = image::image();
    let out = "no memory for page tables";
    // The image is left out of the direct map: there is no second, writable way to the kernel's code.
    let image_frames = physical..physical + (image.end - image.start);
    let memory = |kind| {
        matches!(
            kind,
            Kind::Usable
                | Kind::LoaderReclaimable
                | Kind::KernelAndModules
                | Kind::AcpiTables
                | Kind::AcpiStorage
        )
    };
    map.covered_ranges(memory, image_frames, |start, end| {
        // SAFETY: nobody else edits the tables; these are fresh addresses.
        unsafe {
            space
                .map(
                    &mut tables,
                    DIRECT + start,
                    start,
                    end - start,
                    KERNEL_DATA,
                    largest,
                )
                .expect(out)
        };
    });
    for (range, access) in [
        (image::text(), Access::ReadExecute),
        (image::rodata(), Access::Read),
        (image::data(), Access::ReadWrite),
    ] {
        let from = physical + (range.start - image.start);
        let properties = Properties {
            access,
            ..KERNEL_DATA
        };
        // SAFETY: as above; the same addresses as in the loader's tables, so the switch is seamless.
        unsafe {
            space
                .map(
                    &mut tables,
                    range.start,
                    from,
                    range.end - range.start,
                    properties,
                    PAGE,
                )
                .expect(out)
        };
    }
    // The lower half's first entry and the upper half's tables are never replaced; every core shares them.
    ROOT.store(space.root(), Ordering::Release);
    SPACE.call_once(|| space);
}

/// Notes that the kernel's own tables are in use from now on.
///
/// # Safety
/// They are, on this core, and no other runs.
pub(crate) unsafe fn adopt() {
    direct::set_offset(DIRECT);
    // SAFETY: the kernel's direct map covers all usable memory.
    with_frames(|frames| unsafe { frames.move_direct_map(DIRECT) });
}

/// Gives memory of this kind, which was in use until now, to the frame allocator. Returns how many bytes.
///
/// # Safety
/// Nothing uses what it held any more, on any core; `map` is the loader's, and `kind` one of those that may be reclaimed. Called once
/// for each.
pub(crate) unsafe fn reclaim(map: &MemoryMap, kind: Kind) -> u64 {
    let mut bytes = 0;
    map.free_ranges(kind, |start, end| {
        bytes += end - start;
        // SAFETY: the caller's promise; the direct map covers it.
        with_frames(|frames| unsafe { frames.add(start, end) });
    });
    bytes
}

fn has_huge_pages() -> bool {
    raw_cpuid::CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|info| info.has_1gib_pages())
}

/// The address space.
pub fn space() -> &'static AddressSpace {
    SPACE.get().expect("no page tables yet")
}

/// There was not enough memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl From<NoTable> for OutOfMemory {
    fn from(_: NoTable) -> Self {
        Self
    }
}

/// Maps fresh memory at `address`, in 2 MiB pages where alignment and free memory allow and `largest` does. The memory
/// is zeroed if `zeroed`. On an error nothing stays mapped, but the addresses have been mapped for a moment.
///
/// # Panics
/// When part of the range is mapped already.
///
/// # Safety
/// `address` and `bytes` are multiples of 4 KiB, and the addresses are the caller's.
pub(crate) unsafe fn map_memory(
    address: u64,
    bytes: u64,
    properties: Properties,
    zeroed: bool,
    largest: u64,
) -> Result<(), OutOfMemory> {
    let mut done = 0;
    while done < bytes {
        let at = address + done;
        let fits = |order: usize| {
            let size = PAGE << order;
            size <= largest.max(PAGE) && at.is_multiple_of(size) && bytes - done >= size
        };
        let order = (0..=MAX_ORDER)
            .rev()
            .find(|&order| fits(order))
            .unwrap_or(0);
        // When no block of that size is left, a smaller one may be.
        let block = (0..=order)
            .rev()
            .find_map(|order| Some((allocate(order)?, order)));
        let mapped = block.map(|(block, order)| {
            let size = PAGE << order;
            if zeroed {
                // SAFETY: the block is ours, and the direct map reaches it.
                unsafe { direct::reach::<u8>(block).write_bytes(0, size as usize) };
            }
            let _guard = EDIT.lock();
            // SAFETY: the tables are locked, the block is fresh, the addresses are the caller's.
            let result =
                unsafe { space().map(&mut KernelTables, at, block, size, properties, LARGE) };
            (result, block, order)
        });
        match mapped {
            Some((Ok(()), _, order)) => done += PAGE << order,
            failed => {
                if let Some((_, block, order)) = failed {
                    // A table is needed for the block's first page at the latest (its pages share one table), so
                    // nothing of it was mapped.
                    // SAFETY: allocated above.
                    unsafe { free(block, order) };
                }
                // SAFETY: nobody knows these addresses yet.
                unsafe { unmap_memory(address, done) };
                return Err(OutOfMemory);
            }
        }
    }
    Ok(())
}

/// Takes memory that [`map_memory`] mapped away again and frees its frames. Flushes no translation cache.
///
/// # Safety
/// Nobody uses the memory any more; the addresses are used again only after every core has flushed.
pub(crate) unsafe fn unmap_memory(address: u64, bytes: u64) {
    let _guard = EDIT.lock();
    // SAFETY: the tables are locked; the rest is the caller's promise.
    unsafe {
        space().unmap(direct::offset(), address, bytes, |block, page| {
            free(block, (page / PAGE).trailing_zeros() as usize);
        });
    }
}

/// Maps `bytes` bytes of physical memory from `physical` on, for good, among the devices.
///
/// # Panics
/// When there is no memory for the tables.
///
/// # Safety
/// The mapping is sound: registers of a device that the caller drives, or memory that nobody writes otherwise.
pub unsafe fn map_device(physical: u64, bytes: usize, access: Access, cache: Cache) -> NonNull<u8> {
    let first = physical & !(PAGE - 1);
    let length = (physical + bytes.max(1) as u64).next_multiple_of(PAGE) - first;
    let mut next = EDIT.lock();
    // Large framebuffers get large pages: the address agrees with the physical one in the low 21 bits.
    let address = if length >= LARGE {
        next.next_multiple_of(LARGE) + first % LARGE
    } else {
        *next
    };
    *next = address + length;
    let properties = Properties {
        access,
        cache,
        global: true,
    };
    // SAFETY: the tables are locked, the addresses fresh; the rest is the caller's promise.
    unsafe { space().map(&mut KernelTables, address, first, length, properties, LARGE) }
        .expect("no memory for page tables");
    NonNull::new((address + physical % PAGE) as *mut u8).expect("devices are in the upper half")
}

/// Makes firmware tables readable: through the direct map if it covers them, else by a mapping of their own.
pub fn map_table(physical: u64, bytes: usize) -> NonNull<u8> {
    let end = physical + bytes.max(1) as u64;
    let covered = (physical / PAGE..end.div_ceil(PAGE)).all(|page| {
        page * PAGE < super::HEAP - DIRECT
            && space()
                .translate(direct::offset(), DIRECT + page * PAGE)
                .is_some()
    });
    if covered {
        return NonNull::new(direct::reach(physical)).expect("the direct map is in the upper half");
    }
    // SAFETY: read-only; firmware does not change its tables while the machine runs.
    unsafe { map_device(physical, bytes, Access::Read, Cache::Uncacheable) }
}

/// Checks that no page is both writable and executable, that none below 64 KiB is mapped, and that only the kernel's text is
/// executable. Returns how many pages there are, or the address of one that breaks the rule.
pub fn check_permissions() -> Result<usize, u64> {
    let mut pages = 0;
    let mut wrong = None;
    let text = image::text();
    for half in [0, 0xffff_8000_0000_0000] {
        space().each_page(direct::offset(), half, |address, leaf| {
            pages += 1;
            let outside = leaf.executable && !text.contains(&address);
            if (leaf.writable && leaf.executable) || outside || address < VUA {
                wrong.get_or_insert(address);
            }
        });
    }
    wrong.map_or(Ok(pages), Err)
}
