//! WebSocket (RFC 6455): Kubernetes' channels in its messages at the server's end, and datagrams at either.
//!
//! Data messages are passed on as they arrive, so that no message needs to fit into memory; only
//! those in base64 are collected first.

mod channels;
mod datagrams;
mod frame;

pub use channels::{Channels, MAX_BASE64_MESSAGE};
pub use datagrams::{Datagrams, MAX_DATAGRAM_MESSAGE};
pub(crate) use frame::{Decoder, Item, put_binary, put_close, put_pong};
pub use frame::{MAX_FRAME, MAX_SEND};
