//! Which node a pod goes to, by Kubernetes' rules.
//!
//! [`Cluster`] is a compact picture of nodes and of what runs on them, kept up to date by small
//! changes; [`Cluster::place`] answers with a node or with the reasons, in Kubernetes' words. The
//! crate never does I/O, never reads a clock and never draws a random number: the same changes in
//! the same order give the same placements.
//!
//! # How a million nodes are not looked at
//!
//! Most nodes are alike. A `site` is what nodes are to pods whatever runs there: labels, taints,
//! cordon. A `spot` is the nodes of one site with the same images. A `cell` is the nodes of one spot with
//! the same allocatable room and the same load. To any filter and any score the nodes of a cell differ in
//! their names alone, so a pod is tried once for each cell at most, and the answer is the cell's first node.
//!
//! An `order` ranks the cells of each spot for all pods that ask for the same room, and a `ranking` the
//! spots, each by its best cell, for all pods of one shape (requests, selectors, tolerations). Both learn
//! from logs what changed since they were last asked; a placement changes two cells. Within a ranking, spots that the
//! pod likes equally well form a group, and a group's best spot is the first in its order: that is the
//! whole search for a plain pod, O(log n) in the number of cells.
//!
//! What makes single nodes and sites special is looked up, never searched for:
//! - nodes that a selector names (`metadata.name`, or a label that repeats the node's name, as
//!   `kubernetes.io/hostname` does) are judged one by one, all others as nodes of no name;
//! - the rules of `topology` depend on counts of pods in domains, which a `census` keeps for each
//!   template. Nearly all domains count none, and are judged together; sites with pods that count are judged
//!   one by one, and nodes by families: those of one cell with the same counts;
//! - what images are worth changes with each node that pulls one, and is reckoned when a pod is placed,
//!   for each group and not for each node (`images`).
//!
//! So these pods cost more than O(log n):
//! - with spreading or inter-pod affinity: O(the sites in domains that hold pods which its rules count),
//!   for labels of more than a few values, and O(those families);
//! - the first of a template with such rules, and one that comes after 65,536 changes: O(the pods that
//!   count), to take the census;
//! - with a selector that few sites match: O(those sites' cells), where there is no order yet, for there
//!   making one costs more than it saves;
//! - that compare node names as numbers (`Gt`, `Lt`): O(n);
//! - the first of its shape, and one that comes after 65,536 changes: O(cells), to make the order;
//! - that fit nowhere: O(sites), and the cells of the sites that they are meant for, to count the
//!   reasons; and, if there are less important pods, what `preempt` says.
//!
//! A cluster whose nodes all carry labels of their own, other than their names, has a site for each
//! node, and one whose nodes all have other images has as many spots; then cells are no fewer than nodes and
//! the indexes save only the evaluation of what did not change.
//!
//! # What is exact
//!
//! The node chosen is exactly the one that looking at every node would choose: highest total
//! score, then fewest pods, then the place in the table of nodes. `tests/it/naive.rs` does look
//! at every node, and random clusters are placed by both. Scores are Kubernetes' with four
//! exceptions: what weighs a spread constraint (`spread`), that pods of one owner also spread over node
//! pools by default, that small images are left out (`images`: less than a point in all), and that images
//! mounted as volumes draw no pods.

mod admission;
mod cell;
mod census;
mod cluster;
mod company;
mod demand;
mod few;
mod filter;
mod ids;
mod images;
pub mod intern;
mod ledger;
mod log;
mod nearness;
mod node;
mod order;
mod place;
mod pod;
mod preempt;
mod ranking;
mod reasons;
mod requirement;
mod resources;
mod score;
mod search;
mod site;
mod spot;
mod spread;
mod taints;
mod topology;

pub use admission::{UntoleratedEffects, admits, untolerated_effects};
pub use cluster::Cluster;
pub use company::{Company, PodTerm};
pub use images::Image;
pub use node::{NodeIndex, NodeView, Offer};
pub use place::Placement;
pub use pod::{HostPort, NodeTerm, PodKey, PodView, SpreadConstraint};
pub use preempt::{Budget, Preemption};
pub use requirement::{Operator, Requirement};
pub use resources::Resources;
pub use taints::{Effect, Taint, Toleration};
