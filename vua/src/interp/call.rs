//! Calls and returns off the fast path.

use alloc::format;
use core::sync::atomic::{AtomicU32, Ordering};

use smp::safepoint::STOP;

use super::core_state::{Core, NO_STEP, Step, Vm};
use super::dispatch::{Exit, closure_of, get, put};
use super::frame::{Continuation, Frame, HANDLER_SLOTS, Link, MAX_SLOTS, SLACK};
use super::native::{Call, NativeFn, Next, Throw};
use super::throw::{Flow, Leave, fail};
use crate::bytecode::instructions::{Op, a, ad, b, c, d, is_extended, j};
use crate::engine::Metamethod;
use crate::heap::COLLECT;
use crate::object::{Closure, Gc};
use crate::table::{NodeBlock, Table};
use crate::task::{free_stack, new_stack};
use crate::value::{Tag, Value};

/// The code with which a suspended native goes on: `NATIVE` with operand A set, so that its handler takes [`Core::step`] instead of the arguments.
static RESUME_NATIVE: AtomicU32 = AtomicU32::new(ad(Op::NATIVE, 1, 0));

/// Whether this is where a suspended native goes on.
pub(super) fn is_resumed(pc: *const AtomicU32) -> bool {
    core::ptr::eq(pc, &RESUME_NATIVE)
}

/// Where a native's later step runs.
pub(super) fn resumed() -> *const AtomicU32 {
    &RESUME_NATIVE
}

/// How many objects with `__call` a call goes through before it takes them for a cycle.
const MAX_CALL_CHAIN: usize = 2000;

/// Links the frame of a function in slot `at` of a native's frame, which called it and goes on with `state`; the frame's base.
///
/// # Safety
/// The slots up to `at + 1` are in the stack, and the native has `count` arguments.
#[inline(always)]
pub(super) unsafe fn link_to_native(
    base: *mut u64,
    at: usize,
    protected: bool,
    state: u32,
    count: usize,
) -> *mut u64 {
    let distance = at + 2;
    // SAFETY: as the caller says.
    unsafe {
        let callee = base.add(distance);
        *callee.sub(1) = Link::Native {
            protected,
            distance,
            state,
            count,
        }
        .encode();
        callee
    }
}

impl Core {
    /// Prepares to run the native in the frame at `base` again, with [`Core::step`].
    pub(crate) fn resume_native(&mut self, base: *mut u64) {
        self.base = base;
        self.pc = &RESUME_NATIVE;
    }

    /// Makes room for `slots` above `from`, and [`SLACK`] above those. The stack may move: `base` follows, and what `from` was is returned.
    pub(crate) fn ensure(&mut self, from: *mut u64, slots: usize) -> Result<*mut u64, Leave> {
        let free = (self.stack_end as usize).saturating_sub(from as usize) / 8;
        if slots + SLACK <= free {
            return Ok(from);
        }
        // SAFETY: all three point into the task's stack.
        let (used, base, size) = unsafe {
            (
                from.offset_from(self.stack) as usize,
                self.base.offset_from(self.stack) as usize,
                self.stack_end.offset_from(self.stack) as usize,
            )
        };
        let needed = used + slots + SLACK;
        if needed > MAX_SLOTS {
            if !self.handles_overflow() {
                return fail("stack overflow".into());
            }
            if needed > MAX_SLOTS + HANDLER_SLOTS {
                let error = self.engine.handler_error();
                return Err(Leave::Throw(Throw::Handled(error)));
            }
        }
        let limit = if needed > MAX_SLOTS {
            MAX_SLOTS + HANDLER_SLOTS
        } else {
            MAX_SLOTS
        };
        let new_size = needed.max(size * 2).min(limit + SLACK);
        let new = new_stack(&self.heap, new_size)?;
        // SAFETY: the new stack is larger; the old one is the task's own and used by nobody else. `base` may lie above `from`, with arguments at it.
        unsafe {
            core::ptr::copy_nonoverlapping(self.stack, new, size);
            free_stack(&self.heap, self.stack, size);
            self.stack = new;
            self.stack_end = new.add(new_size);
            self.base = new.add(base);
            if let Some(task) = self.task {
                task.fields().stack.set(new);
                task.fields().slots.set(new_size);
            }
            Ok(new.add(used))
        }
    }

    /// Gives back what a message handler got beyond the stack's limit, when its error has been caught and `used` slots are left in use.
    pub(crate) fn shrink(&mut self, used: usize) {
        // SAFETY: all three point into the task's stack.
        let (base, size) = unsafe {
            (
                self.base.offset_from(self.stack) as usize,
                self.stack_end.offset_from(self.stack) as usize,
            )
        };
        // Within the handler, or near the end, the stack stays as it is.
        if size <= MAX_SLOTS + SLACK || used > MAX_SLOTS / 2 {
            return;
        }
        let new_size = (used + SLACK) * 2;
        // Without memory the stack stays as it is: the next overflow comes later, and its handler has less.
        let Ok(new) = new_stack(&self.heap, new_size) else {
            return;
        };
        // SAFETY: what is in use fits the new stack; the old one is the task's own and used by nobody else.
        unsafe {
            core::ptr::copy_nonoverlapping(self.stack, new, (used + SLACK).min(new_size));
            free_stack(&self.heap, self.stack, size);
            self.stack = new;
            self.stack_end = new.add(new_size);
            self.base = new.add(base);
        }
        if let Some(task) = self.task {
            task.fields().stack.set(new);
            task.fields().slots.set(new_size);
        }
    }

    /// Whether a message handler runs for an error at the end of the stack.
    fn handles_overflow(&self) -> bool {
        let mut walk = Some(Frame {
            base: self.base,
            pc: self.pc,
        });
        while let Some(frame) = walk {
            // SAFETY: the frames are those of the running task's stack.
            unsafe {
                // An error there had a frame near the end; the handler's is right above it.
                if (frame.base.offset_from(self.stack) as usize) < MAX_SLOTS - 1024 {
                    return false;
                }
                if let Link::Metamethod {
                    then: Continuation::Handled,
                    ..
                } = frame.link()
                {
                    return true;
                }
                walk = frame.caller();
            }
        }
        false
    }

    /// Gives `count` values at `from` to whoever called the function at `base`, and prepares that to go on.
    pub(crate) fn deliver(&mut self, base: *mut u64, from: *mut u64, count: usize) -> Flow {
        let mut base = base;
        // SAFETY: links lead from frame to frame; results go down to where the callee's frame began, and fewer than wanted are filled up inside the caller's window.
        unsafe {
            loop {
                match Link::decode(*base.sub(1)) {
                    Link::Vua(after) => {
                        let call = (*after.sub(1)).load(Ordering::Relaxed);
                        let to = base.sub(2);
                        let wanted = c(call);
                        if wanted == 0 {
                            core::ptr::copy(from, to, count);
                            self.open = count;
                        } else {
                            let wanted = wanted - 1;
                            core::ptr::copy(from, to, count.min(wanted));
                            for i in count..wanted {
                                put(to, i, Value::NIL);
                            }
                        }
                        self.pc = after;
                        self.base = base.sub(2 + a(call));
                        return Ok(());
                    }
                    Link::Variadic { distance } => base = base.sub(distance),
                    Link::Native {
                        distance,
                        state,
                        count: arguments,
                        ..
                    } => {
                        core::ptr::copy(from, base.sub(2), count);
                        self.step = Step {
                            count: arguments,
                            state,
                            results: count,
                            failed: false,
                            slots: distance - 2 + count,
                        };
                        self.resume_native(base.sub(distance));
                        return Ok(());
                    }
                    Link::Metamethod {
                        distance,
                        then,
                        operand,
                    } => {
                        let value = if count > 0 { get(from, 0) } else { Value::NIL };
                        let pc: *const AtomicU32 =
                            core::ptr::with_exposed_provenance(*base.sub(3) as usize);
                        self.base = base.sub(distance);
                        self.pc = pc;
                        if then == Continuation::Handled {
                            // The frame may be a native's, without an instruction.
                            return Err(Leave::Throw(Throw::Handled(value)));
                        }
                        let word = (*pc.sub(1)).load(Ordering::Relaxed);
                        let extended = is_extended(word);
                        match then {
                            Continuation::Handled => {}
                            Continuation::Store => put(self.base, a(word), value),
                            Continuation::Discard => {}
                            Continuation::Again => {
                                self.pc = pc.sub(1);
                                return Ok(());
                            }
                            Continuation::AgainOpen => {
                                self.open = get(base.sub(4), 0).as_integer().unwrap_or(0) as usize;
                                self.pc = pc.sub(1);
                                return Ok(());
                            }
                            Continuation::UnwindCancelled => {
                                return Err(Leave::Throw(Throw::Cancelled));
                            }
                            Continuation::Unwind => {
                                return Err(Leave::Throw(Throw::Handled(Value::from_bits(
                                    *base.sub(4),
                                ))));
                            }
                            Continuation::Shut => return Err(Leave::Throw(Throw::Shut)),
                            Continuation::Condition | Continuation::NegatedCondition => {
                                self.branch(value.is_truthy() == (then == Continuation::Condition));
                                return Ok(());
                            }
                            Continuation::Concatenate => {
                                put(self.base, operand as usize, value);
                                return super::operate::concat_from(self, word, operand as usize);
                            }
                        }
                        if extended {
                            self.pc = pc.add(1);
                        }
                        return Ok(());
                    }
                    Link::Bottom => {
                        if self.return_from_coroutine(from, count) {
                            return Ok(());
                        }
                        self.base = base;
                        self.from = from;
                        self.n = count;
                        return Err(Leave::Exit(Exit::Finished));
                    }
                }
            }
        }
    }

    /// Takes the `JMP` at `pc`, or skips it.
    pub(crate) fn branch(&mut self, taken: bool) {
        // SAFETY: the verifier proved that a jump follows every comparison.
        unsafe {
            let jump = (*self.pc).load(Ordering::Relaxed);
            self.pc = if taken {
                self.pc.add(1).offset(j(jump))
            } else {
                self.pc.add(1)
            };
        }
    }

    /// Prepares to enter the function in the slot two below `callee` with `count` arguments, or the `__call` metamethod of what is there.
    /// The frame's link is in place.
    pub(crate) fn enter_function(&mut self, callee: *mut u64, count: usize) -> Flow {
        let mut count = count;
        let mut callee = callee;
        // SAFETY: `callee` is a frame on the running task's stack, `count` arguments above it.
        unsafe {
            for _ in 0..MAX_CALL_CHAIN {
                let function = get(callee.sub(2), 0);
                if function.has_tag(Tag::Function) {
                    let closure: *const Closure = function.address().cast();
                    self.pc = (*closure).entry;
                    self.base = callee;
                    self.n = count;
                    return Ok(());
                }
                let handler = self.program.metamethod(function, Metamethod::Call);
                if handler.is_nil() {
                    let caller = Frame {
                        base: self.base,
                        pc: self.pc,
                    };
                    let name = self
                        .called_name(caller)
                        .map_or(alloc::string::String::new(), |name| format!(" ({name})"));
                    return fail(format!(
                        "attempt to call a {} value{}",
                        self.program.type_name(function),
                        name
                    ));
                }
                callee = loop {
                    match self.ensure(callee, count + 1) {
                        Ok(callee) => break callee,
                        Err(Leave::Throw(Throw::NeedMemory(need))) => {
                            // As a frame of its own the arguments are seen by the collector, and the call is not begun anew.
                            self.base = callee;
                            self.n = count;
                            self.slots = count;
                            let relieved = self.relieve_or_fail(need);
                            self.slots = NO_STEP;
                            relieved?;
                            callee = self.base;
                        }
                        Err(other) => return Err(other),
                    }
                };
                core::ptr::copy(callee, callee.add(1), count);
                put(callee, 0, function);
                put(callee.sub(2), 0, handler);
                count += 1;
            }
        }
        fail("'__call' chain too long".into())
    }

    /// Prepares to call a metamethod from the instruction before `pc`, above the frame.
    pub(crate) fn call_metamethod(
        &mut self,
        handler: Value,
        arguments: &[Value],
        then: Continuation,
        operand: u8,
    ) -> Flow {
        // SAFETY: above the registers of the frame there is always room for this.
        unsafe {
            let registers = closure_of(self.base).proto().registers as usize;
            let distance = registers + 3;
            let callee = self.base.add(distance);
            *callee.sub(3) = self.pc.expose_provenance() as u64;
            put(callee.sub(2), 0, handler);
            *callee.sub(1) = Link::Metamethod {
                distance,
                then,
                operand,
            }
            .encode();
            for (i, argument) in arguments.iter().enumerate() {
                put(callee, i, *argument);
            }
            self.enter_function(callee, arguments.len())
        }
    }

    /// Runs a native's step and does what it asks for.
    fn run_native(&mut self, step: Step) -> Flow {
        let base = self.ensure(self.base, step.slots)?;
        self.base = base;
        self.slots = step.slots;
        // SAFETY: the function in a native's frame is a native function, and its word the address of a `NativeFn`.
        let function: NativeFn = unsafe {
            let native = Value::from_bits(*base.sub(2)).as_native();
            match native {
                Some(native) => core::mem::transmute::<*const (), NativeFn>(native.function()),
                None => unreachable!("only natives enter here"),
            }
        };
        let mut call = Call {
            core: self,
            count: step.count,
            state: step.state,
            results: step.results,
            failed: step.failed,
        };
        let next = function(&mut call);
        let step = Step {
            state: call.state,
            slots: core::mem::replace(&mut self.slots, NO_STEP),
            ..step
        };
        self.after_native(next, step)
    }

    /// Does what a native's step asks for; `step` is what it would be run again with.
    pub(crate) fn after_native(&mut self, next: Result<Next, Throw>, step: Step) -> Flow {
        let base = self.base;
        // SAFETY: slots named by the native are in its frame, which `Call` keeps inside the stack.
        let flow = unsafe {
            match next {
                Ok(Next::One(value)) => {
                    put(base.sub(2), 0, value);
                    self.deliver(base, base.sub(2), 1)
                }
                Ok(Next::Nothing) => self.deliver(base, base, 0),
                Ok(Next::Many { at, count }) => self.deliver(base, base.add(at), count),
                Ok(Next::Call {
                    at,
                    arguments,
                    state,
                    protected,
                }) => {
                    let callee = link_to_native(base, at, protected, state, step.count);
                    let result = self.enter_function(callee, arguments);
                    match result {
                        Err(Leave::Throw(throw)) if protected => {
                            // What is called is no function: the error belongs to the call, which catches it.
                            self.base = callee;
                            Err(Leave::Throw(throw))
                        }
                        other => other,
                    }
                }
                Ok(Next::TailCall { at, arguments }) => {
                    put(base.sub(2), 0, get(base, at));
                    core::ptr::copy(base.add(at + 2), base, arguments);
                    self.enter_function(base, arguments)
                }
                Ok(Next::Become(function)) => {
                    put(base.sub(2), 0, function);
                    self.enter_function(base, step.count)
                }
                Ok(Next::Resume { coroutine, state }) => {
                    self.switch_to(coroutine, Step { state, ..step })
                }
                Ok(Next::Shut { coroutine, state }) => {
                    self.switch_to_close(coroutine, Step { state, ..step })
                }
                Ok(Next::Yield { state }) => self.switch_from(Step { state, ..step }),
                Ok(Next::RunInPlace { task, state }) => {
                    self.run_in_place(
                        task,
                        Step {
                            state,
                            results: 0,
                            failed: false,
                            ..step
                        },
                    );
                    Ok(())
                }
                Ok(Next::Wait { until, state }) => {
                    self.step = Step {
                        count: step.count,
                        state,
                        results: 0,
                        failed: false,
                        slots: step.slots,
                    };
                    self.wait = Some(until);
                    self.resume_native(base);
                    Err(Leave::Exit(Exit::Waiting))
                }
                Err(Throw::NeedMemory(need)) => {
                    // The step runs again from its start, or from where it has advanced to.
                    self.step = step;
                    self.resume_native(base);
                    return self.relieve_or_fail(need);
                }
                Err(Throw::Wait(until)) => {
                    self.step = step;
                    self.wait = Some(until);
                    self.resume_native(base);
                    Err(Leave::Exit(Exit::Waiting))
                }
                Err(throw) => Err(Leave::Throw(throw)),
            }
        };
        // The step has had its effects, and must not run again.
        flow.map_err(|leave| match leave {
            Leave::Throw(Throw::NeedMemory(_)) => {
                Leave::Throw(Throw::Value(self.engine.out_of_memory()))
            }
            other => other,
        })
    }
}

/// `NATIVE`.
pub(super) fn native(vm: &mut Vm, ins: u32) -> Flow {
    let step = if a(ins) == 0 {
        Step {
            count: vm.core.n,
            state: 0,
            results: 0,
            failed: false,
            slots: vm.core.n,
        }
    } else {
        vm.core.step
    };
    if vm.control.poll.load(Ordering::Relaxed) != 0 && a(ins) == 0 {
        // The native's head is run again afterwards.
        // SAFETY: the handler advanced past the instruction.
        vm.core.pc = unsafe { vm.core.pc.sub(1) };
        vm.safepoint()?;
        // SAFETY: back behind the instruction.
        vm.core.pc = unsafe { vm.core.pc.add(1) };
    }
    vm.core.run_native(step)
}

/// An allocation of `CELL`, `FNEW`, `TNEW` or `BOXI` failed, or an integer needs a box.
pub(super) fn allocate(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    if Op::of(ins) == Some(Op::BOXI) {
        // SAFETY: the verifier proved the operands.
        unsafe {
            let value = core.heap.integer(*core.base.add(d(ins)) as i64)?;
            put(core.base, a(ins), value);
        }
        return Ok(());
    }
    Err(crate::heap::NeedMemory { bytes: 64 }.into())
}

/// How many arguments a call has: `fixed`, and the open ones behind them if it is the form `open` of the instruction.
fn arguments(core: &Core, ins: u32, fixed: usize, open: Op) -> usize {
    if Op::of(ins) == Some(open) {
        fixed + core.open
    } else {
        fixed
    }
}

/// `CALL` of what is no function.
pub(super) fn not_a_function(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let count = arguments(core, ins, b(ins), Op::CALLM);
    // SAFETY: the call's window is in the frame.
    unsafe {
        let callee = core.base.add(a(ins) + 2);
        *callee.sub(1) = Link::Vua(core.pc).encode();
        core.enter_function(callee, count)
    }
}

/// `FUNC` with something to do at the safepoint, or with too little stack.
pub(super) fn enter_slow(vm: &mut Vm, ins: u32) -> Flow {
    let (registers, parameters, n) = (a(ins), d(ins), vm.core.n);
    // A task that is moved aside here begins at the head again.
    // SAFETY: the handler advanced past the instruction.
    vm.core.pc = unsafe { vm.core.pc.sub(1) };
    vm.core.ensure_base(registers.max(n))?;
    vm.safepoint()?;
    // SAFETY: there is room for the registers; back behind the instruction.
    unsafe {
        for register in n.min(parameters)..registers {
            put(vm.core.base, register, Value::NIL);
        }
        vm.core.pc = vm.core.pc.add(1);
    }
    Ok(())
}

/// `FUNCV`: the frame moves up behind the extra arguments.
pub(super) fn enter_variadic(vm: &mut Vm, ins: u32) -> Flow {
    let (registers, parameters, n) = (a(ins), d(ins), vm.core.n);
    if vm.control.poll.load(Ordering::Relaxed) != 0 {
        // SAFETY: the handler advanced past the instruction.
        vm.core.pc = unsafe { vm.core.pc.sub(1) };
        vm.safepoint()?;
        // SAFETY: back behind the instruction.
        vm.core.pc = unsafe { vm.core.pc.add(1) };
    }
    let core = &mut vm.core;
    // Should there be no room, the function has not begun.
    let entered = core.pc;
    // SAFETY: the head is before.
    core.pc = unsafe { entered.sub(1) };
    core.ensure_base(n + 2 + registers)?;
    core.pc = entered;
    // SAFETY: there is room for both frames.
    unsafe {
        let low = core.base;
        let distance = n + 2;
        let high = low.add(distance);
        *high.sub(2) = *low.sub(2);
        *high.sub(1) = Link::Variadic { distance }.encode();
        for i in 0..registers {
            if i < parameters && i < n {
                put(high, i, get(low, i));
                put(low, i, Value::NIL);
            } else {
                put(high, i, Value::NIL);
            }
        }
        core.base = high;
    }
    Ok(())
}

impl Core {
    /// Makes room for `slots` registers in the running frame.
    pub(crate) fn ensure_base(&mut self, slots: usize) -> Flow {
        self.base = self.ensure(self.base, slots)?;
        Ok(())
    }
}

/// `VARG`.
pub(super) fn extra_arguments(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: only variadic functions have this instruction, so the frame's link says how far down the arguments are.
    unsafe {
        let Link::Variadic { distance } = Link::decode(*core.base.sub(1)) else {
            unreachable!("the verifier lets only variadic functions have VARG")
        };
        let parameters = closure_of(core.base).proto().parameters as usize;
        let extra = (distance - 2).saturating_sub(parameters);
        let wanted = if d(ins) == 0 { extra } else { d(ins) - 1 };
        core.ensure_base(a(ins) + wanted)?;
        let from = core.base.sub(distance).add(parameters);
        for i in 0..wanted {
            put(
                core.base,
                a(ins) + i,
                if i < extra { get(from, i) } else { Value::NIL },
            );
        }
        if d(ins) == 0 {
            core.open = extra;
        }
    }
    Ok(())
}

/// A safepoint at a loop's end; `pc` is the jump's target already.
pub(super) fn poll(vm: &mut Vm, ins: u32) -> Flow {
    if Op::of(ins) == Some(Op::LOOP)
        && vm.control.poll.load(Ordering::Relaxed) & (STOP | COLLECT) != 0
    {
        vm.core.forget_temporaries();
    }
    vm.safepoint()
}

/// `TCALL`, `TCALLM`.
pub(super) fn tail_call(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let count = arguments(core, ins, d(ins), Op::TCALLM);
    // SAFETY: the window is in the frame; the frame below it is given up.
    unsafe {
        let function = get(core.base, a(ins));
        if !function.has_tag(Tag::Function) {
            // Let the handler of `__call`, or the error, see the call where it stands; the results are then returned from here.
            if core.program.metamethod(function, Metamethod::Call).is_nil() {
                let name = core
                    .called_name(Frame {
                        base: core.base,
                        pc: core.pc,
                    })
                    .map_or(alloc::string::String::new(), |name| format!(" ({name})"));
                return fail(format!(
                    "attempt to call a {} value{}",
                    core.program.type_name(function),
                    name
                ));
            }
        }
        let arguments = core.base.add(a(ins) + 2);
        if function.as_native().is_some() {
            // Called from here, as in Lua, so that its errors find this function; the next instruction returns its results.
            *arguments.sub(1) = Link::Vua(core.pc).encode();
            return core.enter_function(arguments, count);
        }
        let mut base = core.base;
        while let Link::Variadic { distance } = Link::decode(*base.sub(1)) {
            base = base.sub(distance);
        }
        put(base.sub(2), 0, function);
        core::ptr::copy(arguments, base, count);
        core.enter_function(base, count)
    }
}

/// `RET` and its kin, when the caller is not a plain call or wants an open number of results.
pub(super) fn return_slow(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let count = match Op::of(ins) {
        Some(Op::RET0) => 0,
        Some(Op::RET1) => 1,
        Some(Op::RETM) => d(ins) + core.open,
        _ => d(ins),
    };
    // SAFETY: the results are in the frame.
    let from = unsafe { core.base.add(a(ins)) };
    core.deliver(core.base, from, count)
}

/// `ITERCALL`: `next` on a table is run in place, anything else is called.
///
/// A loop over `next` is an iteration that survives growth: at its first step the iterator's register, which nothing else reads, gets the table's
/// block of nodes in place of `next`. A program never sees such a value, so it cannot make up one either.
pub(super) fn iterate(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    // SAFETY: the verifier proved the window, four registers below it included.
    unsafe {
        let window = core.base.add(a(ins));
        let (function, state, control) = (
            get(window.sub(4), 0),
            get(window.sub(3), 0),
            get(window.sub(2), 0),
        );
        if let Some(table) = state.as_table()
            && let Some(snapshot) = snapshot_of(function, table)
        {
            put(window.sub(4), 0, snapshot);
            let wanted = c(ins).saturating_sub(1);
            match table.next_in(
                &core.heap,
                Gc::<NodeBlock>::from_value(snapshot).map_or(Value::NIL, Gc::value),
                control,
                &mut || core.pause(),
            ) {
                Ok(entry) => {
                    let (key, value) = entry.unwrap_or((Value::NIL, Value::NIL));
                    for i in 0..wanted {
                        put(
                            window,
                            i,
                            if i == 0 {
                                key
                            } else if i == 1 {
                                value
                            } else {
                                Value::NIL
                            },
                        );
                    }
                    return Ok(());
                }
                Err(_) => return fail("invalid key to 'next'".into()),
            }
        }
        put(window, 0, function);
        put(window, 2, state);
        put(window, 3, control);
        let callee = window.add(2);
        *callee.sub(1) = Link::Vua(core.pc).encode();
        core.enter_function(callee, 2)
    }
}

/// What stands for the iteration of a table in the iterator's register, if that holds `next` or stands for one already. `next` itself goes on to stand for
/// the iteration of a table that has no nodes: its keys are in the order of their numbers.
#[inline]
fn snapshot_of(iterator: Value, table: Gc<Table>) -> Option<Value> {
    if let Some(native) = iterator.as_native() {
        if native.function() != crate::library::base::next as NativeFn as *const () {
            return None;
        }
        let snapshot = table.begin_iteration();
        return Some(if snapshot.is_nil() {
            iterator
        } else {
            snapshot
        });
    }
    Gc::<NodeBlock>::from_value(iterator).map(|_| iterator)
}
