//! What a debugger must know to read a machine that stands still: where the cores' states are, and where in each structure what it shows is.
//!
//! The kernel is built with line tables alone, and the compiler orders fields as it likes. So the positions that `scripts/viridis.gdb` goes by are
//! in the binary as numbers, behind one symbol. Nothing but a debugger reads them.

use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::Machine;
use crate::bytecode::Function;
use crate::interp::{Core, Vm};
use crate::object::{Closure, Debug, NativeFunction, Proto};
use crate::task::Task;
use smp::safepoint::Control;

/// How many positions there are.
const COUNT: usize = 25;

/// What the symbol [`VUA_LAYOUT`] names. All of it is words of eight bytes.
#[repr(C)]
pub(super) struct Layout {
    /// How many positions follow `cores`: another number than the debugger's script knows means that it is for another kernel.
    count: usize,
    /// The cores' machines, each by its address, as the engine that was made last has them; null before.
    machines: AtomicPtr<&'static Machine>,
    /// How many cores there are.
    cores: AtomicUsize,
    /// In the order of `FIELDS` in the script.
    positions: [usize; COUNT],
}

/// Where everything is.
// SAFETY: no other symbol has this name.
#[used]
#[unsafe(no_mangle)]
pub(super) static VUA_LAYOUT: Layout = Layout {
    count: COUNT,
    machines: AtomicPtr::new(core::ptr::null_mut()),
    cores: AtomicUsize::new(0),
    positions: [
        offset_of!(Vm, control) + offset_of!(Control, poll),
        offset_of!(Vm, control) + Control::STATUS,
        offset_of!(Vm, core) + offset_of!(Core, task),
        offset_of!(Vm, core) + offset_of!(Core, pc),
        offset_of!(Vm, core) + offset_of!(Core, base),
        offset_of!(Vm, core) + offset_of!(Core, stack),
        offset_of!(Vm, core) + offset_of!(Core, stack_end),
        offset_of!(Vm, core) + offset_of!(Core, program),
        super::Program::NUMBER,
        Task::STATE,
        offset_of!(Task, stack),
        offset_of!(Task, slots),
        offset_of!(Task, pc),
        offset_of!(Task, base),
        offset_of!(Closure, proto),
        offset_of!(Proto, code),
        offset_of!(Proto, code_length),
        Proto::DEBUG,
        Debug::FUNCTION,
        offset_of!(Function, source),
        offset_of!(Function, name),
        offset_of!(Function, line),
        offset_of!(Function, lines),
        NativeFunction::NAME,
        NativeFunction::NAME_LENGTH,
    ],
};

/// Tells a debugger of these cores.
pub(super) fn show(machines: &'static [&'static Machine]) {
    VUA_LAYOUT
        .machines
        .store(machines.as_ptr().cast_mut(), Ordering::Relaxed);
    VUA_LAYOUT.cores.store(machines.len(), Ordering::Relaxed);
}
