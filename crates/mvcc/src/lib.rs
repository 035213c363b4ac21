//! Keys, revisions, the versions of each object, history and the order of events.
//!
//! Pure data structures: [`Table`] is told what to do and when to forget. It must not do I/O, read a
//! clock, spawn, or look inside a value. Making it durable and letting many tasks share it is the
//! job of the `store` crate.
//!
//! # Revisions
//!
//! Every transaction that changes something gets the next [`Rev`]. A read names the revision that it
//! wants to see, and sees exactly the objects as they were then, for every revision from the
//! compaction floor ([`Table::floor`]) to the head. The caller chooses which revision to name, which
//! is how writes that are not durable yet stay invisible: they are in the table, above the revision
//! that any reader may name.

mod event_log;
mod key;
mod owner;
mod rev;
mod stored;
mod table;
mod transaction;
mod value;
mod versions;

pub use event_log::{Event, EventKind, Events, Logged, Rested};
pub use key::{Key, Prefix};
pub use owner::Owner;
pub use rev::Rev;
pub use stored::Stored;
pub use table::{Applied, Change, Compacted, Counted, Limits, Page, Restore, RestoreError, Table};
pub use transaction::{Expect, Op, Rejected, Txn};
pub use value::{Draft, Entry};
