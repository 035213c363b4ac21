//! Kubernetes' remote command channels: the first byte of each message names its stream.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use toono_wire::remote;

use super::frame::{CloseCode, Decoder, Item, MAX_SEND, put_binary, put_close, put_pong, put_text};
use crate::codec::{CloseReason, Codec, Event, Kind, ProtocolError, StreamId};
use crate::negotiate::{CommandProtocol, CommandVersion, Encoding};

/// The largest message in base64, which must be whole to be decoded.
pub const MAX_BASE64_MESSAGE: usize = 256 * 1024;

/// The server's end of a WebSocket that carries a remote command. All its streams are open from
/// the start.
#[derive(Debug)]
pub struct Channels {
    protocol: CommandProtocol,
    decoder: Decoder,
    events: VecDeque<Event>,
    output: BytesMut,
    /// The channel of the message under way, once its first byte is there.
    channel: Option<u8>,
    /// The message under way, in base64.
    text: BytesMut,
    /// The channels that the client may still write.
    writable: Vec<u8>,
    /// The channels that the server may still write.
    readable: Vec<u8>,
    closed: bool,
}

impl Channels {
    /// A connection with these streams.
    pub fn new(protocol: CommandProtocol, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let mut events = VecDeque::new();
        let (mut writable, mut readable) = (Vec::new(), Vec::new());
        for kind in kinds {
            let Some(channel) = channel_of(kind) else { continue };
            match kind {
                Kind::Stdin | Kind::Resize => writable.push(channel),
                _ => readable.push(channel),
            }
            events.push_back(Event::Opened {
                stream: StreamId(channel.into()),
                kind,
                forward: None,
            });
        }
        Self {
            protocol,
            decoder: Decoder::default(),
            events,
            output: BytesMut::new(),
            channel: None,
            text: BytesMut::new(),
            writable,
            readable,
            closed: false,
        }
    }

    fn item(&mut self, item: Item) -> Result<(), ProtocolError> {
        match item {
            Item::Ping(data) if !self.closed => put_pong(&mut self.output, &data),
            Item::Ping(_) => {}
            Item::Close => {
                self.close(CloseReason::Done);
                self.events.push_back(Event::Closed);
            }
            Item::Chunk { data, last } if self.protocol.encoding == Encoding::Base64 => {
                self.base64_chunk(&data, last)?;
            }
            Item::Chunk { mut data, last } => {
                let channel = match self.channel {
                    None if data.has_remaining() => Some(data.get_u8()),
                    known => known,
                };
                self.channel = channel.filter(|_| !last);
                if let Some(channel) = channel {
                    self.payload(channel, data);
                }
            }
        }
        Ok(())
    }

    fn base64_chunk(&mut self, data: &[u8], last: bool) -> Result<(), ProtocolError> {
        let claimed = self.text.len() + data.len();
        if claimed > MAX_BASE64_MESSAGE {
            let (claimed, limit) = (claimed as u64, MAX_BASE64_MESSAGE as u64);
            return Err(ProtocolError::TooLarge { what: "base64 message", claimed, limit });
        }
        self.text.extend_from_slice(data);
        if !last {
            return Ok(());
        }
        let mut text = self.text.split();
        if text.is_empty() {
            return Ok(());
        }
        let channel = text.get_u8().wrapping_sub(b'0');
        let why = "its payload is not base64";
        let payload = STANDARD
            .decode(&text)
            .map_err(|_| ProtocolError::Malformed { what: "base64 message", why })?;
        self.payload(channel, payload.into());
        Ok(())
    }

    fn payload(&mut self, channel: u8, data: Bytes) {
        if channel == remote::CLOSE && self.protocol.version >= CommandVersion::V5 {
            for ended in data {
                self.half_close(ended);
            }
        } else if !data.is_empty() && self.writable.contains(&channel) {
            self.events.push_back(Event::Data { stream: StreamId(channel.into()), data });
        }
    }

    fn half_close(&mut self, channel: u8) {
        let before = self.writable.len();
        self.writable.retain(|open| *open != channel);
        if self.writable.len() < before {
            self.events.push_back(Event::HalfClosed { stream: StreamId(channel.into()) });
        }
    }
}

/// The channel that carries a kind; port forwarding has none.
fn channel_of(kind: Kind) -> Option<u8> {
    Some(match kind {
        Kind::Stdin => remote::STDIN,
        Kind::Stdout => remote::STDOUT,
        Kind::Stderr => remote::STDERR,
        Kind::Error => remote::ERROR,
        Kind::Resize => remote::RESIZE,
        Kind::Data => return None,
    })
}

impl Codec for Channels {
    fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.decoder.push(bytes)
    }

    fn next_event(&mut self) -> Result<Option<Event>, ProtocolError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(item) = self.decoder.next()? else { return Ok(None) };
            self.item(item)?;
        }
    }

    fn send(&mut self, stream: StreamId, data: &[u8]) {
        let Ok(channel) = u8::try_from(stream.0) else { return };
        if self.closed || !self.readable.contains(&channel) {
            return;
        }
        let mut rest = data;
        loop {
            let (part, later) = rest.split_at(rest.len().min(MAX_SEND));
            match self.protocol.encoding {
                Encoding::Binary => put_binary(&mut self.output, &[channel], part),
                Encoding::Base64 => {
                    let digit = b'0'.wrapping_add(channel);
                    put_text(&mut self.output, &[digit], STANDARD.encode(part).as_bytes());
                }
            }
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }

    fn finish(&mut self, stream: StreamId) {
        // The protocol has no word for a finished channel of the server's: it closes the
        // connection when the last of them is finished.
        let before = self.readable.len();
        self.readable.retain(|open| StreamId(u32::from(*open)) != stream);
        if self.readable.is_empty() && before > 0 {
            self.close(CloseReason::Done);
        }
    }

    fn reset(&mut self, stream: StreamId) {
        self.writable.retain(|open| StreamId(u32::from(*open)) != stream);
    }

    fn keep_alive(&mut self) {
        // An unasked pong (RFC 6455, section 5.5.3) moves the read deadline of a client whose own
        // pings wait behind data that the container does not take.
        if !self.closed {
            put_pong(&mut self.output, &[]);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if !std::mem::replace(&mut self.closed, true) {
            put_close(&mut self.output, reason.into());
        }
    }

    fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }
}

impl From<CloseReason> for CloseCode {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Done => Self::Normal,
            CloseReason::ProtocolError => Self::ProtocolError,
            CloseReason::Internal => Self::Internal,
        }
    }
}
