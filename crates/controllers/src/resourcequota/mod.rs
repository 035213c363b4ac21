//! ResourceQuota: what a namespace uses, counted anew when something was removed.
//!
//! Admission charges what is created, in the transaction that creates it; here is given back what
//! is gone. The count is exact although others write meanwhile: the quota is read before its
//! objects are listed, and a quota that was charged in between refuses the count.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api,
    api::ListParams,
    core::{ApiResource, Request, Resource},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use toono_quota::{Amounts, Kind, Quota, counted_kind};

use crate::{
    context::Context,
    error::{SyncError, is_conflict, is_not_found},
    informer::{Change, Index, Reader},
    key::Key,
    kinds::{Service, kind, pod::Pod},
    object::Metadata,
    patch,
    pods::is_finished,
    queue::WorkQueue,
    worker::{self, Again},
};

const COMPONENT: &str = "resourcequota-controller";
/// Objects read at once: some MB of pods.
const PAGE: u32 = 500;
/// Removals come in numbers, and one count is for all of them.
const GATHERING: Duration = Duration::from_millis(100);
/// Counts that a busy namespace's charges may spoil before the pauses after failures begin.
const ATTEMPTS: usize = 4;
/// A namespace is not counted for more than about this part of the time.
const REST_PER_COUNT: u32 = 10;
/// All is counted again so often, whatever was told.
const RECOUNT: Duration = Duration::from_secs(5 * 60);
/// A kind that is not served may be soon.
const UNKNOWN_RETRY: Duration = Duration::from_secs(10);

/// A quota; its parts are read by `toono_quota`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ResourceQuota {
    metadata: ObjectMeta,
    spec: Value,
    status: Value,
}
kind!(ResourceQuota, NamespaceResourceScope, "", "v1", "ResourceQuota", "resourcequotas");

impl ResourceQuota {
    fn read(&self) -> Quota {
        Quota::read(
            &json!({"metadata": {"name": self.metadata.name}, "spec": self.spec, "status": self.status}),
        )
    }
}

/// The quota controller.
pub(crate) struct Controller {
    queue: Arc<WorkQueue<Key>>,
    /// When a quota may be counted again.
    rests: Mutex<HashMap<Key, Instant>>,
}

impl Controller {
    pub(crate) fn new(context: &mut Context) -> Self {
        let queue = Arc::new(WorkQueue::new());
        context.quotas.on_change({
            let queue = Arc::clone(&queue);
            move |change| {
                let Some(quota) = &change.new else { return };
                // Most changes are charges, and need no count.
                if change.old.is_none() || !quota.read().is_current() {
                    queue.add(Key::of(&quota.metadata));
                }
            }
        });
        let tell = |context: &Context| {
            let (queue, quotas) = (Arc::clone(&queue), context.quotas.reader());
            move |group: &str, plural: &str, namespace: &str| {
                less_used(&quotas, &queue, group, plural, namespace);
            }
        };
        let (pod, service, other) = (tell(context), tell(context), tell(context));
        context.pods.on_change(move |change: &Change<Pod>| {
            let ended = |pod: &Arc<Pod>| is_finished(pod) || pod.metadata.is_leaving();
            let before = change.old.as_ref().is_some_and(ended);
            if let Some(now) = &change.new
                && ended(now)
                && !before
            {
                pod("", "pods", now.metadata.namespace());
            }
        });
        context.services.on_change(move |change: &Change<Service>| {
            if let (Some(old), Some(new)) = (&change.old, &change.new)
                && old.spec != new.spec
            {
                service("", "services", new.metadata.namespace.as_deref().unwrap_or_default());
            }
        });
        context.served.on_removal(other);
        Self { queue, rests: Mutex::default() }
    }

    pub(crate) async fn run(self, context: Arc<Context>) {
        context.quotas.wait_synced().await;
        let workers = context.config.concurrent_syncs;
        let (this, context) = (&self, &context);
        let sync = |key: Key| async move { this.sync(context, &key).await };
        worker::run(COMPONENT, workers, Arc::clone(&self.queue), sync).await;
    }

    async fn sync(&self, context: &Context, key: &Key) -> Result<Again, SyncError> {
        let Some(quota) = context.quotas.get(key) else {
            self.rests.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(None);
        };
        let begun = Instant::now();
        let rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if let Some(until) = rests.filter(|until| *until > begun && quota.read().is_current()) {
            return Ok(Some(until - begun));
        }
        let again = recount(context, key).await?;
        let rest = Instant::now() + begun.elapsed() * REST_PER_COUNT;
        self.rests.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), rest);
        Ok(Some(again))
    }
}

/// Something in a namespace uses less: its quotas that count this kind are counted again soon.
fn less_used(
    quotas: &Reader<ResourceQuota>,
    queue: &WorkQueue<Key>,
    group: &str,
    plural: &str,
    namespace: &str,
) {
    for quota in quotas.by(Index::Namespace, namespace) {
        let hard = quota.read();
        let counts = |name| counted_kind(name) == Some((group, plural));
        if hard.wanted().names().any(counts) {
            queue.add_after(Key::of(&quota.metadata), GATHERING);
        }
    }
}

async fn recount(context: &Context, key: &Key) -> Result<Duration, SyncError> {
    let api: Api<ResourceQuota> = context.api(&key.namespace);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let stored = api.get_opt(&key.name).await;
        let stored = stored.map_err(SyncError::api("get", "ResourceQuota", key))?;
        let Some(stored) = stored else { return Ok(RECOUNT) };
        let quota = stored.read();
        let (counted, complete) = count(context, key, &quota).await?;
        let status = json!({
            "hard": quota.wanted().to_value(),
            "used": quota.recounted(&counted).to_value(),
        });
        let again = if complete { RECOUNT } else { UNKNOWN_RETRY };
        if quota.is_current() && *quota.used() == quota.recounted(&counted) {
            return Ok(again);
        }
        let change = json!({"status": patch::difference(&stored.status, &status)});
        let change = patch::on_top_of(&stored, change);
        match patch::merge_status(&api, &key.name, &change).await {
            Ok(_) => return Ok(again),
            Err(error) if is_conflict(&error) && attempt < ATTEMPTS => {}
            Err(error) => {
                return Err(SyncError::api("update the status of", "ResourceQuota", key)(error));
            }
        }
    }
}

/// What all objects use of the quota, and whether all kinds are served.
async fn count(context: &Context, key: &Key, quota: &Quota) -> Result<(Amounts, bool), SyncError> {
    let kinds: BTreeSet<(&str, &str)> = quota.wanted().names().filter_map(counted_kind).collect();
    let (mut counted, mut complete) = (Amounts::default(), true);
    for (group, plural) in kinds {
        match resource(context, group, plural) {
            Some(resource) => count_kind(context, key, quota, &resource, &mut counted).await?,
            None => complete = false,
        }
    }
    Ok((counted, complete))
}

/// The kind to list. Those of the core group are known without discovery.
fn resource(context: &Context, group: &str, plural: &str) -> Option<ApiResource> {
    let core = || ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: String::new(),
        plural: plural.to_owned(),
    };
    context.served.named(group, plural).or_else(|| group.is_empty().then(core))
}

/// One page of a list of anything.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    items: Vec<Value>,
    #[serde(default)]
    metadata: PageMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

async fn count_kind(
    context: &Context,
    key: &Key,
    quota: &Quota,
    resource: &ApiResource,
    counted: &mut Amounts,
) -> Result<(), SyncError> {
    let kind = Kind { group: &resource.group, plural: &resource.plural };
    // Of most kinds only the number counts.
    let whole = kind.group.is_empty()
        && matches!(kind.plural, "pods" | "services" | "persistentvolumeclaims");
    let url = kube::api::DynamicObject::url_path(resource, Some(&*key.namespace));
    let request = Request::new(url);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let list = if whole { request.list(&params) } else { request.list_metadata(&params) };
        let list = list.map_err(kube::Error::BuildRequest);
        let page = match list {
            Ok(list) => context.client.request::<Page>(list).await,
            Err(error) => Err(error),
        };
        let page = match page {
            Err(error) if is_not_found(&error) => return Ok(()),
            page => {
                page.map_err(SyncError::api("list what is counted by", "ResourceQuota", key))?
            }
        };
        let now = Timestamp::now();
        page.items.iter().for_each(|object| counted.add_all(&quota.count(kind, object, now)));
        match page.metadata.next.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(()),
        }
    }
}
