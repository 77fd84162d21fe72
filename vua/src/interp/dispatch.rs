//! One handler for each instruction.
//!
//! A handler ends in a call of the next instruction's handler, found in the core's table. All have the same signature
//! and nothing to drop, so an optimising build makes that call a jump (the fixed points of the design record the measurement);
//! the arguments are then the interpreter's registers. Cold paths are calls in tail position too: a handler with a call in its middle would
//! save registers on every entry.

use core::sync::atomic::{AtomicU32, Ordering};

use super::core_state::Vm;
use super::frame::{Link, SLACK};
use super::{call, close, index, loops, operate};
use crate::bytecode::CaptureSource;
use crate::bytecode::instructions::{Op, a, b, c, d, j, signed_d};
use crate::heap::flags;
use crate::object::{Cell, Closure, Gc};
use crate::table::Table;
use crate::value::{Tag, Value};

/// The instruction, the address of the next one, register 0, the constants, the core, and the number of arguments at a function's head.
pub(crate) type Handler = unsafe extern "sysv64" fn(
    u32,
    *const AtomicU32,
    *mut u64,
    *const Value,
    *mut Vm,
    usize,
) -> Exit;

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
unsafe fn constant(k: *const Value, index: usize) -> Value {
    // SAFETY: the verifier proved the index.
    unsafe { *k.add(index) }
}

/// The closure that runs in the frame at `base`.
#[inline(always)]
pub(crate) unsafe fn closure_of(base: *const u64) -> Gc<Closure> {
    // SAFETY: the slot two below a base holds the frame's function.
    unsafe { Gc::from_value_unchecked(Value::from_bits(*base.sub(2))) }
}

/// The constants of the function in the frame at `base`.
#[inline(always)]
pub(crate) unsafe fn constants_of(base: *const u64) -> *const Value {
    // SAFETY: natives and closures begin alike, and a function's prototype lives with it.
    unsafe {
        let closure: *const Closure = Value::from_bits(*base.sub(2)).address().cast();
        (*closure).proto.as_ref().constants
    }
}

macro_rules! next {
    ($pc:expr, $base:expr, $k:expr, $vm:expr, $n:expr) => {{
        let pc: *const AtomicU32 = $pc;
        let word = (*pc).load(Ordering::Relaxed);
        let handler = *(*$vm).dispatch.get_unchecked((word & 0xff) as usize);
        return handler(word, pc.add(1), $base, $k, $vm, $n);
    }};
}

/// Goes on from what the core says: after a slow path, at the start of a task, after an error was caught.
#[inline(always)]
unsafe fn resume(vm: *mut Vm) -> Exit {
    // SAFETY: whoever saved `pc` and `base` left them consistent.
    unsafe {
        let (pc, base, n) = ((*vm).core.pc, (*vm).core.base, (*vm).core.n);
        let k = constants_of(base);
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
    match path(unsafe { &mut *vm }, ins) {
        Ok(()) => None,
        // SAFETY: as above.
        Err(leave) => unsafe { (*vm).core.leave(leave) },
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
    ($($(#[$meta:meta])* $name:ident($ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident, $n:ident) $body:block)*) => {$(
        $(#[$meta])*
        #[allow(unused_variables, reason = "all handlers have the same signature")]
        unsafe extern "sysv64" fn $name($ins: u32, $pc: *const AtomicU32, $base: *mut u64, $k: *const Value, $vm: *mut Vm, $n: usize) -> Exit {
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
        unsafe extern "sysv64" fn $name(ins: u32, pc: *const AtomicU32, base: *mut u64, _k: *const Value, vm: *mut Vm, n: usize) -> Exit {
            // SAFETY: as for all handlers.
            unsafe {
                (*vm).core.pc = pc;
                (*vm).core.base = base;
                (*vm).core.n = n;
                match run_slow(vm, ins, $function) {
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
    slow_allocate => call::allocate;
    slow_list => index::list;
    slow_call => call::not_a_function;
    slow_enter => call::enter_slow;
    slow_variadic => call::enter_variadic;
    slow_vararg => call::extra_arguments;
    slow_native => call::native;
    slow_poll => call::poll;
    slow_for_prepare => loops::prepare;
    slow_for => loops::step;
    slow_parallel_prepare => loops::prepare_parallel;
    slow_parallel => loops::step_parallel;
    slow_join => loops::join;
    slow_to_close => close::mark;
    slow_close => close::close;
    slow_convert => operate::convert;
    slow_tail => call::tail_call;
    slow_return => call::return_slow;
    slow_iterate => call::iterate;
}

macro_rules! slow {
    ($handler:ident, $ins:ident, $pc:ident, $base:ident, $k:ident, $vm:ident, $n:ident) => {
        return $handler($ins, $pc, $base, $k, $vm, $n)
    };
}

macro_rules! arithmetic {
    ($($name:ident $name_k:ident $integer:ident $float:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm, n) {
                let (x, y) = (get(base, b(ins)), get(base, c(ins)));
                if Value::both_inline_integers(x, y) {
                    if let Some(z) = Value::$integer(x, y) {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm, n)
                    }
                } else if let (Some(x), Some(y)) = (x.as_float(), y.as_float()) {
                    put(base, a(ins), Value::from_arithmetic(x $float y));
                    next!(pc, base, k, vm, n)
                }
                slow!(slow_binary, ins, pc, base, k, vm, n)
            }
            $name_k(ins, pc, base, k, vm, n) {
                let (x, y) = (get(base, b(ins)), constant(k, c(ins)));
                if Value::both_inline_integers(x, y) {
                    if let Some(z) = Value::$integer(x, y) {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm, n)
                    }
                } else if let (Some(x), Some(y)) = (x.as_float(), y.as_float()) {
                    put(base, a(ins), Value::from_arithmetic(x $float y));
                    next!(pc, base, k, vm, n)
                }
                slow!(slow_binary, ins, pc, base, k, vm, n)
            }
        }
    )*};
}

arithmetic! {
    add addk inline_add +;
    sub subk inline_sub -;
    mul mulk inline_mul *;
}

/// Integer operations with a fast path of their own for inline operands whose result is inline.
macro_rules! integer_arithmetic {
    ($($name:ident $name_k:ident |$x:ident, $y:ident| $result:expr;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm, n) {
                let (x, y) = (get(base, b(ins)), get(base, c(ins)));
                if Value::both_inline_integers(x, y) {
                    let ($x, $y) = (x.inline_payload(), y.inline_payload());
                    if let Some(z) = $result {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm, n)
                    }
                }
                slow!(slow_binary, ins, pc, base, k, vm, n)
            }
            $name_k(ins, pc, base, k, vm, n) {
                let (x, y) = (get(base, b(ins)), constant(k, c(ins)));
                if Value::both_inline_integers(x, y) {
                    let ($x, $y) = (x.inline_payload(), y.inline_payload());
                    if let Some(z) = $result {
                        put(base, a(ins), z);
                        next!(pc, base, k, vm, n)
                    }
                }
                slow!(slow_binary, ins, pc, base, k, vm, n)
            }
        }
    )*};
}

integer_arithmetic! {
    // Divisors of 1 and above need no care for zero or overflow.
    modulo modk |x, y| if y > 0 { Value::inline_integer(x.rem_euclid(y)) } else { None };
    idiv idivk |x, y| if y > 0 { Value::inline_integer(x.div_euclid(y)) } else { None };
    band bandk |x, y| Value::inline_integer(x & y);
    bor bork |x, y| Value::inline_integer(x | y);
    bxor bxork |x, y| Value::inline_integer(x ^ y);
    shl shlk |x, y| if (0..64).contains(&y) { Value::inline_integer(x << y) } else { None };
    shr shrk |x, y| if (0..64).contains(&y) { Value::inline_integer((x as u64 >> y) as i64) } else { None };
}

handlers! {
    div(ins, pc, base, k, vm, n) {
        let (x, y) = (get(base, b(ins)), get(base, c(ins)));
        if let (Some(x), Some(y)) = (x.as_float(), y.as_float()) {
            put(base, a(ins), Value::from_arithmetic(x / y));
            next!(pc, base, k, vm, n)
        }
        if Value::both_inline_integers(x, y) {
            put(base, a(ins), Value::from_arithmetic(x.inline_payload() as f64 / y.inline_payload() as f64));
            next!(pc, base, k, vm, n)
        }
        slow!(slow_binary, ins, pc, base, k, vm, n)
    }
    divk(ins, pc, base, k, vm, n) {
        let (x, y) = (get(base, b(ins)), constant(k, c(ins)));
        if let (Some(x), Some(y)) = (x.as_float(), y.as_float()) {
            put(base, a(ins), Value::from_arithmetic(x / y));
            next!(pc, base, k, vm, n)
        }
        if Value::both_inline_integers(x, y) {
            put(base, a(ins), Value::from_arithmetic(x.inline_payload() as f64 / y.inline_payload() as f64));
            next!(pc, base, k, vm, n)
        }
        slow!(slow_binary, ins, pc, base, k, vm, n)
    }
    neg(ins, pc, base, k, vm, n) {
        let x = get(base, d(ins));
        if let Some(f) = x.as_float() {
            put(base, a(ins), Value::float(-f));
            next!(pc, base, k, vm, n)
        }
        if x.is_inline_integer() && let Some(z) = Value::inline_integer(-x.inline_payload()) {
            put(base, a(ins), z);
            next!(pc, base, k, vm, n)
        }
        slow!(slow_unary, ins, pc, base, k, vm, n)
    }
    bnot(ins, pc, base, k, vm, n) {
        let x = get(base, d(ins));
        if x.is_inline_integer() && let Some(z) = Value::inline_integer(!x.inline_payload()) {
            put(base, a(ins), z);
            next!(pc, base, k, vm, n)
        }
        slow!(slow_unary, ins, pc, base, k, vm, n)
    }
    not(ins, pc, base, k, vm, n) {
        put(base, a(ins), Value::boolean(!get(base, d(ins)).is_truthy()));
        next!(pc, base, k, vm, n)
    }

    mov(ins, pc, base, k, vm, n) {
        put(base, a(ins), get(base, d(ins)));
        next!(pc, base, k, vm, n)
    }
    kval(ins, pc, base, k, vm, n) {
        put(base, a(ins), constant(k, d(ins)));
        next!(pc, base, k, vm, n)
    }
    kint(ins, pc, base, k, vm, n) {
        put(base, a(ins), Value::small(signed_d(ins) as i32));
        next!(pc, base, k, vm, n)
    }
    knil(ins, pc, base, k, vm, n) {
        let mut register = a(ins);
        while register <= d(ins) {
            put(base, register, Value::NIL);
            register += 1;
        }
        next!(pc, base, k, vm, n)
    }
    kbool(ins, pc, base, k, vm, n) {
        put(base, a(ins), Value::boolean(d(ins) != 0));
        next!(pc, base, k, vm, n)
    }

    jmp(ins, pc, base, k, vm, n) {
        next!(pc.offset(j(ins)), base, k, vm, n)
    }
    loop_back(ins, pc, base, k, vm, n) {
        let pc = pc.offset(j(ins));
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
            slow!(slow_poll, ins, pc, base, k, vm, n)
        }
        next!(pc, base, k, vm, n)
    }
}

/// Takes the `JMP` at `pc` if the condition holds, else skips it.
macro_rules! branch {
    ($condition:expr, $pc:ident, $base:ident, $k:ident, $vm:ident, $n:ident) => {{
        let pc = if $condition {
            $pc.add(1).offset(j((*$pc).load(Ordering::Relaxed)))
        } else {
            $pc.add(1)
        };
        next!(pc, $base, $k, $vm, $n)
    }};
}

macro_rules! comparison {
    ($($name:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm, n) {
                let (x, y) = (get(base, a(ins)), get(base, d(ins)));
                if Value::both_inline_integers(x, y) {
                    branch!((x.inline_payload() $op y.inline_payload()) ^ $negate, pc, base, k, vm, n)
                }
                if let (Some(x), Some(y)) = (x.as_float(), y.as_float()) {
                    branch!((x $op y) ^ $negate, pc, base, k, vm, n)
                }
                slow!(slow_compare, ins, pc, base, k, vm, n)
            }
        }
    )*};
}

comparison! {
    islt < false;
    isnlt < true;
    isle <= false;
    isnle <= true;
}

macro_rules! comparison_immediate {
    ($($name:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm, n) {
                let x = get(base, a(ins));
                let y = signed_d(ins) as i64;
                if x.is_inline_integer() {
                    branch!((x.inline_payload() $op y) ^ $negate, pc, base, k, vm, n)
                }
                if let Some(x) = x.as_float() {
                    branch!((x $op y as f64) ^ $negate, pc, base, k, vm, n)
                }
                slow!(slow_compare, ins, pc, base, k, vm, n)
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

/// Whether two values are equal, if that can be said without looking into objects.
#[inline(always)]
fn equal_at_sight(x: Value, y: Value) -> Option<bool> {
    if x.is_float() && y.is_float() {
        return Some(x.as_float() == y.as_float());
    }
    if x == y {
        return Some(true);
    }
    // Different inline integers, specials, or an inline value against a reference that is no number.
    let references = x.is_reference() && y.is_reference();
    let no_numbers = !x.is_number() && !y.is_number();
    if Value::both_inline_integers(x, y) || (no_numbers && !references) {
        Some(false)
    } else {
        None
    }
}

handlers! {
    iseq(ins, pc, base, k, vm, n) {
        match equal_at_sight(get(base, a(ins)), get(base, d(ins))) {
            Some(equal) => branch!(equal, pc, base, k, vm, n),
            None => slow!(slow_compare, ins, pc, base, k, vm, n),
        }
    }
    isne(ins, pc, base, k, vm, n) {
        match equal_at_sight(get(base, a(ins)), get(base, d(ins))) {
            Some(equal) => branch!(!equal, pc, base, k, vm, n),
            None => slow!(slow_compare, ins, pc, base, k, vm, n),
        }
    }
    iseqk(ins, pc, base, k, vm, n) {
        match equal_at_sight(get(base, a(ins)), constant(k, d(ins))) {
            Some(equal) => branch!(equal, pc, base, k, vm, n),
            None => slow!(slow_compare, ins, pc, base, k, vm, n),
        }
    }
    isnek(ins, pc, base, k, vm, n) {
        match equal_at_sight(get(base, a(ins)), constant(k, d(ins))) {
            Some(equal) => branch!(!equal, pc, base, k, vm, n),
            None => slow!(slow_compare, ins, pc, base, k, vm, n),
        }
    }
    ist(ins, pc, base, k, vm, n) { branch!(get(base, d(ins)).is_truthy(), pc, base, k, vm, n) }
    isf(ins, pc, base, k, vm, n) { branch!(!get(base, d(ins)).is_truthy(), pc, base, k, vm, n) }
    istc(ins, pc, base, k, vm, n) {
        let x = get(base, d(ins));
        if x.is_truthy() {
            put(base, a(ins), x);
        }
        branch!(x.is_truthy(), pc, base, k, vm, n)
    }
    isfc(ins, pc, base, k, vm, n) {
        let x = get(base, d(ins));
        if !x.is_truthy() {
            put(base, a(ins), x);
        }
        branch!(!x.is_truthy(), pc, base, k, vm, n)
    }

    concat(ins, pc, base, k, vm, n) { slow!(slow_concat, ins, pc, base, k, vm, n) }
    len(ins, pc, base, k, vm, n) { slow!(slow_length, ins, pc, base, k, vm, n) }
    pow(ins, pc, base, k, vm, n) { slow!(slow_binary, ins, pc, base, k, vm, n) }

    getcap(ins, pc, base, k, vm, n) {
        put(base, a(ins), closure_of(base).capture(d(ins)));
        next!(pc, base, k, vm, n)
    }
    getcell(ins, pc, base, k, vm, n) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        put(base, a(ins), cell.get());
        next!(pc, base, k, vm, n)
    }
    setcell(ins, pc, base, k, vm, n) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        if cell.header().flags() == 0 {
            cell.set(get(base, a(ins)));
            next!(pc, base, k, vm, n)
        }
        slow!(slow_cell, ins, pc, base, k, vm, n)
    }
    newcell(ins, pc, base, k, vm, n) {
        match Cell::new(&(*vm).core.heap, get(base, d(ins))) {
            Ok(cell) => {
                put(base, a(ins), cell.value());
                next!(pc, base, k, vm, n)
            }
            Err(_) => slow!(slow_allocate, ins, pc, base, k, vm, n),
        }
    }
    cellget(ins, pc, base, k, vm, n) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, d(ins)));
        put(base, a(ins), cell.get());
        next!(pc, base, k, vm, n)
    }
    cellset(ins, pc, base, k, vm, n) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, a(ins)));
        if cell.header().flags() == 0 {
            cell.set(get(base, d(ins)));
            next!(pc, base, k, vm, n)
        }
        slow!(slow_cell, ins, pc, base, k, vm, n)
    }
    fnew(ins, pc, base, k, vm, n) {
        match new_closure(vm, base, d(ins)) {
            Some(closure) => {
                put(base, a(ins), closure.value());
                next!(pc, base, k, vm, n)
            }
            None => slow!(slow_allocate, ins, pc, base, k, vm, n),
        }
    }
    tnew(ins, pc, base, k, vm, n) {
        match new_table(vm, d(ins)) {
            Some(table) => {
                put(base, a(ins), table.value());
                next!(pc, base, k, vm, n)
            }
            None => slow!(slow_allocate, ins, pc, base, k, vm, n),
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

/// Reads the extension word's constant, a string.
macro_rules! field {
    ($pc:ident, $k:ident) => {
        constant($k, ((*$pc).load(Ordering::Relaxed) & 0xffff) as usize)
    };
}

/// The value of a string field, with the slot hint in the extension word at `pc`; nil if there is none.
#[inline(always)]
unsafe fn get_field(table: Gc<Table>, key: Value, pc: *const AtomicU32) -> Value {
    // SAFETY: the verifier proved that the word is an extension and the constant a string.
    unsafe {
        let word = (*pc).load(Ordering::Relaxed);
        let mut hint = (word >> 16) as u16;
        let value = table.get_str(key, &mut hint);
        if hint != (word >> 16) as u16 {
            (*pc).store((word & 0xffff) | (hint as u32) << 16, Ordering::Relaxed);
        }
        value
    }
}

/// Stores into a string field that is there, with the slot hint at `pc`.
#[inline(always)]
unsafe fn set_field(table: Gc<Table>, key: Value, value: Value, pc: *const AtomicU32) -> bool {
    // SAFETY: as for `get_field`.
    unsafe {
        let word = (*pc).load(Ordering::Relaxed);
        let mut hint = (word >> 16) as u16;
        let done = table.set_str_existing(key, value, &mut hint);
        if hint != (word >> 16) as u16 {
            (*pc).store((word & 0xffff) | (hint as u32) << 16, Ordering::Relaxed);
        }
        done
    }
}

/// Whether nil, just read from this table, is the answer: no metatable that might know better.
#[inline(always)]
fn nil_is_final(table: Gc<Table>) -> bool {
    table.header().flags() & flags::METATABLE == 0
}

handlers! {
    gget(ins, pc, base, k, vm, n) {
        if let Some(table) = closure_of(base).capture(0).as_table() {
            let value = get_field(table, field!(pc, k), pc);
            if !value.is_nil() || nil_is_final(table) {
                put(base, a(ins), value);
                next!(pc.add(1), base, k, vm, n)
            }
        }
        slow!(slow_get, ins, pc, base, k, vm, n)
    }
    gset(ins, pc, base, k, vm, n) {
        if let Some(table) = closure_of(base).capture(0).as_table() && table.header().flags() == 0
            && set_field(table, field!(pc, k), get(base, a(ins)), pc) {
            next!(pc.add(1), base, k, vm, n)
        }
        slow!(slow_set, ins, pc, base, k, vm, n)
    }
    tget(ins, pc, base, k, vm, n) {
        let key = get(base, c(ins));
        if let Some(table) = get(base, b(ins)).as_table() {
            let value = if key.is_inline_integer() { table.get_int(key.inline_payload()) } else { table.get(key) };
            if !value.is_nil() || nil_is_final(table) {
                put(base, a(ins), value);
                next!(pc, base, k, vm, n)
            }
        }
        slow!(slow_get, ins, pc, base, k, vm, n)
    }
    tgets(ins, pc, base, k, vm, n) {
        if let Some(table) = get(base, b(ins)).as_table() {
            let value = get_field(table, field!(pc, k), pc);
            if !value.is_nil() || nil_is_final(table) {
                put(base, a(ins), value);
                next!(pc.add(1), base, k, vm, n)
            }
        }
        slow!(slow_get, ins, pc, base, k, vm, n)
    }
    tgeti(ins, pc, base, k, vm, n) {
        if let Some(table) = get(base, b(ins)).as_table() {
            let value = table.get_int(c(ins) as i64);
            if !value.is_nil() || nil_is_final(table) {
                put(base, a(ins), value);
                next!(pc, base, k, vm, n)
            }
        }
        slow!(slow_get, ins, pc, base, k, vm, n)
    }
    tset(ins, pc, base, k, vm, n) {
        let key = get(base, c(ins));
        if let Some(table) = get(base, b(ins)).as_table() && table.header().flags() == 0 && key.is_inline_integer()
            && table.set_dense(key.inline_payload(), get(base, a(ins))) {
            next!(pc, base, k, vm, n)
        }
        slow!(slow_set, ins, pc, base, k, vm, n)
    }
    tsets(ins, pc, base, k, vm, n) {
        if let Some(table) = get(base, b(ins)).as_table() && table.header().flags() == 0
            && set_field(table, field!(pc, k), get(base, a(ins)), pc) {
            next!(pc.add(1), base, k, vm, n)
        }
        slow!(slow_set, ins, pc, base, k, vm, n)
    }
    tseti(ins, pc, base, k, vm, n) {
        if let Some(table) = get(base, b(ins)).as_table() && table.header().flags() == 0
            && table.set_dense(c(ins) as i64, get(base, a(ins))) {
            next!(pc, base, k, vm, n)
        }
        slow!(slow_set, ins, pc, base, k, vm, n)
    }
    tlist(ins, pc, base, k, vm, n) { slow!(slow_list, ins, pc, base, k, vm, n) }
    self_(ins, pc, base, k, vm, n) {
        let object = get(base, b(ins));
        put(base, a(ins) + 2, object);
        if let Some(table) = object.as_table() {
            let key = field!(pc, k);
            let value = get_field(table, key, pc);
            if !value.is_nil() {
                put(base, a(ins), value);
                next!(pc.add(1), base, k, vm, n)
            }
        }
        slow!(slow_get, ins, pc, base, k, vm, n)
    }

    call(ins, pc, base, k, vm, n) {
        let function = get(base, a(ins));
        if function.has_tag(Tag::Function) {
            let callee = base.add(a(ins) + 2);
            *callee.sub(1) = Link::Vua(pc).encode();
            let closure: *const Closure = function.address().cast();
            next!((*closure).entry, callee, k, vm, b(ins))
        }
        slow!(slow_call, ins, pc, base, k, vm, n)
    }
    callm(ins, pc, base, k, vm, n) {
        let function = get(base, a(ins));
        if function.has_tag(Tag::Function) {
            let callee = base.add(a(ins) + 2);
            *callee.sub(1) = Link::Vua(pc).encode();
            let closure: *const Closure = function.address().cast();
            next!((*closure).entry, callee, k, vm, b(ins) + (*vm).core.open)
        }
        slow!(slow_call, ins, pc, base, k, vm, n)
    }
    tail(ins, pc, base, k, vm, n) { slow!(slow_tail, ins, pc, base, k, vm, n) }

    func(ins, pc, base, k, vm, n) {
        let registers = a(ins);
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 || base.add(registers + SLACK) > (*vm).core.stack_end {
            slow!(slow_enter, ins, pc, base, k, vm, n)
        }
        let parameters = d(ins);
        let mut slot = base.add(if n < parameters { n } else { parameters });
        let end = base.add(registers);
        while slot < end {
            *slot = Value::NIL.to_bits();
            slot = slot.add(1);
        }
        let k = constants_of(base);
        next!(pc, base, k, vm, n)
    }
    funcv(ins, pc, base, k, vm, n) { slow!(slow_variadic, ins, pc, base, k, vm, n) }
    native(ins, pc, base, k, vm, n) { slow!(slow_native, ins, pc, base, k, vm, n) }

    ret0(ins, pc, base, k, vm, n) {
        if let Link::Vua(after) = Link::decode(*base.sub(1)) {
            let call = (*after.sub(1)).load(Ordering::Relaxed);
            let wanted = c(call);
            if wanted != 0 {
                let caller = base.sub(2 + a(call));
                let mut i = 1;
                while i < wanted {
                    *base.sub(2).add(i - 1) = Value::NIL.to_bits();
                    i += 1;
                }
                next!(after, caller, constants_of(caller), vm, n)
            }
        }
        slow!(slow_return, ins, pc, base, k, vm, n)
    }
    ret1(ins, pc, base, k, vm, n) {
        if let Link::Vua(after) = Link::decode(*base.sub(1)) {
            let call = (*after.sub(1)).load(Ordering::Relaxed);
            let wanted = c(call);
            if wanted != 0 {
                let caller = base.sub(2 + a(call));
                let value = *base.add(a(ins));
                if wanted > 1 {
                    *base.sub(2) = value;
                    let mut i = 2;
                    while i < wanted {
                        *base.sub(2).add(i - 1) = Value::NIL.to_bits();
                        i += 1;
                    }
                }
                next!(after, caller, constants_of(caller), vm, n)
            }
        }
        slow!(slow_return, ins, pc, base, k, vm, n)
    }
    ret(ins, pc, base, k, vm, n) { slow!(slow_return, ins, pc, base, k, vm, n) }
    varg(ins, pc, base, k, vm, n) { slow!(slow_vararg, ins, pc, base, k, vm, n) }
    tbc(ins, pc, base, k, vm, n) {
        if get(base, a(ins)).is_truthy() {
            slow!(slow_to_close, ins, pc, base, k, vm, n)
        }
        next!(pc, base, k, vm, n)
    }
    close(ins, pc, base, k, vm, n) {
        if (*vm).core.to_close != 0 {
            slow!(slow_close, ins, pc, base, k, vm, n)
        }
        next!(pc, base, k, vm, n)
    }

    forprep(ins, pc, base, k, vm, n) {
        let (start, limit, step) = (get(base, a(ins)), get(base, a(ins) + 1), get(base, a(ins) + 2));
        if Value::both_inline_integers(start, limit) && step.is_inline_integer() && step.inline_payload() != 0 {
            let (i, end) = (start.inline_payload(), limit.inline_payload());
            put(base, a(ins) + 3, start);
            let runs = if step.inline_payload() > 0 { i <= end } else { i >= end };
            next!(if runs { pc } else { pc.offset(signed_d(ins)) }, base, k, vm, n)
        }
        slow!(slow_for_prepare, ins, pc, base, k, vm, n)
    }
    forloop(ins, pc, base, k, vm, n) {
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
                    slow!(slow_poll, ins, pc, base, k, vm, n)
                }
                next!(pc, base, k, vm, n)
            }
            next!(pc, base, k, vm, n)
        }
        if let (Some(index), Some(limit), Some(step)) = (index.as_float(), limit.as_float(), step.as_float()) {
            let next = index + step;
            if if step > 0.0 { next <= limit } else { limit <= next } {
                put(base, a(ins), Value::from_arithmetic(next));
                put(base, a(ins) + 3, Value::from_arithmetic(next));
                let pc = pc.offset(signed_d(ins));
                if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                    slow!(slow_poll, ins, pc, base, k, vm, n)
                }
                next!(pc, base, k, vm, n)
            }
            next!(pc, base, k, vm, n)
        }
        slow!(slow_for, ins, pc, base, k, vm, n)
    }
    itercall(ins, pc, base, k, vm, n) { slow!(slow_iterate, ins, pc, base, k, vm, n) }
    iterloop(ins, pc, base, k, vm, n) {
        let control = get(base, a(ins));
        if control.is_nil() {
            next!(pc, base, k, vm, n)
        }
        put(base, a(ins) - 2, control);
        let pc = pc.offset(signed_d(ins));
        if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
            slow!(slow_poll, ins, pc, base, k, vm, n)
        }
        next!(pc, base, k, vm, n)
    }
    pforprep(ins, pc, base, k, vm, n) { slow!(slow_parallel_prepare, ins, pc, base, k, vm, n) }
    pforloop(ins, pc, base, k, vm, n) {
        let (index, limit, step) = (get(base, 0), get(base, 1), get(base, 2));
        // A latch means that the loop was split: another piece may have failed, and then this one ends.
        if Value::both_inline_integers(index, limit) && step.is_inline_integer() && get(base, 3).is_nil()
            && (*vm).control.poll.load(Ordering::Relaxed) == 0 {
            let (next, end) = (index.inline_payload() + step.inline_payload(), limit.inline_payload());
            if if step.inline_payload() > 0 { next <= end } else { next >= end } {
                let value = Value::inline_integer(next).unwrap_or(Value::NIL);
                put(base, 0, value);
                put(base, 4, value);
                next!(pc.offset(signed_d(ins)), base, k, vm, n)
            }
            next!(pc, base, k, vm, n)
        }
        slow!(slow_parallel, ins, pc, base, k, vm, n)
    }
    pjoin(ins, pc, base, k, vm, n) {
        if get(base, a(ins)).is_nil() {
            next!(pc, base, k, vm, n)
        }
        slow!(slow_join, ins, pc, base, k, vm, n)
    }

    rmov(ins, pc, base, k, vm, n) {
        *base.add(a(ins)) = *base.add(d(ins));
        next!(pc, base, k, vm, n)
    }
    rkint(ins, pc, base, k, vm, n) {
        *base.add(a(ins)) = signed_d(ins) as i64 as u64;
        next!(pc, base, k, vm, n)
    }
    rkflt(ins, pc, base, k, vm, n) {
        *base.add(a(ins)) = (signed_d(ins) as f64).to_bits();
        next!(pc, base, k, vm, n)
    }
    rkval(ins, pc, base, k, vm, n) {
        let value = constant(k, d(ins));
        *base.add(a(ins)) = match value.as_float() {
            Some(f) => f.to_bits(),
            None => value.as_integer().unwrap_or(0) as u64,
        };
        next!(pc, base, k, vm, n)
    }
    boxi(ins, pc, base, k, vm, n) {
        if let Some(value) = Value::inline_integer(get_integer(base, d(ins))) {
            put(base, a(ins), value);
            next!(pc, base, k, vm, n)
        }
        slow!(slow_allocate, ins, pc, base, k, vm, n)
    }
    boxf(ins, pc, base, k, vm, n) {
        put(base, a(ins), Value::float(get_float(base, d(ins))));
        next!(pc, base, k, vm, n)
    }
    toi(ins, pc, base, k, vm, n) {
        let value = get(base, d(ins));
        if value.is_inline_integer() {
            *base.add(a(ins)) = value.inline_payload() as u64;
            next!(pc, base, k, vm, n)
        }
        slow!(slow_convert, ins, pc, base, k, vm, n)
    }
    tof(ins, pc, base, k, vm, n) {
        let value = get(base, d(ins));
        if let Some(f) = value.as_float() {
            *base.add(a(ins)) = f.to_bits();
            next!(pc, base, k, vm, n)
        }
        slow!(slow_convert, ins, pc, base, k, vm, n)
    }
    itof(ins, pc, base, k, vm, n) {
        *base.add(a(ins)) = (get_integer(base, d(ins)) as f64).to_bits();
        next!(pc, base, k, vm, n)
    }
    convert(ins, pc, base, k, vm, n) { slow!(slow_convert, ins, pc, base, k, vm, n) }
    raw_divide(ins, pc, base, k, vm, n) { slow!(slow_binary, ins, pc, base, k, vm, n) }
    ineg(ins, pc, base, k, vm, n) {
        *base.add(a(ins)) = get_integer(base, d(ins)).wrapping_neg() as u64;
        next!(pc, base, k, vm, n)
    }
    inot(ins, pc, base, k, vm, n) {
        *base.add(a(ins)) = !*base.add(d(ins));
        next!(pc, base, k, vm, n)
    }
    fneg(ins, pc, base, k, vm, n) {
        *base.add(a(ins)) = (-get_float(base, d(ins))).to_bits();
        next!(pc, base, k, vm, n)
    }
    rforprep(ins, pc, base, k, vm, n) {
        let (start, limit, step) = (get_integer(base, a(ins)), get_integer(base, a(ins) + 1), get_integer(base, a(ins) + 2));
        if step == 0 {
            slow!(slow_for_prepare, ins, pc, base, k, vm, n)
        }
        if if step > 0 { start <= limit } else { start >= limit } {
            // The distance as an unsigned number, divided by the step's magnitude: cannot overflow (Lua 5.4, `forprep`).
            let distance = if step > 0 { (limit as u64).wrapping_sub(start as u64) } else { (start as u64).wrapping_sub(limit as u64) };
            *base.add(a(ins) + 1) = distance / step.unsigned_abs();
            *base.add(a(ins) + 3) = start as u64;
            next!(pc, base, k, vm, n)
        }
        next!(pc.offset(signed_d(ins)), base, k, vm, n)
    }
    rforloop(ins, pc, base, k, vm, n) {
        let left = *base.add(a(ins) + 1);
        if left != 0 {
            *base.add(a(ins) + 1) = left - 1;
            let index = (*base.add(a(ins))).wrapping_add(*base.add(a(ins) + 2));
            *base.add(a(ins)) = index;
            *base.add(a(ins) + 3) = index;
            let pc = pc.offset(signed_d(ins));
            if (*vm).control.poll.load(Ordering::Relaxed) != 0 {
                slow!(slow_poll, ins, pc, base, k, vm, n)
            }
            next!(pc, base, k, vm, n)
        }
        next!(pc, base, k, vm, n)
    }
    rgetcap(ins, pc, base, k, vm, n) {
        *base.add(a(ins)) = closure_of(base).raw_capture(d(ins));
        next!(pc, base, k, vm, n)
    }
    rgetcell(ins, pc, base, k, vm, n) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        *base.add(a(ins)) = cell.get_raw();
        next!(pc, base, k, vm, n)
    }
    rsetcell(ins, pc, base, k, vm, n) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        cell.set_raw(*base.add(a(ins)));
        next!(pc, base, k, vm, n)
    }
    rnewcell(ins, pc, base, k, vm, n) {
        match Cell::new_raw(&(*vm).core.heap, *base.add(d(ins))) {
            Ok(cell) => {
                put(base, a(ins), cell.value());
                next!(pc, base, k, vm, n)
            }
            Err(_) => slow!(slow_allocate, ins, pc, base, k, vm, n),
        }
    }
    rcellget(ins, pc, base, k, vm, n) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, d(ins)));
        *base.add(a(ins)) = cell.get_raw();
        next!(pc, base, k, vm, n)
    }
    rcellset(ins, pc, base, k, vm, n) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(get(base, a(ins)));
        cell.set_raw(*base.add(d(ins)));
        next!(pc, base, k, vm, n)
    }
}

/// No instruction has this number.
unsafe extern "sysv64" fn undefined(
    _: u32,
    _: *const AtomicU32,
    _: *mut u64,
    _: *const Value,
    _: *mut Vm,
    _: usize,
) -> Exit {
    unreachable!("the verifier lets no undefined instruction through")
}

macro_rules! raw_binary {
    ($($name:ident |$x:ident: $type:ident, $y:ident| $result:expr;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm, n) {
                let ($x, $y) = (raw_binary!(@get $type, base, b(ins)), raw_binary!(@get $type, base, c(ins)));
                *base.add(a(ins)) = raw_binary!(@word $type, $result);
                next!(pc, base, k, vm, n)
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
    ishl |x: i64, y| crate::number::shift_left(x, y);
    ishr |x: i64, y| crate::number::shift_right(x, y);
    fadd |x: f64, y| x + y;
    fsub |x: f64, y| x - y;
    fmul |x: f64, y| x * y;
    fdiv |x: f64, y| x / y;
}

macro_rules! raw_compare {
    ($($name:ident $get:ident $op:tt $negate:tt;)*) => {$(
        handlers! {
            $name(ins, pc, base, k, vm, n) {
                branch!(($get(base, a(ins)) $op $get(base, d(ins))) ^ $negate, pc, base, k, vm, n)
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
}

/// The handlers, by opcode.
pub(crate) static HANDLERS: [Handler; 256] = {
    let mut table: [Handler; 256] = [undefined; 256];
    macro_rules! fill {
        ($($op:ident $handler:ident)*) => { $(table[Op::$op as usize] = $handler;)* };
    }
    fill! {
        FUNC func FUNCV funcv NATIVE native MOV mov KVAL kval KINT kint KNIL knil KBOOL kbool
        ISLT islt ISNLT isnlt ISLE isle ISNLE isnle ISEQ iseq ISNE isne ISEQK iseqk ISNEK isnek
        ISLTI islti ISNLTI isnlti ISLEI islei ISNLEI isnlei ISGTI isgti ISNGTI isngti ISGEI isgei ISNGEI isngei
        IST ist ISF isf ISTC istc ISFC isfc JMP jmp LOOP loop_back NOT not NEG neg BNOT bnot LEN len
        ADD add SUB sub MUL mul DIV div MOD modulo IDIV idiv POW pow BAND band BOR bor BXOR bxor SHL shl SHR shr
        ADDK addk SUBK subk MULK mulk DIVK divk MODK modk IDIVK idivk POWK pow BANDK bandk BORK bork BXORK bxork SHLK shlk SHRK shrk
        CONCAT concat GETCAP getcap GETCELL getcell SETCELL setcell NEWCELL newcell CELLGET cellget CELLSET cellset FNEW fnew
        GGET gget GSET gset TNEW tnew TGET tget TGETS tgets TGETI tgeti TSET tset TSETS tsets TSETI tseti TLIST tlist TLISTM tlist SELF self_
        CALL call CALLM callm TCALL tail TCALLM tail RET ret RETM ret RET0 ret0 RET1 ret1 VARG varg
        FORPREP forprep FORLOOP forloop ITERCALL itercall ITERLOOP iterloop TBC tbc CLOSE close
        PFORPREP pforprep PFORLOOP pforloop PJOIN pjoin
        RMOV rmov RKINT rkint RKFLT rkflt RKVAL rkval BOXI boxi BOXF boxf TOI toi TOF tof ITOF itof FTOI convert
        IADD iadd ISUB isub IMUL imul IIDIV raw_divide IMOD raw_divide IAND iand IOR ior IXOR ixor ISHL ishl ISHR ishr INEG ineg INOT inot
        FADD fadd FSUB fsub FMUL fmul FDIV fdiv FMOD raw_divide FIDIV raw_divide FPOW raw_divide FNEG fneg
        ILT ilt ILE ile IEQ ieq INE ine FLT flt FNLT fnlt FLE fle FNLE fnle FEQ feq FNE fne
        RFORPREP rforprep RFORLOOP rforloop RGETCAP rgetcap RGETCELL rgetcell RSETCELL rsetcell RNEWCELL rnewcell RCELLGET rcellget RCELLSET rcellset
    }
    table
};
