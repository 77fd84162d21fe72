//! Metatables: which value has which, and what the language looks for in them.

use core::sync::atomic::Ordering;

use super::Program;
use crate::memory::{Struct, StructType};
use crate::object::Gc;
use crate::table::Table;
use crate::value::{Tag, Value};

macro_rules! metamethods {
    ($($name:ident $text:literal)*) => {
        /// The metamethods, and what else metatables hold for the language. The first eight are looked up most and cached in their metatable's header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "their names say it")]
        pub enum Metamethod { $($name),* }
        pub(super) const METAMETHODS: &[&str] = &[$($text),*];
    };
}

metamethods! {
    Index "__index" Newindex "__newindex" Eq "__eq" Len "__len" Call "__call" Lt "__lt" Le "__le" Concat "__concat"
    Add "__add" Sub "__sub" Mul "__mul" Div "__div" Mod "__mod" Idiv "__idiv" Pow "__pow" Unm "__unm"
    Band "__band" Bor "__bor" Bxor "__bxor" Shl "__shl" Shr "__shr" Bnot "__bnot" Name "__name"
    Tostring "__tostring" Pairs "__pairs" Metatable "__metatable" Close "__close" Gc "__gc" Mode "__mode"
}

/// Values of [`Header::extra`](crate::heap::Header::extra) that can have metatables of their own.
pub(super) const EXTRAS: usize = 16;

/// How many metamethods a table's header caches.
const CACHED: u8 = 8;

impl Program {
    /// A value's metatable.
    #[inline]
    pub(crate) fn metatable(&self, value: Value) -> Option<Gc<Table>> {
        if let Some(table) = value.as_table() {
            return table.metatable();
        }
        if value.as_str().is_some() {
            return self.string_metatable();
        }
        if crate::library::io::is_file(value) {
            return self.library.files;
        }
        if value.has_tag(Tag::Struct) {
            if let Some(it) = Gc::<Struct>::from_value(value) {
                return Some(it.of().methods());
            }
            return match Gc::<StructType>::from_value(value) {
                Some(_) => self.library.types,
                None => None,
            };
        }
        self.object_metatable(value)
    }

    /// The metatable of an object of the engine's own, such as a task; `None` of a file, which has one of its own.
    #[inline(always)]
    pub(crate) fn object_metatable(&self, value: Value) -> Option<Gc<Table>> {
        let object = value.object()?;
        // SAFETY: a value's object lives.
        let (kind, extra) = unsafe {
            let header = object.as_ref();
            (header.kind(), header.extra.load(Ordering::Relaxed))
        };
        let extra = usize::from(extra);
        if extra >= EXTRAS {
            return None;
        }
        self.library.objects[kind as usize * EXTRAS + extra]
    }

    /// The strings' metatable.
    #[inline(always)]
    pub(crate) fn string_metatable(&self) -> Option<Gc<Table>> {
        self.library.strings
    }

    /// The methods of arrays.
    pub(crate) fn array_methods(&self) -> Option<Gc<Table>> {
        self.library.arrays
    }

    /// A value's metamethod; nil if it has none.
    #[inline]
    pub(crate) fn metamethod(&self, value: Value, event: Metamethod) -> Value {
        match self.metatable(value) {
            None => Value::NIL,
            Some(table) => {
                let name = self.names[event as usize];
                if (event as u8) < CACHED {
                    table.metamethod(event as u8, name)
                } else {
                    table.get(name)
                }
            }
        }
    }

    /// The name of a metamethod.
    pub(crate) fn metamethod_name(&self, event: Metamethod) -> Value {
        self.names[event as usize]
    }

    /// Whether a metatable has no such metamethod.
    #[inline]
    pub(crate) fn has_no(&self, metatable: Gc<Table>, event: Metamethod) -> bool {
        metatable
            .metamethod(event as u8, self.names[event as usize])
            .is_nil()
    }

    /// The metamethod of the first operand, else of the second.
    pub(crate) fn binary_metamethod(&self, x: Value, y: Value, event: Metamethod) -> Value {
        let handler = self.metamethod(x, event);
        if handler.is_nil() {
            self.metamethod(y, event)
        } else {
            handler
        }
    }

    /// A field of a value's metatable that has a meaning to the language, by its name.
    ///
    /// # Panics
    /// If the language gives that name no meaning.
    pub(crate) fn metafield(&self, value: Value, name: &str) -> Value {
        let Some(table) = self.metatable(value) else {
            return Value::NIL;
        };
        match METAMETHODS.iter().position(|known| *known == name) {
            Some(index) => table.get(self.names[index]),
            None => unreachable!("{name} is no metamethod"),
        }
    }

    /// The name of a value's type for messages: `__name` of the metatable of a table or of an object of the engine, if that is a string.
    pub(crate) fn type_name(&self, value: Value) -> &'static str {
        if (value.as_table().is_some() || value.has_tag(Tag::Object))
            && let Some(name) = self.metafield(value, "__name").as_str()
            && let Some(name) = name.to_utf8()
        {
            return name;
        }
        crate::interp::throw::type_name(value)
    }
}
