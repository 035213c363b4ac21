//! `update`, and the part that every change of an existing object shares.

use http::{Response, StatusCode};
use serde_json::Value;
use toono_api::{
    ApiError, Resource, UserInfo,
    kinds::{certificates::CERTIFICATE_SIGNING_REQUEST, pod_parts},
    meta::{items_at, text_at},
};
use toono_apply::managed;
use toono_http::Body;
use toono_mvcc::{Draft, Entry, Expect, Op, Rev, Txn};
use toono_store::CommitError;

use super::{Call, Record, Written, approval, commit_failed, managers, prepare, renew, scale};
use crate::{
    admission::{self, Charge, Operation, Review},
    encode,
    json::Document,
    limits, liveness, namespaces,
    query::WriteOptions,
    respond,
    server::{ApiServer, key},
};

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status (if the kind keeps it apart).
    Desired,
    /// The status alone.
    Status,
    /// What a namespace's removal waits for.
    Finalizers,
    /// Whether a certificate request is approved.
    Approval,
    /// The containers that were added to a pod.
    EphemeralContainers,
    /// What a pod's containers may use.
    Resources,
}

/// Which object is changed, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) user: &'a UserInfo,
    pub(super) resource: &'a Resource,
    /// Empty for the object itself.
    pub(super) subresource: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) part: Part,
    pub(super) options: WriteOptions<'a>,
}

impl Call<'_> {
    pub(crate) async fn update(&mut self, sent: Document) -> Result<Response<Body>, ApiError> {
        let Document { value: sent, repeated } = sent;
        self.repeated = repeated;
        if self.target.subresource_name() == "scale" {
            return self.scale("UpdateOptions", |_| Ok(sent.clone())).await;
        }
        let change = self.change("UpdateOptions")?;
        let written = modify(self.server, change, |_| Ok(sent.clone())).await?;
        self.written(&written)
    }

    /// The change that the path asks for. `options` is the kind of the options that the verb takes.
    pub(super) fn change(&self, options: &str) -> Result<Change<'_>, ApiError> {
        let part = match self.target.subresource_name() {
            "" => Part::Desired,
            "status" => Part::Status,
            "finalize" => Part::Finalizers,
            "approval" => Part::Approval,
            "ephemeralcontainers" => Part::EphemeralContainers,
            "resize" => Part::Resources,
            _ => return Err(ApiError::MethodNotAllowed),
        };
        self.change_of(part, options)
    }

    fn change_of(&self, part: Part, options: &str) -> Result<Change<'_>, ApiError> {
        Ok(Change {
            user: self.user,
            resource: &self.target.resource,
            subresource: self.target.subresource_name(),
            namespace: self.target.namespace,
            name: self.target.name,
            part,
            options: self.write_options(options)?,
        })
    }

    /// The change of the number of replicas.
    pub(super) fn scale_change(&self, options: &str) -> Result<Change<'_>, ApiError> {
        self.change_of(Part::Desired, options)
    }

    pub(super) fn written(&self, written: &Written) -> Result<Response<Body>, ApiError> {
        let form = self.form()?;
        let mut response = form.response(StatusCode::OK, self.resource(), &written.entry.value)?;
        respond::warn(&mut response, &written.warnings);
        Ok(response)
    }

    /// Changes the number of replicas through the `Scale` that `to` makes of the present one.
    pub(super) async fn scale(
        &self,
        options: &str,
        to: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Response<Body>, ApiError> {
        let change = self.scale_change(options)?;
        let written = modify(self.server, change, |current| {
            let resource = self.resource();
            scale::applied(resource, current, &to(&scale::of(resource, current)?)?)
        })
        .await?;
        let scaled = encode::decode(self.resource(), &written.entry)?;
        Ok(respond::value(&scale::of(self.resource(), &scaled)?))
    }
}

/// Changes an object: `edit` makes the new one of the present one. When the new one names no other
/// revision than the present, a write that comes between is no conflict: the edit is made again.
pub(super) async fn modify(
    server: &ApiServer,
    change: Change<'_>,
    edit: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Written, ApiError> {
    let Change { user, resource, subresource, namespace, name, .. } = change;
    for _ in 0..limits::CONFLICT_RETRIES {
        let entry = server.existing(resource, namespace, name)?;
        let old = encode::decode(resource, &entry)?;
        let sent = edit(&old)?;
        if liveness::are_node_leases(resource, namespace)
            && let Some(written) = renew::renew(server, change, &entry, &old, &sent).await?
        {
            return Ok(written);
        }
        let (mut new, mut warnings) = next_state(change, &old, sent)?;
        let record = change.options.record;
        managers::record(server, resource, subresource, record, &old, &mut new);
        let review = Review {
            server,
            user,
            operation: Operation::Update,
            resource,
            subresource,
            namespace,
            name,
            old: Some(&old),
            dry_run: change.options.dry_run,
        };
        warnings.extend(admission::mutate(&review, &mut new).await?);
        count_generation(change, &old, &mut new)?;
        validate(change, &new, &old)?;
        warnings.extend(admission::validate(&review, &new).await?);
        if record == Record::Applied {
            managed::keep_times(&old, &mut new);
        }
        if new == old {
            return Ok(Written { entry, warnings });
        }
        let charge = admission::charge(&review, &mut new)?;
        let draft = encode::draft(resource, &new);
        if change.options.dry_run {
            return Ok(Written { entry: unwritten(entry, &draft), warnings });
        }
        if let Some(entry) = write(server, entry, &new, draft, charge).await? {
            return Ok(Written { entry, warnings });
        }
    }
    Err(ApiError::modified(resource.group_resource(), name))
}

/// What a dry run answers: the object as it would be, at the revision at which it still is.
pub(super) fn unwritten(entry: Entry, draft: &Draft) -> Entry {
    Entry { value: draft.seal(entry.modified), ..entry }
}

/// Writes over the version that was read; `None` when another write came first.
async fn write(
    server: &ApiServer,
    read: Entry,
    new: &Value,
    draft: Draft,
    charge: Charge,
) -> Result<Option<Entry>, ApiError> {
    let (expect, guards) = match liveness::is_kept_by_session(server, &read)? {
        false => (Expect::At(read.modified), Vec::new()),
        // What was made of its Node becomes an object of its own.
        true => {
            (Expect::Absent, vec![(liveness::node_key(read.key.name()), Expect::At(read.modified))])
        }
    };
    let key = read.key.clone();
    let op = if may_go(new) {
        Op::Delete { key, last: draft }
    } else {
        Op::Put { key, value: draft, owner: read.owner }
    };
    let mut txn = Txn { guards, ops: vec![(expect, op)] };
    txn.guards.extend(charge.guards);
    txn.ops.extend(charge.ops);
    match server.inner.store.commit(txn).await {
        Ok(committed) => Ok(committed.entries.into_iter().next()),
        Err(CommitError::Conflict { .. }) => Ok(None),
        Err(error) => Err(commit_failed(&error)),
    }
}

/// Whether nothing holds an object that is being deleted any more.
pub(crate) fn may_go(object: &Value) -> bool {
    let deleting = text_at(object, &["metadata", "deletionTimestamp"]).is_some();
    let grace = toono_api::meta::at(object, &["metadata", "deletionGracePeriodSeconds"]);
    deleting
        && grace.and_then(Value::as_i64).unwrap_or(0) == 0
        && items_at(object, &["metadata", "finalizers"]).next().is_none()
        && items_at(object, &["spec", "finalizers"]).next().is_none()
}

/// What is stored of what was sent.
fn next_state(
    change: Change<'_>,
    old: &Value,
    mut sent: Value,
) -> Result<(Value, Vec<String>), ApiError> {
    let Change { resource, namespace, name, part, options, .. } = change;
    check_identity(resource, name, old, &mut sent)?;
    prepare::place(resource, &mut sent, namespace)?;
    let (mut new, warnings) = prepare::decode(resource, sent, options)?;
    keep_metadata(&mut new, old)?;
    match part {
        Part::Status if resource.is(&CERTIFICATE_SIGNING_REQUEST) => {
            let written = with_status_of(resource, old, &new)?;
            new = approval::with_kept_approval(&written, old, ApiServer::now());
        }
        Part::Status => new = with_status_of(resource, old, &new)?,
        Part::Approval => new = approval::with_approval_of(old, &new, ApiServer::now()),
        Part::Finalizers => new = namespaces::with_finalizers_of(old, &new),
        Part::EphemeralContainers | Part::Resources => new = with_pod_part_of(change, old, new),
        Part::Desired if resource.strategy.has_status => copy(&mut new, old, "status"),
        Part::Desired => {}
    }
    if part == Part::Desired {
        resource.behaviour.default(&mut new);
        if resource.is(&toono_api::kinds::core::NAMESPACE) {
            new = namespaces::with_finalizers_of(&new, old);
        }
    }
    Ok((new, warnings))
}

/// The pod with the part of what was sent, which is filled in as any pod is.
fn with_pod_part_of(change: Change<'_>, old: &Value, mut sent: Value) -> Value {
    change.resource.behaviour.default(&mut sent);
    let mut merged = match change.part {
        Part::Resources => pod_parts::with_resources_of(old, &sent),
        _ => pod_parts::with_ephemeral_containers_of(old, &sent),
    };
    let record = sent.get_mut("metadata").map(Value::take).unwrap_or_default();
    if let Some(metadata) = merged.get_mut("metadata") {
        copy(metadata, &record, "managedFields");
    }
    merged
}

fn validate(change: Change<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
    let resource = change.resource;
    match change.part {
        Part::EphemeralContainers => {
            prepare::judge(resource, new, pod_parts::ephemeral_containers_rules(new, old))
        }
        Part::Resources => prepare::judge(resource, new, pod_parts::resize_rules(new, old)),
        _ => prepare::validate(resource, new, Some(old)),
    }
}

/// Counts a change of what is desired.
fn count_generation(change: Change<'_>, old: &Value, new: &mut Value) -> Result<(), ApiError> {
    let desires =
        matches!(change.part, Part::Desired | Part::EphemeralContainers | Part::Resources);
    let counts = change.resource.strategy.counts_generation && desires;
    if counts && desired_differs(change.resource, new, old) {
        let count = toono_api::meta::at(old, &["metadata", "generation"]).and_then(Value::as_i64);
        encode::metadata(new)?.insert("generation".into(), (count.unwrap_or(0) + 1).into());
    }
    Ok(())
}

/// The object is the one of the path, and the version that the client knows is the present one.
fn check_identity(
    resource: &Resource,
    name: &str,
    old: &Value,
    sent: &mut Value,
) -> Result<(), ApiError> {
    let metadata = encode::metadata(sent)?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
    if !text("name").is_empty() && text("name") != name {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            text("name")
        )));
    }
    let old_text = |field: &str| text_at(old, &["metadata", field]).unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != old_text("uid") {
        return Err(ApiError::Conflict {
            resource: resource.group_resource(),
            name: name.to_owned(),
            why: format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                text("uid"),
                old_text("uid")
            ),
        });
    }
    let version = text("resourceVersion");
    if !version.is_empty() && version != "0" && version != old_text("resourceVersion") {
        return Err(ApiError::modified(resource.group_resource(), name));
    }
    metadata.insert("name".to_owned(), name.into());
    Ok(())
}

/// Metadata that clients cannot change.
const KEPT_METADATA: [&str; 7] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
];

fn keep_metadata(new: &mut Value, old: &Value) -> Result<(), ApiError> {
    let metadata = encode::metadata(new)?;
    for field in KEPT_METADATA {
        match old.get("metadata").and_then(|metadata| metadata.get(field)) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.remove("selfLink");
    // Finalizers cannot be added once deletion began: nobody would wait for them.
    if let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut)
        && text_at(old, &["metadata", "deletionTimestamp"]).is_some()
    {
        finalizers.retain(|one| items_at(old, &["metadata", "finalizers"]).any(|had| had == one));
    }
    Ok(())
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

/// A status write of a built-in kind also carries labels, annotations and finalizers, as in
/// Kubernetes.
fn with_status_of(resource: &Resource, old: &Value, new: &Value) -> Result<Value, ApiError> {
    let mut merged = old.clone();
    copy(&mut merged, new, "status");
    if resource.behaviour.built_in().is_none() {
        return Ok(merged);
    }
    let metadata = encode::metadata(&mut merged)?;
    for field in ["labels", "annotations", "finalizers", "managedFields"] {
        match new.get("metadata").and_then(|metadata| metadata.get(field)) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    Ok(merged)
}

/// Whether anything but metadata and a status that is kept apart differs.
fn desired_differs(resource: &Resource, new: &Value, old: &Value) -> bool {
    let desired = |object: &Value| {
        let mut fields = object.as_object().cloned().unwrap_or_default();
        fields.remove("metadata");
        if resource.strategy.has_status {
            fields.remove("status");
        }
        fields
    };
    desired(new) != desired(old)
}

/// Changes an object as the server itself, past the rules for clients' updates.
pub(crate) async fn modify_own(
    server: &ApiServer,
    resource: &Resource,
    namespace: &str,
    name: &str,
    edit: impl Fn(&mut Value) -> Result<(), ApiError>,
) -> Result<Entry, ApiError> {
    for _ in 0..limits::CONFLICT_RETRIES {
        let entry = server.current(&key(resource, namespace, name))?.ok_or_else(|| {
            ApiError::NotFound { resource: resource.group_resource(), name: name.to_owned() }
        })?;
        let old = encode::decode(resource, &entry)?;
        let mut new = old.clone();
        edit(&mut new)?;
        if new == old {
            return Ok(entry);
        }
        let draft = encode::draft(resource, &new);
        if let Some(entry) = write(server, entry, &new, draft, Charge::default()).await? {
            debug_assert!(entry.modified > Rev::ZERO);
            return Ok(entry);
        }
    }
    Err(ApiError::modified(resource.group_resource(), name))
}
