//! Reads and writes of structs and arrays.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::{self, Display, Formatter};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::core_state::{Core, Vm};
use super::dispatch::{closure_of, get, put};
use super::throw::{Flow, Leave, fail};
use crate::bytecode::instructions::{Op, a, b, c, d};
use crate::engine::Metamethod;
use crate::heap::{Header, barrier, flags};
use crate::memory::object::{FieldInfo, OF_STRUCTS};
use crate::memory::{Array, Scalar, Struct, StructType, scalar};
use crate::number::Number;
use crate::object::Gc;
use crate::value::Value;

/// What an access of a key found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// It is done; of a read, the value.
    Value(Value),
    /// A metamethod, or a table to go on with.
    Handler(Value),
}

/// What lies at an address.
#[derive(Clone, Copy)]
enum Content {
    Scalar(Scalar),
    Struct(Gc<StructType>),
    /// A fixed array: the code of its elements, their type, how many.
    Elements(u8, Option<Gc<StructType>>, usize),
}

/// What messages call an element or a field.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// The element of this index.
    Element(i64),
    /// The field of this number.
    Field(Gc<StructType>, usize),
}

impl Display for What {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            What::Element(i) => write!(f, "element {i}"),
            What::Field(of, field) => write!(f, "field '{}'", of.info().fields[*field].name),
        }
    }
}

/// Where an element or a field lies.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Its address.
    pub(crate) at: *mut u8,
    /// Which scalar it is; `None` if it is an embedded struct or array.
    pub(crate) kind: Option<Scalar>,
    /// The object whose memory it is in.
    pub(crate) root: NonNull<Header>,
    /// What messages call it.
    pub(crate) what: What,
}

/// The name of an array's type.
pub(crate) fn array_name(array: Gc<Array>) -> String {
    match (array.scalar(), array.of()) {
        (Some(scalar), _) => format!("{}[]", scalar.name()),
        (_, Some(of)) => format!("{}[]", of.info().name),
        _ => String::from("array"),
    }
}

/// A value as messages about structs and arrays name it: more exactly than its type.
pub(crate) fn described(core: &Core, value: Value) -> String {
    if let Some(it) = Gc::<Struct>::from_value(value) {
        return it.of().info().name.to_string();
    }
    if let Some(array) = Gc::<Array>::from_value(value) {
        return array_name(array);
    }
    core.program.type_name(value).to_string()
}

const RELEASED: &str = "attempt to use memory that was released";

/// The message for an index outside of an array.
#[cold]
pub(crate) fn out_of_range(array: Gc<Array>, index: &str) -> String {
    if array.is_released() {
        return format!("{RELEASED} (index {index})");
    }
    format!("index {index} out of range (length {})", array.length())
}

impl Core {
    /// `object[key]` of a struct, an array or a type.
    pub(crate) fn memory_get(&mut self, object: Value, key: Value) -> Result<Found, Leave> {
        if let Some(array) = Gc::<Array>::from_value(object) {
            if let Some(i) = key.as_number().and_then(Number::to_integer) {
                let (at, content) = self.element(array, i)?;
                return Ok(Found::Value(self.load(content, at, array.root())?));
            }
            if let Some(methods) = self.program.array_methods() {
                let method = methods.get(key);
                if !method.is_nil() {
                    return Ok(Found::Value(method));
                }
            }
            return fail(self.no_field(&array_name(array), key));
        }
        if let Some(it) = Gc::<Struct>::from_value(object) {
            let of = it.of();
            if let Some(field) = of.field(key) {
                let Some(data) = it.data() else {
                    return fail(RELEASED.into());
                };
                let (offset, content) = content_of(of, field);
                // SAFETY: the field lies in the struct.
                let at = unsafe { data.add(offset) };
                return Ok(Found::Value(self.load(content, at, it.root())?));
            }
            let method = of.methods().get(key);
            if !method.is_nil() && !is_of_the_type(key) {
                return Ok(Found::Value(method));
            }
            let handler = self.program.metamethod(object, Metamethod::Index);
            if !handler.is_nil() {
                return Ok(Found::Handler(handler));
            }
            return fail(self.no_field(&of.info().name, key));
        }
        let Some(of) = Gc::<StructType>::from_value(object) else {
            return fail("attempt to index an unknown object".into());
        };
        let value = match key.as_str().map(|s| s.bytes()) {
            Some(b"size") => self.heap.integer(of.info().size as i64)?,
            Some(b"align") => self.heap.integer(of.info().align as i64)?,
            _ => of.methods().get(key),
        };
        if !value.is_nil() {
            return Ok(Found::Value(value));
        }
        fail(self.no_field(&format!("struct {}", of.info().name), key))
    }

    /// `object[key] = value` of a struct, an array or a type. For a type's methods the table to store into is the handler.
    pub(crate) fn memory_set(
        &mut self,
        object: Value,
        key: Value,
        value: Value,
    ) -> Result<Found, Leave> {
        if let Some(array) = Gc::<Array>::from_value(object) {
            let Some(i) = key.as_number().and_then(Number::to_integer) else {
                return fail(self.no_field(&array_name(array), key));
            };
            let (_, content) = self.element(array, i)?;
            self.publish_stored(content, array.root(), value)?;
            let (at, content) = self.element(array, i)?;
            let what = || format!("element {i}");
            self.store(content, at, array.root(), object, value, &what)?;
            return Ok(Found::Value(Value::NIL));
        }
        if let Some(it) = Gc::<Struct>::from_value(object) {
            let of = it.of();
            let Some(field) = of.field(key) else {
                let handler = self.program.metamethod(object, Metamethod::Newindex);
                if !handler.is_nil() {
                    return Ok(Found::Handler(handler));
                }
                return fail(self.no_field(&of.info().name, key));
            };
            let (offset, content) = content_of(of, field);
            self.publish_stored(content, it.root(), value)?;
            let Some(data) = it.data() else {
                return fail(RELEASED.into());
            };
            // SAFETY: the field lies in the struct.
            let at = unsafe { data.add(offset) };
            let what = || format!("field '{}'", of.info().fields[field].name);
            self.store(content, at, it.root(), object, value, &what)?;
            return Ok(Found::Value(Value::NIL));
        }
        let Some(of) = Gc::<StructType>::from_value(object) else {
            return fail("attempt to index an unknown object".into());
        };
        let name = &of.info().name;
        let text = key
            .as_str()
            .map(|s| String::from_utf8_lossy(s.bytes()).into_owned());
        let shown = text.as_deref().unwrap_or("?");
        if text.is_none() || TAKEN.contains(&shown) {
            return fail(format!("'{shown}' of struct {name} cannot be assigned"));
        }
        if of.field(key).is_some() {
            return fail(format!("struct {name} has a field '{shown}'"));
        }
        if !of.methods().get(key).is_nil() {
            return fail(format!("'{shown}' of struct {name} is assigned already"));
        }
        Ok(Found::Handler(of.methods().value()))
    }

    fn no_field(&self, name: &str, key: Value) -> String {
        match key.as_str() {
            Some(text) => format!(
                "{name} has no field '{}'",
                String::from_utf8_lossy(text.bytes())
            ),
            None => format!(
                "{name} has no field of type {}",
                self.program.type_name(key)
            ),
        }
    }

    /// Where element `i` of an array is.
    fn element(&self, array: Gc<Array>, i: i64) -> Result<(*mut u8, Content), Leave> {
        if (i as u64).wrapping_sub(1) >= array.length() as u64 {
            return fail(out_of_range(array, &i.to_string()));
        }
        // SAFETY: the element lies in the array.
        let at = unsafe { array.data().add((i as usize - 1) * array.stride()) };
        Ok((
            at,
            match (array.scalar(), array.of()) {
                (None, Some(of)) => Content::Struct(of),
                (scalar, _) => Content::Scalar(scalar.unwrap_or(Scalar::U8)),
            },
        ))
    }

    /// Where the scalar is that `object[key]` of an array or struct names, which kind it is, which object's memory it is in, and what messages call it; without
    /// a kind, it is an embedded struct or array. To be used before the next safepoint.
    pub(crate) fn scalar_place(&self, object: Value, key: Value) -> Result<Place, Leave> {
        let (at, content, root, what) = if let Some(array) = Gc::<Array>::from_value(object) {
            let Some(i) = key.as_number().and_then(Number::to_integer) else {
                return fail(self.no_field(&array_name(array), key));
            };
            let (at, content) = self.element(array, i)?;
            (at, content, array.root(), What::Element(i))
        } else {
            let Some(it) = Gc::<Struct>::from_value(object) else {
                return fail("attempt to index an unknown object".into());
            };
            let of = it.of();
            let Some(field) = of.field(key) else {
                return fail(self.no_field(&of.info().name, key));
            };
            let Some(data) = it.data() else {
                return fail(RELEASED.into());
            };
            let (offset, content) = content_of(of, field);
            // SAFETY: the field lies in the struct.
            let at = unsafe { data.add(offset) };
            (at, content, it.root(), What::Field(of, field))
        };
        let kind = match content {
            Content::Scalar(kind) => Some(kind),
            Content::Struct(_) | Content::Elements(..) => None,
        };
        Ok(Place {
            at,
            kind,
            root,
            what,
        })
    }

    /// The value of what lies at `at`, in the memory of `root`.
    fn load(
        &mut self,
        content: Content,
        at: *mut u8,
        root: NonNull<Header>,
    ) -> Result<Value, Leave> {
        // SAFETY: such a thing lies there, and the root keeps it.
        unsafe {
            Ok(match content {
                Content::Scalar(kind) => self.load_scalar(kind, at)?,
                Content::Struct(of) => Struct::reference(&self.heap, of, at, root)?.value(),
                Content::Elements(code, of, count) => {
                    Array::view(&self.heap, code, of, count, at, root)?.value()
                }
            })
        }
    }

    /// The value of a scalar.
    ///
    /// # Safety
    /// One lies there.
    pub(crate) unsafe fn load_scalar(
        &mut self,
        kind: Scalar,
        at: *const u8,
    ) -> Result<Value, Leave> {
        // SAFETY: as the caller says.
        unsafe {
            Ok(match kind {
                Scalar::Bool => Value::boolean(scalar::load_bool(at)),
                Scalar::Ref => scalar::load_ref(at),
                kind if kind.is_float() => Value::float(scalar::load_float(kind, at)),
                kind => self.heap.integer(scalar::load_integer(kind, at))?,
            })
        }
    }

    /// What freezing and the collector ask of a store into `holder`, whose memory is that of `root`.
    pub(crate) fn before_memory_store(
        &mut self,
        root: NonNull<Header>,
        holder: Value,
    ) -> Result<(), Leave> {
        // SAFETY: the holder is in the frame, and keeps its root.
        let bits = unsafe { root.as_ref() }.flags();
        let own = match holder.object() {
            // SAFETY: as above.
            Some(object) => unsafe { object.as_ref() }.flags(),
            None => 0,
        };
        if (bits | own) & flags::FROZEN != 0 {
            return fail(format!(
                "attempt to modify a frozen {}",
                super::throw::type_name(holder)
            ));
        }
        if bits & flags::LOG != 0 {
            // SAFETY: as above.
            unsafe { barrier::before_store(root, &self.heap) };
        }
        Ok(())
    }

    /// Publishes what a store of `value` over `content` brings into the memory of `root`, if others can see that memory.
    ///
    /// That may pause, and in the pause another task can release or freeze the memory, or release the source: the caller finds the place of the store, and looks at
    /// its header, after it.
    fn publish_stored(
        &mut self,
        content: Content,
        root: NonNull<Header>,
        value: Value,
    ) -> Result<(), Leave> {
        // SAFETY: the holder of the place is in the frame, and keeps its root.
        if !unsafe { root.as_ref() }.has(flags::SHARED) {
            return Ok(());
        }
        match content {
            Content::Scalar(Scalar::Ref) => self.publish(value)?,
            Content::Scalar(_) => {}
            // Memory that is this task's own does not change meanwhile; in what others see all references are public.
            Content::Struct(_) | Content::Elements(..) => {
                let mut i = 0;
                while let Some(reference) = copied_reference(value, i) {
                    self.publish(reference)?;
                    i += 1;
                }
            }
        }
        Ok(())
    }

    /// Stores a value where `content` lies. What it refers to is [published](Self::publish_stored).
    fn store(
        &mut self,
        content: Content,
        at: *mut u8,
        root: NonNull<Header>,
        holder: Value,
        value: Value,
        what: &dyn Fn() -> String,
    ) -> Result<(), Leave> {
        self.before_memory_store(root, holder)?;
        match content {
            // SAFETY: such a thing lies there.
            Content::Scalar(kind) => unsafe { self.store_scalar(kind, at, value, what) },
            Content::Struct(of) => {
                let source = Gc::<Struct>::from_value(value).filter(|it| it.of() == of);
                let Some(source) = source else {
                    return fail(format!(
                        "{} expected for {}, got {}",
                        of.info().name,
                        what(),
                        described(self, value)
                    ));
                };
                self.copy_struct(source, at)
            }
            Content::Elements(code, of, count) => {
                let source = Gc::<Array>::from_value(value).filter(|array| {
                    array.code() == code && array.of() == of && array.length() == count
                });
                let Some(source) = source else {
                    return fail(format!(
                        "array of the same type and length ({count}) expected for {}, got {}",
                        what(),
                        described(self, value)
                    ));
                };
                // SAFETY: both have that many bytes.
                unsafe { scalar::copy_bytes(source.data(), at, count * source.stride()) };
                Ok(())
            }
        }
    }

    /// Copies a struct to `to`, memory that may be stored into. If others can see it, what the struct refers to is public.
    pub(crate) fn copy_struct(&mut self, source: Gc<Struct>, to: *mut u8) -> Result<(), Leave> {
        let Some(from) = source.data() else {
            return fail(RELEASED.into());
        };
        // SAFETY: both have that many bytes.
        unsafe { scalar::copy_bytes(from, to, source.of().info().size) };
        Ok(())
    }

    /// Stores a value as a scalar.
    ///
    /// # Safety
    /// One of that kind lies at `at`, in memory that may be stored into; if others can see it, the value is public.
    unsafe fn store_scalar(
        &mut self,
        kind: Scalar,
        at: *mut u8,
        value: Value,
        what: &dyn Fn() -> String,
    ) -> Result<(), Leave> {
        let wrong = |core: &Core, expected: &str| {
            fail(format!(
                "{expected} expected for {} ({}), got {}",
                what(),
                kind.name(),
                core.program.type_name(value)
            ))
        };
        // SAFETY: as the caller says.
        unsafe {
            match kind {
                Scalar::Ref => scalar::store_ref(at, value),
                Scalar::Bool => match value.as_boolean() {
                    Some(b) => scalar::store_bool(at, b),
                    None => return wrong(self, "boolean"),
                },
                kind if kind.is_float() => match value.as_number() {
                    Some(n) => scalar::store_float(kind, at, n.to_float()),
                    None => return wrong(self, "number"),
                },
                kind => match value.as_number().map(Number::to_integer) {
                    Some(Some(i)) => scalar::store_integer(kind, at, i),
                    Some(None) => {
                        return fail(format!(
                            "number for {} ({}) has no integer representation",
                            what(),
                            kind.name()
                        ));
                    }
                    None => return wrong(self, "integer"),
                },
            }
        }
        Ok(())
    }
}

/// Reference `i` of those in the memory of a struct or array, while there are so many.
fn copied_reference(source: Value, i: usize) -> Option<Value> {
    let at = if let Some(it) = Gc::<Struct>::from_value(source) {
        let offset = *it.of().info().refs.get(i)? as usize;
        // SAFETY: the reference lies in the struct.
        unsafe { it.data()?.add(offset) }
    } else {
        let array = Gc::<Array>::from_value(source)?;
        if !has_references(array.code(), array.of()) {
            return None;
        }
        let of = array.of();
        let each: &[u32] = of.as_ref().map_or(&[0], |of| &of.info().refs);
        let (element, offset) = (i / each.len(), each[i % each.len()] as usize);
        if element >= array.length() {
            return None;
        }
        // SAFETY: the reference lies in the element, which lies in the array.
        unsafe { array.data().add(element * array.stride() + offset) }
    };
    // SAFETY: a reference lies there until memory that is released is taken back, at a safepoint.
    Some(unsafe { scalar::load_ref(at) })
}

/// Whether elements of an array refer to values.
pub(crate) fn has_references(code: u8, of: Option<Gc<StructType>>) -> bool {
    of.map_or(code == Scalar::Ref as u8, |of| !of.info().refs.is_empty())
}

/// Names that belong to the type itself.
const TAKEN: [&str; 5] = ["size", "align", "offset", "array", "view"];

/// Whether a name is that of a metamethod or of the type itself, and no method of its structs.
fn is_of_the_type(key: Value) -> bool {
    key.as_str().is_some_and(|s| {
        s.bytes().starts_with(b"__") || TAKEN.iter().any(|name| name.as_bytes() == s.bytes())
    })
}

fn content_of(of: Gc<StructType>, field: usize) -> (usize, Content) {
    let FieldInfo {
        offset,
        scalar,
        count,
        ..
    } = of.info().fields[field];
    let content = match (scalar, of.embedded(field), count) {
        (Some(scalar), _, None) => Content::Scalar(scalar),
        (Some(scalar), _, Some(count)) => Content::Elements(scalar as u8, None, count as usize),
        (None, Some(inner), None) => Content::Struct(inner),
        (None, inner, count) => Content::Elements(OF_STRUCTS, inner, count.unwrap_or(0) as usize),
    };
    (offset, content)
}

/// The instructions of known types, where they are not done at once: what they were given is wrong, or there is an object to make.
pub(super) fn typed(vm: &mut Vm, ins: u32) -> Flow {
    let core = &mut vm.core;
    let Some(op) = Op::of(ins) else {
        unreachable!("the handler knows its instruction")
    };
    // SAFETY: the verifier proved the operands.
    unsafe {
        let pc = core.pc;
        let extension = || (*pc).load(Ordering::Relaxed) as usize;
        let constants = closure_of(core.base).proto().constants();
        let constant = |index: usize| constants[index];
        match op {
            Op::SNEW => {
                let Some(of) = Gc::<StructType>::from_value(constant(d(ins))) else {
                    return fail("struct type expected".into());
                };
                let made = Struct::new(&core.heap, of)?;
                put(core.base, a(ins), made.value());
                Ok(())
            }
            Op::COPYREF => {
                let mut value = get(core.base, b(ins));
                if let Some(it) = Gc::<Struct>::from_value(value) {
                    let made = Struct::new(&core.heap, it.of())?;
                    if let Some(data) = made.data() {
                        core.copy_struct(it, data)?;
                    }
                    value = made.value();
                }
                put(core.base, a(ins), value);
                Ok(())
            }
            Op::CHECK => {
                let value = get(core.base, a(ins));
                let word = extension();
                let mut wanted = match b(ins) & 3 {
                    2 => format!(
                        "{}[]",
                        Scalar::from_code(word as u8).map_or("?", Scalar::name)
                    ),
                    which => {
                        let of = Gc::<StructType>::from_value(constant(word));
                        let name = of.map_or("?", |of| &*of.info().name);
                        format!("{name}{}", if which == 1 { "[]" } else { "" })
                    }
                };
                if b(ins) & 4 != 0 {
                    wanted.push('?');
                }
                let name = core.checked_variable(a(ins));
                fail(format!(
                    "{wanted} expected{name}, got {}",
                    described(core, value)
                ))
            }
            Op::ALEN => {
                let value = get(core.base, d(ins));
                fail(format!(
                    "array expected, got {}{}",
                    described(core, value),
                    core.variable(Some(d(ins)))
                ))
            }
            Op::SGET | Op::SSET => {
                let value = get(core.base, b(ins));
                let of = Gc::<StructType>::from_value(constant(extension() & 0xffff));
                match (Gc::<Struct>::from_value(value), of) {
                    (Some(it), Some(of)) if it.of() == of => {
                        if op == Op::SSET {
                            core.before_memory_store(it.root(), value)?;
                        }
                        fallen_back(core, it.data(), extension(), op == Op::SSET, ins)
                    }
                    (_, Some(of)) => {
                        let message = format!(
                            "{} expected, got {}{}",
                            of.info().name,
                            described(core, value),
                            core.variable(Some(b(ins)))
                        );
                        fail(message)
                    }
                    _ => fail("struct type expected".into()),
                }
            }
            _ => {
                let value = get(core.base, b(ins));
                let Some(array) = Gc::<Array>::from_value(value) else {
                    return fail(format!(
                        "attempt to index a {} value{}",
                        core.program.type_name(value),
                        core.variable(Some(b(ins)))
                    ));
                };
                let i = *core.base.add(c(ins)) as i64;
                if (i as u64).wrapping_sub(1) >= array.length() as u64 {
                    return fail(out_of_range(array, &i.to_string()));
                }
                let at = array.data().add((i as usize - 1) * array.stride());
                match op {
                    Op::PGET | Op::PSET => {
                        let of = constant(extension() & 0xffff);
                        if array.of().map(Gc::<StructType>::value) != Some(of) {
                            let name =
                                Gc::<StructType>::from_value(of).map_or("?", |of| &*of.info().name);
                            return fail(format!(
                                "{name}[] expected, got {}{}",
                                array_name(array),
                                core.variable(Some(b(ins)))
                            ));
                        }
                        if op == Op::PSET {
                            core.before_memory_store(array.root(), value)?;
                        }
                        fallen_back(core, Some(at), extension(), op == Op::PSET, ins)
                    }
                    _ => {
                        let float = matches!(op, Op::AGETF | Op::ASETF);
                        let kind = array.scalar().filter(|kind| {
                            if float {
                                kind.is_float()
                            } else {
                                kind.is_integer()
                            }
                        });
                        let Some(kind) = kind else {
                            return fail(format!(
                                "array of {} expected, got {}{}",
                                if float { "floats" } else { "integers" },
                                array_name(array),
                                core.variable(Some(b(ins)))
                            ));
                        };
                        // Only a store comes here: one that is logged or refused.
                        core.before_memory_store(array.root(), value)?;
                        let word = *core.base.add(a(ins));
                        match op {
                            Op::ASETF => scalar::store_float(kind, at, f64::from_bits(word)),
                            Op::ASETI => scalar::store_integer(kind, at, word as i64),
                            Op::AGETF => {
                                *core.base.add(a(ins)) = scalar::load_float(kind, at).to_bits()
                            }
                            _ => *core.base.add(a(ins)) = scalar::load_integer(kind, at) as u64,
                        }
                        Ok(())
                    }
                }
            }
        }
    }
}

/// Reads or writes a field of a struct at `data`, none if it was released, as a raw register.
///
/// # Safety
/// A struct of the type in the extension word lies there.
unsafe fn fallen_back(
    core: &mut Core,
    data: Option<*mut u8>,
    extension: usize,
    stores: bool,
    ins: u32,
) -> Flow {
    let Some(data) = data else {
        return fail(RELEASED.into());
    };
    // SAFETY: as the caller says; the verifier proved the constants.
    unsafe {
        let place = core.constant(extension >> 16).as_integer().unwrap_or(0);
        let kind = Scalar::from_code(place as u8).unwrap_or(Scalar::U8);
        let at = data.add((place >> 8) as usize);
        let register = core.base.add(a(ins));
        match (stores, kind.is_float()) {
            (false, false) => *register = scalar::load_integer(kind, at) as u64,
            (false, true) => *register = scalar::load_float(kind, at).to_bits(),
            (true, false) => scalar::store_integer(kind, at, *register as i64),
            (true, true) => scalar::store_float(kind, at, f64::from_bits(*register)),
        }
        core.pc = core.pc.add(1);
    }
    Ok(())
}

impl Core {
    /// A constant of the running function.
    ///
    /// # Safety
    /// There is one of this index.
    unsafe fn constant(&self, index: usize) -> Value {
        // SAFETY: as the caller says.
        unsafe { closure_of(self.base).proto().constants()[index] }
    }
}
