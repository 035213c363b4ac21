//! What objects use of a namespace's quota, and whether a quota allows more.
//!
//! [`fn@usage`] tells what one object uses, [`Quota`] which objects a ResourceQuota counts, what it has
//! left and what its `status.used` becomes. Admission charges with these functions and the quota
//! controller recounts with them, so both always agree. Objects are JSON as they are stored, so
//! that nobody has to decode them further. No I/O, no clock; messages are Kubernetes' own.

mod amounts;
mod claims;
mod constraints;
mod pods;
mod quota;
mod scopes;
mod services;
mod usage;

pub use amounts::Amounts;
pub use quota::{Denied, Quota};
pub use usage::{Kind, counted_kind, usage};
