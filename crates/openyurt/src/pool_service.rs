//! `PoolService`: what a Service of type LoadBalancer is in one pool.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::LoadBalancerStatus, apimachinery::pkg::apis::meta::v1::Condition,
};
use serde::{Deserialize, Serialize};

use crate::object::object;

object! {
    /// What a Service of type LoadBalancer is in one pool.
    PoolService, NamespaceResourceScope, "network.openyurt.io", "v1alpha1", "poolservices", {
        /// Which load balancer is to care for it.
        spec: PoolServiceSpec,
        /// What that made of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<PoolServiceStatus>,
    }
}

/// Which load balancer is to care for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PoolServiceSpec {
    /// The Service's `loadBalancerClass`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
}

/// What a load balancer made of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PoolServiceStatus {
    /// Where the Service is reached in the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerStatus>,
    /// Goes into the Service's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub aggregate_to_annotations: BTreeMap<String, String>,
    /// Goes into the Service's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub aggregate_to_labels: BTreeMap<String, String>,
    /// What is there to know beyond that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
