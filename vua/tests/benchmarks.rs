//! Runs every program of `programs/bench/` and `programs/bench/parallel/` at a small size: a benchmark that computes something else than it says measures nothing.
//!
//! A program's line `-- small ARGUMENTS: OUTPUT` says what to run it with and the one line that it must print. Where `lua5.4` is installed,
//! it runs the `.lua` files too and must agree.

mod cases;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use cases::Case;

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/bench");
    let mut found: Vec<Case> = [folder.join("parallel"), folder]
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).expect("the benchmarks can be listed"))
        .map(|entry| entry.expect("the benchmarks can be listed").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "lua" || extension == "vua")
        })
        .map(|path| read(&path))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    cases::test(found)
}

fn read(path: &Path) -> Case {
    let file = path
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name in ASCII");
    let source = fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (arguments, output) = source
        .lines()
        .find_map(|line| line.strip_prefix("-- small ")?.split_once(": "))
        .unwrap_or_else(|| panic!("{file}: no line '-- small ARGUMENTS: OUTPUT'"));
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let output = format!("{output}\n");
    if file.ends_with(".lua")
        && let Ok(peer) = Command::new("lua5.4").arg(path).args(&arguments).output()
    {
        assert_eq!(
            String::from_utf8_lossy(&peer.stdout),
            output,
            "{file}: what lua5.4 prints, and what the file says"
        );
    }
    Case {
        name: match path.parent() {
            Some(folder) if folder.ends_with("parallel") => format!("parallel/{file}"),
            _ => file.to_owned(),
        },
        file: file.to_owned(),
        beside: None,
        arguments,
        input: String::new(),
        output,
        error: String::new(),
        status: 0,
        source,
    }
}
