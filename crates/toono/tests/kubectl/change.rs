//! Changing and deleting: `label`, `annotate`, `patch`, `replace`, `edit`, `set`, `scale`, `delete`.

use serde_json::json;

use crate::harness::Kubectl;

pub(crate) fn run(k: &Kubectl<'_>) {
    k.enter("change");
    k.is("create configmap m --from-literal=a=edit-me", "configmap/m created");
    k.is("create deployment d --image=busybox:1 --replicas=0", "deployment.apps/d created");
    marks(k);
    patches(k);
    replaces(k);
    sets(k);
    deletes(k);
}

fn marks(k: &Kubectl<'_>) {
    k.is("label cm m shelf=top", "configmap/m labeled");
    k.fails(
        "label cm m shelf=low",
        &["'shelf' already has a value (top), and --overwrite is false"],
    );
    k.is("label cm m shelf=low --overwrite", "configmap/m labeled");
    k.is("label cm m --list", "shelf=low");
    k.is("label cm -l shelf=low shelf-", "configmap/m unlabeled");
    k.is("get cm m -o jsonpath='{.metadata.labels.shelf}'", "");
    k.fails(
        "label cm m shelf=a/b",
        &["a valid label must be an empty string or consist of alphanumeric characters"],
    );
    k.says("annotate cm m note='two words'", &["configmap/m annotate"]);
    k.is("annotate cm m --list", "note=two words");
    k.says("annotate cm m note-", &["configmap/m annotate"]);
}

fn patches(k: &Kubectl<'_>) {
    k.is("patch cm m --type=merge -p '{\"data\":{\"b\":\"2\"}}'", "configmap/m patched");
    k.is("patch cm m --type=json -p '[{\"op\":\"test\",\"path\":\"/data/b\",\"value\":\"2\"},{\"op\":\"remove\",\"path\":\"/data/b\"}]'", "configmap/m patched");
    k.is(
        "patch cm m --type=merge -p '{\"data\":{\"a\":\"edit-me\"}}'",
        "configmap/m patched (no change)",
    );
    k.fails(
        "patch cm m --type=json -p '[{\"op\":\"remove\",\"path\":\"/data/none\"}]'",
        &["is invalid"],
    );
    k.is("patch deployment d -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"side\",\"image\":\"side:1\"}]}}}}'", "deployment.apps/d patched");
    k.is("get deployment d -o jsonpath='{.spec.template.spec.containers[?(@.name==\"side\")].image} {.spec.template.spec.containers[?(@.name==\"busybox\")].image} {.metadata.generation}'", "side:1 busybox:1 2");
    k.is("patch deployment d -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"side\",\"$patch\":\"delete\"}]}}}}'", "deployment.apps/d patched");
    k.is("get deployment d -o jsonpath='{.spec.template.spec.containers[*].name}'", "busybox");
    k.holds(
        "patch deployment d --dry-run=server -p '{\"spec\":{\"replicas\":7}}'",
        &[("/spec/replicas", json!(7))],
    );
    k.is("get deployment d -o jsonpath='{.spec.replicas}'", "0");
    k.is("scale deployment d --replicas=0 --current-replicas=0", "deployment.apps/d scaled");
    k.fails(
        "scale deployment d --replicas=3 --current-replicas=2",
        &["Expected replicas to be 2, was 0"],
    );
    k.holds(
        "get deployment d --subresource=scale",
        &[("/kind", json!("Scale")), ("/status/selector", json!("app=d"))],
    );
    k.fails(
        "patch deployment d -p '{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"x\"}}}}'",
        &["spec.selector: Invalid value", "field is immutable"],
    );
    k.fails(
        "patch deployment d -p '{\"spec\":{\"replicas\":-1}}'",
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
}

fn replaces(k: &Kubectl<'_>) {
    k.is("edit cm m", "configmap/m edited");
    k.is("get cm m -o jsonpath='{.data.a}'", "edited");
    k.ends("edit cm m", 0, "", &["Edit cancelled, no changes made."]);
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {only: this}}";
    k.fed("replace -f -", map, &["configmap/m replaced"]);
    k.is("get cm m -o jsonpath='{.data}'", "{\"only\":\"this\"}");
    let stale = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m, resourceVersion: '1'}}";
    k.ends("replace -f -", 1, stale, &["(Conflict)", "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please apply your changes to the latest version and try again"]);
    k.fed("replace --force -f -", map, &["configmap \"m\" deleted", "configmap/m replaced"]);
    let unknown = "{apiVersion: v1, kind: ConfigMap, metadata: {name: odd}, dta: {only: this}}";
    k.ends(
        "create -f - --validate=strict",
        1,
        unknown,
        &["strict decoding error: unknown field \"dta\""],
    );
    k.ends(
        "create -f - --validate=warn",
        0,
        unknown,
        &["configmap/odd created", "Warning: unknown field \"dta\""],
    );
    k.ends(
        "create -f -",
        1,
        "{apiVersion: v1, kind: Unicorn, metadata: {name: odd}}",
        &["no matches for kind \"Unicorn\" in version \"v1\""],
    );
    k.ends(
        "create -f -",
        1,
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: list}, data: [1]}",
        &["BadRequest"],
    );
    k.ends(
        "create -f - -o jsonpath='{.metadata.generateName}'",
        0,
        "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: gen-}}",
        &["gen-"],
    );
}

fn sets(k: &Kubectl<'_>) {
    k.is("set image deployment/d busybox=busybox:2", "deployment.apps/d image updated");
    k.is("set env deployment/d MODE=fast", "deployment.apps/d env updated");
    k.says("set env deployment/d --list", &[", container busybox\n", "MODE=fast"]);
    k.is(
        "set resources deployment/d --limits=cpu=500m,memory=64Mi",
        "deployment.apps/d resource requirements updated",
    );
    k.is("set serviceaccount deployment/d robot", "deployment.apps/d serviceaccount updated");
    k.holds(
        "get deployment d",
        &[
            ("/spec/template/spec/containers/0/image", json!("busybox:2")),
            ("/spec/template/spec/containers/0/env", json!([{"name": "MODE", "value": "fast"}])),
            (
                "/spec/template/spec/containers/0/resources",
                json!({"limits": {"cpu": "500m", "memory": "64Mi"}}),
            ),
            ("/spec/template/spec/serviceAccount", json!("robot")),
        ],
    );
    k.is("create service clusterip s --tcp=80", "service/s created");
    k.is("set selector service s app=other", "service/s selector updated");
    k.is("get service s -o jsonpath='{.spec.selector}'", "{\"app\":\"other\"}");
}

fn deletes(k: &Kubectl<'_>) {
    k.says("delete cm odd --dry-run=server", &["configmap \"odd\" deleted", "(server dry run)"]);
    k.says("delete cm odd --now", &["configmap \"odd\" deleted"]);
    k.fails("delete cm odd", &["Error from server (NotFound): configmaps \"odd\" not found"]);
    k.is("delete cm odd --ignore-not-found", "");
    k.is("label cm m heap=yes", "configmap/m labeled");
    k.says("delete cm -l heap=yes", &["configmap \"m\" deleted"]);
    k.says("delete service,cm --all", &["service \"s\" deleted", "configmap \"gen-"]);
    k.is("get services -o name", "");
    k.is("create configmap held --from-literal=a=b", "configmap/held created");
    k.is(
        "patch cm held -p '{\"metadata\":{\"finalizers\":[\"example.com/hold\"]}}'",
        "configmap/held patched",
    );
    k.says("delete cm held --wait=false", &["configmap \"held\" deleted"]);
    k.says("get cm held -o jsonpath='{.metadata.deletionTimestamp}'", &["T", "Z"]);
    k.is(
        "patch cm held --type=merge -p '{\"metadata\":{\"finalizers\":null}}'",
        "configmap/held patched",
    );
    k.fails("get cm held", &["(NotFound)"]);
    k.until("get replicasets -o name", &["replicaset.apps/d-"]);
    k.says("delete deployment d --cascade=orphan", &["deployment.apps \"d\" deleted"]);
    k.says("get replicasets -l app=d -o name", &["replicaset.apps/d-"]);
    k.says("delete namespace change", &["namespace \"change\" deleted"]);
    k.fails("get namespace change", &["namespaces \"change\" not found"]);
}
