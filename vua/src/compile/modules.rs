//! Where the structs of other modules come from: finds the modules' files, and reads what they declare.
//!
//! A module is looked for as `require` does, and only parsed, or decoded if it is compiled: nothing of it runs. Modules that a module names
//! itself come first, by a walk with a stack of its own; a circle among them is an error that names them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::bytecode::binary;
use crate::memory::{Member, Origin, Shape, layout};
use crate::syntax;
use crate::syntax::modules::{Declarations, Identity, Modules, imports, may_import};

/// Where modules are looked for, as `package.path` says it at first; `?` stands for the name, a slash for each dot in it.
pub const PATH: &str = "?.vua;?.vbc;?.lua;?/init.vua";

/// What modules are read from.
pub trait Files {
    /// The structs of a module that is loaded, or whose structs are in use.
    fn known(&self, _module: &str) -> Option<Arc<Declarations>> {
        None
    }

    /// The content of a file, or `None`. Asks `more` for the memory that it takes.
    fn read(&self, file: &str, more: &mut dyn FnMut(usize) -> bool) -> Option<Vec<u8>>;
}

/// No modules at all.
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str, _: &mut dyn FnMut(usize) -> bool) -> Option<Vec<u8>> {
        None
    }
}

/// A module whose structs are being found out.
struct Open {
    name: Arc<str>,
    file: Arc<str>,
    content: Content,
    /// The modules that it names, and how many of them are done.
    imports: Vec<Arc<str>>,
    done: usize,
}

enum Content {
    /// A source text.
    Text(Vec<u8>),
    /// The structs of a compiled chunk.
    Compiled(Vec<Shape>),
}

/// The modules that `names` are, and all that they name.
pub(super) fn resolve(
    names: &[Arc<str>],
    files: &dyn Files,
    more: &mut dyn FnMut(usize) -> bool,
) -> Modules {
    let mut modules = Modules::default();
    for name in names {
        if modules.contains(name) {
            continue;
        }
        let mut stack: Vec<Open> = Vec::new();
        begin(name, files, more, &mut modules, &mut stack);
        while let Some(top) = stack.last_mut() {
            if let Some(next) = top.imports.get(top.done).cloned() {
                top.done += 1;
                if modules.contains(&next) {
                    continue;
                }
                match stack.iter().position(|open| open.name == next) {
                    None => begin(&next, files, more, &mut modules, &mut stack),
                    Some(first) => {
                        // None of them can be had: whoever names one of them is told why.
                        let mut circle: Vec<String> = stack[first..]
                            .iter()
                            .map(|open| format!("'{}'", open.name))
                            .collect();
                        circle.push(format!("'{next}'"));
                        let message = format!(
                            "modules need structs of one another in a circle: {}",
                            circle.join(" -> ")
                        );
                        for open in stack.drain(first..) {
                            modules.add(open.name, Err(message.clone()));
                        }
                    }
                }
            } else if let Some(open) = stack.pop() {
                let found = declarations(&open, &modules, more);
                modules.add(open.name, found.map(Arc::new));
            }
        }
    }
    modules
}

/// Finds a module's file and what it names: onto the stack, or among the modules if that settles it.
fn begin(
    name: &Arc<str>,
    files: &dyn Files,
    more: &mut dyn FnMut(usize) -> bool,
    modules: &mut Modules,
    stack: &mut Vec<Open>,
) {
    if let Some(known) = files.known(name) {
        modules.add(name.clone(), Ok(known));
        return;
    }
    match open(name, files, more) {
        Ok(open) => stack.push(open),
        Err(message) => modules.add(name.clone(), Err(message)),
    }
}

fn open(
    name: &Arc<str>,
    files: &dyn Files,
    more: &mut dyn FnMut(usize) -> bool,
) -> Result<Open, String> {
    let place = name.replace('.', "/");
    let found = PATH.split(';').find_map(|template| {
        let file = template.replace('?', &place);
        files.read(&file, more).map(|content| (file, content))
    });
    let Some((file, content)) = found else {
        let tried: Vec<String> = PATH
            .split(';')
            .map(|template| format!("'{}'", template.replace('?', &place)))
            .collect();
        return Err(format!(
            "module '{name}' not found: there is none of {}",
            tried.join(", ")
        ));
    };
    let text = super::without_first_comment(&content);
    let (content, imports) = if text.starts_with(&binary::SIGNATURE) {
        if !more(binary::memory_to_decode(text)) {
            return Err(String::new());
        }
        let shapes = binary::decode(text)
            .map_err(|error| format!("module '{name}': {file}: {error}"))?
            .structs;
        let mut named: Vec<Arc<str>> = Vec::new();
        for shape in &shapes {
            if let Origin::Module(module) = &shape.origin
                && !named.contains(module)
            {
                named.push(module.clone());
            }
        }
        (Content::Compiled(shapes), named)
    } else {
        let named = named(text, more).filter(|_| more(text.len()));
        let Some(named) = named else {
            return Err(String::new());
        };
        (Content::Text(text.to_vec()), named)
    };
    Ok(Open {
        name: name.clone(),
        file: Arc::from(file),
        content,
        imports,
        done: 0,
    })
}

/// The modules that a source text names, or `None` if the memory to find them was refused.
pub(super) fn named(text: &[u8], more: &mut dyn FnMut(usize) -> bool) -> Option<Vec<Arc<str>>> {
    /// What a byte of the text takes while its tokens are read, at most: the names' own copies.
    const TEXT: usize = 4;
    if !may_import(text) {
        return Some(Vec::new());
    }
    more(text.len().saturating_mul(TEXT)).then(|| imports(text))
}

/// What a module declares, those that it names being known.
fn declarations(
    open: &Open,
    modules: &Modules,
    more: &mut dyn FnMut(usize) -> bool,
) -> Result<Declarations, String> {
    let (name, file) = (&open.name, &open.file);
    let (shapes, mut identities) = match &open.content {
        Content::Text(text) => {
            let chunk = syntax::parse(text, file, modules, more).map_err(|diagnostics| {
                let first = diagnostics
                    .first()
                    .map_or(String::new(), |first| first.one_line());
                format!("module '{name}' does not compile: {first}")
            })?;
            (chunk.shapes, chunk.identities)
        }
        Content::Compiled(shapes) => {
            let damaged = |message: String| format!("module '{name}': {file}: {message}");
            layout::layouts(shapes)
                .map_err(|(index, message)| damaged(format!("struct {index}: {message}")))?;
            let identities = identities(name, shapes, modules).map_err(damaged)?;
            (shapes.clone(), identities)
        }
    };
    for (i, shape) in shapes.iter().enumerate() {
        if shape.origin == Origin::Here {
            identities[i] = Identity::new(name.clone(), i as u32);
        }
    }
    Ok(Declarations {
        module: name.clone(),
        file: file.clone(),
        shapes,
        identities,
    })
}

/// Which structs those of a module are.
///
/// # Errors
/// As those of [`originals`].
pub(crate) fn identities(
    module: &Arc<str>,
    shapes: &[Shape],
    modules: &Modules,
) -> Result<Vec<Identity>, String> {
    let originals = originals(shapes, modules)?;
    let identity = |(i, original): (usize, Option<Original>)| match original {
        Some((declarations, number)) => declarations.identities[number].clone(),
        None => Identity::new(module.clone(), i as u32),
    };
    Ok(originals.into_iter().enumerate().map(identity).collect())
}

/// A struct of another chunk: the module that was asked for it, and its number there.
pub(crate) type Original<'m> = (&'m Arc<Declarations>, usize);

/// For each struct of a chunk that another one declares: the original, which is exactly like the copy, all that it embeds included.
///
/// # Errors
/// What differs, or is not there.
pub(crate) fn originals<'m>(
    shapes: &[Shape],
    modules: &'m Modules,
) -> Result<Vec<Option<Original<'m>>>, String> {
    let mut found: Vec<Option<Original<'m>>> = alloc::vec![None; shapes.len()];
    let mut left = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        if let Origin::Module(module) = &shape.origin {
            let declarations = modules.get(module)?;
            let number = declarations
                .outermost(&shape.name)
                .ok_or_else(|| declarations.no_such(&shape.name))?;
            left.push((i, declarations, number));
        }
    }
    while let Some((i, declarations, number)) = left.pop() {
        let (copy, original) = (&shapes[i], &declarations.shapes[number]);
        let changed = || {
            format!(
                "struct '{}' of module '{}' ({}) is not what it was when this was compiled: compile it again",
                original.name, declarations.module, declarations.file
            )
        };
        if let Some((other, at)) = found[i] {
            if other.identities[at] == declarations.identities[number] {
                continue;
            }
            return Err(changed());
        }
        found[i] = Some((declarations, number));
        let alike = copy.name == original.name
            && copy.packed == original.packed
            && copy.fields.len() == original.fields.len()
            && copy.origin != Origin::Here;
        if !alike {
            return Err(changed());
        }
        for (a, b) in copy.fields.iter().zip(&original.fields) {
            match (a.member, b.member) {
                (Member::Struct(inner), Member::Struct(of)) => {
                    left.push((inner as usize, declarations, of as usize));
                }
                (Member::Scalar(x), Member::Scalar(y)) if x == y => {}
                _ => return Err(changed()),
            }
            if a.name != b.name || a.count != b.count {
                return Err(changed());
            }
        }
    }
    for (shape, original) in shapes.iter().zip(&found) {
        if shape.origin != Origin::Here && original.is_none() {
            return Err(format!("struct '{}' is of no module", shape.name));
        }
    }
    Ok(found)
}

/// The modules that a compiled chunk names.
pub(crate) fn of_compiled(
    shapes: &[Shape],
    files: &dyn Files,
    more: &mut dyn FnMut(usize) -> bool,
) -> Modules {
    let mut names: BTreeMap<&Arc<str>, ()> = BTreeMap::new();
    for shape in shapes {
        if let Origin::Module(module) = &shape.origin {
            names.insert(module, ());
        }
    }
    let names: Vec<Arc<str>> = names.into_keys().cloned().collect();
    resolve(&names, files, more)
}
