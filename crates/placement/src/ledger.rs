//! Ledgers: what a template's rules count on each node, added up by domain.
//!
//! A node's counts are added to the domains where the node is, and taken out again when it moves or they
//! change. Which pods count, and how much, a `census` says.

use std::{ops::Range, sync::Arc};

use crate::{
    cell::CellId,
    cluster::Cluster,
    few::Few,
    filter::Affinity,
    ids::IdMap,
    intern::Symbol,
    node::NodeIndex,
    pod::PodView,
    site::Site,
    spread,
    topology::{Effect, Rule, Topology},
};

/// Which pods a question counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Those that one of the pod's constraints on spreading selects.
    Constraint(usize),
    /// Those of the same owner.
    Owner,
    /// Those that all of the pod's required affinities select.
    Near,
    /// Those that one of its required anti-affinities selects.
    Apart(usize),
    /// Those that one of its preferences selects.
    Liking(usize),
    /// Those that want no such pod near.
    Shunning,
    /// Those that prefer such pods near, or far.
    Fond,
}

impl About {
    /// Whether pods that are being deleted count no more.
    pub(crate) fn stays(self) -> bool {
        matches!(self, Self::Constraint(_) | Self::Owner)
    }
}

/// What is asked, and the rules that the answer goes into, by label.
pub(crate) type Asked = (About, Vec<(Box<str>, Effect)>);

/// A question, and the rules that its answer goes into.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) about: About,
    pub(crate) rules: Range<usize>,
}

/// A count on a node, and whether its domains have it.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    count: i64,
    added: bool,
}

/// A node with pods that count.
#[derive(Debug, Default)]
struct Here {
    /// Where it was when its counts were added.
    at: Option<(Arc<Site>, Symbol)>,
    settled: bool,
    /// The cell that it was in then.
    cell: Option<CellId>,
    /// For each question; those at the end may be missing.
    counts: Vec<Count>,
}

/// A cell, and how many pods count on its node for each question.
type Family = (CellId, Box<[i64]>);

/// What is counted for a template.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) questions: Vec<Question>,
    pub(crate) topology: Topology,
    nodes: IdMap<NodeIndex, Here>,
    /// Some rule's domains are single nodes.
    own_names: bool,
    /// If so: the nodes with pods that count, by cell and counts. No rule tells those of a family apart.
    families: IdMap<Family, Few<NodeIndex>>,
    /// How many nodes of a cell are in families.
    apart: IdMap<CellId, usize>,
    /// Nodes whose counts are not in their domains.
    unsettled: Vec<NodeIndex>,
}

impl Ledger {
    /// How many nodes have pods that count.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Whether some rule may tell the node from others of its cell.
    pub(crate) fn tells_apart(&self, node: NodeIndex) -> bool {
        self.own_names && self.nodes.get(&node).is_some_and(|here| here.cell.is_some())
    }

    /// How many nodes of a cell some rule may tell from others of it.
    pub(crate) fn apart_in(&self, cell: CellId) -> usize {
        self.apart.get(&cell).copied().unwrap_or(0)
    }

    /// The nodes that some rule may tell from others of their cells, as families that no rule tells apart.
    pub(crate) fn families(&self) -> impl Iterator<Item = &Few<NodeIndex>> {
        self.families.values()
    }

    /// Adds a question, and tells its place.
    pub(crate) fn ask(&mut self, (about, rules): Asked, cluster: &Cluster) -> usize {
        let from = self.topology.rules.len();
        let rules = rules.into_iter().map(|(label, effect)| {
            let key = cluster.symbols.lookup(&label);
            Rule { label, key, counts: IdMap::default(), effect }
        });
        self.topology.rules.extend(rules);
        if !self.own_names
            && self.topology.rules.iter().any(|rule| cluster.sites.is_own_name(rule.key))
        {
            self.own_names = true;
            let nodes: Vec<_> = self.nodes.keys().copied().collect();
            for node in nodes {
                self.unsettle(node);
            }
        }
        self.questions.push(Question { about, rules: from..self.topology.rules.len() });
        self.questions.len() - 1
    }

    /// Whether its rules' labels are what they were.
    pub(crate) fn means_the_same(&self, cluster: &Cluster) -> bool {
        let mut rules = self.topology.rules.iter();
        rules.clone().all(|rule| cluster.symbols.lookup(&rule.label) == rule.key)
            && rules.any(|rule| cluster.sites.is_own_name(rule.key)) == self.own_names
    }

    /// A node may be in another cell now.
    pub(crate) fn moved(&mut self, node: NodeIndex) {
        if self.nodes.contains_key(&node) {
            self.unsettle(node);
        }
    }

    /// The same, after a pod came or went there: that moves it within its site.
    pub(crate) fn loaded(&mut self, node: NodeIndex) {
        if self.own_names {
            self.moved(node);
        }
    }

    /// Counts so much more on a node.
    pub(crate) fn add(&mut self, node: NodeIndex, question: usize, by: i64) {
        if by == 0 {
            return;
        }
        let here = self.unsettle(node);
        if question >= here.counts.len() {
            here.counts.resize(question + 1, Count::default());
        }
        if let Some(count) = here.counts.get_mut(question) {
            count.count += by;
        }
    }

    /// Takes a node's counts out of its domains, until they are settled again.
    fn unsettle(&mut self, node: NodeIndex) -> &mut Here {
        let here = self.nodes.entry(node).or_insert_with(|| {
            self.unsettled.push(node);
            Here::default()
        });
        if here.settled {
            here.settled = false;
            self.unsettled.push(node);
            if let Some(cell) = here.cell.take() {
                if let Some(apart) = self.apart.get_mut(&cell) {
                    *apart -= 1;
                    if *apart == 0 {
                        self.apart.remove(&cell);
                    }
                }
                let family = (cell, here.counts.iter().map(|count| count.count).collect());
                if let Some(nodes) = self.families.get_mut(&family) {
                    nodes.remove(&node);
                    if nodes.is_empty() {
                        self.families.remove(&family);
                    }
                }
            }
            if let Some((site, name)) = here.at.take() {
                for (question, count) in self.questions.iter().zip(&mut here.counts) {
                    if std::mem::take(&mut count.added) {
                        self.topology.add(question.rules.clone(), &site, name, -count.count);
                    }
                }
            }
        }
        here
    }

    /// Adds the counts of all nodes to the domains where the nodes are now.
    pub(crate) fn settle(
        &mut self,
        template: &PodView,
        affinity: &Affinity<'_>,
        cluster: &Cluster,
    ) {
        for node in std::mem::take(&mut self.unsettled) {
            let Some(here) = self.nodes.get_mut(&node) else { continue };
            if here.counts.iter().all(|count| count.count == 0) {
                self.nodes.remove(&node);
                continue;
            }
            here.settled = true;
            let Some(seen) = cluster.see(node) else { continue };
            for (question, count) in self.questions.iter().zip(&mut here.counts) {
                let about = question.about;
                if count.count != 0
                    && (!about.stays()
                        || spread::looks_at(template, about, affinity, &seen, cluster))
                {
                    count.added = true;
                    let (site, name) = (&seen.place.site, seen.name);
                    self.topology.add(question.rules.clone(), site, name, count.count);
                }
            }
            here.at = Some((Arc::clone(&seen.place.site), seen.name));
            if self.own_names {
                let counts = here.counts.iter().map(|count| count.count).collect();
                self.families.entry((seen.cell_id, counts)).or_default().insert(node);
                *self.apart.entry(seen.cell_id).or_default() += 1;
                here.cell = Some(seen.cell_id);
            }
        }
    }
}
