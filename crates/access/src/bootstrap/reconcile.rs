//! What a start changes of a default role or binding that is already there: it gives back what is missing,
//! and leaves what administrators added. Whoever sets the annotation to `false` keeps the object as it is.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::rbac::v1::{AggregationRule, PolicyRule, Subject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::AUTO_UPDATE;
use crate::{covers::uncovered, object::Object, rule::list};

/// What becomes of an object that is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Reconciled {
    /// It stays.
    Kept,
    /// It is written like this.
    Updated(Box<Object>),
    /// It binds another role, which an update cannot change: it is deleted, and made anew like this.
    Replaced(Box<Object>),
}

/// Compares a stored default object with what it should be. Both are of the same kind and name.
#[must_use]
pub fn reconcile(existing: &Object, expected: &Object) -> Reconciled {
    let annotations = existing.metadata().annotations.as_ref();
    if annotations.and_then(|map| map.get(AUTO_UPDATE)).is_some_and(|value| value == "false") {
        return Reconciled::Kept;
    }
    let mut new = existing.clone();
    complete_metadata(new.metadata_mut(), expected.metadata());
    match (&mut new, expected) {
        (Object::Role(role), Object::Role(expected)) => {
            add_rules(&mut role.rules, list_of(&expected.rules));
        }
        (Object::ClusterRole(role), Object::ClusterRole(expected)) => {
            match &expected.aggregation_rule {
                // The rules of an aggregated role are made of others.
                Some(aggregation) => add_selectors(&mut role.aggregation_rule, aggregation),
                None => add_rules(&mut role.rules, list_of(&expected.rules)),
            }
        }
        (Object::RoleBinding(binding), Object::RoleBinding(expected)) => {
            if binding.role_ref != expected.role_ref {
                return replaced(expected.clone().into());
            }
            add_subjects(&mut binding.subjects, list_of(&expected.subjects));
        }
        (Object::ClusterRoleBinding(binding), Object::ClusterRoleBinding(expected)) => {
            if binding.role_ref != expected.role_ref {
                return replaced(expected.clone().into());
            }
            add_subjects(&mut binding.subjects, list_of(&expected.subjects));
        }
        _ => return Reconciled::Kept,
    }
    if new == *existing { Reconciled::Kept } else { Reconciled::Updated(Box::new(new)) }
}

fn replaced(expected: Object) -> Reconciled {
    Reconciled::Replaced(Box::new(expected))
}

fn list_of<T>(field: &Option<Vec<T>>) -> &[T] {
    field.as_deref().unwrap_or_default()
}

/// Labels and annotations that are there win.
fn complete_metadata(metadata: &mut ObjectMeta, expected: &ObjectMeta) {
    let complete = |own: &mut Option<BTreeMap<String, String>>,
                    expected: &Option<BTreeMap<String, String>>| {
        for (key, value) in expected.iter().flatten() {
            own.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
        }
    };
    complete(&mut metadata.labels, &expected.labels);
    complete(&mut metadata.annotations, &expected.annotations);
}

/// Adds each rule of which some grant is missing. Compared by rule rather than by grant, so that the role
/// stays as readable as it was written.
fn add_rules(own: &mut Option<Vec<PolicyRule>>, expected: &[PolicyRule]) {
    let held = list_of(own).to_vec();
    for rule in expected {
        let covered =
            uncovered(&held, std::slice::from_ref(rule)).is_ok_and(|left| left.is_empty());
        // A rule that names nothing grants nothing.
        let grants = !list(&rule.resources).is_empty() || !list(&rule.non_resource_urls).is_empty();
        if grants && !covered {
            own.get_or_insert_default().push(rule.clone());
        }
    }
}

fn add_selectors(own: &mut Option<AggregationRule>, expected: &AggregationRule) {
    let own = own.get_or_insert_default().cluster_role_selectors.get_or_insert_default();
    for selector in list_of(&expected.cluster_role_selectors) {
        if !own.contains(selector) {
            own.push(selector.clone());
        }
    }
}

fn add_subjects(own: &mut Option<Vec<Subject>>, expected: &[Subject]) {
    for subject in expected {
        if !list_of(own).contains(subject) {
            own.get_or_insert_default().push(subject.clone());
        }
    }
}
