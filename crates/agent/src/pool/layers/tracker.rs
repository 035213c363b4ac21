//! Who has a layer, as far as it was told. It knows no network and reads no clock.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use toono_images::{Digest, Found};
use toono_wire::pool::record_digest;

/// Layers that are known of; of more, who was told of longest ago goes.
const MOST_BLOBS: usize = 4_096;
/// Who did not tell again for so long is not believed to have it any more: it would have, twice.
const BELIEVED_FOR: Duration = Duration::from_secs(2 * 60 * 60 + 10 * 60);
/// Copies of a layer that a small pool keeps: one may be lost with its node.
const LEAST_COPIES: usize = 2;
/// For so many nodes of a pool there is one more: each sends to some at once only.
const NODES_PER_COPY: usize = 32;

/// The notes.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    blobs: BTreeMap<Digest, Vec<Source>>,
}

#[derive(Debug)]
struct Source {
    node: String,
    told: Instant,
}

/// How many nodes of so many are to have a layer for the others.
pub(super) fn copies(nodes: usize) -> usize {
    LEAST_COPIES + nodes / NODES_PER_COPY
}

impl Tracker {
    /// Who has a blob but for the asker and those that failed it. With fewer than `copies`, the asker is to have it
    /// for others, and is noted.
    pub(super) fn find(
        &mut self,
        blob: &Digest,
        asker: &str,
        failed: &[String],
        copies: usize,
        now: Instant,
    ) -> Found {
        let known = self.blobs.entry(blob.clone()).or_default();
        known.retain(|source| {
            let is_fresh = now.duration_since(source.told) < BELIEVED_FOR;
            is_fresh && !failed.contains(&source.node)
        });
        let mut from: Vec<String> =
            known.iter().map(|it| it.node.clone()).filter(|node| node != asker).collect();
        // Each asker has an order of its own, so that all are asked.
        from.sort_by_key(|node| record_digest(asker, node));
        let is_noted = from.len() < known.len();
        let keep = copies > 0 && (is_noted || known.len() < copies);
        if keep && !is_noted {
            known.push(Source { node: asker.to_owned(), told: now });
        }
        if known.is_empty() {
            self.blobs.remove(blob);
        }
        self.make_room(blob);
        Found { from, keep }
    }

    /// A node has a blob, or has it no more.
    pub(super) fn note(&mut self, blob: &Digest, node: &str, has_it: bool, now: Instant) {
        let known = self.blobs.entry(blob.clone()).or_default();
        known.retain(|source| source.node != node);
        if has_it {
            known.push(Source { node: node.to_owned(), told: now });
        }
        if known.is_empty() {
            self.blobs.remove(blob);
        }
        self.make_room(blob);
    }

    fn make_room(&mut self, newest: &Digest) {
        if self.blobs.len() <= MOST_BLOBS {
            return;
        }
        let last_told = |sources: &[Source]| sources.iter().map(|source| source.told).max();
        let others = self.blobs.iter().filter(|(blob, _)| *blob != newest);
        let oldest = others.min_by_key(|(_, sources)| last_told(sources));
        if let Some(oldest) = oldest.map(|(blob, _)| blob.clone()) {
            self.blobs.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(from: &[&str], keep: bool) -> Found {
        Found { from: from.iter().map(ToString::to_string).collect(), keep }
    }

    #[test]
    fn the_first_who_asks_gets_it_for_all() {
        let (mut tracker, now, blob) = (Tracker::default(), Instant::now(), Digest::of(b"layer"));
        assert_eq!(tracker.find(&blob, "spy", &[], 0, now), found(&[], false), "it only looks");
        assert_eq!(tracker.find(&blob, "a", &[], 2, now), found(&[], true));
        assert_eq!(tracker.find(&blob, "a", &[], 2, now), found(&[], true), "asked again");
        assert_eq!(tracker.find(&blob, "b", &[], 2, now), found(&["a"], true), "a second copy");
        let third = tracker.find(&blob, "c", &[], 2, now);
        assert_eq!((third.from.len(), third.keep), (2, false));
        // The first one is gone; the second has it or takes its place.
        let failed = ["a".to_owned()];
        assert_eq!(tracker.find(&blob, "b", &failed, 2, now), found(&[], true));
        assert_eq!(tracker.find(&blob, "c", &failed, 2, now), found(&["b"], true));
        tracker.note(&blob, "b", false, now);
        tracker.note(&blob, "c", false, now);
        assert!(tracker.blobs.is_empty());
    }

    #[test]
    fn what_is_not_told_again_is_forgotten() {
        let (mut tracker, now, blob) = (Tracker::default(), Instant::now(), Digest::of(b"layer"));
        tracker.note(&blob, "a", true, now);
        assert_eq!(tracker.find(&blob, "b", &[], 0, now), found(&["a"], false));
        let later = now + BELIEVED_FOR;
        assert_eq!(tracker.find(&blob, "b", &[], 0, later), found(&[], false));
        for number in 0..MOST_BLOBS + 10 {
            let told = now + Duration::from_millis(number as u64);
            tracker.note(&Digest::of(&number.to_le_bytes()), "a", true, told);
        }
        assert_eq!(tracker.blobs.len(), MOST_BLOBS);
        let last = Digest::of(&(MOST_BLOBS + 9).to_le_bytes());
        assert!(tracker.blobs.contains_key(&last));
        assert_eq!((copies(2), copies(512)), (2, 18));
    }
}
