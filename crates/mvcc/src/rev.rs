//! The revision number. It must not know what was changed at it.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The number of a committed transaction, shared by all objects of the store. 0 is the empty store
/// before its first write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev(pub u64);

impl Rev {
    /// The empty store, before the first write.
    pub const ZERO: Self = Self(0);

    /// The revision after this one. A store that commits a million transactions a second would take
    /// half a million years to reach the end of the range, where this stays put.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Rev {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// Reads a `resourceVersion`.
impl FromStr for Rev {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}
