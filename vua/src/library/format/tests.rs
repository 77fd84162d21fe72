use alloc::string::ToString;

use super::*;

fn parse(text: &str, allowed: &[u8], precision: bool) -> Result<Flags, alloc::string::String> {
    Directive::at(text.as_bytes())
        .and_then(|d| d.flags(allowed, precision))
        .map_err(|e| e.to_string())
}

#[test]
fn modifiers() {
    let plain = Flags::default();
    assert_eq!(parse("%d", INTEGER_FLAGS, true), Ok(plain));
    assert_eq!(
        parse("%5.2f", FLOAT_FLAGS, true),
        Ok(Flags {
            width: 5,
            precision: Some(2),
            ..plain
        })
    );
    assert_eq!(
        parse("%-+ #010.3g", FLOAT_FLAGS, true),
        Ok(Flags {
            left: true,
            plus: true,
            space: true,
            alternate: true,
            zero: true,
            width: 10,
            precision: Some(3)
        })
    );
    assert_eq!(
        parse("%.f", FLOAT_FLAGS, true),
        Ok(Flags {
            precision: Some(0),
            ..plain
        })
    );
    assert_eq!(
        parse("%99s", TEXT_FLAGS, true),
        Ok(Flags { width: 99, ..plain })
    );
    assert_eq!(
        parse("%010d", INTEGER_FLAGS, true),
        Ok(Flags {
            zero: true,
            width: 10,
            ..plain
        })
    );
}

#[test]
fn errors() {
    let bad = "invalid conversion specification: ";
    for (text, allowed, precision) in [
        ("%100d", INTEGER_FLAGS, true),
        ("%.100f", FLOAT_FLAGS, true),
        ("%#d", INTEGER_FLAGS, true),
        ("%010c", TEXT_FLAGS, false),
        ("%.10c", TEXT_FLAGS, false),
        ("%0.34s", TEXT_FLAGS, true),
        ("%1.2.3f", FLOAT_FLAGS, true),
        ("%", INTEGER_FLAGS, true),
        ("%5", INTEGER_FLAGS, true),
    ] {
        assert_eq!(
            parse(text, allowed, precision),
            Err(alloc::format!("{bad}'{text}'"))
        );
    }
    assert_eq!(
        parse("%0000000000000000000000d", INTEGER_FLAGS, true),
        Err("invalid format (too long)".to_string())
    );
    let unknown = Directive::at(b"%5y and more").unwrap();
    assert_eq!(
        unknown.unknown().to_string(),
        "invalid conversion '%5y' to 'format'"
    );
    assert_eq!(Directive::at(b"%").unwrap().conversion, 0);
}
