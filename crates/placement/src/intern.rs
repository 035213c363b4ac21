//! Strings as small integers: label keys and values repeat on many nodes, so each is kept once, and
//! so are the names of nodes.
//!
//! Who interns a text uses it until it is released as often; then its symbol may come to mean another
//! text. Jobs and their pods come with labels of their own, so texts that are never freed would
//! fill memory.

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

/// A text, and how often it is used.
#[derive(Debug, Default)]
struct Text {
    text: Box<str>,
    uses: u32,
}

/// The table of interned strings.
#[derive(Debug, Default)]
pub struct Interner {
    /// Only symbols: a million strings are not to be here twice.
    ids: HashTable<Symbol>,
    strings: Vec<Text>,
    vacant: Vec<Symbol>,
    hasher: RandomState,
}

impl Interner {
    /// The symbol of `text`, made if it is new. It means this text until it is released.
    pub fn intern(&mut self, text: &str) -> Symbol {
        let known = self.lookup(text);
        if let Some(known) = self.strings.get_mut(known.0 as usize) {
            known.uses += 1;
        }
        if known != Symbol::UNKNOWN {
            return known;
        }
        let symbol = self.vacant.pop().unwrap_or_else(|| {
            self.strings.push(Text::default());
            Symbol(u32::try_from(self.strings.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(slot) = self.strings.get_mut(symbol.0 as usize) {
            *slot = Text { text: text.into(), uses: 1 };
        }
        let (hasher, strings) = (&self.hasher, &self.strings);
        self.ids.insert_unique(hasher.hash_one(text), symbol, |known| {
            hasher.hash_one(text_of(strings, *known))
        });
        symbol
    }

    /// Ends one use of a symbol; the last one frees it.
    pub fn release(&mut self, symbol: Symbol) {
        let Some(slot) = self.strings.get_mut(symbol.0 as usize) else { return };
        slot.uses = slot.uses.saturating_sub(1);
        if slot.uses > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*slot.text);
        if let Ok(entry) = self.ids.find_entry(hash, |known| *known == symbol) {
            entry.remove();
            slot.text = Box::default();
            self.vacant.push(symbol);
        }
    }

    /// How many texts are in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.ids.len()
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

fn text_of(strings: &[Text], symbol: Symbol) -> &str {
    strings.get(symbol.0 as usize).map_or("", |known| &*known.text)
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
        symbols.release(symbols.lookup("text-7"));
        assert_eq!(symbols.text(symbols.lookup("text-7")), "text-7", "it was interned twice");
        symbols.release(symbols.lookup("text-7"));
        assert_eq!(symbols.lookup("text-7"), Symbol::UNKNOWN);
        symbols.intern("new");
        assert_eq!((symbols.strings.len(), symbols.text(symbols.lookup("new"))), (1000, "new"));
        assert_eq!(symbols.lookup("other"), Symbol::UNKNOWN);
        assert_eq!(symbols.text(Symbol::UNKNOWN), "");
    }
}
