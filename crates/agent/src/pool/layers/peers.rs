//! Asks other nodes: who has a layer, and for the layer itself. Remembers who does not answer, and who lied.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Limited};
use hyper::body::Incoming;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use toono_http::{
    Body,
    client::{Connection, Endpoint},
};
use toono_images::{Digest, Found, NotServed};
use toono_wire::{
    path,
    pool::{LayerRequest, LayerSources, LayerWish, MAX_LAYER_ANSWER, NodeRecord, node_key},
};

use super::Layers;
use crate::join::chain;

/// A neighbour on a LAN takes a connection at once, or is not there.
const CONNECT: Duration = Duration::from_millis(500);
/// TLS, and an answer's head: a small board computes a while.
const ANSWER: Duration = Duration::from_secs(5);
/// Who cannot be reached is not asked for so long.
const AWAY_PAUSE: Duration = Duration::from_secs(60);
/// Who sent what is not what it should be is not asked for so long: its disk or its memory is broken.
const LIAR_PAUSE: Duration = Duration::from_secs(30 * 60);

/// Who is not to be asked, and until when.
#[derive(Debug, Default)]
pub(super) struct Health(BTreeMap<String, Instant>);

impl Health {
    pub(super) fn is_well(&self, node: &str, now: Instant) -> bool {
        self.0.get(node).is_none_or(|until| *until <= now)
    }

    pub(super) fn lied(&mut self, node: &str, now: Instant) {
        self.leave(node, now, LIAR_PAUSE);
    }

    fn is_away(&mut self, node: &str, now: Instant) {
        self.leave(node, now, AWAY_PAUSE);
    }

    fn leave(&mut self, node: &str, now: Instant, pause: Duration) {
        self.0.retain(|_, until| *until > now);
        let until = self.0.entry(node.to_owned()).or_insert(now);
        *until = (*until).max(now + pause);
    }
}

impl Layers {
    /// A layer from a neighbour, from an offset on.
    pub(super) async fn fetch(
        &self,
        node: &str,
        blob: &Digest,
        offset: u64,
    ) -> Result<Body, NotServed> {
        let mut connection = self.connect(node).await.map_err(NotServed::Failed)?;
        let asked = self.send(&mut connection, blob, LayerWish::Bytes { from: offset }).await;
        let response = asked.map_err(NotServed::Failed)?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body().map_err(Into::into).boxed_unsync()),
            StatusCode::SERVICE_UNAVAILABLE => Err(NotServed::Busy),
            status => Err(NotServed::Failed(self.refused(status))),
        }
    }

    /// Asks a tracker who has a blob.
    pub(super) async fn ask_one(
        &self,
        tracker: &str,
        blob: &Digest,
        failed: &[String],
        claims: bool,
    ) -> Result<Found, String> {
        let mut connection = self.connect(tracker).await?;
        let wish = LayerWish::Sources { claims, without: failed.to_vec() };
        let response = self.send(&mut connection, blob, wish).await?;
        if !response.status().is_success() {
            return Err(self.refused(response.status()));
        }
        let body = read(response).await?;
        let sources = LayerSources::decode(&body).map_err(|error| error.to_string())?;
        Ok(Found { from: sources.from, keep: sources.keep })
    }

    /// Tells a tracker of blobs.
    pub(super) async fn tell_one(
        &self,
        tracker: &str,
        blobs: &[&Digest],
        are_here: bool,
    ) -> Result<(), String> {
        let mut connection = self.connect(tracker).await?;
        for blob in blobs {
            let wish = if are_here { LayerWish::Have } else { LayerWish::Lack };
            let response = self.send(&mut connection, blob, wish).await?;
            if !response.status().is_success() {
                return Err(self.refused(response.status()));
            }
            read(response).await?;
        }
        Ok(())
    }

    async fn connect(&self, node: &str) -> Result<Connection, String> {
        let opened = self.open(node).await;
        if opened.is_err() {
            self.health().is_away(node, Instant::now());
        }
        opened
    }

    async fn open(&self, node: &str) -> Result<Connection, String> {
        let pool = &self.inner.pool;
        let record = pool.record(&node_key(node)).ok_or("it has no record in the pool's part")?;
        let address = address(&record).ok_or("its record has no address")?;
        let stream = timeout(CONNECT, TcpStream::connect((address, self.inner.port))).await;
        let stream =
            stream.map_err(|_| "it does not answer")?.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let user = format!("system:node:{node}");
        let own = pool.inner.credentials.own();
        let tls = toono_pki::peer_client_config(&pool.inner.ca_pem, &own, &user);
        let tls = tls.map_err(|error| chain(&error))?;
        let endpoint = Endpoint { tls: true, host: address.to_string(), port: self.inner.port };
        let connection = timeout(ANSWER, Connection::over(stream, &endpoint, Some(&tls))).await;
        connection.map_err(|_| "no TLS in time".to_owned())?.map_err(|error| chain(&error))
    }

    async fn send(
        &self,
        connection: &mut Connection,
        blob: &Digest,
        wish: LayerWish,
    ) -> Result<Response<Incoming>, String> {
        let asked = LayerRequest { hex: blob.hex(), wish };
        let method = if asked.is_post() { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method).uri(asked.target());
        if let Some(pass) = self.inner.pool.held().news().and_then(|news| news.pass.clone()) {
            request = request.header(path::PASS_HEADER, pass);
        }
        let request = request.body(toono_http::empty()).map_err(|error| error.to_string())?;
        let answer = timeout(ANSWER, connection.send(request)).await;
        answer.map_err(|_| "it does not answer")?.map_err(|error| chain(&error))
    }

    /// What a status says. Who is not let in needs another pass.
    fn refused(&self, status: StatusCode) -> String {
        if status == StatusCode::FORBIDDEN {
            self.inner.pool.inner.bundle_wanted.notify_one();
        }
        format!("it answered {status}")
    }
}

/// All of a short answer.
async fn read(response: Response<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(response.into_body(), MAX_LAYER_ANSWER).collect();
    let body = timeout(ANSWER, body).await.map_err(|_| "it fell silent")?;
    body.map(Collected::to_bytes).map_err(|error| error.to_string())
}

/// The first address that a node's record has.
pub(super) fn address(record: &str) -> Option<IpAddr> {
    let record: NodeRecord = serde_json::from_str(record).ok()?;
    record.addresses.iter().find_map(|address| address.parse().ok())
}
