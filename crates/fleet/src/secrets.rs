//! The epochs of the cluster secret as the fleet uses them: who must move to another key, who has. Where the
//! secrets are kept, and when there is a new one, others decide.

use std::sync::OnceLock;

use futures::future::BoxFuture;
use toono_api::ApiError;
use toono_session::ClusterSecret;
use toono_wire::join::{RotateReply, RotateRequest};

use crate::fleet::{Fleet, Inner};

/// Begins an epoch, for an administrator who asked for it.
pub type Rotate =
    Box<dyn Fn(RotateRequest) -> BoxFuture<'static, Result<RotateReply, String>> + Send + Sync>;

/// Who keeps the secrets, once known.
#[derive(Default)]
pub(crate) struct Keeper(OnceLock<Rotate>);

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
