//! Random input for the language: programs from the grammar compared with the official `lua5.4`, damaged source texts,
//! damaged bytecode.
//!
//! Everything follows from seeds, so that what was found can be found again: each report says how.
//!
//! | module | what |
//! | --- | --- |
//! | [`program`] | random programs |
//! | [`tree`] | programs that can be cut down to what is wrong with them |
//! | [`differential`] | the same programs in two implementations |
//! | [`source`] | source texts that are no programs |
//! | [`bytecode`] | damaged bytecode |
//! | [`random`] | random numbers |

pub mod bytecode;
pub mod differential;
pub mod program;
pub mod random;
pub mod source;
pub mod tree;
