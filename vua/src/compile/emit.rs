//! The function being generated: its code, constants, registers and jumps.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::control::{Block, Labels};
use super::operand::Literal;
use super::{Coded, Compiler, Failure};
use crate::bytecode::instructions::{self, Format, a, abc, ad, b, c, d, j, jump};
use crate::bytecode::{Capture, Constant, Function, LocalName, Op};
use crate::syntax::Position;
use crate::syntax::ast::{FunctionId, VariableId};

/// Registers of a frame, at most: `Function::registers`.
pub(super) const REGISTERS: usize = 250;
/// Constants of a function, at most. Those beyond 65,536 are loaded into registers (`KVALX`).
const CONSTANTS: usize = 1 << 24;
/// Instruction words of a function, at most: what a jump of 24 bits reaches.
const WORDS: usize = 1 << 23;

/// No register: operand A of a conditional copy whose target is not known yet. Above all registers.
pub(super) const NO_REGISTER: u8 = 255;

/// The end of a list of jumps; also the distance that marks it in the code, that of a jump to itself.
pub(super) const NO_JUMP: i32 = -1;

/// An active local variable, or a hidden one of a loop.
pub(super) struct Active {
    /// Which; `None` for hidden ones.
    pub variable: Option<VariableId>,
    /// Its register; constants have none.
    pub register: Option<u8>,
    /// Whether that is a raw one.
    pub raw: bool,
    /// The first instruction of its scope.
    pub start: usize,
}

/// A function being generated.
pub(super) struct FunctionState {
    pub id: FunctionId,
    pub line: u32,
    pub code: Vec<u32>,
    pub lines: Vec<u32>,
    pub constants: Vec<Constant>,
    known_constants: BTreeMap<ConstantKey, usize>,
    pub children: Vec<Function>,
    pub captures: Vec<Capture>,
    pub known_captures: BTreeMap<VariableId, u16>,
    /// Registers in front of the raw ones: the parameters, and a parallel body's loop variable.
    pub parameters: usize,
    /// `local function f` as a variable, while its body is generated.
    pub itself: Option<VariableId>,
    /// The first free register.
    pub free: usize,
    /// One more than the highest register used.
    pub registers: usize,
    /// The same for raw registers, which are counted by themselves until the function is finished.
    pub raw_free: usize,
    pub raw_registers: usize,
    pub active: Vec<Active>,
    pub blocks: Vec<Block>,
    pub labels: Labels,
    /// Names of variables, and whether their registers are raw ones.
    pub locals: Vec<(LocalName, bool)>,
    /// The last instruction that is known to be jumped to.
    pub last_target: usize,
    /// Where the last instruction begins, if it may be looked at.
    pub last: Option<usize>,
    /// Where the instructions come from at present.
    pub position: Position,
}

/// A constant, as a key: floats by their bits, so that 0.0 and -0.0, 1 and 1.0 differ.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum ConstantKey {
    Nil,
    Boolean(bool),
    Integer(i64),
    Float(u64),
    String(Rc<[u8]>),
    Struct(u32),
}

/// The name of a register that a loop keeps for itself: no variable's.
pub const HIDDEN: &str = "(for state)";

impl FunctionState {
    pub fn new(id: FunctionId, line: u32) -> FunctionState {
        FunctionState {
            id,
            line,
            code: Vec::new(),
            lines: Vec::new(),
            constants: Vec::new(),
            known_constants: BTreeMap::new(),
            children: Vec::new(),
            captures: Vec::new(),
            known_captures: BTreeMap::new(),
            parameters: 0,
            itself: None,
            free: 0,
            registers: 1,
            raw_free: 0,
            raw_registers: 0,
            active: Vec::new(),
            blocks: Vec::new(),
            labels: Labels::default(),
            locals: Vec::new(),
            last_target: 0,
            last: None,
            position: Position::default(),
        }
    }

    /// The first register that lies behind the raw ones: the parameters lie before them.
    pub fn fixed(&self) -> usize {
        self.parameters
    }

    /// Where the next instruction goes.
    pub fn here(&self) -> usize {
        self.code.len()
    }

    /// The first register above the first `count` active variables.
    pub fn level(&self, count: usize) -> usize {
        self.active[..count]
            .iter()
            .rev()
            .filter(|v| !v.raw)
            .find_map(|v| v.register)
            .map_or(0, |r| usize::from(r) + 1)
    }

    /// The first raw register above the active variables.
    pub fn raw_level(&self) -> usize {
        self.active
            .iter()
            .rev()
            .filter(|v| v.raw)
            .find_map(|v| v.register)
            .map_or(0, |r| usize::from(r) + 1)
    }

    /// Gives back all registers but those of active variables.
    pub fn release_temporaries(&mut self) {
        self.free = self.level(self.active.len());
        self.raw_free = self.raw_level();
    }

    /// The last instruction, if nothing jumps behind it.
    pub fn previous(&self) -> Option<u32> {
        if self.last_target == self.here() {
            return None;
        }
        self.last.map(|at| self.code[at])
    }

    /// The instruction that decides whether the jump at `at`, of an expression's list, is taken.
    pub fn control(&self, at: i32) -> usize {
        at as usize - 1
    }

    /// Where a jump of a list leads, or the next of the list.
    fn next_jump(&self, at: i32) -> i32 {
        match j(self.code[at as usize]) {
            -1 => NO_JUMP,
            distance => at + 1 + distance as i32,
        }
    }

    /// Makes the jump at `at` lead to `target`.
    fn fix_jump(&mut self, at: i32, target: usize) {
        let word = self.code[at as usize];
        let op = Op::of(word).unwrap_or(Op::JMP);
        self.code[at as usize] = jump(op, target as i32 - (at + 1));
    }

    /// Appends the jumps of one list to another, whose length it takes.
    pub fn join(&mut self, list: &mut i32, more: i32) {
        if more == NO_JUMP {
            return;
        }
        if *list == NO_JUMP {
            *list = more;
            return;
        }
        let mut last = *list;
        loop {
            let next = self.next_jump(last);
            if next == NO_JUMP {
                break;
            }
            last = next;
        }
        self.fix_jump(last, more as usize);
    }

    /// Puts a short list before another, so that a list grows in constant time.
    pub fn prepend(&mut self, list: &mut i32, mut first: i32) {
        self.join(&mut first, *list);
        *list = first;
    }

    /// The next instruction, which something jumps to.
    pub fn target(&mut self) -> usize {
        self.last_target = self.here();
        self.here()
    }

    /// Whether a list has a jump that leaves no value behind.
    pub fn needs_value(&self, mut list: i32) -> bool {
        while list != NO_JUMP {
            let op = Op::of(self.code[self.control(list)]);
            if !matches!(op, Some(Op::ISTC | Op::ISFC)) {
                return true;
            }
            list = self.next_jump(list);
        }
        false
    }

    /// Makes the test of a jump leave its value in a register, or nowhere. False if it is no test with a value.
    fn set_test_register(&mut self, jump: i32, register: u8) -> bool {
        let at = self.control(jump);
        let word = self.code[at];
        let plain = match Op::of(word) {
            Some(Op::ISTC) => Op::IST,
            Some(Op::ISFC) => Op::ISF,
            _ => return false,
        };
        let source = d(word);
        self.code[at] = if register != NO_REGISTER && usize::from(register) != source {
            (word & !0xff00) | u32::from(register) << 8
        } else {
            ad(plain, 0, source as u16)
        };
        true
    }

    /// Makes the tests of a list leave no value.
    pub fn drop_values(&mut self, mut list: i32) {
        while list != NO_JUMP {
            self.set_test_register(list, NO_REGISTER);
            list = self.next_jump(list);
        }
    }

    /// Makes the conditional jumps of a list lead to `with_value`, leaving their value in a register, or, those without
    /// one, to `without`.
    pub fn patch_values(&mut self, mut list: i32, with_value: usize, register: u8, without: usize) {
        while list != NO_JUMP {
            let next = self.next_jump(list);
            let valued = self.set_test_register(list, register);
            self.fix_jump(list, if valued { with_value } else { without });
            list = next;
        }
    }

    /// Makes the conditional jumps of a list lead to `target`.
    pub fn patch_conditions(&mut self, list: i32, target: usize) {
        self.patch_values(list, target, NO_REGISTER, target);
    }

    /// Makes the conditional jumps of a list lead here.
    pub fn patch_conditions_here(&mut self, list: i32) {
        if list != NO_JUMP {
            let here = self.target();
            self.patch_conditions(list, here);
        }
    }

    /// Makes the unconditional jumps of a list lead to `target`, by `JMP` forward and `LOOP` backward.
    pub fn patch_jumps(&mut self, mut list: i32, target: usize) {
        while list != NO_JUMP {
            let next = self.next_jump(list);
            self.fix_jump(list, target);
            list = next;
        }
    }

    /// Makes the unconditional jumps of a list lead here.
    pub fn patch_jumps_here(&mut self, list: i32) {
        if list != NO_JUMP {
            let here = self.target();
            self.patch_jumps(list, here);
        }
    }

    /// Ends the scopes of all but the first `count` variables.
    pub fn deactivate(&mut self, count: usize, names: impl Fn(VariableId) -> Arc<str>) {
        let end = self.here() as u32;
        for active in self.active.drain(count..) {
            if let Some(register) = active.register
                && (active.variable.is_some() || !active.raw)
            {
                // A loop's own registers are in use, too: the collector is told so.
                let name = LocalName {
                    name: active.variable.map_or_else(|| HIDDEN.into(), &names),
                    register,
                    start: active.start as u32,
                    end,
                };
                self.locals.push((name, active.raw));
            }
        }
    }

    /// Replaces operand A.
    pub fn set_a(&mut self, at: usize, register: u8) {
        self.code[at] = (self.code[at] & !0xff00) | u32::from(register) << 8;
    }

    /// Replaces operand C.
    pub fn set_c(&mut self, at: usize, value: u8) {
        self.code[at] = (self.code[at] & 0x00ff_ffff) | u32::from(value) << 24;
    }

    /// Replaces operand D.
    pub fn set_d(&mut self, at: usize, value: u16) {
        self.code[at] = (self.code[at] & 0xffff) | u32::from(value) << 16;
    }

    /// Replaces the operation.
    pub fn set_op(&mut self, at: usize, op: Op) {
        self.code[at] = (self.code[at] & !0xff) | op as u32;
    }

    /// Operands A, B, C of the instruction at `at`.
    pub fn operands(&self, at: usize) -> (usize, usize, usize) {
        let word = self.code[at];
        (a(word), b(word), c(word))
    }

    /// Takes back the last instruction, of one word.
    pub fn remove_last(&mut self) {
        self.code.pop();
        self.lines.pop();
        self.last = None;
    }
}

impl Compiler<'_> {
    /// A limit is exceeded here.
    pub(super) fn fail<T>(&self, message: String) -> Coded<T> {
        Err(Failure {
            position: self.f.position,
            message,
        })
    }

    /// A limit of the current function is exceeded.
    pub(super) fn limit<T>(&self, what: &str, limit: usize) -> Coded<T> {
        let place = match self.f.line {
            0 => "main function".to_string(),
            line => format!("function at line {line}"),
        };
        self.fail(format!("too many {what} (limit is {limit}) in {place}"))
    }

    fn word(&mut self, word: u32) -> Coded<usize> {
        if self.f.code.len() >= WORDS {
            return self.limit("instructions", WORDS);
        }
        self.f.code.push(word);
        self.f.lines.push(self.f.position.line);
        Ok(self.f.code.len() - 1)
    }

    fn instruction(&mut self, word: u32) -> Coded<usize> {
        let at = self.word(word)?;
        self.f.last = Some(at);
        Ok(at)
    }

    /// Emits an instruction of format `AD`, and says where.
    pub(super) fn emit_ad(&mut self, op: Op, a: u8, d: u16) -> Coded<usize> {
        debug_assert_eq!(op.row().format, Format::AD);
        self.instruction(ad(op, a, d))
    }

    /// Emits an instruction of format `ABC`, and says where.
    pub(super) fn emit_abc(&mut self, op: Op, a: u8, b: u8, c: u8) -> Coded<usize> {
        debug_assert_eq!(op.row().format, Format::ABC);
        self.instruction(abc(op, a, b, c))
    }

    /// Emits the extension word of the last instruction.
    pub(super) fn emit_extension(&mut self, word: u32) -> Coded<()> {
        debug_assert!(self.f.last.is_some_and(|at| {
            Op::of(self.f.code[at])
                .is_some_and(|op| op.row().extension != instructions::Extension::None)
        }));
        self.word(word)?;
        Ok(())
    }

    /// Emits a jump to somewhere not yet known, as a list of one.
    pub(super) fn jump(&mut self) -> Coded<i32> {
        Ok(self.instruction(jump(Op::JMP, -1))? as i32)
    }

    /// Emits a jump backward.
    pub(super) fn jump_back(&mut self, target: usize) -> Coded<()> {
        let distance = target as i32 - (self.f.here() as i32 + 1);
        self.instruction(jump(Op::LOOP, distance))?;
        Ok(())
    }

    /// Sets the distance of a loop's instruction, of 16 bits.
    pub(super) fn set_distance(&mut self, at: usize, target: usize) -> Coded<()> {
        match i16::try_from(target as i64 - (at as i64 + 1)) {
            Ok(distance) => {
                self.f.set_d(at, distance as u16);
                Ok(())
            }
            Err(_) => self.fail("control structure too long".to_string()),
        }
    }

    /// The index of a constant.
    pub(super) fn constant(&mut self, literal: &Literal) -> Coded<usize> {
        let (key, constant) = match literal {
            Literal::Nil => (ConstantKey::Nil, Constant::Nil),
            Literal::Boolean(b) => (ConstantKey::Boolean(*b), Constant::Boolean(*b)),
            Literal::Integer(i) => (ConstantKey::Integer(*i), Constant::Integer(*i)),
            Literal::Float(f) => (ConstantKey::Float(f.to_bits()), Constant::Float(*f)),
            Literal::Struct(index) => (ConstantKey::Struct(*index), Constant::Struct(*index)),
            Literal::String(s) => (
                ConstantKey::String(s.clone()),
                Constant::String((**s).into()),
            ),
        };
        let f = &mut self.f;
        if let Some(&index) = f.known_constants.get(&key) {
            return Ok(index);
        }
        let index = f.constants.len();
        if index >= CONSTANTS {
            return self.limit("constants", CONSTANTS);
        }
        f.known_constants.insert(key, index);
        f.constants.push(constant);
        Ok(index)
    }

    /// The index of a constant that an instruction names by sixteen bits.
    pub(super) fn short_constant(&mut self, literal: &Literal) -> Coded<u16> {
        let index = self.constant(literal)?;
        match u16::try_from(index) {
            Ok(index) => Ok(index),
            Err(_) => self.limit("constants before one of a struct", 1 << 16),
        }
    }

    /// The index of a string constant.
    pub(super) fn name_constant(&mut self, name: &str) -> Coded<usize> {
        self.constant(&Literal::String(Rc::from(name.as_bytes())))
    }

    pub(super) fn too_many_registers<T>(&self) -> Coded<T> {
        self.fail(format!(
            "function or expression needs too many registers (limit is {REGISTERS})"
        ))
    }

    /// Makes sure that the frame has `count` registers from the first free one on.
    pub(super) fn need(&mut self, count: usize) -> Coded<()> {
        let top = self.f.free + count;
        if top > REGISTERS {
            return self.too_many_registers();
        }
        self.f.registers = self.f.registers.max(top);
        Ok(())
    }

    /// Takes the next registers, and gives the first.
    pub(super) fn reserve(&mut self, count: usize) -> Coded<u8> {
        self.need(count)?;
        let first = self.f.free as u8;
        self.f.free += count;
        Ok(first)
    }

    /// Gives back a register, the topmost, unless a variable has it.
    pub(super) fn release(&mut self, register: u8) {
        if usize::from(register) >= self.f.level(self.f.active.len()) {
            self.f.free -= 1;
            debug_assert_eq!(
                self.f.free,
                usize::from(register),
                "registers are given back in order"
            );
        }
    }

    /// Gives back two registers, in the right order.
    pub(super) fn release_two(&mut self, one: u8, other: u8) {
        self.release(one.max(other));
        self.release(one.min(other));
    }

    /// Sets `count` registers from `first` on to nil, with the instruction before, if that does the same.
    pub(super) fn nil(&mut self, first: u8, count: usize) -> Coded<()> {
        if count == 0 {
            return Ok(());
        }
        let (from, to) = (usize::from(first), usize::from(first) + count - 1);
        if let (Some(word), Some(at)) = (self.f.previous(), self.f.last)
            && Op::of(word) == Some(Op::KNIL)
        {
            let (start, end) = (a(word), d(word));
            // Raw registers come to lie between parameters and all others.
            let fixed = self.f.fixed();
            let parted = (start.min(from) < fixed) != (end.max(to) < fixed);
            if parted {
                // Two instructions.
            } else if (start <= from && from <= end + 1) || (from <= start && start <= to + 1) {
                self.f.code[at] = ad(Op::KNIL, start.min(from) as u8, end.max(to) as u16);
                return Ok(());
            }
        }
        self.emit_ad(Op::KNIL, first, to as u16)?;
        Ok(())
    }
}
