//! The ring alone, and recorded histories under real threads. Every interleaving of small cases is in `loom_ring.rs`.
#![cfg(not(loom))]

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use sync::ring::{Popped, Refused, Ring, Slot};

const EMPTY: u64 = 0;

fn slots(capacity: usize) -> Vec<Slot> {
    (0..capacity).map(|_| Slot::new(EMPTY)).collect()
}

#[test]
fn it_behaves_as_a_bounded_queue() {
    for capacity in [1, 2, 3, 7] {
        let (ring, slots) = (Ring::new(), slots(capacity));
        let mut model = VecDeque::new();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for n in 1..5000_u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(2) {
                let expected = if model.len() == capacity {
                    Err(Refused::Full)
                } else {
                    model.push_back(n);
                    Ok(())
                };
                assert_eq!(ring.push(&slots, n), expected);
            } else {
                let expected = model.pop_front().map_or(Popped::Empty, Popped::Word);
                assert_eq!(ring.pop(&slots, EMPTY), expected);
            }
            assert_eq!(ring.len(), model.len());
        }
        assert!(ring.close());
        assert!(!ring.close());
        assert_eq!(ring.push(&slots, 1), Err(Refused::Closed));
        while let Some(n) = model.pop_front() {
            assert_eq!(ring.pop(&slots, EMPTY), Popped::Word(n));
        }
        assert_eq!(ring.pop(&slots, EMPTY), Popped::Closed);
        assert!(slots.iter().all(|slot| slot.word() == EMPTY));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Push(u64),
    Full,
    Pop(u64),
    Empty,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    begin: u64,
    end: u64,
    what: Operation,
}

/// Whether some order of the events, which keeps those apart that did not overlap, is one of a queue of this capacity (Wing and Gong, 1993, with the memory
/// of Lowe, 2017: a set of done events and a content is tried once).
fn is_linearizable(events: &[Event], capacity: usize) -> bool {
    assert!(events.len() <= 64);
    let all = u64::MAX >> (64 - events.len());
    let mut seen = HashSet::new();
    let mut stack = vec![(0_u64, VecDeque::new())];
    while let Some((done, queue)) = stack.pop() {
        if done == all {
            return true;
        }
        if !seen.insert((done, queue.clone())) {
            continue;
        }
        let left = || (0..events.len()).filter(|i| done & 1 << i == 0);
        let first_end = left().map(|i| events[i].end).min().unwrap();
        for i in left().filter(|&i| events[i].begin <= first_end) {
            let mut next: VecDeque<u64> = queue.clone();
            let legal = match events[i].what {
                Operation::Push(n) => {
                    next.push_back(n);
                    next.len() <= capacity
                }
                Operation::Full => next.len() == capacity,
                Operation::Pop(n) => next.pop_front() == Some(n),
                Operation::Empty => next.is_empty(),
            };
            if legal {
                stack.push((done | 1 << i, next));
            }
        }
    }
    false
}

#[test]
fn the_checker_knows_a_wrong_history() {
    let event = |begin, end, what| Event { begin, end, what };
    let push = |b, e, n| event(b, e, Operation::Push(n));
    let pop = |b, e, n| event(b, e, Operation::Pop(n));
    assert!(is_linearizable(
        &[push(0, 3, 1), push(1, 2, 2), pop(4, 5, 2)],
        2
    ));
    assert!(!is_linearizable(
        &[push(0, 1, 1), push(2, 3, 2), pop(4, 5, 2)],
        2
    ));
    assert!(!is_linearizable(
        &[push(0, 1, 1), event(2, 3, Operation::Empty)],
        2
    ));
    assert!(!is_linearizable(&[push(0, 1, 1), push(2, 3, 2)], 1));
}

#[test]
fn histories_under_threads_are_those_of_a_queue() {
    const THREADS: u64 = 3;
    const EACH: u64 = 8;
    let rounds = if cfg!(miri) { 4 } else { 3000 };
    for round in 0..rounds {
        let capacity = 1 + round % 3;
        let (ring, slots, clock) = (Ring::new(), slots(capacity), AtomicU64::new(0));
        let events: Vec<Event> = thread::scope(|scope| {
            let work = |thread: u64| {
                let (ring, slots, clock) = (&ring, &slots, &clock);
                move || {
                    let mut events = Vec::new();
                    for i in 0..EACH {
                        let begin = clock.fetch_add(1, Ordering::SeqCst);
                        let n = 1 + thread * EACH + i;
                        let what = if (thread + i).is_multiple_of(2) {
                            match ring.push(slots, n) {
                                Ok(()) => Operation::Push(n),
                                Err(_) => Operation::Full,
                            }
                        } else {
                            match ring.pop(slots, EMPTY) {
                                Popped::Word(n) => Operation::Pop(n),
                                _ => Operation::Empty,
                            }
                        };
                        let end = clock.fetch_add(1, Ordering::SeqCst);
                        events.push(Event { begin, end, what });
                    }
                    events
                }
            };
            let threads: Vec<_> = (0..THREADS).map(|t| scope.spawn(work(t))).collect();
            threads
                .into_iter()
                .flat_map(|t| t.join().unwrap())
                .collect()
        });
        assert!(is_linearizable(&events, capacity), "{events:?}");
    }
}

#[test]
fn every_word_is_popped_once() {
    let each = if cfg!(miri) { 50 } else { 20_000 };
    let (ring, slots) = (Ring::new(), slots(16));
    let mut got: Vec<u64> = thread::scope(|scope| {
        let consumers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut got = Vec::new();
                    loop {
                        match ring.pop(&slots, EMPTY) {
                            Popped::Word(n) => got.push(n),
                            Popped::Empty => thread::yield_now(),
                            Popped::Closed => return got,
                        }
                    }
                })
            })
            .collect();
        let producers: Vec<_> = (0..2)
            .map(|p| {
                let (ring, slots) = (&ring, &slots);
                scope.spawn(move || {
                    for i in 0..each {
                        while ring.push(slots, 1 + p + 2 * i).is_err() {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        ring.close();
        consumers
            .into_iter()
            .flat_map(|c| c.join().unwrap())
            .collect()
    });
    got.sort_unstable();
    assert!(got.iter().copied().eq(1..=2 * each));
}
