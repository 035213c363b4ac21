//! Details of verbs that no client library asks for by itself.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use toono_api::UserInfo;

use crate::cluster::Cluster;

/// Sends a request through the in-process client; status, `Warning` headers and body.
async fn send(
    cluster: &Cluster,
    method: Method,
    path: &str,
    content_type: &str,
    body: String,
) -> (StatusCode, Vec<String>, Value) {
    let client = cluster.api.client(UserInfo::component("system:test"));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(kube::client::Body::from(body.into_bytes()))
        .unwrap();
    let response = client.send(request).await.unwrap();
    let status = response.status();
    let warnings = response
        .headers()
        .get_all("warning")
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, warnings, serde_json::from_slice(&bytes).unwrap())
}

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn unknown_fields_are_ignored_warned_of_or_refused() {
    let cluster = Cluster::start().await;
    let map = |name: &str| json!({"metadata": {"name": name}, "dta": {"a": "b"}}).to_string();
    let (status, warnings, object) = send(&cluster, Method::POST, MAPS, JSON, map("a")).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(warnings, ["299 - \"unknown field \\\"dta\\\"\""]);
    assert!(object.get("dta").is_none());
    let path = format!("{MAPS}?fieldValidation=Ignore");
    let (status, warnings, _) = send(&cluster, Method::POST, &path, JSON, map("b")).await;
    assert_eq!((status, warnings.len()), (StatusCode::CREATED, 0));
    let path = format!("{MAPS}?fieldValidation=Strict");
    let (status, _, refused) = send(&cluster, Method::POST, &path, JSON, map("c")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(refused["reason"], "BadRequest");
    cluster.stop().await;
}

#[tokio::test]
async fn fields_given_twice_are_warned_of_or_refused() {
    let cluster = Cluster::start().await;
    let map = r#"{"metadata": {"name": "a"}, "data": {"a": "1", "a": "2"}, "dta": 1}"#;
    let told = ["duplicate field \"data.a\"", "unknown field \"dta\""];
    let path = format!("{MAPS}?fieldValidation=Strict");
    let (status, _, refused) = send(&cluster, Method::POST, &path, JSON, map.to_owned()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let expected = format!("strict decoding error: {}", told.join(", "));
    assert!(refused["message"].as_str().unwrap().ends_with(&expected), "{refused}");
    let (status, warnings, object) = send(&cluster, Method::POST, MAPS, JSON, map.to_owned()).await;
    assert_eq!((status, &object["data"]["a"]), (StatusCode::CREATED, &json!("2")));
    let header = |text: &str| format!("299 - \"{}\"", text.replace('"', "\\\""));
    assert_eq!(warnings, told.map(&header));

    let yaml = "{metadata: {name: y}, data: {a: '1', a: '2'}}".to_owned();
    let (status, warnings, object) =
        send(&cluster, Method::POST, MAPS, "application/yaml", yaml).await;
    assert_eq!((status, &object["data"]["a"]), (StatusCode::CREATED, &json!("2")));
    assert_eq!(warnings, [header(told[0])]);
    // The same of a merge patch, and of a whole object.
    let path = format!("{MAPS}/a?fieldValidation=Strict");
    let patch = r#"{"data": {"b": "1", "b": "2"}}"#;
    for (method, kind, body) in [
        (Method::PATCH, "application/merge-patch+json", patch),
        (Method::PUT, JSON, r#"{"metadata": {"name": "a"}, "data": {"b": "1", "b": "2"}}"#),
    ] {
        let (status, _, refused) = send(&cluster, method, &path, kind, body.to_owned()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(refused["message"].as_str().unwrap().contains("duplicate field \"data.b\""));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn names_are_generated_and_finalizers_hold() {
    let cluster = Cluster::start().await;
    let map = json!({"metadata": {"generateName": "m-", "finalizers": ["a.b/c"]}}).to_string();
    let (status, _, object) = send(&cluster, Method::POST, MAPS, JSON, map).await;
    assert_eq!(status, StatusCode::CREATED);
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("m-") && name.len() == 7, "{name}");
    let path = format!("{MAPS}/{name}");
    let (_, _, marked) = send(&cluster, Method::DELETE, &path, JSON, String::new()).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let patch = json!([{"op": "remove", "path": "/metadata/finalizers"}]).to_string();
    let (status, _, _) =
        send(&cluster, Method::PATCH, &path, "application/json-patch+json", patch).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _, _) = send(&cluster, Method::GET, &path, JSON, String::new()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    cluster.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let cluster = Cluster::start().await;
    let future = format!("{MAPS}?watch=1&resourceVersion=999999999");
    for (method, path, content_type, body, code) in [
        (Method::POST, MAPS, JSON, "{".to_owned(), 400),
        (Method::POST, MAPS, JSON, "[]".to_owned(), 400),
        (
            Method::POST,
            MAPS,
            JSON,
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}).to_string(),
            400,
        ),
        (Method::POST, MAPS, JSON, json!({"metadata": {"name": "A_b"}}).to_string(), 422),
        (
            Method::POST,
            MAPS,
            JSON,
            json!({"metadata": {"name": "a", "namespace": "other"}}).to_string(),
            400,
        ),
        (
            Method::POST,
            MAPS,
            JSON,
            json!({"metadata": {"name": "a"}, "data": {"a": 1}}).to_string(),
            400,
        ),
        (Method::POST, MAPS, "application/vnd.kubernetes.protobuf", "k8s".to_owned(), 400),
        (Method::POST, MAPS, "application/cbor", "k8s".to_owned(), 415),
        (Method::POST, "/api/v1/configmaps", JSON, "{}".to_owned(), 405),
        (
            Method::PATCH,
            "/api/v1/namespaces/default",
            "application/apply-patch+yaml",
            "{}".to_owned(),
            422,
        ),
        (Method::PATCH, "/api/v1/namespaces/default", JSON, "{}".to_owned(), 415),
        (
            Method::PATCH,
            "/api/v1/namespaces/default",
            "application/json-patch+json",
            "[{\"op\":\"remove\",\"path\":\"/x\"}]".to_owned(),
            422,
        ),
        (Method::GET, "/api/v1/pods?labelSelector=a%20b", JSON, String::new(), 400),
        (Method::GET, "/api/v1/pods?fieldSelector=spec.x%3D1", JSON, String::new(), 400),
        (Method::GET, "/api/v1/pods?continue=zzz", JSON, String::new(), 400),
        (Method::GET, "/api/v1/pods?limit=x", JSON, String::new(), 400),
        (Method::GET, future.as_str(), JSON, String::new(), 504),
        (Method::GET, "/api/v1/unknowns", JSON, String::new(), 404),
        (Method::GET, "/apis/none/v1", JSON, String::new(), 404),
        (Method::GET, "/fleet/v1/bundle", JSON, String::new(), 404),
    ] {
        let (status, _, answer) = send(&cluster, method.clone(), path, content_type, body).await;
        assert_eq!(status.as_u16(), code, "{method} {path}: {answer}");
        assert_eq!(answer["kind"], "Status");
        assert_eq!(answer["code"], code);
    }
    let huge = "x".repeat(4 * 1024 * 1024);
    let (status, _, _) = send(&cluster, Method::POST, MAPS, JSON, huge).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    cluster.stop().await;
}

#[tokio::test]
async fn a_page_tells_how_many_objects_are_left() {
    let cluster = Cluster::start().await;
    for n in 0..7 {
        let map = json!({"metadata": {"name": format!("m{n}"), "labels": {"a": "b"}}, "data": {}});
        let (status, _, made) = send(&cluster, Method::POST, MAPS, JSON, map.to_string()).await;
        assert_eq!((status, made.get("data")), (StatusCode::CREATED, None));
    }
    let page = async |query: &str| {
        let path = format!("{MAPS}?{query}");
        send(&cluster, Method::GET, &path, JSON, String::new()).await.2["metadata"].clone()
    };
    let first = page("limit=3").await;
    assert_eq!(first["remainingItemCount"], 4);
    let next = |page: &Value| format!("limit=3&continue={}", page["continue"].as_str().unwrap());
    let second = page(&next(&first)).await;
    assert_eq!(second["remainingItemCount"], 1);
    assert_eq!(page(&next(&second)).await.get("remainingItemCount"), None);
    let selected = page("limit=3&labelSelector=a%3Db").await;
    assert!(selected.get("continue").is_some() && selected.get("remainingItemCount").is_none());
    // Patches leave nothing empty behind, either.
    let path = format!("{MAPS}/m0");
    let patch = json!({"metadata": {"labels": {"a": null}, "annotations": {}}}).to_string();
    let merge = "application/merge-patch+json";
    let (_, _, patched) = send(&cluster, Method::PATCH, &path, merge, patch).await;
    assert_eq!(
        (patched["metadata"].get("labels"), patched["metadata"].get("annotations")),
        (None, None)
    );
    let long = format!("{path}?fieldManager={}", "m".repeat(129));
    let (status, _, refused) = send(&cluster, Method::PATCH, &long, merge, "{}".to_owned()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes"
    );
    cluster.stop().await;
}
