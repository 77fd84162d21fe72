//! What each kind of object refers to: [`children`] for publication, [`trace`] for the collector.

use core::ptr::NonNull;

use super::{Closure, Gc, Proto};
use crate::bytecode::CaptureKind;
use crate::heap::{Header, Heap, Kind, Visit};
use crate::table;
use crate::value::{Tag, Value};

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
                walk(from, closure.captures(), visit, |i| capture(closure, i))
            }
            Kind::Native => {
                let native: Gc<super::NativeFunction> = Gc::from_ptr(object.cast());
                walk(from, native.captures(), visit, |i| native.capture(i))
            }
            Kind::Cell => {
                let cell: Gc<super::Cell> = Gc::from_ptr(object.cast());
                walk(from, 1, visit, |_| cell.get())
            }
            Kind::DenseBlock | Kind::NodeBlock | Kind::RadixNode => {
                table::trace(object, from, visit)
            }
            Kind::StructType | Kind::Struct | Kind::Array => {
                crate::memory::object::children(object, from, visit)
            }
            Kind::Coroutine => {
                crate::task::coroutine::children(Gc::from_ptr(object.cast()), from, visit)
            }
            Kind::Free
            | Kind::BoxedInteger
            | Kind::String
            | Kind::RawCell
            | Kind::Proto
            | Kind::Storage => None,
            kind => {
                let hook = heap.trace_hook(kind)?;
                hook(object, from, visit)
            }
        }
    }
}

/// Visits all objects that an object refers to, as values, from position `from` on; unlike [`children`], prototypes, and a table's
/// blocks as objects of their own, which are then traced in turn. Looks at any number of slots unless the visitor stops.
///
/// Weak tables are the collector's business: it does not trace their nodes.
///
/// # Safety
/// The object lives, and nobody changes it meanwhile, or the collector knows of the changes by other ways.
pub unsafe fn trace(
    heap: &Heap,
    object: NonNull<Header>,
    from: usize,
    visit: &mut impl FnMut(Value) -> Visit,
) -> Option<usize> {
    // SAFETY: a prototype is an object of the heap, except the static one of native functions, which no closure has.
    let proto = |proto: NonNull<Proto>| unsafe { Value::reference(Tag::Object, proto.cast()) };
    // SAFETY: the object lives; each cast follows its kind.
    unsafe {
        match object.as_ref().kind() {
            Kind::Table | Kind::DenseBlock | Kind::NodeBlock | Kind::RadixNode => {
                table::trace(object, from, visit)
            }
            Kind::Closure => {
                let closure: Gc<Closure> = Gc::from_ptr(object.cast());
                let captures = closure.captures();
                let of = (*closure.as_ptr()).proto;
                walk(from, 1 + captures, visit, |i| match i {
                    0 => proto(of),
                    _ => capture(closure, i - 1),
                })
            }
            Kind::Proto => {
                let of = object.cast::<Proto>().as_ref();
                let constants = of.constants();
                walk(
                    from,
                    constants.len() + of.children().len(),
                    visit,
                    |i| match constants.get(i) {
                        Some(constant) => *constant,
                        None => proto(of.children()[i - constants.len()]),
                    },
                )
            }
            Kind::Coroutine => {
                crate::task::coroutine::trace(Gc::from_ptr(object.cast()), from, visit)
            }
            _ => children(heap, object, from, visit),
        }
    }
}

/// Capture `index` of a closure as a value, nil if it is a raw word.
///
/// # Safety
/// There is such a capture.
#[inline(always)]
pub(super) unsafe fn capture(closure: Gc<Closure>, index: usize) -> Value {
    // Without a descriptor there is only what the loader put there: a value.
    match closure
        .proto()
        .captures()
        .get(index)
        .map_or(CaptureKind::Value, |c| c.kind)
    {
        CaptureKind::Raw => Value::NIL,
        // SAFETY: it exists, says the caller, and is a value or a cell as a value.
        CaptureKind::Value | CaptureKind::Cell | CaptureKind::RawCell => unsafe {
            closure.capture(index)
        },
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
