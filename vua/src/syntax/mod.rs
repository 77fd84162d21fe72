//! Source text to a tree with resolved names: lexer, parser, scopes.
#![deny(unsafe_code)]

pub mod ast;
mod diagnostic;
mod expression;
mod lexer;
pub mod modules;
mod parallel;
mod parser;
mod scope;
mod structure;
mod token;

pub use diagnostic::Diagnostic;
pub use parser::parse;
pub use token::Position;
