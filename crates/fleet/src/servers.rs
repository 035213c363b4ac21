//! The servers of a cluster that has several, as this one knows them: which of them live, which nodes are this
//! one's to judge, what the others are still to be told. Pure bookkeeping: time is passed in.
//!
//! A server judges only nodes whose first living server it is, and only while it reaches the store and each
//! other living server tells it whom it hears. So a node that speaks to any server is silent for none.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use toono_session::{
    NodeIndex, NodeUid,
    servers::{ServerHash, first},
};
use toono_wire::join::Server;

/// Another server's news may be missing so long; it sends them each second.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server of the cluster, as it says of itself in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownServer {
    /// Its name, and how it is dialled.
    pub server: Server,
    /// Whether it has said lately that it lives.
    pub live: bool,
}

/// All of them. With none but this one, nothing here costs anything.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    own: Option<Own>,
    /// Whether this server reaches the store.
    connected: bool,
    others: Vec<Other>,
    /// All, by name, for the nodes.
    list: Vec<Server>,
    /// Numbers of the others' names; a number is given once.
    numbers: Vec<String>,
    /// This server answers no heartbeat, so that its nodes turn to another one.
    mute: bool,
    judging: bool,
}

#[derive(Debug)]
struct Own {
    hash: ServerHash,
    name: String,
    live: bool,
}

#[derive(Debug)]
struct Other {
    server: Server,
    hash: ServerHash,
    number: u16,
    live: bool,
    /// When its news came last.
    told_at: Option<Duration>,
    /// Whether it reached the store then.
    connected: bool,
    /// Bounded: each node is in it once when it is sent, and it is sent each second or emptied.
    heard: Vec<u32>,
    dials: Vec<(u32, u64)>,
    /// Woken when `dials` has something.
    wake: Arc<Notify>,
}

/// What is different from before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Which servers live.
    pub(crate) live: bool,
    /// What nodes are told.
    pub(crate) list: bool,
}

/// What a server is told next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) heard: Vec<u32>,
    pub(crate) dials: Vec<(u32, u64)>,
}

impl Servers {
    /// From now on these are the servers, this one, which is called `own`, among them.
    pub(crate) fn set(&mut self, own: &str, servers: Vec<KnownServer>, connected: bool) -> Changed {
        let first_time = self.own.is_none();
        let before = self.live();
        let mut list: Vec<Server> = servers.iter().map(|known| known.server.clone()).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        if list.len() < 2 {
            list.clear();
        }
        let mut others = std::mem::take(&mut self.others);
        let mut own_lives = false;
        for KnownServer { server, live } in servers {
            if server.name == own {
                own_lives = live;
                continue;
            }
            let old = others.iter().position(|other| other.server == server);
            let mut other = match old {
                Some(at) => others.swap_remove(at),
                None => Other::new(self.number_of(&server.name), server),
            };
            if !live {
                // It gives everyone the grace when it comes back.
                other.heard = Vec::new();
                other.dials = Vec::new();
            }
            other.live = live;
            self.others.push(other);
        }
        self.own = Some(Own { hash: ServerHash::new(own), name: own.to_owned(), live: own_lives });
        self.connected = connected;
        let changed = Changed {
            live: !first_time && self.live() != before,
            list: !first_time && self.list != list,
        };
        self.list = list;
        changed
    }

    fn number_of(&mut self, name: &str) -> u16 {
        let known = self.numbers.iter().position(|known| known == name);
        let number = known.unwrap_or_else(|| {
            self.numbers.push(name.to_owned());
            self.numbers.len() - 1
        });
        u16::try_from(number).unwrap_or(u16::MAX)
    }

    fn live(&self) -> Vec<ServerHash> {
        let others = self.others.iter().filter(|other| other.live).map(|other| other.hash);
        let own = self.own.iter().filter(|own| own.live).map(|own| own.hash);
        let mut live: Vec<_> = own.chain(others).collect();
        live.sort_unstable();
        live
    }

    /// Looks at the time; to be said each second. Whether this server may call nodes silent at all.
    pub(crate) fn tick(&mut self, now: Duration) -> bool {
        self.mute = self.should_be_mute(now);
        let judging = self.own.as_ref().is_none_or(|own| {
            let told = self.others.iter().filter(|other| other.live).all(|other| other.told(now));
            own.live && self.connected && told
        });
        if judging != std::mem::replace(&mut self.judging, judging) && self.own.is_some() {
            let connected = self.connected;
            tracing::info!(judging, connected, "whether this server calls nodes silent");
        }
        judging
    }

    /// Cut off from the store it follows no change, and a node is better off at a server that does, if there may
    /// be one: unless those that can be asked are all cut off, too.
    fn should_be_mute(&self, now: Duration) -> bool {
        let mut others = self.others.iter().filter(|other| other.live).peekable();
        if self.own.is_none() || self.connected || others.peek().is_none() {
            return false;
        }
        let mut told = others.filter(|other| other.told(now)).peekable();
        told.peek().is_none() || told.any(|other| other.connected)
    }

    pub(crate) fn is_mute(&self) -> bool {
        self.mute
    }

    /// Whether a node's silence is this server's to judge.
    pub(crate) fn judges(&self, node: &NodeUid) -> bool {
        let Some(own) = &self.own else { return true };
        let others = self.others.iter().filter(|other| other.live).map(|other| other.hash);
        self.judging && first(node, others.chain([own.hash])) == Some(own.hash)
    }

    /// Whether there are others, as far as this one knows.
    fn are_several(&self) -> bool {
        !self.list.is_empty()
    }

    /// Whether the store is one that others may use, too: also such as this server has not heard of yet.
    pub(crate) fn share_a_store(&self) -> bool {
        self.own.is_some()
    }

    /// This server's place among all, and how many there are.
    pub(crate) fn share(&self) -> (usize, usize) {
        let own = self.list.iter().position(|server| server.name == self.own_name());
        (own.unwrap_or(0), self.list.len().max(1))
    }

    /// What nodes are told: all servers, or none where there is one.
    pub(crate) fn list(&self) -> &[Server] {
        &self.list
    }

    pub(crate) fn own_name(&self) -> &str {
        self.own.as_ref().map_or("", |own| &own.name)
    }

    /// A ticket that leads nodes to this server.
    pub(crate) fn ticket(&self, random: u64) -> u64 {
        match &self.own {
            Some(own) if self.are_several() => own.hash.ticket(random),
            _ => random,
        }
    }

    /// A node was heard here.
    pub(crate) fn heard_here(&mut self, index: NodeIndex) {
        for other in self.others.iter_mut().filter(|other| other.live) {
            other.heard.push(index.0);
        }
    }

    /// Has another server poke a node; all of them if it is not known which one hears it.
    pub(crate) fn dial_back(&mut self, number: Option<u16>, node: NodeIndex, ticket: u64) {
        let others = self.others.iter_mut().filter(|other| other.live);
        for other in others.filter(|other| number.is_none_or(|number| other.number == number)) {
            other.dials.push((node.0, ticket));
            other.wake.notify_one();
        }
    }

    /// A server's news came. Its number; none if it is no server of this cluster.
    pub(crate) fn told(&mut self, name: &str, connected: bool, now: Duration) -> Option<u16> {
        let other = self.others.iter_mut().find(|other| other.server.name == name)?;
        other.told_at = Some(now);
        other.connected = connected;
        Some(other.number)
    }

    /// The name that a number was given for.
    pub(crate) fn name(&self, number: u16) -> Option<&str> {
        self.numbers.get(usize::from(number)).map(String::as_str)
    }

    /// Whom to tell, and what wakes who tells them.
    pub(crate) fn to_tell(&self) -> Vec<(Server, Arc<Notify>)> {
        let live = self.others.iter().filter(|other| other.live);
        live.map(|other| (other.server.clone(), other.wake.clone())).collect()
    }

    /// Takes what a server is to be told, and whether this one reaches the store.
    pub(crate) fn owed(&mut self, server: &Server) -> (Owed, bool) {
        let other = self.others.iter_mut().find(|other| other.server == *server);
        let owed = other.map(|other| Owed {
            heard: std::mem::take(&mut other.heard),
            dials: std::mem::take(&mut other.dials),
        });
        (owed.unwrap_or_default(), self.connected)
    }

    /// It could not be told, and is to be later. Dials are repeated anyway.
    pub(crate) fn still_owed(&mut self, server: &Server, heard: Vec<u32>) {
        let other = self.others.iter_mut().find(|other| other.live && other.server == *server);
        if let Some(other) = other {
            other.heard.extend(heard);
            other.heard.sort_unstable();
            other.heard.dedup();
        }
    }
}

impl Other {
    fn new(number: u16, server: Server) -> Self {
        Self {
            hash: ServerHash::new(&server.name),
            server,
            number,
            live: false,
            told_at: None,
            connected: true,
            heard: Vec::new(),
            dials: Vec::new(),
            wake: Arc::default(),
        }
    }

    fn told(&self, now: Duration) -> bool {
        self.told_at.is_some_and(|at| now < at + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> Server {
        Server { name: name.to_owned(), host: "h".to_owned(), port: 1, udp_port: 2 }
    }

    fn known(names: &[(&str, bool)]) -> Vec<KnownServer> {
        names.iter().map(|(name, live)| KnownServer { server: server(name), live: *live }).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn judged(servers: &Servers) -> usize {
        (0..300).filter(|n| servers.judges(&NodeUid::new(&format!("u{n}")))).count()
    }

    #[test]
    fn a_server_alone_judges_all() {
        let mut servers = Servers::default();
        assert!(servers.tick(at(1)) && !servers.is_mute());
        assert_eq!(judged(&servers), 300);
        assert_eq!(servers.set("a", known(&[("a", true)]), true), Changed::default());
        assert!(servers.tick(at(1)) && !servers.are_several());
        assert_eq!((judged(&servers), servers.ticket(7)), (300, 7));
        servers.set("a", known(&[("a", true)]), false);
        assert!(!servers.tick(at(2)) && !servers.is_mute(), "nobody else could answer");
        assert_eq!(judged(&servers), 0);
    }

    #[test]
    fn servers_judge_their_own_nodes_while_all_that_live_are_heard() {
        let [mut a, mut b] = [Servers::default(), Servers::default()];
        let both = known(&[("a", true), ("b", true)]);
        a.set("a", both.clone(), true);
        b.set("b", both.clone(), true);
        assert!(!a.tick(at(0)), "b has not said whom it hears");
        a.told("b", true, at(1));
        b.told("a", true, at(1));
        assert!(a.tick(at(5)) && b.tick(at(5)));
        assert_eq!(judged(&a) + judged(&b), 300);
        assert!((100..200).contains(&judged(&a)));
        assert!(!a.tick(at(6)), "b tells nothing any more");
        assert_eq!(judged(&a), 0);
        let gone = known(&[("a", true), ("b", false)]);
        assert_eq!(a.set("a", gone, true), Changed { live: true, list: false });
        assert!(a.tick(at(8)));
        assert_eq!(judged(&a), 300, "its nodes are a's now");
        let three = known(&[("a", true), ("b", false), ("c", true)]);
        assert_eq!(a.set("a", three, true), Changed { live: true, list: true });
    }

    #[test]
    fn a_server_that_is_cut_off_is_mute_where_another_may_not_be() {
        let mut a = Servers::default();
        let three = known(&[("a", true), ("b", true), ("c", true)]);
        a.set("a", three, false);
        a.tick(at(0));
        assert!(a.is_mute(), "nobody says that they are cut off, too");
        a.told("b", false, at(1));
        a.tick(at(1));
        assert!(!a.is_mute());
        a.told("c", true, at(2));
        a.tick(at(2));
        assert!(a.is_mute(), "c is not cut off");
        a.told("b", false, at(8));
        a.tick(at(8));
        assert!(!a.is_mute(), "c is gone, or cannot be reached");
    }

    #[test]
    fn others_are_told_once_and_again_if_that_failed() {
        let mut a = Servers::default();
        a.set("a", known(&[("a", true), ("b", true), ("c", false)]), true);
        for index in [3, 1, 3] {
            a.heard_here(NodeIndex(index));
        }
        a.dial_back(None, NodeIndex(9), 77);
        assert_eq!(a.to_tell().len(), 1);
        let (owed, connected) = a.owed(&server("b"));
        assert_eq!(
            (owed.heard.as_slice(), owed.dials.as_slice(), connected),
            (&[3, 1, 3][..], &[(9, 77)][..], true)
        );
        assert_eq!(a.owed(&server("b")).0, Owed::default());
        a.heard_here(NodeIndex(2));
        a.still_owed(&server("b"), owed.heard);
        assert_eq!(a.owed(&server("b")).0.heard, [1, 2, 3]);
        assert_eq!(a.owed(&server("c")).0, Owed::default());
        assert_eq!(a.told("d", true, at(1)), None);
        let number = a.told("b", true, at(1)).unwrap();
        assert_eq!(a.name(number), Some("b"));
    }
}
