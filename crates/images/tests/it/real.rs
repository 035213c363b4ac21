//! Pulls from a real registry: every form, users, TLS, mirrors, broken links and damaged layers.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::json;
use toono_images::{ImageRef, ImageStore, Keyring, PullError, RegistryConfig};

use crate::{
    archive::Tar,
    distribution::{DOCKER, Distribution, OCI, Options},
    proxy::Proxy,
    registry::{Contents, digest_of, gzip},
};

const HOST: &str = "real.test";

pub fn name(text: &str) -> ImageRef {
    format!("{HOST}/{text}").parse().unwrap()
}

pub fn store(dir: &Path, url: &str) -> ImageStore {
    let mut registries = RegistryConfig::default();
    registries.add(&format!("{HOST}={url}")).unwrap();
    ImageStore::open(dir, registries).unwrap()
}

fn layer(file: &str) -> Vec<u8> {
    Tar::new().file(file, &file.repeat(1000)).finish()
}

/// Bytes that no compression makes less.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

/// An archive of about so many bytes.
pub fn large(bytes: usize) -> Vec<u8> {
    let content = noise(bytes);
    Tar::new().entry("noise", tar::EntryType::Regular, 0o644, (0, 0), "", &content).finish()
}

pub fn count(dir: &Path, name: &str) -> usize {
    fs::read_dir(dir.join(name)).unwrap().count()
}

#[tokio::test]
async fn both_families_and_every_compression() {
    let registry = Distribution::start(&Options::default());
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &format!("http://{}", registry.address));
    for (family, tag) in [(&OCI, "oci"), (&DOCKER, "docker")] {
        let archives = ["plain", "gzip", "zstd"].map(|form| layer(&format!("{tag}-{form}")));
        let [plain, gzipped, zstd] = archives;
        let blobs = [
            (plain.clone(), plain),
            (gzipped.clone(), gzip(&gzipped)),
            (zstd.clone(), compress_to_vec(&zstd[..], CompressionLevel::Fastest)),
        ];
        let digest = registry.put("app", tag, family, &blobs);
        let pulled = store.pull(&name(&format!("app:{tag}")), &Keyring::default()).await.unwrap();
        assert_eq!(pulled.digest.to_string(), digest);
        for (layer, form) in pulled.layers.iter().zip(["plain", "gzip", "zstd"]) {
            assert!(layer.join(format!("{tag}-{form}")).is_file(), "{tag} {form}");
        }
        let by_digest = name(&format!("app@{digest}"));
        assert_eq!(store.lookup(&by_digest), Some(pulled), "also known by its digest");
    }
    assert_eq!((count(dir.path(), "partial"), count(dir.path(), "tmp")), (0, 0));
}

#[tokio::test]
async fn an_index_gives_what_fits_this_machine() {
    let registry = Distribution::start(&Options::default());
    let put = |file: &str| registry.put("multi", file, &OCI, &[(layer(file), gzip(&layer(file)))]);
    let (ours, other) = (put("ours"), put("other"));
    let architecture = Contents::of(vec![]).architecture;
    let platform = |architecture: &str| json!({"os": "linux", "architecture": architecture});
    let attestation = json!({"os": "unknown", "architecture": "unknown"});
    for family in [&OCI, &DOCKER] {
        registry.put_index(
            "multi",
            "all",
            family,
            &[
                (attestation.clone(), other.clone()),
                (platform("s390x"), other.clone()),
                (json!({"os": "windows", "architecture": architecture}), other.clone()),
                (platform(&architecture), ours.clone()),
            ],
        );
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), &format!("http://{}", registry.address));
        let pulled = store.pull(&name("multi:all"), &Keyring::default()).await.unwrap();
        assert!(pulled.layers[0].join("ours").is_file());
        let none = [(platform("s390x"), other.clone()), (attestation.clone(), other.clone())];
        registry.put_index("multi", "none", family, &none);
        let error = store.pull(&name("multi:none"), &Keyring::default()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("only linux/s390x") && !text.contains("unknown"), "{text}");
    }
}

#[tokio::test]
async fn users_are_let_in_by_pull_secret_or_by_the_nodes_file() {
    let registry = Distribution::start(&Options { users: true, tls: None });
    registry.put("app", "1", &DOCKER, &[(layer("a"), gzip(&layer("a")))]);
    let url = format!("http://{}", registry.address);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &url);
    let error = store.pull(&name("app:1"), &Keyring::default()).await.unwrap_err();
    assert!(matches!(error, PullError::Denied { user: None, .. }), "{error}");
    let keyring = |password: &str| {
        let mut keyring = Keyring::default();
        let auths = json!({"auths": {HOST: {"username": "u", "password": password}}});
        keyring.add_docker_config(auths.to_string().as_bytes()).unwrap();
        keyring
    };
    let error = store.pull(&name("app:1"), &keyring("wrong")).await.unwrap_err();
    assert!(matches!(error, PullError::Denied { user: Some(_), .. }), "{error}");
    store.pull(&name("app:1"), &keyring("secret")).await.unwrap();

    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("registries.yaml");
    let with_file = RegistryConfig::default().with_file(file.clone());
    let store = ImageStore::open(other.path().join("store"), with_file).unwrap();
    fs::write(&file, format!("mirrors: {{{HOST}: {{endpoint: ['{url}']}}}}")).unwrap();
    // A mirror is not shown what is meant for the registry.
    let error = store.pull(&name("app:1"), &keyring("secret")).await.unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
    let auth = format!(
        "mirrors: {{{HOST}: {{endpoint: ['http://127.0.0.1:1', '{url}']}}}}\n\
         configs: {{'{}': {{auth: {{username: u, password: secret}}}}}}",
        registry.address
    );
    fs::write(&file, auth).unwrap();
    store.pull(&name("app:1"), &Keyring::default()).await.unwrap();
}

#[tokio::test]
async fn tls_is_verified_unless_it_is_told_not_to_be() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.pem();
    let tls = Some((certificate.clone(), made.signing_key.serialize_pem()));
    let registry = Distribution::start(&Options { users: false, tls });
    registry.put("app", "1", &OCI, &[(layer("a"), gzip(&layer("a")))]);
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, certificate).unwrap();
    let file = dir.path().join("registries.yaml");
    let app: ImageRef = format!("{}/app:1", registry.address).parse().unwrap();
    let pull = |tls: Option<String>| {
        let settings =
            tls.map(|tls| format!("configs: {{'{}': {{tls: {tls}}}}}", registry.address));
        fs::write(&file, settings.unwrap_or_default()).unwrap();
        let store = tempfile::tempdir().unwrap();
        let registries = RegistryConfig::default().with_file(file.clone());
        let app = app.clone();
        async move {
            let opened = ImageStore::open(store.path(), registries).unwrap();
            opened.pull(&app, &Keyring::default()).await
        }
    };
    let error = pull(None).await.unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
    assert!(error.hint().contains("registries.yaml"));
    pull(Some(format!("{{ca_file: '{}'}}", ca.display()))).await.unwrap();
    pull(Some("{insecure_skip_verify: true}".to_owned())).await.unwrap();
    let error = pull(Some("{ca_file: /nowhere/ca.pem}".to_owned())).await.unwrap_err();
    assert!(matches!(error, PullError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn a_link_that_breaks_again_and_again_carries_each_byte_once() {
    let registry = Distribution::start(&Options::default());
    let proxy = Proxy::start(registry.address).await;
    let archive = large(2 << 20);
    let size = archive.len() as u64;
    registry.put("app", "1", &OCI, &[(archive.clone(), archive)]);
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &format!("http://{}", proxy.address));
    proxy.state.cut_after.store(300_000, Ordering::SeqCst);
    store.pull(&name("app:1"), &Keyring::default()).await.unwrap();
    let cuts = proxy.state.cuts.load(Ordering::SeqCst);
    assert!(cuts >= size / 400_000, "only {cuts} breaks");
    // What was on its way when it broke is lost with the connection, and comes again.
    let carried = proxy.state.carried.load(Ordering::SeqCst);
    assert!(carried < size + cuts * 40_000 + 20_000, "{carried} bytes for {size}");
}

#[tokio::test]
async fn a_transfer_goes_on_after_a_restart() {
    let registry = Distribution::start(&Options::default());
    let proxy = Proxy::start(registry.address).await;
    let archive = large(3 << 20);
    let (size, digest) = (archive.len() as u64, digest_of(&archive));
    registry.put("app", "1", &OCI, &[(archive.clone(), archive)]);
    let dir = tempfile::tempdir().unwrap();
    let partial = dir.path().join("partial").join(digest.strip_prefix("sha256:").unwrap());
    let url = format!("http://{}", proxy.address);
    let break_off = async || {
        proxy.state.dies.store(true, Ordering::SeqCst);
        proxy.state.cut_after.store(1_000_000, Ordering::SeqCst);
        let store = store(dir.path(), &url);
        let pull =
            tokio::spawn(async move { store.pull(&name("app:1"), &Keyring::default()).await });
        proxy.state.cut.notified().await;
        // The agent ends in the midst of it.
        while fs::metadata(&partial).map_or(0, |it| it.len()) < 500_000 {
            tokio::task::yield_now().await;
        }
        pull.abort();
        assert!(pull.await.unwrap_err().is_cancelled());
        proxy.heal();
        fs::metadata(&partial).unwrap().len()
    };
    let kept = break_off().await;
    store(dir.path(), &url).pull(&name("app:1"), &Keyring::default()).await.unwrap();
    let carried = proxy.state.carried.load(Ordering::SeqCst);
    assert!(carried < size - kept + 20_000, "{carried} bytes for {size} of which {kept} were here");
    assert!(!partial.exists());

    // What a power cut tore is found out by the digest, and comes anew.
    store(dir.path(), &url).remove(&name("app:1")).unwrap();
    fs::remove_dir_all(dir.path().join("layers")).unwrap();
    break_off().await;
    let mut torn = fs::read(&partial).unwrap();
    torn[1000..5000].fill(0);
    fs::write(&partial, torn).unwrap();
    let pulled = store(dir.path(), &url).pull(&name("app:1"), &Keyring::default()).await.unwrap();
    assert_eq!(fs::read(pulled.layers[0].join("noise")).unwrap(), noise(3 << 20));
}

#[tokio::test]
async fn a_damaged_layer_is_refused_and_nothing_of_it_stays() {
    let registry = Distribution::start(&Options::default());
    let (good, bad) = (layer("good"), layer("bad"));
    let blob = gzip(&bad);
    registry.put("app", "1", &OCI, &[(good.clone(), gzip(&good)), (bad, blob.clone())]);
    let path = registry.blob_path(&digest_of(&blob));
    let mut damaged = blob.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &format!("http://{}", registry.address));
    let error = store.pull(&name("app:1"), &Keyring::default()).await.unwrap_err();
    let PullError::Corrupted { wanted, got, .. } = &error else { panic!("{error}") };
    assert_eq!((wanted.to_string(), got.to_string()), (digest_of(&blob), digest_of(&damaged)));
    let left = ["layers", "partial", "tmp", "images"].map(|name| count(dir.path(), name));
    assert_eq!(left, [1, 0, 0, 0], "the good layer stays");
    fs::write(&path, &blob).unwrap();
    store.pull(&name("app:1"), &Keyring::default()).await.unwrap();
}

#[tokio::test]
async fn two_images_transfer_the_layer_they_share_once() {
    let registry = Distribution::start(&Options::default());
    let proxy = Proxy::start(registry.address).await;
    let shared = large(1 << 20);
    for app in ["a", "b"] {
        let own = layer(app);
        registry.put(
            app,
            "1",
            &OCI,
            &[(shared.clone(), shared.clone()), (own.clone(), gzip(&own))],
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(store(dir.path(), &format!("http://{}", proxy.address)));
    let (a, b, none) = (name("a:1"), name("b:1"), Keyring::default());
    let (first, second) = tokio::join!(store.pull(&a, &none), store.pull(&b, &none));
    assert_eq!(first.unwrap().layers[0], second.unwrap().layers[0]);
    let carried = proxy.state.carried.load(Ordering::SeqCst);
    assert!(carried < shared.len() as u64 + 40_000, "{carried}");
}
