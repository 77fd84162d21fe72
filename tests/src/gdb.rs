//! A machine under a debugger: enough of GDB's remote protocol to stop QEMU at an address, and to read and write memory.
//! ("Debugging with GDB", appendix E.)

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::socket::connect;

/// A connection to a machine that waits in QEMU.
pub struct Debugger {
    stream: UnixStream,
}

/// The launcher's options that make QEMU wait for a debugger at `socket`.
pub fn options(socket: &Path) -> [String; 2] {
    [
        "--qemu".to_owned(),
        format!("-S -gdb unix:{},server=on,wait=off", socket.display()),
    ]
}

/// Where such a socket may lie in `folder`.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("gdb")
}

impl Debugger {
    /// Connects, as soon as QEMU listens.
    ///
    /// # Panics
    /// If it does not for longer than a test may take.
    pub fn connect(socket: &Path) -> Self {
        let stream = connect(socket);
        let mut debugger = Self { stream };
        debugger.request("?");
        debugger
    }

    fn send(&mut self, text: &str) {
        let sum = text.bytes().fold(0u8, u8::wrapping_add);
        let packet = format!("${text}#{sum:02x}");
        self.stream
            .write_all(packet.as_bytes())
            .expect("QEMU reads what a debugger sends");
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream
            .read_exact(&mut byte)
            .expect("QEMU answers a debugger");
        byte[0]
    }

    /// The next packet's content.
    fn answer(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => text.push(byte),
            }
        }
        self.byte();
        self.byte();
        self.stream
            .write_all(b"+")
            .expect("QEMU reads what a debugger sends");
        String::from_utf8_lossy(&text).into_owned()
    }

    fn request(&mut self, text: &str) -> String {
        self.send(text);
        self.answer()
    }

    /// Lets the machine run until it is about to execute what is at `address`.
    ///
    /// # Panics
    /// If it stops elsewhere, or hangs.
    pub fn run_to(&mut self, address: u64) {
        assert_eq!(self.request(&format!("Z1,{address:x},1")), "OK");
        self.send("c");
        let stop = self.answer();
        assert!(stop.starts_with('T') || stop.starts_with('S'), "{stop}");
        assert_eq!(self.request(&format!("z1,{address:x},1")), "OK");
    }

    /// Reads memory.
    ///
    /// # Panics
    /// If there is none.
    pub fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let part = (length - bytes.len()).min(1024);
            let at = address + bytes.len() as u64;
            let text = self.request(&format!("m{at:x},{part:x}"));
            let digits = text.as_bytes().chunks_exact(2);
            let part = digits.map(|pair| {
                let pair = std::str::from_utf8(pair).ok();
                let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
                byte.unwrap_or_else(|| panic!("memory at {at:#x}: {text}"))
            });
            bytes.extend(part);
        }
        bytes
    }

    /// Writes memory.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let request = format!("M{address:x},{:x}:{digits}", bytes.len());
        assert_eq!(self.request(&request), "OK");
    }

    /// Lets the machine run, without a debugger from then on.
    pub fn detach(mut self) {
        self.send("D");
        let _ = self.answer();
    }
}
