//! How races are told: a line that says what is accessed, and both tracebacks. One for each pair of source places.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Met, Slot, Who};
use crate::number::Number;

/// Where something was done.
struct Trace {
    /// The innermost place in a source, by which races are told apart.
    place: String,
    /// Its traceback, without a heading.
    text: String,
}

/// The tracebacks of all accesses, each once.
#[derive(Default)]
pub(crate) struct Traces {
    list: Vec<Trace>,
    /// By the addresses of the instructions on the stack, innermost first.
    by_addresses: BTreeMap<Vec<usize>, u32>,
    by_text: BTreeMap<String, u32>,
    told: BTreeSet<(String, String)>,
}

impl Traces {
    /// The number of the traceback with these addresses, which `make` gives with its place if it is new.
    pub(crate) fn number(
        &mut self,
        addresses: &[usize],
        make: impl FnOnce() -> (String, String),
    ) -> u32 {
        if let Some(number) = self.by_addresses.get(addresses) {
            return *number;
        }
        let (place, text) = make();
        let number = match self.by_text.get(&text) {
            Some(number) => *number,
            None => {
                let number = self.list.len() as u32;
                self.by_text.insert(text.clone(), number);
                self.list.push(Trace { place, text });
                number
            }
        };
        self.by_addresses.insert(addresses.into(), number);
        number
    }

    /// Code may have been freed, and other code may come to lie where it was.
    pub(crate) fn forget_addresses(&mut self) {
        self.by_addresses.clear();
    }

    /// What to say of a race: the second access, of what `name` says, met the first; `None` if it was told.
    pub(crate) fn told(
        &mut self,
        met: &Met,
        writes: bool,
        trace: u32,
        name: &str,
    ) -> Option<String> {
        let (first, second) = (&self.list[met.trace as usize], &self.list[trace as usize]);
        let mut pair = (first.place.clone(), second.place.clone());
        if pair.0 > pair.1 {
            core::mem::swap(&mut pair.0, &mut pair.1);
        }
        let text = format!(
            "vua: data race: {name} is {} by {}{}\n  and {} by {}, with nothing that orders them{}\n",
            done(met.wrote),
            met.first,
            first.text,
            done(writes),
            met.second,
            second.text,
        );
        self.told.insert(pair).then_some(text)
    }

    /// How many races were told.
    pub(crate) fn count(&self) -> usize {
        self.told.len()
    }
}

fn done(writes: bool) -> &'static str {
    if writes { "written" } else { "read" }
}

impl core::fmt::Display for Who {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "task {}", self.task)?;
        match self.index {
            Some(Number::Integer(i)) => write!(f, ", iteration {i}"),
            Some(Number::Float(i)) => write!(f, ", iteration {i:?}"),
            None => Ok(()),
        }
    }
}

/// What an element of a table is called.
pub(super) fn slot_name(slot: Slot, name: impl FnOnce(u32) -> Vec<u8>) -> String {
    match slot {
        Slot::Whole => "a variable".to_string(),
        Slot::Metatable => "the metatable".to_string(),
        Slot::Integer(i) => format!("index {i}"),
        Slot::Name(number) => format!("field '{}'", String::from_utf8_lossy(&name(number))),
        Slot::Word(bits) => match f64::from_bits(bits) {
            f if f.is_nan() => "the element of a boolean key".to_string(),
            f => format!("index {f:?}"),
        },
        Slot::Object(_) | Slot::Struct(..) => "the element of an object as key".to_string(),
        Slot::Memory(_) => "an element".to_string(),
    }
}
