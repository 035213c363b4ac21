//! Who is heard, when and by whom; whose silence counts, and from when on; whose readiness is to be written.

use std::time::Duration;

use toono_session::{Fresh, NodeIndex};

use super::{MOST_MEMBERS, Ready, Slot, Table};
use crate::config::Grace;

/// A server that did not look for this long was itself held up (a stopped process, a frozen
/// machine), which says nothing about its nodes.
const HELD_UP: Duration = Duration::from_secs(5);
/// One whose readiness is being written, after this: a million may wait for their turns, and the end of a write
/// is told.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Another server's word of a node takes up to so long to arrive; only one that is newer than ours by more says
/// that the node has turned to that server.
const NEWS_AGE: Duration = Duration::from_secs(5);

/// Every server has heard of a change of their list after this, and the Nodes that joined meanwhile are known
/// everywhere.
const LIST_SPREADS: Duration = Duration::from_secs(30);

impl Table {
    /// The newest fresh heartbeat of a member.
    pub(crate) fn fresh(&self, index: NodeIndex) -> Option<&Fresh> {
        self.sessions.fresh(index)
    }

    /// When a member was last heard by any server, by a heartbeat or a renewal of its Lease.
    pub(crate) fn heard(&self, index: NodeIndex) -> Option<Duration> {
        self.heard_here(index).max(self.heard_elsewhere_at(index))
    }

    /// When it was last heard by this one.
    fn heard_here(&self, index: NodeIndex) -> Option<Duration> {
        let leased = self.leased.get(&index).map(|renewal| renewal.at);
        leased.max(self.fresh(index).map(|fresh| fresh.at))
    }

    /// Another server has heard a member.
    pub(crate) fn heard_elsewhere(&mut self, index: NodeIndex, by: u16, now: Duration) {
        self.elsewhere.heard(index, by, now, MOST_MEMBERS);
        self.uplink.heard(now);
    }

    /// When another server heard a member last.
    pub(crate) fn heard_elsewhere_at(&self, index: NodeIndex) -> Option<Duration> {
        self.elsewhere.last(index).map(|(at, _)| at)
    }

    /// The server that a member speaks to, if that is certainly not this one.
    pub(crate) fn speaks_to(&self, index: NodeIndex) -> Option<u16> {
        let (at, by) = self.elsewhere.last(index)?;
        let here = self.fresh(index).is_some_and(|fresh| fresh.at + NEWS_AGE > at);
        (!here).then_some(by)
    }

    /// Every member whose silence counts from before has its grace anew.
    pub(crate) fn grace_anew(&mut self, now: Duration) {
        self.listening_since = now;
    }

    /// Whether a member that is new here may have been told another list of servers: by this server before it
    /// started, or when it joined at one that heard of a change a moment later.
    pub(super) fn has_old_list(&self, now: Duration) -> bool {
        let lately = self.list_changed.is_some_and(|at| now < at + LIST_SPREADS);
        lately || !self.loaded && self.lists_may_be_old
    }

    /// What all members know of the servers is not true any more.
    pub(crate) fn all_have_old_lists(&mut self, now: Duration) {
        self.list_changed = Some(now);
        for slot in &mut self.slots {
            if let Slot::Taken(member) = slot {
                member.old_list = true;
            }
        }
    }

    /// From when on a member's silence counts.
    fn counted_from(&self, index: NodeIndex) -> Option<Duration> {
        let fresh = self.fresh(index).map(|fresh| fresh.at);
        let fresh = fresh.max(self.heard_elsewhere_at(index));
        if self.leased.is_empty() {
            return fresh;
        }
        fresh.max(self.leased.get(&index).map(|renewal| renewal.counted_from))
    }

    /// A member's Lease was renewed, as a kubelet beside it does; `unseen` is for how long its next renewals
    /// may not be heard of here.
    pub(crate) fn renewed(&mut self, index: NodeIndex, now: Duration, unseen: Duration) {
        if self.member(index).is_some() {
            let renewal = self.leased.entry(index).or_default();
            renewal.at = now;
            renewal.counted_from = renewal.counted_from.max(now + unseen);
            self.servers.heard_here(index);
        }
    }

    /// Since when this server has listened without a break.
    pub(crate) fn listening_since(&self) -> Duration {
        self.listening_since
    }

    /// A fresh heartbeat came, of anyone.
    pub(crate) fn heard_one(&mut self, now: Duration) {
        self.uplink.heard(now);
    }

    /// Whether this server may call anyone silent at `now`, which it says every second. While it may not it
    /// does not count as listening.
    pub(crate) fn may_judge(&mut self, now: Duration) -> bool {
        let may = self.servers.tick(now) && self.loaded;
        if may {
            self.listening(now);
        }
        may
    }

    /// This server is listening now; to be said every second. After a break, and when it may be cut off, every
    /// node that was ready has its grace anew: its heartbeats were not heard, but they may have been sent.
    pub(crate) fn listening(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.listened);
        if gap >= HELD_UP {
            tracing::warn!(?gap, "this server was held up; silent nodes have their grace anew");
            self.listening_since = now;
        }
        if self.uplink.is_doubtful(now, self.ready) {
            self.listening_since = now;
        }
        self.listened = now;
    }

    /// Whether a member counts as alive: heard within the grace. A member that was ready and has
    /// not been heard since the start, or since this server was held up, is given its grace first.
    pub(crate) fn alive(&self, index: NodeIndex, now: Duration, grace: &Grace) -> bool {
        let Some(member) = self.member(index) else { return false };
        let grace = grace.of(&member.pool);
        let patience = match self.counted_from(index) {
            Some(at) if now < at + grace => return true,
            Some(_) => self.listening_since,
            None => member.since.max(self.listening_since),
        };
        member.ready == Ready::True && now < patience + grace
    }

    /// The readiness that should be written for a member, when it differs from what the API has.
    pub(crate) fn due(&self, index: NodeIndex, now: Duration, grace: &Grace) -> Option<bool> {
        let member = self.member(index)?;
        let alive = self.alive(index, now, grace);
        let due = if alive {
            // Its return is written by the server that hears it.
            let here =
                || self.heard_here(index).is_some_and(|at| now < at + grace.of(&member.pool));
            member.ready == Ready::Unknown && here()
        } else {
            member.ready != Ready::Unknown && self.servers.judges(&member.uid)
        };
        due.then_some(alive)
    }

    /// Whether a member's readiness should be written and no write is under way; marks it so.
    pub(crate) fn take_due(&mut self, index: NodeIndex, now: Duration, grace: &Grace) -> bool {
        let due = self.due(index, now, grace).is_some();
        let Some(member) = self.member_mut(index).filter(|member| due && !member.writing) else {
            return false;
        };
        member.writing = true;
        true
    }

    /// Whom to look at now. Who is in it must be given to [`look`](Self::look).
    pub(crate) fn looks(&mut self, now: Duration) -> Vec<NodeIndex> {
        self.looks.due(now)
    }

    /// Looks at a member, as [`take_due`](Self::take_due), and sets the next look at it.
    pub(crate) fn look(&mut self, index: NodeIndex, now: Duration, grace: &Grace) -> bool {
        let due = self.take_due(index, now, grace);
        let Some(member) = self.member(index) else { return false };
        let grace = grace.of(&member.pool);
        let heard = self.counted_from(index).unwrap_or(member.since);
        let silent_at = heard.max(self.listening_since) + grace;
        let next = if member.writing {
            now + LOOK_AGAIN.min(grace)
        } else if silent_at > now {
            silent_at
        } else {
            // It is silent and known to be, and to see its return takes no look.
            now + grace
        };
        self.looks.set(index, next);
        due
    }
}
