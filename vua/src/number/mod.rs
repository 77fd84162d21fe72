//! Numbers as Lua 5.4 defines them (reference manual, 3.4.1 to 3.4.4): arithmetic, exact comparison between integers and
//! floats, conversion, reading and writing. Pure functions of machine words; no heap, no state.
//!
//! Integers are 64-bit two's complement and wrap; floats are IEEE 754 doubles. Formatting rests on `core::fmt`, whose
//! output is correctly rounded for any precision, and reading on `core`'s correctly rounded `str::parse`.
#![deny(unsafe_code)]

mod format;
mod parse;

pub use format::{Flags, Text, append_float, append_integer, float_text, integer_text};
pub use parse::{is_space, parse};

/// A number of either kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer.
    Integer(i64),
    /// A float.
    Float(f64),
}

impl Number {
    /// Its value as a float, rounded to nearest.
    #[inline]
    pub fn to_float(self) -> f64 {
        match self {
            Number::Integer(i) => i as f64,
            Number::Float(f) => f,
        }
    }

    /// Its value as an integer, if it has exactly that value.
    #[inline]
    pub fn to_integer(self) -> Option<i64> {
        match self {
            Number::Integer(i) => Some(i),
            Number::Float(f) => float_to_integer(f),
        }
    }
}

/// 2^63, the first float above every integer.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// Integer `a // b`, rounded towards minus infinity; `None` when `b` is 0. `math.mininteger // -1` wraps.
#[inline]
pub const fn floor_div(a: i64, b: i64) -> Option<i64> {
    if b == 0 {
        return None;
    }
    let quotient = a.wrapping_div(b);
    let inexact = a.wrapping_rem(b) != 0;
    Some(if inexact && (a ^ b) < 0 {
        quotient - 1
    } else {
        quotient
    })
}

/// Integer `a % b`, with the sign of `b`; `None` when `b` is 0.
#[inline]
pub const fn modulo(a: i64, b: i64) -> Option<i64> {
    if b == 0 {
        return None;
    }
    let remainder = a.wrapping_rem(b);
    Some(if remainder != 0 && (remainder ^ b) < 0 {
        remainder + b
    } else {
        remainder
    })
}

/// Float `a // b`: the floor of the quotient.
#[inline]
pub fn float_floor_div(a: f64, b: f64) -> f64 {
    floor(a / b)
}

/// Float `a % b`: `fmod` brought to the sign of `b`. `a % math.huge` is `a` when their signs agree, else `math.huge`.
#[inline]
pub fn float_modulo(a: f64, b: f64) -> f64 {
    let remainder = fmod(a, b);
    if (remainder > 0.0 && b < 0.0) || (remainder < 0.0 && b > 0.0) {
        remainder + b
    } else {
        remainder
    }
}

/// C's `fmod`: the exact remainder of `a / b` with the sign of `a`; NaN when `a` is infinite or `b` is 0.
#[inline]
pub fn fmod(a: f64, b: f64) -> f64 {
    // Both exact in 53 bits: the integer remainder is the float one, and far cheaper than libm's bit-by-bit division.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if (0.0..EXACT).contains(&a) && (1.0..EXACT).contains(&b) {
        let (x, y) = (a as u64, b as u64);
        if x as f64 == a && y as f64 == b {
            return (x % y) as f64 * 1.0f64.copysign(a);
        }
    }
    libm::fmod(a, b)
}

/// `a ^ b`.
#[inline]
pub fn power(a: f64, b: f64) -> f64 {
    if b == 2.0 {
        a * a
    } else if b == 0.5 && a > 0.0 && a.is_finite() {
        libm::sqrt(a)
    } else {
        libm::pow(a, b)
    }
}

/// `a << count`; a negative count shifts right, bits shifted out are lost and zeros come in, 64 or more give 0.
#[inline]
pub const fn shift_left(a: i64, count: i64) -> i64 {
    if count >= 0 {
        if count < 64 {
            ((a as u64) << count) as i64
        } else {
            0
        }
    } else if count > -64 {
        ((a as u64) >> -count) as i64
    } else {
        0
    }
}

/// `a >> count`, logical; a negative count shifts left.
#[inline]
pub const fn shift_right(a: i64, count: i64) -> i64 {
    if count >= 0 {
        if count < 64 {
            ((a as u64) >> count) as i64
        } else {
            0
        }
    } else if count > -64 {
        ((a as u64) << -count) as i64
    } else {
        0
    }
}

/// `a` shifted right by `count` with its sign; a negative count shifts left.
#[inline]
pub const fn shift_right_signed(a: i64, count: i64) -> i64 {
    if count < 0 {
        shift_right(a, count)
    } else if count < 64 {
        a >> count
    } else {
        a >> 63
    }
}

/// The largest integral float not above `f`; zeros keep their sign.
#[inline]
pub fn floor(f: f64) -> f64 {
    // 2^52: from here on every float is integral (and NaN fails the comparison too).
    if f.abs() < 4_503_599_627_370_496.0 {
        let truncated = f as i64 as f64;
        let floored = if truncated > f {
            truncated - 1.0
        } else {
            truncated
        };
        floored.copysign(f)
    } else {
        f
    }
}

/// The smallest integral float not below `f`; zeros, and what rounds to zero, keep the sign.
#[inline]
pub fn ceil(f: f64) -> f64 {
    -floor(-f)
}

/// The integer of exactly the value of `f`, if there is one.
#[inline]
pub fn float_to_integer(f: f64) -> Option<i64> {
    let i = f as i64;
    // The cast saturates: 2^63 would come back as 2^63 - 1, which as a float is 2^63 again.
    if i as f64 == f && f < TWO_63 {
        Some(i)
    } else {
        None
    }
}

/// The floor of `f` as an integer, if it is one; `None` for NaN and what lies beyond 64 bits.
#[inline]
pub fn floor_to_integer(f: f64) -> Option<i64> {
    float_to_integer(floor(f))
}

/// The ceiling of `f` as an integer, if it is one; `None` for NaN and what lies beyond 64 bits.
#[inline]
pub fn ceil_to_integer(f: f64) -> Option<i64> {
    float_to_integer(ceil(f))
}

/// Exact `i < f`; false when `f` is NaN.
#[inline]
pub fn integer_less_than_float(i: i64, f: f64) -> bool {
    match ceil_to_integer(f) {
        // i < f <=> i < ceil(f)
        Some(ceiling) => i < ceiling,
        None => f > 0.0,
    }
}

/// Exact `i <= f`; false when `f` is NaN.
#[inline]
pub fn integer_less_equal_float(i: i64, f: f64) -> bool {
    match floor_to_integer(f) {
        Some(floor) => i <= floor,
        None => f > 0.0,
    }
}

/// Exact `f < i`; false when `f` is NaN.
#[inline]
pub fn float_less_than_integer(f: f64, i: i64) -> bool {
    match floor_to_integer(f) {
        Some(floor) => floor < i,
        None => f < 0.0,
    }
}

/// Exact `f <= i`; false when `f` is NaN.
#[inline]
pub fn float_less_equal_integer(f: f64, i: i64) -> bool {
    match ceil_to_integer(f) {
        Some(ceiling) => ceiling <= i,
        None => f < 0.0,
    }
}

/// Exact `i == f`.
#[inline]
pub fn integer_equals_float(i: i64, f: f64) -> bool {
    float_to_integer(f) == Some(i)
}

/// Exact `a < b`.
#[inline]
pub fn less_than(a: Number, b: Number) -> bool {
    match (a, b) {
        (Number::Integer(a), Number::Integer(b)) => a < b,
        (Number::Float(a), Number::Float(b)) => a < b,
        (Number::Integer(a), Number::Float(b)) => integer_less_than_float(a, b),
        (Number::Float(a), Number::Integer(b)) => float_less_than_integer(a, b),
    }
}

/// Exact `a <= b`.
#[inline]
pub fn less_equal(a: Number, b: Number) -> bool {
    match (a, b) {
        (Number::Integer(a), Number::Integer(b)) => a <= b,
        (Number::Float(a), Number::Float(b)) => a <= b,
        (Number::Integer(a), Number::Float(b)) => integer_less_equal_float(a, b),
        (Number::Float(a), Number::Integer(b)) => float_less_equal_integer(a, b),
    }
}

/// Exact `a == b`: 1 equals 1.0.
#[inline]
pub fn equal(a: Number, b: Number) -> bool {
    match (a, b) {
        (Number::Integer(a), Number::Integer(b)) => a == b,
        (Number::Float(a), Number::Float(b)) => a == b,
        (Number::Integer(i), Number::Float(f)) | (Number::Float(f), Number::Integer(i)) => {
            integer_equals_float(i, f)
        }
    }
}

#[cfg(test)]
mod tests;
