//! The newest changes of something, for those who catch up with them now and then.

use std::collections::VecDeque;

/// Changes remembered for those that did not ask since. Who missed more starts anew, which costs
/// about as much as catching up with so many.
const LENGTH: usize = 1 << 16;

/// The newest changes.
#[derive(Debug)]
pub(crate) struct Log<T> {
    newest: VecDeque<T>,
    /// How many changes there were before them.
    dropped: u64,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self { newest: VecDeque::new(), dropped: 0 }
    }
}

impl<T: Copy> Log<T> {
    pub(crate) fn push(&mut self, change: T) {
        self.newest.push_back(change);
        if self.newest.len() > LENGTH {
            self.newest.pop_front();
            self.dropped += 1;
        }
    }

    /// How many changes there have been: what to give [`Log::since`] later.
    pub(crate) fn changes(&self) -> u64 {
        self.dropped + self.newest.len() as u64
    }

    /// The changes after that many, the oldest first; `None` when that is too long ago.
    pub(crate) fn since(&self, seen: u64) -> Option<impl Iterator<Item = T>> {
        let skip = usize::try_from(seen.checked_sub(self.dropped)?).ok()?;
        Some(self.newest.range(skip.min(self.newest.len())..).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_what_is_too_long_ago() {
        let mut log = Log::default();
        (0..LENGTH + 3).for_each(|number| log.push(number));
        assert!(log.since(2).is_none());
        assert_eq!(log.since(3).unwrap().next(), Some(3));
        assert_eq!(log.since(log.changes()).unwrap().count(), 0);
    }
}
