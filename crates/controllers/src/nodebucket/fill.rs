//! Which nodes are in which bucket. A node that is in one stays there; one that leaves moves no other.

use std::{collections::BTreeSet, sync::Arc};

use toono_openyurt::{NodeBucket, node_bucket::MAX_NODES};

/// What there is to write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The nodes of each new bucket.
    pub(super) create: Vec<Vec<String>>,
    /// Buckets and what is to be in them.
    pub(super) change: Vec<(Arc<NodeBucket>, Vec<String>)>,
    /// Buckets that would be empty.
    pub(super) delete: Vec<Arc<NodeBucket>>,
}

/// What makes these buckets hold these nodes, each once.
pub(super) fn plan<'a>(nodes: impl Iterator<Item = &'a str>, present: &[Arc<NodeBucket>]) -> Plan {
    let mut homeless: BTreeSet<&str> = nodes.collect();
    let mut buckets: Vec<&Arc<NodeBucket>> = present.iter().collect();
    // The oldest name first, on every server and after every restart.
    buckets.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut kept: Vec<(&Arc<NodeBucket>, Vec<String>)> = Vec::new();
    for bucket in buckets {
        let mut names = Vec::new();
        for node in &bucket.nodes {
            if names.len() < MAX_NODES && homeless.remove(node.name.as_str()) {
                names.push(node.name.clone());
            }
        }
        kept.push((bucket, names));
    }
    let mut homeless: std::collections::VecDeque<String> =
        homeless.into_iter().map(str::to_owned).collect();
    // Those that change anyway first, and of them the fullest: few writes, few buckets.
    let mut order: Vec<&mut (&Arc<NodeBucket>, Vec<String>)> = kept.iter_mut().collect();
    order.sort_by_key(|(bucket, names)| {
        (names.len() == bucket.nodes.len(), names.is_empty(), std::cmp::Reverse(names.len()))
    });
    for (_, names) in order {
        let room = MAX_NODES.saturating_sub(names.len()).min(homeless.len());
        names.extend(homeless.drain(..room));
    }
    let mut plan = Plan::default();
    for (bucket, names) in kept {
        if names.is_empty() {
            plan.delete.push(Arc::clone(bucket));
        } else if !bucket.nodes.iter().map(|node| &node.name).eq(&names) {
            plan.change.push((Arc::clone(bucket), names));
        }
    }
    while !homeless.is_empty() {
        let room = MAX_NODES.min(homeless.len());
        plan.create.push(homeless.drain(..room).collect());
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn bucket(name: &str, nodes: &[String]) -> Arc<NodeBucket> {
        let names: Vec<_> = nodes.iter().map(|name| json!({"name": name})).collect();
        let bucket = json!({"metadata": {"name": name}, "numNodes": nodes.len(), "nodes": names});
        Arc::new(serde_json::from_value(bucket).unwrap())
    }

    /// The buckets after a plan.
    fn carried_out(
        present: &[Arc<NodeBucket>],
        plan: Plan,
        made: &mut usize,
    ) -> Vec<Arc<NodeBucket>> {
        let mut after: BTreeMap<String, Arc<NodeBucket>> = present
            .iter()
            .map(|bucket| (bucket.metadata.name.clone().unwrap(), Arc::clone(bucket)))
            .collect();
        for bucket in plan.delete {
            after.remove(bucket.metadata.name.as_ref().unwrap());
        }
        for (old, names) in plan.change {
            let name = old.metadata.name.clone().unwrap();
            after.insert(name.clone(), bucket(&name, &names));
        }
        for names in plan.create {
            *made += 1;
            let name = format!("b{made:04}");
            after.insert(name.clone(), bucket(&name, &names));
        }
        after.into_values().collect()
    }

    fn homes(buckets: &[Arc<NodeBucket>]) -> BTreeMap<String, String> {
        let mut homes = BTreeMap::new();
        for bucket in buckets {
            assert!(!bucket.nodes.is_empty() && bucket.nodes.len() <= MAX_NODES);
            for node in &bucket.nodes {
                let home = bucket.metadata.name.clone().unwrap();
                assert_eq!(homes.insert(node.name.clone(), home), None, "in one bucket only");
            }
        }
        homes
    }

    proptest! {
        #[test]
        fn each_node_has_one_home_and_keeps_it(
            rounds in prop::collection::vec(prop::collection::btree_set(0_u16..700, 0..400), 1..8)
        ) {
            let (mut buckets, mut made) = (Vec::new(), 0);
            for round in rounds {
                let names: BTreeSet<String> = round.iter().map(|node| format!("n{node}")).collect();
                let before = homes(&buckets);
                let plan = plan(names.iter().map(String::as_str), &buckets);
                buckets = carried_out(&buckets, plan, &mut made);
                let after = homes(&buckets);
                prop_assert_eq!(after.keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
                for (node, home) in &after {
                    prop_assert!(before.get(node).is_none_or(|old| old == home), "{} moved", node);
                }
                let again = super::plan(names.iter().map(String::as_str), &buckets);
                prop_assert!(again.create.is_empty() && again.change.is_empty() && again.delete.is_empty());
            }
        }
    }

    #[test]
    fn a_new_node_is_one_write() {
        let names: Vec<String> = (0..250).map(|node| format!("n{node:03}")).collect();
        let mut made = 0;
        let buckets = carried_out(&[], plan(names.iter().map(String::as_str), &[]), &mut made);
        assert_eq!(made, 3);
        let more = names.iter().map(String::as_str).chain(["new"]);
        let plan = plan(more, &buckets);
        assert_eq!((plan.create.len(), plan.change.len(), plan.delete.len()), (0, 1, 0));
    }
}
