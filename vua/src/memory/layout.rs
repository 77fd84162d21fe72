//! Layouts of structs: where each field lies. Plain data, known to parser, compiler and verifier alike.
//!
//! Without `packed` a layout is C's: each field at the next multiple of its alignment, which for a scalar is its size, and the size
//! a multiple of the largest alignment. A packed struct has its fields one behind another.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Scalar;

/// The largest struct, in bytes: offsets and sizes fit 32 bits with room, and one is zeroed between two safepoints.
pub const MAX_SIZE: usize = 16 << 10;

/// What a field consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// A scalar.
    Scalar(Scalar),
    /// An embedded struct, by its number among the chunk's.
    Struct(u32),
}

/// A field as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Arc<str>,
    /// What it consists of.
    pub member: Member,
    /// Of a fixed array, how many.
    pub count: Option<u32>,
}

/// Which chunk declares a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The one at hand.
    Here,
    /// The module of this name, in its outermost scope.
    Module(Arc<str>),
    /// Another one: a struct of a module embeds it.
    Embedded,
}

/// A struct as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its fields lie one behind another.
    pub packed: bool,
    /// Its fields, in order.
    pub fields: Vec<Field>,
    /// Whether the chunk's outermost scope declares it, so that other chunks can name it.
    pub outermost: bool,
    /// Which chunk declares it. Of a struct of another one this is a copy, compared with the original before the chunk runs.
    pub origin: Origin,
}

/// Where the fields of a struct lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes, a multiple of the alignment.
    pub size: usize,
    /// Its alignment.
    pub align: usize,
    /// Where each field begins.
    pub offsets: Vec<usize>,
    /// Where references lie, those of embedded structs included.
    pub refs: Vec<u32>,
}

impl Layout {
    /// The layout of a shape, whose embedded structs have these.
    ///
    /// # Errors
    /// The field's number and what is wrong with it.
    pub fn of(shape: &Shape, known: &[Layout]) -> Result<Layout, (usize, String)> {
        let mut layout = Layout {
            size: 0,
            align: 1,
            offsets: Vec::new(),
            refs: Vec::new(),
        };
        for (i, field) in shape.fields.iter().enumerate() {
            let (size, align, refs): (usize, usize, &[u32]) = match field.member {
                Member::Scalar(Scalar::Ref) => (8, 8, &[0]),
                Member::Scalar(scalar) => (scalar.size(), scalar.size(), &[]),
                Member::Struct(index) => match known.get(index as usize) {
                    Some(inner) => (inner.size, inner.align, &inner.refs),
                    None => return Err((i, "the struct is not known here".into())),
                },
            };
            if shape.packed && !refs.is_empty() {
                return Err((i, "a packed struct has no 'ref'".into()));
            }
            if !shape.packed {
                layout.align = layout.align.max(align);
                layout.size = layout.size.next_multiple_of(align);
            }
            let count = field.count.unwrap_or(1) as usize;
            let end = size
                .checked_mul(count)
                .and_then(|bytes| layout.size.checked_add(bytes))
                .filter(|end| *end <= MAX_SIZE);
            let Some(end) = end else {
                return Err((i, format!("a struct has at most {MAX_SIZE} bytes")));
            };
            for element in 0..count {
                let base = layout.size + element * size;
                layout
                    .refs
                    .extend(refs.iter().map(|offset| base as u32 + offset));
            }
            layout.offsets.push(layout.size);
            layout.size = end;
        }
        layout.size = layout.size.next_multiple_of(layout.align);
        Ok(layout)
    }
}

/// The layouts of a chunk's structs, each of which embeds only earlier ones and has fields of different names. A struct of another module embeds
/// such structs only.
///
/// # Errors
/// The struct's number, and what is wrong with it.
pub fn layouts(shapes: &[Shape]) -> Result<Vec<Layout>, (usize, String)> {
    let mut known: Vec<Layout> = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        let layout = Layout::of(shape, &known).map_err(|(_, message)| (i, message))?;
        let mut names = BTreeSet::new();
        if !shape.fields.iter().all(|field| names.insert(&field.name)) {
            return Err((i, "a field is declared twice".into()));
        }
        let declared_here = |member| matches!(member, Member::Struct(index) if shapes[index as usize].origin == Origin::Here);
        if shape.origin != Origin::Here
            && shape.fields.iter().any(|field| declared_here(field.member))
        {
            return Err((i, "a module's struct embeds one that is none".into()));
        }
        known.push(layout);
    }
    Ok(known)
}

/// Whether a scalar of this kind lies at this offset in a struct of a chunk.
pub fn has_scalar(
    shapes: &[Shape],
    layouts: &[Layout],
    index: u32,
    offset: usize,
    wanted: Scalar,
) -> bool {
    let mut index = index;
    let mut offset = offset;
    loop {
        let (Some(shape), Some(layout)) = (shapes.get(index as usize), layouts.get(index as usize))
        else {
            return false;
        };
        let found = layout.offsets.iter().rposition(|&start| start <= offset);
        let Some(field) = found else { return false };
        let inside = offset - layout.offsets[field];
        let (member, count) = (
            shape.fields[field].member,
            shape.fields[field].count.unwrap_or(1) as usize,
        );
        match member {
            Member::Scalar(scalar) => {
                return scalar == wanted
                    && inside.is_multiple_of(scalar.size())
                    && inside / scalar.size() < count;
            }
            Member::Struct(inner) => {
                let Some(size) = layouts.get(inner as usize).map(|l| l.size) else {
                    return false;
                };
                if size == 0 || inside / size >= count {
                    return false;
                }
                offset = inside % size;
                index = inner;
            }
        }
    }
}
