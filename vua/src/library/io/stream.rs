//! Open files: bytes in memory, where they come from and where they go. Nothing here knows the heap.
//!
//! A file is read whole when it is opened and written whole when it is flushed or closed. Standard input is
//! read as far as it is needed. Whoever has a stream locked neither waits nor passes a safepoint, so every operation here does a bounded amount of work
//! or can be continued.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smp::platform::{FileError, Input, Platform};
use sync::lock::Lock;

use crate::number::is_space;

/// How much is looked at or copied while the lock is held.
pub(super) const PORTION: usize = 16 * 1024;

/// The longest numeral that is read (`L_MAXLENNUM`).
pub(super) const MAX_NUMERAL: usize = 200;

/// What kind of stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Standard input.
    Input,
    /// Standard output or standard error.
    Output(smp::platform::Stream),
    /// A file of the platform.
    File,
    /// Closed.
    Closed,
}

/// Why an operation failed, as programs see it: text and C's `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::library) struct Failure(pub &'static str, pub i32);

impl Failure {
    /// The stream is not open for this.
    pub(super) const BAD_DESCRIPTOR: Failure = Failure("Bad file descriptor", 9);
    /// A position before the beginning.
    pub(super) const INVALID: Failure = Failure("Invalid argument", 22);
    /// A stream without positions.
    pub(super) const NOT_SEEKABLE: Failure = Failure("Illegal seek", 29);
    /// No memory for the content.
    pub(super) const NO_MEMORY: Failure = Failure("Cannot allocate memory", 12);
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        match error {
            FileError::NotFound => Failure("No such file or directory", 2),
            FileError::ReadOnly => Failure("Read-only file system", 30),
            FileError::NoSpace => Failure("No space left on device", 28),
            FileError::Other => Failure("Input/output error", 5),
        }
    }
}

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A line; whether its end belongs to it.
    Line {
        /// With the newline.
        whole: bool,
    },
    /// A numeral.
    Number,
    /// Everything.
    All,
    /// Up to this many bytes.
    Count(usize),
}

/// How far the next thing to read reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// `skip` bytes, then `text` bytes, then `after` bytes that do not belong to it.
    Found {
        /// Before the text.
        skip: usize,
        /// The text.
        text: usize,
        /// After the text.
        after: usize,
    },
    /// The input ends before anything was found.
    End,
    /// More is to be looked at: again after a safepoint.
    Again,
    /// More input must arrive first.
    Pending,
}

impl Extent {
    /// Nothing but a text of so many bytes.
    fn text(text: usize) -> Extent {
        Extent::Found {
            skip: 0,
            text,
            after: 0,
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Stream {
    kind: Kind,
    name: String,
    data: Vec<u8>,
    /// Where in `data` the next byte to read or write is.
    position: usize,
    /// Bytes of input that were dropped from the start of `data`.
    dropped: u64,
    ended: bool,
    readable: bool,
    writable: bool,
    append: bool,
    changed: bool,
}

impl Stream {
    /// A standard stream.
    pub(super) fn standard(kind: Kind) -> Stream {
        let input = kind == Kind::Input;
        Stream {
            kind,
            name: String::new(),
            data: Vec::new(),
            position: 0,
            dropped: 0,
            ended: false,
            readable: input,
            writable: !input,
            append: false,
            changed: false,
        }
    }

    /// A file without a name, which is gone when it is closed.
    pub(super) fn temporary() -> Stream {
        let mut stream = Stream::standard(Kind::File);
        stream.ended = true;
        (stream.readable, stream.writable) = (true, true);
        stream
    }

    /// Opens a file in a mode as `fopen` has them: `r`, `w` or `a`, perhaps with `+`.
    pub(super) fn open(
        platform: &dyn Platform,
        name: &str,
        mode: &[u8],
    ) -> Result<Stream, Failure> {
        let update = mode.contains(&b'+');
        let mut stream = Stream::standard(Kind::File);
        stream.name = String::from(name);
        stream.ended = true;
        stream.readable = update || mode.first() == Some(&b'r');
        stream.writable = update || mode.first() != Some(&b'r');
        stream.append = mode.first() == Some(&b'a');
        if mode.first() != Some(&b'w') {
            let mut full = false;
            let data = &mut stream.data;
            let read = platform.read_file(name, &mut |bytes| match data.try_reserve(bytes.len()) {
                Ok(()) => data.extend_from_slice(bytes),
                Err(_) => full = true,
            });
            match read {
                Ok(()) if full => return Err(Failure::NO_MEMORY),
                Ok(()) => return Ok(stream),
                Err(FileError::NotFound) if stream.append => {}
                Err(error) => return Err(error.into()),
            }
        }
        platform.write_file(name, &[])?;
        Ok(stream)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it stands, counted from the very first byte: changes with every read and write.
    pub(super) fn stamp(&self) -> u64 {
        self.dropped + self.position as u64
    }

    /// Bytes from the position on, `skip` of them left out: at most `count` and at most a portion.
    pub(super) fn peek(&self, skip: usize, count: usize) -> &[u8] {
        let start = (self.position + skip).min(self.data.len());
        let end = start + count.min(PORTION).min(self.data.len() - start);
        &self.data[start..end]
    }

    /// Takes `count` bytes that were looked at.
    pub(super) fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.data.len());
        // Half of the buffer is behind: the rest moves down, at a cost that the bytes read have paid for.
        if self.kind == Kind::Input
            && self.position >= PORTION
            && self.position * 2 >= self.data.len()
        {
            self.data.drain(..self.position);
            self.dropped += self.position as u64;
            self.position = 0;
        }
    }

    /// Finds out how far the next thing to read reaches. `seen` is how many bytes have been looked at in vain; 0 at first.
    pub(super) fn measure(
        &mut self,
        platform: &dyn Platform,
        want: Want,
        seen: &mut usize,
    ) -> Result<Extent, Failure> {
        if !self.readable {
            return Err(Failure::BAD_DESCRIPTOR);
        }
        let rest = &self.data[self.position.min(self.data.len())..];
        match want {
            Want::Line { whole } => {
                let window = &rest[(*seen).min(rest.len())..];
                let window = &window[..window.len().min(4 * PORTION)];
                if let Some(at) = memchr::memchr(b'\n', window) {
                    let text = *seen + at;
                    return Ok(if whole {
                        Extent::text(text + 1)
                    } else {
                        Extent::Found {
                            skip: 0,
                            text,
                            after: 1,
                        }
                    });
                }
                *seen += window.len();
                if *seen < rest.len() {
                    return Ok(Extent::Again);
                }
                if self.ended {
                    return Ok(if rest.is_empty() {
                        Extent::End
                    } else {
                        Extent::text(rest.len())
                    });
                }
            }
            Want::Count(0) if !rest.is_empty() => {
                return Ok(Extent::text(0));
            }
            Want::Count(count) if count > 0 && rest.len() >= count => {
                return Ok(Extent::text(count));
            }
            Want::Count(_) if self.ended => {
                return Ok(if rest.is_empty() {
                    Extent::End
                } else {
                    Extent::text(rest.len())
                });
            }
            Want::All if self.ended => {
                return Ok(Extent::text(rest.len()));
            }
            Want::Number => {
                let spaces = rest
                    .iter()
                    .take(PORTION)
                    .take_while(|b| is_space(**b))
                    .count();
                if spaces > 0 {
                    // White space is gone whatever follows.
                    self.consume(spaces);
                    return Ok(Extent::Again);
                }
                let text = numeral(rest);
                if text < rest.len() || self.ended {
                    return Ok(Extent::text(text));
                }
            }
            Want::Count(_) | Want::All => {}
        }
        self.refill(platform)
    }

    /// Reads more input.
    fn refill(&mut self, platform: &dyn Platform) -> Result<Extent, Failure> {
        let length = self.data.len();
        self.data
            .try_reserve(PORTION)
            .map_err(|_| Failure::NO_MEMORY)?;
        self.data.resize(length + PORTION, 0);
        let got = platform.read(&mut self.data[length..]);
        let (count, extent) = match got {
            Input::Bytes(count) => (count, Extent::Again),
            Input::Pending => (0, Extent::Pending),
            Input::End => {
                self.ended = true;
                (0, Extent::Again)
            }
        };
        self.data.truncate(length + count);
        Ok(extent)
    }

    /// Writes bytes at the position, or at the end of a file opened for appending. Standard streams are not written here.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if !self.writable {
            return Err(Failure::BAD_DESCRIPTOR);
        }
        if self.append {
            self.position = self.data.len();
        }
        let end = self
            .position
            .checked_add(bytes.len())
            .ok_or(Failure::INVALID)?;
        if end > self.data.len() {
            self.data
                .try_reserve(end - self.data.len())
                .map_err(|_| Failure::NO_MEMORY)?;
            self.data.resize(end, 0);
        }
        self.data[self.position..end].copy_from_slice(bytes);
        self.position = end;
        self.changed = true;
        Ok(())
    }

    /// Gives the platform what was written, if the file has a name.
    pub(super) fn flush(&mut self, platform: &dyn Platform) -> Result<(), Failure> {
        if self.changed && !self.name.is_empty() {
            self.changed = false;
            platform.write_file(&self.name, &self.data)?;
        }
        Ok(())
    }

    /// Flushes it and gives its content back.
    pub(super) fn close(&mut self, platform: &dyn Platform) -> Result<(), Failure> {
        let flushed = self.flush(platform);
        self.kind = Kind::Closed;
        self.data = Vec::new();
        self.position = 0;
        flushed
    }

    /// Moves the position: from the start, from where it is, or from the end.
    pub(super) fn seek(&mut self, from: Whence, offset: i64) -> Result<u64, Failure> {
        if self.kind != Kind::File {
            return Err(Failure::NOT_SEEKABLE);
        }
        let base = match from {
            Whence::Set => 0,
            Whence::Current => self.position as i64,
            Whence::End => self.data.len() as i64,
        };
        let position = base
            .checked_add(offset)
            .and_then(|p| usize::try_from(p).ok())
            .ok_or(Failure::INVALID)?;
        self.position = position;
        Ok(position as u64)
    }
}

/// Where an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whence {
    /// The first byte.
    Set,
    /// The position.
    Current,
    /// Behind the last byte.
    End,
}

/// How many bytes at the start of `text` are read as a numeral, valid or not: what Lua's `read_number` takes.
fn numeral(text: &[u8]) -> usize {
    let text = &text[..text.len().min(MAX_NUMERAL)];
    let mut at = 0;
    let any = |at: &mut usize, set: &[u8]| {
        let taken = text.get(*at).is_some_and(|b| set.contains(b));
        *at += usize::from(taken);
        taken
    };
    let digits = |at: &mut usize, hexadecimal: bool| {
        let count = text[*at..]
            .iter()
            .take_while(|b| {
                if hexadecimal {
                    b.is_ascii_hexdigit()
                } else {
                    b.is_ascii_digit()
                }
            })
            .count();
        *at += count;
        count
    };
    any(&mut at, b"+-");
    let mut count = 0;
    let mut hexadecimal = false;
    if any(&mut at, b"0") {
        if any(&mut at, b"xX") {
            hexadecimal = true;
        } else {
            count = 1;
        }
    }
    count += digits(&mut at, hexadecimal);
    if any(&mut at, b".") {
        count += digits(&mut at, hexadecimal);
    }
    if count > 0 && any(&mut at, if hexadecimal { b"pP" } else { b"eE" }) {
        any(&mut at, b"+-");
        digits(&mut at, false);
    }
    at
}

/// The files that programs have opened, by number. Numbers are not used twice.
///
/// A handle that nothing refers to any more is found by the collector ([`forget`](Files::forget)), in whose pause nothing can be written: its file is
/// closed by the next operation that could see the difference ([`close_dead`](Files::close_dead)), or at the end.
pub struct Files(Lock<Opened>);

struct Opened {
    streams: Vec<Arc<Lock<Stream>>>,
    /// The handles that live, by their addresses, and their numbers.
    handles: Vec<(usize, u32)>,
    /// The numbers of those that were found dead; there is room for all that live.
    dead: Vec<u32>,
    /// What stands for the streams of dead handles.
    closed: Arc<Lock<Stream>>,
}

impl Files {
    /// The standard streams: 0 is the input, 1 the output, 2 the one for errors.
    pub(crate) fn new() -> Files {
        let standard = |kind| Arc::new(Lock::new(Stream::standard(kind)));
        Files(Lock::new(Opened {
            streams: alloc::vec![
                standard(Kind::Input),
                standard(Kind::Output(smp::platform::Stream::Output)),
                standard(Kind::Output(smp::platform::Stream::Error))
            ],
            handles: Vec::new(),
            dead: Vec::new(),
            closed: standard(Kind::Closed),
        }))
    }

    /// Adds a stream whose handle is at this address, and gives its number; `None` when there is no memory.
    pub(super) fn add(&self, stream: Stream, handle: usize) -> Option<u32> {
        let stream = Arc::new(Lock::new(stream));
        let mut files = self.0.lock();
        let files = &mut *files;
        let number = u32::try_from(files.streams.len()).ok()?;
        files.streams.try_reserve(1).ok()?;
        files.handles.try_reserve(1).ok()?;
        files.dead.try_reserve(files.handles.len() + 1).ok()?;
        files.streams.push(stream);
        files.handles.push((handle, number));
        Some(number)
    }

    /// The stream with this number.
    pub(super) fn get(&self, number: u32) -> Option<Arc<Lock<Stream>>> {
        self.0.lock().streams.get(number as usize).cloned()
    }

    /// In the collector's pause, when all that lives is marked: notes which handles are dead.
    pub(crate) fn forget(&self, lives: &dyn Fn(usize) -> bool) {
        let mut files = self.0.lock();
        let Opened { handles, dead, .. } = &mut *files;
        handles.retain(|&(handle, number)| {
            let lives = lives(handle);
            if !lives {
                dead.push(number);
            }
            lives
        });
    }

    /// Closes the files whose handles were found dead.
    pub(crate) fn close_dead(&self, platform: &dyn Platform) {
        loop {
            let mut files = self.0.lock();
            let Some(number) = files.dead.pop() else {
                return;
            };
            let closed = files.closed.clone();
            let stream = core::mem::replace(&mut files.streams[number as usize], closed);
            drop(files);
            // As in Lua, nobody hears of a failure here.
            let _ = stream.lock().close(platform);
        }
    }

    /// Gives the platform what programs wrote and did not flush: to be called when the program has ended.
    pub(crate) fn flush(&self, platform: &dyn Platform) {
        self.close_dead(platform);
        let files: Vec<_> = self.0.lock().streams.clone();
        for file in files {
            // There is nobody left to tell that it failed.
            let _ = file.lock().flush(platform);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::numeral;

    #[test]
    fn numerals_end_where_they_must() {
        for (text, length) in [
            ("12 ", 2),
            ("-3.5e+7x", 7),
            ("0x1Fp-3.", 7),
            ("0xg", 2),
            ("abc", 0),
            ("+", 1),
            ("1e", 2),
            (".5.", 2),
            ("..5", 1),
            ("1e5e5", 3),
            ("00012-", 5),
            ("e5", 0),
        ] {
            assert_eq!(numeral(text.as_bytes()), length, "{text}");
        }
        assert_eq!(numeral(&[b'1'; 500]), 200);
    }
}
