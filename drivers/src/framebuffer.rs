//! A linear framebuffer of 24 or 32 bits a pixel.

use core::ptr::NonNull;

/// Where each colour sits in a pixel, as the boot loader reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits a pixel: 24 or 32.
    pub bits_per_pixel: u16,
    /// Bit position of the red byte.
    pub red: u8,
    /// Bit position of the green byte.
    pub green: u8,
    /// Bit position of the blue byte.
    pub blue: u8,
}

impl Format {
    /// `rgb` (red, green, blue) as a pixel.
    fn pixel(self, rgb: [u8; 3]) -> u32 {
        u32::from(rgb[0]) << self.red
            | u32::from(rgb[1]) << self.green
            | u32::from(rgb[2]) << self.blue
    }
}

/// A framebuffer in mapped memory. Cores may draw at the same time; where they overlap, each pixel is from either.
#[derive(Debug)]
pub struct Framebuffer {
    base: NonNull<u8>,
    width: usize,
    height: usize,
    pitch: usize,
    format: Format,
}

// SAFETY: the memory is only ever written, pixel by pixel with volatile stores, and no Rust reference to it exists.
unsafe impl Send for Framebuffer {}
// SAFETY: as above.
unsafe impl Sync for Framebuffer {}

impl Framebuffer {
    /// A framebuffer of `width` by `height` pixels with `pitch` bytes from row to row; `None` for formats that cannot be
    /// drawn on (other depths, colours that do not fit, rows longer than the pitch, an unaligned base).
    ///
    /// # Safety
    /// `height * pitch` bytes from `base` on are mapped and writable for as long as the value lives, and are no memory
    /// that Rust knows of.
    pub unsafe fn new(
        base: NonNull<u8>,
        width: usize,
        height: usize,
        pitch: usize,
        format: Format,
    ) -> Option<Self> {
        let bytes = usize::from(format.bits_per_pixel / 8);
        let fits = [format.red, format.green, format.blue]
            .iter()
            .all(|&shift| usize::from(shift) + 8 <= bytes * 8);
        let sound = matches!(format.bits_per_pixel, 24 | 32)
            && fits
            && width > 0
            && height > 0
            && width.checked_mul(bytes)? <= pitch
            && (bytes == 3 || (pitch.is_multiple_of(4) && base.as_ptr().addr().is_multiple_of(4)));
        sound.then_some(Self {
            base,
            width,
            height,
            pitch,
            format,
        })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Draws `rgb` (three bytes a pixel, row by row, `width` pixels a row) with its top left corner at (`x`, `y`). What
    /// lies outside is cut off; an incomplete last row is drawn as far as it goes.
    pub fn draw(&self, x: usize, y: usize, width: usize, rgb: &[u8]) {
        if width == 0 || x >= self.width {
            return;
        }
        for (row, line) in rgb.chunks(width * 3).enumerate() {
            let Some(target) = y.checked_add(row).filter(|&target| target < self.height) else {
                return;
            };
            for (column, pixel) in line.chunks_exact(3).take(self.width - x).enumerate() {
                self.set(
                    x + column,
                    target,
                    self.format.pixel([pixel[0], pixel[1], pixel[2]]),
                );
            }
        }
    }

    /// `rgb` (red, green, blue) as a pixel, for [`fill`](Self::fill) and [`draw_shades`](Self::draw_shades).
    pub fn pixel(&self, rgb: [u8; 3]) -> u32 {
        self.format.pixel(rgb)
    }

    /// Fills a rectangle. What lies outside is cut off.
    pub fn fill(&self, x: usize, y: usize, width: usize, height: usize, pixel: u32) {
        let right = x.saturating_add(width).min(self.width);
        for y in y..y.saturating_add(height).min(self.height) {
            for x in x..right {
                self.set(x, y, pixel);
            }
        }
    }

    /// Draws `shades` (a byte a pixel, row by row, `width` pixels a row) with the pixels that `palette` gives for each, with its
    /// top left corner at (`x`, `y`). What lies outside is cut off.
    pub fn draw_shades(
        &self,
        x: usize,
        y: usize,
        width: usize,
        shades: &[u8],
        palette: &[u32; 256],
    ) {
        if width == 0 || x >= self.width || y >= self.height {
            return;
        }
        for (row, line) in shades.chunks(width).take(self.height - y).enumerate() {
            for (column, &shade) in line.iter().take(self.width - x).enumerate() {
                self.set(x + column, y + row, palette[usize::from(shade)]);
            }
        }
    }

    #[inline]
    fn set(&self, x: usize, y: usize, pixel: u32) {
        debug_assert!(x < self.width && y < self.height);
        let bytes = usize::from(self.format.bits_per_pixel / 8);
        // SAFETY: `x` and `y` are inside, so the pixel is inside the memory that `new`'s caller vouches for; 32-bit
        // pixels are aligned because base and pitch are.
        unsafe {
            let place = self.base.add(y * self.pitch + x * bytes);
            if bytes == 4 {
                place.cast::<u32>().write_volatile(pixel);
            } else {
                for (byte, value) in pixel.to_le_bytes()[..3].iter().enumerate() {
                    place.add(byte).write_volatile(*value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    const RGB32: Format = Format {
        bits_per_pixel: 32,
        red: 16,
        green: 8,
        blue: 0,
    };

    fn surface(memory: &mut Vec<u32>, width: usize, height: usize) -> Framebuffer {
        memory.resize(width * height, 0);
        let base = NonNull::new(memory.as_mut_ptr()).unwrap().cast();
        // SAFETY: the vector outlives the framebuffer in each test and is read only after drawing.
        unsafe { Framebuffer::new(base, width, height, width * 4, RGB32).unwrap() }
    }

    #[test]
    fn draws_and_cuts_off() {
        let mut memory = Vec::new();
        let screen = surface(&mut memory, 4, 3);
        screen.draw(
            2,
            1,
            3,
            &[
                1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 1, 1, 1, 9, 9, 9,
            ],
        );
        screen.draw(4, 0, 1, &[9, 9, 9]);
        screen.draw(0, usize::MAX, 1, &[9, 9, 9, 9, 9, 9]);
        assert_eq!(
            memory,
            [
                0, 0, 0, 0, 0, 0, 0x010203, 0x040506, 0, 0, 0x0a0b0c, 0x0d0e0f
            ]
        );
    }

    #[test]
    fn fills_and_draws_shades() {
        let mut memory = Vec::new();
        let screen = surface(&mut memory, 3, 2);
        screen.fill(1, 0, 9, 1, screen.pixel([0, 0, 7]));
        screen.fill(0, 1, 1, usize::MAX, 5);
        let palette = core::array::from_fn(|shade| shade as u32 * 2);
        screen.draw_shades(1, 1, 3, &[10, 20, 30, 40, 50, 60], &palette);
        screen.draw_shades(3, 0, 1, &[9], &palette);
        screen.draw_shades(0, 2, 1, &[9], &palette);
        assert_eq!(memory, [0, 7, 7, 5, 20, 40]);
    }

    #[test]
    fn draws_three_byte_pixels() {
        let mut memory = vec![0u8; 2 * 8];
        let base = NonNull::new(memory.as_mut_ptr()).unwrap();
        let format = Format {
            bits_per_pixel: 24,
            red: 16,
            green: 8,
            blue: 0,
        };
        // SAFETY: the vector outlives the framebuffer.
        let screen = unsafe { Framebuffer::new(base, 2, 2, 8, format).unwrap() };
        screen.draw(1, 1, 1, &[0x11, 0x22, 0x33]);
        assert_eq!(
            memory,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x33, 0x22, 0x11, 0, 0]
        );
    }

    #[test]
    fn refuses_what_it_cannot_draw_on() {
        let mut memory = [0u32; 4];
        let base = NonNull::new(memory.as_mut_ptr()).unwrap().cast();
        let make = |pitch, format| {
            // SAFETY: nothing is drawn.
            unsafe { Framebuffer::new(base, 2, 2, pitch, format) }.is_some()
        };
        assert!(make(8, RGB32));
        assert!(!make(7, RGB32));
        assert!(!make(
            8,
            Format {
                bits_per_pixel: 16,
                ..RGB32
            }
        ));
        assert!(!make(8, Format { red: 25, ..RGB32 }));
    }
}
