//! The injector under loom: every interleaving of small cases. The first chunk has two nodes here, one of which is the dummy, so
//! that nodes are recycled, and chunks added, within a test.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p sync --release --test 'loom_*'`
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use std::num::NonZeroUsize;
use sync::atomic::{AtomicBool, AtomicUsize, Ordering, full_fence};
use sync::injector::Injector;

fn word(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn model(bound: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(bound);
    model.check(body);
}

fn rest(queue: &Injector) -> Vec<usize> {
    std::iter::from_fn(|| queue.pop())
        .map(NonZeroUsize::get)
        .collect()
}

#[test]
fn push_against_push() {
    model(3, || {
        let queue = Arc::new(Injector::new());
        queue.reserve(2);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.push(word(2)))
        };
        queue.push(word(1));
        other.join().unwrap();
        let mut rest = rest(&queue);
        rest.sort();
        assert_eq!(rest, [1, 2]);
    });
}

#[test]
fn pushes_that_find_no_free_node() {
    model(2, || {
        let queue = Arc::new(Injector::new());
        queue.push(word(3));
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.push(word(2)))
        };
        queue.push(word(1));
        other.join().unwrap();
        let mut rest = rest(&queue);
        assert_eq!(rest.remove(0), 3);
        rest.sort();
        assert_eq!(rest, [1, 2]);
    });
}

#[test]
fn push_against_pop_on_an_empty_queue() {
    model(3, || {
        let queue = Arc::new(Injector::new());
        let written = Arc::new(AtomicUsize::new(0));
        let other = {
            let (queue, written) = (queue.clone(), written.clone());
            thread::spawn(move || {
                let popped = queue.pop();
                if popped.is_some() {
                    assert_eq!(written.load(Ordering::Relaxed), 1);
                }
                popped.is_some()
            })
        };
        written.store(1, Ordering::Relaxed);
        queue.push(word(1));
        let popped = other.join().unwrap();
        assert_eq!(rest(&queue).len(), usize::from(!popped));
        assert!(queue.is_empty());
    });
}

#[test]
fn pop_against_pop() {
    model(3, || {
        let queue = Arc::new(Injector::new());
        queue.push(word(1));
        queue.push(word(2));
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.pop().unwrap().get())
        };
        let mine = queue.pop().unwrap().get();
        let theirs = other.join().unwrap();
        assert_eq!(mine + theirs, 3);
        assert!(queue.is_empty());
    });
}

/// The nodes go round while a slow pop still knows one by its number.
#[test]
fn nodes_are_recycled_under_a_slow_pop() {
    model(3, || {
        let queue = Arc::new(Injector::new());
        queue.push(word(1));
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.pop())
        };
        let mut taken = Vec::new();
        taken.extend(queue.pop());
        queue.push(word(2));
        taken.extend(queue.pop());
        queue.push(word(3));
        taken.extend(other.join().unwrap());
        let mut taken: Vec<_> = taken.into_iter().map(NonZeroUsize::get).collect();
        taken.extend(rest(&queue));
        taken.sort();
        assert_eq!(taken, [1, 2, 3]);
    });
}

/// The nodes go round while a slow push still knows the tail by its number.
#[test]
fn nodes_are_recycled_under_a_slow_push() {
    model(3, || {
        let queue = Arc::new(Injector::new());
        queue.reserve(2);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.push(word(9)))
        };
        let mut taken = Vec::new();
        for n in 1..=2 {
            queue.push(word(n));
            taken.extend(queue.pop().map(NonZeroUsize::get));
        }
        other.join().unwrap();
        taken.extend(rest(&queue));
        taken.sort();
        assert_eq!(taken, [1, 2, 9]);
    });
}

#[test]
fn two_producers_and_a_consumer_keep_each_producers_order() {
    model(2, || {
        let queue = Arc::new(Injector::new());
        queue.reserve(3);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || {
                queue.push(word(1));
                queue.push(word(2));
            })
        };
        let third = {
            let queue = queue.clone();
            thread::spawn(move || queue.push(word(9)))
        };
        let mut taken: Vec<_> = queue.pop().map(NonZeroUsize::get).into_iter().collect();
        other.join().unwrap();
        third.join().unwrap();
        taken.extend(rest(&queue));
        taken.retain(|n| *n != 9);
        assert_eq!(taken, [1, 2]);
    });
}

/// "I push, fence, and look whether you sleep; you say that you sleep, fence, and look whether I pushed", with traffic from a third.
#[test]
fn after_a_fence_a_look_does_not_miss_a_push_before_a_fence() {
    model(3, || {
        let queue = Arc::new(Injector::new());
        let asleep = Arc::new(AtomicBool::new(false));
        queue.push(word(1));
        let sleeper = {
            let (queue, asleep) = (queue.clone(), asleep.clone());
            thread::spawn(move || {
                asleep.store(true, Ordering::Relaxed);
                full_fence();
                queue.is_empty()
            })
        };
        // Recycles the nodes that the sleeper may be looking at.
        queue.pop().unwrap();
        queue.push(word(2));
        full_fence();
        let seen = asleep.load(Ordering::Relaxed);
        let missed = sleeper.join().unwrap();
        assert!(seen || !missed);
    });
}

/// There is always a word in the queue, though the node that a slow look began at is recycled, and its link empty again.
fn while_nodes_go_round(look: impl Fn(&Injector) -> bool + Sync + Send + 'static) {
    model(3, move || {
        let queue = Arc::new(Injector::new());
        queue.push(word(1));
        let other = {
            let queue = queue.clone();
            thread::spawn(move || {
                for n in 2..=3 {
                    queue.push(word(n));
                    assert!(queue.pop().is_some());
                }
            })
        };
        assert!(look(&queue));
        other.join().unwrap();
    });
}

#[test]
fn a_slow_look_does_not_take_a_recycled_node_for_the_end() {
    while_nodes_go_round(|queue| !queue.is_empty());
}

#[test]
fn a_slow_pop_does_not_take_a_recycled_node_for_the_end() {
    while_nodes_go_round(|queue| match queue.pop() {
        Some(word) => {
            queue.push(word);
            true
        }
        None => false,
    });
}

/// A word is popped while its push has yet to move `tail`, and the former dummy, at which `tail` is then, is used again.
#[test]
fn a_pop_ahead_of_a_slow_push_leaves_no_freed_node_at_the_tail() {
    model(3, || {
        let queue = Arc::new(Injector::new());
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.push(word(1)))
        };
        let mut taken: Vec<_> = queue.pop().into_iter().collect();
        queue.push(word(2));
        taken.extend(queue.pop());
        other.join().unwrap();
        let mut taken: Vec<_> = taken.into_iter().map(NonZeroUsize::get).collect();
        taken.extend(rest(&queue));
        taken.sort();
        assert_eq!(taken, [1, 2]);
    });
}

/// The node at which a slow push found the tail is freed, no other node being free, so that its link is empty as the last node's is.
#[test]
fn a_slow_push_does_not_link_behind_a_freed_node() {
    model(2, || {
        let queue = Arc::new(Injector::new());
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.push(word(9)))
        };
        // The second chunk has four nodes, and the slow push the other one of the first.
        for n in 1..=4 {
            queue.push(word(n));
        }
        let mut taken: Vec<_> = queue.pop().into_iter().map(NonZeroUsize::get).collect();
        other.join().unwrap();
        taken.extend(rest(&queue));
        taken.sort();
        assert_eq!(taken, [1, 2, 3, 4, 9]);
    });
}
