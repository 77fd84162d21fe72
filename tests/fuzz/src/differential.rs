//! The same programs in `vua` and in the official `lua5.4`: what they print must be equal.
//!
//! Many programs make one file, so that starting processes costs little. Where a program's parts of the two outputs differ, it is run by
//! itself, and cut down to the smallest that still differs.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::program;
use crate::tree::{self, Node};

const PRELUDE: &str = include_str!("../prelude.lua");
/// Programs in one file.
const BATCH: u64 = 200;
/// A batch takes a second or less. Longer than this: something hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// A program takes a millisecond.
const SINGLE_LIMIT: Duration = Duration::from_secs(10);
/// How many smaller programs are tried to cut one down.
const TRIES: usize = 3000;

/// The two implementations.
pub struct Peers {
    /// The `vua` command.
    pub vua: PathBuf,
    /// The official interpreter's command.
    pub lua: PathBuf,
    /// A folder for programs.
    pub folder: PathBuf,
}

/// What became of a number of programs.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Programs that printed the same.
    pub equal: usize,
    /// Programs that met what the languages define differently.
    pub skipped: usize,
    /// What is wrong with the others: the program, cut down, and both outputs.
    pub different: Vec<String>,
}

/// What a program's output holds if it met what the two define differently, or what one of them bounds.
const APART: &[&str] = &[
    // Lua makes numbers of strings that look like numbers.
    "on a string value",
    // Lua bounds the depth of calls through C.
    "C stack overflow",
    "stack overflow",
    // Vua knows one NaN, whose sign is set.
    "nan",
    "NAN",
    // Messages hold text, so bytes that are none are written out.
    "invalid conversion",
    // Lua 5.4.4 takes a lone continuation byte for a character.
    "invalid UTF-8 code",
    // It looks at its second argument first.
    "to 'fmod'",
];

/// What one process printed.
#[derive(Debug, PartialEq, Eq)]
struct Printed {
    text: String,
    /// How it ended, if not by itself with status 0.
    end: Option<String>,
}

fn run(command: &mut Command, limit: Duration) -> Printed {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut out = child.stdout.take().expect("standard output is piped");
    let mut err = child.stderr.take().expect("standard error is piped");
    let output = thread::spawn(move || {
        let mut bytes = Vec::new();
        _ = out.read_to_end(&mut bytes);
        bytes
    });
    let errors = thread::spawn(move || {
        let mut bytes = Vec::new();
        _ = err.read_to_end(&mut bytes);
        bytes
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break Some(status),
            None if start.elapsed() > limit => {
                _ = child.kill();
                _ = child.wait();
                break None;
            }
            None => thread::sleep(Duration::from_millis(1)),
        }
    };
    let text = String::from_utf8_lossy(&output.join().expect("reading does not panic"))
        .replace("-nan", "nan");
    let text = without_addresses(&text).replace("integer index", "?");
    let errors = errors.join().expect("reading does not panic");
    let end = match status {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{status}; {}", String::from_utf8_lossy(&errors))),
        None => Some(format!("still running after {limit:?}")),
    };
    Printed { text, end }
}

/// The command that the release build made, if it did.
pub fn vua_command() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    // The test or the fuzzer lies somewhere below the target folder.
    here.ancestors()
        .map(|folder| folder.join("release/vua"))
        .find(|path| path.is_file())
}

impl Peers {
    /// The command that the release build made, if `lua5.4` is there as well; or what is missing.
    pub fn find(folder: &Path) -> Result<Peers, String> {
        let lua = ["lua5.4", "lua54", "lua"].iter().find(|name| {
            Command::new(name)
                .arg("-v")
                .output()
                .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with("Lua 5.4"))
        });
        let Some(lua) = lua else {
            return Err("lua5.4 is not installed (scripts/setup lua5.4)".into());
        };
        let vua = vua_command();
        let Some(vua) = vua else {
            return Err("the vua command is not built (cargo build --release -p vua)".into());
        };
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        Ok(Peers {
            vua,
            lua: PathBuf::from(lua),
            folder: folder.to_owned(),
        })
    }

    /// Runs the random programs from number `first` on, and tells of each that differs.
    pub fn random_programs(&self, first: u64, count: u64, tell: &mut dyn FnMut(&str)) -> Outcome {
        let mut total = Outcome::default();
        let mut next = first;
        while next < first + count {
            let end = (next + BATCH).min(first + count);
            let batch: Vec<_> = (next..end)
                .map(|seed| (seed, program::program(seed)))
                .collect();
            let outcome = self.compare("programs", &batch);
            outcome.different.iter().for_each(|report| tell(report));
            total.equal += outcome.equal;
            total.skipped += outcome.skipped;
            total.different.extend(outcome.different);
            next = end;
        }
        total
    }

    fn both(&self, name: &str, source: &str, limit: Duration) -> (Printed, Printed) {
        let file = self.folder.join(format!("{name}.lua"));
        std::fs::write(&file, source).expect("the folder can be written to");
        let vua = run(
            Command::new(&self.vua)
                .args(["run", "--workers", "1"])
                .arg(&file),
            limit,
        );
        let lua = run(Command::new(&self.lua).arg(&file), limit);
        (vua, lua)
    }

    /// Runs programs, named by their numbers, and reports which differ. `name` is that of the file they are put in.
    pub fn compare(&self, name: &str, programs: &[(u64, Node)]) -> Outcome {
        let mut source = String::from(PRELUDE);
        for (number, program) in programs {
            source.push_str(&call(&number.to_string(), &program.text()));
        }
        let (vua, lua) = self.both(name, &source, LIMIT);
        let mut outcome = Outcome::default();
        if vua == lua {
            outcome.equal = programs.len();
            return outcome;
        }
        let (vua, lua) = (sections(&vua.text), sections(&lua.text));
        for (number, program) in programs {
            let key = number.to_string();
            let find = |sections: &[(String, String)]| {
                sections
                    .iter()
                    .find(|(n, _)| *n == key)
                    .map(|(_, text)| text.clone())
            };
            let (ours, theirs) = (find(&vua), find(&lua));
            if ours
                .as_deref()
                .zip(theirs.as_deref())
                .is_some_and(|(a, b)| same(a, b))
            {
                outcome.equal += 1;
            } else if [&ours, &theirs]
                .iter()
                .any(|text| text.as_deref().is_some_and(apart))
            {
                outcome.skipped += 1;
            } else if self.differ(name, program).is_some() {
                let small = tree::shrink(program, TRIES, &mut |program| {
                    self.differ(name, program).is_some()
                });
                if let Some((vua, lua)) = self.differ(name, &small) {
                    outcome.different.push(format!(
                        "program {number} differs:\n{}\n-- vua:\n{}-- lua5.4:\n{}",
                        small.text(),
                        told(&vua),
                        told(&lua)
                    ));
                }
            } else if theirs.is_none() && ours.is_some() {
                // Lua 5.4.4 has faults of its own: one ended its process at a program before this one.
                outcome.equal += 1;
            } else {
                // Alone it does not differ: something before it went wrong.
                outcome.different.push(format!("program {number} differs in its batch only ({name})\n-- vua:\n{}\n-- lua5.4:\n{}", ours.unwrap_or_default(), theirs.unwrap_or_default()));
            }
        }
        outcome
    }

    /// Both outputs of a program, if they differ.
    fn differ(&self, name: &str, program: &Node) -> Option<(Printed, Printed)> {
        let source = format!("{PRELUDE}{}", call("0", &program.text()));
        let (vua, lua) = self.both(&format!("{name}-one"), &source, SINGLE_LIMIT);
        let equal = vua.end == lua.end && same(&vua.text, &lua.text);
        let decided = vua.end.is_some() || lua.end.is_none();
        (!equal && decided && !apart(&vua.text) && !apart(&lua.text)).then_some((vua, lua))
    }
}

/// The text with every number of at least six hexadecimal digits replaced: an address.
fn without_addresses(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("0x") {
        let (before, behind) = rest.split_at(at + 2);
        let digits = behind.bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(before);
        rest = behind;
        if digits >= 6 {
            out.push_str("ADDRESS");
            rest = &behind[digits..];
        }
    }
    out.push_str(rest);
    out
}

/// Errors about whose lines Lua says nothing, or nothing right: those that the library raises by operations on its arguments have no line; a comparison
/// has its right operand's; a division by zero has, before 5.4.5, that of some instruction before.
const LINES: &[&str] = &[
    "attempt to index",
    "attempt to get length",
    "attempt to compare",
    "attempt to concatenate",
    "attempt to divide",
    "attempt to perform 'n%",
    "number has no integer",
    "object length",
    "invalid key to",
    "attempt to yield",
    "table index is",
    "bad 'for'",
    "'for' step",
];

/// Output without the lines of errors in [`LINES`].
fn without_lines(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("p:") {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        // An error that passed through a coroutine has several.
        let mut message = behind;
        while let Some(further) = message.strip_prefix("p:") {
            let further = further.trim_start_matches(|c: char| c.is_ascii_digit());
            let Some(further) = further.strip_prefix(": ") else {
                break;
            };
            message = further;
        }
        if LINES.iter().any(|start| message.starts_with(start)) {
            rest = message;
        } else {
            out.push_str("p:");
            rest = &behind[2..];
        }
    }
    out.push_str(rest);
    out
}

/// Whether two outputs say the same.
fn same(vua: &str, lua: &str) -> bool {
    vua == lua || without_lines(vua) == without_lines(lua)
}

fn told(printed: &Printed) -> String {
    match &printed.end {
        Some(end) => format!("{}{end}\n", printed.text),
        None => printed.text.clone(),
    }
}

fn apart(text: &str) -> bool {
    APART.iter().any(|what| text.contains(what))
}

/// The call of the prelude that runs a program.
fn call(number: &str, program: &str) -> String {
    let mut level = String::from("==");
    while program.contains(&format!("]{level}]")) {
        level.push('=');
    }
    format!("run({number}, [{level}[\n{program}]{level}])\n")
}

/// An output cut at the programs' numbers.
fn sections(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("@@ ") {
            found.push((number.to_owned(), String::new()));
        } else if let Some((_, text)) = found.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}
