//! What a decision costs: it must not grow with the bindings of others.

use std::time::{Duration, Instant};

use toono_access::Access;

use crate::{access_of, asks, binding, role, user};

const ASKED: u32 = 20_000;

/// A cluster with this many namespaces, each with a role, its binding, and a binding for `jane`.
fn cluster(namespaces: usize) -> Access {
    let mut objects = toono_access::bootstrap::objects();
    let rules = serde_json::json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    for number in 0..namespaces {
        let namespace = format!("ns-{number}");
        objects.push(role(&namespace, "r", rules.clone()));
        objects.push(binding(&namespace, "b", "Role/r", &[&format!("User/u-{number}")]));
        objects.push(binding(&namespace, "j", "ClusterRole/edit", &["User/jane"]));
    }
    access_of(&objects)
}

fn cost(access: &Access) -> Duration {
    let jane = user("jane", &["clerks", "system:authenticated"]);
    let began = Instant::now();
    for _ in 0..ASKED {
        assert!(access.decide(&asks(&jane, "update", "configmaps", "ns-1", "x")).is_allowed());
    }
    began.elapsed() / ASKED
}

#[test]
fn others_bindings_cost_nothing() {
    let (few, many) = (cluster(10), cluster(5_000));
    cost(&few);
    let (few, many) = (cost(&few), cost(&many));
    println!("a decision takes {few:?} among 10 namespaces and {many:?} among 5,000");
    assert!(many < few * 20 + Duration::from_micros(20), "{few:?}, then {many:?}");
}
