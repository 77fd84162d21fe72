extern crate std;

use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::collections::HashSet;
use std::sync::Arc;
use std::vec::Vec;

use super::{Cell, Closure, NATIVE_PROTO, NativeFunction, Proto, Str, exact_integer, trace};
use crate::bytecode::instructions::{Op, ad};
use crate::bytecode::{Capture, CaptureKind, CaptureSource, Constant, Function};
use crate::heap::testing::Memory;
use crate::heap::{Block, Kind, LocalHeap, Visit};
use crate::table::Table;
use crate::value::{Tag, Value};

fn local() -> LocalHeap {
    LocalHeap::new(Memory::heap(8 << 20), 0)
}

#[test]
fn integers_are_boxed_when_they_must_be() {
    let local = local();
    for i in [
        0,
        -1,
        Value::MIN_INLINE,
        Value::MAX_INLINE,
        Value::MIN_INLINE - 1,
        Value::MAX_INLINE + 1,
        i64::MIN,
        i64::MAX,
    ] {
        let value = local.integer(i).unwrap();
        assert_eq!(value.as_integer(), Some(i));
        assert_eq!(
            value.has_tag(Tag::BoxedInteger),
            !(Value::MIN_INLINE..=Value::MAX_INLINE).contains(&i)
        );
    }
}

#[test]
fn strings_are_equal_by_content() {
    let local = local();
    let string = |bytes: &[u8]| Str::new(&local, bytes).unwrap();
    let lengths = [0, 1, 7, 8, 9, 15, 16, 17, 100, 8192, 8193, 20_000, 100_000];
    for length in lengths.into_iter().filter(|&l| !cfg!(miri) || l <= 100) {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 7 + i / 256) as u8).collect();
        let (a, b) = (string(&bytes), string(&bytes));
        assert_eq!(a.len(), length);
        assert_eq!(a.bytes(), bytes);
        assert!(a.content_equal(b));
        assert_eq!(a.hash(), b.hash());
        assert_eq!(a.hash(), Str::hash_of(&bytes));
        assert_ne!(a.hash(), 0);
        assert!(a.content_equal(b));
        for i in [0, length / 2, length.saturating_sub(1)] {
            if i < length {
                let mut other = bytes.clone();
                other[i] ^= 1;
                let c = string(&other);
                assert!(!a.content_equal(c));
                let _ = c.hash();
                assert!(!a.content_equal(c));
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "long, and without a pointer in it")]
fn hashes_of_short_strings_spread() {
    let mut buckets = [0; 256];
    for i in 0..256 * 32 {
        let name = std::format!("v{i}");
        buckets[Str::hash_of(name.as_bytes()) as usize & 255] += 1;
    }
    // 32 expected in each; a Poisson variable of mean 32 lies in these bounds except once in 10^5.
    assert!(buckets.iter().all(|n| (8..=64).contains(n)), "{buckets:?}");
}

#[test]
fn raw_equality_is_by_value() {
    let local = local();
    let big = |i| local.integer(i).unwrap();
    let string = |s: &str| Str::new(&local, s.as_bytes()).unwrap().value();
    let table = Table::new(&local, 0, 0).unwrap().value();
    let equal = [
        (Value::small(1), Value::float(1.0)),
        (Value::float(0.0), Value::float(-0.0)),
        (Value::small(0), Value::float(-0.0)),
        (big(1 << 60), big(1 << 60)),
        (big(1 << 60), Value::float((1u64 << 60) as f64)),
        (string("abc"), string("abc")),
        (table, table),
        (Value::NIL, Value::NIL),
    ];
    for (a, b) in equal {
        assert!(a.raw_equal(b) && b.raw_equal(a), "{a:?} {b:?}");
    }
    let different = [
        (Value::float(f64::NAN), Value::float(f64::NAN)),
        (Value::small(1), Value::float(1.5)),
        (big((1 << 60) + 1), Value::float((1u64 << 60) as f64)),
        (big(i64::MAX), Value::float(9_223_372_036_854_775_808.0)),
        (string("abc"), string("abd")),
        (string("1"), Value::small(1)),
        (Value::NIL, Value::FALSE),
        (table, Table::new(&local, 0, 0).unwrap().value()),
    ];
    for (a, b) in different {
        assert!(!a.raw_equal(b) && !b.raw_equal(a), "{a:?} {b:?}");
    }
}

#[test]
fn floats_with_exact_integers() {
    assert_eq!(exact_integer(-0.0), Some(0));
    assert_eq!(exact_integer(-9_223_372_036_854_775_808.0), Some(i64::MIN));
    for f in [
        0.5,
        f64::NAN,
        f64::INFINITY,
        9_223_372_036_854_775_808.0,
        -1e300,
    ] {
        assert_eq!(exact_integer(f), None);
    }
}

#[test]
fn functions_begin_alike_and_hold_their_captures() {
    let local = local();
    let f = local.integer(5).unwrap();
    let native = NativeFunction::new(&local, core::ptr::null(), "io.write", &[f]).unwrap();
    assert_eq!(native.name(), "io.write");
    assert_eq!(native.capture(0), f);
    native.set_capture(0, Value::TRUE);
    assert_eq!(native.capture(0), Value::TRUE);
    let value = native.value();
    assert!(value.as_native() == Some(native) && value.as_closure().is_none());
    // What a call reads is the same in both.
    // SAFETY: a native function begins as a closure does.
    let entry = unsafe { (*native.as_ptr().cast::<Closure>()).entry };
    // SAFETY: the entry points to an instruction.
    let first = unsafe { (*entry).load(Ordering::Relaxed) };
    assert_eq!(first, ad(Op::NATIVE, 0, 0));

    let closure = Closure::new(&local, NonNull::from(&NATIVE_PROTO), 2).unwrap();
    // SAFETY: both captures exist; which is raw is this test's choice.
    unsafe {
        assert_eq!(closure.capture(1), Value::NIL);
        closure.set_capture(0, f);
        closure.set_raw_capture(1, u64::MAX);
        assert_eq!((closure.capture(0), closure.raw_capture(1)), (f, u64::MAX));
    }
}

#[test]
fn cells_hold_values_or_words() {
    let local = local();
    let cell = Cell::new(&local, Value::TRUE).unwrap();
    cell.set(Value::small(3));
    assert_eq!(cell.get(), Value::small(3));
    let raw = Cell::new_raw(&local, 1).unwrap();
    raw.set_raw(u64::MAX);
    assert_eq!(raw.get_raw(), u64::MAX);
    assert_eq!(raw.value().object_kind(), Some(Kind::RawCell));
    assert_eq!(cell.value().as_cell(), Some(cell));
}

/// A function with one capture, a cell with a raw word.
fn sample() -> Function {
    Function {
        source: Arc::from("c"),
        name: Some(Arc::from("f")),
        line: 2,
        last_line: 3,
        code: std::vec![ad(Op::FUNC, 1, 0), ad(Op::RET0, 0, 0), 7],
        lines: std::vec![2, 3, 3],
        constants: std::vec![
            Constant::Nil,
            Constant::Boolean(true),
            Constant::Integer(1 << 50),
            Constant::Float(-f64::NAN),
            Constant::String(b"name".as_slice().into()),
        ],
        children: Vec::new(),
        captures: std::vec![Capture {
            name: Arc::from("x"),
            source: CaptureSource::Capture(300),
            kind: CaptureKind::RawCell,
        }],
        parameters: 0,
        variadic: false,
        registers: 1,
        raw_start: 0,
        raw_count: 0,
        parallel_body: true,
        locals: Vec::new(),
        structs: Vec::new(),
    }
}

#[test]
fn prototypes_are_loaded_whole() {
    let local = local();
    let heap = local.heap();
    let child = sample();
    let mut parent = child.clone();
    parent.children = std::vec![child.clone(), child];
    let proto = Proto::load(&local, heap, &alloc::sync::Arc::new(parent.into()), &[]).unwrap();
    // SAFETY: it was just loaded.
    let proto = unsafe { proto.as_ref() };
    assert_eq!(proto.children().len(), 2);
    assert!(proto.parallel_body && !proto.variadic);
    // SAFETY: as above.
    let child = unsafe { proto.children()[1].as_ref() };
    // SAFETY: there are three words.
    let word = |i| unsafe { (*child.code.add(i)).load(Ordering::Relaxed) };
    assert_eq!(
        (word(0), word(1), word(2)),
        (ad(Op::FUNC, 1, 0), ad(Op::RET0, 0, 0), 7)
    );
    assert_eq!(child.code_length, 3);
    let constants = child.constants();
    assert_eq!(constants[..2], [Value::NIL, Value::TRUE]);
    assert_eq!(constants[2].as_integer(), Some(1 << 50));
    assert_eq!(constants[3], Value::float(f64::NAN));
    // Interned: the same string in both.
    assert_eq!(constants[4], proto.constants()[4]);
    assert_eq!(child.captures()[0].kind, CaptureKind::RawCell);
    assert_eq!(child.captures()[0].source, CaptureSource::Capture(300));
    let debug = child.debug().unwrap();
    assert_eq!(
        (debug.line, debug.lines.as_slice()),
        (2, [2, 3, 3].as_slice())
    );
    assert_eq!(&*debug.captures[0].name, "x");
}

#[test]
fn the_collector_is_shown_every_object() {
    let local = local();
    let heap = local.heap();
    let mut poll = || ();
    // Everything that a table can reach in one: a radix of two levels, dense values, nodes, a metatable, a closure.
    let table = Table::new(&local, 4, 4).unwrap();
    let inner = |n: i32| {
        let t = Table::new(&local, 0, 0).unwrap();
        t.set_int(&local, 1, Value::small(n)).unwrap();
        t
    };
    local.publish(table.value(), &mut poll).unwrap();
    let members: Vec<_> = (0..6).map(inner).collect();
    for member in &members {
        local.publish(member.value(), &mut poll).unwrap();
    }
    table.set_int(&local, 1, members[0].value()).unwrap();
    table.set_int(&local, 5000, members[1].value()).unwrap();
    table
        .set(&local, members[2].value(), members[3].value())
        .unwrap();
    table.set_metatable(Some(members[4]));
    let function = Function {
        constants: std::vec![Constant::String(b"constant".as_slice().into())],
        ..sample()
    };
    let parent = Function {
        children: std::vec![function],
        ..sample()
    };
    let proto = Proto::load(&local, heap, &alloc::sync::Arc::new(parent.into()), &[]).unwrap();
    let closure = Closure::new(&local, proto, 1).unwrap();
    let cell = Cell::new(&local, members[5].value()).unwrap();
    // SAFETY: the function has one capture, a cell.
    unsafe { closure.set_capture(0, cell.value()) };
    local.publish(closure.value(), &mut poll).unwrap();
    table.set(&local, Value::TRUE, closure.value()).unwrap();

    let mut seen = HashSet::from([table.header_ptr()]);
    let mut work = std::vec![table.header_ptr()];
    while let Some(object) = work.pop() {
        let mut from = 0;
        loop {
            // SAFETY: all objects live; only this thread runs.
            let next = unsafe {
                trace(heap, object, from, &mut |value| match value.object() {
                    Some(object) if seen.insert(object) => {
                        work.push(object);
                        Visit::StopAfter
                    }
                    _ => Visit::On,
                })
            };
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    let mut all = HashSet::new();
    // SAFETY: only this thread runs.
    unsafe {
        heap.blocks(&mut |block| {
            Block::objects(block, &mut |object| assert!(all.insert(object)));
        });
    }
    assert_eq!(seen.len(), all.len());
    assert!(seen == all);
}
