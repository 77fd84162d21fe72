//! Get and set: where a key belongs, and who may write there.

use core::sync::atomic::{AtomicU64, Ordering};

use super::key::{Key, Lookup};
use super::{INTEGER_NODES, NodeBlock, SetError, Table, radix};
use crate::heap::{LocalHeap, flags};
use crate::object::Gc;
use crate::value::Value;

/// The slot of a key: a word that holds its value. For atomic operations.
///
/// Valid until the next safepoint.
#[derive(Clone, Copy)]
pub struct SlotRef<'a>(&'a AtomicU64);

impl SlotRef<'_> {
    /// The value, sequentially consistent.
    #[inline]
    pub fn load(self) -> Value {
        // SAFETY: slots hold nothing but values.
        unsafe { Value::from_bits(self.0.load(Ordering::SeqCst)) }
    }

    /// Stores a value, sequentially consistent. What it refers to was published if the table is shared.
    #[inline]
    pub fn store(self, value: Value) {
        self.0.store(value.to_bits(), Ordering::SeqCst);
    }

    /// Stores a value and gives the former one.
    #[inline]
    pub fn exchange(self, value: Value) -> Value {
        // SAFETY: slots hold nothing but values.
        unsafe { Value::from_bits(self.0.swap(value.to_bits(), Ordering::SeqCst)) }
    }

    /// Stores `new` if the slot holds exactly the bits of `old`; else gives what it holds.
    ///
    /// Equal values may have different bits (strings, boxed integers, 1 and 1.0): to swap by value, compare what it
    /// holds by value and try again with those bits.
    #[inline]
    pub fn compare_exchange(self, old: Value, new: Value) -> Result<(), Value> {
        match self.0.compare_exchange(
            old.to_bits(),
            new.to_bits(),
            Ordering::SeqCst,
            Ordering::SeqCst,
        ) {
            Ok(_) => Ok(()),
            // SAFETY: slots hold nothing but values.
            Err(bits) => Err(unsafe { Value::from_bits(bits) }),
        }
    }
}

/// The table's one-byte lock, held.
pub(super) struct Locked(Gc<Table>);

impl Locked {
    /// Takes the lock. Spins while another core holds it, which it does for a bounded time and without passing a safepoint.
    pub(super) fn new(table: Gc<Table>) -> Locked {
        let lock = &table.header().lock;
        while lock
            .compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while lock.load(Ordering::Relaxed) != 0 {
                core::hint::spin_loop();
            }
        }
        // Not moved inside: the table must not be collected before `drop`, and is not, for no safepoint is passed.
        Locked(table)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.header().lock.store(0, Ordering::Release);
    }
}

impl Gc<Table> {
    /// The value of a key, without metamethods; nil if there is none. nil and NaN are never there.
    #[inline]
    pub fn get(self, key: Value) -> Value {
        if key.is_inline_integer() {
            return self.get_int(key.inline_payload());
        }
        match Key::of(key) {
            Key::Integer(i) => self.get_int(i),
            Key::Other(lookup) => self.get_node(&lookup),
            Key::Nil | Key::Nan => Value::NIL,
        }
    }

    #[inline(always)]
    fn get_node(self, lookup: &Lookup) -> Value {
        let nodes = self.node_block();
        nodes
            .find(lookup)
            .map_or(Value::NIL, |index| nodes.node(index).value())
    }

    /// The value of a string key. `hint` is where it was last found in any table: if it is there again, that is one
    /// compare; else it is looked up, and the hint changed if it is found. Any hint is safe.
    ///
    /// # Safety
    /// `key` is a string.
    #[inline(always)]
    pub unsafe fn get_str(self, key: Value, hint: &mut u16) -> Value {
        let nodes = self.node_block();
        let node = nodes.node(*hint as u32 & nodes.mask());
        if node.key() == key {
            return node.value();
        }
        // SAFETY: `key` is a string, says the caller.
        let (value, found) = unsafe { self.find_str(key, *hint) };
        *hint = found;
        value
    }

    /// The rest of [`get_str`](Self::get_str): gives the value and the new hint.
    ///
    /// # Safety
    /// `key` is a string.
    #[inline(never)]
    pub unsafe fn find_str(self, key: Value, hint: u16) -> (Value, u16) {
        // SAFETY: a string, says the caller.
        let lookup = Lookup::string(unsafe { Gc::from_value_unchecked(key) });
        let nodes = self.node_block();
        match nodes.find(&lookup) {
            Some(index) => (nodes.node(index).value(), index as u16),
            None => (Value::NIL, hint),
        }
    }

    /// The value of an integer key.
    #[inline(always)]
    pub fn get_int(self, key: i64) -> Value {
        let dense = self.dense_block();
        let index = (key as u64).wrapping_sub(1);
        if index < dense.capacity() as u64 {
            return dense.get(index as usize);
        }
        self.get_int_beyond(key)
    }

    /// The value of an integer key that is not in the dense block.
    #[inline(never)]
    pub(super) fn get_int_beyond(self, key: i64) -> Value {
        if self.is_shared() {
            let dense = self.dense_block();
            let x = (key as u64)
                .wrapping_sub(1)
                .wrapping_sub(dense.capacity() as u64);
            if x < radix::SPAN && key >= 1 {
                if let Some(slot) = radix::find(dense.radix_edge(), x) {
                    // SAFETY: slots hold nothing but values.
                    let value = unsafe { Value::from_bits(slot.load(Ordering::Acquire)) };
                    if !value.is_nil() {
                        return value;
                    }
                }
                if !self.has_integer_nodes() {
                    return Value::NIL;
                }
            }
        } else if self.node_block().is_static() {
            return Value::NIL;
        }
        self.get_node(&Lookup::integer(key))
    }

    /// The slot of an integer key in the radix of a shared table, if it lies in a large leaf that is found at once.
    #[inline(always)]
    pub(crate) fn radix_slot_at_once<'a>(self, key: u32) -> Option<&'a AtomicU64> {
        let dense = self.dense_block();
        let x = u64::from(key).wrapping_sub(1 + dense.capacity() as u64);
        radix::find_at_once(dense.radix_edge(), x)
    }

    /// Whether the table has a radix: no table has that was never shared.
    #[inline(always)]
    pub(crate) fn has_radix(self) -> bool {
        !self.dense_block().radix_edge().is_null()
    }

    /// The slot of an integer key in the radix of a shared table, if its leaf exists.
    #[inline(never)]
    pub(crate) fn radix_slot_of<'a>(self, key: u32) -> Option<&'a AtomicU64> {
        let dense = self.dense_block();
        let x = u64::from(key).wrapping_sub(1 + dense.capacity() as u64);
        radix::find(dense.radix_edge(), x)
    }

    /// Sets an integer key that lies in the dense block; `false`, and nothing done, if it does not. The fast path of a store, for
    /// a table whose header byte is 0 or for which the caller has done what its bits ask for.
    #[inline(always)]
    pub fn set_dense(self, key: i64, value: Value) -> bool {
        let dense = self.dense_block();
        let index = (key as u64).wrapping_sub(1);
        if index < dense.capacity() as u64 {
            dense.set(index as usize, value);
            return true;
        }
        false
    }

    /// Sets a string key that is in the table, perhaps with the value nil; `false`, and nothing done, if it is not there.
    /// `hint` as for [`get_str`](Self::get_str). The fast path of a store, for a table whose header byte is 0 or for
    /// which the caller has done what its bits ask for.
    ///
    /// # Safety
    /// `key` is a string.
    #[inline(always)]
    pub unsafe fn set_str_existing(self, key: Value, value: Value, hint: &mut u16) -> bool {
        let nodes = self.node_block();
        let node = nodes.node(*hint as u32 & nodes.mask());
        if node.key() == key {
            node.set(value);
            return true;
        }
        // SAFETY: a string, says the caller.
        let lookup = Lookup::string(unsafe { Gc::from_value_unchecked(key) });
        match nodes.find(&lookup) {
            Some(index) => {
                *hint = index as u16;
                nodes.node(index).set(value);
                true
            }
            None => false,
        }
    }

    /// Sets a key, without metamethods; nil removes it. An error leaves the table as it was.
    ///
    /// The caller has seen to [`flags::LOG`], and if the table is shared it has published `key` and `value`.
    pub fn set(self, local: &LocalHeap, key: Value, value: Value) -> Result<(), SetError> {
        if key.is_inline_integer() {
            return self.set_int(local, key.inline_payload(), value);
        }
        match Key::of(key) {
            Key::Integer(i) => self.set_int(local, i, value),
            Key::Other(lookup) => self.set_node(local, key, &lookup, value),
            Key::Nil => Err(SetError::NilKey),
            Key::Nan => Err(SetError::NanKey),
        }
    }

    /// As [`set`](Self::set), for a string key. `hint` as for [`get_str`](Self::get_str).
    ///
    /// # Safety
    /// `key` is a string.
    pub unsafe fn set_str(
        self,
        local: &LocalHeap,
        key: Value,
        value: Value,
        hint: &mut u16,
    ) -> Result<(), SetError> {
        let flags = self.header().flags_acquire();
        if flags & (flags::FROZEN | flags::GROWING) == 0 {
            // SAFETY: a string, says the caller.
            let done = unsafe { self.set_str_existing(key, value, hint) };
            if done {
                return Ok(());
            }
        }
        // SAFETY: as above.
        let lookup = Lookup::string(unsafe { Gc::from_value_unchecked(key) });
        self.set_node(local, key, &lookup, value)
    }

    /// As [`set`](Self::set), for an integer key.
    pub fn set_int(self, local: &LocalHeap, key: i64, value: Value) -> Result<(), SetError> {
        let flags = self.header().flags_acquire();
        if flags & flags::FROZEN != 0 {
            return Err(SetError::Frozen);
        }
        if self.set_dense(key, value) {
            return Ok(());
        }
        if flags & flags::SHARED != 0
            && let Some(slot) = self.radix_slot(local, key, !value.is_nil())?
        {
            return match slot {
                Some(slot) => {
                    slot.store(value.to_bits(), Ordering::Release);
                    Ok(())
                }
                // nil into a leaf that does not exist.
                None => Ok(()),
            };
        }
        let lookup = Lookup::integer(key);
        // A table of one task appends: the dense block doubles as long as it is at least half full.
        if flags & flags::SHARED == 0
            && key as u64 == self.dense_block().capacity() as u64 + 1
            && !value.is_nil()
            && self.node_block().find(&lookup).is_none()
            && self.grow_to_append(local)?
        {
            let done = self.set_dense(key, value);
            debug_assert!(done);
            return Ok(());
        }
        let boxed = if value.is_nil() {
            Value::NIL
        } else {
            local.integer(key)?
        };
        self.set_node(local, boxed, &lookup, value)
    }

    /// As [`set_int`](Self::set_int), for a shared table whose lock the caller holds.
    pub(super) fn set_int_locked(
        self,
        local: &LocalHeap,
        key: i64,
        value: Value,
        _locked: &Locked,
    ) -> Result<(), SetError> {
        if self.header().has(flags::FROZEN) {
            return Err(SetError::Frozen);
        }
        if self.set_dense(key, value) || value.is_nil() {
            return Ok(());
        }
        if let Some(Some(slot)) = self.radix_slot(local, key, true)? {
            slot.store(value.to_bits(), Ordering::Release);
            return Ok(());
        }
        self.insert_locked(local.integer(key)?, &Lookup::integer(key), value)
            .map(|_| ())
    }

    /// The place of an integer key of a shared table in the radix. The outer option is `None` if the key belongs among the
    /// nodes; the inner one if its leaf does not exist and `make` is false.
    #[inline]
    fn radix_slot<'a>(
        self,
        local: &LocalHeap,
        key: i64,
        make: bool,
    ) -> Result<Option<Option<&'a AtomicU64>>, SetError> {
        let dense = self.dense_block();
        let x = (key as u64)
            .wrapping_sub(1)
            .wrapping_sub(dense.capacity() as u64);
        if key < 1 || x >= radix::SPAN {
            return Ok(None);
        }
        if self.has_integer_nodes() && self.node_block().find(&Lookup::integer(key)).is_some() {
            return Ok(None);
        }
        if let Some(slot) = radix::find(dense.radix_edge(), x) {
            return Ok(Some(Some(slot)));
        }
        if !make {
            return Ok(Some(None));
        }
        let dense = self.dense_with_radix(local)?;
        Ok(Some(Some(radix::find_or_make(
            local,
            dense.radix_edge(),
            x,
            || dense.ends_filled(),
        )?)))
    }

    /// Sets a key that belongs among the nodes. `key` is the value to store if it must be inserted.
    fn set_node(
        self,
        local: &LocalHeap,
        key: Value,
        lookup: &Lookup,
        value: Value,
    ) -> Result<(), SetError> {
        let flags = self.header().flags_acquire();
        if flags & flags::FROZEN != 0 {
            return Err(SetError::Frozen);
        }
        let nodes = self.node_block();
        if let Some(index) = nodes.find(lookup) {
            if flags & flags::GROWING != 0 {
                return Err(SetError::Growing);
            }
            nodes.node(index).set(value);
            return Ok(());
        }
        if value.is_nil() {
            return Ok(());
        }
        if flags & flags::SHARED != 0 {
            self.insert_shared(key, lookup, value).map(|_| ())
        } else {
            self.insert_owned(local, key, lookup, value)
        }
    }

    /// Inserts a key into a shared table, or sets it if it has come to be there.
    fn insert_shared(
        self,
        key: Value,
        lookup: &Lookup,
        value: Value,
    ) -> Result<(Gc<NodeBlock>, u32), SetError> {
        let _locked = Locked::new(self);
        self.insert_locked(key, lookup, value)
    }

    /// As [`insert_shared`](Self::insert_shared); the caller holds the lock.
    fn insert_locked(
        self,
        key: Value,
        lookup: &Lookup,
        value: Value,
    ) -> Result<(Gc<NodeBlock>, u32), SetError> {
        if self.header().flags_acquire() & flags::GROWING != 0 {
            return Err(SetError::Growing);
        }
        let nodes = self.node_block();
        if let Some(index) = nodes.find(lookup) {
            nodes.node(index).set(value);
            return Ok((nodes, index));
        }
        // SAFETY: the lock is held.
        let Some(index) = (unsafe { nodes.insert(key, lookup.hash, value) }) else {
            return Err(SetError::Grow);
        };
        self.forget_absent_metamethods();
        Ok((nodes, index))
    }

    /// Inserts a key into a table of one task.
    fn insert_owned(
        self,
        local: &LocalHeap,
        key: Value,
        lookup: &Lookup,
        value: Value,
    ) -> Result<(), SetError> {
        // SAFETY: the table is its task's alone.
        let mut inserted = unsafe { self.node_block().insert(key, lookup.hash, value) };
        if inserted.is_none() {
            if !self.grow_at_once(local, key)? {
                return Err(SetError::Grow);
            }
            // Growth may have found that the key belongs in the dense block now.
            if let Some(i) = key.as_integer()
                && self.set_dense(i, value)
            {
                return Ok(());
            }
            // SAFETY: as above.
            inserted = unsafe { self.node_block().insert(key, lookup.hash, value) };
            debug_assert!(inserted.is_some());
        }
        if key.as_integer().is_some_and(|i| i >= 1) {
            self.fields().state.store(INTEGER_NODES, Ordering::Relaxed);
        }
        self.forget_absent_metamethods();
        Ok(())
    }

    /// Inserts a key that is an interned string and not there into a table of one task that has room for it; a hint where it is, or `None` and
    /// nothing done.
    ///
    /// # Safety
    /// `key` is a string whose hash was asked for before, and is not in the table; the table's header byte is 0 or that of a metatable.
    #[inline(always)]
    pub(crate) unsafe fn insert_constant(self, key: Value, value: Value) -> Option<u32> {
        // SAFETY: a string, says the caller, and the table its task's alone.
        let index = unsafe {
            let hash = Gc::<crate::object::Str>::from_value_unchecked(key).known_hash();
            self.node_block().insert(key, hash, value)?
        };
        self.forget_absent_metamethods();
        Some(index & 0xffff)
    }

    /// Inserts a key that is an interned string at its main position, if that is the hint and free; else `false`, and nothing done.
    ///
    /// # Safety
    /// `key` is a string whose hash was asked for before; the table's header byte is 0.
    #[inline(always)]
    pub(crate) unsafe fn take_main(self, key: Value, hint: u32, value: Value) -> bool {
        // SAFETY: a string, says the caller, and the table its task's alone.
        unsafe {
            let hash = Gc::<crate::object::Str>::from_value_unchecked(key).known_hash();
            let nodes = self.node_block();
            if (hash ^ hint) & nodes.mask() & 0xffff != 0
                || value.is_nil()
                || self.header().extra.load(Ordering::Relaxed) != 0
            {
                return false;
            }
            nodes.take(key, hash, value)
        }
    }

    /// The slot of a key that has one, its value nil or not. `Ok(None)` if the key was never stored.
    ///
    /// A read-modify-write is a write: it must not land in a block of nodes that is being copied, so a key among the nodes of a growing
    /// table is an error, as it is for [`set`](Self::set). The caller has seen to [`flags::LOG`] and published what it will store.
    pub fn slot<'a>(self, key: Value) -> Result<Option<SlotRef<'a>>, SetError> {
        match Key::of(key) {
            Key::Nil => Err(SetError::NilKey),
            Key::Nan => Err(SetError::NanKey),
            Key::Integer(i) => self.slot_int(i),
            Key::Other(lookup) => self.slot_node(&lookup),
        }
    }

    /// As [`slot`](Self::slot), for an integer key.
    pub fn slot_int<'a>(self, key: i64) -> Result<Option<SlotRef<'a>>, SetError> {
        match self.integer_slot(key) {
            Some(_) if self.header().has(flags::FROZEN) => Err(SetError::Frozen),
            Some(slot) => Ok(Some(slot)),
            None => self.slot_node(&Lookup::integer(key)),
        }
    }

    fn slot_node<'a>(self, lookup: &Lookup) -> Result<Option<SlotRef<'a>>, SetError> {
        let flags = self.header().flags_acquire();
        if flags & flags::FROZEN != 0 {
            return Err(SetError::Frozen);
        }
        let nodes = self.node_block();
        match nodes.find(lookup) {
            Some(_) if flags & flags::GROWING != 0 => Err(SetError::Growing),
            Some(index) => Ok(Some(SlotRef(nodes.node(index).slot()))),
            None => Ok(None),
        }
    }

    /// The slot of an integer key in the dense block or the radix.
    fn integer_slot<'a>(self, key: i64) -> Option<SlotRef<'a>> {
        let dense = self.dense_block();
        let index = (key as u64).wrapping_sub(1);
        if index < dense.capacity() as u64 {
            return Some(SlotRef(dense.slot(index as usize)));
        }
        if !self.is_shared() || key < 1 {
            return None;
        }
        if self.has_integer_nodes() && self.node_block().find(&Lookup::integer(key)).is_some() {
            return None;
        }
        radix::find(dense.radix_edge(), index - dense.capacity() as u64).map(SlotRef)
    }

    /// As [`slot`](Self::slot), but makes the slot, with the value nil, if there is none.
    pub fn slot_or_insert<'a>(
        self,
        local: &LocalHeap,
        key: Value,
    ) -> Result<SlotRef<'a>, SetError> {
        if let Some(slot) = self.slot(key)? {
            return Ok(slot);
        }
        let (stored, lookup) = match Key::of(key) {
            Key::Nil => return Err(SetError::NilKey),
            Key::Nan => return Err(SetError::NanKey),
            Key::Integer(i) => {
                if self.is_shared()
                    && let Some(Some(slot)) = self.radix_slot(local, i, true)?
                {
                    return Ok(SlotRef(slot));
                }
                (local.integer(i)?, Lookup::integer(i))
            }
            Key::Other(lookup) => (key, lookup),
        };
        if self.is_shared() {
            let _locked = Locked::new(self);
            if self.header().flags_acquire() & flags::GROWING != 0 {
                return Err(SetError::Growing);
            }
            let nodes = self.node_block();
            let index = match nodes.find(&lookup) {
                Some(index) => index,
                None => {
                    // SAFETY: the lock is held.
                    let inserted = unsafe { nodes.insert(stored, lookup.hash, Value::NIL) };
                    self.forget_absent_metamethods();
                    inserted.ok_or(SetError::Grow)?
                }
            };
            return Ok(SlotRef(nodes.node(index).slot()));
        }
        // Inserted with a value so that it counts when the table grows; nobody else can see it.
        self.set(local, key, Value::TRUE)?;
        let slot = self.slot(key)?.ok_or(SetError::Grow)?;
        slot.store(Value::NIL);
        Ok(slot)
    }
}
