//! Numerals to numbers: the rules of Lua's lexer and `tonumber` (reference manual, 3.1 and 3.4.3), which are the same.

use super::Number;

/// What C's `isspace` accepts in its default locale.
#[inline]
pub const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Reads a whole numeral, white space and a sign before it and white space after it allowed. `None` if `text` is none.
///
/// Hexadecimal integers wrap around modulo 2^64; decimal integers that do not fit 64 bits are floats; neither "inf" nor "nan" is a numeral.
pub fn parse(text: &[u8]) -> Option<Number> {
    let start = text.iter().position(|&b| !is_space(b))?;
    let end = text.iter().rposition(|&b| !is_space(b))? + 1;
    let mut numeral = &text[start..end];
    let mut negative = false;
    if let [sign @ (b'-' | b'+'), rest @ ..] = numeral {
        negative = *sign == b'-';
        numeral = rest;
    }
    if let [b'0', b'x' | b'X', digits @ ..] = numeral {
        return hexadecimal(digits, negative);
    }
    if !numeral.is_empty() && numeral.iter().all(u8::is_ascii_digit) {
        if let Some(i) = decimal_integer(numeral, negative) {
            return Some(Number::Integer(i));
        }
    } else if !is_decimal_float(numeral) {
        return None;
    }
    // All ASCII by now.
    let float: f64 = core::str::from_utf8(numeral).ok()?.parse().ok()?;
    Some(Number::Float(if negative { -float } else { float }))
}

/// The value of decimal digits, if it fits an integer.
fn decimal_integer(digits: &[u8], negative: bool) -> Option<i64> {
    let mut magnitude: u64 = 0;
    for &digit in digits {
        magnitude = magnitude
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    let limit = i64::MAX as u64 + u64::from(negative);
    if magnitude > limit {
        return None;
    }
    Some(if negative {
        (magnitude as i64).wrapping_neg()
    } else {
        magnitude as i64
    })
}

/// Whether `text` has the form `digits [. digits] [e [sign] digits]` with a digit before the exponent.
fn is_decimal_float(text: &[u8]) -> bool {
    let mut rest = text;
    let mut mantissa_digits = skip_digits(&mut rest);
    if let [b'.', after @ ..] = rest {
        rest = after;
        mantissa_digits += skip_digits(&mut rest);
    }
    if mantissa_digits == 0 {
        return false;
    }
    if let [b'e' | b'E', after @ ..] = rest {
        rest = after;
        if let [b'-' | b'+', after @ ..] = rest {
            rest = after;
        }
        if skip_digits(&mut rest) == 0 {
            return false;
        }
    }
    rest.is_empty()
}

fn skip_digits(rest: &mut &[u8]) -> usize {
    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    *rest = &rest[count..];
    count
}

/// The numeral after `0x`.
fn hexadecimal(text: &[u8], negative: bool) -> Option<Number> {
    let mut wrapped: u64 = 0;
    // The first 64 significant bits, whether anything but zeros followed, and the power of two of the last bit kept.
    let mut mantissa: u64 = 0;
    let mut sticky = false;
    let mut exponent: i64 = 0;
    let mut digits = 0usize;
    let mut point = false;
    let mut has_exponent = false;
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        match byte {
            b'.' if !point => point = true,
            b'p' | b'P' => {
                has_exponent = true;
                break;
            }
            _ => {
                let digit = u64::from((*byte as char).to_digit(16)?);
                digits += 1;
                wrapped = (wrapped << 4) | digit;
                if mantissa >> 60 == 0 {
                    mantissa = (mantissa << 4) | digit;
                    if point {
                        exponent -= 4;
                    }
                } else {
                    sticky |= digit != 0;
                    if !point {
                        exponent += 4;
                    }
                }
            }
        }
        rest = after;
    }
    if digits == 0 {
        return None;
    }
    if has_exponent {
        exponent = exponent.saturating_add(binary_exponent(&rest[1..])?);
    }
    if !point && !has_exponent {
        let value = wrapped as i64;
        return Some(Number::Integer(if negative {
            value.wrapping_neg()
        } else {
            value
        }));
    }
    let float = scale(mantissa, sticky, exponent);
    Some(Number::Float(if negative { -float } else { float }))
}

/// The decimal number after `p`, saturated far beyond what a float's exponent can be.
fn binary_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut magnitude: i64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Ten such exponents still add up without overflow; a numeral's digits can't make up for one of them.
        magnitude = (magnitude * 10 + i64::from(digit - b'0')).min(1 << 59);
    }
    Some(if negative { -magnitude } else { magnitude })
}

/// `mantissa * 2^exponent`, a little more if `sticky`, rounded to nearest, ties to even, subnormals included.
fn scale(mantissa: u64, sticky: bool, exponent: i64) -> f64 {
    if mantissa == 0 {
        return 0.0;
    }
    let shift = i64::from(mantissa.leading_zeros());
    let mantissa = mantissa << shift;
    // The value is 1.f * 2^top.
    let top = exponent.saturating_sub(shift).saturating_add(63);
    if top > 1023 {
        return f64::INFINITY;
    }
    if top < -1076 {
        return 0.0;
    }
    // How many of the 64 bits are kept: 53, or fewer for a subnormal.
    let kept = if top >= -1022 { 53 } else { 53 - (-1022 - top) };
    let dropped = 64 - kept;
    let (mut integral, remainder, half) = if dropped >= 64 {
        // Nothing is kept: below half of the smallest subnormal when `dropped` is 65 or more.
        (
            0u64,
            if dropped == 64 {
                mantissa
            } else {
                mantissa >> 1
            },
            1u64 << 63,
        )
    } else {
        (
            mantissa >> dropped,
            mantissa & ((1 << dropped) - 1),
            1u64 << (dropped - 1),
        )
    };
    if remainder > half || (remainder == half && (sticky || integral & 1 == 1)) {
        integral += 1;
    }
    if top >= -1022 {
        // Rounding up may carry into the exponent field, up to infinity: the encoding's order does the rest.
        let biased = (top + 1023) as u64;
        f64::from_bits((biased << 52) + (integral - (1 << 52)))
    } else {
        f64::from_bits(integral)
    }
}
