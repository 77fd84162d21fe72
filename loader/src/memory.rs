//! The machine's memory as the loader reaches it: through the higher-half direct map of the first 4 GiB, taken piece by
//! piece from the memory map.

use core::{mem::size_of, slice};
use loader::{
    PAGE,
    acpi::PhysicalMemory,
    memory_map::{Error, Kind, MemoryMap, Region},
    paging::TableMemory,
    protocol::HHDM,
};

/// How far the early page tables reach; everything that the loader takes lies below.
pub const REACH: u64 = 1 << 32;

/// The virtual address of a physical one below [`REACH`].
pub fn pointer<T>(physical: u64) -> *mut T {
    debug_assert!(physical < REACH);
    (HHDM + physical) as *mut T
}

/// The physical address behind a pointer into the direct map.
pub fn physical<T>(pointer: *const T) -> u64 {
    pointer as u64 - HHDM
}

/// Memory as firmware and QEMU left it: tables, start information, the boot image.
///
/// Reads only. What the loader itself writes it takes from [`Memory`], which never gives out these places.
pub struct Firmware;

impl PhysicalMemory for Firmware {
    fn bytes(&self, physical: u64, length: usize) -> Option<&[u8]> {
        let end = physical.checked_add(length as u64)?;
        // SAFETY: the early tables map the first 4 GiB; whatever lies there can be read, and nobody writes it while the
        // loader runs on this one core.
        (physical != 0 && end <= REACH)
            .then(|| unsafe { slice::from_raw_parts(pointer(physical), length) })
    }
}

unsafe extern "C" {
    static image_start_physical: u8;
    static image_end_physical: u8;
}

/// The owner of free memory.
pub struct Memory {
    map: MemoryMap,
    /// The part of the last page that small objects have not filled yet.
    small: u64,
    small_end: u64,
}

/// Objects of up to this many bytes share pages.
const SMALL: u64 = PAGE / 4;

impl Memory {
    /// Takes the machine's memory map and withholds the loader's own image.
    pub fn new(firmware: impl IntoIterator<Item = Region>) -> Result<Memory, Error> {
        let mut map = MemoryMap::from_firmware(firmware)?;
        let (start, end) = (
            &raw const image_start_physical as u64,
            &raw const image_end_physical as u64,
        );
        map.claim(start, end - start, Kind::LoaderReclaimable)?;
        Ok(Memory {
            map,
            small: 0,
            small_end: 0,
        })
    }

    /// The map as it is now.
    pub fn map(&mut self) -> &mut MemoryMap {
        &mut self.map
    }

    /// Pages of undefined contents: `length` bytes rounded up, at a multiple of `alignment`.
    pub fn pages(
        &mut self,
        length: u64,
        alignment: u64,
        kind: Kind,
    ) -> Result<&'static mut [u8], Error> {
        let base = self.map.allocate(length, alignment, REACH, kind)?;
        // SAFETY: the memory map gave this range out and will not do so again; every value of a byte is valid.
        Ok(unsafe { slice::from_raw_parts_mut(pointer(base), length as usize) })
    }

    /// A page below 1 MiB, where real mode can begin.
    pub fn real_mode_page(&mut self) -> Result<&'static mut [u8], Error> {
        let base = self
            .map
            .allocate(PAGE, PAGE, 0xa_0000, Kind::LoaderReclaimable)?;
        // SAFETY: as in `pages`.
        Ok(unsafe { slice::from_raw_parts_mut(pointer(base), PAGE as usize) })
    }

    /// Puts `value` into memory that the kernel may reclaim.
    pub fn place<T>(&mut self, value: T) -> Result<&'static mut T, Error> {
        let place: *mut T = pointer(self.place_bytes(size_of::<T>() as u64)?);
        // SAFETY: `place_bytes` gave out room for a T at a multiple of 16 to us alone, and no T here needs more.
        unsafe {
            place.write(value);
            Ok(&mut *place)
        }
    }

    /// Puts `count` values, made one after another from their index, into memory that the kernel may reclaim.
    pub fn place_all<T>(
        &mut self,
        count: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<&'static mut [T], Error> {
        let length = (count * size_of::<T>()) as u64;
        let base: *mut T = pointer(self.place_bytes(length)?);
        for index in 0..count {
            // SAFETY: `place_bytes` gave out `length` bytes at a multiple of 16 to us alone, and no T here needs more.
            unsafe { base.add(index).write(make(index)) };
        }
        // SAFETY: all of it has just been written.
        Ok(unsafe { slice::from_raw_parts_mut(base, count) })
    }

    fn place_bytes(&mut self, length: u64) -> Result<u64, Error> {
        let length = length.next_multiple_of(16);
        if length > SMALL {
            return self
                .map
                .allocate(length, PAGE, REACH, Kind::LoaderReclaimable);
        }
        if self.small_end - self.small < length {
            self.small = self
                .map
                .allocate(PAGE, PAGE, REACH, Kind::LoaderReclaimable)?;
            self.small_end = self.small + PAGE;
        }
        let base = self.small;
        self.small += length;
        Ok(base)
    }
}

impl TableMemory for &mut Memory {
    fn allocate(&mut self) -> Option<u64> {
        let page = self.pages(PAGE, PAGE, Kind::LoaderReclaimable).ok()?;
        page.fill(0);
        Some(physical(page.as_ptr()))
    }

    fn table(&mut self, physical: u64) -> &mut [u64; 512] {
        // SAFETY: a page that `allocate` gave out as a table, reached only through this exclusive borrow.
        unsafe { &mut *pointer(physical) }
    }
}
