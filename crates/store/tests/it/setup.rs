//! Short ways to say what the tests say often.

use std::path::Path;

use toono_store::{
    CommitError, Committed, Draft, Entry, Expect, Key, Op, Owner, Prefix, Recovery, Store,
    StoreConfig, Txn,
};

pub(crate) fn open(dir: &Path) -> (Store, Recovery) {
    Store::open(StoreConfig::new(dir)).unwrap()
}

pub(crate) fn pod(name: &str) -> Key {
    Key::new("", "pods", "shop", name)
}

pub(crate) fn pods() -> Prefix {
    Prefix::resource("", "pods")
}

/// An object with `text` in it.
pub(crate) fn draft(text: &str) -> Draft {
    Draft::new(format!(r#"{{"text":"{text}","resourceVersion":""#), r#""}"#)
}

/// What a draft becomes.
pub(crate) fn sealed(text: &str, rev: u64) -> String {
    format!(r#"{{"text":"{text}","resourceVersion":"{rev}"}}"#)
}

pub(crate) fn text(entry: &Entry) -> &str {
    std::str::from_utf8(&entry.value).unwrap()
}

pub(crate) async fn put(
    store: &Store,
    expect: Expect,
    key: Key,
    text: &str,
) -> Result<Committed, CommitError> {
    let op = Op::Put { key, value: draft(text), owner: Owner::PLATFORM };
    store.commit(Txn::of(expect, op)).await
}

pub(crate) async fn delete(store: &Store, key: Key) -> Result<Committed, CommitError> {
    store.commit(Txn::of(Expect::Any, Op::Delete { key, last: draft("gone") })).await
}
