//! Every pair of a ring's operations, in every interleaving. Run with `--cfg loom`.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use sync::ring::{Popped, Refused, Ring, Slot};

const EMPTY: u64 = 0;

struct Owned {
    ring: Ring,
    slots: Vec<Slot>,
}

impl Owned {
    fn new(capacity: usize) -> Arc<Owned> {
        Arc::new(Owned {
            ring: Ring::new(),
            slots: (0..capacity).map(|_| Slot::new(EMPTY)).collect(),
        })
    }

    fn push(&self, word: u64) -> Result<(), Refused> {
        self.ring.push(&self.slots, word)
    }

    fn pop(&self) -> Popped {
        self.ring.pop(&self.slots, EMPTY)
    }
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[test]
fn two_pushes_for_one_place() {
    model(|| {
        let ring = Owned::new(1);
        let other = ring.clone();
        let first = thread::spawn(move || other.push(1));
        let second = ring.push(2);
        let first = first.join().unwrap();
        assert!(first.is_ok() != second.is_ok());
        assert_eq!(ring.pop(), Popped::Word(if first.is_ok() { 1 } else { 2 }));
        assert_eq!(ring.pop(), Popped::Empty);
    });
}

#[test]
fn a_push_and_a_pop() {
    model(|| {
        let ring = Owned::new(1);
        let other = ring.clone();
        let push = thread::spawn(move || other.push(7));
        let popped = ring.pop();
        assert_eq!(push.join().unwrap(), Ok(()));
        match popped {
            Popped::Word(word) => assert_eq!(word, 7),
            other => {
                assert_eq!(other, Popped::Empty);
                assert_eq!(ring.pop(), Popped::Word(7));
            }
        }
        assert_eq!(ring.pop(), Popped::Empty);
    });
}

#[test]
fn a_push_against_the_pop_that_makes_room() {
    model(|| {
        let ring = Owned::new(1);
        assert_eq!(ring.push(1), Ok(()));
        let other = ring.clone();
        let pop = thread::spawn(move || other.pop());
        let pushed = ring.push(2);
        assert_eq!(pop.join().unwrap(), Popped::Word(1));
        match pushed {
            Ok(()) => assert_eq!(ring.pop(), Popped::Word(2)),
            Err(why) => {
                assert_eq!(why, Refused::Full);
                assert_eq!(ring.pop(), Popped::Empty);
            }
        }
    });
}

#[test]
fn two_pops_of_one_word() {
    model(|| {
        let ring = Owned::new(2);
        assert_eq!(ring.push(5), Ok(()));
        let other = ring.clone();
        let first = thread::spawn(move || other.pop());
        let second = ring.pop();
        let mut got = [first.join().unwrap(), second];
        got.sort_by_key(|popped| matches!(popped, Popped::Word(_)));
        assert_eq!(got, [Popped::Empty, Popped::Word(5)]);
    });
}

#[test]
fn a_push_against_closing() {
    model(|| {
        let ring = Owned::new(2);
        let other = ring.clone();
        let push = thread::spawn(move || other.push(3));
        assert!(ring.ring.close());
        // A push that succeeds is found by a pop after the closing, whether it has completed or not.
        let popped = ring.pop();
        match push.join().unwrap() {
            Ok(()) => assert_eq!(popped, Popped::Word(3)),
            Err(why) => {
                assert_eq!(why, Refused::Closed);
                assert_eq!(popped, Popped::Closed);
            }
        }
        assert_eq!(ring.pop(), Popped::Closed);
        assert_eq!(ring.push(4), Err(Refused::Closed));
    });
}

#[test]
fn words_of_one_producer_stay_in_order() {
    model(|| {
        let ring = Owned::new(2);
        let other = ring.clone();
        let push = thread::spawn(move || {
            assert_eq!(other.push(1), Ok(()));
            assert_eq!(other.push(2), Ok(()));
        });
        let mut last = 0;
        for _ in 0..2 {
            if let Popped::Word(word) = ring.pop() {
                assert_eq!(word, last + 1);
                last = word;
            }
        }
        push.join().unwrap();
        while let Popped::Word(word) = ring.pop() {
            assert_eq!(word, last + 1);
            last = word;
        }
        assert_eq!(last, 2);
    });
}

/// One pop is in the middle of freeing its place when another has freed its own: there is room.
#[test]
fn a_push_waits_for_the_place_that_a_slow_pop_frees() {
    model(|| {
        let ring = Owned::new(2);
        ring.push(1).unwrap();
        ring.push(2).unwrap();
        let other = ring.clone();
        let slow = thread::spawn(move || other.pop());
        let Popped::Word(mine) = ring.pop() else {
            panic!("two words for two pops");
        };
        assert_eq!(ring.push(3), Ok(()));
        let Popped::Word(theirs) = slow.join().unwrap() else {
            panic!("two words for two pops");
        };
        assert_eq!(mine + theirs, 3);
        assert_eq!(ring.pop(), Popped::Word(3));
    });
}
