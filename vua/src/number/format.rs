//! Numbers to text: what `tostring` gives, and C's `%d %u %o %x %X %e %E %f %F %g %G %a %A` with flags, width and precision.

use core::fmt::{self, Write};

use alloc::vec::Vec;

/// The longest number without padding: `-` and 309 digits, a point and 99 more, and some room for `0x` and an exponent.
const LONGEST: usize = 432;

/// A short text in place, for numbers.
#[derive(Clone, Copy)]
pub struct Text<const N: usize = 32> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    fn new() -> Self {
        Text {
            bytes: [0; N],
            len: 0,
        }
    }

    /// The text, ASCII.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        // Only this module writes it, and only ASCII.
        core::str::from_utf8(self.as_bytes()).unwrap_or("")
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn repeat(&mut self, byte: u8, count: usize) {
        self.bytes[self.len..self.len + count].fill(byte);
        self.len += count;
    }

    /// Appends what core formats. Every caller's output fits by the bounds of its arguments.
    fn write(&mut self, arguments: fmt::Arguments<'_>) {
        let fits = self.write_fmt(arguments);
        debug_assert!(fits.is_ok());
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.len + s.len() > N {
            return Err(fmt::Error);
        }
        self.extend(s.as_bytes());
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An integer as `tostring` writes it.
pub fn integer_text(i: i64) -> Text {
    let mut text = Text::new();
    if i < 0 {
        text.push(b'-');
    }
    append_digits(&mut text, i.unsigned_abs());
    text
}

fn append_digits<const N: usize>(text: &mut Text<N>, mut magnitude: u64) {
    // 2^64 has 20 digits.
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (magnitude % 10) as u8;
        magnitude /= 10;
        if magnitude == 0 {
            break;
        }
    }
    text.extend(&digits[at..]);
}

/// A float as `tostring` writes it: `%.14g`, with `.0` added to what would look like an integer.
///
/// A NaN shows its sign, as glibc prints it; `0/0` on x86 makes a negative one.
pub fn float_text(f: f64) -> Text {
    let mut text = Text::new();
    // Integral floats are the most common ones, and 14 digits show them exactly.
    if f.abs() < 1e14 && f == f as i64 as f64 {
        if f.is_sign_negative() {
            text.push(b'-');
        }
        append_digits(&mut text, f.abs() as u64);
        text.extend(b".0");
        return text;
    }
    if f.is_sign_negative() {
        text.push(b'-');
    }
    body(&mut text, f.abs(), b'g', Some(14), false);
    if text
        .as_bytes()
        .iter()
        .all(|&b| b == b'-' || b.is_ascii_digit())
    {
        text.extend(b".0");
    }
    text
}

/// A conversion's flags, width and precision, in C's meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-`: pad on the right.
    pub left: bool,
    /// `+`: a sign always.
    pub plus: bool,
    /// Space: a space where a plus sign would stand.
    pub space: bool,
    /// `#`: the alternative form.
    pub alternate: bool,
    /// `0`: pad with zeros after the sign.
    pub zero: bool,
    /// The least number of characters; at most 99.
    pub width: usize,
    /// The precision; at most 99.
    pub precision: Option<usize>,
}

impl Flags {
    /// `-`, `+`, a space or nothing.
    fn sign(&self, negative: bool) -> &'static [u8] {
        if negative {
            b"-"
        } else if self.plus {
            b"+"
        } else if self.space {
            b" "
        } else {
            b""
        }
    }
}

/// Appends a float by the conversion `e`, `f`, `g`, `a` or a capital of these. At most 500 bytes.
///
/// # Panics
/// If width or precision are above 99, or the conversion is none of these.
pub fn append_float(out: &mut Vec<u8>, f: f64, conversion: u8, flags: &Flags) {
    assert!(flags.width <= 99 && flags.precision.is_none_or(|p| p <= 99));
    let mut text = Text::<LONGEST>::new();
    body(
        &mut text,
        f.abs(),
        conversion.to_ascii_lowercase(),
        flags.precision,
        flags.alternate,
    );
    if conversion.is_ascii_uppercase() {
        text.bytes.make_ascii_uppercase();
    }
    let zeros = flags.zero && !flags.left && f.is_finite();
    let (prefix, digits): (&[u8], &[u8]) = match text.as_bytes() {
        [b'0', b'x' | b'X', rest @ ..] => text.as_bytes().split_at(text.len - rest.len()),
        all => (b"", all),
    };
    pad(
        out,
        flags,
        flags.sign(f.is_sign_negative()),
        prefix,
        digits,
        zeros,
    );
}

/// Appends an integer by the conversion `d`, `i`, `u`, `o`, `x` or `X`; all but the first two take it as unsigned. At most 202 bytes.
///
/// # Panics
/// If width or precision are above 99, or the conversion is none of these.
pub fn append_integer(out: &mut Vec<u8>, i: i64, conversion: u8, flags: &Flags) {
    assert!(flags.width <= 99 && flags.precision.is_none_or(|p| p <= 99));
    let mut number = Text::<32>::new();
    let mut sign: &[u8] = b"";
    let mut prefix: &[u8] = b"";
    match conversion {
        b'd' | b'i' => {
            sign = flags.sign(i < 0);
            append_digits(&mut number, i.unsigned_abs());
        }
        b'u' => append_digits(&mut number, i as u64),
        b'o' => {
            // The alternative form of octal makes the first digit a zero.
            if flags.alternate && i != 0 {
                number.push(b'0');
            }
            number.write(format_args!("{i:o}"));
        }
        b'x' => number.write(format_args!("{i:x}")),
        b'X' => number.write(format_args!("{i:X}")),
        _ => panic!("not an integer conversion"),
    }
    if flags.alternate && i != 0 {
        match conversion {
            b'x' => prefix = b"0x",
            b'X' => prefix = b"0X",
            _ => {}
        }
    }
    let mut digits = Text::<128>::new();
    // A value of 0 with a precision of 0 has no digits at all, but an alternative octal keeps its zero.
    if i != 0 || flags.precision != Some(0) || (conversion == b'o' && flags.alternate) {
        digits.repeat(
            b'0',
            flags.precision.unwrap_or(1).saturating_sub(number.len),
        );
        digits.extend(number.as_bytes());
    }
    let zeros = flags.zero && !flags.left && flags.precision.is_none();
    pad(out, flags, sign, prefix, digits.as_bytes(), zeros);
}

/// Appends sign, prefix and digits, padded to the width.
fn pad(out: &mut Vec<u8>, flags: &Flags, sign: &[u8], prefix: &[u8], digits: &[u8], zeros: bool) {
    let fill = flags
        .width
        .saturating_sub(sign.len() + prefix.len() + digits.len());
    let repeat = |out: &mut Vec<u8>, byte| out.resize(out.len() + fill, byte);
    if !flags.left && !zeros {
        repeat(out, b' ');
    }
    out.extend_from_slice(sign);
    out.extend_from_slice(prefix);
    if zeros {
        repeat(out, b'0');
    }
    out.extend_from_slice(digits);
    if flags.left {
        repeat(out, b' ');
    }
}

/// Writes `f`, which has no sign, by a small-letter conversion, unpadded.
fn body<const N: usize>(
    text: &mut Text<N>,
    f: f64,
    conversion: u8,
    precision: Option<usize>,
    alternate: bool,
) {
    if f.is_nan() {
        return text.extend(b"nan");
    }
    if f.is_infinite() {
        return text.extend(b"inf");
    }
    match conversion {
        b'f' => {
            let precision = precision.unwrap_or(6);
            text.write(format_args!("{f:.precision$}"));
            if alternate && precision == 0 {
                text.push(b'.');
            }
        }
        b'e' => {
            let precision = precision.unwrap_or(6);
            let (digits, exponent) = scientific(f, precision);
            append_scientific(text, digits.as_bytes(), exponent, alternate);
        }
        b'g' => general(text, f, precision.unwrap_or(6).max(1), alternate),
        b'a' => hexadecimal(text, f, precision, alternate),
        _ => panic!("not a float conversion"),
    }
}

/// The `precision + 1` significant decimal digits of `f`, without a point, and the exponent of the first one.
fn scientific(f: f64, precision: usize) -> (Text<128>, i32) {
    let mut written = Text::<128>::new();
    written.write(format_args!("{f:.precision$e}"));
    let bytes = written.as_bytes();
    let e = bytes
        .iter()
        .rposition(|&b| b == b'e')
        .unwrap_or(bytes.len());
    let exponent = core::str::from_utf8(&bytes[e..])
        .ok()
        .and_then(|s| s.get(1..))
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let mut digits = Text::new();
    digits.push(bytes[0]);
    if e > 2 {
        digits.extend(&bytes[2..e]);
    }
    (digits, exponent)
}

fn append_scientific<const N: usize>(
    text: &mut Text<N>,
    digits: &[u8],
    exponent: i32,
    alternate: bool,
) {
    text.push(digits[0]);
    if digits.len() > 1 || alternate {
        text.push(b'.');
    }
    text.extend(&digits[1..]);
    text.push(b'e');
    text.push(if exponent < 0 { b'-' } else { b'+' });
    let magnitude = exponent.unsigned_abs();
    if magnitude < 10 {
        text.push(b'0');
    }
    append_digits(text, u64::from(magnitude));
}

/// C's `%g`: `precision` significant digits, whichever of the two forms fits the exponent, no zeros at the end unless alternate.
fn general<const N: usize>(text: &mut Text<N>, f: f64, precision: usize, alternate: bool) {
    let (digits, exponent) = scientific(f, precision - 1);
    let mut digits = digits.as_bytes();
    if !alternate {
        let significant = digits.iter().rposition(|&b| b != b'0').map_or(1, |i| i + 1);
        digits = &digits[..significant];
    }
    if exponent < -4 || exponent >= precision as i32 {
        append_scientific(text, digits, exponent, alternate);
    } else if exponent < 0 {
        text.extend(b"0.");
        text.repeat(b'0', (-exponent - 1) as usize);
        text.extend(digits);
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            text.extend(digits);
            text.repeat(b'0', whole - digits.len());
            if alternate {
                text.push(b'.');
            }
        } else {
            text.extend(&digits[..whole]);
            text.push(b'.');
            text.extend(&digits[whole..]);
        }
    }
}

/// C's `%a` in glibc's form: one digit before the point, which is 1, or 0 for a subnormal or zero, and for rounded ones may be 2.
fn hexadecimal<const N: usize>(
    text: &mut Text<N>,
    f: f64,
    precision: Option<usize>,
    alternate: bool,
) {
    let bits = f.to_bits();
    let field = (bits >> 52) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (mut mantissa, exponent) = match (field, fraction) {
        (0, 0) => (0, 0),
        (0, _) => (fraction, -1022),
        _ => (fraction | 1 << 52, field - 1023),
    };
    let digits = match precision {
        // 13 hexadecimal digits hold the 52 bits of the fraction.
        Some(precision) if precision < 13 => {
            let dropped = 52 - 4 * precision as u32;
            let remainder = mantissa & ((1 << dropped) - 1);
            let half = 1u64 << (dropped - 1);
            mantissa >>= dropped;
            if remainder > half || (remainder == half && mantissa & 1 == 1) {
                mantissa += 1;
            }
            mantissa <<= dropped;
            precision
        }
        Some(precision) => precision,
        None => 13 - (mantissa & ((1 << 52) - 1)).trailing_zeros().min(52) as usize / 4,
    };
    text.extend(b"0x");
    append_digits(text, mantissa >> 52);
    if digits > 0 || alternate {
        text.push(b'.');
    }
    for i in 0..digits {
        let digit = if i < 13 {
            (mantissa >> (48 - 4 * i)) & 15
        } else {
            0
        };
        text.push(b"0123456789abcdef"[digit as usize]);
    }
    text.push(b'p');
    text.push(if exponent < 0 { b'-' } else { b'+' });
    append_digits(text, u64::from(exponent.unsigned_abs()));
}
