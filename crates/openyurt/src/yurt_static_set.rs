//! `YurtStaticSet`: a static pod on many nodes, kept at one version.

use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::util::intstr::IntOrString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::object::object;

object! {
    /// A static pod on many nodes.
    YurtStaticSet, NamespaceResourceScope, "apps.openyurt.io", "v1alpha1", "yurtstaticsets", {
        /// Which pod, and how it is replaced.
        spec: YurtStaticSetSpec,
        /// How far that is.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<YurtStaticSetStatus>,
    }
}

/// Which pod, and how it is replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct YurtStaticSetSpec {
    /// The name of the manifest's file on nodes, without `.yaml`.
    pub static_pod_manifest: String,
    /// How static pods are replaced.
    pub upgrade_strategy: UpgradeStrategy,
    /// How many old revisions are kept; ten when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
    /// The pod, in which the schema leaves everything open; see [`YurtStaticSetSpec::pod_template`].
    #[serde(skip_serializing_if = "Value::is_null")]
    pub template: Value,
}

/// How static pods are replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UpgradeStrategy {
    /// [`ADVANCED_ROLLING_UPDATE`](crate::keys::ADVANCED_ROLLING_UPDATE), the default, or [`OTA`](crate::keys::OTA).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// How many may be down at once; a tenth when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct YurtStaticSetStatus {
    /// The generation that this status is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many nodes run the static pod.
    pub total_number: i32,
    /// How many of them are ready.
    pub ready_number: i32,
    /// How many of them are of the newest template.
    pub upgraded_number: i32,
}

impl YurtStaticSetSpec {
    /// The pod, read by its type.
    ///
    /// # Errors
    /// Where it is not a pod's template.
    pub fn pod_template(&self) -> Result<PodTemplateSpec, serde_json::Error> {
        PodTemplateSpec::deserialize(&self.template)
    }
}
