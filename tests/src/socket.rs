//! Sockets on which QEMU listens.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long to wait for QEMU.
pub(crate) const LIMIT: Duration = Duration::from_secs(900);

/// Connects, as soon as QEMU listens; reading has the same time limit.
///
/// # Panics
/// If it does not for longer than a test may take.
pub(crate) fn connect(socket: &Path) -> UnixStream {
    let start = Instant::now();
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    stream
        .set_read_timeout(Some(LIMIT))
        .expect("a socket takes a time limit");
    stream
}
