//! Where the registers of a finished function come to lie.
//!
//! While a function is generated, its tagged and its raw registers are numbered apart. In the frame, parameters come first,
//! then the raw registers, then all other tagged ones.

use super::emit::FunctionState;
use crate::bytecode::instructions::{Extension, Format, Op, Operand, c, d};
use crate::bytecode::{CaptureKind, CaptureSource};

impl FunctionState {
    /// Gives every register its final number.
    pub fn place_registers(&mut self) {
        let (fixed, raw) = (self.fixed() as u8, self.raw_registers as u8);
        if raw == 0 {
            return;
        }
        let tagged = |register: u8| {
            if register >= fixed {
                register + raw
            } else {
                register
            }
        };
        let mut at = 0;
        while at < self.code.len() {
            let word = self.code[at];
            let Some(op) = Op::of(word) else { return };
            let row = op.row();
            for (i, operand) in row.operands.iter().enumerate() {
                let field = match (row.format, i) {
                    (Format::ABC, _) | (Format::AD, 0) => (word >> (8 + 8 * i)) as u8,
                    (Format::AD, 1) => d(word) as u8,
                    _ => continue,
                };
                let moved = match operand {
                    Operand::Read
                    | Operand::Write
                    | Operand::Cell
                    | Operand::NewCell
                    | Operand::RawCell
                    | Operand::NewRawCell
                    | Operand::Base => tagged(field),
                    Operand::RawRead | Operand::RawWrite | Operand::RawBase => fixed + field,
                    _ => continue,
                };
                match (row.format, i) {
                    (_, 0) => self.set_a(at, moved),
                    (Format::AD, _) => self.set_d(at, moved.into()),
                    (_, 1) => self.code[at] = (self.code[at] & !0xff_0000) | u32::from(moved) << 16,
                    _ => self.set_c(at, moved),
                }
            }
            // Ends of runs.
            match op {
                Op::KNIL => self.set_d(at, tagged(d(word) as u8).into()),
                Op::CONCAT => self.set_c(at, tagged(c(word) as u8)),
                _ => {}
            }
            at += 1 + usize::from(row.extension != Extension::None);
        }
        for (local, is_raw) in &mut self.locals {
            local.register = if *is_raw {
                fixed + local.register
            } else {
                tagged(local.register)
            };
        }
        for capture in self
            .children
            .iter_mut()
            .flat_map(|child| &mut child.captures)
        {
            if let CaptureSource::Register(register) = &mut capture.source {
                *register = if capture.kind == CaptureKind::Raw {
                    fixed + *register
                } else {
                    tagged(*register)
                };
            }
        }
    }
}
