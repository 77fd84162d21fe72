//! Samples of stacks, folded: how often each chain of calls was seen.
//!
//! Samples fall on safepoints, that is on calls, ends of loops, and every few thousand steps of a long native: a stretch without any is charged to the
//! next one behind it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::function_name;
use crate::interp::frame::Frame;
use crate::value::Value;

/// How many frames of a deep stack are kept at each end.
const KEPT: usize = 64;

/// Stacks and how often each was seen.
#[derive(Default)]
pub(crate) struct Profile {
    stacks: BTreeMap<String, u64>,
}

impl Profile {
    /// Adds the stack whose innermost frame this is.
    ///
    /// # Safety
    /// The stack is that of the calling core's task, at a safepoint.
    pub(crate) unsafe fn sample(&mut self, innermost: Frame) {
        let mut functions = Vec::new();
        let mut walk = Some(innermost);
        while let Some(frame) = walk {
            // SAFETY: as the caller says; the slot two below a base holds the frame's function.
            unsafe {
                functions.push(Value::from_bits(*frame.base.sub(2)));
                walk = frame.caller();
            }
        }
        let skipped = functions.len().saturating_sub(2 * KEPT);
        let mut text = String::new();
        for (i, function) in functions.iter().rev().enumerate() {
            if (KEPT..KEPT + skipped).contains(&i) {
                if i == KEPT {
                    text.push_str(";…");
                }
                continue;
            }
            if i > 0 {
                text.push(';');
            }
            // A semicolon or line break in a chunk's name would end the name.
            for c in function_name(*function).chars() {
                text.push(if c == ';' || c.is_control() { '_' } else { c });
            }
        }
        *self.stacks.entry(text).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Profile) {
        for (stack, count) in &other.stacks {
            *self.stacks.entry(stack.clone()).or_default() += count;
        }
    }

    pub(crate) fn folded(&self) -> String {
        let mut text = String::new();
        for (stack, count) in &self.stacks {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{stack} {count}");
        }
        text
    }
}
