//! The frames' bytes: eight of header, then a body.
//!
//! It knows no stream's state and no compression.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ProtocolError;

/// The largest control frame. The largest that Kubernetes' clients send is a SYN_STREAM of about
/// 100 bytes.
pub const MAX_CONTROL_FRAME: usize = 16 * 1024;
/// The largest data frame that the server sends. Small enough to be fair between streams.
pub const MAX_SEND: usize = 32 * 1024;

pub(super) const HEADER: usize = 8;
const VERSION: u16 = 3;
const CONTROL: u32 = 1 << 31;
/// The sender's last frame on the stream.
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ResetStatus {
    ProtocolError = 1,
    RefusedStream = 3,
    Cancel = 5,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum GoAwayStatus {
    Ok = 0,
    ProtocolError = 1,
    InternalError = 2,
}

/// The eight bytes before every frame's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Control { kind: u16, flags: u8, length: usize },
    Data { stream: u32, fin: bool, length: usize },
}

impl Head {
    /// Reads the header at the front of `bytes`, none if it is not whole.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Option<Self>, ProtocolError> {
        if bytes.len() < HEADER {
            return Ok(None);
        }
        let word = bytes.get_u32();
        let flags = bytes.get_u8();
        let length = usize::try_from(bytes.get_uint(3)).unwrap_or(usize::MAX);
        if word & CONTROL == 0 {
            if word == 0 {
                return Err(malformed("data frame", "its stream is 0"));
            }
            return Ok(Some(Self::Data { stream: word, fin: flags & FLAG_FIN != 0, length }));
        }
        let [_, _, kind_high, kind_low] = word.to_be_bytes();
        let version = u16::try_from((word & !CONTROL) >> 16).unwrap_or(u16::MAX);
        if version != VERSION {
            return Err(ProtocolError::SpdyVersion { version });
        }
        if length > MAX_CONTROL_FRAME {
            let (claimed, limit) = (length as u64, MAX_CONTROL_FRAME as u64);
            return Err(ProtocolError::TooLarge { what: "control frame", claimed, limit });
        }
        let kind = u16::from_be_bytes([kind_high, kind_low]);
        Ok(Some(Self::Control { kind, flags, length }))
    }
}

/// A control frame; header blocks are still compressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    SynStream {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    SynReply {
        block: Bytes,
    },
    RstStream {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Headers {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    /// A kind that needs nothing done: settings, window updates, and those nobody defined.
    Ignored,
}

impl Control {
    /// Reads a whole body.
    pub(super) fn parse(kind: u16, flags: u8, mut body: Bytes) -> Result<Self, ProtocolError> {
        let fin = flags & FLAG_FIN != 0;
        Ok(match kind {
            SYN_STREAM => {
                let stream = take_id(&mut body, "SYN_STREAM")?;
                if body.len() < 6 {
                    return Err(malformed("SYN_STREAM", "it ends too soon"));
                }
                body.advance(6); // associated stream, priority, slot: unused by Kubernetes
                Self::SynStream { stream, fin, block: body }
            }
            SYN_REPLY => {
                take_id(&mut body, "SYN_REPLY")?;
                Self::SynReply { block: body }
            }
            RST_STREAM => Self::RstStream { stream: take_id(&mut body, "RST_STREAM")? },
            PING => Self::Ping { id: take_id(&mut body, "PING")? },
            GOAWAY => Self::GoAway,
            HEADERS => {
                let stream = take_id(&mut body, "HEADERS")?;
                Self::Headers { stream, fin, block: body }
            }
            _ => Self::Ignored,
        })
    }
}

fn take_id(body: &mut Bytes, what: &'static str) -> Result<u32, ProtocolError> {
    if body.len() < 4 {
        return Err(malformed(what, "it ends too soon"));
    }
    Ok(body.get_u32() & !CONTROL)
}

fn malformed(what: &'static str, why: &'static str) -> ProtocolError {
    ProtocolError::Malformed { what, why }
}

fn put_control(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_uint(length as u64, 4);
}

pub(super) fn put_syn_reply(out: &mut BytesMut, stream: u32, block: &[u8]) {
    put_control(out, SYN_REPLY, 4 + block.len());
    out.put_u32(stream);
    out.put_slice(block);
}

pub(super) fn put_reset(out: &mut BytesMut, stream: u32, status: ResetStatus) {
    put_control(out, RST_STREAM, 8);
    out.put_u32(stream);
    out.put_u32(status as u32);
}

pub(super) fn put_ping(out: &mut BytesMut, id: u32) {
    put_control(out, PING, 4);
    out.put_u32(id);
}

pub(super) fn put_goaway(out: &mut BytesMut, last_stream: u32, status: GoAwayStatus) {
    put_control(out, GOAWAY, 8);
    out.put_u32(last_stream);
    out.put_u32(status as u32);
}

/// Frames of at most [`MAX_SEND`] bytes; nothing for no data, unless it finishes the stream.
pub(super) fn put_data(out: &mut BytesMut, stream: u32, data: &[u8], fin: bool) {
    for part in data.chunks(MAX_SEND) {
        out.put_u32(stream);
        out.put_uint(part.len() as u64, 4);
        out.put_slice(part);
    }
    if fin {
        out.put_u32(stream);
        out.put_uint(u64::from(FLAG_FIN) << 24, 4);
    }
}
