//! Which protocol a client's upgrade request settles on.
//!
//! Header values come in as text; nothing here builds a response.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Names the subprotocols of SPDY in requests and responses.
pub const STREAM_PROTOCOL_HEADER: &str = "x-stream-protocol-version";
/// Names those of the server, when none fits.
pub const ACCEPTED_PROTOCOLS_HEADER: &str = "x-accepted-stream-protocol-versions";

/// The version of the remote command protocol. Each adds to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandVersion {
    /// Errors as text.
    V1,
    /// Half-closed streams.
    V2,
    /// Terminal sizes.
    V3,
    /// The end as a `v1.Status` in JSON.
    V4,
    /// The client can close stdin over WebSocket.
    V5,
}

/// How a WebSocket message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A byte for the channel, then the payload.
    Binary,
    /// A digit for the channel, then the payload in base64, as text.
    Base64,
}

/// A subprotocol that both sides know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandProtocol {
    /// As on the wire; empty when the client named none.
    pub name: &'static str,
    /// What it can do.
    pub version: CommandVersion,
    /// How messages are written; SPDY is always binary.
    pub encoding: Encoding,
}

const fn command(
    name: &'static str,
    version: CommandVersion,
    encoding: Encoding,
) -> CommandProtocol {
    CommandProtocol { name, version, encoding }
}

/// What the server speaks over SPDY.
pub const SPDY_COMMAND: [CommandProtocol; 4] = [
    command("v4.channel.k8s.io", CommandVersion::V4, Encoding::Binary),
    command("v3.channel.k8s.io", CommandVersion::V3, Encoding::Binary),
    command("v2.channel.k8s.io", CommandVersion::V2, Encoding::Binary),
    command("channel.k8s.io", CommandVersion::V1, Encoding::Binary),
];

/// What the server speaks over WebSocket.
pub const WEBSOCKET_COMMAND: [CommandProtocol; 5] = [
    command("v5.channel.k8s.io", CommandVersion::V5, Encoding::Binary),
    command("v4.channel.k8s.io", CommandVersion::V4, Encoding::Binary),
    command("v4.base64.channel.k8s.io", CommandVersion::V4, Encoding::Base64),
    command("channel.k8s.io", CommandVersion::V1, Encoding::Binary),
    command("base64.channel.k8s.io", CommandVersion::V1, Encoding::Base64),
];

/// Port forwarding over SPDY.
pub const FORWARD: &str = "portforward.k8s.io";
/// Port forwarding over SPDY inside WebSocket: as `kubectl` names it, and as its proposal did.
pub const FORWARD_TUNNELS: [&str; 2] = ["SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"];

/// The tokens of a header that may be repeated and may hold a list, as `Connection` or
/// `Sec-WebSocket-Protocol`.
pub fn tokens<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    values
        .into_iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .collect()
}

/// The first of the client's names that the server knows; a client that names none means the
/// oldest protocol. None when nothing fits.
#[must_use]
pub fn choose_command(offered: &[&str], known: &[CommandProtocol]) -> Option<CommandProtocol> {
    if offered.is_empty() {
        return Some(command("", CommandVersion::V1, Encoding::Binary));
    }
    offered.iter().find_map(|name| known.iter().find(|protocol| protocol.name == *name)).copied()
}

/// The first of the client's names that is in `known`.
#[must_use]
pub fn choose_name(offered: &[&str], known: &[&'static str]) -> Option<&'static str> {
    offered.iter().find_map(|name| known.iter().find(|candidate| *candidate == name)).copied()
}

/// The value of `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
#[must_use]
pub fn accept_key(key: &str) -> String {
    const PROTOCOL_ID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(PROTOCOL_ID);
    STANDARD.encode(digest.finish().as_ref())
}

/// A client's `Sec-WebSocket-Key`, 16 random bytes in base64 (RFC 6455, 4.1).
#[must_use]
pub fn client_key(random: [u32; 4]) -> String {
    STANDARD.encode(random.map(u32::to_be_bytes).as_flattened())
}

/// Whether a client's `Sec-WebSocket-Key` is 16 bytes in base64 (RFC 6455, 4.1).
#[must_use]
pub fn is_valid_key(key: &str) -> bool {
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert!(is_valid_key(key));
        assert_eq!(accept_key(key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!is_valid_key("dGhlIHNhbXBsZQ=="));
        assert!(is_valid_key(&client_key([1, 2, 3, u32::MAX])));
        assert!(!is_valid_key("not base64 of any length"));
    }

    #[test]
    fn the_clients_first_known_name_wins() {
        let chosen = |offered: &[&str], known| choose_command(offered, known).map(|p| p.name);
        let all = ["v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"];
        assert_eq!(chosen(&all, &SPDY_COMMAND), Some("v4.channel.k8s.io"));
        assert_eq!(
            chosen(&["v9.channel.k8s.io", "v2.channel.k8s.io"], &SPDY_COMMAND),
            Some("v2.channel.k8s.io")
        );
        assert_eq!(chosen(&["v5.channel.k8s.io"], &SPDY_COMMAND), None);
        assert_eq!(chosen(&["v5.channel.k8s.io"], &WEBSOCKET_COMMAND), Some("v5.channel.k8s.io"));
        assert_eq!(chosen(&[], &WEBSOCKET_COMMAND), Some(""));
        assert_eq!(
            choose_name(&["x", "v2.portforward.k8s.io"], &FORWARD_TUNNELS),
            Some("v2.portforward.k8s.io")
        );
    }

    #[test]
    fn lists_and_repeats_are_one_list() {
        assert_eq!(tokens(["keep-alive, Upgrade", " x ,"]), ["keep-alive", "Upgrade", "x"]);
    }
}
