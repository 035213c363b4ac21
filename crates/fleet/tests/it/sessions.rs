//! Heartbeats over real UDP: readiness, restarts, replays, garbage.

use std::time::{Duration, Instant};

use toono_session::NodeEvent;

use crate::world::{GRACE, HEARTBEAT, World, ready};

#[tokio::test]
async fn silence_and_return_are_the_only_writes() {
    let world = World::start().await;
    let mut node = world.join("edge-1").await;
    node.beat().await;
    world.until_ready("edge-1", "True").await;
    let writes = world.api.writes();
    for _ in 0..10 {
        node.beat().await;
    }
    assert_eq!(world.api.writes(), writes, "heartbeats write nothing");
    let overview = world.overview("edge-1").await;
    assert_eq!((&overview["session"], &overview["ready"]), (&"udp".into(), &"True".into()));
    assert_eq!(overview["address"], node.socket.local_addr().unwrap().to_string());

    let silent = Instant::now();
    world.until_ready("edge-1", "Unknown").await;
    assert!(silent.elapsed() >= GRACE - HEARTBEAT);
    node.beat().await;
    world.until_ready("edge-1", "True").await;
}

#[tokio::test]
async fn a_restarted_server_learns_its_nodes_from_their_next_heartbeat() {
    let world = World::start().await;
    let mut node = world.join("edge-1").await;
    node.beat().await;
    world.until_ready("edge-1", "True").await;
    let old = node.send().await;
    assert!(node.answered_within(GRACE).await);

    let world = World::over(world.stop().await).await;
    let writes = world.api.writes();
    node.socket.connect(world.udp).await.unwrap();

    // Replays of the past: answered, since they are authentic, but they make no one alive.
    let attacker = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    attacker.send_to(&old, world.udp).await.unwrap();
    let mut buffer = [0; 200];
    tokio::time::timeout(Duration::from_secs(5), attacker.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(world.overview("edge-1").await["heartbeat_age_ms"], serde_json::json!(null));

    node.send().await;
    assert!(matches!(node.event().await, NodeEvent::Reply { send_again: true, .. }));
    assert_eq!(world.overview("edge-1").await["heartbeat_age_ms"], serde_json::json!(null));
    let fresh = node.send().await;
    assert!(matches!(node.event().await, NodeEvent::Reply { send_again: false, .. }));
    assert!(world.overview("edge-1").await["heartbeat_age_ms"].is_u64());

    // A replay of the newest heartbeat moves no address and gets no reply.
    attacker.send_to(&fresh, world.udp).await.unwrap();
    node.beat().await;
    let overview = world.overview("edge-1").await;
    assert_eq!(overview["address"], node.socket.local_addr().unwrap().to_string());
    assert!(attacker.try_recv(&mut buffer).is_err());
    assert_eq!(ready(world.api.get("/api/v1/nodes/edge-1").as_ref()), "True");
    assert_eq!(world.api.writes(), writes, "no node ever went NotReady");
}

#[tokio::test]
async fn a_node_that_stays_away_after_a_restart_has_its_grace_first() {
    let world = World::start().await;
    let mut node = world.join("edge-1").await;
    node.beat().await;
    world.until_ready("edge-1", "True").await;
    let world = World::over(world.stop().await).await;
    let started = Instant::now();
    world.until_ready("edge-1", "Unknown").await;
    assert!(started.elapsed() >= GRACE - HEARTBEAT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn garbage_gets_no_reply_and_disturbs_no_one() {
    let world = World::start().await;
    let mut node = world.join("edge-1").await;
    node.beat().await;
    let mut heartbeat = node.send().await;
    node.event().await;
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.connect(world.udp).await.unwrap();
    heartbeat[30] ^= 1;
    for bytes in
        [&heartbeat[..], &[], &[0x11; 60], &[0x12; 56], &[0xff; 1200], b"GET / HTTP/1.1\r\n\r\n"]
    {
        stranger.send(bytes).await.unwrap();
    }
    // Datagrams of one host to one socket keep their order here: the answer to this heartbeat
    // says that all of the above has been judged.
    node.beat().await;
    assert!(stranger.try_recv(&mut [0; 200]).is_err());
}
