//! Files that a program writes come back.

use std::fs;

use tests::{boot, host_in, program, shipped};

#[test]
fn files_come_back_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("made/by the launcher");
    let outcome = boot(&["--out", out.to_str().unwrap()], &program("files"), &[]);
    assert_eq!(String::from_utf8_lossy(&outcome.success()), "done\n");

    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(fs::read(out.join("bytes.bin")).unwrap(), bytes);
    assert_eq!(
        fs::read(out.join("deep/in/folders.txt")).unwrap(),
        b"second version\n"
    );
    assert_eq!(fs::read(out.join("empty")).unwrap(), b"");
    assert_eq!(
        fs::read(out.join("large")).unwrap(),
        "0123456789abcdef".repeat(16 << 10).as_bytes()
    );
    // Removed files and those of the boot archive stay away.
    let mut names: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["bytes.bin", "deep", "empty", "large"]);
}

#[test]
fn files_come_back_from_a_program_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let outcome = boot(
        &["--out", out.to_str().unwrap()],
        &program("files"),
        &["fail"],
    );
    assert_eq!(outcome.status, Some(1), "{}", outcome.error);
    assert_eq!(
        fs::read(out.join("deep/in/folders.txt")).unwrap(),
        b"second version\n"
    );
}

#[test]
fn a_picture_is_the_same_as_on_the_host() {
    let (machine, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments = ["64", "50", "picture.ppm"];
    host_in(host.path(), 2, &shipped("mandelbrot"), &arguments).success();
    boot(
        &["--smp", "4", "--out", machine.path().to_str().unwrap()],
        &shipped("mandelbrot"),
        &arguments,
    )
    .success();
    let picture = fs::read(host.path().join("picture.ppm")).unwrap();
    assert_eq!(picture.len(), b"P6\n64 64\n255\n".len() + 64 * 64 * 3);
    assert!(fs::read(machine.path().join("picture.ppm")).unwrap() == picture);
}
