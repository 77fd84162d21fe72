//! The input and output library (reference manual, 6.8): the console, and files that are read and written whole ([`stream`]).
//!
//! A file handle is an object that holds a number; the streams themselves are the engine's, so that what was written reaches the platform
//! when the program ends, whatever became of the handle. One that the collector finds dead is closed before anything that could tell
//! ([`Files::close_dead`]).

mod stream;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use sync::lock::Lock;

pub(super) use stream::Failure;
pub use stream::Files;
use stream::{Extent, Kind, MAX_NUMERAL, PORTION, Stream, Want, Whence};

use super::Builder;
use super::access::Pace;
use super::buffer::{Buffer, fill_at, unfilled};
use super::table::{keep, kept};
use crate::heap::{self, Header, LocalHeap, NeedMemory};
use crate::interp::native::{Call, Next, Throw};
use crate::number::{self, Flags, Number};
use crate::object::{Gc, Object};
use crate::task::WaitFor;
use crate::value::{Tag, Value};

/// A file handle: its number is the header's word.
#[repr(C)]
pub struct File {
    header: Header,
}

// SAFETY: laid out as the trait demands. Of the kind `File`, no other objects are made.
unsafe impl Object for File {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [heap::Kind] = &[heap::Kind::File];
}

impl File {
    fn new(local: &LocalHeap, number: u32) -> Result<Gc<File>, NeedMemory> {
        let object = local.alloc_object(heap::Kind::File, number, size_of::<File>())?;
        // SAFETY: the object is new and of that size; a header is all there is to it.
        Ok(unsafe { Gc::from_ptr(object.cast()) })
    }

    fn number(file: Gc<File>) -> u32 {
        file.header()
            .word
            .load(core::sync::atomic::Ordering::Relaxed)
    }
}

/// Keys of the table that `io`'s functions share: the default input and output.
const INPUT: i64 = 1;
const OUTPUT: i64 = 2;

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    let library = builder.library(
        "io",
        &[("open", open_file), ("tmpfile", tmpfile), ("type", type_of)],
    )?;
    let methods = builder.table(
        "",
        &[
            ("close", file_close),
            ("flush", file_flush),
            ("lines", file_lines),
            ("read", file_read),
            ("seek", file_seek),
            ("setvbuf", file_setvbuf),
            ("write", file_write),
        ],
    )?;
    let metatable = builder.metatable(methods)?;
    builder.set(metatable, "__name", builder.string("FILE*")?)?;
    builder.set(
        metatable,
        "__tostring",
        builder.function("__tostring", file_tostring, &[])?,
    )?;
    builder.set(
        metatable,
        "__close",
        builder.function("__close", file_end, &[])?,
    )?;
    builder.set(metatable, "__gc", builder.function("__gc", file_end, &[])?)?;
    builder.set_file_metatable(metatable);

    let defaults = builder.empty_table()?;
    for (i, name) in ["stdin", "stdout", "stderr"].iter().enumerate() {
        let file = File::new(builder.heap(), i as u32)?.value();
        builder.set(library, name, file)?;
        if i < 2 {
            builder.set_index(defaults, i as i64 + 1, file)?;
        }
    }
    for (name, function) in [
        ("close", io_close as crate::interp::native::NativeFn),
        ("flush", io_flush),
        ("input", io_input),
        ("lines", io_lines),
        ("output", io_output),
        ("read", io_read),
        ("write", io_write),
    ] {
        builder.define(library, "io.", name, function, &[defaults.value()])?;
    }
    Ok(())
}

type Shared = Arc<Lock<Stream>>;

/// The stream of a handle.
fn stream_of(call: &Call<'_>, file: Gc<File>) -> Result<Shared, Throw> {
    call.engine()
        .files()
        .get(File::number(file))
        .ok_or_else(|| call.message("attempt to use a closed file"))
}

/// Argument `i` as an open file.
fn file_argument(call: &Call<'_>, i: usize) -> Result<Shared, Throw> {
    let file = Gc::<File>::from_value(call.get(i)).ok_or_else(|| call.type_error(i, "FILE*"))?;
    let stream = stream_of(call, file)?;
    if stream.lock().kind() == Kind::Closed {
        return Err(call.message("attempt to use a closed file"));
    }
    Ok(stream)
}

/// The default input or output.
fn default(call: &Call<'_>, which: i64) -> (Value, Option<Gc<File>>) {
    let value = call
        .capture(0)
        .as_table()
        .map_or(Value::NIL, |table| table.get_int(which));
    (value, Gc::from_value(value))
}

fn default_stream(call: &Call<'_>, which: i64) -> Result<(Value, Shared), Throw> {
    let closed = || {
        call.message(format_args!(
            "default {} file is closed",
            if which == INPUT { "input" } else { "output" }
        ))
    };
    let (value, file) = default(call, which);
    let stream = stream_of(call, file.ok_or_else(closed)?)?;
    if stream.lock().kind() == Kind::Closed {
        return Err(closed());
    }
    Ok((value, stream))
}

/// nil, a message and a number: what a failed operation gives.
fn failed(call: &mut Call<'_>, name: Option<&str>, failure: Failure) -> Result<Next, Throw> {
    let text = match name {
        Some(name) => format!("{name}: {}", failure.0),
        None => String::from(failure.0),
    };
    let text = call.string(text.as_bytes())?;
    call.set(0, Value::NIL);
    call.set(1, text);
    call.set(2, Value::small(failure.1));
    Ok(Next::Many { at: 0, count: 3 })
}

/// Argument `i` as a file's name.
fn name_argument(call: &mut Call<'_>, i: usize) -> Result<String, Throw> {
    let name = call.bytes_argument(i)?;
    match name.to_utf8() {
        Some(name) if !name.contains('\0') => Ok(String::from(name)),
        _ => Err(call.argument_error(i, "invalid file name")),
    }
}

/// Opens a file by its name, after closing those that nobody can use any more: it may be one of them.
fn open_stream(call: &Call<'_>, name: &str, mode: &[u8]) -> Result<Stream, Failure> {
    let platform = call.platform();
    call.engine().files().close_dead(platform);
    Stream::open(platform, name, mode)
}

/// A handle of a newly opened file.
fn handle(call: &mut Call<'_>, stream: Stream) -> Result<Value, Throw> {
    let file = File::new(call.heap(), u32::MAX)?;
    let number = call
        .engine()
        .files()
        .add(stream, file.as_ptr() as usize)
        .ok_or(NeedMemory { bytes: 64 })?;
    file.header()
        .word
        .store(number, core::sync::atomic::Ordering::Relaxed);
    Ok(file.value())
}

fn open_file(call: &mut Call<'_>) -> Result<Next, Throw> {
    let name = name_argument(call, 0)?;
    let mode = if call.get(1).is_nil() {
        &b"r"[..]
    } else {
        call.bytes_argument(1)?.bytes()
    };
    let valid = matches!(
        mode,
        [b'r' | b'w' | b'a'] | [b'r' | b'w' | b'a', b'+' | b'b'] | [b'r' | b'w' | b'a', b'+', b'b']
    );
    if !valid {
        return Err(call.argument_error(1, "invalid mode"));
    }
    match open_stream(call, &name, mode) {
        Ok(stream) => Ok(Next::One(handle(call, stream)?)),
        Err(failure) => failed(call, Some(&name), failure),
    }
}

fn tmpfile(call: &mut Call<'_>) -> Result<Next, Throw> {
    call.engine().files().close_dead(call.platform());
    Ok(Next::One(handle(call, Stream::temporary())?))
}

fn type_of(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.any_argument(0)?;
    let Some(file) = Gc::<File>::from_value(value) else {
        return Ok(Next::One(Value::NIL));
    };
    let closed = stream_of(call, file)?.lock().kind() == Kind::Closed;
    Ok(Next::One(call.string(if closed {
        b"closed file"
    } else {
        b"file"
    })?))
}

fn file_tostring(call: &mut Call<'_>) -> Result<Next, Throw> {
    let file = Gc::<File>::from_value(call.get(0)).ok_or_else(|| call.type_error(0, "FILE*"))?;
    let closed = stream_of(call, file)?.lock().kind() == Kind::Closed;
    let text = if closed {
        String::from("file (closed)")
    } else {
        format!("file (0x{:012x})", file.as_ptr() as usize)
    };
    Ok(Next::One(call.string(text.as_bytes())?))
}

fn close(call: &mut Call<'_>, stream: &Shared) -> Result<Next, Throw> {
    let platform = call.platform();
    let closed = {
        let mut stream = stream.lock();
        if stream.kind() == Kind::File {
            stream.close(platform)
        } else {
            Err(Failure("cannot close standard file", 0))
        }
    };
    match closed {
        Ok(()) => Ok(Next::One(Value::TRUE)),
        Err(Failure(text, 0)) => {
            let text = call.string(text.as_bytes())?;
            call.set(0, Value::NIL);
            call.set(1, text);
            Ok(Next::Many { at: 0, count: 2 })
        }
        Err(failure) => failed(call, None, failure),
    }
}

fn file_close(call: &mut Call<'_>) -> Result<Next, Throw> {
    let stream = file_argument(call, 0)?;
    close(call, &stream)
}

fn io_close(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.count() > 0 {
        return file_close(call);
    }
    let closed = "attempt to use a closed file";
    let (_, file) = default(call, OUTPUT);
    let stream = stream_of(call, file.ok_or_else(|| call.message(closed))?)?;
    if stream.lock().kind() == Kind::Closed {
        return Err(call.message(closed));
    }
    close(call, &stream)
}

/// `__close` and `__gc`: closes a file that still is open.
fn file_end(call: &mut Call<'_>) -> Result<Next, Throw> {
    let file = Gc::<File>::from_value(call.get(0)).ok_or_else(|| call.type_error(0, "FILE*"))?;
    {
        let platform = call.platform();
        let stream = stream_of(call, file)?;
        let mut stream = stream.lock();
        if stream.kind() == Kind::File {
            // As in Lua, nobody hears of a failure here.
            let _ = stream.close(platform);
        }
    }
    Ok(Next::Nothing)
}

fn flush(call: &mut Call<'_>, file: Value, stream: &Shared) -> Result<Next, Throw> {
    if stream.lock().kind() == Kind::Output(smp::platform::Stream::Output) {
        call.engine().flush_output();
        // What another core is writing may be this task's, which relies on it when `flush` has returned.
        while call.engine().is_printing() {
            call.poll()?;
        }
    }
    let flushed = stream.lock().flush(call.platform());
    match flushed {
        Ok(()) => Ok(Next::One(file)),
        Err(failure) => failed(call, None, failure),
    }
}

fn file_flush(call: &mut Call<'_>) -> Result<Next, Throw> {
    let stream = file_argument(call, 0)?;
    flush(call, call.get(0), &stream)
}

fn io_flush(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (file, stream) = default_stream(call, OUTPUT)?;
    flush(call, file, &stream)
}

fn file_setvbuf(call: &mut Call<'_>) -> Result<Next, Throw> {
    let stream = file_argument(call, 0)?;
    let mode = call.option_argument(1, None, &["no", "full", "line"])?;
    if stream.lock().kind() == Kind::Output(smp::platform::Stream::Output) {
        call.engine().print_at_once(mode == 0);
    }
    Ok(Next::One(Value::TRUE))
}

fn file_seek(call: &mut Call<'_>) -> Result<Next, Throw> {
    let stream = file_argument(call, 0)?;
    let whence = [Whence::Set, Whence::Current, Whence::End]
        [call.option_argument(1, Some(1), &["set", "cur", "end"])?];
    let offset = call.optional_integer(2, 0)?;
    let moved = stream.lock().seek(whence, offset);
    match moved {
        Ok(position) => Ok(Next::One(call.integer(position as i64)?)),
        Err(failure) => failed(call, None, failure),
    }
}

/// `io.input` and `io.output`.
fn set_default(call: &mut Call<'_>, which: i64, mode: &[u8]) -> Result<Next, Throw> {
    let given = call.get(0);
    if !given.is_nil() {
        let file = if given.as_str().is_some() || given.is_number() {
            let name = name_argument(call, 0)?;
            let stream = open_stream(call, &name, mode).map_err(|failure| {
                call.message(format_args!("cannot open file '{name}' ({})", failure.0))
            })?;
            handle(call, stream)?
        } else {
            file_argument(call, 0)?;
            given
        };
        // The handle is in the frame if storing it must wait; a file opened by name is then there for the second try.
        call.set(0, file);
        if let Some(defaults) = call.capture(0).as_table() {
            call.store(defaults, Value::small(which as i32), file)?;
        }
        return Ok(Next::One(file));
    }
    Ok(Next::One(default(call, which).0))
}

fn io_input(call: &mut Call<'_>) -> Result<Next, Throw> {
    set_default(call, INPUT, b"r")
}

fn io_output(call: &mut Call<'_>) -> Result<Next, Throw> {
    set_default(call, OUTPUT, b"w")
}

/// Writes the arguments from `from` on, all in one piece.
fn write(call: &mut Call<'_>, from: usize, file: Value, stream: &Shared) -> Result<Next, Throw> {
    let mut buffer = Buffer::new();
    let mut pace = Pace::default();
    for i in from..call.count() {
        pace.step(call)?;
        let value = call.get(i);
        if let Some(string) = value.as_str() {
            buffer.extend(call, string.bytes())?;
            continue;
        }
        match value.as_number() {
            Some(Number::Integer(n)) => buffer.extend(call, number::integer_text(n).as_bytes())?,
            // As Lua does, without the `.0` of `tostring`.
            Some(Number::Float(f)) => {
                let flags = Flags {
                    precision: Some(14),
                    ..Flags::default()
                };
                buffer.write(call, |out| number::append_float(out, f, b'g', &flags))?;
            }
            None => return Err(call.type_error(i, "string")),
        }
    }
    let bytes = buffer.into_bytes(call)?;
    let kind = stream.lock().kind();
    let written = match kind {
        Kind::Output(smp::platform::Stream::Output) => {
            call.print(&bytes)?;
            Ok(())
        }
        Kind::Output(smp::platform::Stream::Error) => {
            call.engine().write_error(&bytes);
            Ok(())
        }
        _ => stream.lock().write(&bytes),
    };
    match written {
        Ok(()) => Ok(Next::One(file)),
        Err(failure) => failed(call, None, failure),
    }
}

fn io_write(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (file, stream) = default_stream(call, OUTPUT)?;
    write(call, 0, file, &stream)
}

fn file_write(call: &mut Call<'_>) -> Result<Next, Throw> {
    let stream = file_argument(call, 0)?;
    write(call, 1, call.get(0), &stream)
}

/// What a format asks for; `i` is the argument to blame.
fn want(call: &mut Call<'_>, format: Value, i: usize) -> Result<Want, Throw> {
    if format.is_number() {
        let count = format.as_number().and_then(Number::to_integer);
        let count =
            count.ok_or_else(|| call.argument_error(i, "number has no integer representation"))?;
        return Ok(Want::Count(usize::try_from(count).unwrap_or(usize::MAX)));
    }
    let Some(text) = format.as_str() else {
        return Err(call.type_error(i, "string"));
    };
    let text = text.bytes();
    match text.strip_prefix(b"*").unwrap_or(text).first() {
        Some(b'l') => Ok(Want::Line { whole: false }),
        Some(b'L') => Ok(Want::Line { whole: true }),
        Some(b'n') => Ok(Want::Number),
        Some(b'a') => Ok(Want::All),
        _ => Err(call.argument_error(i, "invalid format")),
    }
}

/// What one attempt to read gave.
enum Taken {
    Value(Value),
    /// The end of the file, or no numeral.
    Nothing,
    /// Input must arrive first.
    Wait,
    Failed(Failure),
}

/// Reads one thing. Nothing is taken from the stream before the value is made; slot `slot` is used.
fn take(call: &mut Call<'_>, stream: &Shared, want: Want, slot: usize) -> Result<Taken, Throw> {
    let platform = call.platform();
    'again: loop {
        let mut seen = 0;
        let mut stamp = stream.lock().stamp();
        let (skip, text, after) = loop {
            let extent = {
                let mut stream = stream.lock();
                if stream.stamp() != stamp {
                    // Another task has read from it, or white space was skipped: the search begins anew.
                    stamp = stream.stamp();
                    seen = 0;
                }
                let extent = stream.measure(platform, want, &mut seen);
                if let Ok(Extent::Found { skip, text, after }) = extent
                    && text <= PORTION
                {
                    // The common case: short enough to be taken at once.
                    let bytes = stream.peek(skip, text);
                    let value = match want {
                        // A longer numeral than is read is none, whatever its beginning is.
                        Want::Number if text >= MAX_NUMERAL => Value::NIL,
                        Want::Number => match number::parse(bytes) {
                            Some(Number::Integer(i)) => call.integer(i)?,
                            Some(Number::Float(f)) => Value::float(f),
                            None => Value::NIL,
                        },
                        _ => call.string(bytes)?,
                    };
                    stream.consume(skip + text + after);
                    return Ok(if value.is_nil() {
                        Taken::Nothing
                    } else {
                        Taken::Value(value)
                    });
                }
                extent
            };
            match extent {
                Ok(Extent::Found { skip, text, after }) => break (skip, text, after),
                Ok(Extent::End) => return Ok(Taken::Nothing),
                Ok(Extent::Pending) => return Ok(Taken::Wait),
                Ok(Extent::Again) => call.poll()?,
                Err(failure) => return Ok(Taken::Failed(failure)),
            }
        };
        let string = unfilled(call, text, slot)?;
        let mut at = 0;
        while at < text {
            {
                let stream = stream.lock();
                let part = stream.peek(skip + at, text - at);
                if stream.stamp() != stamp || part.is_empty() {
                    continue 'again;
                }
                fill_at(string, at, part);
                at += part.len();
            }
            call.poll()?;
        }
        let mut stream = stream.lock();
        if stream.stamp() == stamp {
            stream.consume(skip + text + after);
            return Ok(Taken::Value(string.value()));
        }
    }
}

/// Reads what the formats in slots `from..from + formats` say; the results go to slots `at..`. Slot `at - 1` holds the number of results so far,
/// slot `at - 2` whether one was nothing; both are set before the first step's work.
fn read(
    call: &mut Call<'_>,
    stream: &Shared,
    from: usize,
    formats: usize,
    at: usize,
) -> Result<Next, Throw> {
    let wanted = formats.max(1);
    call.room(at + wanted + 4)?;
    if call.state() == 0 {
        keep(call, at - 1, 0)?;
        call.advance(1);
    }
    let mut done = kept(call, at - 1) as usize;
    while done < wanted {
        let want = if formats == 0 {
            Want::Line { whole: false }
        } else {
            let format = call.slot(from + done);
            want(call, format, from + done)?
        };
        // Counted before the look, so that what arrives after it is not missed.
        let arrivals = call.engine().arrivals();
        match take(call, stream, want, at + done)? {
            Taken::Value(value) => {
                call.set(at + done, value);
                done += 1;
                keep(call, at - 1, done as i64)?;
            }
            Taken::Nothing => {
                call.set(at + done, Value::NIL);
                done += 1;
                break;
            }
            Taken::Wait => {
                return Ok(Next::Wait {
                    until: WaitFor::Input(arrivals),
                    state: 1,
                });
            }
            Taken::Failed(failure) => return failed(call, None, failure),
        }
    }
    Ok(Next::Many { at, count: done })
}

fn io_read(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (_, stream) = default_stream(call, INPUT)?;
    let count = call.count();
    read(call, &stream, 0, count, count + 2)
}

fn file_read(call: &mut Call<'_>) -> Result<Next, Throw> {
    let stream = file_argument(call, 0)?;
    let count = call.count();
    read(call, &stream, 1, count - 1, count + 2)
}

/// The most formats that `lines` takes.
const MAX_FORMATS: usize = 250;

/// The iterator that reads the formats in slots `from..` from `file`, and closes that at its end if `closes`.
fn lines(call: &mut Call<'_>, file: Value, from: usize, closes: bool) -> Result<Value, Throw> {
    let formats = call.count().saturating_sub(from);
    if formats > MAX_FORMATS {
        return Err(call.argument_error(MAX_FORMATS + 1, "too many arguments"));
    }
    let mut captured = [Value::NIL; 2 + MAX_FORMATS];
    captured[0] = file;
    captured[1] = Value::boolean(closes);
    for i in 0..formats {
        captured[2 + i] = call.get(from + i);
    }
    call.native("for iterator", next_line, &captured[..2 + formats])
}

fn file_lines(call: &mut Call<'_>) -> Result<Next, Throw> {
    file_argument(call, 0)?;
    Ok(Next::One(lines(call, call.get(0), 1, false)?))
}

fn io_lines(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.get(0).is_nil() {
        let (file, _) = default_stream(call, INPUT)?;
        return Ok(Next::One(lines(call, file, 1, false)?));
    }
    let name = name_argument(call, 0)?;
    let stream = open_stream(call, &name, b"r").map_err(|failure| {
        call.message(format_args!("cannot open file '{name}' ({})", failure.0))
    })?;
    let file = handle(call, stream)?;
    let at = call.count();
    call.set(at + 3, file);
    let iterator = lines(call, file, 1, true)?;
    call.set(at, iterator);
    call.set(at + 1, Value::NIL);
    call.set(at + 2, Value::NIL);
    // The file is the loop's closing value.
    Ok(Next::Many { at, count: 4 })
}

/// The iterator of `lines`. Its two arguments do not matter; its formats are captured.
fn next_line(call: &mut Call<'_>) -> Result<Next, Throw> {
    let closed = "file is already closed";
    let file = Gc::<File>::from_value(call.capture(0)).ok_or_else(|| call.message(closed))?;
    let stream = stream_of(call, file)?;
    if stream.lock().kind() == Kind::Closed {
        return Err(call.message(closed));
    }
    let formats = call.running().map_or(0, |native| native.captures() - 2);
    call.room(2 * formats + 16)?;
    if call.state() == 0 {
        for i in 0..formats {
            call.set(i, call.capture(2 + i));
        }
    }
    let next = read(call, &stream, 0, formats, formats + 2)?;
    if let Next::Many { at, .. } = next
        && call.slot(at).is_nil()
    {
        if at == 0 {
            // nil, a message, a number: an error that was no end.
            let text = call.slot(1).as_str().map_or(String::new(), |s| {
                String::from_utf8_lossy(s.bytes()).into_owned()
            });
            return Err(call.message(text));
        }
        if call.capture(1).is_truthy() {
            let _ = stream.lock().close(call.platform());
        }
        return Ok(Next::Nothing);
    }
    Ok(next)
}

/// Whether a value is a file handle.
pub(crate) fn is_file(value: Value) -> bool {
    value.object_kind() == Some(heap::Kind::File)
}
