//! The byte streams of exec, attach and port-forward inside one HTTP/2 request and response.
//!
//! Both bodies are a run of frames: `channel (u8) | length (u32, big endian) | payload`. Channels
//! and their meaning are those of Kubernetes' remote command protocol, version 5
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/> and KEP-4006), so that the API
//! server only re-frames: it never interprets a payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Client → container.
pub const STDIN: u8 = 0;
/// Container → client.
pub const STDOUT: u8 = 1;
/// Container → client; unused with a terminal.
pub const STDERR: u8 = 2;
/// Container → client, last: one `v1.Status` as JSON that tells the exit.
pub const ERROR: u8 = 3;
/// Client → container: `{"Width":80,"Height":24}`.
pub const RESIZE: u8 = 4;
/// Either way: the sender will send no more on the channel that the one payload byte names.
pub const CLOSE: u8 = 255;

/// The largest payload of one frame; a sender splits, a receiver refuses more.
pub const MAX_PAYLOAD: usize = 64 * 1024;
const HEADER: usize = 5;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which stream.
    pub channel: u8,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// The peer does not speak this protocol.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a stream frame claims {claimed} bytes, more than {MAX_PAYLOAD}")]
pub struct FrameTooLarge {
    /// The length in the header.
    pub claimed: usize,
}

impl Frame {
    /// The header and payload as sent. `payload` longer than [`MAX_PAYLOAD`] makes several frames.
    #[must_use]
    pub fn encode(channel: u8, payload: &[u8]) -> Bytes {
        let frames = payload.len().div_ceil(MAX_PAYLOAD).max(1);
        let mut out = BytesMut::with_capacity(payload.len() + frames * HEADER);
        let mut rest = payload;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            out.put_u8(channel);
            out.put_u32(u32::try_from(now.len()).unwrap_or(u32::MAX));
            out.put_slice(now);
            rest = later;
            if rest.is_empty() {
                return out.freeze();
            }
        }
    }
}

/// Cuts frames out of bytes that arrive in any portions.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or none until more bytes arrive.
    ///
    /// # Errors
    /// When the peer announces more than [`MAX_PAYLOAD`] bytes; the stream is then beyond repair.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameTooLarge> {
        let mut head: &[u8] = &self.buffer;
        if head.len() < HEADER {
            return Ok(None);
        }
        let channel = head.get_u8();
        let claimed = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
        if claimed > MAX_PAYLOAD {
            return Err(FrameTooLarge { claimed });
        }
        if head.len() < claimed {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(claimed).freeze();
        Ok(Some(Frame { channel, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let long = vec![7u8; MAX_PAYLOAD + 3];
        let mut sent = BytesMut::new();
        sent.extend_from_slice(&Frame::encode(STDIN, b"hello"));
        sent.extend_from_slice(&Frame::encode(STDOUT, &long));
        sent.extend_from_slice(&Frame::encode(CLOSE, &[STDIN]));
        for cut in [1, 3, 5, 1000, 70_000] {
            let mut reader = FrameReader::default();
            let mut got = Vec::new();
            for part in sent.chunks(cut) {
                reader.push(part);
                while let Some(frame) = reader.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got.len(), 4, "cut at {cut}");
            assert_eq!(got[0].payload, "hello");
            assert_eq!(got[1].payload.len() + got[2].payload.len(), long.len());
            assert_eq!((got[3].channel, &got[3].payload[..]), (CLOSE, &[STDIN][..]));
        }
    }

    #[test]
    fn an_oversize_claim_is_refused_before_its_bytes_arrive() {
        let mut reader = FrameReader::default();
        reader.push(&[STDIN, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(reader.next_frame(), Err(FrameTooLarge { claimed: 0xffff_ffff }));
    }
}
