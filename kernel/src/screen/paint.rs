//! Characters as pixels. Nothing here reads the framebuffer, which would take hundreds of nanoseconds a word: what is on it is remembered.

use super::text::{Cell, Text};
use alloc::vec::Vec;
use core::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};
use drivers::framebuffer::Framebuffer;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// The colours that ECMA-48 numbers, as text-mode PCs show them.
const COLOURS: [[u8; 3]; 16] = [
    [0x00, 0x00, 0x00],
    [0xc0, 0x30, 0x30],
    [0x30, 0xb0, 0x30],
    [0xc0, 0x90, 0x30],
    [0x40, 0x70, 0xd0],
    [0xb0, 0x40, 0xb0],
    [0x30, 0xb0, 0xb0],
    [0xd0, 0xd0, 0xd0],
    [0x80, 0x80, 0x80],
    [0xff, 0x60, 0x60],
    [0x60, 0xff, 0x60],
    [0xff, 0xff, 0x60],
    [0x70, 0xa0, 0xff],
    [0xff, 0x70, 0xff],
    [0x60, 0xff, 0xff],
    [0xff, 0xff, 0xff],
];

/// Behind a panic's report.
const ALARM: [u8; 3] = [0x60, 0x00, 0x10];

const WEIGHT: FontWeight = FontWeight::Regular;

/// Screens with at least so many rows of pixels get large characters.
const FINE: usize = 1440;

/// Characters of one size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Font {
    size: RasterHeight,
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Font {
    /// For a screen with this many rows of pixels.
    pub(super) fn new(rows: usize) -> Self {
        let size = if rows >= FINE {
            RasterHeight::Size32
        } else {
            RasterHeight::Size16
        };
        Self {
            size,
            width: get_raster_width(WEIGHT, size),
            height: size.val(),
        }
    }

    /// How much of each pixel the character covers. One that the font does not have is shown as U+FFFD.
    fn shades(self, character: char) -> &'static [u8] {
        let raster = |character| get_raster(character, WEIGHT, self.size);
        let found = raster(character).or_else(|| raster('\u{fffd}'));
        found.map_or(&[], |raster| raster.pixels())
    }
}

/// The pixels between two colours.
fn mix(framebuffer: &Framebuffer, paper: [u8; 3], ink: [u8; 3]) -> [u32; 256] {
    core::array::from_fn(|shade| {
        let between = |index: usize| {
            let (from, to) = (usize::from(paper[index]), usize::from(ink[index]));
            ((from * (255 - shade) + to * shade) / 255) as u8
        };
        framebuffer.pixel([between(0), between(1), between(2)])
    })
}

/// Paints text, a few cells at a time.
pub(super) struct Painter {
    font: Font,
    /// What is on the screen.
    shown: Vec<Cell>,
    /// The row that is painted next.
    row: usize,
    /// The pixels between the colours of the cell painted last.
    palette: (u8, u8, [u32; 256]),
    /// Nothing has been painted yet, and something else may be on the screen.
    untouched: bool,
}

impl Painter {
    /// For text of this size; `None` without memory for it.
    pub(super) fn new(
        framebuffer: &Framebuffer,
        font: Font,
        columns: usize,
        rows: usize,
    ) -> Option<Self> {
        let mut shown = Vec::new();
        shown.try_reserve_exact(columns * rows).ok()?;
        shown.resize(columns * rows, Cell::BLANK);
        let (ink, paper) = (Cell::BLANK.ink, Cell::BLANK.paper);
        let mixed = mix(
            framebuffer,
            COLOURS[usize::from(paper)],
            COLOURS[usize::from(ink)],
        );
        Some(Self {
            font,
            shown,
            row: 0,
            palette: (ink, paper, mixed),
            untouched: true,
        })
    }

    /// Whether the next [`paint`](Self::paint) begins at the top.
    pub(super) fn at_top(&self) -> bool {
        self.row == 0
    }

    /// Whether anything was ever painted.
    pub(super) fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Paints cells that have changed, rows from where the last call stopped, until `most` have been painted or all rows are done.
    /// Returns whether they are; the next call then begins at the top.
    pub(super) fn paint(&mut self, framebuffer: &Framebuffer, text: &Text, most: usize) -> bool {
        let (columns, rows) = text.size();
        let mut painted = 0;
        if core::mem::take(&mut self.untouched) {
            let (width, height) = framebuffer.size();
            framebuffer.fill(0, 0, width, height, self.palette.2[0]);
        }
        while self.row < rows && painted < most {
            let row = self.row;
            for (column, cell) in text.row(row).enumerate() {
                let place = row * columns + column;
                if self.shown[place] != cell {
                    self.shown[place] = cell;
                    self.draw(framebuffer, row, column, cell);
                    painted += 1;
                }
            }
            self.row += 1;
        }
        let done = self.row == rows;
        if done {
            self.row = 0;
        }
        done
    }

    fn draw(&mut self, framebuffer: &Framebuffer, row: usize, column: usize, cell: Cell) {
        let Cell {
            character,
            ink,
            paper,
        } = cell;
        if (self.palette.0, self.palette.1) != (ink, paper) {
            let [ink_colour, paper_colour] =
                [ink, paper].map(|colour| COLOURS[usize::from(colour)]);
            self.palette = (ink, paper, mix(framebuffer, paper_colour, ink_colour));
        }
        let Font { width, height, .. } = self.font;
        framebuffer.draw_shades(
            column * width,
            row * height,
            width,
            self.font.shades(character),
            &self.palette.2,
        );
    }
}

/// Where a panic's report goes on: character cells from the top left corner on, row by row.
static REPORTED: AtomicUsize = AtomicUsize::new(0);

/// A panic's report, written from the top of the screen down over whatever is there, without locks and memory. What does not fit any more
/// is left out: the beginning says most.
pub(super) struct Report<'a> {
    framebuffer: &'a Framebuffer,
    font: Font,
    palette: [u32; 256],
}

impl<'a> Report<'a> {
    pub(super) fn new(framebuffer: &'a Framebuffer) -> Self {
        let white = COLOURS[15];
        Self {
            framebuffer,
            font: Font::new(framebuffer.size().1),
            palette: mix(framebuffer, ALARM, white),
        }
    }
}

impl fmt::Write for Report<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Font { width, height, .. } = self.font;
        let (pixels, lines) = self.framebuffer.size();
        let (columns, rows) = (pixels / width, lines / height);
        if columns == 0 {
            return Err(fmt::Error);
        }
        let mut place = REPORTED.load(Ordering::Relaxed);
        for character in text.chars() {
            let (row, column) = (place / columns, place % columns);
            if row >= rows {
                break;
            }
            // Each row is cleared when its first character comes.
            if column == 0 {
                self.framebuffer
                    .fill(0, row * height, pixels, height, self.palette[0]);
            }
            if character == '\n' {
                place = (row + 1) * columns;
                continue;
            }
            self.framebuffer.draw_shades(
                column * width,
                row * height,
                width,
                self.font.shades(character),
                &self.palette,
            );
            place += 1;
        }
        REPORTED.store(place, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::NonNull;
    use drivers::framebuffer::Format;
    use std::vec;

    const WIDTH: usize = 70;
    const HEIGHT: usize = 50;

    fn screen(memory: &mut [u32]) -> Framebuffer {
        let base = NonNull::new(memory.as_mut_ptr()).unwrap().cast();
        let format = Format {
            bits_per_pixel: 32,
            red: 16,
            green: 8,
            blue: 0,
        };
        // SAFETY: the memory outlives the framebuffer in each test, and is read between drawings only.
        unsafe { Framebuffer::new(base, WIDTH, HEIGHT, WIDTH * 4, format).unwrap() }
    }

    /// What painting this from the beginning gives.
    fn fresh(lines: &str) -> Vec<u32> {
        let mut memory = vec![0x55; WIDTH * HEIGHT];
        let framebuffer = screen(&mut memory);
        let font = Font::new(HEIGHT);
        let (columns, rows) = (WIDTH / font.width, HEIGHT / font.height);
        let mut text = Text::new(columns, rows).unwrap();
        let mut painter = Painter::new(&framebuffer, font, columns, rows).unwrap();
        text.write(lines.as_bytes(), false);
        assert!(painter.paint(&framebuffer, &text, usize::MAX));
        memory
    }

    #[test]
    fn only_what_changed_is_painted_and_all_of_that() {
        let mut memory = vec![0x55; WIDTH * HEIGHT];
        let framebuffer = screen(&mut memory);
        let font = Font::new(HEIGHT);
        let mut text = Text::new(10, 3).unwrap();
        let mut painter = Painter::new(&framebuffer, font, 10, 3).unwrap();
        for line in ["one\n", "two\n", "\x1b[31mthree\x1b[m\n", "four"] {
            text.write(line.as_bytes(), false);
            // A cell or a row at a time.
            while !painter.paint(&framebuffer, &text, 1) {}
        }
        assert!(memory == fresh("two\n\x1b[31mthree\x1b[m\nfour"));
        assert!(memory.contains(&0x00d0_d0d0));
        assert!(memory.contains(&0x00c0_3030));
        assert!(!memory.contains(&0x55));
    }

    #[test]
    fn a_report_stands_at_the_top_and_ends_with_the_screen() {
        use core::fmt::Write;
        let mut memory = vec![0; WIDTH * HEIGHT];
        let framebuffer = screen(&mut memory);
        writeln!(Report::new(&framebuffer), "first").unwrap();
        let first = memory.clone();
        let alarm = framebuffer.pixel(ALARM);
        assert!(first[..WIDTH * 16].contains(&alarm));
        assert!(first[WIDTH * 16..].iter().all(|&pixel| pixel == 0));
        for line in 0..9 {
            writeln!(Report::new(&framebuffer), "line {line}, too long for a row").unwrap();
        }
        assert!(memory[..WIDTH * 16] == first[..WIDTH * 16]);
        assert!(memory[WIDTH * 32..WIDTH * 48].contains(&alarm));
    }
}
