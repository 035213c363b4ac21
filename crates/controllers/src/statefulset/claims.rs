//! The claims of a set's pods: made with the pods, and left behind or deleted as the retention
//! policy says. Deleting is the garbage collector's work: a claim that shall go with its pod or its
//! set is owned by it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use serde::{Deserialize, Serialize};
use serde_json::json;

use k8s_openapi::api::apps::v1::StatefulSet;

use super::{pod, view::View};
use crate::{
    claim::controller_reference,
    context::Context,
    error::{SyncError, is_already_exists, is_not_found},
    key::Key,
    kinds::{self, kind},
    object::Metadata,
    patch,
};

/// A claim by what is read of it here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Claim {
    metadata: ObjectMeta,
}
kind!(Claim, NamespaceResourceScope, "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims");

/// When claims go with what used them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retention {
    deleted_with_set: bool,
    deleted_with_pod: bool,
}

impl Retention {
    fn of(view: &View<'_>) -> Self {
        let policy = view.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |text: Option<&String>| text.is_some_and(|text| text == "Delete");
        Self {
            deleted_with_set: deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
            deleted_with_pod: deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }
}

/// What came of making claims.
pub(super) enum Made {
    Ready,
    /// A claim of a former pod of that name is still being deleted.
    Wait,
}

/// Makes the claims of an ordinal that are missing; each is told to `tell`.
pub(super) async fn create(
    context: &Context,
    key: &Key,
    view: &View<'_>,
    ordinal: i32,
    tell: impl Fn(&str, Option<&kube::Error>),
) -> Result<Made, SyncError> {
    let pod_name = view.pod_name(ordinal);
    for claim in pod::claims(view, view.spec, ordinal) {
        let name = claim.pointer("/metadata/name").and_then(|name| name.as_str());
        let name = name.unwrap_or_default().to_owned();
        if let Some(known) = context.claims.get(&Key::new(&key.namespace, &name)) {
            let of_former_pod = known.metadata.owner_references.iter().flatten();
            let stale = known.metadata.deletion_timestamp.is_some()
                || of_former_pod
                    .into_iter()
                    .any(|owner| owner.kind == "Pod" && owner.name == pod_name);
            if stale {
                return Ok(Made::Wait);
            }
            continue;
        }
        let made: Result<Claim, _> =
            kinds::create(&context.client, Some(&*key.namespace), claim).await;
        match made {
            Ok(_) => tell(&name, None),
            Err(error) if is_already_exists(&error) => {}
            Err(error) => {
                tell(&name, Some(&error));
                return Err(SyncError::api("create a claim of", "StatefulSet", key)(error));
            }
        }
    }
    Ok(Made::Ready)
}

/// Sees that the claims of a pod are owned as the policy says. `condemned`: the pod is about to be
/// deleted because the set has shrunk.
pub(super) async fn own(
    context: &Context,
    set: &StatefulSet,
    view: &View<'_>,
    pod: &impl Metadata,
    ordinal: i32,
    condemned: bool,
) -> Result<(), SyncError> {
    let key = Key::of(&set.metadata);
    for (_, name) in pod::claim_names(view, ordinal) {
        let Some(claim) = context.claims.get(&Key::new(&key.namespace, &name)) else { continue };
        let before = claim.metadata.owner_references.clone().unwrap_or_default();
        let after = owners(&before, set, pod, Retention::of(view), condemned);
        if before == after {
            continue;
        }
        let api: Api<Claim> = context.api(&key.namespace);
        let change = patch::on_top_of(&*claim, json!({"metadata": {"ownerReferences": after}}));
        match patch::merge(&api, &name, &change).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(SyncError::api("own a claim of", "StatefulSet", &key)(error)),
        }
    }
    Ok(())
}

/// The owners of a claim by the policy; what other owners there are stays.
fn owners(
    before: &[OwnerReference],
    set: &StatefulSet,
    pod: &impl Metadata,
    retention: Retention,
    condemned: bool,
) -> Vec<OwnerReference> {
    let of_pod = condemned && retention.deleted_with_pod;
    let of_set = retention.deleted_with_set && !of_pod;
    let mut after = before.to_vec();
    let mut ensure = |wanted: bool, reference: OwnerReference| {
        if !wanted {
            after.retain(|owner| owner.uid != reference.uid);
        } else if !after.iter().any(|owner| owner.uid == reference.uid) {
            after.push(reference);
        }
    };
    ensure(of_set, controller_reference(set));
    ensure(
        of_pod,
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
    );
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_one_owner_at_most_of_ours() {
        let meta = |uid: &str| ObjectMeta {
            name: Some(uid.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        let set = StatefulSet { metadata: meta("set"), ..StatefulSet::default() };
        let others = vec![OwnerReference { uid: "other".to_owned(), ..OwnerReference::default() }];
        for (deleted_with_set, deleted_with_pod, condemned, expected) in [
            (false, false, false, vec!["other"]),
            (false, false, true, vec!["other"]),
            (true, false, false, vec!["other", "set"]),
            (true, false, true, vec!["other", "set"]),
            (false, true, false, vec!["other"]),
            (false, true, true, vec!["other", "pod"]),
            (true, true, false, vec!["other", "set"]),
            (true, true, true, vec!["other", "pod"]),
        ] {
            let retention = Retention { deleted_with_set, deleted_with_pod };
            let after = owners(&others, &set, &meta("pod"), retention, condemned);
            let uids: Vec<_> = after.iter().map(|owner| owner.uid.as_str()).collect();
            assert_eq!(uids, expected, "{retention:?} {condemned}");
            assert_eq!(owners(&after, &set, &meta("pod"), retention, condemned), after);
        }
    }
}
