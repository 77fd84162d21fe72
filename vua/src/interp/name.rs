//! What the value in a register is called in the source, for messages: as Lua 5.4's `ldebug.c` does, by looking for the
//! instruction that last wrote the register.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

use super::core_state::Core;
use super::frame::Frame;
use crate::bytecode::instructions::{Extension, Format, Op, Operand, a, b, d, j, signed_d};
use crate::memory::StructType;
use crate::object::{Debug, Gc, Proto};

/// The name of the local variable in a register at an instruction.
fn local_name(debug: &Debug, register: usize, at: usize) -> Option<&str> {
    let inside = |l: &&crate::bytecode::LocalName| {
        l.register as usize == register
            && (l.start as usize) <= at
            && at < l.end as usize
            // Not those that loops keep for themselves.
            && !l.name.starts_with('(')
    };
    debug.locals.iter().rev().find(inside).map(|l| &*l.name)
}

/// The index of the instruction that last wrote `register` before `at`, if that is certain; jumps over a write make it uncertain.
fn writer(proto: &Proto, register: usize, at: usize) -> Option<usize> {
    let mut found = None;
    let mut target = 0;
    let mut i = 0;
    while i < at {
        let word = word(proto, i);
        let op = Op::of(word)?;
        let row = op.row();
        let writes = match row.operands[0] {
            Operand::Write | Operand::NewCell | Operand::NewRawCell => a(word) == register,
            Operand::Base => match op {
                Op::KNIL => (a(word)..=d(word)).contains(&register),
                Op::SELF => register == a(word) || register == a(word) + 2,
                Op::TLIST
                | Op::TLISTM
                | Op::RET
                | Op::RETM
                | Op::TCALL
                | Op::TCALLM
                | Op::CLOSE => false,
                Op::FORPREP | Op::FORLOOP => (a(word)..a(word) + 4).contains(&register),
                Op::ITERLOOP => false,
                _ => register >= a(word),
            },
            _ => false,
        };
        if writes {
            found = if i < target { None } else { Some(i) };
        }
        let next = i + 1 + (row.extension != Extension::None) as usize;
        let distance = match (row.format, row.operands) {
            (Format::J, _) => j(word),
            (Format::AD, [_, Operand::Jump, _]) => signed_d(word),
            _ => 0,
        };
        if distance > 0 {
            let to = next + distance as usize;
            if to <= at && to > target {
                target = to;
            }
        }
        i = next;
    }
    found
}

/// The event whose metamethod an instruction calls.
fn metamethod_of(op: Op) -> Option<&'static str> {
    Some(match op {
        Op::GGET | Op::TGET | Op::TGETS | Op::TGETI | Op::SELF => "index",
        Op::GSET | Op::TSET | Op::TSETS | Op::TSETI | Op::TSETK | Op::TSETSK | Op::TSETIK => {
            "newindex"
        }
        Op::ADD | Op::ADDK | Op::KADD => "add",
        Op::SUB | Op::SUBK | Op::KSUB => "sub",
        Op::MUL | Op::MULK | Op::KMUL => "mul",
        Op::DIV | Op::DIVK | Op::KDIV => "div",
        Op::MOD | Op::MODK => "mod",
        Op::IDIV | Op::IDIVK => "idiv",
        Op::POW | Op::POWK => "pow",
        Op::BAND | Op::BANDK => "band",
        Op::BOR | Op::BORK => "bor",
        Op::BXOR | Op::BXORK => "bxor",
        Op::SHL | Op::SHLK => "shl",
        Op::SHR | Op::SHRK => "shr",
        Op::NEG => "unm",
        Op::BNOT => "bnot",
        Op::LEN => "len",
        Op::CONCAT => "concat",
        Op::ISEQ | Op::ISNE | Op::ISEQK | Op::ISNEK => "eq",
        Op::ISLT
        | Op::ISNLT
        | Op::ISLTI
        | Op::ISNLTI
        | Op::ISGTI
        | Op::ISNGTI
        | Op::ISLTK
        | Op::ISNLTK
        | Op::ISGTK
        | Op::ISNGTK => "lt",
        Op::ISLE
        | Op::ISNLE
        | Op::ISLEI
        | Op::ISNLEI
        | Op::ISGEI
        | Op::ISNGEI
        | Op::ISLEK
        | Op::ISNLEK
        | Op::ISGEK
        | Op::ISNGEK => "le",
        Op::CLOSE => "close",
        _ => return None,
    })
}

fn word(proto: &Proto, index: usize) -> u32 {
    // SAFETY: callers stay inside the code.
    unsafe { (*proto.code.add(index)).load(Ordering::Relaxed) }
}

fn text(value: crate::value::Value) -> Option<String> {
    value.as_str().and_then(|s| s.to_utf8()).map(String::from)
}

impl Core {
    /// The frame of the running function.
    fn running_frame(&self) -> Frame {
        Frame {
            base: self.base,
            pc: self.pc,
        }
    }

    /// The running function, what is known of its source, and the number of its next instruction; `None` if there is none, or nothing is known of it.
    fn running(&self) -> Option<(&'static Proto, &'static Debug, usize)> {
        let proto = self.frame_proto(self.running_frame())?;
        let at = (self.pc as usize - proto.code as usize) / 4;
        Some((proto, proto.debug()?, at))
    }

    /// ` (local 'x')` and the like, or nothing, for a register read by the running instruction.
    pub(crate) fn variable(&self, register: Option<usize>) -> String {
        let name = register.and_then(|register| self.name_in(self.running_frame(), register));
        name.map_or(String::new(), |name| format!(" ({name})"))
    }

    /// The name of the local variable that comes to be in a register of the running frame; `?` if it has none.
    pub(crate) fn register_name(&self, register: usize) -> String {
        let name = self.running().and_then(|(_, debug, at)| {
            (at.saturating_sub(1)..at + 2).find_map(|at| local_name(debug, register, at))
        });
        name.unwrap_or("?").into()
    }

    /// The name of the variable in a register that is to be closed. The fourth value of a `for` is the one that has no name; Lua's is given.
    pub(crate) fn closing_name(&self, register: usize) -> String {
        match self.register_name(register) {
            name if name == "?" && self.running().is_some() => "(for state)".into(),
            name => name,
        }
    }

    /// ` for variable 'x'` or nothing: the variable, captured or not, that a value in a raw register is meant for.
    pub(crate) fn raw_variable(&self, register: usize) -> String {
        let Some((proto, debug, at)) = self.running() else {
            return String::new();
        };
        // A variable comes into scope at the instruction that makes its value; one in a cell is stored by the next.
        let next = (at < proto.code_length as usize).then(|| word(proto, at));
        let local = |register| (at - 1..at + 3).find_map(|at| local_name(debug, register, at));
        let name = match next.and_then(|next| Some((Op::of(next)?, next))) {
            Some((Op::RSETCELL, next)) if a(next) == register => {
                debug.captures.get(d(next)).map(|capture| &*capture.name)
            }
            Some((Op::ASETI | Op::ASETF, next)) if a(next) == register => {
                return " for the element".into();
            }
            Some((Op::SSET | Op::PSET, next)) if a(next) == register => {
                let extension = word(proto, at + 1) as usize;
                let constants = proto.constants();
                let of = Gc::<StructType>::from_value(constants[extension & 0xffff]);
                let offset = constants[extension >> 16].as_integer().unwrap_or(0) >> 8;
                let field = of.and_then(|of| {
                    let mut fields = of.info().fields.iter().rev();
                    fields.find(|field| field.offset as i64 <= offset)
                });
                return field.map_or(String::new(), |field| {
                    format!(" for field '{}'", field.name)
                });
            }
            Some((Op::RCELLSET | Op::RNEWCELL, next)) if d(next) == register => local(a(next)),
            Some((Op::BOXI | Op::BOXF, next)) if d(next) == register => {
                // Converted and boxed again: on its way out.
                let after = (at + 1..proto.code_length as usize)
                    .map(|at| word(proto, at))
                    .find(|word| {
                        !matches!(
                            Op::of(*word),
                            Some(Op::TOI | Op::TOF | Op::BOXI | Op::BOXF | Op::CLOSE)
                        )
                    });
                return match after.and_then(Op::of) {
                    Some(Op::RET | Op::RET1) => " for the result".into(),
                    _ => String::new(),
                };
            }
            _ => local(register),
        };
        name.map_or(String::new(), |name| format!(" for variable '{name}'"))
    }

    /// ` for variable 'x'` or nothing: the variable whose value in a tagged register was checked.
    pub(crate) fn checked_variable(&self, register: usize) -> String {
        let Some((proto, debug, at)) = self.running() else {
            return String::new();
        };
        let local = |register| (at - 1..at + 4).find_map(|at| local_name(debug, register, at));
        // Behind the extension word a cell may be what it goes to.
        let next = (at + 1 < proto.code_length as usize).then(|| word(proto, at + 1));
        let name = match next.and_then(|next| Some((Op::of(next)?, next))) {
            Some((Op::SETCELL, next)) if a(next) == register => {
                debug.captures.get(d(next)).map(|capture| &*capture.name)
            }
            Some((Op::CELLSET, next)) if d(next) == register => local(a(next)),
            _ => local(register),
        };
        name.map_or(String::new(), |name| format!(" for variable '{name}'"))
    }

    /// What is called by the instruction that a frame stands at, as `global 'f'`, `method 'm'`.
    pub(crate) fn called_name(&self, frame: Frame) -> Option<String> {
        let proto = self.frame_proto(frame)?;
        let at = (frame.pc as usize).wrapping_sub(proto.code as usize) / 4;
        if at == 0 || at > proto.code_length as usize {
            return None;
        }
        let word = word(proto, at - 1);
        match Op::of(word)? {
            Op::CALL | Op::CALLM | Op::TCALL | Op::TCALLM => {
                self.name_before(proto, a(word), at - 1, 0)
            }
            Op::ITERCALL => Some("for iterator 'for iterator'".into()),
            op => metamethod_of(op).map(|event| format!("metamethod '{event}'")),
        }
    }

    fn name_in(&self, frame: Frame, register: usize) -> Option<String> {
        let proto = self.frame_proto(frame)?;
        let at = (frame.pc as usize).wrapping_sub(proto.code as usize) / 4;
        if at == 0 {
            return None;
        }
        self.name_before(proto, register, at - 1, 0)
    }

    fn name_before(
        &self,
        proto: &Proto,
        register: usize,
        at: usize,
        depth: usize,
    ) -> Option<String> {
        let debug = proto.debug()?;
        if let Some(name) = local_name(debug, register, at) {
            return Some(format!("local '{name}'"));
        }
        if depth > 4 {
            return None;
        }
        let index = writer(proto, register, at)?;
        let instruction = word(proto, index);
        let field = |index: usize| {
            text(
                *proto
                    .constants()
                    .get((word(proto, index + 1) & 0xffff) as usize)?,
            )
        };
        // The text that the instruction at an index loads.
        let constant = |at: usize| {
            let loads = word(proto, at);
            let constant = match Op::of(loads)? {
                Op::KVAL => d(loads),
                Op::KVALX => word(proto, at + 1) as usize,
                _ => return None,
            };
            text(*proto.constants().get(constant)?)
        };
        let in_environment = |table: usize| {
            matches!(
                self.name_before(proto, table, index, depth + 1).as_deref(),
                Some("local '_ENV'" | "upvalue '_ENV'")
            )
        };
        match Op::of(instruction)? {
            Op::MOV if d(instruction) < register => {
                self.name_before(proto, d(instruction), index, depth + 1)
            }
            Op::GETCAP | Op::GETCELL => debug
                .captures
                .get(d(instruction))
                .map(|capture| format!("upvalue '{}'", capture.name)),
            Op::CELLGET => {
                local_name(debug, d(instruction), index).map(|name| format!("local '{name}'"))
            }
            Op::GGET => field(index).map(|name| format!("global '{name}'")),
            Op::TGETS => {
                let name = field(index)?;
                let kind = if in_environment(b(instruction)) {
                    "global"
                } else {
                    "field"
                };
                Some(format!("{kind} '{name}'"))
            }
            Op::SELF if register == a(instruction) => {
                field(index).map(|name| format!("method '{name}'"))
            }
            Op::TGETI => Some("field '?'".into()),
            Op::TGET => {
                let key = writer(proto, crate::bytecode::instructions::c(instruction), index)
                    .and_then(constant);
                Some(match key {
                    Some(name) if in_environment(b(instruction)) => format!("global '{name}'"),
                    key => format!("field '{}'", key.as_deref().unwrap_or("?")),
                })
            }
            Op::KVAL | Op::KVALX => constant(index).map(|name| format!("constant '{name}'")),
            _ => None,
        }
    }
}
