//! A part as its reader keeps it: frames are applied to it, and it never believes one that does not fit.

use std::sync::Arc;

use super::{
    Records, Version,
    frame::{BadFrame, Frame},
};

/// The records, and what version of the part they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    records: Records,
    version: Version,
}

/// Which records a frame came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// It was a whole part: whatever there was may be another one, or gone.
    All,
    /// These came, changed or went.
    Keys(Vec<Arc<str>>),
}

/// Why a frame was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It goes on from another version. Nothing changed.
    #[error("the frame goes on from revision {since}, not from {held}")]
    Since {
        /// What it goes on from.
        since: u64,
        /// What is there.
        held: u64,
    },
    /// It cannot be read. Nothing changed.
    #[error(transparent)]
    Bad(#[from] BadFrame),
    /// It did not lead to what it says. The part is empty now, so that it is fetched as a whole.
    #[error("the frame does not lead to the digest that it names")]
    Digest,
}

impl Part {
    /// What is there.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Applies a frame whose signature is right. Which records it touched.
    ///
    /// # Errors
    /// Why it did not.
    pub fn apply(&mut self, frame: &Frame) -> Result<Touched, Misfit> {
        if !frame.is_whole() && frame.since != self.version {
            let (since, held) = (frame.since.revision, self.version.revision);
            return Err(Misfit::Since { since, held });
        }
        let changes = frame.changes()?;
        if frame.is_whole() {
            self.records = Records::default();
        }
        let mut keys = Vec::new();
        keys.extend(changes.gone.iter().filter_map(|key| self.records.remove(key)));
        let changed = changes.changed.iter();
        keys.extend(changed.filter_map(|(key, text)| self.records.put(key, text)));
        if self.records.digest() != frame.now.digest {
            *self = Self::default();
            return Err(Misfit::Digest);
        }
        self.version = frame.now;
        Ok(if frame.is_whole() { Touched::All } else { Touched::Keys(keys) })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{super::frame::Changes, *};

    fn changes(changed: &[(&str, &str)], gone: &[&str]) -> Changes {
        Changes {
            changed: changed.iter().map(|(k, t)| (Arc::from(*k), Arc::from(*t))).collect(),
            gone: gone.iter().map(|key| Arc::from(*key)).collect(),
        }
    }

    fn version(revision: u64, records: &Records) -> Version {
        Version { revision, digest: records.digest() }
    }

    fn sent(frame: &Frame) -> Frame {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), frame.size());
        let mut all = Frame::decode_all(Bytes::from(bytes)).unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn a_part_goes_from_version_to_version() {
        let mut records = Records::default();
        records.put("a", "1");
        records.put("b", r#"{"x": [ 1 ]}"#);
        let first = version(5, &records);
        let whole = changes(&[("a", "1"), ("b", r#"{"x": [ 1 ]}"#)], &[]);
        let whole = sent(&Frame::of("", Version::NONE, first, &whole).unwrap());
        records.remove("a");
        records.put("c", "null");
        let second = version(9, &records);
        let delta = changes(&[("c", "null")], &["a"]);
        let delta = sent(&Frame::of("shop", first, second, &delta).unwrap());
        let mut part = Part::default();
        assert_eq!(part.apply(&delta), Err(Misfit::Since { since: 5, held: 0 }));
        assert_eq!(part.apply(&whole), Ok(Touched::All));
        let touched = ["a", "c"].map(Arc::from).to_vec();
        assert_eq!(part.apply(&delta), Ok(Touched::Keys(touched)));
        assert_eq!((part.version(), part.records()), (second, &records));
        assert!(part.apply(&delta).is_err(), "once");
        part.apply(&whole).unwrap();
        assert_eq!(part.version(), first, "whole frames lead anywhere");
    }

    #[test]
    fn a_frame_that_lies_leaves_nothing_behind() {
        let lie = Version { revision: 3, digest: 1 };
        let frame = Frame::of("", Version::NONE, lie, &changes(&[("a", "1")], &[])).unwrap();
        let mut part = Part::default();
        assert_eq!(part.apply(&frame), Err(Misfit::Digest));
        assert_eq!(part, Part::default());
        let other = changes(&[("a", "1"), ("a b", "no json")], &[]);
        assert!(Frame::of("", Version::NONE, lie, &other).is_none());
    }

    #[test]
    fn what_is_cut_off_anywhere_is_no_frame() {
        let frame = Frame::of("shop", Version::NONE, Version::NONE, &changes(&[("a", "1")], &[]));
        let mut bytes = Vec::new();
        frame.unwrap().encode(&mut bytes);
        for length in 1..bytes.len() {
            assert!(Frame::decode_all(Bytes::copy_from_slice(&bytes[..length])).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_stumble(bytes: Vec<u8>, at: usize, flip: u8) {
            let _ = Frame::decode_all(Bytes::from(bytes));
            let whole = changes(&[("a", "1"), ("b", "[2]")], &[]);
            let frame = Frame::of("p", Version::NONE, Version { revision: 1, digest: 2 }, &whole).unwrap();
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            for frame in Frame::decode_all(Bytes::from(bytes)).unwrap_or_default() {
                let _ = Part::default().apply(&frame);
            }
        }
    }
}
