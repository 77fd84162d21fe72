//! The table on standard output.

use std::fmt::Write;

use crate::results::{Parallel, Results, Row};
use crate::statistics::{Timing, geometric_mean};

/// All results as text.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    let machine = &results.machine;
    // Writing to a string does not fail, here and below.
    _ = writeln!(
        text,
        "{}, {} cores, {}, {}",
        machine.processor, machine.cores, machine.system, machine.revision
    );
    if results.quick {
        _ = writeln!(text, "Small sizes: these times say nothing.");
    }
    for program in &results.parallel {
        parallel(&mut text, program);
    }
    sequential(&mut text, results);
    for note in &results.notes {
        _ = writeln!(text, "note: {note}");
    }
    if results.interrupted {
        _ = writeln!(text, "interrupted: the rest was not measured");
    }
    text
}

fn seconds(timing: &Timing) -> String {
    format!("{:.3} s ±{:.0}%", timing.median, 50.0 * timing.spread())
}

fn row(text: &mut String, place: &str, row: &Row) {
    _ = write!(
        text,
        "  {place:<9} {:>4}  {:>16}",
        row.cores,
        seconds(&row.timing)
    );
    if let (Some(speedup), Some(efficiency)) = (row.speedup, row.efficiency) {
        _ = write!(text, "  {speedup:>7.2}x  {:>4.0}%", 100.0 * efficiency);
    }
    if let Some(share) = row.share {
        _ = write!(text, "  {share:.2} of independent runs");
    }
    if row.oversubscribed {
        _ = write!(text, "  oversubscribed");
    }
    text.push('\n');
}

fn parallel(text: &mut String, program: &Parallel) {
    _ = writeln!(text, "\n{}", program.name);
    for one in &program.host {
        row(text, "host", one);
    }
    for one in &program.kernel {
        row(text, "kernel", one);
    }
    for report in &program.simulated {
        let figure = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
        _ = writeln!(
            text,
            "  {:<9} {:>4}  {:>16}  {:>7.2}x  {:>4.0}%",
            "simulated",
            figure("cores"),
            format!("{:.1} M", figure("time") / 1e6),
            figure("speedup"),
            100.0 * figure("efficiency")
        );
    }
    if let (Some(work), Some(span), Some(burdened)) = (
        program.figure("work"),
        program.figure("span"),
        program.figure("burdened_span"),
    ) {
        _ = writeln!(
            text,
            "  work {:.2} M instructions, span {:.3} M, burdened {:.3} M: parallelism {:.1}, burdened {:.1}",
            work / 1e6,
            span / 1e6,
            burdened / 1e6,
            work / span,
            work / burdened
        );
    }
}

fn sequential(text: &mut String, results: &Results) {
    if results.sequential.is_empty() {
        return;
    }
    _ = writeln!(text, "\nsequential, one core");
    for program in &results.sequential {
        _ = write!(text, "  {:<16}", program.name);
        if let Some(timing) = &program.host {
            _ = write!(text, " {:>16}", seconds(timing));
        }
        if let Some(timing) = &program.kernel {
            _ = write!(text, "  kernel {:>8.3} s", timing.median);
        }
        for peer in &program.peers {
            if let Some(ratio) = peer.ratio {
                _ = write!(text, "  {ratio:.2} of {}", peer.name);
            }
        }
        text.push('\n');
    }
    for name in crate::measure::PEERS.iter().map(|peer| peer.name) {
        let ratios: Vec<f64> = results
            .sequential
            .iter()
            .flat_map(|program| &program.peers)
            .filter(|peer| peer.name == name)
            .filter_map(|peer| peer.ratio)
            .collect();
        if let Some(mean) = geometric_mean(&ratios) {
            _ = writeln!(
                text,
                "  geometric mean of {} programs: {mean:.3} of the time of {name}",
                ratios.len()
            );
        }
    }
}
