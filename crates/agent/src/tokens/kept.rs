//! Tokens on disk, in the directory of their pod: a checked file each, which only root reads.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::{
    AgentError,
    disk::{self, Durability},
};

/// How much of a hash names a file.
const NAME_BYTES: usize = 8;

/// A token as it was obtained.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) token: String,
    pub(crate) account: String,
    /// The server's own when it is none.
    pub(crate) audience: Option<String>,
    /// Seconds of the epoch by this node's clock, right or wrong.
    obtained: i64,
    /// What it lasts, as the server said.
    seconds: u32,
    /// The server will not renew it, though it can be asked.
    is_refused: bool,
    /// The one before, while that lasts: programs read the file again only now and then.
    before: Option<Before>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    token: String,
    until: i64,
}

impl Kept {
    pub(super) fn new(wanted: &Wanted, token: String, seconds: u32, now: Timestamp) -> Self {
        Self {
            token,
            account: wanted.account.clone(),
            audience: wanted.audience.clone(),
            obtained: now.as_second(),
            seconds,
            is_refused: false,
            before: None,
        }
    }

    /// Remembers the one whose place it takes.
    pub(super) fn in_place_of(mut self, old: Option<Self>, now: Timestamp) -> Self {
        self.before = old
            .filter(|old| !old.has_expired(now))
            .map(|old| Before { until: old.expires(), token: old.token });
        self
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    pub(super) fn refused(mut self) -> Self {
        self.is_refused = true;
        self
    }

    /// When it was obtained, which tells it from the one before.
    pub(super) fn obtained(&self) -> i64 {
        self.obtained
    }

    /// None when the clock was set back since.
    pub(super) fn age(&self, now: Timestamp) -> Option<Duration> {
        let seconds = now.as_second().checked_sub(self.obtained)?;
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    fn expires(&self) -> i64 {
        self.obtained.saturating_add(self.seconds.into())
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        now.as_second() >= self.expires()
    }

    /// Whether this is the pod's token as far as the node knows: the newest it got, unless that expired though the
    /// cloud could be asked for another; or the one before, until it expires.
    pub(crate) fn is(&self, token: &str, now: Timestamp) -> bool {
        if same(&self.token, token) {
            return !(self.is_refused && self.has_expired(now));
        }
        let before = self.before.as_ref();
        before.is_some_and(|it| same(&it.token, token) && now.as_second() < it.until)
    }
}

/// By their hashes, so that the time it takes tells nothing.
fn same(one: &str, other: &str) -> bool {
    toono_pki::sha256(one.as_bytes()) == toono_pki::sha256(other.as_bytes())
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Kept");
        shown.field("account", &self.account).field("audience", &self.audience);
        shown.field("obtained", &self.obtained).field("seconds", &self.seconds);
        shown.finish_non_exhaustive()
    }
}

/// A token of the pod with this directory, if there is one.
pub(crate) fn read(dir: &Path, wanted: &Wanted) -> Option<Kept> {
    read_file(&path(dir, wanted))
}

/// All tokens of the pod with this directory.
pub(crate) fn all(dir: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(folder(dir)).into_iter().flatten().flatten();
    entries.filter_map(|entry| read_file(&entry.path())).collect()
}

/// Keeps a token.
pub(super) fn write(dir: &Path, wanted: &Wanted, kept: &Kept) -> Result<(), AgentError> {
    disk::make_dir(&folder(dir))?;
    let bytes = serde_json::to_vec(kept).unwrap_or_default();
    disk::write_checked(&path(dir, wanted), &bytes, Durability::Synced)
}

fn read_file(path: &Path) -> Option<Kept> {
    serde_json::from_slice(&disk::read_checked(path).ok()??).ok()
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("tokens")
}

fn path(dir: &Path, wanted: &Wanted) -> PathBuf {
    let hash = toono_pki::sha256(format!("{wanted:?}").as_bytes());
    let name: String = hash.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
    folder(dir).join(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn wanted(audience: Option<&str>) -> Wanted {
        let audience = audience.map(str::to_owned);
        Wanted { account: "bot".to_owned(), audience, seconds: 3600 }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn tokens_survive_and_only_root_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let (own, vault) = (wanted(None), wanted(Some("vault")));
        assert_eq!(read(dir.path(), &own), None);
        let kept = Kept::new(&own, "a".to_owned(), 3600, at(1000));
        write(dir.path(), &own, &kept).unwrap();
        assert_eq!((read(dir.path(), &own), read(dir.path(), &vault)), (Some(kept.clone()), None));
        let file = path(dir.path(), &own);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        write(dir.path(), &vault, &Kept::new(&vault, "b".to_owned(), 600, at(1000))).unwrap();
        assert_eq!(all(dir.path()).len(), 2);
        fs::write(&file, "torn").unwrap();
        assert_eq!(read(dir.path(), &own), None);
        assert!(!format!("{kept:?}").contains("\"a\""));
    }

    #[test]
    fn which_token_is_the_pods() {
        let first = Kept::new(&wanted(None), "a".to_owned(), 3600, at(0));
        assert!(first.is("a", at(10)) && !first.is("b", at(10)));
        assert!(first.is("a", at(9999)), "it could not be renewed: the link is down");
        let refused = first.clone().refused();
        assert!(refused.is("a", at(3599)) && !refused.is("a", at(3600)));
        let second = Kept::new(&wanted(None), "b".to_owned(), 3600, at(3000))
            .in_place_of(Some(first), at(3000));
        assert!(second.is("b", at(3001)) && second.is("a", at(3599)) && !second.is("a", at(3600)));
        let late = Kept::new(&wanted(None), "c".to_owned(), 3600, at(9000))
            .in_place_of(Some(second.clone()), at(9000));
        assert!(!late.is("b", at(9001)), "it had expired");
        assert_eq!(second.age(at(2999)), None, "the clock was set back");
        assert_eq!(second.age(at(3007)), Some(Duration::from_secs(7)));
    }
}
