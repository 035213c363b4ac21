//! Answers as one client gets them: of the zone, of an upstream, or that there is none.

use crate::{
    message::{
        ANSWERS, AUTHENTIC, AUTHORITATIVE, CODE, HEAD, Head, RECURSION_AVAILABLE, TRUNCATED, Walk,
        code, kind,
    },
    name::Name,
    write::{self, Heading, Section, Writer},
    zone::{Found, Record, Zone},
};

/// For how long a client may keep what is told beyond its time (RFC 8767, 5).
const STALE_TTL: u32 = 30;

/// What an upstream once said, and how old that is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'m> {
    pub(crate) message: &'m [u8],
    pub(crate) age_s: u32,
    /// Its time is over.
    pub(crate) is_stale: bool,
}

/// Writes that a message is refused: a head, so that it is no longer than what was sent.
pub(crate) fn refusal(out: &mut Vec<u8>, id: u16, flags: u16, code: u16) {
    out.clear();
    out.extend_from_slice(&id.to_be_bytes());
    let kept = flags & !(AUTHORITATIVE | TRUNCATED | RECURSION_AVAILABLE | AUTHENTIC | CODE);
    // The extended code needs an OPT record, and whoever sent one that is not understood has another version.
    let code = if code > CODE { code::FORMAT } else { code };
    out.extend_from_slice(&(kept | ANSWERS | code).to_be_bytes());
    out.resize(HEAD, 0);
}

/// Writes that there is no answer now.
pub(crate) fn failure(out: &mut Vec<u8>, heading: Heading<'_>, code: u16) {
    write::begin(out, heading);
    write::finish(out, heading.edns, heading.answer_flags() | RECURSION_AVAILABLE, code, [0; 3]);
}

/// Writes what the zone says.
pub(crate) fn of_zone(
    out: &mut Vec<u8>,
    heading: Heading<'_>,
    name: &Name,
    zone: &Zone,
    found: &Found,
) {
    let mut writer = Writer::begin(out, heading, name, Some(zone.domain()));
    let (answers, additional) = match found {
        Found::Records { answers, additional } => (answers.as_slice(), additional.as_slice()),
        _ => Default::default(),
    };
    let _ = answers.iter().all(|record| writer.record(Section::Answer, record));
    let _ = additional.iter().all(|record| writer.record(Section::Additional, record));
    if answers.is_empty() {
        writer.record(Section::Authority, &zone.soa());
    }
    let code = if matches!(found, Found::NoName) { code::NO_NAME } else { code::NO_ERROR };
    writer.finish(AUTHORITATIVE | RECURSION_AVAILABLE, code);
}

/// Writes what an upstream said, as this client asked for it. None when it does not fit the question.
pub(crate) fn of_upstream(out: &mut Vec<u8>, heading: Heading<'_>, kept: Kept<'_>) -> Option<()> {
    let head = Head::read(kept.message)?;
    let body = HEAD + heading.raw.len();
    write::begin(out, heading);
    out.extend_from_slice(kept.message.get(body..)?);
    let mut counts = [0_u16; 3];
    let [_, answers, authorities, _] = head.counts.map(usize::from);
    let (mut end, mut cut) = (body, head.flags & TRUNCATED);
    for (index, record) in Walk::over(kept.message, body, head.records()).enumerate() {
        let record = record.ok()?;
        let section = usize::from(index >= answers) + usize::from(index >= answers + authorities);
        if record.end > heading.room() {
            cut |= if section < 2 { TRUNCATED } else { 0 };
            break;
        }
        let left = record.ttl.saturating_sub(kept.age_s);
        let ttl = if kept.is_stale { STALE_TTL } else { left };
        out.get_mut(record.ttl_at..record.ttl_at + 4)?.copy_from_slice(&ttl.to_be_bytes());
        *counts.get_mut(section)? += 1;
        end = record.end;
    }
    out.truncate(end);
    let verified = if heading.edns.is_some_and(|it| it.dnssec_ok) { AUTHENTIC } else { 0 };
    let flags = heading.answer_flags() | RECURSION_AVAILABLE | cut | head.flags & verified;
    write::finish(out, heading.edns, flags, head.flags & CODE, counts);
    Some(())
}

/// Writes the names by which the zone leads elsewhere, and what is there.
pub(crate) fn of_alias(
    out: &mut Vec<u8>,
    heading: Heading<'_>,
    name: &Name,
    chain: &[Record],
    kept: Option<Kept<'_>>,
) {
    let mut writer = Writer::begin(out, heading, name, None);
    let _ = chain.iter().all(|record| writer.record(Section::Answer, record));
    let code = match kept {
        None => code::SERVER_FAILURE,
        Some(kept) => copy_answers(&mut writer, kept).unwrap_or(code::SERVER_FAILURE),
    };
    writer.finish(RECURSION_AVAILABLE, code);
}

/// Copies the answers of a message, with their names spelled out: pointers lead elsewhere in another message.
fn copy_answers(writer: &mut Writer<'_, '_>, kept: Kept<'_>) -> Option<u16> {
    let message = kept.message;
    let head = Head::read(message)?;
    let at = Name::skip(message, HEAD).ok()? + 4;
    let [_, answers, ..] = head.counts;
    for record in Walk::over(message, at, answers.into()) {
        let record = record.ok()?;
        let (owner, _) = Name::read(message, record.start).ok()?;
        let data = message.get(record.data..record.end)?;
        let plain = match record.kind {
            kind::CNAME | kind::PTR | kind::NS => 0,
            kind::MX => 2,
            kind::SRV => 6,
            // Its names are of no use to who asked for the alias.
            kind::SOA => continue,
            _ => data.len(),
        };
        let name = (plain < data.len())
            .then(|| Name::read(message, record.data + plain).map(|(name, _)| name));
        let name = name.transpose().ok()?;
        let left = record.ttl.saturating_sub(kept.age_s);
        let ttl = if kept.is_stale { STALE_TTL } else { left };
        let fits = writer.put(Section::Answer, &owner, record.kind, ttl, |writer| {
            writer.bytes(data.get(..plain).unwrap_or_default());
            if let Some(name) = &name {
                writer.whole_name(name);
            }
        });
        if !fits {
            break;
        }
    }
    Some(head.flags & CODE)
}
