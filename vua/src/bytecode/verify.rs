//! The verifier: what the interpreter trusts is proved here, whoever made the bytecode.
//!
//! For each function: every operand is of the kind that the table of instructions says and lies in bounds; jumps lead to instructions; windows of
//! calls and loops lie in the frame and touch no raw register; a comparison is followed by its jump; backward jumps pass
//! safepoints; control does not run off the end. Then two properties of every path, by a forward analysis until
//! nothing changes: a register that is used as a cell holds one (the greatest fixed point: a set of registers for each instruction, joined by
//! intersection), and an open number of results is consumed by the very next instruction, but for a `CLOSE` before a `RETM`.
//!
//! Time is proportional to the code's length times the number of registers at worst; nesting of functions is bounded.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::instructions::{Extension, Format, Op, Operand, a, b, c, d, j, signed_d};
use super::{CaptureKind, CaptureSource, Constant, Function};
use crate::memory::Scalar;
use crate::memory::layout::{self, Layout, Shape};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// The function, as indices of children from the main one.
    pub path: Vec<usize>,
    /// The word of code; `None` if it is the function's description that is wrong.
    pub at: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("function main")?;
        for child in &self.path {
            write!(f, ".{child}")?;
        }
        if let Some(at) = self.at {
            write!(f, ", word {at}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The most registers that a frame may have: calls need operands above it to stay in eight bits.
const MAX_REGISTERS: u8 = 250;
/// Functions may be nested this deep.
const MAX_DEPTH: usize = 250;

/// Proves a function that is loaded by itself, a main chunk or a dumped one, and all functions in it.
pub fn verify(main: &Function) -> Result<(), VerifyError> {
    if main.parallel_body {
        return Err(VerifyError {
            path: Vec::new(),
            at: None,
            message: "the body of a parallel loop by itself".into(),
        });
    }
    let fail = |message: &str| {
        Err(VerifyError {
            path: Vec::new(),
            at: None,
            message: message.into(),
        })
    };
    let layouts = match layout::layouts(&main.structs) {
        Ok(layouts) => layouts,
        Err((index, message)) => {
            return fail(&format!("struct {index}: {message}"));
        }
    };
    verify_function(main, &mut Vec::new(), &main.structs, &layouts)
}

/// Whether an instruction leaves a number of results open.
fn opens(op: Op, word: u32) -> bool {
    match op {
        Op::CALL | Op::CALLM => c(word) == 0,
        Op::TCALL | Op::TCALLM => true,
        Op::VARG => d(word) == 0,
        _ => false,
    }
}

struct Checker<'a> {
    function: &'a Function,
    structs: &'a [Shape],
    layouts: &'a [Layout],
    path: &'a [usize],
    /// For each word: whether an instruction begins there.
    starts: Vec<bool>,
    /// For each word: whether a jump leads there.
    targets: Vec<bool>,
}

/// A set of registers.
type Registers = [u64; 4];

fn contains(set: &Registers, register: usize) -> bool {
    set[register / 64] >> (register % 64) & 1 != 0
}

fn insert(set: &mut Registers, register: usize) {
    set[register / 64] |= 1 << (register % 64);
}

fn remove(set: &mut Registers, register: usize) {
    set[register / 64] &= !(1 << (register % 64));
}

/// What is known before an instruction on every path to it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    cells: Registers,
    raw_cells: Registers,
    /// Registers that hold a table that a constructor just made.
    tables: Registers,
    /// Tagged registers that hold a value. What a callee left behind in those above a call's window may be anything.
    values: Registers,
}

fn verify_function(
    function: &Function,
    path: &mut Vec<usize>,
    structs: &[Shape],
    layouts: &[Layout],
) -> Result<(), VerifyError> {
    if path.len() > MAX_DEPTH {
        return Err(VerifyError {
            path: path.clone(),
            at: None,
            message: "functions are nested too deeply".into(),
        });
    }
    let mut checker = Checker {
        function,
        structs,
        layouts,
        path,
        starts: vec![false; function.code.len()],
        targets: vec![false; function.code.len()],
    };
    checker.description()?;
    checker.instructions()?;
    checker.flow()?;
    for (i, child) in function.children.iter().enumerate() {
        for capture in &child.captures {
            let fits = match capture.source {
                CaptureSource::Register(_) => true,
                CaptureSource::Capture(index) => function
                    .captures
                    .get(index as usize)
                    .is_some_and(|outer| outer.kind == capture.kind),
                CaptureSource::Itself => capture.kind == CaptureKind::Value,
            };
            if !fits {
                path.push(i);
                return Err(VerifyError {
                    path: path.clone(),
                    at: None,
                    message: format!("capture '{}' has no such source", capture.name),
                });
            }
        }
        path.push(i);
        verify_function(child, path, structs, layouts)?;
        path.pop();
    }
    Ok(())
}

impl Checker<'_> {
    fn error<T>(&self, at: Option<usize>, message: impl Into<String>) -> Result<T, VerifyError> {
        Err(VerifyError {
            path: self.path.to_vec(),
            at,
            message: message.into(),
        })
    }

    fn raw(&self, register: usize) -> bool {
        let start = self.function.raw_start as usize;
        (start..start + self.function.raw_count as usize).contains(&register)
    }

    fn description(&self) -> Result<(), VerifyError> {
        let f = self.function;
        if f.registers > MAX_REGISTERS || f.parameters > f.registers {
            return self.error(None, "more registers than a frame can have");
        }
        // A parallel body's loop variable is where its parameters end.
        let fixed = f.parameters + u8::from(f.parallel_body);
        if f.raw_count > 0
            && (f.raw_start != fixed
                || f.raw_start as usize + f.raw_count as usize > f.registers as usize)
        {
            return self.error(None, "raw registers do not follow the parameters");
        }
        if f.parallel_body && (f.parameters != 4 || f.variadic || f.registers < 5) {
            return self.error(
                None,
                "the body of a parallel loop has four parameters and a loop variable",
            );
        }
        if f.lines.len() != f.code.len() && !f.lines.is_empty() {
            return self.error(None, "not every word has a line");
        }
        if f.constants.len() > 1 << 24 || f.children.len() > 1 << 16 || f.captures.len() > 1 << 16 {
            return self.error(
                None,
                "more constants, functions or captures than operands can name",
            );
        }
        let count = self.structs.len();
        if f.constants
            .iter()
            .any(|c| matches!(c, Constant::Struct(index) if *index as usize >= count))
        {
            return self.error(None, "a constant is no struct of the chunk");
        }
        let Some(head) = f.code.first().copied() else {
            return self.error(None, "no code");
        };
        let wanted = if f.variadic { Op::FUNCV } else { Op::FUNC };
        if Op::of(head) != Some(wanted)
            || a(head) != f.registers as usize
            || d(head) != f.parameters as usize
        {
            return self.error(Some(0), "the head disagrees with the function");
        }
        Ok(())
    }

    /// `count` tagged registers from `first` on.
    fn window(&self, at: usize, first: usize, count: usize) -> Result<(), VerifyError> {
        if first + count > self.function.registers as usize {
            return self.error(Some(at), "registers beyond the frame");
        }
        if (first..first + count).any(|register| self.raw(register)) {
            return self.error(Some(at), "raw registers among tagged ones");
        }
        Ok(())
    }

    /// Decodes everything and checks each instruction by itself.
    fn instructions(&mut self) -> Result<(), VerifyError> {
        let code = &self.function.code;
        let mut at = 0;
        while at < code.len() {
            let Some(op) = Op::of(code[at]) else {
                return self.error(Some(at), "no such instruction");
            };
            self.starts[at] = true;
            if (op == Op::FUNC || op == Op::FUNCV) != (at == 0) || op == Op::NATIVE {
                return self.error(Some(at), "a head inside a function");
            }
            let row = op.row();
            at += 1;
            if row.extension != Extension::None {
                if at >= code.len() {
                    return self.error(Some(at - 1), "the extension word is missing");
                }
                at += 1;
            }
        }
        let mut at = 0;
        while at < code.len() {
            let (word, next) = (code[at], self.instruction(at)?);
            let distance = match Op::of(word).map(|op| (op.row().format, op.row().operands[1])) {
                Some((Format::J, _)) => Some(j(word)),
                Some((Format::AD, Operand::Jump)) => Some(signed_d(word)),
                _ => None,
            };
            if let Some(distance) = distance {
                self.targets[(next as isize + distance) as usize] = true;
            }
            at = next;
        }
        Ok(())
    }

    fn instruction(&self, at: usize) -> Result<usize, VerifyError> {
        let f = self.function;
        let word = f.code[at];
        let Some(op) = Op::of(word) else {
            return self.error(Some(at), "no such instruction");
        };
        let row = op.row();
        let next = at + 1 + (row.extension != Extension::None) as usize;
        let fields: [usize; 3] = match row.format {
            Format::ABC => [a(word), b(word), c(word)],
            Format::AD => [a(word), d(word), 0],
            Format::J => [0; 3],
        };
        for (i, operand) in row.operands.iter().enumerate() {
            let value = fields[i];
            let tagged = |what| {
                if value < f.registers as usize && !self.raw(value) {
                    Ok(())
                } else {
                    self.error(Some(at), format!("{what} {value} is no tagged register"))
                }
            };
            let raw = |count: usize| {
                if self.raw(value) && self.raw(value + count - 1) {
                    Ok(())
                } else {
                    self.error(Some(at), format!("operand {value} is no raw register"))
                }
            };
            let capture = |kind| match f.captures.get(value) {
                Some(capture) if capture.kind == kind => Ok(()),
                _ => self.error(
                    Some(at),
                    format!("capture {value} is not of the kind needed"),
                ),
            };
            match operand {
                Operand::None if value != 0 => {
                    return self.error(Some(at), "an unused operand is not zero");
                }
                Operand::None | Operand::Unsigned | Operand::Signed | Operand::Base => {}
                Operand::Read
                | Operand::Write
                | Operand::Cell
                | Operand::NewCell
                | Operand::RawCell
                | Operand::NewRawCell => tagged("operand")?,
                Operand::RawRead | Operand::RawWrite => raw(1)?,
                Operand::RawBase => raw(4)?,
                Operand::Constant if value >= f.constants.len() => {
                    return self.error(Some(at), "no such constant");
                }
                Operand::Constant => {}
                Operand::NumberConstant => match f.constants.get(value) {
                    Some(Constant::Integer(_) | Constant::Float(_)) => {}
                    _ => return self.error(Some(at), "no such number among the constants"),
                },
                Operand::Child if value >= f.children.len() => {
                    return self.error(Some(at), "no such function");
                }
                Operand::Child => {}
                Operand::Capture => capture(CaptureKind::Value)?,
                Operand::CellCapture => capture(CaptureKind::Cell)?,
                Operand::RawCapture => capture(CaptureKind::Raw)?,
                Operand::RawCellCapture => capture(CaptureKind::RawCell)?,
                Operand::Jump => self.jump(
                    at,
                    op,
                    next,
                    if row.format == Format::J {
                        j(word)
                    } else {
                        signed_d(word)
                    },
                )?,
            }
        }
        if row.extension == Extension::Constant && f.code[at + 1] as usize >= f.constants.len() {
            return self.error(Some(at), "there is no such constant");
        }
        if row.extension == Extension::Field {
            match f.constants.get((f.code[at + 1] & 0xffff) as usize) {
                Some(Constant::String(_)) => {}
                _ => return self.error(Some(at), "the field's name is no string constant"),
            }
        }
        if row.extension == Extension::Path {
            self.path(at, f.code[at + 1])?;
        }
        if op == Op::CHECK {
            self.check(at, b(word), f.code[at + 1])?;
        }
        if op == Op::SNEW && !matches!(f.constants.get(d(word)), Some(Constant::Struct(_))) {
            return self.error(Some(at), "not the type of a struct");
        }
        self.special(at, op, word)?;
        if op.is_comparison() && f.code.get(next).and_then(|w| Op::of(*w)) != Some(Op::JMP) {
            return self.error(Some(at), "no jump follows the comparison");
        }
        Ok(next)
    }

    /// A `Path`: at that offset of that struct lies a scalar of that kind.
    fn path(&self, at: usize, extension: u32) -> Result<(), VerifyError> {
        let constants = &self.function.constants;
        let of = constants.get((extension & 0xffff) as usize);
        let place = constants.get((extension >> 16) as usize);
        let (Some(Constant::Struct(index)), Some(Constant::Integer(place))) = (of, place) else {
            return self.error(Some(at), "no struct and place among the constants");
        };
        let kind =
            Scalar::from_code(*place as u8).filter(|kind| kind.is_integer() || kind.is_float());
        let fits = kind
            .zip(usize::try_from(*place >> 8).ok())
            .is_some_and(|(kind, offset)| {
                layout::has_scalar(self.structs, self.layouts, *index, offset, kind)
            });
        if fits {
            Ok(())
        } else {
            self.error(Some(at), "no such scalar lies there in the struct")
        }
    }

    /// What `CHECK` checks for.
    fn check(&self, at: usize, wanted: usize, extension: u32) -> Result<(), VerifyError> {
        let fits = match wanted & 3 {
            0 | 1 => matches!(
                self.function.constants.get(extension as usize),
                Some(Constant::Struct(_))
            ),
            2 => u8::try_from(extension)
                .ok()
                .and_then(Scalar::from_code)
                .is_some(),
            _ => false,
        };
        if fits && wanted < 8 {
            Ok(())
        } else {
            self.error(Some(at), "no type to check for")
        }
    }

    fn jump(&self, at: usize, op: Op, next: usize, distance: isize) -> Result<(), VerifyError> {
        let target = next as isize + distance;
        let lands = usize::try_from(target)
            .ok()
            .and_then(|t| self.starts.get(t))
            .copied()
            .unwrap_or(false);
        if !lands || target == 0 {
            return self.error(
                Some(at),
                format!("the jump leads to {target}, where no instruction begins"),
            );
        }
        let backward = matches!(
            op,
            Op::LOOP | Op::FORLOOP | Op::ITERLOOP | Op::PFORLOOP | Op::RFORLOOP
        );
        if backward != (target <= at as isize) {
            return self.error(
                Some(at),
                if backward {
                    "a loop's end leads forward"
                } else {
                    "a backward jump without a safepoint"
                },
            );
        }
        Ok(())
    }

    /// What the table's kinds do not say.
    fn special(&self, at: usize, op: Op, word: u32) -> Result<(), VerifyError> {
        let f = self.function;
        match op {
            Op::KNIL if d(word) < a(word) => self.error(Some(at), "an empty run of registers"),
            Op::KNIL => self.window(at, a(word), d(word) - a(word) + 1),
            Op::CONCAT if c(word) <= b(word) => self.error(Some(at), "fewer than two operands"),
            Op::CONCAT => self.window(at, b(word), c(word) - b(word) + 1),
            Op::GGET | Op::GSET => match f.captures.first() {
                Some(capture) if capture.kind == CaptureKind::Value => Ok(()),
                _ => self.error(Some(at), "no environment among the captures"),
            },
            Op::SELF => self.window(at, a(word), 3),
            Op::TLIST | Op::TLISTM if f.code[at + 1] == 0 => {
                self.error(Some(at), "a list that begins before its first element")
            }
            Op::TLIST | Op::TLISTM => self.window(at, a(word), 1 + d(word)),
            Op::CALL | Op::CALLM => {
                self.window(at, a(word), 2 + b(word))?;
                self.window(at, a(word), c(word).saturating_sub(1).max(1))
            }
            Op::TCALL | Op::TCALLM => self.window(at, a(word), 2 + d(word)),
            Op::RET | Op::RETM if d(word) == 0 && op == Op::RET => self.window(at, a(word), 0),
            Op::RET | Op::RETM => self.window(at, a(word), d(word)),
            Op::VARG if !f.variadic => {
                self.error(Some(at), "extra arguments of a function that has none")
            }
            Op::VARG => self.window(at, a(word), d(word).saturating_sub(1)),
            Op::FORPREP | Op::FORLOOP => self.window(at, a(word), 4),
            Op::ITERCALL => {
                if a(word) < 4 || b(word) != 2 || c(word) == 0 {
                    return self.error(Some(at), "not the window of an iterator");
                }
                self.window(at, a(word) - 4, 4 + c(word).saturating_sub(1).max(4))
            }
            Op::ITERLOOP if a(word) < 2 => self.error(Some(at), "not the window of an iterator"),
            Op::ITERLOOP => self.window(at, a(word) - 2, 3),
            Op::CLOSE => self.window(at, a(word), 0),
            Op::BUILTIN if crate::syntax::ast::Builtin::from_number(d(word)).is_none() => {
                self.error(Some(at), "no such built-in function")
            }
            Op::PFORPREP => self.window(at, a(word), 6),
            Op::PFORLOOP if !f.parallel_body => {
                self.error(Some(at), "the end of a parallel loop outside its body")
            }
            Op::PJOIN => self.window(at, a(word), 1),
            Op::ISEQP | Op::ISNEP if d(word) > 2 => self.error(Some(at), "no such value"),
            Op::ICMPF if c(word) > 9 => self.error(Some(at), "no such comparison"),
            Op::IBITS if c(word) > 3 => self.error(Some(at), "no such operation on bits"),
            _ => Ok(()),
        }
    }

    /// Where control goes after the instruction at `at`.
    fn successors(&self, at: usize, op: Op, word: u32, to: &mut Vec<usize>) {
        to.clear();
        let row = op.row();
        let next = at + 1 + (row.extension != Extension::None) as usize;
        match op {
            Op::RET | Op::RETM | Op::RET0 | Op::RET1 => {}
            Op::JMP | Op::LOOP => to.push((next as isize + j(word)) as usize),
            _ if op.is_comparison() => {
                // Taken: the jump's target. Not taken: what follows the jump.
                to.push(next);
                to.push(next + 1);
            }
            _ => {
                if row.operands[1] == Operand::Jump {
                    to.push((next as isize + signed_d(word)) as usize);
                }
                to.push(next);
            }
        }
    }

    fn flow(&self) -> Result<(), VerifyError> {
        let f = self.function;
        let mut known: Vec<Option<Known>> = vec![None; f.code.len()];
        let empty = Known {
            cells: [0; 4],
            raw_cells: [0; 4],
            tables: [0; 4],
            // All are nil at first.
            values: [u64::MAX; 4],
        };
        known[0] = Some(empty);
        let mut work = vec![0];
        let mut to = Vec::new();
        while let Some(at) = work.pop() {
            let word = f.code[at];
            let Some(op) = Op::of(word) else {
                return self.error(Some(at), "no such instruction");
            };
            let Some(before) = known[at] else { continue };
            let after = self.transfer(at, op, word, before)?;
            let opens = opens(op, word);
            self.successors(at, op, word, &mut to);
            for (way, next) in to.iter().copied().enumerate() {
                let mut after = after;
                // What an instruction stores on one of its two ways only. The first is that of its jump.
                match (op, way) {
                    (Op::ISTC | Op::ISFC, 0) => insert(&mut after.values, a(word)),
                    (Op::FORLOOP, 0) | (Op::FORPREP, 1) => insert(&mut after.values, a(word) + 3),
                    (Op::ITERLOOP, 0) => insert(&mut after.values, a(word) - 2),
                    (Op::PFORPREP, 1) => insert(&mut after.values, a(word) + 5),
                    _ => {}
                }
                if next >= f.code.len() {
                    return self.error(Some(at), "control runs off the end");
                }
                if opens && !self.consumes(next, word) {
                    return self.error(Some(at), "an open number of results is not used at once");
                }
                let joined = match known[next] {
                    None => after,
                    Some(old) => {
                        let meet = |x: Registers, y: Registers| {
                            [x[0] & y[0], x[1] & y[1], x[2] & y[2], x[3] & y[3]]
                        };
                        Known {
                            cells: meet(old.cells, after.cells),
                            raw_cells: meet(old.raw_cells, after.raw_cells),
                            tables: meet(old.tables, after.tables),
                            values: meet(old.values, after.values),
                        }
                    }
                };
                if known[next] != Some(joined) {
                    known[next] = Some(joined);
                    work.push(next);
                }
            }
        }
        // An M form must come right behind what opened, on every path: nothing else leads to it.
        let mut at = 0;
        let mut previous: Option<(Op, u32)> = None;
        let mut before: Option<(Op, u32)> = None;
        while at < f.code.len() {
            let word = f.code[at];
            let Some(op) = Op::of(word) else {
                return self.error(Some(at), "no such instruction");
            };
            if matches!(op, Op::CALLM | Op::TCALLM | Op::RETM | Op::TLISTM) {
                let opened = |by: Option<(Op, u32)>| by.is_some_and(|(op, word)| opens(op, word));
                let behind_close =
                    previous.is_some_and(|(op, _)| op == Op::CLOSE) && opened(before);
                let closed = behind_close && op == Op::RETM && !self.targets[at - 1];
                if !(opened(previous) || closed) || self.targets[at] {
                    return self.error(Some(at), "no open number of results comes before this");
                }
            }
            before = previous;
            previous = Some((op, word));
            at += 1 + (op.row().extension != Extension::None) as usize;
        }
        Ok(())
    }

    /// Whether the instruction at `at` takes what an instruction before it left open, and takes it from the right register.
    fn consumes(&self, at: usize, opener: u32) -> bool {
        let word = self.function.code[at];
        let first = a(opener);
        if matches!(Op::of(opener), Some(Op::TCALL | Op::TCALLM)) {
            return Op::of(word) == Some(Op::RETM) && a(word) == first && d(word) == 0;
        }
        match Op::of(word) {
            Some(Op::CALLM) => a(word) + 2 + b(word) == first,
            Some(Op::TCALLM) => a(word) + 2 + d(word) == first,
            Some(Op::RETM) => a(word) + d(word) == first,
            Some(Op::TLISTM) => a(word) + 1 + d(word) == first,
            // A return of open results may close variables first.
            Some(Op::CLOSE) => self.function.code.get(at + 1).is_some_and(|word| {
                Op::of(*word) == Some(Op::RETM) && a(*word) + d(*word) == first
            }),
            _ => false,
        }
    }

    /// What is known after an instruction; checks what it needs to be known before.
    fn transfer(&self, at: usize, op: Op, word: u32, before: Known) -> Result<Known, VerifyError> {
        let row = op.row();
        let fields = match row.format {
            Format::ABC => [a(word), b(word), c(word)],
            Format::AD => [a(word), d(word), 0],
            Format::J => [0; 3],
        };
        for (i, operand) in row.operands.iter().enumerate() {
            let holds = match operand {
                Operand::Cell => contains(&before.cells, fields[i]),
                Operand::RawCell => contains(&before.raw_cells, fields[i]),
                _ => true,
            };
            if !holds {
                return self.error(
                    Some(at),
                    format!("register {} does not hold a cell on every path", fields[i]),
                );
            }
        }
        if matches!(op, Op::TLIST | Op::TLISTM) && !contains(&before.tables, a(word)) {
            return self.error(
                Some(at),
                format!(
                    "register {} does not hold a new table on every path",
                    a(word)
                ),
            );
        }
        if op == Op::FNEW {
            self.closure(at, word, &before)?;
        }
        self.reads(at, op, word, &before)?;
        let mut after = before;
        let forget = |after: &mut Known, register: usize| {
            if register < 256 {
                remove(&mut after.cells, register);
                remove(&mut after.raw_cells, register);
                remove(&mut after.tables, register);
            }
        };
        let registers = self.function.registers as usize;
        match op {
            Op::KNIL => (a(word)..=d(word)).for_each(|r| forget(&mut after, r)),
            Op::CONCAT => (b(word)..=c(word))
                .chain([a(word)])
                .for_each(|r| forget(&mut after, r)),
            Op::SELF => (a(word)..a(word) + 3).for_each(|r| forget(&mut after, r)),
            Op::CALL
            | Op::CALLM
            | Op::TCALL
            | Op::TCALLM
            | Op::VARG
            | Op::ITERCALL
            | Op::PFORPREP => {
                (a(word)..registers).for_each(|r| forget(&mut after, r));
                if op == Op::ITERCALL {
                    forget(&mut after, a(word) - 4);
                }
                if !matches!(op, Op::VARG | Op::PFORPREP) {
                    (a(word)..256).for_each(|r| remove(&mut after.values, r));
                }
                let written = match op {
                    Op::VARG => d(word).saturating_sub(1),
                    Op::TCALL | Op::TCALLM | Op::PFORPREP => 0,
                    _ => c(word).saturating_sub(1),
                };
                (a(word)..a(word) + written).for_each(|r| insert(&mut after.values, r));
            }
            Op::FORPREP | Op::FORLOOP => (a(word)..a(word) + 4).for_each(|r| forget(&mut after, r)),
            Op::ITERLOOP => forget(&mut after, a(word) - 2),
            // There registers that no variable is in may become nil.
            Op::LOOP => after.tables = [0; 4],
            Op::PFORLOOP => (0..5).for_each(|r| forget(&mut after, r)),
            Op::NEWCELL => {
                forget(&mut after, a(word));
                insert(&mut after.cells, a(word));
            }
            Op::RNEWCELL => {
                forget(&mut after, a(word));
                insert(&mut after.raw_cells, a(word));
            }
            Op::TNEW => {
                forget(&mut after, a(word));
                insert(&mut after.tables, a(word));
            }
            _ if row.operands[0] == Operand::Write => forget(&mut after, a(word)),
            _ => {}
        }
        match op {
            Op::KNIL => (a(word)..=d(word)).for_each(|r| insert(&mut after.values, r)),
            Op::SELF => [a(word), a(word) + 2]
                .into_iter()
                .for_each(|r| insert(&mut after.values, r)),
            // What they store on one way only is not stored here; what else they store held values before.
            Op::FORPREP | Op::FORLOOP | Op::ITERLOOP | Op::PFORPREP | Op::ISTC | Op::ISFC => {}
            _ if matches!(
                row.operands[0],
                Operand::Write | Operand::NewCell | Operand::NewRawCell
            ) =>
            {
                insert(&mut after.values, a(word));
            }
            _ => {}
        }
        Ok(after)
    }

    /// What an instruction reads holds a value on every path.
    fn reads(&self, at: usize, op: Op, word: u32, before: &Known) -> Result<(), VerifyError> {
        let row = op.row();
        let fields = match row.format {
            Format::ABC => [a(word), b(word), c(word)],
            Format::AD => [a(word), d(word), 0],
            Format::J => [0; 3],
        };
        let value = |register: usize| {
            if register < 256 && contains(&before.values, register) {
                Ok(())
            } else {
                self.error(
                    Some(at),
                    format!("register {register} does not hold a value on every path"),
                )
            }
        };
        for (field, operand) in fields.into_iter().zip(row.operands) {
            if operand == Operand::Read {
                value(field)?;
            }
        }
        let run = |first: usize, count: usize| (first..first + count).try_for_each(value);
        match op {
            Op::CONCAT => run(b(word), c(word) - b(word) + 1),
            Op::TLIST | Op::TLISTM => run(a(word), 1 + d(word)),
            Op::CALL | Op::CALLM => {
                value(a(word))?;
                run(a(word) + 2, b(word))
            }
            Op::TCALL | Op::TCALLM => {
                value(a(word))?;
                run(a(word) + 2, d(word))
            }
            Op::RET | Op::RETM => run(a(word), d(word)),
            Op::FORPREP | Op::FORLOOP => run(a(word), 3),
            Op::ITERCALL => run(a(word) - 4, 3),
            Op::ITERLOOP | Op::PJOIN => value(a(word)),
            Op::PFORPREP => {
                value(a(word))?;
                run(a(word) + 2, 3)
            }
            _ => Ok(()),
        }
    }

    /// What a closure captures is there, and of its kind.
    fn closure(&self, at: usize, word: u32, before: &Known) -> Result<(), VerifyError> {
        let Some(child) = self.function.children.get(d(word)) else {
            return self.error(Some(at), "no such function");
        };
        for capture in &child.captures {
            if let CaptureSource::Register(register) = capture.source {
                let register = register as usize;
                let fits = register < self.function.registers as usize
                    && match capture.kind {
                        CaptureKind::Value => {
                            !self.raw(register)
                                && (contains(&before.values, register) || register == a(word))
                        }
                        CaptureKind::Cell => contains(&before.cells, register),
                        CaptureKind::Raw => self.raw(register),
                        CaptureKind::RawCell => contains(&before.raw_cells, register),
                    };
                if !fits {
                    return self.error(
                        Some(at),
                        format!(
                            "'{}' cannot be captured from register {register}",
                            capture.name
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod tests;
