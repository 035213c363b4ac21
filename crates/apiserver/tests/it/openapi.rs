//! What clients do by the published schemas: explain, three-way merges, differences, strict checks.

use serde_json::Value;

use crate::{cluster::Cluster, programs::programs};

const BEFORE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: web:1
        env: [{name: A, value: old}, {name: B, value: same}]
        ports: [{name: http, containerPort: 80}, {name: https, containerPort: 443}]
";

#[tokio::test]
async fn schemas_are_explained() {
    let cluster = Cluster::start().await;
    for program in programs() {
        let explain =
            async |what: &str| cluster.kubectl(program, &["explain", what, "--recursive"]).await;
        let containers = explain("pod.spec.containers").await;
        for line in [
            "livenessProbe\t<Probe>",
            "containerPort\t<integer> -required-",
            "limits\t<map[string]Quantity>",
            "args\t<[]string>",
        ] {
            assert!(containers.contains(line), "{line} is not in {containers}");
        }
        let deployment = explain("deployment").await;
        for line in [
            "VERSION:    v1",
            "how a new version takes the place of the old",
            "rollingUpdate\t<RollingUpdateDeployment>",
            "tolerationSeconds\t<integer>",
        ] {
            assert!(deployment.contains(line), "{line} is not in {deployment}");
        }
        let port = cluster.kubectl(program, &["explain", "service.spec.ports.targetPort"]).await;
        assert!(port.contains("FIELD: targetPort <IntOrString>"), "{port}");
        let version_2 = ["explain", "pod.spec.volumes.emptyDir", "--output=plaintext-openapiv2"];
        let version_2 = cluster.kubectl(program, &version_2).await;
        assert!(version_2.contains("sizeLimit\t<string>"), "{version_2}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn three_way_merges_go_by_merge_keys() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        k(&["apply", "-f", &cluster.file("web.yaml", BEFORE)]).await;
        // Another client's variable, which the manifest does not know.
        k(&["set", "env", "deployment/web", "OTHER=kept"]).await;
        let after = BEFORE
            .replace("value: old", "value: new")
            .replace(", {name: https, containerPort: 443}", "");
        let manifest = cluster.file("web.yaml", &after);
        let differs = cluster.run(program, "admin.kubeconfig", &["diff", "-f", &manifest]).await;
        let differs = String::from_utf8_lossy(&differs.stdout).into_owned();
        let lines = |sign| {
            let mut changed: Vec<_> = differs
                .lines()
                .filter(|line| {
                    line.starts_with(sign) && !line.starts_with(&format!("{sign}{sign}"))
                })
                .map(str::trim_end)
                .collect();
            changed.retain(|line| !line.contains("generation:"));
            changed
        };
        assert_eq!(lines("+"), ["+          value: new"], "{differs}");
        assert!(lines("-").contains(&"-        - containerPort: 443"), "{differs}");
        assert!(!differs.contains("-        - name: OTHER"), "{differs}");
        k(&["apply", "-f", &manifest]).await;
        let path = "jsonpath={.spec.template.spec.containers[0]}";
        let container: Value =
            serde_json::from_str(&k(&["get", "deployment", "web", "-o", path]).await).unwrap();
        let env: Vec<_> = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["name"].as_str().unwrap(), one["value"].as_str().unwrap()))
            .collect();
        assert_eq!(env, [("A", "new"), ("B", "same"), ("OTHER", "kept")]);
        assert_eq!(container["ports"].as_array().unwrap().len(), 1);
        cluster.stop().await;
    }
}

#[tokio::test]
async fn unknown_fields_are_named() {
    let cluster = Cluster::start().await;
    for program in programs() {
        let manifest = cluster.file("typo.yaml", &BEFORE.replace("image: web:1", "imag: web:1"));
        let said =
            cluster.kubectl_fails(program, &["create", "--validate=strict", "-f", &manifest]).await;
        let place = r#"unknown field "spec.template.spec.containers[0].imag""#;
        assert!(said.contains(place), "{said}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn documents_are_found_by_their_hashes() {
    let cluster = Cluster::start().await;
    let program = programs()[0];
    let raw = async |path: &str| cluster.kubectl(program, &["get", "--raw", path]).await;
    let index: Value = serde_json::from_str(&raw("/openapi/v3").await).unwrap();
    for (path, entry) in index["paths"].as_object().unwrap() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let document: Value = serde_json::from_str(&raw(url).await).unwrap();
        assert_eq!(document["openapi"], "3.0.0");
        assert!(document["paths"].get(format!("/{path}/")).is_some(), "{path}");
        // Of another hash the client is sent on to this one.
        let old = format!("/openapi/v3/{path}?hash=0");
        assert_eq!(raw(&old).await, raw(url).await);
    }
    let version_2: Value = serde_json::from_str(&raw("/openapi/v2").await).unwrap();
    assert!(version_2["definitions"]["io.k8s.api.apps.v1.Deployment"].is_object());
    cluster.stop().await;
}
