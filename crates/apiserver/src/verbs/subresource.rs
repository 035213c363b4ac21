//! Subresources that are created; a pod's binding to a node.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use toono_api::{
    ApiError,
    kinds::pod::POD,
    meta::{items_at, text_at},
    resource::Subresource,
};
use toono_http::Body;

use super::{Call, create::whole_seconds, update::modify_own};
use crate::{admission::authority, respond, server::ApiServer, tokens};

impl Call<'_> {
    pub(super) async fn create_subresource(
        &self,
        subresource: &Subresource,
        body: &Value,
    ) -> Result<Response<Body>, ApiError> {
        let target = &self.target;
        let place = (target.namespace, target.name, subresource.name);
        authority::check_subresource(self.server, self.user, &target.resource, place, body)?;
        match subresource.name {
            "binding" => self.bind(self.target.name, body).await,
            "eviction" => self.evict(body).await,
            "token" => tokens::create(self, body),
            _ => Err(ApiError::MethodNotAllowed),
        }
    }

    /// Assigns a pod of the request's namespace to a node.
    pub(super) async fn bind(
        &self,
        name: &str,
        binding: &Value,
    ) -> Result<Response<Body>, ApiError> {
        let node = text_at(binding, &["target", "name"]).filter(|node| !node.is_empty());
        let node =
            node.ok_or_else(|| ApiError::BadRequest("binding.target.name is required".to_owned()))?;
        if text_at(binding, &["target", "kind"]).is_some_and(|kind| !matches!(kind, "" | "Node")) {
            return Err(ApiError::BadRequest("binding.target.kind must be Node".to_owned()));
        }
        let (pods, namespace) = (self.server.built_in(&POD), self.target.namespace);
        let conflict = |why: String| ApiError::Conflict {
            resource: toono_api::GroupResource {
                group: String::new(),
                resource: "pods/binding".into(),
            },
            name: name.to_owned(),
            why,
        };
        modify_own(self.server, &pods, namespace, name, |pod| {
            if let Some(expected) =
                text_at(binding, &["metadata", "uid"]).filter(|uid| !uid.is_empty())
                && text_at(pod, &["metadata", "uid"]) != Some(expected)
            {
                return Err(conflict("the pod of this name is another one by now".to_owned()));
            }
            if text_at(pod, &["metadata", "deletionTimestamp"]).is_some() {
                return Err(conflict(format!(
                    "pod {name} is being deleted, cannot be assigned to a host"
                )));
            }
            match text_at(pod, &["spec", "nodeName"]).filter(|bound| !bound.is_empty()) {
                Some(bound) => {
                    return Err(conflict(format!(
                        "pod {name} is already assigned to node {bound:?}"
                    )));
                }
                None => set_node(pod, node),
            }
            Ok(())
        })
        .await?;
        Ok(respond::json(StatusCode::CREATED, success(&json!({})).to_string()))
    }
}

fn set_node(pod: &mut Value, node: &str) {
    let now = whole_seconds(ApiServer::now());
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("nodeName".to_owned(), node.into());
    }
    let mut conditions: Vec<Value> = items_at(pod, &["status", "conditions"])
        .filter(|condition| text_at(condition, &["type"]) != Some("PodScheduled"))
        .cloned()
        .collect();
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": now}));
    let status = pod
        .as_object_mut()
        .map(|fields| fields.entry("status").or_insert_with(|| Value::Object(Map::new())));
    if let Some(status) = status.and_then(Value::as_object_mut) {
        status.insert("conditions".to_owned(), conditions.into());
    }
}

/// A `Status` that says that it is done.
pub(super) fn success(details: &Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
