//! What is typed, a line at a time: shown as it comes, corrected with the backspace key, and given to the program with the return key,
//! as a terminal does that a person sits at.

use pc_keyboard::{DecodedKey, HandleControl, PS2Keyboard, ScancodeSet1, layouts::Us104Key};

/// The longest line that can be typed, in bytes, its end included.
pub const LINE: usize = 512;

/// Control characters that mean something: they are what the control key makes of these letters.
const CANCEL: char = '\x03';
const END: char = '\x04';
const ERASE_LINE: char = '\x15';

/// What a key amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing, or a change of the line that is being typed.
    Nothing,
    /// The line is [`line`](Typing::line), for the program.
    Line,
    /// The input ends here.
    End,
    /// The program is to be cancelled.
    Cancel,
}

/// A keyboard and the line that is being typed.
pub struct Typing {
    keyboard: PS2Keyboard<Us104Key, ScancodeSet1>,
    line: [u8; LINE],
    length: usize,
}

impl Default for Typing {
    fn default() -> Self {
        Self::new()
    }
}

impl Typing {
    /// No line yet.
    pub const fn new() -> Self {
        Self {
            keyboard: PS2Keyboard::new(
                ScancodeSet1::new(),
                Us104Key,
                HandleControl::MapLettersToUnicode,
            ),
            line: [0; LINE],
            length: 0,
        }
    }

    /// Takes a byte of a scan code. `echo` shows text.
    pub fn byte(&mut self, byte: u8, echo: &mut dyn FnMut(&[u8])) -> Typed {
        // Bytes that make no sense are those of keys that the crate does not know.
        let Ok(Some(event)) = self.keyboard.add_byte(byte) else {
            return Typed::Nothing;
        };
        match self.keyboard.process_keyevent(event) {
            Some(DecodedKey::Unicode(character)) => self.character(character, echo),
            _ => Typed::Nothing,
        }
    }

    fn character(&mut self, character: char, echo: &mut dyn FnMut(&[u8])) -> Typed {
        match character {
            '\n' | '\r' => {
                echo(b"\n");
                self.line[self.length] = b'\n';
                self.length += 1;
                return Typed::Line;
            }
            CANCEL => {
                echo(b"^C\n");
                self.length = 0;
                return Typed::Cancel;
            }
            // What has been typed so far is the last line.
            END if self.length > 0 => return Typed::Line,
            END => return Typed::End,
            ERASE_LINE => while self.erase(echo) {},
            '\x08' | '\x7f' => {
                self.erase(echo);
            }
            '\t' | ' '.. => {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).as_bytes();
                // One place is the line end's.
                if self.length + bytes.len() < LINE {
                    self.line[self.length..][..bytes.len()].copy_from_slice(bytes);
                    self.length += bytes.len();
                    // A tab is shown as one column, so that the backspace key takes one back.
                    echo(if character == '\t' { b" " } else { bytes });
                }
            }
            _ => {}
        }
        Typed::Nothing
    }

    /// Takes the last character back, if there is one.
    fn erase(&mut self, echo: &mut dyn FnMut(&[u8])) -> bool {
        let line = core::str::from_utf8(&self.line[..self.length]).unwrap_or_default();
        let Some((start, _)) = line.char_indices().next_back() else {
            return false;
        };
        self.length = start;
        echo(b"\x08 \x08");
        true
    }

    /// The line, to be [taken](Self::take).
    pub fn line(&self) -> &[u8] {
        &self.line[..self.length]
    }

    /// Begins the next line.
    pub fn take(&mut self) {
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::String, vec::Vec};

    const CONTROL: u8 = 0x1d;
    const SHIFT: u8 = 0x2a;
    const RELEASE: u8 = 0x80;
    const BACKSPACE: u8 = 0x0e;
    const RETURN: u8 = 0x1c;

    /// Scan codes of set 1 for these keys, each pressed and released.
    fn keys(keys: &[u8]) -> Vec<u8> {
        keys.iter().flat_map(|&key| [key, key | RELEASE]).collect()
    }

    fn with(modifier: u8, key: u8) -> Vec<u8> {
        std::vec![modifier, key, key | RELEASE, modifier | RELEASE]
    }

    fn feed(typing: &mut Typing, codes: &[u8]) -> (Vec<Typed>, String) {
        let mut shown = Vec::new();
        let typed = codes
            .iter()
            .map(|&code| typing.byte(code, &mut |bytes| shown.extend_from_slice(bytes)))
            .filter(|&typed| typed != Typed::Nothing)
            .collect();
        (typed, String::from_utf8(shown).unwrap())
    }

    #[test]
    fn a_line_with_a_correction() {
        let mut typing = Typing::new();
        // h, i with shift, x, backspace, return
        let codes = [
            keys(&[0x23]),
            with(SHIFT, 0x17),
            keys(&[0x2d, BACKSPACE, RETURN]),
        ]
        .concat();
        let (typed, shown) = feed(&mut typing, &codes);
        assert_eq!(typed, [Typed::Line]);
        assert_eq!(typing.line(), b"hI\n");
        assert_eq!(shown, "hIx\x08 \x08\n");
        typing.take();
        let (typed, shown) = feed(&mut typing, &keys(&[BACKSPACE, RETURN]));
        assert_eq!((typed, shown.as_str()), (std::vec![Typed::Line], "\n"));
        assert_eq!(typing.line(), b"\n");
    }

    #[test]
    fn control_characters() {
        let mut typing = Typing::new();
        let (typed, _) = feed(&mut typing, &with(CONTROL, 0x20));
        assert_eq!(typed, [Typed::End]);
        feed(&mut typing, &keys(&[0x1e, 0x30]));
        let (typed, _) = feed(&mut typing, &with(CONTROL, 0x20));
        assert_eq!((typed, typing.line()), (std::vec![Typed::Line], &b"ab"[..]));
        let (_, shown) = feed(&mut typing, &with(CONTROL, 0x16));
        assert_eq!((shown.len(), typing.line()), (6, &b""[..]));
        let (typed, shown) = feed(&mut typing, &with(CONTROL, 0x2e));
        assert_eq!((typed, shown.as_str()), (std::vec![Typed::Cancel], "^C\n"));
    }

    #[test]
    fn a_line_ends_somewhere_and_any_bytes_do_no_harm() {
        let mut typing = Typing::new();
        feed(&mut typing, &keys(&[0x1e; 2 * LINE]));
        assert_eq!(typing.line().len(), LINE - 1);
        let (typed, _) = feed(&mut typing, &keys(&[RETURN]));
        assert_eq!((typed, typing.line().len()), (std::vec![Typed::Line], LINE));
        typing.take();
        for code in (0..=255).cycle().take(10_000) {
            if let (typed, _) = feed(&mut typing, &[code, (code ^ 0xa5).rotate_left(3)])
                && !typed.is_empty()
            {
                typing.take();
            }
        }
    }
}
