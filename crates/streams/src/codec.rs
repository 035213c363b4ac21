//! The one interface that both protocols present: events, commands, errors.
//!
//! It knows neither protocol's bytes.

use bytes::{Bytes, BytesMut};

/// The most unread bytes that a codec holds. A caller pushes what one read returned (at most
/// 64 KiB) and takes all events before the next push, so what is left over is one incomplete
/// control frame; the rest is slack.
pub const MAX_BUFFERED: usize = 256 * 1024;

/// Names a stream within its connection: SPDY's stream id, or WebSocket's channel byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What a stream carries, as Kubernetes' `streamtype` header names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Client → container.
    Stdin,
    /// Container → client.
    Stdout,
    /// Container → client.
    Stderr,
    /// Server → client: how it ended.
    Error,
    /// Client → container: terminal sizes.
    Resize,
    /// Both ways: one forwarded connection.
    Data,
}

impl Kind {
    /// The kind that a `streamtype` header names.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "stdin" => Self::Stdin,
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "error" => Self::Error,
            "resize" => Self::Resize,
            "data" => Self::Data,
            _ => return None,
        })
    }
}

/// To which forwarded connection a stream belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Common to a connection's data and error streams.
    pub request: String,
    /// The pod's port; never 0.
    pub port: u16,
}

/// What the client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A stream exists from now on.
    Opened {
        /// Its name in later events and commands.
        stream: StreamId,
        /// What it carries.
        kind: Kind,
        /// Present when the client forwards ports.
        forward: Option<Forward>,
    },
    /// Bytes on a stream; never empty, cut anywhere.
    Data {
        /// The stream.
        stream: StreamId,
        /// Its next bytes.
        data: Bytes,
    },
    /// The client will send no more on this stream, but still reads it.
    HalfClosed {
        /// The stream.
        stream: StreamId,
    },
    /// The client gave the stream up in both directions.
    Reset {
        /// The stream, unknown from now on.
        stream: StreamId,
    },
    /// The client closed the connection; nothing follows.
    Closed,
}

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// All is said.
    Done,
    /// The client broke the protocol.
    ProtocolError,
    /// Something failed on our side.
    Internal,
}

/// The client's bytes are not the protocol, or exceed its limits. The connection is beyond repair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The caller did not take events before pushing more.
    #[error("{unread} bytes are unread, more than {MAX_BUFFERED}")]
    Unread {
        /// What would be held.
        unread: usize,
    },
    /// SPDY of another version.
    #[error("the client speaks SPDY version {version}, not 3")]
    SpdyVersion {
        /// What the frame says.
        version: u16,
    },
    /// A frame or message larger than its limit.
    #[error("a {what} of {claimed} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Which thing.
        what: &'static str,
        /// Its size as claimed.
        claimed: u64,
        /// The limit.
        limit: u64,
    },
    /// A frame that contradicts itself or the state of the connection.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Which thing.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// SPDY's header blocks are one zlib stream, which is broken.
    #[error("the compressed header block does not inflate")]
    HeaderCompression,
}

/// The server's end of one connection. Commands on unknown or finished streams do nothing, since
/// the client may have reset them in the meantime.
pub trait Codec: Send {
    /// Adds bytes from the client.
    ///
    /// # Errors
    /// When more than [`MAX_BUFFERED`] bytes would be held.
    fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError>;

    /// The next event, or none until more bytes arrive.
    ///
    /// # Errors
    /// When the client broke the protocol; then only [`Codec::close`] makes sense.
    fn next_event(&mut self) -> Result<Option<Event>, ProtocolError>;

    /// Sends bytes on a stream. An empty slice sends an empty message where the protocol has such.
    fn send(&mut self, stream: StreamId, data: &[u8]);

    /// Tells the client that a stream carries no more.
    fn finish(&mut self, stream: StreamId);

    /// Gives a stream up in both directions.
    fn reset(&mut self, stream: StreamId);

    /// Shows an idle or waiting client that the server lives. Costs nothing where the protocol
    /// needs none.
    fn keep_alive(&mut self);

    /// Ends the connection; later commands do nothing.
    fn close(&mut self, reason: CloseReason);

    /// What is to be written to the client; the caller takes from the front.
    fn output(&mut self) -> &mut BytesMut;
}
