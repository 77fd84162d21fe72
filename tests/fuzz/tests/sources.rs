//! The compiler on texts that are no programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fuzz::random::Random;
use fuzz::source::{REPEATED, check, damage, labels, repeated};

/// A text of a few hundred kilobytes takes a tenth of a second; quadratic work takes minutes.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn what_is_repeated_a_hundred_thousand_times_ends_soon() {
    for form in REPEATED {
        for open in [false, true] {
            let text = repeated(form, 100_000, open);
            check(text.as_bytes(), LIMIT)
                .unwrap_or_else(|error| panic!("{form:?}, open {open}: {error}"));
        }
    }
    // The deepest nesting that is accepted is the hardest for the stack.
    for form in REPEATED {
        for count in 1..=210 {
            let text = repeated(form, count, false);
            check(text.as_bytes(), LIMIT)
                .unwrap_or_else(|error| panic!("{form:?}, {count} times: {error}"));
        }
    }
    check(labels(100_000).as_bytes(), LIMIT).unwrap();
}

fn programs(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            programs(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "vua" || extension == "lua")
        {
            found.push(path);
        }
    }
}

#[test]
fn damaged_programs_are_refused_or_compile_to_what_the_verifier_accepts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    programs(&root.join("vua/tests/golden"), &mut found);
    programs(&root.join("programs"), &mut found);
    found.sort();
    let texts: Vec<Vec<u8>> = found
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    for seed in 0..20_000 {
        let mut random = Random::new(seed);
        let text = &texts[random.below(texts.len())];
        let other = &texts[random.below(texts.len())];
        let damaged = damage(text, other, &mut random);
        check(&damaged, LIMIT).unwrap_or_else(|error| {
            panic!(
                "seed {seed}: {error}\n{}",
                String::from_utf8_lossy(&damaged)
            )
        });
    }
}
