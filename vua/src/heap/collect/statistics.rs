//! Figures about collections, for `--stats` and `memory.stats`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;

/// Times by powers of two of a microsecond: place 0 counts those below 1 µs, place `i` those from 2^(i-1) to below 2^i.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u32; 24],
    longest: u64,
    total: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, nanoseconds: u64) {
        let place = (nanoseconds / 1000)
            .checked_ilog2()
            .map_or(0, |log| log as usize + 1);
        self.counts[place.min(self.counts.len() - 1)] += 1;
        self.longest = self.longest.max(nanoseconds);
        self.total += nanoseconds;
    }

    /// The longest, in nanoseconds.
    pub(crate) fn longest(&self) -> u64 {
        self.longest
    }

    /// The sum, in nanoseconds.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Those places that are not empty: below how many nanoseconds, and how many times.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (u64, u32)> {
        let below = |i: usize| 1000u64 << i;
        let counts = self.counts.iter().enumerate();
        counts
            .filter(|(_, count)| **count != 0)
            .map(move |(i, count)| (below(i), *count))
    }

    /// A time in nanoseconds that `percent` of the times stay below, or reach at most: the end of a place, or the longest. 0 if there are none.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let mut left = (all * percent).div_ceil(100);
        for (below, count) in self.counts() {
            left = left.saturating_sub(count.into());
            if left == 0 {
                return below.min(self.longest);
            }
        }
        self.longest
    }

    /// As JSON: the counts by their upper bounds in microseconds, the longest and the sum in nanoseconds.
    pub fn json(&self) -> String {
        let mut text = String::from("{\"below_us\":{");
        let mut first = true;
        for (i, count) in self.counts.iter().enumerate().filter(|(_, c)| **c != 0) {
            if !first {
                text.push(',');
            }
            first = false;
            text.push_str(&format!("\"{}\":{count}", 1u64 << i));
        }
        text.push_str(&format!(
            "}},\"longest_ns\":{},\"total_ns\":{}}}",
            self.longest, self.total
        ));
        text
    }
}

/// Figures about all collections.
#[derive(Clone, Debug)]
pub struct Statistics {
    collections: u32,
    /// From the request to the last core stopped.
    stops: Histogram,
    /// From there to the end.
    pauses: Histogram,
    /// Bytes alive after the last one, and the most.
    live: usize,
    most_live: usize,
    /// Bytes that cores had taken to fill until the last one.
    allocated: usize,
    /// Objects looked into by each core.
    traced: Box<[u64]>,
}

impl Statistics {
    pub(super) fn new(cpus: usize) -> Statistics {
        Statistics {
            collections: 0,
            stops: Histogram::default(),
            pauses: Histogram::default(),
            live: 0,
            most_live: 0,
            allocated: 0,
            traced: vec![0; cpus].into_boxed_slice(),
        }
    }

    pub(super) fn add_collection(&mut self, stop: u64, pause: u64, live: usize, taken: usize) {
        self.allocated += taken;
        self.collections += 1;
        self.stops.add(stop);
        self.pauses.add(pause);
        self.live = live;
        self.most_live = self.most_live.max(live);
    }

    /// How many collections there have been.
    pub(crate) fn collections(&self) -> u32 {
        self.collections
    }

    /// How long they stopped the world.
    pub(crate) fn pauses(&self) -> &Histogram {
        &self.pauses
    }

    /// Bytes that the last one found alive.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The most bytes that one found alive.
    pub(crate) fn most_live(&self) -> usize {
        self.most_live
    }

    /// Bytes that cores had taken to fill until the last one.
    pub(super) fn allocated(&self) -> usize {
        self.allocated
    }

    pub(super) fn add_traced(&mut self, cpu: usize, objects: u64) {
        if let Some(traced) = self.traced.get_mut(cpu) {
            *traced += objects;
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        let mut traced = String::new();
        for (i, objects) in self.traced.iter().enumerate() {
            if i > 0 {
                traced.push(',');
            }
            traced.push_str(&format!("{objects}"));
        }
        format!(
            "{{\"collections\":{},\"live_bytes\":{},\"most_live_bytes\":{},\"marked\":[{traced}],\"stop\":{},\"pause\":{}}}",
            self.collections,
            self.live,
            self.most_live,
            self.stops.json(),
            self.pauses.json()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_ends_of_places_and_no_more_than_the_longest() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), 0);
        for microseconds in 1..=100 {
            histogram.add(microseconds * 1000);
        }
        // 1 is in the place below 2 µs, 2 and 3 in that below 4, … 32 to 63 in that below 64, the rest below 128.
        assert_eq!(histogram.percentile(1), 2_000);
        assert_eq!(histogram.percentile(3), 4_000);
        assert_eq!(histogram.percentile(50), 64_000);
        assert_eq!(histogram.percentile(63), 64_000);
        assert_eq!(histogram.percentile(64), 100_000);
        assert_eq!(histogram.counts().map(|(_, count)| count).sum::<u32>(), 100);
        assert_eq!(
            (histogram.longest(), histogram.total()),
            (100_000, 5_050_000)
        );
    }
}
