//! What a person at the machine has: its screen and its keyboard, through QEMU's monitor protocol
//! (QEMU, docs/interop/qmp-intro.txt).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster};

use crate::socket::{LIMIT, connect};

/// A connection to a machine's monitor.
pub struct Person {
    stream: BufReader<UnixStream>,
    picture: PathBuf,
}

/// QEMU's arguments for a monitor at `folder`, in one text.
pub fn arguments(folder: &Path) -> String {
    let socket = folder.join("monitor");
    format!("-qmp unix:{},server=on,wait=off", socket.display())
}

/// A picture of a screen.
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Red, green and blue of each pixel, row by row.
    pub pixels: Vec<[u8; 3]>,
}

impl Person {
    /// Connects to the machine that got [`arguments`] of the same folder, as soon as it listens.
    ///
    /// # Panics
    /// If it does not for longer than a test may take.
    pub fn at(folder: &Path) -> Self {
        let stream = connect(&folder.join("monitor"));
        let mut person = Self {
            stream: BufReader::new(stream),
            picture: folder.join("screen.ppm"),
        };
        person.execute("qmp_capabilities", "");
        person
    }

    /// Has a command executed, with these members of its arguments.
    fn execute(&mut self, command: &str, arguments: &str) {
        assert!(
            self.is_executed(command, arguments),
            "QEMU ended at {command}"
        );
    }

    /// The same; whether QEMU still answered.
    fn is_executed(&mut self, command: &str, arguments: &str) -> bool {
        let request = format!("{{\"execute\":\"{command}\",\"arguments\":{{{arguments}}}}}\n");
        if self.stream.get_mut().write_all(request.as_bytes()).is_err() {
            return false;
        }
        loop {
            let mut line = String::new();
            if !self
                .stream
                .read_line(&mut line)
                .is_ok_and(|count| count > 0)
            {
                return false;
            }
            assert!(!line.contains("\"error\""), "{command}: {line}");
            // The greeting and events come in between.
            if line.contains("\"return\"") {
                return true;
            }
        }
    }

    /// Presses keys one after another, by QEMU's names; those joined by `-` together.
    pub fn press(&mut self, keys: &[&str]) {
        for key in keys {
            self.execute("send-key", &pressed(key));
            // QEMU's keyboard keeps sixteen bytes, and loses what comes when they are full.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key at which the machine may end before QEMU has answered.
    pub fn press_last(&mut self, key: &str) {
        self.is_executed("send-key", &pressed(key));
    }

    /// What is on the screen.
    pub fn look(&mut self) -> Picture {
        let picture = self.picture.display().to_string();
        self.execute("screendump", &format!("\"filename\":\"{picture}\""));
        let bytes = fs::read(&self.picture).expect("QEMU wrote the picture");
        // P6, width, height and 255, each ended by one blank.
        let mut words = bytes.splitn(4, u8::is_ascii_whitespace);
        let mut word = || words.next().expect("a header's word");
        assert_eq!(word(), b"P6");
        let number = |word: &[u8]| String::from_utf8_lossy(word).parse().expect("a number");
        let (width, _height): (usize, usize) = (number(word()), number(word()));
        let pixels = word().strip_prefix(b"255\n").expect("eight bits a colour");
        let pixels = pixels
            .chunks_exact(3)
            .map(|pixel| [pixel[0], pixel[1], pixel[2]]);
        Picture {
            width,
            pixels: pixels.collect(),
        }
    }

    /// Looks until a line that the screen shows contains `what`; gives all lines.
    ///
    /// # Panics
    /// If it does not for longer than a test may take.
    pub fn wait_for(&mut self, what: &str) -> Vec<String> {
        let start = Instant::now();
        loop {
            let lines = self.look().lines();
            if lines.iter().any(|line| line.contains(what)) {
                return lines;
            }
            assert!(
                start.elapsed() < LIMIT,
                "no {what:?} on the screen: {lines:#?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

const WIDTH: usize = 7;
const HEIGHT: usize = 16;

impl Picture {
    /// The text on the screen: what is to the pixel a character of the kernel's font, in the colours of text or of a report. Other places
    /// are blank.
    pub fn lines(&self) -> Vec<String> {
        let rows = self.pixels.chunks_exact(self.width * HEIGHT);
        let line = |row: &[[u8; 3]]| {
            let columns = 0..self.width / WIDTH;
            let text: String = columns.map(|column| self.character(row, column)).collect();
            text.trim_end().to_owned()
        };
        rows.map(line).collect()
    }

    /// What the character's cell shows, in a row of characters.
    fn character(&self, row: &[[u8; 3]], column: usize) -> char {
        let pixels = (0..HEIGHT).flat_map(|y| &row[y * self.width + column * WIDTH..][..WIDTH]);
        // Of text, white on black, and of a report, white on red.
        let text = |shade: u8| [(usize::from(shade) * 0xd0 / 255) as u8; 3];
        let report = |shade: u8| {
            let from = |paper: usize| {
                ((paper * usize::from(255 - shade) + 255 * usize::from(shade)) / 255) as u8
            };
            [from(0x60), from(0), from(0x10)]
        };
        let shows = |character: char| {
            let raster = get_raster(character, FontWeight::Regular, RasterHeight::Size16)
                .expect("the font has all of ASCII");
            let is = |colour: &dyn Fn(u8) -> [u8; 3]| {
                let shades = raster.pixels().iter();
                pixels
                    .clone()
                    .copied()
                    .eq(shades.map(|&shade| colour(shade)))
            };
            is(&text) || is(&report)
        };
        (' '..='~')
            .find(|&character| shows(character))
            .unwrap_or(' ')
    }
}

/// The arguments of QEMU's command for a key, or for those joined by `-`.
fn pressed(key: &str) -> String {
    let together = key
        .split('-')
        .map(|key| format!("{{\"type\":\"qcode\",\"data\":\"{key}\"}}"));
    let together = together.collect::<Vec<_>>().join(",");
    format!("\"keys\":[{together}],\"hold-time\":20")
}
