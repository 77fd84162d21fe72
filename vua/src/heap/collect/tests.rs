//! The collector on a heap without an engine: one core, whose roots are a list of values and a list of words.

extern crate std;

use core::cell::RefCell;
use core::ptr::NonNull;
use std::vec::Vec;

use super::super::block::Block;
use super::super::testing::{Memory, Numbers};
use super::super::{Header, Heap, LocalHeap};
use super::mark::testing::without_segments;
use super::{Marker, Mutators};
use crate::object::{Gc, Str};
use crate::table::Table;
use crate::value::Value;

const MIB: usize = 1 << 20;

struct World {
    heap: &'static Heap,
    local: LocalHeap,
    roots: RefCell<Vec<Value>>,
    words: RefCell<Vec<u64>>,
}

// SAFETY: one thread uses it.
unsafe impl Sync for World {}

impl Mutators for World {
    fn cpus(&self) -> usize {
        1
    }

    unsafe fn local(&self, _cpu: usize) -> &LocalHeap {
        &self.local
    }

    unsafe fn stopped(&self) {}

    unsafe fn core_roots(&self, _cpu: usize, marker: &mut Marker<'_>) {
        let words = self.words.borrow();
        // SAFETY: so many words are there.
        unsafe { marker.words(words.as_ptr(), words.len()) };
    }

    unsafe fn common_roots(&self, marker: &mut Marker<'_>) {
        for root in self.roots.borrow().iter() {
            marker.value(*root);
        }
    }

    unsafe fn is_live_task(&self, _task: NonNull<Header>) -> bool {
        false
    }
}

impl World {
    fn new(bytes: usize) -> World {
        let heap = Memory::heap(bytes);
        let world = World {
            heap,
            local: LocalHeap::new(heap, 0),
            roots: RefCell::default(),
            words: RefCell::default(),
        };
        let mode = Str::new(&world.local, b"__mode").unwrap().value();
        world.roots.borrow_mut().push(mode);
        heap.set_mode_name(mode);
        world
    }

    fn collect(&self) {
        // SAFETY: there is no other core.
        unsafe { self.heap.collect(self, 0, 0) }.finish();
    }

    fn table(&self) -> Gc<Table> {
        Table::new(&self.local, 0, 0).unwrap()
    }

    /// A new table that is a root.
    fn root(&self) -> Gc<Table> {
        let table = self.table();
        self.roots.borrow_mut().push(table.value());
        table
    }

    fn set(&self, table: Gc<Table>, key: Value, value: Value) {
        while table.set(&self.local, key, value).is_err() {
            table.grow(&self.local, key, &mut || ()).unwrap();
        }
    }

    fn push(&self, table: Gc<Table>, i: i32, value: Gc<Table>) {
        self.set(table, Value::small(i), value.value());
    }

    /// A root with a metatable of this mode.
    fn weak(&self, mode: &str) -> Gc<Table> {
        let (table, metatable) = (self.root(), self.table());
        let name = self.roots.borrow()[0];
        let mode = Str::new(&self.local, mode.as_bytes()).unwrap().value();
        self.set(metatable, name, mode);
        table.set_metatable(Some(metatable));
        table
    }
}

/// Whether the last collection found the table alive. To be asked before anything is allocated.
fn lives(table: Gc<Table>) -> bool {
    let object = table.header_ptr();
    // SAFETY: memory of small objects stays mapped, and the heads of blocks with it.
    unsafe { Block::of(object).as_ref() }
        .marks
        .is_alive(Block::offset(object))
}

#[test]
fn objects_live_as_long_as_something_refers_to_them() {
    let world = World::new(64 * MIB);
    let mut numbers = Numbers(7);
    let root = world.root();
    let count = 300;
    for round in 0..6 {
        // A graph with cycles: half of it hangs on the root, half on nothing.
        let tables: Vec<_> = (0..count).map(|_| world.table()).collect();
        for (i, table) in tables.iter().enumerate() {
            for key in 1..=3 {
                let half = i / (count / 2) * (count / 2);
                let other = tables[half + numbers.below(count as u64 / 2) as usize];
                world.push(*table, key, other);
            }
            if i + 1 < count / 2 {
                world.push(*table, 4, tables[i + 1]);
            }
        }
        world.push(root, round + 1, tables[0]);
        world.collect();
        for (i, table) in tables.iter().enumerate() {
            assert_eq!(lives(*table), i < count / 2, "{round} {i}");
        }
    }
    // Nothing of what earlier rounds left was lost or overwritten.
    for round in 0..6 {
        let mut length = 0;
        let mut at = root.get(Value::small(round + 1));
        while let Some(table) = at.as_table() {
            length += 1;
            at = table.get(Value::small(4));
        }
        assert_eq!(length, count / 2);
    }
    let used = world.heap.used_bytes(0);
    world.roots.borrow_mut().truncate(1);
    world.collect();
    world.collect();
    assert!(!lives(root));
    assert!(world.heap.used_bytes(0) < used / 10);
}

#[test]
fn words_count_as_references_if_an_object_begins_there() {
    let world = World::new(16 * MIB);
    let (kept, dead) = (world.table(), world.table());
    let bits = |table: Gc<Table>| table.value().to_bits();
    *world.words.borrow_mut() = std::vec![bits(kept), 0, u64::MAX, bits(kept) + 16, 7];
    world.collect();
    assert!(lives(kept) && !lives(dead));
    // What died is nothing any more, before it is swept and after.
    *world.words.borrow_mut() = std::vec![bits(kept), bits(dead)];
    world.collect();
    assert!(lives(kept) && !lives(dead));
    let fresh = world.table();
    world.words.borrow_mut().push(bits(fresh));
    world.collect();
    assert!(lives(kept) && lives(fresh));
}

#[test]
fn weak_tables_lose_what_is_dead_in_each_mode() {
    let world = World::new(16 * MIB);
    let kept = world.root();
    for (mode, dead_key, dead_value) in
        [("k", false, true), ("v", true, false), ("kv", false, false)]
    {
        let table = world.weak(mode);
        let (key, value) = (world.table().value(), world.table().value());
        // Only the table refers to the key of one and the value of the other. Numbers never die.
        world.set(table, key, kept.value());
        world.set(table, kept.value(), value);
        world.set(table, Value::small(1), value);
        world.set(table, Value::small(2), Value::small(3));
        world.collect();
        assert_eq!(!table.get(key).is_nil(), dead_key, "{mode}");
        assert_eq!(!table.get(kept.value()).is_nil(), dead_value, "{mode}");
        assert_eq!(!table.get(Value::small(1)).is_nil(), dead_value, "{mode}");
        assert!(!table.get(Value::small(2)).is_nil());
    }
}

#[test]
fn a_chain_of_ephemerons_lives_as_long_as_its_first_key() {
    let world = World::new(16 * MIB);
    // Two tables by turns, so that each round finds something in one that needs the other.
    let pair = [world.weak("k"), world.weak("k")];
    let first = world.root();
    let mut chain = std::vec![first];
    for i in 0..100 {
        let next = world.table();
        world.set(pair[i % 2], chain[i].value(), next.value());
        chain.push(next);
    }
    // A ring of its own, which only itself refers to.
    let ring = [world.table(), world.table()];
    world.set(pair[0], ring[0].value(), ring[1].value());
    world.set(pair[1], ring[1].value(), ring[0].value());
    world.collect();
    assert!(chain.iter().all(|table| lives(*table)));
    assert!(!lives(ring[0]) && !lives(ring[1]));
    world.roots.borrow_mut().pop();
    world.collect();
    assert!(!chain.iter().any(|table| lives(*table)));
}

#[test]
fn objects_with_finalizers_come_back_once_the_last_registered_first() {
    let world = World::new(16 * MIB);
    let weak = world.weak("v");
    let tables: Vec<_> = (0..5).map(|_| world.table()).collect();
    let held: Vec<_> = (0..5).map(|_| world.table()).collect();
    for (i, (table, held)) in tables.iter().zip(&held).enumerate() {
        world.push(*table, 1, *held);
        world.push(weak, i as i32 + 1, *table);
        world.local.publish(table.value(), &mut || ()).unwrap();
        world.heap.register_finalizer(0, *table).unwrap();
    }
    world.roots.borrow_mut().push(tables[2].value());
    world.collect();
    // All live, with what they refer to, but have left weak values.
    assert!(tables.iter().chain(&held).all(|table| lives(*table)));
    for i in 0..5 {
        assert_eq!(!weak.get(Value::small(i + 1)).is_nil(), i == 2);
    }
    for i in [4, 3, 1, 0] {
        assert_eq!(world.heap.next_due(0), Some(tables[i]));
    }
    assert_eq!(world.heap.next_due(0), None);
    // One is stored again by its finalizer; the others die.
    world.roots.borrow_mut().push(tables[4].value());
    world.collect();
    for i in 0..5 {
        assert_eq!(
            (lives(tables[i]), lives(held[i])),
            (i == 2 || i == 4, i == 2 || i == 4)
        );
    }
    assert_eq!(world.heap.next_due(0), None);
}

#[test]
fn marking_needs_no_memory() {
    let world = World::new(64 * MIB);
    let root = world.root();
    let mut all = Vec::new();
    // Wide, and deep.
    for i in 0..20_000 {
        let (table, leaf) = (world.table(), world.table());
        world.push(table, 1, leaf);
        world.push(root, i + 1, table);
        all.extend([table, leaf]);
    }
    let mut list = all[0];
    for _ in 0..20_000 {
        let next = world.table();
        for key in 2..=3 {
            world.push(list, key, next);
        }
        all.push(next);
        list = next;
    }
    let dead = world.table();
    without_segments(|| world.collect());
    assert!(all.iter().all(|table| lives(*table)) && !lives(dead));
    world.collect();
    assert!(all.iter().all(|table| lives(*table)));
}
