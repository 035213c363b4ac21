//! Tells nodes that their pool's part has moved: waves of pokes, one a second at most, evenly in time.
//!
//! Of a pool with a hub only the hub is poked; the others hear of it from the hub. A fetch costs a node that
//! has no connection a TLS handshake, so a wave over many nodes takes its time.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use toono_session::NodeIndex;

use super::{hub_of, index::Moved};
use crate::fleet::{Inner, State};

/// From the beginning of a wave to that of the next: no node is poked twice in it.
const WAVE: Duration = Duration::from_secs(1);
/// Pokes of a step, and the time between steps: 2,000 a second, whose handshakes take a core.
const POKES: usize = 100;
/// See [`POKES`].
const STEP: Duration = Duration::from_millis(50);
/// Members looked at before other work is let in: the fleet's lock is held meanwhile.
const LOOKS: usize = 4_096;

/// Until its task is dropped.
pub(crate) async fn cue(inner: Arc<Inner>) {
    loop {
        inner.parts.moved.notified().await;
        let moved = std::mem::take(&mut inner.parts.kept().to_cue);
        let next = Instant::now() + WAVE;
        if !moved.is_nothing() {
            hubs(&inner, &moved).await;
            members(&inner, &moved).await;
        }
        sleep_until(next).await;
    }
}

/// Pokes the hubs of the pools concerned.
async fn hubs(inner: &Inner, moved: &Moved) {
    let due: Vec<NodeIndex> = {
        let state = inner.state();
        let pools = state.hubs.pools().filter(|pool| moved.concerns(pool));
        pools.filter_map(|pool| hub_of(inner, &state, pool).map(|(index, _)| index)).collect()
    };
    for some in due.chunks(POKES) {
        poke(&mut inner.state(), some);
        inner.poked.notify_one();
        sleep(STEP).await;
    }
}

/// Pokes the members of the pools concerned that have no hub.
async fn members(inner: &Inner, moved: &Moved) {
    let mut from = NodeIndex(0);
    loop {
        let (poked, next) = some_members(inner, &mut inner.state(), moved, from);
        if poked > 0 {
            inner.poked.notify_one();
        }
        let Some(next) = next else { return };
        from = next;
        if poked >= POKES {
            sleep(STEP).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Pokes some of the members from an index on: how many, and with whom to go on.
fn some_members(
    inner: &Inner,
    state: &mut State,
    moved: &Moved,
    from: NodeIndex,
) -> (usize, Option<NodeIndex>) {
    let (mut due, mut next) = (Vec::new(), None);
    for (looks, (index, member)) in state.table.members_from(from).enumerate() {
        if looks >= LOOKS || due.len() >= POKES {
            next = Some(index);
            break;
        }
        let has_hub = !state.hubs.is_empty() && hub_of(inner, state, &member.pool).is_some();
        if moved.concerns(&member.pool) && !has_hub && state.table.fresh(index).is_some() {
            due.push(index);
        }
    }
    poke(state, &due);
    (due.len(), next)
}

fn poke(state: &mut State, due: &[NodeIndex]) {
    due.iter().for_each(|index| state.pokes.pool_moved(*index));
}
