//! One watch per kind, shared: a cache of its objects with indexes, and handlers that are told of
//! each change. The cache is never ahead of the API and may be behind it.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt::Debug,
    hash::Hash,
    marker::PhantomData,
    pin::pin,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures::StreamExt;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::{
    error::{chain, is_forbidden},
    key::{Key, Keys},
    object::{Claimable, Metadata, Object},
    pods::controller_of,
};

/// What happened to one object; at least one of both is there.
pub(crate) struct Change<K> {
    /// Of an object that is gone, its last state.
    pub(crate) old: Option<Arc<K>>,
    pub(crate) new: Option<Arc<K>>,
    /// What the change before this one had as new: not always `old`, which may be newer.
    pub(crate) known: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object as last seen.
    pub(crate) fn latest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
type IndexFn<K> = fn(&K) -> Vec<Arc<str>>;

/// Names one of an informer's indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Index {
    /// By namespace.
    Namespace,
    /// By the uid of the controlling owner; objects without one are under [`orphans_of`].
    Owner,
    /// By the node that a pod is bound to.
    Node,
    /// By the service that endpoints are of, as `namespace/name`.
    Service,
    /// By the node pool: of nodes, and of what is made for a pool.
    Pool,
}

/// The owner index's entry for the objects of a namespace that no controller owns.
pub(crate) fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// The index functions that any namespaced kind can use.
pub(crate) fn by_namespace<V: Object>(object: &V) -> Vec<Arc<str>> {
    vec![Arc::clone(&object.metadata().key().namespace)]
}

/// See [`Index::Owner`].
pub(crate) fn by_owner<V: Object<Metadata: Claimable>>(object: &V) -> Vec<Arc<str>> {
    let metadata = object.metadata();
    match controller_of(metadata) {
        Some(owner) => vec![owner.uid.as_str().into()],
        None => vec![orphans_of(metadata.namespace()).into()],
    }
}

struct Cache<K> {
    objects: HashMap<Key, Arc<K>>,
    indexes: HashMap<Index, HashMap<Arc<str>, Keys>>,
}

/// The shared cache of one kind. `K` is watched; `V` is what is kept of it.
pub(crate) struct Informer<K, V = K> {
    cache: Arc<RwLock<Cache<V>>>,
    index_fns: Vec<(Index, IndexFn<V>)>,
    handlers: Vec<Handler<V>>,
    /// Only objects with these fields are watched.
    fields: Option<&'static str>,
    /// Some controller that runs goes by it: else nothing is watched.
    wanted: watch::Sender<bool>,
    synced: watch::Sender<bool>,
    watched: PhantomData<fn() -> K>,
}

impl<K, V> Informer<K, V>
where
    V: Object + From<K> + Send + Sync + 'static,
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    pub(crate) fn new(index_fns: Vec<(Index, IndexFn<V>)>) -> Self {
        let indexes = index_fns.iter().map(|(index, _)| (*index, HashMap::new())).collect();
        Self {
            cache: Arc::new(RwLock::new(Cache { objects: HashMap::new(), indexes })),
            index_fns,
            handlers: Vec::new(),
            fields: None,
            wanted: watch::Sender::new(false),
            synced: watch::Sender::new(false),
            watched: PhantomData,
        }
    }

    /// Watches only objects that a field selector selects.
    pub(crate) fn with_fields(mut self, selector: &'static str) -> Self {
        self.fields = Some(selector);
        self
    }

    /// Has `handler` told of each change, after the cache shows it. It must be quick.
    pub(crate) fn on_change(&mut self, handler: impl Fn(&Change<V>) + Send + Sync + 'static) {
        self.want();
        self.handlers.push(Box::new(handler));
    }

    /// A handle for reading the cache, for handlers of other kinds.
    pub(crate) fn reader(&self) -> Reader<V> {
        self.want();
        Reader { cache: Arc::clone(&self.cache) }
    }

    /// Completes when the first list is in the cache.
    pub(crate) async fn wait_synced(&self) {
        self.want();
        // The sender lives as long as `self`, so waiting ends only by the value.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn want(&self) {
        self.wanted.send_replace(true);
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<V>> {
        read(&self.cache).objects.get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<V>> {
        read(&self.cache).objects.values().cloned().collect()
    }

    pub(crate) fn by(&self, index: Index, value: &str) -> Vec<Arc<V>> {
        by(&self.cache, index, value)
    }

    /// Every value of an index that some object has.
    pub(crate) fn values(&self, index: Index) -> Vec<Arc<str>> {
        let cache = read(&self.cache);
        cache.indexes.get(&index).into_iter().flat_map(HashMap::keys).cloned().collect()
    }

    /// Watches for ever, once a controller goes by it; failures are retried with a jittered back-off by the stream.
    pub(crate) async fn run(&self, api: Api<K>) {
        // The sender lives as long as `self`, so waiting ends only by the value.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted).await;
        let mut config = watcher::Config::default().any_semantic();
        if let Some(fields) = self.fields {
            config = config.fields(fields);
        }
        let mut stream = pin!(watcher::watcher(api, config).default_backoff());
        let mut listed = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    listed.insert(self.put(object));
                }
                Ok(watcher::Event::InitDone) => {
                    self.retain(&listed);
                    listed = HashSet::new();
                    self.synced.send_replace(true);
                }
                Ok(watcher::Event::Apply(object)) => drop(self.put(object)),
                Ok(watcher::Event::Delete(object)) => {
                    self.delete(&Key::of(object.meta()), Some(object.into()))
                }
                Err(error) if is_refused(&error) => {
                    warn!(kind = %K::kind(&()), error = chain(&error), "may not be watched; trying again");
                }
                Err(error) => debug!(kind = %K::kind(&()), error = chain(&error), "watch restarts"),
            }
        }
    }

    fn put(&self, mut object: K) -> Key {
        // Nobody here reads them and they are often the larger half of an object.
        object.meta_mut().managed_fields = None;
        let mut new = V::from(object);
        let mut key = new.metadata().key();
        if let Some((known, _)) = read(&self.cache).objects.get_key_value(&key) {
            key = known.clone();
            new.share_key(known);
        }
        let new = Arc::new(new);
        let old = {
            let mut cache = write(&self.cache);
            let old = cache.objects.insert(key.clone(), Arc::clone(&new));
            self.reindex(&mut cache, &key, old.as_deref(), Some(&new));
            old
        };
        let unchanged = old.as_ref().is_some_and(|old| {
            old.metadata().resource_version() == new.metadata().resource_version()
        });
        if !unchanged {
            self.tell(&Change { known: old.clone(), old, new: Some(new) });
        }
        key
    }

    fn delete(&self, key: &Key, last: Option<V>) {
        let known = {
            let mut cache = write(&self.cache);
            let known = cache.objects.remove(key);
            self.reindex(&mut cache, key, known.as_deref(), None);
            known
        };
        if let Some(old) = last.map(Arc::new).or_else(|| known.clone()) {
            self.tell(&Change { old: Some(old), new: None, known });
        }
    }

    fn retain(&self, listed: &HashSet<Key>) {
        let gone: Vec<_> = read(&self.cache)
            .objects
            .keys()
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            self.delete(&key, None);
        }
    }

    fn reindex(&self, cache: &mut Cache<V>, key: &Key, old: Option<&V>, new: Option<&V>) {
        for (index, function) in &self.index_fns {
            let before = old.map(function).unwrap_or_default();
            let after = new.map(function).unwrap_or_default();
            if before == after {
                continue;
            }
            let entries = cache.indexes.entry(*index).or_default();
            for value in before {
                if entries.get_mut(&value).is_some_and(|keys| keys.remove(key)) {
                    entries.remove(&value);
                }
            }
            for value in after {
                match entries.entry(value) {
                    Entry::Occupied(keys) => keys.into_mut().insert(key.clone()),
                    Entry::Vacant(none) => drop(none.insert(Keys::One(key.clone()))),
                }
            }
        }
    }

    fn tell(&self, change: &Change<V>) {
        for handler in &self.handlers {
            handler(change);
        }
    }
}

/// Whether rights are missing, which somebody has to grant: beside another cluster's controllers that happens.
fn is_refused(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            is_forbidden(error)
        }
        _ => false,
    }
}

/// Reads an informer's cache.
pub(crate) struct Reader<K> {
    cache: Arc<RwLock<Cache<K>>>,
}

impl<K> Reader<K> {
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        read(&self.cache).objects.get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        read(&self.cache).objects.values().cloned().collect()
    }

    pub(crate) fn by(&self, index: Index, value: &str) -> Vec<Arc<K>> {
        by(&self.cache, index, value)
    }
}

fn by<K>(cache: &RwLock<Cache<K>>, index: Index, value: &str) -> Vec<Arc<K>> {
    let cache = read(cache);
    let keys = cache.indexes.get(&index).and_then(|entries| entries.get(value));
    let keys = keys.into_iter().flat_map(Keys::iter);
    keys.filter_map(|key| cache.objects.get(key).cloned()).collect()
}

fn read<K>(cache: &RwLock<Cache<K>>) -> RwLockReadGuard<'_, Cache<K>> {
    cache.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<K>(cache: &RwLock<Cache<K>>) -> RwLockWriteGuard<'_, Cache<K>> {
    cache.write().unwrap_or_else(PoisonError::into_inner)
}
