//! Links cut and healed: a site's to the cloud, or the way there of one of its nodes. A cut link swallows packets
//! without a word, as a bad one does: nobody gets an error, the carrier stays, everyone waits.

use std::net::Ipv4Addr;

use toono_net::nft::{
    Base, Chain, ChainKind, ChainName, Family, Field, Hook, Nftables, PRIORITY_RAW, Policy,
    Protocol, Rule, Table, TableName,
};
use toono_net::{Cidr, LinkName, netns};

use crate::site::{LAN, WAN};
use crate::{LabError, LabName, state};

/// The table whose presence at a router is the cut of the site. A node's is named after its address.
const CUT_TABLE: &str = "toono_cut";

/// The length of the prefix of one address.
const HOST_LENGTH: u8 = 32;

/// What vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Everything, both ways.
    All,
    /// UDP, both ways, as at a firewall that knows of the web only.
    Udp,
    /// What goes to the cloud.
    Outbound,
    /// What comes from the cloud.
    Inbound,
}

/// Cuts the link of a site to the cloud, or the way there of one node, in place of an earlier cut of the same.
/// A node's neighbours are always reached.
pub fn cut(lab: &LabName, place: &str, loss: Loss) -> Result<(), LabError> {
    let (place, mut nft) = find(lab, place)?;
    nft.apply(&place.table(loss)?)?;
    Ok(())
}

/// Heals the link of a site, or the way of a node; neither heals the other. No effect when it is whole.
pub fn heal(lab: &LabName, place: &str) -> Result<(), LabError> {
    let (place, mut nft) = find(lab, place)?;
    nft.delete(Family::Inet, &place.table_name()?)?;
    Ok(())
}

/// Whether the link of this router's site is cut.
pub(crate) fn is_cut(nft: &mut Nftables) -> Result<bool, LabError> {
    Ok(nft.read(Family::Inet, &Place::Site.table_name()?)?.is_some())
}

/// Where packets vanish; always at the site's router, since whoever sends would be told of a drop at home.
enum Place {
    Site,
    Node(Ipv4Addr),
}

/// A pool, or a node of one; with its router.
fn find(lab: &LabName, name: &str) -> Result<(Place, Nftables), LabError> {
    let plan = state::load(lab)?.plan()?;
    let node = || {
        plan.pools.iter().find_map(|pool| {
            let node = pool.nodes.iter().find(|node| node.name == name)?;
            Some((Place::Node(node.address), pool))
        })
    };
    let found = plan.pool(name).map(|pool| (Place::Site, pool)).or_else(node);
    let no_place = || LabError::NoPool { lab: lab.to_string(), pool: name.to_owned() };
    let (place, pool) = found.ok_or_else(no_place)?;
    Ok((place, Nftables::in_namespace(&netns::open(&pool.router)?)?))
}

impl Place {
    fn table_name(&self) -> Result<TableName, LabError> {
        let name = match self {
            Self::Site => CUT_TABLE.to_owned(),
            Self::Node(address) => {
                let [.., host] = address.octets();
                format!("{CUT_TABLE}_{host}")
            }
        };
        Ok(TableName::new(name)?)
    }

    fn table(&self, loss: Loss) -> Result<Table, LabError> {
        let chains = match loss {
            Loss::All | Loss::Udp => vec![self.inbound(loss)?, self.outbound(loss)?],
            Loss::Outbound => vec![self.outbound(loss)?],
            Loss::Inbound => vec![self.inbound(loss)?],
        };
        Ok(Table { family: Family::Inet, name: self.table_name()?, sets: Vec::new(), chains })
    }

    /// What comes from the cloud. A node has an address of its own only on the LAN's side of the NAT.
    fn inbound(&self, loss: Loss) -> Result<Chain, LabError> {
        match self {
            Self::Site => {
                let rule = Rule::new("cut").when(Field::InputInterface(LinkName::new(WAN)?));
                chain("prerouting", Hook::Prerouting, rule, loss)
            }
            Self::Node(address) => {
                let rule = Rule::new("cut")
                    .when(Field::OutputInterface(LinkName::new(LAN)?))
                    .when(Field::Destination(Cidr::new(*address, HOST_LENGTH)?));
                chain("postrouting", Hook::Postrouting, rule, loss)
            }
        }
    }

    /// What goes to the cloud.
    fn outbound(&self, loss: Loss) -> Result<Chain, LabError> {
        match self {
            Self::Site => {
                let rule = Rule::new("cut").when(Field::OutputInterface(LinkName::new(WAN)?));
                chain("postrouting", Hook::Postrouting, rule, loss)
            }
            Self::Node(address) => {
                let rule = Rule::new("cut")
                    .when(Field::InputInterface(LinkName::new(LAN)?))
                    .when(Field::Source(Cidr::new(*address, HOST_LENGTH)?));
                chain("prerouting", Hook::Prerouting, rule, loss)
            }
        }
    }
}

/// Where the packets of the rule vanish, or those of them that the loss is of.
fn chain(name: &str, hook: Hook, rule: Rule, loss: Loss) -> Result<Chain, LabError> {
    let rule = match loss {
        Loss::Udp => rule.when(Field::Protocol(Protocol::UDP)),
        _ => rule,
    };
    let base =
        Base { kind: ChainKind::Filter, hook, priority: PRIORITY_RAW, policy: Policy::Accept };
    let rules = vec![rule.counted().drop()];
    Ok(Chain { name: ChainName::new(name)?, base: Some(base), rules })
}
