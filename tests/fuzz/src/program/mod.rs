//! Random programs from the grammar, all of which end and print what they compute.
//!
//! What they use of the language is defined alike by Lua 5.4 and by Vua: no arithmetic on strings, no addresses, no order of keys, no
//! length of a table with holes, no order function that contradicts itself. Every loop and every function takes a unit of fuel, whose end is an error, so
//! every program ends; strings are cut when they are stored, so none grows beyond bounds.
//!
//! | file | what |
//! | --- | --- |
//! | this one | variables in scope, values at the edges |
//! | [`statement`] | statements and function bodies |
//! | [`expression`] | expressions, by what they should give |

mod expression;
mod statement;

use crate::random::Random;
use crate::tree::Node;

/// What an expression should give. Now and then it gives something else, to see the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An integer.
    Integer,
    /// An integer or a float.
    Number,
    /// A string.
    Str,
    /// `true` or `false`.
    Boolean,
    /// A table with some of the fields of [`FIELDS`], and perhaps a metatable.
    Record,
    /// A table of integers from 1 on.
    List,
    /// A function of this many numbers that gives a number first.
    Function(u8),
    /// Anything.
    Any,
}

/// Fields of records, and what they hold.
const FIELDS: &[(&str, Kind)] = &[
    ("x", Kind::Number),
    ("y", Kind::Integer),
    ("s", Kind::Str),
    ("l", Kind::List),
    ("r", Kind::Record),
    ("f", Kind::Function(1)),
    ("m", Kind::Function(2)),
];

/// Integers at which something changes: the width of inline integers (48 bits), of a float's fraction, of a word.
const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "5",
    "7",
    "10",
    "63",
    "64",
    "65",
    "127",
    "128",
    "255",
    "256",
    "1000",
    "32767",
    "32768",
    "65536",
    "0x7fffffff",
    "0x80000000",
    "0xffffffff",
    "(1<<46)",
    "(1<<47)-1",
    "(1<<47)",
    "-(1<<47)",
    "-(1<<47)-1",
    "(1<<48)",
    "(1<<53)",
    "(1<<53)+1",
    "(1<<62)",
    "math.maxinteger",
    "math.mininteger",
    "math.maxinteger-1",
    "math.mininteger+1",
    "0xffffffffffffffff",
    "9223372036854775807",
    "-9223372036854775807",
];

/// Floats at which something changes.
const FLOATS: &[&str] = &[
    "0.0",
    "-0.0",
    "1.0",
    "-1.0",
    "0.5",
    "1.5",
    "-2.5",
    "2.0",
    "3.25",
    "1e15",
    "1e16",
    "1e100",
    "-1e100",
    "2^53",
    "2^53+1",
    "2^63",
    "-2^63",
    "-(2^63)",
    "2^62",
    "1e308",
    "5e-324",
    "2.2250738585072014e-308",
    "math.huge",
    "-math.huge",
    "(0/0)",
    "0x1p-1",
    "0x.8p1",
    "3.0e0",
    "9007199254740993.0",
    "0.1",
    "1e1",
    "123456789012345.0",
    "9223372036854775808",
    "255.0",
];

/// Contents of strings.
const STRINGS: &[&str] = &[
    "''",
    "'a'",
    "'abc'",
    "'hello world'",
    "\"it's\"",
    "[[long]]",
    "[==[a]]b]==]",
    "'\\n'",
    "'\\0x'",
    "'x\\z  y'",
    "'\\65\\x42'",
    "'\\u{48}\\u{20AC}'",
    "'%d'",
    "'a,b,,c'",
    "'key'",
    "'  pad '",
    "'\\255\\128'",
    "'AbC'",
    "'[x]'",
    "'a.b'",
    "'aaa'",
    "'x=1'",
];

/// How many variables an expression chooses from: the latest.
const IN_SIGHT: usize = 14;

#[derive(Clone, Debug)]
struct Variable {
    name: String,
    kind: Kind,
    constant: bool,
    /// Functions within the one that declares it may assign it. It is then read by a call: whether an operand that is a variable is
    /// read before or after an operand that changes it is nowhere defined.
    shared: bool,
    /// How many functions are around its declaration.
    level: usize,
}

/// What encloses a statement.
#[derive(Clone, Copy, Debug, Default)]
struct Context {
    in_loop: bool,
    /// Blocks around it.
    depth: usize,
}

struct Generator {
    random: Random,
    scope: Vec<Variable>,
    context: Context,
    /// Functions around the place where the generator is.
    level: usize,
    names: usize,
    /// Statements that may still be made.
    budget: usize,
}

/// A program.
pub fn program(seed: u64) -> Node {
    let mut random = Random::new(seed);
    let budget = random.between(4, 45);
    let mut generator = Generator {
        random,
        scope: Vec::new(),
        context: Context::default(),
        level: 0,
        names: 0,
        budget,
    };
    generator.main()
}

impl Generator {
    fn fresh(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn declare(&mut self, name: &str, kind: Kind, constant: bool) {
        self.scope.push(Variable {
            name: name.to_owned(),
            kind,
            constant,
            shared: false,
            level: self.level,
        });
    }

    /// A variable that may be assigned here.
    fn assignable(&mut self, fits: impl Fn(&Variable) -> bool) -> Option<Variable> {
        let level = self.level;
        self.variable(|v| !v.constant && (v.shared || v.level == level) && fits(v))
    }

    /// A variable in sight that `fits`.
    fn variable(&mut self, fits: impl Fn(&Variable) -> bool) -> Option<Variable> {
        let first = self.scope.len().saturating_sub(IN_SIGHT);
        let found: Vec<&Variable> = self.scope[first..].iter().filter(|v| fits(v)).collect();
        if found.is_empty() {
            return None;
        }
        Some((*found[self.random.below(found.len())]).clone())
    }

    /// How a variable is read.
    fn read(variable: Variable) -> Node {
        let text = if variable.shared {
            format!("R({})", variable.name)
        } else {
            variable.name
        };
        Node::Expression(vec![Node::Text(text)])
    }

    fn kind(&mut self) -> Kind {
        self.random.weighted(&[
            (6, Kind::Integer),
            (5, Kind::Number),
            (5, Kind::Str),
            (1, Kind::Boolean),
            (3, Kind::Record),
            (3, Kind::List),
            (2, Kind::Function(1)),
            (1, Kind::Function(2)),
        ])
    }
}
