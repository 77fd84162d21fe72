//! Values: eight bytes each, the only module that knows their encoding.
//!
//! NaN-boxing. A double is stored as it is; everything else lies in the part of the encoding space that no double
//! uses, since every NaN that becomes a value is made canonical:
//!
//! | bits 63..48 | payload | what |
//! | --- | --- | --- |
//! | up to `fff8`, payload 0 | | a double; the only negative NaN is `fff8_0000_0000_0000`, x86's default NaN |
//! | `fff8` | 1, 2, 3 | nil, false, true |
//! | `fff9` | 48 bits, sign-extended | integer from -2^47 to 2^47 - 1 |
//! | `fffa` | address | boxed integer, never one that fits 48 bits |
//! | `fffb` | address | string |
//! | `fffc` | address | table |
//! | `fffd` | address | function, of Vua or native |
//! | `fffe` | address | struct or array |
//! | `ffff` | address | any other object |
//!
//! The canonical NaN is the one that SSE arithmetic makes out of numbers ("real indefinite", Intel SDM vol. 1, 4.8.3.7), and
//! arithmetic hands on the NaN it was given; so results of addition, subtraction, multiplication, division and square
//! root of values are canonical up to their sign and need no check ([`Value::from_arithmetic`]). Positive NaNs of any payload are doubles too.
//!
//! Addresses have 47 bits: on the host user space ends there, and the kernel maps the Vua heap in the lower half.

use core::fmt;
use core::ptr::NonNull;

use crate::heap::Header;

/// A Vua value. Copying it copies a reference where it is one; liveness is the collector's business.
///
/// Equality of `Value`s is identity of bits: it is Vua's `rawequal` except for floats against integers, floats against each other (0.0, NaN), boxed integers and strings.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Value(u64);

const _: () = assert!(size_of::<Value>() == 8);

const TAG_SHIFT: u32 = 48;
const PAYLOAD: u64 = (1 << TAG_SHIFT) - 1;
const LAST_FLOAT: u64 = 0xfff8 << TAG_SHIFT;
const INTEGER: u64 = 0xfff9;
const BOXED_INTEGER: u64 = 0xfffa;
const _: () = assert!(cfg!(target_endian = "little"), "Value::tag_at");

/// The tag of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Tag {
    /// An integer beyond 48 bits.
    BoxedInteger = BOXED_INTEGER,
    /// A string.
    String = 0xfffb,
    /// A table.
    Table = 0xfffc,
    /// A function, of Vua or native.
    Function = 0xfffd,
    /// A struct or an array.
    Struct = 0xfffe,
    /// Any other object: task, coroutine, cell, prototype, lock, …
    Object = 0xffff,
}

impl Value {
    /// nil.
    pub const NIL: Value = Value(LAST_FLOAT | 1);
    /// false.
    pub const FALSE: Value = Value(LAST_FLOAT | 2);
    /// true.
    pub const TRUE: Value = Value(LAST_FLOAT | 3);

    /// The smallest integer that needs no box.
    pub const MIN_INLINE: i64 = -(1 << 47);
    /// The largest integer that needs no box.
    pub const MAX_INLINE: i64 = (1 << 47) - 1;

    /// `true` or `false`.
    #[inline(always)]
    pub const fn boolean(b: bool) -> Value {
        Value((LAST_FLOAT | 2) + b as u64)
    }

    /// A float; a NaN loses its payload and its sign.
    #[inline(always)]
    pub fn float(f: f64) -> Value {
        if f.is_nan() {
            Value(LAST_FLOAT)
        } else {
            Value(f.to_bits())
        }
    }

    /// The result of `+ - * /` or a square root on floats that came out of values: its NaN needs no check.
    #[inline(always)]
    pub fn from_arithmetic(f: f64) -> Value {
        debug_assert!(f.to_bits() <= LAST_FLOAT);
        Value(f.to_bits())
    }

    /// An integer that fits 48 bits, else `None`: it then needs a box ([`crate::heap::LocalHeap::integer`]).
    #[inline(always)]
    pub const fn inline_integer(i: i64) -> Option<Value> {
        if (i << 16) >> 16 == i {
            Some(Value((INTEGER << TAG_SHIFT) | (i as u64 & PAYLOAD)))
        } else {
            None
        }
    }

    /// An integer of at most 32 bits: always inline.
    #[inline(always)]
    pub const fn small(i: i32) -> Value {
        Value((INTEGER << TAG_SHIFT) | (i as i64 as u64 & PAYLOAD))
    }

    /// A reference to the object at `object`.
    ///
    /// # Safety
    /// `object` is the address, below 2^47, of an object of the heap whose kind `tag` stands for.
    #[inline(always)]
    pub unsafe fn reference(tag: Tag, object: NonNull<Header>) -> Value {
        let address = object.as_ptr().expose_provenance() as u64;
        debug_assert!(address < 1 << 47);
        Value(((tag as u64) << TAG_SHIFT) | address)
    }

    /// Whether it is nil.
    #[inline(always)]
    pub const fn is_nil(self) -> bool {
        self.0 == Self::NIL.0
    }

    /// Whether a condition takes it for true: neither nil nor false.
    #[inline(always)]
    pub const fn is_truthy(self) -> bool {
        self.0.wrapping_sub(Self::NIL.0) > 1
    }

    /// The boolean that it is.
    #[inline(always)]
    pub const fn as_boolean(self) -> Option<bool> {
        if self.0 == Self::TRUE.0 {
            Some(true)
        } else if self.0 == Self::FALSE.0 {
            Some(false)
        } else {
            None
        }
    }

    /// Whether it is a float.
    #[inline(always)]
    pub const fn is_float(self) -> bool {
        self.0 <= LAST_FLOAT
    }

    /// The float that it is; an integer is none.
    #[inline(always)]
    pub const fn as_float(self) -> Option<f64> {
        if self.is_float() {
            Some(f64::from_bits(self.0))
        } else {
            None
        }
    }

    /// Whether it is an integer stored inline.
    #[inline(always)]
    pub const fn is_inline_integer(self) -> bool {
        self.0 >> TAG_SHIFT == INTEGER
    }

    /// Whether both are integers stored inline: one branch.
    #[inline(always)]
    pub const fn both_inline_integers(a: Value, b: Value) -> bool {
        ((a.0 ^ (INTEGER << TAG_SHIFT)) | (b.0 ^ (INTEGER << TAG_SHIFT))) >> TAG_SHIFT == 0
    }

    /// The 16 bits that say what the value in a slot is: a load of these alone, which a machine compares with a constant in one
    /// instruction.
    ///
    /// # Safety
    /// The slot may be read, and nobody writes to it meanwhile.
    #[inline(always)]
    const unsafe fn tag_at(slot: *const u64) -> u16 {
        // SAFETY: the last of the slot's four parts, on the only kind of machine that the engine runs on.
        unsafe { *slot.cast::<u16>().add(3) }
    }

    /// Whether the value in a slot is an integer stored inline, in one comparison.
    ///
    /// # Safety
    /// As for a read of the slot.
    #[inline(always)]
    pub(crate) const unsafe fn is_inline_integer_at(slot: *const u64) -> bool {
        // SAFETY: as the caller says.
        unsafe { Self::tag_at(slot) == INTEGER as u16 }
    }

    /// Whether the value in a slot is a reference with this tag, in one comparison.
    ///
    /// # Safety
    /// As for a read of the slot.
    #[inline(always)]
    pub(crate) const unsafe fn has_tag_at(slot: *const u64, tag: Tag) -> bool {
        // SAFETY: as the caller says.
        unsafe { Self::tag_at(slot) == tag as u64 as u16 }
    }

    /// The value in a slot if it is an integer from 0 to 2^32 - 1.
    ///
    /// # Safety
    /// As for a read of the slot.
    #[inline(always)]
    pub(crate) const unsafe fn index_at(slot: *const u64) -> Option<u32> {
        // SAFETY: the two halves of the slot.
        unsafe {
            let half = slot.cast::<u32>();
            if *half.add(1) == (INTEGER as u32) << 16 {
                Some(*half)
            } else {
                None
            }
        }
    }

    /// What orders inline integers as they are ordered: 2^16 times the integer.
    #[inline(always)]
    pub(crate) const fn inline_order(self) -> i64 {
        (self.0 << 16) as i64
    }

    /// The integer whose [`inline_order`](Self::inline_order) this is.
    #[inline(always)]
    pub(crate) const fn from_inline_order(order: i64) -> Value {
        // The low 16 bits of the order are 0, and become the tag: two instructions, and no constant that fills a register.
        Value((order as u64 | INTEGER).rotate_right(16))
    }

    /// Whether two values are equal without metamethods, where that can be said without looking into objects or comparing numbers of different
    /// kinds.
    #[inline(always)]
    pub(crate) fn equal_at_sight(self, other: Value) -> Option<bool> {
        let (x, y) = ((self.0 >> TAG_SHIFT) as u16, (other.0 >> TAG_SHIFT) as u16);
        const SPECIAL: u16 = 0xfff8;
        if x >= SPECIAL && y >= SPECIAL {
            // Neither is a number between the infinities, so a NaN is all that is not equal to itself.
            if self.0 == other.0 {
                Some(self.0 != LAST_FLOAT)
            } else if x != y || x == SPECIAL || x == INTEGER as u16 || x == Tag::Function as u16 {
                Some(false)
            } else {
                None
            }
        } else if x < SPECIAL && y < SPECIAL {
            Some(f64::from_bits(self.0) == f64::from_bits(other.0))
        } else {
            None
        }
    }

    /// The integer that it is, inline or boxed; a float is none, whatever its value.
    #[inline(always)]
    pub fn as_integer(self) -> Option<i64> {
        if self.is_inline_integer() {
            Some(self.inline_payload())
        } else if self.0 >> TAG_SHIFT == BOXED_INTEGER {
            // SAFETY: the tag says that the address is that of a live boxed integer.
            Some(unsafe { crate::object::BoxedInteger::get(self.address()) })
        } else {
            None
        }
    }

    /// The inline integer in it; meaningless unless [`is_inline_integer`](Self::is_inline_integer).
    #[inline(always)]
    pub const fn inline_payload(self) -> i64 {
        ((self.0 << 16) as i64) >> 16
    }

    /// Sum of two inline integers, if it is inline too.
    #[inline(always)]
    pub const fn inline_add(a: Value, b: Value) -> Option<Value> {
        let (sum, overflow) = ((a.0 << 16) as i64).overflowing_add((b.0 << 16) as i64);
        if overflow {
            None
        } else {
            Some(Value::from_inline_order(sum))
        }
    }

    /// The integer after an inline one that is not the largest; an inline integer whatever it is called on.
    #[inline(always)]
    pub(crate) const fn inline_successor(self) -> Value {
        Value::from_inline_order((self.0 << 16).wrapping_add(1 << 16) as i64)
    }

    /// Difference of two inline integers, if it is inline too.
    #[inline(always)]
    pub const fn inline_sub(a: Value, b: Value) -> Option<Value> {
        let (difference, overflow) = ((a.0 << 16) as i64).overflowing_sub((b.0 << 16) as i64);
        if overflow {
            None
        } else {
            Some(Value::from_inline_order(difference))
        }
    }

    /// Product of two inline integers, if it is inline too.
    #[inline(always)]
    pub const fn inline_mul(a: Value, b: Value) -> Option<Value> {
        let (product, overflow) = ((a.0 << 16) as i64).overflowing_mul(b.inline_payload());
        if overflow {
            None
        } else {
            Some(Value::from_inline_order(product))
        }
    }

    /// Whether it is a number, integer or float.
    #[inline(always)]
    pub const fn is_number(self) -> bool {
        self.0 <= LAST_FLOAT
            || (self.0 >> TAG_SHIFT == INTEGER)
            || (self.0 >> TAG_SHIFT == BOXED_INTEGER)
    }

    /// Whether it refers to an object of the heap.
    #[inline(always)]
    pub const fn is_reference(self) -> bool {
        self.0 >= BOXED_INTEGER << TAG_SHIFT
    }

    /// Whether it is a reference with this tag.
    #[inline(always)]
    pub const fn has_tag(self, tag: Tag) -> bool {
        self.0 >> TAG_SHIFT == tag as u64
    }

    /// The address in a reference; meaningless in anything else.
    #[inline(always)]
    pub fn address(self) -> *mut Header {
        core::ptr::with_exposed_provenance_mut((self.0 & PAYLOAD) as usize)
    }

    /// The object that it refers to, if it is a reference.
    #[inline(always)]
    pub fn object(self) -> Option<NonNull<Header>> {
        if self.is_reference() {
            NonNull::new(self.address())
        } else {
            None
        }
    }

    /// The word that stands for it in memory.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The value that [`to_bits`](Self::to_bits) gave.
    ///
    /// # Safety
    /// `bits` came from `to_bits`, and if it is a reference its object lives.
    #[inline(always)]
    pub const unsafe fn from_bits(bits: u64) -> Value {
        Value(bits)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            v if v == Self::NIL.0 => f.write_str("nil"),
            v if v == Self::TRUE.0 => f.write_str("true"),
            v if v == Self::FALSE.0 => f.write_str("false"),
            v if v <= LAST_FLOAT => write!(f, "{:?}", f64::from_bits(v)),
            v if v >> TAG_SHIFT == INTEGER => write!(f, "{}", self.inline_payload()),
            v => write!(f, "{:04x}:{:012x}", v >> TAG_SHIFT, v & PAYLOAD),
        }
    }
}
