//! `kubernetes.default` for the pods of this node: while the link is there, a way through to the server; while it is
//! not, answers from what the node has.
//!
//! With the link it passes bytes on, and TLS is between pod and server: nothing of the node's identity is in it. Without
//! it the node reads for a pod what the pod's own token and the rules of its account allow, as last known, writes
//! nothing, and says of everything else that it cannot know it: 503. Nowhere does it ask the server anything for a pod.

mod answers;
mod asked;
mod certificate;
mod credentials;
mod discovery;
mod fields;
mod held;
mod network;
mod pass;
mod selected;
mod watching;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use tokio::{net::TcpListener, sync::mpsc, time::sleep};
use toono_http::{Handler, server};
use toono_wire::pool::{self, ServiceRecord};

pub(crate) use certificate::Certificate;

use self::answers::Answers;
use crate::{
    bundles::News, cloud::Cloud, join::chain, pool::Pool, services::ServicePort, sync::Sync,
    worker::Node,
};

/// Where it listens, on the bridge of the pod network; what goes to the API's Service is sent there.
pub(crate) const PORT: u16 = 10_273;
/// The API's Service.
const SERVICE: ServicePort<'_> =
    ServicePort { namespace: "default", name: "kubernetes", port: "https" };
/// Before the listener is tried again: the address may be another program's for a while.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// For pods of one node; each has a client or two that watch.
const LIMITS: server::Limits = server::Limits {
    connections: 256,
    handshake: Duration::from_secs(10),
    handshakes: 1,
    header_read: Duration::from_secs(30),
    idle: Duration::from_secs(90),
    http2_streams: 64,
    // Once the link is back clients are to ask the server.
    drain: Duration::from_secs(1),
};

/// The API as this node's pods reach it.
pub(crate) struct Api {
    pub(crate) node: Arc<Node>,
    pub(crate) cloud: Cloud,
    pub(crate) pool: Pool,
    pub(crate) sync: Sync,
}

impl Api {
    /// For as long as the agent lives. `changed` is told when pods are to trust another certificate.
    pub(crate) async fn run(self, changed: mpsc::Sender<News>) {
        let address = SocketAddr::new(self.node.network.gateway().into(), PORT);
        tokio::join!(self.serve(address), self.keep_certificate(changed));
    }

    async fn serve(&self, address: SocketAddr) {
        loop {
            let error = match self.listen(address).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::warn!(%address, error = chain(&error), "pods cannot reach the API");
            sleep(LISTEN_AGAIN).await;
        }
    }

    /// By turns as the link comes and goes; connections of one kind end when the other's turn comes.
    async fn listen(&self, address: SocketAddr) -> io::Result<std::convert::Infallible> {
        let shared = TcpListener::bind(address).await?.into_std()?;
        self.node.services.serve_here(SERVICE, address);
        let answers = Arc::new(Answers::new(self));
        let mut link = self.cloud.link();
        let mut certificate = self.node.certificate.subscribe();
        loop {
            let listener = TcpListener::from_std(shared.try_clone()?)?;
            if *link.borrow_and_update() {
                tracing::debug!("pods reach the server");
                let gone = async { drop(link.wait_for(|is_up| !is_up).await) };
                pass::through(&listener, &self.cloud, gone).await;
                continue;
            }
            tracing::debug!("pods are answered by the node");
            let tls = certificate.borrow_and_update().config().map_err(io::Error::other)?;
            let shared_answers = answers.clone();
            let handler: Handler = Arc::new(move |request| {
                let answers = shared_answers.clone();
                async move { answers.answer(request).await }.boxed()
            });
            let over = async {
                tokio::select! {
                    _ = link.wait_for(|is_up| *is_up) => {}
                    _ = certificate.changed() => {}
                }
            };
            server::serve(listener, Some(tls), handler, LIMITS, over).await;
        }
    }

    /// The API's address in the cluster is in the pool's part; the certificate is to have it.
    async fn keep_certificate(&self, changed: mpsc::Sender<News>) {
        let mut version = self.pool.versions();
        loop {
            let addresses = self.addresses();
            match self.node.certificate.fit(&addresses) {
                Ok(false) => {}
                Ok(true) => {
                    let news = News { referents: true, ..News::default() };
                    if changed.send(news).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the node's certificate is not kept");
                }
            }
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let text = self.pool.record(&pool::service_key(SERVICE.namespace, SERVICE.name));
        let record = text.and_then(|text| serde_json::from_str::<ServiceRecord>(&text).ok());
        let addresses = record.map(|it| it.cluster_ips).unwrap_or_default();
        addresses.iter().filter_map(|address| address.parse().ok()).collect()
    }
}
