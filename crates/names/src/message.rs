//! Questions and records as they travel (RFC 1035, 4.1; RFC 6891): read with care, copied nowhere.

use crate::name::{BadName, Name};

/// Bytes of a message's head.
pub(crate) const HEAD: usize = 12;
/// The message is an answer.
pub(crate) const ANSWERS: u16 = 0x8000;
/// It has been cut to fit.
pub(crate) const TRUNCATED: u16 = 0x0200;
/// Who answers is the authority for the name.
pub(crate) const AUTHORITATIVE: u16 = 0x0400;
/// Whoever asks wants others to be asked.
pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
/// Others are asked here.
pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
/// All data is verified (RFC 4035).
pub(crate) const AUTHENTIC: u16 = 0x0020;
/// Whoever asks verifies by himself.
pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
const OPCODE: u16 = 0x7800;
/// The flags' part that is the response code.
pub(crate) const CODE: u16 = 0x000f;
/// The class of the Internet.
pub(crate) const INTERNET: u16 = 1;
/// Any class.
const ANY_CLASS: u16 = 255;
/// In the TTL of an OPT record: signatures are wanted.
const DNSSEC_OK: u32 = 0x8000;

/// Kinds of records, by their numbers.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// A server of a zone.
    pub const NS: u16 = 2;
    /// Another name for it.
    pub const CNAME: u16 = 5;
    /// The start of a zone's authority.
    pub const SOA: u16 = 6;
    /// The name of an address.
    pub const PTR: u16 = 12;
    /// A mail exchanger.
    pub const MX: u16 = 15;
    /// Text.
    pub const TXT: u16 = 16;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// Where a service is.
    pub const SRV: u16 = 33;
    /// What EDNS adds to a message.
    pub const OPT: u16 = 41;
    /// The first of those that ask for more than records: transfers of zones, and the like.
    pub(crate) const FIRST_META: u16 = 249;
    /// Whatever there is.
    pub const ANY: u16 = 255;
}

/// Response codes.
pub(crate) mod code {
    pub(crate) const NO_ERROR: u16 = 0;
    pub(crate) const FORMAT: u16 = 1;
    pub(crate) const SERVER_FAILURE: u16 = 2;
    pub(crate) const NO_NAME: u16 = 3;
    pub(crate) const NOT_IMPLEMENTED: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    /// Its high bits are in the OPT record.
    pub(crate) const BAD_VERSION: u16 = 16;
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question<'m> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// The name in lower case.
    pub name: Name,
    /// The kind of record.
    pub kind: u16,
    /// Name, kind and class as they were sent.
    pub(crate) raw: &'m [u8],
    /// What the client can take, if it says.
    pub edns: Option<Edns>,
}

/// What a client can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Longest datagram.
    pub size: u16,
    /// Signatures are wanted.
    pub dnssec_ok: bool,
}

/// A message that is no question to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is an answer, or has no head. It is not answered.
    #[error("not a question")]
    Silent,
    /// It is told so, in a head alone.
    #[error("refused with code {code}")]
    Told {
        /// Its number.
        id: u16,
        /// Its flags.
        flags: u16,
        /// The response code.
        code: u16,
    },
}

impl<'m> Question<'m> {
    /// Reads a question.
    ///
    /// # Errors
    /// When it is none, or one that is not answered here.
    pub fn read(message: &'m [u8]) -> Result<Self, Refused> {
        let head = Head::read(message).ok_or(Refused::Silent)?;
        if head.flags & ANSWERS != 0 {
            return Err(Refused::Silent);
        }
        let told = |code| Refused::Told { id: head.id, flags: head.flags, code };
        if head.flags & OPCODE != 0 {
            return Err(told(code::NOT_IMPLEMENTED));
        }
        if head.counts[0] != 1 {
            return Err(told(code::FORMAT));
        }
        let (name, kind, class, end) = question(message).map_err(|_| told(code::FORMAT))?;
        let raw = message.get(HEAD..end).unwrap_or_default();
        // A name with pointers has none to point to here.
        if raw.len() != name.as_bytes().len() + 4 {
            return Err(told(code::FORMAT));
        }
        let edns = edns(message, &head, end).map_err(told)?;
        if kind == kind::OPT || (kind::FIRST_META..kind::ANY).contains(&kind) {
            return Err(told(code::NOT_IMPLEMENTED));
        }
        if class != INTERNET && class != ANY_CLASS {
            return Err(told(code::REFUSED));
        }
        Ok(Self { id: head.id, flags: head.flags, name, kind, raw, edns })
    }
}

/// The first question of a message: name, kind, class, and where it ends.
pub(crate) fn question(message: &[u8]) -> Result<(Name, u16, u16, usize), BadName> {
    let (name, at) = Name::read(message, HEAD)?;
    let (kind, class) = (number(message, at)?, number(message, at + 2)?);
    Ok((name, kind, class, at + 4))
}

/// What EDNS says in a question; the error is a response code.
fn edns(message: &[u8], head: &Head, at: usize) -> Result<Option<Edns>, u16> {
    let mut found = None;
    for record in Walk::over(message, at, head.records()) {
        let record = record.map_err(|_| code::FORMAT)?;
        if record.kind != kind::OPT {
            continue;
        }
        if found.is_some() || message.get(record.start) != Some(&0) {
            return Err(code::FORMAT);
        }
        let [_, version, ..] = record.ttl.to_be_bytes();
        if version != 0 {
            return Err(code::BAD_VERSION);
        }
        let dnssec_ok = record.ttl & DNSSEC_OK != 0;
        found = Some(Edns { size: record.class, dnssec_ok });
    }
    Ok(found)
}

impl Edns {
    /// The TTL of an OPT record that says so.
    pub(crate) fn ttl(self, code: u16) -> u32 {
        let wants = if self.dnssec_ok { DNSSEC_OK } else { 0 };
        u32::from(code >> 4) << 24 | wants
    }
}

/// A message's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    /// Questions, answers, authorities, additional records.
    pub(crate) counts: [u16; 4],
}

impl Head {
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let numbers = message.first_chunk::<HEAD>()?.chunks_exact(2);
        let mut numbers = numbers.filter_map(|it| it.try_into().ok().map(u16::from_be_bytes));
        let (id, flags) = (numbers.next()?, numbers.next()?);
        let mut count = || numbers.next();
        Some(Self { id, flags, counts: [count()?, count()?, count()?, count()?] })
    }

    /// How many records follow the question, in all sections.
    pub(crate) fn records(&self) -> usize {
        let [_, records @ ..] = self.counts;
        records.into_iter().map(usize::from).sum()
    }
}

/// A record where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    /// Where its name begins.
    pub(crate) start: usize,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Where its TTL is.
    pub(crate) ttl_at: usize,
    pub(crate) ttl: u32,
    /// Where its data begins.
    pub(crate) data: usize,
    /// What follows it.
    pub(crate) end: usize,
}

/// Goes over records.
#[derive(Debug)]
pub(crate) struct Walk<'m> {
    message: &'m [u8],
    at: usize,
    left: usize,
}

impl<'m> Walk<'m> {
    pub(crate) fn over(message: &'m [u8], at: usize, records: usize) -> Self {
        Self { message, at, left: records }
    }

    fn read(&self) -> Result<Placed, BadName> {
        let (message, start) = (self.message, self.at);
        let at = Name::skip(message, start)?;
        let (kind, class) = (number(message, at)?, number(message, at + 2)?);
        let high = u32::from(number(message, at + 4)?);
        let ttl = high << 16 | u32::from(number(message, at + 6)?);
        let data = at + 10;
        let end = data + usize::from(number(message, at + 8)?);
        if end > message.len() {
            return Err(BadName);
        }
        Ok(Placed { start, kind, class, ttl_at: at + 4, ttl, data, end })
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Placed, BadName>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.read();
        match &record {
            Ok(record) => self.at = record.end,
            Err(_) => self.left = 0,
        }
        Some(record)
    }
}

pub(crate) fn number(message: &[u8], at: usize) -> Result<u16, BadName> {
    let bytes = message.get(at..).and_then(|rest| rest.first_chunk::<2>()).ok_or(BadName)?;
    Ok(u16::from_be_bytes(*bytes))
}
