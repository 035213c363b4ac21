//! What operators rely on: long lists in bounded pieces, compression, metrics, the audit log, and an
//! end that clients do not stumble over.

use std::{io::Read, path::Path, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use toono_api::UserInfo;
use toono_apiserver::{ApiConfig, AuditConfig};

use crate::cluster::Cluster;

/// More than a list keeps in memory at once.
const MANY: usize = 1_700;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_many_maps() -> Cluster {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let create = |number: usize| {
        let maps = maps.clone();
        async move {
            let map = json!({"metadata": {"name": format!("map-{number:05}"),
                "labels": {"even": (number.is_multiple_of(2)).to_string()}}, "data": {"n": "x".repeat(200)}});
            maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap())
                .await
                .unwrap()
        }
    };
    futures::stream::iter(0..MANY).map(create).buffer_unordered(64).collect::<Vec<_>>().await;
    cluster
}

async fn ask(
    cluster: &Cluster,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, Bytes) {
    let client = cluster.api.client(UserInfo::component("system:test"));
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_long_list_is_the_same_whole_paged_compressed_or_watched() {
    let cluster = with_many_maps().await;
    let (_, headers, body) = ask(&cluster, MAPS, &[]).await;
    assert!(headers.get(header::CONTENT_ENCODING).is_none());
    let whole: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(names(&whole).len(), MANY);

    let (_, headers, body) = ask(&cluster, MAPS, &[("accept-encoding", "gzip")]).await;
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*body).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), whole);

    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let mut paged = Vec::new();
    let mut params = ListParams::default().limit(300);
    loop {
        let page = maps.list(&params).await.unwrap();
        // What is written between two pages does not show.
        if paged.is_empty() {
            let late = json!({"metadata": {"name": "zzz-late"}});
            maps.create(&PostParams::default(), &serde_json::from_value(late).unwrap())
                .await
                .unwrap();
        }
        paged.extend(page.items.into_iter().map(|map| map.metadata.name.unwrap()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(paged, names(&whole));

    let even = format!("{MAPS}?labelSelector=even%3Dtrue&limit=1000");
    let (_, _, body) = ask(&cluster, &even, &[]).await;
    let even: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(names(&even).len(), MANY / 2);
    assert!(even["metadata"].get("continue").is_none());

    let watch = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
    );
    let (_, _, body) = ask(&cluster, &watch, &[]).await;
    let events: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let added: Vec<&str> = events
        .iter()
        .filter(|event| event["type"] == "ADDED")
        .map(|event| event["object"]["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(added.len(), MANY + 1);
    assert_eq!(added[..MANY], names(&whole));
    let last = events.last().unwrap();
    assert_eq!(last["type"], "BOOKMARK");
    assert_eq!(last["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    cluster.stop().await;
}

#[tokio::test]
async fn metrics_count_what_was_asked() {
    let cluster = Cluster::start().await;
    for _ in 0..3 {
        ask(&cluster, &format!("{MAPS}/none"), &[]).await;
    }
    let (status, _, text) = ask(&cluster, "/metrics", &[]).await;
    assert_eq!(status, StatusCode::OK);
    let text = String::from_utf8(text.to_vec()).unwrap();
    let counted = text.lines().find(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"configmaps\"")
            && line.contains("code=\"404\"")
            && line.contains("verb=\"GET\"")
    });
    assert!(counted.is_some_and(|line| line.ends_with(" 3")), "{text}");
    assert!(text.contains("apiserver_request_duration_seconds_bucket"));
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(cluster.anonymous_status("/metrics").await, 403);
    cluster.stop().await;
}

fn audited(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let config = ApiConfig { audit: Some(AuditConfig::new(path.clone())), ..ApiConfig::default() };
    let cluster = Cluster::start_with(config).await;
    let program = "kubectl";
    cluster
        .kubectl(
            program,
            &["create", "secret", "generic", "door", "--from-literal=key=h1dden-w0rd"],
        )
        .await;
    let door = "/api/v1/namespaces/default/secrets/door";
    let (status, _, _) = ask(&cluster, door, &[("impersonate-user", "nobody")]).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    cluster.kubectl(program, &["get", "secret", "door", "-o", "yaml"]).await;

    let about_door = || {
        let events = audited(&path);
        events.into_iter().filter(|event| event["objectRef"]["resource"] == "secrets").collect()
    };
    let mut events: Vec<Value> = about_door();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while events.len() < 3 {
        assert!(std::time::Instant::now() < deadline, "{events:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        events = about_door();
    }
    assert_eq!(events[0]["verb"], "create");
    assert_eq!(events[0]["user"]["username"], "kubernetes-admin");
    assert_eq!(events[0]["responseStatus"]["code"], 201);
    assert!(events[0]["userAgent"].as_str().unwrap().starts_with("kubectl"));
    let refused = events.iter().find(|event| event["responseStatus"]["code"] == 403).unwrap();
    assert_eq!(refused["impersonatedUser"]["username"], "nobody");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["objectRef"]["name"], "door");
    let text = std::fs::read_to_string(&path).unwrap();
    for secret in ["h1dden-w0rd", "aDFkZGVuLXcwcmQ"] {
        assert!(!text.contains(secret));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_server_that_ends_says_so_and_lets_its_watchers_go() {
    let cluster = Cluster::start().await;
    let (status, _, body) = ask(&cluster, "/readyz?verbose", &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body, "[+]ping ok\n[+]store ok\n[+]shutdown ok\nreadyz check passed\n");
    let (status, _, _) = ask(&cluster, "/readyz/store", &[]).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _, _) = ask(&cluster, "/readyz/nothing", &[]).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let client = cluster.client();
    let request =
        Request::get(format!("{MAPS}?watch=1")).body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    cluster.api.drain();
    let rest = tokio::time::timeout(Duration::from_secs(10), response.into_body().collect()).await;
    rest.expect("the watch ends").unwrap();
    let (status, _, body) = ask(&cluster, "/readyz", &[]).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(String::from_utf8(body.to_vec()).unwrap().contains("[-]shutdown failed"));
    let (status, _, _) = ask(&cluster, "/livez", &[]).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _, _) = ask(&cluster, MAPS, &[]).await;
    assert_eq!(status, StatusCode::OK);
    cluster.stop().await;
}
