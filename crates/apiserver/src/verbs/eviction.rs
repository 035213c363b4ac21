//! Eviction: a deletion that asks the pod's disruption budget first.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use toono_api::{
    ApiError, LabelSelector, kinds,
    meta::{at, items_at, text_at},
};
use toono_http::Body;
use toono_mvcc::Prefix;

use super::{
    Call,
    create::whole_seconds,
    delete::{DeleteOptions, delete_object},
    subresource::success,
    update::modify_own,
};
use crate::{
    encode, respond,
    server::{ApiServer, expired},
};

/// Pods whose eviction a budget remembers until they are gone; more mean that its controller does not
/// keep up.
const DISRUPTED_PODS_MAX: usize = 2000;
/// When a budget that its controller has not seen yet should be asked again.
const UNSEEN_RETRY_SECONDS: u32 = 10;

impl Call<'_> {
    pub(super) async fn evict(&self, eviction: &Value) -> Result<Response<Body>, ApiError> {
        let options = at(eviction, &["deleteOptions"]).cloned().unwrap_or_else(|| json!({}));
        let mut options = DeleteOptions::of(&options)?;
        options.dry_run |= self.query.dry_run()?;
        let target = &self.target;
        let entry = self.server.existing(&target.resource, target.namespace, target.name)?;
        let pod = encode::decode(&target.resource, &entry)?;
        if is_protected(&pod) {
            self.ask_budget(&pod, options.dry_run).await?;
        }
        delete_object(
            self.server,
            self.user,
            &target.resource,
            target.namespace,
            target.name,
            &options,
        )
        .await?;
        Ok(respond::json(StatusCode::CREATED, success(&json!({})).to_string()))
    }

    /// Takes the disruption from the pod's budget, if it has one.
    async fn ask_budget(&self, pod: &Value, dry_run: bool) -> Result<(), ApiError> {
        let (server, namespace) = (self.server, self.target.namespace);
        let budgets = budgets_of(server, namespace, pod)?;
        let budget = match budgets.as_slice() {
            [] => return Ok(()),
            [budget] => budget,
            _ => {
                return Err(ApiError::Internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction \
                     subresource does not support."
                        .to_owned(),
                ));
            }
        };
        let resource = server.built_in(&kinds::policy::POD_DISRUPTION_BUDGET);
        let name = text_at(budget, &["metadata", "name"]).unwrap_or_default();
        if dry_run {
            return disrupt(&mut budget.clone(), pod);
        }
        modify_own(server, &resource, namespace, name, |budget| disrupt(budget, pod)).await?;
        Ok(())
    }
}

/// Whether a budget has a say: pods that have ended, do not run yet or go already need none.
fn is_protected(pod: &Value) -> bool {
    let phase = text_at(pod, &["status", "phase"]).unwrap_or_default();
    let leaves = text_at(pod, &["metadata", "deletionTimestamp"]).is_some();
    !leaves && !matches!(phase, "Succeeded" | "Failed" | "Pending")
}

fn budgets_of(server: &ApiServer, namespace: &str, pod: &Value) -> Result<Vec<Value>, ApiError> {
    let resource = server.built_in(&kinds::policy::POD_DISRUPTION_BUDGET);
    let prefix = Prefix::namespace(&resource.stored_group, &resource.stored_plural, namespace);
    let page = server.inner.store.list(&prefix, server.revision(), None, usize::MAX);
    let mut budgets = Vec::new();
    for entry in page.map_err(expired)?.entries {
        let budget = encode::decode(&resource, &entry)?;
        let selector = at(&budget, &["spec", "selector"]);
        // No selector selects no pod; an empty one, every pod.
        let selects =
            selector.and_then(|one| LabelSelector::from_object(one).ok()).is_some_and(|selector| {
                selector.matches(|key| text_at(pod, &["metadata", "labels", key]))
            });
        if selects {
            budgets.push(budget);
        }
    }
    Ok(budgets)
}

/// Counts the disruption in the budget, or refuses it.
fn disrupt(budget: &mut Value, pod: &Value) -> Result<(), ApiError> {
    let number = |path: &[&str]| at(budget, path).and_then(Value::as_i64).unwrap_or(0);
    let name = text_at(budget, &["metadata", "name"]).unwrap_or_default();
    if number(&["status", "observedGeneration"]) < number(&["metadata", "generation"]) {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(ApiError::BudgetExceeded { cause, retry_after_seconds: UNSEEN_RETRY_SECONDS });
    }
    let (healthy, wanted) =
        (number(&["status", "currentHealthy"]), number(&["status", "desiredHealthy"]));
    if !is_ready(pod) {
        // A pod that does not work is no loss, if the others suffice or its owner says so.
        let always =
            text_at(budget, &["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow");
        if always || (healthy >= wanted && wanted > 0) {
            return Ok(());
        }
    }
    let disrupted = at(budget, &["status", "disruptedPods"]).and_then(Value::as_object);
    let allowed = number(&["status", "disruptionsAllowed"]);
    if allowed <= 0 || disrupted.is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        let cause = format!(
            "The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
        );
        return Err(ApiError::BudgetExceeded { cause, retry_after_seconds: 0 });
    }
    let pod = text_at(pod, &["metadata", "name"]).unwrap_or_default();
    let now = whole_seconds(ApiServer::now());
    if let Some(status) = budget.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("disruptionsAllowed".to_owned(), (allowed - 1).into());
        let pods = status.entry("disruptedPods").or_insert_with(|| Map::new().into());
        encode::set(pods, pod, now);
    }
    Ok(())
}

fn is_ready(pod: &Value) -> bool {
    items_at(pod, &["status", "conditions"]).any(|condition| {
        text_at(condition, &["type"]) == Some("Ready")
            && text_at(condition, &["status"]) == Some("True")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 1}, "spec": {"minAvailable": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1,
                "desiredHealthy": 1}})
    }

    fn pod(ready: &str) -> Value {
        json!({"metadata": {"name": "p"}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn a_budget_gives_what_it_has_and_no_more() {
        let mut one = budget(1);
        disrupt(&mut one, &pod("True")).unwrap();
        assert_eq!(one["status"]["disruptionsAllowed"], 0);
        assert!(one["status"]["disruptedPods"]["p"].is_string());
        let refused = disrupt(&mut one, &pod("True")).unwrap_err();
        assert_eq!(refused.code(), 429);
        assert_eq!(
            refused.to_status()["details"]["causes"][0]["message"],
            "The disruption budget b needs 1 healthy pods and has 1 currently"
        );
        // A pod that does not work costs nothing while enough others do.
        disrupt(&mut one, &pod("False")).unwrap();

        let mut unseen = budget(1);
        unseen["metadata"]["generation"] = 2.into();
        assert_eq!(disrupt(&mut unseen, &pod("True")).unwrap_err().code(), 429);
    }

    #[test]
    fn pods_that_do_not_run_need_no_budget() {
        for (phase, protected) in
            [("Running", true), ("Pending", false), ("Succeeded", false), ("Failed", false)]
        {
            assert_eq!(is_protected(&json!({"status": {"phase": phase}})), protected, "{phase}");
        }
    }
}
