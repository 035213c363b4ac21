//! The members: every Node with a session, by index and by name, and what is known of its life.
//!
//! Pure bookkeeping: time is passed in (since the server's start), nothing is read or written.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use toono_api::intern::Pool;
use toono_session::{Fresh, NodeIndex, NodeUid, ServerSessions};

use crate::{bundles::BundleIndex, config::Grace, looks::Looks, objects::NodeObject};

/// The names of pools, each once.
static POOLS: Pool<str> = Pool::new();

/// Most members: as many subnets as any pod network holds. Whoever may edit a Node's annotations
/// must not be able to make the table larger than memory.
const MOST_MEMBERS: u32 = 1 << 23;
/// A server that did not look for this long was itself held up (a stopped process, a frozen
/// machine), which says nothing about its nodes.
const HELD_UP: Duration = Duration::from_secs(5);
/// A member whose readiness is being written, or that is new, is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A Node's Ready condition as the API has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    True,
    False,
    Unknown,
}

impl Ready {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One Node with a session.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: Arc<str>,
    pub(crate) uid: NodeUid,
    pub(crate) generation: u16,
    pub(crate) pool: Arc<str>,
    /// Where its pods are.
    pub(crate) bundle: BundleIndex,
    /// Revision of the Node that the fields above are from.
    pub(crate) revision: u64,
    pub(crate) ready: Ready,
    /// A node that is not heard of has its grace from here on.
    since: Duration,
    /// Whether the member was read from the API at the start, rather than joined since.
    loaded: bool,
    /// A write of its readiness is under way or queued.
    pub(crate) writing: bool,
    /// The digest of the newest acknowledged report; none since the start.
    pub(crate) reported: Option<u64>,
    /// The next reply asks for a full report.
    pub(crate) resend: bool,
}

/// The last renewal of a member's Lease.
#[derive(Debug, Default)]
struct Renewal {
    at: Duration,
    counted_from: Duration,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// A join is under way.
    Reserved,
    Taken(Box<Member>),
}

/// All members and their sessions.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) sessions: ServerSessions,
    slots: Vec<Slot>,
    by_name: HashMap<Arc<str>, NodeIndex>,
    /// Every member is in it.
    looks: Looks,
    /// Members whose Leases were renewed: few, since heartbeats say the same.
    leased: HashMap<NodeIndex, Renewal>,
    joining: HashSet<String>,
    /// No slot below it is free.
    lowest_free: usize,
    /// Whether the API's Nodes have been read: before that an unknown name may be a member.
    pub(crate) loaded: bool,
    /// Since when this server has listened without a break. What was sent before may have been
    /// lost unheard.
    listening_since: Duration,
    /// When it last said that it listens.
    listened: Duration,
}

/// Why a name cannot join now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A node of that name was heard this long ago, or has its grace after the server's start.
    Alive(Option<Duration>),
    /// Another join of that name is under way.
    Joining,
}

impl Table {
    pub(crate) fn new(sessions: ServerSessions) -> Self {
        Self {
            sessions,
            slots: Vec::new(),
            by_name: HashMap::new(),
            looks: Looks::default(),
            leased: HashMap::new(),
            joining: HashSet::new(),
            lowest_free: 0,
            loaded: false,
            listening_since: Duration::ZERO,
            listened: Duration::ZERO,
        }
    }

    pub(crate) fn index(&self, name: &str) -> Option<NodeIndex> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn member(&self, index: NodeIndex) -> Option<&Member> {
        match self.slots.get(usize::try_from(index.0).ok()?)? {
            Slot::Taken(member) => Some(member),
            Slot::Free | Slot::Reserved => None,
        }
    }

    pub(crate) fn member_mut(&mut self, index: NodeIndex) -> Option<&mut Member> {
        match self.slots.get_mut(usize::try_from(index.0).ok()?)? {
            Slot::Taken(member) => Some(member),
            Slot::Free | Slot::Reserved => None,
        }
    }

    pub(crate) fn named(&self, name: &str) -> Option<(NodeIndex, &Member)> {
        let index = self.index(name)?;
        Some((index, self.member(index)?))
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (NodeIndex, &Member)> {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| match slot {
            Slot::Taken(member) => Some((NodeIndex(index), &**member)),
            Slot::Free | Slot::Reserved => None,
        })
    }

    /// The newest fresh heartbeat of a member.
    pub(crate) fn fresh(&self, index: NodeIndex) -> Option<&Fresh> {
        self.sessions.fresh(index)
    }

    /// When a member was last heard, by a heartbeat or a renewal of its Lease.
    pub(crate) fn heard(&self, index: NodeIndex) -> Option<Duration> {
        let leased = self.leased.get(&index).map(|renewal| renewal.at);
        leased.max(self.fresh(index).map(|fresh| fresh.at))
    }

    /// From when on a member's silence counts.
    fn counted_from(&self, index: NodeIndex) -> Option<Duration> {
        let fresh = self.fresh(index).map(|fresh| fresh.at);
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
        }
    }

    /// Since when this server has listened without a break.
    pub(crate) fn listening_since(&self) -> Duration {
        self.listening_since
    }

    /// This server is listening now; to be said every second. After a break every node that was
    /// ready has its grace anew: its heartbeats were not heard, but they may have been sent.
    pub(crate) fn listening(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.listened);
        if gap >= HELD_UP {
            tracing::warn!(?gap, "this server was held up; silent nodes have their grace anew");
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
        let due =
            if alive { member.ready == Ready::Unknown } else { member.ready != Ready::Unknown };
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
            now + LOOK_AGAIN
        } else if silent_at > now {
            silent_at
        } else {
            // It is silent and known to be, and to see its return takes no look.
            now + grace
        };
        self.looks.set(index, next);
        due
    }

    /// Takes a Node as the API has it, unless something newer is known.
    pub(crate) fn admit(&mut self, node: &NodeObject, now: Duration) -> Option<NodeIndex> {
        let index = NodeIndex(node.session_index().filter(|index| *index < MOST_MEMBERS)?);
        let generation = node.session_generation()?;
        let place = usize::try_from(index.0).ok()?;
        let (revision, uid) = (node.metadata.revision(), NodeUid::new(&node.metadata.uid));
        let known = self.named(&node.metadata.name).map(|(at, member)| (at, member.clone()));
        if known.as_ref().is_some_and(|(_, member)| member.revision > revision) {
            return None;
        }
        let same = known.filter(|(at, member)| {
            *at == index && member.uid == uid && member.generation == generation
        });
        if same.is_none() {
            if let Some(other) =
                self.member(index).filter(|other| *other.name != *node.metadata.name)
            {
                tracing::warn!(
                    node = node.metadata.name,
                    holder = &*other.name,
                    index = index.0,
                    "two Nodes claim one session index; the first keeps it"
                );
                return None;
            }
            self.remove(&node.metadata.name, None);
        }
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || Slot::Free);
        }
        let name: Arc<str> = node.metadata.name.as_str().into();
        let old = same.map(|(_, member)| member);
        let member = Member {
            name: name.clone(),
            uid,
            generation,
            pool: POOLS.share(node.pool()),
            bundle: old.as_ref().map_or(BundleIndex::NONE, |old| old.bundle),
            revision,
            ready: Ready::parse(node.ready()),
            since: old.as_ref().map_or(now, |old| old.since),
            loaded: old.as_ref().map_or(!self.loaded, |old| old.loaded),
            writing: old.as_ref().is_some_and(|old| old.writing),
            reported: old.as_ref().and_then(|old| old.reported),
            resend: old.as_ref().is_some_and(|old| old.resend),
        };
        self.sessions.admit(index, uid, generation);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Slot::Taken(Box::new(member));
        }
        self.by_name.insert(name, index);
        self.looks.set(index, now + LOOK_AGAIN);
        Some(index)
    }

    /// Forgets a Node; with `uid`, only if it is that one.
    pub(crate) fn remove(&mut self, name: &str, uid: Option<NodeUid>) -> Option<Box<Member>> {
        let (index, member) = self.named(name)?;
        if uid.is_some_and(|uid| uid != member.uid) {
            return None;
        }
        self.by_name.remove(name);
        self.sessions.remove(index);
        self.leased.remove(&index);
        match self.free(index)? {
            Slot::Taken(member) => Some(member),
            Slot::Free | Slot::Reserved => None,
        }
    }

    /// Makes a slot free; what was in it.
    fn free(&mut self, index: NodeIndex) -> Option<Slot> {
        let place = usize::try_from(index.0).ok()?;
        let slot = self.slots.get_mut(place)?;
        self.lowest_free = self.lowest_free.min(place);
        Some(std::mem::replace(slot, Slot::Free))
    }

    /// Claims a name for a join, and an index for it: the one it has, or the smallest free one.
    /// [`release`](Self::release) must follow.
    pub(crate) fn reserve(
        &mut self,
        name: &str,
        now: Duration,
        grace: &Grace,
    ) -> Result<(NodeIndex, Option<u16>), Taken> {
        if self.joining.contains(name) {
            return Err(Taken::Joining);
        }
        let known =
            self.named(name).map(|(index, member)| (index, member.generation, member.loaded));
        if let Some((index, _, loaded)) = known {
            let heard = self.fresh(index).map(|fresh| now.saturating_sub(fresh.at));
            // Who joined since the start and was never heard may have lost its grant: let it in.
            if (heard.is_some() || loaded) && self.alive(index, now, grace) {
                return Err(Taken::Alive(heard));
            }
        }
        self.joining.insert(name.to_owned());
        Ok(match known {
            Some((index, generation, _)) => (index, Some(generation)),
            None => (self.reserve_free(), None),
        })
    }

    fn reserve_free(&mut self) -> NodeIndex {
        let free = self
            .slots
            .iter()
            .enumerate()
            .skip(self.lowest_free)
            .find(|(_, slot)| matches!(slot, Slot::Free))
            .map_or(self.slots.len(), |(place, _)| place);
        match self.slots.get_mut(free) {
            Some(slot) => *slot = Slot::Reserved,
            None => self.slots.push(Slot::Reserved),
        }
        self.lowest_free = free + 1;
        NodeIndex(u32::try_from(free).unwrap_or(u32::MAX))
    }

    /// Ends a join: the index is free again unless a member has it.
    pub(crate) fn release(&mut self, name: &str, index: NodeIndex) {
        self.joining.remove(name);
        let place = usize::try_from(index.0).unwrap_or(usize::MAX);
        if matches!(self.slots.get(place), Some(Slot::Reserved)) {
            self.free(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toono_session::ClusterSecret;

    use super::*;

    fn grace() -> Grace {
        Grace::default()
    }

    fn table() -> Table {
        let mut table = Table::new(ServerSessions::new(1, vec![ClusterSecret::new(1, &[1; 32])]));
        table.loaded = true;
        table
    }

    fn node(name: &str, uid: &str, index: u32, revision: u64, ready: &str) -> NodeObject {
        let value = json!({"metadata": {"name": name, "uid": uid, "resourceVersion": revision.to_string(),
            "annotations": {"toono.io/session-index": index.to_string(), "toono.io/session-generation": "1"}},
            "spec": {"podCIDR": "10.244.0.0/24"},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        NodeObject::parse(&serde_json::to_vec(&value).unwrap()).unwrap()
    }

    #[test]
    fn the_smallest_free_index_is_dealt_once() {
        let mut table = table();
        let mut claim = |name: &str| table.reserve(name, Duration::ZERO, &grace()).unwrap().0;
        assert_eq!(
            (claim("a"), claim("b"), claim("c")),
            (NodeIndex(0), NodeIndex(1), NodeIndex(2))
        );
        assert_eq!(table.reserve("a", Duration::ZERO, &grace()), Err(Taken::Joining));
        table.admit(&node("a", "u", 0, 1, "Unknown"), Duration::ZERO);
        for (name, index) in [("a", 0), ("b", 1), ("c", 2)] {
            table.release(name, NodeIndex(index));
        }
        assert_eq!(table.reserve("d", Duration::ZERO, &grace()).unwrap().0, NodeIndex(1));
        table.remove("a", Some(NodeUid::new("other")));
        assert_eq!(table.reserve("e", Duration::ZERO, &grace()).unwrap().0, NodeIndex(2));
        table.remove("a", Some(NodeUid::new("u")));
        assert_eq!(table.reserve("f", Duration::ZERO, &grace()).unwrap().0, NodeIndex(0));
    }

    #[test]
    fn a_ready_node_has_its_grace_after_a_start() {
        let mut table = table();
        table.loaded = false;
        table.admit(&node("a", "u", 0, 1, "True"), Duration::from_secs(1));
        table.loaded = true;
        let index = NodeIndex(0);
        assert_eq!(table.due(index, Duration::from_secs(40), &grace()), None);
        assert_eq!(table.reserve("a", Duration::from_secs(40), &grace()), Err(Taken::Alive(None)));
        assert_eq!(table.due(index, Duration::from_secs(41), &grace()), Some(false));
        table.admit(&node("a", "u", 0, 2, "Unknown"), Duration::from_secs(42));
        assert_eq!(table.due(index, Duration::from_secs(43), &grace()), None);
        assert!(
            table.admit(&node("a", "u", 0, 1, "True"), Duration::from_secs(44)).is_none(),
            "old news"
        );
        assert_eq!(table.reserve("a", Duration::from_secs(50), &grace()), Ok((index, Some(1))));
    }

    #[test]
    fn a_server_that_was_held_up_blames_no_node() {
        let mut table = table();
        let index = NodeIndex(0);
        table.admit(&node("a", "u", 0, 1, "True"), Duration::ZERO);
        table.admit(&node("b", "v", 1, 2, "Unknown"), Duration::ZERO);
        for second in 0..=30 {
            table.listening(Duration::from_secs(second));
        }
        // Stopped for a minute, in which any number of heartbeats was lost.
        let back = Duration::from_secs(90);
        table.listening(back);
        assert_eq!(table.due(index, back, &grace()), None);
        assert_eq!(table.due(NodeIndex(1), back, &grace()), None, "it was silent before");
        for second in 91..130 {
            table.listening(Duration::from_secs(second));
            assert!(!table.take_due(index, Duration::from_secs(second), &grace()));
        }
        assert!(table.take_due(index, Duration::from_secs(130), &grace()));
        assert!(!table.take_due(index, Duration::from_secs(131), &grace()), "being written");
    }

    #[test]
    fn an_index_claimed_twice_stays_with_the_first() {
        let mut table = table();
        assert!(table.admit(&node("a", "u", 0, 1, "True"), Duration::ZERO).is_some());
        assert!(table.admit(&node("b", "v", 0, 2, "True"), Duration::ZERO).is_none());
        assert_eq!(table.named("a").unwrap().0, NodeIndex(0));
    }

    #[test]
    fn members_are_looked_at_when_they_may_be_silent_and_seldom_otherwise() {
        let mut table = table();
        for (index, ready) in ["True", "Unknown", "False"].into_iter().enumerate() {
            let index = u32::try_from(index).unwrap();
            table.admit(&node(ready, ready, index, 1, ready), Duration::ZERO);
        }
        let (mut looks, mut found) = (0, Vec::new());
        for second in 0..200 {
            let now = Duration::from_secs(second);
            table.listening(now);
            for index in table.looks(now) {
                looks += 1;
                if table.look(index, now, &grace()) {
                    found.push((index, second));
                    let name = table.member(index).unwrap().name.clone();
                    table.member_mut(index).unwrap().writing = false;
                    table.admit(&node(&name, &name, index.0, 2, "Unknown"), now);
                }
            }
        }
        // One that reported itself not ready has no grace: it was never heard here.
        assert_eq!(found, [(NodeIndex(2), 2), (NodeIndex(0), 41)]);
        assert!(looks < 20, "{looks} looks");
    }
}
