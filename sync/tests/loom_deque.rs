//! The deque under loom: every interleaving of small cases, with every value that the memory model lets a load return.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p sync --release --test 'loom_*'`
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::num::NonZeroUsize;
use sync::deque::{Deque, Steal};

/// A deque whose words stand for cells: loom reports a taker who does not see what the pusher wrote, and a cell taken twice.
struct Shared {
    deque: Deque,
    cells: [UnsafeCell<u32>; 5],
}

// SAFETY: the cells are the subject of the tests; loom reports every access that races.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            deque: Deque::with_capacity(capacity),
            cells: Default::default(),
        })
    }

    fn push(&self, n: usize) {
        self.cells[n].with_mut(|cell| {
            // SAFETY: nobody was given the word yet; loom checks.
            unsafe { *cell += 1 }
        });
        // SAFETY: only the model's main thread pushes and pops.
        unsafe { self.deque.push(NonZeroUsize::new(n).unwrap()) }
    }

    fn took(&self, word: NonZeroUsize) -> usize {
        self.cells[word.get()].with_mut(|cell| {
            // SAFETY: a word is taken once; loom checks.
            unsafe {
                assert_eq!(*cell, 1, "word {word} taken twice, or not seen as written");
                *cell = 2;
            }
        });
        word.get()
    }

    fn pop(&self) -> Option<usize> {
        // SAFETY: as in `push`.
        unsafe { self.deque.pop() }.map(|word| self.took(word))
    }

    /// Takes `n` if it was pushed last.
    fn pop_if(&self, n: usize) -> Option<usize> {
        let word = NonZeroUsize::new(n).unwrap();
        // SAFETY: as in `push`.
        unsafe { self.deque.pop_if(word) }.then(|| self.took(word))
    }

    /// One attempt.
    fn steal(&self) -> Option<usize> {
        match self.deque.steal() {
            Steal::Success(word) => Some(self.took(word)),
            Steal::Empty | Steal::Retry => None,
        }
    }

    /// All that is left, once the thieves are gone.
    fn rest(&self) -> Vec<usize> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

/// Runs `owner` against `thieves` threads that each try to steal `attempts` times; every word up to `words` comes out once.
fn check(
    capacity: usize,
    words: usize,
    thieves: usize,
    attempts: usize,
    owner: impl Fn(&Shared) -> Vec<usize> + Sync + Send + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Shared::new(capacity);
        let threads: Vec<_> = (0..thieves)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    (0..attempts)
                        .filter_map(|_| shared.steal())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut taken = owner(&shared);
        for thread in threads {
            let stolen = thread.join().unwrap();
            assert!(stolen.is_sorted(), "a thief takes the oldest first");
            taken.extend(stolen);
        }
        taken.extend(shared.rest());
        taken.sort();
        assert_eq!(taken, (1..=words).collect::<Vec<_>>());
    });
}

#[test]
fn a_pop_against_a_steal_for_the_last_item() {
    check(2, 1, 1, 2, |shared| {
        shared.push(1);
        shared.pop().into_iter().collect()
    });
}

#[test]
fn a_pop_against_two_steals_for_two_items() {
    check(2, 2, 2, 1, |shared| {
        shared.push(1);
        shared.push(2);
        shared.pop().into_iter().collect()
    });
}

#[test]
fn pops_of_known_words_against_two_steals() {
    check(2, 1, 2, 1, |shared| {
        shared.push(1);
        shared.pop_if(1).into_iter().collect()
    });
    check(2, 2, 2, 1, |shared| {
        shared.push(1);
        shared.push(2);
        // What was taken or stolen is not found again, though its slot still holds it.
        let taken = [shared.pop_if(2), shared.pop_if(2), shared.pop_if(1)];
        taken.into_iter().flatten().collect()
    });
}

#[test]
fn two_pops_against_two_thieves_for_three_items() {
    check(4, 3, 2, 1, |shared| {
        (1..=3).for_each(|n| shared.push(n));
        [shared.pop(), shared.pop()].into_iter().flatten().collect()
    });
}

#[test]
fn steals_across_a_growth() {
    check(2, 3, 1, 2, |shared| {
        (1..=3).for_each(|n| shared.push(n));
        shared.pop().into_iter().collect()
    });
    check(2, 3, 2, 1, |shared| {
        (1..=3).for_each(|n| shared.push(n));
        Vec::new()
    });
}

#[test]
fn a_slot_that_is_used_again_while_a_slow_thief_reads_it() {
    check(2, 4, 1, 2, |shared| {
        let mut taken = Vec::new();
        for n in 1..=4 {
            shared.push(n);
            if n % 2 == 0 {
                taken.extend(shared.pop());
            }
        }
        taken
    });
}

#[test]
fn push_and_pop_over_and_over_against_a_thief() {
    check(2, 3, 1, 2, |shared| {
        let mut taken = Vec::new();
        for n in 1..=3 {
            shared.push(n);
            taken.extend(shared.pop());
        }
        taken
    });
}

/// "I push, fence, and look whether you sleep; you say that you sleep, fence, and look whether I pushed."
#[test]
fn after_a_fence_a_look_does_not_miss_a_push_before_a_fence() {
    use sync::atomic::{AtomicBool, Ordering, full_fence};
    loom::model(|| {
        let shared = Shared::new(2);
        let asleep = Arc::new(AtomicBool::new(false));
        let sleeper = {
            let (shared, asleep) = (shared.clone(), asleep.clone());
            thread::spawn(move || {
                asleep.store(true, Ordering::Relaxed);
                full_fence();
                shared.deque.is_empty()
            })
        };
        shared.push(1);
        full_fence();
        let seen = asleep.load(Ordering::Relaxed);
        let missed = sleeper.join().unwrap();
        assert!(seen || !missed);
    });
}
