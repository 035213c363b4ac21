//! Which images go when the disk is nearly full, and which never.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use toono_images::{Collector, ImageStore, InUse, Keyring, Space, Watermarks};

use crate::{
    archive::Tar,
    registry::{Contents, HOST, Registry, image},
};

const MINUTE: Duration = Duration::from_secs(60);

/// A disk of ten layers' size, as full as the store has layers.
fn measure(store: &Path) -> std::io::Result<Space> {
    let layers = fs::read_dir(store.join("layers"))?.count() as u64;
    Ok(Space { capacity: 1000, available: 1000 - 100 * layers })
}

async fn store(dir: &Path, names: &[&str]) -> (Registry, ImageStore) {
    let registry = Registry::start().await;
    let store = registry.store(dir);
    for name in names {
        registry.push(name, &Contents::of(vec![Tar::new().file(name, name).finish()]));
        store.pull(&image(name), &Keyring::default()).await.unwrap();
    }
    (registry, store)
}

fn names(store: &ImageStore) -> Vec<String> {
    let images = store.list().unwrap().into_iter();
    images.map(|image| image.reference.repository().to_owned()).collect()
}

#[tokio::test]
async fn the_longest_unused_go_until_the_low_mark() {
    let dir = tempfile::tempdir().unwrap();
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (registry, store) = store(dir.path(), &all).await;
    let mut collector = Collector::default();
    let start = Instant::now();
    let using = |names: &[&str]| InUse {
        images: names.iter().map(|name| image(name)).collect(),
        layers: BTreeSet::new(),
    };
    let mut run = |in_use: &InUse, at: Duration| {
        collector.collect(&store, in_use, start + at, measure).unwrap()
    };
    // `a` was used a minute later than `b`, the others never.
    assert_eq!(run(&using(&["a", "b"]), Duration::ZERO).images, []);
    assert_eq!(run(&using(&["a"]), MINUTE).images, []);
    registry.push("new", &Contents::of(vec![Tar::new().file("new", "x").finish()]));
    store.pull(&image("new"), &Keyring::default()).await.unwrap();
    // Nine of ten layers: 90 %. Too new, all of them, the eldest by a second.
    let young = run(&using(&[]), 2 * MINUTE - Duration::from_secs(1));
    assert_eq!((young.images.len(), young.wanted, young.freed), (0, 100, 0));
    let in_use = using(&["c", "d", "e", "f", "g", "h"]);
    let collected = run(&in_use, 2 * MINUTE);
    assert_eq!(collected.images, [image("b")]);
    assert_eq!((collected.wanted, collected.freed, collected.layers), (100, 100, 1));
    assert_eq!(names(&store), ["a", "c", "d", "e", "f", "g", "h", "new"]);
    assert_eq!(run(&in_use, 9 * MINUTE).images, [], "80 % are below the high mark");
}

#[tokio::test]
async fn what_is_in_use_stays_however_full_the_disk_is() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, store) = store(dir.path(), &["a", "b", "c"]).await;
    let b = store.lookup(&image("b")).unwrap();
    let pinned = format!("{HOST}/b@{}", b.digest).parse().unwrap();
    let c = store.lookup(&image("c")).unwrap();
    let in_use =
        InUse { images: BTreeSet::from([pinned]), layers: c.layers.iter().cloned().collect() };
    let watermarks = Watermarks { high_percent: 1, low_percent: 0, min_age: Duration::ZERO };
    let mut collector = Collector::new(watermarks);
    let collected = collector.collect(&store, &in_use, Instant::now(), measure).unwrap();
    // The image `c` goes, but not the layer that a container has mounted.
    assert_eq!(collected.images, [image("a"), image("c")]);
    assert_eq!((collected.wanted, collected.freed, collected.layers), (300, 100, 1));
    assert_eq!(names(&store), ["b"]);
    assert!(c.layers.iter().all(|layer| layer.is_dir()));
}

#[tokio::test]
async fn while_an_image_arrives_nothing_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, store) = store(dir.path(), &["a"]).await;
    // The pull hangs in the middle of its only layer, whose transfer broke and is tried again.
    let long = "x".repeat(50_000);
    let contents = Contents::of(vec![Tar::new().file("long", &long).finish()]);
    registry.push("long", &Contents { compressed: false, ..contents });
    registry.state.cut_after.store(10_000, std::sync::atomic::Ordering::Relaxed);
    store.remove(&image("a")).unwrap();
    let name = image("long");
    let keyring = Keyring::default();
    let pull = store.pull(&name, &keyring);
    let partial = dir.path().join("partial");
    let seen = async {
        while fs::read_dir(&partial).unwrap().count() == 0 {
            tokio::task::yield_now().await;
        }
        store.prune(&BTreeSet::new(), Duration::ZERO).unwrap()
    };
    let (pulled, pruned) = tokio::join!(pull, seen);
    pulled.unwrap();
    assert_eq!(pruned, None);
    assert_eq!(store.prune(&BTreeSet::new(), Duration::ZERO).unwrap(), Some(1));
}
