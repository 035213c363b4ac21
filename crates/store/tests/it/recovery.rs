//! Opening what is on the disk: whole, cut off, damaged.

use std::fs;
use std::path::{Path, PathBuf};

use toono_store::{DamageKind, Expect, OpenError, Rev, Store, StoreConfig, TailCut, WatchItem};

use crate::setup::{delete, open, pod, pods, put, sealed, text};

/// Files of the directory whose name begins with `prefix`, in order.
fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    files.sort();
    files
}

/// Ten commits, each a frame of its own; where each of them ends.
async fn ten(dir: &Path) -> Vec<u64> {
    let (store, _) = open(dir);
    let mut ends = Vec::new();
    for n in 1..=10 {
        put(&store, Expect::Any, pod(&format!("p{n}")), "x").await.unwrap();
        ends.push(written(&files(dir, "journal-")[0]).len() as u64);
    }
    ends
}

/// A journal file without the room after its last frame.
fn written(file: &Path) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

fn flip(file: &Path, offset: u64) {
    let mut bytes = fs::read(file).unwrap();
    bytes[usize::try_from(offset).unwrap()] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

fn damage(dir: &Path) -> (PathBuf, u64, DamageKind) {
    let before: Vec<_> = files(dir, "").iter().map(|file| fs::read(file).unwrap()).collect();
    let error = Store::open(StoreConfig::new(dir)).unwrap_err();
    let after: Vec<_> = files(dir, "").iter().map(|file| fs::read(file).unwrap()).collect();
    assert_eq!(before, after, "a refused directory was changed");
    match error {
        OpenError::Damaged { file, offset, kind } => (file, offset, kind),
        other => panic!("expected damage, got {other:?}"),
    }
}

#[tokio::test]
async fn everything_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    put(&store, Expect::Any, pod("a"), "1").await.unwrap();
    put(&store, Expect::Any, pod("b"), "2").await.unwrap();
    put(&store, Expect::Any, pod("a"), "3").await.unwrap();
    delete(&store, pod("b")).await.unwrap();
    drop(store);

    let (store, recovery) = open(dir.path());
    assert_eq!((recovery.revision, recovery.replayed), (Rev(4), 4));
    assert_eq!(recovery.tail_cut, None);
    let a = store.get(&pod("a"), None).unwrap().unwrap();
    assert_eq!((text(&a), a.created, a.modified), (&*sealed("3", 3), Rev(1), Rev(3)));
    assert_eq!(store.get(&pod("b"), None).unwrap(), None);
    // History and events too: a watch goes on over a restart.
    assert!(store.get(&pod("b"), Some(Rev(3))).unwrap().is_some());
    let mut watcher = store.watch(&pods(), Rev(2)).unwrap();
    for rev in [3, 4] {
        let Ok(WatchItem::Event(event)) = watcher.next().await else { panic!("no event") };
        assert_eq!(event.rev, Rev(rev));
    }
    assert_eq!(put(&store, Expect::Any, pod("c"), "5").await.unwrap().rev, Rev(5));
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let ends = ten(dir.path()).await;
    let file = files(dir.path(), "journal-").remove(0);
    let whole = written(&file);
    for len in ends[8] + 1..ends[9] {
        fs::write(&file, &whole[..usize::try_from(len).unwrap()]).unwrap();
        let bytes = written(&file).len() as u64 - ends[8];
        let (store, recovery) = open(dir.path());
        assert_eq!(recovery.revision, Rev(9));
        let cut = TailCut { file: file.clone(), offset: ends[8], bytes };
        assert_eq!(recovery.tail_cut, Some(cut));
        drop(store);
        assert_eq!(fs::metadata(&file).unwrap().len(), ends[8]);
    }
    // And writing goes on there.
    let (store, recovery) = open(dir.path());
    assert_eq!(recovery.tail_cut, None);
    assert_eq!(put(&store, Expect::Any, pod("new"), "x").await.unwrap().rev, Rev(10));
    drop(store);
    assert_eq!(open(dir.path()).1.revision, Rev(10));
}

#[tokio::test]
async fn any_flipped_bit_of_the_last_frame_cuts_it() {
    let dir = tempfile::tempdir().unwrap();
    let ends = ten(dir.path()).await;
    let file = files(dir.path(), "journal-").remove(0);
    let whole = written(&file);
    for offset in ends[8]..ends[9] {
        fs::write(&file, &whole).unwrap();
        flip(&file, offset);
        let (_, recovery) = open(dir.path());
        assert_eq!(recovery.revision, Rev(9), "a bit flipped at {offset}");
        assert_eq!(recovery.tail_cut.unwrap().offset, ends[8]);
    }
    // Room for more is not damage, and something in that room is.
    for (garbage, cut) in [(&[][..], None), (b"some", Some(4004))] {
        fs::write(&file, [&*whole, &[0; 4000], garbage, &[0; 1000]].concat()).unwrap();
        let (_, recovery) = open(dir.path());
        assert_eq!(recovery.revision, Rev(10));
        assert_eq!(recovery.tail_cut.map(|cut| cut.bytes), cut);
    }
}

#[tokio::test]
async fn any_flipped_bit_of_the_middle_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let ends = ten(dir.path()).await;
    let file = files(dir.path(), "journal-").remove(0);
    let whole = written(&file);
    for offset in ends[3]..ends[4] {
        fs::write(&file, &whole).unwrap();
        flip(&file, offset);
        let intact = DamageKind::Garbage { intact_file: file.clone(), intact_offset: ends[4] };
        assert_eq!(damage(dir.path()), (file.clone(), ends[3], intact));
    }
    // A whole frame cut out.
    let (from, to) = (usize::try_from(ends[3]).unwrap(), usize::try_from(ends[4]).unwrap());
    fs::write(&file, [&whole[..from], &whole[to..]].concat()).unwrap();
    assert_eq!(damage(dir.path()), (file, ends[3], DamageKind::Gap { after: 4, found: 6 }));
}

/// A store with small files, and `count` commits of about 200 bytes in it.
async fn small_files(dir: &Path, segment: u64, snapshot: u64, count: u64) {
    let mut config = StoreConfig::new(dir);
    config.segment_bytes = segment;
    config.snapshot_after_bytes = snapshot;
    let (store, _) = Store::open(config).unwrap();
    for n in 0..count {
        put(&store, Expect::Any, pod(&format!("p{}", n % 50)), &"x".repeat(100)).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_or_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    small_files(dir.path(), 2000, u64::MAX, 100).await;
    let segments = files(dir.path(), "journal-");
    assert!(segments.len() > 4, "{segments:?}");

    let bytes = fs::read(&segments[2]).unwrap();
    flip(&segments[2], written(&segments[2]).len() as u64 - 1);
    let (file, _, kind) = damage(dir.path());
    assert_eq!(file, segments[2]);
    let intact = DamageKind::Garbage { intact_file: segments[3].clone(), intact_offset: 0 };
    assert_eq!(kind, intact);
    fs::remove_file(&segments[2]).unwrap();
    let (file, offset, kind) = damage(dir.path());
    assert_eq!((file, offset), (segments[3].clone(), 0));
    assert!(matches!(kind, DamageKind::Gap { .. }));
    fs::write(&segments[2], bytes).unwrap();
    assert_eq!(open(dir.path()).1.revision, Rev(100));

    fs::remove_file(&segments[0]).unwrap();
    let (file, _, kind) = damage(dir.path());
    assert_eq!(file, segments[1]);
    assert!(matches!(kind, DamageKind::Gap { after: 0, .. }));
}

#[tokio::test]
async fn a_snapshot_replaces_the_journal_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut rounds = 0;
    while files(dir.path(), "snapshot-").iter().all(|file| file.extension().unwrap() != "snap") {
        small_files(dir.path(), 2000, 10_000, 100).await;
        rounds += 1;
        assert!(rounds < 100, "no snapshot was written");
    }
    let (store, recovery) = open(dir.path());
    assert_eq!(recovery.revision, Rev(rounds * 100));
    assert!(recovery.snapshot > Rev::ZERO);
    let page = store.list(&pods(), store.revision(), None, usize::MAX).unwrap();
    assert_eq!(page.entries.len(), 50);
    for entry in &page.entries {
        assert_eq!(text(entry), sealed(&"x".repeat(100), entry.modified.0));
    }
    drop(store);

    let snapshots = files(dir.path(), "snapshot-");
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    let first = files(dir.path(), "journal-").remove(0);
    assert!(!first.ends_with("journal-00000000000000000001.log"), "the old journal is still there");
    // Without what it replaced, a damaged snapshot cannot be done without.
    for offset in [0, 40, fs::metadata(&snapshots[0]).unwrap().len() - 1] {
        let whole = fs::read(&snapshots[0]).unwrap();
        flip(&snapshots[0], offset);
        let (file, _, kind) = damage(dir.path());
        assert_eq!((file, kind), (snapshots[0].clone(), DamageKind::Snapshot));
        fs::write(&snapshots[0], whole).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_no_loss_while_the_journal_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    small_files(dir.path(), 2000, u64::MAX, 100).await;
    // All but the last, which the store goes on writing to and which no snapshot replaces.
    let mut journal = files(dir.path(), "journal-");
    journal.pop();
    let kept: Vec<_> = journal.iter().map(|file| (file, fs::read(file).unwrap())).collect();

    let mut config = StoreConfig::new(dir.path());
    config.snapshot_after_bytes = 1;
    let (store, _) = Store::open(config).unwrap();
    while journal.iter().any(|file| file.exists()) {
        put(&store, Expect::Any, pod("a"), "x").await.unwrap();
    }
    let revision = store.revision();
    drop(store);
    // Opening removes what a snapshot in the works has left.
    assert_eq!(open(dir.path()).1.revision, revision);
    let snapshot = files(dir.path(), "snapshot-").pop().unwrap();
    flip(&snapshot, 60);
    let (file, _, kind) = damage(dir.path());
    assert_eq!((file, kind), (snapshot, DamageKind::Snapshot));

    for (file, bytes) in kept {
        fs::write(file, bytes).unwrap();
    }
    let (_, recovery) = open(dir.path());
    assert_eq!((recovery.revision, recovery.snapshot), (revision, Rev::ZERO));
}
