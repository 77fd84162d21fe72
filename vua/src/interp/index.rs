//! Reads and writes of tables off the fast path: metatables, new keys, shared tables, errors.

use alloc::format;
use core::sync::atomic::Ordering;

use super::core_state::{Core, Vm};
use super::dispatch::{Exit, closure_of, get as register, put};
use super::frame::Continuation;
use super::memory::Found;
use super::throw::{Flow, Leave, fail};
use crate::bytecode::instructions::{Op, a, b, c, d};
use crate::engine::Metamethod;
use crate::heap::{barrier, flags};
use crate::object::{Cell, Gc};
use crate::table::{GrowthStart, SetError, Table};
use crate::task::WaitFor;
use crate::value::{Tag, Value};

/// How many metatables an access follows before it takes them for a cycle, as in Lua.
const MAX_CHAIN: usize = 2000;

impl Core {
    fn extension(&self) -> u32 {
        // SAFETY: the caller's instruction has an extension word at `pc`.
        unsafe { (*self.pc).load(Ordering::Relaxed) }
    }

    fn field_constant(&self) -> Value {
        // SAFETY: the verifier proved the constant's index.
        unsafe {
            *closure_of(self.base)
                .proto()
                .constants
                .add((self.extension() & 0xffff) as usize)
        }
    }
}

/// `GGET`, `TGET`, `TGETS`, `TGETI`, `SELF`.
pub(super) fn get(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let Some(op) = Op::of(ins) else {
        unreachable!("the handler knows its instruction")
    };
    // SAFETY: the verifier proved the operands.
    let (object, key, extended) = unsafe {
        match op {
            Op::GGET => (
                closure_of(core.base).capture(0),
                core.field_constant(),
                true,
            ),
            Op::TGETS | Op::SELF => (register(core.base, b(ins)), core.field_constant(), true),
            Op::TGETI => (
                register(core.base, b(ins)),
                Value::small(c(ins) as i32),
                false,
            ),
            _ => (
                register(core.base, b(ins)),
                register(core.base, c(ins)),
                false,
            ),
        }
    };
    let mut object = object;
    for followed in 0..MAX_CHAIN {
        let handler = if object.has_tag(Tag::Struct) {
            match core.memory_get(object, key)? {
                Found::Value(value) => {
                    // SAFETY: as above.
                    unsafe {
                        put(core.base, a(ins), value);
                        if extended {
                            core.pc = core.pc.add(1);
                        }
                    }
                    return Ok(());
                }
                Found::Handler(handler) => handler,
            }
        } else if let Some(table) = object.as_table() {
            let value = table.get(key);
            let handler = if value.is_nil() {
                core.program.metamethod(object, Metamethod::Index)
            } else {
                Value::NIL
            };
            if handler.is_nil() {
                // SAFETY: as above.
                unsafe {
                    put(core.base, a(ins), value);
                    if extended {
                        core.pc = core.pc.add(1);
                    }
                }
                return Ok(());
            }
            handler
        } else {
            let handler = core.program.metamethod(object, Metamethod::Index);
            if handler.is_nil() {
                let named = match op {
                    // What a metatable led to has no name.
                    _ if followed > 0 => alloc::string::String::new(),
                    Op::GGET => alloc::string::String::from(" (upvalue '_ENV')"),
                    _ => core.variable(Some(b(ins))),
                };
                return fail(index_error(core, object, &named));
            }
            handler
        };
        if handler.as_closure().is_some() || handler.as_native().is_some() {
            return core.call_metamethod(handler, &[object, key], Continuation::Store, 0);
        }
        object = handler;
    }
    fail("'__index' chain too long; possibly a loop".into())
}

/// The message of an index into something that has none.
fn index_error(core: &Core, object: Value, named: &str) -> alloc::string::String {
    format!(
        "attempt to index a {} value{}",
        core.program.type_name(object),
        named
    )
}

/// `GSET`, `TSET`, `TSETS`, `TSETI`, and those that store a constant.
pub(super) fn set(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let Some(op) = Op::of(ins) else {
        unreachable!("the handler knows its instruction")
    };
    // SAFETY: the verifier proved the operands.
    let (object, key, value, extended) = unsafe {
        let value = match op {
            Op::TSETK | Op::TSETSK | Op::TSETIK => {
                *closure_of(core.base).proto().constants.add(a(ins))
            }
            _ => register(core.base, a(ins)),
        };
        match op {
            Op::GSET => (
                closure_of(core.base).capture(0),
                core.field_constant(),
                value,
                true,
            ),
            Op::TSETS | Op::TSETSK => (
                register(core.base, b(ins)),
                core.field_constant(),
                value,
                true,
            ),
            Op::TSETI | Op::TSETIK => (
                register(core.base, b(ins)),
                Value::small(c(ins) as i32),
                value,
                false,
            ),
            _ => (
                register(core.base, b(ins)),
                register(core.base, c(ins)),
                value,
                false,
            ),
        }
    };
    let mut object = object;
    for followed in 0..MAX_CHAIN {
        let handler = if object.has_tag(Tag::Struct) {
            match core.memory_set(object, key, value)? {
                Found::Value(_) => {
                    if extended {
                        // SAFETY: the extension word is skipped.
                        core.pc = unsafe { core.pc.add(1) };
                    }
                    return Ok(());
                }
                Found::Handler(handler) => handler,
            }
        } else if let Some(table) = object.as_table() {
            let handler = if table.header().has(flags::METATABLE) && table.get(key).is_nil() {
                core.program.metamethod(object, Metamethod::Newindex)
            } else {
                Value::NIL
            };
            if handler.is_nil() {
                return match store(core, table, key, value)? {
                    Stored::Done => {
                        if extended {
                            // SAFETY: the extension word is skipped.
                            vm.core.pc = unsafe { vm.core.pc.add(1) };
                        }
                        Ok(())
                    }
                    Stored::Wait(until) => {
                        // The instruction runs again when the table has grown.
                        // SAFETY: `pc` is behind the instruction.
                        vm.core.pc = unsafe { vm.core.pc.sub(1) };
                        vm.core.wait = Some(until);
                        Err(Leave::Exit(Exit::Waiting))
                    }
                };
            }
            handler
        } else {
            let handler = core.program.metamethod(object, Metamethod::Newindex);
            if handler.is_nil() {
                let named = match op {
                    _ if followed > 0 => alloc::string::String::new(),
                    Op::GSET => alloc::string::String::from(" (upvalue '_ENV')"),
                    _ => core.variable(Some(b(ins))),
                };
                return fail(index_error(core, object, &named));
            }
            handler
        };
        if handler.as_closure().is_some() || handler.as_native().is_some() {
            return core.call_metamethod(handler, &[object, key, value], Continuation::Discard, 0);
        }
        object = handler;
    }
    fail("'__newindex' chain too long; possibly a loop".into())
}

/// Whether a store was made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored {
    /// It was.
    Done,
    /// The table is growing: wait for this, then try again.
    Wait(WaitFor),
}

/// Stores into a table without metamethods: publishes what a shared table is given, logs, grows.
pub(crate) fn store(
    core: &mut Core,
    table: Gc<Table>,
    key: Value,
    value: Value,
) -> Result<Stored, Leave> {
    loop {
        let bits = table.header().flags();
        if bits & flags::LOG != 0 {
            // SAFETY: the table lives: it is in the frame.
            unsafe { barrier::before_store(table.header_ptr(), &core.heap) };
        }
        if bits & flags::SHARED != 0 {
            core.publish(value)?;
            core.publish(key)?;
        }
        match table.set(&core.heap, key, value) {
            Ok(()) => return Ok(Stored::Done),
            Err(SetError::Grow) => {
                if !table.is_shared() {
                    table.grow(&core.heap, key, &mut || core.pause())?;
                } else if let Some(until) = core.grow_shared(table)? {
                    return Ok(Stored::Wait(until));
                }
            }
            Err(SetError::Growing) => return Ok(Stored::Wait(WaitFor::Growth(table))),
            Err(SetError::NeedMemory(need)) => return Err(need.into()),
            Err(SetError::NilKey) => return fail("table index is nil".into()),
            Err(SetError::NanKey) => return fail("table index is NaN".into()),
            Err(SetError::Frozen) => return fail("attempt to modify a frozen table".into()),
        }
    }
}

impl Core {
    /// Lets a shared table grow: at once if no other core is in the middle of something, else when all have passed a safepoint, for which
    /// the task that begins the growth waits.
    pub(crate) fn grow_shared(&mut self, table: Gc<Table>) -> Result<Option<WaitFor>, Leave> {
        match table.grow_begin() {
            GrowthStart::Room => Ok(None),
            GrowthStart::Already => Ok(Some(WaitFor::Growth(table))),
            GrowthStart::Started => {
                let safepoints = self.engine.scheduler().safepoints();
                let epoch = safepoints.request();
                // This core is at a safepoint: it holds nothing but what is in the frame.
                self.worker().acknowledge();
                if safepoints.is_complete(epoch) {
                    crate::task::wait::finish_growth(self, table)?;
                    return Ok(None);
                }
                Ok(Some(WaitFor::Handshake(table)))
            }
        }
    }
}

/// `SETCELL`, `CELLSET` of a cell that is shared or to be logged.
pub(super) fn set_cell(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the operands.
    unsafe {
        let (cell, value): (Gc<Cell>, Value) = if Op::of(ins) == Some(Op::SETCELL) {
            (
                Gc::from_value_unchecked(closure_of(core.base).capture(d(ins))),
                register(core.base, a(ins)),
            )
        } else {
            (
                Gc::from_value_unchecked(register(core.base, a(ins))),
                register(core.base, d(ins)),
            )
        };
        let bits = cell.header().flags();
        if bits & flags::LOG != 0 {
            barrier::before_store(cell.header_ptr(), &core.heap);
        }
        if bits & flags::SHARED != 0 {
            core.publish(value)?;
        }
        cell.set(value);
    }
    Ok(())
}

/// `TLIST`, `TLISTM`.
pub(super) fn list(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let count = d(ins)
        + if Op::of(ins) == Some(Op::TLISTM) {
            core.open
        } else {
            0
        };
    let first = core.extension() as i64;
    // SAFETY: the verifier proved the window and that the register holds a table that was just made.
    unsafe {
        let Some(table) = register(core.base, a(ins)).as_table() else {
            return fail("table expected in a constructor".into());
        };
        if count > 0 && first == 1 {
            table.reserve_dense(&core.heap, count, &mut || core.pause())?;
        }
        for i in 0..count {
            let value = register(vm.core.base, a(ins) + 1 + i);
            let key = vm.core.heap.integer(first + i as i64)?;
            store(&mut vm.core, table, key, value)?;
        }
        table.filled((first as usize + count).saturating_sub(1));
        vm.core.pc = vm.core.pc.add(1);
    }
    Ok(())
}
