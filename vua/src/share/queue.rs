//! `queue(n)`: a bounded queue between any number of tasks.
//!
//! Values go through a [ring](sync::ring) that lies behind the object's fixed part, without a lock. Only a task that finds it empty, or full, is suspended; whoever
//! makes that untrue wakes one. The two meet as follows: a push that has completed fences and looks at the number of tasks that wait to pop;
//! a task that is about to wait is counted, fences, and looks at the ring again. One sees the other. The lists and their counts change under the
//! lock byte in the header.

use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use sync::ring::{Popped, Refused, Ring, Slot};

use super::QUEUE;
use crate::engine::Engine;
use crate::heap::{Header, Kind, LocalHeap, NeedMemory, SLICE, flags};
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::object::{Gc, Object};
use crate::race::Part;
use crate::task::join::deadline;
use crate::task::{SpinLocked, State, Task, WaitFor, WaitList, Woken, suspend::Claim};
use crate::value::{Tag, Value};

/// What who finds a queue closed knows, by who closed it.
const CLOSING: Part = Part::Readers;

/// The largest capacity: half a gigabyte of places.
const MAX_CAPACITY: i64 = 1 << 25;

/// See the module.
#[repr(C)]
pub struct Queue {
    header: Header,
    capacity: usize,
    /// Tasks that wait to pop, and how many.
    poppers: WaitList,
    popping: AtomicUsize,
    /// Tasks that wait to push, and how many.
    pushers: WaitList,
    pushing: AtomicUsize,
    ring: Ring,
}

// SAFETY: the lists are used under the lock.
unsafe impl Sync for Queue {}

// SAFETY: laid out as the trait demands; its extra byte tells it from other objects of the kind.
unsafe impl Object for Queue {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Other];
}

/// Which end of a queue a task waits at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// For room.
    Push,
    /// For a value.
    Pop,
}

impl Gc<Queue> {
    fn fields<'a>(self) -> &'a Queue {
        // SAFETY: the queue lives as long as its handle is used.
        unsafe { &*self.as_ptr() }
    }

    fn slots<'a>(self) -> &'a [Slot] {
        // SAFETY: so many slots lie behind the fixed part.
        unsafe { core::slice::from_raw_parts(self.as_ptr().add(1).cast(), self.fields().capacity) }
    }

    fn list<'a>(self, end: End) -> (&'a WaitList, &'a AtomicUsize) {
        let fields = self.fields();
        match end {
            End::Push => (&fields.pushers, &fields.pushing),
            End::Pop => (&fields.poppers, &fields.popping),
        }
    }

    /// A suspended task enters the list of those that wait at an end, unless it need not wait any more.
    pub(crate) fn enter(self, task: Gc<Task>, end: End) -> bool {
        let locked = SpinLocked::new(self.header());
        let (list, count) = self.list(end);
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let ring = &self.fields().ring;
        let waits = !ring.is_closed()
            && match end {
                End::Push => ring.len() >= self.fields().capacity,
                End::Pop => ring.is_empty(),
            };
        if waits {
            list.push(task, &locked);
        } else {
            count.store(count.load(Ordering::Relaxed) - 1, Ordering::SeqCst);
        }
        waits
    }

    /// A task whose wait has ended otherwise leaves the list.
    pub(crate) fn leave(self, task: Gc<Task>, end: End) {
        let locked = SpinLocked::new(self.header());
        let (list, count) = self.list(end);
        if list.remove(task, &locked) {
            count.store(count.load(Ordering::Relaxed) - 1, Ordering::SeqCst);
        }
    }

    /// Wakes up to `limit` tasks that wait at an end, if there are any. The caller has just changed the ring.
    fn wake(self, engine: &Engine, end: End, limit: usize) {
        fence(Ordering::SeqCst);
        let (list, count) = self.list(end);
        if count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut woken = Vec::new();
        {
            let locked = SpinLocked::new(self.header());
            let mut ended = 0;
            while ended < limit
                && let Some(task) = list.pop(&locked)
            {
                count.store(count.load(Ordering::Relaxed) - 1, Ordering::SeqCst);
                match task.try_claim(Woken::Event) {
                    Claim::Lost => continue,
                    Claim::Arming => {}
                    Claim::Suspended => woken.push(task),
                }
                ended += 1;
            }
        }
        for task in woken {
            task.set_state(State::Ready);
            engine.scheduler().inject(task);
        }
    }

    /// Value `i` of those that may lie in it, for the collector.
    pub(super) fn kept(self, i: usize) -> Value {
        // SAFETY: slots hold nothing but values.
        unsafe { Value::from_bits(self.slots()[i].word()) }
    }

    /// How many places it has.
    pub(super) fn capacity(self) -> usize {
        self.fields().capacity
    }
}

fn argument(call: &Call<'_>) -> Result<Gc<Queue>, Throw> {
    if super::sort_of(call.get(0)) == QUEUE
        && let Some(queue) = Gc::from_value(call.get(0))
    {
        return Ok(queue);
    }
    Err(call.type_error(0, "queue"))
}

fn make(
    local: &LocalHeap,
    capacity: usize,
    poll: &mut dyn FnMut(),
) -> Result<Gc<Queue>, NeedMemory> {
    let bytes = size_of::<Queue>() + capacity * size_of::<Slot>();
    let object = local.alloc_object(Kind::Other, 0, bytes)?.cast::<Queue>();
    // SAFETY: the object is new and ours alone; zero is valid for what is not written, and a capacity of 0 until all slots are.
    unsafe {
        let queue = object.as_ptr();
        (*queue).header.extra.store(QUEUE, Ordering::Relaxed);
        (&raw mut (*queue).ring).write(Ring::new());
        let slots: *mut Slot = queue.add(1).cast();
        let handle = Gc::from_ptr(object);
        for i in 0..capacity {
            slots.add(i).write(Slot::new(Value::NIL.to_bits()));
            if i % SLICE == SLICE - 1 {
                local.keep(Some(handle), None::<Gc<Queue>>);
                poll();
            }
        }
        (*queue).capacity = capacity;
        (*queue).header.set_flags(flags::SHARED);
        local.keep(None::<Gc<Queue>>, None::<Gc<Queue>>);
        Ok(NonNull::new_unchecked(queue)).map(|queue| Gc::from_ptr(queue))
    }
}

/// `queue(n)`.
fn queue(call: &mut Call<'_>) -> Result<Next, Throw> {
    let capacity = call.integer_argument(0)?;
    if !(1..=MAX_CAPACITY).contains(&capacity) {
        return Err(call.argument_error(0, "a capacity is from 1 to 33554432"));
    }
    let core = &*call.core;
    let queue = make(&core.heap, capacity as usize, &mut || core.pause())?;
    Ok(Next::One(queue.value()))
}

/// `q:push(v)`: waits for room.
fn push(call: &mut Call<'_>) -> Result<Next, Throw> {
    let queue = argument(call)?;
    let value = call.get(1);
    if value.is_nil() {
        return Err(call.argument_error(1, "nil cannot be pushed"));
    }
    call.publish(value)?;
    let value = call.slot(1);
    super::before_store(call, queue.header_ptr());
    match queue.fields().ring.push(queue.slots(), value.to_bits()) {
        Ok(()) => {
            let (address, capacity) = (queue.as_ptr() as usize, queue.capacity());
            call.core
                .race_watch(|races, task| races.pushed(task, address, capacity));
            queue.wake(call.engine(), End::Pop, 1);
            Ok(Next::Nothing)
        }
        Err(Refused::Closed) => {
            call.core.race_acquire(queue.as_ptr() as usize, CLOSING);
            Err(call.message("the queue is closed"))
        }
        Err(Refused::Full) => Ok(Next::Wait {
            until: WaitFor::Queue(queue, End::Push, None),
            state: 1,
        }),
    }
}

/// `q:trypush(v)`: whether there was room.
fn try_push(call: &mut Call<'_>) -> Result<Next, Throw> {
    Ok(match push(call)? {
        Next::Wait { .. } => Next::One(Value::FALSE),
        _ => Next::One(Value::TRUE),
    })
}

/// `q:pop([seconds])`: the oldest value, for which it waits; nil if the time is up, or the queue is closed and empty.
fn pop(call: &mut Call<'_>) -> Result<Next, Throw> {
    let queue = argument(call)?;
    let limit = deadline(call, 1)?;
    match queue.fields().ring.pop(queue.slots(), Value::NIL.to_bits()) {
        Popped::Word(bits) => {
            let address = queue.as_ptr() as usize;
            call.core
                .race_watch(|races, task| races.popped(task, address));
            queue.wake(call.engine(), End::Push, 1);
            // SAFETY: only values were pushed.
            Ok(Next::One(unsafe { Value::from_bits(bits) }))
        }
        Popped::Closed => {
            call.core.race_acquire(queue.as_ptr() as usize, CLOSING);
            Ok(Next::One(Value::NIL))
        }
        Popped::Empty if limit.is_some_and(|limit| limit <= call.platform().now()) => {
            Ok(Next::One(Value::NIL))
        }
        Popped::Empty => Ok(Next::Wait {
            until: WaitFor::Queue(queue, End::Pop, limit),
            state: 1,
        }),
    }
}

/// `q:close()`: no value can be pushed any more; those that are in it can be popped.
fn close(call: &mut Call<'_>) -> Result<Next, Throw> {
    let queue = argument(call)?;
    call.core.race_release(queue.as_ptr() as usize, CLOSING);
    queue.fields().ring.close();
    queue.wake(call.engine(), End::Pop, usize::MAX);
    queue.wake(call.engine(), End::Push, usize::MAX);
    Ok(Next::Nothing)
}

/// `#q`: about how many values are in it.
fn length(call: &mut Call<'_>) -> Result<Next, Throw> {
    let queue = argument(call)?;
    let length = queue.fields().ring.len() as i64;
    Ok(Next::One(call.integer(length)?))
}

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    builder.global("queue", queue)?;
    let methods = builder.table(
        "",
        &[
            ("push", push),
            ("trypush", try_push),
            ("pop", pop),
            ("close", close),
        ],
    )?;
    let metatable = builder.set_methods(Kind::Other, QUEUE, "queue", methods)?;
    builder.define(metatable, "", "__close", close, &[])?;
    builder.define(metatable, "", "__len", length, &[])
}
