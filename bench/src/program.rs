//! The benchmark programs: where they are, and what their first lines say of them.

use std::fs;
use std::path::{Path, PathBuf};

/// One program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file's name without the ending; for parallel ones behind `parallel/`.
    pub name: String,
    pub file: PathBuf,
    /// Whether other implementations of Lua can run it.
    pub plain: bool,
    pub parallel: bool,
    /// Arguments for a quick run, and the line that it must print then.
    pub small: (Vec<String>, String),
    /// Arguments for an emulated machine.
    pub emulated: Vec<String>,
}

/// Every program of `folder` and of `parallel/` in it, by name. The error names what cannot be read or lacks its line.
pub fn all(folder: &Path) -> Result<Vec<Program>, String> {
    let mut found = Vec::new();
    for (folder, parallel) in [
        (folder.to_path_buf(), false),
        (folder.join("parallel"), true),
    ] {
        let entries =
            fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let file = entry
                .map_err(|error| format!("{}: {error}", folder.display()))?
                .path();
            let ending = file.extension().and_then(|ending| ending.to_str());
            if !matches!(ending, Some("lua" | "vua")) {
                continue;
            }
            let source = fs::read_to_string(&file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let small = small(&source)
                .ok_or_else(|| format!("{}: no line '-- small …: …'", file.display()))?;
            let emulated = source
                .lines()
                .find_map(|line| line.strip_prefix("-- emulated "))
                .map_or_else(|| small.0.clone(), words);
            found.push(Program {
                name: if parallel {
                    format!("parallel/{stem}")
                } else {
                    stem.into_owned()
                },
                plain: ending == Some("lua"),
                file,
                parallel,
                small,
                emulated,
            });
        }
    }
    found.sort_by(|a, b| (a.parallel, &a.name).cmp(&(b.parallel, &b.name)));
    Ok(found)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn small(source: &str) -> Option<(Vec<String>, String)> {
    let (arguments, output) = source
        .lines()
        .find_map(|line| line.strip_prefix("-- small ")?.split_once(": "))?;
    Some((words(arguments), output.to_owned()))
}

/// Those of `all` that `names` ask for: by name, with or without `parallel/`; all if there are no names. The error names what is unknown.
pub fn choose(all: Vec<Program>, names: &[String]) -> Result<Vec<Program>, String> {
    let matches = |program: &Program, name: &str| {
        program.name == name
            || program.name.strip_prefix("parallel/") == Some(name)
            || (name == "parallel" && program.parallel)
            || (name == "sequential" && !program.parallel)
    };
    for name in names {
        if !all.iter().any(|program| matches(program, name)) {
            let known: Vec<&str> = all.iter().map(|program| &*program.name).collect();
            return Err(format!(
                "no benchmark is named '{name}'; there are: parallel, sequential, {}",
                known.join(", ")
            ));
        }
    }
    Ok(all
        .into_iter()
        .filter(|program| names.is_empty() || names.iter().any(|name| matches(program, name)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Vec<Program> {
        all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/bench")).unwrap()
    }

    #[test]
    fn the_shipped_programs_say_what_is_needed() {
        let all = shipped();
        assert!(all.iter().any(|program| program.parallel) && all.iter().any(|p| p.plain));
        for program in &all {
            assert!(!program.small.1.is_empty(), "{}", program.name);
            assert!(!program.parallel || !program.plain, "{}", program.name);
        }
    }

    #[test]
    fn names_choose_one_or_both_kinds() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            choose(shipped(), &wanted).map(|found| {
                found
                    .into_iter()
                    .map(|program| program.name)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names(&["fib"]).unwrap(), ["fib", "parallel/fib"]);
        assert_eq!(names(&["parallel/fib"]).unwrap(), ["parallel/fib"]);
        assert_eq!(names(&[]).unwrap().len(), shipped().len());
        assert!(names(&["fibs"]).unwrap_err().contains("'fibs'"));
    }
}
