//! Structs and arrays: memory to the byte.
//!
//! | file | what |
//! | --- | --- |
//! | [`scalar`] | what elements and fields are, and how they are read and written |
//! | [`layout`] | where the fields of a struct lie |
//! | [`object`] | the objects of the heap |

pub mod layout;
pub mod object;
pub mod scalar;

#[cfg(test)]
mod tests;

pub use layout::{Field, Layout, Member, Origin, Shape};
pub use object::{Array, Storage, Struct, StructType};
pub use scalar::Scalar;
