//! The bit set and the lock under loom.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p sync --release --test 'loom_*'`
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use sync::atomic::{AtomicUsize, Ordering, full_fence};
use sync::bit_set::BitSet;
use sync::lock::Lock;

#[test]
fn one_of_remove_and_take_gets_a_member() {
    loom::model(|| {
        let set = Arc::new(BitSet::new(2));
        set.insert(0);
        set.insert(1);
        let taker = {
            let set = set.clone();
            thread::spawn(move || set.take(0))
        };
        let removed = set.remove(0);
        let taken = taker.join().unwrap();
        match (removed, taken) {
            (true, Some(1)) => assert!(set.is_empty()),
            (false, Some(0)) => assert!(set.contains(1)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn two_takers_get_different_members() {
    loom::model(|| {
        let set = Arc::new(BitSet::new(2));
        set.insert(0);
        set.insert(1);
        let taker = {
            let set = set.clone();
            thread::spawn(move || set.take(1))
        };
        let mine = set.take(0).unwrap();
        assert_ne!(mine, taker.join().unwrap().unwrap());
        assert!(set.is_empty());
    });
}

#[test]
fn who_removes_a_member_sees_what_was_written_before_it_was_inserted() {
    loom::model(|| {
        let shared = Arc::new((BitSet::new(1), UnsafeCell::new(0)));
        let inserter = {
            let shared = shared.clone();
            thread::spawn(move || {
                // SAFETY: the member is not in the set yet; loom checks.
                shared.1.with_mut(|cell| unsafe { *cell = 1 });
                shared.0.insert(0);
            })
        };
        if shared.0.take(0).is_some() {
            // SAFETY: the member was taken once; loom checks.
            shared.1.with(|cell| assert_eq!(unsafe { *cell }, 1));
        }
        inserter.join().unwrap();
    });
}

#[test]
fn an_insertion_and_an_announcement_with_fences_do_not_miss_each_other() {
    loom::model(|| {
        let shared = Arc::new((BitSet::new(1), AtomicUsize::new(0)));
        let sleeper = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.0.insert(0);
                full_fence();
                shared.1.load(Ordering::Relaxed) != 0
            })
        };
        shared.1.store(1, Ordering::Relaxed);
        full_fence();
        let taken = shared.0.take(0).is_some();
        assert!(sleeper.join().unwrap() || taken);
    });
}

#[test]
fn the_lock_excludes() {
    loom::model(|| {
        let lock = Arc::new(Lock::new(0));
        let other = {
            let lock = lock.clone();
            thread::spawn(move || *lock.lock() += 1)
        };
        *lock.lock() += 1;
        other.join().unwrap();
        assert_eq!(*lock.lock(), 2);
    });
}
