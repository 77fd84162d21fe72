//! Runs the examples of `docs/language.md`: each block marked `vua` must print what stands in the `output` block that
//! follows it (nothing, if none does), and end with the error in the `error` block, if one follows.
//!
//! An error block's first word after the mark, if there is one, is the exit status instead of 1.

mod cases;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cases::Case;

fn main() -> ExitCode {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/language.md");
    let text = fs::read_to_string(&book).expect("docs/language.md can be read");
    cases::test(examples(&text))
}

fn examples(text: &str) -> Vec<Case> {
    let mut found: Vec<Case> = Vec::new();
    let mut section = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(title) = line.strip_prefix('#') {
            section = title.trim_start_matches('#').trim().to_owned();
        }
        let Some(mark) = line.strip_prefix("```") else {
            continue;
        };
        let mut content = String::new();
        for (_, line) in lines.by_ref() {
            if line == "```" {
                break;
            }
            content.push_str(line);
            content.push('\n');
        }
        let mut words = mark.split_whitespace();
        match words.next() {
            Some("vua") => {
                found.push(Case {
                    name: format!("language.md line {}, {section}", number + 1),
                    file: "example.vua".to_owned(),
                    source: content,
                    beside: None,
                    arguments: Vec::new(),
                    input: String::new(),
                    output: String::new(),
                    error: String::new(),
                    status: 0,
                });
            }
            Some("output") => found.last_mut().expect("output follows a program").output = content,
            Some("error") => {
                let case = found.last_mut().expect("an error follows a program");
                case.error = content;
                case.status = words
                    .next()
                    .map_or(1, |status| status.parse().expect("a status is a number"));
            }
            other => panic!(
                "language.md line {}: every block is run, so its mark is vua, output or error, not {other:?}",
                number + 1
            ),
        }
    }
    assert!(found.len() > 30, "{} examples", found.len());
    found
}
