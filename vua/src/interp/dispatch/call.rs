//! Calls, returns, natives, extra arguments, and the calls that `for … in` makes.

use core::sync::atomic::Ordering;

use super::*;
use crate::interp::core_state::NO_STEP;
use crate::interp::core_state::Step;
use crate::interp::native::{Call, NativeFn, Next};
use crate::object::NativeFunction;
use crate::table::NodeBlock;

/// Calls the function in a register, which is one, with so many arguments.
macro_rules! enter {
    ($n:expr, $ins:ident, $pc:ident, $base:ident, $vm:ident) => {{
        let function = get($base, a($ins));
        let callee = $base.add(a($ins) + 2);
        *callee.sub(1) = Link::Vua($pc).encode();
        let closure: *const Closure = function.address().cast();
        next!((*closure).entry, callee, (*closure).proto.as_ptr(), $vm, $n)
    }};
}

/// Whether a frame of so many registers at `base` fits the stack, with the slots that are free above every frame.
#[inline(always)]
pub(super) unsafe fn fits(vm: *mut Vm, base: *mut u64, registers: usize) -> bool {
    // SAFETY: the core's own machine; an address is computed, not followed.
    unsafe { base.wrapping_add(registers + SLACK) <= (*vm).core.stack_end }
}

/// Sets slots from `slot` to `end` to nil: two at a time and perhaps one too many, which is above a frame.
#[inline(always)]
unsafe fn clear(slot: *mut u64, end: *mut u64) {
    let mut slot = slot;
    while slot < end {
        // SAFETY: above every frame slots are free.
        unsafe {
            *slot = Value::NIL.to_bits();
            *slot.add(1) = Value::NIL.to_bits();
            slot = slot.add(2);
        }
    }
}

/// Whether the value in a register is a native function.
#[inline(always)]
unsafe fn is_native(register: *mut u64) -> bool {
    // SAFETY: every function has a head that it begins with: `FUNC`, `FUNCV`, or behind those a native's, which may be an intrinsic's.
    unsafe {
        if !Value::has_tag_at(register, Tag::Function) {
            return false;
        }
        let closure: *const Closure = get(register, 0).address().cast();
        word_at((*closure).entry) & 0xff >= Op::NATIVE as u64
    }
}

/// How many results a return instruction gives.
#[inline(always)]
pub(super) unsafe fn results(vm: *mut Vm, ins: u64) -> usize {
    let op = ins & 0xff;
    if op == Op::RET1 as u64 {
        1
    } else if op == Op::RETM as u64 {
        // SAFETY: the core's own machine.
        d(ins) + unsafe { (*vm).core.open }
    } else {
        // `RET0` has an operand of 0.
        d(ins)
    }
}

handlers! {
    call(ins, pc, base, k, vm) {
        if Value::has_tag_at(base.add(a(ins)), Tag::Function) {
            enter!(b(ins), ins, pc, base, vm)
        }
        slow!(slow_call, ins, pc, base, k, vm)
    }
    callm(ins, pc, base, k, vm) {
        if Value::has_tag_at(base.add(a(ins)), Tag::Function) {
            enter!(b(ins) + (*vm).core.open, ins, pc, base, vm)
        }
        slow!(slow_call, ins, pc, base, k, vm)
    }
    tail(ins, pc, base, k, vm) {
        if is_native(base.add(a(ins))) {
            // A native is called from here, as in Lua, so that its errors find this function; the next instruction returns its results.
            let n = if ins & 0xff == Op::TCALLM as u64 { d(ins) + (*vm).core.open } else { d(ins) };
            enter!(n, ins, pc, base, vm)
        }
        // A variadic function's frame is to go to where its extra arguments begin.
        if Value::has_tag_at(base.add(a(ins)), Tag::Function) && *base.sub(1) & 3 != 3 {
            let function = get(base, a(ins));
            let n = if ins & 0xff == Op::TCALLM as u64 { d(ins) + (*vm).core.open } else { d(ins) };
            put(base.sub(2), 0, function);
            let from = base.add(a(ins) + 2);
            let mut i = 0;
            while i < n {
                *base.add(i) = *from.add(i);
                i += 1;
            }
            let closure: *const Closure = function.address().cast();
            next!((*closure).entry, base, (*closure).proto.as_ptr(), vm, n)
        }
        slow!(slow_tail, ins, pc, base, k, vm)
    }

    func(ins, pc, base, k, vm) {
        let registers = a(ins);
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 || !fits(vm, base, registers) {
            slow!(slow_enter, ins, pc, base, k, vm)
        }
        let (given, parameters) = ((ins >> 32) as usize, d(ins));
        clear(base.add(if given < parameters { given } else { parameters }), base.add(registers));
        next!(pc, base, k, vm)
    }
    #[inline(never)]
    funcv(ins, pc, base, k, vm) {
        let (registers, parameters, given) = (a(ins), d(ins), (ins >> 32) as usize);
        let distance = given + 2;
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 || !fits(vm, base, distance + registers) {
            slow!(slow_variadic, ins, pc, base, k, vm)
        }
        let high = base.add(distance);
        *high.sub(2) = *base.sub(2);
        *high.sub(1) = Link::Variadic { distance }.encode();
        let mut i = 0;
        while i < parameters && i < given {
            *high.add(i) = *base.add(i);
            *base.add(i) = Value::NIL.to_bits();
            i += 1;
        }
        clear(high.add(i), high.add(registers));
        next!(pc, high, k, vm)
    }
    #[inline(never)]
    varg(ins, pc, base, k, vm) {
        // Only variadic functions have this instruction, so the link says how far down the arguments are.
        if let Link::Variadic { distance } = Link::decode(*base.sub(1)) {
            let parameters = (*k).parameters as usize;
            let extra = (distance - 2).saturating_sub(parameters);
            let wanted = if d(ins) == 0 { extra } else { d(ins) - 1 };
            if fits(vm, base, a(ins) + wanted) {
                let (from, to) = (base.sub(distance).add(parameters), base.add(a(ins)));
                let mut i = 0;
                while i < wanted {
                    *to.add(i) = if i < extra { *from.add(i) } else { Value::NIL.to_bits() };
                    i += 1;
                }
                if d(ins) == 0 {
                    (*vm).core.open = extra;
                }
                next!(pc, base, k, vm)
            }
        }
        slow!(slow_vararg, ins, pc, base, k, vm)
    }

    ret0(ins, pc, base, k, vm) {
        if let Link::Vua(after) = Link::decode(*base.sub(1)) {
            let call = word_at(after.sub(1));
            if c(call) == 1 {
                let caller = base.sub(2 + a(call));
                next!(after, caller, proto_of(caller), vm)
            }
        }
        slow!(return_some, ins, pc, base, k, vm)
    }
    ret1(ins, pc, base, k, vm) {
        if let Link::Vua(after) = Link::decode(*base.sub(1)) {
            let call = word_at(after.sub(1));
            if c(call) == 2 {
                *base.sub(2) = *base.add(a(ins));
                let caller = base.sub(2 + a(call));
                next!(after, caller, proto_of(caller), vm)
            }
        }
        slow!(return_some, ins, pc, base, k, vm)
    }
    /// Any number of results to a plain call that wants any number.
    #[inline(never)]
    return_some(ins, pc, base, k, vm) {
        let mut frame = base;
        if *frame.sub(1) & 7 == 7 && let Link::Variadic { distance } = Link::decode(*frame.sub(1)) {
            frame = frame.sub(distance);
        }
        if let Link::Vua(after) = Link::decode(*frame.sub(1)) {
            let call = word_at(after.sub(1));
            let given = results(vm, ins);
            let (from, to) = (base.add(a(ins)), frame.sub(2));
            let wanted = if c(call) == 0 {
                (*vm).core.open = given;
                given
            } else {
                c(call) - 1
            };
            // Upwards, since results come from above where they go.
            let mut i = 0;
            while i < wanted {
                *to.add(i) = if i < given { *from.add(i) } else { Value::NIL.to_bits() };
                i += 1;
            }
            let caller = frame.sub(2 + a(call));
            next!(after, caller, proto_of(caller), vm)
        }
        slow!(return_elsewhere, ins, pc, base, k, vm)
    }

    #[inline(never)]
    native(ins, pc, base, k, vm) {
        let n = (ins >> 32) as usize;
        if a(ins) == 0 && (*vm).control.poll.load(Ordering::Relaxed) == 0 && fits(vm, base, n) {
            let (pc, base) = run_native(vm, pc, base, n);
            if pc.is_null() {
                slow!(leave, ins, pc, base, k, vm)
            }
            next!(pc, base, proto_of(base), vm, (*vm).core.n)
        }
        slow!(slow_native, ins, pc, base, k, vm)
    }
    /// After a native whose step asked to leave the interpreter.
    #[cold]
    leave(ins, pc, base, k, vm) {
        (*vm).core.left
    }

    #[inline(never)]
    itercall(ins, pc, base, k, vm) {
        let window = base.add(a(ins));
        if iterate(window, c(ins)) {
            next!(pc, base, k, vm)
        }
        slow!(slow_iterate, ins, pc, base, k, vm)
    }
}

/// Runs a native's first step in the frame at `base`; where to go on: the next instruction and register 0, or null to leave with [`Core::left`].
///
/// One result, no result or some for a plain call are delivered here, and a function is called; all else is for [`Core::after_native`].
#[inline(never)]
unsafe fn run_native(
    vm: *mut Vm,
    pc: *const AtomicU32,
    base: *mut u64,
    count: usize,
) -> (*const AtomicU32, *mut u64) {
    let step = Step {
        count,
        slots: count,
        ..Step::default()
    };
    // SAFETY: as the caller says.
    unsafe { run_step(vm, pc, base, step) }
}

/// Runs a native's later step, [`Core::step`], as [`run_native`] does the first.
#[inline(never)]
pub(super) unsafe fn run_native_again(vm: *mut Vm, base: *mut u64) -> (*const AtomicU32, *mut u64) {
    // SAFETY: as the caller says.
    unsafe { run_step(vm, calls::resumed(), base, (*vm).core.step) }
}

/// Runs a native's step in the frame at `base`, which has room for it.
#[inline(always)]
unsafe fn run_step(
    vm: *mut Vm,
    pc: *const AtomicU32,
    base: *mut u64,
    step: Step,
) -> (*const AtomicU32, *mut u64) {
    // SAFETY: the core's own machine; the function in a native's frame is a native function, and its word the address of a `NativeFn`.
    unsafe {
        let core = &mut (*vm).core;
        core.pc = pc;
        core.base = base;
        core.slots = step.slots;
        let native: *const NativeFunction = get(base.sub(2), 0).address().cast();
        let function = core::mem::transmute::<*const (), NativeFn>((*native).function);
        let mut call = Call {
            core,
            count: step.count,
            state: step.state,
            results: step.results,
            failed: step.failed,
        };
        let next = function(&mut call);
        let state = call.state;
        let slots = core::mem::replace(&mut core.slots, NO_STEP);
        // The stack may have moved.
        let base = core.base;
        if let Ok(Next::Call {
            at,
            arguments,
            state,
            protected,
        }) = next
            && Value::has_tag_at(base.add(at), Tag::Function)
        {
            let callee = calls::link_to_native(base, at, protected, state, step.count);
            core.n = arguments;
            let closure: *const Closure = get(base, at).address().cast();
            return ((*closure).entry, callee);
        }
        if let Ok(Next::Become(function)) = next
            && function.has_tag(Tag::Function)
        {
            put(base.sub(2), 0, function);
            core.n = step.count;
            let closure: *const Closure = function.address().cast();
            return ((*closure).entry, base);
        }
        if let Ok(Next::RunInPlace { task, state }) = next {
            let step = Step {
                state,
                slots,
                ..step
            };
            core.run_in_place(task, step);
            return (core.pc, core.base);
        }
        if let Link::Vua(after) = Link::decode(*base.sub(1)) {
            let call = word_at(after.sub(1));
            let to = base.sub(2);
            let given = match &next {
                Ok(Next::One(value)) => {
                    put(to, 0, *value);
                    Some((to, 1))
                }
                Ok(Next::Nothing) => Some((to, 0)),
                Ok(Next::Many { at, count }) => Some((base.add(*at), *count)),
                _ => None,
            };
            if let Some((from, given)) = given {
                let wanted = if c(call) == 0 {
                    core.open = given;
                    given
                } else {
                    c(call) - 1
                };
                let mut i = 0;
                while i < wanted {
                    *to.add(i) = if i < given {
                        *from.add(i)
                    } else {
                        Value::NIL.to_bits()
                    };
                    i += 1;
                }
                return (after, base.sub(2 + a(call)));
            }
        }
        let step = Step {
            state,
            slots,
            ..step
        };
        let exit = match core.after_native(next, step) {
            Ok(()) => None,
            Err(leave) => core.leave(leave),
        };
        match exit {
            None => (core.pc, core.base),
            Some(exit) => {
                core.left = exit;
                (core::ptr::null(), base)
            }
        }
    }
}

/// A step of `for … in` over `next` or the indices of `ipairs` on a table, in place; `false`, and nothing done, if something is to be called or waited for.
#[inline(never)]
unsafe fn iterate(window: *mut u64, wanted: usize) -> bool {
    // SAFETY: the verifier proved the window, four registers below it included.
    unsafe {
        if !Value::has_tag_at(window.sub(3), Tag::Table) {
            return false;
        }
        let table: Gc<Table> = Gc::from_value_unchecked(get(window.sub(3), 0));
        let (iterator, control) = (get(window.sub(4), 0), get(window.sub(2), 0));
        let (key, value) = if let Some(native) = iterator.as_native() {
            let function = native.function();
            let dense = table.dense_block();
            if function == crate::library::base::next_index as NativeFn as *const () {
                let Some(index) = Value::index_at(window.sub(2)) else {
                    return false;
                };
                let value = if index < dense.length() {
                    dense.get(index as usize)
                } else if table.node_block().is_static() && !table.is_shared() {
                    Value::NIL
                } else {
                    return false;
                };
                if value.is_nil() {
                    if table.header().has(flags::METATABLE) {
                        return false;
                    }
                    // All results become nil: the verifier lets what follows the loop read them.
                    for i in 0..wanted.saturating_sub(1).max(1) {
                        put(window, i, value);
                    }
                    return true;
                }
                (Value::small((index + 1) as i32), value)
            } else if function == crate::library::base::next as NativeFn as *const ()
                && table.node_block().is_static()
                && let Some(entry) = table.entry_after(None, control)
            {
                entry
            } else {
                return false;
            }
        } else {
            let Some(nodes) = Gc::<NodeBlock>::from_value(iterator) else {
                return false;
            };
            match table.entry_after(Some(nodes), control) {
                Some(entry) => entry,
                None => return false,
            }
        };
        put(window, 0, key);
        if wanted == 3 {
            put(window, 1, value);
            return true;
        }
        let mut i = 1;
        while i + 1 < wanted {
            put(window, i, if i == 1 { value } else { Value::NIL });
            i += 1;
        }
        true
    }
}
