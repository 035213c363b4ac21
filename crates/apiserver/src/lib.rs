//! The Kubernetes API over the store: authentication, access, verbs, discovery, tables, watches.
//!
//! Generic over `toono_api`'s resource table; no handler knows a kind. It never dials anything: a
//! node is reached only through [`NodeLink`], which the binary ties to `fleet`.

mod access;
mod admission;
mod audit;
mod authenticate;
mod body;
mod bootstrap;
mod client;
mod compress;
mod custom;
mod discovery;
mod encode;
mod fairness;
mod health;
mod json;
pub mod limits;
mod liveness;
mod metrics;
mod namespaces;
mod openapi;
mod process;
mod query;
mod reach;
mod registry;
mod remembered;
pub mod remote;
mod represent;
mod request;
mod resource_metrics;
mod respond;
mod reviews;
mod router;
mod server;
mod service_target;
mod services;
pub mod tokens;
mod trail;
mod verbs;
mod yaml;

pub use audit::AuditConfig;
pub use liveness::Liveness;
pub use remote::{LinkError, NodeLink};
pub use server::{ApiConfig, ApiServer, StartError};
