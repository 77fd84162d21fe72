//! Bytecode: the table of instructions, compiled functions, their disassembly, their form as bytes and the verifier.

#![deny(unsafe_code)]

pub mod binary;
mod disassemble;
pub mod function;
pub mod instructions;
mod verify;

pub use disassemble::disassemble;
pub use function::{Capture, CaptureKind, CaptureSource, Constant, Function, LocalName};
pub use instructions::Op;
pub use verify::{VerifyError, verify};
