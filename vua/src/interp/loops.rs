//! Loops off the fast path: preparation, boxed and mixed indices, `parallel for`.

use alloc::format;

use super::core_state::{Core, Vm};
use super::dispatch::{Exit, closure_of, get, put};
use super::frame::Frame;
use super::native::Throw;
use super::throw::{Flow, Leave, fail};
use crate::bytecode::instructions::{Op, a, d, signed_d};
use crate::number::{self, Number};
use crate::object::Gc;
use crate::syntax::ast::Builtin;
use crate::task::{Latch, Task, WaitFor};
use crate::value::Value;

/// A prepared loop: index, limit and step as they are kept, or no iteration at all.
pub(crate) enum Range {
    Empty,
    Runs(Value, Value, Value),
}

impl Core {
    /// Lua 5.4's rules (manual 3.3.5): all integers if start and step are; the limit is then clipped; else all floats.
    pub(crate) fn range(
        &mut self,
        start: Value,
        limit: Value,
        step: Value,
    ) -> Result<Range, Leave> {
        let program = self.program;
        let number = |value: Value, what: &str| match value.as_number() {
            Some(n) => Ok(n),
            None => fail(format!(
                "bad 'for' {what} (number expected, got {})",
                program.type_name(value)
            )),
        };
        // What is wrong is looked for in Lua's order.
        if let (Some(i), Some(by)) = (start.as_integer(), step.as_integer()) {
            if by == 0 {
                return fail("'for' step is zero".into());
            }
            let l = number(limit, "limit")?;
            let end = match l {
                Number::Integer(end) => end,
                Number::Float(f) if f.is_nan() => return Ok(Range::Empty),
                Number::Float(f) => {
                    let rounded = if by > 0 {
                        number::floor_to_integer(f)
                    } else {
                        number::ceil_to_integer(f)
                    };
                    rounded.unwrap_or(if f > 0.0 { i64::MAX } else { i64::MIN })
                }
            };
            // A limit beyond every integer in the wrong direction is no loop at all.
            let beyond = matches!(l, Number::Float(f) if (by > 0 && f < i64::MIN as f64) || (by < 0 && f >= -(i64::MIN as f64)));
            if beyond || if by > 0 { i > end } else { i < end } {
                return Ok(Range::Empty);
            }
            return Ok(Range::Runs(start, self.heap.integer(end)?, step));
        }
        let l = number(limit, "limit")?.to_float();
        let t = number(step, "step")?.to_float();
        let s = number(start, "initial value")?.to_float();
        if t == 0.0 {
            return fail("'for' step is zero".into());
        }
        // As in Lua, a start that is no number is not past the limit: one iteration.
        if if t > 0.0 { l < s } else { s < l } {
            return Ok(Range::Empty);
        }
        Ok(Range::Runs(
            Value::float(s),
            Value::float(l),
            Value::float(t),
        ))
    }

    /// The index after `index`, unless the loop is over.
    fn following(
        &mut self,
        index: Value,
        limit: Value,
        step: Value,
    ) -> Result<Option<Value>, Leave> {
        if let (Some(i), Some(end)) = (index.as_integer(), limit.as_integer()) {
            // `prepare` says why the step may be a float.
            let by = match step.as_integer() {
                Some(by) => by,
                None => step.as_float().map_or(0, |by| by as i64),
            };
            return match i.checked_add(by) {
                Some(next) if if by > 0 { next <= end } else { next >= end } => {
                    Ok(Some(self.heap.integer(next)?))
                }
                _ => Ok(None),
            };
        }
        let (Some(i), Some(end), Some(by)) = (index.as_float(), limit.as_float(), step.as_float())
        else {
            return Ok(None);
        };
        let next = i + by;
        Ok(if if by > 0.0 { next <= end } else { end <= next } {
            Some(Value::float(next))
        } else {
            None
        })
    }
}

/// `FORPREP` and `RFORPREP`.
pub(super) fn prepare(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    if Op::of(ins) == Some(Op::RFORPREP) {
        return fail("'for' step is zero".into());
    }
    // SAFETY: the verifier proved that the four registers are in the frame, and the target.
    unsafe {
        let base = core.base.add(a(ins));
        match core.range(get(base, 0), get(base, 1), get(base, 2))? {
            Range::Empty => core.pc = core.pc.offset(signed_d(ins)),
            Range::Runs(start, limit, step) => {
                put(base, 0, start);
                put(base, 1, limit);
                // `FORLOOP` takes an inline integer 1 for a sign that index and limit are inline. A step of 48 bits is exact as a float.
                let all_inline =
                    Value::both_inline_integers(start, limit) || !step.is_inline_integer();
                put(
                    base,
                    2,
                    if all_inline {
                        step
                    } else {
                        Value::float(step.inline_payload() as f64)
                    },
                );
                put(base, 3, start);
            }
        }
    }
    Ok(())
}

/// `FORLOOP` with boxed or floating indices.
pub(super) fn step(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: as for `prepare`.
    unsafe {
        let base = core.base.add(a(ins));
        if let Some(next) = core.following(get(base, 0), get(base, 1), get(base, 2))? {
            put(base, 0, next);
            put(base, 3, next);
            core.pc = core.pc.offset(signed_d(ins));
            return vm.safepoint();
        }
    }
    Ok(())
}

/// `BUILTIN`.
pub(super) fn builtin(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let Some(builtin) = Builtin::from_number(d(ins)) else {
        return fail("no such built-in function".into());
    };
    let function = core
        .program
        .prelude()
        .builtin(&core.heap, core.engine.heap(), builtin)?;
    // SAFETY: the verifier proved the register.
    unsafe { put(core.base, a(ins), function) }
    Ok(())
}

/// `PFORPREP`.
pub(super) fn prepare_parallel(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the call's window, and the target.
    unsafe {
        let base = core.base.add(a(ins));
        match core.range(get(base, 2), get(base, 3), get(base, 4))? {
            Range::Empty => core.pc = core.pc.offset(signed_d(ins)),
            Range::Runs(start, limit, step) => {
                core.note_parallel_loop();
                if let Some(task) = core.task {
                    task.note_loop();
                }
                put(base, 2, start);
                put(base, 3, limit);
                put(base, 4, step);
                put(base, 5, Value::NIL);
                // Cores that are asleep do not ask for work: the loop offers some at its first safepoint.
                if core.engine.scheduler().is_hungry() {
                    core.engine
                        .scheduler()
                        .safepoints()
                        .post(core.cpu, smp::safepoint::HUNGRY);
                }
            }
        }
    }
    Ok(())
}

/// `PFORLOOP` at a safepoint, of a loop that was split, or with boxed or floating indices.
pub(super) fn step_parallel(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: only bodies of parallel loops have this instruction, with five registers at least.
    unsafe {
        let base = core.base;
        if let Some(latch) = Gc::<Latch>::from_value(get(base, 3))
            && latch.has_failed()
        {
            return Ok(());
        }
        if let Some(next) = core.following(get(base, 0), get(base, 1), get(base, 2))? {
            put(base, 0, next);
            put(base, 4, next);
            core.pc = core.pc.offset(signed_d(ins));
            return vm.safepoint();
        }
    }
    Ok(())
}

/// `PJOIN` of a loop that was split.
pub(super) fn join(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the register.
    let Some(latch) = Gc::<Latch>::from_value(unsafe { get(core.base, a(ins)) }) else {
        return Ok(());
    };
    if !latch.is_done() {
        // SAFETY: the instruction runs again.
        core.pc = unsafe { core.pc.sub(1) };
        core.wait = Some(WaitFor::Latch(latch));
        return Err(Leave::Exit(Exit::Waiting));
    }
    if latch.fields().owner_cancelled.get() {
        return Err(Leave::Throw(Throw::Cancelled));
    }
    match latch.error() {
        Some(error) => Err(Leave::Throw(Throw::Value(error))),
        None => Ok(()),
    }
}

/// What a loop's body is called with: index, limit, step, latch.
const BODY_ARGUMENTS: usize = 4;

/// How many frames a split looks through for the outermost loop.
const SPLIT_DEPTH: usize = 4096;

/// A parallel loop that has iterations left.
struct LatentLoop {
    /// The frame of its body.
    base: *mut u64,
    /// The last index of what is kept, and the first of what is given away.
    cut: (Number, Number),
    /// The coroutine that the frame is in, if any, and how many slots above the stack's first.
    place: (usize, usize),
}

impl Core {
    /// Splits the outermost loop on the running task's stack that has iterations left: the later half becomes a task of its own;
    /// or, with `whole`, everything after the iteration that is running.
    pub(crate) fn split(
        &mut self,
        whole: bool,
    ) -> Result<Option<Gc<Task>>, crate::heap::NeedMemory> {
        let Some(LatentLoop {
            base,
            cut: (last, first),
            place,
        }) = self.outermost_loop(whole)
        else {
            return Ok(None);
        };
        // SAFETY: `base` is the frame of a parallel loop's body.
        unsafe {
            let body = closure_of(base).value();
            self.heap.publish(body, &mut || self.pause())?;
            self.publish_common()?;
            let first = self.boxed(first)?;
            let last = self.boxed(last)?;
            let latch = match Gc::<Latch>::from_value(get(base, 3)) {
                Some(latch) => latch,
                None => {
                    let latch = Latch::new(&self.heap)?;
                    put(base, 3, latch.value());
                    latch
                }
            };
            let task = Task::new(
                &self.heap,
                self.program,
                body,
                &[first, get(base, 1), get(base, 2), latch.value()],
                None,
            )?;
            latch.add(task);
            task.note_loop();
            put(base, 1, last);
            if let Some(paths) = &mut self.meter.paths {
                let frame = (base as usize - self.stack as usize) / 8;
                paths.split(task, frame, self.meter.executed);
            }
            self.race_watch(|races, by| races.split(by, place, task.as_ptr() as usize));
            self.counters.splits += 1;
            Ok(Some(task))
        }
    }

    /// Where the outermost loop of the running task that has iterations left is: its frame and the word of its index, which is another one as soon as the loop has
    /// gone on.
    pub(crate) fn latent_loop(&self) -> Option<(usize, u64)> {
        let base = self.outermost_loop(true)?.base;
        // SAFETY: `base` is the frame of a parallel loop's body, whose first register is its index.
        Some((base as usize, unsafe { get(base, 0) }.to_bits()))
    }

    /// The running task begins a parallel loop, if that is all there is to say about it: `false` if cores are asleep and are to be offered a part, or the
    /// task is in a coroutine.
    #[inline(always)]
    pub(crate) fn begins_loop_at_once(&self) -> bool {
        self.task.is_some_and(|task| {
            let begins = !self.engine.scheduler().is_hungry() && self.coroutine().is_none();
            if begins {
                task.note_loop();
            }
            begins
        })
    }

    /// Whether there is such a loop, when a native's step is running.
    pub(crate) fn has_latent_loop_below(&mut self) -> bool {
        if !self.task.is_some_and(Gc::has_had_loop) {
            return false;
        }
        // The walk begins at a frame whose instruction can be looked at.
        let pc = self.pc;
        self.resume_native(self.base);
        let found = self.outermost_loop(true).is_some();
        self.pc = pc;
        found
    }

    /// The outermost loop on the running task's stack that has iterations left.
    fn outermost_loop(&self, whole: bool) -> Option<LatentLoop> {
        // Coroutines have notes of their own.
        if !self.task?.has_had_loop() && self.coroutine().is_none() {
            return None;
        }
        let mut outermost = None;
        let mut walk = Some(Frame {
            base: self.base,
            pc: self.pc,
        });
        let mut depth = 0;
        let mut coroutine = self.coroutine();
        let mut stack = self.stack;
        while let Some(frame) = walk
            && depth < SPLIT_DEPTH
        {
            // SAFETY: the stack is the running task's, suspended at a safepoint.
            unsafe {
                // At its head a function has its arguments in place, and no other register.
                let has_loop = depth > 0 || !self.is_entering() || self.n == BODY_ARGUMENTS;
                if has_loop
                    && let Some(proto) = self.frame_proto(frame)
                    && proto.parallel_body
                    && !Gc::<Latch>::from_value(get(frame.base, 3)).is_some_and(|l| l.has_failed())
                    && let Some(half) = cut(frame.base, whole)
                {
                    let place = (
                        coroutine.map_or(0, |c| c.as_ptr() as usize),
                        (frame.base as usize - stack as usize) / 8,
                    );
                    outermost = Some(LatentLoop {
                        base: frame.base,
                        cut: half,
                        place,
                    });
                }
                // Below a coroutine's first frame are those of whoever resumed it.
                walk = frame.caller().or_else(|| {
                    stack = coroutine?.resumers_stack();
                    let (frame, outer) = coroutine?.resumed_from();
                    coroutine = outer;
                    Some(frame)
                });
            }
            depth += 1;
        }
        outermost
    }

    fn boxed(&mut self, n: Number) -> Result<Value, crate::heap::NeedMemory> {
        match n {
            Number::Integer(i) => self.heap.integer(i),
            Number::Float(f) => Ok(Value::float(f)),
        }
    }
}

/// Where a loop's remaining iterations are cut, in the middle or (`whole`) before the first: the last index of what is kept and the
/// first of what is given away; `None` if there are none left.
///
/// # Safety
/// `base` is the frame of a parallel loop's body, with its arguments in place.
unsafe fn cut(base: *mut u64, whole: bool) -> Option<(Number, Number)> {
    // SAFETY: its first registers are index, limit and step.
    let (index, limit, step) = unsafe { (get(base, 0), get(base, 1), get(base, 2)) };
    if let (Some(i), Some(end), Some(by)) =
        (index.as_integer(), limit.as_integer(), step.as_integer())
    {
        let distance = if by > 0 {
            (end as u64).wrapping_sub(i as u64)
        } else {
            (i as u64).wrapping_sub(end as u64)
        };
        // Iterations after the one that is running.
        let left = distance / by.unsigned_abs();
        if left == 0 {
            return None;
        }
        let kept = if whole { 0 } else { left / 2 };
        let last = i.wrapping_add(by.wrapping_mul(kept as i64));
        return Some((
            Number::Integer(last),
            Number::Integer(last.wrapping_add(by)),
        ));
    }
    let (i, end, by) = (index.as_float()?, limit.as_float()?, step.as_float()?);
    let left = number::floor((end - i) / by);
    // A split must add up to the same indices: floats are split only where the sums are exact integers.
    let exact = |f: f64| number::float_to_integer(f).is_some_and(|n| n.unsigned_abs() < 1 << 52);
    if left < 1.0 || !exact(i) || !exact(by) || !exact(left) {
        return None;
    }
    let last = i + by
        * if whole {
            0.0
        } else {
            number::floor(left / 2.0)
        };
    Some((Number::Float(last), Number::Float(last + by)))
}
