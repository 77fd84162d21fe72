//! Four-level page tables, built for the kernel (Intel SDM vol. 3, 4.5).
//!
//! Always true: an entry that is present and not a leaf points to a table that this [`AddressSpace`] allocated; a leaf,
//! once made, is never changed.

use crate::{PAGE, align_down};
use core::fmt;

/// Where page tables live. The loader's are in the machine's memory; the tests' in a vector.
pub trait TableMemory {
    /// The physical address of a fresh page of zeroes, or `None` when memory has run out.
    fn allocate(&mut self) -> Option<u64>;
    /// The table at a physical address that `allocate` gave.
    fn table(&mut self, physical: u64) -> &mut [u64; 512];
}

/// How a range may be used. Everything is for the supervisor and can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Stores are allowed.
    pub write: bool,
    /// Instruction fetches are allowed.
    pub execute: bool,
    /// Stores are combined (entry 5 of the protocol's PAT) instead of cached.
    pub write_combining: bool,
}

impl Access {
    /// The direct map's: read, write, execute, cached.
    pub const ALL: Access = Access {
        write: true,
        execute: true,
        write_combining: false,
    };
}

/// What may go wrong with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No memory for a table.
    OutOfMemory,
    /// Something else is mapped at this virtual address.
    Taken(u64),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OutOfMemory => write!(f, "too little memory for page tables"),
            Error::Taken(address) => write!(f, "two mappings of {address:#x}"),
        }
    }
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const LARGE: u64 = 1 << 7;
const PAT_SMALL: u64 = 1 << 7;
const PAT_LARGE: u64 = 1 << 12;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A page's sizes by level: 4 KiB, 2 MiB, 1 GiB, and the reach of a top-level entry.
const fn reach(level: u32) -> u64 {
    PAGE << (9 * level)
}

/// A set of page tables under construction.
#[derive(Debug)]
pub struct AddressSpace<M> {
    memory: M,
    root: u64,
    no_execute: bool,
    gigabyte_pages: bool,
}

impl<M: TableMemory> AddressSpace<M> {
    /// An empty address space. `no_execute` and `gigabyte_pages` say what the processor has; without the first, every page
    /// can be executed.
    pub fn new(mut memory: M, no_execute: bool, gigabyte_pages: bool) -> Result<Self, Error> {
        let root = memory.allocate().ok_or(Error::OutOfMemory)?;
        Ok(AddressSpace {
            memory,
            root,
            no_execute,
            gigabyte_pages,
        })
    }

    /// The physical address of the top-level table, for CR3.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Ends the construction and gives the table memory back.
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// Maps `length` bytes at `virtual_base` to `physical_base`, all multiples of a page, with the largest pages that fit,
    /// but none larger than `largest` bytes. What is mapped to the same place already stays as it is.
    pub fn map(
        &mut self,
        virtual_base: u64,
        physical_base: u64,
        length: u64,
        access: Access,
        largest: u64,
    ) -> Result<(), Error> {
        debug_assert_eq!((virtual_base | physical_base | length) % PAGE, 0);
        let mut done = 0;
        while done < length {
            let here = virtual_base.wrapping_add(done);
            done += self.map_one(here, physical_base + done, length - done, access, largest)?;
        }
        Ok(())
    }

    /// Maps one page, of the largest size that is possible, and gives its size.
    fn map_one(
        &mut self,
        virtual_address: u64,
        physical: u64,
        length: u64,
        access: Access,
        largest: u64,
    ) -> Result<u64, Error> {
        let mut table = self.root;
        let mut level = 3;
        loop {
            let size = reach(level);
            let index = ((virtual_address / size) % 512) as usize;
            let entry = self.memory.table(table)[index];
            let is_leaf = level == 0 || (level < 3 && entry & LARGE != 0);
            if entry & PRESENT != 0 && is_leaf {
                let pat = if level == 0 { 0 } else { PAT_LARGE };
                let offset = virtual_address % size;
                if (entry & ADDRESS & !pat) + offset != physical {
                    return Err(Error::Taken(virtual_address));
                }
                return Ok(length.min(size - offset));
            }
            if entry & PRESENT != 0 {
                table = entry & ADDRESS;
                level -= 1;
                continue;
            }
            let fits = align_down(virtual_address | physical, size) == virtual_address | physical
                && length >= size
                && size <= largest
                && (level < 2 || (level == 2 && self.gigabyte_pages));
            if fits {
                self.memory.table(table)[index] = physical | self.leaf_bits(access, level);
                return Ok(size);
            }
            let lower = self.memory.allocate().ok_or(Error::OutOfMemory)?;
            self.memory.table(table)[index] = lower | PRESENT | WRITABLE;
            table = lower;
            level -= 1;
        }
    }

    fn leaf_bits(&self, access: Access, level: u32) -> u64 {
        let mut bits = PRESENT;
        if access.write {
            bits |= WRITABLE;
        }
        if !access.execute && self.no_execute {
            bits |= NO_EXECUTE;
        }
        if level > 0 {
            bits |= LARGE;
        }
        if access.write_combining {
            // PAT entry 5 is PAT = 1, PCD = 0, PWT = 1.
            bits |= WRITE_THROUGH | if level > 0 { PAT_LARGE } else { PAT_SMALL };
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    struct Tables {
        pages: Vec<[u64; 512]>,
        limit: usize,
    }

    impl TableMemory for Tables {
        fn allocate(&mut self) -> Option<u64> {
            if self.pages.len() == self.limit {
                return None;
            }
            self.pages.push([0; 512]);
            Some(self.pages.len() as u64 * PAGE)
        }
        fn table(&mut self, physical: u64) -> &mut [u64; 512] {
            &mut self.pages[(physical / PAGE) as usize - 1]
        }
    }

    fn space(gigabyte_pages: bool, limit: usize) -> AddressSpace<Tables> {
        AddressSpace::new(
            Tables {
                pages: Vec::new(),
                limit,
            },
            true,
            gigabyte_pages,
        )
        .unwrap()
    }

    /// What the processor would do: the leaf entry, the level that it is on, and the physical address.
    fn walk(space: &mut AddressSpace<Tables>, address: u64) -> Option<(u64, u32, u64)> {
        let mut table = space.root;
        for level in (0..4).rev() {
            let entry = space.memory.table(table)[((address / reach(level)) % 512) as usize];
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || (level < 3 && entry & LARGE != 0) {
                let base = entry & ADDRESS & !(reach(level) - 1);
                return Some((entry, level, base + address % reach(level)));
            }
            table = entry & ADDRESS;
        }
        None
    }

    #[test]
    fn largest_pages_that_fit() {
        let mut space = space(true, 100);
        let base = 0xffff_8000_0000_0000;
        space
            .map(
                base + 2 * GIB - 2 * MIB - PAGE,
                2 * GIB - 2 * MIB - PAGE,
                2 * GIB,
                Access::ALL,
                GIB,
            )
            .unwrap();
        for (offset, level) in [
            (2 * GIB - 2 * MIB - PAGE, 0),
            (2 * GIB - 2 * MIB, 1),
            (2 * GIB, 2),
            (3 * GIB, 1),
        ] {
            let (_, found, physical) = walk(&mut space, base + offset + 0x123).unwrap();
            assert_eq!((found, physical), (level, offset + 0x123));
        }
        assert_eq!(walk(&mut space, base + 2 * GIB - 2 * MIB - 2 * PAGE), None);
        assert_eq!(walk(&mut space, base + 4 * GIB - 2 * MIB - PAGE), None);
        assert!(walk(&mut space, base + 4 * GIB - 2 * MIB - PAGE - 1).is_some());
    }

    #[test]
    fn no_larger_than_asked_nor_than_the_processor_can() {
        let mut narrow = space(true, 100);
        narrow.map(0, 0, 2 * GIB, Access::ALL, 2 * MIB).unwrap();
        assert_eq!(walk(&mut narrow, 0).unwrap().1, 1);
        let mut old = space(false, 100);
        old.map(0, 0, 2 * GIB, Access::ALL, GIB).unwrap();
        assert_eq!(walk(&mut old, 0).unwrap().1, 1);
    }

    #[test]
    fn access_bits() {
        let mut space = space(true, 100);
        let read = Access {
            write: false,
            execute: false,
            write_combining: false,
        };
        let combining = Access {
            write: true,
            execute: true,
            write_combining: true,
        };
        space.map(0x1000, 0x5000, PAGE, read, GIB).unwrap();
        space
            .map(2 * MIB, 4 * MIB, 2 * MIB, combining, GIB)
            .unwrap();
        space.map(0x3000, 0x6000, PAGE, combining, GIB).unwrap();
        assert_eq!(
            walk(&mut space, 0x1000).unwrap().0,
            0x5000 | PRESENT | NO_EXECUTE
        );
        let large = walk(&mut space, 2 * MIB + 5).unwrap();
        assert_eq!(
            large.0,
            (4 * MIB) | PRESENT | WRITABLE | LARGE | WRITE_THROUGH | PAT_LARGE
        );
        assert_eq!(large.2, 4 * MIB + 5);
        assert_eq!(
            walk(&mut space, 0x3000).unwrap().0,
            0x6000 | PRESENT | WRITABLE | WRITE_THROUGH | PAT_SMALL
        );
    }

    #[test]
    fn same_mapping_twice_is_fine_another_is_not() {
        let mut space = space(true, 100);
        space.map(0, 0, 4 * MIB, Access::ALL, GIB).unwrap();
        space.map(PAGE, PAGE, 6 * MIB, Access::ALL, GIB).unwrap();
        assert_eq!(walk(&mut space, 6 * MIB).unwrap().2, 6 * MIB);
        assert_eq!(walk(&mut space, 6 * MIB + PAGE), None);
        assert_eq!(
            space.map(PAGE, 0, PAGE, Access::ALL, GIB),
            Err(Error::Taken(PAGE))
        );
    }

    #[test]
    fn top_of_the_address_space() {
        let mut space = space(true, 100);
        space
            .map(
                0u64.wrapping_sub(2 * MIB),
                2 * MIB,
                2 * MIB,
                Access::ALL,
                GIB,
            )
            .unwrap();
        assert_eq!(walk(&mut space, u64::MAX).unwrap().2, 4 * MIB - 1);
    }

    #[test]
    fn out_of_tables() {
        assert_eq!(
            space(true, 2).map(0, 0, PAGE, Access::ALL, GIB),
            Err(Error::OutOfMemory)
        );
    }
}
