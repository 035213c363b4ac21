//! Commits, reads at revisions, watches, and who may open a directory.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use toono_store::{
    CommitError, EventKind, Expect, Key, Lagged, Op, OpenError, Owner, Prefix, Rev, Store,
    StoreConfig, Txn, WatchItem, Watcher,
};

use crate::setup::{delete, draft, open, pod, pods, put, sealed, text};

/// The next event, past any progress.
async fn event(watcher: &mut Watcher) -> (u64, EventKind, String) {
    loop {
        match watcher.next().await.unwrap() {
            WatchItem::Progress(_) => {}
            WatchItem::Event(event) => {
                return (event.rev.0, event.kind, event.entry.key.name().to_owned());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_seen_by_every_read_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovery) = open(dir.path());
    assert_eq!(recovery.revision, Rev::ZERO);

    let committed = put(&store, Expect::Absent, pod("web"), "one").await.unwrap();
    assert_eq!(committed.rev, Rev(1));
    assert_eq!(text(&committed.entries[0]), sealed("one", 1));
    assert_eq!(store.get(&pod("web"), None).unwrap().as_ref(), Some(&committed.entries[0]));

    let refused = put(&store, Expect::Absent, pod("web"), "two").await.unwrap_err();
    let CommitError::Conflict { key, current: Some(current) } = refused else {
        panic!("expected a conflict, got {refused:?}");
    };
    assert_eq!((key, current), (pod("web"), committed.entries[0].clone()));
    assert_eq!(store.revision(), Rev(1));

    let second = put(&store, Expect::At(Rev(1)), pod("web"), "two").await.unwrap();
    assert_eq!((second.rev, second.entries[0].created), (Rev(2), Rev(1)));
    let before = store.get(&pod("web"), Some(Rev(1))).unwrap().unwrap();
    assert_eq!(text(&before), sealed("one", 1));

    let deleted = delete(&store, pod("web")).await.unwrap();
    assert_eq!(text(&deleted.entries[0]), sealed("gone", 3));
    assert_eq!(store.get(&pod("web"), None).unwrap(), None);
    assert!(store.get(&pod("web"), Some(Rev(2))).unwrap().is_some());
}

#[tokio::test]
async fn a_transaction_happens_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    put(&store, Expect::Any, pod("a"), "a").await.unwrap();
    let op = |name: &str| {
        (Expect::Absent, Op::Put { key: pod(name), value: draft("x"), owner: Owner::PLATFORM })
    };

    let half = Txn { guards: vec![], ops: vec![op("b"), op("a")] };
    assert!(matches!(store.commit(half).await, Err(CommitError::Conflict { .. })));
    assert_eq!(store.get(&pod("b"), None).unwrap(), None);

    let guarded = Txn { guards: vec![(pod("a"), Expect::At(Rev(7)))], ops: vec![op("b")] };
    assert!(matches!(store.commit(guarded).await, Err(CommitError::Conflict { .. })));

    let both = Txn { guards: vec![(pod("a"), Expect::At(Rev(1)))], ops: vec![op("b"), op("c")] };
    assert_eq!(store.commit(both).await.unwrap().rev, Rev(2));
    let twice = Txn { guards: vec![], ops: vec![op("d"), op("d")] };
    assert!(matches!(store.commit(twice).await, Err(CommitError::Duplicate { .. })));
    let slash = Key::new("", "pods", "shop", "a/b");
    let slash = put(&store, Expect::Any, slash, "x").await;
    assert!(matches!(slash, Err(CommitError::InvalidKey { .. })));
    let large = put(&store, Expect::Any, pod("large"), &"x".repeat(17 << 20)).await;
    assert!(matches!(large, Err(CommitError::TooLarge { .. })));
    assert_eq!(store.revision(), Rev(2));
}

#[tokio::test]
async fn pages_of_one_revision_fit_together() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let ops = (0..3000).map(|n| {
        let key = pod(&format!("p{n:04}"));
        (Expect::Any, Op::Put { key, value: draft("x"), owner: Owner::PLATFORM })
    });
    let rev = store.commit(Txn { guards: vec![], ops: ops.collect() }).await.unwrap().rev;
    let other = Key::new("", "pods", "other", "q");
    put(&store, Expect::Any, other, "x").await.unwrap();

    let all = store.list(&pods(), rev, None, usize::MAX).unwrap();
    assert_eq!((all.entries.len(), all.more), (3000, false));
    let first = store.list(&pods(), rev, None, 2000).unwrap();
    assert_eq!((first.entries.len(), first.more), (2000, true));
    delete(&store, pod("p2500")).await.unwrap();
    let after = Some(&first.entries[1999].key);
    let rest = store.list(&pods(), rev, after, 2000).unwrap();
    assert_eq!((rest.entries.len(), rest.more), (1000, false));
    assert_eq!([first.entries, rest.entries].concat(), all.entries);

    let shop = Prefix::namespace("", "pods", "shop");
    let now = store.list(&shop, store.revision(), None, usize::MAX).unwrap();
    assert_eq!(now.entries.len(), 2999);
}

#[tokio::test]
async fn a_watch_goes_on_from_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    put(&store, Expect::Any, pod("a"), "1").await.unwrap();
    put(&store, Expect::Any, pod("b"), "2").await.unwrap();
    let mut watcher = store.watch(&pods(), Rev(1)).unwrap();
    assert_eq!(event(&mut watcher).await, (2, EventKind::Put, "b".into()));
    delete(&store, pod("a")).await.unwrap();
    assert_eq!(event(&mut watcher).await, (3, EventKind::Delete, "a".into()));

    let mut elsewhere = store.watch(&Prefix::namespace("", "pods", "other"), Rev(0)).unwrap();
    let item = elsewhere.next().await.unwrap();
    assert!(matches!(item, WatchItem::Progress(Rev(3))), "{item:?}");

    // A watcher that waits is woken by a write to its resource.
    let waiting = tokio::spawn(async move { event(&mut watcher).await });
    tokio::task::yield_now().await;
    put(&store, Expect::Any, pod("c"), "4").await.unwrap();
    assert_eq!(waiting.await.unwrap(), (4, EventKind::Put, "c".into()));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_hears_how_far_the_store_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let mut watcher = store.watch(&Prefix::resource("", "services"), Rev::ZERO).unwrap();
    let quiet = tokio::time::timeout(Duration::from_mins(1), watcher.next()).await;
    assert!(quiet.is_err(), "nothing has happened, and yet {quiet:?}");
    put(&store, Expect::Any, pod("a"), "1").await.unwrap();
    assert!(matches!(watcher.next().await, Ok(WatchItem::Progress(Rev(1)))));
}

#[tokio::test]
async fn a_slow_watcher_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = StoreConfig::new(dir.path());
    (config.events.whole_events, config.events.rested_events) = (3, 7);
    let (store, _) = Store::open(config).unwrap();
    let mut watcher = store.watch(&pods(), Rev::ZERO).unwrap();
    for _ in 0..20 {
        put(&store, Expect::Any, pod("a"), "x").await.unwrap();
    }
    let lagged = watcher.next().await.unwrap_err();
    assert_eq!(lagged, Lagged { seen: Rev(0), dropped: Rev(10) });
    assert!(store.watch(&pods(), Rev(9)).is_err());
    assert!(store.watch(&pods(), Rev(10)).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_sees_every_event_once_and_in_order() {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let watchers: Vec<_> = (0..4)
        .map(|_| {
            let mut watcher = store.watch(&pods(), Rev::ZERO).unwrap();
            tokio::spawn(async move {
                for rev in 1..=WRITERS * WRITES {
                    assert_eq!(event(&mut watcher).await.0, rev);
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..WRITES {
                    let key = pod(&format!("w{writer}"));
                    let rev = put(&store, Expect::Any, key.clone(), "x").await.unwrap().rev;
                    // Who was answered reads what was written.
                    assert_eq!(store.get(&key, None).unwrap().unwrap().modified, rev);
                }
            })
        })
        .collect();
    for task in writers.into_iter().chain(watchers) {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn history_is_forgotten_when_it_takes_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = StoreConfig::new(dir.path());
    config.history_bytes = 10_000;
    let (store, _) = Store::open(config).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while store.get(&pod("a"), Some(Rev(1))).is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "revision 1 is still readable");
        put(&store, Expect::Any, pod("a"), &"x".repeat(500)).await.unwrap();
    }
    let newest = store.get(&pod("a"), None).unwrap().unwrap();
    assert_eq!(newest.modified, store.revision());
}

#[tokio::test]
async fn a_directory_belongs_to_one_store() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/store");
    let (store, _) = open(&dir);
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let second = Store::open(StoreConfig::new(&dir)).unwrap_err();
    assert!(matches!(second, OpenError::Taken { .. }), "{second:?}");
    let clone = store.clone();
    drop(store);
    put(&clone, Expect::Any, pod("a"), "x").await.unwrap();
    drop(clone);
    assert_eq!(open(&dir).1.revision, Rev(1));
}
