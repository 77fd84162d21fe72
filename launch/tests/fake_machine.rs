//! The launcher against a stand-in for QEMU: a shell script that follows the machine's protocol, or breaks it.
//! Time limits here only keep a test that fails from hanging.
//!
//! Nothing that is executed was opened for writing by this process: while one thread forks, a file that another
//! is writing stays open in the child for a moment, and executing it then fails ("text file busy").

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A folder with the launcher, what lies beside it, and the stand-in.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(stand_in: &str) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let profile = folder.path().join("target/debug");
        fs::create_dir_all(&profile).unwrap();
        fs::hard_link(env!("CARGO_BIN_EXE_launch"), profile.join("launch")).unwrap();
        fs::write(profile.join("kernel"), "the kernel").unwrap();
        fs::write(profile.join("loader"), "the loader").unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        fs::write(folder.path().join("home/main.vua"), "print(1)").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-in.sh");
        symlink(script, folder.path().join("qemu")).unwrap();
        fs::write(folder.path().join("stand-in"), stand_in).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `launch run` with these options before the program, under TCG unless they say otherwise.
    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(self.path("target/debug/launch"));
        command.arg("run");
        if !options.contains(&"--accel") {
            command.args(["--accel", "tcg"]);
        }
        command.args(options).arg(self.path("home/main.vua"));
        command
            .env("VIRIDIS_QEMU", self.path("qemu"))
            .env("VIRIDIS_KVM", self.path("no-kvm"));
        command.env("TMPDIR", self.folder.path());
        command
    }

    fn run(&self, options: &[&str], input: &[u8]) -> Output {
        run(&mut self.command(options), input)
    }

    fn arguments(&self) -> Vec<String> {
        fs::read_to_string(self.path("arguments"))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The stand-in's argument after `option`.
    fn argument(&self, option: &str) -> String {
        let arguments = self.arguments();
        let place = arguments
            .iter()
            .position(|argument| argument == option)
            .unwrap();
        arguments[place + 1].clone()
    }
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = spawn(command);
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Waits until a file is there; the stand-ins make files by renaming, so it is whole then.
fn wait_for(path: &Path) {
    let start = std::time::Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed().as_secs() < 900,
            "{} never came",
            path.display()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn alive(pid: &str) -> bool {
    // A process that ended but was not reaped yet counts as ended.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn statuses_come_back() {
    for (code, status) in [(1, 0), (3, 1), (5, 2), (127, 63), (203, 101)] {
        let bench = Bench::new(&format!("exit {code}"));
        assert_eq!(bench.run(&[], b"").status.code(), Some(status), "{code}");
    }
}

#[test]
fn the_streams_stay_apart_and_exact() {
    let bench = Bench::new(r#"printf 'out\000\377\020\r\n'; printf 'log\n' >&"$log"; exit 1"#);
    let output = bench.run(&[], b"");
    assert_eq!(output.stdout, b"out\0\xff\x10\r\n");
    assert_eq!(output.stderr, b"log\n");
}

#[test]
fn a_megabyte_passes_whole() {
    let bench = Bench::new("head -c 1048576 /dev/zero; exit 1");
    let output = bench.run(&[], b"");
    assert_eq!(output.stdout.len(), 1 << 20);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn input_is_escaped_and_ended() {
    // Six bytes of input, one of them doubled, and two for the end.
    let bench = Bench::new("head -c 9; exit 1");
    assert_eq!(
        bench.run(&[], b"a\0\x10\xff\nE").stdout,
        b"a\0\x10\x10\xff\nE\x10E"
    );
}

#[test]
fn long_input_passes_whole() {
    let bench = Bench::new("head -c 600002 | cksum; exit 1");
    let input: Vec<u8> = (0..600_000_u64)
        .map(|i| b'a' + (i * i % 23) as u8)
        .collect();
    let mut coded = input.clone();
    coded.extend(b"\x10E");
    let expected = run(&mut Command::new("cksum"), &coded);
    assert_eq!(text(&bench.run(&[], &input).stdout), text(&expected.stdout));
}

#[test]
fn closed_input_is_ended_input() {
    let bench = Bench::new("head -c 2; exit 1");
    let output = Command::new("sh")
        .args(["-c", r#"exec "$@" <&-"#, "sh"])
        .arg(bench.path("target/debug/launch"))
        .args(["run", "--accel", "tcg"])
        .arg(bench.path("home/main.vua"))
        .env("VIRIDIS_QEMU", bench.path("qemu"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"\x10E", "{}", text(&output.stderr));
}

#[test]
fn the_machine_is_the_one_asked_for() {
    let bench = Bench::new("exit 1");
    bench.run(
        &[
            "--smp",
            "7",
            "--mem",
            "96M",
            "--stats",
            "--append",
            "fault=panic more",
        ],
        b"",
    );
    let arguments = bench.arguments();
    for (option, value) in [
        ("-M", "q35"),
        ("-cpu", "max"),
        ("-smp", "7"),
        ("-m", "98304K"),
        ("-accel", "tcg,thread=multi"),
        ("-display", "none"),
        ("-vga", "std"),
        ("-append", "quiet stats fault=panic more"),
    ] {
        assert_eq!(bench.argument(option), value, "{arguments:?}");
    }
    assert!(arguments.iter().any(|argument| argument == "-no-reboot"));
    assert!(
        arguments
            .iter()
            .any(|argument| argument == "isa-debug-exit,iobase=0xf4,iosize=4")
    );
    assert!(
        !arguments
            .iter()
            .any(|argument| argument.contains("addr=0x12"))
    );
}

#[test]
fn the_whole_log_is_for_those_who_ask() {
    let bench = Bench::new("exit 1");
    let output = bench.run(&["--verbose"], b"");
    assert_eq!(bench.argument("-append"), "");
    assert!(text(&output.stderr).contains("isa-debug-exit"));
}

#[test]
fn the_image_holds_the_kernel_and_the_archive() {
    let bench = Bench::new(r#"cat "$image"; exit 1"#);
    let mut command = bench.command(&[]);
    command.args(["one", "two words"]);
    let image = run(&mut command, b"").stdout;
    let mut members = Vec::new();
    for entry in tar::Archive::new(&image[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        members.push((entry.path().unwrap().to_str().unwrap().to_owned(), content));
    }
    assert_eq!(members.len(), 2);
    assert_eq!(members[0], ("kernel".to_owned(), b"the kernel".to_vec()));
    assert_eq!(members[1].0, "boot.tar");
    let mut arguments = Vec::new();
    for entry in tar::Archive::new(&members[1].1[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap() == Path::new(".viridis/arguments") {
            entry.read_to_end(&mut arguments).unwrap();
        }
    }
    assert_eq!(text(&arguments), "main.vua\0one\0two words\0");
}

#[test]
fn what_cannot_run_does_not_boot() {
    let bench = Bench::new("exit 1");
    let missing = bench.path("home/absent.vua");
    let folder = bench.path("home");
    for arguments in [
        &["--smp", "none"][..],
        &[missing.to_str().unwrap()],
        &[folder.to_str().unwrap()],
    ] {
        let output = bench.run(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).starts_with("viridis: "),
            "{}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty());
    }
    assert!(!bench.path("arguments").exists());
}

#[test]
fn an_image_too_large_for_the_memory_does_not_boot() {
    let bench = Bench::new("exit 1");
    fs::write(bench.path("home/data"), vec![0; 9 << 20]).unwrap();
    let output = bench.run(&["--mem", "16M"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("--mem"),
        "{}",
        text(&output.stderr)
    );
    assert!(!bench.path("arguments").exists());
}

#[test]
fn a_missing_emulator_is_named() {
    let bench = Bench::new("exit 1");
    let output = bench
        .command(&[])
        .env("VIRIDIS_QEMU", "/nowhere/qemu")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("/nowhere/qemu is not there"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_machine_that_dies_is_reported() {
    for end in ["exit 0", "exit 2", "kill -s ABRT $$"] {
        let bench = Bench::new(&format!(r#"printf 'first\nlast words\n' >&"$log"; {end}"#));
        let output = bench.run(&[], b"");
        assert_eq!(output.status.code(), Some(101), "{end}");
        let error = text(&output.stderr);
        assert!(error.contains("died without an exit status"), "{error}");
        assert!(error.ends_with("viridis:   last words\n"), "{error}");
    }
}

#[test]
fn an_emulator_that_cannot_start_is_no_success() {
    let bench = Bench::new("echo 'qemu-system-x86_64: cannot set up guest memory' >&2; exit 1");
    let output = bench.run(&[], b"");
    assert_eq!(output.status.code(), Some(101));
    assert!(text(&output.stderr).contains("cannot set up guest memory"));
    // A warning is no failure, and neither is a complaint of a machine that did run.
    let bench = Bench::new("echo 'qemu-system-x86_64: warning: slow' >&2; exit 1");
    assert_eq!(bench.run(&[], b"").status.code(), Some(0));
    let bench = Bench::new("echo 'qemu-system-x86_64: odd' >&2; echo text; exit 1");
    assert_eq!(bench.run(&[], b"").status.code(), Some(0));
}

#[test]
fn a_limit_ends_the_machine() {
    let bench = Bench::new(r#"echo $$ >"$here/pid"; printf begun; exec sleep 600"#);
    let output = bench.run(&["--timeout", "10"], b"");
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(output.stdout, b"begun");
    assert!(text(&output.stderr).contains("--timeout"));
    assert!(!alive(
        fs::read_to_string(bench.path("pid")).unwrap().trim()
    ));
}

#[test]
fn an_interrupt_cancels_the_program() {
    for name in ["INT", "TERM", "HUP"] {
        // Nothing is typed, so the first two bytes that arrive are the cancellation.
        let bench = Bench::new(
            r#"head -c 2 >"$here/got"; head -c 2 <&"$log" >"$here/heard"; printf cancelled; exit 3"#,
        );
        let mut child = spawn(&mut bench.command(&["--grace", "600"]));
        wait_for(&bench.path("arguments"));
        signal(&child, name);
        let _input = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{name}");
        assert_eq!(output.stdout, b"cancelled");
        assert_eq!(fs::read(bench.path("got")).unwrap(), b"\x10C");
        assert_eq!(fs::read(bench.path("heard")).unwrap(), b"\x10C");
    }
}

#[test]
fn a_cancellation_does_not_wait_behind_input() {
    let bench = Bench::new(r#"head -c 2 <&"$log"; exit 3"#);
    let mut child = spawn(&mut bench.command(&["--grace", "600"]));
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let _ = input.write_all(&[b'x'; 1 << 20]);
    });
    wait_for(&bench.path("arguments"));
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(output.stdout, b"\x10C");
    writer.join().unwrap();
}

#[test]
fn a_deaf_machine_is_killed_after_an_interrupt() {
    // It reads nothing, and more input waits than the pipe holds.
    let bench =
        Bench::new(r#"echo $$ >"$here/pid.tmp"; mv "$here/pid.tmp" "$here/pid"; exec sleep 600"#);
    let mut child = spawn(&mut bench.command(&[]));
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let _ = input.write_all(&[b'x'; 1 << 20]);
    });
    wait_for(&bench.path("pid"));
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(!alive(
        fs::read_to_string(bench.path("pid")).unwrap().trim()
    ));
    writer.join().unwrap();
}

#[test]
fn the_machine_ends_with_the_launcher() {
    let bench =
        Bench::new(r#"echo $$ >"$here/pid.tmp"; mv "$here/pid.tmp" "$here/pid"; exec sleep 600"#);
    let mut child = spawn(&mut bench.command(&[]));
    wait_for(&bench.path("pid"));
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = fs::read_to_string(bench.path("pid")).unwrap();
    let start = std::time::Instant::now();
    while alive(pid.trim()) {
        assert!(
            start.elapsed().as_secs() < 900,
            "the machine is still there"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn the_machine_ends_with_the_reader_of_its_output() {
    let bench = Bench::new(r#"echo $$ >"$here/pid"; exec yes"#);
    let mut child = spawn(&mut bench.command(&[]));
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(141));
    assert!(!alive(
        fs::read_to_string(bench.path("pid")).unwrap().trim()
    ));
}

#[test]
fn files_come_back() {
    let bench = Bench::new(r#"cat "$here/stream" >"$files"; exit 5"#);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_path("sub/result.bin").unwrap();
    header.set_size(3);
    header.set_cksum();
    builder.append(&header, &b"\0\xff\n"[..]).unwrap();
    fs::write(bench.path("stream"), builder.into_inner().unwrap()).unwrap();

    let out = bench.path("new/out");
    assert_eq!(
        bench
            .run(&["--out", out.to_str().unwrap()], b"")
            .status
            .code(),
        Some(2)
    );
    assert_eq!(fs::read(out.join("sub/result.bin")).unwrap(), b"\0\xff\n");
    assert!(
        bench
            .argument("-append")
            .split(' ')
            .any(|word| word == "files")
    );
    assert!(
        bench
            .arguments()
            .iter()
            .any(|argument| argument.contains("addr=0x12"))
    );

    // A machine that died sent who knows what.
    let bench = Bench::new(r#"echo garbage >"$files"; exit 0"#);
    let out = bench.path("out");
    assert_eq!(
        bench
            .run(&["--out", out.to_str().unwrap()], b"")
            .status
            .code(),
        Some(101)
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);

    // A stream that is none, though the program succeeded.
    let bench = Bench::new(r#"head -c 700 /dev/zero | tr '\0' x >"$files"; exit 1"#);
    let out = bench.path("out");
    assert_eq!(
        bench
            .run(&["--out", out.to_str().unwrap()], b"")
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn no_trace_is_left_in_the_temporary_folder() {
    let bench = Bench::new("exit 1");
    bench.run(&["--out", bench.path("out").to_str().unwrap()], b"");
    let left: Vec<_> = fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_str().unwrap().starts_with("viridis-")),
        "{left:?}"
    );
}

#[test]
fn kvm_is_used_where_a_trial_boot_works_and_asked_once() {
    let bench = Bench::new(r#"echo "$accelerator" >>"$here/boots"; exit 1"#);
    fs::write(bench.path("kvm"), "").unwrap();
    let boot = |options: &[&str]| {
        run(
            bench.command(options).env("VIRIDIS_KVM", bench.path("kvm")),
            b"",
        )
        .status
        .code()
    };
    assert_eq!(boot(&["--accel", "auto"]), Some(0));
    assert_eq!(boot(&["--accel", "auto"]), Some(0));
    assert_eq!(boot(&["--accel", "kvm"]), Some(0));
    assert_eq!(boot(&["--accel", "tcg"]), Some(0));
    let boots = fs::read_to_string(bench.path("boots")).unwrap();
    assert_eq!(
        boots, "kvm\nkvm\nkvm\nkvm\ntcg,thread=multi\n",
        "one of them is the trial"
    );
}

#[test]
fn tcg_is_used_where_kvm_fails() {
    let bench = Bench::new(
        r#"echo "$accelerator" >>"$here/boots"
        if [ "$accelerator" = kvm ]; then echo 'failed to initialize kvm' >&2; exit 1; fi
        exit 1"#,
    );
    fs::write(bench.path("kvm"), "").unwrap();
    let boot = |options: &[&str]| {
        run(
            bench.command(options).env("VIRIDIS_KVM", bench.path("kvm")),
            b"",
        )
    };
    for _ in 0..2 {
        let output = boot(&["--accel", "auto"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(
            text(&output.stderr).contains("failed to initialize kvm"),
            "{}",
            text(&output.stderr)
        );
    }
    let output = boot(&["--accel", "kvm"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("--accel kvm: "),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        fs::read_to_string(bench.path("boots")).unwrap(),
        "kvm\ntcg,thread=multi\ntcg,thread=multi\n"
    );
}

#[test]
fn a_kernel_that_fails_says_nothing_lasting_about_kvm() {
    let bench = Bench::new(r#"echo "$accelerator" >>"$here/boots"; exit 203"#);
    fs::write(bench.path("kvm"), "").unwrap();
    for _ in 0..2 {
        run(
            bench
                .command(&["--accel", "auto"])
                .env("VIRIDIS_KVM", bench.path("kvm")),
            b"",
        );
    }
    let boots = fs::read_to_string(bench.path("boots")).unwrap();
    assert_eq!(boots, "kvm\ntcg,thread=multi\nkvm\ntcg,thread=multi\n");
}

#[test]
fn without_kvm_nothing_is_tried() {
    let bench = Bench::new(r#"echo "$accelerator" >>"$here/boots"; exit 1"#);
    assert_eq!(bench.run(&["--accel", "auto"], b"").status.code(), Some(0));
    assert_eq!(bench.run(&["--accel", "kvm"], b"").status.code(), Some(2));
    assert_eq!(
        fs::read_to_string(bench.path("boots")).unwrap(),
        "tcg,thread=multi\n"
    );
}

#[test]
fn an_iso_needs_limine() {
    let bench = Bench::new("exit 1");
    let output = bench
        .command(&["--iso"])
        .env_remove("LIMINE_DIR")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("git clone"),
        "{}",
        text(&output.stderr)
    );
    let output = bench
        .command(&["--iso"])
        .env("LIMINE_DIR", bench.path("home"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("limine-bios.sys"),
        "{}",
        text(&output.stderr)
    );
}
