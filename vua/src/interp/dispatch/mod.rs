//! One handler for each instruction.
//!
//! A handler ends in a call of the next instruction's handler, found in the core's table. All have the same signature
//! and nothing to drop, so an optimising build makes that call a jump (the fixed points of the design record the measurement);
//! the arguments are then the interpreter's registers. Cold paths are calls in tail position too: a handler with a call in its middle would
//! save registers on every entry.

use core::sync::atomic::{AtomicU32, Ordering};

use super::core_state::Vm;
use super::frame::{Link, SLACK};
use super::native::Throw;
use super::throw::Leave;
use super::{call as calls, close, index, loops as loop_paths, memory as memory_paths, operate};
use crate::bytecode::instructions::{self as operand, Op, j};
use crate::heap::flags;
use crate::object::{Closure, Gc, Proto};
use crate::table::Table;
use crate::value::{Tag, Value};

/// The address of the next instruction, register 0, the instruction, the running function's prototype, and the core.
///
/// The instruction is the low half of its word; at a function's head the high half is the number of arguments. It is the third
/// argument because bits 8 to 15 of `rdx` are a register of their own to the machine; and there are five because what is left of the registers that
/// a function need not save is then enough for most handlers.
pub(crate) type Handler =
    unsafe extern "sysv64" fn(*const AtomicU32, *mut u64, u64, *const Proto, *mut Vm) -> Exit;

/// Why the interpreter was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Exit {
    /// The task's function returned: `Core::n` results from the `Core::from`.
    Finished,
    /// The task waits for what `Core::wait` says.
    Waiting,
    /// The task made way for others.
    Preempted,
    /// An error that nobody caught: `Core::error`.
    Failed,
    /// The task was cancelled.
    Cancelled,
    /// The core was taken from the task, which goes on where it is when the core gets its next [turn](Vm::turn).
    Switched,
}

/// Operands of the instruction in the low half of a handler's argument.
#[inline(always)]
fn a(word: u64) -> usize {
    operand::a(word as u32)
}

#[inline(always)]
fn b(word: u64) -> usize {
    operand::b(word as u32)
}

#[inline(always)]
fn c(word: u64) -> usize {
    operand::c(word as u32)
}

#[inline(always)]
fn d(word: u64) -> usize {
    operand::d(word as u32)
}

#[inline(always)]
fn signed_d(word: u64) -> isize {
    operand::signed_d(word as u32)
}

/// The instruction, for operands that are to be taken out of it only once `known` is known: the second byte of `rdx`, which operand A is, can be moved to
/// few registers, and a handler that wants it there too early has to save one. Makes no code.
#[inline(always)]
fn after(word: u64, known: u64) -> u64 {
    let mut word = word;
    #[cfg(not(miri))]
    // SAFETY: no instructions.
    unsafe {
        core::arch::asm!("", inout("rdx") word, in("r9") known, options(pure, nomem, nostack, preserves_flags));
    }
    let _ = (&mut word, known);
    word
}

/// The same for a float.
#[inline(always)]
fn after_float(word: u64, known: f64) -> u64 {
    let mut word = word;
    #[cfg(not(miri))]
    // SAFETY: no instructions.
    unsafe {
        core::arch::asm!("", inout("rdx") word, in("xmm0") known, options(pure, nomem, nostack, preserves_flags));
    }
    let _ = (&mut word, known);
    word
}

/// What instruction lies at an address.
#[inline(always)]
unsafe fn word_at(pc: *const AtomicU32) -> u64 {
    // SAFETY: an instruction lies there.
    unsafe { (*pc).load(Ordering::Relaxed) as u64 }
}

#[inline(always)]
pub(crate) unsafe fn get(base: *const u64, register: usize) -> Value {
    // SAFETY: the register is in the frame and tagged, so it holds a value.
    unsafe { Value::from_bits(*base.add(register)) }
}

#[inline(always)]
pub(crate) unsafe fn put(base: *mut u64, register: usize, value: Value) {
    // SAFETY: the register is in the frame.
    unsafe { *base.add(register) = value.to_bits() }
}

#[inline(always)]
unsafe fn get_float(base: *const u64, register: usize) -> f64 {
    // SAFETY: the register is in the frame.
    f64::from_bits(unsafe { *base.add(register) })
}

#[inline(always)]
unsafe fn get_integer(base: *const u64, register: usize) -> i64 {
    // SAFETY: the register is in the frame.
    unsafe { *base.add(register) as i64 }
}

#[inline(always)]
unsafe fn get_word(base: *const u64, register: usize) -> u64 {
    // SAFETY: the register is in the frame.
    unsafe { *base.add(register) }
}

/// The first of a prototype's constants, as if they were slots.
#[inline(always)]
unsafe fn constants(k: *const Proto) -> *const u64 {
    // SAFETY: they lie behind the prototype.
    unsafe { k.add(1).cast() }
}

#[inline(always)]
unsafe fn constant(k: *const Proto, index: usize) -> Value {
    // SAFETY: the verifier proved the index.
    unsafe { get(constants(k), index) }
}

/// The closure that runs in the frame at `base`.
#[inline(always)]
pub(crate) unsafe fn closure_of(base: *const u64) -> Gc<Closure> {
    // SAFETY: the slot two below a base holds the frame's function.
    unsafe { Gc::from_value_unchecked(Value::from_bits(*base.sub(2))) }
}

/// The prototype of the function in the frame at `base`, which may be a native.
#[inline(always)]
pub(crate) unsafe fn proto_of(base: *const u64) -> *const Proto {
    // SAFETY: natives and closures begin alike.
    unsafe {
        let closure: *const Closure = Value::from_bits(*base.sub(2)).address().cast();
        (*closure).proto.as_ptr()
    }
}

macro_rules! next {
    ($pc:expr, $base:expr, $k:expr, $vm:expr) => {{
        let pc: *const AtomicU32 = $pc;
        let word = (*pc).load(Ordering::Relaxed);
        let handler = *(*$vm).dispatch.get_unchecked((word & 0xff) as usize);
        return handler(pc.add(1), $base, word as u64, $k, $vm);
    }};
    // To a function's head, with so many arguments.
    ($pc:expr, $base:expr, $k:expr, $vm:expr, $n:expr) => {{
        let pc: *const AtomicU32 = $pc;
        let word = (*pc).load(Ordering::Relaxed);
        let handler = *(*$vm).dispatch.get_unchecked((word & 0xff) as usize);
        return handler(pc.add(1), $base, word as u64 | ($n as u64) << 32, $k, $vm);
    }};
}

/// Goes on from what the core says: after a slow path, at the start of a task, after an error was caught.
#[inline(always)]
unsafe fn resume(vm: *mut Vm) -> Exit {
    // SAFETY: whoever saved `pc` and `base` left them consistent.
    unsafe {
        let (pc, base, n) = ((*vm).core.pc, (*vm).core.base, (*vm).core.n);
        let k = proto_of(base);
        next!(pc, base, k, vm, n)
    }
}

/// Runs a slow path, and catches its error if somebody catches it; else says why to leave.
///
/// A function of its own, whose result fits a register: a handler that owned the path's result would have a place in memory that a call
/// knows of, and then its own last call is no jump any more, and the machine stack grows by a frame for each slow path.
#[inline(never)]
unsafe fn run_slow(
    vm: *mut Vm,
    ins: u32,
    path: impl FnOnce(&mut Vm, u32) -> Result<(), super::throw::Leave>,
) -> Option<Exit> {
    // SAFETY: the core's own machine, which nobody else refers to meanwhile.
    let vm = unsafe { &mut *vm };
    let began = vm.core.began();
    match path(vm, ins) {
        Ok(()) => None,
        Err(Leave::Throw(Throw::NeedMemory(need))) => vm.core.begin_again(began, need),
        Err(leave) => vm.core.leave(leave),
    }
}

/// Runs the core's task until it ends, waits or makes way.
///
/// # Safety
/// `vm` is this core's, and its `pc` and `base` are those of its task's suspended function.
pub(crate) unsafe fn enter(vm: *mut Vm) -> Exit {
    // SAFETY: as the caller says.
    unsafe { resume(vm) }
}

macro_rules! handlers {
    ($($(#[$meta:meta])* $name:ident($ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident) $body:block)*) => {$(
        $(#[$meta])*
        #[allow(unused_variables, reason = "all handlers have the same signature")]
        pub(super) unsafe extern "sysv64" fn $name($pc: *const AtomicU32, $base: *mut u64, $ins: u64, $k: *const Proto, $vm: *mut Vm) -> Exit {
            // SAFETY: the verifier proved the operands of every instruction, and `pc`, `base`, `k` and `vm` are handed on from one to the next.
            unsafe { $body }
        }
    )*};
}

/// A slow path: saves the state and runs a function on the core.
macro_rules! slow {
    ($($name:ident => $function:path;)*) => {$(
        #[cold]
        #[inline(never)]
        unsafe extern "sysv64" fn $name(pc: *const AtomicU32, base: *mut u64, word: u64, _k: *const Proto, vm: *mut Vm) -> Exit {
            // SAFETY: as for all handlers.
            unsafe {
                (*vm).core.pc = pc;
                (*vm).core.base = base;
                (*vm).core.n = (word >> 32) as usize;
                match run_slow(vm, word as u32, $function) {
                    None => resume(vm),
                    Some(exit) => exit,
                }
            }
        }
    )*};
}

slow! {
    slow_binary => operate::binary;
    slow_unary => operate::unary;
    slow_compare => operate::compare;
    slow_concat => operate::concat;
    slow_length => operate::length;
    slow_get => index::get;
    slow_set => index::set;
    slow_cell => index::set_cell;
    slow_allocate => calls::allocate;
    slow_list => index::list;
    slow_call => calls::not_a_function;
    slow_enter => calls::enter_slow;
    slow_variadic => calls::enter_variadic;
    slow_vararg => calls::extra_arguments;
    slow_native => calls::native;
    slow_poll => calls::poll;
    slow_for_prepare => loop_paths::prepare;
    slow_for => loop_paths::step;
    slow_parallel_prepare => loop_paths::prepare_parallel;
    slow_parallel => loop_paths::step_parallel;
    slow_join => loop_paths::join;
    slow_to_close => close::mark;
    slow_close => close::close;
    slow_convert => operate::convert;
    slow_tail => calls::tail_call;
    slow_return => calls::return_slow;
    slow_iterate => calls::iterate;
    slow_builtin => loop_paths::builtin;
    slow_memory => memory_paths::typed;
}

macro_rules! slow {
    ($handler:ident, $ins:expr, $pc:ident, $base:ident, $k:ident, $vm:ident) => {
        return $handler($pc, $base, $ins, $k, $vm)
    };
}

/// Takes the `JMP` at `pc` if the condition holds, else skips it.
macro_rules! branch {
    ($condition:expr, $pc:ident, $base:ident, $k:ident, $vm:ident) => {{
        let pc = if $condition {
            $pc.add(1).offset(j((*$pc).load(Ordering::Relaxed)))
        } else {
            $pc.add(1)
        };
        next!(pc, $base, $k, $vm)
    }};
}

mod arithmetic;
mod call;
mod compare;
mod concat;
pub(crate) mod intrinsic;
mod loops;
mod memory;
mod metamethod;
mod moves;
mod raw;
mod table;

use arithmetic::*;
use call::*;
use compare::*;
use concat::*;
use loops::*;
use memory::*;
use metamethod::*;
use moves::*;
use raw::*;
use table::*;

/// No instruction has this number.
unsafe extern "sysv64" fn undefined(
    _: *const AtomicU32,
    _: *mut u64,
    _: u64,
    _: *const Proto,
    _: *mut Vm,
) -> Exit {
    unreachable!("the verifier lets no undefined instruction through")
}

/// The handlers, by opcode.
pub(crate) static HANDLERS: [Handler; 256] = {
    let mut table: [Handler; 256] = [undefined; 256];
    macro_rules! fill {
        ($($op:ident $handler:ident)*) => { $(table[Op::$op as usize] = $handler;)* };
    }
    fill! {
        FUNC func FUNCV funcv NATIVE native MOV mov KVAL kval KVALX kvalx KINT kint KNIL knil KBOOL kbool
        ISLT islt ISNLT isnlt ISLE isle ISNLE isnle ISEQ iseq ISNE isne ISEQK iseqk ISNEK isnek
        ISLTI islti ISNLTI isnlti ISLEI islei ISNLEI isnlei ISGTI isgti ISNGTI isngti ISGEI isgei ISNGEI isngei
        ISLTK isltk ISNLTK isnltk ISLEK islek ISNLEK isnlek ISGTK isgtk ISNGTK isngtk ISGEK isgek ISNGEK isngek
        ISEQI iseqi ISNEI isnei ISEQP iseqp ISNEP isnep
        IST ist ISF isf ISTC istc ISFC isfc JMP jmp LOOP loop_back NOT not NEG neg BNOT bnot LEN len
        ADD add SUB sub MUL mul DIV div MOD modulo IDIV idiv POW pow BAND band BOR bor BXOR bxor SHL shl SHR shr
        ADDK addk SUBK subk MULK mulk DIVK divk MODK modk IDIVK idivk POWK powk BANDK bandk BORK bork BXORK bxork SHLK shlk SHRK shrk KADD kadd KSUB ksub KMUL kmul KDIV kdiv
        CONCAT concat GETCAP getcap GETCELL getcell SETCELL setcell NEWCELL newcell CELLGET cellget CELLSET cellset FNEW fnew
        GGET gget GSET gset TNEW tnew TGET tget TGETS tgets TGETI tgeti TSET tset TSETS tsets TSETI tseti TSETK tsetk TSETSK tsetsk TSETIK tsetik TLIST tlist TLISTM tlist SELF self_
        CALL call CALLM callm TCALL tail TCALLM tail RET return_some RETM return_some RET0 ret0 RET1 ret1 VARG varg
        FORPREP forprep FORLOOP forloop ITERCALL itercall ITERLOOP iterloop TBC tbc CLOSE close
        BUILTIN builtin PFORPREP pforprep PFORLOOP pforloop PJOIN pjoin
        RMOV rmov RKINT rkint RKFLT rkflt RKVAL rkval BOXI boxi BOXF boxf TOI toi TOF tof ITOF itof FTOI convert
        IADD iadd ISUB isub IMUL imul IIDIV raw_divide IMOD raw_divide IAND iand IOR ior IXOR ixor ISHL ishl ISHR ishr INEG ineg INOT inot
        FADD fadd FSUB fsub FMUL fmul FDIV fdiv FMOD raw_divide FIDIV raw_divide FPOW raw_divide FNEG fneg
        ILT ilt ILE ile IEQ ieq INE ine FLT flt FNLT fnlt FLE fle FNLE fnle FEQ feq FNE fne
        IULT iult INULT inult ICMPF icmpf IBITS ibits ISAR isar IROL irol IMULHI imulhi IUDIV raw_divide IUREM raw_divide
        RFORPREP rforprep RFORLOOP rforloop CHECK check SNEW snew SGET sget SSET sset PGET pget PSET pset AGETI ageti AGETF agetf ASETI aseti ASETF asetf ALEN alen COPYREF copyref
        RGETCAP rgetcap RGETCELL rgetcell RSETCELL rsetcell RNEWCELL rnewcell RCELLGET rcellget RCELLSET rcellset
    }
    intrinsic::fill(&mut table);
    table
};
