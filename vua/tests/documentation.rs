//! Runs the examples of `docs/language.md` and of the README: each block marked `vua` (in the README `lua`, which is displayed in colours) must print what stands in
//! the `output` block that follows it (nothing, if none does), and end with the error in the `error` block, if one follows.
//!
//! A block marked `vua` and a file's name is a module that the next program finds beside itself. An error block's first word after the mark, if there is one, is the exit status instead of 1.

mod cases;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cases::Case;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for (page, mark, least) in [("docs/language.md", "vua", 30), ("README.md", "lua", 1)] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        let text = fs::read_to_string(&file).expect("the page can be read");
        let found = examples(page, &text, mark);
        assert!(found.len() >= least, "{page}: {} examples", found.len());
        cases.extend(found);
    }
    cases::test(cases)
}

/// The examples of a page, each behind `mark`. Any other block is a mistake, but for commands of the shell.
fn examples(page: &str, text: &str, mark_of_programs: &str) -> Vec<Case> {
    let mut found: Vec<Case> = Vec::new();
    let mut section = String::new();
    let mut beside = None;
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
        match (words.next(), words.next()) {
            (Some(word), Some(file)) if word == mark_of_programs => {
                let folder =
                    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("documentation-{number}"));
                fs::create_dir_all(&folder).expect("a folder can be made");
                fs::write(folder.join(file), content).expect("a module can be written");
                beside = Some(folder);
            }
            (Some(word), None) if word == mark_of_programs => {
                found.push(Case {
                    name: format!("{page} line {}, {section}", number + 1),
                    file: "example.vua".to_owned(),
                    source: content,
                    beside: beside.take(),
                    arguments: Vec::new(),
                    input: String::new(),
                    output: String::new(),
                    error: String::new(),
                    status: 0,
                });
            }
            (Some("output"), None) => {
                found.last_mut().expect("output follows a program").output = content
            }
            (Some("error"), status) => {
                let case = found.last_mut().expect("an error follows a program");
                case.error = content;
                case.status =
                    status.map_or(1, |status| status.parse().expect("a status is a number"));
            }
            (Some("sh"), None) => {}
            (other, _) => panic!(
                "{page} line {}: every block is run, so its mark is {mark_of_programs}, output or error, not {other:?}",
                number + 1
            ),
        }
    }
    found
}
