//! Statements, blocks and function bodies.

use super::expression::leaf;
use super::{Context, FIELDS, Generator, Kind};
use crate::tree::Node;
use Node::{Block, Statement};

fn text(text: impl Into<String>) -> Node {
    Node::Text(text.into())
}

/// Metamethods whose functions take two operands, with what they may give.
const BINARY: &[(&str, &str)] = &[
    ("__add", "$n"),
    ("__sub", "$n"),
    ("__mul", "$i"),
    ("__div", "$n"),
    ("__mod", "$i"),
    ("__pow", "$n"),
    ("__idiv", "$i"),
    ("__band", "$i"),
    ("__bor", "$i"),
    ("__bxor", "$i"),
    ("__shl", "$i"),
    ("__shr", "$i"),
    ("__concat", "$s"),
    ("__eq", "$b"),
    ("__lt", "$b"),
    ("__le", "$a"),
];

impl Generator {
    pub(super) fn main(&mut self) -> Node {
        let mut statements = Vec::new();
        for kind in [
            Kind::Integer,
            Kind::Number,
            Kind::Str,
            Kind::Record,
            Kind::List,
        ] {
            if !self.random.one_in(4) {
                statements.push(self.local(kind));
            }
        }
        while self.budget > 0 {
            statements.push(self.statement());
        }
        statements.push(self.print_variables());
        Block(statements)
    }

    /// A block of its own scope, with a few statements.
    fn block(&mut self, context: Context) -> Node {
        let scope = self.scope.len();
        let outer = std::mem::replace(&mut self.context, context);
        self.context.depth = outer.depth + 1;
        let mut statements = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            statements.push(self.statement());
        }
        self.context = outer;
        self.scope.truncate(scope);
        Block(statements)
    }

    /// A loop's body: it takes fuel, may go on with the next iteration or break off.
    fn loop_body(&mut self) -> Node {
        let context = Context {
            in_loop: true,
            ..self.context
        };
        let scope = self.scope.len();
        let mut statements = vec![Statement(vec![text("L()")])];
        if self.random.one_in(6) {
            let condition = self.expression(Kind::Boolean, 2);
            let label = self.fresh("continue");
            statements.push(Statement(vec![
                text("if "),
                condition,
                text(format!(" then goto {label} end")),
            ]));
            let block = self.block(context);
            statements.push(Statement(vec![text("do "), block, text(" end")]));
            statements.push(Statement(vec![text(format!("::{label}::"))]));
        } else if let Block(more) = self.block(context) {
            statements.extend(more);
        }
        self.scope.truncate(scope);
        Block(statements)
    }

    fn statement(&mut self) -> Node {
        self.budget = self.budget.saturating_sub(1);
        let deep = self.context.depth >= 4;
        type Make = fn(&mut Generator) -> Node;
        let simple: &[(usize, Make)] = &[
            (10, |g| {
                let kind = g.kind();
                g.local(kind)
            }),
            (14, Generator::print),
            (8, Generator::assign),
            (5, Generator::set_field),
            (5, Generator::change_list),
            (4, Generator::multiple),
            (3, Generator::call),
            (1, Generator::leave),
        ];
        let nested: &[(usize, Make)] = &[
            (5, Generator::branch),
            (4, Generator::numeric_for),
            (3, Generator::generic_for),
            (2, Generator::while_loop),
            (2, Generator::repeat_loop),
            (2, Generator::goto_loop),
            (5, Generator::local_function),
            (5, Generator::protected),
            (2, Generator::close_variable),
            (4, Generator::coroutine),
            (4, Generator::metatable),
            (1, Generator::block_statement),
            (2, Generator::method),
            (2, Generator::closures),
            (1, Generator::recursion),
        ];
        let make = if deep || self.random.one_in(2) || self.budget == 0 {
            self.random.weighted(simple)
        } else {
            self.random.weighted(nested)
        };
        make(self)
    }

    fn local(&mut self, kind: Kind) -> Node {
        let name = self.fresh(match kind {
            Kind::Integer => "i",
            Kind::Number => "n",
            Kind::Str => "s",
            Kind::Boolean => "b",
            Kind::Record => "r",
            Kind::List => "l",
            Kind::Function(_) => "f",
            Kind::Any => "v",
        });
        let value = self.expression(kind, 3);
        let constant = self.random.one_in(10);
        let attribute = if constant { " <const>" } else { "" };
        let mut parts = vec![text(format!("local {name}{attribute} = "))];
        self.stored(&mut parts, kind, value);
        self.declare(&name, kind, constant);
        if let Some(variable) = self.scope.last_mut().filter(|_| !constant) {
            variable.shared = self.random.one_in(6);
        }
        Statement(parts)
    }

    /// A value on its way into a variable: strings are cut.
    fn stored(&mut self, parts: &mut Vec<Node>, kind: Kind, value: Node) {
        if matches!(kind, Kind::Str | Kind::Any) {
            parts.extend([text("S("), value, text(")")]);
        } else {
            parts.push(value);
        }
    }

    fn print(&mut self) -> Node {
        let count = self.random.between(1, 3);
        let mut values = Vec::new();
        for i in 0..count {
            if i > 0 {
                values.push(text(", "));
            }
            let kind = if self.random.one_in(3) {
                Kind::Any
            } else {
                self.kind()
            };
            values.push(self.expression(kind, 4));
        }
        if self.random.one_in(3) {
            values.insert(0, text("P("));
            values.push(text(")"));
        } else {
            values.insert(0, text("P(pcall(function() return "));
            values.push(text(" end))"));
        }
        Statement(values)
    }

    fn print_variables(&mut self) -> Node {
        let names: Vec<String> = self
            .scope
            .iter()
            .rev()
            .take(12)
            .map(|v| v.name.clone())
            .collect();
        if names.is_empty() {
            return Statement(vec![text("P()")]);
        }
        Statement(vec![text(format!("P({})", names.join(", ")))])
    }

    fn assign(&mut self) -> Node {
        let Some(variable) = self.assignable(|v| !matches!(v.kind, Kind::Function(_))) else {
            return self.print();
        };
        let value = self.expression(variable.kind, 3);
        let mut parts = vec![text(format!("{} = ", variable.name))];
        self.stored(&mut parts, variable.kind, value);
        Statement(parts)
    }

    fn set_field(&mut self) -> Node {
        let record = self.expression(Kind::Record, 1);
        let (field, kind) = FIELDS[self.random.below(FIELDS.len())];
        let value = if self.random.one_in(12) {
            leaf("nil")
        } else {
            self.expression(kind, 2)
        };
        let mut parts = vec![text("R("), record, text(")")];
        match self.random.below(4) {
            0 => parts.push(text(format!("['{field}'] = "))),
            1 => {
                let key = self.expression(Kind::Str, 1);
                parts.extend([text("["), key, text("] = ")]);
            }
            _ => parts.push(text(format!(".{field} = "))),
        }
        // `R` keeps a line that begins with a parenthesis from being a call of what stands before.
        self.stored(&mut parts, kind, value);
        Statement(parts)
    }

    fn change_list(&mut self) -> Node {
        let Some(list) = self.variable(|v| v.kind == Kind::List) else {
            return self.local(Kind::List);
        };
        let list = list.name;
        let template = self.random.pick(&[
            "# [##+1] = $i",
            "# [##+1] = $i",
            "# [#] = $i",
            "# [##] = nil",
            "table.insert(#, $i or 0)",
            "table.insert(#, 1, $i or 0)",
            "P(table.remove(#))",
            "P(table.remove(#, 1))",
            "table.sort(Ints(#))",
            "# = Ints(#) table.sort(#, function(a, b) return a > b end)",
            "P(table.unpack(#))",
            "P(table.concat(#, ' '))",
            "P(select('#', table.unpack(#, 1, $k)))",
            "P(table.move(#, 1, 2, 2))",
            "P(pcall(table.insert, #, $j, $i or 0))",
            "P(pcall(table.remove, #, $j))",
            "P(table.pack(table.unpack(#)).n)",
            "# [1] = $i or 0",
            "P(table.unpack(#, $j, $j))",
        ]);
        let template = template
            .replace("# [##+1]", &format!("{list}[#{list}+1]"))
            .replace("# [##]", &format!("{list}[#{list}]"))
            .replace("# [#]", &format!("{list}[#{list} > 0 and #{list} or 1]"))
            .replace("# [1]", &format!("{list}[1]"))
            .replace("'#'", "'\u{1}'")
            .replace('#', &list)
            .replace('\u{1}', "#");
        let parts = self.template(&template, 2);
        Statement(parts)
    }

    fn multiple(&mut self) -> Node {
        let Some(first) = self.assignable(|v| v.kind == Kind::Integer) else {
            return self.local(Kind::Integer);
        };
        let kind = Kind::Integer;
        let Some(second) = self.assignable(|v| v.kind == kind) else {
            return self.print();
        };
        let (a, b) = (first.name, second.name);
        let list = self
            .variable(|v| v.kind == Kind::List)
            .map_or("R({})".into(), |v| v.name);
        let template = match self.random.below(7) {
            0 => format!("{a}, {b} = {b}, {a}"),
            1 => format!("{a}, {list}[{a}] = $i, $i"),
            2 => format!("{list}[1], {list}[2] = $i or 0, $i or 0"),
            3 => format!("{a}, {b} = (function() return $i, $i, $i end)()"),
            4 => format!("{a}, {b} = $i, (function() return $i end)()"),
            5 => format!("{list}[1], {a} = {a} or 0, {list}[1] or $i"),
            _ => format!("{a}, {b} = $i, $i, $i"),
        };
        // Only the small lengths keep a list free of holes.
        let template = template.replace(&format!("{list}[{a}]"), &format!("R({{}})[{a}]"));
        let parts = self.template(&template, 2);
        Statement(parts)
    }

    fn call(&mut self) -> Node {
        let parts = match self.variable(|v| matches!(v.kind, Kind::Function(_))) {
            Some(v) => {
                let name = v.name;
                let template = match self.random.below(4) {
                    0 => format!("{name}($n, $n)"),
                    1 => format!("P({name}($n))"),
                    2 => format!("P({name}())"),
                    _ => format!("P(pcall({name}, $n, $n))"),
                };
                self.template(&template, 2)
            }
            None => self.template("P(R($r):m($n))", 2),
        };
        Statement(parts)
    }

    fn leave(&mut self) -> Node {
        if self.context.in_loop && self.random.one_in(2) {
            let condition = self.expression(Kind::Boolean, 2);
            return Statement(vec![text("if "), condition, text(" then break end")]);
        }
        let template = self.random.pick(&[
            "if $b then return $n end",
            "if $b then return $n, $s end",
            "if $b then return $f($n) end",
            "if $b then error($s) end",
            "if $b then error($r) end",
        ]);
        let parts = self.template(template, 2);
        Statement(parts)
    }

    fn branch(&mut self) -> Node {
        let context = self.context;
        let mut parts = vec![
            text("if "),
            self.expression(Kind::Boolean, 3),
            text(" then\n"),
            self.block(context),
        ];
        for _ in 0..self.random.below(3) {
            parts.extend([
                text("elseif "),
                self.expression(Kind::Boolean, 2),
                text(" then\n"),
                self.block(context),
            ]);
        }
        if self.random.one_in(2) {
            parts.extend([text("else\n"), self.block(context)]);
        }
        parts.push(text("end"));
        Statement(parts)
    }

    fn numeric_for(&mut self) -> Node {
        let name = self.fresh("k");
        let template = self.random.pick(&[
            "1, $k",
            "$k, 1, -1",
            "1, #$l",
            "math.maxinteger - 2, math.maxinteger",
            "math.mininteger, math.mininteger + 2",
            "math.mininteger + 2, math.mininteger, -1",
            "1, 3, $i",
            "1.0, 3",
            "1, 3.7",
            "1, 2, 0.25",
            "0.0, -1, -0.5",
            "$j, $j, 2",
            "1, math.huge, math.maxinteger // 2",
            "-1, -math.huge, math.mininteger // 2",
            "3, 1",
            "$n, $n, $n",
            "1, (0/0)",
            "1, $j",
            "math.maxinteger - 1, math.huge",
            "-3, 3, 3",
            "1, 3, math.maxinteger",
            "3, 1, math.mininteger",
            "$i, $i",
            "1, -1, -1",
            "1, 3, 1.0",
            "1, 0.9",
            "-1, -0.9, 1",
            "(1<<47)-2, (1<<47)+1",
            "-(1<<47)+1, -(1<<47)-2, -1",
        ]);
        let float = template.starts_with("1.0")
            || template.contains("0.25")
            || template.contains("-0.5")
            || template.starts_with("$n");
        let mut parts = vec![text(format!("for {name} = "))];
        parts.extend(self.template(template, 2));
        parts.push(text(" do\n"));
        let scope = self.scope.len();
        self.declare(
            &name,
            if float { Kind::Number } else { Kind::Integer },
            false,
        );
        parts.push(self.loop_body());
        self.scope.truncate(scope);
        parts.push(text("end"));
        Statement(parts)
    }

    fn generic_for(&mut self) -> Node {
        let (k, v) = (self.fresh("k"), self.fresh("v"));
        let (iterator, key, value) = self.random.weighted(&[
            (3, ("ipairs($l)", Kind::Integer, Kind::Integer)),
            (2, ("Sorted($r)", Kind::Str, Kind::Any)),
            (1, ("pairs({$i})", Kind::Integer, Kind::Integer)),
            (1, ("$s:gmatch('(.)(.?)')", Kind::Str, Kind::Str)),
            (1, ("$s:gmatch($p)", Kind::Any, Kind::Any)),
            (1, ("coroutine.wrap(function() T() for i = 1, $k do coroutine.yield(i, $n) end end)", Kind::Integer, Kind::Number)),
            (1, ("(function(s, c) if c < s then return c + 1, c * 2 end end), $k, 0", Kind::Integer, Kind::Integer)),
            (1, ("pairs(setmetatable({}, {__pairs = function(t) return function(_, k) if not k then return 1, $i end end, t, nil end}))", Kind::Integer, Kind::Integer)),
            (1, ("utf8.codes($s)", Kind::Integer, Kind::Integer)),
            (1, ("next, {$i}", Kind::Integer, Kind::Integer)),
            (1, ("$a", Kind::Any, Kind::Any)),
            (1, ("(function(s, c) if c < 3 then return c + 1, c end end), nil, 0, setmetatable({}, {__close = function() P('closed') end})", Kind::Integer, Kind::Integer)),
            (1, ("ipairs(setmetatable({}, {__index = function(t, i) if i < 4 then return i * $i end end}))", Kind::Integer, Kind::Integer)),
        ]);
        let mut parts = vec![text(format!("for {k}, {v} in "))];
        parts.extend(self.template(iterator, 2));
        parts.push(text(" do\n"));
        let scope = self.scope.len();
        self.declare(&k, key, false);
        self.declare(&v, value, false);
        // Lua 5.4.4 loses the value to be closed if such a loop has a `break` that is never taken.
        let body = if iterator.contains("__close") {
            self.block(Context {
                in_loop: false,
                ..self.context
            })
        } else {
            self.loop_body()
        };
        parts.push(body);
        self.scope.truncate(scope);
        parts.push(text("end"));
        Statement(parts)
    }

    fn while_loop(&mut self) -> Node {
        let counter = self.fresh("c");
        let mut parts = vec![
            text(format!(
                "local {counter} = 0 while {counter} < {} and ",
                self.random.clone().between(1, 5)
            )),
            self.expression(Kind::Boolean, 2),
            text(format!(" do\n{counter} = {counter} + 1\n")),
        ];
        parts.push(self.loop_body());
        parts.push(text("end"));
        Statement(parts)
    }

    fn repeat_loop(&mut self) -> Node {
        let (counter, inner) = (self.fresh("c"), self.fresh("u"));
        let mut parts = vec![text(format!(
            "local {counter} = 0 repeat {counter} = {counter} + 1\n"
        ))];
        let body = self.loop_body();
        let captured = self.random.one_in(2);
        parts.push(body);
        let capture = if captured {
            format!("P((function() return {inner} end)())")
        } else {
            String::new()
        };
        parts.push(text(format!(
            "local {inner} = {counter} {capture}\nuntil {inner} >= {} or ",
            self.random.clone().between(1, 4)
        )));
        parts.push(self.expression(Kind::Boolean, 2));
        Statement(parts)
    }

    fn goto_loop(&mut self) -> Node {
        let (label, counter) = (self.fresh("top"), self.fresh("c"));
        let context = self.context;
        // The loop that goto makes is none that `break` could leave.
        let block = self.block(Context {
            in_loop: false,
            ..context
        });
        Statement(vec![
            text(format!(
                "do local {counter} = 0 ::{label}:: L() {counter} = {counter} + 1\ndo "
            )),
            block,
            text(format!(
                " end\nif {counter} < {} then goto {label} end end",
                self.random.between(1, 4)
            )),
        ])
    }

    /// A function expression of `parameters` numbers.
    pub(super) fn function(&mut self, parameters: usize, _depth: usize) -> Node {
        if self.context.depth >= 4 || self.budget == 0 || self.random.one_in(2) {
            let names: Vec<String> = (0..parameters).map(|_| self.fresh("p")).collect();
            let scope = self.scope.len();
            self.level += 1;
            names
                .iter()
                .for_each(|name| self.declare(name, Kind::Number, false));
            let outer = std::mem::take(&mut self.context);
            self.context.depth = outer.depth + 1;
            let value = self.expression(Kind::Number, 2);
            self.context = outer;
            self.level -= 1;
            self.scope.truncate(scope);
            return Node::Expression(vec![
                text(format!("(function({}) T() return ", names.join(", "))),
                value,
                text(" end)"),
            ]);
        }
        let mut parts = vec![text("(function")];
        parts.extend(self.body(parameters, None));
        parts.push(text("end)"));
        Node::Expression(parts)
    }

    /// From a function's parameters to before its `end`.
    fn body(&mut self, parameters: usize, receiver: Option<&str>) -> Vec<Node> {
        let mut names: Vec<String> = (0..parameters).map(|_| self.fresh("p")).collect();
        let scope = self.scope.len();
        self.level += 1;
        names
            .iter()
            .for_each(|name| self.declare(name, Kind::Number, false));
        if let Some(receiver) = receiver {
            self.declare(receiver, Kind::Record, false);
        }
        let variadic = self.random.one_in(4);
        if variadic {
            names.push("...".into());
        }
        let mut parts = vec![text(format!("({})\nT()\n", names.join(", ")))];
        let context = Context {
            in_loop: false,
            depth: self.context.depth,
        };
        parts.push(self.block(context));
        let outer = std::mem::replace(&mut self.context, context);
        let template = match self.random.below(8) {
            0 if variadic => "do return ... end ",
            1 if variadic => "do return select('#', ...), ... end ",
            2 if variadic => "do local a, b = ... return b, a end ",
            3 => "do return $n, $s end ",
            4 => "do return $f($n) end ",
            5 => "",
            6 => "do return ($f($n)) end ",
            _ => "do return $n end ",
        };
        let end = self.template(template, 2);
        parts.push(Block(vec![Statement(end)]));
        self.context = outer;
        self.level -= 1;
        self.scope.truncate(scope);
        parts
    }

    fn local_function(&mut self) -> Node {
        let parameters = self.random.between(1, 2);
        let name = self.fresh("f");
        let mut parts = if self.random.one_in(4) {
            vec![text(format!("local {name} = function"))]
        } else {
            vec![text(format!("local function {name}"))]
        };
        parts.extend(self.body(parameters, None));
        parts.push(text("end"));
        self.declare(&name, Kind::Function(parameters as u8), true);
        Statement(parts)
    }

    fn recursion(&mut self) -> Node {
        let name = self.fresh("f");
        let template = self.random.pick(&[
            "local function @(n) T() if n <= 0 then return $n end return @(n - 1) end",
            "local function @(n) T() if n <= 0 then return $n end return n + @(n - 1) end",
            "local @ @ = function(n) T() if n < 2 then return n end return @(n - 1) + @(n - 2) end",
            "local function @(n, ...) T() if n <= 0 then return select('#', ...), ... end return @(n - 1, n, ...) end",
        ]);
        let parts = self.template(&template.replace('@', &name), 2);
        let node = Statement(vec![Block(vec![
            Statement(parts),
            Statement(vec![text(format!(
                "P({name}({}))",
                self.random.between(0, 5)
            ))]),
        ])]);
        self.declare(&name, Kind::Any, true);
        node
    }

    fn protected(&mut self) -> Node {
        let context = Context {
            in_loop: false,
            ..self.context
        };
        let (head, tail) = self.random.weighted(&[
            (6, ("P(pcall(function()\nT()\n", "end))")),
            (1, ("P(select('#', pcall(function()\nT()\n", "end)))")),
            (
                2,
                (
                    "P(xpcall(function()\nT()\n",
                    "end, function(m) return 'handled', m end))",
                ),
            ),
            (
                1,
                (
                    "P(xpcall(function(...)\nT()\n",
                    "end, function(m) P(m) return m end, 1, nil, 'x'))",
                ),
            ),
        ]);
        let mut parts = vec![text(head), self.block(context)];
        let outer = std::mem::replace(&mut self.context, context);
        let template = self.random.pick(&[
            "do return $n end ",
            "do return $s, $n end ",
            "do return $a end ",
            "",
            "do error($a) end ",
            "do error($s, $k) end ",
            "do return $f($n) end ",
        ]);
        let end = self.template(template, 2);
        self.context = outer;
        parts.push(Block(vec![Statement(end)]));
        parts.push(text(tail));
        Statement(parts)
    }

    fn close_variable(&mut self) -> Node {
        let name = self.fresh("x");
        let context = self.context;
        let tag = self.names;
        let close = self
            .random
            .pick(&[
                "P('close', @, e)",
                "P('close', @, e) error('in close @')",
                "P('close', @, e) local y <close> = Closing('inner @')",
                "P(pcall(error, e))",
            ])
            .replace('@', &tag.to_string());
        let value = self
            .random
            .weighted(&[(8, "Closing"), (1, "nil"), (1, "plain")]);
        let head = match value {
            "nil" => format!("do local {name} <close> = nil\n"),
            "plain" => format!("do local {name} <close> = {{}}\n"),
            _ => format!(
                "do local {name} <close> = setmetatable({{}}, {{__close = function(o, e) T() {close} end}})\n"
            ),
        };
        let block = self.block(context);
        Statement(vec![text(head), block, text("end")])
    }

    fn coroutine(&mut self) -> Node {
        let name = self.fresh("co");
        let parameters = self.random.between(0, 2);
        let wrap = self.random.one_in(2);
        let mut parts = vec![text(format!(
            "do local {name} = coroutine.{}(function",
            if wrap { "wrap" } else { "create" }
        ))];
        let scope = self.scope.len();
        let names: Vec<String> = (0..parameters).map(|_| self.fresh("p")).collect();
        names
            .iter()
            .for_each(|name| self.declare(name, Kind::Any, false));
        parts.push(text(format!("({})\nT()\n", names.join(", "))));
        let context = Context {
            in_loop: false,
            depth: self.context.depth,
        };
        let mut statements = Vec::new();
        for _ in 0..self.random.between(1, 3) {
            statements.push(self.block(context));
            let template = self.random.pick(&[
                "P(coroutine.yield($n, $s))", "local y = coroutine.yield()", "P(pcall(coroutine.yield, $n))", "P(pcall(function() return coroutine.yield($n), $a end))",
                "for i = 1, 2 do P(coroutine.yield(i)) end", "P(setmetatable({}, {__add = function(a, b) return coroutine.yield(b) end}) + $n)",
                "P(setmetatable({}, {__index = function(a, b) return coroutine.yield(b) end}).key)", "for k in (function() return coroutine.yield($n) end) do L() P(k) break end",
                "P(setmetatable({}, {__lt = function(a, b) return coroutine.yield(b) end}) < $n)", "do local x <close> = setmetatable({}, {__close = function() P(coroutine.yield('closing')) end}) P(coroutine.yield($n)) end",
                "P(coroutine.running() ~= nil, coroutine.isyieldable(), coroutine.status((coroutine.running())))", "P((('a'):gsub('a', function(c) return c .. $s end)))", "P(pcall(table.sort, {3, 2, 1}, function(a, b) coroutine.yield(a) return a < b end))",
                "P(setmetatable({}, {__concat = function(a, b) return coroutine.yield('cat') end}) .. $s)", "setmetatable({}, {__newindex = function(t, k, v) P(coroutine.yield(k)) end}).z = $n", "P(#setmetatable({}, {__len = function() return coroutine.yield('len') end}))",
                "P(xpcall(function() P(coroutine.yield('x')) error($a) end, function(m) return m end))",
            ]);
            // table.sort yields in Vua and not in Lua.
            let template = if template.contains("table.sort") {
                "P(coroutine.yield($a, $a))"
            } else {
                template
            };
            let outer = std::mem::replace(&mut self.context, context);
            let end = self.template(template, 2);
            self.context = outer;
            statements.push(Statement(end));
        }
        self.scope.truncate(scope);
        let statements = statements
            .into_iter()
            .map(|s| {
                if matches!(s, Block(_)) {
                    Statement(vec![text("do "), s, text(" end")])
                } else {
                    s
                }
            })
            .collect();
        parts.push(Block(statements));
        let end = self.template("do return $a, $n end end)\n", 2);
        parts.extend(end);
        let mut resumes = Vec::new();
        for _ in 0..self.random.between(1, 5) {
            let template = match (wrap, self.random.below(8)) {
                (true, 0) => "P(@($n, $s))",
                (true, _) => "P(pcall(@, $n, $s))",
                (false, 0) => "P(coroutine.status(@))",
                (false, 1) => "P(coroutine.close(@))",
                (false, 2) => "P(coroutine.resume(@))",
                (false, 3) => "P(pcall(coroutine.close, @))",
                (false, _) => "P(coroutine.resume(@, $n, $a))",
            };
            let resume = self.template(&template.replace('@', &name), 1);
            resumes.push(Statement(resume));
        }
        parts.push(Block(resumes));
        parts.push(text("end"));
        Statement(parts)
    }

    fn metatable(&mut self) -> Node {
        let name = self.fresh("r");
        let mut parts = vec![text(format!(
            "local {name} = setmetatable({{x = 1, s = 'o'}}, {{"
        ))];
        for _ in 0..self.random.between(1, 6) {
            let (event, result) = BINARY[self.random.below(BINARY.len())];
            let scope = self.scope.len();
            let (a, b) = (self.fresh("p"), self.fresh("p"));
            self.level += 1;
            self.declare(&a, Kind::Any, false);
            self.declare(&b, Kind::Any, false);
            let head = match self.random.below(8) {
                0 => format!("__index = function({a}, {b}) T() "),
                1 => format!("__newindex = function({a}, {b}, v) T() rawset({a}, {b}, v) "),
                2 => format!("__call = function({a}, {b}, ...) T() P(select('#', ...)) "),
                3 => format!("__len = function({a}, {b}) T() "),
                4 => format!("__unm = function({a}, {b}) T() P(rawequal({a}, {b})) "),
                5 if self.random.one_in(3) => format!("__tostring = function({a}) T() local {b} "),
                // Lua may be built to make `<=` of `<`, as 5.3 did.
                _ if event == "__lt" => {
                    format!(
                        "__le = function({a}, {b}) return {b} == nil end, __lt = function({a}, {b}) T() "
                    )
                }
                _ => format!("{event} = function({a}, {b}) T() "),
            };
            parts.push(text(head));
            let context = Context {
                depth: self.context.depth,
                ..Context::default()
            };
            if self.random.one_in(3) {
                parts.push(self.block(context));
            }
            let outer = std::mem::replace(&mut self.context, context);
            let end = self.template(&format!("do return {result} end end, "), 2);
            self.context = outer;
            parts.extend(end);
            self.level -= 1;
            self.scope.truncate(scope);
        }
        parts.push(text("})"));
        self.declare(&name, Kind::Record, false);
        let mut statements = vec![Statement(parts)];
        for _ in 0..self.random.between(1, 4) {
            let template = self.random.pick(&[
                "P(pcall(function() return @ + $n, $n - @ end))", "P(pcall(function() return @ .. $s, $s .. @ end))", "P(pcall(function() return @ < $n, @ <= @, @ > $n end))", "P(pcall(function() return @ == $r, @ ~= @ end))",
                "P(pcall(function() return -@, ~@, #@ end))", "P(pcall(function() return @($n, $n) end))", "P(pcall(function() return @.nothing, @[$n] end))", "P(pcall(function() @.new = $n return @.new end))",
                "P(pcall(function() return @ & $i, $i | @, @ << 1, @ // 2, @ % $n, 2 ^ @, @ / @ end))", "P(pcall(tostring, @))", "P(pcall(function() return $s .. $n .. @ .. $s end))", "P(pcall(function() if @ < 1 then return 1 elseif @ == 2 then return 2 else return 3 end end))",
                "P(pcall(function() local a <const> = @ + 1 return a, @ * 2, 3 * @, @ - 0.5 end))", "P(pcall(string.rep, @, 2))", "P(pcall(string.format, '%s|%5s', @, 1))",
            ]);
            let use_it = self.template(&template.replace('@', &name), 2);
            statements.push(Statement(use_it));
        }
        Statement(vec![Block(statements)])
    }

    fn block_statement(&mut self) -> Node {
        let context = self.context;
        Statement(vec![text("do\n"), self.block(context), text("end")])
    }

    fn method(&mut self) -> Node {
        let Some(record) = self.variable(|v| v.kind == Kind::Record) else {
            return self.local(Kind::Record);
        };
        let name = record.name;
        let (separator, receiver) = if self.random.one_in(2) {
            (":", Some("self"))
        } else {
            (".", None)
        };
        let parameters = if receiver.is_some() { 1 } else { 2 };
        let mut parts = vec![text(format!("function {name}{separator}m"))];
        parts.extend(self.body(parameters, receiver));
        parts.push(text("end"));
        let uses = self.template(&format!("P(pcall(function() return {name}:m($n) end))"), 2);
        Statement(vec![Block(vec![Statement(parts), Statement(uses)])])
    }

    /// Closures made in a loop, each with variables of its own, and called later.
    fn closures(&mut self) -> Node {
        let name = self.fresh("fs");
        let template = self.random.pick(&[
            "do local @ = {} for i = 1, 3 do local u = i * 2 @[i] = function(d) T() u = u + d; i = i + 1 return u, i end end P(@[1](1)) P(@[1]($i)) P(@[2](3)) P(@[3]($i)) end",
            "do local @ = {} for i = 1, 3 do local u = $n @[i] = {get = function() return u end, set = function(v) u = v end} end @[1].set($n) P(@[1].get(), @[2].get()) end",
            "do local @ = {} local i = 0 while i < 3 do i = i + 1 local j = i @[i] = function() j = j + 1 return i, j end if i == 2 then goto out end end ::out:: P(@[1]()) P(@[2]()) P(@[1]()) end",
            "do local @ = {} for k, v in ipairs({$i, $i}) do @[k] = function() v = v + k return v end end P(@[1](), @[1](), @[2]()) end",
            "do local @ do local a, b = $n, $s @ = function() a, b = b, a return a, b end end P(@()) P(@()) end",
            "do local @ = {} local n = 0 repeat local x = n @[n] = function() x = x + 1 return x end n = n + 1 until x >= 2 P(@[0](), @[1](), @[0]()) end",
            "do local a = 0 local function @() a = a + 1 local function inner() a = a + 10 return function() a = a + 100 return a end end return inner() end P(@()(), @()(), a) end",
            "do local @ = {} for i = 1, 2 do for j = 1, 2 do @[#@ + 1] = function() i = i + 1; j = j * 2; return i, j end end end for _, f in ipairs(@) do P(f()) P(f()) end end",
        ]);
        let parts = self.template(&template.replace('@', &name), 2);
        Statement(parts)
    }
}
