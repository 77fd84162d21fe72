//! Profile and trace of a run: where time went, and what each core did when.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn place(name: &str, program: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reports-{name}"));
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("program.vua"), program).unwrap();
    folder
}

fn vua(folder: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vua"))
        .arg("run")
        .args(options)
        .arg("program.vua")
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_profile_shows_where_time_goes() {
    let folder = place(
        "profile",
        "local function spin(n) local x = 0 for i = 1, n do x = x + i % 7 end return x end
         local function hot() return spin(900000) + 0 end
         local function cold() return spin(30000) + 0 end
         local t = spawn(function() for i = 1, 20 do hot() cold() end end)
         t:join()
         print('done')",
    );
    let output = vua(&folder, &["--workers", "2", "--profile", "out.d"]);
    assert_eq!(output.stdout, b"done\n");
    assert!(output.status.success() && output.stderr.is_empty());
    let folded = fs::read_to_string(folder.join("out.d.folded")).unwrap();
    let count = |name: &str| -> u64 {
        let lines = folded.lines().filter(|line| line.contains(name));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    // Thirty times as long, and the machine may be busy with something else.
    assert!(
        count(";hot program.vua:2;spin program.vua:1 ") > 10,
        "{folded}"
    );
    assert!(count("hot") > 5 * count("cold"), "{folded}");
    let graph = fs::read_to_string(folder.join("out.d.svg")).unwrap();
    assert!(graph.contains("<svg") && graph.contains("hot program.vua:2"));
}

#[test]
fn a_trace_has_each_core_s_tasks_in_order() {
    let folder = place(
        "trace",
        "local function work(n) local x = 0 for i = 1, 300000 do x = x + i end return x end
         local tasks = {}
         for i = 1, 8 do tasks[i] = spawn(work, i) end
         for i = 1, 8 do tasks[i]:join() end
         task.sleep(0.01)",
    );
    let output = vua(&folder, &["--workers", "2", "--trace", "t.json"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let text = fs::read_to_string(folder.join("t.json")).unwrap();
    let trace: Value = serde_json::from_str(&text).expect("a trace is JSON");
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |name: &str| {
        let name = name.to_owned();
        events.iter().filter(move |e| e["name"] == *name)
    };
    assert_eq!(of("thread_name").count(), 2);
    // A task that makes way has more than one event.
    let tasks: HashSet<&str> = of("work program.vua:1")
        .map(|e| e["args"]["task"].as_str().unwrap())
        .collect();
    assert_eq!(tasks.len(), 8);
    assert!(of("main chunk program.vua").count() >= 2);
    assert!(of("sleep").any(|e| e["dur"].as_f64().unwrap() > 5000.0));
    // What a core does, it does one after the other.
    for core in 0..2 {
        let mut tasks: Vec<(f64, f64)> = events
            .iter()
            .filter(|e| e["cat"] == "task" && e["tid"] == core)
            .map(|e| (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap()))
            .collect();
        tasks.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            tasks
                .windows(2)
                .all(|two| two[0].0 + two[0].1 <= two[1].0 + 0.002)
        );
    }
}

#[test]
fn what_cannot_be_written_is_said() {
    let folder = place("unwritable", "os.exit(3)");
    let output = vua(&folder, &["--trace", "no/such/folder/t.json"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no/such/folder/t.json"), "{said}");
    let output = vua(&folder, &["--profile", "p"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(folder.join("p.folded").exists() && folder.join("p.svg").exists());
}
