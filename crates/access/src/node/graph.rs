//! Which node runs which pod and what each pod refers to, so that "may this node read that secret?" is one
//! look-up. A change of a pod costs what the pod refers to, and nothing else.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::Value;
use toono_api::meta::{at, items_at, text_at};

use super::MIRROR_ANNOTATION;
use crate::table::Table;

/// What a pod can refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Referent {
    ConfigMap,
    PersistentVolumeClaim,
    ResourceClaim,
    Secret,
    ServiceAccount,
}

/// Pods by node, and nodes by what their pods refer to.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pods: Table<PodEntry>,
    /// For each kind: namespace and name → the nodes whose pods refer to it, with how many pods do.
    readers: HashMap<Referent, Table<HashMap<Arc<str>, usize>>>,
    /// Persistent volumes by name: namespace and name of the claim that each is bound to.
    volumes: HashMap<Box<str>, (Box<str>, Box<str>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PodEntry {
    node: Arc<str>,
    uid: Box<str>,
    references: BTreeSet<(Referent, Box<str>)>,
}

impl Graph {
    /// Takes in a pod, new or changed. A pod that is on no node gives no node anything.
    pub fn apply_pod(&mut self, pod: &Value) {
        let namespace = text_at(pod, &["metadata", "namespace"]).unwrap_or_default();
        let name = text_at(pod, &["metadata", "name"]).unwrap_or_default();
        let node = text_at(pod, &["spec", "nodeName"]).unwrap_or_default();
        if node.is_empty() {
            self.remove_pod(namespace, name);
            return;
        }
        let uid = text_at(pod, &["metadata", "uid"]).unwrap_or_default().into();
        let entry = PodEntry { node: node.into(), uid, references: references(pod) };
        if self.pods.get(namespace, name) == Some(&entry) {
            return;
        }
        self.remove_pod(namespace, name);
        for (kind, referent) in &entry.references {
            let nodes = self.readers.entry(*kind).or_default().entry(namespace, referent);
            *nodes.entry(Arc::clone(&entry.node)).or_default() += 1;
        }
        self.pods.insert(namespace, name, entry);
    }

    /// Forgets a pod, and with it what its node could read only because of it.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(entry) = self.pods.remove(namespace, name) else { return };
        for (kind, referent) in &entry.references {
            let Some(table) = self.readers.get_mut(kind) else { continue };
            table.shrink(namespace, referent, |nodes| {
                if let Some(count) = nodes.get_mut(&entry.node) {
                    *count -= 1;
                    if *count == 0 {
                        nodes.remove(&entry.node);
                    }
                }
                nodes.is_empty()
            });
            if table.is_empty() {
                self.readers.remove(kind);
            }
        }
    }

    /// Takes in a persistent volume, new or changed.
    pub fn apply_volume(&mut self, volume: &Value) {
        let name = text_at(volume, &["metadata", "name"]).unwrap_or_default();
        let claim = |field| text_at(volume, &["spec", "claimRef", field]).unwrap_or_default();
        match (claim("namespace"), claim("name")) {
            (_, "") => self.remove_volume(name),
            (namespace, claim) => {
                self.volumes.insert(name.into(), (namespace.into(), claim.into()));
            }
        }
    }

    /// Forgets a persistent volume.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.readers.is_empty() && self.volumes.is_empty()
    }

    /// The node that a pod is bound to, and the pod's UID.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<(&str, &str)> {
        self.pods.get(namespace, name).map(|entry| (&*entry.node, &*entry.uid))
    }

    /// Whether a pod on the node refers to the object.
    pub(crate) fn refers(&self, node: &str, kind: Referent, namespace: &str, name: &str) -> bool {
        let table = self.readers.get(&kind);
        table.and_then(|table| table.get(namespace, name)).is_some_and(|n| n.contains_key(node))
    }

    /// Whether a pod on the node claims the persistent volume.
    pub(crate) fn claims_volume(&self, node: &str, volume: &str) -> bool {
        self.volumes.get(volume).is_some_and(|(namespace, claim)| {
            self.refers(node, Referent::PersistentVolumeClaim, namespace, claim)
        })
    }
}

/// Everything that a pod refers to, in its own namespace. A mirror pod refers to nothing: its node wrote it,
/// and must not be able to write itself rights.
fn references(pod: &Value) -> BTreeSet<(Referent, Box<str>)> {
    let mut found = BTreeSet::new();
    if at(pod, &["metadata", "annotations", MIRROR_ANNOTATION]).is_some() {
        return found;
    }
    for (kind, name) in all_references(pod) {
        if !name.is_empty() {
            found.insert((kind, name.into()));
        }
    }
    let pod_name = text_at(pod, &["metadata", "name"]).unwrap_or_default();
    for volume in items_at(pod, &["spec", "volumes"]) {
        // The claim of an ephemeral volume is named after the pod and the volume.
        if let (Some(_), Some(name)) = (volume.get("ephemeral"), text_at(volume, &["name"])) {
            let claim = format!("{pod_name}-{name}");
            found.insert((Referent::PersistentVolumeClaim, claim.into()));
        }
    }
    found
}

/// What the texts of a pod refer to.
pub(super) fn all_references(pod: &Value) -> impl Iterator<Item = (Referent, &str)> {
    let account = text_at(pod, &["spec", "serviceAccountName"])
        .or_else(|| text_at(pod, &["spec", "serviceAccount"]))
        .map(|name| (Referent::ServiceAccount, name));
    let pull_secrets = items_at(pod, &["spec", "imagePullSecrets"])
        .filter_map(|secret| Some((Referent::Secret, text_at(secret, &["name"])?)));
    let claims = items_at(pod, &["spec", "resourceClaims"])
        .chain(items_at(pod, &["status", "resourceClaimStatuses"]))
        .chain(at(pod, &["status", "extendedResourceClaimStatus"]))
        .filter_map(|claim| {
            Some((Referent::ResourceClaim, text_at(claim, &["resourceClaimName"])?))
        });
    let containers = ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .filter_map(|field| at(pod, &["spec", field])?.as_array())
        .flatten()
        .flat_map(of_container);
    let volumes = items_at(pod, &["spec", "volumes"]).flat_map(of_volume);
    account.into_iter().chain(pull_secrets).chain(claims).chain(containers).chain(volumes)
}

fn of_container(container: &Value) -> impl Iterator<Item = (Referent, &str)> {
    const VARIABLE: [(Referent, &[&str]); 2] = [
        (Referent::Secret, &["valueFrom", "secretKeyRef", "name"]),
        (Referent::ConfigMap, &["valueFrom", "configMapKeyRef", "name"]),
    ];
    const SOURCE: [(Referent, &[&str]); 2] = [
        (Referent::Secret, &["secretRef", "name"]),
        (Referent::ConfigMap, &["configMapRef", "name"]),
    ];
    let variables = items_at(container, &["env"]).flat_map(|item| texts(item, &VARIABLE));
    variables.chain(items_at(container, &["envFrom"]).flat_map(|item| texts(item, &SOURCE)))
}

fn of_volume(volume: &Value) -> impl Iterator<Item = (Referent, &str)> {
    const VOLUME: [(Referent, &[&str]); 12] = [
        (Referent::ConfigMap, &["configMap", "name"]),
        (Referent::PersistentVolumeClaim, &["persistentVolumeClaim", "claimName"]),
        (Referent::Secret, &["secret", "secretName"]),
        (Referent::Secret, &["azureFile", "secretName"]),
        (Referent::Secret, &["cephfs", "secretRef", "name"]),
        (Referent::Secret, &["cinder", "secretRef", "name"]),
        (Referent::Secret, &["csi", "nodePublishSecretRef", "name"]),
        (Referent::Secret, &["flexVolume", "secretRef", "name"]),
        (Referent::Secret, &["iscsi", "secretRef", "name"]),
        (Referent::Secret, &["rbd", "secretRef", "name"]),
        (Referent::Secret, &["scaleIO", "secretRef", "name"]),
        (Referent::Secret, &["storageos", "secretRef", "name"]),
    ];
    const PROJECTED: [(Referent, &[&str]); 2] =
        [(Referent::Secret, &["secret", "name"]), (Referent::ConfigMap, &["configMap", "name"])];
    let projected = items_at(volume, &["projected", "sources"]);
    texts(volume, &VOLUME).chain(projected.flat_map(|source| texts(source, &PROJECTED)))
}

fn texts<'v>(
    value: &'v Value,
    paths: &'static [(Referent, &'static [&'static str])],
) -> impl Iterator<Item = (Referent, &'v str)> {
    paths.iter().filter_map(|(kind, path)| Some((*kind, text_at(value, path)?)))
}
