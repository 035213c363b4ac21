//! Datagrams between neighbours: laid out, sealed, read. Who they are from and for is in what is sealed.
//!
//! | size | field |
//! |---|---|
//! | 1 | `0x11` probe, `0x12` answer, `0x13` look: version 1 in the high nibble |
//! | 8 | number: of a probe, that its answer repeats |
//! | 1, n | length and text of the sender's name |
//! | 8 | digest: of the word that the prober has of who it asks; of the word of who answers |
//! | 1, n … | look: for each of whom to look at, length and text of its name |
//! | 1, 4 or 16 … | answer, if the prober has another word: for each address 4 or 6, and the address |
//! | 16 | the first half of HMAC-SHA256 over all before and the receiver's name |

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ring::hmac;

use crate::word::Word;

/// No datagram is longer: 250 addresses of IPv4 fit, and 66 of IPv6.
pub const MAX_DATAGRAM: usize = 1_400;
const PROBE: u8 = 0x11;
const ANSWER: u8 = 0x12;
const LOOK: u8 = 0x13;
const TAG: usize = 16;

/// What the nodes of one pool have in common.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// From the bytes that the cloud gave.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    fn tag(&self, body: &[u8], receiver: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(body);
        context.update(receiver.as_bytes());
        context.sign()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) number: u64,
    pub(crate) from: String,
    pub(crate) content: Content,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Probe { known: u64 },
    Answer { digest: u64, word: Option<Word> },
    Look { at: Vec<Arc<str>> },
}

impl Datagram {
    /// The bytes for a receiver; none if they would be too long.
    pub(crate) fn seal(&self, key: &Key, receiver: &str) -> Option<Vec<u8>> {
        let (kind, digest) = match &self.content {
            Content::Probe { known } => (PROBE, *known),
            Content::Answer { digest, .. } => (ANSWER, *digest),
            Content::Look { .. } => (LOOK, 0),
        };
        let mut out = vec![kind];
        out.extend(self.number.to_be_bytes());
        put_name(&mut out, &self.from)?;
        out.extend(digest.to_be_bytes());
        match &self.content {
            Content::Look { at } => at.iter().try_for_each(|name| put_name(&mut out, name))?,
            Content::Answer { word: Some(word), .. } => {
                word.addresses().for_each(|address| put_address(&mut out, address));
            }
            Content::Probe { .. } | Content::Answer { .. } => {}
        }
        let tag = key.tag(&out, receiver);
        out.extend(tag.as_ref().get(..TAG)?);
        (out.len() <= MAX_DATAGRAM).then_some(out)
    }

    /// Reads what was sealed for this receiver; none if it was not, or not so.
    pub(crate) fn open(bytes: &[u8], key: &Key, receiver: &str) -> Option<Self> {
        if bytes.len() > MAX_DATAGRAM {
            return None;
        }
        let (body, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        let mut reader = Reader(body);
        let [kind] = *reader.take::<1>()?;
        if !matches!(kind, PROBE | ANSWER | LOOK) {
            return None;
        }
        let wanted = key.tag(body, receiver);
        let wanted = wanted.as_ref().get(..TAG)?;
        // In a time that does not depend on where they differ.
        let differs = wanted.iter().zip(tag).fold(0, |sum, (a, b)| sum | (a ^ b));
        if std::hint::black_box(differs) != 0 {
            return None;
        }
        let number = u64::from_be_bytes(*reader.take()?);
        let from = reader.name()?;
        let digest = u64::from_be_bytes(*reader.take()?);
        let content = match kind {
            PROBE => Content::Probe { known: digest },
            LOOK => Content::Look { at: reader.names()? },
            _ => Content::Answer { digest, word: reader.word(digest)? },
        };
        reader.0.is_empty().then_some(Self { number, from, content })
    }
}

fn put_name(out: &mut Vec<u8>, name: &str) -> Option<()> {
    out.push(u8::try_from(name.len()).ok()?);
    out.extend(name.as_bytes());
    Some(())
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend(address.octets());
        }
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take<const N: usize>(&mut self) -> Option<&'b [u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(first)
    }

    fn name(&mut self) -> Option<String> {
        let [length] = *self.take::<1>()?;
        let (name, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty())
    }

    /// The names that are left: one at least.
    fn names(&mut self) -> Option<Vec<Arc<str>>> {
        let mut names = vec![self.name()?.into()];
        while !self.0.is_empty() {
            names.push(self.name()?.into());
        }
        Some(names)
    }

    /// The word that is left, if there is one; nothing if it is not the one that it is called.
    fn word(&mut self, digest: u64) -> Option<Option<Word>> {
        if self.0.is_empty() {
            // That of a node whose pods are all unready is as short as none.
            let none = Word::default();
            return Some((none.digest() == digest).then_some(none));
        }
        let mut ready = BTreeSet::new();
        while !self.0.is_empty() {
            let address = match *self.take::<1>()? {
                [4] => IpAddr::from(*self.take::<4>()?),
                [6] => IpAddr::from(*self.take::<16>()?),
                _ => return None,
            };
            ready.insert(address);
        }
        let word = Word::new(ready).filter(|word| word.digest() == digest)?;
        Some(Some(word))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagrams() -> Vec<Datagram> {
        let ready = ["10.244.0.2", "10.244.0.77", "fd00::1"].map(|it| it.parse().unwrap());
        let word = Word::new(ready.into()).unwrap();
        let silent = Word::default();
        [
            Content::Probe { known: 7 },
            Content::Answer { digest: word.digest(), word: None },
            Content::Answer { digest: word.digest(), word: Some(word) },
            Content::Answer { digest: silent.digest(), word: Some(silent) },
            Content::Look { at: vec!["edge-3".into()] },
            Content::Look { at: vec!["edge-3".into(), "edge-4".into()] },
        ]
        .map(|content| Datagram { number: 9, from: "edge-1".into(), content })
        .into()
    }

    #[test]
    fn what_is_sealed_for_one_is_read_by_that_one() {
        let (key, other) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
        for datagram in datagrams() {
            let bytes = datagram.seal(&key, "edge-2").unwrap();
            assert_eq!(Datagram::open(&bytes, &key, "edge-2"), Some(datagram));
            assert_eq!(Datagram::open(&bytes, &key, "edge-3"), None, "for somebody else");
            assert_eq!(Datagram::open(&bytes, &other, "edge-2"), None, "of another pool");
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                assert_eq!(Datagram::open(&flipped, &key, "edge-2"), None, "at {at}");
                assert_eq!(Datagram::open(&bytes[..at], &key, "edge-2"), None, "up to {at}");
            }
        }
    }

    #[test]
    fn a_word_that_is_too_long_is_none() {
        let some = |count: u8| (0..count).map(|last| IpAddr::from([10, 244, 0, last])).collect();
        let word = Word::new(some(250)).unwrap();
        let content = Content::Answer { digest: word.digest(), word: Some(word) };
        let datagram = Datagram { number: 1, from: "n".repeat(63), content };
        assert!(datagram.seal(&Key::new(&[1]), "b").is_some());
        assert!(Word::new(some(251)).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_stumble(bytes: Vec<u8>, kind in 0x11..0x14_u8) {
            let key = Key::new(&[1; 32]);
            let mut body = vec![kind];
            body.extend(bytes);
            body.extend(key.tag(&body, "b").as_ref()[..TAG].to_vec());
            let _ = Datagram::open(&body, &key, "b");
        }
    }
}
