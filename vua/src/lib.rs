//! The Vua language: from source text to running tasks, on whatever implements [`smp::platform::Platform`].
//!
//! | module | what |
//! | --- | --- |
//! | [`syntax`] | source text to a tree |
//! | [`compile`] | the tree to bytecode |
//! | [`bytecode`] | the table of instructions, compiled functions, the disassembler, the verifier |
//! | [`value`] | values, eight bytes each |
//! | [`number`] | numbers as Lua counts, compares, reads and writes them |
//! | [`heap`], [`object`], [`table`] | memory and what lies in it |
//! | [`interp`] | the interpreter |
//! | [`task`] | tasks: spawning, waiting, joining, splitting loops |
//! | [`share`] | atomic operations, locks, queues |
//! | [`library`] | the standard library |
//! | [`engine`] | a program on all cores |
//! | [`observe`] | profiles and traces |
//! | [`race`] | data races, found while a program runs |
//! | [`turns`] | all cores on one thread, to replay and to simulate |
//!
//! It may use `core`, `alloc`, the crates `sync` and `smp`, and `libm`; never the standard library. What holds everywhere in it:
//!
//! 1. **A value is loaded and stored whole**, so a race never makes one that was not there.
//! 2. **Everything alive at a safepoint is in a frame** or another root; past one, nothing derived survives.
//! 3. **No input, source or bytecode or data, can make it panic, loop without a safepoint, or touch memory that is not the program's.**

#![no_std]

extern crate alloc;

pub mod bytecode;
pub mod compile;
pub mod engine;
pub mod heap;
pub mod interp;
pub mod library;
pub mod memory;
pub mod number;
pub mod object;
pub mod observe;
mod output;
mod race;
pub mod share;
pub mod syntax;
pub mod table;
pub mod task;
pub mod turns;
pub mod value;
