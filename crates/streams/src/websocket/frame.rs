//! Frames: header, mask, payload; messages as runs of chunks; control frames.
//!
//! It knows nothing of channels.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ProtocolError;
use crate::codec::MAX_BUFFERED;

/// The largest frame that a client may announce. Data passes through as it arrives, so this only
/// bounds nonsense.
pub const MAX_FRAME: u64 = 64 * 1024 * 1024;
/// The largest message that the server sends; clients read messages into buffers of about this.
pub const MAX_SEND: usize = 32 * 1024;
/// RFC 6455, section 5.5.
const MAX_CONTROL: u64 = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// Why a connection ends (RFC 6455, section 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum CloseCode {
    Normal = 1000,
    ProtocolError = 1002,
    Internal = 1011,
}

/// What the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// The next bytes of the message under way, perhaps none; `last` ends it.
    Chunk { data: Bytes, last: bool },
    /// To be answered with a pong of the same payload.
    Ping(Bytes),
    /// The peer ends the connection.
    Close,
}

/// Reads the frames of one peer, a client unless told otherwise.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    input: BytesMut,
    payload: Option<Payload>,
    /// Between the first frame of a message and its last.
    in_message: bool,
    /// The peer is a server, which masks nothing (RFC 6455, section 5.1).
    of_server: bool,
}

/// A data frame's payload that has not wholly arrived.
#[derive(Debug)]
struct Payload {
    remaining: u64,
    mask: [u8; 4],
    last: bool,
}

struct Head {
    fin: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    size: usize,
}

impl Decoder {
    /// Reads the frames of a server.
    pub(crate) fn of_server() -> Self {
        Self { of_server: true, ..Self::default() }
    }

    /// Adds bytes from the peer.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let unread = self.input.len() + bytes.len();
        if unread > MAX_BUFFERED {
            return Err(ProtocolError::Unread { unread });
        }
        self.input.put_slice(bytes);
        Ok(())
    }

    /// The next item, or none until more bytes arrive.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, ProtocolError> {
        loop {
            if let Some(payload) = self.payload.take() {
                return Ok(self.chunk(payload));
            }
            let Some(head) = parse_head(&self.input, !self.of_server)? else { return Ok(None) };
            if head.opcode & 0x8 != 0 {
                let whole = head.size + usize::try_from(head.length).unwrap_or(usize::MAX);
                if self.input.len() < whole {
                    return Ok(None);
                }
                if let Some(item) = self.control(&head)? {
                    return Ok(Some(item));
                }
                continue;
            }
            match (head.opcode, self.in_message) {
                (CONTINUATION, true) | (TEXT | BINARY, false) => {}
                (CONTINUATION, false) => return Err(malformed("it continues no message")),
                (TEXT | BINARY, true) => {
                    return Err(malformed("it starts a message inside another"));
                }
                _ => return Err(malformed("its opcode is reserved")),
            }
            self.in_message = !head.fin;
            self.input.advance(head.size);
            self.payload =
                Some(Payload { remaining: head.length, mask: head.mask, last: head.fin });
        }
    }

    fn chunk(&mut self, mut payload: Payload) -> Option<Item> {
        let available = payload.remaining.min(self.input.len() as u64);
        if available == 0 && payload.remaining > 0 {
            self.payload = Some(payload);
            return None;
        }
        let available = usize::try_from(available).unwrap_or(usize::MAX);
        let mut data = self.input.split_to(available);
        unmask(&mut data, &mut payload.mask);
        payload.remaining -= data.len() as u64;
        let whole = payload.remaining == 0;
        let last = whole && payload.last;
        if !whole {
            self.payload = Some(payload);
        }
        Some(Item::Chunk { data: data.freeze(), last })
    }

    /// Takes a whole control frame off the input.
    fn control(&mut self, head: &Head) -> Result<Option<Item>, ProtocolError> {
        if !head.fin || head.length > MAX_CONTROL {
            return Err(malformed("a control frame is long or fragmented"));
        }
        self.input.advance(head.size);
        let mut data = self.input.split_to(usize::try_from(head.length).unwrap_or(0));
        unmask(&mut data, &mut head.mask.clone());
        match head.opcode {
            PING => Ok(Some(Item::Ping(data.freeze()))),
            PONG => Ok(None),
            CLOSE => Ok(Some(Item::Close)),
            _ => Err(malformed("its opcode is reserved")),
        }
    }
}

fn parse_head(mut bytes: &[u8], masked: bool) -> Result<Option<Head>, ProtocolError> {
    let available = bytes.len();
    if available < 2 {
        return Ok(None);
    }
    let (first, second) = (bytes.get_u8(), bytes.get_u8());
    if first & RESERVED != 0 {
        return Err(malformed("reserved bits are set"));
    }
    if (second & MASKED != 0) != masked {
        let why = if masked { "a client must mask" } else { "a server must not mask" };
        return Err(malformed(why));
    }
    let long = match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let opcode = first & OPCODE;
    if opcode & 0x8 != 0 && long > 0 {
        return Err(malformed("a control frame is long or fragmented"));
    }
    let size = 2 + long + if masked { 4 } else { 0 };
    if available < size {
        return Ok(None);
    }
    let length = if long == 0 { u64::from(second & !MASKED) } else { bytes.get_uint(long) };
    if length > MAX_FRAME {
        return Err(ProtocolError::TooLarge {
            what: "WebSocket frame",
            claimed: length,
            limit: MAX_FRAME,
        });
    }
    let mask = if masked { bytes.get_u32().to_be_bytes() } else { [0; 4] };
    Ok(Some(Head { fin: first & FIN != 0, opcode, length, mask, size }))
}

/// Unmasks `data` and turns the mask to where the next bytes start.
fn unmask(data: &mut [u8], mask: &mut [u8; 4]) {
    let (words, rest) = data.as_chunks_mut::<4>();
    let key = u32::from_ne_bytes(*mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(*mask) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len());
}

fn malformed(why: &'static str) -> ProtocolError {
    ProtocolError::Malformed { what: "WebSocket frame", why }
}

fn put_head(out: &mut BytesMut, opcode: u8, length: usize) {
    put_any_head(out, opcode, length, 0);
}

fn put_any_head(out: &mut BytesMut, opcode: u8, length: usize, masked: u8) {
    out.put_u8(FIN | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => out.put_u8(masked | short),
        (_, Ok(medium)) => {
            out.put_u8(masked | 126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(length as u64);
        }
    }
}

/// A whole message or control frame of a client.
pub(crate) fn put_masked(out: &mut BytesMut, opcode: u8, data: &[u8], mask: u32) {
    put_any_head(out, opcode, data.len(), MASKED);
    let mut mask = mask.to_be_bytes();
    out.put_slice(&mask);
    let begin = out.len();
    out.put_slice(data);
    unmask(out.get_mut(begin..).unwrap_or_default(), &mut mask);
}

/// One binary message of two parts.
pub(crate) fn put_binary(out: &mut BytesMut, head: &[u8], data: &[u8]) {
    put_head(out, BINARY, head.len() + data.len());
    out.put_slice(head);
    out.put_slice(data);
}

/// One text message of two parts.
pub(crate) fn put_text(out: &mut BytesMut, head: &[u8], data: &[u8]) {
    put_head(out, TEXT, head.len() + data.len());
    out.put_slice(head);
    out.put_slice(data);
}

/// A pong; `data` is at most 125 bytes, as the ping that it answers.
pub(crate) fn put_pong(out: &mut BytesMut, data: &[u8]) {
    put_head(out, PONG, data.len());
    out.put_slice(data);
}

/// The last frame.
pub(crate) fn put_close(out: &mut BytesMut, code: CloseCode) {
    put_head(out, CLOSE, 2);
    out.put_u16(code as u16);
}
