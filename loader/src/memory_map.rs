//! The machine's memory map: made orderly from what firmware says, then the place that all the loader's own memory is
//! taken from, and at last the answer to the kernel's memory map request.
//!
//! Always true of a [`MemoryMap`]: its regions are sorted by base, do not overlap, are not empty, and two neighbours of
//! one kind that touch are one region; usable and loader-owned regions begin and end on page boundaries.

use crate::{PAGE, align_down, align_up};
use core::fmt;

/// What a region of physical memory is, with the numbers of the Limine protocol's "Memory Map Feature".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    /// Free for the kernel.
    Usable = 0,
    /// Not memory, or firmware's.
    Reserved = 1,
    /// ACPI tables, free once they have been read.
    AcpiReclaimable = 2,
    /// Memory that firmware keeps across sleep.
    AcpiNvs = 3,
    /// Memory with errors.
    Bad = 4,
    /// The loader's own: free once the kernel needs nothing of what the loader left.
    LoaderReclaimable = 5,
    /// The kernel's image, its file and the modules.
    ExecutableAndModules = 6,
    /// A framebuffer.
    Framebuffer = 7,
}

impl Kind {
    /// Which of two claims to the same byte holds: the greater. Firmware's maps overlap at times, and what is wrongly
    /// called usable does more harm than what is wrongly withheld.
    const fn strength(self) -> u8 {
        match self {
            Kind::Usable => 0,
            Kind::LoaderReclaimable => 1,
            Kind::ExecutableAndModules => 2,
            Kind::AcpiReclaimable => 3,
            Kind::Framebuffer => 4,
            Kind::AcpiNvs => 5,
            Kind::Reserved => 6,
            Kind::Bad => 7,
        }
    }

    /// True for memory proper that holds no firmware's data: what base revision 3 maps beside the framebuffer.
    pub const fn is_ours(self) -> bool {
        matches!(
            self,
            Kind::Usable | Kind::LoaderReclaimable | Kind::ExecutableAndModules
        )
    }
}

/// A region of physical memory: `base..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// One past the last byte.
    pub end: u64,
    /// What it is.
    pub kind: Kind,
}

/// How many regions a map can hold. PCs report about ten, and the loader adds one for each thing that it places.
pub const CAPACITY: usize = 256;

/// How many regions firmware's own map may have; sorting them out can double their number.
const FIRMWARE_CAPACITY: usize = CAPACITY / 2;

/// What may go wrong with a memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// More regions than [`CAPACITY`].
    TooManyRegions,
    /// The range is not usable memory as a whole.
    NotUsable {
        /// First byte of the range.
        base: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// No usable region is large enough.
    OutOfMemory {
        /// How many bytes were wanted.
        length: u64,
        /// Below which address.
        limit: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::TooManyRegions => write!(f, "the memory map has more than {CAPACITY} regions"),
            Error::NotUsable { base, length } => {
                write!(
                    f,
                    "{length:#x} bytes at {base:#x} are in use, but the memory map does not call them usable"
                )
            }
            Error::OutOfMemory { length, limit } => {
                write!(
                    f,
                    "too little memory: no {} KiB free below {limit:#x}",
                    length.div_ceil(1024)
                )
            }
        }
    }
}

/// The memory map. See the module's documentation for what always holds.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    regions: [Region; CAPACITY],
    count: usize,
}

const NOTHING: Region = Region {
    base: 0,
    end: 0,
    kind: Kind::Reserved,
};

impl MemoryMap {
    /// Makes a map from firmware's regions, in any order and overlapping in any way. Empty regions are dropped, ones that
    /// pass the end of the address space are cut there; where two overlap, the less usable kind holds. The first page is
    /// reserved whatever firmware says (the protocol: never usable). Usable regions shrink to whole pages.
    pub fn from_firmware(firmware: impl IntoIterator<Item = Region>) -> Result<MemoryMap, Error> {
        let mut claims = [NOTHING; FIRMWARE_CAPACITY];
        claims[0] = Region {
            base: 0,
            end: PAGE,
            kind: Kind::Reserved,
        };
        let mut claim_count = 1;
        for region in firmware {
            if region.base >= region.end {
                continue;
            }
            *claims.get_mut(claim_count).ok_or(Error::TooManyRegions)? = region;
            claim_count += 1;
        }
        let claims = &claims[..claim_count];

        let mut edges = [0_u64; 2 * FIRMWARE_CAPACITY];
        for (pair, claim) in edges.chunks_exact_mut(2).zip(claims) {
            pair[0] = claim.base;
            pair[1] = claim.end;
        }
        let edges = &mut edges[..2 * claim_count];
        edges.sort_unstable();

        let mut map = MemoryMap {
            regions: [NOTHING; CAPACITY],
            count: 0,
        };
        for edge in edges.windows(2) {
            let (base, end) = (edge[0], edge[1]);
            let strongest = claims
                .iter()
                .filter(|claim| claim.base <= base && end <= claim.end)
                .max_by_key(|claim| claim.kind.strength());
            if let (true, Some(claim)) = (base < end, strongest) {
                map.append(Region {
                    base,
                    end,
                    kind: claim.kind,
                })?;
            }
        }
        map.shrink_usable();
        Ok(map)
    }

    /// The regions in order.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.count]
    }

    /// Bytes of usable memory.
    pub fn usable(&self) -> u64 {
        self.regions()
            .iter()
            .filter(|region| region.kind == Kind::Usable)
            .map(|region| region.end - region.base)
            .sum()
    }

    /// Takes the pages that hold `base..base + length` out of usable memory and calls them `kind`. Fails, and changes
    /// nothing, if any of them is not usable.
    pub fn claim(&mut self, base: u64, length: u64, kind: Kind) -> Result<(), Error> {
        self.recast(base, length, Kind::Usable, kind)
    }

    /// Gives back what [`MemoryMap::claim`] or [`MemoryMap::allocate`] took as `kind`.
    pub fn release(&mut self, base: u64, length: u64, kind: Kind) -> Result<(), Error> {
        self.recast(base, length, kind, Kind::Usable)
    }

    /// Adds a region that firmware did not list, such as a framebuffer. Anything in its way that is not usable stays.
    pub fn add_device(&mut self, base: u64, length: u64, kind: Kind) -> Result<(), Error> {
        let region = Region {
            base,
            end: base.saturating_add(length),
            kind,
        };
        *self = MemoryMap::from_firmware(self.regions().iter().copied().chain([region]))?;
        Ok(())
    }

    /// Takes `length` bytes, rounded up to whole pages, aligned to `alignment` (a power of two, at least a page), as high
    /// as possible below `limit`, and calls them `kind`. Gives their physical address. High, because low memory is scarce
    /// and the kernel may want it.
    pub fn allocate(
        &mut self,
        length: u64,
        alignment: u64,
        limit: u64,
        kind: Kind,
    ) -> Result<u64, Error> {
        let too_much = Error::OutOfMemory { length, limit };
        let length = align_up(length.max(1), PAGE).ok_or(too_much)?;
        let base = self
            .regions()
            .iter()
            .rev()
            .filter(|region| region.kind == Kind::Usable)
            .find_map(|region| {
                let highest = region.end.min(limit).checked_sub(length)?;
                let base = align_down(highest, alignment.max(PAGE));
                (base >= region.base).then_some(base)
            })
            .ok_or(too_much)?;
        self.claim(base, length, kind)?;
        Ok(base)
    }

    fn recast(&mut self, base: u64, length: u64, from: Kind, to: Kind) -> Result<(), Error> {
        let refusal = Error::NotUsable { base, length };
        let start = align_down(base, PAGE);
        let end = base
            .checked_add(length)
            .and_then(|end| align_up(end, PAGE))
            .ok_or(refusal)?;
        if start == end {
            return Ok(());
        }
        let index = self
            .regions()
            .iter()
            .position(|region| region.kind == from && region.base <= start && end <= region.end)
            .ok_or(refusal)?;
        let whole = self.regions[index];
        let pieces = [
            Region {
                base: whole.base,
                end: start,
                kind: from,
            },
            Region {
                base: start,
                end,
                kind: to,
            },
            Region {
                base: end,
                end: whole.end,
                kind: from,
            },
        ];
        let pieces = &pieces[usize::from(whole.base == start)..3 - usize::from(whole.end == end)];
        let count = self.count - 1 + pieces.len();
        if count > CAPACITY {
            return Err(Error::TooManyRegions);
        }
        self.regions
            .copy_within(index + 1..self.count, index + pieces.len());
        self.regions[index..index + pieces.len()].copy_from_slice(pieces);
        self.count = count;
        self.join();
        Ok(())
    }

    /// Joins neighbours of one kind that touch.
    fn join(&mut self) {
        let regions = self.count;
        self.count = 0;
        for index in 0..regions {
            // There is room: what has been appended is at most what has been read.
            let _ = self.append(self.regions[index]);
        }
    }

    /// Appends a region that lies above all others, joining it to the last one if they touch and are of one kind.
    fn append(&mut self, region: Region) -> Result<(), Error> {
        if region.base == region.end {
            return Ok(());
        }
        match self.regions[..self.count].last_mut() {
            Some(last) if last.kind == region.kind && last.end == region.base => {
                last.end = region.end;
                return Ok(());
            }
            _ => {}
        }
        *self
            .regions
            .get_mut(self.count)
            .ok_or(Error::TooManyRegions)? = region;
        self.count += 1;
        Ok(())
    }

    fn shrink_usable(&mut self) {
        let mut kept = 0;
        for index in 0..self.count {
            let mut region = self.regions[index];
            if region.kind == Kind::Usable {
                region.base = align_up(region.base, PAGE).unwrap_or(region.end);
                region.end = align_down(region.end, PAGE);
            }
            if region.base < region.end {
                self.regions[kept] = region;
                kept += 1;
            }
        }
        self.count = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn region(base: u64, end: u64, kind: Kind) -> Region {
        Region { base, end, kind }
    }

    /// What SeaBIOS reports for `-M q35 -m 512M`.
    fn q35() -> MemoryMap {
        MemoryMap::from_firmware([
            region(0, 0x9fc00, Kind::Usable),
            region(0x9fc00, 0xa0000, Kind::Reserved),
            region(0xf0000, 0x100000, Kind::Reserved),
            region(0x100000, 0x1ffdf000, Kind::Usable),
            region(0x1ffdf000, 0x20000000, Kind::Reserved),
            region(0xb0000000, 0xc0000000, Kind::Reserved),
        ])
        .unwrap()
    }

    fn check(map: &MemoryMap) {
        for pair in map.regions().windows(2) {
            assert!(pair[0].end <= pair[1].base, "{pair:x?}");
            assert!(
                pair[0].end < pair[1].base || pair[0].kind != pair[1].kind,
                "{pair:x?}"
            );
        }
        for region in map.regions() {
            assert!(region.base < region.end);
            if matches!(region.kind, Kind::Usable | Kind::LoaderReclaimable) {
                assert_eq!(
                    (region.base % PAGE, region.end % PAGE),
                    (0, 0),
                    "{region:x?}"
                );
            }
        }
    }

    #[test]
    fn first_page_is_reserved_and_usable_shrinks_to_pages() {
        let map = q35();
        check(&map);
        assert_eq!(map.regions()[0], region(0, 0x1000, Kind::Reserved));
        assert_eq!(map.regions()[1], region(0x1000, 0x9f000, Kind::Usable));
        assert_eq!(map.regions()[2], region(0x9fc00, 0xa0000, Kind::Reserved));
    }

    #[test]
    fn unordered_overlapping_and_degenerate_regions() {
        let map = MemoryMap::from_firmware([
            region(4 * GIB, 5 * GIB, Kind::Usable),
            region(0x100000, GIB, Kind::Usable),
            region(0x5000, 0x5000, Kind::Bad),
            region(0x9000, 0x3000, Kind::Bad),
            region(0x200800, 0x201800, Kind::Reserved),
            region(0x180000, 0x300000, Kind::Usable),
            region(0x201000, 0x202000, Kind::AcpiNvs),
            region(u64::MAX - 0x2800, u64::MAX, Kind::Usable),
        ])
        .unwrap();
        check(&map);
        assert_eq!(
            map.regions(),
            [
                region(0, 0x1000, Kind::Reserved),
                region(0x100000, 0x200000, Kind::Usable),
                region(0x200800, 0x201800, Kind::Reserved),
                region(0x201800, 0x202000, Kind::AcpiNvs),
                region(0x202000, GIB, Kind::Usable),
                region(4 * GIB, 5 * GIB, Kind::Usable),
                region(u64::MAX - 0x1fff, u64::MAX - 0xfff, Kind::Usable),
            ]
        );
    }

    #[test]
    fn allocation_is_high_aligned_and_below_the_limit() {
        let mut map = q35();
        let before = map.usable();
        let base = map
            .allocate(5000, 0x200000, 4 * GIB, Kind::LoaderReclaimable)
            .unwrap();
        assert_eq!(base, 0x1fe00000);
        check(&map);
        assert_eq!(map.usable(), before - 0x2000);
        let low = map
            .allocate(1, PAGE, 0xa0000, Kind::LoaderReclaimable)
            .unwrap();
        assert_eq!(low, 0x9e000);
        check(&map);
        map.release(base, 5000, Kind::LoaderReclaimable).unwrap();
        map.release(low, 1, Kind::LoaderReclaimable).unwrap();
        assert_eq!(map.regions(), q35().regions());
    }

    #[test]
    fn allocation_fails_without_change_when_memory_is_short() {
        let mut map = q35();
        let wanted = 600 << 20;
        assert_eq!(
            map.allocate(wanted, PAGE, 4 * GIB, Kind::LoaderReclaimable),
            Err(Error::OutOfMemory {
                length: wanted,
                limit: 4 * GIB
            })
        );
        assert!(
            map.allocate(u64::MAX, PAGE, 4 * GIB, Kind::LoaderReclaimable)
                .is_err()
        );
        assert_eq!(map.regions(), q35().regions());
    }

    #[test]
    fn claims_must_be_usable() {
        let mut map = q35();
        map.claim(0x100000, 0x1234, Kind::LoaderReclaimable)
            .unwrap();
        assert!(
            map.claim(0x101000, 0x1000, Kind::LoaderReclaimable)
                .is_err()
        );
        assert!(map.claim(0x9f000, 0x1000, Kind::LoaderReclaimable).is_err());
        assert!(map.claim(u64::MAX, 2, Kind::LoaderReclaimable).is_err());
        assert_eq!(map.claim(0x50000, 0, Kind::LoaderReclaimable), Ok(()));
        check(&map);
    }

    #[test]
    fn neighbours_of_one_kind_are_joined() {
        let mut map = q35();
        let count = map.regions().len();
        for _ in 0..50 {
            map.allocate(PAGE, PAGE, 4 * GIB, Kind::LoaderReclaimable)
                .unwrap();
        }
        assert_eq!(map.regions().len(), count + 1);
        check(&map);
    }

    #[test]
    fn a_device_does_not_displace_what_is_reserved() {
        let mut map = q35();
        map.add_device(0xfd000000, 0x300000, Kind::Framebuffer)
            .unwrap();
        map.add_device(0xbff00000, 0x200000, Kind::Framebuffer)
            .unwrap();
        check(&map);
        assert!(
            map.regions()
                .contains(&region(0xfd000000, 0xfd300000, Kind::Framebuffer))
        );
        assert!(
            map.regions()
                .contains(&region(0xb0000000, 0xc0000000, Kind::Reserved))
        );
        assert!(
            map.regions()
                .contains(&region(0xc0000000, 0xc0100000, Kind::Framebuffer))
        );
    }

    #[test]
    fn too_many_regions_is_an_error() {
        let many = (0..1000).map(|index| {
            region(
                index * 0x2000 + 0x1000,
                index * 0x2000 + 0x2000,
                Kind::Usable,
            )
        });
        assert_eq!(
            MemoryMap::from_firmware(many).err(),
            Some(Error::TooManyRegions)
        );
    }
}
