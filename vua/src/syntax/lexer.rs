//! Source text to tokens (Lua 5.4 reference manual, 3.1).
//!
//! An error is noted and the lexer goes on, so that one run finds more than one: a malformed literal still gives a literal,
//! a character that no token begins with is passed over.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::diagnostic::{QUOTED, near};
use super::token::{Lexeme, Position, Token};
use crate::number::{self, Number};

/// Reads tokens from a source text.
pub struct Lexer<'s> {
    source: &'s [u8],
    at: usize,
    line: u32,
    line_start: usize,
    /// The line of the last token, to tell the first of a line.
    previous_line: u32,
    names: BTreeSet<Arc<str>>,
    /// The errors met so far, not yet taken by the parser.
    pub errors: Vec<(Position, String)>,
}

impl<'s> Lexer<'s> {
    /// A lexer at the start of `source`.
    pub fn new(source: &'s [u8]) -> Lexer<'s> {
        Lexer {
            source,
            at: 0,
            line: 1,
            line_start: 0,
            previous_line: 0,
            names: BTreeSet::new(),
            errors: Vec::new(),
        }
    }

    /// The source text.
    pub fn source(&self) -> &'s [u8] {
        self.source
    }

    /// Goes to the end of the source: only `End` comes from now on.
    pub fn halt(&mut self) {
        self.at = self.source.len();
    }

    /// The one copy of a name.
    pub fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let new: Arc<str> = Arc::from(name);
        self.names.insert(new.clone());
        new
    }

    fn peek(&self) -> u8 {
        self.peek_at(0)
    }

    /// A byte ahead; 0 past the end (a NUL in the source is no part of any token outside of strings, so they need not be told apart there).
    fn peek_at(&self, distance: usize) -> u8 {
        self.source.get(self.at + distance).copied().unwrap_or(0)
    }

    fn ended(&self) -> bool {
        self.at >= self.source.len()
    }

    fn position(&self) -> Position {
        self.position_of(self.at)
    }

    /// The position of a byte of the current line.
    fn position_of(&self, at: usize) -> Position {
        Position {
            line: self.line,
            column: (at.saturating_sub(self.line_start) + 1) as u32,
        }
    }

    fn error(&mut self, position: Position, message: String) {
        self.errors.push((position, message));
    }

    /// Passes over a line's end, of one or two bytes.
    fn newline(&mut self) {
        let first = self.peek();
        self.at += 1;
        let second = self.peek();
        if matches!(second, b'\n' | b'\r') && second != first {
            self.at += 1;
        }
        self.line += 1;
        self.line_start = self.at;
    }

    fn skip_line(&mut self) {
        while !self.ended() && !matches!(self.peek(), b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// The next token.
    pub fn next(&mut self) -> Lexeme {
        loop {
            self.skip_blank();
            let position = self.position();
            let start = self.at;
            if let Some(token) = self.token() {
                let begins_line = position.line != self.previous_line;
                self.previous_line = self.line;
                return Lexeme {
                    token,
                    position,
                    start,
                    end: self.at,
                    last_line: self.line,
                    begins_line,
                };
            }
        }
    }

    /// Passes over white space and comments.
    fn skip_blank(&mut self) {
        while !self.ended() {
            match self.peek() {
                b'\n' | b'\r' => self.newline(),
                b' ' | b'\t' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek_at(1) == b'-' => {
                    let position = self.position();
                    self.at += 2;
                    match self.long_bracket() {
                        Some(level) => {
                            if self.long_text(level).is_none() {
                                let line = position.line;
                                self.error(
                                    self.position(),
                                    format!(
                                        "unfinished long comment (starting at line {line}) near <eof>"
                                    ),
                                );
                            }
                        }
                        None => self.skip_line(),
                    }
                }
                _ => return,
            }
        }
    }

    /// The level of the opening long bracket that stands here, which is not passed over; `None` if there is none.
    fn long_bracket(&self) -> Option<usize> {
        if self.peek() != b'[' {
            return None;
        }
        let level = self.source[self.at + 1..]
            .iter()
            .take_while(|&&b| b == b'=')
            .count();
        (self.peek_at(level + 1) == b'[').then_some(level)
    }

    /// The text between long brackets of a level; `None`, at the end of the source, if they are not closed.
    fn long_text(&mut self, level: usize) -> Option<Vec<u8>> {
        self.at += level + 2;
        if !self.ended() && matches!(self.peek(), b'\n' | b'\r') {
            self.newline();
        }
        let mut text = Vec::new();
        while !self.ended() {
            match self.peek() {
                b'\n' | b'\r' => {
                    text.push(b'\n');
                    self.newline();
                }
                b']' => {
                    let marks = self.source[self.at + 1..]
                        .iter()
                        .take_while(|&&b| b == b'=')
                        .count();
                    if marks == level && self.peek_at(level + 1) == b']' {
                        self.at += level + 2;
                        return Some(text);
                    }
                    text.push(b']');
                    self.at += 1;
                }
                byte => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        None
    }

    fn take(&mut self, length: usize, token: Token) -> Option<Token> {
        self.at += length;
        Some(token)
    }

    /// The token that begins here; `None` after a character that begins none.
    fn token(&mut self) -> Option<Token> {
        if self.ended() {
            return Some(Token::End);
        }
        let second = self.peek_at(1);
        match self.peek() {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => Some(self.name()),
            b'0'..=b'9' => Some(self.numeral()),
            b'.' if second.is_ascii_digit() => Some(self.numeral()),
            quote @ (b'"' | b'\'') => Some(self.string(quote)),
            b'[' => match self.long_bracket() {
                Some(level) => Some(self.long_string(level)),
                None if second == b'=' => {
                    let position = self.position();
                    self.error(
                        position,
                        "invalid long string delimiter near '[='".to_string(),
                    );
                    self.at += 2;
                    None
                }
                None => self.take(1, Token::LeftBracket),
            },
            b'+' => self.take(1, Token::Plus),
            b'-' => self.take(1, Token::Minus),
            b'*' => self.take(1, Token::Star),
            b'/' if second == b'/' => self.take(2, Token::DoubleSlash),
            b'/' => self.take(1, Token::Slash),
            b'%' => self.take(1, Token::Percent),
            b'^' => self.take(1, Token::Caret),
            b'#' => self.take(1, Token::Hash),
            b'&' => self.take(1, Token::Ampersand),
            b'~' if second == b'=' => self.take(2, Token::NotEqual),
            b'~' => self.take(1, Token::Tilde),
            b'|' => self.take(1, Token::Bar),
            b'<' if second == b'<' => self.take(2, Token::ShiftLeft),
            b'<' if second == b'=' => self.take(2, Token::LessEqual),
            b'<' => self.take(1, Token::Less),
            b'>' if second == b'>' => self.take(2, Token::ShiftRight),
            b'>' if second == b'=' => self.take(2, Token::GreaterEqual),
            b'>' => self.take(1, Token::Greater),
            b'=' if second == b'=' => self.take(2, Token::Equal),
            b'=' => self.take(1, Token::Assign),
            b'(' => self.take(1, Token::LeftParen),
            b')' => self.take(1, Token::RightParen),
            b'{' => self.take(1, Token::LeftBrace),
            b'}' => self.take(1, Token::RightBrace),
            b']' => self.take(1, Token::RightBracket),
            b';' => self.take(1, Token::Semicolon),
            b':' if second == b':' => self.take(2, Token::DoubleColon),
            b':' => self.take(1, Token::Colon),
            b',' => self.take(1, Token::Comma),
            b'?' => self.take(1, Token::Question),
            b'.' if second == b'.' && self.peek_at(2) == b'.' => self.take(3, Token::Ellipsis),
            b'.' if second == b'.' => self.take(2, Token::Concat),
            b'.' => self.take(1, Token::Dot),
            byte => {
                let position = self.position();
                let length = self.character_length();
                let message = if byte.is_ascii_control() || (length == 1 && !byte.is_ascii()) {
                    format!("unexpected symbol near '<\\{byte}>'")
                } else {
                    format!(
                        "unexpected symbol {}",
                        near(&self.source[self.at..self.at + length])
                    )
                };
                self.error(position, message);
                self.at += length;
                None
            }
        }
    }

    /// The length of the UTF-8 character here; 1 where there is none.
    fn character_length(&self) -> usize {
        let rest = &self.source[self.at..];
        (1..=rest.len().min(4))
            .find(|&n| core::str::from_utf8(&rest[..n]).is_ok())
            .unwrap_or(1)
    }

    fn name(&mut self) -> Token {
        let rest = &self.source[self.at..];
        let length = rest
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
            .count();
        self.at += length;
        // ASCII alone was taken.
        let word = core::str::from_utf8(&rest[..length]).unwrap_or_default();
        Token::keyword(word).unwrap_or_else(|| Token::Name(self.intern(word)))
    }

    fn numeral(&mut self) -> Token {
        let start = self.at;
        let hexadecimal = self.peek() == b'0' && matches!(self.peek_at(1), b'x' | b'X');
        self.at += if hexadecimal { 2 } else { 1 };
        loop {
            let byte = self.peek();
            let exponent = if hexadecimal {
                matches!(byte, b'p' | b'P')
            } else {
                matches!(byte, b'e' | b'E')
            };
            if exponent {
                self.at += 1;
                if matches!(self.peek(), b'+' | b'-') {
                    self.at += 1;
                }
            } else if byte.is_ascii_hexdigit() || byte == b'.' {
                self.at += 1;
            } else {
                break;
            }
        }
        // A numeral that touches a letter is malformed, as a whole.
        while self.peek().is_ascii_alphanumeric() || self.peek() == b'_' {
            self.at += 1;
        }
        let text = &self.source[start..self.at];
        match number::parse(text) {
            Some(Number::Integer(i)) => Token::Integer(i),
            Some(Number::Float(f)) => Token::Float(f),
            None => {
                self.error(
                    self.position_of(start),
                    format!("malformed number {}", near(text)),
                );
                Token::Integer(0)
            }
        }
    }

    fn long_string(&mut self, level: usize) -> Token {
        let line = self.position().line;
        match self.long_text(level) {
            Some(text) => Token::String(Rc::from(text)),
            None => {
                let message =
                    format!("unfinished long string (starting at line {line}) near <eof>");
                self.error(self.position(), message);
                Token::String(Rc::from(&b""[..]))
            }
        }
    }

    fn string(&mut self, quote: u8) -> Token {
        let start = self.at;
        let errors = self.errors.len();
        self.at += 1;
        let mut text = Vec::new();
        loop {
            if self.ended() {
                // A wrong escape sequence may have swallowed the quote.
                if self.errors.len() == errors {
                    let message = "unfinished string near <eof>".to_string();
                    self.error(self.position(), message);
                }
                break;
            }
            match self.peek() {
                b'\n' | b'\r' => {
                    let message =
                        format!("unfinished string {}", near(&self.source[start..self.at]));
                    self.error(self.position_of(start), message);
                    break;
                }
                b'\\' => self.escape(start, &mut text),
                byte => {
                    self.at += 1;
                    if byte == quote {
                        break;
                    }
                    text.push(byte);
                }
            }
        }
        Token::String(Rc::from(text))
    }

    /// An escape sequence, from its backslash on, in the string that begins at `string`.
    fn escape(&mut self, string: usize, text: &mut Vec<u8>) {
        let start = self.at;
        self.at += 1;
        let byte = self.peek();
        let simple = match byte {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'\\' | b'"' | b'\'' => byte,
            b'\n' | b'\r' if !self.ended() => {
                text.push(b'\n');
                return self.newline();
            }
            b'x' => return self.hexadecimal_escape(string, start, text),
            b'u' => return self.unicode_escape(string, start, text),
            b'z' => {
                self.at += 1;
                while !self.ended() && number::is_space(self.peek()) {
                    if matches!(self.peek(), b'\n' | b'\r') {
                        self.newline()
                    } else {
                        self.at += 1
                    }
                }
                return;
            }
            b'0'..=b'9' => {
                let mut value = 0u32;
                let digits = self.source[self.at..]
                    .iter()
                    .take(3)
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                for _ in 0..digits {
                    value = value * 10 + u32::from(self.peek() - b'0');
                    self.at += 1;
                }
                match u8::try_from(value) {
                    Ok(byte) => text.push(byte),
                    Err(_) => self.bad_escape(string, start, "decimal escape too large"),
                }
                return;
            }
            _ => {
                self.bad_escape(string, start, "invalid escape sequence");
                if !self.ended() {
                    self.at += self.character_length();
                }
                return;
            }
        };
        self.at += 1;
        text.push(simple);
    }

    /// An error in the escape sequence that begins at `start`. It is shown with the string before it, unless that is long, and with the character
    /// that does not belong, as Lua does.
    fn bad_escape(&mut self, string: usize, start: usize, message: &str) {
        let end = if self.ended() {
            self.at
        } else {
            self.at + self.character_length()
        };
        let from = if end - string > QUOTED { start } else { string };
        let message = format!("{message} {}", near(&self.source[from..end]));
        self.error(self.position_of(start), message);
    }

    fn hexadecimal_escape(&mut self, string: usize, start: usize, text: &mut Vec<u8>) {
        self.at += 1;
        let mut value = 0u8;
        for _ in 0..2 {
            let Some(digit) = (self.peek() as char).to_digit(16) else {
                return self.bad_escape(string, start, "hexadecimal digit expected");
            };
            value = value << 4 | digit as u8;
            self.at += 1;
        }
        text.push(value);
    }

    fn unicode_escape(&mut self, string: usize, start: usize, text: &mut Vec<u8>) {
        self.at += 1;
        if self.peek() != b'{' {
            return self.bad_escape(string, start, "missing '{'");
        }
        self.at += 1;
        let mut value = 0u32;
        let mut digits = 0;
        while let Some(digit) = (self.peek() as char).to_digit(16) {
            if value >> 27 != 0 {
                self.bad_escape(string, start, "UTF-8 value too large");
                while self.peek().is_ascii_hexdigit() {
                    self.at += 1;
                }
                return;
            }
            self.at += 1;
            digits += 1;
            value = value << 4 | digit;
        }
        if digits == 0 {
            return self.bad_escape(string, start, "hexadecimal digit expected");
        }
        if self.peek() != b'}' {
            return self.bad_escape(string, start, "missing '}'");
        }
        self.at += 1;
        append_utf8(text, value);
    }
}

/// UTF-8 of up to six bytes, for any value below 2^31 (RFC 2279, as Lua's `utf8` library allows).
fn append_utf8(text: &mut Vec<u8>, value: u32) {
    if value < 0x80 {
        return text.push(value as u8);
    }
    // With n continuation bytes the first byte holds 6 - n bits.
    let continuation = (1..=5).find(|n| value < 1 << (6 * n + 6 - n)).unwrap_or(5);
    let mark = (0xff00u32 >> (continuation + 1)) as u8;
    text.push(mark | (value >> (6 * continuation)) as u8);
    for i in (0..continuation).rev() {
        text.push(0x80 | (value >> (6 * i) & 0x3f) as u8);
    }
}
