//! Pulls: what arrives, what is refused, what is not transferred twice.

use std::{collections::BTreeSet, fs, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use serde_json::json;
use toono_images::{ImageRef, Keyring, PullError};

use crate::{
    archive::Tar,
    registry::{Contents, HOST, Registry, image},
};

fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, &name.repeat(1000)).finish()
}

#[tokio::test]
async fn an_image_arrives_whole() {
    for compressed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start().await;
        let layers = vec![layer("one"), layer("two")];
        let digest = registry.push("app", &Contents { compressed, ..Contents::of(layers) });
        let store = registry.store(dir.path());
        assert_eq!(store.lookup(&image("app")), None);
        let pulled = store.pull(&image("app"), &Keyring::default()).await.unwrap();
        assert_eq!(pulled.digest.to_string(), digest);
        assert_eq!(pulled.reference.to_string(), format!("{HOST}/app:latest"));
        assert_eq!(pulled.config.entrypoint, ["/bin/hello"]);
        assert!(pulled.config.cmd.is_empty());
        assert_eq!(
            (pulled.config.user.as_str(), pulled.config.working_dir.as_str()),
            ("app", "/srv")
        );
        let files: Vec<bool> = ["one", "two"]
            .iter()
            .zip(&pulled.layers)
            .map(|(name, layer)| layer.join(name).exists())
            .collect();
        assert_eq!(files, [true, true]);
        // Also for the next process.
        assert_eq!(registry.store(dir.path()).lookup(&image("app")), Some(pulled.clone()));
        let pinned: ImageRef = format!("{HOST}/app@{digest}").parse().unwrap();
        assert_eq!(store.pull(&pinned, &Keyring::default()).await.unwrap().layers, pulled.layers);
    }
}

#[tokio::test]
async fn an_index_is_resolved_for_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    let contents = Contents::of(vec![layer("one")]);
    let ours = registry.push("multi", &contents);
    let entry = |digest: &str, arch: &str| {
        json!({ "digest": digest, "size": 1, "mediaType": "m",
        "platform": { "os": "linux", "architecture": arch } })
    };
    let other = format!("sha256:{}", "0".repeat(64));
    let index = registry.push_manifest("multi", "latest", &json!({
        "schemaVersion": 2, "manifests": [entry(&other, "s390x"), entry(&ours, &contents.architecture)],
    }));
    let store = registry.store(dir.path());
    assert_eq!(
        store.pull(&image("multi"), &Keyring::default()).await.unwrap().digest.to_string(),
        index
    );

    registry.push_manifest(
        "multi",
        "other",
        &json!({
            "schemaVersion": 2, "manifests": [entry(&other, "s390x")],
        }),
    );
    let error = store.pull(&image("multi:other"), &Keyring::default()).await.unwrap_err();
    assert!(
        matches!(&error, PullError::NoSuchPlatform { found, .. } if found == &["linux/s390x"]),
        "{error}"
    );
    let foreign = Contents { architecture: "s390x".to_owned(), ..contents };
    registry.push("foreign", &foreign);
    let error = store.pull(&image("foreign"), &Keyring::default()).await.unwrap_err();
    assert!(matches!(error, PullError::NoSuchPlatform { .. }), "{error}");
}

#[tokio::test]
async fn what_does_not_match_its_digest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    registry.push("app", &Contents::of(vec![layer("one")]));
    let store = registry.store(dir.path());
    for path in registry.blobs() {
        let good = registry.take(&path);
        let mut bad = good.to_vec();
        let at = bad.len() / 2;
        bad[at] ^= 1;
        registry.put(&path, Bytes::from(bad));
        let error = store.pull(&image("app"), &Keyring::default()).await.unwrap_err();
        assert!(matches!(error, PullError::Corrupted { .. }), "{error}");
        registry.put(&path, good);
    }
    assert_eq!(fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    store.pull(&image("app"), &Keyring::default()).await.unwrap();
    // A manifest asked for by its digest must be that one.
    let wrong = format!("sha256:{}", "1".repeat(64));
    registry.put(&format!("/v2/app/manifests/{wrong}"), Bytes::from_static(b"{}"));
    let error = store
        .pull(&format!("{HOST}/app@{wrong}").parse().unwrap(), &Keyring::default())
        .await
        .unwrap_err();
    assert!(matches!(error, PullError::Corrupted { .. }), "{error}");
}

#[tokio::test]
async fn a_lying_configuration_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    // Both manifests name the other's configuration, whose list of contents does not fit.
    registry.push("a", &Contents::of(vec![layer("one")]));
    let a = registry.manifest("a");
    registry.push("b", &Contents::of(vec![layer("two")]));
    let b = registry.manifest("b");
    for path in registry.blobs() {
        let bytes = registry.take(&path);
        registry.put(&path.replace("/v2/a/", "/v2/mixed/").replace("/v2/b/", "/v2/mixed/"), bytes);
    }
    registry.push_manifest(
        "mixed",
        "latest",
        &json!({
            "schemaVersion": 2, "config": a["config"], "layers": b["layers"],
        }),
    );
    let error =
        registry.store(dir.path()).pull(&image("mixed"), &Keyring::default()).await.unwrap_err();
    assert!(matches!(error, PullError::Corrupted { .. }), "{error}");
}

#[tokio::test]
async fn missing_images_and_registries_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    let store = registry.store(dir.path());
    let error = store.pull(&image("nothing"), &Keyring::default()).await.unwrap_err();
    assert!(matches!(error, PullError::NotFound { .. }), "{error}");
    registry.put("/v2/odd/manifests/latest", Bytes::from_static(b"<html>"));
    let error = store.pull(&image("odd"), &Keyring::default()).await.unwrap_err();
    assert!(matches!(error, PullError::Invalid { .. }), "{error}");
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let mut registries = toono_images::RegistryConfig::default();
    registries.add(&format!("{HOST}=http://{address}")).unwrap();
    let store = toono_images::ImageStore::open(dir.path().join("other"), registries).unwrap();
    let error = store.pull(&image("app"), &Keyring::default()).await.unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    let noise: String = (0..60_000u64)
        .map(|n| char::from(b'a' + u8::try_from((n * n * 7 + n / 3) % 26).unwrap()))
        .collect();
    let contents = Contents::of(vec![Tar::new().file("noise", &noise).finish()]);
    registry.push("app", &Contents { compressed: false, ..contents });
    registry.state.cut_after.store(25_000, Ordering::Relaxed);
    registry.store(dir.path()).pull(&image("app"), &Keyring::default()).await.unwrap();
    // The configuration is small enough to come whole; the layer takes three attempts.
    assert_eq!(registry.state.blob_requests.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn calls_for_one_image_join_and_layers_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    registry.push("app", &Contents::of(vec![layer("one"), layer("two")]));
    let store = registry.store(dir.path());
    let name = image("app");
    let none = Keyring::default();
    let pull = || store.pull(&name, &none);
    let (a, b, c) = tokio::join!(pull(), pull(), pull());
    assert_eq!(a.unwrap(), b.unwrap());
    c.unwrap();
    let requests = || registry.state.blob_requests.swap(0, Ordering::Relaxed);
    assert_eq!(requests(), 3);
    // Only what is new is transferred; a layer that occurs twice is there once.
    registry.push("next", &Contents::of(vec![layer("one"), layer("three"), layer("one")]));
    let next = store.pull(&image("next"), &Keyring::default()).await.unwrap();
    assert_eq!(requests(), 2);
    assert_eq!(next.layers.len(), 2);
    assert!(next.layers.last().unwrap().join("one").exists());
}

#[tokio::test]
async fn tokens_and_redirects_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    registry.push("secret", &Contents::of(vec![layer("one")]));
    registry.state.wants_token.store(true, Ordering::Relaxed);
    registry.store(dir.path()).pull(&image("secret"), &Keyring::default()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    registry.state.wants_token.store(false, Ordering::Relaxed);
    registry.state.redirects.store(true, Ordering::Relaxed);
    registry.store(other.path()).pull(&image("secret"), &Keyring::default()).await.unwrap();
}

#[tokio::test]
async fn layers_go_when_nobody_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    registry.push("a", &Contents::of(vec![layer("shared"), layer("only a")]));
    registry.push("b", &Contents::of(vec![layer("shared"), layer("only b")]));
    let store = registry.store(dir.path());
    let a = store.pull(&image("a"), &Keyring::default()).await.unwrap();
    let b = store.pull(&image("b"), &Keyring::default()).await.unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
    assert_eq!(store.prune(&BTreeSet::new(), Duration::ZERO).unwrap(), Some(0));
    store.remove(&image("a")).unwrap();
    assert_eq!(store.lookup(&image("a")), None);
    let in_use: BTreeSet<_> = a.layers.iter().cloned().collect();
    assert_eq!(store.prune(&in_use, Duration::ZERO).unwrap(), Some(0));
    assert_eq!(store.prune(&BTreeSet::new(), Duration::ZERO).unwrap(), Some(1));
    assert_eq!(store.lookup(&image("b")), Some(b));
    store.remove(&image("a")).unwrap();
}

#[tokio::test]
async fn what_a_crash_left_is_not_taken_for_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start().await;
    registry.push("app", &Contents::of(vec![layer("one")]));
    fs::create_dir_all(dir.path().join("tmp/layer-0/half")).unwrap();
    fs::write(dir.path().join("tmp/download-0"), "half").unwrap();
    let store = registry.store(dir.path());
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    let pulled = store.pull(&image("app"), &Keyring::default()).await.unwrap();
    // A record whose layer is missing is no image; neither is a damaged one.
    fs::remove_dir_all(pulled.layers.first().unwrap()).unwrap();
    assert_eq!(store.lookup(&image("app")), None);
    store.pull(&image("app"), &Keyring::default()).await.unwrap();
    let record = fs::read_dir(dir.path().join("images")).unwrap().next().unwrap().unwrap();
    fs::write(record.path(), "{").unwrap();
    assert_eq!(store.lookup(&image("app")), None);
}
