//! The server's end of the two protocols that `kubectl` speaks for exec, attach and port-forward:
//! SPDY/3.1 and WebSocket, and SPDY inside WebSocket; and both ends of a WebSocket that carries datagrams.
//!
//! Bytes in, [`Event`]s out; commands in, bytes out. Nothing here opens a socket, reads a clock or
//! allocates by what a peer merely claims. Memory is bounded by [`MAX_BUFFERED`] and by the limits
//! of each protocol's module.

mod codec;
pub mod negotiate;
mod resize;
pub mod spdy;
mod tunnel;
pub mod websocket;

pub use codec::{CloseReason, Codec, Event, Forward, Kind, MAX_BUFFERED, ProtocolError, StreamId};
pub use resize::{MAX_RESIZE, ResizeReader};
pub use tunnel::Tunnel;
