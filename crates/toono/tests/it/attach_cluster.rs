//! `toono server --attach` beside a Kubernetes that knows nothing of OpenYurt: here a server whose controllers of
//! OpenYurt's kinds are off. Nodes are objects, and what a kubelet would do for pods the test does by kubectl.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cloud::{Cloud, assert_refused},
    edge::{TOONO, Turn, success},
    wait::until,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a plain Kubernetes has.
const PLAIN: &str =
    "*,-daemonpodupdater,-hubleader,-nodebucket,-nodepool,-podbinding,-yurtappset,-yurtstaticset";
/// The account of `toono rbac`.
const ACCOUNT: &str = "system:serviceaccount:kube-system:toono";

/// A running `toono server --attach`.
struct Attached {
    child: Child,
    log: PathBuf,
}

impl Attached {
    fn start(cloud: &Cloud, name: &str, kubeconfig: &Path) -> Self {
        let log = cloud.dir.path().join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let mut command = attach(kubeconfig);
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn says(&self, words: &str) {
        until(&format!("{words:?} in {:?}", self.log), PATIENCE, || {
            self.log().contains(words).then_some(())
        });
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {:?}\n{}", self.log, self.log());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn attach(kubeconfig: &Path) -> Command {
    let mut command = Command::new(TOONO);
    command.args(["server", "--attach"]).arg(kubeconfig).stdin(Stdio::null());
    command
}

fn create(cloud: &Cloud, object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    let path = cloud
        .dir
        .path()
        .join(format!("{kind}-{}.json", object["metadata"]["name"].as_str().unwrap()));
    std::fs::write(&path, object.to_string()).unwrap();
    cloud.kubectl(&["create", "-f", path.to_str().unwrap()]);
}

fn list(cloud: &Cloud, arguments: &[&str]) -> Vec<Value> {
    let text = cloud.kubectl(&[&["get", "-o", "json"], arguments].concat());
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// A field of one object; empty where there is none.
fn field(cloud: &Cloud, kind: &str, name: &str, path: &str) -> String {
    cloud.kubectl(&["get", kind, name, "-o", &format!("jsonpath={{{path}}}")])
}

fn set_ready(cloud: &Cloud, node: &str, ready: bool) {
    let status = if ready { "True" } else { "False" };
    let patch = json!({"status": {"capacity": {"cpu": "4", "memory": "4Gi", "pods": "100"},
        "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "100"},
        "conditions": [{"type": "Ready", "status": status, "reason": "Test",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    cloud.kubectl(&["patch", "node", node, "--subresource=status", "-p", &patch.to_string()]);
}

/// What kubelets do: new pods run, and those that are to go are gone. Not on nodes that are away.
fn run_pods(cloud: &Cloud, away: &[&str]) {
    for pod in list(cloud, &["pods", "-n", "default"]) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let Some(node) = pod["spec"]["nodeName"].as_str() else { continue };
        if away.contains(&node) {
            continue;
        }
        // Somebody else may be quicker: the next round sees it.
        if pod["metadata"]["deletionTimestamp"].is_string() {
            let gone = ["delete", "pod", name, "--force", "--grace-period=0", "--wait=false"];
            cloud.kubectl_command(&gone).output().unwrap();
        } else if pod["status"]["phase"] != "Running" {
            let status = json!({"status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            let run = ["patch", "pod", name, "--subresource=status", "-p", &status.to_string()];
            cloud.kubectl_command(&run).output().unwrap();
        }
    }
}

/// By node, the images of the running daemons of a set.
fn daemons(cloud: &Cloud, app: &str) -> BTreeMap<String, String> {
    let pods = list(cloud, &["pods", "-l", &format!("app={app}")]);
    let running = pods.iter().filter(|pod| {
        pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    running
        .map(|pod| (text(&pod["spec"]["nodeName"]), text(&pod["spec"]["containers"][0]["image"])))
        .collect()
}

fn workload(kind: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

/// A plain Kubernetes with three nodes for a shop and one of others, whose workloads run.
fn plain(audit: &Path) -> Cloud {
    let audit = audit.to_str().unwrap();
    let arguments =
        ["--controllers", PLAIN, "--node-monitor-grace-period", "1h", "--audit-log-path", audit];
    let cloud = Cloud::start_with(&arguments);
    for node in ["theirs", "n1", "n2", "n3"] {
        let labels = json!({"place": if node == "theirs" { "theirs" } else { "shop" }});
        create(
            &cloud,
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}}),
        );
        set_ready(&cloud, node, true);
    }
    let mut deployment = workload("Deployment", "theirs", json!({"replicas": 2}));
    let mut daemons =
        workload("DaemonSet", "their-daemons", json!({"updateStrategy": {"type": "OnDelete"}}));
    for object in [&mut deployment, &mut daemons] {
        object["spec"]["template"]["spec"]["nodeSelector"] = json!({"place": "theirs"});
        create(&cloud, object);
    }
    cloud.kubectl(&["expose", "deployment", "theirs", "--port=80"]);
    until("their pods", PATIENCE, || {
        run_pods(&cloud, &[]);
        (list(&cloud, &["pods"]).len() == 3
            && field(&cloud, "deployment", "theirs", ".status.availableReplicas") == "2")
            .then_some(())
    });
    cloud
}

/// By uid, the version of what is not for OpenYurt's controllers to touch.
fn census(cloud: &Cloud) -> BTreeMap<String, String> {
    let kinds = "nodes,pods,deployments,replicasets,daemonsets,controllerrevisions,services,endpointslices,configmaps,secrets,\
        serviceaccounts,namespaces,clusterroles,clusterrolebindings,customresourcedefinitions";
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = list(cloud, &[kinds, "-A"]);
    let others = all.iter().filter(|object| object["metadata"]["labels"]["place"] != "shop");
    others
        .map(|it| (text(&it["metadata"]["uid"]), text(&it["metadata"]["resourceVersion"])))
        .collect()
}

/// A kubeconfig of the account that `toono rbac` makes.
fn account(cloud: &Cloud) -> PathBuf {
    let rights = Command::new(TOONO).arg("rbac").output().unwrap();
    apply(cloud, &rights, &[]);
    let token = cloud.kubectl(&["-n", "kube-system", "create", "token", "toono"]);
    let path = cloud.dir.path().join("toono.kubeconfig");
    std::fs::copy(cloud.dir.path().join("admin.kubeconfig"), &path).unwrap();
    let config = |arguments: &[&str]| {
        let output = cloud
            .kubectl_command(&[&["config"], arguments].concat())
            .env("KUBECONFIG", &path)
            .output();
        success(&format!("kubectl config {arguments:?}"), output.unwrap());
    };
    config(&["unset", "users"]);
    config(&["set-credentials", "toono", &format!("--token={}", token.trim())]);
    config(&["set-context", "--current", "--user=toono"]);
    path
}

fn apply(cloud: &Cloud, printed: &Output, arguments: &[&str]) {
    assert!(printed.status.success());
    let path = cloud.dir.path().join("printed.yaml");
    std::fs::write(&path, &printed.stdout).unwrap();
    cloud.kubectl(&[&["apply", "-f", path.to_str().unwrap()], arguments].concat());
}

fn holder(cloud: &Cloud) -> String {
    let path = "jsonpath={.spec.holderIdentity}";
    let lease = ["-n", "kube-system", "get", "lease", "toono-controllers", "-o", path];
    String::from_utf8(cloud.kubectl_command(&lease).output().unwrap().stdout).unwrap()
}

/// What the account asked, each as verb and resource; nothing of it may have been refused.
fn asked(audit: &Path) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for line in std::fs::read_to_string(audit).unwrap().lines() {
        // The last line may still be written.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        if event["user"]["username"] == ACCOUNT {
            assert_ne!(event["responseStatus"]["code"], 403, "{event}");
            let part =
                |name: &str| event["objectRef"][name].as_str().unwrap_or_default().to_owned();
            let verb = event["verb"].as_str().unwrap();
            *asked.entry(format!("{verb} {}", part("resource"))).or_default() += 1;
        }
    }
    asked
}

#[test]
fn openyurts_controllers_run_beside_a_plain_kubernetes_and_touch_nothing_else() {
    let _turn = Turn::beside();
    let scratch = tempfile::tempdir().unwrap();
    let audit = scratch.path().join("audit.log");
    let cloud = plain(&audit);
    let kubeconfig = account(&cloud);
    let before = until("a cluster at rest", PATIENCE, || {
        let before = census(&cloud);
        std::thread::sleep(Duration::from_secs(1));
        (census(&cloud) == before).then_some(before)
    });
    let mut one = Attached::start(&cloud, "one", &kubeconfig);
    one.says("leading");
    let first = holder(&cloud);
    let two = Attached::start(&cloud, "two", &kubeconfig);
    two.says("attached");

    pools_have_their_nodes(&cloud);
    an_app_is_in_its_pool(&cloud);
    an_upgrade_goes_around_a_node_that_is_away(&cloud);

    assert!(!two.log().contains("leading"), "two do the same work");
    one.kill();
    until("another leader", PATIENCE, || {
        Some(holder(&cloud)).filter(|holder| !holder.is_empty() && *holder != first)
    });
    let labels = json!({"spec": {"labels": {"zone": "b"}}}).to_string();
    cloud.kubectl(&["patch", "nodepool", "shop", "--type=merge", "-p", &labels]);
    until("what the second one does", PATIENCE, || {
        (field(&cloud, "node", "n1", ".metadata.labels.zone") == "b").then_some(())
    });

    let after = census(&cloud);
    for (uid, version) in &before {
        assert_eq!(after.get(uid), Some(version), "{uid} was touched");
    }
    let asked = asked(&audit);
    let writes = asked
        .keys()
        .filter(|it| !["get", "list", "watch"].contains(&it.split(' ').next().unwrap()));
    let writes: Vec<&str> = writes.map(String::as_str).collect();
    for expected in
        ["create deployments", "delete pods", "patch nodepools", "patch nodes", "update leases"]
    {
        assert!(writes.contains(&expected), "{expected} is not in {writes:?}");
    }
    for never in [
        "create pods",
        "patch daemonsets",
        "patch pods",
        "delete events",
        "patch customresourcedefinitions",
    ] {
        assert!(!writes.contains(&never), "{never} is in {writes:?}");
    }
    for unneeded in ["secrets", "jobs", "resourcequotas", "replicasets", "namespaces"] {
        assert!(
            asked.keys().all(|it| !it.ends_with(unneeded)),
            "{unneeded} are asked for: {asked:?}"
        );
    }
}

fn pools_have_their_nodes(cloud: &Cloud) {
    create(
        cloud,
        &json!({"apiVersion": "apps.openyurt.io/v1beta2", "kind": "NodePool", "metadata": {"name": "shop"},
        "spec": {"type": "Edge", "labels": {"zone": "a"}}}),
    );
    cloud.kubectl(&["label", "node", "n1", "n2", "n3", "apps.openyurt.io/nodepool=shop"]);
    until("the pool's nodes", PATIENCE, || {
        let ready = field(cloud, "nodepool", "shop", ".status.readyNodeNum");
        (ready == "3" && field(cloud, "node", "n1", ".metadata.labels.zone") == "a").then_some(())
    });
    until("the pool's bucket", PATIENCE, || {
        let buckets = list(cloud, &["nodebuckets"]);
        (buckets.len() == 1 && buckets[0]["numNodes"] == 3).then_some(())
    });
}

fn an_app_is_in_its_pool(cloud: &Cloud) {
    let template = json!({"metadata": {"labels": {"app": "sales"}}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "sales"}}, "template": {"metadata": {"labels": {"app": "sales"}},
            "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}});
    create(
        cloud,
        &json!({"apiVersion": "apps.openyurt.io/v1beta1", "kind": "YurtAppSet",
        "metadata": {"name": "sales"}, "spec": {"pools": ["shop"],
            "workload": {"workloadTemplate": {"deploymentTemplate": template}}}}),
    );
    until("its pods", PATIENCE, || {
        run_pods(cloud, &[]);
        let on = daemons(cloud, "sales");
        (!on.is_empty() && !on.contains_key("theirs")).then_some(())
    });
    until("its status", PATIENCE, || {
        run_pods(cloud, &[]);
        (field(cloud, "yurtappset", "sales", ".status.readyWorkloads") == "1").then_some(())
    });
}

fn an_upgrade_goes_around_a_node_that_is_away(cloud: &Cloud) {
    let mut set = workload("DaemonSet", "agent", json!({"updateStrategy": {"type": "OnDelete"}}));
    set["metadata"]["annotations"] = json!({"apps.openyurt.io/update-strategy": "AdvancedRollingUpdate",
        "apps.openyurt.io/max-unavailable": "1"});
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({"place": "shop"});
    create(cloud, &set);
    let images = |away: &[&str], expected: [&str; 3]| {
        let nodes = ["n1", "n2", "n3"].map(str::to_owned);
        let expected: BTreeMap<_, _> = nodes.into_iter().zip(expected.map(str::to_owned)).collect();
        until(&format!("{expected:?}"), PATIENCE, || {
            run_pods(cloud, away);
            (daemons(cloud, "agent") == expected).then_some(())
        });
    };
    images(&[], ["web:1", "web:1", "web:1"]);
    set_ready(cloud, "n3", false);
    cloud.kubectl(&["set", "image", "daemonset/agent", "c=web:2"]);
    images(&["n3"], ["web:2", "web:2", "web:1"]);
    set_ready(cloud, "n3", true);
    images(&[], ["web:2", "web:2", "web:2"]);
}

#[test]
fn what_cannot_be_attached_to_is_refused_by_name() {
    let _turn = Turn::beside();
    let cloud = Cloud::start_with(&["--controllers", PLAIN]);
    let admin = cloud.dir.path().join("admin.kubeconfig");
    let refused = |kubeconfig: &Path, more: &[&str], code: &str, says: &str| {
        assert_refused(&attach(kubeconfig).args(more).output().unwrap(), code, says);
    };
    refused(
        &admin,
        &["--controllers", "nodepool,deployment"],
        "not-beside-others",
        "deployment is for the cluster's own",
    );
    refused(&cloud.dir.path().join("none"), &[], "no-kubeconfig", "none");
    refused(&admin, &["--context", "elsewhere"], "no-kubeconfig", "\"elsewhere\"");
    let written = |name: &str, text: &str| {
        let path = cloud.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    refused(&written("text", "hello"), &[], "no-kubeconfig", "text");
    let text = std::fs::read_to_string(&admin).unwrap();
    let other = Cloud::start();
    let dialled = text.replace(&cloud.port.to_string(), &other.port.to_string());
    refused(&written("other", &dialled), &[], "not-trusted", "certificate");
    let kubeconfig = account(&cloud);
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let (head, _) = text.rsplit_once("token: ").unwrap();
    refused(
        &written("bad-token", &format!("{head}token: nonsense\n")),
        &[],
        "no-rights",
        "refused",
    );

    let both = attach(&admin).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2));
    let around = attach(Path::new("in-cluster")).output().unwrap();
    assert_refused(&around, "no-kubeconfig", "incluster environment variable");
}

#[test]
fn an_attached_one_waits_for_the_server_and_for_definitions() {
    let _turn = Turn::beside();
    let mut cloud = Cloud::start_with(&["--controllers", PLAIN]);
    let kubeconfig = account(&cloud);
    cloud.end();
    let waiting = Attached::start(&cloud, "waiting", &kubeconfig);
    waiting.says("the API server does not answer; trying again");
    cloud.spawn();
    waiting.says("leading");
    drop(waiting);

    cloud.kubectl(&["delete", "crd", "yurtstaticsets.apps.openyurt.io"]);
    let waiting = Attached::start(&cloud, "defined", &kubeconfig);
    waiting.says("toono crds | kubectl apply");
    assert!(!waiting.log().contains("attached"), "{}", waiting.log());
    let definitions = Command::new(TOONO).arg("crds").output().unwrap();
    apply(&cloud, &definitions, &["--server-side"]);
    waiting.says("leading");
}
