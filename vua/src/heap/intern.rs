//! Interned strings: the constants of loaded functions, each content once, so that the comparison of two constants is
//! one of pointers. Nothing is interned at run time.

use alloc::vec::Vec;
use core::ptr::NonNull;

use super::{Header, Heap, LocalHeap, NeedMemory};
use crate::object::{Gc, Str};
use crate::value::Value;

/// An open-addressed set, linear probing, at most half full, of a power of two of places (or none).
pub(super) struct Interned {
    places: Vec<Option<Gc<Str>>>,
    used: usize,
}

// SAFETY: strings are immutable once made, and reaching them from any core is what they are for.
unsafe impl Send for Interned {}

impl Interned {
    pub(super) const fn new() -> Interned {
        Interned {
            places: Vec::new(),
            used: 0,
        }
    }

    pub(super) fn each(&self, visit: &mut dyn FnMut(Value)) {
        for string in self.places.iter().flatten() {
            visit(string.value());
        }
    }

    fn find(&self, bytes: &[u8], hash: u32) -> Result<Gc<Str>, usize> {
        let mask = self.places.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.places[at] {
                None => return Err(at),
                Some(string) if string.hash() == hash && string.bytes() == bytes => {
                    return Ok(string);
                }
                Some(_) => at = (at + 1) & mask,
            }
        }
    }

    /// Forgets the strings of which `lives` is false.
    ///
    /// What follows a hole moves up into it (Knuth, TAOCP 3, 6.4, algorithm R), so that searches still end at the first hole.
    pub(super) fn retain(&mut self, lives: &mut dyn FnMut(NonNull<Header>) -> bool) {
        let size = self.places.len();
        let mut at = 0;
        while at < size {
            match self.places[at] {
                Some(string) if !lives(string.header_ptr()) => {
                    self.remove(at);
                    self.used -= 1;
                }
                _ => at += 1,
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let mask = self.places.len() - 1;
        let mut hole = at;
        let mut next = at;
        loop {
            next = (next + 1) & mask;
            let Some(string) = self.places[next] else {
                break;
            };
            // It may move if its own place is not between the hole and where it is.
            let own = string.hash() as usize & mask;
            if next.wrapping_sub(own) & mask >= next.wrapping_sub(hole) & mask {
                self.places[hole] = Some(string);
                hole = next;
            }
        }
        self.places[hole] = None;
    }

    fn grow(&mut self) -> Result<(), NeedMemory> {
        let size = (self.places.len() * 2).max(256);
        let mut places = Vec::new();
        places.try_reserve_exact(size).map_err(|_| NeedMemory {
            bytes: size * size_of::<Gc<Str>>(),
        })?;
        places.resize(size, None);
        for string in self.places.iter().flatten() {
            let mut at = string.hash() as usize & (size - 1);
            while places[at].is_some() {
                at = (at + 1) & (size - 1);
            }
            places[at] = Some(*string);
        }
        self.places = places;
        Ok(())
    }
}

impl Heap {
    /// The one interned string with these bytes, made now if need be. Takes a lock, held for the time of an insertion.
    pub fn intern(&self, local: &LocalHeap, bytes: &[u8]) -> Result<Gc<Str>, NeedMemory> {
        let hash = Str::hash_of(bytes);
        let mut interned = self.interned.lock();
        if interned.used * 2 >= interned.places.len() {
            interned.grow()?;
        }
        match interned.find(bytes, hash) {
            Ok(string) => Ok(string),
            Err(at) => {
                let string = Str::new(local, bytes)?;
                // Computed before anyone else can see it.
                let _ = string.hash();
                interned.places[at] = Some(string);
                interned.used += 1;
                Ok(string)
            }
        }
    }
}
