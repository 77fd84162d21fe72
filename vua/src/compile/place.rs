//! Fields and elements of known types: one instruction each, with no object made on the way.
//!
//! A *place* is what a chain such as `ps[i].position.x` has come to: the struct or array in a register, the index in a raw register, and the
//! offset of all fields so far. If it ends at a number, an instruction reads or writes that. If it ends at anything else, or a name is no field, the chain is
//! generated again as ordinary indices, which make references on the way.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;

use super::operand::{Expression, Literal, Operand};
use super::raw::Raw;
use super::{Coded, Compiler};
use crate::bytecode::Op;
use crate::memory::{Member, Scalar};
use crate::syntax::Position;
use crate::syntax::ast::*;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The register of the struct or array.
    pub base: u8,
    /// The raw register of the index into the array.
    pub index: Option<u8>,
    /// The struct of the base, or of its elements; `None` for an array of numbers.
    root: Option<u32>,
    /// The offset from there.
    offset: usize,
    /// The fields so far.
    names: Vec<Rc<[u8]>>,
    /// What lies there.
    content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Number(Scalar),
    Struct(u32),
    /// Something that only an ordinary access gives.
    Other,
}

impl Place {
    /// What raw word is there, if one is.
    pub fn raw(&self) -> Option<Raw> {
        match self.content {
            Content::Number(scalar) if scalar.is_float() => Some(Raw::Float),
            Content::Number(_) => Some(Raw::Integer),
            _ => None,
        }
    }
}

impl<'c> Compiler<'c> {
    /// An index of a value of a known type; `None` if it is an ordinary one.
    pub(super) fn place(&mut self, e: &mut Expression, key: ExprId) -> Coded<Option<Operand>> {
        let name = match &self.expr(key).kind {
            ExprKind::String(name) => Some(name.clone()),
            _ => None,
        };
        let mut place = match (&e.operand, e.kind, &name) {
            (Operand::Place(place), _, Some(_)) => (**place).clone(),
            (_, Type::Struct(index, _), Some(_)) => Place {
                base: self.any_register(e)?,
                index: None,
                root: Some(index),
                offset: 0,
                names: Vec::new(),
                content: Content::Struct(index),
            },
            (_, Type::Array(element, _), None) => {
                let base = self.any_register(e)?;
                let mut key = self.expression(key)?;
                let index = self.any_raw_as(&mut key, Raw::Integer, "the index")?;
                let (root, content) = match element {
                    Element::Scalar(scalar) => (None, Content::Number(scalar)),
                    Element::Struct(index) => (Some(index), Content::Struct(index)),
                };
                return Ok(Some(Operand::Place(Box::new(Place {
                    base,
                    index: Some(index),
                    root,
                    offset: 0,
                    names: Vec::new(),
                    content,
                }))));
            }
            _ => return Ok(None),
        };
        let Some(name) = name else { return Ok(None) };
        let Content::Struct(index) = place.content else {
            return Ok(None);
        };
        let chunk = self.chunk;
        let shape = &chunk.shapes[index as usize];
        let field = shape
            .fields
            .iter()
            .position(|field| field.name.as_bytes() == &*name);
        place.names.push(name);
        place.content = match field.map(|i| (i, &shape.fields[i])) {
            Some((i, field)) => {
                place.offset += chunk.layouts[index as usize].offsets[i];
                match (field.member, field.count) {
                    (Member::Scalar(scalar), None) if scalar.is_integer() || scalar.is_float() => {
                        Content::Number(scalar)
                    }
                    (Member::Struct(inner), None) => Content::Struct(inner),
                    _ => Content::Other,
                }
            }
            None => Content::Other,
        };
        if place.content == Content::Other {
            return self.ordinary(place, e.position).map(Some);
        }
        Ok(Some(Operand::Place(Box::new(place))))
    }

    /// A place as an ordinary index: what comes before the last is read, and gives references.
    pub(super) fn ordinary(&mut self, place: Place, position: Position) -> Coded<Operand> {
        let before = core::mem::replace(&mut self.f.position, position);
        let mut operand = None;
        if let Some(index) = place.index {
            self.release_raw(index);
            let key = self.reserve(1)?;
            self.emit_ad(Op::BOXI, key, index.into())?;
            operand = Some(Operand::Index(place.base, key));
        }
        for name in place.names {
            let table = match operand.take() {
                None => place.base,
                Some(operand) => {
                    let mut e = Expression::new(operand, position);
                    self.next_register(&mut e)?
                }
            };
            let name = self.short_constant(&Literal::String(name))?;
            operand = Some(Operand::Field(table, name));
        }
        self.f.position = before;
        Ok(operand.unwrap_or(Operand::Register(place.base)))
    }

    /// The extension word of a place in a struct.
    fn path(&mut self, root: u32, offset: usize, scalar: Scalar) -> Coded<u32> {
        let of = self.short_constant(&Literal::Struct(root))?;
        let at = self.short_constant(&Literal::Integer((offset as i64) << 8 | scalar as i64))?;
        Ok(u32::from(of) | u32::from(at) << 16)
    }

    fn access(&mut self, place: &Place, register: u8, stores: bool) -> Coded<usize> {
        let Content::Number(scalar) = place.content else {
            return self.fail("not a number".into());
        };
        let float = scalar.is_float();
        match (place.root, place.index) {
            (None, index) => {
                let op = match (stores, float) {
                    (false, false) => Op::AGETI,
                    (false, true) => Op::AGETF,
                    (true, false) => Op::ASETI,
                    (true, true) => Op::ASETF,
                };
                self.emit_abc(op, register, place.base, index.unwrap_or(0))
            }
            (Some(root), index) => {
                let path = self.path(root, place.offset, scalar)?;
                let at = match index {
                    None => {
                        let op = if stores { Op::SSET } else { Op::SGET };
                        self.emit_abc(op, register, place.base, 0)?
                    }
                    Some(index) => {
                        let op = if stores { Op::PSET } else { Op::PGET };
                        self.emit_abc(op, register, place.base, index)?
                    }
                };
                self.emit_extension(path)?;
                Ok(at)
            }
        }
    }

    /// Reads a place: a number is raw, by an instruction whose register is still to be chosen; anything else as usual.
    pub(super) fn read_place(&mut self, place: Place, position: Position) -> Coded<Operand> {
        let Some(raw) = place.raw() else {
            return self.ordinary(place, position);
        };
        if let Some(index) = place.index {
            self.release_raw(index);
        }
        self.release(place.base);
        let at = self.access(&place, 0, false)?;
        Ok(Operand::RawRelocatable(at, raw))
    }

    /// Stores a value in a place.
    pub(super) fn write_place(
        &mut self,
        place: &Place,
        value: &mut Expression,
        position: Position,
    ) -> Coded<()> {
        let Some(raw) = place.raw() else {
            // The value is in its register before the references to the place are made above it.
            let source = self.any_register(value)?;
            let free = self.f.free;
            let target = self.ordinary(place.clone(), position)?;
            self.f.position = position;
            match target {
                Operand::Index(table, key) => {
                    self.emit_abc(Op::TSET, source, table, key)?;
                }
                Operand::Field(table, key) => {
                    self.emit_abc(Op::TSETS, source, table, 0)?;
                    self.emit_extension(key.into())?;
                }
                _ => debug_assert!(false, "a place has an index or a name"),
            }
            self.f.free = free;
            self.release_value(value);
            return Ok(());
        };
        let what = match place.names.last() {
            Some(name) => format!("field '{}'", alloc::string::String::from_utf8_lossy(name)),
            None => "the element".into(),
        };
        let source = self.any_raw_as(value, raw, &what)?;
        self.f.position = position;
        self.access(place, source, true)?;
        self.release_raw(source);
        Ok(())
    }

    /// Checks that a value in a tagged register is of a type.
    pub(super) fn check_type(&mut self, register: u8, kind: Type) -> Coded<()> {
        let (which, word) = match kind {
            Type::Struct(index, _) => (0, self.short_constant(&Literal::Struct(index))?.into()),
            Type::Array(Element::Struct(index), _) => {
                (1, self.short_constant(&Literal::Struct(index))?.into())
            }
            Type::Array(Element::Scalar(scalar), _) => (2, scalar as u32),
            _ => return Ok(()),
        };
        let nullable = if kind.is_nullable() { 4 } else { 0 };
        self.emit_abc(Op::CHECK, register, which + nullable, 0)?;
        self.emit_extension(word)
    }

    /// What the results of a call are known to be: `S { … }`, `S.array(…)`, `f64.array(…)`, `bytes(…)`.
    pub(super) fn made_type(&self, call: ExprId) -> Type {
        let ExprKind::Call(function, arguments) = &self.expr(call).kind else {
            return Type::Any;
        };
        let structure = |id: ExprId| match self.expr(id).kind {
            ExprKind::Local(variable) => self.variable(variable).structure,
            _ => None,
        };
        let built_in = |id: ExprId| match &self.expr(id).kind {
            ExprKind::Global(name) if !self.chunk.assigned_globals.contains(name) => Some(&**name),
            _ => None,
        };
        if let Some(index) = structure(*function) {
            return Type::Struct(index, false);
        }
        if built_in(*function) == Some("bytes") {
            return Type::Array(Element::Scalar(Scalar::U8), false);
        }
        let ExprKind::Index(table, key) = self.expr(*function).kind else {
            return Type::Any;
        };
        let ExprKind::String(name) = &self.expr(key).kind else {
            return Type::Any;
        };
        match (&**name, structure(table), built_in(table)) {
            (b"array", Some(index), _) => Type::Array(Element::Struct(index), false),
            (b"view", Some(index), _) if arguments.len() < 3 => Type::Struct(index, false),
            (b"view", Some(index), _) => Type::Array(Element::Struct(index), false),
            (b"array", None, Some(name)) => Scalar::from_name(name).map_or(Type::Any, |scalar| {
                Type::Array(Element::Scalar(scalar), false)
            }),
            (b"from", None, Some("bytes")) => Type::Array(Element::Scalar(Scalar::U8), false),
            _ => Type::Any,
        }
    }

    /// The struct that `S { field = value, … }` makes, if that is what a call is.
    pub(super) fn constructed(&self, call: ExprId) -> Option<(u32, &'c [Item])> {
        let ExprKind::Call(function, arguments) = &self.expr(call).kind else {
            return None;
        };
        let ExprKind::Local(variable) = self.expr(*function).kind else {
            return None;
        };
        let index = self.variable(variable).structure?;
        let [argument] = arguments[..] else {
            return None;
        };
        let ExprKind::Table(items) = &self.expr(argument).kind else {
            return None;
        };
        let plain = items.iter().all(|item| match item {
            Item::Keyed(key, _) => matches!(self.expr(*key).kind, ExprKind::String(_)),
            Item::Positional(_) => false,
        });
        plain.then_some((index, &items[..]))
    }

    /// `S { … }`: no table is made.
    pub(super) fn construct(
        &mut self,
        index: u32,
        items: &'c [Item],
        position: Position,
    ) -> Coded<Expression> {
        let register = self.reserve(1)?;
        let of = self.short_constant(&Literal::Struct(index))?;
        self.f.position = position;
        self.emit_ad(Op::SNEW, register, of)?;
        for item in items {
            let Item::Keyed(key, value) = item else {
                continue;
            };
            let at = self.expr(*key).position;
            if let ExprKind::String(name) = &self.expr(*key).kind {
                let shape = &self.chunk.shapes[index as usize];
                if !shape.fields.iter().any(|f| f.name.as_bytes() == &**name) {
                    let message = format!(
                        "struct {} has no field '{}'",
                        shape.name,
                        alloc::string::String::from_utf8_lossy(name)
                    );
                    self.report(at, message);
                    continue;
                }
            }
            let (free, raw_free) = (self.f.free, self.f.raw_free);
            let mut made = Expression::new(Operand::Register(register), position);
            made.kind = Type::Struct(index, false);
            // The register is kept: it is no temporary of the place.
            let target = match self.place(&mut made, *key)? {
                Some(target) => target,
                None => continue,
            };
            let mut value = self.expression(*value)?;
            self.store(&target, &mut value, at, "")?;
            (self.f.free, self.f.raw_free) = (free, raw_free);
        }
        let mut e = Expression::new(Operand::Register(register), position);
        e.kind = Type::Struct(index, false);
        Ok(e)
    }
}
