//! The directives of `string.format` (reference manual, 6.4), apart from the values that they take. Nothing here knows the heap.

use core::fmt;

pub use crate::number::Flags;

/// Characters that may stand between `%` and the conversion.
const MODIFIERS: &[u8] = b"-+#0 123456789.";

/// The longest run of them (Lua's `MAX_FORMAT` less what C adds).
const LONGEST: usize = 20;

/// Flags that `a A e E f g G` take.
pub const FLOAT_FLAGS: &[u8] = b"-+#0 ";
/// Flags that `o x X` take.
pub const HEXADECIMAL_FLAGS: &[u8] = b"-#0";
/// Flags that `d i` take.
pub const INTEGER_FLAGS: &[u8] = b"-+0 ";
/// Flags that `u` takes.
pub const UNSIGNED_FLAGS: &[u8] = b"-0";
/// Flags that `c p s` take.
pub const TEXT_FLAGS: &[u8] = b"-";

/// What is wrong with a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError<'a> {
    /// More modifiers than any valid one has.
    TooLong,
    /// Modifiers that the conversion does not take, in the whole directive with its `%`.
    InvalidSpecification(&'a [u8]),
    /// No conversion has this letter: the whole directive.
    InvalidConversion(&'a [u8]),
}

impl fmt::Display for FormatError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::TooLong => f.write_str("invalid format (too long)"),
            FormatError::InvalidSpecification(text) => {
                write!(
                    f,
                    "invalid conversion specification: '{}'",
                    text.escape_ascii()
                )
            }
            FormatError::InvalidConversion(text) => {
                write!(
                    f,
                    "invalid conversion '{}' to 'format'",
                    text.escape_ascii()
                )
            }
        }
    }
}

/// A directive as it stands in a format, from its `%` to its conversion letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// All of it.
    pub text: &'a [u8],
    /// Its last character; 0 if the format ends before it.
    pub conversion: u8,
}

impl<'a> Directive<'a> {
    /// The directive at the start of `format`, which is a `%` that no other `%` follows.
    pub fn at(format: &'a [u8]) -> Result<Directive<'a>, FormatError<'a>> {
        let modifiers = format[1..]
            .iter()
            .take_while(|b| MODIFIERS.contains(b))
            .count();
        if modifiers > LONGEST {
            return Err(FormatError::TooLong);
        }
        let conversion = format.get(1 + modifiers).copied();
        let end = 1 + modifiers + usize::from(conversion.is_some());
        Ok(Directive {
            text: &format[..end],
            conversion: conversion.unwrap_or(0),
        })
    }

    /// Whether it is nothing but `%` and the letter.
    pub fn is_bare(&self) -> bool {
        self.text.len() == 2
    }

    /// The error that no conversion has its letter.
    pub fn unknown(&self) -> FormatError<'a> {
        FormatError::InvalidConversion(self.text)
    }

    /// Its modifiers, if the conversion takes these flags and, perhaps, a precision.
    pub fn flags(&self, allowed: &[u8], precision: bool) -> Result<Flags, FormatError<'a>> {
        let mut flags = Flags::default();
        let mut rest = &self.text[1..];
        while let [flag, after @ ..] = rest
            && allowed.contains(flag)
        {
            match flag {
                b'-' => flags.left = true,
                b'+' => flags.plus = true,
                b' ' => flags.space = true,
                b'#' => flags.alternate = true,
                _ => flags.zero = true,
            }
            rest = after;
        }
        // A width does not begin with 0: that is a flag, here one that is not allowed.
        if rest.first() != Some(&b'0') {
            flags.width = two_digits(&mut rest);
            if precision && let [b'.', after @ ..] = rest {
                rest = after;
                flags.precision = Some(two_digits(&mut rest));
            }
        }
        if rest.len() == 1 && rest[0].is_ascii_alphabetic() {
            Ok(flags)
        } else {
            Err(FormatError::InvalidSpecification(self.text))
        }
    }
}

/// A number of at most two digits; 0 if there is none.
fn two_digits(rest: &mut &[u8]) -> usize {
    let mut number = 0;
    for _ in 0..2 {
        if let [digit @ b'0'..=b'9', after @ ..] = *rest {
            number = number * 10 + usize::from(digit - b'0');
            *rest = after;
        }
    }
    number
}

#[cfg(test)]
mod tests;
