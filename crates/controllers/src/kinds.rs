//! Kinds by the fields that controllers read: small decoders instead of a kind's whole type, which
//! cost compile time, program size and cache memory.
//!
//! A controller's own kinds are declared beside it with [`kind!`]; here are those that several
//! share. They are written with merge patches, or created as JSON, so that no unknown field is lost.

mod lean;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod status;
mod watched;

use std::collections::BTreeMap;

pub(crate) use lean::lean_metadata;

use k8s_openapi::{
    ByteString,
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, Time},
        util::intstr::IntOrString,
    },
};
use kube::{Client, Resource, api::PostParams, core::Request};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Says which kind a struct with a `metadata` field is:
/// `kind!(Name, scope, "group", "version", "Kind", "plural")`. Scope is `NamespaceResourceScope` or
/// `ClusterResourceScope`; the core group is `""`.
macro_rules! kind {
    ($type:ty, $scope:ident, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = k8s_openapi::$scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(
                &mut self,
            ) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use kind;

/// Creates an object from JSON; `apiVersion` and `kind` are filled in. `namespace` is `None` for
/// cluster scope.
pub(crate) async fn create<K>(
    client: &Client,
    namespace: Option<&str>,
    mut object: Value,
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), K::api_version(&()).into());
        fields.insert("kind".to_owned(), K::kind(&()).into());
    }
    let body = serde_json::to_vec(&object).map_err(kube::Error::SerdeError)?;
    let request = Request::new(K::url_path(&(), namespace))
        .create(&PostParams::default(), body)
        .map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

/// Replaces an object by one that was read before and changed; refused when it changed meanwhile.
pub(crate) async fn replace<K>(client: &Client, object: &K) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
{
    let (request, name, body) = prepare(object)?;
    let request =
        request.replace(name, &PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

/// The same for a part of the object below its path, such as `status`.
pub(crate) async fn replace_part<K>(
    client: &Client,
    object: &K,
    part: &str,
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
{
    let (request, name, body) = prepare(object)?;
    let request = request
        .replace_subresource(part, name, &PostParams::default(), body)
        .map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

/// Its path, its name, and its bytes.
fn prepare<K>(object: &K) -> Result<(Request, &str, Vec<u8>), kube::Error>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let mut body = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    if let Some(fields) = body.as_object_mut() {
        fields.insert("apiVersion".to_owned(), K::api_version(&()).into());
        fields.insert("kind".to_owned(), K::kind(&()).into());
    }
    let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
    let metadata = object.meta();
    let name = metadata.name.as_deref().unwrap_or_default();
    Ok((Request::new(K::url_path(&(), metadata.namespace.as_deref())), name, body))
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: NamespaceSpec,
    pub(crate) status: NamespaceStatus,
}
kind!(Namespace, ClusterResourceScope, "", "v1", "Namespace", "namespaces");

impl Namespace {
    /// Objects may be made in it.
    pub(crate) fn is_active(&self) -> bool {
        self.metadata.deletion_timestamp.is_none()
            && self.status.phase.as_deref() != Some("Terminating")
    }
}

/// What a namespace's removal waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NamespaceSpec {
    pub(crate) finalizers: Vec<String>,
}

/// How far a namespace's removal is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NamespaceStatus {
    pub(crate) phase: Option<String>,
    pub(crate) conditions: Vec<Condition>,
}

/// A condition of any kind of object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_update_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_transition_time: Option<Time>,
}

impl Condition {
    pub(crate) fn new(type_: &str, status: bool, reason: &str, message: String) -> Self {
        Self {
            type_: type_.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            observed_generation: None,
            last_update_time: None,
            last_transition_time: Some(Time(jiff::Timestamp::now())),
        }
    }

    /// Puts it in the place of the one of its type; whether that changed anything. The time of
    /// the transition is kept while the status stays.
    pub(crate) fn set(mut self, conditions: &mut Vec<Self>) -> bool {
        let Some(old) = conditions.iter_mut().find(|old| old.type_ == self.type_) else {
            conditions.push(self);
            return true;
        };
        if old.status == self.status {
            self.last_transition_time = old.last_transition_time.take();
        }
        let changed = old.status != self.status
            || old.reason != self.reason
            || old.message != self.message
            || old.observed_generation != self.observed_generation;
        *old = self;
        changed
    }
}

/// A secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Secret {
    pub(crate) metadata: ObjectMeta,
    pub(crate) data: BTreeMap<String, ByteString>,
}
kind!(Secret, NamespaceResourceScope, "", "v1", "Secret", "secrets");

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: ServiceSpec,
}
kind!(Service, NamespaceResourceScope, "", "v1", "Service", "services");

/// What a service's endpoints depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(crate) type_: Option<String>,
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<ServicePort>,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: String,
    pub(crate) ip_families: Vec<String>,
    pub(crate) publish_not_ready_addresses: bool,
    pub(crate) traffic_distribution: Option<String>,
}

/// One port of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) protocol: Option<String>,
    pub(crate) port: i32,
    pub(crate) target_port: Option<IntOrString>,
    pub(crate) app_protocol: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_small_kind_reads_a_whole_object() {
        let service: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default", "uid": "u"},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.0.0.1", "sessionAffinity": "None",
                "ports": [{"port": 80, "targetPort": "http"}]},
            "status": {"loadBalancer": {}}}))
        .unwrap();
        assert_eq!(service.spec.ports.len(), 1);
        assert_eq!(Service::url_path(&(), Some("default")), "/api/v1/namespaces/default/services");
    }
}
