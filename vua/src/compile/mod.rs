//! The compiler: tree to bytecode, one function at a time.
//!
//! Registers are handed out as by Lua's own compiler: local variables first, temporaries above them like a stack. An
//! expression is described ([`operand::Operand`]) until it is known where its value is wanted, so that it is computed there;
//! conditions become jumps, whose lists are kept in the jumps themselves. (Ierusalimschy, de Figueiredo, Celes: "The
//! Implementation of Lua 5.0", 2005; the descriptors are those of `lcode.c`.)
#![deny(unsafe_code)]

mod call;
mod control;
mod emit;
mod frame;
mod function;
pub mod modules;
mod operand;
mod operator;
mod place;
mod raw;
mod statement;
mod typed;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::bytecode::Function;
use crate::syntax::ast::{Chunk, FunctionId, VariableId};
use crate::syntax::{self, Position};

pub use crate::syntax::Diagnostic;
pub use crate::syntax::modules::{Declarations, Modules};

use modules::{Files, NoFiles};

use emit::FunctionState;
use operand::Literal;

/// Errors reported for one chunk, at most.
const ERRORS: usize = 20;

/// A limit was exceeded; the compiler cannot go on.
#[derive(Debug)]
struct Failure {
    position: Position,
    message: String,
}

/// What a generating function gives.
type Coded<T> = Result<T, Failure>;

/// Where a variable is, in the function that declares it.
#[derive(Clone, Debug)]
enum Location {
    /// Not declared yet.
    Nowhere,
    /// In a register.
    Register(u8),
    /// In a cell, which is in a register.
    Cell(u8),
    /// Nowhere: it is a constant.
    Constant(Literal),
    /// In capture 0: the chunk's own environment.
    Environment,
}

/// The state of the compiler.
struct Compiler<'c> {
    chunk: &'c Chunk,
    source: Arc<str>,
    /// The function being generated.
    f: Box<FunctionState>,
    /// Those around it, outermost first.
    #[allow(
        clippy::vec_box,
        reason = "they move between here and `f` as nested functions begin and end"
    )]
    outer: Vec<Box<FunctionState>>,
    /// Where each variable is.
    locations: Vec<Location>,
    /// Types of untyped variables that nothing assigns, where the compiler knows them: by variable.
    known_types: BTreeMap<VariableId, syntax::ast::Type>,
    /// Errors that do not keep the compiler from going on.
    errors: Vec<(Position, String)>,
}

impl Compiler<'_> {
    fn variable(&self, id: VariableId) -> &syntax::ast::Variable {
        &self.chunk.variables[id.0 as usize]
    }
}

/// The text of a file without its byte order mark and without a first line that begins with `#`; the line's end stays, so that lines keep their numbers.
pub fn without_first_comment(file: &[u8]) -> &[u8] {
    let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    if text.first() != Some(&b'#') {
        return text;
    }
    let rest = text
        .iter()
        .position(|byte| matches!(byte, b'\n' | b'\r'))
        .map_or(&b""[..], |end| &text[end..]);
    match rest {
        // A compiled chunk has no lines.
        [_, compiled @ ..] if compiled.starts_with(&crate::bytecode::binary::SIGNATURE) => compiled,
        _ => rest,
    }
}

/// Compiles a source text that names no structs of other modules. The result has one capture, the environment `_ENV`, and takes any number of arguments.
///
/// `chunk_name` is how messages name the source: a path, or `[string "…"]`.
///
/// # Errors
/// All that is wrong with the text, as far as one run can tell, in order of appearance; at most 20, at least one.
pub fn compile(source: &[u8], chunk_name: &str) -> Result<Function, Vec<Diagnostic>> {
    compile_within(source, chunk_name, &NoFiles, &mut |_| true).0
}

/// As [`compile`], with modules that are found in `files`, which are given too; in bounded memory: before it takes any, for verifying the result too, it
/// asks `more` whether it may have so many bytes. After the first no it stops soon, and its result, whatever it is, says nothing.
///
/// # Errors
/// As those of [`compile`].
pub fn compile_within(
    source: &[u8],
    chunk_name: &str,
    files: &dyn Files,
    more: &mut dyn FnMut(usize) -> bool,
) -> (Result<Function, Vec<Diagnostic>>, Modules) {
    let modules = match modules::named(source, more) {
        Some(names) => modules::resolve(&names, files, more),
        None => return (Err(Vec::new()), Modules::default()),
    };
    (with_modules(source, chunk_name, &modules, more), modules)
}

fn with_modules(
    source: &[u8],
    chunk_name: &str,
    modules: &Modules,
    more: &mut dyn FnMut(usize) -> bool,
) -> Result<Function, Vec<Diagnostic>> {
    let name: Arc<str> = Arc::from(chunk_name);
    let chunk = syntax::parse(source, &name, modules, more)?;
    let mut compiler = Compiler {
        chunk: &chunk,
        source: name.clone(),
        f: Box::new(FunctionState::new(FunctionId(0), 0)),
        outer: Vec::new(),
        locations: vec![Location::Nowhere; chunk.variables.len()],
        known_types: BTreeMap::new(),
        errors: Vec::new(),
    };
    let result = compiler.main();
    let mut errors = compiler.errors;
    let function = match result {
        Ok(function) => Some(function),
        Err(failure) => {
            errors.push((failure.position, failure.message));
            None
        }
    };
    match function {
        Some(function) if errors.is_empty() => Ok(function),
        _ => {
            errors.sort_by_key(|error| error.0);
            Err(errors
                .into_iter()
                .take(ERRORS)
                .map(|(at, message)| Diagnostic::new(&name, source, at, message))
                .collect())
        }
    }
}

#[cfg(test)]
mod tests;
