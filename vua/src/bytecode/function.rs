//! Functions as the compiler makes them and the verifier reads them: plain data, with no reference to the heap.
//! The loader turns a verified one into prototypes ([`crate::object::Proto`]).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::memory::Shape;

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// nil.
    Nil,
    /// true or false.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A float; NaN is canonical once loaded.
    Float(f64),
    /// A string of any bytes.
    String(Box<[u8]>),
    /// The type of a struct of the chunk, by its number.
    Struct(u32),
}

/// Where a closure gets one of its captures from when it is made, by `FNEW` in the enclosing function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureSource {
    /// A register of the enclosing function's frame.
    Register(u8),
    /// A capture of the enclosing function.
    Capture(u16),
    /// The closure itself: `local function f` that calls itself and is not assigned again.
    Itself,
}

/// What a capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureKind {
    /// A value: of a variable that does not change after the capture.
    Value,
    /// A cell that holds a value.
    Cell,
    /// A raw word: of a `reg` or `f64` variable that does not change after the capture.
    Raw,
    /// A cell that holds a raw word.
    RawCell,
}

/// One captured variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The variable's name, for messages.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: CaptureSource,
    /// What is captured: in the register or capture of the source, and in the closure.
    pub kind: CaptureKind,
}

/// A local variable's name over a range of instructions, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalName {
    /// The name.
    pub name: Arc<str>,
    /// Its register.
    pub register: u8,
    /// The first instruction at which it is in scope.
    pub start: u32,
    /// The first instruction after its scope.
    pub end: u32,
}

/// A compiled function.
#[derive(Clone, Debug)]
pub struct Function {
    /// The chunk's name: a path, or `[string "…"]`.
    pub source: Arc<str>,
    /// The name it was declared with, for tracebacks: `f`, `M.f`, `obj:method`; `None` for anonymous ones and main chunks.
    pub name: Option<Arc<str>>,
    /// The line of its `function`; 0 for a main chunk.
    pub line: u32,
    /// The line of its `end`.
    pub last_line: u32,
    /// Instructions and extension words; the first is `FUNC` or `FUNCV`.
    pub code: Vec<u32>,
    /// The source line of each word of `code`.
    pub lines: Vec<u32>,
    /// Constants.
    pub constants: Vec<Constant>,
    /// Functions declared directly in it.
    pub children: Vec<Function>,
    /// Its captures. A function that uses globals has the environment `_ENV` as capture 0, of kind `Value`.
    pub captures: Vec<Capture>,
    /// Number of parameters.
    pub parameters: u8,
    /// Whether it takes extra arguments.
    pub variadic: bool,
    /// Number of registers in its frame, at most 250.
    pub registers: u8,
    /// First raw register; equals `parameters` where there is one.
    pub raw_start: u8,
    /// Number of raw registers.
    pub raw_count: u8,
    /// Whether it is the body of a `parallel for`.
    pub parallel_body: bool,
    /// Names of local variables.
    pub locals: Vec<LocalName>,
    /// Of a main chunk: the structs that it and the functions in it declare.
    pub structs: Vec<Shape>,
}

impl Function {
    /// About how many bytes it takes, and the functions in it, names shared with others left out.
    pub fn footprint(&self) -> usize {
        let text = |constant: &Constant| match constant {
            Constant::String(bytes) => bytes.len(),
            _ => 0,
        };
        size_of::<Function>()
            + 4 * (self.code.capacity() + self.lines.capacity())
            + size_of::<Constant>() * self.constants.capacity()
            + self.constants.iter().map(text).sum::<usize>()
            + size_of::<Capture>() * self.captures.capacity()
            + size_of::<LocalName>() * self.locals.capacity()
            + size_of::<Shape>() * self.structs.capacity()
            + self.children.iter().map(Function::footprint).sum::<usize>()
    }
}
