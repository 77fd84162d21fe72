//! Native functions that are called so often that the common case of each has a handler of its own.
//!
//! A native's code is one word, which a call executes as it does a function's head. The natives here have words with internal
//! opcodes, beyond those that a program can contain. Their handlers read the arguments where the call put them and deliver one result to
//! the caller; whatever else they are given goes to the native itself.

use core::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::interp::native::NativeFn;
use crate::library::{base, math, string, table};
use crate::object::Str;

/// The first opcode that no program contains.
pub(crate) const FIRST: usize = 224;

macro_rules! intrinsics {
    ($($handler:ident $function:path;)*) => {
        const COUNT: usize = [$(stringify!($handler)),*].len();
        const ALL: [Handler; COUNT] = [$($handler),*];

        /// The natives, in the order of their handlers.
        fn natives() -> [*const (); COUNT] {
            [$($function as NativeFn as *const ()),*]
        }
    };
}

intrinsics! {
    sqrt math::sqrt;
    floor math::floor;
    max math::max;
    min math::min;
    byte string::byte;
    sub_string string::sub;
    insert table::insert;
    remove table::remove;
    select base::select;
}

/// The words that they have for code.
static HEADS: [AtomicU32; COUNT] = {
    let mut words = [const { AtomicU32::new(0) }; COUNT];
    let mut i = 0;
    while i < COUNT {
        words[i] = AtomicU32::new((FIRST + i) as u32);
        i += 1;
    }
    words
};

/// The code of a native, if it is one of these.
pub(crate) fn head(function: *const ()) -> Option<&'static AtomicU32> {
    natives()
        .iter()
        .position(|native| *native == function)
        .map(|i| &HEADS[i])
}

/// Whether an instruction is the code of such a native.
pub(crate) fn is_head(word: u32) -> bool {
    (FIRST..FIRST + COUNT).contains(&((word & 0xff) as usize))
}

/// Adds their handlers.
pub(super) const fn fill(table: &mut [Handler; 256]) {
    let mut i = 0;
    while i < COUNT {
        table[FIRST + i] = ALL[i];
        i += 1;
    }
}

/// Number of arguments.
#[inline(always)]
fn count(ins: u64) -> usize {
    (ins >> 32) as usize
}

/// Returns one value to an instruction that wants one, or as many as there are, or none.
macro_rules! give {
    ($value:expr, $base:ident, $vm:ident) => {
        if let Link::Vua(after) = Link::decode(*$base.sub(1)) {
            let call = word_at(after.sub(1));
            if c(call) <= 2 {
                put($base.sub(2), 0, $value);
                (*$vm).core.open = 1;
                let caller = $base.sub(2 + a(call));
                next!(after, caller, proto_of(caller), $vm)
            }
        }
    };
}

/// Goes to the native itself.
macro_rules! itself {
    ($ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident) => {
        slow!(
            native,
            $ins & !0xffff_ffff | Op::NATIVE as u64,
            $pc,
            $base,
            $k,
            $vm
        )
    };
}

/// The larger or smaller of two inline integers, or of two floats.
macro_rules! extremes {
    ($($name:ident $op:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                if count(ins) == 2 {
                    let (x, y) = (get(base, 0), get(base, 1));
                    if Value::both_inline_integers(x, y) {
                        give!(if y.inline_order() $op x.inline_order() { y } else { x }, base, vm)
                    } else {
                        let (f, g) = (get_float(base, 0), get_float(base, 1));
                        if !f.is_nan() && !g.is_nan() {
                            give!(if g $op f { y } else { x }, base, vm)
                        }
                    }
                }
                itself!(ins, pc, base, k, vm)
            }
        }
    )*};
}

extremes! {
    max >;
    min <;
}

/// Beyond this a float may be no inline integer.
const INLINE: f64 = (1u64 << 46) as f64;

handlers! {
    sqrt(ins, pc, base, k, vm) {
        let x = get_float(base, 0);
        if count(ins) != 0 && x >= 0.0 {
            give!(Value::from_arithmetic(libm::sqrt(x)), base, vm)
        }
        itself!(ins, pc, base, k, vm)
    }
    floor(ins, pc, base, k, vm) {
        let x = get_float(base, 0);
        if count(ins) != 0 && x > -INLINE && x < INLINE {
            let towards_zero = x as i64;
            let below = towards_zero - (towards_zero as f64 > x) as i64;
            if let Some(value) = Value::inline_integer(below) {
                give!(value, base, vm)
            }
        }
        itself!(ins, pc, base, k, vm)
    }
    byte(ins, pc, base, k, vm) {
        if count(ins) == 2 && Value::has_tag_at(base, Tag::String) && let Some(i) = Value::index_at(base.add(1)) {
            let string: Gc<Str> = Gc::from_value_unchecked(get(base, 0));
            let i = (i as usize).wrapping_sub(1);
            if i < string.len() {
                give!(Value::small(i32::from(*string.bytes().get_unchecked(i))), base, vm)
            }
        }
        itself!(ins, pc, base, k, vm)
    }
    #[inline(never)]
    sub_string(ins, pc, base, k, vm) {
        if let Some(piece) = piece(vm, base, count(ins)) {
            give!(piece, base, vm)
        }
        itself!(ins, pc, base, k, vm)
    }
    insert(ins, pc, base, k, vm) {
        if count(ins) == 2 && Value::has_tag_at(base, Tag::Table) {
            let table: Gc<Table> = Gc::from_value_unchecked(get(base, 0));
            let value = get(base, 1);
            if table.header().flags() == 0 && !value.is_nil() && let Some(border) = table.border_at_hint()
                && let Link::Vua(after) = Link::decode(*base.sub(1))
            {
                let call = word_at(after.sub(1));
                if c(call) == 1 {
                    table.dense_block().set(border as usize, value);
                    table.fields().border.store(border + 1, Ordering::Relaxed);
                    let caller = base.sub(2 + a(call));
                    next!(after, caller, proto_of(caller), vm)
                }
            }
        }
        itself!(ins, pc, base, k, vm)
    }
    remove(ins, pc, base, k, vm) {
        if count(ins) == 1 && Value::has_tag_at(base, Tag::Table) {
            let table: Gc<Table> = Gc::from_value_unchecked(get(base, 0));
            if table.header().flags() == 0 && let Some(border) = table.border_at_hint() && border != 0
                && let Link::Vua(after) = Link::decode(*base.sub(1)) && c(word_at(after.sub(1))) <= 2
            {
                let dense = table.dense_block();
                let value = dense.get(border as usize - 1);
                dense.set(border as usize - 1, Value::NIL);
                table.fields().border.store(border - 1, Ordering::Relaxed);
                give!(value, base, vm)
            }
        }
        itself!(ins, pc, base, k, vm)
    }
    select(ins, pc, base, k, vm) {
        let n = count(ins);
        if n != 0 {
            if let Some(i) = Value::index_at(base) {
                // One of the arguments, to an instruction that wants no more.
                if i >= 1 && (i as usize) < n
                    && let Link::Vua(after) = Link::decode(*base.sub(1)) && c(word_at(after.sub(1))) == 2
                {
                    give!(get(base, i as usize), base, vm)
                }
            } else if let Some(string) = get(base, 0).as_str() && string.bytes() == b"#" {
                give!(Value::small(n as i32 - 1), base, vm)
            }
        }
        itself!(ins, pc, base, k, vm)
    }
}

/// Longer pieces are copied with safepoints, by the native.
const MAX_PIECE: usize = 16 << 10;

/// `string.sub` of a string by one or two inline integers; `None` if it is anything else, or memory is needed.
#[inline(never)]
unsafe fn piece(vm: *mut Vm, base: *const u64, count: usize) -> Option<Value> {
    // SAFETY: so many arguments are in the frame; a string that was tested for lives.
    unsafe {
        if !(2..=3).contains(&count) || !get(base, 1).is_inline_integer() {
            return None;
        }
        let string = get(base, 0).as_str()?;
        let start = string::range_start(get(base, 1).inline_payload(), string.len());
        let end = if count == 2 {
            string.len()
        } else if get(base, 2).is_inline_integer() {
            string::range_end(get(base, 2).inline_payload(), string.len())
        } else {
            return None;
        };
        if start == 1 && end == string.len() {
            return Some(string.value());
        }
        let bytes = if start > end {
            &[]
        } else {
            string.bytes().get(start - 1..end)?
        };
        if bytes.len() > MAX_PIECE {
            return None;
        }
        Str::new(&(*vm).core.heap, bytes).ok().map(Gc::value)
    }
}
