//! A readable listing of a compiled function and those declared in it.

use alloc::string::String;
use core::fmt::Write;

use super::instructions::{Extension, Format, Op, Operand, a, b, c, d, j, signed_d};
use super::{CaptureKind, CaptureSource, Constant, Function};

/// The listing. Words that are no instruction are shown as such, so it is safe on anything.
pub fn disassemble(function: &Function) -> String {
    let mut text = String::new();
    list(&mut text, function, "main", 0);
    text
}

/// Functions nested deeper than this are left out; the compiler nests no deeper than its parser.
const MAX_DEPTH: usize = 250;

fn list(text: &mut String, function: &Function, path: &str, depth: usize) {
    let name = function.name.as_deref().unwrap_or("?");
    let _ = writeln!(
        text,
        "function {path} '{name}' {}:{}-{}: {} parameters{}, {} registers, raw {}+{}",
        function.source,
        function.line,
        function.last_line,
        function.parameters,
        if function.variadic { " and more" } else { "" },
        function.registers,
        function.raw_start,
        function.raw_count,
    );
    for (i, capture) in function.captures.iter().enumerate() {
        let source = match capture.source {
            CaptureSource::Register(r) => alloc::format!("R[{r}]"),
            CaptureSource::Capture(c) => alloc::format!("capture {c}"),
            CaptureSource::Itself => "itself".into(),
        };
        let kind = match capture.kind {
            CaptureKind::Value => "value",
            CaptureKind::Cell => "cell",
            CaptureKind::Raw => "raw",
            CaptureKind::RawCell => "raw cell",
        };
        let _ = writeln!(
            text,
            "  capture {i} '{}': {kind} from {source}",
            capture.name
        );
    }
    let mut at = 0;
    while at < function.code.len() {
        at = instruction(text, function, at);
    }
    for (i, child) in function.children.iter().enumerate() {
        if depth < MAX_DEPTH {
            let _ = writeln!(text);
            list(text, child, &alloc::format!("{path}.{i}"), depth + 1);
        }
    }
}

fn instruction(text: &mut String, function: &Function, at: usize) -> usize {
    let word = function.code[at];
    let line = function.lines.get(at).copied().unwrap_or(0);
    let Some(op) = Op::of(word) else {
        let _ = writeln!(text, "  {at:4} [{line}] ?        {word:08x}");
        return at + 1;
    };
    let row = op.row();
    let extended = row.extension != Extension::None;
    let next = at + 1 + extended as usize;
    let _ = write!(text, "  {at:4} [{line}] {:<8}", row.name);
    let fields: [usize; 3] = match row.format {
        Format::ABC => [a(word), b(word), c(word)],
        Format::AD => [a(word), d(word), 0],
        Format::J => [0; 3],
    };
    let mut note = String::new();
    for (i, operand) in row.operands.iter().enumerate() {
        match operand {
            Operand::None => {}
            Operand::Jump => {
                let distance = if row.format == Format::J {
                    j(word)
                } else {
                    signed_d(word)
                };
                let _ = write!(text, " ->{}", next as isize + distance);
            }
            Operand::Signed => {
                let _ = write!(text, " {}", signed_d(word));
            }
            Operand::Constant | Operand::NumberConstant => {
                let _ = write!(text, " K{}", fields[i]);
                note = constant(function, fields[i]);
            }
            _ => {
                let _ = write!(text, " {}", fields[i]);
            }
        }
    }
    match (row.extension, function.code.get(at + 1)) {
        (Extension::Field, Some(word)) => note = constant(function, (word & 0xffff) as usize),
        (Extension::Constant, Some(word)) => note = constant(function, *word as usize),
        (Extension::Index, Some(word)) => {
            let _ = write!(text, " [{word}]");
        }
        _ => {}
    }
    if note.is_empty() {
        let _ = writeln!(text);
    } else {
        let _ = writeln!(text, "  ; {note}");
    }
    next
}

fn constant(function: &Function, index: usize) -> String {
    match function.constants.get(index) {
        None => "no such constant".into(),
        Some(Constant::Nil) => "nil".into(),
        Some(Constant::Boolean(b)) => alloc::format!("{b}"),
        Some(Constant::Integer(i)) => alloc::format!("{i}"),
        Some(Constant::Float(f)) => crate::number::float_text(*f).as_str().into(),
        Some(Constant::Struct(index)) => alloc::format!("struct {index}"),
        Some(Constant::String(bytes)) => alloc::format!("\"{}\"", bytes.escape_ascii()),
    }
}
