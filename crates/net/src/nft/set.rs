//! Sets and maps: what they are made of, to bytes and back. It owns the attributes of sets and of their
//! elements, and asks the kernel nothing.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    message::{Attributes, Reader},
    model::{ChainName, SetName, Verdict},
    socket::Object,
    verdict,
};

/// `NFTA_SET_*`.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
/// `NFTA_SET_DESC_SIZE`.
const DESCRIPTION_SIZE: u16 = 1;
/// `NFT_SET_INTERVAL`, `NFT_SET_MAP`, `NFT_SET_TIMEOUT`, `NFT_SET_EVAL`.
const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;
const FLAG_TIMEOUT: u32 = 0x10;
const FLAG_EVAL: u32 = 0x20;
/// `NFT_DATA_VERDICT`: the type of the data of verdict maps.
const TYPE_VERDICT: u32 = 0xffff_ff00;
/// How many bits `nft` gives to each type of a concatenation.
const TYPE_BITS: u32 = 6;

/// `NFTA_SET_ELEM_LIST_*`.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFTA_SET_ELEM_*`.
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// How many elements are told in one message: their list may have 64 KiB, and one takes up to 200 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// A part of a key or of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datum {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A transport protocol.
    Protocol,
    /// A port.
    Port,
    /// A number of four bytes.
    Number,
}

/// What a set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: SetName,
    /// What its keys are made of.
    pub key: Vec<Datum>,
    /// What its keys lead to.
    pub data: SetData,
    /// Who fills it.
    pub filled_by: FilledBy,
    /// What is in it; nothing where packets fill it.
    pub elements: BTreeMap<Key, Value>,
}

/// What the keys of a set lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetData {
    /// Nothing: they are in it, or are not.
    None,
    /// Verdicts.
    Verdict,
    /// Values that are made of this.
    Values(Vec<Datum>),
}

/// Who fills a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilledBy {
    /// We do, key by key.
    Keys,
    /// We do, by ranges: from a key up to the next one that ends a range.
    Ranges,
    /// Packets do, through [`super::Step::Remember`]; elements end by themselves.
    Packets {
        /// How many elements there may be.
        most: u32,
    },
}

/// A key, or the end of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    bytes: Vec<u8>,
    ends_range: bool,
}

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// A verdict.
    Verdict(Verdict),
    /// Data: the bytes of a [`Key`].
    Data(Key),
}

impl Key {
    /// An empty key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an address.
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.with(&address.octets()),
            IpAddr::V6(address) => self.with(&address.octets()),
        }
    }

    /// Appends a transport protocol.
    pub fn protocol(self, number: u8) -> Self {
        self.with(&[number])
    }

    /// Appends a port.
    pub fn port(self, port: u16) -> Self {
        self.with(&port.to_be_bytes())
    }

    /// Appends a number.
    pub fn number(self, number: u32) -> Self {
        self.with(&number.to_ne_bytes())
    }

    /// The first key after a range.
    pub fn ending_range(mut self) -> Self {
        self.ends_range = true;
        self
    }

    /// Parts of a concatenation begin at multiples of four bytes.
    fn with(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// A single part is not padded.
    fn wire(&self, parts: &[Datum]) -> &[u8] {
        let length = if parts.len() == 1 { length_of(parts) } else { self.bytes.len() };
        self.bytes.get(..length).unwrap_or(&self.bytes)
    }

    fn read(bytes: &[u8]) -> Self {
        Self::new().with(bytes)
    }
}

/// The number that `nft` has for the type, and its length in bytes.
fn describe(datum: Datum) -> (u32, usize) {
    match datum {
        Datum::Ipv4 => (7, 4),
        Datum::Ipv6 => (8, 16),
        Datum::Protocol => (12, 1),
        Datum::Port => (13, 2),
        Datum::Number => (19, 4),
    }
}

fn type_of(parts: &[Datum]) -> u32 {
    parts.iter().fold(0, |all, datum| all << TYPE_BITS | describe(*datum).0)
}

fn length_of(parts: &[Datum]) -> usize {
    match parts {
        [single] => describe(*single).1,
        _ => parts.iter().map(|datum| describe(*datum).1.next_multiple_of(4)).sum(),
    }
}

fn parts_of(number: u32) -> Option<Vec<Datum>> {
    const ALL: [Datum; 5] = [Datum::Ipv4, Datum::Ipv6, Datum::Protocol, Datum::Port, Datum::Number];
    let mut parts = Vec::new();
    let mut rest = number;
    while rest != 0 {
        let last = rest & ((1 << TYPE_BITS) - 1);
        parts.insert(0, ALL.into_iter().find(|datum| describe(*datum).0 == last)?);
        rest >>= TYPE_BITS;
    }
    Some(parts)
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The set itself; `id` tells it from the others of its transaction.
pub(super) fn encode(table: &str, set: &Set, id: u32) -> Attributes {
    let mut flags = match set.filled_by {
        FilledBy::Keys => 0,
        FilledBy::Ranges => FLAG_INTERVAL,
        FilledBy::Packets { .. } => FLAG_TIMEOUT | FLAG_EVAL,
    };
    if set.data != SetData::None {
        flags |= FLAG_MAP;
    }
    let mut attributes = Attributes::default()
        .text(SET_TABLE, table)
        .text(SET_NAME, set.name.as_str())
        .number(SET_FLAGS, flags)
        .number(SET_KEY_TYPE, type_of(&set.key))
        .number(SET_KEY_LENGTH, number(length_of(&set.key)));
    match &set.data {
        SetData::None => {}
        SetData::Verdict => attributes = attributes.number(SET_DATA_TYPE, TYPE_VERDICT),
        SetData::Values(parts) => {
            attributes = attributes
                .number(SET_DATA_TYPE, type_of(parts))
                .number(SET_DATA_LENGTH, number(length_of(parts)));
        }
    }
    if let FilledBy::Packets { most } = set.filled_by {
        let size = Attributes::default().number(DESCRIPTION_SIZE, most);
        attributes = attributes.nested(SET_DESCRIPTION, size);
    }
    attributes.number(SET_ID, id)
}

/// The set without its elements, if it is one of the table's. A set that is not known is a set without keys.
pub(super) fn decode(table: &str, object: &Object) -> Option<Set> {
    let attributes = object.attributes();
    if attributes.text(SET_TABLE) != Some(table) {
        return None;
    }
    let flags = attributes.number(SET_FLAGS).unwrap_or(0);
    let data = match attributes.number(SET_DATA_TYPE) {
        _ if flags & FLAG_MAP == 0 => SetData::None,
        Some(TYPE_VERDICT) => SetData::Verdict,
        number => SetData::Values(number.and_then(parts_of).unwrap_or_default()),
    };
    let size = || attributes.nested(SET_DESCRIPTION)?.number(DESCRIPTION_SIZE);
    let filled_by = if flags & FLAG_EVAL != 0 {
        FilledBy::Packets { most: size().unwrap_or(0) }
    } else if flags & FLAG_INTERVAL != 0 {
        FilledBy::Ranges
    } else {
        FilledBy::Keys
    };
    Some(Set {
        name: SetName::new(attributes.text(SET_NAME)?).ok()?,
        key: attributes.number(SET_KEY_TYPE).and_then(parts_of).unwrap_or_default(),
        data,
        filled_by,
        elements: BTreeMap::new(),
    })
}

/// What a set's elements are asked for by.
pub(super) fn filter(table: &str, set: &SetName) -> Attributes {
    Attributes::default().text(LIST_TABLE, table).text(LIST_SET, set.as_str())
}

/// Messages that tell these elements.
pub(super) fn encode_elements<'e>(
    table: &str,
    shape: &Shape<'_>,
    elements: impl Iterator<Item = (&'e Key, Option<&'e Value>)>,
) -> Vec<Attributes> {
    let mut messages = Vec::new();
    let mut list = Attributes::default();
    let mut count = 0;
    let close = |list| filter(table, shape.name).nested(LIST_ELEMENTS, list);
    for (key, value) in elements {
        list = list.nested(LIST_ELEMENT, encode_element(shape, key, value));
        count += 1;
        if count == ELEMENTS_PER_MESSAGE {
            messages.push(close(std::mem::take(&mut list)));
            count = 0;
        }
    }
    if count > 0 {
        messages.push(close(list));
    }
    messages
}

/// What must be known of a set to tell its elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'s> {
    pub(super) name: &'s SetName,
    pub(super) key: &'s [Datum],
    pub(super) data: &'s SetData,
}

impl Set {
    pub(super) fn shape(&self) -> Shape<'_> {
        Shape { name: &self.name, key: &self.key, data: &self.data }
    }
}

fn encode_element(shape: &Shape<'_>, key: &Key, value: Option<&Value>) -> Attributes {
    let constant = |bytes: &[u8]| Attributes::default().bytes(DATA_VALUE, bytes);
    let mut element = Attributes::default().nested(ELEMENT_KEY, constant(key.wire(shape.key)));
    match (value, shape.data) {
        (Some(Value::Verdict(verdict)), _) => {
            let verdict = Attributes::default().nested(DATA_VERDICT, verdict::encode(verdict));
            element = element.nested(ELEMENT_DATA, verdict);
        }
        (Some(Value::Data(data)), SetData::Values(parts)) => {
            element = element.nested(ELEMENT_DATA, constant(data.wire(parts)));
        }
        _ => {}
    }
    if key.ends_range {
        element = element.number(ELEMENT_FLAGS, INTERVAL_END);
    }
    element
}

/// The elements that an answer of the kernel tells.
pub(super) fn decode_elements(object: &Object) -> Vec<(Key, Value)> {
    let list = object.attributes().nested(LIST_ELEMENTS).unwrap_or(Reader::new(&[]));
    let elements = list.filter(|(kind, _)| *kind == LIST_ELEMENT);
    elements.filter_map(|(_, element)| decode_element(&Reader::new(element))).collect()
}

fn decode_element(element: &Reader<'_>) -> Option<(Key, Value)> {
    let mut key = Key::read(element.nested(ELEMENT_KEY)?.find(DATA_VALUE)?);
    key.ends_range = element.number(ELEMENT_FLAGS).unwrap_or(0) & INTERVAL_END != 0;
    let Some(data) = element.nested(ELEMENT_DATA) else { return Some((key, Value::None)) };
    let value = match data.nested(DATA_VERDICT) {
        Some(verdict) => Value::Verdict(verdict::decode(&verdict)?),
        None => Value::Data(Key::read(data.find(DATA_VALUE)?)),
    };
    Some((key, value))
}

impl Value {
    /// On in this chain.
    pub fn goto(chain: ChainName) -> Self {
        Self::Verdict(Verdict::Goto(chain))
    }
}
