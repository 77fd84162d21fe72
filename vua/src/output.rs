//! What the program prints, gathered into large writes: a system call, or a notification of a virtual device, costs as much as printing fifty lines.
//!
//! # When it is written
//! When [`FULL`] bytes have come together; when a core has nothing to do, as when all wait for input; at a core's next heartbeat, which whoever puts the first byte into
//! an empty buffer asks for, so that a program that computes on shows what it has printed within a hundredth of a second; before
//! anything goes to standard error; at `flush`; and at the end. With `setvbuf("no")`, at once.
//!
//! # Protocol
//! `state` has the bytes that wait and whether a core is writing. A core appends under the lock. It writes without the lock, so that one that
//! waits for a slow reader keeps none from appending: it takes all bytes, sets `writing`, writes, and goes on until it finds none, upon which it clears
//! `writing` under the lock. A core that wants to flush and finds `writing` leaves its bytes to the one that writes. So bytes are written in the order in which
//! they were appended, and none is left behind. When a core writes and [`CROWDED`] bytes wait, an appender is sent away to try again after a safepoint.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use sync::lock::Lock;

/// So many bytes are written without waiting for more: half of what a pipe holds on Linux (`pipe(7)`).
const FULL: usize = 32 << 10;

/// So many bytes may wait while a core writes.
const CROWDED: usize = 256 << 10;

/// Where the bytes go: writes all that it is given, and may take its time.
pub(crate) type Sink<'a> = &'a dyn Fn(&[u8]);

/// See the module.
pub(crate) struct Output {
    state: Lock<State>,
    /// There are bytes in the buffer, or were a moment ago: saves most the lock.
    filled: AtomicBool,
    /// `setvbuf("no")`.
    immediate: AtomicBool,
}

struct State {
    bytes: Vec<u8>,
    writing: bool,
}

/// What [`Output::append`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The buffer was empty: a heartbeat is to be asked for.
    First,
    /// There was something in it, or it was written at once.
    More,
    /// Nothing, since too much waits to be written: to be tried again after a safepoint.
    Crowded,
}

impl Output {
    pub(crate) fn new() -> Output {
        Output {
            state: Lock::new(State {
                bytes: Vec::new(),
                writing: false,
            }),
            filled: AtomicBool::new(false),
            immediate: AtomicBool::new(false),
        }
    }

    /// Whether each piece is to be written at once.
    pub(crate) fn set_immediate(&self, immediate: bool) {
        self.immediate.store(immediate, Ordering::Relaxed);
    }

    /// Adds a piece, which stays in one piece.
    pub(crate) fn append(&self, sink: Sink<'_>, piece: &[u8]) -> Appended {
        let mut state = self.state.lock();
        if state.writing && state.bytes.len() >= CROWDED {
            return Appended::Crowded;
        }
        if state.bytes.try_reserve(piece.len()).is_err() {
            if state.writing {
                return Appended::Crowded;
            }
            // Without memory to gather it: straight on, behind what has been gathered.
            state.writing = true;
            let former = core::mem::take(&mut state.bytes);
            drop(state);
            sink(&former);
            sink(piece);
            self.write_rest(sink, former);
            return Appended::More;
        }
        let first = state.bytes.is_empty();
        state.bytes.extend_from_slice(piece);
        let full = state.bytes.len() >= FULL;
        self.filled.store(true, Ordering::Relaxed);
        drop(state);
        if full || self.immediate.load(Ordering::Relaxed) {
            self.flush(sink);
            return Appended::More;
        }
        if first {
            Appended::First
        } else {
            Appended::More
        }
    }

    /// Writes what has been gathered, or leaves that to the core that is writing.
    #[inline]
    pub(crate) fn flush(&self, sink: Sink<'_>) {
        if self.filled.load(Ordering::Relaxed) {
            self.flush_filled(sink);
        }
    }

    /// Whether a core is writing: then [`flush`](Self::flush) may have left bytes to it.
    pub(crate) fn is_writing(&self) -> bool {
        self.state.lock().writing
    }

    #[cold]
    fn flush_filled(&self, sink: Sink<'_>) {
        let mut state = self.state.lock();
        if state.writing || state.bytes.is_empty() {
            return;
        }
        state.writing = true;
        drop(state);
        self.write_rest(sink, Vec::new());
    }

    /// Writes until there is nothing left. The caller has set `writing`; `spare` is a buffer to gather the next bytes in.
    fn write_rest(&self, sink: Sink<'_>, mut spare: Vec<u8>) {
        loop {
            spare.clear();
            let mut state = self.state.lock();
            if state.bytes.is_empty() {
                // The larger one is kept, unless it is one of those that a crowd fills.
                if spare.capacity() > state.bytes.capacity() && spare.capacity() <= 2 * FULL {
                    state.bytes = spare;
                }
                state.writing = false;
                self.filled.store(false, Ordering::Relaxed);
                return;
            }
            core::mem::swap(&mut state.bytes, &mut spare);
            drop(state);
            sink(&spare);
        }
    }

    /// As [`flush`](Self::flush), and waits until a core that is writing is done: for the end of the program.
    pub(crate) fn finish(&self, sink: Sink<'_>) {
        loop {
            self.flush(sink);
            let state = self.state.lock();
            if !state.writing && state.bytes.is_empty() {
                return;
            }
            drop(state);
            core::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::format;
    use std::string::String;
    use std::sync::Mutex;
    use std::vec::Vec;

    #[test]
    fn pieces_come_out_when_they_should() {
        let written = Mutex::new(Vec::new());
        let sink = |bytes: &[u8]| written.lock().unwrap().extend_from_slice(bytes);
        let output = Output::new();
        assert_eq!(output.append(&sink, b"a"), Appended::First);
        assert_eq!(output.append(&sink, b"b"), Appended::More);
        assert!(written.lock().unwrap().is_empty());
        output.flush(&sink);
        assert_eq!(*written.lock().unwrap(), b"ab");
        assert_eq!(output.append(&sink, &[b'c'; FULL]), Appended::More);
        assert_eq!(written.lock().unwrap().len(), 2 + FULL);
        output.set_immediate(true);
        assert_eq!(output.append(&sink, b"d"), Appended::More);
        assert_eq!(written.lock().unwrap().last(), Some(&b'd'));
    }

    #[test]
    fn who_flushes_sees_that_another_core_is_writing() {
        let output = Output::new();
        let nested = |bytes: &[u8]| {
            assert_eq!(bytes, b"a");
            assert_eq!(output.append(&|_| unreachable!(), b"b"), Appended::First);
            // What was appended is left to the core that writes, which is not done.
            output.flush(&|_| unreachable!());
            assert!(output.is_writing());
        };
        let first = core::cell::Cell::new(true);
        let sink = core::cell::Cell::new(Vec::new());
        assert_eq!(output.append(&|_| unreachable!(), b"a"), Appended::First);
        output.flush(&|bytes| {
            if first.replace(false) {
                nested(bytes);
            } else {
                sink.set(bytes.to_vec());
            }
        });
        assert!(!output.is_writing());
        assert_eq!(sink.take(), b"b");
    }

    #[test]
    fn pieces_of_many_cores_stay_whole_and_in_order() {
        const CORES: usize = 4;
        const PIECES: usize = if cfg!(miri) { 50 } else { 20_000 };
        let written = Mutex::new(String::new());
        let sink = |bytes: &[u8]| {
            written
                .lock()
                .unwrap()
                .push_str(core::str::from_utf8(bytes).unwrap())
        };
        let output = Output::new();
        std::thread::scope(|scope| {
            for core in 0..CORES {
                let (output, sink) = (&output, &sink);
                scope.spawn(move || {
                    for piece in 0..PIECES {
                        let text = format!("{core} {piece}\n");
                        while output.append(sink, text.as_bytes()) == Appended::Crowded {
                            std::thread::yield_now();
                        }
                        if piece % 97 == 0 {
                            output.flush(sink);
                        }
                    }
                });
            }
        });
        output.finish(&sink);
        let mut next = [0; CORES];
        for line in written.lock().unwrap().lines() {
            let (core, piece) = line.split_once(' ').unwrap();
            let core: usize = core.parse().unwrap();
            assert_eq!(piece.parse::<usize>().unwrap(), next[core]);
            next[core] += 1;
        }
        assert_eq!(next, [PIECES; CORES]);
    }
}
