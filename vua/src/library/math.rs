//! The mathematical library (reference manual, 6.7).

use super::Builder;
use super::access::{Compared, Pace};
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::number::{self, Number};
use crate::value::Value;

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    let library = builder.library(
        "math",
        &[
            ("abs", abs),
            ("acos", |call| float(call, libm::acos)),
            ("asin", |call| float(call, libm::asin)),
            ("atan", atan),
            ("ceil", ceil),
            ("cos", |call| float(call, libm::cos)),
            ("deg", |call| {
                float(call, |x| x * (180.0 / core::f64::consts::PI))
            }),
            ("exp", |call| float(call, libm::exp)),
            ("floor", floor),
            ("fmod", fmod),
            ("log", log),
            ("atan2", |call| float2(call, libm::atan2)),
            ("cosh", |call| float(call, libm::cosh)),
            ("frexp", frexp),
            ("ldexp", ldexp),
            ("log10", |call| float(call, libm::log10)),
            ("max", max),
            ("min", min),
            ("modf", modf),
            ("rad", |call| {
                float(call, |x| x * (core::f64::consts::PI / 180.0))
            }),
            ("pow", |call| float2(call, libm::pow)),
            ("random", random),
            ("randomseed", randomseed),
            ("sin", |call| float(call, libm::sin)),
            ("sqrt", sqrt),
            ("sinh", |call| float(call, libm::sinh)),
            ("tan", |call| float(call, libm::tan)),
            ("tanh", |call| float(call, libm::tanh)),
            ("tointeger", tointeger),
            ("type", type_of),
            ("ult", ult),
        ],
    )?;
    builder.set(library, "pi", Value::float(core::f64::consts::PI))?;
    builder.set(library, "huge", Value::float(f64::INFINITY))?;
    builder.set(library, "maxinteger", builder.integer(i64::MAX)?)?;
    builder.set(library, "mininteger", builder.integer(i64::MIN)?)
}

fn float(call: &mut Call<'_>, f: fn(f64) -> f64) -> Result<Next, Throw> {
    Ok(Next::One(Value::float(f(call.number_argument(0)?))))
}

pub(crate) fn sqrt(call: &mut Call<'_>) -> Result<Next, Throw> {
    float(call, libm::sqrt)
}

fn number(call: &mut Call<'_>, n: Number) -> Result<Value, Throw> {
    match n {
        Number::Integer(i) => call.integer(i),
        Number::Float(f) => Ok(Value::float(f)),
    }
}

/// An integral float as an integer if it is one.
fn integral(call: &mut Call<'_>, f: f64) -> Result<Value, Throw> {
    match number::float_to_integer(f) {
        Some(i) => call.integer(i),
        None => Ok(Value::float(f)),
    }
}

fn abs(call: &mut Call<'_>) -> Result<Next, Throw> {
    // A string gives a float, whatever it says.
    let value = match call.get(0).as_integer() {
        Some(i) => Number::Integer(i.wrapping_abs()),
        None => Number::Float(call.number_argument(0)?.abs()),
    };
    Ok(Next::One(number(call, value)?))
}

pub(crate) fn floor(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.get(0).as_integer().is_some() {
        return Ok(Next::One(call.get(0)));
    }
    let f = call.number_argument(0)?;
    Ok(Next::One(integral(call, number::floor(f))?))
}

fn ceil(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.get(0).as_integer().is_some() {
        return Ok(Next::One(call.get(0)));
    }
    let f = call.number_argument(0)?;
    Ok(Next::One(integral(call, number::ceil(f))?))
}

fn fmod(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (a, b) = (call.any_number_argument(0)?, call.any_number_argument(1)?);
    if let (Some(a), Some(b)) = (call.get(0).as_integer(), call.get(1).as_integer()) {
        if b == 0 {
            return Err(call.argument_error(1, "zero"));
        }
        return Ok(Next::One(call.integer(a.wrapping_rem(b))?));
    }
    Ok(Next::One(Value::float(number::fmod(
        a.to_float(),
        b.to_float(),
    ))))
}

fn modf(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (whole, fraction) = match call.get(0).as_integer() {
        Some(_) => (call.get(0), 0.0),
        None => {
            let f = call.number_argument(0)?;
            let whole = if f < 0.0 {
                number::ceil(f)
            } else {
                number::floor(f)
            };
            // Also for infinities, whose difference from themselves is no number.
            (
                integral(call, whole)?,
                if f == whole { 0.0 } else { f - whole },
            )
        }
    };
    call.set(0, whole);
    call.set(1, Value::float(fraction));
    Ok(Next::Many { at: 0, count: 2 })
}

fn atan(call: &mut Call<'_>) -> Result<Next, Throw> {
    let y = call.number_argument(0)?;
    let x = if call.get(1).is_nil() {
        1.0
    } else {
        call.number_argument(1)?
    };
    Ok(Next::One(Value::float(libm::atan2(y, x))))
}

fn log(call: &mut Call<'_>) -> Result<Next, Throw> {
    let x = call.number_argument(0)?;
    if call.get(1).is_nil() {
        return Ok(Next::One(Value::float(libm::log(x))));
    }
    let base = call.number_argument(1)?;
    Ok(Next::One(Value::float(if base == 2.0 {
        libm::log2(x)
    } else if base == 10.0 {
        libm::log10(x)
    } else {
        libm::log(x) / libm::log(base)
    })))
}

/// The first argument that no other one exceeds, or (`least`) that exceeds no other: by the operator `<`, metamethods included.
fn best(call: &mut Call<'_>, least: bool) -> Result<Next, Throw> {
    call.any_argument(0)?;
    let (index, chosen, callee) = (call.count(), call.count() + 1, call.count() + 2);
    let (mut i, mut best) = (1, 0);
    if call.state() != 0 {
        i = call.slot(index).as_integer().unwrap_or(0) as usize;
        best = call.slot(chosen).as_integer().unwrap_or(0) as usize;
        if call.result(callee).is_truthy() {
            best = i;
        }
        i += 1;
    }
    let mut pace = Pace::default();
    while i < call.count() {
        let (mut a, mut b) = (call.slot(best), call.slot(i));
        if least {
            core::mem::swap(&mut a, &mut b);
        }
        match call.less(a, b, callee, 1)? {
            Compared::Holds(true) => best = i,
            Compared::Holds(false) => {}
            Compared::Call(next) => {
                let kept = call.integer(i as i64)?;
                call.set(index, kept);
                let kept = call.integer(best as i64)?;
                call.set(chosen, kept);
                return Ok(next);
            }
        }
        i += 1;
        pace.step(call)?;
    }
    Ok(Next::One(call.slot(best)))
}

/// A function of two floats.
fn float2(call: &mut Call<'_>, f: impl Fn(f64, f64) -> f64) -> Result<Next, Throw> {
    let (x, y) = (call.number_argument(0)?, call.number_argument(1)?);
    Ok(Next::One(Value::float(f(x, y))))
}

fn frexp(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (fraction, exponent) = libm::frexp(call.number_argument(0)?);
    call.set(0, Value::float(fraction));
    call.set(1, Value::small(exponent));
    Ok(Next::Many { at: 0, count: 2 })
}

fn ldexp(call: &mut Call<'_>) -> Result<Next, Throw> {
    let exponent = call.integer_argument(1)?;
    let exponent = exponent.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    Ok(Next::One(Value::float(libm::ldexp(
        call.number_argument(0)?,
        exponent,
    ))))
}

pub(crate) fn max(call: &mut Call<'_>) -> Result<Next, Throw> {
    best(call, false)
}

pub(crate) fn min(call: &mut Call<'_>) -> Result<Next, Throw> {
    best(call, true)
}

fn tointeger(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.any_argument(0)?;
    if value.as_integer().is_some() {
        return Ok(Next::One(value));
    }
    Ok(Next::One(
        match call.number_of(value).and_then(Number::to_integer) {
            Some(i) => call.integer(i)?,
            None => Value::NIL,
        },
    ))
}

fn type_of(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.any_argument(0)?;
    Ok(Next::One(match value.is_number() {
        true if value.is_float() => call.string(b"float")?,
        true => call.string(b"integer")?,
        false => Value::NIL,
    }))
}

fn ult(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (a, b) = (call.integer_argument(0)?, call.integer_argument(1)?);
    Ok(Next::One(Value::boolean((a as u64) < b as u64)))
}

/// One step of xoshiro256** (Blackman and Vigna, 2018).
fn next(state: &mut [u64; 4]) -> u64 {
    let result = state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
    let shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = state[3].rotate_left(45);
    result
}

/// A state from two seeds, as Lua makes it: the same seeds give the same numbers.
fn seeded(a: u64, b: u64) -> [u64; 4] {
    let mut state = [a, 0xff, b, 0];
    for _ in 0..16 {
        next(&mut state);
    }
    state
}

/// The next 64 random bits of the running task, whose state is seeded at first use.
fn random_bits(call: &Call<'_>) -> u64 {
    let fresh = || seeded(call.platform().entropy(), call.platform().entropy());
    let Some(cell) = call.random_state() else {
        return next(&mut fresh());
    };
    let mut state = cell.get();
    if state == [0; 4] {
        state = fresh();
    }
    let bits = next(&mut state);
    cell.set(state);
    bits
}

fn random(call: &mut Call<'_>) -> Result<Next, Throw> {
    let bits = random_bits(call);
    let (low, high) = match call.count() {
        // The upper 53 bits, scaled to [0, 1).
        0 => {
            return Ok(Next::One(Value::float(
                (bits >> 11) as f64 * (0.5 / (1u64 << 52) as f64),
            )));
        }
        1 => match call.integer_argument(0)? {
            0 => return Ok(Next::One(call.integer(bits as i64)?)),
            high => (1, high),
        },
        2 => (call.integer_argument(0)?, call.integer_argument(1)?),
        _ => return Err(call.message("wrong number of arguments")),
    };
    if low > high {
        return Err(call.argument_error(0, "interval is empty"));
    }
    let range = (high as u64).wrapping_sub(low as u64);
    // The smallest number of bits that can show the range; what lies beyond is thrown away, so that all are equally likely.
    let mask = u64::MAX.checked_shr(range.leading_zeros()).unwrap_or(0);
    let mut found = bits & mask;
    while found > range {
        found = random_bits(call) & mask;
    }
    Ok(Next::One(call.integer((found as i64).wrapping_add(low))?))
}

fn randomseed(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (a, b) = if call.count() == 0 {
        (
            call.platform().entropy() as i64,
            call.platform().entropy() as i64,
        )
    } else {
        let a = match call.any_number_argument(0)? {
            Number::Integer(i) => i,
            Number::Float(f) => number::float_to_integer(f).unwrap_or(f.to_bits() as i64),
        };
        (a, call.optional_integer(1, 0)?)
    };
    if let Some(cell) = call.random_state() {
        cell.set(seeded(a as u64, b as u64));
    }
    let (a, b) = (call.integer(a)?, call.integer(b)?);
    call.set(0, a);
    call.set(1, b);
    Ok(Next::Many { at: 0, count: 2 })
}
