//! All neighbours of a node: who is asked when, what is answered, what is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    EVERY, LOOK_AROUND_REST, MANY_SILENT, MOST_WATCHED, SAY_AGAIN, SWEEP,
    datagram::{Content, Datagram, Key},
    member::{Due, Member, Standing},
    word::Word,
};

/// What names take in one datagram: they fit in beside everything else.
const SUBJECTS_SIZE: usize = 1_000;

/// A node of the pool, as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: Arc<str>,
    /// Where its agent is.
    pub address: IpAddr,
    /// Whether this node may use endpoints of it.
    pub is_used: bool,
}

/// A node among its neighbours.
#[derive(Debug)]
pub struct Circle {
    own: Arc<str>,
    key: Option<Key>,
    number: u64,
    members: BTreeMap<Arc<str>, Member>,
    word: Option<Word>,
    /// When those that are watched are asked again.
    round: Option<Duration>,
    /// When the next of the others is, and who was last.
    sweep: Option<Duration>,
    swept: Option<Arc<str>>,
    /// When all who are used were looked at last because many were silent.
    looked_around: Option<Duration>,
    /// What is to be said once more.
    again: Vec<(Duration, Arc<str>)>,
    out: Vec<(IpAddr, Vec<u8>)>,
    changed: BTreeSet<Arc<str>>,
    heard_anew: bool,
}

impl Circle {
    /// Of a node that knows nobody yet. Numbers of probes begin with `seed`, which must be another at each start.
    #[must_use]
    pub fn new(own: impl Into<Arc<str>>, seed: u64) -> Self {
        Self {
            own: own.into(),
            key: None,
            number: seed,
            members: BTreeMap::new(),
            word: None,
            round: None,
            sweep: None,
            swept: None,
            looked_around: None,
            again: Vec::new(),
            out: Vec::new(),
            changed: BTreeSet::new(),
            heard_anew: false,
        }
    }

    /// The pool's key. Without one nobody is asked, and nobody answered.
    pub fn set_key(&mut self, key: Option<Key>) {
        self.key = key;
    }

    /// The pool's nodes are these now. `was_heard` says who has answered an earlier start.
    pub fn set_members(
        &mut self,
        now: Duration,
        all: impl Iterator<Item = Neighbour>,
        was_heard: impl Fn(&str) -> bool,
    ) {
        let mut gone: BTreeSet<Arc<str>> = self.members.keys().cloned().collect();
        for neighbour in all.filter(|it| it.name != self.own) {
            gone.remove(&neighbour.name);
            let known = self.members.entry(neighbour.name.clone());
            let member =
                known.or_insert_with(|| Member::new(neighbour.address, was_heard(&neighbour.name)));
            member.address = neighbour.address;
            if neighbour.is_used && !member.is_used {
                member.ask_by(now);
            }
            member.is_used = neighbour.is_used;
            if !member.is_used {
                // Also who never answered would be asked for ever.
                if member.standing != Standing::Unknown {
                    self.changed.insert(neighbour.name);
                }
                member.rest();
            }
        }
        for name in gone {
            self.members.remove(&name);
            self.changed.insert(name);
        }
        self.choose(now);
    }

    /// Whom to watch: the next in the ring of those that are used.
    fn choose(&mut self, now: Duration) {
        let used = self.members.iter().filter(|(_, it)| it.is_used).map(|(name, _)| name.clone());
        let (before, after): (Vec<_>, Vec<_>) = used.partition(|name| *name < self.own);
        let (most, count) = (MOST_WATCHED, before.len() + after.len());
        let watched: BTreeSet<Arc<str>> = after.into_iter().chain(before).take(most).collect();
        for (name, member) in &mut self.members {
            member.is_watched = watched.contains(name);
        }
        let next = |at: Option<Duration>, every: Duration| Some(at.unwrap_or(now + every));
        self.round = if count > 0 { next(self.round, EVERY) } else { None };
        self.sweep = match u32::try_from(count.saturating_sub(most)) {
            Ok(0) | Err(_) => None,
            Ok(others) => next(self.sweep, SWEEP / others),
        };
    }

    /// What this node says of its pods from now on; none when it says nothing. With `tells`, all are asked to look.
    pub fn say(&mut self, now: Duration, word: Option<Word>, tells: bool) {
        if word == self.word {
            return;
        }
        self.word = word;
        if tells {
            self.ask_all_to_look(now, vec![self.own.clone()]);
        }
    }

    /// The cloud said something of this node's endpoints: its own word may be older than that.
    pub fn doubt(&mut self, now: Duration, name: &str) {
        if let Some(member) = self.members.get_mut(name).filter(|it| it.is_used) {
            member.is_doubted = true;
            if member.standing == Standing::Alive {
                member.ask_by(now);
            }
        }
    }

    /// What is seen of a neighbour, and its word; none of who is no neighbour.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<(Standing, Option<&Word>)> {
        let member = self.members.get(name).filter(|member| member.is_used)?;
        Some((member.standing, member.word.as_ref().filter(|_| !member.is_doubted)))
    }

    /// Takes what arrived. What is not authentic is nothing.
    pub fn receive(&mut self, now: Duration, bytes: &[u8]) {
        let Some(key) = &self.key else { return };
        let Some(datagram) = Datagram::open(bytes, key, &self.own) else { return };
        let Datagram { number, from, content } = datagram;
        match content {
            Content::Probe { known } => self.answer(now, number, &from, known),
            Content::Look { at } => {
                for name in at {
                    if let Some(member) = self.members.get_mut(&name).filter(|it| it.is_used) {
                        member.told(now);
                    }
                }
            }
            Content::Answer { digest, word } => {
                let Some((name, _)) = self.members.get_key_value(&*from) else { return };
                let name = name.clone();
                let Some(member) = self.members.get_mut(&name) else { return };
                self.heard_anew |= !member.was_heard;
                if member.answered(number, digest, word) == Some(true) {
                    self.changed.insert(name);
                }
            }
        }
    }

    /// Answers go where the cloud says that who asks is, whatever the datagram's sender.
    fn answer(&mut self, now: Duration, number: u64, from: &str, known: u64) {
        let Some(member) = self.members.get_mut(from) else { return };
        if member.is_used && member.standing != Standing::Alive {
            // It is back, or new.
            member.ask_by(now);
        }
        let address = member.address;
        let digest = self.word.as_ref().map_or(0, Word::digest);
        let word = self.word.clone().filter(|_| digest != known);
        self.send(from, address, number, Content::Answer { digest, word });
    }

    /// When [`wake`](Self::wake) is to be called next.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.key.as_ref()?;
        let members = self.members.values().filter_map(Member::when);
        let again = self.again.iter().map(|(at, _)| *at);
        members.chain(again).chain(self.round).chain(self.sweep).min()
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Duration) {
        if self.key.is_none() {
            return;
        }
        if self.round.is_some_and(|at| at <= now) {
            self.round = Some(now + EVERY);
            let watched = |it: &&mut Member| it.is_watched && it.standing == Standing::Alive;
            self.members.values_mut().filter(watched).for_each(|it| it.ask_by(now));
        }
        self.sweep_one(now);
        let (due, later) = std::mem::take(&mut self.again).into_iter().partition(|it| it.0 <= now);
        self.again = later;
        let due: Vec<(Duration, Arc<str>)> = due;
        self.tell_all(&due.into_iter().map(|(_, subject)| subject).collect::<Vec<_>>());
        self.look_around(now);
        let names: Vec<Arc<str>> = self.members.keys().cloned().collect();
        let dead = names.into_iter().filter(|name| self.look_after(now, name)).collect();
        self.ask_all_to_look(now, dead);
    }

    /// Many are silent at once: perhaps the pool is cut in two, and then those are silent too whom only nodes of the
    /// other half watch.
    fn look_around(&mut self, now: Duration) {
        let silent = self.members.values().filter(|it| it.is_silent(now)).count();
        let rests = self.looked_around.is_some_and(|at| now < at + LOOK_AROUND_REST);
        if silent < MANY_SILENT || rests {
            return;
        }
        self.looked_around = Some(now);
        let others = |it: &&mut Member| {
            it.is_used && !it.is_watched && it.standing == Standing::Alive && !it.is_suspect
        };
        self.members.values_mut().filter(others).for_each(|it| it.told(now));
    }

    /// Does what is due of one; whether it is found dead, and the others are to be told.
    fn look_after(&mut self, now: Duration, name: &Arc<str>) -> bool {
        let Some(member) = self.members.get_mut(name) else { return false };
        match member.due(now) {
            Due::Nothing => {}
            Due::Probe => {
                self.number = self.number.wrapping_add(1);
                let number = member.sent(self.number, now);
                let known = member.word.as_ref().map_or(0, Word::digest);
                let address = member.address;
                self.send(name, address, number, Content::Probe { known });
            }
            Due::Silent { is_news } => {
                // Those who watch it say so, also when they were told: some of what they say gets lost. If everybody
                // did, a pool of n nodes would say it n² times.
                let tells = is_news && (member.is_watched || !member.is_suspect);
                member.give_up(is_news, now);
                if is_news {
                    self.changed.insert(name.clone());
                }
                return tells;
            }
        }
        false
    }

    /// One of those that are not watched is asked, each in its turn.
    fn sweep_one(&mut self, now: Duration) {
        if self.sweep.is_none_or(|at| at > now) {
            return;
        }
        let others: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|(_, it)| it.is_used && !it.is_watched)
            .map(|(name, _)| name.clone())
            .collect();
        let count = u32::try_from(others.len()).unwrap_or(1).max(1);
        self.sweep = Some(now + SWEEP / count);
        // Each begins behind itself: else all would ask the same one at the same time.
        let last = self.swept.as_ref().unwrap_or(&self.own);
        let after = others.iter().find(|name| *name > last);
        self.swept = after.or_else(|| others.first()).cloned();
        if let Some(member) = self.swept.as_ref().and_then(|name| self.members.get_mut(name)) {
            member.ask_by(now);
        }
    }

    fn ask_all_to_look(&mut self, now: Duration, subjects: Vec<Arc<str>>) {
        self.tell_all(&subjects);
        self.again.retain(|(_, known)| !subjects.contains(known));
        self.again.extend(subjects.into_iter().map(|subject| (now + SAY_AGAIN, subject)));
    }

    fn tell_all(&mut self, subjects: &[Arc<str>]) {
        let longest = subjects.iter().map(|subject| subject.len() + 1).max().unwrap_or(1);
        for some in subjects.chunks((SUBJECTS_SIZE / longest).max(1)) {
            let others =
                self.members.iter().filter(|(name, _)| !matches!(some, [it] if it == *name));
            let to: Vec<_> = others.map(|(name, it)| (name.clone(), it.address)).collect();
            for (name, address) in to {
                self.send(&name, address, 0, Content::Look { at: some.to_vec() });
            }
        }
    }

    fn send(&mut self, to: &str, address: IpAddr, number: u64, content: Content) {
        let datagram = Datagram { number, from: self.own.to_string(), content };
        let bytes = self.key.as_ref().and_then(|key| datagram.seal(key, to));
        self.out.extend(bytes.map(|bytes| (address, bytes)));
    }

    /// What is to leave.
    pub fn take_datagrams(&mut self) -> Vec<(IpAddr, Vec<u8>)> {
        std::mem::take(&mut self.out)
    }

    /// The nodes of which something else is seen than before.
    pub fn take_changed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.changed)
    }

    /// Who has answered, if somebody did for the first time since this was asked last.
    pub fn take_heard(&mut self) -> Option<BTreeSet<Arc<str>>> {
        let heard = self.members.iter().filter(|(_, it)| it.was_heard);
        std::mem::take(&mut self.heard_anew).then(|| heard.map(|(name, _)| name.clone()).collect())
    }
}
