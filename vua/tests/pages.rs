//! The pages of the repository: their links lead somewhere, and the architecture's page has every folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the repository").to_owned()
}

/// All files that git tracks, or, in a tree that came without git, all there are.
fn all_files() -> Vec<PathBuf> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(&root)
        .output()
        .ok()
        .filter(|listed| listed.status.success())
        .map(|listed| String::from_utf8(listed.stdout).expect("names are texts"));
    let mut found = Vec::new();
    match listed {
        // What is deleted and not committed yet is listed too.
        Some(names) => found.extend(
            names
                .split_terminator('\0')
                .map(|name| root.join(name))
                .filter(|path| path.exists()),
        ),
        None => walk(&root, &mut found),
    }
    assert!(found.len() > 300, "{} files", found.len());
    found
}

/// All files below `folder`, but for what is built and what is hidden.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let entry = entry.expect("an entry can be read");
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// What `text` links to: what stands between `](` and `)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
}

/// The anchor that a heading gets: lower case, spaces as hyphens, without other marks.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for page in all_files() {
        if page.extension().is_none_or(|ending| ending != "md") {
            continue;
        }
        let text = fs::read_to_string(&page).expect("a page can be read");
        for link in links(&text) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a folder").join(path)
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).expect("a page can be read");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line) == heading),
                    "{}: {link}",
                    page.display()
                );
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count} links");
}

#[test]
fn the_architecture_has_every_folder() {
    let root = root();
    let page = fs::read_to_string(root.join("docs/architecture.md")).expect("the page exists");
    let named: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|cell| cell.split("`, `"))
        .map(|name| name.trim_end_matches('`'))
        .collect();
    let mut there = BTreeSet::new();
    for file in all_files() {
        let folder = file.parent().expect("a folder");
        let folder = folder.strip_prefix(&root).expect("it is below the root");
        let name = folder.to_str().expect("its name is a text").to_owned();
        // A crate's manifest needs no row, and the subjects of the golden programs are in their names.
        let manifest = folder.join("Cargo.toml");
        if name.starts_with("vua/tests/golden/") || root.join(manifest).exists() {
            continue;
        }
        there.insert(name);
    }
    for name in &there {
        assert!(named.contains(name.as_str()), "no row for {name}");
    }
    for name in &named {
        assert!(root.join(name).is_dir(), "a row for {name}, which is none");
    }
}
