//! Figures about collections, for `--stats`.

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
            traced: vec![0; cpus].into_boxed_slice(),
        }
    }

    pub(super) fn add_collection(&mut self, stop: u64, pause: u64, live: usize) {
        self.collections += 1;
        self.stops.add(stop);
        self.pauses.add(pause);
        self.live = live;
        self.most_live = self.most_live.max(live);
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
