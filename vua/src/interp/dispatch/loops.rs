//! Jumps and loops.

use core::sync::atomic::Ordering;

use super::*;
use crate::task::Latch;

/// The next iteration of a parallel loop by 1 over inline integers, or its end.
macro_rules! parallel_by_one {
    ($ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident) => {
        if *$base.add(2) == Value::small(1).to_bits()
            && Value::is_inline_integer_at($base)
            && Value::is_inline_integer_at($base.add(1))
            && (*$vm).control.poll.load(Ordering::Relaxed) == 0
        {
            let index = get($base, 0);
            if index.inline_order() >= get($base, 1).inline_order() {
                next!($pc, $base, $k, $vm)
            }
            // Below the limit, so there is a next one.
            let value = index.inline_successor();
            put($base, 0, value);
            put($base, 4, value);
            next!($pc.offset(signed_d($ins)), $base, $k, $vm)
        }
    };
}

handlers! {
    jmp(ins, pc, base, k, vm) {
        next!(pc.offset(j(ins as u32)), base, k, vm)
    }
    loop_back(ins, pc, base, k, vm) {
        let pc = pc.offset(j(ins as u32));
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
            slow!(slow_poll, ins, pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }
    builtin(ins, pc, base, k, vm) {
        slow!(slow_builtin, ins, pc, base, k, vm)
    }
    tbc(ins, pc, base, k, vm) {
        if get(base, a(ins)).is_truthy() {
            slow!(slow_to_close, ins, pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }
    close(ins, pc, base, k, vm) {
        if (*vm).core.to_close != 0 {
            slow!(slow_close, ins, pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }

    forprep(ins, pc, base, k, vm) {
        let (start, limit, step) = (get(base, a(ins)), get(base, a(ins) + 1), get(base, a(ins) + 2));
        if Value::both_inline_integers(start, limit) && step.is_inline_integer() && step.inline_payload() != 0 {
            let (i, end) = (start.inline_payload(), limit.inline_payload());
            put(base, a(ins) + 3, start);
            let runs = if step.inline_payload() > 0 { i <= end } else { i >= end };
            next!(if runs { pc } else { pc.offset(signed_d(ins)) }, base, k, vm)
        }
        slow!(slow_for_prepare, ins, pc, base, k, vm)
    }
    forloop(ins, pc, base, k, vm) {
        // A step that is an inline integer, 1 here, says that index and limit are inline too: `FORPREP` saw to that. If they were not, the index
        // would still become one, whatever it was before.
        let at = base.add(a(ins));
        if *at.add(2) == Value::small(1).to_bits() {
            let (index, limit) = (get(at, 0), get(at, 1));
            if index.inline_order() >= limit.inline_order() {
                next!(pc, base, k, vm)
            }
            // Below the limit, so there is a next one.
            let value = index.inline_successor();
            put(at, 0, value);
            put(at, 3, value);
            let pc = pc.offset(signed_d(ins));
            if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                slow!(slow_poll, ins, pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        slow!(forloop_by, ins, pc, base, k, vm)
    }
    #[cold]
    #[inline(never)]
    forloop_by(ins, pc, base, k, vm) {
        let at = base.add(a(ins));
        if Value::is_inline_integer_at(at.add(2)) && get(at, 2).inline_order() > 0 {
            // As for a step of 1, but there may be no next one: past the limit, or past 48 bits, which is past the limit too.
            let (next, over) = get(at, 0).inline_order().overflowing_add(get(at, 2).inline_order());
            if over || next > get(at, 1).inline_order() {
                next!(pc, base, k, vm)
            }
            let value = Value::from_inline_order(next);
            put(at, 0, value);
            put(at, 3, value);
            let pc = pc.offset(signed_d(ins));
            if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                slow!(slow_poll, ins, pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        slow!(forloop_any, ins, pc, base, k, vm)
    }
    #[cold]
    #[inline(never)]
    forloop_any(ins, pc, base, k, vm) {
        let (index, limit, step) = (get(base, a(ins)), get(base, a(ins) + 1), get(base, a(ins) + 2));
        if Value::both_inline_integers(index, limit) && step.is_inline_integer() {
            // Three numbers of 48 bits: the sum does not overflow, and if it does not fit 48 bits it is past the limit.
            let (next, end) = (index.inline_payload() + step.inline_payload(), limit.inline_payload());
            if if step.inline_payload() > 0 { next <= end } else { next >= end } {
                let value = Value::inline_integer(next).unwrap_or(Value::NIL);
                put(base, a(ins), value);
                put(base, a(ins) + 3, value);
                let pc = pc.offset(signed_d(ins));
                if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                    slow!(slow_poll, ins, pc, base, k, vm)
                }
                next!(pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        if let (Some(index), Some(limit), Some(step)) = (index.as_float(), limit.as_float(), step.as_float()) {
            let next = index + step;
            if if step > 0.0 { next <= limit } else { limit <= next } {
                put(base, a(ins), Value::from_arithmetic(next));
                put(base, a(ins) + 3, Value::from_arithmetic(next));
                let pc = pc.offset(signed_d(ins));
                if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                    slow!(slow_poll, ins, pc, base, k, vm)
                }
                next!(pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        slow!(slow_for, ins, pc, base, k, vm)
    }
    iterloop(ins, pc, base, k, vm) {
        let control = get(base, a(ins));
        if control.is_nil() {
            next!(pc, base, k, vm)
        }
        put(base, a(ins) - 2, control);
        let pc = pc.offset(signed_d(ins));
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
            slow!(slow_poll, ins, pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }
    pforprep(ins, pc, base, k, vm) {
        // Over inline integers by 1, once at least, while every core is busy, and not in a coroutine.
        let at = base.add(a(ins));
        if Value::is_inline_integer_at(at.add(2))
            && Value::is_inline_integer_at(at.add(3))
            && *at.add(4) == Value::small(1).to_bits()
            && get(at, 2).inline_order() <= get(at, 3).inline_order()
            && (*vm).core.begins_loop_at_once()
        {
            put(at, 5, Value::NIL);
            next!(pc, base, k, vm)
        }
        slow!(slow_parallel_prepare, ins, pc, base, k, vm)
    }
    pforloop(ins, pc, base, k, vm) {
        if get(base, 3).is_nil() {
            parallel_by_one!(ins, pc, base, k, vm);
        }
        slow!(pforloop_split, ins, pc, base, k, vm)
    }
    /// Of a loop that was split: another piece may have failed, and then this one ends.
    #[inline(never)]
    pforloop_split(ins, pc, base, k, vm) {
        if Gc::<Latch>::from_value(get(base, 3)).is_some_and(|latch| !latch.has_failed()) {
            parallel_by_one!(ins, pc, base, k, vm);
        }
        slow!(pforloop_any, ins, pc, base, k, vm)
    }
    #[inline(never)]
    pforloop_any(ins, pc, base, k, vm) {
        let (index, limit, step) = (get(base, 0), get(base, 1), get(base, 2));
        let latch = get(base, 3);
        let goes_on = latch.is_nil() || Gc::<Latch>::from_value(latch).is_some_and(|latch| !latch.has_failed());
        if Value::both_inline_integers(index, limit) && step.is_inline_integer() && goes_on
            && (*vm).control.poll.load(Ordering::Relaxed) == 0 {
            let (next, end) = (index.inline_payload() + step.inline_payload(), limit.inline_payload());
            if if step.inline_payload() > 0 { next <= end } else { next >= end } {
                let value = Value::inline_integer(next).unwrap_or(Value::NIL);
                put(base, 0, value);
                put(base, 4, value);
                next!(pc.offset(signed_d(ins)), base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        slow!(slow_parallel, ins, pc, base, k, vm)
    }
    pjoin(ins, pc, base, k, vm) {
        if get(base, a(ins)).is_nil() {
            next!(pc, base, k, vm)
        }
        slow!(slow_join, ins, pc, base, k, vm)
    }
}
