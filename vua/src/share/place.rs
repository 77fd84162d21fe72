//! `atomic` on elements of arrays and fields of structs.
//!
//! They work on native-endian numbers of 4 or 8 bytes that are aligned, and on `ref`s. An operation reads the bits, makes the value of them that it gives and the bits that
//! replace them, which may allocate, and exchanges these if nobody else changed them meanwhile, else does so again: there is
//! no safepoint between its look at the header and the exchange, so memory is neither released nor frozen in between.

use crate::heap::flags;
use crate::interp::memory::What;
use crate::interp::native::{Call, Next, Throw};
use crate::memory::scalar::Word;
use crate::memory::{Array, Scalar, Struct};
use crate::number::Number;
use crate::object::Gc;
use crate::value::Value;

/// Whether the first argument is an array or a struct.
pub(super) fn is_memory(call: &Call<'_>) -> bool {
    let value = call.get(0);
    Gc::<Array>::from_value(value).is_some() || Gc::<Struct>::from_value(value).is_some()
}

/// The word that the first two arguments name, to be read or, if `changes` says so, stored into before the next safepoint; and what messages call it.
fn word(call: &mut Call<'_>, changes: bool) -> Result<(Word, What), Throw> {
    let (object, key) = (call.get(0), call.any_argument(1)?);
    let place = call.memory_place(object, key)?;
    let what = place.what;
    let Some(kind) = place.kind else {
        return Err(call.argument_error(
            1,
            format_args!("{what} is embedded, and not changed as one"),
        ));
    };
    // SAFETY: such a scalar lies there until memory that is released is taken back, at a safepoint.
    let word = match unsafe { Word::new(kind, place.at) } {
        Ok(word) => word,
        Err(why) => {
            return Err(call.argument_error(1, format_args!("{what} ({}) {why}", kind.name())));
        }
    };
    if changes {
        call.before_store_at(place.root, object)?;
    }
    Ok((word, what))
}

/// As [`word`], for a store of argument `i`, whose bits come with it: a reference is published before other tasks can find it.
fn word_for(call: &mut Call<'_>, i: usize) -> Result<(Word, u64), Throw> {
    let value = call.any_argument(i)?;
    let place = call.memory_place(call.get(0), call.any_argument(1)?)?;
    // SAFETY: the first argument keeps the root.
    let is_shared = unsafe { place.root.as_ref() }.has(flags::SHARED);
    if place.kind == Some(Scalar::Ref) && is_shared {
        // What others do meanwhile is seen below.
        call.publish(value)?;
    }
    let (word, what) = word(call, true)?;
    let kind = word.kind();
    let wrong = |expected: &str| {
        call.message(format_args!(
            "{expected} expected for {what} ({}), got {}",
            kind.name(),
            call.type_name(value)
        ))
    };
    let bits = if kind == Scalar::Ref {
        value.to_bits()
    } else if kind.is_float() {
        let number = value.as_number().ok_or_else(|| wrong("number"))?;
        float_bits(kind, number.to_float())
    } else {
        let number = value.as_number().ok_or_else(|| wrong("integer"))?;
        let Some(i) = number.to_integer() else {
            return Err(call.message(format_args!(
                "number for {what} ({}) has no integer representation",
                kind.name()
            )));
        };
        i as u64
    };
    Ok((word, bits))
}

fn float_bits(kind: Scalar, f: f64) -> u64 {
    if kind == Scalar::F32 {
        (f as f32).to_bits().into()
    } else {
        f.to_bits()
    }
}

/// The number that bits of a kind are; `None` for a `ref`.
fn number_of(kind: Scalar, bits: u64) -> Option<Number> {
    // As in `scalar`, a NaN loses its payload.
    let float = |f: f64| Number::Float(if f.is_nan() { f64::NAN } else { f });
    Some(match kind {
        Scalar::Ref => return None,
        Scalar::F64 => float(f64::from_bits(bits)),
        Scalar::F32 => float(f32::from_bits(bits as u32).into()),
        Scalar::I32 => Number::Integer((bits as i32).into()),
        Scalar::U32 => Number::Integer((bits as u32).into()),
        _ => Number::Integer(bits as i64),
    })
}

/// The value that bits of a kind are.
fn value_of(call: &mut Call<'_>, kind: Scalar, bits: u64) -> Result<Value, Throw> {
    match number_of(kind, bits) {
        Some(Number::Integer(i)) => call.integer(i),
        Some(Number::Float(f)) => Ok(Value::float(f)),
        // SAFETY: a `ref` holds nothing but values.
        None => Ok(unsafe { Value::from_bits(bits) }),
    }
}

/// Replaces the bits of a word by what `change` makes of them, and gives the value of the old ones.
fn replace(call: &mut Call<'_>, word: Word, change: impl Fn(u64) -> u64) -> Result<Next, Throw> {
    let mut old = word.load();
    loop {
        let value = value_of(call, word.kind(), old)?;
        match word.compare_exchange(old, change(old)) {
            Ok(()) => return Ok(Next::One(value)),
            Err(found) => old = found,
        }
    }
}

/// The word for an operation on numbers, with the third argument as a number of its kind.
fn operand(call: &mut Call<'_>) -> Result<(Word, Number), Throw> {
    let (word, what) = word(call, true)?;
    let kind = word.kind();
    if kind == Scalar::Ref {
        return Err(call.argument_error(1, format_args!("{what} is a ref, and no number")));
    }
    let operand = if kind.is_float() {
        Number::Float(call.number_argument(2)?)
    } else {
        Number::Integer(call.integer_argument(2)?)
    };
    Ok((word, operand))
}

/// `atomic.add`: of a narrow integer, the low bits of the sum stay.
pub(super) fn add(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (word, amount) = operand(call)?;
    let kind = word.kind();
    replace(call, word, |old| match (number_of(kind, old), amount) {
        (Some(Number::Float(now)), amount) => float_bits(kind, now + amount.to_float()),
        (_, Number::Integer(amount)) => old.wrapping_add(amount as u64),
        (_, Number::Float(_)) => old,
    })
}

/// `atomic.min` and `atomic.max`.
pub(super) fn extreme(
    call: &mut Call<'_>,
    replaces: fn(Number, Number) -> bool,
) -> Result<Next, Throw> {
    let (word, amount) = operand(call)?;
    let kind = word.kind();
    let bits = match amount {
        Number::Integer(i) => i as u64,
        Number::Float(f) => float_bits(kind, f),
    };
    replace(call, word, |old| match number_of(kind, old) {
        Some(now) if replaces(amount, now) => bits,
        _ => old,
    })
}

/// `atomic.band`, `atomic.bor` and `atomic.bxor`.
pub(super) fn bitwise(call: &mut Call<'_>, operation: fn(i64, i64) -> i64) -> Result<Next, Throw> {
    let (word, what) = word(call, true)?;
    let kind = word.kind();
    if !kind.is_integer() {
        return Err(call.argument_error(1, format_args!("{what} ({}) is no integer", kind.name())));
    }
    let operand = call.integer_argument(2)?;
    replace(call, word, |old| operation(old as i64, operand) as u64)
}

/// `atomic.load`.
pub(super) fn load(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (word, _) = word(call, false)?;
    Ok(Next::One(value_of(call, word.kind(), word.load())?))
}

/// `atomic.store`.
pub(super) fn store(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (word, bits) = word_for(call, 2)?;
    word.store(bits);
    Ok(Next::Nothing)
}

/// `atomic.exchange`.
pub(super) fn exchange(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (word, bits) = word_for(call, 2)?;
    replace(call, word, |_| bits)
}

/// `atomic.cas`.
pub(super) fn cas(call: &mut Call<'_>) -> Result<Next, Throw> {
    let expected = call.any_argument(2)?;
    let (word, bits) = word_for(call, 3)?;
    let mut old = word.load();
    loop {
        if !value_of(call, word.kind(), old)?.raw_equal(expected) {
            return Ok(Next::One(Value::FALSE));
        }
        match word.compare_exchange(old, bits) {
            Ok(()) => return Ok(Next::One(Value::TRUE)),
            Err(found) => old = found,
        }
    }
}
