//! Plots as SVG, drawn by hand: curves over the number of cores, and stacked bars.

use std::fmt::Write;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 34.0;

/// How a curve looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Timed: a solid line with filled points.
    Measured,
    /// Timed with more cores than the host has: filled points without a line between them.
    Oversubscribed,
    /// Simulated: a dashed line with hollow points.
    Simulated,
    /// A bound: a thin line without points.
    Bound,
}

/// A curve: a name, a class of the page's style sheet for its colour, a look, and points of cores and value.
pub struct Curve {
    pub name: String,
    pub class: &'static str,
    pub look: Look,
    pub points: Vec<(f64, f64)>,
}

/// A plot over the number of cores, in powers of two. The value's axis goes from 0 or, if `logarithmic`, from 1, up to the largest value.
pub fn curves(title: &str, logarithmic: bool, percent: bool, curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let most_cores = points().map(|p| p.0).fold(2.0, f64::max);
    let most = points().map(|p| p.1).fold(1.0, f64::max);
    let x = |cores: f64| {
        LEFT + (WIDTH - LEFT - RIGHT) * cores.max(1.0).log2() / most_cores.log2().max(1e-9)
    };
    let y = |value: f64| {
        let share = if logarithmic {
            value.max(0.5).log2() / most.log2().max(1e-9)
        } else {
            value / most
        };
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\"><text class=\"title\" x=\"{LEFT}\" y=\"16\">{0}</text>",
        escape(title)
    );
    let mut cores = 1.0;
    while cores <= most_cores {
        line(
            &mut svg,
            "grid",
            (x(cores), TOP),
            (x(cores), HEIGHT - BOTTOM),
        );
        _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{}\">{cores}</text>",
            x(cores),
            HEIGHT - BOTTOM + 14.0
        );
        cores *= 2.0;
    }
    _ = write!(
        svg,
        "<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{}\">cores</text>",
        WIDTH - RIGHT,
        HEIGHT - 6.0
    );
    let ticks: Vec<f64> = if logarithmic {
        (0..=most.log2().floor() as i32)
            .map(|n| 2f64.powi(n))
            .collect()
    } else {
        (0..=4).map(|n| most * f64::from(n) / 4.0).collect()
    };
    for tick in ticks {
        line(&mut svg, "grid", (LEFT, y(tick)), (WIDTH - RIGHT, y(tick)));
        let label = if percent {
            format!("{:.0}%", 100.0 * tick)
        } else {
            format!("{tick:.0}")
        };
        _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{label}</text>",
            LEFT - 5.0,
            y(tick) + 3.5
        );
    }
    for curve in curves {
        let class = curve.class;
        if curve.look != Look::Oversubscribed {
            let path: Vec<String> = curve
                .points
                .iter()
                .map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)))
                .collect();
            let style = match curve.look {
                Look::Measured => "line",
                Look::Simulated => "line dashed",
                _ => "line thin",
            };
            _ = write!(
                svg,
                "<polyline class=\"{style} {class}\" points=\"{}\"/>",
                path.join(" ")
            );
        }
        if curve.look != Look::Bound {
            let fill = if curve.look == Look::Simulated {
                "point hollow"
            } else {
                "point"
            };
            for p in &curve.points {
                _ = write!(
                    svg,
                    "<circle class=\"{fill} {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}, {} cores: {:.3}</title></circle>",
                    x(p.0),
                    y(p.1),
                    escape(&curve.name),
                    p.0,
                    p.1
                );
            }
        }
    }
    svg.push_str("</svg>");
    svg
}

/// Horizontal bars, each a label and parts that add up; parts of one name have one colour.
pub fn stacked(title: &str, names: &[&str], bars: &[(String, Vec<f64>)], unit: &str) -> String {
    let row = 18.0;
    let legend = 18.0 * names.len().div_ceil(3) as f64;
    let height = TOP + legend + row * bars.len() as f64 + 8.0;
    let most = bars
        .iter()
        .map(|(_, parts)| parts.iter().sum::<f64>())
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\"><text class=\"title\" x=\"8\" y=\"16\">{0}</text>",
        escape(title)
    );
    for (i, name) in names.iter().enumerate() {
        let (at, down) = (8.0 + 116.0 * (i % 3) as f64, TOP + 18.0 * (i / 3) as f64);
        _ = write!(
            svg,
            "<rect class=\"part{i}\" x=\"{at}\" y=\"{down}\" width=\"10\" height=\"10\"/><text class=\"tick\" x=\"{}\" y=\"{}\">{}</text>",
            at + 14.0,
            down + 9.0,
            escape(name)
        );
    }
    for (n, (label, parts)) in bars.iter().enumerate() {
        let down = TOP + legend + row * n as f64;
        _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"end\" x=\"60\" y=\"{}\">{}</text>",
            down + 11.0,
            escape(label)
        );
        let mut at = 66.0;
        for (i, part) in parts.iter().enumerate() {
            let width = (WIDTH - 66.0 - RIGHT) * part / most;
            _ = write!(
                svg,
                "<rect class=\"part{i}\" x=\"{at:.1}\" y=\"{down}\" width=\"{width:.1}\" height=\"13\"><title>{}: {part:.3} {unit}</title></rect>",
                escape(names.get(i).unwrap_or(&""))
            );
            at += width;
        }
    }
    svg.push_str("</svg>");
    svg
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    _ = write!(
        svg,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// Text that stands for itself in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_simulated_looks_different_from_what_is_timed() {
        let curve = |look| Curve {
            name: "a<b".into(),
            class: "host",
            look,
            points: vec![(1.0, 1.0), (2.0, 1.9)],
        };
        let of = |look| curves("t", true, false, &[curve(look)]);
        assert!(of(Look::Simulated).contains("dashed") && of(Look::Simulated).contains("hollow"));
        assert!(!of(Look::Measured).contains("dashed") && !of(Look::Measured).contains("hollow"));
        assert!(!of(Look::Oversubscribed).contains("polyline"));
        assert!(!of(Look::Bound).contains("circle"));
        assert!(of(Look::Measured).contains("a&lt;b"));
    }

    #[test]
    fn bars_fill_the_width_in_proportion() {
        let svg = stacked(
            "t",
            &["x", "y"],
            &[
                ("core 0".into(), vec![3.0, 1.0]),
                ("core 1".into(), vec![0.0, 1.0]),
            ],
            "s",
        );
        let full = WIDTH - 66.0 - RIGHT;
        assert!(svg.contains(&format!("width=\"{:.1}\"", full * 0.75)));
        assert_eq!(
            svg.matches(&format!("width=\"{:.1}\"", full * 0.25))
                .count(),
            2
        );
    }
}
