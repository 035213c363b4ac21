//! The bytes of nfnetlink: message headers and attributes, written and read. It owns the framing of RFC 3549
//! and of `linux/netfilter/nfnetlink.h`, and does not know what the attributes mean. Bytes from the kernel
//! are taken apart without trust in their lengths.

/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const NFTABLES: u16 = 10;
/// `NFNL_SUBSYS_CTNETLINK`.
pub(crate) const CONNTRACK: u16 = 1;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_BATCH_GENID`.
const BATCH_GENERATION: u16 = 1;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `nlmsghdr`.
const HEADER: usize = 16;
/// `nfgenmsg`.
const GENERIC_HEADER: usize = 4;
/// `nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`: flags that are not part of an attribute's type.
const TYPE_FLAGS: u16 = 0xc000;

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: the ruleset changed while it was listed.
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;

/// Attributes being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = ATTRIBUTE_HEADER + value.len();
        // No attribute of ours comes near 64 KiB; a longer one would be cut and then refused by the kernel.
        self.0.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn long(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// Attributes in an attribute, as they were read.
    pub(crate) fn nested_bytes(self, kind: u16, inner: &[u8]) -> Self {
        self.bytes(kind | NESTED, inner)
    }
}

/// Messages being written, to be sent as one datagram.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    buffer: Vec<u8>,
    sequence: u32,
}

impl Messages {
    /// Starts with this sequence number.
    pub(crate) fn starting_at(sequence: u32) -> Self {
        Self { buffer: Vec::new(), sequence }
    }

    /// Adds a message of a subsystem; its sequence number is returned.
    pub(crate) fn push(
        &mut self,
        subsystem: u16,
        kind: u8,
        flags: u16,
        family: u8,
        attributes: &Attributes,
    ) -> u32 {
        self.raw(subsystem << 8 | u16::from(kind), flags, family, 0, &attributes.0)
    }

    /// Opens a transaction of nftables: all up to [`Messages::commit`] happens, or nothing. It also does not if
    /// the rulesets are not of this generation.
    pub(crate) fn begin(&mut self, generation: u32) {
        let attributes = Attributes::default().number(BATCH_GENERATION, generation);
        self.raw(BATCH_BEGIN, REQUEST, 0, NFTABLES, &attributes.0);
    }

    /// Closes the transaction.
    pub(crate) fn commit(&mut self) {
        self.raw(BATCH_END, REQUEST, 0, NFTABLES, &[]);
    }

    fn raw(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER + GENERIC_HEADER + body.len();
        self.buffer.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&flags.to_ne_bytes());
        self.buffer.extend_from_slice(&sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&[family, 0]);
        self.buffer.extend_from_slice(&resource.to_be_bytes());
        self.buffer.extend_from_slice(body);
        sequence
    }

    /// The datagram, and the sequence number after the last one in it.
    pub(crate) fn finish(self) -> (Vec<u8>, u32) {
        (self.buffer, self.sequence)
    }
}

/// The same single message with another sequence number.
pub(crate) fn with_sequence(message: &[u8], sequence: u32) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(place) = message.get_mut(8..12) {
        place.copy_from_slice(&sequence.to_ne_bytes());
    }
    message
}

/// A message that was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// An object of a subsystem.
    Object { sequence: u32, family: u8, interrupted: bool, attributes: &'a [u8] },
    /// The end of a list.
    Done { sequence: u32, interrupted: bool },
    /// The outcome of a request: 0, or a positive error number.
    Outcome { sequence: u32, errno: i32 },
    /// Of no concern to us.
    Other,
}

/// Takes a datagram apart. What is cut off at its end is left out.
pub(crate) fn messages(mut datagram: &[u8]) -> Vec<Received<'_>> {
    let mut found = Vec::new();
    while let Some((message, rest)) = next_message(datagram) {
        found.push(message);
        datagram = rest;
    }
    found
}

fn next_message(datagram: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(array(datagram, 0)?)).ok()?;
    let body = datagram.get(HEADER..length)?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    let kind = u16::from_ne_bytes(array(datagram, 4)?);
    let interrupted = u16::from_ne_bytes(array(datagram, 6)?) & INTERRUPTED != 0;
    let sequence = u32::from_ne_bytes(array(datagram, 8)?);
    let message = match kind {
        ERROR => Received::Outcome {
            sequence,
            errno: i32::from_ne_bytes(array(body, 0)?).saturating_neg(),
        },
        DONE => Received::Done { sequence, interrupted },
        _ if kind >> 8 == NFTABLES || kind >> 8 == CONNTRACK => Received::Object {
            sequence,
            family: *body.first()?,
            interrupted,
            attributes: body.get(GENERIC_HEADER..)?,
        },
        _ => Received::Other,
    };
    Some((message, rest))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Attributes being read: type and value, in order.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The first attribute of this type.
    pub(crate) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes in the first attribute of this type.
    pub(crate) fn nested(&self, kind: u16) -> Option<Reader<'a>> {
        self.find(kind).map(Reader)
    }

    pub(crate) fn text(&self, kind: u16) -> Option<&'a str> {
        let bytes = self.find(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(bytes.get(..end)?).ok()
    }

    pub(crate) fn number(&self, kind: u16) -> Option<u32> {
        array(self.find(kind)?, 0).map(u32::from_be_bytes)
    }

    pub(crate) fn byte(&self, kind: u16) -> Option<u8> {
        self.find(kind)?.first().copied()
    }

    pub(crate) fn short(&self, kind: u16) -> Option<u16> {
        array(self.find(kind)?, 0).map(u16::from_be_bytes)
    }

    pub(crate) fn long(&self, kind: u16) -> Option<u64> {
        array(self.find(kind)?, 0).map(u64::from_be_bytes)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(array(self.0, 0)?));
        let kind = u16::from_ne_bytes(array(self.0, 2)?) & !TYPE_FLAGS;
        let value = self.0.get(ATTRIBUTE_HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_come_back() {
        let inner = Attributes::default().text(1, "forward").number(2, 7);
        let written = Attributes::default().nested(3, inner).bytes(4, &[1, 2, 3]);
        let reader = Reader::new(&written.0);
        assert_eq!(reader.nested(3).unwrap().text(1), Some("forward"));
        assert_eq!(reader.nested(3).unwrap().number(2), Some(7));
        assert_eq!(reader.find(4), Some([1, 2, 3].as_slice()));
        assert_eq!(reader.count(), 2);
    }

    #[test]
    fn a_batch_counts_its_messages() {
        let mut batch = Messages::starting_at(5);
        batch.begin(1);
        let table = Attributes::default().text(1, "toono");
        assert_eq!(batch.push(NFTABLES, 0, REQUEST, 1, &table), 6);
        batch.commit();
        let (bytes, next) = batch.finish();
        assert_eq!(next, 8);
        assert!(matches!(
            messages(&bytes).as_slice(),
            [Received::Other, Received::Object { sequence: 6, family: 1, .. }, Received::Other]
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                if let Received::Object { attributes, .. } = message {
                    let _ = Reader::new(attributes).count();
                }
            }
            let _ = Reader::new(&bytes).count();
        }
    }
}
