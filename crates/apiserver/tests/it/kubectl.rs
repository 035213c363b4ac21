//! What people type.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

use crate::{cluster::Cluster, programs::programs};

const DEPLOYMENT: &str = "
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
        image: registry.local/busybox:1
        resources: {limits: {cpu: 500m, memory: 64Mi}}
        ports: [{containerPort: 80}]
";

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: solo, labels: {app: solo}}
spec:
  containers: [{name: c, image: 'busybox:1', resources: {limits: {cpu: 0.5}}}]
";

const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: edge-1, labels: {kubernetes.io/hostname: edge-1}}
spec: {podCIDR: 10.244.0.0/24}
";

#[tokio::test]
async fn people_apply_look_change_and_delete() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        // Not through `k`: the old kubectl warns of the newer server.
        let version = cluster.run(program, "admin.kubeconfig", &["version", "-o", "json"]).await;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        assert!(version.contains("v1.35.0+toono"), "{version}");

        let manifest = cluster.file("hello.yaml", DEPLOYMENT);
        assert_eq!(k(&["apply", "-f", &manifest]).await, "deployment.apps/hello created\n");
        assert_eq!(k(&["apply", "-f", &manifest]).await, "deployment.apps/hello unchanged\n");
        let changed =
            DEPLOYMENT.replace("busybox:1", "busybox:2").replace("replicas: 2", "replicas: 3");
        let manifest = cluster.file("hello.yaml", &changed);
        assert_eq!(k(&["apply", "-f", &manifest]).await, "deployment.apps/hello configured\n");
        let image = k(&["get", "deploy", "hello", "-o", "jsonpath={.spec.template.spec.containers[*].image} {.spec.replicas} {.metadata.generation}"]).await;
        assert_eq!(image, "registry.local/busybox:2 3 2");

        let table = k(&["get", "deployments"]).await;
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
        assert_eq!(&lines[1][..4], ["hello", "0/3", "0", "0"]);
        let wide = k(&["get", "deployments", "-A", "-o", "wide"]).await;
        assert!(
            wide.contains("NAMESPACE")
                && wide.contains("registry.local/busybox:2")
                && wide.contains("app=hello"),
            "{wide}"
        );

        assert_eq!(
            k(&["scale", "deployment/hello", "--replicas=5"]).await,
            "deployment.apps/hello scaled\n"
        );
        assert_eq!(
            k(&["label", "deploy", "hello", "tier=front"]).await,
            "deployment.apps/hello labeled\n"
        );
        assert!(k(&["get", "deploy", "-l", "tier in (front)"]).await.contains("hello"));
        // The oldest one says "annotate".
        let said = k(&["annotate", "deploy", "hello", "note=x"]).await;
        assert!(said.starts_with("deployment.apps/hello annotate"), "{said}");
        assert_eq!(
            k(&["set", "image", "deploy/hello", "web=busybox:3"]).await,
            "deployment.apps/hello image updated\n"
        );
        let described = k(&["describe", "deployment", "hello"]).await;
        assert!(described.contains("busybox:3") && described.contains("5 desired"), "{described}");
        assert_eq!(
            k(&["delete", "deployment", "hello"]).await,
            "deployment.apps \"hello\" deleted\n"
        );
        cluster.stop().await;
    }
}

#[tokio::test]
async fn pods_and_nodes_are_shown_and_described() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        let (pod, node) = (cluster.file("pod.yaml", POD), cluster.file("node.yaml", NODE));
        k(&["apply", "-f", &pod, "-f", &node]).await;
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.7"}],
            "nodeInfo": {"kubeletVersion": "v1.35.0+toono", "osImage": "Debian", "kernelVersion": "6.1",
                "containerRuntimeVersion": "toono://1", "architecture": "amd64", "bootID": "", "machineID": "",
                "systemUUID": "", "kubeProxyVersion": "", "operatingSystem": "linux"}}})
        .to_string();
        k(&["patch", "node", "edge-1", "--subresource=status", "--type=merge", "-p", &status])
            .await;
        let nodes = k(&["get", "nodes", "-o", "wide"]).await;
        let lines: Vec<Vec<&str>> =
            nodes.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[0].join(" "),
            "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME"
        );
        assert_eq!(lines[1][..3], ["edge-1", "Ready", "<none>"]);
        assert_eq!(k(&["cordon", "edge-1"]).await, "node/edge-1 cordoned\n");
        assert!(k(&["get", "nodes"]).await.contains("Ready,SchedulingDisabled"));
        assert_eq!(k(&["uncordon", "edge-1"]).await, "node/edge-1 uncordoned\n");
        k(&["taint", "node", "edge-1", "a=b:NoSchedule"]).await;

        let pods = k(&["get", "pods", "-o", "wide"]).await;
        let lines: Vec<Vec<&str>> =
            pods.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[0].join(" "),
            "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"
        );
        assert_eq!(lines[1][..4], ["solo", "0/1", "Pending", "0"]);
        for what in [["describe", "pod", "solo"], ["describe", "node", "edge-1"]] {
            let described = k(&what).await;
            assert!(described.contains("Name:"), "{described}");
        }
        assert!(k(&["get", "pods,nodes,deploy,ns", "-A"]).await.contains("kube-node-lease"));
        assert!(k(&["get", "all", "-A"]).await.contains("pod/solo"));
        assert!(k(&["get", "pod", "solo", "-o", "yaml"]).await.contains("cpu: 500m"));
        assert_eq!(
            k(&["delete", "pod", "solo"])
                .await
                .lines()
                .next()
                .map(|line| line.starts_with("pod \"solo\" deleted")),
            Some(true)
        );
        cluster.stop().await;
    }
}

#[tokio::test]
async fn discovery_lists_what_there_is() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let listed = cluster.kubectl(program, &["api-resources"]).await;
        for line in [
            "deployments deploy apps/v1 true Deployment",
            "nodes no v1 false Node",
            "leases coordination.k8s.io/v1 true Lease",
            "cronjobs cj batch/v1 true CronJob",
            "customresourcedefinitions crd,crds apiextensions.k8s.io/v1 false CustomResourceDefinition",
            "tokenreviews authentication.k8s.io/v1 false TokenReview",
        ] {
            let found = listed
                .lines()
                .any(|given| given.split_whitespace().collect::<Vec<_>>().join(" ") == line);
            assert!(found, "{line} in\n{listed}");
        }
        let versions = cluster.kubectl(program, &["api-versions"]).await;
        let expected = [
            "admissionregistration.k8s.io/v1",
            "apiextensions.k8s.io/v1",
            "apps/v1",
            "authentication.k8s.io/v1",
            "authorization.k8s.io/v1",
            "batch/v1",
            "certificates.k8s.io/v1",
            "coordination.k8s.io/v1",
            "discovery.k8s.io/v1",
            "events.k8s.io/v1",
            "metrics.k8s.io/v1beta1",
            "networking.k8s.io/v1",
            "node.k8s.io/v1",
            "policy/v1",
            "rbac.authorization.k8s.io/v1",
            "scheduling.k8s.io/v1",
            "storage.k8s.io/v1",
            "v1",
        ];
        assert_eq!(versions.lines().collect::<Vec<_>>(), expected);
        assert_eq!(cluster.kubectl(program, &["get", "--raw", "/readyz"]).await, "ok");
        cluster.stop().await;
    }
}

#[tokio::test]
async fn mistakes_are_told_in_kubernetes_words() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let fails = async |args: &[&str]| cluster.kubectl_fails(program, args).await;
        let said = fails(&["get", "pod", "x"]).await;
        assert_eq!(said, "Error from server (NotFound): pods \"x\" not found\n");
        let typo = cluster.file("typo.yaml", &DEPLOYMENT.replace("replicas:", "replcas:"));
        let said = fails(&["apply", "-f", &typo]).await;
        assert!(said.contains("strict decoding error: unknown field \"spec.replcas\""), "{said}");
        let wrong = cluster.file(
            "wrong.yaml",
            &DEPLOYMENT.replace("matchLabels: {app: hello}", "matchLabels: {app: x}"),
        );
        let said = fails(&["apply", "-f", &wrong]).await;
        assert!(
            said.contains("The Deployment \"hello\" is invalid: spec.template.metadata.labels"),
            "{said}"
        );
        let said = fails(&["apply", "--server-side", "-f", &wrong]).await;
        assert!(said.contains("\"hello\" is invalid: spec.template.metadata.labels"), "{said}");
        let said = fails(&["apply", "--server-side", "-f", &typo]).await;
        assert!(said.contains(".spec.replcas: field not declared in schema"), "{said}");
        let pod = cluster.file("pod.yaml", POD);
        let said = fails(&["apply", "-n", "nowhere", "-f", &pod]).await;
        assert!(said.contains("namespaces \"nowhere\" not found"), "{said}");
        assert_eq!(
            cluster.kubectl(program, &["apply", "--dry-run=server", "-f", &pod]).await,
            "pod/solo created (server dry run)\n"
        );
        assert!(fails(&["get", "pod", "solo"]).await.contains("not found"));
        assert_eq!(cluster.kubectl(program, &["create", "-f", &pod]).await, "pod/solo created\n");
        assert!(fails(&["create", "-f", &pod]).await.contains("(AlreadyExists)"));
        cluster.stop().await;
    }
}

#[tokio::test]
async fn watches_and_rollouts_follow_changes() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let manifest = cluster.file("hello.yaml", DEPLOYMENT);
        cluster.kubectl(program, &["apply", "-f", &manifest]).await;
        let mut watching = cluster
            .command(program, "admin.kubeconfig", &["get", "deploy", "-w"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
        let mut next = async || {
            timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap().unwrap()
        };
        assert!(next().await.starts_with("NAME"));
        assert!(next().await.contains("0/2"));
        let rollout = cluster
            .command(
                program,
                "admin.kubeconfig",
                &["rollout", "status", "deploy/hello", "--timeout=30s"],
            )
            .output();
        let rollout = tokio::spawn(rollout);
        let status =
            json!({"status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
            "readyReplicas": 2, "availableReplicas": 2}})
            .to_string();
        cluster
            .kubectl(
                program,
                &[
                    "patch",
                    "deploy",
                    "hello",
                    "--subresource=status",
                    "--type=merge",
                    "-p",
                    &status,
                ],
            )
            .await;
        assert!(next().await.contains("2/2"));
        let rolled = rollout.await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&rolled.stdout);
        assert!(rolled.status.success() && said.contains("successfully rolled out"), "{said}");
        cluster.kubectl(program, &["scale", "deploy", "hello", "--replicas=4"]).await;
        assert!(next().await.contains("2/4"));
        watching.kill().await.unwrap();
        let waited = cluster
            .kubectl(program, &["wait", "deploy/hello", "--for=jsonpath={.status.readyReplicas}=2"])
            .await;
        assert!(waited.contains("condition met"));
        cluster.stop().await;
    }
}

#[tokio::test]
async fn a_namespace_stays_until_it_is_finalized() {
    let program = programs()[0];
    let cluster = Cluster::start().await;
    cluster.kubectl(program, &["create", "namespace", "shop"]).await;
    cluster
        .kubectl(program, &["-n", "shop", "create", "configmap", "settings", "--from-literal=a=b"])
        .await;
    cluster
        .kubectl(
            program,
            &["-n", "shop", "create", "secret", "generic", "keys", "--from-literal=a=b"],
        )
        .await;
    assert!(
        cluster
            .kubectl(program, &["-n", "shop", "get", "cm,secret"])
            .await
            .contains("configmap/settings")
    );
    let deleted = cluster.kubectl(program, &["delete", "namespace", "shop", "--wait=false"]).await;
    assert!(deleted.contains("namespace \"shop\" deleted"), "{deleted}");
    // It stays until its finalizer is taken away, which only one path does.
    let label = ["label", "namespace", "shop", "kept=yes"];
    cluster.kubectl(program, &label).await;
    let state = "-o=jsonpath={.status.phase} {.spec.finalizers}";
    let found = cluster.kubectl(program, &["get", "namespace", "shop", state]).await;
    assert_eq!(found, "Terminating [\"kubernetes\"]");
    let refused =
        cluster.kubectl_fails(program, &["-n", "shop", "create", "configmap", "late"]).await;
    assert!(refused.contains("because it is being terminated"), "{refused}");
    let finalized =
        r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "spec": {}}"#;
    let file = cluster.file("finalized.json", finalized);
    let path = "/api/v1/namespaces/shop/finalize";
    cluster.kubectl(program, &["replace", "--raw", path, "-f", &file]).await;
    let gone = cluster.kubectl_fails(program, &["get", "namespace", "shop"]).await;
    assert!(gone.contains("namespaces \"shop\" not found"), "{gone}");
    cluster.stop().await;
}

/// Newer versions write what these commands make as protobuf.
#[tokio::test]
async fn what_commands_make_is_what_was_asked_for() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        k(&["create", "namespace", "shop"]).await;
        let in_shop: [(&[&str], &str); 5] = [
            (&["create", "configmap", "c", "--from-literal=a=b"], "configmap/c"),
            (&["create", "secret", "generic", "s", "--from-literal=p=q"], "secret/s"),
            (&["create", "deployment", "d", "--image=x:1", "--replicas=0"], "deployment.apps/d"),
            (&["create", "serviceaccount", "a"], "serviceaccount/a"),
            (&["create", "service", "clusterip", "v", "--tcp=80:http"], "service/v"),
        ];
        for (command, what) in in_shop {
            let dry = [&["-n", "shop", "--dry-run=server"], command].concat();
            assert_eq!(k(&dry).await, format!("{what} created (server dry run)\n"));
            let command = [&["-n", "shop"], command].concat();
            assert_eq!(k(&command).await, format!("{what} created\n"));
        }
        for (what, path, value) in [
            ("cm/c", "{.data.a}", "b"),
            ("secret/s", "{.type} {.data.p}", "Opaque cQ=="),
            ("deploy/d", "{.spec.replicas} {.spec.strategy.type}", "0 RollingUpdate"),
            ("deploy/d", "{.spec.template.spec.containers[*].imagePullPolicy}", "IfNotPresent"),
            ("svc/v", "{.spec.ports[0].port} {.spec.ports[0].targetPort}", "80 http"),
        ] {
            let path = format!("jsonpath={path}");
            assert_eq!(k(&["-n", "shop", "get", what, "-o", &path]).await, value, "{what}");
        }
        cluster.stop().await;
    }
}

#[tokio::test]
async fn a_dry_run_differs_in_what_would_change_only() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let map = |value: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
                "data": {"k": value}})
            .to_string()
        };
        let (old, new) = (cluster.file("old.json", &map("a")), cluster.file("new.json", &map("b")));
        let revision = "jsonpath={.metadata.resourceVersion}";
        let apply = ["apply", "--dry-run=server", "-o", revision, "-f"];
        assert_eq!(cluster.kubectl(program, &[&apply[..], &[&old]].concat()).await, "");
        cluster.kubectl(program, &["apply", "-f", &old]).await;
        let kept = cluster.kubectl(program, &["get", "cm", "m", "-o", revision]).await;
        assert_eq!(cluster.kubectl(program, &[&apply[..], &[&new]].concat()).await, kept);
        let differs = cluster.run(program, "admin.kubeconfig", &["diff", "-f", &new]).await;
        let differs = String::from_utf8_lossy(&differs.stdout).into_owned();
        let changed = |sign: char| {
            differs.lines().filter(move |line| {
                line.starts_with(sign) && !line.starts_with("---") && !line.starts_with("+++")
            })
        };
        assert!(changed('-').eq(["-  k: a"]) && changed('+').eq(["+  k: b"]), "{differs}");
        cluster.stop().await;
    }
}

#[tokio::test]
async fn less_common_commands_work_too() {
    for program in programs() {
        let cluster = Cluster::start().await;
        let k = async |args: &[&str]| cluster.kubectl(program, args).await;
        let node = cluster.file("node.yaml", NODE);
        k(&["create", "-f", &node]).await;
        assert_eq!(
            k(&["create", "deployment", "web", "--image=nginx:1"]).await,
            "deployment.apps/web created\n"
        );
        assert_eq!(k(&["expose", "deployment", "web", "--port=80"]).await, "service/web exposed\n");
        assert!(k(&["get", "svc"]).await.contains("80/TCP"));
        assert_eq!(k(&["run", "one", "--image=busybox:1"]).await, "pod/one created\n");
        let binding = cluster.file(
            "binding.json",
            &json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": "one"}, "target": {"kind": "Node", "name": "edge-1"}})
            .to_string(),
        );
        k(&["create", "--raw", "/api/v1/namespaces/default/pods/one/binding", "-f", &binding])
            .await;
        assert!(
            k(&["get", "pods", "--field-selector", "spec.nodeName=edge-1", "-o", "name"])
                .await
                .contains("pod/one")
        );
        k(&["delete", "pod", "one", "--wait=false"]).await;
        assert!(k(&["get", "pod", "one"]).await.contains("Terminating"));
        let forced = cluster
            .run(
                program,
                "admin.kubeconfig",
                &["delete", "pod", "one", "--force", "--grace-period=0"],
            )
            .await;
        assert!(forced.status.success());
        assert_eq!(k(&["get", "pods", "-o", "name"]).await, "");
        assert_eq!(
            k(&["rollout", "restart", "deploy/web"]).await,
            "deployment.apps/web restarted\n"
        );
        assert_eq!(k(&["rollout", "pause", "deploy/web"]).await, "deployment.apps/web paused\n");
        assert_eq!(
            k(&["set", "env", "deploy/web", "A=b"]).await,
            "deployment.apps/web env updated\n"
        );
        let patch =
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"nginx","image":"nginx:2"}]}}}}"#;
        assert_eq!(
            k(&["patch", "deploy", "web", "-p", patch]).await,
            "deployment.apps/web patched\n"
        );
        let spec = k(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].env[0].name}"]).await;
        assert_eq!(spec, "nginx:2 A");
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}).to_string();
        k(&["create", "-f", &cluster.file("map.json", &map)]).await;
        assert_eq!(k(&["delete", "configmap", "--all"]).await, "configmap \"m\" deleted\n");
        k(&["delete", "deploy,svc", "--all"]).await;
        k(&["drain", "edge-1", "--ignore-daemonsets"]).await;
        cluster.stop().await;
    }
}
