//! `fuzz programs FIRST COUNT`: runs random programs in both implementations.

use std::process::ExitCode;

use fuzz::differential::Peers;
use fuzz::program;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments
        .iter()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    match (arguments.first().map(String::as_str), numbers.as_slice()) {
        (Some("show"), [seed]) => {
            println!("{}", program::program(*seed).text());
            ExitCode::SUCCESS
        }
        (Some("programs"), [first, count]) => programs(*first, *count),
        _ => {
            eprintln!("usage: fuzz show SEED\n       fuzz programs FIRST COUNT");
            ExitCode::from(2)
        }
    }
}

fn programs(first: u64, count: u64) -> ExitCode {
    let folder = std::env::temp_dir().join(format!("vua-fuzz-{}", std::process::id()));
    let peers = match Peers::find(&folder) {
        Ok(peers) => peers,
        Err(missing) => {
            eprintln!("fuzz: {missing}");
            return ExitCode::from(2);
        }
    };
    let total = peers.random_programs(first, count, &mut |report| println!("{report}\n"));
    println!(
        "{} equal, {} skipped, {} different",
        total.equal,
        total.skipped,
        total.different.len()
    );
    _ = std::fs::remove_dir_all(folder);
    if total.different.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
