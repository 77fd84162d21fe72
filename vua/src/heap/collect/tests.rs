//! The collector on a heap without an engine: one core, whose roots are a list of values and a list of words.

extern crate std;

use core::cell::RefCell;
use core::ptr::NonNull;
use std::vec::Vec;

use super::super::block::Block;
use super::super::testing::{Memory, Numbers};
use super::super::{Header, Heap, LocalHeap, barrier, flags};
use super::mark::testing::without_segments;
use super::{Extent, Marker, Mutators};
use crate::memory::{Array, Scalar, Storage};
use crate::object::{Cell, Gc, NativeFunction, Str};
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
        unsafe { self.heap.collect(self, 0, 0, Extent::Full) }.finish();
    }

    /// A young collection.
    fn young(&self) {
        // SAFETY: there is no other core.
        unsafe { self.heap.collect(self, 0, 0, Extent::Young) }.finish();
    }

    /// Says that something is about to be stored into an object.
    fn before<T>(&self, object: Gc<T>) {
        // SAFETY: the object lives.
        unsafe { barrier::on_store(object.header_ptr(), &self.local) };
    }

    /// A store as programs make them.
    fn store(&self, table: Gc<Table>, key: i32, value: Gc<Table>) {
        self.before(table);
        self.push(table, key, value);
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

#[test]
fn a_young_collection_frees_what_is_new_and_lets_be_what_is_old() {
    let world = World::new(64 * MIB);
    let root = world.root();
    let (old, dead_old) = (world.table(), world.table());
    world.push(root, 1, old);
    world.roots.borrow_mut().push(dead_old.value());
    world.collect();
    world.roots.borrow_mut().pop();
    let (young, dead) = (world.root(), world.table());
    world.push(young, 1, world.table());
    world.push(young, 2, old);
    world.push(dead, 1, young);
    let inner = young.get(Value::small(1)).as_table().unwrap();
    world.young();
    assert!(lives(root) && lives(old) && lives(young) && lives(inner));
    assert!(!lives(dead) && lives(dead_old));
    // What was young is old now.
    world.young();
    assert!(lives(young) && lives(inner));
    world.collect();
    assert!(lives(root) && lives(old) && lives(young) && lives(inner));
    assert!(!lives(dead_old));
}

#[test]
fn a_store_into_an_old_table_is_seen_if_it_is_noted_and_only_then() {
    let world = World::new(64 * MIB);
    let root = world.root();
    world.push(root, 1, world.table());
    world.collect();
    for round in 0..3 {
        let noted = world.table();
        world.store(root, 1, noted);
        assert!(!root.header().has(flags::LOG));
        world.young();
        assert!(lives(noted) && root.header().has(flags::LOG), "{round}");
    }
    // Overwritten by a store that nobody hears of.
    let unheard = world.table();
    world.push(root, 1, unheard);
    world.young();
    assert!(!lives(unheard));
    root.set_int(&world.local, 1, Value::NIL).unwrap();
    world.collect();
}

#[test]
fn every_part_of_a_noted_table_is_looked_into() {
    let world = World::new(64 * MIB);
    let root = world.root();
    for i in 1..=8 {
        world.push(root, i, world.table());
    }
    // A shared one, with a radix.
    let shared = world.root();
    world.push(shared, 1, world.table());
    world.local.publish(shared.value(), &mut || ()).unwrap();
    world.before(shared);
    for i in (2..40).chain(5000..5040) {
        let value = world.table();
        value.header().set_flags(flags::SHARED);
        shared
            .set_int(&world.local, i, value.value())
            .expect("integers go into the radix");
    }
    world.collect();
    let (element, value, metatable) = (world.table(), world.table(), world.table());
    world.store(root, 8, element);
    let key = world.table();
    world.before(root);
    world.set(root, key.value(), value.value());
    root.set_metatable(Some(metatable));
    let (near, far, new) = (world.table(), world.table(), world.table());
    world.before(shared);
    for (i, table) in [(30, near), (5020, far), (100_000, new)] {
        shared.set_int(&world.local, i, table.value()).unwrap();
    }
    world.young();
    for table in [element, key, value, metatable, near, far, new] {
        assert!(lives(table));
    }
    assert_eq!(shared.get_int(100_000), new.value());
}

#[test]
fn cells_natives_and_arrays_are_noted_like_tables() {
    let world = World::new(64 * MIB);
    let local = &world.local;
    let cell = Cell::new(local, Value::NIL).unwrap();
    let native = NativeFunction::new(local, core::ptr::null(), "f", &[Value::NIL]).unwrap();
    let (storage, _) = Storage::new(local, 16).unwrap();
    // SAFETY: the storage is ours, and has room for two references, which are written.
    let array = unsafe {
        let words = storage.data().cast::<u64>();
        words.write(Value::NIL.to_bits());
        words.add(1).write(Value::NIL.to_bits());
        Array::new(local, Scalar::Ref as u8, None, 2, storage).unwrap()
    };
    let (numbers, _) = Storage::new(local, 16).unwrap();
    // SAFETY: as above.
    let numbers = unsafe { Array::new(local, Scalar::F64 as u8, None, 2, numbers).unwrap() };
    world
        .roots
        .borrow_mut()
        .extend([cell.value(), native.value(), array.value(), numbers.value()]);
    world.collect();
    assert!(cell.header().has(flags::LOG) && array.header().has(flags::LOG));
    assert!(!numbers.header().has(flags::LOG));
    let tables = [world.table(), world.table(), world.table()];
    world.before(cell);
    cell.set(tables[0].value());
    world.before(native);
    native.set_capture(0, tables[1].value());
    world.before(array);
    // SAFETY: the array's second element.
    unsafe {
        array
            .data()
            .cast::<u64>()
            .add(1)
            .write(tables[2].value().to_bits())
    };
    world.young();
    assert!(tables.iter().all(|table| lives(*table)));
}

/// Runs `grow` again and again, each time with a poll that collects once, one later.
fn past_each_collection(world: &World, mut grow: impl FnMut(&mut dyn FnMut())) {
    let mut polls = usize::MAX;
    let mut collects_at = 0;
    while collects_at < polls {
        polls = 0;
        grow(&mut || {
            if polls == collects_at {
                world.young();
            }
            polls += 1;
        });
        collects_at += 1;
        // What no collection came to in spite of being in use is overwritten.
        world.young();
        for _ in 0..3000 {
            let (garbage, other) = (world.table(), world.table());
            world.push(garbage, 1, other);
        }
    }
    assert!(polls > 1);
}

#[test]
fn a_table_that_grows_past_a_collection_keeps_its_new_blocks() {
    let world = World::new(256 * MIB);
    let value = world.root();
    // The dense block of a table of one task doubles.
    past_each_collection(&world, |poll| {
        let list = world.root();
        for i in 1..=3000 {
            world.push(list, i, value);
        }
        world.collect();
        world.before(list);
        let end = list.dense_block().capacity() as i32 + 1;
        list.grow(&world.local, Value::small(end), poll).unwrap();
        world.young();
        for i in 1..=3000 {
            assert_eq!(list.get_int(i.into()), value.value());
        }
        world.roots.borrow_mut().pop();
    });
    // So do its nodes.
    let names: Vec<_> = (0..1024).map(|_| world.root().value()).collect();
    past_each_collection(&world, |poll| {
        let table = world.root();
        for name in &names {
            world.set(table, *name, Value::TRUE);
        }
        let last = world.root().value();
        world.collect();
        world.before(table);
        table.grow(&world.local, last, poll).unwrap();
        world.young();
        assert!(names.iter().all(|name| table.get(*name) == Value::TRUE));
        world.roots.borrow_mut().truncate(2 + names.len());
    });
    // Those of a shared one are copied by one of its tasks.
    past_each_collection(&world, |poll| {
        let table = world.root();
        for name in &names {
            world.set(table, *name, Value::TRUE);
        }
        world.local.publish(table.value(), &mut || ()).unwrap();
        let last = world.root().value();
        world.collect();
        world.before(table);
        if table.set(&world.local, last, Value::TRUE).is_err() {
            assert_eq!(table.grow_begin(), crate::table::GrowthStart::Started);
            let retired = table.grow_finish(&world.local, poll).unwrap();
            // SAFETY: there is no other core.
            unsafe { retired.release(&world.local) };
        }
        world.young();
        assert!(names.iter().all(|name| table.get(*name) == Value::TRUE));
        world.roots.borrow_mut().truncate(2 + names.len());
    });
}

#[test]
fn old_weak_tables_lose_what_is_new_and_dead() {
    let world = World::new(16 * MIB);
    let weak: Vec<_> = ["k", "v", "kv"].map(|mode| world.weak(mode)).into();
    let kept = world.root();
    for table in &weak {
        world.set(*table, kept.value(), kept.value());
    }
    world.collect();
    let (key, value) = (world.table(), world.table());
    for table in &weak {
        world.before(*table);
        world.set(*table, kept.value(), value.value());
    }
    // Of the second the keys are not weak.
    world.set(weak[0], key.value(), kept.value());
    world.set(weak[2], key.value(), kept.value());
    // An ephemeron that is new in an old table, and one whose key is dead.
    let (held, dead) = (world.table(), world.table());
    world.set(weak[0], kept.value(), held.value());
    world.set(weak[0], dead.value(), dead.value());
    world.young();
    assert!(!lives(key) && !lives(value) && !lives(dead) && lives(held));
    for table in &weak {
        assert!(table.get(key.value()).is_nil());
    }
    assert_eq!(weak[0].get(kept.value()), held.value());
    assert!(weak[1].get(kept.value()).is_nil() && weak[2].get(kept.value()).is_nil());
}

#[test]
fn young_objects_with_finalizers_become_due_in_young_collections() {
    let world = World::new(16 * MIB);
    let register = |table: Gc<Table>| {
        world.local.publish(table.value(), &mut || ()).unwrap();
        world.heap.register_finalizer(0, table).unwrap();
    };
    let old = world.root();
    register(old);
    world.collect();
    world.roots.borrow_mut().pop();
    let (first, second, held) = (world.table(), world.table(), world.table());
    register(first);
    register(second);
    world.push(first, 1, held);
    let kept = world.root();
    register(kept);
    world.young();
    assert!(lives(held));
    assert_eq!(world.heap.next_due(0), Some(second));
    assert_eq!(world.heap.next_due(0), Some(first));
    assert_eq!(world.heap.next_due(0), None);
    // The old one's turn is the next full collection.
    world.collect();
    assert_eq!(world.heap.next_due(0), Some(old));
    assert_eq!(world.heap.next_due(0), None);
}

#[test]
fn what_is_used_comes_to_the_same_by_young_collections_and_by_a_full_one() {
    let world = World::new(256 * MIB);
    let mut numbers = Numbers(3);
    let root = world.root();
    for round in 0..30 {
        for i in 0..2000 {
            let table = world.table();
            for key in 1..=numbers.below(20) as i32 {
                world.set(table, Value::small(key), Value::TRUE);
            }
            if numbers.below(3) == 0 {
                world.store(root, numbers.below(3000) as i32 + 1, table);
            }
            if i % 500 == 0 {
                // Large objects come and go, too.
                let bytes = [0u8; 100_000];
                let text = Str::new(&world.local, &bytes).unwrap();
                world.roots.borrow_mut()[0] = text.value();
            }
        }
        world.young();
        if round % 7 == 0 {
            world.collect();
        }
    }
    world.collect();
    let (used, live) = (world.heap.used_bytes(0), world.heap.statistics().live());
    assert_eq!(used, live);
    for _ in 0..3 {
        for _ in 0..5000 {
            let garbage = world.table();
            world.push(garbage, 1, root);
        }
        world.young();
        assert_eq!(world.heap.used_bytes(0), used);
        assert_eq!(world.heap.statistics().live(), live);
    }
}

#[test]
fn interned_strings_that_are_new_and_dead_are_forgotten() {
    let world = World::new(16 * MIB);
    let intern = |name: &str| world.heap.intern(&world.local, name.as_bytes()).unwrap();
    let old = intern("old");
    world.roots.borrow_mut().push(old.value());
    world.collect();
    world.roots.borrow_mut().pop();
    let kept = intern("kept");
    world.roots.borrow_mut().push(kept.value());
    for i in 0..200 {
        intern(&std::format!("dead {i}"));
    }
    world.young();
    let mut left = Vec::new();
    world
        .heap
        .interned(&mut |string| left.push(string.as_str().unwrap().bytes().to_vec()));
    left.sort();
    assert_eq!(left, [b"kept".to_vec(), b"old".to_vec()]);
    assert_eq!(intern("kept"), kept);
}

#[test]
fn what_could_not_be_noted_makes_the_next_collection_a_full_one() {
    let world = World::new(16 * MIB);
    let root = world.root();
    world.roots.borrow_mut().push(world.table().value());
    let dead = world.roots.borrow()[2].as_table().unwrap();
    world.collect();
    world.roots.borrow_mut().pop();
    let unheard = world.table();
    world.push(root, 1, unheard);
    // SAFETY: there is no other core, and no collection is going on.
    unsafe { world.local.noted() }.overflowed.set(true);
    world.young();
    assert!(lives(unheard) && !lives(dead));
    assert_eq!(world.heap.statistics().young(), 0);
}
