//! What becomes ready at a moment: an ordered map from deadlines to handles, under a lock, with the earliest deadline beside
//! it where anyone can read it.
//!
//! Whoever removes an entry owns what it held. What has become ready is asked, under the lock, whether it still cares: a wait may have
//! ended otherwise. So when [`Timers::cancel`] returns, nobody is about to ask any more, and what waited may wait again. The lock is held for
//! one insertion or removal; interrupt handlers take no part.
//!
//! # Protocol
//!
//! `earliest` is written only under the lock, and read without it. The reader may see a value that is a moment old. What that
//! must not cause, a core that sleeps past a deadline, the scheduler prevents with a full fence between "I added a timer" and
//! "who is keeping the timers?", and one between "I keep the timers" and "when is the earliest?"; see
//! [`scheduler`](crate::scheduler).

use alloc::collections::BTreeMap;
use core::num::NonZeroUsize;
use sync::atomic::{AtomicU64, Ordering};
use sync::lock::Lock;

/// No deadline at all.
const NEVER: u64 = u64::MAX;

/// Names an entry of [`Timers`], for [`cancel`](Timers::cancel). Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey {
    deadline: u64,
    number: u64,
}

struct Entries {
    map: BTreeMap<TimerKey, NonZeroUsize>,
    made: u64,
}

/// Words that become ready at a moment. See the [module](self).
pub struct Timers {
    earliest: AtomicU64,
    entries: Lock<Entries>,
}

impl Timers {
    /// No timers.
    pub fn new() -> Self {
        Self {
            earliest: AtomicU64::new(NEVER),
            entries: Lock::new(Entries {
                map: BTreeMap::new(),
                made: 0,
            }),
        }
    }

    fn publish_earliest(&self, entries: &Entries) {
        let earliest = entries.map.first_key_value();
        let deadline = earliest.map_or(NEVER, |(key, _)| key.deadline);
        self.earliest.store(deadline, Ordering::Release);
    }

    /// Adds `word`, ready at `deadline` (in the platform's nanoseconds). Says under which key, and whether it is now the
    /// earliest.
    pub fn add(&self, deadline: u64, word: NonZeroUsize) -> (TimerKey, bool) {
        let mut entries = self.entries.lock();
        let key = TimerKey {
            // So that the last of all deadlines can be told from none.
            deadline: deadline.min(NEVER - 1),
            number: entries.made,
        };
        entries.made += 1;
        entries.map.insert(key, word);
        self.publish_earliest(&entries);
        let first = entries
            .map
            .first_key_value()
            .is_some_and(|(k, _)| *k == key);
        (key, first)
    }

    /// Removes the entry and returns its word, unless it was ready, and taken, before.
    pub fn cancel(&self, key: TimerKey) -> Option<NonZeroUsize> {
        let mut entries = self.entries.lock();
        let word = entries.map.remove(&key);
        self.publish_earliest(&entries);
        word
    }

    /// The earliest deadline, if there is any timer.
    #[inline]
    pub fn earliest(&self) -> Option<u64> {
        let earliest = self.earliest.load(Ordering::Acquire);
        (earliest != NEVER).then_some(earliest)
    }

    /// Removes words whose deadline is `now` or before, the earliest first, up to one for which `due` holds, and returns that. `due` is called under the lock: it is
    /// short, and touches no timers.
    pub fn take_ready(&self, now: u64, due: impl Fn(NonZeroUsize) -> bool) -> Option<NonZeroUsize> {
        if self.earliest()? > now {
            return None;
        }
        let mut entries = self.entries.lock();
        let mut taken = None;
        while taken.is_none()
            && let Some(first) = entries.map.first_entry()
            && first.key().deadline <= now
        {
            taken = Some(first.remove()).filter(|word| due(*word));
        }
        self.publish_earliest(&entries);
        taken
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn word(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    #[test]
    fn timers_are_ready_in_order_of_deadline_then_of_age() {
        let timers = Timers::new();
        assert_eq!(timers.earliest(), None);
        assert!(timers.add(20, word(1)).1);
        assert!(timers.add(10, word(2)).1);
        assert!(!timers.add(10, word(3)).1);
        assert_eq!(timers.earliest(), Some(10));
        assert_eq!(timers.take_ready(9, |_| true), None);
        assert_eq!(timers.take_ready(10, |_| true), Some(word(2)));
        assert_eq!(timers.take_ready(10, |_| true), Some(word(3)));
        assert_eq!(timers.take_ready(10, |_| true), None);
        assert_eq!(timers.earliest(), Some(20));
        assert_eq!(timers.take_ready(u64::MAX, |_| true), Some(word(1)));
        assert_eq!(timers.earliest(), None);
    }

    #[test]
    fn what_does_not_care_any_more_is_dropped() {
        let timers = Timers::new();
        for n in 1..=4 {
            timers.add(n as u64, word(n));
        }
        assert_eq!(timers.take_ready(3, |w| w.get() == 2), Some(word(2)));
        assert_eq!(timers.take_ready(3, |w| w.get() == 2), None);
        assert_eq!(timers.earliest(), Some(4));
        assert_eq!(timers.take_ready(4, |_| true), Some(word(4)));
    }

    #[test]
    fn a_timer_is_cancelled_or_ready_but_not_both() {
        let timers = Timers::new();
        let (first, _) = timers.add(5, word(1));
        let (second, _) = timers.add(u64::MAX, word(2));
        assert_eq!(timers.take_ready(5, |_| true), Some(word(1)));
        assert_eq!(timers.cancel(first), None);
        assert!(timers.earliest().is_some());
        assert_eq!(timers.cancel(second), Some(word(2)));
        assert_eq!(timers.cancel(second), None);
        assert_eq!(timers.earliest(), None);
    }
}
