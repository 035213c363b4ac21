//! What an upstream is asked, and whether what comes back is its answer (RFC 5452).

use crate::{
    message::{
        ANSWERS, CHECKING_DISABLED, CODE, Edns, HEAD, Head, INTERNET, RECURSION_DESIRED, TRUNCATED,
        Walk, code, kind, number, question,
    },
    name::Name,
    write,
};

/// The longest time for which an answer is believed. Sites that are cut off live from what is kept beyond its
/// time, not from this.
const MAX_TTL: u32 = 3_600;
/// The same when it says that there is nothing: what is made a moment later is to be found soon.
const MAX_NEGATIVE_TTL: u32 = 300;
/// A TTL with the highest bit is 0 (RFC 2181, 8).
const NO_TTL: u32 = 1 << 31;

/// A question to an upstream. Equal ones have equal answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask {
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

/// What an upstream said: its message without what EDNS added, and for how long it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub(crate) message: Vec<u8>,
    /// Seconds; 0 when it is not to be kept.
    pub(crate) ttl: u32,
}

/// What a message is to who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// No answer to this question: somebody else's, late, or made up. The answer may still come.
    Other,
    /// It does not fit in a datagram.
    Cut,
    /// The upstream does not know EDNS.
    WithoutEdns,
    /// The upstream has no answer, with this response code.
    Failed(u16),
    /// The answer.
    Said(Said),
}

impl Ask {
    /// The name that is asked for.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// A question for the kind of record with this number.
    #[must_use]
    pub fn of(name: Name, kind: u16) -> Self {
        Self { name, kind, dnssec_ok: false, checking_disabled: false }
    }

    /// The message that asks it. Nobody must be able to guess the id.
    #[must_use]
    pub fn message(&self, id: u16, with_edns: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.name.as_bytes().len() + 4 + write::OPT_BYTES);
        out.extend_from_slice(&id.to_be_bytes());
        out.resize(HEAD, 0);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&INTERNET.to_be_bytes());
        let checks = if self.checking_disabled { CHECKING_DISABLED } else { 0 };
        let edns = with_edns.then_some(Edns { size: 0, dnssec_ok: self.dnssec_ok });
        write::finish(&mut out, edns, RECURSION_DESIRED | checks, code::NO_ERROR, [0; 3]);
        out
    }

    /// What a message is that came back where the question with this id was sent from.
    #[must_use]
    pub fn judge(&self, id: u16, message: &[u8], by_tcp: bool, with_edns: bool) -> Judged {
        let Some(head) = Head::read(message) else { return Judged::Other };
        if head.id != id || head.flags & ANSWERS == 0 {
            return Judged::Other;
        }
        let code = head.flags & CODE;
        if with_edns && matches!(code, code::FORMAT | code::NOT_IMPLEMENTED) {
            return Judged::WithoutEdns;
        }
        let Ok((name, kind, class, end)) = question(message) else { return Judged::Other };
        let length = HEAD + self.name.as_bytes().len() + 4;
        let same = (&name, kind, class, end) == (&self.name, self.kind, INTERNET, length);
        if head.counts.first() != Some(&1) || !same {
            return Judged::Other;
        }
        if head.flags & TRUNCATED != 0 && !by_tcp {
            return Judged::Cut;
        }
        if code != code::NO_ERROR && code != code::NO_NAME {
            return Judged::Failed(code);
        }
        said(&head, message, end, self.kind).map_or(Judged::Failed(code::FORMAT), Judged::Said)
    }
}

/// The answer without what EDNS added; none when it cannot be read.
fn said(head: &Head, message: &[u8], at: usize, wanted: u16) -> Option<Said> {
    let [_, answers, authorities, _] = head.counts.map(usize::from);
    let (mut end, mut additional) = (at, 0_u16);
    let (mut ttl, mut negative, mut answered) = (MAX_TTL, None, false);
    for (index, record) in Walk::over(message, at, head.records()).enumerate() {
        let record = record.ok()?;
        if index >= answers + authorities {
            // Behind it nothing may point at what moves when it is taken out, so the rest goes too.
            if record.kind == kind::OPT {
                break;
            }
            additional += 1;
        } else if index >= answers {
            if record.kind == kind::SOA {
                let minimum = record.end.checked_sub(4).filter(|at| *at >= record.data)?;
                let high = u32::from(number(message, minimum).ok()?);
                let minimum = high << 16 | u32::from(number(message, minimum + 2).ok()?);
                negative = Some(record.ttl.min(minimum));
            }
        } else {
            answered |= record.kind == wanted || wanted == kind::ANY;
            ttl = ttl.min(if record.ttl >= NO_TTL { 0 } else { record.ttl });
        }
        end = record.end;
    }
    if !answered {
        // Without an SOA it is not kept (RFC 2308, 5).
        ttl = ttl.min(negative.unwrap_or(0)).min(MAX_NEGATIVE_TTL);
    }
    let mut message = message.get(..end)?.to_vec();
    message.get_mut(10..12)?.copy_from_slice(&additional.to_be_bytes());
    Some(Said { message, ttl })
}
