//! `table.sort`: Lua's quicksort (after Sedgewick), as a machine that can stop at every comparison.
//!
//! It compares the same elements in the same order as Lua's, so an order function that is none gives the same error. A table with
//! metamethods is copied to a plain one, sorted there and copied back.

use super::access::{Compared, Fetched, Pace};
use super::table::{check, compare, is_function, keep, kept, length, plain};
use crate::interp::native::{Call, Next, Throw};
use crate::object::Gc;
use crate::table::Table;
use crate::value::Value;

/// The most elements, as in Lua.
const MAX_ELEMENTS: i64 = i32::MAX as i64;

/// Ranges longer than this get a pivot that depends on chance once one was very uneven (`RANLIMIT`).
const LARGE: i64 = 100;

// Slots behind the two arguments.
const LIST: usize = 2;
const SIZE: usize = 3;
const NEXT: usize = 4;
const LOW: usize = 5;
const HIGH: usize = 6;
const MIDDLE: usize = 7;
const I: usize = 8;
const J: usize = 9;
const CHANCE: usize = 10;
const DEPTH: usize = 11;
const PIVOT: usize = 12;
const VERDICT: usize = 13;
/// Ranges still to be sorted, two slots each. The shorter part always goes first, so there are at most 31.
const RANGES: usize = 14;
const CALLEE: usize = RANGES + 64;

// States. Up to `MEASURED` the table's length is asked for.
const MEASURED: u32 = 1;
const COPYING: u32 = 2;
const COPIED: u32 = 3;
const RETURNING: u32 = 4;
const RETURNED: u32 = 5;
/// A range begins, or the next one is taken.
const RANGE: u32 = 6;
/// The three samples are in order.
const PARTITION: u32 = 7;
// From here on a comparison decides: of the last with the first, the middle with the first, the last with the middle,
const LAST_FIRST: u32 = 8;
const MIDDLE_FIRST: u32 = 9;
const LAST_MIDDLE: u32 = 10;
// element I with the pivot, the pivot with element J.
const LEFT: u32 = 11;
const RIGHT: u32 = 12;
/// Added to a state whose comparison has been made: slot `VERDICT` has the outcome.
const DECIDED: u32 = 16;

/// `sort(list [, comp])`.
pub(super) fn sort(call: &mut Call<'_>) -> Result<Next, Throw> {
    if matches!(call.state(), LEFT | RIGHT)
        && let Some(next) = scan(call)
    {
        return Ok(next);
    }
    if call.state() <= MEASURED {
        if call.state() == 0 {
            check(call, 0, &["__index", "__newindex", "__len"])?;
            call.settle(2);
        }
        call.room(CALLEE + 8)?;
        let size = length!(call, MEASURED, CALLEE);
        if size < 2 {
            return Ok(Next::Nothing);
        }
        if size >= MAX_ELEMENTS {
            return Err(call.argument_error(0, "array too big"));
        }
        if !call.slot(1).is_nil() && !is_function(call.slot(1)) {
            return Err(call.type_error(1, "function"));
        }
        keep(call, SIZE, size)?;
        keep(call, NEXT, 1)?;
        for (slot, value) in [
            (LOW, 1),
            (HIGH, size),
            (CHANCE, 0),
            (DEPTH, 0),
            (MIDDLE, 0),
            (I, 0),
            (J, 0),
        ] {
            keep(call, slot, value)?;
        }
        call.set(PIVOT, Value::NIL);
        if plain(call, 0).is_some() {
            call.set(LIST, call.slot(0));
            call.advance(RANGE);
        } else {
            let copy = call.new_table(0, 0)?;
            call.set(LIST, copy.value());
            call.advance(COPYING);
        }
    }
    call.room(CALLEE + 8)?;
    let Some(list) = call.slot(LIST).as_table() else {
        return Ok(Next::Nothing);
    };
    if matches!(call.state(), COPYING | COPIED) {
        if let Some(next) = copy_in(call, list)? {
            return Ok(next);
        }
        call.advance(RANGE);
    }
    if !matches!(call.state(), RETURNING | RETURNED) {
        if let Some(next) = Sorter::load(call, list).run(call)? {
            return Ok(next);
        }
        if plain(call, 0).is_some() && call.slot(0) == list.value() {
            return Ok(Next::Nothing);
        }
        keep(call, NEXT, 1)?;
        call.advance(RETURNING);
    }
    copy_out(call, list)
}

/// After most comparisons, the scan from the left or from the right goes on by one element: the next comparison, without all that a step else
/// loads and saves. `None`, and nothing done, if anything else is to happen.
#[inline]
fn scan(call: &mut Call<'_>) -> Option<Next> {
    if !call.result(CALLEE).is_truthy() || call.slot(1).is_nil() {
        return None;
    }
    let (function, pivot) = (call.slot(1), call.slot(PIVOT));
    let list = call.slot(LIST).as_table()?;
    let state = call.state();
    let (slot, at, (a, b)) = if state == LEFT {
        let i = kept(call, I) + 1;
        if i >= kept(call, HIGH) {
            return None;
        }
        (I, i, (list.get_int(i), pivot))
    } else {
        let j = kept(call, J);
        if j < kept(call, I) {
            return None;
        }
        (J, j - 1, (pivot, list.get_int(j - 1)))
    };
    call.set(slot, Value::inline_integer(at)?);
    Some(call.prepare(CALLEE, function, &[a, b], state))
}

fn copy_in(call: &mut Call<'_>, list: Gc<Table>) -> Result<Option<Next>, Throw> {
    let size = kept(call, SIZE);
    let mut fetched = (call.state() == COPIED).then(|| call.result(CALLEE));
    let mut pace = Pace::default();
    let mut i = kept(call, NEXT);
    while i <= size {
        let key = call.integer(i)?;
        let value = match fetched.take() {
            Some(value) => value,
            None => {
                let object = call.slot(0);
                match call.fetch(object, key, CALLEE, COPIED)? {
                    // What goes back into an array of structs must not change on the way.
                    Fetched::Value(value) => call.detached(object, value)?,
                    Fetched::Call(next) => return Ok(Some(next)),
                }
            }
        };
        call.store(list, key, value)?;
        i += 1;
        keep(call, NEXT, i)?;
        call.advance(COPYING);
        pace.step(call)?;
    }
    Ok(None)
}

fn copy_out(call: &mut Call<'_>, list: Gc<Table>) -> Result<Next, Throw> {
    let size = kept(call, SIZE);
    let mut pace = Pace::default();
    let mut i = kept(call, NEXT);
    if call.state() == RETURNED {
        i += 1;
    }
    while i <= size {
        keep(call, NEXT, i)?;
        call.advance(RETURNING);
        let (object, key) = (call.slot(0), call.integer(i)?);
        if let Some(next) = call.assign(object, key, list.get_int(i), CALLEE, RETURNED)? {
            return Ok(next);
        }
        i += 1;
        pace.step(call)?;
    }
    Ok(Next::Nothing)
}

/// The sort's state, out of the frame for one step.
struct Sorter {
    list: Gc<Table>,
    phase: u32,
    verdict: Option<bool>,
    low: i64,
    high: i64,
    middle: i64,
    i: i64,
    j: i64,
    chance: i64,
    depth: i64,
    /// Whether all but the positions within the range is in the frame as it is here.
    saved: bool,
}

impl Sorter {
    fn load(call: &Call<'_>, list: Gc<Table>) -> Sorter {
        let state = call.state();
        let (phase, verdict) = match state {
            DECIDED.. => (state - DECIDED, Some(call.slot(VERDICT).is_truthy())),
            LAST_FIRST.. => (state, Some(call.result(CALLEE).is_truthy())),
            _ => (state, None),
        };
        Sorter {
            list,
            phase,
            verdict,
            low: kept(call, LOW),
            high: kept(call, HIGH),
            middle: kept(call, MIDDLE),
            i: kept(call, I),
            j: kept(call, J),
            chance: kept(call, CHANCE),
            depth: kept(call, DEPTH),
            saved: true,
        }
    }

    fn save(&mut self, call: &mut Call<'_>) -> Result<(), Throw> {
        keep(call, I, self.i)?;
        keep(call, J, self.j)?;
        if self.saved {
            return Ok(());
        }
        for (slot, value) in [
            (LOW, self.low),
            (HIGH, self.high),
            (MIDDLE, self.middle),
            (CHANCE, self.chance),
            (DEPTH, self.depth),
        ] {
            keep(call, slot, value)?;
        }
        self.saved = true;
        Ok(())
    }

    /// Exchanges two elements. If that must wait, the step begins again here.
    fn swap(&mut self, call: &mut Call<'_>, i: i64, j: i64, verdict: bool) -> Result<(), Throw> {
        match call.swap(self.list, i, j) {
            Ok(()) => Ok(()),
            Err(throw) => {
                self.save(call)?;
                call.set(VERDICT, Value::boolean(verdict));
                call.advance(if self.phase < LAST_FIRST {
                    self.phase
                } else {
                    self.phase + DECIDED
                });
                Err(throw)
            }
        }
    }

    /// Goes on until all is sorted, or a comparison has to be called.
    fn run(mut self, call: &mut Call<'_>) -> Result<Option<Next>, Throw> {
        let function = call.slot(1);
        let mut pace = Pace::default();
        loop {
            pace.step(call)?;
            match self.phase {
                RANGE => {
                    if self.low < self.high {
                        self.phase = LAST_FIRST;
                    } else if self.depth == 0 {
                        return Ok(None);
                    } else {
                        self.depth -= 1;
                        self.saved = false;
                        let at = RANGES + 2 * self.depth as usize;
                        (self.low, self.high) = (kept(call, at), kept(call, at + 1));
                    }
                    continue;
                }
                PARTITION => {
                    if self.high - self.low == 2 {
                        self.end_range();
                        continue;
                    }
                    call.set(PIVOT, self.list.get_int(self.middle));
                    self.swap(call, self.middle, self.high - 1, false)?;
                    self.i = self.low + 1;
                    self.j = self.high - 1;
                    self.phase = LEFT;
                }
                _ => {}
            }
            let verdict = match self.verdict.take() {
                Some(verdict) => verdict,
                None => {
                    let get = |i| self.list.get_int(i);
                    let (a, b) = match self.phase {
                        LAST_FIRST => (get(self.high), get(self.low)),
                        MIDDLE_FIRST => (get(self.middle), get(self.low)),
                        LAST_MIDDLE => (get(self.high), get(self.middle)),
                        LEFT => (get(self.i), call.slot(PIVOT)),
                        _ => (call.slot(PIVOT), get(self.j)),
                    };
                    match compare(call, function, a, b, CALLEE, self.phase)? {
                        Compared::Holds(holds) => holds,
                        Compared::Call(next) => {
                            self.save(call)?;
                            return Ok(Some(next));
                        }
                    }
                }
            };
            self.decide(call, verdict)?;
        }
    }

    fn end_range(&mut self) {
        self.low = self.high;
        self.saved = false;
        self.phase = RANGE;
    }

    /// Does what a comparison's outcome asks for.
    fn decide(&mut self, call: &mut Call<'_>, verdict: bool) -> Result<(), Throw> {
        let (low, high) = (self.low, self.high);
        match self.phase {
            LAST_FIRST => {
                if verdict {
                    self.swap(call, low, high, verdict)?;
                }
                if high - low == 1 {
                    self.end_range();
                    return Ok(());
                }
                self.middle = self.choose();
                self.saved = false;
                self.phase = MIDDLE_FIRST;
            }
            MIDDLE_FIRST => {
                if verdict {
                    self.swap(call, self.middle, low, verdict)?;
                    self.phase = PARTITION;
                } else {
                    self.phase = LAST_MIDDLE;
                }
            }
            LAST_MIDDLE => {
                if verdict {
                    self.swap(call, self.middle, high, verdict)?;
                }
                self.phase = PARTITION;
            }
            LEFT => {
                if !verdict {
                    self.j -= 1;
                    self.phase = RIGHT;
                } else if self.i == high - 1 {
                    return Err(call.message("invalid order function for sorting"));
                } else {
                    self.i += 1;
                }
            }
            _ => {
                if verdict {
                    if self.j < self.i {
                        return Err(call.message("invalid order function for sorting"));
                    }
                    self.j -= 1;
                } else if self.j < self.i {
                    self.swap(call, high - 1, self.i, verdict)?;
                    self.split(call)?;
                } else {
                    self.swap(call, self.i, self.j, verdict)?;
                    self.i += 1;
                    self.phase = LEFT;
                }
            }
        }
        Ok(())
    }

    /// The element at `i` is in its place: the shorter side is next, the longer one waits.
    fn split(&mut self, call: &mut Call<'_>) -> Result<(), Throw> {
        let (low, high, i) = (self.low, self.high, self.i);
        let (shorter, longer) = if i - low < high - i {
            ((low, i - 1), (i + 1, high))
        } else {
            ((i + 1, high), (low, i - 1))
        };
        let at = RANGES + 2 * self.depth as usize;
        keep(call, at, longer.0)?;
        keep(call, at + 1, longer.1)?;
        self.depth += 1;
        self.saved = false;
        if (longer.1 - longer.0) / 128 > shorter.1 - shorter.0 + 1 {
            // Very uneven: the pivots to come depend on something that the data's author does not know.
            self.chance = (call.platform().now() >> 4 & 0xffff_ffff) as i64 | 1;
        }
        (self.low, self.high) = shorter;
        self.phase = RANGE;
        Ok(())
    }

    /// Where the pivot of a range is taken from: the middle, or somewhere in its second or third quarter.
    fn choose(&self) -> i64 {
        if self.high - self.low < LARGE || self.chance == 0 {
            return (self.low + self.high) / 2;
        }
        let quarter = (self.high - self.low) / 4;
        self.chance % (quarter * 2) + self.low + quarter
    }
}
