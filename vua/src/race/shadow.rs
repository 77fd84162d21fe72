//! What is remembered of each place in memory: who wrote it last and who has read it since, as in FastTrack.
//!
//! Of a place's readers at most [`KEPT`] are remembered that are not ordered among themselves; a program that has more writes hardly ever in order with
//! all that are remembered and out of order with one that is not.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::clock::{Strand, Time};
use crate::memory::Struct;
use crate::number::Number;
use crate::object::Gc;
use crate::value::Value;

/// A place in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// All there is of it: a cell's variable.
    Whole,
    /// A table's metatable.
    Metatable,
    /// The element of an integer key.
    Integer(i64),
    /// That of another number, a boolean: by its bits.
    Word(u64),
    /// That of a string, by its number among the strings.
    Name(u32),
    /// That of an object, by its address.
    Object(usize),
    /// That of a struct, by the address of the object whose memory it is in, and its own.
    Struct(usize, usize),
    /// The number that begins at this address, in the memory of a struct or array.
    Memory(usize),
}

/// A set of keys that comes and goes with the table's elements: what an insertion or removal changes for who iterates or asks for the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Reads them all.
    Iterate,
    /// Reads where the sequence ends.
    Border,
    /// Makes a key of the sequence come or go.
    ChangeSequence,
    /// Makes another key come or go.
    ChangeOther,
}

/// An access, told with its traceback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) strand: Strand,
    /// The number of the traceback.
    pub(super) trace: u32,
    pub(super) time: Time,
}

/// How many accesses of one place that are not ordered are remembered.
const KEPT: usize = 32;

/// Accesses that are not ordered among themselves, as far as they are known.
#[derive(Default)]
struct Unordered {
    list: Vec<Access>,
    /// Which is replaced next when there are too many.
    oldest: usize,
}

impl Unordered {
    fn add(&mut self, access: Access, before: &impl Fn(&Access) -> bool) {
        if let Some(own) = self
            .list
            .iter_mut()
            .find(|known| known.strand == access.strand)
        {
            *own = access;
            return;
        }
        if self.list.len() >= KEPT {
            // What is ordered before this access need not be remembered; looked for now and then.
            if self.oldest.is_multiple_of(KEPT) {
                self.list.retain(|known| !before(known));
            }
            if self.list.len() >= KEPT {
                self.list[self.oldest % KEPT] = access;
                self.oldest += 1;
                return;
            }
        }
        self.list.push(access);
    }

    fn conflicting(&self, before: &impl Fn(&Access) -> bool) -> Option<Access> {
        self.list.iter().find(|known| !before(known)).copied()
    }
}

/// A place's last write, and its reads since.
#[derive(Default)]
struct Location {
    write: Option<Access>,
    read: Option<Access>,
    /// If there is more than one.
    reads: Option<Box<Unordered>>,
}

/// An access that is not ordered with the present one, and whether it wrote.
pub(super) type Conflict = Option<(Access, bool)>;

impl Location {
    /// Notes an access; what it is not ordered with.
    fn access(
        &mut self,
        access: Access,
        writes: bool,
        before: impl Fn(&Access) -> bool,
    ) -> Conflict {
        let mut conflict = self
            .write
            .filter(|write| !before(write))
            .map(|write| (write, true));
        if writes {
            let read = self.read.filter(|read| !before(read));
            let read = read.or_else(|| {
                self.reads
                    .as_ref()
                    .and_then(|reads| reads.conflicting(&before))
            });
            conflict = conflict.or(read.map(|read| (read, false)));
            *self = Location {
                write: Some(access),
                ..Location::default()
            };
        } else if let Some(reads) = &mut self.reads {
            reads.add(access, &before);
        } else if let Some(read) = self.read.filter(|read| !before(read)) {
            let mut reads = Box::<Unordered>::default();
            reads.list.push(read);
            reads.list.push(access);
            (self.read, self.reads) = (None, Some(reads));
        } else {
            self.read = Some(access);
        }
        conflict
    }

    /// Whether the access adds nothing to what is remembered, and meets nothing that the one before it has not met.
    fn is_known(&self, strand: Strand, time: Time, writes: bool) -> bool {
        let is = |access: &Option<Access>| {
            access
                .as_ref()
                .is_some_and(|access| (access.strand, access.time) == (strand, time))
        };
        if writes {
            is(&self.write) && self.read.is_none() && self.reads.is_none()
        } else {
            is(&self.read) || is(&self.write)
        }
    }
}

#[derive(Default)]
struct KeySets {
    iterations: Unordered,
    borders: Unordered,
    sequence: Unordered,
    others: Unordered,
}

/// What is remembered of an object.
#[derive(Default)]
struct Object {
    slots: BTreeMap<Slot, Location>,
    keys: Option<Box<KeySets>>,
}

/// What is remembered of all objects, and the strings that are keys.
#[derive(Default)]
pub(super) struct Shadow {
    objects: BTreeMap<usize, Object>,
    names: BTreeMap<Box<[u8]>, u32>,
}

impl Shadow {
    /// The place that a key of a table names; `None` for nil and NaN.
    pub(super) fn slot(&mut self, key: Value) -> Option<Slot> {
        if key.is_inline_integer() {
            return Some(Slot::Integer(key.inline_payload()));
        }
        if let Some(string) = key.as_str() {
            let bytes = string.bytes();
            if let Some(number) = self.names.get(bytes) {
                return Some(Slot::Name(*number));
            }
            let number = self.names.len() as u32;
            self.names.insert(bytes.into(), number);
            return Some(Slot::Name(number));
        }
        if let Some(number) = key.as_number() {
            return match number {
                Number::Integer(i) => Some(Slot::Integer(i)),
                Number::Float(f) if f.is_nan() => None,
                Number::Float(f) => Some(match crate::number::float_to_integer(f) {
                    Some(i) => Slot::Integer(i),
                    None => Slot::Word(f.to_bits()),
                }),
            };
        }
        if let Some(it) = Gc::<Struct>::from_value(key) {
            // References to one struct are one key.
            return Some(Slot::Struct(it.root().as_ptr() as usize, it.address()));
        }
        match key.object() {
            Some(object) => Some(Slot::Object(object.as_ptr() as usize)),
            None if key.is_nil() => None,
            None => Some(Slot::Word(key.to_bits())),
        }
    }

    /// The bytes of a string.
    pub(super) fn name(&self, number: u32) -> &[u8] {
        self.names
            .iter()
            .find(|(_, n)| **n == number)
            .map_or(b"?", |(name, _)| name)
    }

    /// Whether an access like this one was noted already.
    pub(super) fn is_known(
        &self,
        (object, slot): (usize, Slot),
        strand: Strand,
        time: Time,
        writes: bool,
    ) -> bool {
        self.objects
            .get(&object)
            .and_then(|object| object.slots.get(&slot))
            .is_some_and(|location| location.is_known(strand, time, writes))
    }

    /// Notes an access.
    pub(super) fn access(
        &mut self,
        (object, slot): (usize, Slot),
        access: Access,
        writes: bool,
        before: impl Fn(&Access) -> bool,
    ) -> Conflict {
        let object = self.objects.entry(object).or_default();
        let location = object.slots.entry(slot).or_default();
        location.access(access, writes, before)
    }

    /// Notes an access of a table's keys. Changes are ordered with iterations or lengths, not among themselves.
    pub(super) fn keys(
        &mut self,
        object: usize,
        access: Access,
        keys: Keys,
        before: impl Fn(&Access) -> bool,
    ) -> Conflict {
        let object = self.objects.entry(object).or_default();
        let sets = &mut **object.keys.get_or_insert_default();
        let (own, first, second) = match keys {
            Keys::Iterate => (&mut sets.iterations, &sets.sequence, Some(&sets.others)),
            Keys::Border => (&mut sets.borders, &sets.sequence, None),
            Keys::ChangeSequence => (&mut sets.sequence, &sets.iterations, Some(&sets.borders)),
            Keys::ChangeOther => (&mut sets.others, &sets.iterations, None),
        };
        let met = first
            .conflicting(&before)
            .or_else(|| second.and_then(|second| second.conflicting(&before)));
        own.add(access, &before);
        let read = matches!(keys, Keys::Iterate | Keys::Border);
        met.map(|met| (met, read))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.objects.clear();
    }

    /// Forgets an object.
    pub(super) fn forget(&mut self, object: usize) {
        self.objects.remove(&object);
    }

    /// Forgets objects that are dead, and places whose keys are.
    pub(super) fn retain(&mut self, lives: &dyn Fn(usize) -> bool) {
        self.objects.retain(|&object, shadow| {
            if !lives(object) {
                return false;
            }
            shadow.slots.retain(|slot, _| match slot {
                Slot::Object(key) | Slot::Struct(key, _) => lives(*key),
                _ => true,
            });
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(strand: Strand, time: Time) -> Access {
        Access {
            strand,
            trace: 0,
            time,
        }
    }

    #[test]
    fn a_write_meets_every_reader_and_a_read_the_writer() {
        let none = |_: &Access| false;
        let mut place = Location::default();
        assert_eq!(place.access(access(1, 1), false, none), None);
        assert_eq!(place.access(access(2, 2), false, none), None);
        assert_eq!(place.access(access(3, 3), false, none), None);
        // Ordered with the first two readers, not the third.
        let met = place.access(access(4, 4), true, |known| known.strand < 3);
        assert_eq!(met, Some((access(3, 3), false)));
        assert_eq!(
            place.access(access(5, 5), false, none),
            Some((access(4, 4), true))
        );
        assert!(place.is_known(5, 5, false) && !place.is_known(5, 6, false));
        assert!(!place.is_known(5, 5, true));
    }

    #[test]
    fn readers_are_forgotten_only_where_there_are_too_many() {
        let mut place = Location::default();
        for strand in 0..1000 {
            place.access(access(strand, 1), false, |_| false);
        }
        let reads = place.reads.as_ref().unwrap();
        assert_eq!(reads.list.len(), KEPT);
        // Those that are ordered go first.
        for strand in 1000..1000 + 2 * KEPT as Strand {
            place.access(access(strand, 2), false, |known| known.time == 1);
        }
        assert!(
            place
                .reads
                .as_ref()
                .unwrap()
                .list
                .iter()
                .all(|known| known.time == 2)
        );
    }

    #[test]
    fn changes_of_keys_meet_iterations_and_lengths() {
        let none = |_: &Access| false;
        let mut shadow = Shadow::default();
        assert_eq!(shadow.keys(8, access(1, 1), Keys::ChangeOther, none), None);
        assert_eq!(
            shadow.keys(8, access(2, 2), Keys::ChangeSequence, none),
            None
        );
        assert_eq!(
            shadow.keys(8, access(3, 3), Keys::Border, none),
            Some((access(2, 2), true))
        );
        assert_eq!(
            shadow.keys(8, access(4, 4), Keys::Iterate, |known| known.strand == 2),
            Some((access(1, 1), true))
        );
        assert_eq!(
            shadow.keys(8, access(5, 5), Keys::ChangeOther, none),
            Some((access(4, 4), false))
        );
        shadow.retain(&|object| object != 8);
        assert_eq!(shadow.keys(8, access(6, 6), Keys::Iterate, none), None);
    }
}
