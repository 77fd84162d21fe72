//! What each kind of object refers to: for publication, and for the collector.

use core::ptr::NonNull;

use super::{Closure, Gc};
use crate::bytecode::CaptureKind;
use crate::heap::{Header, Heap, Kind, Visit};
use crate::table;
use crate::value::Value;

/// Visits the values in an object from position `from` on, as a [`TraceHook`](crate::heap::TraceHook) does.
///
/// A table's blocks are visited with it. A prototype's constants and children are not visited: they are immutable.
///
/// # Safety
/// The object lives, and nobody changes it meanwhile.
pub(crate) unsafe fn children(
    heap: &Heap,
    object: NonNull<Header>,
    from: usize,
    visit: &mut impl FnMut(Value) -> Visit,
) -> Option<usize> {
    // SAFETY: the object lives; each cast follows its kind.
    unsafe {
        match object.as_ref().kind() {
            Kind::Table => table::children(Gc::from_ptr(object.cast()), from, visit),
            Kind::Closure => {
                let closure: Gc<Closure> = Gc::from_ptr(object.cast());
                let kinds = closure.proto().captures();
                walk(from, closure.captures(), visit, |i| {
                    // Without a descriptor there is only what the loader put there: a value.
                    match kinds.get(i).map_or(CaptureKind::Value, |c| c.kind) {
                        CaptureKind::Raw => Value::NIL,
                        CaptureKind::Value | CaptureKind::Cell | CaptureKind::RawCell => {
                            closure.capture(i)
                        }
                    }
                })
            }
            Kind::Native => {
                let native: Gc<super::NativeFunction> = Gc::from_ptr(object.cast());
                walk(from, native.captures(), visit, |i| native.capture(i))
            }
            Kind::Cell => {
                let cell: Gc<super::Cell> = Gc::from_ptr(object.cast());
                walk(from, 1, visit, |_| cell.get())
            }
            Kind::Free
            | Kind::BoxedInteger
            | Kind::String
            | Kind::RawCell
            | Kind::Proto
            | Kind::DenseBlock
            | Kind::NodeBlock
            | Kind::RadixNode => None,
            kind => {
                let hook = heap.trace_hook(kind)?;
                hook(object, from, visit)
            }
        }
    }
}

/// Visits `get(i)` for `i` from `from` to `count - 1`.
#[inline(always)]
pub(crate) fn walk(
    from: usize,
    count: usize,
    visit: &mut impl FnMut(Value) -> Visit,
    get: impl Fn(usize) -> Value,
) -> Option<usize> {
    for i in from..count {
        match visit(get(i)) {
            Visit::On => {}
            Visit::StopAfter => return if i + 1 < count { Some(i + 1) } else { None },
            Visit::StopBefore => return Some(i),
        }
    }
    None
}
