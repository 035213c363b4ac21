//! SPDY/3.1, server end, as far as Kubernetes' clients use it
//! (<https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>).
//!
//! Those clients are built on one library, which neither enforces flow-control windows nor sends
//! window updates; so this sends none and ignores those it gets. Back-pressure is TCP's, for the
//! connection as a whole.

mod connection;
mod frame;
mod headers;

pub use connection::{Connection, MAX_STREAMS};
pub use frame::{MAX_CONTROL_FRAME, MAX_SEND};
pub use headers::{DICTIONARY, MAX_HEADER_BLOCK, MAX_HEADERS};
