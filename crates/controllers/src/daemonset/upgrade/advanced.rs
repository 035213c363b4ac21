//! `AdvancedRollingUpdate`: as a rolling update, but without the nodes that are not ready. They take none of the
//! room, and are replaced when they are back.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Daemons, Work, is_ready};
use crate::{
    daemonset::update::{self, Room},
    deployment::resolve,
    error::SyncError,
    key::Key,
};

pub(super) async fn step(
    work: &Work<'_>,
    daemons: &Daemons,
    max_unavailable: &IntOrString,
) -> Result<(), SyncError> {
    let mut nodes = daemons.wanted();
    let wanted = i32::try_from(nodes.len()).unwrap_or(i32::MAX);
    // Of three nodes ten per cent are one.
    let room = Room { surge: 0, unavailable: resolve(max_unavailable, wanted, true).max(1) };
    nodes.retain(|(name, _)| {
        work.context.nodes.get(&Key::new("", name)).is_some_and(|node| is_ready(&node))
    });
    update::replace(work, nodes, room).await
}
