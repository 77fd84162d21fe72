//! Arithmetic, comparison, concatenation and length off the fast path: mixed and boxed numbers, strings, metamethods, errors.

use alloc::format;

use super::core_state::{Core, Vm};
use super::dispatch::{closure_of, get, put};
use super::frame::Continuation;
use super::throw::{Flow, fail};
use crate::bytecode::instructions::{Op, a, b, c, d, signed_d};
use crate::engine::Metamethod;
use crate::memory::{Array, Struct};
use crate::number::{self, Number};
use crate::object::{Gc, Str};
use crate::value::Value;

impl Value {
    /// The number that it is.
    #[inline]
    pub(crate) fn as_number(self) -> Option<Number> {
        match self.as_float() {
            Some(f) => Some(Number::Float(f)),
            None => self.as_integer().map(Number::Integer),
        }
    }
}

/// What two numbers make, or why not.
enum Outcome {
    Integer(i64),
    Float(f64),
    /// An operand of a bitwise operator is a float without an exact integer value.
    NoInteger,
    /// An error of its own.
    Error(&'static str),
}

/// What the metatable of an operand holds for a binary operator.
pub(super) fn metamethod_of(op: Op) -> Metamethod {
    match op {
        Op::ADD | Op::ADDK | Op::KADD => Metamethod::Add,
        Op::SUB | Op::SUBK | Op::KSUB => Metamethod::Sub,
        Op::MUL | Op::MULK | Op::KMUL => Metamethod::Mul,
        Op::DIV | Op::DIVK | Op::KDIV => Metamethod::Div,
        Op::MOD | Op::MODK => Metamethod::Mod,
        Op::IDIV | Op::IDIVK => Metamethod::Idiv,
        Op::POW | Op::POWK => Metamethod::Pow,
        Op::BAND | Op::BANDK => Metamethod::Band,
        Op::BOR | Op::BORK => Metamethod::Bor,
        Op::BXOR | Op::BXORK => Metamethod::Bxor,
        Op::SHL | Op::SHLK => Metamethod::Shl,
        _ => Metamethod::Shr,
    }
}

fn compute(event: Metamethod, x: Number, y: Number) -> Outcome {
    use Metamethod as M;
    use Number::Integer as I;
    let float = |f: fn(f64, f64) -> f64| Outcome::Float(f(x.to_float(), y.to_float()));
    match event {
        M::Add | M::Sub | M::Mul => match (x, y, event) {
            (I(x), I(y), M::Add) => Outcome::Integer(x.wrapping_add(y)),
            (I(x), I(y), M::Sub) => Outcome::Integer(x.wrapping_sub(y)),
            (I(x), I(y), _) => Outcome::Integer(x.wrapping_mul(y)),
            (_, _, M::Add) => float(|x, y| x + y),
            (_, _, M::Sub) => float(|x, y| x - y),
            _ => float(|x, y| x * y),
        },
        M::Div => float(|x, y| x / y),
        M::Pow => float(number::power),
        M::Mod => match (x, y) {
            (I(x), I(y)) => number::modulo(x, y)
                .map_or(Outcome::Error("attempt to perform 'n%0'"), Outcome::Integer),
            _ => float(number::float_modulo),
        },
        M::Idiv => match (x, y) {
            (I(x), I(y)) => number::floor_div(x, y).map_or(
                Outcome::Error("attempt to divide by zero"),
                Outcome::Integer,
            ),
            _ => float(number::float_floor_div),
        },
        _ => match (x.to_integer(), y.to_integer()) {
            (Some(x), Some(y)) => Outcome::Integer(match event {
                M::Band => x & y,
                M::Bor => x | y,
                M::Bxor => x ^ y,
                M::Shl => number::shift_left(x, y),
                _ => number::shift_right(x, y),
            }),
            _ => Outcome::NoInteger,
        },
    }
}

fn is_bitwise(event: Metamethod) -> bool {
    matches!(
        event,
        Metamethod::Band
            | Metamethod::Bor
            | Metamethod::Bxor
            | Metamethod::Shl
            | Metamethod::Shr
            | Metamethod::Bnot
    )
}

impl Core {
    /// The error of an operation on values that have none, naming the second operand if the first would do.
    fn operand_error(
        &self,
        event: Metamethod,
        x: (Value, Option<usize>),
        y: (Value, Option<usize>),
    ) -> Flow {
        let is_concat = event == Metamethod::Concat;
        let fits = |v: Value| v.is_number() || (is_concat && v.as_str().is_some());
        let (culprit, register) = if fits(x.0) { y } else { x };
        if is_bitwise(event) && x.0.is_number() && y.0.is_number() {
            let (_, register) = if x.0.as_number().and_then(Number::to_integer).is_none() {
                x
            } else {
                y
            };
            return fail(format!(
                "number{} has no integer representation",
                self.variable(register)
            ));
        }
        let action = if is_concat {
            "concatenate"
        } else if is_bitwise(event) {
            "perform bitwise operation on"
        } else {
            "perform arithmetic on"
        };
        fail(format!(
            "attempt to {} a {} value{}",
            action,
            self.program.type_name(culprit),
            self.variable(register)
        ))
    }
}

/// Binary arithmetic, tagged and raw.
pub(super) fn binary(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let Some(op) = Op::of(ins) else {
        unreachable!("the handler knows its instruction")
    };
    if op >= Op::RMOV {
        return raw_binary(core, op, ins);
    }
    let constant_left = op >= Op::KADD;
    let constant_right = op >= Op::ADDK && !constant_left;
    let operand = |is_constant: bool, index: usize| {
        // SAFETY: the verifier proved the operands.
        unsafe {
            if is_constant {
                (*closure_of(core.base).proto().constants.add(index), None)
            } else {
                (get(core.base, index), Some(index))
            }
        }
    };
    let (x, x_register) = operand(constant_left, b(ins));
    let (y, y_register) = operand(constant_right, c(ins));
    let event = metamethod_of(op);
    if let (Some(x), Some(y)) = (x.as_number(), y.as_number()) {
        let value = match compute(event, x, y) {
            Outcome::Integer(i) => Some(core.heap.integer(i)?),
            Outcome::Float(f) => Some(Value::float(f)),
            Outcome::NoInteger => None,
            Outcome::Error(message) => return fail(message.into()),
        };
        if let Some(value) = value {
            // SAFETY: as above.
            unsafe { put(core.base, a(ins), value) };
            return Ok(());
        }
    }
    let handler = core.program.binary_metamethod(x, y, event);
    if handler.is_nil() {
        return core.operand_error(event, (x, x_register), (y, y_register));
    }
    core.call_metamethod(handler, &[x, y], Continuation::Store, 0)
}

fn raw_binary(core: &mut Core, op: Op, ins: u32) -> Flow {
    // SAFETY: the verifier proved the operands.
    unsafe {
        let (x, y) = (*core.base.add(b(ins)), *core.base.add(c(ins)));
        let (fx, fy) = (f64::from_bits(x), f64::from_bits(y));
        let result = match op {
            Op::IIDIV => match number::floor_div(x as i64, y as i64) {
                Some(i) => i as u64,
                None => return fail("attempt to divide by zero".into()),
            },
            Op::IMOD => match number::modulo(x as i64, y as i64) {
                Some(i) => i as u64,
                None => return fail("attempt to perform 'n%0'".into()),
            },
            Op::IUDIV | Op::IUREM if y == 0 => {
                return fail(
                    match op {
                        Op::IUDIV => "attempt to divide by zero",
                        _ => "attempt to perform 'n%0'",
                    }
                    .into(),
                );
            }
            Op::IUDIV => x / y,
            Op::IUREM => x % y,
            Op::FMOD => number::float_modulo(fx, fy).to_bits(),
            Op::FIDIV => number::float_floor_div(fx, fy).to_bits(),
            _ => number::power(fx, fy).to_bits(),
        };
        *core.base.add(a(ins)) = result;
    }
    Ok(())
}

/// `NEG`, `BNOT`.
pub(super) fn unary(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the operands.
    let x = unsafe { get(core.base, d(ins)) };
    let negate = Op::of(ins) == Some(Op::NEG);
    let value = match (x.as_number(), negate) {
        (Some(Number::Integer(i)), true) => Some(core.heap.integer(i.wrapping_neg())?),
        (Some(Number::Float(f)), true) => Some(Value::float(-f)),
        (Some(n), false) => match n.to_integer() {
            Some(i) => Some(core.heap.integer(!i)?),
            None => None,
        },
        (None, _) => None,
    };
    if let Some(value) = value {
        // SAFETY: as above.
        unsafe { put(core.base, a(ins), value) };
        return Ok(());
    }
    let event = if negate {
        Metamethod::Unm
    } else {
        Metamethod::Bnot
    };
    let handler = core.program.metamethod(x, event);
    if handler.is_nil() {
        return core.operand_error(event, (x, Some(d(ins))), (x, Some(d(ins))));
    }
    core.call_metamethod(handler, &[x, x], Continuation::Store, 0)
}

/// `LEN`.
pub(super) fn length(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the operands.
    let x = unsafe { get(core.base, d(ins)) };
    let value = if let Some(string) = x.as_str() {
        core.heap.integer(string.len() as i64)?
    } else if let Some(array) = Gc::<Array>::from_value(x) {
        core.heap.integer(array.length() as i64)?
    } else {
        let handler = core.program.metamethod(x, Metamethod::Len);
        if !handler.is_nil() {
            return core.call_metamethod(handler, &[x, x], Continuation::Store, 0);
        }
        match x.as_table() {
            Some(table) => core.heap.integer(table.length())?,
            None => {
                return fail(format!(
                    "attempt to get length of a {} value{}",
                    core.program.type_name(x),
                    core.variable(Some(d(ins)))
                ));
            }
        }
    };
    // SAFETY: as above.
    unsafe { put(core.base, a(ins), value) };
    Ok(())
}

/// Comparisons of anything but two inline integers or two floats.
pub(super) fn compare(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let Some(op) = Op::of(ins) else {
        unreachable!("the handler knows its instruction")
    };
    // SAFETY: the verifier proved the operands.
    let (x, y) = unsafe {
        let x = get(core.base, a(ins));
        let y = match op {
            Op::ISEQK
            | Op::ISNEK
            | Op::ISLTK
            | Op::ISNLTK
            | Op::ISLEK
            | Op::ISNLEK
            | Op::ISGTK
            | Op::ISNGTK
            | Op::ISGEK
            | Op::ISNGEK => *closure_of(core.base).proto().constants.add(d(ins)),
            _ if (Op::ISLTI..=Op::ISNGEI).contains(&op) => Value::small(signed_d(ins) as i32),
            _ => get(core.base, d(ins)),
        };
        (x, y)
    };
    let negated = matches!(
        op,
        Op::ISNLT
            | Op::ISNLE
            | Op::ISNE
            | Op::ISNEK
            | Op::ISNLTI
            | Op::ISNLEI
            | Op::ISNGTI
            | Op::ISNGEI
            | Op::ISNLTK
            | Op::ISNLEK
            | Op::ISNGTK
            | Op::ISNGEK
    );
    let then = if negated {
        Continuation::NegatedCondition
    } else {
        Continuation::Condition
    };
    if matches!(op, Op::ISEQ | Op::ISNE | Op::ISEQK | Op::ISNEK) {
        let equal = x.raw_equal(y);
        let both = |of: fn(Value) -> bool| of(x) && of(y);
        if !equal
            && (both(|v| v.as_table().is_some()) || both(|v| Gc::<Struct>::from_value(v).is_some()))
        {
            let handler = core.program.binary_metamethod(x, y, Metamethod::Eq);
            if !handler.is_nil() {
                return core.call_metamethod(handler, &[x, y], then, 0);
            }
        }
        core.branch(equal != negated);
        return Ok(());
    }
    // a > b is b < a.
    let (x, y) = if matches!(
        op,
        Op::ISGTI
            | Op::ISNGTI
            | Op::ISGEI
            | Op::ISNGEI
            | Op::ISGTK
            | Op::ISNGTK
            | Op::ISGEK
            | Op::ISNGEK
    ) {
        (y, x)
    } else {
        (x, y)
    };
    let or_equal = matches!(
        op,
        Op::ISLE
            | Op::ISNLE
            | Op::ISLEI
            | Op::ISNLEI
            | Op::ISGEI
            | Op::ISNGEI
            | Op::ISLEK
            | Op::ISNLEK
            | Op::ISGEK
            | Op::ISNGEK
    );
    let holds = if let (Some(x), Some(y)) = (x.as_number(), y.as_number()) {
        if or_equal {
            number::less_equal(x, y)
        } else {
            number::less_than(x, y)
        }
    } else if let (Some(x), Some(y)) = (x.as_str(), y.as_str()) {
        if or_equal {
            x.bytes() <= y.bytes()
        } else {
            x.bytes() < y.bytes()
        }
    } else {
        let event = if or_equal {
            Metamethod::Le
        } else {
            Metamethod::Lt
        };
        let handler = core.program.binary_metamethod(x, y, event);
        if handler.is_nil() {
            let (t1, t2) = (core.program.type_name(x), core.program.type_name(y));
            return fail(if t1 == t2 {
                format!("attempt to compare two {t1} values")
            } else {
                format!("attempt to compare {t1} with {t2}")
            });
        }
        return core.call_metamethod(handler, &[x, y], then, 0);
    };
    core.branch(holds != negated);
    Ok(())
}

/// `CONCAT`.
pub(super) fn concat(vm: &mut Vm, ins: u32) -> Flow {
    concat_from(&mut vm.core, ins, c(ins))
}

/// A piece of text to concatenate.
fn append_length(value: Value) -> Option<usize> {
    if let Some(string) = value.as_str() {
        return Some(string.len());
    }
    value.as_number().map(|n| text_of(n).as_bytes().len())
}

/// A number as `tostring` writes it.
pub(crate) fn text_of(n: Number) -> number::Text {
    match n {
        Number::Integer(i) => number::integer_text(i),
        Number::Float(f) => number::float_text(f),
    }
}

/// Concatenates registers B to `last` from the right: a run of strings and numbers at once, anything else through its metamethod.
pub(super) fn concat_from(core: &mut Core, ins: u32, last: usize) -> Flow {
    let first = b(ins);
    let mut last = last;
    while last > first {
        // SAFETY: the verifier proved that registers B to C are in the frame.
        unsafe {
            let mut from = last + 1;
            let mut total = 0usize;
            while from > first
                && let Some(length) = append_length(get(core.base, from - 1))
            {
                total += length;
                from -= 1;
            }
            if last + 1 - from >= 2 {
                let base = core.base;
                let string = Str::new_with(&core.heap, total, |to| {
                    let mut at = to;
                    for register in from..=last {
                        let value = get(base, register);
                        let copy = |bytes: &[u8], at: *mut u8| {
                            // SAFETY: the lengths were added up before.
                            core::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
                            at.add(bytes.len())
                        };
                        at = match value.as_str() {
                            Some(string) => copy(string.bytes(), at),
                            None => match value.as_number() {
                                Some(n) => copy(text_of(n).as_bytes(), at),
                                None => at,
                            },
                        };
                    }
                });
                let string = match string {
                    Ok(string) => string,
                    Err(need) => {
                        // Results of an earlier run may stand in the registers already, so the instruction does not start again.
                        core.relieve_or_fail(need)?;
                        continue;
                    }
                };
                put(core.base, from, string.value());
                last = from;
                continue;
            }
            let (x, y) = (get(core.base, last - 1), get(core.base, last));
            let handler = core.program.binary_metamethod(x, y, Metamethod::Concat);
            if handler.is_nil() {
                return core.operand_error(
                    Metamethod::Concat,
                    (x, Some(last - 1)),
                    (y, Some(last)),
                );
            }
            return core.call_metamethod(
                handler,
                &[x, y],
                Continuation::Concatenate,
                (last - 1) as u8,
            );
        }
    }
    // SAFETY: as above.
    unsafe { put(core.base, a(ins), get(core.base, first)) };
    Ok(())
}

/// `TOI`, `TOF`, `FTOI`.
pub(super) fn convert(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the operands.
    unsafe {
        let op = Op::of(ins);
        if op == Some(Op::FTOI) {
            let f = f64::from_bits(*core.base.add(d(ins)));
            match number::float_to_integer(f) {
                Some(i) => *core.base.add(a(ins)) = i as u64,
                None => {
                    return fail(format!(
                        "number {}{} has no integer representation",
                        number::float_text(f).as_str(),
                        core.raw_variable(a(ins))
                    ));
                }
            }
            return Ok(());
        }
        let value = get(core.base, d(ins));
        let wanted = if op == Some(Op::TOI) {
            "reg expected"
        } else {
            "f64 expected"
        };
        match (value.as_number(), op) {
            (Some(n), Some(Op::TOF)) => *core.base.add(a(ins)) = n.to_float().to_bits(),
            (Some(n), _) => match n.to_integer() {
                Some(i) => *core.base.add(a(ins)) = i as u64,
                None => {
                    return fail(format!(
                        "number{} has no integer representation",
                        core.raw_variable(a(ins))
                    ));
                }
            },
            (None, _) => {
                return fail(format!(
                    "{}{}, got {}",
                    wanted,
                    core.raw_variable(a(ins)),
                    core.program.type_name(value)
                ));
            }
        }
    }
    Ok(())
}
