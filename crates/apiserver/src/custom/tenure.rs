//! How long a kind is served as it is, for watches, which end with it.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use toono_api::Resource;

use crate::server::{ApiServer, Inner};

/// The time in which a kind is served as it is.
pub(crate) struct Tenure {
    resource: Arc<Resource>,
    server: Weak<Inner>,
    changes: watch::Receiver<()>,
}

impl Tenure {
    /// Of a kind that is served now.
    pub(crate) fn of(server: &ApiServer, resource: &Arc<Resource>) -> Self {
        Self {
            resource: Arc::clone(resource),
            server: Arc::downgrade(&server.inner),
            changes: server.inner.registries.changes(),
        }
    }

    /// Returns when the kind is no longer served as it was. Built-in kinds stay.
    pub(crate) async fn ended(&mut self) {
        if self.resource.behaviour.built_in().is_some() {
            return std::future::pending().await;
        }
        loop {
            let Some(inner) = self.server.upgrade() else { return };
            if !inner.registries.now().serves(&self.resource) {
                return;
            }
            drop(inner);
            if self.changes.changed().await.is_err() {
                return;
            }
        }
    }
}
