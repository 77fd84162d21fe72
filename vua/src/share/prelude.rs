//! The functions of the parallel library that are written in Vua (`parallel.vua`), and those without a name that the compiler uses.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::pieces;
use crate::heap::NeedMemory;
use crate::library::Builder;
use crate::object::{Closure, Gc, Proto};
use crate::syntax::ast::{BUILTINS, Builtin};
use crate::table::Table;
use crate::value::Value;

const SOURCE: &[u8] = include_bytes!("parallel.vua");

/// What the functions of the file call, beside each other: their name there, and where programs find it.
const STANDARD: &[(&str, &str, &str)] = &[
    ("cas", "atomic", "cas"),
    ("cpus", "cpu", "count"),
    ("error", "", "error"),
    ("move", "table", "move"),
    ("next", "", "next"),
    ("scope", "task", "scope"),
    ("select", "", "select"),
    ("semaphore", "", "semaphore"),
    ("sort_run", "table", "sort"),
    ("type", "", "type"),
];

/// Which functions of the file programs find where.
const PUBLIC: &[(&str, &str)] = &[
    ("task", "any"),
    ("parallel", "invoke"),
    ("parallel", "map"),
    ("parallel", "reduce"),
    ("parallel", "sort"),
];

/// Loads the file, whose main chunk is never run: each of its functions is made with an environment that holds them all. Gives the built-in functions by number.
pub(crate) fn open(builder: &mut Builder<'_>) -> Result<Vec<Value>, NeedMemory> {
    let environment = Table::new(builder.heap(), 0, 64)?;
    let globals = builder.globals();
    for (name, library, field) in STANDARD {
        let from = if library.is_empty() {
            globals
        } else {
            member(builder, globals, library)?
        };
        let value = from.get(builder.string(field)?);
        builder.set(environment, name, value)?;
    }
    builder.define(environment, "", "pieces", pieces::pieces, &[])?;
    builder.define(environment, "", "piece", pieces::piece, &[])?;
    builder.define(
        environment,
        "",
        "await",
        crate::task::join::wait_quietly,
        &[],
    )?;
    builder.define(environment, "", "ended", crate::task::join::has_ended, &[])?;

    // What fails here is a fault of the file, which the tests of every capability in it would find.
    let chunk = crate::compile::compile(SOURCE, "parallel.vua").unwrap_or_else(|diagnostics| {
        panic!(
            "{}",
            diagnostics
                .first()
                .map_or(alloc::string::String::new(), |d| alloc::format!("{d}"))
        )
    });
    for function in chunk.children {
        let function = Arc::new(function);
        let name = function.name.clone().unwrap_or_default();
        let proto = Proto::load(builder.heap(), builder.heap_of_all(), &function)?;
        let closure = Closure::new(builder.heap(), proto, function.captures.len())?;
        if !function.captures.is_empty() {
            // SAFETY: what a function outside all others captures is its environment, a value.
            unsafe { closure.set_capture(0, environment.value()) };
        }
        builder.set(environment, &name, closure.value())?;
    }
    let parallel = builder.empty_table()?;
    builder.global_value("parallel", parallel.value())?;
    for (library, name) in PUBLIC {
        let library = member(builder, globals, library)?;
        let value = environment.get(builder.string(name)?);
        builder.set(library, name, value)?;
    }
    let mut builtins = alloc::vec![Value::NIL; BUILTINS];
    for (builtin, name) in [
        (Builtin::Pieces, "pieces"),
        (Builtin::Piece, "piece"),
        (Builtin::Each, "each"),
    ] {
        builtins[builtin as usize] = environment.get(builder.string(name)?);
    }
    Ok(builtins)
}

fn member(builder: &Builder<'_>, table: Gc<Table>, name: &str) -> Result<Gc<Table>, NeedMemory> {
    let value = table.get(builder.string(name)?);
    Ok(value
        .as_table()
        .unwrap_or_else(|| panic!("there is no library '{name}'")))
}
