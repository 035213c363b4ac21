//! The table in the kernel: edited as Services change, compared with what is wanted, made good.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use toono_net::{
    conntrack::{Conntrack, ConntrackError},
    nft::{
        Chain, ChainName, Edit, Family, FilledBy, NameError, NftError, Nftables, Set, SetEdit,
        Table, Version,
    },
};
use toono_topology::{Changes, Protocol, Topology};

use super::layout::{Layout, is_choice};

/// What failed about Services.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServicesError {
    /// The table.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Flows that lead to where nobody is.
    #[error(transparent)]
    Flows(#[from] ConntrackError),
    /// A name in the table.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The table, and what is known to be in it.
#[derive(Debug)]
pub(super) struct Kernel {
    nft: Nftables,
    layout: Layout,
    /// The chains that choose and are there.
    choices: BTreeSet<ChainName>,
}

/// How a table that was looked at was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// As it should be.
    Right,
    /// Some elements or chains were not, and are now.
    Mended,
    /// It was not there, or was another one, and was made anew.
    Remade,
}

impl Kernel {
    pub(super) fn open(layout: Layout) -> Result<Self, ServicesError> {
        Ok(Self { nft: Nftables::current()?, layout, choices: BTreeSet::new() })
    }

    /// Whether there is a table at all.
    pub(super) fn is_there(&mut self) -> Result<bool, ServicesError> {
        let name = Layout::table()?;
        Ok(self.nft.tables()?.contains(&(self.layout.family(), name)))
    }

    /// The generation that the last change made.
    pub(super) fn generation(&self) -> Option<u32> {
        self.nft.generation()
    }

    /// Makes these changes.
    pub(super) fn change(&mut self, changes: &Changes) -> Result<(), ServicesError> {
        let edit = self.layout.edit(changes, &self.choices)?;
        self.nft.edit(&edit)?;
        self.choices.extend(edit.chains.into_iter().map(|chain| chain.name));
        Ok(())
    }

    /// Whether rules and sets are there as they should be, whatever is in the sets.
    pub(super) fn is_framed(&mut self) -> Result<bool, ServicesError> {
        let frame = self.layout.frame()?;
        let found = self.nft.read_frame(frame.family, &frame.name)?;
        let Some(found) = found.filter(|found| same_sets(&frame, found)) else { return Ok(false) };
        let there: BTreeSet<&ChainName> = found.chains.iter().map(|chain| &chain.name).collect();
        let choices = self.choices.iter().all(|name| there.contains(name));
        let full = found.chains.iter().filter(|chain| is_choice(&chain.name));
        let full = full.into_iter().all(|chain| !chain.rules.is_empty());
        Ok(choices && full && same_chains(&frame, &found))
    }

    /// Compares everything with what is wanted, and makes it so.
    pub(super) fn compare(&mut self, everything: &Changes) -> Result<Found, ServicesError> {
        let wanted = self.layout.whole(everything)?;
        let found = self.nft.read(wanted.family, &wanted.name)?.map(|found| found.table);
        let mut found_as = Found::Right;
        match found.filter(|found| same_sets(&wanted, found) && same_chains(&wanted, found)) {
            Some(found) => {
                let edit = difference(&wanted, &found);
                if !edit.chains.is_empty() || !edit.sets.is_empty() {
                    self.nft.edit(&edit)?;
                    found_as = Found::Mended;
                }
                let names = found.chains.into_iter().chain(edit.chains).map(|chain| chain.name);
                self.choices = names.filter(is_choice).collect();
            }
            None => {
                self.nft.apply(&wanted)?;
                let names = wanted.chains.iter().map(|chain| chain.name.clone());
                self.choices = names.filter(is_choice).collect();
                found_as = Found::Remade;
            }
        }
        Ok(found_as)
    }
}

/// The same sets, whatever is in them.
fn same_sets(wanted: &Table, found: &Table) -> bool {
    let shape = |set: &Set| Set { elements: BTreeMap::new(), ..set.clone() };
    let by_name = |table: &Table| -> BTreeMap<_, _> {
        table.sets.iter().map(|set| (set.name.clone(), shape(set))).collect()
    };
    by_name(wanted) == by_name(found)
}

/// The same chains, but for those that choose: they may be too few, and too many, but none another one.
fn same_chains(wanted: &Table, found: &Table) -> bool {
    let by_name = |table: &'_ Table| -> BTreeMap<ChainName, Chain> {
        table.chains.iter().map(|chain| (chain.name.clone(), chain.clone())).collect()
    };
    let (mut wanted, mut found) = (by_name(wanted), by_name(found));
    let shared = |name: &ChainName, other: &BTreeMap<ChainName, Chain>| {
        !is_choice(name) || other.contains_key(name)
    };
    found.retain(|name, _| shared(name, &wanted));
    wanted.retain(|name, _| shared(name, &found));
    wanted == found
}

/// What leads from what was found to what is wanted.
fn difference(wanted: &Table, found: &Table) -> Edit {
    let there: BTreeSet<&ChainName> = found.chains.iter().map(|chain| &chain.name).collect();
    let missing = wanted.chains.iter().filter(|chain| !there.contains(&chain.name));
    let sets = wanted.sets.iter().filter(|set| !matches!(set.filled_by, FilledBy::Packets { .. }));
    let sets = sets.filter_map(|set| {
        let old = &found.sets.iter().find(|old| old.name == set.name)?.elements;
        let gone = old.iter().filter(|(key, value)| set.elements.get(key) != Some(value));
        let new = set.elements.iter().filter(|(key, value)| old.get(key) != Some(value));
        let removed: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
        let added: Vec<_> = new.map(|(key, value)| (key.clone(), value.clone())).collect();
        let (name, key, data) = (set.name.clone(), set.key.clone(), set.data.clone());
        let differs = !removed.is_empty() || !added.is_empty();
        differs.then_some(SetEdit { name, key, data, removed, added })
    });
    Edit {
        family: wanted.family,
        table: wanted.name.clone(),
        chains: missing.cloned().collect(),
        sets: sets.collect(),
    }
}

/// Forgets flows of datagrams that lead to where they would not be led now: nothing else would end them while
/// their client goes on sending. How many there were.
pub(super) fn forget_stale(topology: &Topology) -> Result<usize, ServicesError> {
    let mut flows = Conntrack::current()?;
    let protocol = Protocol::Udp;
    let is_stale = |original: SocketAddr, answers| topology.is_stale(protocol, original, answers);
    let mut count = 0;
    for flow in flows.flows(protocol.number())? {
        if is_stale(flow.destination, flow.answers) && flows.forget(&flow)? {
            count += 1;
        }
    }
    Ok(count)
}

/// Removes all that Services have in the kernel.
pub(crate) fn remove() -> Result<(), ServicesError> {
    let mut nft = Nftables::current()?;
    for family in [Family::Ip, Family::Ip6] {
        nft.delete(family, &Layout::table()?)?;
    }
    Ok(())
}

impl Layout {
    /// For IPv4, which pods have today.
    pub(super) fn v4(bridge: toono_net::LinkName, network: toono_net::Cidr) -> Self {
        Self { version: Version::V4, bridge, network }
    }
}
