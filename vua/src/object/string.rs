//! Strings: immutable bytes with a cached hash.

use core::sync::atomic::Ordering;
use core::{ptr, slice};

use super::{Gc, Object};
use crate::heap::{self, Header, Kind, LocalHeap, NeedMemory};
use crate::value::{Tag, Value};

/// A string: 16 bytes and then its own. Its hash is in the header's word, 0 while it has not been asked for.
#[repr(C)]
pub struct Str {
    header: Header,
    length: u64,
}

const _: () = assert!(size_of::<Str>() == 16);

// SAFETY: laid out as the trait demands; the tag is its alone.
unsafe impl Object for Str {
    const TAG: Tag = Tag::String;
    const KINDS: &'static [Kind] = &[Kind::String];
}

/// Of longer strings, the hash reads this many bytes at each end, so that its time is bounded.
const HASHED_END: usize = 4096;

/// Odd constants with balanced bits: the fractional parts of the golden ratio and of the square roots of 2 and 3, made odd.
const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0x6a09_e667_f3bc_c909;
const K2: u64 = 0xbb67_ae85_84ca_a73b;

/// Both halves of a 128-bit product, folded: the mixing step of wyhash (Wang Yi, 2019).
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Copies bytes, of which there are mostly few: fewer than 17 without a call, by words that overlap.
///
/// # Safety
/// `to` may be written to for as many bytes, and `bytes` does not lie there.
#[inline(always)]
pub(crate) unsafe fn copy(bytes: &[u8], to: *mut u8) {
    let (from, length) = (bytes.as_ptr(), bytes.len());
    // SAFETY: every word lies in the bytes.
    unsafe {
        if length > 16 {
            ptr::copy_nonoverlapping(from, to, length);
        } else if length >= 8 {
            let last = from.add(length - 8).cast::<u64>().read_unaligned();
            to.cast::<u64>()
                .write_unaligned(from.cast::<u64>().read_unaligned());
            to.add(length - 8).cast::<u64>().write_unaligned(last);
        } else if length >= 4 {
            let last = from.add(length - 4).cast::<u32>().read_unaligned();
            to.cast::<u32>()
                .write_unaligned(from.cast::<u32>().read_unaligned());
            to.add(length - 4).cast::<u32>().write_unaligned(last);
        } else if length > 0 {
            // One to three: the first, the middle and the last may be the same.
            let (middle, last) = (from.add(length / 2).read(), from.add(length - 1).read());
            to.write(from.read());
            to.add(length / 2).write(middle);
            to.add(length - 1).write(last);
        }
    }
}

fn mix(mut state: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for w in words {
        state = fold(state ^ word(w), K1);
    }
    if rest.is_empty() {
        state
    } else {
        fold(state ^ word(rest), K2)
    }
}

impl Str {
    /// The hash of a string with these bytes, never 0. Depends on the process's seed.
    pub fn hash_of(bytes: &[u8]) -> u32 {
        let mut state = heap::seed() ^ (bytes.len() as u64).wrapping_mul(K0);
        if bytes.len() <= 2 * HASHED_END {
            state = mix(state, bytes);
        } else {
            state = mix(state, &bytes[..HASHED_END]);
            state = mix(state, &bytes[bytes.len() - HASHED_END..]);
        }
        let hash = (fold(state, K0) >> 32) as u32;
        if hash == 0 { 1 } else { hash }
    }

    /// A new string with these bytes. Copies them without a safepoint: for long ones use [`new_with`](Self::new_with) and copy in slices.
    #[inline]
    pub fn new(local: &LocalHeap, bytes: &[u8]) -> Result<Gc<Str>, NeedMemory> {
        // SAFETY: all bytes are written.
        unsafe {
            Self::new_with(local, bytes.len(), |to| {
                // SAFETY: the new string is `bytes.len()` long, and nobody else knows it.
                copy(bytes, to);
            })
        }
    }

    /// A new string of `length` bytes that `fill` writes, given where they begin.
    ///
    /// The string lies in no root yet: `fill` passes no safepoint unless it keeps the string alive itself.
    ///
    /// # Safety
    /// `fill` writes all `length` bytes and none outside, and keeps no pointer to them.
    #[inline]
    pub unsafe fn new_with(
        local: &LocalHeap,
        length: usize,
        fill: impl FnOnce(*mut u8),
    ) -> Result<Gc<Str>, NeedMemory> {
        let need = NeedMemory { bytes: length };
        let bytes = length
            .checked_add(size_of::<Str>())
            .filter(|&b| b <= isize::MAX as usize)
            .ok_or(need)?;
        let object = local.alloc_object(Kind::String, 0, bytes)?.cast::<Str>();
        // SAFETY: the object is new, of that size and ours alone.
        unsafe {
            (*object.as_ptr()).length = length as u64;
            fill(object.as_ptr().add(1).cast());
            Ok(Gc::from_ptr(object))
        }
    }

    /// A new string of `length` bytes, all zero so far or, if it is long, anything: to be written in slices through
    /// [`Gc::bytes_mut`] with a safepoint after each, while a frame holds the string.
    pub fn new_unfilled(local: &LocalHeap, length: usize) -> Result<Gc<Str>, NeedMemory> {
        // SAFETY: memory from the heap is always initialised, so the bytes are valid whatever they are.
        unsafe { Self::new_with(local, length, |_| ()) }
    }
}

impl Gc<Str> {
    /// Its bytes. The lifetime is the caller's promise: the string is reachable from a root at every safepoint in it.
    #[inline(always)]
    pub fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: a string's bytes lie behind its header, and do not change once it is made.
        unsafe {
            slice::from_raw_parts(
                self.as_ptr().add(1).cast(),
                (*self.as_ptr()).length as usize,
            )
        }
    }

    /// Where the bytes of a string under construction are.
    ///
    /// The pointer may be written through only until the string's value is first used as one: from then on strings never change.
    #[inline(always)]
    pub fn bytes_mut(self) -> *mut u8 {
        // SAFETY: the bytes follow the header.
        unsafe { self.as_ptr().add(1).cast() }
    }

    /// Number of bytes.
    #[inline(always)]
    #[expect(
        clippy::len_without_is_empty,
        reason = "nothing asks for it; `len` is Lua's"
    )]
    pub fn len(self) -> usize {
        // SAFETY: a live string, whose length does not change.
        unsafe { (*self.as_ptr()).length as usize }
    }

    /// Its hash, never 0. Computed at the first call and kept in the header; cores that race compute the same.
    #[inline(always)]
    pub fn hash(self) -> u32 {
        let hash = self.header().word.load(Ordering::Relaxed);
        if hash != 0 { hash } else { self.compute_hash() }
    }

    /// Its hash if that was asked for before, else 0.
    #[inline(always)]
    pub(crate) fn known_hash(self) -> u32 {
        self.header().word.load(Ordering::Relaxed)
    }

    #[cold]
    fn compute_hash(self) -> u32 {
        let hash = Str::hash_of(self.bytes());
        self.header().word.store(hash, Ordering::Relaxed);
        hash
    }

    /// Whether two strings have the same bytes, of which that is likely: their hashes agree.
    #[inline(always)]
    pub(crate) fn same_bytes(self, other: Gc<Str>) -> bool {
        let (a, b) = (self.bytes(), other.bytes());
        if a.len() != b.len() {
            return false;
        }
        if a.len() > 16 {
            return a == b;
        }
        // An object's memory is a multiple of 16 bytes and zero where it is not used, so that whole words may be compared.
        // SAFETY: 16 bytes or none lie behind the header of a string of at most 16.
        unsafe {
            let (a, b): (*const u64, *const u64) = (a.as_ptr().cast(), b.as_ptr().cast());
            self.len() == 0
                || (a.read() == b.read() && (self.len() <= 8 || a.add(1).read() == b.add(1).read()))
        }
    }

    /// Whether two strings have the same bytes: pointer, then hashes if both are known, then length and bytes.
    #[inline]
    pub fn content_equal(self, other: Gc<Str>) -> bool {
        if self == other {
            return true;
        }
        let (a, b) = (
            self.header().word.load(Ordering::Relaxed),
            other.header().word.load(Ordering::Relaxed),
        );
        if a != b && a != 0 && b != 0 {
            return false;
        }
        self.bytes() == other.bytes()
    }

    /// The text if it is UTF-8.
    pub fn to_utf8<'a>(self) -> Option<&'a str> {
        core::str::from_utf8(self.bytes()).ok()
    }
}

impl From<Gc<Str>> for Value {
    #[inline(always)]
    fn from(string: Gc<Str>) -> Value {
        string.value()
    }
}
