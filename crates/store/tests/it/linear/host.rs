//! A process with a store in it, and the few words that are spoken with it: one JSON document a line.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use toono_store::{
    CommitError, Draft, Entry, EventKind, Expect, Key, Op, Owner, Prefix, Rev, Store, StoreConfig,
    Txn, WatchItem,
};

const SOCKET: &str = "TOONO_STORE_TEST_SOCKET";
const ENGINE: &str = "TOONO_STORE_TEST_ENGINE";

/// What a store is asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    Put {
        key: usize,
        id: u64,
        expect: When,
    },
    Delete {
        key: usize,
        id: u64,
        expect: When,
    },
    Get {
        key: usize,
    },
    List,
    /// Every event after a revision; answers come for as long as there is somebody to hear them.
    Watch {
        since: u64,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum When {
    Any,
    Absent,
    At(u64),
}

/// Revision and value.
pub(super) type Version = (u64, u64);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done {
        rev: u64,
    },
    Refused {
        current: Option<Version>,
    },
    Found {
        current: Option<Version>,
    },
    Listed {
        rev: u64,
        values: Vec<(usize, Version)>,
    },
    Told {
        rev: u64,
        key: usize,
        id: u64,
        deleted: bool,
    },
    /// Nothing was changed.
    NotDone,
    Unknown,
}

/// The process, as its parent sees it.
pub(super) struct Host {
    engine: String,
    dir: TempDir,
    child: Child,
}

impl Host {
    /// `journal:DIR` or `etcd:URL`.
    pub(super) fn start(engine: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(engine, &dir.path().join("socket"));
        Self { engine: engine.to_owned(), dir, child }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn restart(&mut self) {
        self.child = spawn(&self.engine, &self.socket());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts the child, and waits until it serves.
fn spawn(engine: &str, socket: &std::path::Path) -> Child {
    std::fs::remove_file(socket).ok();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "linear::host::serve_until_killed", "--nocapture"])
        .env(SOCKET, socket)
        .env(ENGINE, engine)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let serves = lines.any(|line| line.unwrap().contains("serving"));
    assert!(serves, "the store in {engine} did not open");
    child
}

/// What the child does. Called by the test runner, without a socket in the environment, it has nothing
/// to do.
#[tokio::test(flavor = "multi_thread")]
async fn serve_until_killed() {
    let (Some(socket), Some(engine)) = (env::var_os(SOCKET), env::var_os(ENGINE)) else { return };
    let engine = engine.into_string().unwrap();
    let (store, etcd) = match engine.split_once(':').unwrap() {
        ("journal", dir) => {
            let mut config = StoreConfig::new(dir);
            config.segment_bytes = 100_000;
            (Store::open(config).unwrap().0, false)
        }
        (_, url) => (Store::connect(crate::etcd_server::config(url)).await.unwrap().0, true),
    };
    let listener = UnixListener::bind(socket).unwrap();
    println!("serving");
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        let store = store.clone();
        tokio::spawn(async move {
            // A client that goes away is its own business.
            serve(connection, &store, etcd).await.ok();
        });
    }
}

async fn serve(connection: UnixStream, store: &Store, etcd: bool) -> std::io::Result<()> {
    let (read, mut write) = connection.into_split();
    let mut lines = tokio::io::BufReader::new(read).lines();
    let reply = |answer: Answer| format!("{}\n", serde_json::to_string(&answer).unwrap());
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Ask::Watch { since } => {
                // An empty etcd begins with its revision 1.
                let begin = if etcd { Rev(2 * 256 - 1) } else { Rev::ZERO };
                let mut watcher = store.watch(&prefix(), Rev(since).max(begin)).unwrap();
                while let Ok(item) = watcher.next().await {
                    let WatchItem::Event(event) = item else { continue };
                    let told = Answer::Told {
                        rev: event.rev.0,
                        key: number(event.entry.key.name()),
                        id: id(&event.entry),
                        deleted: event.kind == EventKind::Delete,
                    };
                    write.write_all(reply(told).as_bytes()).await?;
                }
                return Ok(());
            }
            ask => write.write_all(reply(answer(store, ask).await).as_bytes()).await?,
        }
    }
    Ok(())
}

async fn answer(store: &Store, ask: Ask) -> Answer {
    let draft = |id: u64| Draft::new(format!(r#"{{"id":"{id}","resourceVersion":""#), r#""}"#);
    let (expect, op) = match ask {
        Ask::Put { key, id, expect } => {
            (expect, Op::Put { key: name(key), value: draft(id), owner: Owner::PLATFORM })
        }
        Ask::Delete { key, id, expect } => (expect, Op::Delete { key: name(key), last: draft(id) }),
        Ask::Get { key } => {
            let Ok(_) = store.current().await else { return Answer::NotDone };
            let current = store.get(&name(key), None).unwrap().as_ref().map(version);
            return Answer::Found { current };
        }
        Ask::List | Ask::Watch { .. } => {
            let Ok(rev) = store.current().await else { return Answer::NotDone };
            let page = store.list(&prefix(), rev, None, usize::MAX).unwrap();
            let values = page.entries.iter().map(|it| (number(it.key.name()), version(it)));
            return Answer::Listed { rev: rev.0, values: values.collect() };
        }
    };
    let expect = match expect {
        When::Any => Expect::Any,
        When::Absent => Expect::Absent,
        When::At(rev) => Expect::At(Rev(rev)),
    };
    match store.commit(Txn::of(expect, op)).await {
        Ok(committed) => Answer::Done { rev: committed.rev.0 },
        Err(CommitError::Conflict { current, .. }) => {
            Answer::Refused { current: current.as_ref().map(version) }
        }
        Err(CommitError::Unavailable(_)) => Answer::NotDone,
        Err(_) => Answer::Unknown,
    }
}

fn prefix() -> Prefix {
    Prefix::resource("", "configmaps")
}

fn name(key: usize) -> Key {
    Key::new("", "configmaps", "test", &format!("k{key}"))
}

fn number(name: &str) -> usize {
    name.strip_prefix('k').unwrap().parse().unwrap()
}

fn version(entry: &Entry) -> Version {
    (entry.modified.0, id(entry))
}

/// The number of the write, and a look at whether the object is as it must be.
fn id(entry: &Entry) -> u64 {
    let object: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(object["resourceVersion"], entry.modified.to_string());
    object["id"].as_str().unwrap().parse().unwrap()
}
