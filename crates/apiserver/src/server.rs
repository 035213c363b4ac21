//! The server as a value: what it holds, how it is made, and what others get from it.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use toono_api::{
    ApiError, BuiltIn, Resource,
    allocation::{PortRange, ServiceRange},
};
use toono_http::Handler;
use toono_mvcc::{Entry, Key, Rev};
use toono_pki::TokenKey;
use toono_store::Store;

use crate::{
    access::{self, Gate},
    admission::webhooks::Webhooks,
    audit::{Audit, AuditConfig},
    custom,
    fairness::Fairness,
    limits,
    liveness::{self, Liveness, Lives},
    metrics::Metrics,
    registry::{Registries, Registry},
    remote, router,
    tokens::Issuer,
};

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// `gitVersion` of `/version`.
    pub git_version: String,
    /// Most watches at once.
    pub watches_max: usize,
    /// Where requests are recorded, if they are.
    pub audit: Option<AuditConfig>,
    /// The key of service accounts' tokens; without one, tokens are good for as long as the server runs.
    pub token_key: Option<Arc<TokenKey>>,
    /// Addresses of Services.
    pub service_range: ServiceRange,
    /// Ports of Services on nodes.
    pub node_ports: PortRange,
    /// Where pods reach this server, if they can.
    pub advertise: Option<SocketAddr>,
    /// Whether other servers have the same store: they are to see in time which nodes this one hears.
    pub shared_store: bool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            git_version: "v1.35.0+toono".to_owned(),
            watches_max: limits::WATCHES_MAX,
            audit: None,
            token_key: None,
            service_range: ServiceRange::default(),
            node_ports: PortRange::default(),
            advertise: None,
            shared_store: false,
        }
    }
}

/// Why the server could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The audit log could not be opened.
    #[error("cannot open the audit log {path:?}")]
    Audit {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no key for tokens.
    #[error("cannot make a key for the tokens of service accounts")]
    Key(#[from] toono_pki::PkiError),
    /// The default roles could not be written, or roles not be read.
    #[error("cannot prepare access control")]
    Access(#[source] ApiError),
    /// A priority class that every cluster has could not be written.
    #[error("cannot create priority class {name:?}")]
    PriorityClass {
        /// Which one.
        name: &'static str,
        /// Why.
        source: toono_store::CommitError,
    },
    /// What every cluster has could not be written.
    #[error("cannot create {name}")]
    Bootstrap {
        /// Which one.
        name: String,
        /// Why.
        source: ApiError,
    },
}

/// The API server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) registries: Registries,
    pub(crate) removals: custom::Removals,
    pub(crate) config: ApiConfig,
    pub(crate) remote: remote::Context,
    pub(crate) fleet: OnceLock<Handler>,
    pub(crate) watches: Arc<Semaphore>,
    /// Whether the server is about to end.
    pub(crate) ends: watch::Sender<bool>,
    pub(crate) metrics: Metrics,
    pub(crate) fairness: Fairness,
    pub(crate) audit: Option<Audit>,
    pub(crate) gate: Gate,
    pub(crate) webhooks: Webhooks,
    pub(crate) issuer: Issuer,
    pub(crate) lives: Lives,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// A server over a store. Creates the namespaces that every cluster has. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a namespace cannot be written or the audit log not be opened.
    pub async fn start(
        store: Store,
        config: ApiConfig,
        link: Arc<dyn remote::NodeLink>,
    ) -> Result<Self, StartError> {
        let pods = store.clone();
        let lookup: remote::PodLookup = Arc::new(move |namespace, name| {
            let found = pods.get(&Key::new("", "pods", namespace, name), None).ok().flatten();
            found.map(|entry| entry.value)
        });
        let audit = match config.audit.clone() {
            None => None,
            Some(audit) => {
                let path = audit.path.clone();
                let opened = Audit::open(audit);
                Some(opened.map_err(|source| StartError::Audit { path, source })?)
            }
        };
        let key = match config.token_key.clone() {
            Some(key) => key,
            None => Arc::new(TokenKey::generate()?),
        };
        let watches = Arc::new(Semaphore::new(config.watches_max));
        let server = Self {
            inner: Arc::new(Inner {
                webhooks: Webhooks::new(&store),
                store,
                registries: Registries::new(),
                lives: Lives::new(config.shared_store),
                removals: custom::Removals::default(),
                config,
                remote: remote::Context { pods: lookup, link },
                fleet: OnceLock::new(),
                watches,
                ends: watch::Sender::new(false),
                metrics: Metrics::new(),
                fairness: Fairness::new(),
                audit,
                gate: Gate::default(),
                issuer: Issuer::new(key),
            }),
        };
        server.create_what_every_cluster_has().await?;
        server.create_priority_classes().await?;
        access::start(&server).await.map_err(StartError::Access)?;
        liveness::follow(&server);
        server.serve_custom_kinds().await;
        Ok(server)
    }

    /// Sets who answers requests below `/fleet/`. Only the first call counts.
    pub fn set_fleet(&self, handler: Handler) {
        if self.inner.fleet.set(handler).is_err() {
            tracing::error!("the fleet's handler was set twice; the first one stays");
        }
    }

    /// Sets who knows when nodes were last heard. Only the first call counts.
    pub fn set_liveness(&self, liveness: Arc<dyn Liveness>) {
        if !self.inner.lives.set(liveness) {
            tracing::error!("who knows of nodes' lives was set twice; the first one stays");
        }
    }

    /// Says that the server is about to end: it is no longer ready, and its watches end, so that their
    /// clients go on elsewhere. Everything else is answered as before.
    pub fn drain(&self) {
        self.inner.ends.send_replace(true);
    }

    /// The server as a handler of requests.
    #[must_use]
    pub fn handler(&self) -> Handler {
        let server = self.clone();
        Arc::new(move |request| {
            let server = server.clone();
            Box::pin(async move { router::answer(&server, request).await })
        })
    }

    /// The store that the server serves.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn now() -> Timestamp {
        Timestamp::now()
    }

    /// The kinds that are served now.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.inner.registries.now()
    }

    /// A built-in kind by its row.
    pub(crate) fn built_in(&self, row: &'static BuiltIn) -> Arc<Resource> {
        self.inner.registries.built_in(row)
    }

    pub(crate) fn revision(&self) -> Rev {
        self.inner.store.revision()
    }

    /// The object as it is now, a node's Lease as it was last renewed.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn existing(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Entry, ApiError> {
        let key = key(resource, namespace, name);
        let mut found = self.current(&key)?;
        if liveness::are_node_leases(resource, namespace) {
            found = liveness::lease(self, &key, found)?;
        }
        found.ok_or_else(|| ApiError::NotFound {
            resource: resource.group_resource(),
            name: name.to_owned(),
        })
    }

    pub(crate) fn current(&self, key: &Key) -> Result<Option<Entry>, ApiError> {
        self.inner.store.get(key, None).map_err(expired)
    }
}

/// Where an object is kept. `namespace` is empty for cluster scope.
pub(crate) fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
    Key::new(&resource.stored_group, &resource.stored_plural, namespace, name)
}

/// A read of what is no longer kept.
pub(crate) fn expired(compacted: toono_mvcc::Compacted) -> ApiError {
    ApiError::too_old(compacted.asked.0, compacted.oldest.0)
}
