//! Descriptors of expressions, and how their values get into registers.

use alloc::boxed::Box;
use alloc::rc::Rc;

use super::emit::{NO_JUMP, NO_REGISTER};
use super::place::Place;
use super::raw::Raw;
use super::{Coded, Compiler, Location};
use crate::bytecode::instructions::{a, ad, d};
use crate::bytecode::{CaptureKind, Op};
use crate::syntax::Position;
use crate::syntax::ast::*;

/// A value known at compile time.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    Nil,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    String(Rc<[u8]>),
    /// The type of a struct of the chunk.
    Struct(u32),
}

impl Literal {
    /// The type of the value, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Literal::Nil => "nil",
            Literal::Boolean(_) => "boolean",
            Literal::Integer(_) | Literal::Float(_) => "number",
            Literal::String(_) => "string",
            Literal::Struct(_) => "type",
        }
    }
}

/// What is known of an expression's value.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// The value itself.
    Literal(Literal),
    /// A variable in a register, which must not be overwritten.
    Variable(u8),
    /// A variable in a cell, in a register.
    Cell(u8),
    /// A capture of this kind.
    Capture(u16, CaptureKind),
    /// A global, by its name's constant.
    Global(u16),
    /// `R[0][R[1]]`.
    Index(u8, u8),
    /// `R[0][K[1]]`, a string.
    Field(u8, u16),
    /// `R[0][1]`, a small integer.
    Element(u8, u8),
    /// A comparison, whose `JMP` is at this instruction and taken when it is true.
    Jump(i32),
    /// The instruction there computes it, to a register that is still to be chosen.
    Relocatable(usize),
    /// In a register.
    Register(u8),
    /// A raw variable in a register, which must not be overwritten.
    RawVariable(u8, Raw),
    /// A raw variable in a cell, in a register.
    RawCell(u8, Raw),
    /// A capture of a raw word, or of a cell that holds one.
    RawCapture(u16, CaptureKind, Raw),
    /// The instruction there computes it, to a raw register that is still to be chosen.
    RawRelocatable(usize, Raw),
    /// In a raw register.
    RawRegister(u8, Raw),
    /// A field or element of a known type.
    Place(Box<Place>),
    /// The results of the call at this instruction.
    Call(usize),
    /// The extra arguments, by the instruction there.
    Extra(usize),
}

/// An expression: its value, and the jumps that leave it early because it is true or false.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    pub operand: Operand,
    pub if_true: i32,
    pub if_false: i32,
    /// Where errors in its evaluation are reported.
    pub position: Position,
    /// The struct or array that the value is known to be.
    pub kind: Type,
}

impl Expression {
    pub fn new(operand: Operand, position: Position) -> Expression {
        Expression {
            operand,
            if_true: NO_JUMP,
            if_false: NO_JUMP,
            position,
            kind: Type::Any,
        }
    }

    pub fn has_jumps(&self) -> bool {
        self.if_true != self.if_false
    }

    /// Its value, if it is known.
    pub fn literal(&self) -> Option<&Literal> {
        match &self.operand {
            Operand::Literal(literal) if !self.has_jumps() => Some(literal),
            _ => None,
        }
    }

    /// Whether it may have any number of values.
    pub fn is_open(&self) -> bool {
        matches!(self.operand, Operand::Call(_) | Operand::Extra(_))
    }
}

impl Compiler<'_> {
    /// The variable of an expression, as an operand.
    pub(super) fn variable_operand(&mut self, id: VariableId) -> Coded<Operand> {
        let location = &self.locations[id.0 as usize];
        if let Location::Constant(literal) = location {
            return Ok(Operand::Literal(literal.clone()));
        }
        let raw = Raw::of(self.variable(id).kind);
        if self.variable(id).function == self.f.id {
            match (location, raw) {
                (&Location::Register(register), None) => return Ok(Operand::Variable(register)),
                (&Location::Register(register), Some(raw)) => {
                    return Ok(Operand::RawVariable(register, raw));
                }
                (&Location::Cell(register), None) => return Ok(Operand::Cell(register)),
                (&Location::Cell(register), Some(raw)) => {
                    return Ok(Operand::RawCell(register, raw));
                }
                _ => {}
            }
        }
        let index = self.capture(id)?;
        let kind = self.f.captures[usize::from(index)].kind;
        Ok(match raw {
            Some(raw) => Operand::RawCapture(index, kind, raw),
            None => Operand::Capture(index, kind),
        })
    }

    /// Reads what is not in a register yet: the value is then known, in a register, or relocatable. Of several, the first.
    pub(super) fn discharge(&mut self, e: &mut Expression) -> Coded<()> {
        if matches!(
            e.operand,
            Operand::Literal(_)
                | Operand::Jump(_)
                | Operand::Relocatable(_)
                | Operand::Register(_)
                | Operand::RawRelocatable(..)
                | Operand::RawRegister(..)
        ) {
            return Ok(());
        }
        let before = core::mem::replace(&mut self.f.position, e.position);
        e.operand = match e.operand {
            Operand::Variable(register) => Operand::Register(register),
            Operand::Cell(register) => {
                Operand::Relocatable(self.emit_ad(Op::CELLGET, 0, register.into())?)
            }
            Operand::Capture(index, CaptureKind::Cell) => {
                Operand::Relocatable(self.emit_ad(Op::GETCELL, 0, index)?)
            }
            Operand::Capture(index, _) => {
                Operand::Relocatable(self.emit_ad(Op::GETCAP, 0, index)?)
            }
            Operand::Place(ref place) => {
                let place = (**place).clone();
                e.operand = self.read_place(place, e.position)?;
                self.f.position = before;
                return self.discharge(e);
            }
            Operand::RawVariable(register, raw) => Operand::RawRegister(register, raw),
            Operand::RawCell(register, raw) => {
                Operand::RawRelocatable(self.emit_ad(Op::RCELLGET, 0, register.into())?, raw)
            }
            Operand::RawCapture(index, CaptureKind::RawCell, raw) => {
                Operand::RawRelocatable(self.emit_ad(Op::RGETCELL, 0, index)?, raw)
            }
            Operand::RawCapture(index, _, raw) => {
                Operand::RawRelocatable(self.emit_ad(Op::RGETCAP, 0, index)?, raw)
            }
            Operand::Global(name) => {
                let at = self.emit_ad(Op::GGET, 0, 0)?;
                self.emit_extension(name.into())?;
                Operand::Relocatable(at)
            }
            Operand::Index(table, key) => {
                self.release_two(table, key);
                Operand::Relocatable(self.emit_abc(Op::TGET, 0, table, key)?)
            }
            Operand::Field(table, key) => {
                self.release(table);
                let at = self.emit_abc(Op::TGETS, 0, table, 0)?;
                self.emit_extension(key.into())?;
                Operand::Relocatable(at)
            }
            Operand::Element(table, key) => {
                self.release(table);
                Operand::Relocatable(self.emit_abc(Op::TGETI, 0, table, key)?)
            }
            Operand::Call(at) => Operand::Register(self.f.operands(at).0 as u8),
            Operand::Extra(at) => {
                self.f.set_d(at, 2);
                Operand::Relocatable(at)
            }
            _ => return Ok(()),
        };
        self.f.position = before;
        Ok(())
    }

    /// Puts a literal into a register.
    pub(super) fn load(&mut self, literal: &Literal, register: u8) -> Coded<()> {
        match literal {
            Literal::Nil => return self.nil(register, 1),
            Literal::Boolean(b) => self.emit_ad(Op::KBOOL, register, (*b).into())?,
            Literal::Integer(i) if i16::try_from(*i).is_ok() => {
                self.emit_ad(Op::KINT, register, *i as i16 as u16)?
            }
            _ => {
                let index = self.constant(literal)?;
                match u16::try_from(index) {
                    Ok(index) => self.emit_ad(Op::KVAL, register, index)?,
                    Err(_) => {
                        let at = self.emit_ad(Op::KVALX, register, 0)?;
                        self.emit_extension(index as u32)?;
                        at
                    }
                }
            }
        };
        Ok(())
    }

    /// Puts a value, jumps aside, into a register. A comparison stays one.
    fn discharge_to(&mut self, e: &mut Expression, register: u8) -> Coded<()> {
        self.discharge(e)?;
        self.boxed(e)?;
        match &e.operand {
            Operand::Literal(literal) => {
                let literal = literal.clone();
                self.load(&literal, register)?;
            }
            Operand::Relocatable(at) => self.f.set_a(*at, register),
            Operand::Register(source) => {
                if *source != register {
                    self.emit_ad(Op::MOV, register, (*source).into())?;
                }
            }
            _ => return Ok(()),
        }
        e.operand = Operand::Register(register);
        Ok(())
    }

    /// Gives back the register of a value that is in a temporary one.
    pub(super) fn release_value(&mut self, e: &Expression) {
        match e.operand {
            Operand::Register(register) => self.release(register),
            Operand::RawRegister(register, _) => self.release_raw(register),
            _ => {}
        }
    }

    /// Gives back the registers of two values.
    pub(super) fn release_values(&mut self, one: &Expression, other: &Expression) {
        match (&one.operand, &other.operand) {
            (&Operand::Register(one), &Operand::Register(other)) => self.release_two(one, other),
            _ => {
                self.release_value(one);
                self.release_value(other);
            }
        }
    }

    /// Puts a value, jumps and all, into a register.
    pub(super) fn put(&mut self, e: &mut Expression, register: u8) -> Coded<()> {
        self.discharge_to(e, register)?;
        let comparison = match e.operand {
            Operand::Jump(at) => {
                self.f.prepend(&mut e.if_true, at);
                true
            }
            _ => false,
        };
        if e.has_jumps() {
            let (mut put_false, mut put_true) = (0, 0);
            if self.f.needs_value(e.if_true) || self.f.needs_value(e.if_false) {
                let over = if comparison { NO_JUMP } else { self.jump()? };
                put_false = self.f.target();
                self.emit_ad(Op::KBOOL, register, 0)?;
                let skip = self.jump()?;
                put_true = self.f.target();
                self.emit_ad(Op::KBOOL, register, 1)?;
                let end = self.f.target();
                self.f.patch_jumps(skip, end);
                self.f.patch_jumps(over, end);
            }
            let end = self.f.target();
            self.f.patch_values(e.if_false, end, register, put_false);
            self.f.patch_values(e.if_true, end, register, put_true);
        }
        e.if_true = NO_JUMP;
        e.if_false = NO_JUMP;
        e.operand = Operand::Register(register);
        Ok(())
    }

    /// Puts a value into the next free register, and takes that.
    pub(super) fn next_register(&mut self, e: &mut Expression) -> Coded<u8> {
        self.discharge(e)?;
        self.boxed(e)?;
        self.release_value(e);
        let register = self.reserve(1)?;
        self.put(e, register)?;
        Ok(register)
    }

    /// Puts a value into whatever register is cheapest, and gives that.
    pub(super) fn any_register(&mut self, e: &mut Expression) -> Coded<u8> {
        self.discharge(e)?;
        if let Operand::Register(register) = e.operand {
            if !e.has_jumps() {
                return Ok(register);
            }
            if usize::from(register) >= self.f.level(self.f.active.len()) {
                self.put(e, register)?;
                return Ok(register);
            }
        }
        self.next_register(e)
    }

    /// Makes a value known or in a register.
    pub(super) fn settle(&mut self, e: &mut Expression) -> Coded<()> {
        if e.has_jumps() {
            self.any_register(e)?;
            return Ok(());
        }
        self.discharge(e)
    }

    /// Stores a value in a variable or table; `what` is the target, for messages.
    pub(super) fn store(
        &mut self,
        target: &Operand,
        value: &mut Expression,
        position: Position,
        what: &str,
    ) -> Coded<()> {
        match *target {
            Operand::Variable(register) => {
                self.discharge(value)?;
                self.boxed(value)?;
                self.release_value(value);
                return self.put(value, register);
            }
            Operand::Place(ref place) => return self.write_place(place, value, position),
            Operand::RawVariable(register, raw) => {
                return self.put_raw(value, raw, register, what);
            }
            Operand::RawCell(cell, raw) => {
                let source = self.any_raw_as(value, raw, what)?;
                self.release_raw(source);
                self.emit_ad(Op::RCELLSET, cell, source.into())?;
                return Ok(());
            }
            Operand::RawCapture(index, _, raw) => {
                let source = self.any_raw_as(value, raw, what)?;
                self.release_raw(source);
                self.emit_ad(Op::RSETCELL, source, index)?;
                return Ok(());
            }
            _ => {}
        }
        if self.store_constant(target, value, position)? {
            return Ok(());
        }
        let source = self.any_register(value)?;
        let before = core::mem::replace(&mut self.f.position, position);
        match *target {
            Operand::Cell(cell) => {
                self.emit_ad(Op::CELLSET, cell, source.into())?;
            }
            Operand::Capture(index, _) => {
                self.emit_ad(Op::SETCELL, source, index)?;
            }
            Operand::Global(name) => {
                self.emit_ad(Op::GSET, source, 0)?;
                self.emit_extension(name.into())?;
            }
            Operand::Index(table, key) => {
                self.emit_abc(Op::TSET, source, table, key)?;
            }
            Operand::Field(table, key) => {
                self.emit_abc(Op::TSETS, source, table, 0)?;
                self.emit_extension(key.into())?;
            }
            Operand::Element(table, key) => {
                self.emit_abc(Op::TSETI, source, table, key)?;
            }
            _ => debug_assert!(false, "the parser lets nothing else be assigned"),
        }
        self.f.position = before;
        self.release_value(value);
        Ok(())
    }

    /// Stores a value that is known in a table, if an instruction can name both.
    fn store_constant(
        &mut self,
        target: &Operand,
        value: &Expression,
        position: Position,
    ) -> Coded<bool> {
        if !matches!(
            target,
            Operand::Index(..) | Operand::Field(..) | Operand::Element(..)
        ) {
            return Ok(false);
        }
        let Some(literal) = value.literal().cloned() else {
            return Ok(false);
        };
        let Ok(constant) = u8::try_from(self.constant(&literal)?) else {
            return Ok(false);
        };
        let before = core::mem::replace(&mut self.f.position, position);
        match *target {
            Operand::Index(table, key) => {
                self.emit_abc(Op::TSETK, constant, table, key)?;
            }
            Operand::Field(table, key) => {
                self.emit_abc(Op::TSETSK, constant, table, 0)?;
                self.emit_extension(key.into())?;
            }
            Operand::Element(table, key) => {
                self.emit_abc(Op::TSETIK, constant, table, key)?;
            }
            _ => {}
        }
        self.f.position = before;
        Ok(true)
    }

    // Conditions.

    /// Turns the comparison before a jump around.
    fn negate(&mut self, at: i32) {
        let control = self.f.control(at);
        let op = match Op::of(self.f.code[control]) {
            Some(Op::ISLT) => Op::ISNLT,
            Some(Op::ISNLT) => Op::ISLT,
            Some(Op::ISLE) => Op::ISNLE,
            Some(Op::ISNLE) => Op::ISLE,
            Some(Op::ISEQ) => Op::ISNE,
            Some(Op::ISNE) => Op::ISEQ,
            Some(Op::ISEQK) => Op::ISNEK,
            Some(Op::ISNEK) => Op::ISEQK,
            Some(Op::ISLTI) => Op::ISNLTI,
            Some(Op::ISNLTI) => Op::ISLTI,
            Some(Op::ISLEI) => Op::ISNLEI,
            Some(Op::ISNLEI) => Op::ISLEI,
            Some(Op::ISGTI) => Op::ISNGTI,
            Some(Op::ISNGTI) => Op::ISGTI,
            Some(Op::ISGEI) => Op::ISNGEI,
            Some(Op::ISNGEI) => Op::ISGEI,
            Some(Op::ISLTK) => Op::ISNLTK,
            Some(Op::ISNLTK) => Op::ISLTK,
            Some(Op::ISLEK) => Op::ISNLEK,
            Some(Op::ISNLEK) => Op::ISLEK,
            Some(Op::ISGTK) => Op::ISNGTK,
            Some(Op::ISNGTK) => Op::ISGTK,
            Some(Op::ISGEK) => Op::ISNGEK,
            Some(Op::ISNGEK) => Op::ISGEK,
            Some(Op::ISEQI) => Op::ISNEI,
            Some(Op::ISNEI) => Op::ISEQI,
            Some(Op::ISEQP) => Op::ISNEP,
            Some(Op::ISNEP) => Op::ISEQP,
            Some(Op::IEQ) => Op::INE,
            Some(Op::INE) => Op::IEQ,
            Some(Op::FEQ) => Op::FNE,
            Some(Op::FNE) => Op::FEQ,
            Some(Op::FLT) => Op::FNLT,
            Some(Op::FNLT) => Op::FLT,
            Some(Op::FLE) => Op::FNLE,
            Some(Op::FNLE) => Op::FLE,
            Some(op @ (Op::ILT | Op::ILE)) => {
                // Integers are ordered: not a < b is b <= a.
                let (left, right) = (a(self.f.code[control]), d(self.f.code[control]));
                let turned = if op == Op::ILT { Op::ILE } else { Op::ILT };
                self.f.code[control] = ad(turned, right as u8, left as u16);
                return;
            }
            Some(op @ (Op::IULT | Op::INULT)) => {
                if op == Op::IULT {
                    Op::INULT
                } else {
                    Op::IULT
                }
            }
            Some(Op::ICMPF) => {
                self.f.code[control] ^= 1 << 24;
                return;
            }
            _ => return debug_assert!(false, "only a comparison gives a jump"),
        };
        self.f.set_op(control, op);
    }

    /// Emits a jump for when a value is true, or false.
    fn jump_on(&mut self, e: &mut Expression, condition: bool) -> Coded<i32> {
        if let Operand::Relocatable(at) = e.operand
            && Op::of(self.f.code[at]) == Some(Op::NOT)
            && at + 1 == self.f.here()
        {
            let source = (self.f.code[at] >> 16) as u16;
            self.f.remove_last();
            let op = if condition { Op::ISF } else { Op::IST };
            self.emit_ad(op, 0, source)?;
            return self.jump();
        }
        if !matches!(e.operand, Operand::Register(_)) {
            let register = self.reserve(1)?;
            self.discharge_to(e, register)?;
        }
        self.release_value(e);
        let Operand::Register(register) = e.operand else {
            return Ok(NO_JUMP);
        };
        let op = if condition { Op::ISTC } else { Op::ISFC };
        self.emit_ad(op, NO_REGISTER, register.into())?;
        self.jump()
    }

    /// Goes on if the expression is true; its list `if_false` is left for when it is not.
    pub(super) fn go_if_true(&mut self, e: &mut Expression) -> Coded<()> {
        self.discharge(e)?;
        if e.raw().is_some() {
            // Every number is true, and its value is not needed.
            let register = self.any_raw(e)?;
            self.release_raw(register);
            e.operand = Operand::Literal(Literal::Boolean(true));
        }
        let position = core::mem::replace(&mut self.f.position, e.position);
        let jump = match e.operand {
            Operand::Jump(at) => {
                self.negate(at);
                at
            }
            Operand::Literal(Literal::Nil | Literal::Boolean(false)) => {
                // Tested all the same, so that every jump of the list has a test before it.
                self.jump_on(e, false)?
            }
            Operand::Literal(_) => NO_JUMP,
            _ => self.jump_on(e, false)?,
        };
        self.f.position = position;
        self.f.prepend(&mut e.if_false, jump);
        self.f.patch_conditions_here(e.if_true);
        e.if_true = NO_JUMP;
        Ok(())
    }

    /// Goes on if the expression is false; its list `if_true` is left for when it is not.
    pub(super) fn go_if_false(&mut self, e: &mut Expression) -> Coded<()> {
        self.discharge(e)?;
        self.boxed(e)?;
        let position = core::mem::replace(&mut self.f.position, e.position);
        let jump = match e.operand {
            Operand::Jump(at) => at,
            Operand::Literal(Literal::Nil | Literal::Boolean(false)) => NO_JUMP,
            _ => self.jump_on(e, true)?,
        };
        self.f.position = position;
        self.f.prepend(&mut e.if_true, jump);
        self.f.patch_conditions_here(e.if_false);
        e.if_false = NO_JUMP;
        Ok(())
    }

    /// `not` of an expression.
    pub(super) fn not(&mut self, e: &mut Expression) -> Coded<()> {
        self.discharge(e)?;
        match e.operand {
            Operand::Literal(Literal::Nil | Literal::Boolean(false)) => {
                e.operand = Operand::Literal(Literal::Boolean(true));
            }
            Operand::Literal(_) => e.operand = Operand::Literal(Literal::Boolean(false)),
            Operand::Jump(at) => self.negate(at),
            _ => {
                if !matches!(e.operand, Operand::Register(_)) {
                    let register = self.reserve(1)?;
                    self.discharge_to(e, register)?;
                }
                self.release_value(e);
                if let Operand::Register(register) = e.operand {
                    e.operand = Operand::Relocatable(self.emit_ad(Op::NOT, 0, register.into())?);
                }
            }
        }
        core::mem::swap(&mut e.if_true, &mut e.if_false);
        self.f.drop_values(e.if_true);
        self.f.drop_values(e.if_false);
        Ok(())
    }

    /// Makes `e` the call or the extra arguments with `count` values, or all.
    pub(super) fn set_values(&mut self, e: &Expression, count: Option<usize>) -> Coded<()> {
        let field = count.map_or(0, |n| n + 1);
        match e.operand {
            Operand::Call(at) => self.f.set_c(at, field as u8),
            Operand::Extra(at) => {
                let register = self.reserve(1)?;
                let word = self.f.code[at];
                debug_assert_eq!(a(word), 0);
                self.f.code[at] = ad(Op::VARG, register, field as u16);
            }
            _ => {}
        }
        Ok(())
    }
}
