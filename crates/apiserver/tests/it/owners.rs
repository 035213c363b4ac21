//! A request for one owner's objects: it lists, watches, reads and writes those, at the revisions that
//! everyone sees, and the others are not there for it.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;
use toono_api::UserInfo;
use toono_mvcc::{Draft, Expect, Key, Op, Owner, Txn};

use crate::cluster::Cluster;

/// Namespaces are made by the platform for their owners.
async fn namespace(cluster: &Cluster, name: &str, owner: &str) {
    let head = r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"resourceVersion":""#;
    let tail = format!(
        r#"","name":"{name}","uid":"{name}"}},"spec":{{"finalizers":["kubernetes"]}},"status":{{"phase":"Active"}}}}"#
    );
    let (key, value) = (Key::new("", "namespaces", "", name), Draft::new(head.to_owned(), tail));
    let op = Op::Put { key, value, owner: Owner::new(owner) };
    cluster.api.store().commit(Txn::of(Expect::Absent, op)).await.unwrap();
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

#[tokio::test]
async fn an_owner_sees_and_touches_only_its_own() {
    let cluster = Cluster::start().await;
    let all = cluster.client();
    for (name, owner) in [("a1", "ann"), ("a2", "ann"), ("b1", "bob")] {
        namespace(&cluster, name, owner).await;
    }
    for place in ["a1", "b1", "a2", "default"] {
        let maps: Api<ConfigMap> = Api::namespaced(all.clone(), place);
        maps.create(&PostParams::default(), &map("m")).await.unwrap();
    }
    let ann = cluster.api.client_of_owner(UserInfo::component("system:test"), Owner::new("ann"));
    let (hers, everyones): (Api<ConfigMap>, Api<ConfigMap>) =
        (Api::all(ann.clone()), Api::all(all.clone()));
    let list = hers.list(&ListParams::default()).await.unwrap();
    let places: Vec<_> = list.items.iter().map(|one| one.namespace().unwrap()).collect();
    assert_eq!(places, ["a1", "a2"]);
    let whole = everyones.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.metadata.resource_version, whole.metadata.resource_version);
    let first = hers.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(first.items[0].namespace().unwrap(), "a1");
    let token = first.metadata.continue_.clone().unwrap();
    let second = hers.list(&ListParams::default().limit(1).continue_token(&token)).await.unwrap();
    assert_eq!(
        (second.items[0].namespace().unwrap().as_str(), second.metadata.continue_),
        ("a2", None)
    );
    let namespaces: Api<Namespace> = Api::all(ann.clone());
    let seen: Vec<_> = namespaces.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(seen.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["a1", "a2"]);

    let since = list.metadata.resource_version.clone().unwrap();
    for (place, name) in [("b1", "n1"), ("a1", "n2"), ("default", "n3"), ("a2", "n4")] {
        let maps: Api<ConfigMap> = Api::namespaced(all.clone(), place);
        maps.create(&PostParams::default(), &map(name)).await.unwrap();
    }
    let events = hers.watch(&WatchParams::default().timeout(30), &since).await.unwrap();
    let mut events = std::pin::pin!(events);
    for expected in ["n2", "n4"] {
        match events.try_next().await.unwrap() {
            Some(WatchEvent::Added(one)) => assert_eq!(one.name_any(), expected),
            other => unreachable!("{other:?}"),
        }
    }

    let theirs: Api<ConfigMap> = Api::namespaced(ann.clone(), "b1");
    let code = |error: kube::Error| match error {
        kube::Error::Api(status) => status.code,
        other => unreachable!("{other}"),
    };
    let patch = Patch::Merge(json!({"data": {"a": "b"}}));
    assert_eq!(code(theirs.get("m").await.unwrap_err()), 404);
    assert_eq!(code(theirs.delete("m", &DeleteParams::default()).await.unwrap_err()), 404);
    assert_eq!(code(theirs.patch("m", &PatchParams::default(), &patch).await.unwrap_err()), 404);
    assert_eq!(code(theirs.create(&PostParams::default(), &map("x")).await.unwrap_err()), 404);
    let own: Api<ConfigMap> = Api::namespaced(ann, "a1");
    own.patch("m", &PatchParams::default(), &patch).await.unwrap();
    own.create(&PostParams::default(), &map("x")).await.unwrap();
    let key = Key::new("", "configmaps", "a1", "x");
    assert_eq!(cluster.api.store().get(&key, None).unwrap().unwrap().owner, Owner::new("ann"));
    cluster.stop().await;
}
