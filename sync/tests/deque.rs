//! The deque alone and under real threads. Every interleaving of small cases is in `loom_deque.rs`.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use sync::deque::{Deque, Steal};

fn word(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// Pushes for the thread that owns the deque; each test has one such.
fn push(deque: &Deque, n: usize) {
    // SAFETY: see above.
    unsafe { deque.push(word(n)) }
}

/// Pops for the thread that owns the deque.
fn pop(deque: &Deque) -> Option<usize> {
    // SAFETY: see above.
    unsafe { deque.pop() }.map(NonZeroUsize::get)
}

#[test]
fn the_owner_gets_the_newest_and_a_thief_the_oldest() {
    let deque = Deque::with_capacity(2);
    assert_eq!(deque.steal(), Steal::Empty);
    assert_eq!(pop(&deque), None);
    for n in 1..=5 {
        push(&deque, n);
    }
    assert_eq!(deque.len(), 5);
    assert_eq!(deque.steal(), Steal::Success(word(1)));
    assert_eq!(pop(&deque), Some(5));
    assert_eq!(deque.steal(), Steal::Success(word(2)));
    assert_eq!(pop(&deque), Some(4));
    assert_eq!(pop(&deque), Some(3));
    assert_eq!(pop(&deque), None);
    assert_eq!(pop(&deque), None);
    assert!(deque.is_empty());
    assert_eq!(deque.steal(), Steal::Empty);
    push(&deque, 6);
    assert_eq!(pop(&deque), Some(6));
}

#[test]
fn a_known_word_is_taken_only_if_it_was_pushed_last() {
    let deque = Deque::with_capacity(2);
    // SAFETY: this thread owns the deque.
    let pop_if = |n| unsafe { deque.pop_if(word(n)) };
    assert!(!pop_if(1));
    (1..=3).for_each(|n| push(&deque, n));
    assert!(!pop_if(1));
    assert!(pop_if(3));
    assert!(!pop_if(3));
    assert_eq!(deque.len(), 2);
    assert_eq!(deque.steal(), Steal::Success(word(1)));
    assert_eq!(deque.steal(), Steal::Success(word(2)));
    assert!(!pop_if(2), "stolen, though its slot still holds it");
    push(&deque, 4);
    assert!(pop_if(4));
    assert!(deque.is_empty());
}

#[test]
fn it_agrees_with_a_plain_queue_on_a_long_mixed_run() {
    let deque = Deque::with_capacity(2);
    let mut model = VecDeque::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let steps = if cfg!(miri) { 2_000 } else { 200_000 };
    for n in 1..=steps {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Long phases that mostly push and others that mostly take, so that it grows, runs empty, and wraps around.
        let pushes = if n / 500 % 2 == 0 { 5 } else { 2 };
        match random % 8 {
            r if r < pushes => {
                push(&deque, n);
                model.push_back(n);
            }
            6 => match deque.steal() {
                Steal::Success(stolen) => assert_eq!(Some(stolen.get()), model.pop_front()),
                Steal::Empty => assert!(model.is_empty()),
                Steal::Retry => unreachable!("nobody else is here"),
            },
            _ => assert_eq!(pop(&deque), model.pop_back()),
        }
        assert_eq!(deque.len(), model.len());
    }
}

/// The owner pushes, and pops now and then, while thieves steal: every word comes out exactly once.
#[test]
fn every_word_comes_out_once() {
    let (thieves, count) = if cfg!(miri) { (2, 300) } else { (3, 400_000) };
    let deque = Deque::with_capacity(2);
    let taken: Vec<AtomicUsize> = (0..=count).map(|_| AtomicUsize::new(0)).collect();
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..thieves {
            scope.spawn(|| {
                loop {
                    let last_look = finished.load(Ordering::Acquire);
                    match deque.steal() {
                        Steal::Success(n) => {
                            taken[n.get()].fetch_add(1, Ordering::Relaxed);
                        }
                        Steal::Empty if last_look => break,
                        Steal::Empty => thread::yield_now(),
                        Steal::Retry => {}
                    }
                }
            });
        }
        let take = |n: usize| taken[n].fetch_add(1, Ordering::Relaxed);
        for n in 1..=count {
            push(&deque, n);
            if n % 3 == 0 {
                pop(&deque).map(take);
            }
        }
        while let Some(n) = pop(&deque) {
            take(n);
        }
        finished.store(true, Ordering::Release);
    });
    for (n, times) in taken.iter().enumerate().skip(1) {
        assert_eq!(times.load(Ordering::Relaxed), 1, "word {n}");
    }
}

/// Each word is the address of a box: whoever takes it sees what was written before the push.
#[test]
fn what_was_written_before_a_push_is_seen_after_a_steal() {
    let count = if cfg!(miri) { 100 } else { 50_000 };
    let deque = Deque::new();
    let finished = AtomicBool::new(false);
    let open = |word: NonZeroUsize| {
        let pointer = std::ptr::with_exposed_provenance_mut::<usize>(word.get());
        // SAFETY: the address is of a box that was pushed once, and is taken once.
        *unsafe { Box::from_raw(pointer) }
    };
    let (mine, theirs) = thread::scope(|scope| {
        let thief = scope.spawn(|| {
            let mut sum = 0;
            loop {
                let last_look = finished.load(Ordering::Acquire);
                match deque.steal() {
                    Steal::Success(word) => sum += open(word),
                    Steal::Empty if last_look => return sum,
                    Steal::Empty => thread::yield_now(),
                    Steal::Retry => {}
                }
            }
        });
        let mut sum = 0;
        for n in 1..=count {
            let address = Box::into_raw(Box::new(n)).expose_provenance();
            push(&deque, address);
            if n % 2 == 0 {
                // SAFETY: this thread is the deque's owner.
                sum += unsafe { deque.pop() }.map_or(0, open);
            }
        }
        // SAFETY: as above.
        while let Some(word) = unsafe { deque.pop() } {
            sum += open(word);
        }
        finished.store(true, Ordering::Release);
        (sum, thief.join().unwrap())
    });
    assert_eq!(mine + theirs, count * (count + 1) / 2);
}
