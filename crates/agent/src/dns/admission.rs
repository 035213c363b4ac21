//! Whose questions are answered: those of this node's pods and of the node itself. Whoever else asks hears nothing,
//! so that nobody outside can have answers sent to a third.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use nix::ifaddrs::getifaddrs;
use toono_net::Cidr;

/// The node's addresses are read again no sooner, however many strangers ask.
const AGAIN: Duration = Duration::from_secs(10);

/// Who may ask.
#[derive(Debug)]
pub(super) struct Admission {
    pods: Cidr,
    node: BTreeSet<IpAddr>,
    read_at: Option<Instant>,
}

impl Admission {
    pub(super) fn new(pods: Cidr) -> Self {
        Self { pods, node: BTreeSet::new(), read_at: None }
    }

    pub(super) fn admits(&mut self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.pods.contains(address) || address.is_loopback() || self.node.contains(&address) {
            return true;
        }
        if self.read_at.is_some_and(|at| at.elapsed() < AGAIN) {
            return false;
        }
        self.read_at = Some(Instant::now());
        self.node = addresses();
        self.node.contains(&address)
    }
}

fn addresses() -> BTreeSet<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return BTreeSet::new() };
    let address = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    });
    address.collect()
}
