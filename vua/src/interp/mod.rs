//! The interpreter.
//!
//! | file | what |
//! | --- | --- |
//! | [`dispatch`] | one handler for each instruction, and how one leads to the next |
//! | [`frame`] | frames on the value stack, links between them |
//! | [`call`] | calls and returns off the fast path: natives, metamethods, variadic functions, growing stacks |
//! | [`close`] | variables to be closed |
//! | [`operate`] | arithmetic, comparison, concatenation and length off the fast path |
//! | [`index`] | reads and writes of tables off the fast path |
//! | [`loops`] | loops off the fast path, `parallel for` among them |
//! | [`name`] | what a register's value is called in the source, for messages |
//! | [`roots`] | collections: what a core holds, and how an instruction starts again after one |
//! | [`throw`] | errors: unwinding, messages, tracebacks |
//! | [`metered`] | counting instructions, and stopping after some |
//! | [`racing`] | noting what instructions access, to find data races |
//! | [`native`] | what native functions see |
//!
//! Handlers keep the state of the running function in five machine registers. Whatever is not a fast path saves `pc` and
//! `base` in the [`Core`], runs an ordinary Rust function on it, and goes on from what that left there: the next
//! instruction, a metamethod's first, a handler of an error.
//!
//! # Invariants
//! - A handler trusts the verifier: operands are in the frame, constants are of their kind, cells are cells.
//! - A stack is used by the core that runs its task and by nobody else, so its words are plain memory.
//! - Above every frame [`frame::SLACK`] slots are free.

mod call;
mod close;
pub(crate) mod core_state;
mod dispatch;
pub(crate) mod frame;
mod index;
mod loops;
pub(crate) mod memory;
pub(crate) mod metered;
mod name;
pub mod native;
mod operate;
pub(crate) mod racing;
pub(crate) mod roots;
pub(crate) mod throw;

pub(crate) use core_state::{Core, Vm};
pub(crate) use dispatch::{Exit, enter, intrinsic};
pub(crate) use loops::Range;
pub(crate) use operate::text_of;
