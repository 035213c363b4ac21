//! The fleet at a glance, for administrators.

use toono_session::{Address, Fresh, NodeIndex, Standing};
use toono_wire::report::{NodeOverview, Overview};

use crate::fleet::{Inner, State};

/// `GET /fleet/v1/overview`.
pub(crate) fn overview(inner: &Inner) -> Overview {
    let now = inner.now();
    let state = inner.state();
    let mut nodes: Vec<NodeOverview> = state
        .table
        .members()
        .map(|(index, member)| {
            let fresh = state.table.fresh(index);
            let heard = fresh.map(|fresh| fresh.at).max(state.table.heard_elsewhere_at(index));
            let elsewhere = state.table.speaks_to(index);
            let elsewhere = elsewhere.and_then(|number| state.table.servers.name(number));
            NodeOverview {
                name: member.name.to_string(),
                pool: member.pool.to_string(),
                ready: member.ready.as_str().to_owned(),
                heartbeat_age_ms: heard.map(|at| {
                    u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX)
                }),
                session: match (elsewhere, fresh.map(|fresh| fresh.address)) {
                    (Some(_), _) => "elsewhere",
                    (None, Some(Address::Udp(_))) => "udp",
                    (None, Some(Address::Stream(_))) => "websocket",
                    (None, None) => "none",
                }
                .to_owned(),
                address: match elsewhere {
                    Some(server) => Some(format!("server {server}")),
                    None => fresh.map(|fresh| fresh.address.to_string()),
                },
                pods: u32::try_from(state.bundles.count(member.bundle)).unwrap_or(u32::MAX),
                bundle_observed: fresh.map_or(0, |fresh| fresh.observed_revision),
                bundle_desired: fresh.map_or(0, |fresh| desired(&state, index, fresh)),
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

fn desired(state: &State, index: NodeIndex, fresh: &Fresh) -> u64 {
    match state.standing(index, fresh) {
        None | Some(Standing::Right) => fresh.observed_revision,
        Some(Standing::Behind(newest)) => newest,
        Some(Standing::Differs) => state.bundles.newest(),
    }
}
