//! What is known on every path: loops that store on one of two ways, runs of registers, open results, captures.

use super::tests::{REGISTERS, RETURN, capture, function, refused};
use super::*;
use crate::bytecode::instructions::{abc, ad, jump};

#[test]
fn what_a_loop_stores_on_one_way_only_is_not_read_on_the_other() {
    let no_value = |register| format!("register {register} does not hold a value on every path");
    // The call leaves anything in 2 and above; then 2 to 4 are nil.
    let (call, nil) = (abc(Op::CALL, 2, 0, 1), ad(Op::KNIL, 2, 4));
    let back = |distance: i16| distance as u16;
    let read = |register| ad(Op::MOV, 2, register);
    // No iteration: the variable is not stored, nor what is called with a parallel loop's index.
    let loops: &[(u32, u16)] = &[(ad(Op::FORPREP, 2, 1), 5), (ad(Op::PFORPREP, 2, 1), 7)];
    for &(begin, variable) in loops {
        let five = ad(Op::KNIL, 2, 6);
        let set = if variable == 5 { nil } else { five };
        let fallen = [call, set, begin, read(variable), RETURN];
        verify(&function(&fallen)).unwrap_or_else(|error| panic!("{error}"));
        let jumped = [call, set, begin, RETURN, read(variable), RETURN];
        refused(&jumped, 5, &no_value(variable));
    }
    // The end of a loop: what the body left in the variable's place may be anything.
    let body = abc(Op::CALL, 5, 0, 1);
    let end = ad(Op::FORLOOP, 2, back(-2));
    let (values, one) = (ad(Op::KNIL, 2, 5), ad(Op::FORPREP, 2, 2));
    refused(&[values, one, body, end, read(5), RETURN], 5, &no_value(5));
    refused(
        &[
            call,
            ad(Op::KNIL, 4, 4),
            ad(Op::ITERLOOP, 4, back(-2)),
            read(2),
            RETURN,
        ],
        4,
        &no_value(2),
    );
    // What lies between a parallel loop's function and its arguments is never stored.
    let arguments = [
        call,
        ad(Op::KNIL, 2, 2),
        ad(Op::KNIL, 4, 6),
        ad(Op::PFORPREP, 2, 0),
    ];
    let mut code = arguments.to_vec();
    code.extend([read(3), RETURN]);
    refused(&code, 5, &no_value(3));
}

#[test]
fn every_reader_of_a_run_of_registers_needs_values_there() {
    let call = abc(Op::CALL, 2, 0, 1);
    let open = abc(Op::CALL, 7, 0, 0);
    let nil = |first, last| ad(Op::KNIL, first, last);
    let readers: &[(&[u32], u8)] = &[
        (&[nil(2, 3), abc(Op::ITERCALL, 6, 2, 1)], 4),
        (&[nil(2, 4), ad(Op::FORLOOP, 4, 0xfffd)], 5),
        (&[ad(Op::ITERLOOP, 4, 0xfffe)], 4),
        (&[ad(Op::TNEW, 2, 0), ad(Op::TLIST, 2, 2), 1], 3),
        (
            &[nil(7, 7), ad(Op::TNEW, 2, 0), open, ad(Op::TLISTM, 2, 4), 1],
            3,
        ),
        (&[nil(7, 7), nil(2, 2), open, abc(Op::CALLM, 2, 3, 1)], 4),
        (
            &[
                nil(7, 7),
                nil(2, 2),
                open,
                ad(Op::TCALLM, 2, 3),
                ad(Op::RETM, 2, 0),
            ],
            4,
        ),
        (&[nil(7, 7), nil(2, 2), open, ad(Op::RETM, 2, 5)], 3),
    ];
    for (reader, register) in readers {
        let mut code = vec![call];
        code.extend_from_slice(reader);
        code.push(RETURN);
        // An iterator's window takes more registers.
        let mut function = function(&code);
        function.registers = 12;
        function.code[0] = ad(Op::FUNCV, 12, 0);
        let error = verify(&function).unwrap_err();
        assert_eq!(
            error.message,
            format!("register {register} does not hold a value on every path"),
            "{reader:?}"
        );
    }
}

#[test]
fn variables_are_closed_between_open_results_and_their_return_only() {
    let open = abc(Op::CALL, 4, 0, 0);
    let close = ad(Op::CLOSE, 2, 0);
    verify(&function(&[open, close, ad(Op::RETM, 4, 0)])).unwrap();
    let unused = "an open number of results is not used at once";
    for next in [ad(Op::RETM, 3, 0), abc(Op::CALLM, 2, 0, 1), close, RETURN] {
        refused(&[open, close, next, RETURN], 1, unused);
    }
    // Nothing may lead to the one or the other from elsewhere.
    let nothing = "no open number of results comes before this";
    for distance in [1, 2] {
        let skip = [ad(Op::IST, 0, 2), jump(Op::JMP, distance)];
        refused(
            &[skip[0], skip[1], open, close, ad(Op::RETM, 4, 0)],
            5,
            nothing,
        );
    }
    refused(&[close, ad(Op::RETM, 4, 0)], 2, nothing);
}

#[test]
fn captures_come_from_registers_of_their_kinds() {
    let kinds = [
        (CaptureKind::Value, 0),
        (CaptureKind::Raw, 2),
        (CaptureKind::Raw, REGISTERS),
        (CaptureKind::Value, REGISTERS),
        (CaptureKind::Cell, 0),
        (CaptureKind::RawCell, 0),
        (CaptureKind::RawCell, 2),
    ];
    for (kind, register) in kinds {
        let mut function = function(&[ad(Op::NEWCELL, 2, 3), ad(Op::FNEW, 3, 0), RETURN]);
        function.children[0].captures =
            vec![capture("up", CaptureSource::Register(register), kind)];
        assert_eq!(
            verify(&function).unwrap_err().message,
            format!("'up' cannot be captured from register {register}"),
            "{kind:?}"
        );
    }
    // A value that a callee left behind is none.
    let mut function = function(&[abc(Op::CALL, 2, 0, 1), ad(Op::FNEW, 3, 0), RETURN]);
    function.children[0].captures = vec![capture(
        "up",
        CaptureSource::Register(4),
        CaptureKind::Value,
    )];
    assert_eq!(
        verify(&function).unwrap_err().message,
        "'up' cannot be captured from register 4"
    );
}
