//! Whole requests: to a server with some objects, and bytes of HTTP/1 and HTTP/2 on its port.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body as ClientBody;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use toono_api::UserInfo;
use toono_apiserver::{ApiConfig, ApiServer, LinkError, NodeLink};
use toono_http::{Body, server::Limits};
use toono_store::{Store, StoreConfig};

use super::{BODY, joined};
use crate::{Decode, Grammar, Target};

/// Longest input on a connection: some windows of HTTP/2.
const HTTP_BYTES: usize = 1024 * 1024;
/// A connection that says nothing more is left.
const SILENCE: Duration = Duration::from_secs(5);

pub(super) const REQUEST: Target = Target {
    name: "request",
    grammar: Grammar::Request,
    tokens: &[
        "GET ",
        "POST ",
        "PUT ",
        "PATCH ",
        "DELETE ",
        "/api/v1/namespaces/default/pods",
        "/pods/a",
        "/log",
        "/exec",
        "/portforward",
        "/proxy/",
        "/scale",
        "/status",
        "/binding",
        "/eviction",
        "/token",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/example.org/v1/namespaces/default/widgets",
        "/apis/authentication.k8s.io/v1/tokenreviews",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        "?",
        "&",
        "=",
        "%",
        "%2C",
        "%00",
        "%ff",
        "limit=1",
        "continue=",
        "labelSelector=",
        "fieldSelector=",
        "resourceVersion=",
        "resourceVersionMatch=Exact",
        "fieldManager=a",
        "force=true",
        "fieldValidation=Strict",
        "propagationPolicy=Orphan",
        "gracePeriodSeconds=",
        "command=",
        "stdin=true",
        "ports=",
        "tailLines=",
        "sinceTime=",
        "watch=1",
        "sendInitialEvents=true",
        "timeoutSeconds=1",
        "includeObject=Object",
        "content-type: application/json",
        "content-type: application/json-patch+json",
        "content-type: application/merge-patch+json",
        "content-type: application/strategic-merge-patch+json",
        "content-type: application/apply-patch+yaml",
        "content-type: application/yaml",
        "content-type: application/vnd.kubernetes.protobuf",
        "accept: application/json;as=Table;v=v1;g=meta.k8s.io",
        "accept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        "accept-encoding: gzip",
        "impersonate-user: a",
        "impersonate-group: b",
        "impersonate-extra-x: y",
        "upgrade: SPDY/3.1",
        "connection: upgrade",
        "x-stream-protocol-version: v4.channel.k8s.io",
        "upgrade: websocket",
        "sec-websocket-protocol: v5.channel.k8s.io",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "\n",
        ": ",
        "metadata",
        "spec",
        "apiVersion",
        "kind",
        "name",
        "spec",
        "rules",
        "&a [*a,*a]",
        "? ",
        "- ",
        "|\n",
        "*a",
    ],
    max_bytes: BODY,
    // YAML takes ten times as long to read as JSON.
    giant_per_mib: Duration::from_millis(130),
    start: requests,
    giants: |bytes| {
        let ask = |head: &str, body: String| format!("{head}\n\n{body}").into_bytes();
        let map = |text: String| {
            format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"m"}},"data":{{{text}}}}}"#
            )
        };
        let recorded = |count: usize, operation: &str| {
            let entries = joined(count, ",", |at| {
                format!(
                    r#"{{"manager":"m{at}","operation":"{operation}","apiVersion":"v1","time":"2024-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:data":{{"f:k{at}":{{}}}}}}}}"#
                )
            });
            format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"m","managedFields":[{entries}]}},"data":{{{}}}}}"#,
                joined(count, ",", |at| format!(r#""k{at}":"v""#))
            )
        };
        let pod = |containers: String| {
            format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a"}},"spec":{{"containers":[{containers}]}}}}"#
            )
        };
        let maps = "POST /api/v1/namespaces/default/configmaps";
        let yaml = "\ncontent-type: application/yaml";
        let patch = "PATCH /api/v1/namespaces/default/configmaps/a?fieldManager=f\ncontent-type: application/apply-patch+yaml";
        let head = |text: &str| text.to_owned() + yaml;
        let values = joined(bytes / 60, ",", |at| format!("\"k{at}\":\"v\""));
        let lines = joined(bytes / 20, "\n", |at| format!("  k{at}: v"));
        vec![
            ask(maps, map(values.clone())),
            ask(maps, map(format!("\"a\":\"{}\"", "x".repeat(bytes / 2)))),
            ask(patch, map(values)),
            // One key again and again, text with escapes, records of many managers, and mistakes.
            ask(maps, map(joined(bytes / 9, ",", |_| "\"k\":\"v\"".to_owned()))),
            ask(maps, map(format!("\"a\":\"{}\"", "\\u0041".repeat(bytes / 7)))),
            ask(maps, recorded(bytes / 240, "Update")),
            ask(maps, recorded(bytes / 240, "Apply")),
            ask("POST /api/v1/namespaces/default/pods", pod(vec!["{}"; bytes / 4].join(","))),
            ask(
                "POST /api/v1/namespaces/default/pods",
                pod(vec!["{}"; bytes.min(180_000) / 3].join(",")),
            ),
            ask(
                &head(maps),
                format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata:\n{lines}\n"),
            ),
            ask(&head(maps), "- ".repeat(bytes / 3)),
            ask(&head(maps), "a:\n ".repeat(bytes / 5)),
            ask(&head(maps), "&a ".repeat(bytes / 4)),
            ask(&head(maps), "? ".repeat(bytes / 3)),
            ask(&head(maps), "\"\\x41\"".repeat(bytes / 7)),
            ask(maps, "[".repeat(bytes / 2)),
            ask(maps, format!("{{\"a\":{}}}", "[1],".repeat(bytes / 5))),
            ask(
                &format!(
                    "GET /api/v1/pods?labelSelector={}",
                    joined(bytes.min(60_000) / 8, ",", |at| format!("!k{at}"))
                ),
                String::new(),
            ),
            ask(
                &format!("GET /api/v1/pods?continue={}", "A".repeat(bytes.min(60_000))),
                String::new(),
            ),
            ask(
                &format!("GET /api/v1/pods?{}", "a=b&".repeat(bytes.min(60_000) / 4)),
                String::new(),
            ),
        ]
    },
};

/// No node is there.
struct NoNodes;

impl NodeLink for NoNodes {
    fn send(
        &self,
        node: &str,
        _request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, LinkError>> {
        let node = node.to_owned();
        async move { Err(LinkError::Unknown { node }) }.boxed()
    }
}

/// A server in this thread, with one object of some kinds; no request changes it for good.
struct Server {
    client: kube::Client,
    runtime: Runtime,
    _dir: TempDir,
}

impl Server {
    fn start() -> Option<Self> {
        let dir = TempDir::new().ok()?;
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let (store, _) = Store::open(StoreConfig::new(dir.path().join("store"))).ok()?;
        let client = runtime.block_on(async {
            let api =
                ApiServer::start(store, ApiConfig::default(), Arc::new(NoNodes)).await.ok()?;
            Some(api.client(UserInfo::component("system:fuzz")))
        })?;
        let server = Self { client, runtime, _dir: dir };
        for (path, object) in objects() {
            let body = object.to_string().into_bytes();
            let request = Request::builder().method("POST").uri(path).body(ClientBody::from(body));
            let code = server.send(request.ok()?);
            // Some are there from the start.
            assert!(matches!(code, Some(201 | 409)), "{path}: {code:?}");
        }
        Some(server)
    }

    fn send(&self, request: Request<ClientBody>) -> Option<u16> {
        let client = self.client.clone();
        self.runtime.block_on(async move {
            let query = request.uri().query().unwrap_or_default();
            // What never ends by itself.
            let endless = query.contains("watch") || query.contains("follow");
            let sent = tokio::time::timeout(SILENCE, client.send(request)).await;
            let response = sent.ok()?.ok()?;
            let code = response.status().as_u16();
            if !endless {
                let _ = tokio::time::timeout(SILENCE, response.into_body().collect()).await;
            }
            Some(code)
        })
    }
}

fn objects() -> Vec<(&'static str, Value)> {
    let meta = |name: &str| json!({"name": name, "labels": {"a": "b"}});
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "color": {"type": "string", "pattern": "^[a-z]*$", "default": "red"},
        "replicas": {"type": "integer", "maximum": 9},
        "ports": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port"], "items": {"type": "object", "required": ["port"],
                "properties": {"port": {"type": "integer"}}}}},
        "x-kubernetes-validations": [{"rule": "!has(self.ports) || self.ports.all(p, p.port > 0)"}]}}});
    vec![
        ("/api/v1/namespaces", json!({"metadata": {"name": "default"}})),
        ("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": meta("default")})),
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": meta("a"), "data": {"k": "v"}}),
        ),
        (
            "/api/v1/namespaces/default/pods",
            json!({"metadata": meta("a"), "spec": template.get("spec")}),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": meta("a"),
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({
            "metadata": {"name": "widgets.example.org"},
            "spec": {"group": "example.org", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas"}},
                    "schema": {"openAPIV3Schema": schema}}]}}),
        ),
    ]
}

fn requests() -> Decode {
    let server = Server::start();
    assert!(server.is_some(), "a server for requests");
    Box::new(move |input| {
        if let (Some(server), Some(request)) = (&server, request(input)) {
            server.send(request);
        }
    })
}

/// A request that changes nothing: all that write are dry.
fn request(input: &[u8]) -> Option<Request<ClientBody>> {
    let end = input.windows(2).position(|pair| pair == b"\n\n").unwrap_or(input.len());
    let (head, body) = input.split_at(end);
    let mut lines = std::str::from_utf8(head).ok()?.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut uri = path.to_owned();
    if method != "GET" {
        // Where it is named twice the first counts.
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        uri = format!("{path}?dryRun=All&{query}");
    }
    let mut request = Request::builder().method(method).uri(uri);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        request = request.header(name, value);
    }
    request.body(ClientBody::from(body.get(2..).unwrap_or_default().to_vec())).ok()
}

pub(super) const HTTP: Target = Target {
    name: "http",
    grammar: Grammar::Bytes,
    tokens: &[
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n",
        "\r\n\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\n",
        "Expect: 100-continue\r\n",
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n",
        "0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "\0\0\0\u{4}\0\0\0\0\0",
        "\0\0\0\u{4}\u{1}\0\0\0\0",
        "\0\0\u{8}\u{6}\0\0\0\0\0aaaaaaaa",
        "\0\0\u{4}\u{8}\0\0\0\0\0\0\0\u{1}\0",
        "\0\0\u{4}\u{3}\0\0\0\0\u{1}\0\0\0\u{8}",
        "\0\0\0\u{1}\u{5}\0\0\0\u{1}",
        "\0\0\0\u{9}\u{4}\0\0\0\u{1}",
        "@\u{1}a\u{1}b",
    ],
    max_bytes: HTTP_BYTES,
    giant_per_mib: crate::GIANT_PER_MIB,
    start: connections,
    giants: |bytes| {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let http2 =
            |frame: &[u8]| [preface.clone(), frame.repeat(bytes / frame.len().max(1))].concat();
        let head = "GET / HTTP/1.1\r\nHost: a\r\n";
        vec![
            http2(b"\0\0\0\x04\0\0\0\0\0"),
            http2(b"\0\0\x08\x06\0\0\0\0\0aaaaaaaa"),
            http2(b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10"),
            http2(b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01"),
            // A head that never ends.
            [
                http2(b""),
                b"\0\0\x03\x01\0\0\0\0\x01\x82\x86\x84".to_vec(),
                b"\0\0\x05\x09\0\0\0\0\x01@\x01a\x01b".repeat(bytes / 14),
            ]
            .concat(),
            format!("{head}{}\r\n", "a: b\r\n".repeat(bytes / 6)).into(),
            format!("{head}a: {}\r\n\r\n", "b".repeat(bytes - 64)).into(),
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(bytes / 27).into(),
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                "1\r\na\r\n".repeat(bytes / 7)
            )
            .into(),
        ]
    },
};

/// The port of a server that reads each request to its end.
fn connections() -> Decode {
    let runtime = Builder::new_current_thread().enable_all().build();
    assert!(runtime.is_ok(), "a runtime for connections");
    let address = runtime.as_ref().ok().and_then(|runtime| {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).ok()?;
        let address = listener.local_addr().ok()?;
        let handler: toono_http::Handler = Arc::new(|request: Request<Body>| {
            async move {
                let _ = request.into_body().collect().await;
                Response::new(toono_http::full("read"))
            }
            .boxed()
        });
        let never = std::future::pending();
        runtime.spawn(toono_http::server::serve(listener, None, handler, Limits::default(), never));
        Some(address)
    });
    Box::new(move |input| {
        let (Ok(runtime), Some(address)) = (&runtime, address) else { return };
        let talk = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_zero_linger()?;
            let (mut from, mut to) = stream.split();
            let ask = async {
                to.write_all(input).await?;
                to.shutdown().await
            };
            let mut answer = vec![0; 64 * 1024];
            let listen = async {
                while from.read(&mut answer).await? > 0 {}
                Ok(())
            };
            // A server that closes early is heard, whatever was not sent.
            let (_, heard): (std::io::Result<()>, std::io::Result<()>) = tokio::join!(ask, listen);
            heard
        };
        let _ = runtime.block_on(async { tokio::time::timeout(SILENCE, talk).await });
    })
}
