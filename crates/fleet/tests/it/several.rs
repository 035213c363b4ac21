//! Two servers of one cluster, each with its own port: who judges whom, who pokes whom, who may not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Request};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use toono_api::UserInfo;
use toono_fleet::{KnownServer, Server};
use toono_http::{Handler, server::Limits};
use toono_pki::ClusterCa;
use toono_session::{NodeEvent, ReplyFlags, servers::ServerHash};
use toono_wire::{join::SessionGrant, peer::GROUP_SERVERS};

use crate::{
    api::MemoryApi,
    tunnels::{dial_back, serve, ticket},
    world::{HEARTBEAT, Node, World, node_user, ready},
};

/// News come each second, so that a node may have been heard up to a second before it is told.
const GRACE: Duration = Duration::from_secs(3);
/// After this long without news of a living server nobody is judged.
const PATIENCE: Duration = Duration::from_secs(5);

struct Cluster {
    one: World,
    two: World,
    ports: [u16; 2],
}

impl Cluster {
    async fn start() -> Self {
        let (api, ca) = (MemoryApi::new(), Arc::new(ClusterCa::generate().unwrap()));
        let one = World::of(api.clone(), ca.clone(), GRACE).await;
        let two = World::of(api, ca.clone(), GRACE).await;
        let ports = [https(&one, &ca).await, https(&two, &ca).await];
        let cluster = Self { one, two, ports };
        cluster.tell([true, true], [true, true]);
        cluster
    }

    fn server(&self, name: &str) -> Server {
        let (world, port) = match name {
            "one" => (&self.one, self.ports[0]),
            _ => (&self.two, self.ports[1]),
        };
        let udp_port = world.udp.port();
        Server { name: name.to_owned(), host: "127.0.0.1".to_owned(), port, udp_port }
    }

    fn known(&self, live: [bool; 2]) -> Vec<KnownServer> {
        let names = ["one", "two"].into_iter().zip(live);
        names.map(|(name, live)| KnownServer { server: self.server(name), live }).collect()
    }

    /// Tells both who lives, and each whether it reaches the store.
    fn tell(&self, live: [bool; 2], connected: [bool; 2]) {
        self.one.fleet.set_servers("one", self.known(live), connected[0]);
        self.two.fleet.set_servers("two", self.known(live), connected[1]);
    }

    /// Nodes that are ready, and speak to the second server alone.
    async fn nodes(&self, count: usize) -> Vec<Node> {
        let mut nodes = Vec::new();
        for number in 0..count {
            // They join at both in turn.
            let name = format!("edge-{number}");
            let world = if number % 2 == 0 { &self.one } else { &self.two };
            let joined = world.try_join(&name).await.unwrap();
            nodes.push(Node::new(&name, &joined.session, 1, self.two.udp).await);
        }
        for (number, node) in nodes.iter_mut().enumerate() {
            self.two.heard_of(&format!("edge-{number}")).await;
            node.beat().await;
            self.two.until_ready(&format!("edge-{number}"), "True").await;
        }
        nodes
    }
}

impl World {
    /// The server has read this Node.
    async fn heard_of(&self, name: &str) {
        while self.ask(Method::GET, "/fleet/v1/session", &node_user(name), &json!({})).await.0
            != 200
        {
            tokio::task::yield_now().await;
        }
    }
}

/// The fleet's handler behind TLS, where who has a server's certificate is a server.
async fn https(world: &World, ca: &ClusterCa) -> u16 {
    let own = ca.issue_server(&["127.0.0.1".to_owned()]).unwrap();
    let tls = toono_pki::server_config(ca, &own).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let inner = world.fleet.handler();
    let handler: Handler = Arc::new(move |mut request: Request<_>| {
        let shown = request.extensions().get::<toono_http::PeerCertificates>();
        let groups = shown.map(|shown| {
            shown.read_once(|chain| toono_pki::subject(&chain[0]).unwrap().organizations)
        });
        let groups = groups.unwrap_or_default();
        request.extensions_mut().insert(UserInfo::new("whoever", groups));
        inner(request)
    });
    let serving = toono_http::server::serve(
        listener,
        Some(tls),
        handler,
        Limits::default(),
        std::future::pending(),
    );
    tokio::spawn(serving);
    port
}

async fn beat_for(nodes: &mut [Node], duration: Duration) {
    let began = Instant::now();
    while began.elapsed() < duration {
        for node in &mut *nodes {
            node.beat().await;
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

#[tokio::test]
async fn who_speaks_to_any_server_is_silent_for_none() {
    let cluster = Cluster::start().await;
    // Whichever is whose: each server judges some.
    let mut nodes = cluster.nodes(8).await;
    let writes = cluster.one.api.writes();
    beat_for(&mut nodes, GRACE * 2).await;
    assert_eq!(cluster.one.api.writes(), writes, "one of them was called silent");
    for number in 0..8 {
        let node = cluster.one.overview(&format!("edge-{number}")).await;
        assert_eq!(
            (&node["session"], &node["address"]),
            (&"elsewhere".into(), &"server two".into())
        );
        assert!(node["heartbeat_age_ms"].as_u64().unwrap() < 2_000, "{node}");
    }
    // Half of them fall silent, and each is found by the server that judges it.
    let silent = nodes.split_off(4);
    let fell = Instant::now();
    let found = async {
        for number in 4..8 {
            cluster.one.until_ready(&format!("edge-{number}"), "Unknown").await;
        }
    };
    tokio::join!(found, beat_for(&mut nodes, GRACE * 3));
    assert!(fell.elapsed() >= GRACE);
    drop(silent);
    for number in 0..4 {
        let path = format!("/api/v1/nodes/edge-{number}");
        assert_eq!(ready(cluster.one.api.get(&path).as_ref()), "True", "edge-{number}");
    }
}

#[tokio::test]
async fn servers_that_do_not_know_each_other_yet_give_no_index_twice() {
    let cluster = Cluster::start().await;
    let alone = |name| vec![KnownServer { server: cluster.server(name), live: true }];
    cluster.one.fleet.set_servers("one", alone("one"), true);
    cluster.two.fleet.set_servers("two", alone("two"), true);
    let worlds = [&cluster.one, &cluster.two];
    let joins = (0..16).map(|number| async move {
        let name = format!("edge-{number}");
        worlds[number % 2].try_join(&name).await.unwrap().session.index
    });
    let mut indexes = futures::future::join_all(joins).await;
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 16, "{indexes:?}");
}

#[tokio::test]
async fn nobody_is_judged_while_a_living_server_says_nothing() {
    let cluster = Cluster::start().await;
    let nodes = cluster.nodes(6).await;
    let Cluster { one, two, ports } = cluster;
    let known = |live| {
        let server = |name: &str, port| Server {
            name: name.to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            udp_port: 1,
        };
        vec![
            KnownServer { server: server("one", ports[0]), live: true },
            KnownServer { server: server("two", ports[1]), live },
        ]
    };
    one.fleet.set_servers("one", known(true), true);
    drop(nodes);
    // It says nothing more, but its record is fresh.
    let api = two.stop().await;
    let writes = api.writes();
    tokio::time::sleep(PATIENCE + GRACE * 2).await;
    assert_eq!(api.writes(), writes, "the first server cannot know whom the second one heard");
    let died = Instant::now();
    one.fleet.set_servers("one", known(false), true);
    for number in 0..6 {
        one.until_ready(&format!("edge-{number}"), "Unknown").await;
    }
    assert!(died.elapsed() >= GRACE, "they have their grace anew");
}

#[tokio::test]
async fn a_request_reaches_a_node_that_speaks_to_another_server() {
    let cluster = Cluster::start().await;
    let joined = cluster.one.try_join("edge-a").await.unwrap();
    let names: Vec<_> = joined.session.servers.iter().map(|server| &*server.name).collect();
    assert_eq!(names, ["one", "two"]);
    let mut node = Node::new("edge-a", &joined.session, 1, cluster.two.udp).await;
    cluster.two.heard_of("edge-a").await;
    node.beat().await;
    let port = serve(&cluster.one.fleet).await;
    let fleet = cluster.one.fleet.clone();
    let request = Request::get("/logs").body(toono_http::empty()).unwrap();
    let sent = tokio::spawn(async move { fleet.send("edge-a", request).await });
    let ticket = ticket(&mut node).await;
    assert!(
        ServerHash::new("one").owns_ticket(ticket) && !ServerHash::new("two").owns_ticket(ticket)
    );
    assert_eq!(dial_back(port, ticket).await, 101);
    assert_eq!(sent.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn nodes_are_told_of_another_list_and_a_server_that_is_cut_off_is_mute() {
    let cluster = Cluster::start().await;
    let mut node = cluster.nodes(1).await.remove(0);
    let mut known = cluster.known([true, true]);
    let third = Server { name: "three".to_owned(), ..cluster.server("two") };
    known.push(KnownServer { server: third, live: false });
    cluster.two.fleet.set_servers("two", known.clone(), true);
    assert!(flags(&mut node).await.contains(ReplyFlags::REKEY));
    let user = node_user("edge-0");
    let (_, grant) = cluster.two.ask(Method::GET, "/fleet/v1/session", &user, &json!({})).await;
    let grant: SessionGrant = serde_json::from_value(grant).unwrap();
    assert_eq!(grant.servers.len(), 3);
    assert!(!flags(&mut node).await.contains(ReplyFlags::REKEY));

    cluster.two.fleet.set_servers("two", known.clone(), false);
    // The first server may have said already that it is not cut off; then this one is mute at once.
    let began = Instant::now();
    loop {
        node.send().await;
        if !node.answered_within(HEARTBEAT * 3).await {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it goes on answering");
    }
    cluster.two.fleet.set_servers("two", known, true);
    node.send().await;
    assert!(node.answered_within(GRACE).await);
}

async fn flags(node: &mut Node) -> ReplyFlags {
    node.send().await;
    loop {
        if let NodeEvent::Reply { flags, .. } = node.event().await {
            return flags;
        }
    }
}

#[tokio::test]
async fn only_servers_of_the_cluster_bring_news() {
    let cluster = Cluster::start().await;
    let news = |from: &str, heard: &str| json!({"from": from, "connected": true, "heard": heard, "dials": []});
    let ask = |user: UserInfo, news: Value| {
        let one = &cluster.one;
        async move { one.ask(Method::POST, "/fleet/v1/peer", &user, &news).await.0 }
    };
    let server = UserInfo::new("system:toono:server", [GROUP_SERVERS]);
    assert_eq!(ask(UserInfo::component("admin"), news("two", "")).await, 403);
    assert_eq!(ask(node_user("edge-1"), news("two", "")).await, 403);
    assert_eq!(ask(server.clone(), news("three", "")).await, 503);
    assert_eq!(ask(server.clone(), news("two", "80")).await, 400);
    assert_eq!(ask(server, news("two", "0001")).await, 204);
}
