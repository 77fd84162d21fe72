//! Reading and writing as a program would, metamethods included, from a native's steps; and the few things that natives do to objects directly.
//!
//! A metamethod that is a function can only be called between two steps. So each operation here either is done at once or
//! prepares the call, upon which the native returns it and goes on in the state that it named.

use crate::engine::Metamethod;
use crate::heap::{barrier, flags};
use crate::interp::memory::Found;
use crate::interp::native::{Call, Next, Throw};
use crate::memory::Array;
use crate::object::{Gc, NativeFunction};
use crate::table::{SetError, Table};
use crate::task::WaitFor;
use crate::value::{Tag, Value};

/// How many metatables an access follows before it takes them for a cycle, as in Lua (`MAXTAGLOOP`).
const MAX_CHAIN: usize = 2000;

/// Natives poll when this many steps have been made.
pub(crate) const STEPS: usize = 4096;

/// Natives poll when this many bytes have been gone through.
pub(crate) const BYTES: usize = 16 * 1024;

/// A value, or the call that gives it as its first result ([`Call::result`]).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fetched {
    /// It was had at once.
    Value(Value),
    /// The native is to return this.
    Call(Next),
}

/// What a comparison gave.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compared {
    /// It was decided at once.
    Holds(bool),
    /// The native is to return this; the first result, as a condition, decides.
    Call(Next),
}

/// Counts steps and polls when there have been enough.
#[derive(Default)]
pub(crate) struct Pace(usize);

impl Pace {
    /// Counts one step.
    #[inline(always)]
    pub(crate) fn step(&mut self, call: &mut Call<'_>) -> Result<(), Throw> {
        self.0 += 1;
        if self.0 >= STEPS {
            self.0 = 0;
            call.poll()?;
        }
        Ok(())
    }

    /// Counts `bytes` gone through.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, call: &mut Call<'_>, bytes: usize) -> Result<(), Throw> {
        self.0 += bytes / (BYTES / STEPS);
        self.step(call)
    }
}

/// Makes sure that the frame has so many slots; whether the stack may grow so far.
pub(crate) fn has_room(call: &mut Call<'_>, slots: usize) -> Result<bool, Throw> {
    match call.room(slots) {
        Ok(()) => Ok(true),
        // The stack's end; anything else, a want of memory above all, is not about the number of slots.
        Err(Throw::Message(_) | Throw::Handled(_)) => Ok(false),
        Err(throw) => Err(throw),
    }
}

impl Call<'_> {
    /// In the first step, makes the slots of missing arguments below `n` nil, so that later steps may read them.
    pub(crate) fn settle(&mut self, n: usize) {
        if self.state() == 0 {
            for i in self.count()..n {
                self.set(i, Value::NIL);
            }
        }
    }

    /// The call of `function`, its frame at slot `at`, after which the native goes on with `state`.
    pub(crate) fn prepare(
        &mut self,
        at: usize,
        function: Value,
        arguments: &[Value],
        state: u32,
    ) -> Next {
        self.set(at, function);
        for (i, argument) in arguments.iter().enumerate() {
            self.set(at + 2 + i, *argument);
        }
        Next::Call {
            at,
            arguments: arguments.len(),
            state,
            protected: false,
        }
    }

    /// The first result of the call of the last step; nil if it had none.
    pub(crate) fn result(&self, at: usize) -> Value {
        if self.results() > 0 {
            self.slot(at)
        } else {
            Value::NIL
        }
    }

    /// `object[key]`.
    #[inline]
    pub(crate) fn fetch(
        &mut self,
        object: Value,
        key: Value,
        at: usize,
        state: u32,
    ) -> Result<Fetched, Throw> {
        if let Some(table) = object.as_table() {
            let value = table.get(key);
            if !value.is_nil() || !table.header().has(flags::METATABLE) {
                return Ok(Fetched::Value(value));
            }
        }
        self.fetch_through(object, key, at, state)
    }

    #[cold]
    fn fetch_through(
        &mut self,
        mut object: Value,
        key: Value,
        at: usize,
        state: u32,
    ) -> Result<Fetched, Throw> {
        for _ in 0..MAX_CHAIN {
            if object.has_tag(Tag::Struct) {
                match self.memory_find(object, key)? {
                    Found::Value(value) => return Ok(Fetched::Value(value)),
                    Found::Handler(handler) if handler.has_tag(Tag::Function) => {
                        return Ok(Fetched::Call(self.prepare(
                            at,
                            handler,
                            &[object, key],
                            state,
                        )));
                    }
                    Found::Handler(handler) => object = handler,
                }
                continue;
            }
            let value = object.as_table().map_or(Value::NIL, |table| table.get(key));
            let handler = if value.is_nil() {
                self.program().metamethod(object, Metamethod::Index)
            } else {
                Value::NIL
            };
            if handler.is_nil() {
                if object.as_table().is_some() {
                    return Ok(Fetched::Value(value));
                }
                return Err(self.message(format_args!(
                    "attempt to index a {} value",
                    self.type_name(object)
                )));
            }
            if handler.has_tag(Tag::Function) {
                return Ok(Fetched::Call(self.prepare(
                    at,
                    handler,
                    &[object, key],
                    state,
                )));
            }
            object = handler;
        }
        Err(self.message("'__index' chain too long; possibly a loop"))
    }

    /// `object[key] = value`; `None` if it is done.
    #[inline]
    pub(crate) fn assign(
        &mut self,
        object: Value,
        key: Value,
        value: Value,
        at: usize,
        state: u32,
    ) -> Result<Option<Next>, Throw> {
        if let Some(table) = object.as_table()
            && !table.header().has(flags::METATABLE)
        {
            self.store(table, key, value)?;
            return Ok(None);
        }
        self.assign_through(object, key, value, at, state)
    }

    #[cold]
    fn assign_through(
        &mut self,
        mut object: Value,
        key: Value,
        value: Value,
        at: usize,
        state: u32,
    ) -> Result<Option<Next>, Throw> {
        for _ in 0..MAX_CHAIN {
            if object.has_tag(Tag::Struct) {
                match self.memory_assign(object, key, value)? {
                    Found::Value(_) => return Ok(None),
                    Found::Handler(handler) if handler.has_tag(Tag::Function) => {
                        return Ok(Some(self.prepare(
                            at,
                            handler,
                            &[object, key, value],
                            state,
                        )));
                    }
                    Found::Handler(handler) => object = handler,
                }
                continue;
            }
            let table = object.as_table();
            let absent = table.is_none_or(|table| table.get(key).is_nil());
            let handler = if absent {
                self.program().metamethod(object, Metamethod::Newindex)
            } else {
                Value::NIL
            };
            if handler.is_nil() {
                let Some(table) = table else {
                    return Err(self.message(format_args!(
                        "attempt to index a {} value",
                        self.type_name(object)
                    )));
                };
                self.store(table, key, value)?;
                return Ok(None);
            }
            if handler.has_tag(Tag::Function) {
                return Ok(Some(self.prepare(
                    at,
                    handler,
                    &[object, key, value],
                    state,
                )));
            }
            object = handler;
        }
        Err(self.message("'__newindex' chain too long; possibly a loop"))
    }

    /// `#object`; what a metamethod gives is to be passed through [`length_of`](Self::length_of).
    pub(crate) fn measure(
        &mut self,
        object: Value,
        at: usize,
        state: u32,
    ) -> Result<Fetched, Throw> {
        if let Some(string) = object.as_str() {
            return Ok(Fetched::Value(self.integer(string.len() as i64)?));
        }
        if let Some(array) = Gc::<Array>::from_value(object) {
            return Ok(Fetched::Value(self.integer(array.length() as i64)?));
        }
        let handler = self.program().metamethod(object, Metamethod::Len);
        if !handler.is_nil() {
            return Ok(Fetched::Call(self.prepare(at, handler, &[object], state)));
        }
        match object.as_table() {
            Some(table) => Ok(Fetched::Value(self.integer(table.length())?)),
            None => Err(self.message(format_args!(
                "attempt to get length of a {} value",
                self.type_name(object)
            ))),
        }
    }

    /// The length that [`measure`](Self::measure) or its metamethod gave.
    pub(crate) fn length_of(&self, value: Value) -> Result<i64, Throw> {
        self.number_of(value)
            .and_then(crate::number::Number::to_integer)
            .ok_or_else(|| self.message("object length is not an integer"))
    }

    /// `a < b`.
    #[inline]
    pub(crate) fn less(
        &mut self,
        a: Value,
        b: Value,
        at: usize,
        state: u32,
    ) -> Result<Compared, Throw> {
        if let (Some(a), Some(b)) = (a.as_number(), b.as_number()) {
            return Ok(Compared::Holds(crate::number::less_than(a, b)));
        }
        if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
            return Ok(Compared::Holds(a.bytes() < b.bytes()));
        }
        let handler = self.program().binary_metamethod(a, b, Metamethod::Lt);
        if !handler.is_nil() {
            return Ok(Compared::Call(self.prepare(at, handler, &[a, b], state)));
        }
        let (a, b) = (self.type_name(a), self.type_name(b));
        Err(if a == b {
            self.message(format_args!("attempt to compare two {a} values"))
        } else {
            self.message(format_args!("attempt to compare {a} with {b}"))
        })
    }

    /// Stores `value` after the last of a sequence without metamethods: whole on a shared table.
    pub(crate) fn append(&mut self, table: Gc<Table>, value: Value) -> Result<(), Throw> {
        loop {
            self.before_store(table)?;
            if table.is_shared() {
                self.publish(value)?;
            }
            match table.insert_whole(&self.core.heap, value) {
                Ok(()) => return Ok(()),
                Err(SetError::Grow) if !table.is_shared() => {
                    let key = self.integer(table.length().wrapping_add(1))?;
                    table.grow(&self.core.heap, key, &mut || ())?;
                }
                Err(SetError::Grow) => match self.core.grow_shared(table) {
                    Ok(None) => {}
                    Ok(Some(until)) => return Err(Throw::Wait(until)),
                    Err(crate::interp::throw::Leave::Throw(throw)) => return Err(throw),
                    Err(crate::interp::throw::Leave::Exit(_)) => return Err(Throw::Cancelled),
                },
                Err(error) => return Err(self.store_error(table, error)),
            }
        }
    }

    /// The error that a store into `table` met, other than a need to grow.
    #[cold]
    pub(crate) fn store_error(&self, table: Gc<Table>, error: SetError) -> Throw {
        match error {
            SetError::Growing | SetError::Grow => Throw::Wait(WaitFor::Growth(table)),
            SetError::NeedMemory(need) => Throw::NeedMemory(need),
            SetError::NilKey => self.message("table index is nil"),
            SetError::NanKey => self.message("table index is NaN"),
            SetError::Frozen => self.message("attempt to modify a frozen table"),
        }
    }

    /// What the collector and freezing ask of a change to a table.
    pub(crate) fn before_store(&mut self, table: Gc<Table>) -> Result<(), Throw> {
        let bits = table.header().flags();
        if bits & flags::FROZEN != 0 {
            return Err(self.store_error(table, SetError::Frozen));
        }
        if bits & flags::LOG != 0 {
            // SAFETY: the table lives: it is in the frame.
            unsafe { barrier::before_store(table.header_ptr(), &self.core.heap) };
        }
        Ok(())
    }

    /// Exchanges what two integer keys of a table, both present, hold.
    pub(crate) fn swap(&mut self, table: Gc<Table>, i: i64, j: i64) -> Result<(), Throw> {
        self.before_store(table)?;
        if !table.is_shared() {
            let (x, y) = (table.get_int(i), table.get_int(j));
            if !x.is_nil() && !y.is_nil() && table.set_dense(i, y) {
                if table.set_dense(j, x) {
                    return Ok(());
                }
                table.set_dense(i, x);
            }
        }
        let slot = |key| table.slot_int(key);
        match (slot(i), slot(j)) {
            (Ok(Some(a)), Ok(Some(b))) => {
                // Both values are in the table, so they are published if it is shared.
                let (x, y) = (a.load(), b.load());
                if table.is_shared() {
                    a.store(y);
                    b.store(x);
                } else {
                    table
                        .set(
                            &self.core.heap,
                            Value::inline_integer(i).unwrap_or(Value::NIL),
                            y,
                        )
                        .map_err(|e| self.store_error(table, e))?;
                    table
                        .set(
                            &self.core.heap,
                            Value::inline_integer(j).unwrap_or(Value::NIL),
                            x,
                        )
                        .map_err(|e| self.store_error(table, e))?;
                }
                Ok(())
            }
            (Err(error), _) | (_, Err(error)) => Err(self.store_error(table, error)),
            // Somebody took an element away meanwhile.
            _ => Err(self.message("table was modified while being sorted")),
        }
    }

    /// The running native.
    pub(crate) fn running(&self) -> Option<Gc<NativeFunction>> {
        // SAFETY: the slot two below a base holds the frame's function.
        unsafe { Value::from_bits(*self.core.base.sub(2)) }.as_native()
    }

    /// Stores an integer into captured value `i` of the running native.
    pub(crate) fn set_captured_integer(&mut self, i: usize, value: i64) -> Result<(), Throw> {
        let value = self.integer(value)?;
        if let Some(native) = self.running() {
            if native.header().has(flags::LOG) {
                // SAFETY: the function lives: it is in the frame.
                unsafe { barrier::before_store(native.header_ptr(), &self.core.heap) };
            }
            if native.header().has(flags::SHARED) {
                self.publish(value)?;
            }
            native.set_capture(i, value);
        }
        Ok(())
    }

    /// A new native function with captures.
    pub(crate) fn native(
        &mut self,
        name: &'static str,
        function: crate::interp::native::NativeFn,
        captures: &[Value],
    ) -> Result<Value, Throw> {
        Ok(NativeFunction::new(&self.core.heap, function as *const (), name, captures)?.value())
    }

    /// A closure of a verified function, in the program's globals or another environment.
    pub(crate) fn main_closure(
        &mut self,
        function: &alloc::sync::Arc<crate::object::Loaded>,
        environment: Option<Value>,
        types: &[Option<Value>],
    ) -> Result<Value, Throw> {
        let environment = environment.unwrap_or(self.globals());
        Ok(self
            .engine()
            .closure(&self.core.heap, function, environment, types)?
            .value())
    }

    /// A new table with room for `dense` keys from 1 on and `nodes` others, at most 2048 in all.
    pub(crate) fn new_table(&mut self, dense: usize, nodes: usize) -> Result<Gc<Table>, Throw> {
        Ok(Table::new(&self.core.heap, dense, nodes)?)
    }

    /// Sets a field of a table that no other task knows.
    pub(crate) fn set_field(
        &mut self,
        table: Gc<Table>,
        name: &str,
        value: Value,
    ) -> Result<(), Throw> {
        let key = self.string(name.as_bytes())?;
        self.store(table, key, value)
    }
}
