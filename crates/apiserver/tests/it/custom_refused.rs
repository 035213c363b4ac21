//! What is refused of custom kinds and their definitions, in Kubernetes' words.

use crate::{
    cluster::Cluster,
    custom::{WIDGET, WIDGETS, define},
    programs::programs,
};

#[tokio::test]
async fn wrong_objects_are_refused_in_kubernetes_words() {
    let program = programs().pop().unwrap();
    let cluster = Cluster::start().await;
    define(&cluster, program, WIDGETS, "widgets.example.org").await;
    let refused = async |spec: &str| {
        let text = format!(
            "{{apiVersion: example.org/v1, kind: Widget, metadata: {{name: w}}, spec: {spec}}}"
        );
        let file = cluster.file("wrong.yaml", &text);
        cluster.kubectl_fails(program, &["create", "--validate=false", "-f", &file]).await
    };
    let invalid = "The Widget \"w\" is invalid: ";
    for (spec, expected) in [
        (
            "{color: blue}",
            "spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\"",
        ),
        (
            "{color: red, replicas: 6}",
            "spec: Invalid value: \"object\": no more than five red ones",
        ),
        (
            "{color: green, replicas: 11}",
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            "{color: green, ports: [{port: 1}, {port: 1}]}",
            "spec.ports[1]: Duplicate value: {\"port\":1}",
        ),
        (
            "{color: green, note: much too long}",
            "spec.note: Too long: may not be more than 10 bytes",
        ),
    ] {
        let said = refused(spec).await;
        assert!(
            said.contains(&format!("{invalid}{expected}"))
                || (said.contains(invalid) && said.contains(expected)),
            "{spec}: {said}"
        );
    }
    let said = refused("{}").await;
    assert!(
        said.contains("spec.color: Required value")
            && said.contains("some validation rules were not checked"),
        "{said}"
    );

    let file = cluster.file("unknown.yaml", &WIDGET.replace("color: red", "color: red, odd: 1"));
    let said = cluster.kubectl_fails(program, &["create", "-f", &file]).await;
    assert!(said.contains("unknown field \"spec.odd\""), "{said}");
    let output =
        cluster.run(program, "admin.kubeconfig", &["create", "--validate=warn", "-f", &file]).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && stderr.contains("Warning: unknown field \"spec.odd\""),
        "{stderr}"
    );
    let spec = cluster.kubectl(program, &["get", "wd", "w1", "-o", "jsonpath={.spec}"]).await;
    assert_eq!(spec, r#"{"color":"red","ports":[{"port":80}],"replicas":1}"#);

    cluster
        .kubectl(program, &["patch", "wd", "w1", "--type=merge", "-p", r#"{"spec":{"size":"s"}}"#])
        .await;
    let said = cluster
        .kubectl_fails(
            program,
            &["patch", "wd", "w1", "--type=merge", "-p", r#"{"spec":{"size":"m"}}"#],
        )
        .await;
    assert!(said.contains("spec.size: Invalid value: \"string\": size is immutable"), "{said}");
    let said = cluster
        .kubectl_fails(
            program,
            &["patch", "wd", "w1", "--type=strategic", "-p", r#"{"spec":{"size":"m"}}"#],
        )
        .await;
    assert!(
        said.contains(
            "the body of the request was in an unknown format - accepted media types include"
        ),
        "{said}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn wrong_definitions_are_refused_in_kubernetes_words() {
    let program = programs().pop().unwrap();
    let cluster = Cluster::start().await;
    let refused = async |from: &str, to: &str, expected: &str| {
        assert!(WIDGETS.contains(from), "{from}");
        let file = cluster.file("wrong.yaml", &WIDGETS.replace(from, to));
        let said =
            cluster.kubectl_fails(program, &["create", "--validate=false", "-f", &file]).await;
        assert!(said.contains(expected), "{to}: {said}");
    };
    for (from, to, expected) in [
        (
            "name: widgets.example.org",
            "name: other",
            "metadata.name: Invalid value: \"other\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            "scope: Namespaced",
            "scope: Global",
            "spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            "storage: true",
            "storage: false",
            "must have exactly one version marked as storage version",
        ),
        (
            "plural: widgets,",
            "plural: Widgets,",
            "spec.names.plural: Invalid value: \"Widgets\": a DNS-1035 label",
        ),
        (
            "scope: Namespaced",
            "scope: Namespaced\n  preserveUnknownFields: true",
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true",
        ),
        (
            "scope: Namespaced",
            "scope: Namespaced\n  conversion: {strategy: Webhook}",
            "spec.conversion.strategy: Unsupported value: \"Webhook\"",
        ),
        (
            "maxLength: 10",
            "maxLength: 10, default: 5",
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[note].default: Invalid value: \"integer\"",
        ),
        (
            "note: {type: string, maxLength: 10}",
            "note: {}",
            "properties[spec].properties[note].type: Required value: must not be empty for specified object fields",
        ),
        (
            "type: integer, jsonPath: .spec.replicas",
            "type: int, jsonPath: .spec.replicas",
            "spec.versions[0].additionalPrinterColumns[1].type: Invalid value: \"int\": must be one of boolean,date,integer,number,string",
        ),
        (
            "specReplicasPath: .spec.replicas",
            "specReplicasPath: .replicas",
            "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".replicas\": should be a json path under .spec",
        ),
        (
            "jsonPath: .spec.color}]",
            "jsonPath: .spec.ports}]",
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.ports\": must point to a field of type string, boolean or integer",
        ),
        ("self == oldSelf", "self == other", "undeclared reference to 'other'"),
        (
            "group: example.org",
            "group: things.k8s.io",
            "protected groups must have approval annotation \"api-approved.kubernetes.io\"",
        ),
    ] {
        refused(from, to, expected).await;
    }
    define(&cluster, program, WIDGETS, "widgets.example.org").await;
    for (from, to, expected) in [
        (
            "scope: Namespaced",
            "scope: Cluster",
            "spec.scope: Invalid value: \"Cluster\": field is immutable",
        ),
        (
            "kind: Widget,",
            "kind: Gadget,",
            "spec.names.kind: Invalid value: \"Gadget\": field is immutable",
        ),
        (
            "- name: v1\n",
            "- name: v2\n",
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions",
        ),
    ] {
        let file = cluster.file("wrong.yaml", &WIDGETS.replace(from, to));
        let said = cluster.kubectl_fails(program, &["replace", "-f", &file]).await;
        assert!(said.contains(expected), "{to}: {said}");
    }
    cluster.stop().await;
}
