//! `docs/compatibility.md` says of each function of Lua's library whether Vua has it. This compares the page with the library.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Prints the names of all that Lua's libraries have here, and of the global functions.
const LIST: &str = "\
for _, library in ipairs { 'coroutine', 'debug', 'io', 'math', 'os', 'package', 'string', 'table', 'utf8' } do
  for name in pairs(_G[library]) do print(library .. '.' .. name) end
end
for name in pairs(getmetatable(io.stdout).__index) do print('file:' .. name) end
for name, value in pairs(_G) do if type(value) ~= 'table' then print(name) end end
";

/// Global functions of Vua's own, which are in the language's manual.
const OWN: &[&str] = &[
    "spawn",
    "mutex",
    "semaphore",
    "barrier",
    "condition",
    "rwlock",
    "queue",
    "map",
    "freeze",
    "run",
    "bytes",
    "reg",
];

#[test]
fn the_page_and_the_library_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../docs/compatibility.md")).expect("the page exists");
    let mut listed = BTreeMap::new();
    for line in page.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        if let (Some(name), Some(there)) = (cells.next(), cells.next())
            && let Some(name) = name
                .strip_prefix('`')
                .and_then(|name| name.strip_suffix('`'))
        {
            assert!(there == "yes" || there == "no", "{line}");
            listed.insert(name.to_string(), there == "yes");
        }
    }
    assert!(listed.len() > 150, "{} rows", listed.len());

    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compatibility.vua");
    fs::write(&program, LIST).expect("the program can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_vua"))
        .arg("run")
        .arg(&program)
        .output()
        .expect("the vua command starts");
    let names = String::from_utf8(output.stdout).expect("names are texts");
    let there: Vec<&str> = names.lines().collect();
    assert!(
        there.len() > 100,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let mut wrong = Vec::new();
    for name in &there {
        match listed.get(*name) {
            Some(true) => {}
            Some(false) => wrong.push(format!("{name} is there, and the page says no")),
            None if OWN.contains(name) => {}
            None => wrong.push(format!("{name} is there, and not on the page")),
        }
    }
    for (name, yes) in &listed {
        if *yes && !there.contains(&name.as_str()) {
            wrong.push(format!("{name} is on the page, and not there"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
