//! The structs of other modules: what `struct S from "module"` needs to know of them.
//!
//! Which modules a chunk names so is found from its tokens alone ([`imports`]), before it is parsed: their declarations are there when the parser
//! meets the statement, and no parser runs within another.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::lexer::Lexer;
use super::token::Token;
use crate::memory::Shape;

/// Which struct it is, whichever chunk names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The module that declares it.
    module: Arc<str>,
    /// Its number there.
    index: u32,
}

impl Identity {
    /// The struct of this number that a module declares.
    pub fn new(module: Arc<str>, index: u32) -> Identity {
        Identity { module, index }
    }
}

/// The structs of a module.
#[derive(Debug, PartialEq, Eq)]
pub struct Declarations {
    /// The module's name.
    pub module: Arc<str>,
    /// Its file.
    pub file: Arc<str>,
    /// Its structs, those of other modules included.
    pub shapes: Vec<Shape>,
    /// Which they are.
    pub identities: Vec<Identity>,
}

impl Declarations {
    /// The number of the struct that a name means at the end of the module's outermost scope.
    pub fn outermost(&self, name: &str) -> Option<usize> {
        self.shapes
            .iter()
            .rposition(|shape| shape.outermost && &*shape.name == name)
    }

    /// That there is no struct of this name, and which there are.
    pub fn no_such(&self, name: &str) -> String {
        let outermost = self.shapes.iter().filter(|shape| shape.outermost);
        let names: BTreeSet<&str> = outermost.map(|shape| &*shape.name).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let declared = match names.len() {
            0 => String::from("it declares none there"),
            1..=8 => format!("it declares {}", names.join(", ")),
            n => format!("it declares {} and {} more", names[..8].join(", "), n - 8),
        };
        let (module, file) = (&self.module, &self.file);
        format!(
            "module '{module}' ({file}) has no struct '{name}' in its outermost scope: {declared}"
        )
    }

    /// About how many bytes it takes, names left out that others share.
    pub fn footprint(&self) -> usize {
        let fields: usize = self.shapes.iter().map(|shape| shape.fields.len()).sum();
        size_of::<Declarations>()
            + (size_of::<Shape>() + size_of::<Identity>()) * self.shapes.len()
            + size_of::<crate::memory::Field>() * fields
    }
}

/// The modules that a chunk names, each with its structs or why there are none to be had.
#[derive(Debug, Default)]
pub struct Modules {
    by_name: BTreeMap<Arc<str>, Result<Arc<Declarations>, String>>,
    /// Their names, each behind those that it names itself.
    order: Vec<Arc<str>>,
}

impl Modules {
    /// Adds a module.
    pub fn add(&mut self, name: Arc<str>, found: Result<Arc<Declarations>, String>) {
        self.order.push(name.clone());
        self.by_name.insert(name, found);
    }

    /// Whether a module was added.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The structs of a module.
    ///
    /// # Errors
    /// Why there are none to be had.
    pub fn get(&self, name: &str) -> Result<&Arc<Declarations>, String> {
        match self.by_name.get(name) {
            Some(Ok(declarations)) => Ok(declarations),
            Some(Err(message)) => Err(message.clone()),
            None => Err(format!("module '{name}' not found")),
        }
    }

    /// All that there are, each behind those that it needs.
    pub fn in_order(&self) -> impl Iterator<Item = &Arc<Declarations>> {
        let found = |name| self.by_name.get(name).and_then(|m| m.as_ref().ok());
        self.order.iter().filter_map(found)
    }
}

/// The modules whose structs a source text names: those of every `struct Name from "module"`, a row of tokens that means nothing else.
pub fn imports(source: &[u8]) -> Vec<Arc<str>> {
    let mut found: Vec<Arc<str>> = Vec::new();
    let mut lexer = Lexer::new(source);
    // The last three tokens, as far as they are names.
    let mut row: [Option<Arc<str>>; 3] = [const { None }; 3];
    loop {
        let token = lexer.next().token;
        // The parser reports what is wrong.
        lexer.errors.clear();
        let name = match token {
            Token::End => return found,
            Token::Name(name) => Some(name),
            Token::String(module) => {
                if let [Some(first), Some(_), Some(third)] = &row
                    && &**first == "struct"
                    && &**third == "from"
                {
                    let module = String::from_utf8_lossy(&module);
                    if !found.iter().any(|known| **known == *module) {
                        found.push(Arc::from(&*module));
                    }
                }
                None
            }
            _ => None,
        };
        row.rotate_left(1);
        row[2] = name;
    }
}

/// Whether [`imports`] can find any: few sources have the words at all.
pub fn may_import(source: &[u8]) -> bool {
    let has = |word: &[u8]| source.windows(word.len()).any(|window| window == word);
    has(b"from") && has(b"struct")
}

#[cfg(test)]
mod tests {
    use super::imports;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    #[test]
    fn the_modules_that_a_source_names() {
        let names = |source: &str| -> Vec<_> {
            imports(source.as_bytes())
                .iter()
                .map(|name| name.to_string())
                .collect()
        };
        assert_eq!(
            names("struct S from 'geo' struct T from [[a.b]]"),
            ["geo", "a.b"]
        );
        assert_eq!(
            names("do struct S\nfrom -- there\n'geo' end struct U from 'geo'"),
            ["geo"]
        );
        assert_eq!(
            names("struct struct from 'x' struct from from 'y'"),
            ["x", "y"]
        );
        assert_eq!(
            names("struct S from: u8 end -- struct S from 'no'"),
            [""; 0]
        );
        assert_eq!(
            names("local from, struct = 'struct S from \"no\"' from 'no'"),
            [""; 0]
        );
        assert_eq!(names("a = struct struct S from 'x'"), ["x"]);
        assert_eq!(names("struct S from geo"), [""; 0]);
        assert_eq!(names("\x00 ~~ '\\q struct from struct"), [""; 0]);
    }
}
