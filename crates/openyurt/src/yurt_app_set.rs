//! `YurtAppSet`: the same Deployment or StatefulSet in each of many pools, with what is different in some of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{node_pool::NodePoolCondition, object::object};

object! {
    /// The same workload in each of many pools.
    YurtAppSet, NamespaceResourceScope, "apps.openyurt.io", "v1beta1", "yurtappsets", {
        /// Which workload, in which pools.
        spec: YurtAppSetSpec,
        /// How far that is.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<YurtAppSetStatus>,
    }
}

/// Which workload, in which pools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct YurtAppSetSpec {
    /// The pools' names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// Or what selects them by their labels.
    #[serde(skip_serializing_if = "Option::is_none", rename = "nodepoolSelector")]
    pub node_pool_selector: Option<LabelSelector>,
    /// What each of them gets.
    pub workload: Workload,
    /// How many old revisions are kept; ten when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
}

/// What each pool gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Workload {
    /// The workload before tweaks.
    pub workload_template: WorkloadTemplate,
    /// What is different in some pools, in the order in which it is applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workload_tweaks: Vec<WorkloadTweak>,
}

/// The workload before tweaks: one of both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadTemplate {
    /// A Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment_template: Option<Template>,
    /// A StatefulSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stateful_set_template: Option<Template>,
}

/// A workload without a name. The schema leaves open what is in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Labels and annotations.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub metadata: Value,
    /// The spec.
    pub spec: Value,
}

/// What is different in some pools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadTweak {
    /// The pools' names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// What selects more pools by their labels.
    #[serde(skip_serializing_if = "Option::is_none", rename = "nodepoolSelector")]
    pub node_pool_selector: Option<LabelSelector>,
    /// What is different there.
    pub tweaks: Tweaks,
}

/// What is different.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tweaks {
    /// Another number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Other images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_images: Vec<ContainerImage>,
    /// Patches of the workload, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<Patch>,
}

/// Another image of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerImage {
    /// The container's name.
    pub name: String,
    /// The image it is to have.
    pub target_image: String,
}

/// One operation of a JSON patch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Patch {
    /// `add`, `remove` or `replace`.
    pub operation: String,
    /// A JSON pointer.
    pub path: String,
    /// `{{nodepool-name}}` in it stands for the pool's name.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub value: Value,
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct YurtAppSetStatus {
    /// The generation that this status is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How often two revisions would have had one name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// The name of the revision that is rolled out.
    pub current_revision: String,
    /// How many workloads there are.
    pub total_workloads: i32,
    /// How many of them are ready.
    pub ready_workloads: i32,
    /// How many of them are of the newest revision.
    pub updated_workloads: i32,
    /// How far the rollout is, and what is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<NodePoolCondition>,
}

/// Types of conditions.
pub mod condition {
    /// Workloads were made for all pools.
    pub const APP_DISPATCHED: &str = "AppDispatched";
    /// Workloads of pools that are no longer selected were deleted.
    pub const APP_DELETED: &str = "AppDeleted";
    /// All workloads are of the newest revision.
    pub const APP_UPDATED: &str = "AppUpdated";
    /// All workloads are ready.
    pub const APP_READY: &str = "AppReady";
    /// All pools that are named are there.
    pub const POOL_FOUND: &str = "PoolFound";
}
