//! What tasks share beyond tables: atomic operations.
//!
//! | file | what |
//! | --- | --- |
//! | [`atomic`] | read-modify-writes on fields |

mod atomic;

use crate::heap::NeedMemory;
use crate::library::Builder;

/// Defines the libraries.
pub(crate) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    atomic::open(builder)
}
