//! What clients did and saw. It must not judge it.

/// What a write expects of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing; a deletion still needs something to delete.
    Any,
    /// There is nothing.
    Absent,
    /// There is something.
    Present,
    /// The value is this one.
    Is(u64),
}

/// What was asked about a key. Every write has a number of its own, which stands for its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the value `id`.
    Put {
        /// The value.
        id: u64,
        /// The condition.
        expect: Expect,
    },
    /// Remove the value.
    Delete {
        /// The deletion's own number.
        id: u64,
        /// The condition.
        expect: Expect,
    },
    /// Read the value.
    Get,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write was done, at this revision.
    Done {
        /// The revision.
        rev: u64,
    },
    /// The write was not done, as there was this.
    Refused {
        /// The value; `None` if there was none.
        current: Option<u64>,
    },
    /// The write was not done, as its condition did not hold; what there was is not told.
    Unmet,
    /// What a read found.
    Found {
        /// The value; `None` if there was none.
        current: Option<u64>,
    },
    /// No answer came. A write may have been done, or be done later; a read does not matter.
    Unknown,
}

/// One call of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which key it was about.
    pub key: usize,
    /// When it was made; any clock that all clients share.
    pub start: u64,
    /// When its answer came.
    pub end: u64,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub outcome: Outcome,
}

/// One event of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// At which revision.
    pub rev: u64,
    /// Of which key.
    pub key: usize,
    /// The number of the write.
    pub id: u64,
    /// Whether the write was a deletion.
    pub deleted: bool,
}

/// All that one watch told, from the first revision on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story(pub Vec<Change>);

/// What a list showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision that it was of.
    pub rev: u64,
    /// Key, revision and value of everything there was, in the order of keys.
    pub values: Vec<(usize, u64, u64)>,
}

/// All that clients did and saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What they asked.
    pub calls: Vec<Call>,
    /// What lists showed.
    pub lists: Vec<Snapshot>,
    /// What watches told, each its own.
    pub stories: Vec<Story>,
}

impl History {
    /// Calls of which nobody knows whether they were done.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.calls.iter().filter(|call| call.outcome == Outcome::Unknown).count()
    }
}
