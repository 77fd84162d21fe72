//! The pieces of a reduction's range. Their number and bounds follow from the range alone, so that the results, combined in order, do not
//! depend on cores and schedules.

use crate::interp::native::{Call, Next, Throw};
use crate::interp::throw::Leave;
use crate::interp::{Core, Range};
use crate::number;
use crate::value::Value;

/// The most pieces of a range: enough for a thousand cores, and few enough that what they leave behind is small.
const MOST: u128 = 1024;

/// How many iterations a prepared range has. A float range takes its indices from the first by multiplication.
fn iterations(start: Value, limit: Value, step: Value) -> u128 {
    if let (Some(i), Some(end), Some(by)) =
        (start.as_integer(), limit.as_integer(), step.as_integer())
    {
        return u128::from(i.abs_diff(end) / by.unsigned_abs().max(1)) + 1;
    }
    let (Some(i), Some(end), Some(by)) = (start.as_float(), limit.as_float(), step.as_float())
    else {
        return 0;
    };
    // The cast saturates; a range of more iterations never ends.
    number::floor((end - i) / by) as u128 + 1
}

fn prepared(core: &mut Core, values: [Value; 3]) -> Result<Option<[Value; 3]>, Throw> {
    match core.range(values[0], values[1], values[2]) {
        Ok(Range::Runs(start, limit, step)) => Ok(Some([start, limit, step])),
        Ok(Range::Empty) => Ok(None),
        Err(Leave::Throw(throw)) => Err(throw),
        Err(Leave::Exit(_)) => Err(Throw::Cancelled),
    }
}

/// `(start, limit, step)`: the three as the loop takes them, and the number of pieces.
pub(super) fn pieces(call: &mut Call<'_>) -> Result<Next, Throw> {
    let given = [call.get(0), call.get(1), call.get(2)];
    let (range, count) = match prepared(call.core, given)? {
        Some(range) => {
            let [start, limit, step] = range;
            (range, iterations(start, limit, step).min(MOST))
        }
        None => (given, 0),
    };
    for (i, value) in range.into_iter().enumerate() {
        call.set(i, value);
    }
    call.set(3, Value::small(count as i32));
    Ok(Next::Many { at: 0, count: 4 })
}

/// `(start, limit, step, count, number)`: the first and the last index of a piece, whose numbers begin with 1.
pub(super) fn piece(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (start, limit, step) = (call.get(0), call.get(1), call.get(2));
    let (count, number) = (call.integer_argument(3)?, call.integer_argument(4)?);
    if count < 1 || !(1..=count).contains(&number) {
        return Err(call.message("no such piece"));
    }
    let all = iterations(start, limit, step);
    let before = |number: i64| all * number as u128 / count as u128;
    let (first, last) = (before(number - 1), before(number).saturating_sub(1));
    if let (Some(i), Some(by)) = (start.as_integer(), step.as_integer()) {
        let at = |n: u128| i.wrapping_add(by.wrapping_mul(n as i64));
        let (first, last) = (call.integer(at(first))?, call.integer(at(last))?);
        call.set(0, first);
        call.set(1, last);
    } else {
        let (i, by) = (call.number_argument(0)?, call.number_argument(2)?);
        call.set(0, Value::float(i + by * first as f64));
        // Half a step beyond, so that rounding leaves the last index in.
        call.set(1, Value::float(i + by * (last as f64 + 0.5)));
    }
    Ok(Next::Many { at: 0, count: 2 })
}
