//! How cores sleep, are woken, find that nothing can happen any more, and release tasks that wait for handshakes: small cases, in every
//! interleaving. Run with `--cfg loom`.
#![cfg(loom)]

mod model;

use loom::thread;
use model::{Model, NOW, check, word};
use smp::safepoint::{HUNGRY, INPUT};
use smp::scheduler::{Find, Rest, Scheduler, Worker};
use std::num::NonZeroUsize;

type Task = NonZeroUsize;

fn scheduler(cpus: usize) -> &'static Scheduler<Task> {
    let (platform, controls) = Model::leak(cpus);
    Box::leak(Box::new(Scheduler::new(platform, controls, 1)))
}

/// What a core does that only runs tasks: sleeps until it has got one.
fn run_one(worker: &Worker<'static, Task>) -> Task {
    loop {
        match worker.find() {
            Find::Task(task) => return task,
            Find::Empty => worker.idle(None),
            Find::Closed => unreachable!("nobody closes it"),
        }
    }
}

#[test]
fn a_task_that_is_injected_wakes_a_core_that_falls_asleep() {
    check(3, || {
        let scheduler = scheduler(1);
        let runs = thread::spawn(move || {
            let worker = scheduler.worker(0);
            let task = run_one(&worker);
            std::mem::forget(worker);
            task
        });
        scheduler.inject(word(1));
        // A lost wake-up leaves the core parked for ever, which loom reports.
        assert_eq!(runs.join().unwrap(), word(1));
    });
}

#[test]
fn a_task_that_a_busy_core_spawns_wakes_a_core_that_falls_asleep() {
    check(2, || {
        let scheduler = scheduler(2);
        let sleeper = thread::spawn(move || {
            let worker = scheduler.worker(1);
            let task = run_one(&worker);
            std::mem::forget(worker);
            task
        });
        let busy = scheduler.worker(0);
        busy.spawn(word(1));
        // The next safepoints: this core never gives up its task otherwise.
        let safepoints = scheduler.safepoints();
        while !busy.is_empty() {
            if safepoints.take(0, HUNGRY) != 0 {
                busy.share();
            }
            loom::thread::yield_now();
        }
        assert_eq!(sleeper.join().unwrap(), word(1));
        std::mem::forget(busy);
    });
}

#[test]
fn a_timer_that_is_taken_is_not_quiet() {
    check(3, || {
        let scheduler = scheduler(2);
        let keeper = scheduler.worker(0);
        let worker = scheduler.worker(1);
        scheduler.inject_at(NOW - 1, word(1));
        assert_ne!(keeper.fall_asleep(None, false), Rest::Quiet);
        let runs = thread::spawn(move || {
            keeper.rise();
            assert_eq!(keeper.find(), Find::Task(word(1)));
            // The task runs on: while it does, anything may happen yet.
            std::mem::forget(keeper);
        });
        assert_ne!(worker.fall_asleep(None, true), Rest::Quiet);
        runs.join().unwrap();
        std::mem::forget(worker);
    });
}

#[test]
fn a_task_whose_handshake_is_completed_by_falling_asleep_is_not_quiet() {
    check(3, || {
        let scheduler = scheduler(2);
        let first = scheduler.worker(0);
        let second = scheduler.worker(1);
        first.after_handshake(word(1));
        let sleeps = thread::spawn(move || {
            assert_ne!(first.fall_asleep(None, true), Rest::Quiet);
            std::mem::forget(first);
        });
        assert_ne!(second.fall_asleep(None, true), Rest::Quiet);
        sleeps.join().unwrap();
        assert!(scheduler.has_injected());
        std::mem::forget(second);
    });
}

#[test]
fn two_cores_without_work_find_that_all_is_quiet() {
    check(3, || {
        let scheduler = scheduler(2);
        let first = scheduler.worker(0);
        let second = scheduler.worker(1);
        let sleeps = thread::spawn(move || {
            let rest = first.fall_asleep(None, true);
            std::mem::forget(first);
            rest
        });
        let rest = second.fall_asleep(None, true);
        let other = sleeps.join().unwrap();
        assert!(rest == Rest::Quiet || other == Rest::Quiet);
        std::mem::forget(second);
    });
}

#[test]
fn a_core_that_comes_back_from_outside_releases_who_waits_for_it() {
    check(3, || {
        let scheduler = scheduler(2);
        let asks = scheduler.worker(0);
        let outside = scheduler.worker(1);
        outside.enter_outside();
        let returns = thread::spawn(move || {
            outside.leave_outside();
            // It runs on and passes no safepoint: it has just answered.
            std::mem::forget(outside);
        });
        asks.after_handshake(word(1));
        asks.acknowledge();
        returns.join().unwrap();
        // Whoever came last released it, unless the core came back before the request, and has yet to answer.
        let asked = scheduler.safepoints().control(1).is_wanted();
        assert!(asked || scheduler.has_injected());
        std::mem::forget(asks);
    });
}

#[test]
fn a_core_that_was_stopped_releases_who_waits_for_it() {
    check(2, || {
        let scheduler = scheduler(2);
        let stops = scheduler.worker(0);
        let held = scheduler.worker(1);
        let holds = thread::spawn(move || {
            held.stop_hold();
            std::mem::forget(held);
        });
        let safepoints = scheduler.safepoints();
        assert!(safepoints.stop_begin(0));
        stops.after_handshake(word(1));
        safepoints.resume(0);
        stops.acknowledge();
        holds.join().unwrap();
        let asked = safepoints
            .control(1)
            .poll
            .load(loom::sync::atomic::Ordering::Relaxed)
            & smp::safepoint::HANDSHAKE;
        assert!(asked != 0 || scheduler.has_injected());
        std::mem::forget(stops);
    });
}

/// The sleeper has not looked for work before, so nobody knows of its hunger but by its falling asleep.
#[test]
fn a_task_that_a_busy_core_spawns_wakes_a_core_that_falls_asleep_at_once() {
    check(2, || {
        let scheduler = scheduler(2);
        let sleeper = scheduler.worker(1);
        let busy = scheduler.worker(0);
        let sleeps = thread::spawn(move || {
            sleeper.idle(None);
            let task = run_one(&sleeper);
            std::mem::forget(sleeper);
            task
        });
        busy.spawn(word(1));
        let safepoints = scheduler.safepoints();
        while !busy.is_empty() {
            if safepoints.take(0, HUNGRY) != 0 {
                busy.share();
            }
            loom::thread::yield_now();
        }
        assert_eq!(sleeps.join().unwrap(), word(1));
        std::mem::forget(busy);
    });
}

/// The busy core spawns, and then compiles for as long as it takes.
#[test]
fn what_a_core_leaves_in_its_deque_when_it_goes_outside_is_taken() {
    check(2, || {
        let scheduler = scheduler(2);
        let sleeper = scheduler.worker(1);
        let busy = scheduler.worker(0);
        let sleeps = thread::spawn(move || {
            sleeper.idle(None);
            let task = run_one(&sleeper);
            std::mem::forget(sleeper);
            task
        });
        busy.spawn(word(1));
        busy.enter_outside();
        assert_eq!(sleeps.join().unwrap(), word(1));
        std::mem::forget(busy);
    });
}

/// Each of two cores runs one task and no more: whoever is woken for the first of two sees to it that the other core comes for the second.
#[test]
fn two_tasks_bring_two_cores() {
    check(1, || {
        let scheduler = scheduler(2);
        let cores: [_; 2] = std::array::from_fn(|cpu| {
            let worker = scheduler.worker(cpu);
            thread::spawn(move || {
                let task = run_one(&worker);
                std::mem::forget(worker);
                task.get()
            })
        });
        scheduler.inject(word(1));
        scheduler.inject(word(2));
        let sum: usize = cores.into_iter().map(|core| core.join().unwrap()).sum();
        assert_eq!(sum, 3);
    });
}

/// A core keeps the timers, asleep until the earliest, which is far away, when one is added that is due.
#[test]
fn an_earlier_timer_wakes_who_keeps_the_timers() {
    check(3, || {
        let scheduler = scheduler(1);
        scheduler.inject_at(NOW + 100, word(9));
        let keeper = scheduler.worker(0);
        let runs = thread::spawn(move || {
            let task = run_one(&keeper);
            std::mem::forget(keeper);
            task
        });
        scheduler.inject_at(NOW - 1, word(1));
        assert_eq!(runs.join().unwrap(), word(1));
    });
}

/// Who kept the timers runs a task that never ends, and the other core sleeps without limit, when a timer is added.
#[test]
fn a_timer_that_nobody_keeps_wakes_a_core() {
    check(3, || {
        let scheduler = scheduler(2);
        let former = scheduler.worker(0);
        let other = scheduler.worker(1);
        assert_ne!(former.fall_asleep(None, false), Rest::Quiet);
        let Rest::Until(limit) = other.fall_asleep(None, false) else {
            panic!("there is nothing to do");
        };
        let runs = thread::spawn(move || {
            other.park(limit);
            other.rise();
            let task = run_one(&other);
            std::mem::forget(other);
            task
        });
        former.rise();
        former.spawn(word(2));
        assert_eq!(former.find(), Find::Task(word(2)));
        scheduler.inject_at(NOW - 1, word(1));
        assert_eq!(runs.join().unwrap(), word(1));
        std::mem::forget(former);
    });
}

/// What concerns a core in its sleep, told while it falls asleep, keeps it awake or wakes it.
#[test]
fn what_is_posted_to_a_core_that_falls_asleep_is_seen_to() {
    check(3, || {
        let scheduler = scheduler(1);
        let worker = scheduler.worker(0);
        let sees = thread::spawn(move || {
            let safepoints = worker.scheduler().safepoints();
            while safepoints.take(0, INPUT) == 0 {
                worker.idle(None);
            }
            std::mem::forget(worker);
        });
        scheduler.safepoints().post(0, INPUT);
        sees.join().unwrap();
    });
}

/// A core that rose by itself, and runs a task that never ends, is not chosen in place of one that sleeps.
#[test]
fn a_core_that_rose_by_itself_is_not_woken_again() {
    check(3, || {
        let scheduler = scheduler(2);
        let busy = scheduler.worker(0);
        let sleeper = scheduler.worker(1);
        assert_ne!(busy.fall_asleep(None, false), Rest::Quiet);
        busy.rise();
        busy.spawn(word(9));
        assert_eq!(busy.find(), Find::Task(word(9)));
        let sleeps = thread::spawn(move || {
            let task = run_one(&sleeper);
            std::mem::forget(sleeper);
            task
        });
        scheduler.inject(word(1));
        assert_eq!(sleeps.join().unwrap(), word(1));
        std::mem::forget(busy);
    });
}

/// A core that sleeps is brought a task by a device, sets a timer in it and sleeps again, while another looks whether all is quiet: between two of its looks what there is may have
/// gone from a place that it has yet to look at to one that it has looked at.
#[test]
fn what_moves_while_a_core_looks_is_not_quiet() {
    check(3, || {
        let scheduler = scheduler(2);
        let looks = scheduler.worker(0);
        let runs = scheduler.worker(1);
        assert_ne!(runs.fall_asleep(None, false), Rest::Quiet);
        let brought = loom::sync::Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let brings = brought.clone();
        let other = thread::spawn(move || {
            scheduler.inject(word(1));
            brings.store(true, loom::sync::atomic::Ordering::Release);
            // By itself: the device may have woken the other.
            runs.rise();
            if let Find::Task(_) = runs.find() {
                scheduler.inject_at(NOW + 100, word(2));
            }
            assert_ne!(runs.fall_asleep(None, false), Rest::Quiet);
            std::mem::forget(runs);
        });
        let before = brought.load(loom::sync::atomic::Ordering::Acquire);
        let rest = looks.fall_asleep(None, true);
        assert!(!before || rest != Rest::Quiet);
        std::mem::forget(looks);
        other.join().unwrap();
    });
}
