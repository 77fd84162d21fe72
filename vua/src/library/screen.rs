//! The screen: `screen.size()` and `screen.draw(x, y, width, rgb)`. There is no global `screen` where there is none.

use smp::platform::Platform;

use super::Builder;
use super::access::BYTES;
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};

/// Defines the library, if the platform has a screen.
pub(super) fn open(
    builder: &mut Builder<'_>,
    platform: &'static dyn Platform,
) -> Result<(), NeedMemory> {
    if platform.screen().is_some() {
        builder.library("screen", &[("draw", draw), ("size", size)])?;
    }
    Ok(())
}

fn size(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (width, height) = call
        .platform()
        .screen()
        .map_or((0, 0), |screen| screen.size());
    let (width, height) = (call.integer(width as i64)?, call.integer(height as i64)?);
    call.set(0, width);
    call.set(1, height);
    Ok(Next::Many { at: 0, count: 2 })
}

/// Argument `i` as a number of pixels from `least` on.
fn pixels(call: &Call<'_>, i: usize, least: usize) -> Result<usize, Throw> {
    let n = usize::try_from(call.integer_argument(i)?)
        .ok()
        .filter(|n| (least..=i32::MAX as usize).contains(n));
    n.ok_or_else(|| call.argument_error(i, "value out of range"))
}

/// Draws rows of `width` pixels, three bytes each, their top left corner at (`x`, `y`), counted from 0.
fn draw(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (x, y, width) = (
        pixels(call, 0, 0)?,
        pixels(call, 1, 0)?,
        pixels(call, 2, 1)?,
    );
    let rgb = call.bytes_argument(3)?.bytes();
    let row = width * 3;
    if rgb.len() % row != 0 {
        return Err(call.argument_error(3, "length is not a whole number of rows"));
    }
    let Some(screen) = call.platform().screen() else {
        return Ok(Next::Nothing);
    };
    let rows = (BYTES / row).max(1);
    for (i, band) in rgb.chunks(rows * row).enumerate() {
        screen.draw(x, y + i * rows, width, band);
        call.poll()?;
    }
    Ok(Next::Nothing)
}
