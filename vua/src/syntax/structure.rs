//! The parser: types, and structs.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::ast::*;
use super::modules::{Declarations, Identity};
use super::parser::{Failed, Parsed, Parser};
use super::token::{Position, Token};
use crate::memory::{Field, Layout, Member, Origin, Scalar, Shape};

/// Names that belong to a struct's type, and cannot be those of fields.
const TAKEN: [&str; 5] = ["size", "align", "offset", "array", "view"];

impl Parser<'_> {
    /// The struct that a name means here.
    fn structure(&self, name: &str) -> Option<u32> {
        let id = self.find(name)?;
        self.variables[id.0 as usize].structure
    }

    /// A type: `Name`, `Name[]`, either with `?` behind it.
    pub(super) fn type_name(&mut self) -> Parsed<Type> {
        let position = self.current.position;
        let name = self.name()?;
        let array =
            *self.token() == Token::LeftBracket && *self.look_ahead() == Token::RightBracket;
        if array {
            self.advance();
            self.advance();
        }
        let structure = self.structure(&name);
        let kind = match (&*name, array, structure) {
            (_, true, Some(index)) => Some(Type::Array(Element::Struct(index), false)),
            (_, false, Some(index)) => Some(Type::Struct(index, false)),
            ("any", false, None) => Some(Type::Any),
            ("reg", false, None) => Some(Type::Reg),
            ("f64", false, None) => Some(Type::F64),
            (scalar, true, None) => Scalar::from_name(scalar)
                .filter(|scalar| !matches!(scalar, Scalar::Bool | Scalar::Ref))
                .map(|scalar| Type::Array(Element::Scalar(scalar), false)),
            _ => None,
        };
        let question = self.current.position;
        let nullable = self.accept(&Token::Question);
        match kind {
            Some(Type::Struct(index, _)) => Ok(Type::Struct(index, nullable)),
            Some(Type::Array(element, _)) => Ok(Type::Array(element, nullable)),
            Some(kind) => {
                if nullable {
                    let shown = kind.name(&self.shapes);
                    self.report(question, format!("a {shown} is never nil"));
                }
                Ok(kind)
            }
            None => {
                let array = if array { "[]" } else { "" };
                let instead = meant(&name, ["reg", "f64", "any"]);
                self.report(position, format!("unknown type '{name}{array}'{instead}"));
                Ok(Type::Any)
            }
        }
    }

    /// `struct Name ["packed"] fields end`.
    pub(super) fn struct_statement(&mut self, position: Position) -> Parsed<StatementKind> {
        self.advance();
        let name_position = self.current.position;
        let name = self.name()?;
        // A field of this name has a colon behind it.
        if self.at_word("from") && *self.look_ahead() != Token::Colon {
            return self.struct_of_a_module(name, name_position);
        }
        let packed = self.at_word("packed") && *self.look_ahead() != Token::Colon;
        if packed {
            self.advance();
        }
        let variable = self.declare(name.clone(), name_position);
        let mut shape = Shape {
            name,
            packed,
            fields: Vec::new(),
            outermost: self.is_outermost(),
            origin: Origin::Here,
        };
        let mut places = Vec::new();
        while *self.token() != Token::EndWord {
            let place = self.current.position;
            let field = self.field()?;
            if shape.fields.iter().any(|other| other.name == field.name) {
                self.report(place, format!("field '{}' is declared twice", field.name));
            } else if TAKEN.contains(&&*field.name) {
                let message = format!(
                    "'{}' belongs to the type, and is no field's name",
                    field.name
                );
                self.report(place, message);
            } else {
                shape.fields.push(field);
                places.push(place);
            }
            if !self.accept(&Token::Comma) {
                self.accept(&Token::Semicolon);
            }
        }
        self.expect_struct_end(position)?;
        let layout = match Layout::of(&shape, &self.layouts) {
            Ok(layout) => layout,
            Err((field, message)) => {
                let place = places.get(field).copied().unwrap_or(position);
                self.report(place, message);
                Layout {
                    size: 0,
                    align: 1,
                    offsets: alloc::vec![0; shape.fields.len()],
                    refs: Vec::new(),
                }
            }
        };
        let index = self.shapes.len() as u32;
        self.shapes.push(shape);
        self.layouts.push(layout);
        let nobody = self.intern("");
        self.identities.push(Identity::new(nobody, index));
        self.declare_struct(variable, index)?;
        Ok(StatementKind::Struct(variable, index))
    }

    /// The variable is the type of this struct from here on.
    fn declare_struct(&mut self, variable: VariableId, index: u32) -> Parsed<()> {
        let declared = &mut self.variables[variable.0 as usize];
        declared.structure = Some(index);
        declared.attribute = Attribute::Const;
        self.activate(variable)
    }

    /// `struct Name "from" "module"`, from its third word on.
    fn struct_of_a_module(
        &mut self,
        name: Arc<str>,
        name_position: Position,
    ) -> Parsed<StatementKind> {
        let statement = self.advance().position;
        let position = self.current.position;
        let Token::String(module) = self.token() else {
            return self.fail_near("the name of a module, a string, expected");
        };
        let text = module.clone();
        let module = self.intern(&String::from_utf8_lossy(&text));
        self.advance();
        let modules = self.modules;
        let found = modules.get(&module).and_then(|declarations| {
            let Some(at) = declarations.outermost(&name) else {
                return Err(declarations.no_such(&name));
            };
            Ok((declarations, at))
        });
        let index = match found {
            Ok((declarations, at)) => self.import(declarations, at, &module)?,
            Err(message) => {
                self.report(position, message);
                // So that the name is not reported as well, wherever it is used.
                self.add_shape(Shape {
                    name: name.clone(),
                    packed: false,
                    fields: Vec::new(),
                    outermost: false,
                    origin: Origin::Embedded,
                })
            }
        };
        let variable = self.declare(name, name_position);
        let of = self.add(ExprKind::String(text), position);
        let load = self.builtin(Builtin::Module, alloc::vec![of], statement);
        self.declare_struct(variable, index)?;
        Ok(StatementKind::StructOfModule(variable, index, load))
    }

    /// The number here of a module's struct, which is brought in with all that it embeds.
    fn import(&mut self, from: &Declarations, at: usize, module: &Arc<str>) -> Parsed<u32> {
        /// What a field takes here, in bytes.
        const FIELD: usize = 128;
        let mut needed = alloc::vec![false; at + 1];
        needed[at] = true;
        // Each embeds earlier ones only.
        for i in (0..=at).rev() {
            if needed[i] {
                for field in &from.shapes[i].fields {
                    if let Member::Struct(inner) = field.member {
                        needed[inner as usize] = true;
                    }
                }
            }
        }
        let mut numbers = alloc::vec![0; at + 1];
        for i in (0..=at).filter(|&i| needed[i]) {
            let identity = &from.identities[i];
            numbers[i] = match self.imported.get(identity) {
                Some(&known) => known,
                None => {
                    let original = &from.shapes[i];
                    if !self.spend(FIELD * (original.fields.len() + 4)) {
                        return Err(Failed);
                    }
                    let mut shape = original.clone();
                    for field in &mut shape.fields {
                        if let Member::Struct(inner) = &mut field.member {
                            *inner = numbers[*inner as usize];
                        }
                    }
                    shape.outermost = false;
                    shape.origin = Origin::Embedded;
                    let index = self.add_shape(shape);
                    self.imported.insert(identity.clone(), index);
                    self.identities[index as usize] = identity.clone();
                    index
                }
            };
        }
        let index = numbers[at];
        let outermost = self.is_outermost();
        let shape = &mut self.shapes[index as usize];
        shape.outermost |= outermost;
        if shape.origin == Origin::Embedded {
            shape.origin = Origin::Module(module.clone());
        }
        Ok(index)
    }

    /// Adds a struct of another chunk, whose fields are in order.
    fn add_shape(&mut self, shape: Shape) -> u32 {
        let index = self.shapes.len() as u32;
        let layout = Layout::of(&shape, &self.layouts).unwrap_or(Layout {
            size: 0,
            align: 1,
            offsets: alloc::vec![0; shape.fields.len()],
            refs: Vec::new(),
        });
        self.shapes.push(shape);
        self.layouts.push(layout);
        let nobody = self.intern("");
        self.identities.push(Identity::new(nobody, index));
        index
    }

    fn expect_struct_end(&mut self, position: Position) -> Parsed<()> {
        if self.accept(&Token::EndWord) {
            return Ok(());
        }
        let message = format!(
            "'end' expected (to close 'struct' at line {})",
            position.line
        );
        self.fail_near(&message)
    }

    /// `name ":" kind ["[" count "]"]`.
    fn field(&mut self) -> Parsed<Field> {
        let name: Arc<str> = self.name()?;
        self.expect(&Token::Colon)?;
        let position = self.current.position;
        let kind = self.name()?;
        let member = match (self.structure(&kind), Scalar::from_name(&kind)) {
            (Some(index), _) => Member::Struct(index),
            (None, Some(scalar)) => Member::Scalar(scalar),
            (None, None) => {
                let instead = meant(&kind, ["reg", "f64", "ref"]);
                let message = format!("unknown type '{kind}' of a field{instead}");
                self.report(position, message);
                Member::Scalar(Scalar::U8)
            }
        };
        let mut count = None;
        if self.accept(&Token::LeftBracket) {
            let position = self.current.position;
            match *self.token() {
                Token::Integer(n @ 1..=65536) => count = Some(n as u32),
                _ => self.report(
                    position,
                    "the length of a fixed array is an integer from 1 to 65536".to_string(),
                ),
            }
            self.advance();
            self.expect(&Token::RightBracket)?;
        }
        Ok(Field {
            name,
            member,
            count,
        })
    }
}

/// What to write instead of the name that a type has in other languages: of an integer, of a float, of any value.
fn meant(name: &str, [integer, float, any]: [&str; 3]) -> String {
    match name {
        "integer" | "int" | "int64" | "long" => format!(": an integer is a '{integer}'"),
        "number" => format!(": a float is an '{float}', an integer a '{integer}'"),
        "float" | "double" => format!(": a float is an '{float}'"),
        "boolean" if any == "ref" => ": a boolean is a 'bool'".into(),
        "string" | "boolean" | "table" | "function" | "thread" | "userdata" => {
            format!(": any value is written '{any}'")
        }
        _ => String::new(),
    }
}
