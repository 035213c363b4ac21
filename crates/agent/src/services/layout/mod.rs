//! How Services lie in nftables: which sets and chains there are, and what a front, a group or an address is
//! in them. Pure.
//!
//! However many Services there are, there are as many rules as groups have different sizes. A front is an
//! element of two maps: one leads to the chain for groups of its size (and affinity), the other to its group's
//! number. The chain's only rule looks the number up, draws a slot below its size, and finds the endpoint in a
//! third map by number and slot. An endpoint that moves is one element that is exchanged.

mod chains;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use toono_net::{
    Cidr, LinkName,
    nft::{
        Chain, ChainName, Datum, Edit, Family, FilledBy, Key, NameError, Set, SetData, SetEdit,
        SetName, Table, TableName, Value, Verdict, Version,
    },
};
use toono_topology::{Changes, Fate, Front, Place, Treatment};

/// The table.
const TABLE: &str = "toono_services";
/// Where packets of nobody's ports go.
const REFUSE: &str = "refuse";
/// What chains that choose an endpoint are called before what they choose among.
const CHOOSE: &str = "choose";
/// As many clients are remembered with their endpoints; when there are more, the newest are not.
const CLIENTS: u32 = 65_536;

/// The sets, by what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// Front → chain, and front → group; for all packets, or for those from outside alone.
    Chains(Way),
    Groups(Way),
    /// Front → refusal or drop.
    Refused(Kind),
    /// Group and slot → endpoint.
    Endpoints,
    /// Endpoints and groups that clients may come back to.
    Members,
    /// Group and client → endpoint and group.
    Clients,
    /// Addresses of Services.
    ClusterIps,
    /// Addresses of endpoints of this node, twice each.
    Own,
}

/// How a front is looked up: whose packets, and by which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    kind: Kind,
    outside: bool,
}

/// A front's key: address, protocol and port, or protocol and port of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Address,
    NodePort,
}

/// An element and where it belongs.
type Element = (Name, Key, Value);

/// The layout for one family of addresses on one node.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) version: Version,
    /// The pods' bridge.
    pub(super) bridge: LinkName,
    /// The node's pod network.
    pub(super) network: Cidr,
}

impl Name {
    fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Refused(Kind::Address),
            Self::Refused(Kind::NodePort),
            Self::Endpoints,
            Self::Members,
            Self::Clients,
            Self::ClusterIps,
            Self::Own,
        ];
        all.extend(Way::all().into_iter().flat_map(|way| [Self::Chains(way), Self::Groups(way)]));
        all
    }

    fn text(self) -> String {
        match self {
            Self::Chains(way) => format!("{}_chains", way.text()),
            Self::Groups(way) => format!("{}_groups", way.text()),
            Self::Refused(kind) => format!("refused_{}", kind.text()),
            Self::Endpoints => "endpoints".to_owned(),
            Self::Members => "members".to_owned(),
            Self::Clients => "clients".to_owned(),
            Self::ClusterIps => "cluster_ips".to_owned(),
            Self::Own => "own".to_owned(),
        }
    }

    fn set(self) -> Result<SetName, NameError> {
        SetName::new(self.text())
    }
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Address => "addresses",
            Self::NodePort => "node_ports",
        }
    }
}

impl Way {
    fn all() -> [Self; 4] {
        [
            (Kind::Address, true),
            (Kind::NodePort, true),
            (Kind::Address, false),
            (Kind::NodePort, false),
        ]
        .map(|(kind, outside)| Self { kind, outside })
    }

    fn text(self) -> String {
        let side = if self.outside { "outside_" } else { "" };
        format!("{side}{}", self.kind.text())
    }
}

impl Layout {
    pub(super) fn family(&self) -> Family {
        match self.version {
            Version::V4 => Family::Ip,
            Version::V6 => Family::Ip6,
        }
    }

    pub(super) fn table() -> Result<TableName, NameError> {
        TableName::new(TABLE)
    }

    /// Registers that an address has.
    fn width(&self) -> u8 {
        match self.version {
            Version::V4 => 1,
            Version::V6 => 4,
        }
    }

    fn address(&self) -> Datum {
        match self.version {
            Version::V4 => Datum::Ipv4,
            Version::V6 => Datum::Ipv6,
        }
    }

    /// What a set is made of.
    fn shape(&self, name: Name) -> (Vec<Datum>, SetData) {
        use Datum::{Number, Port};
        let address = self.address();
        let front = |kind| match kind {
            Kind::Address => vec![address, Datum::Protocol, Port],
            Kind::NodePort => vec![Datum::Protocol, Port],
        };
        match name {
            Name::Chains(way) => (front(way.kind), SetData::Verdict),
            Name::Groups(way) => (front(way.kind), SetData::Values(vec![Number])),
            Name::Refused(kind) => (front(kind), SetData::Verdict),
            Name::Endpoints => (vec![Number, Number], SetData::Values(vec![address, Port])),
            Name::Members => (vec![address, Port, Number], SetData::None),
            Name::Clients => (vec![Number, address], SetData::Values(vec![address, Port, Number])),
            Name::ClusterIps => (vec![address], SetData::None),
            Name::Own => (vec![address, address], SetData::None),
        }
    }

    /// The table with nothing in its sets.
    pub(super) fn frame(&self) -> Result<Table, NameError> {
        let sets = Name::all().into_iter().map(|name| {
            let (key, data) = self.shape(name);
            let filled_by = match name {
                Name::Clients => FilledBy::Packets { most: CLIENTS },
                _ => FilledBy::Keys,
            };
            Ok(Set { name: name.set()?, key, data, filled_by, elements: BTreeMap::new() })
        });
        Ok(Table {
            family: self.family(),
            name: Self::table()?,
            sets: sets.collect::<Result<_, _>>()?,
            chains: self.chains()?,
        })
    }

    /// All that is wanted, given everything as changes from nothing.
    pub(super) fn whole(&self, everything: &Changes) -> Result<Table, NameError> {
        let mut table = self.frame()?;
        let edit = self.edit(everything, &BTreeSet::new())?;
        table.chains.extend(edit.chains);
        for set in &mut table.sets {
            let filled = edit.sets.iter().filter(|edit| edit.name == set.name);
            set.elements = filled.flat_map(|edit| edit.added.iter().cloned()).collect();
        }
        Ok(table)
    }

    /// What makes these changes in a table that has these chains.
    pub(super) fn edit(
        &self,
        changes: &Changes,
        known: &BTreeSet<ChainName>,
    ) -> Result<Edit, NameError> {
        let mut removed: BTreeMap<(Name, Key), Value> = BTreeMap::new();
        let mut added: BTreeMap<(Name, Key), Value> = BTreeMap::new();
        let mut chains: BTreeMap<ChainName, Chain> = BTreeMap::new();
        for change in &changes.fronts {
            for (elements, into) in [(change.before, &mut removed), (change.after, &mut added)] {
                let elements =
                    elements.map(|treatment| treat(change.key, treatment)).transpose()?;
                into.extend(
                    elements.into_iter().flatten().map(|(name, key, value)| ((name, key), value)),
                );
            }
            if let Some(treatment) = change.after {
                self.add_chains(change.key, treatment, known, &mut chains)?;
            }
        }
        let data = |ip: IpAddr, port| Value::Data(Key::new().address(ip).port(port));
        for change in &changes.slots {
            let (group, slot) = change.key;
            let key = (Name::Endpoints, Key::new().number(group.0).number(slot));
            let endpoint = |at: std::net::SocketAddr| data(at.ip(), at.port());
            removed.extend(change.before.map(|at| (key.clone(), endpoint(at))));
            added.extend(change.after.map(|at| (key, endpoint(at))));
        }
        let members = changes.members.iter().map(|change| {
            let (group, at) = change.key;
            let key = Key::new().address(at.ip()).port(at.port()).number(group.0);
            (Name::Members, key, change.after)
        });
        let cluster = changes.cluster_ips.iter();
        let cluster = cluster.map(|it| (Name::ClusterIps, Key::new().address(it.key), it.after));
        let own = changes.own.iter();
        let own = own.map(|it| (Name::Own, Key::new().address(it.key).address(it.key), it.after));
        for (name, key, after) in members.chain(cluster).chain(own) {
            let into = if after.is_some() { &mut added } else { &mut removed };
            into.insert((name, key), Value::None);
        }
        let sets = self.set_edits(removed, added)?;
        let chains = chains.into_values().collect();
        Ok(Edit { family: self.family(), table: Self::table()?, chains, sets })
    }

    /// Leaves out what is the same before and after.
    fn set_edits(
        &self,
        mut removed: BTreeMap<(Name, Key), Value>,
        added: BTreeMap<(Name, Key), Value>,
    ) -> Result<Vec<SetEdit>, NameError> {
        let mut edits: BTreeMap<Name, SetEdit> = BTreeMap::new();
        let mut edit = |name: Name, change: &mut dyn FnMut(&mut SetEdit)| {
            let edit = match edits.entry(name) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let (key, data) = self.shape(name);
                    let (removed, added) = (Vec::new(), Vec::new());
                    place.insert(SetEdit { name: name.set()?, key, data, removed, added })
                }
            };
            change(edit);
            Ok::<(), NameError>(())
        };
        for (place, value) in added {
            if removed.get(&place) == Some(&value) {
                removed.remove(&place);
                continue;
            }
            let (name, key) = place;
            edit(name, &mut |edit| edit.added.push((key.clone(), value.clone())))?;
        }
        for (name, key) in removed.into_keys() {
            edit(name, &mut |edit| edit.removed.push(key.clone()))?;
        }
        Ok(edits.into_values().collect())
    }

    fn add_chains(
        &self,
        front: Front,
        treatment: Treatment,
        known: &BTreeSet<ChainName>,
        chains: &mut BTreeMap<ChainName, Chain>,
    ) -> Result<(), NameError> {
        let kind = kind_of(front);
        for (outside, fate) in [(false, Some(treatment.fate)), (true, treatment.outside)] {
            let Some(Fate::Group { size, affinity_seconds, .. }) = fate else { continue };
            let way = Way { kind, outside };
            let name = chain_name(way, size, affinity_seconds)?;
            if !known.contains(&name) && !chains.contains_key(&name) {
                let rules = self.choice(way, size, affinity_seconds)?;
                chains.insert(name.clone(), Chain { name, base: None, rules });
            }
        }
        Ok(())
    }
}

fn kind_of(front: Front) -> Kind {
    match front.place {
        Place::Address(_) => Kind::Address,
        Place::Node => Kind::NodePort,
    }
}

fn chain_name(way: Way, size: u32, affinity: u32) -> Result<ChainName, NameError> {
    let stay = if affinity == 0 { String::new() } else { format!("_stay_{affinity}") };
    ChainName::new(format!("{CHOOSE}_{}_{size}{stay}", way.text()))
}

/// Whether a chain is one of those that choose; one too many does no harm.
pub(super) fn is_choice(name: &ChainName) -> bool {
    name.as_str().starts_with(CHOOSE)
}

/// A front's elements.
fn treat(front: Front, treatment: Treatment) -> Result<Vec<Element>, NameError> {
    let kind = kind_of(front);
    let key = match front.place {
        Place::Address(ip) => Key::new().address(ip),
        Place::Node => Key::new(),
    };
    let key = key.protocol(front.protocol.number()).port(front.port);
    let refuse = || ChainName::new(REFUSE).map(Value::goto);
    let mut elements = Vec::new();
    for (outside, fate) in [(true, treatment.outside), (false, Some(treatment.fate))] {
        let way = Way { kind, outside };
        let refusal = match fate {
            None => continue,
            Some(Fate::Group { id, size, affinity_seconds }) => {
                let chain = chain_name(way, size, affinity_seconds)?;
                elements.push((Name::Chains(way), key.clone(), Value::goto(chain)));
                let group = Value::Data(Key::new().number(id.0));
                elements.push((Name::Groups(way), key.clone(), group));
                continue;
            }
            Some(Fate::Refuse) => refuse()?,
            Some(Fate::Drop) => Value::Verdict(Verdict::Drop),
        };
        if outside {
            // It must not go on to where those from inside may go.
            elements.push((Name::Chains(way), key.clone(), Value::Verdict(Verdict::Accept)));
        }
        elements.push((Name::Refused(kind), key.clone(), refusal));
    }
    Ok(elements)
}
