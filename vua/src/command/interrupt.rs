//! Ctrl-C: the first cancels the program, a second one ends the process at once. At a prompt, each ends what runs there.

use std::io;
use std::thread;

/// The exit status after Ctrl-C: 128 and the signal's number, as shells have it.
pub const STATUS: i32 = 128 + libc::SIGINT;

fn interrupts() -> libc::sigset_t {
    // SAFETY: `sigset_t` is a bit set, made valid by sigemptyset before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        set
    }
}

/// What Ctrl-C does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// The first calls what is to be called, a second ends the process.
    Cancels,
    /// Each calls what is to be called.
    Interrupts,
}

/// From now on a thread of its own takes SIGINT and calls `cancel`, so that no handler runs in the middle of anything.
/// Must be called before other threads are made: they inherit the mask that keeps the signal from them.
pub fn on_interrupt(interrupt: Interrupt, cancel: impl Fn() + Send + 'static) -> io::Result<()> {
    let set = interrupts();
    // SAFETY: a valid set; changes the calling thread's mask only.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    thread::Builder::new()
        .name("interrupt".into())
        .stack_size(128 << 10)
        .spawn(move || {
            loop {
                wait_for(&set);
                cancel();
                if interrupt == Interrupt::Cancels {
                    break;
                }
            }
            wait_for(&set);
            // SAFETY: ends the process without a word to anybody, which is what the person wants by now.
            unsafe { libc::_exit(STATUS) };
        })?;
    Ok(())
}

fn wait_for(set: &libc::sigset_t) {
    let mut signal = 0;
    // SAFETY: a valid set whose signals are blocked in every thread; `signal` is written to.
    while unsafe { libc::sigwait(set, &mut signal) } != 0 {}
}

/// A reader of our output that goes away ends us, silently, as it ends any filter: Rust's start-up code has the signal ignored.
pub fn end_on_closed_pipe() {
    // SAFETY: the default action involves no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
