//! What a node's DNS has done so far, as plain numbers.

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that came.
    pub received: u64,
    /// Answers by response code: 0 to 5, and all others.
    pub answers: [u64; 7],
    /// Questions for names of the cluster.
    pub of_zone: u64,
    /// Answered from what upstreams had said, within its time.
    pub cache_hits: u64,
    /// The same beyond its time.
    pub stale_hits: u64,
    /// Questions to upstreams.
    pub asked: u64,
    /// Those that joined a question that was already asked.
    pub joined: u64,
    /// Questions that found no room to be asked.
    pub crowded_out: u64,
}

impl Counters {
    /// Counts an answer.
    pub(crate) fn answered(&mut self, message: &[u8]) {
        let code = usize::from(message.get(3).copied().unwrap_or_default() & 0x0f);
        let last = self.answers.len() - 1;
        if let Some(count) = self.answers.get_mut(code.min(last)) {
            *count += 1;
        }
    }
}
