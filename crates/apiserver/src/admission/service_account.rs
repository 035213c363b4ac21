//! Pods run as a service account: the one that they name, or the namespace's `default`; with a token for
//! it mounted unless somebody does not want that.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>

use serde_json::{Map, Value, json};
use toono_api::{
    ApiError, kinds,
    meta::{at, items_at, text_at},
};
use toono_mvcc::{Expect, Op, Owner};

use super::{Charge, Operation, Review};
use crate::{encode, server::key};

const DEFAULT: &str = "default";
/// Where clients look for their token, the CA and their namespace.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Tokens are renewed by the node; an hour, and the margin by which Kubernetes tells its own tokens.
const TOKEN_SECONDS: u32 = 3607;
/// What static pods' images carry; they are the node's, not the cluster's.
const MIRROR: [&str; 3] = ["metadata", "annotations", "kubernetes.io/config.mirror"];

/// Gives a new pod its service account.
pub(super) fn mutate(review: &Review<'_>, pod: &mut Value) -> Result<(), ApiError> {
    if !is_new_pod(review) || at(pod, &MIRROR).is_some() {
        return Ok(());
    }
    let named = text_at(pod, &["spec", "serviceAccountName"]).filter(|name| !name.is_empty());
    let name = named.unwrap_or(DEFAULT).to_owned();
    let account = account(review, &name)?;
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    spec.insert("serviceAccountName".to_owned(), name.as_str().into());
    // The older name of the same field, which clients of old still read.
    spec.insert("serviceAccount".to_owned(), name.as_str().into());
    let wanted = spec
        .get("automountServiceAccountToken")
        .or_else(|| account.get("automountServiceAccountToken"))
        .and_then(Value::as_bool);
    if wanted.unwrap_or(true) {
        mount_token(spec);
    }
    let secrets = spec.get("imagePullSecrets").and_then(Value::as_array);
    if secrets.is_none_or(Vec::is_empty)
        && let Some(own) = account.get("imagePullSecrets").filter(|own| !own.is_null())
    {
        spec.insert("imagePullSecrets".to_owned(), own.clone());
    }
    Ok(())
}

/// A new namespace has its `default` account from its first moment, so that no pod comes too early.
pub(super) fn charge(review: &Review<'_>, charge: &mut Charge) -> Result<(), ApiError> {
    if review.operation != Operation::Create || !review.resource.is(&kinds::core::NAMESPACE) {
        return Ok(());
    }
    let resource = review.server.built_in(&kinds::core::SERVICE_ACCOUNT);
    let key = key(&resource, review.name, DEFAULT);
    if review.server.current(&key)?.is_some() {
        return Ok(());
    }
    let account = json!({
        "kind": "ServiceAccount",
        "apiVersion": "v1",
        "metadata": {
            "name": DEFAULT,
            "namespace": review.name,
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": crate::verbs::whole_seconds(crate::ApiServer::now()),
        },
    });
    let value = encode::draft(&resource, &account);
    charge.ops.push((Expect::Absent, Op::Put { key, value, owner: Owner::PLATFORM }));
    Ok(())
}

pub(super) fn is_new_pod(review: &Review<'_>) -> bool {
    review.operation == Operation::Create
        && review.subresource.is_empty()
        && review.resource.is(&kinds::pod::POD)
}

fn account(review: &Review<'_>, name: &str) -> Result<Value, ApiError> {
    let resource = review.server.built_in(&kinds::core::SERVICE_ACCOUNT);
    match review.server.current(&key(&resource, review.namespace, name))? {
        Some(entry) => encode::decode(&resource, &entry),
        None => Err(review.forbidden(&format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            review.namespace
        ))),
    }
}

fn mount_token(spec: &mut Map<String, Value>) {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let suffix: String = random.chars().take(toono_api::names::GENERATED_SUFFIX_BYTES).collect();
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers {
            let has = items_at(container, &["volumeMounts"])
                .any(|mount| text_at(mount, &["mountPath"]) == Some(MOUNT_PATH));
            let Some(fields) = container.as_object_mut().filter(|_| !has) else { continue };
            let mounts = fields.entry("volumeMounts").or_insert_with(|| json!([]));
            if let Some(mounts) = mounts.as_array_mut() {
                let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
                mounts.push(mount);
                mounted = true;
            }
        }
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut().filter(|_| mounted) {
        volumes.push(token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}
