//! Source texts that are no programs: what is repeated a hundred thousand times, and programs with damage. The compiler must neither
//! panic nor overflow the stack that a core has, in a time that grows with the text's length only; what compiles passes the verifier.

use std::time::{Duration, Instant};

use crate::random::Random;

/// Three quarters of the stack of a core, on the host and in the kernel: the rest is for what lies below the compiler.
const STACK: usize = 384 << 10;

/// What is repeated: before, again and again, in the middle, again and again, behind.
pub const REPEATED: &[[&str; 5]] = &[
    ["x=", "(", "1", ")", ""],
    ["x=", "{", "", "}", ""],
    ["x=", "a[", "1", "]", ""],
    ["x=", "f(", "", ")", ""],
    ["x=", "- ", "1", "", ""],
    ["x=", "not ", "1", "", ""],
    ["x=", "#", "1", "", ""],
    ["x=", "~", "1", "", ""],
    ["", "do ", "", " end", ""],
    ["", "function f() ", "", " end", ""],
    ["x=", "function() return ", "1", " end", ""],
    ["", "if x then ", "", " end", ""],
    ["if x then ", "elseif y then ", "", "", "end"],
    ["", "while x do ", "", " end", ""],
    ["", "repeat ", "", " until x", ""],
    ["", "for i=1,2 do ", "", " end", ""],
    ["", "for k in x do ", "", " end", ""],
    ["", "parallel for i=1,2 do ", "", " end", ""],
    ["", "do local a<close> = nil ", "", " end", ""],
    ["x=", "a[f(function(...) return ", "1", " end)]", ""],
    ["x=", "a:m{k=function() return ", "1", " end}", ""],
    [
        "while ",
        "f(function() while ",
        "x",
        " do end end)",
        " do end",
    ],
    [
        "local s = 0 ",
        "parallel for i=1,2 reduce s + do ",
        "",
        " end",
        "",
    ],
    ["x=a", ".b", "", "", ""],
    ["x=a", ":b()", "", "", ""],
    ["x=f", "()", "", "", ""],
    ["x=f", "{}", "", "", ""],
    ["x=", "2^", "1", "", ""],
    ["x=", "a..", "'1'", "", ""],
    ["x=", "a+", "1", "", ""],
    ["x=", "a and ", "1", "", ""],
    ["x=", "(a and b or ", "c", ")", ""],
    ["if ", "a<b or ", "c", "", " then end"],
    ["x=", "1,", "1", "", ""],
    ["", "a,", "a=1", "", ""],
    ["local ", "a,", "a=1", "", ""],
    ["x={", "1,", "", "", "}"],
    ["x={", "a=1,", "", "", "}"],
    ["f(", "1,", "1", "", ")"],
    ["function f(", "a,", "a", "", ") end"],
    ["", "::l:: ", "", "", ""],
    ["", "goto l ", "", "", "::l::"],
    ["", "::a:: do goto a end ", "", "", ""],
    ["", "function f() end ", "", "", ""],
    ["", "function f() return g() end ", "", "", ""],
    ["", "local a = 1 ", "", "", ""],
    ["", "struct S x: S ", "", "end", ""],
    ["local x: ", "S[", "", "]", ""],
    ["", "do return end ", "", "", ""],
    ["", "x = = 1\n", "", "", ""],
    ["", "f(g())\n", "", "", ""],
    [
        "",
        "do local a = 1 x = function() a = a + 1 end end ",
        "",
        "",
        "",
    ],
    ["while x do ", "do break end ", "", "", "end"],
    ["", "--[[ ", "", "", ""],
    ["x='", "\\z  ", "", "", "'"],
    ["x=", "9", "", "", ""],
    ["x=0x", "f", "", "", ""],
    ["x=1e", "9", "", "", ""],
    ["", "\n", "", "", ""],
    ["", "@ ", "", "", ""],
];

/// One of [`REPEATED`], `count` times; without what closes it if `open`.
pub fn repeated(form: &[&str; 5], count: usize, open: bool) -> String {
    let [before, again, middle, close, behind] = form;
    let mut text = String::from(*before) + &again.repeat(count);
    if !open {
        text += middle;
        text += &close.repeat(count);
        text += behind;
    }
    text
}

/// A text that names `count` labels, and goes to each before.
pub fn labels(count: usize) -> String {
    let gotos = (0..count).map(|i| format!("goto l{i} "));
    gotos
        .chain((0..count).map(|i| format!("::l{i}:: ")))
        .collect()
}

/// Compiles on a stack like a core's; verifies what compiles.
///
/// # Errors
/// What is wrong: the compiler's output is refused, or it took longer than `limit`.
pub fn check(source: &[u8], limit: Duration) -> Result<(), String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let compile = || {
            let start = Instant::now();
            if let Ok(function) = vua::compile::compile(source, "fuzz") {
                vua::bytecode::verify(&function).map_err(|error| format!("refused: {error}"))?;
            }
            let took = start.elapsed();
            if took > limit {
                Err(format!("{took:?} for {} bytes", source.len()))
            } else {
                Ok(())
            }
        };
        let thread = thread
            .spawn_scoped(scope, compile)
            .map_err(|error| error.to_string())?;
        thread
            .join()
            .unwrap_or_else(|_| Err("the compiler panics".into()))
    })
}

/// What a word may become.
const TOKENS: &[&str] = &[
    "and",
    "break",
    "do",
    "else",
    "elseif",
    "end",
    "false",
    "for",
    "function",
    "goto",
    "if",
    "in",
    "local",
    "nil",
    "not",
    "or",
    "repeat",
    "return",
    "then",
    "true",
    "until",
    "while",
    "struct",
    "parallel",
    "packed",
    "from",
    "reduce",
    "reg",
    "f64",
    "any",
    "u8",
    "ref",
    "<const>",
    "<close>",
    "...",
    "..",
    "::",
    ":",
    ";",
    ",",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "=",
    "==",
    "~=",
    "<=",
    "//",
    "<<",
    ">>",
    "%",
    "^",
    "#",
    "&",
    "~",
    "|",
    "'",
    "\"",
    "[[",
    "]]",
    "--[[",
    "--",
    "0x",
    "1e",
    "9223372036854775808",
    "0.5",
    "_ENV",
    "self",
    "x",
    "?",
];

/// A text with some damage: to its bytes, or to its words.
pub fn damage(text: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..random.between(1, 4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = random.below(bytes.len());
        let length = random.between(1, 40).min(bytes.len() - at);
        match random.below(8) {
            0 => bytes[at] = random.bits() as u8,
            1 => drop(bytes.drain(at..at + length)),
            2 => {
                let copy = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            3 if !other.is_empty() => {
                let from = random.below(other.len());
                let piece = &other[from..(from + length).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            4 => bytes.truncate(at),
            _ => {
                // The word at `at`, or the place before it.
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let end = at + bytes[at..].iter().take_while(|byte| is_word(byte)).count();
                let token = random.pick(TOKENS);
                bytes.splice(at..end, format!(" {token} ").into_bytes());
            }
        }
    }
    bytes
}
