//! Nodes without a session, such as those of a stock kubelet: alive by the renewals of their Leases and by
//! what they report of themselves.
//!
//! Pure bookkeeping: time is passed in (since the server's start), nothing is read or written.

use std::{collections::HashMap, sync::Arc, time::Duration};

use toono_session::{NodeIndex, NodeUid};

use crate::{config::Grace, looks::Looks, objects::NodeObject, table::Ready};

/// A node that has told nothing of itself yet has at least so long; Kubernetes'
/// `--node-startup-grace-period`.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// Until a node is looked at again whose readiness is being written.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One of them.
#[derive(Debug)]
struct Node {
    name: Arc<str>,
    uid: NodeUid,
    pool: Box<str>,
    revision: u64,
    ready: Ready,
    /// When it last reported, in its own words: another text is another report.
    reported: Option<Box<str>>,
    /// When it was last heard here.
    heard: Option<Duration>,
    /// From when on silence counts: the first sight of it, or what was heard of it since.
    counted_from: Duration,
    writing: bool,
}

/// A node that is to be called silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silent {
    pub(crate) name: Arc<str>,
    pub(crate) uid: NodeUid,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Leased {
    /// Indexes are of this table alone, and are given out anew when a node is gone.
    nodes: Vec<Option<Node>>,
    by_name: HashMap<Arc<str>, usize>,
    free: Vec<usize>,
    /// Every node is in it.
    looks: Looks,
}

impl Leased {
    /// Takes a Node as the API has it; one with a session is another table's.
    pub(crate) fn admit(&mut self, node: &NodeObject, now: Duration) {
        let name = node.metadata.name.as_str();
        if node.session_index().is_some() {
            self.remove(name, None);
            return;
        }
        let (uid, revision) = (NodeUid::new(&node.metadata.uid), node.metadata.revision());
        let (ready, reported) = (Ready::parse(node.ready()), node.reported().map(Box::from));
        let known = self.node_mut(name);
        if known.as_ref().is_some_and(|known| known.revision > revision) {
            return;
        }
        if let Some(known) = known.filter(|known| known.uid == uid) {
            (known.revision, known.ready, known.pool) = (revision, ready, node.pool().into());
            // The server writes that it is silent without a report of the node's own.
            if known.reported != reported && ready != Ready::Unknown {
                known.heard = Some(now);
                known.counted_from = known.counted_from.max(now);
            }
            known.reported = reported;
            return;
        }
        self.remove(name, None);
        let place = self.free.pop().unwrap_or(self.nodes.len());
        if place == self.nodes.len() {
            self.nodes.push(None);
        }
        let name: Arc<str> = name.into();
        if let Some(free) = self.nodes.get_mut(place) {
            *free = Some(Node {
                name: Arc::clone(&name),
                uid,
                pool: node.pool().into(),
                revision,
                ready,
                reported,
                heard: None,
                counted_from: now,
                writing: false,
            });
        }
        self.by_name.insert(name, place);
        self.set_look(place, now + LOOK_AGAIN);
    }

    /// Forgets a Node; with `uid`, only if it is that one.
    pub(crate) fn remove(&mut self, name: &str, uid: Option<NodeUid>) {
        let Some(place) = self.by_name.get(name).copied() else { return };
        let Some(node) = self.nodes.get_mut(place) else { return };
        if node.as_ref().is_some_and(|node| uid.is_none_or(|uid| uid == node.uid)) {
            *node = None;
            self.by_name.remove(name);
            self.free.push(place);
        }
    }

    /// Keeps only the nodes that this is true of.
    pub(crate) fn retain(&mut self, stays: impl Fn(NodeUid) -> bool) {
        let gone = self.nodes.iter().flatten().filter(|node| !stays(node.uid));
        let gone: Vec<_> = gone.map(|node| Arc::clone(&node.name)).collect();
        gone.iter().for_each(|name| self.remove(name, None));
    }

    /// A node's Lease was renewed; its next renewals may not be heard of here for `unseen`.
    pub(crate) fn renewed(&mut self, name: &str, now: Duration, unseen: Duration) {
        if let Some(node) = self.node_mut(name) {
            node.heard = Some(now);
            node.counted_from = node.counted_from.max(now + unseen);
        }
    }

    /// When a node was last heard.
    pub(crate) fn heard(&self, name: &str) -> Option<Duration> {
        self.node(name)?.heard
    }

    /// Whom to call silent now; each is marked as being written. `listening_since`: what was sent before may
    /// have been lost unheard.
    pub(crate) fn silent(
        &mut self,
        now: Duration,
        listening_since: Duration,
        grace: &Grace,
    ) -> Vec<Silent> {
        let mut silent = Vec::new();
        for index in self.looks.due(now) {
            let Ok(place) = usize::try_from(index.0) else { continue };
            let Some(Some(node)) = self.nodes.get_mut(place) else { continue };
            let silent_at = node.silent_at(listening_since, grace);
            let next = if node.ready == Ready::Unknown {
                // To see it return takes no look: it says so itself.
                now + grace.of(&node.pool)
            } else if now < silent_at {
                silent_at
            } else {
                if !node.writing {
                    node.writing = true;
                    silent.push(Silent { name: Arc::clone(&node.name), uid: node.uid });
                }
                now + LOOK_AGAIN
            };
            self.set_look(place, next);
        }
        silent
    }

    /// Whether a node that was found silent still is.
    pub(crate) fn is_silent(
        &self,
        node: &Silent,
        now: Duration,
        listening_since: Duration,
        grace: &Grace,
    ) -> bool {
        let known = self.node(&node.name).filter(|known| known.uid == node.uid);
        known.is_some_and(|known| now >= known.silent_at(listening_since, grace))
    }

    /// The write about a node has ended, well or not.
    pub(crate) fn written(&mut self, name: &str) {
        if let Some(node) = self.node_mut(name) {
            node.writing = false;
        }
    }

    fn set_look(&mut self, place: usize, at: Duration) {
        self.looks.set(NodeIndex(u32::try_from(place).unwrap_or(u32::MAX)), at);
    }

    fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(*self.by_name.get(name)?)?.as_ref()
    }

    fn node_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.nodes.get_mut(*self.by_name.get(name)?)?.as_mut()
    }
}

impl Node {
    fn silent_at(&self, listening_since: Duration, grace: &Grace) -> Duration {
        let grace = grace.of(&self.pool);
        let told = self.reported.is_some() || self.heard.is_some();
        let grace = if told { grace } else { grace.max(STARTUP_GRACE) };
        self.counted_from.max(listening_since) + grace
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, revision: u64, ready: &str, reported: Option<&str>) -> NodeObject {
        let pool = json!({"apps.openyurt.io/nodepool": name.get(..1)});
        let value = json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": pool,
                "resourceVersion": revision.to_string()},
            "status": {"conditions": [
                {"type": "Ready", "status": ready, "lastHeartbeatTime": reported}]}});
        NodeObject::parse(&serde_json::to_vec(&value).unwrap()).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// When nodes are found silent within so many seconds, `tell` telling of them in between.
    fn found(
        leased: &mut Leased,
        grace: &Grace,
        seconds: u64,
        mut tell: impl FnMut(&mut Leased, u64),
    ) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for second in 0..seconds {
            tell(leased, second);
            for silent in leased.silent(at(second), Duration::ZERO, grace) {
                assert!(leased.is_silent(&silent, at(second), Duration::ZERO, grace));
                found.push((silent.name.to_string(), second));
                leased.admit(&node(&silent.name, 1_000, "Unknown", Some("t0")), at(second));
                leased.written(&silent.name);
            }
        }
        found
    }

    #[test]
    fn a_node_is_silent_when_neither_its_lease_nor_its_status_says_otherwise() {
        let mut leased = Leased::default();
        for name in ["never", "dead", "leases", "reports", "both"] {
            leased.admit(&node(name, 1, "True", Some("t0")), at(0));
        }
        leased.admit(&node("quiet", 1, "Unknown", None), at(0));
        leased.admit(&node("new", 1, "False", None), at(0));
        let found = found(&mut leased, &Grace::default(), 300, |leased, second| {
            if second % 10 == 5 {
                leased.renewed("leases", at(second), Duration::ZERO);
            }
            if second % 30 == 5 {
                let report = format!("t{second}");
                leased.admit(&node("reports", 2 + second, "True", Some(&report)), at(second));
            }
            // Its kubelet dies after a last renewal, and what others change of it says nothing.
            if second == 100 {
                leased.renewed("both", at(100), Duration::ZERO);
            } else if second < 100 && second % 20 == 0 {
                leased.renewed("both", at(second), Duration::ZERO);
            } else if second > 100 && second % 10 == 0 {
                leased.admit(&node("both", 2 + second, "True", Some("t0")), at(second));
            }
            if second < 20 {
                leased.renewed("dead", at(second), Duration::ZERO);
            }
        });
        let mut names: Vec<_> =
            found.iter().map(|(name, second)| (name.as_str(), *second)).collect();
        names.dedup();
        // A look comes when its second has passed.
        assert_eq!(names.first(), Some(&("never", 41)));
        assert!(names.contains(&("dead", 60)), "{names:?}");
        assert!(names.contains(&("new", 61)), "it has longer to begin with: {names:?}");
        assert!(names.contains(&("both", 141)), "{names:?}");
        let alive = ["leases", "reports", "quiet"];
        assert!(!names.iter().any(|(name, _)| alive.contains(name)), "{names:?}");
    }

    #[test]
    fn pools_have_graces_of_their_own_and_other_servers_hear_nodes_too() {
        let mut leased = Leased::default();
        for name in ["a1", "b1", "c1"] {
            leased.admit(&node(name, 1, "True", Some("t0")), at(0));
        }
        let grace = Grace::default().with_pool("b", at(100));
        let found = found(&mut leased, &grace, 200, |leased, second| {
            if second == 10 {
                leased.renewed("c1", at(10), at(20));
            }
        });
        let names: Vec<_> = found.iter().map(|(name, second)| (name.as_str(), *second)).collect();
        assert_eq!(names, [("a1", 41), ("c1", 71), ("b1", 101)]);
    }

    #[test]
    fn a_server_that_was_held_up_and_a_node_that_is_another_blame_nobody() {
        let mut leased = Leased::default();
        leased.admit(&node("a1", 1, "True", Some("t0")), at(0));
        assert!(leased.silent(at(50), at(45), &Grace::default()).is_empty());
        let gone = Silent { name: "a1".into(), uid: NodeUid::new("other") };
        assert!(!leased.is_silent(&gone, at(500), at(45), &Grace::default()));
        leased.remove("a1", Some(NodeUid::new("other")));
        assert!(leased.node("a1").is_some());
        leased.retain(|uid| uid != NodeUid::new("uid-a1"));
        assert!(leased.silent(at(500), at(45), &Grace::default()).is_empty());
        leased.admit(&node("a2", 1, "True", Some("t0")), at(500));
        assert_eq!(leased.nodes.len(), 1, "its place is used again");
    }
}
