//! Which addresses of the Vua heap's region are free, and which only wait to be forgotten.
//!
//! An address that was unmapped must not be used again before every core has flushed its translation cache: a core with
//! the old translation would write into frames that are somebody else's by now. No core may wait for another here,
//! so ranges given back go into quarantine, stamped with an epoch. Someone asks all cores to flush; each notes the epoch
//! that it has flushed, and what was given back before the lowest of those is free again.
//!
//! Free ranges are kept by address, to join neighbours, and by length, to take the smallest that fits.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

/// The free and quarantined ranges of a region. All addresses and lengths are multiples of 64 KiB.
#[derive(Debug)]
pub struct Ranges {
    by_start: BTreeMap<u64, u64>,
    by_length: BTreeSet<(u64, u64)>,
    /// Epoch, start, length; epochs never fall.
    quarantine: VecDeque<(u64, u64, u64)>,
    quarantined: u64,
}

impl Ranges {
    /// Nothing free.
    pub const fn new() -> Self {
        Self {
            by_start: BTreeMap::new(),
            by_length: BTreeSet::new(),
            quarantine: VecDeque::new(),
            quarantined: 0,
        }
    }

    /// Makes `length` bytes from `start` on free, joined with free neighbours.
    pub fn insert(&mut self, start: u64, length: u64) {
        let (mut start, mut length) = (start, length);
        if let Some((&before, &bytes)) = self.by_start.range(..start).next_back() {
            debug_assert!(before + bytes <= start, "range given back twice");
            if before + bytes == start {
                self.remove(before, bytes);
                start = before;
                length += bytes;
            }
        }
        if let Some(&bytes) = self.by_start.get(&(start + length)) {
            self.remove(start + length, bytes);
            length += bytes;
        }
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: u64, length: u64) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }

    /// Takes `length` bytes aligned to `align` (a power of two) from the shortest free range that can hold them.
    pub fn take(&mut self, length: u64, align: u64) -> Option<u64> {
        let (bytes, start, aligned) =
            self.by_length
                .range((length, 0)..)
                .find_map(|&(bytes, start)| {
                    let aligned = start.next_multiple_of(align);
                    (aligned - start <= bytes - length).then_some((bytes, start, aligned))
                })?;
        self.remove(start, bytes);
        if aligned > start {
            self.by_start.insert(start, aligned - start);
            self.by_length.insert((aligned - start, start));
        }
        let rest = start + bytes - (aligned + length);
        if rest > 0 {
            self.by_start.insert(aligned + length, rest);
            self.by_length.insert((rest, aligned + length));
        }
        Some(aligned)
    }

    /// Puts a range into quarantine until every core has flushed in `epoch` or later. Epochs must not fall from call to call.
    pub fn retire(&mut self, start: u64, length: u64, epoch: u64) {
        debug_assert!(
            self.quarantine
                .back()
                .is_none_or(|&(last, _, _)| last <= epoch)
        );
        self.quarantine.push_back((epoch, start, length));
        self.quarantined += length;
    }

    /// Frees what was retired in an epoch up to `flushed`, which every core has flushed in.
    pub fn release(&mut self, flushed: u64) {
        while let Some(&(epoch, start, length)) = self.quarantine.front() {
            if epoch > flushed {
                break;
            }
            self.quarantine.pop_front();
            self.quarantined -= length;
            self.insert(start, length);
        }
    }

    /// Bytes of addresses in quarantine.
    pub fn quarantined(&self) -> u64 {
        self.quarantined
    }
}

impl Default for Ranges {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const K: u64 = 64 << 10;

    #[test]
    fn joins_neighbours() {
        let mut ranges = Ranges::new();
        ranges.insert(0, K);
        ranges.insert(2 * K, K);
        assert_eq!(ranges.take(2 * K, K), None);
        ranges.insert(K, K);
        assert_eq!(ranges.take(3 * K, K), Some(0));
        assert_eq!(ranges.take(K, K), None);
    }

    #[test]
    fn takes_the_shortest_that_holds_it_aligned() {
        let mut ranges = Ranges::new();
        ranges.insert(K, 5 * K);
        ranges.insert(16 * K, 4 * K);
        ranges.insert(32 * K, 64 * K);
        assert_eq!(ranges.take(4 * K, K), Some(16 * K));
        // The first range has five, but not four aligned to four.
        assert_eq!(ranges.take(4 * K, 4 * K), Some(32 * K));
        assert_eq!(ranges.take(2 * K, 2 * K), Some(2 * K));
        assert_eq!(ranges.take(2 * K, K), Some(4 * K));
        assert_eq!(ranges.take(K, K), Some(K));
    }

    #[test]
    fn quarantine_holds_until_all_have_flushed() {
        let mut ranges = Ranges::new();
        ranges.retire(0, K, 1);
        ranges.retire(K, K, 2);
        assert_eq!(ranges.quarantined(), 2 * K);
        ranges.release(0);
        assert_eq!(ranges.take(K, K), None);
        ranges.release(1);
        assert_eq!(ranges.take(K, K), Some(0));
        assert_eq!(ranges.take(K, K), None);
        ranges.release(7);
        assert_eq!(ranges.take(K, K), Some(K));
        assert_eq!(ranges.quarantined(), 0);
    }

    #[test]
    fn never_overlaps_and_loses_nothing() {
        let mut ranges = Ranges::new();
        let total = 1024 * K;
        ranges.insert(0, total);
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut held: Vec<(u64, u64)> = Vec::new();
        for _ in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random & 1 == 0 {
                let length = (1 + (random >> 8) % 40) * K;
                let align = K << ((random >> 20) % 4);
                if let Some(start) = ranges.take(length, align) {
                    assert_eq!(start % align, 0);
                    assert!(start + length <= total);
                    assert!(
                        held.iter()
                            .all(|&(other, size)| start + length <= other || other + size <= start)
                    );
                    held.push((start, length));
                }
            } else if !held.is_empty() {
                let (start, length) = held.swap_remove((random >> 16) as usize % held.len());
                ranges.insert(start, length);
            }
        }
        for (start, length) in held {
            ranges.insert(start, length);
        }
        assert_eq!(ranges.take(total, K), Some(0));
    }
}
