//! Runs the programs under `golden/` and compares what they print with what stands at their ends.
//!
//! A case is one `.vua` file. Block comments that begin a line say what must come of it; the line of the opening holds the
//! word alone, the closing bracket stands on a line of its own, and the level of the brackets is free:
//!
//! ```text
//! --[[ expect
//! the standard output
//! ]]
//! --[[ error
//! the standard error; a line … stands for any number of lines. Without a status, 1 is expected
//! ]]
//! --[[ status 3 ]]
//! --[[ arguments one two ]]
//! --[[ input
//! the standard input
//! ]]
//! ```
//!
//! A folder of the same name beside a case holds modules and data that the program finds beside itself.
//! Every case has `expect` or `error`, so that each one can fail; a stream that is not mentioned must stay empty.

mod cases;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cases::Case;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    cases::test(found)
}

/// The cases in `folder` and the ones below it.
fn collect(root: &Path, folder: &Path, found: &mut Vec<Case>) {
    for entry in fs::read_dir(folder).expect("the cases can be listed") {
        let path = entry.expect("the cases can be listed").path();
        if path.is_dir() {
            if path.with_extension("vua").exists() {
                continue;
            }
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "vua") {
            found.push(read(root, &path));
        }
    }
}

fn read(root: &Path, path: &Path) -> Case {
    let name = path
        .strip_prefix(root)
        .unwrap()
        .with_extension("")
        .display()
        .to_string();
    // Cases about bytes beyond UTF-8 write them as escapes.
    let source = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut case = Case {
        file: path.file_name().unwrap().to_str().unwrap().to_owned(),
        source: source.clone(),
        beside: Some(path.with_extension("")).filter(|folder| folder.is_dir()),
        arguments: Vec::new(),
        input: String::new(),
        output: String::new(),
        error: String::new(),
        status: 0,
        name,
    };
    let mut status = None;
    let mut can_fail = false;
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let Some((word, rest, close)) = directive(line) else {
            continue;
        };
        if let Some(value) = rest.strip_suffix(&*close) {
            let value = value.trim();
            match word {
                "status" => status = Some(value.parse().expect("a status is a number")),
                "arguments" => {
                    case.arguments = value.split_whitespace().map(str::to_owned).collect()
                }
                _ => panic!("{}: what is a '{word}' on one line?", case.name),
            }
            continue;
        }
        assert!(rest.is_empty(), "{}: '{rest}' after '{word}'", case.name);
        let mut text = String::new();
        loop {
            match lines.next() {
                Some(line) if line == close => break,
                Some(line) => {
                    text.push_str(line);
                    text.push('\n');
                }
                None => panic!("{}: '{word}' has no {close}", case.name),
            }
        }
        match word {
            "expect" => {
                can_fail = true;
                case.output = text;
            }
            "error" => {
                can_fail = true;
                case.error = text;
                case.status = 1;
            }
            "input" => case.input = text,
            _ => panic!("{}: what is '{word}'?", case.name),
        }
    }
    assert!(can_fail, "{}: expects nothing", case.name);
    case.status = status.unwrap_or(case.status);
    case
}

/// The word of a line that opens one of the comments above, what follows it, and how the comment closes.
fn directive(line: &str) -> Option<(&str, &str, String)> {
    let rest = line.strip_prefix("--[")?;
    let level = rest.len() - rest.trim_start_matches('=').len();
    let rest = rest[level..].strip_prefix("[ ")?;
    let (word, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
    matches!(word, "expect" | "error" | "status" | "arguments" | "input").then(|| {
        let close = format!("]{}]", "=".repeat(level));
        (word, rest.trim_start(), close)
    })
}
