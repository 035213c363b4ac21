//! What the simulated nodes hold, as far as their heartbeats tell it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use toono_session::{BundleDigest, PodDigest};
use toono_wire::join::JoinResponse;

use super::drive::Fetching;

/// The digests of the nodes' bundles, by number.
#[derive(Clone)]
pub(crate) struct Digests {
    sums: Arc<[AtomicU32]>,
    /// What the parts of the nodes' pools add: as they were when the nodes joined, and taken for fetched.
    parts: Arc<[u32]>,
    /// These know from what they fetch.
    fetching: Arc<HashSet<usize>>,
}

impl Digests {
    pub(super) fn new(joined: &[JoinResponse], fetching: Option<&Fetching>) -> Self {
        let sums = std::iter::repeat_with(|| AtomicU32::new(0)).take(joined.len()).collect();
        let part = |node: &JoinResponse| node.pool.as_ref().map_or(0, |it| it.version.share());
        let parts = joined.iter().map(part).collect();
        let fetching = fetching.map(|fetching| fetching.nodes.clone()).unwrap_or_default();
        Self { sums, parts, fetching: Arc::new(fetching) }
    }

    /// A node has one more pod: this one, as the server has it.
    pub(crate) fn add(&self, number: usize, pod: &[u8]) {
        let digest = std::str::from_utf8(pod).ok().and_then(|pod| PodDigest::of_json(pod).ok());
        if let (Some(sum), Some(digest)) = (self.sums.get(number), digest)
            && !self.fetching.contains(&number)
        {
            sum.fetch_add(BundleDigest::default().with(digest).0, Ordering::Relaxed);
        }
    }

    pub(super) fn set(&self, number: usize, digest: u32) {
        if let Some(sum) = self.sums.get(number) {
            sum.store(digest, Ordering::Relaxed);
        }
    }

    pub(super) fn of(&self, number: usize) -> u32 {
        let own = self.sums.get(number).map_or(0, |sum| sum.load(Ordering::Relaxed));
        own.wrapping_add(self.parts.get(number).copied().unwrap_or(0))
    }
}
