//! Typed variables: declarations, parameters, results, loops, and the functions on raw words that need no call.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::emit::Active;
use super::operand::{Expression, Literal, Operand};
use super::raw::Raw;
use super::{Coded, Compiler, Location};
use crate::bytecode::Op;
use crate::syntax::Position;
use crate::syntax::ast::*;

impl<'c> Compiler<'c> {
    /// A variable, as messages name it.
    pub(super) fn variable_name(&self, id: VariableId) -> String {
        format!("variable '{}'", self.variable(id).name)
    }

    /// The struct or array that a variable is known to be.
    pub(super) fn type_of(&self, id: VariableId) -> Type {
        let kind = self.variable(id).kind;
        if kind != Type::Any {
            return kind;
        }
        self.known_types.get(&id).copied().unwrap_or_default()
    }

    /// Notes what an untyped variable is that is given this value and nothing else.
    pub(super) fn note_type(&mut self, id: VariableId, kind: Type) {
        let variable = self.variable(id);
        if !variable.assigned && variable.kind == Type::Any && kind != Type::Any {
            self.known_types.insert(id, kind);
        }
    }

    /// Brings a raw variable into scope whose value is in a raw register since `start`, and moves that to a cell if it needs one.
    fn declare_raw(&mut self, id: VariableId, register: u8, start: usize) -> Coded<()> {
        if !self.variable(id).needs_cell() {
            self.locations[id.0 as usize] = Location::Register(register);
            self.f.active.push(Active {
                variable: Some(id),
                register: Some(register),
                raw: true,
                start,
            });
            return Ok(());
        }
        self.release_raw(register);
        self.declare_celled(id, register, start)
    }

    /// Brings a variable into scope whose value, of any type, is in a tagged register: converts or checks it.
    pub(super) fn declare_from(&mut self, id: VariableId, register: u8) -> Coded<()> {
        match Raw::of(self.variable(id).kind) {
            None => {
                let kind = self.variable(id).kind;
                let start = self.f.here();
                self.check_type(register, kind)?;
                let at = self.f.active.len();
                self.declare(id, register)?;
                if kind != Type::Any {
                    self.f.active[at].start = start;
                }
                Ok(())
            }
            Some(raw) => {
                self.hide(register);
                let start = self.f.here();
                let what = self.variable_name(id);
                let mut e = Expression::new(Operand::Register(register), self.f.position);
                let to = self.next_raw(&mut e, raw, &what)?;
                self.declare_raw(id, to, start)
            }
        }
    }

    /// `local` with at least one typed variable.
    pub(super) fn typed_local(&mut self, variables: &[VariableId], values: &[ExprId]) -> Coded<()> {
        if let ([id], [value]) = (variables, values)
            && self.variable(*id).attribute == Attribute::Const
            && let Some(raw) = Raw::of(self.variable(*id).kind)
        {
            let mut e = self.expression(*value)?;
            let literal = match (e.literal(), raw) {
                (Some(Literal::Integer(i)), Raw::Integer) => Some(Literal::Integer(*i)),
                (Some(Literal::Integer(i)), Raw::Float) => Some(Literal::Float(*i as f64)),
                (Some(Literal::Float(f)), Raw::Float) => Some(Literal::Float(*f)),
                _ => None,
            };
            if let Some(literal) = literal {
                self.declare_constant(*id, literal);
                return Ok(());
            }
            let what = self.variable_name(*id);
            let start = self.f.here();
            let register = self.next_raw(&mut e, raw, &what)?;
            return self.declare_raw(*id, register, start);
        }
        // Where each variable's value is, before any of them is in scope.
        let mut places: Vec<(u8, usize)> = Vec::with_capacity(variables.len());
        for (i, &value) in values.iter().enumerate() {
            let mut e = self.expression(value)?;
            if i + 1 == values.len() && e.is_open() && variables.len() > values.len() {
                let first = match e.operand {
                    Operand::Call(at) => self.f.operands(at).0,
                    _ => self.f.free,
                };
                self.adjust_last(&mut e, values.len(), variables.len())?;
                for (j, &id) in variables[i..].iter().enumerate() {
                    self.typed_place(id, (first + j) as u8, &mut places)?;
                }
                break;
            }
            let Some(&id) = variables.get(i) else {
                // Computed, and lost.
                let (free, raw_free) = (self.f.free, self.f.raw_free);
                self.next_register(&mut e)?;
                (self.f.free, self.f.raw_free) = (free, raw_free);
                continue;
            };
            let start = self.f.here();
            let register = match Raw::of(self.variable(id).kind) {
                Some(raw) => {
                    let what = self.variable_name(id);
                    self.next_raw(&mut e, raw, &what)?
                }
                None => {
                    self.check_visible(id, &e);
                    self.next_register(&mut e)?
                }
            };
            places.push((register, start));
        }
        for &id in &variables[places.len()..] {
            let start = self.f.here();
            let register = match Raw::of(self.variable(id).kind) {
                // Raw variables begin at 0.
                Some(raw) => {
                    let zero = Operand::Literal(Literal::Integer(0));
                    let mut e = Expression::new(zero, self.f.position);
                    self.next_raw(&mut e, raw, "")?
                }
                None => {
                    let kind = self.variable(id).kind;
                    if !kind.is_nullable() {
                        let position = self.variable(id).position;
                        let message = format!(
                            "{} of type {} must be initialised",
                            self.variable_name(id),
                            kind.name(&self.chunk.shapes)
                        );
                        self.report(position, message);
                    }
                    let register = self.reserve(1)?;
                    self.nil(register, 1)?;
                    register
                }
            };
            places.push((register, start));
        }
        let mut closing = None;
        // Cells take registers above all values, so raw variables that need one come last.
        let is_celled =
            |c: &Self, id: VariableId| c.variable(id).kind.is_raw() && c.variable(id).needs_cell();
        for celled in [false, true] {
            for (&id, &(register, start)) in variables.iter().zip(&places) {
                if is_celled(self, id) != celled {
                    continue;
                }
                if !self.variable(id).kind.is_raw() {
                    self.declare_from(id, register)?;
                    if self.variable(id).attribute == Attribute::Close {
                        closing = Some(register);
                    }
                } else if celled {
                    self.declare_celled(id, register, start)?;
                } else {
                    self.declare_raw(id, register, start)?;
                }
            }
        }
        if let Some(register) = closing {
            self.emit_ad(Op::TBC, register, 0)?;
            self.mark_closing(register);
        }
        Ok(())
    }

    /// Reports a value that a struct or array variable cannot have, where the compiler can see it.
    pub(super) fn check_visible(&mut self, id: VariableId, e: &Expression) {
        let kind = self.variable(id).kind;
        if kind == Type::Any || kind.is_raw() {
            return;
        }
        let found = match (e.kind, self.visible_type(e)) {
            (_, _) if e.raw().is_some() => String::from("number"),
            (_, Some("nil")) if kind.is_nullable() => return,
            (_, Some(found)) => String::from(found),
            (Type::Any, None) => return,
            (known, None) => {
                let same = match (known, kind) {
                    (Type::Struct(a, _), Type::Struct(b, _)) => a == b,
                    (Type::Array(a, _), Type::Array(b, _)) => a == b,
                    _ => false,
                };
                if same {
                    return;
                }
                known.name(&self.chunk.shapes)
            }
        };
        let wanted = kind.name(&self.chunk.shapes);
        let message = super::raw::mismatch(&wanted, &self.variable_name(id), &found);
        self.report(e.position, message);
    }

    /// Brings a raw variable into scope that lives in a cell. The raw register that its value is in keeps it no longer than that.
    fn declare_celled(&mut self, id: VariableId, register: u8, start: usize) -> Coded<()> {
        let cell = self.reserve(1)?;
        self.emit_ad(Op::RNEWCELL, cell, register.into())?;
        self.locations[id.0 as usize] = Location::Cell(cell);
        self.f.active.push(Active {
            variable: Some(id),
            register: Some(cell),
            raw: false,
            start,
        });
        Ok(())
    }

    /// Moves a value that a call left in a tagged register to where its variable is to be.
    fn typed_place(
        &mut self,
        id: VariableId,
        register: u8,
        places: &mut Vec<(u8, usize)>,
    ) -> Coded<()> {
        let start = self.f.here();
        let Some(raw) = Raw::of(self.variable(id).kind) else {
            places.push((register, start));
            return Ok(());
        };
        // The register is not given back: those above it hold other values.
        let to = self.reserve_raw(1)?;
        let op = match raw {
            Raw::Integer => Op::TOI,
            Raw::Float => Op::TOF,
        };
        self.emit_ad(op, to, register.into())?;
        places.push((to, start));
        Ok(())
    }

    /// `for i: reg`: the number of iterations is computed first.
    pub(super) fn integer_for(
        &mut self,
        variable: VariableId,
        (start, limit, step): (ExprId, ExprId, Option<ExprId>),
        body: &'c Block,
    ) -> Coded<()> {
        let position = self.f.position;
        self.open_block(true);
        let base = self.f.raw_free as u8;
        for (bound, what) in [
            (Some(start), "'for' initial value"),
            (Some(limit), "'for' limit"),
            (step, "'for' step"),
        ] {
            let mut e = match bound {
                Some(bound) => self.expression(bound)?,
                None => Expression::new(Operand::Literal(Literal::Integer(1)), position),
            };
            if what == "'for' step" && matches!(e.literal(), Some(Literal::Integer(0))) {
                self.report(e.position, String::from("'for' step is zero"));
            }
            let register = self.next_raw(&mut e, Raw::Integer, what)?;
            self.f.active.push(Active {
                variable: None,
                register: Some(register),
                raw: true,
                start: self.f.here(),
            });
        }
        self.f.position = position;
        let variable_register = self.reserve_raw(1)?;
        let prepare = self.emit_ad(Op::RFORPREP, base, 0)?;
        let first = self.f.target();
        self.open_block(false);
        if self.variable(variable).needs_cell() {
            // The loop's own register stays.
            self.f.active.push(Active {
                variable: None,
                register: Some(variable_register),
                raw: true,
                start: self.f.here(),
            });
            self.declare_celled(variable, variable_register, self.f.here())?;
        } else {
            self.declare_raw(variable, variable_register, self.f.here())?;
        }
        self.block_statements(body)?;
        self.close_block()?;
        self.f.position = position;
        self.end_numeric_for(Op::RFORLOOP, base, prepare, first)
    }

    // Results.

    /// The declared result types of the function being generated.
    pub(super) fn results(&self) -> Option<&'c [Type]> {
        let chunk = self.chunk;
        chunk.functions[self.f.id.0 as usize].results.as_deref()
    }

    /// `return` in a function with result types.
    pub(super) fn typed_return(&mut self, values: &[ExprId]) -> Coded<()> {
        let position = self.f.position;
        let results = self.results().unwrap_or_default();
        let closes = self.closes();
        let first = self.f.free as u8;
        if let ([value], None) = (values, closes)
            && self
                .known_results(*value)
                .is_some_and(|known| known == results)
        {
            let e = self.expression(*value)?;
            if let Operand::Call(at) = e.operand {
                return self.tail_call(at);
            }
            return self.return_values(&[], Some(e), results, first, closes, position);
        }
        self.return_values(values, None, results, first, closes, position)
    }

    fn return_values(
        &mut self,
        values: &[ExprId],
        ready: Option<Expression>,
        results: &[Type],
        first: u8,
        closes: Option<u8>,
        position: Position,
    ) -> Coded<()> {
        let mut ready = ready;
        let given = values.len() + usize::from(ready.is_some());
        for i in 0..given.max(results.len()) {
            let mut e = if let Some(e) = ready.take() {
                e
            } else if let Some(&value) = values.get(i) {
                self.expression(value)?
            } else {
                let message = format!(
                    "the function returns {}, and {} here",
                    count(results.len(), "result"),
                    if given == 0 {
                        "nothing".into()
                    } else {
                        count(given, "value")
                    }
                );
                self.report(position, message);
                return Ok(());
            };
            let at = e.position;
            if i + 1 == given && e.is_open() && results.len() > given {
                let more = results.len() - i;
                self.adjust_last(&mut e, given, results.len())?;
                for (j, &kind) in results[i..].iter().enumerate() {
                    let register = (self.f.free - more + j) as u8;
                    self.check_result(kind, register, at)?;
                }
                break;
            }
            let Some(&kind) = results.get(i) else {
                // More than declared: computed, and dropped.
                let free = self.f.free;
                self.next_register(&mut e)?;
                self.f.free = free;
                continue;
            };
            if let Some(raw) = Raw::of(kind) {
                self.convert(&mut e, raw, "the result")?;
            }
            let register = self.next_register(&mut e)?;
            self.check_type(register, kind)?;
        }
        self.f.position = position;
        self.close_from(closes)?;
        match results.len() {
            0 => self.emit_ad(Op::RET0, 0, 0)?,
            1 => self.emit_ad(Op::RET1, first, 0)?,
            n => self.emit_ad(Op::RET, first, n as u16)?,
        };
        Ok(())
    }

    /// Makes a result in a tagged register what it is declared to be.
    fn check_result(&mut self, kind: Type, register: u8, position: Position) -> Coded<()> {
        self.f.position = position;
        let Some(raw) = Raw::of(kind) else {
            return self.check_type(register, kind);
        };
        let to = self.reserve_raw(1)?;
        let (from, back) = match raw {
            Raw::Integer => (Op::TOI, Op::BOXI),
            Raw::Float => (Op::TOF, Op::BOXF),
        };
        self.emit_ad(from, to, register.into())?;
        self.emit_ad(back, register, to.into())?;
        self.release_raw(to);
        Ok(())
    }

    /// The end of a function that has result types: to come here is an error.
    pub(super) fn missing_return(&mut self, body: &FunctionBody) -> Coded<()> {
        let results = body.results.as_deref().unwrap_or_default();
        let ends = matches!(
            body.body.statements.last(),
            Some(Statement {
                kind: StatementKind::Return(_),
                ..
            })
        );
        if ends {
            self.emit_ad(Op::RET0, 0, 0)?;
            return Ok(());
        }
        let first = self.reserve(results.len())?;
        self.nil(first, results.len())?;
        for (i, &kind) in results.iter().enumerate() {
            self.check_result(kind, first + i as u8, self.f.position)?;
        }
        self.emit_ad(Op::RET, first, results.len() as u16)?;
        Ok(())
    }

    /// The result types of a call whose function is known.
    fn known_results(&self, value: ExprId) -> Option<&'c [Type]> {
        let ExprKind::Call(function, _) = self.expr(value).kind else {
            return None;
        };
        let id = self.known_function(function)?;
        let chunk = self.chunk;
        chunk.functions[id.0 as usize].results.as_deref()
    }

    /// The function that an expression is known to be: a `local function` that nothing assigns.
    pub(super) fn known_function(&self, function: ExprId) -> Option<FunctionId> {
        let ExprKind::Local(id) = self.expr(function).kind else {
            return None;
        };
        let variable = self.variable(id);
        if variable.assigned {
            return None;
        }
        variable.value
    }

    // Conversions and functions on raw words.

    /// Whether an expression is the name of a built-in type that nothing redefines.
    fn built_in(&self, id: ExprId) -> Option<Raw> {
        let ExprKind::Global(name) = &self.expr(id).kind else {
            return None;
        };
        if self.chunk.assigned_globals.contains(name) {
            return None;
        }
        match &**name {
            "reg" => Some(Raw::Integer),
            "f64" => Some(Raw::Float),
            _ => None,
        }
    }

    /// Whether an expression is a call that [`raw_function`](Self::raw_function) generates.
    pub(super) fn is_raw_function(&self, call: ExprId) -> bool {
        let ExprKind::Call(function, _) = self.expr(call).kind else {
            return false;
        };
        self.built_in(function).is_some() || self.operation_on_words(function).is_some()
    }

    /// The operation that `reg.name` is.
    fn operation_on_words(&self, function: ExprId) -> Option<Operation> {
        let ExprKind::Index(table, key) = self.expr(function).kind else {
            return None;
        };
        let ExprKind::String(name) = &self.expr(key).kind else {
            return None;
        };
        if self.built_in(table) != Some(Raw::Integer) {
            return None;
        }
        Some(match &**name {
            b"udiv" => Operation::Two(Op::IUDIV),
            b"urem" => Operation::Two(Op::IUREM),
            b"sar" => Operation::Two(Op::ISAR),
            b"mulhi" => Operation::Two(Op::IMULHI),
            b"rol" => Operation::Two(Op::IROL),
            b"ult" => Operation::Less,
            b"clz" => Operation::One(0),
            b"ctz" => Operation::One(1),
            b"popcount" => Operation::One(2),
            b"bswap" => Operation::One(3),
            _ => return None,
        })
    }

    /// `reg(e)`, `f64(e)` and `reg.name(…)`: instructions in the place of a call.
    pub(super) fn raw_function(
        &mut self,
        function: ExprId,
        arguments: &[ExprId],
        position: Position,
    ) -> Coded<Expression> {
        let conversion = self.built_in(function);
        let operation = self.operation_on_words(function);
        let wanted = match operation {
            Some(Operation::Two(_) | Operation::Less) => 2,
            _ => 1,
        };
        if arguments.len() != wanted {
            self.report(
                position,
                format!("{} expected here", count(wanted, "value")),
            );
            let zero = Operand::Literal(Literal::Integer(0));
            return Ok(Expression::new(zero, position));
        }
        if let Some(raw) = conversion {
            let mut e = self.expression(arguments[0])?;
            self.convert(&mut e, raw, "")?;
            return Ok(e);
        }
        let floor = self.f.raw_free;
        let mut registers = [0; 2];
        for (register, &argument) in registers.iter_mut().zip(arguments) {
            let mut e = self.expression(argument)?;
            *register = self.any_raw_as(&mut e, Raw::Integer, "")?;
        }
        self.f.raw_free = floor;
        self.f.position = position;
        let [a, b] = registers;
        let at = match operation {
            Some(Operation::Two(op)) => self.emit_abc(op, 0, a, b)?,
            Some(Operation::One(which)) => self.emit_abc(Op::IBITS, 0, a, which)?,
            _ => {
                self.emit_ad(Op::IULT, a, b.into())?;
                return Ok(Expression::new(Operand::Jump(self.jump()?), position));
            }
        };
        Ok(Expression::new(
            Operand::RawRelocatable(at, Raw::Integer),
            position,
        ))
    }
}

/// What a function of `reg` is, as an instruction.
#[derive(Clone, Copy)]
enum Operation {
    /// Of two words.
    Two(Op),
    /// `IBITS` with this operand C.
    One(u8),
    /// A comparison.
    Less,
}

/// A number and what it counts.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
