//! The bytes that carry a part, whole or since a version: laid out, compressed, and read back with care.
//!
//! It signs nothing and verifies nothing: [`Frame::statement`] is what the cloud's signature is over. A frame
//! that a neighbour hands on is the very frame that the cloud made.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Version;

/// The only layout so far.
const LAYOUT: u8 = 1;
/// What a signature is over begins so: no certificate and no token does.
const DOMAIN: &[u8] = b"toono pool part\0";
/// Longest text of records that is read: some 500,000 endpoints.
pub const MAX_PLAIN: usize = 64 << 20;
/// Versions and lengths, without what they are lengths of.
const FIXED: usize = 1 + 1 + 4 * 8 + 4 + 4 + 1;

/// The bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of a pool's part: {0}")]
pub struct BadFrame(pub &'static str);

/// What changed between two versions of a part, as whoever hands it on needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The pool that it is for; empty when every pool has the same part.
    pub scope: String,
    /// What it goes on from; [`Version::NONE`] when it is the whole part.
    pub since: Version,
    /// What it leads to.
    pub now: Version,
    /// Length of the records' text.
    plain: u32,
    /// That text, deflated (RFC 1951).
    body: Bytes,
    /// The cloud's word for all of it.
    pub signature: Bytes,
}

/// What a frame's body says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Records added or changed: keys and texts.
    pub changed: Vec<(Arc<str>, Arc<str>)>,
    /// Keys of records that are gone.
    pub gone: Vec<Arc<str>>,
}

#[derive(Serialize)]
struct Telling<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    changed: BTreeMap<&'a str, &'a RawValue>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    gone: &'a [Arc<str>],
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Told {
    changed: BTreeMap<String, Box<RawValue>>,
    gone: Vec<Arc<str>>,
}

// === impl Frame ===

impl Frame {
    /// A frame of these changes, not signed yet. None when a text is no JSON or there is too much of it.
    #[must_use]
    pub fn of(scope: &str, since: Version, now: Version, changes: &Changes) -> Option<Self> {
        let mut changed = BTreeMap::new();
        for (key, text) in &changes.changed {
            changed.insert(&**key, serde_json::from_str::<&RawValue>(text).ok()?);
        }
        let plain = serde_json::to_vec(&Telling { changed, gone: &changes.gone }).ok()?;
        if plain.len() > MAX_PLAIN || scope.len() > usize::from(u8::MAX) {
            return None;
        }
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
        deflate.write_all(&plain).ok()?;
        let body = deflate.finish().ok()?.into();
        let plain = u32::try_from(plain.len()).ok()?;
        Some(Self { scope: scope.to_owned(), since, now, plain, body, signature: Bytes::new() })
    }

    /// Whether it is a whole part, which goes on from nothing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.since == Version::NONE
    }

    /// Bytes of [`Frame::encode`].
    #[must_use]
    pub fn size(&self) -> usize {
        FIXED + self.scope.len() + self.body.len() + self.signature.len()
    }

    /// What the cloud signs.
    #[must_use]
    pub fn statement(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(DOMAIN.len() + self.size());
        out.put_slice(DOMAIN);
        self.put_statement(&mut out);
        out
    }

    fn put_statement(&self, out: &mut Vec<u8>) {
        out.put_u8(LAYOUT);
        // Both lengths were looked at when the frame was made.
        out.put_u8(u8::try_from(self.scope.len()).unwrap_or(u8::MAX));
        out.put_slice(self.scope.as_bytes());
        for version in [self.since, self.now] {
            out.put_u64(version.revision);
            out.put_u64(version.digest);
        }
        out.put_u32(self.plain);
        out.put_u32(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        out.put_slice(&self.body);
    }

    /// Appends the frame as it travels: its statement, and the signature behind its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.put_statement(out);
        out.put_u8(u8::try_from(self.signature.len()).unwrap_or(u8::MAX));
        out.put_slice(&self.signature);
    }

    /// Takes the next frame off some bytes.
    ///
    /// # Errors
    /// When they do not begin with one.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, BadFrame> {
        let take = |bytes: &mut Bytes, length: usize| -> Result<Bytes, BadFrame> {
            if bytes.remaining() < length {
                return Err(BadFrame("it is cut off"));
            }
            Ok(bytes.split_to(length))
        };
        let mut head = take(bytes, 2)?;
        if head.get_u8() != LAYOUT {
            return Err(BadFrame("its layout is unknown"));
        }
        let scope = take(bytes, head.get_u8().into())?;
        let scope =
            String::from_utf8(scope.to_vec()).map_err(|_| BadFrame("its pool is no text"))?;
        let mut fixed = take(bytes, 4 * 8 + 2 * 4)?;
        let mut version = || Version { revision: fixed.get_u64(), digest: fixed.get_u64() };
        let (since, now) = (version(), version());
        let plain = fixed.get_u32();
        let length = usize::try_from(fixed.get_u32()).map_err(|_| BadFrame("it is too long"))?;
        let body = take(bytes, length)?;
        let length = take(bytes, 1)?.get_u8();
        let signature = take(bytes, length.into())?;
        Ok(Self { scope, since, now, plain, body, signature })
    }

    /// All frames of an answer.
    ///
    /// # Errors
    /// When something in it is none.
    pub fn decode_all(mut bytes: Bytes) -> Result<Vec<Self>, BadFrame> {
        let mut frames = Vec::new();
        while bytes.has_remaining() {
            frames.push(Self::decode(&mut bytes)?);
        }
        Ok(frames)
    }

    /// What the body says. To be asked of a frame whose signature is right: it takes as much memory as the
    /// frame says, up to [`MAX_PLAIN`].
    ///
    /// # Errors
    /// When it does not inflate to records.
    pub fn changes(&self) -> Result<Changes, BadFrame> {
        let length = usize::try_from(self.plain).unwrap_or(usize::MAX);
        if length > MAX_PLAIN {
            return Err(BadFrame("its records are too long"));
        }
        let mut plain = Vec::with_capacity(length.min(16 * self.body.len()));
        let mut inflate = DeflateDecoder::new(&*self.body).take(u64::from(self.plain) + 1);
        inflate.read_to_end(&mut plain).map_err(|_| BadFrame("it does not inflate"))?;
        if plain.len() != length {
            return Err(BadFrame("its records have another length"));
        }
        let read: Told =
            serde_json::from_slice(&plain).map_err(|_| BadFrame("its records are no JSON"))?;
        let record = |(key, text): (String, Box<RawValue>)| (Arc::from(key), Arc::from(text.get()));
        Ok(Changes { changed: read.changed.into_iter().map(record).collect(), gone: read.gone })
    }
}
