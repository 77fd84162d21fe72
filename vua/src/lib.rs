#![no_std]
//! The language.

extern crate alloc;

pub mod bytecode;
pub mod heap;
pub mod object;
pub mod table;
pub mod value;
