//! The functions of the parallel library that are written in Vua (`parallel.vua`), and those without a name that the compiler uses.
//!
//! Most programs use none of them, so the file is compiled when one is first called: what programs find under their names are natives that look at
//! the arguments, load the file unless that was done, and go on in the function there.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::pieces;
use crate::compile::modules::NoFiles;
use crate::heap::{Budget, Heap, LocalHeap, NeedMemory, barrier, flags};
use crate::interp::native::{Call, Next, Throw};
use crate::library::Builder;
use crate::library::module::load_module;
use crate::library::table::check;
use crate::object::{Closure, Gc, Loaded, Proto};
use crate::syntax::ast::Builtin;
use crate::table::{SetError, Table};
use crate::value::{Tag, Value};

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

/// Functions of the file that are called from outside it.
#[derive(Clone, Copy)]
enum Entry {
    Any,
    Each,
    Invoke,
    Invoke2,
    Invoke3,
    Map,
    Reduce,
    Sort,
}

/// Their names there.
const ENTRIES: [&str; 8] = [
    "any", "each", "invoke", "invoke2", "invoke3", "map", "reduce", "sort",
];

/// The file's functions.
pub(crate) struct Prelude {
    /// The environment of all of them, which holds them under their names once they are loaded. Shared from the start.
    environment: Gc<Table>,
    /// What loads the module of a struct. Not in the environment: it refers to the program's modules, which are shared once there are two tasks.
    module: Value,
    /// All are there. Set behind the last, and never cleared.
    loaded: AtomicBool,
    /// Those that were called, or nil: found in the environment, which keeps them.
    entries: [AtomicU64; ENTRIES.len()],
}

/// Defines what programs see.
pub(crate) fn open(builder: &mut Builder<'_>) -> Result<Prelude, NeedMemory> {
    // So large that the file's functions fit in: a shared table would have to be grown by a task.
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
        "add",
        crate::task::scope::spawn_unless_failed,
        &[],
    )?;
    builder.define(
        environment,
        "",
        "await",
        crate::task::join::wait_quietly,
        &[],
    )?;
    builder.define(environment, "", "ended", crate::task::join::has_ended, &[])?;
    builder.heap().publish(environment.value(), &mut || ())?;
    let package = member(builder, globals, "package")?;
    let loaded = member(builder, package, "loaded")?;
    let module = builder.function("require", load_module, &[package.value(), loaded.value()])?;
    builder.library(
        "parallel",
        &[
            ("invoke", invoke),
            ("map", map),
            ("reduce", reduce),
            ("sort", sort),
        ],
    )?;
    let tasks = member(builder, globals, "task")?;
    builder.define(tasks, "task.", "any", any, &[])?;
    Ok(Prelude {
        environment,
        module,
        loaded: AtomicBool::new(false),
        entries: [const { AtomicU64::new(Value::NIL.to_bits()) }; ENTRIES.len()],
    })
}

fn member(builder: &Builder<'_>, table: Gc<Table>, name: &str) -> Result<Gc<Table>, NeedMemory> {
    let value = table.get(builder.string(name)?);
    Ok(value
        .as_table()
        .unwrap_or_else(|| panic!("there is no library '{name}'")))
}

impl Prelude {
    /// What a collection is to keep.
    pub(crate) fn roots(&self) -> [Value; 2] {
        [self.environment.value(), self.module]
    }

    /// The function that loads the module of a struct.
    pub(crate) fn module(&self) -> Value {
        self.module
    }

    /// The function that compiled code names so.
    pub(crate) fn builtin(
        &self,
        local: &LocalHeap,
        heap: &Heap,
        builtin: Builtin,
    ) -> Result<Value, NeedMemory> {
        match builtin {
            Builtin::Pieces => self.get(local, heap, "pieces"),
            Builtin::Piece => self.get(local, heap, "piece"),
            Builtin::Each => self.function(local, heap, Entry::Each),
            Builtin::Module => Ok(self.module),
        }
    }

    /// A function of the file, which is loaded if it is the first.
    #[inline]
    fn function(&self, local: &LocalHeap, heap: &Heap, entry: Entry) -> Result<Value, NeedMemory> {
        // SAFETY: nil, or a function that the environment keeps.
        let known =
            unsafe { Value::from_bits(self.entries[entry as usize].load(Ordering::Acquire)) };
        if known.is_nil() {
            self.find(local, heap, entry)
        } else {
            Ok(known)
        }
    }

    #[cold]
    fn find(&self, local: &LocalHeap, heap: &Heap, entry: Entry) -> Result<Value, NeedMemory> {
        if !self.loaded.load(Ordering::Acquire) {
            self.load(local, heap)?;
            self.loaded.store(true, Ordering::Release);
        }
        let function = self.get(local, heap, ENTRIES[entry as usize])?;
        self.entries[entry as usize].store(function.to_bits(), Ordering::Release);
        Ok(function)
    }

    fn get(&self, local: &LocalHeap, heap: &Heap, name: &str) -> Result<Value, NeedMemory> {
        Ok(self
            .environment
            .get(heap.intern(local, name.as_bytes())?.value()))
    }

    /// Loads the file, whose main chunk is never run: each of its functions is made with the environment that holds them all.
    ///
    /// Two cores may do so at the same time: of two closures of one function either serves. What was loaded before memory ended is not loaded again, so that a second call gets further.
    #[cold]
    fn load(&self, local: &LocalHeap, heap: &Heap) -> Result<(), NeedMemory> {
        let mut budget = Budget::new(local);
        let (chunk, _) =
            crate::compile::compile_within(SOURCE, "parallel.vua", &NoFiles, &mut |bytes| {
                budget.ask(bytes)
            });
        if let Some(need) = budget.refused() {
            return Err(need);
        }
        // What fails here is a fault of the file, which the tests of every capability in it would find.
        let chunk = chunk.unwrap_or_else(|diagnostics| {
            panic!(
                "{}",
                diagnostics
                    .first()
                    .map_or(alloc::string::String::new(), |d| alloc::format!("{d}"))
            )
        });
        for function in chunk.children {
            let name = function.name.clone().unwrap_or_default();
            let name = heap.intern(local, name.as_bytes())?.value();
            if !self.environment.get(name).is_nil() {
                continue;
            }
            let function = Arc::new(Loaded::from(function));
            let proto = Proto::load_library(local, heap, &function)?;
            let closure = Closure::new(local, proto, function.captures.len())?;
            if !function.captures.is_empty() {
                // SAFETY: what a function outside all others captures is its environment, a value.
                unsafe { closure.set_capture(0, self.environment.value()) };
            }
            // Too small to need a safepoint.
            local.publish(closure.value(), &mut || ())?;
            let header = self.environment.header_ptr();
            // SAFETY: the environment lives as long as the engine.
            unsafe {
                if header.as_ref().has(flags::LOG) {
                    barrier::before_store(header, local);
                }
            }
            match self.environment.set(local, name, closure.value()) {
                Ok(()) => {}
                Err(SetError::NeedMemory(need)) => return Err(need),
                Err(error) => panic!("the environment of parallel.vua: {error:?}"),
            }
        }
        Ok(())
    }
}

/// Goes on in a function of the file, with the same arguments.
fn go_on(call: &mut Call<'_>, entry: Entry) -> Result<Next, Throw> {
    let (program, engine) = (call.program(), call.engine());
    let function = program
        .prelude()
        .function(call.heap(), engine.heap(), entry)?;
    Ok(Next::Become(function))
}

/// Checks that an argument is a function.
fn check_function(call: &Call<'_>, i: usize) -> Result<(), Throw> {
    if call.get(i).has_tag(Tag::Function) {
        Ok(())
    } else {
        Err(call.type_error(i, "function"))
    }
}

/// `task.any(list)`.
fn any(call: &mut Call<'_>) -> Result<Next, Throw> {
    check(call, 0, &["__index", "__len"])?;
    go_on(call, Entry::Any)
}

/// `parallel.invoke(…)`.
fn invoke(call: &mut Call<'_>) -> Result<Next, Throw> {
    for i in 0..call.count() {
        check_function(call, i)?;
    }
    let entry = match call.count() {
        2 => Entry::Invoke2,
        3 => Entry::Invoke3,
        _ => Entry::Invoke,
    };
    go_on(call, entry)
}

/// `parallel.map(list, f)`.
fn map(call: &mut Call<'_>) -> Result<Next, Throw> {
    check(call, 0, &["__index", "__len"])?;
    check_function(call, 1)?;
    go_on(call, Entry::Map)
}

/// `parallel.reduce(first, last, initial, step, combine)`.
fn reduce(call: &mut Call<'_>) -> Result<Next, Throw> {
    for i in 0..2 {
        if !call.get(i).is_number() {
            return Err(call.type_error(i, "number"));
        }
    }
    check_function(call, 3)?;
    check_function(call, 4)?;
    go_on(call, Entry::Reduce)
}

/// `parallel.sort(list [, less])`.
fn sort(call: &mut Call<'_>) -> Result<Next, Throw> {
    check(call, 0, &["__index", "__len"])?;
    if !call.get(1).is_nil() {
        check_function(call, 1)?;
    }
    go_on(call, Entry::Sort)
}
