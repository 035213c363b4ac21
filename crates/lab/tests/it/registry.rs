//! The image and its registry: what is built is what is served, piece by piece.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use toono_lab::image::{self, BUSYBOX, ImageError, ImageSpec};
use toono_lab::registry;

fn spec(root: &std::path::Path) -> ImageSpec {
    ImageSpec {
        busybox: BUSYBOX.into(),
        root: root.to_owned(),
        repository: "toono/busybox".to_owned(),
        tag: "1".to_owned(),
    }
}

struct Client(http1::SendRequest<Empty<Bytes>>);

impl Client {
    async fn send(&mut self, method: &str, path: &str, range: Option<&str>) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(path).header("host", "registry");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        self.0.ready().await.unwrap();
        let (head, body) =
            self.0.send_request(request.body(Empty::new()).unwrap()).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn get(&mut self, path: &str) -> Response<Bytes> {
        self.send("GET", path, None).await
    }
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

#[tokio::test]
async fn an_image_is_built_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let image = image::build(&spec(dir.path())).unwrap();
    assert_eq!(image.name, "toono/busybox:1");
    let other = tempfile::tempdir().unwrap();
    assert_eq!(
        image::build(&spec(other.path())).unwrap(),
        image,
        "the same input, the same digest"
    );
    assert_eq!(image::build(&spec(dir.path())).unwrap(), image, "again in the same place");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(registry::serve(listener, dir.path().to_owned(), None));
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut client = Client(sender);

    assert_eq!(client.get("/v2/").await.status(), StatusCode::OK);
    let by_tag = client.get("/v2/toono/busybox/manifests/1").await;
    assert_eq!(by_tag.status(), StatusCode::OK);
    assert_eq!(header(&by_tag, "content-type"), "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(header(&by_tag, "docker-content-digest"), image.digest);
    assert_eq!(sha256(by_tag.body()), image.digest);
    let by_digest = client.get(&format!("/v2/toono/busybox/manifests/{}", image.digest)).await;
    assert_eq!(by_digest.body(), by_tag.body());
    let head = client.send("HEAD", "/v2/toono/busybox/manifests/1", None).await;
    assert_eq!(header(&head, "content-length"), by_tag.body().len().to_string());
    assert!(head.body().is_empty());

    let manifest: Value = serde_json::from_slice(by_tag.body()).unwrap();
    for descriptor in [&manifest["config"], &manifest["layers"][0]] {
        let digest = descriptor["digest"].as_str().unwrap();
        let blob = client.get(&format!("/v2/toono/busybox/blobs/{digest}")).await;
        assert_eq!((blob.status(), sha256(blob.body()).as_str()), (StatusCode::OK, digest));
        assert_eq!(
            blob.body().len(),
            usize::try_from(descriptor["size"].as_u64().unwrap()).unwrap()
        );
    }
    parts_of_a_blob(&mut client, &manifest).await;

    for (path, code) in [
        ("/v2/toono/busybox/manifests/2", "MANIFEST_UNKNOWN"),
        ("/v2/toono/none/manifests/1", "NAME_UNKNOWN"),
        ("/v2/toono/../busybox/manifests/1", "NAME_INVALID"),
        (&format!("/v2/toono/busybox/blobs/{}", sha256(b"none")), "BLOB_UNKNOWN"),
    ] {
        let refused = client.get(path).await;
        let body: Value = serde_json::from_slice(refused.body()).unwrap();
        assert_eq!(
            (refused.status(), &body["errors"][0]["code"]),
            (StatusCode::NOT_FOUND, &Value::from(code))
        );
    }
    let put = client.send("PUT", "/v2/toono/busybox/manifests/1", None).await;
    assert_eq!(put.status(), StatusCode::METHOD_NOT_ALLOWED);
    server.abort();
}

async fn parts_of_a_blob(client: &mut Client, manifest: &Value) {
    let layer =
        format!("/v2/toono/busybox/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap());
    let whole = client.get(&layer).await.into_body();
    let rest = client.send("GET", &layer, Some("bytes=1000-")).await;
    assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(rest.body(), &whole[1000..]);
    assert_eq!(
        header(&rest, "content-range"),
        format!("bytes 1000-{}/{}", whole.len() - 1, whole.len())
    );
    let few = client.send("GET", &layer, Some("bytes=10-19")).await;
    assert_eq!(few.body(), &whole[10..20]);
    let beyond = client.send("GET", &layer, Some(&format!("bytes={}-", whole.len()))).await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[test]
fn without_busybox_there_is_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let missing = ImageSpec { busybox: dir.path().join("none"), ..spec(dir.path()) };
    let error = image::build(&missing).unwrap_err();
    assert!(matches!(error, ImageError::NoBusybox { .. }), "{error}");
    assert_eq!(error.hint(), Some("apt-get install busybox-static"));
    let dynamic = ImageSpec { busybox: "/bin/ls".into(), ..spec(dir.path()) };
    assert!(matches!(image::build(&dynamic), Err(ImageError::NotStatic { .. })));
}
