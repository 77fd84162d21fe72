//! `memory.stats()`: what memory the program has, and what the collector did.

use super::Builder;
use crate::heap::NeedMemory;
use crate::heap::collect::Histogram;
use crate::interp::native::{Call, Next, Throw};
use crate::object::Gc;
use crate::table::Table;
use crate::value::Value;

pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.library("memory", &[("stats", stats)])?;
    Ok(())
}

/// Bytes of the program's objects, dead ones since the last collection included.
pub(super) fn used(call: &Call<'_>) -> usize {
    let local = call.heap();
    local
        .heap()
        .used_bytes(local.program())
        .saturating_sub(local.unfilled())
}

fn stats(call: &mut Call<'_>) -> Result<Next, Throw> {
    let heap = call.heap().heap();
    let program = call.heap().program();
    let statistics = heap.statistics();
    // What is under construction lies in the frame: the table, and in it those of the pauses and of one line of their histogram.
    let at = call.count();
    call.room(at + 4)?;
    let table = call.new_table(0, 8)?;
    call.set(at, table.value());
    let used = used(call);
    let bytes = [
        ("used", Some(used)),
        ("limit", heap.limit(program)),
        ("live", Some(statistics.live())),
        ("most_live", Some(statistics.most_live())),
        ("allocated", Some(heap.allocated_bytes())),
        ("collections", Some(statistics.collections() as usize)),
    ];
    for (name, value) in bytes {
        if let Some(value) = value {
            integer(call, table, name, value as u64)?;
        }
    }
    let pauses = times(call, at + 1, statistics.pauses())?;
    call.set_field(table, "pauses", pauses.value())?;
    Ok(Next::One(table.value()))
}

fn integer(call: &mut Call<'_>, table: Gc<Table>, name: &str, i: u64) -> Result<(), Throw> {
    let value = call.integer(i64::try_from(i).unwrap_or(i64::MAX))?;
    call.set_field(table, name, value)
}

/// A table of times in seconds, in slot `at`; the two behind it are used too.
fn times(call: &mut Call<'_>, at: usize, histogram: &Histogram) -> Result<Gc<Table>, Throw> {
    let seconds = |nanoseconds: u64| Value::float(nanoseconds as f64 / 1e9);
    let table = call.new_table(0, 8)?;
    call.set(at, table.value());
    call.set_field(table, "longest", seconds(histogram.longest()))?;
    call.set_field(table, "total", seconds(histogram.total()))?;
    for (name, percent) in [("median", 50), ("p99", 99)] {
        call.set_field(table, name, seconds(histogram.percentile(percent)))?;
    }
    let lines = call.new_table(0, 0)?;
    call.set(at + 1, lines.value());
    for (i, (below, count)) in (1i64..).zip(histogram.counts()) {
        let line = call.new_table(0, 2)?;
        call.set(at + 2, line.value());
        call.set_field(line, "below", seconds(below))?;
        integer(call, line, "count", count.into())?;
        let key = call.integer(i)?;
        call.store(lines, key, line.value())?;
    }
    call.set_field(table, "histogram", lines.value())?;
    Ok(table)
}
