//! The machine's test of itself, under the command line word `selftest`: every core takes part, and the exit status is 0 or
//! the number of checks that failed, which the log names.

use crate::{
    console,
    cpu::{features, local, park, timer},
    files, info,
    memory::{self, space},
    platform::MACHINE,
    time, warn,
};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use smp::platform::{Platform, Stream};

static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Checks a condition; a failure is logged and counted.
macro_rules! check {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            FAILED.fetch_add(1, Ordering::Relaxed);
            warn!("selftest failed at line {}: {}", line!(), format_args!($($text)*));
        }
    };
}

/// Runs core `cpu`'s part; the status, on every core.
pub(crate) fn run(cpu: usize) -> i32 {
    let cores = MACHINE.cpus();
    if cpu == 0 {
        permissions();
        map_and_unmap();
        kernel_heap();
        heartbeats();
        deadlines();
        written_files();
        output();
    }
    if let Err(name) = features::check_protections() {
        check!(false, "core {cpu} runs without {name}");
    }
    barrier(0);
    map_on_all_cores(cpu);
    barrier(1);
    token_ring(cpu, cores);
    barrier(2);
    // Whoever has come here wakes nobody any more, until core 0 does: counts of halts and interrupts are then still.
    static IDLE: AtomicUsize = AtomicUsize::new(0);
    if cpu == 0 {
        while IDLE.load(Ordering::Acquire) < cores - 1 {
            core::hint::spin_loop();
        }
        halted_core_needs_one_interrupt(cores);
        halted_cores_do_not_tick(cores);
        DONE.store(true, Ordering::Release);
        (1..cores).for_each(|other| MACHINE.unpark(other));
    } else {
        IDLE.fetch_add(1, Ordering::AcqRel);
        while !DONE.load(Ordering::Acquire) {
            MACHINE.park(cpu, None);
        }
    }
    let failed = FAILED.load(Ordering::Acquire);
    if cpu == 0 {
        info!(
            "selftest: {} on {cores} cores",
            if failed == 0 { "passed" } else { "FAILED" }
        );
    }
    failed.min(63) as i32
}

static DONE: AtomicBool = AtomicBool::new(false);

/// Waits until all cores have come here, parked meanwhile. `step` counts the barriers from 0.
fn barrier(step: usize) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let cores = MACHINE.cpus();
    let this = local::current().index();
    let goal = (step + 1) * cores;
    if COUNT.fetch_add(1, Ordering::AcqRel) + 1 == goal {
        (0..cores)
            .filter(|&other| other != this)
            .for_each(|other| MACHINE.unpark(other));
    }
    while COUNT.load(Ordering::Acquire) < goal {
        MACHINE.park(this, None);
    }
}

fn permissions() {
    match space::check_permissions() {
        Ok(pages) => info!("selftest: {pages} pages, none writable and executable"),
        Err(address) => check!(
            false,
            "page at {address:#x} has rights that it should not have"
        ),
    }
}

fn map_and_unmap() {
    const MIB: usize = 1 << 20;
    let (before, _) = space::memory_bytes();
    let mut held = Vec::new();
    for (bytes, align) in [
        (64 << 10, 64 << 10),
        (MIB, MIB),
        (6 * MIB, 4 * MIB),
        (192 << 10, 128 << 10),
    ] {
        let Some(start) = MACHINE.map(bytes, align) else {
            check!(false, "no {bytes} bytes of memory");
            continue;
        };
        let address = start.as_ptr().addr();
        check!(
            address % align == 0 && address + bytes <= 1 << 47 && address >= 64 << 10,
            "{address:#x}"
        );
        // SAFETY: just mapped, for us alone.
        let words =
            unsafe { core::slice::from_raw_parts_mut(start.as_ptr().cast::<u64>(), bytes / 8) };
        check!(
            words.iter().all(|&word| word == 0),
            "memory at {address:#x} is not zeroed"
        );
        words.fill(u64::MAX);
        held.push((start, bytes));
    }
    let large = held
        .iter()
        .find(|&&(_, bytes)| bytes == 6 * MIB)
        .map(|&(start, _)| start.as_ptr().addr() as u64);
    let page = large
        .and_then(|address| space::space().translate(memory::direct::offset(), address))
        .map(|leaf| leaf.page);
    check!(
        page == Some(2 << 20),
        "a large range is not in large pages: {page:?}"
    );
    for (start, bytes) in held {
        // SAFETY: mapped above, used no more.
        unsafe { MACHINE.unmap(start, bytes) };
    }
    let (after, _) = space::memory_bytes();
    // Page tables stay.
    check!(
        before - after <= 256 << 10,
        "{} KiB lost by mapping and unmapping",
        (before - after) >> 10
    );
    check!(
        MACHINE.map(1 << 46, 64 << 10).is_none(),
        "64 TiB of memory from nowhere"
    );
}

/// All cores map, fill and unmap until addresses must have been flushed and used again.
fn map_on_all_cores(cpu: usize) {
    const BYTES: usize = 256 << 10;
    let rounds = if cpu == 0 { 400 } else { 40 };
    for round in 0..rounds {
        let Some(start) = MACHINE.map(BYTES, 64 << 10) else {
            // On a machine with little memory for its cores others may hold it all.
            continue;
        };
        let mark = ((cpu as u64) << 32) | round;
        // SAFETY: just mapped, for us alone.
        let words =
            unsafe { core::slice::from_raw_parts_mut(start.as_ptr().cast::<u64>(), BYTES / 8) };
        check!(
            words[0] == 0 && words[words.len() - 1] == 0,
            "memory is not zeroed"
        );
        words.fill(mark);
        let read = |index: usize| core::hint::black_box(&*words)[index];
        check!(
            read(0) == mark && read(BYTES / 8 - 1) == mark,
            "memory is shared with another core"
        );
        // SAFETY: mapped above, used no more.
        unsafe { MACHINE.unmap(start, BYTES) };
    }
    if cpu == 0 {
        info!(
            "selftest: memory mapped and unmapped by all cores, {} flushes",
            memory::vua::flushes()
        );
    }
}

fn kernel_heap() {
    let mut vectors: Vec<Vec<u32>> = Vec::new();
    for size in 0..200u32 {
        vectors.push((0..size * 13).collect());
    }
    let big: Vec<u8> = alloc::vec![7; 3 << 20];
    check!(
        big.iter().all(|&byte| byte == 7),
        "the kernel heap does not keep what is stored"
    );
    for (size, vector) in vectors.iter().enumerate() {
        check!(
            vector.iter().copied().eq(0..size as u32 * 13),
            "the kernel heap's blocks overlap"
        );
    }
}

fn heartbeats() {
    static BEATS: AtomicUsize = AtomicUsize::new(0);
    timer::on_heartbeat(|_| {
        BEATS.fetch_add(1, Ordering::Relaxed);
    });
    let start = time::now();
    for beat in 1..=5 {
        MACHINE.heartbeat(0, 200_000);
        // Waits for ever if none comes: the caller's time limit says so.
        while BEATS.load(Ordering::Relaxed) < beat {
            core::hint::spin_loop();
        }
    }
    let elapsed = time::now() - start;
    check!(
        elapsed >= 5 * 200_000,
        "five heartbeats of 200 us in {} us",
        elapsed / 1000
    );
    check!(
        BEATS.load(Ordering::Relaxed) == 5,
        "more heartbeats than were asked for"
    );
    info!("selftest: 5 heartbeats of 200 us in {} us", elapsed / 1000);
}

fn deadlines() {
    let start = time::now();
    let deadline = start + 2_000_000;
    // `park` may return early for no reason.
    while time::now() < deadline {
        MACHINE.park(0, Some(deadline));
    }
    let late = time::now() - deadline;
    MACHINE.unpark(0);
    MACHINE.park(0, None);
    MACHINE.park(0, Some(start));
    info!("selftest: woke {} us after a deadline", late / 1000);
}

fn written_files() {
    check!(
        files::write("selftest/hello.txt", b"hello\n").is_ok(),
        "a file cannot be written"
    );
    let mut content = Vec::new();
    let read = files::read("selftest/hello.txt", &mut |bytes| {
        content.extend_from_slice(bytes)
    });
    check!(
        read.is_ok() && content == b"hello\n",
        "a file does not read as written"
    );
}

/// Prints a megabyte and logs how long that took.
fn output() {
    const LINE: &[u8; 64] = b"the quick brown fox jumps over the lazy dog 0123456789 ABCDEFGH\n";
    let block = LINE.repeat(64);
    let start = time::now();
    for _ in 0..(1 << 20) / block.len() {
        MACHINE.write(Stream::Output, &block);
    }
    let milliseconds = (time::now() - start) / 1_000_000;
    info!("selftest: a megabyte of output in {milliseconds} ms");
}

/// A token goes round all cores: each waits parked for its turn and wakes the next.
fn token_ring(cpu: usize, cores: usize) {
    static TURN: AtomicU64 = AtomicU64::new(0);
    static LATEST: AtomicU64 = AtomicU64::new(0);
    if cores == 1 {
        return;
    }
    let laps = 20u64;
    let start = time::now();
    for lap in 0..laps {
        let mine = lap * cores as u64 + cpu as u64;
        while TURN.load(Ordering::Acquire) != mine {
            MACHINE.park(cpu, None);
        }
        // Clocks agree: no core's is behind what another has seen.
        let now = time::now();
        let latest = LATEST.swap(now, Ordering::AcqRel);
        check!(
            now >= latest,
            "core {cpu}'s clock is {} ns behind",
            latest - now
        );
        TURN.store(mine + 1, Ordering::Release);
        MACHINE.unpark((cpu + 1) % cores);
    }
    if cpu == 0 {
        let microseconds = (time::now() - start) / 1000;
        info!(
            "selftest: {} wake-ups in {microseconds} us",
            laps * cores as u64
        );
    }
}

/// A core that nobody needs takes no interrupt, and no timer's. (The first two have the watchdog's timer.)
fn halted_cores_do_not_tick(cores: usize) {
    if cores < 3 {
        return;
    }
    let events = || {
        let counters = &local::all()[2].counters;
        let ticks = counters.ticks.load(Ordering::Relaxed);
        (ticks, counters.halts.load(Ordering::Relaxed))
    };
    while !park::is_halted(2) {
        core::hint::spin_loop();
    }
    let before = events();
    let deadline = time::now() + 30_000_000;
    while time::now() < deadline {
        MACHINE.park(0, Some(deadline));
    }
    let after = events();
    check!(
        before == after,
        "a halted core went from {before:?} to {after:?} ticks and halts"
    );
}

/// A core that halts is woken by exactly one interrupt; a core that has its token already, by none.
fn halted_core_needs_one_interrupt(cores: usize) {
    if cores == 1 {
        return;
    }
    let counters = &local::current().counters;
    let target = &local::all()[1].counters;
    // The other core parks in its last loop: wait until it is halted (a time limit outside says if it never is).
    let halted = || park::is_halted(1);
    while !halted() {
        core::hint::spin_loop();
    }
    let (sent, halts) = (
        counters.wakes_sent.load(Ordering::Relaxed),
        target.halts.load(Ordering::Relaxed),
    );
    MACHINE.unpark(1);
    // It returns, finds no reason to leave its loop, and halts again.
    while target.halts.load(Ordering::Relaxed) == halts || !halted() {
        core::hint::spin_loop();
    }
    check!(
        counters.wakes_sent.load(Ordering::Relaxed) == sent + 1,
        "a halted core took more than one interrupt"
    );
    let before = counters.wakes_sent.load(Ordering::Relaxed);
    MACHINE.unpark(0);
    MACHINE.unpark(0);
    check!(
        counters.wakes_sent.load(Ordering::Relaxed) == before,
        "a running core was interrupted"
    );
    MACHINE.park(0, None);
    console::write_error(b"");
}
