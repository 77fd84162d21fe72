//! The debug library: what of Lua's (reference manual, 6.10) does no harm. Functions can be looked at, not changed, and nobody sees the
//! variables of others.

use alloc::format;
use alloc::string::String;

use super::Builder;
use super::buffer::{Buffer, long_string};
use super::table::is_function;
use crate::heap::NeedMemory;
use crate::interp::frame::Frame;
use crate::interp::native::{Call, Next, Throw};
use crate::object::Gc;
use crate::task::Coroutine;
use crate::task::coroutine::Status;
use crate::value::Value;

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.library("debug", &[("getinfo", getinfo), ("traceback", traceback)])?;
    Ok(())
}

/// Runs `f` on the innermost frame of a coroutine, which no task has meanwhile: `None` if it has none, or a task has it.
fn at_rest<R>(coroutine: Gc<Coroutine>, f: impl FnOnce(Option<Frame>) -> R) -> R {
    for status in [Status::Suspended, Status::Dead] {
        if coroutine.take(status) {
            let result = f(coroutine.innermost());
            coroutine.put_back(status);
            return result;
        }
    }
    f(None)
}

/// The frame `level` levels out from `frame`.
///
/// # Safety
/// The frame is one of a stack that does not change meanwhile.
unsafe fn outward(frame: Option<Frame>, level: i64) -> Option<Frame> {
    let mut frame = frame;
    for _ in 0..level {
        // SAFETY: as the caller says.
        frame = unsafe { frame?.caller() };
    }
    frame
}

/// The native's own frame: level 0.
fn own_frame(call: &Call<'_>) -> Option<Frame> {
    Some(Frame {
        base: call.core.base,
        pc: core::ptr::null(),
    })
}

/// The coroutine that the first argument is, if it is one other than the running one; and the index of the argument after it.
fn other_coroutine(call: &Call<'_>) -> (Option<Gc<Coroutine>>, usize) {
    match Gc::<Coroutine>::from_value(call.get(0)) {
        Some(coroutine) if call.core.coroutine() == Some(coroutine) => (None, 1),
        Some(coroutine) if coroutine.is_main() && call.core.coroutine().is_none() => (None, 1),
        Some(coroutine) => (Some(coroutine), 1),
        None => (None, 0),
    }
}

/// `debug.traceback([thread,] [message [, level]])`.
fn traceback(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (other, first) = other_coroutine(call);
    let message = call.get(first);
    if !message.is_nil() && message.as_str().is_none() && !message.is_number() {
        return Ok(Next::One(message));
    }
    let level = call.optional_integer(first + 1, i64::from(other.is_none()))?;
    let frames = match other {
        Some(coroutine) => at_rest(coroutine, |innermost| {
            // SAFETY: nobody runs the coroutine.
            let from = unsafe { outward(innermost, level) };
            call.core.frames(from)
        }),
        // SAFETY: the running stack.
        None => match unsafe { outward(own_frame(call), level) } {
            Some(frame) => call.core.traceback(frame),
            None => String::from("stack traceback:"),
        },
    };
    let mut buffer = Buffer::new();
    if !message.is_nil() {
        super::base::append(call, &mut buffer, message)?;
        buffer.push(call, b'\n')?;
    }
    buffer.extend(call, frames.as_bytes())?;
    let text = buffer.into_bytes(call)?;
    let at = call.count().max(3);
    Ok(Next::One(long_string(call, &text, at)?))
}

/// What `getinfo` tells.
#[derive(Default)]
struct Info {
    native: bool,
    main: bool,
    source: String,
    short_source: String,
    defined: (i64, i64),
    line: i64,
    name: Option<(String, String)>,
    parameters: i64,
    variadic: bool,
    captures: i64,
}

/// The name that a chunk was given, from how messages name it. A text of more than a line is known by its beginning only.
fn source(shown: &str, stripped: bool) -> String {
    let text = shown
        .strip_prefix("[string \"")
        .and_then(|text| text.strip_suffix("\"]"));
    match text {
        Some(text) => text.into(),
        None if stripped => format!("={shown}"),
        None => format!("@{shown}"),
    }
}

/// Describes a function, which runs in `frame` unless that is `None`.
fn describe(call: &Call<'_>, function: Value, frame: Option<Frame>) -> Info {
    let mut info = Info {
        native: true,
        source: "=[C]".into(),
        short_source: "[C]".into(),
        defined: (-1, -1),
        line: -1,
        variadic: true,
        ..Info::default()
    };
    if let Some(closure) = function.as_closure()
        && let Some(debug) = closure.proto().debug()
    {
        info.native = false;
        info.main = debug.line == 0;
        info.short_source = String::from(&*debug.source);
        info.source = source(&debug.source, debug.lines.is_empty());
        info.defined = (i64::from(debug.line), i64::from(debug.last_line));
        info.parameters = i64::from(debug.parameters);
        info.variadic = debug.variadic;
        info.captures = debug.captures.len() as i64;
        if let Some(frame) = frame {
            info.line = call.core.frame_line(frame).map_or(-1, i64::from);
        }
    } else if let Some(native) = function.as_native() {
        info.captures = native.captures() as i64;
    }
    if let Some(frame) = frame {
        // SAFETY: the frame is on a stack at rest, or the running one.
        let called = unsafe { frame.caller() }.and_then(|caller| call.core.called_name(caller));
        // `global 'f'`, `method 'm'` and so on.
        info.name = called.and_then(|called| {
            let (kind, name) = called.split_once(" '")?;
            Some((kind.into(), name.trim_end_matches('\'').into()))
        });
    }
    info
}

/// `debug.getinfo([thread,] f [, what])`.
fn getinfo(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (other, first) = other_coroutine(call);
    let options = if call.get(first + 1).is_nil() {
        String::from("Slnrtu")
    } else {
        String::from_utf8_lossy(call.bytes_argument(first + 1)?.bytes()).into_owned()
    };
    if options.starts_with('>') {
        return Err(call.argument_error(first + 1, "invalid option '>'"));
    }
    if options.chars().any(|c| !"SlnrutfL".contains(c)) {
        return Err(call.argument_error(first + 1, "invalid option"));
    }
    let subject = call.get(first);
    let info = if is_function(subject) {
        Some(describe(call, subject, None))
    } else {
        let level = call.integer_argument(first)?;
        let at = |frame: Option<Frame>| {
            // SAFETY: the stack is at rest, or the running one; a frame's function is in the slot two below its base.
            unsafe {
                let frame = outward(frame, level)?;
                let function = Value::from_bits(*frame.base.sub(2));
                Some(describe(call, function, Some(frame)))
            }
        };
        if level < 0 {
            None
        } else {
            match other {
                Some(coroutine) => at_rest(coroutine, at),
                None => at(own_frame(call)),
            }
        }
    };
    let Some(info) = info else {
        return Ok(Next::One(Value::NIL));
    };
    let table = call.new_table(0, 16)?;
    let at = call.count().max(3);
    call.set(at, table.value());
    let text = |call: &mut Call<'_>, name: &str, text: &str| {
        let value = call.string(text.as_bytes())?;
        call.set_field(table, name, value)
    };
    if options.contains('S') {
        text(call, "source", &info.source)?;
        text(call, "short_src", &info.short_source)?;
        let what = match (info.native, info.main) {
            (true, _) => "C",
            (_, true) => "main",
            _ => "Lua",
        };
        text(call, "what", what)?;
    }
    if options.contains('n') {
        let (kind, name) = match &info.name {
            Some((kind, name)) => (kind.as_str(), Some(name.as_str())),
            None => ("", None),
        };
        text(call, "namewhat", kind)?;
        if let Some(name) = name {
            text(call, "name", name)?;
        }
    }
    let integer = |call: &mut Call<'_>, name: &str, i: i64| {
        let value = call.integer(i)?;
        call.set_field(table, name, value)
    };
    if options.contains('S') {
        integer(call, "linedefined", info.defined.0)?;
        integer(call, "lastlinedefined", info.defined.1)?;
    }
    if options.contains('l') {
        integer(call, "currentline", info.line)?;
    }
    if options.contains('u') {
        integer(call, "nups", info.captures)?;
        integer(call, "nparams", info.parameters)?;
        call.set_field(table, "isvararg", Value::boolean(info.variadic))?;
    }
    if options.contains('t') {
        call.set_field(table, "istailcall", Value::FALSE)?;
    }
    Ok(Next::One(table.value()))
}
