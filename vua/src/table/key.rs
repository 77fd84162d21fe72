//! How keys are compared and hashed.
//!
//! Keys are equal as Lua's raw equality says: strings by content, numbers by value. A float that equals an
//! integer is looked up, and stored, as that integer; any other by its bits, which are one for each value since
//! negative zero is the integer 0 and NaN is no key. Integers that need a box are compared by content, references to structs by type and
//! address, all else by identity.

use crate::memory::Struct;
use crate::memory::object::same_struct;
use crate::object::{BoxedInteger, Gc, Str, exact_integer};
use crate::value::Value;

/// Which comparison decides, beyond identity of bits.
#[derive(Clone, Copy)]
pub(crate) enum Compare {
    /// None.
    Bits,
    /// The bytes of strings.
    String(Gc<Str>),
    /// The content of boxed integers. The bits of the lookup may then be nil: no box is made to look up.
    Boxed(i64),
    /// Type and address of a struct.
    Struct(Gc<Struct>),
}

/// A key on its way to a block of nodes.
#[derive(Clone, Copy)]
pub(crate) struct Lookup {
    pub(crate) bits: u64,
    pub(crate) hash: u32,
    pub(crate) compare: Compare,
}

/// A key, normalised.
pub(crate) enum Key {
    /// An integer, or a float that equals one.
    Integer(i64),
    /// Anything else.
    Other(Lookup),
    /// nil.
    Nil,
    /// NaN.
    Nan,
}

/// Fibonacci hashing (Knuth, The Art of Computer Programming, vol. 3, 6.4): the high half of a product with 2^64 over the golden ratio.
#[inline(always)]
fn scatter(word: u64) -> u32 {
    ((word ^ (word >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Lookup {
    #[inline(always)]
    pub(crate) fn string(string: Gc<Str>) -> Lookup {
        Lookup {
            bits: string.value().to_bits(),
            hash: string.hash(),
            compare: Compare::String(string),
        }
    }

    #[inline(always)]
    pub(crate) fn integer(i: i64) -> Lookup {
        let hash = scatter(i as u64);
        match Value::inline_integer(i) {
            Some(value) => Lookup {
                bits: value.to_bits(),
                hash,
                compare: Compare::Bits,
            },
            None => Lookup {
                bits: Value::NIL.to_bits(),
                hash,
                compare: Compare::Boxed(i),
            },
        }
    }

    #[inline(always)]
    pub(crate) fn identity(value: Value) -> Lookup {
        Lookup {
            bits: value.to_bits(),
            hash: scatter(value.to_bits()),
            compare: Compare::Bits,
        }
    }

    /// Whether the key `found`, whose hash is this one's but whose bits are not, is this key nevertheless.
    #[inline(always)]
    pub(crate) fn same_content(&self, found: Value) -> bool {
        match self.compare {
            Compare::Bits => false,
            Compare::String(string) => found
                .as_str()
                .is_some_and(|other| string.content_equal(other)),
            Compare::Boxed(i) => {
                Gc::<BoxedInteger>::from_value(found).is_some() && found.as_integer() == Some(i)
            }
            Compare::Struct(it) => same_struct(it.value(), found),
        }
    }
}

impl Key {
    #[inline]
    pub(crate) fn of(value: Value) -> Key {
        if let Some(i) = value.as_integer() {
            Key::Integer(i)
        } else if let Some(string) = value.as_str() {
            Key::Other(Lookup::string(string))
        } else if let Some(f) = value.as_float() {
            match exact_integer(f) {
                Some(i) => Key::Integer(i),
                None if f.is_nan() => Key::Nan,
                None => Key::Other(Lookup::identity(value)),
            }
        } else if value.is_nil() {
            Key::Nil
        } else if let Some(it) = Gc::<Struct>::from_value(value) {
            Key::Other(Lookup {
                bits: value.to_bits(),
                hash: scatter(it.address() as u64),
                compare: Compare::Struct(it),
            })
        } else {
            Key::Other(Lookup::identity(value))
        }
    }
}
