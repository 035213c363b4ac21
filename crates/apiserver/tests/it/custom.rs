//! Custom kinds as people use them with kubectl.

use std::time::Duration;

use tokio::time::timeout;

use crate::{cluster::Cluster, programs::programs};

const WIDGETS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [all, parts]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Note, type: string, jsonPath: .spec.note, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: A widget is a thing.
        required: [spec]
        properties:
          spec:
            type: object
            description: What is wanted.
            required: [color]
            properties:
              color: {type: string, enum: [red, green], description: Its color.}
              replicas: {type: integer, minimum: 0, maximum: 10, default: 1}
              note: {type: string, maxLength: 10}
              size: {type: string, x-kubernetes-validations: [{rule: self == oldSelf, message: size is immutable}]}
              ports:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [port]
                items:
                  type: object
                  required: [port]
                  properties: {port: {type: integer}, name: {type: string}}
            x-kubernetes-validations:
            - {rule: "self.color != 'red' || self.replicas <= 5", message: no more than five red ones}
          status:
            type: object
            properties:
              replicas: {type: integer}
              selector: {type: string}
              conditions:
                type: array
                items: {type: object, properties: {type: {type: string}, status: {type: string}}}
"#;

const WIDGET: &str = "
apiVersion: example.org/v1
kind: Widget
metadata: {name: w1}
spec: {color: red, ports: [{port: 80}]}
";

async fn define(cluster: &Cluster, program: &str, definition: &str, name: &str) {
    let file = cluster.file("definition.yaml", definition);
    cluster.kubectl(program, &["apply", "-f", &file]).await;
    cluster
        .kubectl(
            program,
            &["wait", "--for=condition=Established", &format!("crd/{name}"), "--timeout=20s"],
        )
        .await;
}

#[tokio::test]
async fn people_define_a_kind_and_use_it() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        define(&cluster, program, WIDGETS, "widgets.example.org").await;
        let table = k(&["get", "crd"]).await;
        assert!(
            table.starts_with("NAME                  CREATED AT\nwidgets.example.org   20"),
            "{table}"
        );
        let resources = k(&["api-resources", "--api-group=example.org", "--no-headers"]).await;
        let words: Vec<&str> = resources.split_whitespace().collect();
        assert_eq!(words, ["widgets", "wd", "example.org/v1", "true", "Widget"]);

        let file = cluster.file("widget.yaml", WIDGET);
        assert_eq!(k(&["apply", "-f", &file]).await, "widget.example.org/w1 created\n");
        assert_eq!(k(&["apply", "-f", &file]).await, "widget.example.org/w1 unchanged\n");
        let shown = k(&["get", "wd", "--no-headers"]).await;
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(words.get(..3), Some(&["w1", "red", "1"][..]), "{shown}");
        let table = k(&["get", "widgets", "-o", "wide"]).await;
        assert!(table.starts_with("NAME   COLOR   REPLICAS   READY   NOTE   AGE\n"), "{table}");
        let all = k(&["get", "parts", "-o", "name"]).await;
        assert_eq!(all, "widget.example.org/w1\n");
        assert_eq!(k(&["get", "wd", "--field-selector=spec.color=green", "-o", "name"]).await, "");
        assert_eq!(
            k(&["get", "wd", "--field-selector=spec.color=red", "-o", "name"]).await,
            "widget.example.org/w1\n"
        );
        let spec =
            k(&["get", "wd", "w1", "-o", "jsonpath={.spec} {.metadata.generation} {.status}"])
                .await;
        assert_eq!(spec, r#"{"color":"red","ports":[{"port":80}],"replicas":1} 1 "#);

        k(&["scale", "wd/w1", "--replicas=3"]).await;
        k(&[
            "patch",
            "wd",
            "w1",
            "--type=merge",
            "-p",
            r#"{"spec":{"note":"x"},"status":{"replicas":9}}"#,
        ])
        .await;
        k(&["patch", "wd", "w1", "--subresource=status", "--type=merge", "-p",
            r#"{"spec":{"note":"y"},"status":{"replicas":2,"conditions":[{"type":"Ready","status":"True"}]}}"#]).await;
        let spec = k(&[
            "get",
            "wd",
            "w1",
            "-o",
            "jsonpath={.spec.replicas} {.spec.note} {.status.replicas} {.metadata.generation}",
        ])
        .await;
        assert_eq!(spec, "3 x 2 3");
        let shown = k(&["get", "wd", "w1", "--no-headers"]).await;
        assert!(shown.contains("True"), "{shown}");
        let scale =
            k(&["get", "--raw", "/apis/example.org/v1/namespaces/default/widgets/w1/scale"]).await;
        let scale: serde_json::Value = serde_json::from_str(&scale).unwrap();
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"]["replicas"], 2);
        let described = k(&["describe", "wd", "w1"]).await;
        assert!(described.contains("Color:  red"), "{described}");
        k(&["annotate", "wd/w1", "a=b"]).await;
        k(&["label", "wd/w1", "c=d"]).await;
        assert_eq!(k(&["get", "wd", "-l", "c=d", "-o", "name"]).await, "widget.example.org/w1\n");
        assert_eq!(k(&["delete", "wd", "--all"]).await, "widget.example.org \"w1\" deleted\n");
        cluster.stop().await;
    }
}

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

const TWO_VERSIONS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.org}
spec:
  group: example.org
  scope: Cluster
  names: {plural: gadgets, kind: Gadget}
  versions:
  - name: v1beta1
    served: true
    storage: true
    deprecated: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {a: {type: string}, b: {type: string}}}}}}
  - name: v1
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {a: {type: string}, c: {type: string, default: x}}}}}}
";

#[tokio::test]
async fn a_kind_has_several_versions_and_survives_a_restart() {
    let program = programs().pop().unwrap();
    let cluster = Cluster::start().await;
    define(&cluster, program, TWO_VERSIONS, "gadgets.example.org").await;
    let versions = cluster.kubectl(program, &["api-versions"]).await;
    let of_group: Vec<&str> =
        versions.lines().filter(|line| line.starts_with("example.org/")).collect();
    assert_eq!(of_group, ["example.org/v1", "example.org/v1beta1"]);
    let file = cluster.file(
        "g.yaml",
        "{apiVersion: example.org/v1, kind: Gadget, metadata: {name: g}, spec: {a: p, c: q}}",
    );
    cluster.kubectl(program, &["create", "-f", &file]).await;
    let file = cluster.file(
        "h.yaml",
        "{apiVersion: example.org/v1beta1, kind: Gadget, metadata: {name: h}, spec: {a: p, b: q}}",
    );
    let output = cluster.run(program, "admin.kubeconfig", &["create", "-f", &file]).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        stderr,
        "Warning: example.org/v1beta1 Gadget is deprecated; use example.org/v1 Gadget\n"
    );

    let check = async |cluster: &Cluster| {
        let raw = async |path: &str| {
            let said = cluster.run(program, "admin.kubeconfig", &["get", "--raw", path]).await;
            serde_json::from_slice::<serde_json::Value>(&said.stdout).unwrap()
        };
        let list = raw("/apis/example.org/v1/gadgets").await;
        assert_eq!(list["kind"], "GadgetList");
        let items = &list["items"];
        assert_eq!(items[0]["apiVersion"], "example.org/v1");
        assert_eq!(items[0]["spec"], serde_json::json!({"a": "p", "c": "q"}));
        assert_eq!(items[1]["spec"], serde_json::json!({"a": "p", "c": "x"}));
        let old = raw("/apis/example.org/v1beta1/gadgets/h").await;
        assert_eq!(old["apiVersion"], "example.org/v1beta1");
        assert_eq!(old["spec"], serde_json::json!({"a": "p", "b": "q"}));
    };
    check(&cluster).await;
    let cluster = cluster.restart().await;
    check(&cluster).await;

    // The other version is stored from now on; both stay known.
    let moved = TWO_VERSIONS
        .replace("storage: true", "storage: maybe")
        .replace("storage: false", "storage: true")
        .replace("storage: maybe", "storage: false");
    let file = cluster.file("moved.yaml", &moved);
    cluster.kubectl(program, &["apply", "-f", &file]).await;
    let stored = cluster
        .kubectl(
            program,
            &["get", "crd", "gadgets.example.org", "-o", "jsonpath={.status.storedVersions}"],
        )
        .await;
    assert_eq!(stored, r#"["v1beta1","v1"]"#);
    cluster.stop().await;
}

#[tokio::test]
async fn objects_go_before_their_definition() {
    let program = programs().pop().unwrap();
    let cluster = Cluster::start().await;
    define(&cluster, program, WIDGETS, "widgets.example.org").await;
    let held = WIDGET.replace("{name: w1}", "{name: w1, finalizers: [example.org/hold]}");
    let file = cluster.file("widget.yaml", &held);
    cluster.kubectl(program, &["create", "-f", &file]).await;
    cluster.kubectl(program, &["delete", "crd", "widgets.example.org", "--wait=false"]).await;
    cluster
        .kubectl(
            program,
            &["wait", "--for=condition=Terminating", "crd/widgets.example.org", "--timeout=20s"],
        )
        .await;
    let finalizers = cluster
        .kubectl(
            program,
            &["get", "crd", "widgets.example.org", "-o", "jsonpath={.metadata.finalizers}"],
        )
        .await;
    assert_eq!(finalizers, r#"["customresourcecleanup.apiextensions.k8s.io"]"#);
    let another = cluster.file("another.yaml", &WIDGET.replace("w1", "w2"));
    cluster.kubectl_fails(program, &["create", "-f", &another]).await;
    // A watch that is open sees the last object go, and ends with the kind.
    let watch = cluster
        .command(
            program,
            "admin.kubeconfig",
            &["get", "wd", "--watch-only", "--output-watch-events", "-o", "name"],
        )
        .output();
    let release = async {
        // Still there: it is only marked.
        cluster
            .kubectl(
                program,
                &["wait", "--for=jsonpath={.metadata.deletionTimestamp}", "wd/w1", "--timeout=20s"],
            )
            .await;
        cluster
            .kubectl(
                program,
                &["patch", "wd", "w1", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#],
            )
            .await;
        cluster
            .kubectl(program, &["wait", "--for=delete", "crd/widgets.example.org", "--timeout=20s"])
            .await;
    };
    let (watched, ()) = tokio::join!(timeout(Duration::from_secs(60), watch), release);
    assert!(watched.expect("the watch ends with the kind").unwrap().status.code().is_some());
    let said = cluster.kubectl_fails(program, &["get", "widgets"]).await;
    assert!(said.contains("could not find the requested resource"), "{said}");

    // The same kind may come again, without the old objects.
    define(&cluster, program, WIDGETS, "widgets.example.org").await;
    assert_eq!(cluster.kubectl(program, &["get", "widgets", "-o", "name"]).await, "");
    cluster.stop().await;
}

#[tokio::test]
async fn names_belong_to_whoever_came_first() {
    let program = programs().pop().unwrap();
    let cluster = Cluster::start().await;
    define(&cluster, program, WIDGETS, "widgets.example.org").await;
    let second =
        TWO_VERSIONS.replace("plural: gadgets, kind: Gadget", "plural: gadgets, kind: Widget");
    let file = cluster.file("second.yaml", &second);
    cluster.kubectl(program, &["create", "-f", &file]).await;
    let crd = "crd/gadgets.example.org";
    cluster
        .kubectl(program, &["wait", "--for=condition=NamesAccepted=false", crd, "--timeout=20s"])
        .await;
    let said = cluster
        .kubectl(
            program,
            &[
                "get",
                crd,
                "-o",
                "jsonpath={.status.conditions[*].reason}/{.status.conditions[*].message}",
            ],
        )
        .await;
    assert_eq!(
        said,
        "ListKindConflict NotAccepted/\"WidgetList\" is already in use not all names are accepted"
    );
    let said = cluster.kubectl_fails(program, &["get", "gadgets"]).await;
    assert!(said.contains("the server doesn't have a resource type"), "{said}");
    // The names become free with the definition that has them.
    cluster.kubectl(program, &["delete", "crd", "widgets.example.org"]).await;
    cluster.kubectl(program, &["wait", "--for=condition=Established", crd, "--timeout=20s"]).await;
    assert_eq!(
        cluster.kubectl(program, &["get", "gadgets.v1.example.org", "-o", "name"]).await,
        ""
    );
    cluster.stop().await;
}

/// After the definition that OpenYurt ships.
const NODE_POOLS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: nodepools.apps.openyurt.io}
spec:
  group: apps.openyurt.io
  scope: Cluster
  names: {kind: NodePool, listKind: NodePoolList, plural: nodepools, singular: nodepool, shortNames: [np], categories: [yurt]}
  versions:
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema: &schema
      openAPIV3Schema:
        type: object
        description: NodePool is the Schema for the nodepools API
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec:
            type: object
            required: [type]
            properties:
              type: {type: string, default: Edge, enum: [Edge, Cloud], description: The type of the pool.}
              hostNetwork: {type: boolean}
              interConnectivity: {type: boolean}
              enableLeaderElection: {type: boolean}
              leaderElectionStrategy: {type: string}
              leaderNodeLabelSelector: {type: object, additionalProperties: {type: string}}
              leaderReplicas: {type: integer, format: int32, default: 1}
              labels: {type: object, additionalProperties: {type: string}}
              annotations: {type: object, additionalProperties: {type: string}}
              poolScopeMetadata:
                type: array
                items:
                  type: object
                  required: [group, resource, version]
                  properties: {group: {type: string}, resource: {type: string}, version: {type: string}}
              taints:
                type: array
                items:
                  type: object
                  required: [effect, key]
                  properties: {effect: {type: string}, key: {type: string}, value: {type: string}, timeAdded: {type: string, format: date-time}}
          status:
            type: object
            properties:
              readyNodeNum: {type: integer, format: int32}
              unreadyNodeNum: {type: integer, format: int32}
              nodes: {type: array, items: {type: string}}
              leaderEndpoints:
                type: array
                items:
                  type: object
                  required: [address, nodeName]
                  properties: {address: {type: string}, nodeName: {type: string}}
              leaderNum: {type: integer, format: int32}
    subresources: {status: {}}
    additionalPrinterColumns: &columns
    - {jsonPath: .spec.type, name: Type, type: string, description: The type of nodepool}
    - {jsonPath: .status.readyNodeNum, name: ReadyNodes, type: integer}
    - {jsonPath: .status.unreadyNodeNum, name: NotReadyNodes, type: integer}
    - {jsonPath: .metadata.creationTimestamp, name: Age, type: date}
  - name: v1beta2
    served: true
    storage: true
    schema: *schema
    subresources: {status: {}}
    additionalPrinterColumns: *columns
";

#[tokio::test]
async fn node_pools_of_openyurt_apply_unchanged() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        define(&cluster, program, NODE_POOLS, "nodepools.apps.openyurt.io").await;
        let pool = "
apiVersion: apps.openyurt.io/v1beta2
kind: NodePool
metadata: {name: hangzhou}
spec:
  type: Edge
  interConnectivity: true
  annotations: {a: b}
  labels: {c: d}
  taints: [{key: apps.openyurt.io/example, value: hangzhou, effect: NoSchedule}]
";
        let file = cluster.file("pool.yaml", pool);
        assert_eq!(
            k(&["apply", "-f", &file]).await,
            "nodepool.apps.openyurt.io/hangzhou created\n"
        );
        let status = r#"{"status":{"readyNodeNum":2,"unreadyNodeNum":1}}"#;
        k(&["patch", "np", "hangzhou", "--subresource=status", "--type=merge", "-p", status]).await;
        let shown = k(&["get", "np", "--no-headers"]).await;
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(words.get(..4), Some(&["hangzhou", "Edge", "2", "1"][..]), "{shown}");
        assert_eq!(
            k(&["get", "np", "hangzhou", "-o", "jsonpath={.spec.leaderReplicas}"]).await,
            "1"
        );
        // Three-way merge, from what was applied last.
        let file = cluster.file("pool.yaml", &pool.replace("  labels: {c: d}\n", ""));
        k(&["apply", "-f", &file]).await;
        assert_eq!(k(&["get", "np", "hangzhou", "-o", "jsonpath={.spec.labels}"]).await, "");
        let explained = k(&["explain", "nodepools.spec", "--recursive"]).await;
        assert!(
            explained.contains("leaderReplicas") && explained.contains("taints"),
            "{explained}"
        );
        let explained = k(&["explain", "nodepools.spec.type"]).await;
        assert!(explained.contains("The type of the pool."), "{explained}");
        cluster.stop().await;
    }
}

#[tokio::test]
async fn fields_of_custom_objects_have_owners() {
    let program = programs().pop().unwrap();
    let cluster = Cluster::start().await;
    define(&cluster, program, WIDGETS, "widgets.example.org").await;
    let file = cluster.file("widget.yaml", WIDGET);
    let said = cluster
        .kubectl(program, &["apply", "--server-side", "--field-manager=me", "-f", &file])
        .await;
    assert_eq!(said, "widget.example.org/w1 serverside-applied\n");
    // Another one adds a port and is refused the color.
    let more = WIDGET.replace("ports: [{port: 80}]", "ports: [{port: 443, name: tls}]");
    let file = cluster.file("more.yaml", &more);
    cluster
        .kubectl(program, &["apply", "--server-side", "--field-manager=they", "-f", &file])
        .await;
    let ports = cluster
        .kubectl(program, &["get", "wd", "w1", "-o", "jsonpath={.spec.ports[*].port}"])
        .await;
    assert_eq!(ports, "80 443");
    let file = cluster.file("green.yaml", &more.replace("red", "green"));
    let said = cluster
        .kubectl_fails(program, &["apply", "--server-side", "--field-manager=they", "-f", &file])
        .await;
    assert!(said.contains("conflict with \"me\": .spec.color"), "{said}");
    cluster.stop().await;
}
