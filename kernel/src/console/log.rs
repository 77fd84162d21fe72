//! The kernel's log, on the second serial port and the screen: a line each, with the time since boot.

use super::{ERRORS, send_to_log};
use crate::{screen, time};
use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Logs only warnings from now on.
pub(crate) fn set_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Sends text to the port, and to the screen as `show` does it; gives up when the port stays busy, if `bound` says how many polls are
/// enough.
struct Port {
    bound: Option<u32>,
    show: fn(&[u8]),
}

impl Port {
    /// For everybody but interrupt handlers.
    fn patient() -> Self {
        Self {
            bound: None,
            show: screen::print,
        }
    }
}

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut polls = 0;
        send_to_log(text.as_bytes(), || {
            polls += 1;
            self.bound.is_some_and(|bound| polls > bound)
        });
        (self.show)(text.as_bytes());
        Ok(())
    }
}

fn line(port: &mut Port, text: fmt::Arguments<'_>) {
    let now = time::now();
    // A log line that cannot be sent has nowhere to be reported.
    let _ = if time::calibrated() {
        writeln!(
            port,
            "[{:5}.{:06}] {text}",
            now / 1_000_000_000,
            now / 1000 % 1_000_000
        )
    } else {
        writeln!(port, "[     early  ] {text}")
    };
}

/// Logs a line, unless the command line says `quiet`. Not for interrupt handlers.
pub fn info(text: fmt::Arguments<'_>) {
    if !QUIET.load(Ordering::Relaxed) {
        let _guard = ERRORS.lock();
        line(&mut Port::patient(), text);
    }
}

/// Logs a warning. Not for interrupt handlers.
pub fn warn(text: fmt::Arguments<'_>) {
    let _guard = ERRORS.lock();
    line(&mut Port::patient(), format_args!("warning: {text}"));
}

/// Logs a warning from an interrupt handler: not at all if somebody is sending, perhaps the core that was interrupted.
pub(crate) fn try_warn(text: fmt::Arguments<'_>) {
    if let Some(_guard) = ERRORS.try_lock() {
        line(
            &mut Port {
                bound: Some(100_000),
                show: screen::try_print,
            },
            format_args!("warning: {text}"),
        );
    }
}

/// Sends a line whoever else is sending: for the panic path, when nobody else runs. Gives up on a stuck port.
pub(crate) fn forced(text: fmt::Arguments<'_>) {
    let mut port = Port {
        bound: Some(10_000_000),
        show: |_| {},
    };
    let _ = writeln!(port, "{text}");
    screen::report(text);
}

/// Logs a line: `info!("text {value}")`.
#[macro_export]
macro_rules! info {
    ($($argument:tt)*) => { $crate::console::log::info(format_args!($($argument)*)) };
}

/// Logs a warning: `warn!("text {value}")`.
#[macro_export]
macro_rules! warn {
    ($($argument:tt)*) => { $crate::console::log::warn(format_args!($($argument)*)) };
}
