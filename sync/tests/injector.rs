//! The injector alone and under real threads. Every interleaving of small cases is in `loom_injector.rs`.
#![cfg(not(loom))]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use sync::injector::{Full, Injector};

fn word(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

#[test]
fn words_come_out_in_the_order_in_which_they_went_in() {
    let queue = Injector::new();
    assert!(queue.is_empty() && queue.pop().is_none());
    for round in 0..5 {
        for n in 1..=300 {
            queue.push(word(n + round));
        }
        assert!(!queue.is_empty());
        for n in 1..=300 {
            assert_eq!(queue.pop(), Some(word(n + round)));
        }
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}

#[test]
fn without_a_free_node_try_push_gives_the_word_back() {
    let queue = Injector::new();
    let mut count = 0;
    while queue.try_push(word(count + 1)).is_ok() {
        count += 1;
    }
    assert_eq!(count, 63, "64 nodes, one of which is the dummy");
    assert_eq!(queue.try_push(word(9)), Err(Full(word(9))));
    assert_eq!(queue.pop(), Some(word(1)));
    assert_eq!(
        queue.try_push(word(9)),
        Ok(()),
        "a popped word frees a node"
    );
    queue.reserve(1000);
    for n in 0..1000 {
        assert_eq!(queue.try_push(word(n + 1)), Ok(()));
    }
}

/// Producers and consumers: every word comes out once, and those of one producer in order.
#[test]
fn every_word_comes_out_once_and_in_its_producers_order() {
    let (producers, consumers) = (2, 2);
    let each = if cfg!(miri) { 150 } else { 200_000 };
    let queue = Injector::new();
    let popped = AtomicUsize::new(0);
    let sums: usize = thread::scope(|scope| {
        for producer in 0..producers {
            let queue = &queue;
            scope.spawn(move || {
                for n in 0..each {
                    queue.push(word(1 + producer + n * producers));
                }
            });
        }
        let consumers: Vec<_> = (0..consumers)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = [None; 2];
                    let mut sum = 0;
                    while popped.load(Ordering::Relaxed) < producers * each {
                        let Some(word) = queue.pop() else {
                            thread::yield_now();
                            continue;
                        };
                        popped.fetch_add(1, Ordering::Relaxed);
                        let (producer, n) =
                            ((word.get() - 1) % producers, (word.get() - 1) / producers);
                        assert!(last[producer] < Some(n));
                        last[producer] = Some(n);
                        sum += word.get();
                    }
                    sum
                })
            })
            .collect();
        consumers
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    let total = producers * each;
    assert_eq!(sums, total * (total + 1) / 2);
    assert!(queue.is_empty());
}
