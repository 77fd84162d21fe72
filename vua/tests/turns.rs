//! Virtual cores: a seed replays an interleaving exactly and another finds another; a simulation gives the speed-up that work and span allow.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn program(name: &str, source: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("turns-{name}.vua"));
    fs::write(&file, source).unwrap();
    file
}

fn vua(options: &[&str], file: &Path) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_vua"))
        .arg("run")
        .args(options)
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What a racy program prints under a seed.
fn seeded(seed: u64, file: &Path) -> String {
    let output = vua(&["--schedule-seed", &seed.to_string()], file);
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_seed_replays_and_another_differs() {
    // Lost updates, who ran what, addresses, key order, random numbers, time.
    let file = program(
        "race",
        r#"
        local t, who = {n = 0}, {}
        local tasks = {}
        for i = 1, 4 do
          tasks[i] = spawn(function()
            for j = 1, 50 do t.n = t.n + 1; if j % 10 == 0 then who[#who + 1] = i end end
          end)
        end
        for i = 1, 4 do tasks[i]:join() end
        print(t.n, table.concat(who, " "))
        print(t, tasks[1], function() end, print, coroutine)
        for k, v in pairs({one = 1, two = 2, three = 3, [4.5] = 4, [t] = 5, [print] = 6}) do print(k, v) end
        print(math.random(), os.clock(), os.time())
        task.sleep(0.01)
        print(os.clock())
        "#,
    );
    let mut outputs = HashSet::new();
    let mut sums = HashSet::new();
    for seed in 0..20 {
        let output = seeded(seed, &file);
        assert_eq!(output, seeded(seed, &file), "seed {seed}");
        let sum: u32 = output.split_whitespace().next().unwrap().parse().unwrap();
        assert!((2..=200).contains(&sum), "{sum}");
        sums.insert(sum);
        outputs.insert(output);
    }
    assert_eq!(outputs.len(), 20);
    // Updates were lost under some seeds, and not the same number of them.
    assert!(sums.len() >= 4, "{sums:?}");
}

#[test]
fn order_is_found_wrong_only_where_it_is_not_kept() {
    // One flag is raised after the data, the other before: only the second lets a reader see a flag without data.
    let source = |first: &str, second: &str| {
        format!(
            "local t = {{}}
             local w = spawn(function() for i = 1, 20 do {first}; {second} end end)
             local bad = 0
             for i = 1, 200 do local f = t.flag or 0; if f > (t.data or 0) then bad = bad + 1 end end
             w:join() print(bad > 0)"
        )
    };
    let right = program("right", &source("t.data = i", "t.flag = i"));
    let wrong = program("wrong", &source("t.flag = i", "t.data = i"));
    assert!((0..30).all(|seed| seeded(seed, &right) == "false\n"));
    assert!((0..30).any(|seed| seeded(seed, &wrong) == "true\n"));
}

#[test]
fn tables_grow_and_tasks_wait_under_every_seed() {
    let file = program(
        "grow",
        r#"
        local t = {}
        parallel for i = 1, 400 do t["k" .. i % 97] = i; t[i * 3] = i end
        local n, sum = 0, 0
        for k, v in pairs(t) do n = n + 1; if type(k) == "number" then sum = sum + v end end
        local a = spawn(function() task.sleep(0.001) task.yield() return n end)
        local b = spawn(function() return a:join() + 1 end)
        print(b:join(), sum)
        "#,
    );
    for seed in 0..40 {
        assert_eq!(seeded(seed, &file), "498\t80200\n", "seed {seed}");
    }
}

/// A number of the report that a simulation writes.
fn number(report: &str, name: &str) -> f64 {
    let at = report.find(&format!("\"{name}\":")).expect(name) + name.len() + 3;
    let rest = &report[at..];
    rest[..rest.find([',', '}', ']']).unwrap()].parse().unwrap()
}

fn simulate(cores: usize, file: &Path) -> String {
    let output = vua(&["--simulate", &cores.to_string()], file);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_simulation_comes_near_what_work_and_span_allow() {
    let file = program(
        "loop",
        "local out = {}
         parallel for i = 1, 256 do
           local x = i
           for j = 1, 2000 do x = x * 5 % 1013 end
           out[i] = x
         end
         print(out[256])",
    );
    let one = simulate(1, &file);
    let many = simulate(16, &file);
    // 256 iterations of about 6000 instructions each, and little besides.
    let parallelism = number(&one, "parallelism");
    assert!((200.0..256.0).contains(&parallelism), "{one}");
    // However it was split.
    for figure in ["work", "span", "burdened_span"] {
        let ratio = number(&one, figure) / number(&many, figure);
        assert!((0.98..1.02).contains(&ratio), "{figure}: {one}{many}");
    }
    assert!(number(&one, "efficiency") > 0.97, "{one}");
    assert!(number(&many, "efficiency") > 0.8, "{many}");
    assert!(number(&many, "time") >= number(&many, "work") / 16.0);
    assert_eq!(many, simulate(16, &file));
}

#[test]
fn a_chain_of_tasks_has_no_parallelism_and_a_tree_has() {
    let spin = "local function spin() local x = 0 for i = 1, 5000 do x = x + i end return x end\n";
    let chain = program(
        "chain",
        &format!("{spin}for i = 1, 30 do spawn(spin):join() end"),
    );
    let report = simulate(8, &chain);
    assert!(number(&report, "parallelism") < 1.05, "{report}");
    assert!(number(&report, "speedup") < 1.05, "{report}");

    let tree = program(
        "tree",
        &format!(
            "{spin}local function tree(n)
               if n == 0 then spin() return end
               local t = spawn(tree, n - 1)
               tree(n - 1)
               t:join()
             end
             tree(7)"
        ),
    );
    let report = simulate(8, &tree);
    let parallelism = number(&report, "parallelism");
    assert!((100.0..128.5).contains(&parallelism), "{report}");
    assert!(number(&report, "burdened_parallelism") < parallelism / 1.5);
    assert!(number(&report, "speedup") > 5.0, "{report}");
}

/// A program on one core of four, all of whose tasks but one spin: each gets its turn, or this would never end.
#[test]
fn tasks_of_a_program_that_is_limited_to_one_core_take_turns() {
    program(
        "one_core",
        "for i = 1, 4 do spawn(function() while true do end end) end
         for i = 1, 4 do task.yield() end
         os.exit(3)",
    );
    let file = program(
        "limited",
        "assert(run('turns-one_core.vua', { cpus = 1 }):join() == 3)",
    );
    simulate(4, &file);
}
