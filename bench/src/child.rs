//! Running programs as children: their output, how long they took, and an end to them when time or patience is over.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A child that ended by itself.
pub struct Finished {
    pub status: ExitStatus,
    pub output: String,
    pub error: String,
    /// From its start to its end.
    pub seconds: f64,
}

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// Ctrl-C: nothing more is to be run.
    Interrupted,
    /// What went wrong, for people.
    Because(String),
}

/// Starts children and keeps watch over them.
pub struct Runner {
    running: Arc<Mutex<Vec<Child>>>,
    limit: Arc<Mutex<Option<Instant>>>,
    interrupted: Arc<AtomicBool>,
    timed_out: Arc<AtomicBool>,
}

/// How often the watch looks.
const WATCH: Duration = Duration::from_millis(50);

impl Runner {
    /// A runner whose children die when this process is interrupted. To be called once: it takes the signal.
    pub fn new() -> std::io::Result<Runner> {
        let runner = Runner {
            running: Arc::default(),
            limit: Arc::default(),
            interrupted: Arc::default(),
            timed_out: Arc::default(),
        };
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, runner.interrupted.clone())?;
        }
        let (running, limit) = (runner.running.clone(), runner.limit.clone());
        let (interrupted, timed_out) = (runner.interrupted.clone(), runner.timed_out.clone());
        thread::Builder::new().spawn(move || {
            loop {
                thread::sleep(WATCH);
                let late = lock(&limit).is_some_and(|limit| Instant::now() > limit);
                if late {
                    timed_out.store(true, Ordering::Relaxed);
                }
                if late || interrupted.load(Ordering::Relaxed) {
                    for child in lock(&running).iter_mut() {
                        // One that has just ended by itself cannot be killed, and need not be.
                        _ = child.kill();
                    }
                }
            }
        })?;
        Ok(runner)
    }

    /// Whether the person wants no more.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Runs the commands at the same time, none longer than `limit`. What each one printed and took.
    pub fn run(&self, commands: Vec<Command>, limit: Duration) -> Result<Vec<Finished>, Failure> {
        if self.is_interrupted() {
            return Err(Failure::Interrupted);
        }
        self.timed_out.store(false, Ordering::Relaxed);
        *lock(&self.limit) = Some(Instant::now() + limit);
        let mut readers = Vec::new();
        let mut failed = None;
        for mut command in commands {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let start = Instant::now();
            match command.spawn() {
                Ok(mut child) => {
                    let (output, error) = (child.stdout.take(), child.stderr.take());
                    lock(&self.running).push(child);
                    readers.push((
                        thread::spawn(move || {
                            let text = read(output);
                            (text, start.elapsed().as_secs_f64())
                        }),
                        thread::spawn(move || read(error)),
                    ));
                }
                Err(error) => {
                    let name = command.get_program().to_string_lossy().into_owned();
                    failed = Some(format!("cannot start {name}: {error}"));
                    break;
                }
            }
        }
        if failed.is_some() {
            for child in lock(&self.running).iter_mut() {
                _ = child.kill();
            }
        }
        let mut finished = Vec::new();
        for (output, error) in readers {
            // The threads only read, and do not panic.
            let (output, seconds) = output.join().unwrap_or_default();
            let error = error.join().unwrap_or_default();
            // The streams have ended, so the child has, or is about to.
            let mut child = lock(&self.running).remove(0);
            match child.wait() {
                Ok(status) => finished.push(Finished {
                    status,
                    output,
                    error,
                    seconds,
                }),
                Err(error) => failed = Some(error.to_string()),
            }
        }
        *lock(&self.limit) = None;
        if self.is_interrupted() {
            return Err(Failure::Interrupted);
        }
        if self.timed_out.load(Ordering::Relaxed) {
            return Err(Failure::Because(format!(
                "took longer than {} s",
                limit.as_secs()
            )));
        }
        match failed {
            Some(reason) => Err(Failure::Because(reason)),
            None => Ok(finished),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What could be read before an error still tells something.
        _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
