//! Handshakes and stops in every interleaving of small cases. Run with `--cfg loom`.
#![cfg(loom)]

mod model;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use model::{Model, check};
use smp::safepoint::{HANDSHAKE, STOP, Safepoints};
use std::sync::Arc;

fn safepoints(cpus: usize) -> &'static Safepoints {
    let (platform, controls) = Model::leak(cpus);
    Box::leak(Box::new(Safepoints::new(platform, controls)))
}

#[test]
fn after_a_handshake_what_began_before_it_is_over() {
    check(3, || {
        let safepoints = safepoints(2);
        safepoints.leave_outside(0);
        safepoints.leave_outside(1);
        // The other core looks at `closed`, and stores if it is open; as a writer does that looks at a table's mark.
        let closed = Arc::new(AtomicBool::new(false));
        let stored = Arc::new(AtomicUsize::new(0));
        let (looks_at, stores_to) = (closed.clone(), stored.clone());
        let writer = thread::spawn(move || {
            if !looks_at.load(Ordering::Relaxed) {
                stores_to.store(1, Ordering::Relaxed);
            }
            safepoints.acknowledge(1);
            if !looks_at.load(Ordering::Relaxed) {
                stores_to.store(2, Ordering::Relaxed);
            }
            safepoints.enter_outside(1);
        });
        closed.store(true, Ordering::Relaxed);
        let epoch = safepoints.request();
        safepoints.acknowledge(0);
        if safepoints.is_complete(epoch) {
            // What is there now stays: a later store is one that did not see the mark.
            let now = stored.load(Ordering::Relaxed);
            writer.join().unwrap();
            assert_eq!(stored.load(Ordering::Relaxed), now);
        } else {
            writer.join().unwrap();
            assert!(safepoints.is_complete(epoch));
        }
    });
}

#[test]
fn nobody_runs_while_the_world_is_stopped() {
    check(3, || {
        let safepoints = safepoints(2);
        safepoints.leave_outside(0);
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = stopped.clone();
        let runs = thread::spawn(move || {
            safepoints.leave_outside(1);
            assert!(!seen.load(Ordering::Relaxed));
            if safepoints.control(1).poll.load(Ordering::Relaxed) & STOP != 0 {
                safepoints.stop_hold(1);
                assert!(!seen.load(Ordering::Relaxed));
            }
            safepoints.enter_outside(1);
        });
        assert!(safepoints.stop_begin(0));
        safepoints.stop_wait(0);
        stopped.store(true, Ordering::Relaxed);
        stopped.store(false, Ordering::Relaxed);
        safepoints.resume(0);
        runs.join().unwrap();
    });
}

#[test]
fn who_was_held_runs_before_the_next_stop() {
    check(3, || {
        let safepoints = safepoints(2);
        safepoints.leave_outside(0);
        safepoints.leave_outside(1);
        let arrives = Arc::new(AtomicBool::new(false));
        let ran = Arc::new(AtomicBool::new(false));
        let (tells, runs) = (arrives.clone(), ran.clone());
        let held = thread::spawn(move || {
            if safepoints.control(1).poll.load(Ordering::Relaxed) & STOP != 0 {
                tells.store(true, Ordering::Relaxed);
                safepoints.stop_hold(1);
                runs.store(true, Ordering::Relaxed);
            }
            safepoints.enter_outside(1);
        });
        assert!(safepoints.stop_begin(0));
        safepoints.stop_wait(0);
        let was_held = arrives.load(Ordering::Relaxed);
        safepoints.resume(0);
        assert!(safepoints.stop_begin(0));
        safepoints.stop_wait(0);
        assert!(!was_held || ran.load(Ordering::Relaxed));
        safepoints.resume(0);
        held.join().unwrap();
    });
}

#[test]
fn of_two_that_stop_the_world_each_has_its_turn() {
    check(2, || {
        let safepoints = safepoints(2);
        safepoints.leave_outside(0);
        safepoints.leave_outside(1);
        let alone = Arc::new(AtomicBool::new(false));
        let turn = |cpu: usize, alone: Arc<AtomicBool>| {
            while !safepoints.stop_begin(cpu) {
                safepoints.stop_hold(cpu);
            }
            safepoints.stop_wait(cpu);
            assert!(!alone.swap(true, Ordering::Relaxed));
            alone.store(false, Ordering::Relaxed);
            safepoints.resume(cpu);
            safepoints.enter_outside(cpu);
        };
        let other = alone.clone();
        let second = thread::spawn(move || turn(1, other));
        turn(0, alone);
        second.join().unwrap();
    });
}

#[test]
fn a_handshake_is_asked_of_everybody() {
    check(3, || {
        let safepoints = safepoints(2);
        safepoints.leave_outside(0);
        safepoints.leave_outside(1);
        let asks = thread::spawn(move || safepoints.request());
        let epoch = safepoints.request();
        let other = asks.join().unwrap();
        for cpu in 0..2 {
            let poll = &safepoints.control(cpu).poll;
            assert_ne!(poll.load(Ordering::Relaxed) & HANDSHAKE, 0);
            safepoints.acknowledge(cpu);
            assert_eq!(poll.load(Ordering::Relaxed) & HANDSHAKE, 0);
        }
        assert!(safepoints.is_complete(epoch.max(other)));
    });
}

/// A core answers a request just when the next one is made: it answers that one as well, or is asked again.
#[test]
fn a_request_beside_an_answer_is_answered_or_asked() {
    check(3, || {
        let safepoints = safepoints(2);
        safepoints.leave_outside(0);
        safepoints.leave_outside(1);
        safepoints.request();
        let answers = thread::spawn(move || safepoints.acknowledge(1));
        let epoch = safepoints.request();
        answers.join().unwrap();
        safepoints.acknowledge(0);
        let asked = safepoints.control(1).poll.load(Ordering::Relaxed) & HANDSHAKE != 0;
        assert!(asked || safepoints.is_complete(epoch));
    });
}
