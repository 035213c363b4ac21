//! What the cloud and a node say to each other, as plain types: it parses and prints, and does no I/O.
//!
//! Four conversations share this vocabulary:
//! - [`join`]: a node trades a bootstrap token for an identity (HTTPS, once);
//! - [`datagram`]: the heartbeat, its reply and the poke (UDP, each 10 s);
//! - [`bundle`] and [`report`]: desired state down, status up (HTTPS, when something changed);
//! - [`remote`]: the byte streams of exec, attach and port-forward inside one HTTP/2 stream.

pub mod bundle;
pub mod datagram;
pub mod join;
pub mod remote;
pub mod report;

/// Paths of the fleet API, served on the API server's port.
pub mod path {
    /// `POST`, bootstrap token: [`JoinRequest`](crate::join::JoinRequest) → [`JoinResponse`](crate::join::JoinResponse).
    pub const JOIN: &str = "/fleet/v1/join";
    /// `GET`, node certificate: → [`SessionGrant`](crate::join::SessionGrant), the session key of today.
    pub const SESSION: &str = "/fleet/v1/session";
    /// `GET ?since=REV`, node certificate: → [`Bundle`](crate::bundle::Bundle).
    pub const BUNDLE: &str = "/fleet/v1/bundle";
    /// `POST`, node certificate: [`Report`](crate::report::Report) → [`ReportReply`](crate::report::ReportReply).
    pub const REPORT: &str = "/fleet/v1/report";
    /// `POST` with `Upgrade: toono-tunnel` and `Toono-Ticket: N`, node certificate. After 101 the
    /// roles turn round: the node serves HTTP/2 on this connection and the cloud is its client.
    pub const TUNNEL: &str = "/fleet/v1/tunnel";
    /// `POST`, administrator: [`RotateRequest`](crate::join::RotateRequest) → [`RotateReply`](crate::join::RotateReply).
    pub const ROTATE: &str = "/fleet/v1/secret/rotate";
    /// `GET` that upgrades to a WebSocket, node certificate. Each binary message is one datagram.
    pub const SOCKET: &str = "/fleet/v1/session/socket";
    /// `GET`, administrator: → [`Overview`](crate::report::Overview).
    pub const OVERVIEW: &str = "/fleet/v1/overview";
    /// The `Upgrade` token of [`TUNNEL`].
    pub const TUNNEL_PROTOCOL: &str = "toono-tunnel";
    /// The request header that names the ticket of the poke being answered (decimal).
    pub const TICKET_HEADER: &str = "toono-ticket";
}
