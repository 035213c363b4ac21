//! A real lab in real namespaces, a real process in the background, a real image from a real registry. Needs
//! root and busybox-static. Every test has a lab of its own name and network and removes it at its end, also
//! when it fails.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, with the error that it met"
)]

mod daemon;
mod registry;
mod sites;
