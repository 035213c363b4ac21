//! `delete` and `deletecollection`: grace, finalizers, preconditions.

use http::{Response, StatusCode};
use jiff::SignedDuration;
use serde_json::{Value, json};
use toono_api::{
    ApiError, Resource, UserInfo,
    meta::{at, items_at, text_at},
};
use toono_http::Body;
use toono_mvcc::{Entry, Expect, Op, Txn};
use toono_store::CommitError;

use super::{
    Call, commit_failed,
    create::whole_seconds,
    subresource::success,
    update::{may_go, unwritten},
};
use crate::{
    admission::{self, Charge, Operation, Review},
    encode, limits, liveness, respond,
    server::ApiServer,
};

/// How an object is deleted.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    resource_version: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    Orphan,
    Background,
    Foreground,
}

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

impl DeleteOptions {
    /// Reads a `DeleteOptions` object.
    pub(super) fn of(body: &Value) -> Result<Self, ApiError> {
        let text =
            |path: &[&str]| text_at(body, path).filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            dry_run: items_at(body, &["dryRun"]).any(|stage| stage == "All"),
            grace_seconds: at(body, &["gracePeriodSeconds"]).and_then(Value::as_i64),
            propagation: match text_at(body, &["propagationPolicy"]) {
                Some(policy) => Some(propagation(policy)?),
                // The older form of the same.
                None => at(body, &["orphanDependents"]).and_then(Value::as_bool).map(|orphan| {
                    if orphan { Propagation::Orphan } else { Propagation::Background }
                }),
            },
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
        })
    }

    /// Whether the object is the one that the client means.
    fn check(&self, resource: &Resource, object: &Value) -> Result<(), ApiError> {
        for (field, what, expected) in [
            ("uid", "UID", &self.uid),
            ("resourceVersion", "ResourceVersion", &self.resource_version),
        ] {
            let actual = text_at(object, &["metadata", field]).unwrap_or_default();
            if let Some(expected) = expected.as_deref().filter(|expected| *expected != actual) {
                let name = text_at(object, &["metadata", "name"]).unwrap_or_default();
                return Err(ApiError::Conflict {
                    resource: resource.group_resource(),
                    name: name.to_owned(),
                    why: format!(
                        "the {what} in the precondition ({expected}) does not match the {what} in record ({actual}). The object might have been deleted and then recreated"
                    ),
                });
            }
        }
        Ok(())
    }
}

fn propagation(policy: &str) -> Result<Propagation, ApiError> {
    match policy {
        "Orphan" => Ok(Propagation::Orphan),
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        other => Err(ApiError::BadRequest(format!(
            "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
        ))),
    }
}

/// What came of a deletion.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// It is gone.
    Gone(Entry),
    /// It is marked, and goes when the node or its finalizers let it.
    Marked(Entry),
}

impl Call<'_> {
    pub(crate) async fn delete(&self, body: &Value) -> Result<Response<Body>, ApiError> {
        if self.target.subresource.is_some() {
            return Err(ApiError::MethodNotAllowed);
        }
        let options = self.delete_options(body)?;
        let target = &self.target;
        match delete_object(
            self.server,
            self.user,
            &target.resource,
            target.namespace,
            target.name,
            &options,
        )
        .await?
        {
            Deleted::Gone(entry) if !target.resource.strategy.returns_deleted => {
                let object = encode::decode(&target.resource, &entry)?;
                let mut details = json!({
                    "name": target.name,
                    "kind": &*target.resource.plural,
                    "uid": text_at(&object, &["metadata", "uid"]),
                });
                if !target.resource.group.is_empty() {
                    encode::set(&mut details, "group", &*target.resource.group);
                }
                Ok(respond::value(&success(&details)))
            }
            Deleted::Marked(entry) | Deleted::Gone(entry) => {
                self.form()?.response(StatusCode::OK, &target.resource, &entry.value)
            }
        }
    }

    pub(crate) async fn delete_collection(&self, body: &Value) -> Result<Response<Body>, ApiError> {
        let form = self.form()?;
        let options = self.delete_options(body)?;
        let listed = self.listed()?;
        let mut items = Vec::with_capacity(listed.entries.len());
        for entry in listed.entries {
            let key = &entry.key;
            if liveness::is_kept_by_session(self.server, &entry)? {
                continue;
            }
            let done = delete_object(
                self.server,
                self.user,
                self.resource(),
                key.namespace(),
                key.name(),
                &options,
            );
            match done.await {
                Ok(Deleted::Gone(entry) | Deleted::Marked(entry)) => items.push(entry.value),
                Err(ApiError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let body = form.list(self.resource(), &items, self.server.revision(), None)?;
        Ok(respond::json(StatusCode::OK, body))
    }

    /// Options come in the body, and in the query for clients that send none.
    fn delete_options(&self, body: &Value) -> Result<DeleteOptions, ApiError> {
        let mut options = DeleteOptions::of(body)?;
        options.dry_run |= self.query.dry_run()?;
        if options.grace_seconds.is_none() {
            options.grace_seconds = self.query.number("gracePeriodSeconds")?;
        }
        if options.propagation.is_none() {
            options.propagation =
                self.query.text("propagationPolicy").map(propagation).transpose()?;
        }
        Ok(options)
    }
}

/// Deletes an object, or begins to.
pub(crate) async fn delete_object(
    server: &ApiServer,
    user: &UserInfo,
    resource: &Resource,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    for _ in 0..limits::CONFLICT_RETRIES {
        let entry = server.existing(resource, namespace, name)?;
        if liveness::is_kept_by_session(server, &entry)? {
            return Err(ApiError::Forbidden {
                resource: resource.group_resource(),
                name: name.to_owned(),
                why: "it is kept by the node's session, and goes with the node".to_owned(),
            });
        }
        let old = encode::decode(resource, &entry)?;
        options.check(resource, &old)?;
        let review = Review {
            server,
            user,
            operation: Operation::Delete,
            resource,
            subresource: "",
            namespace,
            name,
            old: Some(&old),
            dry_run: options.dry_run,
        };
        admission::validate(&review, &old).await?;
        let mut new = marked(resource, &old, options)?;
        let gone = may_go(&new);
        if new == old && !gone {
            return Ok(Deleted::Marked(entry));
        }
        let mut charge = Charge::default();
        if gone {
            charge = admission::release(&review, &mut new)?;
        }
        let draft = encode::draft(resource, &new);
        if options.dry_run {
            let entry = unwritten(entry, &draft);
            return Ok(if gone { Deleted::Gone(entry) } else { Deleted::Marked(entry) });
        }
        let key = entry.key.clone();
        let op = if gone {
            Op::Delete { key, last: draft }
        } else {
            Op::Put { key, value: draft, owner: entry.owner }
        };
        let mut txn = Txn { guards: charge.guards, ops: vec![(Expect::At(entry.modified), op)] };
        txn.ops.extend(charge.ops);
        match server.inner.store.commit(txn).await {
            Ok(committed) => {
                let written = committed.entries.into_iter().next();
                let written = written
                    .ok_or_else(|| ApiError::Internal("a commit without entry".to_owned()))?;
                if gone {
                    return Ok(Deleted::Gone(written));
                }
                return Ok(Deleted::Marked(written));
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(commit_failed(&error)),
        }
    }
    Err(ApiError::modified(resource.group_resource(), name))
}

/// The object as it is once its deletion has begun.
fn marked(resource: &Resource, old: &Value, options: &DeleteOptions) -> Result<Value, ApiError> {
    let mut new = old.clone();
    let grace = grace_seconds(resource, old, options);
    let before = at(old, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    let deleting = text_at(old, &["metadata", "deletionTimestamp"]).is_some();
    let metadata = encode::metadata(&mut new)?;
    // A later request may only shorten the grace.
    if !deleting || before.is_some_and(|before| grace < before) {
        let end = ApiServer::now() + SignedDuration::from_secs(grace);
        metadata.insert("deletionTimestamp".into(), whole_seconds(end).into());
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
        if let Some(count) = metadata.get("generation").and_then(Value::as_i64) {
            metadata.insert("generation".into(), (count + 1).into());
        }
        if !deleting {
            resource.behaviour.begin_deletion(&mut new);
        }
    }
    let metadata = encode::metadata(&mut new)?;
    if let Some(policy) = options.propagation {
        let present = metadata.get("finalizers").and_then(Value::as_array);
        let mut finalizers: Vec<Value> = present
            .into_iter()
            .flatten()
            .filter(|one| *one != FOREGROUND && *one != ORPHAN)
            .cloned()
            .collect();
        match policy {
            Propagation::Foreground => finalizers.push(FOREGROUND.into()),
            Propagation::Orphan => finalizers.push(ORPHAN.into()),
            Propagation::Background => {}
        }
        metadata.remove("finalizers");
        if !finalizers.is_empty() {
            metadata.insert("finalizers".into(), finalizers.into());
        }
    }
    if items_at(&new, &["spec", "finalizers"]).next().is_some()
        && let Some(status) = new.get_mut("status").and_then(Value::as_object_mut)
    {
        status.insert("phase".to_owned(), "Terminating".into());
    }
    Ok(new)
}

/// Seconds until a node may forget the object: none unless it runs on one.
fn grace_seconds(resource: &Resource, object: &Value, options: &DeleteOptions) -> i64 {
    let phase = text_at(object, &["status", "phase"]).unwrap_or_default();
    let bound = text_at(object, &["spec", "nodeName"]).is_some_and(|node| !node.is_empty());
    if !resource.strategy.graceful || !bound || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let own = at(object, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    match options.grace_seconds.or(own).unwrap_or(30) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}
