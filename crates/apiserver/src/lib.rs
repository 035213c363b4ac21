//! The Kubernetes API over the store: authentication, access, verbs, discovery, tables, watches.
//!
//! Generic over `toono_api`'s resource table; no handler knows a kind. It never dials anything: a
//! node is reached only through [`NodeLink`], which the binary ties to `fleet`.

pub mod node_link;
pub mod remote;

pub use node_link::{LinkError, NodeLink};
