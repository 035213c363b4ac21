//! Endpoints as the API has them: slices, and the older kind that holds all of a service at once.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};

use crate::kinds::kind;

/// The label that names a slice's service.
pub(super) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label that names who keeps a slice.
pub(super) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// The label on what belongs to a service without an address of its own.
pub(super) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Address types.
pub(super) const IPV4: &str = "IPv4";
pub(super) const IPV6: &str = "IPv6";

/// Some of a service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    pub(super) metadata: ObjectMeta,
    pub(super) address_type: String,
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) ports: Vec<EndpointPort>,
}
kind!(
    EndpointSlice,
    NamespaceResourceScope,
    "discovery.k8s.io",
    "v1",
    "EndpointSlice",
    "endpointslices"
);

/// One pod, or one address of an endpoint outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) addresses: Vec<String>,
    pub(super) conditions: EndpointConditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hints: Option<EndpointHints>,
}

/// Addresses, uid of the target, host name.
pub(super) type Identity = (Vec<String>, Option<String>, Option<String>);

impl Endpoint {
    /// What makes it the same endpoint, whatever its state.
    pub(super) fn identity(&self) -> Identity {
        let target = self.target_ref.as_ref().and_then(|target| target.uid.clone());
        (self.addresses.clone(), target, self.hostname.clone())
    }
}

/// Whether an endpoint takes connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct EndpointConditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serving: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) terminating: Option<bool>,
}

/// Who should prefer an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointHints {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) for_zones: Vec<Named>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) for_nodes: Vec<Named>,
}

/// A name in a list of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

/// A port of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointPort {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app_protocol: Option<String>,
}

/// All endpoints of a service, as clients before slices read them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Endpoints {
    pub(super) metadata: ObjectMeta,
    pub(super) subsets: Vec<EndpointSubset>,
}
kind!(Endpoints, NamespaceResourceScope, "", "v1", "Endpoints", "endpoints");

/// Addresses with the same ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointSubset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) addresses: Vec<EndpointAddress>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) not_ready_addresses: Vec<EndpointAddress>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ports: Vec<SubsetPort>,
}

/// A port of a subset: its name is left out when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SubsetPort {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    pub(super) port: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app_protocol: Option<String>,
}

/// One address of a subset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointAddress {
    pub(super) ip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target_ref: Option<ObjectReference>,
}

/// The labels of an object.
pub(super) fn labels(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    metadata.labels.clone().unwrap_or_default()
}

/// Kubernetes writes a slice without ports as `ports: null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(
    decoder: D,
) -> Result<Vec<EndpointPort>, D::Error> {
    Ok(Option::deserialize(decoder)?.unwrap_or_default())
}
