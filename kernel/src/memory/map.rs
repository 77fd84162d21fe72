//! The boot loader's memory map, put in order.
//!
//! A loader may report overlapping or unaligned regions of the kinds that are not usable. What the kernel gives out as
//! frames must be whole pages that nothing else claims, so usable regions shrink to page boundaries and give way to
//! every other kind that overlaps them.

use super::PAGE;

/// What a region of physical memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Free memory.
    Usable,
    /// The loader's data, page tables and stacks: free once they are no longer needed.
    LoaderReclaimable,
    /// The kernel and the modules that the loader put there.
    KernelAndModules,
    /// ACPI tables: free once they have been read.
    AcpiTables,
    /// What the firmware keeps.
    AcpiStorage,
    /// The framebuffer.
    Framebuffer,
    /// Anything else: never touched.
    Reserved,
}

/// A region of physical memory: `start` to `end`, the latter excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first byte.
    pub start: u64,
    /// The first byte behind.
    pub end: u64,
    /// What it holds.
    pub kind: Kind,
}

impl Region {
    /// Bytes in the region.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The whole pages inside, or `None` if there are none.
    fn inner_pages(self) -> Option<Self> {
        let start = self.start.checked_next_multiple_of(PAGE)?;
        let end = self.end & !(PAGE - 1);
        (start < end).then_some(Self { start, end, ..self })
    }
}

/// How many regions are kept. Firmware maps have some tens, on large servers up to about two hundred.
pub const REGIONS: usize = 512;

/// The map: regions in the loader's order, and the question what of them is free.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    regions: [Region; REGIONS],
    count: usize,
    dropped: usize,
}

impl MemoryMap {
    /// An empty map.
    pub const fn new() -> Self {
        Self {
            regions: [Region {
                start: 0,
                end: 0,
                kind: Kind::Reserved,
            }; REGIONS],
            count: 0,
            dropped: 0,
        }
    }

    /// Adds a region. Empty regions and what lies beyond 2^52 (the architecture's limit) are left out.
    pub fn add(&mut self, start: u64, bytes: u64, kind: Kind) {
        const LIMIT: u64 = 1 << 52;
        let end = start.saturating_add(bytes).min(LIMIT);
        if start >= end {
            return;
        }
        if self.count == REGIONS {
            self.dropped += 1;
            return;
        }
        self.regions[self.count] = Region { start, end, kind };
        self.count += 1;
    }

    /// How many regions did not fit. When not 0, nothing may be taken as free: the lost one could overlap it.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// All regions as added.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.count]
    }

    /// Calls `visit` with every range of whole pages that is of kind `kind` and that no region of another kind overlaps,
    /// page 0 left out. Of regions of that kind that overlap each other, which the protocol allows for firmware's, each page is
    /// visited once.
    pub fn free_ranges(&self, kind: Kind, mut visit: impl FnMut(u64, u64)) {
        for (index, region) in self.regions().iter().enumerate() {
            if region.kind != kind {
                continue;
            }
            let Some(mut rest) = region.inner_pages() else {
                continue;
            };
            rest.start = rest.start.max(PAGE);
            // Cut off, from the left, whatever other kinds claim.
            while rest.start < rest.end {
                let claimed = self
                    .regions()
                    .iter()
                    .enumerate()
                    .filter(|&(place, other)| {
                        // Those before it have been visited.
                        (other.kind != kind || place < index)
                            && other.start < rest.end
                            && other.end > rest.start
                    })
                    .map(|(_, other)| other)
                    .min_by_key(|other| other.start);
                let Some(claimed) = claimed else {
                    visit(rest.start, rest.end);
                    break;
                };
                let before = claimed.start & !(PAGE - 1);
                if before > rest.start {
                    visit(rest.start, before);
                }
                rest.start = claimed.end.next_multiple_of(PAGE);
            }
        }
    }

    /// Calls `visit` with ranges of whole pages, ascending and disjoint, that together cover every region for which `wanted`
    /// says yes (rounded outwards), without the pages of `without` (multiples of 4 KiB).
    pub fn covered_ranges(
        &self,
        wanted: impl Fn(Kind) -> bool,
        without: core::ops::Range<u64>,
        mut visit: impl FnMut(u64, u64),
    ) {
        let mut visit_part = |start: u64, end: u64| {
            for (start, end) in [
                (start, end.min(without.start)),
                (start.max(without.end), end),
            ] {
                if start < end {
                    visit(start, end);
                }
            }
        };
        let rounded = |region: &Region| {
            (
                region.start & !(PAGE - 1),
                region.end.next_multiple_of(PAGE),
            )
        };
        let mut covered = 0;
        loop {
            // The lowest page that is wanted and not yet covered, then as far as regions touch.
            let next = self
                .regions()
                .iter()
                .filter(|region| wanted(region.kind))
                .map(rounded);
            let Some(start) = next
                .filter(|&(_, end)| end > covered)
                .map(|(start, _)| start.max(covered))
                .min()
            else {
                return;
            };
            let mut end = start;
            loop {
                let touching = self
                    .regions()
                    .iter()
                    .filter(|region| wanted(region.kind))
                    .map(rounded);
                match touching
                    .filter(|&(from, to)| from <= end && to > end)
                    .map(|(_, to)| to)
                    .max()
                {
                    Some(further) => end = further,
                    None => break,
                }
            }
            visit_part(start, end);
            covered = end;
        }
    }

    /// The end of the highest region for which `wanted` says yes; 0 if there is none.
    pub fn end_of(&self, wanted: impl Fn(Kind) -> bool) -> u64 {
        self.regions()
            .iter()
            .filter(|region| wanted(region.kind))
            .map(|region| region.end)
            .max()
            .unwrap_or(0)
    }

    /// Bytes in all regions of a kind.
    pub fn bytes_of(&self, kind: Kind) -> u64 {
        self.regions()
            .iter()
            .filter(|region| region.kind == kind)
            .map(Region::bytes)
            .sum()
    }
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    fn free(map: &MemoryMap) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        map.free_ranges(Kind::Usable, |start, end| ranges.push((start, end)));
        ranges
    }

    #[test]
    fn keeps_whole_pages_and_leaves_page_zero() {
        let mut map = MemoryMap::new();
        map.add(0, 0x9_fc00, Kind::Usable);
        map.add(0x10_0010, 0xfff0, Kind::Usable);
        map.add(0x20_0010, 0x20, Kind::Usable);
        assert_eq!(free(&map), vec![(0x1000, 0x9_f000), (0x10_1000, 0x11_0000)]);
    }

    #[test]
    fn gives_way_to_other_kinds() {
        let mut map = MemoryMap::new();
        map.add(0x10_0000, 0x10_0000, Kind::Usable);
        map.add(0x11_0800, 0x1000, Kind::Reserved);
        map.add(0x11_1000, 0x2000, Kind::KernelAndModules);
        map.add(0x1f_f000, 0x9000, Kind::AcpiStorage);
        assert_eq!(
            free(&map),
            vec![(0x10_0000, 0x11_0000), (0x11_3000, 0x1f_f000)]
        );
    }

    #[test]
    fn covers_regions_that_touch_or_overlap_once() {
        let mut map = MemoryMap::new();
        map.add(0x7_0000, 0x1_0000, Kind::Usable);
        map.add(0x1_0010, 0x1000, Kind::AcpiStorage);
        map.add(0x1_1800, 0x1000, Kind::Usable);
        map.add(0x8_0000, 0x800, Kind::LoaderReclaimable);
        map.add(0x8_0800, 0x800, Kind::AcpiStorage);
        map.add(0x9_0000, 0x1000, Kind::Reserved);
        let ranges = |without| {
            let mut ranges = Vec::new();
            map.covered_ranges(
                |kind| kind != Kind::Reserved,
                without,
                |start, end| ranges.push((start, end)),
            );
            ranges
        };
        assert_eq!(
            ranges(0..0),
            vec![(0x1_0000, 0x1_3000), (0x7_0000, 0x8_1000)]
        );
        assert_eq!(
            ranges(0x7_8000..0x7_9000),
            vec![
                (0x1_0000, 0x1_3000),
                (0x7_0000, 0x7_8000),
                (0x7_9000, 0x8_1000)
            ]
        );
        assert_eq!(ranges(0x7_0000..0x9_0000), vec![(0x1_0000, 0x1_3000)]);
    }

    #[test]
    fn survives_ends_of_the_address_space() {
        let mut map = MemoryMap::new();
        map.add(u64::MAX - 10, 100, Kind::Usable);
        map.add(0x1000, u64::MAX, Kind::Reserved);
        map.add(0x1000, 0x4000, Kind::Usable);
        map.add(0x5000, 0, Kind::Usable);
        assert_eq!(free(&map), vec![]);
        assert_eq!(map.regions().len(), 2);
    }

    #[test]
    fn counts_what_does_not_fit() {
        let mut map = MemoryMap::new();
        for index in 0..REGIONS as u64 + 3 {
            map.add(index * 0x2000, 0x1000, Kind::Usable);
        }
        assert_eq!(map.dropped(), 3);
        assert_eq!(map.bytes_of(Kind::Usable), REGIONS as u64 * 0x1000);
    }
}
