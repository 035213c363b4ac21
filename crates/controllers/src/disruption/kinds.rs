//! A disruption budget as the API has it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{LabelSelector, ObjectMeta, Time},
    util::intstr::IntOrString,
};
use serde::{Deserialize, Serialize};

use crate::kinds::{Condition, kind};

/// How many pods of a set may be taken away at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Budget {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: BudgetSpec,
    pub(super) status: BudgetStatus,
}
kind!(
    Budget,
    NamespaceResourceScope,
    "policy",
    "v1",
    "PodDisruptionBudget",
    "poddisruptionbudgets"
);

/// What is promised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct BudgetSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) selector: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_available: Option<IntOrString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_unavailable: Option<IntOrString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unhealthy_pod_eviction_policy: Option<String>,
}

/// What may be taken away now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct BudgetStatus {
    pub(super) disruptions_allowed: i32,
    pub(super) current_healthy: i32,
    pub(super) desired_healthy: i32,
    pub(super) expected_pods: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observed_generation: Option<i64>,
    /// Pods whose eviction was allowed and that are not seen to leave yet, since when.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) disrupted_pods: BTreeMap<String, Time>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) conditions: Vec<Condition>,
}
