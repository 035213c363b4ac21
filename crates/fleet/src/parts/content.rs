//! Records with their recent history: what changed since a revision, as long as that is remembered.

use std::{collections::VecDeque, sync::Arc};

use toono_wire::pool::Records;

/// Changes that are remembered. A node that missed more gets the whole part, which would not be much longer:
/// a change is some 40 bytes on its way.
const REMEMBERED: usize = 65_536;

/// Some records, and what lately became of them.
#[derive(Debug, Default)]
pub(crate) struct Content {
    records: Records,
    log: VecDeque<Entry>,
    /// Everything that changed after this revision is in the log.
    floor: u64,
    /// The digest at the floor.
    floor_digest: u64,
}

#[derive(Debug)]
struct Entry {
    revision: u64,
    key: Arc<str>,
    /// The digest after this change.
    digest: u64,
}

impl Content {
    /// One without records, and without any before.
    pub(crate) fn empty_since(floor: u64) -> Self {
        Self { floor, ..Self::default() }
    }

    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// The revision from which on changes are remembered.
    pub(crate) fn start_revision(&self) -> u64 {
        self.floor
    }

    /// The revision of the newest change.
    pub(crate) fn revision(&self) -> u64 {
        self.log.back().map_or(self.floor, |entry| entry.revision)
    }

    /// Puts a record, or takes it out without a text. Revisions may not fall. Whether that changed anything.
    pub(crate) fn set(&mut self, revision: u64, key: &str, text: Option<&str>) -> bool {
        let changed = match text {
            Some(text) => self.records.put(key, text),
            None => self.records.remove(key),
        };
        let Some(key) = changed else { return false };
        self.log.push_back(Entry { revision, key, digest: self.records.digest() });
        if self.log.len() > REMEMBERED {
            self.forget_one();
        }
        true
    }

    /// What was told until now was how things are, not how they changed.
    pub(crate) fn start(&mut self, revision: u64) {
        self.log.clear();
        (self.floor, self.floor_digest) = (revision, self.records.digest());
    }

    /// The digest that the records had at a revision; none when that is not remembered.
    pub(crate) fn digest_at(&self, revision: u64) -> Option<u64> {
        if revision < self.floor {
            return None;
        }
        let until = self.log.partition_point(|entry| entry.revision <= revision);
        let last = until.checked_sub(1).and_then(|at| self.log.get(at));
        Some(last.map_or(self.floor_digest, |entry| entry.digest))
    }

    /// Keys of the records that changed after a revision, some perhaps more than once.
    pub(crate) fn changed_after(&self, revision: u64) -> impl Iterator<Item = &Arc<str>> {
        let from = self.log.partition_point(|entry| entry.revision <= revision);
        self.log.range(from..).map(|entry| &entry.key)
    }

    /// How many [`Content::changed_after`] tells.
    pub(crate) fn count_after(&self, revision: u64) -> usize {
        self.log.len() - self.log.partition_point(|entry| entry.revision <= revision)
    }

    fn forget_one(&mut self) {
        if let Some(entry) = self.log.pop_front() {
            (self.floor, self.floor_digest) = (entry.revision, entry.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_reaches_back_to_the_start_and_no_further() {
        let mut content = Content::default();
        content.set(3, "a", Some("1"));
        content.start(5);
        let at_start = content.records().digest();
        assert!(content.set(7, "b", Some("2")) && content.set(7, "a", None));
        assert!(!content.set(8, "a", None), "it is gone already");
        assert_eq!(content.revision(), 7);
        assert_eq!((content.digest_at(4), content.digest_at(6)), (None, Some(at_start)));
        assert_eq!(content.digest_at(9), Some(content.records().digest()));
        let changed: Vec<&str> = content.changed_after(5).map(|key| &**key).collect();
        assert_eq!((changed, content.count_after(7)), (vec!["b", "a"], 0));
    }

    #[test]
    fn the_history_is_bounded() {
        let mut content = Content::default();
        for revision in 1..=REMEMBERED as u64 + 10 {
            content.set(revision, "a", Some(&revision.to_string()));
        }
        assert_eq!((content.log.len(), content.floor), (REMEMBERED, 10));
        assert!(content.digest_at(9).is_none() && content.digest_at(10).is_some());
    }
}
