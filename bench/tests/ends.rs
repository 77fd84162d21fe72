//! `bench` beside stand-ins for `vua` and `launch`: what it says and keeps when something is missing, fails or is interrupted.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A run on N workers takes 1/N s by its own account; more than four there are not.
const STAND_IN: &str = r#"#!/bin/sh
case "$*" in
  *simulate*) echo '{"cores":8,"time":250,"work":1000,"span":100,"burdened_span":200,"parallelism":10,"speedup":4,"efficiency":0.5}' >&2; echo sum; exit;;
  *slow*) exec sleep 60;;
esac
n=$3
[ "$n" -le 4 ] || { echo "stand-in: no $n cores" >&2; exit 2; }
echo sum
echo "{\"cores\":[{\"cpu\":0,\"tasks\":5,\"steals\":1,\"parked_ns\":7}],\"elapsed_ns\":$((1000000000 / n))}" >&2
"#;

/// One test at a time: a child that another test starts just while an executable is written would keep that open, and it could not be run.
static ONE: Mutex<()> = Mutex::new(());

struct Place(
    PathBuf,
    #[allow(dead_code, reason = "held")] MutexGuard<'static, ()>,
);

impl Place {
    fn new(name: &str, stand_in: &str) -> Place {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).unwrap();
        for name in ["vua", "launch"] {
            let file = folder.join("bin").join(name);
            fs::write(&file, stand_in).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::copy(env!("CARGO_BIN_EXE_bench"), folder.join("bin/bench")).unwrap();
        Place(folder, one)
    }

    fn bench(&self, arguments: &str) -> Command {
        let mut command = Command::new(self.0.join("bin/bench"));
        command.args(arguments.split_whitespace());
        command
    }

    fn output(&self, arguments: &str) -> (Output, String, String) {
        let output = self.bench(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        (output, out, error)
    }

    fn results(&self) -> String {
        let page = fs::read_to_string(self.0.join("bench/report.html")).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
        assert!(
            !page.contains("http"),
            "the page refers to something outside"
        );
        fs::read_to_string(self.0.join("bench/results.json")).unwrap()
    }
}

#[test]
fn cores_that_there_are_not_leave_the_others_measured() {
    let place = Place::new("bench-many", STAND_IN);
    let (output, table, said) =
        place.output("--smp 1,2,900 --repeats 3 --simulate 8 parallel/queens");
    assert!(output.status.success());
    assert_eq!(said.matches("no 900 cores").count(), 2, "{said}");
    let rows = |place: &str| {
        let lines = table
            .lines()
            .filter(|line| line.trim_start().starts_with(place));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for place in ["host", "kernel"] {
        let rows = rows(place);
        assert_eq!(rows.len(), 2, "{table}");
        assert!(rows[1].contains("2.00x   100%"), "{table}");
    }
    assert!(rows("simulated")[0].contains("4.00x    50%"), "{table}");
    assert!(table.contains("parallelism 10.0, burdened 5.0"), "{table}");
    let results = place.results();
    assert!(results.contains("no 900 cores") && results.contains("\"interrupted\": false"));
}

#[test]
fn peers_that_are_not_installed_are_said() {
    let place = Place::new("bench-peers", STAND_IN);
    let output = place
        .bench("--peers --where host --smp 1 --repeats 1 fib")
        .env("PATH", "/bin/nowhere:/usr/bin/nowhere")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    for peer in ["lua5.4", "luajit", "luajit -joff"] {
        assert!(said.contains(&format!("{peer} is not installed")), "{said}");
    }
}

#[test]
fn a_different_checksum_is_an_error() {
    let place = Place::new("bench-wrong", STAND_IN);
    let (_, table, said) =
        place.output("--quick --where host --smp 1 --simulate none parallel/fib");
    assert!(said.contains("printed 'sum', not '377'"), "{said}");
    assert!(table.contains("note: parallel/fib on 1 workers"), "{table}");
}

#[test]
fn an_interruption_keeps_what_there_is() {
    // The second program never ends.
    let stand_in = STAND_IN.replace("*slow*", "*queens*");
    let place = Place::new("bench-interrupted", &stand_in);
    let mut child = place
        .bench("--where host --smp 1 --repeats 2 --simulate none parallel/fib parallel/queens")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let line = said.next().unwrap().unwrap();
        if line.contains("2 of 2") {
            break;
        }
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut table = String::new();
    let mut output = child.stdout.take().unwrap();
    output.read_to_string(&mut table).unwrap();
    assert!(
        table.contains("parallel/fib") && table.contains("1.000 s"),
        "{table}"
    );
    assert!(table.contains("interrupted"), "{table}");
    let results = place.results();
    assert!(results.contains("\"interrupted\": true") && results.contains("parallel/fib"));
}

/// A machine that sweeps: a run on N cores takes 1/N s, and there are no more than four cores.
const SWEEPING: &str = r#"#!/bin/sh
[ "$3" -le 4 ] || { echo "stand-in: no $3 cores" >&2; exit 2; }
report() {
  echo sum
  cores=$(seq -s, "$1" | sed 's/[0-9]*/{}/g')
  echo "{\"cores\":[$cores],\"elapsed_ns\":$((1000000000 / $1))}" >&2
}
case "$*" in
  *"sweep=1,2,4 repeats=2"*) for n in 1 2 4 1 2 4; do report $n; done;;
  *"sweep=1,2 repeats=2"*) report 1; report 2; echo other; report 1; report 2;;
  *"sweep=1,3 repeats=2"*) report 1; report 3; report 1;;
esac
"#;

#[test]
fn one_boot_gives_a_row_for_each_number_of_cores() {
    let place = Place::new("bench-one-boot", SWEEPING);
    let bench = "--one-boot --where kernel --simulate none --repeats 2 parallel/queens --smp";
    let (output, table, said) = place.output(&format!("{bench} 1,2,4"));
    assert!(output.status.success(), "{said}");
    let rows = table.lines().filter(|line| line.contains("kernel "));
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(rows[2].contains("4.00x   100%"), "{table}");
    assert!(place.results().contains("\"interrupted\": false"));
    for (smp, why) in [
        ("1,2", "its runs printed different things"),
        ("1,3", "3 of 4 runs reported"),
        ("1,900", "no 900 cores"),
    ] {
        let (_, table, said) = place.output(&format!("{bench} {smp}"));
        assert!(said.contains(why), "{smp}: {said}");
        assert!(
            table.contains("note: parallel/queens in one boot on"),
            "{table}"
        );
    }
}
