//! Native functions: how the libraries, written in Rust, are called from Vua, call Vua, wait and fail.
//!
//! A native never calls back into the interpreter, so the machine stack never holds a Vua frame. It runs one *step*: it
//! reads its arguments from its frame and returns what is to happen next ([`Next`]): these are my results; or: call that function,
//! then run me again with another `state`. Everything that must survive from one step to the next lies in the native's frame on the
//! task's value stack (slots `0..`, the arguments first), where the collector sees it; `state` is a number of the native's own, 0 at first.
//!
//! A step reserves memory before its first effect: an allocation that fails makes it return [`Throw::NeedMemory`] through `?`, the
//! interpreter collects, and the same step runs again from its start.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Display;
use core::ptr::NonNull;

use smp::platform::Platform;

use super::core_state::Core;
use super::dispatch::{get, put};
use super::frame::Frame;
use super::index::{self, Stored};
use super::memory::{Found, Place};
use super::operate::text_of;
use super::throw::Leave;
use crate::engine::{Engine, Metamethod, Program};
use crate::heap::{Header, LocalHeap, NeedMemory};
use crate::memory::{Array, Struct};
use crate::number::{self, Number};
use crate::object::{Gc, Str};
use crate::output::Appended;
use crate::table::Table;
use crate::task::{Coroutine, Task};
use crate::value::Value;

/// A native function's step.
pub type NativeFn = fn(&mut Call<'_>) -> Result<Next, Throw>;

/// What happens after a step.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// Return nothing.
    Nothing,
    /// Return one value.
    One(Value),
    /// Return the `count` values in slots `at..`.
    Many {
        /// First slot.
        at: usize,
        /// How many.
        count: usize,
    },
    /// Call the function in slot `at` with the `arguments` values in slots `at + 2..` (`at + 1` is the link); then run
    /// this native again with `state`, the call's results in slots `at..` and their number in [`Call::results`].
    Call {
        /// The function's slot.
        at: usize,
        /// How many arguments.
        arguments: usize,
        /// The state to continue with.
        state: u32,
        /// Whether an error in the call comes back here ([`Call::failed`], its value as the one result) instead of passing on.
        protected: bool,
    },
    /// Return whatever the function in slot `at` returns when called with the `arguments` values in slots `at + 2..`.
    TailCall {
        /// The function's slot.
        at: usize,
        /// How many arguments.
        arguments: usize,
    },
    /// Return whatever this function returns when called with the native's own arguments, in their places.
    Become(Value),
    /// Go on in a coroutine that was taken and given its arguments; run this native again with `state` when it gives control back.
    Resume {
        /// The coroutine.
        coroutine: Gc<Coroutine>,
        /// The state to continue with.
        state: u32,
    },
    /// Close the variables of a coroutine that was taken; then run this native again with `state`.
    Shut {
        /// The coroutine.
        coroutine: Gc<Coroutine>,
        /// The state to continue with.
        state: u32,
    },
    /// Give the arguments to whoever resumed the running coroutine; run this native again with `state`, the values that it is
    /// resumed with in slots `0..` and their number in [`Call::results`].
    Yield {
        /// The state to continue with.
        state: u32,
    },
    /// Run a task in the place of this one, which goes on with its results, or runs this native again with `state` if there is more to them.
    RunInPlace {
        /// The task, which was [taken](Core::takes_to_join).
        task: Gc<Task>,
        /// The state to continue with.
        state: u32,
    },
    /// Suspend the task until `until` comes about, then run this native again with `state`.
    Wait {
        /// What is waited for.
        until: crate::task::WaitFor,
        /// The state to continue with.
        state: u32,
    },
}

/// Why a step, or an instruction, did not complete.
#[derive(Debug)]
pub enum Throw {
    /// An error with this value, as `error(value, 0)` raises it.
    Value(Value),
    /// An error with this message, to which the position of the calling Vua function is added.
    Message(String),
    /// Memory is needed: collect, then run the step again.
    NeedMemory(NeedMemory),
    /// Suspend the task until this comes about, then run the step again from its start.
    Wait(crate::task::WaitFor),
    /// The task is cancelled; `pcall` does not catch it.
    Cancelled,
    /// As `Value`, when message handlers have had their turn.
    Handled(Value),
    /// The running coroutine is being closed: close its next variable.
    Shut,
}

impl From<NeedMemory> for Throw {
    fn from(need: NeedMemory) -> Throw {
        Throw::NeedMemory(need)
    }
}

/// A native's view of its frame and its core for one step.
pub struct Call<'a> {
    pub(crate) core: &'a mut Core,
    /// Arguments in the first step.
    pub(crate) count: usize,
    pub(crate) state: u32,
    pub(crate) results: usize,
    pub(crate) failed: bool,
}

impl Call<'_> {
    /// Number of arguments (in every step the same).
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The state that the last step asked to continue with; 0 in the first.
    #[inline]
    pub fn state(&self) -> u32 {
        self.state
    }

    /// From here on, if the step is run again because memory or a table's growth is waited for, it is run with `state`: what it has done so far is
    /// noted in the frame's slots.
    #[inline]
    pub fn advance(&mut self, state: u32) {
        self.state = state;
    }

    /// How many results the call of the last step had.
    #[inline]
    pub fn results(&self) -> usize {
        self.results
    }

    /// Whether the protected call of the last step failed; its one result is then the error value.
    #[inline]
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Argument `i` (from 0); nil if there are fewer. In a later step, slot `i`.
    #[inline]
    pub fn get(&self, i: usize) -> Value {
        if i < self.count {
            // SAFETY: the arguments are on the stack.
            return unsafe { get(self.core.base, i) };
        }
        if self.state == 0 {
            return Value::NIL;
        }
        self.slot(i)
    }

    /// Slot `i` of the frame: an argument, or what an earlier [`set`](Self::set) or call put there.
    ///
    /// # Panics
    /// If the slot is beyond the stack.
    #[inline]
    pub fn slot(&self, i: usize) -> Value {
        assert!(i < self.available());
        // SAFETY: the slot is on the task's stack, above the native's base, where only values lie: arguments, results, and what `set` stored.
        unsafe { get(self.core.base, i) }
    }

    /// Slots from the frame's base to the end of the stack.
    #[inline]
    fn available(&self) -> usize {
        (self.core.stack_end as usize - self.core.base as usize) / 8
    }

    /// Sets slot `i`, for later steps or a call. Twenty slots beyond the arguments always exist; for more, [`room`](Self::room).
    ///
    /// # Panics
    /// If the slot is beyond the stack.
    #[inline]
    pub fn set(&mut self, i: usize, value: Value) {
        assert!(i < self.available());
        if i >= self.core.slots {
            self.use_slots(i + 1);
        }
        // SAFETY: as for `slot`.
        unsafe { put(self.core.base, i, value) }
    }

    /// The frame has `slots` slots in use from now on: what lies in new ones is nil, not what an earlier frame left there.
    #[inline]
    fn use_slots(&mut self, slots: usize) {
        for i in self.core.slots..slots {
            // SAFETY: on the task's stack, says the caller.
            unsafe { put(self.core.base, i, Value::NIL) };
        }
        self.core.slots = slots;
    }

    /// Makes sure that the frame has slots `0..slots`. What lies in new ones is unspecified until it is set.
    pub fn room(&mut self, slots: usize) -> Result<(), Throw> {
        match self.core.ensure_base(slots) {
            Ok(()) => Ok(()),
            Err(Leave::Throw(throw)) => Err(throw),
            Err(Leave::Exit(_)) => Err(Throw::Cancelled),
        }
    }

    /// A safepoint in place: to be passed every 16 KiB or 4,096 steps. Whatever was derived from a value before is to be derived again.
    pub fn poll(&mut self) -> Result<(), Throw> {
        self.core.poll_in_place()
    }

    /// Collects. A safepoint, as [`poll`](Self::poll).
    pub fn collect(&mut self) {
        self.core.collect();
    }

    /// Whether the running task is the one that runs finalizers.
    pub(crate) fn is_finalizer(&self) -> bool {
        self.core
            .task
            .is_some_and(|task| self.core.program.is_finalizer(task))
    }

    /// The core's heap.
    #[inline]
    pub fn heap(&self) -> &LocalHeap {
        &self.core.heap
    }

    /// A new string.
    #[inline]
    pub fn string(&mut self, bytes: &[u8]) -> Result<Value, Throw> {
        Ok(Str::new(&self.core.heap, bytes)?.value())
    }

    /// An integer's value.
    #[inline]
    pub fn integer(&mut self, i: i64) -> Result<Value, Throw> {
        Ok(self.core.heap.integer(i)?)
    }

    /// An error with this message.
    #[cold]
    pub fn message(&self, text: impl Display) -> Throw {
        Throw::Message(text.to_string())
    }

    /// Writes to standard output, in one piece. Passes safepoints while too much waits to be written.
    pub fn print(&mut self, piece: &[u8]) -> Result<(), Throw> {
        loop {
            match self.engine().print(piece) {
                Appended::First => {
                    self.core.beat();
                    return Ok(());
                }
                Appended::More => return Ok(()),
                Appended::Crowded => self.poll()?,
            }
        }
    }

    /// The running native's name.
    pub fn name(&self) -> &'static str {
        // SAFETY: the slot two below a base holds the frame's function.
        unsafe { Value::from_bits(*self.core.base.sub(2)) }
            .as_native()
            .map_or("?", |native| native.name())
    }

    /// The error for argument `i` (from 0).
    #[cold]
    pub fn argument_error(&self, i: usize, text: impl Display) -> Throw {
        let mut number = i + 1;
        let frame = Frame {
            base: self.core.base,
            pc: core::ptr::null(),
        };
        // SAFETY: the native's frame is on the running task's stack.
        let called = unsafe { frame.caller() }.and_then(|caller| self.core.called_name(caller));
        // What the program calls it, if that is known: the word in quotes.
        let name = called
            .as_deref()
            .and_then(|called| called.split('\'').nth(1))
            .unwrap_or(self.name());
        if called
            .as_deref()
            .is_some_and(|called| called.starts_with("method"))
        {
            number -= 1;
            if number == 0 {
                return Throw::Message(format!("calling '{name}' on bad self ({text})"));
            }
        }
        Throw::Message(format!("bad argument #{number} to '{name}' ({text})"))
    }

    /// The error for argument `i`, which is not of the type that was expected.
    #[cold]
    pub fn type_error(&self, i: usize, expected: &str) -> Throw {
        let found = if i >= self.count {
            "no value"
        } else {
            self.type_name(self.slot(i))
        };
        self.argument_error(i, format_args!("{expected} expected, got {found}"))
    }

    /// Argument `i` as an integer: an integer, a float with an exact integer value, or a string of either.
    #[inline]
    pub fn integer_argument(&self, i: usize) -> Result<i64, Throw> {
        let value = self.get(i);
        if value.is_inline_integer() {
            return Ok(value.inline_payload());
        }
        self.other_integer_argument(i, value)
    }

    #[inline(never)]
    fn other_integer_argument(&self, i: usize, value: Value) -> Result<i64, Throw> {
        match self.number_of(value) {
            Some(n) => n
                .to_integer()
                .ok_or_else(|| self.argument_error(i, "number has no integer representation")),
            None => Err(self.type_error(i, "number")),
        }
    }

    /// As [`integer_argument`](Self::integer_argument); `default` if the argument is missing or nil.
    #[inline]
    pub fn optional_integer(&self, i: usize, default: i64) -> Result<i64, Throw> {
        if self.get(i).is_nil() {
            Ok(default)
        } else {
            self.integer_argument(i)
        }
    }

    /// Which of `names` argument `i` is, `default` if it is nil; any other is an error that shows it.
    pub fn option_argument(
        &mut self,
        i: usize,
        default: Option<usize>,
        names: &[&str],
    ) -> Result<usize, Throw> {
        if let Some(default) = default
            && self.get(i).is_nil()
        {
            return Ok(default);
        }
        let given = self.bytes_argument(i)?.bytes();
        names
            .iter()
            .position(|name| name.as_bytes() == given)
            .ok_or_else(|| {
                self.argument_error(i, format_args!("invalid option '{}'", given.escape_ascii()))
            })
    }

    /// The number that a value is, or that a string is written as.
    pub fn number_of(&self, value: Value) -> Option<Number> {
        value
            .as_number()
            .or_else(|| value.as_str().and_then(|s| number::parse(s.bytes())))
    }

    /// Argument `i` as a number of either kind.
    pub fn any_number_argument(&self, i: usize) -> Result<Number, Throw> {
        self.number_of(self.get(i))
            .ok_or_else(|| self.type_error(i, "number"))
    }

    /// Argument `i` as a float.
    #[inline]
    pub fn number_argument(&self, i: usize) -> Result<f64, Throw> {
        match self.get(i).as_float() {
            Some(f) => Ok(f),
            None => Ok(self.any_number_argument(i)?.to_float()),
        }
    }

    /// Argument `i` as a string; a number is converted, in its slot too.
    #[inline]
    pub fn bytes_argument(&mut self, i: usize) -> Result<Gc<Str>, Throw> {
        let value = self.get(i);
        if let Some(string) = value.as_str() {
            return Ok(string);
        }
        match value.as_number() {
            Some(n) => {
                let string = Str::new(&self.core.heap, text_of(n).as_bytes())?;
                self.set(i, string.value());
                Ok(string)
            }
            None => Err(self.type_error(i, "string")),
        }
    }

    /// Argument `i` as a table.
    #[inline]
    pub fn table_argument(&self, i: usize) -> Result<Gc<Table>, Throw> {
        self.get(i)
            .as_table()
            .ok_or_else(|| self.type_error(i, "table"))
    }

    /// Argument `i`, which must be there, nil or not.
    #[inline]
    pub fn any_argument(&self, i: usize) -> Result<Value, Throw> {
        if i < self.count {
            Ok(self.get(i))
        } else {
            Err(self.argument_error(i, "value expected"))
        }
    }

    /// Stores into a table without metamethods, whatever that takes: `?` suspends the task while a shared table grows.
    pub fn store(&mut self, table: Gc<Table>, key: Value, value: Value) -> Result<(), Throw> {
        match index::store(self.core, table, key, value) {
            Ok(Stored::Done) => Ok(()),
            Ok(Stored::Wait(until)) => Err(Throw::Wait(until)),
            Err(Leave::Throw(throw)) => Err(throw),
            Err(Leave::Exit(_)) => Err(Throw::Cancelled),
        }
    }

    /// Publishes what a value reaches: before it is stored where another task can reach it.
    pub fn publish(&mut self, value: Value) -> Result<(), Throw> {
        Ok(self.core.publish(value)?)
    }

    fn leave<T>(result: Result<T, Leave>) -> Result<T, Throw> {
        result.map_err(|leave| match leave {
            Leave::Throw(throw) => throw,
            Leave::Exit(_) => Throw::Cancelled,
        })
    }

    /// `object[key]` of a struct or array; nothing else is asked.
    pub(crate) fn memory_get(&mut self, object: Value, key: Value) -> Result<Value, Throw> {
        match Self::leave(self.core.memory_get(object, key))? {
            Found::Value(value) => Ok(value),
            Found::Handler(_) => Ok(Value::NIL),
        }
    }

    /// `object[key] = value` of a struct or array; nothing else is asked.
    pub(crate) fn memory_set(
        &mut self,
        object: Value,
        key: Value,
        value: Value,
    ) -> Result<(), Throw> {
        Self::leave(self.core.memory_set(object, key, value)).map(|_| ())
    }

    /// `object[key]` of a struct, array or type.
    pub(crate) fn memory_find(&mut self, object: Value, key: Value) -> Result<Found, Throw> {
        Self::leave(self.core.memory_get(object, key))
    }

    /// `object[key] = value` of a struct, array or type.
    pub(crate) fn memory_assign(
        &mut self,
        object: Value,
        key: Value,
        value: Value,
    ) -> Result<Found, Throw> {
        Self::leave(self.core.memory_set(object, key, value))
    }

    /// Copies a struct into a new one, which no other task knows.
    pub(crate) fn copy_struct(&mut self, from: Gc<Struct>, to: Gc<Struct>) -> Result<(), Throw> {
        match to.data() {
            Some(data) => Self::leave(self.core.copy_struct(from, data)),
            None => Ok(()),
        }
    }

    /// An element of an array; of a struct, a copy in place of the reference.
    pub(crate) fn detached(&mut self, holder: Value, value: Value) -> Result<Value, Throw> {
        if Gc::<Array>::from_value(holder).is_none() {
            return Ok(value);
        }
        match Gc::<Struct>::from_value(value) {
            Some(it) => {
                let made = Struct::new(&self.core.heap, it.of())?;
                self.copy_struct(it, made)?;
                Ok(made.value())
            }
            None => Ok(value),
        }
    }

    /// What freezing and the collector ask of a change to an array.
    pub(crate) fn before_memory_store(&mut self, array: Gc<Array>) -> Result<(), Throw> {
        Self::leave(self.core.before_memory_store(array.root(), array.value()))
    }

    /// Where the element or field `object[key]` of an array or struct lies. To be used before the next safepoint.
    pub(crate) fn memory_place(&self, object: Value, key: Value) -> Result<Place, Throw> {
        Self::leave(self.core.scalar_place(object, key))
    }

    /// What freezing and the collector ask of a store through `holder` into the memory of `root`.
    pub(crate) fn before_store_at(
        &mut self,
        root: NonNull<Header>,
        holder: Value,
    ) -> Result<(), Throw> {
        Self::leave(self.core.before_memory_store(root, holder))
    }

    /// A value's metatable.
    pub fn metatable(&self, value: Value) -> Option<Gc<Table>> {
        self.core.program.metatable(value)
    }

    /// A value's metamethod of this name; nil if it has none.
    pub fn metamethod(&self, value: Value, name: &str) -> Value {
        self.core.program.metafield(value, name)
    }

    /// Whether this metatable, one that a table gets, gives it a finalizer.
    pub(crate) fn is_finalizing(&self, metatable: Gc<Table>) -> bool {
        let name = self.core.program.metamethod_name(Metamethod::Gc);
        !metatable.get(name).is_nil()
    }

    /// The name of a value's type, as error messages give it: `__name` of its metatable if that is a string.
    pub fn type_name(&self, value: Value) -> &'static str {
        self.core.program.type_name(value)
    }

    /// Lua's name of a value's type.
    pub fn plain_type_name(&self, value: Value) -> &'static str {
        super::throw::type_name(value)
    }

    /// What the engine runs on.
    pub fn platform(&self) -> &'static dyn Platform {
        self.core.engine.platform()
    }

    /// The engine.
    pub fn engine(&self) -> &'static Engine {
        self.core.engine
    }

    /// The running task's program.
    pub(crate) fn program(&self) -> &'static Program {
        self.core.program
    }

    /// The core that the step runs on.
    pub fn cpu(&self) -> usize {
        self.core.cpu
    }

    /// The program's globals.
    pub fn globals(&self) -> Value {
        self.core.program.globals()
    }

    /// `source:line: ` of the function `level` levels out, 1 being the native's caller; empty where there is no source.
    pub fn position(&self, level: usize) -> String {
        self.core.position(level)
    }

    /// The running task's random state, all zero at first.
    pub fn random_state(&self) -> Option<&core::cell::Cell<[u64; 4]>> {
        self.core.task.map(|task| &task.fields().random)
    }

    /// The stack traceback from the native's caller outwards.
    pub fn traceback(&self) -> String {
        let frame = Frame {
            base: self.core.base,
            pc: core::ptr::null(),
        };
        // SAFETY: the native's frame is on the running task's stack.
        self.core
            .traceback(unsafe { frame.caller() }.unwrap_or(frame))
    }

    /// Captured value `i` of the running native.
    pub fn capture(&self, i: usize) -> Value {
        // SAFETY: the slot two below a base holds the frame's function.
        unsafe { Value::from_bits(*self.core.base.sub(2)) }
            .as_native()
            .map_or(Value::NIL, |native| native.capture(i))
    }
}
