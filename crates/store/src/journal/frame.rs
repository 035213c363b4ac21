//! The bytes of the journal and of snapshots: frames of records. It must not know files.
//!
//! ```text
//! frame:  magic 4 | crc32c 4 | payload length 4 | first 8 | last 8 | payload: records
//! record: kind 1 | created 8 | modified 8 | key length 2 | owner length 2 | value length 4
//!         | key | owner | value
//! ```
//!
//! Numbers are little-endian. The checksum covers everything but itself. A frame is written by one
//! write, and is either whole or not there. `first` and `last` are the revisions of a journal frame;
//! in a snapshot they are its revision and the number of the frame in it. The records of a packed frame are one
//! LZ4 block after their length, 4 bytes: objects are alike, and a snapshot has all of them.
//!
//! The magic begins with a byte that no UTF-8 text contains, so that no object's JSON can look like a
//! frame to the search for frames behind a damage.

use bytes::Bytes;
use lz4_flex::block::{compress_prepend_size, decompress, uncompressed_size};
use toono_mvcc::{Entry, Event, EventKind, Key, Owner, Rev};

/// The bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 28;

/// The longest payload that is believed. A batch stays far below; this bounds what a damaged length
/// can make a reader allocate.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 64 * 1024 * 1024;

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Commits.
    Journal,
    /// Objects of a snapshot.
    Objects,
    /// The same, packed.
    Packed,
    /// The end of a snapshot, which says that all before it was written.
    End,
}

impl FrameKind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Journal => *b"\xffTJ\x01",
            Self::Objects => *b"\xffTS\x01",
            Self::Packed => *b"\xffTP\x01",
            Self::End => *b"\xffTE\x01",
        }
    }

    fn of(magic: [u8; 4]) -> Option<Self> {
        let all = [Self::Journal, Self::Objects, Self::Packed, Self::End];
        all.into_iter().find(|kind| kind.magic() == magic)
    }
}

/// A frame's first bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: FrameKind,
    crc: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) first: Rev,
    pub(crate) last: Rev,
}

impl Header {
    /// Reads a header; `None` if this is none.
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let header = Self {
            kind: FrameKind::of(take_array(&mut bytes)?)?,
            crc: u32::from_le_bytes(take_array(&mut bytes)?),
            payload_bytes: usize::try_from(u32::from_le_bytes(take_array(&mut bytes)?)).ok()?,
            first: take_rev(&mut bytes)?,
            last: take_rev(&mut bytes)?,
        };
        (header.payload_bytes <= MAX_PAYLOAD_BYTES).then_some(header)
    }

    /// Whether this header and `payload` are what was written.
    pub(crate) fn covers(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes
            && self.crc == checksum(self.kind, payload, self.first, self.last)
    }
}

fn checksum(kind: FrameKind, payload: &[u8], first: Rev, last: Rev) -> u32 {
    let crc = crc32c::crc32c(&kind.magic());
    let crc = crc32c::crc32c_append(crc, &(payload.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &first.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &last.0.to_le_bytes());
    crc32c::crc32c_append(crc, payload)
}

/// A whole frame at the beginning of `bytes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: Header,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// `None` if the bytes do not begin with a whole frame of this kind.
    pub(crate) fn parse(kind: FrameKind, bytes: &'a [u8]) -> Option<Self> {
        let header = Header::parse(bytes).filter(|header| header.kind == kind)?;
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(header.payload_bytes)?)?;
        header.covers(payload).then_some(Self { header, payload })
    }

    /// The bytes of the whole frame.
    pub(crate) fn len(&self) -> usize {
        HEADER_BYTES.saturating_add(self.payload.len())
    }

    /// Where the first whole frame of this kind begins at or after `from`.
    pub(crate) fn find(kind: FrameKind, bytes: &[u8], from: usize) -> Option<usize> {
        let magic = kind.magic();
        let mut from = from;
        loop {
            let rest = bytes.get(from..)?;
            let offset = from + rest.windows(magic.len()).position(|window| window == magic)?;
            if Frame::parse(kind, bytes.get(offset..)?).is_some() {
                return Some(offset);
            }
            from = offset + 1;
        }
    }
}

/// The records of a packed payload; `None` if it is none, or of more bytes than are believed.
pub(crate) fn unpack(payload: &[u8]) -> Option<Vec<u8>> {
    let (length, block) = uncompressed_size(payload).ok()?;
    if length > MAX_PAYLOAD_BYTES {
        return None;
    }
    decompress(block, length).ok().filter(|records| records.len() == length)
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: EventKind,
    pub(crate) entry: Entry,
}

/// Takes the next record off a payload; `None` if it has none, or something else.
pub(crate) fn take_record(payload: &mut &[u8]) -> Option<Record> {
    let kind = match take_array(payload)? {
        [PUT] => EventKind::Put,
        [DELETE] => EventKind::Delete,
        _ => return None,
    };
    let created = take_rev(payload)?;
    let modified = take_rev(payload)?;
    let key_bytes = u16::from_le_bytes(take_array(payload)?);
    let owner_bytes = u16::from_le_bytes(take_array(payload)?);
    let value_bytes = u32::from_le_bytes(take_array(payload)?);
    let key = std::str::from_utf8(take(payload, key_bytes.into())?).ok()?;
    let key = Key::parse(key)?;
    let owner = Owner::new(std::str::from_utf8(take(payload, owner_bytes.into())?).ok()?);
    // A copy, so that one object does not keep the whole file in memory.
    let value = Bytes::copy_from_slice(take(payload, usize::try_from(value_bytes).ok()?)?);
    Some(Record { kind, entry: Entry { key, value, created, modified, owner } })
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    take(bytes, N)?.try_into().ok()
}

fn take_rev(bytes: &mut &[u8]) -> Option<Rev> {
    take_array(bytes).map(u64::from_le_bytes).map(Rev)
}

/// A frame in the making. The buffer is kept from one frame to the next.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
}

impl FrameBuilder {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; HEADER_BYTES] }
    }

    /// The bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= HEADER_BYTES
    }

    /// Begins the next frame, giving back memory that one big frame took.
    pub(crate) fn clear(&mut self, keep_bytes: usize) {
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.shrink_to(keep_bytes);
    }

    /// Adds what happened.
    pub(crate) fn push_event(&mut self, event: &Event) {
        let kind = match event.kind {
            EventKind::Put => PUT,
            EventKind::Delete => DELETE,
        };
        self.push(kind, &event.entry);
    }

    /// Adds an object.
    pub(crate) fn push_object(&mut self, entry: &Entry) {
        self.push(PUT, entry);
    }

    /// The lengths fit: a commit whose parts are longer was refused before.
    fn push(&mut self, kind: u8, entry: &Entry) {
        let key = entry.key.as_str().as_bytes();
        let owner: &[u8] =
            if entry.owner.is_platform() { &[] } else { entry.owner.as_str().as_bytes() };
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&entry.created.0.to_le_bytes());
        self.bytes.extend_from_slice(&entry.modified.0.to_le_bytes());
        self.bytes.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.bytes.extend_from_slice(&u16::try_from(owner.len()).unwrap_or(u16::MAX).to_le_bytes());
        let value_bytes = u32::try_from(entry.value.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&value_bytes.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(owner);
        self.bytes.extend_from_slice(&entry.value);
    }

    /// Packs the records.
    pub(crate) fn pack(&mut self) {
        let block = compress_prepend_size(self.bytes.get(HEADER_BYTES..).unwrap_or_default());
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.extend_from_slice(&block);
    }

    /// The whole frame of a batch of commits.
    pub(crate) fn finish_commits(&mut self, first: Rev, last: Rev) -> &[u8] {
        self.finish(FrameKind::Journal, first, last)
    }

    /// Fills in the header and gives the whole frame.
    pub(crate) fn finish(&mut self, kind: FrameKind, first: Rev, last: Rev) -> &[u8] {
        let payload = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
        let crc = checksum(kind, payload, first, last);
        let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = kind
            .magic()
            .into_iter()
            .chain(crc.to_le_bytes())
            .chain(payload_bytes.to_le_bytes())
            .chain(first.0.to_le_bytes())
            .chain(last.0.to_le_bytes());
        for (place, byte) in self.bytes.iter_mut().zip(header) {
            *place = byte;
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let revs = (any::<u64>(), any::<u64>());
        (any::<bool>(), "[a-z.]{0,9}", "[a-z]{0,4}", vec(any::<u8>(), 0..50), revs).prop_map(
            |(delete, name, owner, value, (created, modified))| Record {
                kind: if delete { EventKind::Delete } else { EventKind::Put },
                entry: Entry {
                    key: Key::new("", "pods", "shop", &name),
                    value: value.into(),
                    created: Rev(created),
                    modified: Rev(modified),
                    owner: Owner::new(&owner),
                },
            },
        )
    }

    fn frame(records: &[Record], first: u64, last: u64) -> Vec<u8> {
        let mut builder = FrameBuilder::new();
        for Record { kind, entry } in records {
            let (rev, entry) = (entry.modified, entry.clone());
            builder.push_event(&Event { rev, kind: *kind, entry, prev: None });
        }
        builder.finish_commits(Rev(first), Rev(last)).to_vec()
    }

    proptest! {
        #[test]
        fn a_frame_is_read_back(
            records in vec(record(), 0..5),
            first: u64,
            last: u64,
            before in vec(any::<u8>(), 0..50),
        ) {
            let bytes = [before.clone(), frame(&records, first, last)].concat();
            let offset = Frame::find(FrameKind::Journal, &bytes, 0);
            prop_assert_eq!(offset, Some(before.len()));
            let frame = Frame::parse(FrameKind::Journal, &bytes[before.len()..]).unwrap();
            prop_assert_eq!((frame.header.first, frame.header.last), (Rev(first), Rev(last)));
            prop_assert_eq!(frame.len(), bytes.len() - before.len());
            let mut payload = frame.payload;
            for record in records {
                prop_assert_eq!(take_record(&mut payload), Some(record));
            }
            prop_assert!(payload.is_empty());
        }

        #[test]
        fn a_changed_frame_is_none(records in vec(record(), 0..5), place: usize, change in 1..=255_u8) {
            let mut bytes = frame(&records, 1, 2);
            let place = place % bytes.len();
            bytes[place] ^= change;
            prop_assert!(Frame::parse(FrameKind::Journal, &bytes).is_none());
            prop_assert!(Frame::parse(FrameKind::Journal, &bytes[..bytes.len() - 1]).is_none());
        }

        #[test]
        fn what_is_packed_comes_back(records in vec(record(), 0..40)) {
            let whole = frame(&records, 1, 2);
            let mut builder = FrameBuilder::new();
            records.iter().for_each(|record| builder.push(PUT, &record.entry));
            let before = builder.bytes[HEADER_BYTES..].to_vec();
            builder.pack();
            prop_assert_eq!(unpack(&builder.bytes[HEADER_BYTES..]).unwrap(), before);
            prop_assert_eq!(unpack(&whole[..2]), None);
        }

        #[test]
        fn any_bytes_are_packed_records_or_not(bytes in vec(any::<u8>(), 0..200)) {
            let _ = unpack(&bytes);
        }

        #[test]
        fn any_bytes_are_no_record_or_one(bytes in vec(any::<u8>(), 0..200)) {
            let mut payload = bytes.as_slice();
            while take_record(&mut payload).is_some() {}
        }
    }
}
