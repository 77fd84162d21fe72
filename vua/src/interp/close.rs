//! Variables that are closed when their block ends (Lua 5.4 manual, 3.3.8).
//!
//! A task has a list of the stack slots of such variables, innermost last. `CLOSE` takes those of its registers off the list one by one and calls
//! their `__close`, running again after each. An error that unwinds does the same for every slot above whoever catches it.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::core_state::{Core, Vm};
use super::dispatch::{closure_of, get, put};
use super::frame::{Continuation, Frame, Link};
use super::throw::{Flow, fail};
use crate::bytecode::Op;
use crate::bytecode::instructions::{a, d};
use crate::engine::Metamethod;
use crate::value::Value;

impl Core {
    fn closing_list(&mut self) -> Option<&mut Vec<usize>> {
        let task = self.task?;
        // SAFETY: null, or a list that the running task owns and this core alone uses.
        unsafe { task.fields().closing.get().as_mut() }
    }

    /// Takes the innermost variable to be closed off the list, if it is at `lowest` or above.
    fn pop_closing(&mut self, lowest: *mut u64) -> Option<*mut u64> {
        // SAFETY: slots are on the running task's stack.
        let limit = unsafe { lowest.offset_from(self.stack) } as usize;
        let stack = self.stack;
        let list = self.closing_list()?;
        let slot = list.pop_if(|slot| *slot >= limit)?;
        self.to_close = list.len();
        // SAFETY: as above.
        Some(unsafe { stack.add(slot) })
    }

    /// While an error, or a cancellation if it is `None`, unwinds to the frame at `catcher`: calls the `__close` of the innermost variable above it.
    pub(crate) fn leave_variables(
        &mut self,
        innermost: Frame,
        catcher: *mut u64,
        error: Option<Value>,
    ) -> Option<Flow> {
        match error {
            Some(error) => {
                self.close_while_unwinding(innermost, catcher, error, Continuation::Unwind)
            }
            None => {
                let error = self.engine.cancelled_text();
                self.close_while_unwinding(innermost, catcher, error, Continuation::UnwindCancelled)
            }
        }
    }

    /// While an error unwinds to the frame at `catcher`: calls the `__close` of the innermost variable above it, and then goes on as `then`
    /// says. `None` if there is none.
    pub(crate) fn close_while_unwinding(
        &mut self,
        innermost: Frame,
        catcher: *mut u64,
        error: Value,
        then: Continuation,
    ) -> Option<Flow> {
        let slot = self.pop_closing(catcher)?;
        // The frame that the variable belongs to, and where it stands.
        let mut frame = innermost;
        // SAFETY: frames are those of the running task's stack, the variable's among them.
        unsafe {
            while frame.base > slot || self.frame_proto(frame).is_none() {
                frame = frame.caller()?;
            }
            self.base = frame.base;
            self.pc = frame.pc;
            let value = get(slot, 0);
            let handler = self.program.metamethod(value, Metamethod::Close);
            let distance = closure_of(self.base).proto().registers as usize + 4;
            let callee = self.base.add(distance);
            put(callee.sub(4), 0, error);
            *callee.sub(3) = self.pc.expose_provenance() as u64;
            put(callee.sub(2), 0, handler);
            *callee.sub(1) = Link::Metamethod {
                distance,
                then,
                operand: 0,
            }
            .encode();
            put(callee, 0, value);
            put(callee, 1, error);
            Some(self.enter_function(callee, 2))
        }
    }
}

/// `TBC` of a value that is neither nil nor false.
pub(super) fn mark(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the register.
    let slot = unsafe { core.base.add(a(ins)) };
    // SAFETY: as above.
    let value = unsafe { get(slot, 0) };
    if core.program.metamethod(value, Metamethod::Close).is_nil() {
        let name = core.closing_name(a(ins));
        return fail(format!("variable '{name}' got a non-closable value"));
    }
    let Some(task) = core.task else { return Ok(()) };
    if task.fields().closing.get().is_null() {
        task.fields()
            .closing
            .set(Box::into_raw(Box::new(Vec::new())));
    }
    // SAFETY: slots are on the running task's stack.
    let offset = unsafe { slot.offset_from(core.stack) } as usize;
    let length = core.closing_list().map_or(0, |list| {
        list.push(offset);
        list.len()
    });
    core.to_close = length;
    Ok(())
}

/// `CLOSE` while something is to be closed. Before a `RETM` the open results stay where they are, and the call is made above them.
pub(super) fn close(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the register.
    let lowest = unsafe { core.base.add(a(ins)) };
    let Some(slot) = core.pop_closing(lowest) else {
        return Ok(());
    };
    // SAFETY: the slot is in the frame.
    let value = unsafe { get(slot, 0) };
    let handler = core.program.metamethod(value, Metamethod::Close);
    // SAFETY: an instruction follows every `CLOSE`.
    let next = unsafe { (*core.pc).load(Ordering::Relaxed) };
    if Op::of(next) != Some(Op::RETM) {
        return core.call_metamethod(handler, &[value, Value::NIL], Continuation::Again, 0);
    }
    // SAFETY: the open results end there; `ensure_base` makes room for the call above them.
    unsafe {
        let registers = closure_of(core.base).proto().registers as usize;
        let distance = registers.max(a(next) + d(next) + core.open) + 4;
        core.ensure_base(distance)?;
        let callee = core.base.add(distance);
        put(
            callee.sub(4),
            0,
            Value::inline_integer(core.open as i64).unwrap_or(Value::NIL),
        );
        *callee.sub(3) = core.pc.expose_provenance() as u64;
        put(callee.sub(2), 0, handler);
        *callee.sub(1) = Link::Metamethod {
            distance,
            then: Continuation::AgainOpen,
            operand: 0,
        }
        .encode();
        put(callee, 0, value);
        put(callee, 1, Value::NIL);
        core.enter_function(callee, 2)
    }
}
