//! The names that the kernel and we give to links. It owns their rules, and asks the kernel nothing.

use std::fmt;
use std::str::FromStr;

/// The longest name of a link in bytes: `IFNAMSIZ` less the closing zero.
const LINK_NAME_MAX: usize = 15;

/// The longest alias of a link in bytes: the kernel's `IFALIASZ` less the closing zero.
const MARK_MAX: usize = 255;

/// What every mark starts with, so that ours are told apart from those of other programs.
pub const MARK_PREFIX: &str = "toono:";

/// The name of a network link, valid by the kernel's own rules (`dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkName(String);

/// Why a text is not the name of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot be the name of a link: it must have 1 to 15 bytes without '/', ':' or white space"
)]
pub struct LinkNameError {
    /// The refused text.
    pub name: String,
}

impl LinkName {
    /// Takes `name` if the kernel would.
    pub fn new(name: impl Into<String>) -> Result<Self, LinkNameError> {
        let name = name.into();
        let fits = (1..=LINK_NAME_MAX).contains(&name.len());
        let plain = name
            .chars()
            .all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':' | '%'));
        if fits && plain && name != "." && name != ".." {
            Ok(Self(name))
        } else {
            Err(LinkNameError { name })
        }
    }

    /// The loopback link, which every network namespace has.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LinkName {
    type Err = LinkNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

/// Who a link or a rule belongs to, such as `toono:lab/toono`. Kept by the kernel beside the thing itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark(String);

/// Why a text is not a mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{mark:?} cannot be a mark: it must start with \"toono:\" and have at most 255 bytes without control characters"
)]
pub struct MarkError {
    /// The refused text.
    pub mark: String,
}

impl Mark {
    /// Takes a whole mark, prefix included.
    pub fn new(mark: impl Into<String>) -> Result<Self, MarkError> {
        let mark = mark.into();
        let valid = mark.starts_with(MARK_PREFIX)
            && mark.len() > MARK_PREFIX.len()
            && mark.len() <= MARK_MAX
            && !mark.chars().any(char::is_control);
        if valid { Ok(Self(mark)) } else { Err(MarkError { mark }) }
    }

    /// The mark as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this mark is `owner` itself or something below it (`owner/…`).
    pub fn belongs_to(&self, owner: &Mark) -> bool {
        self.0
            .strip_prefix(owner.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(mark: &str) -> Result<Self, Self::Err> {
        Self::new(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_follow_the_kernel() {
        for good in ["lo", "eth0", "toono-wan", "abcdefghijklmno"] {
            assert_eq!(LinkName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "abcdefghijklmnop", "eth%d"] {
            assert_eq!(LinkName::new(bad).unwrap_err().name, bad);
        }
    }

    #[test]
    fn marks_nest_by_path() {
        let owner = Mark::new("toono:lab/a").unwrap();
        for (mark, belongs) in [
            ("toono:lab/a", true),
            ("toono:lab/a/wan", true),
            ("toono:lab/ab", false),
            ("toono:lab", false),
        ] {
            assert_eq!(Mark::new(mark).unwrap().belongs_to(&owner), belongs, "{mark}");
        }
        for bad in ["", "toono:", "other:lab", "toono:a\nb"] {
            assert!(Mark::new(bad).is_err(), "{bad:?}");
        }
    }
}
