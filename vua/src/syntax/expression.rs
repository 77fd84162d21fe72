//! The parser: expressions (Lua 5.4 reference manual, 3.4).

use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::ast::*;
use super::parser::{Parsed, Parser};
use super::scope::Meaning;
use super::token::{Position, Token};

/// How strongly operators before their operand bind.
const UNARY: u8 = 12;
/// Operands of one chain of `..`, at most: each takes a register of the frame.
const OPERANDS: usize = 250;
/// How strongly `..` binds, to its left; operands of one chain bind more strongly.
const CONCAT: u8 = 9;

/// A binary operator, and how strongly it binds to its left and right (`^` leans right).
fn binary(token: &Token) -> Option<(BinaryOp, u8, u8)> {
    use BinaryOp::*;
    Some(match token {
        Token::Or => (Or, 1, 1),
        Token::And => (And, 2, 2),
        Token::Less => (Lt, 3, 3),
        Token::Greater => (Gt, 3, 3),
        Token::LessEqual => (Le, 3, 3),
        Token::GreaterEqual => (Ge, 3, 3),
        Token::NotEqual => (Ne, 3, 3),
        Token::Equal => (Eq, 3, 3),
        Token::Bar => (BOr, 4, 4),
        Token::Tilde => (BXor, 5, 5),
        Token::Ampersand => (BAnd, 6, 6),
        Token::ShiftLeft => (Shl, 7, 7),
        Token::ShiftRight => (Shr, 7, 7),
        Token::Plus => (Add, 10, 10),
        Token::Minus => (Sub, 10, 10),
        Token::Star => (Mul, 11, 11),
        Token::Slash => (Div, 11, 11),
        Token::DoubleSlash => (IDiv, 11, 11),
        Token::Percent => (Mod, 11, 11),
        Token::Caret => (Pow, 14, 13),
        _ => return None,
    })
}

fn unary(token: &Token) -> Option<UnaryOp> {
    Some(match token {
        Token::Not => UnaryOp::Not,
        Token::Minus => UnaryOp::Negate,
        Token::Tilde => UnaryOp::Complement,
        Token::Hash => UnaryOp::Length,
        _ => return None,
    })
}

impl Parser<'_> {
    /// One or more expressions.
    pub(super) fn expressions(&mut self) -> Parsed<Vec<ExprId>> {
        let mut list = vec![self.expression()?];
        while self.accept(&Token::Comma) {
            list.push(self.expression()?);
        }
        Ok(list)
    }

    /// An expression.
    pub(super) fn expression(&mut self) -> Parsed<ExprId> {
        self.operators(0)
    }

    /// An expression of operators that bind more strongly than `limit`.
    fn operators(&mut self, limit: u8) -> Parsed<ExprId> {
        self.enter()?;
        let position = self.current.position;
        let mut left = match unary(self.token()) {
            Some(operator) => {
                self.advance();
                let operand = self.operators(UNARY)?;
                self.add(ExprKind::Unary(operator, operand), position)
            }
            None => self.simple()?,
        };
        loop {
            let position = self.current.position;
            if *self.token() == Token::Concat && CONCAT > limit {
                let mut operands = vec![left];
                // One instruction for the whole chain; its line is the last operator's, as in Lua.
                let mut last = position;
                while *self.token() == Token::Concat {
                    if operands.len() == OPERANDS {
                        return self.fail_near(&alloc::format!(
                            "too many operands of '..' (limit is {OPERANDS})"
                        ));
                    }
                    last = self.current.position;
                    self.advance();
                    operands.push(self.operators(CONCAT)?);
                }
                left = self.add(ExprKind::Concat(operands), last);
                continue;
            }
            match binary(self.token()) {
                Some((operator, to_left, to_right)) if to_left > limit => {
                    self.advance();
                    let right = self.operators(to_right)?;
                    left = self.add(ExprKind::Binary(operator, left, right), position);
                }
                _ => break,
            }
        }
        self.leave();
        Ok(left)
    }

    /// An operand.
    fn simple(&mut self) -> Parsed<ExprId> {
        let position = self.current.position;
        let kind = match self.token() {
            Token::Integer(i) => ExprKind::Integer(*i),
            Token::Float(f) => ExprKind::Float(*f),
            Token::String(s) => ExprKind::String(s.clone()),
            Token::Nil => ExprKind::Nil,
            Token::True => ExprKind::True,
            Token::False => ExprKind::False,
            Token::Ellipsis => {
                self.ellipsis_allowed(position);
                ExprKind::Ellipsis
            }
            Token::LeftBrace => return self.table(),
            Token::Function => {
                self.advance();
                let function = self.function_body(position, false, None)?;
                return Ok(self.add(ExprKind::Function(function), position));
            }
            _ => return self.suffixed(),
        };
        self.advance();
        Ok(self.add(kind, position))
    }

    fn ellipsis_allowed(&mut self, position: Position) {
        let scope = self.scope();
        if scope.variadic {
            return;
        }
        let message = if scope.parallel {
            "cannot use '...' in the body of a 'parallel for': copy it to a local variable or a table first"
        } else {
            "cannot use '...' outside a vararg function near '...'"
        };
        self.report(position, message.to_string());
    }

    /// A string of a name.
    pub(super) fn string_of(&mut self, name: &str, position: Position) -> ExprId {
        self.add(ExprKind::String(Rc::from(name.as_bytes())), position)
    }

    /// What a name means.
    pub(super) fn named(&mut self, name: &str, position: Position) -> ExprId {
        match self.resolve(name) {
            Meaning::Local(variable) => self.add(ExprKind::Local(variable), position),
            Meaning::Global => {
                let name = self.intern(name);
                self.add(ExprKind::Global(name), position)
            }
            Meaning::FieldOf(environment) => {
                let table = self.add(ExprKind::Local(environment), position);
                let key = self.string_of(name, position);
                self.add(ExprKind::Index(table, key), position)
            }
        }
    }

    /// A name or parentheses, with the indices and calls behind it.
    pub(super) fn suffixed(&mut self) -> Parsed<ExprId> {
        // A call that fails is reported at the line where its expression begins, as in Lua.
        let start = self.current.position;
        let position = start;
        let mut left = match self.token() {
            Token::Name(name) => {
                let name = name.clone();
                self.advance();
                self.named(&name, position)
            }
            Token::LeftParen => {
                self.advance();
                let inner = self.expression()?;
                self.expect_close(&Token::RightParen, &Token::LeftParen, position.line)?;
                self.add(ExprKind::Parenthesized(inner), position)
            }
            _ => return self.fail_near("unexpected symbol"),
        };
        loop {
            let position = self.current.position;
            match self.token() {
                Token::Dot => {
                    self.advance();
                    let position = self.current.position;
                    let name = self.name()?;
                    let key = self.string_of(&name, position);
                    left = self.add(ExprKind::Index(left, key), position);
                }
                Token::LeftBracket => {
                    self.advance();
                    // Two levels: indices in indices need much of the machine's stack.
                    self.enter()?;
                    let key = self.expression()?;
                    self.leave();
                    self.expect_close(&Token::RightBracket, &Token::LeftBracket, position.line)?;
                    left = self.add(ExprKind::Index(left, key), position);
                }
                Token::Colon => {
                    self.advance();
                    let name = self.name()?;
                    let at = self.current.position;
                    let arguments = self.arguments()?;
                    left = self.add(ExprKind::Method(left, name, at, arguments), start);
                }
                Token::LeftParen | Token::String(_) | Token::LeftBrace => {
                    let arguments = self.arguments()?;
                    left = self.add(ExprKind::Call(left, arguments), start);
                }
                _ => return Ok(left),
            }
        }
    }

    /// A call's arguments.
    fn arguments(&mut self) -> Parsed<Vec<ExprId>> {
        let position = self.current.position;
        match self.token() {
            Token::String(s) => {
                let kind = ExprKind::String(s.clone());
                self.advance();
                Ok(vec![self.add(kind, position)])
            }
            Token::LeftBrace => Ok(vec![self.table()?]),
            Token::LeftParen => {
                self.advance();
                if self.accept(&Token::RightParen) {
                    return Ok(Vec::new());
                }
                let list = self.expressions()?;
                self.expect_close(&Token::RightParen, &Token::LeftParen, position.line)?;
                Ok(list)
            }
            _ => self.fail_near("function arguments expected"),
        }
    }

    /// A table constructor.
    fn table(&mut self) -> Parsed<ExprId> {
        let position = self.current.position;
        self.advance();
        let mut items = Vec::new();
        while *self.token() != Token::RightBrace {
            let key_position = self.current.position;
            let item = match self.token() {
                Token::Name(name) => {
                    let name = name.clone();
                    if *self.look_ahead() == Token::Assign {
                        self.advance();
                        self.advance();
                        let key = self.string_of(&name, key_position);
                        Item::Keyed(key, self.expression()?)
                    } else {
                        Item::Positional(self.expression()?)
                    }
                }
                Token::LeftBracket => {
                    self.advance();
                    let key = self.expression()?;
                    self.expect(&Token::RightBracket)?;
                    self.expect(&Token::Assign)?;
                    Item::Keyed(key, self.expression()?)
                }
                _ => Item::Positional(self.expression()?),
            };
            items.push(item);
            if !self.accept(&Token::Comma) && !self.accept(&Token::Semicolon) {
                break;
            }
        }
        self.expect_close(&Token::RightBrace, &Token::LeftBrace, position.line)?;
        Ok(self.add(ExprKind::Table(items), position))
    }
}
