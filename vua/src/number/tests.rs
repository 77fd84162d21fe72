use alloc::string::String;
use alloc::vec::Vec;

use super::*;

/// SplitMix64, the usual seeder (Steele, Lea, Flood 2014): 64 well mixed bits from a counter.
struct Mix(u64);

impl Mix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const MIN: i64 = i64::MIN;
const MAX: i64 = i64::MAX;

fn float(f: f64, conversion: u8, flags: &Flags) -> String {
    let mut out = Vec::new();
    append_float(&mut out, f, conversion, flags);
    String::from_utf8(out).unwrap()
}

fn integer(i: i64, conversion: u8, flags: &Flags) -> String {
    let mut out = Vec::new();
    append_integer(&mut out, i, conversion, flags);
    String::from_utf8(out).unwrap()
}

fn precise(precision: usize) -> Flags {
    Flags {
        precision: Some(precision),
        ..Flags::default()
    }
}

#[test]
fn integer_division_floors() {
    let cases = [
        (7, 2, 3, 1),
        (-7, 2, -4, 1),
        (7, -2, -4, -1),
        (-7, -2, 3, -1),
        (6, -3, -2, 0),
        (MIN, -1, MIN, 0),
        (MIN, 1, MIN, 0),
        (0, 5, 0, 0),
        (MAX, MIN, -1, -1),
    ];
    for (a, b, quotient, remainder) in cases {
        assert_eq!(floor_div(a, b), Some(quotient), "{a} // {b}");
        assert_eq!(modulo(a, b), Some(remainder), "{a} % {b}");
    }
    assert_eq!(floor_div(1, 0), None);
    assert_eq!(modulo(1, 0), None);
    let mut mix = Mix(1);
    for _ in 0..10_000 {
        let (a, b) = (mix.next() as i64, (mix.next() as i64) >> (mix.next() % 63));
        if b == 0 {
            continue;
        }
        let (q, r) = (floor_div(a, b).unwrap(), modulo(a, b).unwrap());
        assert_eq!(q.wrapping_mul(b).wrapping_add(r), a);
        assert!(r == 0 || (r < 0) == (b < 0));
        assert!(r.unsigned_abs() < b.unsigned_abs());
    }
}

#[test]
fn float_division_and_modulo() {
    let inf = f64::INFINITY;
    let cases = [
        (5.5, 2.0, 1.5),
        (-5.5, 2.0, 0.5),
        (5.5, -2.0, -0.5),
        (-5.5, -2.0, -1.5),
        (5.0, inf, 5.0),
        (-5.0, inf, inf),
        (5.0, -inf, -inf),
        (-5.0, -inf, -5.0),
        (1e300, 3.0, libm::fmod(1e300, 3.0)),
        (7.0, 3.0, 1.0),
    ];
    for (a, b, expected) in cases {
        assert_eq!(float_modulo(a, b), expected, "{a} % {b}");
    }
    assert!(float_modulo(1.0, 0.0).is_nan());
    assert!(float_modulo(inf, 2.0).is_nan());
    assert!(float_modulo(-0.0, 2.0).is_sign_negative());
    assert_eq!(float_floor_div(7.0, 2.0), 3.0);
    assert_eq!(float_floor_div(-7.0, 2.0), -4.0);
    assert_eq!(float_floor_div(1.0, 0.0), inf);
    let mut mix = Mix(2);
    for _ in 0..10_000 {
        let a = (mix.next() >> (mix.next() % 64)) as f64;
        let b = (mix.next() >> (mix.next() % 64)) as f64;
        let (ours, exact) = (fmod(a, b), libm::fmod(a, b));
        assert!(
            ours == exact || (ours.is_nan() && exact.is_nan()),
            "{a} {b}"
        );
    }
}

#[test]
fn powers() {
    assert_eq!(power(2.0, 10.0), 1024.0);
    assert_eq!(power(3.0, 2.0), 9.0);
    assert_eq!(power(2.0, 0.5), core::f64::consts::SQRT_2);
    assert_eq!(power(f64::NEG_INFINITY, 0.5), f64::INFINITY);
    assert_eq!(power(0.0, -1.0), f64::INFINITY);
    assert!(power(-8.0, 1.0 / 3.0).is_nan());
}

#[test]
fn shifts_take_any_count() {
    assert_eq!(shift_left(1, 63), MIN);
    assert_eq!(shift_left(1, 64), 0);
    assert_eq!(shift_left(-1, -1), MAX);
    assert_eq!(shift_left(-1, -64), 0);
    assert_eq!(shift_left(-1, MIN), 0);
    assert_eq!(shift_right(-1, 1), MAX);
    assert_eq!(shift_right(-1, 63), 1);
    assert_eq!(shift_right(1, -4), 16);
    assert_eq!(shift_right(-1, MAX), 0);
    assert_eq!(shift_right(-1, MIN), 0);
}

#[test]
fn rounding_and_conversion() {
    for (f, down, up) in [
        (1.5, 1.0, 2.0),
        (-1.5, -2.0, -1.0),
        (0.5, 0.0, 1.0),
        (3.0, 3.0, 3.0),
        (1e300, 1e300, 1e300),
        (
            4_503_599_627_370_495.5,
            4_503_599_627_370_495.0,
            4_503_599_627_370_496.0,
        ),
    ] {
        assert_eq!(floor(f), down);
        assert_eq!(ceil(f), up);
    }
    assert!(floor(-0.0).is_sign_negative());
    assert!(ceil(-0.5).is_sign_negative());
    assert!(floor(f64::NAN).is_nan());
    assert_eq!(float_to_integer(-0.0), Some(0));
    assert_eq!(float_to_integer(9_223_372_036_854_775_808.0), None);
    assert_eq!(float_to_integer(-9_223_372_036_854_775_808.0), Some(MIN));
    assert_eq!(
        float_to_integer(9_223_372_036_854_774_784.0),
        Some(9_223_372_036_854_774_784)
    );
    assert_eq!(float_to_integer(1.5), None);
    assert_eq!(float_to_integer(f64::NAN), None);
    assert_eq!(float_to_integer(f64::INFINITY), None);
    assert_eq!(floor_to_integer(-0.5), Some(-1));
    assert_eq!(ceil_to_integer(-0.5), Some(0));
}

#[test]
fn comparison_is_exact() {
    let two_53 = 1i64 << 53;
    assert!(equal(Number::Integer(two_53), Number::Float(two_53 as f64)));
    assert!(!equal(
        Number::Integer(two_53 + 1),
        Number::Float(two_53 as f64)
    ));
    assert!(float_less_than_integer(two_53 as f64, two_53 + 1));
    assert!(!integer_less_equal_float(two_53 + 1, two_53 as f64));
    assert!(integer_less_than_float(MAX, TWO_63));
    assert!(!integer_equals_float(MAX, TWO_63));
    assert!(integer_less_equal_float(MIN, -TWO_63));
    assert!(float_less_equal_integer(-TWO_63, MIN));
    assert!(!float_less_than_integer(-TWO_63, MIN));
    for i in [MIN, -1, 0, 1, MAX] {
        assert!(integer_less_than_float(i, f64::INFINITY));
        assert!(float_less_than_integer(f64::NEG_INFINITY, i));
        assert!(!integer_less_than_float(i, f64::NAN));
        assert!(!integer_less_equal_float(i, f64::NAN));
        assert!(!float_less_than_integer(f64::NAN, i));
        assert!(!float_less_equal_integer(f64::NAN, i));
    }
    // Against exact arithmetic in 128 bits, on floats that are halves of integers.
    let mut mix = Mix(3);
    for _ in 0..20_000 {
        let i = (mix.next() as i64) >> (mix.next() % 64);
        let f = if mix.next().is_multiple_of(2) {
            i as f64
        } else {
            ((mix.next() as i64) >> (mix.next() % 64)) as f64 / 2.0
        };
        let (twice_i, twice_f) = (i128::from(i) * 2, (f * 2.0) as i128);
        assert_eq!(
            integer_less_than_float(i, f),
            twice_i < twice_f,
            "{i} < {f}"
        );
        assert_eq!(
            integer_less_equal_float(i, f),
            twice_i <= twice_f,
            "{i} <= {f}"
        );
        assert_eq!(
            float_less_than_integer(f, i),
            twice_f < twice_i,
            "{f} < {i}"
        );
        assert_eq!(
            float_less_equal_integer(f, i),
            twice_f <= twice_i,
            "{f} <= {i}"
        );
        assert_eq!(integer_equals_float(i, f), twice_i == twice_f, "{i} == {f}");
    }
}

#[test]
fn numerals() {
    use Number::{Float, Integer};
    let good: &[(&str, Number)] = &[
        ("0", Integer(0)),
        ("  42\n", Integer(42)),
        ("\t\x0b\x0c\r-7 ", Integer(-7)),
        ("+7", Integer(7)),
        ("9223372036854775807", Integer(MAX)),
        ("9223372036854775808", Float(TWO_63)),
        ("-9223372036854775808", Integer(MIN)),
        ("-9223372036854775809", Float(-TWO_63)),
        ("00000000000000000000000000000012", Integer(12)),
        ("0x10", Integer(16)),
        ("-0X1f", Integer(-31)),
        ("0xffffffffffffffff", Integer(-1)),
        ("0x1ffffffffffffffff", Integer(-1)),
        ("1e2", Float(100.0)),
        (".5", Float(0.5)),
        ("5.", Float(5.0)),
        ("-.5e-1", Float(-0.05)),
        ("1E+400", Float(f64::INFINITY)),
        ("0x.8", Float(0.5)),
        ("0x8.", Float(8.0)),
        ("0xA.8p1", Float(21.0)),
        ("0x1p-2", Float(0.25)),
        ("0x1p1024", Float(f64::INFINITY)),
        ("-0x1p-1074", Float(-5e-324)),
        ("0x1p-1075", Float(0.0)),
        ("0x1.00000000000000000001p-1075", Float(5e-324)),
        ("0x1.8p-1075", Float(5e-324)),
        ("0x3p-1075", Float(1e-323)),
        ("0x1.fffffffffffff8p1023", Float(f64::INFINITY)),
        ("0x1.fffffffffffff7p1023", Float(f64::MAX)),
        ("0x0.fffffffffffff8p-1022", Float(f64::MIN_POSITIVE)),
        ("0x1.00000000000008p0", Float(1.0)),
        (
            "0x1.000000000000080000000000000000001p0",
            Float(1.000_000_000_000_000_2),
        ),
        ("0x1.00000000000018p0", Float(1.000_000_000_000_000_4)),
        ("0x100000000000000000000000p-92", Float(1.0)),
        ("0x0p99999999999999999999999", Float(0.0)),
        ("0x1p-99999999999999999999999", Float(0.0)),
        ("2.2250738585072011e-308", Float(2.225_073_858_507_201e-308)),
    ];
    for (text, expected) in good {
        let found = parse(text.as_bytes());
        assert_eq!(found, Some(*expected), "{text:?}");
        if let (Some(Float(a)), Float(b)) = (found, expected) {
            assert_eq!(a.to_bits(), b.to_bits(), "{text:?}");
        }
    }
    assert!(matches!(parse(b"-0x0p0"), Some(Float(f)) if f.is_sign_negative()));
    let bad = [
        "", " ", "-", "+", "--1", "+-1", "- 1", "1 2", "1a", "e5", "1e", "1e+", ".", ".e1", "0x",
        "0x.", "0xp1", "0x1p", "0x1p+", "0x1pf", "0xg", "1..2", "1.2.3", "0x1.2.3", "inf", "-inf",
        "nan", "infinity", "1f", "1_000", "1\0", "\0", "0b1", "é",
    ];
    for text in bad {
        assert_eq!(parse(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn tostring_of_floats() {
    let cases: &[(f64, &str)] = &[
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (1.0 / 3.0, "0.33333333333333"),
        (100.0, "100.0"),
        (1e13, "10000000000000.0"),
        (99_999_999_999_999.0, "99999999999999.0"),
        (1e14, "1e+14"),
        (123_456_789_012_345.0, "1.2345678901234e+14"),
        (1e15, "1e+15"),
        (1e100, "1e+100"),
        (-1e300, "-1e+300"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (5e-324, "4.9406564584125e-324"),
        (f64::MAX, "1.7976931348623e+308"),
        (TWO_63, "9.2233720368548e+18"),
        (12_345_678.9, "12345678.9"),
        (99_999_999_999_999.9, "1e+14"),
        (9_999_999_999_999.99, "10000000000000.0"),
        (core::f64::consts::PI, "3.1415926535898"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ];
    for (f, expected) in cases {
        assert_eq!(float_text(*f).as_str(), *expected);
    }
    assert_eq!(float_text(f64::from_bits(0xfff8 << 48)).as_str(), "-nan");
    assert_eq!(float_text(f64::from_bits(0x7ff8 << 48)).as_str(), "nan");
    assert_eq!(integer_text(MIN).as_str(), "-9223372036854775808");
    assert_eq!(integer_text(0).as_str(), "0");
}

#[test]
fn float_conversions() {
    let plain = Flags::default();
    assert_eq!(float(1.0, b'f', &plain), "1.000000");
    assert_eq!(float(-1.5, b'e', &plain), "-1.500000e+00");
    assert_eq!(float(1e100, b'E', &plain), "1.000000E+100");
    assert_eq!(float(0.0, b'g', &plain), "0");
    assert_eq!(float(100_000.0, b'g', &plain), "100000");
    assert_eq!(float(1e6, b'g', &plain), "1e+06");
    assert_eq!(float(999_999.5, b'g', &plain), "1e+06");
    assert_eq!(float(0.000_123_456_789, b'g', &plain), "0.000123457");
    assert_eq!(float(0.000_012_345, b'G', &plain), "1.2345E-05");
    assert_eq!(float(2.5, b'f', &precise(0)), "2");
    assert_eq!(float(3.5, b'f', &precise(0)), "4");
    assert_eq!(
        float(
            2.5,
            b'f',
            &Flags {
                alternate: true,
                ..precise(0)
            }
        ),
        "2."
    );
    assert_eq!(
        float(
            1.0,
            b'g',
            &Flags {
                alternate: true,
                ..plain
            }
        ),
        "1.00000"
    );
    assert_eq!(float(0.1, b'f', &precise(20)), "0.10000000000000000555");
    assert_eq!(float(0.5, b'g', &precise(0)), "0.5");
    assert_eq!(float(1.0, b'e', &precise(0)), "1e+00");
    assert_eq!(float(f64::MAX, b'f', &precise(99)).len(), 309 + 1 + 99);
    assert_eq!(float(5e-324, b'e', &precise(99)).len(), 1 + 1 + 99 + 5);
    assert_eq!(float(5e-324, b'g', &precise(99)).len(), 1 + 1 + 98 + 5);
    let wide = Flags {
        width: 10,
        ..precise(2)
    };
    assert_eq!(float(3.14559, b'f', &wide), "      3.15");
    assert_eq!(
        float(-3.14559, b'f', &Flags { zero: true, ..wide }),
        "-000003.15"
    );
    assert_eq!(
        float(
            3.14559,
            b'f',
            &Flags {
                left: true,
                zero: true,
                ..wide
            }
        ),
        "3.15      "
    );
    assert_eq!(
        float(3.14559, b'f', &Flags { plus: true, ..wide }),
        "     +3.15"
    );
    assert_eq!(
        float(
            3.14559,
            b'f',
            &Flags {
                space: true,
                ..precise(1)
            }
        ),
        " 3.1"
    );
    assert_eq!(
        float(f64::INFINITY, b'f', &Flags { zero: true, ..wide }),
        "       inf"
    );
    assert_eq!(float(f64::NEG_INFINITY, b'G', &plain), "-INF");
    assert_eq!(float(f64::from_bits(0xfff8 << 48), b'f', &plain), "-nan");
}

#[test]
fn hexadecimal_floats() {
    let plain = Flags::default();
    for (f, expected) in [
        (0.0, "0x0p+0"),
        (1.0, "0x1p+0"),
        (1.5, "0x1.8p+0"),
        (-0.1, "-0x1.999999999999ap-4"),
        (5e-324, "0x0.0000000000001p-1022"),
        (f64::MAX, "0x1.fffffffffffffp+1023"),
    ] {
        assert_eq!(float(f, b'a', &plain), expected);
    }
    assert_eq!(float(1.5, b'a', &precise(0)), "0x2p+0");
    assert_eq!(float(2.5, b'a', &precise(0)), "0x1p+1");
    assert_eq!(float(1.96875, b'a', &precise(1)), "0x2.0p+0");
    assert_eq!(float(1.5, b'A', &precise(3)), "0X1.800P+0");
    assert_eq!(float(1.0, b'a', &precise(15)), "0x1.000000000000000p+0");
    assert_eq!(
        float(
            1.5,
            b'a',
            &Flags {
                zero: true,
                width: 12,
                ..plain
            }
        ),
        "0x00001.8p+0"
    );
    let mut mix = Mix(4);
    for _ in 0..10_000 {
        let f = f64::from_bits(mix.next());
        if f.is_finite() {
            let text = float(f, b'a', &plain);
            assert!(
                matches!(parse(text.as_bytes()), Some(Number::Float(g)) if g.to_bits() == f.to_bits()),
                "{text}"
            );
        }
    }
}

#[test]
fn integer_conversions() {
    let plain = Flags::default();
    assert_eq!(integer(MIN, b'd', &plain), "-9223372036854775808");
    assert_eq!(integer(-1, b'x', &plain), "ffffffffffffffff");
    assert_eq!(
        integer(
            255,
            b'X',
            &Flags {
                alternate: true,
                ..plain
            }
        ),
        "0XFF"
    );
    assert_eq!(
        integer(
            0,
            b'x',
            &Flags {
                alternate: true,
                ..plain
            }
        ),
        "0"
    );
    assert_eq!(
        integer(
            8,
            b'o',
            &Flags {
                alternate: true,
                ..plain
            }
        ),
        "010"
    );
    assert_eq!(
        integer(
            0,
            b'o',
            &Flags {
                alternate: true,
                ..plain
            }
        ),
        "0"
    );
    assert_eq!(
        integer(
            8,
            b'o',
            &Flags {
                alternate: true,
                ..precise(3)
            }
        ),
        "010"
    );
    assert_eq!(integer(-1, b'u', &plain), "18446744073709551615");
    assert_eq!(integer(5, b'd', &precise(3)), "005");
    assert_eq!(integer(0, b'd', &precise(0)), "");
    assert_eq!(
        integer(
            0,
            b'd',
            &Flags {
                plus: true,
                ..precise(0)
            }
        ),
        "+"
    );
    assert_eq!(
        integer(
            0,
            b'o',
            &Flags {
                alternate: true,
                ..precise(0)
            }
        ),
        "0"
    );
    assert_eq!(
        integer(
            -5,
            b'd',
            &Flags {
                width: 8,
                ..precise(3)
            }
        ),
        "    -005"
    );
    assert_eq!(
        integer(
            -5,
            b'd',
            &Flags {
                width: 8,
                zero: true,
                ..plain
            }
        ),
        "-0000005"
    );
    assert_eq!(
        integer(
            -5,
            b'd',
            &Flags {
                width: 8,
                zero: true,
                ..precise(3)
            }
        ),
        "    -005"
    );
    assert_eq!(
        integer(
            5,
            b'd',
            &Flags {
                width: 5,
                left: true,
                plus: true,
                ..plain
            }
        ),
        "+5   "
    );
    assert_eq!(
        integer(
            10,
            b'x',
            &Flags {
                width: 8,
                zero: true,
                alternate: true,
                ..plain
            }
        ),
        "0x00000a"
    );
    assert_eq!(
        integer(
            MIN,
            b'd',
            &Flags {
                width: 99,
                ..precise(99)
            }
        )
        .len(),
        100
    );
    assert_eq!(
        integer(
            -1,
            b'o',
            &Flags {
                alternate: true,
                ..precise(99)
            }
        )
        .len(),
        99
    );
}

#[test]
fn round_trips() {
    let mut mix = Mix(5);
    for round in 0..20_000u32 {
        let i = (mix.next() as i64) >> (round % 64);
        assert_eq!(parse(integer_text(i).as_bytes()), Some(Number::Integer(i)));
        let f = f64::from_bits(mix.next());
        if f.is_finite() {
            // 17 significant digits identify a double.
            let text = float(f, b'g', &precise(17));
            assert_eq!(
                parse(text.as_bytes()).map(|n| n.to_float().to_bits()),
                Some(f.to_bits()),
                "{text}"
            );
            let short = float_text(f);
            let Some(Number::Float(back)) = parse(short.as_bytes()) else {
                panic!("{short}")
            };
            assert!(
                (back - f).abs() <= f.abs() * 1e-13 || f.abs() < f64::MIN_POSITIVE,
                "{short} {f:e}"
            );
        }
        // Small integral floats take a path of their own.
        let integral = ((mix.next() as i64) >> (16 + round % 48)) as f64;
        let mut general = float(integral, b'g', &precise(14));
        if general.bytes().all(|b| b == b'-' || b.is_ascii_digit()) {
            general.push_str(".0");
        }
        assert_eq!(float_text(integral).as_str(), general);
    }
}
