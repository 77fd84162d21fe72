//! Four-level page tables (Intel SDM volume 3, section 4.5), edited through the direct map.
//!
//! A table is a tree that this module owns: it takes frames for tables, never gives them back (a core's paging-structure
//! caches may still point to one), and never splits a large page. Permissions sit in the leaves; the entries above allow
//! everything but execution from user mode, which does not exist here.

use super::PAGE;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes in a large page.
pub const LARGE: u64 = 2 << 20;
/// Bytes in a huge page.
pub const HUGE: u64 = 1 << 30;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// In an entry of the second or third level: a page, not a table.
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What may be done with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
    /// Read and execute. There is no way to ask for writing and executing.
    ReadExecute,
}

/// How a mapping is cached. The bits select entries of the page attribute table as [`PAT`] sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Memory: write-back.
    WriteBack,
    /// Device registers: uncacheable.
    Uncacheable,
    /// Framebuffers: write-combining.
    WriteCombining,
}

/// The page attribute table of every core: the reset value, but write-combining in entry 1 (which is write-through at
/// reset): WB, WC, UC-, UC, twice.
pub const PAT: u64 = 0x0007_0106_0007_0106;

/// A mapping's properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// What may be done with it.
    pub access: Access,
    /// How it is cached.
    pub cache: Cache,
    /// Stays in translation caches when CR3 is written: for mappings that are never taken away.
    pub global: bool,
}

impl Properties {
    fn bits(self) -> u64 {
        let access = match self.access {
            Access::Read => NO_EXECUTE,
            Access::ReadWrite => NO_EXECUTE | WRITABLE,
            Access::ReadExecute => 0,
        };
        let cache = match self.cache {
            Cache::WriteBack => 0,
            Cache::WriteCombining => WRITE_THROUGH,
            Cache::Uncacheable => WRITE_THROUGH | CACHE_DISABLE,
        };
        // Accessed and dirty are set at once, so that no core has to write to the table later.
        PRESENT | ACCESSED | DIRTY | access | cache | if self.global { GLOBAL } else { 0 }
    }
}

/// Memory for tables.
pub trait Tables {
    /// A frame for a table, all zeros, reachable through the direct map; its physical address.
    fn table(&mut self) -> Option<u64>;
    /// What to add to a physical address to reach it.
    fn offset(&self) -> u64;
}

/// There was no frame for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTable;

/// An address space: the physical address of its top table.
#[derive(Clone, Copy, Debug)]
pub struct AddressSpace {
    root: u64,
}

/// A leaf that [`AddressSpace::translate`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Physical address of the byte asked for.
    pub address: u64,
    /// Bytes in the page: 4 KiB, 2 MiB or 1 GiB.
    pub page: u64,
    /// May be written.
    pub writable: bool,
    /// May be executed.
    pub executable: bool,
}

/// Levels count from 4, the root, to 1. The bytes that one entry of a level covers.
const fn span(level: u32) -> u64 {
    PAGE << (9 * (level - 1))
}

const fn index(level: u32, address: u64) -> u64 {
    (address >> (12 + 9 * (level - 1))) & 511
}

impl AddressSpace {
    /// An empty address space.
    pub fn new(tables: &mut impl Tables) -> Result<Self, NoTable> {
        Ok(Self {
            root: tables.table().ok_or(NoTable)?,
        })
    }

    /// Physical address of the top table: what CR3 takes.
    pub fn root(&self) -> u64 {
        self.root
    }

    fn entry(table: u64, level: u32, address: u64, offset: u64) -> *const AtomicU64 {
        (table.wrapping_add(offset) + index(level, address) * 8) as *const AtomicU64
    }

    /// The entry for `address` in the table of `level`, whose tables above are made as needed.
    fn walk(
        &self,
        tables: &mut impl Tables,
        level: u32,
        address: u64,
    ) -> Result<*const AtomicU64, NoTable> {
        let mut table = self.root;
        for above in (level + 1..=4).rev() {
            // SAFETY: `table` is one of this tree's tables, reachable through the direct map.
            let entry = unsafe { &*Self::entry(table, above, address, tables.offset()) };
            let mut value = entry.load(Ordering::Relaxed);
            if value & PRESENT == 0 {
                value = tables.table().ok_or(NoTable)? | PRESENT | WRITABLE | ACCESSED;
                // The table's zeros come before the entry that leads to it.
                entry.store(value, Ordering::Release);
            }
            assert!(value & PAGE_SIZE == 0, "{address:#x} lies in a large page");
            table = value & ADDRESS;
        }
        Ok(Self::entry(table, level, address, tables.offset()))
    }

    /// Maps `bytes` bytes from `physical` on at `address` (all multiples of 4 KiB), with the largest pages that the
    /// alignment of both allows, up to `largest`, and that no table for smaller ones is in the way of. Needs no flush: absent entries are not cached. On an error part
    /// of the range may be mapped.
    ///
    /// # Panics
    /// When part of the range is mapped already.
    ///
    /// # Safety
    /// Nobody else edits the tables meanwhile. The mapping is sound: it aliases no memory in a way that breaks what other
    /// code relies on.
    pub unsafe fn map(
        &self,
        tables: &mut impl Tables,
        address: u64,
        physical: u64,
        bytes: u64,
        properties: Properties,
        largest: u64,
    ) -> Result<(), NoTable> {
        debug_assert!((address | physical | bytes).is_multiple_of(PAGE));
        let mut done = 0;
        while done < bytes {
            let (at, from) = (address + done, physical + done);
            let mut level = (1..=3)
                .rev()
                .find(|&level| {
                    let page = span(level);
                    page <= largest && (at | from) % page == 0 && bytes - done >= page
                })
                .unwrap_or(1);
            let entry = loop {
                let entry = self.walk(tables, level, at)?;
                // SAFETY: `walk` gives an entry of this tree.
                let entry = unsafe { &*entry };
                let value = entry.load(Ordering::Relaxed);
                if level > 1 && value & PRESENT != 0 && value & PAGE_SIZE == 0 {
                    // A table of smaller pages that were here before, and that other cores may have cached the way to: it stays, and
                    // smaller pages go into it again.
                    level -= 1;
                } else {
                    break entry;
                }
            };
            assert!(
                entry.load(Ordering::Relaxed) & PRESENT == 0,
                "{at:#x} is mapped already"
            );
            let page = if level > 1 { PAGE_SIZE } else { 0 };
            entry.store(from | properties.bits() | page, Ordering::Release);
            done += span(level);
        }
        Ok(())
    }

    /// Takes away the mappings of `bytes` bytes from `address` on and calls `freed` with physical address and size of each page;
    /// pages absent are passed over. Other cores, and this one, may use what their translation caches hold until they flush.
    ///
    /// # Panics
    /// When a page reaches beyond the range.
    ///
    /// # Safety
    /// Nobody else edits the tables meanwhile, and nobody uses the memory at these addresses any more.
    pub unsafe fn unmap(
        &self,
        offset: u64,
        address: u64,
        bytes: u64,
        mut freed: impl FnMut(u64, u64),
    ) {
        let end = address + bytes;
        let mut at = address;
        'pages: while at < end {
            let mut table = self.root;
            for level in (1..=4).rev() {
                // SAFETY: `table` is one of this tree's tables.
                let entry = unsafe { &*Self::entry(table, level, at, offset) };
                let value = entry.load(Ordering::Relaxed);
                let step = span(level);
                if value & PRESENT == 0 {
                    at = (at & !(step - 1)) + step;
                    continue 'pages;
                }
                if level == 1 || value & PAGE_SIZE != 0 {
                    assert!(
                        at.is_multiple_of(step) && end - at >= step,
                        "{at:#x} lies in a page that is larger than the range"
                    );
                    entry.store(0, Ordering::Relaxed);
                    freed(value & ADDRESS & !(step - 1), step);
                    at += step;
                    continue 'pages;
                }
                table = value & ADDRESS;
            }
        }
    }

    /// What `address` leads to, if anything.
    pub fn translate(&self, offset: u64, address: u64) -> Option<Leaf> {
        let mut table = self.root;
        let (mut writable, mut executable) = (true, true);
        for level in (1..=4).rev() {
            // SAFETY: `table` is one of this tree's tables; tables are never given back, so a racing edit gives old or new.
            let value =
                unsafe { &*Self::entry(table, level, address, offset) }.load(Ordering::Acquire);
            if value & PRESENT == 0 {
                return None;
            }
            writable &= value & WRITABLE != 0;
            executable &= value & NO_EXECUTE == 0;
            if level == 1 || value & PAGE_SIZE != 0 {
                let page = span(level);
                let address = (value & ADDRESS & !(page - 1)) + address % page;
                return Some(Leaf {
                    address,
                    page,
                    writable,
                    executable,
                });
            }
            table = value & ADDRESS;
        }
        None
    }

    /// Calls `visit` with address and leaf of every page from `from` on, in order of address; `from` is 0 or the start of
    /// the upper half.
    pub fn each_page(&self, offset: u64, from: u64, mut visit: impl FnMut(u64, Leaf)) {
        let mut at = from;
        'pages: loop {
            let mut table = self.root;
            for level in (1..=4).rev() {
                let step = span(level);
                // SAFETY: as in `translate`.
                let value =
                    unsafe { &*Self::entry(table, level, at, offset) }.load(Ordering::Acquire);
                let leaf = level == 1 || value & PAGE_SIZE != 0;
                if value & PRESENT != 0 && !leaf {
                    table = value & ADDRESS;
                    continue;
                }
                if value & PRESENT != 0
                    && let Some(leaf) = self.translate(offset, at)
                {
                    visit(at, leaf);
                }
                let next = (at & !(step - 1)).wrapping_add(step);
                // Stop at the end of the half.
                if next == 0 || next == 1 << 47 {
                    return;
                }
                at = next;
                continue 'pages;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        alloc::{Layout, alloc_zeroed, dealloc},
        vec,
        vec::Vec,
    };

    /// Tables in the host's memory: "physical" addresses are host addresses, the offset is 0.
    struct Host(Vec<*mut u8>, usize);

    const FRAME: Layout = match Layout::from_size_align(4096, 4096) {
        Ok(layout) => layout,
        Err(_) => panic!(),
    };

    impl Tables for Host {
        fn table(&mut self) -> Option<u64> {
            if self.0.len() == self.1 {
                return None;
            }
            // SAFETY: the layout is not empty.
            let frame = unsafe { alloc_zeroed(FRAME) };
            self.0.push(frame);
            Some(frame as u64)
        }
        fn offset(&self) -> u64 {
            0
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            for &frame in &self.0 {
                // SAFETY: allocated with this layout.
                unsafe { dealloc(frame, FRAME) }
            }
        }
    }

    const RW: Properties = Properties {
        access: Access::ReadWrite,
        cache: Cache::WriteBack,
        global: false,
    };
    const RX: Properties = Properties {
        access: Access::ReadExecute,
        ..RW
    };

    #[test]
    fn takes_the_largest_pages_that_fit() {
        let mut host = Host(Vec::new(), 100);
        let space = AddressSpace::new(&mut host).unwrap();
        let base = 0xffff_8000_0000_0000;
        // SAFETY: nothing is ever accessed through these mappings.
        unsafe {
            space
                .map(
                    &mut host,
                    base + HUGE - LARGE - PAGE,
                    HUGE - LARGE - PAGE,
                    2 * HUGE,
                    RW,
                    HUGE,
                )
                .unwrap()
        };
        let page = |at: u64| {
            space
                .translate(0, base + at)
                .map(|leaf| (leaf.address, leaf.page))
        };
        assert_eq!(page(HUGE - LARGE - PAGE - 1), None);
        assert_eq!(
            page(HUGE - LARGE - PAGE + 5),
            Some((HUGE - LARGE - PAGE + 5, PAGE))
        );
        assert_eq!(page(HUGE - 7), Some((HUGE - 7, LARGE)));
        assert_eq!(page(HUGE + 123_456_789), Some((HUGE + 123_456_789, HUGE)));
        assert_eq!(page(2 * HUGE), Some((2 * HUGE, LARGE)));
        assert_eq!(page(3 * HUGE - LARGE - PAGE), None);
    }

    #[test]
    fn permissions_are_those_asked_for() {
        let mut host = Host(Vec::new(), 100);
        let space = AddressSpace::new(&mut host).unwrap();
        // SAFETY: nothing is ever accessed through these mappings.
        unsafe {
            space
                .map(&mut host, 0x1_0000, 0x5000, PAGE, RX, PAGE)
                .unwrap();
            space
                .map(&mut host, 0x1_1000, 0x6000, PAGE, RW, PAGE)
                .unwrap();
            let read = Properties {
                access: Access::Read,
                ..RW
            };
            space
                .map(&mut host, 0x1_2000, 0x7000, PAGE, read, PAGE)
                .unwrap();
        }
        let mut pages = Vec::new();
        space.each_page(0, 0, |at, leaf| {
            pages.push((at, leaf.address, leaf.writable, leaf.executable))
        });
        assert_eq!(
            pages,
            vec![
                (0x1_0000, 0x5000, false, true),
                (0x1_1000, 0x6000, true, false),
                (0x1_2000, 0x7000, false, false)
            ]
        );
    }

    #[test]
    fn unmaps_what_was_mapped() {
        let mut host = Host(Vec::new(), 100);
        let space = AddressSpace::new(&mut host).unwrap();
        let mut freed = Vec::new();
        // SAFETY: nothing is ever accessed through these mappings.
        unsafe {
            space
                .map(&mut host, LARGE, 8 * LARGE, LARGE, RW, LARGE)
                .unwrap();
            space
                .map(&mut host, 2 * LARGE, 0x3000, 2 * PAGE, RW, LARGE)
                .unwrap();
            space.unmap(0, 0, 4 * LARGE, |address, page| freed.push((address, page)));
        }
        assert_eq!(
            freed,
            vec![(8 * LARGE, LARGE), (0x3000, PAGE), (0x4000, PAGE)]
        );
        assert_eq!(space.translate(0, LARGE), None);
        // The addresses can be used again; tables stay.
        let tables = host.0.len();
        // SAFETY: as above.
        unsafe {
            space
                .map(&mut host, 2 * LARGE, 0x9000, PAGE, RW, LARGE)
                .unwrap()
        };
        assert_eq!(host.0.len(), tables);
    }

    #[test]
    fn small_pages_where_small_ones_were() {
        let mut host = Host(Vec::new(), 100);
        let space = AddressSpace::new(&mut host).unwrap();
        // SAFETY: nothing is ever accessed through these mappings.
        unsafe {
            space
                .map(&mut host, LARGE, 0x3000, PAGE, RW, LARGE)
                .unwrap();
            space.unmap(0, LARGE, PAGE, |_, _| {});
            space
                .map(&mut host, LARGE, 8 * LARGE, 2 * LARGE, RW, LARGE)
                .unwrap();
        }
        let page = |at: u64| space.translate(0, at).map(|leaf| (leaf.address, leaf.page));
        assert_eq!(page(LARGE), Some((8 * LARGE, PAGE)));
        assert_eq!(page(2 * LARGE - 1), Some((9 * LARGE - 1, PAGE)));
        assert_eq!(page(2 * LARGE), Some((9 * LARGE, LARGE)));
        let (mut pages, mut bytes) = (0, 0);
        // SAFETY: as above.
        unsafe {
            space.unmap(0, LARGE, 2 * LARGE, |_, page| {
                pages += 1;
                bytes += page;
            });
        }
        assert_eq!((pages, bytes), (513, 2 * LARGE));
    }

    #[test]
    fn reports_that_tables_ran_out() {
        let mut host = Host(Vec::new(), 3);
        let space = AddressSpace::new(&mut host).unwrap();
        // SAFETY: nothing is ever accessed through this mapping.
        let result = unsafe { space.map(&mut host, 0, 0x1000, PAGE, RW, PAGE) };
        assert_eq!(result, Err(NoTable));
    }

    #[test]
    #[should_panic(expected = "mapped already")]
    fn refuses_to_map_twice() {
        let mut host = Host(Vec::new(), 100);
        let space = AddressSpace::new(&mut host).unwrap();
        // SAFETY: nothing is ever accessed through these mappings.
        unsafe {
            space
                .map(&mut host, 0x1_0000, 0x5000, PAGE, RW, PAGE)
                .unwrap();
            space
                .map(&mut host, 0x1_0000, 0x6000, PAGE, RW, PAGE)
                .unwrap();
        }
    }
}
