//! The parser: statements (Lua 5.4 reference manual, 3.3, and what Vua adds), and how it goes on after an error.
//!
//! An error in a statement is reported once; then tokens are passed over up to one that begins a line with a word that
//! begins a statement, or ends a block. No two errors are reported at one place.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::ast::*;
use super::diagnostic::{Diagnostic, near};
use super::lexer::Lexer;
use super::modules::{Identity, Modules};
use super::scope::FunctionScope;
use super::token::{Lexeme, Position, Token};
use crate::memory::{Layout, Shape};

/// Errors reported for one chunk, at most.
const ERRORS: usize = 20;
/// Statements and expressions inside one another, at most; Lua's limit.
const DEPTH: u32 = 200;
/// Variables that one assignment assigns, at most: about as many as Lua allows.
const TARGETS: usize = 200;

/// The current construct cannot be parsed; the reason has been reported.
#[derive(Debug)]
pub(super) struct Failed;

/// What a parsing function gives.
pub(super) type Parsed<T> = Result<T, Failed>;

/// The state of the parser.
pub(super) struct Parser<'s> {
    lexer: Lexer<'s>,
    chunk: Arc<str>,
    pub(super) current: Lexeme,
    ahead: Option<Lexeme>,
    /// The line on which the token before the current one ends.
    pub(super) previous_line: u32,
    errors: Vec<Diagnostic>,
    /// Where the last error was reported.
    last_error: Option<Position>,
    halted: bool,
    meter: Meter<'s>,
    depth: u32,
    pub(super) expressions: Vec<Expr>,
    pub(super) variables: Vec<Variable>,
    pub(super) functions: Vec<FunctionBody>,
    pub(super) active: Vec<VariableId>,
    pub(super) scopes: Vec<FunctionScope>,
    pub(super) shapes: Vec<Shape>,
    /// The layouts of the shapes.
    pub(super) layouts: Vec<Layout>,
    /// Which structs the shapes are, and their numbers.
    pub(super) identities: Vec<Identity>,
    pub(super) imported: BTreeMap<Identity, u32>,
    /// The structs of other modules.
    pub(super) modules: &'s Modules,
    pub(super) assigned_globals: Vec<Arc<str>>,
}

/// What a chunk takes of memory until it has been compiled and verified, in bytes, at most: for each token (nodes of the tree, instructions, lines,
/// the verifier's states, in vectors that have grown by doubling), for each byte of its text (names and strings, copied as they go), and to begin with.
const TOKEN: usize = 640;
const TEXT: usize = 4;
const START: usize = 16 << 10;
/// What is asked for at a time.
const GRANT: usize = 256 << 10;

/// Asks for memory ahead of what parsing and compiling take.
struct Meter<'m> {
    left: usize,
    more: &'m mut dyn FnMut(usize) -> bool,
}

impl Meter<'_> {
    /// Whether so many bytes may be taken.
    fn spend(&mut self, bytes: usize) -> bool {
        if bytes > self.left {
            let grant = bytes.max(GRANT);
            if !(self.more)(grant) {
                return false;
            }
            self.left += grant;
        }
        self.left -= bytes;
        true
    }
}

/// Parses a chunk. `modules` has what [`modules::imports`](super::modules::imports) finds in it.
///
/// # Errors
/// All that is wrong with it, as far as one pass can tell, in order of appearance; at most 20.
///
/// Asks `more` for memory before it takes any; after a refusal the result says nothing.
pub fn parse<'s>(
    source: &'s [u8],
    chunk_name: &Arc<str>,
    modules: &'s Modules,
    more: &'s mut dyn FnMut(usize) -> bool,
) -> Result<Chunk, Vec<Diagnostic>> {
    let mut meter = Meter { left: 0, more };
    if !meter.spend(START + source.len().saturating_mul(TEXT)) {
        return Err(Vec::new());
    }
    let mut lexer = Lexer::new(source);
    let current = lexer.next();
    let mut parser = Parser {
        lexer,
        chunk: chunk_name.clone(),
        current,
        ahead: None,
        previous_line: 1,
        errors: Vec::new(),
        last_error: None,
        halted: false,
        meter,
        depth: 0,
        expressions: Vec::new(),
        variables: Vec::new(),
        functions: Vec::new(),
        active: Vec::new(),
        scopes: Vec::new(),
        shapes: Vec::new(),
        layouts: Vec::new(),
        identities: Vec::new(),
        imported: BTreeMap::new(),
        modules,
        assigned_globals: Vec::new(),
    };
    parser.take_lexer_errors();
    parser.main();
    if parser.errors.is_empty() {
        Ok(Chunk {
            expressions: parser.expressions,
            variables: parser.variables,
            functions: parser.functions,
            shapes: parser.shapes,
            layouts: parser.layouts,
            identities: parser.identities,
            assigned_globals: parser.assigned_globals,
        })
    } else {
        parser.errors.sort_by_key(|e| (e.line, e.column));
        Err(parser.errors)
    }
}

impl Parser<'_> {
    // Tokens.

    /// Goes to the next token, and gives the one it leaves.
    pub(super) fn advance(&mut self) -> Lexeme {
        self.previous_line = self.current.last_line;
        if !self.meter.spend(TOKEN) {
            self.halt();
        }
        let next = match self.ahead.take() {
            Some(lexeme) => lexeme,
            None => self.lexer.next(),
        };
        let left = core::mem::replace(&mut self.current, next);
        self.take_lexer_errors();
        left
    }

    /// The token after the current one.
    pub(super) fn look_ahead(&mut self) -> &Token {
        let lexer = &mut self.lexer;
        &self.ahead.get_or_insert_with(|| lexer.next()).token
    }

    /// The token now.
    pub(super) fn token(&self) -> &Token {
        &self.current.token
    }

    /// Passes over the current token if it is this one.
    pub(super) fn accept(&mut self, token: &Token) -> bool {
        let is = self.token() == token;
        if is {
            self.advance();
        }
        is
    }

    /// Passes over this token, which must be here.
    pub(super) fn expect(&mut self, token: &Token) -> Parsed<()> {
        if self.accept(token) {
            Ok(())
        } else {
            self.expected(token.text())
        }
    }

    /// Passes over the token that closes what `open` opened at a line.
    pub(super) fn expect_close(&mut self, token: &Token, open: &Token, line: u32) -> Parsed<()> {
        if self.accept(token) {
            return Ok(());
        }
        if line == self.current.position.line {
            return self.expected(token.text());
        }
        let message = format!(
            "'{}' expected (to close '{}' at line {line})",
            token.text(),
            open.text()
        );
        self.fail_near(&message)
    }

    /// Passes over a name.
    pub(super) fn name(&mut self) -> Parsed<Arc<str>> {
        if let Token::Name(name) = self.token() {
            let name = name.clone();
            self.advance();
            return Ok(name);
        }
        self.fail_near("<name> expected")
    }

    /// Whether the current token is a name of this spelling: one of Vua's words in its place.
    pub(super) fn at_word(&self, word: &str) -> bool {
        matches!(self.token(), Token::Name(name) if &**name == word)
    }

    pub(super) fn intern(&mut self, name: &str) -> Arc<str> {
        self.lexer.intern(name)
    }

    // Errors.

    /// Reports an error at a place.
    pub(super) fn report(&mut self, position: Position, message: String) {
        if self.halted || self.last_error == Some(position) {
            return;
        }
        self.last_error = Some(position);
        self.errors.push(Diagnostic::new(
            &self.chunk,
            self.lexer.source(),
            position,
            message,
        ));
        if self.errors.len() >= ERRORS {
            self.halt();
        }
    }

    /// Gives up: no more tokens, no more errors.
    pub(super) fn halt(&mut self) {
        self.lexer.halt();
        self.ahead = None;
        self.current.token = Token::End;
        self.halted = true;
    }

    fn take_lexer_errors(&mut self) {
        if self.lexer.errors.is_empty() {
            return;
        }
        for (position, message) in core::mem::take(&mut self.lexer.errors) {
            self.report(position, message);
        }
    }

    /// Reports what is wrong at the current token.
    pub(super) fn fail_near<T>(&mut self, message: &str) -> Parsed<T> {
        let Lexeme {
            position,
            start,
            end,
            ..
        } = self.current;
        let message = format!("{message} {}", near(&self.lexer.source()[start..end]));
        self.report(position, message);
        Err(Failed)
    }

    fn expected<T>(&mut self, what: &str) -> Parsed<T> {
        self.fail_near(&format!("'{what}' expected"))
    }

    /// Whether the current statement is one of the chunk's outermost scope.
    pub(super) fn is_outermost(&self) -> bool {
        self.scopes.len() == 1 && self.depth == 1
    }

    /// Whether so many bytes may be taken; if not, parsing ends.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let may = self.meter.spend(bytes);
        if !may {
            self.halt();
        }
        may
    }

    /// One level deeper. The level above is reached again by `leave`.
    pub(super) fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH {
            let result = self.fail_near(&format!(
                "too many statements and expressions within one another (limit is {DEPTH} levels)"
            ));
            self.halt();
            return result;
        }
        Ok(())
    }

    /// One level up.
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// After an error in a construct's head: goes on behind `token`, if it stands on this line, or else at the next line.
    fn recover_to(&mut self, token: &Token) {
        let mut first = true;
        while *self.token() != Token::End {
            if self.accept(token) || (self.current.begins_line && !first) || self.at_block_end() {
                return;
            }
            first = false;
            self.advance();
        }
    }

    /// A condition or the like, and the word behind it; an error in it does not lose the block that follows.
    pub(super) fn head<T>(
        &mut self,
        token: &Token,
        parse: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Option<T> {
        match parse(self) {
            Ok(parsed) => {
                if self.expect(token).is_err() {
                    self.recover_to(token);
                }
                Some(parsed)
            }
            Err(Failed) => {
                self.recover_to(token);
                None
            }
        }
    }

    /// After an error in a statement: goes on where the next one probably begins.
    fn recover(&mut self) {
        loop {
            if self.at_block_end() {
                return;
            }
            let begins = matches!(
                self.token(),
                Token::Local
                    | Token::If
                    | Token::While
                    | Token::For
                    | Token::Repeat
                    | Token::Return
                    | Token::Do
                    | Token::Goto
                    | Token::Break
            ) || (self.current.begins_line
                && matches!(
                    self.token(),
                    Token::Function | Token::Name(_) | Token::DoubleColon
                ));
            if begins {
                return;
            }
            self.advance();
        }
    }

    /// Whether a block cannot go on here.
    fn at_block_end(&self) -> bool {
        matches!(
            self.token(),
            Token::End | Token::EndWord | Token::Else | Token::Elseif | Token::Until
        )
    }

    // Tables of the tree.

    pub(super) fn add(&mut self, kind: ExprKind, position: Position) -> ExprId {
        self.expressions.push(Expr { kind, position });
        ExprId(self.expressions.len() as u32 - 1)
    }

    // Blocks and functions.

    /// The main function.
    fn main(&mut self) {
        self.open_function(true, false, Position { line: 1, column: 1 });
        let name = self.intern("_ENV");
        let environment = self.declare(name, Position::default());
        debug_assert_eq!(environment, ENVIRONMENT);
        // In scope, but no local variable of the main function: it does not count as one.
        self.active.push(environment);
        self.scope().first_active = self.active.len();
        let mut body = Block::default();
        loop {
            self.statements(&mut body);
            if *self.token() == Token::End {
                break;
            }
            let _: Parsed<()> = self.fail_near("<eof> expected");
            self.advance();
        }
        let last_line = self.current.position.line;
        let environment_used = self.scope().uses_environment;
        self.close_function();
        self.functions[0] = FunctionBody {
            variadic: true,
            uses_environment: environment_used,
            body,
            position: Position { line: 1, column: 1 },
            last_line,
            ..FunctionBody::default()
        };
    }

    /// A block with a scope of its own.
    pub(super) fn block(&mut self) -> Block {
        let active = self.active.len();
        let mut block = Block::default();
        self.statements(&mut block);
        self.active.truncate(active);
        block
    }

    /// Statements up to what ends a block. Errors are dealt with here.
    fn statements(&mut self, block: &mut Block) {
        loop {
            while self.accept(&Token::Semicolon) {}
            if self.at_block_end() {
                return;
            }
            let depth = self.depth;
            let functions = self.scopes.len();
            let loops = self.scope().loops;
            let returns = *self.token() == Token::Return;
            let start = self.current.start;
            match self.statement() {
                Ok(statement) => block.statements.push(statement),
                Err(Failed) => {
                    self.depth = depth;
                    while self.scopes.len() > functions {
                        self.close_function();
                    }
                    self.scope().loops = loops;
                    if self.current.start == start && !self.at_block_end() {
                        self.advance();
                    }
                    self.recover();
                    continue;
                }
            }
            if returns {
                // Whoever called expects the end of the block here.
                return;
            }
        }
    }

    /// The block of a loop.
    fn loop_block(&mut self) -> Block {
        self.scope().loops += 1;
        let block = self.block();
        self.scope().loops -= 1;
        block
    }

    fn statement(&mut self) -> Parsed<Statement> {
        self.enter()?;
        let position = self.current.position;
        let kind = self.statement_kind(position)?;
        self.leave();
        Ok(Statement { kind, position })
    }

    fn statement_kind(&mut self, position: Position) -> Parsed<StatementKind> {
        match self.token() {
            Token::If => self.if_statement(position.line),
            Token::While => {
                self.advance();
                let condition = self.head(&Token::Do, Self::expression);
                let body = self.loop_block();
                self.expect_close(&Token::EndWord, &Token::While, position.line)?;
                Ok(StatementKind::While(condition.ok_or(Failed)?, body))
            }
            Token::Do => {
                self.advance();
                let body = self.block();
                self.expect_close(&Token::EndWord, &Token::Do, position.line)?;
                Ok(StatementKind::Do(body))
            }
            Token::For => self.for_statement(position.line),
            Token::Repeat => {
                self.advance();
                let active = self.active.len();
                let mut body = Block::default();
                self.scope().loops += 1;
                self.statements(&mut body);
                self.scope().loops -= 1;
                self.expect_close(&Token::Until, &Token::Repeat, position.line)?;
                let condition = self.expression();
                self.active.truncate(active);
                Ok(StatementKind::Repeat(body, condition?))
            }
            Token::Function => self.function_statement(position),
            Token::Local => {
                self.advance();
                if self.accept(&Token::Function) {
                    self.local_function(position)
                } else {
                    self.local_statement()
                }
            }
            Token::DoubleColon => {
                self.advance();
                let name = self.name()?;
                self.expect(&Token::DoubleColon)?;
                Ok(StatementKind::Label(name))
            }
            Token::Return => self.return_statement(position),
            Token::Break => {
                self.advance();
                self.break_allowed(position);
                Ok(StatementKind::Break)
            }
            Token::Goto => {
                self.advance();
                Ok(StatementKind::Goto(self.name()?))
            }
            Token::Name(name) => match &*name.clone() {
                "parallel" if *self.look_ahead() == Token::For => self.parallel_for(position),
                "struct" if matches!(self.look_ahead(), Token::Name(_)) => {
                    self.struct_statement(position)
                }
                _ => self.expression_statement(),
            },
            _ => self.expression_statement(),
        }
    }

    fn break_allowed(&mut self, position: Position) {
        let scope = self.scope();
        if scope.loops > 0 {
            return;
        }
        let message = if scope.parallel {
            "cannot break out of a 'parallel for'".to_string()
        } else {
            format!("break outside a loop at line {}", position.line)
        };
        self.report(position, message);
    }

    fn if_statement(&mut self, line: u32) -> Parsed<StatementKind> {
        let mut arms = Vec::new();
        let mut otherwise = None;
        let mut sound = true;
        loop {
            self.advance();
            let condition = self.head(&Token::Then, Self::expression);
            let block = self.block();
            match condition {
                Some(condition) => arms.push((condition, block)),
                None => sound = false,
            }
            if *self.token() != Token::Elseif {
                break;
            }
        }
        if self.accept(&Token::Else) {
            otherwise = Some(self.block());
        }
        self.expect_close(&Token::EndWord, &Token::If, line)?;
        if sound {
            Ok(StatementKind::If(arms, otherwise))
        } else {
            Err(Failed)
        }
    }

    /// `name [":" type]` of a `for`.
    fn loop_variable(&mut self) -> Parsed<VariableId> {
        let position = self.current.position;
        let name = self.name()?;
        let variable = self.declare(name, position);
        self.optional_type(variable)?;
        Ok(variable)
    }

    fn for_statement(&mut self, line: u32) -> Parsed<StatementKind> {
        self.advance();
        let active = self.active.len();
        let mut variables = Vec::new();
        let mut call_line = line;
        let head = self.head(&Token::Do, |parser| {
            variables.push(parser.loop_variable()?);
            if *parser.token() == Token::Assign {
                return Ok((true, parser.bounds()?));
            }
            while parser.accept(&Token::Comma) {
                variables.push(parser.loop_variable()?);
            }
            if !parser.accept(&Token::In) {
                return parser.fail_near("'=' or 'in' expected");
            }
            call_line = parser.current.position.line;
            Ok((false, parser.expressions()?))
        });
        for &variable in &variables {
            self.activate(variable)?;
        }
        let body = self.loop_block();
        self.active.truncate(active);
        self.expect_close(&Token::EndWord, &Token::For, line)?;
        let (numeric, values) = head.ok_or(Failed)?;
        if !numeric {
            return Ok(StatementKind::GenericFor {
                variables,
                values,
                body,
                line: call_line,
            });
        }
        let [start, limit, ref step @ ..] = values[..] else {
            return Err(Failed);
        };
        Ok(StatementKind::NumericFor {
            variable: variables[0],
            start,
            limit,
            step: step.first().copied(),
            body,
        })
    }

    /// `= start, limit [, step]`.
    pub(super) fn bounds(&mut self) -> Parsed<Vec<ExprId>> {
        self.expect(&Token::Assign)?;
        let start = self.expression()?;
        self.expect(&Token::Comma)?;
        let mut values = vec![start, self.expression()?];
        if self.accept(&Token::Comma) {
            values.push(self.expression()?);
        }
        Ok(values)
    }

    /// Closes the innermost function and fills in its row.
    pub(super) fn finish_function(&mut self, fill: impl FnOnce(&mut FunctionBody)) -> FunctionId {
        let scope = self.close_function().expect("opened by the caller");
        let function = &mut self.functions[scope.id.0 as usize];
        fill(function);
        function.variadic = scope.variadic;
        function.parallel = scope.parallel;
        function.uses_environment = scope.uses_environment;
        scope.id
    }

    /// `[":" type]` behind a variable's name.
    pub(super) fn optional_type(&mut self, variable: VariableId) -> Parsed<()> {
        if self.accept(&Token::Colon) {
            self.variables[variable.0 as usize].kind = self.type_name()?;
        }
        Ok(())
    }

    /// `[":" type]` or `":" "(" types ")"` behind a parameter list.
    fn optional_results(&mut self) -> Parsed<Option<Vec<Type>>> {
        if !self.accept(&Token::Colon) {
            return Ok(None);
        }
        let mut types = Vec::new();
        if self.accept(&Token::LeftParen) {
            if *self.token() != Token::RightParen {
                types.push(self.type_name()?);
                while self.accept(&Token::Comma) {
                    types.push(self.type_name()?);
                }
            }
            self.expect(&Token::RightParen)?;
        } else {
            types.push(self.type_name()?);
        }
        Ok(Some(types))
    }

    fn function_statement(&mut self, position: Position) -> Parsed<StatementKind> {
        self.advance();
        let name_position = self.current.position;
        let first = self.name()?;
        let mut full = String::from(&*first);
        let mut target = self.named(&first, name_position);
        let mut method = false;
        while !method && matches!(self.token(), Token::Dot | Token::Colon) {
            method = self.advance().token == Token::Colon;
            full.push(if method { ':' } else { '.' });
            let key_position = self.current.position;
            let field = self.name()?;
            full.push_str(&field);
            let key = self.string_of(&field, key_position);
            target = self.add(ExprKind::Index(target, key), key_position);
        }
        self.note_assignment(target);
        let function = self.function_body(position, method, Some(Arc::from(full)))?;
        Ok(StatementKind::Function(target, function))
    }

    fn local_function(&mut self, position: Position) -> Parsed<StatementKind> {
        let name_position = self.current.position;
        let name = self.name()?;
        let variable = self.declare(name.clone(), name_position);
        self.activate(variable)?;
        // Known before the body is parsed, which may call it: the number that the next function gets.
        self.variables[variable.0 as usize].value = Some(FunctionId(self.functions.len() as u32));
        let function = self.function_body(position, false, Some(name))?;
        Ok(StatementKind::LocalFunction(variable, function))
    }

    /// Parameters, body and `end` of a function.
    pub(super) fn function_body(
        &mut self,
        position: Position,
        method: bool,
        name: Option<Arc<str>>,
    ) -> Parsed<FunctionId> {
        self.open_function(false, false, position);
        let mut parameters = Vec::new();
        if method {
            let name = self.intern("self");
            parameters.push(self.declare(name, self.current.position));
        }
        let listed = self.expect(&Token::LeftParen).and_then(|()| {
            if *self.token() != Token::RightParen {
                loop {
                    if self.accept(&Token::Ellipsis) {
                        self.scope().variadic = true;
                        break;
                    }
                    if !matches!(self.token(), Token::Name(_)) {
                        return self.fail_near("<name> or '...' expected");
                    }
                    parameters.push(self.loop_variable()?);
                    if !self.accept(&Token::Comma) {
                        break;
                    }
                }
            }
            self.expect(&Token::RightParen)?;
            self.optional_results()
        });
        for &parameter in &parameters {
            self.activate(parameter)?;
        }
        if listed.is_err() {
            self.recover_to(&Token::RightParen);
        }
        let body = self.block();
        let last_line = self.current.position.line;
        self.expect_close(&Token::EndWord, &Token::Function, position.line)?;
        let sound = listed.is_ok();
        let results = listed.unwrap_or_default();
        let function = self.finish_function(|function| {
            *function = FunctionBody {
                name,
                parameters,
                results,
                body,
                position,
                line: position.line,
                last_line,
                ..FunctionBody::default()
            };
        });
        if sound { Ok(function) } else { Err(Failed) }
    }

    fn local_statement(&mut self) -> Parsed<StatementKind> {
        let mut variables = Vec::new();
        let mut closes = false;
        loop {
            let position = self.current.position;
            let name = self.name()?;
            let variable = self.declare(name, position);
            self.optional_type(variable)?;
            if self.accept(&Token::Less) {
                let position = self.current.position;
                let attribute = self.name()?;
                self.expect(&Token::Greater)?;
                self.variables[variable.0 as usize].attribute = match &*attribute {
                    "const" => Attribute::Const,
                    "close" => Attribute::Close,
                    _ => {
                        self.report(position, format!("unknown attribute '{attribute}'"));
                        Attribute::None
                    }
                };
                if &*attribute == "close" {
                    let kind = self.variables[variable.0 as usize].kind;
                    if kind.is_raw() {
                        self.report(
                            position,
                            format!(
                                "a variable of type {} cannot be closed",
                                kind.name(&self.shapes)
                            ),
                        );
                    }
                    if closes {
                        self.report(
                            position,
                            "multiple to-be-closed variables in local list".to_string(),
                        );
                    }
                    closes = true;
                }
            }
            variables.push(variable);
            if !self.accept(&Token::Comma) {
                break;
            }
        }
        let values = if self.accept(&Token::Assign) {
            self.expressions()
        } else {
            Ok(Vec::new())
        };
        // In scope even if the values are wrong: uses of them are not errors of their own.
        for &variable in &variables {
            self.activate(variable)?;
        }
        Ok(StatementKind::Local(variables, values?))
    }

    fn return_statement(&mut self, position: Position) -> Parsed<StatementKind> {
        self.advance();
        if self.scope().parallel {
            let message = "cannot return from the body of a 'parallel for': use 'reduce', 'atomic' or a table for its results";
            self.report(position, message.to_string());
        }
        let values = if self.at_block_end() || *self.token() == Token::Semicolon {
            Vec::new()
        } else {
            self.expressions()?
        };
        self.accept(&Token::Semicolon);
        Ok(StatementKind::Return(values))
    }

    /// An assignment or a call.
    fn expression_statement(&mut self) -> Parsed<StatementKind> {
        let first = self.suffixed()?;
        if matches!(self.token(), Token::Assign | Token::Comma) {
            let mut targets = vec![first];
            self.assignable(first)?;
            while self.accept(&Token::Comma) {
                let target = self.suffixed()?;
                self.assignable(target)?;
                if targets.len() == TARGETS {
                    return self.fail_near(&format!(
                        "too many variables in an assignment (limit is {TARGETS})"
                    ));
                }
                targets.push(target);
            }
            self.expect(&Token::Assign)?;
            let values = self.expressions()?;
            for &target in &targets {
                self.note_assignment(target);
            }
            return Ok(StatementKind::Assign(targets, values));
        }
        match self.expressions[first.0 as usize].kind {
            ExprKind::Call(..) | ExprKind::Method(..) => Ok(StatementKind::Call(first)),
            _ => self.fail_near("syntax error"),
        }
    }

    fn assignable(&mut self, target: ExprId) -> Parsed<()> {
        match self.expressions[target.0 as usize].kind {
            ExprKind::Local(_) | ExprKind::Global(_) | ExprKind::Index(..) => Ok(()),
            _ => self.fail_near("syntax error"),
        }
    }
}
