//! Each rule of the verifier against a function that breaks only it: what is refused, why, and where.

use alloc::string::ToString;
use alloc::sync::Arc;

use super::*;
use crate::bytecode::Capture;
use crate::bytecode::instructions::{abc, ad, jump};
use crate::memory::{Field, Member, Origin};

/// The complaint about a main chunk after one of its words was changed: the first instruction `op`, or the extension word behind it.
fn complaint(source: &str, op: Op, extension: bool, change: impl Fn(u32) -> u32) -> String {
    let mut function = crate::compile::compile(source.as_bytes(), "t").unwrap();
    verify(&function).unwrap();
    let at = function
        .code
        .iter()
        .position(|word| Op::of(*word) == Some(op));
    let at = at.expect("the source compiles to the instruction") + usize::from(extension);
    function.code[at] = change(function.code[at]);
    verify(&function).unwrap_err().message
}

#[test]
fn a_list_begins_at_one() {
    assert_eq!(
        complaint("local t = {1, 2}", Op::TLIST, true, |_| 0),
        "a list that begins before its first element"
    );
}

#[test]
fn a_tail_call_is_followed_by_the_return_of_its_results() {
    let unused = "an open number of results is not used at once";
    for other in [
        ad(Op::RET0, 0, 0),
        // From another register, or with values before the results.
        ad(Op::RETM, 1, 0),
        ad(Op::RETM, 0, 1),
    ] {
        assert_eq!(complaint("return f()", Op::RETM, false, |_| other), unused);
    }
}

#[test]
fn nothing_leads_between_what_opens_results_and_what_uses_them() {
    // The jump over the call, made one longer, leads to the `RETM`.
    assert_eq!(
        complaint(
            "if a then return end return f()",
            Op::JMP,
            false,
            |word| word + (3 << 8)
        ),
        "no open number of results comes before this"
    );
}

pub(super) const REGISTERS: u8 = 8;
// Constants of `function`.
const NUMBER: u16 = 0;
const STRING: u16 = 1;
const STRUCT: u16 = 2;
/// The double at offset 0.
const PLACE: u16 = 3;
/// A double at offset 4, which there is none at.
const BETWEEN: u16 = 4;

fn path_to(place: u16) -> u32 {
    u32::from(STRUCT) | u32::from(place) << 16
}

pub(super) fn capture(name: &str, source: CaptureSource, kind: CaptureKind) -> Capture {
    Capture {
        name: Arc::from(name),
        source,
        kind,
    }
}

/// A main chunk with this code behind its head. Registers 0 and 1 are raw, 2 to 7 are not; it has a function, whose capture
/// `up` is the cell in register 2, and a struct with a double.
pub(super) fn function(code: &[u32]) -> Function {
    let mut function = crate::compile::compile(b"", "t").unwrap();
    let mut child = function.clone();
    child.captures = vec![capture("up", CaptureSource::Register(2), CaptureKind::Cell)];
    function.children = vec![child];
    function.registers = REGISTERS;
    function.raw_count = 2;
    function.code = vec![ad(Op::FUNCV, REGISTERS, 0)];
    function.code.extend_from_slice(code);
    function.lines = Vec::new();
    let double = Scalar::F64 as i64;
    function.constants = vec![
        Constant::Integer(1),
        Constant::String((*b"s").into()),
        Constant::Struct(0),
        Constant::Integer(double),
        Constant::Integer(4 << 8 | double),
    ];
    function.structs = vec![Shape {
        outermost: true,
        origin: Origin::Here,
        name: Arc::from("S"),
        packed: false,
        fields: vec![Field {
            name: Arc::from("x"),
            member: Member::Scalar(Scalar::F64),
            count: None,
        }],
    }];
    function
}

/// The code is refused, at this word, for this reason.
#[track_caller]
pub(super) fn refused(code: &[u32], at: usize, message: &str) {
    let error = verify(&function(code)).unwrap_err().to_string();
    assert_eq!(error, format!("function main, word {at}: {message}"));
}

/// A function that is right but for this change is refused.
#[track_caller]
fn changed(change: impl Fn(&mut Function), complaint: &str) {
    let mut function = function(&[RETURN]);
    change(&mut function);
    assert_eq!(verify(&function).unwrap_err().to_string(), complaint);
}

pub(super) const RETURN: u32 = ad(Op::RET0, 0, 0);

#[test]
fn what_the_rules_allow_passes() {
    let accepted: &[&[u32]] = &[
        &[RETURN],
        &[ad(Op::KVALX, 2, 0), STRING as u32, RETURN],
        &[abc(Op::SGET, 0, 2, 0), path_to(PLACE), RETURN],
        &[ad(Op::SNEW, 2, STRUCT), RETURN],
        &[abc(Op::CHECK, 2, 4, 0), STRUCT as u32, RETURN],
        &[ad(Op::NEWCELL, 2, 3), ad(Op::FNEW, 3, 0), RETURN],
        &[abc(Op::CALL, 6, 0, 0), ad(Op::RETM, 6, 0)],
        &[ad(Op::TNEW, 2, 0), ad(Op::TLIST, 2, 1), 1, RETURN],
        &[ad(Op::VARG, 6, 3), RETURN],
        &[jump(Op::LOOP, -1)],
    ];
    for code in accepted {
        verify(&function(code)).unwrap_or_else(|error| panic!("{code:?}: {error}"));
    }
}

#[test]
fn words_are_instructions() {
    refused(&[0xff], 1, "no such instruction");
    let head = "a head inside a function";
    refused(&[ad(Op::FUNC, REGISTERS, 0)], 1, head);
    refused(&[ad(Op::FUNCV, REGISTERS, 0)], 1, head);
    refused(&[ad(Op::NATIVE, 0, 0)], 1, head);
    refused(
        &[RETURN, ad(Op::GGET, 2, 0)],
        2,
        "the extension word is missing",
    );
    refused(&[ad(Op::RET0, 1, 0)], 1, "an unused operand is not zero");
}

#[test]
fn operands_are_of_their_kinds() {
    refused(&[ad(Op::MOV, 2, 0)], 1, "operand 0 is no tagged register");
    refused(&[ad(Op::MOV, 8, 2)], 1, "operand 8 is no tagged register");
    refused(&[ad(Op::RMOV, 0, 2)], 1, "operand 2 is no raw register");
    // Of the four registers of a raw loop two are raw.
    refused(&[ad(Op::RFORPREP, 0, 0)], 1, "operand 0 is no raw register");
    refused(&[ad(Op::KVAL, 2, 5)], 1, "no such constant");
    refused(&[abc(Op::TSETK, 5, 2, 2)], 1, "no such constant");
    refused(
        &[abc(Op::ADDK, 2, 2, STRING as u8)],
        1,
        "no such number among the constants",
    );
    refused(&[ad(Op::FNEW, 2, 1)], 1, "no such function");
    refused(
        &[ad(Op::GETCAP, 2, 3)],
        1,
        "capture 3 is not of the kind needed",
    );
    for op in [Op::GETCELL, Op::SETCELL] {
        refused(&[ad(op, 2, 0)], 1, "capture 0 is not of the kind needed");
    }
    for op in [Op::RGETCAP, Op::RGETCELL, Op::RSETCELL] {
        refused(&[ad(op, 0, 0)], 1, "capture 0 is not of the kind needed");
    }
}

#[test]
fn extension_words_are_of_their_kinds() {
    refused(&[ad(Op::KVALX, 2, 0), 5], 1, "there is no such constant");
    for constant in [NUMBER, 99] {
        refused(
            &[ad(Op::GGET, 2, 0), constant as u32],
            1,
            "the field's name is no string constant",
        );
    }
    let get = abc(Op::SGET, 0, 2, 0);
    let unknown = "no struct and place among the constants";
    refused(&[get, 0], 1, unknown);
    refused(&[get, path_to(STRING)], 1, unknown);
    refused(
        &[get, path_to(BETWEEN)],
        1,
        "no such scalar lies there in the struct",
    );
    for (wanted, extension) in [(0, NUMBER), (1, STRING), (2, 200), (3, 0), (8, STRUCT)] {
        refused(
            &[abc(Op::CHECK, 2, wanted, 0), extension as u32],
            1,
            "no type to check for",
        );
    }
    refused(&[ad(Op::SNEW, 2, NUMBER)], 1, "not the type of a struct");
}

#[test]
fn jumps_lead_to_instructions_and_back_only_past_safepoints() {
    let global = ad(Op::GGET, 2, 0);
    for (distance, target) in [(1, 3), (100, 102), (-50, -48)] {
        refused(
            &[jump(Op::JMP, distance), global, STRING as u32, RETURN],
            1,
            &format!("the jump leads to {target}, where no instruction begins"),
        );
    }
    // The head is executed by a call only.
    refused(
        &[jump(Op::LOOP, -2)],
        1,
        "the jump leads to 0, where no instruction begins",
    );
    refused(
        &[jump(Op::LOOP, 0), RETURN],
        1,
        "a loop's end leads forward",
    );
    refused(
        &[jump(Op::JMP, -1)],
        1,
        "a backward jump without a safepoint",
    );
    refused(
        &[ad(Op::ISLT, 2, 3), RETURN],
        1,
        "no jump follows the comparison",
    );
}

#[test]
fn windows_lie_among_the_tagged_registers_of_the_frame() {
    refused(&[ad(Op::KNIL, 3, 2)], 1, "an empty run of registers");
    refused(&[ad(Op::KNIL, 0, 2)], 1, "raw registers among tagged ones");
    refused(&[abc(Op::CONCAT, 2, 3, 3)], 1, "fewer than two operands");
    let iterator = "not the window of an iterator";
    refused(&[abc(Op::ITERCALL, 3, 2, 1)], 1, iterator);
    refused(&[abc(Op::ITERCALL, 6, 1, 1)], 1, iterator);
    refused(&[abc(Op::ITERCALL, 6, 2, 0)], 1, iterator);
    refused(&[ad(Op::ITERLOOP, 1, -1_i16 as u16)], 1, iterator);
    let name = STRING as u32;
    let beyond: &[&[u32]] = &[
        &[ad(Op::KNIL, 7, 8)],
        &[abc(Op::CONCAT, 2, 7, 8)],
        &[abc(Op::SELF, 6, 2, 0), name],
        &[ad(Op::TLIST, 7, 1), 1],
        &[ad(Op::TLISTM, 8, 0), 1],
        &[abc(Op::CALL, 6, 1, 1)],
        &[abc(Op::CALL, 6, 0, 4)],
        &[abc(Op::CALLM, 7, 0, 1)],
        &[ad(Op::TCALL, 6, 1)],
        &[ad(Op::TCALLM, 7, 0)],
        &[ad(Op::RET, 6, 3)],
        &[ad(Op::RET, 9, 0)],
        &[ad(Op::RETM, 6, 3)],
        &[ad(Op::VARG, 6, 4)],
        &[ad(Op::FORPREP, 5, 0), RETURN],
        &[ad(Op::FORLOOP, 5, -1_i16 as u16)],
        &[abc(Op::ITERCALL, 6, 2, 1)],
        &[ad(Op::ITERLOOP, 8, -1_i16 as u16)],
        &[ad(Op::CLOSE, 9, 0)],
        &[ad(Op::PFORPREP, 4, 0), RETURN],
        &[ad(Op::PJOIN, 8, 0)],
    ];
    for code in beyond {
        refused(code, 1, "registers beyond the frame");
    }
}

#[test]
fn numbers_in_operands_mean_something() {
    refused(&[ad(Op::BUILTIN, 2, 999)], 1, "no such built-in function");
    refused(&[ad(Op::ISEQP, 2, 3)], 1, "no such value");
    refused(&[ad(Op::ISNEP, 2, 3)], 1, "no such value");
    refused(&[abc(Op::ICMPF, 0, 1, 10)], 1, "no such comparison");
    refused(&[abc(Op::IBITS, 0, 1, 4)], 1, "no such operation on bits");
}

#[test]
fn instructions_are_in_functions_that_may_have_them() {
    refused(
        &[ad(Op::PFORLOOP, 0, -1_i16 as u16)],
        1,
        "the end of a parallel loop outside its body",
    );
    changed(
        |function| {
            function.variadic = false;
            function.code = vec![ad(Op::FUNC, REGISTERS, 0), ad(Op::VARG, 2, 2)];
        },
        "function main, word 1: extra arguments of a function that has none",
    );
    changed(
        |function| {
            function.captures.clear();
            function.code = vec![
                ad(Op::FUNCV, REGISTERS, 0),
                ad(Op::GGET, 2, 0),
                STRING as u32,
            ];
        },
        "function main, word 1: no environment among the captures",
    );
}

#[test]
fn open_results_are_used_by_the_next_instruction() {
    let unused = "an open number of results is not used at once";
    let open = abc(Op::CALL, 4, 0, 0);
    for next in [
        RETURN,
        ad(Op::RETM, 3, 0),
        abc(Op::CALLM, 3, 0, 1),
        ad(Op::TCALLM, 3, 0),
    ] {
        refused(&[open, next, RETURN], 1, unused);
    }
    refused(&[ad(Op::VARG, 4, 0), RETURN], 1, unused);
    let nothing = "no open number of results comes before this";
    refused(&[ad(Op::RETM, 2, 0)], 1, nothing);
    refused(&[abc(Op::CALLM, 2, 0, 1), RETURN], 1, nothing);
    refused(&[ad(Op::TCALLM, 2, 0), ad(Op::RETM, 2, 0)], 1, nothing);
    refused(
        &[ad(Op::TNEW, 2, 0), ad(Op::TLISTM, 2, 0), 1, RETURN],
        2,
        nothing,
    );
}

#[test]
fn control_ends_in_a_return() {
    refused(&[ad(Op::MOV, 2, 3)], 1, "control runs off the end");
    refused(
        &[ad(Op::MOV, 2, 3), abc(Op::CALL, 2, 0, 1)],
        2,
        "control runs off the end",
    );
}

#[test]
fn cells_and_new_tables_are_there_on_every_path() {
    let no_cell = "register 3 does not hold a cell on every path";
    let (read, new) = (ad(Op::CELLGET, 4, 3), ad(Op::NEWCELL, 3, 2));
    refused(&[read, RETURN], 1, no_cell);
    refused(&[ad(Op::CELLSET, 3, 2), RETURN], 1, no_cell);
    refused(&[ad(Op::RCELLGET, 0, 3), RETURN], 1, no_cell);
    refused(&[ad(Op::RCELLSET, 3, 0), RETURN], 1, no_cell);
    // Made on one of two paths; overwritten; lost in a call; of the other kind.
    let skip = [ad(Op::IST, 0, 2), jump(Op::JMP, 1)];
    refused(&[skip[0], skip[1], new, read, RETURN], 4, no_cell);
    refused(&[new, ad(Op::MOV, 3, 2), read, RETURN], 3, no_cell);
    refused(&[new, abc(Op::CALL, 2, 0, 1), read, RETURN], 3, no_cell);
    refused(&[ad(Op::RNEWCELL, 3, 0), read, RETURN], 2, no_cell);
    refused(&[new, ad(Op::RCELLGET, 0, 3), RETURN], 2, no_cell);
    refused(
        &[ad(Op::TLIST, 2, 1), 1, RETURN],
        1,
        "register 2 does not hold a new table on every path",
    );
    let no_cell = "'up' cannot be captured from register 2";
    refused(&[ad(Op::FNEW, 3, 0), RETURN], 1, no_cell);
    refused(
        &[ad(Op::RNEWCELL, 2, 0), ad(Op::FNEW, 3, 0), RETURN],
        2,
        no_cell,
    );
}

#[test]
fn what_a_callee_left_behind_is_not_read() {
    // The call gives no result: what is in its window and above may be anything.
    let call = abc(Op::CALL, 2, 0, 1);
    for (reader, register) in [
        (ad(Op::MOV, 2, 4), 4),
        (abc(Op::CONCAT, 2, 5, 6), 5),
        (abc(Op::CALL, 4, 0, 1), 4),
        (ad(Op::TCALL, 4, 0), 4),
        (ad(Op::RET, 3, 2), 3),
        (ad(Op::RET1, 7, 0), 7),
        (ad(Op::FORPREP, 4, 0), 4),
        (ad(Op::PFORPREP, 2, 0), 2),
        (ad(Op::PJOIN, 3, 0), 3),
    ] {
        refused(
            &[call, reader, RETURN],
            2,
            &format!("register {register} does not hold a value on every path"),
        );
    }
}

#[test]
fn descriptions_are_consistent() {
    changed(
        |function| function.registers = 251,
        "function main: more registers than a frame can have",
    );
    changed(
        |function| function.parameters = REGISTERS + 1,
        "function main: more registers than a frame can have",
    );
    let raw = "function main: raw registers do not follow the parameters";
    changed(|function| function.raw_start = 1, raw);
    changed(|function| function.raw_count = REGISTERS + 1, raw);
    changed(
        |function| function.lines = vec![1],
        "function main: not every word has a line",
    );
    changed(
        |function| {
            let one = capture("c", CaptureSource::Capture(0), CaptureKind::Value);
            function.captures = vec![one; (1 << 16) + 1];
        },
        "function main: more constants, functions or captures than operands can name",
    );
    changed(
        |function| function.constants = vec![Constant::Integer(0); (1 << 24) + 1],
        "function main: more constants, functions or captures than operands can name",
    );
    changed(
        |function| {
            let child = crate::compile::compile(b"", "t").unwrap();
            function.children = vec![child; (1 << 16) + 1];
        },
        "function main: more constants, functions or captures than operands can name",
    );
    changed(
        |function| function.constants.push(Constant::Struct(1)),
        "function main: a constant is no struct of the chunk",
    );
    changed(|function| function.code.clear(), "function main: no code");
    let head = "function main, word 0: the head disagrees with the function";
    for other in [
        ad(Op::FUNC, REGISTERS, 0),
        ad(Op::FUNCV, REGISTERS + 1, 0),
        ad(Op::FUNCV, REGISTERS, 1),
        RETURN,
    ] {
        changed(|function| function.code[0] = other, head);
    }
}

#[test]
fn structs_have_layouts_and_fields_of_different_names() {
    changed(
        |function| {
            let again = function.structs[0].fields[0].clone();
            function.structs[0].fields.push(again);
        },
        "function main: struct 0: a field is declared twice",
    );
    // One of another module embeds such ones only.
    let mut mixed = function(&[RETURN]);
    let mut other = mixed.structs[0].clone();
    other.origin = Origin::Module("m".into());
    other.fields[0].member = Member::Struct(0);
    mixed.structs.push(other);
    let error = verify(&mixed).unwrap_err();
    assert_eq!(
        error.message,
        "struct 1: a module's struct embeds one that is none"
    );
    mixed.structs[0].origin = Origin::Embedded;
    verify(&mixed).unwrap();
    let mut endless = function(&[RETURN]);
    endless.structs[0].fields[0].member = Member::Struct(0);
    let error = verify(&endless).unwrap_err();
    assert!(error.message.starts_with("struct 0: "), "{error}");
}

#[test]
fn functions_within_functions_are_checked() {
    changed(
        |function| function.parallel_body = true,
        "function main: the body of a parallel loop by itself",
    );
    changed(
        |function| function.children[0].parallel_body = true,
        "function main.0: the body of a parallel loop has four parameters and a loop variable",
    );
    changed(
        |function| function.children[0].code[0] = 0xff,
        "function main.0, word 0: the head disagrees with the function",
    );
    for (source, kind) in [
        (CaptureSource::Capture(1), CaptureKind::Value),
        (CaptureSource::Capture(0), CaptureKind::Cell),
        (CaptureSource::Itself, CaptureKind::Cell),
    ] {
        changed(
            |function| function.children[0].captures = vec![capture("up", source, kind)],
            "function main.0: capture 'up' has no such source",
        );
    }
    let mut deep = function(&[RETURN]);
    for _ in 0..=MAX_DEPTH {
        let mut outer = function(&[RETURN]);
        deep.structs.clear();
        outer.children = vec![deep];
        deep = outer;
    }
    let error = verify(&deep).unwrap_err();
    assert_eq!(error.message, "functions are nested too deeply");
    assert_eq!(error.path.len(), MAX_DEPTH + 1);
}
