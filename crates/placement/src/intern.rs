//! Strings as small integers: label keys, label values and taints repeat on every node, so each is
//! kept once. Symbols are never freed; their number is bounded by the distinct labels of a cluster.

use std::{collections::HashMap, sync::Arc};

/// An interned string. Equal symbols of one [`Interner`] mean equal strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(u32);

impl Symbol {
    /// What a string that was never interned resolves to: it equals no node's label.
    pub const UNKNOWN: Self = Self(u32::MAX);
}

/// The table of interned strings.
#[derive(Debug, Default)]
pub struct Interner {
    ids: HashMap<Arc<str>, Symbol>,
    strings: Vec<Arc<str>>,
}

impl Interner {
    /// The symbol of `text`, made if it is new.
    pub fn intern(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.ids.get(text) {
            return *symbol;
        }
        let symbol = Symbol(u32::try_from(self.strings.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        self.strings.push(Arc::clone(&text));
        self.ids.insert(text, symbol);
        symbol
    }

    /// The symbol of `text`, or [`Symbol::UNKNOWN`] when nothing carries it.
    #[must_use]
    pub fn lookup(&self, text: &str) -> Symbol {
        self.ids.get(text).copied().unwrap_or(Symbol::UNKNOWN)
    }

    /// The text of a symbol; empty for [`Symbol::UNKNOWN`].
    #[must_use]
    pub fn text(&self, symbol: Symbol) -> &str {
        self.strings.get(symbol.0 as usize).map_or("", AsRef::as_ref)
    }
}
