//! Boots of random machines, none of which may hang. `cargo test` does five; `scripts/test soak-boot` a thousand (`SOAK_BOOTS`
//! says how many), from the same seed unless `SOAK_SEED` gives another.

use tests::{boot, host, shipped};

/// A number from the environment.
fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn random_machines_boot_and_end() {
    let boots = setting("SOAK_BOOTS", 5);
    let mut random = setting("SOAK_SEED", 0x9e37_79b9_7f4a_7c15).max(1);
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) % below
    };
    let program = shipped("nqueens");
    let expected = host(2, &program, &["7"]).success();
    for number in 1..=boots {
        // Small machines more often than large ones: their cores meet more often.
        let most = [2, 4, 8, 16, 64, 255][next(6) as usize];
        let cores = (1 + next(most)).to_string();
        let span = [64, 512, 4096][next(3) as usize];
        let memory = format!("{}M", 48 + next(span));
        let processor = ["max", "qemu64"][next(2) as usize];
        let machine = ["--smp", &cores, "--mem", &memory, "--cpu", processor];
        let outcome = boot(&machine, &program, &["7"]);
        assert!(
            outcome.status == Some(0) && outcome.output == expected,
            "boot {number} of {boots}: {machine:?}: status {:?}\n{}",
            outcome.status,
            outcome.error
        );
        if number % 100 == 0 {
            println!("{number} boots");
        }
    }
}
