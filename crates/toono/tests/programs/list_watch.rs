//! List and watch as client-go's reflector does it, request by request: the state as a stream, its end
//! marked by a bookmark, going on there, and beginning anew when history has ended.

use std::time::Duration;

use futures::{AsyncBufReadExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::PodTemplate;
use kube::{Api, Client, ResourceExt as _, api::PostParams};
use serde_json::{Value, json};

use toono_linear::etcd_server::EtcdServer;

use crate::{informers::expire, server::Server};

const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_streams_the_state_resumes_at_its_bookmark_and_begins_anew_after_410() {
    let etcd = EtcdServer::start();
    let store = format!("etcd={}", etcd.url());
    let mut server = Server::start(&["--store", &store, "--compaction-interval", "2s"], None);
    let client = server.ready().await;
    for name in ["a", "b", "c"] {
        create(&client, name).await;
    }
    for (number, (accept, kind)) in
        [(JSON, "PodTemplate"), (TABLE, "Table"), (METADATA, "PartialObjectMetadata")]
            .into_iter()
            .enumerate()
    {
        let stream = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                      &resourceVersion=&allowWatchBookmarks=true&timeoutSeconds=20";
        let mut names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        names.extend((0..number).map(|earlier| format!("later-{earlier}")));
        let events = watch(&client, stream, accept, names.len() + 1).await;
        let (bookmark, added) = events.split_last().unwrap();
        for (event, name) in added.iter().zip(&names) {
            assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!(kind)));
            assert_eq!(metadata(event)["name"], json!(name), "{event}");
        }
        assert_eq!(bookmark["type"], "BOOKMARK", "{bookmark}");
        let marks = metadata(bookmark);
        assert_eq!(marks["annotations"]["k8s.io/initial-events-end"], "true", "{bookmark}");
        let version = marks["resourceVersion"].as_str().unwrap();
        // What was streamed is there, and only what comes after is told from here on.
        let newest = added.iter().map(|event| metadata(event)["resourceVersion"].as_str().unwrap());
        let newest: u64 = newest.map(|version| version.parse().unwrap()).max().unwrap();
        assert!(version.parse::<u64>().unwrap() >= newest, "{bookmark}");
        let name = format!("later-{number}");
        create(&client, &name).await;
        let on = format!("watch=1&resourceVersion={version}&timeoutSeconds=20");
        let events = watch(&client, &on, accept, 1).await;
        assert_eq!(
            (&events[0]["type"], &metadata(&events[0])["name"]),
            (&json!("ADDED"), &json!(name))
        );
    }
    begins_anew(&mut server, &client).await;
}

async fn begins_anew(server: &mut Server, client: &Client) {
    let old = create(client, "old").await;
    create(client, "new").await;
    expire(server, &old).await;
    for accept in [JSON, TABLE, METADATA] {
        let late = format!("watch=1&resourceVersion={old}&timeoutSeconds=20");
        let events = watch(client, &late, accept, 1).await;
        let status = &events[0]["object"];
        assert_eq!(events[0]["type"], "ERROR");
        assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")));
        assert_eq!(status["kind"], "Status");
        // client-go then lists, first whatever is at hand, and goes on from there.
        let list = ask(client, "resourceVersion=0&resourceVersionMatch=NotOlderThan", accept).await;
        let list = list.unwrap();
        let items = list["items"].as_array().or(list["rows"].as_array()).unwrap();
        assert_eq!(items.len(), 8);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap();
        let on = format!("watch=1&resourceVersion={version}&timeoutSeconds=1");
        assert_eq!(watch(client, &on, accept, usize::MAX).await, Vec::<Value>::new());
    }
    let refused = ask(client, "resourceVersion=1&resourceVersionMatch=Exact", JSON).await;
    assert_eq!(refused.unwrap_err(), (410, "Expired".to_owned()));
    let half = ask(client, "watch=1&sendInitialEvents=true", JSON).await;
    assert_eq!(half.unwrap_err(), (422, "Invalid".to_owned()));
}

async fn create(client: &Client, name: &str) -> String {
    let container = json!({"name": "one", "image": "one"});
    let object = json!({
        "metadata": {"name": name},
        "template": {"spec": {"containers": [container]}},
    });
    let object: PodTemplate = serde_json::from_value(object).unwrap();
    let templates: Api<PodTemplate> = Api::default_namespaced(client.clone());
    templates.create(&PostParams::default(), &object).await.unwrap().resource_version().unwrap()
}

fn request(query: &str, accept: &str) -> http::Request<Vec<u8>> {
    let request = http::Request::get(format!("{TEMPLATES}?{query}")).header("accept", accept);
    request.body(Vec::new()).unwrap()
}

/// The answer, or the code and reason of its refusal.
async fn ask(client: &Client, query: &str, accept: &str) -> Result<Value, (u16, String)> {
    match client.request::<Value>(request(query, accept)).await {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err((status.code, status.reason.clone())),
        Err(error) => panic!("{error}"),
    }
}

/// The first so many events, or all of a watch that ends.
async fn watch(client: &Client, query: &str, accept: &str, count: usize) -> Vec<Value> {
    let lines = client.request_stream(request(query, accept)).await.unwrap().lines();
    let events = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    tokio::time::timeout(PATIENCE, events.take(count).collect()).await.expect("no events")
}

/// The object's metadata in any of the forms.
fn metadata(event: &Value) -> &Value {
    let object = &event["object"];
    if object["kind"] == "Table" {
        &object["rows"][0]["object"]["metadata"]
    } else {
        &object["metadata"]
    }
}
