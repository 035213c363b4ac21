//! The servers of one etcd: each keeps a record of itself there, renews it, and sees by the others' who lives.
//! What that means for nodes is the fleet's business.
//!
//! The records are not objects of the API, as the shared credentials are not: a server dials what they name.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::timeout};
use toono_fleet::{Fleet, KnownServer, Server};
use toono_store::{CommitError, Draft, Entry, Expect, Key, Op, Owner, Prefix, Rev, Store, Txn};

use crate::{
    cloud::{kubeconfig, secret, token},
    failure::Failure,
    shutdown::Shutdown,
};

/// The file of the data directory with this server's name. Nodes are spread by it, so it stays.
const NAME_FILE: &str = "server-name";
/// Bytes of it that are random: servers of one host need names of their own.
const RANDOM_BYTES: usize = 4;
/// Time between two renewals of a record.
const RENEW: Duration = Duration::from_millis(2_500);
/// A record that was renewed last so long ago is of a server that does not live: two renewals may be late.
const DEAD_AFTER: Duration = Duration::from_millis(7_500);
/// How often it is seen who lives.
const LOOK: Duration = Duration::from_millis(500);
/// A write that takes longer comes too late.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that ends does not wait longer to say so.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that was away for so long is none of the cluster's any more: nodes are not told of it.
const FORGOTTEN_AFTER_S: u64 = 24 * 3600;
/// A server that starts so soon after a change of the list has all nodes fetch it: another one may have begun to
/// tell them, and knows no more whom.
const TOLD_AFTER_S: u64 = 24 * 3600;
/// More records than any cluster has servers.
const MOST: usize = 1_000;
const GROUP: &str = "_toono";
const PLURAL: &str = "servers";

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    server: Server,
    /// When it said so, in Unix seconds of its own clock.
    renewed: u64,
    /// It has ended as an operator asked it to.
    left: bool,
    /// When the list of servers changed last, as far as it knows, in Unix seconds.
    list_changed: u64,
}

/// The keeper of this server's record.
pub(crate) struct Servers {
    store: Store,
    fleet: Fleet,
    own: Server,
    /// When this server's record was written last.
    renewed: watch::Sender<Option<Instant>>,
    /// See [`Record::list_changed`].
    list_changed: AtomicU64,
}

/// What was seen of the records so far.
#[derive(Default)]
struct Sight {
    /// By name: the newest version, and when it came.
    seen: HashMap<String, (Rev, Instant)>,
    /// As the fleet was told, and whether the store was in reach then.
    told: Option<(Vec<KnownServer>, bool)>,
}

impl Servers {
    /// Says for the first time that this server, which is dialled as `host` at `port`, lives; and sees who else does.
    pub(crate) async fn begin(
        store: Store,
        fleet: Fleet,
        dir: &Path,
        (host, port): (String, u16),
    ) -> Result<Self, Failure> {
        let own = Server { name: name(dir)?, host, port, udp_port: port };
        let (renewed, list_changed) = (watch::Sender::new(None), AtomicU64::new(0));
        let this = Self { store, fleet, own, renewed, list_changed };
        let records = this.records();
        let changes = records.iter().map(|(_, record)| record.list_changed);
        let known = records.iter().any(|(_, record)| record.server == this.own);
        let changed = if known { changes.max().unwrap_or(0) } else { secret::now() };
        this.list_changed.store(changed, Ordering::Relaxed);
        // Of one server nodes are told nothing.
        if records.len() > usize::from(known) && secret::now() < changed + TOLD_AFTER_S {
            this.fleet.servers_changed_lately();
        }
        this.write(false).await.map_err(|error| {
            Failure::caused("store-failed", &error, "look at the store, and start again")
        })?;
        this.renewed.send_replace(Some(Instant::now()));
        this.look(&mut Sight::default());
        tracing::info!(name = this.own.name, host = this.own.host, port, "one of several servers");
        Ok(this)
    }

    /// Until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let looks = async {
            let mut sight = Sight::default();
            loop {
                tokio::time::sleep(LOOK).await;
                self.look(&mut sight);
            }
        };
        let renewals = async {
            loop {
                tokio::time::sleep(RENEW).await;
                match timeout(WRITE_TIMEOUT, self.write(false)).await {
                    Ok(Ok(())) => drop(self.renewed.send_replace(Some(Instant::now()))),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "this server's record is not renewed")
                    }
                    Err(_) => tracing::debug!("this server's record is not renewed in time"),
                }
            }
        };
        tokio::select! {
            () = async { tokio::join!(looks, renewals); } => {}
            () = shutdown.wait() => {}
        }
        // Else the others find out by themselves.
        let _ = timeout(LEAVE_TIMEOUT, self.write(true)).await;
    }

    async fn write(&self, left: bool) -> Result<(), CommitError> {
        let list_changed = self.list_changed.load(Ordering::Relaxed);
        let record =
            Record { server: self.own.clone(), renewed: secret::now(), left, list_changed };
        let text = serde_json::json!({"record": record}).to_string();
        let value = Draft::new(
            "{\"metadata\":{\"resourceVersion\":\"".to_owned(),
            format!("\"}},{}", text.trim_start_matches('{')),
        );
        let key = Key::new(GROUP, PLURAL, "", &self.own.name);
        let op = Op::Put { key, value, owner: Owner::PLATFORM };
        let txn = Txn { guards: Vec::new(), ops: vec![(Expect::Any, op)] };
        self.store.commit(txn).await.map(drop)
    }

    /// Sees who lives, and tells the fleet.
    fn look(&self, sight: &mut Sight) {
        let now = Instant::now();
        let renewed = *self.renewed.borrow();
        let connected = renewed.is_some_and(|at| now < at + DEAD_AFTER);
        let entries = self.records();
        let returned = connected && sight.told.as_ref().is_some_and(|(_, before)| !before);
        for (entry, record) in &entries {
            let seen =
                sight.seen.entry(record.server.name.clone()).or_insert((entry.modified, now));
            // What the others wrote while this server was cut off comes in a moment.
            if seen.0 != entry.modified || returned {
                *seen = (entry.modified, now);
            }
        }
        // As of when this server saw certainly all that the store has: since then it may itself have been cut off,
        // and must not take the others for dead.
        let as_of = renewed.unwrap_or(now);
        let known = |(_, record): &(Entry, Record)| {
            let seen = sight.seen.get(&record.server.name);
            let lives = seen.is_some_and(|(_, at)| as_of < *at + DEAD_AFTER) && !record.left;
            KnownServer { server: record.server.clone(), live: lives }
        };
        let (mut servers, forgotten): (Vec<_>, Vec<_>) = entries.iter().partition(|(_, record)| {
            let own = record.server.name == self.own.name;
            own || secret::now() < record.renewed + FORGOTTEN_AFTER_S
        });
        servers.truncate(MOST);
        let mut known: Vec<_> = servers.into_iter().map(known).collect();
        if !connected && let Some((before, _)) = &sight.told {
            // It sees nobody renew anything, which says nothing about them.
            known.clone_from(before);
        }
        if connected {
            forgotten.into_iter().for_each(|(entry, _)| self.forget(entry));
        }
        let names = |known: &[KnownServer]| -> Vec<Server> {
            known.iter().map(|known| known.server.clone()).collect()
        };
        if sight.told.as_ref().is_some_and(|(before, _)| names(before) != names(&known)) {
            self.list_changed.store(secret::now(), Ordering::Relaxed);
        }
        self.fleet.set_servers(&self.own.name, known.clone(), connected);
        sight.told = Some((known, connected));
    }

    fn records(&self) -> Vec<(Entry, Record)> {
        let prefix = Prefix::resource(GROUP, PLURAL);
        let page = self.store.list(&prefix, self.store.revision(), None, MOST);
        let entries = page.map(|page| page.entries).unwrap_or_default();
        let parsed = entries.into_iter().filter_map(|entry| {
            let mut value: serde_json::Value = serde_json::from_slice(&entry.value).ok()?;
            let record = serde_json::from_value(value.get_mut("record")?.take()).ok()?;
            Some((entry, record))
        });
        parsed.collect()
    }

    fn forget(&self, entry: &Entry) {
        let last =
            Draft::new("{\"metadata\":{\"resourceVersion\":\"".to_owned(), "\"}}".to_owned());
        let op = Op::Delete { key: entry.key.clone(), last };
        let txn = Txn { guards: Vec::new(), ops: vec![(Expect::At(entry.modified), op)] };
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.commit(txn).await {
                tracing::debug!(%error, "an old record of a server stays");
            }
        });
    }
}

/// This server's name, made at its first start: its host's, and something that no other has.
fn name(dir: &Path) -> Result<String, Failure> {
    let path = dir.join(NAME_FILE);
    let failed = |error: &std::io::Error| {
        let what = format!("cannot use {}: {error}", path.display());
        Failure::new("data-dir", what, "check the directory's permissions and free space")
    };
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&error)),
    }
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let host: String = host.unwrap_or_default().chars().filter(plain).collect();
    let random = toono_pki::random_secret().ok_or_else(token::no_randomness)?;
    let random: String =
        random.iter().take(RANDOM_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let made = format!("{host}-{random}");
    kubeconfig::write(&path, &format!("{made}\n")).map_err(|error| failed(&error))?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let made = name(dir.path()).unwrap();
        assert_eq!(name(dir.path()).unwrap(), made);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(name(other.path()).unwrap(), made);
    }
}
