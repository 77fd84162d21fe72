//! The `vua` command from outside: options, streams, files, signals, exit statuses.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A folder of its own for one test, with a program in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str, program: &str) -> Place {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("command-{name}"));
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("program.vua"), program).unwrap();
        Place(folder)
    }

    fn vua(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vua"));
        command
            .args(arguments)
            .current_dir(&self.0)
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.vua(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Starts a program with pipes and waits for its first line, `ready`.
fn start(place: &Place) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = place
        .vua(&["run", "--workers", "2", "program.vua"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, output)
}

#[test]
fn check_compiles_and_runs_nothing() {
    let place = Place::new("check", "print('never')");
    let output = place.output(&["check", "program.vua"]);
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (Some(0), "", "")
    );

    fs::write(place.0.join("wrong.vua"), "local x = = 1\nfor").unwrap();
    let output = place.output(&["check", "wrong.vua"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).starts_with("wrong.vua:1:11: "),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.stderr, place.output(&["run", "wrong.vua"]).stderr);
}

#[test]
fn dis_prints_every_function() {
    let place = Place::new("dis", "local function inner() return 5 end print(inner())");
    let output = place.output(&["dis", "program.vua"]);
    assert_eq!(output.status.code(), Some(0));
    let listing = text(&output.stdout);
    assert!(
        listing.contains("function main ")
            && listing.contains("'inner'")
            && listing.contains("CALL"),
        "{listing}"
    );
}

#[test]
fn what_is_not_found_or_not_understood_is_status_2() {
    let place = Place::new("usage", "");
    for (arguments, message) in [
        (&["run", "absent.vua"][..], "vua: cannot open absent.vua"),
        (&["check", "absent.vua"], "vua: cannot open absent.vua"),
        (
            &["run", "--nonsense", "program.vua"],
            "vua: invalid option '--nonsense'",
        ),
        (
            &["frobnicate", "program.vua"],
            "vua: unknown command 'frobnicate'",
        ),
        (&["--stats"], "vua: say what to do"),
    ] {
        let output = place.output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).starts_with(message),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty());
    }
    assert!(text(&place.output(&["--help"]).stdout).starts_with("Usage:"));
}

#[test]
fn workers_are_cores_and_stats_counts_each() {
    let place = Place::new("stats", "print(cpu.count())");
    let output = place.output(&["run", "--workers", "3", "--stats", "program.vua"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "3\n")
    );
    let stats = text(&output.stderr);
    assert!(
        stats.starts_with("{\"cores\":[{\"cpu\":0,") && stats.ends_with("}\n"),
        "{stats}"
    );
    assert_eq!(stats.matches("\"cpu\":").count(), 3, "{stats}");
}

#[test]
fn arguments_are_bytes() {
    let place = Place::new("bytes", "print(#arg, arg[1]:byte(1, -1))");
    let output = place
        .vua(&["run", "program.vua"])
        .arg(OsStr::from_bytes(b"a\xff\x80"))
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "1\t97\t255\t128\n")
    );
}

#[test]
fn interrupt_cancels_the_program() {
    let place = Place::new(
        "interrupt",
        "for i = 1, 3 do spawn(function() while true do end end) end\nprint('ready')\nwhile true do end",
    );
    let (mut child, _output) = start(&place);
    // SAFETY: signals a child of ours that has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn interrupt_ends_a_program_that_waits_for_input() {
    let place = Place::new(
        "interrupt-input",
        "print('ready')\nio.read()\nprint('not reached')",
    );
    let (mut child, mut output) = start(&place);
    // Waiting for the child would close its input, whose end might arrive before the signal.
    let _input = child.stdin.take();
    // SAFETY: as above.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn input_that_comes_late_is_waited_for() {
    let place = Place::new(
        "input",
        "print('ready')\nlocal line = io.read()\nprint('got ' .. line)\nprint(io.read('a'), io.read())",
    );
    let (mut child, mut output) = start(&place);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"first").unwrap();
    input.write_all(b" line\n").unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "got first line\n");
    input.write_all(b"the rest").unwrap();
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "the rest\tnil\n");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_ends_the_program_silently() {
    let place = Place::new("pipe", "print('ready')\nwhile true do print('more') end");
    let (mut child, output) = start(&place);
    drop(output);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGPIPE));
    let mut error = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert_eq!(error, "");
}

#[test]
fn files_come_from_beside_the_program_and_go_to_the_current_folder() {
    let place = Place::new(
        "files",
        "local f = assert(io.open('data.txt'))\nprint(f:read('a'))\nf:close()\n\
         local g = assert(io.open('new/out.bin', 'wb'))\ng:write('\\0\\255')\nassert(g:close())\n\
         print(io.open('absent'))",
    );
    fs::write(place.0.join("data.txt"), "beside").unwrap();
    let elsewhere = place.0.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let output = place
        .vua(&["run", "../program.vua"])
        .current_dir(&elsewhere)
        .output()
        .unwrap();
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (
            Some(0),
            "beside\nnil\tabsent: No such file or directory\t2\n",
            ""
        )
    );
    assert_eq!(fs::read(elsewhere.join("new/out.bin")).unwrap(), b"\0\xff");
}

#[test]
fn a_file_here_comes_before_one_beside_the_program() {
    let place = Place::new("files-here", "print((io.open('data.txt'):read('a')))");
    fs::write(place.0.join("data.txt"), "beside").unwrap();
    let elsewhere = place.0.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("data.txt"), "here").unwrap();
    let output = place
        .vua(&["run", "../program.vua"])
        .current_dir(&elsewhere)
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "here\n");
}

/// Cores that fell asleep before the loop began do not ask for work any more: the loop must offer some by itself.
#[test]
fn a_loop_that_finds_the_other_cores_asleep_is_split() {
    let place = Place::new(
        "asleep",
        "local start = os.clock()\nwhile os.clock() - start < 0.05 do end\nlocal out = {}\nparallel for i = 1, 1000 do out[i] = i end\nprint(#out)",
    );
    let output = place
        .vua(&["run", "--workers", "2", "--stats", "program.vua"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "1000\n");
    let stats = text(&output.stderr);
    let splits: u64 = stats
        .split("\"splits\":")
        .skip(1)
        .map(|rest| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum();
    assert!(splits > 0, "{stats}");
}

/// With one worker and nothing else to run, heartbeats leave a loop that goes on as it is: split, its table would be shared. One that does not go on is split, since
/// what it spins for may be one of its own iterations, however deep it spins.
#[test]
fn a_heartbeat_splits_only_what_does_not_go_on() {
    let place = Place::new(
        "heartbeat",
        "local out = {}\nparallel for i = 1, 3000000 do out[i & 1023] = i end\nprint(#out)",
    );
    let output = place.output(&["run", "--workers", "1", "--stats", "program.vua"]);
    assert_eq!(text(&output.stdout), "1023\n");
    let stats = text(&output.stderr);
    assert!(stats.contains("\"splits\":0,"), "{stats}");

    let place = Place::new(
        "spins",
        "local flag = {}
parallel.invoke(function() while not flag[1] do end end, function() flag[1] = true end)
parallel for i = 1, 2 do
  if i == 1 then
    while not flag[2] do parallel for j = 1, 10 do flag[10 + j] = j end end
  else
    flag[2] = true
  end
end
print('ended')",
    );
    let output = place.output(&["run", "--workers", "1", "program.vua"]);
    assert_eq!(text(&output.stdout), "ended\n");
}

#[test]
fn a_program_at_its_memory_limit_collects_then_gets_an_error_and_goes_on() {
    let place = Place::new(
        "memory",
        r#"
local live, count = {}, 0
local ok, message = pcall(function() while true do count = count + 1 live[count] = { count } end end)
live = nil
print(ok, message, count > 10000)
local sum = 0
for i = 1, 1000000 do local t = { i } sum = sum + #t end
print(sum)
print(pcall(string.rep, "x", 1 << 30))
print(#string.rep("x", 1 << 20))
"#,
    );
    for workers in ["1", "2"] {
        let output = place.output(&[
            "run",
            "--workers",
            workers,
            "--memory",
            "16M",
            "program.vua",
        ]);
        assert_eq!(
            text(&output.stdout),
            "false\tnot enough memory\ttrue\n1000000\nfalse\tnot enough memory\n1048576\n",
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_reader_misses_no_line() {
    // Each line is written when the one before has come back, so that a wake-up that is missed is never made up for.
    let place = Place::new(
        "echo",
        r#"
for line in io.lines() do
  io.write(line, "\n")
  io.stdout:flush()
end
"#,
    );
    let mut vua = place
        .vua(&["run", "--workers", "2", "program.vua"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = vua.stdin.take().unwrap();
    let mut output = BufReader::new(vua.stdout.take().unwrap()).lines();
    for i in 0..5000 {
        writeln!(input, "{i}").unwrap();
        assert_eq!(output.next().unwrap().unwrap(), i.to_string());
    }
    drop(input);
    assert!(vua.wait().unwrap().success());
}

#[test]
fn what_the_compiler_takes_counts() {
    let place = Place::new(
        "memory-of-code",
        r#"
print(pcall(load, ("x = {} "):rep(100000)))
print(load(("x = {} "):rep(1000)) ~= nil)
local functions, count = {}, 0
print(pcall(function()
  while true do
    count = count + 1
    functions[count] = load("local a, b, c = " .. count .. " return function() return a, b, c end")()
  end
end))
functions = nil
print(count > 1000, load("return 1")())
"#,
    );
    let output = place.output(&["run", "--workers", "1", "--memory", "16M", "program.vua"]);
    assert_eq!(
        text(&output.stdout),
        "false\tnot enough memory\ntrue\nfalse\tnot enough memory\ntrue\t1\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_program_has_a_memory_limit_and_is_told_what_it_uses() {
    let place = Place::new(
        "memory-stats",
        r#"
local before = memory.stats()
local list = {}
for i = 1, 100000 do list[i] = { i } end
collectgarbage()
local stats = memory.stats()
print(stats.limit)
print(stats.collections > before.collections, stats.live > 6400000, stats.most_live >= stats.live)
print(stats.allocated >= before.allocated + 6400000, stats.used >= stats.live // 2)
local pauses, count, last = stats.pauses, 0, 0
for _, line in ipairs(pauses.histogram) do
  assert(line.below > last)
  last = line.below
  count = count + line.count
end
print(count == stats.collections, pauses.longest <= last, pauses.median <= pauses.p99, pauses.p99 <= pauses.longest, pauses.longest <= pauses.total)
"#,
    );
    for (options, least, most) in [
        (&["--memory", "64M"][..], 64 << 20, 64 << 20),
        (&[], 1 << 20, 1 << 50),
    ] {
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.push("program.vua");
        let output = place.output(&arguments);
        let printed = text(&output.stdout);
        let (limit, rest) = printed.split_once('\n').unwrap();
        let limit: u64 = limit.parse().unwrap();
        assert!((least..=most).contains(&limit), "{limit}");
        assert_eq!(
            rest,
            "true\ttrue\ttrue\ntrue\ttrue\ntrue\ttrue\ttrue\ttrue\ttrue\n",
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn collections_and_failing_allocations_anywhere_change_nothing() {
    let place = Place::new(
        "stress",
        r#"
local Point = {}
Point.__index = Point
Point.__add = function(a, b) return setmetatable({ x = a.x + b.x }, Point) end
local function range(n) return coroutine.wrap(function() for i = 1, n do coroutine.yield(i, { i }) end end) end
local sum = setmetatable({ x = 0 }, Point)
for i, t in range(40) do sum = sum + setmetatable({ x = t[1] }, Point) end
print(sum.x, ("a,b,c"):gsub(",", function(c) return c .. c end), table.concat({ 1, 2, 3 }, "-"))
local list = {}
for i = 1, 60 do list[i] = tostring(60 - i) .. ("x"):rep(i % 3) end
table.sort(list, function(a, b) return a < b end)
print(list[1], list[60], #list, select('#', table.unpack(list)))
local out = {}
parallel for i = 1, 200 do out[i] = { i, tostring(i) } end
local total = 0
for i = 1, 200 do total = total + out[i][1] + #out[i][2] end
print(total, pcall(error, { 1 }) == false, select(2, pcall(function() return nil + 1 end)))
local tasks = {}
for i = 1, 20 do tasks[i] = spawn(function(a, b) return a[1] .. b end, { i }, '!') end
for i = 1, 20 do tasks[i] = tasks[i]:join() end
print(table.concat(tasks))
"#,
    );
    let expected = place.output(&["run", "--workers", "1", "program.vua"]);
    assert!(expected.status.success(), "{}", text(&expected.stderr));
    for options in [
        &["--workers", "1", "--gc-stress"][..],
        &["--workers", "3", "--gc-stress"],
        &["--workers", "1", "--fail-allocations", "1"],
        &["--workers", "1", "--fail-allocations", "10"],
        &["--workers", "2", "--fail-allocations", "50"],
        &["--schedule-seed", "7", "--gc-stress"],
    ] {
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.push("program.vua");
        let output = place.output(&arguments);
        assert_eq!(
            text(&output.stdout),
            text(&expected.stdout),
            "{options:?}: {}",
            text(&output.stderr)
        );
    }
}

/// The first failure comes at every one of the first thousand allocations in some run.
#[test]
fn whichever_allocation_fails_first_a_program_does_the_same() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let programs = [
        "memory/weak",
        "memory/finalizers",
        "memory/structs",
        "tasks/scope",
    ]
    .map(|case| {
        let source = fs::read_to_string(golden.join(case).with_extension("vua")).unwrap();
        let place = Place::new(&format!("first-{}", case.replace('/', "-")), &source);
        let expected = place.output(&["run", "--workers", "1", "program.vua"]);
        (case, place, expected)
    });
    for first in 1..=1000 {
        let (case, place, expected) = &programs[first % programs.len()];
        let every = first.to_string();
        let output = place.output(&[
            "run",
            "--workers",
            "1",
            "--fail-allocations",
            &every,
            "program.vua",
        ]);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (expected.status.code(), text(&expected.stdout)),
            "{case} {first}: {}",
            text(&output.stderr)
        );
    }
}

/// Waits, wake-ups, cancellations and growths of shared tables, while each core stops the others over and over, or gets no memory at first.
#[test]
fn tasks_wait_and_are_cancelled_under_collections_and_failing_allocations() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (case, options) in [
        ("tasks/cancel", &["--workers", "2", "--gc-stress"][..]),
        (
            "tasks/cancel",
            &["--workers", "2", "--fail-allocations", "20"],
        ),
        ("tasks/scope", &["--workers", "2", "--gc-stress"]),
        ("tasks/deadlock", &["--workers", "4", "--gc-stress"]),
        (
            "tasks/parallel_pairs",
            &["--workers", "4", "--fail-allocations", "20"],
        ),
        (
            "tasks/parallel_pairs",
            &["--workers", "2", "--fail-allocations", "3"],
        ),
        ("sharing/waiting", &["--workers", "2", "--gc-stress"]),
        (
            "sharing/mutex",
            &["--workers", "3", "--fail-allocations", "5"],
        ),
    ] {
        let source = fs::read_to_string(golden.join(case).with_extension("vua")).unwrap();
        let place = Place::new(&format!("under-{}", case.replace('/', "-")), &source);
        let expected = place.output(&["run", "--workers", "1", "program.vua"]);
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.push("program.vua");
        let output = place.output(&arguments);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (expected.status.code(), text(&expected.stdout)),
            "{case} {options:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn structs_of_modules_are_compared_when_a_compiled_program_is_loaded() {
    let place = Place::new(
        "structs",
        "struct S from 'm'\nlocal s: S = S { x = 3, y = 4 }\nprint(s:sum(), S == require 'm', S.size)\n",
    );
    let module = |fields: &str| {
        let text = format!(
            "struct Other z: u8 end struct S {fields} end function S:sum() return self.x + self.y end return S"
        );
        fs::write(place.0.join("m.vua"), text).unwrap();
    };
    let says = |arguments: &[&str], status: i32, what: &str| {
        let output = place.output(arguments);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(what), "{arguments:?}: {said}");
    };
    says(
        &["check", "program.vua"],
        2,
        "program.vua:1:15: module 'm' not found: there is none of 'm.vua'",
    );
    module("x: u8  y: reg");
    says(&["check", "program.vua"], 0, "");
    says(&["build", "program.vua", "-o", "out.vbc"], 0, "");
    says(&["run", "program.vua"], 0, "7\ttrue\t16\n");
    says(&["run", "out.vbc"], 0, "7\ttrue\t16\n");
    // The module compiled as well.
    says(&["build", "m.vua", "-o", "m.vbc", "--strip"], 0, "");
    fs::remove_file(place.0.join("m.vua")).unwrap();
    says(&["run", "out.vbc"], 0, "7\ttrue\t16\n");
    says(&["check", "program.vua"], 0, "");
    says(&["run", "program.vua"], 0, "7\ttrue\t16\n");
    // Another layout, in whatever respect: the compiled program is refused before it runs.
    for fields in [
        "x: u16  y: reg",
        "y: reg  x: u8",
        "x: u8  y: reg  z: u8",
        "x: u8  z: reg",
        "x: u8[1]  y: reg",
    ] {
        module(fields);
        says(
            &["run", "out.vbc"],
            2,
            "struct 'S' of module 'm' (m.vua) is not what it was when this was compiled: compile it again",
        );
    }
    module("packed x: u8  y: reg");
    says(&["run", "out.vbc"], 2, "compile it again");
    fs::write(place.0.join("m.vua"), "local struct = 1").unwrap();
    says(
        &["run", "out.vbc"],
        2,
        "module 'm' (m.vua) has no struct 'S' in its outermost scope: it declares none there",
    );
    fs::remove_file(place.0.join("m.vua")).unwrap();
    fs::remove_file(place.0.join("m.vbc")).unwrap();
    says(&["run", "out.vbc"], 2, "module 'm' not found");
    module("x: u16  y: reg");
    says(&["run", "program.vua"], 0, "7\ttrue\t16\n");
    // What is declared in between goes along: it is the structs that count.
    module("x: u8  y: reg");
    let text = fs::read_to_string(place.0.join("m.vua")).unwrap();
    fs::write(
        place.0.join("m.vua"),
        format!("struct Before a: f64 end {text}"),
    )
    .unwrap();
    says(&["run", "out.vbc"], 0, "7\ttrue\t16\n");
}

#[test]
fn build_makes_a_file_that_runs_as_the_program_does() {
    let place = Place::new(
        "build",
        "#!/usr/bin/env vua\nlocal m = require 'm'\nprint(m.twice(21), ...)\nprint(pcall(m.fail))\n",
    );
    fs::write(
        place.0.join("m.vua"),
        "return { twice = function(x) return 2 * x end, fail = function() error('here') end }",
    )
    .unwrap();
    for (options, position) in [(&[][..], "m.vua:1:"), (&["--strip"], "?:-1:")] {
        for (source, compiled) in [("program.vua", "out.vbc"), ("m.vua", "m.vbc")] {
            let mut arguments = vec!["build", source, "-o", compiled];
            arguments.extend(options);
            let output = place.output(&arguments);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        fs::rename(place.0.join("m.vua"), place.0.join("m.source")).unwrap();
        let output = place.output(&["run", "out.vbc", "one"]);
        assert_eq!(
            text(&output.stdout),
            format!("42\tone\nfalse\t{position} here\n"),
            "{}",
            text(&output.stderr)
        );
        assert!(place.output(&["check", "out.vbc"]).status.success());
        let listing = place.output(&["dis", "m.vbc"]);
        assert!(
            text(&listing.stdout).contains("MUL"),
            "{}",
            text(&listing.stdout)
        );
        fs::rename(place.0.join("m.source"), place.0.join("m.vua")).unwrap();
    }
    // Damage is found before anything runs.
    let mut bytes = fs::read(place.0.join("out.vbc")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(place.0.join("out.vbc"), bytes).unwrap();
    let output = place.output(&["run", "out.vbc"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(
        text(&output.stderr).contains("damaged"),
        "{}",
        text(&output.stderr)
    );
}
