//! A few thousand random programs in `vua` and in `lua5.4`; `scripts/test fuzz-long` runs a hundred thousand.

use std::path::Path;

use fuzz::differential::Peers;

#[test]
fn random_programs_print_the_same() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    let peers = match Peers::find(&folder) {
        Ok(peers) => peers,
        Err(missing) => {
            println!("skipped: {missing}");
            return;
        }
    };
    let outcome = peers.random_programs(0, 3000, &mut |_| ());
    assert!(
        outcome.different.is_empty(),
        "{}",
        outcome.different.join("\n")
    );
    assert!(outcome.equal > 2900, "{outcome:?}");
}
