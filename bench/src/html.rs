//! The HTML page: one file that refers to nothing outside itself.

use std::fmt::Write;

use serde_json::Value;

use crate::plot::{Curve, Look, curves, escape, stacked};
use crate::results::{Parallel, Results, Row};

const STYLE: &str = "
:root{--ink:#1c2024;--soft:#6b7480;--paper:#fff;--rule:#e3e6ea;--host:#0b6bcb;--kernel:#b3401f;--sim:#2f7d4f;--bound:#8a63b8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#98a2ad;--paper:#15181b;--rule:#2c3238;--host:#5aa9f5;--kernel:#f08a66;--sim:#6cc592;--bound:#b99be0}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1180px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin:2em 0 .3em;border-top:1px solid var(--rule);padding-top:1em}
p,li{color:var(--soft)}.plots{display:flex;flex-wrap:wrap;gap:14px}.plots svg{width:360px;max-width:100%}
svg{display:block}text{fill:var(--ink);font:11px system-ui,sans-serif}.title{font-weight:600;font-size:12px}.tick{fill:var(--soft);font-size:10px}
.grid{stroke:var(--rule)}.line{fill:none;stroke-width:2}.dashed{stroke-dasharray:5 4}.thin{stroke-width:1}
.line.host,.point.host{stroke:var(--host)}.line.kernel,.point.kernel{stroke:var(--kernel)}.line.sim,.point.sim{stroke:var(--sim)}.line.bound{stroke:var(--bound)}.line.ideal{stroke:var(--soft);stroke-dasharray:1 3}
.point{stroke-width:1.5}.point.host{fill:var(--host)}.point.kernel{fill:var(--kernel)}.point.hollow{fill:var(--paper)}
.part0{fill:#2f7d4f}.part1{fill:#0b6bcb}.part2{fill:#c9a227}.part3{fill:#b3401f}.part4{fill:#8a63b8}.part5{fill:#7d8790}
table{border-collapse:collapse;font-size:13px;margin:.6em 0}td,th{padding:2px 10px;text-align:right;border-bottom:1px solid var(--rule)}td:first-child,th:first-child{text-align:left}
";

/// The page.
pub fn render(results: &Results) -> String {
    let machine = &results.machine;
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Viridis benchmarks</title><style>{STYLE}</style>\
         <h1>Viridis benchmarks</h1><p>{}, {} cores; {}; revision {}; medians of {} runs each.</p>",
        escape(&machine.processor),
        machine.cores,
        escape(&machine.system),
        escape(&machine.revision),
        results.repeats
    );
    if results.interrupted {
        page.push_str("<p><b>Interrupted: the rest was not measured.</b></p>");
    }
    if results.quick {
        page.push_str("<p><b>Small sizes: these times say nothing.</b></p>");
    }
    if !results.parallel.is_empty() {
        page.push_str(
            "<p>Filled points were timed, on no more cores than the machine has; without a line between them, on more. Hollow points on dashed lines \
             were simulated: the real scheduler on virtual cores, counted in interpreter instructions, without caches and memory. \
             The thin line is the bound that work and span set.</p>",
        );
    }
    for program in &results.parallel {
        parallel(&mut page, program);
    }
    sequential(&mut page, results);
    if !results.notes.is_empty() {
        page.push_str("<h2>Left out</h2><ul>");
        for note in &results.notes {
            _ = write!(page, "<li>{}</li>", escape(note));
        }
        page.push_str("</ul>");
    }
    page.push_str("</html>\n");
    page
}

fn timed(name: &'static str, rows: &[Row], figure: impl Fn(&Row) -> Option<f64>) -> [Curve; 2] {
    let curve = |over: bool, look| Curve {
        name: name.to_owned(),
        class: name,
        look,
        points: rows
            .iter()
            .filter(|row| row.oversubscribed == over)
            .filter_map(|row| Some((row.cores as f64, figure(row)?)))
            .collect(),
    };
    [
        curve(false, Look::Measured),
        curve(true, Look::Oversubscribed),
    ]
}

fn parallel(page: &mut String, program: &Parallel) {
    _ = write!(page, "<h2>{}</h2>", escape(&program.name));
    let simulated_cores = || {
        program
            .simulated
            .iter()
            .filter_map(|report| report["cores"].as_u64())
            .map(|cores| cores as usize)
    };
    let most = program
        .host
        .iter()
        .chain(&program.kernel)
        .map(|row| row.cores)
        .chain(simulated_cores())
        .max()
        .unwrap_or(1);
    let simulated = |figure: &str| Curve {
        name: "simulated".into(),
        class: "sim",
        look: Look::Simulated,
        points: simulated_cores()
            .filter_map(|cores| Some((cores as f64, program.simulated(cores, figure)?)))
            .collect(),
    };
    let powers = || {
        (0..)
            .map(|n| 2f64.powi(n))
            .take_while(|&p| p <= most as f64)
    };
    let ideal = |of: fn(f64) -> f64| Curve {
        name: "ideal".into(),
        class: "ideal",
        look: Look::Bound,
        points: powers().map(|cores| (cores, of(cores))).collect(),
    };
    let parallelism = program.figure("parallelism");
    let bound = |of: fn(f64, f64) -> f64| Curve {
        name: "bound".into(),
        class: "bound",
        look: Look::Bound,
        points: parallelism.map_or_else(Vec::new, |parallelism| {
            powers()
                .map(|cores| (cores, of(cores, parallelism)))
                .collect()
        }),
    };
    page.push_str("<div class=\"plots\">");
    let mut speedups = vec![ideal(|cores| cores), bound(f64::min), simulated("speedup")];
    speedups.extend(timed("host", &program.host, |row| row.speedup));
    speedups.extend(timed("kernel", &program.kernel, |row| row.speedup));
    page.push_str(&curves("speed-up", true, false, &speedups));
    let mut efficiencies = vec![
        ideal(|_| 1.0),
        bound(|cores, parallelism| (parallelism / cores).min(1.0)),
        simulated("efficiency"),
    ];
    efficiencies.extend(timed("host", &program.host, |row| row.efficiency));
    efficiencies.extend(timed("kernel", &program.kernel, |row| row.efficiency));
    page.push_str(&curves("efficiency", false, true, &efficiencies));
    for (place, rows) in [("host", &program.host), ("kernel", &program.kernel)] {
        if let Some(row) = rows.iter().max_by_key(|row| row.cores) {
            counters(page, place, row);
        }
    }
    page.push_str("</div>");
    if let (Some(work), Some(span), Some(burdened)) = (
        program.figure("work"),
        program.figure("span"),
        program.figure("burdened_span"),
    ) {
        _ = write!(
            page,
            "<p>Work {:.2} million instructions, span {:.3}, burdened span {:.3}: parallelism {:.1}, burdened {:.1}.</p>",
            work / 1e6,
            span / 1e6,
            burdened / 1e6,
            work / span,
            work / burdened
        );
    }
    rows(page, program);
}

/// Where each core's time went, and where its tasks came from.
fn counters(page: &mut String, place: &str, row: &Row) {
    let of = |core: &Value, name: &str| core[name].as_f64().unwrap_or(0.0);
    let bars = |parts: &dyn Fn(&Value) -> Vec<f64>| -> Vec<(String, Vec<f64>)> {
        row.counters
            .iter()
            .enumerate()
            .map(|(i, core)| (format!("core {i}"), parts(core)))
            .collect()
    };
    if row.counters.is_empty() {
        return;
    }
    let elapsed = row.timing.all.last().copied().unwrap_or_default();
    let time = bars(&|core| {
        let (parked, safepoints) = (of(core, "parked_ns") / 1e9, of(core, "safepoint_ns") / 1e9);
        vec![(elapsed - parked - safepoints).max(0.0), parked, safepoints]
    });
    page.push_str(&stacked(
        &format!("{place}, {} cores: time", row.cores),
        &["running", "asleep", "at safepoints"],
        &time,
        "s",
    ));
    let tasks = bars(&|core| {
        let (all, steals, injected) = (of(core, "tasks"), of(core, "steals"), of(core, "injected"));
        vec![
            (all - steals - injected).max(0.0),
            steals,
            injected,
            of(core, "failed_steals"),
            of(core, "wake_ups"),
            of(core, "handshakes"),
        ]
    });
    page.push_str(&stacked(
        &format!("{place}, {} cores: events", row.cores),
        &[
            "own tasks",
            "steals",
            "from the queue",
            "failed steals",
            "wake-ups",
            "handshakes",
        ],
        &tasks,
        "",
    ));
}

fn rows(page: &mut String, program: &Parallel) {
    page.push_str("<table><tr><th>where<th>cores<th>median<th>least<th>most<th>speed-up<th>efficiency<th>share of independent runs</tr>");
    for (place, rows) in [("host", &program.host), ("kernel", &program.kernel)] {
        for row in rows {
            let number = |n: Option<f64>| n.map_or_else(|| "–".to_owned(), |n| format!("{n:.2}"));
            _ = write!(
                page,
                "<tr><td>{place}{}<td>{}<td>{:.3} s<td>{:.3}<td>{:.3}<td>{}<td>{}<td>{}</tr>",
                if row.oversubscribed {
                    ", oversubscribed"
                } else {
                    ""
                },
                row.cores,
                row.timing.median,
                row.timing.least,
                row.timing.most,
                number(row.speedup),
                number(row.efficiency),
                number(row.share)
            );
        }
    }
    page.push_str("</table>");
}

fn sequential(page: &mut String, results: &Results) {
    if results.sequential.is_empty() {
        return;
    }
    page.push_str("<h2>Sequential programs, one core</h2><table><tr><th>program<th>host<th>kernel");
    let names: Vec<&str> = crate::measure::PEERS
        .iter()
        .map(|peer| peer.name)
        .filter(|name| {
            let mut peers = results.sequential.iter().flat_map(|p| &p.peers);
            peers.any(|peer| peer.name == *name)
        })
        .collect();
    for name in &names {
        _ = write!(page, "<th>{}<th>ratio", escape(name));
    }
    page.push_str("</tr>");
    for program in &results.sequential {
        let seconds = |timing: Option<&crate::statistics::Timing>| {
            timing.map_or_else(
                || "–".to_owned(),
                |timing| format!("{:.3} s", timing.median),
            )
        };
        _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}",
            escape(&program.name),
            seconds(program.host.as_ref()),
            seconds(program.kernel.as_ref())
        );
        for name in &names {
            let peer = program.peers.iter().find(|peer| peer.name == *name);
            _ = write!(
                page,
                "<td>{}<td>{}",
                seconds(peer.map(|peer| &peer.timing)),
                peer.and_then(|peer| peer.ratio)
                    .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
            );
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}
