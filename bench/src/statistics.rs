//! Medians and spreads of repeated timings.

use serde::Serialize;

/// What repeated measurements of one thing came to, in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// Each measurement, in the order in which they were made.
    pub all: Vec<f64>,
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Timing {
    /// The summary; `None` of nothing.
    pub fn of(all: Vec<f64>) -> Option<Timing> {
        let median = median(&all)?;
        Some(Timing {
            median,
            least: all.iter().copied().fold(f64::INFINITY, f64::min),
            most: all.iter().copied().fold(0.0, f64::max),
            all,
        })
    }

    /// The distance between the extremes as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.most - self.least) / self.median
    }
}

/// The middle of some numbers, of an even count the mean of the two in the middle.
pub fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The geometric mean of some ratios.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    if ratios.is_empty() {
        return None;
    }
    let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    Some((sum / ratios.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_do_not_depend_on_order_and_ignore_one_that_is_far_out() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[90.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let timing = Timing::of(vec![2.0, 1.0, 4.0]).unwrap();
        assert_eq!((timing.least, timing.median, timing.most), (1.0, 2.0, 4.0));
        assert_eq!(timing.spread(), 1.5);
        assert!(Timing::of(Vec::new()).is_none());
    }

    #[test]
    fn a_geometric_mean_treats_twice_and_half_alike() {
        assert_eq!(geometric_mean(&[]), None);
        let mean = geometric_mean(&[2.0, 0.5, 1.0]).unwrap();
        assert!((mean - 1.0).abs() < 1e-12);
    }
}
