//! Sets of nodes: those whose pods have one list of references.

use std::{collections::BTreeMap, ops::Bound};

use super::BundleIndex;

/// Nodes in a word.
const WORD: u32 = u64::BITS;

/// Nodes by the words that they have a bit in: what runs on all nodes costs a bit each.
#[derive(Debug, Default)]
pub(super) struct NodeSet(BTreeMap<u32, u64>);

impl NodeSet {
    pub(super) fn insert(&mut self, node: BundleIndex) {
        *self.0.entry(node.0 / WORD).or_default() |= 1 << (node.0 % WORD);
    }

    pub(super) fn remove(&mut self, node: BundleIndex) {
        if let Some(word) = self.0.get_mut(&(node.0 / WORD)) {
            *word &= !(1 << (node.0 % WORD));
            if *word == 0 {
                self.0.remove(&(node.0 / WORD));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first nodes after this one, in their order.
    pub(super) fn after(&self, node: Option<BundleIndex>, most: usize) -> Vec<BundleIndex> {
        let first = node.map_or(0, |node| node.0 / WORD);
        let words = self.0.range((Bound::Included(first), Bound::Unbounded));
        let nodes = words.flat_map(|(word, bits)| {
            let set = (0..WORD).filter(move |bit| *bits >> bit & 1 == 1);
            set.map(move |bit| BundleIndex(word * WORD + bit))
        });
        nodes.filter(|it| node.is_none_or(|node| it.0 > node.0)).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_as_a_plain_set(changes in proptest::collection::vec((0u32..300, any::<bool>()), 0..200), most in 1usize..20) {
            let (mut set, mut plain) = (NodeSet::default(), BTreeSet::new());
            for (node, insert) in changes {
                if insert {
                    set.insert(BundleIndex(node));
                    plain.insert(node);
                } else {
                    set.remove(BundleIndex(node));
                    plain.remove(&node);
                }
            }
            prop_assert_eq!(set.is_empty(), plain.is_empty());
            let mut told = Vec::new();
            loop {
                let next = set.after(told.last().copied(), most);
                let done = next.len() < most;
                told.extend(next);
                if done {
                    break;
                }
            }
            prop_assert_eq!(told, plain.into_iter().map(BundleIndex).collect::<Vec<_>>());
        }
    }
}
