//! Comparisons and tests, each of which takes the `JMP` behind it or skips it.

use super::*;

macro_rules! comparison {
    ($($name:ident $other:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            /// A float and an integer, whose 48 bits are exact as a float; a NaN; strings.
            #[inline(never)]
            $other(ins, pc, base, k, vm) {
                let (x, y) = (get(base, a(ins)), get(base, d(ins)));
                if let (Some(x), Some(y)) = (inline_to_float(x), inline_to_float(y)) {
                    branch!((x $op y) ^ $negate, pc, base, k, vm)
                }
                if let (Some(x), Some(y)) = (x.as_str(), y.as_str()) {
                    branch!((x.bytes() $op y.bytes()) ^ $negate, pc, base, k, vm)
                }
                slow!(ordered, ins, pc, base, k, vm)
            }
            $name(ins, pc, base, k, vm) {
                let y = base.add(d(ins));
                let x = base.add(a(after(ins, y as u64)));
                if Value::is_inline_integer_at(x) && Value::is_inline_integer_at(y) {
                    branch!((get(x, 0).inline_order() $op get(y, 0).inline_order()) ^ $negate, pc, base, k, vm)
                }
                // Whatever is no float is a NaN as a double.
                let (x, y) = (get_float(x, 0), get_float(y, 0));
                if !x.is_nan() && !y.is_nan() {
                    branch!((x $op y) ^ $negate, pc, base, k, vm)
                }
                slow!($other, ins, pc, base, k, vm)
            }
        }
    )*};
}

comparison! {
    islt islt_other < false;
    isnlt isnlt_other < true;
    isle isle_other <= false;
    isnle isnle_other <= true;
}

/// With a constant, which is mostly a float: a small integer is part of the instruction.
macro_rules! comparison_constant {
    ($($name:ident $other:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                let (x, y) = (get_float(base, a(ins)), get_float(constants(k), d(ins)));
                if !x.is_nan() && !y.is_nan() {
                    branch!((x $op y) ^ $negate, pc, base, k, vm)
                }
                slow!($other, ins, pc, base, k, vm)
            }
            #[inline(never)]
            $other(ins, pc, base, k, vm) {
                let (x, y) = (get(base, a(ins)), constant(k, d(ins)));
                if Value::both_inline_integers(x, y) {
                    branch!((x.inline_order() $op y.inline_order()) ^ $negate, pc, base, k, vm)
                }
                if let (Some(x), Some(y)) = (inline_to_float(x), inline_to_float(y)) {
                    branch!((x $op y) ^ $negate, pc, base, k, vm)
                }
                slow!(slow_compare, ins, pc, base, k, vm)
            }
        }
    )*};
}

comparison_constant! {
    isltk isltk_other < false;
    isnltk isnltk_other < true;
    islek islek_other <= false;
    isnlek isnlek_other <= true;
    isgtk isgtk_other > false;
    isngtk isngtk_other > true;
    isgek isgek_other >= false;
    isngek isngek_other >= true;
}

macro_rules! comparison_immediate {
    ($($name:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                if Value::is_inline_integer_at(base.add(a(ins))) {
                    // The integer and the operand, both times 2^16.
                    let y = (ins as i32 as i64) & !0xffff;
                    branch!((get(base, a(ins)).inline_order() $op y) ^ $negate, pc, base, k, vm)
                }
                let x = get_float(base, a(ins));
                if !x.is_nan() {
                    branch!((x $op signed_d(ins) as f64) ^ $negate, pc, base, k, vm)
                }
                slow!(slow_compare, ins, pc, base, k, vm)
            }
        }
    )*};
}

comparison_immediate! {
    islti < false;
    isnlti < true;
    islei <= false;
    isnlei <= true;
    isgti > false;
    isngti > true;
    isgei >= false;
    isngei >= true;
}

/// Equality: two integers, two floats, or one and the same object; else at sight; else by content; else perhaps by a metamethod.
macro_rules! equality {
    ($($name:ident $sight:ident $other:ident $y:ident $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) { equality!(@first $y $sight $negate ins, pc, base, k, vm) }
            $sight(ins, pc, base, k, vm) {
                match get(base, a(ins)).equal_at_sight(equality!(@$y base, k, ins)) {
                    Some(equal) => branch!(equal ^ $negate, pc, base, k, vm),
                    None => slow!($other, ins, pc, base, k, vm),
                }
            }
            #[inline(never)]
            $other(ins, pc, base, k, vm) {
                let (x, y) = (get(base, a(ins)), equality!(@$y base, k, ins));
                let equal = x.raw_equal(y);
                let asks = |value: Value| {
                    value.has_tag(Tag::Struct) || value.as_table().is_some_and(|table| table.header().has(flags::METATABLE))
                };
                if equal || !(asks(x) || asks(y)) {
                    branch!(equal ^ $negate, pc, base, k, vm)
                }
                slow!(equated, ins, pc, base, k, vm)
            }
        }
    )*};
    (@first register $sight:ident $negate:tt $ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident) => {{
        let (x, y) = ($base.add(a($ins)), $base.add(d($ins)));
        if Value::is_inline_integer_at(x) && Value::is_inline_integer_at(y) {
            branch!((*x == *y) ^ $negate, $pc, $base, $k, $vm)
        }
        let (x, y) = (get_float(x, 0), get_float(y, 0));
        if !x.is_nan() && !y.is_nan() {
            branch!((x == y) ^ $negate, $pc, $base, $k, $vm)
        }
        slow!($sight, $ins, $pc, $base, $k, $vm)
    }};
    (@first constant $sight:ident $negate:tt $ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident) => {{
        let (x, y) = ($base.cast_const().add(a($ins)), constants($k).add(d($ins)));
        if Value::has_tag_at(y, Tag::String) {
            if *x == *y {
                branch!(!$negate, $pc, $base, $k, $vm)
            }
            if !Value::has_tag_at(x, Tag::String) {
                branch!($negate, $pc, $base, $k, $vm)
            }
        }
        slow!($sight, $ins, $pc, $base, $k, $vm)
    }};
    (@register $base:ident, $k:ident, $ins:ident) => { get($base, d($ins)) };
    (@constant $base:ident, $k:ident, $ins:ident) => { constant($k, d($ins)) };
}

equality! {
    iseq iseq_sight iseq_other register false;
    isne isne_sight isne_other register true;
    iseqk iseqk_sight iseqk_other constant false;
    isnek isnek_sight isnek_other constant true;
}

/// Equality with a small integer, and with nil, false or true. Whatever is no number is a NaN as a double, and equals none.
macro_rules! equality_immediate {
    ($($integer:ident $special:ident $negate:tt;)*) => {$(
        handlers! {
            $integer(ins, pc, base, k, vm) {
                if Value::is_inline_integer_at(base.add(a(ins))) {
                    let y = (ins as i32 as i64) & !0xffff;
                    branch!((get(base, a(ins)).inline_order() == y) ^ $negate, pc, base, k, vm)
                }
                branch!((get_float(base, a(ins)) == signed_d(ins) as f64) ^ $negate, pc, base, k, vm)
            }
            $special(ins, pc, base, k, vm) {
                let y = Value::NIL.to_bits() + d(ins) as u64;
                branch!((get_word(base, a(after(ins, y))) == y) ^ $negate, pc, base, k, vm)
            }
        }
    )*};
}

equality_immediate! {
    iseqi iseqp false;
    isnei isnep true;
}

handlers! {
    ist(ins, pc, base, k, vm) { branch!(get(base, d(ins)).is_truthy(), pc, base, k, vm) }
    isf(ins, pc, base, k, vm) { branch!(!get(base, d(ins)).is_truthy(), pc, base, k, vm) }
    istc(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        if x.is_truthy() {
            put(base, a(ins), x);
        }
        branch!(x.is_truthy(), pc, base, k, vm)
    }
    isfc(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        if !x.is_truthy() {
            put(base, a(ins), x);
        }
        branch!(!x.is_truthy(), pc, base, k, vm)
    }
}
