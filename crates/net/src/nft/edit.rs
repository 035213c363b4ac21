//! Changing a table that is there: chains added to it, elements of its sets exchanged, in one transaction. What
//! an edit costs depends on what it changes and not on what there is.

use super::{
    Chain, Family, NEW_CHAIN, NEW_ELEMENT, NEW_RULE, NftError, Nftables, Table, TableName,
    encode_chain, encode_rule, message, model_family,
    set::{self, Datum, Key, SetData, Shape, Value},
};
use crate::nft::SetName;

/// `NFT_MSG_DELSETELEM`.
const DELETE_ELEMENT: u8 = 14;

/// What is to change about a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: TableName,
    /// Chains that it does not have yet.
    pub chains: Vec<Chain>,
    /// Its sets.
    pub sets: Vec<SetEdit>,
}

/// What is to change about a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetEdit {
    /// The set.
    pub name: SetName,
    /// What its keys are made of.
    pub key: Vec<Datum>,
    /// What they lead to.
    pub data: SetData,
    /// Keys that it has and is to lose.
    pub removed: Vec<Key>,
    /// Elements that it does not have, or loses by the same edit, and is to get.
    pub added: Vec<(Key, Value)>,
}

impl SetEdit {
    fn shape(&self) -> Shape<'_> {
        Shape { name: &self.name, key: &self.key, data: &self.data }
    }
}

impl Nftables {
    /// Makes these changes; all or none of them. Fails also when the table is not as the edit supposes.
    pub fn edit(&mut self, edit: &Edit) -> Result<(), NftError> {
        let (family, name) = (model_family(edit.family), edit.table.as_str());
        let frame = Table {
            family: edit.family,
            name: edit.table.clone(),
            sets: Vec::new(),
            chains: Vec::new(),
        };
        let mut transaction = self.socket.transaction();
        for chain in &edit.chains {
            let what = format!("add the chain {}", chain.name);
            transaction.add(what, NEW_CHAIN, message::CREATE, family, encode_chain(&frame, chain));
            for rule in &chain.rules {
                let what = format!("add a rule to the chain {}", chain.name);
                let flags = message::CREATE | message::APPEND;
                transaction.add(what, NEW_RULE, flags, family, encode_rule(&frame, chain, rule));
            }
        }
        for set in &edit.sets {
            let removed = set.removed.iter().map(|key| (key, None));
            for message in set::encode_elements(name, &set.shape(), removed) {
                let what = format!("take elements from the set {}", set.name);
                transaction.add(what, DELETE_ELEMENT, 0, family, message);
            }
        }
        for set in &edit.sets {
            let added = set.added.iter().map(|(key, value)| (key, Some(value)));
            for message in set::encode_elements(name, &set.shape(), added) {
                let what = format!("add elements to the set {}", set.name);
                let flags = message::CREATE | message::EXCLUSIVE;
                transaction.add(what, NEW_ELEMENT, flags, family, message);
            }
        }
        if transaction.is_empty() {
            return Ok(());
        }
        self.socket.commit(&transaction).map_err(|(step, source)| {
            self.refused(format!("{step} in the table {}", edit.table), source)
        })
    }

    /// The number of the rulesets that the last transaction of this handle made: what
    /// [`super::watch::Watch::changed`] tells of it.
    pub fn generation(&self) -> Option<u32> {
        self.socket.generation
    }
}
