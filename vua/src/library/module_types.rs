//! The types of structs that modules declare, so that every chunk that names one has the same.
//!
//! The types of a module are made when the first chunk that names one is loaded, from what the module's file declares: the module need not have
//! run. When it is loaded itself it takes these types, once. A module that is loaded again has new types, and chunks that are loaded from then on have those.
//!
//! # What is trusted
//! A chunk's own copy of a declaration is what its instructions were verified with. It is compared with the original, word by word, before
//! the original's type takes its place ([`originals`]): a compiled chunk that claims another layout is refused, so no hash need be believed.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smp::platform::Platform;
use sync::lock::Lock;

use crate::bytecode::Function;
use crate::compile::modules::{Files, identities, originals};
use crate::compile::{Declarations, Modules};
use crate::heap::{Budget, Charge, LocalHeap, NeedMemory};
use crate::memory::{Shape, StructType};
use crate::value::Value;

/// A module whose types are made.
struct Entry {
    declarations: Arc<Declarations>,
    /// Of all its structs; shared.
    types: Vec<Value>,
    /// Whether the module was loaded, with these types.
    loaded: bool,
    _charge: Option<Charge>,
}

/// Those of a program. No safepoint is passed under the lock.
pub(crate) struct ModuleTypes {
    list: Lock<Vec<Entry>>,
}

/// A chunk that is loaded as a module.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a> {
    /// The module's name.
    pub(crate) module: &'a str,
    /// Its file.
    pub(crate) file: &'a str,
}

/// Why a chunk cannot be loaded.
pub(crate) enum Unbound {
    /// What it was compiled with is not there.
    Differs(String),
    /// There is not enough memory.
    Memory(NeedMemory),
}

impl From<NeedMemory> for Unbound {
    fn from(need: NeedMemory) -> Unbound {
        Unbound::Memory(need)
    }
}

/// What a chunk is loaded with.
pub(crate) struct Bound {
    /// The types of its structs, as far as they are made already.
    pub(crate) types: Vec<Option<Value>>,
    /// What is to be kept once the chunk is loaded.
    entry: Option<Entry>,
}

impl ModuleTypes {
    pub(crate) fn new() -> ModuleTypes {
        ModuleTypes {
            list: Lock::new(Vec::new()),
        }
    }

    /// Calls `visit` with every type. In the collector's pause.
    pub(crate) fn each_root(&self, visit: &mut dyn FnMut(Value)) {
        for entry in self.list.lock().iter() {
            for of in &entry.types {
                visit(*of);
            }
        }
    }

    fn known(&self, module: &str) -> Option<Arc<Declarations>> {
        let list = self.list.lock();
        let entry = list
            .iter()
            .find(|entry| *entry.declarations.module == *module);
        entry.map(|entry| entry.declarations.clone())
    }

    /// The types of a chunk, whose structs of other modules are among `modules`; the chunk of a module itself takes those that others have made.
    ///
    /// Nothing is reserved before it fails, and nothing that it made is lost: it may be called again.
    pub(crate) fn bind(
        &self,
        local: &LocalHeap,
        function: &Function,
        modules: &Modules,
        named: Option<Named<'_>>,
    ) -> Result<Bound, Unbound> {
        for declarations in modules.in_order() {
            self.make(local, declarations, modules)?;
        }
        let shapes = &function.structs;
        let types = self.imported(shapes, modules)?;
        let mut bound = Bound { types, entry: None };
        let Some(named) = named.filter(|_| shapes.iter().any(|shape| shape.outermost)) else {
            return Ok(bound);
        };
        let module: Arc<str> = named.module.into();
        let declarations = Declarations {
            identities: identities(&module, shapes, modules).map_err(Unbound::Differs)?,
            module,
            file: named.file.into(),
            shapes: shapes.clone(),
        };
        let made = {
            let list = self.list.lock();
            let entry = list
                .iter()
                .find(|entry| entry.declarations.module == declarations.module && !entry.loaded);
            match entry {
                Some(entry) if *entry.declarations == declarations => Some(entry.types.clone()),
                Some(entry) => {
                    let (module, file) = (&declarations.module, &entry.declarations.file);
                    return Err(Unbound::Differs(format!(
                        "chunks that are loaded already have other structs of module '{module}', as '{file}' declared them"
                    )));
                }
                None => None,
            }
        };
        let types = match made {
            Some(types) => types,
            None => published(local, shapes, &bound.types)?,
        };
        bound.types = types.iter().copied().map(Some).collect();
        bound.entry = Some(entry(local, Arc::new(declarations), types, true)?);
        Ok(bound)
    }

    /// The chunk is loaded.
    pub(crate) fn keep(&self, bound: Bound) {
        let Some(entry) = bound.entry else { return };
        let mut list = self.list.lock();
        let module = &entry.declarations.module;
        match list
            .iter_mut()
            .find(|other| other.declarations.module == *module)
        {
            Some(other) => *other = entry,
            None => list.push(entry),
        }
    }

    /// Makes the types of a module, if there are none.
    fn make(
        &self,
        local: &LocalHeap,
        declarations: &Arc<Declarations>,
        modules: &Modules,
    ) -> Result<(), Unbound> {
        if self.known(&declarations.module).is_some() {
            return Ok(());
        }
        let types = self.imported(&declarations.shapes, modules)?;
        let types = published(local, &declarations.shapes, &types)?;
        let entry = entry(local, declarations.clone(), types, false)?;
        let mut list = self.list.lock();
        // Another core may have been faster.
        if !list
            .iter()
            .any(|other| other.declarations.module == declarations.module)
        {
            list.push(entry);
        }
        Ok(())
    }

    /// The types of those structs that other chunks declare. `modules` are made.
    fn imported(&self, shapes: &[Shape], modules: &Modules) -> Result<Vec<Option<Value>>, Unbound> {
        let originals = originals(shapes, modules).map_err(Unbound::Differs)?;
        let list = self.list.lock();
        let mut types = Vec::new();
        for original in originals {
            types.push(match original {
                None => None,
                Some((declarations, number)) => {
                    // What was compared is what these types were made from, unless the module was loaded again in between.
                    let of = list
                        .iter()
                        .find(|entry| entry.declarations == *declarations)
                        .map(|entry| entry.types[number]);
                    if of.is_none() {
                        let module = &declarations.module;
                        return Err(Unbound::Differs(format!(
                            "module '{module}' was loaded with other structs meanwhile"
                        )));
                    }
                    of
                }
            });
        }
        Ok(types)
    }
}

/// The types of a module's structs, which every task may reach.
fn published(
    local: &LocalHeap,
    shapes: &[Shape],
    given: &[Option<Value>],
) -> Result<Vec<Value>, NeedMemory> {
    let types = StructType::of_chunk(local, local.heap(), shapes, given)?;
    for of in &types {
        // Each is a few objects: no safepoint is needed.
        local.publish(*of, &mut || ())?;
    }
    Ok(types)
}

fn entry(
    local: &LocalHeap,
    declarations: Arc<Declarations>,
    types: Vec<Value>,
    loaded: bool,
) -> Result<Entry, NeedMemory> {
    let mut budget = Budget::new(local);
    let bytes = size_of::<Entry>() + declarations.footprint() + size_of::<Value>() * types.len();
    budget.ask(bytes);
    match budget.refused() {
        Some(need) => Err(need),
        None => Ok(Entry {
            declarations,
            types,
            loaded,
            _charge: budget.keep(bytes),
        }),
    }
}

/// Where a program's chunks find the modules whose structs they name.
pub(crate) struct ProgramFiles<'a> {
    pub(crate) platform: &'static dyn Platform,
    pub(crate) types: &'a ModuleTypes,
}

impl Files for ProgramFiles<'_> {
    fn known(&self, module: &str) -> Option<Arc<Declarations>> {
        self.types.known(module)
    }

    fn read(&self, file: &str, more: &mut dyn FnMut(usize) -> bool) -> Option<Vec<u8>> {
        let mut content = None;
        self.platform
            .read_file(file, &mut |bytes| {
                if more(bytes.len()) {
                    content = Some(bytes.to_owned());
                }
            })
            .ok()?;
        content
    }
}
