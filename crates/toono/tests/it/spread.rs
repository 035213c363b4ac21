//! Nodes are spread over three servers; servers die, come back, and are cut off from their store, and no node is
//! called NotReady for that.

use std::time::{Duration, Instant};

use crate::{cloud::Cloud, cluster::Cluster, wait::until};

/// What a server's death may take: a heartbeat's interval, its repetition, and the next server.
const MOVED: Duration = Duration::from_secs(20);
/// A node asks for its grant, and then speaks to its first server.
const SPREAD: Duration = Duration::from_secs(60);
/// Two heartbeats that get no answer, and a handshake.
const SOCKETS: Duration = Duration::from_secs(60);

fn pod(name: &str, node: &str) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "lab.toono.io/busybox:1",
            "command": ["sh", "-c", "echo here is $HOSTNAME; sleep 100000"],
        }]},
    })
    .to_string()
}

/// Every node is heard by exactly one of these, and each of these knows when any was heard last.
fn all_heard(cluster: &Cluster, servers: &[&Cloud]) -> Option<Vec<Vec<String>>> {
    let heard: Vec<_> = servers.iter().map(|server| cluster.heard_by(server)).collect();
    let mut all = heard.concat();
    all.sort();
    (all == cluster.names()).then_some(heard)
}

/// Logs and exec work for every pod through every server.
fn all_reached(servers: &[&Cloud], pods: &[String]) {
    for server in servers {
        for pod in pods {
            assert_eq!(server.kubectl(&["logs", pod]), format!("here is {pod}\n"));
            assert_eq!(server.kubectl(&["exec", pod, "--", "echo", "in"]), "in\n");
        }
    }
}

#[test]
fn a_lost_server_s_nodes_move_and_none_is_called_not_ready() {
    let mut cluster = Cluster::start();
    cluster.start_nodes(0..4, 1);
    until("four nodes to be ready", SPREAD, || {
        let ready = cluster.readiness(&cluster.servers[0]);
        (ready.iter().filter(|ready| ready[1] == "True").count() == 4).then_some(())
    });
    cluster.grow();
    let all = cluster.names().len();
    cluster.start_nodes(4..all, 3);
    let [one, two, three] = &cluster.servers[..] else { panic!("three servers") };
    until("nodes to be ready", SPREAD, || {
        let ready = cluster.readiness(one);
        (ready.len() == all && ready.iter().all(|ready| ready[1] == "True")).then_some(())
    });
    cluster.block_udp("pool-c");
    // The first four were told of one server, and are told again.
    let before = until("nodes to be spread, three of them in sockets", SOCKETS, || {
        let sockets = [one, two, three].map(|server| {
            let overview = cluster.overview(server);
            overview.iter().filter(|node| node["session"] == "websocket").count()
        });
        let spread = all_heard(&cluster, &[one, two, three])?;
        if cluster.names().iter().any(|node| cluster.servers_known_to(node) != 3) {
            return None;
        }
        (sockets.iter().sum::<usize>() == 3).then_some(spread)
    });
    let readiness = cluster.readiness(two);
    // Of nine nodes each server has some, but for one case in 25.
    assert!(before.iter().filter(|nodes| !nodes.is_empty()).count() >= 2, "{before:?}");
    let pods: Vec<String> = cluster.names().iter().map(|node| format!("on-{node}")).collect();
    for (pod_name, node) in pods.iter().zip(cluster.names()) {
        let path = one.dir.path().join("pod.json");
        std::fs::write(&path, pod(pod_name, node)).unwrap();
        one.kubectl(&["create", "-f", path.to_str().unwrap()]);
    }
    one.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);
    all_reached(&[one, two, three], &pods);

    // The one with most of them dies.
    let most = (0..3).max_by_key(|server| before[*server].len()).unwrap();
    let died = Instant::now();
    cluster.servers[most].kill();
    let left: Vec<usize> = (0..3).filter(|server| *server != most).collect();
    let [a, b] = [&cluster.servers[left[0]], &cluster.servers[left[1]]];
    let after =
        until("all of its nodes to be heard by others", MOVED, || all_heard(&cluster, &[a, b]));
    eprintln!("{:?} moved within {:?} to {after:?}", before[most], died.elapsed());
    all_reached(&[a, b], &pods);
    // Longer than the grace, and than the time in which it is found that the server is gone.
    until("the grace to pass", Duration::from_secs(70), || {
        (died.elapsed() > Duration::from_secs(60)).then_some(())
    });
    assert_eq!(cluster.readiness(a), readiness, "a node was NotReady meanwhile");

    // It comes back; its nodes do so over some minutes, and others speak to it meanwhile.
    cluster.servers[most].spawn();
    cluster.servers[most].await_ready();
    let back = &cluster.servers[most];
    until("the returned server to know who speaks to the others", Duration::from_secs(20), || {
        let overview = cluster.overview(back);
        let known = |node: &serde_json::Value| node["session"] != "none";
        (overview.len() == pods.len() && overview.iter().all(known)).then_some(())
    });
    all_reached(&[back], &pods);
    until("some of its nodes to return", Duration::from_secs(400), || {
        (!cluster.heard_by(back).is_empty()).then_some(())
    });

    // A server is cut off from etcd alone.
    let alone = left[0];
    let heard = cluster.heard_by(&cluster.servers[alone]);
    cluster.wires[alone].cut();
    let cut = Instant::now();
    let rest: Vec<&Cloud> =
        (0..3).filter(|server| *server != alone).map(|server| &cluster.servers[server]).collect();
    // It finds out after 7.5 s, and its nodes at their next heartbeat.
    until("its nodes to be heard by others", MOVED + Duration::from_secs(8), || {
        all_heard(&cluster, &rest)
    });
    eprintln!("{heard:?} left the server that was cut off within {:?}", cut.elapsed());
    all_reached(&rest, &pods);
    until("the grace to pass", Duration::from_secs(70), || {
        (cut.elapsed() > Duration::from_secs(60)).then_some(())
    });
    assert_eq!(cluster.readiness(rest[0]), readiness, "a node was NotReady meanwhile");
    cluster.wires[alone].mend();
    until("the server to serve again", Duration::from_secs(30), || {
        let read = cluster.servers[alone].kubectl_command(&["get", "nodes"]).output().unwrap();
        read.status.success().then_some(())
    });

    // A node that really is silent is found.
    let silent = &cluster.names()[0];
    cluster.stop_node(silent);
    until("a silent node to be found", Duration::from_secs(120), || {
        let now = cluster.readiness(rest[0]);
        let unknown = |ready: &&serde_json::Value| ready[1] == "Unknown";
        let found: Vec<_> = now.iter().filter(unknown).collect();
        match &found[..] {
            [] => None,
            [one] if one[0] == silent.as_str() => Some(()),
            others => panic!("not silent: {others:?}"),
        }
    });
}
