//! Raw registers: 64-bit integers and doubles without a tag.

use core::sync::atomic::Ordering;

use super::*;
use crate::number;
use crate::object::Cell;

handlers! {
    rmov(ins, pc, base, k, vm) {
        *base.add(a(ins)) = *base.add(d(ins));
        next!(pc, base, k, vm)
    }
    rkint(ins, pc, base, k, vm) {
        *base.add(a(ins)) = signed_d(ins) as i64 as u64;
        next!(pc, base, k, vm)
    }
    rkflt(ins, pc, base, k, vm) {
        *base.add(a(ins)) = (signed_d(ins) as f64).to_bits();
        next!(pc, base, k, vm)
    }
    rkval(ins, pc, base, k, vm) {
        let value = constant(k, d(ins));
        *base.add(a(ins)) = match value.as_float() {
            Some(f) => f.to_bits(),
            None => value.as_integer().unwrap_or(0) as u64,
        };
        next!(pc, base, k, vm)
    }
    boxi(ins, pc, base, k, vm) {
        if let Some(value) = Value::inline_integer(get_integer(base, d(ins))) {
            put(base, a(ins), value);
            next!(pc, base, k, vm)
        }
        slow!(slow_allocate, ins, pc, base, k, vm)
    }
    boxf(ins, pc, base, k, vm) {
        put(base, a(ins), Value::float(get_float(base, d(ins))));
        next!(pc, base, k, vm)
    }
    toi(ins, pc, base, k, vm) {
        let value = get(base, d(ins));
        if value.is_inline_integer() {
            *base.add(a(ins)) = value.inline_payload() as u64;
            next!(pc, base, k, vm)
        }
        slow!(slow_convert, ins, pc, base, k, vm)
    }
    tof(ins, pc, base, k, vm) {
        let value = get(base, d(ins));
        if let Some(f) = value.as_float() {
            *base.add(a(ins)) = f.to_bits();
            next!(pc, base, k, vm)
        }
        slow!(slow_convert, ins, pc, base, k, vm)
    }
    itof(ins, pc, base, k, vm) {
        *base.add(a(ins)) = (get_integer(base, d(ins)) as f64).to_bits();
        next!(pc, base, k, vm)
    }
    convert(ins, pc, base, k, vm) { slow!(slow_convert, ins, pc, base, k, vm) }
    raw_divide(ins, pc, base, k, vm) { slow!(slow_binary, ins, pc, base, k, vm) }
    ineg(ins, pc, base, k, vm) {
        *base.add(a(ins)) = get_integer(base, d(ins)).wrapping_neg() as u64;
        next!(pc, base, k, vm)
    }
    inot(ins, pc, base, k, vm) {
        *base.add(a(ins)) = !*base.add(d(ins));
        next!(pc, base, k, vm)
    }
    fneg(ins, pc, base, k, vm) {
        *base.add(a(ins)) = (-get_float(base, d(ins))).to_bits();
        next!(pc, base, k, vm)
    }
    rforprep(ins, pc, base, k, vm) {
        let (start, limit, step) = (get_integer(base, a(ins)), get_integer(base, a(ins) + 1), get_integer(base, a(ins) + 2));
        if step == 0 {
            slow!(slow_for_prepare, ins, pc, base, k, vm)
        }
        if if step > 0 { start <= limit } else { start >= limit } {
            // The distance as an unsigned number, divided by the step's magnitude: cannot overflow (Lua 5.4, `forprep`).
            let distance = if step > 0 { (limit as u64).wrapping_sub(start as u64) } else { (start as u64).wrapping_sub(limit as u64) };
            *base.add(a(ins) + 1) = distance / step.unsigned_abs();
            *base.add(a(ins) + 3) = start as u64;
            next!(pc, base, k, vm)
        }
        next!(pc.offset(signed_d(ins)), base, k, vm)
    }
    rforloop(ins, pc, base, k, vm) {
        let left = *base.add(a(ins) + 1);
        if left != 0 {
            *base.add(a(ins) + 1) = left - 1;
            let index = (*base.add(a(ins))).wrapping_add(*base.add(a(ins) + 2));
            *base.add(a(ins)) = index;
            *base.add(a(ins) + 3) = index;
            let pc = pc.offset(signed_d(ins));
            if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                slow!(slow_poll, ins, pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }
    rgetcap(ins, pc, base, k, vm) {
        let word = closure_of(base).raw_capture(d(ins));
        *base.add(a(after(ins, word))) = word;
        next!(pc, base, k, vm)
    }
    rgetcell(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        let word = cell.get_raw();
        *base.add(a(after(ins, word))) = word;
        next!(pc, base, k, vm)
    }
    rsetcell(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        cell.set_raw(*base.add(a(ins)));
        next!(pc, base, k, vm)
    }
    rnewcell(ins, pc, base, k, vm) {
        match Cell::new_raw(&(*vm).core.heap, *base.add(d(ins))) {
            Ok(cell) => {
                put(base, a(ins), cell.value());
                next!(pc, base, k, vm)
            }
            Err(_) => slow!(slow_allocate, ins, pc, base, k, vm),
        }
    }
    rcellget(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, d(ins)));
        *base.add(a(ins)) = cell.get_raw();
        next!(pc, base, k, vm)
    }
    rcellset(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, a(ins)));
        cell.set_raw(*base.add(d(ins)));
        next!(pc, base, k, vm)
    }
}

macro_rules! raw_binary {
    ($($name:ident |$x:ident: $type:ident, $y:ident| $result:expr;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                let ($x, $y) = (raw_binary!(@get $type, base, b(ins)), raw_binary!(@get $type, base, c(ins)));
                let result = $result;
                let ins = raw_binary!(@after $type, ins, result);
                *base.add(a(ins)) = raw_binary!(@word $type, result);
                next!(pc, base, k, vm)
            }
        }
    )*};
    (@get i64, $base:ident, $r:expr) => { get_integer($base, $r) };
    (@get f64, $base:ident, $r:expr) => { get_float($base, $r) };
    (@after i64, $ins:ident, $e:expr) => { after($ins, $e as u64) };
    (@after f64, $ins:ident, $e:expr) => { after_float($ins, $e) };
    (@word i64, $e:expr) => { ($e) as u64 };
    (@word f64, $e:expr) => { ($e).to_bits() };
}

raw_binary! {
    iadd |x: i64, y| x.wrapping_add(y);
    isub |x: i64, y| x.wrapping_sub(y);
    imul |x: i64, y| x.wrapping_mul(y);
    iand |x: i64, y| x & y;
    ior |x: i64, y| x | y;
    ixor |x: i64, y| x ^ y;
    ishl |x: i64, y| number::shift_left(x, y);
    ishr |x: i64, y| number::shift_right(x, y);
    isar |x: i64, y| number::shift_right_signed(x, y);
    irol |x: i64, y| x.rotate_left((y & 63) as u32);
    imulhi |x: i64, y| ((x as i128 * y as i128) >> 64) as i64;
    fadd |x: f64, y| x + y;
    fsub |x: f64, y| x - y;
    fmul |x: f64, y| x * y;
    fdiv |x: f64, y| x / y;
}

macro_rules! raw_compare {
    ($($name:ident $get:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                let y = base.add(d(ins));
                let x = base.add(a(after(ins, y as u64)));
                branch!(($get(x, 0) $op $get(y, 0)) ^ $negate, pc, base, k, vm)
            }
        }
    )*};
}

raw_compare! {
    ilt get_integer < false;
    ile get_integer <= false;
    ieq get_integer == false;
    ine get_integer == true;
    flt get_float < false;
    fnlt get_float < true;
    fle get_float <= false;
    fnle get_float <= true;
    feq get_float == false;
    fne get_float == true;
    iult get_word < false;
    inult get_word < true;
}

handlers! {
    icmpf(ins, pc, base, k, vm) {
        let (i, f) = (get_integer(base, a(ins)), get_float(base, b(ins)));
        let holds = match c(ins) >> 1 {
            0 => number::integer_less_than_float(i, f),
            1 => number::integer_less_equal_float(i, f),
            2 => number::float_less_than_integer(f, i),
            3 => number::float_less_equal_integer(f, i),
            _ => number::integer_equals_float(i, f),
        };
        branch!(holds ^ (c(ins) & 1 != 0), pc, base, k, vm)
    }
    ibits(ins, pc, base, k, vm) {
        let x = *base.add(b(ins));
        *base.add(a(ins)) = match c(ins) {
            0 => x.leading_zeros().into(),
            1 => x.trailing_zeros().into(),
            2 => x.count_ones().into(),
            _ => x.swap_bytes(),
        };
        next!(pc, base, k, vm)
    }
}
