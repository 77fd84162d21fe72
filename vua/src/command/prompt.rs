//! `vua` alone, at a terminal: a prompt.
//!
//! The prompt itself is a program of the engine (`prompt.vua`), which reads lines as any program does. Here is what stands between it and the terminal: whoever
//! reads gets lines from an editor with a history, whose prompt is whatever was printed last without an end of line. So `io.write("name? ") io.read()` can be edited as well.

use std::env;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
    ///
    /// With `None`, `wanted` is 1: a line is asked for. It is 0 from the moment at which a line is there (see [`add`](Self::add)). Both happen
    /// with what was typed locked, so that who asks while the line comes does not leave a request behind that nobody waits for: the editor
    /// would begin the next line before its prompt is printed.
    pub fn take(&self, buffer: &mut [u8], wanted: &AtomicU32) -> Option<usize> {
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = typed.bytes.len().min(buffer.len());
        if count == 0 {
            if typed.ended {
                return Some(0);
            }
            wanted.store(1, Ordering::Release);
            return None;
        }
        buffer[..count].copy_from_slice(&typed.bytes[..count]);
        typed.bytes.drain(..count);
        Some(count)
    }

    /// Adds a line that was typed, or the end of the input: what was `wanted` is there.
    fn add(&self, line: Option<&str>, wanted: &AtomicU32) {
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        match line {
            Some(line) => {
                typed.bytes.extend_from_slice(line.as_bytes());
                typed.bytes.push(b'\n');
            }
            None => typed.ended = true,
        }
        wanted.store(0, Ordering::Release);
    }

    /// Lets the person type the line that is `wanted`.
    pub fn edit(&self, wanted: &AtomicU32) {
        let prompt =
            std::mem::take(&mut *self.prompt.lock().unwrap_or_else(PoisonError::into_inner));
        let mut editor = self.editor.lock().unwrap_or_else(PoisonError::into_inner);
        let (editor, file) = &mut *editor;
        match editor.readline(&prompt) {
            Ok(line) => {
                if let Some(file) = file {
                    // A history that cannot be kept is no reason to stop.
                    _ = editor.save_history(file);
                }
                self.add(Some(&line), wanted);
            }
            Err(ReadlineError::Interrupted) => {
                interrupt();
                self.add(Some(""), wanted);
            }
            Err(_) => self.add(None, wanted),
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
        let wanted = AtomicU32::new(0);
        let mut take = || {
            lines
                .take(&mut buffer, &wanted)
                .map(|n| buffer[..n].to_vec())
        };
        assert_eq!(take(), None);
        lines.add(Some("abc"), &wanted);
        assert_eq!(take().as_deref(), Some(b"abc".as_slice()));
        assert_eq!(take().as_deref(), Some(b"\n".as_slice()));
        assert_eq!(take(), None);
        lines.add(None, &wanted);
        assert_eq!(take().as_deref(), Some(b"".as_slice()));
    }

    #[test]
    fn a_line_is_wanted_until_it_is_there_however_often_it_was_asked_for() {
        let lines = lines();
        let mut buffer = [0; 16];
        let wanted = AtomicU32::new(0);
        let is_wanted = || wanted.load(Ordering::Relaxed) == 1;
        assert_eq!(lines.take(&mut buffer, &wanted), None);
        assert_eq!(lines.take(&mut buffer, &wanted), None);
        assert!(is_wanted());
        lines.add(Some("a"), &wanted);
        assert!(!is_wanted());
        assert_eq!(lines.take(&mut buffer, &wanted), Some(2));
        assert!(!is_wanted());
        assert_eq!(lines.take(&mut buffer, &wanted), None);
        assert!(is_wanted());
        lines.add(None, &wanted);
        assert_eq!(lines.take(&mut buffer, &wanted), Some(0));
        assert!(!is_wanted());
    }
}
