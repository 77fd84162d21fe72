//! From the loader's hand-over to the point where every core runs the kernel's work.

pub mod command_line;
pub mod entry;
pub mod phases;
pub mod requests;
