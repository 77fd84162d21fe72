//! Errors: how they unwind a stack, and what they say.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Write;
use core::sync::atomic::AtomicU32;

use super::core_state::{Core, Step};
use super::dispatch::{Exit, get, put};
use super::frame::{Continuation, Frame, Link};
use super::native::{NativeFn, Throw};
use crate::heap::{NeedMemory, is_public};
use crate::object::{Gc, Proto};
use crate::task::{Coroutine, Latch, Task};
use crate::value::{Tag, Value};

/// Why a slow path does not simply go on.
#[derive(Debug)]
pub(crate) enum Leave {
    /// An error, to be caught or to end the task.
    Throw(Throw),
    /// The interpreter is to be left.
    Exit(Exit),
}

impl From<Throw> for Leave {
    fn from(throw: Throw) -> Leave {
        Leave::Throw(throw)
    }
}

impl From<NeedMemory> for Leave {
    fn from(need: NeedMemory) -> Leave {
        Leave::Throw(Throw::NeedMemory(need))
    }
}

/// What a slow path gives.
pub(crate) type Flow = Result<(), Leave>;

/// An error with a message and the position of the running instruction.
#[cold]
pub(crate) fn fail<T>(message: String) -> Result<T, Leave> {
    Err(Leave::Throw(Throw::Message(message)))
}

/// Tracebacks show this many frames at each end of a longer stack, as Lua does.
const SHOWN: usize = 10;

/// So deep errors within message handlers go on being handled; Lua's limit, its machine stack, is about the same.
const MAX_HANDLERS: u32 = 200;

impl Core {
    /// The prototype of the Vua function in a frame, if it is one.
    pub(crate) fn frame_proto(&self, frame: Frame) -> Option<&'static Proto> {
        // SAFETY: a frame's function is in the slot two below its base; prototypes live while their functions are on the stack.
        let function = unsafe { Value::from_bits(*frame.base.sub(2)) };
        function.as_closure().map(|closure| closure.proto())
    }

    /// The source line of the instruction before `pc`.
    pub(crate) fn line_at(proto: &Proto, pc: *const AtomicU32) -> Option<u32> {
        let debug = proto.debug()?;
        let index = (pc as usize).wrapping_sub(proto.code as usize) / 4;
        debug.lines.get(index.saturating_sub(1)).copied()
    }

    /// The source line at which a function's frame stands.
    pub(crate) fn frame_line(&self, frame: Frame) -> Option<u32> {
        Self::line_at(self.frame_proto(frame)?, frame.pc)
    }

    /// `source:line:` of the `level`th Vua function from the innermost frame, where 0 is the running one; empty if there is none or it is a native.
    pub(crate) fn position(&self, level: usize) -> String {
        let mut frame = Frame {
            base: self.base,
            pc: self.pc,
        };
        for _ in 0..level {
            // SAFETY: the stack is that of the running task.
            match unsafe { frame.caller() } {
                Some(caller) => frame = caller,
                None => return String::new(),
            }
        }
        // The library's own functions count as natives do: where the program called them is what helps.
        while self.frame_proto(frame).is_some_and(|proto| proto.library) {
            // SAFETY: as above.
            match unsafe { frame.caller() } {
                Some(caller) => frame = caller,
                None => return String::new(),
            }
        }
        match self.frame_proto(frame) {
            Some(proto) => match (proto.debug(), Self::line_at(proto, frame.pc)) {
                (Some(debug), Some(line)) => format!("{}:{}: ", debug.source, line),
                // Stripped, as in Lua.
                (Some(debug), None) => format!("{}:-1: ", debug.source),
                _ => String::new(),
            },
            None => String::new(),
        }
    }

    /// The value of an error, made before unwinding.
    fn error_value(&mut self, throw: Throw) -> Option<Value> {
        match throw {
            Throw::Value(value) => Some(value),
            Throw::Message(text) => {
                // A native's message carries the position of the function that called it.
                let native = self
                    .frame_proto(Frame {
                        base: self.base,
                        pc: self.pc,
                    })
                    .is_none();
                let text = self.position(native as usize) + &text;
                // Everything alive is in frames, so this is a place to collect.
                loop {
                    match crate::object::Str::new(&self.heap, text.as_bytes()) {
                        Ok(string) => return Some(string.value()),
                        Err(need) if self.relieve_or_fail(need).is_ok() => {}
                        Err(_) => return Some(self.engine.out_of_memory()),
                    }
                }
            }
            Throw::Handled(value) => Some(value),
            Throw::NeedMemory(_) => Some(self.engine.out_of_memory()),
            Throw::Wait(_) | Throw::Cancelled | Throw::Shut => None,
        }
    }

    /// Unwinds to whoever catches the error and prepares that to run; or gives up the task.
    ///
    /// A message handler runs first, on top of the frame that raised the error; then the variables on the way are closed; then the catcher goes on.
    /// A cancellation is caught by nobody, but goes on only when the pieces of each parallel loop that it leaves have ended.
    pub(crate) fn unwind(&mut self, throw: Throw) -> Option<Exit> {
        if matches!(throw, Throw::Shut) {
            return self.shut();
        }
        let handled = matches!(throw, Throw::Handled(_));
        let mut value = self.error_value(throw);
        if value.is_none() {
            if self.is_over() {
                return Some(Exit::Cancelled);
            }
            if let Some(task) = self.task {
                task.begin_unwinding();
                self.acquire_cancellation(task);
            }
        }
        // A root, while the error unwinds past safepoints.
        self.error = value.unwrap_or(Value::NIL);
        let (mut base, mut pc) = (self.base, self.pc);
        let mut frame = Frame { base, pc };
        // How many message handlers' errors this one is within.
        let mut handlers = 0;
        loop {
            // SAFETY: the frames are those of the running task's stack.
            unsafe {
                if let Some(proto) = self.frame_proto(frame)
                    && proto.parallel_body
                    && let Some(latch) = Gc::<Latch>::from_value(get(frame.base, 3))
                {
                    if let Some(flow) = self.leave_variables(Frame { base, pc }, frame.base, value)
                    {
                        return self.entered(flow);
                    }
                    // The loop was split: its join waits for the other pieces and raises the error of the earliest.
                    let up = get(frame.base, 2).as_integer().map_or_else(
                        || get(frame.base, 2).as_float() > Some(0.0),
                        |step| step > 0,
                    );
                    let index = get(frame.base, 0);
                    match value {
                        Some(error) => {
                            let error = match self.publish(error) {
                                Ok(()) => error,
                                Err(_) => self.engine.out_of_memory(),
                            };
                            latch.fail(self.engine, index, up, error, self.task);
                        }
                        None if matches!(frame.link(), Link::Bottom) => {
                            if !latch.has_failed() {
                                // A piece that was cancelled by itself: its iterations are missing.
                                let error = self.engine.cancelled_text();
                                latch.fail(self.engine, index, up, error, self.task);
                            }
                        }
                        None => {
                            latch.fields().owner_cancelled.set(true);
                            latch.cancel(self.engine);
                        }
                    }
                    self.base = frame.base;
                    put(frame.base, 0, latch.value());
                    return self.deliver_flow(frame.base, frame.base, 1);
                }
                if self
                    .frame_proto(frame)
                    .is_some_and(|proto| proto.parallel_body)
                {
                    // The loop was not split: it ends with its one piece.
                    let (coroutine, at) = self.race_frame(frame.base);
                    self.race_watch(|races, task| races.loops_ended(task, (coroutine, at - 1)));
                }
                match frame.link() {
                    Link::Native {
                        protected: true,
                        distance,
                        state,
                        count,
                    } if let Some(mut error) = value => {
                        if let Some(coroutine) = self.closing_coroutine(frame) {
                            self.note_closing_error(coroutine, error);
                            return self.shut();
                        }
                        let native = frame.base.sub(distance);
                        if !handled && let Some(handler) = message_handler(native, state) {
                            if handlers < MAX_HANDLERS {
                                let flow = self.call_handler(Frame { base, pc }, handler, error);
                                return self.entered(flow);
                            }
                            error = self.engine.handler_error();
                        }
                        if let Some(flow) =
                            self.leave_variables(Frame { base, pc }, frame.base, Some(error))
                        {
                            return self.entered(flow);
                        }
                        self.give_up_loads(frame.base);
                        *frame.base.sub(2) = error.to_bits();
                        self.step = Step {
                            count,
                            state,
                            results: 1,
                            failed: true,
                            slots: distance - 1,
                        };
                        self.resume_native(native);
                        // The native's arguments, and its one result.
                        let used = frame.base.offset_from(self.stack) as usize;
                        self.shrink(used + count);
                        return None;
                    }
                    Link::Native { distance, .. } if value.is_none() => {
                        let native = frame.base.sub(distance);
                        if let Some(flow) = self.leave_variables(Frame { base, pc }, native, None) {
                            return self.entered(flow);
                        }
                        self.release_unwinding(native);
                        frame = Frame {
                            base: native,
                            pc: core::ptr::null(),
                        };
                    }
                    Link::Bottom => match (self.coroutine(), value) {
                        (None, _) => break,
                        (Some(coroutine), Some(error)) => {
                            if coroutine.is_closing() {
                                self.note_closing_error(coroutine, error);
                                return self.shut();
                            }
                            (self.base, self.pc) = (base, pc);
                            self.give_up_loads(self.stack);
                            self.fail_coroutine(coroutine, error);
                            return None;
                        }
                        (Some(coroutine), None) => {
                            if let Some(flow) =
                                self.leave_variables(Frame { base, pc }, self.stack, None)
                            {
                                return self.entered(flow);
                            }
                            self.abandon_coroutine(coroutine);
                            (base, pc) = (self.base, self.pc);
                            frame = Frame { base, pc };
                        }
                    },
                    Link::Metamethod {
                        then: Continuation::UnwindCancelled,
                        ..
                    } if value.is_some() => {
                        if let Some(flow) =
                            self.leave_variables(Frame { base, pc }, frame.base, value)
                        {
                            return self.entered(flow);
                        }
                        // An error in closing a variable of a task that is being cancelled: the cancellation goes on.
                        value = None;
                        match frame.caller() {
                            Some(caller) => frame = caller,
                            None => break,
                        }
                        (base, pc) = (frame.base, frame.pc);
                    }
                    Link::Variadic { distance } => frame.base = frame.base.sub(distance),
                    link => {
                        if let Link::Metamethod {
                            then: Continuation::Handled,
                            ..
                        } = link
                        {
                            handlers += 1;
                        }
                        match frame.caller() {
                            Some(caller) => frame = caller,
                            None => break,
                        }
                    }
                }
            }
        }
        if let Some(flow) = self.leave_variables(Frame { base, pc }, self.stack, value) {
            return self.entered(flow);
        }
        match value {
            Some(error) => {
                self.error = error;
                if let Some(task) = self.task {
                    let text = self.whole_traceback(task, Frame { base, pc }, error);
                    task.set_traceback(text);
                }
                Some(Exit::Failed)
            }
            None => Some(Exit::Cancelled),
        }
    }

    /// An error is caught at `above`: modules that frames from there on were loading are not loaded.
    fn give_up_loads(&self, above: *mut u64) {
        if !self.program.loads().is_empty()
            && let Some(task) = self.task
        {
            let coroutine = task.fields().coroutine.get();
            // SAFETY: both point into the stack in use.
            let above = unsafe { above.offset_from(self.stack) } as usize;
            self.program.give_up_loads(self.engine, |load| {
                load.task == task && load.coroutine == coroutine && load.depth >= above
            });
        }
    }

    /// The running coroutine, if it is being closed and an error at `frame` is not within one of its `__close` metamethods.
    fn closing_coroutine(&self, frame: Frame) -> Option<Gc<Coroutine>> {
        let coroutine = self.coroutine()?;
        (coroutine.is_closing() && self.is_past_closing(frame)).then_some(coroutine)
    }

    /// Closes the next variable of the running coroutine; after the last, who closes it goes on.
    fn shut(&mut self) -> Option<Exit> {
        let coroutine = self.coroutine()?;
        let innermost = Frame {
            base: self.base,
            pc: self.pc,
        };
        match self.close_while_unwinding(
            innermost,
            self.stack,
            coroutine.error(),
            Continuation::Shut,
        ) {
            Some(flow) => self.entered(flow),
            None => {
                self.end_closing(coroutine);
                None
            }
        }
    }

    /// Calls a message handler on top of the frame that raised an error.
    fn call_handler(&mut self, innermost: Frame, handler: Value, error: Value) -> Flow {
        (self.base, self.pc) = (innermost.base, innermost.pc);
        // A native's own slots are of no use any more; a function's registers are, for the variables that it closes, unless it has not begun: then
        // the stack may end before they would.
        let above = match self.frame_proto(innermost) {
            Some(proto) if !self.is_entering() => proto.registers as usize,
            _ => 0,
        };
        let distance = above + 4;
        // SAFETY: above every frame there is room for this.
        unsafe {
            let callee = self.base.add(distance);
            *callee.sub(3) = self.pc.expose_provenance() as u64;
            put(callee.sub(2), 0, handler);
            *callee.sub(1) = Link::Metamethod {
                distance,
                then: Continuation::Handled,
                operand: 0,
            }
            .encode();
            put(callee, 0, error);
            self.enter_function(callee, 1)
        }
    }

    /// The traceback of an error that nothing caught, and behind it that of the task whose error it was, if a join raised it.
    fn whole_traceback(&self, task: Gc<Task>, innermost: Frame, error: Value) -> String {
        let mut text = self.traceback(innermost);
        let (cause, raised) = task.fields().cause.get();
        if raised == error
            && let Some(cause) = Gc::<Task>::from_value(cause)
            && let Some(of_cause) = cause.traceback()
        {
            text.push_str("\njoined task's ");
            text.push_str(of_cause);
        }
        text
    }

    fn entered(&mut self, flow: Flow) -> Option<Exit> {
        match flow {
            Ok(()) => None,
            Err(leave) => self.leave(leave),
        }
    }

    fn deliver_flow(&mut self, base: *mut u64, from: *mut u64, count: usize) -> Option<Exit> {
        let flow = self.deliver(base, from, count);
        self.entered(flow)
    }

    /// The stack traceback from a frame outwards, through the spawn that started the task, in Lua's form.
    pub(crate) fn traceback(&self, innermost: Frame) -> String {
        let mut text = self.frames(Some(innermost));
        if self.coroutine().is_none()
            && let Some(site) = self.spawn_site()
        {
            text.push_str(&site);
        }
        text
    }

    /// The last line of a traceback: where the running task was spawned.
    pub(crate) fn spawn_site(&self) -> Option<String> {
        let (function, pc) = self.task?.fields().spawned_at.get();
        let proto = function.as_closure()?.proto();
        let (debug, line) = (proto.debug()?, Self::line_at(proto, pc)?);
        Some(format!(
            "\n\tspawned at {}:{} in {}",
            debug.source,
            line,
            function_name(debug)
        ))
    }

    /// The frames of a stack that does not change meanwhile, from one outwards.
    pub(crate) fn frames(&self, innermost: Option<Frame>) -> String {
        let mut text = String::from("stack traceback:");
        let mut frames = 0usize;
        let mut walk = innermost;
        while let Some(frame) = walk {
            frames += 1;
            // SAFETY: the stack is at rest, says the caller.
            walk = unsafe { frame.caller() };
        }
        let mut walk = innermost;
        let mut index = 0;
        while let Some(frame) = walk {
            // SAFETY: as above.
            let caller = unsafe { frame.caller() };
            if frames <= 2 * SHOWN + 1 || index < SHOWN || index + SHOWN + 1 >= frames {
                let _ = write!(text, "\n\t{}", self.describe(frame, caller));
            } else if index == SHOWN {
                let _ = write!(
                    text,
                    "\n\t...\t(skipping {} levels)",
                    frames - 2 * SHOWN - 1
                );
            }
            index += 1;
            walk = caller;
        }
        text
    }

    pub(crate) fn describe(&self, frame: Frame, caller: Option<Frame>) -> String {
        // SAFETY: the slot two below a base holds the frame's function.
        let function = unsafe { Value::from_bits(*frame.base.sub(2)) };
        if let Some(native) = function.as_native() {
            return format!("[native]: in function '{}'", native.name());
        }
        let Some(proto) = self.frame_proto(frame) else {
            return "?".to_string();
        };
        let Some(debug) = proto.debug() else {
            return "?".to_string();
        };
        let line = Self::line_at(proto, frame.pc).unwrap_or(debug.line);
        let called = caller.and_then(|caller| self.called_name(caller));
        match called {
            Some(name) if debug.line != 0 => format!("{}:{}: in {}", debug.source, line, name),
            _ => format!("{}:{}: in {}", debug.source, line, function_name(debug)),
        }
    }

    /// Publishes what every task reaches without being given it, by `load` and the like: before there is a second task that may run.
    pub(crate) fn publish_common(&mut self) -> Result<(), NeedMemory> {
        let program = self.program;
        for value in [program.globals(), program.prelude().module()] {
            if !is_public(value) {
                self.publish(value)?;
            }
        }
        Ok(())
    }

    /// Publishes what a value reaches, passing safepoints.
    pub(crate) fn publish(&mut self, value: Value) -> Result<(), NeedMemory> {
        self.heap.publish(value, &mut || self.pause())
    }
}

/// The message handler of the native in the frame at `base`, if that is `xpcall` in the state in which it protects a call.
///
/// # Safety
/// The frame is a suspended native's.
unsafe fn message_handler(base: *const u64, state: u32) -> Option<Value> {
    // SAFETY: as the caller says: its function and its first slot are values.
    let (function, handler) = unsafe { (Value::from_bits(*base.sub(2)), get(base, 0)) };
    let native = function.as_native()?;
    (native.function() == crate::library::base::xpcall as NativeFn as *const () && state == 1)
        .then_some(handler)
}

fn function_name(debug: &crate::object::Debug) -> String {
    match &debug.name {
        Some(name) => format!("function '{name}'"),
        None if debug.line == 0 => "main chunk".to_string(),
        None => format!("function <{}:{}>", debug.source, debug.line),
    }
}

/// Lua's name of a value's type.
pub fn type_name(value: Value) -> &'static str {
    if value.is_nil() {
        "nil"
    } else if value.as_boolean().is_some() {
        "boolean"
    } else if value.is_number() {
        "number"
    } else if value.has_tag(Tag::String) {
        "string"
    } else if value.has_tag(Tag::Table) {
        "table"
    } else if value.has_tag(Tag::Function) {
        "function"
    } else {
        match value.object_kind() {
            Some(crate::heap::Kind::Task) => "task",
            Some(crate::heap::Kind::Coroutine) => "thread",
            Some(crate::heap::Kind::Struct) => "struct",
            Some(crate::heap::Kind::Array) => "array",
            Some(crate::heap::Kind::StructType) => "type",
            _ => "userdata",
        }
    }
}
