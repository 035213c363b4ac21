//! Every form of output, every way to choose what is shown.

use serde_json::json;

use crate::harness::Kubectl;

const SHOWN: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: shop, tier: front}, annotations: {note: first}}
data: {colour: blue, size: '3'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: more, labels: {app: shop, tier: back}}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, labels: {app: bank}}
stringData: {password: hidden}
";

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("show");
    k.fed(
        "create -f -",
        SHOWN,
        &["configmap/settings created", "configmap/more created", "secret/keys created"],
    );
    forms(k);
    templates(k);
    choices(k);
    kinds(k);
    mistakes(k);
}

fn forms(k: &Kubectl<'_>) {
    k.holds(
        "get configmap settings",
        &[
            ("/kind", json!("ConfigMap")),
            ("/apiVersion", json!("v1")),
            ("/data", json!({"colour": "blue", "size": "3"})),
            ("/metadata/namespace", json!("show")),
            ("/metadata/managedFields", json!(null)),
        ],
    );
    k.holds(
        "get configmap settings --show-managed-fields",
        &[
            ("/metadata/managedFields/0/manager", json!("kubectl-create")),
            ("/metadata/managedFields/0/operation", json!("Update")),
            ("/metadata/managedFields/0/fieldsV1/f:data/f:colour", json!({})),
        ],
    );
    k.holds(
        "get configmaps -l app=shop",
        &[
            ("/kind", json!("List")),
            ("/items/0/metadata/name", json!("more")),
            ("/items/1/metadata/name", json!("settings")),
        ],
    );
    k.says(
        "get configmap settings -o yaml",
        &[
            "apiVersion: v1\ndata:\n  colour: blue\n  size: \"3\"\nkind: ConfigMap",
            "    note: first",
        ],
    );
    k.is("get cm -l app=shop -o name", "configmap/more\nconfigmap/settings");
    k.says("get cm settings -o wide", &["NAME DATA AGE\nsettings 2 "]);
    k.says("get cm --show-labels -l app", &["NAME DATA AGE LABELS", "app=shop,tier=front"]);
    k.says("get cm -L tier,app -l app", &["NAME DATA AGE TIER APP\nmore 0 ", " back shop"]);
    k.lacks("get cm --no-headers", "settings 2", &["NAME"]);
    k.says("get cm settings --show-kind", &["configmap/settings 2"]);
    k.says("get cm settings --server-print=false", &["NAME AGE\nsettings "]);
    k.says("get cm -l app=shop --sort-by=.data.colour", &["NAME DATA AGE"]);
    k.says(
        "describe configmap settings",
        &["Name: settings", "Namespace: show", "colour:\n----\nblue", "Annotations: note: first"],
    );
    k.lacks("describe secret keys", "password: 6 bytes", &["hidden", "aGlkZGVu"]);
    k.says("get secret keys -o jsonpath='{.data.password}'", &["aGlkZGVu"]);
}

fn templates(k: &Kubectl<'_>) {
    k.is("get cm settings -o jsonpath='{.data.colour} {.metadata.labels.app}'", "blue shop");
    k.is("get cm -l app=shop -o jsonpath='{range .items[*]}{.metadata.name}={.metadata.labels.tier};{end}'", "more=back;settings=front;");
    k.says("get cm settings -o jsonpath-as-json='{.data}'", &["\"colour\": \"blue\""]);
    k.is(
        "get cm settings -o go-template='{{range $k, $v := .data}}{{$k}}:{{$v}} {{end}}'",
        "colour:blue size:3",
    );
    k.is(
        "get cm -l app=shop -o custom-columns=NAME:.metadata.name,SIZE:.data.size",
        "NAME SIZE\nmore <none>\nsettings 3",
    );
    k.file("columns", "WHO COLOUR\n.metadata.name .data.colour\n");
    k.is("get cm settings -o custom-columns-file=columns", "WHO COLOUR\nsettings blue");
    k.file("path", "{.metadata.name}/{.data.size}");
    k.is("get cm settings -o jsonpath-file=path", "settings/3");
    k.file("template", "{{.metadata.name}}!");
    k.is("get cm settings -o go-template-file=template", "settings!");
}

fn choices(k: &Kubectl<'_>) {
    k.is("get cm -l tier!=front,app -o name", "configmap/more");
    k.is("get cm -l 'tier in (front,middle)' -o name", "configmap/settings");
    k.is("get cm -l 'tier notin (front),app' -o name", "configmap/more");
    k.is("get cm -l '!app' -o name", "configmap/kube-root-ca.crt");
    k.is("get cm --field-selector metadata.name=more -o name", "configmap/more");
    k.is("get cm --field-selector metadata.name!=more -l app -o name", "configmap/settings");
    k.is(
        "get cm --chunk-size=1 -o name",
        "configmap/kube-root-ca.crt\nconfigmap/more\nconfigmap/settings",
    );
    k.is("get cm/settings secret/keys -o name", "configmap/settings\nsecret/keys");
    k.says("get cm,secret -l app", &["configmap/settings 2", "secret/keys Opaque 1"]);
    k.says(
        "get cm -A",
        &["NAMESPACE NAME DATA AGE", "show settings 2", "default kube-root-ca.crt 1"],
    );
    k.is("get cm gone --ignore-not-found", "");
    k.says(
        "get --raw /api/v1/namespaces/show/configmaps?limit=1",
        &["\"kind\":\"ConfigMapList\"", "\"continue\":\""],
    );
    k.says("get cm --watch --output-watch-events --field-selector metadata.name=more --request-timeout=1s", &["EVENT NAME DATA AGE\nADDED more 0"]);
}

/// Each kind of the oldest groups has its own columns.
fn kinds(k: &Kubectl<'_>) {
    k.says("get namespaces", &["NAME STATUS AGE", "kube-system Active", "show Active"]);
    k.until(
        "get services -n default",
        &["NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE\nkubernetes ClusterIP"],
    );
    k.says("get serviceaccounts", &["default"]);
    k.says("get clusterroles", &["NAME CREATED AT", "cluster-admin", "system:node"]);
    k.says(
        "get priorityclasses",
        &["NAME VALUE GLOBAL-DEFAULT AGE", "system-node-critical 2000001000 false"],
    );
    k.is("get pods -o json -o jsonpath='{.items}'", "[]");
}

fn mistakes(k: &Kubectl<'_>) {
    k.fails("get cm gone", &["Error from server (NotFound): configmaps \"gone\" not found"]);
    k.fails("get unicorns", &["the server doesn't have a resource type \"unicorns\""]);
    k.fails(
        "get cm --field-selector data.colour=blue",
        &["Error from server (BadRequest)", "field label not supported: data.colour"],
    );
    k.fails("get cm -l 'a b'", &["unable to parse requirement"]);
    k.fails(
        "get --raw /apis/none.example.com/v1",
        &["(NotFound)", "the server could not find the requested resource"],
    );
    k.ends("get pods -n show", 0, "", &["No resources found in show namespace."]);
}
