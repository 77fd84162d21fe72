//! Elements and fields: how many bytes each kind has, and how they are read and written.
//!
//! Memory is read and written whole where its address is a multiple of its size, else byte by byte; no Rust reference to it exists.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::value::Value;

macro_rules! scalars {
    ($($kind:ident $name:literal $bytes:literal;)*) => {
        /// What a field or an element of an array is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each is called as in the language")]
        pub enum Scalar { $($kind),* }

        impl Scalar {
            /// All kinds.
            pub const ALL: &'static [Scalar] = &[$(Scalar::$kind),*];

            /// As it is written.
            pub const fn name(self) -> &'static str {
                match self { $(Scalar::$kind => $name),* }
            }

            /// Its bytes.
            #[inline(always)]
            pub const fn size(self) -> usize {
                match self { $(Scalar::$kind => $bytes),* }
            }

            /// The kind of this name.
            pub fn from_name(name: &str) -> Option<Scalar> {
                match name { $($name => Some(Scalar::$kind),)* _ => None }
            }
        }
    };
}

scalars! {
    U8 "u8" 1; I8 "i8" 1; U16 "u16" 2; I16 "i16" 2; U32 "u32" 4; I32 "i32" 4; U64 "u64" 8; I64 "i64" 8; Reg "reg" 8;
    F32 "f32" 4; F64 "f64" 8; Bool "bool" 1; Ref "ref" 8;
    U16be "u16be" 2; I16be "i16be" 2; U32be "u32be" 4; I32be "i32be" 4; U64be "u64be" 8; I64be "i64be" 8;
    F32be "f32be" 4; F64be "f64be" 8;
}

impl Scalar {
    /// The kind of this number.
    pub fn from_code(code: u8) -> Option<Scalar> {
        Scalar::ALL.get(usize::from(code)).copied()
    }

    /// Whether its values are integers.
    #[inline(always)]
    pub const fn is_integer(self) -> bool {
        !self.is_float() && !matches!(self, Scalar::Bool | Scalar::Ref)
    }

    /// Whether its values are floats.
    #[inline(always)]
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Scalar::F32 | Scalar::F64 | Scalar::F32be | Scalar::F64be
        )
    }
}

macro_rules! access {
    ($load:ident $store:ident $atomic:ident $word:ident $bytes:literal) => {
        #[inline(always)]
        unsafe fn $load(at: *const u8) -> $word {
            // SAFETY: the bytes are there, says the caller, and belong to an object of the heap, which all access as atomics.
            unsafe {
                if (at as usize).is_multiple_of($bytes) {
                    $atomic::from_ptr(at.cast_mut().cast()).load(Ordering::Relaxed)
                } else {
                    let mut bytes = [0; $bytes];
                    for (i, byte) in bytes.iter_mut().enumerate() {
                        *byte = AtomicU8::from_ptr(at.add(i).cast_mut()).load(Ordering::Relaxed);
                    }
                    $word::from_le_bytes(bytes)
                }
            }
        }

        #[inline(always)]
        unsafe fn $store(at: *mut u8, word: $word) {
            // SAFETY: as for reading.
            unsafe {
                if (at as usize).is_multiple_of($bytes) {
                    $atomic::from_ptr(at.cast()).store(word, Ordering::Relaxed)
                } else {
                    for (i, byte) in word.to_le_bytes().into_iter().enumerate() {
                        AtomicU8::from_ptr(at.add(i)).store(byte, Ordering::Relaxed);
                    }
                }
            }
        }
    };
}

access!(load_8 store_8 AtomicU8 u8 1);
access!(load_16 store_16 AtomicU16 u16 2);
access!(load_32 store_32 AtomicU32 u32 4);
access!(load_64 store_64 AtomicU64 u64 8);

/// An integer kind's value, extended to 64 bits; 0 for other kinds.
///
/// # Safety
/// `at` is the address of that many bytes in memory of an object of the heap.
#[inline(always)]
pub unsafe fn load_integer(kind: Scalar, at: *const u8) -> i64 {
    // SAFETY: as the caller says.
    unsafe {
        match kind {
            Scalar::U8 => load_8(at).into(),
            Scalar::I64 | Scalar::U64 | Scalar::Reg => load_64(at) as i64,
            Scalar::I32 => i64::from(load_32(at) as i32),
            Scalar::U32 => load_32(at).into(),
            Scalar::I8 => i64::from(load_8(at) as i8),
            Scalar::U16 => load_16(at).into(),
            Scalar::I16 => i64::from(load_16(at) as i16),
            Scalar::U16be => load_16(at).swap_bytes().into(),
            Scalar::I16be => i64::from(load_16(at).swap_bytes() as i16),
            Scalar::U32be => load_32(at).swap_bytes().into(),
            Scalar::I32be => i64::from(load_32(at).swap_bytes() as i32),
            Scalar::U64be | Scalar::I64be => load_64(at).swap_bytes() as i64,
            _ => 0,
        }
    }
}

/// Stores an integer's low bits.
///
/// # Safety
/// As for [`load_integer`].
#[inline(always)]
pub unsafe fn store_integer(kind: Scalar, at: *mut u8, i: i64) {
    // SAFETY: as the caller says.
    unsafe {
        match kind {
            Scalar::U8 | Scalar::I8 => store_8(at, i as u8),
            Scalar::I64 | Scalar::U64 | Scalar::Reg => store_64(at, i as u64),
            Scalar::I32 | Scalar::U32 => store_32(at, i as u32),
            Scalar::U16 | Scalar::I16 => store_16(at, i as u16),
            Scalar::U16be | Scalar::I16be => store_16(at, (i as u16).swap_bytes()),
            Scalar::U32be | Scalar::I32be => store_32(at, (i as u32).swap_bytes()),
            Scalar::U64be | Scalar::I64be => store_64(at, (i as u64).swap_bytes()),
            _ => {}
        }
    }
}

/// A float kind's value, with whatever NaN the bytes are; 0 for other kinds.
///
/// # Safety
/// As for [`load_integer`].
#[inline(always)]
pub unsafe fn load_float(kind: Scalar, at: *const u8) -> f64 {
    // SAFETY: as the caller says.
    let f = unsafe {
        match kind {
            Scalar::F64 => f64::from_bits(load_64(at)),
            Scalar::F32 => f64::from(f32::from_bits(load_32(at))),
            Scalar::F64be => f64::from_bits(load_64(at).swap_bytes()),
            Scalar::F32be => f64::from(f32::from_bits(load_32(at).swap_bytes())),
            _ => 0.0,
        }
    };
    // A NaN loses its payload: raw arithmetic hands it on, and no bytes can make a value of it.
    if f.is_nan() { f64::NAN } else { f }
}

/// Stores a float, rounded for the narrower kinds.
///
/// # Safety
/// As for [`load_integer`].
#[inline(always)]
pub unsafe fn store_float(kind: Scalar, at: *mut u8, f: f64) {
    // SAFETY: as the caller says.
    unsafe {
        match kind {
            Scalar::F64 => store_64(at, f.to_bits()),
            Scalar::F32 => store_32(at, (f as f32).to_bits()),
            Scalar::F64be => store_64(at, f.to_bits().swap_bytes()),
            Scalar::F32be => store_32(at, (f as f32).to_bits().swap_bytes()),
            _ => {}
        }
    }
}

/// A boolean: any byte other than 0 is true.
///
/// # Safety
/// As for [`load_integer`].
#[inline(always)]
pub unsafe fn load_bool(at: *const u8) -> bool {
    // SAFETY: as the caller says.
    unsafe { load_8(at) != 0 }
}

/// Stores a boolean.
///
/// # Safety
/// As for [`load_integer`].
#[inline(always)]
pub unsafe fn store_bool(at: *mut u8, b: bool) {
    // SAFETY: as the caller says.
    unsafe { store_8(at, b.into()) }
}

/// A `ref`'s value.
///
/// # Safety
/// `at` is the address of a `ref`, which holds nothing but values and lies at a multiple of 8.
#[inline(always)]
pub unsafe fn load_ref(at: *const u8) -> Value {
    // SAFETY: as the caller says; the load pairs with the release of `store_ref`.
    unsafe { Value::from_bits(AtomicU64::from_ptr(at.cast_mut().cast()).load(Ordering::Acquire)) }
}

/// Stores a `ref`. The caller has published the value and told the collector, as for any store of a reference.
///
/// # Safety
/// As for [`load_ref`].
#[inline(always)]
pub unsafe fn store_ref(at: *mut u8, value: Value) {
    // SAFETY: as the caller says.
    unsafe { AtomicU64::from_ptr(at.cast()).store(value.to_bits(), Ordering::Release) }
}

/// A native-endian number or `ref` of 4 or 8 bytes at a multiple of its size, as its bits: what can be read and written as one in the order of all atomics.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    kind: Scalar,
    at: *mut u8,
}

impl Word {
    /// The word at `at`; why there is none, if a `kind` that lies there is no such thing.
    ///
    /// # Safety
    /// One of that kind lies there in memory of an object of the heap, until the word was last used.
    pub unsafe fn new(kind: Scalar, at: *mut u8) -> Result<Word, &'static str> {
        use Scalar::{F32, F32be, F64, F64be, I32, I32be, I64, I64be, Ref, Reg, U32, U32be, U64};
        match kind {
            U32 | I32 | U64 | I64 | Reg | F32 | F64 | Ref => {
                if (at as usize).is_multiple_of(kind.size()) {
                    Ok(Word { kind, at })
                } else {
                    Err("is not aligned")
                }
            }
            U32be | I32be | Scalar::U64be | I64be | F32be | F64be => {
                Err("is not in the machine's byte order")
            }
            _ => Err("has neither 4 nor 8 bytes"),
        }
    }

    /// Which kind it is.
    pub fn kind(self) -> Scalar {
        self.kind
    }

    /// Its bits.
    pub fn load(self) -> u64 {
        // SAFETY: as the maker said, and it is aligned.
        unsafe {
            match self.kind.size() {
                4 => AtomicU32::from_ptr(self.at.cast())
                    .load(Ordering::SeqCst)
                    .into(),
                _ => AtomicU64::from_ptr(self.at.cast()).load(Ordering::SeqCst),
            }
        }
    }

    /// Replaces its bits, if they are `old`; gives those that are there, if not. Of 4 bytes, the low half of each counts.
    pub fn compare_exchange(self, old: u64, new: u64) -> Result<(), u64> {
        const ORDER: Ordering = Ordering::SeqCst;
        // SAFETY: as for `load`.
        unsafe {
            match self.kind.size() {
                4 => AtomicU32::from_ptr(self.at.cast())
                    .compare_exchange(old as u32, new as u32, ORDER, ORDER)
                    .map_or_else(|found| Err(found.into()), |_| Ok(())),
                _ => AtomicU64::from_ptr(self.at.cast())
                    .compare_exchange(old, new, ORDER, ORDER)
                    .map_or_else(Err, |_| Ok(())),
            }
        }
    }

    /// Writes its bits.
    pub fn store(self, bits: u64) {
        // SAFETY: as for `load`.
        unsafe {
            match self.kind.size() {
                4 => AtomicU32::from_ptr(self.at.cast()).store(bits as u32, Ordering::SeqCst),
                _ => AtomicU64::from_ptr(self.at.cast()).store(bits, Ordering::SeqCst),
            }
        }
    }
}

/// Copies bytes that others may be writing or reading; the ranges may overlap.
///
/// # Safety
/// Both are memory of objects of the heap, `count` bytes long.
pub unsafe fn copy_bytes(from: *const u8, to: *mut u8, count: usize) {
    let words = (from as usize).is_multiple_of(8) && (to as usize).is_multiple_of(8);
    let whole = if words { count / 8 * 8 } else { 0 };
    // SAFETY: inside both ranges; the direction is that in which an overlap does no harm.
    unsafe {
        if (to as usize) <= (from as usize) {
            for i in (0..whole).step_by(8) {
                store_64(to.add(i), load_64(from.add(i)));
            }
            for i in whole..count {
                store_8(to.add(i), load_8(from.add(i)));
            }
        } else {
            for i in (whole..count).rev() {
                store_8(to.add(i), load_8(from.add(i)));
            }
            for i in (0..whole).step_by(8).rev() {
                store_64(to.add(i), load_64(from.add(i)));
            }
        }
    }
}
