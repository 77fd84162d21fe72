//! How libraries become tables of functions when an engine starts: before any program runs, on one core, with nothing shared yet.

use crate::heap::{Heap, LocalHeap, NeedMemory};
use crate::interp::native::NativeFn;
use crate::object::{Gc, NativeFunction};
use crate::table::{SetError, Table};
use crate::value::Value;

/// Makes the globals of an engine.
pub struct Builder<'a> {
    heap: &'a Heap,
    local: &'a LocalHeap,
    globals: Gc<Table>,
    strings: Option<Gc<Table>>,
    tasks: Option<Gc<Table>>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(heap: &'a Heap, local: &'a LocalHeap, globals: Gc<Table>) -> Builder<'a> {
        Builder { heap, local, globals, strings: None, tasks: None }
    }

    /// The globals' table.
    pub fn globals(&self) -> Gc<Table> {
        self.globals
    }

    /// An interned string.
    pub fn string(&self, text: &str) -> Result<Value, NeedMemory> {
        Ok(self.heap.intern(self.local, text.as_bytes())?.value())
    }

    /// A native function's value; `name` is what messages call it.
    pub fn function(&self, name: &'static str, function: NativeFn) -> Result<Value, NeedMemory> {
        Ok(NativeFunction::new(self.local, function as *const (), name, &[])?.value())
    }

    /// Sets a field of a table.
    pub fn set(&self, table: Gc<Table>, name: &str, value: Value) -> Result<(), NeedMemory> {
        let key = self.string(name)?;
        loop {
            match table.set(self.local, key, value) {
                Ok(()) => return Ok(()),
                Err(SetError::Grow) => table.grow(self.local, key, &mut || ())?,
                Err(SetError::NeedMemory(need)) => return Err(need),
                Err(other) => unreachable!("a string key of an unshared table: {other:?}"),
            }
        }
    }

    /// A new table of functions.
    pub fn table(&self, functions: &[(&'static str, NativeFn)]) -> Result<Gc<Table>, NeedMemory> {
        let table = Table::new(self.local, 0, functions.len().next_power_of_two())?;
        for (name, function) in functions {
            self.set(table, name, self.function(name, *function)?)?;
        }
        Ok(table)
    }

    /// Defines a global function.
    pub fn global(&mut self, name: &'static str, function: NativeFn) -> Result<(), NeedMemory> {
        let value = self.function(name, function)?;
        self.set(self.globals, name, value)
    }

    /// Defines a library: a global table of functions, which it returns.
    pub fn library(&mut self, name: &str, functions: &[(&'static str, NativeFn)]) -> Result<Gc<Table>, NeedMemory> {
        let table = self.table(functions)?;
        self.set(self.globals, name, table.value())?;
        Ok(table)
    }

    /// A metatable whose `__index` is this table.
    pub fn index_metatable(&self, methods: Gc<Table>) -> Result<Gc<Table>, NeedMemory> {
        let metatable = Table::new(self.local, 0, 1)?;
        self.set(metatable, "__index", methods.value())?;
        Ok(metatable)
    }

    /// Makes the fields of `methods` those of strings.
    pub fn set_string_methods(&mut self, methods: Gc<Table>) -> Result<(), NeedMemory> {
        self.strings = Some(self.index_metatable(methods)?);
        Ok(())
    }

    /// Makes the fields of `methods` those of tasks.
    pub fn set_task_methods(&mut self, methods: Gc<Table>) -> Result<(), NeedMemory> {
        self.tasks = Some(self.index_metatable(methods)?);
        Ok(())
    }

    pub(crate) fn string_metatable(&self) -> Option<Gc<Table>> {
        self.strings
    }

    pub(crate) fn task_metatable(&self) -> Option<Gc<Table>> {
        self.tasks
    }
}
