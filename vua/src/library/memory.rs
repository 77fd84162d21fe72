//! Arrays and structs: how they are made, and the methods of arrays.

use alloc::format;
use alloc::string::String;

use super::Builder;
use super::access::{BYTES, Pace};
use super::table::{keep, kept};
use crate::heap::NeedMemory;
use crate::interp::memory::{array_name, described, has_references};
use crate::interp::native::{Call, NativeFn, Next, Throw};
use crate::memory::object::OF_STRUCTS;
use crate::memory::{Array, Scalar, Storage, Struct, StructType, scalar};
use crate::number::Number;
use crate::object::Gc;
use crate::race::watch::{Touch, Watched};
use crate::value::Value;

/// The functions of every struct type, which capture it.
pub(crate) const TYPE_FUNCTIONS: [(&str, &str, NativeFn); 3] = [
    ("array", "struct.array", struct_array),
    ("view", "struct.view", view),
    ("offset", "struct.offset", offset),
];

/// Defines the element types, `bytes` and `struct`.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    for &kind in Scalar::ALL {
        if matches!(kind, Scalar::Bool | Scalar::Ref) {
            continue;
        }
        let table = builder.empty_table()?;
        let prefix = format!("{}.", kind.name());
        let code = Value::small(kind as i32);
        builder.define(table, &prefix, "array", scalar_array, &[code])?;
        let convert: Option<NativeFn> = match kind {
            Scalar::Reg => Some(to_reg),
            Scalar::F64 => Some(to_f64),
            _ => None,
        };
        if let Some(convert) = convert {
            let metatable = builder.empty_table()?;
            let function = builder.function(kind.name(), convert, &[])?;
            builder.set(metatable, "__call", function)?;
            table.set_metatable(Some(metatable));
        }
        if kind == Scalar::Reg {
            let functions: [(&str, NativeFn); 10] = [
                ("udiv", udiv),
                ("urem", urem),
                ("ult", ult),
                ("sar", sar),
                ("mulhi", mulhi),
                ("clz", clz),
                ("ctz", ctz),
                ("popcount", popcount),
                ("bswap", bswap),
                ("rol", rol),
            ];
            for (name, function) in functions {
                builder.define(table, &prefix, name, function, &[])?;
            }
        }
        builder.global_value(kind.name(), table.value())?;
    }
    let bytes = builder.empty_table()?;
    builder.define(bytes, "bytes.", "from", bytes_from, &[])?;
    let metatable = builder.empty_table()?;
    let code = Value::small(Scalar::U8 as i32);
    let make = builder.function("bytes", bytes_of, &[code])?;
    builder.set(metatable, "__call", make)?;
    bytes.set_metatable(Some(metatable));
    builder.global_value("bytes", bytes.value())?;

    let library = builder.empty_table()?;
    builder.define(library, "struct.", "name", name, &[])?;
    builder.global_value("struct", library.value())?;

    let arrays = builder.empty_table()?;
    let methods: [(&str, NativeFn); 5] = [
        ("slice", slice),
        ("copy", copy),
        ("fill", fill),
        ("tostring", tostring),
        ("release", release),
    ];
    for (name, function) in methods {
        builder.define(arrays, "array.", name, function, &[])?;
    }
    let types = builder.empty_table()?;
    let construct = builder.function("struct", construct, &[])?;
    builder.set(types, "__call", construct)?;
    builder.set_memory_tables(arrays, types);
    Ok(())
}

// Making arrays. Slots behind the arguments.
const STORAGE: usize = 4;
const ARRAY: usize = 5;
const NEXT: usize = 6;

/// States in which a native that fills an array goes on.
const FILLING: u32 = 1;

/// Makes memory for `length` elements, all zero and nil, in slot [`STORAGE`], and an array of it in slot [`ARRAY`].
fn make(
    call: &mut Call<'_>,
    code: u8,
    of: Option<Gc<StructType>>,
    length: usize,
) -> Result<Gc<Array>, Throw> {
    call.room(NEXT + 4)?;
    let stride = match (Scalar::from_code(code), of) {
        (Some(kind), _) => kind.size(),
        (None, Some(of)) => of.info().size,
        (None, None) => 1,
    };
    let bytes = length
        .checked_mul(stride)
        .filter(|bytes| *bytes < 1 << 46)
        .ok_or(Throw::NeedMemory(NeedMemory { bytes: usize::MAX }))?;
    let (storage, zeroed) = Storage::new(call.heap(), bytes)?;
    call.set(STORAGE, storage.value());
    let mut at = zeroed;
    while at < bytes {
        let count = BYTES.min(bytes - at);
        // SAFETY: the storage is in a slot, and nobody else knows it.
        unsafe { storage.data().add(at).write_bytes(0, count) };
        at += count;
        call.poll()?;
    }
    if has_references(code, of) {
        let info = of.map(|of| of.info());
        let refs: &[u32] = info.map_or(&[0], |info| &info.refs);
        let mut pace = Pace::default();
        for i in 0..length {
            for &offset in refs {
                // SAFETY: inside the storage, which is in a slot.
                unsafe {
                    scalar::store_ref(storage.data().add(i * stride + offset as usize), Value::NIL)
                };
            }
            pace.step(call)?;
        }
    }
    // SAFETY: it was made for so many, and zeroed.
    let array = unsafe { Array::new(call.heap(), code, of, length, storage)? };
    call.set(ARRAY, array.value());
    Ok(array)
}

/// An array from a number of elements, a sequence, or another array, which is argument `from`.
fn array_of(
    call: &mut Call<'_>,
    code: u8,
    of: Option<Gc<StructType>>,
    from: usize,
) -> Result<Next, Throw> {
    if call.state() == 0 {
        call.settle(from + 1);
        let source = call.slot(from);
        let (length, fills) = if let Some(table) = source.as_table() {
            (table.length(), true)
        } else if let Some(array) = Gc::<Array>::from_value(source) {
            (array.length() as i64, true)
        } else if source.is_number() {
            (call.integer_argument(from)?, false)
        } else {
            return Err(call.type_error(from, "number, table or array"));
        };
        let Ok(length) = usize::try_from(length) else {
            return Err(call.argument_error(from, "length is negative"));
        };
        let array = make(call, code, of, length)?;
        if !fills {
            return Ok(Next::One(array.value()));
        }
        keep(call, NEXT, 1)?;
        call.advance(FILLING);
    }
    let target = call.slot(ARRAY);
    let Some(array) = Gc::<Array>::from_value(target) else {
        return Ok(Next::Nothing);
    };
    let mut pace = Pace::default();
    let mut i = kept(call, NEXT);
    while i <= array.length() as i64 {
        keep(call, NEXT, i)?;
        let key = call.integer(i)?;
        let source = call.slot(from);
        let value = match source.as_table() {
            Some(table) => table.get(key),
            None => call.memory_get(source, key)?,
        };
        call.memory_set(target, key, value)?;
        i += 1;
        pace.step(call)?;
    }
    Ok(Next::One(target))
}

fn captured_code(call: &Call<'_>) -> u8 {
    call.capture(0).as_integer().unwrap_or(0) as u8
}

fn scalar_array(call: &mut Call<'_>) -> Result<Next, Throw> {
    let code = captured_code(call);
    array_of(call, code, None, 0)
}

/// `bytes(n)`: called with the table `bytes` first.
fn bytes_of(call: &mut Call<'_>) -> Result<Next, Throw> {
    array_of(call, Scalar::U8 as u8, None, 1)
}

fn struct_array(call: &mut Call<'_>) -> Result<Next, Throw> {
    let of = captured_type(call)?;
    array_of(call, OF_STRUCTS, Some(of), 0)
}

fn captured_type(call: &Call<'_>) -> Result<Gc<StructType>, Throw> {
    Gc::from_value(call.capture(0)).ok_or_else(|| call.message("struct type expected"))
}

fn bytes_from(call: &mut Call<'_>) -> Result<Next, Throw> {
    let string = call.bytes_argument(0)?;
    let array = make(call, Scalar::U8 as u8, None, string.len())?;
    let mut at = 0;
    while at < string.len() {
        let count = BYTES.min(string.len() - at);
        // SAFETY: both have that many bytes; the string never changes.
        unsafe { scalar::copy_bytes(string.bytes().as_ptr().add(at), array.data().add(at), count) };
        at += count;
        call.poll()?;
    }
    Ok(Next::One(array.value()))
}

// Structs.

/// `S(…)`: a new struct, from a table of its fields or a struct of the type.
fn construct(call: &mut Call<'_>) -> Result<Next, Throw> {
    const MADE: usize = 2;
    const KEY: usize = 3;
    let Some(of) = Gc::<StructType>::from_value(call.slot(0)) else {
        return Err(call.message("struct type expected"));
    };
    if call.state() == 0 {
        call.settle(2);
        let made = Struct::new(call.heap(), of)?;
        let source = call.slot(1);
        call.set(MADE, made.value());
        call.set(KEY, Value::NIL);
        if source.is_nil() {
            return Ok(Next::One(made.value()));
        }
        if let Some(source) = Gc::<Struct>::from_value(source).filter(|it| it.of() == of) {
            call.copy_struct(source, made)?;
            return Ok(Next::One(made.value()));
        }
        if source.as_table().is_none() {
            return Err(call.argument_error(
                0,
                format_args!(
                    "table or {} expected, got {}",
                    of.info().name,
                    described(call.core, source)
                ),
            ));
        }
        call.advance(FILLING);
    }
    let made = call.slot(MADE);
    let mut pace = Pace::default();
    while let Some(table) = call.slot(1).as_table() {
        let key = call.slot(KEY);
        match table.next(call.heap(), key, &mut || ()) {
            Ok(Some((key, value))) => {
                if of.field(key).is_none() {
                    let shown = described_key(call, key);
                    return Err(call.message(format_args!(
                        "struct {} has no field {shown}",
                        of.info().name
                    )));
                }
                call.memory_set(made, key, value)?;
                call.set(KEY, key);
            }
            Ok(None) => break,
            Err(_) => return Err(call.message("table was modified while a struct was made of it")),
        }
        pace.step(call)?;
    }
    Ok(Next::One(made))
}

fn described_key(call: &Call<'_>, key: Value) -> String {
    match (key.as_str(), key.as_number()) {
        (Some(text), _) => format!("'{}'", String::from_utf8_lossy(text.bytes())),
        (None, Some(n)) => super::base::number_text(n).as_str().into(),
        _ => format!("of type {}", call.type_name(key)),
    }
}

/// `S.view(bytes, offset [, n])`.
fn view(call: &mut Call<'_>) -> Result<Next, Throw> {
    let of = captured_type(call)?;
    let info = of.info();
    let source = Gc::<Array>::from_value(call.get(0))
        .filter(|array| matches!(array.scalar(), Some(Scalar::U8 | Scalar::I8)));
    let Some(source) = source else {
        let found = described(call.core, call.get(0));
        return Err(call.argument_error(0, format_args!("bytes expected, got {found}")));
    };
    if !info.refs.is_empty() {
        return Err(call.message(format_args!(
            "struct {} has a 'ref' and cannot be viewed over bytes",
            info.name
        )));
    }
    let at = call.optional_integer(1, 0)?;
    let count = if call.get(2).is_nil() {
        None
    } else {
        Some(call.integer_argument(2)?)
    };
    let bytes = count
        .map_or(Some(info.size as i64), |n| n.checked_mul(info.size as i64))
        .filter(|bytes| *bytes >= 0);
    let end = bytes.and_then(|bytes| at.checked_add(bytes));
    if at < 0 || end.is_none_or(|end| end > source.length() as i64) {
        return Err(call.message(format_args!(
            "view of struct {} at offset {at} does not fit (length {})",
            info.name,
            source.length()
        )));
    }
    // SAFETY: so many bytes lie there; what has no references may be made of any bytes.
    unsafe {
        let data = source.data().add(at as usize);
        let root = source.root();
        let value = match count {
            None => Struct::reference(call.heap(), of, data, root)?.value(),
            Some(n) => {
                Array::view(call.heap(), OF_STRUCTS, Some(of), n as usize, data, root)?.value()
            }
        };
        Ok(Next::One(value))
    }
}

/// `S.offset(field)`.
fn offset(call: &mut Call<'_>) -> Result<Next, Throw> {
    let of = captured_type(call)?;
    call.bytes_argument(0)?;
    match of.field(call.get(0)) {
        Some(field) => Ok(Next::One(
            call.integer(of.info().fields[field].offset as i64)?,
        )),
        None => {
            let shown = described_key(call, call.get(0));
            Err(call.argument_error(
                0,
                format_args!("struct {} has no field {shown}", of.info().name),
            ))
        }
    }
}

/// `struct.name(p)`: the name of the type of a struct, or of the structs of an array.
fn name(call: &mut Call<'_>) -> Result<Next, Throw> {
    let value = call.any_argument(0)?;
    let of = Gc::<Struct>::from_value(value)
        .map(|it| it.of())
        .or_else(|| Gc::from_value(value))
        .or_else(|| Gc::<Array>::from_value(value).and_then(|array| array.of()));
    match of {
        Some(of) => Ok(Next::One(call.string(of.info().name.as_bytes())?)),
        None => Err(call.type_error(0, "struct")),
    }
}

/// The iterator of `pairs` over a struct: the field after the one of this name.
pub(crate) fn next_field(call: &mut Call<'_>) -> Result<Next, Throw> {
    let object = call.get(0);
    let Some(it) = Gc::<Struct>::from_value(object) else {
        return Err(call.type_error(0, "struct"));
    };
    let of = it.of();
    let following = if call.get(1).is_nil() {
        0
    } else {
        match of.field(call.get(1)) {
            Some(field) => field + 1,
            None => return Err(call.argument_error(1, "no such field")),
        }
    };
    if following >= of.info().fields.len() {
        return Ok(Next::One(Value::NIL));
    }
    let key = of.field_name(following);
    let value = call.memory_get(object, key)?;
    call.set(0, key);
    call.set(1, value);
    Ok(Next::Many { at: 0, count: 2 })
}

// Methods of arrays.

/// What of this accesses memory that tasks share.
pub(crate) const WATCHED: &[Watched] = &[
    (copy, Touch::Elements(8, 8)),
    (fill, Touch::Fill),
    (tostring, Touch::Elements(1, 2)),
];

fn array_argument(call: &Call<'_>) -> Result<Gc<Array>, Throw> {
    Gc::from_value(call.get(0)).ok_or_else(|| call.type_error(0, "array"))
}

/// Arguments `i` and `i + 1` as a range of an array, as first index and number of elements.
fn range(call: &mut Call<'_>, array: Gc<Array>, i: usize) -> Result<(usize, usize), Throw> {
    let length = array.length() as i64;
    let first = call.optional_integer(i, 1)?;
    let last = call.optional_integer(i + 1, length)?;
    if first < 1 || last > length || last < first - 1 {
        return Err(call.message(format_args!(
            "range {first} to {last} out of range (length {length})"
        )));
    }
    Ok((first as usize, (last - first + 1) as usize))
}

/// `a:slice(i, j)`: shares the memory.
fn slice(call: &mut Call<'_>) -> Result<Next, Throw> {
    let array = array_argument(call)?;
    let (first, count) = range(call, array, 1)?;
    // SAFETY: the range lies in the array.
    unsafe {
        let data = array.data().add((first - 1) * array.stride());
        let slice = Array::view(
            call.heap(),
            array.code(),
            array.of(),
            count,
            data,
            array.root(),
        )?;
        Ok(Next::One(slice.value()))
    }
}

/// `a:copy()`.
fn copy(call: &mut Call<'_>) -> Result<Next, Throw> {
    let array = array_argument(call)?;
    let length = array.length();
    let made = make(call, array.code(), array.of(), length)?;
    let bytes = length * array.stride();
    let mut at = 0;
    while at < bytes {
        let count = BYTES.min(bytes - at);
        if array.length() < length {
            return Err(call.message("array was released while it was copied"));
        }
        // SAFETY: both have that many bytes. The new array's references are seen through the old one or the new.
        unsafe { scalar::copy_bytes(array.data().add(at), made.data().add(at), count) };
        at += count;
        call.poll()?;
    }
    Ok(Next::One(made.value()))
}

/// `a:fill(v [, i, j])`.
fn fill(call: &mut Call<'_>) -> Result<Next, Throw> {
    if call.state() == 0 {
        let array = array_argument(call)?;
        call.settle(4);
        let (first, count) = range(call, array, 2)?;
        keep(call, 2, first as i64)?;
        keep(call, 3, (first + count) as i64)?;
        call.advance(FILLING);
    }
    let (object, value) = (call.slot(0), call.slot(1));
    let mut pace = Pace::default();
    let mut i = kept(call, 2);
    while i < kept(call, 3) {
        let key = call.integer(i)?;
        call.memory_set(object, key, value)?;
        i += 1;
        keep(call, 2, i)?;
        pace.step(call)?;
    }
    Ok(Next::One(object))
}

/// `a:tostring([i, j])`: the bytes of its elements.
fn tostring(call: &mut Call<'_>) -> Result<Next, Throw> {
    let array = array_argument(call)?;
    if has_references(array.code(), array.of()) {
        return Err(call.message(format_args!(
            "{} holds references, which have no bytes",
            array_name(array)
        )));
    }
    let (first, count) = range(call, array, 1)?;
    let mut buffer = super::buffer::Buffer::new();
    let stride = array.stride();
    let (mut at, end) = ((first - 1) * stride, (first - 1 + count) * stride);
    let mut piece = [0; 512];
    while at < end {
        if array.length() * stride < end {
            return Err(call.message("array was released while it was copied"));
        }
        let count = piece.len().min(end - at);
        for (i, byte) in piece[..count].iter_mut().enumerate() {
            // SAFETY: inside the array.
            *byte = unsafe { scalar::load_integer(Scalar::U8, array.data().add(at + i)) } as u8;
        }
        buffer.extend(call, &piece[..count])?;
        at += count;
    }
    Ok(Next::One(buffer.into_string(call, NEXT)?))
}

/// `a:release()`.
fn release(call: &mut Call<'_>) -> Result<Next, Throw> {
    let array = array_argument(call)?;
    call.before_memory_store(array)?;
    if !array.release() {
        return Err(call.message("only an array that owns its memory can be released"));
    }
    Ok(Next::Nothing)
}

// Words, where the compiler does not see them.

fn to_reg(call: &mut Call<'_>) -> Result<Next, Throw> {
    match call.get(1).as_number().map(Number::to_integer) {
        Some(Some(i)) => Ok(Next::One(call.integer(i)?)),
        Some(None) => Err(call.message("number has no integer representation")),
        None => Err(call.message(format_args!(
            "reg expected, got {}",
            call.type_name(call.get(1))
        ))),
    }
}

fn to_f64(call: &mut Call<'_>) -> Result<Next, Throw> {
    match call.get(1).as_number() {
        Some(n) => Ok(Next::One(Value::float(n.to_float()))),
        None => Err(call.message(format_args!(
            "f64 expected, got {}",
            call.type_name(call.get(1))
        ))),
    }
}

/// Natives of two integers, or one.
macro_rules! words {
    ($($name:ident |$x:ident $(, $y:ident)?| $result:expr;)*) => {$(
        fn $name(call: &mut Call<'_>) -> Result<Next, Throw> {
            let $x = call.integer_argument(0)?;
            $(let $y = call.integer_argument(1)?;)?
            Ok(Next::One(call.integer($result)?))
        }
    )*};
}

words! {
    sar |x, y| crate::number::shift_right_signed(x, y);
    mulhi |x, y| ((x as i128 * y as i128) >> 64) as i64;
    rol |x, y| x.rotate_left((y & 63) as u32);
    clz |x| x.leading_zeros().into();
    ctz |x| x.trailing_zeros().into();
    popcount |x| x.count_ones().into();
    bswap |x| x.swap_bytes();
}

fn ult(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (x, y) = (call.integer_argument(0)?, call.integer_argument(1)?);
    Ok(Next::One(Value::boolean((x as u64) < y as u64)))
}

fn udiv(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (x, y) = (call.integer_argument(0)?, call.integer_argument(1)?);
    match (x as u64).checked_div(y as u64) {
        Some(q) => Ok(Next::One(call.integer(q as i64)?)),
        None => Err(call.message("attempt to divide by zero")),
    }
}

fn urem(call: &mut Call<'_>) -> Result<Next, Throw> {
    let (x, y) = (call.integer_argument(0)?, call.integer_argument(1)?);
    match (x as u64).checked_rem(y as u64) {
        Some(r) => Ok(Next::One(call.integer(r as i64)?)),
        None => Err(call.message("attempt to perform 'n%0'")),
    }
}
