//! The bytes of the first serial port towards the machine: standard input, with the events that are no bytes.
//!
//! Byte `0x10` (ASCII's data link escape) introduces a sequence of two: itself again for one literal `0x10`, `E` for
//! the end of the input, `C` to cancel the program.

const ESCAPE: u8 = 0x10;

/// Says that the input has ended. Nothing but [`CANCEL`] may follow.
pub const END: &[u8] = &[ESCAPE, b'E'];

/// Asks the kernel to cancel the program.
pub const CANCEL: &[u8] = &[ESCAPE, b'C'];

/// Appends `input` to `output` as the machine expects it. What it appends never ends within a sequence.
pub fn encode(input: &[u8], output: &mut Vec<u8>) {
    for &byte in input {
        if byte == ESCAPE {
            output.push(ESCAPE);
        }
        output.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does: bytes, or the letter of an event.
    fn decode(input: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        let mut input = input.iter().copied();
        while let Some(byte) = input.next() {
            match byte {
                ESCAPE => match input.next().expect("a whole sequence") {
                    ESCAPE => bytes.push(ESCAPE),
                    event => events.push(event),
                },
                _ => bytes.push(byte),
            }
        }
        (bytes, events)
    }

    #[test]
    fn every_byte_survives_and_events_stay_apart() {
        let mut all: Vec<u8> = (0..=255).collect();
        all.extend([ESCAPE, ESCAPE, b'E', ESCAPE, b'C']);
        let mut coded = Vec::new();
        encode(&all, &mut coded);
        coded.extend(CANCEL);
        coded.extend(END);
        assert_eq!(decode(&coded), (all, vec![b'C', b'E']));
    }
}
