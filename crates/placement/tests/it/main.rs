//! Placement by example, and against a plain reference.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod exact;
mod naive;
mod random;
mod semantics;
