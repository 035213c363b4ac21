//! Listens to the pool's hub: one connection, on which it answers when there is something new.

use std::{sync::atomic::Ordering, time::Duration};

use http::{Request, StatusCode};
use tokio::time::{sleep, timeout};
use toono_http::client::{ClientError, Connection, Endpoint};
use toono_pki::PkiError;
use toono_wire::{
    path,
    pool::{Hub, Version},
};

use super::{
    Pool,
    held::Refused,
    hub::{PATH, WAIT},
};
use crate::{
    cloud::read,
    join::chain,
    retry::{self, Retry},
};

/// An answer takes no longer than it is asked to wait, and this.
const ANSWER: Duration = Duration::from_secs(10);
/// A hub that told what the cloud did not say is not asked again before this.
const LIAR_PAUSE: Duration = Duration::from_secs(300);
/// Who lost its hub asks the cloud within this: the others of the pool lost it too.
const CLOUD_WITHIN: Duration = Duration::from_secs(5);

/// Why a hub was left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error(transparent)]
    Link(#[from] ClientError),
    #[error("no TLS can be set up")]
    Tls(#[from] PkiError),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer broke off: {0}")]
    Broken(String),
    #[error("it did not answer in time")]
    TimedOut,
    #[error("it told what the cloud did not say: {0}")]
    Lied(Refused),
}

impl Pool {
    pub(super) async fn follow_hub(&self) {
        let mut hubs = self.inner.hub.subscribe();
        let mut retry = Retry::default();
        loop {
            let hub = hubs.borrow_and_update().clone();
            let Some(hub) = hub.filter(|hub| !self.is_hub(Some(hub))) else {
                if hubs.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let left = tokio::select! {
                left = self.listen(&hub, &mut retry) => left,
                _ = hubs.changed() => {
                    self.inner.listens.store(false, Ordering::Relaxed);
                    continue;
                }
            };
            self.inner.listens.store(false, Ordering::Relaxed);
            let Err(left) = left;
            let pause = match &left {
                Left::Lied(_) => LIAR_PAUSE,
                _ => retry.delay(),
            };
            tracing::warn!(
                hub = hub.node,
                reason = chain(&left),
                ?pause,
                "the pool's hub does not serve; the cloud is asked"
            );
            self.ask_cloud(retry::jittered(CLOUD_WITHIN), None);
            tokio::select! {
                () = sleep(pause) => {}
                _ = hubs.changed() => hubs.mark_changed(),
            }
        }
    }

    /// Takes what a hub tells, for as long as it does.
    async fn listen(&self, hub: &Hub, retry: &mut Retry) -> Result<std::convert::Infallible, Left> {
        let user = format!("system:node:{}", hub.node);
        let inner = &self.inner;
        let tls = toono_pki::peer_client_config(&inner.ca_pem, &inner.credentials.own(), &user)?;
        let host = hub.address.to_string();
        let endpoint = Endpoint { tls: true, host, port: hub.port };
        let mut connection = Connection::open(&endpoint, &tls).await?;
        loop {
            let Version { revision, digest } = self.version();
            let uri = format!("{PATH}?since={revision}&digest={digest:x}&wait={}", WAIT.as_secs());
            let mut request = Request::get(uri);
            if let Some(pass) = self.held().news().and_then(|news| news.pass.clone()) {
                request = request.header(path::PASS_HEADER, pass);
            }
            let answer = connection.send(request.body(toono_http::empty())?);
            let response = timeout(WAIT + ANSWER, answer).await.map_err(|_| Left::TimedOut)??;
            let status = response.status();
            let frames = timeout(ANSWER, read(response)).await.map_err(|_| Left::TimedOut)?;
            let frames = frames.map_err(Left::Broken)?;
            if !status.is_success() {
                if status == StatusCode::FORBIDDEN {
                    inner.bundle_wanted.notify_one();
                }
                return Err(Left::Status(status));
            }
            match self.take(frames) {
                Err(refused) if refused.is_lie() => return Err(Left::Lied(refused)),
                // The cloud was asked meanwhile, and told more.
                Ok(()) | Err(_) => {}
            }
            inner.listens.store(true, Ordering::Relaxed);
            *retry = Retry::default();
        }
    }
}
