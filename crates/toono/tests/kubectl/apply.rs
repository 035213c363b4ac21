//! `apply` of both sides, three-way merges, conflicts, `diff`.

use serde_json::json;

use crate::harness::Kubectl;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web, tier: front}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: web:1
        env: [{name: A, value: '1'}, {name: B, value: '2'}]
";

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("apply");
    three_ways(k);
    difference(k);
    sides(k);
    sets(k);
}

fn three_ways(k: &Kubectl<'_>) {
    k.fed("apply -f - --dry-run=server", WEB, &["deployment.apps/web created (server dry run)"]);
    k.fed("apply -f - --dry-run=client", WEB, &["deployment.apps/web created (dry run)"]);
    k.fed("apply -f -", WEB, &["deployment.apps/web created"]);
    k.fed("apply --validate=true -f -", WEB, &["deployment.apps/web unchanged"]);
    k.says("apply view-last-applied deployment/web", &["image: web:1", "tier: front"]);
    // Others add to the same lists and maps.
    k.is("patch deployment web -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"side\",\"image\":\"side:1\"},{\"name\":\"main\",\"env\":[{\"name\":\"C\",\"value\":\"3\"}]}]}}}}'", "deployment.apps/web patched");
    k.is("label deployment web extra=kept", "deployment.apps/web labeled");
    let changed = WEB
        .replace("web:1", "web:2")
        .replace("{name: A, value: '1'}, ", "")
        .replace(", tier: front", "");
    k.fed("apply --overwrite -f -", &changed, &["deployment.apps/web configured"]);
    k.is("get deployment web -o jsonpath='{.spec.template.spec.containers[?(@.name==\"main\")].image} {.spec.template.spec.containers[?(@.name==\"main\")].env[?(@.name==\"C\")].value}{.spec.template.spec.containers[?(@.name==\"main\")].env[?(@.name==\"A\")].value} {.spec.template.spec.containers[?(@.name==\"side\")].image}'", "web:2 3 side:1");
    k.holds("get deployment web", &[("/metadata/labels", json!({"app": "web", "extra": "kept"}))]);
    k.file("web.yaml", &changed);
    k.is("apply set-last-applied -f web.yaml", "deployment.apps/web configured");
    k.ends(
        "apply -f -",
        1,
        &WEB.replace("matchLabels: {app: web}", "matchLabels: {app: x}"),
        &["The Deployment \"web\" is invalid", "selector"],
    );
    k.ends("apply -f -", 1, &WEB.replace("replicas: 0", "replicas: many"), &["BadRequest", "many"]);
}

fn difference(k: &Kubectl<'_>) {
    k.is("diff -f web.yaml", "");
    let text = std::fs::read_to_string(k.path("web.yaml")).unwrap();
    k.file("next.yaml", &text.replace("web:2", "web:3"));
    k.ends("diff -f next.yaml", 1, "", &["- image: web:2", "+ image: web:3"]);
    k.ends("diff --server-side --force-conflicts -f next.yaml", 1, "", &["image: web:3"]);
    k.is("get deployment web -o jsonpath='{.spec.template.spec.containers[?(@.name==\"main\")].image}'", "web:2");
    k.file(
        "fresh.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fresh}\ndata: {k: v}\n",
    );
    k.ends("diff -f fresh.yaml", 1, "", &["+data:", "+ k: v", "+kind: ConfigMap"]);
    k.fails("get cm fresh", &["(NotFound)"]);
}

fn sides(k: &Kubectl<'_>) {
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {a: '1', b: '1'}}";
    k.fed("apply --server-side -f -", map, &["configmap/shared serverside-applied"]);
    k.holds(
        "get cm shared --show-managed-fields",
        &[
            ("/metadata/managedFields/0/manager", json!("kubectl")),
            ("/metadata/managedFields/0/operation", json!("Apply")),
            ("/metadata/managedFields/0/fieldsV1/f:data", json!({"f:a": {}, "f:b": {}})),
            ("/metadata/annotations", json!(null)),
        ],
    );
    let others =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {a: '2', c: '2'}}";
    k.ends(
        "apply --server-side --field-manager=other -f -",
        1,
        others,
        &[
            "Apply failed with 1 conflict: conflict with \"kubectl\": .data.a",
            "Please review the fields above--they currently have other managers.",
        ],
    );
    k.is("get cm shared -o jsonpath='{.data}'", "{\"a\":\"1\",\"b\":\"1\"}");
    k.fed(
        "apply --server-side --field-manager=other --force-conflicts -f -",
        others,
        &["configmap/shared serverside-applied"],
    );
    k.is("get cm shared -o jsonpath='{.data.a}{.data.b}{.data.c}'", "212");
    k.says(
        "get cm shared --show-managed-fields -o jsonpath='{.metadata.managedFields[*].manager}'",
        &["kubectl", "other"],
    );
    // A field that its only manager no longer applies is gone; a shared one stays.
    let fewer = "{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {a: '2'}}";
    k.fed(
        "apply --server-side --field-manager=kubectl -f -",
        fewer,
        &["configmap/shared serverside-applied"],
    );
    k.is("get cm shared -o jsonpath='{.data}'", "{\"a\":\"2\",\"c\":\"2\"}");
    k.fed(
        "apply --server-side --dry-run=server -o jsonpath='{.data.a}' --field-manager=other -f -",
        others,
        &["2"],
    );
    k.ends(
        "apply --server-side -f -",
        1,
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, dta: {}}",
        &[".dta: field not declared in schema"],
    );
    // From one side to the other.
    k.ends("apply --server-side -f web.yaml", 0, "", &["deployment.apps/web serverside-applied"]);
    k.says("get deployment web --show-managed-fields -o jsonpath='{.metadata.managedFields[?(@.operation==\"Apply\")].manager}'", &["kubectl"]);
}

fn sets(k: &Kubectl<'_>) {
    let both = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: one, labels: {set: s}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: two, labels: {set: s}}}
";
    k.fed("apply -f - -l set=s", both, &["configmap/one created\nconfigmap/two created"]);
    let first = "{apiVersion: v1, kind: ConfigMap, metadata: {name: one, labels: {set: s}}}";
    k.fed(
        "apply --prune -l set=s --prune-allowlist=core/v1/ConfigMap -f -",
        first,
        &["configmap/one unchanged", "configmap/two pruned"],
    );
    k.is("get cm -l set=s -o name", "configmap/one");
    std::fs::create_dir_all(k.path("base")).unwrap();
    k.file("base/kustomization.yaml", "namePrefix: my-\nresources: [map.yaml]\n");
    k.file("base/map.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: built}}");
    k.is("apply -k base", "configmap/my-built created");
    k.is("get -k base -o name", "configmap/my-built");
    k.says("delete -k base", &["configmap \"my-built\" deleted"]);
}
