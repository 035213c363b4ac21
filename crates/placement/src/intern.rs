//! Strings as small integers: label keys and values repeat on many nodes, so each is kept once, and
//! so are the names of nodes. Symbols are never freed; their number is bounded by the distinct labels
//! and nodes that a cluster has had.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// An interned string. Equal symbols of one [`Interner`] mean equal strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(u32);

impl Symbol {
    /// What a string that was never interned resolves to: it equals no node's label.
    pub const UNKNOWN: Self = Self(u32::MAX);

    /// Stands for the name of the node that it is found at, so that nodes that differ in nothing
    /// else have equal labels.
    pub(crate) const OWN_NAME: Self = Self(u32::MAX - 1);

    /// The name of a node that nobody speaks of: it equals no other.
    pub(crate) const NOBODY: Self = Self(u32::MAX - 2);
}

/// The table of interned strings.
#[derive(Debug, Default)]
pub struct Interner {
    /// Only symbols: a million strings are not to be here twice.
    ids: HashTable<Symbol>,
    strings: Vec<Box<str>>,
    hasher: RandomState,
}

impl Interner {
    /// The symbol of `text`, made if it is new.
    pub fn intern(&mut self, text: &str) -> Symbol {
        let symbol = self.lookup(text);
        if symbol != Symbol::UNKNOWN {
            return symbol;
        }
        let symbol = Symbol(u32::try_from(self.strings.len()).unwrap_or(u32::MAX));
        self.strings.push(text.into());
        let (hasher, strings) = (&self.hasher, &self.strings);
        self.ids.insert_unique(hasher.hash_one(text), symbol, |known| {
            hasher.hash_one(text_of(strings, *known))
        });
        symbol
    }

    /// The symbol of `text`, or [`Symbol::UNKNOWN`] when nothing carries it.
    #[must_use]
    pub fn lookup(&self, text: &str) -> Symbol {
        let is_it = |symbol: &Symbol| self.text(*symbol) == text;
        let found = self.ids.find(self.hasher.hash_one(text), is_it);
        found.copied().unwrap_or(Symbol::UNKNOWN)
    }

    /// The text of a symbol; empty for [`Symbol::UNKNOWN`].
    #[must_use]
    pub fn text(&self, symbol: Symbol) -> &str {
        text_of(&self.strings, symbol)
    }
}

fn text_of(strings: &[Box<str>], symbol: Symbol) -> &str {
    strings.get(symbol.0 as usize).map_or("", AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_symbol() {
        let mut symbols = Interner::default();
        let texts: Vec<_> = (0..1000).map(|number| format!("text-{number}")).collect();
        let all: Vec<_> = texts.iter().map(|text| symbols.intern(text)).collect();
        for (text, symbol) in texts.iter().zip(all) {
            assert_eq!((symbols.intern(text), symbols.lookup(text)), (symbol, symbol));
            assert_eq!(symbols.text(symbol), text);
        }
        assert_eq!(symbols.lookup("other"), Symbol::UNKNOWN);
        assert_eq!(symbols.text(Symbol::UNKNOWN), "");
    }
}
