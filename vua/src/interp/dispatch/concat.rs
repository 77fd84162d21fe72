//! Concatenation of strings and numbers.

use core::ptr;

use super::*;
use crate::interp::operate::text_of;
use crate::object::{Str, copy};

/// Longer results are made with safepoints, off the fast path.
const MAX_LENGTH: usize = 16 << 10;
/// So many operands, and so many bytes of text for those that are numbers, are joined here.
const MAX_OPERANDS: usize = 32;
const TEXT: usize = 256;

handlers! {
    #[inline(never)]
    concat(ins, pc, base, k, vm) {
        if let Some(string) = join(vm, base.add(b(ins)), c(ins) + 1 - b(ins)) {
            put(base, a(ins), string.value());
            next!(pc, base, k, vm)
        }
        slow!(slow_concat, ins, pc, base, k, vm)
    }
}

/// The values in so many slots, strings and numbers, as one string; `None`, and nothing done, if another is among them or memory is needed.
#[inline(never)]
unsafe fn join(vm: *mut Vm, slots: *const u64, count: usize) -> Option<Gc<Str>> {
    if count > MAX_OPERANDS {
        return None;
    }
    let mut text = [0u8; TEXT];
    let mut texts = 0;
    let mut lengths = [0u8; MAX_OPERANDS];
    let mut total = 0;
    // SAFETY: the slots are registers of the frame. The bytes written are those that were counted: strings do not change, and nothing else runs.
    unsafe {
        for (i, length) in lengths[..count].iter_mut().enumerate() {
            let value = get(slots, i);
            if let Some(string) = value.as_str() {
                total += string.len();
            } else {
                let number = text_of(value.as_number()?);
                let bytes = number.as_bytes();
                text.get_mut(texts..texts + bytes.len())?
                    .copy_from_slice(bytes);
                *length = bytes.len() as u8;
                texts += bytes.len();
                total += bytes.len();
            }
        }
        if total > MAX_LENGTH {
            return None;
        }
        Str::new_with(&(*vm).core.heap, total, |to| {
            let (mut to, mut from) = (to, text.as_ptr());
            for (i, length) in lengths[..count].iter().enumerate() {
                match get(slots, i).as_str() {
                    Some(string) => {
                        let bytes = string.bytes();
                        copy(bytes, to);
                        to = to.add(bytes.len());
                    }
                    None => {
                        let length = *length as usize;
                        ptr::copy_nonoverlapping(from, to, length);
                        from = from.add(length);
                        to = to.add(length);
                    }
                }
            }
        })
        .ok()
    }
}
