//! The table over time: joins, graces, looks, servers that were held up.

use serde_json::json;
use toono_session::ClusterSecret;

use super::*;

fn grace() -> Grace {
    Grace::default()
}

fn table() -> Table {
    let mut table = Table::new(ServerSessions::new(1, vec![ClusterSecret::new(1, &[1; 32])]));
    table.loaded = true;
    table
}

fn node(name: &str, uid: &str, index: u32, revision: u64, ready: &str) -> NodeObject {
    let value = json!({"metadata": {"name": name, "uid": uid, "resourceVersion": revision.to_string(),
        "annotations": {"toono.io/session-index": index.to_string(), "toono.io/session-generation": "1"}},
        "spec": {"podCIDR": "10.244.0.0/24"},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    NodeObject::parse(&serde_json::to_vec(&value).unwrap()).unwrap()
}

#[test]
fn the_smallest_free_index_is_dealt_once() {
    let mut table = table();
    let mut claim = |name: &str| table.reserve(name, Duration::ZERO, &grace()).unwrap().0;
    assert_eq!((claim("a"), claim("b"), claim("c")), (NodeIndex(0), NodeIndex(1), NodeIndex(2)));
    assert_eq!(table.reserve("a", Duration::ZERO, &grace()), Err(Taken::Joining));
    table.admit(&node("a", "u", 0, 1, "Unknown"), Duration::ZERO);
    for (name, index) in [("a", 0), ("b", 1), ("c", 2)] {
        table.release(name, NodeIndex(index));
    }
    assert_eq!(table.reserve("d", Duration::ZERO, &grace()).unwrap().0, NodeIndex(1));
    table.remove("a", Some(NodeUid::new("other")));
    assert_eq!(table.reserve("e", Duration::ZERO, &grace()).unwrap().0, NodeIndex(2));
    table.remove("a", Some(NodeUid::new("u")));
    assert_eq!(table.reserve("f", Duration::ZERO, &grace()).unwrap().0, NodeIndex(0));
}

#[test]
fn servers_that_join_nodes_at_once_choose_indexes_of_their_own() {
    let names = ["a", "b", "c"];
    let server = |name: &str| toono_wire::join::Server {
        name: name.to_owned(),
        host: "h".to_owned(),
        port: 1,
        udp_port: 1,
    };
    let known = |name| crate::KnownServer { server: server(name), live: true };
    let mut tables = names.map(|name| {
        let mut table = table();
        table.servers.set(name, names.map(known).to_vec(), true);
        table
    });
    for round in 0..5 {
        for (own, table) in tables.iter_mut().enumerate() {
            let name = format!("{own}-{round}");
            let index = table.reserve(&name, Duration::ZERO, &grace()).unwrap().0;
            assert_eq!(index, NodeIndex(u32::try_from(3 * round + own).unwrap()));
        }
    }
    let [table, ..] = &mut tables;
    let highest = (0..1_000)
        .map(|number| table.reserve(&number.to_string(), Duration::ZERO, &grace()).unwrap().0.0);
    assert!(highest.max().unwrap() < 1_100, "holes stay");
}

#[test]
fn a_ready_node_has_its_grace_after_a_start() {
    let mut table = table();
    table.loaded = false;
    table.admit(&node("a", "u", 0, 1, "True"), Duration::from_secs(1));
    table.loaded = true;
    let index = NodeIndex(0);
    assert_eq!(table.due(index, Duration::from_secs(40), &grace()), None);
    assert_eq!(table.reserve("a", Duration::from_secs(40), &grace()), Err(Taken::Alive(None)));
    assert_eq!(table.due(index, Duration::from_secs(41), &grace()), Some(false));
    table.admit(&node("a", "u", 0, 2, "Unknown"), Duration::from_secs(42));
    assert_eq!(table.due(index, Duration::from_secs(43), &grace()), None);
    assert!(
        table.admit(&node("a", "u", 0, 1, "True"), Duration::from_secs(44)).is_none(),
        "old news"
    );
    assert_eq!(table.reserve("a", Duration::from_secs(50), &grace()), Ok((index, Some(1))));
}

#[test]
fn a_server_that_was_held_up_blames_no_node() {
    let mut table = table();
    let index = NodeIndex(0);
    table.admit(&node("a", "u", 0, 1, "True"), Duration::ZERO);
    table.admit(&node("b", "v", 1, 2, "Unknown"), Duration::ZERO);
    for second in 0..=30 {
        table.listening(Duration::from_secs(second));
    }
    // Stopped for a minute, in which any number of heartbeats was lost.
    let back = Duration::from_secs(90);
    table.listening(back);
    assert_eq!(table.due(index, back, &grace()), None);
    assert_eq!(table.due(NodeIndex(1), back, &grace()), None, "it was silent before");
    for second in 91..130 {
        table.listening(Duration::from_secs(second));
        assert!(!table.take_due(index, Duration::from_secs(second), &grace()));
    }
    assert!(table.take_due(index, Duration::from_secs(130), &grace()));
    assert!(!table.take_due(index, Duration::from_secs(131), &grace()), "being written");
}

#[test]
fn a_server_that_may_be_cut_off_calls_nobody_silent_at_once() {
    let mut table = table();
    let names: Vec<_> = (0..200).map(|number| format!("n{number}")).collect();
    for (index, name) in (0..).zip(&names) {
        table.admit(&node(name, name, index, 1, "True"), Duration::ZERO);
    }
    let due = |table: &Table, now| {
        (0..200).filter(|index| table.due(NodeIndex(*index), now, &grace()).is_some()).count()
    };
    for second in 0..=60 {
        (0..20).for_each(|_| table.heard_one(Duration::from_secs(second)));
        table.listening(Duration::from_secs(second));
    }
    // As if all had been heard until now, for what is asked here is who is called silent and when.
    table.listening_since = Duration::from_secs(60);
    for second in 61..=142 {
        table.listening(Duration::from_secs(second));
        assert_eq!(due(&table, Duration::from_secs(second)), 0, "second {second}");
    }
    table.listening(Duration::from_secs(145));
    assert_eq!(due(&table, Duration::from_secs(145)), 200, "they may really be gone");
}

#[test]
fn an_index_claimed_twice_stays_with_the_first() {
    let mut table = table();
    assert!(table.admit(&node("a", "u", 0, 1, "True"), Duration::ZERO).is_some());
    assert!(table.admit(&node("b", "v", 0, 2, "True"), Duration::ZERO).is_none());
    assert_eq!(table.named("a").unwrap().0, NodeIndex(0));
}

#[test]
fn members_are_looked_at_when_they_may_be_silent_and_seldom_otherwise() {
    let mut table = table();
    for (index, ready) in ["True", "Unknown", "False"].into_iter().enumerate() {
        let index = u32::try_from(index).unwrap();
        table.admit(&node(ready, ready, index, 1, ready), Duration::ZERO);
    }
    let (mut looks, mut found) = (0, Vec::new());
    for second in 0..200 {
        let now = Duration::from_secs(second);
        table.listening(now);
        for index in table.looks(now) {
            looks += 1;
            if table.look(index, now, &grace()) {
                found.push((index, second));
                let name = table.member(index).unwrap().name.clone();
                table.member_mut(index).unwrap().writing = false;
                table.admit(&node(&name, &name, index.0, 2, "Unknown"), now);
            }
        }
    }
    // One that reported itself not ready has no grace: it was never heard here.
    assert_eq!(found, [(NodeIndex(2), 2), (NodeIndex(0), 41)]);
    assert!(looks < 20, "{looks} looks");
}

#[test]
fn who_joined_elsewhere_while_the_list_of_servers_changed_is_told_again() {
    let mut table = table();
    let old_list = |table: &Table, index| table.member(NodeIndex(index)).unwrap().old_list;
    table.admit(&node("a", "u", 0, 1, "True"), Duration::from_secs(1));
    assert!(!old_list(&table, 0));
    // The Nodes may not have been read yet when the list changes.
    table.all_have_old_lists(Duration::from_secs(2));
    table.admit(&node("b", "v", 1, 2, "True"), Duration::from_secs(3));
    table.admit(&node("c", "w", 2, 3, "True"), Duration::from_secs(60));
    assert!(old_list(&table, 0) && old_list(&table, 1) && !old_list(&table, 2));
    table.member_mut(NodeIndex(0)).unwrap().old_list = false;
    table.admit(&node("a", "u", 0, 4, "True"), Duration::from_secs(4));
    assert!(!old_list(&table, 0), "it was told, and is no new one");
}
