//! The objects: types of structs, structs and references into them, arrays and the memory that they own.
//!
//! # References
//! A struct that was made by itself holds its bytes; one that was read out of an array or another struct is a *reference*: it knows where
//! the bytes are and which object owns them, its *root*. An array that was made by itself owns a [`Storage`]; a slice or a view of bytes has a root
//! too. A root is never a reference itself.
//!
//! # Releasing
//! `release` makes an array's length 0 and forgets its storage, which the collector takes back: in its pause every core is at a safepoint, and whoever
//! has loaded the address before uses it before its next safepoint. Whatever has a root asks the root's length before each access.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use super::layout::{Layout, Member, Shape};
use super::{Scalar, scalar};
use crate::heap::{Header, Heap, Kind, LocalHeap, NeedMemory, Visit};
use crate::object::{Gc, NativeFunction, Object, walk};
use crate::table::{SetError, Table};
use crate::value::{Tag, Value};

/// [`Header::extra`] of an array of structs; any other code is that of a scalar.
pub const OF_STRUCTS: u8 = 255;

/// A field of a struct's type.
#[derive(Clone, Debug)]
pub struct FieldInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Where it begins.
    pub offset: usize,
    /// The scalar that it consists of; `None` for embedded structs.
    pub scalar: Option<Scalar>,
    /// Of a fixed array, how many.
    pub count: Option<u32>,
}

/// What never changes of a struct's type.
#[derive(Debug)]
pub struct TypeInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Bytes of one.
    pub size: usize,
    /// Its alignment.
    pub align: usize,
    /// Its fields.
    pub fields: Vec<FieldInfo>,
    /// Where its references lie.
    pub refs: Vec<u32>,
}

/// The type of structs that one `struct` declares: made when the chunk is loaded. Two words for each field follow: its name, an interned string, and
/// the type that it embeds or nil.
#[repr(C)]
pub struct StructType {
    header: Header,
    /// A table: methods and metamethods, by name.
    methods: AtomicU64,
    info: *const TypeInfo,
    words: u64,
}

/// A struct, or a reference to one. If it has no root, its bytes follow.
#[repr(C)]
pub struct Struct {
    header: Header,
    of: NonNull<StructType>,
    data: *mut u8,
    root: *mut Header,
}

/// An array.
#[repr(C)]
pub struct Array {
    header: Header,
    length: AtomicUsize,
    data: *mut u8,
    /// The type of its structs; null in an array of scalars.
    of: *mut StructType,
    root: *mut Header,
    storage: AtomicPtr<Header>,
}

/// The memory of an array, behind 16 bytes: no values, as far as this object knows. The array looks after its references.
#[repr(C)]
pub struct Storage {
    header: Header,
    bytes: usize,
}

const _: () = assert!(size_of::<StructType>() == 32);
const _: () = assert!(size_of::<Struct>() == 32);
const _: () = assert!(size_of::<Array>() == 48);
const _: () = assert!(size_of::<Storage>() == 16);

// SAFETY: laid out as the trait demands; no other type has this kind.
unsafe impl Object for StructType {
    const TAG: Tag = Tag::Struct;
    const KINDS: &'static [Kind] = &[Kind::StructType];
}

// SAFETY: as above.
unsafe impl Object for Struct {
    const TAG: Tag = Tag::Struct;
    const KINDS: &'static [Kind] = &[Kind::Struct];
}

// SAFETY: as above.
unsafe impl Object for Array {
    const TAG: Tag = Tag::Struct;
    const KINDS: &'static [Kind] = &[Kind::Array];
}

// SAFETY: as above.
unsafe impl Object for Storage {
    const TAG: Tag = Tag::Object;
    const KINDS: &'static [Kind] = &[Kind::Storage];
}

impl StructType {
    /// The types of a chunk's structs: those that are given, and new ones for the others.
    pub fn of_chunk(
        local: &LocalHeap,
        heap: &Heap,
        shapes: &[Shape],
        given: &[Option<Value>],
    ) -> Result<Vec<Value>, NeedMemory> {
        let layouts = super::layout::layouts(shapes).unwrap_or_default();
        let mut types = Vec::new();
        for (i, (shape, layout)) in shapes.iter().zip(&layouts).enumerate() {
            types.push(match given.get(i).copied().flatten() {
                Some(of) => of,
                None => StructType::new(local, heap, shape, layout, &types)?.value(),
            });
        }
        Ok(types)
    }

    /// The type of a shape whose embedded structs have the types in `known`.
    pub fn new(
        local: &LocalHeap,
        heap: &Heap,
        shape: &Shape,
        layout: &Layout,
        known: &[Value],
    ) -> Result<Gc<StructType>, NeedMemory> {
        let count = shape.fields.len();
        let mut names = Vec::new();
        let mut fields = Vec::new();
        let need = NeedMemory { bytes: count * 64 };
        names.try_reserve_exact(count).map_err(|_| need)?;
        fields.try_reserve_exact(count).map_err(|_| need)?;
        for (field, &offset) in shape.fields.iter().zip(&layout.offsets) {
            names.push(heap.intern(local, field.name.as_bytes())?.value());
            fields.push(FieldInfo {
                name: field.name.clone(),
                offset,
                scalar: match field.member {
                    Member::Scalar(scalar) => Some(scalar),
                    Member::Struct(_) => None,
                },
                count: field.count,
            });
        }
        let methods = Table::new(local, 0, 4)?;
        let bytes = size_of::<StructType>() + count * 16;
        let object = local
            .alloc_object(Kind::StructType, 0, bytes)?
            .cast::<StructType>();
        // A type lives as long as code that names it; the little that it has outside the heap stays.
        let info = Box::leak(Box::new(TypeInfo {
            name: shape.name.clone(),
            size: layout.size,
            align: layout.align,
            fields,
            refs: layout.refs.clone(),
        }));
        // SAFETY: the object is new, of that size and ours alone.
        unsafe {
            let at = object.as_ptr();
            (*at)
                .methods
                .store(methods.value().to_bits(), Ordering::Relaxed);
            (&raw mut (*at).info).write(info);
            (&raw mut (*at).words).write(count as u64);
            let words = at.add(1).cast::<Value>();
            for (i, name) in names.into_iter().enumerate() {
                words.add(2 * i).write(name);
                words.add(2 * i + 1).write(match shape.fields[i].member {
                    Member::Struct(index) => {
                        known.get(index as usize).copied().unwrap_or(Value::NIL)
                    }
                    Member::Scalar(_) => Value::NIL,
                });
            }
            let of: Gc<StructType> = Gc::from_ptr(object);
            for (name, full, function) in crate::library::memory::TYPE_FUNCTIONS {
                let key = heap.intern(local, name.as_bytes())?.value();
                let native =
                    NativeFunction::new(local, function as *const (), full, &[of.value()])?;
                while let Err(error) = methods.set(local, key, native.value()) {
                    match error {
                        SetError::Grow => methods.grow(local, key, &mut || ())?,
                        _ => return Err(NeedMemory { bytes: 64 }),
                    }
                }
            }
            Ok(of)
        }
    }
}

impl Gc<StructType> {
    /// What never changes of it.
    #[inline(always)]
    pub fn info<'a>(self) -> &'a TypeInfo {
        // SAFETY: written once, and never freed.
        unsafe { &*(*self.as_ptr()).info }
    }

    /// Its methods and metamethods.
    #[inline(always)]
    pub fn methods(self) -> Gc<Table> {
        // SAFETY: the word holds a table.
        unsafe {
            Gc::from_value_unchecked(Value::from_bits(
                (*self.as_ptr()).methods.load(Ordering::Relaxed),
            ))
        }
    }

    fn word(self, i: usize) -> Value {
        // SAFETY: two words for each field, written once.
        unsafe { *self.as_ptr().add(1).cast::<Value>().add(i) }
    }

    /// The number of the field of a name.
    #[inline]
    pub fn field(self, key: Value) -> Option<usize> {
        let count = self.info().fields.len();
        if let Some(i) = (0..count).find(|&i| self.word(2 * i) == key) {
            return Some(i);
        }
        let string = key.as_str()?;
        (0..count).find(|&i| {
            self.word(2 * i)
                .as_str()
                .is_some_and(|name| name.content_equal(string))
        })
    }

    /// The name of a field, as a value.
    pub fn field_name(self, field: usize) -> Value {
        self.word(2 * field)
    }

    /// The type that a field embeds.
    pub fn embedded(self, field: usize) -> Option<Gc<StructType>> {
        Gc::from_value(self.word(2 * field + 1))
    }
}

impl Struct {
    /// A new struct, all zero and nil.
    #[inline]
    pub fn new(local: &LocalHeap, of: Gc<StructType>) -> Result<Gc<Struct>, NeedMemory> {
        let info = of.info();
        let bytes = size_of::<Struct>() + info.size;
        let object = local.alloc_object(Kind::Struct, 0, bytes)?.cast::<Struct>();
        // SAFETY: the object is new, of that size and ours alone.
        unsafe {
            let at = object.as_ptr();
            let data = at.add(1).cast::<u8>();
            (&raw mut (*at).of).write(of.as_non_null());
            (&raw mut (*at).data).write(data);
            (&raw mut (*at).root).write(null_mut());
            data.write_bytes(0, info.size);
            for &offset in &info.refs {
                scalar::store_ref(data.add(offset as usize), Value::NIL);
            }
            Ok(Gc::from_ptr(object))
        }
    }

    /// A new reference to a struct at `data`, in the memory of `root`.
    ///
    /// # Safety
    /// Memory of that type lies there, and the root keeps it.
    pub unsafe fn reference(
        local: &LocalHeap,
        of: Gc<StructType>,
        data: *mut u8,
        root: NonNull<Header>,
    ) -> Result<Gc<Struct>, NeedMemory> {
        let object = local
            .alloc_object(Kind::Struct, 0, size_of::<Struct>())?
            .cast::<Struct>();
        // SAFETY: the object is new, of that size and ours alone.
        unsafe {
            let at = object.as_ptr();
            (&raw mut (*at).of).write(of.as_non_null());
            (&raw mut (*at).data).write(data);
            (&raw mut (*at).root).write(root.as_ptr());
            Ok(Gc::from_ptr(object))
        }
    }
}

/// Whether the memory of a root is there still: it is not a released array.
#[inline(always)]
fn is_live(root: *mut Header) -> bool {
    // SAFETY: a root lives as long as what refers to it.
    unsafe {
        match root.as_ref() {
            Some(header) if header.kind() == Kind::Array => {
                (*root.cast::<Array>()).length.load(Ordering::Acquire) != 0
            }
            _ => true,
        }
    }
}

impl Gc<Struct> {
    /// Its type.
    #[inline(always)]
    pub fn of(self) -> Gc<StructType> {
        // SAFETY: written once; a struct keeps its type.
        unsafe { Gc::from_ptr((*self.as_ptr()).of) }
    }

    /// Where its bytes are; `None` if they were released.
    #[inline(always)]
    pub fn data(self) -> Option<*mut u8> {
        // SAFETY: written once.
        unsafe {
            let at = self.as_ptr();
            if (*at).root.is_null() || is_live((*at).root) {
                Some((*at).data)
            } else {
                None
            }
        }
    }

    /// Where its bytes are or were: with its type, what it is compared by.
    #[inline(always)]
    pub fn address(self) -> usize {
        // SAFETY: written once.
        unsafe { (*self.as_ptr()).data as usize }
    }

    /// The object that owns its bytes: itself, if it is no reference.
    #[inline(always)]
    pub fn root(self) -> NonNull<Header> {
        // SAFETY: written once.
        NonNull::new(unsafe { (*self.as_ptr()).root }).unwrap_or(self.header_ptr())
    }
}

impl Storage {
    /// Memory of so many bytes, of which those up to `zeroed` are zero: a large one is to be zeroed in slices.
    pub fn new(local: &LocalHeap, bytes: usize) -> Result<(Gc<Storage>, usize), NeedMemory> {
        let need = NeedMemory { bytes };
        let whole = bytes.checked_add(size_of::<Storage>()).ok_or(need)?;
        let object = local
            .alloc_object(Kind::Storage, 0, whole)?
            .cast::<Storage>();
        // SAFETY: the object is new, of that size and ours alone.
        unsafe {
            (&raw mut (*object.as_ptr()).bytes).write(bytes);
            let zeroed = if whole <= crate::heap::block::MAX_SMALL {
                bytes
            } else {
                0
            };
            Ok((Gc::from_ptr(object), zeroed))
        }
    }
}

impl Gc<Storage> {
    /// Its first byte, at a multiple of 16.
    #[inline(always)]
    pub fn data(self) -> *mut u8 {
        // SAFETY: behind the fixed part.
        unsafe { self.as_ptr().add(1).cast() }
    }
}

impl Array {
    /// A new array in a storage of its own.
    ///
    /// # Safety
    /// The storage is zeroed, large enough for `length` elements, and used by nothing else; if the elements have references, these are nil.
    pub unsafe fn new(
        local: &LocalHeap,
        code: u8,
        of: Option<Gc<StructType>>,
        length: usize,
        storage: Gc<Storage>,
    ) -> Result<Gc<Array>, NeedMemory> {
        // SAFETY: as the caller says.
        unsafe {
            Self::make(
                local,
                code,
                of,
                length,
                storage.data(),
                null_mut(),
                storage.header_ptr().as_ptr(),
            )
        }
    }

    /// A new array over memory of `root`.
    ///
    /// # Safety
    /// So many elements lie at `data`, and the root keeps them.
    pub unsafe fn view(
        local: &LocalHeap,
        code: u8,
        of: Option<Gc<StructType>>,
        length: usize,
        data: *mut u8,
        root: NonNull<Header>,
    ) -> Result<Gc<Array>, NeedMemory> {
        // SAFETY: as the caller says.
        unsafe { Self::make(local, code, of, length, data, root.as_ptr(), null_mut()) }
    }

    unsafe fn make(
        local: &LocalHeap,
        code: u8,
        of: Option<Gc<StructType>>,
        length: usize,
        data: *mut u8,
        root: *mut Header,
        storage: *mut Header,
    ) -> Result<Gc<Array>, NeedMemory> {
        let object = local
            .alloc_object(Kind::Array, 0, size_of::<Array>())?
            .cast::<Array>();
        // SAFETY: the object is new, of that size and ours alone.
        unsafe {
            let at = object.as_ptr();
            (*at).header.extra.store(code, Ordering::Relaxed);
            (*at).length.store(length, Ordering::Relaxed);
            (&raw mut (*at).data).write(data);
            (&raw mut (*at).of).write(of.map_or(null_mut(), |of| of.as_ptr()));
            (&raw mut (*at).root).write(root);
            (*at).storage.store(storage, Ordering::Release);
            Ok(Gc::from_ptr(object))
        }
    }
}

impl Gc<Array> {
    /// The code of its elements.
    #[inline(always)]
    pub fn code(self) -> u8 {
        self.header().extra.load(Ordering::Relaxed)
    }

    /// The kind of its elements; `None` if they are structs.
    #[inline(always)]
    pub fn scalar(self) -> Option<Scalar> {
        Scalar::from_code(self.code())
    }

    /// The type of its structs.
    #[inline(always)]
    pub fn of(self) -> Option<Gc<StructType>> {
        // SAFETY: written once; an array keeps its type.
        unsafe { NonNull::new((*self.as_ptr()).of).map(|of| Gc::from_ptr(of)) }
    }

    /// Bytes of one element.
    #[inline(always)]
    pub fn stride(self) -> usize {
        match (self.scalar(), self.of()) {
            (Some(scalar), _) => scalar.size(),
            (None, Some(of)) => of.info().size,
            (None, None) => 1,
        }
    }

    /// How many elements it has if it owns its memory, else 0; 0 once that was released.
    #[inline(always)]
    pub fn own_length(self) -> usize {
        // SAFETY: the array lives.
        unsafe {
            let at = self.as_ptr();
            if (*at).root.is_null() {
                (*at).length.load(Ordering::Acquire)
            } else {
                0
            }
        }
    }

    /// How many elements it has; 0 once its memory was released.
    #[inline(always)]
    pub fn length(self) -> usize {
        // SAFETY: the array lives.
        unsafe {
            let at = self.as_ptr();
            if (*at).root.is_null() || is_live((*at).root) {
                (*at).length.load(Ordering::Acquire)
            } else {
                0
            }
        }
    }

    /// Its first element. To be read after the length, and used before the next safepoint.
    #[inline(always)]
    pub fn data(self) -> *mut u8 {
        // SAFETY: written once.
        unsafe { (*self.as_ptr()).data }
    }

    /// The object that owns its memory: itself, unless it is a slice or view.
    #[inline(always)]
    pub fn root(self) -> NonNull<Header> {
        // SAFETY: written once.
        NonNull::new(unsafe { (*self.as_ptr()).root }).unwrap_or(self.header_ptr())
    }

    /// Whether its own memory was released, or that of its root.
    pub fn is_released(self) -> bool {
        // SAFETY: the array lives.
        unsafe {
            let at = self.as_ptr();
            if (*at).root.is_null() {
                (*at).storage.load(Ordering::Relaxed).is_null()
            } else {
                !is_live((*at).root)
            }
        }
    }

    /// Gives its memory back. False if it has none of its own.
    pub fn release(self) -> bool {
        // SAFETY: the array lives.
        unsafe {
            let at = self.as_ptr();
            if !(*at).root.is_null() {
                return false;
            }
            (*at).length.store(0, Ordering::SeqCst);
            (*at).storage.store(null_mut(), Ordering::SeqCst);
            true
        }
    }

    /// The number of references in its own memory.
    fn references(self) -> usize {
        // SAFETY: the array lives.
        let owned = unsafe { (*self.as_ptr()).root.is_null() };
        match self.of() {
            Some(of) if owned => self.length() * of.info().refs.len(),
            _ if owned && self.scalar() == Some(Scalar::Ref) => self.length(),
            _ => 0,
        }
    }

    fn reference(self, i: usize) -> Value {
        // SAFETY: `i` is below `references`.
        unsafe {
            match self.of() {
                Some(of) => {
                    let info = of.info();
                    let n = info.refs.len();
                    let offset = i / n * info.size + info.refs[i % n] as usize;
                    scalar::load_ref(self.data().add(offset))
                }
                None => scalar::load_ref(self.data().add(i * 8)),
            }
        }
    }
}

/// Whether two values are references to the same struct.
#[inline]
pub fn same_struct(a: Value, b: Value) -> bool {
    match (Gc::<Struct>::from_value(a), Gc::<Struct>::from_value(b)) {
        (Some(a), Some(b)) => a.address() == b.address() && a.of() == b.of(),
        _ => false,
    }
}

fn header_value(tag: Tag, object: *mut Header) -> Value {
    match NonNull::new(object) {
        // SAFETY: a live object of that tag, say the callers.
        Some(object) => unsafe { Value::reference(tag, object) },
        None => Value::NIL,
    }
}

/// What a type, a struct or an array refers to: see [`crate::heap::TraceHook`].
///
/// # Safety
/// The object lives, is of one of these kinds, and nobody changes it meanwhile.
pub(crate) unsafe fn children(
    object: NonNull<Header>,
    from: usize,
    visit: &mut impl FnMut(Value) -> Visit,
) -> Option<usize> {
    // SAFETY: each cast follows the kind.
    unsafe {
        match object.as_ref().kind() {
            Kind::StructType => {
                let of: Gc<StructType> = Gc::from_ptr(object.cast());
                let words = 2 * of.info().fields.len();
                walk(from, 1 + words, visit, |i| match i {
                    0 => of.methods().value(),
                    _ => of.word(i - 1),
                })
            }
            Kind::Struct => {
                let it: Gc<Struct> = Gc::from_ptr(object.cast());
                let root = (*it.as_ptr()).root;
                let refs: &[u32] = if root.is_null() {
                    &it.of().info().refs
                } else {
                    &[]
                };
                walk(from, 2 + refs.len(), visit, |i| match i {
                    0 => it.of().value(),
                    1 => header_value(Tag::Struct, root),
                    _ => scalar::load_ref((*it.as_ptr()).data.add(refs[i - 2] as usize)),
                })
            }
            Kind::Array => {
                let it: Gc<Array> = Gc::from_ptr(object.cast());
                let at = it.as_ptr();
                walk(from, 3 + it.references(), visit, |i| match i {
                    0 => header_value(Tag::Struct, (*at).of.cast()),
                    1 => header_value(Tag::Struct, (*at).root),
                    2 => header_value(Tag::Object, (*at).storage.load(Ordering::Acquire)),
                    _ => it.reference(i - 3),
                })
            }
            _ => None,
        }
    }
}
