//! What a person sees who has nothing but a screen and a keyboard.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tests::screen::{Person, arguments};
use tests::{Outcome, built, machine, program, read_line, spawn, wait};

/// A machine with a person at it. Its standard input stays open.
fn with_person(folder: &Path, options: &[&str], name: &str) -> (Child, Person) {
    let monitor = arguments(folder);
    let options = [options, &["--qemu", &monitor]].concat();
    let child = spawn(&mut machine(&options, &program(name), &[]));
    (child, Person::at(folder))
}

const NAME: [&str; 9] = ["shift-v", "i", "r", "x", "backspace", "i", "d", "i", "s"];

#[test]
fn what_is_printed_and_typed_is_on_the_screen() {
    for cores in ["1", "3"] {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, mut person) =
            with_person(folder.path(), &["--smp", cores, "--verbose"], "typed");
        let lines = person.wait_for("what is your name?");
        // The log stands above.
        assert!(lines[0].contains("] viridis "), "{lines:#?}");
        person.press(&NAME);
        person.wait_for("Viridis");
        person.press(&["ret"]);
        let lines = person.wait_for("hello, Viridis");
        assert!(lines.contains(&"Viridis".to_owned()), "{lines:#?}");
        assert_eq!(read_line(&mut child), "what is your name?");
        assert_eq!(read_line(&mut child), "hello, Viridis");
        person.press_last("ret");
        assert_eq!(wait(child).status, Some(0));
    }
}

#[test]
fn the_control_key_ends_input_and_cancels() {
    let folder = tempfile::tempdir().unwrap();
    let (child, mut person) = with_person(folder.path(), &["--verbose"], "cat");
    person.wait_for("keyboard: at the PC's controller");
    person.press(&["a", "ret", "b"]);
    person.wait_for("b");
    // The first ends the line, the second the input.
    person.press(&["ctrl-d"]);
    person.press_last("ctrl-d");
    let outcome = wait(child);
    assert_eq!(String::from_utf8_lossy(&outcome.success()), "a\nb");

    let folder = tempfile::tempdir().unwrap();
    let (mut child, mut person) = with_person(folder.path(), &["--smp", "2"], "cancelled");
    assert_eq!(read_line(&mut child), "ready");
    person.press_last("ctrl-c");
    let outcome = wait(child);
    assert_eq!(outcome.status, Some(130), "{}", outcome.error);
}

#[test]
fn a_picture_has_the_screen_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, mut person) = with_person(folder.path(), &[], "picture");
    person.wait_for("text before");
    person.press(&["ret"]);
    assert_eq!(read_line(&mut child), "text before");
    assert_eq!(read_line(&mut child), "text after");
    // Six red pixels, and black everywhere else.
    let picture = person.look();
    for (place, &pixel) in picture.pixels.iter().enumerate() {
        let (x, y) = (place % picture.width, place / picture.width);
        let drawn = (10..13).contains(&x) && (20..22).contains(&y);
        let expected = if drawn { [255, 0, 0] } else { [0; 3] };
        assert_eq!(pixel, expected, "at {x}, {y}");
    }
    person.press_last("ret");
    assert_eq!(wait(child).status, Some(0));
}

#[test]
fn a_screenful_of_lines_ends_with_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("many.vua");
    // More than is kept for the screen, and less than the pipe holds that nobody reads meanwhile.
    let source = "for i = 1, 3000 do print('line', i) end io.read()";
    std::fs::write(&file, source).unwrap();
    let monitor = arguments(folder.path());
    let child = spawn(&mut machine(&["--qemu", &monitor], &file, &[]));
    let mut person = Person::at(folder.path());
    let lines = person.wait_for("line    3000");
    // 48 rows, the last of them empty.
    let shown: Vec<String> = (2954..=3000)
        .map(|line| format!("line    {line}"))
        .collect();
    assert_eq!(lines[..47], shown, "{lines:#?}");
    person.press_last("ret");
    wait(child).success();
}

#[test]
fn a_machine_without_a_keyboard_controller_goes_on() {
    let options = ["--verbose", "--qemu", "-machine i8042=off"];
    let outcome = tests::boot(&options, &program("exit"), &["5"]);
    assert_eq!(outcome.status, Some(5), "{}", outcome.error);
    assert!(!outcome.error.contains("keyboard: "), "{}", outcome.error);
    assert!(!outcome.error.contains("warning"), "{}", outcome.error);
}

/// A PC as people have it: no serial port, nothing of QEMU's own, and the ISO in the drive.
struct Pc {
    folder: tempfile::TempDir,
    image: PathBuf,
}

impl Pc {
    fn new(name: &str, words: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("viridis.iso");
        let mut make = Command::new(built("launch"));
        make.args(["iso", "-o"]).arg(&image);
        make.args(["--append", words]).arg(program(name));
        tests::run(&mut make, b"").success();
        Self { folder, image }
    }

    fn start(&self) -> (Child, Person) {
        let qemu = std::env::var_os("VIRIDIS_QEMU").unwrap_or_else(|| "qemu-system-x86_64".into());
        let mut command = Command::new(qemu);
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args([
                "-vga", "std", "-M", "q35", "-cpu", "max", "-smp", "2", "-m", "512M",
            ])
            .args(["-accel", "tcg,thread=multi", "-boot", "d", "-cdrom"])
            .arg(&self.image)
            .args(arguments(self.folder.path()).split(' '));
        let child = spawn(&mut command);
        (child, Person::at(self.folder.path()))
    }
}

#[track_caller]
fn ended(outcome: &Outcome) {
    assert_eq!(outcome.status, Some(0), "{}", outcome.error);
}

#[test]
#[ignore = "needs LIMINE_DIR"]
fn a_pc_without_serial_ports_has_its_screen_and_keyboard() {
    let pc = Pc::new("typed", "");
    let (child, mut person) = pc.start();
    person.wait_for("what is your name?");
    person.press(&NAME);
    person.press(&["ret"]);
    person.wait_for("hello, Viridis");
    person.press_last("ret");
    // It switches itself off.
    ended(&wait(child));

    let pc = Pc::new("exit", "end=halt");
    let (mut child, mut person) = pc.start();
    person.wait_for("it is safe to switch off");
    child.kill().unwrap();
    wait(child);
}

#[test]
#[ignore = "needs LIMINE_DIR"]
fn a_panic_is_reported_on_the_screen() {
    let pc = Pc::new("endless", "fault=null");
    let (mut child, mut person) = pc.start();
    let lines = person.wait_for("KERNEL PANIC on core 0");
    let has = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(has("page fault") || has("exception"), "{lines:#?}");
    assert!(has("commit"), "a backtrace with names: {lines:#?}");
    // The other core's position comes last.
    person.wait_for("core 1:");
    child.kill().unwrap();
    wait(child);
}
