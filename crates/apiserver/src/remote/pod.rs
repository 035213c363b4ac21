//! What a stored pod says about itself, as far as a way into it needs it.

use std::collections::BTreeMap;

use serde::Deserialize;
use toono_api::ApiError;

/// Names the container to use when a request names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    name: String,
}

impl Pod {
    pub(super) fn parse(json: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(json)
            .map_err(|error| ApiError::Internal(format!("a stored pod does not decode: {error}")))
    }

    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The node that the pod is bound to.
    pub(super) fn node(&self) -> Option<&str> {
        Some(self.spec.node_name.as_str()).filter(|node| !node.is_empty())
    }

    /// The node, or Kubernetes' refusal to enter a pod that has none.
    pub(super) fn require_node(&self) -> Result<&str, ApiError> {
        self.node().ok_or_else(|| {
            ApiError::BadRequest(format!("pod {} does not have a host assigned", self.name()))
        })
    }

    /// The container that is asked for, or else the one that the pod's annotation names, or else
    /// its only one.
    pub(super) fn container<'a>(&'a self, asked: Option<&'a str>) -> Result<&'a str, ApiError> {
        let name = self.name();
        if let Some(asked) = asked {
            return if self.all().any(|container| container.name == asked) {
                Ok(asked)
            } else {
                Err(ApiError::BadRequest(format!("container {asked} is not valid for pod {name}")))
            };
        }
        let default = self.metadata.annotations.get(DEFAULT_CONTAINER);
        if let Some(default) = default.filter(|name| self.all().any(|one| one.name == **name)) {
            return Ok(default);
        }
        if let [only] = self.spec.containers.as_slice() {
            return Ok(&only.name);
        }
        let mut message = format!("a container name must be specified for pod {name}");
        if !self.spec.containers.is_empty() {
            message += &format!(", choose one of: [{}]", names(&self.spec.containers));
        }
        if !self.spec.init_containers.is_empty() {
            message +=
                &format!(" or one of the init containers: [{}]", names(&self.spec.init_containers));
        }
        Err(ApiError::BadRequest(message))
    }

    fn all(&self) -> impl Iterator<Item = &Container> {
        let spec = &self.spec;
        spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers)
    }
}

fn names(containers: &[Container]) -> String {
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: &serde_json::Value) -> Pod {
        Pod::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_container_is_chosen_as_kubernetes_does() {
        let one =
            pod(&json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}}));
        let two = json!({"metadata": {"name": "web"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let mut annotated = two.clone();
        annotated["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        let (two, annotated) = (pod(&two), pod(&annotated));

        assert_eq!(one.container(None), Ok("a"));
        assert_eq!(annotated.container(None), Ok("b"));
        assert_eq!(two.container(Some("i")), Ok("i"));
        let message = |result: Result<&str, ApiError>| result.unwrap_err().to_string();
        assert_eq!(message(one.container(Some("x"))), "container x is not valid for pod web");
        assert_eq!(
            message(two.container(None)),
            "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(
            message(one.require_node().map(|_| "")),
            "pod web does not have a host assigned"
        );
    }
}
