//! A set of records and its digest, which follows every change; the cloud and the nodes keep the same.

use std::{
    collections::BTreeMap,
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

/// FNV-1a, 64 bits: where it starts, and what it multiplies by
/// (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Records by key. A clone shares every text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    texts: BTreeMap<Arc<str>, Arc<str>>,
    digest: u64,
}

/// What a record adds to the digest of its set: FNV-1a over the key, a zero byte and the text, then the
/// finisher of SplitMix64, since FNV's own last bytes hardly reach its high bits. It is to notice what went
/// wrong, not what was forged: that is the signature's.
#[must_use]
pub fn record_digest(key: &str, text: &str) -> u64 {
    let bytes = key.bytes().chain([0]).chain(text.bytes());
    let hash =
        bytes.fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl Records {
    /// The wrapping sum of [`record_digest`] over all records; 0 for none. So the digest of two sets
    /// together is the sum of theirs.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The text under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<str>> {
        self.texts.get(key)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Puts a text under a key. The key as it is kept, if that changed anything.
    pub fn put(&mut self, key: &str, text: &str) -> Option<Arc<str>> {
        let (key, old) = match self.texts.get_key_value(key) {
            Some((_, old)) if **old == *text => return None,
            Some((key, old)) => (key.clone(), record_digest(key, old)),
            None => (Arc::from(key), 0),
        };
        self.digest = self.digest.wrapping_sub(old).wrapping_add(record_digest(&key, text));
        self.texts.insert(key.clone(), text.into());
        Some(key)
    }

    /// Takes a record out. The key as it was kept, if there was one.
    pub fn remove(&mut self, key: &str) -> Option<Arc<str>> {
        let (key, text) = self.texts.remove_entry(key)?;
        self.digest = self.digest.wrapping_sub(record_digest(&key, &text));
        Some(key)
    }

    /// All records, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.texts.iter()
    }

    /// The records whose keys begin so.
    pub fn below<'r>(
        &'r self,
        prefix: &'r str,
    ) -> impl Iterator<Item = (&'r Arc<str>, &'r Arc<str>)> {
        let from = self.texts.range::<str, _>((Included(prefix), Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_is_there_and_not_of_how_it_came() {
        let mut records = Records::default();
        assert!(records.put("a", "1").is_some() && records.put("b", "2").is_some());
        assert!(records.put("a", "1").is_none(), "nothing new");
        assert!(records.put("a", "3").is_some() && records.remove("b").is_some());
        assert!(records.remove("b").is_none());
        assert_eq!((records.digest(), records.len()), (record_digest("a", "3"), 1));
        records.remove("a");
        assert_eq!(records, Records::default());
    }

    #[test]
    fn a_prefix_finds_its_records_alone() {
        let mut records = Records::default();
        for key in ["e/a/1", "e/ab/1", "e/a/2", "f"] {
            records.put(key, "x");
        }
        let found: Vec<&str> = records.below("e/a/").map(|(key, _)| &**key).collect();
        assert_eq!(found, ["e/a/1", "e/a/2"]);
    }

    #[test]
    fn a_record_is_hashed_as_documented() {
        // docs/protocol.md has this one as its vector.
        let text = r#"{"node":"edge-1"}"#;
        assert_eq!(
            record_digest("endpoint/shop/till-x7k2p/10.244.3.7", text),
            0xbf47_3103_ee99_50c0
        );
        assert_ne!(record_digest("a", "b"), record_digest("ab", ""));
    }
}
