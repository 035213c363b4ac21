//! Who may do what: one pure function from a request's attributes to a decision.
//!
//! [`Access`] holds what decisions depend on, [`Rules`] (roles and bindings) and [`Graph`] (which node
//! runs which pods and what those refer to), both kept up to date by one small change at a time.
//! [`Access::decide`] asks in Kubernetes' order: `system:masters`, the node authorizer, RBAC, and then
//! refuses. [`restrict`] is the second look at a node's write, when its object is known.
//!
//! The crate authenticates nobody, stores nothing, does no I/O and reads no clock. Reasons and messages
//! are Kubernetes' own, because people and programs compare them.

mod access;
mod aggregate;
mod attributes;
pub mod bootstrap;
mod covers;
mod decision;
mod escalation;
mod grants;
mod node;
mod object;
mod quote;
mod rule;
mod rules;
mod table;

pub use access::Access;
pub use aggregate::aggregate;
pub use attributes::{Attributes, Request, ResourceRequest};
pub use covers::{MAX_COMBINATIONS, TooManyCombinations, covers, uncovered};
pub use decision::{Decision, Owner, forbidden};
pub use grants::{Grant, permits};
pub use node::{
    graph::Graph,
    restriction::{NodeWrite, restrict},
};
pub use object::{Kind, Object};
pub use rules::{ResolveError, Rules};
