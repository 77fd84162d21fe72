//! Functions as values: closures of Vua functions, and native functions. Both begin alike, so a call needs not tell them apart.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Gc, Object, Proto};
use crate::bytecode::instructions::{Op, ad};
use crate::heap::{Header, Kind, LocalHeap, NeedMemory};
use crate::value::{Tag, Value};

/// A function of Vua: 24 bytes and a word for each capture, whose number is the header's word.
///
/// Captures are written once, when the closure is made. Which of them are raw words, the prototype says.
#[repr(C)]
pub struct Closure {
    header: Header,
    /// What was compiled.
    pub proto: NonNull<Proto>,
    /// Its first instruction: `FUNC` or `FUNCV`; of a native function, `NATIVE`.
    pub entry: *const AtomicU32,
}

const _: () = assert!(size_of::<Closure>() == 24);

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for Closure {
    const TAG: Tag = Tag::Function;
    const KINDS: &'static [Kind] = &[Kind::Closure];
}

impl Closure {
    /// A new closure whose captures are all nil (as raw words, whatever nil is): to be set by
    /// [`Gc::set_capture`] and [`Gc::set_raw_capture`] before anyone else knows it.
    #[inline]
    pub fn new(
        local: &LocalHeap,
        proto: NonNull<Proto>,
        captures: usize,
    ) -> Result<Gc<Closure>, NeedMemory> {
        let object = local
            .alloc_object(
                Kind::Closure,
                captures as u32,
                size_of::<Closure>() + captures * 8,
            )?
            .cast::<Closure>();
        // SAFETY: the object is new, of that size and ours alone; prototypes in use live.
        unsafe {
            (&raw mut (*object.as_ptr()).proto).write(proto);
            (&raw mut (*object.as_ptr()).entry).write(proto.as_ref().code);
            let closure = Gc::from_ptr(object);
            for i in 0..captures {
                closure.set_capture(i, Value::NIL);
            }
            Ok(closure)
        }
    }
}

impl Gc<Closure> {
    /// What was compiled.
    #[inline(always)]
    pub fn proto<'a>(self) -> &'a Proto {
        // SAFETY: a closure keeps its prototype alive; the field never changes.
        unsafe { (*self.as_ptr()).proto.as_ref() }
    }

    /// Number of captures.
    #[inline(always)]
    pub fn captures(self) -> usize {
        self.header().word.load(Ordering::Relaxed) as usize
    }

    #[inline(always)]
    fn word<'a>(self, index: usize) -> &'a AtomicU64 {
        debug_assert!(index < self.captures());
        // SAFETY: the words lie behind the fixed part; the verifier proved the index, as the callers demand.
        unsafe { &*self.as_ptr().add(1).cast::<AtomicU64>().add(index) }
    }

    /// Capture `index`: a value, or a cell as a value.
    ///
    /// # Safety
    /// There is such a capture, and it is not raw.
    #[inline(always)]
    pub unsafe fn capture(self, index: usize) -> Value {
        // SAFETY: it holds a value, says the caller.
        unsafe { Value::from_bits(self.word(index).load(Ordering::Relaxed)) }
    }

    /// Capture `index`, a raw word.
    ///
    /// # Safety
    /// There is such a capture.
    #[inline(always)]
    pub unsafe fn raw_capture(self, index: usize) -> u64 {
        self.word(index).load(Ordering::Relaxed)
    }

    /// Where capture `index` lies, which never changes but for those that the closure is given when it is made.
    ///
    /// # Safety
    /// There is such a capture.
    #[inline(always)]
    pub(crate) unsafe fn capture_at(self, index: usize) -> *const u64 {
        self.word(index).as_ptr().cast_const()
    }

    /// Capture `index` as the collector sees it: nil if it is a raw word.
    ///
    /// # Safety
    /// There is such a capture.
    #[inline]
    pub(crate) unsafe fn traced_capture(self, index: usize) -> Value {
        // SAFETY: as the caller says.
        unsafe { super::children::capture(self, index) }
    }

    /// Sets a capture of a new closure, or one that a loader changes before the function runs.
    ///
    /// # Safety
    /// There is such a capture, and it is not raw.
    #[inline(always)]
    pub unsafe fn set_capture(self, index: usize, value: Value) {
        self.word(index).store(value.to_bits(), Ordering::Release);
    }

    /// Sets a raw capture of a new closure.
    ///
    /// # Safety
    /// There is such a capture, and it is raw.
    #[inline(always)]
    pub unsafe fn set_raw_capture(self, index: usize, word: u64) {
        self.word(index).store(word, Ordering::Relaxed);
    }
}

/// A native function: begins as a [`Closure`] does, and may have captured values of its own, whose number is the header's word.
#[repr(C)]
pub struct NativeFunction {
    header: Header,
    proto: NonNull<Proto>,
    entry: *const AtomicU32,
    /// The address of the Rust function; its type is the interpreter's business.
    pub function: *const (),
    name: *const u8,
    name_length: usize,
}

const _: () = assert!(size_of::<NativeFunction>() == 48);
const _: () =
    assert!(core::mem::offset_of!(NativeFunction, proto) == core::mem::offset_of!(Closure, proto));
const _: () =
    assert!(core::mem::offset_of!(NativeFunction, entry) == core::mem::offset_of!(Closure, entry));

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for NativeFunction {
    const TAG: Tag = Tag::Function;
    const KINDS: &'static [Kind] = &[Kind::Native];
}

impl NativeFunction {
    /// Where the name is, for a debugger, and its length.
    pub(crate) const NAME: usize = core::mem::offset_of!(NativeFunction, name);
    pub(crate) const NAME_LENGTH: usize = core::mem::offset_of!(NativeFunction, name_length);
}

/// The code of every native function.
static NATIVE_CODE: AtomicU32 = AtomicU32::new(ad(Op::NATIVE, 0, 0));

/// The prototype of every native function: no registers, no constants, one instruction.
pub static NATIVE_PROTO: Proto = Proto::native(&NATIVE_CODE);

impl NativeFunction {
    /// A new native function that calls `function` and is called `name` in messages. Copies the captures.
    #[expect(
        clippy::not_unsafe_ptr_arg_deref,
        reason = "the pointer is stored, not followed"
    )]
    pub fn new(
        local: &LocalHeap,
        function: *const (),
        name: &'static str,
        captures: &[Value],
    ) -> Result<Gc<NativeFunction>, NeedMemory> {
        let bytes = size_of::<NativeFunction>() + size_of_val(captures);
        let object = local
            .alloc_object(Kind::Native, captures.len() as u32, bytes)?
            .cast::<NativeFunction>();
        // SAFETY: the object is new, of that size and ours alone.
        unsafe {
            let fields = object.as_ptr();
            (&raw mut (*fields).proto).write(NonNull::from(&NATIVE_PROTO));
            (&raw mut (*fields).entry).write(&NATIVE_CODE);
            (&raw mut (*fields).function).write(function);
            (&raw mut (*fields).name).write(name.as_ptr());
            (&raw mut (*fields).name_length).write(name.len());
            let native = Gc::from_ptr(object);
            for (i, value) in captures.iter().enumerate() {
                native.set_capture(i, *value);
            }
            Ok(native)
        }
    }
}

impl Gc<NativeFunction> {
    /// The address of the Rust function.
    #[inline(always)]
    pub fn function(self) -> *const () {
        // SAFETY: the object lives, and the field never changes.
        unsafe { (*self.as_ptr()).function }
    }

    /// Gives a new native another word for code than the one that most have.
    pub(crate) fn set_entry(self, entry: &'static AtomicU32) {
        // SAFETY: the caller has just made it, and nobody else knows it.
        unsafe { (&raw mut (*self.as_ptr()).entry).write(entry) }
    }

    /// Its name, for messages.
    pub fn name(self) -> &'static str {
        // SAFETY: these are the parts of a `&'static str`.
        unsafe {
            core::str::from_utf8_unchecked(core::slice::from_raw_parts(
                (*self.as_ptr()).name,
                (*self.as_ptr()).name_length,
            ))
        }
    }

    /// Number of captured values.
    #[inline(always)]
    pub fn captures(self) -> usize {
        self.header().word.load(Ordering::Relaxed) as usize
    }

    /// Captured value `index`, as it is now.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub fn capture(self, index: usize) -> Value {
        assert!(index < self.captures());
        // SAFETY: in bounds; the words hold values.
        unsafe {
            Value::from_bits(
                (*self.as_ptr().add(1).cast::<AtomicU64>().add(index)).load(Ordering::Acquire),
            )
        }
    }

    /// Stores into captured value `index`. As for a cell, the caller has looked at the header byte.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub fn set_capture(self, index: usize, value: Value) {
        assert!(index < self.captures());
        // SAFETY: in bounds.
        unsafe {
            (*self.as_ptr().add(1).cast::<AtomicU64>().add(index))
                .store(value.to_bits(), Ordering::Release)
        }
    }
}
