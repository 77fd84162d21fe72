//! Statements: declarations, assignments, returns.

use alloc::string::String;
use alloc::vec::Vec;

use super::operand::{Expression, Literal, Operand};
use super::{Coded, Compiler};
use crate::bytecode::Op;
use crate::syntax::Position;
use crate::syntax::ast::*;

impl<'c> Compiler<'c> {
    /// The statements of a block.
    pub(super) fn block_statements(&mut self, block: &'c Block) -> Coded<()> {
        self.statements(block, false)
    }

    /// The statements of a `repeat`, whose variables live on in its condition.
    pub(super) fn repeat_statements(&mut self, block: &'c Block) -> Coded<()> {
        self.statements(block, true)
    }

    fn statements(&mut self, block: &'c Block, lives_on: bool) -> Coded<()> {
        // Behind the last statement that is not a label, a label ends the block.
        let tail = block
            .statements
            .iter()
            .rposition(|s| !matches!(s.kind, StatementKind::Label(_)))
            .map_or(0, |i| i + 1);
        for (i, statement) in block.statements.iter().enumerate() {
            self.f.position = statement.position;
            if let StatementKind::Label(name) = &statement.kind {
                self.label(name, statement.position, i >= tail && !lives_on)?;
            } else {
                self.statement(statement)?;
            }
            self.f.release_temporaries();
        }
        Ok(())
    }

    fn statement(&mut self, statement: &'c Statement) -> Coded<()> {
        match &statement.kind {
            StatementKind::Local(variables, values) => self.local(variables, values),
            StatementKind::Assign(targets, values) => self.assignment(targets, values),
            StatementKind::Call(call) => self.call_statement(*call),
            StatementKind::Do(block) => self.block(block),
            StatementKind::While(condition, body) => self.while_loop(*condition, body),
            StatementKind::Repeat(body, condition) => self.repeat_loop(body, *condition),
            StatementKind::If(arms, otherwise) => self.if_statement(arms, otherwise.as_ref()),
            StatementKind::NumericFor {
                variable,
                start,
                limit,
                step,
                body,
            } => self.numeric_for(*variable, (*start, *limit, *step), body),
            StatementKind::GenericFor {
                variables,
                values,
                body,
                line,
            } => self.generic_for(variables, values, body, *line),
            StatementKind::ParallelFor {
                function,
                start,
                limit,
                step,
            } => self.parallel_for(*function, (*start, *limit, *step)),
            StatementKind::Function(target, function) => {
                self.function_statement(*target, *function)
            }
            StatementKind::Struct(variable, index) => self.struct_type(*variable, *index),
            StatementKind::StructOfModule(variable, index, load) => {
                self.call_statement(*load)?;
                self.f.release_temporaries();
                self.struct_type(*variable, *index)
            }
            StatementKind::LocalFunction(variable, function) => {
                self.local_function(*variable, *function)
            }
            StatementKind::Return(values) => self.return_statement(values),
            StatementKind::Break => self.break_statement(),
            StatementKind::Goto(name) => self.goto(name, statement.position),
            StatementKind::Label(_) => Ok(()),
        }
    }

    fn call_statement(&mut self, call: ExprId) -> Coded<()> {
        let mut e = self.expression(call)?;
        if e.is_open() {
            return self.set_values(&e, Some(0));
        }
        // What only looks like a call, a conversion or a new struct: computed for its errors, into a register that is free again.
        if e.raw().is_some() {
            let register = self.any_raw(&mut e)?;
            self.release_raw(register);
        } else if e.literal().is_none() {
            self.any_register(&mut e)?;
        }
        Ok(())
    }

    /// The variable that names a struct's type, which is a constant of the chunk.
    fn struct_type(&mut self, variable: VariableId, index: u32) -> Coded<()> {
        let register = self.reserve(1)?;
        let constant = self.short_constant(&Literal::Struct(index))?;
        self.emit_ad(Op::KVAL, register, constant)?;
        self.declare(variable, register)
    }

    /// Puts `wanted` values into the next registers: those of the list, then nil; the rest of the list is computed and lost.
    pub(super) fn adjusted(&mut self, list: &[ExprId], wanted: usize) -> Coded<()> {
        let first = self.f.free;
        let Some((last, others)) = list.split_last() else {
            let register = self.reserve(wanted)?;
            return self.nil(register, wanted);
        };
        for &value in others {
            let mut e = self.expression(value)?;
            self.next_register(&mut e)?;
        }
        let mut e = self.expression(*last)?;
        self.adjust_last(&mut e, list.len(), wanted)?;
        self.f.free = first + wanted;
        Ok(())
    }

    /// The last of `given` values, of which `wanted` are needed.
    pub(super) fn adjust_last(
        &mut self,
        e: &mut Expression,
        given: usize,
        wanted: usize,
    ) -> Coded<()> {
        if e.is_open() {
            let more = (wanted + 1).saturating_sub(given);
            self.set_values(e, Some(more))?;
            // The first register of a call's results is taken back, of the extra arguments' it is taken already.
            match e.operand {
                Operand::Extra(_) => self.f.free -= 1,
                Operand::Call(at) => self.f.free = self.f.operands(at).0,
                _ => {}
            }
            self.reserve(more)?;
            return Ok(());
        }
        self.next_register(e)?;
        if wanted > given {
            let register = self.reserve(wanted - given)?;
            self.nil(register, wanted - given)?;
        }
        Ok(())
    }

    fn local(&mut self, variables: &[VariableId], values: &[ExprId]) -> Coded<()> {
        let Some((&last, others)) = variables.split_last() else {
            return Ok(());
        };
        if variables
            .iter()
            .any(|&id| self.variable(id).kind != Type::Any)
        {
            return self.typed_local(variables, values);
        }
        let first = self.f.free as u8;
        if variables.len() == values.len() && self.variable(last).attribute == Attribute::Const {
            let (value, before) = (values[values.len() - 1], &values[..values.len() - 1]);
            for &value in before {
                let mut e = self.expression(value)?;
                self.next_register(&mut e)?;
            }
            let mut e = self.expression(value)?;
            if let Some(literal) = e.literal() {
                let literal = literal.clone();
                self.declare_all(others, first)?;
                self.declare_constant(last, literal);
                return Ok(());
            }
            self.next_register(&mut e)?;
            self.note_type(last, e.kind);
        } else if let ([id], [value]) = (variables, values) {
            let mut e = self.expression(*value)?;
            if e.is_open() {
                self.adjust_last(&mut e, 1, 1)?;
                self.f.free = usize::from(first) + 1;
            } else {
                self.next_register(&mut e)?;
            }
            self.note_type(*id, e.kind);
        } else {
            self.adjusted(values, variables.len())?;
        }
        self.declare_all(variables, first)
    }

    fn declare_all(&mut self, variables: &[VariableId], first: u8) -> Coded<()> {
        let mut closing = None;
        for (register, &variable) in (first..).zip(variables) {
            self.declare(variable, register)?;
            if self.variable(variable).attribute == Attribute::Close {
                closing = Some(register);
            }
        }
        if let Some(register) = closing {
            self.emit_ad(Op::TBC, register, 0)?;
            self.mark_closing(register);
        }
        Ok(())
    }

    /// What an assignment assigns: its table and key are computed, nothing is read.
    pub(super) fn target(&mut self, id: ExprId) -> Coded<Operand> {
        if let ExprKind::Index(table, key) = self.expr(id).kind {
            let mut table = self.expression(table)?;
            if (table.kind != Type::Any || matches!(table.operand, Operand::Place(_)))
                && let Some(place) = self.place(&mut table, key)?
            {
                return Ok(place);
            }
            return self.index(&mut table, key);
        }
        Ok(self.expression(id)?.operand)
    }

    /// What an assignment assigns, for messages.
    pub(super) fn target_name(&self, target: ExprId) -> String {
        match self.expr(target).kind {
            ExprKind::Local(id) => self.variable_name(id),
            _ => String::new(),
        }
    }

    /// Stores a value in the target of an assignment, which may be a variable of a type that is to be checked.
    fn assign(
        &mut self,
        target: ExprId,
        place: &Operand,
        value: &mut Expression,
        position: Position,
        what: &str,
    ) -> Coded<()> {
        let ExprKind::Local(id) = self.expr(target).kind else {
            return self.store(place, value, position, what);
        };
        let kind = self.variable(id).kind;
        if kind == Type::Any || kind.is_raw() {
            return self.store(place, value, position, what);
        }
        self.check_visible(id, value);
        if let Operand::Variable(register) = *place {
            // Nobody sees the variable between the two.
            self.store(place, value, position, what)?;
            return self.check_type(register, kind);
        }
        let register = self.any_register(value)?;
        self.check_type(register, kind)?;
        self.store(place, value, position, what)
    }

    fn assignment(&mut self, targets: &[ExprId], values: &[ExprId]) -> Coded<()> {
        if let ([target], [value]) = (targets, values) {
            let position = self.expr(*target).position;
            let what = self.target_name(*target);
            let id = *target;
            let target = self.target(*target)?;
            let mut value = self.expression(*value)?;
            return self.assign(id, &target, &mut value, position, &what);
        }
        let mut places: Vec<Operand> = Vec::with_capacity(targets.len());
        for &target in targets {
            let place = self.target(target)?;
            match place {
                Operand::Variable(register) => self.keep_from(&mut places, register)?,
                Operand::RawVariable(register, _) => self.keep_index(&mut places, register)?,
                _ => {}
            }
            places.push(place);
        }
        // Each value goes to a register of its place's kind; then they are stored, last first.
        let first = self.f.free;
        let mut kept: Vec<Expression> = Vec::with_capacity(targets.len());
        for (i, &value) in values.iter().enumerate() {
            let mut e = self.expression(value)?;
            let last = i + 1 == values.len();
            let missing = targets.len().saturating_sub(values.len());
            if last && missing > 0 {
                self.adjust_last(&mut e, values.len(), targets.len())?;
                let register = self.f.free - missing - 1;
                for register in register..self.f.free {
                    let operand = Operand::Register(register as u8);
                    kept.push(Expression::new(operand, self.expr(value).position));
                }
                continue;
            }
            match places.get(i) {
                Some(place) if last && i + 1 == targets.len() => {
                    // Stored first, so it needs no register of its own.
                    let place = place.clone();
                    self.discharge(&mut e)?;
                    let position = self.expr(targets[i]).position;
                    let what = self.target_name(targets[i]);
                    self.assign(targets[i], &place, &mut e, position, &what)?;
                }
                Some(place) => {
                    match Expression::new(place.clone(), e.position).raw() {
                        Some(raw) => {
                            let what = self.target_name(targets[i]);
                            self.next_raw(&mut e, raw, &what)?;
                        }
                        None => {
                            let known = e.raw().is_some() || self.visible_type(&e).is_some();
                            let register = self.next_register(&mut e)?;
                            // A struct goes into a struct or array by copying it, and all values are read first.
                            let holder = match *place {
                                Operand::Index(table, _)
                                | Operand::Field(table, _)
                                | Operand::Element(table, _) => Some(table),
                                Operand::Place(ref place) => Some(place.base),
                                _ => None,
                            };
                            if let Some(holder) = holder.filter(|_| !known) {
                                self.emit_abc(Op::COPYREF, register, register, holder)?;
                            }
                        }
                    }
                    kept.push(e);
                }
                None => {
                    // Computed, and lost.
                    let free = self.f.free;
                    self.next_register(&mut e)?;
                    self.f.free = free.max(first);
                }
            }
        }
        for (i, mut e) in kept.into_iter().enumerate().rev() {
            let position = self.expr(targets[i]).position;
            let what = self.target_name(targets[i]);
            if let Operand::Register(register) = e.operand {
                self.f.free = usize::from(register) + 1;
            }
            self.f.position = position;
            self.assign(targets[i], &places[i], &mut e, position, &what)?;
        }
        self.f.free = first;
        Ok(())
    }

    /// Before a raw variable is assigned: places to its left that use it as index use a copy.
    fn keep_index(&mut self, places: &mut [Operand], register: u8) -> Coded<()> {
        let uses =
            |place: &Operand| matches!(place, Operand::Place(p) if p.index == Some(register));
        if !places.iter().any(uses) {
            return Ok(());
        }
        let copy = self.reserve_raw(1)?;
        self.emit_ad(Op::RMOV, copy, register.into())?;
        for place in places {
            if let Operand::Place(place) = place
                && place.index == Some(register)
            {
                place.index = Some(copy);
            }
        }
        Ok(())
    }

    /// Before a variable is assigned: places to its left that use it as table or key use a copy.
    fn keep_from(&mut self, places: &mut [Operand], register: u8) -> Coded<()> {
        let uses = |place: &Operand| match *place {
            Operand::Index(table, key) => table == register || key == register,
            Operand::Field(table, _) | Operand::Element(table, _) => table == register,
            Operand::Place(ref place) => place.base == register,
            _ => false,
        };
        if !places.iter().any(uses) {
            return Ok(());
        }
        let copy = self.reserve(1)?;
        self.emit_ad(Op::MOV, copy, register.into())?;
        for place in places {
            match place {
                Operand::Index(table, key) => {
                    for used in [table, key] {
                        if *used == register {
                            *used = copy;
                        }
                    }
                }
                Operand::Field(table, _) | Operand::Element(table, _) if *table == register => {
                    *table = copy
                }
                Operand::Place(place) if place.base == register => place.base = copy,
                _ => {}
            }
        }
        Ok(())
    }

    fn return_statement(&mut self, values: &[ExprId]) -> Coded<()> {
        if self.results().is_some() {
            return self.typed_return(values);
        }
        let position = self.f.position;
        let closes = self.closes();
        let first = self.f.free as u8;
        if let [value] = values {
            let mut e = self.expression(*value)?;
            if !e.is_open() {
                let register = self.any_register(&mut e)?;
                self.f.position = position;
                self.close_from(closes)?;
                self.emit_ad(Op::RET1, register, 0)?;
                return Ok(());
            }
            if let (Operand::Call(at), None) = (&e.operand, closes) {
                return self.tail_call(*at);
            }
            self.set_values(&e, None)?;
            self.f.position = position;
            self.close_from(closes)?;
            self.emit_ad(Op::RETM, first, 0)?;
            return Ok(());
        }
        let open = self.values(values)?;
        self.f.position = position;
        self.close_from(closes)?;
        let count = (values.len() - usize::from(open)) as u16;
        match (count, open) {
            (0, false) => self.emit_ad(Op::RET0, 0, 0)?,
            (_, false) => self.emit_ad(Op::RET, first, count)?,
            (_, true) => self.emit_ad(Op::RETM, first, count)?,
        };
        Ok(())
    }

    /// Makes the call that was just generated one in tail position. The `RETM` is for natives, which are called from here.
    pub(super) fn tail_call(&mut self, at: usize) -> Coded<()> {
        let (a, b, _) = self.f.operands(at);
        let open = Op::of(self.f.code[at]) == Some(Op::CALLM);
        let op = if open { Op::TCALLM } else { Op::TCALL };
        self.f.code[at] = crate::bytecode::instructions::ad(op, a as u8, b as u16);
        self.emit_ad(Op::RETM, a as u8, 0)?;
        Ok(())
    }

    pub(super) fn close_from(&mut self, closes: Option<u8>) -> Coded<()> {
        if let Some(register) = closes {
            self.emit_ad(Op::CLOSE, register, 0)?;
        }
        Ok(())
    }
}
