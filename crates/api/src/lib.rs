//! The Kubernetes API as data: the resource table, names, quantities, selectors, errors, users.
//!
//! Types only: no I/O, no async runtime, no clock. Time is passed in.

pub mod allocation;
pub mod cron;
pub mod decode;
pub mod error;
pub mod intern;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod place;
pub mod print;
pub mod protobuf;
pub mod quantity;
pub mod resource;
pub mod selector;
pub mod types;
pub mod uid;
pub mod user;

pub use error::{ApiError, FieldError, GroupResource};
pub use meta::{Metadata, ObjectHeader};
pub use place::Place;
pub use quantity::Quantity;
pub use resource::{BuiltIn, Resource};
pub use selector::{FieldSelector, LabelSelector};
pub use uid::Uid;
pub use user::UserInfo;
