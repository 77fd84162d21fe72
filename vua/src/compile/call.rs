//! Expressions: variables, indices, calls, table constructors, and the walk over them.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;

use super::operand::{Expression, Literal, Operand};
use super::{Coded, Compiler};
use crate::bytecode::Op;
use crate::syntax::Position;
use crate::syntax::ast::*;

/// Values that a table constructor collects in registers before it stores them.
const BATCH: usize = 50;
/// The most dense slots that `TNEW` can ask for.
const DENSE: usize = (1 << 11) - 1;

impl<'c> Compiler<'c> {
    pub(super) fn expr(&self, id: ExprId) -> &'c Expr {
        let chunk = self.chunk;
        &chunk.expressions[id.0 as usize]
    }

    /// Generates an expression, as far as it can be without knowing where its value is wanted.
    ///
    /// Operators, indices and calls lean left without bound, so that the way down to the leftmost operand is a loop.
    pub(super) fn expression(&mut self, id: ExprId) -> Coded<Expression> {
        let mut pending = Vec::new();
        let mut at = id;
        while let ExprKind::Binary(_, left, _)
        | ExprKind::Index(left, _)
        | ExprKind::Call(left, _)
        | ExprKind::Method(left, ..) = self.expr(at).kind
        {
            if self.is_raw_function(at) || self.constructed(at).is_some() {
                break;
            }
            pending.push(at);
            at = left;
        }
        let mut e = self.leaf(at)?;
        while let Some(at) = pending.pop() {
            self.continue_with(at, &mut e)?;
        }
        Ok(e)
    }

    /// An expression that does not begin with another one, or is self-contained.
    fn leaf(&mut self, id: ExprId) -> Coded<Expression> {
        let Expr { kind, position } = self.expr(id);
        let position = *position;
        self.f.position = position;
        let operand = match kind {
            ExprKind::Nil => Operand::Literal(Literal::Nil),
            ExprKind::True => Operand::Literal(Literal::Boolean(true)),
            ExprKind::False => Operand::Literal(Literal::Boolean(false)),
            ExprKind::Integer(i) => Operand::Literal(Literal::Integer(*i)),
            ExprKind::Float(f) => Operand::Literal(Literal::Float(*f)),
            ExprKind::String(s) => Operand::Literal(Literal::String(s.clone())),
            ExprKind::Ellipsis => Operand::Extra(self.emit_ad(Op::VARG, 0, 0)?),
            ExprKind::Local(variable) => {
                let mut e = Expression::new(self.variable_operand(*variable)?, position);
                e.kind = self.type_of(*variable);
                return Ok(e);
            }
            ExprKind::Global(name) => self.global(name, position)?,
            ExprKind::Function(function) => {
                let child = self.child(*function, None)?;
                self.f.position = position;
                Operand::Relocatable(self.emit_ad(Op::FNEW, 0, child)?)
            }
            ExprKind::Builtin(builtin) => {
                Operand::Relocatable(self.emit_ad(Op::BUILTIN, 0, *builtin as u16)?)
            }
            ExprKind::Table(items) => return self.table(items, position),
            ExprKind::Concat(operands) => return self.concatenation(operands, position),
            ExprKind::Unary(operator, operand) => {
                let mut e = self.expression(*operand)?;
                self.unary(*operator, &mut e, position)?;
                return Ok(e);
            }
            ExprKind::Parenthesized(inner) => {
                let mut e = self.expression(*inner)?;
                self.discharge(&mut e)?;
                return Ok(e);
            }
            ExprKind::Call(function, arguments) => {
                if let Some((index, items)) = self.constructed(id) {
                    return self.construct(index, items, position);
                }
                return self.raw_function(*function, arguments, position);
            }
            // No leaf.
            ExprKind::Binary(..) | ExprKind::Index(..) | ExprKind::Method(..) => {
                return self.expression(id);
            }
        };
        Ok(Expression::new(operand, position))
    }

    /// An operator, index or call behind its left operand.
    fn continue_with(&mut self, id: ExprId, e: &mut Expression) -> Coded<()> {
        let Expr { kind, position } = self.expr(id);
        let position = *position;
        match kind {
            ExprKind::Binary(operator, _, right) => {
                self.left_operand(*operator, e)?;
                let mut right = self.expression(*right)?;
                self.binary(*operator, e, &mut right, position)
            }
            ExprKind::Index(..) | ExprKind::Call(..) | ExprKind::Method(..)
                if e.raw().is_some() =>
            {
                let doing = match kind {
                    ExprKind::Call(..) => "call",
                    _ => "index",
                };
                let name = e.raw().map_or("", super::raw::Raw::name);
                let message = format!("attempt to {doing} a number value ({name})");
                self.report(e.position, message);
                let register = self.any_raw(e)?;
                self.release_raw(register);
                *e = Expression::new(Operand::Literal(Literal::Nil), position);
                Ok(())
            }
            ExprKind::Index(_, key)
                if e.kind != Type::Any || matches!(e.operand, Operand::Place(_)) =>
            {
                let operand = match self.place(e, *key)? {
                    Some(operand) => operand,
                    None => self.index(e, *key)?,
                };
                *e = Expression::new(operand, position);
                Ok(())
            }
            ExprKind::Index(_, key) => {
                let operand = self.index(e, *key)?;
                *e = Expression::new(operand, position);
                Ok(())
            }
            ExprKind::Call(_, arguments) => {
                let base = self.next_register(e)?;
                self.reserve(1)?;
                self.call(base, 0, arguments, position, e)?;
                e.kind = self.made_type(id);
                Ok(())
            }
            ExprKind::Method(_, name, at, arguments) => {
                let object = self.any_register(e)?;
                self.release_value(e);
                let base = self.reserve(3)?;
                let literal = Literal::String(Rc::from(name.as_bytes()));
                let name = self.constant(&literal)?;
                self.f.position = *at;
                match u16::try_from(name) {
                    Ok(name) => {
                        self.emit_abc(Op::SELF, base, object, 0)?;
                        self.emit_extension(name.into())?;
                    }
                    Err(_) => {
                        // The object first: it may be in the function's register.
                        self.emit_ad(Op::MOV, base + 2, object.into())?;
                        self.load(&literal, base)?;
                        self.emit_abc(Op::TGET, base, base + 2, base)?;
                    }
                }
                self.call(base, 1, arguments, position, e)
            }
            _ => Ok(()),
        }
    }

    /// A field of the chunk's own `_ENV`.
    fn global(&mut self, name: &str, position: Position) -> Coded<Operand> {
        let key = self.name_constant(name)?;
        if !self.chunk.variables[ENVIRONMENT.0 as usize].assigned
            && let Ok(key) = u16::try_from(key)
        {
            return Ok(Operand::Global(key));
        }
        let environment = self.variable_operand(ENVIRONMENT)?;
        let table = self.any_register(&mut Expression::new(environment, position))?;
        self.field(table, Literal::String(Rc::from(name.as_bytes())), position)
    }

    /// A field of the table in a register. Where there are more constants than the instruction can name, the name is loaded first.
    fn field(&mut self, table: u8, name: Literal, position: Position) -> Coded<Operand> {
        Ok(match u16::try_from(self.constant(&name)?) {
            Ok(key) => Operand::Field(table, key),
            Err(_) => {
                let mut key = Expression::new(Operand::Literal(name), position);
                Operand::Index(table, self.any_register(&mut key)?)
            }
        })
    }

    /// An index of the value `e`.
    pub(super) fn index(&mut self, e: &mut Expression, key: ExprId) -> Coded<Operand> {
        let table = self.any_register(e)?;
        let mut key = self.expression(key)?;
        self.settle(&mut key)?;
        match key.literal() {
            Some(literal @ Literal::String(_)) => {
                let literal = literal.clone();
                self.field(table, literal, e.position)
            }
            Some(&Literal::Integer(i @ 0..=255)) => Ok(Operand::Element(table, i as u8)),
            _ => Ok(Operand::Index(table, self.any_register(&mut key)?)),
        }
    }

    /// A call of the function in `base`, behind which `fixed` arguments are in place already.
    fn call(
        &mut self,
        base: u8,
        fixed: usize,
        arguments: &[ExprId],
        position: Position,
        e: &mut Expression,
    ) -> Coded<()> {
        let open = self.values(arguments)?;
        let count = fixed + arguments.len() - usize::from(open);
        self.f.position = position;
        let op = if open { Op::CALLM } else { Op::CALL };
        let at = self.emit_abc(op, base, count as u8, 2)?;
        self.f.free = usize::from(base) + 1;
        *e = Expression::new(Operand::Call(at), position);
        Ok(())
    }

    /// Puts values into the next registers. True if the last is left open, behind them.
    pub(super) fn values(&mut self, list: &[ExprId]) -> Coded<bool> {
        let Some((last, others)) = list.split_last() else {
            return Ok(false);
        };
        for &value in others {
            let mut e = self.expression(value)?;
            self.next_register(&mut e)?;
        }
        let mut e = self.expression(*last)?;
        if e.is_open() {
            self.set_values(&e, None)?;
            return Ok(true);
        }
        self.next_register(&mut e)?;
        Ok(false)
    }

    fn concatenation(&mut self, operands: &[ExprId], position: Position) -> Coded<Expression> {
        let first = self.f.free;
        for &operand in operands {
            let mut e = self.expression(operand)?;
            self.next_register(&mut e)?;
        }
        let last = self.f.free - 1;
        self.f.free = first;
        self.f.position = position;
        let at = self.emit_abc(Op::CONCAT, 0, first as u8, last as u8)?;
        Ok(Expression::new(Operand::Relocatable(at), position))
    }

    fn table(&mut self, items: &[Item], position: Position) -> Coded<Expression> {
        if items.is_empty() {
            let at = self.emit_ad(Op::TNEW, 0, 0)?;
            return Ok(Expression::new(Operand::Relocatable(at), position));
        }
        let table = self.reserve(1)?;
        let positional = items
            .iter()
            .filter(|item| matches!(item, Item::Positional(_)))
            .count();
        let keyed = items.len() - positional;
        let hash = match keyed {
            0 => 0,
            n => 1 + n.next_power_of_two().trailing_zeros().min(30),
        };
        let sizes = positional.min(DENSE) as u16 | (hash as u16) << 11;
        self.f.position = position;
        self.emit_ad(Op::TNEW, table, sizes)?;
        let mut pending = 0;
        let mut index = 1u32;
        for (i, item) in items.iter().enumerate() {
            match item {
                Item::Keyed(key, value) => {
                    let at = self.expr(*key).position;
                    let mut e = Expression::new(Operand::Register(table), position);
                    let free = self.f.free;
                    let target = self.index(&mut e, *key)?;
                    let mut value = self.expression(*value)?;
                    self.store(&target, &mut value, at, "")?;
                    self.f.free = free;
                }
                Item::Positional(value) => {
                    let mut e = self.expression(*value)?;
                    if e.is_open() && i + 1 == items.len() {
                        self.set_values(&e, None)?;
                        self.emit_ad(Op::TLISTM, table, pending as u16)?;
                        self.emit_extension(index)?;
                        self.f.free = usize::from(table) + 1;
                        pending = 0;
                        continue;
                    }
                    self.next_register(&mut e)?;
                    pending += 1;
                    if pending == BATCH {
                        self.emit_list(table, pending, index)?;
                        index = index.wrapping_add(pending as u32);
                        pending = 0;
                    }
                }
            }
        }
        if pending > 0 {
            self.emit_list(table, pending, index)?;
        }
        Ok(Expression::new(Operand::Register(table), position))
    }

    fn emit_list(&mut self, table: u8, count: usize, index: u32) -> Coded<()> {
        self.emit_ad(Op::TLIST, table, count as u16)?;
        self.emit_extension(index)?;
        self.f.free = usize::from(table) + 1;
        Ok(())
    }
}
