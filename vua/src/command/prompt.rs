//! `vua` alone, at a terminal: a prompt.
//!
//! The prompt itself is a program of the engine (`prompt.vua`), which reads lines as any program does. Here is what stands between it and the terminal: whoever
//! reads gets lines from an editor with a history, whose prompt is whatever was printed last without an end of line. So `io.write("name? ") io.read()` can be edited as well.

use std::env;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use vua::interp::native::{Call, Next, Throw};
use vua::value::Value;

/// The program.
pub const PROGRAM: &[u8] = include_bytes!("prompt.vua");

/// Lines that are remembered.
const HISTORY: usize = 1000;

/// Ctrl-C was pressed, and the program has not seen it.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Notes that Ctrl-C was pressed.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Release);
}

/// `interrupted()`: whether Ctrl-C was pressed since the last call.
pub fn interrupted(_: &mut Call<'_>) -> Result<Next, Throw> {
    let interrupted = INTERRUPTED.swap(false, Ordering::AcqRel);
    Ok(Next::One(Value::boolean(interrupted)))
}

/// Whether input and output are a terminal's.
pub fn is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The terminal's settings, to be put back when the process ends in the middle of a line.
pub struct Settings(libc::termios);

impl Settings {
    /// Those of now.
    pub fn save() -> Option<Settings> {
        let mut settings = std::mem::MaybeUninit::uninit();
        // SAFETY: writes the settings if it succeeds, and only then are they read.
        unsafe {
            (libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) == 0)
                .then(|| Settings(settings.assume_init()))
        }
    }

    /// Puts them back.
    pub fn restore(&self) {
        // SAFETY: valid settings.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, &self.0) };
    }
}

/// What of the lines has not been read.
#[derive(Default)]
struct Typed {
    bytes: Vec<u8>,
    ended: bool,
}

/// The editor, and the lines that came from it.
pub struct Lines {
    editor: Mutex<(DefaultEditor, Option<PathBuf>)>,
    typed: Mutex<Typed>,
    /// What was printed since the last end of line.
    prompt: Mutex<String>,
}

impl Lines {
    /// An editor for the process's terminal; the history is in the file that `VUA_HISTORY` names, or `.vua_history` at home.
    ///
    /// # Errors
    /// The terminal cannot be used.
    pub fn new() -> rustyline::Result<Lines> {
        let config = rustyline::Config::builder()
            .max_history_size(HISTORY)?
            .auto_add_history(true)
            .build();
        let mut editor = DefaultEditor::with_config(config)?;
        let file = env::var_os("VUA_HISTORY")
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".vua_history")));
        if let Some(file) = &file {
            // There is none at first.
            _ = editor.load_history(file);
        }
        Ok(Lines {
            editor: Mutex::new((editor, file)),
            typed: Mutex::default(),
            prompt: Mutex::default(),
        })
    }

    /// Notes what is printed.
    pub fn printed(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let mut prompt = self.prompt.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = text.rfind('\n') {
            prompt.clear();
            prompt.push_str(&text[end + 1..]);
        } else {
            prompt.push_str(&text);
        }
    }

    /// Puts what was typed into `buffer`: `None` if nothing is there, 0 at the end of the input.
    pub fn take(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = typed.bytes.len().min(buffer.len());
        if count == 0 {
            return typed.ended.then_some(0);
        }
        buffer[..count].copy_from_slice(&typed.bytes[..count]);
        typed.bytes.drain(..count);
        Some(count)
    }

    /// Lets the person type a line.
    pub fn edit(&self) {
        let prompt =
            std::mem::take(&mut *self.prompt.lock().unwrap_or_else(PoisonError::into_inner));
        let mut editor = self.editor.lock().unwrap_or_else(PoisonError::into_inner);
        let (editor, file) = &mut *editor;
        let line = editor.readline(&prompt);
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        match line {
            Ok(line) => {
                typed.bytes.extend_from_slice(line.as_bytes());
                typed.bytes.push(b'\n');
                if let Some(file) = file {
                    // A history that cannot be kept is no reason to stop.
                    _ = editor.save_history(file);
                }
            }
            Err(ReadlineError::Interrupted) => {
                interrupt();
                typed.bytes.push(b'\n');
            }
            Err(_) => typed.ended = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        Lines {
            editor: Mutex::new((DefaultEditor::new().unwrap(), None)),
            typed: Mutex::default(),
            prompt: Mutex::default(),
        }
    }

    #[test]
    fn the_prompt_is_what_was_printed_last_without_an_end() {
        let lines = lines();
        let prompt = || lines.prompt.lock().unwrap().clone();
        lines.printed(b"a\nb");
        assert_eq!(prompt(), "b");
        lines.printed(b"c");
        assert_eq!(prompt(), "bc");
        lines.printed(b"x\n");
        assert_eq!(prompt(), "");
    }

    #[test]
    fn what_was_typed_is_taken_in_pieces() {
        let lines = lines();
        let mut buffer = [0; 3];
        assert_eq!(lines.take(&mut buffer), None);
        lines.typed.lock().unwrap().bytes.extend_from_slice(b"abcd");
        assert_eq!(lines.take(&mut buffer), Some(3));
        assert_eq!(&buffer, b"abc");
        assert_eq!(lines.take(&mut buffer), Some(1));
        assert_eq!(lines.take(&mut buffer), None);
        lines.typed.lock().unwrap().ended = true;
        assert_eq!(lines.take(&mut buffer), Some(0));
    }
}
