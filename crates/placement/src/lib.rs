//! Which node a pod goes to, by Kubernetes' rules.
//!
//! [`Cluster`] is a compact picture of nodes and of what runs on them, kept up to date by small
//! changes; [`Cluster::place`] answers with a node or with the reasons, in Kubernetes' words. The
//! crate never does I/O, never reads a clock and never draws a random number: the same changes in
//! the same order give the same placements.
//!
//! Labels are interned ([`intern`]) and nodes have dense indexes, so that later indexes (by label,
//! by free resources) can be plain arrays and sets of integers.

mod admission;
mod cluster;
mod filter;
pub mod intern;
mod node;
mod place;
mod pod;
mod reasons;
mod requirement;
mod resident;
mod resources;
mod score;
mod shared;
mod spread;
mod taints;

pub use admission::{UntoleratedEffects, admits, untolerated_effects};
pub use cluster::Cluster;
pub use node::{NodeIndex, NodeView, Offer};
pub use place::Placement;
pub use pod::{HostPort, NodeTerm, PodKey, PodView, SpreadConstraint};
pub use requirement::{Operator, Requirement};
pub use resources::Resources;
pub use taints::{Effect, Taint, Toleration};
