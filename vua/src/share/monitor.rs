//! What tasks wait at: mutexes, read-write locks, semaphores, conditions, barriers.
//!
//! Each is an object whose state changes under the lock byte in its header, for a few instructions and past no safepoint, so a core never waits for a task. A task that cannot go
//! on is suspended, and puts itself on the object's list when its state is saved; under the same lock it looks once more whether it must.
//!
//! *Nobody is handed anything.* Whoever gives a lock or a permit back makes it free and wakes the task that has waited longest, which tries again. A task that comes
//! meanwhile may be faster; the other then goes on waiting, at the end of the list. So a busy lock does not cost a suspension each time it changes hands.
//! No wake-up is lost: a task that was woken tries before anything else, and if it fails, then because another has what it wants and will wake the next.
//! Barriers and conditions differ: what ends these waits is that they were woken.
//!
//! Permits of a semaphore need not be given back by who took them, and tasks want more or fewer. So whoever releases some wakes all tasks, the longest waiting first, that the
//! permits which are left suffice for; and a task that was woken, fails and waits again does so too, for it may have been woken in place of one that wants fewer.
//!
//! *Who holds what* is known: a task has a list of the objects it holds, so that a task that ends gives them back, which is an error if it ended by itself.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ptr::{NonNull, null_mut};

use super::sort_of;
use crate::engine::Engine;
use crate::heap::{Header, Kind, LocalHeap, NeedMemory, flags};
use crate::interp::Core;
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::object::{Gc, Object};
use crate::race::Part;
use crate::task::join::deadline;
use crate::task::suspend::Claim;
use crate::task::{SpinLocked, State, Task, WaitFor, WaitList, Woken};
use crate::value::{Tag, Value};

/// Which of them an object is: [`Header::extra`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Sort {
    /// One task at a time.
    Mutex = 1,
    /// One task that writes, or any number that read.
    RwLock = 2,
    /// So many permits.
    Semaphore = 3,
    /// Tasks that wait for a signal, having given a mutex up meanwhile.
    Condition = 4,
    /// Tasks that wait for one another.
    Barrier = 5,
}

const MUTEX: u8 = Sort::Mutex as u8;
const RWLOCK: u8 = Sort::RwLock as u8;
const SEMAPHORE: u8 = Sort::Semaphore as u8;
const CONDITION: u8 = Sort::Condition as u8;
const BARRIER: u8 = Sort::Barrier as u8;

/// What a task wants of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// To hold it alone.
    Hold,
    /// To hold it with others that read.
    Read,
    /// So many permits.
    Permits(i64),
    /// A signal, until this moment; the mutex is given back.
    Signal(Option<u64>),
    /// That the last one arrives.
    Arrive,
}

/// See the module.
#[repr(C)]
pub struct Monitor {
    header: Header,
    /// Of a mutex or read-write lock: who holds it alone.
    owner: Cell<*mut Task>,
    /// Of a read-write lock: how many read. Of a semaphore: permits that are left. Of a barrier: how many have arrived.
    count: Cell<i64>,
    /// Of a barrier: how many it waits for.
    size: Cell<i64>,
    /// Of a read-write lock: how many wait to write.
    writers: Cell<i64>,
    /// Of a condition: its mutex.
    mutex: Cell<*mut Monitor>,
    waiters: WaitList,
}

// SAFETY: all cells are used under the lock.
unsafe impl Sync for Monitor {}

// SAFETY: laid out as the trait demands; `of` tells it from other objects of the kind.
unsafe impl Object for Monitor {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Other];
}

impl Monitor {
    fn new(local: &LocalHeap, sort: u8) -> Result<Gc<Monitor>, NeedMemory> {
        let object = local
            .alloc_object(Kind::Other, 0, size_of::<Monitor>())?
            .cast::<Monitor>();
        // SAFETY: the object is new and ours alone; zero is valid for what is not written.
        unsafe {
            let header = &(*object.as_ptr()).header;
            header.set_flags(flags::SHARED);
            header
                .extra
                .store(sort, core::sync::atomic::Ordering::Relaxed);
            Ok(Gc::from_ptr(object))
        }
    }
}

fn argument(call: &Call<'_>, sort: u8, name: &str) -> Result<Gc<Monitor>, Throw> {
    let value = call.get(0);
    if sort_of(value) == sort
        && let Some(monitor) = Gc::from_value(value)
    {
        return Ok(monitor);
    }
    Err(call.type_error(0, name))
}

/// What a monitor refers to: a condition's mutex.
pub(super) fn referred(monitor: Gc<Monitor>) -> Value {
    // SAFETY: null or a live mutex.
    NonNull::new(monitor.fields().mutex.get())
        .map_or(Value::NIL, |mutex| unsafe { Gc::from_ptr(mutex) }.value())
}

impl Gc<Monitor> {
    fn fields<'a>(self) -> &'a Monitor {
        // SAFETY: the monitor lives as long as its handle is used.
        unsafe { &*self.as_ptr() }
    }

    fn sort(self) -> u8 {
        self.header()
            .extra
            .load(core::sync::atomic::Ordering::Relaxed)
    }

    /// Takes what is wanted, if it can be had.
    fn take(self, task: Gc<Task>, want: Want, _locked: &SpinLocked<'_>) -> bool {
        let fields = self.fields();
        match want {
            Want::Hold if fields.owner.get().is_null() => {
                if self.sort() == RWLOCK && fields.count.get() > 0 {
                    return false;
                }
                fields.owner.set(task.as_ptr());
                true
            }
            Want::Read if fields.owner.get().is_null() && fields.writers.get() == 0 => {
                fields.count.set(fields.count.get() + 1);
                true
            }
            Want::Permits(n) if fields.count.get() >= n => {
                fields.count.set(fields.count.get() - n);
                true
            }
            _ => false,
        }
    }

    /// Whether the task holds it alone.
    fn is_held_by(self, task: Option<Gc<Task>>) -> bool {
        let _locked = SpinLocked::new(self.header());
        task.is_some_and(|task| self.fields().owner.get() == task.as_ptr())
    }

    /// A suspended task enters the list, unless it need not wait any more.
    pub(crate) fn enter(self, engine: &Engine, task: Gc<Task>, want: Want) -> bool {
        let fields = self.fields();
        let mut woken = Vec::new();
        {
            let locked = SpinLocked::new(self.header());
            match want {
                Want::Arrive if fields.count.get() + 1 == fields.size.get() => {
                    fields.count.set(0);
                    self.wake(usize::MAX, &locked, &mut woken);
                    drop(locked);
                    ready(engine, woken);
                    return false;
                }
                Want::Arrive => fields.count.set(fields.count.get() + 1),
                Want::Signal(_) => {}
                _ => {
                    // Only a look: the task takes it when it tries again.
                    if self.is_free(want) {
                        return false;
                    }
                    if want == Want::Hold {
                        fields.writers.set(fields.writers.get() + 1);
                    }
                }
            }
            task.fields().wants.set(want);
            fields.waiters.push(task, &locked);
            if matches!(want, Want::Permits(_)) {
                self.wake_for_permits(&locked, &mut woken);
            }
        }
        ready(engine, woken);
        if let Want::Signal(_) = want
            && let Some(mutex) = NonNull::new(fields.mutex.get())
        {
            // On the list before the mutex is free: a signal that is given under the mutex finds the task.
            // SAFETY: a condition's mutex lives with it.
            unsafe { Gc::<Monitor>::from_ptr(mutex) }.give_back(engine, false);
        }
        true
    }

    fn is_free(self, want: Want) -> bool {
        let fields = self.fields();
        match want {
            Want::Hold => {
                fields.owner.get().is_null() && (self.sort() != RWLOCK || fields.count.get() == 0)
            }
            Want::Read => fields.owner.get().is_null() && fields.writers.get() == 0,
            Want::Permits(n) => fields.count.get() >= n,
            _ => false,
        }
    }

    /// A task whose wait has ended otherwise leaves the list.
    pub(crate) fn leave(self, engine: &Engine, task: Gc<Task>, want: Want) {
        let mut woken = Vec::new();
        {
            let locked = SpinLocked::new(self.header());
            let fields = self.fields();
            if !fields.waiters.remove(task, &locked) {
                return;
            }
            match want {
                Want::Arrive => fields.count.set(fields.count.get() - 1),
                Want::Hold => {
                    fields.writers.set(fields.writers.get() - 1);
                    // Readers that only waited for this writer may go on.
                    if self.sort() == RWLOCK {
                        self.wake(usize::MAX, &locked, &mut woken);
                    }
                }
                _ => {}
            }
        }
        ready(engine, woken);
    }

    /// Takes up to `count` tasks off the list whose waits this ends.
    fn wake(self, count: usize, locked: &SpinLocked<'_>, woken: &mut Vec<Gc<Task>>) -> usize {
        let fields = self.fields();
        let mut ended = 0;
        while ended < count
            && let Some(task) = fields.waiters.pop(locked)
        {
            if task.fields().wants.get() == Want::Hold {
                fields.writers.set(fields.writers.get() - 1);
            }
            if end_wait(task, woken) {
                ended += 1;
            }
        }
        ended
    }

    /// Takes off the list of a semaphore the tasks for whose wishes the permits suffice, and ends their waits.
    fn wake_for_permits(self, locked: &SpinLocked<'_>, woken: &mut Vec<Gc<Task>>) {
        let mut left = self.fields().count.get();
        if left == 0 {
            return;
        }
        self.fields()
            .waiters
            .take(locked, |task| match task.fields().wants.get() {
                Want::Permits(n) if n <= left => {
                    if end_wait(task, woken) {
                        left -= n;
                    }
                    true
                }
                _ => false,
            });
    }

    /// The running task has given up a condition's mutex to wait for a signal, and cannot wait: it holds the mutex, as before.
    pub(crate) fn hold_on(self, task: Gc<Task>) {
        if let Some(mutex) = NonNull::new(self.fields().mutex.get()) {
            // SAFETY: a condition's mutex lives with it.
            note_held(task, unsafe { Gc::from_ptr(mutex) }, false);
        }
    }

    /// Makes it free, by who holds it alone or reads, and wakes who may have it now.
    fn give_back(self, engine: &Engine, reads: bool) {
        let mut woken = Vec::new();
        {
            let locked = SpinLocked::new(self.header());
            let fields = self.fields();
            if reads {
                fields.count.set(fields.count.get() - 1);
            } else {
                fields.owner.set(null_mut());
            }
            if self.sort() == MUTEX {
                self.wake(1, &locked, &mut woken);
            } else if fields.count.get() == 0 {
                self.wake(usize::MAX, &locked, &mut woken);
            }
        }
        ready(engine, woken);
    }
}

/// Ends the wait of a task that was taken off a list. Whether this did, and not its time limit or its cancellation before.
fn end_wait(task: Gc<Task>, woken: &mut Vec<Gc<Task>>) -> bool {
    match task.try_claim(Woken::Event) {
        Claim::Lost => return false,
        Claim::Arming => {}
        Claim::Suspended => woken.push(task),
    }
    true
}

fn ready(engine: &Engine, tasks: Vec<Gc<Task>>) {
    for task in tasks {
        task.set_state(State::Ready);
        engine.scheduler().inject(task);
    }
}

/// An object that a task holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    monitor: Gc<Monitor>,
    reads: bool,
}

impl Held {
    /// The object.
    pub(crate) fn value(self) -> Value {
        self.monitor.value()
    }
}

/// The objects that a task holds, oldest first.
pub(crate) type HeldList = Vec<Held>;

fn held_list<'a>(task: Gc<Task>) -> &'a mut HeldList {
    let fields = task.fields();
    if fields.held.get().is_null() {
        fields.held.set(Box::into_raw(Box::new(Vec::new())));
    }
    // SAFETY: the list is the running task's own, and no reference to it outlives a step.
    unsafe { &mut *fields.held.get() }
}

fn note_held(task: Gc<Task>, monitor: Gc<Monitor>, reads: bool) {
    held_list(task).push(Held { monitor, reads });
    task.fields().locks.set(task.fields().locks.get() + 1);
}

/// Forgets that the task holds it; false if it does not.
fn note_free(task: Gc<Task>, monitor: Gc<Monitor>, reads: bool) -> bool {
    if task.fields().locks.get() == 0 {
        return false;
    }
    let list = held_list(task);
    let Some(at) = list
        .iter()
        .rposition(|held| *held == Held { monitor, reads })
    else {
        return false;
    };
    list.remove(at);
    task.fields().locks.set(task.fields().locks.get() - 1);
    true
}

impl Core {
    /// What the running task has done is known to who takes it next; what was read, to who writes next.
    fn note_release(&self, monitor: Gc<Monitor>, reads: bool) {
        let part = if reads { Part::Readers } else { Part::Whole };
        self.race_release(monitor.as_ptr() as usize, part);
    }

    /// The running task has taken what it wants of it.
    fn note_acquire(&self, monitor: Gc<Monitor>, want: Want) {
        self.race_acquire(monitor.as_ptr() as usize, Part::Whole);
        if want == Want::Hold {
            self.race_acquire(monitor.as_ptr() as usize, Part::Readers);
        }
    }

    /// Gives back whatever the running task, which ends, still holds. Says whether there was anything.
    pub(crate) fn release_held(&mut self, task: Gc<Task>) -> bool {
        let list = task.fields().held.replace(null_mut());
        if list.is_null() {
            return false;
        }
        task.fields().locks.set(0);
        // SAFETY: the list is the task's own, taken from it just now.
        let list = unsafe { Box::from_raw(list) };
        for held in list.iter().rev() {
            self.note_release(held.monitor, held.reads);
            held.monitor.give_back(self.engine, held.reads);
        }
        !list.is_empty()
    }

    /// Cancellation unwinds through a native that holds an object for the time of a call: gives that back.
    pub(crate) fn release_unwinding(&mut self, native: *mut u64) {
        // SAFETY: a native's function is in the slot two below its base, its first argument at it.
        let (function, first) =
            unsafe { (Value::from_bits(*native.sub(2)), Value::from_bits(*native)) };
        let Some(of) = function.as_native() else {
            return;
        };
        let reads = of.function() == with_read as *const ();
        if !(reads
            || of.function() == with as *const ()
            || of.function() == with_write as *const ())
        {
            return;
        }
        if matches!(sort_of(first), MUTEX | RWLOCK)
            && let (Some(task), Some(monitor)) = (self.task, Gc::<Monitor>::from_value(first))
            && note_free(task, monitor, reads)
        {
            self.note_release(monitor, reads);
            monitor.give_back(self.engine, reads);
        }
    }
}

/// Takes what is wanted or waits for it, and then goes on with `state`.
fn acquire(
    call: &mut Call<'_>,
    monitor: Gc<Monitor>,
    want: Want,
    state: u32,
) -> Result<Option<Next>, Throw> {
    let Some(task) = call.core.task else {
        return Err(call.message("no task runs"));
    };
    if matches!(want, Want::Hold | Want::Read)
        && task.fields().locks.get() > 0
        && held_list(task).iter().any(|held| held.monitor == monitor)
    {
        return Err(call.message("the task holds the lock already"));
    }
    let locked = SpinLocked::new(monitor.header());
    if monitor.take(task, want, &locked) {
        drop(locked);
        call.core.note_acquire(monitor, want);
        match want {
            Want::Hold => note_held(task, monitor, false),
            Want::Read => note_held(task, monitor, true),
            _ => {}
        }
        return Ok(None);
    }
    drop(locked);
    Ok(Some(Next::Wait {
        until: WaitFor::Monitor(monitor, want),
        state,
    }))
}

/// Gives back what the running task holds; what cancellation could not do meanwhile it does now.
fn release(call: &mut Call<'_>, monitor: Gc<Monitor>, reads: bool) -> Result<(), Throw> {
    if !call
        .core
        .task
        .is_some_and(|task| note_free(task, monitor, reads))
    {
        return Err(call.message("the task does not hold the lock"));
    }
    call.core.note_release(monitor, reads);
    monitor.give_back(call.engine(), reads);
    call.core.after_unlock()
}

/// `x:with(f, …)`: calls `f(…)` with the object held, and gives its results.
fn hold_for_call(call: &mut Call<'_>, monitor: Gc<Monitor>, want: Want) -> Result<Next, Throw> {
    const HELD: u32 = 2;
    let at = call.count();
    if call.state() < HELD {
        if call.state() == 0 && call.count() < 2 {
            return Err(call.type_error(1, "function"));
        }
        call.room(2 * at + 4)?;
        if let Some(next) = acquire(call, monitor, want, 1)? {
            return Ok(next);
        }
        for i in 2..at {
            let argument = call.slot(i);
            call.set(at + i, argument);
        }
        let function = call.slot(1);
        call.set(at, function);
        return Ok(Next::Call {
            at,
            arguments: at - 2,
            state: HELD,
            protected: true,
        });
    }
    let (results, failed) = (call.results(), call.failed());
    let gives = release(call, monitor, want == Want::Read);
    if failed {
        return Err(Throw::Value(call.slot(at)));
    }
    gives?;
    Ok(Next::Many { at, count: results })
}

/// `mutex()`.
fn mutex(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(Next::One(Monitor::new(call.heap(), MUTEX)?.value()))
}

/// `m:with(f, …)`.
fn with(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, MUTEX, "mutex")?;
    hold_for_call(call, monitor, Want::Hold)
}

/// `m:lock()`: gives `m`, which unlocks when a `<close>` variable that holds it goes out of scope.
fn lock(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, MUTEX, "mutex")?;
    match acquire(call, monitor, Want::Hold, 1)? {
        Some(next) => Ok(next),
        None => Ok(Next::One(monitor.value())),
    }
}

/// `m:trylock()`: whether it was free and is held now.
fn try_lock(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, MUTEX, "mutex")?;
    Ok(Next::One(Value::boolean(
        acquire(call, monitor, Want::Hold, 1)?.is_none(),
    )))
}

/// `m:unlock()`.
fn unlock(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, MUTEX, "mutex")?;
    release(call, monitor, false)?;
    Ok(Next::Nothing)
}

/// `__close` of a mutex: unlocks it, unless that was done.
fn close_mutex(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, MUTEX, "mutex")?;
    if monitor.is_held_by(call.core.task) {
        release(call, monitor, false)?;
    }
    Ok(Next::Nothing)
}

/// `rwlock()`.
fn rwlock(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(Next::One(Monitor::new(call.heap(), RWLOCK)?.value()))
}

/// `l:read(f, …)`.
fn with_read(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, RWLOCK, "rwlock")?;
    hold_for_call(call, monitor, Want::Read)
}

/// `l:write(f, …)`.
fn with_write(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, RWLOCK, "rwlock")?;
    hold_for_call(call, monitor, Want::Hold)
}

/// `l:lock()`: to write.
fn lock_write(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, RWLOCK, "rwlock")?;
    match acquire(call, monitor, Want::Hold, 1)? {
        Some(next) => Ok(next),
        None => Ok(Next::One(monitor.value())),
    }
}

/// `l:lockread()`.
fn lock_read(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, RWLOCK, "rwlock")?;
    match acquire(call, monitor, Want::Read, 1)? {
        Some(next) => Ok(next),
        None => Ok(Next::One(monitor.value())),
    }
}

/// `l:unlock()`: whichever way the task holds it.
fn unlock_either(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, RWLOCK, "rwlock")?;
    let reads = !monitor.is_held_by(call.core.task);
    release(call, monitor, reads)?;
    Ok(Next::Nothing)
}

/// `semaphore(n)`.
fn semaphore(call: &mut Call<'_>) -> Result<Next, Throw> {
    let permits = call.integer_argument(0)?;
    if permits < 0 {
        return Err(call.argument_error(0, "a number of permits is not negative"));
    }
    let monitor = Monitor::new(call.heap(), SEMAPHORE)?;
    monitor.fields().count.set(permits);
    Ok(Next::One(monitor.value()))
}

fn permits(call: &Call<'_>) -> Result<i64, Throw> {
    if call.state() != 0 {
        return Ok(call.slot(1).as_integer().unwrap_or(1));
    }
    let n = call.optional_integer(1, 1)?;
    if n < 1 {
        return Err(call.argument_error(1, "a number of permits is positive"));
    }
    Ok(n)
}

/// `s:acquire([n])`.
fn acquire_permits(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, SEMAPHORE, "semaphore")?;
    let n = permits(call)?;
    let kept = call.integer(n)?;
    call.set(1, kept);
    Ok(acquire(call, monitor, Want::Permits(n), 1)?.unwrap_or(Next::Nothing))
}

/// `s:try([n])`: whether there were so many.
fn try_permits(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, SEMAPHORE, "semaphore")?;
    let n = permits(call)?;
    Ok(Next::One(Value::boolean(
        acquire(call, monitor, Want::Permits(n), 1)?.is_none(),
    )))
}

/// `s:release([n])`.
fn release_permits(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, SEMAPHORE, "semaphore")?;
    let n = permits(call)?;
    call.core.note_release(monitor, false);
    let mut woken = Vec::new();
    {
        let locked = SpinLocked::new(monitor.header());
        let count = &monitor.fields().count;
        let Some(sum) = count.get().checked_add(n) else {
            drop(locked);
            return Err(call.argument_error(1, "too many permits"));
        };
        count.set(sum);
        monitor.wake_for_permits(&locked, &mut woken);
    }
    ready(call.engine(), woken);
    Ok(Next::Nothing)
}

/// `condition(m)`.
fn condition(call: &mut Call<'_>) -> Result<Next, Throw> {
    let mutex = argument(call, MUTEX, "mutex")?;
    let monitor = Monitor::new(call.heap(), CONDITION)?;
    monitor.fields().mutex.set(mutex.as_ptr());
    Ok(Next::One(monitor.value()))
}

/// `c:wait([seconds])`: gives the mutex up, waits for a signal, holds the mutex again. Whether there was a signal within the time.
///
/// Slot 2 says why the wait ended.
fn wait_signal(call: &mut Call<'_>) -> Result<Next, Throw> {
    const SIGNALLED: u32 = 1;
    const LOCKING: u32 = 2;
    let monitor = argument(call, CONDITION, "condition")?;
    let limit = deadline(call, 1)?;
    // SAFETY: a condition's mutex lives with it, and is not null.
    let mutex: Gc<Monitor> =
        unsafe { Gc::from_ptr(NonNull::new_unchecked(monitor.fields().mutex.get())) };
    if call.state() == 0 {
        let Some(task) = call.core.task else {
            return Err(call.message("no task runs"));
        };
        if !note_free(task, mutex, false) {
            return Err(call.message("the task does not hold the condition's mutex"));
        }
        call.core.note_release(mutex, false);
        return Ok(Next::Wait {
            until: WaitFor::Monitor(monitor, Want::Signal(limit)),
            state: SIGNALLED,
        });
    }
    if call.state() == SIGNALLED {
        let why = match call.core.woken {
            Woken::Event => Value::TRUE,
            Woken::Time => Value::FALSE,
            Woken::Cancel => Value::NIL,
        };
        if call.core.woken == Woken::Event {
            call.core.note_acquire(monitor, Want::Signal(None));
        }
        call.set(2, why);
        call.advance(LOCKING);
    }
    if let Some(next) = acquire(call, mutex, Want::Hold, LOCKING)? {
        return Ok(next);
    }
    let why = call.slot(2);
    if why.is_nil() {
        // It was cancelled: held off until the mutex was held again.
        return Err(Throw::Cancelled);
    }
    Ok(Next::One(why))
}

fn signal_some(call: &mut Call<'_>, count: usize) -> Result<Next, Throw> {
    let monitor = argument(call, CONDITION, "condition")?;
    call.core.note_release(monitor, false);
    let mut woken = Vec::new();
    {
        let locked = SpinLocked::new(monitor.header());
        monitor.wake(count, &locked, &mut woken);
    }
    ready(call.engine(), woken);
    Ok(Next::Nothing)
}

/// `c:signal()`: ends the wait of the task that has waited longest.
fn signal(call: &mut Call<'_>) -> Result<Next, Throw> {
    signal_some(call, 1)
}

/// `c:broadcast()`: ends the waits of all tasks.
fn broadcast(call: &mut Call<'_>) -> Result<Next, Throw> {
    signal_some(call, usize::MAX)
}

/// `barrier(n)`.
fn barrier(call: &mut Call<'_>) -> Result<Next, Throw> {
    let size = call.integer_argument(0)?;
    if size < 1 {
        return Err(call.argument_error(0, "a number of tasks is positive"));
    }
    let monitor = Monitor::new(call.heap(), BARRIER)?;
    monitor.fields().size.set(size);
    Ok(Next::One(monitor.value()))
}

/// `b:wait()`: waits until so many tasks have come; then all go on, and the barrier can be used again.
fn wait_barrier(call: &mut Call<'_>) -> Result<Next, Throw> {
    let monitor = argument(call, BARRIER, "barrier")?;
    if call.state() != 0 {
        call.core.note_acquire(monitor, Want::Arrive);
        return Ok(Next::Nothing);
    }
    call.core.race_watch(|races, task| {
        let fields = monitor.fields();
        let last = {
            let _locked = SpinLocked::new(monitor.header());
            fields.count.get() + 1 == fields.size.get()
        };
        races.arrived(task, monitor.as_ptr() as usize, last);
    });
    Ok(Next::Wait {
        until: WaitFor::Monitor(monitor, Want::Arrive),
        state: 1,
    })
}

/// What a task waits for, in words.
pub(crate) fn description(monitor: Gc<Monitor>, want: Want) -> alloc::string::String {
    let name = match monitor.sort() {
        MUTEX => "a mutex",
        RWLOCK => "a read-write lock",
        SEMAPHORE => "a semaphore",
        CONDITION => "a signal of a condition",
        _ => "a barrier",
    };
    match want {
        Want::Permits(n) if n != 1 => format!("{n} permits of {name}"),
        _ => name.into(),
    }
}

/// Defines the libraries.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    for (name, function) in [
        ("mutex", mutex as crate::interp::native::NativeFn),
        ("rwlock", rwlock),
        ("semaphore", semaphore),
        ("condition", condition),
        ("barrier", barrier),
    ] {
        builder.global(name, function)?;
    }
    let methods = builder.table(
        "",
        &[
            ("with", with),
            ("lock", lock),
            ("trylock", try_lock),
            ("unlock", unlock),
        ],
    )?;
    let metatable = builder.set_methods(Kind::Other, MUTEX, "mutex", methods)?;
    builder.define(metatable, "", "__close", close_mutex, &[])?;
    let methods = builder.table(
        "",
        &[
            ("read", with_read),
            ("write", with_write),
            ("lock", lock_write),
            ("lockread", lock_read),
            ("unlock", unlock_either),
        ],
    )?;
    let metatable = builder.set_methods(Kind::Other, RWLOCK, "rwlock", methods)?;
    builder.define(metatable, "", "__close", unlock_either, &[])?;
    let methods = builder.table(
        "",
        &[
            ("acquire", acquire_permits),
            ("try", try_permits),
            ("release", release_permits),
        ],
    )?;
    builder.set_methods(Kind::Other, SEMAPHORE, "semaphore", methods)?;
    let methods = builder.table(
        "",
        &[
            ("wait", wait_signal),
            ("signal", signal),
            ("broadcast", broadcast),
        ],
    )?;
    builder.set_methods(Kind::Other, CONDITION, "condition", methods)?;
    let methods = builder.table("", &[("wait", wait_barrier)])?;
    builder.set_methods(Kind::Other, BARRIER, "barrier", methods)?;
    Ok(())
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
