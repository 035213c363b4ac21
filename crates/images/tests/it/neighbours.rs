//! Stores that get layers from each other, over HTTP, before they ask a real registry: what crosses the link to it,
//! and what neighbours that die, lie or fall silent cost.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream::try_unfold};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use toono_http::{
    Body, Handler,
    client::{Connection, Endpoint},
    server::Limits,
};
use toono_images::{Answer, BlobReader, Digest, Found, ImageStore, Keyring, Neighbours, NotServed};

use crate::{
    distribution::{Distribution, OCI, Options},
    proxy::Proxy,
    real::{count, large, name, store},
    registry::digest_of,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The neighbourhood: who is where, and who has what.
#[derive(Debug, Default)]
struct Site {
    addresses: Mutex<BTreeMap<String, SocketAddr>>,
    has: Mutex<BTreeMap<Digest, Vec<String>>>,
    liars: Mutex<Vec<String>>,
}

/// One store's view of it.
#[derive(Debug)]
struct Seat {
    site: Arc<Site>,
    name: String,
}

impl Neighbours for Seat {
    fn find<'a>(&'a self, blob: &'a Digest, failed: &'a [String]) -> Answer<'a, Found> {
        let mut has = self.site.has.lock().unwrap();
        let here = has.entry(blob.clone()).or_default();
        let others = here.iter().filter(|it| **it != self.name && !failed.contains(it));
        let from: Vec<String> = others.cloned().collect();
        let keep = from.is_empty();
        if keep && !here.contains(&self.name) {
            here.push(self.name.clone());
        }
        Box::pin(std::future::ready(Found { from, keep }))
    }

    fn open<'a>(
        &'a self,
        neighbour: &'a str,
        blob: &'a Digest,
        offset: u64,
    ) -> Answer<'a, Result<Body, NotServed>> {
        let address = self.site.addresses.lock().unwrap().get(neighbour).copied();
        Box::pin(async move {
            let failed = |reason: &dyn std::fmt::Display| NotServed::Failed(reason.to_string());
            let address = address.ok_or_else(|| failed(&"it is nowhere"))?;
            let (host, port) = (address.ip().to_string(), address.port());
            let endpoint = Endpoint { tls: false, host, port };
            let open = Connection::connect_plain(&endpoint).await;
            let mut connection = open.map_err(|error| failed(&error))?;
            let target = format!("/{blob}/{offset}/{}", self.name);
            let request = Request::get(target).body(toono_http::empty()).unwrap();
            let response = connection.send(request).await.map_err(|error| failed(&error))?;
            match response.status() {
                StatusCode::OK => {
                    // The connection is to live as long as the body.
                    let body = response.into_body().into_data_stream();
                    let body = body.map(move |chunk| {
                        let _open = &connection;
                        chunk
                    });
                    Ok(toono_http::stream(body))
                }
                status => Err(failed(&status)),
            }
        })
    }

    fn settled(&self, blob: &Digest, is_here: bool) {
        if !is_here {
            let mut has = self.site.has.lock().unwrap();
            has.entry(blob.clone()).or_default().retain(|it| *it != self.name);
        }
    }

    fn lied(&self, neighbour: &str) {
        self.site.liars.lock().unwrap().push(neighbour.to_owned());
    }
}

impl Site {
    /// A store of this name, which serves the others.
    async fn join(self: &Arc<Self>, name: &str, dir: &Path, registry: SocketAddr) -> ImageStore {
        let store = store(dir, &format!("http://{registry}"));
        store.ask(Arc::new(Seat { site: self.clone(), name: name.to_owned() }));
        let serving = store.clone();
        self.serve(
            name,
            Arc::new(move |request| {
                let store = serving.clone();
                Box::pin(async move { answer(&store, request.uri().path()).await })
            }),
        )
        .await;
        store
    }

    async fn serve(&self, name: &str, handler: Handler) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.addresses.lock().unwrap().insert(name.to_owned(), address);
        let until = std::future::pending();
        tokio::spawn(toono_http::server::serve(listener, None, handler, Limits::default(), until));
    }

    /// Has others believe that a blob is there.
    fn claim(&self, name: &str, blob: &str) {
        let blob: Digest = blob.parse().unwrap();
        self.has.lock().unwrap().entry(blob).or_default().push(name.to_owned());
    }
}

async fn answer(store: &ImageStore, path: &str) -> Response<Body> {
    let parts: Vec<&str> = path.split('/').collect();
    let (blob, offset) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
    let Some(reader) = store.blob(&blob, offset, parts[3]).await.unwrap() else {
        let mut response = Response::new(toono_http::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let next = |mut reader: BlobReader| async move {
        Ok::<_, std::io::Error>(reader.next().await?.map(|chunk| (chunk, reader)))
    };
    Response::new(toono_http::stream(try_unfold(reader, next)))
}

#[tokio::test]
async fn a_layer_crosses_the_link_once_for_all_who_pull_at_the_same_time() {
    let registry = Distribution::start(&Options::default());
    let link = Proxy::start(registry.address).await;
    let archives = [large(2 << 20), large(3 << 20)];
    let size: u64 = archives.iter().map(|it| it.len() as u64).sum();
    registry.put("app", "1", &OCI, &archives.map(|archive| (archive.clone(), archive)));
    let site = Arc::new(Site::default());
    let dirs: Vec<_> = (0..6).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut stores = Vec::new();
    for (number, dir) in dirs.iter().enumerate() {
        stores.push(site.join(&format!("node-{number}"), dir.path(), link.address).await);
    }
    let (image, none) = (name("app:1"), Keyring::default());
    let pulled = join_all(stores.iter().map(|store| store.pull(&image, &none))).await;
    let pulled: Vec<_> = pulled.into_iter().map(Result::unwrap).collect();
    assert!(pulled.iter().all(|it| it.layers.len() == 2 && it.digest == pulled[0].digest));
    let carried = link.state.carried.load(Ordering::SeqCst);
    assert!(carried < size + (256 << 10), "{carried} bytes for {size}");
    let kept: usize = stores.iter().map(|store| store.kept_blobs().unwrap().len()).sum();
    assert_eq!(kept, 2, "one copy of each");
    assert!(dirs.iter().all(|dir| count(dir.path(), "partial") == 0));

    // Who comes later gets it too, and what is kept goes when the disk needs it.
    let late = tempfile::tempdir().unwrap();
    site.join("late", late.path(), link.address).await.pull(&image, &none).await.unwrap();
    let later = link.state.carried.load(Ordering::SeqCst) - carried;
    assert!(later < 64 << 10, "{later} bytes");
    for store in &stores {
        store.prune(&std::collections::BTreeSet::new(), Duration::from_secs(3600)).unwrap();
    }
    let kept = |stores: &[ImageStore]| -> usize {
        stores.iter().map(|store| store.kept_blobs().unwrap().len()).sum()
    };
    assert_eq!(kept(&stores), 2);
    for store in &stores {
        store.prune(&std::collections::BTreeSet::new(), Duration::ZERO).unwrap();
    }
    assert_eq!(kept(&stores), 0);
}

#[tokio::test]
async fn who_gets_a_layer_dies_and_only_the_rest_crosses_the_link_again() {
    let registry = Distribution::start(&Options::default());
    let (first, second) =
        (Proxy::start(registry.address).await, Proxy::start(registry.address).await);
    let archive = large(4 << 20);
    let size = archive.len() as u64;
    let hex = digest_of(&archive).strip_prefix("sha256:").unwrap().to_owned();
    registry.put("app", "1", &OCI, &[(archive.clone(), archive)]);
    let site = Arc::new(Site::default());
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The first one's link carries nothing after so many bytes.
    first.state.dies.store(true, Ordering::SeqCst);
    first.state.cut_after.store(2_000_000, Ordering::SeqCst);
    let fetches = site.join("one", one.path(), first.address).await;
    let fetching =
        tokio::spawn(async move { fetches.pull(&name("app:1"), &Keyring::default()).await });
    first.state.cut.notified().await;
    let waits = site.join("two", two.path(), second.address).await;
    let waiting =
        tokio::spawn(async move { waits.pull(&name("app:1"), &Keyring::default()).await });
    let partial = two.path().join("partial").join(hex);
    tokio::time::timeout(PATIENCE, async {
        while std::fs::metadata(&partial).map_or(0, |it| it.len()) < 1_500_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("what has arrived is handed on");
    fetching.abort();
    assert!(fetching.await.unwrap_err().is_cancelled());
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    let carried = second.state.carried.load(Ordering::SeqCst);
    assert!(carried < size - 1_500_000 + (64 << 10), "{carried} bytes of {size}");
    assert_eq!(*site.liars.lock().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_neighbour_that_lies_costs_a_transfer_and_no_pull() {
    let registry = Distribution::start(&Options::default());
    let archive = large(1 << 20);
    let (digest, size) = (digest_of(&archive), archive.len());
    registry.put("app", "1", &OCI, &[(archive.clone(), archive)]);
    let site = Arc::new(Site::default());
    for (liar, length) in [("wrong", size), ("long", size + 1)] {
        site.claim(liar, &digest);
        let lie: Handler = Arc::new(move |_| {
            Box::pin(async move { Response::new(toono_http::full(vec![7; length])) })
        });
        site.serve(liar, lie).await;
    }
    site.claim("absent", &digest);
    let dir = tempfile::tempdir().unwrap();
    let store = site.join("node", dir.path(), registry.address).await;
    let pulled = store.pull(&name("app:1"), &Keyring::default()).await.unwrap();
    assert!(pulled.layers[0].join("noise").is_file());
    let mut liars = site.liars.lock().unwrap().clone();
    liars.sort();
    liars.dedup();
    assert!(liars.contains(&"wrong".to_owned()), "{liars:?}");
    assert_eq!(store.kept_blobs().unwrap().len(), 1, "it is who has it now");
}

#[tokio::test]
async fn a_neighbour_that_falls_silent_is_left_for_the_registry() {
    let registry = Distribution::start(&Options::default());
    let archive = large(1 << 20);
    let (digest, half) = (digest_of(&archive), archive[..archive.len() / 2].to_vec());
    registry.put("app", "1", &OCI, &[(archive.clone(), archive)]);
    let site = Arc::new(Site::default());
    site.claim("silent", &digest);
    // It sends the half, then nothing; and the next time it does not have it.
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let silent: Handler = Arc::new(move |_| {
        let (half, again) = (half.clone(), asked.fetch_add(1, Ordering::SeqCst) > 0);
        Box::pin(async move {
            let mut response = Response::new(toono_http::empty());
            if again {
                *response.status_mut() = StatusCode::NOT_FOUND;
            } else {
                let first = futures::stream::iter([Ok::<_, std::io::Error>(half.into())]);
                *response.body_mut() = toono_http::stream(first.chain(futures::stream::pending()));
            }
            response
        })
    });
    site.serve("silent", silent).await;
    let link = Proxy::start(registry.address).await;
    let dir = tempfile::tempdir().unwrap();
    let store = site.join("node", dir.path(), link.address).await;
    let (image, none) = (name("app:1"), Keyring::default());
    tokio::time::timeout(PATIENCE, store.pull(&image, &none)).await.unwrap().unwrap();
    let carried = link.state.carried.load(Ordering::SeqCst);
    assert!(carried < (1 << 20) / 2 + (64 << 10), "{carried} bytes: what came is used");
    assert_eq!(*site.liars.lock().unwrap(), Vec::<String>::new());
}
