//! Joining: who may, what it leaves behind, what it refuses.

use std::collections::HashSet;

use http::Method;
use serde_json::json;
use toono_api::UserInfo;

use crate::world::{GRACE, World, join_request, joiner, node_user, ready};

#[tokio::test]
async fn a_join_makes_a_node_with_its_labels_addresses_and_session() {
    let world = World::start().await;
    let joined = world.try_join("edge-1").await.unwrap();
    assert_eq!((joined.session.index, joined.session.generation), (0, 1));
    assert_eq!(joined.pod_cidr, "10.244.0.0/24");
    assert!(joined.certificate_pem.contains("BEGIN CERTIFICATE"));
    let node = world.api.get("/api/v1/nodes/edge-1").unwrap();
    assert_eq!(node["metadata"]["uid"], joined.node_uid.as_str());
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["kubernetes.io/hostname"], "edge-1");
    assert_eq!(labels["apps.openyurt.io/nodepool"], "west");
    assert_eq!(labels["openyurt.io/is-edge-worker"], "true");
    assert_eq!(node["metadata"]["annotations"]["toono.io/session-index"], "0");
    assert_eq!(node["spec"]["podCIDR"], "10.244.0.0/24");
    assert_eq!(node["status"]["capacity"]["cpu"], "2");
    assert_eq!(ready(Some(&node)), "Unknown", "no heartbeat yet, whatever the node says of itself");
}

#[tokio::test]
async fn a_node_that_joins_anew_stays_in_the_pool_that_it_is_in() {
    const NODE: &str = "/api/v1/nodes/edge-1";
    let world = World::start().await;
    world.try_join("edge-1").await.unwrap();
    let mut node = world.api.get(NODE).unwrap();
    for (pool, after) in [(json!("east"), "east"), (json!(""), "west")] {
        node["metadata"]["labels"]["apps.openyurt.io/nodepool"] = pool;
        world.api.put(NODE, node);
        world.try_join("edge-1").await.unwrap();
        node = world.api.get(NODE).unwrap();
        assert_eq!(node["metadata"]["labels"]["apps.openyurt.io/nodepool"], after);
    }
}

#[tokio::test]
async fn refused_joins_leave_no_node_behind() {
    let world = World::start().await;
    let good = join_request("edge-1");
    let mut bad_name = good.clone();
    bad_name["node_name"] = "Edge_1".into();
    let mut bad_csr = good.clone();
    bad_csr["csr_pem"] = "nonsense".into();
    let mut bad_pool = good.clone();
    bad_pool["pool"] = "no pool!".into();
    let cases = [
        (UserInfo::anonymous(), good.clone(), 403),
        (node_user("edge-2"), good.clone(), 403),
        (joiner(), bad_name, 400),
        (joiner(), bad_csr, 400),
        (joiner(), bad_pool, 400),
        (joiner(), json!({"x": 1}), 400),
        (joiner(), json!("x".repeat(300_000)), 413),
    ];
    for (user, body, code) in cases {
        let answer = world.ask(Method::POST, "/fleet/v1/join", &user, &body).await;
        assert_eq!((answer.0, &answer.1["kind"]), (code, &json!("Status")), "{answer:?}");
    }
    assert!(world.api.all("/api/v1/nodes/").is_empty());
    assert_eq!(world.try_join("edge-1").await.unwrap().session.index, 0, "no index was used up");
}

#[tokio::test]
async fn concurrent_joins_get_indexes_of_their_own() {
    let world = World::start().await;
    let names: Vec<String> = (0..40).map(|n| format!("edge-{n}")).collect();
    let joins = futures::future::join_all(names.iter().map(|name| world.try_join(name))).await;
    let joins: Vec<_> = joins.into_iter().map(Result::unwrap).collect();
    let indexes: HashSet<u32> = joins.iter().map(|join| join.session.index).collect();
    assert_eq!(indexes, (0..40).collect());
    let cidrs: HashSet<&str> = joins.iter().map(|join| join.pod_cidr.as_str()).collect();
    assert_eq!(cidrs.len(), 40);
    let same = futures::future::join_all((0..5).map(|_| world.try_join("one"))).await;
    assert!(same.iter().any(Result::is_ok));
}

#[tokio::test]
async fn the_newest_certificate_counts_and_the_one_that_it_was_asked_by() {
    let world = World::start().await;
    let first = world.try_join("edge-1").await.unwrap().certificate_pem;
    let user = node_user("edge-1");
    // The answer to the first request is lost.
    let lost = world.next_certificate("edge-1", &first).await.unwrap();
    let second = world.next_certificate("edge-1", &first).await.unwrap();
    let allowed = async |pem: &str| world.ask_showing("/fleet/v1/session", &user, pem).await == 200;
    assert!(allowed(&first).await && allowed(&second).await && !allowed(&lost).await);
    let third = world.next_certificate("edge-1", &second).await.unwrap();
    assert!(!allowed(&first).await && allowed(&second).await && allowed(&third).await);
    assert_eq!(world.next_certificate("edge-1", &first).await, Err(403));
    let stranger = world.next_certificate("edge-2", &third).await;
    assert_eq!(stranger, Err(403), "there is no such node");
}

#[tokio::test]
async fn a_live_name_is_refused_and_a_silent_one_gets_a_new_generation() {
    let world = World::start().await;
    let mut first = world.join("edge-1").await;
    first.beat().await;
    let (code, status) = world.try_join("edge-1").await.unwrap_err();
    let message = status["message"].as_str().unwrap();
    assert_eq!(code, 409);
    assert!(message.contains("is alive") && message.contains("hint:"), "{message}");

    world.until_ready("edge-1", "True").await;
    world.until_ready("edge-1", "Unknown").await;
    let again = world.try_join("edge-1").await.unwrap();
    assert_eq!((again.session.index, again.session.generation), (0, 2));
    assert_eq!(again.pod_cidr, "10.244.0.0/24");
    first.send().await;
    assert!(!first.answered_within(GRACE / 4).await, "the earlier identity is no one now");
}

#[tokio::test]
async fn a_deleted_node_loses_its_session_and_frees_its_index() {
    let world = World::start().await;
    let mut first = world.join("edge-1").await;
    first.beat().await;
    world.api.delete("/api/v1/nodes/edge-1");
    while world.overview("edge-1").await != json!(null) {
        tokio::task::yield_now().await;
    }
    first.send().await;
    assert!(!first.answered_within(GRACE / 4).await);
    assert_eq!(world.try_join("edge-2").await.unwrap().session.index, 0);
}

#[tokio::test]
async fn a_node_gets_its_grant_again_and_only_its_own() {
    let world = World::start().await;
    let joined = world.try_join("edge-1").await.unwrap();
    let (code, grant) =
        world.ask(Method::GET, "/fleet/v1/session", &node_user("edge-1"), &json!({})).await;
    assert_eq!((code, &grant["key_hex"]), (200, &json!(joined.session.key_hex)));
    for (user, code) in [(node_user("edge-2"), 404), (joiner(), 403), (UserInfo::anonymous(), 403)]
    {
        assert_eq!(world.ask(Method::GET, "/fleet/v1/session", &user, &json!({})).await.0, code);
    }
    assert_eq!(
        world.ask(Method::GET, "/fleet/v1/overview", &node_user("edge-1"), &json!({})).await.0,
        403
    );
    assert_eq!(
        world.ask(Method::GET, "/fleet/v1/other", &node_user("edge-1"), &json!({})).await.0,
        404
    );
    assert_eq!(world.ask(Method::GET, "/fleet/v1/join", &joiner(), &json!({})).await.0, 405);
}

#[tokio::test]
async fn a_certificate_of_an_earlier_identity_is_refused() {
    let world = World::start().await;
    let first = world.try_join("edge-1").await.unwrap();
    // It was never heard, so the name may join again.
    let second = world.try_join("edge-1").await.unwrap();
    assert_eq!(second.session.generation, 2);
    let user = node_user("edge-1");
    for path in ["/fleet/v1/session", "/fleet/v1/bundle?since=0"] {
        let code = async |pem: &str| world.ask_showing(path, &user, pem).await;
        assert_eq!(code(&first.certificate_pem).await, 403, "{path}");
        assert_eq!(code(&second.certificate_pem).await, 200, "{path}");
        let other = world.try_join(&format!("edge-{}", path.len())).await.unwrap();
        // As an administrator acts for a node: the certificate has another name.
        assert_eq!(code(&other.certificate_pem).await, 200, "{path}");
    }
}
