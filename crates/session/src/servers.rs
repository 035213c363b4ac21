//! Which of several servers a node speaks to: rendezvous hashing, and when to try another one. Pure.
//!
//! Nodes and servers order the servers alike, each node in its own way, without asking anyone. When a server is
//! gone its nodes are spread over all others, and no other node moves.

use std::time::Duration;

use toono_wire::join::Server;

use crate::NodeUid;

/// An answer is waited for so long at first, and twice as long as the last one took, if that is more. Then the
/// heartbeat is repeated, once, since bad links lose some.
pub const PATIENCE: Duration = Duration::from_millis(1_500);
/// The most that is waited for each of the two.
pub const PATIENCE_MOST: Duration = Duration::from_secs(6);
/// Servers tried in one interval.
pub const TRIES: usize = 3;
/// A node that speaks to another than its first server tries that one again after this, and up to five times as
/// long: the nodes of a server that comes back come back over some minutes.
pub const HOME_AFTER: Duration = Duration::from_secs(60);
/// The spread of that.
pub const HOME_SPREAD: Duration = Duration::from_secs(240);

/// A server as nodes are spread over: the first 8 bytes of the SHA-256 of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerHash(u64);

impl ServerHash {
    /// Of a server's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(first_eight(ring::digest::digest(&ring::digest::SHA256, name.as_bytes()).as_ref()))
    }

    /// The weight of this server for a node; the one with the highest is its first. `docs/protocol.md` says how
    /// it is made.
    #[must_use]
    pub fn weight(self, node: &NodeUid) -> u64 {
        // SplitMix64's finisher: each bit of what goes in changes half of those that come out.
        let mut mixed = self.0 ^ first_eight(node.as_bytes());
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// What a ticket for this server has in its highest 16 bits.
    #[must_use]
    pub fn tag(self) -> u16 {
        u16::try_from(self.0 >> 48).unwrap_or_default()
    }

    /// A ticket that leads to this server.
    #[must_use]
    pub fn ticket(self, random: u64) -> u64 {
        (self.0 & !(u64::MAX >> 16)) | (random >> 16)
    }

    /// Whether a ticket leads to this server.
    #[must_use]
    pub fn owns_ticket(self, ticket: u64) -> bool {
        ticket >> 48 == u64::from(self.tag())
    }
}

/// The first server of a node among these; none of none.
pub fn first(node: &NodeUid, servers: impl Iterator<Item = ServerHash>) -> Option<ServerHash> {
    servers.max_by_key(|server| (server.weight(node), *server))
}

fn first_eight(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Where a node is in its list of servers, and when it tries another one.
#[derive(Debug, Clone)]
pub struct Choice {
    /// In the node's order.
    servers: Vec<Server>,
    at: usize,
    /// Servers that were tried since the newest answer, this one not counted.
    tried: usize,
    /// The heartbeat was repeated to this server.
    repeated: bool,
    patience: Duration,
    /// When the first server is tried again, while another one serves.
    home_at: Duration,
}

/// What to do when no answer came for [`Choice::patience`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send another heartbeat to the same server.
    Repeat,
    /// Turn to the chosen server, which is another one, and send one there.
    Next,
    /// Turn to the chosen server, and wait for the next interval: none of those tried has answered.
    Rest,
}

impl Choice {
    /// Begins with the node's first server.
    #[must_use]
    pub fn new(node: &NodeUid, mut servers: Vec<Server>) -> Self {
        servers.sort_by_cached_key(|server| {
            let hash = ServerHash::new(&server.name);
            std::cmp::Reverse((hash.weight(node), hash))
        });
        let home_at = Duration::ZERO;
        Self { servers, at: 0, tried: 0, repeated: false, patience: PATIENCE, home_at }
    }

    /// One more, for when none of the others answers; nothing if it is among them.
    #[must_use]
    pub fn with_last(mut self, last: Server) -> Self {
        let same = |server: &Server| server.host == last.host && server.port == last.port;
        if !self.servers.is_empty() && !self.servers.iter().any(same) {
            self.servers.push(last);
        }
        self
    }

    /// Whether there is another server to try.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.servers.len() > 1
    }

    /// The server to speak to; none when none was named.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        self.servers.get(self.at)
    }

    /// Whether that is the node's first one.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.at == 0
    }

    /// How many servers are tried in one interval.
    #[must_use]
    pub fn tries(&self) -> usize {
        self.servers.len().clamp(1, TRIES)
    }

    /// For how long to wait for an answer to a heartbeat, before [`unanswered`](Self::unanswered) says what to do.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The server has answered after so long.
    pub fn answered(&mut self, round_trip: Duration) {
        (self.tried, self.repeated) = (0, false);
        self.patience = (round_trip * 2).clamp(PATIENCE, PATIENCE_MOST);
    }

    /// No answer came. `random` spreads the nodes' return.
    pub fn unanswered(&mut self, now: Duration, random: u32) -> Step {
        if !std::mem::replace(&mut self.repeated, true) {
            return Step::Repeat;
        }
        self.repeated = false;
        self.tried += 1;
        if self.tried < self.tries() {
            self.turn_to_next(now, random);
            return Step::Next;
        }
        // If that were all, it is the link, perhaps a slow one, and the first is as good as any.
        if self.tries() == self.servers.len() {
            self.at = 0;
        } else {
            self.turn_to_next(now, random);
        }
        self.tried = 0;
        self.patience = (self.patience * 2).min(PATIENCE_MOST);
        Step::Rest
    }

    /// Chooses the next server, round and round.
    pub fn turn_to_next(&mut self, now: Duration, random: u32) {
        self.at = (self.at + 1) % self.servers.len().max(1);
        let spread = HOME_SPREAD.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.home_at = now + HOME_AFTER + spread;
    }

    /// Chooses the first server again if it is time to; whether it did.
    pub fn go_home(&mut self, now: Duration) -> bool {
        let due = !self.is_home() && now >= self.home_at;
        if due {
            self.at = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<NodeUid> {
        (0..count).map(|number| NodeUid::new(&format!("node-{number}"))).collect()
    }

    fn hashes(names: &[&str]) -> Vec<ServerHash> {
        names.iter().map(|name| ServerHash::new(name)).collect()
    }

    fn server(name: &str) -> Server {
        Server { name: name.to_owned(), host: name.to_owned(), port: 1, udp_port: 1 }
    }

    #[test]
    fn nodes_are_spread_evenly_and_only_those_of_a_lost_server_move() {
        let names = ["a", "b", "c", "server-4", "server-5"];
        let (nodes, all) = (nodes(50_000), hashes(&names));
        let firsts: Vec<_> =
            nodes.iter().map(|node| first(node, all.iter().copied()).unwrap()).collect();
        for gone in &all {
            let theirs = firsts.iter().filter(|first| *first == gone).count();
            assert!((9_600..10_400).contains(&theirs), "{gone:?} has {theirs}");
            let left = || all.iter().copied().filter(|server| server != gone);
            let mut taken = vec![0; all.len()];
            for (node, before) in nodes.iter().zip(&firsts) {
                let after = first(node, left()).unwrap();
                if before == gone {
                    taken[all.iter().position(|server| *server == after).unwrap()] += 1;
                } else {
                    assert_eq!(after, *before, "a node of another server moved");
                }
            }
            taken.retain(|count| *count > 0);
            assert_eq!(taken.len(), 4);
            assert!(taken.iter().all(|count| (2_250..2_750).contains(count)), "{taken:?}");
        }
    }

    #[test]
    fn weights_are_those_that_are_written_down() {
        let page = include_str!("../../../docs/protocol.md");
        for name in ["a", "b", "c"] {
            let weight = ServerHash::new(name).weight(&NodeUid::new("uid"));
            assert!(page.contains(&format!("`{weight:016x}`")), "{name} has {weight:016x}");
        }
        assert!(page.contains(&format!("begin with `{:04x}`", ServerHash::new("a").tag())));
    }

    #[test]
    fn node_and_server_order_alike() {
        let names = ["a", "b", "c"];
        for node in nodes(100) {
            let choice = Choice::new(&node, names.map(server).to_vec());
            let first = first(&node, hashes(&names).into_iter()).unwrap();
            assert_eq!(ServerHash::new(&choice.server().unwrap().name), first);
        }
    }

    #[test]
    fn a_choice_goes_round_and_back_after_minutes() {
        let mut choice =
            Choice::new(&nodes(1)[0], ["a", "b"].map(server).to_vec()).with_last(server("last"));
        assert!(choice.has_others() && choice.is_home());
        let home = choice.server().cloned();
        let now = Duration::from_secs(5);
        assert_eq!(choice.unanswered(now, 0), Step::Repeat);
        assert_eq!(choice.server().cloned(), home);
        assert_eq!(choice.unanswered(now, 0), Step::Next);
        assert!(choice.server().cloned() != home && !choice.go_home(now));
        choice.answered(Duration::from_secs(2));
        assert_eq!(choice.patience(), Duration::from_secs(4));
        assert!(!choice.go_home(now + HOME_AFTER / 2));
        assert!(choice.go_home(now + HOME_AFTER) && choice.server().cloned() == home);
        assert!(!choice.go_home(now + HOME_AFTER * 2), "it is there");
        let steps: Vec<_> = (0..6).map(|_| choice.unanswered(now, u32::MAX)).collect();
        use Step::{Next, Repeat, Rest};
        assert_eq!(steps, [Repeat, Next, Repeat, Next, Repeat, Rest]);
        assert_eq!((choice.server().cloned(), choice.patience()), (home, PATIENCE_MOST));
        choice.turn_to_next(now, u32::MAX);
        choice.turn_to_next(now, u32::MAX);
        assert_eq!(choice.server().unwrap().name, "last");
        assert!(
            !choice.go_home(now + HOME_SPREAD) && choice.go_home(now + HOME_AFTER + HOME_SPREAD)
        );
    }

    #[test]
    fn of_many_servers_all_have_their_turn() {
        let names = ["a", "b", "c", "d", "e"].map(server).to_vec();
        let mut choice = Choice::new(&nodes(1)[0], names);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2 * 2 * TRIES {
            seen.insert(choice.server().unwrap().name.clone());
            choice.unanswered(Duration::ZERO, 0);
        }
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn a_single_server_leaves_no_choice_and_a_ticket_leads_home() {
        let alone = Choice::new(&nodes(1)[0], Vec::new()).with_last(server("last"));
        assert!(!alone.has_others() && alone.server().is_none());
        let known = Choice::new(&nodes(1)[0], vec![server("a")]).with_last(server("a"));
        assert!(!known.has_others());
        let [a, b] = [ServerHash::new("a"), ServerHash::new("b")];
        let ticket = a.ticket(0x0123_4567_89ab_cdef);
        assert!(a.owns_ticket(ticket) && !b.owns_ticket(ticket));
        assert_eq!(ticket & (u64::MAX >> 16), 0x0123_4567_89ab);
    }
}
