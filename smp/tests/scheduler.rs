//! The scheduler on real threads: every task runs once, nobody sleeps past work, and the end is clean. Every interleaving of
//! small cases is in `loom_scheduler.rs`.
#![cfg(not(loom))]

mod threads;

use smp::platform::{Cpu, Platform};
use smp::safepoint::{CANCEL, Control, HANDSHAKE, HUNGRY, STOP};
use smp::scheduler::{Find, Scheduler, Worker};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use threads::Threads;

fn word(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn scheduler<T: smp::scheduler::Handle>(cpus: usize) -> (&'static Threads, Scheduler<T>) {
    let platform = Threads::leak(cpus);
    let controls = (0..cpus)
        .map(|_| &*Box::leak(Box::new(Control::new())))
        .collect();
    (platform, Scheduler::new(platform, controls, 1))
}

/// A safepoint, as the engine has one.
fn safepoint<T: smp::scheduler::Handle>(worker: &Worker<T>) {
    let safepoints = worker.scheduler().safepoints();
    let control = safepoints.control(worker.cpu());
    if control.is_wanted() {
        let bits = control.poll.load(Ordering::Relaxed);
        if safepoints.take(worker.cpu(), HUNGRY) != 0 {
            worker.share();
        }
        if bits & HANDSHAKE != 0 {
            worker.acknowledge();
        }
        if bits & STOP != 0 {
            worker.stop_hold();
        }
    }
}

/// Runs a worker of each core until the scheduler is closed.
fn run<T: smp::scheduler::Handle>(
    scheduler: &Scheduler<T>,
    cpus: std::ops::Range<Cpu>,
    body: impl Fn(&Worker<T>, T) + Sync,
) {
    thread::scope(|scope| {
        for cpu in cpus {
            let body = &body;
            scope.spawn(move || {
                let worker = scheduler.worker(cpu);
                loop {
                    safepoint(&worker);
                    match worker.find() {
                        Find::Task(task) => body(&worker, task),
                        Find::Empty => worker.idle(None),
                        Find::Closed => break,
                    }
                }
            });
        }
    });
}

#[test]
fn the_owner_takes_the_newest_others_the_oldest() {
    let (_, scheduler) = scheduler::<NonZeroUsize>(2);
    let (a, b) = (scheduler.worker(0), scheduler.worker(1));
    for n in 1..=3 {
        a.spawn(word(n));
    }
    scheduler.inject(word(10));
    assert_eq!(b.find(), Find::Task(word(10)), "the injector comes first");
    assert_eq!(b.find(), Find::Task(word(1)));
    assert_eq!(a.pop(), Some(word(3)));
    assert_eq!(a.find(), Find::Task(word(2)));
    assert_eq!(a.find(), Find::Empty);
    assert_eq!(a.pop(), None);
    assert!(scheduler.is_hungry());
    assert_eq!(scheduler.stats(1).steals.get(), 1);
    assert_eq!(scheduler.stats(0).spawns.get(), 3);
    scheduler.close();
    assert_eq!(a.find(), Find::Closed);
}

#[test]
fn a_core_with_work_of_its_own_still_serves_the_injector() {
    let (_, scheduler) = scheduler::<NonZeroUsize>(1);
    let worker = scheduler.worker(0);
    scheduler.inject(word(7));
    let runs = (1..1000).find(|_| {
        worker.spawn(word(1));
        worker.find() == Find::Task(word(7))
    });
    assert!(runs.is_some());
}

#[test]
fn a_core_has_one_worker_at_a_time() {
    let (_, scheduler) = scheduler::<NonZeroUsize>(1);
    drop(scheduler.worker(0));
    let _worker = scheduler.worker(0);
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scheduler.worker(0))).is_err()
    );
}

#[test]
fn tasks_that_are_left_are_dropped_with_the_scheduler() {
    let token = Arc::new(());
    let (_, scheduler) = scheduler::<Box<Arc<()>>>(2);
    let worker = scheduler.worker(0);
    worker.spawn(Box::new(token.clone()));
    scheduler.inject(Box::new(token.clone()));
    scheduler.inject_at(u64::MAX, Box::new(token.clone()));
    let other = scheduler.worker(1);
    worker.after_handshake(Box::new(token.clone()));
    assert_eq!(Arc::strong_count(&token), 5);
    drop((worker, other));
    drop(scheduler);
    assert_eq!(Arc::strong_count(&token), 1);
}

/// A tree of tasks, each of which spawns two until the depth is reached: all nodes are visited, once.
#[test]
fn a_tree_of_tasks_is_visited_whole() {
    let cpus = 4;
    let depth = if cfg!(miri) { 6 } else { 16 };
    for _ in 0..if cfg!(miri) { 1 } else { 5 } {
        let (_, scheduler) = scheduler::<NonZeroUsize>(cpus);
        let left = AtomicUsize::new((1 << depth) - 1);
        scheduler.inject(word(1));
        run(&scheduler, 0..cpus, |worker, node| {
            let child = node.get() * 2;
            if child < 1 << depth {
                worker.spawn(word(child));
                safepoint(worker);
                worker.spawn(word(child + 1));
            }
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                worker.scheduler().close();
            }
        });
        assert_eq!(left.load(Ordering::Relaxed), 0);
        let tasks: u64 = (0..cpus).map(|cpu| scheduler.stats(cpu).tasks.get()).sum();
        assert_eq!(tasks, (1 << depth) - 1);
    }
}

/// One task at a time is handed to cores that have had time to fall asleep: a lost wake-up would hang the test.
#[test]
fn sleeping_cores_are_woken_for_each_task() {
    let cpus = 3;
    let rounds = if cfg!(miri) { 20 } else { 3_000 };
    let (_, scheduler) = scheduler::<NonZeroUsize>(cpus);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            run(&scheduler, 0..cpus, |worker, task| {
                // Handed on within the scheduler three times, then done.
                match task.get() % 4 {
                    3 => _ = done.fetch_add(1, Ordering::AcqRel),
                    n if n % 2 == 0 => worker.spawn(word(task.get() + 1)),
                    _ => worker.scheduler().inject(word(task.get() + 1)),
                }
            });
        });
        for round in 0..rounds {
            scheduler.inject(word(4 * (round + 1)));
            while done.load(Ordering::Acquire) <= round {
                thread::yield_now();
            }
        }
        scheduler.close();
    });
    assert_eq!(done.load(Ordering::Relaxed), rounds);
}

/// A core that runs one long task with safepoints gives what it spawned to others, though it never looks at its deque.
#[test]
fn a_busy_core_gives_its_spawns_away() {
    let (_, scheduler) = scheduler::<NonZeroUsize>(2);
    let taken = AtomicBool::new(false);
    scheduler.inject(word(1));
    run(&scheduler, 0..2, |worker, task| {
        if task.get() == 1 {
            worker.spawn(word(2));
            while !taken.load(Ordering::Acquire) {
                safepoint(worker);
                thread::yield_now();
            }
            worker.scheduler().close();
        } else {
            taken.store(true, Ordering::Release);
        }
    });
}

#[test]
fn timers_wake_a_sleeping_core_in_order_and_not_before_their_time() {
    let (platform, scheduler) = scheduler::<NonZeroUsize>(1);
    let seen = Mutex::new(Vec::new());
    let now = platform.now();
    let millisecond = 1_000_000;
    scheduler.inject_at(now + 20 * millisecond, word(2));
    let cancelled = scheduler.inject_at(u64::MAX, word(9));
    thread::scope(|scope| {
        scope.spawn(|| {
            run(&scheduler, 0..1, |worker, task| {
                seen.lock().unwrap().push((task.get(), platform.now()));
                if task.get() == 3 {
                    worker.scheduler().close();
                }
            });
        });
        assert_eq!(scheduler.cancel_timer(cancelled), Some(word(9)));
        assert_eq!(scheduler.cancel_timer(cancelled), None);
        scheduler.inject_at(now + 40 * millisecond, word(3));
    });
    let seen = seen.into_inner().unwrap();
    let order: Vec<_> = seen.iter().map(|&(task, _)| task).collect();
    assert_eq!(order, [2, 3]);
    for ((_, at), after) in seen.iter().zip([20, 40]) {
        assert!(*at >= now + after * millisecond);
    }
}

/// One core keeps the timers; it is woken when an earlier one is added, and when it gets a task instead, another keeps them.
#[test]
fn some_sleeping_core_always_keeps_the_timers() {
    let cpus = 3;
    let (platform, scheduler) = scheduler::<NonZeroUsize>(cpus);
    let fired = AtomicUsize::new(0);
    let rounds = if cfg!(miri) { 10 } else { 300 };
    thread::scope(|scope| {
        scope.spawn(|| {
            run(&scheduler, 0..cpus, |worker, task| {
                let round = task.get() / 2;
                if task.get() % 2 == 0 {
                    fired.fetch_add(1, Ordering::AcqRel);
                }
                // Whoever got the odd one holds on to it: the timer must be another core's.
                while fired.load(Ordering::Acquire) < round {
                    safepoint(worker);
                    thread::yield_now();
                }
            });
        });
        for round in 1..=rounds {
            scheduler.inject_at(platform.now() + 200_000, word(2 * round));
            scheduler.inject(word(2 * round + 1));
            while fired.load(Ordering::Acquire) < round {
                thread::yield_now();
            }
        }
        scheduler.close();
    });
    assert_eq!(fired.load(Ordering::Relaxed), rounds);
}

#[test]
fn a_task_waits_until_every_running_core_has_answered() {
    let (_, scheduler) = scheduler::<NonZeroUsize>(3);
    let (a, b) = (scheduler.worker(0), scheduler.worker(1));
    a.after_handshake(word(1));
    assert_eq!(a.find(), Find::Empty);
    a.acknowledge();
    assert_eq!(
        a.find(),
        Find::Empty,
        "core 1 has not answered; core 2 is not there"
    );
    b.acknowledge();
    assert_eq!(a.find(), Find::Task(word(1)));
    // Going outside is an answer.
    b.after_handshake(word(2));
    b.acknowledge();
    assert_eq!(b.find(), Find::Empty);
    a.enter_outside();
    assert_eq!(b.find(), Find::Task(word(2)));
    // Alone, one answer is enough.
    b.after_handshake(word(3));
    b.acknowledge();
    assert_eq!(b.find(), Find::Task(word(3)));
}

#[test]
fn the_last_core_to_sleep_learns_that_all_is_quiet() {
    let cpus = 3;
    let (platform, scheduler) = scheduler::<NonZeroUsize>(cpus);
    let told = AtomicUsize::new(0);
    let soon = platform.now() + 10_000_000;
    scheduler.inject_at(soon, word(1));
    thread::scope(|scope| {
        for cpu in 0..cpus {
            let (scheduler, told) = (&scheduler, &told);
            scope.spawn(move || {
                let worker = scheduler.worker(cpu);
                loop {
                    match worker.find() {
                        Find::Task(_) => {}
                        Find::Empty => {
                            if worker.idle_unless_quiet(None) {
                                assert!(platform.now() >= soon, "a timer was left");
                                told.fetch_add(1, Ordering::AcqRel);
                                scheduler.close();
                            }
                        }
                        Find::Closed => break,
                    }
                }
            });
        }
    });
    assert!(told.load(Ordering::Relaxed) >= 1);
}

#[test]
fn a_posted_bit_wakes_a_sleeping_core() {
    let (_, scheduler) = scheduler::<NonZeroUsize>(1);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let worker = scheduler.worker(0);
            while scheduler.safepoints().take(0, CANCEL) == 0 {
                worker.idle(None);
            }
        });
        scheduler.safepoints().post_all(CANCEL);
        sleeper.join().unwrap();
    });
}

/// Cores that work, sleep and stop the world: while it is stopped, nobody else is in a critical section.
#[test]
fn a_stopped_world_stands_still() {
    let cpus = 4;
    let stops = if cfg!(miri) { 5 } else { 500 };
    let (_, scheduler) = scheduler::<NonZeroUsize>(cpus);
    let progress = AtomicUsize::new(0);
    let stopped = AtomicUsize::new(0);
    scheduler.inject(word(1));
    run(&scheduler, 0..cpus, |worker, task| {
        let safepoints = worker.scheduler().safepoints();
        let cpu = worker.cpu();
        match task.get() {
            // A binary tree, whose root is queued again by its last leaf, until there were enough stops.
            node @ 1..64 => {
                worker.spawn(word(node * 2));
                worker.spawn(word(node * 2 + 1));
            }
            leaf if leaf % 8 == 0 => {
                if safepoints.stop_begin(cpu) {
                    safepoints.stop_wait(cpu);
                    let before = progress.load(Ordering::Relaxed);
                    thread::yield_now();
                    assert_eq!(before, progress.load(Ordering::Relaxed));
                    stopped.fetch_add(1, Ordering::Relaxed);
                    safepoints.resume(cpu);
                } else {
                    safepoints.stop_hold(cpu);
                }
                if stopped.load(Ordering::Relaxed) >= stops {
                    worker.scheduler().close();
                } else if leaf == 64 {
                    worker.scheduler().inject(word(1));
                }
            }
            _ => {
                for _ in 0..10 {
                    progress.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    assert!(stopped.load(Ordering::Relaxed) >= stops);
}
