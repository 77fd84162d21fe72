//! Structs and arrays whose types the compiler knows. Every instruction checks what it is given: a variable's type is no proof to the interpreter.
//!
//! The first handler of each knows words of 8 and 4 bytes and bytes, at aligned addresses, and arrays that own their memory; the second all else.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::*;
use crate::heap::Kind;
use crate::memory::{Array, Scalar, Struct, scalar};

/// Element `index` of an array: what it is, and where.
#[inline(always)]
unsafe fn element(value: Value, index: i64) -> Option<(Gc<Array>, usize)> {
    let array = Gc::<Array>::from_value(value)?;
    let at = (index as u64).wrapping_sub(1);
    if at < array.length() as u64 {
        Some((array, at as usize))
    } else {
        None
    }
}

/// Whether a store of a number into memory of `root`, through `holder`, takes nothing but the store.
#[inline(always)]
fn is_plain(
    holder: *const crate::heap::Header,
    root: core::ptr::NonNull<crate::heap::Header>,
) -> bool {
    // SAFETY: both live: the holder is in the frame, and keeps its root.
    unsafe { ((*holder).flags() | root.as_ref().flags()) & (flags::FROZEN | flags::LOG) == 0 }
}

/// What an extension word of the kind `Path` says: the type, the offset, and the kind of the scalar.
#[inline(always)]
unsafe fn path(pc: *const AtomicU32, k: *const Proto) -> (Value, usize, Scalar) {
    // SAFETY: the verifier proved both constants, and that the kind is one of numbers.
    unsafe {
        let word = (*pc).load(Ordering::Relaxed) as usize;
        let place = constant(k, word >> 16).inline_payload();
        let kind = Scalar::from_code(place as u8).unwrap_or(Scalar::U8);
        (constant(k, word & 0xffff), (place >> 8) as usize, kind)
    }
}

/// The raw word of a number in memory.
#[inline(always)]
unsafe fn load(kind: Scalar, at: *const u8) -> u64 {
    // SAFETY: as the callers say: one of that kind lies there.
    unsafe {
        if kind.is_float() {
            scalar::load_float(kind, at).to_bits()
        } else {
            scalar::load_integer(kind, at) as u64
        }
    }
}

/// Stores a raw word as a number.
#[inline(always)]
unsafe fn store(kind: Scalar, at: *mut u8, word: u64) {
    // SAFETY: as for `load`.
    unsafe {
        if kind.is_float() {
            scalar::store_float(kind, at, f64::from_bits(word))
        } else {
            scalar::store_integer(kind, at, word as i64)
        }
    }
}

/// The bytes of a struct of this type.
#[inline(always)]
fn struct_data(value: Value, of: Value) -> Option<(Gc<Struct>, *mut u8)> {
    let it = Gc::<Struct>::from_value(value)?;
    if it.of().value() != of {
        return None;
    }
    Some((it, it.data()?))
}

/// Kinds as a set of their codes.
const fn set(kinds: &[Scalar]) -> u32 {
    let (mut set, mut i) = (0, 0);
    while i < kinds.len() {
        set |= 1 << kinds[i] as u32;
        i += 1;
    }
    set
}

/// Integers of 8 bytes, which are their raw words.
const WORDS: u32 = set(&[Scalar::Reg, Scalar::I64, Scalar::U64]);
/// Integers that are stored as their low 4 bytes.
const HALVES: u32 = set(&[Scalar::I32, Scalar::U32]);

const fn is_in(set: u32, code: u8) -> bool {
    code < 32 && set >> code & 1 != 0
}

/// Puts the integer of the kind `$code` at an address into a register and goes on, if it is simple.
macro_rules! load_integer {
    ($code:expr, $at:expr, $ins:ident, $pc:expr, $base:ident, $k:ident, $vm:ident) => {
        let at: *mut u8 = $at;
        if is_in(WORDS, $code) && at as usize & 7 == 0 {
            *$base.add(a($ins)) = AtomicU64::from_ptr(at.cast()).load(Ordering::Relaxed);
            next!($pc, $base, $k, $vm)
        }
        if $code == Scalar::U8 as u8 {
            *$base.add(a($ins)) = AtomicU8::from_ptr(at).load(Ordering::Relaxed) as u64;
            next!($pc, $base, $k, $vm)
        }
        if is_in(HALVES, $code) && at as usize & 3 == 0 {
            let half = AtomicU32::from_ptr(at.cast()).load(Ordering::Relaxed);
            *$base.add(a($ins)) = if $code == Scalar::U32 as u8 {
                half as u64
            } else {
                half as i32 as u64
            };
            next!($pc, $base, $k, $vm)
        }
    };
}

/// As `load_integer` for a double. A NaN, whose payload is to be forgotten, is not simple.
macro_rules! load_double {
    ($code:expr, $at:expr, $ins:ident, $pc:expr, $base:ident, $k:ident, $vm:ident) => {
        let at: *mut u8 = $at;
        if $code == Scalar::F64 as u8 && at as usize & 7 == 0 {
            let f = f64::from_bits(AtomicU64::from_ptr(at.cast()).load(Ordering::Relaxed));
            if !f.is_nan() {
                *$base.add(a($ins)) = f.to_bits();
                next!($pc, $base, $k, $vm)
            }
        }
    };
}

/// Stores a register's integer and goes on, if it is simple.
macro_rules! store_integer {
    ($code:expr, $at:expr, $ins:ident, $pc:expr, $base:ident, $k:ident, $vm:ident) => {
        let at: *mut u8 = $at;
        if is_in(WORDS, $code) && at as usize & 7 == 0 {
            AtomicU64::from_ptr(at.cast()).store(*$base.add(a($ins)), Ordering::Relaxed);
            next!($pc, $base, $k, $vm)
        }
        if $code == Scalar::U8 as u8 {
            AtomicU8::from_ptr(at).store(*$base.add(a($ins)) as u8, Ordering::Relaxed);
            next!($pc, $base, $k, $vm)
        }
        if is_in(HALVES, $code) && at as usize & 3 == 0 {
            AtomicU32::from_ptr(at.cast()).store(*$base.add(a($ins)) as u32, Ordering::Relaxed);
            next!($pc, $base, $k, $vm)
        }
    };
}

/// As `store_integer` for a double.
macro_rules! store_double {
    ($code:expr, $at:expr, $ins:ident, $pc:expr, $base:ident, $k:ident, $vm:ident) => {
        let at: *mut u8 = $at;
        if $code == Scalar::F64 as u8 && at as usize & 7 == 0 {
            AtomicU64::from_ptr(at.cast()).store(*$base.add(a($ins)), Ordering::Relaxed);
            next!($pc, $base, $k, $vm)
        }
    };
}

/// Element R[C] of the array R[B], if the array owns its memory: the array, and how many elements come before.
#[inline(always)]
unsafe fn own_element(ins: u64, base: *const u64) -> Option<(Gc<Array>, usize)> {
    // SAFETY: the verifier proved the registers.
    unsafe {
        if !Value::has_tag_at(base.add(b(ins)), Tag::Struct) {
            return None;
        }
        let object = get(base, b(ins)).address();
        if (*object).kind() != Kind::Array {
            return None;
        }
        let array = Gc::<Array>::from_value_unchecked(get(base, b(ins)));
        let at = get_word(base, c(ins)).wrapping_sub(1);
        if at < array.own_length() as u64 {
            Some((array, at as usize))
        } else {
            None
        }
    }
}

/// The constants of an extension word of the kind `Path`: the type, and the offset times 256 with the code of the scalar.
#[inline(always)]
unsafe fn place(pc: *const AtomicU32, k: *const Proto) -> (Value, usize) {
    // SAFETY: the verifier proved both constants.
    unsafe {
        let word = (*pc).load(Ordering::Relaxed) as usize;
        let place = constant(k, word >> 16).inline_payload();
        (constant(k, word & 0xffff), place as usize)
    }
}

/// Whether nothing but the store is to be done for a store into an array that owns its memory.
#[inline(always)]
fn is_plain_array(array: Gc<Array>) -> bool {
    array.header().flags() & (flags::FROZEN | flags::LOG) == 0
}

handlers! {
    ageti(ins, pc, base, k, vm) {
        if let Some((array, at)) = own_element(ins, base) {
            let code = array.code();
            let shift = if is_in(WORDS, code) { 3 } else if code == Scalar::U8 as u8 { 0 } else { 2 };
            load_integer!(code, array.data().add(at << shift), ins, pc, base, k, vm);
        }
        slow!(ageti_any, ins, pc, base, k, vm)
    }
    agetf(ins, pc, base, k, vm) {
        if let Some((array, at)) = own_element(ins, base) {
            load_double!(array.code(), array.data().add(at << 3), ins, pc, base, k, vm);
        }
        slow!(agetf_any, ins, pc, base, k, vm)
    }
    aseti(ins, pc, base, k, vm) {
        if let Some((array, at)) = own_element(ins, base) && is_plain_array(array) {
            let code = array.code();
            let shift = if is_in(WORDS, code) { 3 } else if code == Scalar::U8 as u8 { 0 } else { 2 };
            store_integer!(code, array.data().add(at << shift), ins, pc, base, k, vm);
        }
        slow!(aseti_any, ins, pc, base, k, vm)
    }
    asetf(ins, pc, base, k, vm) {
        if let Some((array, at)) = own_element(ins, base) && is_plain_array(array) {
            store_double!(array.code(), array.data().add(at << 3), ins, pc, base, k, vm);
        }
        slow!(asetf_any, ins, pc, base, k, vm)
    }
    sget(ins, pc, base, k, vm) {
        let (of, place) = place(pc, k);
        if let Some((_, data)) = struct_data(get(base, b(ins)), of) {
            load_double!(place as u8, data.add(place >> 8), ins, pc.add(1), base, k, vm);
            load_integer!(place as u8, data.add(place >> 8), ins, pc.add(1), base, k, vm);
        }
        slow!(sget_any, ins, pc, base, k, vm)
    }
    sset(ins, pc, base, k, vm) {
        let (of, place) = place(pc, k);
        if let Some((it, data)) = struct_data(get(base, b(ins)), of) && is_plain(it.as_ptr().cast(), it.root()) {
            store_double!(place as u8, data.add(place >> 8), ins, pc.add(1), base, k, vm);
            store_integer!(place as u8, data.add(place >> 8), ins, pc.add(1), base, k, vm);
        }
        slow!(sset_any, ins, pc, base, k, vm)
    }
    pget(ins, pc, base, k, vm) {
        if let Some((array, at)) = own_element(ins, base) && let Some(found) = array.of() {
            let (of, place) = place(pc, k);
            if found.value() == of {
                let data = array.data().add(at * found.info().size + (place >> 8));
                load_double!(place as u8, data, ins, pc.add(1), base, k, vm);
                load_integer!(place as u8, data, ins, pc.add(1), base, k, vm);
            }
        }
        slow!(pget_any, ins, pc, base, k, vm)
    }
    pset(ins, pc, base, k, vm) {
        if let Some((array, at)) = own_element(ins, base) && let Some(found) = array.of() && is_plain_array(array) {
            let (of, place) = place(pc, k);
            if found.value() == of {
                let data = array.data().add(at * found.info().size + (place >> 8));
                store_double!(place as u8, data, ins, pc.add(1), base, k, vm);
                store_integer!(place as u8, data, ins, pc.add(1), base, k, vm);
            }
        }
        slow!(pset_any, ins, pc, base, k, vm)
    }
}

handlers! {
    #[inline(never)]
    ageti_any(ins, pc, base, k, vm) {
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(kind) = array.scalar() && kind.is_integer() {
            *base.add(a(ins)) = scalar::load_integer(kind, array.data().add(at * kind.size())) as u64;
            next!(pc, base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    #[inline(never)]
    agetf_any(ins, pc, base, k, vm) {
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(kind) = array.scalar() && kind.is_float() {
            *base.add(a(ins)) = scalar::load_float(kind, array.data().add(at * kind.size())).to_bits();
            next!(pc, base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    #[inline(never)]
    aseti_any(ins, pc, base, k, vm) {
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(kind) = array.scalar() && kind.is_integer()
            && is_plain(array.as_ptr().cast(), array.root()) {
            scalar::store_integer(kind, array.data().add(at * kind.size()), get_integer(base, a(ins)));
            next!(pc, base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    #[inline(never)]
    asetf_any(ins, pc, base, k, vm) {
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(kind) = array.scalar() && kind.is_float()
            && is_plain(array.as_ptr().cast(), array.root()) {
            scalar::store_float(kind, array.data().add(at * kind.size()), get_float(base, a(ins)));
            next!(pc, base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    alen(ins, pc, base, k, vm) {
        if let Some(array) = Gc::<Array>::from_value(get(base, d(ins))) {
            *base.add(a(ins)) = array.length() as u64;
            next!(pc, base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    #[inline(never)]
    sget_any(ins, pc, base, k, vm) {
        let (of, offset, kind) = path(pc, k);
        if let Some((_, data)) = struct_data(get(base, b(ins)), of) {
            *base.add(a(ins)) = load(kind, data.add(offset));
            next!(pc.add(1), base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    #[inline(never)]
    sset_any(ins, pc, base, k, vm) {
        let (of, offset, kind) = path(pc, k);
        if let Some((it, data)) = struct_data(get(base, b(ins)), of) && is_plain(it.as_ptr().cast(), it.root()) {
            store(kind, data.add(offset), *base.add(a(ins)));
            next!(pc.add(1), base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    #[inline(never)]
    pget_any(ins, pc, base, k, vm) {
        let (of, offset, kind) = path(pc, k);
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(found) = array.of() && found.value() == of {
            *base.add(a(ins)) = load(kind, array.data().add(at * found.info().size + offset));
            next!(pc.add(1), base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    #[inline(never)]
    pset_any(ins, pc, base, k, vm) {
        let (of, offset, kind) = path(pc, k);
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(found) = array.of() && found.value() == of
            && is_plain(array.as_ptr().cast(), array.root()) {
            store(kind, array.data().add(at * found.info().size + offset), *base.add(a(ins)));
            next!(pc.add(1), base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    check(ins, pc, base, k, vm) {
        let value = get(base, a(ins));
        let word = (*pc).load(Ordering::Relaxed) as usize;
        let fits = match b(ins) & 3 {
            0 => Gc::<Struct>::from_value(value).is_some_and(|it| it.of().value() == constant(k, word)),
            1 => Gc::<Array>::from_value(value)
                .is_some_and(|array| array.of().is_some_and(|of| of.value() == constant(k, word))),
            _ => Gc::<Array>::from_value(value).is_some_and(|array| usize::from(array.code()) == word),
        };
        if fits || (b(ins) & 4 != 0 && value.is_nil()) {
            next!(pc.add(1), base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    snew(ins, pc, base, k, vm) { slow!(slow_memory, ins, pc, base, k, vm) }
    copyref(ins, pc, base, k, vm) {
        let value = get(base, b(ins));
        if value.has_tag(Tag::Struct) && get(base, c(ins)).has_tag(Tag::Struct) {
            slow!(slow_memory, ins, pc, base, k, vm)
        }
        put(base, a(ins), value);
        next!(pc, base, k, vm)
    }
}
