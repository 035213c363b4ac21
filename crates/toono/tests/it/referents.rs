//! What pods get of ConfigMaps and Secrets, by kubectl and on a real edge: before, while and after they change, with
//! the link cut meanwhile.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{edge::Edge, wait::until};

/// What takes a poke, a fetch and a report, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
const NODE: &str = "pool-a-1";

#[test]
fn containers_get_what_they_reference_and_see_it_change() {
    let edge = Edge::up();
    edge.apply(&pod());
    let events = || edge.kubectl(&["get", "events"]);
    until("the volumes to be missed", SOON, || {
        events()
            .contains(r#"MountVolume.SetUp failed for volume "conf" : configmap "conf" not found"#)
            .then_some(())
    });
    assert_eq!(waiting(&edge), "ContainerCreating");
    edge.kubectl(&["create", "configmap", "conf", "--from-literal=k=1", "--from-literal=other=o"]);
    edge.kubectl(&["create", "secret", "generic", "key", "--from-literal=k=v1"]);
    until("the variable to be missed", SOON, || {
        (waiting(&edge) == "CreateContainerConfigError").then_some(())
    });
    edge.kubectl(&["create", "secret", "generic", "late", "--from-literal=word=here"]);
    edge.kubectl(&["wait", "pod/reader", "--for=condition=Ready", "--timeout=30s"]);
    for (command, expected) in [
        ("echo $LATE $C_k $C_other ${NONE-none} $CPUS", "here 1 o none 1"),
        ("cat /conf/k /key/k /all/deep/k /one", "1v111"),
        ("cat /all/labels", "app=\"reader\""),
        ("stat -c %a -L /key/k", "400"),
        ("echo x > /conf/k || echo refused", "refused"),
        ("grep -c BEGIN /var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "2"),
        ("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace", "default"),
    ] {
        assert_eq!(said(&edge, command), expected, "{command}");
    }

    edge.kubectl(&["patch", "configmap", "conf", "-p", r#"{"data": {"k": "2"}}"#]);
    edge.kubectl(&["label", "pod", "reader", "app=library", "--overwrite"]);
    until_said(&edge, "cat /conf/k /all/deep/k /all/labels /one", "22app=\"library\"1");
    the_link_is_cut_meanwhile(&edge);
}

/// The agent dies, the container crashes and the ConfigMap changes, all while nobody reaches the site.
fn the_link_is_cut_meanwhile(edge: &Edge) {
    let uid = edge.kubectl_json(&["get", "pod", "reader"])["metadata"]["uid"].clone();
    let uid = uid.as_str().unwrap();
    edge.toono_here(&["lab", "cut"], &["pool-a"]);
    edge.kubectl(&["patch", "configmap", "conf", "-p", r#"{"data": {"k": "3"}}"#]);
    edge.kubectl(&["delete", "secret", "late"]);
    let agent = edge.process("node", NODE);
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    until("the agent's end", SOON, || kill(Pid::from_raw(agent), None).is_err().then_some(()));
    edge.run_up_without_waiting();
    let crashed = sleeping(uid).expect("the container outlives its agent");
    kill(Pid::from_raw(crashed), Signal::SIGKILL).unwrap();
    let again =
        until("the container to run again", SOON, || sleeping(uid).filter(|pid| *pid != crashed));
    let environ = std::fs::read_to_string(format!("/proc/{again}/environ")).unwrap();
    let variables: Vec<&str> = environ.split('\0').collect();
    assert!(variables.contains(&"LATE=here") && variables.contains(&"C_k=2"), "{variables:?}");
    let seen = std::fs::read_to_string(format!("/proc/{again}/root/conf/k")).unwrap();
    assert_eq!(seen, "2", "what the node knows");

    edge.toono_here(&["lab", "heal"], &["pool-a"]);
    until("the change to arrive", SOON, || {
        let seen = std::fs::read_to_string(format!("/proc/{again}/root/conf/k")).unwrap();
        (seen == "3").then_some(())
    });
    edge.kubectl(&["wait", "pod/reader", "--for=condition=Ready", "--timeout=30s"]);
    assert_eq!(said(edge, "cat /conf/k; echo $LATE"), "3here", "a run keeps its variables");
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "reader", "labels": {"app": "reader"}},
        "spec": {
            "nodeName": NODE, "terminationGracePeriodSeconds": 0,
            "volumes": [
                {"name": "conf", "configMap": {"name": "conf"}},
                {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}},
                {"name": "all", "projected": {"sources": [
                    {"configMap": {"name": "conf", "items": [{"key": "k", "path": "deep/k"}]}},
                    {"secret": {"name": "never", "optional": true}},
                    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}],
            "containers": [{
                "name": "main", "image": "lab.toono.io/busybox:1", "command": ["sleep", "1000"],
                "resources": {"limits": {"cpu": "500m"}},
                "env": [
                    {"name": "LATE", "valueFrom": {"secretKeyRef": {"name": "late", "key": "word"}}},
                    {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "never", "key": "k", "optional": true}}},
                    {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
                "envFrom": [{"prefix": "C_", "configMapRef": {"name": "conf"}}],
                "volumeMounts": [
                    {"name": "conf", "mountPath": "/conf"}, {"name": "key", "mountPath": "/key"},
                    {"name": "all", "mountPath": "/all"},
                    {"name": "conf", "mountPath": "/one", "subPath": "k"}]}]}})
}

/// Why the container waits.
fn waiting(edge: &Edge) -> String {
    let pod = edge.kubectl_json(&["get", "pod", "reader"]);
    let state = &pod["status"]["containerStatuses"][0]["state"];
    state["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
}

/// What a command in the container prints.
fn said(edge: &Edge, command: &str) -> String {
    let shell = format!("({command}) 2>/dev/null");
    edge.kubectl(&["exec", "reader", "--", "sh", "-c", &shell]).trim().to_owned()
}

fn until_said(edge: &Edge, command: &str, expected: &str) {
    until(command, SOON, || (said(edge, command) == expected).then_some(()));
}

/// The process of the pod's container, once it runs its own program.
fn sleeping(uid: &str) -> Option<i32> {
    let read = |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    let processes = std::fs::read_dir("/proc").unwrap();
    let mut pids =
        processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let in_pod = read(*pid, "cgroup").is_ok_and(|text| text.contains(uid));
        in_pod && read(*pid, "cmdline").is_ok_and(|text| text.starts_with("sleep\0"))
    })
}
