//! The standard library, as native functions.
//!
//! | file | what |
//! | --- | --- |
//! | [`builder`] | how libraries become tables of functions when an engine starts |
//! | [`pattern`] | Lua's patterns |

pub mod base;
mod builder;
pub mod pattern;

use smp::platform::Platform;

pub use builder::Builder;

use crate::heap::NeedMemory;

/// Defines all libraries but those of tasks, for an engine on this platform.
pub(crate) fn open(builder: &mut Builder<'_>, platform: &'static dyn Platform) -> Result<(), NeedMemory> {
    let _ = platform;
    base::open(builder)
}
