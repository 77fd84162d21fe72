//! Scopes: which variable a name means, and what becomes of each variable.
//!
//! A variable that an inner function uses is captured: its value is copied into the closure, unless something besides its
//! declaration assigns it anywhere; then it lives in a cell, which the closure shares.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::ast::*;
use super::parser::{Parsed, Parser};
use super::token::Position;
use crate::memory::Origin;

/// Local variables of one function, at most; Lua's limit.
const LOCALS: usize = 200;

/// Whether a global of this name means a built-in type, unless the chunk assigns it.
fn is_type_word(name: &str) -> bool {
    crate::memory::Scalar::from_name(name).is_some()
}

/// A function whose body is being parsed.
pub(super) struct FunctionScope {
    /// Which.
    pub id: FunctionId,
    /// Where it begins.
    pub position: Position,
    /// Whether it has `...`.
    pub variadic: bool,
    /// Whether it is the body of a `parallel for`.
    pub parallel: bool,
    /// Whether it needs the chunk's own `_ENV`.
    pub uses_environment: bool,
    /// Loops of it around the current statement.
    pub loops: u32,
    /// The first of its variables in the list of active ones.
    pub first_active: usize,
}

/// What a name means.
pub(super) enum Meaning {
    /// A local variable.
    Local(VariableId),
    /// A field of the chunk's own `_ENV`.
    Global,
    /// A field of a local variable called `_ENV`.
    FieldOf(VariableId),
}

impl Parser<'_> {
    /// Begins a function.
    pub(super) fn open_function(&mut self, variadic: bool, parallel: bool, position: Position) {
        let id = FunctionId(self.functions.len() as u32);
        self.functions.push(FunctionBody::default());
        self.scopes.push(FunctionScope {
            id,
            position,
            variadic,
            parallel,
            uses_environment: false,
            loops: 0,
            first_active: self.active.len(),
        });
    }

    /// Ends the innermost function; its variables go out of scope.
    pub(super) fn close_function(&mut self) -> Option<FunctionScope> {
        let scope = self.scopes.pop()?;
        self.active.truncate(scope.first_active);
        Some(scope)
    }

    /// The innermost function. There is one as long as anything is parsed.
    pub(super) fn scope(&mut self) -> &mut FunctionScope {
        self.scopes.last_mut().expect("the main function is open")
    }

    /// A new variable of the innermost function, not yet in scope.
    pub(super) fn declare(&mut self, name: Arc<str>, position: Position) -> VariableId {
        let id = VariableId(self.variables.len() as u32);
        let function = self.scope().id;
        self.variables.push(Variable {
            name,
            position,
            function,
            attribute: Attribute::None,
            kind: Type::Any,
            structure: None,
            value: None,
            captured: false,
            assigned: false,
        });
        id
    }

    /// Brings a variable into scope.
    pub(super) fn activate(&mut self, variable: VariableId) -> Parsed<()> {
        self.active.push(variable);
        let first = self.scope().first_active;
        if self.active.len() - first <= LOCALS {
            return Ok(());
        }
        let line = self.scope().position.line;
        let place = if self.scopes.len() == 1 {
            "the main function".into()
        } else {
            format!("the function at line {line}")
        };
        let position = self.variables[variable.0 as usize].position;
        self.report(
            position,
            format!("too many local variables (limit is {LOCALS}) in {place}"),
        );
        self.halt();
        Err(super::parser::Failed)
    }

    /// The variable of a name in scope.
    pub(super) fn find(&self, name: &str) -> Option<VariableId> {
        let named = |id: &&VariableId| &*self.variables[id.0 as usize].name == name;
        self.active.iter().rev().find(named).copied()
    }

    /// The local variable that a name means here, if it means one. Not a use of it.
    pub(super) fn find_local(&self, name: &str) -> Option<VariableId> {
        self.find(name)
    }

    /// Notes that the current function uses a variable.
    pub(super) fn note_use(&mut self, id: VariableId) {
        let current = self.scope().id;
        let variable = &mut self.variables[id.0 as usize];
        if variable.function != current {
            variable.captured = true;
        }
        if id == ENVIRONMENT {
            for scope in &mut self.scopes {
                scope.uses_environment = true;
            }
        }
    }

    /// What a name means here.
    pub(super) fn resolve(&mut self, name: &str) -> Meaning {
        if let Some(id) = self.find(name) {
            self.note_use(id);
            return Meaning::Local(id);
        }
        let environment = self.find("_ENV").unwrap_or(ENVIRONMENT);
        self.note_use(environment);
        if environment == ENVIRONMENT {
            Meaning::Global
        } else {
            Meaning::FieldOf(environment)
        }
    }

    /// Notes an assignment to what an expression means, and reports one that is not allowed.
    pub(super) fn note_assignment(&mut self, target: ExprId) {
        let (id, position) = match &self.expressions[target.0 as usize] {
            Expr {
                kind: ExprKind::Local(id),
                position,
            } => (*id, *position),
            Expr {
                kind: ExprKind::Global(name),
                ..
            } => {
                if is_type_word(name) {
                    self.assigned_globals.push(name.clone());
                }
                return;
            }
            Expr {
                kind: ExprKind::Index(object, _),
                position,
            } => {
                let (object, position) = (*object, *position);
                self.check_member_assignment(object, position);
                return;
            }
            _ => return,
        };
        let variable = &mut self.variables[id.0 as usize];
        variable.assigned = true;
        let (name, function) = (variable.name.clone(), variable.function);
        if variable.attribute != Attribute::None {
            self.report(
                position,
                format!("attempt to assign to const variable '{name}'"),
            );
            return;
        }
        let inside: Vec<_> = self
            .scopes
            .iter()
            .rev()
            .take_while(|s| s.id != function)
            .collect();
        if inside.iter().any(|scope| scope.parallel) {
            let message = format!(
                "cannot assign to '{name}', which is declared outside of the 'parallel for': \
                 use 'reduce', 'atomic' or a table"
            );
            self.report(position, message);
        }
    }

    /// Reports an assignment to a member of a struct that another module declares.
    fn check_member_assignment(&mut self, object: ExprId, position: Position) {
        let ExprKind::Local(id) = self.expressions[object.0 as usize].kind else {
            return;
        };
        let Some(index) = self.variables[id.0 as usize].structure else {
            return;
        };
        let shape = &self.shapes[index as usize];
        if let Origin::Module(module) = &shape.origin {
            let message = format!(
                "the methods of struct '{}' are declared in its own module, '{module}'",
                shape.name
            );
            self.report(position, message);
        }
    }
}
