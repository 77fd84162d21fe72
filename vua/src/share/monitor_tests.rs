//! Steps of several cores at one monitor, in the order that each test says.

use super::*;
use crate::engine::{Engine, Options};
use crate::heap::testing::Memory;

fn engine() -> &'static Engine {
    Engine::new(Memory::platform(64 << 20), Options::default()).unwrap()
}

/// A task that would call `print`.
fn task(engine: &'static Engine, local: &LocalHeap) -> Gc<Task> {
    let name = engine.heap().intern(local, b"print").unwrap().value();
    let function = engine.globals().as_table().unwrap().get(name);
    Task::new(local, engine.first(), function, &[], None).unwrap()
}

/// The task is suspended until it has what it wants.
fn suspend(engine: &Engine, monitor: Gc<Monitor>, task: Gc<Task>, want: Want) {
    task.fields()
        .wait
        .set(Some(WaitFor::Monitor(monitor, want)));
    task.arm();
    assert!(monitor.enter(engine, task, want));
    assert!(task.settle());
}

fn take(monitor: Gc<Monitor>, task: Gc<Task>, want: Want) -> bool {
    let locked = SpinLocked::new(monitor.header());
    monitor.take(task, want, &locked)
}

/// A writer that waits keeps readers out. It was cancelled, and its core has begun to end its wait, when the last reader leaves and takes it off the list: whoever does that
/// counts it out, and must know that it is a writer from what the lock guards, not from what the writer's core is changing.
#[test]
fn a_writer_that_is_cancelled_while_the_last_reader_leaves_keeps_nobody_out() {
    let engine = engine();
    let local = LocalHeap::new(engine.heap(), 1);
    let lock = Monitor::new(&local, RWLOCK).unwrap();
    let (reader, writer) = (task(engine, &local), task(engine, &local));
    assert!(take(lock, reader, Want::Read));
    suspend(engine, lock, writer, Want::Hold);
    assert!(!take(lock, reader, Want::Read));

    assert!(writer.claim(Woken::Cancel));
    assert!(writer.fields().wait.take().is_some());
    lock.give_back(engine, true);
    lock.leave(engine, writer, Want::Hold);

    assert!(take(lock, reader, Want::Read));
}

/// The same, the writer being faster.
#[test]
fn a_writer_that_is_cancelled_before_the_last_reader_leaves_keeps_nobody_out() {
    let engine = engine();
    let local = LocalHeap::new(engine.heap(), 1);
    let lock = Monitor::new(&local, RWLOCK).unwrap();
    let (reader, writer) = (task(engine, &local), task(engine, &local));
    assert!(take(lock, reader, Want::Read));
    suspend(engine, lock, writer, Want::Hold);
    let waits = task(engine, &local);
    suspend(engine, lock, waits, Want::Read);

    assert!(writer.claim(Woken::Cancel));
    lock.leave(engine, writer, Want::Hold);
    // The reader that waited behind it was woken.
    assert!(!waits.is_suspended());
    assert!(take(lock, waits, Want::Read));
    lock.give_back(engine, true);
    lock.give_back(engine, true);
    assert!(take(lock, reader, Want::Hold));
}

/// A task that gave a condition's mutex up to wait, and could not, has it again.
#[test]
fn who_cannot_wait_for_a_signal_holds_the_mutex() {
    let engine = engine();
    let local = LocalHeap::new(engine.heap(), 1);
    let mutex = Monitor::new(&local, MUTEX).unwrap();
    let condition = Monitor::new(&local, CONDITION).unwrap();
    condition.fields().mutex.set(mutex.as_ptr());
    let task = task(engine, &local);
    assert!(take(mutex, task, Want::Hold));
    note_held(task, mutex, false);
    assert!(note_free(task, mutex, false));
    condition.hold_on(task);
    assert_eq!(task.fields().locks.get(), 1);
    assert!(note_free(task, mutex, false));
}
