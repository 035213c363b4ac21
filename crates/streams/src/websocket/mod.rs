//! WebSocket, server end (RFC 6455), and Kubernetes' channels in its messages.
//!
//! Data messages are passed on as they arrive, so that no message needs to fit into memory; only
//! those in base64 are collected first.

mod channels;
mod frame;

pub use channels::{Channels, MAX_BASE64_MESSAGE};
pub(crate) use frame::{Decoder, Item, put_binary, put_close, put_pong};
pub use frame::{MAX_FRAME, MAX_SEND};
