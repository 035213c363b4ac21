//! One neighbour: what is known of it, and when it is asked next. It sends nothing itself.

use std::{net::IpAddr, time::Duration};

use crate::{EVERY_DEAD, SHORTEST, TRIES, TRIES_WHEN_TOLD, TRY, word::Word};

/// What a node has seen of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has never answered.
    Unknown,
    /// It answers.
    Alive,
    /// It answered before, and does not now.
    Dead,
}

/// A neighbour.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) address: IpAddr,
    /// Endpoints of it are used here.
    pub(crate) is_used: bool,
    /// It is one of those that are asked at each round.
    pub(crate) is_watched: bool,
    pub(crate) standing: Standing,
    /// It has answered at some time, perhaps to an earlier start.
    pub(crate) was_heard: bool,
    pub(crate) word: Option<Word>,
    /// The word may be older than what the cloud said since.
    pub(crate) is_doubted: bool,
    asking: Option<Asking>,
    /// When it is to be asked, while it is not being asked.
    next: Option<Duration>,
    /// Somebody found it dead: it is asked less often before that is believed.
    pub(crate) is_suspect: bool,
    last_sent: Option<Duration>,
}

/// It is being asked.
#[derive(Debug, Clone, Copy)]
struct Asking {
    number: u64,
    sent: u32,
    most: u32,
    /// When to ask again, or to give up.
    at: Duration,
}

/// What is to be done about a neighbour at a moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Probe,
    /// It has not answered. Whether that is news.
    Silent {
        is_news: bool,
    },
}

impl Member {
    pub(crate) fn new(address: IpAddr, was_heard: bool) -> Self {
        Self {
            address,
            is_used: false,
            is_watched: false,
            standing: Standing::Unknown,
            was_heard,
            word: None,
            is_doubted: false,
            asking: None,
            next: None,
            is_suspect: false,
            last_sent: None,
        }
    }

    /// When something is due.
    pub(crate) fn when(&self) -> Option<Duration> {
        self.asking.map(|asking| asking.at).or(self.next)
    }

    pub(crate) fn due(&self, now: Duration) -> Due {
        match &self.asking {
            Some(asking) if asking.at > now => Due::Nothing,
            Some(asking) if asking.sent < asking.most => Due::Probe,
            Some(_) => {
                let is_news = match self.standing {
                    Standing::Alive => true,
                    Standing::Unknown => self.was_heard,
                    Standing::Dead => false,
                };
                Due::Silent { is_news }
            }
            None if self.next.is_some_and(|next| next <= now) => Due::Probe,
            None => Due::Nothing,
        }
    }

    /// It does not answer, as far as one can say by now of who was said to be dead, or was found so.
    pub(crate) fn is_silent(&self, now: Duration) -> bool {
        let fails = |asking: Asking| {
            let is_last = asking.sent >= asking.most;
            asking.at <= now && (is_last || self.is_suspect) || asking.sent > 1 && self.is_suspect
        };
        self.is_used
            && self.was_heard
            && (self.standing == Standing::Dead || self.asking.is_some_and(fails))
    }

    /// A probe leaves; the number that it has. Who is known to be silent is asked once, and again later.
    pub(crate) fn sent(&mut self, number: u64, now: Duration) -> u64 {
        let is_new = self.standing == Standing::Unknown && self.last_sent.is_none();
        let most = match (self.standing == Standing::Alive || is_new, self.is_suspect) {
            (false, _) => 1,
            (true, true) => TRIES_WHEN_TOLD,
            (true, false) => TRIES,
        };
        let asking = self.asking.get_or_insert(Asking { number, sent: 0, most, at: now });
        asking.sent += 1;
        asking.at = now + TRY;
        (self.next, self.last_sent) = (None, Some(now));
        asking.number
    }

    /// It was asked often enough.
    pub(crate) fn give_up(&mut self, is_news: bool, now: Duration) {
        (self.asking, self.is_suspect) = (None, false);
        self.next = Some(now + EVERY_DEAD);
        if is_news {
            self.standing = Standing::Dead;
        }
    }

    /// It answers. Whether that tells anything new; none if it was not asked that.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        digest: u64,
        word: Option<Word>,
    ) -> Option<bool> {
        self.asking.filter(|asking| asking.number == number)?;
        (self.asking, self.is_suspect, self.was_heard) = (None, false, true);
        let was = (self.standing, self.is_doubted);
        (self.standing, self.is_doubted) = (Standing::Alive, false);
        let known = self.word.as_ref().map_or(0, Word::digest);
        let is_other = known != digest;
        if is_other {
            self.word = word;
        }
        Some(is_other || was != (Standing::Alive, false))
    }

    /// It is to be asked then at the latest, unless it is being asked.
    pub(crate) fn ask_by(&mut self, at: Duration) {
        if self.asking.is_none() {
            let earliest = self.last_sent.map_or(Duration::ZERO, |sent| sent + SHORTEST);
            let at = at.max(earliest);
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
    }

    /// Somebody says that it should be looked at.
    pub(crate) fn told(&mut self, now: Duration) {
        self.is_suspect = true;
        match &mut self.asking {
            Some(asking) => asking.most = asking.most.min(TRIES_WHEN_TOLD.max(asking.sent)),
            None => self.ask_by(now),
        }
    }

    /// It is not asked any more.
    pub(crate) fn rest(&mut self) {
        (self.asking, self.next, self.is_suspect) = (None, None, false);
        self.standing = Standing::Unknown;
        self.word = None;
    }
}
