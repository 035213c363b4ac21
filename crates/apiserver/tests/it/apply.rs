//! Server-side apply and the record of who wrote which fields.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Map, Value, json};
use toono_api::UserInfo;

use crate::{cluster::Cluster, programs::programs};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

async fn send(
    cluster: &Cluster,
    method: Method,
    path: &str,
    content_type: &str,
    body: impl ToString,
) -> (StatusCode, Value) {
    let client = cluster.api.client(UserInfo::component("system:test"));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .header("user-agent", "tester/v1 (here)")
        .body(kube::client::Body::from(body.to_string().into_bytes()))
        .unwrap();
    let response = client.send(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn apply(cluster: &Cluster, path: &str, body: &Value) -> (StatusCode, Value) {
    send(cluster, Method::PATCH, path, APPLY, body).await
}

/// `manager/operation[/subresource]` and the fields of each entry of the record.
fn owned(object: &Value) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let mut owned = Map::new();
    for entry in entries {
        let word = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let mut key = format!("{}/{}", word("manager"), word("operation"));
        if !word("subresource").is_empty() {
            key.push_str(&format!("/{}", word("subresource")));
        }
        owned.insert(key, entry["fieldsV1"].clone());
    }
    owned.into()
}

fn config_map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment(spec: &Value) -> Value {
    let mut deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
    for (field, value) in spec.as_object().unwrap() {
        deployment["spec"][field] = value.clone();
    }
    deployment
}

#[tokio::test]
async fn applying_creates_then_changes_then_does_nothing() {
    let cluster = Cluster::start().await;
    let path = format!("{MAPS}/m?fieldManager=me");
    let (status, object) = apply(&cluster, &path, &config_map(&json!({"a": "1"}))).await;
    assert_eq!(status, StatusCode::CREATED, "{object}");
    assert_eq!(owned(&object), json!({"me/Apply": {"f:data": {"f:a": {}}}}));
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("v1"), &json!("FieldsV1")));
    assert_eq!(entry["time"], object["metadata"]["creationTimestamp"]);

    let (status, again) = apply(&cluster, &path, &config_map(&json!({"a": "1"}))).await;
    assert_eq!((status, &again), (StatusCode::OK, &object), "nothing changes: no write");

    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata: {b: '2'}\n";
    let dry = format!("{path}&dryRun=All");
    let (status, changed) = send(&cluster, Method::PATCH, &dry, APPLY, yaml).await;
    assert_eq!((status, &changed["data"]), (StatusCode::OK, &json!({"b": "2"})));
    assert_eq!(changed["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    let (status, changed) = send(&cluster, Method::PATCH, &path, APPLY, yaml).await;
    assert_eq!((status, &changed["data"]), (StatusCode::OK, &json!({"b": "2"})));
    assert_ne!(changed["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);

    let (status, _) = apply(
        &cluster,
        &format!("{MAPS}/new?fieldManager=me&dryRun=All"),
        &json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}}),
    )
    .await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, _) = send(&cluster, Method::GET, &format!("{MAPS}/new"), "", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    cluster.stop().await;
}

#[tokio::test]
async fn conflicts_are_told_and_forced() {
    let cluster = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply");
    let body = deployment(&json!({"replicas": 1}));
    let (status, object) = send(&cluster, Method::POST, &path, "application/json", &body).await;
    assert_eq!(status, StatusCode::CREATED, "{object}");
    let path = format!("{DEPLOYMENTS}/d?fieldManager=me");
    let wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3}});
    let (status, refused) = apply(&cluster, &path, &wanted).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        refused,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Apply failed with 1 conflict: conflict with \
                \"kubectl-client-side-apply\" using apps/v1: .spec.replicas",
            "reason": "Conflict", "code": 409,
            "details": {"causes": [{"reason": "FieldManagerConflict",
                "message": "conflict with \"kubectl-client-side-apply\" using apps/v1",
                "field": ".spec.replicas"}]}})
    );
    let (status, forced) = apply(&cluster, &format!("{path}&force=true"), &wanted).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(forced["spec"]["replicas"], 3);
    let owned = owned(&forced);
    assert_eq!(owned["me/Apply"], json!({"f:spec": {"f:replicas": {}}}));
    let theirs = &owned["kubectl-client-side-apply/Update"]["f:spec"];
    assert!(theirs.get("f:replicas").is_none() && theirs.get("f:template").is_some(), "{owned}");
    cluster.stop().await;
}

#[tokio::test]
async fn every_way_of_writing_is_recorded() {
    let cluster = Cluster::start().await;
    let body = deployment(&json!({"replicas": 1}));
    let (_, object) = send(&cluster, Method::POST, DEPLOYMENTS, "application/json", &body).await;
    let created = owned(&object);
    let spec = &created["tester/Update"]["f:spec"];
    assert_eq!(spec["f:replicas"], json!({}), "{created}");
    assert_eq!(spec["f:selector"], json!({}), "selectors are one thing");
    let container = &spec["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert_eq!(container["f:image"], json!({}));
    assert_eq!(container["f:imagePullPolicy"], json!({}), "defaults are the creator's");
    assert!(created["tester/Update"].get("f:status").is_none());

    let path = format!("{DEPLOYMENTS}/d/status?fieldManager=controller");
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 1}});
    let (_, object) = send(&cluster, Method::PATCH, &path, MERGE, status).await;
    assert_eq!(owned(&object)["controller/Update/status"], json!({"f:status": {"f:replicas": {}}}));
    let path = format!("{DEPLOYMENTS}/d/scale?fieldManager=scaler");
    let (code, scale) =
        send(&cluster, Method::PATCH, &path, MERGE, json!({"spec": {"replicas": 2}})).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (StatusCode::OK, &json!(2)));
    let (_, mut object) = send(&cluster, Method::GET, &format!("{DEPLOYMENTS}/d"), "", "").await;
    let record = owned(&object);
    assert_eq!(record["scaler/Update/scale"], json!({"f:spec": {"f:replicas": {}}}));
    assert!(record["tester/Update"]["f:spec"].get("f:replicas").is_none());

    // What read, changed and put back is recorded once, whether the record was sent back or not.
    object["metadata"]["labels"] = json!({"x": "y"});
    for strip in [false, true] {
        let mut sent = object.clone();
        if strip {
            sent["metadata"].as_object_mut().unwrap().remove("managedFields");
            sent["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        }
        let path = format!("{DEPLOYMENTS}/d?fieldManager=editor");
        let (_, object) = send(&cluster, Method::PUT, &path, "application/json", sent).await;
        let record = owned(&object);
        assert_eq!(
            record["editor/Update"],
            json!({"f:metadata": {"f:labels": {".": {}, "f:x": {}}}})
        );
        assert_eq!(record.as_object().unwrap().len(), 4, "{record}");
    }
    let cleared = json!({"metadata": {"managedFields": [{}]}});
    let (_, object) =
        send(&cluster, Method::PATCH, &format!("{DEPLOYMENTS}/d"), MERGE, cleared).await;
    assert_eq!(object["metadata"].get("managedFields"), None);
    cluster.stop().await;
}

#[tokio::test]
async fn subresources_are_applied() {
    let cluster = Cluster::start().await;
    let body = deployment(&json!({"replicas": 1}));
    send(&cluster, Method::POST, DEPLOYMENTS, "application/json", &body).await;
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {
        "replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}});
    let path = format!("{DEPLOYMENTS}/d/status?fieldManager=me");
    let (code, object) = apply(&cluster, &path, &status).await;
    assert_eq!(code, StatusCode::OK, "{object}");
    assert_eq!(object["status"]["conditions"][0]["type"], "Available");
    assert_eq!(object["spec"]["replicas"], 1);
    assert_eq!(
        owned(&object)["me/Apply/status"],
        json!({"f:status": {"f:replicas": {}, "f:conditions": {
            "k:{\"type\":\"Available\"}": {".": {}, "f:type": {}, "f:status": {}}}}})
    );
    let (code, _) =
        apply(&cluster, &format!("{DEPLOYMENTS}/none/status?fieldManager=me"), &status).await;
    assert_eq!(code, StatusCode::NOT_FOUND);

    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 5}});
    let path = format!("{DEPLOYMENTS}/d/scale?fieldManager=scaler");
    let (code, refused) = apply(&cluster, &path, &scale).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"tester\" using apps/v1: .spec.replicas"
    );
    let (code, scaled) = apply(&cluster, &format!("{path}&force=true"), &scale).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (StatusCode::OK, &json!(5)), "{scaled}");
    let (_, object) = send(&cluster, Method::GET, &format!("{DEPLOYMENTS}/d"), "", "").await;
    assert_eq!(owned(&object)["scaler/Apply/scale"], json!({"f:spec": {"f:replicas": {}}}));
    cluster.stop().await;
}

#[tokio::test]
async fn what_cannot_be_applied_says_why() {
    let cluster = Cluster::start().await;
    let good = config_map(&json!({"a": "1"}));
    let path = |query: &str| format!("{MAPS}/m{query}");
    let me = path("?fieldManager=me");
    let with = |at: &str, value: Value| {
        let mut object = good.clone();
        *object.pointer_mut(at).unwrap() = value;
        object
    };
    let table = [
        (
            path(""),
            good.clone(),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            path("?fieldManager=a%0Ab"),
            good.clone(),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
        ),
        (me.clone(), json!([]), 400, "the applied configuration must be an object"),
        (
            me.clone(),
            with("/apiVersion", json!("v2")),
            400,
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
        (
            me.clone(),
            with("/metadata", json!({"managedFields": []})),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            me.clone(),
            with("/metadata", json!({"name": "n"})),
            400,
            "the name of the object (n) does not match the name on the URL (m)",
        ),
        (
            me.clone(),
            with("/metadata", json!({"uid": "u"})),
            409,
            "Operation cannot be fulfilled on configmaps \"m\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
        (
            me.clone(),
            with("/metadata", json!({"namespace": "other"})),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            me.clone(),
            with("/data", json!([])),
            500,
            "failed to create typed patch object (default/m; v1, Kind=ConfigMap): .data: expected map, got a list",
        ),
        (
            me.clone(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "dta": {}}),
            500,
            "failed to create typed patch object (default/m; v1, Kind=ConfigMap): .dta: field not declared in schema",
        ),
    ];
    for (path, body, code, message) in table {
        let (status, refused) = apply(&cluster, &path, &body).await;
        assert_eq!((status.as_u16(), refused["message"].as_str()), (code, Some(message)));
    }
    let (status, refused) = send(&cluster, Method::PATCH, &me, APPLY, "a: 1\na: 2").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let text = refused["message"].as_str().unwrap();
    assert!(text.starts_with("error decoding YAML: ") && text.contains("already set"), "{text}");

    apply(&cluster, &me, &good).await;
    let (status, _) =
        apply(&cluster, &me, &with("/metadata", json!({"resourceVersion": "1"}))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let path = path("?force=true");
    let (status, refused) = send(&cluster, Method::PATCH, &path, MERGE, "{}").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("non-apply patch"), "{refused}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_typed_client_applies() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let me = PatchParams::apply("me");
    let map = config_map(&json!({"a": "1"}));
    let made = maps.patch("m", &me, &Patch::Apply(&map)).await.unwrap();
    assert_eq!(made.metadata.managed_fields.unwrap()[0].manager.as_deref(), Some("me"));
    let other = config_map(&json!({"a": "2"}));
    let you = PatchParams::apply("you");
    let error = maps.patch("m", &you, &Patch::Apply(&other)).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let taken = maps.patch("m", &you.force(), &Patch::Apply(&other)).await.unwrap();
    assert_eq!(taken.data.unwrap()["a"], "2");

    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), "default");
    let body: Deployment = serde_json::from_value(deployment(&json!({"replicas": 1}))).unwrap();
    let made = deployments.create(&Default::default(), &body).await.unwrap();
    let fields = made.metadata.managed_fields.unwrap();
    assert_eq!(fields[0].manager.as_deref(), Some("test"), "the part of the process");
    cluster.stop().await;
}

const HELLO: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
  labels: {app: hello}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: web
        image: busybox:1
        ports: [{containerPort: 80}]
";

const ONLY_REPLICAS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec: {replicas: 5}
";

#[tokio::test]
async fn people_apply_on_the_servers_side() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        let file = cluster.file("hello.yaml", HELLO);
        let server_side = ["apply", "--server-side", "-f", &file];
        assert_eq!(k(&server_side).await, "deployment.apps/hello serverside-applied\n");
        let version = ["get", "deploy", "hello", "-o", "jsonpath={.metadata.resourceVersion}"];
        let before = k(&version).await;
        k(&server_side).await;
        assert_eq!(k(&version).await, before, "nothing changed");
        let same =
            cluster.run(program, "admin.kubeconfig", &["diff", "--server-side", "-f", &file]).await;
        let differences = String::from_utf8_lossy(&same.stdout).into_owned();
        assert!(same.status.success(), "{differences}");

        let shown = ["get", "deploy", "hello", "-o", "json", "--show-managed-fields"];
        let object: Value = serde_json::from_str(&k(&shown).await).unwrap();
        assert_eq!(object["metadata"]["managedFields"][0]["manager"], "kubectl");
        assert_eq!(object["metadata"]["managedFields"][0]["operation"], "Apply");
        let hidden = k(&["get", "deploy", "hello", "-o", "yaml"]).await;
        assert!(!hidden.contains("managedFields"), "{hidden}");

        let scaler = cluster.file("replicas.yaml", ONLY_REPLICAS);
        let by_scaler = ["apply", "--server-side", "--field-manager=scaler", "-f", &scaler];
        let refused = cluster.run(program, "admin.kubeconfig", &by_scaler).await;
        assert!(!refused.status.success());
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            why.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas")
                && why.contains("--force-conflicts"),
            "{why}"
        );
        let forced = [&by_scaler[..], &["--force-conflicts"]].concat();
        assert_eq!(k(&forced).await, "deployment.apps/hello serverside-applied\n");
        let image = "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}";
        assert_eq!(k(&["get", "deploy", "hello", "-o", image]).await, "5 busybox:1");
        // The scaler's file is not the whole deployment: giving it up must leave the rest.
        let given_up = cluster.file("hello.yaml", &HELLO.replace("  replicas: 2\n", ""));
        k(&["apply", "--server-side", "-f", &given_up]).await;
        assert_eq!(k(&["get", "deploy", "hello", "-o", image]).await, "5 busybox:1");
        k(&["label", "deploy", "hello", "team=edge"]).await;
        let object: Value = serde_json::from_str(&k(&shown).await).unwrap();
        let record = owned(&object);
        assert_eq!(record["kubectl-label/Update"]["f:metadata"]["f:labels"], json!({"f:team": {}}));
        assert_eq!(record["scaler/Apply"], json!({"f:spec": {"f:replicas": {}}}));
        cluster.stop().await;
    }
}

#[tokio::test]
async fn people_move_from_the_clients_side() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        let file = cluster.file("hello.yaml", HELLO);
        k(&["apply", "-f", &file]).await;
        let shown = ["get", "deploy", "hello", "-o", "json", "--show-managed-fields"];
        let object: Value = serde_json::from_str(&k(&shown).await).unwrap();
        assert_eq!(object["metadata"]["managedFields"][0]["manager"], "kubectl-client-side-apply");
        let changed =
            HELLO.replace("busybox:1", "busybox:2").replace("[{containerPort: 80}]", "[]");
        let file = cluster.file("hello.yaml", &changed);
        let moved = k(&["apply", "--server-side", "-f", &file]).await;
        assert_eq!(moved, "deployment.apps/hello serverside-applied\n");
        let object: Value = serde_json::from_str(&k(&shown).await).unwrap();
        let record = owned(&object);
        assert!(record.get("kubectl/Apply").is_some(), "{record}");
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "busybox:2");

        // Back again: the annotation followed, so nothing but its form differs.
        let generation = ["get", "deploy", "hello", "-o", "jsonpath={.metadata.generation}"];
        let before = k(&generation).await;
        k(&["apply", "-f", &file]).await;
        assert_eq!(k(&generation).await, before);
        // The empty list of ports is not kept, so kubectl sends it each time; that changes nothing.
        k(&["apply", "-f", &file]).await;
        assert_eq!(k(&generation).await, before);
        cluster.stop().await;
    }
}

#[tokio::test]
async fn custom_kinds_are_applied_by_their_schema() {
    let cluster = Cluster::start().await;
    let ports = json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port"], "items": {"type": "object", "required": ["port"],
            "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition", "metadata": {"name": "gates.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Gate", "plural": "gates", "singular": "gate", "listKind": "GateList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                    "properties": {"ports": ports, "open": {"type": "boolean"}}}}}}}]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (status, made) = send(&cluster, Method::POST, path, "application/json", definition).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let gate = |spec: Value| {
        json!({"apiVersion": "example.com/v1", "kind": "Gate", "metadata": {"name": "g"},
            "spec": spec})
    };
    let path = |manager: &str| {
        format!("/apis/example.com/v1/namespaces/default/gates/g?fieldManager={manager}")
    };
    let mine = gate(json!({"open": true, "ports": [{"port": 1, "name": "one"}]}));
    let mut applied = apply(&cluster, &path("me"), &mine).await;
    // A definition is served a moment after it is written.
    for _ in 0..100 {
        if applied.0 != StatusCode::NOT_FOUND {
            break;
        }
        tokio::task::yield_now().await;
        applied = apply(&cluster, &path("me"), &mine).await;
    }
    assert_eq!(applied.0, StatusCode::CREATED, "{}", applied.1);
    let yours = gate(json!({"ports": [{"port": 2, "name": "two"}]}));
    let (status, both) = apply(&cluster, &path("you"), &yours).await;
    assert_eq!((status, both["spec"]["ports"].as_array().unwrap().len()), (StatusCode::OK, 2));
    let (status, refused) = apply(&cluster, &path("you"), &gate(json!({"open": false}))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"me\": .spec.open"
    );
    let (_, left) = apply(&cluster, &path("me"), &gate(json!({"open": true}))).await;
    assert_eq!(left["spec"]["ports"], json!([{"port": 2, "name": "two"}]));
    cluster.stop().await;
}
