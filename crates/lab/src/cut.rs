//! A site's link, cut and healed. A cut link swallows packets in both directions without a word, as a bad one
//! does: nobody gets an error, the carrier stays, everyone waits.

use toono_net::nft::{
    Base, Chain, ChainKind, ChainName, Family, Field, Hook, Nftables, PRIORITY_RAW, Policy,
    Protocol, Rule, Table, TableName,
};
use toono_net::{LinkName, netns};

use crate::site::WAN;
use crate::{LabError, LabName, state};

/// The table whose presence at a router is the cut.
const CUT_TABLE: &str = "toono_cut";

/// Cuts the site's link to the cloud. No effect when it is.
pub fn cut(lab: &LabName, pool: &str) -> Result<(), LabError> {
    let mut nft = router(lab, pool)?;
    nft.apply(&cut_table(None)?)?;
    Ok(())
}

/// Lets no UDP through the site's link to the cloud, as a firewall does that knows of the web only. In place of a
/// cut, if there is one; [`heal`] ends it.
pub fn block_udp(lab: &LabName, pool: &str) -> Result<(), LabError> {
    let mut nft = router(lab, pool)?;
    nft.apply(&cut_table(Some(Protocol::UDP))?)?;
    Ok(())
}

/// Heals the site's link to the cloud. No effect when it is whole.
pub fn heal(lab: &LabName, pool: &str) -> Result<(), LabError> {
    let mut nft = router(lab, pool)?;
    nft.delete(Family::Inet, &TableName::new(CUT_TABLE)?)?;
    Ok(())
}

/// Whether the table of the cut is at this router.
pub(crate) fn is_cut(nft: &mut Nftables) -> Result<bool, LabError> {
    Ok(nft.read(Family::Inet, &TableName::new(CUT_TABLE)?)?.is_some())
}

fn router(lab: &LabName, pool: &str) -> Result<Nftables, LabError> {
    let plan = state::load(lab)?.plan()?;
    let no_pool = || LabError::NoPool { lab: lab.to_string(), pool: pool.to_owned() };
    let router = &plan.pool(pool).ok_or_else(no_pool)?.router;
    Ok(Nftables::in_namespace(&netns::open(router)?)?)
}

/// What vanishes: all packets, or those of one protocol.
fn cut_table(only: Option<Protocol>) -> Result<Table, LabError> {
    let wan = LinkName::new(WAN)?;
    let chain = |name: &str, hook, rule| {
        let base =
            Base { kind: ChainKind::Filter, hook, priority: PRIORITY_RAW, policy: Policy::Accept };
        Ok::<_, LabError>(Chain {
            name: ChainName::new(name)?,
            base: Some(base),
            rules: vec![rule],
        })
    };
    let rule = |way| {
        let rule = Rule::new("cut").when(way);
        match only {
            Some(protocol) => rule.when(Field::Protocol(protocol)).counted().drop(),
            None => rule.counted().drop(),
        }
    };
    let inbound = rule(Field::InputInterface(wan.clone()));
    let outbound = rule(Field::OutputInterface(wan));
    Ok(Table {
        family: Family::Inet,
        name: TableName::new(CUT_TABLE)?,
        chains: vec![
            chain("prerouting", Hook::Prerouting, inbound)?,
            chain("postrouting", Hook::Postrouting, outbound)?,
        ],
    })
}
