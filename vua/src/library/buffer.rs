//! Text that is being put together.
//!
//! It lies in Rust memory, in segments that never move, and lives for one step of a native at most. Before it grows far it asks the heap
//! whether the program could have as much, so that a program's limit holds for it too.

use alloc::vec::Vec;

use super::access::BYTES;
use crate::heap::{Kind, LocalHeap, NeedMemory};
use crate::interp::native::{Call, Throw};
use crate::object::{Gc, Str};
use crate::value::Value;

/// Where a segment ends: long enough to make their number small, short enough to be moved between two safepoints while it grows.
const SEGMENT: usize = 4 * BYTES;

/// What one formatted number may take.
const SHORT: usize = 512;

/// The largest string that a function makes out of shorter ones by a count: what fits a C `int`, as in Lua.
pub(crate) const MAX_STRING: usize = i32::MAX as usize;

/// See the module.
#[derive(Default)]
pub(crate) struct Buffer {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// Bytes in `full`.
    before: usize,
    /// The program could have this much.
    probed: usize,
}

impl Buffer {
    /// Nothing yet.
    pub(crate) fn new() -> Buffer {
        Buffer {
            full: Vec::new(),
            last: Vec::new(),
            before: 0,
            probed: SEGMENT,
        }
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.before + self.last.len()
    }

    /// Appends bytes, which are in a root of the collector or not on its heap at all. Polls where they are long.
    #[inline]
    pub(crate) fn extend(&mut self, call: &mut Call<'_>, bytes: &[u8]) -> Result<(), Throw> {
        if bytes.len() <= self.last.capacity() - self.last.len() {
            self.last.extend_from_slice(bytes);
            return Ok(());
        }
        self.extend_slowly(call, bytes)
    }

    #[cold]
    fn extend_slowly(&mut self, call: &mut Call<'_>, mut bytes: &[u8]) -> Result<(), Throw> {
        while !bytes.is_empty() {
            self.turn(call)?;
            let now = bytes.len().min(SEGMENT - self.last.len());
            self.make_room(call.heap(), now)?;
            self.last.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
        }
        Ok(())
    }

    /// Begins a new segment if the last one is full.
    fn turn(&mut self, call: &mut Call<'_>) -> Result<(), Throw> {
        if self.last.len() >= SEGMENT {
            self.full.try_reserve(1).map_err(|_| need(SEGMENT))?;
            self.before += self.last.len();
            self.full.push(core::mem::take(&mut self.last));
            call.poll()?;
        }
        Ok(())
    }

    fn make_room(&mut self, heap: &LocalHeap, more: usize) -> Result<(), NeedMemory> {
        let wanted = self.len() + more;
        if wanted > self.probed {
            let probe = wanted.max(self.probed * 2);
            ask(heap, probe)?;
            self.probed = probe;
        }
        let least = if self.full.is_empty() {
            more.max(self.last.len()).max(64)
        } else {
            SEGMENT
        };
        self.last
            .try_reserve(least.min(SEGMENT - self.last.len()).max(more))
            .map_err(|_| need(more))
    }

    /// Appends one byte.
    #[inline]
    pub(crate) fn push(&mut self, call: &mut Call<'_>, byte: u8) -> Result<(), Throw> {
        self.extend(call, &[byte])
    }

    /// Appends what `write` appends to a vector: at most [`SHORT`] bytes, for which there is room.
    pub(crate) fn write(
        &mut self,
        call: &mut Call<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Throw> {
        self.turn(call)?;
        self.last.try_reserve(SHORT).map_err(|_| need(SHORT))?;
        write(&mut self.last);
        Ok(())
    }

    /// Appends a byte `count` times.
    pub(crate) fn fill(
        &mut self,
        call: &mut Call<'_>,
        byte: u8,
        count: usize,
    ) -> Result<(), Throw> {
        let run = [byte; 64];
        let mut left = count;
        while left > 0 {
            let now = left.min(run.len());
            self.extend(call, &run[..now])?;
            left -= now;
        }
        Ok(())
    }

    /// The text as a string. Slot `slot` of the frame is used.
    pub(crate) fn into_string(self, call: &mut Call<'_>, slot: usize) -> Result<Value, Throw> {
        if self.full.is_empty() {
            return long_string(call, &self.last, slot);
        }
        let string = unfilled(call, self.len(), slot)?;
        let mut at = 0;
        for segment in self.full.iter().chain([&self.last]) {
            for part in segment.chunks(BYTES) {
                fill_at(string, at, part);
                at += part.len();
                call.poll()?;
            }
        }
        Ok(string.value())
    }

    /// The text in one piece.
    pub(crate) fn into_bytes(mut self, call: &mut Call<'_>) -> Result<Vec<u8>, Throw> {
        if self.full.is_empty() {
            return Ok(self.last);
        }
        let mut whole = Vec::new();
        whole
            .try_reserve_exact(self.len())
            .map_err(|_| need(self.len()))?;
        for segment in self.full.drain(..) {
            whole.extend_from_slice(&segment);
            call.poll()?;
        }
        whole.extend_from_slice(&self.last);
        Ok(whole)
    }
}

fn need(bytes: usize) -> NeedMemory {
    NeedMemory { bytes }
}

/// Whether the program could have `bytes` more now.
fn ask(heap: &LocalHeap, bytes: usize) -> Result<(), NeedMemory> {
    let whole = bytes + size_of::<crate::heap::Header>();
    let object = heap.alloc_object(Kind::String, 0, whole)?;
    // SAFETY: the object came from there with this size, and nobody else has heard of it.
    unsafe { heap.free(object, whole) };
    Ok(())
}

/// A string under construction, kept alive by slot `slot`.
pub(crate) fn unfilled(call: &mut Call<'_>, length: usize, slot: usize) -> Result<Gc<Str>, Throw> {
    let string = Str::new_unfilled(call.heap(), length)?;
    call.set(slot, string.value());
    Ok(string)
}

/// Gives back a string that [`unfilled`] made and that nobody has used.
///
/// # Safety
/// No slot of a frame and nothing else holds it any more.
pub(crate) unsafe fn discard(heap: &LocalHeap, string: Gc<Str>) {
    let bytes = size_of::<Str>() + string.len();
    // SAFETY: the object came from the heap with this size; that nobody has heard of it, the caller says.
    unsafe { heap.free(string.header_ptr(), bytes) };
}

/// Writes bytes into a string that [`unfilled`] made and that nobody has used yet.
///
/// # Panics
/// If they do not fit.
pub(crate) fn fill_at(string: Gc<Str>, at: usize, bytes: &[u8]) {
    assert!(at <= string.len() && bytes.len() <= string.len() - at);
    // SAFETY: inside the string, by the assertion; it is under construction, so nobody reads it; `bytes` may be its own earlier part but
    // does not overlap what is written, or the two would be at the same place.
    unsafe { core::ptr::copy(bytes.as_ptr(), string.bytes_mut().add(at), bytes.len()) }
}

/// A string of these bytes, which are in a root of the collector or not on its heap. Polls if they are long; slot `slot` of the frame is then used.
pub(crate) fn long_string(call: &mut Call<'_>, bytes: &[u8], slot: usize) -> Result<Value, Throw> {
    if bytes.len() <= BYTES {
        return call.string(bytes);
    }
    let string = unfilled(call, bytes.len(), slot)?;
    let mut at = 0;
    for part in bytes.chunks(BYTES) {
        fill_at(string, at, part);
        at += part.len();
        call.poll()?;
    }
    Ok(string.value())
}
