//! Epochs of the cluster secret: how nodes move from one to the next, and who may begin one.

use http::Method;
use serde_json::json;
use toono_fleet::{ClusterSecret, RotateReply, RotateRequest};
use toono_session::ReplyFlags;
use toono_wire::join::SessionGrant;

use crate::world::{Node, World, node_user};

fn secret(epoch: u8) -> ClusterSecret {
    // The first is what the world starts with.
    ClusterSecret::new(epoch, &[epoch + 6; 32])
}

async fn flags(node: &mut Node) -> ReplyFlags {
    node.asked().await.1
}

#[tokio::test]
async fn nodes_move_to_the_new_epoch_and_the_old_one_ends() {
    let world = World::start().await;
    let mut node = world.join("edge-1").await;
    node.beat().await;
    world.until_ready("edge-1", "True").await;
    assert!(!flags(&mut node).await.contains(ReplyFlags::REKEY));
    assert!(world.fleet.all_have_current_keys());
    let writes = world.api.writes();

    world.fleet.set_secrets(vec![secret(2), secret(1)]);
    assert!(!world.fleet.all_have_current_keys());
    assert!(flags(&mut node).await.contains(ReplyFlags::REKEY));
    let user = node_user("edge-1");
    let (code, grant) = world.ask(Method::GET, "/fleet/v1/session", &user, &json!({})).await;
    let grant: SessionGrant = serde_json::from_value(grant).unwrap();
    assert_eq!((code, grant.epoch, grant.boot_floor), (200, 2, 1));
    let mut moved = Node::new("edge-1", &grant, 2, world.udp).await;
    moved.beat().await;
    assert!(!flags(&mut moved).await.contains(ReplyFlags::REKEY));
    assert!(world.fleet.all_have_current_keys());

    world.fleet.set_secrets(vec![secret(2)]);
    node.send().await;
    moved.beat().await;
    assert!(
        node.event_within(std::time::Duration::ZERO).await.is_none(),
        "its key is none any more"
    );
    assert_eq!(world.api.writes(), writes, "no node was NotReady");
}

#[tokio::test]
async fn only_administrators_rotate_and_only_where_secrets_are_kept() {
    let world = World::start().await;
    let admin = toono_api::UserInfo::component("admin");
    for (user, body, code) in [
        (node_user("edge-1"), json!({}), 403),
        (admin.clone(), json!({}), 404),
        (admin.clone(), json!({"soon": true}), 400),
    ] {
        let answer = world.ask(Method::POST, "/fleet/v1/secret/rotate", &user, &body).await;
        assert_eq!(answer.0, code, "{answer:?}");
    }
    world.fleet.on_rotate(Box::new(|request: RotateRequest| {
        let reply =
            RotateReply { epoch: 2, granted_in_s: 0, accepted: vec![1], accepted_for_s: 60 };
        let refused = Err("the disk is full".to_owned());
        Box::pin(async move { if request.revoke { refused } else { Ok(reply) } })
    }));
    let rotate = "/fleet/v1/secret/rotate";
    let (code, reply) = world.ask(Method::POST, rotate, &admin, &json!({})).await;
    assert_eq!((code, &reply["epoch"]), (200, &json!(2)));
    let (code, status) = world.ask(Method::POST, rotate, &admin, &json!({"revoke": true})).await;
    assert!(code == 503 && status["message"].as_str().unwrap().contains("the disk is full"));
}
