//! `string.find`, `match`, `gmatch` and `gsub`: the pattern machine applied to strings of the heap.
//!
//! The collector does not move objects, and subject and pattern are in the frame as long as a native runs, so their bytes stay valid
//! across safepoints.

use super::access::{BYTES, Fetched, Pace, STEPS};
use super::buffer::{Buffer, long_string};
use super::pattern::{
    Capture, MAX_CAPTURES, Matcher, PatternError, Progress, Replacement, is_plain, replacement,
};
use super::string::range_start;
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::value::{Tag, Value};

/// An error of the pattern.
#[cold]
fn refuse(call: &Call<'_>, error: PatternError) -> Throw {
    if error == PatternError::NoMemory {
        Throw::NeedMemory(NeedMemory { bytes: STEPS })
    } else {
        call.message(error)
    }
}

/// Looks for the next match, polling.
fn seek(
    call: &mut Call<'_>,
    matcher: &mut Matcher,
    subject: &[u8],
    pattern: &[u8],
) -> Result<Option<(usize, usize)>, Throw> {
    loop {
        let mut fuel = STEPS;
        match matcher
            .find(subject, pattern, &mut fuel)
            .map_err(|e| refuse(call, e))?
        {
            Progress::Match { start, end } => return Ok(Some((start, end))),
            Progress::NoMatch => return Ok(None),
            Progress::OutOfFuel => call.poll()?,
        }
    }
}

/// What a capture gives; slot `slot` may be used.
fn capture(
    call: &mut Call<'_>,
    subject: &[u8],
    captured: Capture,
    slot: usize,
) -> Result<Value, Throw> {
    match captured {
        Capture::Position(at) => call.integer(at as i64 + 1),
        Capture::Span(from, to) => long_string(call, &subject[from..to], slot),
    }
}

/// Puts the captures, or the whole match if `whole` and there are none, in slots `at..`; gives their number.
fn captures(
    call: &mut Call<'_>,
    matcher: &Matcher,
    subject: &[u8],
    matched: (usize, usize),
    whole: bool,
    at: usize,
) -> Result<usize, Throw> {
    let count = if whole {
        matcher.values()
    } else {
        matcher.level()
    };
    for i in 0..count {
        let captured = matcher
            .capture(i, matched.0, matched.1)
            .map_err(|e| refuse(call, e))?;
        let value = capture(call, subject, captured, at + i)?;
        call.set(at + i, value);
    }
    Ok(count)
}

pub(super) fn find(call: &mut Call<'_>) -> Result<Next, Throw> {
    find_or_match(call, true)
}

pub(super) fn match_(call: &mut Call<'_>) -> Result<Next, Throw> {
    find_or_match(call, false)
}

fn find_or_match(call: &mut Call<'_>, positions: bool) -> Result<Next, Throw> {
    let (subject, pattern) = (
        call.bytes_argument(0)?.bytes(),
        call.bytes_argument(1)?.bytes(),
    );
    let start = range_start(call.optional_integer(2, 1)?, subject.len()) - 1;
    if start > subject.len() {
        return Ok(Next::One(Value::NIL));
    }
    let at = call.count();
    call.room(at + MAX_CAPTURES + 2)?;
    if positions && (call.get(3).is_truthy() || is_plain(pattern)) {
        return Ok(match plain(call, subject, pattern, start)? {
            None => Next::One(Value::NIL),
            Some(found) => {
                let (first, last) = (
                    call.integer(found as i64 + 1)?,
                    call.integer((found + pattern.len()) as i64)?,
                );
                call.set(at, first);
                call.set(at + 1, last);
                Next::Many { at, count: 2 }
            }
        });
    }
    let mut matcher = Matcher::new(pattern, start, true);
    let Some(matched) = seek(call, &mut matcher, subject, pattern)? else {
        return Ok(Next::One(Value::NIL));
    };
    if !positions {
        let count = captures(call, &matcher, subject, matched, true, at)?;
        return Ok(Next::Many { at, count });
    }
    let (first, last) = (
        call.integer(matched.0 as i64 + 1)?,
        call.integer(matched.1 as i64)?,
    );
    call.set(at, first);
    call.set(at + 1, last);
    let count = captures(call, &matcher, subject, matched, false, at + 2)?;
    Ok(Next::Many {
        at,
        count: count + 2,
    })
}

/// Where `needle` is first found from `start` on.
fn plain(
    call: &mut Call<'_>,
    subject: &[u8],
    needle: &[u8],
    start: usize,
) -> Result<Option<usize>, Throw> {
    // A needle longer than a window would make the windows' overlap all there is; the search is linear in any case.
    let window = BYTES.max(needle.len() * 2);
    let finder = memchr::memmem::Finder::new(needle);
    let mut at = start;
    loop {
        let end = subject.len().min(at + window);
        if let Some(found) = finder.find(&subject[at..end]) {
            return Ok(Some(at + found));
        }
        if end == subject.len() {
            return Ok(None);
        }
        at = end + 1 - needle.len();
        call.poll()?;
    }
}

/// The iterator's captured values: subject, pattern, where to go on, where the last match ended (-1 if there was none).
pub(super) fn gmatch(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (subject, pattern) = (call.bytes_argument(0)?, call.bytes_argument(1)?);
    let start = range_start(call.optional_integer(2, 1)?, subject.len()) - 1;
    // A start beyond the end gives no match, not even an empty one.
    let start = call.integer(start.min(subject.len() + 1) as i64)?;
    let captured = [subject.value(), pattern.value(), start, Value::small(-1)];
    Ok(Next::One(call.native(
        "for iterator",
        gmatch_next,
        &captured,
    )?))
}

fn gmatch_next(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (Some(subject), Some(pattern)) = (call.capture(0).as_str(), call.capture(1).as_str())
    else {
        return Ok(Next::Nothing);
    };
    let (subject, pattern) = (subject.bytes(), pattern.bytes());
    let start = call.capture(2).as_integer().unwrap_or(0) as usize;
    let last = call
        .capture(3)
        .as_integer()
        .and_then(|last| usize::try_from(last).ok());
    let at = call.count();
    call.room(at + MAX_CAPTURES)?;
    let mut matcher = Matcher::new(pattern, start, false);
    matcher.restart(start, last);
    let Some(matched) = seek(call, &mut matcher, subject, pattern)? else {
        call.set_captured_integer(2, subject.len() as i64 + 1)?;
        return Ok(Next::One(Value::NIL));
    };
    let count = captures(call, &matcher, subject, matched, true, at)?;
    call.set_captured_integer(2, matched.1 as i64)?;
    call.set_captured_integer(3, matched.1 as i64)?;
    Ok(Next::Many { at, count })
}

// Slots of `gsub` behind its four arguments, for what must survive a call.

/// How many replacements were made.
const COUNT: usize = 4;
/// Whether anything changed.
const CHANGED: usize = 5;
/// Where the match that the call is about begins and ends.
const START: usize = 6;
const END: usize = 7;
/// Where the match before ended; -1 if there was none.
const LAST: usize = 8;
/// How many pieces of the result there are.
const PIECES: usize = 9;
/// For strings under construction.
const SCRATCH: usize = 10;
/// What the call gave.
const RESULT: usize = 11;
/// The pieces, each at least twice as long as the next.
const FIRST_PIECE: usize = 12;
/// No more pieces than this can be, for lengths below 2^47.
const MAX_PIECES: usize = 50;
/// The call's frame.
const CALLEE: usize = FIRST_PIECE + MAX_PIECES;

/// A state: the call has been made, its result is at [`CALLEE`].
const CALLED: u32 = 1;
/// A state: the result is at [`RESULT`].
const KEPT: u32 = 2;

/// The result so far: pieces in the frame, from earlier steps, and what this step has added.
struct Outcome {
    buffer: Buffer,
    pieces: usize,
}

impl Outcome {
    /// Makes a piece of what this step has added, and joins pieces so that their lengths keep falling: so the copying
    /// is of the order n log n in all, and their number is a logarithm.
    fn flush(&mut self, call: &mut Call<'_>) -> Result<(), Throw> {
        let mut added = core::mem::replace(&mut self.buffer, Buffer::new());
        if added.len() == 0 {
            return Ok(());
        }
        let mut length = added.len();
        let mut from = self.pieces;
        while from > 0 && Self::piece_length(call, from - 1) < 2 * length {
            from -= 1;
            length += Self::piece_length(call, from);
        }
        if from < self.pieces {
            let mut joined = Buffer::new();
            for i in from..self.pieces {
                Self::append_piece(call, &mut joined, i)?;
            }
            let bytes = added.into_bytes(call)?;
            joined.extend(call, &bytes)?;
            added = joined;
        }
        let piece = added.into_string(call, SCRATCH)?;
        call.set(FIRST_PIECE + from, piece);
        self.pieces = from + 1;
        Ok(())
    }

    fn piece_length(call: &Call<'_>, i: usize) -> usize {
        call.slot(FIRST_PIECE + i).as_str().map_or(0, |s| s.len())
    }

    fn append_piece(call: &mut Call<'_>, buffer: &mut Buffer, i: usize) -> Result<(), Throw> {
        match call.slot(FIRST_PIECE + i).as_str() {
            Some(piece) => buffer.extend(call, piece.bytes()),
            None => Ok(()),
        }
    }

    fn into_string(self, call: &mut Call<'_>) -> Result<Value, Throw> {
        if self.pieces == 0 {
            return self.buffer.into_string(call, SCRATCH);
        }
        let mut whole = Buffer::new();
        for i in 0..self.pieces {
            Self::append_piece(call, &mut whole, i)?;
        }
        let bytes = self.buffer.into_bytes(call)?;
        whole.extend(call, &bytes)?;
        whole.into_string(call, SCRATCH)
    }
}

/// In state 1 it goes on after the call of the replacement function, or of the `__index` of the replacement table.
pub(super) fn gsub(call: &mut Call<'_>) -> Result<Next, Throw> {
    call.settle(4);
    let (subject, pattern) = (call.bytes_argument(0)?, call.bytes_argument(1)?);
    let (subject, pattern, whole) = (subject.bytes(), pattern.bytes(), subject.value());
    let with = call.get(2);
    let most = if call.get(3).is_nil() {
        subject.len() as i64 + 1
    } else {
        call.integer_argument(3)?
    };
    if with.is_number() {
        call.bytes_argument(2)?;
    } else if with.as_str().is_none() && with.as_table().is_none() && !with.has_tag(Tag::Function) {
        return Err(call.type_error(2, "string/function/table"));
    }
    let with = call.get(2);

    let first = call.state() == 0;
    call.room(CALLEE + MAX_CAPTURES + 2)?;
    let saved = |call: &Call<'_>, slot| call.slot(slot).as_integer().unwrap_or(0);
    let (mut done, mut count, mut changed, mut last, pieces) = if first {
        (0, 0, false, None, 0)
    } else {
        let last = usize::try_from(saved(call, LAST)).ok();
        (
            saved(call, END) as usize,
            saved(call, COUNT),
            call.slot(CHANGED).is_truthy(),
            last,
            saved(call, PIECES) as usize,
        )
    };
    let mut result = Outcome {
        buffer: Buffer::new(),
        pieces,
    };
    let mut matcher = Matcher::new(pattern, done, true);
    let mut pace = Pace::default();
    if !first {
        let (start, end) = (saved(call, START) as usize, saved(call, END) as usize);
        // Kept elsewhere, so that the step may run again after it has begun to prepare the next call.
        if call.state() == CALLED {
            let value = call.result(CALLEE);
            call.set(RESULT, value);
            call.advance(KEPT);
        }
        let value = call.slot(RESULT);
        changed |= replace(call, &mut result.buffer, value, &subject[start..end])?;
        last = Some(end);
        if matcher.is_anchored() {
            return finish(call, result, whole, &subject[done..], changed, count);
        }
    }
    while count < most {
        pace.step(call)?;
        matcher.restart(done, last);
        let Some((start, end)) = seek(call, &mut matcher, subject, pattern)? else {
            break;
        };
        result.buffer.extend(call, &subject[done..start])?;
        count += 1;
        if let Some(text) = with.as_str() {
            substitute(
                call,
                &mut result.buffer,
                text.bytes(),
                &matcher,
                subject,
                (start, end),
            )?;
            changed = true;
        } else {
            let value = if let Some(table) = with.as_table() {
                let captured = matcher
                    .capture(0, start, end)
                    .map_err(|e| refuse(call, e))?;
                let key = capture(call, subject, captured, SCRATCH)?;
                call.set(SCRATCH, key);
                call.fetch(table.value(), key, CALLEE, 1)?
            } else {
                call.set(CALLEE, with);
                let arguments = captures(call, &matcher, subject, (start, end), true, CALLEE + 2)?;
                Fetched::Call(Next::Call {
                    at: CALLEE,
                    arguments,
                    state: 1,
                    protected: false,
                })
            };
            match value {
                Fetched::Value(value) => {
                    changed |= replace(call, &mut result.buffer, value, &subject[start..end])?
                }
                Fetched::Call(next) => {
                    result.flush(call)?;
                    let last = last.map_or(-1, |last| last as i64);
                    for (slot, value) in [
                        (COUNT, count),
                        (START, start as i64),
                        (END, end as i64),
                        (LAST, last),
                        (PIECES, result.pieces as i64),
                    ] {
                        let value = call.integer(value)?;
                        call.set(slot, value);
                    }
                    call.set(CHANGED, Value::boolean(changed));
                    return Ok(next);
                }
            }
        }
        done = end;
        last = Some(end);
        if matcher.is_anchored() {
            break;
        }
    }
    finish(call, result, whole, &subject[done..], changed, count)
}

fn finish(
    call: &mut Call<'_>,
    mut result: Outcome,
    whole: Value,
    rest: &[u8],
    changed: bool,
    count: i64,
) -> Result<Next, Throw> {
    let text = if changed {
        result.buffer.extend(call, rest)?;
        result.into_string(call)?
    } else {
        whole
    };
    call.set(SCRATCH, text);
    let count = call.integer(count)?;
    call.set(SCRATCH + 1, count);
    Ok(Next::Many {
        at: SCRATCH,
        count: 2,
    })
}

/// Appends what a function or table gave for a match; whether that is another text.
fn replace(
    call: &mut Call<'_>,
    buffer: &mut Buffer,
    value: Value,
    matched: &[u8],
) -> Result<bool, Throw> {
    if !value.is_truthy() {
        buffer.extend(call, matched)?;
        return Ok(false);
    }
    if value.as_str().is_none() && !value.is_number() {
        return Err(call.message(format_args!(
            "invalid replacement value (a {})",
            call.type_name(value)
        )));
    }
    super::base::append(call, buffer, value)?;
    Ok(true)
}

/// Appends a replacement string for a match.
fn substitute(
    call: &mut Call<'_>,
    buffer: &mut Buffer,
    text: &[u8],
    matcher: &Matcher,
    subject: &[u8],
    matched: (usize, usize),
) -> Result<(), Throw> {
    for piece in replacement(text) {
        match piece.map_err(|e| refuse(call, e))? {
            Replacement::Text(text) => buffer.extend(call, text)?,
            Replacement::Whole => buffer.extend(call, &subject[matched.0..matched.1])?,
            Replacement::Capture(i) => match matcher
                .capture(i, matched.0, matched.1)
                .map_err(|e| refuse(call, e))?
            {
                Capture::Span(from, to) => buffer.extend(call, &subject[from..to])?,
                Capture::Position(at) => {
                    buffer.extend(call, crate::number::integer_text(at as i64 + 1).as_bytes())?
                }
            },
        }
    }
    Ok(())
}
