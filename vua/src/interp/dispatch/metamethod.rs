//! Metamethods that are functions: called from an instruction, and their results on the way back to it.
//!
//! These handlers stand between an instruction's own and its slow path. They call a metamethod with the frame that the slow path would make, but
//! without leaving the handlers; whatever else there may be (a metamethod that is itself called through `__call`, an error, numbers that need a box)
//! takes the slow path from the instruction's start.

use super::*;
use crate::bytecode::instructions::is_extended;
use crate::engine::Metamethod;
use crate::interp::core_state::Step;
use crate::interp::frame::Continuation;
use crate::interp::operate::metamethod_of;

/// Calls a function from the instruction before `pc`, above the frame: there is always room for that.
macro_rules! call_metamethod {
    ($function:expr, [$($argument:expr),*], $then:expr, $pc:ident, $base:ident, $k:ident, $vm:ident) => {{
        let function: Value = $function;
        let distance = (*$k).registers as usize + 3;
        let callee = $base.add(distance);
        *callee.sub(3) = $pc.expose_provenance() as u64;
        put(callee.sub(2), 0, function);
        *callee.sub(1) = Link::Metamethod { distance, then: $then, operand: 0 }.encode();
        let mut n = 0;
        $(
            put(callee, n, $argument);
            n += 1;
        )*
        let closure: *const Closure = function.address().cast();
        next!((*closure).entry, callee, (*closure).proto.as_ptr(), $vm, n)
    }};
}

/// The operands of a tagged binary operator.
#[inline(always)]
unsafe fn operands(ins: u64, base: *const u64, k: *const Proto) -> (Value, Value) {
    let op = ins & 0xff;
    // SAFETY: the verifier proved the operands.
    unsafe {
        if op >= Op::KADD as u64 {
            (constant(k, b(ins)), get(base, c(ins)))
        } else if op >= Op::ADDK as u64 {
            (get(base, b(ins)), constant(k, c(ins)))
        } else {
            (get(base, b(ins)), get(base, c(ins)))
        }
    }
}

/// The function that is a binary operator's metamethod for two operands that are not both numbers; `None` if it is anything else.
#[inline(never)]
unsafe fn binary_function(vm: *mut Vm, x: Value, y: Value, event: Metamethod) -> Option<Value> {
    if x.is_number() && y.is_number() {
        return None;
    }
    // SAFETY: the core's own machine.
    let handler = unsafe { (*vm).core.program.binary_metamethod(x, y, event) };
    handler.has_tag(Tag::Function).then_some(handler)
}

/// The function that `__index` or `__newindex` is for a key that an object has not, and the object that it is called with: that one, or one that
/// its metatables lead to.
#[inline(never)]
unsafe fn access_function(
    vm: *mut Vm,
    object: Value,
    key: Value,
    event: Metamethod,
) -> Option<(Value, Value)> {
    let mut object = object;
    for _ in 0..CHAIN {
        let table = object.as_table()?;
        if !table.get(key).is_nil() {
            return None;
        }
        // SAFETY: the core's own machine.
        let handler = unsafe { (*vm).core.program.metamethod(object, event) };
        if handler.has_tag(Tag::Function) {
            return Some((handler, object));
        }
        object = handler;
    }
    None
}

/// The object and the key of an access to a table.
#[inline(always)]
unsafe fn accessed(
    ins: u64,
    pc: *const AtomicU32,
    base: *const u64,
    k: *const Proto,
) -> (Value, Value) {
    let op = ins & 0xff;
    // SAFETY: the verifier proved the operands, and the constant of a field's name.
    unsafe {
        let is = |ops: &[Op]| ops.iter().any(|is| *is as u64 == op);
        if is(&[Op::GGET, Op::GSET]) {
            (closure_of(base).capture(0), field(pc, k))
        } else if is(&[Op::TGETS, Op::SELF, Op::TSETS, Op::TSETSK]) {
            (get(base, b(ins)), field(pc, k))
        } else if is(&[Op::TGETI, Op::TSETI, Op::TSETIK]) {
            (get(base, b(ins)), Value::small(c(ins) as i32))
        } else {
            (get(base, b(ins)), get(base, c(ins)))
        }
    }
}

/// The name of a field, in the extension word at `pc`.
#[inline(always)]
unsafe fn field(pc: *const AtomicU32, k: *const Proto) -> Value {
    // SAFETY: the verifier proved that the word is an extension and its constant there.
    unsafe { constant(k, (word_at(pc) & 0xffff) as usize) }
}

handlers! {
    /// A tagged binary operator on what are not two numbers.
    #[cold]
    #[inline(never)]
    operated(ins, pc, base, k, vm) {
        let (x, y) = operands(ins, base, k);
        if let Some(op) = Op::of(ins as u32) && let Some(function) = binary_function(vm, x, y, metamethod_of(op)) {
            call_metamethod!(function, [x, y], Continuation::Store, pc, base, k, vm)
        }
        slow!(slow_binary, ins, pc, base, k, vm)
    }
    /// `<` and `<=` of two registers, and their negations, on what are neither two numbers nor two strings.
    #[cold]
    #[inline(never)]
    ordered(ins, pc, base, k, vm) {
        let op = ins & 0xff;
        let (x, y) = (get(base, a(ins)), get(base, d(ins)));
        let event = if op == Op::ISLE as u64 || op == Op::ISNLE as u64 { Metamethod::Le } else { Metamethod::Lt };
        let then = if op == Op::ISLT as u64 || op == Op::ISLE as u64 { Continuation::Condition } else { Continuation::NegatedCondition };
        if let Some(function) = binary_function(vm, x, y, event) {
            call_metamethod!(function, [x, y], then, pc, base, k, vm)
        }
        slow!(slow_compare, ins, pc, base, k, vm)
    }
    /// `==` and `~=` of what are not the same.
    #[cold]
    #[inline(never)]
    equated(ins, pc, base, k, vm) {
        let op = ins & 0xff;
        if op == Op::ISEQ as u64 || op == Op::ISNE as u64 {
            let (x, y) = (get(base, a(ins)), get(base, d(ins)));
            let then = if op == Op::ISEQ as u64 { Continuation::Condition } else { Continuation::NegatedCondition };
            if x.has_tag(Tag::Table) && y.has_tag(Tag::Table) && let Some(function) = binary_function(vm, x, y, Metamethod::Eq) {
                call_metamethod!(function, [x, y], then, pc, base, k, vm)
            }
        }
        slow!(slow_compare, ins, pc, base, k, vm)
    }
    /// Reads of what a table, or those that its metatables lead to, has not.
    #[cold]
    #[inline(never)]
    indexed(ins, pc, base, k, vm) {
        let (object, key) = accessed(ins, pc, base, k);
        if let Some((function, object)) = access_function(vm, object, key, Metamethod::Index) {
            call_metamethod!(function, [object, key], Continuation::Store, pc, base, k, vm)
        }
        slow!(slow_get, ins, pc, base, k, vm)
    }
    /// Stores of what a table, or those that its metatables lead to, has not.
    #[cold]
    #[inline(never)]
    assigned(ins, pc, base, k, vm) {
        let (object, key) = accessed(ins, pc, base, k);
        if let Some((function, object)) = access_function(vm, object, key, Metamethod::Newindex) {
            let op = ins & 0xff;
            let value = if op >= Op::TSETK as u64 && op <= Op::TSETIK as u64 { constant(k, a(ins)) } else { get(base, a(ins)) };
            call_metamethod!(function, [object, key, value], Continuation::Discard, pc, base, k, vm)
        }
        slow!(slow_set, ins, pc, base, k, vm)
    }
    /// Results that go to no plain call: to an instruction that called a metamethod, or to a native that goes on.
    #[inline(never)]
    return_elsewhere(ins, pc, base, k, vm) {
        let mut frame = base;
        if let Link::Variadic { distance } = Link::decode(*frame.sub(1)) {
            frame = frame.sub(distance);
        }
        let given = results(vm, ins);
        let from = base.add(a(ins));
        match Link::decode(*frame.sub(1)) {
            Link::Metamethod { distance, then, .. } => {
                let value = if given == 0 { Value::NIL } else { get(from, 0) };
                let after: *const AtomicU32 = core::ptr::with_exposed_provenance(*frame.sub(3) as usize);
                let caller = frame.sub(distance);
                let k = proto_of(caller);
                match then {
                    Continuation::Store | Continuation::Discard => {
                        let word = word_at(after.sub(1));
                        if then == Continuation::Store {
                            put(caller, a(word), value);
                        }
                        let after = if is_extended(word as u32) { after.add(1) } else { after };
                        next!(after, caller, k, vm)
                    }
                    Continuation::Condition => branch!(value.is_truthy(), after, caller, k, vm),
                    Continuation::NegatedCondition => branch!(!value.is_truthy(), after, caller, k, vm),
                    _ => slow!(slow_return, ins, pc, base, k, vm),
                }
            }
            Link::Native { distance, state, count, .. } => {
                let native = frame.sub(distance);
                let slots = distance - 2 + given;
                if !fits(vm, native, slots) {
                    slow!(slow_return, ins, pc, base, k, vm)
                }
                // Upwards, since results come from above where they go.
                let to = frame.sub(2);
                let mut i = 0;
                while i < given {
                    *to.add(i) = *from.add(i);
                    i += 1;
                }
                (*vm).core.step = Step { count, state, results: given, failed: false, slots };
                let (pc, base) = run_native_again(vm, native);
                if pc.is_null() {
                    slow!(leave, ins, pc, base, k, vm)
                }
                next!(pc, base, proto_of(base), vm, (*vm).core.n)
            }
            Link::Bottom => {
                let core = &mut (*vm).core;
                core.base = base;
                if let Some((pc, base)) = core.return_to_joiner(from, given) {
                    next!(pc, base, proto_of(base), vm)
                }
                slow!(slow_return, ins, pc, base, k, vm)
            }
            _ => slow!(slow_return, ins, pc, base, k, vm),
        }
    }
}
