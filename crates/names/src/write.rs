//! Answers of our own, written record by record, and never longer than the client takes.

use crate::{
    message::{
        self, ANSWERS, CHECKING_DISABLED, CODE, Edns, HEAD, RECURSION_DESIRED, TRUNCATED, kind,
    },
    name::Name,
    zone::{Data, Record},
};

/// An OPT record without options.
pub(crate) const OPT_BYTES: usize = 11;
/// Names that later ones may point to; a longer answer repeats the others.
const MOST_NAMES: usize = 64;
/// A pointer has 14 bits.
const FARTHEST: usize = 0x3fff;

/// The sections after the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// What an answer repeats of its question, and how long it may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heading<'q> {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) raw: &'q [u8],
    pub(crate) edns: Option<Edns>,
    pub(crate) limit: usize,
}

impl Heading<'_> {
    /// Flags of every answer to it.
    pub(crate) fn answer_flags(&self) -> u16 {
        ANSWERS | self.flags & (RECURSION_DESIRED | CHECKING_DISABLED)
    }

    /// Bytes for all but what EDNS adds.
    pub(crate) fn room(&self) -> usize {
        self.limit - if self.edns.is_some() { OPT_BYTES } else { 0 }
    }
}

/// Writes one answer.
#[derive(Debug)]
pub(crate) struct Writer<'o, 'q> {
    out: &'o mut Vec<u8>,
    heading: Heading<'q>,
    counts: [u16; 3],
    names: Vec<(Name, u16)>,
    is_cut: bool,
}

impl<'o, 'q> Writer<'o, 'q> {
    /// Begins an answer in place of what was in `out`. The question's name may be pointed to, and so may the
    /// zone that it is in.
    pub(crate) fn begin(
        out: &'o mut Vec<u8>,
        heading: Heading<'q>,
        name: &Name,
        zone: Option<&Name>,
    ) -> Self {
        begin(out, heading);
        let mut names = vec![(name.clone(), HEAD)];
        if let Some(zone) = zone.filter(|zone| name.below(zone).is_some()) {
            names.push((zone.clone(), HEAD + name.as_bytes().len() - zone.as_bytes().len()));
        }
        let names = names.into_iter().filter_map(|(name, at)| Some((name, at.try_into().ok()?)));
        Self { out, heading, counts: [0; 3], names: names.collect(), is_cut: false }
    }

    /// Adds a record, unless it does not fit; then nothing more of that section should be added.
    pub(crate) fn record(&mut self, section: Section, record: &Record) -> bool {
        let Record { owner, ttl, data } = record;
        self.put(section, owner, data.kind(), *ttl, |this| this.data(data))
    }

    /// Adds a record whose data somebody else writes.
    pub(crate) fn put(
        &mut self,
        section: Section,
        owner: &Name,
        kind: u16,
        ttl: u32,
        data: impl FnOnce(&mut Self),
    ) -> bool {
        let (start, names) = (self.out.len(), self.names.len());
        self.name(owner);
        self.numbers(&[kind, message::INTERNET]);
        self.out.extend_from_slice(&ttl.to_be_bytes());
        let at = self.out.len();
        self.numbers(&[0]);
        data(self);
        let length = self.out.len() - at - 2;
        let fits = self.out.len() <= self.heading.room();
        if !fits || self.is_cut || !set(self.out, at, length) {
            self.out.truncate(start);
            self.names.truncate(names);
            // What is additional is not missed.
            self.is_cut |= section != Section::Additional;
            return false;
        }
        let [answers, authorities, additional] = &mut self.counts;
        *match section {
            Section::Answer => answers,
            Section::Authority => authorities,
            Section::Additional => additional,
        } += 1;
        true
    }

    /// Completes the answer.
    pub(crate) fn finish(self, flags: u16, code: u16) {
        let cut = if self.is_cut { TRUNCATED } else { 0 };
        let flags = self.heading.answer_flags() | flags | cut;
        finish(self.out, self.heading.edns, flags, code, self.counts);
    }

    fn data(&mut self, data: &Data) {
        match data {
            Data::A(address) => self.out.extend_from_slice(&address.octets()),
            Data::Aaaa(address) => self.out.extend_from_slice(&address.octets()),
            Data::Cname(name) | Data::Ptr(name) | Data::Ns(name) => self.whole_name(name),
            Data::Srv { weight, port, target } => {
                self.numbers(&[0, *weight, *port]);
                self.whole_name(target);
            }
            Data::Txt(text) => {
                self.out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                self.out.extend(text.bytes().take(usize::from(u8::MAX)));
            }
            Data::Soa(soa) => {
                self.whole_name(&soa.server);
                self.whole_name(&soa.mailbox);
                for number in [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum] {
                    self.out.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
    }

    /// Bytes of a record's data as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn numbers(&mut self, numbers: &[u16]) {
        numbers.iter().for_each(|it| self.out.extend_from_slice(&it.to_be_bytes()));
    }

    /// A name, or where it was written before.
    fn name(&mut self, name: &Name) {
        match self.names.iter().find(|(known, _)| known == name) {
            Some((_, at)) => self.numbers(&[0xc000 | *at]),
            None => self.whole_name(name),
        }
    }

    /// A name without pointers, as it must be in data of newer kinds (RFC 3597, 4).
    pub(crate) fn whole_name(&mut self, name: &Name) {
        if self.out.len() <= FARTHEST
            && self.names.len() < MOST_NAMES
            && let Ok(at) = u16::try_from(self.out.len())
        {
            self.names.push((name.clone(), at));
        }
        self.out.extend_from_slice(name.as_bytes());
    }
}

/// Head and question; what the head says is filled in by [`finish`].
pub(crate) fn begin(out: &mut Vec<u8>, heading: Heading<'_>) {
    out.clear();
    out.extend_from_slice(&heading.id.to_be_bytes());
    out.resize(HEAD, 0);
    out.extend_from_slice(heading.raw);
}

/// Flags, counts, and what EDNS adds.
pub(crate) fn finish(
    out: &mut Vec<u8>,
    edns: Option<Edns>,
    flags: u16,
    code: u16,
    counts: [u16; 3],
) {
    let [answers, authorities, mut additional] = counts;
    if let Some(edns) = edns {
        additional += 1;
        out.push(0);
        out.extend_from_slice(&kind::OPT.to_be_bytes());
        let size = u16::try_from(crate::MAX_DATAGRAM).unwrap_or(u16::MAX);
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&edns.ttl(code).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
    }
    let numbers = [flags | code & CODE, 1, answers, authorities, additional];
    for (place, number) in numbers.into_iter().enumerate() {
        let _ = set(out, 2 + 2 * place, number.into());
    }
}

/// Writes a number of 16 bits over what is there. Whether it has no more.
fn set(out: &mut [u8], at: usize, number: usize) -> bool {
    let Ok(number) = u16::try_from(number) else { return false };
    let place = out.get_mut(at..at + 2);
    place.map(|place| place.copy_from_slice(&number.to_be_bytes())).is_some()
}
