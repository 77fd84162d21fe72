//! `require` and `package` (reference manual, 6.3), for many tasks.
//!
//! A module is loaded by one task, in which its main function runs; other tasks that require it meanwhile wait ([`Loads`]). Modules that
//! need one another to be loaded first, in one task or across several, are an error that names them. If loading fails, those who waited try
//! for themselves.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sync::lock::Lock;

use super::Builder;
use super::buffer::{Buffer, long_string};
use super::module_types::Named;
use super::table::is_function;
use crate::compile::modules::PATH;
use crate::heap::NeedMemory;
use crate::interp::native::{Call, Next, Throw};
use crate::object::Gc;
use crate::table::Table;
use crate::task::{Coroutine, Task, WaitFor, Woken};
use crate::value::Value;

/// `package.config`: what separates folders, templates, and stands for the name in a template; the rest is for loaders that there are none of.
const CONFIG: &str = "/\n;\n?\n!\n-\n";

/// Defines the library.
pub(super) fn open(builder: &mut Builder<'_>) -> Result<(), NeedMemory> {
    let package = builder.library("package", &[("searchpath", searchpath)])?;
    builder.set(package, "path", builder.string(PATH)?)?;
    builder.set(package, "cpath", builder.string("")?)?;
    builder.set(package, "config", builder.string(CONFIG)?)?;
    let loaded = builder.empty_table()?;
    builder.set(package, "loaded", loaded.value())?;
    let preload = builder.empty_table()?;
    builder.set(package, "preload", preload.value())?;
    let globals = builder.globals();
    builder.set(loaded, "_G", globals.value())?;
    for name in [
        "coroutine",
        "debug",
        "io",
        "math",
        "os",
        "package",
        "string",
        "table",
        "utf8",
    ] {
        let library = globals.get(builder.string(name)?);
        builder.set(loaded, name, library)?;
    }
    let searchers = builder.empty_table()?;
    let captures = [package.value(), preload.value()];
    let first = builder.function("searcher_preload", search_preload, &captures)?;
    let second = builder.function("searcher_file", search_files, &captures)?;
    builder.set_index(searchers, 1, first)?;
    builder.set_index(searchers, 2, second)?;
    builder.set(package, "searchers", searchers.value())?;
    let require = builder.function("require", require, &[package.value(), loaded.value()])?;
    builder.global_value("require", require)
}

/// A module that is being loaded.
pub(crate) struct Load {
    number: u64,
    name: Box<[u8]>,
    /// Who loads it, and where the frame of its `require` is: in which of the task's coroutines, how far up its stack.
    pub(crate) task: Gc<Task>,
    pub(crate) coroutine: *mut Coroutine,
    pub(crate) depth: usize,
    /// Tasks that will suspend until it is loaded: known from the moment of their wish, so that of two that close a cycle the second sees it.
    expected: Vec<Gc<Task>>,
    /// Tasks that are suspended until it is loaded.
    waiters: Vec<Gc<Task>>,
}

/// The modules that are being loaded.
pub(crate) struct Loads {
    list: Lock<Vec<Load>>,
    /// Their number, so that an error that is caught need not take the lock.
    count: AtomicUsize,
    next: AtomicU64,
}

/// What became of the wish to load a module.
enum Begun {
    /// The caller loads it.
    Yes,
    /// Another task does.
    Wait(u64),
    /// It would have to be loaded before itself: the modules on the way, the first one last again.
    Cycle(Vec<Box<[u8]>>),
}

impl Loads {
    pub(crate) fn new() -> Loads {
        Loads {
            list: Lock::new(Vec::new()),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(1),
        }
    }

    /// Whether no module is being loaded.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn begin(
        &self,
        name: &[u8],
        task: Gc<Task>,
        coroutine: *mut Coroutine,
        depth: usize,
    ) -> Result<Begun, NeedMemory> {
        let need = NeedMemory { bytes: name.len() };
        let copy = |name: &[u8]| -> Result<Box<[u8]>, NeedMemory> {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(name.len()).map_err(|_| need)?;
            bytes.extend_from_slice(name);
            Ok(bytes.into_boxed_slice())
        };
        let copied = copy(name)?;
        let mut list = self.list.lock();
        let Some(found) = list.iter().position(|load| *load.name == *name) else {
            list.try_reserve(1).map_err(|_| need)?;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            list.push(Load {
                number,
                name: copied,
                task,
                coroutine,
                depth,
                expected: Vec::new(),
                waiters: Vec::new(),
            });
            self.count.store(list.len(), Ordering::Relaxed);
            return Ok(Begun::Yes);
        };
        // Who loads it, the module that that task waits for, who loads that, and so on: if this comes to the asking task, nobody would ever go on.
        let mut names = Vec::new();
        let mut at = found;
        for _ in 0..list.len() {
            let load = &list[at];
            // The task got there through the modules that it was loading already.
            for inner in list[at..].iter().filter(|inner| inner.task == load.task) {
                names.try_reserve(1).map_err(|_| need)?;
                names.push(copy(&inner.name)?);
            }
            if load.task == task {
                names.push(copied);
                return Ok(Begun::Cycle(names));
            }
            let Some(next) = list
                .iter()
                .position(|waited| waited.expected.contains(&load.task))
            else {
                break;
            };
            at = next;
        }
        let load = &mut list[found];
        if !load.expected.contains(&task) {
            load.expected.try_reserve(1).map_err(|_| need)?;
            load.expected.push(task);
        }
        Ok(Begun::Wait(load.number))
    }

    /// Queues a suspended task until a module is loaded; `false` if it is.
    pub(crate) fn add_waiter(&self, number: u64, task: Gc<Task>) -> bool {
        let mut list = self.list.lock();
        match list.iter_mut().find(|load| load.number == number) {
            Some(load) => {
                load.waiters.push(task);
                true
            }
            None => false,
        }
    }

    /// A task's wait has ended otherwise.
    pub(crate) fn remove_waiter(&self, task: Gc<Task>) {
        for load in self.list.lock().iter_mut() {
            load.waiters.retain(|waiter| *waiter != task);
            load.expected.retain(|waiter| *waiter != task);
        }
    }

    /// Takes the loads that `which` says off the list, and gives the tasks that waited for them, and whose wait this has ended.
    pub(crate) fn end(&self, which: impl Fn(&Load) -> bool) -> Vec<Gc<Task>> {
        let mut woken = Vec::new();
        if self.is_empty() {
            return woken;
        }
        let mut list = self.list.lock();
        list.retain_mut(|load| {
            let ends = which(load);
            if ends {
                woken.extend(
                    load.waiters
                        .drain(..)
                        .filter(|task| task.claim(Woken::Event)),
                );
            }
            !ends
        });
        self.count.store(list.len(), Ordering::Relaxed);
        woken
    }
}

// Slots of `require`.
const NAME: usize = 0;
const INDEX: usize = 1;
const TRIED: usize = 2;
const DATA: usize = 3;
const CALLEE: usize = 4;
// Its states.
const BEGUN: u32 = 1;
const SEARCHED: u32 = 2;
const LOADED: u32 = 3;

/// `require(name)`.
fn require(call: &mut Call<'_>) -> Result<Next, Throw> {
    load(call, false)
}

/// What `struct S from "name"` calls. The type is there without it; its methods are when the module has run. So a module that is being loaded, and
/// comes back to itself here, need not be.
pub(crate) fn load_module(call: &mut Call<'_>) -> Result<Next, Throw> {
    load(call, true)
}

fn load(call: &mut Call<'_>, circles: bool) -> Result<Next, Throw> {
    let name = call.bytes_argument(NAME)?;
    let (Some(package), Some(loaded)) = (call.capture(0).as_table(), call.capture(1).as_table())
    else {
        return Ok(Next::Nothing);
    };
    let (address, part) = (loaded.as_ptr() as usize, call.core.race_part(name.value()));
    call.core.race_acquire(address, part);
    if call.state() == 0 {
        let module = loaded.get(name.value());
        if module.is_truthy() {
            return Ok(Next::One(module));
        }
        let Some(task) = call.core.task else {
            return Ok(Next::Nothing);
        };
        let coroutine = task.fields().coroutine.get();
        // SAFETY: the native's frame is on the stack in use.
        let depth = unsafe { call.core.base.offset_from(call.core.stack) } as usize;
        match call
            .program()
            .loads()
            .begin(name.bytes(), task, coroutine, depth)?
        {
            Begun::Wait(load) => return Err(Throw::Wait(WaitFor::Module(load))),
            Begun::Cycle(_) if circles => return Ok(Next::Nothing),
            Begun::Cycle(names) => {
                let names: Vec<String> = names
                    .iter()
                    .map(|name| format!("'{}'", String::from_utf8_lossy(name)))
                    .collect();
                return Err(call.message(format_args!(
                    "modules require one another in a cycle: {}",
                    names.join(" -> ")
                )));
            }
            Begun::Yes => {}
        }
        call.set(INDEX, Value::small(0));
        call.set(TRIED, Value::NIL);
        call.set(DATA, Value::NIL);
        call.advance(BEGUN);
        // Another task may have loaded it between the look above and the beginning.
        let module = loaded.get(name.value());
        if module.is_truthy() {
            end(call, name.value());
            return Ok(Next::One(module));
        }
    }
    if call.state() == SEARCHED {
        let found = call.result(CALLEE);
        if is_function(found) {
            let data = if call.results() > 1 {
                call.slot(CALLEE + 1)
            } else {
                Value::NIL
            };
            call.set(DATA, data);
            let name = call.slot(NAME);
            return Ok(call.prepare(CALLEE, found, &[name, data], LOADED));
        }
        if found.as_str().is_some() {
            let mut buffer = Buffer::new();
            if let Some(tried) = call.slot(TRIED).as_str() {
                buffer.extend(call, tried.bytes())?;
            }
            buffer.extend(call, b"\n\t")?;
            if let Some(text) = found.as_str() {
                buffer.extend(call, text.bytes())?;
            }
            let tried = buffer.into_string(call, CALLEE + 1)?;
            call.set(TRIED, tried);
        }
        call.advance(BEGUN);
    }
    if call.state() == BEGUN {
        let searchers = call.string(b"searchers")?;
        let Some(searchers) = package.get(searchers).as_table() else {
            return Err(call.message("'package.searchers' must be a table"));
        };
        let index = call.slot(INDEX).as_integer().unwrap_or(0) + 1;
        let searcher = searchers.get_int(index);
        if searcher.is_nil() {
            let tried = call.slot(TRIED);
            let tried = tried
                .as_str()
                .map_or(String::new(), |s| String::from_utf8_lossy(s.bytes()).into());
            let name = String::from_utf8_lossy(name.bytes());
            return Err(call.message(format_args!("module '{name}' not found:{tried}")));
        }
        let index = call.integer(index)?;
        call.set(INDEX, index);
        return Ok(call.prepare(CALLEE, searcher, &[name.value()], SEARCHED));
    }
    call.core.race_release(address, part);
    let module = call.result(CALLEE);
    if !module.is_nil() {
        call.store(loaded, name.value(), module)?;
    } else if loaded.get(name.value()).is_nil() {
        call.store(loaded, name.value(), Value::TRUE)?;
    }
    end(call, name.value());
    call.set(DATA - 1, loaded.get(name.value()));
    Ok(Next::Many {
        at: DATA - 1,
        count: 2,
    })
}

/// The running task no longer loads this module.
fn end(call: &mut Call<'_>, name: Value) {
    let task = call.core.task;
    let name = name.as_str();
    let engine = call.engine();
    call.program().give_up_loads(engine, |load| {
        Some(load.task) == task && name.is_some_and(|name| *load.name == *name.bytes())
    });
}

/// The searcher that looks into `package.preload`.
fn search_preload(call: &mut Call<'_>) -> Result<Next, Throw> {
    let name = call.bytes_argument(0)?;
    let loader = call
        .capture(1)
        .as_table()
        .map_or(Value::NIL, |preload: Gc<Table>| preload.get(name.value()));
    if loader.is_nil() {
        let name = String::from_utf8_lossy(name.bytes());
        let text = format!("no field package.preload['{name}']");
        return Ok(Next::One(call.string(text.as_bytes())?));
    }
    let origin = call.string(b":preload:")?;
    call.set(0, loader);
    call.set(1, origin);
    Ok(Next::Many { at: 0, count: 2 })
}

/// Looks for the file of a module: its name, or a line for each that there is none of.
fn find_file(
    call: &mut Call<'_>,
    name: &str,
    path: &str,
    separator: &str,
    replacement: &str,
) -> Result<Result<String, String>, Throw> {
    let mut tried = String::new();
    let name = if separator.is_empty() {
        String::from(name)
    } else {
        name.replace(separator, replacement)
    };
    for template in path.split(';') {
        let file = template.replace('?', &name);
        if call.platform().read_file(&file, &mut |_| ()).is_ok() {
            return Ok(Ok(file));
        }
        if !tried.is_empty() {
            tried.push_str("\n\t");
        }
        tried.push_str(&format!("no file '{file}'"));
        call.poll()?;
    }
    Ok(Err(tried))
}

/// The searcher that looks for files.
fn search_files(call: &mut Call<'_>) -> Result<Next, Throw> {
    let text = |value: Value| value.as_str().and_then(|s| s.to_utf8()).map(String::from);
    let argument = call.bytes_argument(0)?.value();
    let Some(name) = text(argument) else {
        return Ok(Next::One(call.string(b"no file has such a name")?));
    };
    let path = call.string(b"path")?;
    let path = call
        .capture(0)
        .as_table()
        .map_or(Value::NIL, |package| package.get(path));
    let Some(path) = text(path) else {
        return Err(call.message("'package.path' must be a string"));
    };
    let file = match find_file(call, &name, &path, ".", "/")? {
        Ok(file) => file,
        Err(tried) => return Ok(Next::One(long_string(call, tried.as_bytes(), 1)?)),
    };
    let source = super::load::content(call, &file)?.unwrap_or_default();
    let at = call.count() + 2;
    let chunk = format!("@{file}");
    let text = crate::compile::without_first_comment(&source);
    let module = Some(Named {
        module: &name,
        file: &file,
    });
    match super::load::compile(call, text, chunk.as_bytes(), b"bt", None, module, at)? {
        Next::One(loader) => {
            call.set(at, loader);
            let file = call.string(file.as_bytes())?;
            call.set(at + 1, file);
            Ok(Next::Many { at, count: 2 })
        }
        _ => {
            let message = call.slot(at + 1).as_str();
            let message = message.map_or(String::new(), |s| {
                String::from_utf8_lossy(s.bytes()).into_owned()
            });
            Err(call.message(format_args!(
                "error loading module '{name}' from file '{file}':\n\t{message}"
            )))
        }
    }
}

/// `package.searchpath(name, path [, sep [, rep]])`.
fn searchpath(call: &mut Call<'_>) -> Result<Next, Throw> {
    let mut texts = [const { String::new() }; 4];
    let defaults = ["", "", ".", "/"];
    for (i, text) in texts.iter_mut().enumerate() {
        *text = if i >= 2 && call.get(i).is_nil() {
            String::from(defaults[i])
        } else {
            String::from_utf8_lossy(call.bytes_argument(i)?.bytes()).into_owned()
        };
    }
    let [name, path, separator, replacement] = &texts;
    match find_file(call, name, path, separator, replacement)? {
        Ok(file) => Ok(Next::One(call.string(file.as_bytes())?)),
        Err(tried) => {
            let tried = long_string(call, tried.as_bytes(), call.count())?;
            call.set(0, Value::NIL);
            call.set(1, tried);
            Ok(Next::Many { at: 0, count: 2 })
        }
    }
}
