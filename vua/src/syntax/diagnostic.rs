//! What the compiler says about a program that it cannot compile.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;

use super::token::Position;

/// One error in a source text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The chunk's name.
    pub chunk: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in bytes, from 1.
    pub column: u32,
    /// What is wrong, and what was expected where that is known.
    pub message: String,
    /// The line of the source, without its end; bytes that are not UTF-8 are replaced.
    pub source_line: String,
    /// As many characters stand before the caret.
    indent: usize,
}

impl Diagnostic {
    /// An error at `position` of `source`.
    pub fn new(chunk: &Arc<str>, source: &[u8], position: Position, message: String) -> Diagnostic {
        let line = line_of(source, position.line);
        let before = &line[..line.len().min(position.column.saturating_sub(1) as usize)];
        Diagnostic {
            chunk: chunk.clone(),
            line: position.line,
            column: position.column,
            message,
            source_line: String::from_utf8_lossy(line).into_owned(),
            indent: String::from_utf8_lossy(before).chars().count(),
        }
    }

    /// The form of Lua's own messages, `name:line: message`, as `load` gives it.
    pub fn one_line(&self) -> String {
        format!("{}:{}: {}", self.chunk, self.line, self.message)
    }
}

/// Three lines: place and message, the source line, a caret below the place.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}:{}:{}: {}",
            self.chunk, self.line, self.column, self.message
        )?;
        writeln!(f, "    {}", self.source_line)?;
        // A tab is kept, so that the caret stands right however wide tabs are.
        let indent: String = self
            .source_line
            .chars()
            .take(self.indent)
            .map(|c| if c == '\t' { c } else { ' ' })
            .collect();
        write!(f, "    {indent}^")
    }
}

/// A line of the source by its number, from 1.
fn line_of(source: &[u8], number: u32) -> &[u8] {
    let mut rest = source;
    for _ in 1..number {
        rest = &rest[line_end(rest).1..];
    }
    &rest[..line_end(rest).0]
}

/// Where the first line's text ends, and where the next line begins. A line ends as Lua's lexer says: `\n`, `\r`, or both.
fn line_end(text: &[u8]) -> (usize, usize) {
    match text.iter().position(|b| matches!(b, b'\n' | b'\r')) {
        None => (text.len(), text.len()),
        Some(at) => {
            let pair = matches!(text.get(at..at + 2), Some(b"\r\n" | b"\n\r"));
            (at, at + 1 + usize::from(pair))
        }
    }
}

/// How much of a token's text a message quotes.
pub(super) const QUOTED: usize = 60;

/// `near 'text'`, of a token's source text.
pub(super) fn near(text: &[u8]) -> String {
    if text.is_empty() {
        return "near <eof>".to_string();
    }
    let shown = String::from_utf8_lossy(&text[..text.len().min(QUOTED)]);
    let more = if text.len() > QUOTED { "..." } else { "" };
    format!("near '{shown}{more}'")
}
