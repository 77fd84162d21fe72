//! What a core did when, and how that is written: the trace event format (Google, "Trace Event Format", 2016), a complete event for each stretch of time.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use smp::platform::Cpu;
use smp::safepoint::{CANCEL, HANDSHAKE, HEARTBEAT, HUNGRY, INPUT, MARKED, STOP};

use crate::heap::COLLECT;

/// Something that takes time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A task ran until it ended, waited or made way.
    Run {
        /// The function that its stack begins with.
        function: String,
        /// Tells tasks apart that live at the same time.
        task: usize,
        /// Where it came from.
        origin: &'static str,
    },
    /// The core looked for a task and found one.
    Search,
    /// It slept.
    Sleep,
    /// It did what others asked for, at a safepoint: poll bits.
    Safepoint(u32),
    /// It stopped the world and collected, or waited for another core that did.
    Collection,
}

/// Searches shorter than this, in nanoseconds, are not noted: the own deque had the next task.
const SHORT_SEARCH: u64 = 500;
/// A core notes no more events than this: about a hundred megabytes of them.
const MOST: usize = 1 << 20;

#[derive(Default)]
pub(crate) struct Trace {
    events: Vec<(Event, u64, u64)>,
    /// Events that were not noted because there were too many.
    lost: u64,
}

impl Trace {
    pub(crate) fn note(&mut self, event: Event, start: u64, end: u64) {
        if event == Event::Search && end - start < SHORT_SEARCH {
            return;
        }
        if self.events.len() < MOST {
            self.events.push((event, start, end));
        } else {
            self.lost += 1;
        }
    }

    /// Writes each event behind a comma. Times count from `began`.
    pub(crate) fn write(&self, cpu: Cpu, began: u64, write: &mut dyn FnMut(&str)) {
        let micros = |ns: u64| format!("{}.{:03}", ns / 1000, ns % 1000);
        let mut last = began;
        for (event, start, end) in &self.events {
            let (name, category, arguments) = match event {
                Event::Run {
                    function,
                    task,
                    origin,
                } => (
                    quoted(function),
                    "task",
                    format!("{{\"task\":\"{task:#x}\",\"origin\":\"{origin}\"}}"),
                ),
                Event::Search => ("\"search\"".into(), "scheduler", "{}".into()),
                Event::Collection => ("\"collection\"".into(), "memory", "{}".into()),
                Event::Sleep => ("\"sleep\"".into(), "scheduler", "{}".into()),
                Event::Safepoint(bits) => (
                    "\"safepoint\"".into(),
                    "safepoint",
                    format!("{{\"asked\":{}}}", quoted(&asked(*bits))),
                ),
            };
            write(&format!(
                ",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{cpu},\"name\":{name},\"cat\":\"{category}\",\"ts\":{},\"dur\":{},\"args\":{arguments}}}",
                micros(start.saturating_sub(began)),
                micros(end.saturating_sub(*start)),
            ));
            last = last.max(*end);
        }
        if self.lost > 0 {
            write(&format!(
                ",\n{{\"ph\":\"i\",\"s\":\"t\",\"pid\":1,\"tid\":{cpu},\"name\":\"{} later events were not noted\",\"ts\":{}}}",
                self.lost,
                micros(last.saturating_sub(began))
            ));
        }
    }
}

/// The names of poll bits.
fn asked(bits: u32) -> String {
    let names = [
        (HANDSHAKE, "handshake"),
        (STOP, "stop"),
        (HUNGRY, "share"),
        (HEARTBEAT, "heartbeat"),
        (CANCEL, "cancel"),
        (MARKED, "cancel a task"),
        (INPUT, "input"),
        (COLLECT, "collect"),
    ];
    let set: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    set.join(", ")
}

/// A string as JSON has it.
fn quoted(text: &str) -> String {
    let mut result = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                result.push('\\');
                result.push(c);
            }
            c if (c as u32) < 0x20 => result.push_str(&format!("\\u{:04x}", c as u32)),
            c => result.push(c),
        }
    }
    result.push('"');
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
        assert_eq!(asked(HANDSHAKE | HUNGRY), "handshake, share");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut trace = Trace::default();
        for i in 0..MOST as u64 + 3 {
            trace.note(Event::Sleep, i, i + 1);
        }
        trace.note(Event::Search, 5, 6);
        assert_eq!((trace.events.len(), trace.lost), (MOST, 3));
        let mut last = String::new();
        trace.write(3, 0, &mut |text| last = text.into());
        assert!(last.contains("3 later events") && last.contains("\"tid\":3"));
    }
}
