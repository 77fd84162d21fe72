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
use super::{call as calls, close, index, loops, memory as memory_paths, operate};
use crate::bytecode::CaptureSource;
use crate::bytecode::instructions::{self as operand, Op, j};
use crate::heap::flags;
use crate::number::{self, power};
use crate::object::{Cell, Closure, Gc, Proto};
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
    slow_for_prepare => loops::prepare;
    slow_for => loops::step;
    slow_parallel_prepare => loops::prepare_parallel;
    slow_parallel => loops::step_parallel;
    slow_join => loops::join;
    slow_to_close => close::mark;
    slow_close => close::close;
    slow_convert => operate::convert;
    slow_tail => calls::tail_call;
    slow_return => calls::return_slow;
    slow_iterate => calls::iterate;
    slow_builtin => loops::builtin;
    slow_memory => memory_paths::typed;
}

macro_rules! slow {
    ($handler:ident, $ins:expr, $pc:ident, $base:ident, $k:ident, $vm:ident) => {
        return $handler($pc, $base, $ins, $k, $vm)
    };
}

/// `+ - *`: two inline integers first, then two floats. Of two values that are not both floats one is, as a double, a NaN, and so is the sum; a
/// result that is none needs no look at the operands.
macro_rules! arithmetic {
    ($($name:ident $name_k:ident $mixed:ident $mixed_k:ident $integer:ident $float:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                if Value::is_inline_integer_at(base.add(b(ins))) && Value::is_inline_integer_at(base.add(c(ins))) {
                    if let Some(z) = Value::$integer(get(base, b(ins)), get(base, c(ins))) {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm)
                    }
                    slow!(slow_binary, ins, pc, base, k, vm)
                }
                let z = get_float(base, b(ins)) $float get_float(base, c(ins));
                if !z.is_nan() {
                    put(base, a(ins), Value::from_arithmetic(z));
                    next!(pc, base, k, vm)
                }
                slow!($mixed, ins, pc, base, k, vm)
            }
            $name_k(ins, pc, base, k, vm) {
                let y = constants(k).add(c(ins));
                if Value::is_inline_integer_at(base.add(b(ins))) && Value::is_inline_integer_at(y) {
                    if let Some(z) = Value::$integer(get(base, b(ins)), get(y, 0)) {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm)
                    }
                    slow!(slow_binary, ins, pc, base, k, vm)
                }
                let z = get_float(base, b(ins)) $float get_float(y, 0);
                if !z.is_nan() {
                    put(base, a(ins), Value::from_arithmetic(z));
                    next!(pc, base, k, vm)
                }
                slow!($mixed_k, ins, pc, base, k, vm)
            }
        }
        mixed! { $mixed $mixed_k $float }
    )*};
}

/// An operation of floats on a float and an integer, or on floats that make a NaN.
macro_rules! mixed {
    ($mixed:ident $mixed_k:ident $float:tt) => {
        handlers! {
            #[cold]
            #[inline(never)]
            $mixed(ins, pc, base, k, vm) {
                if let (Some(x), Some(y)) = (inline_to_float(get(base, b(ins))), inline_to_float(get(base, c(ins)))) {
                    put(base, a(ins), Value::float(x $float y));
                    next!(pc, base, k, vm)
                }
                slow!(slow_binary, ins, pc, base, k, vm)
            }
            #[cold]
            #[inline(never)]
            $mixed_k(ins, pc, base, k, vm) {
                if let (Some(x), Some(y)) = (inline_to_float(get(base, b(ins))), inline_to_float(constant(k, c(ins)))) {
                    put(base, a(ins), Value::float(x $float y));
                    next!(pc, base, k, vm)
                }
                slow!(slow_binary, ins, pc, base, k, vm)
            }
        }
    };
}

/// The number that a value is, as a float, unless it is a boxed integer.
#[inline(always)]
fn inline_to_float(value: Value) -> Option<f64> {
    if value.is_inline_integer() {
        Some(value.inline_payload() as f64)
    } else {
        value.as_float()
    }
}

mod call;
mod concat;
pub(crate) mod intrinsic;
mod memory;
mod table;

use call::*;
use concat::*;
use memory::*;
use table::*;

arithmetic! {
    add addk add_mixed add_mixed_k inline_add +;
    sub subk sub_mixed sub_mixed_k inline_sub -;
    mul mulk mul_mixed mul_mixed_k inline_mul *;
}

mixed! { div_mixed div_mixed_k / }

/// Integer operations with a fast path of their own for inline operands whose result is inline.
macro_rules! integer_arithmetic {
    ($($name:ident $name_k:ident $other:ident $other_k:ident |$x:ident, $y:ident| $result:expr;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                if Value::is_inline_integer_at(base.add(b(ins))) && Value::is_inline_integer_at(base.add(c(ins))) {
                    let ($x, $y) = (get(base, b(ins)).inline_payload(), get(base, c(ins)).inline_payload());
                    if let Some(z) = $result {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm)
                    }
                }
                slow!($other, ins, pc, base, k, vm)
            }
            $name_k(ins, pc, base, k, vm) {
                let y = constants(k).add(c(ins));
                if Value::is_inline_integer_at(base.add(b(ins))) && Value::is_inline_integer_at(y) {
                    let ($x, $y) = (get(base, b(ins)).inline_payload(), get(y, 0).inline_payload());
                    if let Some(z) = $result {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm)
                    }
                }
                slow!($other_k, ins, pc, base, k, vm)
            }
        }
    )*};
}

/// The remainder of a division by a positive number. Divisions of 32 bits take a machine half the time.
#[inline(always)]
fn remainder(x: i64, y: i64) -> i64 {
    if (x | y) as u64 >> 32 == 0 {
        (x as u32 % y as u32) as i64
    } else {
        x.rem_euclid(y)
    }
}

integer_arithmetic! {
    // Divisors of 1 and above need no care for zero or overflow.
    modulo modk mod_float mod_float_k |x, y| if y > 0 { Value::inline_integer(remainder(x, y)) } else { None };
    idiv idivk idiv_float idiv_float_k |x, y| if y > 0 { Value::inline_integer(x.div_euclid(y)) } else { None };
    band bandk slow_binary slow_binary |x, y| Value::inline_integer(x & y);
    bor bork slow_binary slow_binary |x, y| Value::inline_integer(x | y);
    bxor bxork slow_binary slow_binary |x, y| Value::inline_integer(x ^ y);
    shl shlk slow_binary slow_binary |x, y| if (0..64).contains(&y) { Value::inline_integer(x << y) } else { None };
    shr shrk slow_binary slow_binary |x, y| if (0..64).contains(&y) { Value::inline_integer((x as u64 >> y) as i64) } else { None };
}

/// `%` and `//` of floats, or of a float and an integer.
macro_rules! float_division {
    ($($name:ident $name_k:ident $result:path;)*) => {$(
        handlers! {
            #[inline(never)]
            $name(ins, pc, base, k, vm) {
                let (x, y) = (get(base, b(ins)), get(base, c(ins)));
                if x.is_float() | y.is_float() && let (Some(x), Some(y)) = (inline_to_float(x), inline_to_float(y)) {
                    put(base, a(ins), Value::float($result(x, y)));
                    next!(pc, base, k, vm)
                }
                slow!(slow_binary, ins, pc, base, k, vm)
            }
            #[inline(never)]
            $name_k(ins, pc, base, k, vm) {
                let (x, y) = (get(base, b(ins)), constant(k, c(ins)));
                if x.is_float() | y.is_float() && let (Some(x), Some(y)) = (inline_to_float(x), inline_to_float(y)) {
                    put(base, a(ins), Value::float($result(x, y)));
                    next!(pc, base, k, vm)
                }
                slow!(slow_binary, ins, pc, base, k, vm)
            }
        }
    )*};
}

float_division! {
    mod_float mod_float_k number::float_modulo;
    idiv_float idiv_float_k number::float_floor_div;
}

handlers! {
    div(ins, pc, base, k, vm) {
        let z = get_float(base, b(ins)) / get_float(base, c(ins));
        if !z.is_nan() {
            put(base, a(ins), Value::from_arithmetic(z));
            next!(pc, base, k, vm)
        }
        slow!(div_mixed, ins, pc, base, k, vm)
    }
    divk(ins, pc, base, k, vm) {
        let z = get_float(base, b(ins)) / get_float(constants(k), c(ins));
        if !z.is_nan() {
            put(base, a(ins), Value::from_arithmetic(z));
            next!(pc, base, k, vm)
        }
        slow!(div_mixed_k, ins, pc, base, k, vm)
    }
    neg(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        if let Some(f) = x.as_float() {
            put(base, a(ins), Value::float(-f));
            next!(pc, base, k, vm)
        }
        if x.is_inline_integer() && let Some(z) = Value::inline_integer(-x.inline_payload()) {
            put(base, a(ins), z);
            next!(pc, base, k, vm)
        }
        slow!(slow_unary, ins, pc, base, k, vm)
    }
    bnot(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        if x.is_inline_integer() && let Some(z) = Value::inline_integer(!x.inline_payload()) {
            put(base, a(ins), z);
            next!(pc, base, k, vm)
        }
        slow!(slow_unary, ins, pc, base, k, vm)
    }
    not(ins, pc, base, k, vm) {
        put(base, a(ins), Value::boolean(!get(base, d(ins)).is_truthy()));
        next!(pc, base, k, vm)
    }

    mov(ins, pc, base, k, vm) {
        put(base, a(ins), get(base, d(ins)));
        next!(pc, base, k, vm)
    }
    kval(ins, pc, base, k, vm) {
        put(base, a(ins), constant(k, d(ins)));
        next!(pc, base, k, vm)
    }
    kvalx(ins, pc, base, k, vm) {
        put(base, a(ins), constant(k, (*pc).load(Ordering::Relaxed) as usize));
        next!(pc.add(1), base, k, vm)
    }
    kint(ins, pc, base, k, vm) {
        put(base, a(ins), Value::small(signed_d(ins) as i32));
        next!(pc, base, k, vm)
    }
    knil(ins, pc, base, k, vm) {
        let mut register = a(ins);
        while register <= d(ins) {
            put(base, register, Value::NIL);
            register += 1;
        }
        next!(pc, base, k, vm)
    }
    kbool(ins, pc, base, k, vm) {
        put(base, a(ins), Value::boolean(d(ins) != 0));
        next!(pc, base, k, vm)
    }

    jmp(ins, pc, base, k, vm) {
        next!(pc.offset(j(ins as u32)), base, k, vm)
    }
    loop_back(ins, pc, base, k, vm) {
        let pc = pc.offset(j(ins as u32));
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
            slow!(slow_poll, ins, pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }
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

macro_rules! comparison {
    ($($name:ident $other:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            /// A float and an integer, whose 48 bits are exact as a float; a NaN; strings.
            #[inline(never)]
            $other(ins, pc, base, k, vm) {
                let (x, y) = (get(base, a(ins)), get(base, d(ins)));
                if let (Some(x), Some(y)) = (inline_to_float(x), inline_to_float(y)) {
                    branch!((x $op y) ^ $negate, pc, base, k, vm)
                }
                if let (Some(x), Some(y)) = (x.as_str(), y.as_str()) {
                    branch!((x.bytes() $op y.bytes()) ^ $negate, pc, base, k, vm)
                }
                slow!(slow_compare, ins, pc, base, k, vm)
            }
            $name(ins, pc, base, k, vm) {
                if Value::is_inline_integer_at(base.add(a(ins))) && Value::is_inline_integer_at(base.add(d(ins))) {
                    branch!((get(base, a(ins)).inline_order() $op get(base, d(ins)).inline_order()) ^ $negate, pc, base, k, vm)
                }
                // Whatever is no float is a NaN as a double.
                let (x, y) = (get_float(base, a(ins)), get_float(base, d(ins)));
                if !x.is_nan() && !y.is_nan() {
                    branch!((x $op y) ^ $negate, pc, base, k, vm)
                }
                slow!($other, ins, pc, base, k, vm)
            }
        }
    )*};
}

comparison! {
    islt islt_other < false;
    isnlt isnlt_other < true;
    isle isle_other <= false;
    isnle isnle_other <= true;
}

macro_rules! comparison_immediate {
    ($($name:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                if Value::is_inline_integer_at(base.add(a(ins))) {
                    // The integer and the operand, both times 2^16.
                    let y = (ins as i32 as i64) & !0xffff;
                    branch!((get(base, a(ins)).inline_order() $op y) ^ $negate, pc, base, k, vm)
                }
                let x = get_float(base, a(ins));
                if !x.is_nan() {
                    branch!((x $op signed_d(ins) as f64) ^ $negate, pc, base, k, vm)
                }
                slow!(slow_compare, ins, pc, base, k, vm)
            }
        }
    )*};
}

comparison_immediate! {
    islti < false;
    isnlti < true;
    islei <= false;
    isnlei <= true;
    isgti > false;
    isngti > true;
    isgei >= false;
    isngei >= true;
}

/// Equality: at sight, else by content, else perhaps by a metamethod.
macro_rules! equality {
    ($($name:ident $other:ident $y:ident $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                match get(base, a(ins)).equal_at_sight(equality!(@$y base, k, ins)) {
                    Some(equal) => branch!(equal ^ $negate, pc, base, k, vm),
                    None => slow!($other, ins, pc, base, k, vm),
                }
            }
            #[inline(never)]
            $other(ins, pc, base, k, vm) {
                let (x, y) = (get(base, a(ins)), equality!(@$y base, k, ins));
                let equal = x.raw_equal(y);
                let asks = |value: Value| {
                    value.has_tag(Tag::Struct) || value.as_table().is_some_and(|table| table.header().has(flags::METATABLE))
                };
                if equal || !(asks(x) || asks(y)) {
                    branch!(equal ^ $negate, pc, base, k, vm)
                }
                slow!(slow_compare, ins, pc, base, k, vm)
            }
        }
    )*};
    (@register $base:ident, $k:ident, $ins:ident) => { get($base, d($ins)) };
    (@constant $base:ident, $k:ident, $ins:ident) => { constant($k, d($ins)) };
}

equality! {
    iseq iseq_other register false;
    isne isne_other register true;
    iseqk iseqk_other constant false;
    isnek isnek_other constant true;
}

handlers! {
    ist(ins, pc, base, k, vm) { branch!(get(base, d(ins)).is_truthy(), pc, base, k, vm) }
    isf(ins, pc, base, k, vm) { branch!(!get(base, d(ins)).is_truthy(), pc, base, k, vm) }
    istc(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        if x.is_truthy() {
            put(base, a(ins), x);
        }
        branch!(x.is_truthy(), pc, base, k, vm)
    }
    isfc(ins, pc, base, k, vm) {
        let x = get(base, d(ins));
        if !x.is_truthy() {
            put(base, a(ins), x);
        }
        branch!(!x.is_truthy(), pc, base, k, vm)
    }

    #[inline(never)]
    pow(ins, pc, base, k, vm) {
        if let (Some(x), Some(y)) = (inline_to_float(get(base, b(ins))), inline_to_float(get(base, c(ins)))) {
            put(base, a(ins), Value::float(power(x, y)));
            next!(pc, base, k, vm)
        }
        slow!(slow_binary, ins, pc, base, k, vm)
    }
    #[inline(never)]
    powk(ins, pc, base, k, vm) {
        if let (Some(x), Some(y)) = (inline_to_float(get(base, b(ins))), inline_to_float(constant(k, c(ins)))) {
            put(base, a(ins), Value::float(power(x, y)));
            next!(pc, base, k, vm)
        }
        slow!(slow_binary, ins, pc, base, k, vm)
    }

    getcap(ins, pc, base, k, vm) {
        put(base, a(ins), closure_of(base).capture(d(ins)));
        next!(pc, base, k, vm)
    }
    getcell(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        put(base, a(ins), cell.get());
        next!(pc, base, k, vm)
    }
    setcell(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        if cell.header().flags() == 0 {
            cell.set(get(base, a(ins)));
            next!(pc, base, k, vm)
        }
        slow!(slow_cell, ins, pc, base, k, vm)
    }
    newcell(ins, pc, base, k, vm) {
        match Cell::new(&(*vm).core.heap, get(base, d(ins))) {
            Ok(cell) => {
                put(base, a(ins), cell.value());
                next!(pc, base, k, vm)
            }
            Err(_) => slow!(slow_allocate, ins, pc, base, k, vm),
        }
    }
    cellget(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, d(ins)));
        put(base, a(ins), cell.get());
        next!(pc, base, k, vm)
    }
    cellset(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, a(ins)));
        if cell.header().flags() == 0 {
            cell.set(get(base, d(ins)));
            next!(pc, base, k, vm)
        }
        slow!(slow_cell, ins, pc, base, k, vm)
    }
    fnew(ins, pc, base, k, vm) {
        match new_closure(vm, base, d(ins)) {
            Some(closure) => {
                put(base, a(ins), closure.value());
                next!(pc, base, k, vm)
            }
            None => slow!(slow_allocate, ins, pc, base, k, vm),
        }
    }
    tnew(ins, pc, base, k, vm) {
        match new_table(vm, d(ins)) {
            Some(table) => {
                put(base, a(ins), table.value());
                next!(pc, base, k, vm)
            }
            None => slow!(slow_allocate, ins, pc, base, k, vm),
        }
    }
}

/// A table of the sizes in `TNEW`'s operand; `None` if there is no memory. Out of line, so that its places in memory are not the handler's.
#[inline(never)]
unsafe fn new_table(vm: *mut Vm, sizes: usize) -> Option<Gc<Table>> {
    let hashed = sizes >> 11;
    // SAFETY: the core's own machine.
    unsafe {
        Table::new(
            &(*vm).core.heap,
            sizes & 0x7ff,
            if hashed == 0 { 0 } else { 1 << (hashed - 1) },
        )
    }
    .ok()
}

/// A closure of child `index` of the function at `base`; `None` if there is no memory.
#[inline(never)]
unsafe fn new_closure(vm: *mut Vm, base: *mut u64, index: usize) -> Option<Gc<Closure>> {
    // SAFETY: the verifier proved the index, and that every capture's source exists and is of its kind.
    unsafe {
        let outer = closure_of(base);
        let proto = *outer.proto().children.add(index);
        let closure = Closure::new(
            &(*vm).core.heap,
            proto,
            proto.as_ref().captures_length as usize,
        )
        .ok()?;
        for (i, capture) in proto.as_ref().captures().iter().enumerate() {
            let word = match capture.source {
                CaptureSource::Register(register) => *base.add(register as usize),
                CaptureSource::Capture(capture) => outer.raw_capture(capture as usize),
                CaptureSource::Itself => closure.value().to_bits(),
            };
            closure.set_raw_capture(i, word);
        }
        Some(closure)
    }
}

handlers! {
    builtin(ins, pc, base, k, vm) {
        slow!(slow_builtin, ins, pc, base, k, vm)
    }
    tbc(ins, pc, base, k, vm) {
        if get(base, a(ins)).is_truthy() {
            slow!(slow_to_close, ins, pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }
    close(ins, pc, base, k, vm) {
        if (*vm).core.to_close != 0 {
            slow!(slow_close, ins, pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }

    forprep(ins, pc, base, k, vm) {
        let (start, limit, step) = (get(base, a(ins)), get(base, a(ins) + 1), get(base, a(ins) + 2));
        if Value::both_inline_integers(start, limit) && step.is_inline_integer() && step.inline_payload() != 0 {
            let (i, end) = (start.inline_payload(), limit.inline_payload());
            put(base, a(ins) + 3, start);
            let runs = if step.inline_payload() > 0 { i <= end } else { i >= end };
            next!(if runs { pc } else { pc.offset(signed_d(ins)) }, base, k, vm)
        }
        slow!(slow_for_prepare, ins, pc, base, k, vm)
    }
    forloop(ins, pc, base, k, vm) {
        // A step that is an inline integer, 1 here, says that index and limit are inline too: `FORPREP` saw to that. If they were not, the index
        // would still become one, whatever it was before.
        let at = base.add(a(ins));
        if *at.add(2) == Value::small(1).to_bits() {
            let (index, limit) = (get(at, 0), get(at, 1));
            if index.inline_order() >= limit.inline_order() {
                next!(pc, base, k, vm)
            }
            // Below the limit, so there is a next one.
            let value = index.inline_successor();
            put(at, 0, value);
            put(at, 3, value);
            let pc = pc.offset(signed_d(ins));
            if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                slow!(slow_poll, ins, pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        slow!(forloop_by, ins, pc, base, k, vm)
    }
    #[cold]
    #[inline(never)]
    forloop_by(ins, pc, base, k, vm) {
        let at = base.add(a(ins));
        if Value::is_inline_integer_at(at.add(2)) && get(at, 2).inline_order() > 0 {
            // As for a step of 1, but there may be no next one: past the limit, or past 48 bits, which is past the limit too.
            let (next, over) = get(at, 0).inline_order().overflowing_add(get(at, 2).inline_order());
            if over || next > get(at, 1).inline_order() {
                next!(pc, base, k, vm)
            }
            let value = Value::from_inline_order(next);
            put(at, 0, value);
            put(at, 3, value);
            let pc = pc.offset(signed_d(ins));
            if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                slow!(slow_poll, ins, pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        slow!(forloop_any, ins, pc, base, k, vm)
    }
    #[cold]
    #[inline(never)]
    forloop_any(ins, pc, base, k, vm) {
        let (index, limit, step) = (get(base, a(ins)), get(base, a(ins) + 1), get(base, a(ins) + 2));
        if Value::both_inline_integers(index, limit) && step.is_inline_integer() {
            // Three numbers of 48 bits: the sum does not overflow, and if it does not fit 48 bits it is past the limit.
            let (next, end) = (index.inline_payload() + step.inline_payload(), limit.inline_payload());
            if if step.inline_payload() > 0 { next <= end } else { next >= end } {
                let value = Value::inline_integer(next).unwrap_or(Value::NIL);
                put(base, a(ins), value);
                put(base, a(ins) + 3, value);
                let pc = pc.offset(signed_d(ins));
                if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                    slow!(slow_poll, ins, pc, base, k, vm)
                }
                next!(pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        if let (Some(index), Some(limit), Some(step)) = (index.as_float(), limit.as_float(), step.as_float()) {
            let next = index + step;
            if if step > 0.0 { next <= limit } else { limit <= next } {
                put(base, a(ins), Value::from_arithmetic(next));
                put(base, a(ins) + 3, Value::from_arithmetic(next));
                let pc = pc.offset(signed_d(ins));
                if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                    slow!(slow_poll, ins, pc, base, k, vm)
                }
                next!(pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        slow!(slow_for, ins, pc, base, k, vm)
    }
    iterloop(ins, pc, base, k, vm) {
        let control = get(base, a(ins));
        if control.is_nil() {
            next!(pc, base, k, vm)
        }
        put(base, a(ins) - 2, control);
        let pc = pc.offset(signed_d(ins));
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
            slow!(slow_poll, ins, pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }
    pforprep(ins, pc, base, k, vm) { slow!(slow_parallel_prepare, ins, pc, base, k, vm) }
    pforloop(ins, pc, base, k, vm) {
        let (index, limit, step) = (get(base, 0), get(base, 1), get(base, 2));
        // A latch means that the loop was split: another piece may have failed, and then this one ends.
        if Value::both_inline_integers(index, limit) && step.is_inline_integer() && get(base, 3).is_nil()
            && (*vm).control.poll.load(Ordering::Relaxed) == 0 {
            let (next, end) = (index.inline_payload() + step.inline_payload(), limit.inline_payload());
            if if step.inline_payload() > 0 { next <= end } else { next >= end } {
                let value = Value::inline_integer(next).unwrap_or(Value::NIL);
                put(base, 0, value);
                put(base, 4, value);
                next!(pc.offset(signed_d(ins)), base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        slow!(slow_parallel, ins, pc, base, k, vm)
    }
    pjoin(ins, pc, base, k, vm) {
        if get(base, a(ins)).is_nil() {
            next!(pc, base, k, vm)
        }
        slow!(slow_join, ins, pc, base, k, vm)
    }

    rmov(ins, pc, base, k, vm) {
        *base.add(a(ins)) = *base.add(d(ins));
        next!(pc, base, k, vm)
    }
    rkint(ins, pc, base, k, vm) {
        *base.add(a(ins)) = signed_d(ins) as i64 as u64;
        next!(pc, base, k, vm)
    }
    rkflt(ins, pc, base, k, vm) {
        *base.add(a(ins)) = (signed_d(ins) as f64).to_bits();
        next!(pc, base, k, vm)
    }
    rkval(ins, pc, base, k, vm) {
        let value = constant(k, d(ins));
        *base.add(a(ins)) = match value.as_float() {
            Some(f) => f.to_bits(),
            None => value.as_integer().unwrap_or(0) as u64,
        };
        next!(pc, base, k, vm)
    }
    boxi(ins, pc, base, k, vm) {
        if let Some(value) = Value::inline_integer(get_integer(base, d(ins))) {
            put(base, a(ins), value);
            next!(pc, base, k, vm)
        }
        slow!(slow_allocate, ins, pc, base, k, vm)
    }
    boxf(ins, pc, base, k, vm) {
        put(base, a(ins), Value::float(get_float(base, d(ins))));
        next!(pc, base, k, vm)
    }
    toi(ins, pc, base, k, vm) {
        let value = get(base, d(ins));
        if value.is_inline_integer() {
            *base.add(a(ins)) = value.inline_payload() as u64;
            next!(pc, base, k, vm)
        }
        slow!(slow_convert, ins, pc, base, k, vm)
    }
    tof(ins, pc, base, k, vm) {
        let value = get(base, d(ins));
        if let Some(f) = value.as_float() {
            *base.add(a(ins)) = f.to_bits();
            next!(pc, base, k, vm)
        }
        slow!(slow_convert, ins, pc, base, k, vm)
    }
    itof(ins, pc, base, k, vm) {
        *base.add(a(ins)) = (get_integer(base, d(ins)) as f64).to_bits();
        next!(pc, base, k, vm)
    }
    convert(ins, pc, base, k, vm) { slow!(slow_convert, ins, pc, base, k, vm) }
    raw_divide(ins, pc, base, k, vm) { slow!(slow_binary, ins, pc, base, k, vm) }
    ineg(ins, pc, base, k, vm) {
        *base.add(a(ins)) = get_integer(base, d(ins)).wrapping_neg() as u64;
        next!(pc, base, k, vm)
    }
    inot(ins, pc, base, k, vm) {
        *base.add(a(ins)) = !*base.add(d(ins));
        next!(pc, base, k, vm)
    }
    fneg(ins, pc, base, k, vm) {
        *base.add(a(ins)) = (-get_float(base, d(ins))).to_bits();
        next!(pc, base, k, vm)
    }
    rforprep(ins, pc, base, k, vm) {
        let (start, limit, step) = (get_integer(base, a(ins)), get_integer(base, a(ins) + 1), get_integer(base, a(ins) + 2));
        if step == 0 {
            slow!(slow_for_prepare, ins, pc, base, k, vm)
        }
        if if step > 0 { start <= limit } else { start >= limit } {
            // The distance as an unsigned number, divided by the step's magnitude: cannot overflow (Lua 5.4, `forprep`).
            let distance = if step > 0 { (limit as u64).wrapping_sub(start as u64) } else { (start as u64).wrapping_sub(limit as u64) };
            *base.add(a(ins) + 1) = distance / step.unsigned_abs();
            *base.add(a(ins) + 3) = start as u64;
            next!(pc, base, k, vm)
        }
        next!(pc.offset(signed_d(ins)), base, k, vm)
    }
    rforloop(ins, pc, base, k, vm) {
        let left = *base.add(a(ins) + 1);
        if left != 0 {
            *base.add(a(ins) + 1) = left - 1;
            let index = (*base.add(a(ins))).wrapping_add(*base.add(a(ins) + 2));
            *base.add(a(ins)) = index;
            *base.add(a(ins) + 3) = index;
            let pc = pc.offset(signed_d(ins));
            if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                slow!(slow_poll, ins, pc, base, k, vm)
            }
            next!(pc, base, k, vm)
        }
        next!(pc, base, k, vm)
    }
    rgetcap(ins, pc, base, k, vm) {
        *base.add(a(ins)) = closure_of(base).raw_capture(d(ins));
        next!(pc, base, k, vm)
    }
    rgetcell(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        *base.add(a(ins)) = cell.get_raw();
        next!(pc, base, k, vm)
    }
    rsetcell(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        cell.set_raw(*base.add(a(ins)));
        next!(pc, base, k, vm)
    }
    rnewcell(ins, pc, base, k, vm) {
        match Cell::new_raw(&(*vm).core.heap, *base.add(d(ins))) {
            Ok(cell) => {
                put(base, a(ins), cell.value());
                next!(pc, base, k, vm)
            }
            Err(_) => slow!(slow_allocate, ins, pc, base, k, vm),
        }
    }
    rcellget(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, d(ins)));
        *base.add(a(ins)) = cell.get_raw();
        next!(pc, base, k, vm)
    }
    rcellset(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, a(ins)));
        cell.set_raw(*base.add(d(ins)));
        next!(pc, base, k, vm)
    }
}

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

macro_rules! raw_binary {
    ($($name:ident |$x:ident: $type:ident, $y:ident| $result:expr;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                let ($x, $y) = (raw_binary!(@get $type, base, b(ins)), raw_binary!(@get $type, base, c(ins)));
                *base.add(a(ins)) = raw_binary!(@word $type, $result);
                next!(pc, base, k, vm)
            }
        }
    )*};
    (@get i64, $base:ident, $r:expr) => { get_integer($base, $r) };
    (@get f64, $base:ident, $r:expr) => { get_float($base, $r) };
    (@word i64, $e:expr) => { ($e) as u64 };
    (@word f64, $e:expr) => { ($e).to_bits() };
}

raw_binary! {
    iadd |x: i64, y| x.wrapping_add(y);
    isub |x: i64, y| x.wrapping_sub(y);
    imul |x: i64, y| x.wrapping_mul(y);
    iand |x: i64, y| x & y;
    ior |x: i64, y| x | y;
    ixor |x: i64, y| x ^ y;
    ishl |x: i64, y| number::shift_left(x, y);
    ishr |x: i64, y| number::shift_right(x, y);
    isar |x: i64, y| number::shift_right_signed(x, y);
    irol |x: i64, y| x.rotate_left((y & 63) as u32);
    imulhi |x: i64, y| ((x as i128 * y as i128) >> 64) as i64;
    fadd |x: f64, y| x + y;
    fsub |x: f64, y| x - y;
    fmul |x: f64, y| x * y;
    fdiv |x: f64, y| x / y;
}

macro_rules! raw_compare {
    ($($name:ident $get:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm) {
                branch!(($get(base, a(ins)) $op $get(base, d(ins))) ^ $negate, pc, base, k, vm)
            }
        }
    )*};
}

raw_compare! {
    ilt get_integer < false;
    ile get_integer <= false;
    ieq get_integer == false;
    ine get_integer == true;
    flt get_float < false;
    fnlt get_float < true;
    fle get_float <= false;
    fnle get_float <= true;
    feq get_float == false;
    fne get_float == true;
    iult get_word < false;
    inult get_word < true;
}

handlers! {
    icmpf(ins, pc, base, k, vm) {
        let (i, f) = (get_integer(base, a(ins)), get_float(base, b(ins)));
        let holds = match c(ins) >> 1 {
            0 => number::integer_less_than_float(i, f),
            1 => number::integer_less_equal_float(i, f),
            2 => number::float_less_than_integer(f, i),
            3 => number::float_less_equal_integer(f, i),
            _ => number::integer_equals_float(i, f),
        };
        branch!(holds ^ (c(ins) & 1 != 0), pc, base, k, vm)
    }
    ibits(ins, pc, base, k, vm) {
        let x = *base.add(b(ins));
        *base.add(a(ins)) = match c(ins) {
            0 => x.leading_zeros().into(),
            1 => x.trailing_zeros().into(),
            2 => x.count_ones().into(),
            _ => x.swap_bytes(),
        };
        next!(pc, base, k, vm)
    }
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
        IST ist ISF isf ISTC istc ISFC isfc JMP jmp LOOP loop_back NOT not NEG neg BNOT bnot LEN len
        ADD add SUB sub MUL mul DIV div MOD modulo IDIV idiv POW pow BAND band BOR bor BXOR bxor SHL shl SHR shr
        ADDK addk SUBK subk MULK mulk DIVK divk MODK modk IDIVK idivk POWK powk BANDK bandk BORK bork BXORK bxork SHLK shlk SHRK shrk
        CONCAT concat GETCAP getcap GETCELL getcell SETCELL setcell NEWCELL newcell CELLGET cellget CELLSET cellset FNEW fnew
        GGET gget GSET gset TNEW tnew TGET tget TGETS tgets TGETI tgeti TSET tset TSETS tsets TSETI tseti TLIST tlist TLISTM tlist SELF self_
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
