//! The real kernel: namespaces, a NAT router between two of them, nftables read back. Needs root. Every test
//! makes namespaces with names of its own and deletes them at its end, also when it fails.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, with the error that it met"
)]

mod links;
mod nat;
mod sets;
mod tables;

use std::sync::atomic::{AtomicU32, Ordering};

use toono_net::netns::{self, NetNs};
use toono_net::{LinkName, Mark};

/// A namespace that is deleted with this value.
struct TestNetNs {
    name: String,
    netns: NetNs,
}

impl TestNetNs {
    fn new(role: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tnet-{}-{number}-{role}", std::process::id());
        let netns = netns::create(&name).unwrap();
        Self { name, netns }
    }
}

impl Drop for TestNetNs {
    fn drop(&mut self) {
        if let Err(error) = netns::delete(&self.name) {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
        }
    }
}

fn link(name: &str) -> LinkName {
    LinkName::new(name).unwrap()
}

fn mark(name: &str) -> Mark {
    Mark::new(format!("toono:test/{name}")).unwrap()
}
