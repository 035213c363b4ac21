//! The frames of the heartbeat session, byte by byte: it lays out headers and bodies, and seals nothing.
//!
//! Every datagram is a clear header, which the AEAD authenticates, and a sealed body with its
//! 16-byte tag. All numbers are big endian. `docs/protocol.md` draws the layouts and says what each
//! rule is for; the keys and the replay rules are the `session` crate's.
//!
//! Byte 0 holds the version in its high nibble and the kind in its low one. Its bit `0x40` stays
//! clear: QUIC sets that bit in every packet (RFC 9000, 17.2 and 17.3), so both may share one port.

use bytes::{Buf, BufMut};

/// No datagram is longer, with headroom for a later version.
pub const MAX_DATAGRAM: usize = 96;
/// Length of the AEAD's tag.
pub const TAG: usize = 16;
/// Length of [`UplinkHeader`].
pub const UPLINK_HEADER: usize = 20;
/// Length of [`DownlinkHeader`].
pub const DOWNLINK_HEADER: usize = 24;
/// Length of [`HeartbeatBody`].
pub const HEARTBEAT_BODY: usize = 24;
/// Length of [`ReplyBody`].
pub const REPLY_BODY: usize = 16;
/// Length of [`Poke`].
pub const POKE_BODY: usize = 9;

const HEARTBEAT: u8 = 0x11;
const REPLY: u8 = 0x12;
const POKE: u8 = 0x13;
const PROBE: u8 = 0x14;

/// The longest interval that three bytes hold, over four hours.
const INTERVAL_MOST_MS: u32 = 0xff_ffff;

const POKE_BUNDLE_MOVED: u8 = 1;
const POKE_DIAL_BACK: u8 = 2;
const POKE_POOL_MOVED: u8 = 3;

/// The bytes are no datagram of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a session datagram: {0} bytes")]
pub struct Malformed(pub usize);

/// How a heartbeat is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UplinkKind {
    /// It says all that a heartbeat says.
    Heartbeat,
    /// Tries whether answers come back on this way: it counts, but the cloud's own words go on to where the
    /// node was before.
    Probe,
}

/// Clear header of a heartbeat: 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UplinkHeader {
    /// A heartbeat, or a probe.
    pub kind: UplinkKind,
    /// Which cluster secret the key comes from.
    pub epoch: u8,
    /// Which identity of the node's name.
    pub generation: u16,
    /// The node's dense number.
    pub index: u32,
    /// Boot number (high 32 bits) and sequence within this start (low 32 bits); never repeats.
    pub counter: u64,
    /// Random for each start: keeps nonces apart even when a rolled-back disk repeats a boot number.
    pub salt: u32,
}

/// What a heartbeat says, once opened: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatBody {
    /// The bundle revision that the node has on disk; 0 when nothing is whole there.
    pub observed_revision: u64,
    /// Digest of the status that the cloud last acknowledged to this node; 0 for none.
    pub status_digest: u32,
    /// The digest that came with the bundle on disk. Without a revision it means nothing.
    pub bundle_digest: u32,
    /// The server instance that the node last learnt; 0 before the first reply.
    pub instance: u64,
}

/// Which kind of datagram travels down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownlinkKind {
    /// Answers one heartbeat; its body is a [`ReplyBody`].
    Reply,
    /// Unasked; its body is a [`Poke`].
    Poke,
}

/// Clear header of a reply or a poke: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownlinkHeader {
    /// Reply or poke.
    pub kind: DownlinkKind,
    /// As in the heartbeat that established the session.
    pub epoch: u8,
    /// As in the heartbeat that established the session.
    pub generation: u16,
    /// The node's dense number.
    pub index: u32,
    /// The server process that speaks: random, made anew at each start.
    pub instance: u64,
    /// Counts all downlink datagrams of this instance; never repeats within it.
    pub counter: u64,
}

/// What a reply says, once opened: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyBody {
    /// Sequence of the heartbeat being answered: the low half of its counter. The high half, which start of
    /// the node sent it, is bound by that start's salt in the nonce.
    pub echo: u32,
    /// What the node's bundle should hold: above the observed revision means: fetch what is newer.
    pub desired_revision: u64,
    /// What else the node should do.
    pub flags: ReplyFlags,
    /// Milliseconds until the next heartbeat: three bytes, and what they do not hold is told as their most.
    pub interval_ms: u32,
}

/// Requests of the cloud that ride on a reply. Unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplyFlags(pub u8);

impl ReplyFlags {
    /// The cloud's record of the node's status differs from the digest: send a full report.
    pub const RESEND_STATUS: Self = Self(1);
    /// The key's epoch ends soon: ask [`path::SESSION`](crate::path::SESSION) for a new grant.
    pub const REKEY: Self = Self(2);
    /// What the node holds is not what it should be, and no one knows since when: fetch the whole bundle.
    pub const COMPARE: Self = Self(4);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why the cloud speaks unasked: 9 bytes, a reason and its argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poke {
    /// The node's bundle moved to this revision.
    BundleMoved {
        /// As [`ReplyBody::desired_revision`].
        revision: u64,
    },
    /// Open a tunnel and show this ticket.
    DialBack {
        /// Valid for a few seconds, once.
        ticket: u64,
    },
    /// The part of the node's pool moved to this revision.
    PoolMoved {
        /// As [`Version::revision`](crate::pool::Version::revision).
        revision: u64,
    },
}

impl UplinkHeader {
    /// Header as sent; the AEAD's associated data.
    #[must_use]
    pub fn encode(&self) -> [u8; UPLINK_HEADER] {
        let mut out = [0; UPLINK_HEADER];
        let mut rest = out.as_mut_slice();
        rest.put_u8(match self.kind {
            UplinkKind::Heartbeat => HEARTBEAT,
            UplinkKind::Probe => PROBE,
        });
        rest.put_u8(self.epoch);
        rest.put_u16(self.generation);
        rest.put_u32(self.index);
        rest.put_u64(self.counter);
        rest.put_u32(self.salt);
        out
    }

    /// Splits a heartbeat into its header, the sealed body and the tag.
    ///
    /// # Errors
    /// When kind, version or length are not a heartbeat's.
    pub fn split(datagram: &[u8]) -> Result<(Self, [u8; HEARTBEAT_BODY], [u8; TAG]), Malformed> {
        let malformed = Malformed(datagram.len());
        let (mut header, rest) = datagram
            .split_first_chunk::<UPLINK_HEADER>()
            .map(|(h, r)| (h.as_slice(), r))
            .ok_or(malformed)?;
        let kind = match header.get_u8() {
            HEARTBEAT => UplinkKind::Heartbeat,
            PROBE => UplinkKind::Probe,
            _ => return Err(malformed),
        };
        let (body, tag) = sealed(rest).ok_or(malformed)?;
        let header = Self {
            kind,
            epoch: header.get_u8(),
            generation: header.get_u16(),
            index: header.get_u32(),
            counter: header.get_u64(),
            salt: header.get_u32(),
        };
        Ok((header, body, tag))
    }
}

impl HeartbeatBody {
    /// Body as it is sealed.
    #[must_use]
    pub fn encode(&self) -> [u8; HEARTBEAT_BODY] {
        let mut out = [0; HEARTBEAT_BODY];
        let mut rest = out.as_mut_slice();
        rest.put_u64(self.observed_revision);
        rest.put_u32(self.status_digest);
        rest.put_u32(self.bundle_digest);
        rest.put_u64(self.instance);
        out
    }

    /// Body as it was opened.
    #[must_use]
    pub fn decode(bytes: &[u8; HEARTBEAT_BODY]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            observed_revision: rest.get_u64(),
            status_digest: rest.get_u32(),
            bundle_digest: rest.get_u32(),
            instance: rest.get_u64(),
        }
    }
}

impl DownlinkHeader {
    /// Header as sent; the AEAD's associated data.
    #[must_use]
    pub fn encode(&self) -> [u8; DOWNLINK_HEADER] {
        let mut out = [0; DOWNLINK_HEADER];
        let mut rest = out.as_mut_slice();
        rest.put_u8(match self.kind {
            DownlinkKind::Reply => REPLY,
            DownlinkKind::Poke => POKE,
        });
        rest.put_u8(self.epoch);
        rest.put_u16(self.generation);
        rest.put_u32(self.index);
        rest.put_u64(self.instance);
        rest.put_u64(self.counter);
        out
    }

    /// Splits a datagram from the cloud into its header and what is sealed.
    ///
    /// # Errors
    /// When kind, version or length are neither a reply's nor a poke's.
    pub fn split(datagram: &[u8]) -> Result<(Self, SealedDownlink), Malformed> {
        let malformed = Malformed(datagram.len());
        let (mut header, rest) = datagram
            .split_first_chunk::<DOWNLINK_HEADER>()
            .map(|(h, r)| (h.as_slice(), r))
            .ok_or(malformed)?;
        let (kind, body) = match header.get_u8() {
            REPLY => sealed(rest)
                .map(|(body, tag)| (DownlinkKind::Reply, SealedDownlink::Reply(body, tag))),
            POKE => sealed(rest)
                .map(|(body, tag)| (DownlinkKind::Poke, SealedDownlink::Poke(body, tag))),
            _ => None,
        }
        .ok_or(malformed)?;
        let header = Self {
            kind,
            epoch: header.get_u8(),
            generation: header.get_u16(),
            index: header.get_u32(),
            instance: header.get_u64(),
            counter: header.get_u64(),
        };
        Ok((header, body))
    }
}

/// The sealed part of a downlink datagram: body and tag.
#[derive(Debug, Clone, Copy)]
pub enum SealedDownlink {
    /// Opens to a [`ReplyBody`].
    Reply([u8; REPLY_BODY], [u8; TAG]),
    /// Opens to a [`Poke`].
    Poke([u8; POKE_BODY], [u8; TAG]),
}

impl ReplyBody {
    /// Body as it is sealed.
    #[must_use]
    pub fn encode(&self) -> [u8; REPLY_BODY] {
        let mut out = [0; REPLY_BODY];
        let mut rest = out.as_mut_slice();
        rest.put_u32(self.echo);
        rest.put_u64(self.desired_revision);
        rest.put_u8(self.flags.0);
        rest.put_uint(self.interval_ms.min(INTERVAL_MOST_MS).into(), 3);
        out
    }

    /// Body as it was opened.
    #[must_use]
    pub fn decode(bytes: &[u8; REPLY_BODY]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            echo: rest.get_u32(),
            desired_revision: rest.get_u64(),
            flags: ReplyFlags(rest.get_u8()),
            interval_ms: u32::try_from(rest.get_uint(3)).unwrap_or(INTERVAL_MOST_MS),
        }
    }
}

impl Poke {
    /// Body as it is sealed.
    #[must_use]
    pub fn encode(&self) -> [u8; POKE_BODY] {
        let mut out = [0; POKE_BODY];
        let mut rest = out.as_mut_slice();
        let (reason, argument) = match *self {
            Self::BundleMoved { revision } => (POKE_BUNDLE_MOVED, revision),
            Self::DialBack { ticket } => (POKE_DIAL_BACK, ticket),
            Self::PoolMoved { revision } => (POKE_POOL_MOVED, revision),
        };
        rest.put_u8(reason);
        rest.put_u64(argument);
        out
    }

    /// Body as it was opened; none for a reason that this version does not know.
    #[must_use]
    pub fn decode(bytes: &[u8; POKE_BODY]) -> Option<Self> {
        let mut rest = bytes.as_slice();
        let (reason, argument) = (rest.get_u8(), rest.get_u64());
        match reason {
            POKE_BUNDLE_MOVED => Some(Self::BundleMoved { revision: argument }),
            POKE_DIAL_BACK => Some(Self::DialBack { ticket: argument }),
            POKE_POOL_MOVED => Some(Self::PoolMoved { revision: argument }),
            _ => None,
        }
    }
}

/// Exactly a body and a tag, or none.
fn sealed<const BODY: usize>(bytes: &[u8]) -> Option<([u8; BODY], [u8; TAG])> {
    let (body, tag) = bytes.split_first_chunk::<BODY>()?;
    Some((*body, tag.try_into().ok()?))
}
