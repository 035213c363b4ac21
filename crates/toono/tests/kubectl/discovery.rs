//! What the server tells of itself: versions, resources, schemas.

use serde_json::json;

use crate::harness::Kubectl;

pub(crate) fn run(k: &Kubectl<'_>) {
    k.holds(
        "version",
        &[
            ("/serverVersion/major", json!("1")),
            ("/serverVersion/minor", json!("35")),
            ("/clientVersion/major", json!("1")),
        ],
    );
    k.says("cluster-info", &["Kubernetes control plane", "is running at", &k.address()]);
    k.says(
        "api-versions",
        &["apps/v1\n", "batch/v1\n", "networking.k8s.io/v1\n", "storage.k8s.io/v1\nv1"],
    );
    k.says(
        "api-resources",
        &[
            "NAME SHORTNAMES APIVERSION NAMESPACED KIND",
            "pods po v1 true Pod",
            "deployments deploy apps/v1 true Deployment",
            "storageclasses sc storage.k8s.io/v1 false StorageClass",
        ],
    );
    k.is(
        "api-resources --api-group=rbac.authorization.k8s.io --namespaced=false -o name",
        "clusterrolebindings.rbac.authorization.k8s.io\nclusterroles.rbac.authorization.k8s.io",
    );
    k.lacks(
        "api-resources --verbs=delete,watch -o name",
        "pods\n",
        &["tokenreviews", "bindings\n"],
    );
    k.says(
        "api-resources --categories=all -o wide",
        &["statefulsets sts apps/v1 true StatefulSet", "deletecollection"],
    );
    k.says("get --raw /readyz?verbose", &["[+]ping ok", "readyz check passed"]);
    k.says("get --raw /version", &["\"gitVersion\"", "v1.35"]);
    explain(k);
}

fn explain(k: &Kubectl<'_>) {
    k.says("explain pods", &["KIND: Pod", "VERSION: v1", "FIELDS:", "spec <PodSpec>"]);
    k.says("explain pod.spec.containers.resources", &["limits", "<map[string]Quantity>"]);
    k.says(
        "explain deployments --recursive",
        &[
            "GROUP: apps",
            "  strategy <DeploymentStrategy>",
            "        maxSurge <IntOrString>",
            "terminationGracePeriodSeconds <integer>",
        ],
    );
    k.says("explain ingress.spec.rules.http.paths.backend", &["<IngressServiceBackend>"]);
    k.says("explain cronjob.spec.schedule --api-version=batch/v1", &["FIELD: schedule <string>"]);
    k.fails("explain pod.spec.nonsense", &["field \"nonsense\" does not exist"]);
    k.fails("explain unicorns", &["the server doesn't have a resource type \"unicorns\""]);
}
