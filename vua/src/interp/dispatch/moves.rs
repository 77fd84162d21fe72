//! Moves, constants, captured variables, and what makes closures and tables.

use core::sync::atomic::Ordering;

use super::*;
use crate::bytecode::CaptureSource;
use crate::object::Cell;

handlers! {
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

    getcap(ins, pc, base, k, vm) {
        let value = closure_of(base).capture(d(ins));
        put(base, a(after(ins, value.to_bits())), value);
        next!(pc, base, k, vm)
    }
    getcell(ins, pc, base, k, vm) {
        let cell: Gc<Cell> = Gc::from_value_unchecked(closure_of(base).capture(d(ins)));
        let value = cell.get();
        put(base, a(after(ins, value.to_bits())), value);
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
