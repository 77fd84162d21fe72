//! The screen: the loader's framebuffer, mapped write-combining, and what is on it.
//!
//! It shows the text that the machine writes, the program's output and the log alike, as a terminal would, until one of two others takes it:
//! - a program that draws: from its first `draw` on the screen is the program's picture, black where it has drawn nothing, and text goes to the
//!   other consoles only;
//! - a panic's report, over anything.
//!
//! # Text costs its writer a copy
//! Writers leave bytes in a buffer that keeps the latest. While the machine starts, each line is painted at once. Later core 0 paints, in its
//! timer's handler: a [`FRAME`] after the first byte came, and [`SLICE`] cells at a time, so that the handler is short. What scrolled out of
//! sight meanwhile is never painted.
//!
//! # Protocol
//! `PENDING` is held for a copy, `CONSOLE` for a slice. Handlers take both by `try_lock` and come again when that fails. `SCHEDULED` says that core
//! 0 is going to look: whoever sets it sets the timer, and a frame clears it before it takes the bytes, so that bytes that it missed find it
//! clear. A frame that ends and finds it set comes again, since its own slices may have moved the timer. Keys typed are echoed by a handler, which
//! may find `PENDING` held: then they stay in `ECHO`, which whoever next holds `PENDING` empties first.

mod latest;
mod paint;
mod text;

use crate::{
    boot::requests,
    console::ring::Ring,
    cpu::timer,
    info,
    memory::{
        paging::{Access, Cache},
        space,
    },
};
use alloc::vec::Vec;
use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
};
use drivers::framebuffer::Framebuffer;
use latest::Latest;
use paint::{Font, Painter, Report};
use spin::{Mutex, Once};
use text::Text;

/// Nanoseconds from the first new byte to the frame that shows it.
const FRAME: u64 = 50_000_000;
/// Nanoseconds between two slices of a frame.
const GAP: u64 = 1_000_000;
/// Cells painted at a time. A cell of 7 by 16 pixels takes about a tenth of a microsecond on a PC, and three under TCG.
const SLICE: usize = 500;
/// The least number of bytes that are kept for the next frame.
const KEPT: usize = 16 << 10;

/// The screen as the engine sees it.
#[derive(Debug)]
pub struct Screen(Framebuffer);

static SCREEN: Once<Screen> = Once::new();

/// What the screen shows; one of the constants below. Only ever grows.
static SHOWS: AtomicU8 = AtomicU8::new(NOTHING);
const NOTHING: u8 = 0;
const TEXT: u8 = 1;
const PICTURE: u8 = 2;
const REPORT: u8 = 3;

/// What has been written since the last frame. Held for a copy.
static PENDING: Mutex<Option<Latest>> = Mutex::new(None);
/// Echoes that found `PENDING` held. Put by core 0 with interrupts off, taken by whoever holds `PENDING`.
static ECHO: Ring<256> = Ring::new();
/// The text and its painter. Held for a slice.
static CONSOLE: Mutex<Option<Console>> = Mutex::new(None);
/// Core 0 is going to look at `PENDING`.
static SCHEDULED: AtomicBool = AtomicBool::new(false);
/// Core 0's timer paints.
static STARTED: AtomicBool = AtomicBool::new(false);

struct Console {
    text: Text,
    painter: Painter,
    taken: Vec<u8>,
}

/// Maps the framebuffer, if there is one that can be drawn on, and shows text from now on.
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
    let Some(framebuffer) = framebuffer else {
        return;
    };
    let screen = SCREEN.call_once(|| Screen(framebuffer));
    let Some((console, pending)) = Console::new(&screen.0) else {
        return;
    };
    *CONSOLE.lock() = Some(console);
    *PENDING.lock() = Some(pending);
    SHOWS.store(TEXT, Ordering::Release);
}

/// Logs what there is.
pub(crate) fn describe() {
    if let Some(screen) = get() {
        let (width, height) = screen.0.size();
        let text = CONSOLE.lock().as_ref().map(|console| console.text.size());
        let (columns, rows) = text.unwrap_or_default();
        info!("screen: {width} by {height} pixels, {columns} by {rows} characters");
    }
}

impl Console {
    fn new(framebuffer: &Framebuffer) -> Option<(Self, Latest)> {
        let (width, height) = framebuffer.size();
        let font = Font::new(height);
        let (columns, rows) = (width / font.width, height / font.height);
        let text = Text::new(columns, rows)?;
        let painter = Painter::new(framebuffer, font, columns, rows)?;
        let kept = KEPT.max(columns * rows);
        let mut taken = Vec::new();
        taken.try_reserve_exact(kept).ok()?;
        let pending = Latest::new(kept)?;
        let console = Self {
            text,
            painter,
            taken,
        };
        Some((console, pending))
    }

    /// Takes what is pending into the text.
    fn take(&mut self, pending: &mut Latest) {
        drain_echo(pending);
        self.taken.clear();
        let lost = pending.take(&mut self.taken);
        self.text.write(&self.taken, lost);
    }
}

/// Lets core 0's timer paint from now on. When the cores have been released.
pub(crate) fn start() {
    STARTED.store(true, Ordering::Release);
    schedule();
}

/// Shows text, as a terminal would. Not for interrupt handlers.
pub(crate) fn print(bytes: &[u8]) {
    if SHOWS.load(Ordering::Relaxed) != TEXT {
        return;
    }
    if let Some(pending) = &mut *PENDING.lock() {
        drain_echo(pending);
        pending.push(bytes);
    }
    if STARTED.load(Ordering::Acquire) {
        schedule();
    } else if bytes.ends_with(b"\n") {
        finish();
    }
}

/// The same from an interrupt handler: not at all if somebody is printing, perhaps the core that was interrupted.
pub(crate) fn try_print(bytes: &[u8]) {
    if SHOWS.load(Ordering::Relaxed) != TEXT || !STARTED.load(Ordering::Acquire) {
        return;
    }
    if let Some(mut pending) = PENDING.try_lock()
        && let Some(pending) = &mut *pending
    {
        pending.push(bytes);
    }
    schedule();
}

/// Shows what was typed. On core 0, with interrupts off.
pub(crate) fn echo(bytes: &[u8]) {
    if SHOWS.load(Ordering::Relaxed) != TEXT {
        return;
    }
    for &byte in bytes {
        // SAFETY: core 0 with interrupts off is the one producer. What does not fit is not seen.
        unsafe { ECHO.put(byte) };
    }
    if let Some(mut pending) = PENDING.try_lock()
        && let Some(pending) = &mut *pending
    {
        drain_echo(pending);
    }
    schedule();
}

/// Moves what was typed behind what was printed before. The caller holds `PENDING`.
fn drain_echo(pending: &mut Latest) {
    let mut bytes = [0; 64];
    loop {
        // SAFETY: whoever holds `PENDING`, which the argument is in, is the one consumer.
        match unsafe { ECHO.take(&mut bytes) } {
            0 => return,
            count => pending.push(&bytes[..count]),
        }
    }
}

fn schedule() {
    if STARTED.load(Ordering::Acquire) && !SCHEDULED.swap(true, Ordering::SeqCst) {
        timer::paint(FRAME);
    }
}

/// Paints a slice, in core 0's timer interrupt; gives after how many nanoseconds to come again.
pub(crate) fn frame() -> Option<u64> {
    let Some(mut console) = CONSOLE.try_lock() else {
        return Some(GAP);
    };
    if SHOWS.load(Ordering::Acquire) != TEXT {
        return None;
    }
    let (Some(console), Some(screen)) = (&mut *console, get()) else {
        return None;
    };
    if console.painter.at_top() {
        let Some(mut pending) = PENDING.try_lock() else {
            return Some(GAP);
        };
        SCHEDULED.store(false, Ordering::SeqCst);
        if let Some(pending) = &mut *pending {
            console.take(pending);
        }
    }
    if !console.painter.paint(&screen.0, &console.text, SLICE) {
        return Some(GAP);
    }
    SCHEDULED.load(Ordering::SeqCst).then_some(FRAME)
}

/// Paints all that was written, at once. Not for interrupt handlers.
pub(crate) fn finish() {
    let mut console = CONSOLE.lock();
    if SHOWS.load(Ordering::Acquire) != TEXT {
        return;
    }
    let (Some(console), Some(screen)) = (&mut *console, get()) else {
        return;
    };
    // The rest of a frame that was begun, and one with what has been written since.
    if !console.painter.at_top() {
        while !console.painter.paint(&screen.0, &console.text, SLICE) {}
    }
    if let Some(pending) = &mut *PENDING.lock() {
        console.take(pending);
    }
    while !console.painter.paint(&screen.0, &console.text, SLICE) {}
}

/// Writes a part of a panic's report, whoever holds the locks: nobody else runs.
pub(crate) fn report(text: fmt::Arguments<'_>) {
    if let Some(screen) = get() {
        SHOWS.store(REPORT, Ordering::SeqCst);
        // A report that cannot be shown has nowhere to be reported.
        let _ = writeln!(Report::new(&screen.0), "{text}");
    }
}

/// The screen, if there is one.
pub fn get() -> Option<&'static Screen> {
    SCREEN.get()
}

impl Screen {
    /// Takes the screen from the text, for a picture.
    #[cold]
    fn take_from_text(&self) {
        let console = CONSOLE.lock();
        if SHOWS.load(Ordering::Acquire) != TEXT {
            return;
        }
        if console
            .as_ref()
            .is_some_and(|console| !console.painter.is_untouched())
        {
            let (width, height) = self.0.size();
            self.0.fill(0, 0, width, height, self.0.pixel([0; 3]));
        }
        SHOWS.store(PICTURE, Ordering::Release);
    }
}

impl smp::platform::Screen for Screen {
    fn size(&self) -> (usize, usize) {
        self.0.size()
    }

    fn draw(&self, x: usize, y: usize, width: usize, rgb: &[u8]) {
        match SHOWS.load(Ordering::Acquire) {
            TEXT => self.take_from_text(),
            REPORT => return,
            _ => {}
        }
        self.0.draw(x, y, width, rgb);
    }
}
