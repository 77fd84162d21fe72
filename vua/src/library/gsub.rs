//! `string.gsub`.
//!
//! The result grows in a string under construction that a slot of the frame keeps alive, so what one step has made is there for the next, and
//! a replacement by a function costs two copies of short texts and no memory of its own. How far the text goes is noted in the frame when a step ends, and when
//! one that wants memory is to run again: from the last match on, which then writes the same bytes to the same places.

use super::access::{BYTES, Fetched, Pace};
use super::buffer::{discard, fill_at, long_string, unfilled};
use super::matching::{capture, captures, refuse, seek};
use super::pattern::{Capture, MAX_CAPTURES, Matcher, Replacement, replacement};
use super::table::kept;
use crate::interp::native::{Call, Next, Throw};
use crate::object::{Gc, Str};
use crate::value::{Tag, Value};

// Slots behind the four arguments, for what must survive a call.

/// How many replacements were made.
const COUNT: usize = 4;
/// Whether anything changed.
const CHANGED: usize = 5;
/// Where the match that the call is about begins and ends.
const START: usize = 6;
const END: usize = 7;
/// Where the match before ended; -1 if there was none.
const LAST: usize = 8;
/// How much of the text at [`TEXT`] there is.
const FILLED: usize = 9;
/// The result so far, at the beginning of a longer string; nil if nothing was added yet.
const TEXT: usize = 10;
/// For strings under construction.
const SCRATCH: usize = 11;
/// What the call gave.
const RESULT: usize = 12;
/// What a table gave, while it is appended.
const VALUE: usize = 13;
/// The call's frame.
const CALLEE: usize = 14;

/// A state: the call has been made, its result is at [`CALLEE`].
const CALLED: u32 = 1;
/// A state: the result is at [`RESULT`].
const KEPT: u32 = 2;
/// A state: the next match is looked for.
const RESUMED: u32 = 3;

/// The result, as far as this step has made it.
struct Text {
    string: Option<Gc<Str>>,
    filled: usize,
    /// What the first string is made for.
    expected: usize,
}

impl Text {
    /// Appends bytes, which are in a root of the collector or not on its heap at all. Polls where they are long.
    #[inline]
    fn append(&mut self, call: &mut Call<'_>, bytes: &[u8]) -> Result<(), Throw> {
        if let Some(string) = self.string
            && bytes.len() <= BYTES
            && bytes.len() <= string.len() - self.filled
        {
            fill_at(string, self.filled, bytes);
            self.filled += bytes.len();
            return Ok(());
        }
        self.append_slowly(call, bytes)
    }

    #[cold]
    fn append_slowly(&mut self, call: &mut Call<'_>, bytes: &[u8]) -> Result<(), Throw> {
        let needed = self.filled + bytes.len();
        if needed == 0 {
            return Ok(());
        }
        let string = match self.string {
            Some(string) if needed <= string.len() => string,
            old => {
                let length = needed.max(old.map_or(self.expected, |old| 2 * old.len()));
                let string = unfilled(call, length, SCRATCH)?;
                if let Some(old) = old {
                    copy(call, string, 0, &old.bytes()[..self.filled])?;
                }
                call.set(TEXT, string.value());
                call.set(SCRATCH, Value::NIL);
                self.string = Some(string);
                if let Some(old) = old {
                    // SAFETY: it was in slot `TEXT` alone.
                    unsafe { discard(call.heap(), old) };
                }
                string
            }
        };
        copy(call, string, self.filled, bytes)?;
        self.filled = needed;
        Ok(())
    }
}

/// Writes bytes into a string under construction, with a safepoint after each slice but the last.
fn copy(call: &mut Call<'_>, string: Gc<Str>, at: usize, bytes: &[u8]) -> Result<(), Throw> {
    let mut at = at;
    for (i, part) in bytes.chunks(BYTES).enumerate() {
        if i > 0 {
            call.poll()?;
        }
        fill_at(string, at, part);
        at += part.len();
    }
    Ok(())
}

/// How far the replacing has come.
#[derive(Clone, Copy)]
struct Progress {
    /// The subject before this is done.
    done: usize,
    count: i64,
    changed: bool,
    /// Where the last match ended.
    last: Option<usize>,
    /// How much of the text there is.
    filled: usize,
}

impl Progress {
    fn load(call: &Call<'_>) -> Progress {
        let saved = |slot| call.slot(slot).as_integer().unwrap_or(0);
        Progress {
            done: saved(END) as usize,
            count: saved(COUNT),
            changed: call.slot(CHANGED).is_truthy(),
            last: usize::try_from(saved(LAST)).ok(),
            filled: saved(FILLED) as usize,
        }
    }

    /// Keeps it in the frame, and where the match that is being replaced begins and ends.
    fn save(self, call: &mut Call<'_>, (start, end): (usize, usize)) -> Result<(), Throw> {
        for (slot, value) in [
            (COUNT, self.count),
            (START, start as i64),
            (END, end as i64),
            (LAST, self.last.map_or(-1, |last| last as i64)),
            (FILLED, self.filled as i64),
        ] {
            // Lengths fit 47 bits, so no integer here needs memory.
            let value = call.integer(value)?;
            call.set(slot, value);
        }
        call.set(CHANGED, Value::boolean(self.changed));
        Ok(())
    }
}

/// `gsub(s, pattern, repl [, n])`. In later states it goes on after the call of the replacement function, or of the `__index` of the replacement table, or
/// after memory was wanted.
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
    let mut text = Text {
        string: None,
        filled: 0,
        expected: subject.len() + 16,
    };
    let mut now = Progress {
        done: 0,
        count: 0,
        changed: false,
        last: None,
        filled: 0,
    };
    if first {
        call.set(TEXT, Value::NIL);
    } else {
        now = Progress::load(call);
        text.filled = now.filled;
        text.string = call.slot(TEXT).as_str();
    }
    let mut matcher = Matcher::new(pattern, now.done, true);
    let mut pace = Pace::default();
    if matches!(call.state(), CALLED | KEPT) {
        let (start, end) = (kept(call, START) as usize, kept(call, END) as usize);
        // Kept elsewhere, so that the step may run again after it has begun to prepare the next call.
        if call.state() == CALLED {
            let value = call.result(CALLEE);
            call.set(RESULT, value);
            call.advance(KEPT);
        }
        let value = call.slot(RESULT);
        now.changed |= replace(call, &mut text, value, &subject[start..end])?;
        now.last = Some(end);
        now.filled = text.filled;
    }
    // An anchored pattern matches once.
    while now.count < most && !(matcher.is_anchored() && now.count > 0) {
        pace.step(call)?;
        matcher.restart(now.done, now.last);
        let Some(matched) = seek(call, &mut matcher, subject, pattern)? else {
            break;
        };
        match replace_match(call, &mut text, &matcher, subject, with, (now, matched)) {
            Ok(Replaced::Done(changed)) => {
                now = Progress {
                    done: matched.1,
                    count: now.count + 1,
                    changed: now.changed | changed,
                    last: Some(matched.1),
                    filled: text.filled,
                }
            }
            Ok(Replaced::Call(next)) => return Ok(next),
            Err(throw) => return Err(resume_from(call, now, throw)),
        }
    }
    finish(call, text, whole, &subject[now.done..], now)
        .map_err(|throw| resume_from(call, now, throw))
}

/// If memory is wanted, the step runs again from here, not from its start: what it has made so far needs not be made again.
fn resume_from(call: &mut Call<'_>, now: Progress, throw: Throw) -> Throw {
    if matches!(throw, Throw::NeedMemory(_)) {
        if let Err(throw) = now.save(call, (now.done, now.done)) {
            return throw;
        }
        call.advance(RESUMED);
    }
    throw
}

/// What became of a match.
enum Replaced {
    /// It is replaced; whether by another text.
    Done(bool),
    /// This is to be called for the replacement.
    Call(Next),
}

/// Appends what is before a match and its replacement.
fn replace_match(
    call: &mut Call<'_>,
    text: &mut Text,
    matcher: &Matcher,
    subject: &[u8],
    with: Value,
    (now, (start, end)): (Progress, (usize, usize)),
) -> Result<Replaced, Throw> {
    text.append(call, &subject[now.done..start])?;
    if let Some(template) = with.as_str() {
        substitute(call, text, template.bytes(), matcher, subject, (start, end))?;
        return Ok(Replaced::Done(true));
    }
    let value = if let Some(table) = with.as_table() {
        let captured = matcher
            .capture(0, start, end)
            .map_err(|e| refuse(call, e))?;
        let key = capture(call, subject, captured, SCRATCH)?;
        call.set(SCRATCH, key);
        call.fetch(table.value(), key, CALLEE, CALLED)?
    } else {
        call.set(CALLEE, with);
        let arguments = captures(call, matcher, subject, (start, end), true, CALLEE + 2)?;
        Fetched::Call(Next::Call {
            at: CALLEE,
            arguments,
            state: CALLED,
            protected: false,
        })
    };
    match value {
        Fetched::Value(value) => {
            call.set(VALUE, value);
            replace(call, text, value, &subject[start..end]).map(Replaced::Done)
        }
        Fetched::Call(next) => {
            let at_call = Progress {
                count: now.count + 1,
                filled: text.filled,
                ..now
            };
            at_call.save(call, (start, end))?;
            Ok(Replaced::Call(next))
        }
    }
}

fn finish(
    call: &mut Call<'_>,
    mut text: Text,
    whole: Value,
    rest: &[u8],
    now: Progress,
) -> Result<Next, Throw> {
    let result = if now.changed {
        text.append(call, rest)?;
        match text.string {
            Some(string) if text.filled == string.len() => string.value(),
            Some(string) => long_string(call, &string.bytes()[..text.filled], SCRATCH)?,
            None => call.string(b"")?,
        }
    } else {
        whole
    };
    call.set(SCRATCH, result);
    let count = call.integer(now.count)?;
    call.set(RESULT, count);
    Ok(Next::Many {
        at: SCRATCH,
        count: 2,
    })
}

/// Appends what a function or table gave for a match; whether that is another text.
fn replace(
    call: &mut Call<'_>,
    text: &mut Text,
    value: Value,
    matched: &[u8],
) -> Result<bool, Throw> {
    if !value.is_truthy() {
        text.append(call, matched)?;
        return Ok(false);
    }
    if let Some(string) = value.as_str() {
        text.append(call, string.bytes())?;
    } else if let Some(number) = value.as_number() {
        text.append(call, super::base::number_text(number).as_bytes())?;
    } else {
        return Err(call.message(format_args!(
            "invalid replacement value (a {})",
            call.type_name(value)
        )));
    }
    Ok(true)
}

/// Appends a replacement string for a match.
fn substitute(
    call: &mut Call<'_>,
    text: &mut Text,
    template: &[u8],
    matcher: &Matcher,
    subject: &[u8],
    matched: (usize, usize),
) -> Result<(), Throw> {
    for piece in replacement(template) {
        match piece.map_err(|e| refuse(call, e))? {
            Replacement::Text(bytes) => text.append(call, bytes)?,
            Replacement::Whole => text.append(call, &subject[matched.0..matched.1])?,
            Replacement::Capture(i) => match matcher
                .capture(i, matched.0, matched.1)
                .map_err(|e| refuse(call, e))?
            {
                Capture::Span(from, to) => text.append(call, &subject[from..to])?,
                Capture::Position(at) => {
                    text.append(call, crate::number::integer_text(at as i64 + 1).as_bytes())?
                }
            },
        }
    }
    Ok(())
}
