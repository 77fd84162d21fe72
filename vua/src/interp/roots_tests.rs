//! Collections that meet other stops of the world.

extern crate std;

use core::sync::atomic::{AtomicBool, Ordering};

use crate::engine::{Engine, Options};
use crate::heap::testing::Memory;

/// A core that wants a collection while another one stops the world for something else collects after that: it has been promised the memory of what is
/// garbage by now, and takes it for the end of all memory if nothing has become free.
#[test]
fn a_collection_that_another_stop_forestalls_is_made_after_it() {
    let engine = Engine::new(Memory::platform(64 << 20), Options::default()).unwrap();
    let safepoints = engine.scheduler().safepoints();
    let (runs, stops) = (AtomicBool::new(false), AtomicBool::new(false));
    let wait_for = |flag: &AtomicBool| {
        while !flag.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let worker = engine.scheduler().worker(0);
            // SAFETY: this core's worker is taken, so nobody else uses its machine; only its control is known to others.
            let core = unsafe { &mut (*engine.machine(0)).core };
            core.set_worker(worker);
            runs.store(true, Ordering::Release);
            wait_for(&stops);
            core.collect();
            let collections = engine.heap().collections();
            core.drop_worker();
            collections
        });
        let other = engine.scheduler().worker(1);
        wait_for(&runs);
        assert!(safepoints.stop_begin(1));
        stops.store(true, Ordering::Release);
        safepoints.stop_wait(1);
        assert_eq!(engine.heap().collections(), 0);
        safepoints.resume(1);
        drop(other);
        assert_eq!(collector.join().unwrap(), 1);
    });
}
