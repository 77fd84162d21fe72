//! Functions: heads and ends, closures and their captures.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::control::Block;
use super::emit::{Active, FunctionState};
use super::operand::{Literal, Operand};
use super::{Coded, Compiler, Location};
use crate::bytecode::{Capture, CaptureKind, CaptureSource, Function, Op};
use crate::syntax::ast::*;

/// Captures of a function, at most; Lua's limit.
const CAPTURES: usize = 255;
/// What the call of a parallel body passes: index, limit, step, latch.
const PARALLEL_PARAMETERS: usize = 4;

impl<'c> Compiler<'c> {
    fn body(&self, id: FunctionId) -> &'c FunctionBody {
        let chunk = self.chunk;
        &chunk.functions[id.0 as usize]
    }

    /// The main function.
    pub(super) fn main(&mut self) -> Coded<Function> {
        self.f.captures.push(Capture {
            name: Arc::from("_ENV"),
            source: CaptureSource::Capture(0),
            kind: CaptureKind::Value,
        });
        let body = self.body(FunctionId(0));
        self.f.position = body.position;
        self.f.blocks.push(Block::new(0, 0, 0, false));
        self.emit_ad(Op::FUNCV, 0, 0)?;
        self.locations[ENVIRONMENT.0 as usize] = Location::Environment;
        if self.variable(ENVIRONMENT).assigned {
            let register = self.reserve(1)?;
            self.emit_ad(Op::GETCAP, register, 0)?;
            self.declare(ENVIRONMENT, register)?;
        } else {
            self.f.known_captures.insert(ENVIRONMENT, 0);
        }
        self.finish(body)
    }

    /// Generates a function declared in the current one, and gives its index. `itself` is its variable, if it is a local
    /// function whose closures may stand for it.
    pub(super) fn child(&mut self, id: FunctionId, itself: Option<VariableId>) -> Coded<u16> {
        let body = self.body(id);
        let index = self.f.children.len();
        let Ok(index) = u16::try_from(index) else {
            return self.limit("functions", 1 << 16);
        };
        let around = self.begin(id, body.line);
        self.outer.push(around);
        let result = self.function(body, itself);
        let around = self.outer.pop().expect("pushed above");
        self.f = around;
        self.f.children.push(result?);
        Ok(index)
    }

    /// A new function, on the heap, in place of the one around it, which is returned: functions nest on the machine's stack.
    #[inline(never)]
    fn begin(&mut self, id: FunctionId, line: u32) -> Box<FunctionState> {
        core::mem::replace(&mut self.f, Box::new(FunctionState::new(id, line)))
    }

    fn function(&mut self, body: &'c FunctionBody, itself: Option<VariableId>) -> Coded<Function> {
        self.f.itself = itself;
        self.f.position = body.position;
        if body.uses_environment && !self.variable(ENVIRONMENT).assigned {
            // First, where instructions for globals look for it.
            self.capture(ENVIRONMENT)?;
        }
        self.f.blocks.push(Block::new(0, 0, 0, false));
        if body.parallel {
            return self.parallel_body(body);
        }
        let op = if body.variadic { Op::FUNCV } else { Op::FUNC };
        self.emit_ad(op, 0, 0)?;
        self.f.parameters = body.parameters.len();
        let first = self.reserve(body.parameters.len())?;
        for (register, &parameter) in (first..).zip(&body.parameters) {
            self.declare_from(parameter, register)?;
        }
        self.finish(body)
    }

    /// The body of a `parallel for`: it takes the loop's state and runs iterations until it is through, or split.
    fn parallel_body(&mut self, body: &'c FunctionBody) -> Coded<Function> {
        self.emit_ad(Op::FUNC, 0, 0)?;
        self.reserve(PARALLEL_PARAMETERS + 1)?;
        self.f.parameters = PARALLEL_PARAMETERS + 1;
        for register in 0..PARALLEL_PARAMETERS {
            self.hide(register as u8);
        }
        let variable = PARALLEL_PARAMETERS as u8;
        self.emit_ad(Op::MOV, variable, 0)?;
        let start = self.f.target();
        self.open_block(false);
        for &parameter in &body.parameters {
            self.declare_from(parameter, variable)?;
        }
        self.block_statements(&body.body)?;
        self.close_block()?;
        self.f.position = body.position;
        let at = self.emit_ad(Op::PFORLOOP, 0, 0)?;
        self.set_distance(at, start)?;
        self.emit_ad(Op::RET1, 3, 0)?;
        self.build(body)
    }

    fn finish(&mut self, body: &'c FunctionBody) -> Coded<Function> {
        self.block_statements(&body.body)?;
        self.f.position.line = body.last_line;
        self.close_block()?;
        match &body.results {
            Some(results) if !results.is_empty() => self.missing_return(body)?,
            _ => {
                self.emit_ad(Op::RET0, 0, 0)?;
            }
        }
        self.build(body)
    }

    /// The finished function.
    fn build(&mut self, body: &FunctionBody) -> Coded<Function> {
        self.report_gotos();
        let chunk = self.chunk;
        self.f
            .deactivate(0, |id| chunk.variables[id.0 as usize].name.clone());
        let parameters = if body.parallel {
            PARALLEL_PARAMETERS
        } else {
            body.parameters.len()
        } as u8;
        let raw_start = self.f.fixed() as u8;
        let registers = self.f.registers.max(usize::from(raw_start)) + self.f.raw_registers;
        if registers > super::emit::REGISTERS {
            self.f.position = body.position;
            return self.too_many_registers();
        }
        let registers = registers as u8;
        self.f.set_a(0, registers);
        self.f.set_d(0, parameters.into());
        self.f.place_registers();
        let f = &mut self.f;
        let mut locals: Vec<_> = core::mem::take(&mut f.locals)
            .into_iter()
            .map(|(local, _)| local)
            .collect();
        locals.sort_by_key(|local| (local.start, local.register));
        Ok(Function {
            source: self.source.clone(),
            name: body.name.clone(),
            line: body.line,
            last_line: body.last_line,
            code: core::mem::take(&mut f.code),
            lines: core::mem::take(&mut f.lines),
            constants: core::mem::take(&mut f.constants),
            children: core::mem::take(&mut f.children),
            captures: core::mem::take(&mut f.captures),
            parameters,
            variadic: body.variadic,
            registers,
            raw_start,
            raw_count: f.raw_registers as u8,
            parallel_body: body.parallel,
            locals,
            structs: if self.outer.is_empty() {
                chunk.shapes.clone()
            } else {
                Vec::new()
            },
        })
    }

    /// Brings a variable into scope in a register that has its value, and moves that to a cell if it needs one.
    pub(super) fn declare(&mut self, id: VariableId, register: u8) -> Coded<()> {
        let cell = self.variable(id).needs_cell();
        if cell {
            self.emit_ad(Op::NEWCELL, register, register.into())?;
        }
        self.locations[id.0 as usize] = if cell {
            Location::Cell(register)
        } else {
            Location::Register(register)
        };
        self.f.active.push(Active {
            variable: Some(id),
            register: Some(register),
            raw: false,
            start: self.f.here(),
        });
        Ok(())
    }

    /// Brings a constant into scope, which takes no register.
    pub(super) fn declare_constant(&mut self, id: VariableId, literal: Literal) {
        self.locations[id.0 as usize] = Location::Constant(literal);
        self.f.active.push(Active {
            variable: Some(id),
            register: None,
            raw: false,
            start: self.f.here(),
        });
    }

    /// Keeps a register for a loop.
    pub(super) fn hide(&mut self, register: u8) {
        self.f.active.push(Active {
            variable: None,
            register: Some(register),
            raw: false,
            start: self.f.here(),
        });
    }

    /// The function at a level: 0 is the main one, the innermost is last.
    fn at_level(&mut self, level: usize) -> &mut FunctionState {
        if level == self.outer.len() {
            &mut self.f
        } else {
            &mut self.outer[level]
        }
    }

    /// The capture of an outer variable in the current function.
    pub(super) fn capture(&mut self, id: VariableId) -> Coded<u16> {
        self.capture_at(self.outer.len(), id)
    }

    /// The capture of an outer variable in a function, made in all between it and the variable's. Functions nest at most
    /// as deep as the parser allows, and so does this.
    fn capture_at(&mut self, level: usize, id: VariableId) -> Coded<u16> {
        if let Some(&index) = self.at_level(level).known_captures.get(&id) {
            return Ok(index);
        }
        let (name, owner, cell, raw) = {
            let variable = self.variable(id);
            (
                variable.name.clone(),
                variable.function,
                variable.needs_cell(),
                variable.kind.is_raw(),
            )
        };
        let mut kind = match (cell, raw) {
            (true, false) => CaptureKind::Cell,
            (false, false) => CaptureKind::Value,
            (true, true) => CaptureKind::RawCell,
            (false, true) => CaptureKind::Raw,
        };
        let source = if self.at_level(level).itself == Some(id) {
            CaptureSource::Itself
        } else if self.at_level(level - 1).id == owner {
            match self.locations[id.0 as usize] {
                Location::Register(register) | Location::Cell(register) => {
                    CaptureSource::Register(register)
                }
                _ => CaptureSource::Capture(0),
            }
        } else {
            let index = self.capture_at(level - 1, id)?;
            kind = self.at_level(level - 1).captures[usize::from(index)].kind;
            CaptureSource::Capture(index)
        };
        let function = self.at_level(level);
        let index = function.captures.len();
        if index >= CAPTURES {
            return self.limit("upvalues", CAPTURES);
        }
        function.captures.push(Capture { name, source, kind });
        function.known_captures.insert(id, index as u16);
        Ok(index as u16)
    }

    /// `local function`.
    pub(super) fn local_function(&mut self, id: VariableId, function: FunctionId) -> Coded<()> {
        let position = self.f.position;
        let register = self.reserve(1)?;
        if !self.variable(id).needs_cell() {
            self.locations[id.0 as usize] = Location::Register(register);
            let at = self.f.active.len();
            self.declare(id, register)?;
            let child = self.child(function, Some(id))?;
            self.f.position = position;
            self.emit_ad(Op::FNEW, register, child)?;
            self.f.active[at].start = self.f.here();
            return Ok(());
        }
        self.nil(register, 1)?;
        self.declare(id, register)?;
        let child = self.child(function, None)?;
        self.f.position = position;
        let temporary = self.reserve(1)?;
        self.emit_ad(Op::FNEW, temporary, child)?;
        self.emit_ad(Op::CELLSET, register, temporary.into())?;
        Ok(())
    }

    /// `function a.b:c()`.
    pub(super) fn function_statement(&mut self, target: ExprId, function: FunctionId) -> Coded<()> {
        let position = self.f.position;
        let target = self.target(target)?;
        let child = self.child(function, None)?;
        self.f.position = position;
        let at = self.emit_ad(Op::FNEW, 0, child)?;
        let mut value = super::operand::Expression::new(Operand::Relocatable(at), position);
        self.store(&target, &mut value, position, "")
    }
}
