//! Watching a program for data races: what each instruction accesses, and what makes it known to others.
//!
//! A core that watches has a table of handlers of its own ([`RACING`]): those of instructions that access what tasks may share note that first, and all go on to the plain handler. They count, as
//! [`metered`](super::metered) ones do, since a program is watched with its cores in turns; so no other core does anything between what is noted and what is done.
//! An instruction that is run again after a collection, or when a table has grown, notes the same again.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

use super::core_state::{Core, Vm};
use super::dispatch::{Exit, HANDLERS, Handler, closure_of, get, intrinsic};
use super::frame::Frame;
use super::metered::{Meter, switch};
use crate::bytecode::instructions::{Op, a, b, c, d};
use crate::engine::Metamethod;
use crate::heap::{Kind, flags};
use crate::memory::object::TypeInfo;
use crate::memory::{Array, Struct, StructType};
use crate::number::Number;
use crate::object::{Gc, Proto};
use crate::race::watch::Touch;
use crate::race::{Keys, Met, Part, Races, Slot};
use crate::table::Table;
use crate::task::Latch;
use crate::value::{Tag, Value};

/// How many frames of a stack are told.
const FRAMES: usize = 16;
/// How many metatables an access is followed through.
const CHAIN: usize = 100;
/// How many elements a native is taken to access at most: more are out of any range that it accepts.
const ELEMENTS: i64 = 1 << 22;

/// What an access is called, told only when it is reported.
type Name<'a> = &'a dyn Fn(&Core) -> String;

impl Core {
    /// Who watches, and the running task.
    #[inline]
    fn watched(&self) -> Option<(&'static Races, usize)> {
        Some((self.meter.races?, self.task?.as_ptr() as usize))
    }

    /// What the running task has done is known to who acquires it from this object.
    #[inline]
    pub(crate) fn race_release(&self, object: usize, part: Part) {
        if let Some((races, task)) = self.watched() {
            races.release(task, object, part);
        }
    }

    /// The running task knows what was released to this object.
    #[inline]
    pub(crate) fn race_acquire(&self, object: usize, part: Part) {
        if let Some((races, task)) = self.watched() {
            races.acquire(task, object, part);
        }
    }

    /// Whoever watches, to be told of something.
    #[inline]
    pub(crate) fn race_watch(&self, tell: impl FnOnce(&Races, usize)) {
        if let Some((races, task)) = self.watched() {
            tell(races, task);
        }
    }

    /// The part of an object that stands for a key.
    pub(crate) fn race_part(&self, key: Value) -> Part {
        self.meter
            .races
            .and_then(|races| races.slot(key))
            .map_or(Part::Whole, Part::Of)
    }

    /// A frame of the running task: the coroutine, and how far up its stack.
    pub(crate) fn race_frame(&self, base: *mut u64) -> (usize, usize) {
        let coroutine = self.coroutine().map_or(0, |c| c.as_ptr() as usize);
        (coroutine, (base as usize - self.stack as usize) / 8)
    }

    /// The number of the traceback of what is being done.
    fn race_trace(&self, races: &Races) -> u32 {
        let innermost = Frame {
            base: self.base,
            pc: self.pc,
        };
        let mut addresses = [0; FRAMES + 1];
        let mut count = 0;
        let mut walk = Some(innermost);
        while let Some(frame) = walk
            && count < FRAMES
        {
            // SAFETY: the stack is the running task's, which is at an instruction; the slot two below a base holds the frame's function.
            unsafe {
                let function = Value::from_bits(*frame.base.sub(2));
                addresses[count] = match function.as_native() {
                    Some(native) => native.function() as usize,
                    None => frame.pc as usize,
                };
                walk = frame.caller();
            }
            count += 1;
        }
        if let Some(task) = self.task {
            addresses[count] = task.fields().spawned_at.get().1 as usize;
            count += 1;
        }
        races
            .traces
            .borrow_mut()
            .number(&addresses[..count], || self.race_text(innermost))
    }

    /// The place of a frame in its source, and the traceback from there outwards.
    fn race_text(&self, innermost: Frame) -> (String, String) {
        let (mut place, mut text) = (String::new(), String::new());
        let mut walk = Some(innermost);
        let mut left = FRAMES;
        while let Some(frame) = walk {
            // SAFETY: as above.
            let caller = unsafe { frame.caller() };
            if left == 0 {
                text.push_str("\n\t...");
                break;
            }
            left -= 1;
            if place.is_empty()
                && let Some(proto) = self.frame_proto(frame)
                && let Some(debug) = proto.debug()
            {
                let line = Self::line_at(proto, frame.pc).unwrap_or(debug.line);
                place = format!("{}:{line}", debug.source);
            }
            text.push_str("\n\t");
            text.push_str(&self.describe(frame, caller));
            walk = caller;
        }
        if let Some(site) = self.spawn_site() {
            text.push_str(&site);
        }
        (place, text)
    }

    fn race_tell(&self, races: &Races, met: &Met, writes: bool, trace: u32, name: Name<'_>) {
        let text = races
            .traces
            .borrow_mut()
            .told(met, writes, trace, &name(self));
        if let Some(text) = text {
            self.engine.write_error(text.as_bytes());
        }
    }

    /// Notes an access of the running task, and tells if it races with another.
    fn race_note(&self, object: usize, slot: Slot, writes: bool, name: Name<'_>) {
        let Some((races, task)) = self.watched() else {
            return;
        };
        let trace = Cell::new(0);
        let met = races.access(task, (object, slot), writes, || {
            trace.set(self.race_trace(races));
            trace.get()
        });
        if let Some(met) = met {
            self.race_tell(races, &met, writes, trace.get(), name);
        }
    }

    /// The same of a table's keys.
    fn race_keys(&self, table: Gc<Table>, keys: Keys, of: &str) {
        let Some((races, task)) = self.watched() else {
            return;
        };
        let trace = Cell::new(0);
        let met = races.keys(task, table.as_ptr() as usize, keys, || {
            trace.set(self.race_trace(races));
            trace.get()
        });
        if let Some(met) = met {
            let writes = matches!(keys, Keys::ChangeSequence | Keys::ChangeOther);
            self.race_tell(races, &met, writes, trace.get(), &|_| {
                format!("the set of keys{of}")
            });
        }
    }

    /// What an element of a table is called.
    fn race_element(&self, table: Gc<Table>, slot: Slot, of: &str) -> String {
        let name = match self.meter.races {
            Some(races) => races.slot_name(slot),
            None => String::new(),
        };
        match name.strip_prefix("field ") {
            Some(name) if table.value() == self.program.globals() => format!("global {name}"),
            _ => name + of,
        }
    }

    /// ` of local 't'`, or nothing.
    fn race_holder(&self, register: Option<usize>) -> String {
        let text = self.variable(register);
        match text.strip_prefix(" (").and_then(|t| t.strip_suffix(')')) {
            Some(name) => format!(" of {name}"),
            None => String::new(),
        }
    }

    /// Notes that an element of a table is read or written.
    fn race_slot(&self, table: Gc<Table>, key: Value, writes: bool, holder: Option<usize>) {
        if let Some(slot) = self.meter.races.and_then(|races| races.slot(key)) {
            self.race_note(table.as_ptr() as usize, slot, writes, &|core| {
                core.race_element(table, slot, &core.race_holder(holder))
            });
        }
    }

    fn race_metatable(&self, table: Gc<Table>, writes: bool) {
        self.race_note(table.as_ptr() as usize, Slot::Metatable, writes, &|_| {
            String::from("the metatable of a table")
        });
    }

    /// Notes what `object[key]` reads: elements, metatables, `__index`.
    fn race_get(&self, mut object: Value, key: Value, mut holder: Option<usize>) {
        for _ in 0..CHAIN {
            if object.has_tag(Tag::Struct) {
                return self.race_member(object, key, false);
            }
            let Some(table) = object.as_table() else {
                return;
            };
            self.race_slot(table, key, false, holder.take());
            if !table.get(key).is_nil() {
                return;
            }
            self.race_metatable(table, false);
            let Some(metatable) = table.metatable() else {
                return;
            };
            let index = self.program.metamethod_name(Metamethod::Index);
            self.race_slot(metatable, index, false, None);
            object = metatable.get(index);
        }
    }

    /// Notes what `object[key] = value` accesses.
    fn race_set(&self, mut object: Value, key: Value, value: Value, mut holder: Option<usize>) {
        for _ in 0..CHAIN {
            if object.has_tag(Tag::Struct) {
                return self.race_member(object, key, true);
            }
            let Some(table) = object.as_table() else {
                return;
            };
            if table.get(key).is_nil() && table.header().has(flags::METATABLE) {
                self.race_metatable(table, false);
                let name = self.program.metamethod_name(Metamethod::Newindex);
                if let Some(metatable) = table.metatable() {
                    self.race_slot(metatable, name, false, None);
                    let handler = metatable.get(name);
                    if !handler.is_nil() {
                        object = handler;
                        holder = None;
                        continue;
                    }
                }
            }
            return self.race_store(table, key, value.is_nil(), holder.take());
        }
    }

    /// Notes that an element of a table is replaced, by nil or something else.
    fn race_store(&self, table: Gc<Table>, key: Value, by_nil: bool, holder: Option<usize>) {
        if table.header().has(flags::FROZEN) {
            return;
        }
        self.race_slot(table, key, true, holder);
        if table.get(key).is_nil() != by_nil {
            let keys = match key.as_number().and_then(Number::to_integer) {
                Some(i) if i > 0 => Keys::ChangeSequence,
                _ => Keys::ChangeOther,
            };
            self.race_keys(table, keys, &self.race_holder(holder));
        }
    }

    /// Notes an access of a field of a struct or an element of an array.
    fn race_member(&self, object: Value, key: Value, writes: bool) {
        if Gc::<Array>::from_value(object).is_some() && !key.is_number() {
            return;
        }
        // What is not found is an error of the instruction.
        let Ok(place) = self.scalar_place(object, key) else {
            return;
        };
        let name: Name<'_> = &|_| format!("{}", place.what);
        let root = place.root.as_ptr() as usize;
        if place.kind.is_some() {
            return self.race_note(root, Slot::Memory(place.at as usize), writes, name);
        }
        if !writes {
            // A reference is made, and nothing read.
            return;
        }
        if let Some(array) = Gc::<Array>::from_value(object) {
            if let Some(of) = array.of() {
                self.race_struct(of, place.at as usize, root, true, name);
            }
        } else if let Some(it) = Gc::<Struct>::from_value(object)
            && let Some(field) = it.of().field(key)
        {
            let at = place.at as usize - it.of().info().fields[field].offset;
            self.race_field(it.of(), field, at, root, true, name);
        }
    }

    /// Notes an access of all that a struct at an address holds.
    fn race_struct(
        &self,
        of: Gc<StructType>,
        at: usize,
        root: usize,
        writes: bool,
        name: Name<'_>,
    ) {
        for field in 0..of.info().fields.len() {
            self.race_field(of, field, at, root, writes, name);
        }
    }

    fn race_field(
        &self,
        of: Gc<StructType>,
        field: usize,
        at: usize,
        root: usize,
        writes: bool,
        name: Name<'_>,
    ) {
        let info = &of.info().fields[field];
        let at = at + info.offset;
        for i in 0..info.count.unwrap_or(1) as usize {
            match (info.scalar, of.embedded(field)) {
                (Some(scalar), _) => {
                    self.race_note(root, Slot::Memory(at + i * scalar.size()), writes, name)
                }
                (None, Some(inner)) => {
                    self.race_struct(inner, at + i * inner.info().size, root, writes, name)
                }
                (None, None) => {}
            }
        }
    }

    /// Notes an access of elements `from` to `to`.
    fn race_range(&self, object: Value, from: i64, to: i64, writes: bool) {
        for i in from..=to.min(from.saturating_add(ELEMENTS)) {
            let Some(key) = Value::inline_integer(i) else {
                return;
            };
            match object.as_table() {
                Some(table) if writes => self.race_slot(table, key, true, None),
                _ if writes => self.race_member(object, key, true),
                _ => self.race_get(object, key, None),
            }
        }
    }

    /// The length of a table or array, which is noted as read.
    fn race_length(&self, object: Value) -> i64 {
        if let Some(table) = object.as_table() {
            self.race_keys(table, Keys::Border, "");
            return table.length();
        }
        Gc::<Array>::from_value(object).map_or(0, |array| array.length() as i64)
    }
}

/// `GGET`, `TGET`, `TGETS`, `TGETI`, `SELF`: the object and the key.
unsafe fn operands(core: &Core, ins: u64, op: Op) -> (Value, Value, Option<usize>) {
    // SAFETY: the verifier proved the operands.
    unsafe {
        let ins = ins as u32;
        let field = || {
            let word = (*core.pc).load(Ordering::Relaxed) as usize;
            closure_of(core.base).proto().constants()[word & 0xffff]
        };
        match op {
            Op::GGET | Op::GSET => (closure_of(core.base).capture(0), field(), None),
            Op::TGETS | Op::SELF | Op::TSETS | Op::TSETSK => {
                (get(core.base, b(ins)), field(), Some(b(ins)))
            }
            Op::TGETI | Op::TSETI | Op::TSETIK => (
                get(core.base, b(ins)),
                Value::small(c(ins) as i32),
                Some(b(ins)),
            ),
            _ => (get(core.base, b(ins)), get(core.base, c(ins)), Some(b(ins))),
        }
    }
}

unsafe fn gets(core: &Core, ins: u64) {
    let op = Op::of(ins as u32).unwrap_or(Op::TGET);
    // SAFETY: as for `operands`.
    let (object, key, holder) = unsafe { operands(core, ins, op) };
    core.race_get(object, key, holder);
}

unsafe fn sets(core: &Core, ins: u64) {
    let op = Op::of(ins as u32).unwrap_or(Op::TSET);
    // SAFETY: the verifier proved the operands.
    unsafe {
        let (object, key, holder) = operands(core, ins, op);
        let value = match op {
            Op::TSETK | Op::TSETSK | Op::TSETIK => {
                closure_of(core.base).proto().constants()[a(ins as u32)]
            }
            _ => get(core.base, a(ins as u32)),
        };
        core.race_set(object, key, value, holder);
    }
}

unsafe fn lengths(core: &Core, ins: u64) {
    // SAFETY: the verifier proved the operand.
    let value = unsafe { get(core.base, d(ins as u32)) };
    if let Some(table) = value.as_table()
        && core.program.metamethod(value, Metamethod::Len).is_nil()
    {
        core.race_keys(table, Keys::Border, &core.race_holder(Some(d(ins as u32))));
    }
}

/// Cells that are captured, and cells in registers, of both kinds.
unsafe fn cells(core: &Core, ins: u64) {
    let ins = ins as u32;
    let op = Op::of(ins).unwrap_or(Op::GETCELL);
    // SAFETY: the verifier proved the operands.
    unsafe {
        let writes = matches!(op, Op::SETCELL | Op::RSETCELL | Op::CELLSET | Op::RCELLSET);
        let register = match op {
            Op::CELLSET | Op::RCELLSET => Some(a(ins)),
            Op::CELLGET | Op::RCELLGET => Some(d(ins)),
            _ => None,
        };
        let cell = match register {
            Some(register) => get(core.base, register),
            None => closure_of(core.base).capture(d(ins)),
        };
        core.race_note(cell.address() as usize, Slot::Whole, writes, &|core| {
            let name = match register {
                Some(register) => core.register_name(register),
                None => closure_of(core.base)
                    .proto()
                    .debug()
                    .and_then(|debug| debug.captures.get(d(ins)))
                    .map_or("?".into(), |capture| String::from(&*capture.name)),
            };
            format!("local '{name}'")
        });
    }
}

/// The name of the field at an offset, through embedded structs.
fn field_at(info: &TypeInfo, offset: usize) -> String {
    let field = info.fields.iter().rev().find(|f| f.offset <= offset);
    field.map_or("a field".into(), |field| format!("field '{}'", field.name))
}

/// Fields and elements of known types.
unsafe fn members(core: &Core, ins: u64) {
    let word = ins as u32;
    let op = Op::of(word).unwrap_or(Op::SGET);
    // SAFETY: the verifier proved the operands.
    unsafe {
        let value = get(core.base, b(word));
        let writes = matches!(op, Op::SSET | Op::PSET | Op::ASETI | Op::ASETF);
        if matches!(op, Op::AGETI | Op::AGETF | Op::ASETI | Op::ASETF) {
            if Gc::<Array>::from_value(value).is_some()
                && let Some(key) = Value::inline_integer(*core.base.add(c(word)) as i64)
            {
                core.race_member(value, key, writes);
            }
            return;
        }
        let extension = (*core.pc).load(Ordering::Relaxed) as usize;
        let constants = closure_of(core.base).proto().constants();
        let offset = (constants[extension >> 16].as_integer().unwrap_or(0) >> 8) as usize;
        let of = Gc::<StructType>::from_value(constants[extension & 0xffff]);
        let (at, root, element) = if matches!(op, Op::PGET | Op::PSET) {
            let i = *core.base.add(c(word)) as i64;
            let Some(array) = Gc::<Array>::from_value(value) else {
                return;
            };
            if (i as u64).wrapping_sub(1) >= array.length() as u64 || array.of() != of {
                return;
            }
            let at = array.data() as usize + (i as usize - 1) * array.stride();
            (at, array.root(), Some(i))
        } else {
            let Some(it) = Gc::<Struct>::from_value(value) else {
                return;
            };
            match it.data() {
                Some(data) if Some(it.of()) == of => (data as usize, it.root(), None),
                _ => return,
            }
        };
        let slot = Slot::Memory(at + offset);
        core.race_note(root.as_ptr() as usize, slot, writes, &|_| {
            let field = of.map_or("a field".into(), |of| field_at(of.info(), offset));
            match element {
                Some(i) => format!("{field} of element {i}"),
                None => field,
            }
        });
    }
}

/// `COPYREF`: a struct is copied.
unsafe fn copies(core: &Core, ins: u64) {
    // SAFETY: the verifier proved the operands.
    let (value, to) = unsafe { (get(core.base, b(ins as u32)), get(core.base, c(ins as u32))) };
    if to.has_tag(Tag::Struct)
        && let Some(it) = Gc::<Struct>::from_value(value)
        && let Some(data) = it.data()
    {
        let root = it.root().as_ptr() as usize;
        core.race_struct(it.of(), data as usize, root, false, &|_| {
            format!("a struct {}", it.of().info().name)
        });
    }
}

/// What a loop's iterator is, if it reads a table or struct in place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Iterator {
    Keys,
    Indices,
    Fields,
}

fn iterator(value: Value) -> Option<Iterator> {
    if value.object_kind() == Some(Kind::NodeBlock) {
        return Some(Iterator::Keys);
    }
    let function = value.as_native()?.function();
    [
        (crate::library::base::next as *const (), Iterator::Keys),
        (
            crate::library::base::next_index as *const (),
            Iterator::Indices,
        ),
        (
            crate::library::memory::next_field as *const (),
            Iterator::Fields,
        ),
    ]
    .into_iter()
    .find(|(native, _)| core::ptr::eq(*native, function))
    .map(|(_, iterator)| iterator)
}

/// `ITERCALL`: before the step.
unsafe fn iterates(core: &Core, ins: u64) {
    // SAFETY: the verifier proved the window, four registers below it included.
    unsafe {
        let window = core.base.add(a(ins as u32));
        let (function, state) = (get(window.sub(4), 0), get(window.sub(3), 0));
        match iterator(function) {
            Some(Iterator::Keys) => {
                if let Some(table) = state.as_table() {
                    core.race_keys(table, Keys::Iterate, "");
                }
            }
            Some(Iterator::Indices) => {
                if let Some(key) = get(window.sub(2), 0)
                    .as_integer()
                    .and_then(|i| Value::inline_integer(i + 1))
                {
                    core.race_get(state, key, None);
                }
            }
            _ => {}
        }
    }
}

/// `ITERLOOP`: what the step gave.
unsafe fn iterated(core: &Core, ins: u64) {
    // SAFETY: as for `iterates`.
    unsafe {
        let window = core.base.add(a(ins as u32));
        let (function, state) = (get(window.sub(4), 0), get(window.sub(3), 0));
        let key = get(window, 0);
        if key.is_nil() {
            return;
        }
        match (iterator(function), state.as_table()) {
            (Some(Iterator::Keys), Some(table)) => core.race_slot(table, key, false, None),
            (Some(Iterator::Fields), None) => core.race_member(state, key, false),
            _ => {}
        }
    }
}

/// A native is called.
unsafe fn calls_native(core: &Core, ins: u64) {
    if a(ins as u32) != 0 {
        // It goes on.
        return;
    }
    // SAFETY: the slot two below a base holds the frame's function; so many arguments lie at it.
    unsafe {
        let Some(native) = get(core.base.sub(2), 0).as_native() else {
            return;
        };
        let Some(touch) = core
            .meter
            .races
            .and_then(|races| races.touch(native.function() as usize))
        else {
            return;
        };
        let count = (ins >> 32) as usize;
        let arguments: Vec<Value> = (0..count.min(5)).map(|i| get(core.base, i)).collect();
        touches(core, touch, &arguments);
    }
}

fn touches(core: &Core, touch: Touch, arguments: &[Value]) {
    let argument = |i: usize| arguments.get(i).copied().unwrap_or(Value::NIL);
    let integer = |i: usize| argument(i).as_number().and_then(Number::to_integer);
    let object = argument(0);
    let table = object.as_table();
    match touch {
        Touch::Get => {
            if let Some(table) = table {
                core.race_slot(table, argument(1), false, None);
            }
        }
        Touch::Set => {
            if let Some(table) = table {
                core.race_store(table, argument(1), argument(2).is_nil(), None);
            }
        }
        Touch::Length => _ = core.race_length(object),
        Touch::Next => {
            if let Some(table) = table {
                core.race_keys(table, Keys::Iterate, "");
                let nodes = Some(table.node_block()).filter(|nodes| !nodes.is_static());
                if let Some((key, _)) = table.entry_after(nodes, argument(1)) {
                    core.race_slot(table, key, false, None);
                }
            }
        }
        Touch::NextIndex => {
            if let Some(key) = integer(1).and_then(|i| Value::inline_integer(i.wrapping_add(1))) {
                core.race_get(object, key, None);
            }
        }
        Touch::GetMetatable | Touch::SetMetatable => {
            if let Some(table) = table {
                core.race_metatable(table, touch == Touch::SetMetatable);
            }
        }
        Touch::Insert => {
            let (end, last) = (core.race_length(object), arguments.len() < 3);
            let at = if last {
                end + 1
            } else {
                integer(1).unwrap_or(end + 1)
            };
            core.race_range(object, at, end, true);
            match (table, Value::inline_integer(end + 1)) {
                (Some(table), Some(key)) => core.race_store(table, key, false, None),
                _ => core.race_range(object, end + 1, end + 1, true),
            }
        }
        Touch::Remove => {
            let end = core.race_length(object);
            let at = integer(1).unwrap_or(end);
            core.race_range(object, at, end - 1, true);
            match (table, Value::inline_integer(end)) {
                (Some(table), Some(key)) if end > 0 => core.race_store(table, key, true, None),
                _ => core.race_range(object, at, at, false),
            }
        }
        Touch::Elements(first, last) => {
            let first = integer(first).unwrap_or(1);
            let last = integer(last).unwrap_or_else(|| core.race_length(object));
            core.race_range(object, first, last, false);
        }
        Touch::Sort => {
            let end = core.race_length(object);
            core.race_range(object, 1, end, true);
        }
        Touch::Move => {
            if let (Some(from), Some(to), Some(at)) = (integer(1), integer(2), integer(3)) {
                let target = if argument(4).is_nil() {
                    object
                } else {
                    argument(4)
                };
                core.race_range(object, from, to, false);
                for i in from..=to.min(from.saturating_add(ELEMENTS)) {
                    let (Some(source), Some(key)) = (
                        Value::inline_integer(i),
                        Value::inline_integer(at.wrapping_add(i - from)),
                    ) else {
                        break;
                    };
                    match (target.as_table(), table) {
                        (Some(target), Some(table)) => {
                            core.race_store(target, key, table.get(source).is_nil(), None)
                        }
                        (Some(target), None) => core.race_store(target, key, false, None),
                        (None, _) => core.race_member(target, key, true),
                    }
                }
            }
        }
        Touch::Fill => {
            let first = integer(2).unwrap_or(1);
            let last = integer(3).unwrap_or_else(|| core.race_length(object));
            core.race_range(object, first, last, true);
        }
        Touch::AtomicLoad | Touch::AtomicStore | Touch::AtomicCas => {
            atomically(core, touch, object, argument(1), argument(2))
        }
        Touch::MapGet | Touch::MapSet => {
            if let Some(map) = object.object() {
                let map = map.as_ptr() as usize;
                let part = core.race_part(argument(1));
                core.race_acquire(map, part);
                if touch == Touch::MapSet {
                    core.race_release(map, part);
                    core.race_release(map, Part::Whole);
                }
            }
        }
        Touch::MapStep => {
            if let Some(map) = crate::share::walked(object) {
                core.race_acquire(map, Part::Whole);
            }
        }
    }
}

/// An atomic operation: all of one place are in one order, and with what is not atomic they race as other accesses do.
fn atomically(core: &Core, touch: Touch, object: Value, key: Value, expected: Value) {
    if let Some(table) = object.as_table() {
        let address = table.as_ptr() as usize;
        let part = core.race_part(key);
        let stores = match touch {
            Touch::AtomicLoad => false,
            Touch::AtomicCas => table.get(key).raw_equal(expected),
            _ => true,
        };
        core.race_acquire(address, part);
        if stores {
            core.race_store(table, key, false, None);
        } else {
            core.race_slot(table, key, false, None);
        }
        core.race_release(address, part);
        return;
    }
    if !object.has_tag(Tag::Struct) {
        return;
    }
    if let Ok(place) = core.scalar_place(object, key) {
        let root = place.root.as_ptr() as usize;
        let slot = Slot::Memory(place.at as usize);
        core.race_acquire(root, Part::Of(slot));
        core.race_note(root, slot, touch != Touch::AtomicLoad, &|_| {
            format!("{}", place.what)
        });
        core.race_release(root, Part::Of(slot));
    }
}

/// The head of a function that is the body of a parallel loop.
unsafe fn enters(core: &Core, _: u64) {
    // SAFETY: a body is called with index, limit, step and latch.
    unsafe {
        if !closure_of(core.base).proto().parallel_body {
            return;
        }
        let Some((races, task)) = core.watched() else {
            return;
        };
        let is_piece = core.base == core.stack.add(2)
            && core.coroutine().is_none()
            && core
                .task
                .is_some_and(|task| !task.fields().latch.get().is_null());
        let index = get(core.base, 0).as_number();
        races.loop_begins(task, core.race_frame(core.base), is_piece, index);
    }
}

/// `PFORLOOP`: an iteration has ended.
unsafe fn steps(core: &Core, _: u64) {
    // SAFETY: the frame is that of a parallel loop's body.
    let (index, limit, step) = unsafe { (get(core.base, 0), get(core.base, 1), get(core.base, 2)) };
    let next = match (index.as_number(), limit.as_number(), step.as_number()) {
        (Some(Number::Integer(i)), Some(Number::Integer(limit)), Some(Number::Integer(by))) => i
            .checked_add(by)
            .filter(|next| {
                if by > 0 {
                    *next <= limit
                } else {
                    *next >= limit
                }
            })
            .map(Number::Integer),
        (Some(i), Some(limit), Some(by)) => {
            let next = i.to_float() + by.to_float();
            let runs = if by.to_float() > 0.0 {
                next <= limit.to_float()
            } else {
                next >= limit.to_float()
            };
            runs.then_some(Number::Float(next))
        }
        _ => None,
    };
    if let Some((races, task)) = core.watched() {
        races.iteration_ended(task, core.race_frame(core.base), next);
    }
}

/// `PJOIN`: the loop has ended, if its pieces have.
unsafe fn ends(core: &Core, ins: u64) {
    // SAFETY: the verifier proved the register.
    let latch = Gc::<Latch>::from_value(unsafe { get(core.base, a(ins as u32)) });
    if latch.is_none_or(Gc::<Latch>::is_done)
        && let Some((races, task)) = core.watched()
    {
        races.loops_ended(task, core.race_frame(core.base));
    }
}

unsafe fn is_concurrent(vm: *mut Vm) -> bool {
    // SAFETY: the core's own machine.
    unsafe { (*vm).core.meter.races }.is_some_and(Races::is_concurrent)
}

unsafe fn always(_: *mut Vm) -> bool {
    true
}

/// Lets `note` note what an instruction does.
#[inline(never)]
unsafe fn watch(
    vm: *mut Vm,
    pc: *const AtomicU32,
    base: *mut u64,
    ins: u64,
    note: unsafe fn(&Core, u64),
) {
    // SAFETY: the core's own machine, which nobody else refers to meanwhile. What slow paths and natives leave in the core is theirs to set before they look at it.
    unsafe {
        let core = &mut (*vm).core;
        core.pc = pc;
        core.base = base;
        note(core, ins);
    }
}

macro_rules! watching {
    ($($name:ident => $when:ident, $note:path;)*) => {$(
        unsafe extern "sysv64" fn $name(
            pc: *const AtomicU32,
            base: *mut u64,
            ins: u64,
            k: *const Proto,
            vm: *mut Vm,
        ) -> Exit {
            // SAFETY: as for all handlers: the arguments are handed on unchanged.
            unsafe {
                let meter: *mut Meter = &raw mut (*vm).core.meter;
                if (*meter).executed >= (*meter).stop {
                    return switch(pc, base, ins, k, vm);
                }
                (*meter).executed += 1;
                if $when(vm) {
                    watch(vm, pc, base, ins, $note);
                }
                HANDLERS[(ins & 0xff) as usize](pc, base, ins, k, vm)
            }
        }
    )*};
}

unsafe fn nothing(_: &Core, _: u64) {}

unsafe fn never(_: *mut Vm) -> bool {
    false
}

watching! {
    counted => never, nothing;
    watched_get => is_concurrent, gets;
    watched_set => is_concurrent, sets;
    watched_length => is_concurrent, lengths;
    watched_cell => is_concurrent, cells;
    watched_member => is_concurrent, members;
    watched_copy => is_concurrent, copies;
    watched_iteration => is_concurrent, iterates;
    watched_entry => is_concurrent, iterated;
    watched_native => is_concurrent, calls_native;
    watched_head => always, enters;
    watched_step => always, steps;
    watched_end => always, ends;
}

/// The handlers of a core that watches, by opcode.
pub(crate) static RACING: [Handler; 256] = {
    let mut table: [Handler; 256] = [counted; 256];
    macro_rules! fill {
        ($($handler:ident: $($op:ident)*;)*) => { $($(table[Op::$op as usize] = $handler;)*)* };
    }
    fill! {
        watched_get: GGET TGET TGETS TGETI SELF;
        watched_set: GSET TSET TSETS TSETI TSETK TSETSK TSETIK;
        watched_length: LEN;
        watched_cell: GETCELL SETCELL CELLGET CELLSET RGETCELL RSETCELL RCELLGET RCELLSET;
        watched_member: SGET SSET PGET PSET AGETI AGETF ASETI ASETF;
        watched_copy: COPYREF;
        watched_iteration: ITERCALL;
        watched_entry: ITERLOOP;
        watched_native: NATIVE;
        watched_head: FUNC FUNCV;
        watched_step: PFORLOOP;
        watched_end: PJOIN;
    }
    let mut i = intrinsic::FIRST;
    while i < 256 {
        table[i] = watched_native;
        i += 1;
    }
    table
};
