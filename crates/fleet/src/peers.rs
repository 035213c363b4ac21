//! Servers of one cluster tell each other, each second, whom they heard, and have each other poke nodes. One
//! connection a server, with certificates that only servers have.
//!
//! All of it is told to all: at a million nodes and three servers that is some 70 KB a second to each, and in
//! turn every server shows when a node was heard, knows whom to ask to poke it, and takes over a lost server's
//! nodes knowing who of them lives.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use rustls::ClientConfig;
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, timeout},
};
use toono_api::{ApiError, UserInfo};
use toono_http::client::{ClientError, Connection, Endpoint};
use toono_session::NodeIndex;
use toono_wire::{
    join::Server,
    path,
    peer::{GROUP_SERVERS, Indexes, PeerNews},
};

use crate::{Fleet, fleet::Inner, servers::KnownServer};

/// The name by which servers ask each other.
const USER: &str = "system:toono:server";
/// Time between two news.
const EVERY: Duration = Duration::from_secs(1);
/// Connecting and being answered take no longer between servers, or there is no way.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a server could not be told.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Link(#[from] ClientError),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the news cannot be encoded")]
    Encode(#[from] serde_json::Error),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("its answer broke off")]
    Broken(#[from] hyper::Error),
    #[error("it did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
}

impl Fleet {
    /// From now on these are the servers of this cluster, this one among them, which is called `own`. To be said
    /// whenever it changes who lives, and whether this server reaches the store (`connected`).
    pub fn set_servers(&self, own: &str, servers: Vec<KnownServer>, connected: bool) {
        let inner = self.inner();
        let (now, mut state) = (inner.now(), inner.state());
        let changed = state.table.servers.set(own, servers, connected);
        state.table.servers.tick(now);
        if changed.live {
            // Whose nodes these were before has perhaps told nobody whom it heard last.
            state.table.grace_anew(now);
        }
        if changed.list {
            state.table.all_have_old_lists(now);
        }
        drop(state);
        inner.peers.notify_one();
    }
}

impl Fleet {
    /// The list of servers changed not long before this one started, so that nodes may have been told of another.
    /// To be said before the fleet runs.
    pub fn servers_changed_lately(&self) {
        self.inner().state().table.lists_may_be_old = true;
    }
}

/// Tells all living servers, until its task is dropped.
pub(crate) async fn tell_all(inner: Arc<Inner>) {
    let mut links: HashMap<Server, AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut tls = None;
    loop {
        let live = inner.state().table.servers.to_tell();
        links.retain(|server, link| {
            let stays = live.iter().any(|(other, _)| other == server) && !link.is_finished();
            if !stays {
                link.abort();
            }
            stays
        });
        if !live.is_empty() && tls.is_none() {
            let made = credentials(&inner);
            tls = made.inspect_err(|error| tracing::error!(%error, "no server can be told")).ok();
        }
        for (server, wake) in live {
            if let (Some(tls), false) = (&tls, links.contains_key(&server)) {
                let link = tell(inner.clone(), tls.clone(), server.clone(), wake);
                links.insert(server, tasks.spawn(link));
            }
        }
        tokio::select! {
            () = inner.peers.notified() => {}
            Some(ended) = tasks.join_next() => {
                tracing::debug!(?ended, "no more news for a server");
            }
        }
    }
}

fn credentials(inner: &Inner) -> Result<Arc<ClientConfig>, toono_pki::PkiError> {
    let own = inner.ca.issue_client(USER, &[GROUP_SERVERS])?;
    toono_pki::client_config(inner.ca.cert_pem(), Some(&own))
}

/// Tells one server.
async fn tell(inner: Arc<Inner>, tls: Arc<ClientConfig>, server: Server, wake: Arc<Notify>) {
    let endpoint = Endpoint { tls: true, host: server.host.clone(), port: server.port };
    let mut connection = None;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reached = true;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = wake.notified() => {}
        }
        let (mut owed, from, connected) = {
            let mut state = inner.state();
            let (owed, connected) = state.table.servers.owed(&server);
            (owed, state.table.servers.own_name().to_owned(), connected)
        };
        let heard = Indexes::new(&mut owed.heard);
        let news = PeerNews { from, connected, heard, dials: owed.dials };
        let open = connection.take();
        let told = timeout(PATIENCE, send(open, &endpoint, &tls, &news)).await;
        match told.unwrap_or(Err(TellError::TimedOut)) {
            Ok(open) => {
                connection = Some(open);
                reached = true;
            }
            Err(error) => {
                if std::mem::replace(&mut reached, false) {
                    tracing::warn!(server = server.name, %endpoint, %error, "a server cannot be told");
                }
                inner.state().table.servers.still_owed(&server, owed.heard);
            }
        }
    }
}

/// Sends on the open connection, or on a new one.
async fn send(
    open: Option<Connection>,
    endpoint: &Endpoint,
    tls: &Arc<ClientConfig>,
    news: &PeerNews,
) -> Result<Connection, TellError> {
    let mut connection = match open.filter(|open| !open.is_closed()) {
        Some(open) => open,
        None => Connection::open(endpoint, tls).await?,
    };
    let request = Request::post(path::PEER)
        .header(header::CONTENT_TYPE, "application/json")
        .body(toono_http::full(serde_json::to_vec(news)?))?;
    let response = connection.send(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    if status.is_success() { Ok(connection) } else { Err(TellError::Refused(status)) }
}

/// `POST /fleet/v1/peer`: another server's news.
pub(crate) fn accept(inner: &Inner, news: &PeerNews) -> Result<(), ApiError> {
    let heard = news.heard.decode().map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let (now, mut state) = (inner.now(), inner.state());
    let number = state.table.servers.told(&news.from, news.connected, now).ok_or_else(|| {
        ApiError::Unavailable(format!("no server of this cluster is called {:?} (yet)", news.from))
    })?;
    for index in heard {
        state.table.heard_elsewhere(NodeIndex(index), number, now);
    }
    for (index, ticket) in &news.dials {
        state.pokes.dial_back(NodeIndex(*index), *ticket);
    }
    if !news.dials.is_empty() {
        inner.poked.notify_one();
    }
    Ok(())
}

/// Only servers have this certificate.
pub(crate) fn server(user: &UserInfo) -> Result<(), ApiError> {
    if user.is_in(GROUP_SERVERS) {
        return Ok(());
    }
    Err(ApiError::ForbiddenPath(format!("user {:?} is no server of this cluster", user.name)))
}
