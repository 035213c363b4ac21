//! The epochs of the cluster secret as the fleet uses them: who must move to another key, who has. Where the
//! secrets are kept, and when there is a new one, others decide.

use std::{sync::OnceLock, time::Duration};

use futures::future::BoxFuture;
use toono_api::ApiError;
use toono_session::ClusterSecret;
use toono_wire::join::{RotateReply, RotateRequest};

use crate::fleet::{Fleet, Inner};

/// Nodes told in one second that there is a new key: each asks for it over HTTPS, which costs this server
/// about a millisecond. A million nodes have moved after an hour.
const REKEYS_PER_SECOND: u32 = 250;

/// Begins an epoch, for an administrator who asked for it.
pub type Rotate =
    Box<dyn Fn(RotateRequest) -> BoxFuture<'static, Result<RotateReply, String>> + Send + Sync>;

/// Who keeps the secrets, once known.
#[derive(Default)]
pub(crate) struct Keeper(OnceLock<Rotate>);

/// How many nodes were told in the second of the last one.
#[derive(Debug, Default)]
pub(crate) struct Rekeys {
    second: u64,
    told: u32,
}

impl Rekeys {
    /// Whether a node of an older epoch is told now; it is not forgotten, it is heard again.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if self.second != now.as_secs() {
            *self = Self { second: now.as_secs(), told: 0 };
        }
        let may = self.told < REKEYS_PER_SECOND;
        self.told += u32::from(may);
        may
    }
}

impl Fleet {
    /// From now on these secrets are accepted, the current epoch's first.
    pub fn set_secrets(&self, secrets: Vec<ClusterSecret>) {
        if !secrets.is_empty() {
            self.inner().state().table.sessions.set_secrets(secrets);
        }
    }

    /// Whether every node was heard here under a key of the current epoch. A server that hears only some of
    /// a cluster's nodes never says so.
    #[must_use]
    pub fn all_have_current_keys(&self) -> bool {
        let state = self.inner().state();
        let current = state.table.sessions.current_epoch();
        let has = |index| state.table.fresh(index).map(|fresh| fresh.epoch) == current;
        state.table.loaded && state.table.members().all(|(index, _)| has(index))
    }

    /// Sets who begins an epoch when an administrator asks. Only the first call counts.
    pub fn on_rotate(&self, rotate: Rotate) {
        if self.inner().keeper.0.set(rotate).is_err() {
            tracing::error!("the keeper of the secrets was set twice; the first one stays");
        }
    }
}

/// `POST /fleet/v1/secret/rotate`.
pub(crate) async fn rotate(inner: &Inner, request: RotateRequest) -> Result<RotateReply, ApiError> {
    let rotate = inner.keeper.0.get().ok_or(ApiError::UnknownPath)?;
    rotate(request).await.map_err(ApiError::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_are_told() {
        let mut rekeys = Rekeys::default();
        for second in [0, 1, 7] {
            let now = Duration::from_secs(second);
            let told = (0..2 * REKEYS_PER_SECOND).filter(|_| rekeys.take(now)).count();
            assert_eq!(told, usize::try_from(REKEYS_PER_SECOND).unwrap());
        }
    }
}
