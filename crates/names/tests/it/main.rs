//! A node's DNS, asked as pods ask it, on virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and documents itself"
)]

mod forwarding;
mod hostile;
mod node;
mod specification;
