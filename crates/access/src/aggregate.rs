//! What an aggregated cluster role contains: the rules of the cluster roles that its selectors choose.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use toono_api::{LabelSelector, selector::SelectorError};

/// The rules of an aggregated role, chosen from all cluster roles; `None` when the role is not aggregated.
/// Each rule is there once, in the order of the selectors and of the roles' names.
///
/// # Errors
/// When a selector is malformed; the role's rules must then stay as they are.
pub fn aggregate<'r>(
    role: &ClusterRole,
    all: impl IntoIterator<Item = &'r ClusterRole>,
) -> Result<Option<Vec<PolicyRule>>, SelectorError> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let others: BTreeMap<&str, &ClusterRole> = all
        .into_iter()
        .filter(|other| other.metadata.name != role.metadata.name)
        .map(|other| (other.metadata.name.as_deref().unwrap_or_default(), other))
        .collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let selector = LabelSelector::from_object(&serde_json::json!(selector))?;
        for other in others.values() {
            let labels = other.metadata.labels.as_ref();
            if !selector.matches(|key| labels?.get(key).map(String::as_str)) {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok(Some(rules))
}
