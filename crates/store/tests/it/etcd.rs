//! The etcd engine on a real etcd: the same store, shared by several servers.

use std::time::Duration;

use toono_store::{
    CommitError, EventKind, Expect, Key, Op, Owner, Prefix, Rev, Store, Txn, WatchItem, Watcher,
};

use toono_linear::etcd_server::EtcdServer;

use crate::bad_link::{BadLink, State};
use crate::etcd_server::{config, has_forgotten, store as store_in};
use crate::setup::{delete, draft, pod, pods, put, sealed, text};

/// The next event, past any progress.
async fn event(watcher: &mut Watcher) -> (Rev, EventKind, String) {
    loop {
        match watcher.next().await.unwrap() {
            WatchItem::Progress(_) => {}
            WatchItem::Event(event) => {
                return (event.rev, event.kind, text(&event.entry).to_owned());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_seen_here_at_once_and_elsewhere_when_asked_for() {
    let etcd = EtcdServer::start();
    let (one, two) = (store_in(&etcd).await, store_in(&etcd).await);
    let begun = two.revision();

    let created = put(&one, Expect::Absent, pod("web"), "one").await.unwrap();
    assert_eq!(text(&created.entries[0]), sealed("one", created.rev.0));
    assert_eq!(one.get(&pod("web"), None).unwrap().as_ref(), Some(&created.entries[0]));
    assert!(two.current().await.unwrap() >= created.rev);
    assert_eq!(two.get(&pod("web"), None).unwrap().as_ref(), Some(&created.entries[0]));

    // What the other server knows is what a condition is checked against.
    let refused = put(&two, Expect::Absent, pod("web"), "two").await.unwrap_err();
    let CommitError::Conflict { key, current: Some(current) } = refused else {
        panic!("expected a conflict, got {refused:?}");
    };
    assert_eq!((key, &current), (pod("web"), &created.entries[0]));
    let second = put(&two, Expect::At(created.rev), pod("web"), "two").await.unwrap();
    assert_eq!((second.rev > created.rev, second.entries[0].created), (true, created.rev));
    let stale = put(&one, Expect::At(created.rev), pod("web"), "three").await.unwrap_err();
    assert!(
        matches!(stale, CommitError::Conflict { current: Some(it), .. } if it.modified == second.rev)
    );

    let deleted = delete(&one, pod("web")).await.unwrap();
    assert_eq!(text(&deleted.entries[0]), sealed("gone", deleted.rev.0));
    let again = delete(&two, pod("web")).await.unwrap_err();
    assert!(matches!(again, CommitError::Conflict { current: None, .. }), "{again:?}");
    put(&two, Expect::Absent, pod("web"), "new").await.unwrap();

    // Both tell the same story, from before the first write on.
    for store in [&one, &two] {
        store.current().await.unwrap();
        let mut watcher = store.watch(&pods(), begun).unwrap();
        let first = (created.rev, EventKind::Put, sealed("one", created.rev.0));
        assert_eq!(event(&mut watcher).await, first);
        let next = (second.rev, EventKind::Put, sealed("two", second.rev.0));
        assert_eq!(event(&mut watcher).await, next);
        let last = (deleted.rev, EventKind::Delete, sealed("gone", deleted.rev.0));
        assert_eq!(event(&mut watcher).await, last);
        let before = store.get(&pod("web"), Some(created.rev)).unwrap().unwrap();
        assert_eq!(text(&before), sealed("one", created.rev.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_happens_whole_or_not_at_all() {
    let etcd = EtcdServer::start();
    let store = store_in(&etcd).await;
    let a = put(&store, Expect::Any, pod("a"), "a").await.unwrap().rev;
    let owner = Owner::new("red");
    let put = |name: &str, expect| {
        (expect, Op::Put { key: pod(name), value: draft("x"), owner: owner.clone() })
    };
    let remove = |name: &str| (Expect::Any, Op::Delete { key: pod(name), last: draft("gone") });
    let txn = |guards: Vec<(Key, Expect)>, ops| store.commit(Txn { guards, ops });

    for guard in
        [(pod("a"), Expect::Absent), (pod("a"), Expect::At(Rev(1))), (pod("z"), Expect::At(a))]
    {
        let refused = txn(vec![guard], vec![put("b", Expect::Any)]).await.unwrap_err();
        assert!(matches!(refused, CommitError::Conflict { .. }), "{refused:?}");
    }
    let twice = txn(vec![], vec![put("b", Expect::Any), remove("b")]).await.unwrap_err();
    assert!(matches!(twice, CommitError::Conflict { .. } | CommitError::Duplicate { .. }));
    let guards = vec![(pod("z"), Expect::Absent)];
    let all =
        txn(guards, vec![put("b", Expect::Absent), put("a", Expect::At(a)), remove("a")]).await;
    assert!(matches!(all.unwrap_err(), CommitError::Duplicate { .. }));
    assert_eq!(store.get(&pod("b"), None).unwrap(), None);

    let done = txn(vec![(pod("z"), Expect::Absent)], vec![put("b", Expect::Absent), remove("a")]);
    let done = done.await.unwrap();
    assert!(done.entries.iter().all(|entry| entry.modified == done.rev));
    assert_eq!((done.entries[1].created, done.entries[1].owner.clone()), (a, Owner::PLATFORM));
    assert_eq!(store.get(&pod("a"), None).unwrap(), None);
    // Only conditions: no revision is used up.
    let checked = txn(vec![(pod("b"), Expect::At(done.rev))], vec![]).await.unwrap();
    assert!(checked.rev >= done.rev && checked.entries.is_empty());
    let now = store.revision();
    assert_eq!(store.current().await.unwrap(), now);

    // The owner stays, whoever writes and wherever it is read.
    let kept = txn(
        vec![],
        vec![(
            Expect::Any,
            Op::Put { key: pod("b"), value: draft("y"), owner: Owner::new("blue") },
        )],
    );
    assert_eq!(kept.await.unwrap().entries[0].owner, owner);
    let other = store_in(&etcd).await;
    assert_eq!(other.get(&pod("b"), None).unwrap().unwrap().owner, owner);
    let of = |owner: &Owner| {
        other.list_owned(&pods(), owner, other.revision(), None, usize::MAX).unwrap().entries.len()
    };
    assert_eq!((of(&owner), of(&Owner::new("blue")), of(&Owner::PLATFORM)), (1, 0, 0));
}

/// Commits share transactions of etcd, and yet a watch that is resumed after any of them misses none.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_go_together_keep_apart() {
    let etcd = EtcdServer::start();
    let (store, other) = (store_in(&etcd).await, store_in(&etcd).await);
    let begun = store.current().await.unwrap();
    let name = |n: usize| pod(&format!("p{n:03}"));
    let puts = (0..300).map(|n| put(&store, Expect::Absent, name(n), "x"));
    let mut revs: Vec<_> =
        futures::future::join_all(puts).await.into_iter().map(|done| done.unwrap().rev).collect();
    let etcds: std::collections::BTreeSet<_> = revs.iter().map(|rev| rev.0 / 256).collect();
    assert!(etcds.len() < 100, "{} transactions for 300 commits", etcds.len());
    revs.sort_unstable();
    revs.dedup();
    assert_eq!(revs.len(), 300);
    other.current().await.unwrap();
    for store in [&store, &other] {
        let mut told = vec![begun];
        while told.len() < 301 {
            let mut watcher = store.watch(&pods(), *told.last().unwrap()).unwrap();
            told.push(event(&mut watcher).await.0);
        }
        assert_eq!(told[1..], revs);
    }
    // Deletions too, and what they leave behind.
    let deletes = (0..300).map(|n| delete(&other, name(n)));
    let deleted = futures::future::join_all(deletes).await;
    let mut watcher = store.watch(&pods(), *revs.last().unwrap()).unwrap();
    let mut deleted: Vec<_> = deleted.into_iter().map(|done| done.unwrap()).collect();
    deleted.sort_by_key(|done| done.rev);
    for done in deleted {
        let told = (done.rev, EventKind::Delete, text(&done.entries[0]).to_owned());
        assert_eq!(event(&mut watcher).await, told);
    }
    // One that comes later reads all of it as those do that were there.
    let kept = put(&store, Expect::Absent, pod("kept"), "x").await.unwrap();
    let kept = put(&store, Expect::At(kept.rev), pod("kept"), "y").await.unwrap();
    let late = store_in(&etcd).await;
    assert_eq!(late.get(&pod("kept"), None).unwrap().as_ref(), Some(&kept.entries[0]));
    assert_eq!(late.revision(), store.current().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_is_read_again_in_pages() {
    let etcd = EtcdServer::start();
    let store = store_in(&etcd).await;
    // Resources whose order is another as names of resources than as keys.
    let key = |plural: &str, n| Key::new("", plural, "shop", &format!("n{n:04}"));
    for plural in ["pods", "pods-x", "podsets"] {
        let puts = (0..900).map(|n| put(&store, Expect::Absent, key(plural, n), "x"));
        for done in futures::future::join_all(puts).await {
            done.unwrap();
        }
    }
    let other = store_in(&etcd).await;
    assert!(other.revision() >= store.revision());
    for plural in ["pods", "pods-x", "podsets"] {
        let prefix = Prefix::resource("", plural);
        let all = |store: &Store| store.list(&prefix, store.revision(), None, usize::MAX).unwrap();
        assert_eq!(all(&other).entries.len(), 900);
        assert_eq!(all(&other), all(&store));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_etcd_loses_nothing_and_the_store_goes_on() {
    let mut etcd = EtcdServer::start();
    let store = store_in(&etcd).await;
    let mut watcher = store.watch(&pods(), store.revision()).unwrap();
    let before = put(&store, Expect::Absent, pod("a"), "before").await.unwrap();
    etcd.kill();
    // Reads go on; nobody can say whether they are of the newest revision.
    assert!(store.get(&pod("a"), None).unwrap().is_some());
    let during = {
        let store = store.clone();
        tokio::spawn(async move { put(&store, Expect::Absent, pod("b"), "during").await })
    };
    etcd.restart();
    let during = during.await.unwrap();
    let after = put(&store, Expect::Absent, pod("c"), "after").await.unwrap();
    assert_eq!(event(&mut watcher).await.0, before.rev);
    // The one in between was sent once, or not, and its answer says so.
    match during {
        Ok(during) => assert_eq!(event(&mut watcher).await.0, during.rev),
        Err(CommitError::Unavailable(_)) => {}
        Err(CommitError::Unknown { .. }) if store.get(&pod("b"), None).unwrap().is_some() => {
            event(&mut watcher).await;
        }
        Err(CommitError::Unknown { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    assert_eq!(event(&mut watcher).await.0, after.rev);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_away_is_said_to_be() {
    let mut etcd = EtcdServer::start();
    let mut config = config(&etcd.url());
    config.request_timeout = Duration::from_secs(1);
    let (store, _) = Store::connect(config).await.unwrap();
    etcd.kill();
    let refused = put(&store, Expect::Absent, pod("a"), "x").await.unwrap_err();
    assert!(
        matches!(refused, CommitError::Unavailable(_) | CommitError::Unknown { .. }),
        "{refused:?}"
    );
    let refused = put(&store, Expect::Absent, pod("a"), "x").await.unwrap_err();
    assert!(matches!(refused, CommitError::Unavailable(_)), "{refused:?}");
    assert!(refused.to_string().contains("cannot connect"), "{refused}");
    assert!(store.current().await.unwrap_err().to_string().contains("cannot connect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_compacts_for_all() {
    let etcd = EtcdServer::start();
    let mut config = config(&etcd.url());
    config.history = Duration::from_millis(300);
    let (one, _) = Store::connect(config.clone()).await.unwrap();
    let (two, _) = Store::connect(config).await.unwrap();
    let first = put(&one, Expect::Any, pod("a"), "0").await.unwrap().rev;
    // Somebody who remembers longer, as a witness that etcd itself forgot.
    let late = loop {
        put(&two, Expect::Any, pod("a"), "x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        if has_forgotten(&etcd, first).await {
            break one.current().await.unwrap();
        }
    };
    assert!(two.current().await.unwrap() >= late);
    assert_eq!(put(&one, Expect::Any, pod("a"), "y").await.unwrap().entries[0].created, first);
}

/// What etcd did, and nobody was told of: not known, done once, and heard of in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_no_refusal_and_no_second_write() {
    let etcd = EtcdServer::start();
    let link = BadLink::to(etcd.port()).await;
    let (store, _) = Store::connect(config(&link.url())).await.unwrap();
    let witness = store_in(&etcd).await;
    let begun = store.current().await.unwrap();
    let mut watcher = witness.watch(&pods(), begun).unwrap();

    link.set(State::Deaf);
    let lost = {
        let store = store.clone();
        tokio::spawn(async move { put(&store, Expect::Any, pod("a"), "lost").await })
    };
    let done = event(&mut watcher).await;
    link.set(State::Cut);
    let unknown = lost.await.unwrap().unwrap_err();
    assert!(matches!(unknown, CommitError::Unknown { .. }), "{unknown:?}");

    link.set(State::Open);
    let next = put(&store, Expect::Absent, pod("b"), "next").await.unwrap();
    assert_eq!(event(&mut watcher).await.0, next.rev);
    let mut own = store.watch(&pods(), begun).unwrap();
    assert_eq!(event(&mut own).await, done);
    assert_eq!(event(&mut own).await.0, next.rev);
    assert_eq!(store.get(&pod("a"), None).unwrap().unwrap().modified, done.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_for_too_long_begins_anew() {
    let etcd = EtcdServer::start();
    let link = BadLink::to(etcd.port()).await;
    let (away, _) = Store::connect(config(&link.url())).await.unwrap();
    let kept = put(&away, Expect::Absent, pod("kept"), "x").await.unwrap();
    put(&away, Expect::Absent, pod("gone"), "x").await.unwrap();
    let mut watcher = away.watch(&pods(), away.current().await.unwrap()).unwrap();
    link.set(State::Cut);

    let mut busy = config(&etcd.url());
    busy.history = Duration::from_millis(300);
    let (busy, _) = Store::connect(busy).await.unwrap();
    delete(&busy, pod("gone")).await.unwrap();
    let unseen = put(&busy, Expect::Absent, pod("new"), "x").await.unwrap();
    while !has_forgotten(&etcd, unseen.rev).await {
        put(&busy, Expect::Any, pod("new"), "y").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    link.set(State::Open);
    away.current().await.unwrap();
    let all = |store: &Store| store.list(&pods(), store.revision(), None, usize::MAX).unwrap();
    busy.current().await.unwrap();
    assert_eq!(all(&away), all(&busy));
    assert_eq!(all(&away).entries[0], kept.entries[0]);
    let lagged = loop {
        match watcher.next().await {
            Ok(WatchItem::Progress(_)) => {}
            other => break other,
        }
    };
    assert!(lagged.is_err(), "a watch with a gap goes on: {lagged:?}");
    let next = put(&away, Expect::Absent, pod("next"), "x").await.unwrap();
    busy.current().await.unwrap();
    assert_eq!(busy.get(&pod("next"), None).unwrap().unwrap().modified, next.rev);
}
