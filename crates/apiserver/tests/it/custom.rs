//! Custom kinds as people use them with kubectl.

use std::time::Duration;

use tokio::time::timeout;

use crate::{cluster::Cluster, custom_schemas::TWO_VERSIONS, programs::programs};

pub(crate) const WIDGETS: &str = r#"
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

pub(crate) const WIDGET: &str = "
apiVersion: example.org/v1
kind: Widget
metadata: {name: w1}
spec: {color: red, ports: [{port: 80}]}
";

pub(crate) async fn define(cluster: &Cluster, program: &str, definition: &str, name: &str) {
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
