//! SPDY inside the binary messages of a WebSocket, as clients forward ports where proxies know
//! WebSocket only (Kubernetes' KEP-4006).
//!
//! Message boundaries mean nothing: the payloads are one run of SPDY bytes.

use bytes::BytesMut;

use crate::codec::{CloseReason, Codec, Event, ProtocolError, StreamId};
use crate::spdy;
use crate::websocket::{Decoder, Item, MAX_SEND, put_binary, put_close, put_pong};

/// The server's end of a tunnel.
#[derive(Debug, Default)]
pub struct Tunnel {
    decoder: Decoder,
    inner: spdy::Connection,
    output: BytesMut,
    ended: bool,
    closed: bool,
}

impl Tunnel {
    /// A tunnel through which nothing has gone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps what SPDY has to say.
    fn wrap(&mut self) {
        let inner = self.inner.output().split();
        if !self.closed {
            for part in inner.chunks(MAX_SEND) {
                put_binary(&mut self.output, &[], part);
            }
        }
    }
}

impl Codec for Tunnel {
    fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.decoder.push(bytes)
    }

    fn next_event(&mut self) -> Result<Option<Event>, ProtocolError> {
        loop {
            let event = self.inner.next_event();
            self.wrap();
            if let Some(event) = event? {
                return Ok(Some(event));
            }
            match self.decoder.next()? {
                None => return Ok(None),
                Some(Item::Chunk { data, .. }) => self.inner.push(&data)?,
                Some(Item::Ping(data)) if !self.closed => put_pong(&mut self.output, &data),
                Some(Item::Ping(_)) => {}
                Some(Item::Close) => {
                    if !std::mem::replace(&mut self.closed, true) {
                        put_close(&mut self.output, CloseReason::Done.into());
                    }
                    if !std::mem::replace(&mut self.ended, true) {
                        return Ok(Some(Event::Closed));
                    }
                }
            }
        }
    }

    fn send(&mut self, stream: StreamId, data: &[u8]) {
        self.inner.send(stream, data);
        self.wrap();
    }

    fn finish(&mut self, stream: StreamId) {
        self.inner.finish(stream);
        self.wrap();
    }

    fn reset(&mut self, stream: StreamId) {
        self.inner.reset(stream);
        self.wrap();
    }

    fn keep_alive(&mut self) {
        if !self.closed {
            put_pong(&mut self.output, &[]);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.inner.close(reason);
        self.wrap();
        if !std::mem::replace(&mut self.closed, true) {
            put_close(&mut self.output, reason.into());
        }
    }

    fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }
}
