//! A site's link, cut and healed. A cut link swallows packets in both directions without a word, as a bad one
//! does: nobody gets an error, the carrier stays, everyone waits.

use toono_net::nft::{
    Base, Chain, ChainKind, ChainName, Family, Field, Hook, Nftables, PRIORITY_RAW, Policy, Rule,
    Table, TableName,
};
use toono_net::{LinkName, netns};

use crate::site::WAN;
use crate::{LabError, LabName, state};

/// The table whose presence at a router is the cut.
const CUT_TABLE: &str = "toono_cut";

/// Cuts the site's link to the cloud. No effect when it is.
pub fn cut(lab: &LabName, pool: &str) -> Result<(), LabError> {
    let mut nft = router(lab, pool)?;
    nft.apply(&cut_table()?)?;
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

fn cut_table() -> Result<Table, LabError> {
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
    let inbound = Rule::new("cut").when(Field::InputInterface(wan.clone())).counted().drop();
    let outbound = Rule::new("cut").when(Field::OutputInterface(wan)).counted().drop();
    Ok(Table {
        family: Family::Inet,
        name: TableName::new(CUT_TABLE)?,
        chains: vec![
            chain("prerouting", Hook::Prerouting, inbound)?,
            chain("postrouting", Hook::Postrouting, outbound)?,
        ],
    })
}
