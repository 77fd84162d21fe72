//! What the compiler says about wrong programs, and the shape of the code for right ones. That the code does what it
//! should is tested by running programs; here every piece of it also passes the verifier.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::compile;
use crate::bytecode::instructions::Extension;
use crate::bytecode::{CaptureKind, CaptureSource, Function, Op, verify};

fn function(source: &str) -> Function {
    let function = compile(source.as_bytes(), "t").unwrap_or_else(|e| panic!("{source}: {}", e[0]));
    verify(&function).unwrap_or_else(|e| panic!("{source}: {e}"));
    function
}

/// The operations of a function, without its head and its last `RET0`.
fn ops(function: &Function) -> String {
    let mut names = Vec::new();
    let mut at = 1;
    while at < function.code.len() {
        let row = Op::of(function.code[at]).unwrap().row();
        names.push(row.name);
        at += 1 + usize::from(row.extension != Extension::None);
    }
    if names.last() == Some(&"RET0") {
        names.pop();
    }
    names.join(" ")
}

#[track_caller]
fn code(source: &str, expected: &str) {
    assert_eq!(ops(&function(source)), expected, "{source}");
}

/// The messages for a wrong program, `line:column: message` each.
fn errors(source: &str) -> Vec<String> {
    let errors = compile(source.as_bytes(), "t").expect_err(source);
    errors
        .iter()
        .map(|e| format!("{}:{}: {}", e.line, e.column, e.message))
        .collect()
}

#[track_caller]
fn wrong(source: &str, expected: &[&str]) {
    assert_eq!(errors(source), expected, "{source}");
}

#[test]
fn results_go_straight_to_their_targets() {
    code("local a, b = 1, 2 a = a + b", "KINT KINT ADD");
    code("local a, b = 1, 2 a = b a = a", "KINT KINT MOV");
    code("local a, b, c local d", "KNIL");
    code("local t = {} t.x = t.y[1]", "TNEW TGETS TGETI TSETS");
    code(
        "local t, i = {}, 1 t.x = nil t[1] = 2 t[i] = 'x'",
        "TNEW KINT TSETSK TSETIK TSETK",
    );
    code("local a = f(g(1), 2)", "GGET GGET KINT CALL KINT CALL");
    code("local s = 'a' .. 1 .. 'b'", "KVAL KINT KVAL CONCAT");
}

#[test]
fn constants_are_operands_and_are_folded() {
    code("local a = 2 * 3 + 4 local b = -a", "KINT NEG");
    code(
        "local a = ... local b = a + 1.5 local c = 1.5 + a",
        "VARG ADDK KADD",
    );
    code("local a = 1 // 0 local b = 0.0 * 1", "KINT IDIVK KVAL MULK");
    code(
        "local k <const> = 'x' local t = {} return t[k], k",
        "TNEW TGETS KVAL RET",
    );
    let f = function("local a, b = 1 == 1.0, 2^53");
    assert!(
        f.constants
            .contains(&crate::bytecode::Constant::Float(9_007_199_254_740_992.0))
    );
}

#[test]
fn conditions_are_jumps() {
    code(
        "local a, b = ... if a < b then a = b end",
        "VARG ISNLT JMP MOV",
    );
    code(
        "local a = ... if a > 10 then a = 1 end",
        "VARG ISNGTI JMP KINT",
    );
    code(
        "local a = ... if 10 <= a then a = 1 end",
        "VARG ISNGEI JMP KINT",
    );
    code("local a = ... if not a then a = 1 end", "VARG IST JMP KINT");
    code(
        "local a = ... if a ~= nil then a = 1 end",
        "VARG ISEQP JMP KINT",
    );
    code(
        "local a = ... while a == 1 or a ~= 1.5 or a < 1.5 do end",
        "VARG ISEQI JMP ISNEK JMP ISNLTK JMP LOOP",
    );
    code(
        "local a = ... if 2.5 < a then a = 'x' end",
        "VARG ISNGTK JMP KVAL",
    );
    code("local a, b = ... local c = a and b", "VARG ISFC JMP MOV");
    code(
        "local a, b = ... local c = a < b",
        "VARG ISLT JMP KBOOL JMP KBOOL",
    );
    code("while true do if a then break end end", "GGET IST JMP LOOP");
    code(
        "local i = 0 repeat i = i + 1 until i > 3",
        "KINT ADDK ISGTI JMP LOOP",
    );
}

#[test]
fn calls() {
    code("return f(...)", "GGET VARG TCALLM RETM");
    code("local o = {} return o:m(1)", "TNEW SELF KINT TCALL RETM");
    code("return (f())", "GGET CALL RET1");
    code("local t = {1, f()}", "TNEW KINT GGET CALL TLISTM");
    // The result of `and` is one value, even if its last operand is a call.
    code("local a, b = ... and f()", "VARG ISF JMP GGET CALL KNIL");
    code(
        "local x <close> = nil return f()",
        "KNIL TBC GGET CALL CLOSE RETM CLOSE",
    );
}

#[test]
fn many_values_are_stored_in_batches() {
    let values = "1,".repeat(101);
    let f = function(&format!("local t = {{{values}}}"));
    assert_eq!(ops(&f).matches("TLIST").count(), 3);
}

#[test]
fn captures() {
    let f = function("local a = 1 return function() return a end");
    assert_eq!(f.children[0].captures[0].kind, CaptureKind::Value);
    let f = function("local a = 1 local f = function() return a end a = 2");
    assert_eq!(f.children[0].captures[0].kind, CaptureKind::Cell);
    assert_eq!(ops(&f), "KINT NEWCELL FNEW KINT CELLSET");
    let f = function("local function fact(n) return n * fact(n - 1) end");
    assert_eq!(f.children[0].captures[0].source, CaptureSource::Itself);
    let f = function("local x = 1 return function() return function() return x, y end end");
    let outer = &f.children[0];
    assert_eq!(&*outer.captures[0].name, "_ENV");
    assert_eq!(outer.captures[1].source, CaptureSource::Register(0));
    assert_eq!(
        outer.children[0].captures[1].source,
        CaptureSource::Capture(1)
    );
    // An assigned environment is a variable like any other.
    code("x = 1 _ENV = {} x = 2", "GETCAP TSETSK TNEW TSETSK");
    code("local _ENV = {} x = 1", "TNEW TSETSK");
}

#[test]
fn parallel_for() {
    let f = function("local t = {} parallel for i = 1, 10 do t[i] = i end");
    assert_eq!(ops(&f), "TNEW FNEW KINT KINT KINT PFORPREP CALL PJOIN");
    assert!(f.children[0].parallel_body);
    assert_eq!(ops(&f.children[0]), "MOV GETCAP TSET PFORLOOP RET1");
    wrong(
        "local s = 0\nparallel for i = 1, 2 do\n  s = s + i\n  local f = function() s = 1 end\n  return ...\nend",
        &[
            "3:3: cannot assign to 's', which is declared outside of the 'parallel for': use 'reduce', 'atomic' or a table",
            "4:24: cannot assign to 's', which is declared outside of the 'parallel for': use 'reduce', 'atomic' or a table",
            "5:3: cannot return from the body of a 'parallel for': use 'reduce', 'atomic' or a table for its results",
            "5:10: cannot use '...' in the body of a 'parallel for': copy it to a local variable or a table first",
        ],
    );
    wrong(
        "for i = 1, 2 do parallel for i = 1, 2 do break end end",
        &["1:42: cannot break out of a 'parallel for'"],
    );
    wrong(
        "parallel for i = 1, 2 do goto out end ::out::",
        &[
            "1:26: no visible label 'out' for <goto> at line 1 (a goto cannot leave the body of a 'parallel for')",
        ],
    );
    code(
        "local parallel, struct, reduce = 1 parallel = struct",
        "KINT KNIL MOV",
    );
}

#[test]
fn goto_and_labels() {
    code(
        "for i = 1, 2 do if a then goto continue end f() ::continue:: end",
        "KINT KINT KINT FORPREP GGET ISF JMP JMP GGET CALL FORLOOP",
    );
    code("::top:: goto top", "LOOP");
    wrong(
        "goto x local a ::x:: f()",
        &["1:1: <goto x> at line 1 jumps into the scope of local 'a'"],
    );
    wrong("::x:: ::x::", &["1:7: label 'x' already defined on line 1"]);
    wrong(
        "do ::x:: end goto x",
        &["1:14: no visible label 'x' for <goto> at line 1"],
    );
    wrong(
        "repeat goto c local x ::c:: until x",
        &["1:8: <goto c> at line 1 jumps into the scope of local 'x'"],
    );
    wrong("break", &["1:1: break outside a loop at line 1"]);
}

#[test]
fn several_errors_at_once() {
    wrong(
        "if x the\n  y()\nend\nlocal z = = 5\nfoo(1,)\nlocal c <const> = 1\nc = 2\nfor i 1, 2 do end\nx = }",
        &[
            "1:6: 'then' expected near 'the'",
            "4:11: unexpected symbol near '='",
            "5:7: unexpected symbol near ')'",
            "7:1: attempt to assign to const variable 'c'",
            "8:7: '=' or 'in' expected near '1'",
            "9:5: unexpected symbol near '}'",
        ],
    );
    let many = "local = 1\n".repeat(50);
    assert_eq!(errors(&many).len(), 20);
}

#[test]
fn messages_show_the_place() {
    let errors = compile(b"print(1)\n\tlocal x = )\n", "dir/a.vua").unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "dir/a.vua:2:12: unexpected symbol near ')'\n    \tlocal x = )\n    \t          ^"
    );
    assert_eq!(
        errors[0].one_line(),
        "dir/a.vua:2: unexpected symbol near ')'"
    );
    wrong(
        "x = [[abc",
        &["1:10: unfinished long string (starting at line 1) near <eof>"],
    );
    wrong("x = '\\q'", &["1:6: invalid escape sequence near ''\\q'"]);
    wrong(
        "if a then\nf()\n",
        &["3:1: 'end' expected (to close 'if' at line 1) near <eof>"],
    );
    wrong("x = 3x", &["1:5: malformed number near '3x'"]);
    wrong(
        "x = @",
        &[
            "1:5: unexpected symbol near '@'",
            "1:6: unexpected symbol near <eof>",
        ],
    );
}

#[test]
fn literals() {
    let f = function(
        "return 'a\\x41\\65\\u{20AC}\\z \n b\\\nc', [==[\nx]]y]==], 0x.8p1, 1e2, 9223372036854775808",
    );
    let strings: Vec<&[u8]> = f
        .constants
        .iter()
        .filter_map(|c| match c {
            crate::bytecode::Constant::String(s) => Some(&**s),
            _ => None,
        })
        .collect();
    assert_eq!(strings, ["aAA\u{20ac}b\nc".as_bytes(), b"x]]y"]);
    assert!(f.constants.contains(&crate::bytecode::Constant::Float(1.0)));
    assert!(f.constants.contains(&crate::bytecode::Constant::Float(
        9_223_372_036_854_775_808.0
    )));
}

#[test]
fn depth_and_size_are_limited() {
    for (open, close) in [
        ("(", ")"),
        ("{", "}"),
        ("-", ""),
        ("f(", ")"),
        ("function() return ", " end"),
    ] {
        let nested = |n: usize| format!("x = {}1{}", open.repeat(n), close.repeat(n));
        let spaced = nested(100_000).replace("--", "- -").replace("--", "- -");
        assert!(
            errors(&spaced)[0].contains("too many statements and expressions within"),
            "{open}"
        );
        let shallow = nested(60).replace("--", "- -").replace("--", "- -");
        function(&shallow);
    }
    assert!(
        errors(&"do ".repeat(100_000))[0].contains("too many statements and expressions within")
    );
    let targets = |n: usize| format!("local a; a{} = 1", ",a".repeat(n - 1));
    function(&targets(200));
    assert!(
        errors(&targets(201))[0].contains("too many variables in an assignment (limit is 200)")
    );
    // Chains that lean left have no limit.
    function(&format!("x = y{}", " + y".repeat(20_000)));
    function(&format!("x = y{}", " and y".repeat(20_000)));
    function(&format!("x = y{}", ".y()".repeat(10_000)));
    function(&format!("if a then {} end", "elseif a then ".repeat(5_000)));
    assert!(errors(&format!("x = y{}", " .. y".repeat(1_000)))[0].contains("too many operands"));
    let locals: String = (0..201).map(|i| format!("local a{i}\n")).collect();
    assert_eq!(
        errors(&locals),
        ["201:7: too many local variables (limit is 200) in the main function"]
    );
    assert_eq!(
        errors(&format!("for i = 1, 2 do {} end", "x() ".repeat(20_000)))[0],
        "1:1: control structure too long"
    );
}

#[test]
fn words_of_vua_not_yet_in_their_places() {
    wrong(
        "struct P\n  x: f64\nend\nlocal y = = 1",
        &["4:11: unexpected symbol near '='"],
    );
    wrong(
        "local s parallel for i = 1, 2 reduce s +, s * do end",
        &["1:43: 's' is reduced twice"],
    );
    wrong(
        "parallel for k, v = 1, 2 do end",
        &["1:19: 'in' expected near '='"],
    );
    wrong(
        "local s parallel for i = 1, 2 do parallel for j = 1, 2 reduce s + do end end",
        &[
            "1:63: cannot assign to 's', which is declared outside of the 'parallel for': use 'reduce', 'atomic' or a table",
        ],
    );
}
