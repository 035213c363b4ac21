//! Tells nodes that their pool's part has moved: waves of pokes, one a second at most, evenly in time.
//!
//! Of a pool with hubs only those are poked; the others hear of it from them. When other nodes lead than before, all
//! are, once, since they follow the old ones. A fetch costs a node that
//! has no connection a TLS handshake, so a wave over many nodes takes its time.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use toono_session::NodeIndex;

use super::{hubs_of, index::Moved};
use crate::fleet::{Inner, State};

/// From the beginning of a wave to that of the next: no node is poked twice in it.
const WAVE: Duration = Duration::from_secs(1);
/// Pokes of a step, and the time between steps: 2,000 a second, whose handshakes take a core.
const POKES: usize = 100;
/// See [`POKES`].
const STEP: Duration = Duration::from_millis(50);
/// Members looked at before other work is let in: the fleet's lock is held meanwhile.
const LOOKS: usize = 4_096;

/// Whom a wave of pokes concerns.
struct Wave {
    moved: Moved,
    /// Pools of which all members are poked.
    has_other_leaders: HashSet<Arc<str>>,
}

/// Until its task is dropped.
pub(crate) async fn cue(inner: Arc<Inner>) {
    loop {
        inner.parts.moved.notified().await;
        let moved = std::mem::take(&mut inner.parts.kept().to_cue);
        let next = Instant::now() + WAVE;
        if !moved.is_nothing() {
            let news = inner.state().hubs.take_news(|pool| moved.concerns(pool));
            let wave = Wave { moved, has_other_leaders: news.into_iter().collect() };
            hubs(&inner, &wave).await;
            members(&inner, &wave).await;
        }
        sleep_until(next).await;
    }
}

/// Pokes the hubs of the pools concerned.
async fn hubs(inner: &Inner, wave: &Wave) {
    let due: Vec<NodeIndex> = {
        let state = inner.state();
        let is_concerned =
            |pool: &&Arc<str>| wave.moved.concerns(pool) && !wave.has_other_leaders.contains(*pool);
        let pools = state.hubs.pools().filter(is_concerned);
        pools.flat_map(|pool| hubs_of(inner, &state, pool)).map(|(index, _)| index).collect()
    };
    for some in due.chunks(POKES) {
        poke(&mut inner.state(), some);
        inner.poked.notify_one();
        sleep(STEP).await;
    }
}

/// Pokes the members of the pools concerned that have no hub, or others than before.
async fn members(inner: &Inner, wave: &Wave) {
    let mut from = NodeIndex(0);
    loop {
        let (poked, next) = some_members(inner, &mut inner.state(), wave, from);
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
    wave: &Wave,
    from: NodeIndex,
) -> (usize, Option<NodeIndex>) {
    let (mut due, mut next) = (Vec::new(), None);
    for (looks, (index, member)) in state.table.members_from(from).enumerate() {
        if looks >= LOOKS || due.len() >= POKES {
            next = Some(index);
            break;
        }
        let pool = &member.pool;
        let hears_of_it = || {
            !state.hubs.is_empty()
                && !wave.has_other_leaders.contains(pool)
                && !hubs_of(inner, state, pool).is_empty()
        };
        if wave.moved.concerns(pool) && state.table.fresh(index).is_some() && !hears_of_it() {
            due.push(index);
        }
    }
    poke(state, &due);
    (due.len(), next)
}

fn poke(state: &mut State, due: &[NodeIndex]) {
    due.iter().for_each(|index| state.pokes.pool_moved(*index));
}
