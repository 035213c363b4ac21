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
pub const HEARTBEAT_BODY: usize = 28;
/// Length of [`ReplyBody`].
pub const REPLY_BODY: usize = 24;
/// Length of [`Poke`].
pub const POKE_BODY: usize = 9;

const HEARTBEAT: u8 = 0x11;
const REPLY: u8 = 0x12;
const POKE: u8 = 0x13;

const POKE_BUNDLE_MOVED: u8 = 1;
const POKE_DIAL_BACK: u8 = 2;

/// The bytes are no datagram of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a session datagram: {0} bytes")]
pub struct Malformed(pub usize);

/// Clear header of a heartbeat: 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UplinkHeader {
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

/// What a heartbeat says, once opened: 28 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatBody {
    /// The bundle revision that the node has on disk.
    pub observed_revision: u64,
    /// Digest of the status that the cloud last acknowledged to this node; 0 before the first.
    pub status_digest: u64,
    /// The server instance that the node last learnt; 0 before the first reply.
    pub instance: u64,
    /// How the heartbeat is meant.
    pub flags: HeartbeatFlags,
}

/// How a heartbeat is meant. Unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeartbeatFlags(pub u32);

impl HeartbeatFlags {
    /// Tries whether answers come back on this way: it counts, but the cloud's own words go on to where the
    /// node was before.
    pub const PROBE: Self = Self(1);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
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

/// What a reply says, once opened: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyBody {
    /// Counter of the heartbeat being answered.
    pub echo: u64,
    /// The newest revision of the node's bundle; unequal to the observed one means: fetch.
    pub desired_revision: u64,
    /// What else the node should do.
    pub flags: ReplyFlags,
    /// Milliseconds until the next heartbeat.
    pub interval_ms: u32,
}

/// Requests of the cloud that ride on a reply. Unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplyFlags(pub u32);

impl ReplyFlags {
    /// The cloud's record of the node's status differs from the digest: send a full report.
    pub const RESEND_STATUS: Self = Self(1);
    /// The key's epoch ends soon: ask [`path::SESSION`](crate::path::SESSION) for a new grant.
    pub const REKEY: Self = Self(2);

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
}

impl UplinkHeader {
    /// Header as sent; the AEAD's associated data.
    #[must_use]
    pub fn encode(&self) -> [u8; UPLINK_HEADER] {
        let mut out = [0; UPLINK_HEADER];
        let mut rest = out.as_mut_slice();
        rest.put_u8(HEARTBEAT);
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
        if header.get_u8() != HEARTBEAT {
            return Err(malformed);
        }
        let (body, tag) = sealed(rest).ok_or(malformed)?;
        let header = Self {
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
        rest.put_u64(self.status_digest);
        rest.put_u64(self.instance);
        rest.put_u32(self.flags.0);
        out
    }

    /// Body as it was opened.
    #[must_use]
    pub fn decode(bytes: &[u8; HEARTBEAT_BODY]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            observed_revision: rest.get_u64(),
            status_digest: rest.get_u64(),
            instance: rest.get_u64(),
            flags: HeartbeatFlags(rest.get_u32()),
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
        rest.put_u64(self.echo);
        rest.put_u64(self.desired_revision);
        rest.put_u32(self.flags.0);
        rest.put_u32(self.interval_ms);
        out
    }

    /// Body as it was opened.
    #[must_use]
    pub fn decode(bytes: &[u8; REPLY_BODY]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            echo: rest.get_u64(),
            desired_revision: rest.get_u64(),
            flags: ReplyFlags(rest.get_u32()),
            interval_ms: rest.get_u32(),
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
            _ => None,
        }
    }
}

/// Exactly a body and a tag, or none.
fn sealed<const BODY: usize>(bytes: &[u8]) -> Option<([u8; BODY], [u8; TAG])> {
    let (body, tag) = bytes.split_first_chunk::<BODY>()?;
    Some((*body, tag.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(header: &[u8], body: &[u8]) -> Vec<u8> {
        [header, body, &[0xaa; TAG]].concat()
    }

    #[test]
    fn a_heartbeat_is_laid_out_as_documented() {
        let header = UplinkHeader {
            epoch: 3,
            generation: 0x0102,
            index: 7,
            counter: (9 << 32) | 5,
            salt: 0xdead_beef,
        };
        let body = HeartbeatBody {
            observed_revision: 0x55,
            status_digest: 0x66,
            instance: 0x77,
            flags: HeartbeatFlags::PROBE,
        };
        let sent = joined(&header.encode(), &body.encode());
        assert_eq!(sent.len(), 64);
        assert_eq!(
            sent[..UPLINK_HEADER],
            [0x11, 3, 1, 2, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 0xde, 0xad, 0xbe, 0xef]
        );
        let (parsed, sealed, tag) = UplinkHeader::split(&sent).unwrap();
        assert_eq!((parsed, HeartbeatBody::decode(&sealed), tag), (header, body, [0xaa; TAG]));
    }

    #[test]
    fn replies_and_pokes_are_laid_out_as_documented() {
        let header = DownlinkHeader {
            kind: DownlinkKind::Reply,
            epoch: 1,
            generation: 2,
            index: 3,
            instance: 4,
            counter: 5,
        };
        let body = ReplyBody {
            echo: 6,
            desired_revision: 7,
            flags: ReplyFlags::REKEY,
            interval_ms: 10_000,
        };
        let sent = joined(&header.encode(), &body.encode());
        assert_eq!((sent.len(), sent[0]), (64, 0x12));
        let (parsed, sealed) = DownlinkHeader::split(&sent).unwrap();
        assert_eq!(parsed, header);
        assert!(
            matches!(sealed, SealedDownlink::Reply(bytes, _) if ReplyBody::decode(&bytes) == body)
        );

        let header = DownlinkHeader { kind: DownlinkKind::Poke, ..header };
        for poke in [Poke::BundleMoved { revision: 8 }, Poke::DialBack { ticket: u64::MAX }] {
            let sent = joined(&header.encode(), &poke.encode());
            assert_eq!((sent.len(), sent[0]), (49, 0x13));
            let (parsed, sealed) = DownlinkHeader::split(&sent).unwrap();
            assert_eq!(parsed, header);
            assert!(
                matches!(sealed, SealedDownlink::Poke(bytes, _) if Poke::decode(&bytes) == Some(poke))
            );
        }
        assert_eq!(Poke::decode(&[9; POKE_BODY]), None);
    }

    #[test]
    fn every_other_length_version_or_kind_is_refused() {
        for length in 0..=2 * MAX_DATAGRAM {
            for first in [0x11, 0x12, 0x13, 0x14, 0x21, 0x00, 0x51] {
                let bytes = vec![first; length];
                assert_eq!(UplinkHeader::split(&bytes).is_ok(), first == 0x11 && length == 64);
                let down = (first == 0x12 && length == 64) || (first == 0x13 && length == 49);
                assert_eq!(DownlinkHeader::split(&bytes).is_ok(), down);
            }
        }
    }
}
