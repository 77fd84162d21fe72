//! Raw words: variables of type `reg` and `f64`, and what is computed from them.
//!
//! Raw registers are counted apart from tagged ones, as a stack of their own, and get their place in the frame when the
//! function is finished ([`super::frame`]). An expression whose value is raw stays so until somebody wants it tagged; then it is
//! boxed ([`Compiler::discharge_to`](super::Compiler)). It never has jumps: whatever merges with another value is tagged.

use alloc::format;
use alloc::string::String;

use super::operand::{Expression, Literal, Operand};
use super::{Coded, Compiler};
use crate::bytecode::Op;
use crate::number::{self, Number};
use crate::syntax::Position;
use crate::syntax::ast::{BinaryOp, Type, UnaryOp};

/// What a raw word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// An integer.
    Integer,
    /// A double.
    Float,
}

impl Raw {
    /// What a variable of the type holds, if that is a raw word.
    pub fn of(kind: Type) -> Option<Raw> {
        match kind {
            Type::Reg => Some(Raw::Integer),
            Type::F64 => Some(Raw::Float),
            _ => None,
        }
    }

    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            Raw::Integer => "reg",
            Raw::Float => "f64",
        }
    }
}

/// What an operand of an operator is, as far as the compiler knows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Class {
    Raw(Raw),
    Number(Number),
    /// Anything.
    Other,
}

/// Comparisons of an integer with a float, as operand C of `ICMPF` says them; one more negates.
mod mixed {
    pub const LESS: u8 = 0;
    pub const LESS_EQUAL: u8 = 2;
    pub const GREATER: u8 = 4;
    pub const GREATER_EQUAL: u8 = 6;
    pub const EQUAL: u8 = 8;
}

/// The operation of an arithmetic operator on raw integers.
fn integer_operation(operator: BinaryOp) -> Option<Op> {
    Some(match operator {
        BinaryOp::Add => Op::IADD,
        BinaryOp::Sub => Op::ISUB,
        BinaryOp::Mul => Op::IMUL,
        BinaryOp::Mod => Op::IMOD,
        BinaryOp::IDiv => Op::IIDIV,
        BinaryOp::BAnd => Op::IAND,
        BinaryOp::BOr => Op::IOR,
        BinaryOp::BXor => Op::IXOR,
        BinaryOp::Shl => Op::ISHL,
        BinaryOp::Shr => Op::ISHR,
        _ => return None,
    })
}

/// The operation of an arithmetic operator on doubles.
fn float_operation(operator: BinaryOp) -> Option<Op> {
    Some(match operator {
        BinaryOp::Add => Op::FADD,
        BinaryOp::Sub => Op::FSUB,
        BinaryOp::Mul => Op::FMUL,
        BinaryOp::Div => Op::FDIV,
        BinaryOp::Mod => Op::FMOD,
        BinaryOp::IDiv => Op::FIDIV,
        BinaryOp::Pow => Op::FPOW,
        _ => return None,
    })
}

fn is_bitwise(operator: BinaryOp) -> bool {
    matches!(
        operator,
        BinaryOp::BAnd | BinaryOp::BOr | BinaryOp::BXor | BinaryOp::Shl | BinaryOp::Shr
    )
}

impl Expression {
    /// What raw word its value is, if it is one.
    pub fn raw(&self) -> Option<Raw> {
        match self.operand {
            Operand::RawVariable(_, raw)
            | Operand::RawRegister(_, raw)
            | Operand::RawRelocatable(_, raw)
            | Operand::RawCell(_, raw)
            | Operand::RawCapture(_, _, raw) => Some(raw),
            Operand::Place(ref place) => place.raw(),
            _ => None,
        }
    }

    fn class(&self) -> Class {
        match (self.raw(), self.literal()) {
            (Some(raw), _) => Class::Raw(raw),
            (None, Some(Literal::Integer(i))) => Class::Number(Number::Integer(*i)),
            (None, Some(Literal::Float(f))) => Class::Number(Number::Float(*f)),
            _ => Class::Other,
        }
    }
}

impl Compiler<'_> {
    /// Notes an error that does not keep the compiler from going on.
    pub(super) fn report(&mut self, position: Position, message: String) {
        if self.errors.last().is_none_or(|last| last.0 != position) {
            self.errors.push((position, message));
        }
    }

    /// Takes the next raw registers, and gives the first.
    pub(super) fn reserve_raw(&mut self, count: usize) -> Coded<u8> {
        let first = self.f.raw_free;
        let top = first + count;
        if top > super::emit::REGISTERS {
            return self.too_many_registers();
        }
        self.f.raw_free = top;
        self.f.raw_registers = self.f.raw_registers.max(top);
        Ok(first as u8)
    }

    /// Gives back a raw register, the topmost, unless a variable has it.
    pub(super) fn release_raw(&mut self, register: u8) {
        if usize::from(register) >= self.f.raw_level() {
            self.f.raw_free -= 1;
            debug_assert_eq!(
                self.f.raw_free,
                usize::from(register),
                "raw registers are given back in order"
            );
        }
    }

    /// Puts a raw value into whatever raw register is cheapest.
    pub(super) fn any_raw(&mut self, e: &mut Expression) -> Coded<u8> {
        self.discharge(e)?;
        match e.operand {
            Operand::RawRegister(register, _) => Ok(register),
            Operand::RawRelocatable(at, raw) => {
                let register = self.reserve_raw(1)?;
                self.f.set_a(at, register);
                e.operand = Operand::RawRegister(register, raw);
                Ok(register)
            }
            _ => {
                debug_assert!(false, "not a raw value");
                Ok(0)
            }
        }
    }

    /// Makes a raw value a tagged one, by an instruction whose register is still to be chosen.
    pub(super) fn boxed(&mut self, e: &mut Expression) -> Coded<()> {
        let Some(raw) = e.raw() else { return Ok(()) };
        let register = self.any_raw(e)?;
        self.release_raw(register);
        let op = match raw {
            Raw::Integer => Op::BOXI,
            Raw::Float => Op::BOXF,
        };
        e.operand = Operand::Relocatable(self.emit_ad(op, 0, register.into())?);
        Ok(())
    }

    /// Makes any expression a raw word of a kind, by an instruction whose register is still to be chosen, or in a register.
    /// `what` is the variable or the like that it goes to, for messages.
    pub(super) fn convert(&mut self, e: &mut Expression, raw: Raw, what: &str) -> Coded<()> {
        let position = e.position;
        let class = e.class();
        let before = self.f.position;
        e.operand = match (class, raw) {
            (Class::Raw(Raw::Integer), Raw::Integer) | (Class::Raw(Raw::Float), Raw::Float) => {
                return self.discharge(e);
            }
            (Class::Raw(_), _) => {
                let source = self.any_raw(e)?;
                self.release_raw(source);
                self.f.position = position;
                let op = match raw {
                    Raw::Integer => Op::FTOI,
                    Raw::Float => Op::ITOF,
                };
                Operand::RawRelocatable(self.emit_ad(op, 0, source.into())?, raw)
            }
            (Class::Number(n), _) => self.raw_literal(n, raw, what, position)?,
            (Class::Other, _) => {
                if let Some(found) = self.visible_type(e) {
                    self.report(position, mismatch(raw.name(), what, found));
                    if !matches!(e.operand, Operand::Literal(_)) {
                        self.any_register(e)?;
                        self.release_value(e);
                    }
                    self.raw_literal(Number::Integer(0), raw, what, position)?
                } else {
                    let source = self.any_register(e)?;
                    self.release_value(e);
                    self.f.position = position;
                    let op = match raw {
                        Raw::Integer => Op::TOI,
                        Raw::Float => Op::TOF,
                    };
                    Operand::RawRelocatable(self.emit_ad(op, 0, source.into())?, raw)
                }
            }
        };
        self.f.position = before;
        Ok(())
    }

    /// The type of a value that is no number, if the compiler can see it.
    pub(super) fn visible_type(&self, e: &Expression) -> Option<&'static str> {
        match e.operand {
            _ if e.has_jumps() => None,
            Operand::Literal(ref literal) => Some(literal.type_name()),
            Operand::Relocatable(at) => match Op::of(self.f.code[at])? {
                Op::TNEW => Some("table"),
                Op::FNEW => Some("function"),
                Op::CONCAT => Some("string"),
                Op::NOT => Some("boolean"),
                _ => None,
            },
            Operand::Jump(_) => Some("boolean"),
            _ => None,
        }
    }

    /// A number as a raw word.
    fn raw_literal(
        &mut self,
        n: Number,
        raw: Raw,
        what: &str,
        position: Position,
    ) -> Coded<Operand> {
        let (literal, small) = match raw {
            Raw::Integer => {
                let i = n.to_integer().unwrap_or_else(|| {
                    let to = if what.is_empty() {
                        String::new()
                    } else {
                        format!(" for {what}")
                    };
                    self.report(
                        position,
                        format!("number{to} has no integer representation"),
                    );
                    0
                });
                (Literal::Integer(i), i16::try_from(i).ok())
            }
            Raw::Float => {
                let f = n.to_float();
                let whole =
                    number::float_to_integer(f).filter(|_| f != 0.0 || f.is_sign_positive());
                (Literal::Float(f), whole.and_then(|i| i16::try_from(i).ok()))
            }
        };
        let at = match (small, raw) {
            (Some(i), Raw::Integer) => self.emit_ad(Op::RKINT, 0, i as u16)?,
            (Some(i), Raw::Float) => self.emit_ad(Op::RKFLT, 0, i as u16)?,
            (None, _) => match u16::try_from(self.constant(&literal)?) {
                Ok(constant) => self.emit_ad(Op::RKVAL, 0, constant)?,
                Err(_) => return self.limit("constants with typed variables", 1 << 16),
            },
        };
        Ok(Operand::RawRelocatable(at, raw))
    }

    /// Puts any expression, as a raw word, into a raw register.
    pub(super) fn put_raw(
        &mut self,
        e: &mut Expression,
        raw: Raw,
        register: u8,
        what: &str,
    ) -> Coded<()> {
        self.convert(e, raw, what)?;
        match e.operand {
            Operand::RawRelocatable(at, _) => self.f.set_a(at, register),
            Operand::RawRegister(source, _) if source != register => {
                self.release_raw(source);
                self.emit_ad(Op::RMOV, register, source.into())?;
            }
            _ => {}
        }
        e.operand = Operand::RawRegister(register, raw);
        Ok(())
    }

    /// Puts any expression, as a raw word, into the next raw register.
    pub(super) fn next_raw(&mut self, e: &mut Expression, raw: Raw, what: &str) -> Coded<u8> {
        self.convert(e, raw, what)?;
        if let Operand::RawRegister(register, _) = e.operand {
            self.release_raw(register);
        }
        let register = self.reserve_raw(1)?;
        match e.operand {
            Operand::RawRelocatable(at, _) => self.f.set_a(at, register),
            Operand::RawRegister(source, _) if source != register => {
                self.emit_ad(Op::RMOV, register, source.into())?;
            }
            _ => {}
        }
        e.operand = Operand::RawRegister(register, raw);
        Ok(register)
    }

    /// Puts any expression, as a raw word, into whatever register is cheapest.
    pub(super) fn any_raw_as(&mut self, e: &mut Expression, raw: Raw, what: &str) -> Coded<u8> {
        self.convert(e, raw, what)?;
        self.any_raw(e)
    }

    /// As [`any_raw_as`](Self::any_raw_as), for one of two operands: what its value was in before is given back by
    /// [`raw_floor`](Self::raw_floor), when both have been used.
    fn raw_operand(&mut self, e: &mut Expression, raw: Raw) -> Coded<u8> {
        if let (Class::Raw(from), Operand::RawRegister(source, _)) = (e.class(), &e.operand)
            && from != raw
        {
            let source = *source;
            let op = match raw {
                Raw::Integer => Op::FTOI,
                Raw::Float => Op::ITOF,
            };
            let register = self.reserve_raw(1)?;
            self.emit_ad(op, register, source.into())?;
            e.operand = Operand::RawRegister(register, raw);
            return Ok(register);
        }
        self.any_raw_as(e, raw, "")
    }

    /// The first raw register that is free once the operands have been used.
    fn raw_floor(&self, operands: [&Expression; 2]) -> usize {
        let level = self.f.raw_level();
        operands
            .iter()
            .filter_map(|e| match e.operand {
                Operand::RawRegister(register, _) => Some(usize::from(register)),
                _ => None,
            })
            .filter(|register| *register >= level)
            .fold(self.f.raw_free, usize::min)
    }

    /// An operator with at least one raw operand; `None` if the other one makes it an ordinary one.
    pub(super) fn raw_binary(
        &mut self,
        operator: BinaryOp,
        left: &mut Expression,
        right: &mut Expression,
        position: Position,
    ) -> Coded<Option<Operand>> {
        let (a, b) = (left.class(), right.class());
        if !matches!(a, Class::Raw(_)) && !matches!(b, Class::Raw(_)) {
            return Ok(None);
        }
        if matches!(
            operator,
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge
        ) {
            return self.raw_comparison(operator, left, right, position);
        }
        let has_other = a == Class::Other || b == Class::Other;
        let kind = if is_bitwise(operator) {
            let with_reg = a == Class::Raw(Raw::Integer) || b == Class::Raw(Raw::Integer);
            if has_other && !with_reg {
                return Ok(None);
            }
            Raw::Integer
        } else if has_other {
            return Ok(None);
        } else if matches!(operator, BinaryOp::Div | BinaryOp::Pow)
            || [a, b].iter().any(|class| {
                matches!(
                    class,
                    Class::Raw(Raw::Float) | Class::Number(Number::Float(_))
                )
            })
        {
            Raw::Float
        } else {
            Raw::Integer
        };
        let op = match kind {
            Raw::Integer => integer_operation(operator),
            Raw::Float => float_operation(operator),
        };
        let Some(op) = op else { return Ok(None) };
        self.discharge(right)?;
        if right.raw().is_some() {
            self.any_raw(right)?;
        }
        self.f.position = position;
        let floor = self.raw_floor([left, right]);
        // A tagged operand that comes later in the stack of registers is converted, and given back, first.
        let (x, y);
        if a == Class::Other {
            x = self.raw_operand(left, kind)?;
            y = self.raw_operand(right, kind)?;
        } else {
            y = self.raw_operand(right, kind)?;
            x = self.raw_operand(left, kind)?;
        }
        self.f.raw_free = floor;
        self.f.position = position;
        Ok(Some(Operand::RawRelocatable(
            self.emit_abc(op, 0, x, y)?,
            kind,
        )))
    }

    fn raw_comparison(
        &mut self,
        operator: BinaryOp,
        left: &mut Expression,
        right: &mut Expression,
        position: Position,
    ) -> Coded<Option<Operand>> {
        // a > b is b < a.
        let (mut left, mut right) = (left, right);
        let mut a = left.class();
        let mut b = right.class();
        let operator = match operator {
            BinaryOp::Gt | BinaryOp::Ge => {
                core::mem::swap(&mut left, &mut right);
                core::mem::swap(&mut a, &mut b);
                if operator == BinaryOp::Gt {
                    BinaryOp::Lt
                } else {
                    BinaryOp::Le
                }
            }
            other => other,
        };
        // How each operand is best looked at: a literal as what it is exactly.
        let side = |class: Class| match class {
            Class::Raw(raw) => Some(raw),
            Class::Number(n) => Some(if n.to_integer().is_some() {
                Raw::Integer
            } else {
                Raw::Float
            }),
            Class::Other => None,
        };
        let (Some(mut x), Some(mut y)) = (side(a), side(b)) else {
            return Ok(None);
        };
        // An integer literal that a double holds exactly is as good as one.
        let exact = |class: Class| {
            matches!(class, Class::Number(n)
                if n.to_integer().is_some_and(|i| i.unsigned_abs() <= 1 << 53))
        };
        if x == Raw::Float && exact(b) {
            y = Raw::Float;
        } else if y == Raw::Float && exact(a) {
            x = Raw::Float;
        }
        for e in [&mut *left, &mut *right] {
            if e.raw().is_some() {
                self.any_raw(e)?;
            }
        }
        let floor = self.raw_floor([left, right]);
        let l = self.raw_operand(left, x)?;
        let r = self.raw_operand(right, y)?;
        self.f.raw_free = floor;
        self.f.position = position;
        if x == y {
            let op = match (operator, x) {
                (BinaryOp::Eq, Raw::Integer) => Op::IEQ,
                (BinaryOp::Ne, Raw::Integer) => Op::INE,
                (BinaryOp::Lt, Raw::Integer) => Op::ILT,
                (_, Raw::Integer) => Op::ILE,
                (BinaryOp::Eq, Raw::Float) => Op::FEQ,
                (BinaryOp::Ne, Raw::Float) => Op::FNE,
                (BinaryOp::Lt, Raw::Float) => Op::FLT,
                (_, Raw::Float) => Op::FLE,
            };
            self.emit_ad(op, l, r.into())?;
        } else {
            let integer_left = x == Raw::Integer;
            let condition = match (operator, integer_left) {
                (BinaryOp::Eq, _) => mixed::EQUAL,
                (BinaryOp::Ne, _) => mixed::EQUAL + 1,
                (BinaryOp::Lt, true) => mixed::LESS,
                (BinaryOp::Lt, false) => mixed::GREATER,
                (_, true) => mixed::LESS_EQUAL,
                (_, false) => mixed::GREATER_EQUAL,
            };
            let (integer, float) = if integer_left { (l, r) } else { (r, l) };
            self.emit_abc(Op::ICMPF, integer, float, condition)?;
        }
        Ok(Some(Operand::Jump(self.jump()?)))
    }

    /// An operator before a raw operand.
    pub(super) fn raw_unary(
        &mut self,
        operator: UnaryOp,
        e: &mut Expression,
        position: Position,
    ) -> Coded<()> {
        let Some(raw) = e.raw() else { return Ok(()) };
        let (op, kind) = match (operator, raw) {
            (UnaryOp::Negate, Raw::Integer) => (Op::INEG, raw),
            (UnaryOp::Negate, Raw::Float) => (Op::FNEG, raw),
            (UnaryOp::Complement, _) => (Op::INOT, Raw::Integer),
            (UnaryOp::Not, _) => {
                // Every number is true.
                let register = self.any_raw(e)?;
                self.release_raw(register);
                *e = Expression::new(Operand::Literal(Literal::Boolean(false)), position);
                return Ok(());
            }
            (UnaryOp::Length, _) => {
                let message = format!("attempt to get length of a number value ({})", raw.name());
                self.report(position, message);
                return Ok(());
            }
        };
        let register = self.any_raw_as(e, kind, "")?;
        self.release_raw(register);
        self.f.position = position;
        let at = self.emit_ad(op, 0, register.into())?;
        *e = Expression::new(Operand::RawRelocatable(at, kind), position);
        Ok(())
    }
}

/// What is said of a value of the wrong type.
pub(super) fn mismatch(wanted: &str, what: &str, found: &str) -> String {
    if what.is_empty() {
        format!("{wanted} expected, got {found}")
    } else {
        format!("{wanted} expected for {what}, got {found}")
    }
}
