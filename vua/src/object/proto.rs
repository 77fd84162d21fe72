//! Prototypes: what a closure's captures are added to. Made once by the loader from a verified function; immutable except
//! that instructions rewrite themselves.
//!
//! A prototype, its constants, children, captures and code are one object of the heap, in this order. Names and lines are
//! outside the heap, behind one pointer.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::{NonNull, null};
use core::sync::atomic::AtomicU32;

use super::{Gc, Object};
use crate::bytecode::{CaptureKind, CaptureSource, Constant, Function};
use crate::heap::{Charge, Header, Heap, Kind, LocalHeap, NeedMemory};
use crate::memory::StructType;
use crate::value::{Tag, Value};

/// What is captured, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureDescriptor {
    /// Where `FNEW` finds it.
    pub source: CaptureSource,
    /// What it is there and in the closure.
    pub kind: CaptureKind,
}

/// A compiled chunk, and what its memory is charged to: nothing if it is the system's.
#[derive(Debug)]
pub struct Loaded {
    function: Function,
    _charge: Option<Charge>,
}

impl Loaded {
    /// A chunk whose memory is charged.
    pub(crate) fn new(function: Function, charge: Option<Charge>) -> Loaded {
        Loaded {
            function,
            _charge: charge,
        }
    }
}

impl From<Function> for Loaded {
    fn from(function: Function) -> Loaded {
        Loaded::new(function, None)
    }
}

impl core::ops::Deref for Loaded {
    type Target = Function;

    fn deref(&self) -> &Function {
        &self.function
    }
}

/// The compiled function that a prototype was loaded from: for messages, and for `string.dump`. It keeps the whole chunk.
#[derive(Debug)]
pub struct Debug {
    /// The function, inside `chunk`.
    function: NonNull<Function>,
    /// Its main chunk, which is never changed.
    chunk: Arc<Loaded>,
}

impl Debug {
    /// Where the function is, for a debugger.
    pub(crate) const FUNCTION: usize = core::mem::offset_of!(Debug, function);

    /// The chunk that the function is or lies in.
    pub fn chunk(&self) -> &Function {
        &self.chunk
    }
}

impl core::ops::Deref for Debug {
    type Target = Function;

    fn deref(&self) -> &Function {
        // SAFETY: it lies in the chunk, which is kept and not changed.
        unsafe { self.function.as_ref() }
    }
}

/// In [`Header::extra`]: a capture is a raw word.
const RAW_CAPTURES: u8 = 1;

/// A loaded function without its captures.
#[repr(C)]
pub struct Proto {
    header: Header,
    /// Instructions, the first of which is `FUNC`, `FUNCV` or `NATIVE`; each rewritten only by whole aligned stores.
    pub code: *const AtomicU32,
    /// Constants.
    pub constants: *const Value,
    /// Functions declared directly in it.
    pub children: *const NonNull<Proto>,
    /// What its closures capture.
    pub captures: *const CaptureDescriptor,
    debug: *const Debug,
    /// Number of words of code.
    pub code_length: u32,
    /// Number of constants.
    pub constants_length: u32,
    /// Number of functions declared directly in it.
    pub children_length: u32,
    /// Number of captures.
    pub captures_length: u32,
    /// Number of parameters.
    pub parameters: u8,
    /// Number of registers in its frame.
    pub registers: u8,
    /// First raw register.
    pub raw_start: u8,
    /// Number of raw registers.
    pub raw_count: u8,
    /// Whether it takes extra arguments.
    pub variadic: bool,
    /// Whether it is the body of a `parallel for`.
    pub parallel_body: bool,
    /// Whether it belongs to the library: messages give the position of the program's function that called it.
    pub library: bool,
}

const _: () = assert!(core::mem::offset_of!(Proto, code) == 8);
const _: () = assert!(core::mem::offset_of!(Proto, constants) == 16);
const _: () = assert!(size_of::<Proto>() == 72);
const _: () = assert!(align_of::<CaptureDescriptor>() <= align_of::<u32>());

// SAFETY: everything in it is immutable or atomic, and what it points to lives as long.
unsafe impl Sync for Proto {}

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for Proto {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Proto];
}

impl Proto {
    /// Where the compiled function is, for a debugger.
    pub(crate) const DEBUG: usize = core::mem::offset_of!(Proto, debug);

    /// The prototype of native functions, with this one-word code.
    pub(super) const fn native(code: &'static AtomicU32) -> Proto {
        Proto {
            header: Header::new(Kind::Proto, 0),
            code,
            constants: null(),
            children: null(),
            captures: null(),
            debug: null(),
            code_length: 1,
            constants_length: 0,
            children_length: 0,
            captures_length: 0,
            parameters: 0,
            registers: 0,
            raw_start: 0,
            raw_count: 0,
            variadic: false,
            parallel_body: false,
            library: false,
        }
    }

    /// The compiled function; a native function's prototype has none.
    pub fn debug(&self) -> Option<&Debug> {
        // SAFETY: null, or a box that the prototype owns.
        unsafe { self.debug.as_ref() }
    }

    /// The functions declared directly in it.
    pub fn children(&self) -> &[NonNull<Proto>] {
        if self.children_length == 0 {
            return &[];
        }
        // SAFETY: the loader wrote that many.
        unsafe { core::slice::from_raw_parts(self.children, self.children_length as usize) }
    }

    /// The constants.
    pub fn constants(&self) -> &[Value] {
        if self.constants_length == 0 {
            return &[];
        }
        // SAFETY: the loader wrote that many; they do not change.
        unsafe { core::slice::from_raw_parts(self.constants, self.constants_length as usize) }
    }

    /// What its closures capture.
    pub fn captures(&self) -> &[CaptureDescriptor] {
        if self.captures_length == 0 {
            return &[];
        }
        // SAFETY: the loader wrote that many; they do not change.
        unsafe { core::slice::from_raw_parts(self.captures, self.captures_length as usize) }
    }

    /// Whether a capture of its closures is a raw word.
    #[inline(always)]
    pub(crate) fn has_raw_captures(&self) -> bool {
        self.header
            .extra
            .load(core::sync::atomic::Ordering::Relaxed)
            & RAW_CAPTURES
            != 0
    }

    /// Loads a verified main chunk and the functions declared in it; constants are interned. `types` has those of its structs that are made already:
    /// of structs that other modules declare, at least.
    ///
    /// Passes no safepoint. When memory ends, what was made so far is left to the collector.
    pub fn load(
        local: &LocalHeap,
        heap: &Heap,
        chunk: &Arc<Loaded>,
        types: &[Option<Value>],
    ) -> Result<NonNull<Proto>, NeedMemory> {
        Self::load_chunk(local, heap, chunk, types, false)
    }

    /// As [`load`](Self::load), for a part of the library.
    pub(crate) fn load_library(
        local: &LocalHeap,
        heap: &Heap,
        chunk: &Arc<Loaded>,
    ) -> Result<NonNull<Proto>, NeedMemory> {
        Self::load_chunk(local, heap, chunk, &[], true)
    }

    fn load_chunk(
        local: &LocalHeap,
        heap: &Heap,
        chunk: &Arc<Loaded>,
        types: &[Option<Value>],
        library: bool,
    ) -> Result<NonNull<Proto>, NeedMemory> {
        let types = StructType::of_chunk(local, heap, &chunk.structs, types)?;
        Self::load_function(local, heap, chunk, chunk, &types, library)
    }

    /// Loads `function`, which is `chunk` or lies in it; `types` are those of the chunk's structs.
    fn load_function(
        local: &LocalHeap,
        heap: &Heap,
        chunk: &Arc<Loaded>,
        function: &Function,
        types: &[Value],
        library: bool,
    ) -> Result<NonNull<Proto>, NeedMemory> {
        let children_length = function.children.len();
        let mut children = Vec::new();
        children
            .try_reserve_exact(children_length)
            .map_err(|_| NeedMemory {
                bytes: children_length * 8,
            })?;
        for child in &function.children {
            children.push(Self::load_function(
                local, heap, chunk, child, types, library,
            )?);
        }

        let constants_at = size_of::<Proto>();
        let children_at = constants_at + function.constants.len() * size_of::<Value>();
        let captures_at = children_at + children_length * size_of::<NonNull<Proto>>();
        let code_at = (captures_at + function.captures.len() * size_of::<CaptureDescriptor>())
            .next_multiple_of(align_of::<AtomicU32>());
        let bytes = code_at + function.code.len() * size_of::<u32>();

        let mut values = Vec::new();
        values
            .try_reserve_exact(function.constants.len())
            .map_err(|_| NeedMemory {
                bytes: function.constants.len() * 8,
            })?;
        for constant in &function.constants {
            values.push(match constant {
                Constant::Nil => Value::NIL,
                Constant::Boolean(b) => Value::boolean(*b),
                Constant::Integer(n) => local.integer(*n)?,
                Constant::Float(f) => Value::float(*f),
                Constant::String(bytes) => heap.intern(local, bytes)?.value(),
                // The verifier proved that there is one.
                Constant::Struct(index) => {
                    types.get(*index as usize).copied().unwrap_or(Value::NIL)
                }
            });
        }
        // A vector of one is the way to a box that reports failure.
        let mut debug = Vec::new();
        debug.try_reserve_exact(1).map_err(|_| NeedMemory {
            bytes: size_of::<Debug>(),
        })?;
        debug.push(Debug {
            function: NonNull::from(function),
            chunk: chunk.clone(),
        });
        let debug: Box<[Debug]> = debug.into_boxed_slice();
        let object = local.alloc_object(Kind::Proto, 0, bytes)?;
        let start = object.as_ptr().cast::<u8>();
        // SAFETY: the object is new, `bytes` long and ours alone; the four parts lie in it one after another, each aligned.
        unsafe {
            let constants = start.add(constants_at).cast::<Value>();
            for (i, value) in values.iter().enumerate() {
                constants.add(i).write(*value);
            }
            let children_start = start.add(children_at).cast::<NonNull<Proto>>();
            for (i, child) in children.iter().enumerate() {
                children_start.add(i).write(*child);
            }
            let captures = start.add(captures_at).cast::<CaptureDescriptor>();
            for (i, capture) in function.captures.iter().enumerate() {
                captures.add(i).write(CaptureDescriptor {
                    source: capture.source,
                    kind: capture.kind,
                });
            }
            let code = start.add(code_at).cast::<AtomicU32>();
            for (i, word) in function.code.iter().enumerate() {
                code.add(i).write(AtomicU32::new(*word));
            }
            let header = Header::new(Kind::Proto, 0);
            let raw = |c: &crate::bytecode::Capture| c.kind == CaptureKind::Raw;
            if function.captures.iter().any(raw) {
                header
                    .extra
                    .store(RAW_CAPTURES, core::sync::atomic::Ordering::Relaxed);
            }
            start.cast::<Proto>().write(Proto {
                header,
                code,
                constants,
                children: children_start,
                captures,
                debug: Box::into_raw(debug).cast::<Debug>(),
                code_length: function.code.len() as u32,
                constants_length: function.constants.len() as u32,
                children_length: children_length as u32,
                captures_length: function.captures.len() as u32,
                parameters: function.parameters,
                registers: function.registers,
                raw_start: function.raw_start,
                raw_count: function.raw_count,
                variadic: function.variadic,
                parallel_body: function.parallel_body,
                library,
            });
        }
        Ok(object.cast())
    }
}

impl Gc<Proto> {
    /// Frees what a prototype has outside the heap. For the collector, before it frees the object.
    ///
    /// # Safety
    /// Nobody can reach the prototype any more, and this is done once.
    pub unsafe fn drop_debug(self) {
        // SAFETY: null for no prototype of the heap; made by `Box::into_raw`, and dropped once, says the caller.
        unsafe {
            drop(Box::from_raw(core::ptr::slice_from_raw_parts_mut(
                (*self.as_ptr()).debug.cast_mut(),
                1,
            )))
        }
    }
}
