//! Control: blocks, loops, `goto`, and the closing of `<close>` variables on every way out.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::emit::NO_JUMP;
use super::operand::{Expression, Literal, Operand};
use super::raw::Raw;
use super::{Coded, Compiler};
use crate::bytecode::Op;
use crate::syntax::Position;
use crate::syntax::ast;
use crate::syntax::ast::{ExprId, FunctionId, VariableId};

/// A block of the function being generated.
pub(super) struct Block {
    /// Active variables before it.
    active: usize,
    /// Labels and pending gotos before it.
    labels: usize,
    gotos: usize,
    /// Whether it is a loop's, which `break` leaves.
    is_loop: bool,
    /// The jumps of its `break`s.
    breaks: i32,
    /// The register of its first variable to be closed.
    pub closes: Option<u8>,
}

impl Block {
    pub fn new(active: usize, labels: usize, gotos: usize, is_loop: bool) -> Block {
        Block {
            active,
            labels,
            gotos,
            is_loop,
            breaks: NO_JUMP,
            closes: None,
        }
    }
}

/// The labels in scope and the gotos of a function, found by name: a function may have a great many.
#[derive(Default)]
pub(super) struct Labels {
    /// Labels in scope, the latest last. No two have the same name.
    list: Vec<Label>,
    by_name: BTreeMap<Arc<str>, usize>,
    /// All gotos to labels that were not in scope at them.
    gotos: Vec<Goto>,
    /// Those among them whose label has not been met yet.
    pending: BTreeMap<Arc<str>, Vec<usize>>,
}

/// A label in scope.
struct Label {
    name: Arc<str>,
    line: u32,
    at: usize,
    /// Active variables at it.
    active: usize,
}

/// A `goto` whose label was not in scope at it.
struct Goto {
    name: Arc<str>,
    position: Position,
    jump: i32,
    /// Active variables at it, of those that are in scope still.
    active: usize,
    /// The `CLOSE` before it, whose register the label decides.
    close: Option<usize>,
}

impl<'c> Compiler<'c> {
    /// Begins a block.
    pub(super) fn open_block(&mut self, is_loop: bool) {
        let block = Block::new(
            self.f.active.len(),
            self.f.labels.list.len(),
            self.f.labels.gotos.len(),
            is_loop,
        );
        self.f.blocks.push(block);
    }

    /// Ends the innermost block: closes what it declared to be closed, and gives its registers back.
    pub(super) fn close_block(&mut self) -> Coded<()> {
        let Some(block) = self.f.blocks.pop() else {
            return Ok(());
        };
        if let Some(register) = block.closes {
            self.emit_ad(Op::CLOSE, register, 0)?;
        }
        let chunk = self.chunk;
        self.f.deactivate(block.active, |id| {
            chunk.variables[id.0 as usize].name.clone()
        });
        let labels = &mut self.f.labels;
        for label in labels.list.drain(block.labels..) {
            labels.by_name.remove(&label.name);
        }
        for goto in &mut labels.gotos[block.gotos..] {
            goto.active = goto.active.min(block.active);
        }
        self.f.release_temporaries();
        self.f.patch_jumps_here(block.breaks);
        Ok(())
    }

    /// A block of statements with a scope of its own.
    pub(super) fn block(&mut self, block: &'c ast::Block) -> Coded<()> {
        self.open_block(false);
        self.block_statements(block)?;
        self.close_block()
    }

    /// Whether anything of the function is to be closed, from a block on.
    fn closes_from(&self, first_block: usize) -> Option<u8> {
        self.f.blocks[first_block..]
            .iter()
            .find_map(|block| block.closes)
    }

    /// The register of the first variable of the function that is to be closed, if there is one.
    pub(super) fn closes(&self) -> Option<u8> {
        self.closes_from(0)
    }

    /// Where `break` leads to, by the block's index.
    fn innermost_loop(&self) -> Option<usize> {
        self.f.blocks.iter().rposition(|block| block.is_loop)
    }

    pub(super) fn break_statement(&mut self) -> Coded<()> {
        let Some(index) = self.innermost_loop() else {
            return Ok(());
        };
        if let Some(register) = self.closes_from(index) {
            self.emit_ad(Op::CLOSE, register, 0)?;
        }
        let jump = self.jump()?;
        self.add_break(index, jump);
        Ok(())
    }

    fn add_break(&mut self, index: usize, jump: i32) {
        let mut list = self.f.blocks[index].breaks;
        self.f.prepend(&mut list, jump);
        self.f.blocks[index].breaks = list;
    }

    /// `goto`: backward to a label in scope, else to one that is to come.
    pub(super) fn goto(&mut self, name: &Arc<str>, position: Position) -> Coded<()> {
        if let Some(&index) = self.f.labels.by_name.get(name) {
            let label = &self.f.labels.list[index];
            let (at, level) = (label.at, self.f.level(label.active));
            if self.closes().is_some_and(|_| self.closing_above(level)) {
                self.emit_ad(Op::CLOSE, level as u8, 0)?;
            }
            return self.jump_back(at);
        }
        let close = match self.closes() {
            Some(register) => Some(self.emit_ad(Op::CLOSE, register, 0)?),
            None => None,
        };
        let jump = self.jump()?;
        let active = self.f.active.len();
        let labels = &mut self.f.labels;
        let pending = labels.pending.entry(name.clone()).or_default();
        pending.push(labels.gotos.len());
        labels.gotos.push(Goto {
            name: name.clone(),
            position,
            jump,
            active,
            close,
        });
        Ok(())
    }

    /// Whether a variable in a register from `level` on is to be closed.
    fn closing_above(&self, level: usize) -> bool {
        self.f
            .blocks
            .iter()
            .filter_map(|block| block.closes)
            .any(|register| usize::from(register) >= level)
            || self.f.blocks.iter().any(|block| {
                // A block that began below the level may have declared another above it.
                block.closes.is_some() && self.f.level(self.f.active.len()) > level
            })
    }

    /// `::name::`. A label at the end of its block counts as outside the scope of the block's variables.
    pub(super) fn label(
        &mut self,
        name: &Arc<str>,
        position: Position,
        ends_block: bool,
    ) -> Coded<()> {
        if let Some(&index) = self.f.labels.by_name.get(name) {
            let label = &self.f.labels.list[index];
            let message = format!("label '{name}' already defined on line {}", label.line);
            self.errors.push((position, message));
            return Ok(());
        }
        let at = self.f.target();
        self.f.last = None;
        let (first_goto, block_active) =
            self.f.blocks.last().map_or((0, 0), |b| (b.gotos, b.active));
        let active = if ends_block {
            block_active
        } else {
            self.f.active.len()
        };
        let labels = &mut self.f.labels;
        labels.by_name.insert(name.clone(), labels.list.len());
        labels.list.push(Label {
            name: name.clone(),
            line: position.line,
            at,
            active,
        });
        // Those of this block and of the ones inside it; the list is in the order of the source.
        let mut reached = Vec::new();
        if let Some(pending) = labels.pending.get_mut(name) {
            let first = pending.partition_point(|&goto| goto < first_goto);
            reached.extend(pending.drain(first..));
        }
        for index in reached {
            let goto = &self.f.labels.gotos[index];
            let (from, jump, close) = (goto.active, goto.jump, goto.close);
            if from < active {
                let entered = self.f.active[from].variable;
                let variable =
                    entered.map_or_else(|| Arc::from("?"), |id| self.variable(id).name.clone());
                let message = format!(
                    "<goto {name}> at line {} jumps into the scope of local '{variable}'",
                    goto.position.line
                );
                self.errors.push((goto.position, message));
                continue;
            }
            if let Some(close) = close {
                let level = self.f.level(active);
                self.f.set_a(close, level as u8);
                self.f.registers = self.f.registers.max(level + 1);
            }
            self.f.patch_jumps(jump, at);
        }
        Ok(())
    }

    /// Reports the gotos whose label was not met in the whole function.
    pub(super) fn report_gotos(&mut self) {
        let parallel = self.chunk.functions[self.f.id.0 as usize].parallel;
        let labels = core::mem::take(&mut self.f.labels);
        for index in labels.pending.into_values().flatten() {
            let goto = &labels.gotos[index];
            let mut message = format!(
                "no visible label '{}' for <goto> at line {}",
                goto.name, goto.position.line
            );
            if parallel {
                message.push_str(" (a goto cannot leave the body of a 'parallel for')");
            }
            self.errors.push((goto.position, message));
        }
    }

    /// Generates a condition; the jumps of the list are taken when it is false.
    fn condition(&mut self, condition: ExprId) -> Coded<i32> {
        let mut e = self.expression(condition)?;
        self.go_if_true(&mut e)?;
        self.f.drop_values(e.if_false);
        Ok(e.if_false)
    }

    pub(super) fn while_loop(&mut self, condition: ExprId, body: &'c ast::Block) -> Coded<()> {
        let position = self.f.position;
        let start = self.f.target();
        self.open_block(true);
        let exit = self.condition(condition)?;
        self.block(body)?;
        self.f.position = position;
        self.jump_back(start)?;
        self.f.patch_conditions_here(exit);
        self.close_block()
    }

    pub(super) fn repeat_loop(&mut self, body: &'c ast::Block, condition: ExprId) -> Coded<()> {
        let start = self.f.target();
        self.open_block(true);
        self.open_block(false);
        self.repeat_statements(body)?;
        let mut e = self.expression(condition)?;
        self.go_if_false(&mut e)?;
        self.f.drop_values(e.if_true);
        if let Some(register) = self.f.blocks.last().and_then(|block| block.closes) {
            self.emit_ad(Op::CLOSE, register, 0)?;
        }
        self.jump_back(start)?;
        self.f.patch_conditions_here(e.if_true);
        self.close_block()?;
        self.close_block()
    }

    pub(super) fn if_statement(
        &mut self,
        arms: &'c [(ExprId, ast::Block)],
        otherwise: Option<&'c ast::Block>,
    ) -> Coded<()> {
        let mut escapes = NO_JUMP;
        for (i, (condition, block)) in arms.iter().enumerate() {
            let last = i + 1 == arms.len() && otherwise.is_none();
            self.f.position = self.expr(*condition).position;
            if self.breaks_if(*condition, block)? {
                continue;
            }
            let next = self.condition(*condition)?;
            self.block(block)?;
            if !last {
                let escape = self.jump()?;
                self.f.prepend(&mut escapes, escape);
            }
            self.f.patch_conditions_here(next);
        }
        if let Some(block) = otherwise {
            self.block(block)?;
        }
        self.f.patch_jumps_here(escapes);
        Ok(())
    }

    /// `if condition then break end`, where nothing is to be closed: the condition's jump is the `break`.
    fn breaks_if(&mut self, condition: ExprId, block: &ast::Block) -> Coded<bool> {
        let [
            ast::Statement {
                kind: ast::StatementKind::Break,
                ..
            },
        ] = block.statements[..]
        else {
            return Ok(false);
        };
        let Some(index) = self.innermost_loop() else {
            return Ok(false);
        };
        if self.closes_from(index).is_some() {
            return Ok(false);
        }
        let mut e = self.expression(condition)?;
        self.go_if_false(&mut e)?;
        self.f.drop_values(e.if_true);
        self.add_break(index, e.if_true);
        Ok(true)
    }

    /// Puts a loop's start, limit and step into the next three registers.
    /// With `float`, start and step are floats, whatever they were.
    fn bounds(
        &mut self,
        start: ExprId,
        limit: ExprId,
        step: Option<ExprId>,
        float: bool,
    ) -> Coded<()> {
        for (bound, what) in [(start, "'for' initial value"), (limit, "'for' limit")] {
            let mut e = self.expression(bound)?;
            if float {
                self.convert(&mut e, Raw::Float, what)?;
            }
            self.next_register(&mut e)?;
        }
        match step {
            Some(step) => {
                let mut e = self.expression(step)?;
                if float {
                    self.convert(&mut e, Raw::Float, "'for' step")?;
                }
                self.next_register(&mut e)?;
            }
            None if float => {
                let one = Operand::Literal(Literal::Float(1.0));
                self.next_register(&mut Expression::new(one, self.f.position))?;
            }
            None => {
                let register = self.reserve(1)?;
                self.emit_ad(Op::KINT, register, 1)?;
            }
        }
        Ok(())
    }

    pub(super) fn numeric_for(
        &mut self,
        variable: VariableId,
        bounds: (ExprId, ExprId, Option<ExprId>),
        body: &'c ast::Block,
    ) -> Coded<()> {
        let position = self.f.position;
        if self.variable(variable).kind == ast::Type::Reg {
            return self.integer_for(variable, bounds, body);
        }
        let (start, limit, step) = bounds;
        let base = self.f.free as u8;
        self.open_block(true);
        let float = self.variable(variable).kind == ast::Type::F64;
        self.bounds(start, limit, step, float)?;
        for register in base..base + 3 {
            self.hide(register);
        }
        self.f.position = position;
        let prepare = self.emit_ad(Op::FORPREP, base, 0)?;
        let first = self.f.target();
        self.open_block(false);
        let register = self.reserve(1)?;
        self.declare_from(variable, register)?;
        self.block_statements(body)?;
        self.close_block()?;
        self.f.position = position;
        self.end_numeric_for(Op::FORLOOP, base, prepare, first)
    }

    /// The instruction that begins the loop's next iteration, at `first`, and where the one that prepared the loop goes if there is none.
    pub(super) fn end_numeric_for(
        &mut self,
        op: Op,
        base: u8,
        prepare: usize,
        first: usize,
    ) -> Coded<()> {
        let end = self.emit_ad(op, base, 0)?;
        self.set_distance(end, first)?;
        let after = self.f.target();
        self.set_distance(prepare, after)?;
        self.close_block()
    }

    pub(super) fn generic_for(
        &mut self,
        variables: &[VariableId],
        values: &[ExprId],
        body: &'c ast::Block,
        line: u32,
    ) -> Coded<()> {
        let position = self.f.position;
        let state = self.f.free as u8;
        // The iterator, its state, the control variable, what is to be closed: around the loop, whose breaks come back here.
        self.open_block(false);
        self.adjusted(values, 4)?;
        for register in state..state + 4 {
            self.hide(register);
        }
        if values.len() == 1 || values.len() > 3 || self.is_open(values) {
            self.emit_ad(Op::TBC, state + 3, 0)?;
            self.mark_closing(state + 3);
        }
        self.open_block(true);
        let enter = self.jump()?;
        let first = self.f.target();
        self.open_block(false);
        // The iterator is called where the variables are: function, link, two arguments.
        self.need(4.max(variables.len()))?;
        let base = self.reserve(variables.len())?;
        for (register, &variable) in (base..).zip(variables) {
            self.declare_from(variable, register)?;
        }
        self.block_statements(body)?;
        self.close_block()?;
        self.f.patch_jumps_here(enter);
        self.f.position = Position {
            line,
            column: position.column,
        };
        self.emit_abc(Op::ITERCALL, base, 2, variables.len() as u8 + 1)?;
        let end = self.emit_ad(Op::ITERLOOP, base, 0)?;
        self.set_distance(end, first)?;
        self.close_block()?;
        self.f.position = position;
        self.close_block()
    }

    /// Whether the last of some values is a call or `...`, not in parentheses.
    fn is_open(&self, values: &[ExprId]) -> bool {
        values.last().is_some_and(|&last| {
            matches!(
                self.expr(last).kind,
                ast::ExprKind::Call(..) | ast::ExprKind::Method(..) | ast::ExprKind::Ellipsis
            )
        })
    }

    /// The innermost block closes this register when it is left.
    pub(super) fn mark_closing(&mut self, register: u8) {
        if let Some(block) = self.f.blocks.last_mut() {
            block.closes.get_or_insert(register);
        }
    }

    /// `parallel for`: a call of its body with the whole range, between what prepares and what joins it.
    pub(super) fn parallel_for(
        &mut self,
        function: FunctionId,
        (start, limit, step): (ExprId, ExprId, Option<ExprId>),
    ) -> Coded<()> {
        let position = self.f.position;
        let base = self.f.free as u8;
        let child = self.child(function, None)?;
        self.emit_ad(Op::FNEW, base, child)?;
        self.reserve(2)?;
        self.bounds(start, limit, step, false)?;
        self.reserve(1)?;
        self.f.position = position;
        let prepare = self.emit_ad(Op::PFORPREP, base, 0)?;
        self.emit_abc(Op::CALL, base, 4, 2)?;
        self.emit_ad(Op::PJOIN, base, 0)?;
        let end = self.f.target();
        self.set_distance(prepare, end)?;
        self.f.free = usize::from(base);
        Ok(())
    }
}
