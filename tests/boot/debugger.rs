//! The commands that `scripts/viridis.gdb` adds to GDB, on a machine that is stopped wherever it happens to be.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{built, gdb, machine, program, read_line, root, run, spawn, wait};

/// What GDB prints when it has attached with the script, done these commands and let go.
fn debugger(socket: &Path, folder: &Path, commands: &[&str]) -> String {
    let script = fs::read_to_string(root().join("scripts/viridis.gdb")).expect("it can be read");
    assert!(script.contains("target remote localhost:1234\n"));
    let script = script.replace("localhost:1234", &socket.display().to_string());
    let path = folder.join("script");
    fs::write(&path, script).expect("a file can be written");
    let mut command = Command::new("gdb");
    command.args(["-batch", "-nx", "-x"]).arg(&path);
    for line in commands.iter().chain(&["detach"]) {
        command.args(["-ex", line]);
    }
    command.arg(built("kernel")).current_dir(root());
    let outcome = run(&mut command, b"");
    assert_eq!(outcome.status, Some(0), "{}", outcome.error);
    String::from_utf8_lossy(&outcome.output).into_owned() + &outcome.error
}

/// The frames shown below the last line with `heading`.
fn below<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let from = text.rfind(heading).unwrap_or_else(|| panic!("{text}"));
    let lines = text[from..].trim_start().lines().skip(1);
    lines.map_while(|line| line.strip_prefix('\t')).collect()
}

#[test]
fn a_debugger_shows_where_tasks_are() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket = gdb::socket(folder.path());
    let options = format!("-gdb unix:{},server=on,wait=off", socket.display());
    let mut command = machine(&["--smp", "2", "--qemu", &options], &program("deep"), &[]);
    let mut child = spawn(&mut command);
    // From here on one task is in inner() for good, and the main task is on its way to a wait for it.
    let said = read_line(&mut child);
    let digits = said.strip_prefix("task: 0x");
    let task = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let task = format!("{:#x}", task.unwrap_or_else(|| panic!("{said:?}")));

    // Where the machine stops is up to chance, so it is stopped several times. Only while a core takes the task or puts it back is there
    // nothing to show: that stop does not count.
    let mut shown = 0;
    while shown < 3 {
        let commands = ["vua-cores", "vua-backtrace", &format!("vua-task {task}")];
        let text = debugger(&socket, folder.path(), &commands);
        for core in ["core 0: ", "core 1: "] {
            assert_eq!(text.matches(core).count(), 2, "{text}");
        }
        let frames = below(&text, &format!("\ntask {task}: "));
        if frames.is_empty() {
            continue;
        }
        shown += 1;
        assert_eq!(frames.len(), 2, "{text}");
        assert!(
            frames[0].ends_with("deep.vua:5: in function 'inner'"),
            "{text}"
        );
        assert!(
            frames[1].ends_with("deep.vua:8: in function 'outer'"),
            "{text}"
        );
        // The same beside the core that runs it.
        let running = format!("task {task} of program");
        if text.contains(&running) {
            assert_eq!(below(&text, &running)[0], frames[0], "{text}");
        }
    }
    tests::signal(&child, "TERM");
    wait(child);
}
