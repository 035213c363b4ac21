//! Custom kinds of several versions, those of others that come unchanged, and who owns their fields.

use crate::{
    cluster::Cluster,
    custom::{WIDGET, WIDGETS, define},
    programs::programs,
};

pub(crate) const TWO_VERSIONS: &str = "
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
