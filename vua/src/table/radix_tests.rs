//! The radix by itself: which leaves it makes, that it finds what it made, and that cores that make the same node agree.

extern crate std;

use core::sync::atomic::Ordering;
use std::collections::BTreeMap;
use std::thread;
use std::vec::Vec;

use super::radix::{Edge, SPAN, each_node, find, find_at_once, find_or_make, next};
use crate::heap::LocalHeap;
use crate::heap::testing::{Memory, Numbers};
use crate::value::Value;

const MIB: usize = 1 << 20;
const REGION: u64 = 1024;

fn store(local: &LocalHeap, edge: &Edge, x: u64) {
    let slot = find_or_make(local, edge, x, || false).unwrap();
    slot.store(Value::small(x as i32).to_bits(), Ordering::Release);
}

/// How many large leaves there are, and how many small ones.
fn leaves(edge: &Edge) -> (usize, usize) {
    let (mut large, mut small) = (0, 0);
    if let Some(node) = edge.node() {
        each_node(node, &mut |node| {
            if node.is_leaf() {
                if node.width() == REGION as usize {
                    large += 1;
                } else {
                    small += 1;
                }
            }
        });
    }
    (large, small)
}

/// Every index that was stored is found, in order, and no other.
fn check(edge: &Edge, stored: &BTreeMap<u64, ()>) {
    let mut x = 0;
    let mut found = Vec::new();
    while let Some((at, value)) = next(edge, x) {
        if !value.is_nil() {
            assert_eq!(value, Value::small(at as i32));
            found.push(at);
        }
        x = at + 1;
    }
    assert!(found.iter().eq(stored.keys()));
    for &x in stored.keys() {
        for near in [x.wrapping_sub(1), x, x + 1, x + 31, x + 33, x + REGION] {
            let value = find(edge, near).map(|slot| slot.load(Ordering::Acquire));
            let expected = match stored.contains_key(&near) {
                true => Some(Value::small(near as i32).to_bits()),
                false => value.map(|_| Value::NIL.to_bits()),
            };
            assert_eq!(value, expected);
        }
    }
}

/// Stores the indices in their order and checks; the leaves.
fn filled(order: impl Iterator<Item = u64>) -> (usize, usize) {
    let local = LocalHeap::new(Memory::heap(64 * MIB), 0);
    let edge = Edge::new();
    let mut stored = BTreeMap::new();
    for x in order {
        store(&local, &edge, x);
        stored.insert(x, ());
    }
    check(&edge, &stored);
    leaves(&edge)
}

#[test]
fn runs_lie_in_large_leaves() {
    let count = if cfg!(miri) { 3 } else { 70 } * REGION;
    let regions = (count / REGION) as usize;
    // Upwards and downwards: all but the first region that is met.
    assert_eq!(filled(0..count), (regions - 1, 32));
    assert_eq!(filled((0..count).rev()), (regions - 1, 32));
    // From the middle of a region, far away, where nothing is before: the region after next is large at the latest.
    let from = SPAN / 2 + REGION - 100;
    let (large, _) = filled(from..from + count);
    assert!(large >= regions - 2, "{large} large leaves");
    // Two runs in turn, as two cores fill a table.
    let (large, small) = filled((0..count).flat_map(|i| [i, i + 2 * count]));
    assert_eq!((large, small), (2 * (regions - 1), 2 * 32));
}

#[test]
fn the_first_region_is_large_if_the_dense_block_ends_in_values() {
    let local = LocalHeap::new(Memory::heap(16 * MIB), 0);
    let edge = Edge::new();
    find_or_make(&local, &edge, 5, || true).unwrap();
    assert_eq!(leaves(&edge), (1, 0));
    // A root that is a large leaf gets a taller one before it like any other.
    store(&local, &edge, 5);
    store(&local, &edge, 70 * REGION);
    check(&edge, &BTreeMap::from([(5, ()), (70 * REGION, ())]));
}

/// One key in each region, though the regions before are full: one large leaf is spent on the first, none on those behind it.
#[test]
fn scattered_keys_get_small_leaves() {
    let run = 3 * REGION;
    let scattered = (0..if cfg!(miri) { 10 } else { 500 }).map(|i| run + i * REGION + 7);
    let (large, small) = filled((0..run).chain(scattered.clone()));
    assert_eq!((large, small), (3, 32 + scattered.count() - 1));
    let mut numbers = Numbers(5);
    let keys = if cfg!(miri) { 50 } else { 3000 };
    let (large, small) = filled((0..keys).map(|_| numbers.below(SPAN)));
    assert!(large == 0 && small <= keys as usize);
}

#[test]
fn any_order_ends_in_the_directory() {
    let local = LocalHeap::new(Memory::heap(64 * MIB), 0);
    let count = if cfg!(miri) { 2 * REGION } else { 40 * REGION };
    let mut order: Vec<u64> = (0..count).collect();
    let mut numbers = Numbers(11);
    for i in (1..order.len()).rev() {
        order.swap(i, numbers.below(i as u64 + 1) as usize);
    }
    let edge = Edge::new();
    for &x in &order {
        store(&local, &edge, x);
    }
    check(&edge, &order.iter().map(|&x| (x, ())).collect());
    // A run behind it, whose leaves the directory knows once they were looked for.
    for x in count..count + 2 * REGION {
        store(&local, &edge, x);
    }
    assert!(find(&edge, count).is_some());
    assert!(find_at_once(&edge, count).is_some());
    // What is no index at all.
    for x in [SPAN, SPAN + 7, u64::MAX, u64::MAX - REGION] {
        assert!(find(&edge, x).is_none() && find_at_once(&edge, x).is_none());
    }
}

/// Each thread makes the same slots, in an order of its own, so all race for every node, the roots and the directories. A key has one slot, whoever asks.
#[test]
fn cores_that_make_the_same_nodes_agree() {
    const THREADS: usize = 4;
    let rounds = if cfg!(miri) { 1 } else { 20 };
    for round in 0..rounds {
        let heap = Memory::heap(64 * MIB);
        let edge = Edge::new();
        let regions = if cfg!(miri) { 2 } else { 20 };
        let count = regions * REGION;
        let step = if cfg!(miri) { 97 } else { 3 };
        let slots: Vec<BTreeMap<u64, usize>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS as u64)
                .map(|thread| {
                    let edge = &edge;
                    scope.spawn(move || {
                        let local = LocalHeap::new(heap, thread as usize);
                        let keys = (0..count)
                            .step_by(step)
                            .map(|i| match (thread + round) % 4 {
                                0 => i,
                                1 => count - 1 - i / step as u64 * step as u64,
                                2 => (i * 7919) % count,
                                _ => (i + count / 2) % count,
                            });
                        keys.map(|x| {
                            let slot = find_or_make(&local, edge, x, || false).unwrap();
                            slot.store(Value::small(x as i32).to_bits(), Ordering::Release);
                            (x, slot as *const _ as usize)
                        })
                        .collect()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let mut all = BTreeMap::new();
        for (&x, &slot) in slots.iter().flatten() {
            assert_eq!(*all.entry(x).or_insert(slot), slot);
            assert_eq!(find(&edge, x).map(|s| s as *const _ as usize), Some(slot));
        }
        check(&edge, &all.keys().map(|&x| (x, ())).collect());
    }
}
