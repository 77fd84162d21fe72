//! Structs and arrays whose types the compiler knows. Every instruction checks what it is given: a variable's type is no proof to the interpreter.

use core::sync::atomic::{AtomicU32, Ordering};

use super::*;
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

handlers! {
    ageti(ins, pc, base, k, vm) {
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(kind) = array.scalar() && kind.is_integer() {
            *base.add(a(ins)) = scalar::load_integer(kind, array.data().add(at * kind.size())) as u64;
            next!(pc, base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    agetf(ins, pc, base, k, vm) {
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(kind) = array.scalar() && kind.is_float() {
            *base.add(a(ins)) = scalar::load_float(kind, array.data().add(at * kind.size())).to_bits();
            next!(pc, base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    aseti(ins, pc, base, k, vm) {
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(kind) = array.scalar() && kind.is_integer()
            && is_plain(array.as_ptr().cast(), array.root()) {
            scalar::store_integer(kind, array.data().add(at * kind.size()), get_integer(base, a(ins)));
            next!(pc, base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    asetf(ins, pc, base, k, vm) {
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
    sget(ins, pc, base, k, vm) {
        let (of, offset, kind) = path(pc, k);
        if let Some((_, data)) = struct_data(get(base, b(ins)), of) {
            *base.add(a(ins)) = load(kind, data.add(offset));
            next!(pc.add(1), base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    sset(ins, pc, base, k, vm) {
        let (of, offset, kind) = path(pc, k);
        if let Some((it, data)) = struct_data(get(base, b(ins)), of) && is_plain(it.as_ptr().cast(), it.root()) {
            store(kind, data.add(offset), *base.add(a(ins)));
            next!(pc.add(1), base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    pget(ins, pc, base, k, vm) {
        let (of, offset, kind) = path(pc, k);
        if let Some((array, at)) = element(get(base, b(ins)), get_integer(base, c(ins)))
            && let Some(found) = array.of() && found.value() == of {
            *base.add(a(ins)) = load(kind, array.data().add(at * found.info().size + offset));
            next!(pc.add(1), base, k, vm)
        }
        slow!(slow_memory, ins, pc, base, k, vm)
    }
    pset(ins, pc, base, k, vm) {
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
