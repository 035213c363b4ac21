//! The members: every Node with a session, by index and by name. What is known of their lives is in [`life`].
//!
//! Pure bookkeeping: time is passed in (since the server's start), nothing is read or written.

mod life;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use toono_api::intern::Pool;
use toono_session::{NodeIndex, NodeUid, ServerSessions};

use crate::{
    bundles::BundleIndex, certificates::Certificates, config::Grace, elsewhere::Elsewhere,
    looks::Looks, objects::NodeObject, servers::Servers, uplink::Uplink,
};

/// The names of pools, each once.
static POOLS: Pool<str> = Pool::new();

/// Most members: as many subnets as any pod network holds. Whoever may edit a Node's annotations
/// must not be able to make the table larger than memory.
const MOST_MEMBERS: u32 = 1 << 23;
/// A member that is new is looked at after this.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Free indexes, for each server, that one of several servers chooses among.
const CHOICE: usize = 16;

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
    pub(crate) certificates: Certificates,
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
    pub(crate) reported: Option<u32>,
    /// The next reply asks for a full report.
    pub(crate) resend: bool,
    /// The node was told of other servers than there are; a reply will ask it to ask for its grant.
    pub(crate) old_list: bool,
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
    pub(crate) servers: Servers,
    /// Members that are read at the start may know another list of servers.
    pub(crate) lists_may_be_old: bool,
    /// When the list of servers changed last.
    list_changed: Option<Duration>,
    elsewhere: Elsewhere,
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
    uplink: Uplink,
    /// How many members are ready, as the API has them.
    ready: usize,
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
            servers: Servers::default(),
            lists_may_be_old: false,
            list_changed: None,
            elsewhere: Elsewhere::default(),
            joining: HashSet::new(),
            lowest_free: 0,
            loaded: false,
            listening_since: Duration::ZERO,
            listened: Duration::ZERO,
            uplink: Uplink::default(),
            ready: 0,
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
        self.members_from(NodeIndex(0))
    }

    /// As [`members`](Self::members), from an index on.
    pub(crate) fn members_from(
        &self,
        from: NodeIndex,
    ) -> impl Iterator<Item = (NodeIndex, &Member)> {
        let place = usize::try_from(from.0).unwrap_or(usize::MAX);
        let slots = self.slots.get(place..).unwrap_or_default();
        (from.0..).zip(slots).filter_map(|(index, slot)| match slot {
            Slot::Taken(member) => Some((NodeIndex(index), &**member)),
            Slot::Free | Slot::Reserved => None,
        })
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
            certificates: node.certificates(),
            pool: POOLS.share(node.pool()),
            bundle: old.as_ref().map_or(BundleIndex::NONE, |old| old.bundle),
            revision,
            ready: Ready::parse(node.ready()),
            since: old.as_ref().map_or(now, |old| old.since),
            loaded: old.as_ref().map_or(!self.loaded, |old| old.loaded),
            writing: old.as_ref().is_some_and(|old| old.writing),
            reported: old.as_ref().and_then(|old| old.reported),
            resend: old.as_ref().is_some_and(|old| old.resend),
            old_list: old.as_ref().map_or_else(|| self.has_old_list(now), |old| old.old_list),
        };
        self.sessions.admit(index, uid, generation);
        let was_ready = old.is_some_and(|old| old.ready == Ready::True);
        self.ready += usize::from(member.ready == Ready::True);
        self.ready -= usize::from(was_ready);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Slot::Taken(Box::new(member));
        }
        self.by_name.insert(name, index);
        self.looks.set(index, now + FIRST_LOOK);
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
        self.elsewhere.forget(index);
        match self.free(index)? {
            Slot::Taken(member) => {
                self.ready -= usize::from(member.ready == Ready::True);
                Some(member)
            }
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
            let heard = self.heard(index).map(|at| now.saturating_sub(at));
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

    /// Of several servers each prefers indexes of its own, so that joins at the same moment seldom choose the same;
    /// but not so many that holes stay.
    fn reserve_free(&mut self) -> NodeIndex {
        let (own, servers) = self.servers.share();
        let is_free = |place: &usize| matches!(self.slots.get(*place), None | Some(Slot::Free));
        let mut free = (self.lowest_free..).filter(is_free).take(servers * CHOICE).peekable();
        let lowest = free.peek().copied().unwrap_or(self.slots.len());
        let chosen = free.find(|place| place % servers == own).unwrap_or(lowest);
        if self.slots.len() <= chosen {
            self.slots.resize_with(chosen + 1, || Slot::Free);
        }
        if let Some(slot) = self.slots.get_mut(chosen) {
            *slot = Slot::Reserved;
        }
        self.lowest_free = if chosen == lowest { lowest + 1 } else { lowest };
        NodeIndex(u32::try_from(chosen).unwrap_or(u32::MAX))
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
mod tests;
