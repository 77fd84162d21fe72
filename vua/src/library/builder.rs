//! How libraries become tables of functions when an engine starts.

use alloc::vec::Vec;
use core::cell::Cell;

use crate::heap::{Heap, Kind, LocalHeap, NeedMemory};
use crate::interp::native::NativeFn;
use crate::object::{Gc, NativeFunction};
use crate::table::{SetError, Table};
use crate::value::Value;

/// What the libraries are defined with, before any program runs.
pub struct Builder<'a> {
    heap: &'static Heap,
    local: &'a LocalHeap,
    globals: Gc<Table>,
    strings: Option<Gc<Table>>,
    objects: Vec<(Kind, u8, Gc<Table>)>,
    files: Option<Gc<Table>>,
    memory: [Option<Gc<Table>>; 2],
    /// How many functions have been defined by name.
    defined: Cell<usize>,
}

impl<'a> Builder<'a> {
    /// Nothing defined yet.
    pub fn new(heap: &'static Heap, local: &'a LocalHeap, globals: Gc<Table>) -> Builder<'a> {
        Builder {
            heap,
            local,
            globals,
            strings: None,
            objects: Vec::new(),
            files: None,
            memory: [None; 2],
            defined: Cell::new(0),
        }
    }

    /// A native function as a value, called `name` in messages.
    pub fn function(
        &self,
        name: &'static str,
        function: NativeFn,
        captures: &[Value],
    ) -> Result<Value, NeedMemory> {
        let function = function as *const ();
        let native = NativeFunction::new(self.local, function, name, captures)?;
        if let Some(head) = crate::interp::intrinsic::head(function) {
            native.set_entry(head);
        }
        Ok(native.value())
    }

    /// A constant string.
    pub fn string(&self, text: &str) -> Result<Value, NeedMemory> {
        Ok(self.heap.intern(self.local, text.as_bytes())?.value())
    }

    /// A constant string of any bytes.
    pub fn bytes(&self, bytes: &[u8]) -> Result<Value, NeedMemory> {
        Ok(self.heap.intern(self.local, bytes)?.value())
    }

    /// An integer.
    pub fn integer(&self, i: i64) -> Result<Value, NeedMemory> {
        self.local.integer(i)
    }

    /// Sets a field of a table.
    pub fn set(&self, table: Gc<Table>, name: &str, value: Value) -> Result<(), NeedMemory> {
        let key = self.string(name)?;
        self.set_key(table, key, value)
    }

    /// Sets an element of a table.
    pub fn set_index(&self, table: Gc<Table>, i: i64, value: Value) -> Result<(), NeedMemory> {
        let key = self.integer(i)?;
        self.set_key(table, key, value)
    }

    fn set_key(&self, table: Gc<Table>, key: Value, value: Value) -> Result<(), NeedMemory> {
        loop {
            match table.set(self.local, key, value) {
                Ok(()) => return Ok(()),
                Err(SetError::Grow) => table.grow(self.local, key, &mut || ())?,
                Err(SetError::NeedMemory(need)) => return Err(need),
                // Strings and integers are valid keys, and no other task knows the table.
                Err(_) => return Err(NeedMemory { bytes: 0 }),
            }
        }
    }

    /// A table of functions, which messages call by their names behind `prefix`.
    pub fn table(
        &self,
        prefix: &str,
        functions: &[(&'static str, NativeFn)],
    ) -> Result<Gc<Table>, NeedMemory> {
        let table = Table::new(self.local, 0, functions.len())?;
        for (name, function) in functions {
            self.define(table, prefix, name, *function, &[])?;
        }
        Ok(table)
    }

    /// Sets a field of a table to a function, which messages call by its name behind `prefix`.
    pub fn define(
        &self,
        table: Gc<Table>,
        prefix: &str,
        name: &str,
        function: NativeFn,
        captures: &[Value],
    ) -> Result<(), NeedMemory> {
        let full = self.heap.lasting(self.defined.get(), prefix, name);
        self.defined.set(self.defined.get() + 1);
        self.set(table, name, self.function(full, function, captures)?)
    }

    /// Defines a global function.
    pub fn global(&self, name: &'static str, function: NativeFn) -> Result<(), NeedMemory> {
        self.set(self.globals, name, self.function(name, function, &[])?)
    }

    /// Defines a global variable.
    pub fn global_value(&self, name: &str, value: Value) -> Result<(), NeedMemory> {
        self.set(self.globals, name, value)
    }

    /// Defines a global table of functions.
    pub fn library(
        &self,
        name: &str,
        functions: &[(&'static str, NativeFn)],
    ) -> Result<Gc<Table>, NeedMemory> {
        let table = self.table(&alloc::format!("{name}."), functions)?;
        self.global_value(name, table.value())?;
        Ok(table)
    }

    /// The table of globals.
    pub fn globals(&self) -> Gc<Table> {
        self.globals
    }

    /// An empty table.
    pub fn empty_table(&self) -> Result<Gc<Table>, NeedMemory> {
        Table::new(self.local, 0, 4)
    }

    /// A metatable whose `__index` is `methods`.
    pub fn metatable(&self, methods: Gc<Table>) -> Result<Gc<Table>, NeedMemory> {
        let table = self.empty_table()?;
        self.set(table, "__index", methods.value())?;
        Ok(table)
    }

    /// Makes the functions in `methods` the methods of strings.
    pub fn set_string_methods(&mut self, methods: Gc<Table>) -> Result<(), NeedMemory> {
        self.strings = Some(self.metatable(methods)?);
        Ok(())
    }

    /// Makes the functions in `methods` the methods of objects of this kind and this [`extra`](crate::heap::Header::extra), which messages call `name`. Gives their metatable.
    pub fn set_methods(
        &mut self,
        kind: Kind,
        extra: u8,
        name: &str,
        methods: Gc<Table>,
    ) -> Result<Gc<Table>, NeedMemory> {
        let table = self.metatable(methods)?;
        self.set(table, "__name", self.string(name)?)?;
        self.objects.push((kind, extra, table));
        Ok(table)
    }

    /// Gives file handles their metatable.
    pub fn set_file_metatable(&mut self, metatable: Gc<Table>) {
        self.files = Some(metatable);
    }

    /// The metatable of file handles.
    pub fn file_metatable(&self) -> Option<Gc<Table>> {
        self.files
    }

    /// The common part of the heap.
    pub fn heap_of_all(&self) -> &'static Heap {
        self.heap
    }

    /// Gives arrays their methods, and types of structs their metatable.
    pub fn set_memory_tables(&mut self, arrays: Gc<Table>, types: Gc<Table>) {
        self.memory = [Some(arrays), Some(types)];
    }

    /// The tables of [`set_memory_tables`](Self::set_memory_tables).
    pub fn memory_tables(&self) -> (Option<Gc<Table>>, Option<Gc<Table>>) {
        let [arrays, types] = self.memory;
        (arrays, types)
    }

    /// The core's part of the heap.
    pub fn heap(&self) -> &LocalHeap {
        self.local
    }

    /// The metatable of strings.
    pub fn string_metatable(&self) -> Option<Gc<Table>> {
        self.strings
    }

    /// The metatables of objects, by kind and extra byte.
    pub fn object_metatables(&self) -> &[(Kind, u8, Gc<Table>)] {
        &self.objects
    }
}
