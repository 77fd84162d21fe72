//! Expressions, from templates: `$i` in one stands for an expression that gives an integer, and so on (see [`kind_of`]).

use super::{FIELDS, FLOATS, Generator, INTEGERS, Kind, STRINGS};
use crate::tree::Node;

const INTEGER: &[&str] = &[
    "$i + $i",
    "$i - $i",
    "$i * $i",
    "$i // $i",
    "$i % $i",
    "$i & $i",
    "$i | $i",
    "$i ~ $i",
    "$i << $i",
    "$i >> $j",
    "-$i",
    "~$i",
    "#$s",
    "#$l",
    "$s:byte($j)",
    "$s:len()",
    "math.tointeger($n)",
    "select('#', $a, $a)",
    "math.abs($i)",
    "math.max($i, $i, $i)",
    "math.min($i, $i)",
    "string.len($s)",
    "utf8.len($s)",
    "tonumber($s, 16)",
    "math.floor($n)",
    "math.ceil($n)",
    "$l[$j]",
    "$l[#$l]",
    "$i // $k",
    "$i % -$k",
    "$b and $i or $i",
    "$i + 1",
    "$i - 1",
    "$i * 2",
    "$i << 1",
    "$i >> 1",
    "$i & 0xff",
    "1 << $i",
    "$r.y",
    "rawlen($l)",
    "#table.pack($a, $a, $i)",
    "$s:find($s, 1, true)",
    "$s:find($p)",
    "string.unpack('<i4', string.pack('<i4', $k))",
    "utf8.codepoint($s, $j)",
    "utf8.offset($s, $j)",
    "(select($k, $i, $i, $i))",
    "tonumber(tostring($i))",
    "$i | $n",
    "$i ~ $n",
    "table.unpack($l)",
    "rawget($l, $j)",
    "math.ult($i, $i) and 1 or 2",
    "string.byte($s)",
    "$i // 1",
    "$i % 7",
    "$i >> 63",
    "$i ~ -1",
    "tostring($i):len()",
    "next({$i})",
    "$r['y']",
    "#{$i, $i, $i}",
    "({$i, $i})[2]",
    "math.fmod($i, $i)",
];

const NUMBER: &[&str] = &[
    "$n + $n",
    "$n - $n",
    "$n * $n",
    "$n / $n",
    "$n // $n",
    "$n % $n",
    "$n ^ 2",
    "-$n",
    "$n + 1",
    "$n - 0.5",
    "$n * 2",
    "$n / 3",
    "$n // 1",
    "$n % 1",
    "$n % -3",
    "$n // 0.0",
    "$n % math.huge",
    "math.fmod($n, $n)",
    "math.abs($n)",
    "math.max($n, $n)",
    "math.min($n, $n)",
    "math.sqrt($n)",
    "math.modf($n)",
    "select(2, math.modf($n))",
    "tonumber($s)",
    "tonumber(tostring($n))",
    "$r.x",
    "$f($n)",
    "$i",
    "$i",
    "$r['x']",
    "$n + 1.0",
    "2 ^ $k",
    "1 / $n",
    "$n - $i",
    "$i / $i",
    "$b and $n or $n",
    "(function(...) return ... end)($n)",
    "$n * -1",
    "0 - $n",
    "3 // $n",
    "3 % $n",
    "-7 // $n",
    "-7 % $n",
    "1e308 * $n",
    "$g($n, $n)",
    "$n // $k",
    "math.tointeger($n) or $n",
    "math.floor($n)",
    "($n)",
    "pcall($f, $n) and 1 or 0",
    "$r.m($n, $n)",
    "$r:m($n)",
    "$r.f($n)",
];

const STR: &[&str] = &[
    "$s .. $s",
    "$s .. $i",
    "$n .. $s",
    "$s .. $n .. $s",
    "$s:sub($j, $j)",
    "$s:sub($j)",
    "$s:upper()",
    "$s:lower()",
    "$s:reverse()",
    "$s:rep($k)",
    "$s:rep($k, $s)",
    "tostring($n)",
    "tostring($b)",
    "string.format('%d', $i)",
    "('%5.1f'):format($n)",
    "('%q'):format($s)",
    "type($a)",
    "table.concat($l, $s)",
    "table.concat($l, ',', $j, $j)",
    "($s:gsub($p, $q))",
    "($s:gsub($p, '%0%0', $k))",
    "string.char($c, $c)",
    "utf8.char($c)",
    "math.type($a)",
    "string.format('%s|%s', $a0, $a0)",
    "string.format('%x', $i)",
    "('%g'):format($n)",
    "string.format('%-5s|%5s', $s, $s)",
    "string.format('%+d % d %05d', $i, $i, $i)",
    "string.format('%.3s', $s)",
    "$s:match($p)",
    "select(2, pcall(error, $s))",
    "$r.s",
    "$s and $s",
    "$s or $s",
    "nil or $s",
    "$b and $s or $s",
    "string.format('%i', $n)",
    "(select($k, $s, $s))",
    "string.pack('z', $s)",
    "string.pack('>I2', $k)",
    "string.format('%5d', $i)",
    "string.format('%e', $n)",
    "string.format('%.14g', $n)",
    "string.format('%q', $n)",
    "string.format('%c', $c)",
    "$s:gsub('%w', $h)",
    "$s:format($i)",
    "$r['s']",
    "tostring(nil) .. $s",
    "select(-1, $s, $s)",
    "('x'):rep($k) .. $s",
    "string.format('%a', $n)",
    "string.format('%o', $i)",
    "_VERSION:sub(1, 3)",
    "string.format('%10.4f', $n)",
    "$s:gsub($p, {a = 'A', [' '] = '_', b = false})",
    "tostring($i)",
    "table.concat({$s, $i, $s}, $s)",
];

const BOOLEAN: &[&str] = &[
    "$n < $n",
    "$n <= $n",
    "$n > $n",
    "$n >= $n",
    "$n == $n",
    "$n ~= $n",
    "$i < $i",
    "$i <= $i",
    "$i == $n",
    "$i < $n",
    "$n <= $i",
    "$s < $s",
    "$s <= $s",
    "$s == $s",
    "$s ~= $s",
    "not $a",
    "$b and $b",
    "$b or $b",
    "$a == $a",
    "$i == 0",
    "$i < 10",
    "$n >= 0",
    "$n ~= 1.0",
    "$s == 'a'",
    "$a == nil",
    "$r == $r",
    "rawequal($a, $a)",
    "math.ult($i, $i)",
    "$n < 3",
    "0 < $n",
    "-1 >= $n",
    "$r.x == $n",
    "not not $a",
    "$l == $l",
    "$r < $r",
    "$r <= $n",
    "$n < $n == $b",
    "$i > 0 and $i < 100",
    "$n ~= $n",
    "$n == 2^53",
    "math.type($n) == 'float'",
    "pcall($f, $n)",
];

const LIST: &[&str] = &[
    "{}",
    "Ints({$i, $i, $i})",
    "{$i}",
    "Ints({$i, $i; $i, $i,})",
    "table.move($l, 1, #$l, 1, {})",
    "Ints({$i, $i, $i, $i})",
    "$r.l",
    "Ints({[1] = $i, [2] = $i})",
    "{table.unpack(Ints($l))}",
    "Ints({$s:byte(1, -1)})",
    "Ints({$i, table.unpack({$i, $i})})",
    "{(table.unpack({$i, $i}))}",
];

const RECORD: &[&str] = &[
    "{}",
    "{x = $n}",
    "{x = $n, y = $i, s = $s}",
    "{['s'] = $s, x = $n; y = $i}",
    "{f = $f, x = $n}",
    "{m = $g, x = $n, s = $s}",
    "{l = $l, x = $n}",
    "Object($n)",
    "Object($i)",
    "Object($n) + $n",
    "Object($n) .. $s",
    "-Object($n)",
    "Object($n) - Object($n)",
    "setmetatable({}, {__index = $r})",
    "setmetatable({}, {__index = function(t, k) return $n end})",
    "$r.r",
    "Object($n) // $r",
    "$n * Object($n)",
    "Object($i) & $i",
    "~Object($i)",
    "setmetatable({x = $n}, {__call = $f2, __len = function() return $i end})",
    "$b and $r or $r",
];

const ANY: &[&str] = &[
    "nil",
    "$i",
    "$n",
    "$s",
    "$b",
    "$r",
    "$l",
    "$f",
    "$r.x",
    "$r.nothing",
    "$l[$j]",
    "#$r",
    "$f($a)",
    "$g($n)",
    "$r[$s]",
    "$r[$n]",
    "rawget($r, $s)",
    "pcall($f, $n)",
    "$r.r.r.x",
    "select($k, $a, $a, $a)",
    "$b or $a",
    "$a and $a",
    "(select(2, pcall(error, $a)))",
    "$r:m($a)",
    "type(next($l))",
    "getmetatable($s).__index == string",
    "getmetatable($r)",
    "$f",
    "next({})",
    "$s.len",
    "($s).x",
    "math.pi > 3",
    "tonumber($s)",
    "tostring(nil)",
    "coroutine.isyieldable()",
    "type($r)",
    "undefined",
    "undefined.x",
    "$i.x",
    "$l.x.y",
    "$n($n)",
    "$r()",
    "$r.x.y",
    "$r < 1",
    "$r .. 'x'",
    "{} .. {}",
    "nil .. 'x'",
    "#nil",
    "-{}",
    "$l + 1",
    "$r & 1",
    "1.5 | 1",
    "2^63 | 0",
    "1 < 'x'",
    "{} < {}",
    "nil < 1",
    "$f(table.unpack($l))",
    "assert($b, $s)",
    "error($s)",
    "error($r)",
    "error($s, 2)",
    "error()",
    "ipairs()",
    "setmetatable(1, {})",
    "('x'):rep(-1)",
    "('x'):bad()",
    "string.rep()",
    "math.floor('a')",
    "math.floor({})",
    "tostring()",
    "$s:sub()",
    "$s:sub({})",
    "table.concat({{}})",
    "table.insert($l, $i, $i, $i)",
    "select(0)",
    "string.char(256)",
    "string.char(-1)",
    "('%d'):format(1.5)",
    "('%d'):format('x')",
    "('%y'):format(1)",
    "utf8.char(-1)",
    "$l[nil]",
    "$i // 0",
    "$i % 0",
    "math.tointeger('8')",
    "tonumber('0x', 16)",
    "tonumber('zz', 36)",
    "tonumber('8', 8)",
    "tonumber(1, 99)",
    "math.random(0) and 1",
    "math.random(2, 1)",
    "rawset($r, 'x', $n)",
    "rawlen(5)",
    "next($l, 99)",
    "$r.f.g.h",
    "$r.s.x.y",
    "$r:nothing()",
    "$s:nothing()",
    "undefined()",
    "undefined:f()",
];

impl Generator {
    /// An expression that should give `kind`, with up to `depth` levels of expressions in it.
    pub(super) fn expression(&mut self, kind: Kind, depth: usize) -> Node {
        // Anything else now and then, but no string where arithmetic may come: there the languages differ.
        if kind != Kind::Any && self.random.one_in(150) {
            // Nor a value whose text is an address.
            let text = self.random.pick(&["nil", "true", "false", "undefined"]);
            return leaf(text);
        }
        if depth == 0 || self.random.one_in(5) {
            return self.atom(kind, depth);
        }
        if self.random.one_in(4)
            && let Some(variable) = self.variable(|v| v.kind == kind || kind == Kind::Any)
        {
            return Generator::read(variable);
        }
        let templates = match kind {
            Kind::Integer => INTEGER,
            Kind::Number => NUMBER,
            Kind::Str => STR,
            Kind::Boolean => BOOLEAN,
            Kind::List => LIST,
            Kind::Record => RECORD,
            Kind::Function(parameters) => return self.function(parameters as usize, depth),
            Kind::Any => ANY,
        };
        let template = self.random.pick(templates);
        let mut parts = self.template(template, depth - 1);
        parts.insert(0, Node::Text("(".into()));
        parts.push(Node::Text(")".into()));
        Node::Expression(parts)
    }

    /// The parts of a template.
    pub(super) fn template(&mut self, template: &str, depth: usize) -> Vec<Node> {
        let mut parts = Vec::new();
        let mut pieces = template.split('$');
        parts.push(Node::Text(pieces.next().unwrap_or_default().into()));
        for piece in pieces {
            let (name, mut rest) = piece.split_at(1);
            let mut node = match name {
                "i" => self.expression(Kind::Integer, depth),
                "n" => self.expression(Kind::Number, depth),
                "s" => self.expression(Kind::Str, depth),
                "b" => self.expression(Kind::Boolean, depth),
                "l" => self.expression(Kind::List, depth),
                "r" => self.expression(Kind::Record, depth),
                "f" if rest.starts_with('2') => {
                    rest = &rest[1..];
                    self.expression(Kind::Function(2), depth)
                }
                "f" => self.expression(Kind::Function(1), depth),
                "g" => self.expression(Kind::Function(2), depth),
                "a" if rest.starts_with('0') => {
                    // What has a form as text that does not depend on the machine.
                    rest = &rest[1..];
                    let kind = self.random.weighted(&[
                        (1, Kind::Integer),
                        (1, Kind::Number),
                        (1, Kind::Str),
                        (1, Kind::Boolean),
                    ]);
                    self.expression(kind, depth)
                }
                "a" => self.expression(Kind::Any, depth),
                "j" => number(self.random.between(0, 14) as i64 - 6),
                "k" => number(self.random.between(0, 5) as i64),
                "c" => number(self.random.between(32, 130) as i64),
                "p" => self.pattern(),
                "q" => leaf(self.random.pick(&[
                    "'<%0>'",
                    "'%1'",
                    "''",
                    "'x'",
                    "'%%'",
                    "string.upper",
                    "{a = 1, b = 'B'}",
                    "function(c) return c .. c end",
                    "function() end",
                    "'%2'",
                    "function(...) return select('#', ...) end",
                    "function() return false end",
                ])),
                "h" => leaf(self.random.pick(&[
                    "string.upper",
                    "function(c) if c > 'm' then return '*' end end",
                    "{}",
                    "'%0%0'",
                ])),
                other => unreachable!("no such hole: {other}"),
            };
            let text = node.text();
            // A literal cannot be indexed or called as it stands.
            let suffixed = rest.starts_with(['.', ':', '[', '(']) && !rest.starts_with("..");
            if suffixed
                && !text.starts_with('(')
                && !text.chars().all(|c| c.is_ascii_alphanumeric())
                || text.starts_with('-') && parts.last().is_some_and(|p| p.text().ends_with('-'))
                || suffixed && text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
            {
                node = Node::Expression(vec![Node::Text("(".into()), node, Node::Text(")".into())]);
            }
            parts.push(node);
            if self.random.one_in(60) && rest.starts_with([' ', ',']) {
                parts.push(Node::Text("\n".into()));
            }
            parts.push(Node::Text(rest.into()));
        }
        parts
    }

    fn pattern(&mut self) -> Node {
        leaf(self.random.pick(&[
            "'a'",
            "'.'",
            "'%a+'",
            "'(%w)(%w)'",
            "'%d*'",
            "'^%s*'",
            "'[a-c]+'",
            "'[^%w]'",
            "'b*'",
            "'()'",
            "'(.)%1'",
            "'%f[%w]%w+'",
            "'%b[]'",
            "'l+$'",
            "'^(.-)%s'",
            "'.-'",
            "'[%]x]'",
            "'a?b'",
            "'%.'",
            "'[%a_]'",
            "'$'",
            "''",
        ]))
    }

    fn atom(&mut self, kind: Kind, depth: usize) -> Node {
        if !self.random.one_in(3)
            && let Some(variable) = self.variable(|v| v.kind == kind || kind == Kind::Any)
        {
            return Generator::read(variable);
        }
        if self.random.one_in(6) && depth > 0 {
            let fields: Vec<&str> = FIELDS.iter().filter(|f| f.1 == kind).map(|f| f.0).collect();
            if let (false, Some(record)) =
                (fields.is_empty(), self.variable(|v| v.kind == Kind::Record))
            {
                let field = fields[self.random.below(fields.len())];
                return Node::Expression(vec![Node::Text(format!("{}.{field}", record.name))]);
            }
        }
        match kind {
            Kind::Integer if self.random.one_in(3) => {
                leaf(&format!("({})", self.random.pick(INTEGERS)))
            }
            Kind::Integer => number(self.random.between(0, 20) as i64 - 4),
            Kind::Number if self.random.one_in(2) => {
                leaf(&format!("({})", self.random.pick(FLOATS)))
            }
            Kind::Number => self.atom(Kind::Integer, 0),
            Kind::Str => leaf(&format!("({})", self.random.pick(STRINGS))),
            Kind::Boolean => leaf(self.random.pick(&["true", "false"])),
            Kind::List => Node::Expression(self.template(
                &format!(
                    "({})",
                    self.random.clone().pick(&["{}", "{$i}", "{1, 2, 3}"])
                ),
                0,
            )),
            Kind::Record => Node::Expression(self.template(
                &format!(
                        "({})",
                        self.random.clone().pick(&[
                            "{}",
                            "{x = $n}",
                            "Object($n)",
                            "{x = $n, y = $i}"
                        ])
                    ),
                0,
            )),
            Kind::Function(1) => leaf(self.random.pick(&[
                "(math.abs)",
                "(function(a) return a end)",
                "(function(a) return a + 1, a end)",
                "(function(...) return ... end)",
                "(function(a) return -a end)",
                "(math.floor)",
                "(function(...) return select('#', ...) end)",
            ])),
            Kind::Function(_) => leaf(self.random.pick(&[
                "(math.max)",
                "(function(a, b) return b end)",
                "(function(a, b) return a < b and a or b end)",
                "(function(a, ...) return a, ... end)",
                "(rawequal)",
            ])),
            Kind::Any => match self.random.below(5) {
                0 => leaf("nil"),
                1 => self.atom(Kind::Number, depth),
                2 => self.atom(Kind::Str, depth),
                3 => self.atom(Kind::Record, depth),
                _ => self.atom(Kind::Boolean, depth),
            },
        }
    }
}

/// An expression without parts.
pub(super) fn leaf(text: &str) -> Node {
    Node::Expression(vec![Node::Text(text.to_owned())])
}

fn number(value: i64) -> Node {
    leaf(&value.to_string())
}
