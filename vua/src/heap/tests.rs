extern crate std;

use core::ptr::NonNull;
use std::collections::HashSet;
use std::vec::Vec;

use super::block::{
    BLOCK_BYTES, Block, CLASSES, GRANULE, LARGE, MAX_SMALL, PAYLOAD_BYTES, STRIDES, class_of,
    usable,
};
use super::publish::WorkList;
use super::testing::{Memory, Numbers};
use super::{Budget, Header, Kind, LocalHeap, barrier, flags};
use crate::object::{Cell, Closure, NATIVE_PROTO, NativeFunction, Str};
use crate::table::Table;
use crate::value::Value;

const MIB: usize = 1 << 20;

#[test]
#[cfg_attr(miri, ignore = "long, and without a pointer in it")]
fn each_size_has_the_smallest_class_that_holds_it() {
    for bytes in 1..=MAX_SMALL {
        let class = class_of(bytes);
        assert!(STRIDES[class] as usize >= bytes, "{bytes}");
        assert!(
            class == 0 || (STRIDES[class - 1] as usize) < bytes,
            "{bytes}"
        );
        assert_eq!(usable(bytes), STRIDES[class] as usize);
    }
    assert_eq!(class_of(MAX_SMALL), CLASSES - 1);
    for stride in STRIDES {
        assert_eq!(stride as usize % GRANULE, 0);
    }
    assert_eq!(usable(MAX_SMALL + 1), PAYLOAD_BYTES);
    assert_eq!(usable(PAYLOAD_BYTES + 1), PAYLOAD_BYTES + BLOCK_BYTES);
}

#[test]
fn memory_is_distinct_aligned_and_zeroed() {
    let local = LocalHeap::new(Memory::heap(16 * MIB), 0);
    let mut numbers = Numbers(1);
    let mut given: Vec<(usize, usize)> = Vec::new();
    for _ in 0..if cfg!(miri) { 100 } else { 4000 } {
        let bytes = 8 + numbers.below(3000) as usize;
        let cell = local.alloc(bytes).unwrap();
        assert_eq!(cell.addr().get() % GRANULE, 0);
        // SAFETY: the memory is ours and that long.
        unsafe {
            assert!((0..bytes).all(|i| cell.add(i).read() == 0));
            cell.write_bytes(0xff, bytes);
            cell.cast::<Header>().write(Header::new(Kind::Other, 0));
        }
        given.push((cell.addr().get(), bytes));
    }
    given.sort_unstable();
    for pair in given.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0);
    }
}

#[test]
fn freed_memory_is_used_again_and_zeroed() {
    let local = LocalHeap::new(Memory::heap(4 * MIB), 0);
    let cells: Vec<_> = (0..100)
        .map(|_| local.alloc_object(Kind::Other, 0, 100).unwrap())
        .collect();
    let before: HashSet<_> = cells.iter().map(|c| c.addr().get()).collect();
    for &cell in &cells {
        // SAFETY: ours; nobody else knows them.
        unsafe {
            cell.cast::<u8>().add(8).write_bytes(7, 92);
            local.free(cell, 100);
        }
    }
    // SAFETY: only this thread uses the heap.
    unsafe {
        local.heap().blocks(&mut |block| {
            Block::objects(block, &mut |_| panic!("a freed cell counts as an object"));
        });
    }
    // Freed one by one they are found once the run they came from is used up.
    let mut again = 0;
    for _ in 0..PAYLOAD_BYTES / 112 {
        let cell = local.alloc(100).unwrap();
        // SAFETY: ours and that long.
        assert!((0..112).all(|i| unsafe { cell.add(i).read() } == 0));
        again += usize::from(before.contains(&cell.addr().get()));
    }
    assert_eq!(again, 100);
    assert_eq!(local.heap().program_bytes(0), BLOCK_BYTES);
}

#[test]
fn large_objects_come_and_go() {
    let heap = Memory::heap(8 * MIB);
    let local = LocalHeap::new(heap, 0);
    for bytes in [
        MAX_SMALL + 1,
        PAYLOAD_BYTES,
        PAYLOAD_BYTES + 1,
        MIB - 1000,
        MIB,
        3 * MIB,
    ] {
        let object = local.alloc_object(Kind::Other, 0, bytes).unwrap();
        // SAFETY: the object is in use, of that size and ours.
        unsafe {
            let block = Block::of(object);
            assert_eq!(block.as_ref().class(), LARGE);
            object.cast::<u8>().add(bytes - 1).write(1);
            assert!(heap.program_bytes(0) >= bytes);
            let mut seen = 0;
            heap.blocks(&mut |b| {
                Block::objects(b, &mut |o| {
                    assert_eq!(o, object);
                    seen += 1;
                })
            });
            assert_eq!(seen, 1);
            local.free(object, bytes);
        }
        assert_eq!(heap.program_bytes(0), 0);
    }
    // The mappings of their own went back; the chunks stay.
    assert!(heap.mapped_bytes() < 3 * MIB);
    // Neighbouring free blocks are found together again.
    let small: Vec<_> = (0..15)
        .map(|_| {
            local
                .alloc_object(Kind::Other, 0, PAYLOAD_BYTES - 100)
                .unwrap()
        })
        .collect();
    for object in small {
        // SAFETY: ours.
        unsafe { local.free(object, PAYLOAD_BYTES - 100) };
    }
    let mapped = heap.mapped_bytes();
    assert!(local.alloc(15 * BLOCK_BYTES - 5000).is_some());
    assert_eq!(heap.mapped_bytes(), mapped);
}

#[test]
fn a_block_that_was_used_before_is_zeroed() {
    let heap = Memory::heap(MIB);
    let local = LocalHeap::new(heap, 0);
    // All of the heap's memory, written to and given back.
    let large: Vec<_> = (0..MIB / BLOCK_BYTES)
        .map(|_| local.alloc(PAYLOAD_BYTES).unwrap())
        .collect();
    for object in large {
        // SAFETY: ours, that long, and known to nobody else.
        unsafe {
            object.write_bytes(0xff, PAYLOAD_BYTES);
            local.free(object.cast(), PAYLOAD_BYTES);
        }
    }
    for _ in 0..PAYLOAD_BYTES / 8192 {
        let cell = local.alloc(8192).unwrap();
        // SAFETY: ours and that long.
        assert!((0..8192).all(|i| unsafe { cell.add(i).read() } == 0));
    }
}

#[test]
fn a_limit_stops_one_program_and_no_other() {
    let heap = Memory::heap(64 * MIB);
    let local = LocalHeap::new(heap, 0);
    heap.set_limit(3, Some(2 * BLOCK_BYTES)).unwrap();
    local.set_program(3).unwrap();
    let mut got = 0;
    while local.alloc(16000).is_some() {
        got += 1;
    }
    assert_eq!(got, 2 * (PAYLOAD_BYTES / usable(16000)));
    assert!(local.alloc(MIB).is_none());
    assert!(local.reserve(100).is_err());
    assert!(Str::new(&local, &[b'x'; 20000]).is_err());
    assert_eq!(heap.program_bytes(3), 2 * BLOCK_BYTES);
    local.set_program(4).unwrap();
    assert!(local.alloc(16000).is_some());
    local.set_program(3).unwrap();
    heap.set_limit(3, None).unwrap();
    assert!(local.alloc(16000).is_some());
    assert_eq!(heap.program_bytes(3), 3 * BLOCK_BYTES);
    assert_eq!(heap.program_bytes(4), BLOCK_BYTES);
}

#[test]
fn memory_that_ends_is_an_error() {
    let heap = Memory::heap(MIB);
    let local = LocalHeap::new(heap, 0);
    assert!(local.alloc(2 * MIB).is_none());
    let mut blocks = 0;
    while local.alloc(30000).is_some() {
        blocks += 1;
    }
    assert_eq!(blocks, 2 * (MIB / BLOCK_BYTES));
    assert!(Table::new(&local, 0, 0).is_err());
    assert!(local.integer(1 << 50).is_err());
}

#[test]
fn a_reservation_is_kept() {
    let heap = Memory::heap(8 * MIB);
    let local = LocalHeap::new(heap, 0);
    local.reserve(3 * BLOCK_BYTES).unwrap();
    heap.set_limit(0, Some(heap.program_bytes(0))).unwrap();
    let mut bytes = 0;
    for size in [MAX_SMALL, STRIDES[CLASSES - 2] as usize, 9200, 100]
        .into_iter()
        .cycle()
    {
        if bytes + size > 3 * BLOCK_BYTES {
            break;
        }
        bytes += size;
        assert!(local.alloc(size).is_some(), "{size} after {bytes}");
    }
    local.trim(0);
    assert!(heap.program_bytes(0) > 0);
}

#[test]
fn what_a_program_starts_counts_as_its_own() {
    let heap = Memory::heap(64 * MIB);
    let local = LocalHeap::new(heap, 0);
    let (parent, kept) = heap.open_program(0, Some(3 * BLOCK_BYTES)).unwrap();
    let (child, kept_too) = heap.open_program(parent, Some(MIB)).unwrap();
    assert!(parent != 0 && child != 0 && parent != child);
    local.set_program(parent).unwrap();
    assert!(local.alloc(16000).is_some());
    local.set_program(child).unwrap();
    assert!(local.alloc(16000).is_some());
    assert!(!Budget::new(&local).ask(2 * BLOCK_BYTES));
    let mut outside = Budget::new(&local);
    assert!(outside.ask(BLOCK_BYTES));
    let charge = outside.keep(BLOCK_BYTES).unwrap();
    assert!(local.alloc(300).is_none());
    assert_eq!(heap.outside_bytes(parent), BLOCK_BYTES);
    drop(charge);
    assert!(local.alloc(300).is_some());
    assert!(local.alloc(3000).is_none());
    assert_eq!(heap.program_bytes(child), 2 * BLOCK_BYTES);
    assert_eq!(heap.program_bytes(parent), 3 * BLOCK_BYTES);
    assert_eq!(heap.program_bytes(0), 3 * BLOCK_BYTES);
    // A number is used again when nobody has it and nothing is charged to it.
    drop(kept_too);
    let (other, kept_other) = heap.open_program(0, None).unwrap();
    assert!(other != parent && other != child);
    drop((kept, kept_other));
    let (again, _kept) = heap.open_program(0, None).unwrap();
    assert_eq!(again, other);
}

#[test]
fn a_program_comes_back_to_its_blocks() {
    let heap = Memory::heap(4 * MIB);
    let local = LocalHeap::new(heap, 0);
    local.set_program(1).unwrap();
    let first = local.alloc(64).unwrap();
    local.set_program(2).unwrap();
    let other = local.alloc(64).unwrap();
    local.set_program(1).unwrap();
    let second = local.alloc(64).unwrap();
    assert_eq!(second.addr().get(), first.addr().get() + 64);
    assert_ne!(
        other.addr().get() & !(BLOCK_BYTES - 1),
        first.addr().get() & !(BLOCK_BYTES - 1)
    );
    // SAFETY: the cell is in a block in use.
    assert_eq!(unsafe { Block::of(other.cast()).as_ref() }.program(), 2);
}

#[test]
fn the_barrier_notes_an_object_once() {
    let local = LocalHeap::new(Memory::heap(MIB), 0);
    let cell = Cell::new(&local, Value::NIL).unwrap();
    cell.header().set_flags(flags::LOG | flags::SHARED);
    // SAFETY: the cell lives.
    unsafe {
        barrier::before_store(cell.header_ptr(), &local);
        barrier::before_store(cell.header_ptr(), &local);
        assert_eq!(cell.header().flags(), flags::SHARED);
        assert_eq!(local.take_log(), (std::vec![cell.header_ptr()], false));
        assert_eq!(local.take_log(), (Vec::new(), false));
    }
}

#[test]
fn constants_are_interned() {
    let heap = Memory::heap(4 * MIB);
    let local = LocalHeap::new(heap, 0);
    let count = if cfg!(miri) { 300 } else { 5000 };
    let name = |i: usize| std::format!("name{i}");
    let first: Vec<_> = (0..count)
        .map(|i| heap.intern(&local, name(i).as_bytes()).unwrap())
        .collect();
    for (i, string) in first.iter().enumerate() {
        assert_eq!(heap.intern(&local, name(i).as_bytes()).unwrap(), *string);
        assert_eq!(string.bytes(), name(i).as_bytes());
    }
    let mut seen = 0;
    heap.interned(&mut |_| seen += 1);
    assert_eq!(seen, count);
}

#[test]
fn publication_marks_all_that_is_reachable_and_nothing_else() {
    let local = LocalHeap::new(Memory::heap(16 * MIB), 0);
    let mut poll = || ();
    let table = || Table::new(&local, 0, 0).unwrap();
    let (root, in_dense, as_key, as_value, meta, captured, apart) = (
        table(),
        table(),
        table(),
        table(),
        table(),
        table(),
        table(),
    );
    let cell = Cell::new(&local, captured.value()).unwrap();
    let raw = Cell::new_raw(&local, apart.value().to_bits()).unwrap();
    let native =
        NativeFunction::new(&local, core::ptr::null(), "f", &[cell.value(), raw.value()]).unwrap();
    let closure = Closure::new(&local, NonNull::from(&NATIVE_PROTO), 1).unwrap();
    // SAFETY: capture 0 exists and is a value.
    unsafe { closure.set_capture(0, native.value()) };
    root.set_int(&local, 1, in_dense.value()).unwrap();
    in_dense
        .set(&local, as_key.value(), as_value.value())
        .unwrap();
    as_value.set_metatable(Some(meta));
    meta.set(&local, Value::TRUE, closure.value()).unwrap();
    // A cycle.
    meta.set(&local, Value::FALSE, root.value()).unwrap();
    local.publish(root.value(), &mut poll).unwrap();
    for header in [root, in_dense, as_key, as_value, meta, captured].map(|t| t.header()) {
        assert!(header.has(flags::SHARED));
    }
    for header in [
        cell.header(),
        raw.header(),
        native.header(),
        closure.header(),
    ] {
        assert!(header.has(flags::SHARED));
    }
    assert!(!apart.header().has(flags::SHARED));
}

#[test]
fn publication_goes_deep_and_wide_in_slices() {
    let local = LocalHeap::new(Memory::heap(256 * MIB), 0);
    let depth = if cfg!(miri) { 3000 } else { 200_000 };
    let mut list = Table::new(&local, 0, 0).unwrap();
    let mut all = std::vec![list];
    for _ in 0..depth {
        let longer = Table::new(&local, 1, 0).unwrap();
        longer.set_int(&local, 1, list.value()).unwrap();
        list = longer;
        all.push(list);
    }
    let mut polls = 0;
    local.publish(list.value(), &mut || polls += 1).unwrap();
    assert!(all.iter().all(|t| t.is_shared()));
    assert!(polls >= depth / 2048);

    let wide = Table::new(&local, 0, 0).unwrap();
    let mut leaves = Vec::new();
    for i in 0..depth {
        let leaf = Table::new(&local, 0, 0).unwrap();
        let key = i as i64 + 1;
        while wide.set_int(&local, key, leaf.value()).is_err() {
            wide.grow(&local, Value::small(key as i32), &mut || ())
                .unwrap();
        }
        leaves.push(leaf);
    }
    polls = 0;
    local.publish(wide.value(), &mut || polls += 1).unwrap();
    assert!(leaves.iter().all(|t| t.is_shared()));
    assert!(polls >= depth / 2048);
    // SAFETY: only this thread uses the heap.
    unsafe { local.roots(&mut |_| panic!("the work list is not empty")) };
}

#[test]
fn the_work_list_is_a_stack_across_segments() {
    let local = LocalHeap::new(Memory::heap(MIB), 0);
    let objects: Vec<_> = (0..5000)
        .map(|_| Cell::new(&local, Value::NIL).unwrap().header_ptr())
        .collect();
    let list = WorkList::new();
    let mut model: Vec<NonNull<Header>> = Vec::new();
    let mut numbers = Numbers(7);
    // Grows, hovers around a segment's end, and shrinks to nothing.
    let steps = if cfg!(miri) { 3000 } else { 12_000 };
    for step in 0..steps {
        let shrink = step > steps / 2 || (model.len() > 1020 && numbers.below(2) == 0);
        if !shrink {
            let object = objects[numbers.below(5000) as usize];
            list.push(object).unwrap();
            model.push(object);
        } else if model.len() > 1 && numbers.below(2) == 0 {
            list.remove(1);
            model.remove(model.len() - 2);
        } else if !model.is_empty() {
            list.remove(0);
            model.pop();
        }
        let mut seen = Vec::new();
        if step % 97 == 0 {
            list.each(&mut |object| seen.push(object));
            assert_eq!(seen, model);
        }
        assert_eq!(list.top_object(), model.last().copied());
    }
    assert!(model.is_empty());
}
