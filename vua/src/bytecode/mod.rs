//! Bytecode: the table of instructions, compiled functions, their disassembly and the verifier.

pub mod function;
pub mod instructions;

pub use function::{Capture, CaptureKind, CaptureSource, Constant, Function, LocalName};
pub use instructions::Op;
