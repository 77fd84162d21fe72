//! A set of small numbers (cores, usually) that is changed by single atomic instructions.
//!
//! # Protocol
//!
//! One bit for each possible member, 64 to a cache line, so that on machines of up to 64 cores a change is one
//! instruction on one line. Anyone may insert, remove and take, at any time and from any context.
//!
//! * Every change is one read-modify-write with acquire and release ordering, so the changes to a word are one line of
//!   succession: exactly one remover of a member is told that it removed it, and what the inserter wrote before is visible
//!   to that remover.
//! * [`BitSet::take`] looks with plain loads and removes what it saw with the same instruction as `remove`. It looks once at
//!   each word, so a member that comes and goes may be missed. Who must not miss one puts a
//!   [`full_fence`](crate::atomic::full_fence) between his own announcement and the look, and the inserter one
//!   between the insertion and his look at the announcement; then at least one of them sees the other.

use alloc::boxed::Box;
use crossbeam_utils::CachePadded;

use crate::atomic::{AtomicU64, Ordering};

const BITS: usize = u64::BITS as usize;

/// A set of numbers below a limit. See the [module](self).
pub struct BitSet {
    words: Box<[CachePadded<AtomicU64>]>,
    limit: usize,
}

impl BitSet {
    /// An empty set that can hold the numbers below `limit`.
    pub fn new(limit: usize) -> Self {
        let words = (0..limit.div_ceil(BITS))
            .map(|_| CachePadded::new(AtomicU64::new(0)))
            .collect();
        Self { words, limit }
    }

    fn place(&self, member: usize) -> (&AtomicU64, u64) {
        assert!(member < self.limit, "{member} is outside the set's range");
        (&self.words[member / BITS], 1 << (member % BITS))
    }

    /// Puts `member` in; says whether it was absent.
    ///
    /// # Panics
    /// If `member` is not below the limit.
    pub fn insert(&self, member: usize) -> bool {
        let (word, bit) = self.place(member);
        word.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Takes `member` out; says whether this call did it.
    ///
    /// # Panics
    /// If `member` is not below the limit.
    pub fn remove(&self, member: usize) -> bool {
        let (word, bit) = self.place(member);
        word.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Whether `member` was in the set at some moment during the call.
    ///
    /// # Panics
    /// If `member` is not below the limit.
    pub fn contains(&self, member: usize) -> bool {
        let (word, bit) = self.place(member);
        word.load(Ordering::Acquire) & bit != 0
    }

    /// Removes some member and returns it: the lowest at or above `from` if there is one, else the lowest.
    pub fn take(&self, from: usize) -> Option<usize> {
        let count = self.words.len();
        let first = if from < self.limit { from / BITS } else { 0 };
        let above = if from < self.limit {
            u64::MAX << (from % BITS)
        } else {
            u64::MAX
        };
        // The first word is visited twice: for the bits from `from` on, and at the end for those below it.
        for step in 0..=count {
            let index = (first + step) % count.max(1);
            let mask = match step {
                0 => above,
                _ if step == count => !above,
                _ => u64::MAX,
            };
            let word = self.words.get(index)?;
            let mut seen = word.load(Ordering::Acquire) & mask;
            while seen != 0 {
                let bit = seen & seen.wrapping_neg();
                let before = word.fetch_and(!bit, Ordering::AcqRel);
                if before & bit != 0 {
                    return Some(index * BITS + bit.trailing_zeros() as usize);
                }
                seen = before & mask & !bit;
            }
        }
        None
    }

    /// Whether no member was seen.
    pub fn is_empty(&self) -> bool {
        self.words
            .iter()
            .all(|word| word.load(Ordering::Acquire) == 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::BitSet;

    #[test]
    fn a_member_is_removed_once() {
        let set = BitSet::new(130);
        assert!(set.is_empty());
        assert!(set.insert(129) && !set.insert(129) && set.contains(129));
        assert!(set.remove(129) && !set.remove(129));
        assert!(set.is_empty() && !set.contains(129));
    }

    #[test]
    fn taking_starts_at_the_given_number_and_wraps() {
        let set = BitSet::new(200);
        for member in [3, 70, 71, 190] {
            set.insert(member);
        }
        assert_eq!(set.take(71), Some(71));
        assert_eq!(set.take(71), Some(190));
        assert_eq!(set.take(71), Some(3));
        assert_eq!(set.take(71), Some(70));
        assert_eq!(set.take(71), None);
        set.insert(65);
        assert_eq!(set.take(66), Some(65), "the same word, below the start");
        set.insert(1);
        assert_eq!(set.take(10_000), Some(1));
        assert_eq!(BitSet::new(0).take(0), None);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn numbers_beyond_the_limit_are_refused() {
        BitSet::new(64).insert(64);
    }
}
