//! `toono up` to `toono down`: what the README promises, with everything kubectl shows on the way.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    capture,
    edge::{Edge, condition, kubectls, processes_naming, success},
    leftovers::Machine,
    wait::until,
};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn up_shows_a_working_edge_and_down_leaves_nothing() {
    let before = Machine::now();
    let edge = Edge::prepare();
    let data = edge.data().to_str().unwrap().to_owned();
    let shown = edge.run_up();
    assert!(shown.contains("kubectl"), "up tells what to try:\n{shown}");

    nodes_are_ready_in_two_pools(&edge);
    a_second_up_changes_nothing(&edge);
    for kubectl in kubectls() {
        eprintln!("with {}", kubectl.display());
        edge.use_kubectl(kubectl);
        kubectl_shows_what_kubernetes_shows(&edge);
        logs_and_exec_reach_behind_nat(&edge);
        changes_by_kubectl_work(&edge);
    }
    pods_are_containers_and_scaling_is_real(&edge);
    an_idle_node_is_one_datagram_each_way(&edge);

    let lab = edge.wan_interface().trim_end_matches("-wan").to_owned();
    edge.toono_here(&["down"], &[]);
    assert_eq!(processes_naming(&data), [], "processes left by down");
    assert_eq!(before.added_in(&Machine::now(), &lab), [""; 0], "left by down");
    edge.toono_here(&["down"], &["--purge"]);
}

/// A node that has just been started has no directory yet.
#[test]
fn down_right_after_up_leaves_nothing() {
    let edge = Edge::prepare();
    let data = edge.data().to_str().unwrap().to_owned();
    let mut arguments = edge.up_arguments();
    arguments.extend(["--nodes-per-pool", "6", "--no-wait"].map(str::to_owned));
    success("toono up", edge.toono(&arguments));
    edge.toono_here(&["down"], &[]);
    assert_eq!(processes_naming(&data), [], "processes left by down");
}

fn nodes_are_ready_in_two_pools(edge: &Edge) {
    let names = edge.nodes_with_ready("True");
    assert_eq!(names, ["pool-a-1", "pool-a-2", "pool-b-1", "pool-b-2"]);
    let status = edge.status();
    let pools: Vec<_> =
        status["nodes"].as_array().unwrap().iter().map(|n| n["pool"].as_str().unwrap()).collect();
    assert_eq!(pools, ["pool-a", "pool-a", "pool-b", "pool-b"]);
    assert!(status["nodes"].as_array().unwrap().iter().all(|n| n["session"] == "udp"), "{status}");
}

fn a_second_up_changes_nothing(edge: &Edge) {
    let (processes, pods) = (edge.processes(), pod_uids(edge));
    let start = Instant::now();
    edge.run_up();
    assert!(start.elapsed() < Duration::from_secs(15), "a warm up took {:?}", start.elapsed());
    assert_eq!(edge.processes(), processes);
    assert_eq!(pod_uids(edge), pods);
}

fn kubectl_shows_what_kubernetes_shows(edge: &Edge) {
    let header = |arguments: &[&str]| {
        let text = edge.kubectl(arguments);
        let first = text.lines().next().unwrap();
        first.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(header(&["get", "nodes"]), "NAME STATUS ROLES AGE VERSION");
    assert_eq!(
        header(&["get", "nodes", "-o", "wide"]),
        "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME"
    );
    assert_eq!(header(&["get", "pods", "-A"]), "NAMESPACE NAME READY STATUS RESTARTS AGE");
    assert_eq!(
        header(&["get", "pods", "-o", "wide"]),
        "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"
    );
    assert_eq!(
        header(&["get", "deploy", "-o", "wide"]),
        "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR"
    );
    let all = edge.kubectl(&["get", "nodes,pods,deploy", "-A", "-o", "wide"]);
    for part in ["node/pool-a-1", "pod/hello-", "deployment.apps/hello", "Running", "192.168."] {
        assert!(all.contains(part), "no {part} in:\n{all}");
    }
    let resources = edge.kubectl(&["api-resources"]);
    for part in ["deployments", "apps/v1", "pods", "nodes", "configmaps"] {
        assert!(resources.contains(part), "no {part} in:\n{resources}");
    }
    let node = edge.kubectl(&["describe", "node", "pool-a-1"]);
    for part in
        ["apps.openyurt.io/nodepool=pool-a", "PodCIDR:", "KubeletReady", "Non-terminated Pods"]
    {
        assert!(node.contains(part), "no {part} in:\n{node}");
    }
    let pod = first_pod(edge);
    let described = edge.kubectl(&["describe", "pod", &pod]);
    for part in ["Controlled By:", "Scheduled", "Started", "lab.toono.io/busybox:1"] {
        assert!(described.contains(part), "no {part} in:\n{described}");
    }
    edge.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
}

fn logs_and_exec_reach_behind_nat(edge: &Edge) {
    let pod = first_pod(edge);
    let node = edge.kubectl(&["get", "pod", &pod, "-o", "jsonpath={.spec.nodeName}"]);
    let logs = edge.kubectl(&["logs", &pod]);
    assert!(logs.contains(&format!("serving on {node}")), "{logs}");

    let mut follow =
        edge.kubectl_command(&["logs", "-f", &pod]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let later = lines.find(|line| line.as_ref().is_ok_and(|l| l.starts_with("still here, ")));
    assert!(later.is_some(), "the followed log ended");
    follow.kill().unwrap();
    follow.wait().unwrap();

    let page = edge.kubectl(&["exec", &pod, "--", "wget", "-qO-", "http://127.0.0.1:8080/"]);
    assert_eq!(page.trim(), format!("hello from {node}"));
    let failed =
        edge.kubectl_command(&["exec", &pod, "--", "sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(7), "{failed:?}");

    let mut piped = edge
        .kubectl_command(&["exec", "-i", &pod, "--", "md5sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent = vec![b'x'; 3 << 20];
    piped.stdin.take().unwrap().write_all(&sent).unwrap();
    let output = piped.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).split(' ').next(),
        Some(md5_of(&sent).as_str())
    );

    let terminal = edge.under_a_terminal(&["exec", "-it", &pod, "--", "sh"], "tty; exit\n");
    assert!(terminal.contains("/dev/pts/"), "{terminal}");
}

fn md5_of(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("md5sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

fn pods_are_containers_and_scaling_is_real(edge: &Edge) {
    edge.kubectl(&["scale", "deployment/hello", "--replicas=20"]);
    edge.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    let pods = edge.pods();
    assert_eq!(pods.len(), 20);
    let host_namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    for pod in &pods {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let cgroup = memory_cgroup(uid);
        let limit: u64 = fs::read_to_string(&cgroup.limit).unwrap().trim().parse().unwrap();
        assert_eq!(limit, 32 << 20, "{}", cgroup.limit.display());
        let processes = fs::read_to_string(&cgroup.processes).unwrap();
        let pid = processes.lines().next().expect("a process in the container's cgroup");
        for kind in ["pid", "net", "mnt"] {
            let own = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert_ne!(own, host, "{kind} namespace of {uid}");
        }
        assert_ne!(fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap(), host_namespace);
    }
    let gone: Vec<String> =
        pods.iter().map(|p| p["metadata"]["uid"].as_str().unwrap().to_owned()).collect();

    edge.kubectl(&["scale", "deployment/hello", "--replicas=2"]);
    until("18 pods to go", SOON, || (edge.pods().len() == 2).then_some(()));
    let stay = pod_uids(edge);
    for uid in gone.iter().filter(|uid| !stay.contains(uid)) {
        assert!(cgroups_naming(uid).is_empty(), "cgroups of the deleted pod {uid}");
        assert_eq!(processes_naming(uid), [], "processes of the deleted pod {uid}");
    }
    edge.kubectl(&["scale", "deployment/hello", "--replicas=4"]);
    edge.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
}

fn changes_by_kubectl_work(edge: &Edge) {
    let mut watch = edge
        .kubectl_command(&["get", "configmaps", "-w", "--no-headers"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = BufReader::new(watch.stdout.take().unwrap()).lines();
    let manifest = edge.data().join("config.yaml");
    fs::write(
        &manifest,
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: colours\ndata:\n  sky: blue\n",
    )
    .unwrap();
    let file = manifest.to_str().unwrap();
    assert!(edge.kubectl(&["apply", "-f", file]).contains("created"));
    assert!(edge.kubectl(&["apply", "-f", file]).contains("unchanged"));
    // Every namespace has the cluster's root certificates in a ConfigMap.
    let own = seen.map(Result::unwrap).find(|line| !line.starts_with("kube-root-ca.crt"));
    assert!(own.as_deref().is_some_and(|line| line.starts_with("colours")), "{own:?}");
    watch.kill().unwrap();
    watch.wait().unwrap();
    edge.kubectl(&["delete", "-f", file]);

    edge.kubectl(&["label", "--overwrite", "node", "pool-b-2", "example.io/shelf=top"]);
    assert!(edge.kubectl(&["get", "nodes", "-l", "example.io/shelf=top"]).contains("pool-b-2"));
    edge.kubectl(&["label", "node", "pool-b-2", "example.io/shelf-"]);
    edge.kubectl(&["cordon", "pool-b-2"]);
    assert!(edge.kubectl(&["get", "node", "pool-b-2"]).contains("SchedulingDisabled"));
    edge.kubectl(&["uncordon", "pool-b-2"]);

    let pod = first_pod(edge);
    edge.kubectl(&["delete", "pod", &pod, "--timeout=60s"]);
    until("a replacement", SOON, || {
        let pods = edge.pods();
        let ready = pods.iter().filter(|pod| condition(pod, "Ready") == "True").count();
        (ready == 4 && pods.len() == 4 && first_pod(edge) != pod).then_some(())
    });
}

/// A capture on the cloud's end of the WAN: twelve packets a node, and room for three.
fn an_idle_node_is_one_datagram_each_way(edge: &Edge) {
    let cloud = edge.subnet.replace(".0/24", ".1").parse().unwrap();
    let interface = edge.wan_interface();
    until("tunnels to close", SOON, || {
        let status = edge.status();
        let quiet = |node: &serde_json::Value| {
            node["tunnels"] == 0 && node["bundle_observed"] == node["bundle_desired"]
        };
        status["nodes"].as_array().unwrap().iter().all(quiet).then_some(())
    });
    let seen = capture::record(&interface, cloud, Duration::from_secs(60));
    assert_eq!(seen.tcp, 0, "TCP packets while idle: {seen:?}");
    assert_eq!(seen.packets.len(), 2, "one router for each pool: {seen:?}");
    for (router, packets) in &seen.packets {
        assert!((20..=30).contains(packets), "{router}, two nodes: {packets} packets in 60 s");
    }
}

fn first_pod(edge: &Edge) -> String {
    edge.pods()[0]["metadata"]["name"].as_str().unwrap().to_owned()
}

pub(crate) fn pod_uids(edge: &Edge) -> Vec<String> {
    let mut uids: Vec<String> =
        edge.pods().iter().map(|p| p["metadata"]["uid"].as_str().unwrap().to_owned()).collect();
    uids.sort();
    uids
}

struct MemoryCgroup {
    limit: PathBuf,
    processes: PathBuf,
}

/// The one container's cgroup of a pod, in cgroup v1 or v2.
fn memory_cgroup(uid: &str) -> MemoryCgroup {
    for folder in cgroups_naming(uid) {
        for file in ["memory.limit_in_bytes", "memory.max"] {
            let limit = folder.join(file);
            let bounded = fs::read_to_string(&limit)
                .is_ok_and(|text| text.trim().parse::<u64>().is_ok_and(|bytes| bytes < 1 << 40));
            if bounded {
                return MemoryCgroup { limit, processes: folder.join("cgroup.procs") };
            }
        }
    }
    panic!("no memory-limited cgroup names the pod {uid}");
}

/// Cgroup folders whose path has the uid in it, deepest first.
fn cgroups_naming(uid: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.path().to_string_lossy().contains(uid) {
                    found.push(entry.path());
                }
                folders.push(entry.path());
            }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}
