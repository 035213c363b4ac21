//! Questions in, answers and questions to upstreams out: who waits for what, and how many may.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use toono_wire::pool::Records;

use crate::{
    MAX_DATAGRAM, MAX_MESSAGE,
    cache::Cache,
    counters::Counters,
    message::{CHECKING_DISABLED, Edns, Question, RECURSION_DESIRED, Refused, code, kind},
    name::Name,
    reply::{self, Kept},
    upstream::{Ask, Said},
    write::Heading,
    zone::{Found, Record, Zone},
};

/// Questions that upstreams are asked at the same time: each is a socket.
const MOST_ASKED: usize = 256;
/// The same of one client, so that one pod cannot take all of them.
const MOST_OF_ONE: usize = 64;
/// Clients that wait for one answer.
const MOST_WAITING: usize = 64;
/// Aliases of the zone that lead to one another.
const MOST_ALIASES: usize = 8;
/// The shortest limit of a datagram that a client may have (RFC 6891, 6.2.3).
const LEAST_DATAGRAM: usize = 512;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In a datagram.
    Udp,
    /// By the connection with this number, which is its owner's choice.
    Tcp(u64),
}

/// Who gets an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whom {
    /// Where the question came from.
    pub address: SocketAddr,
    /// How.
    pub way: Way,
}

/// What to do about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// Send back what was written.
    Answer,
    /// Ask an upstream, and tell [`Server::said`] or [`Server::failed`].
    Ask(Ask),
    /// Nothing: it is no question, or its answer is on the way.
    Nothing,
    /// It is the question that only this server could have asked: an upstream leads back here.
    Loop,
}

/// Who waits for an upstream's answer.
#[derive(Debug)]
struct Asked {
    waiting: Vec<Waiter>,
    /// The upstream takes so long that what is kept is told meanwhile.
    is_late: bool,
    /// Who asked first; such questions are counted.
    by: IpAddr,
}

#[derive(Debug)]
struct Waiter {
    whom: Whom,
    id: u16,
    flags: u16,
    raw: Box<[u8]>,
    edns: Option<Edns>,
    /// By which names of the zone the question led elsewhere, and what it was for.
    alias: Option<(Name, Vec<Record>)>,
}

/// A node's DNS.
#[derive(Debug)]
pub struct Server {
    zone: Zone,
    cache: Cache,
    asked: HashMap<Ask, Asked>,
    counters: Counters,
    probe: Option<Name>,
    /// Grows with each answer: addresses take turns in being the first.
    turn: usize,
}

impl Server {
    /// A server of this zone.
    #[must_use]
    pub fn new(zone: Zone, cache: Cache) -> Self {
        let (asked, counters) = (HashMap::new(), Counters::default());
        Self { zone, cache, asked, counters, probe: None, turn: 0 }
    }

    /// The zone, whose index follows the records.
    pub fn zone(&mut self) -> &mut Zone {
        &mut self.zone
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whoever asks for this name from now on is this server itself.
    pub fn set_probe(&mut self, name: Option<Name>) {
        self.probe = name;
    }

    /// Takes a message. An answer is written in place of what is in `out`.
    pub fn receive(
        &mut self,
        records: &Records,
        message: &[u8],
        whom: Whom,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Reaction {
        self.counters.received += 1;
        let reaction = match Question::read(message) {
            Ok(question) => self.react(records, &question, whom, now, out),
            Err(Refused::Silent) => return Reaction::Nothing,
            Err(Refused::Told { id, flags, code }) => {
                reply::refusal(out, id, flags, code);
                Reaction::Answer
            }
        };
        if reaction == Reaction::Answer {
            self.counters.answered(out);
        }
        reaction
    }

    fn react(
        &mut self,
        records: &Records,
        question: &Question<'_>,
        whom: Whom,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Reaction {
        if self.probe.as_ref() == Some(&question.name) {
            return Reaction::Loop;
        }
        let heading = heading(question, whom);
        let (mut chain, mut name) = (Vec::new(), question.name.clone());
        let found = loop {
            match self.zone.find(records, &name, question.kind) {
                Found::Alias(record, _) if question.kind == kind::CNAME => {
                    chain.push(record);
                    break Found::Nothing;
                }
                Found::Alias(record, target) if chain.len() < MOST_ALIASES => {
                    chain.push(record);
                    name = target;
                }
                Found::Elsewhere => {
                    return self.ask_others(question, name, chain, whom, now, out);
                }
                found => break found,
            }
        };
        self.counters.of_zone += 1;
        self.turn = self.turn.wrapping_add(1);
        let found = behind(chain, found, self.turn);
        reply::of_zone(out, heading, &question.name, &self.zone, &found);
        Reaction::Answer
    }

    /// Answers from what upstreams said, or has one asked.
    fn ask_others(
        &mut self,
        question: &Question<'_>,
        name: Name,
        chain: Vec<Record>,
        whom: Whom,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Reaction {
        let dnssec_ok = question.edns.is_some_and(|it| it.dnssec_ok);
        let checking_disabled = question.flags & CHECKING_DISABLED != 0;
        let ask = Ask { name, kind: question.kind, dnssec_ok, checking_disabled };
        let alias = (!chain.is_empty()).then(|| (question.name.clone(), chain));
        let is_late = self.asked.get(&ask).is_some_and(|asked| asked.is_late);
        let kept = if is_late { self.cache.any(&ask, now) } else { self.cache.fresh(&ask, now) };
        let heading = heading(question, whom);
        if let Some(kept) = kept {
            let hits = &mut self.counters;
            *(if kept.is_stale { &mut hits.stale_hits } else { &mut hits.cache_hits }) += 1;
            tell(out, heading, alias.as_ref(), Some(kept));
            return Reaction::Answer;
        }
        if question.flags & RECURSION_DESIRED == 0 {
            reply::failure(out, heading, code::REFUSED);
            return Reaction::Answer;
        }
        let waiter = Waiter {
            whom,
            id: question.id,
            flags: question.flags,
            raw: question.raw.into(),
            edns: question.edns,
            alias,
        };
        self.wait(ask, waiter).unwrap_or_else(|()| {
            self.counters.crowded_out += 1;
            reply::failure(out, heading, code::SERVER_FAILURE);
            Reaction::Answer
        })
    }

    /// Lets a client wait; the error is that there is no room.
    fn wait(&mut self, ask: Ask, waiter: Waiter) -> Result<Reaction, ()> {
        let source = waiter.whom.address.ip();
        let of_one = |it: &&Asked| it.by == source;
        let crowded = self.asked.len() >= MOST_ASKED
            || self.asked.values().filter(of_one).count() >= MOST_OF_ONE;
        match self.asked.entry(ask) {
            Entry::Occupied(mut place) => {
                let asked = place.get_mut();
                let again = |it: &Waiter| {
                    (it.whom, it.id, &it.raw) == (waiter.whom, waiter.id, &waiter.raw)
                };
                if asked.waiting.iter().any(again) {
                    return Ok(Reaction::Nothing);
                }
                if asked.waiting.len() >= MOST_WAITING {
                    return Err(());
                }
                asked.waiting.push(waiter);
                self.counters.joined += 1;
                Ok(Reaction::Nothing)
            }
            Entry::Vacant(_) if crowded => Err(()),
            Entry::Vacant(place) => {
                let ask = place.key().clone();
                let by = source;
                place.insert(Asked { waiting: vec![waiter], is_late: false, by });
                self.counters.asked += 1;
                Ok(Reaction::Ask(ask))
            }
        }
    }

    /// An upstream answered: all who wait are told, and it is kept.
    pub fn said(&mut self, ask: &Ask, said: &Said, now: Duration, send: impl FnMut(Whom, &[u8])) {
        self.cache.put(ask, said, now);
        let Some(asked) = self.asked.remove(ask) else { return };
        let kept = Kept { message: &said.message, age_s: 0, is_stale: false };
        tell_all(asked.waiting, Some(kept), &mut self.counters, send);
    }

    /// No upstream answered: all who wait are told what is kept beyond its time, or that there is no answer.
    pub fn failed(&mut self, ask: &Ask, now: Duration, send: impl FnMut(Whom, &[u8])) {
        self.cache.failed(ask, now);
        let Some(asked) = self.asked.remove(ask) else { return };
        let kept = self.cache.any(ask, now);
        if kept.is_some() {
            self.counters.stale_hits += asked.waiting.len() as u64;
        }
        tell_all(asked.waiting, kept, &mut self.counters, send);
    }

    /// The upstream takes its time: who waits is told what is kept beyond its time, if anything is.
    pub fn late(&mut self, ask: &Ask, now: Duration, send: impl FnMut(Whom, &[u8])) {
        let Some(kept) = self.cache.any(ask, now) else { return };
        let Some(asked) = self.asked.get_mut(ask) else { return };
        asked.is_late = true;
        let waiting = std::mem::take(&mut asked.waiting);
        self.counters.stale_hits += waiting.len() as u64;
        tell_all(waiting, Some(kept), &mut self.counters, send);
    }
}

fn heading<'q>(question: &Question<'q>, whom: Whom) -> Heading<'q> {
    let (id, flags, raw, edns) = (question.id, question.flags, question.raw, question.edns);
    Heading { id, flags, raw, edns, limit: limit(edns, whom.way) }
}

/// How long an answer may be.
fn limit(edns: Option<Edns>, way: Way) -> usize {
    match way {
        Way::Tcp(_) => MAX_MESSAGE,
        Way::Udp => edns.map_or(LEAST_DATAGRAM, |edns| {
            usize::from(edns.size).clamp(LEAST_DATAGRAM, MAX_DATAGRAM)
        }),
    }
}

/// What was found, behind the aliases that led there; addresses take turns.
fn behind(mut chain: Vec<Record>, found: Found, turn: usize) -> Found {
    match found {
        Found::Records { mut answers, additional } => {
            if let Some(begin) = turn.checked_rem(answers.len()) {
                answers.rotate_left(begin);
            }
            chain.append(&mut answers);
            Found::Records { answers: chain, additional }
        }
        found if chain.is_empty() => found,
        _ => Found::Records { answers: chain, additional: Vec::new() },
    }
}

fn tell_all(
    waiting: Vec<Waiter>,
    kept: Option<Kept<'_>>,
    counters: &mut Counters,
    mut send: impl FnMut(Whom, &[u8]),
) {
    let mut out = Vec::with_capacity(MAX_DATAGRAM);
    for waiter in waiting {
        let heading = Heading {
            id: waiter.id,
            flags: waiter.flags,
            raw: &waiter.raw,
            edns: waiter.edns,
            limit: limit(waiter.edns, waiter.whom.way),
        };
        tell(&mut out, heading, waiter.alias.as_ref(), kept);
        counters.answered(&out);
        send(waiter.whom, &out);
    }
}

fn tell(
    out: &mut Vec<u8>,
    heading: Heading<'_>,
    alias: Option<&(Name, Vec<Record>)>,
    kept: Option<Kept<'_>>,
) {
    let told = match (alias, kept) {
        (Some((name, chain)), kept) => {
            reply::of_alias(out, heading, name, chain, kept);
            Some(())
        }
        (None, Some(kept)) => reply::of_upstream(out, heading, kept),
        (None, None) => None,
    };
    if told.is_none() {
        reply::failure(out, heading, code::SERVER_FAILURE);
    }
}
