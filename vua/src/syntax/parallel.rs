//! `parallel for`, in its three forms. Only the plain one over a range is a statement of the tree; the others are rewritten here.
//!
//! A loop with `reduce` becomes a plain one over pieces of the range, whose number and bounds follow from the range alone:
//!
//! ```text
//! do
//!   local start, limit, step, count = pieces(first, last, by)
//!   local results = {}
//!   parallel for p = 1, count do
//!     local sum = 0
//!     local from, to = piece(start, limit, step, count, p)
//!     for i = from, to, step do … end
//!     results[p] = sum
//!   end
//!   for p = 1, count do sum = sum + results[p] end
//! end
//! ```
//!
//! A loop over an iterator becomes a call of `each` with its body as a function. `pieces`, `piece` and `each` are [built-in
//! functions](ExprKind::Builtin), which no program can change.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::ast::*;
use super::parser::{Failed, Parsed, Parser};
use super::token::{Position, Token};

/// A variable of the loop: its name, its type, where it stands.
struct LoopVariable(Arc<str>, Type, Position);

/// `name operator` of a `reduce`.
struct Clause {
    name: Arc<str>,
    position: Position,
    operator: Reduction,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reduction {
    Binary(BinaryOp),
    Concat,
    Min,
    Max,
}

enum Head {
    Range(Vec<ExprId>, Vec<Clause>),
    Iterator(Vec<ExprId>),
}

impl Parser<'_> {
    pub(super) fn parallel_for(&mut self, position: Position) -> Parsed<StatementKind> {
        // A level of its own besides the statement's: it needs more of the machine's stack than other statements.
        self.enter()?;
        let result = self.parallel_loop(position);
        self.leave();
        result
    }

    fn parallel_loop(&mut self, position: Position) -> Parsed<StatementKind> {
        self.advance();
        self.advance();
        let mut variables = Vec::new();
        let head = self.head(&Token::Do, |parser| {
            loop {
                let at = parser.current.position;
                let name = parser.name()?;
                // The type is read for its errors; the variable is declared below, in the body's scope.
                let id = parser.declare(name.clone(), at);
                parser.optional_type(id)?;
                variables.push(LoopVariable(name, parser.variables[id.0 as usize].kind, at));
                if !parser.accept(&Token::Comma) {
                    break;
                }
            }
            if parser.accept(&Token::In) {
                return Ok(Head::Iterator(parser.expressions()?));
            }
            if variables.len() > 1 {
                return parser.fail_near("'in' expected");
            }
            let bounds = parser.bounds()?;
            let clauses = if parser.at_word("reduce") {
                parser.clauses()?
            } else {
                Vec::new()
            };
            Ok(Head::Range(bounds, clauses))
        });
        match head {
            Some(Head::Range(bounds, clauses)) if !clauses.is_empty() => {
                self.reduction(position, &variables, &bounds, &clauses)
            }
            head => {
                let function = self.loop_function(position, &variables)?;
                match head.ok_or(Failed)? {
                    Head::Range(bounds, _) => {
                        let [start, limit, ref step @ ..] = bounds[..] else {
                            return Err(Failed);
                        };
                        Ok(StatementKind::ParallelFor {
                            function,
                            start,
                            limit,
                            step: step.first().copied(),
                        })
                    }
                    Head::Iterator(values) => {
                        self.functions[function.0 as usize].parallel = false;
                        let each = self.add(ExprKind::Builtin(Builtin::Each), position);
                        let mut arguments = vec![self.add(ExprKind::Function(function), position)];
                        arguments.extend(values);
                        Ok(StatementKind::Call(
                            self.add(ExprKind::Call(each, arguments), position),
                        ))
                    }
                }
            }
        }
    }

    /// The body as a function of the loop's variables.
    fn loop_function(
        &mut self,
        position: Position,
        variables: &[LoopVariable],
    ) -> Parsed<FunctionId> {
        self.open_function(false, true, position);
        let mut parameters = Vec::new();
        for variable in variables {
            parameters.push(self.declare_loop_variable(variable)?);
        }
        let body = self.block();
        self.end_loop_function(position, parameters, body)
    }

    fn declare_loop_variable(
        &mut self,
        LoopVariable(name, kind, position): &LoopVariable,
    ) -> Parsed<VariableId> {
        let id = self.declare(name.clone(), *position);
        self.variables[id.0 as usize].kind = *kind;
        self.activate(id)?;
        Ok(id)
    }

    fn end_loop_function(
        &mut self,
        position: Position,
        parameters: Vec<VariableId>,
        body: Block,
    ) -> Parsed<FunctionId> {
        let last_line = self.current.position.line;
        let closed = self.expect_close(&Token::EndWord, &Token::For, position.line);
        let function = self.finish_function(|function| {
            *function = FunctionBody {
                name: Some(Arc::from("parallel for body")),
                parameters,
                body,
                position,
                line: position.line,
                last_line,
                ..FunctionBody::default()
            };
        });
        closed?;
        Ok(function)
    }

    /// `reduce name operator, …`.
    fn clauses(&mut self) -> Parsed<Vec<Clause>> {
        self.advance();
        let mut clauses: Vec<Clause> = Vec::new();
        loop {
            let position = self.current.position;
            let name = self.name()?;
            let operator = match self.token() {
                Token::Plus => Reduction::Binary(BinaryOp::Add),
                Token::Star => Reduction::Binary(BinaryOp::Mul),
                Token::Ampersand => Reduction::Binary(BinaryOp::BAnd),
                Token::Bar => Reduction::Binary(BinaryOp::BOr),
                Token::Tilde => Reduction::Binary(BinaryOp::BXor),
                Token::And => Reduction::Binary(BinaryOp::And),
                Token::Or => Reduction::Binary(BinaryOp::Or),
                Token::Concat => Reduction::Concat,
                _ if self.at_word("min") => Reduction::Min,
                _ if self.at_word("max") => Reduction::Max,
                _ => {
                    return self.fail_near(
                        "an operator of a reduction expected: + * & | ~ .. and or min max",
                    );
                }
            };
            self.advance();
            if clauses.iter().any(|clause| clause.name == name) {
                let message = alloc::format!("'{name}' is reduced twice");
                self.report(position, message);
            }
            clauses.push(Clause {
                name,
                position,
                operator,
            });
            if !self.accept(&Token::Comma) {
                return Ok(clauses);
            }
        }
    }

    /// A variable that the program cannot name.
    fn hidden(&mut self, position: Position) -> Parsed<VariableId> {
        let id = self.declare(Arc::from("(for state)"), position);
        self.activate(id)?;
        Ok(id)
    }

    fn read(&mut self, variable: VariableId, position: Position) -> ExprId {
        self.note_use(variable);
        self.add(ExprKind::Local(variable), position)
    }

    pub(super) fn builtin(
        &mut self,
        builtin: Builtin,
        arguments: Vec<ExprId>,
        position: Position,
    ) -> ExprId {
        let function = self.add(ExprKind::Builtin(builtin), position);
        self.add(ExprKind::Call(function, arguments), position)
    }

    fn element(&mut self, table: VariableId, index: VariableId, position: Position) -> ExprId {
        let (table, index) = (self.read(table, position), self.read(index, position));
        self.add(ExprKind::Index(table, index), position)
    }

    /// What a piece's own copy of a variable begins with.
    fn neutral(&mut self, clause: &Clause) -> ExprId {
        let kind = match clause.operator {
            Reduction::Min | Reduction::Max => return self.named(&clause.name, clause.position),
            Reduction::Binary(BinaryOp::Mul) => ExprKind::Integer(1),
            Reduction::Binary(BinaryOp::BAnd) => ExprKind::Integer(-1),
            Reduction::Binary(BinaryOp::And) => ExprKind::True,
            Reduction::Binary(BinaryOp::Or) => ExprKind::False,
            Reduction::Binary(_) => ExprKind::Integer(0),
            Reduction::Concat => ExprKind::String(alloc::rc::Rc::from(&b""[..])),
        };
        self.add(kind, clause.position)
    }

    /// The statement by which a piece's result enters the variable.
    fn combine(&mut self, clause: &Clause, result: ExprId) -> Statement {
        let position = clause.position;
        let target = self.named(&clause.name, position);
        self.note_assignment(target);
        let old = self.named(&clause.name, position);
        let assign = |value| StatementKind::Assign(vec![target], vec![value]);
        let kind = match clause.operator {
            Reduction::Binary(operator) => {
                assign(self.add(ExprKind::Binary(operator, old, result), position))
            }
            Reduction::Concat => assign(self.add(ExprKind::Concat(vec![old, result]), position)),
            Reduction::Min | Reduction::Max => {
                let operator = if clause.operator == Reduction::Min {
                    BinaryOp::Lt
                } else {
                    BinaryOp::Gt
                };
                let condition = self.add(ExprKind::Binary(operator, result, old), position);
                let statements = vec![Statement {
                    kind: assign(result),
                    position,
                }];
                StatementKind::If(vec![(condition, Block { statements })], None)
            }
        };
        Statement { kind, position }
    }

    fn reduction(
        &mut self,
        position: Position,
        variables: &[LoopVariable],
        bounds: &[ExprId],
        clauses: &[Clause],
    ) -> Parsed<StatementKind> {
        let active = self.active.len();
        let statement = |kind| Statement { kind, position };
        let mut statements = Vec::new();
        let mut arguments = bounds.to_vec();
        if arguments.len() == 2 {
            arguments.push(self.add(ExprKind::Integer(1), position));
        }
        let values = vec![self.builtin(Builtin::Pieces, arguments, position)];
        let mut state = Vec::new();
        for _ in 0..4 {
            state.push(self.hidden(position)?);
        }
        let &[start, limit, step, count] = &state[..] else {
            return Err(Failed);
        };
        statements.push(statement(StatementKind::Local(state.clone(), values)));
        let mut results = Vec::new();
        for _ in clauses {
            let table = self.add(ExprKind::Table(Vec::new()), position);
            let result = self.hidden(position)?;
            statements.push(statement(StatementKind::Local(vec![result], vec![table])));
            results.push(result);
        }

        self.open_function(false, true, position);
        let piece = self.hidden(position)?;
        let mut body = Vec::new();
        let mut copies = Vec::new();
        let neutral: Vec<ExprId> = clauses.iter().map(|clause| self.neutral(clause)).collect();
        for (clause, value) in clauses.iter().zip(neutral) {
            let kind = match self.find_local(&clause.name) {
                Some(outer) => self.variables[outer.0 as usize].kind,
                None => Type::Any,
            };
            let copy = self.declare(clause.name.clone(), clause.position);
            self.variables[copy.0 as usize].kind = kind;
            body.push(statement(StatementKind::Local(vec![copy], vec![value])));
            copies.push(copy);
        }
        let mut of_piece = Vec::new();
        for variable in [start, limit, step, count, piece] {
            of_piece.push(self.read(variable, position));
        }
        let values = vec![self.builtin(Builtin::Piece, of_piece, position)];
        let (from, to) = (self.hidden(position)?, self.hidden(position)?);
        body.push(statement(StatementKind::Local(vec![from, to], values)));
        for &copy in &copies {
            self.activate(copy)?;
        }
        let (from, to, by) = (
            self.read(from, position),
            self.read(to, position),
            self.read(step, position),
        );
        let inner_active = self.active.len();
        let variable = self.declare_loop_variable(&variables[0])?;
        let block = self.block();
        self.active.truncate(inner_active);
        body.push(statement(StatementKind::NumericFor {
            variable,
            start: from,
            limit: to,
            step: Some(by),
            body: block,
        }));
        for (&result, &copy) in results.iter().zip(&copies) {
            let target = self.element(result, piece, position);
            let value = self.read(copy, position);
            body.push(statement(StatementKind::Assign(vec![target], vec![value])));
        }
        let function = self.end_loop_function(position, vec![piece], Block { statements: body })?;

        let one = self.add(ExprKind::Integer(1), position);
        let limit = self.read(count, position);
        statements.push(statement(StatementKind::ParallelFor {
            function,
            start: one,
            limit,
            step: None,
        }));
        let before = self.active.len();
        let index = self.hidden(position)?;
        let mut combining = Vec::new();
        for (clause, &result) in clauses.iter().zip(&results) {
            let element = self.element(result, index, position);
            combining.push(self.combine(clause, element));
        }
        self.active.truncate(before);
        let start = self.add(ExprKind::Integer(1), position);
        let limit = self.read(count, position);
        statements.push(statement(StatementKind::NumericFor {
            variable: index,
            start,
            limit,
            step: None,
            body: Block {
                statements: combining,
            },
        }));
        self.active.truncate(active);
        Ok(StatementKind::Do(Block { statements }))
    }
}
