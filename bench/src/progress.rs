//! What the person sees while it runs, on standard error.

use std::cell::Cell;
use std::io::{IsTerminal, Write};

/// One line that is written over and over on a terminal; elsewhere, a line for each program.
pub struct Progress {
    terminal: bool,
    /// Something is on the current line.
    dirty: Cell<bool>,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            terminal: std::io::stderr().is_terminal(),
            dirty: Cell::new(false),
        }
    }

    fn write(text: &str) {
        // A closed standard error is no reason to stop measuring.
        _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// What is being done now; shown on a terminal only.
    pub fn step(&self, text: &str) {
        if self.terminal {
            Self::write(&format!("\r\x1b[K{text}"));
            self.dirty.set(true);
        }
    }

    /// Something to remain.
    pub fn say(&self, text: &str) {
        if self.dirty.replace(false) {
            Self::write("\r\x1b[K");
        }
        Self::write(&format!("bench: {text}\n"));
    }
}
