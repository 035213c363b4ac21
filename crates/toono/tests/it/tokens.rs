//! What a pod gets of the API under its own token: through the node while the link is there, of the node while it is
//! not, and of the server again after that.

use std::{process::Command, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    edge::{Edge, success},
    wait::until,
};

/// What takes a poke, a fetch and a report, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// What a node takes to find out that the link is gone, and more.
const NOTICED: Duration = Duration::from_secs(90);
const NODE: &str = "pool-a-1";
const SECRETS: &str = "var/run/secrets/kubernetes.io/serviceaccount";
/// What the node says beside its own answers.
const ALONE: &str = "the link to the cluster is down";

#[test]
fn a_pod_reads_the_api_with_its_own_token_also_while_the_link_is_cut() {
    let edge = Edge::up_beside();
    set_up(&edge);
    let pod = InPod::find(&edge);
    through_the_node(&pod);
    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    edge.kubectl(&["patch", "configmap", "conf", "-p", r#"{"data": {"k": "2"}}"#]);
    until("the node to answer by itself", NOTICED, || {
        let (_, said) = pod.kubectl(&["get", "configmaps"]);
        said.contains(ALONE).then_some(())
    });
    of_the_node(&pod);
    let agent = edge.process("node", NODE);
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    until("the agent's end", SOON, || kill(Pid::from_raw(agent), None).is_err().then_some(()));
    edge.run_up_without_waiting();
    until("the node to answer again", SOON, || pod.kubectl(&["get", "pods"]).0.then_some(()));
    of_the_node(&pod);
    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    until("the server to answer again", SOON, || {
        let (done, said) = pod.kubectl(&["get", "configmaps", "-o", "jsonpath={.items[*].data.k}"]);
        (done && said == "2").then_some(())
    });
    through_the_node(&pod);
}

fn set_up(edge: &Edge) {
    edge.kubectl(&["create", "serviceaccount", "bot"]);
    edge.kubectl(&["create", "configmap", "conf", "--from-literal=k=1"]);
    edge.kubectl(&["create", "configmap", "other", "--from-literal=other=o"]);
    edge.kubectl(&["create", "secret", "generic", "key", "--from-literal=k=v"]);
    let verbs = "--verb=get,list,watch";
    edge.kubectl(&["create", "role", "reader", verbs, "--resource=configmaps,pods,services"]);
    let of_bot = "--serviceaccount=default:bot";
    edge.kubectl(&["create", "rolebinding", "reader", "--role=reader", of_bot]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asker", "labels": {"app": "asker"}},
        "spec": {
            "nodeName": NODE, "serviceAccountName": "bot", "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "key", "secret": {"secretName": "key"}}],
            "containers": [{
                "name": "main", "image": "lab.toono.io/busybox:1", "command": ["sleep", "1000"],
                "envFrom": [{"configMapRef": {"name": "conf"}}],
                "volumeMounts": [{"name": "key", "mountPath": "/key"}]}]}});
    let path = edge.data().join("asker.json");
    std::fs::write(&path, pod.to_string()).unwrap();
    edge.kubectl(&["apply", "-f", path.to_str().unwrap()]);
    edge.kubectl(&["wait", "pod/asker", "--for=condition=Ready", "--timeout=60s"]);
}

fn through_the_node(pod: &InPod<'_>) {
    let (done, said) =
        pod.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert!(done && said == "system:serviceaccount:default:bot", "{said}");
    let (done, said) = pod.kubectl(&["get", "configmap", "other", "-o", "jsonpath={.data.other}"]);
    assert!(done && said == "o", "{said}");
    let (done, said) = pod.kubectl(&["get", "secret", "key"]);
    assert!(!done && said.contains("Forbidden"), "{said}");
    let (done, said) = pod.with_token("nobody's", &["get", "configmap", "conf"]);
    assert!(!done && said.contains("Unauthorized"), "the node lends nobody its identity: {said}");
}

fn of_the_node(pod: &InPod<'_>) {
    let (done, said) = pod.kubectl(&["get", "configmap", "conf", "-o", "jsonpath={.data.k}"]);
    assert!(done && said == "1", "{said}");
    let (done, said) = pod.kubectl(&["get", "pod", "asker", "-o", "jsonpath={.status.phase}"]);
    assert!(done && said == "Running", "{said}");
    let (done, said) =
        pod.kubectl(&["wait", "pod/asker", "--for=condition=Ready", "--timeout=20s"]);
    assert!(done, "by list and watch: {said}");
    let (done, said) = pod.kubectl(&["get", "pods", "-l", "app=asker", "-o", "name"]);
    assert!(done && said.contains("pod/asker"), "{said}");
    let (done, said) =
        pod.kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.type}"]);
    assert!(done && said == "ClusterIP", "{said}");
    let (done, said) = pod.kubectl(&["get", "secret", "key"]);
    assert!(!done && said.contains("Forbidden"), "the node has it, and will not say: {said}");
    let (done, said) = pod.kubectl(&["get", "configmap", "other"]);
    assert!(!done && said.contains(ALONE), "it may exist: {said}");
    let (done, said) = pod.kubectl(&["delete", "configmap", "conf"]);
    assert!(!done && said.contains("nothing can be written"), "{said}");
    let (done, said) = pod.with_token("nobody's", &["get", "configmap", "conf"]);
    assert!(!done && said.contains("Unauthorized"), "{said}");
}

/// kubectl where the pod is: in its network, with its token and its CAs.
struct InPod<'e> {
    edge: &'e Edge,
    pid: i32,
}

impl<'e> InPod<'e> {
    fn find(edge: &'e Edge) -> Self {
        let uid = edge.kubectl_json(&["get", "pod", "asker"])["metadata"]["uid"].clone();
        let uid = uid.as_str().unwrap();
        let read = |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let processes = std::fs::read_dir("/proc").unwrap();
        let mut pids =
            processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
        let pid = pids.find(|pid| {
            let in_pod = read(*pid, "cgroup").is_ok_and(|text| text.contains(uid));
            in_pod && read(*pid, "cmdline").is_ok_and(|text| text.starts_with("sleep\0"))
        });
        Self { edge, pid: pid.expect("the container runs") }
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/root/{SECRETS}/{name}", self.pid)
    }

    /// Whether it succeeded, and all that it said.
    fn kubectl(&self, arguments: &[&str]) -> (bool, String) {
        let token = std::fs::read_to_string(self.file("token")).unwrap();
        self.with_token(&token, arguments)
    }

    fn with_token(&self, token: &str, arguments: &[&str]) -> (bool, String) {
        let home = self.edge.data().join("in-pod");
        let output = Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-n", "kubectl", "--request-timeout=20s"])
            .arg(format!("--server=https://{}:10273", self.gateway()))
            .arg("--tls-server-name=kubernetes.default.svc")
            .arg(format!("--certificate-authority={}", self.file("ca.crt")))
            .arg(format!("--token={token}"))
            .args(arguments)
            .env("HOME", &home)
            .env("KUBECONFIG", "/dev/null")
            .output()
            .expect("nsenter of util-linux and kubectl must be installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    /// The node, as the pod's network has it.
    fn gateway(&self) -> String {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-n", "ip", "-4", "route", "show", "default"]);
        let route = success("ip route", command.output().expect("iproute2 must be installed"));
        route.split_whitespace().nth(2).expect("a default route").to_owned()
    }
}
