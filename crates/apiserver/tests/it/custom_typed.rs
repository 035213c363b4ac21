//! Custom kinds as programs use them with kube-rs, and what survives of them.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResource, CustomResourceExt, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::wait::{await_condition, conditions},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;
use toono_mvcc::{Draft, Expect, Key, Op, Owner, Txn};

use crate::cluster::Cluster;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "example.org",
    version = "v1",
    kind = "Sensor",
    namespaced,
    status = "SensorStatus",
    shortname = "sn",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas"),
    printcolumn(json_path = ".spec.unit", name = "Unit", type_ = "string")
)]
#[serde(rename_all = "camelCase")]
struct SensorSpec {
    /// What it measures in.
    unit: Unit,
    /// How often, in seconds.
    #[serde(default = "every_minute")]
    #[schemars(range(min = 1))]
    interval_seconds: u32,
    #[serde(default)]
    replicas: u32,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    nickname: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Unit {
    Kelvin,
    Pascal,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
struct SensorStatus {
    replicas: u32,
    last: Option<f64>,
}

fn every_minute() -> u32 {
    60
}

async fn established(cluster: &Cluster, definition: &CustomResourceDefinition) {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client());
    definitions.create(&PostParams::default(), definition).await.unwrap();
    let name = definition.name_any();
    let ready = await_condition(definitions, &name, conditions::is_crd_established());
    timeout(PATIENCE, ready).await.expect("established in time").unwrap();
}

fn sensor(name: &str) -> Sensor {
    serde_json::from_value(json!({"apiVersion": "example.org/v1", "kind": "Sensor",
        "metadata": {"name": name}, "spec": {"unit": "Kelvin"}}))
    .unwrap()
}

#[tokio::test]
async fn a_derived_kind_lives_like_a_built_in_one() {
    let cluster = Cluster::start().await;
    established(&cluster, &Sensor::crd()).await;
    let sensors: Api<Sensor> = Api::default_namespaced(cluster.client());
    let listed = sensors.list(&ListParams::default()).await.unwrap();
    let version = listed.metadata.resource_version.unwrap();
    let mut changes = sensors.watch(&WatchParams::default(), &version).await.unwrap().boxed();

    let made = sensors.create(&PostParams::default(), &sensor("a")).await.unwrap();
    assert_eq!((made.spec.interval_seconds, made.spec.replicas), (60, 0));
    assert_eq!(made.metadata.generation, Some(1));
    let refused = sensors.create(&PostParams::default(), &sensor("a")).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.reason == "AlreadyExists"));

    let patch = Patch::Merge(json!({"spec": {"nickname": "attic"}}));
    let patched = sensors.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.spec.nickname.as_deref(), Some("attic"));
    let wrong = Patch::Merge(json!({"spec": {"intervalSeconds": 0}}));
    let refused = sensors.patch("a", &PatchParams::default(), &wrong).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 422));

    let mut next = patched;
    next.status = Some(SensorStatus { replicas: 2, last: Some(293.15) });
    let told = sensors.replace_status("a", &PostParams::default(), &next).await.unwrap();
    assert_eq!(told.status, next.status);
    assert_eq!(told.metadata.generation, Some(2));
    let stale = sensors.replace("a", &PostParams::default(), &next).await;
    assert!(matches!(stale, Err(kube::Error::Api(status)) if status.reason == "Conflict"));

    let scale = Patch::Merge(json!({"spec": {"replicas": 4}}));
    let scaled = sensors.patch_scale("a", &PatchParams::default(), &scale).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(4));
    assert_eq!(scaled.status.unwrap().replicas, 2);

    let apply = Patch::Apply(json!({"apiVersion": "example.org/v1", "kind": "Sensor",
        "spec": {"unit": "Pascal", "labels": {"x": "y"}}}));
    let applied = sensors.patch("b", &PatchParams::apply("me"), &apply).await.unwrap();
    assert_eq!(applied.spec.unit, Unit::Pascal);
    let theirs = Patch::Apply(json!({"apiVersion": "example.org/v1", "kind": "Sensor",
        "spec": {"unit": "Kelvin", "labels": {"z": "w"}}}));
    let refused = sensors.patch("b", &PatchParams::apply("them"), &theirs).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 409));
    let forced = sensors.patch("b", &PatchParams::apply("them").force(), &theirs).await.unwrap();
    assert_eq!(forced.spec.labels.len(), 2);

    sensors.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert!(sensors.list(&ListParams::default()).await.unwrap().items.is_empty());
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let change = timeout(PATIENCE, changes.try_next()).await.expect("a change").unwrap();
        seen.push(match change.expect("the watch goes on") {
            WatchEvent::Added(one) => format!("+{}", one.name_any()),
            WatchEvent::Modified(one) => format!("~{}", one.name_any()),
            WatchEvent::Deleted(one) => format!("-{}", one.name_any()),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["+a", "~a", "~a", "~a", "+b", "~b", "-a", "-b"]);
    cluster.stop().await;
}

#[tokio::test]
async fn watches_of_a_kind_end_with_it() {
    let cluster = Cluster::start().await;
    established(&cluster, &Sensor::crd()).await;
    let sensors: Api<Sensor> = Api::default_namespaced(cluster.client());
    sensors.create(&PostParams::default(), &sensor("a")).await.unwrap();
    let mut changes = sensors.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client());
    definitions.delete("sensors.example.org", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while let Some(change) = timeout(PATIENCE, changes.next()).await.expect("the watch ends") {
        match change {
            Ok(WatchEvent::Added(_)) => seen.push("added"),
            Ok(WatchEvent::Deleted(_)) => seen.push("deleted"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["added", "deleted"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_definition_that_no_longer_compiles_stops_nothing() {
    let cluster = Cluster::start().await;
    established(&cluster, &Sensor::crd()).await;
    let sensors: Api<Sensor> = Api::default_namespaced(cluster.client());
    sensors.create(&PostParams::default(), &sensor("a")).await.unwrap();
    // What a server with other rules may have accepted.
    let broken = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": {"group": "example.org", "scope": "Cluster", "conversion": {"strategy": "None"},
            "names": {"plural": "odds", "singular": "odd", "kind": "Odd", "listKind": "OddList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}}}]},
        "status": {"storedVersions": ["v1"]},
    });
    let text = broken.to_string();
    let head =
        r#"{"metadata":{"name":"odds.example.org","uid":"1","generation":1,"resourceVersion":""#;
    let tail = format!("\"}},{}", text.trim_start_matches('{'));
    let key = Key::new("apiextensions.k8s.io", "customresourcedefinitions", "", "odds.example.org");
    let op = Op::Put { key, value: Draft::new(head, tail), owner: Owner::PLATFORM };
    cluster.api.store().commit(Txn::of(Expect::Absent, op)).await.unwrap();
    drop(sensors);

    let cluster = cluster.restart().await;
    let sensors: Api<Sensor> = Api::default_namespaced(cluster.client());
    assert_eq!(sensors.get("a").await.unwrap().spec.unit, Unit::Kelvin);
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let told = definitions.get("odds.example.org").await.unwrap();
    let conditions = told.status.unwrap().conditions.unwrap();
    let fault = conditions.iter().find(|one| one.type_ == "NonStructuralSchema").unwrap();
    assert!(
        fault.message.as_deref().unwrap().contains("must not be empty for specified object fields")
    );
    definitions.delete("odds.example.org", &DeleteParams::default()).await.unwrap();
    cluster.stop().await;
}
