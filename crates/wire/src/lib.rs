//! What the cloud and a node say to each other, as plain types: it parses and prints, and does no I/O.
//!
//! Eight conversations share this vocabulary:
//! - [`join`]: a node trades a bootstrap token for an identity (HTTPS, once);
//! - [`datagram`]: the heartbeat, its reply and the poke (UDP, each 10 s);
//! - [`bundle`], with each [`referent`] of its pods, and [`report`]: desired state down, status up (HTTPS, when
//!   something changed);
//! - [`upgrade`]: upgrades of pods that wait for an approval (with the bundle, and with reports);
//! - [`pool`]: what all nodes of a pool must know, down or from a neighbour (HTTPS, when something changed);
//! - [`remote`]: the byte streams of exec, attach and port-forward inside one HTTP/2 stream;
//! - [`usage`]: what a node and its pods use (in the same stream, when somebody asks);
//! - [`peer`]: what the servers of one cluster tell each other of its nodes (HTTPS, each second).

pub mod bundle;
pub mod datagram;
pub mod join;
pub mod peer;
pub mod pool;
pub mod referent;
pub mod remote;
pub mod report;
pub mod upgrade;
pub mod usage;

/// Paths of the fleet API, served on the API server's port.
pub mod path {
    /// `POST`, bootstrap token: [`JoinRequest`](crate::join::JoinRequest) → [`JoinResponse`](crate::join::JoinResponse).
    pub const JOIN: &str = "/fleet/v1/join";
    /// `GET`, node certificate: → [`SessionGrant`](crate::join::SessionGrant), the session key of today.
    pub const SESSION: &str = "/fleet/v1/session";
    /// `POST`, node certificate, which may have expired: [`CertificateRequest`](crate::join::CertificateRequest) →
    /// [`CertificateReply`](crate::join::CertificateReply), the node's next certificate.
    pub const CERTIFICATE: &str = "/fleet/v1/certificate";
    /// `GET ?since=REV`, node certificate: → [`Bundle`](crate::bundle::Bundle).
    pub const BUNDLE: &str = "/fleet/v1/bundle";
    /// `GET ?since=REV&digest=HEX`, node certificate: → [`Frame`](crate::pool::frame::Frame)s of the part of the
    /// node's own pool; none when it has changed no further.
    pub const POOL: &str = "/fleet/v1/pool";
    /// `POST`, node certificate: [`Report`](crate::report::Report) → [`ReportReply`](crate::report::ReportReply).
    pub const REPORT: &str = "/fleet/v1/report";
    /// `POST` with `Upgrade: toono-tunnel` and `Toono-Ticket: N`, node certificate. After 101 the
    /// roles turn round: the node serves HTTP/2 on this connection and the cloud is its client.
    pub const TUNNEL: &str = "/fleet/v1/tunnel";
    /// `POST`, administrator: [`RotateRequest`](crate::join::RotateRequest) → [`RotateReply`](crate::join::RotateReply).
    pub const ROTATE: &str = "/fleet/v1/secret/rotate";
    /// `GET` that upgrades to a WebSocket, node certificate. Each binary message is one datagram.
    pub const SOCKET: &str = "/fleet/v1/session/socket";
    /// `POST`, another server's certificate: [`PeerNews`](crate::peer::PeerNews), answered with 204.
    pub const PEER: &str = "/fleet/v1/peer";
    /// `GET`, administrator: → [`Overview`](crate::report::Overview).
    pub const OVERVIEW: &str = "/fleet/v1/overview";
    /// The `Upgrade` token of [`TUNNEL`].
    pub const TUNNEL_PROTOCOL: &str = "toono-tunnel";
    /// The header of an answer to [`POOL`] that names the pool's hub, if it has one: a [`Hub`](crate::pool::Hub).
    pub const HUB_HEADER: &str = "toono-pool-hub";
    /// The header of a request to a hub that shows its sender to be of the pool: a [`Pass`](crate::pool::Pass).
    pub const PASS_HEADER: &str = "toono-pool-pass";
    /// The request header that names the ticket of the poke being answered (decimal).
    pub const TICKET_HEADER: &str = "toono-ticket";
}
