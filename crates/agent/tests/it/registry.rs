//! A registry that holds one image, made on the spot of the machine's static busybox.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use toono_http::{Body, Handler, server};
use toono_images::Digest;

const BUSYBOX: &str = "/bin/busybox";
/// What containers of tests call it by.
const APPLETS: [&str; 13] = [
    "sh", "sleep", "cat", "env", "echo", "ip", "wget", "kill", "dd", "seq", "sed", "usleep",
    "touch",
];
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The registry's name in pods; the node knows its address.
pub const HOST: &str = "images.test";

/// Serves `images.test/busybox:1` until the test ends.
pub async fn serve() -> SocketAddr {
    serve_to(None).await
}

/// As [`serve`], to those only who show this in the header `Authorization`.
pub async fn serve_to(who: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let content = Arc::new(content());
    let handler: Handler = Arc::new(move |request| {
        let shown = request.headers().get(header::AUTHORIZATION);
        let response = if who.is_none_or(|who| shown.is_some_and(|shown| shown == who)) {
            answer(&content, &request)
        } else {
            let refusal = Response::builder().status(StatusCode::UNAUTHORIZED);
            let refusal = refusal.header(header::WWW_AUTHENTICATE, "Basic realm=\"test\"");
            refusal.body(toono_http::empty()).unwrap()
        };
        async move { response }.boxed()
    });
    tokio::spawn(server::serve(
        listener,
        None,
        handler,
        server::Limits::default(),
        std::future::pending(),
    ));
    address
}

/// The same image as `docker save` writes it.
pub fn archive(name: &str) -> Vec<u8> {
    let layer = layer();
    let config = serde_json::to_vec(&config(&layer)).unwrap();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    let files = [
        ("layer.tar", &layer[..]),
        ("config.json", &config),
        ("manifest.json", manifest.as_bytes()),
    ];
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn config(layer: &[u8]) -> Value {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    json!({
        "architecture": architecture, "os": "linux",
        "config": {"Env": ["FROM=image"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer).to_string()]},
    })
}

fn answer(content: &BTreeMap<String, Bytes>, request: &Request<Body>) -> Response<Body> {
    let path = request.uri().path();
    let builder = Response::builder();
    match content.get(path) {
        Some(bytes) => {
            let kind =
                if path.contains("/manifests/") { MANIFEST } else { "application/octet-stream" };
            builder.header(header::CONTENT_TYPE, kind).body(toono_http::full(bytes.clone()))
        }
        None => builder.status(StatusCode::NOT_FOUND).body(toono_http::empty()),
    }
    .unwrap()
}

fn content() -> BTreeMap<String, Bytes> {
    let mut content = BTreeMap::new();
    let mut blob = |bytes: Vec<u8>, kind: &str| -> Value {
        let digest = Digest::of(&bytes).to_string();
        let size = bytes.len();
        content.insert(format!("/v2/busybox/blobs/{digest}"), bytes.into());
        json!({"mediaType": kind, "digest": digest, "size": size})
    };
    let layer = layer();
    let config = config(&layer);
    let layer = blob(layer, "application/vnd.oci.image.layer.v1.tar");
    let config =
        blob(serde_json::to_vec(&config).unwrap(), "application/vnd.oci.image.config.v1+json");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let digest = Digest::of(&manifest).to_string();
    for reference in ["1", &digest] {
        content.insert(format!("/v2/busybox/manifests/{reference}"), manifest.clone());
    }
    content
}

fn layer() -> Vec<u8> {
    let busybox = std::fs::read(BUSYBOX).expect("busybox is missing: install busybox-static");
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    let mut program = header(tar::EntryType::Regular, 0o755, busybox.len() as u64);
    archive.append_data(&mut program, "bin/busybox", busybox.as_slice()).unwrap();
    for applet in APPLETS {
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut link, format!("bin/{applet}"), "busybox").unwrap();
    }
    archive.into_inner().unwrap()
}
