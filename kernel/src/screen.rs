//! The screen: the loader's framebuffer, mapped write-combining.

use crate::{
    boot::requests,
    info,
    memory::{
        paging::{Access, Cache},
        space,
    },
};
use drivers::framebuffer::Framebuffer;
use spin::Once;

/// The screen as the engine sees it.
#[derive(Debug)]
pub struct Screen(Framebuffer);

static SCREEN: Once<Screen> = Once::new();

/// Maps the framebuffer, if there is one that can be drawn on.
pub(crate) fn initialise(found: Option<requests::Screen>) {
    let Some(found) = found else { return };
    let Some(bytes) = found
        .height
        .checked_mul(found.pitch)
        .filter(|&bytes| bytes > 0)
    else {
        return;
    };
    // SAFETY: the framebuffer that the loader set up, which nobody else touches.
    let framebuffer = unsafe {
        let base = space::map_device(
            found.address,
            bytes,
            Access::ReadWrite,
            Cache::WriteCombining,
        );
        Framebuffer::new(base, found.width, found.height, found.pitch, found.format)
    };
    if let Some(framebuffer) = framebuffer {
        info!(
            "screen: {} by {}, {} bits",
            found.width, found.height, found.format.bits_per_pixel
        );
        SCREEN.call_once(|| Screen(framebuffer));
    }
}

/// The screen, if there is one.
pub fn get() -> Option<&'static Screen> {
    SCREEN.get()
}

impl smp::platform::Screen for Screen {
    fn size(&self) -> (usize, usize) {
        self.0.size()
    }

    fn draw(&self, x: usize, y: usize, width: usize, rgb: &[u8]) {
        self.0.draw(x, y, width, rgb);
    }
}
