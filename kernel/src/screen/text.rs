//! The text on the screen: a grid of characters with a cursor, moved by the bytes of a terminal's stream (ECMA-48), as far as programs
//! commonly use that: line ends, tabs, backspace, colours, moving the cursor and erasing. Other sequences are read over.

use alloc::vec::Vec;
use vte::{Params, Parser, Perform};

/// Colours as ECMA-48 counts them; those from 8 on are the bright ones.
const WHITE: u8 = 7;
const BLACK: u8 = 0;

/// A character with its colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) character: char,
    /// Its colour, 0 to 15.
    pub(super) ink: u8,
    /// The colour behind it, 0 to 15.
    pub(super) paper: u8,
}

impl Cell {
    /// Nothing.
    pub(super) const BLANK: Self = Self {
        character: ' ',
        ink: WHITE,
        paper: BLACK,
    };

    /// With its colours exchanged.
    pub(super) fn inverted(self) -> Self {
        Self {
            ink: self.paper,
            paper: self.ink,
            ..self
        }
    }
}

/// What there is to see.
pub(super) struct Text {
    parser: Parser<64>,
    grid: Grid,
}

/// The characters and the cursor.
struct Grid {
    columns: usize,
    rows: usize,
    /// Row by row. Which of them is the top one moves, so that nothing is copied when the text moves up.
    cells: Vec<Cell>,
    top: usize,
    row: usize,
    /// `columns` behind a full row, so that a line that just fits takes one row.
    column: usize,
    /// A blank with the colours that are in effect.
    style: Cell,
    bright: bool,
    inverse: bool,
}

impl Text {
    /// Nothing yet, the cursor in the top left corner; `None` without memory for it.
    pub(super) fn new(columns: usize, rows: usize) -> Option<Self> {
        let mut cells = Vec::new();
        cells.try_reserve_exact(columns * rows).ok()?;
        cells.resize(columns * rows, Cell::BLANK);
        (columns > 0 && rows > 0).then(|| Self {
            parser: Parser::new_with_size(),
            grid: Grid {
                columns,
                rows,
                cells,
                top: 0,
                row: 0,
                column: 0,
                style: Cell::BLANK,
                bright: false,
                inverse: false,
            },
        })
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.grid.columns, self.grid.rows)
    }

    /// Writes a part of the stream. When `lost` says that there was more before it, an unfinished character or sequence is forgotten.
    pub(super) fn write(&mut self, bytes: &[u8], lost: bool) {
        // What would have moved out of sight by the end need not be written.
        let seen = last_lines(bytes, self.grid.rows);
        if lost || seen.len() < bytes.len() {
            self.parser = Parser::new_with_size();
        }
        self.parser.advance(&mut self.grid, seen);
    }

    /// A row as it is to be seen, with the cursor.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = Cell> {
        let grid = &self.grid;
        let cursor = (grid.row == row).then(|| grid.column.min(grid.columns - 1));
        let cells = &grid.cells[grid.at(row, 0)..][..grid.columns];
        cells.iter().enumerate().map(move |(column, &cell)| {
            if cursor == Some(column) {
                cell.inverted()
            } else {
                cell
            }
        })
    }
}

/// The end of `bytes` with no more than `rows` line ends in it, from the beginning of a line on.
fn last_lines(bytes: &[u8], rows: usize) -> &[u8] {
    let ends = bytes.iter().enumerate().rev();
    let mut ends = ends.filter(|&(_, &byte)| byte == b'\n');
    ends.nth(rows)
        .map_or(bytes, |(before, _)| &bytes[before + 1..])
}

impl Grid {
    fn at(&self, row: usize, column: usize) -> usize {
        (self.top + row) % self.rows * self.columns + column
    }

    fn new_line(&mut self) {
        self.column = 0;
        if self.row + 1 < self.rows {
            self.row += 1;
            return;
        }
        self.top = (self.top + 1) % self.rows;
        self.erase(self.row, 0, self.columns);
    }

    fn erase(&mut self, row: usize, from: usize, to: usize) {
        let start = self.at(row, 0);
        let to = to.min(self.columns);
        self.cells[start + from.min(to)..start + to].fill(self.style);
    }

    fn erase_screen(&mut self, how: u16) {
        let rows = match how {
            0 => self.row + 1..self.rows,
            1 => 0..self.row,
            _ => 0..self.rows,
        };
        rows.for_each(|row| self.erase(row, 0, self.columns));
        if how < 2 {
            self.erase_line(how);
        }
    }

    fn erase_line(&mut self, how: u16) {
        let (from, to) = match how {
            0 => (self.column, self.columns),
            1 => (0, self.column + 1),
            _ => (0, self.columns),
        };
        self.erase(self.row, from, to);
    }

    /// Select graphic rendition.
    fn select(&mut self, parameters: &Params) {
        let mut parameters = parameters.iter().map(|parameter| parameter[0]);
        while let Some(parameter) = parameters.next() {
            let colour = parameter % 10;
            match parameter {
                0 => {
                    self.style = Cell::BLANK;
                    (self.bright, self.inverse) = (false, false);
                }
                1 => self.bright = true,
                22 => self.bright = false,
                7 if !self.inverse => {
                    self.inverse = true;
                    self.style = self.style.inverted();
                }
                27 if self.inverse => {
                    self.inverse = false;
                    self.style = self.style.inverted();
                }
                30..=37 | 39 | 90..=97 => {
                    let colour = if parameter == 39 {
                        WHITE
                    } else {
                        colour as u8 + if parameter >= 90 { 8 } else { 0 }
                    };
                    *self.colours().0 = colour;
                }
                40..=47 | 49 | 100..=107 => {
                    let colour = if parameter == 49 {
                        BLACK
                    } else {
                        colour as u8 + if parameter >= 100 { 8 } else { 0 }
                    };
                    *self.colours().1 = colour;
                }
                // Colours by number or by their parts: read over.
                38 | 48 => {
                    let parts = if parameters.next() == Some(2) { 3 } else { 1 };
                    parameters.by_ref().take(parts).for_each(drop);
                }
                _ => {}
            }
        }
    }

    /// The colours of ink and paper, as they were chosen.
    fn colours(&mut self) -> (&mut u8, &mut u8) {
        let Cell { ink, paper, .. } = &mut self.style;
        if self.inverse {
            (paper, ink)
        } else {
            (ink, paper)
        }
    }
}

impl Perform for Grid {
    fn print(&mut self, character: char) {
        // The second set of control characters, which has no glyphs.
        if ('\u{7f}'..'\u{a0}').contains(&character) {
            return;
        }
        if self.column == self.columns {
            self.new_line();
        }
        let place = self.at(self.row, self.column);
        let ink = self.style.ink;
        self.cells[place] = Cell {
            character,
            ink: if self.bright { ink | 8 } else { ink },
            paper: self.style.paper,
        };
        self.column += 1;
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' | 0x0b | 0x0c => self.new_line(),
            b'\r' => self.column = 0,
            b'\t' => self.column = (self.column / 8 * 8 + 8).min(self.columns - 1),
            0x08 => self.column = self.column.min(self.columns).saturating_sub(1),
            _ => {}
        }
    }

    fn csi_dispatch(
        &mut self,
        parameters: &Params,
        intermediates: &[u8],
        ignore: bool,
        action: char,
    ) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        let parameter = |index: usize| parameters.iter().nth(index).map_or(0, |values| values[0]);
        let count = usize::from(parameter(0).max(1));
        let (rows, columns) = (self.rows, self.columns);
        match action {
            'A' => self.row = self.row.saturating_sub(count),
            'B' => self.row = (self.row + count).min(rows - 1),
            'C' => self.column = (self.column + count).min(columns - 1),
            'D' => self.column = self.column.saturating_sub(count),
            'G' => self.column = count.min(columns) - 1,
            'd' => self.row = count.min(rows) - 1,
            'H' | 'f' => {
                self.row = count.min(rows) - 1;
                self.column = usize::from(parameter(1).max(1)).min(columns) - 1;
            }
            'J' => self.erase_screen(parameter(0)),
            'K' => self.erase_line(parameter(0)),
            'm' => self.select(parameters),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn shown(text: &Text) -> Vec<String> {
        let rows = 0..text.size().1;
        let line = |row| {
            let cells = text.row(row).map(|cell| cell.character);
            cells.collect::<String>().trim_end().to_string()
        };
        rows.map(line).collect()
    }

    #[track_caller]
    fn check(written: &str, expected: [&str; 3]) {
        let mut text = Text::new(6, 3).unwrap();
        text.write(written.as_bytes(), false);
        assert_eq!(shown(&text), expected, "{written:?}");
        // The same a byte at a time.
        let mut text = Text::new(6, 3).unwrap();
        for byte in written.as_bytes() {
            text.write(&[*byte], false);
        }
        assert_eq!(shown(&text), expected, "{written:?} in pieces");
    }

    #[test]
    fn lines_wrap_and_move_up() {
        check("ab\ncd", ["ab", "cd", ""]);
        check("abcdef\ng", ["abcdef", "g", ""]);
        check("abcdefg", ["abcdef", "g", ""]);
        check("1\n2\n3\n4\n5", ["3", "4", "5"]);
        check("1\n2\n3\n4\n5\n", ["4", "5", ""]);
        check("abcdefghijklmnopqrstuvwxyz", ["mnopqr", "stuvwx", "yz"]);
    }

    #[test]
    fn control_characters() {
        check("abc\rX", ["Xbc", "", ""]);
        check("abc\x08\x08X", ["aXc", "", ""]);
        check("\x08a\x07b\0", ["ab", "", ""]);
        check("a\tb", ["a    b", "", ""]);
        check("abcdef\x08X", ["abcdeX", "", ""]);
        check("ä→€", ["ä→€", "", ""]);
    }

    #[test]
    fn cursor_and_erasing() {
        check("abc\x1b[2DX\x1b[CY", ["aXcY", "", ""]);
        check("a\nb\nc\x1b[1;3HX\x1b[2dY", ["a X", "b  Y", "c"]);
        check("abcdef\x1b[3G\x1b[K", ["ab", "", ""]);
        check("abcdef\x1b[3G\x1b[1K", ["   def", "", ""]);
        check("a\nb\nc\x1b[2;1H\x1b[J", ["a", "", ""]);
        check("a\nb\nc\x1b[2J\x1b[HX", ["X", "", ""]);
        check("a\x1b[99A\x1b[99D\x1b[99B\x1b[99CX", ["a", "", "     X"]);
        // Unknown ones, strings for the window's title, and unfinished ones.
        check("a\x1b[?25lb\x1b]0;title\x07c\x1b[3", ["abc", "", ""]);
    }

    #[test]
    fn colours() {
        let mut text = Text::new(9, 1).unwrap();
        text.write(
            b"a\x1b[31mb\x1b[1;44mc\x1b[7md\x1b[0me\x1b[38;5;9mf\x1b[92mg",
            false,
        );
        let cells: Vec<_> = text.row(0).map(|cell| (cell.ink, cell.paper)).collect();
        assert_eq!(
            cells[..8],
            [
                (7, 0),
                (1, 0),
                (9, 4),
                (12, 1),
                (7, 0),
                (7, 0),
                (10, 0),
                (0, 7)
            ],
            "the last is the cursor"
        );
    }

    #[test]
    fn what_would_have_moved_out_of_sight_is_passed_over() {
        let whole: String = (0..1000).map(|line| std::format!("line{line}\n")).collect();
        let mut text = Text::new(9, 3).unwrap();
        text.write(whole.as_bytes(), false);
        assert_eq!(shown(&text), ["line998", "line999", ""]);
        // Bytes of a character whose beginning was lost.
        text.write(&"ä".as_bytes()[1..], true);
        text.write(b"z", false);
        assert_eq!(shown(&text)[2], "\u{fffd}z");
    }

    #[test]
    fn any_bytes_do_no_harm() {
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut text = Text::new(7, 4).unwrap();
        for round in 0..2000 {
            let bytes: Vec<u8> = (0..50)
                .map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    match random % 4 {
                        0 => b"\x1b[;0123456789ABCDGHJKdm\n\r\t"[(random >> 8) as usize % 26],
                        1 => 0x1b,
                        _ => (random >> 16) as u8,
                    }
                })
                .collect();
            text.write(&bytes, round % 3 == 0);
            assert_eq!(shown(&text).len(), 4);
        }
    }
}
