//! Header blocks: compressed with one zlib stream per direction and a dictionary that is part of
//! the protocol.

use bytes::Buf;
use flate2::{Decompress, FlushDecompress, Status};

use crate::ProtocolError;

/// The dictionary of SPDY/3's header compression (section 2.6.10.1 of the protocol).
pub const DICTIONARY: &[u8; 1423] = include_bytes!("dictionary.bin");
/// The largest header block once inflated. Kubernetes' headers need about 100 bytes.
pub const MAX_HEADER_BLOCK: usize = 16 * 1024;
/// The most headers in a block. Kubernetes sends three.
pub const MAX_HEADERS: usize = 64;

/// A header block without any header, as the two stored blocks of a sync-flushed zlib stream.
/// The server never sends headers, so it needs no compressor and saves its quarter megabyte.
const EMPTY_BLOCK: [u8; 14] = [
    0x00, 0x04, 0x00, 0xfb, 0xff, 0x00, 0x00, 0x00, 0x00, // a stored block: the count 0
    0x00, 0x00, 0x00, 0xff, 0xff, // an empty stored block: a flush
];
/// What the zlib stream starts with: deflate, 32 KiB window, no dictionary in use.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];

/// Writes the header blocks of one connection.
#[derive(Debug, Default)]
pub(super) struct EmptyBlocks {
    started: bool,
}

impl EmptyBlocks {
    /// The next block, which says that there are no headers.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(ZLIB_HEADER.len() + EMPTY_BLOCK.len());
        if !self.started {
            block.extend_from_slice(&ZLIB_HEADER);
            self.started = true;
        }
        block.extend_from_slice(&EMPTY_BLOCK);
        block
    }
}

/// Reads the header blocks of one connection. Every block must pass through it, wanted or not.
#[derive(Debug)]
pub(super) struct Inflater {
    zlib: Decompress,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { zlib: Decompress::new(true) }
    }
}

impl Inflater {
    /// The plain bytes of the next block, at most [`MAX_HEADER_BLOCK`].
    pub(super) fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut plain = Vec::new();
        let mut chunk = [0; 1024];
        loop {
            let (in_before, out_before) = (self.zlib.total_in(), self.zlib.total_out());
            let result = self.zlib.decompress(block, &mut chunk, FlushDecompress::Sync);
            let consumed = usize::try_from(self.zlib.total_in() - in_before).unwrap_or(usize::MAX);
            let produced =
                usize::try_from(self.zlib.total_out() - out_before).unwrap_or(usize::MAX);
            block = block.get(consumed..).unwrap_or_default();
            plain.extend_from_slice(chunk.get(..produced).unwrap_or_default());
            if plain.len() > MAX_HEADER_BLOCK {
                return Err(ProtocolError::TooLarge {
                    what: "header block",
                    claimed: plain.len() as u64,
                    limit: MAX_HEADER_BLOCK as u64,
                });
            }
            match result {
                Ok(Status::Ok | Status::BufError) if consumed + produced == 0 => break,
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.zlib.set_dictionary(DICTIONARY);
                    set.map_err(|_| ProtocolError::HeaderCompression)?;
                }
                // The stream lasts as long as the connection.
                Ok(Status::StreamEnd) | Err(_) => return Err(ProtocolError::HeaderCompression),
            }
        }
        if block.is_empty() { Ok(plain) } else { Err(ProtocolError::HeaderCompression) }
    }
}

/// The headers that Kubernetes puts on a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StreamHeaders {
    pub(super) stream_type: Option<String>,
    pub(super) port: Option<String>,
    pub(super) request_id: Option<String>,
}

impl StreamHeaders {
    /// Reads an inflated block: a count, then names and values, each with its length.
    pub(super) fn parse(mut block: &[u8]) -> Result<Self, ProtocolError> {
        let count = take_length(&mut block)?;
        if count > MAX_HEADERS {
            let (claimed, limit) = (count as u64, MAX_HEADERS as u64);
            return Err(ProtocolError::TooLarge { what: "header count", claimed, limit });
        }
        let mut headers = Self::default();
        for _ in 0..count {
            let name = take_text(&mut block)?.to_ascii_lowercase();
            let value = take_text(&mut block)?;
            let place = match name.as_str() {
                "streamtype" => &mut headers.stream_type,
                "port" => &mut headers.port,
                "requestid" => &mut headers.request_id,
                _ => continue,
            };
            // Several values are separated by NUL; Kubernetes looks at the first.
            *place = value.split('\0').next().map(str::to_owned);
        }
        Ok(headers)
    }
}

fn take_length(block: &mut &[u8]) -> Result<usize, ProtocolError> {
    if block.len() < 4 {
        return Err(truncated());
    }
    Ok(usize::try_from(block.get_u32()).unwrap_or(usize::MAX))
}

fn take_text<'a>(block: &mut &'a [u8]) -> Result<&'a str, ProtocolError> {
    let length = take_length(block)?;
    let (text, rest) = block.split_at_checked(length).ok_or_else(truncated)?;
    *block = rest;
    std::str::from_utf8(text)
        .map_err(|_| ProtocolError::Malformed { what: "header block", why: "it is not text" })
}

fn truncated() -> ProtocolError {
    ProtocolError::Malformed { what: "header block", why: "it ends too soon" }
}
