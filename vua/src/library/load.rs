//! `load`, `loadfile` and `dofile` (reference manual, 6.1): source text to functions, while the program runs.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Builder;
use super::access::Pace;
use super::base::number_text;
use super::buffer::{Buffer, long_string};
use super::io::Failure;
use super::module_types::{Named, ProgramFiles, Unbound};
use super::table::is_function;
use crate::bytecode::binary;
use crate::compile::{modules, without_first_comment};
use crate::heap::{Budget, NeedMemory};
use crate::interp::native::{Call, Next, Throw};
use crate::object::Loaded;
use crate::value::Value;
use smp::platform::FileError;

/// Defines the functions.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("dofile", dofile)?;
    builder.global("load", load)?;
    builder.global("loadfile", loadfile)
}

/// The longest name of a chunk that is shown (`LUA_IDSIZE`, its terminator not counted).
const LONGEST: usize = 59;

/// How messages name a chunk: `=name` and `@name` as that name, anything else is the source itself, of which the first line is shown if it is a text.
fn shown_name(name: &[u8]) -> String {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match name {
        [b'=', rest @ ..] => lossy(&rest[..rest.len().min(LONGEST)]),
        [b'@', rest @ ..] if rest.len() <= LONGEST => lossy(rest),
        [b'@', rest @ ..] => format!("...{}", lossy(&rest[rest.len() - (LONGEST - 3)..])),
        [first, ..] if *first == binary::SIGNATURE[0] => "binary string".into(),
        source => {
            // `[string "`, `...` and `"]` take 14 characters.
            let line = source.split(|b| *b == b'\n').next().unwrap_or(source);
            if line.len() == source.len() && line.len() < LONGEST - 14 {
                format!("[string \"{}\"]", lossy(line))
            } else {
                format!(
                    "[string \"{}...\"]",
                    lossy(&line[..line.len().min(LONGEST - 14)])
                )
            }
        }
    }
}

/// The function that a source text or a binary chunk is, that of a module if there is one, or nil and a message, in slots `at` and `at + 1`.
///
/// The compiler runs to its end without a safepoint: sources are short next to what they do.
pub(super) fn compile(
    call: &mut Call<'_>,
    source: &[u8],
    name: &[u8],
    mode: &[u8],
    environment: Option<Value>,
    module: Option<Named<'_>>,
    at: usize,
) -> Result<Next, Throw> {
    let shown = shown_name(name);
    let is_binary = source.first() == Some(&binary::SIGNATURE[0]);
    let (letter, kind) = if is_binary {
        (b'b', "binary")
    } else {
        (b't', "text")
    };
    if !mode.contains(&letter) {
        let mode = String::from_utf8_lossy(mode);
        return refused(
            call,
            format!("attempt to load a {kind} chunk (mode is '{mode}')"),
            at,
        );
    }
    let files = &ProgramFiles {
        platform: call.platform(),
        types: call.program().module_types(),
    };
    let mut budget = Budget::new(call.heap());
    let function = if is_binary {
        if budget.ask(binary::memory_to_decode(source)) {
            let function = binary::decode(source).map_err(|text| format!("{shown}: {text}"));
            function.map(|function| {
                let more = &mut |bytes| budget.ask(bytes);
                let modules = modules::of_compiled(&function.structs, files, more);
                (function, modules)
            })
        } else {
            Err(String::new())
        }
    } else {
        let (function, modules) =
            crate::compile::compile_within(source, &shown, files, &mut |bytes| budget.ask(bytes));
        function
            .map(|function| (function, modules))
            .map_err(|diagnostics| {
                diagnostics
                    .first()
                    .map_or(String::new(), |diagnostic| diagnostic.one_line())
            })
    };
    if let Some(need) = budget.refused() {
        return Err(Throw::NeedMemory(need));
    }
    let (function, modules) = match function {
        Ok(both) => both,
        Err(text) => {
            drop(budget);
            return refused(call, text, at);
        }
    };
    if let Err(error) = crate::bytecode::verify(&function) {
        drop(budget);
        return refused(call, format!("{shown}: bytecode refused: {error}"), at);
    }
    let (heap, types) = (call.heap(), call.program().module_types());
    let bound = match types.bind(heap, &function, &modules, module) {
        Ok(bound) => bound,
        Err(Unbound::Differs(text)) => {
            drop(budget);
            return refused(call, format!("{shown}: {text}"), at);
        }
        Err(Unbound::Memory(need)) => return Err(Throw::NeedMemory(need)),
    };
    let charge = budget.keep(function.footprint());
    let function = Arc::new(Loaded::new(function, charge));
    let closure = call.main_closure(&function, environment, &bound.types)?;
    call.program().module_types().keep(bound);
    Ok(Next::One(closure))
}

/// The main function of a program, its file loaded with these globals; or why there is none. Passes no safepoint. The message goes by way of slot `at` and the next.
pub(crate) fn load_program(
    call: &mut Call<'_>,
    name: &str,
    globals: Value,
    at: usize,
) -> Result<Result<Value, String>, Throw> {
    let source = match content(call, name)? {
        Ok(source) => source,
        Err(error) => {
            let Failure(why, _) = error.into();
            return Ok(Err(format!("cannot open {name}: {why}")));
        }
    };
    let chunk = format!("@{name}");
    let source = without_first_comment(&source);
    Ok(
        match compile(
            call,
            source,
            chunk.as_bytes(),
            b"bt",
            Some(globals),
            None,
            at,
        )? {
            Next::One(function) => Ok(function),
            _ => Err(call.slot(at + 1).as_str().map_or(String::new(), |text| {
                String::from_utf8_lossy(text.bytes()).into()
            })),
        },
    )
}

/// `string.dump(function [, strip])`.
pub(super) fn dump(call: &mut Call<'_>) -> Result<Next, Throw> {
    if !is_function(call.get(0)) {
        return Err(call.type_error(0, "function"));
    }
    let Some(debug) = call
        .get(0)
        .as_closure()
        .and_then(|closure| closure.proto().debug())
    else {
        return Err(call.message("unable to dump given function"));
    };
    let strip = call.get(1).is_truthy();
    let length = binary::encoded_length(debug.chunk(), debug, strip);
    let mut budget = Budget::new(call.heap());
    if !budget.ask(length) {
        return Err(Throw::NeedMemory(NeedMemory { bytes: length }));
    }
    let bytes = binary::encode_in(debug.chunk(), debug, strip);
    // Charged to the program until they are in the heap.
    let _charge = budget.keep(length);
    let at = call.count().max(2);
    Ok(Next::One(long_string(call, &bytes, at)?))
}

fn refused(call: &mut Call<'_>, text: String, at: usize) -> Result<Next, Throw> {
    let text = call.string(text.as_bytes())?;
    call.set(at, Value::NIL);
    call.set(at + 1, text);
    Ok(Next::Many { at, count: 2 })
}

/// `load(chunk [, chunkname [, mode [, env]]])`. The pieces that a function gives lie in a table in slot `PIECES`.
fn load(call: &mut Call<'_>) -> Result<Next, Throw> {
    const PIECES: usize = 4;
    const CALLEE: usize = 5;
    call.settle(4);
    let chunk = call.slot(0);
    if call.state() == 0 {
        for i in [1, 2] {
            if !call.slot(i).is_nil() {
                call.bytes_argument(i)?;
            }
        }
    }
    let text = |call: &Call<'_>, slot: usize| call.slot(slot).as_str().map(|s| s.bytes());
    let mode = text(call, 2).unwrap_or(b"bt");
    // An environment that is given counts even if it is nil.
    let environment = (call.count() > 3).then(|| call.slot(3));
    if chunk.as_str().is_some() || chunk.is_number() {
        let source = call.bytes_argument(0)?.bytes();
        let name = text(call, 1).unwrap_or(source);
        return compile(call, source, name, mode, environment, None, CALLEE);
    }
    if !is_function(chunk) {
        return Err(call.type_error(0, "function"));
    }
    if call.state() == 0 {
        let pieces = call.new_table(4, 0)?;
        call.set(PIECES, pieces.value());
        return Ok(read(call, CALLEE, chunk));
    }
    if call.failed() {
        // The reader's error is the result, as a syntax error would be.
        let error = call.slot(CALLEE);
        call.set(CALLEE, Value::NIL);
        call.set(CALLEE + 1, error);
        return Ok(Next::Many {
            at: CALLEE,
            count: 2,
        });
    }
    let Some(pieces) = call.slot(PIECES).as_table() else {
        return Ok(Next::Nothing);
    };
    let piece = match call.result(CALLEE).as_number() {
        Some(n) => call.string(number_text(n).as_bytes())?,
        None => call.result(CALLEE),
    };
    match piece.as_str() {
        Some(piece) if piece.len() > 0 => {
            call.append(pieces, piece.value())?;
            return Ok(read(call, CALLEE, chunk));
        }
        None if !piece.is_nil() => {
            return refused(call, "reader function must return a string".into(), CALLEE);
        }
        _ => {}
    }
    let mut buffer = Buffer::new();
    let mut pace = Pace::default();
    for i in 1..=pieces.length() {
        if let Some(piece) = pieces.get_int(i).as_str() {
            buffer.extend(call, piece.bytes())?;
        }
        pace.step(call)?;
    }
    let source = buffer.into_bytes(call)?;
    let name = text(call, 1).unwrap_or(b"=(load)");
    compile(call, &source, name, mode, environment, None, CALLEE)
}

/// The call of `load`'s reader, in slot `at`, for the next piece.
fn read(call: &mut Call<'_>, at: usize, reader: Value) -> Next {
    call.set(at, reader);
    Next::Call {
        at,
        arguments: 0,
        state: 1,
        protected: true,
    }
}

/// The content of a file, or why it cannot be read.
pub(super) fn content(
    call: &mut Call<'_>,
    name: &str,
) -> Result<Result<Vec<u8>, FileError>, Throw> {
    let mut source = Vec::new();
    let mut full = false;
    let read = call.platform().read_file(name, &mut |bytes| match source
        .try_reserve_exact(bytes.len())
    {
        Ok(()) => source.extend_from_slice(bytes),
        Err(_) => full = true,
    });
    if full {
        return Err(Throw::NeedMemory(NeedMemory { bytes: 1 << 20 }));
    }
    Ok(read.map(|()| source))
}

/// The name and the content of the file that argument 0 names; or the message why there is none.
fn read_file(call: &mut Call<'_>) -> Result<Result<(String, Vec<u8>), String>, Throw> {
    let name = call.bytes_argument(0)?;
    let Some(name) = name.to_utf8().map(String::from) else {
        return Err(call.argument_error(0, "invalid file name"));
    };
    Ok(match content(call, &name)? {
        Ok(source) => Ok((name, source)),
        Err(error) => {
            let Failure(why, _) = error.into();
            Err(format!("cannot open {name}: {why}"))
        }
    })
}

/// `loadfile(filename [, mode [, env]])`.
fn loadfile(call: &mut Call<'_>) -> Result<Next, Throw> {
    call.settle(3);
    let mode = if call.slot(1).is_nil() {
        &b"bt"[..]
    } else {
        call.bytes_argument(1)?.bytes()
    };
    let environment = (call.count() > 2).then(|| call.slot(2));
    let at = call.count().max(3);
    match read_file(call)? {
        Ok((name, source)) => compile(
            call,
            without_first_comment(&source),
            format!("@{name}").as_bytes(),
            mode,
            environment,
            None,
            at,
        ),
        Err(text) => refused(call, text, at),
    }
}

/// `dofile(filename)`.
fn dofile(call: &mut Call<'_>) -> Result<Next, Throw> {
    let at = call.count().max(1);
    let (name, source) = read_file(call)?.map_err(|text| call.message(text))?;
    let text = without_first_comment(&source);
    let chunk = format!("@{name}");
    match compile(call, text, chunk.as_bytes(), b"bt", None, None, at)? {
        Next::One(function) => {
            call.set(at, function);
            Ok(Next::TailCall { at, arguments: 0 })
        }
        // nil and a message: a source with an error.
        _ => Err(Throw::Value(call.slot(at + 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::shown_name;

    #[test]
    fn names_of_chunks() {
        assert_eq!(shown_name(b"return 1"), "[string \"return 1\"]");
        assert_eq!(shown_name(b"a\nb"), "[string \"a...\"]");
        assert_eq!(
            shown_name(&[b'x'; 44]),
            alloc::format!("[string \"{}\"]", "x".repeat(44))
        );
        assert_eq!(
            shown_name(&[b'x'; 45]),
            alloc::format!("[string \"{}...\"]", "x".repeat(45))
        );
        assert_eq!(shown_name(b"\x1bVua"), "binary string");
        assert_eq!(shown_name(b"=stdin"), "stdin");
        assert_eq!(shown_name(b"@a/b.lua"), "a/b.lua");
        assert_eq!(
            shown_name(&[&b"@"[..], &[b'y'; 100]].concat()),
            alloc::format!("...{}", "y".repeat(56))
        );
    }
}
