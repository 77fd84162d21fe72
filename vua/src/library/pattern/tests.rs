use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use super::*;

/// What `string.find` gives, with the fuel doled out in portions: start and end from 1, then the captures.
fn find_in_portions(
    subject: &[u8],
    pattern: &[u8],
    init: usize,
    portion: usize,
) -> Result<Option<Vec<String>>, PatternError> {
    let mut matcher = Matcher::new(pattern, init, true);
    loop {
        let mut fuel = portion;
        match matcher.find(subject, pattern, &mut fuel)? {
            Progress::OutOfFuel => {}
            Progress::NoMatch => return Ok(None),
            Progress::Match { start, end } => {
                let mut found = vec![(start + 1).to_string(), end.to_string()];
                for i in 0..matcher.level() {
                    found.push(match matcher.capture(i, start, end)? {
                        Capture::Position(at) => format!("@{}", at + 1),
                        Capture::Span(from, to) => {
                            String::from_utf8_lossy(&subject[from..to]).into_owned()
                        }
                    });
                }
                return Ok(Some(found));
            }
        }
    }
}

fn find(subject: &str, pattern: &str) -> Result<Option<Vec<String>>, PatternError> {
    let all = find_in_portions(subject.as_bytes(), pattern.as_bytes(), 0, usize::MAX);
    for portion in [1, 2, 3, 7] {
        assert_eq!(
            find_in_portions(subject.as_bytes(), pattern.as_bytes(), 0, portion),
            all,
            "{pattern:?} in portions of {portion}"
        );
    }
    all
}

#[test]
fn matches() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("", "", &["1", "0"]),
        ("alo", "", &["1", "0"]),
        ("a\0o a\0o a\0o", "a", &["1", "1"]),
        ("a\0a\0a\0a\0\0ab", "\0ab", &["9", "11"]),
        ("alo123alo", "12", &["4", "5"]),
        ("alo123alo", "^al", &["1", "2"]),
        ("aaab", "a*", &["1", "3"]),
        ("aaa", "^.*$", &["1", "3"]),
        ("aaa", "b*", &["1", "0"]),
        ("aaa", "ab*a", &["1", "2"]),
        ("aba", "ab*a", &["1", "3"]),
        ("aaab", "a+", &["1", "3"]),
        ("aaab", "^.+$", &["1", "4"]),
        ("aaa", "b?", &["1", "0"]),
        ("aaa", "ab?a", &["1", "2"]),
        ("aba", "ab?a", &["1", "3"]),
        ("a$a", "$", &["4", "3"]),
        ("a$a", "$.", &["2", "3"]),
        ("aaa", ".-$", &["1", "3"]),
        ("aaab", "a-b", &["1", "4"]),
        ("0alo alo", "%x*", &["1", "2"]),
        ("alo alo", "%C+", &["1", "7"]),
        ("(álo)", "%(á", &["1", "3"]),
        ("  alo  ", "^%s*(.-)%s*$", &["1", "7", "alo"]),
        (
            "key = value",
            "(%w+)%s*=%s*(%w+)",
            &["1", "11", "key", "value"],
        ),
        ("hello", "()ll()", &["3", "4", "@3", "@5"]),
        (
            "alo wo",
            "(()(.)(()))",
            &["1", "1", "a", "@1", "a", "", "@2"],
        ),
        ("THE (quick) fox", "%((%a+)%)", &["5", "11", "quick"]),
        ("f(a(b)c)d", "%b()", &["2", "8"]),
        ("((", "%b()?", &[]),
        ("alo 'x' \"y'z\" w", "([\"'])(.-)%1", &["5", "7", "'", "x"]),
        (
            "=[[ ]==] ]]",
            "%[(=*)%[(.-)%]%1%]",
            &["2", "11", "", " ]==] "],
        ),
        ("THE (quick) fox", "%f[%a]%a+%f[%A]", &["1", "3"]),
        ("foo", "%f[%w]foo%f[%W]", &["1", "3"]),
        ("[a]", "[]]", &["3", "3"]),
        ("a-b", "[a-]", &["1", "1"]),
        ("-", "[a-]", &["1", "1"]),
        ("]", "[^a]", &["1", "1"]),
        ("^", "[a^]", &["1", "1"]),
        ("x-y", "[%a-z]+", &["1", "3"]),
        ("%", "%%", &["1", "1"]),
        ("0123456789", "[0-46-9]+", &["1", "5"]),
        ("abc\n", "%c", &["4", "4"]),
        ("x^y", "x^", &["1", "2"]),
        ("a*b", "a%*b", &["1", "3"]),
        ("aXb", "%u", &["2", "2"]),
        ("aXb", "%U+", &["1", "1"]),
        ("éé", "é+", &["1", "2"]),
        ("ab", "(a)(b)%2", &[]),
        ("abb", "(a)(b)%2", &["1", "3", "a", "b"]),
        ("abab", "^(ab)%1$", &["1", "4", "ab"]),
        ("a", "()%1", &[]),
        ("aab", "(a-)b", &["1", "3", "aa"]),
        ("xuxx uu ppar r", "()(.)%2", &["3", "4", "@3", "x"]),
    ];
    for (subject, pattern, expected) in cases {
        let found = find(subject, pattern).unwrap_or_else(|e| panic!("{pattern:?}: {e}"));
        let found = found.unwrap_or_default();
        assert_eq!(found, *expected, "{subject:?} {pattern:?}");
    }
}

#[test]
fn errors() {
    let cases: &[(&str, &str, &str)] = &[
        ("a", "%", "malformed pattern (ends with '%')"),
        ("a", "[", "malformed pattern (missing ']')"),
        ("a", "[]", "malformed pattern (missing ']')"),
        ("a", "[^]", "malformed pattern (missing ']')"),
        ("a", "[a%]", "malformed pattern (missing ']')"),
        ("a", "[a%", "malformed pattern (missing ']')"),
        ("a", "%b", "malformed pattern (missing arguments to '%b')"),
        ("a", "%ba", "malformed pattern (missing arguments to '%b')"),
        ("a", "%f", "missing '[' after '%f' in pattern"),
        ("a", "%fa", "missing '[' after '%f' in pattern"),
        ("a", "%1", "invalid capture index %1"),
        ("a", "%0", "invalid capture index %0"),
        ("a", "(%1)", "invalid capture index %1"),
        ("a", "a)", "invalid pattern capture"),
        ("a", "(a", "unfinished capture"),
    ];
    for (subject, pattern, message) in cases {
        match find(subject, pattern) {
            Err(error) => assert_eq!(error.to_string(), *message, "{pattern:?}"),
            Ok(found) => panic!("{pattern:?} gave {found:?}"),
        }
    }
    assert_eq!(
        find("", &"()".repeat(33)),
        Err(PatternError::TooManyCaptures)
    );
    assert!(find("", &"()".repeat(32)).is_ok());
    assert_eq!(
        find(&"a".repeat(300), &"a?".repeat(300)),
        Err(PatternError::TooComplex)
    );
    assert!(find(&"a".repeat(300), &"a".repeat(300)).is_ok());
}

#[test]
fn long_subjects_need_no_depth() {
    let subject = vec![b'a'; 1 << 20];
    for pattern in [&b".-b"[..], b"a*b", b".*$", b"(a+)%1", b"%bab", b"[^b]*"] {
        let whole = find_in_portions(&subject[..1 << 10], pattern, 0, usize::MAX);
        assert_eq!(
            whole,
            find_in_portions(&subject[..1 << 10], pattern, 0, 100),
            "{pattern:?}"
        );
    }
    assert!(
        find_in_portions(&subject, b"^.*$", 0, 4096)
            .unwrap()
            .is_some()
    );
    assert!(
        find_in_portions(&subject, b"^.-$", 0, 4096)
            .unwrap()
            .is_some()
    );
    assert!(find_in_portions(&subject, b"b", 0, 4096).unwrap().is_none());
}

#[test]
fn work_between_pauses_is_bounded() {
    // Quadratic: without pauses it would run for half a million comparisons.
    let subject = vec![b'a'; 1000];
    let mut matcher = Matcher::new(b"a*b", 0, true);
    let mut pauses = 0;
    loop {
        let mut fuel = 1000;
        match matcher.find(&subject, b"a*b", &mut fuel).unwrap() {
            Progress::OutOfFuel => pauses += 1,
            Progress::NoMatch => break,
            Progress::Match { .. } => panic!("matched"),
        }
    }
    assert!(pauses > 500, "{pauses}");
}

#[test]
fn successive_matches() {
    fn all(subject: &str, pattern: &str) -> Vec<(usize, usize)> {
        let mut matcher = Matcher::new(pattern.as_bytes(), 0, false);
        let mut found = Vec::new();
        let mut fuel = usize::MAX;
        while let Progress::Match { start, end } = matcher
            .find(subject.as_bytes(), pattern.as_bytes(), &mut fuel)
            .unwrap()
        {
            found.push((start, end));
            matcher.restart(end, Some(end));
        }
        found
    }
    assert_eq!(all("abc", ""), [(0, 0), (1, 1), (2, 2), (3, 3)]);
    assert_eq!(
        all("hello world", "o*"),
        [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 3),
            (4, 5),
            (6, 6),
            (7, 8),
            (9, 9),
            (10, 10),
            (11, 11)
        ]
    );
    assert_eq!(all("a b  c", "%a+"), [(0, 1), (2, 3), (5, 6)]);
    assert_eq!(all("^a^", "^"), [(0, 1), (2, 3)]);
    assert_eq!(all("", "x"), []);
}

#[test]
fn plain_patterns() {
    assert!(is_plain(b""));
    assert!(is_plain(b"abc]){"[..3].as_ref()));
    for special in b"^$*+?.([%-" {
        assert!(!is_plain(&[b'a', *special]));
    }
}

#[test]
fn replacements() {
    use Replacement::{Capture, Text, Whole};
    let pieces = |text: &'static str| replacement(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    assert_eq!(pieces(""), Ok(vec![]));
    assert_eq!(pieces("ab"), Ok(vec![Text(b"ab")]));
    assert_eq!(
        pieces("<%0>%%%9"),
        Ok(vec![Text(b"<"), Whole, Text(b">"), Text(b"%"), Capture(8)])
    );
    assert_eq!(pieces("a%"), Err(PatternError::InvalidReplacement));
    assert_eq!(pieces("%x"), Err(PatternError::InvalidReplacement));
}
