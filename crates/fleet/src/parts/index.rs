//! Which records each pool has, at which version: an index in memory, no I/O.
//!
//! What concerns every pool is kept once; a pool has records of its own only for endpoints that concern no
//! other. Nodes without a pool are told what concerns all of them, as if they were one. A part's revision grows with each change and follows the API's revisions where it can; since another
//! server, or this one after a restart, may have something else under the same number, a reader says the
//! digest too, and what it has counts only if the history knows that very digest there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use toono_wire::pool::{Version, frame::Changes, node_key};

use super::{
    content::Content,
    objects::{Endpoint, Reach, ServiceObject, SliceObject},
};

/// Nodes of a pool that know of each other. So many are not on one wire; where there are more, who came first is
/// known.
pub(crate) const MOST_NEIGHBOURS: usize = 512;

/// The pool of a node, as far as it is known.
pub(crate) type PoolOf<'a> = &'a dyn Fn(&str) -> Option<Arc<str>>;

/// Namespace and name, with a slash between.
type Name = Arc<str>;

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Service,
    Slice,
}

/// All parts.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// What every pool has.
    all: Content,
    /// What a pool has besides.
    pools: HashMap<Arc<str>, Content>,
    services: HashMap<Name, Service>,
    slices: HashMap<Name, Slice>,
    /// The slices with endpoints on a node that concern its own pool alone.
    near: HashMap<Box<str>, BTreeSet<Name>>,
    /// The pools whose parts have nodes' records.
    homes: HashMap<Box<str>, Arc<str>>,
    /// How many of them each pool has.
    neighbours: HashMap<Arc<str>, usize>,
    nodes_listed: bool,
    revision: u64,
    /// Of lists that are being told: what they have told.
    listing: HashMap<Kind, HashSet<Name>>,
    listed: HashSet<Kind>,
    moved: Moved,
}

/// Whose parts have changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) all: bool,
    pub(crate) pools: HashSet<Arc<str>>,
}

/// What a reader is to be sent, by the versions at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    /// The pool, or nothing when all have the same, and for nodes without a pool.
    pub(crate) scope: Arc<str>,
    /// Whether there is something of the pool's own.
    own: bool,
    pub(crate) since: Version,
    pub(crate) now: Version,
}

/// A Service, or the slices of one that is not there.
#[derive(Debug, Default)]
struct Service {
    exists: bool,
    reach: Reach,
    slices: BTreeSet<Name>,
}

#[derive(Debug, Default)]
struct Slice {
    service: Name,
    /// Its endpoints, if they do not concern everyone: some may be on nodes that nobody knows.
    kept: Option<Vec<Endpoint>>,
    /// The pools that have some of these.
    pools: BTreeSet<Arc<str>>,
}

/// Whose part an endpoint is in.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Everywhere,
    Pool(Arc<str>),
    Nowhere,
}

/// Which pools an endpoint concerns.
fn concerns(reach: Reach, endpoint: &Endpoint, pool_of: PoolOf<'_>) -> Place {
    match reach {
        Reach::Everywhere => Place::Everywhere,
        Reach::Pool => pool_of(&endpoint.node).map_or(Place::Nowhere, Place::Pool),
        Reach::Nowhere => Place::Nowhere,
    }
}

fn named(namespace: &str, name: &str) -> Name {
    format!("{namespace}/{name}").into()
}

impl Moved {
    pub(crate) fn is_nothing(&self) -> bool {
        !self.all && self.pools.is_empty()
    }

    pub(crate) fn concerns(&self, pool: &str) -> bool {
        self.all || self.pools.contains(pool)
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.all |= other.all;
        self.pools.extend(other.pools);
    }
}

impl Parts {
    /// A record that every pool has.
    pub(crate) fn record(&self, key: &str) -> Option<&Arc<str>> {
        self.all.records().get(key)
    }

    /// A list of a kind begins.
    pub(crate) fn list(&mut self, kind: Kind) {
        self.listing.insert(kind, HashSet::new());
    }

    /// A list has been told wholly, at a revision: what it did not tell is gone.
    pub(crate) fn list_ended(&mut self, kind: Kind, revision: u64, pool_of: PoolOf<'_>) {
        let Some(told) = self.listing.remove(&kind) else { return };
        let gone: Vec<Name> = match kind {
            Kind::Service => {
                let there = self.services.iter().filter(|(_, service)| service.exists);
                there.map(|(name, _)| name.clone()).filter(|name| !told.contains(name)).collect()
            }
            Kind::Slice => {
                self.slices.keys().filter(|name| !told.contains(*name)).cloned().collect()
            }
        };
        for name in gone {
            let Some((namespace, name)) = name.split_once('/') else { continue };
            match kind {
                Kind::Service => self.delete_service(namespace, name, revision, pool_of),
                Kind::Slice => self.delete_slice(namespace, name, revision),
            }
        }
        let loaded = self.is_loaded();
        self.listed.insert(kind);
        self.revision = self.revision.max(revision);
        self.start_if_loaded(loaded);
    }

    /// All nodes have been told once.
    pub(crate) fn nodes_listed(&mut self) {
        let loaded = self.is_loaded();
        self.nodes_listed = true;
        self.start_if_loaded(loaded);
    }

    fn start_if_loaded(&mut self, was_loaded: bool) {
        if !was_loaded && self.is_loaded() {
            self.all.start(self.revision);
            let start = self.revision;
            self.pools.values_mut().for_each(|pool| pool.start(start));
            self.moved.all = true;
        }
    }

    /// Whether all there is has been told once. Before that no part can be told.
    pub(crate) fn is_loaded(&self) -> bool {
        self.listed.len() == 2 && self.nodes_listed
    }

    /// Whose parts have changed since this was asked last.
    pub(crate) fn take_moved(&mut self) -> Moved {
        std::mem::take(&mut self.moved)
    }

    /// A Service is there, or another than before.
    pub(crate) fn put_service(&mut self, service: &ServiceObject, pool_of: PoolOf<'_>) {
        let name = named(&service.namespace, &service.name);
        if let Some(told) = self.listing.get_mut(&Kind::Service) {
            told.insert(name.clone());
        }
        let revision = self.next(service.revision);
        let text = (service.reach != Reach::Nowhere).then_some(&*service.text);
        self.moved.all |= self.all.set(revision, &service.key(), text);
        let known = self.services.entry(name).or_default();
        known.exists = true;
        if std::mem::replace(&mut known.reach, service.reach) != service.reach {
            for slice in known.slices.clone() {
                self.place_anew(revision, &slice, service.reach, pool_of);
            }
        }
    }

    /// A Service is gone. Its slices are told as long as they are there, to everyone.
    pub(crate) fn delete_service(
        &mut self,
        namespace: &str,
        name: &str,
        revision: u64,
        pool_of: PoolOf<'_>,
    ) {
        let key = toono_wire::pool::service_key(namespace, name);
        let name = named(namespace, name);
        let revision = self.next(revision);
        self.moved.all |= self.all.set(revision, &key, None);
        let Some(known) = self.services.get_mut(&name) else { return };
        known.exists = false;
        if std::mem::take(&mut known.reach) != Reach::Everywhere {
            for slice in known.slices.clone() {
                self.place_anew(revision, &slice, Reach::Everywhere, pool_of);
            }
        }
        self.forget_if_unused(&name);
    }

    /// A slice is there, or another than before.
    pub(crate) fn put_slice(&mut self, slice: SliceObject, pool_of: PoolOf<'_>) {
        if slice.service.is_empty() {
            return self.delete_slice(&slice.namespace, &slice.name, slice.revision);
        }
        let name = named(&slice.namespace, &slice.name);
        if let Some(told) = self.listing.get_mut(&Kind::Slice) {
            told.insert(name.clone());
        }
        let revision = self.next(slice.revision);
        self.moved.all |= self.all.set(revision, &slice.key(), Some(&slice.text));
        let service = named(&slice.namespace, &slice.service);
        let known = self.slices.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut known.service, service.clone());
        if before != service {
            self.unlink(&before, &name);
        }
        let owner = self.services.entry(service).or_default();
        owner.slices.insert(name.clone());
        let reach = owner.reach;
        self.place(revision, &name, reach, slice.endpoints, pool_of);
    }

    /// A slice is gone.
    pub(crate) fn delete_slice(&mut self, namespace: &str, name: &str, revision: u64) {
        let key = toono_wire::pool::slice_key(namespace, name);
        let name = named(namespace, name);
        let revision = self.next(revision);
        self.moved.all |= self.all.set(revision, &key, None);
        if !self.slices.contains_key(&name) {
            return;
        }
        self.place(revision, &name, Reach::Everywhere, Vec::new(), &|_| None);
        if let Some(slice) = self.slices.remove(&name) {
            self.unlink(&slice.service, &name);
        }
    }

    /// A node is in another pool than before, or in one at last.
    pub(crate) fn node_moved(&mut self, node: &str, pool_of: PoolOf<'_>) {
        let Some(slices) = self.near.get(node).cloned() else { return };
        let revision = self.next(0);
        for slice in slices {
            self.place_anew(revision, &slice, Reach::Pool, pool_of);
        }
    }

    /// A node's record is this, in the part of this pool; or there is none any more.
    pub(crate) fn put_node(&mut self, node: &str, home: Option<(&str, &str)>) {
        let home = home.filter(|(pool, _)| !pool.is_empty());
        let key = node_key(node);
        let old = self.homes.get(node).cloned();
        if let Some(old) = old.filter(|old| home.is_none_or(|(pool, _)| **old != *pool)) {
            self.homes.remove(node);
            let revision = self.next(0);
            if let Some(content) = self.pools.get_mut(&old) {
                content.set(revision, &key, None);
            }
            if let Some(count) = self.neighbours.get_mut(&old) {
                *count = count.saturating_sub(1);
            }
            self.moved.pools.insert(old);
        }
        let Some((pool, text)) = home else { return };
        let known = self.pools.get(pool).and_then(|content| content.records().get(&key));
        if known.is_some_and(|known| **known == *text) {
            return;
        }
        let is_new = known.is_none();
        let pool = self.pools.get_key_value(pool).map_or_else(|| pool.into(), |(it, _)| it.clone());
        let count = self.neighbours.entry(pool.clone()).or_default();
        if is_new && *count >= MOST_NEIGHBOURS {
            return;
        }
        *count += usize::from(is_new);
        let (revision, start) = (self.next(0), self.all.start_revision());
        let content = self.pools.entry(pool.clone()).or_insert_with(|| Content::empty_since(start));
        content.set(revision, &key, Some(text));
        self.homes.insert(node.into(), pool.clone());
        self.moved.pools.insert(pool);
    }

    /// Whether it matters to any endpoint in which pool a node is.
    pub(crate) fn asks_for_pool_of(&self, node: &str) -> bool {
        self.near.contains_key(node)
    }

    /// What the parts of pools are that have nothing of their own; none before everything was told.
    pub(crate) fn common(&self) -> Option<Version> {
        let (revision, digest) = (self.all.revision(), self.all.records().digest());
        self.is_loaded().then_some(Version { revision, digest })
    }

    /// What a pool's part is now, or that of nodes without one; none before everything was told.
    pub(crate) fn version(&self, pool: &str) -> Option<Version> {
        if !self.is_loaded() {
            return None;
        }
        let (mut revision, mut digest) = (self.all.revision(), self.all.records().digest());
        if let Some(own) = self.pools.get(pool) {
            revision = revision.max(own.revision());
            digest = digest.wrapping_add(own.records().digest());
        }
        Some(Version { revision, digest })
    }

    /// The pools that have something of their own, and what their parts are now.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&Arc<str>, Version)> {
        self.pools.keys().filter_map(|pool| Some((pool, self.version(pool)?)))
    }

    /// How who has a version is to be brought to the newest one.
    pub(crate) fn plan(&self, pool: &str, since: Version) -> Option<Plan> {
        let now = self.version(pool)?;
        let own = self.pools.get(pool);
        let known = self.all.digest_at(since.revision).and_then(|digest| {
            Some(digest.wrapping_add(own.map_or(Some(0), |own| own.digest_at(since.revision))?))
        });
        let changes = self.all.count_after(since.revision)
            + own.map_or(0, |own| own.count_after(since.revision));
        let records = self.all.records().len() + own.map_or(0, |own| own.records().len());
        // Another server may call the same content by another revision.
        let is_known = known == Some(since.digest) || since.digest == now.digest;
        let since = if is_known && changes <= records.max(1) { since } else { Version::NONE };
        let scope = self.pools.get_key_value(pool).map(|(name, _)| name.clone());
        Some(Plan { own: scope.is_some(), scope: scope.unwrap_or_default(), since, now })
    }

    /// What a plan is to tell. Only with the lock held that the plan was made under.
    pub(crate) fn changes(&self, plan: &Plan) -> Changes {
        let mut changes = Changes::default();
        if plan.since.digest == plan.now.digest {
            return changes;
        }
        let own = self.pools.get(&plan.scope).filter(|_| plan.own);
        let get = |key: &str| {
            let own = own.and_then(|own| own.records().get(key));
            self.all.records().get(key).or(own).cloned()
        };
        if plan.since == Version::NONE {
            let all =
                self.all.records().iter().chain(own.iter().flat_map(|own| own.records().iter()));
            changes.changed = all.map(|(key, text)| (key.clone(), text.clone())).collect();
            return changes;
        }
        let since = plan.since.revision;
        let own = own.iter().flat_map(|own| own.changed_after(since));
        let keys: BTreeSet<&Arc<str>> = self.all.changed_after(since).chain(own).collect();
        for key in keys {
            match get(key) {
                Some(text) => changes.changed.push((key.clone(), text)),
                None => changes.gone.push(key.clone()),
            }
        }
        changes
    }

    /// Records in memory.
    pub(crate) fn len(&self) -> usize {
        let own: usize = self.pools.values().map(|pool| pool.records().len()).sum();
        self.all.records().len() + own
    }

    fn next(&mut self, revision: u64) -> u64 {
        self.revision = revision.max(self.revision + 1);
        self.revision
    }

    /// Puts the endpoints of a slice where they belong now, and takes them from where they do not.
    fn place_anew(&mut self, revision: u64, name: &Name, reach: Reach, pool_of: PoolOf<'_>) {
        let Some(slice) = self.slices.get(name) else { return };
        let endpoints = match &slice.kept {
            Some(endpoints) => endpoints.clone(),
            None => {
                let prefix = prefix(name);
                let records = self.all.records().below(&prefix);
                let endpoint = |(key, text): (&Arc<str>, &Arc<str>)| {
                    Endpoint::of_record(key.strip_prefix(&*prefix).unwrap_or_default(), text)
                };
                records.map(endpoint).collect()
            }
        };
        self.place(revision, name, reach, endpoints, pool_of);
    }

    fn place(
        &mut self,
        revision: u64,
        name: &Name,
        reach: Reach,
        endpoints: Vec<Endpoint>,
        pool_of: PoolOf<'_>,
    ) {
        let prefix = prefix(name);
        let mut everywhere = BTreeMap::new();
        let mut by_pool: BTreeMap<Arc<str>, BTreeMap<String, Box<str>>> = BTreeMap::new();
        for endpoint in &endpoints {
            let record = (format!("{prefix}{}", endpoint.address), endpoint.text.clone());
            match concerns(reach, endpoint, pool_of) {
                Place::Everywhere => everywhere.extend([record]),
                Place::Pool(pool) => by_pool.entry(pool).or_default().extend([record]),
                Place::Nowhere => {}
            }
        }
        self.moved.all |= fill(&mut self.all, revision, &prefix, &everywhere);
        let Some(slice) = self.slices.get_mut(name) else { return };
        let pools: BTreeSet<Arc<str>> = by_pool.keys().cloned().collect();
        let touched = std::mem::replace(&mut slice.pools, pools.clone());
        for pool in touched.union(&pools) {
            let start = self.all.start_revision();
            let content =
                self.pools.entry(pool.clone()).or_insert_with(|| Content::empty_since(start));
            let wanted = by_pool.get(pool).unwrap_or(const { &BTreeMap::new() });
            if fill(content, revision, &prefix, wanted) {
                self.moved.pools.insert(pool.clone());
            }
        }
        let kept = (reach != Reach::Everywhere).then(|| endpoints.clone());
        let before = std::mem::replace(&mut slice.kept, kept);
        for endpoint in before.iter().flatten() {
            if let Some(slices) = self.near.get_mut(&endpoint.node) {
                slices.remove(name);
                if slices.is_empty() {
                    self.near.remove(&endpoint.node);
                }
            }
        }
        for endpoint in endpoints.iter().filter(|_| reach == Reach::Pool) {
            self.near.entry(endpoint.node.clone()).or_default().insert(name.clone());
        }
    }

    fn unlink(&mut self, service: &Name, slice: &Name) {
        if let Some(owner) = self.services.get_mut(service) {
            owner.slices.remove(slice);
        }
        self.forget_if_unused(service);
    }

    fn forget_if_unused(&mut self, name: &Name) {
        if self.services.get(name).is_some_and(|it| !it.exists && it.slices.is_empty()) {
            self.services.remove(name);
        }
    }
}

fn prefix(name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or_default();
    SliceObject::prefix(namespace, name)
}

/// Makes the records below a prefix these. Whether that changed anything.
fn fill(
    content: &mut Content,
    revision: u64,
    prefix: &str,
    wanted: &BTreeMap<String, Box<str>>,
) -> bool {
    let there = content.records().below(prefix).map(|(key, _)| key.clone());
    let gone: Vec<Arc<str>> = there.filter(|key| !wanted.contains_key(&**key)).collect();
    let mut changed = false;
    for key in gone {
        changed |= content.set(revision, &key, None);
    }
    for (key, text) in wanted {
        changed |= content.set(revision, key, Some(text));
    }
    changed
}
