//! The fleet at a glance, for administrators.

use toono_session::Address;
use toono_wire::report::{NodeOverview, Overview};

use crate::fleet::Inner;

/// `GET /fleet/v1/overview`.
pub(crate) fn overview(inner: &Inner) -> Overview {
    let now = inner.now();
    let state = inner.state();
    let mut nodes: Vec<NodeOverview> = state
        .table
        .members()
        .map(|(index, member)| {
            let fresh = state.table.fresh(index);
            let observed = fresh.map_or(0, |fresh| fresh.observed_revision);
            NodeOverview {
                name: member.name.to_string(),
                pool: member.pool.to_string(),
                ready: member.ready.as_str().to_owned(),
                heartbeat_age_ms: fresh.map(|fresh| {
                    u64::try_from(now.saturating_sub(fresh.at).as_millis()).unwrap_or(u64::MAX)
                }),
                session: match fresh.map(|fresh| fresh.address) {
                    Some(Address::Udp(_)) => "udp",
                    Some(Address::Stream(_)) => "websocket",
                    None => "none",
                }
                .to_owned(),
                address: fresh.map(|fresh| fresh.address.to_string()),
                pods: u32::try_from(state.bundles.count(member.bundle)).unwrap_or(u32::MAX),
                bundle_observed: observed,
                bundle_desired: state.bundles.desired(member.bundle, observed),
                tunnels: inner.tunnels.open(&member.name),
            }
        })
        .collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Overview {
        version: inner.config.version.clone(),
        uptime_s: now.as_secs(),
        revision: state.bundles.newest(),
        nodes,
    }
}
