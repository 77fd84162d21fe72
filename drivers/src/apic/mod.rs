//! The advanced programmable interrupt controllers: the one in each core, and those that devices hang on.

pub mod io;
pub mod local;
