//! Real keepers with real containers. They need root, cgroups and Debian's busybox-static.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests"
)]

mod commands;
mod containers;
mod lifetime;
mod pod;
mod privileges;
mod processes;
