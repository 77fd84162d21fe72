//! Counting instructions, and taking a core from its task after so many of them.
//!
//! A core that counts has another table of handlers ([`METERED`]): each entry counts and goes on to the plain handler. Cores that do not
//! count have the plain table and pay nothing. With every instruction counted, a core can be made to stop before any of them, which
//! is what [`turns`](crate::turns) needs to run many cores on one thread.
//!
//! The counters also measure paths ([`spans`](crate::turns::spans)): three instructions mark where the iterations of a parallel
//! loop begin and end.

use core::sync::atomic::AtomicU32;

use super::core_state::Vm;
use super::dispatch::{Exit, HANDLERS, Handler, closure_of, get};
use crate::bytecode::instructions::{Op, a};
use crate::object::Proto;
use crate::race::Races;
use crate::turns::spans::Paths;

/// A core's count of instructions, while it counts.
#[derive(Default)]
pub(crate) struct Meter {
    /// Instructions begun so far.
    pub executed: u64,
    /// Before the next instruction the core is taken from its task if `executed` has come to this.
    pub stop: u64,
    /// The paths that lead to the running task's next instruction, if paths are measured.
    pub paths: Option<Paths>,
    /// Who is told of accesses, if data races are looked for.
    pub races: Option<&'static Races>,
}

/// Whether a task may be left before this instruction: not while values that a call left open lie above its frame.
fn may_leave_before(ins: u32) -> bool {
    !matches!(
        Op::of(ins),
        Some(Op::CALLM | Op::TCALLM | Op::RETM | Op::TLISTM)
    )
}

/// Leaves the task before the instruction.
#[cold]
#[inline(never)]
pub(super) unsafe extern "sysv64" fn switch(
    pc: *const AtomicU32,
    base: *mut u64,
    ins: u64,
    k: *const Proto,
    vm: *mut Vm,
) -> Exit {
    // SAFETY: as for all handlers; the instruction lies before `pc`.
    unsafe {
        let core = &raw mut (*vm).core;
        if !may_leave_before(ins as u32) {
            (*core).meter.executed += 1;
            return HANDLERS[(ins & 0xff) as usize](pc, base, ins, k, vm);
        }
        (*core).pc = pc.sub(1);
        (*core).base = base;
        (*core).n = (ins >> 32) as usize;
        Exit::Switched
    }
}

macro_rules! metered {
    ($($(#[$doc:meta])* $name:ident($ins:ident, $base:ident, $vm:ident) $mark:block)*) => {$(
        $(#[$doc])*
        unsafe extern "sysv64" fn $name(
            pc: *const AtomicU32,
            $base: *mut u64,
            $ins: u64,
            k: *const Proto,
            $vm: *mut Vm,
        ) -> Exit {
            // SAFETY: as for all handlers: the arguments are handed on unchanged.
            unsafe {
                let meter = &raw mut (*$vm).core.meter;
                if (*meter).executed >= (*meter).stop {
                    return switch(pc, $base, $ins, k, $vm);
                }
                (*meter).executed += 1;
                $mark
                HANDLERS[($ins & 0xff) as usize](pc, $base, $ins, k, $vm)
            }
        }
    )*};
}

metered! {
    counted(ins, base, vm) {}
    /// `FUNC` and `FUNCV`: the body of a parallel loop begins here.
    enters(ins, base, vm) {
        if (*meter_of(vm)).paths.is_some() && closure_of(base).proto().parallel_body {
            enter_loop(vm, base);
        }
    }
    /// `PFORLOOP`: an iteration ends.
    iterates(ins, base, vm) {
        if (*meter_of(vm)).paths.is_some() {
            mark(vm, base, Paths::iteration_ended);
        }
    }
    /// `PJOIN`: the loop has ended, as far as this task ran it.
    joins(ins, base, vm) {
        if (*meter_of(vm)).paths.is_some() {
            let latch = get(base, a(ins as u32));
            mark(vm, base, |paths, frame, executed| paths.loop_ended(frame, executed, latch));
        }
    }
}

unsafe fn meter_of(vm: *mut Vm) -> *mut Meter {
    // SAFETY: the core's own machine.
    unsafe { &raw mut (*vm).core.meter }
}

/// Calls `what` with the paths, the frame's distance from the stack's first slot, and the instructions so far.
#[inline(never)]
unsafe fn mark(vm: *mut Vm, base: *mut u64, what: impl FnOnce(&mut Paths, usize, u64)) {
    // SAFETY: the core's own machine, which nobody else refers to meanwhile; `base` is in its task's stack.
    let core = unsafe { &mut (*vm).core };
    let frame = (base as usize - core.stack as usize) / 8;
    let executed = core.meter.executed;
    if let Some(paths) = &mut core.meter.paths {
        what(paths, frame, executed);
    }
}

#[inline(never)]
unsafe fn enter_loop(vm: *mut Vm, base: *mut u64) {
    // SAFETY: a body is called with index, limit, step and latch.
    unsafe {
        let (index, limit, step) = (get(base, 0), get(base, 1), get(base, 2));
        let iterations = match (index.as_integer(), limit.as_integer(), step.as_integer()) {
            (Some(i), Some(end), Some(by)) if by != 0 => i.abs_diff(end) / by.unsigned_abs() + 1,
            _ => 1,
        };
        // A piece of a loop that was split: its path began with the whole loop.
        let is_piece = (*vm)
            .core
            .task
            .is_some_and(|task| !task.fields().latch.get().is_null())
            && base == (*vm).core.stack.add(2);
        mark(vm, base, |paths, frame, executed| {
            paths.loop_begins(frame, executed, if is_piece { 1 } else { iterations });
        });
    }
}

/// The handlers of a core that counts, by opcode.
pub(crate) static METERED: [Handler; 256] = {
    let mut table: [Handler; 256] = [counted; 256];
    table[Op::FUNC as usize] = enters;
    table[Op::FUNCV as usize] = enters;
    table[Op::PFORLOOP as usize] = iterates;
    table[Op::PJOIN as usize] = joins;
    table
};
