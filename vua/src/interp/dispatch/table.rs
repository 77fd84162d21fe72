//! Tables: fields by constant names, elements, lengths, methods.
//!
//! The first handler of each instruction has no loop and no call. It finds a field by the slot hint behind the instruction, or an element in
//! the dense block. What it does not find, a second handler looks for, which may search, follow metatables that hold tables, and
//! insert into a table of one task. What is left takes the slow path from the instruction's start.

use core::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::engine::Metamethod;
use crate::heap::{SLICE, is_public};
use crate::table::Found;

/// How many tables a key is looked for in before the slow path is asked.
pub(super) const CHAIN: usize = 16;

/// The table in a register that is known to hold one.
#[inline(always)]
unsafe fn table_in(base: *const u64, register: usize) -> Gc<Table> {
    // SAFETY: as the caller says.
    unsafe { Gc::from_value_unchecked(get(base, register)) }
}

#[inline(always)]
unsafe fn is_table(base: *const u64, register: usize) -> bool {
    // SAFETY: the register is in the frame.
    unsafe { Value::has_tag_at(base.add(register), Tag::Table) }
}

/// The metatable of a string or an object of the engine's, such as a task.
#[inline(always)]
unsafe fn metatable_of_other(vm: *mut Vm, register: *mut u64) -> Option<Gc<Table>> {
    // SAFETY: the core's own machine; the register is in the frame.
    unsafe {
        if Value::has_tag_at(register, Tag::String) {
            (*vm).core.program.string_metatable()
        } else if Value::has_tag_at(register, Tag::Object) {
            (*vm).core.program.object_metatable(get(register, 0))
        } else {
            None
        }
    }
}

/// The extension word at `pc`: the field's name, and the hint where it is.
#[inline(always)]
unsafe fn extension(pc: *const AtomicU32, k: *const Proto) -> (Value, u32) {
    // SAFETY: the verifier proved that the word is an extension and its constant a string.
    unsafe {
        let word = (*pc).load(Ordering::Relaxed);
        (constant(k, (word & 0xffff) as usize), word >> 16)
    }
}

/// Notes where a field was found. Other tasks may do so at the same time: any hint is as safe as another.
#[inline(always)]
unsafe fn note(pc: *const AtomicU32, index: u32) {
    // SAFETY: as for `extension`.
    unsafe {
        let word = (*pc).load(Ordering::Relaxed);
        let hinted = (word & 0xffff) | index << 16;
        if hinted != word {
            (*pc).store(hinted, Ordering::Relaxed);
        }
    }
}

/// Puts the field's value and goes on if the hint is right and the value is not nil.
macro_rules! hinted {
    ($table:expr, $ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident) => {
        let nodes = $table.node_block();
        let (key, hint) = extension($pc, $k);
        let node = nodes.hinted(hint);
        if node.key() == key {
            let value = node.value();
            if !value.is_nil() {
                put($base, a($ins), value);
                next!($pc.add(1), $base, $k, $vm)
            }
        }
    };
}

/// The value that an instruction stores: a register's or a constant.
macro_rules! stored {
    (register $ins:ident, $base:ident, $k:ident) => {
        get($base, a($ins))
    };
    (constant $ins:ident, $base:ident, $k:ident) => {
        constant($k, a($ins))
    };
}

/// The same, for a handler of several instructions.
#[inline(always)]
unsafe fn stored(ins: u64, base: *const u64, k: *const Proto) -> Value {
    // SAFETY: the verifier proved the operand.
    unsafe {
        match ins & 0xff {
            op if op >= Op::TSETK as u64 && op <= Op::TSETIK as u64 => constant(k, a(ins)),
            _ => get(base, a(ins)),
        }
    }
}

/// Stores the field's value and goes on if the hint is right, no bit but that for a metatable asks for more, and the value that was there is not nil.
macro_rules! set_hinted {
    ($table:expr, $from:ident, $ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident) => {
        let table = $table;
        if table.header().flags() & !flags::METATABLE == 0 {
            let nodes = table.node_block();
            let (key, hint) = extension($pc, $k);
            let node = nodes.hinted(hint);
            if node.key() == key && !node.value().is_nil() {
                node.set(stored!($from $ins, $base, $k));
                next!($pc.add(1), $base, $k, $vm)
            }
        }
    };
}

handlers! {
    gget(ins, pc, base, k, vm) {
        let environment = closure_of(base).capture_at(0);
        if Value::has_tag_at(environment, Tag::Table) {
            hinted!(table_in(environment, 0), ins, pc, base, k, vm);
        }
        slow!(get_field, ins, pc, base, k, vm)
    }
    tgets(ins, pc, base, k, vm) {
        if is_table(base, b(ins)) {
            hinted!(table_in(base, b(ins)), ins, pc, base, k, vm);
        }
        slow!(inherited, ins, pc, base, k, vm)
    }
    self_(ins, pc, base, k, vm) {
        *base.add(a(ins) + 2) = *base.add(b(ins));
        if is_table(base, b(ins)) {
            hinted!(table_in(base, b(ins)), ins, pc, base, k, vm);
        }
        slow!(inherited, ins, pc, base, k, vm)
    }
    /// `TGETS`, `SELF` of what has not the field itself, or not where the hint says: through metatables whose `__index` is a table. Where the hint is
    /// right for one of those, as for methods, that is the field.
    #[inline(never)]
    inherited(ins, pc, base, k, vm) {
        let (key, hint) = extension(pc, k);
        let mut table = if is_table(base, b(ins)) {
            table_in(base, b(ins))
        } else if let Some(metatable) = metatable_of_other(vm, base.add(b(ins)))
            && let Some(methods) = metatable.index_hinted((*vm).index_name).as_table()
        {
            let node = methods.node_block().hinted(hint);
            let value = node.value();
            if node.key() == key && !value.is_nil() {
                put(base, a(ins), value);
                next!(pc.add(1), base, k, vm)
            }
            methods
        } else {
            slow!(get_field, ins, pc, base, k, vm)
        };
        let mut left = CHAIN;
        while left > 0 {
            let nodes = table.node_block();
            match nodes.find_constant(key) {
                Found::At(index) => {
                    let value = nodes.hinted(index).value();
                    if !value.is_nil() {
                        note(pc, index & 0xffff);
                        put(base, a(ins), value);
                        next!(pc.add(1), base, k, vm)
                    }
                }
                Found::Nothing => {}
                Found::Unknown => slow!(get_field, ins, pc, base, k, vm),
            }
            let Some(metatable) = table.metatable() else {
                put(base, a(ins), Value::NIL);
                next!(pc.add(1), base, k, vm)
            };
            let index = metatable.index_hinted((*vm).index_name);
            let Some(methods) = index.as_table() else {
                if index.has_tag(Tag::Function) {
                    slow!(indexed, ins, pc, base, k, vm)
                }
                slow!(get_field, ins, pc, base, k, vm)
            };
            let node = methods.node_block().hinted(hint);
            let value = node.value();
            if node.key() == key && !value.is_nil() {
                put(base, a(ins), value);
                next!(pc.add(1), base, k, vm)
            }
            table = methods;
            left -= 1;
        }
        slow!(get_field, ins, pc, base, k, vm)
    }
    /// `GGET`, `TGETS`, `SELF`: searches, through metatables whose `__index` is a table.
    #[inline(never)]
    get_field(ins, pc, base, k, vm) {
        let object = if ins & 0xff == Op::GGET as u64 { closure_of(base).capture(0) } else { get(base, b(ins)) };
        if let Some((value, index)) = search(vm, object, extension(pc, k)) {
            note(pc, index);
            put(base, a(ins), value);
            next!(pc.add(1), base, k, vm)
        }
        slow!(indexed, ins, pc, base, k, vm)
    }
    gset(ins, pc, base, k, vm) {
        let environment = closure_of(base).capture_at(0);
        if Value::has_tag_at(environment, Tag::Table) {
            set_hinted!(table_in(environment, 0), register, ins, pc, base, k, vm);
        }
        slow!(set_searching, ins, pc, base, k, vm)
    }
    #[inline(never)]
    set_field(ins, pc, base, k, vm) {
        // A field of a new object that takes the same node as in the last one: as long as that is free, and the key's main position, no
        // chain leads to the key.
        if is_table(base, b(ins)) && table_in(base, b(ins)).header().flags() == 0 {
            let (key, hint) = extension(pc, k);
            if table_in(base, b(ins)).take_main(key, hint, stored(ins, base, k)) {
                next!(pc.add(1), base, k, vm)
            }
        }
        slow!(set_searching, ins, pc, base, k, vm)
    }
    /// `GSET`, `TSETS`: searches, and notes where the field is.
    #[inline(never)]
    set_searching(ins, pc, base, k, vm) {
        let object = if ins & 0xff == Op::GSET as u64 { closure_of(base).capture(0) } else { get(base, b(ins)) };
        if let Some(table) = object.as_table()
            && let Some(index) = set_found(vm, table, extension(pc, k).0, stored(ins, base, k))
        {
            note(pc, index);
            next!(pc.add(1), base, k, vm)
        }
        slow!(assigned, ins, pc, base, k, vm)
    }

    tget(ins, pc, base, k, vm) {
        if is_table(base, b(ins)) && let Some(key) = Value::index_at(base.add(c(ins))) {
            let dense = table_in(base, b(ins)).dense_block();
            if key.wrapping_sub(1) < dense.length() {
                let value = dense.get(key.wrapping_sub(1) as usize);
                if !value.is_nil() {
                    put(base, a(ins), value);
                    next!(pc, base, k, vm)
                }
            }
            slow!(get_radix, ins, pc, base, k, vm)
        }
        slow!(get_element, ins, pc, base, k, vm)
    }
    /// `TGET` of an integer key that is not in the dense block: of a shared table perhaps in the radix.
    #[inline(never)]
    get_radix(ins, pc, base, k, vm) {
        let table = table_in(base, b(ins));
        if let Some(slot) = table.radix_slot_at_once(get_word(base, c(ins)) as u32) {
            let value = slot.load(Ordering::Acquire);
            if value != Value::NIL.to_bits() {
                *base.add(a(ins)) = value;
                next!(pc, base, k, vm)
            }
        } else if table.has_radix() {
            slow!(get_radix_searching, ins, pc, base, k, vm)
        }
        slow!(get_element, ins, pc, base, k, vm)
    }
    #[inline(never)]
    get_radix_searching(ins, pc, base, k, vm) {
        let table = table_in(base, b(ins));
        if let Some(slot) = table.radix_slot_of(get_word(base, c(ins)) as u32) {
            let value = slot.load(Ordering::Acquire);
            if value != Value::NIL.to_bits() {
                *base.add(a(ins)) = value;
                next!(pc, base, k, vm)
            }
        }
        slow!(get_element, ins, pc, base, k, vm)
    }
    tgeti(ins, pc, base, k, vm) {
        if is_table(base, b(ins)) {
            let dense = table_in(base, b(ins)).dense_block();
            let key = c(ins) as u32;
            if key.wrapping_sub(1) < dense.length() {
                let value = dense.get(key.wrapping_sub(1) as usize);
                if !value.is_nil() {
                    put(base, a(ins), value);
                    next!(pc, base, k, vm)
                }
            }
        }
        slow!(get_element, ins, pc, base, k, vm)
    }
    /// `TGET`, `TGETI` of any key, in a table whose metatable is not asked.
    #[inline(never)]
    get_element(ins, pc, base, k, vm) {
        if is_table(base, b(ins)) {
            let table = table_in(base, b(ins));
            if ins & 0xff == Op::TGET as u64 && let Some(key) = get(base, c(ins)).as_str() {
                let nodes = table.node_block();
                let value = match nodes.find_string(key) {
                    Some(index) => nodes.hinted(index).value(),
                    None => Value::NIL,
                };
                if !value.is_nil() || !table.header().has(flags::METATABLE) {
                    put(base, a(ins), value);
                    next!(pc, base, k, vm)
                }
                slow!(indexed, ins, pc, base, k, vm)
            }
            let value = if ins & 0xff == Op::TGETI as u64 { table.get_int(c(ins) as i64) } else { table.get(get(base, c(ins))) };
            if !value.is_nil() || !table.header().has(flags::METATABLE) {
                put(base, a(ins), value);
                next!(pc, base, k, vm)
            }
        }
        slow!(indexed, ins, pc, base, k, vm)
    }
    /// `TSET`, `TSETK` of an integer key of a shared table of which nothing else is asked: what has a place and is no reference is stored there.
    #[inline(never)]
    set_radix(ins, pc, base, k, vm) {
        let (table, key) = (table_in(base, b(ins)), get_word(base, c(ins)) as u32);
        let value = stored(ins, base, k);
        if !value.is_reference() {
            let dense = table.dense_block();
            if key.wrapping_sub(1) < dense.length() {
                dense.set(key.wrapping_sub(1) as usize, value);
                next!(pc, base, k, vm)
            }
            // An integer that lay among the nodes when the table was shared stays there.
            if !table.has_integer_nodes() && let Some(slot) = table.radix_slot_at_once(key) {
                slot.store(value.to_bits(), Ordering::Release);
                next!(pc, base, k, vm)
            }
        }
        slow!(set_radix_searching, ins, pc, base, k, vm)
    }
    #[inline(never)]
    set_radix_searching(ins, pc, base, k, vm) {
        let (table, key) = (table_in(base, b(ins)), get_word(base, c(ins)) as u32);
        let value = stored(ins, base, k);
        if !value.is_reference() && !table.has_integer_nodes() && let Some(slot) = table.radix_slot_of(key) {
            slot.store(value.to_bits(), Ordering::Release);
            next!(pc, base, k, vm)
        }
        slow!(set_element, ins, pc, base, k, vm)
    }
    /// `TSET`, `TSETI` and those with a constant, of any key, in a table of one task whose metatable is not asked.
    #[inline(never)]
    set_element(ins, pc, base, k, vm) {
        if is_table(base, b(ins)) {
            let op = ins & 0xff;
            let key = if op == Op::TSETI as u64 || op == Op::TSETIK as u64 { Value::small(c(ins) as i32) } else { get(base, c(ins)) };
            if set_any(vm, table_in(base, b(ins)), key, stored(ins, base, k)) {
                next!(pc, base, k, vm)
            }
        }
        slow!(assigned, ins, pc, base, k, vm)
    }

    /// As many elements as the dense block was made for, in a table that nobody else knows.
    #[inline(never)]
    tlist(ins, pc, base, k, vm) {
        let count = d(ins) + if ins & 0xff == Op::TLISTM as u64 { (*vm).core.open } else { 0 };
        let first = word_at(pc) as usize;
        if is_table(base, a(ins)) && first >= 1 {
            let table = table_in(base, a(ins));
            let dense = table.dense_block();
            if table.header().flags() == 0 && first - 1 + count <= dense.capacity() && count <= SLICE {
                let from = base.add(a(ins) + 1);
                let mut i = 0;
                while i < count {
                    dense.set(first - 1 + i, get(from, i));
                    i += 1;
                }
                if count > 0 {
                    table.fields().border.store((first - 1 + count) as u32, Ordering::Relaxed);
                }
                next!(pc.add(1), base, k, vm)
            }
        }
        slow!(slow_list, ins, pc, base, k, vm)
    }

    len(ins, pc, base, k, vm) {
        if is_table(base, d(ins)) {
            let table = table_in(base, d(ins));
            if let Some(border) = table.border_at_hint() && !table.header().has(flags::METATABLE) {
                put(base, a(ins), Value::small(border as i32));
                next!(pc, base, k, vm)
            }
        }
        slow!(length, ins, pc, base, k, vm)
    }
    #[inline(never)]
    length(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        let length = if let Some(string) = x.as_str() {
            string.len() as i64
        } else if let Some(table) = x.as_table() && !table.header().has(flags::METATABLE) {
            table.length()
        } else {
            slow!(slow_length, ins, pc, base, k, vm)
        };
        match Value::inline_integer(length) {
            Some(value) => {
                put(base, a(ins), value);
                next!(pc, base, k, vm)
            }
            None => slow!(slow_length, ins, pc, base, k, vm),
        }
    }
}

/// Stores, of a value in a register and of a constant.
macro_rules! stores {
    ($($field:ident $element:ident $small:ident $from:ident;)*) => {$(
        handlers! {
            $field(ins, pc, base, k, vm) {
                if is_table(base, b(ins)) {
                    set_hinted!(table_in(base, b(ins)), $from, ins, pc, base, k, vm);
                }
                slow!(set_field, ins, pc, base, k, vm)
            }
            $element(ins, pc, base, k, vm) {
                if is_table(base, b(ins)) && let Some(key) = Value::index_at(base.add(c(ins))) {
                    let table = table_in(base, b(ins));
                    let dense = table.dense_block();
                    if table.header().flags() == 0 && key.wrapping_sub(1) < dense.length() {
                        dense.set(key.wrapping_sub(1) as usize, stored!($from ins, base, k));
                        next!(pc, base, k, vm)
                    }
                    // Loaded again: with the byte kept in a register, stores into unshared tables take more instructions.
                    if table.header().flags_acquire() == flags::SHARED {
                        slow!(set_radix, ins, pc, base, k, vm)
                    }
                }
                slow!(set_element, ins, pc, base, k, vm)
            }
            $small(ins, pc, base, k, vm) {
                if is_table(base, b(ins)) {
                    let table = table_in(base, b(ins));
                    let dense = table.dense_block();
                    let key = c(ins) as u32;
                    if table.header().flags() == 0 && key.wrapping_sub(1) < dense.length() {
                        dense.set(key.wrapping_sub(1) as usize, stored!($from ins, base, k));
                        next!(pc, base, k, vm)
                    }
                }
                slow!(set_element, ins, pc, base, k, vm)
            }
        }
    )*};
}

stores! {
    tsets tset tseti register;
    tsetsk tsetk tsetik constant;
}

/// The value of a field by a constant name, and a hint where it is; `None` if that needs a function to be called or
/// cannot be said by following a few tables.
#[inline(never)]
unsafe fn search(vm: *mut Vm, object: Value, (key, hint): (Value, u32)) -> Option<(Value, u32)> {
    // SAFETY: the core's own machine; the key is an interned string.
    unsafe {
        let mut table = match object.as_table() {
            Some(table) => table,
            None => {
                let metatable = (*vm).core.program.metatable(object)?;
                metatable
                    .metamethod(Metamethod::Index as u8, (*vm).index_name)
                    .as_table()?
            }
        };
        for _ in 0..CHAIN {
            let nodes = table.node_block();
            match nodes.find_constant(key) {
                Found::At(index) => {
                    let value = nodes.hinted(index).value();
                    if !value.is_nil() {
                        return Some((value, index & 0xffff));
                    }
                }
                Found::Nothing => {}
                Found::Unknown => return None,
            }
            let handler = match table.metatable() {
                Some(metatable) => metatable.metamethod(Metamethod::Index as u8, (*vm).index_name),
                None => Value::NIL,
            };
            if handler.is_nil() {
                return Some((Value::NIL, hint));
            }
            table = handler.as_table()?;
        }
        None
    }
}

/// Whether a new key may be stored in the table without asking anyone: it is one task's, and no `__newindex` is to be called.
#[inline(always)]
unsafe fn takes_new_keys(vm: *mut Vm, table: Gc<Table>) -> bool {
    let bits = table.header().flags();
    if bits == 0 {
        return true;
    }
    // SAFETY: the core's own machine.
    bits == flags::METATABLE
        && table.metatable().is_none_or(|metatable| unsafe {
            (*vm).core.program.has_no(metatable, Metamethod::Newindex)
        })
}

/// Whether a value may be stored in a shared table, in the place of another, by a plain store: nobody is to see it first, and the table's nodes stay
/// where they are until the next safepoint.
#[inline(always)]
fn is_stored_plainly(table: Gc<Table>, value: Value) -> bool {
    let asks = flags::FROZEN | flags::GROWING | flags::LOG;
    table.header().flags_acquire() & (asks | flags::SHARED) == flags::SHARED && is_public(value)
}

/// Stores a field by a constant name; a hint where it is, or `None` and nothing done.
#[inline(never)]
unsafe fn set_found(vm: *mut Vm, table: Gc<Table>, key: Value, value: Value) -> Option<u32> {
    // SAFETY: the key is an interned string, and the table its task's alone, or shared and the store plain.
    unsafe {
        if table.header().flags() & !flags::METATABLE != 0 {
            if !is_stored_plainly(table, value) {
                return None;
            }
            // Loaded after the header byte: whoever no longer sees `GROWING` sees the new block.
            let nodes = table.node_block();
            return match nodes.find_constant(key) {
                Found::At(index) if !nodes.hinted(index).value().is_nil() => {
                    nodes.hinted(index).set(value);
                    Some(index & 0xffff)
                }
                _ => None,
            };
        }
        let nodes = table.node_block();
        match nodes.find_constant(key) {
            Found::At(index) => {
                let node = nodes.hinted(index);
                if node.value().is_nil() && !takes_new_keys(vm, table) {
                    return None;
                }
                node.set(value);
                Some(index & 0xffff)
            }
            Found::Nothing if !value.is_nil() && takes_new_keys(vm, table) => {
                table.insert_constant(key, value)
            }
            _ => None,
        }
    }
}

/// Stores any key; `false`, and nothing done, if that is not simple.
#[inline(never)]
unsafe fn set_any(vm: *mut Vm, table: Gc<Table>, key: Value, value: Value) -> bool {
    // SAFETY: the core's own machine.
    unsafe {
        let bits = table.header().flags();
        if bits & !flags::METATABLE != 0 {
            return set_shared(vm, table, key, value);
        }
        if let Some(string) = key.as_str() {
            let nodes = table.node_block();
            if let Some(index) = nodes.find_string(string) {
                let node = nodes.hinted(index);
                if !node.value().is_nil() {
                    node.set(value);
                    return true;
                }
            }
        }
        if bits != 0 && table.get(key).is_nil() && !takes_new_keys(vm, table) {
            return false;
        }
        table.set(&(*vm).core.heap, key, value).is_ok()
    }
}

/// Stores an integer key of a shared table, or a string that is there; `false`, and nothing done, if that is not simple.
#[inline(never)]
unsafe fn set_shared(vm: *mut Vm, table: Gc<Table>, key: Value, value: Value) -> bool {
    if !is_stored_plainly(table, value) {
        return false;
    }
    if key.is_inline_integer() {
        if table.header().has(flags::METATABLE) && table.get(key).is_nil() {
            return false;
        }
        // SAFETY: the core's own machine.
        let heap = unsafe { &(*vm).core.heap };
        return table.set_int(heap, key.inline_payload(), value).is_ok();
    }
    let Some(string) = key.as_str() else {
        return false;
    };
    let nodes = table.node_block();
    match nodes.find_string(string) {
        Some(index) if !nodes.hinted(index).value().is_nil() => {
            nodes.hinted(index).set(value);
            true
        }
        _ => false,
    }
}
