//! Judging what clients of a store saw: whether some order of their calls explains all of it, and
//! whether watches told that order. It must not know how a store works, nor talk to one.
//!
//! A test records a [`Call`] for everything that a client asked, a [`Snapshot`] for every list and a
//! [`Story`] for every watch. [`linear::check`] then looks, key by key, for an order of the calls that
//! respects the time at which they were made; [`story::check`] compares stories, lists and answers with
//! each other. Both say what does not fit.

pub mod dice;
pub mod etcd_server;
mod history;
pub mod journal;
pub mod linear;
pub mod story;

pub use history::{Action, Call, Change, Expect, History, Outcome, Snapshot, Story};
