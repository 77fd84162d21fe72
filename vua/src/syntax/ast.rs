//! The tree that the parser makes, with every name resolved.
//!
//! Expressions, variables and functions lie in tables and are named by index, so that a long chain of operators, which
//! leans left without bound, is dropped and walked without recursion. Statements nest at most as deep as the parser allows.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::modules::Identity;
use super::token::Position;
use crate::memory::{Layout, Scalar, Shape};

/// An expression of the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExprId(pub u32);

/// A variable of the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VariableId(pub u32);

/// A function of the chunk; 0 is the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionId(pub u32);

/// The chunk's own `_ENV`.
pub const ENVIRONMENT: VariableId = VariableId(0);

/// A parsed chunk.
#[derive(Debug)]
pub struct Chunk {
    /// All expressions.
    pub expressions: Vec<Expr>,
    /// All variables.
    pub variables: Vec<Variable>,
    /// All functions; the first is the main one.
    pub functions: Vec<FunctionBody>,
    /// The structs that it declares.
    pub shapes: Vec<Shape>,
    /// Their layouts.
    pub layouts: Vec<Layout>,
    /// Which they are, whichever chunk names them; those of this chunk belong to a module without a name.
    pub identities: Vec<Identity>,
    /// Names of built-in types that the chunk assigns as globals, which then are ordinary names in it.
    pub assigned_globals: Vec<Arc<str>>,
}

/// The type of a variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// Any value.
    #[default]
    Any,
    /// A raw 64-bit integer.
    Reg,
    /// A raw double.
    F64,
    /// A struct, by its number, or, if the flag says so, nil.
    Struct(u32, bool),
    /// An array, or, if the flag says so, nil.
    Array(Element, bool),
}

/// What the elements of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Numbers.
    Scalar(Scalar),
    /// Structs, by their number.
    Struct(u32),
}

impl Type {
    /// Whether a variable of the type is a raw word.
    pub fn is_raw(self) -> bool {
        matches!(self, Type::Reg | Type::F64)
    }

    /// Whether nil is among its values.
    pub fn is_nullable(self) -> bool {
        matches!(
            self,
            Type::Any | Type::Struct(_, true) | Type::Array(_, true)
        )
    }

    /// As it is written.
    pub fn name(self, shapes: &[Shape]) -> String {
        let of = |index: u32| shapes.get(index as usize).map_or("?", |shape| &*shape.name);
        let (name, array, nullable) = match self {
            Type::Any => ("any", false, false),
            Type::Reg => ("reg", false, false),
            Type::F64 => ("f64", false, false),
            Type::Struct(index, nullable) => (of(index), false, nullable),
            Type::Array(Element::Scalar(scalar), nullable) => (scalar.name(), true, nullable),
            Type::Array(Element::Struct(index), nullable) => (of(index), true, nullable),
        };
        let (array, nullable) = (
            if array { "[]" } else { "" },
            if nullable { "?" } else { "" },
        );
        format!("{name}{array}{nullable}")
    }
}

/// What stands in angle brackets behind a variable's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribute {
    /// Nothing.
    #[default]
    None,
    /// `<const>`.
    Const,
    /// `<close>`.
    Close,
}

/// A local variable.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is declared.
    pub position: Position,
    /// The function that it is local to.
    pub function: FunctionId,
    /// Its attribute.
    pub attribute: Attribute,
    /// Its type.
    pub kind: Type,
    /// The struct that it was declared with, by `struct`.
    pub structure: Option<u32>,
    /// The function that it was declared with, by `local function`.
    pub value: Option<FunctionId>,
    /// Whether an inner function uses it.
    pub captured: bool,
    /// Whether anything but its declaration assigns it.
    pub assigned: bool,
}

impl Variable {
    /// Whether it must live in a cell: closures that copied it would miss an assignment.
    pub fn needs_cell(&self) -> bool {
        self.captured && self.assigned
    }
}

/// An expression.
#[derive(Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where errors in it are reported: its operator, the `(` of a call, the key of an index, else its first token.
    pub position: Position,
}

/// The kinds of expressions.
#[derive(Debug)]
pub enum ExprKind {
    /// `nil`.
    Nil,
    /// `true`.
    True,
    /// `false`.
    False,
    /// An integer.
    Integer(i64),
    /// A float.
    Float(f64),
    /// A string.
    String(Rc<[u8]>),
    /// `...`.
    Ellipsis,
    /// A local variable, of this function or an outer one.
    Local(VariableId),
    /// A global: a field of the chunk's own `_ENV`.
    Global(Arc<str>),
    /// `table[key]`, `table.key`.
    Index(ExprId, ExprId),
    /// `function(arguments)`.
    Call(ExprId, Vec<ExprId>),
    /// `object:name(arguments)`; the position is that of the arguments.
    Method(ExprId, Arc<str>, Position, Vec<ExprId>),
    /// A function.
    Function(FunctionId),
    /// A function of the engine that has no name.
    Builtin(Builtin),
    /// An operator between two operands.
    Binary(BinaryOp, ExprId, ExprId),
    /// `a .. b .. …`, all operands of one chain.
    Concat(Vec<ExprId>),
    /// An operator before its operand.
    Unary(UnaryOp, ExprId),
    /// A table constructor.
    Table(Vec<Item>),
    /// An expression in parentheses, which gives one value and cannot be assigned.
    Parenthesized(ExprId),
}

/// Functions that code calls which the parser makes: the operand of `BUILTIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Builtin {
    /// `(start, limit, step)`: the three as a loop takes them, and the number of pieces.
    Pieces = 0,
    /// `(start, limit, step, count, number)`: first and last index of a piece.
    Piece = 1,
    /// `(body, iterator, state, control, closing)`: calls the body for what the iterator gives.
    Each = 2,
    /// `(name)`: loads a module, unless that is going on already.
    Module = 3,
}

impl Builtin {
    /// The one of this number.
    pub const fn from_number(number: usize) -> Option<Builtin> {
        Some(match number {
            0 => Builtin::Pieces,
            1 => Builtin::Piece,
            2 => Builtin::Each,
            3 => Builtin::Module,
            _ => return None,
        })
    }
}

/// An entry of a table constructor.
#[derive(Debug)]
pub enum Item {
    /// `value`.
    Positional(ExprId),
    /// `[key] = value`, `key = value`.
    Keyed(ExprId, ExprId),
}

/// Operators between two operands, `..` aside.
#[expect(missing_docs, reason = "the operators of the reference manual")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    IDiv,
    Pow,
    BAnd,
    BOr,
    BXor,
    Shl,
    Shr,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
}

/// Operators before their operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-`.
    Negate,
    /// `~`.
    Complement,
    /// `not`.
    Not,
    /// `#`.
    Length,
}

/// A function: also the main chunk, and the body of a `parallel for`.
#[derive(Debug, Default)]
pub struct FunctionBody {
    /// The name it was declared with.
    pub name: Option<Arc<str>>,
    /// Its parameters; the loop variable of a `parallel for`.
    pub parameters: Vec<VariableId>,
    /// Whether it takes extra arguments.
    pub variadic: bool,
    /// Whether it is the body of a `parallel for`.
    pub parallel: bool,
    /// Its result types, if it declares them.
    pub results: Option<Vec<Type>>,
    /// Whether it, or a function in it, uses the chunk's own `_ENV`.
    pub uses_environment: bool,
    /// What it does.
    pub body: Block,
    /// Where its `function` stands.
    pub position: Position,
    /// The line of its `function`; 0 for the main chunk.
    pub line: u32,
    /// The line of its `end`.
    pub last_line: u32,
}

/// Statements with a scope of their own.
#[derive(Debug, Default)]
pub struct Block {
    /// The statements.
    pub statements: Vec<Statement>,
}

/// A statement.
#[derive(Debug)]
pub struct Statement {
    /// What it is.
    pub kind: StatementKind,
    /// Its first token.
    pub position: Position,
}

/// The kinds of statements.
#[derive(Debug)]
pub enum StatementKind {
    /// `local a, b = …`.
    Local(Vec<VariableId>, Vec<ExprId>),
    /// `a, b = …`.
    Assign(Vec<ExprId>, Vec<ExprId>),
    /// A call.
    Call(ExprId),
    /// `do … end`.
    Do(Block),
    /// `while condition do … end`.
    While(ExprId, Block),
    /// `repeat … until condition`.
    Repeat(Block, ExprId),
    /// The arms of an `if`, and its `else`.
    If(Vec<(ExprId, Block)>, Option<Block>),
    /// `for v = start, limit, step do … end`.
    NumericFor {
        /// The loop variable.
        variable: VariableId,
        /// The first value.
        start: ExprId,
        /// The last value.
        limit: ExprId,
        /// The step, 1 if absent.
        step: Option<ExprId>,
        /// The body.
        body: Block,
    },
    /// `for a, b in … do … end`.
    GenericFor {
        /// The loop variables.
        variables: Vec<VariableId>,
        /// The iterator, its state, its first control value, what is to be closed.
        values: Vec<ExprId>,
        /// The body.
        body: Block,
        /// The line at which a failing call of the iterator is reported.
        line: u32,
    },
    /// `parallel for v = start, limit, step do … end`.
    ParallelFor {
        /// The body.
        function: FunctionId,
        /// The first value.
        start: ExprId,
        /// The last value.
        limit: ExprId,
        /// The step, 1 if absent.
        step: Option<ExprId>,
    },
    /// `function a.b:c() … end`.
    Function(ExprId, FunctionId),
    /// `struct S … end`.
    Struct(VariableId, u32),
    /// `struct S from "module"`, and the call that loads the module.
    StructOfModule(VariableId, u32, ExprId),
    /// `local function f() … end`.
    LocalFunction(VariableId, FunctionId),
    /// `return …`.
    Return(Vec<ExprId>),
    /// `break`.
    Break,
    /// `goto name`.
    Goto(Arc<str>),
    /// `::name::`.
    Label(Arc<str>),
}
