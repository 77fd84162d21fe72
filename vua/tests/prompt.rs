//! `vua` alone: the prompt, at a terminal of its own, and a program on standard input.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Far longer than anything here takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// A terminal with `vua` at it.
struct Terminal {
    vua: Child,
    keys: File,
    shown: Receiver<Vec<u8>>,
    /// What was shown since the last text that was waited for.
    text: String,
}

impl Terminal {
    fn open(history: &PathBuf) -> Terminal {
        let (mut ours, mut its) = (0, 0);
        // SAFETY: writes the two descriptors.
        let opened = unsafe {
            libc::openpty(
                &mut ours,
                &mut its,
                std::ptr::null_mut(),
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        assert_eq!(opened, 0, "a terminal");
        // SAFETY: both were just opened, and nobody else has them.
        let (ours, its) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(its)) };
        let mut command = Command::new(env!("CARGO_BIN_EXE_vua"));
        command
            .env("VUA_HISTORY", history)
            .env("TERM", "xterm")
            .stdin(Stdio::from(its.try_clone().unwrap()))
            .stdout(Stdio::from(its.try_clone().unwrap()))
            .stderr(Stdio::from(its.try_clone().unwrap()));
        let terminal = its.as_raw_fd();
        // SAFETY: both calls may be made between fork and exec; the descriptor is open there.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                libc::ioctl(terminal, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let vua = command.spawn().unwrap();
        let keys = File::from(ours);
        let mut screen = keys.try_clone().unwrap();
        let (sender, shown) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            vua,
            keys,
            shown,
            text: String::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a text has been shown.
    fn expect(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            match self.shown.recv_timeout(PATIENCE) {
                Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{error}: no {wanted:?} in {:?}", self.text),
            }
        }
        let end = self.text.find(wanted).unwrap() + wanted.len();
        self.text.drain(..end);
    }

    /// Waits until a line can be edited: the editor asks for marks around what is pasted once the terminal is its own, then it draws the prompt. What is typed
    /// earlier may be lost.
    fn expect_prompt(&mut self, prompt: &str) {
        self.expect("\x1b[?2004h");
        self.expect(prompt);
    }

    fn status(mut self) -> Option<i32> {
        self.vua.wait().unwrap().code()
    }
}

fn history(name: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = std::fs::remove_file(&file);
    file
}

#[test]
fn chunks_run_and_their_results_are_shown() {
    let file = history("prompt-chunks");
    let mut terminal = Terminal::open(&file);
    terminal.expect_prompt("> ");
    terminal.press("6 * 7\r");
    terminal.expect("\n42\r\n");
    terminal.expect_prompt("> ");
    terminal.press("kept = 'some' .. 'thing'\r");
    terminal.expect_prompt("> ");
    terminal.press("=kept, #kept\r");
    terminal.expect("\nsomething\t9\r\n");
    terminal.expect_prompt("> ");
    // Several lines.
    terminal.press("for i = 1, 2 do\r");
    terminal.expect_prompt(">> ");
    terminal.press("print(i * 100) end\r");
    terminal.expect("\n100\r\n200\r\n");
    terminal.expect_prompt("> ");
    // Errors, of the compiler and at run time, end nothing.
    terminal.press("x = = 1\r");
    terminal.expect("vua: stdin:1: unexpected symbol near '='");
    terminal.expect_prompt("> ");
    terminal.press("nothing()\r");
    terminal.expect("vua: stdin:1: attempt to call a nil value (global 'nothing')\r\nstack traceback:\r\n\tstdin:1: in main chunk\r\n");
    terminal.expect_prompt("> ");
    terminal.press("error({})\r");
    terminal.expect("(error object is a table value)");
    terminal.expect_prompt("> ");
    // A chunk reads lines itself.
    terminal.press("name = io.read()\r");
    terminal.expect_prompt("");
    terminal.press("Ann\r");
    terminal.expect_prompt("> ");
    terminal.press("name .. name\r");
    terminal.expect("\nAnnAnn\r\n");
    terminal.expect_prompt("> ");
    terminal.press("os.exit(7)\r");
    assert_eq!(terminal.status(), Some(7));
    // The lines of that session are known in the next: up, twice.
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(
        kept.contains("6 * 7\n") && kept.contains("os.exit(7)\n"),
        "{kept}"
    );
    let mut terminal = Terminal::open(&file);
    terminal.expect_prompt("> ");
    terminal.press("\x1b[A\x1b[A\r");
    terminal.expect("attempt to concatenate a nil value (global 'name')");
    terminal.expect_prompt("> ");
    terminal.press("\x04");
    assert_eq!(terminal.status(), Some(0));
}

#[test]
fn ctrl_c_ends_what_runs_and_what_is_typed() {
    let mut terminal = Terminal::open(&history("prompt-interrupts"));
    terminal.expect_prompt("> ");
    for chunk in ["while true do end", "task.sleep(1e6)", "queue(1):pop()"] {
        terminal.press(&format!("print('it ' .. 'runs') {chunk}\r"));
        terminal.expect("\nit runs\r\n");
        terminal.press("\x03");
        terminal.expect("vua: cancelled");
        terminal.expect_prompt("> ");
    }
    terminal.press("function f(\r");
    terminal.expect_prompt(">> ");
    terminal.press("\x03");
    terminal.expect_prompt("> ");
    terminal.press("5 * 5\r");
    terminal.expect("\n25\r\n");
    terminal.expect_prompt("> ");
    terminal.press("\x04");
    assert_eq!(terminal.status(), Some(0));
}

#[test]
fn without_a_terminal_standard_input_is_the_program() {
    let mut vua = Command::new(env!("CARGO_BIN_EXE_vua"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = vua.stdin.take().unwrap();
    input
        .write_all(b"for i = 1, 2 do\nprint(i)\nend\n")
        .unwrap();
    drop(input);
    let output = vua.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"1\n2\n");
}
