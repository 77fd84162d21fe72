//! Damaged bytecode is refused or runs safely.

use std::path::Path;
use std::process::{Command, Stdio};

use fuzz::bytecode::{RUNNER, damage};
use fuzz::differential::vua_command;
use fuzz::program;
use fuzz::random::Random;
use vua::bytecode::{binary, verify};

#[test]
fn what_the_verifier_accepts_runs_safely() {
    let Some(vua) = vua_command() else {
        println!("skipped: the vua command is not built (cargo build --release -p vua)");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bytecode");
    _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut accepted = Vec::new();
    for seed in 0..1500 {
        let source = program::program(seed).text();
        let Ok(mut function) = vua::compile::compile(source.as_bytes(), "m") else {
            continue;
        };
        damage(&mut function, &mut Random::new(seed));
        if verify(&function).is_ok() {
            let name = format!("{seed}.vbc");
            std::fs::write(folder.join(&name), binary::encode(&function, seed % 4 == 0)).unwrap();
            accepted.push(name);
        }
    }
    // A test that the verifier passes by refusing everything shows nothing.
    assert!(accepted.len() > 100, "{}", accepted.len());
    std::fs::write(folder.join("runner.lua"), RUNNER).unwrap();
    for chunks in accepted.chunks(100) {
        let output = Command::new(&vua)
            .args(["run", "--workers", "2", "runner.lua"])
            .args(chunks)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{error}", output.status);
    }
}
