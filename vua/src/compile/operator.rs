//! Operators: folding of constants, forms with a constant operand, comparisons.

use super::emit::NO_JUMP;
use super::operand::{Expression, Literal, Operand};
use super::{Coded, Compiler};
use crate::bytecode::Op;
use crate::number::{self, Number};
use crate::syntax::Position;
use crate::syntax::ast::{BinaryOp, UnaryOp};

/// The number of a literal.
fn number_of(literal: &Literal) -> Option<Number> {
    match *literal {
        Literal::Integer(i) => Some(Number::Integer(i)),
        Literal::Float(f) => Some(Number::Float(f)),
        _ => None,
    }
}

/// A number as a folded result: not NaN nor a zero float, whose sign must come out right (as Lua's `constfolding`).
fn foldable(number: Number) -> Option<Literal> {
    match number {
        Number::Integer(i) => Some(Literal::Integer(i)),
        Number::Float(f) if f.is_nan() || f == 0.0 => None,
        Number::Float(f) => Some(Literal::Float(f)),
    }
}

/// Arithmetic of both kinds of numbers.
fn arithmetic(
    a: Number,
    b: Number,
    integer: fn(i64, i64) -> Option<i64>,
    float: fn(f64, f64) -> f64,
) -> Option<Number> {
    match (a, b) {
        (Number::Integer(a), Number::Integer(b)) => integer(a, b).map(Number::Integer),
        _ => Some(Number::Float(float(a.to_float(), b.to_float()))),
    }
}

/// The value of an operator of constants; `None` where it is left to run time, errors included.
fn fold(operator: BinaryOp, a: &Literal, b: &Literal) -> Option<Literal> {
    let (a, b) = (number_of(a)?, number_of(b)?);
    let bits = |f: fn(i64, i64) -> i64| Some(Number::Integer(f(a.to_integer()?, b.to_integer()?)));
    let zero = b.to_float() == 0.0;
    let result = match operator {
        BinaryOp::Add => arithmetic(a, b, |a, b| Some(a.wrapping_add(b)), |a, b| a + b),
        BinaryOp::Sub => arithmetic(a, b, |a, b| Some(a.wrapping_sub(b)), |a, b| a - b),
        BinaryOp::Mul => arithmetic(a, b, |a, b| Some(a.wrapping_mul(b)), |a, b| a * b),
        BinaryOp::Div | BinaryOp::IDiv | BinaryOp::Mod if zero => None,
        BinaryOp::IDiv => arithmetic(a, b, number::floor_div, number::float_floor_div),
        BinaryOp::Mod => arithmetic(a, b, number::modulo, number::float_modulo),
        BinaryOp::Div => Some(Number::Float(a.to_float() / b.to_float())),
        BinaryOp::Pow => Some(Number::Float(number::power(a.to_float(), b.to_float()))),
        BinaryOp::BAnd => bits(|a, b| a & b),
        BinaryOp::BOr => bits(|a, b| a | b),
        BinaryOp::BXor => bits(|a, b| a ^ b),
        BinaryOp::Shl => bits(number::shift_left),
        BinaryOp::Shr => bits(number::shift_right),
        _ => None,
    };
    foldable(result?)
}

/// The operation of an arithmetic operator, with registers and with a constant on the right.
fn operation(operator: BinaryOp) -> Option<(Op, Op)> {
    Some(match operator {
        BinaryOp::Add => (Op::ADD, Op::ADDK),
        BinaryOp::Sub => (Op::SUB, Op::SUBK),
        BinaryOp::Mul => (Op::MUL, Op::MULK),
        BinaryOp::Div => (Op::DIV, Op::DIVK),
        BinaryOp::Mod => (Op::MOD, Op::MODK),
        BinaryOp::IDiv => (Op::IDIV, Op::IDIVK),
        BinaryOp::Pow => (Op::POW, Op::POWK),
        BinaryOp::BAnd => (Op::BAND, Op::BANDK),
        BinaryOp::BOr => (Op::BOR, Op::BORK),
        BinaryOp::BXor => (Op::BXOR, Op::BXORK),
        BinaryOp::Shl => (Op::SHL, Op::SHLK),
        BinaryOp::Shr => (Op::SHR, Op::SHRK),
        _ => return None,
    })
}

/// A small integer, as the comparisons with one take it.
fn immediate(e: &Expression) -> Option<u16> {
    match e.literal() {
        Some(&Literal::Integer(i)) => i16::try_from(i).ok().map(|i| i as u16),
        _ => None,
    }
}

/// nil, false or true, as the comparisons with one take it.
fn special(e: &Expression) -> Option<u16> {
    match e.literal() {
        Some(Literal::Nil) => Some(0),
        Some(&Literal::Boolean(b)) => Some(1 + u16::from(b)),
        _ => None,
    }
}

impl Compiler<'_> {
    /// An operator before its operand.
    pub(super) fn unary(
        &mut self,
        operator: UnaryOp,
        e: &mut Expression,
        position: Position,
    ) -> Coded<()> {
        if e.raw().is_some() {
            return self.raw_unary(operator, e, position);
        }
        let folded = match (operator, e.literal().and_then(number_of)) {
            (UnaryOp::Negate, Some(Number::Integer(i))) => Some(Number::Integer(i.wrapping_neg())),
            (UnaryOp::Negate, Some(Number::Float(f))) => Some(Number::Float(-f)),
            (UnaryOp::Complement, Some(n)) => n.to_integer().map(|i| Number::Integer(!i)),
            _ => None,
        };
        if let Some(literal) = folded.and_then(foldable) {
            e.operand = Operand::Literal(literal);
            return Ok(());
        }
        let op = match operator {
            UnaryOp::Not => {
                self.f.position = position;
                return self.not(e);
            }
            UnaryOp::Negate => Op::NEG,
            UnaryOp::Complement => Op::BNOT,
            UnaryOp::Length => Op::LEN,
        };
        let register = self.any_register(e)?;
        self.release_value(e);
        self.f.position = position;
        let at = self.emit_ad(op, 0, register.into())?;
        *e = Expression::new(Operand::Relocatable(at), position);
        Ok(())
    }

    /// What an operator does with its left operand before the right one is looked at.
    pub(super) fn left_operand(&mut self, operator: BinaryOp, e: &mut Expression) -> Coded<()> {
        match operator {
            BinaryOp::And => self.go_if_true(e),
            BinaryOp::Or => self.go_if_false(e),
            BinaryOp::Eq | BinaryOp::Ne if e.literal().is_some() => Ok(()),
            _ if e.literal().and_then(number_of).is_some() => Ok(()),
            _ if e.raw().is_some() => self.any_raw(e).map(|_| ()),
            _ => self.any_register(e).map(|_| ()),
        }
    }

    /// An operator, its left operand prepared by [`Self::left_operand`].
    pub(super) fn binary(
        &mut self,
        operator: BinaryOp,
        left: &mut Expression,
        right: &mut Expression,
        position: Position,
    ) -> Coded<()> {
        match operator {
            // One value, whatever the operand: an operator's result is never open.
            BinaryOp::And | BinaryOp::Or => {
                self.discharge(right)?;
                self.boxed(right)?;
            }
            _ => {}
        }
        match operator {
            BinaryOp::And => {
                debug_assert_eq!(left.if_true, NO_JUMP);
                let list = left.if_false;
                self.f.join(&mut right.if_false, list);
                *left = right.clone();
                return Ok(());
            }
            BinaryOp::Or => {
                debug_assert_eq!(left.if_false, NO_JUMP);
                let list = left.if_true;
                self.f.join(&mut right.if_true, list);
                *left = right.clone();
                return Ok(());
            }
            _ => {}
        }
        if let (Some(a), Some(b)) = (left.literal(), right.literal())
            && let Some(literal) = fold(operator, a, b)
        {
            left.operand = Operand::Literal(literal);
            return Ok(());
        }
        if let Some(operand) = self.raw_binary(operator, left, right, position)? {
            *left = Expression::new(operand, position);
            return Ok(());
        }
        let operand = match operation(operator) {
            Some(ops) => self.arithmetic(ops, left, right, position)?,
            None => self.comparison(operator, left, right, position)?,
        };
        *left = Expression::new(operand, position);
        Ok(())
    }

    fn arithmetic(
        &mut self,
        (op, with_constant): (Op, Op),
        left: &mut Expression,
        right: &mut Expression,
        position: Position,
    ) -> Coded<Operand> {
        if let Some(literal) = right.literal()
            && number_of(literal).is_some()
        {
            let literal = literal.clone();
            if let Ok(constant) = u8::try_from(self.constant(&literal)?) {
                let register = self.any_register(left)?;
                self.release_value(left);
                self.f.position = position;
                return Ok(Operand::Relocatable(self.emit_abc(
                    with_constant,
                    0,
                    register,
                    constant,
                )?));
            }
        }
        let constant_left = match op {
            Op::ADD => Some(Op::KADD),
            Op::SUB => Some(Op::KSUB),
            Op::MUL => Some(Op::KMUL),
            Op::DIV => Some(Op::KDIV),
            _ => None,
        };
        if let Some(op) = constant_left
            && let Some(literal) = left.literal()
            && number_of(literal).is_some()
        {
            let literal = literal.clone();
            if let Ok(constant) = u8::try_from(self.constant(&literal)?) {
                let register = self.any_register(right)?;
                self.release_value(right);
                self.f.position = position;
                let at = self.emit_abc(op, 0, constant, register)?;
                return Ok(Operand::Relocatable(at));
            }
        }
        // A constant on the left is loaded after the right operand is known: it has no effect of its own.
        let b = self.any_register(right)?;
        let a = self.any_register(left)?;
        self.release_values(left, right);
        self.f.position = position;
        Ok(Operand::Relocatable(self.emit_abc(op, 0, a, b)?))
    }

    fn comparison(
        &mut self,
        operator: BinaryOp,
        left: &mut Expression,
        right: &mut Expression,
        position: Position,
    ) -> Coded<Operand> {
        let (mut left, mut right) = (left, right);
        if matches!(operator, BinaryOp::Eq | BinaryOp::Ne) {
            if left.literal().is_some() {
                core::mem::swap(&mut left, &mut right);
            }
            let (op, with_constant, with_integer, with_special) = if operator == BinaryOp::Eq {
                (Op::ISEQ, Op::ISEQK, Op::ISEQI, Op::ISEQP)
            } else {
                (Op::ISNE, Op::ISNEK, Op::ISNEI, Op::ISNEP)
            };
            let small = immediate(right).map(|i| (with_integer, i));
            if let Some((op, d)) = small.or(special(right).map(|which| (with_special, which))) {
                let register = self.any_register(left)?;
                self.release_value(left);
                return self.compare(op, register, d, position);
            }
            if let Some(literal) = right.literal() {
                let literal = literal.clone();
                if let Ok(constant) = u16::try_from(self.constant(&literal)?) {
                    let register = self.any_register(left)?;
                    self.release_value(left);
                    return self.compare(with_constant, register, constant, position);
                }
            }
            return self.compare_registers(op, left, right, position);
        }
        // With a number known at compile time on either side, the other side is compared with it.
        let (lt, gt) = ((Op::ISLTI, Op::ISLTK), (Op::ISGTI, Op::ISGTK));
        let (le, ge) = ((Op::ISLEI, Op::ISLEK), (Op::ISGEI, Op::ISGEK));
        let (ops, turned, register_op, swapped) = match operator {
            BinaryOp::Lt => (lt, gt, Op::ISLT, false),
            BinaryOp::Le => (le, ge, Op::ISLE, false),
            BinaryOp::Gt => (gt, lt, Op::ISLT, true),
            _ => (ge, le, Op::ISLE, true),
        };
        if let Some((op, d)) = self.known_number(right, ops)? {
            let register = self.any_register(left)?;
            self.release_value(left);
            return self.compare(op, register, d, position);
        }
        if let Some((op, d)) = self.known_number(left, turned)? {
            let register = self.any_register(right)?;
            self.release_value(right);
            return self.compare(op, register, d, position);
        }
        if swapped {
            core::mem::swap(&mut left, &mut right);
        }
        self.compare_registers(register_op, left, right, position)
    }

    /// For an operand that is a known number: which of two comparisons takes it, that with a small integer or that with a constant, and its operand.
    fn known_number(
        &mut self,
        e: &Expression,
        (with_integer, with_constant): (Op, Op),
    ) -> Coded<Option<(Op, u16)>> {
        if let Some(i) = immediate(e) {
            return Ok(Some((with_integer, i)));
        }
        let Some(literal) = e.literal().filter(|literal| number_of(literal).is_some()) else {
            return Ok(None);
        };
        let index = self.constant(&literal.clone())?;
        Ok(u16::try_from(index)
            .ok()
            .map(|index| (with_constant, index)))
    }

    fn compare_registers(
        &mut self,
        op: Op,
        left: &mut Expression,
        right: &mut Expression,
        position: Position,
    ) -> Coded<Operand> {
        // A value still pending comes before a literal is loaded, whose code must not get between its jumps.
        let (a, b);
        // So does a raw one, which is boxed above the value's own registers.
        if left.literal().is_some() || left.raw().is_some() {
            b = self.any_register(right)?;
            a = self.any_register(left)?;
        } else {
            a = self.any_register(left)?;
            b = self.any_register(right)?;
        }
        self.release_values(left, right);
        self.compare(op, a, b.into(), position)
    }

    fn compare(&mut self, op: Op, a: u8, d: u16, position: Position) -> Coded<Operand> {
        self.f.position = position;
        self.emit_ad(op, a, d)?;
        Ok(Operand::Jump(self.jump()?))
    }
}
