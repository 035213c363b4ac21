//! Garbage collection: what an owner leaves behind when it is deleted.
//!
//! Every kind that the API lists is watched, metadata only, into a [`graph`] of owners and
//! dependents. An object all of whose owners are gone is deleted (background); an owner with the
//! `foregroundDeletion` finalizer waits for its dependents; one with `orphan` lets them go.
//! Before anything is deleted the API is asked, so that an old graph does no harm.

mod graph;
mod member;
mod monitors;
mod pods;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, PartialObjectMeta, Preconditions},
    core::discovery::Scope,
};
use serde_json::json;
use toono_api::Uid;

use crate::{
    context::Context,
    error::{SyncError, is_conflict, is_not_found},
    key::Key,
    patch,
    queue::WorkQueue,
    worker::{self, Again},
};
pub(crate) use pods::Suspects;

use graph::{Graph, Vertex};
use monitors::{Kinds, NOT_SYNCED_RETRY};

const COMPONENT: &str = "garbage-collector-controller";
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

type MetadataApi = Api<PartialObjectMeta<DynamicObject>>;
type Metadata = PartialObjectMeta<DynamicObject>;

/// What to do with an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    /// See whether it still has owners, and whether it waits for dependents.
    Examine(Uid),
    /// Let its dependents go.
    Orphan(Uid),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Examine(uid) => write!(f, "examine {uid}"),
            Self::Orphan(uid) => write!(f, "orphan the dependents of {uid}"),
        }
    }
}

/// The collector.
struct Collector {
    context: Arc<Context>,
    graph: Mutex<Graph>,
    kinds: Mutex<Kinds>,
    queue: Arc<WorkQueue<Task>>,
}

/// Runs the collector for ever.
pub(crate) async fn run(context: Arc<Context>, suspects: Arc<Suspects>) {
    let collector = Arc::new(Collector {
        context: Arc::clone(&context),
        graph: Mutex::default(),
        kinds: Mutex::default(),
        queue: Arc::new(WorkQueue::new()),
    });
    let this = &collector;
    let sync = |task: Task| async move {
        match &task {
            Task::Examine(uid) => this.examine(uid).await,
            Task::Orphan(uid) => this.orphan(uid).await,
        }
    };
    futures::join!(
        monitors::run(&collector),
        worker::run(COMPONENT, context.config.concurrent_syncs, Arc::clone(&collector.queue), sync),
        suspects.run(&context),
    );
}

/// What became of an object's owners.
#[derive(Default)]
struct Owners {
    solid: Vec<OwnerReference>,
    dangling: Vec<OwnerReference>,
    /// They are being deleted and wait for this object.
    waiting: Vec<OwnerReference>,
}

impl Collector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kinds(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, tasks: Vec<Task>) {
        tasks.into_iter().for_each(|task| self.queue.add(task));
    }

    fn api(&self, vertex: &Vertex) -> Option<MetadataApi> {
        let (resource, scope) = self.kinds().resource(vertex.kind)?;
        let client = self.context.client.clone();
        Some(match scope {
            Scope::Namespaced => Api::namespaced_with(client, &vertex.namespace, &resource),
            Scope::Cluster => Api::all_with(client, &resource),
        })
    }

    /// The object as it is now; `None` when it is gone.
    async fn current(
        &self,
        uid: &Uid,
        vertex: &Vertex,
    ) -> Result<Option<(MetadataApi, Metadata)>, SyncError> {
        let Some(api) = self.api(vertex) else { return Ok(None) };
        let key = vertex.key();
        let found =
            api.get_opt(&vertex.name).await.map_err(SyncError::api("get", "object", &key))?;
        Ok(found
            .filter(|found| found.metadata.uid.as_deref().map(Uid::from).as_ref() == Some(uid))
            .map(|found| (api, found)))
    }

    async fn examine(&self, uid: &Uid) -> Result<Again, SyncError> {
        let Some(vertex) = self.graph().get(uid).cloned() else { return Ok(None) };
        if vertex.deleting {
            return if vertex.foreground {
                self.finish_foreground(uid, &vertex).await
            } else {
                Ok(None)
            };
        }
        if vertex.owners.is_empty() {
            return Ok(None);
        }
        let Some((api, object)) = self.current(uid, &vertex).await? else { return Ok(None) };
        let owners = self.classify(&object, &vertex).await?;
        if owners.solid.is_empty() && owners.dangling.is_empty() && owners.waiting.is_empty() {
            return Ok(None);
        }
        if !owners.solid.is_empty() {
            if owners.dangling.is_empty() && owners.waiting.is_empty() {
                return Ok(None);
            }
            // Others still own it: it only forgets those that are gone or going.
            return self.set_owners(&api, &object, &owners.solid, &vertex.key()).await;
        }
        let has_dependents = !self.graph().dependents(uid).is_empty();
        let params = if !owners.waiting.is_empty() && has_dependents {
            // Its owner waits for it, so it has to wait for its own dependents.
            DeleteParams::foreground()
        } else if has_finalizer(&object, ORPHAN) {
            DeleteParams::orphan()
        } else if has_finalizer(&object, FOREGROUND) {
            DeleteParams::foreground()
        } else {
            DeleteParams::background()
        };
        // The owners were judged for this very version of the object.
        let only_this = Preconditions {
            uid: object.metadata.uid.clone(),
            resource_version: object.metadata.resource_version.clone(),
        };
        ignore_gone(
            api.delete(&vertex.name, &params.preconditions(only_this)).await.map(drop),
            "delete",
            &vertex,
        )
    }

    async fn classify(&self, object: &Metadata, vertex: &Vertex) -> Result<Owners, SyncError> {
        let mut owners = Owners::default();
        for reference in object.metadata.owner_references.iter().flatten() {
            let known = self
                .graph()
                .get(&reference.uid.as_str().into())
                .map(|owner| owner.deleting && owner.foreground);
            let waits = match known {
                Some(waits) => Some(waits),
                None => self.ask_for_owner(reference, vertex).await?,
            };
            match waits {
                Some(true) if reference.block_owner_deletion == Some(true) => {
                    owners.waiting.push(reference.clone())
                }
                Some(_) => owners.solid.push(reference.clone()),
                None => owners.dangling.push(reference.clone()),
            }
        }
        Ok(owners)
    }

    /// Asks the API for an owner that the graph does not know: `None` when there is no such
    /// object, else whether it waits for its dependents.
    async fn ask_for_owner(
        &self,
        reference: &OwnerReference,
        dependent: &Vertex,
    ) -> Result<Option<bool>, SyncError> {
        let found = self.kinds().named(&reference.api_version, &reference.kind);
        let Some((resource, scope)) = found else {
            // A kind that is not served (yet): nothing is known of its objects.
            return Ok(Some(false));
        };
        let client = self.context.client.clone();
        let key = Key::new(&dependent.namespace, &reference.name);
        let api: MetadataApi = match scope {
            Scope::Cluster => Api::all_with(client, &resource),
            // A cluster-wide object cannot have an owner in a namespace.
            Scope::Namespaced if key.namespace.is_empty() => return Ok(Some(false)),
            Scope::Namespaced => Api::namespaced_with(client, &key.namespace, &resource),
        };
        let owner =
            api.get_opt(&reference.name).await.map_err(SyncError::api("get", "owner", &key))?;
        let owner = owner.filter(|owner| owner.metadata.uid.as_deref() == Some(&reference.uid));
        Ok(owner.map(|owner| {
            owner.metadata.deletion_timestamp.is_some() && has_finalizer(&owner, FOREGROUND)
        }))
    }

    /// An owner that waits for its dependents: gone are those that block it, so may it be.
    async fn finish_foreground(&self, uid: &Uid, vertex: &Vertex) -> Result<Again, SyncError> {
        if !self.kinds().synced() {
            return Ok(Some(NOT_SYNCED_RETRY));
        }
        let blocking = self.graph().blocking(uid);
        if !blocking.is_empty() {
            self.enqueue(blocking.into_iter().map(Task::Examine).collect());
            return Ok(None);
        }
        self.remove_finalizer(uid, vertex, FOREGROUND).await
    }

    async fn orphan(&self, uid: &Uid) -> Result<Again, SyncError> {
        if !self.kinds().synced() {
            return Ok(Some(NOT_SYNCED_RETRY));
        }
        let Some(vertex) = self.graph().get(uid).cloned() else { return Ok(None) };
        let dependents = self.graph().dependents(uid);
        for dependent in dependents {
            let Some(vertex) = self.graph().get(&dependent).cloned() else { continue };
            let Some((api, object)) = self.current(&dependent, &vertex).await? else { continue };
            let others: Vec<_> = object
                .metadata
                .owner_references
                .iter()
                .flatten()
                .filter(|owner| Uid::from(owner.uid.as_str()) != *uid)
                .cloned()
                .collect();
            self.set_owners(&api, &object, &others, &vertex.key()).await?;
        }
        self.remove_finalizer(uid, &vertex, ORPHAN).await
    }

    async fn set_owners(
        &self,
        api: &MetadataApi,
        object: &Metadata,
        owners: &[OwnerReference],
        key: &Key,
    ) -> Result<Again, SyncError> {
        let owners = Some(owners).filter(|owners| !owners.is_empty());
        let change = patch::on_top_of(object, json!({"metadata": {"ownerReferences": owners}}));
        match patch::merge(api, &key.name, &change).await {
            Ok(_) => Ok(None),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(SyncError::api("change the owners of", "object", key)(error)),
        }
    }

    async fn remove_finalizer(
        &self,
        uid: &Uid,
        vertex: &Vertex,
        finalizer: &str,
    ) -> Result<Again, SyncError> {
        let Some((api, object)) = self.current(uid, vertex).await? else { return Ok(None) };
        let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|known| known == finalizer) {
            return Ok(None);
        }
        let left: Vec<_> = finalizers.into_iter().filter(|known| known != finalizer).collect();
        let left = Some(left).filter(|left| !left.is_empty());
        let change = patch::on_top_of(&object, json!({"metadata": {"finalizers": left}}));
        let changed = patch::merge(&api, &vertex.name, &change).await;
        ignore_gone(changed.map(drop), "remove a finalizer of", vertex)
    }
}

fn has_finalizer(object: &Metadata, name: &str) -> bool {
    object.metadata.finalizers.iter().flatten().any(|known| known == name)
}

fn ignore_gone(
    result: Result<(), kube::Error>,
    verb: &'static str,
    vertex: &Vertex,
) -> Result<Again, SyncError> {
    match result {
        Ok(()) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) if is_conflict(&error) => Err(SyncError::Stale { key: vertex.key() }),
        Err(error) => Err(SyncError::api(verb, "object", &vertex.key())(error)),
    }
}
