//! Arithmetic and bitwise operations on tagged registers.

use super::*;
use crate::number;
use crate::number::power;

/// Where an operand lies.
macro_rules! place {
    (register $base:ident $k:ident $operand:expr) => {
        $base.cast_const().add($operand)
    };
    (constant $base:ident $k:ident $operand:expr) => {
        constants($k).add($operand)
    };
}

/// `+ - *`: two inline integers first, then two floats. Of two values that are not both floats one is, as a double, a NaN, and so is the sum; a
/// result that is none needs no look at the operands.
macro_rules! arithmetic {
    ($($name:ident $mixed:ident $integer:ident $float:tt $x:ident $y:ident;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                let (x, y) = (place!($x base k b(ins)), place!($y base k c(ins)));
                if Value::is_inline_integer_at(x) && Value::is_inline_integer_at(y) {
                    if let Some(z) = Value::$integer(get(x, 0), get(y, 0)) {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm)
                    }
                    slow!(slow_binary, ins, pc, base, k, vm)
                }
                let z = get_float(x, 0) $float get_float(y, 0);
                if !z.is_nan() {
                    put(base, a(ins), Value::from_arithmetic(z));
                    next!(pc, base, k, vm)
                }
                slow!($mixed, ins, pc, base, k, vm)
            }
        }
        mixed! { $mixed $float $x $y }
    )*};
}

/// An operation of floats on a float and an integer, or on floats that make a NaN.
macro_rules! mixed {
    ($mixed:ident $float:tt $x:ident $y:ident) => {
        handlers! {
            #[cold]
            #[inline(never)]
            $mixed(ins, pc, base, k, vm) {
                let (x, y) = (get(place!($x base k b(ins)), 0), get(place!($y base k c(ins)), 0));
                if let (Some(x), Some(y)) = (inline_to_float(x), inline_to_float(y)) {
                    put(base, a(ins), Value::float(x $float y));
                    next!(pc, base, k, vm)
                }
                slow!(operated, ins, pc, base, k, vm)
            }
        }
    };
}

/// `/`: whatever is no float is a NaN as a double, and its quotient too.
macro_rules! division {
    ($($name:ident $mixed:ident $x:ident $y:ident;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                let (x, y) = (place!($x base k b(ins)), place!($y base k c(ins)));
                let z = get_float(x, 0) / get_float(y, 0);
                if !z.is_nan() {
                    put(base, a(ins), Value::from_arithmetic(z));
                    next!(pc, base, k, vm)
                }
                slow!($mixed, ins, pc, base, k, vm)
            }
        }
        mixed! { $mixed / $x $y }
    )*};
}

/// The number that a value is, as a float, unless it is a boxed integer.
#[inline(always)]
pub(super) fn inline_to_float(value: Value) -> Option<f64> {
    if value.is_inline_integer() {
        Some(value.inline_payload() as f64)
    } else {
        value.as_float()
    }
}

arithmetic! {
    add add_mixed inline_add + register register;
    sub sub_mixed inline_sub - register register;
    mul mul_mixed inline_mul * register register;
    addk addk_mixed inline_add + register constant;
    subk subk_mixed inline_sub - register constant;
    mulk mulk_mixed inline_mul * register constant;
    kadd kadd_mixed inline_add + constant register;
    ksub ksub_mixed inline_sub - constant register;
    kmul kmul_mixed inline_mul * constant register;
}

division! {
    div div_mixed register register;
    divk divk_mixed register constant;
    kdiv kdiv_mixed constant register;
}

/// Integer operations with a fast path of their own for inline operands whose result is inline.
macro_rules! integer_arithmetic {
    ($($name:ident $name_k:ident $other:ident $other_k:ident |$x:ident, $y:ident| $result:expr;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                if Value::is_inline_integer_at(base.add(b(ins))) && Value::is_inline_integer_at(base.add(c(ins))) {
                    let ($x, $y) = (get(base, b(ins)).inline_payload(), get(base, c(ins)).inline_payload());
                    if let Some(z) = $result {
                        put(base, a(after(ins, z.to_bits())), z);
                        next!(pc, base, k, vm)
                    }
                }
                slow!($other, ins, pc, base, k, vm)
            }
            $name_k(ins, pc, base, k, vm) {
                let y = constants(k).add(c(ins));
                if Value::is_inline_integer_at(base.add(b(ins))) && Value::is_inline_integer_at(y) {
                    let ($x, $y) = (get(base, b(ins)).inline_payload(), get(y, 0).inline_payload());
                    if let Some(z) = $result {
                        put(base, a(after(ins, z.to_bits())), z);
                        next!(pc, base, k, vm)
                    }
                }
                slow!($other_k, ins, pc, base, k, vm)
            }
        }
    )*};
}

/// The remainder of a division by a positive number. Divisions of 32 bits take a machine half the time.
#[inline(always)]
fn remainder(x: i64, y: i64) -> i64 {
    if (x | y) as u64 >> 32 == 0 {
        (x as u32 % y as u32) as i64
    } else {
        x.rem_euclid(y)
    }
}

integer_arithmetic! {
    // Divisors of 1 and above need no care for zero or overflow.
    modulo modk mod_float mod_float_k |x, y| if y > 0 { Value::inline_integer(remainder(x, y)) } else { None };
    idiv idivk idiv_float idiv_float_k |x, y| if y > 0 { Value::inline_integer(x.div_euclid(y)) } else { None };
    band bandk operated operated |x, y| Value::inline_integer(x & y);
    bor bork operated operated |x, y| Value::inline_integer(x | y);
    bxor bxork operated operated |x, y| Value::inline_integer(x ^ y);
    shl shlk operated operated |x, y| if (0..64).contains(&y) { Value::inline_integer(x << y) } else { None };
    shr shrk operated operated |x, y| if (0..64).contains(&y) { Value::inline_integer((x as u64 >> y) as i64) } else { None };
}

/// `%` and `//` of floats, or of a float and an integer.
macro_rules! float_division {
    ($($name:ident $name_k:ident $result:path;)*) => {$(
        handlers! {
            #[inline(never)]
            $name(ins, pc, base, k, vm) {
                let (x, y) = (get(base, b(ins)), get(base, c(ins)));
                if x.is_float() | y.is_float() && let (Some(x), Some(y)) = (inline_to_float(x), inline_to_float(y)) {
                    put(base, a(ins), Value::float($result(x, y)));
                    next!(pc, base, k, vm)
                }
                slow!(operated, ins, pc, base, k, vm)
            }
            #[inline(never)]
            $name_k(ins, pc, base, k, vm) {
                let (x, y) = (get(base, b(ins)), constant(k, c(ins)));
                if x.is_float() | y.is_float() && let (Some(x), Some(y)) = (inline_to_float(x), inline_to_float(y)) {
                    put(base, a(ins), Value::float($result(x, y)));
                    next!(pc, base, k, vm)
                }
                slow!(operated, ins, pc, base, k, vm)
            }
        }
    )*};
}

float_division! {
    mod_float mod_float_k number::float_modulo;
    idiv_float idiv_float_k number::float_floor_div;
}

handlers! {
    neg(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        if let Some(f) = x.as_float() {
            put(base, a(ins), Value::float(-f));
            next!(pc, base, k, vm)
        }
        if x.is_inline_integer() && let Some(z) = Value::inline_integer(-x.inline_payload()) {
            put(base, a(ins), z);
            next!(pc, base, k, vm)
        }
        slow!(slow_unary, ins, pc, base, k, vm)
    }
    bnot(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        if x.is_inline_integer() && let Some(z) = Value::inline_integer(!x.inline_payload()) {
            put(base, a(ins), z);
            next!(pc, base, k, vm)
        }
        slow!(slow_unary, ins, pc, base, k, vm)
    }
    not(ins, pc, base, k, vm) {
        put(base, a(ins), Value::boolean(!get(base, d(ins)).is_truthy()));
        next!(pc, base, k, vm)
    }

    #[inline(never)]
    pow(ins, pc, base, k, vm) {
        if let (Some(x), Some(y)) = (inline_to_float(get(base, b(ins))), inline_to_float(get(base, c(ins)))) {
            put(base, a(ins), Value::float(power(x, y)));
            next!(pc, base, k, vm)
        }
        slow!(operated, ins, pc, base, k, vm)
    }
    #[inline(never)]
    powk(ins, pc, base, k, vm) {
        if let (Some(x), Some(y)) = (inline_to_float(get(base, b(ins))), inline_to_float(constant(k, c(ins)))) {
            put(base, a(ins), Value::float(power(x, y)));
            next!(pc, base, k, vm)
        }
        slow!(operated, ins, pc, base, k, vm)
    }
}
