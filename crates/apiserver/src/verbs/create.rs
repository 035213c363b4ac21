//! `create`: a new object, with what the server adds to it.

use http::{Response, StatusCode};
use memchr::memmem;
use serde_json::Value;
use toono_api::{ApiError, ObjectHeader, Resource, UserInfo, kinds, meta::text_at, names};
use toono_http::Body;
use toono_mvcc::{Entry, Expect, Key, Op, Owner, Rev, Txn};
use toono_store::CommitError;

use super::{Call, Written, commit_failed, managers, prepare};
use crate::{
    admission::{self, Operation, Review},
    encode,
    json::Document,
    limits, liveness,
    query::WriteOptions,
    respond, reviews,
    server::{ApiServer, key},
};

impl Call<'_> {
    pub(crate) async fn create(&mut self, sent: Document) -> Result<Response<Body>, ApiError> {
        let Document { value: body, repeated } = sent;
        self.repeated = repeated;
        if let Some(subresource) = &self.target.subresource {
            return self.create_subresource(subresource, &body).await;
        }
        let options = self.write_options("CreateOptions")?;
        let target = &self.target;
        if reviews::handles(&target.resource) {
            let (review, warnings) = prepare::decode(&target.resource, body, options)?;
            return reviews::answer(self, review, &warnings);
        }
        if target.resource.is(&kinds::core::BINDING) {
            let (binding, _) = prepare::decode(&target.resource, body, options)?;
            let pod = text_at(&binding, &["metadata", "name"]).unwrap_or_default();
            return self.bind(pod, &binding).await;
        }
        let form = self.form()?;
        let written = create_object(
            self.server,
            self.user,
            &target.resource,
            target.namespace,
            body,
            options,
        )
        .await?;
        let mut response =
            form.response(StatusCode::CREATED, &target.resource, &written.entry.value)?;
        respond::warn(&mut response, &written.warnings);
        Ok(response)
    }
}

/// Creates an object.
pub(crate) async fn create_object(
    server: &ApiServer,
    user: &UserInfo,
    resource: &Resource,
    namespace: &str,
    mut object: Value,
    options: WriteOptions<'_>,
) -> Result<Written, ApiError> {
    // Kinds that cannot be read are answered, not kept.
    if !resource.verbs.contains(&"get") {
        return Err(ApiError::MethodNotAllowed);
    }
    if text_at(&object, &["metadata", "resourceVersion"]).is_some_and(|version| !version.is_empty())
    {
        return Err(ApiError::BadRequest(
            "resourceVersion should not be set on objects to be created".to_owned(),
        ));
    }
    encode::metadata(&mut object)?;
    prepare::place(resource, &mut object, namespace)?;
    let (mut object, mut warnings) = prepare::decode(resource, object, options)?;
    complete(resource, &mut object)?;
    resource.behaviour.default(&mut object);
    managers::record(server, resource, "", options.record, &Value::Null, &mut object);
    let prefix = name_prefix(&object);
    let given = text_at(&object, &["metadata", "name"]).unwrap_or_default().to_owned();
    let first = Review {
        server,
        user,
        operation: Operation::Create,
        resource,
        subresource: "",
        namespace,
        name: &given,
        old: None,
        dry_run: options.dry_run,
    };
    // Before anything of the namespace is looked up.
    let home = home(&first)?;
    warnings.extend(admission::mutate(&first, &mut object).await?);
    // A status may tell of what admission has added.
    set_first_status(resource, &mut object);
    for _ in 0..limits::GENERATE_NAME_RETRIES {
        let generated = prefix.as_deref().map(generated_name);
        if let Some(name) = &generated {
            encode::metadata(&mut object)?.insert("name".into(), name.as_str().into());
            // Some defaults are made of the name.
            resource.behaviour.default(&mut object);
        }
        let review = Review { name: generated.as_deref().unwrap_or(&given), ..first };
        prepare::validate(resource, &object, None)?;
        warnings.extend(admission::validate(&review, &object).await?);
        match insert(&review, &mut object, home.as_ref()).await {
            Err(ApiError::AlreadyExists { .. }) if prefix.is_some() => {}
            Err(error) => return Err(error),
            Ok(entry) => return Ok(Written { entry, warnings }),
        }
    }
    Err(ApiError::Internal("every generated name was taken".to_owned()))
}

fn set_first_status(resource: &Resource, object: &mut Value) {
    if !resource.strategy.has_status {
        return;
    }
    let status = (resource.strategy.initial_status)(object);
    let Some(fields) = object.as_object_mut() else { return };
    match status {
        Value::Null => fields.remove("status"),
        status => fields.insert("status".to_owned(), status),
    };
}

/// Sets what only the server sets.
fn complete(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let metadata = encode::metadata(object)?;
    for field in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), whole_seconds(ApiServer::now()).into());
    if resource.strategy.counts_generation {
        metadata.insert("generation".into(), 1.into());
    }
    Ok(())
}

/// RFC 3339 without fractions, as Kubernetes writes `metav1.Time`.
pub(crate) fn whole_seconds(moment: jiff::Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The prefix of a name that is to be generated.
fn name_prefix(object: &Value) -> Option<String> {
    let named = text_at(object, &["metadata", "name"]).is_some_and(|name| !name.is_empty());
    let prefix =
        text_at(object, &["metadata", "generateName"]).filter(|prefix| !prefix.is_empty())?;
    (!named).then(|| prefix.to_owned())
}

/// Letters and digits that make no words, as Kubernetes picks them.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

fn generated_name(prefix: &str) -> String {
    let room = names::LABEL_MAX_BYTES - names::GENERATED_SUFFIX_BYTES;
    let mut name: String = prefix.chars().take(room).collect();
    let random = uuid::Uuid::new_v4();
    for byte in random.as_bytes().iter().take(names::GENERATED_SUFFIX_BYTES) {
        let letter = SUFFIX_ALPHABET.get(usize::from(*byte) % SUFFIX_ALPHABET.len());
        name.push(char::from(letter.copied().unwrap_or(b'x')));
    }
    name
}

/// Creates an object in a namespace that was fit for it as it was `seen`.
async fn insert(
    review: &Review<'_>,
    object: &mut Value,
    seen: Option<&Entry>,
) -> Result<Entry, ApiError> {
    let Review { server, resource, namespace, name, .. } = *review;
    let key = key(resource, namespace, name);
    let taken =
        || ApiError::AlreadyExists { resource: resource.group_resource(), name: name.to_owned() };
    // What a failed try was given is not asked for by the next one.
    if liveness::are_node_leases(resource, namespace)
        && server.existing(resource, namespace, name).is_ok()
    {
        return Err(taken());
    }
    let asked = resource.is(&kinds::service::SERVICE).then(|| object.clone());
    let mut home = seen.cloned();
    loop {
        asked.iter().for_each(|asked| object.clone_from(asked));
        let charge = admission::charge(review, object)?;
        if review.dry_run {
            return match server.current(&key)? {
                Some(_) => Err(taken()),
                None => Ok(unwritten(key, object)),
            };
        }
        let owner = home.as_ref().map_or(Owner::PLATFORM, |namespace| namespace.owner.clone());
        let op = Op::Put { key: key.clone(), value: encode::draft(resource, object), owner };
        let mut txn = Txn { guards: charge.guards, ops: vec![(Expect::Absent, op)] };
        let guard = |namespace: &Entry| (namespace.key.clone(), Expect::At(namespace.modified));
        txn.guards.extend(home.as_ref().map(guard));
        txn.ops.extend(charge.ops);
        match server.inner.store.commit(txn).await {
            Ok(committed) => {
                let entry = committed.entries.into_iter().next();
                return entry
                    .ok_or_else(|| ApiError::Internal("a commit without entry".to_owned()));
            }
            Err(CommitError::Conflict { key: other, .. }) if other != key => {
                // The namespace, or what is charged, changed under us: look at it again.
                home = self::home(review)?;
            }
            Err(CommitError::Conflict { .. }) => return Err(taken()),
            Err(error) => return Err(commit_failed(&error)),
        }
    }
}

/// What a dry run answers: the object without a revision.
fn unwritten(key: Key, object: &Value) -> Entry {
    Entry {
        key,
        value: object.to_string().into(),
        created: Rev::ZERO,
        modified: Rev::ZERO,
        owner: Owner::PLATFORM,
    }
}

/// The namespace in which something is created; it has to stay as it is until that is done.
fn home(review: &Review<'_>) -> Result<Option<Entry>, ApiError> {
    let Review { server, resource, namespace, name, .. } = *review;
    if !resource.namespaced {
        return Ok(None);
    }
    let namespaces = server.built_in(&kinds::core::NAMESPACE);
    let entry = server.existing(&namespaces, "", namespace)?;
    // Hardly any namespace needs to be read for this.
    let may_be_deleting = memmem::find(&entry.value, b"\"deletionTimestamp\"").is_some();
    let header = may_be_deleting.then(|| ObjectHeader::parse(&entry.value));
    if header.is_some_and(|header| header.is_ok_and(|header| header.metadata.is_deleting())) {
        return Err(ApiError::Forbidden {
            resource: resource.group_resource(),
            name: name.to_owned(),
            why: format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            ),
        });
    }
    Ok(Some(entry))
}
