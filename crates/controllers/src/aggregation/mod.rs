//! Cluster roles that are made of others: their rules are all rules of the roles that they select.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Api, core::Selector};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    claim::selects,
    context::Context,
    error::{SyncError, is_not_found},
    informer::Informer,
    key::Key,
    kinds::kind,
    patch,
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "clusterrole-aggregation-controller";

/// A cluster role.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClusterRole {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "null_is_empty")]
    rules: Vec<Value>,
    aggregation_rule: Option<AggregationRule>,
}
kind!(
    ClusterRole,
    ClusterResourceScope,
    "rbac.authorization.k8s.io",
    "v1",
    "ClusterRole",
    "clusterroles"
);

/// Which roles a role is made of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AggregationRule {
    cluster_role_selectors: Vec<LabelSelector>,
}

/// Roles without rules are written `rules: null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(decoder: D) -> Result<Vec<Value>, D::Error> {
    Ok(Option::deserialize(decoder)?.unwrap_or_default())
}

/// Keeps such roles.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    roles: Informer<ClusterRole>,
}

impl Controller {
    pub(crate) fn new() -> Self {
        let queue = Arc::new(WorkQueue::new());
        let mut roles = Informer::<ClusterRole>::new(Vec::new());
        roles.on_change({
            let (queue, all) = (Arc::clone(&queue), roles.reader());
            // Any role may be a part of any other.
            move |_| {
                for role in all.all().iter().filter(|role| role.aggregation_rule.is_some()) {
                    queue.add(Key::of(&role.metadata));
                }
            }
        });
        Self { queue, roles }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        let (roles, shared) = (&self.roles, &context);
        let sync = |key: Key| async move { sync(shared, roles, &key).await };
        let work = async {
            roles.wait_synced().await;
            let workers = context.config.concurrent_syncs;
            worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
        };
        futures::join!(roles.run(Api::all(context.client.clone())), work);
    }
}

async fn sync(
    context: &Context,
    roles: &Informer<ClusterRole>,
    key: &Key,
) -> Result<Again, SyncError> {
    let Some(role) = roles.get(key) else { return Ok(None) };
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let rules = united(key, aggregation, roles.all());
    if rules == role.rules {
        return Ok(None);
    }
    let api: Api<ClusterRole> = Api::all(context.client.clone());
    let change = patch::on_top_of(&*role, json!({"rules": rules}));
    match patch::merge(&api, &key.name, &change).await {
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(SyncError::api("aggregate", "ClusterRole", key)(error)),
    }
}

/// The rules of all selected roles, by selector and name, each once.
fn united(key: &Key, aggregation: &AggregationRule, mut all: Vec<Arc<ClusterRole>>) -> Vec<Value> {
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules = Vec::new();
    for selector in &aggregation.cluster_role_selectors {
        let Ok(selector) = Selector::try_from(selector.clone()) else { continue };
        let selected = all.iter().filter(|role| selects(&selector, &***role));
        for role in selected.filter(|role| Key::of(&role.metadata) != *key) {
            for rule in &role.rules {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_of_the_selected_roles_is_there_once() {
        let role = |name: &str, part: &str, rules: Value| -> Arc<ClusterRole> {
            let object =
                json!({"metadata": {"name": name, "labels": {"part": part}}, "rules": rules});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let aggregation: AggregationRule = serde_json::from_value(
            json!({"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}),
        )
        .unwrap();
        let all = vec![
            role("b", "yes", json!([{"verbs": ["get"]}, {"verbs": ["list"]}])),
            role("a", "yes", json!([{"verbs": ["list"]}])),
            role("c", "no", json!([{"verbs": ["delete"]}])),
            role("whole", "yes", json!([{"verbs": ["old"]}])),
            role("d", "yes", Value::Null),
        ];
        let rules = united(&Key::new("", "whole"), &aggregation, all);
        assert_eq!(Value::from(rules), json!([{"verbs": ["list"]}, {"verbs": ["get"]}]));
    }
}
