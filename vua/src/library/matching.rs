//! `string.find`, `match` and `gmatch`: the pattern machine applied to strings of the heap.
//!
//! The collector does not move objects, and subject and pattern are in the frame as long as a native runs, so their bytes stay valid
//! across safepoints.

use super::access::{BYTES, STEPS};
use super::buffer::long_string;
use super::pattern::{Capture, MAX_CAPTURES, Matcher, PatternError, Progress, is_plain};
use super::string::range_start;
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::value::Value;

/// An error of the pattern.
#[cold]
pub(super) fn refuse(call: &Call<'_>, error: PatternError) -> Throw {
    if error == PatternError::NoMemory {
        Throw::NeedMemory(NeedMemory { bytes: STEPS })
    } else {
        call.message(error)
    }
}

/// Looks for the next match, polling.
pub(super) fn seek(
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
pub(super) fn capture(
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
pub(super) fn captures(
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
