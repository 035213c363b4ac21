//! Owners and dependents, by uid. Pure: changes in, tasks out.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use toono_api::Uid;

use super::{FOREGROUND, ORPHAN, Task};
use crate::key::Key;

/// The kind of an object, as an index into the kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KindId(pub(super) u32);

/// A reference from a dependent to its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    /// The owner's foreground deletion waits for this dependent.
    pub(super) blocks: bool,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vertex {
    pub(super) kind: KindId,
    // Not a key: nobody would share it.
    pub(super) namespace: Arc<str>,
    pub(super) name: Box<str>,
    pub(super) owners: Box<[Owner]>,
    pub(super) deleting: bool,
    pub(super) foreground: bool,
    pub(super) orphan: bool,
}

impl Vertex {
    pub(super) fn new(kind: KindId, metadata: &ObjectMeta) -> Self {
        let finalizer =
            |name: &str| metadata.finalizers.iter().flatten().any(|known| known == name);
        Self {
            kind,
            namespace: Arc::clone(&Key::of(metadata).namespace),
            name: metadata.name.as_deref().unwrap_or_default().into(),
            owners: metadata
                .owner_references
                .as_deref()
                .unwrap_or_default()
                .iter()
                .map(|owner| Owner {
                    uid: owner.uid.as_str().into(),
                    blocks: owner.block_owner_deletion == Some(true),
                })
                .collect(),
            deleting: metadata.deletion_timestamp.is_some(),
            foreground: finalizer(FOREGROUND),
            orphan: finalizer(ORPHAN),
        }
    }

    pub(super) fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }
}

/// A vertex in the graph, found by its uid.
#[derive(Debug)]
struct Entry(Box<(Uid, Vertex)>);

impl Borrow<Uid> for Entry {
    fn borrow(&self) -> &Uid {
        &self.0.0
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.0.hash(state);
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

impl Eq for Entry {}

/// The graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    vertices: HashSet<Entry>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &Uid) -> Option<&Vertex> {
        self.vertices.get(uid).map(|entry| &entry.0.1)
    }

    pub(super) fn dependents(&self, uid: &Uid) -> Vec<Uid> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The dependents that an owner in foreground deletion waits for.
    pub(super) fn blocking(&self, uid: &Uid) -> Vec<Uid> {
        let blocks = |dependent: &&Uid| {
            let owners = self.get(dependent).map(|vertex| &vertex.owners);
            owners.into_iter().flatten().any(|owner| owner.uid == *uid && owner.blocks)
        };
        self.dependents.get(uid).into_iter().flatten().filter(blocks).cloned().collect()
    }

    /// Takes over an object's present state.
    pub(super) fn put(&mut self, uid: Uid, vertex: Vertex) -> Vec<Task> {
        let old = self.get(&uid);
        if old == Some(&vertex) {
            return Vec::new();
        }
        let mut tasks = Vec::new();
        let before = old.map(|old| old.owners.clone()).unwrap_or_default();
        for owner in &*before {
            self.detach(&owner.uid, &uid);
        }
        for owner in &*vertex.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        if before != vertex.owners {
            // An owner may have waited for exactly this reference.
            tasks.extend(
                before
                    .iter()
                    .filter(|owner| self.waits(&owner.uid))
                    .map(|owner| examine(&owner.uid)),
            );
        }
        let troubled = vertex
            .owners
            .iter()
            .any(|owner| !self.vertices.contains(&owner.uid) || self.waits(&owner.uid));
        if troubled && !vertex.deleting {
            tasks.push(examine(&uid));
        }
        if vertex.deleting && vertex.orphan {
            tasks.push(Task::Orphan(uid.clone()));
        }
        if vertex.deleting && vertex.foreground {
            tasks.push(examine(&uid));
        }
        self.vertices.replace(Entry(Box::new((uid, vertex))));
        tasks
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, uid: &Uid) -> Vec<Task> {
        let Some(Entry(entry)) = self.vertices.take(uid) else { return Vec::new() };
        let (uid, vertex) = *entry;
        let mut tasks: Vec<_> = self.dependents(&uid).iter().map(examine).collect();
        for owner in &*vertex.owners {
            self.detach(&owner.uid, &uid);
            if self.waits(&owner.uid) {
                tasks.push(examine(&owner.uid));
            }
        }
        tasks
    }

    /// A kind was listed: what was not listed is gone.
    pub(super) fn retain(&mut self, kind: KindId, listed: &HashSet<Uid>) -> Vec<Task> {
        let gone: Vec<_> = self
            .vertices
            .iter()
            .filter(|Entry(entry)| entry.1.kind == kind && !listed.contains(&entry.0))
            .map(|Entry(entry)| entry.0.clone())
            .collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    fn waits(&self, uid: &Uid) -> bool {
        self.get(uid).is_some_and(|vertex| vertex.deleting && vertex.foreground)
    }

    fn detach(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

fn examine(uid: &Uid) -> Task {
    Task::Examine(uid.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vertex(name: &str, owners: &[&str], extra: serde_json::Value) -> Vertex {
        let owners: Vec<_> = owners
            .iter()
            .map(|uid| {
                json!({"apiVersion": "v1", "kind": "K", "name": uid, "uid": uid, "blockOwnerDeletion": true})
            })
            .collect();
        let mut metadata = json!({"name": name, "namespace": "ns", "ownerReferences": owners});
        metadata.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Vertex::new(KindId(0), &serde_json::from_value(metadata).unwrap())
    }

    fn uid(text: &str) -> Uid {
        text.into()
    }

    #[test]
    fn dependents_are_examined_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.put(uid("owner"), vertex("owner", &[], json!({}))).is_empty());
        assert!(graph.put(uid("child"), vertex("child", &["owner"], json!({}))).is_empty());
        assert_eq!(graph.remove(&uid("owner")), [Task::Examine(uid("child"))]);
        assert_eq!(
            graph.put(uid("late"), vertex("late", &["owner"], json!({}))),
            [Task::Examine(uid("late"))]
        );
    }

    #[test]
    fn foreground_deletion_waits_for_its_dependents() {
        let mut graph = Graph::default();
        let gone = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        graph.put(uid("owner"), vertex("owner", &[], json!({})));
        graph.put(uid("child"), vertex("child", &["owner"], json!({})));
        assert_eq!(
            graph.put(uid("owner"), vertex("owner", &[], gone)),
            [Task::Examine(uid("owner"))]
        );
        assert_eq!(graph.blocking(&uid("owner")), [uid("child")]);
        assert_eq!(graph.remove(&uid("child")), [Task::Examine(uid("owner"))]);
        assert!(graph.blocking(&uid("owner")).is_empty() && graph.dependents.is_empty());
    }

    #[test]
    fn orphaning_and_relisting() {
        let mut graph = Graph::default();
        let gone = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [ORPHAN]});
        assert_eq!(
            graph.put(uid("owner"), vertex("owner", &[], gone)),
            [Task::Orphan(uid("owner"))]
        );
        graph.put(uid("child"), vertex("child", &["owner"], json!({})));
        let listed = HashSet::from([uid("child")]);
        assert_eq!(graph.retain(KindId(0), &listed), [Task::Examine(uid("child"))]);
        assert!(graph.get(&uid("owner")).is_none() && graph.get(&uid("child")).is_some());
    }
}
