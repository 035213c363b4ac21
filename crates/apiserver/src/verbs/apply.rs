//! Server-side apply: `patch` with what the client wants of an object, and no more.
//!
//! The merge, and who owns what after it, is `toono_apply::managed`'s.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use toono_access::{Attributes, Request, ResourceRequest};
use toono_api::{
    ApiError, FieldError,
    meta::{at, text_at},
};
use toono_apply::managed::{self, ApplyError};
use toono_http::Body;

use super::{
    Call, Record, Written,
    create::create_object,
    managers::{invalid_options, name_error, with_write},
    scale,
    update::{Change, modify},
};
use crate::{encode, json::Document, limits, query::WriteOptions, respond, server::key, yaml};

impl Call<'_> {
    /// Applies the configuration that a body is.
    pub(super) async fn apply(&self, body: &[u8]) -> Result<Response<Body>, ApiError> {
        let manager = self.manager()?;
        let mut options = self.write_options("PatchOptions")?;
        options.record = Record::Applied;
        let undecodable =
            |error: String| ApiError::BadRequest(format!("error decoding YAML: {error}"));
        let Document { value: applied, repeated } = yaml::parse(body).map_err(undecodable)?;
        if let Some(path) = repeated.first() {
            // Of two values nobody could be said to own one.
            return Err(undecodable(format!("key {path:?} already set in map")));
        }
        if self.target.subresource_name() == "scale" {
            return self.apply_scale(manager, &applied, options).await;
        }
        let change = Change { options, ..self.change("PatchOptions")? };
        for _ in 0..limits::CONFLICT_RETRIES {
            match self.apply_to_live(change, manager, &applied).await {
                Err(ApiError::NotFound { .. }) if self.is_absent()? => {}
                outcome => return self.written(&outcome?),
            }
            match self.apply_to_nothing(manager, &applied, options).await {
                Err(ApiError::AlreadyExists { .. }) => {}
                outcome => return self.created(&outcome?),
            }
        }
        Err(ApiError::modified(self.resource().group_resource(), self.target.name))
    }

    /// Who applies: the client has to say.
    fn manager(&self) -> Result<&str, ApiError> {
        let error = match self.query.text("fieldManager") {
            None => FieldError::required("fieldManager", "is required for apply patch"),
            Some(name) => match name_error(name) {
                None => return Ok(name),
                Some(error) => error,
            },
        };
        Err(invalid_options("PatchOptions", vec![error]))
    }

    /// Whether there is no such object, and applying would create one.
    fn is_absent(&self) -> Result<bool, ApiError> {
        let target = &self.target;
        let key = key(&target.resource, target.namespace, target.name);
        Ok(target.subresource.is_none() && self.server.current(&key)?.is_none())
    }

    async fn apply_to_live(
        &self,
        change: Change<'_>,
        manager: &str,
        applied: &Value,
    ) -> Result<Written, ApiError> {
        modify(self.server, change, |live| self.merged(manager, live, applied)).await
    }

    async fn apply_to_nothing(
        &self,
        manager: &str,
        applied: &Value,
        options: WriteOptions<'_>,
    ) -> Result<Written, ApiError> {
        let target = &self.target;
        self.may_create()?;
        let mut object = self.merged(manager, &Value::Null, applied)?;
        let given = |field: &str| text_at(applied, &["metadata", field]).unwrap_or_default();
        if !given("uid").is_empty() {
            return Err(ApiError::Conflict {
                resource: target.resource.group_resource(),
                name: target.name.to_owned(),
                why: format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object \
                     was found",
                    given("uid")
                ),
            });
        }
        if !matches!(given("name"), name if name.is_empty() || name == target.name) {
            return Err(ApiError::BadRequest(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                given("name"),
                target.name
            )));
        }
        encode::metadata(&mut object)?.insert("name".into(), target.name.into());
        let Call { server, user, .. } = self;
        create_object(server, user, &target.resource, target.namespace, object, options).await
    }

    /// Applying what is not there takes the right to create it, too.
    fn may_create(&self) -> Result<(), ApiError> {
        let target = &self.target;
        self.server.inner.gate.require(&Attributes {
            user: self.user,
            verb: "create",
            request: Request::Resource(ResourceRequest {
                api_group: &target.resource.group,
                resource: &target.resource.plural,
                namespace: target.namespace,
                name: target.name,
                ..ResourceRequest::default()
            }),
        })
    }

    /// The live object with what is applied, and with the record of that.
    fn merged(&self, manager: &str, live: &Value, applied: &Value) -> Result<Value, ApiError> {
        let (resource, subresource) = (self.resource(), self.target.subresource_name());
        let force = self.query.flag("force");
        let merged = with_write(self.server, resource, subresource, manager, |write| {
            managed::apply(write, live, applied, force)
        });
        merged.map(|applied| applied.object).map_err(|error| self.refusal(error))
    }

    fn refusal(&self, error: ApplyError) -> ApiError {
        let (resource, target) = (self.resource(), &self.target);
        match error {
            ApplyError::Conflicts(conflicts) => {
                let (message, causes) = (conflicts.to_string(), conflicts.causes());
                ApiError::ApplyConflict { message, causes }
            }
            ApplyError::Shape(error) => ApiError::Untyped(format!(
                "failed to create typed patch object ({}/{}; {}, Kind={}): {error}",
                target.namespace,
                target.name,
                resource.api_version(),
                resource.kind
            )),
            ApplyError::Live(_) => ApiError::Untyped(error.to_string()),
            ApplyError::NoObject | ApplyError::ManagedFields | ApplyError::Version { .. } => {
                ApiError::BadRequest(error.to_string())
            }
        }
    }

    /// Applies a `Scale`: of its object that is the number of replicas.
    async fn apply_scale(
        &self,
        manager: &str,
        scale: &Value,
        options: WriteOptions<'_>,
    ) -> Result<Response<Body>, ApiError> {
        for (field, expected) in [("apiVersion", "autoscaling/v1"), ("kind", "Scale")] {
            let given = text_at(scale, &[field]).unwrap_or_default();
            if given != expected {
                return Err(ApiError::BadRequest(format!(
                    "Incorrect version specified in apply patch. Specified patch version: {given}, \
                     expected: {expected}"
                )));
            }
        }
        let mut applied = json!({"apiVersion": self.resource().api_version()});
        if let Some(metadata) = scale.get("metadata") {
            encode::set(&mut applied, "metadata", metadata.clone());
        }
        if let Some(replicas) = at(scale, &["spec", "replicas"]) {
            let own = &self.resource().behaviour;
            let is_set =
                replicas.as_i64().is_some_and(|count| own.set_replicas(&mut applied, count));
            if !is_set {
                encode::set(&mut applied, "spec", json!({"replicas": replicas}));
            }
        }
        let change = Change { options, ..self.scale_change("PatchOptions")? };
        let written = self.apply_to_live(change, manager, &applied).await?;
        let scaled = encode::decode(self.resource(), &written.entry)?;
        Ok(respond::value(&scale::of(self.resource(), &scaled)?))
    }

    fn created(&self, written: &Written) -> Result<Response<Body>, ApiError> {
        let mut response =
            self.form()?.response(StatusCode::CREATED, self.resource(), &written.entry.value)?;
        respond::warn(&mut response, &written.warnings);
        Ok(response)
    }
}
