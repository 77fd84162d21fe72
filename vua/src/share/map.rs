//! `map()`: a hash map for many tasks.
//!
//! It consists of shared tables, among which the keys are divided by their hashes; each has the protocol of every shared table (`docs/tables.md`): reads
//! take no lock and wait for nothing, a new key takes the lock byte of its table alone, and a table grows by a handshake while the others do not.
//! What the map adds to a table are steps that read and write: they are compare-and-swaps of the key's slot.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::atomic::{slot_in, sum};
use super::{MAP, WALK};
use crate::heap::{Header, Kind, LocalHeap, NeedMemory, flags};
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::number::Number;
use crate::object::{Gc, Object};
use crate::race::Part;
use crate::race::watch::{Touch, Watched};
use crate::table::{self, Table};
use crate::value::{Tag, Value};

/// How many tables a map has: more than there are cores that commonly insert at the same moment, and few enough that an empty map is small.
pub(super) const SHARDS: usize = 16;

/// See the module.
#[repr(C)]
pub struct Map {
    header: Header,
    shards: [AtomicPtr<Table>; SHARDS],
}

/// An iteration over a map.
#[repr(C)]
pub struct Walk {
    header: Header,
    map: AtomicPtr<Map>,
    /// The block of nodes of the table that it is in, as a value; nil before it begins there.
    snapshot: AtomicU64,
    shard: AtomicU32,
    begun: AtomicU32,
    cursor: AtomicU64,
}

// SAFETY: laid out as the trait demands; the extra byte tells it from other objects of the kind.
unsafe impl Object for Map {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Other];
}

// SAFETY: as above.
unsafe impl Object for Walk {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Other];
}

/// A map whose tables are not made yet: nobody may know it but the collector.
fn new_map(local: &LocalHeap) -> Result<Gc<Map>, NeedMemory> {
    let object = local
        .alloc_object(Kind::Other, 0, size_of::<Map>())?
        .cast::<Map>();
    // SAFETY: the object is new and ours alone; null is valid for what is not written.
    unsafe {
        let map = object.as_ptr();
        (*map).header.extra.store(MAP, Ordering::Relaxed);
        (*map).header.set_flags(flags::SHARED);
        Ok(Gc::from_ptr(object))
    }
}

impl Gc<Map> {
    /// Table `i`, for the collector; nil if it is not made yet.
    pub(super) fn referred(self, i: usize) -> Value {
        // SAFETY: null or a live table.
        unsafe {
            let table = (*self.as_ptr()).shards[i].load(Ordering::Relaxed);
            core::ptr::NonNull::new(table)
                .map_or(Value::NIL, |table| Gc::<Table>::from_ptr(table).value())
        }
    }

    /// Table `i`.
    pub(super) fn shard(self, i: usize) -> Gc<Table> {
        // SAFETY: all are set before the map is known, and never changed.
        unsafe {
            let table = (*self.as_ptr()).shards[i].load(Ordering::Relaxed);
            Gc::from_ptr(core::ptr::NonNull::new_unchecked(table))
        }
    }

    /// The table to which a key belongs.
    fn shard_of(self, key: Value) -> Gc<Table> {
        // A table's own main position is the hash's low bits: these are the high ones of another mixing.
        let hash = table::hash_of(key).wrapping_mul(0x9e37_79b1);
        self.shard((hash >> 28) as usize % SHARDS)
    }
}

impl Gc<Walk> {
    fn fields<'a>(self) -> &'a Walk {
        // SAFETY: it lives as long as its handle is used; its fields are atomics.
        unsafe { &*self.as_ptr() }
    }

    /// What it refers to: its map and the block that it walks.
    pub(super) fn referred(self, i: usize) -> Value {
        let fields = self.fields();
        if i == 0 {
            let map = core::ptr::NonNull::new(fields.map.load(Ordering::Relaxed));
            // SAFETY: null or a live map.
            return map.map_or(Value::NIL, |map| unsafe { Gc::from_ptr(map) }.value());
        }
        // SAFETY: it holds nothing but values.
        unsafe { Value::from_bits(fields.snapshot.load(Ordering::Relaxed)) }
    }
}

fn argument(call: &Call<'_>) -> Result<Gc<Map>, Throw> {
    if super::sort_of(call.get(0)) == MAP
        && let Some(map) = Gc::from_value(call.get(0))
    {
        return Ok(map);
    }
    Err(call.type_error(0, "map"))
}

/// `map()`. Its tables are made one by one: what there is of it is kept while memory is made for the next.
fn map(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == 0 {
        let map = new_map(call.heap())?;
        call.set(0, map.value());
        call.advance(1);
    }
    let Some(map) = Gc::<Map>::from_value(call.slot(0)) else {
        return Ok(Next::Nothing);
    };
    for i in 0..SHARDS {
        if map.referred(i).is_nil() {
            let table = Table::new(call.heap(), 0, 0)?;
            table.header().set_flags(flags::SHARED);
            super::before_store(call, map.header_ptr());
            // SAFETY: the map lives.
            unsafe { &*map.as_ptr() }.shards[i].store(table.as_ptr(), Ordering::Relaxed);
        }
    }
    Ok(Next::One(map.value()))
}

/// `d:get(k)`.
fn get(call: &mut Call<'_>) -> Result<Next, Throw> {
    let map = argument(call)?;
    let key = call.any_argument(1)?;
    Ok(Next::One(map.shard_of(key).get(key)))
}

/// `d:set(k, v)`; nil removes.
fn set(call: &mut Call<'_>) -> Result<Next, Throw> {
    let map = argument(call)?;
    let (key, value) = (call.any_argument(1)?, call.any_argument(2)?);
    call.store(map.shard_of(key), key, value)?;
    Ok(Next::Nothing)
}

/// `d:add(k, n)`: adds to a number, 0 if there is none; gives the old one.
fn add(call: &mut Call<'_>) -> Result<Next, Throw> {
    let map = argument(call)?;
    let key = call.any_argument(1)?;
    let amount = call.any_number_argument(2)?;
    call.publish(key)?;
    let slot = slot_in(call, map.shard_of(key), key, true)?;
    let mut old = slot.load();
    loop {
        let now = if old.is_nil() {
            Number::Integer(0)
        } else {
            old.as_number().ok_or_else(|| {
                call.argument_error(
                    1,
                    alloc::format!("number expected in the map, got {}", call.type_name(old)),
                )
            })?
        };
        let new = sum(call, now, amount)?;
        match slot.compare_exchange(old, new) {
            Ok(()) => {
                return Ok(Next::One(if old.is_nil() { Value::small(0) } else { old }));
            }
            Err(found) => old = found,
        }
    }
}

/// `d:update(k, f)`: sets what `f` makes of the present value, nil if there is none, and gives that. `f` holds no lock, and is called again if the value has
/// changed meanwhile.
///
/// Slot 3 is the value that `f` was given, slot 4 what it made.
fn update(call: &mut Call<'_>) -> Result<Next, Throw> {
    const MADE: u32 = 1;
    const STORING: u32 = 2;
    const CALLEE: usize = 5;
    let map = argument(call)?;
    call.any_argument(2)?;
    let key = call.slot(1);
    let table = map.shard_of(key);
    if key.is_nil() || key.as_float().is_some_and(f64::is_nan) {
        return Err(call.argument_error(1, "a key is neither nil nor NaN"));
    }
    if call.state() != 0 {
        if call.state() == MADE {
            let made = call.result(CALLEE);
            call.set(4, made);
            call.advance(STORING);
        }
        let (old, made) = (call.slot(3), call.slot(4));
        call.publish(key)?;
        call.publish(made)?;
        let slot = slot_in(call, table, key, true)?;
        let mut found = slot.load();
        while found.raw_equal(old) {
            match slot.compare_exchange(found, made) {
                Ok(()) => {
                    let address = map.as_ptr() as usize;
                    call.core.race_release(address, call.core.race_part(key));
                    call.core.race_release(address, Part::Whole);
                    return Ok(Next::One(made));
                }
                Err(other) => found = other,
            }
        }
    }
    let old = table.get(key);
    call.set(3, old);
    let function = call.slot(2);
    Ok(call.prepare(CALLEE, function, &[old], MADE))
}

/// `d:pairs()`: for a loop over all keys and values. A key that stays throughout is given once.
fn pairs(call: &mut Call<'_>) -> Result<Next, Throw> {
    let map = argument(call)?;
    let object = call
        .heap()
        .alloc_object(Kind::Other, 0, size_of::<Walk>())?
        .cast::<Walk>();
    // SAFETY: the object is new and ours alone; zero is valid for what is not written.
    let walk: Gc<Walk> = unsafe {
        let walk = object.as_ptr();
        (*walk).header.extra.store(WALK, Ordering::Relaxed);
        (*walk).header.set_flags(flags::SHARED);
        (*walk).map.store(map.as_ptr(), Ordering::Relaxed);
        (*walk)
            .snapshot
            .store(Value::NIL.to_bits(), Ordering::Relaxed);
        Gc::from_ptr(object)
    };
    let step = call.capture(0);
    call.set(0, step);
    call.set(1, walk.value());
    call.set(2, Value::NIL);
    Ok(Next::Many { at: 0, count: 3 })
}

/// The iterator of `pairs`.
fn step(call: &mut Call<'_>) -> Result<Next, Throw> {
    if super::sort_of(call.get(0)) != WALK {
        return Err(call.type_error(0, "map iteration"));
    }
    let Some(walk) = Gc::<Walk>::from_value(call.get(0)) else {
        return Err(call.type_error(0, "map iteration"));
    };
    let Some(map) = Gc::<Map>::from_value(walk.referred(0)) else {
        return Ok(Next::One(Value::NIL));
    };
    let fields = walk.fields();
    loop {
        let shard = fields.shard.load(Ordering::Relaxed) as usize;
        if shard >= SHARDS {
            return Ok(Next::One(Value::NIL));
        }
        let table = map.shard(shard);
        if fields.begun.swap(1, Ordering::Relaxed) == 0 {
            super::before_store(call, walk.header_ptr());
            fields
                .snapshot
                .store(table.begin_iteration().to_bits(), Ordering::Relaxed);
            fields.cursor.store(0, Ordering::Relaxed);
        }
        match table.next_at(walk.referred(1), fields.cursor.load(Ordering::Relaxed)) {
            table::Next::Entry { cursor, key, value } => {
                fields.cursor.store(cursor, Ordering::Relaxed);
                call.set(0, key);
                call.set(1, value);
                return Ok(Next::Many { at: 0, count: 2 });
            }
            table::Next::Pause(cursor) => {
                fields.cursor.store(cursor, Ordering::Relaxed);
                call.poll()?;
            }
            table::Next::End => {
                fields.shard.store(shard as u32 + 1, Ordering::Relaxed);
                fields.begun.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// The address of the map that an iteration goes through.
pub(crate) fn walked(iteration: Value) -> Option<usize> {
    if super::sort_of(iteration) != WALK {
        return None;
    }
    let walk = Gc::<Walk>::from_value(iteration)?;
    walk.referred(0).object().map(|map| map.as_ptr() as usize)
}

/// What of this is ordered by a map.
pub(crate) const WATCHED: &[Watched] = &[
    (get, Touch::MapGet),
    (set, Touch::MapSet),
    (add, Touch::MapSet),
    (update, Touch::MapGet),
    (step, Touch::MapStep),
];

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("map", map)?;
    let methods = builder.table(
        "",
        &[("get", get), ("set", set), ("add", add), ("update", update)],
    )?;
    let following = builder.function("map iterator", step, &[])?;
    builder.define(methods, "", "pairs", pairs, &[following])?;
    let metatable = builder.set_methods(Kind::Other, MAP, "map", methods)?;
    builder.define(metatable, "", "__pairs", pairs, &[following])
}
