extern crate std;

use std::collections::{HashMap, HashSet};
use std::format;
use std::string::String;
use std::vec::Vec;

use super::{GrowthStart, Next, SetError, Table};
use crate::heap::testing::{Memory, Numbers};
use crate::heap::{LocalHeap, flags};
use crate::object::{Gc, Str, exact_integer};
use crate::value::Value;

const MIB: usize = 1 << 20;

/// A key as the model knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Model {
    Integer(i64),
    Float(u64),
    String(Vec<u8>),
    Other(u64),
}

fn model_of(key: Value) -> Model {
    if let Some(i) = key.as_integer() {
        Model::Integer(i)
    } else if let Some(f) = key.as_float() {
        exact_integer(f).map_or(Model::Float(f.to_bits()), Model::Integer)
    } else if let Some(s) = key.as_str() {
        Model::String(s.bytes().to_vec())
    } else {
        Model::Other(key.to_bits())
    }
}

fn string(local: &LocalHeap, text: &str) -> Value {
    Str::new(local, text.as_bytes()).unwrap().value()
}

/// Sets a key as one task does that never has to wait for another.
fn set(local: &LocalHeap, table: Gc<Table>, key: Value, value: Value) {
    loop {
        match table.set(local, key, value) {
            Ok(()) => return,
            Err(SetError::Grow) => grow(local, table, key),
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn grow(local: &LocalHeap, table: Gc<Table>, key: Value) {
    if !table.is_shared() {
        return table.grow(local, key, &mut || ()).unwrap();
    }
    assert_eq!(table.grow_begin(), GrowthStart::Started);
    assert_eq!(table.grow_begin(), GrowthStart::Already);
    let retired = table.grow_finish(local, &mut || ()).unwrap();
    assert!(!table.header().has(flags::GROWING));
    // SAFETY: no other core runs.
    unsafe { retired.release(local) };
}

fn entries(table: Gc<Table>) -> Vec<(Value, Value)> {
    let snapshot = table.begin_iteration();
    let mut all = Vec::new();
    let mut cursor = 0;
    loop {
        match table.next_at(snapshot, cursor) {
            Next::Entry {
                cursor: at,
                key,
                value,
            } => {
                assert_eq!(table.cursor_after(snapshot, key), Ok(at));
                all.push((key, value));
                cursor = at;
            }
            Next::Pause(at) => cursor = at,
            Next::End => return all,
        }
    }
}

fn check(local: &LocalHeap, table: Gc<Table>, model: &HashMap<Model, Value>) {
    let all = entries(table);
    assert_eq!(all.len(), model.len());
    for (key, value) in &all {
        assert_eq!(model.get(&model_of(*key)), Some(value), "{key:?}");
    }
    let distinct: HashSet<_> = all.iter().map(|(key, _)| model_of(*key)).collect();
    assert_eq!(distinct.len(), all.len());
    // `next` gives the same in the same order.
    let mut key = Value::NIL;
    for entry in &all {
        let next = table.next(local, key, &mut || ()).unwrap();
        assert_eq!(next, Some(*entry));
        key = entry.0;
    }
    assert_eq!(table.next(local, key, &mut || ()), Ok(None));
    let border = table.length();
    assert!(border >= 0);
    assert!(border == 0 || model.contains_key(&Model::Integer(border)));
    assert!(!model.contains_key(&Model::Integer(border + 1)));
}

/// Keys of all sorts, often equal to earlier ones but seldom the same objects.
fn some_key(local: &LocalHeap, numbers: &mut Numbers, others: &[Value], span: u64) -> Value {
    let small = numbers.below(span) as i64;
    match numbers.below(12) {
        0..=4 => local.integer(small + 1).unwrap(),
        5 => local.integer(small - span as i64 / 2).unwrap(),
        6 => local.integer((1 << 29) - 3 + small % 7).unwrap(),
        7 => local.integer(i64::MAX - small % 5).unwrap(),
        8 => Value::float(small as f64 / 2.0),
        9 => Value::float((1u64 << 60) as f64 * (1 + small % 3) as f64),
        10 => string(local, &format!("key{small}")),
        _ => others[small as usize % others.len()],
    }
}

fn against_model(seed: u64, span: u64, steps: usize, share_at: usize) {
    let local = LocalHeap::new(Memory::heap(512 * MIB), 0);
    let mut numbers = Numbers(seed);
    let mut others: Vec<Value> = (0..8)
        .map(|_| Table::new(&local, 0, 0).unwrap().value())
        .collect();
    others.extend([Value::TRUE, Value::FALSE]);
    for other in &others {
        local.publish(*other, &mut || ()).unwrap();
    }
    let table = Table::new(&local, numbers.below(4) as usize, numbers.below(4) as usize).unwrap();
    let mut model: HashMap<Model, Value> = HashMap::new();
    for step in 0..steps {
        if step == share_at {
            local.publish(table.value(), &mut || ()).unwrap();
            check(&local, table, &model);
        }
        let key = some_key(&local, &mut numbers, &others, span);
        let as_model = model_of(key);
        assert_eq!(
            table.get(key),
            model.get(&as_model).copied().unwrap_or(Value::NIL),
            "{key:?}"
        );
        // Phases that fill and phases that empty.
        let remove = numbers.below(10) < if step / 1000 % 2 == 0 { 2 } else { 7 };
        if remove {
            set(&local, table, key, Value::NIL);
            model.remove(&as_model);
        } else {
            let value = Value::small(step as i32);
            match numbers.below(8) {
                0 => loop {
                    match table.slot_or_insert(&local, key) {
                        Ok(slot) => {
                            let old = model.get(&as_model).copied().unwrap_or(Value::NIL);
                            assert_eq!(slot.exchange(value), old);
                            break;
                        }
                        Err(SetError::Grow) => grow(&local, table, key),
                        Err(error) => panic!("{error:?}"),
                    }
                },
                _ => set(&local, table, key, value),
            }
            model.insert(as_model, value);
        }
        if step % (steps / 20).max(1) == 0 {
            check(&local, table, &model);
        }
    }
    check(&local, table, &model);
    // Everything may be removed while it is being given.
    let snapshot = table.begin_iteration();
    let (mut cursor, mut given) = (0, 0);
    loop {
        match table.next_at(snapshot, cursor) {
            Next::Entry {
                cursor: at, key, ..
            } => {
                cursor = at;
                given += 1;
                set(&local, table, key, Value::NIL);
            }
            Next::Pause(at) => cursor = at,
            Next::End => break,
        }
    }
    assert_eq!(given, model.len());
    check(&local, table, &HashMap::new());
}

#[test]
fn a_table_does_what_a_map_does() {
    let (seeds, steps) = if cfg!(miri) { (3, 120) } else { (40, 6000) };
    for seed in 1..=seeds {
        let span = [8, 60, 400, 3000][seed as usize % 4];
        // Never shared, shared from the start, shared on the way.
        let share_at = [usize::MAX, 0, steps / 3][seed as usize % 3];
        against_model(seed, span, steps, share_at);
    }
}

#[test]
fn keys_that_are_none() {
    let local = LocalHeap::new(Memory::heap(4 * MIB), 0);
    let table = Table::new(&local, 0, 0).unwrap();
    let nan = Value::float(f64::NAN);
    assert_eq!(
        table.set(&local, Value::NIL, Value::TRUE),
        Err(SetError::NilKey)
    );
    assert_eq!(table.set(&local, nan, Value::TRUE), Err(SetError::NanKey));
    assert_eq!(table.get(Value::NIL), Value::NIL);
    assert_eq!(table.get(nan), Value::NIL);
    assert!(table.next(&local, nan, &mut || ()).is_err());
    assert!(table.next(&local, Value::small(9), &mut || ()).is_err());
    // A float key is stored as the integer that it equals, boxed or not.
    set(&local, table, Value::float(-0.0), Value::TRUE);
    set(&local, table, Value::float(2f64.powi(60)), Value::FALSE);
    for (key, value) in entries(table) {
        assert_eq!(
            key.as_integer(),
            Some(if value == Value::TRUE { 0 } else { 1 << 60 })
        );
    }
}

#[test]
fn a_frozen_table_refuses_stores() {
    let local = LocalHeap::new(Memory::heap(4 * MIB), 0);
    let table = Table::new(&local, 0, 0).unwrap();
    let key = string(&local, "k");
    for key in [Value::small(1), key, Value::small(-1)] {
        set(&local, table, key, Value::TRUE);
    }
    table.header().set_flags(flags::FROZEN);
    for key in [Value::small(1), key, Value::small(-1), Value::small(2)] {
        assert_eq!(table.set(&local, key, Value::FALSE), Err(SetError::Frozen));
        assert!(table.slot_or_insert(&local, key).is_err());
    }
    // SAFETY: the key is a string.
    let set = unsafe { table.set_str(&local, key, Value::FALSE, &mut 0) };
    assert_eq!(set, Err(SetError::Frozen));
    assert_eq!(
        table.insert_whole(&local, Value::TRUE),
        Err(SetError::Frozen)
    );
    assert_eq!(table.remove_whole(), Err(SetError::Frozen));
    assert_eq!(table.get(key), Value::TRUE);
}

#[test]
fn appending_fills_the_dense_block() {
    let local = LocalHeap::new(Memory::heap(64 * MIB), 0);
    let table = Table::new(&local, 0, 0).unwrap();
    let count = if cfg!(miri) { 3000 } else { 100_000 };
    for i in 1..=count {
        assert_eq!(table.length(), i - 1);
        set(
            &local,
            table,
            Value::small(i as i32),
            Value::small(-(i as i32)),
        );
    }
    assert!(table.dense_block().capacity() as i64 >= count);
    assert!(table.node_block().is_static());
    for i in 1..=count {
        assert_eq!(table.get_int(i), Value::small(-(i as i32)));
    }
    // Filled backwards, too, most ends up there.
    let table = Table::new(&local, 0, 0).unwrap();
    for i in (1..=count).rev() {
        set(&local, table, Value::small(i as i32), Value::TRUE);
    }
    assert!(table.dense_block().capacity() as i64 > count / 2);
    assert_eq!(table.length(), count);
}

#[test]
fn a_few_scattered_integers_take_little_memory() {
    let local = LocalHeap::new(Memory::heap(4 * MIB), 0);
    let table = Table::new(&local, 0, 0).unwrap();
    // Each one right behind where a careless doubling would put the end of the dense block.
    let mut next = 1;
    for _ in 0..30 {
        set(&local, table, Value::small(next), Value::TRUE);
        next = next.saturating_mul(2) + 1;
    }
    assert!(table.dense_block().capacity() <= 16);
    // The last of the dense block and the one behind it, each time.
    let table = Table::new(&local, 4, 0).unwrap();
    for _ in 0..16 {
        let capacity = table.dense_block().capacity() as i32;
        set(&local, table, Value::small(capacity), Value::TRUE);
        set(&local, table, Value::small(capacity + 1), Value::TRUE);
        assert!(table.dense_block().capacity() <= 64);
    }
}

#[test]
fn growth_passes_safepoints() {
    let local = LocalHeap::new(Memory::heap(256 * MIB), 0);
    let table = Table::new(&local, 0, 0).unwrap();
    let count = if cfg!(miri) { 2000 } else { 50_000 };
    let mut polls = 0;
    let mut grown = 0;
    for i in 0..count {
        let key = local.integer(-i).unwrap();
        while table.set(&local, key, Value::TRUE).is_err() {
            let before = polls;
            table.grow(&local, key, &mut || polls += 1).unwrap();
            // Looked at, made and copied.
            assert!((polls - before) * 2048 >= table.node_block().count() * 3);
            grown += 1;
        }
    }
    assert!(grown > 0);
    assert_eq!(entries(table).len() as i64, count);
    // SAFETY: only this thread uses the heap.
    unsafe { local.roots(&mut |_| panic!("something is still kept")) };
}

#[test]
fn hints_find_what_they_point_to_and_forgive_what_they_do_not() {
    let local = LocalHeap::new(Memory::heap(16 * MIB), 0);
    let table = Table::new(&local, 0, 0).unwrap();
    let keys: Vec<Value> = (0..300)
        .map(|i| string(&local, &format!("field{i}")))
        .collect();
    for (i, key) in keys.iter().enumerate() {
        set(&local, table, *key, Value::small(i as i32));
    }
    let mut numbers = Numbers(3);
    for (i, key) in keys.iter().enumerate() {
        let mut hint = numbers.next() as u16;
        // The same content in another string, too.
        let copy = string(&local, &format!("field{i}"));
        for key in [*key, *key, copy] {
            // SAFETY: the keys are strings.
            unsafe {
                assert_eq!(table.get_str(key, &mut hint), Value::small(i as i32));
                assert_eq!(
                    table.node_block().node(hint as u32).value(),
                    Value::small(i as i32)
                );
                assert!(table.set_str_existing(key, Value::small(i as i32), &mut hint));
            }
        }
    }
    let absent = string(&local, "absent");
    for hint in [0, 77, u16::MAX] {
        // SAFETY: the key is a string.
        unsafe {
            assert_eq!(table.get_str(absent, &mut { hint }), Value::NIL);
            assert!(!table.set_str_existing(absent, Value::TRUE, &mut { hint }));
            let empty = Table::new(&local, 0, 0).unwrap();
            assert_eq!(empty.get_str(absent, &mut { hint }), Value::NIL);
            assert!(!empty.set_str_existing(absent, Value::TRUE, &mut { hint }));
            empty
                .set_str(&local, absent, Value::TRUE, &mut { hint })
                .unwrap();
            assert_eq!(empty.get(absent), Value::TRUE);
        }
    }
}

#[test]
fn absent_metamethods_are_remembered_until_one_is_set() {
    let local = LocalHeap::new(Memory::heap(4 * MIB), 0);
    for shared in [false, true] {
        let meta = Table::new(&local, 0, 0).unwrap();
        if shared {
            local.publish(meta.value(), &mut || ()).unwrap();
        }
        let (index, call) = (string(&local, "__index"), string(&local, "__call"));
        assert_eq!(meta.metamethod(0, index), Value::NIL);
        assert_eq!(meta.metamethod(3, call), Value::NIL);
        assert_ne!(
            meta.header()
                .extra
                .load(core::sync::atomic::Ordering::Relaxed),
            0
        );
        set(&local, meta, index, Value::TRUE);
        assert_eq!(meta.metamethod(0, index), Value::TRUE);
        assert_eq!(meta.metamethod(3, call), Value::NIL);
        // Removed and set again by the fast path, which does not clear the bits.
        set(&local, meta, index, Value::NIL);
        assert_eq!(meta.metamethod(0, index), Value::NIL);
        // SAFETY: the key is a string.
        assert!(unsafe { meta.set_str_existing(index, Value::FALSE, &mut 0) });
        assert_eq!(meta.metamethod(0, index), Value::FALSE);

        let table = Table::new(&local, 0, 0).unwrap();
        assert_eq!(table.metatable(), None);
        table.set_metatable(Some(meta));
        assert_eq!(table.metatable(), Some(meta));
        assert!(table.header().has(flags::METATABLE));
        table.set_metatable(None);
        assert_eq!(table.metatable(), None);
    }
}

#[test]
fn the_dense_part_of_a_shared_table_is_fixed_and_the_radix_takes_the_rest() {
    let local = LocalHeap::new(Memory::heap(16 * MIB), 0);
    for dense in [0, 10] {
        let table = Table::new(&local, dense, 0).unwrap();
        let sparse = 5_000_000;
        set(&local, table, Value::small(sparse), Value::FALSE);
        local.publish(table.value(), &mut || ()).unwrap();
        let capacity = table.dense_block().capacity();
        let keys = [
            1,
            2,
            31,
            32,
            33,
            64,
            1000,
            2049,
            100_000,
            (1 << 29) - 1,
            1 << 29,
        ];
        // Downwards, so that the root has to be right for the largest first, then upwards.
        for &key in keys.iter().rev() {
            table
                .set_int(&local, key, Value::small(key as i32))
                .unwrap();
        }
        for &key in &keys {
            assert_eq!(table.get_int(key), Value::small(key as i32));
            assert_eq!(table.get_int(key + 3), Value::NIL);
        }
        assert_eq!(table.dense_block().capacity(), capacity);
        // Too far away for the radix.
        let far = capacity as i64 + (1 << 29) + 1;
        assert_eq!(table.get_int(far), Value::NIL);
        set(&local, table, Value::small(far as i32), Value::TRUE);
        assert_eq!(table.get_int(far), Value::TRUE);
        // What was among the nodes stays there, and can be removed and set again.
        assert_eq!(table.get_int(sparse as i64), Value::FALSE);
        set(&local, table, Value::small(sparse), Value::NIL);
        assert_eq!(table.get_int(sparse as i64), Value::NIL);
        set(&local, table, Value::small(sparse), Value::TRUE);
        assert_eq!(table.get_int(sparse as i64), Value::TRUE);
        let all = entries(table);
        assert_eq!(all.len(), keys.len() + 2);
        let order: Vec<i64> = all[..keys.len()]
            .iter()
            .map(|(key, _)| key.as_integer().unwrap())
            .collect();
        assert_eq!(order, keys);
    }
}

/// `next_in` at every step of a walk during which the table grows: names, negative integers, and integers that lay among the nodes when the table was
/// shared. With the table's present block in place of the snapshot, keys are given twice or left out.
#[test]
fn a_walk_by_keys_survives_growth_at_any_step() {
    let stay: i64 = if cfg!(miri) { 12 } else { 60 };
    for grow_at in 0..stay {
        let local = LocalHeap::new(Memory::heap(16 * MIB), 0);
        let table = Table::new(&local, 0, 0).unwrap();
        let key = |i: i64| match i % 3 {
            0 => string(&local, &format!("stays{i}")),
            1 => local.integer(-i).unwrap(),
            _ => local.integer(1_000_003 * i).unwrap(),
        };
        for i in 0..stay {
            set(&local, table, key(i), Value::TRUE);
        }
        local.publish(table.value(), &mut || ()).unwrap();
        let snapshot = table.begin_iteration();
        let mut seen: HashMap<Model, usize> = HashMap::new();
        let (mut at, mut step, mut more) = (Value::NIL, 0, 0);
        while let Some((key, value)) = table.next_in(&local, snapshot, at, &mut || ()).unwrap() {
            assert_eq!(value, table.get(key));
            *seen.entry(model_of(key)).or_default() += 1;
            if step == grow_at {
                let block = table.node_block();
                while table.node_block() == block {
                    set(
                        &local,
                        table,
                        string(&local, &format!("more{more}")),
                        Value::TRUE,
                    );
                    more += 1;
                }
            }
            step += 1;
            at = key;
        }
        assert!(more > 0, "step {grow_at} came about");
        for i in 0..stay {
            assert_eq!(seen.get(&model_of(key(i))), Some(&1), "key {i}");
        }
    }
}

#[test]
fn an_iteration_survives_growth() {
    let local = LocalHeap::new(Memory::heap(64 * MIB), 0);
    for shared in [false, true] {
        let table = Table::new(&local, 0, 0).unwrap();
        let name = |i: usize| string(&local, &format!("n{i}"));
        for i in 0..60 {
            set(&local, table, name(i), Value::small(i as i32));
        }
        if shared {
            local.publish(table.value(), &mut || ()).unwrap();
        }
        let snapshot = table.begin_iteration();
        let mut seen: HashMap<String, usize> = HashMap::new();
        let (mut cursor, mut more) = (0, 60);
        loop {
            match table.next_at(snapshot, cursor) {
                Next::Entry {
                    cursor: at,
                    key,
                    value,
                } => {
                    cursor = at;
                    // As it is now, not as it was in the block that is walked.
                    assert_eq!(value, table.get(key));
                    let name = String::from_utf8(key.as_str().unwrap().bytes().to_vec()).unwrap();
                    *seen.entry(name).or_default() += 1;
                }
                Next::Pause(at) => cursor = at,
                Next::End => break,
            }
            for _ in 0..if cfg!(miri) { 3 } else { 20 } {
                set(&local, table, name(more), Value::TRUE);
                more += 1;
            }
            for i in 0..50 {
                set(&local, table, name(i), Value::small(more as i32));
            }
            for i in 50..60 {
                set(&local, table, name(i), Value::NIL);
            }
        }
        assert_ne!(snapshot, table.node_block().value());
        assert!(
            (50..60)
                .filter(|i| seen.contains_key(&format!("n{i}")))
                .count()
                <= 1
        );
        for i in 0..50 {
            assert_eq!(seen.get(&format!("n{i}")), Some(&1), "{i}");
        }
        assert!(seen.values().all(|n| *n == 1));
    }
}

#[test]
fn the_ends_of_a_sequence() {
    let local = LocalHeap::new(Memory::heap(16 * MIB), 0);
    for shared in [false, true] {
        let table = Table::new(&local, 0, 0).unwrap();
        if shared {
            local.publish(table.value(), &mut || ()).unwrap();
        }
        assert_eq!(table.remove_whole(), Ok(Value::NIL));
        for i in 1..=500 {
            while let Err(error) = table.insert_whole(&local, Value::small(i)) {
                assert_eq!(error, SetError::Grow);
                grow(&local, table, Value::small(i));
            }
            assert_eq!(table.length(), i as i64);
        }
        for i in (1..=500).rev() {
            assert_eq!(table.remove_whole(), Ok(Value::small(i)));
            assert_eq!(table.length(), i as i64 - 1);
        }
        set(&local, table, Value::small(0), Value::TRUE);
        assert_eq!(table.remove_whole(), Ok(Value::TRUE));
        assert_eq!(table.get_int(0), Value::NIL);
    }
}

#[test]
fn memory_that_ends_leaves_a_table_as_it_was() {
    let heap = Memory::heap(64 * MIB);
    let local = LocalHeap::new(heap, 0);
    for shared in [false, true] {
        heap.set_limit(0, None).unwrap();
        let table = Table::new(&local, 0, 0).unwrap();
        if shared {
            local.publish(table.value(), &mut || ()).unwrap();
        }
        heap.set_limit(0, Some(heap.program_bytes(0) + 256 * 1024))
            .unwrap();
        let mut model = HashMap::new();
        let mut i = 0;
        loop {
            i += 1;
            let key = Value::small(-i);
            match table.set(&local, key, Value::TRUE) {
                Ok(()) => drop(model.insert(Model::Integer(-i as i64), Value::TRUE)),
                Err(SetError::Grow) if !table.is_shared() => {
                    if table.grow(&local, key, &mut || ()).is_err() {
                        break;
                    }
                    i -= 1;
                }
                Err(SetError::Grow) => {
                    assert_eq!(table.grow_begin(), GrowthStart::Started);
                    match table.grow_finish(&local, &mut || ()) {
                        // SAFETY: no other core runs.
                        Ok(retired) => unsafe { retired.release(&local) },
                        Err(_) => {
                            assert_eq!(
                                table.set(&local, Value::small(-1), Value::TRUE),
                                Err(SetError::Growing)
                            );
                            table.grow_cancel();
                            break;
                        }
                    }
                    i -= 1;
                }
                Err(SetError::NeedMemory(_)) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        check(&local, table, &model);
        heap.set_limit(0, None).unwrap();
        let key = Value::small(-i);
        set(&local, table, key, Value::TRUE);
        model.insert(Model::Integer(-i as i64), Value::TRUE);
        check(&local, table, &model);
    }
}

#[test]
fn while_a_table_grows_its_nodes_are_not_written_and_all_else_goes_on() {
    let local = LocalHeap::new(Memory::heap(16 * MIB), 0);
    let table = Table::new(&local, 4, 4).unwrap();
    local.publish(table.value(), &mut || ()).unwrap();
    let key = |i: i32| Value::small(-i);
    let full = (0..)
        .find(|&i| table.set(&local, key(i), Value::TRUE).is_err())
        .unwrap();
    assert_eq!(
        table.set(&local, key(full), Value::TRUE),
        Err(SetError::Grow)
    );
    let name = string(&local, "name");
    let old = table.node_block();
    assert_eq!(table.grow_begin(), GrowthStart::Started);
    for shown in [key(0), key(full), name] {
        assert_eq!(
            table.set(&local, shown, Value::FALSE),
            Err(SetError::Growing)
        );
        assert!(matches!(
            table.slot_or_insert(&local, shown),
            Err(SetError::Growing)
        ));
    }
    assert!(matches!(table.slot(key(0)), Err(SetError::Growing)));
    // SAFETY: the key is a string.
    let by_name = unsafe { table.set_str(&local, name, Value::TRUE, &mut 0) };
    assert_eq!(by_name, Err(SetError::Growing));
    // Reading, nothing into nothing, and integer keys with places of their own.
    assert_eq!(table.get(key(0)), Value::TRUE);
    assert_eq!(table.set(&local, key(full), Value::NIL), Ok(()));
    assert_eq!(table.set_int(&local, 2, Value::TRUE), Ok(()));
    assert_eq!(table.set_int(&local, 2000, Value::TRUE), Ok(()));
    assert_eq!(table.slot_int(2000).unwrap().unwrap().load(), Value::TRUE);
    let retired = table.grow_finish(&local, &mut || ()).unwrap();
    // The old block is whole until it is released.
    assert!((0..full).all(|i| old.find(&super::key::Lookup::integer(-i as i64)).is_some()));
    assert_eq!(table.set(&local, key(full), Value::TRUE), Ok(()));
    assert!((0..=full).all(|i| table.get(key(i)) == Value::TRUE));
    assert_eq!(table.grow_begin(), GrowthStart::Room);
    // SAFETY: no other core runs.
    unsafe { retired.release(&local) };
}
