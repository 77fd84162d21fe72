//! The escapes in what the launcher sends on the first serial port.
//!
//! Standard input comes as it is, except that byte 0x10 (DLE) introduces: DLE DLE a literal 0x10, DLE `E` the end of the
//! input, DLE `C` "cancel the program". A DLE before anything else is dropped, and that byte taken as it is.

/// The byte that introduces an escape.
pub const DLE: u8 = 0x10;

/// What one more byte amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet.
    None,
    /// A byte of input.
    Byte(u8),
    /// The input has ended.
    End,
    /// The program is to be cancelled.
    Cancel,
}

/// The decoder's state between bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    escaped: bool,
}

impl Decoder {
    /// At the start of a stream.
    pub const fn new() -> Self {
        Self { escaped: false }
    }

    /// Takes the next byte of the stream.
    pub fn next(&mut self, byte: u8) -> Event {
        match (core::mem::replace(&mut self.escaped, false), byte) {
            (false, DLE) => {
                self.escaped = true;
                Event::None
            }
            (true, b'E') => Event::End,
            (true, b'C') => Event::Cancel,
            (_, byte) => Event::Byte(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    fn decode(bytes: &[u8]) -> Vec<Event> {
        let mut decoder = Decoder::new();
        bytes
            .iter()
            .map(|&byte| decoder.next(byte))
            .filter(|&event| event != Event::None)
            .collect()
    }

    #[test]
    fn decodes() {
        use Event::*;
        assert_eq!(
            decode(b"a\x10\x10E\x10Cb\x10E"),
            vec![Byte(b'a'), Byte(0x10), Byte(b'E'), Cancel, Byte(b'b'), End]
        );
        assert_eq!(decode(b"\x10\x10\x10\x10"), vec![Byte(0x10), Byte(0x10)]);
        assert_eq!(decode(b"\x10x\x10"), vec![Byte(b'x')]);
    }
}
